//! The tables of both files, their versions, and the way from one version to the next.

use rusqlite::Connection;

use super::connection::error;
use crate::StoreError;

/// "STFD" and "STFJ": how `file` and a curious person tell our files from others.
const PROJECTIONS_APPLICATION_ID: i64 = 0x5354_4644;
const JOURNAL_APPLICATION_ID: i64 = 0x5354_464a;

/// A file's identity and its schema's history: entry `n` makes version `n + 1` of version `n`.
/// Entries are never changed once released; a change is a new entry.
pub(super) struct Schema {
    application_id: i64,
    migrations: &'static [&'static str],
}

/// The file of the projections.
pub(super) const PROJECTIONS: Schema = Schema {
    application_id: PROJECTIONS_APPLICATION_ID,
    migrations: &[PROJECTIONS_1, PROJECTIONS_2, PROJECTIONS_3, PROJECTIONS_4],
};

/// The file of the journal.
pub(super) const JOURNAL: Schema = Schema {
    application_id: JOURNAL_APPLICATION_ID,
    migrations: &[JOURNAL_1],
};

/// From here on rows of `log_entries` may be compressed: nothing changes in those that are there.
const PROJECTIONS_4: &str = "";

const JOURNAL_1: &str = "
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value ANY
) WITHOUT ROWID;

CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,
    slot INTEGER NOT NULL,
    bytes BLOB NOT NULL
);
";

/// Names are interned as integers (`namespace_key`, `run_key`, `attribute_id`) because every index
/// repeats its key columns. Large values are apart from indexed columns, so that changing one does
/// not rewrite the other.
///
/// - `run.state` is 0 for a run that exists and 1 for one that was deleted while another run's
///   history begins with its.
/// - `run.is_current` is 1 for the current run of its workflow id. The index that it is in also
///   finds runs by workflow id for visibility: workflow ids are in no order, so each further index
///   of them would cost a page per run.
/// - `history.page_id` is `run_key << 24 | first_event_id`: pages of one run are neighbours and
///   need no second index.
/// - `visibility.space` is `namespace_key * 2`, plus 1 if the run is in a namespace division:
///   lists leave out divisions unless they are asked for, and must not pay for that.
/// - `visibility.sort_close` is the close time, or the largest integer while the run is open:
///   the order in which runs are listed.
/// - `word` holds the elements of keyword lists and the words of texts.
const PROJECTIONS_1: &str = r#"
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value ANY
) WITHOUT ROWID;
INSERT INTO meta (key, value) VALUES ('position', 0);

