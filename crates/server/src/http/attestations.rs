//! Attestations over HTTP: adding and listing them.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use steadfast_ledger::entry::Time;
use steadfast_runtime::Runtime;
use tonic::Status;

use super::refusal;
use crate::attestations::{AddError, Attestations, Stored};
use crate::gate::Caller;
use crate::grpc::status;

/// The routes.
pub fn router(runtime: Runtime) -> Router {
    Router::new()
        .route(
            "/api/v1/namespaces/{namespace}/attestations",
            get(list).post(add),
        )
        .with_state(runtime)
}

async fn list(
    State(runtime): State<Runtime>,
    caller: Caller,
    Path(namespace): Path<String>,
) -> Response {
    if let Err(refused) = caller.admit("ListAttestations", &namespace, "") {
        return refusal(&refused);
    }
    let namespace = match runtime.namespaces().by_name(&namespace) {
        Ok(namespace) => namespace,
        Err(error) => return refusal(&status(error)),
    };
    let attestations = caller.attestations();
    let now = steadfast_runtime::clock::now();
    let stored = attestations.list(&namespace.id);
    let shown: Vec<Value> = stored
        .iter()
        .map(|of| shown(attestations, &namespace.id, of, now))
        .collect();
    Json(json!({ "attestations": shown })).into_response()
}

async fn add(
    State(runtime): State<Runtime>,
    caller: Caller,
    Path(namespace): Path<String>,
    envelope: Bytes,
) -> Response {
    let permit = match caller.admit("AddAttestation", &namespace, "") {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    let namespace = match runtime.namespaces().by_name(&namespace) {
        Ok(namespace) => namespace,
        Err(error) => return refusal(&status(error)),
    };
    let attestations = caller.attestations().clone();
    // A caller that goes away does not stop it half-way.
    let adding = tokio::spawn({
        let (attestations, id) = (attestations.clone(), namespace.id.clone());
        async move { attestations.add(&runtime, &permit, &id, &envelope).await }
    });
    match adding.await {
        Ok(Ok(stored)) => {
            let now = steadfast_runtime::clock::now();
            Json(shown(&attestations, &namespace.id, &stored, now)).into_response()
        }
        Ok(Err(error)) => failed(error),
        Err(error) => refusal(&Status::internal(error.to_string())),
    }
}

fn shown(attestations: &Attestations, namespace_id: &str, stored: &Stored, now: i64) -> Value {
    let (signed, of) = (&stored.signed, &stored.signed.attestation);
    let newest = attestations.newest(namespace_id, &of.workflow_type, now);
    let counts = newest.is_some_and(|newest| newest.signed.digest == signed.digest);
    json!({
        "workflowType": of.workflow_type,
        "verdict": of.verdict,
        "counts": counts,
        "finished": of.finished,
        "points": of.points,
        "tried": of.tried,
        "reached": of.reached,
        "boundaries": of.boundaries,
        "faults": of.faults,
        "failures": of.failures,
        "seed": of.seed,
        "worker": of.worker,
        "subject": signed.subject,
        "prover": of.prover,
        "key": signed.key,
        "digest": signed.digest.to_string(),
        "added": Time(stored.added).to_string(),
        "addedBy": stored.added_by,
    })
}

fn failed(error: AddError) -> Response {
    let message = error.to_string();
    refusal(&match error {
        AddError::Runtime(error) => status(error),
        AddError::Invalid(_) => Status::invalid_argument(message),
        AddError::Untrusted(_) => Status::permission_denied(message),
        AddError::Full => Status::failed_precondition(message),
    })
}
