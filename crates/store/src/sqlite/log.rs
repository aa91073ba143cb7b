//! The tables of the logs: entries, tiles, and how far each log has come.
//!
//! Entries are only ever added. They are kept in rows of as many as one batch brought, so that a
//! batch of few does not rewrite a bundle of 256. Tiles are rewritten until they are full.

use rusqlite::{Connection, OptionalExtension, params};

use super::connection::{error, execute, from_position, to_position};
use super::framing::{pack, push, split, unpack};
use crate::{LogProjection, LogState, StoreError};

/// `entries_id = log_key << INDEX_BITS | index of the first entry`.
const INDEX_BITS: u32 = 40;
const MAX_INDEX: u64 = (1 << INDEX_BITS) - 1;

/// A row is closed once it has so many bytes: reading a few entries must not load megabytes.
const ROW_BYTES: usize = 128 * 1024;

/// Adds what a batch brought to a log.
pub(super) fn append(connection: &Connection, log: &LogProjection) -> Result<(), StoreError> {
    let state = state(connection, &log.namespace_id)?;
    let size = state.as_ref().map_or(0, |(_, state)| state.size);
    if size != log.first_index {
        return Err(StoreError::Conflict {
            expected: size,
            found: log.first_index,
        });
    }
    let after = size + log.entries.len() as u64;
    let log_key = match state {
        Some((log_key, _)) => {
            let sql = "UPDATE log SET size = ?2, chain_n = ?3, chain_hash = ?4 WHERE log_key = ?1";
            let row = params![
                log_key,
                from_position(after),
                from_position(log.chain_n),
                log.chain_hash
            ];
            execute(connection, sql, row).map_err(error)?;
            log_key
        }
        None => {
            let sql = "INSERT INTO log (namespace_id, size, chain_n, chain_hash)
                VALUES (?1, ?2, ?3, ?4)";
            let row = params![
                log.namespace_id,
                from_position(after),
                from_position(log.chain_n),
                log.chain_hash
            ];
            execute(connection, sql, row).map_err(error)?;
            connection.last_insert_rowid()
        }
    };
    insert_entries(connection, log_key, log)?;
    for (level, index, hashes) in &log.tiles {
        let sql = "INSERT INTO log_tile (log_key, level, tile_index, hashes)
            VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (log_key, level, tile_index) DO UPDATE SET hashes = excluded.hashes";
        let row = params![log_key, level, from_position(*index), hashes];
        execute(connection, sql, row).map_err(error)?;
    }
    Ok(())
}

fn insert_entries(
    connection: &Connection,
    log_key: i64,
    log: &LogProjection,
) -> Result<(), StoreError> {
    let mut first = log.first_index;
    let mut next = first;
    let mut bytes = Vec::new();
    for entry in &log.entries {
        push(&mut bytes, entry);
        next += 1;
        if bytes.len() >= ROW_BYTES {
            insert_row(connection, log_key, first, &bytes)?;
            bytes.clear();
            first = next;
        }
    }
    if !bytes.is_empty() {
        insert_row(connection, log_key, first, &bytes)?;
    }
    Ok(())
}

fn insert_row(
    connection: &Connection,
    log_key: i64,
    first: u64,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let sql = "INSERT INTO log_entries (entries_id, entries) VALUES (?1, ?2)";
    let row = params![entries_id(log_key, first)?, pack(bytes)];
    execute(connection, sql, row).map_err(error)?;
    Ok(())
}

/// How far a log has come, and its key.
fn state(
    connection: &Connection,
    namespace_id: &str,
) -> Result<Option<(i64, LogState)>, StoreError> {
    let sql = "SELECT log_key, namespace_id, size, chain_n, chain_hash FROM log
        WHERE namespace_id = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    statement
        .query_row([namespace_id], row)
        .optional()
        .map_err(error)
}

/// All logs.
pub(super) fn all(connection: &Connection) -> Result<Vec<LogState>, StoreError> {
    let sql = "SELECT log_key, namespace_id, size, chain_n, chain_hash FROM log ORDER BY log_key";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let rows = statement.query_map([], row).map_err(error)?;
    rows.map(|row| row.map(|(_, state)| state))
        .collect::<Result<_, _>>()
        .map_err(error)
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, LogState)> {
    let state = LogState {
        namespace_id: row.get(1)?,
        size: to_position(row.get(2)?),
        chain_n: to_position(row.get(3)?),
        chain_hash: row.get(4)?,
    };
    Ok((row.get(0)?, state))
}

/// A tile as far as it has come.
pub(super) fn tile(
    connection: &Connection,
    namespace_id: &str,
    level: u8,
    index: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "SELECT hashes FROM log JOIN log_tile USING (log_key)
        WHERE namespace_id = ?1 AND level = ?2 AND tile_index = ?3";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    statement
        .query_row(params![namespace_id, level, from_position(index)], |row| {
            row.get(0)
        })
        .optional()
        .map_err(error)
}

/// Entries from `first` on, at most `count`, in order; fewer than are there if they have many bytes.
pub(super) fn entries(
    connection: &Connection,
    namespace_id: &str,
    first: u64,
    count: usize,
    max_bytes: usize,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let Some((log_key, state)) = state(connection, namespace_id)? else {
        return Ok(Vec::new());
    };
    if first >= state.size {
        return Ok(Vec::new());
    }
    // The first row may begin before the first entry that is asked for.
    let sql = "SELECT entries_id, entries FROM log_entries
        WHERE entries_id BETWEEN
            (SELECT max(entries_id) FROM log_entries WHERE entries_id BETWEEN ?1 AND ?2) AND ?3
        ORDER BY entries_id";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let range = [
        entries_id(log_key, 0)?,
        entries_id(log_key, first)?,
        entries_id(log_key, MAX_INDEX)?,
    ];
    let mut rows = statement.query(range).map_err(error)?;
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next().map_err(error)? {
        let begins = to_position(row.get::<_, i64>(0).map_err(error)?) & MAX_INDEX;
        let blob = row.get_ref(1).map_err(error)?.as_blob();
        let unpacked = unpack(blob.map_err(|failure| error(failure.into()))?)?;
        let items = split(&unpacked)?;
        for (index, item) in (begins..).zip(items) {
            if index < first {
                continue;
            }
            let is_full = found.len() == count || bytes + item.len() > max_bytes;
            if is_full && (found.len() == count || !found.is_empty()) {
                return Ok(found);
            }
            bytes += item.len();
            found.push(item.to_vec());
        }
    }
    Ok(found)
}

fn entries_id(log_key: i64, index: u64) -> Result<i64, StoreError> {
    if index > MAX_INDEX {
        return Err(StoreError::Invalid(format!(
            "log index {index} is out of range"
        )));
    }
    Ok((log_key << INDEX_BITS) | from_position(index))
}
