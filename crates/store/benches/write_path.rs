//! What writing costs: CPU time per journal row and per projected run.
//!
//! ```sh
//! cargo bench -p steadfast-store --bench write_path -- [runs] [directory]
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use steadfast_store::sqlite::{SqliteOptions, SqliteStore};
use steadfast_store::{
    HistoryPage, JournalRow, ProjectionBatch, RunProjection, RunRef, Store, StoreError,
    VisibilityRow,
};

const ROW_BYTES: usize = 1_100;
const GROUP: u64 = 64;
const TRANSITIONS_PER_RUN: u64 = 4;
const RUNS_PER_BATCH: u64 = 500;

fn main() -> Result<(), StoreError> {
    let mut arguments = std::env::args().skip(1).filter(|it| it != "--bench");
    let runs: u64 = arguments
        .next()
        .and_then(|it| it.parse().ok())
        .unwrap_or(50_000);
    let directory = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("a directory to write in");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    let open = |name: &str| {
        let path = directory.path().join(name);
        SqliteStore::open(&path, SqliteOptions::default()).map(Arc::new)
    };
    runtime.block_on(async {
        let store = open("append.db")?;
        append(&*store, "append alone", 0..runs / 4 * TRANSITIONS_PER_RUN).await?;
        store.close().await?;

        let store = open("project.db")?;
        project(&*store, "project new, closed runs", runs, Stage::Whole).await?;
        look_up(&*store, runs).await?;
        store.close().await?;

        let store = open("stages.db")?;
        project(&*store, "project new, open runs", runs, Stage::Opened).await?;
        project(&*store, "project their close", runs, Stage::Closed).await?;
        store.close().await?;

        let store = open("both.db")?;
        let projector = Arc::clone(&store);
        let label = "project while appending";
        let projecting =
            tokio::spawn(async move { project(&*projector, label, runs, Stage::Whole).await });
        append(
            &*store,
            "append while projecting",
            0..runs * TRANSITIONS_PER_RUN,
        )
        .await?;
        projecting.await.expect("the projector")?;
        store.close().await
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Whole,
    Opened,
    Closed,
}

async fn append(
    store: &dyn Store,
    label: &str,
    rows: std::ops::Range<u64>,
) -> Result<(), StoreError> {
    let mut bytes = vec![0; ROW_BYTES];
    let (started, thread_cpu) = (Instant::now(), cpu(ClockId::ThreadCPUTime));
    let mut latencies = Vec::new();
    let mut seq = rows.start;
    while seq < rows.end {
        let group: Vec<_> = (1..=GROUP)
            .map(|number| {
                fill(&mut bytes, seq + number);
                JournalRow {
                    seq: seq + number,
                    slot: ((seq + number) % 4096) as u16,
                    bytes: bytes.clone(),
                }
            })
            .collect();
        let before = Instant::now();
        store.append(&group).await?;
        latencies.push(before.elapsed());
        seq += GROUP;
    }
    let used = cpu(ClockId::ThreadCPUTime) - thread_cpu;
    latencies.sort();
    let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    println!(
        "{label}: {:.1} µs CPU per row, {:.0} rows/s; group p50 {:?}, p99 {:?}, max {:?}",
        used.as_secs_f64() * 1e6 / seq as f64,
        seq as f64 / started.elapsed().as_secs_f64(),
        percentile(50),
        percentile(99),
        percentile(100),
    );
    Ok(())
}

async fn project(
    store: &dyn Store,
    label: &str,
    runs: u64,
    stage: Stage,
) -> Result<(), StoreError> {
    let (started, process_cpu) = (Instant::now(), cpu(ClockId::ProcessCPUTime));
    let mut generating = Duration::ZERO;
    let base = store.projected_position().await?;
    let mut slowest = Duration::ZERO;
    for first in (0..runs).step_by(RUNS_PER_BATCH as usize) {
        let before = cpu(ClockId::ProcessCPUTime);
        let numbers = first..(first + RUNS_PER_BATCH).min(runs);
        let projections: Vec<_> = numbers.map(|number| projection(number, stage)).collect();
        let batch = ProjectionBatch {
            position: base + (first + projections.len() as u64) * TRANSITIONS_PER_RUN,
            current_runs: projections
                .iter()
                .filter(|_| stage != Stage::Closed)
                .map(|it| {
                    let RunRef {
                        namespace_id,
                        workflow_id,
                        run_id,
                    } = it.run.clone();
                    (namespace_id, workflow_id, Some(run_id))
                })
                .collect(),
            runs: projections,
            deleted: Vec::new(),
            ..ProjectionBatch::default()
        };
        generating += cpu(ClockId::ProcessCPUTime) - before;
        let before = Instant::now();
        store.project(batch).await?;
        slowest = slowest.max(before.elapsed());
    }
    let used = cpu(ClockId::ProcessCPUTime) - process_cpu - generating;
    println!(
        "{label}: {:.1} µs CPU per run{}, {:.0} runs/s; slowest batch of {RUNS_PER_BATCH}: {:?}",
        used.as_secs_f64() * 1e6 / runs as f64,
        if label.contains("appending") {
            " (with the appends)"
        } else {
            ""
        },
        runs as f64 / started.elapsed().as_secs_f64(),
        slowest,
    );
    Ok(())
}

/// What a start of a workflow and a load of an evicted one ask for.
async fn look_up(store: &dyn Store, runs: u64) -> Result<(), StoreError> {
    const LOOK_UPS: u64 = 20_000;
    for (label, is_there) in [("of unknown ids", false), ("of known ids", true)] {
        let (started, process_cpu) = (Instant::now(), cpu(ClockId::ProcessCPUTime));
        for number in 0..LOOK_UPS {
            let run = projection(number * 7919 % runs, Stage::Whole).run;
            let workflow_id = if is_there {
                run.workflow_id
            } else {
                format!("unknown-{number}")
            };
            let found = store.current_run(&run.namespace_id, &workflow_id).await?;
            assert_eq!(found.is_some(), is_there);
        }
        println!(
            "current run {label}: {:.1} µs, {:.1} µs CPU",
            started.elapsed().as_secs_f64() * 1e6 / LOOK_UPS as f64,
            (cpu(ClockId::ProcessCPUTime) - process_cpu).as_secs_f64() * 1e6 / LOOK_UPS as f64,
        );
    }
    Ok(())
}

fn projection(number: u64, stage: Stage) -> RunProjection {
    let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let run_id = format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{number:012x}",
        (seed >> 32) as u32,
        (seed >> 16) as u16,
        seed & 0xfff,
        (seed >> 20) & 0xfff
    );
    let workflow_id = format!("agent-{seed:016x}");
    let start_time = 1_700_000_000_000_000_000 + number as i64 * 1_000_000;
    let close_time = (stage != Stage::Opened).then_some(start_time + 5_000_000_000);
    let event = |id: u64| {
        let mut event = vec![0; 150];
        fill(&mut event, seed + id);
        event
    };
    let events = match stage {
        Stage::Whole => 1..=11,
        Stage::Opened => 1..=4,
        Stage::Closed => 5..=11,
    };
    let mut snapshot = vec![0; 600];
    fill(&mut snapshot, seed);
    RunProjection {
        run: RunRef {
            namespace_id: "6f2b2b36-6d0c-4d7e-9b3f-3a7d2f0f7c11".to_owned(),
            workflow_id: workflow_id.clone(),
            run_id: run_id.clone(),
        },
        slot: (seed % 4096) as u16,
        snapshot,
        seq: number * TRANSITIONS_PER_RUN,
        wake_at: (stage == Stage::Opened).then_some(start_time + 60_000_000_000),
        history: vec![HistoryPage {
            first_event_id: *events.start() as i64,
            events: events.map(event).collect(),
        }],
        history_parents: Vec::new(),
        visibility: Some(VisibilityRow {
            workflow_id: workflow_id.clone(),
            run_id: run_id.clone(),
            workflow_type: format!("agent-type-{}", number % 5),
            status: if close_time.is_some() { 2 } else { 1 },
            start_time,
            execution_time: start_time,
            close_time,
            history_length: 11,
            history_size_bytes: 1_650,
            state_transition_count: 4,
            task_queue: "agents".to_owned(),
            root_workflow_id: workflow_id,
            root_run_id: run_id.clone(),
            first_run_id: run_id,
            ..VisibilityRow::default()
        }),
        pending_tasks: Vec::new(),
        delete_at: close_time.map(|time| time + 86_400_000_000_000),
        records: None,
    }
}

fn fill(bytes: &mut [u8], seed: u64) {
    for (index, chunk) in bytes.chunks_mut(8).enumerate() {
        let word = (seed + index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
}

fn cpu(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
