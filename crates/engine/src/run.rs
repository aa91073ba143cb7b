//! One run: its durable state, the events that are not projected yet, and how steps change it.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message;

use crate::credential::Terms;
use crate::effect::Effect;
use crate::error::{Error, Result};
use crate::governance::Governor;
use crate::limits::Limits;
use crate::proto::common::Principal;
use crate::proto::history::{HistoryEvent, history_event::Attributes};
use crate::record::{Cause, Flush, RunRecord, Step, StepKind};
use crate::state::{OutMessage, RunState, WorkflowTask};
use crate::time::{Time, timestamp};
use crate::update::Admitted;

/// Id of an event that waits for the workflow task in progress: it has had its effect, but not its
/// place in history.
pub const BUFFERED: i64 = -123;

/// Where ids come from. The engine has no randomness of its own.
pub trait Ids: Send {
    /// A fresh UUID in its textual form.
    fn uuid(&mut self) -> String;
}

/// The namespaces that there are, for commands that name one.
pub trait Namespaces: Sync {
    /// The id of a namespace by its name.
    fn id(&self, name: &str) -> Option<String>;
}

/// What a decision needs from outside, and what it asks for.
pub struct Cx<'a> {
    /// The time of this transition: never before the run's last one.
    pub now: Time,
    /// Fresh ids.
    pub ids: &'a mut dyn Ids,
    /// The limits in force.
    pub limits: &'a Limits,
    /// The run's namespace and the others.
    pub namespaces: &'a dyn Namespaces,
    /// Name of the run's namespace.
    pub namespace: &'a str,
    /// Decides what agents may do; none if nothing is governed.
    pub governor: Option<&'a dyn Governor>,
    /// What credentials attempts of activities are given; none if they get none.
    pub credentials: Option<&'a Terms>,
    /// Who and what causes it.
    pub cause: Cause,
    /// What to do after the commit.
    pub effects: Vec<Effect>,
    /// Runs of the same workflow id that begin with this transition.
    pub new_runs: Vec<Run>,
}

impl<'a> Cx<'a> {
    /// A context at `now`.
    pub fn new(
        now: Time,
        ids: &'a mut dyn Ids,
        limits: &'a Limits,
        namespaces: &'a dyn Namespaces,
        namespace: &'a str,
        cause: Cause,
    ) -> Self {
        Self {
            now,
            ids,
            limits,
            namespaces,
            namespace,
            governor: None,
            credentials: None,
            cause,
            effects: Vec::new(),
            new_runs: Vec::new(),
        }
    }

    /// Whoever causes it; none for the server itself.
    pub fn caller(&self) -> Option<Principal> {
        (!self.cause.authentication.is_empty()).then(|| Principal {
            r#type: self.cause.authentication.clone(),
            name: self.cause.principal.clone(),
        })
    }
}

/// One run in memory.
#[derive(Debug, Default)]
pub struct Run {
    /// The durable state.
    pub state: RunState,
    /// The newest events with their ids, encoded; older ones are in the store. Contiguous.
    pub tail: VecDeque<(i64, Bytes)>,
    /// A workflow task that exists only for updates. It is not durable: the first event that is
    /// recorded while it is there makes it an ordinary one.
    pub speculative: Option<WorkflowTask>,
    /// Updates that the workflow has not seen or not answered yet, in order. Not durable: the
    /// caller whose server dies asks again.
    pub admitted: Vec<Admitted>,
    /// The newest updates that were rejected, with why. Not durable.
    pub rejected: VecDeque<(String, crate::proto::failure::Failure)>,
    /// Attempts whose back-off ended by then have been offered to pollers. Not durable: a loaded run
    /// offers all again.
    pub offered_until: Time,
    /// Steps of the record that is being made.
    steps: Vec<Step>,
}

impl Run {
    /// A run that was stored.
    pub fn from_state(state: RunState) -> Self {
        Self {
            state,
            ..Self::default()
        }
    }

