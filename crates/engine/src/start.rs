//! The beginning of a run.

use crate::effect::Effect;
use crate::error::{Error, Result};
use crate::proto::common::{Link, Principal};
use crate::proto::enums::{
    EventType, WorkflowExecutionStatus, WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
};
use crate::proto::history::{HistoryEvent, WorkflowExecutionStartedEventAttributes};
use crate::proto::sdk::UserMetadata;
use crate::record::{Begin, StepKind};
use crate::run::{Cx, Run};
use crate::state::{RequestIdInfo, RunState};
use crate::time::{Span, duration, some_duration, span, time};

/// What a new run begins with.
#[derive(Clone, Debug, Default)]
pub struct StartRun {
    /// Id of the namespace.
    pub namespace_id: String,
    /// Workflow id.
    pub workflow_id: String,
    /// Fresh run id.
    pub run_id: String,
    /// Request id of the start.
    pub request_id: String,
    /// The first event. Ids of the run and of its chain, expiry and back-off are filled in here.
    pub attributes: WorkflowExecutionStartedEventAttributes,
    /// Summary and details.
    pub user_metadata: Option<UserMetadata>,
    /// Links.
    pub links: Vec<Link>,
    /// How long the first workflow task is held back.
    pub delay: Span,
    /// Who started the session that this continues or belongs to; none for whoever causes it now.
    pub initiator: Option<Principal>,
    /// The agents above it: `<namespace>/<workflow type>`, the nearest first.
    pub agents: Vec<String>,
}

/// What to do about the run that a start request finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExisting {
    /// Start another: the one that is there is closed, and may be followed.
    Start,
    /// Terminate the running one and start another.
    TerminateAndStart,
    /// Answer with the one that is there: it was started by this very request, or may be used.
    Use,
}

/// Decides what a start request does where a run of this workflow id is there, by the two policies
/// of the request.
pub fn on_existing(
    existing: &RunState,
    request_id: &str,
    reuse: WorkflowIdReusePolicy,
    conflict: WorkflowIdConflictPolicy,
) -> Result<OnExisting> {
    use WorkflowExecutionStatus as Status;
    let same_request = !request_id.is_empty()
        && (existing.start_request_id == request_id
            || existing.request_ids.contains_key(request_id));
    if same_request {
        return Ok(OnExisting::Use);
    }
    let status = Status::try_from(existing.status).unwrap_or(Status::Unspecified);
    let refuse = |message: &str| {
        Err(Error::AlreadyStarted {
            message: format!(
                "{message} WorkflowId: {}, RunId: {}.",
                existing.workflow_id, existing.run_id
            ),
            start_request_id: existing.start_request_id.clone(),
            run_id: existing.run_id.clone(),
            first_run_id: existing.start().first_execution_run_id.clone(),
            status,
        })
    };
    if existing.is_running() {
        return match conflict {
            _ if reuse == WorkflowIdReusePolicy::TerminateIfRunning => {
                Ok(OnExisting::TerminateAndStart)
            }
            WorkflowIdConflictPolicy::TerminateExisting => Ok(OnExisting::TerminateAndStart),
            WorkflowIdConflictPolicy::UseExisting => Ok(OnExisting::Use),
            _ => refuse("Workflow execution is already running."),
        };
    }
    match reuse {
        WorkflowIdReusePolicy::RejectDuplicate => refuse("Workflow execution already finished."),
        WorkflowIdReusePolicy::AllowDuplicateFailedOnly
            if matches!(status, Status::Completed | Status::ContinuedAsNew) =>
        {
            refuse("Workflow execution already finished successfully.")
        }
        _ => Ok(OnExisting::Start),
    }
}

impl Run {
    /// Begins a run: its first event, and its first workflow task unless that is held back.
    pub fn start(cx: &mut Cx<'_>, start: StartRun) -> Self {
        let mut run = Self::begin(cx, start);
        run.schedule_workflow_task(cx);
        run
    }

    /// Begins a run without its first workflow task, for a start that comes with a signal.
    pub fn begin(cx: &mut Cx<'_>, start: StartRun) -> Self {
        let mut run = Self::default();
        let initiator = start.initiator.or_else(|| cx.caller());
        run.step(StepKind::Begin(Begin {
            namespace_id: start.namespace_id,
            workflow_id: start.workflow_id.clone(),
            run_id: start.run_id.clone(),
            request_id: start.request_id,
            initiator,
            agents: start.agents,
        }));
        let mut attributes = start.attributes;
        attributes.workflow_id = start.workflow_id;
        attributes
            .original_execution_run_id
            .clone_from(&start.run_id);
        if attributes.first_execution_run_id.is_empty() {
            attributes.first_execution_run_id.clone_from(&start.run_id);
        }
        attributes.attempt = attributes.attempt.max(1);
        // A run that continues another says this only if there is a back-off.
        let continues = !attributes.continued_execution_run_id.is_empty();
        attributes.first_workflow_task_backoff = match continues {
            true => some_duration(start.delay),
            false => Some(duration(start.delay)),
        };
        if attributes.workflow_execution_expiration_time.is_none() {
            let timeout = span(&attributes.workflow_execution_timeout);
            if timeout > 0 {
                let expires = cx.now.saturating_add(timeout).saturating_add(start.delay);
                attributes.workflow_execution_expiration_time =
                    Some(crate::time::timestamp(expires));
            }
        }
        let (metadata, links) = (start.user_metadata, start.links);
        run.event_with(cx, attributes.into(), |event| {
            event.user_metadata = metadata;
            event.links = links;
        });
        run
    }

    /// Lets the first workflow task of a run made by [`Run::begin`] go.
    pub fn schedule_first_task(&mut self, cx: &mut Cx<'_>) {
        self.schedule_workflow_task(cx);
    }

    /// Takes the offer of the task back out of `cx`: it goes to the caller itself.
    pub fn withdraw_task_offer(cx: &mut Cx<'_>, run_id: &str) {
        cx.effects.retain(
            |effect| !matches!(effect, Effect::WorkflowTask { run_id: of, .. } if of == run_id),
        );
    }

    pub(crate) fn apply_started(
        &mut self,
        event: &HistoryEvent,
        attributes: &WorkflowExecutionStartedEventAttributes,
    ) {
        let state = &mut self.state;
        let now = event.event_time.as_ref().map_or(0, time);
        let delay = span(&attributes.first_workflow_task_backoff);
        state.start_time = now;
        state.execution_time = now.saturating_add(delay);
        state.first_task_at = if delay > 0 { state.execution_time } else { 0 };
        state.execution_expires = attributes
            .workflow_execution_expiration_time
            .as_ref()
            .map_or(0, time);
        state.run_expires = match span(&attributes.workflow_run_timeout) {
            0 => 0,
            timeout => state.execution_time.saturating_add(timeout),
        };
        state.memo.clone_from(&attributes.memo);
        state
            .search_attributes
            .clone_from(&attributes.search_attributes);
        state.priority.clone_from(&attributes.priority);
        state
            .reset_points
            .clone_from(&attributes.prev_auto_reset_points);
        state.user_metadata.clone_from(&event.user_metadata);
        if !state.start_request_id.is_empty() {
            state.request_ids.insert(
                state.start_request_id.clone(),
                RequestIdInfo {
                    event_type: EventType::WorkflowExecutionStarted as i32,
                    event_id: event.event_id,
                },
            );
        }
        let mut kept = attributes.clone();
        if kept.retry_policy.is_none() && kept.cron_schedule.is_empty() {
            kept.input = None;
            kept.header = None;
            kept.last_completion_result = None;
            kept.continued_failure = None;
        }
        state.started = Some(kept);
    }
}
