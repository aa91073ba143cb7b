//! Everything about one event, or about the session where none is looked at.

use maud::{Markup, html};
use steadfast_engine::proto::history::{HistoryEvent, history_event::Attributes as Of};
use steadfast_engine::record::{Decision, Verdict};

use super::story::Story;
use super::{Session, events, words};
use crate::console::{message, payload, text, times};

/// The panel beside the list.
pub fn panel(story: &Story, session: &Session<'_>) -> Markup {
    let event = story.event(session.wanted.event);
    html! {
        section.detail #detail aria-label="Details" tabindex="-1" {
            @match event {
                Some(event) => (of_event(event, story, session)),
                None => (of_session(story, session)),
            }
        }
    }
}

fn of_event(event: &HistoryEvent, story: &Story, session: &Session<'_>) -> Markup {
    let record = story.record_of(event.event_id);
    let cause = record.and_then(|of| of.cause.as_ref());
    html! {
        div.bar {
            h2 { "Event " (event.event_id) }
            a.quiet href=(events::link(session, 0)) data-detail { "Close" }
        }
        p.type { (words::type_name(event.event_type)) }
        dl.fields {
            dt { "when" } dd { (times::moment(times::nanos(&event.event_time))) }
            @if let Some(by) = events::by(event, story) { dt { "by" } dd { (text::name(&by)) } }
            @if let Some(cause) = cause {
                dt { "caused by" } dd { (text::name(&cause.call))
                    @if !cause.authentication.is_empty() { " (" (text::name(&cause.authentication)) ")" } }
            }
            @if let Some(record) = record { dt { "evidence" } dd { "entry " (record.n) " of this run" } }
        }
        (decisions(event, story))
        (message::attributes(event))
    }
}

/// What policies and people said about a tool call.
fn decisions(event: &HistoryEvent, story: &Story) -> Markup {
    let id = match &event.attributes {
        Some(Of::ActivityTaskScheduledEventAttributes(_)) => event.event_id,
        Some(Of::ActivityTaskStartedEventAttributes(of)) => of.scheduled_event_id,
        Some(Of::ActivityTaskCompletedEventAttributes(of)) => of.scheduled_event_id,
        Some(Of::ActivityTaskFailedEventAttributes(of)) => of.scheduled_event_id,
        Some(Of::ActivityTaskTimedOutEventAttributes(of)) => of.scheduled_event_id,
        Some(Of::ActivityTaskCanceledEventAttributes(of)) => of.scheduled_event_id,
        _ => return html! {},
    };
    let mut decisions = story.decisions(id);
    // The same is decided again before each attempt.
    let all = decisions.len();
    decisions.dedup_by(|one, other| {
        let of = |one: &Decision| (one.verdict, one.policies.clone(), one.policy_hash.clone());
        of(one.0) == of(other.0)
    });
    let again = all - decisions.len();
    let approval = story.approval(id);
    html! {
        @if !decisions.is_empty() {
            h3 { "Policy" }
            ul.plain {
                @for (decision, record) in decisions {
                    li {
                        @match Verdict::try_from(decision.verdict) {
                            Ok(Verdict::Allow) => span.status.good { "Permitted" },
                            Ok(Verdict::Approval) => span.status.waiting { "Needs approval" },
                            _ => span.status.bad { "Refused" },
                        }
                        @for id in &decision.policies { " " span.policy { (text::name(id)) } }
                        small { " policies " code { (hex(&decision.policy_hash)) } ", " (times::moment(record.time)) }
                    }
                }
                @if again > 0 { li.note { "and the same " (text::counted(again, "time", "times")) " more, before attempts" } }
            }
        }
        @if let Some(approval) = approval {
            h3 { "Approval" }
            p { (words::needed(approval)) "." }
            ul.plain {
                @for vote in &approval.votes {
                    li {
                        @if vote.approves { span.status.good { "Approved" } } @else { span.status.bad { "Denied" } }
                        " " (text::name(&vote.principal))
                        @if !vote.groups.is_empty() { small { " of " (text::prose(&vote.groups.join(", "), 100)) } }
                        @if !vote.comment.is_empty() { p { "“" (text::prose(&vote.comment, 1000)) "”" } }
                    }
                }
            }
        }
    }
}

/// The beginning of a hash.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What went in, and what came out.
fn of_session(story: &Story, session: &Session<'_>) -> Markup {
    let input = story.event(1).and_then(|of| match &of.attributes {
        Some(Of::WorkflowExecutionStartedEventAttributes(of)) => of.input.as_ref(),
        _ => None,
    });
    let last = story.events.last().filter(|_| !story.is_running);
    let memo = session
        .info
        .memo
        .as_ref()
        .filter(|of| !of.fields.is_empty());
    let attributes = session
        .info
        .search_attributes
        .as_ref()
        .filter(|of| !of.indexed_fields.is_empty());
    html! {
        h2 { "Input" }
        @match input {
            Some(input) if !input.payloads.is_empty() => (payload::payloads(input)),
            _ => p.note { "none" },
        }
        @if let Some(attributes) = last.and_then(|of| of.attributes.as_ref()) { (outcome(attributes)) }
        @if let Some(attributes) = attributes {
            h2 { "Search attributes" }
            dl.fields { @for (name, value) in sorted(&attributes.indexed_fields) { dt { (text::name(name)) } dd { (text::prose(&payload::brief(value, 200), 200)) } } }
        }
        @if let Some(memo) = memo {
            h2 { "Memo" }
            dl.fields { @for (name, value) in sorted(&memo.fields) { dt { (text::name(name)) } dd { (payload::show(value)) } } }
        }
    }
}

fn sorted<T>(of: &std::collections::HashMap<String, T>) -> Vec<(&String, &T)> {
    let mut all: Vec<_> = of.iter().collect();
    all.sort_by_key(|(name, _)| *name);
    all
}

fn outcome(attributes: &Of) -> Markup {
    match attributes {
        Of::WorkflowExecutionCompletedEventAttributes(of) => html! {
            h2 { "Result" }
            @match &of.result {
                Some(result) if !result.payloads.is_empty() => (payload::payloads(result)),
                _ => p.note { "none" },
            }
        },
        Of::WorkflowExecutionFailedEventAttributes(of) => html! {
            h2 { "Failure" }
            @if let Some(failure) = &of.failure { (message::failure(failure)) }
        },
        Of::WorkflowExecutionTerminatedEventAttributes(of) => html! {
            h2 { "Terminated" }
            p { (text::prose(&of.reason, 2000)) }
        },
        _ => html! {},
    }
}
