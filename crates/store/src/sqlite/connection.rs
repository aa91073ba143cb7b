//! Connections: how they are set up, what their errors mean, and the pool that reads use.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use tokio::sync::Semaphore;

use crate::StoreError;

/// Prepared statements kept per connection; more than there are distinct ones on the write path.
const STATEMENT_CACHE: usize = 192;

/// Only tools that look into a live store can make a connection wait.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads at the same time. Readers beyond this wait; each costs a connection's page cache.
const READERS: usize = 4;

/// Memory for pages of each reader.
const READER_CACHE_KIB: i64 = 16 * 1024;

/// What a short read takes if its pages are in memory, with room for some that are not. One that takes
/// longer held up a thread of the asynchronous runtime...
const QUICK_READ: Duration = Duration::from_micros(500);

/// ...which so many reads after it will not do.
const SLOW_READS: u32 = 100;

/// How far a commit has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// Survives a crash of the process, and becomes durable with the next checkpoint.
    Normal,
    /// Durable when the commit returns.
    Full,
}

/// Translates an error of a statement that changed nothing or was rolled back.
pub(super) fn error(error: rusqlite::Error) -> StoreError {
    let message = error.to_string();
    match &error {
        rusqlite::Error::SqliteFailure(failure, _) => match (failure.code, failure.extended_code) {
            // Growing the shared memory beside a WAL fails this way when there is no space.
            (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => StoreError::Full(message),
            (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => {
                StoreError::SyncFailed(message)
            }
            (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => {
                StoreError::Corrupt(message)
            }
            _ => StoreError::Other(message),
        },
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::Utf8Error(..) => StoreError::Corrupt(message),
        _ => StoreError::Other(message),
    }
}

/// Like [`error`], for a write whose outcome the caller must not assume.
pub(super) fn write_error(source: rusqlite::Error) -> StoreError {
    match error(source) {
        StoreError::Other(message) => StoreError::Unknown(message),
        known => known,
    }
}

/// A position as SQLite keeps it. Positions count transitions: they do not come near the limit.
pub(super) fn from_position(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

/// The position that [`from_position`] made a number of.
pub(super) fn to_position(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Locks a mutex. A panic elsewhere leaves no half-done change behind: a transaction that was open
/// is rolled back by the next user.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a file for writing and makes it use a write-ahead log.
pub(super) fn open_writer(
    path: Option<&Path>,
    durability: Durability,
    pragmas: &[(String, String)],
) -> Result<Connection, StoreError> {
    let connection = match path {
        Some(path) => Connection::open(path),
        None => Connection::open_in_memory(),
    }
    .map_err(error)?;
    configure(&connection)?;
    let journal_mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
        .map_err(error)?;
    if path.is_some() && !journal_mode.eq_ignore_ascii_case("wal") {
        return Err(StoreError::Other(format!(
            "the file system does not support a write-ahead log (journal mode {journal_mode})"
        )));
    }
    set_durability(&connection, durability)?;
    for (name, value) in pragmas {
        connection
            .pragma_update_and_check(None, name, value, |_| Ok(()))
            .or_else(|failure| match failure {
                rusqlite::Error::QueryReturnedNoRows => Ok(()),
                other => Err(error(other)),
            })?;
    }
    Ok(connection)
}

/// Sets what commits from now on guarantee.
pub(super) fn set_durability(
    connection: &Connection,
    durability: Durability,
) -> Result<(), StoreError> {
    let value = match durability {
        Durability::Normal => "NORMAL",
        Durability::Full => "FULL",
    };
    connection
        .pragma_update(None, "synchronous", value)
        .map_err(error)
}

/// Opens a file for reading only.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(error)?;
    configure(&connection)?;
    connection
        .pragma_update(None, "query_only", true)
        .map_err(error)?;
    connection
        .pragma_update(None, "cache_size", -READER_CACHE_KIB)
        .map_err(error)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    connection.busy_timeout(BUSY_TIMEOUT).map_err(error)?;
    // No table has foreign keys: the engine is the only writer, and checks cost on every row.
    connection
        .pragma_update(None, "foreign_keys", false)
        .map_err(error)
}

/// Runs a statement that is used again and again.
pub(super) fn execute(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(parameters)
}

/// Runs `work` in one transaction. What fails leaves nothing behind.
pub(super) fn transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    roll_back_leftover(connection);
    execute(connection, "BEGIN IMMEDIATE", []).map_err(error)?;
    let result = work(connection).and_then(|value| {
        execute(connection, "COMMIT", []).map_err(write_error)?;
        Ok(value)
    });
    if result.is_err() {
        roll_back_leftover(connection);
    }
    result
}

/// Moves what it can of the write-ahead log into the file, without waiting for anybody. True if all
/// of the log is in the file, which makes everything committed so far durable.
pub(super) fn checkpoint(connection: &Connection) -> Result<bool, StoreError> {
    match connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE) {
        Ok((log, moved)) => Ok(log == moved),
        // Somebody else is at it.
        Err(failure) if failure.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(false),
        Err(failure) => Err(error(failure)),
    }
}

/// What a connection's commits tell of its write-ahead log.
#[derive(Default)]
pub(super) struct LogState {
    /// Pages in the log as of the last commit.
    pages: AtomicU64,
    /// Whether a commit could not sync the file that it was moving the log into.
    sync_failed: AtomicBool,
}

impl LogState {
    pub(super) fn pages(&self) -> u64 {
        self.pages.load(Relaxed)
    }

    /// To be called when all of the log was moved into the file.
    pub(super) fn reset(&self) {
        self.pages.store(0, Relaxed);
    }

    /// Whether commits can still be trusted.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.sync_failed.load(Relaxed) {
            return Err(StoreError::SyncFailed("in a checkpoint".to_owned()));
        }
        Ok(())
    }
}

