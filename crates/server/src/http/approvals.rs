//! Tool calls and other commands that wait for people: the list, and votes.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use steadfast_engine::approval::{Voted, WhichCall};
use steadfast_engine::proto::common::Payload;
use steadfast_engine::record::CallKind;
use steadfast_engine::state::Vote;
use steadfast_ledger::entry::Time;
use steadfast_runtime::calls::approvals::{Decide, WaitingCall};
use steadfast_runtime::{Kind, Runtime, RuntimeError};
use tonic::Status;

use super::refusal;
use crate::gate::{Caller, Target};
use crate::grpc::status;

/// The routes.
pub fn router(runtime: Runtime) -> Router {
    Router::new()
        .route(
            "/api/v1/namespaces/{namespace}/approvals",
            get(list).post(decide),
        )
        .with_state(runtime)
}

async fn list(
    State(runtime): State<Runtime>,
    caller: Caller,
    Path(namespace): Path<String>,
) -> Response {
    let permit = match caller.admit("ListApprovals", &namespace, "") {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    match runtime.waiting_calls(&permit, &namespace).await {
        Ok(calls) => {
            let approvals: Vec<Value> = calls.iter().map(as_json).collect();
            Json(json!({ "approvals": approvals })).into_response()
        }
        Err(error) => failed(error),
    }
}

/// A vote.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Ballot {
    workflow_id: String,
    /// The current run if it is empty.
    run_id: String,
    /// The tool call; or
    activity_id: String,
    /// the call that this event scheduled or initiated.
    event_id: i64,
    /// The digest of the call that was looked at, as the list has it.
    digest: String,
    approve: bool,
    comment: String,
    /// Who votes.
    identity: String,
    /// Groups that they are in.
    groups: Vec<String>,
}

async fn decide(
    State(runtime): State<Runtime>,
    caller: Caller,
    Path(namespace): Path<String>,
    Json(ballot): Json<Ballot>,
) -> Response {
    let about = Target::of(&namespace).claimed(&ballot.identity);
    let about = about.workflow_id(&ballot.workflow_id);
    let permit = match caller.admit_to("DecideApproval", &about) {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    let Ok(digest) = STANDARD.decode(&ballot.digest) else {
        return refusal(&Status::invalid_argument("the digest is not base64"));
    };
    // Groups are claims where everything about a caller is.
    let groups = match permit.kind() {
        Kind::Unauthenticated => ballot.groups,
        _ => permit.groups().to_vec(),
    };
    let decide = Decide {
        workflow_id: ballot.workflow_id,
        run_id: ballot.run_id,
        call: match ballot.event_id {
            0 => WhichCall::Activity(ballot.activity_id),
            event_id => WhichCall::Event(event_id),
        },
        digest,
        groups,
        approves: ballot.approve,
        comment: ballot.comment,
    };
    match runtime.decide_approval(&permit, &namespace, decide).await {
        Ok(voted) => Json(json!({
            "state": match voted {
                Voted::Waiting => "waiting",
                Voted::Released => "released",
                Voted::Refused => "refused",
            }
        }))
        .into_response(),
        Err(error) => failed(error),
    }
}

fn failed(error: RuntimeError) -> Response {
    refusal(&status(error))
}

fn as_json(call: &WaitingCall) -> Value {
    let approval = &call.approval;
    let arguments = call.arguments.iter().flat_map(|of| &of.payloads);
    let initiator = call.initiator.as_ref();
    let mut value = json!({
        "kind": call.kind.name(),
        "eventId": call.event_id,
        "workflowId": call.workflow_id,
        "runId": call.run_id,
        "workflowType": call.workflow_type,
        "initiator": initiator.map(|of| json!({ "name": of.name, "type": of.r#type })),
        "activityId": call.activity_id,
        "activityType": call.activity_type,
        "arguments": arguments.map(argument).collect::<Vec<_>>(),
        "requested": Time(approval.requested).to_string(),
        "expires": Time(approval.expires).to_string(),
        "quorum": approval.quorum,
        "groups": approval.groups,
        "policies": approval.policies,
        "digest": STANDARD.encode(&approval.digest),
        "votes": approval.votes.iter().map(vote).collect::<Vec<_>>(),
    });
    if call.kind != CallKind::Tool {
        value["target"] = target(call);
    }
    value
}

/// The workflow that a call is about.
fn target(call: &WaitingCall) -> Value {
    let mut target = json!({ "workflowId": call.activity_id });
    let texts = [
        ("runId", &call.target_run_id),
        ("taskQueue", &call.task_queue),
        ("cronSchedule", &call.cron_schedule),
        ("reason", &call.reason),
    ];
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        target[key] = text.as_str().into();
    }
    let flags = [
        ("childrenOnly", call.children_only),
        ("terminatesRunning", call.terminates_running),
    ];
    for (key, _) in flags.into_iter().filter(|(_, is_so)| *is_so) {
        target[key] = true.into();
    }
    target
}

fn vote(vote: &Vote) -> Value {
    json!({
        "principal": vote.principal,
        "groups": vote.groups,
        "approves": vote.approves,
        "comment": vote.comment,
        "time": Time(vote.time).to_string(),
    })
}

/// An argument: what its JSON says, or its bytes.
pub(crate) fn argument(payload: &Payload) -> Value {
    let encoding = payload.metadata.get("encoding").map(Vec::as_slice);
    let parsed = match encoding {
        Some(b"binary/null") => Some(Value::Null),
        Some(b"json/plain") => serde_json::from_slice(&payload.data).ok(),
        _ => None,
    };
    match parsed {
        Some(value) => json!({ "json": value }),
        None => json!({
            "encoding": String::from_utf8_lossy(encoding.unwrap_or_default()),
            "base64": STANDARD.encode(&payload.data),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(encoding: &str, data: &[u8]) -> Payload {
        Payload {
            metadata: [("encoding".to_owned(), encoding.into())].into(),
            data: data.into(),
            ..Payload::default()
        }
    }

    #[test]
    fn arguments_are_shown_as_they_are() {
        for (payload, shown) in [
            (
                payload("json/plain", b"{\"amount\":1200}"),
                json!({"json": {"amount": 1200}}),
            ),
            (payload("binary/null", b""), json!({"json": null})),
            (
                payload("json/plain", b"{"),
                json!({"encoding": "json/plain", "base64": "ew=="}),
            ),
            (
                payload("binary/encrypted", b"\x01"),
                json!({"encoding": "binary/encrypted", "base64": "AQ=="}),
            ),
            (Payload::default(), json!({"encoding": "", "base64": ""})),
        ] {
            assert_eq!(argument(&payload), shown);
        }
    }
}
