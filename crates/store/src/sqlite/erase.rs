//! Erasing what a run carried: in its rows, and then in the bytes of the files.
//!
//! Deleting or replacing a row leaves its old bytes in the file: in free pages, in the free space of
//! pages in use (also of pages that a row was once moved away from), and in the write-ahead log.
//! `PRAGMA secure_delete` overwrites only what is deleted while it is set, and would cost each append
//! and projection; what earlier versions of a snapshot left stays. So a file is written anew, as `VACUUM`
//! does, and its log is emptied. That costs as much as copying the store: it is done once for all that
//! was erased since the last time.

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, OptionalExtension};

use super::connection::{error, execute, from_position};
use super::names::Names;
use super::{history, record_pages, runs, visibility};
use crate::{ErasedRun, StoreError};

/// `meta` has this from the batch that erased something until its remains are overwritten: the
/// journal position of the batch.
const MARK: &str = "remains";

/// Puts what is left of a run in the place of what there was.
pub(super) fn erase(
    connection: &Connection,
    names: &mut Names,
    erased: &ErasedRun,
) -> Result<(), StoreError> {
    let namespace_id = &erased.run.namespace_id;
    let namespace_key = names.intern(connection, namespace_id)?;
    let Some(row) = runs::find(connection, namespace_key, &erased.run.run_id)? else {
        return Ok(());
    };
    history::delete(connection, row.run_key)?;
    history::insert(connection, row.run_key, &erased.history)?;
    record_pages::delete(connection, row.run_key)?;
    if let Some(snapshot) = &erased.snapshot {
        let sql = "UPDATE snapshot SET bytes = ?2 WHERE run_key = ?1";
        execute(connection, sql, (row.run_key, snapshot)).map_err(error)?;
    }
    if let Some(shown) = &erased.visibility {
        visibility::put(connection, names, namespace_id, row.run_key, false, shown)?;
    }
    Ok(())
}

/// Notes that remains are to be overwritten, in the transaction that makes them.
pub(super) fn mark(connection: &Connection, position: u64) -> Result<(), StoreError> {
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2)
        ON CONFLICT DO UPDATE SET value = excluded.value";
    execute(connection, sql, (MARK, from_position(position))).map_err(error)?;
    Ok(())
}

/// Whether there are remains to be overwritten.
pub(super) fn is_marked(connection: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM meta WHERE key = ?1";
    let found = connection.query_row(sql, [MARK], |_| Ok(()));
    Ok(found.optional().map_err(error)?.is_some())
}

/// Everything that was erased up to a position is overwritten.
pub(super) fn unmark(connection: &Connection, position: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM meta WHERE key = ?1 AND value <= ?2";
    execute(connection, sql, (MARK, from_position(position))).map_err(error)?;
    Ok(())
}

/// Writes a file anew, without what is not in use, and empties its write-ahead log. Waits for readers
/// of the log, up to the time that a busy connection waits.
pub(super) fn overwrite(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch("VACUUM").map_err(error)?;
    connection
        .wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE)
        .map_err(error)?;
    Ok(())
}
