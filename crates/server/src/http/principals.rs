//! Principals over HTTP: those that are disabled, disabling and enabling.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use steadfast_ledger::entry::Time;
use steadfast_runtime::calls::principals::{Cascade, Found, Held};
use steadfast_runtime::disabled::{DisabledPrincipal, Fate, Who};
use steadfast_runtime::{Runtime, RuntimeError};
use tonic::Status;

use super::refusal;
use crate::evidence::Logs;
use crate::gate::{Caller, Target};
use crate::grpc::status;
use crate::offboarding::{self, NoCertificate};

/// The routes.
pub fn router(runtime: Runtime, logs: Logs) -> Router {
    let certificates = Router::new()
        .route("/api/v1/principals/certificate", get(certificate))
        .with_state((runtime.clone(), logs));
    Router::new()
        .route("/api/v1/principals", get(list))
        .route("/api/v1/principals/disable", post(disable))
        .route("/api/v1/principals/enable", post(enable))
        .with_state(runtime)
        .merge(certificates)
}

/// Who is to be disabled or enabled, and how.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Change {
    /// The name of a caller in the log.
    name: String,
    /// In its place: an agent, as `<namespace>/<workflow type>`.
    agent: String,
    /// What becomes of its sessions.
    sessions: Fate,
    reason: String,
    /// Only say what it would come upon.
    dry_run: bool,
    /// Resume what was paused for it.
    resume: bool,
    /// Who asks for it, where nobody is authenticated.
    identity: String,
}

/// Whom a certificate is about.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct About {
    /// The name of a caller in the log.
    name: String,
    /// In its place: an agent, as `<namespace>/<workflow type>`.
    agent: String,
}

impl Change {
    fn who(&self) -> Result<Who, Status> {
        named(&self.name, &self.agent)
    }
}

fn named(name: &str, agent: &str) -> Result<Who, Status> {
    match (name, agent.split_once('/')) {
        ("", Some((namespace, workflow_type))) => Ok(Who::agent(namespace, workflow_type)),
        (name, None) if agent.is_empty() && !name.is_empty() => Ok(Who::caller(name)),
        _ => Err(Status::invalid_argument(
            "give a name, or an agent as <namespace>/<workflow type>",
        )),
    }
}

async fn list(State(runtime): State<Runtime>, caller: Caller) -> Response {
    if let Err(refused) = caller.admit("ListPrincipals", "", "") {
        return refusal(&refused);
    }
    let disabled: Vec<Value> = runtime.disabled().all().iter().map(shown).collect();
    Json(json!({ "disabled": disabled })).into_response()
}

async fn certificate(
    State((runtime, logs)): State<(Runtime, Logs)>,
    caller: Caller,
    about: Result<Query<About>, QueryRejection>,
) -> Response {
    let permit = match caller.admit("ListPrincipals", "", "") {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    let who = about.map_err(|error| Status::invalid_argument(error.body_text()));
    let who = match who.and_then(|Query(of)| named(&of.name, &of.agent)) {
        Ok(who) => who,
        Err(refused) => return refusal(&refused),
    };
    let done =
        tokio::spawn(async move { offboarding::certificate(&runtime, &logs, &permit, &who).await });
    let broken = |error: tokio::task::JoinError| Err(NoCertificate::Invalid(error.to_string()));
    match done.await.unwrap_or_else(broken) {
        // DSSE envelopes have this type.
        Ok(envelope) => (
            [(header::CONTENT_TYPE, "application/vnd.dsse+json")],
            envelope,
        )
            .into_response(),
        Err(error) => refusal(&not_certified(error)),
    }
}

fn not_certified(error: NoCertificate) -> Status {
    let message = error.to_string();
    match error {
        NoCertificate::NeverDisabled(_) => Status::not_found(message),
        NoCertificate::UnderWay(_) => Status::failed_precondition(message),
        NoCertificate::NotSigned => Status::unavailable(message),
        NoCertificate::TooLate => Status::resource_exhausted(message),
        NoCertificate::Runtime(error) => status(error),
        NoCertificate::Invalid(_) => Status::internal(message),
    }
}

async fn disable(
    State(runtime): State<Runtime>,
    caller: Caller,
    Json(change): Json<Change>,
) -> Response {
    let about = Target::of("").claimed(&change.identity);
    let permit = match caller.admit_to("DisablePrincipal", &about) {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    let who = match change.who() {
        Ok(who) => who,
        Err(refused) => return refusal(&refused),
    };
    // A caller that goes away does not stop it half-way.
    let done = tokio::spawn(async move {
        match change.dry_run {
            true => runtime.would_disable(&permit, &who).await,
            false => {
                let (sessions, reason) = (change.sessions, change.reason);
                runtime
                    .disable_principal(&permit, who, sessions, reason)
                    .await
            }
        }
    });
    answer(done.await.unwrap_or_else(broken))
}

async fn enable(
    State(runtime): State<Runtime>,
    caller: Caller,
    Json(change): Json<Change>,
) -> Response {
    let about = Target::of("").claimed(&change.identity);
    let permit = match caller.admit_to("EnablePrincipal", &about) {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    let who = match change.who() {
        Ok(who) => who,
        Err(refused) => return refusal(&refused),
    };
    let resume = change.resume;
    let done = tokio::spawn(async move { runtime.enable_principal(&permit, &who, resume).await });
    answer(done.await.unwrap_or_else(broken))
}

fn broken(error: tokio::task::JoinError) -> Result<Cascade, RuntimeError> {
    Err(RuntimeError::Internal(error.to_string()))
}

fn answer(cascade: Result<Cascade, RuntimeError>) -> Response {
    match cascade {
        Ok(cascade) => Json(json!({
            "sessions": cascade.sessions,
            "attempts": cascade.attempts,
            "credentialsUntil": until(cascade.credentials_until),
            "named": cascade.named.iter().map(session).collect::<Vec<_>>(),
        }))
        .into_response(),
        Err(error) => refusal(&status(error)),
    }
}

fn until(time: steadfast_engine::Time) -> Option<String> {
    (time > 0).then(|| Time(time).to_string())
}

fn shown(record: &DisabledPrincipal) -> Value {
    json!({
        "kind": record.principal.kind(),
        "name": record.principal.name(),
        "sessions": record.sessions,
        "at": Time(record.at).to_string(),
        "by": record.by,
        "reason": record.reason,
        "complete": record.complete,
    })
}

fn session(found: &Found) -> Value {
    json!({
        "namespace": found.namespace,
        "workflowId": found.workflow_id,
        "runId": found.run_id,
        "workflowType": found.workflow_type,
        "initiator": found.initiator,
        "attempts": found.attempts.iter().map(attempt).collect::<Vec<_>>(),
    })
}

fn attempt(held: &Held) -> Value {
    json!({
        "activityId": held.activity_id,
        "tool": held.tool,
        "attempt": held.attempt,
        "worker": held.worker,
        "credential": held.credential.as_ref().map(|of| json!({
            "jti": of.id,
            "audience": of.audience,
            "expires": Time(of.expires).to_string(),
        })),
    })
}
