//! Events and attempts in plain words.

use std::borrow::Cow;

use crate::entry::{ApprovalItem, AttemptItem, DecisionItem};

/// How something is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// Something was tried and failed.
    Failed,
    /// The run ended well.
    Done,
}

/// What an event says happened.
pub(super) fn event(event_type: &str) -> (Tone, Cow<'static, str>) {
    let sentence = match event_type {
        "WORKFLOW_EXECUTION_STARTED" => "The run was started",
        "WORKFLOW_EXECUTION_COMPLETED" => "The run completed",
        "WORKFLOW_EXECUTION_FAILED" => "The run failed",
        "WORKFLOW_EXECUTION_TIMED_OUT" => "The run took too long and was ended",
        "WORKFLOW_EXECUTION_CANCELED" => "The run was canceled",
        "WORKFLOW_EXECUTION_TERMINATED" => "The run was terminated",
        "WORKFLOW_EXECUTION_CONTINUED_AS_NEW" => "The run went on as a new run",
        "WORKFLOW_EXECUTION_SIGNALED" => "A signal was sent to the run",
        "WORKFLOW_EXECUTION_CANCEL_REQUESTED" => "The run was asked to cancel",
        "WORKFLOW_EXECUTION_OPTIONS_UPDATED" => "Options of the run were changed",
        "WORKFLOW_EXECUTION_PAUSED" => "The run was paused",
        "WORKFLOW_EXECUTION_UNPAUSED" => "The run was resumed",
        "WORKFLOW_EXECUTION_UPDATE_ADMITTED" => "An update of the run was admitted",
        "WORKFLOW_EXECUTION_UPDATE_ACCEPTED" => "An update of the run was accepted",
        "WORKFLOW_EXECUTION_UPDATE_REJECTED" => "An update of the run was rejected",
        "WORKFLOW_EXECUTION_UPDATE_COMPLETED" => "An update of the run completed",
        "WORKFLOW_TASK_SCHEDULED" => "A step of the workflow was due",
        "WORKFLOW_TASK_STARTED" => "A worker took the step",
        "WORKFLOW_TASK_COMPLETED" => "The worker finished the step",
        "WORKFLOW_TASK_TIMED_OUT" => "The step took too long",
        "WORKFLOW_TASK_FAILED" => "The step failed",
        "ACTIVITY_TASK_SCHEDULED" => "A tool call was scheduled",
        "ACTIVITY_TASK_STARTED" => "A worker took the tool call",
        "ACTIVITY_TASK_COMPLETED" => "The tool call completed",
        "ACTIVITY_TASK_FAILED" => "The tool call failed",
        "ACTIVITY_TASK_TIMED_OUT" => "The tool call took too long",
        "ACTIVITY_TASK_CANCEL_REQUESTED" => "The tool call was asked to cancel",
        "ACTIVITY_TASK_CANCELED" => "The tool call was canceled",
        "TIMER_STARTED" => "A timer was started",
        "TIMER_FIRED" => "A timer ran out",
        "TIMER_CANCELED" => "A timer was canceled",
        "MARKER_RECORDED" => "The workflow recorded a marker",
        "UPSERT_WORKFLOW_SEARCH_ATTRIBUTES" => "Search attributes were set",
        "WORKFLOW_PROPERTIES_MODIFIED" => "Properties of the run were set",
        "START_CHILD_WORKFLOW_EXECUTION_INITIATED" => "A child workflow is to be started",
        "START_CHILD_WORKFLOW_EXECUTION_FAILED" => "The child workflow could not be started",
        "CHILD_WORKFLOW_EXECUTION_STARTED" => "The child workflow was started",
        "CHILD_WORKFLOW_EXECUTION_COMPLETED" => "The child workflow completed",
        "CHILD_WORKFLOW_EXECUTION_FAILED" => "The child workflow failed",
        "CHILD_WORKFLOW_EXECUTION_CANCELED" => "The child workflow was canceled",
        "CHILD_WORKFLOW_EXECUTION_TIMED_OUT" => "The child workflow took too long",
        "CHILD_WORKFLOW_EXECUTION_TERMINATED" => "The child workflow was terminated",
        "SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED" => "Another run is to be sent a signal",
        "SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED" => "The other run could not be sent the signal",
        "EXTERNAL_WORKFLOW_EXECUTION_SIGNALED" => "The other run was sent the signal",
        "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED" => {
            "Another run is to be asked to cancel"
        }
        "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED" => {
            "The other run could not be asked to cancel"
        }
        "EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED" => "The other run was asked to cancel",
        "NEXUS_OPERATION_SCHEDULED" => "A Nexus operation was scheduled",
        "NEXUS_OPERATION_STARTED" => "The Nexus operation was started",
        "NEXUS_OPERATION_COMPLETED" => "The Nexus operation completed",
        "NEXUS_OPERATION_FAILED" => "The Nexus operation failed",
        "NEXUS_OPERATION_CANCELED" => "The Nexus operation was canceled",
        "NEXUS_OPERATION_TIMED_OUT" => "The Nexus operation took too long",
        "NEXUS_OPERATION_CANCEL_REQUESTED" => "The Nexus operation was asked to cancel",
        _ => return (tone(event_type), humanized(event_type).into()),
    };
    (tone(event_type), sentence.into())
}

