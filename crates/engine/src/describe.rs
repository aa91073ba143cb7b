//! What a describe request answers: a view of the state, without looking at history.

use temporalio_protos::temporal::api::activity::v1::ActivityOptions;

use crate::proto::common::WorkflowExecution;
use crate::proto::enums::{PendingActivityState, PendingWorkflowTaskState, TaskQueueKind};
use crate::proto::taskqueue::TaskQueue;
use crate::proto::workflow::{
    PendingActivityInfo, PendingChildExecutionInfo, PendingWorkflowTaskInfo, RequestIdInfo,
    WorkflowExecutionConfig, WorkflowExecutionExtendedInfo, WorkflowExecutionInfo,
    WorkflowExecutionPauseInfo,
};
use crate::proto::workflowservice::DescribeWorkflowExecutionResponse;
use crate::run::Run;
use crate::state::{Activity, Child, WorkflowTask};
use crate::time::{Time, duration, timestamp};

impl Run {
    /// Describes the run as of `now`.
    pub fn describe(&self, now: Time) -> DescribeWorkflowExecutionResponse {
        DescribeWorkflowExecutionResponse {
            execution_config: Some(self.execution_config()),
            workflow_execution_info: Some(self.execution_info()),
            pending_activities: self
                .state
                .activities
                .values()
                .map(|activity| pending_activity(activity, now))
                .collect(),
            pending_children: self
                .state
                .children
                .iter()
                .map(|(&initiated_id, child)| pending_child(initiated_id, child))
                .collect(),
            pending_workflow_task: self.workflow_task().map(pending_workflow_task),
            workflow_extended_info: Some(self.extended_info()),
            ..Default::default()
        }
    }

    fn execution_config(&self) -> WorkflowExecutionConfig {
        let start = self.state.start();
        WorkflowExecutionConfig {
            task_queue: Some(TaskQueue {
                name: self.state.task_queue().to_owned(),
                kind: TaskQueueKind::Normal as i32,
                normal_name: String::new(),
            }),
            workflow_execution_timeout: start.workflow_execution_timeout,
            workflow_run_timeout: start.workflow_run_timeout,
            default_workflow_task_timeout: start.workflow_task_timeout,
            user_metadata: self.state.user_metadata.clone(),
        }
    }

    #[allow(deprecated)]
    fn execution_info(&self) -> WorkflowExecutionInfo {
        let state = &self.state;
        let start = state.start();
        let execution = WorkflowExecution {
            workflow_id: state.workflow_id.clone(),
            run_id: state.run_id.clone(),
        };
        let root = start.root_workflow_execution.clone();
        let closed = state.close_time != 0;
        WorkflowExecutionInfo {
            root_execution: root.or_else(|| Some(execution.clone())),
            execution: Some(execution),
            r#type: start.workflow_type.clone(),
            start_time: some_time(state.start_time),
            close_time: some_time(state.close_time),
            status: state.status,
            history_length: state.next_event_id - 1,
            parent_namespace_id: start.parent_workflow_namespace_id.clone(),
            parent_execution: start.parent_workflow_execution.clone(),
            execution_time: some_time(state.execution_time),
            memo: Some(state.memo.clone().unwrap_or_default()),
            search_attributes: Some(state.search_attributes.clone().unwrap_or_default()),
            auto_reset_points: state.reset_points.clone(),
            task_queue: state.task_queue().to_owned(),
            state_transition_count: state.n as i64,
            history_size_bytes: state.history_bytes,
            most_recent_worker_version_stamp: state.worker_version.clone(),
            // A run that closes before its first task was due has not executed at all.
            execution_duration: closed
                .then(|| duration(state.close_time.saturating_sub(state.execution_time).max(0))),
            first_run_id: start.first_execution_run_id.clone(),
            priority: state.priority.clone(),
            ..Default::default()
        }
    }

