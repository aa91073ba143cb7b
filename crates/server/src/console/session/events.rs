//! The list of what happened.

use maud::{Markup, html};
use steadfast_engine::proto::history::HistoryEvent;

use super::story::{Item, Story};
use super::{MAX_EVENTS, Session, words};
use crate::console::{text, times};

/// Everything in order, in plain words.
pub fn list(story: &Story, session: &Session<'_>) -> Markup {
    let shows_all = !session.wanted.all.is_empty();
    let items = story.items();
    let told: Vec<_> = items
        .iter()
        .map(|item| (item, words::of(item, story, session.namespace)))
        .collect();
    let hidden = told.iter().filter(|(_, said)| said.is_plumbing).count();
    let left_out = usize::try_from(session.info.history_length).unwrap_or_default();
    let left_out = left_out.saturating_sub(story.events.len());
    html! {
        section.events aria-labelledby="what-happened" {
            div.bar {
                h2 #what-happened { "What happened" }
                @if hidden > 0 {
                    a.quiet href=(toggle(session, shows_all)) data-keep {
                        @if shows_all { "Hide the " (hidden) " steps in between" } @else { "Show " (hidden) " steps in between" }
                    }
                }
            }
            @if left_out > 0 {
                p.note { "The last " (MAX_EVENTS) " events; " (left_out) " before them are in the history as JSON." }
            }
            ol #events data-swap {
                @for (item, said) in told {
                    @if shows_all || !said.is_plumbing || is_looked_at(item, session) {
                        (row(item, said, story, session))
                    }
                }
            }
        }
    }
}

fn toggle(session: &Session<'_>, shows_all: bool) -> String {
    let all = if shows_all { "" } else { "1" };
    let event = event_text(session.wanted.event);
    let (id, run) = (&session.workflow_id, &session.run_id);
    let query = text::query(&[("id", id), ("run", run), ("event", &event), ("all", all)]);
    format!("session{query}")
}

fn event_text(id: i64) -> String {
    if id > 0 {
        id.to_string()
    } else {
        String::new()
    }
}

/// The page with an event looked at.
pub fn link(session: &Session<'_>, event_id: i64) -> String {
    let (id, run) = (&session.workflow_id, &session.run_id);
    let event = event_text(event_id);
    let query = text::query(&[
        ("id", id),
        ("run", run),
        ("event", &event),
        ("all", &session.wanted.all),
    ]);
    format!("session{query}#detail")
}

fn is_looked_at(item: &Item<'_>, session: &Session<'_>) -> bool {
    matches!(item, Item::Event(event) if event.event_id == session.wanted.event)
}

fn row(item: &Item<'_>, said: words::Said, story: &Story, session: &Session<'_>) -> Markup {
    let offset = item.time().saturating_sub(story.begin);
    let is_looked_at = is_looked_at(item, session);
    html! {
        li class={ "event " (said.class) } aria-current=[is_looked_at.then_some("true")] {
            span.at title=(times::span(offset)) { "+" (times::span(offset)) }
            div.what {
                span.words { (said.text) }
                @if let Some(who) = who(item, story) { span.by { "by " (text::prose(&who, 60)) } }
            }
            @match item {
                Item::Event(event) => {
                    a.number href=(link(session, event.event_id)) data-detail aria-label={ "Details of event " (event.event_id) } { (event.event_id) }
                }
                _ => span.number title="in the evidence, not in the workflow's history" { "·" }
            }
        }
    }
}

/// Who did it, where that is somebody from outside.
fn who(item: &Item<'_>, story: &Story) -> Option<String> {
    let Item::Event(event) = item else {
        return None;
    };
    from_outside(event).then(|| by(event, story)).flatten()
}

fn from_outside(event: &HistoryEvent) -> bool {
    use steadfast_engine::proto::enums::EventType::*;
    matches!(
        event.event_type(),
        WorkflowExecutionStarted
            | WorkflowExecutionSignaled
            | WorkflowExecutionCancelRequested
            | WorkflowExecutionTerminated
            | WorkflowExecutionUpdateAccepted
    )
}

/// The principal of an event.
pub fn by(event: &HistoryEvent, story: &Story) -> Option<String> {
    let named = event.principal.as_ref().map(|of| of.name.clone());
    let cause = || {
        story
            .record_of(event.event_id)?
            .cause
            .as_ref()
            .map(|of| of.principal.clone())
    };
    named
        .filter(|of| !of.is_empty())
        .or_else(cause)
        .filter(|of| !of.is_empty())
}