CREATE TABLE record (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;

CREATE TABLE namespace (
    namespace_key INTEGER PRIMARY KEY,
    namespace_id TEXT NOT NULL UNIQUE
);

CREATE TABLE run (
    run_key INTEGER PRIMARY KEY,
    namespace_key INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    pending INTEGER NOT NULL DEFAULT 0,
    wake_at INTEGER,
    delete_at INTEGER,
    is_current INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    UNIQUE (namespace_key, run_id)
);
CREATE INDEX run_workflow_id ON run (namespace_key, workflow_id, is_current);
CREATE INDEX run_wake_at ON run (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX run_delete_at ON run (delete_at) WHERE delete_at IS NOT NULL;

CREATE TABLE snapshot (
    run_key INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    bytes BLOB NOT NULL
);

CREATE TABLE history (
    page_id INTEGER PRIMARY KEY,
    events BLOB NOT NULL
);
CREATE TABLE history_parent (
    run_key INTEGER NOT NULL,
    parent_key INTEGER NOT NULL,
    PRIMARY KEY (run_key, parent_key)
) WITHOUT ROWID;
CREATE INDEX history_parent_of ON history_parent (parent_key);

CREATE TABLE pending_task (
    namespace_key INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    task_queue TEXT NOT NULL,
    since INTEGER NOT NULL,
    run_key INTEGER NOT NULL,
    tasks INTEGER NOT NULL,
    PRIMARY KEY (namespace_key, kind, task_queue, since, run_key)
) WITHOUT ROWID;
CREATE INDEX pending_task_run ON pending_task (run_key);

CREATE TABLE visibility (
    run_key INTEGER PRIMARY KEY,
    space INTEGER NOT NULL,
    status INTEGER NOT NULL,
    start_time INTEGER NOT NULL,
    sort_close INTEGER NOT NULL,
    close_time INTEGER,
    execution_time INTEGER NOT NULL,
    history_length INTEGER,
    history_size_bytes INTEGER,
    state_transition_count INTEGER,
    workflow_type TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    task_queue TEXT NOT NULL,
    parent_workflow_id TEXT,
    parent_run_id TEXT,
    root_workflow_id TEXT,
    root_run_id TEXT,
    first_run_id TEXT NOT NULL,
    search_attributes TEXT,
    search_attributes_bytes BLOB NOT NULL,
    memo_bytes BLOB NOT NULL
);
CREATE INDEX visibility_close ON visibility (space, sort_close, start_time);
CREATE INDEX visibility_start ON visibility (space, start_time);
CREATE INDEX visibility_status ON visibility (space, status, sort_close, start_time);
CREATE INDEX visibility_type ON visibility (space, workflow_type, sort_close, start_time);
CREATE INDEX visibility_status_type
    ON visibility (space, status, workflow_type, sort_close, start_time);
CREATE INDEX visibility_task_queue ON visibility (space, task_queue, sort_close, start_time);
CREATE INDEX visibility_parent_workflow_id
    ON visibility (space, parent_workflow_id) WHERE parent_workflow_id IS NOT NULL;
CREATE INDEX visibility_parent_run_id
    ON visibility (space, parent_run_id) WHERE parent_run_id IS NOT NULL;
CREATE INDEX visibility_root_workflow_id
    ON visibility (space, root_workflow_id) WHERE root_workflow_id IS NOT NULL;
CREATE INDEX visibility_root_run_id
    ON visibility (space, root_run_id) WHERE root_run_id IS NOT NULL;

CREATE TABLE attribute_column (
    column_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    value_type INTEGER NOT NULL,
    UNIQUE (name, value_type)
);
CREATE TABLE attribute (
    attribute_id INTEGER PRIMARY KEY,
    namespace_key INTEGER NOT NULL,
    name TEXT NOT NULL,
    value_type INTEGER NOT NULL,
    UNIQUE (namespace_key, name)
);
CREATE TABLE word (
    attribute_id INTEGER NOT NULL,
    value TEXT NOT NULL,
    run_key INTEGER NOT NULL,
    PRIMARY KEY (attribute_id, value, run_key)
) WITHOUT ROWID;
"#;

/// The logs, and the records of runs.
///
/// - `log.chain_n` and `chain_hash` are the end of the chain of entries that belong to no run.
/// - `log_entries.entries_id` is `log_key << 40 | index of the first entry`.
/// - `log_tile.hashes` grows until it has 256 of them.
/// - `record_page.page_id` is `run_key << 28 | number of the first record`, and `log_from` the log's
///   size before the page's entries were put into it: a lower bound of their places.
const PROJECTIONS_2: &str = "
CREATE TABLE log (
    log_key INTEGER PRIMARY KEY,
    namespace_id TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    chain_n INTEGER NOT NULL,
    chain_hash BLOB
);
CREATE TABLE log_entries (
    entries_id INTEGER PRIMARY KEY,
    entries BLOB NOT NULL
);
CREATE TABLE log_tile (
    log_key INTEGER NOT NULL,
    level INTEGER NOT NULL,
    tile_index INTEGER NOT NULL,
    hashes BLOB NOT NULL,
    UNIQUE (log_key, level, tile_index)
);
CREATE TABLE record_page (
    page_id INTEGER PRIMARY KEY,
    log_from INTEGER NOT NULL,
    records BLOB NOT NULL
);
";

/// No other tables. Histories may have skeletons in the place of events from here on, and journal rows
/// may say that a run is to be erased: releases that do not know them must not use the file.
const PROJECTIONS_3: &str = "";

/// What a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// It holds nothing yet.
    New,
    /// It is of this schema, at any version that this release supports.
    Known,
}

impl Schema {
    /// The newest version.
    pub(super) fn version(&self) -> i64 {
        self.migrations.len() as i64
    }

    /// Whether the file may be used. Changes nothing.
    pub(super) fn inspect(
        &self,
        connection: &Connection,
        file: &str,
    ) -> Result<FileState, StoreError> {
        let version = pragma(connection, "user_version")?;
        let application_id = pragma(connection, "application_id")?;
        if version == 0 && application_id == 0 {
            let tables: i64 = connection
                .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
                .map_err(error)?;
            if tables == 0 {
                return Ok(FileState::New);
            }
        }
        if application_id != self.application_id {
            return Err(StoreError::Corrupt(format!(
                "{file} is a SQLite database of another program"
            )));
        }
        if version > self.version() {
            return Err(StoreError::TooNew {
                found: version,
                supported: self.version(),
            });
        }
        Ok(FileState::Known)
    }

    /// Brings the file to the newest version, one transaction per version.
    pub(super) fn migrate(&self, connection: &Connection) -> Result<(), StoreError> {
        let version = pragma(connection, "user_version")?;
        let pending = self.migrations.iter().zip(1_i64..);
        for (migration, to) in pending.filter(|(_, to)| *to > version) {
            let transaction = connection.unchecked_transaction().map_err(error)?;
            transaction.execute_batch(migration).map_err(error)?;
            transaction
                .pragma_update(None, "application_id", self.application_id)
                .map_err(error)?;
            transaction
                .pragma_update(None, "user_version", to)
                .map_err(error)?;
            transaction.commit().map_err(error)?;
        }
        Ok(())
    }
}

fn pragma(connection: &Connection, name: &str) -> Result<i64, StoreError> {
    connection
        .pragma_query_value(None, name, |row| row.get(0))
        .map_err(error)
}
