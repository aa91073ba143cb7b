//! The writer of the projections.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::SqliteOptions;
use super::connection::{
    Durability, LogState, checkpoint, error, execute, from_position, set_durability, transaction,
    watch_log,
};
use super::dialect::{column_name, extract, is_valid_attribute_name};
use super::names::Names;
use super::open::read_position;
use super::{erase, history, log, record_pages, runs, tasks, visibility};
use crate::filter::ValueType;
use crate::{ProjectionBatch, RunProjection, StoreError};

/// The writing connection and what is known of the file.
pub(super) struct Projections {
    pub(super) connection: Connection,
    /// As last committed.
    pub(super) names: Names,
    position: u64,
    log: Arc<LogState>,
    checkpoint_pages: u64,
}

impl Projections {
    /// Takes over the writing connection of a file whose schema is up to date.
    pub(super) fn new(
        mut connection: Connection,
        options: &SqliteOptions,
    ) -> Result<Self, StoreError> {
        connection
            .pragma_update(None, "cache_size", -(options.cache_kib as i64))
            .map_err(error)?;
        let log = watch_log(&mut connection, None)?;
        Ok(Projections {
            names: Names::load(&connection)?,
            position: read_position(&connection)?,
            connection,
            log,
            checkpoint_pages: options.projection_checkpoint_pages,
        })
    }

    /// Writes a batch in one transaction.
    pub(super) fn project(&mut self, batch: &ProjectionBatch) -> Result<(), StoreError> {
        if batch.position < self.position {
            return Err(StoreError::Conflict {
                expected: self.position,
                found: batch.position,
            });
        }
        let result = self.write(|connection, names| write_batch(connection, names, batch));
        // After an error only the file knows.
        self.position = match result {
            Ok(()) => batch.position,
            Err(_) => read_position(&self.connection).unwrap_or(self.position),
        };
        result
    }

    /// Moves the write-ahead log into the file once it has grown, or at once if `now`. Gives the
    /// position up to which projections are durable, if that is known by this.
    pub(super) fn checkpoint(&self, now: bool) -> Result<Option<u64>, StoreError> {
        if !now && self.log.pages() < self.checkpoint_pages {
            return Ok(None);
        }
        let is_complete = checkpoint(&self.connection)?;
        if is_complete {
            self.log.reset();
        }
        Ok(is_complete.then_some(self.position))
    }

    /// Overwrites what erased rows left in the file. Gives the position up to which projections are
    /// durable; none if there was nothing to overwrite.
    pub(super) fn overwrite_remains(&self) -> Result<Option<u64>, StoreError> {
        if !erase::is_marked(&self.connection)? {
            return Ok(None);
        }
        erase::overwrite(&self.connection)?;
        self.log.reset();
        Ok(Some(self.position))
    }

    /// The same was done with the journal.
    pub(super) fn remains_overwritten(&mut self, position: u64) -> Result<(), StoreError> {
        self.write_durably(|connection, _| erase::unmark(connection, position))
    }

    /// Makes a change that is durable when it returns.
    pub(super) fn write_durably(
        &mut self,
        work: impl FnOnce(&Connection, &mut Names) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        set_durability(&self.connection, Durability::Full)?;
        let result = self.write(work);
        set_durability(&self.connection, Durability::Normal)?;
        result
    }

    fn write(
        &mut self,
        work: impl FnOnce(&Connection, &mut Names) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let names = &mut self.names;
        let result = transaction(&mut self.connection, |connection| work(connection, names));
        if result.is_err() {
            // It may know names that were rolled back.
            self.names = Names::load(&self.connection)?;
        }
        result
    }
}

