//! What happened, in plain words.

use maud::{Markup, html};
use steadfast_engine::proto::common::{Payloads, WorkflowExecution};
use steadfast_engine::proto::enums::EventType;
use steadfast_engine::proto::failure::Failure;
use steadfast_engine::proto::history::{HistoryEvent, history_event::Attributes as Of};
use steadfast_engine::record::{Decision, Verdict};
use steadfast_engine::state::{Approval, Vote};

use super::story::{Item, Story};
use crate::console::{Visit, message, payload, text, times};

/// Most characters of an argument or a result within a sentence.
const MAX_BRIEF: usize = 70;

/// Most characters of a failure within a sentence.
const MAX_REASON: usize = 200;

/// A call that waits so long for a worker, in nanoseconds, is said to have waited.
const WAITED: i64 = 1_000_000_000;

/// A sentence about something that happened.
pub struct Said {
    /// What kind of thing it is: the class of its mark.
    pub class: &'static str,
    pub text: Markup,
    /// Whether it is only between the agent and its workers.
    pub is_plumbing: bool,
}

fn said(class: &'static str, text: Markup) -> Said {
    Said {
        class,
        text,
        is_plumbing: false,
    }
}

fn plumbing(text: Markup) -> Said {
    Said {
        class: "plumbing",
        text,
        is_plumbing: true,
    }
}

/// What an item says.
pub fn of(item: &Item<'_>, story: &Story, namespace: &str) -> Said {
    match item {
        Item::Event(event) => of_event(event, story, namespace),
        Item::Started(of, _) => {
            let attempt = of.attempt.clone().unwrap_or_default();
            let tool = story.tool_name(of.scheduled_event_id);
            let text = html! {
                "Attempt " (attempt.number) " of " (strong(tool)) " handed to worker " (text::prose(&attempt.identity, 60))
            };
            // The first one goes without saying, unless the call waited for it.
            let scheduled = story
                .event(of.scheduled_event_id)
                .map(|of| times::nanos(&of.event_time));
            let waited = scheduled.map_or(0, |scheduled| {
                attempt.started_time.saturating_sub(scheduled)
            });
            Said {
                is_plumbing: attempt.number == 1 && waited < WAITED,
                ..said("tool", text)
            }
        }
        Item::Failed(of, failure, _) => {
            let attempt = of.attempt.clone().unwrap_or_default();
            let tool = story.tool_name(of.scheduled_event_id);
            let text = html! {
                "Attempt " (attempt.number - 1) " of " (strong(tool)) " failed: " (reason(failure))
                ". The next one comes after " (times::span(attempt.backoff))
                details { summary { "What went wrong" } (message::failure(failure)) }
            };
            said("bad", text)
        }
        Item::Decided(decision, _) => of_decision(decision),
        Item::Approval {
            tool, now, before, ..
        } => of_approval(tool, now, *before),
    }
}

fn of_decision(decision: &Decision) -> Said {
    let by = html! {
        @if decision.policies.is_empty() { "no policy permits it" }
        @else { "by " @for (place, id) in decision.policies.iter().enumerate() { @if place > 0 { ", " } span.policy { (text::name(id)) } } }
    };
    let tool = strong(&decision.activity_type);
    match Verdict::try_from(decision.verdict) {
        Ok(Verdict::Allow) => plumbing(html! { (tool) " is permitted " (by) }),
        Ok(Verdict::Approval) => plumbing(html! { (tool) " needs approval " (by) }),
        _ => said("bad", html! { (tool) " is refused: " (by) }),
    }
}

fn of_approval(tool: &str, now: &Approval, before: Option<&Approval>) -> Said {
    let seen = before.map_or(0, |of| of.votes.len());
    let votes: Vec<&Vote> = now.votes.iter().skip(seen).collect();
    let is_released = now.released != 0 && before.is_none_or(|of| of.released == 0);
    let class = match votes.iter().any(|vote| !vote.approves) {
        true => "bad",
        false if is_released => "good",
        false => "people",
    };
    let text = html! {
        @if before.is_none() {
            (strong(tool)) " waits for approval: " (needed(now))
            " (" @for (place, id) in now.policies.iter().enumerate() { @if place > 0 { ", " } span.policy { (text::name(id)) } } ")"
        }
        @for (place, vote) in votes.iter().enumerate() {
            @if place > 0 || before.is_none() { ". " }
            (strong(&vote.principal)) @if vote.approves { " approved " } @else { " denied " } (text::name(tool))
            @if !vote.comment.is_empty() { ": “" (text::prose(&vote.comment, 300)) "”" }
        }
        @if is_released {
            @if !votes.is_empty() { ". " }
            (strong(tool)) " goes on"
        }
        @if before.is_some() && votes.is_empty() && !is_released { "What " (strong(tool)) " needs has changed: " (needed(now)) }
    };
    said(class, text)
}

