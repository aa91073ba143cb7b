//! Visibility: filters, orders, pages and counts.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use steadfast_store::filter::{AttributeTypes, Filter};
use steadfast_store::{Store, StoreError, VisibilityQuery, VisibilityRow};

use super::{
    Fixture, NAMESPACE, OTHER_NAMESPACE, SECOND, delete, project, projection, run_id, run_ref,
    visibility_row,
};

const ATTRIBUTES: &[(&str, i32)] = &[
    ("Note", 1),
    ("Customer", 2),
    ("Amount", 3),
    ("Rate", 4),
    ("Urgent", 5),
    ("Due", 6),
    ("Tags", 7),
];

fn filter(text: &str) -> Filter {
    let types = AttributeTypes::new(ATTRIBUTES.iter().copied());
    Filter::parse(text, &types).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn query(text: &str, page_size: usize, cursor: Option<Vec<u8>>) -> VisibilityQuery {
    VisibilityQuery {
        namespace_id: NAMESPACE.to_owned(),
        filter: filter(text),
        page_size,
        cursor,
    }
}

fn numbers(rows: &[VisibilityRow]) -> Vec<u32> {
    let number = |row: &VisibilityRow| row.run_id.rsplit('-').next()?.parse().ok();
    let numbers = rows.iter().map(number);
    numbers.collect::<Option<_>>().expect("run ids of run_id")
}

async fn list(store: &dyn Store, text: &str) -> Vec<u32> {
    let page = store.list_visibility(query(text, 1000, None)).await;
    let page = page.unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(page.cursor, None, "{text}");
    numbers(&page.rows)
}

async fn put(store: &dyn Store, rows: Vec<(u32, VisibilityRow)>) {
    let runs = rows.into_iter().map(|(number, row)| {
        let mut run = projection(number);
        run.run.workflow_id = row.workflow_id.clone();
        run.visibility = Some(row);
        run
    });
    project(store, runs.collect()).await;
}

fn attributes(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(attributes) => attributes,
        other => panic!("not an object: {other}"),
    }
}

/// Five runs, all different. 1 and 5 are running, 5 is a child of 1.
fn five_runs() -> Vec<(u32, VisibilityRow)> {
    let closed = |number: u32, status: i32, close_time: i64| VisibilityRow {
        status,
        close_time: Some(close_time * SECOND),
        history_length: i64::from(number) * 10,
        history_size_bytes: i64::from(number) * 1000,
        state_transition_count: i64::from(number) * 4,
        ..visibility_row(number)
    };
    let first = VisibilityRow {
        workflow_id: "order-1".to_owned(),
        root_workflow_id: "order-1".to_owned(),
        search_attributes: attributes(json!({
            "Customer": "Ada",
            "Amount": 10,
            "Rate": 0.5,
            "Urgent": true,
            "Due": "2026-01-01T00:00:00.000000000Z",
            "Tags": ["red", "two words"],
            "Note": "Refund, please: the foo-bar broke",
            "TemporalScheduledById": "nightly",
            "BuildIds": ["unversioned"],
        })),
        search_attributes_bytes: b"attributes".to_vec(),
        memo_bytes: b"memo".to_vec(),
        ..visibility_row(1)
    };
    let second = VisibilityRow {
        workflow_id: "order-2".to_owned(),
        root_workflow_id: "order-2".to_owned(),
        workflow_type: "billing".to_owned(),
        search_attributes: attributes(json!({
            "Customer": "Bob's",
            "Amount": -5,
            "Rate": 2,
            "Urgent": false,
            "Due": "2026-01-01T00:00:00.000000001Z",
            "Tags": ["red", "blue"],
            "Note": "broke foo",
        })),
        ..closed(2, 2, 20)
    };
    let third = VisibilityRow {
        workflow_type: "billing".to_owned(),
        task_queue: "other".to_owned(),
        search_attributes: attributes(json!({"Customer": "Ad", "Amount": 11})),
        ..closed(3, 3, 30)
    };
    let fourth = VisibilityRow {
        execution_time: 10 * SECOND,
        ..closed(4, 7, 30)
    };
    let fifth = VisibilityRow {
        parent_workflow_id: "order-1".to_owned(),
        parent_run_id: run_id(1),
        root_workflow_id: "order-1".to_owned(),
        root_run_id: run_id(1),
        ..visibility_row(5)
    };
    vec![(1, first), (2, second), (3, third), (4, fourth), (5, fifth)]
}

