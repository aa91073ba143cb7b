//! Names that are stored once and referred to by number: namespaces and search attributes.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::connection::{error, execute};
use crate::StoreError;
use crate::filter::ValueType;

/// Everything interned so far. The writer owns the current one; readers have the last one that was
/// committed. Copies share their content until one of them learns a new name.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    namespaces: Arc<HashMap<String, Namespace>>,
}

/// What is known of a namespace.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    pub(super) key: i64,
    pub(super) attributes: HashMap<String, Attribute>,
}

/// What is known of a search attribute in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    /// How `word` refers to it.
    pub(super) id: i64,
    pub(super) value_type: ValueType,
    /// The generated column that its values are in, and indexed by; none for lists and texts.
    pub(super) column: Option<i64>,
}

impl Names {
    /// Reads all names.
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut namespaces = HashMap::new();
        let mut by_key = HashMap::new();
        let mut statement = connection
            .prepare_cached("SELECT namespace_key, namespace_id FROM namespace")
            .map_err(error)?;
        let mut rows = statement.query([]).map_err(error)?;
        while let Some(row) = rows.next().map_err(error)? {
            let key: i64 = row.get(0).map_err(error)?;
            let namespace_id: String = row.get(1).map_err(error)?;
            by_key.insert(key, namespace_id.clone());
            let attributes = HashMap::new();
            namespaces.insert(namespace_id, Namespace { key, attributes });
        }
        let sql = "SELECT namespace_key, attribute_id, a.name, a.value_type, column_id
            FROM attribute AS a
            LEFT JOIN attribute_column AS c ON c.name = a.name AND c.value_type = a.value_type";
        let mut statement = connection.prepare_cached(sql).map_err(error)?;
        let mut rows = statement.query([]).map_err(error)?;
        while let Some(row) = rows.next().map_err(error)? {
            let key: i64 = row.get(0).map_err(error)?;
            let name: String = row.get(2).map_err(error)?;
            let number: i32 = row.get(3).map_err(error)?;
            let value_type = ValueType::from_number(number).ok_or_else(|| {
                StoreError::Corrupt(format!("search attribute {name} has unknown type {number}"))
            })?;
            let attribute = Attribute {
                id: row.get(1).map_err(error)?,
                value_type,
                column: row.get(4).map_err(error)?,
            };
            let namespace = by_key.get(&key).and_then(|id| namespaces.get_mut(id));
            if let Some(namespace) = namespace {
                namespace.attributes.insert(name, attribute);
            }
        }
        Ok(Names {
            namespaces: Arc::new(namespaces),
        })
    }

    /// A namespace that something was stored for.
    pub(super) fn namespace(&self, namespace_id: &str) -> Option<&Namespace> {
        self.namespaces.get(namespace_id)
    }

    /// The number of a namespace, given to it now if it has none.
    pub(super) fn intern(
        &mut self,
        connection: &Connection,
        namespace_id: &str,
    ) -> Result<i64, StoreError> {
        if let Some(namespace) = self.namespaces.get(namespace_id) {
            return Ok(namespace.key);
        }
        let sql = "INSERT INTO namespace (namespace_id) VALUES (?1)";
        execute(connection, sql, [namespace_id]).map_err(error)?;
        let key = connection.last_insert_rowid();
        let attributes = HashMap::new();
        let namespaces = Arc::make_mut(&mut self.namespaces);
        namespaces.insert(namespace_id.to_owned(), Namespace { key, attributes });
        Ok(key)
    }

    /// The number of a keyword list or text attribute, given to it now if it has none.
    pub(super) fn intern_attribute(
        &mut self,
        connection: &Connection,
        namespace_id: &str,
        name: &str,
    ) -> Result<i64, StoreError> {
        let known = self.attribute(namespace_id, name);
        if let Some(attribute) = known {
            return Ok(attribute.id);
        }
        let attribute =
            self.set_attribute(connection, namespace_id, name, ValueType::KeywordList)?;
        Ok(attribute.id)
    }

    /// Gives an attribute a type, and a number if it has none.
    pub(super) fn set_attribute(
        &mut self,
        connection: &Connection,
        namespace_id: &str,
        name: &str,
        value_type: ValueType,
    ) -> Result<Attribute, StoreError> {
        let key = self.intern(connection, namespace_id)?;
        let sql = "INSERT INTO attribute (namespace_key, name, value_type) VALUES (?1, ?2, ?3)
            ON CONFLICT DO UPDATE SET value_type = excluded.value_type
            RETURNING attribute_id";
        let id = connection
            .query_row(sql, params![key, name, value_type.number()], |row| {
                row.get(0)
            })
            .map_err(error)?;
        let column = connection
            .query_row(
                "SELECT column_id FROM attribute_column WHERE name = ?1 AND value_type = ?2",
                params![name, value_type.number()],
                |row| row.get(0),
            )
            .optional()
            .map_err(error)?;
        let attribute = Attribute {
            id,
            value_type,
            column,
        };
        let namespaces = Arc::make_mut(&mut self.namespaces);
        if let Some(namespace) = namespaces.get_mut(namespace_id) {
            namespace.attributes.insert(name.to_owned(), attribute);
        }
        Ok(attribute)
    }

    /// What is known of an attribute.
    pub(super) fn attribute(&self, namespace_id: &str, name: &str) -> Option<Attribute> {
        let namespace = self.namespaces.get(namespace_id)?;
        namespace.attributes.get(name).copied()
    }
}
