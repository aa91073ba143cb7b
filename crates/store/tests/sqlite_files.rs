//! What only the SQLite store does: its files, its lock, crashes, full disks, and live inspection.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::Connection;
use steadfast_store::sqlite::{SqliteOptions, SqliteStore};
use steadfast_store::{
    HistoryPage, JournalRow, ProjectionBatch, RunProjection, RunRef, Store, StoreError,
};

fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, SqliteOptions::default())
}

fn row(seq: u64, bytes: usize) -> JournalRow {
    JournalRow {
        seq,
        slot: 7,
        bytes: vec![seq as u8; bytes],
    }
}

fn rows(seqs: std::ops::RangeInclusive<u64>) -> Vec<JournalRow> {
    seqs.map(|seq| row(seq, 1000)).collect()
}

fn batch(position: u64) -> ProjectionBatch {
    let run = RunProjection {
        run: RunRef {
            namespace_id: "namespace".to_owned(),
            workflow_id: format!("workflow-{position}"),
            run_id: format!("run-{position}"),
        },
        slot: 7,
        snapshot: vec![1; 1000],
        seq: position,
        wake_at: None,
        history: vec![HistoryPage {
            first_event_id: 1,
            events: vec![vec![2; 1000]],
        }],
        history_parents: Vec::new(),
        visibility: None,
        pending_tasks: Vec::new(),
        delete_at: None,
        records: None,
    };
    ProjectionBatch {
        position,
        runs: vec![run],
        ..ProjectionBatch::default()
    }
}

/// Copies the files of a live store, but for those whose name ends with one of `without`.
fn copy(directory: &Path, without: &[&str]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(directory).expect("files") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_owned();
        if !without
            .iter()
            .any(|end| name.to_string_lossy().ends_with(end))
        {
            std::fs::copy(&path, copy.path().join(name)).expect("a copy");
        }
    }
    copy
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("files");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("a file")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn files_are_beside_each_other_and_clean_after_closing() {
    for (name, expected) in [
        (
            "steadfast.db",
            ["steadfast.db", "steadfast.db.lock", "steadfast.journal.db"],
        ),
        (
            "a.b.sqlite",
            ["a.b.journal.sqlite", "a.b.sqlite", "a.b.sqlite.lock"],
        ),
        ("plain", ["plain", "plain.journal", "plain.lock"]),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let store = open(&directory.path().join(name)).expect("a store");
        store.append(&rows(1..=3)).await.expect("an append");
        store.project(batch(3)).await.expect("a projection");
        store.close().await.expect("an orderly end");
        assert_eq!(names(directory.path()), expected);
    }
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("steadfast.db");
    let first = open(&path).expect("a store");
    match open(&path) {
        Err(StoreError::Locked(file)) => assert!(file.ends_with("steadfast.db.lock"), "{file}"),
        other => panic!("{:?}", other.err()),
    }
    first.append(&rows(1..=1)).await.expect("the first goes on");
    first.close().await.expect("an orderly end");
    let second = open(&path).expect("the store, which is free now");
    assert_eq!(second.journal_head().await, Ok(1));
    assert_eq!(first.append(&rows(2..=2)).await, Err(StoreError::Closed));
    assert_eq!(first.journal_head().await, Err(StoreError::Closed));
    assert_eq!(first.project(batch(1)).await, Err(StoreError::Closed));
    assert_eq!(first.records("kind").await, Err(StoreError::Closed));
}

#[test]
fn files_of_a_newer_release_are_refused_and_left_alone() {
    for (file, supported) in [("steadfast.db", 4), ("steadfast.journal.db", 1)] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("steadfast.db");
        drop(open(&path).expect("a store"));
        let newer = Connection::open(directory.path().join(file)).expect("the file");
        newer
            .pragma_update(None, "user_version", 99)
            .expect("a newer version");
        newer.close().expect("an orderly end");
        let error = open(&path).err();
        let expected = StoreError::TooNew {
            found: 99,
            supported,
        };
        assert_eq!(error, Some(expected), "{file}");
    }
}

