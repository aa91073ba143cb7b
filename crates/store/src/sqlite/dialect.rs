//! What SQLite and a namespace's search attributes add to a filter's SQL.

use super::names::Namespace;
use crate::filter::ValueType;
use crate::filter::sql::Dialect;

/// Filters of one namespace in SQLite.
pub(super) struct SqliteDialect<'a> {
    pub(super) namespace: &'a Namespace,
}

impl Dialect for SqliteDialect<'_> {
    fn placeholder(&self, number: usize) -> String {
        format!("?{number}")
    }

    fn namespace_key(&self) -> i64 {
        self.namespace.key
    }

    fn named(&self, name: &str, value_type: ValueType) -> String {
        match self.column(name, value_type) {
            Some(column) => format!("v.{}", column_name(column)),
            None => extract("v.search_attributes", name),
        }
    }

    fn is_indexed(&self, name: &str, value_type: ValueType) -> bool {
        self.column(name, value_type).is_some()
    }

    fn without_index(&self, column: &str) -> String {
        format!("+{column}")
    }

    fn has_value(&self, name: &str) -> String {
        format!("{} IS NOT NULL", extract("v.search_attributes", name))
    }

    fn word_attribute(&self, name: &str) -> Option<i64> {
        let known = self.namespace.attributes.get(name);
        known.map(|attribute| attribute.id)
    }
}

impl SqliteDialect<'_> {
    fn column(&self, name: &str, value_type: ValueType) -> Option<i64> {
        let known = self.namespace.attributes.get(name);
        known
            .filter(|attribute| attribute.value_type == value_type)
            .and_then(|attribute| attribute.column)
    }
}

/// The generated column of a search attribute.
pub(super) fn column_name(column_id: i64) -> String {
    format!("attribute_{column_id}")
}

/// The value of a member of a JSON object.
pub(super) fn extract(json: &str, name: &str) -> String {
    // A path cannot hold a double quote; see `is_valid_attribute_name`.
    format!("json_extract({json}, '$.\"{}\"')", name.replace('\'', "''"))
}

/// Whether a search attribute can be found under this name.
pub(super) fn is_valid_attribute_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['"', '\\']) && !name.chars().any(char::is_control)
}