/// Watches the write-ahead log. From `limit` pages on, commits move it into the file themselves.
/// If that fails the commit is good all the same: the log keeps what it holds, and the next commit
/// tries again. Only a sync that failed is remembered.
pub(super) fn watch_log(
    connection: &mut Connection,
    limit: Option<u64>,
) -> Result<Arc<LogState>, StoreError> {
    let state = Arc::new(LogState::default());
    let watched = Arc::clone(&state);
    let hook = move |wal: &mut Wal, pages: i32| {
        let pages = u64::try_from(pages).unwrap_or(0);
        watched.pages.store(pages, Relaxed);
        if limit.is_some_and(|limit| pages >= limit) {
            let moved = wal.checkpoint_v2(CheckpointMode::PASSIVE);
            if let Err(StoreError::SyncFailed(_)) = moved.map_err(error) {
                watched.sync_failed.store(true, Relaxed);
            }
        }
        Ok(())
    };
    connection.wal_hook(Some(hook)).map_err(error)?;
    Ok(state)
}

fn roll_back_leftover(connection: &Connection) {
    if !connection.is_autocommit() {
        // SQLite rolls back by itself on the errors that could make this fail.
        let _ = connection.execute_batch("ROLLBACK");
    }
}

/// Connections for reading the projections.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    /// So many of the next short reads are not expected to be quick.
    slow: AtomicU32,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Readers {
            path,
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(READERS)),
            slow: AtomicU32::new(0),
        }
    }

    /// A turn for a short read on the caller's thread: none if that would have to wait, or may take
    /// long because one before it did.
    pub(super) fn quick_turn(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let one_less = |slow: u32| slow.checked_sub(1);
        let is_slow = self.slow.fetch_update(Relaxed, Relaxed, one_less).is_ok();
        if is_slow || lock(&self.idle).is_empty() {
            return None;
        }
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Notes how long a short read took on its caller's thread.
    pub(super) fn took(&self, time: Duration) {
        if time > QUICK_READ {
            self.slow.store(SLOW_READS, Relaxed);
        }
    }

    /// Waits for a turn. The turn ends when the permit is dropped.
    pub(super) async fn turn(&self) -> Result<tokio::sync::OwnedSemaphorePermit, StoreError> {
        let permits = Arc::clone(&self.permits);
        permits
            .acquire_owned()
            .await
            .map_err(|_| StoreError::Closed)
    }

    /// Runs `work` on a connection of its own.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = lock(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.path)?,
        };
        let result = work(&connection);
        if connection.is_autocommit() && !self.permits.is_closed() {
            lock(&self.idle).push(connection);
        }
        result
    }

    /// Lets no new reads begin and closes the connections that nobody uses.
    pub(super) fn close(&self) {
        self.permits.close();
        lock(&self.idle).clear();
    }
}

