//! What is asked of the server itself.

use std::time::Duration;

use serde_json::{Value, json};
use steadfast_api::messages::common::v1::{Payload, Payloads, WorkflowExecution, WorkflowType};
use steadfast_api::messages::enums::v1::{PendingActivityState, WorkflowExecutionStatus};
use steadfast_api::messages::history::v1::HistoryEvent;
use steadfast_api::messages::history::v1::history_event::Attributes;
use steadfast_api::messages::taskqueue::v1::TaskQueue;
use steadfast_api::messages::workflowservice::v1 as api;
use steadfast_api::workflowservice::workflow_service_client::WorkflowServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::ProveError;
use crate::seen::message;

/// The namespace of a throw-away server.
const NAMESPACE: &str = "default";

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a call is tried while the server is away.
const TRIES: u32 = 100;

/// Calls one method, again and again while the server is away.
macro_rules! call {
    ($channel:expr, $method:ident, $request:expr) => {{
        let request = $request;
        let mut tries = 0;
        loop {
            let mut client =
                WorkflowServiceClient::new($channel.clone()).max_decoding_message_size(64 << 20);
            let result = tokio::time::timeout(PATIENCE, client.$method(request.clone())).await;
            match result.unwrap_or_else(|_| Err(Status::unavailable("no answer"))) {
                Err(status) if is_away(&status) && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => break other.map(tonic::Response::into_inner),
            }
        }
    }};
}

fn is_away(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled
    )
}

fn failed(what: &str, status: &Status) -> ProveError {
    ProveError::Server(format!("{what}: {}", status.message()))
}

/// Starts the workflow. Gives its run id.
pub async fn start(
    channel: Channel,
    workflow_type: &str,
    workflow_id: &str,
    task_queue: &str,
    input: &[Value],
) -> Result<String, ProveError> {
    let request = api::StartWorkflowExecutionRequest {
        namespace: NAMESPACE.into(),
        workflow_id: workflow_id.into(),
        workflow_type: Some(WorkflowType {
            name: workflow_type.into(),
        }),
        task_queue: Some(TaskQueue {
            name: task_queue.into(),
            ..TaskQueue::default()
        }),
        input: Some(payloads(input)),
        identity: "steadfast prove".into(),
        request_id: format!("{workflow_id} starts"),
        ..api::StartWorkflowExecutionRequest::default()
    };
    let started = call!(channel, start_workflow_execution, request);
    let started = started.map_err(|status| failed("the workflow cannot be started", &status))?;
    Ok(started.run_id)
}

/// Sends a signal, once.
pub async fn signal(
    channel: Channel,
    workflow_id: &str,
    name: &str,
    number: usize,
    input: Option<&Value>,
) -> Result<(), ProveError> {
    let request = api::SignalWorkflowExecutionRequest {
        namespace: NAMESPACE.into(),
        workflow_execution: Some(execution(workflow_id, "")),
        signal_name: name.into(),
        input: Some(payloads(
            input.map(std::slice::from_ref).unwrap_or_default(),
        )),
        identity: "steadfast prove".into(),
        request_id: format!("{workflow_id} signal {number}"),
        ..api::SignalWorkflowExecutionRequest::default()
    };
    let sent = call!(channel, signal_workflow_execution, request);
    sent.map(|_| ())
        .map_err(|status| failed("a signal was not taken", &status))
}

/// Asks a workflow to end.
pub async fn cancel(channel: Channel, workflow_id: &str) -> Result<(), ProveError> {
    let request = api::RequestCancelWorkflowExecutionRequest {
        namespace: NAMESPACE.into(),
        workflow_execution: Some(execution(workflow_id, "")),
        identity: "steadfast prove".into(),
        request_id: format!("{workflow_id} is cancelled"),
        ..api::RequestCancelWorkflowExecutionRequest::default()
    };
    call!(channel, request_cancel_workflow_execution, request)
        .map(|_| ())
        .map_err(|status| failed("the workflow cannot be cancelled", &status))
}

/// How a workflow is.
pub struct Described {
    /// Its status.
    pub status: WorkflowExecutionStatus,
    /// What it waits for, in words.
    pub waits_for: Vec<String>,
}

