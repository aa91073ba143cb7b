//! What the report says about events, for people: what a tool was called with, what it answered, why
//! something failed.

use prost::Message;
use steadfast_engine::proto::common::{Payload, Payloads};
use steadfast_engine::proto::failure::Failure;
use steadfast_engine::proto::history::{HistoryEvent, history_event::Attributes};
use steadfast_ledger::Entry;
use steadfast_ledger::entry::MAX_ITEMS;

use super::{ExportError, READ_BYTES, Source};
use crate::evidence::ENCODING;

/// Characters of one payload. The history has all of it.
const MAX_PAYLOAD: usize = 500;

/// Causes of a failure that are told.
const MAX_CAUSES: usize = 3;

/// Types of events that there is nothing more to say about.
const PLAIN: [&str; 6] = [
    "WORKFLOW_TASK_SCHEDULED",
    "WORKFLOW_TASK_STARTED",
    "WORKFLOW_TASK_COMPLETED",
    "WORKFLOW_TASK_TIMED_OUT",
    "ACTIVITY_TASK_STARTED",
    "TIMER_FIRED",
];

impl Source<'_> {
    /// What there is to say about the events of an entry. Nothing, if they are not there any more.
    pub(super) async fn details(
        &self,
        entry: &Entry<'_>,
    ) -> Result<Vec<(i64, String)>, ExportError> {
        let telling = entry
            .events
            .iter()
            .filter(|event| !PLAIN.contains(&event.event_type.as_ref()));
        let ids: Vec<i64> = telling.map(|event| event.id).collect();
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else {
            return Ok(Vec::new());
        };
        if ids.len() > MAX_ITEMS || entry.run_id.is_empty() {
            return Ok(Vec::new());
        }
        let (namespace, run) = (self.namespace_id, &entry.run_id);
        let read = self
            .store
            .read_history(namespace, run, *first, *last, READ_BYTES);
        let stored = read.await?;
        let events = stored.iter().filter(|(id, _)| ids.contains(id));
        Ok(events
            .filter_map(|(id, bytes)| {
                let readable = self.sealer.readable(bytes).ok()?;
                let event = HistoryEvent::decode(readable.as_ref()).ok()?;
                detail(&event).map(|text| (*id, text))
            })
            .collect())
    }
}

/// What there is to say about an event.
fn detail(event: &HistoryEvent) -> Option<String> {
    use Attributes as A;
    let text = match event.attributes.as_ref()? {
        A::WorkflowExecutionStartedEventAttributes(of) => {
            call(name(&of.workflow_type), of.input.as_ref())
        }
        A::WorkflowExecutionCompletedEventAttributes(of) => payloads(of.result.as_ref()),
        A::WorkflowExecutionFailedEventAttributes(of) => failure(of.failure.as_ref()),
        A::WorkflowExecutionCanceledEventAttributes(of) => payloads(of.details.as_ref()),
        A::WorkflowExecutionTerminatedEventAttributes(of) => of.reason.clone(),
        A::WorkflowExecutionContinuedAsNewEventAttributes(of) => {
            call(name(&of.workflow_type), of.input.as_ref())
        }
        A::WorkflowExecutionSignaledEventAttributes(of) => {
            call(of.signal_name.clone(), of.input.as_ref())
        }
        A::WorkflowExecutionCancelRequestedEventAttributes(of) => of.cause.clone(),
        A::WorkflowExecutionUpdateAcceptedEventAttributes(of) => {
            let input = of.accepted_request.as_ref()?.input.as_ref()?;
            call(input.name.clone(), input.args.as_ref())
        }
        A::WorkflowExecutionUpdateCompletedEventAttributes(of) => {
            use steadfast_engine::proto::update::outcome::Value;
            match of.outcome.as_ref()?.value.as_ref()? {
                Value::Success(result) => payloads(Some(result)),
                Value::Failure(why) => failure(Some(why)),
            }
        }
        A::WorkflowTaskFailedEventAttributes(of) => failure(of.failure.as_ref()),
        A::ActivityTaskScheduledEventAttributes(of) => {
            let activity = of.activity_type.as_ref();
            let activity = activity.map_or_else(String::new, |of| of.name.clone());
            call(activity, of.input.as_ref())
        }
        A::ActivityTaskCompletedEventAttributes(of) => payloads(of.result.as_ref()),
        A::ActivityTaskFailedEventAttributes(of) => failure(of.failure.as_ref()),
        A::ActivityTaskTimedOutEventAttributes(of) => failure(of.failure.as_ref()),
        A::ActivityTaskCanceledEventAttributes(of) => payloads(of.details.as_ref()),
        A::TimerStartedEventAttributes(of) => {
            let timeout = of.start_to_fire_timeout.as_ref()?;
            format!("{} for {} s", of.timer_id, timeout.seconds)
        }
        A::MarkerRecordedEventAttributes(of) => of.marker_name.clone(),
        A::StartChildWorkflowExecutionInitiatedEventAttributes(of) => {
            let called = call(name(&of.workflow_type), of.input.as_ref());
            format!("{}: {called}", of.workflow_id)
        }
        A::ChildWorkflowExecutionCompletedEventAttributes(of) => payloads(of.result.as_ref()),
        A::ChildWorkflowExecutionFailedEventAttributes(of) => failure(of.failure.as_ref()),
        A::SignalExternalWorkflowExecutionInitiatedEventAttributes(of) => {
            let target = of.workflow_execution.as_ref();
            let target = target.map_or("", |of| of.workflow_id.as_str());
            format!(
                "{target}: {}",
                call(of.signal_name.clone(), of.input.as_ref())
            )
        }
        _ => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}

fn name(workflow_type: &Option<steadfast_engine::proto::common::WorkflowType>) -> String {
    workflow_type
        .as_ref()
        .map_or_else(String::new, |of| of.name.clone())
}

fn call(name: String, input: Option<&Payloads>) -> String {
    format!("{name}({})", payloads(input))
}

fn payloads(payloads: Option<&Payloads>) -> String {
    let payloads = payloads.map_or(&[][..], |of| &of.payloads);
    payloads.iter().map(payload).collect::<Vec<_>>().join(", ")
}

/// A payload as a person can read it: text if it says that it is text.
fn payload(payload: &Payload) -> String {
    let encoding = payload.metadata.get("encoding").map(Vec::as_slice);
    let is_text = encoding.is_some_and(|of| of.starts_with(b"json/") || of == b"text/plain");
    match (encoding, std::str::from_utf8(&payload.data)) {
        (Some(b"binary/null"), _) => "null".to_owned(),
        (Some(of), _) if of == ENCODING.as_bytes() => "erased".to_owned(),
        (_, Ok(text)) if is_text => clipped(text),
        (encoding, _) => {
            let encoding = String::from_utf8_lossy(encoding.unwrap_or(b"payload")).into_owned();
            format!("{}, {} bytes", clipped(&encoding), payload.data.len())
        }
    }
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(MAX_PAYLOAD) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The messages of a failure and of what caused it.
fn failure(failure: Option<&Failure>) -> String {
    let failures = std::iter::successors(failure, |failure| failure.cause.as_deref());
    let messages = failures.take(MAX_CAUSES + 1);
    let messages: Vec<String> = messages.map(|failure| clipped(&failure.message)).collect();
    messages.join(", because: ")
}
