//! Child workflows: initiated → started or failed to start → closed.
//!
//! The parent only sends a message; starting the child is another run's transition. What comes back
//! are inputs ([`Run::child_started`], [`Run::child_start_failed`], [`Run::child_closed`]), each of
//! which may come twice: the second time it changes nothing.

use prost::Message;

use crate::backoff::{default_retry_policy, validate_retry_policy};
use crate::commands::{NewIds, check_size};
use crate::error::{Error, Result};
use crate::governance::Stage;
use crate::proto::command::StartChildWorkflowExecutionCommandAttributes;
use crate::proto::common::{Principal, Priority, WorkflowExecution, WorkflowType};
use crate::proto::enums::{
    ContinueAsNewInitiator, ParentClosePolicy, StartChildWorkflowExecutionFailedCause,
    TaskQueueKind, WorkflowIdReusePolicy, WorkflowTaskFailedCause as Cause,
};
use crate::proto::history::{
    ChildWorkflowExecutionCanceledEventAttributes, ChildWorkflowExecutionCompletedEventAttributes,
    ChildWorkflowExecutionFailedEventAttributes, ChildWorkflowExecutionStartedEventAttributes,
    ChildWorkflowExecutionTerminatedEventAttributes, ChildWorkflowExecutionTimedOutEventAttributes,
    HistoryEvent, StartChildWorkflowExecutionFailedEventAttributes,
    StartChildWorkflowExecutionInitiatedEventAttributes, WorkflowExecutionStartedEventAttributes,
    history_event::Attributes,
};
use crate::proto::sdk::UserMetadata;
use crate::proto::taskqueue::TaskQueue;
use crate::run::{Cx, Run};
use crate::start::StartRun;
use crate::state::{Approval, Child, ChildClosed, Delivery, OutMessage, RunState};
use crate::time::{Span, Time, duration, span};

/// Longest fairness key, in bytes.
const FAIRNESS_KEY_BYTES: usize = 64;

/// So many agents above a run are known.
const MAX_AGENTS: usize = 10;

/// What starting a child takes.
#[derive(Clone, Debug, Default)]
pub struct ChildStart {
    /// Id of the child's namespace.
    pub namespace_id: String,
    /// Its workflow id.
    pub workflow_id: String,
    /// By which a repeated start is recognised.
    pub request_id: String,
    /// What to do about a closed run with its workflow id. A running one makes the start fail.
    pub reuse_policy: WorkflowIdReusePolicy,
    /// Its first event.
    pub attributes: WorkflowExecutionStartedEventAttributes,
    /// Summary and details.
    pub user_metadata: Option<UserMetadata>,
    /// Who started the parent's session.
    pub initiator: Option<Principal>,
    /// The agents above the child, the parent first.
    pub agents: Vec<String>,
}

impl ChildStart {
    /// The first run of the chain that a run belongs to, if this very start began it. Later runs of
    /// the chain do not have the request id, but they name their parent as the first one did.
    pub fn began(&self, run: &RunState) -> Option<String> {
        let (asked, start) = (&self.attributes, run.start());
        let parent = start.parent_workflow_execution.as_ref()?;
        let asking = asked.parent_workflow_execution.as_ref()?;
        // A parent that was reset asks under its own run id, by the request id of the run before.
        let same_parent = parent.workflow_id == asking.workflow_id
            && start.parent_initiated_event_id == asked.parent_initiated_event_id
            && (parent.run_id == asking.run_id
                || request_id(&parent.run_id, start.parent_initiated_event_id) == self.request_id);
        same_parent.then(|| start.first_execution_run_id.clone())
    }

    /// The run to begin at `now`: one on a schedule waits for its first time.
    pub fn into_start_run(self, run_id: String, now: Time) -> StartRun {
        StartRun {
            namespace_id: self.namespace_id,
            workflow_id: self.workflow_id,
            run_id,
            request_id: self.request_id,
            delay: crate::cron::next_after(&self.attributes.cron_schedule, now, now).unwrap_or(0),
            attributes: self.attributes,
            user_metadata: self.user_metadata,
            links: Vec::new(),
            initiator: self.initiator,
            agents: self.agents,
        }
    }
}