/// How the current run of a workflow is.
pub async fn describe(channel: Channel, workflow_id: &str) -> Result<Described, ProveError> {
    let described = describe_run(channel, workflow_id, "").await?;
    let mut waits_for = Vec::new();
    for activity in &described.pending_activities {
        let name = activity.activity_type.as_ref().map_or("", |of| &of.name);
        let why = message(activity.last_failure.as_ref());
        let state = match activity.state() {
            PendingActivityState::Started => "is with a worker",
            _ => "waits for a worker",
        };
        let why = if why.is_empty() {
            why
        } else {
            format!(" (before: {why})")
        };
        waits_for.push(format!("{name} {state}, attempt {}{why}", activity.attempt));
    }
    if let Some(task) = &described.pending_workflow_task {
        waits_for.push(format!("its workflow task, attempt {}", task.attempt));
    }
    if !described.pending_children.is_empty() {
        waits_for.push("a child workflow".to_owned());
    }
    let info = described.workflow_execution_info.unwrap_or_default();
    Ok(Described {
        status: info.status(),
        waits_for,
    })
}

async fn describe_run(
    channel: Channel,
    workflow_id: &str,
    run_id: &str,
) -> Result<api::DescribeWorkflowExecutionResponse, ProveError> {
    let request = api::DescribeWorkflowExecutionRequest {
        namespace: NAMESPACE.into(),
        execution: Some(execution(workflow_id, run_id)),
    };
    call!(channel, describe_workflow_execution, request)
        .map_err(|status| failed("the workflow cannot be described", &status))
}

/// Whether an attempt of an activity still counts.
pub async fn is_current(
    channel: Channel,
    (workflow_id, run_id): &(String, String),
    activity_id: &str,
    attempt: i32,
) -> Result<bool, ProveError> {
    let described = describe_run(channel, workflow_id, run_id).await?;
    let mut pending = described.pending_activities.iter();
    Ok(pending.any(|of| {
        of.activity_id == activity_id
            && of.attempt == attempt
            && of.state() == PendingActivityState::Started
    }))
}

/// The history of the current run of a workflow.
pub async fn history(channel: Channel, workflow_id: &str) -> Result<Vec<HistoryEvent>, ProveError> {
    let mut events = Vec::new();
    let mut next_page_token = Vec::new();
    loop {
        let request = api::GetWorkflowExecutionHistoryRequest {
            namespace: NAMESPACE.into(),
            execution: Some(execution(workflow_id, "")),
            next_page_token,
            ..api::GetWorkflowExecutionHistoryRequest::default()
        };
        let page = call!(channel, get_workflow_execution_history, request)
            .map_err(|status| failed("the history cannot be read", &status))?;
        events.extend(page.history.unwrap_or_default().events);
        next_page_token = page.next_page_token;
        if next_page_token.is_empty() {
            return Ok(events);
        }
    }
}

/// What came out of a workflow, from its last event: in JSON, where it says that it is.
pub fn result_of(events: &[HistoryEvent]) -> Value {
    use Attributes as A;
    match events.last().and_then(|event| event.attributes.as_ref()) {
        Some(A::WorkflowExecutionCompletedEventAttributes(of)) => values(of.result.as_ref()),
        Some(A::WorkflowExecutionFailedEventAttributes(of)) => {
            json!({ "failed": message(of.failure.as_ref()) })
        }
        Some(A::WorkflowExecutionTimedOutEventAttributes(_)) => json!({ "failed": "timed out" }),
        Some(A::WorkflowExecutionTerminatedEventAttributes(of)) => {
            json!({ "failed": format!("terminated: {}", of.reason) })
        }
        Some(A::WorkflowExecutionCanceledEventAttributes(_)) => json!({ "failed": "cancelled" }),
        _ => Value::Null,
    }
}

/// The payloads as JSON: one alone, more as a list.
fn values(payloads: Option<&Payloads>) -> Value {
    let payloads = payloads.map_or(&[][..], |of| &of.payloads);
    let mut values: Vec<Value> = payloads.iter().map(value).collect();
    match values.len() {
        0 => Value::Null,
        1 => values.remove(0),
        _ => Value::Array(values),
    }
}

fn value(payload: &Payload) -> Value {
    use base64::Engine;
    let encoding = payload.metadata.get("encoding").map(Vec::as_slice);
    match (encoding, serde_json::from_slice(&payload.data)) {
        (Some(b"binary/null"), _) => Value::Null,
        (Some(of), Ok(value)) if of.starts_with(b"json/") => value,
        _ => {
            let data = base64::prelude::BASE64_STANDARD.encode(&payload.data);
            json!({ "base64": data })
        }
    }
}

fn payloads(values: &[Value]) -> Payloads {
    let payload = |value: &Value| Payload {
        metadata: [("encoding".to_owned(), b"json/plain".to_vec())].into(),
        data: value.to_string().into_bytes(),
        ..Payload::default()
    };
    Payloads {
        payloads: values.iter().map(payload).collect(),
    }
}

fn execution(workflow_id: &str, run_id: &str) -> WorkflowExecution {
    WorkflowExecution {
        workflow_id: workflow_id.into(),
        run_id: run_id.into(),
    }
}
