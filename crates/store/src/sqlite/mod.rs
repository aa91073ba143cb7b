//! The store on SQLite: the journal in one file, the projections in another.
//!
//! An append goes to the journal's file with one fsync and never waits for the projections. The
//! projections' commits are not synced one by one; they carry the journal position that they
//! stand for, and journal rows are deleted only after a checkpoint has made that position durable.

mod connection;
mod dialect;
mod erase;
mod framing;
mod history;
mod journal;
mod list;
mod log;
mod names;
mod open;
mod plan;
#[cfg(test)]
mod plan_tests;
mod projections;
mod record_pages;
mod records;
mod runs;
mod schema;
mod tasks;
mod visibility;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use async_trait::async_trait;
use rusqlite::Connection;

use crate::filter::Filter;
use crate::{
    DuePlace, JournalRow, LogState, ProjectionBatch, RecordPage, RunRef, Store, StoreError,
    StoredRun, Time, VisibilityCount, VisibilityPage, VisibilityQuery,
};
use connection::{Readers, blocking, lock};
use history::EventRange;
use journal::Journal;
use names::{Names, Namespace};
use plan::Search;
use projections::Projections;

/// How the files are used. The defaults are what was measured to be best.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Pragmas to set on the journal's connection, after our own.
    pub journal_pragmas: Vec<(String, String)>,
    /// Pragmas to set on the projections' writing connection, after our own.
    pub projection_pragmas: Vec<(String, String)>,
    /// From so many pages in the journal's write-ahead log, the projector moves them into the
    /// file, beside the appends.
    pub journal_checkpoint_pages: u64,
    /// From so many pages, an append does it itself: the log must not grow without bounds when the
    /// projector does not keep up.
    pub journal_autocheckpoint_pages: u64,
    /// From so many pages in the projections' write-ahead log, they are moved into the file.
    pub projection_checkpoint_pages: u64,
    /// Memory for pages of the projections' writing connection.
    pub cache_kib: u32,
    /// If a condition of a filter is satisfied by so many runs or fewer, these are read and sorted;
    /// otherwise runs are read in the order in which they are shown.
    pub few_keys: u32,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        SqliteOptions {
            journal_pragmas: Vec::new(),
            projection_pragmas: Vec::new(),
            journal_checkpoint_pages: 4_000,
            journal_autocheckpoint_pages: 8_000,
            projection_checkpoint_pages: 8_000,
            cache_kib: 64 * 1024,
            few_keys: 10_000,
        }
    }
}

/// A store in SQLite files, or in memory.
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: Option<PathBuf>,
    journal: Journal,
    /// None once closed.
    projections: Mutex<Option<Projections>>,
    /// None in memory, where the writer's connection is the only one.
    readers: Option<Readers>,
    few_keys: i64,
    /// What readers go by: the writer's names as of its last commit.
    names: RwLock<Names>,
    /// Held for as long as the files are open.
    lock: Mutex<Option<File>>,
    /// Held while remains are overwritten: the end of the process does not wait for that.
    overwriting: Mutex<()>,
    interrupt: rusqlite::InterruptHandle,
}

