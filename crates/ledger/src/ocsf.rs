//! An entry as an event of the Open Cybersecurity Schema Framework: class API Activity (6003).
//!
//! The event says what the entry says, in the words that security tools search by, and has the
//! entry's exact bytes in `raw_data`: its leaf hash (`metadata.uid`) can be computed from it.

use serde_json::{Map, Value, json};

use crate::entry::{ApprovalItem, AttemptItem, DecisionItem, Note};
use crate::{Entry, Hash};

/// The version of the schema that events name. What they use is in it and in all later 1.x.
pub const SCHEMA_VERSION: &str = "1.1.0";

/// The class, API Activity, and its category, Application Activity.
const CLASS_UID: i64 = 6003;
const CATEGORY_UID: i64 = 6;

/// What events call this product, and what it does by itself.
const PRODUCT: &str = "Steadfast";
const SERVER: &str = "steadfast";

/// What is unknown is said to be so, with this word (OCSF, "Unknown").
const UNKNOWN: &str = "Unknown";

/// The methods of the API's operator service; all others are the workflow service's.
const OPERATOR_METHODS: &[&str] = &[
    "AddSearchAttributes",
    "RemoveSearchAttributes",
    "DeleteNamespace",
];

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Origin of the log.
    pub origin: &'a str,
    /// The entry's index in it.
    pub index: u64,
    /// Version of the server that exports it.
    pub product_version: &'a str,
}

/// What happened to what the event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    Create,
    Read,
    Update,
    Delete,
    Other,
}