impl Child {
    /// Attributes of the initiated event; input and header are there only until the child is
    /// started.
    pub fn initiated(&self) -> &StartChildWorkflowExecutionInitiatedEventAttributes {
        static NONE: std::sync::LazyLock<StartChildWorkflowExecutionInitiatedEventAttributes> =
            std::sync::LazyLock::new(Default::default);
        self.initiated.as_ref().unwrap_or(&NONE)
    }

    /// Whether the child is known to be started.
    pub fn is_started(&self) -> bool {
        self.started_event_id != 0
    }
}

impl Run {
    /// Whether a child may be started, given what the same workflow task starts.
    pub(crate) fn check_start_child<'a>(
        &self,
        cx: &Cx<'_>,
        command: &'a StartChildWorkflowExecutionCommandAttributes,
        new: &mut NewIds<'a>,
    ) -> Result<()> {
        const CAUSE: Cause = Cause::BadStartChildExecutionAttributes;
        let bad = |message: String| Err(Error::bad_command(CAUSE, message));
        let id = command.workflow_id.as_str();
        let workflow_type = command
            .workflow_type
            .as_ref()
            .map_or("", |t| t.name.as_str());
        if id.is_empty() {
            return bad("WorkflowId is not set on StartChildWorkflowExecutionCommand.".into());
        }
        if workflow_type.is_empty() {
            return bad(format!("WorkflowType of child {id} is not set."));
        }
        #[allow(deprecated)]
        crate::external::check_target_namespace(cx, &command.namespace, CAUSE)?;
        let queue = command
            .task_queue
            .as_ref()
            .map_or("", |queue| queue.name.as_str());
        for (what, value) in [
            ("WorkflowId", id),
            ("WorkflowType", workflow_type),
            ("TaskQueue", queue),
        ] {
            if value.len() > cx.limits.id_bytes {
                return bad(format!(
                    "{what} of a child is longer than {} bytes.",
                    cx.limits.id_bytes
                ));
            }
        }
        for (what, timeout) in [
            (
                "WorkflowExecutionTimeout",
                &command.workflow_execution_timeout,
            ),
            ("WorkflowRunTimeout", &command.workflow_run_timeout),
            ("WorkflowTaskTimeout", &command.workflow_task_timeout),
        ] {
            if span(timeout) < 0 {
                return bad(format!("{what} of child {id} is negative."));
            }
        }
        if let Some(policy) = &command.retry_policy
            && let Err(message) = validate_retry_policy(policy)
        {
            return bad(format!("RetryPolicy of child {id}: {message}"));
        }
        if let Err(message) = crate::cron::validate(&command.cron_schedule) {
            return bad(format!("CronSchedule of child {id}: {message}"));
        }
        if let Some(priority) = &command.priority
            && let Err(message) = check_priority(priority)
        {
            return bad(format!("Priority of child {id}: {message}"));
        }
        check_size(cx, &command.input, CAUSE, || format!("Input of child {id}"))?;
        if command.memo.as_ref().map_or(0, Message::encoded_len) > cx.limits.memo_bytes {
            return bad(format!(
                "Memo of child {id} is larger than {} bytes.",
                cx.limits.memo_bytes
            ));
        }
        new.children += 1;
        new.child_workflow_ids.insert(id);
        if self.state.children.len() + new.children > cx.limits.pending {
            return Err(Error::bad_command(
                Cause::PendingChildWorkflowsLimitExceeded,
                format!(
                    "The workflow has {} pending children, the limit.",
                    cx.limits.pending
                ),
            ));
        }
        Ok(())
    }

    /// Starts a child, or asks for its approval, or refuses it. Returns its initiated event's id.
    pub(crate) fn start_child(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        command: StartChildWorkflowExecutionCommandAttributes,
        adorn: impl FnOnce(&mut HistoryEvent),
    ) -> i64 {
        let attributes = self.child_initiated_attributes(cx, completed_event_id, command);
        let id = self.event_with(cx, attributes.into(), adorn);
        if self.may_run(cx, id, Stage::Scheduling) {
            self.dispatch(cx, id);
        }
        id
    }

    /// The message that starts a child.
    pub(crate) fn start_message(&self, id: i64, child: &Child) -> OutMessage {
        let initiated = child.initiated();
        OutMessage {
            namespace_id: initiated.namespace_id.clone(),
            workflow_id: initiated.workflow_id.clone(),
            delivery: Some(Delivery::StartChild(id)),
            ..OutMessage::default()
        }
    }

    /// The child was started, as this run (the first of its chain).
    pub fn child_started(
        &mut self,
        cx: &mut Cx<'_>,
        initiated_event_id: i64,
        run_id: String,
    ) -> Result<()> {
        if self.record_child_started(cx, initiated_event_id, run_id) {
            self.schedule_workflow_task(cx);
        }
        Ok(())
    }

    /// The child could not be started.
    pub fn child_start_failed(
        &mut self,
        cx: &mut Cx<'_>,
        initiated_event_id: i64,
        cause: StartChildWorkflowExecutionFailedCause,
    ) -> Result<()> {
        let Some(child) = self.unstarted_child(initiated_event_id) else {
            return Ok(());
        };
        let initiated = child.initiated();
        #[allow(deprecated)]
        let attributes = StartChildWorkflowExecutionFailedEventAttributes {
            namespace: initiated.namespace.clone(),
            namespace_id: initiated.namespace_id.clone(),
            workflow_id: initiated.workflow_id.clone(),
            workflow_type: initiated.workflow_type.clone(),
            cause: cause as i32,
            control: initiated.control.clone(),
            initiated_event_id,
            workflow_task_completed_event_id: 0,
        };
        self.event(cx, attributes.into());
        self.schedule_workflow_task(cx);
        Ok(())
    }

    /// The child's chain of runs came to its end. A child that is not known (any more), or another
    /// one under the same workflow id, changes nothing. Errors with [`Error::NotFound`] if the
    /// parent is closed; one that was reset has a successor that may know the child.
    pub fn child_closed(&mut self, cx: &mut Cx<'_>, closed: &ChildClosed) -> Result<()> {
        if !self.state.is_running() {
            return Err(Error::completed());
        }
        let close_event = HistoryEvent::decode(closed.close_event.as_slice())
            .map_err(|error| Error::Corrupt(format!("closing event of a child: {error}")))?;
        let initiated_event_id = closed.initiated_event_id;
        let Some(child) = self.state.children.get(&initiated_event_id) else {
            return Ok(());
        };
        let other_run = child.is_started() && child.run_id != closed.first_run_id;
        if child.initiated().workflow_id != closed.workflow_id || other_run {
            return Ok(());
        }
        // The child may be faster than the news of its start.
        self.record_child_started(cx, initiated_event_id, closed.first_run_id.clone());
        let Some(child) = self.state.children.get(&initiated_event_id) else {
            return Ok(());
        };
        let Some(attributes) = closed_attributes(child, closed, close_event.attributes) else {
            return Ok(());
        };
        self.event(cx, attributes);
        self.schedule_workflow_task(cx);
        Ok(())
    }

    /// What the shell needs to start the child; none if that is over, or not to be done any more.
    pub fn child_start_request(&self, initiated_event_id: i64) -> Option<ChildStart> {
        let child = self.unstarted_child(initiated_event_id)?;
        if child.approval.as_ref().is_some_and(Approval::is_open) {
            return None;
        }
        let initiated = child.initiated();
        let this = WorkflowExecution {
            workflow_id: self.state.workflow_id.clone(),
            run_id: self.state.run_id.clone(),
        };
        let root = self.state.start().root_workflow_execution.clone();
        let initiator = match initiated.cron_schedule.is_empty() {
            true => ContinueAsNewInitiator::Unspecified,
            false => ContinueAsNewInitiator::CronSchedule,
        };
        Some(ChildStart {
            namespace_id: initiated.namespace_id.clone(),
            workflow_id: initiated.workflow_id.clone(),
            request_id: child.request_id.clone(),
            reuse_policy: initiated.workflow_id_reuse_policy(),
            attributes: WorkflowExecutionStartedEventAttributes {
                workflow_type: initiated.workflow_type.clone(),
                // A workflow's namespace is where its children are, too.
                parent_workflow_namespace: initiated.namespace.clone(),
                parent_workflow_namespace_id: self.state.namespace_id.clone(),
                root_workflow_execution: root.or_else(|| Some(this.clone())),
                parent_workflow_execution: Some(this),
                parent_initiated_event_id: initiated_event_id,
                task_queue: initiated.task_queue.clone(),
                input: initiated.input.clone(),
                workflow_execution_timeout: initiated.workflow_execution_timeout,
                workflow_run_timeout: initiated.workflow_run_timeout,
                workflow_task_timeout: initiated.workflow_task_timeout,
                initiator: initiator as i32,
                retry_policy: initiated.retry_policy.clone(),
                attempt: 1,
                cron_schedule: initiated.cron_schedule.clone(),
                memo: initiated.memo.clone(),
                search_attributes: initiated.search_attributes.clone(),
                header: initiated.header.clone(),
                workflow_id: initiated.workflow_id.clone(),
                priority: merge(self.state.priority.as_ref(), initiated.priority.as_ref()),
                ..Default::default()
            },
            user_metadata: child.user_metadata.clone(),
            initiator: self.state.initiator.clone(),
            agents: self.agents(&initiated.namespace),
        })
    }

    /// The agents above its children, the nearest first. `namespace` is the name of its own.
    fn agents(&self, namespace: &str) -> Vec<String> {
        let own = format!("{namespace}/{}", self.state.workflow_type());
        let above = self.state.agents.iter().cloned();
        std::iter::once(own).chain(above).take(MAX_AGENTS).collect()
    }

    pub(crate) fn apply_child_initiated(
        &mut self,
        event: &HistoryEvent,
        attributes: &StartChildWorkflowExecutionInitiatedEventAttributes,
    ) {
        let id = event.event_id;
        self.state.children.insert(
            id,
            Child {
                initiated: Some(attributes.clone()),
                request_id: self.request_id_of(id),
                started_event_id: 0,
                run_id: String::new(),
                user_metadata: event.user_metadata.clone(),
                approval: None,
            },
        );
    }

    pub(crate) fn apply_child_started(
        &mut self,
        id: i64,
        attributes: &ChildWorkflowExecutionStartedEventAttributes,
    ) {
        let Some(child) = self.state.children.get_mut(&attributes.initiated_event_id) else {
            return;
        };
        child.started_event_id = id;
        child.run_id = attributes
            .workflow_execution
            .as_ref()
            .map(|execution| execution.run_id.clone())
            .unwrap_or_default();
        if let Some(initiated) = &mut child.initiated {
            child.user_metadata = None;
            initiated.input = None;
            initiated.header = None;
        }
    }

    pub(crate) fn apply_child_closed(&mut self, initiated_event_id: i64) {
        self.state.children.remove(&initiated_event_id);
    }

    /// Request id of what an event initiates: made of names that replaying the event has again, so
    /// that the receiver can tell a repeated request from a new one.
    pub(crate) fn request_id_of(&self, initiated_event_id: i64) -> String {
        request_id(&self.state.run_id, initiated_event_id)
    }

    /// Returns whether that was news.
    fn record_child_started(
        &mut self,
        cx: &Cx<'_>,
        initiated_event_id: i64,
        run_id: String,
    ) -> bool {
        let Some(attributes) = self.child_started_attributes(initiated_event_id, run_id) else {
            return false;
        };
        self.event(cx, attributes.into());
        true
    }

    /// The event that a child was started; none if it is over, or known.
    pub(crate) fn child_started_attributes(
        &self,
        initiated_event_id: i64,
        run_id: String,
    ) -> Option<ChildWorkflowExecutionStartedEventAttributes> {
        let child = self.unstarted_child(initiated_event_id)?;
        let initiated = child.initiated();
        Some(ChildWorkflowExecutionStartedEventAttributes {
            namespace: initiated.namespace.clone(),
            namespace_id: initiated.namespace_id.clone(),
            initiated_event_id,
            workflow_execution: Some(WorkflowExecution {
                workflow_id: initiated.workflow_id.clone(),
                run_id,
            }),
            workflow_type: initiated.workflow_type.clone(),
            header: initiated.header.clone(),
        })
    }

    /// A child that still is to be started. One of a closed parent is not.
    fn unstarted_child(&self, initiated_event_id: i64) -> Option<&Child> {
        self.state
            .children
            .get(&initiated_event_id)
            .filter(|child| !child.is_started() && self.state.is_running())
    }

    /// The initiated event, with defaults for what the command leaves open.
    #[allow(deprecated)]
    fn child_initiated_attributes(
        &self,
        cx: &Cx<'_>,
        completed_event_id: i64,
        command: StartChildWorkflowExecutionCommandAttributes,
    ) -> StartChildWorkflowExecutionInitiatedEventAttributes {
        let parent_close_policy = match command.parent_close_policy() {
            ParentClosePolicy::Unspecified => ParentClosePolicy::Terminate,
            policy => policy,
        };
        let reuse_policy = match command.workflow_id_reuse_policy() {
            WorkflowIdReusePolicy::Unspecified => WorkflowIdReusePolicy::AllowDuplicate,
            policy => policy,
        };
        let task_queue = command
            .task_queue
            .map(|queue| queue.name)
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| self.state.task_queue().to_owned());
        let execution_timeout = span(&command.workflow_execution_timeout);
        let run_timeout = shorter(span(&command.workflow_run_timeout), execution_timeout);
        let task_timeout = match span(&command.workflow_task_timeout) {
            0 => cx.limits.workflow_task_timeout,
            timeout => timeout,
        };
        let task_timeout = shorter(
            task_timeout.min(cx.limits.max_workflow_task_timeout),
            run_timeout,
        );
        let mut retry_policy = command.retry_policy;
        if let Some(policy) = &mut retry_policy {
            default_retry_policy(policy);
        }
        StartChildWorkflowExecutionInitiatedEventAttributes {
            namespace: cx.namespace.to_owned(),
            namespace_id: self.state.namespace_id.clone(),
            workflow_id: command.workflow_id,
            workflow_type: command.workflow_type,
            task_queue: Some(TaskQueue {
                name: task_queue,
                kind: TaskQueueKind::Normal as i32,
                normal_name: String::new(),
            }),
            input: command.input,
            workflow_execution_timeout: command.workflow_execution_timeout,
            workflow_run_timeout: Some(duration(run_timeout)),
            workflow_task_timeout: Some(duration(task_timeout)),
            parent_close_policy: parent_close_policy as i32,
            control: command.control,
            workflow_task_completed_event_id: completed_event_id,
            workflow_id_reuse_policy: reuse_policy as i32,
            retry_policy,
            cron_schedule: command.cron_schedule,
            header: command.header,
            memo: command.memo.filter(|memo| !memo.fields.is_empty()),
            search_attributes: command.search_attributes,
            inherit_build_id: command.inherit_build_id,
            priority: command.priority,
            ..Default::default()
        }
    }
}