    /// Takes the record that the decisions since the last call made; none if nothing changed.
    pub fn take_record(&mut self, cx: &Cx<'_>) -> Option<RunRecord> {
        if self.steps.is_empty() {
            return None;
        }
        self.state.n += 1;
        self.state.time = cx.now;
        Some(RunRecord {
            run_id: self.state.run_id.clone(),
            n: self.state.n,
            time: cx.now,
            cause: Some(cx.cause.clone()),
            steps: std::mem::take(&mut self.steps),
            ..RunRecord::default()
        })
    }

    /// Applies a stored record: what replaying the journal does.
    pub fn apply_record(&mut self, record: &RunRecord) -> Result<()> {
        self.apply_record_seeing(record, &mut |_, _| {})
    }

    /// The same. `see` is shown each step, with the state before it.
    pub fn apply_record_seeing(
        &mut self,
        record: &RunRecord,
        see: &mut dyn FnMut(&RunState, &StepKind),
    ) -> Result<()> {
        for step in &record.steps {
            if let Some(kind) = &step.kind {
                see(&self.state, kind);
                self.apply(kind)?;
            }
        }
        if record.n != self.state.n + 1 {
            return Err(Error::Corrupt(format!(
                "run {}: record {} follows record {}",
                record.run_id, record.n, self.state.n
            )));
        }
        self.state.n = record.n;
        self.state.time = record.time;
        if !record.salt.is_empty() {
            self.state.salt = record.salt.clone();
        }
        Ok(())
    }

    /// Whether a record is being made.
    pub fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Steps of the record that is being made.
    pub fn step_count(&self) -> usize {
        self.steps.len()
    }

    /// The steps of the record that is being made, in order.
    pub(crate) fn steps_of_now(&self) -> &[Step] {
        &self.steps
    }

    /// Records a step and applies it.
    pub(crate) fn step(&mut self, kind: StepKind) {
        let applied = self.apply(&kind);
        debug_assert!(applied.is_ok(), "a decided step applies: {applied:?}");
        self.steps.push(kind.into());
    }

    /// Adds an event: to history, or to the buffer while a workflow task is in a worker's hands and
    /// the event is of the kind that waits for it. Returns its id, [`BUFFERED`] in that case.
    pub(crate) fn event(&mut self, cx: &Cx<'_>, attributes: Attributes) -> i64 {
        self.event_with(cx, attributes, |_| {})
    }

    /// [`Run::event`], with a chance to set what is not in the attributes.
    pub(crate) fn event_with(
        &mut self,
        cx: &Cx<'_>,
        attributes: Attributes,
        adorn: impl FnOnce(&mut HistoryEvent),
    ) -> i64 {
        self.make_speculative_task_real(cx);
        let buffer = waits_for_workflow_task(&attributes) && self.state.workflow_task_started();
        self.add_event(cx, attributes, buffer, adorn)
    }

    /// Adds an event to the buffer although no workflow task is started: it gets its place when the
    /// next one is scheduled.
    pub(crate) fn buffer_event(&mut self, cx: &Cx<'_>, attributes: Attributes) {
        self.buffer_event_with(cx, attributes, |_| {});
    }

    /// [`Run::buffer_event`], with a chance to set what is not in the attributes.
    pub(crate) fn buffer_event_with(
        &mut self,
        cx: &Cx<'_>,
        attributes: Attributes,
        adorn: impl FnOnce(&mut HistoryEvent),
    ) -> i64 {
        self.add_event(cx, attributes, true, adorn)
    }

    fn add_event(
        &mut self,
        cx: &Cx<'_>,
        attributes: Attributes,
        buffer: bool,
        adorn: impl FnOnce(&mut HistoryEvent),
    ) -> i64 {
        let mut event = HistoryEvent {
            event_id: if buffer {
                BUFFERED
            } else {
                self.state.next_event_id
            },
            event_time: Some(timestamp(cx.now)),
            event_type: attributes.event_type() as i32,
            task_id: task_id(self.state.next_event_id),
            attributes: Some(attributes),
            principal: cx.caller(),
            ..HistoryEvent::default()
        };
        adorn(&mut event);
        let bytes = Bytes::from(event.encode_to_vec());
        let kind = if buffer {
            self.apply_buffered(&event, bytes.clone());
            StepKind::Buffer(bytes)
        } else {
            self.apply_event(&event, bytes.clone());
            StepKind::Event(bytes)
        };
        self.steps.push(kind.into());
        event.event_id
    }