/// The column takes what looks like a number for one: such an id could not be read again.
#[test]
fn the_id_that_pairs_the_files_is_no_number() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(&directory.path().join("steadfast.db")).expect("a store"));
    for file in ["steadfast.db", "steadfast.journal.db"] {
        let file = Connection::open(directory.path().join(file)).expect("the file");
        let sql = "SELECT value FROM meta WHERE key = 'store_id'";
        let id: String = file.query_row(sql, [], |row| row.get(0)).expect("an id");
        assert!(id.starts_with("id-"), "{id}");
    }
}

#[test]
fn files_that_are_not_ours_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("other.db");
    let other = Connection::open(&path).expect("a file");
    other
        .execute_batch("CREATE TABLE precious (x)")
        .expect("a table");
    other.close().expect("an orderly end");
    assert!(matches!(open(&path).err(), Some(StoreError::Corrupt(_))));
    let other = Connection::open(&path).expect("a file");
    let tables = other.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0));
    assert_eq!(tables, Ok(1), "nothing was added");

    let path = directory.path().join("text.db");
    std::fs::write(&path, "This is not a database. ".repeat(1000)).expect("a file");
    assert!(matches!(open(&path).err(), Some(StoreError::Corrupt(_))));

    let path = directory.path().join("missing/steadfast.db");
    assert!(matches!(open(&path).err(), Some(StoreError::Other(_))));
}

#[tokio::test]
async fn files_that_do_not_belong_together_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("steadfast.db");
    let journal = directory.path().join("steadfast.journal.db");
    let store = open(&path).expect("a store");
    store.close().await.expect("an orderly end");
    let empty = copy(directory.path(), &[]);
    let store = open(&path).expect("a store");
    store.append(&rows(1..=200)).await.expect("an append");
    store.project(batch(150)).await.expect("a projection");
    store.close().await.expect("an orderly end");
    let whole = copy(directory.path(), &[]);
    let other = tempfile::tempdir().expect("a directory");
    drop(open(&other.path().join("steadfast.db")).expect("another store"));

    let replace = |from: &Path, to: &PathBuf| {
        std::fs::copy(from.join(to.file_name().expect("a name")), to).expect("a copy");
    };
    let assert_corrupt = |why: &str| {
        let error = open(&path).err();
        assert!(
            matches!(error, Some(StoreError::Corrupt(_))),
            "{why}: {error:?}"
        );
    };
    replace(other.path(), &journal);
    assert_corrupt("the journal of another store");
    replace(empty.path(), &journal);
    assert_corrupt("an older journal");
    std::fs::remove_file(&journal).expect("a file");
    assert_corrupt("no journal");
    std::fs::remove_file(&journal).ok();
    replace(whole.path(), &journal);
    replace(empty.path(), &path);
    assert_corrupt("older projections, whose journal rows were trimmed");
    std::fs::remove_file(&path).expect("a file");
    assert_corrupt("no projections");
    replace(whole.path(), &path);
    let store = open(&path).expect("the store, whole again");
    assert_eq!(store.journal_head().await, Ok(200));
}

#[tokio::test]
async fn what_a_killed_process_had_written_is_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory.path().join("steadfast.db")).expect("a store");
    store
        .put_record("kind", "key", b"value".to_vec())
        .await
        .expect("a record");
    store.append(&rows(1..=20)).await.expect("an append");
    store.project(batch(10)).await.expect("a projection");
    let killed = copy(directory.path(), &[]);
    let store = open(&killed.path().join("steadfast.db")).expect("the store");
    assert_eq!(store.journal_head().await, Ok(20));
    assert_eq!(store.projected_position().await, Ok(10));
    assert_eq!(store.journal_rows(10, 100).await, Ok(rows(11..=20)));
    let records = store.records("kind").await;
    assert_eq!(records, Ok(vec![("key".to_owned(), b"value".to_vec())]));
}

