//! What other policies would have decided in the sessions of a namespace, as JSON lines.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use steadfast_ledger::Hash;
use steadfast_ledger::entry::Time;
use steadfast_policy::{Policies, Source};
use steadfast_runtime::evidence::what_if::{Again, Seen, Selection};
use steadfast_runtime::namespaces::Namespace;
use steadfast_runtime::{Runtime, RuntimeError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::refusal;
use crate::attestations::Attestations;
use crate::gate::{Caller, Target};
use crate::governance::{self, Differences, MAX_PUT_BYTES, ToolCalls};

/// So many at a time: each replays sessions without pause.
const MAX_AT_ONCE: usize = 4;

/// What waits for a slow reader.
const WAITING: usize = 4;

#[derive(Clone)]
struct WhatIfState {
    runtime: Runtime,
    slots: Arc<Semaphore>,
}

/// The route.
pub fn router(runtime: Runtime) -> Router {
    Router::new()
        .route(
            "/api/v1/namespaces/{namespace}/policies/what-if",
            post(what_if),
        )
        .layer(DefaultBodyLimit::max(MAX_PUT_BYTES))
        .with_state(WhatIfState {
            runtime,
            slots: Arc::new(Semaphore::new(MAX_AT_ONCE)),
        })
}

/// What is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Question {
    /// The policies.
    files: Vec<Source>,
    /// Only sessions with this workflow id.
    #[serde(default)]
    workflow_id: Option<String>,
    /// Only sessions that a list filter finds.
    #[serde(default)]
    query: Option<String>,
    /// Only decisions at or after this time (RFC 3339).
    #[serde(default)]
    from: Option<String>,
    /// Only decisions before this time.
    #[serde(default)]
    to: Option<String>,
}

impl Question {
    fn selection(&self) -> Result<Selection, String> {
        let mut conditions = Vec::new();
        if let Some(id) = &self.workflow_id {
            let quoted = id.replace('\\', "\\\\").replace('\'', "''");
            conditions.push(format!("WorkflowId = '{quoted}'"));
        }
        let query = self.query.as_deref().unwrap_or_default().trim();
        match (conditions.is_empty(), query) {
            (_, "") => {}
            (true, query) => conditions.push(query.to_owned()),
            (false, query) => conditions.push(format!("({query})")),
        }
        Ok(Selection {
            query: conditions.join(" AND "),
            from: time(self.from.as_deref())?,
            to: time(self.to.as_deref())?,
        })
    }
}

fn time(text: Option<&str>) -> Result<Option<i64>, String> {
    let Some(text) = text else {
        return Ok(None);
    };
    let time = chrono::DateTime::parse_from_rfc3339(text).ok();
    let time = time.and_then(|of| of.timestamp_nanos_opt());
    let time = time.ok_or_else(|| format!("{text:?} is not a time as RFC 3339 has it"))?;
    Ok(Some(time))
}

fn plain(status: StatusCode, message: &str) -> Response {
    (status, format!("{message}\n")).into_response()
}