/// Who has to approve.
pub fn needed(approval: &Approval) -> Markup {
    let people = text::counted(approval.quorum as usize, "person", "people");
    html! {
        (people)
        @if !approval.groups.is_empty() {
            ", with one of each of "
            @for (place, group) in approval.groups.iter().enumerate() {
                @if place > 0 { ", " } b { (text::name(group)) }
            }
        }
    }
}

fn strong(name: &str) -> Markup {
    html! { b { (text::name(name)) } }
}

fn reason(failure: &Failure) -> Markup {
    text::prose(&message::reason(failure), MAX_REASON)
}

fn maybe(failure: Option<&Failure>) -> Markup {
    failure.map_or_else(|| html! {}, |of| html! { ": " (reason(of)) })
}

fn brief(payloads: Option<&Payloads>) -> Markup {
    let all = payloads.map_or(&[][..], |of| &of.payloads);
    let shown: Vec<String> = all
        .iter()
        .take(3)
        .map(|of| payload::brief(of, MAX_BRIEF))
        .collect();
    html! {
        @if !shown.is_empty() { " " span.brief { (shown.join(", ")) @if all.len() > 3 { ", …" } } }
    }
}

fn name(of: Option<&String>) -> &str {
    of.map_or("", |of| of.as_str())
}

fn other(namespace: &str, execution: Option<&WorkflowExecution>) -> Markup {
    let Some(of) = execution else {
        return html! { "another session" };
    };
    html! { a href=(Visit::session(namespace, &of.workflow_id, &of.run_id)) { (text::name(&of.workflow_id)) } }
}

fn of_event(event: &HistoryEvent, story: &Story, namespace: &str) -> Said {
    let Some(attributes) = &event.attributes else {
        return said("ended", html! { "An event without content" });
    };
    of_session(attributes, namespace)
        .or_else(|| of_task(attributes))
        .or_else(|| of_tool(attributes, story))
        .or_else(|| of_child(attributes, namespace))
        .or_else(|| of_others(attributes, story, namespace))
        .unwrap_or_else(|| said("ended", html! { (type_name(event.event_type)) }))
}

/// The session's own beginning and end.
fn of_session(attributes: &Of, namespace: &str) -> Option<Said> {
    Some(match attributes {
        Of::WorkflowExecutionStartedEventAttributes(a) => {
            let agent = name(a.workflow_type.as_ref().map(|of| &of.name));
            let text = html! {
                "Session of " (strong(agent)) " started" (brief(a.input.as_ref()))
                @if a.parent_workflow_execution.is_some() { ", as a child of " (other(namespace, a.parent_workflow_execution.as_ref())) }
                @if !a.continued_execution_run_id.is_empty() { ", going on from run " (text::prose(&a.continued_execution_run_id, 8)) }
                @if a.attempt > 1 { ", attempt " (a.attempt) }
            };
            said("begin", text)
        }
        Of::WorkflowExecutionCompletedEventAttributes(a) => said(
            "good",
            html! { "Session completed" (brief(a.result.as_ref())) },
        ),
        Of::WorkflowExecutionFailedEventAttributes(a) => said(
            "bad",
            html! { "Session failed" (maybe(a.failure.as_ref())) },
        ),
        Of::WorkflowExecutionTimedOutEventAttributes(_) => {
            said("bad", html! { "Session timed out" })
        }
        Of::WorkflowExecutionCanceledEventAttributes(_) => {
            said("ended", html! { "Session ended after cancellation" })
        }
        Of::WorkflowExecutionTerminatedEventAttributes(a) => {
            let text = html! { "Session terminated" @if !a.reason.is_empty() { ": " (text::prose(&a.reason, MAX_REASON)) } };
            said("bad", text)
        }
        Of::WorkflowExecutionContinuedAsNewEventAttributes(a) => said(
            "ended",
            html! { "Went on in a new run, " (text::prose(&a.new_execution_run_id, 8)) },
        ),
        Of::WorkflowExecutionSignaledEventAttributes(a) => said(
            "signal",
            html! { "Signal " (strong(&a.signal_name)) (brief(a.input.as_ref())) },
        ),
        Of::WorkflowExecutionCancelRequestedEventAttributes(a) => {
            let text = html! { "Cancellation requested" @if !a.cause.is_empty() { ": " (text::prose(&a.cause, MAX_REASON)) } };
            said("people", text)
        }
        Of::WorkflowExecutionPausedEventAttributes(a) => said(
            "people",
            html! { "Session paused" @if !a.reason.is_empty() { ": " (text::prose(&a.reason, MAX_REASON)) } },
        ),
        Of::WorkflowExecutionUnpausedEventAttributes(a) => said(
            "people",
            html! { "Session resumed" @if !a.reason.is_empty() { ": " (text::prose(&a.reason, MAX_REASON)) } },
        ),
        _ => return None,
    })
}