fn tone(event_type: &str) -> Tone {
    const FAILED: [&str; 4] = ["_FAILED", "_TIMED_OUT", "_TERMINATED", "_REJECTED"];
    match event_type {
        "WORKFLOW_EXECUTION_COMPLETED" => Tone::Done,
        _ if FAILED.iter().any(|end| event_type.ends_with(end)) => Tone::Failed,
        _ => Tone::Plain,
    }
}

/// `SOME_TYPE`, not known here, as `Some type`.
fn humanized(event_type: &str) -> String {
    let lower = event_type.replace('_', " ").to_lowercase();
    let mut characters = lower.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => "An event without a type".to_owned(),
    }
}

/// What happened to a tool call that has no event yet.
pub(super) fn attempt(item: &AttemptItem<'_>) -> (Tone, String) {
    let what = tool(&item.activity_type);
    let (number, failure) = (item.attempt, item.last_failure.as_ref());
    let worker = match item.worker.as_ref() {
        "" => "a worker",
        name => name,
    };
    let credential = match &item.credential {
        Some(of) => format!(
            "; its credential {} is for {} until {}",
            of.jti, of.audience, of.expires
        ),
        None => String::new(),
    };
    match (item.state.as_ref(), failure) {
        ("scheduled", "") => (
            Tone::Plain,
            format!("{what}: attempt {number} waits for a worker"),
        ),
        ("scheduled", _) => (
            Tone::Failed,
            format!("{what}: an attempt failed with {failure}; attempt {number} is to follow"),
        ),
        ("started", "") => (
            Tone::Plain,
            format!("{what}: attempt {number} was started on {worker}{credential}"),
        ),
        ("started", _) => (
            Tone::Plain,
            format!(
                "{what}: attempt {number} was started on {worker}, after one that failed with {failure}{credential}"
            ),
        ),
        ("heartbeat", _) => (
            Tone::Plain,
            format!("{what}: {worker} is at work on attempt {number}"),
        ),
        ("", _) => (
            Tone::Plain,
            format!("{what}: no attempt is under way any more"),
        ),
        (state, _) => (Tone::Plain, format!("{what}: attempt {number}: {state}")),
    }
}

/// What a note says happened.
pub(super) fn note(what: &str) -> Cow<'_, str> {
    match what {
        "evidence/erased" => "Payloads were erased".into(),
        "evidence/key-changed" => "The log is signed by another key".into(),
        "evidence/log-restarted" => "A new log was begun".into(),
        "namespace/registered" => "The namespace was registered".into(),
        "namespace/changed" => "The namespace was changed".into(),
        "configuration/started" => "The server was started with other settings".into(),
        "read/history" => "A history was read".into(),
        "read/bundle" => "Evidence was exported".into(),
        "read/query" => "The workflow was queried".into(),
        "read/describe" => "A run was described".into(),
        "read/list" => "Runs were listed".into(),
        "read/count" => "Runs were counted".into(),
        _ => what.into(),
    }
}