async fn store_with_five_runs(fixture: &dyn Fixture) -> std::sync::Arc<dyn Store> {
    let store = fixture.open().expect("a store");
    for (name, value_type) in ATTRIBUTES {
        let added = store.add_search_attribute(NAMESPACE, name, *value_type);
        added.await.expect("an attribute");
    }
    put(&*store, five_runs()).await;
    // The same in another namespace, where none of the filters looks.
    let elsewhere = five_runs().into_iter().map(|(number, row)| {
        let mut run = projection(number);
        run.run.namespace_id = OTHER_NAMESPACE.to_owned();
        run.visibility = Some(row);
        run
    });
    project(&*store, elsewhere.collect()).await;
    store
}

/// Filters with the runs that they find, of [`five_runs`].
const FOUND: &[(&str, &[u32])] = &[
    ("", &[1, 2, 3, 4, 5]),
    // Identity.
    ("WorkflowId = 'order-1'", &[1]),
    ("WorkflowId = 'Order-1'", &[]),
    ("WorkflowId != 'order-1'", &[2, 3, 4, 5]),
    (
        "WorkflowId IN ('order-1', 'workflow-3', 'nothing')",
        &[1, 3],
    ),
    ("WorkflowId NOT IN ('order-1', 'workflow-3')", &[2, 4, 5]),
    ("WorkflowId STARTS_WITH 'order-'", &[1, 2]),
    ("WorkflowId NOT STARTS_WITH 'order-'", &[3, 4, 5]),
    ("WorkflowId STARTS_WITH ''", &[1, 2, 3, 4, 5]),
    ("WorkflowId STARTS_WITH 'order%'", &[]),
    (
        "WorkflowId > 'order-1' AND WorkflowId < 'workflow-4'",
        &[2, 3],
    ),
    ("WorkflowId BETWEEN 'order-2' AND 'workflow-4'", &[2, 3, 4]),
    ("WorkflowId NOT BETWEEN 'order-2' AND 'workflow-4'", &[1, 5]),
    ("NOT WorkflowId = 'order-1'", &[2, 3, 4, 5]),
    ("ScheduleId = 'order-1'", &[1]),
    ("RunId = '00000000-0000-4000-8000-000000000003'", &[3]),
    (
        "RunId != '00000000-0000-4000-8000-000000000003'",
        &[1, 2, 4, 5],
    ),
    (
        "RunId STARTS_WITH '00000000-0000-4000-8000'",
        &[1, 2, 3, 4, 5],
    ),
    (
        "RunId IN ('00000000-0000-4000-8000-000000000003', 'x')",
        &[3],
    ),
    ("WorkflowType = 'billing'", &[2, 3]),
    ("WorkflowType IN ('billing', 'type')", &[1, 2, 3, 4, 5]),
    ("`WorkflowType` = \"billing\"", &[2, 3]),
    ("TaskQueue = 'other'", &[3]),
    ("TaskQueue != 'other'", &[1, 2, 4, 5]),
    // Status.
    ("ExecutionStatus = 'Running'", &[1, 5]),
    ("ExecutionStatus = 1", &[1, 5]),
    (
        "ExecutionStatus = 'WORKFLOW_EXECUTION_STATUS_RUNNING'",
        &[1, 5],
    ),
    ("ExecutionStatus != 'Running'", &[2, 3, 4]),
    ("ExecutionStatus IN ('Failed', 7)", &[3, 4]),
    ("ExecutionStatus > 'Completed'", &[3, 4]),
    ("ExecutionStatus BETWEEN 2 AND 3", &[2, 3]),
    (
        "WorkflowType = 'billing' AND ExecutionStatus = 'Failed'",
        &[3],
    ),
    ("WorkflowType = 'type' AND ExecutionStatus = 'Failed'", &[]),
    // Times; what has none is neither before nor after.
    ("StartTime = '1970-01-01T00:00:02Z'", &[2]),
    ("StartTime >= '1970-01-01T00:00:03Z'", &[3, 4, 5]),
    ("StartTime > 3000000000", &[4, 5]),
    (
        "StartTime BETWEEN '1970-01-01T00:00:02Z' AND '1970-01-01T01:00:03+01:00'",
        &[2, 3],
    ),
    ("StartTime < '1600-01-01T00:00:00Z'", &[]),
    ("StartTime < '9999-01-01T00:00:00Z'", &[1, 2, 3, 4, 5]),
    ("ExecutionTime = '1970-01-01T00:00:10Z'", &[4]),
    ("CloseTime IS NULL", &[1, 5]),
    ("CloseTime IS NOT NULL", &[2, 3, 4]),
    ("CloseTime > '1970-01-01T00:00:20Z'", &[3, 4]),
    ("CloseTime >= '1970-01-01T00:00:20Z'", &[2, 3, 4]),
    ("CloseTime <= '1970-01-01T00:00:20Z'", &[2]),
    ("CloseTime < '9999-01-01T00:00:00Z'", &[2, 3, 4]),
    ("CloseTime != '1970-01-01T00:00:20Z'", &[3, 4]),
    ("CloseTime = '1970-01-01T00:00:20Z'", &[2]),
    (
        "CloseTime BETWEEN '1970-01-01T00:00:20Z' AND '1970-01-01T00:00:29Z'",
        &[2],
    ),
    ("NOT CloseTime > '1970-01-01T00:00:20Z'", &[2]),
    ("NOT CloseTime <= '1970-01-01T00:00:20Z'", &[3, 4]),
    (
        "CloseTime NOT BETWEEN '1970-01-01T00:00:20Z' AND '1970-01-01T00:00:29Z'",
        &[3, 4],
    ),
    (
        "CloseTime > '1970-01-01T00:00:20Z' OR CloseTime IS NULL",
        &[1, 3, 4, 5],
    ),
    ("ExecutionDuration = '18s'", &[2]),
    ("ExecutionDuration >= '00:00:20'", &[3, 4]),
    ("ExecutionDuration < 19000000000", &[2]),
    ("ExecutionDuration IS NULL", &[1, 5]),
    // Sizes.
    ("HistoryLength < 100", &[2, 3, 4]),
    ("HistoryLength >= 30", &[3, 4]),
    ("HistoryLength IS NULL", &[1, 5]),
    ("HistorySizeBytes = 2000", &[2]),
    ("StateTransitionCount > 8", &[3, 4]),
    // Relations.
    ("ParentWorkflowId = 'order-1'", &[5]),
    ("ParentWorkflowId IS NULL", &[1, 2, 3, 4]),
    ("ParentWorkflowId = ''", &[]),
    ("ParentWorkflowId != 'x'", &[5]),
    ("ParentRunId = '00000000-0000-4000-8000-000000000001'", &[5]),
    ("RootWorkflowId = 'order-1'", &[1, 5]),
    ("RootWorkflowId IN ('order-1', 'order-2')", &[1, 2, 5]),
    ("RootWorkflowId != 'order-1'", &[2, 3, 4]),
    ("RootWorkflowId STARTS_WITH 'order'", &[1, 2, 5]),
    (
        "RootRunId = '00000000-0000-4000-8000-000000000001'",
        &[1, 5],
    ),
    ("RootRunId IS NOT NULL", &[1, 2, 3, 4, 5]),
    // Keywords.
    ("Customer = 'Ada'", &[1]),
    ("Customer = 'Bob''s'", &[2]),
    (r"Customer = 'Bob\'s'", &[2]),
    ("Customer != 'Ada'", &[2, 3]),
    ("NOT Customer = 'Ada'", &[2, 3]),
    ("Customer NOT IN ('Ada')", &[2, 3]),
    ("Customer IS NULL", &[4, 5]),
    ("Customer IS NOT NULL", &[1, 2, 3]),
    ("Customer STARTS_WITH 'Ad'", &[1, 3]),
    ("Customer NOT STARTS_WITH 'Ad'", &[2]),
    ("Customer > 'Ad'", &[1, 2]),
    ("Customer BETWEEN 'Ad' AND 'Ada'", &[1, 3]),
    ("Customer = ''", &[]),
    // Numbers, booleans and times of our own.
    ("Amount = 10", &[1]),
    ("Amount = 10.0", &[1]),
    ("Amount > 9.5", &[1, 3]),
    ("Amount >= -5 AND Amount < 11", &[1, 2]),
    ("Amount IN (-5, 11)", &[2, 3]),
    ("Amount NOT BETWEEN 0 AND 10", &[2, 3]),
    ("Rate = 0.5", &[1]),
    ("Rate > 1", &[2]),
    ("Rate = 2", &[2]),
    ("Urgent = true", &[1]),
    ("Urgent = false", &[2]),
    ("Urgent != true", &[2]),
    ("Urgent IN (true, false)", &[1, 2]),
    ("Due > '2026-01-01T00:00:00Z'", &[2]),
    ("Due = '2026-01-01T01:00:00+01:00'", &[1]),
    ("Due = 1767225600000000001", &[2]),
    // Lists; what is absent contains nothing.
    ("Tags = 'red'", &[1, 2]),
    ("Tags = 'two words'", &[1]),
    ("Tags = 'two'", &[]),
    ("Tags IN ('blue', 'two words')", &[1, 2]),
    ("Tags != 'blue'", &[1, 3, 4, 5]),
    ("Tags NOT IN ('blue', 'two words')", &[3, 4, 5]),
    ("Tags IS NULL", &[3, 4, 5]),
    ("Tags = 'red' AND Tags = 'blue'", &[2]),
    ("BuildIds = 'unversioned'", &[1]),
    ("TemporalChangeVersion = 'x'", &[]),
    // Texts, by their words.
    ("Note = 'refund'", &[1]),
    ("Note = 'REFUND nothing'", &[1]),
    ("Note = 'foo'", &[1, 2]),
    ("Note = 'foo-bar'", &[1]),
    ("Note = 'bar-foo'", &[]),
    ("Note = 'ref'", &[]),
    ("Note = '-'", &[]),
    ("Note != 'refund'", &[2, 3, 4, 5]),
    ("Note IS NULL", &[3, 4, 5]),
    // What servers and SDKs set.
    ("TemporalScheduledById = 'nightly'", &[1]),
    ("ScheduledById = 'nightly'", &[1]),
    ("TemporalScheduledById IS NULL", &[2, 3, 4, 5]),
    // Together.
    (
        "Customer = 'Ada' OR WorkflowType = 'billing' AND Amount = 11",
        &[1, 3],
    ),
    (
        "(Customer = 'Ada' OR WorkflowType = 'billing') AND Amount = 11",
        &[3],
    ),
    ("NOT (Customer = 'Ada' OR Amount = 11)", &[2]),
    ("NOT Customer = 'Ada' AND Amount = 11", &[3]),
    ("Tags = 'red' AND ExecutionStatus = 'Completed'", &[2]),
    (
        "WorkflowId STARTS_WITH 'order' AND StartTime > '1970-01-01T00:00:01Z'",
        &[2],
    ),
    ("StartTime > 0 AND Amount > 0 AND TaskQueue = 'queue'", &[1]),
];