/// Workflow tasks.
fn of_task(attributes: &Of) -> Option<Said> {
    Some(match attributes {
        Of::WorkflowTaskScheduledEventAttributes(a) => {
            let queue = name(a.task_queue.as_ref().map(|of| &of.name));
            plumbing(html! { "A worker of " (text::prose(queue, 60)) " is to say what is next" })
        }
        Of::WorkflowTaskStartedEventAttributes(a) => {
            plumbing(html! { "Worker " (text::prose(&a.identity, 60)) " thinks" })
        }
        Of::WorkflowTaskCompletedEventAttributes(_) => {
            plumbing(html! { "The agent said what is next" })
        }
        Of::WorkflowTaskFailedEventAttributes(a) => {
            let cause = a.cause().as_str_name();
            let cause = cause
                .trim_start_matches("WORKFLOW_TASK_FAILED_CAUSE_")
                .replace('_', " ");
            said(
                "bad",
                html! { "The agent's code failed (" (cause.to_lowercase()) ")" (maybe(a.failure.as_ref())) },
            )
        }
        Of::WorkflowTaskTimedOutEventAttributes(_) => {
            said("bad", html! { "The agent's worker did not answer in time" })
        }
        _ => return None,
    })
}

fn of_tool(attributes: &Of, story: &Story) -> Option<Said> {
    let tool = |id| strong(story.tool_name(id));
    Some(match attributes {
        Of::ActivityTaskScheduledEventAttributes(a) => {
            let tool = name(a.activity_type.as_ref().map(|of| &of.name));
            said(
                "tool",
                html! { "Tool call " (strong(tool)) (brief(a.input.as_ref())) },
            )
        }
        Of::ActivityTaskStartedEventAttributes(a) => plumbing(
            html! { "Attempt " (a.attempt) " of " (tool(a.scheduled_event_id)) " started" },
        ),
        Of::ActivityTaskCompletedEventAttributes(a) => said(
            "good",
            html! { (tool(a.scheduled_event_id)) " returned" (brief(a.result.as_ref())) },
        ),
        Of::ActivityTaskFailedEventAttributes(a) => said(
            "bad",
            html! { (tool(a.scheduled_event_id)) " failed" (maybe(a.failure.as_ref())) },
        ),
        Of::ActivityTaskTimedOutEventAttributes(a) => said(
            "bad",
            html! { (tool(a.scheduled_event_id)) " timed out" (maybe(a.failure.as_ref())) },
        ),
        Of::ActivityTaskCancelRequestedEventAttributes(a) => said(
            "tool",
            html! { "The agent asks " (tool(a.scheduled_event_id)) " to stop" },
        ),
        Of::ActivityTaskCanceledEventAttributes(a) => said(
            "ended",
            html! { (tool(a.scheduled_event_id)) " was cancelled" },
        ),
        _ => return None,
    })
}

