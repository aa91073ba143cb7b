//! Visibility rows, and the words of their lists and texts.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde_json::{Map, Value};

use super::connection::{error, execute};
use super::names::{Names, Namespace};
use crate::filter::sql::OPEN;
use crate::filter::{ValueType, terms_of_text};
use crate::{StoreError, VisibilityRow};

/// Name of the attribute that puts a run into a namespace division.
const NAMESPACE_DIVISION: &str = "TemporalNamespaceDivision";

/// Columns in the order of [`columns`].
const COLUMNS: [&str; 20] = [
    "space",
    "status",
    "start_time",
    "sort_close",
    "close_time",
    "execution_time",
    "history_length",
    "history_size_bytes",
    "state_transition_count",
    "workflow_type",
    "workflow_id",
    "task_queue",
    "parent_workflow_id",
    "parent_run_id",
    "root_workflow_id",
    "root_run_id",
    "first_run_id",
    "search_attributes",
    "search_attributes_bytes",
    "memo_bytes",
];
const SEARCH_ATTRIBUTES: usize = 17;

/// The part of the index that a namespace's runs are in.
pub(super) fn space(namespace_key: i64, in_division: bool) -> i64 {
    namespace_key * 2 + i64::from(in_division)
}

/// Writes what visibility shows of a run, in place of what it showed before.
pub(super) fn put(
    connection: &Connection,
    names: &mut Names,
    namespace_id: &str,
    run_key: i64,
    is_new_run: bool,
    row: &VisibilityRow,
) -> Result<(), StoreError> {
    let namespace_key = names.intern(connection, namespace_id)?;
    let json = if row.search_attributes.is_empty() {
        None
    } else {
        let json = serde_json::to_string(&row.search_attributes);
        Some(json.map_err(|failure| StoreError::Invalid(failure.to_string()))?)
    };
    let new = columns(namespace_key, row, json.as_deref());
    let old_json = if is_new_run {
        insert(connection, run_key, &new)?;
        None
    } else {
        match update(connection, run_key, &new)? {
            Update::Absent => {
                insert(connection, run_key, &new)?;
                None
            }
            Update::Done { old_json } => old_json,
        }
    };
    if old_json == json {
        return Ok(());
    }
    if let Some(namespace) = names.namespace(namespace_id) {
        delete_words(connection, namespace, run_key, old_json.as_deref())?;
    }
    insert_words(
        connection,
        names,
        namespace_id,
        run_key,
        &row.search_attributes,
    )
}

fn columns<'a>(
    namespace_key: i64,
    row: &'a VisibilityRow,
    json: Option<&'a str>,
) -> [ValueRef<'a>; COLUMNS.len()] {
    let in_division = row.search_attributes.contains_key(NAMESPACE_DIVISION);
    let is_open = row.close_time.is_none();
    let closed_only = |value| {
        if is_open {
            ValueRef::Null
        } else {
            ValueRef::Integer(value)
        }
    };
    let unless_empty = |text: &'a str| {
        if text.is_empty() {
            ValueRef::Null
        } else {
            ValueRef::from(text)
        }
    };
    // Most runs are roots. Null spares them two index entries.
    let is_root = row.root_workflow_id == row.workflow_id && row.root_run_id == row.run_id;
    let root = |text: &'a str| {
        if is_root {
            ValueRef::Null
        } else {
            ValueRef::from(text)
        }
    };
    [
        ValueRef::Integer(space(namespace_key, in_division)),
        ValueRef::Integer(row.status.into()),
        ValueRef::Integer(row.start_time),
        ValueRef::Integer(row.close_time.unwrap_or(OPEN)),
        closed_only(row.close_time.unwrap_or(OPEN)),
        ValueRef::Integer(row.execution_time),
        closed_only(row.history_length),
        closed_only(row.history_size_bytes),
        closed_only(row.state_transition_count),
        ValueRef::from(row.workflow_type.as_str()),
        ValueRef::from(row.workflow_id.as_str()),
        ValueRef::from(row.task_queue.as_str()),
        unless_empty(&row.parent_workflow_id),
        unless_empty(&row.parent_run_id),
        root(&row.root_workflow_id),
        root(&row.root_run_id),
        ValueRef::from(row.first_run_id.as_str()),
        json.map_or(ValueRef::Null, ValueRef::from),
        ValueRef::Blob(&row.search_attributes_bytes),
        ValueRef::Blob(&row.memo_bytes),
    ]
}

