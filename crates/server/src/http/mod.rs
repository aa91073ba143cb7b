//! HTTP: what is beside the Temporal API.

mod access;
mod approvals;
mod attestations;
mod bundle;
mod erase;
mod evidence;
mod export;
mod inventory;
mod keys;
mod log;
mod oauth;
mod policies;
mod principals;
mod sessions;
mod status;
mod what_if;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router, middleware};
use steadfast_runtime::Runtime;
use tonic::{Code, Status};

use crate::authn::{self, ApiKeys, Authenticator};
use crate::credentials::Credentials;
use crate::evidence::bundles::Exports;
use crate::evidence::{Logs, Witnesses};
use crate::gate::Gate;
use crate::webhooks::Webhooks;
pub(crate) use approvals::argument;

/// The routes. All of them are behind authentication, if there is any.
pub fn router(
    runtime: Runtime,
    logs: Logs,
    witnesses: Witnesses,
    authenticator: Option<Authenticator>,
    credentials: Option<Credentials>,
    gate: Gate,
    webhooks: Webhooks,
) -> Router {
    let api_keys = authenticator.as_ref().and_then(Authenticator::api_keys);
    let routes = routes(runtime, logs, witnesses, api_keys.cloned(), credentials);
    let routes = routes.layer(Extension(gate)).layer(Extension(webhooks));
    match authenticator {
        Some(authenticator) => routes.layer(middleware::from_fn_with_state(
            authenticator,
            authn::require,
        )),
        None => routes.layer(middleware::from_fn(crate::console::local_names)),
    }
}

/// All routes, without what is before them. Each but those that are open has an action that its caller
/// has to be permitted: a test asks them all.
pub(crate) fn routes(
    runtime: Runtime,
    logs: Logs,
    witnesses: Witnesses,
    api_keys: Option<ApiKeys>,
    credentials: Option<Credentials>,
) -> Router {
    let exports = Exports::new(runtime.clone(), logs.clone(), witnesses.clone());
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(health))
        .with_state(runtime.clone())
        .merge(crate::console::router(
            runtime.clone(),
            logs.clone(),
            witnesses.clone(),
        ))
        .merge(status::router(runtime.clone(), logs.clone(), witnesses))
        .merge(keys::router(api_keys))
        .merge(oauth::router(credentials))
        .merge(access::router(runtime.clone()))
        .merge(approvals::router(runtime.clone()))
        .merge(policies::router(runtime.clone()))
        .merge(what_if::router(runtime.clone()))
        .merge(attestations::router(runtime.clone()))
        .merge(bundle::router(exports))
        .merge(erase::router(runtime.clone()))
        .merge(evidence::router(runtime.clone()))
        .merge(export::router(runtime.clone(), logs.clone()))
        .merge(inventory::router(runtime.clone()))
        .merge(principals::router(runtime.clone(), logs.clone()))
        .merge(sessions::router(runtime.clone()))
        .merge(log::router(runtime, logs))
}

async fn index() -> Redirect {
    Redirect::to("/ui")
}

async fn health(State(runtime): State<Runtime>) -> impl IntoResponse {
    match runtime.is_stopping() {
        true => (axum::http::StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        false => (axum::http::StatusCode::OK, "ok\n"),
    }
}

/// A refusal as HTTP has it.
pub(crate) fn refusal(refused: &Status) -> Response {
    let status = match refused.code() {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::ResourceExhausted => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{}\n", refused.message())).into_response()
}
