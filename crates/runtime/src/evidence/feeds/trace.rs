//! A run's records and events to spans.
//!
//! A span is given out when it ended: the attempts of a tool call as they end, the run's own span
//! last. What is kept meanwhile is what is open, so a long run needs no more memory than a short
//! one.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use steadfast_engine::RunRecord;
use steadfast_engine::proto::failure::{Failure, failure::FailureInfo};
use steadfast_engine::proto::history::{HistoryEvent, history_event::Attributes as Of};
use steadfast_engine::record::{ActivityAttempt, StepKind};
use steadfast_engine::state::RunState;
use steadfast_engine::time::time;

use super::otlp::{Attributes, Span, SpanEvent, SpanId, TraceId};
use crate::error::{Result, RuntimeError};
use crate::evidence::failure_kind;

/// Events of a run's span that are kept, as the SDKs of OpenTelemetry do by default.
const MAX_EVENTS: usize = 128;

/// What became of what the run did not wait for.
const ABANDONED: &str = "abandoned";

/// What all spans of a run have in common.
#[derive(Clone)]
pub struct Session {
    /// The trace.
    pub trace_id: TraceId,
    /// The span of the parent in which the run is a child.
    pub parent: Option<SpanId>,
    /// The run that it continues, retries or was reset from.
    pub links: Vec<(TraceId, SpanId)>,
    /// Workflow id.
    pub workflow_id: String,
    /// Run id.
    pub run_id: String,
    /// Workflow type.
    pub agent: String,
}

/// Makes the spans of one run, record by record.
pub struct Tracer {
    session: Session,
    /// The id of the next event of the run.
    pub next_event_id: i64,
    root: Span,
    activities: BTreeMap<i64, Activity>,
    /// Timers, children and workflow tasks, by the event that began them.
    open: BTreeMap<i64, Span>,
    ended: Vec<Span>,
    /// Number of the record that is being read.
    n: u64,
}

/// A pending activity.
#[derive(Default)]
struct Activity {
    id: String,
    tool: String,
    task_queue: String,
    attempt: i32,
    scheduled: i64,
    started: i64,
    worker: String,
}

/// How something ended.
struct Outcome {
    what: &'static str,
    error: String,
}

impl Outcome {
    fn good(what: &'static str) -> Self {
        let error = String::new();
        Self { what, error }
    }

    fn bad(what: &'static str, error: impl Into<String>) -> Self {
        let error = error.into();
        Self { what, error }
    }

    /// An attempt's end, by its failure. What a failure says is a payload, and stays out.
    fn of(failure: Option<&Failure>) -> Self {
        let error = failure.map_or("other".into(), failure_kind);
        let what = match error.starts_with("timeout/") {
            true => "timed_out",
            false => "failed",
        };
        Self::bad(what, error)
    }
}

impl Tracer {
    /// For a run whose first record is the next one.
    pub fn new(session: Session) -> Self {
        let mut root = span(&session, format!("invoke_agent {}", session.agent), 0);
        root.span_id = SpanId::of_run(&session.run_id);
        root.parent = session.parent;
        root.links.clone_from(&session.links);
        root.attributes
            .text("gen_ai.operation.name", "invoke_agent");
        common(&mut root.attributes, &session);
        Self {
            session,
            next_event_id: 1,
            root,
            activities: BTreeMap::new(),
            open: BTreeMap::new(),
            ended: Vec::new(),
            n: 0,
        }
    }

    /// Reads the next record, which has its events in it.
    pub fn apply(&mut self, record: &RunRecord) -> Result<()> {
        if self.n == 0 {
            self.root.start = record.time;
            let principal = record.cause.as_ref().map_or("", |cause| &cause.principal);
            self.root.attributes.text("steadfast.principal", principal);
        }
        self.n = record.n;
        for step in &record.steps {
            match &step.kind {
                Some(StepKind::Fork(fork)) => {
                    let state = RunState::decode(fork.state.as_slice());
                    self.fork(state.map_err(|error| self.damaged(&error.to_string()))?);
                }
                Some(StepKind::Event(bytes)) => self.event(bytes, record.time)?,
                Some(StepKind::Flush(flush)) => {
                    for bytes in &flush.events {
                        self.event(bytes, record.time)?;
                    }
                }
                Some(StepKind::Attempt(change)) => self.attempt(change, record.time),
                _ => {}
            }
        }
        Ok(())
    }

