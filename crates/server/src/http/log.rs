//! The logs, as `c2sp.org/tlog-tiles` serves them, and proofs of single entries.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use steadfast_ledger::note::Note;
use steadfast_ledger::proof::TlogProof;
use steadfast_ledger::tile::{FULL_WIDTH, TilePath};
use steadfast_runtime::Runtime;
use steadfast_store::StoreError;

use crate::evidence::{Logs, PublishedLog, reader};
use crate::gate::{Caller, READ_LOG};

/// What never changes may be kept for good.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// What changes twice a second may not be kept.
const MUTABLE: &str = "no-cache";

/// What the handlers need.
#[derive(Clone)]
pub struct LogState {
    runtime: Runtime,
    logs: Logs,
}

/// The routes, below `/log`.
pub fn router(runtime: Runtime, logs: Logs) -> Router {
    Router::new()
        .route("/log/{namespace}/checkpoint", get(checkpoint))
        .route("/log/{namespace}/cosigned", get(cosigned))
        .route("/log/{namespace}/key", get(key))
        .route("/log/{namespace}/proof/{index}", get(proof))
        .route("/log/{namespace}/rotations", get(rotations))
        .route("/log/{namespace}/rotations/{number}", get(rotation))
        .route("/log/{namespace}/tile/{*path}", get(tile))
        .with_state(LogState { runtime, logs })
}

/// Why there is no answer.
enum Refusal {
    /// There is no such thing, or not yet.
    NotFound(&'static str),
    /// The store failed.
    Store(StoreError),
    /// The caller may not.
    Denied(tonic::Status),
}

impl From<tonic::Status> for Refusal {
    fn from(refused: tonic::Status) -> Self {
        Self::Denied(refused)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Denied(refused) => super::refusal(&refused),
            Self::NotFound(message) => {
                (StatusCode::NOT_FOUND, format!("{message}\n")).into_response()
            }
            Self::Store(error) => {
                tracing::warn!(%error, "a log could not be read");
                let message = "the store cannot be read now: try again\n";
                (StatusCode::SERVICE_UNAVAILABLE, message).into_response()
            }
        }
    }
}

async fn checkpoint(
    State(state): State<LogState>,
    caller: Caller,
    Path(namespace): Path<String>,
) -> Result<Response, Refusal> {
    let log = state.log(&caller, &namespace)?;
    // The newest one, with what witnesses say of it where they have seen it already.
    Ok(match log.cosigned {
        Some((size, cosigned)) if size == log.head.size => text(cosigned, MUTABLE),
        _ => text(log.checkpoint, MUTABLE),
    })
}

/// The newest checkpoint that a witness cosigned. While the log grows it is a little behind.
async fn cosigned(
    State(state): State<LogState>,
    caller: Caller,
    Path(namespace): Path<String>,
) -> Result<Response, Refusal> {
    let log = state.log(&caller, &namespace)?;
    let (_, cosigned) = log
        .cosigned
        .ok_or(Refusal::NotFound("no witness has cosigned the log"))?;
    Ok(text(cosigned, MUTABLE))
}

/// The verifier key, for a first look: to trust it, get it from its owner.
async fn key(
    State(state): State<LogState>,
    caller: Caller,
    Path(namespace): Path<String>,
) -> Result<Response, Refusal> {
    let log = state.log(&caller, &namespace)?;
    Ok(text(format!("{}\n", log.key), MUTABLE))
}

/// Which keys the log had, one line for each change: its number, the old key, the new key. For a first
/// look: what proves it is at the number.
async fn rotations(
    State(state): State<LogState>,
    caller: Caller,
    Path(namespace): Path<String>,
) -> Result<Response, Refusal> {
    let log = state.log(&caller, &namespace)?;
    let lines = log.rotations.iter();
    let lines = lines.map(|of| format!("{} {} {}\n", of.number, of.from, of.to));
    Ok(text(lines.collect(), MUTABLE))
}

/// The proof that the log itself named a new key, with the checkpoint that both keys signed.
async fn rotation(
    State(state): State<LogState>,
    caller: Caller,
    Path((namespace, number)): Path<(String, u64)>,
) -> Result<Response, Refusal> {
    let log = state.log(&caller, &namespace)?;
    let rotation = log.rotations.iter().find(|of| of.number == number);
    let rotation = rotation.ok_or(Refusal::NotFound("the log's key was not rotated so often"))?;
    Ok(text(rotation.proof.clone(), IMMUTABLE))
}

async fn tile(
    State(state): State<LogState>,
    caller: Caller,
    Path((namespace, path)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let log = state.log(&caller, &namespace)?;
    let path = TilePath::parse(&format!("tile/{path}"))
        .map_err(|_| Refusal::NotFound("not the path of a tile"))?;
    if !path.is_within(log.head.size) {
        return Err(Refusal::NotFound("the log has not come that far"));
    }
    let store = state.runtime.store();
    let (index, width) = (path.index(), path.width());
    let content = match path.level() {
        Some(level) => {
            let hashes = store.log_tile(&log.namespace_id, level, index).await?;
            let mut hashes = hashes.unwrap_or_default();
            hashes.truncate(width * 32);
            hashes
        }
        None => bundle(&**store, &log.namespace_id, index, width).await?,
    };
    if content.is_empty() {
        return Err(Refusal::NotFound("the log has no such tile"));
    }
    Ok((
        [
            (header::CONTENT_TYPE, "application/octet-stream"),
            (header::CACHE_CONTROL, IMMUTABLE),
        ],
        content,
    )
        .into_response())
}

/// Entries, each with its length in 16 bits before it.
async fn bundle(
    store: &dyn steadfast_store::Store,
    namespace_id: &str,
    index: u64,
    width: usize,
) -> Result<Vec<u8>, StoreError> {
    let first = index * FULL_WIDTH as u64;
    let entries = store
        .log_entries(namespace_id, first, width, usize::MAX)
        .await?;
    let mut bundle = Vec::with_capacity(entries.iter().map(|entry| entry.len() + 2).sum());
    for entry in entries {
        // Entries are never written longer.
        let length = u16::try_from(entry.len()).unwrap_or(u16::MAX);
        bundle.extend_from_slice(&length.to_be_bytes());
        bundle.extend_from_slice(&entry);
    }
    Ok(bundle)
}

async fn proof(
    State(state): State<LogState>,
    caller: Caller,
    Path((namespace, index)): Path<(String, u64)>,
) -> Result<Response, Refusal> {
    let log = state.log(&caller, &namespace)?;
    let size = log.head.size;
    if index >= size {
        return Err(Refusal::NotFound("the log has not come that far"));
    }
    let store = state.runtime.store();
    let hashes = reader::inclusion_proof(&**store, &log.namespace_id, index, size).await?;
    let checkpoint = Note::parse(&log.checkpoint);
    let proof = TlogProof {
        extra: Vec::new(),
        index,
        hashes: hashes.ok_or(Refusal::NotFound("the log has no such entry"))?,
        checkpoint: checkpoint.map_err(|_| Refusal::NotFound("the log has no checkpoint"))?,
    };
    Ok(text(proof.to_string(), MUTABLE))
}

impl LogState {
    fn log(&self, caller: &Caller, namespace: &str) -> Result<PublishedLog, Refusal> {
        caller.admit(READ_LOG, namespace, "")?;
        self.logs
            .get(namespace)
            .ok_or(Refusal::NotFound("there is no log of that namespace"))
    }
}

fn text(content: String, caching: &'static str) -> Response {
    (
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CACHE_CONTROL, caching),
        ],
        content,
    )
        .into_response()
}