pub async fn rows_come_back_as_they_were(fixture: &dyn Fixture) {
    let store = store_with_five_runs(fixture).await;
    let page = store
        .list_visibility(query("", 10, None))
        .await
        .expect("a page");
    for (number, row) in five_runs() {
        let found = page.rows.iter().find(|it| it.run_id == run_id(number));
        assert_eq!(found, Some(&row));
    }
    assert_eq!(page.rows.len(), 5);
}

pub async fn the_default_order_is_open_first_then_latest_close(fixture: &dyn Fixture) {
    let store = store_with_five_runs(fixture).await;
    // 3 and 4 closed at the same time; the one that started later goes first.
    assert_eq!(list(&*store, "").await, [5, 1, 4, 3, 2]);
    assert_eq!(
        list(&*store, "ExecutionStatus != 'Completed'").await,
        [5, 1, 4, 3]
    );
    assert_eq!(list(&*store, "StartTime > 2000000000").await, [5, 4, 3]);
    assert_eq!(list(&*store, "Tags = 'red'").await, [1, 2]);
}

pub async fn filters_find_what_they_say(fixture: &dyn Fixture) {
    let store = store_with_five_runs(fixture).await;
    for (text, expected) in FOUND {
        let found = list(&*store, text).await;
        let unique: BTreeSet<_> = found.iter().copied().collect();
        assert_eq!(found.len(), unique.len(), "{text} finds a run twice");
        let expected: BTreeSet<_> = expected.iter().copied().collect();
        assert_eq!(unique, expected, "{text}");
    }
}

