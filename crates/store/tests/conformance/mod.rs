//! What every store must do, whatever database is behind it.
//!
//! A case is a function over a [`Fixture`]. `conformance!` makes a test of each for one fixture.

pub mod erase;
pub mod history;
pub mod journal;
pub mod logs;
pub mod records;
pub mod runs;
pub mod tasks;
pub mod visibility;

use std::sync::Arc;

use steadfast_store::{
    HistoryPage, JournalRow, ProjectionBatch, RunProjection, RunRef, Store, StoreError,
    VisibilityRow,
};

/// A database that can be opened.
pub trait Fixture: Send + Sync {
    /// Opens the database. Nothing else has it open.
    fn open(&self) -> Result<Arc<dyn Store>, StoreError>;

    /// Whether what was written is there when it is opened again.
    fn is_durable(&self) -> bool;
}

pub const NAMESPACE: &str = "namespace-a";
pub const OTHER_NAMESPACE: &str = "namespace-b";
pub const SECOND: i64 = 1_000_000_000;

/// A test for every case.
#[macro_export]
macro_rules! conformance {
    ($fixture:expr) => {
        $crate::conformance!(@cases $fixture,
            journal::appended_rows_are_read_back,
            journal::gaps_and_repeats_are_conflicts,
            journal::nothing_appended_is_nothing_written,
            journal::head_and_rows_survive_reopening,
            journal::rows_not_projected_are_kept,
            journal::a_batch_may_not_go_back,
            runs::snapshots_are_replaced,
            runs::a_batch_is_all_or_nothing,
            runs::current_run_follows_the_last_batch,
            runs::due_runs_are_in_order,
            runs::due_runs_come_in_batches,
            runs::expired_runs_are_in_order,
            runs::deleted_runs_leave_nothing,
            runs::namespaces_do_not_mix,
            runs::projections_survive_reopening,
            history::events_are_read_in_both_directions,
            history::reads_stop_at_the_limit_of_bytes,
            history::big_pages_are_read_in_part,
            history::shared_history_outlives_its_run,
            history::shared_history_of_a_chain_goes_with_its_last_user,
            erase::what_is_left_takes_the_place_of_what_was,
            erase::a_history_that_outlived_its_run_is_erased,
            erase::remains_are_overwritten_again_and_again,
            logs::entries_are_read_from_anywhere,
            logs::a_log_grows_only_at_its_end,
            logs::logs_survive_reopening,
            logs::record_pages_are_found_by_number,
            tasks::waiting_runs_are_in_order,
            tasks::queues_add_up,
            tasks::a_projection_replaces_what_waited,
            records::records_are_put_listed_and_deleted,
            records::records_survive_reopening,
            visibility::rows_come_back_as_they_were,
            visibility::the_default_order_is_open_first_then_latest_close,
            visibility::filters_find_what_they_say,
            visibility::counts_agree_with_lists,
            visibility::pages_join_without_gap_or_repeat,
            visibility::other_orders_page_too,
            visibility::a_foreign_page_token_is_refused,
            visibility::changes_move_rows_between_filters,
            visibility::namespace_divisions_are_apart,
            visibility::attributes_are_per_namespace,
            visibility::attributes_can_be_registered_late_and_again,
            visibility::grouping_is_only_for_counts,
        );
    };
    (@cases $fixture:expr, $($module:ident :: $case:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::conformance::$module::$case(&$fixture).await;
            }
        )*
    };
}

pub fn run_ref(number: u32) -> RunRef {
    RunRef {
        namespace_id: NAMESPACE.to_owned(),
        workflow_id: format!("workflow-{number}"),
        run_id: run_id(number),
    }
}

pub fn run_id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// A running run with nothing special about it.
pub fn projection(number: u32) -> RunProjection {
    RunProjection {
        run: run_ref(number),
        slot: (number % 4096) as u16,
        snapshot: format!("snapshot {number}").into_bytes(),
        seq: 1,
        wake_at: None,
        history: Vec::new(),
        history_parents: Vec::new(),
        visibility: None,
        pending_tasks: Vec::new(),
        delete_at: None,
        records: None,
    }
}

pub fn page(first_event_id: i64, events: &[&str]) -> HistoryPage {
    HistoryPage {
        first_event_id,
        events: events.iter().map(|it| it.as_bytes().to_vec()).collect(),
    }
}

/// What visibility shows of a running root.
pub fn visibility_row(number: u32) -> VisibilityRow {
    let run = run_ref(number);
    VisibilityRow {
        workflow_type: "type".to_owned(),
        status: 1,
        start_time: i64::from(number) * SECOND,
        execution_time: i64::from(number) * SECOND,
        task_queue: "queue".to_owned(),
        root_workflow_id: run.workflow_id.clone(),
        root_run_id: run.run_id.clone(),
        first_run_id: run.run_id.clone(),
        workflow_id: run.workflow_id,
        run_id: run.run_id,
        ..VisibilityRow::default()
    }
}

pub fn rows(seqs: std::ops::RangeInclusive<u64>) -> Vec<JournalRow> {
    seqs.map(|seq| JournalRow {
        seq,
        slot: (seq % 4096) as u16,
        bytes: format!("row {seq}").into_bytes(),
    })
    .collect()
}

/// Projects runs without moving the position.
pub async fn project(store: &dyn Store, runs: Vec<RunProjection>) {
    let position = store.projected_position().await.expect("a position");
    let batch = ProjectionBatch {
        position,
        runs,
        ..ProjectionBatch::default()
    };
    store.project(batch).await.expect("a projection");
}

pub async fn delete(store: &dyn Store, deleted: Vec<RunRef>) {
    let position = store.projected_position().await.expect("a position");
    let batch = ProjectionBatch {
        position,
        deleted,
        ..ProjectionBatch::default()
    };
    store.project(batch).await.expect("a projection");
}