    /// The spans that ended since the last call.
    pub fn take(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.ended)
    }

    fn damaged(&self, why: &str) -> RuntimeError {
        let run_id = &self.session.run_id;
        RuntimeError::Internal(format!("run {run_id} cannot be read: {why}"))
    }

    /// The run begins with the state of another one: its pending activities go on here.
    fn fork(&mut self, state: RunState) {
        self.next_event_id = state.next_event_id;
        for (id, pending) in state.activities {
            let mut activity = Activity {
                attempt: 1,
                scheduled: pending.scheduled_time,
                ..Activity::default()
            };
            if let Some(scheduled) = pending.scheduled {
                activity.id = scheduled.activity_id;
                activity.tool = scheduled.activity_type.unwrap_or_default().name;
                activity.task_queue = scheduled.task_queue.unwrap_or_default().name;
            }
            if let Some(attempt) = pending.attempt {
                activity.attempt = attempt.number;
                activity.scheduled = attempt.scheduled_time;
                activity.started = attempt.started_time;
                activity.worker = attempt.identity;
            }
            self.activities.insert(id, activity);
        }
    }

    /// An attempt was handed out, or the one before it ended.
    fn attempt(&mut self, change: &ActivityAttempt, now: i64) {
        let id = change.scheduled_event_id;
        let Some(attempt) = &change.attempt else {
            return;
        };
        let Some(activity) = self.activities.get(&id) else {
            return;
        };
        if activity.attempt != attempt.number {
            let outcome = Outcome::of(attempt.last_failure.as_ref());
            self.attempt_ended(id, now, outcome);
        }
        if let Some(activity) = self.activities.get_mut(&id) {
            activity.attempt = attempt.number;
            activity.scheduled = attempt.scheduled_time;
            activity.started = attempt.started_time;
            activity.worker = match attempt.started_time {
                0 => String::new(),
                _ => attempt.identity.clone(),
            };
        }
    }

    fn attempt_ended(&mut self, scheduled_event_id: i64, now: i64, outcome: Outcome) {
        let Some(activity) = self.activities.get(&scheduled_event_id) else {
            return;
        };
        let start = match activity.started {
            // Nobody had it: it waited in vain, or there was no need for it.
            0 if outcome.error.is_empty() => return,
            0 => activity.scheduled.min(now),
            started => started,
        };
        let mut span = span(
            &self.session,
            format!("execute_tool {}", activity.tool),
            start,
        );
        span.span_id = SpanId::new(&self.session.run_id, scheduled_event_id, activity.attempt);
        span.attributes
            .text("gen_ai.operation.name", "execute_tool")
            .text("gen_ai.tool.name", &activity.tool)
            .text("gen_ai.tool.call.id", &activity.id);
        common(&mut span.attributes, &self.session);
        span.attributes
            .text("temporalActivityID", &activity.id)
            .number("steadfast.event_id", scheduled_event_id)
            .number("steadfast.attempt", activity.attempt.into())
            .text("steadfast.task_queue", &activity.task_queue)
            .text("steadfast.worker", &activity.worker);
        self.end(span, now, outcome);
    }

    fn activity_closed(&mut self, scheduled_event_id: i64, now: i64, outcome: Outcome) {
        self.attempt_ended(scheduled_event_id, now, outcome);
        self.activities.remove(&scheduled_event_id);
    }

    fn end(&mut self, mut span: Span, now: i64, outcome: Outcome) {
        let n = i64::try_from(self.n).unwrap_or(i64::MAX);
        span.end = now;
        span.failed = !outcome.error.is_empty();
        span.attributes
            .text("steadfast.outcome", outcome.what)
            .text("error.type", &outcome.error)
            .number("steadfast.entry.n", n);
        self.ended.push(span);
    }

    /// Begins a span for what an event began.
    fn begin(&mut self, event_id: i64, name: String, now: i64, add: impl FnOnce(&mut Attributes)) {
        let mut span = span(&self.session, name, now);
        span.span_id = SpanId::new(&self.session.run_id, event_id, 0);
        add(&mut span.attributes);
        span.attributes.number("steadfast.event_id", event_id);
        self.open.insert(event_id, span);
    }

    fn close(&mut self, event_id: i64, now: i64, outcome: Outcome) {
        if let Some(span) = self.open.remove(&event_id) {
            self.end(span, now, outcome);
        }
    }

    /// Something that happened to the run.
    fn happened(&mut self, name: &'static str, time: i64, add: impl FnOnce(&mut Attributes)) {
        if self.root.events.len() >= MAX_EVENTS {
            self.root.dropped_events = self.root.dropped_events.saturating_add(1);
            return;
        }
        let mut attributes = Attributes::default();
        add(&mut attributes);
        self.root.events.push(SpanEvent {
            time,
            name,
            attributes,
        });
    }

    fn event(&mut self, bytes: &Bytes, record_time: i64) -> Result<()> {
        let event = HistoryEvent::decode(bytes.clone());
        let event = event.map_err(|error| self.damaged(&error.to_string()))?;
        let id = event.event_id;
        self.next_event_id = id + 1;
        let now = event.event_time.as_ref().map_or(record_time, time);
        let Some(attributes) = event.attributes else {
            return Ok(());
        };
        if let Some(outcome) = closing(&attributes) {
            self.finish(now, outcome);
            return Ok(());
        }
        self.activity_event(id, now, &attributes);
        self.child_event(id, now, &attributes);
        self.own_event(id, now, &attributes);
        Ok(())
    }

    fn activity_event(&mut self, id: i64, now: i64, attributes: &Of) {
        match attributes {
            Of::ActivityTaskScheduledEventAttributes(a) => {
                let activity = Activity {
                    id: a.activity_id.clone(),
                    tool: name(a.activity_type.as_ref().map(|of| &of.name)),
                    task_queue: name(a.task_queue.as_ref().map(|of| &of.name)),
                    attempt: 1,
                    scheduled: now,
                    ..Activity::default()
                };
                self.activities.insert(id, activity);
            }
            Of::ActivityTaskCompletedEventAttributes(a) => {
                self.activity_closed(a.scheduled_event_id, now, Outcome::good("completed"));
            }
            Of::ActivityTaskFailedEventAttributes(a) => {
                let outcome = Outcome::of(a.failure.as_ref());
                self.activity_closed(a.scheduled_event_id, now, outcome);
            }
            Of::ActivityTaskTimedOutEventAttributes(a) => {
                let outcome = Outcome::of(a.failure.as_ref());
                self.activity_closed(a.scheduled_event_id, now, outcome);
            }
            Of::ActivityTaskCanceledEventAttributes(a) => {
                self.activity_closed(a.scheduled_event_id, now, Outcome::good("canceled"));
            }
            _ => {}
        }
    }

    fn child_event(&mut self, id: i64, now: i64, attributes: &Of) {
        match attributes {
            Of::StartChildWorkflowExecutionInitiatedEventAttributes(a) => {
                let agent = name(a.workflow_type.as_ref().map(|of| &of.name));
                self.begin(id, format!("child {agent}"), now, |attributes| {
                    attributes
                        .text("gen_ai.agent.name", &agent)
                        .text("gen_ai.conversation.id", &a.workflow_id);
                });
            }
            Of::StartChildWorkflowExecutionFailedEventAttributes(a) => {
                self.close(a.initiated_event_id, now, Outcome::bad("failed", "start"));
            }
            Of::ChildWorkflowExecutionCompletedEventAttributes(a) => {
                self.close(a.initiated_event_id, now, Outcome::good("completed"));
            }
            Of::ChildWorkflowExecutionFailedEventAttributes(a) => {
                let outcome = Outcome::bad("failed", run_failure(a.failure.as_ref()));
                self.close(a.initiated_event_id, now, outcome);
            }
            Of::ChildWorkflowExecutionCanceledEventAttributes(a) => {
                self.close(a.initiated_event_id, now, Outcome::good("canceled"));
            }
            Of::ChildWorkflowExecutionTimedOutEventAttributes(a) => {
                let outcome = Outcome::bad("timed_out", "timeout");
                self.close(a.initiated_event_id, now, outcome);
            }
            Of::ChildWorkflowExecutionTerminatedEventAttributes(a) => {
                let outcome = Outcome::bad("terminated", "terminated");
                self.close(a.initiated_event_id, now, outcome);
            }
            _ => {}
        }
    }

    /// Timers, workflow tasks, and what came from outside.
    fn own_event(&mut self, id: i64, now: i64, attributes: &Of) {
        match attributes {
            Of::TimerStartedEventAttributes(a) => {
                self.begin(id, "timer".into(), now, |attributes| {
                    attributes.text("steadfast.timer.id", &a.timer_id);
                });
            }
            Of::TimerFiredEventAttributes(a) => {
                self.close(a.started_event_id, now, Outcome::good("fired"));
            }
            Of::TimerCanceledEventAttributes(a) => {
                self.close(a.started_event_id, now, Outcome::good("canceled"));
            }
            Of::WorkflowTaskStartedEventAttributes(a) => {
                self.begin(id, "workflow_task".into(), now, |attributes| {
                    attributes.text("steadfast.worker", &a.identity);
                });
            }
            Of::WorkflowTaskCompletedEventAttributes(a) => {
                self.close(a.started_event_id, now, Outcome::good("completed"));
            }
            Of::WorkflowTaskFailedEventAttributes(a) => {
                let cause = a.cause().as_str_name();
                let cause = cause.trim_start_matches("WORKFLOW_TASK_FAILED_CAUSE_");
                self.close(a.started_event_id, now, Outcome::bad("failed", cause));
            }
            Of::WorkflowTaskTimedOutEventAttributes(a) => {
                let outcome = Outcome::bad("timed_out", "timeout");
                self.close(a.started_event_id, now, outcome);
            }
            Of::WorkflowExecutionSignaledEventAttributes(a) => {
                self.happened("signal", now, |attributes| {
                    attributes
                        .text("steadfast.signal.name", &a.signal_name)
                        .text("steadfast.principal", &a.identity);
                });
            }
            Of::WorkflowExecutionCancelRequestedEventAttributes(a) => {
                self.happened("cancel_requested", now, |attributes| {
                    attributes.text("steadfast.principal", &a.identity);
                });
            }
            Of::WorkflowExecutionUpdateAcceptedEventAttributes(a) => {
                let request = a.accepted_request.as_ref();
                self.happened("update", now, |attributes| {
                    if let Some(input) = request.and_then(|request| request.input.as_ref()) {
                        attributes.text("steadfast.update.name", &input.name);
                    }
                    if let Some(meta) = request.and_then(|request| request.meta.as_ref()) {
                        attributes.text("steadfast.principal", &meta.identity);
                    }
                });
            }
            Of::MarkerRecordedEventAttributes(a) => {
                self.happened("marker", now, |attributes| {
                    attributes.text("steadfast.marker.name", &a.marker_name);
                });
            }
            _ => {}
        }
    }

    /// The run closed, and with it what is still open.
    fn finish(&mut self, now: i64, outcome: Outcome) {
        while let Some(id) = self.activities.keys().next().copied() {
            self.activity_closed(id, now, Outcome::good(ABANDONED));
        }
        while let Some((_, span)) = self.open.pop_first() {
            self.end(span, now, Outcome::good(ABANDONED));
        }
        self.end(self.root.clone(), now, outcome);
    }
}

