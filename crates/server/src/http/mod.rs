//! HTTP: health and counters.

mod evidence;
mod log;

use axum::extract::State;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use steadfast_runtime::Runtime;

use crate::evidence::Logs;

/// The routes.
pub fn router(runtime: Runtime, logs: Logs) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(health))
        .route("/api/v1/status", get(status))
        .with_state(runtime.clone())
        .merge(evidence::router(runtime.clone()))
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

async fn status(State(runtime): State<Runtime>) -> Json<serde_json::Value> {
    let (transitions, commits) = runtime.counters();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "transitions": transitions,
        "commits": commits,
        "liveWorkflows": runtime.live_workflows(),
        "journalLag": runtime.journal_lag(),
    }))
}