async fn what_if(
    State(state): State<WhatIfState>,
    caller: Caller,
    Path(namespace): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let question = body.map_err(|error| (error.status(), error.body_text()));
    let question = question.and_then(|body| {
        serde_json::from_slice::<Question>(&body)
            .map_err(|error| (StatusCode::BAD_REQUEST, format!("not a question: {error}")))
    });
    let id = question.as_ref().ok();
    let id = id.and_then(|of| of.workflow_id.as_deref());
    let target = Target::of(&namespace).workflow_id(id.unwrap_or_default());
    if let Err(refused) = caller.admit_to("TryPolicies", &target) {
        return refusal(&refused);
    }
    let Ok(namespace) = state.runtime.namespaces().by_name(&namespace) else {
        let message = format!("there is no namespace {namespace:?}");
        return plain(StatusCode::NOT_FOUND, &message);
    };
    let question = match question {
        Ok(question) => question,
        Err((status, message)) => return plain(status, &message),
    };
    let selection = match question.selection() {
        Ok(selection) => selection,
        Err(message) => return plain(StatusCode::BAD_REQUEST, &message),
    };
    let Ok(slot) = Arc::clone(&state.slots).try_acquire_owned() else {
        let message = format!("{MAX_AT_ONCE} such questions are being answered: try again");
        return plain(StatusCode::SERVICE_UNAVAILABLE, &message);
    };
    let parsed = tokio::task::spawn_blocking(move || governance::parse(&question.files)).await;
    match parsed {
        Ok(Ok(policies)) => {
            let by = (policies, caller.attestations().clone());
            state.answer(namespace, selection, by, slot).await
        }
        Ok(Err(problems)) => plain(StatusCode::UNPROCESSABLE_ENTITY, &problems.join("\n")),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

impl WhatIfState {
    /// Writes the answer while it is found. A filter that is none is refused before it begins.
    async fn answer(
        self,
        namespace: Arc<Namespace>,
        selection: Selection,
        (policies, attestations): (Policies, Attestations),
        slot: OwnedSemaphorePermit,
    ) -> Response {
        let (out, seen) = mpsc::channel(WAITING);
        let hash = Hash(policies.hash()).to_string();
        let task = tokio::spawn(async move {
            let _slot = slot;
            let governor = ToolCalls::new(policies, attestations);
            let runtime = &self.runtime;
            runtime
                .what_if(&namespace, &selection, &governor, &out)
                .await
        });
        let mut seen = seen;
        // Either something is seen, or it is over: then it may have been refused.
        let Some(first) = seen.recv().await else {
            return match task.await {
                Ok(Ok(())) => whole(&Differences::default().summary(&hash)),
                Ok(Err(error)) => refusal(&crate::grpc::status(error)),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            };
        };
        let mut lines = Lines::default();
        let first = lines.of(first);
        let state = Some((seen, task, lines, hash));
        let rest = futures::stream::unfold(state, |state| async {
            let (mut seen, task, mut lines, hash) = state?;
            if let Some(next) = seen.recv().await {
                let piece = lines.of(next);
                return Some((Ok(piece), Some((seen, task, lines, hash))));
            }
            let failed = match task.await {
                Ok(Ok(())) => {
                    let summary = format!("{}\n", lines.differences.summary(&hash));
                    return Some((Ok(Bytes::from(summary)), None));
                }
                Ok(Err::<(), RuntimeError>(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::warn!(error = failed, "an answer was broken off");
            Some((Err(io::Error::other(failed)), None))
        });
        let first = futures::stream::once(async { Ok::<_, io::Error>(first) });
        let body = Body::from_stream(first.chain(rest).fuse());
        ([(header::CONTENT_TYPE, "application/jsonl")], body).into_response()
    }
}

fn whole(summary: &Value) -> Response {
    let body = format!("{summary}\n");
    ([(header::CONTENT_TYPE, "application/jsonl")], body).into_response()
}

/// Makes lines of what is seen.
#[derive(Default)]
struct Lines {
    differences: Differences,
    run: BTreeMap<&'static str, String>,
}

impl Lines {
    fn of(&mut self, seen: Seen) -> Bytes {
        match seen {
            Seen::Run {
                workflow_id,
                run_id,
                workflow_type,
            } => {
                self.differences.begin();
                self.run = [
                    ("workflowId", workflow_id),
                    ("runId", run_id),
                    ("workflowType", workflow_type),
                ]
                .into();
                // An empty line says that it goes on.
                Bytes::from_static(b"\n")
            }
            Seen::Skipped => {
                self.differences.skip();
                Bytes::from_static(b"\n")
            }
            Seen::Decisions(decisions) => {
                let lines = decisions.iter().filter_map(|of| self.line(of));
                lines.collect::<String>().into()
            }
        }
    }

    fn line(&mut self, again: &Again) -> Option<String> {
        let (then, now) = (again.answer_then(), again.answer_now());
        let call = &again.then;
        let counts =
            self.differences
                .add(call.scheduled_event_id, &call.activity_type, then, now.0);
        if !counts {
            return None;
        }
        let mut line = json!(self.run);
        line["activityId"] = call.activity_id.as_str().into();
        line["tool"] = call.activity_type.as_str().into();
        line["kind"] = call.kind().name().into();
        line["scheduledEventId"] = call.scheduled_event_id.into();
        line["entry"] = again.n.into();
        line["time"] = Time(again.time).to_string().into();
        let hash: Option<Hash> = call.policy_hash.as_slice().try_into().ok().map(Hash);
        line["then"] = json!({
            "answer": then,
            "policies": call.policies,
            "hash": hash.map(|of| of.to_string()),
        });
        line["now"] = json!({ "answer": now.0, "policies": now.1 });
        Some(format!("{line}\n"))
    }
}