pub async fn counts_agree_with_lists(fixture: &dyn Fixture) {
    let store = store_with_five_runs(fixture).await;
    for (text, expected) in FOUND {
        let count = store.count_visibility(NAMESPACE, filter(text)).await;
        let count = count.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(count.total, expected.len() as i64, "{text}");
        assert_eq!(count.groups, [], "{text}");
    }
    let by_status = |text| store.count_visibility(NAMESPACE, filter(text));
    let count = by_status("GROUP BY ExecutionStatus")
        .await
        .expect("a count");
    assert_eq!(count.total, 5);
    assert_eq!(count.groups, [(1, 2), (2, 1), (3, 1), (7, 1)]);
    let count = by_status("WorkflowType = 'billing' GROUP BY ExecutionStatus").await;
    assert_eq!(count.map(|it| it.groups), Ok(vec![(2, 1), (3, 1)]));
    let count = by_status("Tags = 'red' GROUP BY ExecutionStatus").await;
    assert_eq!(count.map(|it| it.groups), Ok(vec![(1, 1), (2, 1)]));
    let count = by_status("Customer = 'nobody' GROUP BY ExecutionStatus").await;
    assert_eq!(count, Ok(Default::default()));
}

async fn all_pages(store: &dyn Store, text: &str, page_size: usize) -> Vec<u32> {
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let page = store.list_visibility(query(text, page_size, cursor)).await;
        let page = page.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(page.rows.len() <= page_size);
        found.extend(numbers(&page.rows));
        match page.cursor {
            Some(next) => {
                assert_eq!(page.rows.len(), page_size, "{text}");
                cursor = Some(next);
            }
            None => return found,
        }
    }
}

