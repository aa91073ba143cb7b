//! What an entry of a log says of approvals, and how that is told. Pure.
//!
//! A call is over when it was approved, denied, not decided in time, or not needed any more. The first two
//! are in the entry. The others follow from the event that ends the call, or from the end of its run.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use steadfast_ledger::Entry;
use steadfast_ledger::entry::{ApprovalItem, DecisionItem, Time, VoteItem};

/// What the types of all events begin with.
const TYPES: &str = "dev.steadfast.";

/// The events of approvals, which are told unless others are asked for.
pub(crate) const APPROVALS: [&str; 5] = [
    "approval.requested",
    "approval.approved",
    "approval.denied",
    "approval.expired",
    "approval.withdrawn",
];

/// A call that policies denied.
pub(crate) const TOOL_DENIED: &str = "tool.denied";

/// A call that needs an approval, or needed one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call {
    /// The run.
    pub run_id: String,
    /// The event that scheduled or initiated it.
    pub event_id: i64,
}

/// What is remembered of a call that waits.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Open {
    pub workflow_id: String,
    pub workflow_type: String,
    pub initiator: Option<Initiator>,
    pub kind: String,
    pub activity_id: String,
    pub activity_type: String,
    pub digest: String,
    pub quorum: i64,
    pub groups: Vec<String>,
    pub policies: Vec<String>,
    /// Nanoseconds since the epoch.
    pub requested: i64,
    pub expires: i64,
}

/// Who started a session.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct Initiator {
    pub name: String,
    pub r#type: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    /// Without what all types begin with.
    pub name: String,
    /// The call that it is about, if it is about one.
    pub call: Option<(Call, Open)>,
    /// Why, if there is something to say.
    pub reason: String,
    pub votes: Vec<Value>,
    /// Members of the data that only this kind of event has.
    pub more: Vec<(&'static str, Value)>,
}

impl Event {
    /// Whether the call waits after it.
    pub fn is_request(&self) -> bool {
        self.name == APPROVALS[0]
    }

    /// Whether it is about an approval.
    pub fn is_of_approval(&self) -> bool {
        APPROVALS.contains(&&*self.name)
    }
}

/// How a call ended, as the event says that ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nobody decided in time.
    Expired,
    /// It was denied.
    Denied,
    /// It was cancelled.
    Cancelled,
    /// It failed, and the event does not say why.
    Unclear,
}

/// Where an event comes from.
pub(super) struct From<'a> {
    pub namespace: &'a str,
    pub namespace_id: &'a str,
    pub origin: &'a str,
    pub index: u64,
    pub entry: &'a Entry<'a>,
}

/// Whether an entry can have something to tell: most have not, and are not parsed.
pub(super) fn is_relevant(entry: &[u8], open: &BTreeMap<Call, Open>, wants: &Wants) -> bool {
    let has = |part: &[u8]| memchr::memmem::find(entry, part).is_some();
    if has(b"\"approvals\":[") || wants.denied && has(b"\"answer\":\"deny\"") {
        return true;
    }
    if wants.notes && has(b"\"note\":{") || has(b"\"omitted\":") {
        return true;
    }
    if open.is_empty() {
        return false;
    }
    const RUN: &[u8] = b"\"run_id\":\"";
    memchr::memmem::find_iter(entry, RUN).any(|at| {
        let rest = &entry[at + RUN.len()..];
        let end = memchr::memchr(b'"', rest).unwrap_or(0);
        std::str::from_utf8(&rest[..end])
            .is_ok_and(|run_id| calls_of(open, run_id).next().is_some())
    })
}

/// What is to be looked for besides approvals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wants {
    pub denied: bool,
    pub notes: bool,
}

/// The calls of a run that wait.
fn calls_of<'a>(
    open: &'a BTreeMap<Call, Open>,
    run_id: &str,
) -> impl Iterator<Item = (&'a Call, &'a Open)> {
    let first = Call {
        run_id: run_id.to_owned(),
        event_id: i64::MIN,
    };
    let run_id = run_id.to_owned();
    open.range(first..)
        .take_while(move |(call, _)| call.run_id == run_id)
}

