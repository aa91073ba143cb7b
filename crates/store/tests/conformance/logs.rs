//! Logs and the pages of records that refer to them.

use bytes::Bytes;
use steadfast_store::{LogProjection, LogState, ProjectionBatch, RecordPage, Store, StoreError};

use super::{Fixture, NAMESPACE, OTHER_NAMESPACE, delete, project, projection, run_ref};

fn entry(number: u64) -> Bytes {
    Bytes::from(format!("entry {number}"))
}

fn appended(first_index: u64, count: u64) -> LogProjection {
    LogProjection {
        namespace_id: NAMESPACE.to_owned(),
        first_index,
        entries: (first_index..first_index + count).map(entry).collect(),
        tiles: vec![(0, 0, vec![7; (first_index + count) as usize * 32])],
        chain_n: first_index,
        chain_hash: (first_index > 0).then(|| vec![1; 32]),
    }
}

async fn append(store: &dyn Store, log: LogProjection) -> Result<(), StoreError> {
    let batch = ProjectionBatch {
        position: store.projected_position().await?,
        logs: vec![log],
        ..ProjectionBatch::default()
    };
    store.project(batch).await
}

async fn read(store: &dyn Store, first: u64, count: usize, max_bytes: usize) -> Vec<Vec<u8>> {
    let entries = store.log_entries(NAMESPACE, first, count, max_bytes).await;
    entries.expect("entries are read")
}

pub async fn entries_are_read_from_anywhere(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    assert_eq!(store.logs().await, Ok(Vec::new()));
    assert!(read(&*store, 0, 10, 1000).await.is_empty());
    let mut first = 0;
    for count in [1, 300, 2, 5] {
        append(&*store, appended(first, count))
            .await
            .expect("an append");
        first += count;
    }
    for from in [0, 1, 2, 150, 300, 301, 302, 307] {
        let expected: Vec<_> = (from..308.min(from + 10)).map(entry).collect();
        assert_eq!(read(&*store, from, 10, 1000).await, expected, "from {from}");
    }
    assert!(read(&*store, 308, 10, 1000).await.is_empty());
    // At least one, however long.
    assert_eq!(read(&*store, 3, 10, 1).await, [entry(3)]);
    assert_eq!(read(&*store, 3, 10, 16).await, [entry(3), entry(4)]);
    let of_other = store.log_entries(OTHER_NAMESPACE, 0, 10, 1000).await;
    assert_eq!(of_other, Ok(Vec::new()));
}

pub async fn a_log_grows_only_at_its_end(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    append(&*store, appended(0, 3)).await.expect("an append");
    for wrong in [0, 2, 4] {
        assert_eq!(
            append(&*store, appended(wrong, 1)).await,
            Err(StoreError::Conflict {
                expected: 3,
                found: wrong
            })
        );
    }
    append(&*store, appended(3, 2)).await.expect("an append");
    assert_eq!(
        store.logs().await,
        Ok(vec![LogState {
            namespace_id: NAMESPACE.to_owned(),
            size: 5,
            chain_n: 3,
            chain_hash: Some(vec![1; 32]),
        }])
    );
    let tile = store
        .log_tile(NAMESPACE, 0, 0)
        .await
        .expect("a tile is read");
    assert_eq!(tile, Some(vec![7; 5 * 32]));
    assert_eq!(store.log_tile(NAMESPACE, 0, 1).await, Ok(None));
}

pub async fn logs_survive_reopening(fixture: &dyn Fixture) {
    if !fixture.is_durable() {
        return;
    }
    let store = fixture.open().expect("a store");
    append(&*store, appended(0, 3)).await.expect("an append");
    store.close().await.expect("closes");
    let store = fixture.open().expect("the store again");
    assert_eq!(read(&*store, 1, 10, 1000).await, [entry(1), entry(2)]);
    append(&*store, appended(3, 1)).await.expect("an append");
}

pub async fn record_pages_are_found_by_number(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let page = |first_n: u64, count: u64| RecordPage {
        first_n,
        log_from: first_n * 10,
        records: (first_n..first_n + count)
            .map(|n| format!("record {n}").into_bytes())
            .collect(),
    };
    for (first_n, count) in [(1, 2), (3, 1), (4, 5)] {
        let mut run = projection(1);
        run.records = Some(page(first_n, count));
        project(&*store, vec![run]).await;
    }
    for (n, expected) in [(1, 1), (2, 1), (3, 3), (4, 4), (8, 4)] {
        let found = store.record_page(&run_ref(1), n).await.expect("reads");
        assert_eq!(found.map(|page| page.first_n), Some(expected), "record {n}");
    }
    assert_eq!(
        store.record_page(&run_ref(1), 3).await,
        Ok(Some(page(3, 1)))
    );
    assert_eq!(store.record_page(&run_ref(1), 9).await, Ok(None));
    assert_eq!(store.record_page(&run_ref(2), 1).await, Ok(None));
    delete(&*store, vec![run_ref(1)]).await;
    assert_eq!(store.record_page(&run_ref(1), 1).await, Ok(None));
}
