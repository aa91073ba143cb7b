//! Storage: one journal, and projections of it.
//!
//! The only write on the hot path is [`Store::append`]: journal rows of many runs in one
//! transaction with one fsync. Everything else is a projection, written by the runtime's projector
//! in batches through [`Store::project`], and could be made again from the journal.
//!
//! The store knows nothing of workflows. It keeps bytes that the engine encoded, and the columns
//! that it must be able to search by. Transitions live in `steadfast-engine`, never in SQL.

use async_trait::async_trait;

pub mod error;
pub mod filter;
pub mod sqlite;

pub use error::StoreError;

/// A point in time: nanoseconds since the Unix epoch.
pub type Time = i64;

/// One row of the journal: everything that one transition changed, of one workflow id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    /// Position in the journal: 1, 2, 3… without gaps.
    pub seq: u64,
    /// Hash bucket of (namespace, workflow id).
    pub slot: u16,
    /// The encoded transition.
    pub bytes: Vec<u8>,
}

/// The place of a run among those that have something due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DuePlace {
    /// When it is due: its `wake_at`.
    pub at: Time,
    /// Tells runs apart that are due at the same time, in no order that means anything.
    pub tie: i64,
}

/// Names one run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunRef {
    /// Id (not name) of the namespace.
    pub namespace_id: String,
    /// Workflow id.
    pub workflow_id: String,
    /// Run id, a UUID in its textual form.
    pub run_id: String,
}

/// A run's state as it was projected.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRun {
    /// The encoded state.
    pub snapshot: Vec<u8>,
    /// Journal position that the snapshot stands for: rows after it are still to be applied.
    pub seq: u64,
}

/// Consecutive encoded history events of one branch, written together and never rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// Id of the first event in the page.
    pub first_event_id: i64,
    /// The encoded events, in order; event `i` has id `first_event_id + i`.
    pub events: Vec<Vec<u8>>,
}

/// Consecutive records of one run, without what is stored elsewhere, written together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPage {
    /// Number of the first record.
    pub first_n: u64,
    /// The size of the namespace's log before any of the records' entries was in it.
    pub log_from: u64,
    /// The encoded records, in order; record `i` has number `first_n + i`.
    pub records: Vec<Vec<u8>>,
}

/// What one batch adds to the log of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogProjection {
    /// Id of the namespace.
    pub namespace_id: String,
    /// Index of the first entry: the log's size before ([`StoreError::Conflict`] otherwise).
    pub first_index: u64,
    /// The entries' exact bytes.
    pub entries: Vec<bytes::Bytes>,
    /// The tiles of the tree that changed, as far as they have come: level, index, hashes.
    pub tiles: Vec<(u8, u64, Vec<u8>)>,
    /// Entries of the chain that belongs to no run, after this batch.
    pub chain_n: u64,
    /// Leaf hash of the last of them.
    pub chain_hash: Option<Vec<u8>>,
}

/// How far the log of a namespace has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// Id of the namespace.
    pub namespace_id: String,
    /// Number of entries.
    pub size: u64,
    /// Entries of the chain that belongs to no run.
    pub chain_n: u64,
    /// Leaf hash of the last of them.
    pub chain_hash: Option<Vec<u8>>,
}