    /// Gives the buffered events their places. To be called when no workflow task is started.
    pub(crate) fn flush_buffer(&mut self) {
        if self.state.buffered.is_empty() {
            return;
        }
        let mut events: Vec<HistoryEvent> = self
            .state
            .buffered
            .iter()
            .filter_map(|bytes| HistoryEvent::decode(bytes.clone()).ok())
            .collect();
        // Outcomes come after everything else, so that a worker sees a signal that came during the
        // task before the result that came with it.
        events.sort_by_key(|event| event.attributes.as_ref().is_some_and(is_outcome));
        let mut started = std::collections::HashMap::new();
        for (id, event) in (self.state.next_event_id..).zip(&mut events) {
            event.event_id = id;
            event.task_id = task_id(id);
            wire_started_ids(event, &mut started);
        }
        let events = events
            .iter()
            .map(|event| Bytes::from(event.encode_to_vec()))
            .collect();
        self.step(StepKind::Flush(Flush { events }));
    }

    /// Drops the buffered events of a run that closes.
    pub(crate) fn drop_buffer(&mut self) {
        if !self.state.buffered.is_empty() {
            self.step(StepKind::Flush(Flush::default()));
        }
    }

    /// Sends a message to another run.
    pub(crate) fn send(&mut self, cx: &mut Cx<'_>, mut message: OutMessage) {
        message.id = self.state.next_message;
        cx.effects.push(Effect::Message {
            run_id: self.state.run_id.clone(),
            message: message.clone(),
        });
        self.step(StepKind::Send(message));
    }

    /// Changes the state by one step.
    pub fn apply(&mut self, kind: &StepKind) -> Result<()> {
        match kind {
            StepKind::Begin(begin) => {
                self.state = RunState {
                    namespace_id: begin.namespace_id.clone(),
                    workflow_id: begin.workflow_id.clone(),
                    run_id: begin.run_id.clone(),
                    start_request_id: begin.request_id.clone(),
                    initiator: begin.initiator.clone(),
                    agents: begin.agents.clone(),
                    status: crate::proto::enums::WorkflowExecutionStatus::Running as i32,
                    next_event_id: 1,
                    next_message: 1,
                    workflow_task_attempt: 1,
                    ..RunState::default()
                };
            }
            StepKind::Event(bytes) => {
                let event = decode_event(bytes)?;
                self.apply_event(&event, bytes.clone());
            }
            StepKind::Buffer(bytes) => {
                let event = decode_event(bytes)?;
                self.apply_buffered(&event, bytes.clone());
            }
            StepKind::Flush(flush) => self.apply_flush(flush)?,
            StepKind::WorkflowTask(task) => self.state.workflow_task = Some(task.clone()),
            StepKind::NoWorkflowTask(none) => {
                self.state.workflow_task = None;
                self.state.workflow_task_attempt = none.next_attempt;
                self.state.workflow_task_retry_at = none.retry_at;
            }
            StepKind::Attempt(change) => {
                if let Some(activity) = self.state.activities.get_mut(&change.scheduled_event_id) {
                    activity.attempt.clone_from(&change.attempt);
                }
            }
            StepKind::Decision(decision) => self.apply_decision(decision),
            StepKind::Approval(change) => self.apply_approval(change),
            StepKind::Sticky(sticky) => {
                self.state.sticky = (!sticky.queue.is_empty()).then(|| sticky.clone());
            }
            StepKind::Send(message) => {
                self.state.next_message = message.id + 1;
                self.state.outbox.insert(message.id, message.clone());
            }
            StepKind::Delivered(id) => {
                self.state.outbox.remove(id);
            }
            StepKind::Fork(fork) => {
                self.state = RunState::decode(fork.state.as_slice())
                    .map_err(|error| Error::Corrupt(format!("fork: {error}")))?;
            }
            StepKind::RequestId(id) => {
                if let Err(at) = self.state.signal_request_ids.binary_search(id) {
                    self.state.signal_request_ids.insert(at, id.clone());
                }
            }
            StepKind::HeartbeatSince(since) => self.state.heartbeat_since = *since,
            StepKind::ResetTo(run_id) => self.state.reset_run_id.clone_from(run_id),
            StepKind::Unbuffer(index) => {
                let index = *index as usize;
                if index < self.state.buffered.len() {
                    self.state.buffered.remove(index);
                }
            }
        }
        Ok(())
    }

