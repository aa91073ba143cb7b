//! Erased runs.

use serde_json::json;
use steadfast_store::filter::{AttributeTypes, Filter};
use steadfast_store::{
    ErasedRun, ProjectionBatch, RecordPage, RunProjection, Store, VisibilityRow,
};

use super::{
    Fixture, NAMESPACE, SECOND, delete, page, project, projection, run_id, run_ref, visibility_row,
};

/// `INDEXED_VALUE_TYPE_KEYWORD_LIST`.
const KEYWORD_LIST: i32 = 7;

fn closed_row(number: u32) -> VisibilityRow {
    VisibilityRow {
        close_time: Some(100 * SECOND),
        status: 2,
        ..visibility_row(number)
    }
}

/// A closed run with something in everything.
fn full(number: u32) -> RunProjection {
    let mut row = closed_row(number);
    let tags = json!(["secret", "more"]);
    row.search_attributes.insert("Tags".to_owned(), tags);
    row.search_attributes_bytes = b"secret".to_vec();
    row.memo_bytes = b"secret".to_vec();
    RunProjection {
        history: vec![page(1, &["one", "two"]), page(3, &["three"])],
        records: Some(RecordPage {
            first_n: 1,
            log_from: 0,
            records: vec![b"record".to_vec()],
        }),
        visibility: Some(row),
        delete_at: Some(200 * SECOND),
        ..projection(number)
    }
}

fn left(number: u32) -> ErasedRun {
    ErasedRun {
        run: run_ref(number),
        snapshot: Some(b"erased state".to_vec()),
        history: vec![page(1, &["-", "--", "---"])],
        visibility: Some(closed_row(number)),
    }
}

async fn erase(store: &dyn Store, erased: ErasedRun) {
    let position = store.projected_position().await.expect("a position");
    let batch = ProjectionBatch {
        position,
        erased: vec![erased],
        ..ProjectionBatch::default()
    };
    store.project(batch).await.expect("erased");
}

async fn history(store: &dyn Store, number: u32) -> Vec<String> {
    let run_id = run_id(number);
    let read = store.read_history(NAMESPACE, &run_id, 1, 99, usize::MAX);
    let events = read.await.expect("a history");
    let texts = events
        .into_iter()
        .map(|(_, bytes)| String::from_utf8(bytes));
    texts.collect::<Result<_, _>>().expect("texts")
}

async fn tagged(store: &dyn Store) -> i64 {
    let types = AttributeTypes::new([("Tags", KEYWORD_LIST)]);
    let filter = Filter::parse("Tags = 'secret'", &types).expect("a filter");
    let counted = store.count_visibility(NAMESPACE, filter).await;
    counted.expect("a count").total
}

pub async fn what_is_left_takes_the_place_of_what_was(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let added = store.add_search_attribute(NAMESPACE, "Tags", KEYWORD_LIST);
    added.await.expect("an attribute");
    project(&*store, vec![full(1), full(2)]).await;
    assert_eq!(tagged(&*store).await, 2);
    // Also again: a crash may have taken only what comes after it.
    for _ in 0..2 {
        erase(&*store, left(1)).await;
        assert_eq!(history(&*store, 1).await, ["-", "--", "---"]);
        assert_eq!(store.record_page(&run_ref(1), 1).await, Ok(None));
        let stored = store.load_run(&run_ref(1)).await.expect("a read");
        let stored = stored.expect("a run");
        assert_eq!(
            (stored.snapshot.as_slice(), stored.seq),
            (b"erased state".as_slice(), 1)
        );
        assert_eq!(tagged(&*store).await, 1);
    }
    let filter = Filter::of_workflow(&run_ref(1).workflow_id);
    let query = steadfast_store::VisibilityQuery {
        namespace_id: NAMESPACE.to_owned(),
        filter,
        page_size: 10,
        cursor: None,
    };
    let listed = store.list_visibility(query).await.expect("a list");
    assert_eq!(listed.rows, [closed_row(1)]);
    let expired = store.expired_runs(300 * SECOND, 10).await.expect("runs");
    assert_eq!(expired.len(), 2, "it is deleted when the other one is");
    // The other one is as it was, and one that is not there is no error.
    erase(&*store, left(3)).await;
    assert_eq!(history(&*store, 2).await, ["one", "two", "three"]);
    assert!(matches!(
        store.record_page(&run_ref(2), 1).await,
        Ok(Some(_))
    ));
    assert_eq!(store.load_run(&run_ref(3)).await, Ok(None));
    delete(&*store, vec![run_ref(1)]).await;
    assert_eq!(history(&*store, 1).await, Vec::<String>::new());
}

pub async fn a_history_that_outlived_its_run_is_erased(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let mut reset = full(2);
    reset.history_parents = vec![run_id(1)];
    project(&*store, vec![full(1), reset]).await;
    delete(&*store, vec![run_ref(1)]).await;
    assert!(matches!(
        store.record_page(&run_ref(1), 1).await,
        Ok(Some(_))
    ));
    let erased = ErasedRun {
        snapshot: None,
        visibility: None,
        ..left(1)
    };
    erase(&*store, erased).await;
    assert_eq!(history(&*store, 1).await, ["-", "--", "---"]);
    assert_eq!(store.record_page(&run_ref(1), 1).await, Ok(None));
    assert_eq!(store.load_run(&run_ref(1)).await, Ok(None));
}

pub async fn remains_are_overwritten_again_and_again(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    assert_eq!(store.overwrite_remains().await, Ok(()));
    project(&*store, vec![full(1), full(2)]).await;
    store.append(&super::rows(1..=5)).await.expect("appended");
    for number in [1, 2] {
        erase(&*store, left(number)).await;
        assert_eq!(store.overwrite_remains().await, Ok(()));
        assert_eq!(store.overwrite_remains().await, Ok(()));
        assert_eq!(history(&*store, number).await, ["-", "--", "---"]);
    }
    // Rows that are not projected are not touched.
    assert_eq!(store.journal_rows(0, 10).await, Ok(super::rows(1..=5)));
    assert_eq!(store.append(&super::rows(6..=6)).await, Ok(()));
}