/// A child of the run's own span.
fn span(session: &Session, name: String, start: i64) -> Span {
    let run = SpanId::of_run(&session.run_id);
    Span {
        trace_id: session.trace_id,
        span_id: run,
        parent: Some(run),
        links: Vec::new(),
        name,
        start,
        end: start,
        attributes: Attributes::default(),
        events: Vec::new(),
        dropped_events: 0,
        failed: false,
    }
}

/// What spans of runs and of attempts can be found by. The names in camel case are those of
/// Temporal's SDKs.
fn common(attributes: &mut Attributes, session: &Session) {
    attributes
        .text("gen_ai.agent.name", &session.agent)
        .text("gen_ai.conversation.id", &session.workflow_id)
        .text("temporalWorkflowID", &session.workflow_id)
        .text("temporalRunID", &session.run_id);
}

fn name(name: Option<&String>) -> String {
    name.cloned().unwrap_or_default()
}

/// What a run failed with, where that is what a tool call or a child of it failed with.
fn run_failure(failure: Option<&Failure>) -> String {
    let Some(mut failure) = failure else {
        return "other".into();
    };
    use FailureInfo::{ActivityFailureInfo, ChildWorkflowExecutionFailureInfo};
    while let Some(ActivityFailureInfo(_) | ChildWorkflowExecutionFailureInfo(_)) =
        failure.failure_info
        && let Some(cause) = failure.cause.as_deref()
    {
        failure = cause;
    }
    failure_kind(failure).into_owned()
}

/// How an event ends its run, if it does.
fn closing(attributes: &Of) -> Option<Outcome> {
    Some(match attributes {
        Of::WorkflowExecutionCompletedEventAttributes(_) => Outcome::good("completed"),
        Of::WorkflowExecutionContinuedAsNewEventAttributes(_) => Outcome::good("continued_as_new"),
        Of::WorkflowExecutionCanceledEventAttributes(_) => Outcome::good("canceled"),
        Of::WorkflowExecutionFailedEventAttributes(a) => {
            Outcome::bad("failed", run_failure(a.failure.as_ref()))
        }
        Of::WorkflowExecutionTimedOutEventAttributes(_) => Outcome::bad("timed_out", "timeout"),
        Of::WorkflowExecutionTerminatedEventAttributes(_) => {
            Outcome::bad("terminated", "terminated")
        }
        _ => return None,
    })
}
