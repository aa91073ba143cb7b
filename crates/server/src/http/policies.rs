//! The policies in force over HTTP: read, checked, put in place of others.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use steadfast_ledger::Hash;
use steadfast_ledger::entry::Time;
use steadfast_policy::{Policies, Source};
use steadfast_runtime::Runtime;
use tokio::sync::Semaphore;
use tonic::Status;

use super::refusal;
use crate::gate::Caller;
use crate::governance::{self, MAX_PUT_BYTES, Origin, PutError};

/// The call that changes policies.
const PUT: &str = "PutPolicies";

/// So many bodies are validated at a time: large ones take a second.
const MAX_VALIDATING: usize = 2;

/// What the handlers need.
#[derive(Clone)]
struct PoliciesState {
    runtime: Runtime,
    validating: Arc<Semaphore>,
}

/// The routes.
pub fn router(runtime: Runtime) -> Router {
    Router::new()
        .route("/api/v1/policies", get(now).put(put))
        .route("/api/v1/policies/check", post(check))
        .route("/api/v1/policies/history", get(history))
        .route("/api/v1/policies/{hash}", get(one))
        .layer(DefaultBodyLimit::max(MAX_PUT_BYTES))
        .with_state(PoliciesState {
            runtime,
            validating: Arc::new(Semaphore::new(MAX_VALIDATING)),
        })
}

/// Policies as they come.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    files: Vec<Source>,
}

/// Why there is no answer.
enum Refusal {
    Refused(Status),
    Plain(StatusCode, String),
}

impl From<Status> for Refusal {
    fn from(refused: Status) -> Self {
        Self::Refused(refused)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refused) => refusal(&refused),
            Self::Plain(status, message) => (status, format!("{message}\n")).into_response(),
        }
    }
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::Plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

async fn now(caller: Caller) -> Result<Response, Refusal> {
    caller.admit("GetPolicies", "", "")?;
    let (policies, origin) = caller.policies().get_with_origin();
    let (name, path) = match &origin {
        Origin::None => ("none", None),
        Origin::Starter => ("starter", None),
        Origin::Files(path) => ("files", Some(path.display().to_string())),
        Origin::Api => ("api", None),
    };
    let mut answer = match &policies {
        Some(policies) => shown(policies),
        None => json!({"hash": "none", "policies": [], "files": []}),
    };
    answer["origin"] = name.into();
    answer["path"] = path.into();
    let tag = format!("\"{}\"", name_of(policies.as_ref()));
    Ok(([(header::ETAG, tag)], Json(answer)).into_response())
}

async fn one(
    State(state): State<PoliciesState>,
    caller: Caller,
    Path(hash): Path<String>,
) -> Result<Response, Refusal> {
    caller.admit("GetPolicies", "", "")?;
    let parsed = hash_of(&hash).ok_or_else(|| {
        let message = format!("{hash:?} is no hash: hexadecimal digits, or base64");
        Refusal::Plain(StatusCode::BAD_REQUEST, message)
    })?;
    let kept = governance::kept(&**state.runtime.store(), &parsed).await;
    match kept.map_err(|error| internal(&error))? {
        Some(policies) => Ok(Json(shown(&policies)).into_response()),
        None => Err(Refusal::Plain(
            StatusCode::NOT_FOUND,
            format!("policies {parsed} were never in force here"),
        )),
    }
}

async fn history(State(state): State<PoliciesState>, caller: Caller) -> Result<Response, Refusal> {
    caller.admit("GetPolicies", "", "")?;
    let changes = governance::changes(&**state.runtime.store()).await;
    let changes = changes.map_err(|error| internal(&error))?;
    let changes = changes.iter().map(|change| {
        json!({
            "time": Time(change.time).to_string(),
            "hash": change.hash,
            "was": change.was,
            "call": change.cause.call,
            "principal": change.cause.principal,
            "authentication": change.cause.authentication,
        })
    });
    let changes: Vec<Value> = changes.collect();
    Ok(Json(json!({ "changes": changes })).into_response())
}