impl SqliteStore {
    /// Opens a store, or creates it. `path` is the projections' file; the journal
    /// (`steadfast.journal.db` for `steadfast.db`) and a lock file are beside it. Fails with
    /// [`StoreError::Locked`] while another process has it open.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        let path = &open::resolve(path);
        Self::open_at(Some(path), &options)
    }

    /// A store that is gone when it is dropped.
    pub fn open_in_memory() -> Result<Self, StoreError> {
        Self::open_at(None, &SqliteOptions::default())
    }

    fn open_at(path: Option<&Path>, options: &SqliteOptions) -> Result<Self, StoreError> {
        let files = open::open(path, options)?;
        let journal_path = path.map(open::journal_path);
        let projections = Projections::new(files.projections, options)?;
        let interrupt = projections.connection.get_interrupt_handle();
        let inner = Inner {
            journal: Journal::new(files.journal, journal_path.as_deref(), options)?,
            names: RwLock::new(projections.names.clone()),
            projections: Mutex::new(Some(projections)),
            readers: path.map(|path| Readers::new(path.to_owned())),
            lock: Mutex::new(files.lock),
            overwriting: Mutex::new(()),
            interrupt,
            few_keys: options.few_keys.into(),
            path: path.map(Path::to_owned),
        };
        Ok(SqliteStore {
            inner: Arc::new(inner),
        })
    }

    /// The projections' file; none in memory.
    pub fn path(&self) -> Option<&Path> {
        self.inner.path.as_deref()
    }

    /// Reads the projections without holding up the asynchronous runtime.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &Names) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let turn = match &inner.readers {
            Some(readers) => Some(readers.turn().await?),
            None => None,
        };
        blocking(move || {
            let result = inner.read(work);
            drop(turn);
            result
        })
        .await
    }

    /// Reads what belongs to one namespace; `absent` if nothing was ever stored for it.
    async fn read_namespace<T: Send + 'static>(
        &self,
        namespace_id: &str,
        absent: T,
        work: impl FnOnce(&Connection, &Namespace) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let namespace_id = namespace_id.to_owned();
        self.read(
            move |connection, names| match names.namespace(&namespace_id) {
                Some(namespace) => work(connection, namespace),
                None => Ok(absent),
            },
        )
        .await
    }

    /// Reads a row or two of a namespace by their keys: on the caller's thread, for as long as such
    /// reads are quick, because to have another thread do it costs several times as much.
    async fn look_up<T: Send + 'static>(
        &self,
        namespace_id: &str,
        work: impl FnOnce(&Connection, &Namespace) -> Result<Option<T>, StoreError> + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        let readers = self.inner.readers.as_ref();
        let Some((readers, _turn)) = readers.and_then(|it| Some((it, it.quick_turn()?))) else {
            return self.read_namespace(namespace_id, None, work).await;
        };
        let begun = Instant::now();
        let found = self
            .inner
            .read(|connection, names| match names.namespace(namespace_id) {
                Some(namespace) => work(connection, namespace),
                None => Ok(None),
            });
        readers.took(begun.elapsed());
        found
    }

    async fn write_durably(
        &self,
        work: impl FnOnce(&Connection, &mut Names) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.write(|projections| projections.write_durably(work))).await
    }
}

impl Inner {
    fn read<T>(
        &self,
        work: impl FnOnce(&Connection, &Names) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // Let go of before the next lock is taken: writers take the two in the other order.
        let names = self
            .names
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match &self.readers {
            Some(readers) => readers.read(|connection| work(connection, &names)),
            None => {
                let guard = lock(&self.projections);
                let projections = guard.as_ref().ok_or(StoreError::Closed)?;
                work(&projections.connection, &names)
            }
        }
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&mut Projections) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut guard = lock(&self.projections);
        let projections = guard.as_mut().ok_or(StoreError::Closed)?;
        let result = work(projections);
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        *names = projections.names.clone();
        result
    }

    fn project(&self, batch: &ProjectionBatch) -> Result<(), StoreError> {
        let durable = self.write(|projections| {
            projections.project(batch)?;
            projections.checkpoint(false)
        })?;
        if let Some(position) = durable {
            self.journal.allow_trim(position);
        }
        self.journal.checkpoint()
    }

    fn overwrite_remains(&self) -> Result<(), StoreError> {
        let _turn = lock(&self.overwriting);
        let Some(position) = self.write(|projections| projections.overwrite_remains())? else {
            return Ok(());
        };
        self.journal.allow_trim(position);
        self.journal.overwrite_remains()?;
        self.write(|projections| projections.remains_overwritten(position))
    }

    fn close(&self) -> Result<(), StoreError> {
        if self.overwriting.try_lock().is_err() {
            // The next start takes it up again.
            self.interrupt.interrupt();
        }
        if let Some(readers) = &self.readers {
            readers.close();
        }
        if let Some(projections) = lock(&self.projections).take() {
            // An interruption is over with the next statement; a checkpoint is none.
            let _ = projections.connection.execute_batch("SELECT 1");
            if let Some(position) = projections.checkpoint(true)? {
                self.journal.allow_trim(position);
            }
            let closed = projections.connection.close();
            closed.map_err(|(_, failure)| connection::error(failure))?;
        }
        self.journal.close()?;
        lock(&self.lock).take();
        Ok(())
    }
}

fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[async_trait]
impl Store for SqliteStore {
    async fn append(&self, rows: &[JournalRow]) -> Result<(), StoreError> {
        // Inline: the committer has a thread of its own, and a hop would cost more than the rows.
        self.inner.journal.append(rows)
    }

    async fn journal_head(&self) -> Result<u64, StoreError> {
        Ok(self.inner.journal.ends()?.head)
    }

    async fn journal_rows(&self, after: u64, limit: usize) -> Result<Vec<JournalRow>, StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.journal.rows(after, limit)).await
    }

    async fn project(&self, batch: ProjectionBatch) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.project(&batch)).await
    }

    async fn overwrite_remains(&self) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.overwrite_remains()).await
    }

    async fn projected_position(&self) -> Result<u64, StoreError> {
        self.read(|connection, _| open::read_position(connection))
            .await
    }

    async fn current_run(
        &self,
        namespace_id: &str,
        workflow_id: &str,
    ) -> Result<Option<String>, StoreError> {
        let workflow_id = workflow_id.to_owned();
        self.look_up(namespace_id, move |connection, namespace| {
            runs::current(connection, namespace.key, &workflow_id)
        })
        .await
    }

    async fn load_run(&self, run: &RunRef) -> Result<Option<StoredRun>, StoreError> {
        let run = run.clone();
        let namespace_id = run.namespace_id.clone();
        self.look_up(&namespace_id, move |connection, namespace| {
            runs::load(connection, namespace.key, &run)
        })
        .await
    }

    async fn read_history(
        &self,
        namespace_id: &str,
        run_id: &str,
        first: i64,
        last: i64,
        max_bytes: usize,
    ) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
        let run_id = run_id.to_owned();
        let range = EventRange {
            first,
            last,
            max_bytes,
        };
        self.read_namespace(namespace_id, Vec::new(), move |connection, namespace| {
            match runs::branch_key(connection, namespace.key, &run_id)? {
                Some(run_key) => history::read(connection, run_key, range),
                None => Ok(Vec::new()),
            }
        })
        .await
    }

    async fn read_history_reverse(
        &self,
        namespace_id: &str,
        run_id: &str,
        first: i64,
        last: i64,
        max_bytes: usize,
    ) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
        let run_id = run_id.to_owned();
        let range = EventRange {
            first,
            last,
            max_bytes,
        };
        self.read_namespace(namespace_id, Vec::new(), move |connection, namespace| {
            match runs::branch_key(connection, namespace.key, &run_id)? {
                Some(run_key) => history::read_reverse(connection, run_key, range),
                None => Ok(Vec::new()),
            }
        })
        .await
    }

    async fn record_page(&self, run: &RunRef, n: u64) -> Result<Option<RecordPage>, StoreError> {
        let run_id = run.run_id.clone();
        self.read_namespace(&run.namespace_id, None, move |connection, namespace| {
            match runs::branch_key(connection, namespace.key, &run_id)? {
                Some(run_key) => record_pages::read(connection, run_key, n),
                None => Ok(None),
            }
        })
        .await
    }

    async fn logs(&self) -> Result<Vec<LogState>, StoreError> {
        self.read(|connection, _| log::all(connection)).await
    }

    async fn log_entries(
        &self,
        namespace_id: &str,
        first: u64,
        count: usize,
        max_bytes: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let namespace_id = namespace_id.to_owned();
        self.read(move |connection, _| {
            log::entries(connection, &namespace_id, first, count, max_bytes)
        })
        .await
    }

    async fn log_tile(
        &self,
        namespace_id: &str,
        level: u8,
        index: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let namespace_id = namespace_id.to_owned();
        self.read(move |connection, _| log::tile(connection, &namespace_id, level, index))
            .await
    }

    async fn due_runs(
        &self,
        after: Option<DuePlace>,
        before: Time,
        count: usize,
    ) -> Result<Vec<(DuePlace, RunRef)>, StoreError> {
        self.read(move |connection, _| runs::due(connection, after, before, limit(count)))
            .await
    }

    async fn next_wake(&self, after: Time) -> Result<Option<Time>, StoreError> {
        self.read(move |connection, _| runs::next_wake(connection, after))
            .await
    }

    async fn expired_runs(&self, before: Time, count: usize) -> Result<Vec<RunRef>, StoreError> {
        self.read(move |connection, _| runs::expired(connection, before, limit(count)))
            .await
    }

    async fn runs_of_namespace(
        &self,
        namespace_id: &str,
        count: usize,
    ) -> Result<Vec<RunRef>, StoreError> {
        self.read_namespace(namespace_id, Vec::new(), move |connection, namespace| {
            runs::of_namespace(connection, namespace.key, limit(count))
        })
        .await
    }

    async fn runs_with_pending_tasks(
        &self,
        namespace_id: &str,
        kind: i32,
        task_queue: &str,
        count: usize,
    ) -> Result<Vec<RunRef>, StoreError> {
        let task_queue = task_queue.to_owned();
        self.read_namespace(namespace_id, Vec::new(), move |connection, namespace| {
            tasks::runs_waiting(connection, namespace.key, kind, &task_queue, limit(count))
        })
        .await
    }

    async fn pending_queues(&self) -> Result<Vec<(String, i32, String, u64, Time)>, StoreError> {
        self.read(|connection, _| tasks::queues(connection)).await
    }

    async fn list_visibility(&self, query: VisibilityQuery) -> Result<VisibilityPage, StoreError> {
        if query.filter.groups_by_status() {
            return Err(StoreError::Invalid(
                "invalid query: operation is not supported: 'GROUP BY' clause".to_owned(),
            ));
        }
        let namespace_id = query.namespace_id.clone();
        let absent = VisibilityPage::default();
        let few_keys = self.inner.few_keys;
        self.read_namespace(&namespace_id, absent, move |connection, namespace| {
            let search = Search {
                connection,
                namespace,
                few_keys,
            };
            list::page(search, &query)
        })
        .await
    }

    async fn count_visibility(
        &self,
        namespace_id: &str,
        filter: Filter,
    ) -> Result<VisibilityCount, StoreError> {
        let absent = VisibilityCount::default();
        let few_keys = self.inner.few_keys;
        self.read_namespace(namespace_id, absent, move |connection, namespace| {
            let search = Search {
                connection,
                namespace,
                few_keys,
            };
            list::count(search, &filter)
        })
        .await
    }

    async fn add_search_attribute(
        &self,
        namespace_id: &str,
        name: &str,
        value_type: i32,
    ) -> Result<(), StoreError> {
        let namespace_id = namespace_id.to_owned();
        let name = name.to_owned();
        self.write_durably(move |connection, names| {
            projections::add_search_attribute(connection, names, &namespace_id, &name, value_type)
        })
        .await
    }

    async fn put_record(&self, kind: &str, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        let (kind, key) = (kind.to_owned(), key.to_owned());
        self.write_durably(move |connection, _| records::put(connection, &kind, &key, &value))
            .await
    }

    async fn delete_record(&self, kind: &str, key: &str) -> Result<(), StoreError> {
        let (kind, key) = (kind.to_owned(), key.to_owned());
        self.write_durably(move |connection, _| records::delete(connection, &kind, &key))
            .await
    }

    async fn record(&self, kind: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (kind, key) = (kind.to_owned(), key.to_owned());
        self.read(move |connection, _| records::get(connection, &kind, &key))
            .await
    }

    async fn records(&self, kind: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let kind = kind.to_owned();
        self.read(move |connection, _| records::list(connection, &kind))
            .await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.close()).await
    }
}
