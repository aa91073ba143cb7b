//! What the sessions of a namespace would lose or repeat in a crash.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use steadfast_inventory::{Builder, Proof, Settings};
use steadfast_ledger::entry::Time;
use steadfast_runtime::Runtime;
use steadfast_runtime::inventory::MAX_SAMPLE;
use tonic::Status;

use super::refusal;
use crate::gate::Caller;
use crate::grpc::status;

/// Runs of each type whose histories are read where the request does not say.
const SAMPLE: usize = 20;

/// The routes.
pub fn router(runtime: Runtime) -> Router {
    Router::new()
        .route("/api/v1/namespaces/{namespace}/inventory", get(take))
        .with_state(runtime)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    /// Runs of each type whose histories are read.
    sample: Option<usize>,
    /// Tools that are known to pass an idempotency key, with commas between them.
    idempotent: String,
}

/// Tells which of the types were attested to be resumable.
fn prove(builder: &mut Builder, runtime: &Runtime, caller: &Caller, namespace: &str, at: Time) {
    let Ok(namespace) = runtime.namespaces().by_name(namespace) else {
        return;
    };
    builder.prove(|workflow_type| {
        let newest = caller
            .attestations()
            .newest(&namespace.id, workflow_type, at.0)?;
        Some(Proof {
            at: newest.signed.attestation.finished.to_string(),
            by: newest.signed.key,
        })
    });
}

async fn take(
    State(runtime): State<Runtime>,
    caller: Caller,
    Path(namespace): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let permit = match caller.admit("GetInventory", &namespace, "") {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    let asked = match asked {
        Ok(Query(asked)) => asked,
        Err(error) => return refusal(&Status::invalid_argument(error.body_text())),
    };
    let sample = asked.sample.unwrap_or(SAMPLE);
    if sample > MAX_SAMPLE {
        let message = format!("sample is at most {MAX_SAMPLE}");
        return refusal(&Status::invalid_argument(message));
    }
    let names = asked.idempotent.split(',').map(str::trim);
    let names = names.filter(|name| !name.is_empty());
    let settings = Settings {
        idempotent: names.map(str::to_owned).collect(),
        ..Settings::default()
    };
    let taken = runtime.take_inventory(&permit, &namespace, sample, &settings);
    match taken.await {
        Ok((mut builder, at, is_complete)) => {
            prove(&mut builder, &runtime, &caller, &namespace, at);
            let inventory = builder.finish(&namespace, at.to_string(), sample, is_complete);
            Json(inventory).into_response()
        }
        Err(error) => refusal(&status(error)),
    }
}
