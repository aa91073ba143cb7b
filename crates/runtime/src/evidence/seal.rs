//! The entry of a record: what the log says about one transition of one run.
//!
//! A function of the record and the state after it, so that whoever has both can make it again and
//! compare.

use std::borrow::Cow;

use bytes::Bytes;
use prost::Message;
use steadfast_engine::RunRecord;
use steadfast_engine::proto::enums::{EventType, TimeoutType, WorkflowExecutionStatus};
use steadfast_engine::proto::failure::{Failure, failure::FailureInfo};
use steadfast_engine::record::{ActivityAttempt, Cause, StepKind};
use steadfast_engine::state::RunState;
use steadfast_ledger::entry::{
    AttemptItem, BufferedItem, EventItem, EventRange, Follows, MAX_BYTES, MAX_ITEMS, Time, VERSION,
};
use steadfast_ledger::skeleton::{MessageShape, SaltKey, Shapes, Span, hash};
use steadfast_ledger::tree::root_of;
use steadfast_ledger::{Entry, Hash};

/// The server, where it did something by itself.
const SERVER: &str = "steadfast";

/// The message that history consists of.
pub(crate) const HISTORY_EVENT: &str = "temporal.api.history.v1.HistoryEvent";

/// Characters of a name that an entry repeats. The event has all of it.
const MAX_NAME: usize = 200;

/// Characters of a principal, which a client may claim at any length.
const MAX_PRINCIPAL: usize = 1000;

/// Characters of a note's detail.
const MAX_DETAIL: usize = 4000;

/// Finds what is hashed of events.
pub struct Sealer {
    shapes: std::sync::Arc<Shapes>,
    event: Option<MessageShape>,
}

/// The fields of an event that an entry repeats.
#[derive(Clone, PartialEq, prost::Message)]
struct EventHead {
    #[prost(int64, tag = "1")]
    event_id: i64,
    #[prost(enumeration = "EventType", tag = "3")]
    event_type: i32,
    #[prost(message, optional, tag = "303")]
    principal: Option<steadfast_engine::proto::common::Principal>,
}

impl Sealer {
    /// With the shapes of the API's messages.
    pub fn new(shapes: std::sync::Arc<Shapes>) -> Self {
        Self {
            event: shapes.find(HISTORY_EVENT),
            shapes,
        }
    }

    /// The exact bytes of a record's entry. `state` is the run's state after the record, except that
    /// its `entry_hash` is still that of the entry before.
    pub fn entry(
        &self,
        namespace: &str,
        state: &RunState,
        record: &RunRecord,
        follows: Option<(&str, &[u8])>,
    ) -> Bytes {
        let none = Cause::default();
        let cause = record.cause.as_ref().unwrap_or(&none);
        let mut events = Vec::new();
        let mut entry = Entry {
            cause: cause_of(cause),
            closed: closed(state, record).into(),
            n: record.n,
            ns: namespace.into(),
            prev: match record.n {
                1 => None,
                _ => as_hash(&state.entry_hash),
            },
            follows: follows.map(|(run_id, hash)| Follows {
                entry: as_hash(hash),
                event_id: state
                    .ancestors
                    .last()
                    .filter(|_| !state.reset_from_run_id.is_empty())
                    .map_or(0, |branch| branch.last_event_id),
                run_id: run_id.into(),
            }),
            run_id: record.run_id.as_str().into(),
            t: Time(record.time),
            v: VERSION,
            workflow_id: state.workflow_id.as_str().into(),
            ..Entry::default()
        };
        let salts = salts(state);
        let mut spans = Vec::new();
        for step in &record.steps {
            match &step.kind {
                Some(StepKind::Event(bytes)) => {
                    events.push(self.event_item(bytes, &salts, cause, &mut spans));
                }
                Some(StepKind::Flush(flush)) => events.extend(
                    flush
                        .events
                        .iter()
                        .map(|bytes| self.event_item(bytes, &salts, cause, &mut spans)),
                ),
                Some(StepKind::Buffer(bytes)) => {
                    let item = self.event_item(bytes, &salts, cause, &mut spans);
                    entry.buffered.push(BufferedItem {
                        hash: item.hash,
                        event_type: item.event_type,
                    });
                }
                Some(StepKind::Attempt(change)) => {
                    entry.attempts.push(attempt_item(state, change));
                }
                _ => {}
            }
        }
        entry.events = events;
        encode(entry)
    }

