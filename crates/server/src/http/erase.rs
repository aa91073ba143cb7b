//! Erasing payloads over HTTP.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use steadfast_runtime::evidence::erase::Erasure;
use steadfast_runtime::{Runtime, RuntimeError};

use super::refusal;
use crate::gate::{Caller, Target};
use crate::grpc::status;

/// What the log names as the call.
const CALL: &str = "EraseEvidence";

/// The routes.
pub fn router(runtime: Runtime) -> Router {
    Router::new()
        .route("/api/v1/namespaces/{namespace}/evidence/erase", post(erase))
        .with_state(runtime)
}

/// What is to be erased.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    workflow_id: String,
    /// All runs if it is empty.
    run_id: String,
    reason: String,
    /// Who asks for it, where nobody is authenticated.
    identity: String,
}

async fn erase(
    State(runtime): State<Runtime>,
    caller: Caller,
    Path(namespace): Path<String>,
    Json(request): Json<Request>,
) -> Response {
    let about = Target::of(&namespace).claimed(&request.identity);
    let about = about.workflow_id(&request.workflow_id);
    let permit = match caller.admit_to(CALL, &about) {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    let erasure = Erasure {
        workflow_id: request.workflow_id,
        run_id: request.run_id,
        reason: request.reason,
    };
    // A caller that goes away does not stop it half-way.
    let erased =
        tokio::spawn(async move { runtime.erase(&permit, &namespace, erasure).await }).await;
    let erased = erased.unwrap_or_else(|error| Err(RuntimeError::Internal(error.to_string())));
    match erased {
        Ok(erased) => Json(json!({
            "erased": erased.run_ids,
            "erasedBefore": erased.before,
        }))
        .into_response(),
        Err(error) => refusal(&status(error)),
    }
}