impl Activity {
    fn id(self) -> i64 {
        match self {
            Self::Create => 1,
            Self::Read => 2,
            Self::Update => 3,
            Self::Delete => 4,
            Self::Other => 99,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Informational,
    Low,
    Medium,
    High,
}

impl Severity {
    fn id(self) -> i64 {
        match self {
            Self::Informational => 1,
            Self::Low => 2,
            Self::Medium => 3,
            Self::High => 4,
        }
    }
}

/// What failed: a code, and a sentence.
struct Failed {
    code: String,
    detail: String,
}

/// The event of an entry. `bytes` are the entry's own, exactly.
pub fn event(entry: &Entry<'_>, bytes: &str, place: Place<'_>) -> Value {
    let activity = activity(entry);
    let severity = severity(entry);
    let failed = failed(entry);
    let name = format!("{activity:?}");
    let mut event = json!({
        "activity_id": activity.id(),
        "activity_name": name,
        "actor": actor(entry),
        "api": api(entry),
        "category_name": "Application Activity",
        "category_uid": CATEGORY_UID,
        "class_name": "API Activity",
        "class_uid": CLASS_UID,
        "message": message(entry, failed.as_ref()),
        "metadata": metadata(entry, bytes, place),
        "raw_data": bytes,
        "resources": resources(entry),
        "severity": format!("{severity:?}"),
        "severity_id": severity.id(),
        "src_endpoint": source(entry),
        "status": if failed.is_some() { "Failure" } else { "Success" },
        "status_id": if failed.is_some() { 2 } else { 1 },
        "time": entry.t.0.div_euclid(1_000_000),
        "time_dt": entry.t.to_string(),
        "type_name": format!("API Activity: {name}"),
        "type_uid": CLASS_UID * 100 + activity.id(),
        "unmapped": unmapped(entry),
    });
    if let Some(failed) = failed {
        event["status_code"] = failed.code.into();
        event["status_detail"] = failed.detail.into();
    } else if !entry.closed.is_empty() {
        event["status_code"] = entry.closed.as_ref().into();
    }
    event
}

fn activity(entry: &Entry<'_>) -> Activity {
    if let Some(note) = &entry.note {
        return match note.what.rsplit('/').next() {
            Some("registered") => Activity::Create,
            Some("changed") => Activity::Update,
            Some("deleted" | "erased") => Activity::Delete,
            _ if note.what.starts_with("read/") => Activity::Read,
            _ => Activity::Other,
        };
    }
    let is_read = || {
        let reads = ["Get", "Describe", "List", "Count", "Query"];
        reads.iter().any(|verb| entry.cause.call.starts_with(verb))
    };
    match entry {
        Entry { deleted: true, .. } => Activity::Delete,
        Entry { n: 1, .. } => Activity::Create,
        _ if entry.events.is_empty() && entry.attempts.is_empty() && is_read() => Activity::Read,
        _ => Activity::Update,
    }
}

fn severity(entry: &Entry<'_>) -> Severity {
    if let Some(note) = &entry.note {
        return match note.what.as_ref() {
            "evidence/key-changed" | "evidence/log-restarted" => Severity::High,
            "namespace/registered" => Severity::Informational,
            what if what.starts_with("read/") => Severity::Informational,
            _ => Severity::Low,
        };
    }
    match entry.closed.as_ref() {
        "FAILED" | "TIMED_OUT" => Severity::Medium,
        "TERMINATED" => Severity::Low,
        _ if entry.deleted && !is_internal(entry) => Severity::Low,
        _ if failed(entry).is_some() => Severity::Low,
        _ => Severity::Informational,
    }
}

/// What the entry says that failed: the run, else an attempt that is tried again, else an event.
fn failed(entry: &Entry<'_>) -> Option<Failed> {
    if let status @ ("FAILED" | "TIMED_OUT") = entry.closed.as_ref() {
        return Some(Failed {
            code: status.to_owned(),
            detail: format!("the run ended: {status}"),
        });
    }
    // A later state of an attempt repeats what the one before it failed with.
    let retried = |item: &&AttemptItem<'_>| {
        item.state == "scheduled" && item.attempt > 1 && !item.last_failure.is_empty()
    };
    if let Some(item) = entry.attempts.iter().find(retried) {
        let (before, activity) = (item.attempt - 1, &item.activity_type);
        return Some(Failed {
            code: item.last_failure.to_string(),
            detail: format!("attempt {before} of {activity} failed, and is tried again"),
        });
    }
    let types = entry.events.iter().map(|event| event.event_type.as_ref());
    let buffered = entry.buffered.iter().map(|event| event.event_type.as_ref());
    let is_failure = |name: &&str| name.ends_with("_FAILED") || name.ends_with("_TIMED_OUT");
    types.chain(buffered).find(is_failure).map(|name| Failed {
        code: name.to_owned(),
        detail: format!("history has the event {name}"),
    })
}

fn is_internal(entry: &Entry<'_>) -> bool {
    entry.cause.call.starts_with("internal/")
}

/// The principal. Nothing is known of its kind but whether it is the server itself.
fn actor(entry: &Entry<'_>) -> Value {
    let name = or_unknown(&entry.cause.principal);
    let (kind, kind_id) = match entry.cause.auth.is_empty() {
        true => ("System", 3),
        false => (UNKNOWN, 0),
    };
    json!({ "user": { "name": name, "type": kind, "type_id": kind_id } })
}

/// The schema wants an endpoint, and entries have no addresses: it is named as its caller names
/// itself.
fn source(entry: &Entry<'_>) -> Value {
    match entry.cause.auth.is_empty() {
        true => json!({ "svc_name": SERVER }),
        false => json!({ "name": or_unknown(&entry.cause.principal) }),
    }
}

fn or_unknown(name: &str) -> &str {
    match name {
        "" => UNKNOWN,
        name => name,
    }
}

/// Calls that are not of the Temporal API.
const HTTP_CALLS: &[&str] = &["DecideApproval", "EraseEvidence", "ExportEvidence"];

fn api(entry: &Entry<'_>) -> Value {
    let call = entry.cause.call.as_ref();
    let service = match call {
        _ if call.contains('/') => SERVER,
        _ if OPERATOR_METHODS.contains(&call) => "temporal.api.operatorservice.v1.OperatorService",
        _ if HTTP_CALLS.contains(&call) => SERVER,
        _ => "temporal.api.workflowservice.v1.WorkflowService",
    };
    json!({ "operation": call, "service": { "name": service } })
}

fn metadata(entry: &Entry<'_>, bytes: &str, place: Place<'_>) -> Value {
    let mut metadata = json!({
        "log_name": place.origin,
        "log_version": entry.v.to_string(),
        "original_time": entry.t.to_string(),
        "product": {
            "name": PRODUCT,
            "vendor_name": PRODUCT,
            "version": place.product_version,
        },
        "profiles": ["datetime"],
        "sequence": place.index,
        "uid": Hash::leaf(bytes.as_bytes()).to_string(),
        "version": SCHEMA_VERSION,
    });
    if !entry.run_id.is_empty() {
        metadata["correlation_uid"] = entry.run_id.as_ref().into();
    }
    metadata
}

/// The run or the namespace, and the tools whose attempts changed.
fn resources(entry: &Entry<'_>) -> Value {
    let mut resources = Vec::new();
    if !entry.run_id.is_empty() {
        resources.push(run(&entry.workflow_id, &entry.run_id, &entry.ns));
    } else {
        resources.push(json!({ "name": entry.ns, "type": "namespace" }));
    }
    if let Some(note) = &entry.note
        && !(note.run_id.is_empty() && note.workflow_id.is_empty())
    {
        resources.push(run(&note.workflow_id, &note.run_id, &entry.ns));
    }
    let mut seen = Vec::new();
    for item in &entry.attempts {
        if seen.contains(&item.scheduled_event_id) {
            continue;
        }
        seen.push(item.scheduled_event_id);
        resources.push(json!({
            "name": item.activity_type,
            "namespace": entry.ns,
            "type": "tool call",
            "uid": item.activity_id,
        }));
    }
    resources.into()
}

fn run(workflow_id: &str, run_id: &str, namespace: &str) -> Value {
    let mut run = json!({ "namespace": namespace, "type": "workflow run" });
    for (key, value) in [("name", workflow_id), ("uid", run_id)] {
        if !value.is_empty() {
            run[key] = value.into();
        }
    }
    run
}

/// What the schema has no place for. Hashes of events are in `raw_data`.
fn unmapped(entry: &Entry<'_>) -> Value {
    let mut of = Map::new();
    of.insert("n".into(), entry.n.into());
    let texts = [
        ("auth", &entry.cause.auth),
        ("closed", &entry.closed),
        ("run_id", &entry.run_id),
        ("workflow_id", &entry.workflow_id),
    ];
    for (key, value) in texts {
        if !value.is_empty() {
            of.insert(key.into(), value.as_ref().into());
        }
    }
    if let Some(prev) = entry.prev {
        of.insert("prev".into(), prev.to_string().into());
    }
    if entry.deleted {
        of.insert("deleted".into(), true.into());
    }
    if entry.omitted > 0 {
        of.insert("omitted".into(), entry.omitted.into());
    }
    if let Some(range) = &entry.event_range {
        let range = json!({ "first": range.first, "last": range.last });
        of.insert("event_range".into(), range);
    }
    if let Some(follows) = &entry.follows {
        of.insert("follows".into(), follows.run_id.as_ref().into());
    }
    if let Some(note) = &entry.note {
        of.insert("note".into(), of_note(note));
    }
    let events = entry.events.iter().map(|event| {
        let mut value = json!({ "id": event.id, "type": event.event_type });
        if !event.by.is_empty() {
            value["by"] = event.by.as_ref().into();
        }
        value
    });
    insert_list(&mut of, "events", events);
    let buffered = entry.buffered.iter();
    insert_list(
        &mut of,
        "buffered",
        buffered.map(|event| event.event_type.as_ref().into()),
    );
    insert_list(&mut of, "attempts", entry.attempts.iter().map(of_attempt));
    insert_list(
        &mut of,
        "decisions",
        entry.decisions.iter().map(of_decision),
    );
    insert_list(
        &mut of,
        "approvals",
        entry.approvals.iter().map(of_approval),
    );
    of.into()
}

fn insert_list(of: &mut Map<String, Value>, key: &str, values: impl Iterator<Item = Value>) {
    let values: Vec<Value> = values.collect();
    if !values.is_empty() {
        of.insert(key.into(), values.into());
    }
}

fn of_decision(item: &DecisionItem<'_>) -> Value {
    with_kind(
        &item.kind,
        json!({
            "activity_id": item.activity_id,
            "activity_type": item.activity_type,
            "answer": item.answer,
            "policies": item.policies,
            "policy_hash": item.policy_hash.to_string(),
            "scheduled_event_id": item.scheduled_event_id,
        }),
    )
}

/// What is no tool call says what it is.
fn with_kind(kind: &str, mut of: Value) -> Value {
    if !kind.is_empty() {
        of["kind"] = kind.into();
    }
    of
}

fn of_approval(item: &ApprovalItem<'_>) -> Value {
    let votes = item.votes.iter().map(|vote| {
        json!({ "answer": vote.answer, "by": vote.by, "auth": vote.auth, "groups": vote.groups })
    });
    with_kind(
        &item.kind,
        json!({
            "activity_id": item.activity_id,
            "activity_type": item.activity_type,
            "digest": item.digest.to_string(),
            "groups": item.groups,
            "quorum": item.quorum,
            "released": item.released,
            "scheduled_event_id": item.scheduled_event_id,
            "votes": votes.collect::<Vec<_>>(),
        }),
    )
}

fn of_attempt(item: &AttemptItem<'_>) -> Value {
    let mut value = json!({
        "activity_id": item.activity_id,
        "activity_type": item.activity_type,
        "attempt": item.attempt,
        "scheduled_event_id": item.scheduled_event_id,
        "state": item.state,
    });
    for (key, text) in [
        ("last_failure", &item.last_failure),
        ("worker", &item.worker),
    ] {
        if !text.is_empty() {
            value[key] = text.as_ref().into();
        }
    }
    if let Some(credential) = &item.credential {
        value["credential"] = json!({
            "audience": credential.audience,
            "expires": credential.expires.to_string(),
            "jti": credential.jti,
        });
    }
    value
}

fn of_note(note: &Note<'_>) -> Value {
    let mut value = json!({ "what": note.what });
    if !note.detail.is_empty() {
        value["detail"] = note.detail.as_ref().into();
    }
    value
}

/// One line for people.
fn message(entry: &Entry<'_>, failed: Option<&Failed>) -> String {
    if let Some(note) = &entry.note {
        return format!("{}: {}", entry.ns, note.what);
    }
    let what = match failed {
        Some(failed) => format!(": {}", failed.detail),
        None if entry.deleted => ": the run was deleted".to_owned(),
        None if !entry.closed.is_empty() => format!(": the run ended: {}", entry.closed),
        None => String::new(),
    };
    format!("{} on {}{what}", entry.cause.call, entry.workflow_id)
}

#[cfg(test)]
mod tests;