    /// The payloads in an encoded event.
    pub fn spans(&self, event: &[u8], spans: &mut Vec<Span>) {
        spans.clear();
        if let Some(shape) = self.event {
            self.shapes.spans(event, shape, spans);
        }
    }

    fn event_item(
        &self,
        bytes: &Bytes,
        salts: &SaltKey,
        cause: &Cause,
        spans: &mut Vec<Span>,
    ) -> EventItem<'static> {
        let head = EventHead::decode(bytes.clone()).unwrap_or_default();
        self.spans(bytes, spans);
        let event_type = event_type(head.event_type());
        let by = match head.principal {
            Some(principal) if principal.name != cause.principal => {
                clipped(&principal.name, MAX_PRINCIPAL).into_owned()
            }
            // What the server did by itself while it was at it.
            None if !cause.authentication.is_empty() => SERVER.to_owned(),
            _ => String::new(),
        };
        EventItem {
            by: by.into(),
            // The spans were found in these very bytes: they fit.
            hash: hash(bytes, spans, salts, head.event_id).unwrap_or_default(),
            id: head.event_id,
            event_type: event_type.into(),
        }
    }
}

/// The entry that says that a run was deleted, the last of its chain.
pub(crate) fn deletion(namespace: &str, state: &RunState, now: i64, cause: &Cause) -> Bytes {
    encode(Entry {
        cause: cause_of(cause),
        deleted: true,
        n: state.n + 1,
        ns: namespace.into(),
        prev: as_hash(&state.entry_hash),
        run_id: state.run_id.as_str().into(),
        t: Time(now),
        v: VERSION,
        workflow_id: state.workflow_id.as_str().into(),
        ..Entry::default()
    })
}

pub(crate) fn cause_of(cause: &Cause) -> steadfast_ledger::entry::Cause<'_> {
    steadfast_ledger::entry::Cause {
        auth: cause.authentication.as_str().into(),
        call: cause.call.as_str().into(),
        principal: clipped(&cause.principal, MAX_PRINCIPAL),
    }
}

/// The secret of a run's salts. A run from before there was evidence has none.
pub(crate) fn salts(state: &RunState) -> SaltKey {
    SaltKey(state.salt.as_ref().try_into().unwrap_or_default())
}

pub(crate) fn as_hash(bytes: &[u8]) -> Option<Hash> {
    bytes.try_into().ok().map(Hash)
}

/// Writes an entry, shortened where the log's format has no room for all of it.
pub(crate) fn encode(mut entry: Entry<'_>) -> Bytes {
    if let Some(note) = &mut entry.note {
        note.detail = clipped(&note.detail, MAX_DETAIL).into_owned().into();
    }
    let mut max_items = MAX_ITEMS;
    loop {
        shorten(&mut entry, max_items);
        let mut out = String::with_capacity(400 + 128 * entry.events.len());
        entry.write(&mut out);
        if out.len() <= MAX_BYTES || max_items == 0 {
            return out.into();
        }
        max_items /= 4;
    }
}

fn shorten(entry: &mut Entry<'_>, max_items: usize) {
    if let (Some(first), Some(last)) = (entry.events.first(), entry.events.last())
        && entry.events.len() > max_items
    {
        entry.event_range = Some(EventRange {
            first: first.id,
            last: last.id,
            root: root_of(entry.events.iter().map(|event| Hash::leaf(&event.hash.0))),
        });
        entry.events.clear();
    }
    let before = entry.attempts.len() + entry.buffered.len();
    entry.attempts.truncate(max_items);
    entry.buffered.truncate(max_items);
    let left = entry.attempts.len() + entry.buffered.len();
    entry.omitted += (before - left) as u64;
}