/// What a policy decided.
pub(super) fn decision(item: &DecisionItem<'_>) -> (Tone, String) {
    let what = call(&item.kind, &item.activity_type, &item.activity_id);
    let policies = item.policies.join(", ");
    let (tone, sentence) = match item.answer.as_ref() {
        "allow" => (Tone::Plain, format!("{what} was allowed")),
        "deny" => (Tone::Failed, format!("{what} was refused")),
        _ => (Tone::Plain, format!("{what} needs approval")),
    };
    match policies.is_empty() {
        true => (tone, format!("{sentence}: no policy permits it")),
        false => (tone, format!("{sentence} by policy {policies}")),
    }
}

/// How far an approval is.
pub(super) fn approval(item: &ApprovalItem<'_>) -> (Tone, String) {
    let what = call(&item.kind, &item.activity_type, &item.activity_id);
    let votes = item.votes.iter().map(|vote| match vote.answer.as_ref() {
        "approve" => format!("{} approved", vote.by),
        _ => format!("{} denied it", vote.by),
    });
    let votes: Vec<String> = votes.collect();
    let votes = votes.join(", ");
    let groups = match item.groups.is_empty() {
        true => String::new(),
        false => format!(" of {}", item.groups.join(" and ")),
    };
    let is_denied = item.votes.iter().any(|vote| vote.answer != "approve");
    match (item.released, votes.as_str()) {
        (true, "") => (Tone::Done, format!("{what} needs no approval any more")),
        (true, _) => (Tone::Done, format!("{what} goes on: {votes}")),
        (false, "") => (
            Tone::Plain,
            format!("{what} waits for {} people{groups}", item.quorum),
        ),
        (false, _) if is_denied => (Tone::Failed, format!("{what}: {votes}")),
        (false, _) => (
            Tone::Plain,
            format!("{what} waits for {} people{groups}: {votes}", item.quorum),
        ),
    }
}

/// A call, as sentences begin: of others than tools with the workflow that they are about.
fn call<'a>(kind: &str, name: &'a str, id: &str) -> Cow<'a, str> {
    match kind {
        "" => tool(name).into(),
        "child" => format!("The child {id} ({name})").into(),
        "signal" => format!("The signal {name} to {id}").into(),
        "cancel" => format!("The request to cancel {id}").into(),
        "local" => format!("{} within the worker", tool(name)).into(),
        "continue-as" => format!("Going on as {name}").into(),
        kind => format!("{kind} {name}").into(),
    }
}

fn tool(name: &str) -> &str {
    if name.is_empty() {
        "The tool call"
    } else {
        name
    }
}

/// How sure it is who somebody was.
pub(super) fn authentication(method: &str) -> Cow<'_, str> {
    match method {
        "" => "the server itself".into(),
        "unauthenticated" => "claimed, not authenticated".into(),
        "oidc" => "authenticated by a token".into(),
        "mtls" => "authenticated by a certificate".into(),
        "api-key" => "authenticated by an API key".into(),
        _ => method.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_stands_out() {
        assert_eq!(event("ACTIVITY_TASK_FAILED").0, Tone::Failed);
        assert_eq!(event("WORKFLOW_EXECUTION_COMPLETED").0, Tone::Done);
        assert_eq!(event("TIMER_FIRED").0, Tone::Plain);
    }

    #[test]
    fn an_attempt_says_what_it_was_given() {
        let item = AttemptItem {
            activity_type: "refund".into(),
            attempt: 1,
            credential: Some(crate::entry::CredentialItem {
                audience: "https://pay.example".into(),
                expires: crate::entry::Time(0),
                jti: "j-1".into(),
            }),
            state: "started".into(),
            worker: "w".into(),
            ..AttemptItem::default()
        };
        let expected = "refund: attempt 1 was started on w; its credential j-1 is for \
                        https://pay.example until 1970-01-01T00:00:00.000000000Z";
        assert_eq!(attempt(&item).1, expected);
    }

    #[test]
    fn unknown_types_are_readable() {
        assert_eq!(event("SOMETHING_NEW_FAILED").1, "Something new failed");
        assert_eq!(event("").1, "An event without a type");
    }
}
