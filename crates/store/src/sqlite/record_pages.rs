//! Pages of a run's records, kept so that the run can be replayed: the records without the events,
//! which are in history, and without the entries, which are in the log.

use rusqlite::{Connection, params};

use super::connection::{error, execute, from_position, to_position};
use super::framing::{push, split};
use crate::{RecordPage, StoreError};

/// `page_id = run_key << N_BITS | number of the first record`.
const N_BITS: u32 = 28;
const MAX_N: u64 = (1 << N_BITS) - 1;

/// Adds a page.
pub(super) fn insert(
    connection: &Connection,
    run_key: i64,
    page: &RecordPage,
) -> Result<(), StoreError> {
    let mut bytes = Vec::with_capacity(page.records.iter().map(|record| record.len() + 3).sum());
    for record in &page.records {
        push(&mut bytes, record);
    }
    let sql = "INSERT INTO record_page (page_id, log_from, records) VALUES (?1, ?2, ?3)";
    let row = params![
        page_id(run_key, page.first_n)?,
        from_position(page.log_from),
        bytes
    ];
    execute(connection, sql, row).map_err(error)?;
    Ok(())
}

/// Removes all pages of a run.
pub(super) fn delete(connection: &Connection, run_key: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM record_page WHERE page_id BETWEEN ?1 AND ?2";
    let range = [page_id(run_key, 0)?, page_id(run_key, MAX_N)?];
    execute(connection, sql, range).map_err(error)?;
    Ok(())
}

/// The page that holds record `n` or, if there is none, the first one after it.
pub(super) fn read(
    connection: &Connection,
    run_key: i64,
    n: u64,
) -> Result<Option<RecordPage>, StoreError> {
    let sql = "SELECT page_id, log_from, records FROM record_page
        WHERE page_id BETWEEN
            coalesce((SELECT max(page_id) FROM record_page WHERE page_id BETWEEN ?1 AND ?2), ?2)
            AND ?3
        ORDER BY page_id LIMIT 2";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let range = [
        page_id(run_key, 0)?,
        page_id(run_key, n)?,
        page_id(run_key, MAX_N)?,
    ];
    let mut rows = statement.query(range).map_err(error)?;
    while let Some(row) = rows.next().map_err(error)? {
        let first_n = to_position(row.get::<_, i64>(0).map_err(error)?) & MAX_N;
        let blob = row.get_ref(2).map_err(error)?.as_blob();
        let records = split(blob.map_err(|failure| error(failure.into()))?)?;
        if first_n + records.len() as u64 > n {
            return Ok(Some(RecordPage {
                first_n,
                log_from: to_position(row.get(1).map_err(error)?),
                records: records.into_iter().map(<[u8]>::to_vec).collect(),
            }));
        }
    }
    Ok(None)
}

fn page_id(run_key: i64, n: u64) -> Result<i64, StoreError> {
    if n > MAX_N {
        return Err(StoreError::Invalid(format!("record {n} is out of range")));
    }
    Ok((run_key << N_BITS) | from_position(n))
}