/// After a power failure the projections' write-ahead log may be empty; the journal's is not.
#[tokio::test]
async fn projections_that_a_power_failure_took_are_still_in_the_journal() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = SqliteOptions {
        projection_checkpoint_pages: 100,
        ..SqliteOptions::default()
    };
    let path = directory.path().join("steadfast.db");
    let store = SqliteStore::open(&path, options).expect("a store");
    let without = ["steadfast.db-wal", "steadfast.db-shm"];
    let mut went_back = 0;
    for seq in 1..=60 {
        store.append(&rows(seq..=seq)).await.expect("an append");
        store.project(batch(seq)).await.expect("a projection");
        let image = copy(directory.path(), &without);
        let survivor = open(&image.path().join("steadfast.db")).expect("the store");
        assert_eq!(survivor.journal_head().await, Ok(seq));
        let position = survivor.projected_position().await.expect("a position");
        let tail = survivor.journal_rows(position, 1000).await.expect("rows");
        assert_eq!(tail, rows(position + 1..=seq));
        went_back += seq - position;
    }
    assert!(went_back > 0, "nothing was lost, so nothing was tested");
    assert!(went_back < 60 * 61 / 2, "nothing was ever made durable");
}

#[tokio::test]
async fn journal_rows_are_trimmed_after_a_checkpoint() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = SqliteOptions {
        projection_checkpoint_pages: 20,
        journal_checkpoint_pages: 20,
        ..SqliteOptions::default()
    };
    let path = directory.path().join("steadfast.db");
    let store = SqliteStore::open(&path, options).expect("a store");
    let journal = Connection::open(directory.path().join("steadfast.journal.db")).expect("a file");
    let count = || -> u64 {
        let count = journal.query_row("SELECT count(*) FROM journal", [], |row| row.get(0));
        count.map(|count: i64| count as u64).expect("a count")
    };
    let mut most = 0;
    for group in 0..100 {
        let first = group * 10 + 1;
        store
            .append(&rows(first..=first + 9))
            .await
            .expect("an append");
        store.project(batch(first + 9)).await.expect("a projection");
        most = most.max(count());
    }
    assert!(most < 500, "{most} rows were in the journal at once");
    let pages: i64 = journal
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .expect("n");
    assert!(
        pages < 400,
        "{pages} pages for {most} rows: space is not used again"
    );
    drop(journal);
    store.close().await.expect("an orderly end");
    let journal = Connection::open(directory.path().join("steadfast.journal.db")).expect("a file");
    let left = journal.query_row("SELECT max(seq), count(*) FROM journal", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
    });
    assert_eq!(left, Ok((1000, 1)), "the last row remembers the head");
}

#[tokio::test]
async fn a_tool_that_looks_into_a_live_store_holds_nothing_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = SqliteOptions {
        projection_checkpoint_pages: 1,
        journal_checkpoint_pages: 1,
        ..SqliteOptions::default()
    };
    let path = directory.path().join("steadfast.db");
    let store = SqliteStore::open(&path, options).expect("a store");
    store.append(&rows(1..=10)).await.expect("an append");
    store.project(batch(10)).await.expect("a projection");
    let tools: Vec<_> = names(directory.path())
        .into_iter()
        .filter(|name| name.ends_with(".db"))
        .map(|name| Connection::open(directory.path().join(name)).expect("a file"))
        .collect();
    for tool in &tools {
        tool.execute_batch("BEGIN; SELECT count(*) FROM meta")
            .expect("a long look");
    }
    for group in 1..20 {
        let first = group * 10 + 1;
        store
            .append(&rows(first..=first + 9))
            .await
            .expect("an append");
        store.project(batch(first + 9)).await.expect("a projection");
    }
    assert_eq!(store.projected_position().await, Ok(200));
    drop(tools);
    store.append(&rows(201..=201)).await.expect("an append");
    store.project(batch(201)).await.expect("a projection");
    store.close().await.expect("an orderly end");
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_passes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("steadfast.db");
    let options = SqliteOptions {
        journal_pragmas: vec![("max_page_count".to_owned(), "60".to_owned())],
        projection_checkpoint_pages: 1,
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open(&path, options.clone()).expect("a store");
    let mut head = 0;
    let full = loop {
        match store.append(&rows(head + 1..=head + 8)).await {
            Ok(()) => head += 8,
            Err(error) => break error,
        }
        assert!(head < 1000, "the disk is never full");
    };
    assert!(matches!(full, StoreError::Full(_)), "{full}");
    assert!(head > 0);
    assert_eq!(store.journal_head().await, Ok(head));
    assert_eq!(store.journal_rows(0, 1000).await, Ok(rows(1..=head)));
    // Still full, and still the same afterwards.
    let again = store.append(&rows(head + 1..=head + 8)).await;
    assert!(matches!(again, Err(StoreError::Full(_))), "{again:?}");
    let gap = store.append(&rows(head + 2..=head + 2)).await;
    let (expected, found) = (head + 1, head + 2);
    assert_eq!(gap, Err(StoreError::Conflict { expected, found }));
    let image = copy(directory.path(), &[]);
    let reopened = SqliteStore::open(&image.path().join("steadfast.db"), options);
    assert_eq!(reopened.expect("the store").journal_head().await, Ok(head));
    // Projected rows make room.
    store.project(batch(head)).await.expect("a projection");
    store
        .append(&rows(head + 1..=head + 8))
        .await
        .expect("room for rows");
    assert_eq!(
        store.journal_rows(head, 1000).await,
        Ok(rows(head + 1..=head + 8))
    );
}