/// What visibility shows of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VisibilityRow {
    /// Workflow id.
    pub workflow_id: String,
    /// Run id.
    pub run_id: String,
    /// Workflow type name.
    pub workflow_type: String,
    /// `temporal.api.enums.v1.WorkflowExecutionStatus` as its number.
    pub status: i32,
    /// When the run was created.
    pub start_time: Time,
    /// When its first workflow task may run (start delay, cron and retry back-off included).
    pub execution_time: Time,
    /// When it closed; none while it is running.
    pub close_time: Option<Time>,
    /// Number of events (0 while running).
    pub history_length: i64,
    /// Bytes of history (0 while running).
    pub history_size_bytes: i64,
    /// Closes, resets and the like: changes of state so far (0 while running).
    pub state_transition_count: i64,
    /// Task queue of its workflow tasks.
    pub task_queue: String,
    /// Parent's workflow id, empty for none.
    pub parent_workflow_id: String,
    /// Parent's run id, empty for none.
    pub parent_run_id: String,
    /// Root's workflow id (its own for a root).
    pub root_workflow_id: String,
    /// Root's run id.
    pub root_run_id: String,
    /// First run of its chain.
    pub first_run_id: String,
    /// Custom and settable system search attributes by name: values as JSON (string for Text,
    /// Keyword and Datetime (RFC 3339, UTC, nanoseconds, fixed width so that order is time order),
    /// number for Int and Double, boolean, array of strings for KeywordList).
    pub search_attributes: serde_json::Map<String, serde_json::Value>,
    /// The encoded `temporal.api.common.v1.SearchAttributes` to give back as it was received.
    pub search_attributes_bytes: Vec<u8>,
    /// The encoded `temporal.api.common.v1.Memo`.
    pub memo_bytes: Vec<u8>,
}

/// A task that was waiting for a poller when its run was projected. It follows from the run's
/// state; this index only tells which runs to load when a poller comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingTask {
    /// `temporal.api.enums.v1.TaskQueueType` as its number (1 workflow, 2 activity); 3 for tool calls that
    /// wait for people.
    pub kind: i32,
    /// Task queue name.
    pub task_queue: String,
    /// How many tasks of that queue and kind the run has waiting.
    pub count: u32,
    /// When the oldest of them was scheduled.
    pub since: Time,
}

/// Everything that is written about one run in one projection.
#[derive(Clone, Debug, PartialEq)]
pub struct RunProjection {
    /// The run.
    pub run: RunRef,
    /// Hash bucket of (namespace, workflow id).
    pub slot: u16,
    /// The encoded state as of `seq`.
    pub snapshot: Vec<u8>,
    /// Journal position that `snapshot` stands for.
    pub seq: u64,
    /// When the run has to be loaded next, even if nobody asks for it; none for never.
    pub wake_at: Option<Time>,
    /// Events that were not stored yet, in order.
    pub history: Vec<HistoryPage>,
    /// Runs whose history this run's begins with (resets): their pages are kept while it exists.
    /// Given with the first projection of a run; empty otherwise.
    pub history_parents: Vec<String>,
    /// What visibility shows; none leaves it as it is.
    pub visibility: Option<VisibilityRow>,
    /// The tasks that wait for a poller; replaces what was there.
    pub pending_tasks: Vec<PendingTask>,
    /// For a closed run: when its retention is over. None while running.
    pub delete_at: Option<Time>,
    /// Records that were not stored yet.
    pub records: Option<RecordPage>,
}

/// What is left of a run, or of a history that outlived its run, once its payloads are erased. All of
/// its records go.
#[derive(Clone, Debug, PartialEq)]
pub struct ErasedRun {
    /// The run.
    pub run: RunRef,
    /// The encoded state in place of the one that was there; none for a run that was deleted.
    pub snapshot: Option<Vec<u8>>,
    /// Its own events in place of those that were there: all of them.
    pub history: Vec<HistoryPage>,
    /// What visibility shows from now on; none leaves it as it is.
    pub visibility: Option<VisibilityRow>,
}

/// One batch of the projector, written in one transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProjectionBatch {
    /// All journal rows up to this one are contained in the projections after this batch.
    pub position: u64,
    /// Runs that changed, in any order.
    pub runs: Vec<RunProjection>,
    /// Which run is the current one of a workflow id: (namespace id, workflow id, run id); a run id
    /// of none removes the row.
    pub current_runs: Vec<(String, String, Option<String>)>,
    /// Runs to delete with all that belongs to them.
    pub deleted: Vec<RunRef>,
    /// What is added to logs.
    pub logs: Vec<LogProjection>,
    /// Runs that are erased, after everything else. [`Store::overwrite_remains`] then makes the old
    /// bytes go.
    pub erased: Vec<ErasedRun>,
}

