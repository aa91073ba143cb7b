//! Evidence in the formats of others, over HTTP: OCSF events and OTLP requests, as JSON lines.
//!
//! An export that fails in the middle breaks its answer off, so that nobody takes it for whole.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use serde::Deserialize;
use steadfast_runtime::evidence::feeds::{Reader, Selection};
use steadfast_runtime::namespaces::Namespace;
use steadfast_runtime::{Runtime, RuntimeError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::evidence::Logs;
use crate::gate::{Caller, Target};

/// Pieces of an answer that wait for a slow reader.
const WAITING_PIECES: usize = 8;

/// Exports at a time: each may read the store without pause.
const MAX_EXPORTS: usize = 32;

/// How often a followed log is looked at for new entries.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);

/// An empty line is sent when there was nothing else for so long, so that both sides see that the
/// other one is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What the handlers need.
#[derive(Clone)]
struct ExportState {
    runtime: Runtime,
    logs: Logs,
    slots: Arc<Semaphore>,
}

/// The routes.
pub fn router(runtime: Runtime, logs: Logs) -> Router {
    Router::new()
        .route("/api/v1/namespaces/{namespace}/evidence/ocsf", get(ocsf))
        .route("/api/v1/namespaces/{namespace}/evidence/otlp", get(otlp))
        .with_state(ExportState {
            runtime,
            logs,
            slots: Arc::new(Semaphore::new(MAX_EXPORTS)),
        })
}

/// Why there is no answer.
enum Refusal {
    NotFound(String),
    Invalid(String),
    Busy,
    Denied(tonic::Status),
}

impl From<tonic::Status> for Refusal {
    fn from(refused: tonic::Status) -> Self {
        Self::Denied(refused)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::NotFound(message) => (StatusCode::NOT_FOUND, message),
            Self::Invalid(message) => (StatusCode::BAD_REQUEST, message),
            Self::Denied(refused) => return super::refusal(&refused),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{MAX_EXPORTS} exports are under way: try again"),
            ),
        };
        (status, format!("{message}\n")).into_response()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OcsfQuery {
    /// The first entry.
    #[serde(default)]
    from: u64,
    /// Whether to go on with entries as they come.
    #[serde(default)]
    follow: bool,
}

async fn ocsf(
    State(state): State<ExportState>,
    caller: Caller,
    Path(namespace): Path<String>,
    query: Result<Query<OcsfQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refusal> {
    caller.admit("ExportOcsf", &namespace, "")?;
    let Query(query) = query.map_err(|error| Refusal::Invalid(error.body_text()))?;
    state.namespace(&namespace)?;
    let log = state.logs.get(&namespace).ok_or_else(|| {
        Refusal::NotFound(format!("nothing is signed of namespace {namespace:?} yet"))
    })?;
    if query.from > log.head.size {
        let size = log.head.size;
        let message = format!("the log has {size} entries: there is none to begin with");
        return Err(Refusal::Invalid(message));
    }
    let slot = state.slot()?;
    let (pieces, receiver) = mpsc::channel(WAITING_PIECES);
    let follow = Follow {
        runtime: state.runtime,
        logs: state.logs,
        namespace,
        namespace_id: log.namespace_id,
        origin: log.origin,
        next: query.from,
        pieces,
        caller,
    };
    let task = async move {
        match query.follow {
            true => follow.on().await,
            false => follow.once().await.map(|_| ()),
        }
    };
    Ok(answer(task, receiver, slot))
}

/// An export of a log, as far as a checkpoint that is signed covers it.
struct Follow {
    runtime: Runtime,
    logs: Logs,
    namespace: String,
    namespace_id: String,
    origin: String,
    /// The next entry.
    next: u64,
    pieces: mpsc::Sender<Bytes>,
    caller: Caller,
}

impl Follow {
    /// Sends what there is now.
    async fn export(&mut self) -> Result<Reader, RuntimeError> {
        let log = self.logs.get(&self.namespace);
        // Where another log was begun under this name, this one is over.
        let Some(log) = log.filter(|log| log.origin == self.origin) else {
            return Ok(Reader::Gone);
        };
        let indexes = self.next..log.head.size.max(self.next);
        self.next = indexes.end;
        let (id, origin) = (&self.namespace_id, &self.origin);
        let runtime = &self.runtime;
        runtime.export_ocsf(id, origin, indexes, &self.pieces).await
    }

    async fn once(mut self) -> Result<Reader, RuntimeError> {
        self.export().await
    }

    /// Goes on until the reader goes away, its credential is over, the log ends or the server stops.
    async fn on(self) -> Result<(), RuntimeError> {
        let caller = self.caller.clone();
        tokio::select! {
            ended = self.go_on() => ended,
            () = caller.over() => {
                let message = "the reader's credential has expired or was revoked";
                Err(RuntimeError::PermissionDenied(message.into()))
            }
        }
    }

    async fn go_on(mut self) -> Result<(), RuntimeError> {
        let mut last = Instant::now();
        loop {
            let before = self.next;
            if self.export().await? == Reader::Gone {
                return Ok(());
            }
            if self.next > before {
                last = Instant::now();
            } else if last.elapsed() >= KEEP_ALIVE {
                last = Instant::now();
                if self.pieces.send(Bytes::from_static(b"\n")).await.is_err() {
                    return Ok(());
                }
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
                () = self.pieces.closed() => return Ok(()),
                () = self.runtime.stopping() => return Ok(()),
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OtlpQuery {
    workflow_id: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

async fn otlp(
    State(state): State<ExportState>,
    caller: Caller,
    Path(namespace): Path<String>,
    query: Result<Query<OtlpQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refusal> {
    let asked = query.as_ref().ok();
    let workflow_id = asked.and_then(|Query(of)| of.workflow_id.as_deref());
    let about = Target::of(&namespace).workflow_id(workflow_id.unwrap_or_default());
    caller.admit_to("ExportOtlp", &about)?;
    let Query(query) = query.map_err(|error| Refusal::Invalid(error.body_text()))?;
    let namespace = state.namespace(&namespace)?;
    for time in [&query.from, &query.to].into_iter().flatten() {
        if chrono::DateTime::parse_from_rfc3339(time).is_err() {
            let message = format!("{time:?} is not a time as RFC 3339 has it");
            return Err(Refusal::Invalid(message));
        }
    }
    let selection = Selection {
        workflow_id: query.workflow_id,
        from: query.from,
        to: query.to,
    };
    let slot = state.slot()?;
    let (pieces, receiver) = mpsc::channel(WAITING_PIECES);
    let runtime = state.runtime;
    let task = async move {
        let exported = runtime.export_traces(&namespace, &selection, &pieces);
        exported.await.map(|_| ())
    };
    Ok(answer(task, receiver, slot))
}

impl ExportState {
    fn namespace(&self, name: &str) -> Result<Arc<Namespace>, Refusal> {
        let namespace = self.runtime.namespaces().by_name(name);
        namespace.map_err(|_| Refusal::NotFound(format!("there is no namespace {name:?}")))
    }

    fn slot(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let slots = Arc::clone(&self.slots);
        slots.try_acquire_owned().map_err(|_| Refusal::Busy)
    }
}

/// An answer that is written while `task` makes it. The task holds the sender of the pieces.
fn answer(
    task: impl Future<Output = Result<(), RuntimeError>> + Send + 'static,
    receiver: mpsc::Receiver<Bytes>,
    slot: OwnedSemaphorePermit,
) -> Response {
    let task = tokio::spawn(async move {
        let _slot = slot;
        task.await
    });
    let state = Some((receiver, task));
    let body = futures::stream::unfold(state, |state| async {
        let (mut receiver, task) = state?;
        if let Some(piece) = receiver.recv().await {
            return Some((Ok(piece), Some((receiver, task))));
        }
        let failed = match task.await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(error = failed, "an export was broken off");
        Some((Err(io::Error::other(failed)), None))
    });
    let body = Body::from_stream(body.fuse());
    ([(header::CONTENT_TYPE, "application/jsonl")], body).into_response()
}
