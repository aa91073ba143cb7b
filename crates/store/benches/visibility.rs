//! How long lists and counts take over many runs.
//!
//! ```sh
//! cargo bench -p steadfast-store --bench visibility -- [runs] [directory]
//! ```

use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Map, Value, json};
use steadfast_store::filter::{AttributeTypes, Filter};
use steadfast_store::sqlite::{SqliteOptions, SqliteStore};
use steadfast_store::{
    ProjectionBatch, RunProjection, RunRef, Store, StoreError, VisibilityQuery, VisibilityRow,
};

const NAMESPACE: &str = "6f2b2b36-6d0c-4d7e-9b3f-3a7d2f0f7c11";
const BEGINNING: i64 = 1_767_225_600_000_000_000; // 2026-01-01
const SECOND: i64 = 1_000_000_000;
const ATTRIBUTES: &[(&str, i32)] = &[
    ("Customer", 2),
    ("Tier", 2),
    ("Amount", 3),
    ("Due", 6),
    ("Tags", 7),
    ("Note", 1),
];

/// One run starts every second, so a million of them end in the night of 12 January.
const FILTERS: &[&str] = &[
    "",
    "ExecutionStatus = 'Running'",
    "ExecutionStatus = 'Completed'",
    "ExecutionStatus = 'Failed'",
    "ExecutionStatus IN ('Failed', 'TimedOut')",
    "ExecutionStatus != 'Completed'",
    "WorkflowType = 'type-3'",
    "WorkflowType = 'type-3' AND ExecutionStatus = 'Failed'",
    "WorkflowType IN ('type-3', 'type-4')",
    "StartTime > '2026-01-01T00:00:00Z'",
    "StartTime > '2026-01-12T12:00:00Z'",
    "StartTime < '2026-01-01T01:00:00Z'",
    "StartTime BETWEEN '2026-01-03T00:00:00Z' AND '2026-01-03T00:10:00Z'",
    "CloseTime > '2026-01-12T12:00:00Z'",
    "CloseTime < '2026-01-01T01:00:00Z'",
    "CloseTime IS NULL",
    "WorkflowId = 'agent-77777'",
    "WorkflowId STARTS_WITH 'agent-7777'",
    "WorkflowId STARTS_WITH 'agent-'",
    "RunId = '00000000-0000-4000-8000-000000012345'",
    "Customer = 'customer-4242'",
    "Customer STARTS_WITH 'customer-4242'",
    "Tier = 'gold'",
    "Tier = 'gold' AND ExecutionStatus = 'Failed'",
    "Amount = 4242",
    "Amount > 10",
    "Amount BETWEEN 100 AND 101",
    "Due > '2026-02-01T00:00:00Z'",
    "Tags = 'tag-7'",
    "Tags = 'common'",
    "Tags IN ('tag-7', 'tag-8')",
    "Note = 'refund'",
    "TaskQueue = 'agents'",
    "TaskQueue = 'nobody'",
    "HistoryLength > 100",
    "ExecutionDuration > '1h'",
    "Tier = 'gold' ORDER BY StartTime",
    "ORDER BY StartTime DESC",
    "ORDER BY Customer",
];

fn main() -> Result<(), StoreError> {
    let mut arguments = std::env::args().skip(1).filter(|it| it != "--bench");
    let runs: i64 = arguments
        .next()
        .and_then(|it| it.parse().ok())
        .unwrap_or(200_000);
    let directory = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("a directory to write in");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let path = directory.path().join("visibility.db");
        let store = SqliteStore::open(&path, SqliteOptions::default())?;
        let started = Instant::now();
        fill(&store, runs).await?;
        println!("{runs} runs written in {:.1?}", started.elapsed());
        println!(
            "{:>10} {:>10} {:>10} {:>9}",
            "page 1", "page 50", "count", "rows"
        );
        for filter in FILTERS {
            measure(&store, filter).await?;
        }
        store.close().await
    })
}