fn insert(connection: &Connection, run_key: i64, new: &[ValueRef<'_>]) -> Result<(), StoreError> {
    let sql = "INSERT INTO visibility (
            run_key, space, status, start_time, sort_close, close_time, execution_time,
            history_length, history_size_bytes, state_transition_count, workflow_type, workflow_id,
            task_queue, parent_workflow_id, parent_run_id, root_workflow_id, root_run_id,
            first_run_id, search_attributes, search_attributes_bytes, memo_bytes)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let values = std::iter::once(ValueRef::Integer(run_key)).chain(new.iter().copied());
    execute(
        connection,
        sql,
        params_from_iter(values.map(ToSqlOutput::Borrowed)),
    )
    .map_err(error)?;
    Ok(())
}

enum Update {
    Absent,
    Done { old_json: Option<String> },
}

/// Writes the columns that changed. The others, and their indexes, are left alone.
fn update(
    connection: &Connection,
    run_key: i64,
    new: &[ValueRef<'_>; COLUMNS.len()],
) -> Result<Update, StoreError> {
    let sql = "SELECT space, status, start_time, sort_close, close_time, execution_time,
            history_length, history_size_bytes, state_transition_count, workflow_type, workflow_id,
            task_queue, parent_workflow_id, parent_run_id, root_workflow_id, root_run_id,
            first_run_id, search_attributes, search_attributes_bytes, memo_bytes
        FROM visibility WHERE run_key = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let mut rows = statement.query([run_key]).map_err(error)?;
    let Some(old) = rows.next().map_err(error)? else {
        return Ok(Update::Absent);
    };
    let mut changed = Vec::new();
    for (index, value) in new.iter().enumerate() {
        if old.get_ref(index).map_err(error)? != *value {
            changed.push(index);
        }
    }
    let old_json = old.get(SEARCH_ATTRIBUTES).map_err(error)?;
    drop(rows);
    if !changed.is_empty() {
        let assignments: Vec<_> = changed
            .iter()
            .map(|index| format!("{} = ?", COLUMNS[*index]))
            .collect();
        let sql = format!(
            "UPDATE visibility SET {} WHERE run_key = ?",
            assignments.join(", ")
        );
        let values = changed.iter().map(|index| new[*index]);
        let values = values.chain([ValueRef::Integer(run_key)]);
        let values = params_from_iter(values.map(ToSqlOutput::Borrowed));
        execute(connection, &sql, values).map_err(error)?;
    }
    Ok(Update::Done { old_json })
}

/// Removes what visibility shows of a run.
pub(super) fn delete(
    connection: &Connection,
    namespace: &Namespace,
    run_key: i64,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM visibility WHERE run_key = ?1 RETURNING search_attributes";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let json: Option<Option<String>> = statement
        .query_row([run_key], |row| row.get(0))
        .optional()
        .map_err(error)?;
    delete_words(connection, namespace, run_key, json.flatten().as_deref())
}

fn delete_words(
    connection: &Connection,
    namespace: &Namespace,
    run_key: i64,
    json: Option<&str>,
) -> Result<(), StoreError> {
    let Some(json) = json else {
        return Ok(());
    };
    for (name, value) in &parse(json)? {
        let Some(attribute) = namespace.attributes.get(name) else {
            continue;
        };
        // Of both kinds: the attribute's type may have changed since.
        let mut words = words_of_list(value);
        words.extend(value.as_str().map(terms_of_text).unwrap_or_default());
        for word in words {
            let sql = "DELETE FROM word WHERE attribute_id = ?1 AND value = ?2 AND run_key = ?3";
            execute(connection, sql, params![attribute.id, word, run_key]).map_err(error)?;
        }
    }
    Ok(())
}

fn insert_words(
    connection: &Connection,
    names: &mut Names,
    namespace_id: &str,
    run_key: i64,
    attributes: &Map<String, Value>,
) -> Result<(), StoreError> {
    for (name, value) in attributes {
        let known = names.attribute(namespace_id, name);
        let words = match (value, known.map(|attribute| attribute.value_type)) {
            (Value::Array(_), _) => words_of_list(value),
            (Value::String(text), Some(ValueType::Text)) => terms_of_text(text),
            _ => continue,
        };
        let attribute_id = names.intern_attribute(connection, namespace_id, name)?;
        put_words(connection, attribute_id, run_key, &words)?;
    }
    Ok(())
}

fn put_words(
    connection: &Connection,
    attribute_id: i64,
    run_key: i64,
    words: &[String],
) -> Result<(), StoreError> {
    let sql = "INSERT INTO word (attribute_id, value, run_key) VALUES (?1, ?2, ?3)
        ON CONFLICT DO NOTHING";
    for word in words {
        execute(connection, sql, params![attribute_id, word, run_key]).map_err(error)?;
    }
    Ok(())
}

/// Makes the words of rows that were there before the attribute was registered.
pub(super) fn index_existing(
    connection: &Connection,
    namespace: &Namespace,
    name: &str,
    attribute_id: i64,
) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT run_key, {} FROM visibility AS v
         WHERE space IN (?1, ?2) AND search_attributes IS NOT NULL",
        super::dialect::extract("search_attributes", name)
    );
    let mut statement = connection.prepare(&sql).map_err(error)?;
    let spaces = [false, true].map(|division| space(namespace.key, division));
    let mut rows = statement.query(spaces).map_err(error)?;
    while let Some(row) = rows.next().map_err(error)? {
        let text: Option<String> = row.get(1).map_err(error)?;
        let words = text.as_deref().map(terms_of_text).unwrap_or_default();
        put_words(connection, attribute_id, row.get(0).map_err(error)?, &words)?;
    }
    Ok(())
}

