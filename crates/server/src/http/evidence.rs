//! Evidence over HTTP: the check of a namespace. The answer is JSON lines: progress, and the result
//! at the end.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::StreamExt;
use serde_json::json;
use steadfast_runtime::Runtime;
use steadfast_runtime::evidence::check::Findings;
use tokio::sync::mpsc;

use crate::gate::Caller;

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Lines that wait for a slow reader; progress beyond them is left out.
const WAITING_LINES: usize = 16;

/// The routes.
pub fn router(runtime: Runtime) -> Router {
    Router::new()
        .route("/api/v1/namespaces/{namespace}/evidence/check", post(check))
        .with_state(runtime)
}

async fn check(
    State(runtime): State<Runtime>,
    caller: Caller,
    Path(namespace): Path<String>,
) -> Response {
    if let Err(refused) = caller.admit("CheckEvidence", &namespace, "") {
        return super::refusal(&refused);
    }
    let Ok(namespace) = runtime.namespaces().by_name(&namespace) else {
        let message = format!("there is no namespace {namespace:?}\n");
        return (StatusCode::NOT_FOUND, message).into_response();
    };
    let (lines, receiver) = mpsc::channel(WAITING_LINES);
    tokio::spawn(async move {
        let mut last = Instant::now();
        let checked = runtime
            .check_evidence(&namespace.id, |findings| {
                if last.elapsed() >= PROGRESS_INTERVAL {
                    last = Instant::now();
                    // A reader that is slow, or gone, misses progress and nothing else.
                    let _ = lines.try_send(line(&progress(findings)));
                }
            })
            .await;
        let result = match checked {
            Ok(findings) => {
                let mut result = progress(&findings);
                result["differences"] = json!(findings.differences);
                result
            }
            Err(error) => json!({ "error": error.to_string() }),
        };
        let _ = lines.send(line(&result)).await;
    });
    stream("application/jsonl", receiver)
}

fn progress(findings: &Findings) -> serde_json::Value {
    json!({
        "entries": findings.entries,
        "runs": findings.runs,
        "records": findings.records,
        "erased": findings.erased,
    })
}

fn line(value: &serde_json::Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

/// An answer that is written while it is made.
pub(crate) fn stream(content_type: &'static str, receiver: mpsc::Receiver<Bytes>) -> Response {
    let lines = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|line| (line, receiver))
    });
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}