pub async fn pages_join_without_gap_or_repeat(fixture: &dyn Fixture) {
    let store = store_with_five_runs(fixture).await;
    // Many that are equal in all that they are sorted by.
    let equal = (10..40).map(|number| {
        let row = VisibilityRow {
            start_time: 5,
            ..visibility_row(number)
        };
        (number, row)
    });
    put(&*store, equal.collect()).await;
    for text in [
        "",
        "TaskQueue = 'queue'",
        "StartTime > 0",
        "WorkflowId STARTS_WITH 'work'",
    ] {
        let whole = list(&*store, text).await;
        for page_size in [1, 2, 3, 7, 30, whole.len(), whole.len() + 1] {
            assert_eq!(all_pages(&*store, text, page_size).await, whole, "{text}");
        }
    }
}

pub async fn other_orders_page_too(fixture: &dyn Fixture) {
    let store = store_with_five_runs(fixture).await;
    for (text, expected) in [
        ("ORDER BY StartTime", [1, 2, 3, 4, 5]),
        ("ORDER BY StartTime DESC", [5, 4, 3, 2, 1]),
        ("ORDER BY WorkflowId DESC", [5, 4, 3, 2, 1]),
        // What has no value is less than all values; among equals the latest run goes first.
        ("ORDER BY Customer, StartTime", [4, 5, 3, 1, 2]),
        ("ORDER BY Customer DESC, StartTime ASC", [2, 1, 3, 4, 5]),
        ("ORDER BY CloseTime", [5, 1, 2, 4, 3]),
        ("ORDER BY Rate DESC, Amount", [2, 1, 5, 4, 3]),
        ("ORDER BY WorkflowType, RunId DESC", [3, 2, 5, 4, 1]),
    ] {
        assert_eq!(list(&*store, text).await, expected, "{text}");
        for page_size in 1..=5 {
            assert_eq!(
                all_pages(&*store, text, page_size).await,
                expected,
                "{text}"
            );
        }
    }
    assert_eq!(
        list(&*store, "Amount > 0 ORDER BY Amount DESC").await,
        [3, 1]
    );
}