/// Runs blocking work without holding up the asynchronous runtime that the caller may be on.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime
            .spawn_blocking(work)
            .await
            .unwrap_or_else(|failure| Err(StoreError::Other(failure.to_string()))),
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn errors_say_what_to_do() {
        for (code, expected) in [
            (ffi::SQLITE_FULL, "Full"),
            (ffi::SQLITE_IOERR_SHMSIZE, "Full"),
            (ffi::SQLITE_IOERR_FSYNC, "SyncFailed"),
            (ffi::SQLITE_IOERR_DIR_FSYNC, "SyncFailed"),
            (ffi::SQLITE_CORRUPT, "Corrupt"),
            (ffi::SQLITE_CORRUPT_INDEX, "Corrupt"),
            (ffi::SQLITE_NOTADB, "Corrupt"),
            (ffi::SQLITE_BUSY, "Other"),
            (ffi::SQLITE_IOERR_READ, "Other"),
            (ffi::SQLITE_IOERR_WRITE, "Other"),
        ] {
            let kind = format!("{:?}", error(failure(code)));
            assert!(kind.starts_with(expected), "{code} is {kind}");
            // Of a commit, it is not known what became of it, unless the kind says so.
            let expected = expected.replace("Other", "Unknown");
            let kind = format!("{:?}", write_error(failure(code)));
            assert!(kind.starts_with(&expected), "{code} of a commit is {kind}");
        }
    }

    #[test]
    fn short_reads_leave_the_callers_thread_after_a_slow_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.db");
        let writer = open_writer(Some(&path), Durability::Full, &[]).expect("a file");
        let readers = Readers::new(path);
        assert!(readers.quick_turn().is_none(), "no connection is open");
        let read = |connection: &Connection| {
            let one = connection.query_row("SELECT 1", [], |row| row.get::<_, i64>(0));
            one.map_err(error)
        };
        assert_eq!(readers.read(read), Ok(1));
        let turns: Vec<_> = std::iter::from_fn(|| readers.quick_turn()).collect();
        assert_eq!(turns.len(), READERS, "readers beyond these wait");
        drop(turns);
        readers.took(QUICK_READ);
        assert!(readers.quick_turn().is_some());
        readers.took(QUICK_READ * 2);
        for _ in 0..SLOW_READS {
            assert!(readers.quick_turn().is_none());
        }
        assert!(readers.quick_turn().is_some());
        drop(writer);
    }

    #[test]
    fn work_that_fails_is_rolled_back() {
        let mut connection = open_writer(None, Durability::Full, &[]).expect("a connection");
        connection
            .execute_batch("CREATE TABLE t (x)")
            .expect("a table");
        let insert = |connection: &Connection| {
            execute(connection, "INSERT INTO t VALUES (1)", []).map_err(error)
        };
        let failed = transaction(&mut connection, |connection| {
            insert(connection)?;
            Err::<(), _>(StoreError::Invalid("no".to_owned()))
        });
        assert_eq!(failed, Err(StoreError::Invalid("no".to_owned())));
        let count = |connection: &Connection| {
            connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        };
        assert_eq!(count(&connection), Ok(0));
        assert_eq!(transaction(&mut connection, insert), Ok(1));
        assert_eq!(count(&connection), Ok(1));
        // What a panic left open is not committed by the next one.
        connection
            .execute_batch("BEGIN; INSERT INTO t VALUES (2)")
            .expect("a leftover");
        assert_eq!(transaction(&mut connection, insert), Ok(1));
        assert_eq!(count(&connection), Ok(2));
    }
}