fn of_child(attributes: &Of, namespace: &str) -> Option<Said> {
    let child = |of: &Option<WorkflowExecution>| other(namespace, of.as_ref());
    Some(match attributes {
        Of::StartChildWorkflowExecutionInitiatedEventAttributes(a) => {
            let agent = name(a.workflow_type.as_ref().map(|of| &of.name));
            said(
                "child",
                html! { "Child of " (strong(agent)) " is to start as " (text::name(&a.workflow_id)) (brief(a.input.as_ref())) },
            )
        }
        Of::StartChildWorkflowExecutionFailedEventAttributes(a) => said(
            "bad",
            html! { "Child " (text::name(&a.workflow_id)) " could not start" },
        ),
        Of::ChildWorkflowExecutionStartedEventAttributes(a) => said(
            "child",
            html! { "Child " (child(&a.workflow_execution)) " started" },
        ),
        Of::ChildWorkflowExecutionCompletedEventAttributes(a) => said(
            "good",
            html! { "Child " (child(&a.workflow_execution)) " completed" (brief(a.result.as_ref())) },
        ),
        Of::ChildWorkflowExecutionFailedEventAttributes(a) => said(
            "bad",
            html! { "Child " (child(&a.workflow_execution)) " failed" (maybe(a.failure.as_ref())) },
        ),
        Of::ChildWorkflowExecutionCanceledEventAttributes(a) => said(
            "ended",
            html! { "Child " (child(&a.workflow_execution)) " was cancelled" },
        ),
        Of::ChildWorkflowExecutionTimedOutEventAttributes(a) => said(
            "bad",
            html! { "Child " (child(&a.workflow_execution)) " timed out" },
        ),
        Of::ChildWorkflowExecutionTerminatedEventAttributes(a) => said(
            "bad",
            html! { "Child " (child(&a.workflow_execution)) " was terminated" },
        ),
        _ => return None,
    })
}

/// Timers, updates, and what concerns other sessions.
fn of_others(attributes: &Of, story: &Story, namespace: &str) -> Option<Said> {
    Some(match attributes {
        Of::TimerStartedEventAttributes(a) => said(
            "timer",
            html! { "Timer set for " (times::span(times::span_of(&a.start_to_fire_timeout))) },
        ),
        Of::TimerFiredEventAttributes(_) => said("timer", html! { "Timer fired" }),
        Of::TimerCanceledEventAttributes(_) => said("ended", html! { "Timer cancelled" }),
        Of::MarkerRecordedEventAttributes(a) if a.marker_name.contains("local_activity") => said(
            "tool",
            html! { "A local tool call ended in the worker" (maybe(a.failure.as_ref())) },
        ),
        Of::MarkerRecordedEventAttributes(a) => {
            said("plumbing", html! { "Marker " (strong(&a.marker_name)) })
        }
        Of::WorkflowExecutionUpdateAcceptedEventAttributes(a) => {
            let input = a.accepted_request.as_ref().and_then(|of| of.input.as_ref());
            said(
                "signal",
                html! { "Update " (strong(name(input.map(|of| &of.name)))) " accepted" (brief(input.and_then(|of| of.args.as_ref()))) },
            )
        }
        Of::WorkflowExecutionUpdateCompletedEventAttributes(a) => {
            let accepted = story
                .event(a.accepted_event_id)
                .and_then(|of| of.attributes.as_ref());
            let name = match accepted {
                Some(Of::WorkflowExecutionUpdateAcceptedEventAttributes(of)) => of
                    .accepted_request
                    .as_ref()
                    .and_then(|of| of.input.as_ref())
                    .map(|of| of.name.as_str()),
                _ => None,
            };
            said(
                "good",
                html! { "Update " (strong(name.unwrap_or(""))) " is done" },
            )
        }
        Of::SignalExternalWorkflowExecutionInitiatedEventAttributes(a) => said(
            "child",
            html! { "Signal " (strong(&a.signal_name)) " to " (other(namespace, a.workflow_execution.as_ref())) },
        ),
        Of::ExternalWorkflowExecutionSignaledEventAttributes(a) => said(
            "child",
            html! { "The signal reached " (other(namespace, a.workflow_execution.as_ref())) },
        ),
        Of::SignalExternalWorkflowExecutionFailedEventAttributes(a) => said(
            "bad",
            html! { "The signal could not reach " (other(namespace, a.workflow_execution.as_ref())) },
        ),
        Of::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(a) => said(
            "child",
            html! { "Asks " (other(namespace, a.workflow_execution.as_ref())) " to cancel" },
        ),
        Of::UpsertWorkflowSearchAttributesEventAttributes(_) => {
            plumbing(html! { "Search attributes changed" })
        }
        Of::WorkflowPropertiesModifiedEventAttributes(_) => plumbing(html! { "Memo changed" }),
        _ => return None,
    })
}

/// `EVENT_TYPE_TIMER_STARTED` as `Timer started`.
pub fn type_name(number: i32) -> String {
    let name = EventType::try_from(number).map_or("EVENT_TYPE_UNKNOWN", |of| of.as_str_name());
    let words = name
        .trim_start_matches("EVENT_TYPE_")
        .replace('_', " ")
        .to_lowercase();
    let mut characters = words.chars();
    let first = characters.next().map(|of| of.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}