pub async fn a_foreign_page_token_is_refused(fixture: &dyn Fixture) {
    let store = store_with_five_runs(fixture).await;
    let page = store
        .list_visibility(query("ORDER BY Customer", 2, None))
        .await;
    let of_other_order = page.expect("a page").cursor.expect("a cursor");
    for cursor in [
        b"nonsense".to_vec(),
        b"[1]".to_vec(),
        b"[{},{},{}]".to_vec(),
        of_other_order,
    ] {
        let page = store.list_visibility(query("", 2, Some(cursor))).await;
        assert!(matches!(page, Err(StoreError::Invalid(_))), "{page:?}");
    }
}

pub async fn changes_move_rows_between_filters(fixture: &dyn Fixture) {
    let store = store_with_five_runs(fixture).await;
    let mut closed = five_runs().swap_remove(0).1;
    closed.status = 2;
    closed.close_time = Some(25 * SECOND);
    closed.history_length = 7;
    closed.search_attributes = attributes(json!({
        "Customer": "Eve", "Tags": ["blue"], "Note": "settled", "Amount": 10,
    }));
    put(&*store, vec![(1, closed.clone())]).await;
    for (text, expected) in [
        ("", &[5, 4, 3, 1, 2][..]),
        ("ExecutionStatus = 'Running'", &[5]),
        ("ExecutionStatus = 'Completed'", &[1, 2]),
        ("CloseTime > '1970-01-01T00:00:20Z'", &[4, 3, 1]),
        ("HistoryLength = 7", &[1]),
        ("Customer = 'Ada'", &[]),
        ("Customer = 'Eve'", &[1]),
        ("Amount = 10", &[1]),
        ("Tags = 'red'", &[2]),
        ("Tags = 'blue'", &[1, 2]),
        ("Note = 'refund'", &[]),
        ("Note = 'settled'", &[1]),
        ("Urgent = true", &[]),
    ] {
        assert_eq!(list(&*store, text).await, expected, "{text}");
    }
    let page = store
        .list_visibility(query("Customer = 'Eve'", 2, None))
        .await;
    assert_eq!(page.map(|it| it.rows), Ok(vec![closed]));
    // A projection that says nothing of visibility leaves it as it is.
    let mut silent = projection(1);
    silent.run.workflow_id = "order-1".to_owned();
    project(&*store, vec![silent.clone()]).await;
    assert_eq!(list(&*store, "Tags = 'blue'").await, [1, 2]);
    delete(&*store, vec![silent.run]).await;
    assert_eq!(list(&*store, "Tags = 'blue'").await, [2]);
    assert_eq!(list(&*store, "Note = 'settled'").await, [0; 0]);
    assert_eq!(list(&*store, "").await, [5, 4, 3, 2]);
}

