//! The journal: a file of its own, so that an append never waits for the projections.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, params};

use super::connection::{
    LogState, checkpoint, error, execute, from_position, lock, open_reader, to_position,
    transaction, watch_log,
};
use super::{SqliteOptions, erase};
use crate::{JournalRow, StoreError};

/// Rows that one append may delete beyond the number that it inserts, so that trimming keeps up
/// and yet never makes a commit long.
const TRIM_EXTRA: u64 = 64;

/// The journal's connections and what is known of its rows.
pub(super) struct Journal {
    writer: Mutex<Option<Writer>>,
    /// None in memory, where the writer's connection is the only one.
    side: Option<Mutex<Option<Connection>>>,
    /// Rows up to this one are durable in the projections and may go.
    trim_to: AtomicU64,
    log: Arc<LogState>,
    checkpoint_pages: u64,
}

struct Writer {
    connection: Connection,
    /// None after an error, when only the file knows.
    ends: Option<Ends>,
}

/// The numbers of the first and the last row. The last row is never deleted: it is what remembers
/// how far the journal has come.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) first: u64,
    pub(super) head: u64,
}

impl Journal {
    /// Takes over the writing connection of a journal whose schema is up to date.
    pub(super) fn new(
        mut connection: Connection,
        path: Option<&Path>,
        options: &SqliteOptions,
    ) -> Result<Self, StoreError> {
        let limit = options.journal_autocheckpoint_pages;
        let log = watch_log(&mut connection, Some(limit))?;
        let side = match path {
            Some(path) => Some(Mutex::new(Some(open_reader(path)?))),
            None => None,
        };
        Ok(Journal {
            writer: Mutex::new(Some(Writer {
                connection,
                ends: None,
            })),
            side,
            trim_to: AtomicU64::new(0),
            log,
            checkpoint_pages: options.journal_checkpoint_pages,
        })
    }

    /// Inserts rows and makes them durable.
    pub(super) fn append(&self, rows: &[JournalRow]) -> Result<(), StoreError> {
        let Some(last) = rows.last() else {
            return Ok(());
        };
        let mut guard = lock(&self.writer);
        let writer = guard.as_mut().ok_or(StoreError::Closed)?;
        let ends = writer.ends()?;
        for (row, expected) in rows.iter().zip(ends.head + 1..) {
            if row.seq != expected {
                return Err(StoreError::Conflict {
                    expected,
                    found: row.seq,
                });
            }
        }
        let trim_to = self
            .trim_to
            .load(Ordering::Relaxed)
            .min(ends.head)
            .min(ends.first + rows.len() as u64 + TRIM_EXTRA);
        // Until the transaction has ended well, only the file knows.
        writer.ends = None;
        transaction(&mut writer.connection, |connection| {
            // Deleted first: on a full disk the space of old rows is what new ones can use.
            trim(connection, trim_to).map_err(error)?;
            insert(connection, rows).map_err(error)
        })?;
        writer.ends = Some(Ends {
            first: ends.first.max(trim_to + 1),
            head: last.seq,
        });
        self.log.check()
    }

    /// First and last row, as the file has them.
    pub(super) fn ends(&self) -> Result<Ends, StoreError> {
        let mut guard = lock(&self.writer);
        guard.as_mut().ok_or(StoreError::Closed)?.ends()
    }

    /// Rows after `after`, in order.
    pub(super) fn rows(&self, after: u64, limit: usize) -> Result<Vec<JournalRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached(
                    "SELECT seq, slot, bytes FROM journal WHERE seq > ?1 ORDER BY seq LIMIT ?2",
                )
                .map_err(error)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = statement
                .query_map(params![from_position(after), limit], |row| {
                    Ok(JournalRow {
                        seq: to_position(row.get(0)?),
                        slot: row.get(1)?,
                        bytes: row.get(2)?,
                    })
                })
                .map_err(error)?;
            rows.collect::<Result<_, _>>().map_err(error)
        })
    }

    /// Allows rows up to `position` to be deleted, which later appends do by the way.
    pub(super) fn allow_trim(&self, position: u64) {
        self.trim_to.fetch_max(position, Ordering::Relaxed);
    }

    /// Moves the write-ahead log into the file when it has grown. Most of the work is done beside
    /// the appends; they wait only while the rest of it, which came in meanwhile, is moved, after
    /// which the log starts over.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        let Some(side) = &self.side else {
            return Ok(());
        };
        if self.log.pages() < self.checkpoint_pages {
            return Ok(());
        }
        let mut side = lock(side);
        let side = side.as_mut().ok_or(StoreError::Closed)?;
        checkpoint(side)?;
        let _appends_wait = lock(&self.writer);
        if checkpoint(side)? {
            self.log.reset();
        }
        Ok(())
    }

    /// Deletes all rows that may go, and overwrites what they left in the file. Appends wait.
    pub(super) fn overwrite_remains(&self) -> Result<(), StoreError> {
        // Nobody reads meanwhile: the write-ahead log could not be emptied.
        let _side = self.side.as_ref().map(lock);
        let mut guard = lock(&self.writer);
        let writer = guard.as_mut().ok_or(StoreError::Closed)?;
        self.trim_all(writer)?;
        erase::overwrite(&writer.connection)?;
        self.log.reset();
        Ok(())
    }

    fn trim_all(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let head = writer.ends()?.head;
        let trim_to = self
            .trim_to
            .load(Ordering::Relaxed)
            .min(head.saturating_sub(1));
        // Until the transaction has ended well, only the file knows.
        writer.ends = None;
        transaction(&mut writer.connection, |connection| {
            trim(connection, trim_to).map_err(error)
        })
    }

    /// Deletes all rows that may go and closes the file.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let writer = lock(&self.writer).take();
        if let Some(side) = &self.side {
            lock(side).take();
        }
        let Some(mut writer) = writer else {
            return Ok(());
        };
        self.trim_all(&mut writer)?;
        writer
            .connection
            .close()
            .map_err(|(_, failure)| error(failure))
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &self.side {
            Some(side) => work(lock(side).as_ref().ok_or(StoreError::Closed)?),
            None => {
                let guard = lock(&self.writer);
                work(&guard.as_ref().ok_or(StoreError::Closed)?.connection)
            }
        }
    }
}

impl Writer {
    fn ends(&mut self) -> Result<Ends, StoreError> {
        if let Some(ends) = self.ends {
            return Ok(ends);
        }
        let ends = read_ends(&self.connection)?;
        self.ends = Some(ends);
        Ok(ends)
    }
}

/// First and last row of a journal.
pub(super) fn read_ends(connection: &Connection) -> Result<Ends, StoreError> {
    let sql = "SELECT (SELECT min(seq) FROM journal), (SELECT max(seq) FROM journal)";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let (first, head): (Option<i64>, Option<i64>) = statement
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(error)?;
    Ok(Ends {
        first: first.map_or(1, to_position),
        head: head.map_or(0, to_position),
    })
}

fn insert(connection: &Connection, rows: &[JournalRow]) -> rusqlite::Result<()> {
    let sql = "INSERT INTO journal (seq, slot, bytes) VALUES (?1, ?2, ?3)";
    let mut statement = connection.prepare_cached(sql)?;
    for row in rows {
        statement.execute(params![from_position(row.seq), row.slot, row.bytes])?;
    }
    Ok(())
}

fn trim(connection: &Connection, to: u64) -> rusqlite::Result<()> {
    if to > 0 {
        let sql = "DELETE FROM journal WHERE seq <= ?1";
        execute(connection, sql, [from_position(to)])?;
    }
    Ok(())
}