/// The status that a record ended its run with.
fn closed(state: &RunState, record: &RunRecord) -> &'static str {
    let closes = !state.is_running()
        && record.steps.iter().any(|step| match &step.kind {
            Some(StepKind::Event(bytes)) => EventHead::decode(bytes.clone())
                .is_ok_and(|head| head.event_id == state.close_event_id),
            _ => false,
        });
    if !closes {
        return "";
    }
    WorkflowExecutionStatus::try_from(state.status).map_or("", |status| {
        status
            .as_str_name()
            .trim_start_matches("WORKFLOW_EXECUTION_STATUS_")
    })
}

fn event_type(event_type: EventType) -> &'static str {
    event_type.as_str_name().trim_start_matches("EVENT_TYPE_")
}

fn attempt_item<'a>(state: &'a RunState, change: &'a ActivityAttempt) -> AttemptItem<'a> {
    let activity = state.activities.get(&change.scheduled_event_id);
    let mut item = AttemptItem {
        scheduled_event_id: change.scheduled_event_id,
        ..AttemptItem::default()
    };
    if let Some(scheduled) = activity.and_then(|activity| activity.scheduled.as_ref()) {
        item.activity_id = name(&scheduled.activity_id);
        if let Some(activity_type) = &scheduled.activity_type {
            item.activity_type = name(&activity_type.name);
        }
    }
    if let Some(attempt) = &change.attempt {
        item.attempt = attempt.number.into();
        if let Some(last_failure) = &attempt.last_failure {
            item.last_failure = failure(last_failure);
        }
        let (what, worker) = match (attempt.started_time, attempt.heartbeat_time) {
            (0, _) => ("scheduled", ""),
            (_, 0) => ("started", attempt.identity.as_str()),
            _ => ("heartbeat", attempt.identity.as_str()),
        };
        item.state = what.into();
        item.worker = name(worker);
    }
    item
}

/// What failed, without what was said about it.
pub(crate) fn failure(failure: &Failure) -> Cow<'static, str> {
    let kind = match &failure.failure_info {
        Some(FailureInfo::ApplicationFailureInfo(info)) => {
            return format!("application/{}", name(&info.r#type)).into();
        }
        Some(FailureInfo::TimeoutFailureInfo(info)) => {
            let kind = TimeoutType::try_from(info.timeout_type).unwrap_or_default();
            let kind = kind.as_str_name().trim_start_matches("TIMEOUT_TYPE_");
            return format!("timeout/{kind}").into();
        }
        Some(FailureInfo::CanceledFailureInfo(_)) => "canceled",
        Some(FailureInfo::TerminatedFailureInfo(_)) => "terminated",
        Some(FailureInfo::ServerFailureInfo(_)) => "server",
        _ => "other",
    };
    kind.into()
}

fn name(name: &str) -> Cow<'_, str> {
    clipped(name, MAX_NAME)
}

/// The beginning of a text.
fn clipped(text: &str, characters: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters) {
        Some((end, _)) => text[..end].into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use steadfast_ledger::entry::Note;

    use super::*;

    #[test]
    fn no_entry_is_too_long_for_the_log() {
        // The characters that take most room in JSON.
        let long = "\u{1}".repeat(100_000);
        let id = "\u{1}".repeat(1000);
        let cause = Cause {
            principal: long.clone(),
            ..Cause::default()
        };
        let state = RunState {
            workflow_id: id.clone(),
            ..RunState::default()
        };
        let event = |id| EventItem {
            id,
            by: clipped(&long, MAX_PRINCIPAL),
            ..EventItem::default()
        };
        let entry = Entry {
            cause: cause_of(&cause),
            events: (1..=1000).map(event).collect(),
            attempts: vec![
                AttemptItem {
                    activity_id: name(&long),
                    worker: name(&long),
                    ..AttemptItem::default()
                };
                1000
            ],
            note: Some(Note {
                detail: long.as_str().into(),
                ..Note::default()
            }),
            ns: id.as_str().into(),
            workflow_id: id.as_str().into(),
            v: VERSION,
            ..Entry::default()
        };
        let bytes = encode(entry);
        assert!(bytes.len() <= MAX_BYTES, "{} bytes", bytes.len());
        let parsed = Entry::parse(&bytes).expect("an entry");
        assert_eq!(parsed.event_range.map(|range| range.last), Some(1000));
        assert!(parsed.omitted > 0);
        assert!(deletion(&id, &state, 0, &cause).len() <= MAX_BYTES);
    }
}