pub async fn namespace_divisions_are_apart(fixture: &dyn Fixture) {
    let store = store_with_five_runs(fixture).await;
    let mut row = visibility_row(6);
    row.search_attributes = attributes(json!({"TemporalNamespaceDivision": "batch"}));
    put(&*store, vec![(6, row)]).await;
    for (text, expected) in [
        ("", &[5, 1, 4, 3, 2][..]),
        ("WorkflowId = 'workflow-6'", &[]),
        ("TemporalNamespaceDivision = 'batch'", &[6]),
        ("NamespaceDivision = 'batch'", &[6]),
        ("TemporalNamespaceDivision IS NULL", &[5, 1, 4, 3, 2]),
        (
            "TemporalNamespaceDivision IS NULL OR NOT TemporalNamespaceDivision = 'x'",
            &[6, 5, 1, 4, 3, 2],
        ),
    ] {
        assert_eq!(list(&*store, text).await, expected, "{text}");
    }
}

pub async fn attributes_are_per_namespace(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let added = store.add_search_attribute(NAMESPACE, "Amount", 3).await;
    added.expect("an attribute");
    // The same name, but a keyword, elsewhere.
    let added = store
        .add_search_attribute(OTHER_NAMESPACE, "Amount", 2)
        .await;
    added.expect("an attribute");
    let mut here = projection(1);
    let mut row = visibility_row(1);
    row.search_attributes = attributes(json!({"Amount": 7}));
    here.visibility = Some(row);
    let mut there = projection(2);
    there.run.namespace_id = OTHER_NAMESPACE.to_owned();
    let mut row = visibility_row(2);
    row.search_attributes = attributes(json!({"Amount": "seven"}));
    there.visibility = Some(row);
    project(&*store, vec![here, there]).await;
    assert_eq!(list(&*store, "Amount > 5").await, [1]);
    let types = AttributeTypes::new([("Amount", 2)]);
    let filter = Filter::parse("Amount STARTS_WITH 's'", &types).expect("a filter");
    let count = store.count_visibility(OTHER_NAMESPACE, filter).await;
    assert_eq!(count.map(|it| it.total), Ok(1));
}

pub async fn attributes_can_be_registered_late_and_again(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    put(&*store, five_runs()).await;
    for (name, value_type) in ATTRIBUTES {
        let added = store
            .add_search_attribute(NAMESPACE, name, *value_type)
            .await;
        added.expect("an attribute");
        let added = store
            .add_search_attribute(NAMESPACE, name, *value_type)
            .await;
        added.expect("the same attribute again");
    }
    for (text, expected) in FOUND {
        let found: BTreeSet<_> = list(&*store, text).await.into_iter().collect();
        assert_eq!(found, expected.iter().copied().collect(), "{text}");
    }
    for (name, value_type) in [
        ("Amount", 0),
        ("Amount", 8),
        ("", 2),
        ("a\"b", 2),
        ("a\\b", 2),
    ] {
        let added = store
            .add_search_attribute(NAMESPACE, name, value_type)
            .await;
        assert!(matches!(added, Err(StoreError::Invalid(_))), "{name}");
    }
    // Odd names are names.
    for name in ["it's", "Größe", "a b", "select", "$.x"] {
        let added = store.add_search_attribute(NAMESPACE, name, 2).await;
        added.unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut row = visibility_row(7);
        row.search_attributes
            .insert(name.to_owned(), json!("value"));
        put(&*store, vec![(7, row)]).await;
        let types = AttributeTypes::new([(name, 2)]);
        let text = format!("`{name}` = 'value'");
        let filter = Filter::parse(&text, &types).expect("a filter");
        let count = store.count_visibility(NAMESPACE, filter).await;
        assert_eq!(count.map(|it| it.total), Ok(1), "{name}");
    }
    delete(&*store, vec![run_ref(7)]).await;
}

pub async fn grouping_is_only_for_counts(fixture: &dyn Fixture) {
    let store = store_with_five_runs(fixture).await;
    let page = store
        .list_visibility(query("GROUP BY ExecutionStatus", 10, None))
        .await;
    assert_eq!(
        page.map(|it| it.rows),
        Err(StoreError::Invalid(
            "invalid query: operation is not supported: 'GROUP BY' clause".to_owned()
        ))
    );
}
