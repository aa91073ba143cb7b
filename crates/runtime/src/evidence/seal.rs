//! The entry of a record: what the log says about one transition of one run.
//!
//! A function of the record and the state after it, so that whoever has both can make it again and
//! compare.

mod governance;

use std::borrow::Cow;

use bytes::Bytes;
use steadfast_engine::RunRecord;
use steadfast_engine::proto::enums::{EventType, TimeoutType, WorkflowExecutionStatus};
use steadfast_engine::proto::failure::{Failure, failure::FailureInfo};
use steadfast_engine::record::{ActivityAttempt, Cause, StepKind};
use steadfast_engine::state::RunState;
use steadfast_ledger::entry::{
    ApprovalItem, AttemptItem, BufferedItem, DecisionItem, EventItem, EventRange, Follows,
    MAX_BYTES, MAX_ITEMS, Time, VERSION,
};
use steadfast_ledger::skeleton::{Content, Fields, MessageShape, SaltKey, Shapes, Span, hash};
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
#[derive(Default)]
struct EventHead<'a> {
    event_id: i64,
    event_type: EventType,
    /// The principal's name.
    principal: Option<&'a str>,
}

impl<'a> EventHead<'a> {
    /// Read in place: it is done for each event, and decoding would allocate. What is no event has the
    /// head of none.
    fn of(event: &'a [u8]) -> Self {
        let mut head = Self::default();
        for field in Fields::of(event) {
            match field {
                (1, Content::Varint(id)) => head.event_id = id.cast_signed(),
                (3, Content::Varint(number)) => {
                    let number = i32::try_from(number).unwrap_or_default();
                    head.event_type = EventType::try_from(number).unwrap_or_default();
                }
                (303, Content::Bytes(principal)) => head.principal = Some(name_of(principal)),
                _ => {}
            }
        }
        head
    }
}

/// The name in an encoded principal.
fn name_of(principal: &[u8]) -> &str {
    let names = Fields::of(principal).filter_map(|field| match field {
        (2, Content::Bytes(name)) => std::str::from_utf8(name).ok(),
        _ => None,
    });
    names.last().unwrap_or_default()
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
        let mut events = Vec::with_capacity(record.steps.len());
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
                Some(StepKind::Decision(decision)) => {
                    entry.decisions.push(governance::decision(decision));
                }
                Some(StepKind::Approval(change)) => {
                    entry.approvals.push(governance::approval(change));
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

    /// Writes an event again with other fields in the place of its payloads.
    pub(super) fn replace(
        &self,
        event: &[u8],
        with: &mut dyn FnMut(&str, u32) -> Vec<u8>,
    ) -> Vec<u8> {
        match self.event {
            Some(shape) => self.shapes.replace(event, shape, with),
            None => event.to_vec(),
        }
    }

    fn event_item<'a>(
        &self,
        bytes: &'a Bytes,
        salts: &SaltKey,
        cause: &Cause,
        spans: &mut Vec<Span>,
    ) -> EventItem<'a> {
        let head = EventHead::of(bytes);
        self.spans(bytes, spans);
        let by = match head.principal {
            Some(principal) if principal != cause.principal => clipped(principal, MAX_PRINCIPAL),
            // What the server did by itself while it was at it.
            None if !cause.authentication.is_empty() => SERVER.into(),
            _ => "".into(),
        };
        EventItem {
            by,
            // The spans were found in these very bytes: they fit.
            hash: hash(bytes, spans, salts, head.event_id).unwrap_or_default(),
            id: head.event_id,
            event_type: event_type(head.event_type).into(),
        }
    }
}

/// What the entry of a record says of approvals and decisions, all of it.
pub(crate) fn items(record: &RunRecord) -> (Vec<ApprovalItem<'_>>, Vec<DecisionItem<'_>>) {
    let (mut approvals, mut decisions) = (Vec::new(), Vec::new());
    for step in &record.steps {
        match &step.kind {
            Some(StepKind::Decision(decision)) => decisions.push(governance::decision(decision)),
            Some(StepKind::Approval(change)) => approvals.push(governance::approval(change)),
            _ => {}
        }
    }
    (approvals, decisions)
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
    let mut omitted = truncate(&mut entry.approvals, max_items);
    omitted += truncate(&mut entry.attempts, max_items);
    omitted += truncate(&mut entry.buffered, max_items);
    omitted += truncate(&mut entry.decisions, max_items);
    entry.omitted += omitted;
}

/// Keeps the first items. Gives how many went.
fn truncate<T>(items: &mut Vec<T>, max: usize) -> u64 {
    let before = items.len();
    items.truncate(max);
    (before - items.len()) as u64
}

/// The status that a record ended its run with.
fn closed(state: &RunState, record: &RunRecord) -> &'static str {
    let closes = !state.is_running()
        && record.steps.iter().any(|step| match &step.kind {
            Some(StepKind::Event(bytes)) => EventHead::of(bytes).event_id == state.close_event_id,
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
        item.credential = match (what, &attempt.credential) {
            ("started", Some(of)) => Some(governance::credential(of)),
            _ => None,
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
