//! HTTP: health and counters.

mod bundle;
mod evidence;
mod export;
mod log;

use axum::extract::State;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use steadfast_runtime::Runtime;

use crate::evidence::bundles::Exports;
use crate::evidence::{Logs, Witnesses};

/// The routes.
pub fn router(runtime: Runtime, logs: Logs, witnesses: Witnesses) -> Router {
    let state = Status {
        runtime: runtime.clone(),
        logs: logs.clone(),
        witnesses: witnesses.clone(),
    };
    let exports = Exports::new(runtime.clone(), logs.clone(), witnesses);
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(health))
        .with_state(runtime.clone())
        .merge(
            Router::new()
                .route("/api/v1/status", get(status))
                .with_state(state),
        )
        .merge(bundle::router(exports))
        .merge(evidence::router(runtime.clone()))
        .merge(export::router(runtime.clone(), logs.clone()))
        .merge(log::router(runtime, logs))
}

async fn index() -> Html<&'static str> {
    Html(concat!(
        "<!doctype html><meta charset=utf-8><title>Steadfast</title>",
        "<h1>Steadfast ",
        env!("CARGO_PKG_VERSION"),
        "</h1><p>Durable execution for AI agents. Point a Temporal SDK or the <code>temporal</code> ",
        "command at the gRPC port.</p><p><a href=/api/v1/status>status</a></p>"
    ))
}

async fn health(State(runtime): State<Runtime>) -> impl IntoResponse {
    match runtime.is_stopping() {
        true => (axum::http::StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        false => (axum::http::StatusCode::OK, "ok\n"),
    }
}

/// What the status is made of.
#[derive(Clone)]
struct Status {
    runtime: Runtime,
    logs: Logs,
    witnesses: Witnesses,
}

async fn status(State(state): State<Status>) -> Json<serde_json::Value> {
    let runtime = &state.runtime;
    let (transitions, commits) = runtime.counters();
    let logs = state.logs.all().into_iter().map(|(namespace, log)| {
        json!({
            "namespace": namespace,
            "origin": log.origin,
            "size": log.head.size,
            "cosignedSize": log.cosigned.map(|(size, _)| size),
        })
    });
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "transitions": transitions,
        "commits": commits,
        "liveWorkflows": runtime.live_workflows(),
        "journalLag": runtime.journal_lag(),
        "logs": logs.collect::<Vec<_>>(),
        "witnesses": state.witnesses.status(),
    }))
}