    /// Adds an event of history and lets it have its effect. Also used to rebuild state from a
    /// history alone (reset).
    pub(crate) fn apply_event(&mut self, event: &HistoryEvent, bytes: Bytes) {
        self.push_event(event.event_id, bytes);
        self.apply_attributes(event);
    }

    fn push_event(&mut self, id: i64, bytes: Bytes) {
        self.state.next_event_id = id + 1;
        self.state.history_bytes += bytes.len() as i64;
        self.tail.push_back((id, bytes));
    }

    fn apply_buffered(&mut self, event: &HistoryEvent, bytes: Bytes) {
        self.state.buffered.push(bytes);
        self.apply_attributes(event);
    }

    fn apply_flush(&mut self, flush: &Flush) -> Result<()> {
        self.state.buffered.clear();
        for bytes in &flush.events {
            let event = decode_event(bytes)?;
            self.push_event(event.event_id, bytes.clone());
            self.learn_buffered_id(&event);
        }
        Ok(())
    }

    /// What a buffered event left open until it has its id.
    fn learn_buffered_id(&mut self, event: &HistoryEvent) {
        if let Some(Attributes::ChildWorkflowExecutionStartedEventAttributes(started)) =
            &event.attributes
            && let Some(child) = self.state.children.get_mut(&started.initiated_event_id)
        {
            child.started_event_id = event.event_id;
        }
        let request_id = match &event.attributes {
            Some(Attributes::WorkflowExecutionSignaledEventAttributes(a)) => &a.request_id,
            Some(Attributes::WorkflowExecutionOptionsUpdatedEventAttributes(a)) => {
                &a.attached_request_id
            }
            _ => return,
        };
        if let Some(info) = self.state.request_ids.get_mut(request_id) {
            info.event_id = event.event_id;
        }
    }