/// The events of history that may end a call that waits: to be read, and looked at for the call that they
/// are about.
pub(super) fn ends(entry: &Entry<'_>, open: &BTreeMap<Call, Open>) -> Vec<RangeInclusive<i64>> {
    if calls_of(open, &entry.run_id).next().is_none() {
        return Vec::new();
    }
    let is_end = |name: &str| {
        let ends = ["_CANCELED", "_FAILED", "_TIMED_OUT"];
        ends.iter().any(|end| name.ends_with(end)) && !name.starts_with("WORKFLOW_")
    };
    let listed = entry.events.iter().filter(|of| is_end(&of.event_type));
    // There may be too many to be listed.
    let range = entry.event_range.as_ref().map(|of| of.first..=of.last);
    listed.map(|of| of.id..=of.id).chain(range).collect()
}

/// What an entry tells. `ended` are the calls whose ends are among its events.
pub(super) fn of_entry(
    entry: &Entry<'_>,
    open: &BTreeMap<Call, Open>,
    ended: &BTreeMap<i64, End>,
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut decided = BTreeSet::new();
    let call = |event_id| Call {
        run_id: entry.run_id.to_string(),
        event_id,
    };
    // Of several about a call the last one is what came of it.
    let mut items: BTreeMap<i64, &ApprovalItem<'_>> = BTreeMap::new();
    for item in entry.approvals.iter().filter(|of| of.quorum > 0) {
        items.insert(item.scheduled_event_id, item);
    }
    for (id, item) in items {
        let known = open.get(&call(id));
        let now = opened(entry, item, known);
        if let Some((name, reason)) = outcome(entry, item, &now, known) {
            let is_over = name != APPROVALS[0];
            decided.extend(is_over.then_some(id));
            events.push(Event {
                name: name.to_owned(),
                call: Some((call(id), now)),
                reason,
                votes: item.votes.iter().map(vote).collect(),
                more: Vec::new(),
            });
        }
    }
    let denied: BTreeMap<i64, &DecisionItem<'_>> = entry
        .decisions
        .iter()
        .filter(|of| of.answer == "deny")
        .map(|of| (of.scheduled_event_id, of))
        .collect();
    for (call, known) in calls_of(open, &entry.run_id) {
        let id = call.event_id;
        let is_late = entry.t.0 >= known.expires;
        let (name, reason) = if decided.contains(&id) {
            continue;
        } else if denied.contains_key(&id) {
            (APPROVALS[2], "policies forbid it now".to_owned())
        } else if let Some(end) = ended.get(&id) {
            match end {
                End::Denied => (APPROVALS[2], String::new()),
                End::Expired => (APPROVALS[3], String::new()),
                End::Unclear if is_late => (APPROVALS[3], String::new()),
                _ => (APPROVALS[4], "the call was cancelled".to_owned()),
            }
        } else if !entry.closed.is_empty() {
            (APPROVALS[4], format!("the session ended: {}", entry.closed))
        } else if entry.deleted {
            (APPROVALS[4], "the session was deleted".to_owned())
        } else {
            continue;
        };
        events.push(Event {
            name: name.to_owned(),
            call: Some((call.clone(), known.clone())),
            reason,
            votes: Vec::new(),
            more: Vec::new(),
        });
    }
    events.extend(denied.into_values().map(|item| refused(entry, item)));
    events.extend(entry.note.as_ref().map(|note| Event {
        name: note.what.to_string(),
        call: None,
        reason: note.detail.to_string(),
        votes: Vec::new(),
        more: vec![
            ("call", json!(entry.cause.call)),
            ("principal", json!(entry.cause.principal)),
            ("workflowId", json!(note.workflow_id)),
            ("runId", json!(note.run_id)),
        ],
    }));
    events
}