async fn check(
    State(state): State<PoliciesState>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    caller.admit("CheckPolicies", "", "")?;
    let answer = match state.validated(body).await? {
        Ok(policies) => json!({
            "valid": true,
            "hash": Hash(policies.hash()).to_string(),
            "policies": policies.ids(),
        }),
        Err(problems) => json!({ "valid": false, "problems": problems }),
    };
    Ok(Json(answer).into_response())
}

async fn put(
    State(state): State<PoliciesState>,
    caller: Caller,
    axum::extract::Query(options): axum::extract::Query<PutOptions>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let permit = caller.admit(PUT, "", "")?;
    let replaces = headers.get(header::IF_MATCH).ok_or_else(|| {
        let message = "say which policies these replace: If-Match with their hash, or \"none\"";
        Refusal::Plain(StatusCode::PRECONDITION_REQUIRED, message.to_owned())
    })?;
    let replaces = replaces.to_str().unwrap_or_default().trim_matches('"');
    let replaces = hash_of(replaces).map_or_else(|| replaces.to_owned(), |of| of.to_string());
    let policies = state.validated(body).await?.map_err(|problems| {
        Refusal::Plain(StatusCode::UNPROCESSABLE_ENTITY, problems.join("\n"))
    })?;
    if !options.lock_out && !caller.could(PUT, &policies) {
        let message = "by these policies you could not change policies any more: add lock_out=true \
                       if that is meant";
        return Err(Refusal::Plain(StatusCode::CONFLICT, message.to_owned()));
    }
    // A caller that goes away does not stop it half-way.
    let made = tokio::spawn(async move {
        let in_force = caller.policies();
        let put = governance::put(&state.runtime, in_force, &policies, &replaces, &permit).await;
        put.map(|()| policies)
    });
    let policies = made.await.map_err(|error| internal(&error))?;
    let policies = policies.map_err(|error| match &error {
        PutError::Files(_) => Refusal::Plain(StatusCode::CONFLICT, error.to_string()),
        PutError::Changed(_) => Refusal::Plain(StatusCode::PRECONDITION_FAILED, error.to_string()),
        PutError::Failed(_) => internal(&error),
    })?;
    let tag = format!("\"{}\"", name_of(Some(&policies)));
    let answer = json!({
        "hash": Hash(policies.hash()).to_string(),
        "policies": policies.ids(),
    });
    Ok(([(header::ETAG, tag)], Json(answer)).into_response())
}

/// How policies are put.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct PutOptions {
    /// Whether the caller may lose the right to put others.
    lock_out: bool,
}

impl PoliciesState {
    /// Reads and validates a body. The inner error has what is wrong with the policies.
    async fn validated(
        &self,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Result<Policies, Vec<String>>, Refusal> {
        let body = body.map_err(|error| Refusal::Plain(error.status(), error.body_text()))?;
        let files: Files = serde_json::from_slice(&body).map_err(|error| {
            let message = format!("not {{\"files\": [{{\"name\": …, \"text\": …}}]}}: {error}");
            Refusal::Plain(StatusCode::BAD_REQUEST, message)
        })?;
        let slot = Arc::clone(&self.validating).try_acquire_owned();
        let slot = slot.map_err(|_| {
            let message = format!("{MAX_VALIDATING} sets of policies are being checked: try again");
            Refusal::Plain(StatusCode::SERVICE_UNAVAILABLE, message)
        })?;
        let parsed = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            governance::parse(&files.files)
        });
        parsed.await.map_err(|error| internal(&error))
    }
}

fn name_of(policies: Option<&Policies>) -> String {
    policies.map_or_else(|| "none".to_owned(), |of| Hash(of.hash()).to_string())
}

fn shown(policies: &Policies) -> Value {
    json!({
        "hash": Hash(policies.hash()).to_string(),
        "policies": policies.ids(),
        "files": policies.sources(),
    })
}

/// A hash as it is in entries, or as files in bundles are named.
fn hash_of(text: &str) -> Option<Hash> {
    if let Ok(hash) = text.parse() {
        return Some(hash);
    }
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(Hash(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_in_both_ways() {
        let hash = Hash::of(b"x");
        let digits: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash_of(&digits), Some(hash));
        assert_eq!(hash_of(&hash.to_string()), Some(hash));
        for odd in ["", "none", "0", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(hash_of(odd), None, "{odd}");
        }
    }
}