/// Which visibility rows to list.
#[derive(Clone, Debug)]
pub struct VisibilityQuery {
    /// Id of the namespace.
    pub namespace_id: String,
    /// What to match and how to sort.
    pub filter: filter::Filter,
    /// At most so many rows.
    pub page_size: usize,
    /// Where the page before ended; opaque to the caller.
    pub cursor: Option<Vec<u8>>,
}

/// One page of visibility rows.
#[derive(Clone, Debug, Default)]
pub struct VisibilityPage {
    /// The rows, sorted as asked (default: running ones and latest close first, as Temporal's
    /// SQLite visibility does).
    pub rows: Vec<VisibilityRow>,
    /// Where the next page begins; none when this one was the last.
    pub cursor: Option<Vec<u8>>,
}

/// The count of matching rows, in total and by group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VisibilityCount {
    /// All matching rows.
    pub total: i64,
    /// For `GROUP BY ExecutionStatus`: (status number, count).
    pub groups: Vec<(i32, i64)>,
}

/// Durable storage of one Steadfast server.
///
/// Every method may block or wait for I/O. An error is one of [`StoreError`]'s kinds; the caller
/// decides by kind, never by message.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Appends rows in one transaction and makes them durable. `rows` follow the journal's head
    /// without a gap ([`StoreError::Conflict`] otherwise).
    ///
    /// On [`StoreError::Unknown`] the rows may or may not be there: the caller reads the head again
    /// before it does anything else. [`StoreError::Corrupt`] and [`StoreError::SyncFailed`] mean
    /// that the process must end. On any other error nothing was written.
    async fn append(&self, rows: &[JournalRow]) -> Result<(), StoreError>;

    /// The last durable position of the journal, 0 for none ever written. Trimming does not lower it.
    async fn journal_head(&self) -> Result<u64, StoreError>;

    /// Rows after `after`, in order, at most `limit`.
    async fn journal_rows(&self, after: u64, limit: usize) -> Result<Vec<JournalRow>, StoreError>;

    /// Writes one batch of projections, all or nothing, and then trims the journal rows that are no
    /// longer needed (only those whose projection is durable).
    async fn project(&self, batch: ProjectionBatch) -> Result<(), StoreError>;

    /// Makes sure that nothing of what batches have erased is left anywhere in the store's files: in
    /// space that is not used any more, in old journal rows, in write-ahead logs. Nothing is done if
    /// nothing was erased since the last time, which is remembered over crashes; otherwise it takes
    /// about as long, and as much room, as copying the store. Appends and reads go on meanwhile,
    /// projections wait. After an error it is still to be done.
    async fn overwrite_remains(&self) -> Result<(), StoreError>;

    /// The position of the last projection batch.
    async fn projected_position(&self) -> Result<u64, StoreError>;

    /// The current run's id of a workflow id.
    async fn current_run(
        &self,
        namespace_id: &str,
        workflow_id: &str,
    ) -> Result<Option<String>, StoreError>;

    /// A run's snapshot.
    async fn load_run(&self, run: &RunRef) -> Result<Option<StoredRun>, StoreError>;

    /// Encoded events of the branch written by `run_id` with ids in `first..=last`, in order,
    /// stopping after `max_bytes` (but at least one event if there is one): `(event id, bytes)`.
    /// Answers also for a deleted run while another run's history begins with its.
    async fn read_history(
        &self,
        namespace_id: &str,
        run_id: &str,
        first: i64,
        last: i64,
        max_bytes: usize,
    ) -> Result<Vec<(i64, Vec<u8>)>, StoreError>;

    /// The same from the end: ids descending from `last` down to `first`.
    async fn read_history_reverse(
        &self,
        namespace_id: &str,
        run_id: &str,
        first: i64,
        last: i64,
        max_bytes: usize,
    ) -> Result<Vec<(i64, Vec<u8>)>, StoreError>;

    /// The page that holds a run's record `n` or, if there is none, the first one after it. Answers
    /// also for a deleted run while another run's history begins with its.
    async fn record_page(&self, run: &RunRef, n: u64) -> Result<Option<RecordPage>, StoreError>;

    /// All logs.
    async fn logs(&self) -> Result<Vec<LogState>, StoreError>;

    /// Entries of a namespace's log from `first` on, in order: at most `count`, stopping after
    /// `max_bytes` (but at least one entry if there is one).
    async fn log_entries(
        &self,
        namespace_id: &str,
        first: u64,
        count: usize,
        max_bytes: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError>;

    /// The hashes of a tile of a namespace's log, as far as it has come.
    async fn log_tile(
        &self,
        namespace_id: &str,
        level: u8,
        index: u64,
    ) -> Result<Option<Vec<u8>>, StoreError>;

    /// Runs whose `wake_at` is at or before `before`, earliest first; with `after`, only those that
    /// come after it.
    async fn due_runs(
        &self,
        after: Option<DuePlace>,
        before: Time,
        limit: usize,
    ) -> Result<Vec<(DuePlace, RunRef)>, StoreError>;

    /// The earliest `wake_at` of all runs that is later than `after`.
    async fn next_wake(&self, after: Time) -> Result<Option<Time>, StoreError>;

    /// Closed runs whose `delete_at` is at or before `before`.
    async fn expired_runs(&self, before: Time, limit: usize) -> Result<Vec<RunRef>, StoreError>;

    /// Some runs of a namespace, for deleting it: what is deleted is not among the next ones.
    async fn runs_of_namespace(
        &self,
        namespace_id: &str,
        limit: usize,
    ) -> Result<Vec<RunRef>, StoreError>;

    /// Runs that have tasks waiting in a queue, oldest first.
    async fn runs_with_pending_tasks(
        &self,
        namespace_id: &str,
        kind: i32,
        task_queue: &str,
        limit: usize,
    ) -> Result<Vec<RunRef>, StoreError>;

    /// All queues that have tasks waiting: `(namespace id, kind, task queue, tasks, oldest)`.
    async fn pending_queues(&self) -> Result<Vec<(String, i32, String, u64, Time)>, StoreError>;

    /// Lists visibility rows.
    async fn list_visibility(&self, query: VisibilityQuery) -> Result<VisibilityPage, StoreError>;

    /// Counts visibility rows.
    async fn count_visibility(
        &self,
        namespace_id: &str,
        filter: filter::Filter,
    ) -> Result<VisibilityCount, StoreError>;

    /// Makes a custom search attribute of a namespace searchable on an index. `value_type` is
    /// `temporal.api.enums.v1.IndexedValueType` as its number. Adding it again is no error.
    async fn add_search_attribute(
        &self,
        namespace_id: &str,
        name: &str,
        value_type: i32,
    ) -> Result<(), StoreError>;

    /// Small records (namespaces, settings, keys) by kind and key, made durable at once.
    async fn put_record(&self, kind: &str, key: &str, value: Vec<u8>) -> Result<(), StoreError>;

    /// Removes a small record; removing what is not there is no error.
    async fn delete_record(&self, kind: &str, key: &str) -> Result<(), StoreError>;

    /// One small record.
    async fn record(&self, kind: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let all = self.records(kind).await?;
        let found = all.into_iter().find(|(of, _)| of == key);
        Ok(found.map(|(_, value)| value))
    }

    /// All small records of a kind: `(key, value)` sorted by key.
    async fn records(&self, kind: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Flushes what is buffered and lets go of files and locks; nothing is called after it.
    async fn close(&self) -> Result<(), StoreError>;
}
