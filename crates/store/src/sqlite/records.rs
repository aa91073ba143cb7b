//! Small records by kind and key.

use rusqlite::{Connection, OptionalExtension, params};

use super::connection::{error, execute};
use crate::StoreError;

/// Writes a record in place of the one that was there.
pub(super) fn put(
    connection: &Connection,
    kind: &str,
    key: &str,
    value: &[u8],
) -> Result<(), StoreError> {
    let sql = "INSERT INTO record (kind, key, value) VALUES (?1, ?2, ?3)
        ON CONFLICT DO UPDATE SET value = excluded.value";
    execute(connection, sql, params![kind, key, value]).map_err(error)?;
    Ok(())
}

/// Removes a record.
pub(super) fn delete(connection: &Connection, kind: &str, key: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM record WHERE kind = ?1 AND key = ?2";
    execute(connection, sql, [kind, key]).map_err(error)?;
    Ok(())
}

/// One record.
pub(super) fn get(
    connection: &Connection,
    kind: &str,
    key: &str,
) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "SELECT value FROM record WHERE kind = ?1 AND key = ?2";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let value = statement.query_row([kind, key], |row| row.get(0));
    value.optional().map_err(error)
}

/// All records of a kind, by key.
pub(super) fn list(
    connection: &Connection,
    kind: &str,
) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let sql = "SELECT key, value FROM record WHERE kind = ?1 ORDER BY key";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let rows = statement
        .query_map([kind], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(error)?;
    rows.collect::<Result<_, _>>().map_err(error)
}