    /// The effect of one event on the state, entity by entity.
    fn apply_attributes(&mut self, event: &HistoryEvent) {
        use Attributes as A;
        let id = event.event_id;
        let Some(attributes) = &event.attributes else {
            return;
        };
        match attributes {
            A::WorkflowExecutionStartedEventAttributes(a) => self.apply_started(event, a),
            A::WorkflowExecutionCompletedEventAttributes(_)
            | A::WorkflowExecutionFailedEventAttributes(_)
            | A::WorkflowExecutionTimedOutEventAttributes(_)
            | A::WorkflowExecutionCanceledEventAttributes(_)
            | A::WorkflowExecutionTerminatedEventAttributes(_)
            | A::WorkflowExecutionContinuedAsNewEventAttributes(_) => self.apply_closed(event),
            A::WorkflowTaskScheduledEventAttributes(a) => {
                self.apply_workflow_task_scheduled(event, a)
            }
            A::WorkflowTaskStartedEventAttributes(a) => self.apply_workflow_task_started(event, a),
            A::WorkflowTaskCompletedEventAttributes(a) => {
                self.apply_workflow_task_completed(event, a)
            }
            A::WorkflowTaskFailedEventAttributes(a) => self.apply_workflow_task_failed(a),
            A::WorkflowTaskTimedOutEventAttributes(a) => self.apply_workflow_task_timed_out(a),
            A::ActivityTaskScheduledEventAttributes(a) => self.apply_activity_scheduled(event, a),
            A::ActivityTaskCancelRequestedEventAttributes(a) => {
                self.apply_activity_cancel_requested(id, a);
            }
            A::ActivityTaskCompletedEventAttributes(a) => {
                self.apply_activity_closed(a.scheduled_event_id)
            }
            A::ActivityTaskFailedEventAttributes(a) => {
                self.apply_activity_closed(a.scheduled_event_id)
            }
            A::ActivityTaskTimedOutEventAttributes(a) => {
                self.apply_activity_closed(a.scheduled_event_id)
            }
            A::ActivityTaskCanceledEventAttributes(a) => {
                self.apply_activity_closed(a.scheduled_event_id)
            }
            A::TimerStartedEventAttributes(a) => self.apply_timer_started(event, a),
            A::TimerFiredEventAttributes(a) => self.apply_timer_closed(&a.timer_id),
            A::TimerCanceledEventAttributes(a) => self.apply_timer_closed(&a.timer_id),
            A::WorkflowExecutionSignaledEventAttributes(a) => self.apply_signaled(id, a),
            A::WorkflowExecutionCancelRequestedEventAttributes(_) => {
                self.state.cancel_requested = true
            }
            A::StartChildWorkflowExecutionInitiatedEventAttributes(a) => {
                self.apply_child_initiated(event, a);
            }
            A::ChildWorkflowExecutionStartedEventAttributes(a) => self.apply_child_started(id, a),
            A::StartChildWorkflowExecutionFailedEventAttributes(a) => {
                self.apply_child_closed(a.initiated_event_id);
            }
            A::ChildWorkflowExecutionCompletedEventAttributes(a) => {
                self.apply_child_closed(a.initiated_event_id);
            }
            A::ChildWorkflowExecutionFailedEventAttributes(a) => {
                self.apply_child_closed(a.initiated_event_id);
            }
            A::ChildWorkflowExecutionCanceledEventAttributes(a) => {
                self.apply_child_closed(a.initiated_event_id);
            }
            A::ChildWorkflowExecutionTimedOutEventAttributes(a) => {
                self.apply_child_closed(a.initiated_event_id);
            }
            A::ChildWorkflowExecutionTerminatedEventAttributes(a) => {
                self.apply_child_closed(a.initiated_event_id);
            }
            A::SignalExternalWorkflowExecutionInitiatedEventAttributes(a) => {
                self.apply_external_signal_initiated(event, a);
            }
            A::SignalExternalWorkflowExecutionFailedEventAttributes(a) => {
                self.state.external_signals.remove(&a.initiated_event_id);
            }
            A::ExternalWorkflowExecutionSignaledEventAttributes(a) => {
                self.state.external_signals.remove(&a.initiated_event_id);
            }
            A::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(a) => {
                self.apply_external_cancel_initiated(event, a);
            }
            A::RequestCancelExternalWorkflowExecutionFailedEventAttributes(a) => {
                self.state.external_cancels.remove(&a.initiated_event_id);
            }
            A::ExternalWorkflowExecutionCancelRequestedEventAttributes(a) => {
                self.state.external_cancels.remove(&a.initiated_event_id);
            }
            A::UpsertWorkflowSearchAttributesEventAttributes(a) => self.apply_search_attributes(a),
            A::WorkflowPropertiesModifiedEventAttributes(a) => self.apply_properties(a),
            A::WorkflowExecutionUpdateAcceptedEventAttributes(a) => {
                self.apply_update_accepted(id, a)
            }
            A::WorkflowExecutionUpdateCompletedEventAttributes(a) => {
                self.apply_update_completed(id, a)
            }
            A::WorkflowExecutionOptionsUpdatedEventAttributes(a) => {
                self.apply_options_updated(id, a)
            }
            A::WorkflowExecutionPausedEventAttributes(a) => self.apply_paused(event, a),
            A::WorkflowExecutionUnpausedEventAttributes(_) => self.apply_unpaused(event),
            _ => {}
        }
    }
}

/// Clients know task ids as numbers that grow with the events.
fn task_id(event_id: i64) -> i64 {
    (1 << 20) + event_id
}

fn decode_event(bytes: &Bytes) -> Result<HistoryEvent> {
    HistoryEvent::decode(bytes.clone()).map_err(|error| Error::Corrupt(format!("event: {error}")))
}

