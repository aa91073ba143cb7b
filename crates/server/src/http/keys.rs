//! API keys over HTTP.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use steadfast_engine::time::SECOND;
use steadfast_runtime::{Kind, Permit};
use tonic::Status;

use super::refusal;
use crate::authn::ApiKeys;
use crate::authn::api_keys::{KeyError, KeyRecord, NewKey};
use crate::config::KindConfig;
use crate::gate::Caller;
use crate::grpc::status;

/// The routes; they say so where there are no API keys.
pub fn router(keys: Option<ApiKeys>) -> Router {
    Router::new()
        .route("/api/v1/keys", get(list).post(create))
        .route("/api/v1/keys/{id}", delete(revoke))
        .with_state(keys)
}

/// A key that is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    name: String,
    kind: KindConfig,
    #[serde(default)]
    groups: Vec<String>,
    /// How long it is valid; for ever if it is not there.
    #[serde(default)]
    expires_in_seconds: Option<u32>,
}

/// The keys, and that the caller may do something with them.
fn admitted(
    keys: Option<ApiKeys>,
    caller: &Caller,
    call: &str,
) -> Result<(ApiKeys, Permit), Status> {
    let permit = caller.admit(call, "", "")?;
    let off = "API keys are switched off: set api_keys in [auth]";
    let keys = keys.ok_or_else(|| Status::failed_precondition(off))?;
    Ok((keys, permit))
}

async fn list(State(keys): State<Option<ApiKeys>>, caller: Caller) -> Response {
    match admitted(keys, &caller, "ListKeys") {
        Ok((keys, _)) => {
            let keys: Vec<_> = keys.list().iter().map(shown).collect();
            Json(json!({ "keys": keys })).into_response()
        }
        Err(refused) => refusal(&refused),
    }
}

async fn create(
    State(keys): State<Option<ApiKeys>>,
    caller: Caller,
    Json(request): Json<Request>,
) -> Response {
    let (keys, permit) = match admitted(keys, &caller, "CreateKey") {
        Ok(admitted) => admitted,
        Err(refused) => return refusal(&refused),
    };
    let now = steadfast_runtime::clock::now();
    let lifetime = request.expires_in_seconds.map(|of| i64::from(of) * SECOND);
    let new = NewKey {
        name: request.name,
        kind: Kind::from(request.kind),
        groups: request.groups,
        expires: lifetime.map(|lifetime| now.saturating_add(lifetime)),
    };
    // A caller that goes away does not stop it half-way.
    let made = tokio::spawn(async move { keys.create(&permit, new).await }).await;
    match made {
        Ok(Ok((key, record))) => {
            let mut answer = shown(&record);
            answer["key"] = Value::String(key);
            ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
        }
        Ok(Err(error)) => failed(error),
        Err(error) => refusal(&Status::internal(error.to_string())),
    }
}

async fn revoke(
    State(keys): State<Option<ApiKeys>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Response {
    let (keys, permit) = match admitted(keys, &caller, "RevokeKey") {
        Ok(admitted) => admitted,
        Err(refused) => return refusal(&refused),
    };
    let revoked = tokio::spawn(async move { keys.revoke(&permit, &id).await }).await;
    match revoked {
        Ok(Ok(record)) => Json(shown(&record)).into_response(),
        Ok(Err(error)) => failed(error),
        Err(error) => refusal(&Status::internal(error.to_string())),
    }
}

/// A key without its secret.
fn shown(record: &KeyRecord) -> Value {
    let time = |nanoseconds: i64| {
        let time = chrono::DateTime::from_timestamp_nanos(nanoseconds);
        time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    };
    json!({
        "id": record.id,
        "name": record.name,
        "kind": record.kind().name(),
        "groups": record.groups,
        "created": time(record.created),
        "createdBy": record.created_by,
        "expires": record.expires.map(time),
        "revoked": record.revoked.map(time),
        "revokedBy": record.revoked_by,
    })
}

fn failed(error: KeyError) -> Response {
    match error {
        KeyError::Runtime(error) => refusal(&status(error)),
        KeyError::NotFound(_) => (StatusCode::NOT_FOUND, format!("{error}\n")).into_response(),
        KeyError::Invalid(_) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        KeyError::Full => (StatusCode::CONFLICT, format!("{error}\n")).into_response(),
    }
}