async fn measure(store: &dyn Store, text: &str) -> Result<(), StoreError> {
    let types = AttributeTypes::new(ATTRIBUTES.iter().copied());
    let filter = Filter::parse(text, &types)?;
    let mut query = VisibilityQuery {
        namespace_id: NAMESPACE.to_owned(),
        filter: filter.clone(),
        page_size: 20,
        cursor: None,
    };
    let milliseconds = |started: Instant| started.elapsed().as_secs_f64() * 1e3;
    store.list_visibility(query.clone()).await?;
    let started = Instant::now();
    let mut page = store.list_visibility(query.clone()).await?;
    let first = milliseconds(started);
    let mut deep = f64::NAN;
    for number in 2..=50 {
        query.cursor = page.cursor.take();
        if query.cursor.is_none() {
            break;
        }
        let started = Instant::now();
        page = store.list_visibility(query.clone()).await?;
        if number == 50 {
            deep = milliseconds(started);
        }
    }
    let started = Instant::now();
    let count = store.count_visibility(NAMESPACE, filter).await?;
    let counting = milliseconds(started);
    let rows = count.total;
    println!("{first:>7.1} ms {deep:>7.1} ms {counting:>7.1} ms {rows:>9}  {text}");
    Ok(())
}

async fn fill(store: &dyn Store, runs: i64) -> Result<(), StoreError> {
    for (name, value_type) in ATTRIBUTES {
        store
            .add_search_attribute(NAMESPACE, name, *value_type)
            .await?;
    }
    for first in (0..runs).step_by(2_000) {
        let numbers = first..(first + 2_000).min(runs);
        let runs = numbers.map(projection).collect();
        let batch = ProjectionBatch {
            runs,
            ..ProjectionBatch::default()
        };
        store.project(batch).await?;
    }
    Ok(())
}

fn projection(number: i64) -> RunProjection {
    let run_id = format!("00000000-0000-4000-8000-{number:012}");
    let workflow_id = format!("agent-{number}");
    let start_time = BEGINNING + number * SECOND;
    let status = match number % 100 {
        0 => 1,
        1 => 3,
        2 if number % 500 == 2 => 7,
        _ => 2,
    };
    let close_time = (status != 1).then_some(start_time + (number % 4_000) * SECOND);
    let mut search_attributes = Map::new();
    let mut set = |name: &str, value: Value| search_attributes.insert(name.to_owned(), value);
    set("Customer", json!(format!("customer-{}", number % 10_000)));
    set("Tier", json!(["gold", "silver"][(number % 2) as usize]));
    set("Amount", json!(number % 10_000));
    if number % 50 == 0 {
        let day = number % 60;
        let date = format!(
            "2026-{:02}-{:02}T00:00:00.000000000Z",
            1 + day / 30,
            1 + day % 30
        );
        set("Due", json!(date));
        set(
            "Tags",
            json!(["common", format!("tag-{}", number / 50 % 1_000)]),
        );
        set("Note", json!("A refund, please"));
    }
    RunProjection {
        run: RunRef {
            namespace_id: NAMESPACE.to_owned(),
            workflow_id: workflow_id.clone(),
            run_id: run_id.clone(),
        },
        slot: 0,
        snapshot: Vec::new(),
        seq: 0,
        wake_at: None,
        history: Vec::new(),
        history_parents: Vec::new(),
        visibility: Some(VisibilityRow {
            workflow_type: format!("type-{}", number % 10),
            status,
            start_time,
            execution_time: start_time,
            close_time,
            history_length: 11,
            task_queue: "agents".to_owned(),
            root_workflow_id: workflow_id.clone(),
            root_run_id: run_id.clone(),
            first_run_id: run_id.clone(),
            search_attributes,
            workflow_id,
            run_id,
            ..VisibilityRow::default()
        }),
        pending_tasks: Vec::new(),
        delete_at: None,
        records: None,
    }
}
