//! Pausing, resuming and revoking sessions over HTTP.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use steadfast_engine::pause::PauseRequest;
use steadfast_engine::proto::workflowservice::{
    PauseWorkflowExecutionRequest, UnpauseWorkflowExecutionRequest,
};
use steadfast_runtime::error::Result;
use steadfast_runtime::{Permit, Runtime};

use super::refusal;
use crate::gate::{Caller, Target};
use crate::grpc::status;

/// The routes.
pub fn router(runtime: Runtime) -> Router {
    let base = "/api/v1/namespaces/{namespace}/sessions";
    Router::new()
        .route(&format!("{base}/pause"), post(pause))
        .route(&format!("{base}/resume"), post(resume))
        .route(&format!("{base}/revoke"), post(revoke))
        .with_state(runtime)
}

/// Which session, and why.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Session {
    workflow_id: String,
    /// The current run if it is empty.
    run_id: String,
    reason: String,
    /// Who asks for it, where nobody is authenticated.
    identity: String,
    /// The same request twice is one.
    request_id: String,
}

impl Session {
    /// The permit of a call about it.
    fn admit(
        &self,
        caller: &Caller,
        call: &str,
        namespace: &str,
    ) -> std::result::Result<Permit, tonic::Status> {
        let about = Target::of(namespace).claimed(&self.identity);
        caller.admit_to(call, &about.workflow_id(&self.workflow_id))
    }
}

async fn pause(
    State(runtime): State<Runtime>,
    caller: Caller,
    Path(namespace): Path<String>,
    Json(session): Json<Session>,
) -> Response {
    let permit = match session.admit(&caller, "PauseWorkflowExecution", &namespace) {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    let request = PauseWorkflowExecutionRequest {
        namespace,
        workflow_id: session.workflow_id,
        run_id: session.run_id,
        identity: session.identity,
        reason: session.reason,
        request_id: session.request_id,
    };
    answer(runtime.pause_workflow(&permit, request).await, "paused")
}

async fn resume(
    State(runtime): State<Runtime>,
    caller: Caller,
    Path(namespace): Path<String>,
    Json(session): Json<Session>,
) -> Response {
    let permit = match session.admit(&caller, "UnpauseWorkflowExecution", &namespace) {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    let request = UnpauseWorkflowExecutionRequest {
        namespace,
        workflow_id: session.workflow_id,
        run_id: session.run_id,
        identity: session.identity,
        reason: session.reason,
        request_id: session.request_id,
    };
    answer(runtime.unpause_workflow(&permit, request).await, "running")
}

async fn revoke(
    State(runtime): State<Runtime>,
    caller: Caller,
    Path(namespace): Path<String>,
    Json(session): Json<Session>,
) -> Response {
    let permit = match session.admit(&caller, "RevokeSession", &namespace) {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    let why = PauseRequest {
        identity: session.identity,
        reason: session.reason,
        request_id: session.request_id,
    };
    let (workflow_id, run_id) = (session.workflow_id, session.run_id);
    let revoked = runtime.revoke_workflow(&permit, &namespace, workflow_id, run_id, why);
    answer(revoked.await, "revoked")
}

fn answer(result: Result<()>, state: &str) -> Response {
    match result {
        Ok(()) => Json(json!({ "state": state })).into_response(),
        Err(error) => refusal(&status(error)),
    }
}