/// What came of a call that has an approval; nothing if it waits on as before.
fn outcome(
    entry: &Entry<'_>,
    item: &ApprovalItem<'_>,
    now: &Open,
    known: Option<&Open>,
) -> Option<(&'static str, String)> {
    if item.released {
        return Some(match is_met(item) {
            true => (APPROVALS[1], String::new()),
            false => (
                APPROVALS[4],
                "policies do not ask for it any more".to_owned(),
            ),
        });
    }
    if item.votes.iter().any(|vote| vote.answer == "deny") {
        return Some((APPROVALS[2], String::new()));
    }
    let asks_the_same = known.is_some_and(|known| {
        (known.quorum, &known.groups, known.expires) == (now.quorum, &now.groups, now.expires)
    });
    let waits = entry.closed.is_empty() && !asks_the_same;
    waits.then_some((APPROVALS[0], String::new()))
}

fn is_met(item: &ApprovalItem<'_>) -> bool {
    let approving = || item.votes.iter().filter(|vote| vote.answer == "approve");
    let count = i64::try_from(approving().count()).unwrap_or(i64::MAX);
    let is_represented = |group| approving().any(|vote| vote.groups.contains(group));
    count >= item.quorum && item.groups.iter().all(is_represented)
}

fn opened(entry: &Entry<'_>, item: &ApprovalItem<'_>, known: Option<&Open>) -> Open {
    let decision = entry.decisions.iter().rev();
    let mut decision = decision.filter(|of| of.scheduled_event_id == item.scheduled_event_id);
    let policies = decision
        .find(|of| of.answer == "approval")
        .map(|of| &of.policies);
    let policies = policies.map(|of| of.iter().map(ToString::to_string).collect());
    let known = known.cloned().unwrap_or_else(|| Open {
        requested: entry.t.0,
        ..Open::default()
    });
    Open {
        workflow_id: entry.workflow_id.to_string(),
        kind: match &*item.kind {
            "" => "tool".to_owned(),
            kind => kind.to_owned(),
        },
        activity_id: item.activity_id.to_string(),
        activity_type: item.activity_type.to_string(),
        digest: item.digest.to_string(),
        quorum: item.quorum,
        groups: item.groups.iter().map(ToString::to_string).collect(),
        policies: policies.unwrap_or_else(|| known.policies.clone()),
        expires: item.expires.0,
        ..known
    }
}

fn vote(vote: &VoteItem<'_>) -> Value {
    json!({
        "principal": vote.by,
        "authentication": vote.auth,
        "groups": vote.groups,
        "approves": vote.answer == "approve",
        "time": vote.t.to_string(),
    })
}

fn refused(entry: &Entry<'_>, item: &DecisionItem<'_>) -> Event {
    Event {
        name: TOOL_DENIED.to_owned(),
        call: None,
        reason: String::new(),
        votes: Vec::new(),
        more: vec![
            ("workflowId", json!(entry.workflow_id)),
            ("runId", json!(entry.run_id)),
            (
                "kind",
                json!(match &*item.kind {
                    "" => "tool",
                    kind => kind,
                }),
            ),
            ("activityId", json!(item.activity_id)),
            ("activityType", json!(item.activity_type)),
            ("scheduledEventId", json!(item.scheduled_event_id)),
            ("policies", json!(item.policies)),
            ("policyHash", json!(item.policy_hash.to_string())),
        ],
    }
}