fn write_batch(
    connection: &Connection,
    names: &mut Names,
    batch: &ProjectionBatch,
) -> Result<(), StoreError> {
    let current: HashSet<_> = batch
        .current_runs
        .iter()
        .filter_map(|(_, _, run_id)| run_id.as_deref())
        .collect();
    let mut with_parents = Vec::new();
    for projection in &batch.runs {
        let is_current = current.contains(projection.run.run_id.as_str());
        let run_key = write_run(connection, names, projection, is_current)?;
        if !projection.history_parents.is_empty() {
            with_parents.push((run_key, projection));
        }
    }
    // A parent may be new in this batch too.
    for (run_key, projection) in with_parents {
        let namespace_key = names.intern(connection, &projection.run.namespace_id)?;
        let parents = &projection.history_parents;
        runs::add_history_parents(connection, namespace_key, run_key, parents)?;
    }
    for (namespace_id, workflow_id, run_id) in &batch.current_runs {
        let namespace_key = names.intern(connection, namespace_id)?;
        runs::set_current(connection, namespace_key, workflow_id, run_id.as_deref())?;
    }
    for run in &batch.deleted {
        runs::delete(connection, names, run)?;
    }
    for appended in &batch.logs {
        log::append(connection, appended)?;
    }
    for erased in &batch.erased {
        erase::erase(connection, names, erased)?;
    }
    if !batch.erased.is_empty() {
        erase::mark(connection, batch.position)?;
    }
    let sql = "UPDATE meta SET value = ?1 WHERE key = 'position'";
    execute(connection, sql, [from_position(batch.position)]).map_err(error)?;
    Ok(())
}

fn write_run(
    connection: &Connection,
    names: &mut Names,
    projection: &RunProjection,
    is_current: bool,
) -> Result<i64, StoreError> {
    let namespace_key = names.intern(connection, &projection.run.namespace_id)?;
    let old = runs::find(connection, namespace_key, &projection.run.run_id)?;
    let is_new_run = old.is_none();
    let run_key = match old {
        Some(row) => {
            if row.has_pending_tasks {
                tasks::delete(connection, row.run_key)?;
            }
            runs::update(connection, &row, projection)?;
            row.run_key
        }
        None => runs::insert(connection, namespace_key, projection, is_current)?,
    };
    history::insert(connection, run_key, &projection.history)?;
    if let Some(page) = &projection.records {
        record_pages::insert(connection, run_key, page)?;
    }
    tasks::insert(
        connection,
        namespace_key,
        run_key,
        &projection.pending_tasks,
    )?;
    if let Some(row) = &projection.visibility {
        let namespace_id = &projection.run.namespace_id;
        visibility::put(connection, names, namespace_id, run_key, is_new_run, row)?;
    }
    Ok(run_key)
}

/// Registers a search attribute: its values get an index, and lists and texts their words.
pub(super) fn add_search_attribute(
    connection: &Connection,
    names: &mut Names,
    namespace_id: &str,
    name: &str,
    value_type: i32,
) -> Result<(), StoreError> {
    let value_type = ValueType::from_number(value_type)
        .ok_or_else(|| StoreError::Invalid(format!("unknown type {value_type} of {name}")))?;
    if !is_valid_attribute_name(name) {
        return Err(StoreError::Invalid(format!(
            "{name:?} cannot be the name of a search attribute"
        )));
    }
    let known = names.attribute(namespace_id, name);
    let is_word_based = matches!(value_type, ValueType::Text | ValueType::KeywordList);
    if known.is_some_and(|known| {
        known.value_type == value_type && (is_word_based || known.column.is_some())
    }) {
        return Ok(());
    }
    if !is_word_based {
        add_column(connection, name, value_type)?;
    }
    let attribute = names.set_attribute(connection, namespace_id, name, value_type)?;
    match names.namespace(namespace_id) {
        Some(namespace) if value_type == ValueType::Text => {
            visibility::index_existing(connection, namespace, name, attribute.id)
        }
        _ => Ok(()),
    }
}

/// Adds the generated column of an attribute, with its index, if no namespace has it yet.
fn add_column(
    connection: &Connection,
    name: &str,
    value_type: ValueType,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO attribute_column (name, value_type) VALUES (?1, ?2)
        ON CONFLICT DO NOTHING";
    let row = params![name, value_type.number()];
    if execute(connection, sql, row).map_err(error)? == 0 {
        return Ok(());
    }
    let column = column_name(connection.last_insert_rowid());
    connection
        .execute_batch(&format!(
            "ALTER TABLE visibility
                ADD COLUMN {column} GENERATED ALWAYS AS ({}) VIRTUAL;
             CREATE INDEX visibility_{column}
                ON visibility (space, {column}, sort_close, start_time)
                WHERE {column} IS NOT NULL;",
            extract("search_attributes", name)
        ))
        .map_err(error)
}