fn request_id(run_id: &str, initiated_event_id: i64) -> String {
    format!("{run_id}:{initiated_event_id}")
}

/// The parent's event about a child that closed; none for a child that goes on in another run.
fn closed_attributes(
    child: &Child,
    closed: &ChildClosed,
    close: Option<Attributes>,
) -> Option<Attributes> {
    let initiated = child.initiated();
    let namespace = initiated.namespace.clone();
    let namespace_id = initiated.namespace_id.clone();
    let workflow_execution = Some(WorkflowExecution {
        workflow_id: closed.workflow_id.clone(),
        run_id: closed.run_id.clone(),
    });
    let workflow_type = match closed.workflow_type.is_empty() {
        true => initiated.workflow_type.clone(),
        false => Some(WorkflowType {
            name: closed.workflow_type.clone(),
        }),
    };
    let initiated_event_id = closed.initiated_event_id;
    let started_event_id = child.started_event_id;
    Some(match close? {
        Attributes::WorkflowExecutionCompletedEventAttributes(close) => {
            ChildWorkflowExecutionCompletedEventAttributes {
                result: close.result,
                namespace,
                namespace_id,
                workflow_execution,
                workflow_type,
                initiated_event_id,
                started_event_id,
            }
            .into()
        }
        Attributes::WorkflowExecutionFailedEventAttributes(close) => {
            ChildWorkflowExecutionFailedEventAttributes {
                failure: close.failure,
                namespace,
                namespace_id,
                workflow_execution,
                workflow_type,
                initiated_event_id,
                started_event_id,
                retry_state: close.retry_state,
            }
            .into()
        }
        Attributes::WorkflowExecutionCanceledEventAttributes(close) => {
            ChildWorkflowExecutionCanceledEventAttributes {
                details: close.details,
                namespace,
                namespace_id,
                workflow_execution,
                workflow_type,
                initiated_event_id,
                started_event_id,
            }
            .into()
        }
        Attributes::WorkflowExecutionTimedOutEventAttributes(close) => {
            ChildWorkflowExecutionTimedOutEventAttributes {
                namespace,
                namespace_id,
                workflow_execution,
                workflow_type,
                initiated_event_id,
                started_event_id,
                retry_state: close.retry_state,
            }
            .into()
        }
        Attributes::WorkflowExecutionTerminatedEventAttributes(_) => {
            ChildWorkflowExecutionTerminatedEventAttributes {
                namespace,
                namespace_id,
                workflow_execution,
                workflow_type,
                initiated_event_id,
                started_event_id,
            }
            .into()
        }
        _ => return None,
    })
}

