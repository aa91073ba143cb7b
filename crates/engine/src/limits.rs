//! Limits that clients see. All are settings; the API reports them truthfully.

use crate::time::{SECOND, Span};

/// What the engine allows and when it warns.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Longest workflow id, activity id, task queue name, signal name and the like, in bytes.
    pub id_bytes: usize,
    /// Largest payloads of one request, command, memo or failure, in bytes.
    pub blob_bytes: usize,
    /// Largest memo, in bytes.
    pub memo_bytes: usize,
    /// Largest history of one run, in bytes; the run is terminated beyond it.
    pub history_bytes: i64,
    /// Most events of one run; the run is terminated beyond it.
    pub history_events: i64,
    /// Suggest continue-as-new from this size on, in bytes.
    pub suggest_history_bytes: i64,
    /// Suggest continue-as-new from this number of events on.
    pub suggest_history_events: i64,
    /// Most activities, children, signals and cancels of other workflows pending at once, each.
    pub pending: usize,
    /// Most signals of one run.
    pub signals: i64,
    /// Most updates under way at once.
    pub updates_in_flight: usize,
    /// Most updates of one run.
    pub updates_total: usize,
    /// Most events that wait for a workflow task in progress; it is failed beyond it.
    pub buffered_events: usize,
    /// Workflow task time-out where the start request gives none.
    pub workflow_task_timeout: Span,
    /// Longest workflow task time-out.
    pub max_workflow_task_timeout: Span,
    /// Longest heartbeating of local activities by workflow tasks that do nothing else.
    pub workflow_task_heartbeat: Span,
    /// Attempts of a workflow task after which its back-off begins.
    pub workflow_task_backoff_attempts: i32,
    /// Longest back-off between attempts of a workflow task.
    pub workflow_task_max_backoff: Span,
    /// Shortest time between a run and the one that continues it as new.
    pub continue_as_new_min_interval: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            id_bytes: 1000,
            blob_bytes: 2 * 1024 * 1024,
            memo_bytes: 2 * 1024 * 1024,
            history_bytes: 50 * 1024 * 1024,
            history_events: 50 * 1024,
            suggest_history_bytes: 4 * 1024 * 1024,
            suggest_history_events: 4 * 1024,
            pending: 2000,
            signals: 10_000,
            updates_in_flight: 10,
            updates_total: 2000,
            buffered_events: 100,
            workflow_task_timeout: 10 * SECOND,
            max_workflow_task_timeout: 120 * SECOND,
            workflow_task_heartbeat: 30 * 60 * SECOND,
            workflow_task_backoff_attempts: 3,
            workflow_task_max_backoff: 600 * SECOND,
            continue_as_new_min_interval: SECOND,
        }
    }
}
