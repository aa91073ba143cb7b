//! What erased runs leave in the bytes of SQLite's files: nothing, once it is overwritten.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use steadfast_store::sqlite::{SqliteOptions, SqliteStore};
use steadfast_store::{
    ErasedRun, HistoryPage, JournalRow, ProjectionBatch, RecordPage, RunProjection, RunRef, Store,
    StoreError, VisibilityRow,
};

const SECRET: &[u8] = b"4111-1111-1111-1111";

/// Runs whose secrets are looked for, and as many neighbours without one.
const RUNS: u32 = 40;

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, SqliteOptions::default()).expect("a store")
}

fn run_ref(number: u32) -> RunRef {
    RunRef {
        namespace_id: "namespace".to_owned(),
        workflow_id: format!("workflow-{number}"),
        run_id: format!("run-{number:04}"),
    }
}

/// Bytes of a length that depends on the numbers, with the secret all over them.
fn secrets(number: u32, round: u32) -> Vec<u8> {
    let is_secret = number.is_multiple_of(2);
    let unit = if is_secret {
        SECRET
    } else {
        b"nothing of interest"
    };
    unit.repeat((number as usize * 31 + round as usize * 17) % 97 + 1)
}

fn shown(number: u32) -> VisibilityRow {
    let run = run_ref(number);
    VisibilityRow {
        workflow_id: run.workflow_id,
        run_id: run.run_id,
        ..VisibilityRow::default()
    }
}

fn projection(number: u32, round: u32) -> RunProjection {
    let bytes = || secrets(number, round);
    RunProjection {
        run: run_ref(number),
        slot: 7,
        snapshot: bytes(),
        seq: 1,
        wake_at: None,
        history: vec![HistoryPage {
            first_event_id: i64::from(round) + 1,
            events: vec![bytes()],
        }],
        history_parents: Vec::new(),
        visibility: Some(VisibilityRow {
            memo_bytes: bytes(),
            search_attributes_bytes: bytes(),
            ..shown(number)
        }),
        pending_tasks: Vec::new(),
        delete_at: None,
        records: Some(RecordPage {
            first_n: u64::from(round) + 1,
            log_from: 0,
            records: vec![bytes()],
        }),
    }
}

fn left(number: u32) -> ErasedRun {
    ErasedRun {
        run: run_ref(number),
        snapshot: Some(b"left".to_vec()),
        history: vec![HistoryPage {
            first_event_id: 1,
            events: vec![b"left".to_vec()],
        }],
        visibility: Some(shown(number)),
    }
}

/// A store in which runs have lived: their rows grew and shrank, and moved from page to page.
async fn lived(path: &Path) -> SqliteStore {
    let store = open(path);
    let mut position = 0;
    for round in 0..12 {
        for number in 0..RUNS {
            position += 1;
            let row = JournalRow {
                seq: position,
                slot: 7,
                bytes: secrets(number, round),
            };
            store.append(&[row]).await.expect("appended");
        }
        let batch = ProjectionBatch {
            position,
            runs: (0..RUNS).map(|number| projection(number, round)).collect(),
            ..ProjectionBatch::default()
        };
        store.project(batch).await.expect("projected");
    }
    store
}

async fn erase(store: &SqliteStore) {
    let position = store.projected_position().await.expect("a position") + 1;
    let row = JournalRow {
        seq: position,
        slot: 7,
        bytes: b"erased".to_vec(),
    };
    store.append(&[row]).await.expect("appended");
    let batch = ProjectionBatch {
        position,
        erased: (0..RUNS).step_by(2).map(left).collect(),
        ..ProjectionBatch::default()
    };
    store.project(batch).await.expect("erased");
}

/// Files with the secret in them.
fn found(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).expect("files") {
        let path = entry.expect("a file").path();
        let bytes = std::fs::read(&path).expect("its bytes");
        if bytes.windows(SECRET.len()).any(|of| of == SECRET) {
            names.push(path.display().to_string());
        }
    }
    names
}

#[tokio::test]
async fn nothing_of_what_was_erased_is_left_in_the_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("steadfast.db");
    let store = lived(&path).await;
    erase(&store).await;
    // Replacing rows is not enough: this is what the test would find.
    assert_ne!(found(directory.path()), Vec::<String>::new());
    store.overwrite_remains().await.expect("overwritten");
    assert_eq!(found(directory.path()), Vec::<String>::new());
    let neighbour = store.load_run(&run_ref(1)).await.expect("a read");
    assert_eq!(neighbour.expect("a run").snapshot, secrets(1, 11));
    store.close().await.expect("closed");
    assert_eq!(found(directory.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_crash_before_it_is_overwritten_is_made_up_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = lived(&directory.path().join("steadfast.db")).await;
    erase(&store).await;
    let copy = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(directory.path()).expect("files") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name");
        std::fs::copy(&path, copy.path().join(name)).expect("a copy");
    }
    assert_ne!(found(copy.path()), Vec::<String>::new());
    let store = open(&copy.path().join("steadfast.db"));
    store.overwrite_remains().await.expect("overwritten");
    assert_eq!(found(copy.path()), Vec::<String>::new());
}

#[tokio::test]
async fn without_an_erasure_nothing_is_written_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("steadfast.db");
    let store = lived(&path).await;
    let batch = ProjectionBatch {
        position: store.projected_position().await.expect("a position"),
        deleted: (0..RUNS)
            .filter(|number| number % 2 == 1)
            .map(run_ref)
            .collect(),
        ..ProjectionBatch::default()
    };
    store.project(batch).await.expect("deleted");
    let free_pages = || {
        let side = Connection::open(&path).expect("the file");
        side.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0))
    };
    let before = free_pages().expect("a count");
    assert!(before > 0, "there is something to be made smaller");
    store.overwrite_remains().await.expect("nothing to do");
    assert_eq!(free_pages().expect("a count"), before);
    erase(&store).await;
    store.overwrite_remains().await.expect("overwritten");
    assert_eq!(free_pages().expect("a count"), 0);
}

/// Somebody who looks into the file keeps old pages in its log.
#[tokio::test]
async fn as_long_as_old_pages_are_read_it_is_not_done() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("steadfast.db");
    let store = lived(&path).await;
    let reader = Connection::open(&path).expect("the file");
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM run;")
        .expect("a read");
    erase(&store).await;
    let refused = store.overwrite_remains().await;
    assert!(matches!(refused, Err(StoreError::Other(_))), "{refused:?}");
    reader.execute_batch("COMMIT").expect("its end");
    store.overwrite_remains().await.expect("overwritten");
    assert_eq!(found(directory.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_does_not_wait_for_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("steadfast.db");
    let store = std::sync::Arc::new(lived(&path).await);
    // So much that writing it anew takes a while.
    let big = RunProjection {
        snapshot: vec![7; 200_000_000],
        ..projection(1001, 0)
    };
    let batch = ProjectionBatch {
        position: store.projected_position().await.expect("a position"),
        runs: vec![big],
        ..ProjectionBatch::default()
    };
    store.project(batch).await.expect("projected");
    erase(&store).await;
    let overwriting = tokio::spawn({
        let store = store.clone();
        async move { store.overwrite_remains().await }
    });
    std::thread::sleep(Duration::from_millis(30));
    let begun = Instant::now();
    store.close().await.expect("closed");
    let waited = begun.elapsed();
    let ended = overwriting.await.expect("it ends");
    assert!(ended.is_err(), "it was not done after {waited:?}");
    let store = open(&path);
    store.overwrite_remains().await.expect("overwritten");
    assert_eq!(found(directory.path()), Vec::<String>::new());
}
