//! Filters on indexed attributes are answered from their index.

use rusqlite::params_from_iter;
use serde_json::json;

use super::list::{count_statement, statement};
use super::plan::Search;
use super::{Inner, SqliteOptions, SqliteStore};
use crate::filter::sql::Parameter;
use crate::filter::{AttributeTypes, Filter};
use crate::{ProjectionBatch, RunProjection, RunRef, Store, VisibilityQuery, VisibilityRow};

const ATTRIBUTES: &[(&str, i32)] = &[
    ("Customer", 2),
    ("Amount", 3),
    ("Urgent", 5),
    ("Due", 6),
    ("Tags", 7),
    ("Note", 1),
];

async fn store() -> SqliteStore {
    let store = SqliteStore::open_in_memory().expect("a store");
    for (name, value_type) in ATTRIBUTES {
        let added = store.add_search_attribute("namespace", name, *value_type);
        added.await.expect("an attribute");
    }
    let runs = (0..300).map(run).collect();
    let batch = ProjectionBatch {
        runs,
        ..ProjectionBatch::default()
    };
    store.project(batch).await.expect("a projection");
    store
}

fn run(number: i64) -> RunProjection {
    let run = RunRef {
        namespace_id: "namespace".to_owned(),
        workflow_id: format!("workflow-{number}"),
        run_id: format!("run-{number}"),
    };
    let mut row = VisibilityRow {
        workflow_id: run.workflow_id.clone(),
        run_id: run.run_id.clone(),
        workflow_type: format!("type-{}", number % 3),
        status: 2,
        start_time: number,
        close_time: Some(number + 1),
        root_workflow_id: run.workflow_id.clone(),
        root_run_id: run.run_id.clone(),
        ..VisibilityRow::default()
    };
    for (name, value) in [
        ("Customer", json!(format!("customer-{number}"))),
        ("Amount", json!(number)),
        ("Urgent", json!(number % 2 == 0)),
        ("Due", json!("2026-01-01T00:00:00.000000000Z")),
        ("Tags", json!([format!("tag-{number}"), "common"])),
        ("Note", json!(format!("note {number}"))),
    ] {
        row.search_attributes.insert(name.to_owned(), value);
    }
    RunProjection {
        run,
        slot: 0,
        snapshot: Vec::new(),
        seq: 0,
        wake_at: None,
        history: Vec::new(),
        history_parents: Vec::new(),
        visibility: Some(row),
        pending_tasks: Vec::new(),
        delete_at: None,
        records: None,
    }
}