/// Whether an event waits while a workflow task is in progress. What the task's own completion
/// makes does not wait, nor does what closes the run.
fn waits_for_workflow_task(attributes: &Attributes) -> bool {
    use Attributes as A;
    !matches!(
        attributes,
        A::WorkflowExecutionStartedEventAttributes(_)
            | A::WorkflowExecutionCompletedEventAttributes(_)
            | A::WorkflowExecutionFailedEventAttributes(_)
            | A::WorkflowExecutionTimedOutEventAttributes(_)
            | A::WorkflowExecutionTerminatedEventAttributes(_)
            | A::WorkflowExecutionContinuedAsNewEventAttributes(_)
            | A::WorkflowExecutionCanceledEventAttributes(_)
            | A::WorkflowTaskScheduledEventAttributes(_)
            | A::WorkflowTaskStartedEventAttributes(_)
            | A::WorkflowTaskCompletedEventAttributes(_)
            | A::WorkflowTaskFailedEventAttributes(_)
            | A::WorkflowTaskTimedOutEventAttributes(_)
    )
}

/// Whether an event is the outcome of something that the workflow waits for.
fn is_outcome(attributes: &Attributes) -> bool {
    use Attributes as A;
    matches!(
        attributes,
        A::ActivityTaskCompletedEventAttributes(_)
            | A::ActivityTaskFailedEventAttributes(_)
            | A::ActivityTaskCanceledEventAttributes(_)
            | A::ActivityTaskTimedOutEventAttributes(_)
            | A::ChildWorkflowExecutionCompletedEventAttributes(_)
            | A::ChildWorkflowExecutionFailedEventAttributes(_)
            | A::ChildWorkflowExecutionCanceledEventAttributes(_)
            | A::ChildWorkflowExecutionTimedOutEventAttributes(_)
            | A::ChildWorkflowExecutionTerminatedEventAttributes(_)
    )
}

/// Puts the id of a started event that was buffered into the outcome that was buffered with it.
fn wire_started_ids(event: &mut HistoryEvent, started: &mut std::collections::HashMap<i64, i64>) {
    use Attributes as A;
    let id = event.event_id;
    let (of, reference) = match &mut event.attributes {
        Some(A::ActivityTaskStartedEventAttributes(a)) => {
            started.insert(a.scheduled_event_id, id);
            return;
        }
        Some(A::ChildWorkflowExecutionStartedEventAttributes(a)) => {
            started.insert(a.initiated_event_id, id);
            return;
        }
        Some(A::ActivityTaskCompletedEventAttributes(a)) => {
            (a.scheduled_event_id, &mut a.started_event_id)
        }
        Some(A::ActivityTaskFailedEventAttributes(a)) => {
            (a.scheduled_event_id, &mut a.started_event_id)
        }
        Some(A::ActivityTaskCanceledEventAttributes(a)) => {
            (a.scheduled_event_id, &mut a.started_event_id)
        }
        Some(A::ActivityTaskTimedOutEventAttributes(a)) => {
            (a.scheduled_event_id, &mut a.started_event_id)
        }
        Some(A::ChildWorkflowExecutionCompletedEventAttributes(a)) => {
            (a.initiated_event_id, &mut a.started_event_id)
        }
        Some(A::ChildWorkflowExecutionFailedEventAttributes(a)) => {
            (a.initiated_event_id, &mut a.started_event_id)
        }
        Some(A::ChildWorkflowExecutionCanceledEventAttributes(a)) => {
            (a.initiated_event_id, &mut a.started_event_id)
        }
        Some(A::ChildWorkflowExecutionTimedOutEventAttributes(a)) => {
            (a.initiated_event_id, &mut a.started_event_id)
        }
        Some(A::ChildWorkflowExecutionTerminatedEventAttributes(a)) => {
            (a.initiated_event_id, &mut a.started_event_id)
        }
        _ => return,
    };
    if let Some(started) = started.get(&of) {
        *reference = *started;
    }
}
