//! Pages of encoded history events.
//!
//! A page's row holds its events one after the other ([`super::framing`]). Rows are
//! only ever added, or deleted with the whole branch.

use rusqlite::{Connection, params};

use super::connection::{error, execute};
use super::framing::{push, split};
use crate::{HistoryPage, StoreError};

/// `page_id = run_key << EVENT_ID_BITS | first_event_id`.
const EVENT_ID_BITS: u32 = 24;
const MAX_EVENT_ID: i64 = (1 << EVENT_ID_BITS) - 1;

/// A row is closed once it has so many bytes: reading a few events must not load megabytes.
const ROW_BYTES: usize = 256 * 1024;

/// Adds pages to a run's branch.
pub(super) fn insert(
    connection: &Connection,
    run_key: i64,
    pages: &[HistoryPage],
) -> Result<(), StoreError> {
    for page in pages {
        let mut first = page.first_event_id;
        let mut next = first;
        let mut bytes = Vec::with_capacity(page.events.iter().map(|event| event.len() + 3).sum());
        for event in &page.events {
            push(&mut bytes, event);
            next += 1;
            if bytes.len() >= ROW_BYTES {
                insert_row(connection, page_id(run_key, first)?, &bytes)?;
                bytes.clear();
                first = next;
            }
        }
        if !bytes.is_empty() {
            insert_row(connection, page_id(run_key, first)?, &bytes)?;
        }
    }
    Ok(())
}

fn insert_row(connection: &Connection, page_id: i64, bytes: &[u8]) -> Result<(), StoreError> {
    let sql = "INSERT INTO history (page_id, events) VALUES (?1, ?2)";
    execute(connection, sql, params![page_id, bytes]).map_err(error)?;
    Ok(())
}

/// Removes a branch.
pub(super) fn delete(connection: &Connection, run_key: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM history WHERE page_id BETWEEN ?1 AND ?2";
    let range = [page_id(run_key, 0)?, page_id(run_key, MAX_EVENT_ID)?];
    execute(connection, sql, range).map_err(error)?;
    Ok(())
}

/// Which events to read.
#[derive(Clone, Copy)]
pub(super) struct EventRange {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) max_bytes: usize,
}

/// Events in ascending order.
pub(super) fn read(
    connection: &Connection,
    run_key: i64,
    range: EventRange,
) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    let Some(range) = range.clamped() else {
        return Ok(Vec::new());
    };
    // The first page may begin before the first event that is asked for.
    let sql = "SELECT page_id, events FROM history
        WHERE page_id BETWEEN
            coalesce((SELECT max(page_id) FROM history WHERE page_id BETWEEN ?1 AND ?2), ?2)
            AND ?3
        ORDER BY page_id";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let mut rows = statement
        .query([
            page_id(run_key, 0)?,
            page_id(run_key, range.first)?,
            page_id(run_key, range.last)?,
        ])
        .map_err(error)?;
    let mut taken = Taken::new(range);
    while let Some(row) = rows.next().map_err(error)? {
        let bytes = row.get_ref(1).map_err(error)?.as_blob();
        let events = split(bytes.map_err(|failure| error(failure.into()))?)?;
        let first = row.get::<_, i64>(0).map_err(error)? & MAX_EVENT_ID;
        for (event_id, event) in (first..).zip(events) {
            if !taken.push(event_id, event) {
                return Ok(taken.events);
            }
        }
    }
    Ok(taken.events)
}

/// Events in descending order.
pub(super) fn read_reverse(
    connection: &Connection,
    run_key: i64,
    range: EventRange,
) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    let Some(range) = range.clamped() else {
        return Ok(Vec::new());
    };
    let sql = "SELECT page_id, events FROM history WHERE page_id BETWEEN ?1 AND ?2
        ORDER BY page_id DESC";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let mut rows = statement
        .query([page_id(run_key, 0)?, page_id(run_key, range.last)?])
        .map_err(error)?;
    let mut taken = Taken::new(range);
    while let Some(row) = rows.next().map_err(error)? {
        let bytes = row.get_ref(1).map_err(error)?.as_blob();
        let events = split(bytes.map_err(|failure| error(failure.into()))?)?;
        let first = row.get::<_, i64>(0).map_err(error)? & MAX_EVENT_ID;
        let numbered: Vec<_> = (first..).zip(events).collect();
        for (event_id, event) in numbered.into_iter().rev() {
            if !taken.push(event_id, event) {
                return Ok(taken.events);
            }
        }
        if first <= range.first {
            break;
        }
    }
    Ok(taken.events)
}

impl EventRange {
    /// The part of the range that can exist.
    fn clamped(self) -> Option<Self> {
        let range = EventRange {
            first: self.first.max(0),
            last: self.last.min(MAX_EVENT_ID),
            ..self
        };
        (range.first <= range.last).then_some(range)
    }
}

/// Events that were read, up to the limit of bytes.
struct Taken {
    range: EventRange,
    bytes: usize,
    events: Vec<(i64, Vec<u8>)>,
}

impl Taken {
    fn new(range: EventRange) -> Self {
        Taken {
            range,
            bytes: 0,
            events: Vec::new(),
        }
    }

    /// Keeps an event of the range. False when the limit is reached and no more can be kept.
    fn push(&mut self, event_id: i64, event: &[u8]) -> bool {
        if !(self.range.first..=self.range.last).contains(&event_id) {
            return true;
        }
        if !self.events.is_empty() && self.bytes + event.len() > self.range.max_bytes {
            return false;
        }
        self.bytes += event.len();
        self.events.push((event_id, event.to_vec()));
        true
    }
}

fn page_id(run_key: i64, event_id: i64) -> Result<i64, StoreError> {
    if !(0..=MAX_EVENT_ID).contains(&event_id) {
        return Err(StoreError::Invalid(format!(
            "event id {event_id} is out of range"
        )));
    }
    Ok((run_key << EVENT_ID_BITS) | event_id)
}