fn filter(text: &str) -> Filter {
    let types = AttributeTypes::new(ATTRIBUTES.iter().copied());
    Filter::parse(text, &types).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// SQLite's plans for listing and for counting.
fn plans(store: &SqliteStore, text: &str, few_keys: i64) -> [String; 2] {
    let inner: &Inner = &store.inner;
    let explained = inner.read(|connection, names| {
        let search = Search {
            connection,
            namespace: names.namespace("namespace").expect("the namespace"),
            few_keys,
        };
        let query = VisibilityQuery {
            namespace_id: "namespace".to_owned(),
            filter: filter(text),
            page_size: 20,
            cursor: None,
        };
        let (list, list_parameters, _) = statement(search, &query)?;
        let (count, count_parameters) = count_statement(search, &query.filter)?;
        let explain = |sql: &str, parameters: Vec<Parameter>| {
            let sql = format!("EXPLAIN QUERY PLAN {sql}");
            let mut explained = connection.prepare(&sql).expect("a statement");
            let steps = explained
                .query_map(params_from_iter(parameters), |row| row.get(3))
                .expect("steps");
            let steps: Vec<String> = steps.collect::<Result<_, _>>().expect("steps");
            steps.join("\n")
        };
        Ok([
            explain(&list, list_parameters),
            explain(&count, count_parameters),
        ])
    });
    explained.expect("plans")
}

/// Column of an attribute, numbered as they were registered.
fn attribute_index(name: &str) -> String {
    let columns = ATTRIBUTES
        .iter()
        .filter(|(_, value_type)| ![1, 7].contains(value_type));
    let position = columns
        .map(|(column, _)| column)
        .position(|column| *column == name);
    format!(
        "visibility_attribute_{}",
        position.expect("an attribute") + 1
    )
}

#[tokio::test]
async fn conditions_are_answered_from_their_index() {
    let store = store().await;
    let index_of = attribute_index;
    for (text, index) in [
        (
            "ExecutionStatus = 'Failed'",
            "visibility_status (".to_owned(),
        ),
        (
            "ExecutionStatus IN ('Failed', 'TimedOut')",
            "visibility_status".to_owned(),
        ),
        ("WorkflowType = 'type-1'", "visibility_type (".to_owned()),
        ("TaskQueue = 'queue'", "visibility_task_queue (".to_owned()),
        (
            "WorkflowType = 'type-1' AND ExecutionStatus = 'Failed'",
            "visibility_status_type (".to_owned(),
        ),
        ("StartTime > 250", "visibility_start (".to_owned()),
        (
            "StartTime BETWEEN 10 AND 20",
            "visibility_start (".to_owned(),
        ),
        ("CloseTime > 250", "visibility_close (".to_owned()),
        (
            "CloseTime BETWEEN 10 AND 20",
            "visibility_close (".to_owned(),
        ),
        ("CloseTime IS NULL", "visibility_close (".to_owned()),
        ("WorkflowId = 'workflow-5'", "run_workflow_id (".to_owned()),
        (
            "WorkflowId STARTS_WITH 'workflow-5'",
            "run_workflow_id (".to_owned(),
        ),
        ("RunId = 'run-5'", "sqlite_autoindex_run_1 (".to_owned()),
        (
            "ParentWorkflowId = 'x'",
            "visibility_parent_workflow_id (".to_owned(),
        ),
        (
            "RootWorkflowId = 'x'",
            "visibility_root_workflow_id (".to_owned(),
        ),
        ("Customer = 'customer-5'", index_of("Customer")),
        (
            "Customer IN ('customer-5', 'customer-6')",
            index_of("Customer"),
        ),
        ("Customer STARTS_WITH 'customer-5'", index_of("Customer")),
        ("Amount = 5", index_of("Amount")),
        ("Amount > 250", index_of("Amount")),
        ("Amount BETWEEN 5 AND 9", index_of("Amount")),
        ("Urgent = true", index_of("Urgent")),
        ("Due > '2026-01-01T00:00:00Z'", index_of("Due")),
        (
            "Tags = 'tag-5'",
            "word USING PRIMARY KEY (attribute_id=? AND value=?)".to_owned(),
        ),
        (
            "Note = '5'",
            "word USING PRIMARY KEY (attribute_id=? AND value=?)".to_owned(),
        ),
        (
            "Customer = 'customer-5' AND ExecutionStatus = 'Completed'",
            index_of("Customer"),
        ),
        (
            "TaskQueue = 'x' AND Tags = 'common'",
            "visibility_task_queue (".to_owned(),
        ),
        ("StartTime > 0 AND Amount = 5", index_of("Amount")),
        (
            "HistoryLength > 5 AND WorkflowId = 'workflow-5'",
            "run_workflow_id (".to_owned(),
        ),
    ] {
        for plan in plans(&store, text, 100) {
            assert!(plan.contains(&index), "{text}: no {index} in\n{plan}");
            assert!(!plan.contains("SCAN v"), "{text}:\n{plan}");
        }
    }
}

/// Over many rows, the order comes from an index: nothing is sorted to show twenty.
#[tokio::test]
async fn what_matches_many_runs_is_read_in_order() {
    let store = store().await;
    for (text, index) in [
        ("", "visibility_close (space=?)"),
        (
            "ExecutionStatus = 'Completed'",
            "visibility_status (space=? AND status=?)",
        ),
        ("StartTime > 0", "visibility_close (space=?)"),
        ("Amount > 0", "visibility_close (space=?)"),
        ("Tags = 'common'", "visibility_close (space=?)"),
        ("WorkflowId STARTS_WITH 'w'", "visibility_close (space=?)"),
        (
            "WorkflowType IN ('type-1', 'type-2')",
            "visibility_close (space=?)",
        ),
        (
            "ExecutionStatus = 'Completed' AND StartTime > 0",
            "visibility_status (",
        ),
        ("HistoryLength > 5", "visibility_close (space=?)"),
        (
            "CloseTime < 250",
            "visibility_close (space=? AND sort_close<?)",
        ),
    ] {
        let [plan, _] = plans(&store, text, 100);
        assert!(plan.contains(index), "{text}: no {index} in\n{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{text}:\n{plan}");
    }
}

#[test]
fn the_defaults_leave_room_between_the_checkpoints() {
    let options = SqliteOptions::default();
    assert!(options.journal_checkpoint_pages < options.journal_autocheckpoint_pages);
}