/// The shorter of two time-outs, of which 0 is none.
fn shorter(a: Span, b: Span) -> Span {
    match (a, b) {
        (0, timeout) | (timeout, 0) => timeout,
        (a, b) => a.min(b),
    }
}

/// The child's priority: what it does not set it has from its parent.
fn merge(parent: Option<&Priority>, child: Option<&Priority>) -> Option<Priority> {
    let (Some(parent), Some(child)) = (parent, child) else {
        return child.or(parent).cloned();
    };
    let mut merged = child.clone();
    if merged.priority_key == 0 {
        merged.priority_key = parent.priority_key;
    }
    if merged.fairness_key.is_empty() {
        merged.fairness_key.clone_from(&parent.fairness_key);
    }
    if merged.fairness_weight == 0.0 {
        merged.fairness_weight = parent.fairness_weight;
    }
    Some(merged)
}

fn check_priority(priority: &Priority) -> std::result::Result<(), String> {
    if priority.priority_key < 0 {
        return Err("PriorityKey is negative.".into());
    }
    if priority.fairness_key.len() > FAIRNESS_KEY_BYTES {
        return Err(format!(
            "FairnessKey is longer than {FAIRNESS_KEY_BYTES} bytes."
        ));
    }
    if priority.fairness_weight < 0.0 {
        return Err("FairnessWeight is negative.".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_timeout_is_the_longest() {
        let table = [(0, 0, 0), (5, 0, 5), (0, 5, 5), (3, 5, 3), (5, 3, 3)];
        for (a, b, expected) in table {
            assert_eq!(shorter(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn a_childs_priority_goes_before_its_parents() {
        let priority = |priority_key, fairness_key: &str, fairness_weight| Priority {
            priority_key,
            fairness_key: fairness_key.into(),
            fairness_weight,
        };
        let parent = priority(2, "tenant", 0.5);
        let table = [
            (None, None, None),
            (Some(&parent), None, Some(parent.clone())),
            (None, Some(priority(1, "", 0.0)), Some(priority(1, "", 0.0))),
            (
                Some(&parent),
                Some(priority(0, "", 0.0)),
                Some(parent.clone()),
            ),
            (
                Some(&parent),
                Some(priority(1, "", 3.0)),
                Some(priority(1, "tenant", 3.0)),
            ),
            (
                Some(&parent),
                Some(priority(0, "other", 0.0)),
                Some(priority(2, "other", 0.5)),
            ),
        ];
        for (parent, child, expected) in table {
            assert_eq!(merge(parent, child.as_ref()), expected);
        }
    }

    #[test]
    fn which_priorities_are_valid() {
        let table = [
            (Priority::default(), true),
            (
                Priority {
                    priority_key: -1,
                    ..Default::default()
                },
                false,
            ),
            (
                Priority {
                    fairness_weight: -0.1,
                    ..Default::default()
                },
                false,
            ),
            (
                Priority {
                    fairness_key: "k".repeat(64),
                    ..Default::default()
                },
                true,
            ),
            (
                Priority {
                    fairness_key: "k".repeat(65),
                    ..Default::default()
                },
                false,
            ),
        ];
        for (priority, valid) in table {
            assert_eq!(check_priority(&priority).is_ok(), valid, "{priority:?}");
        }
    }
}
