//! Listing and counting visibility rows.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};
use serde_json::Value;

use super::connection::error;
use super::dialect::SqliteDialect;
use super::plan::{Purpose, Search, plan};
use super::visibility;
use crate::filter::Filter;
use crate::filter::sql::{Parameter, Sql};
use crate::{StoreError, VisibilityCount, VisibilityPage, VisibilityQuery};

impl ToSql for Parameter {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Parameter::Null => ValueRef::Null,
            Parameter::Text(text) => ValueRef::from(text.as_str()),
            Parameter::Int(number) => ValueRef::Integer(*number),
            Parameter::Real(number) => ValueRef::Real(*number),
        }))
    }
}

/// A term of the order.
struct Term {
    sql: String,
    descending: bool,
    /// Whether it can be null. Nulls come before everything else.
    nullable: bool,
}

/// Reads one page.
pub(super) fn page(
    search: Search<'_>,
    query: &VisibilityQuery,
) -> Result<VisibilityPage, StoreError> {
    // All steps must see the same rows.
    let snapshot = search.connection.unchecked_transaction().map_err(error)?;
    let (text, parameters, columns) = statement(search, query)?;
    let mut keys = select_keys(&snapshot, &text, parameters, columns)?;
    let has_more = keys.len() > query.page_size;
    keys.truncate(query.page_size);
    let mut page = VisibilityPage::default();
    for key in &keys {
        let run_key = match key.last() {
            Some(Value::Number(number)) => number.as_i64().unwrap_or_default(),
            _ => 0,
        };
        page.rows.extend(visibility::read(&snapshot, run_key)?);
    }
    if has_more {
        page.cursor = keys.last().map(|key| encode_cursor(key));
    }
    Ok(page)
}

/// The statement that finds the keys of a page's rows, with the values that they are sorted by,
/// and one row more, which tells whether there is another page. Gives the number of columns too.
pub(super) fn statement(
    search: Search<'_>,
    query: &VisibilityQuery,
) -> Result<(String, Vec<Parameter>, usize), StoreError> {
    let dialect = SqliteDialect {
        namespace: search.namespace,
    };
    let mut sql = Sql::new(&dialect);
    let terms = terms(&sql, &query.filter);
    let mut plan = plan(search, &query.filter, Purpose::List, &mut sql)?;
    if let Some(cursor) = &query.cursor {
        let values = decode_cursor(cursor, terms.len())?;
        plan.conditions.push(after(&mut sql, &terms, values));
    }
    let limit = i64::try_from(query.page_size.saturating_add(1)).unwrap_or(i64::MAX);
    let limit = sql.bind(Parameter::Int(limit));
    let columns: Vec<_> = terms.iter().map(|term| term.sql.as_str()).collect();
    let order: Vec<_> = terms.iter().map(Term::order).collect();
    let text = format!(
        "SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT {limit}",
        columns.join(", "),
        plan.source,
        plan.conditions.join(" AND "),
        order.join(", ")
    );
    Ok((text, sql.into_parameters(), terms.len()))
}