impl From<'_> {
    /// The id of an event: the same whenever it is made again.
    pub fn id(&self, event: &Event) -> String {
        let of_call = event.call.as_ref().map(|(call, _)| call.event_id);
        let of_more = event
            .more
            .iter()
            .find(|(name, _)| *name == "scheduledEventId");
        let id = of_call.or_else(|| of_more?.1.as_i64()).unwrap_or(0);
        let name: String = event
            .name
            .chars()
            .map(|of| if of.is_ascii_alphanumeric() { of } else { '-' })
            .collect();
        format!("{}-{}-{id}-{name}", self.namespace_id, self.index)
    }

    /// The event as CloudEvents 1.0 has it, in JSON (structured mode).
    pub fn cloud_event(&self, event: &Event, arguments: Option<Value>) -> Value {
        let entry = self.entry;
        let mut data = json!({
            "namespace": self.namespace,
            "entry": {"index": self.index, "n": entry.n, "time": entry.t.to_string()},
        });
        let mut subject = entry.workflow_id.to_string();
        if let Some((call, of)) = &event.call {
            data["workflowId"] = json!(of.workflow_id);
            data["runId"] = json!(call.run_id);
            data["workflowType"] = json!(of.workflow_type);
            data["initiator"] = json!(of.initiator);
            data["kind"] = json!(of.kind);
            data["activityId"] = json!(of.activity_id);
            data["activityType"] = json!(of.activity_type);
            data["scheduledEventId"] = json!(call.event_id);
            data["digest"] = json!(of.digest);
            data["quorum"] = json!(of.quorum);
            data["groups"] = json!(of.groups);
            data["policies"] = json!(of.policies);
            data["requested"] = json!(Time(of.requested).to_string());
            data["expires"] = json!(Time(of.expires).to_string());
            data["votes"] = json!(event.votes);
            subject.clone_from(&of.workflow_id);
        }
        for (name, value) in &event.more {
            data[*name] = value.clone();
        }
        if !event.reason.is_empty() {
            data["reason"] = json!(event.reason);
        }
        if let Some(arguments) = arguments {
            data["arguments"] = arguments;
        }
        let mut whole = json!({
            "specversion": "1.0",
            "id": self.id(event),
            "source": self.origin,
            "type": format!("{TYPES}{}", event.name.replace('/', ".")),
            "time": entry.t.to_string(),
            "datacontenttype": "application/json",
            "data": data,
        });
        // It must not be empty (CloudEvents 1.0, "subject").
        if !subject.is_empty() {
            whole["subject"] = json!(subject);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use steadfast_ledger::Hash;
    use steadfast_ledger::entry::{EventItem, EventRange};

    use super::*;

    fn item(id: i64, votes: &[(&'static str, &'static str)]) -> ApprovalItem<'static> {
        ApprovalItem {
            activity_id: "a".into(),
            activity_type: "refund".into(),
            digest: Hash::of(b"call"),
            expires: Time(1000),
            groups: vec!["risk".into()],
            quorum: 2,
            scheduled_event_id: id,
            votes: votes
                .iter()
                .map(|(by, answer)| VoteItem {
                    answer: (*answer).into(),
                    by: (*by).into(),
                    groups: vec!["risk".into()],
                    ..VoteItem::default()
                })
                .collect(),
            ..ApprovalItem::default()
        }
    }

    fn entry(t: i64, approvals: Vec<ApprovalItem<'static>>) -> Entry<'static> {
        Entry {
            approvals,
            run_id: "r".into(),
            workflow_id: "w".into(),
            t: Time(t),
            ..Entry::default()
        }
    }

    /// What an entry tells, as names; the calls that wait are kept up.
    fn told(
        entry: &Entry<'_>,
        open: &mut BTreeMap<Call, Open>,
        ended: &[(i64, End)],
    ) -> Vec<String> {
        let mut bytes = String::new();
        entry.write(&mut bytes);
        let events = of_entry(entry, open, &ended.iter().copied().collect());
        let relevant = is_relevant(bytes.as_bytes(), open, &Wants::default());
        assert!(relevant || events.is_empty(), "{bytes}");
        let mut names = Vec::new();
        for event in events.into_iter().filter(Event::is_of_approval) {
            names.push(event.name.clone());
            let is_request = event.is_request();
            let (call, known) = event.call.expect("a call");
            match is_request {
                true => open.insert(call, known),
                false => open.remove(&call),
            };
        }
        names
    }

    fn asked() -> BTreeMap<Call, Open> {
        let mut open = BTreeMap::new();
        let names = told(&entry(1, vec![item(5, &[])]), &mut open, &[]);
        assert_eq!(names, ["approval.requested"]);
        open
    }

    #[test]
    fn a_vote_that_is_not_enough_tells_nothing_and_the_last_one_does() {
        let mut open = asked();
        let one = item(5, &[("ann", "approve")]);
        let nothing: [&str; 0] = [];
        assert_eq!(told(&entry(2, vec![one]), &mut open, &[]), nothing);
        let both = ApprovalItem {
            released: true,
            ..item(5, &[("ann", "approve"), ("bob", "approve")])
        };
        let approved = entry(3, vec![both]);
        assert_eq!(told(&approved, &mut open, &[]), ["approval.approved"]);
        assert!(open.is_empty());
    }

    #[test]
    fn other_requirements_are_told() {
        let mut open = asked();
        let other = ApprovalItem {
            quorum: 3,
            ..item(5, &[])
        };
        let again = told(&entry(2, vec![other]), &mut open, &[]);
        assert_eq!(again, ["approval.requested"]);
        let (_, known) = open.first_key_value().expect("it waits");
        assert_eq!((known.quorum, known.requested), (3, 1));
    }

    #[test]
    fn each_end_has_its_name() {
        let released = ApprovalItem {
            released: true,
            ..item(5, &[])
        };
        let deny = DecisionItem {
            answer: "deny".into(),
            scheduled_event_id: 5,
            ..DecisionItem::default()
        };
        let denied = Entry {
            decisions: vec![deny],
            ..entry(2, Vec::new())
        };
        let closed = Entry {
            closed: "terminated".into(),
            ..entry(2, Vec::new())
        };
        let deleted = Entry {
            deleted: true,
            ..entry(2, Vec::new())
        };
        let of_other_run = Entry {
            run_id: "q".into(),
            ..entry(2000, Vec::new())
        };
        for (entry, ended, name) in [
            (
                entry(2, vec![item(5, &[("ann", "deny")])]),
                vec![],
                "approval.denied",
            ),
            (denied, vec![], "approval.denied"),
            (entry(2, vec![released]), vec![], "approval.withdrawn"),
            (
                entry(2, Vec::new()),
                vec![(5, End::Cancelled)],
                "approval.withdrawn",
            ),
            (
                entry(2, Vec::new()),
                vec![(5, End::Expired)],
                "approval.expired",
            ),
            (
                entry(2, Vec::new()),
                vec![(5, End::Unclear)],
                "approval.withdrawn",
            ),
            (
                entry(1000, Vec::new()),
                vec![(5, End::Unclear)],
                "approval.expired",
            ),
            (entry(2, Vec::new()), vec![(6, End::Expired)], ""),
            (closed, vec![], "approval.withdrawn"),
            (deleted, vec![], "approval.withdrawn"),
            // In a pause nobody is late.
            (entry(1000, Vec::new()), vec![], ""),
            (of_other_run, vec![], ""),
        ] {
            let mut open = asked();
            let names = told(&entry, &mut open, &ended);
            assert_eq!(names.join(","), name, "{entry:?}");
            assert_eq!(open.is_empty(), !name.is_empty());
        }
    }

    #[test]
    fn events_that_may_end_a_call_are_looked_at() {
        let event = |id, name: &'static str| EventItem {
            id,
            event_type: name.into(),
            ..EventItem::default()
        };
        let mut entry = entry(2, Vec::new());
        entry.events = vec![
            event(7, "ACTIVITY_TASK_STARTED"),
            event(8, "ACTIVITY_TASK_FAILED"),
            event(9, "WORKFLOW_TASK_FAILED"),
            event(10, "ACTIVITY_TASK_CANCELED"),
            event(11, "ACTIVITY_TASK_CANCEL_REQUESTED"),
        ];
        assert_eq!(ends(&entry, &asked()), [8..=8, 10..=10]);
        assert_eq!(ends(&entry, &BTreeMap::new()), []);
        entry.events.clear();
        entry.event_range = Some(EventRange {
            first: 7,
            last: 900,
            ..EventRange::default()
        });
        assert_eq!(ends(&entry, &asked()), [7..=900]);
    }

    #[test]
    fn a_cloud_event_has_what_it_needs_and_no_arguments() {
        let entry = entry(1, vec![item(5, &[])]);
        let events = of_entry(&entry, &BTreeMap::new(), &BTreeMap::new());
        let from = From {
            namespace: "default",
            namespace_id: "ns",
            origin: "log.example/default",
            index: 7,
            entry: &entry,
        };
        let event = from.cloud_event(&events[0], None);
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["id"], "ns-7-5-approval-requested");
        assert_eq!(event["type"], "dev.steadfast.approval.requested");
        assert_eq!(event["subject"], "w");
        assert_eq!(event["data"]["digest"], Hash::of(b"call").to_string());
        assert!(event["data"].get("arguments").is_none());
    }
}