    fn extended_info(&self) -> WorkflowExecutionExtendedInfo {
        let state = &self.state;
        let was_reset = !state.reset_from_run_id.is_empty();
        WorkflowExecutionExtendedInfo {
            execution_expiration_time: some_time(state.execution_expires),
            run_expiration_time: some_time(state.run_expires),
            cancel_requested: state.cancel_requested,
            reset_run_id: state.reset_run_id.clone(),
            last_reset_time: some_time(state.start_time).filter(|_| was_reset),
            // A reset counts as a new start; when the history that it shares began is not known here.
            original_start_time: some_time(state.start_time).filter(|_| !was_reset),
            request_id_infos: state
                .request_ids
                .iter()
                .map(|(id, info)| {
                    let info = RequestIdInfo {
                        event_type: info.event_type,
                        event_id: info.event_id.max(0),
                        buffered: info.event_id <= 0,
                    };
                    (id.clone(), info)
                })
                .collect(),
            pause_info: state.paused().map(|pause| WorkflowExecutionPauseInfo {
                identity: pause.identity.clone(),
                paused_time: some_time(pause.time),
                reason: pause.reason.clone(),
            }),
            ..Default::default()
        }
    }
}

fn pending_activity(activity: &Activity, now: Time) -> PendingActivityInfo {
    let scheduled = activity.scheduled();
    let attempt = activity.attempt();
    let state = if activity.cancel_requested_event_id != 0 {
        PendingActivityState::CancelRequested
    } else if activity.is_started() {
        PendingActivityState::Started
    } else {
        PendingActivityState::Scheduled
    };
    let waits = state == PendingActivityState::Scheduled && now < attempt.scheduled_time;
    let interval = attempt
        .scheduled_time
        .saturating_sub(attempt.last_complete_time);
    let heartbeat = attempt.heartbeat_time != 0;
    let last_started = match attempt.started_time {
        0 => attempt.last_started_time,
        started => started,
    };
    let policy = scheduled.retry_policy.as_ref();
    PendingActivityInfo {
        activity_id: scheduled.activity_id.clone(),
        activity_type: scheduled.activity_type.clone(),
        state: state as i32,
        heartbeat_details: attempt.heartbeat_details.clone(),
        last_heartbeat_time: some_time(attempt.heartbeat_time).filter(|_| heartbeat),
        last_started_time: some_time(last_started),
        attempt: attempt.number.max(1),
        maximum_attempts: policy.map_or(0, |policy| policy.maximum_attempts),
        scheduled_time: some_time(attempt.scheduled_time),
        expiration_time: some_time(activity.expires()),
        last_failure: attempt.last_failure.clone(),
        last_worker_identity: attempt.identity.clone(),
        current_retry_interval: waits.then(|| duration(interval)),
        last_attempt_complete_time: some_time(attempt.last_complete_time),
        next_attempt_schedule_time: some_time(attempt.scheduled_time).filter(|_| waits),
        priority: scheduled.priority.clone(),
        activity_options: Some(ActivityOptions {
            task_queue: scheduled.task_queue.clone(),
            schedule_to_close_timeout: scheduled.schedule_to_close_timeout,
            schedule_to_start_timeout: scheduled.schedule_to_start_timeout,
            start_to_close_timeout: scheduled.start_to_close_timeout,
            heartbeat_timeout: scheduled.heartbeat_timeout,
            retry_policy: scheduled.retry_policy.clone(),
            priority: scheduled.priority.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn pending_child(initiated_id: i64, child: &Child) -> PendingChildExecutionInfo {
    let initiated = child.initiated();
    PendingChildExecutionInfo {
        workflow_id: initiated.workflow_id.clone(),
        run_id: child.run_id.clone(),
        workflow_type_name: initiated
            .workflow_type
            .as_ref()
            .map(|workflow_type| workflow_type.name.clone())
            .unwrap_or_default(),
        initiated_id,
        parent_close_policy: initiated.parent_close_policy,
    }
}

fn pending_workflow_task(task: &WorkflowTask) -> PendingWorkflowTaskInfo {
    let state = match task.started_event_id {
        0 => PendingWorkflowTaskState::Scheduled,
        _ => PendingWorkflowTaskState::Started,
    };
    PendingWorkflowTaskInfo {
        state: state as i32,
        scheduled_time: some_time(task.scheduled_time),
        original_scheduled_time: some_time(task.original_scheduled_time),
        started_time: some_time(task.started_time),
        attempt: task.attempt,
    }
}

fn some_time(time: Time) -> Option<prost_types::Timestamp> {
    (time != 0).then(|| timestamp(time))
}