#[tokio::test]
async fn full_projections_are_not_half_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("steadfast.db");
    let options = SqliteOptions {
        projection_pragmas: vec![("max_page_count".to_owned(), "80".to_owned())],
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open(&path, options).expect("a store");
    let mut position = 0;
    let full = loop {
        let next = position + 1;
        store.append(&rows(next..=next)).await.expect("an append");
        match store.project(batch(next)).await {
            Ok(()) => position = next,
            Err(error) => break error,
        }
        assert!(position < 1000, "the disk is never full");
    };
    assert!(matches!(full, StoreError::Full(_)), "{full}");
    assert_eq!(store.projected_position().await, Ok(position));
    let next = position + 1;
    let runs = store
        .runs_of_namespace("namespace", 1000)
        .await
        .expect("runs");
    assert_eq!(runs.len() as u64, position);
    let record = store.put_record("kind", "key", vec![0; 100_000]).await;
    assert!(matches!(record, Err(StoreError::Full(_))), "{record:?}");
    drop(store);
    let store = open(&path).expect("the store with room");
    store.project(batch(next)).await.expect("a projection");
    assert_eq!(store.projected_position().await, Ok(next));
}

/// In a child process, the test of this name appends for ever, and says how far it is.
const APPENDS_FOR_EVER: &str = "STEADFAST_TEST_APPENDS_FOR_EVER";

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there() {
    if let Ok(path) = std::env::var(APPENDS_FOR_EVER) {
        let store = open(Path::new(&path)).expect("a store");
        for first in (1..).step_by(16) {
            store
                .append(&rows(first..=first + 15))
                .await
                .expect("an append");
            println!("head {}", first + 15);
            store
                .project(batch(first + 15))
                .await
                .expect("a projection");
            println!("position {}", first + 15);
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    for lines in [1, 10, 301] {
        let path = directory.path().join(format!("{lines}.db"));
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args([
                "what_was_acknowledged_before_a_kill_is_there",
                "--exact",
                "--nocapture",
            ])
            .env(APPENDS_FOR_EVER, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let (mut head, mut position) = (0, 0);
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let said = output.lines().map(|line| line.expect("a line"));
        let said = said.filter_map(|line| {
            let (what, number) = line.rsplit_once(' ')?;
            Some((what.ends_with("head"), number.parse::<u64>().ok()?))
        });
        for (is_head, number) in said.take(lines) {
            *(if is_head { &mut head } else { &mut position }) = number;
        }
        child.kill().expect("a kill");
        child.wait().expect("its end");
        assert!(head > 0, "it did nothing");
        let store = open(&path).expect("the store");
        let found = store.journal_head().await.expect("a head");
        assert!(found >= head, "{head} was acknowledged, {found} is there");
        let projected = store.projected_position().await.expect("a position");
        assert!(projected >= position, "{position} was acknowledged");
        assert!(projected <= found);
        let tail = store.journal_rows(projected, 100_000).await.expect("rows");
        assert_eq!(tail, rows(projected + 1..=found));
    }
}