fn words_of_list(value: &Value) -> Vec<String> {
    let elements = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts = elements.iter().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn parse(json: &str) -> Result<Map<String, Value>, StoreError> {
    serde_json::from_str(json)
        .map_err(|failure| StoreError::Corrupt(format!("search attributes: {failure}")))
}

/// Reads the row of a run.
pub(super) fn read(
    connection: &Connection,
    run_key: i64,
) -> Result<Option<VisibilityRow>, StoreError> {
    let sql = "SELECT run_id, v.workflow_id, workflow_type, status, start_time, execution_time,
            close_time, history_length, history_size_bytes, state_transition_count, task_queue,
            parent_workflow_id, parent_run_id, root_workflow_id, root_run_id, first_run_id,
            search_attributes_bytes, memo_bytes, search_attributes
        FROM visibility AS v JOIN run USING (run_key) WHERE run_key = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let read = statement
        .query_row([run_key], |row| Ok((visibility_row(row)?, row.get(18)?)))
        .optional()
        .map_err(error)?;
    let Some((mut row, json)): Option<(VisibilityRow, Option<String>)> = read else {
        return Ok(None);
    };
    if let Some(json) = json {
        row.search_attributes = parse(&json)?;
    }
    Ok(Some(row))
}

fn visibility_row(row: &Row<'_>) -> rusqlite::Result<VisibilityRow> {
    let text = |index| -> rusqlite::Result<Option<String>> { row.get(index) };
    let number = |index| -> rusqlite::Result<Option<i64>> { row.get(index) };
    let run_id: String = row.get(0)?;
    let workflow_id: String = row.get(1)?;
    Ok(VisibilityRow {
        workflow_type: row.get(2)?,
        status: row.get(3)?,
        start_time: row.get(4)?,
        execution_time: row.get(5)?,
        close_time: row.get(6)?,
        history_length: number(7)?.unwrap_or(0),
        history_size_bytes: number(8)?.unwrap_or(0),
        state_transition_count: number(9)?.unwrap_or(0),
        task_queue: row.get(10)?,
        parent_workflow_id: text(11)?.unwrap_or_default(),
        parent_run_id: text(12)?.unwrap_or_default(),
        root_workflow_id: text(13)?.unwrap_or_else(|| workflow_id.clone()),
        root_run_id: text(14)?.unwrap_or_else(|| run_id.clone()),
        first_run_id: row.get(15)?,
        search_attributes_bytes: row.get(16)?,
        memo_bytes: row.get(17)?,
        search_attributes: Map::new(),
        run_id,
        workflow_id,
    })
}