/// Counts rows, in total and by status if the filter says so.
pub(super) fn count(search: Search<'_>, filter: &Filter) -> Result<VisibilityCount, StoreError> {
    // The plan and the count must see the same rows.
    let snapshot = search.connection.unchecked_transaction().map_err(error)?;
    let (text, parameters) = count_statement(search, filter)?;
    let mut statement = snapshot.prepare_cached(&text).map_err(error)?;
    let rows = statement
        .query_map(params_from_iter(parameters), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(error)?;
    let groups: Vec<(i32, i64)> = rows.collect::<Result<_, _>>().map_err(error)?;
    Ok(VisibilityCount {
        total: groups.iter().map(|(_, count)| count).sum(),
        groups: if filter.groups_by_status() {
            groups
        } else {
            Vec::new()
        },
    })
}

/// The statement that counts rows by status, or all of them.
pub(super) fn count_statement(
    search: Search<'_>,
    filter: &Filter,
) -> Result<(String, Vec<Parameter>), StoreError> {
    let dialect = SqliteDialect {
        namespace: search.namespace,
    };
    let mut sql = Sql::new(&dialect);
    let plan = plan(search, filter, Purpose::Count, &mut sql)?;
    let (source, conditions) = (plan.source, plan.conditions.join(" AND "));
    let text = if filter.groups_by_status() {
        format!(
            "SELECT v.status, count(*) FROM {source} WHERE {conditions} \
             GROUP BY v.status ORDER BY v.status"
        )
    } else {
        format!("SELECT 0, count(*) FROM {source} WHERE {conditions}")
    };
    Ok((text, sql.into_parameters()))
}

/// The order, which always ends with the run's key so that no two rows are equal.
fn terms(sql: &Sql<'_>, filter: &Filter) -> Vec<Term> {
    let fixed = |column: &str| Term {
        sql: column.to_owned(),
        descending: true,
        nullable: false,
    };
    let mut terms: Vec<_> = filter
        .order()
        .iter()
        .map(|order| Term {
            sql: sql.column(&order.attribute),
            descending: order.descending,
            nullable: true,
        })
        .collect();
    if terms.is_empty() {
        terms.extend([fixed("v.sort_close"), fixed("v.start_time")]);
    }
    terms.push(fixed("v.run_key"));
    terms
}

impl Term {
    fn order(&self) -> String {
        let direction = if self.descending { "DESC" } else { "ASC" };
        format!("{} {direction}", self.sql)
    }
}

/// The condition that a row comes after the one with these values.
fn after(sql: &mut Sql<'_>, terms: &[Term], values: Vec<Parameter>) -> String {
    if terms.iter().all(|term| term.descending && !term.nullable) {
        let columns: Vec<_> = terms.iter().map(|term| term.sql.as_str()).collect();
        let values: Vec<_> = values.into_iter().map(|value| sql.bind(value)).collect();
        return format!("({}) < ({})", columns.join(", "), values.join(", "));
    }
    let mut alternatives = Vec::new();
    let mut equal = String::new();
    for (term, value) in terms.iter().zip(values) {
        let column = &term.sql;
        let is_null = value == Parameter::Null;
        let value = sql.bind(value);
        let beyond = match (term.descending, is_null) {
            (false, true) => format!("{column} IS NOT NULL"),
            (false, false) => format!("{column} > {value}"),
            (true, true) => "1 = 0".to_owned(),
            (true, false) if term.nullable => format!("({column} < {value} OR {column} IS NULL)"),
            (true, false) => format!("{column} < {value}"),
        };
        alternatives.push(format!("({equal}{beyond})"));
        equal.push_str(&format!("{column} IS {value} AND "));
    }
    format!("({})", alternatives.join(" OR "))
}

fn select_keys(
    connection: &Connection,
    text: &str,
    parameters: Vec<Parameter>,
    columns: usize,
) -> Result<Vec<Vec<Value>>, StoreError> {
    let mut statement = connection.prepare_cached(text).map_err(error)?;
    let rows = statement
        .query_map(params_from_iter(parameters), |row| {
            (0..columns)
                .map(|index| {
                    Ok(match row.get_ref(index)? {
                        ValueRef::Integer(number) => Value::from(number),
                        // As its bits, in a list of one: text would round it.
                        ValueRef::Real(number) => Value::from(vec![number.to_bits()]),
                        ValueRef::Text(text) => Value::from(String::from_utf8_lossy(text)),
                        ValueRef::Null | ValueRef::Blob(_) => Value::Null,
                    })
                })
                .collect()
        })
        .map_err(error)?;
    rows.collect::<Result<_, _>>().map_err(error)
}

fn encode_cursor(key: &[Value]) -> Vec<u8> {
    Value::from(key.to_vec()).to_string().into_bytes()
}

fn decode_cursor(cursor: &[u8], terms: usize) -> Result<Vec<Parameter>, StoreError> {
    let invalid = || StoreError::Invalid("invalid next page token".to_owned());
    let values: Vec<Value> = serde_json::from_slice(cursor).map_err(|_| invalid())?;
    if values.len() != terms {
        return Err(invalid());
    }
    let parameter = |value| match value {
        Value::Null => Ok(Parameter::Null),
        Value::String(text) => Ok(Parameter::Text(text)),
        Value::Number(number) => number.as_i64().map(Parameter::Int).ok_or_else(invalid),
        Value::Array(bits) => match bits.as_slice() {
            [Value::Number(bits)] => {
                let bits = bits.as_u64().ok_or_else(invalid)?;
                Ok(Parameter::Real(f64::from_bits(bits)))
            }
            _ => Err(invalid()),
        },
        _ => Err(invalid()),
    };
    values.into_iter().map(parameter).collect()
}
