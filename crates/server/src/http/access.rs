//! Who may call what, who did, and what is granted and not used.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use steadfast_engine::Time;
use steadfast_engine::time::SECOND;
use steadfast_runtime::access::Which;
use steadfast_runtime::{Permit, Runtime, clock};
use tonic::Status;

use super::refusal;
use crate::access::{Seen, unused, view};
use crate::gate::Caller;
use crate::grpc::status;

/// What the log names as the call.
const CALL: &str = "GetAccess";

/// Sessions that are told about where the request does not say, and at most.
const SESSIONS: usize = 100;
const MAX_SESSIONS: usize = 1000;

/// Sessions of each type whose histories are read where the request does not say, and at most.
const SAMPLE: usize = 50;
const MAX_SAMPLE: usize = 500;

/// How far a report goes back where the request does not say.
const PERIOD: Time = 30 * 24 * 3600 * SECOND;

/// The routes.
pub fn router(runtime: Runtime) -> Router {
    Router::new()
        .route("/api/v1/access", get(live))
        .route("/api/v1/access/unused", get(granted))
        .with_state(runtime)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    /// All if it is empty.
    namespace: String,
    /// Whoever started sessions, or `<namespace>/<workflow type>`; anybody if it is empty.
    principal: String,
    workflow_id: String,
    /// At most so many sessions.
    limit: Option<usize>,
}

async fn live(
    State(runtime): State<Runtime>,
    caller: Caller,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let namespace = namespace_of(&asked, |of| &of.namespace);
    let permit = match caller.admit(CALL, namespace, "") {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    let answer = async {
        let asked = given(asked)?;
        let most = within(asked.limit, SESSIONS, MAX_SESSIONS, "limit")?;
        let (mut seen, mut left) = (Vec::new(), most);
        for namespace in namespaces(&runtime, &asked.namespace) {
            let which = Which::Live {
                principal: asked.principal.clone(),
                workflow_id: asked.workflow_id.clone(),
                most: left,
            };
            let found = look(&runtime, &permit, namespace, &which).await?;
            left -= found.found.sessions.len();
            seen.push(found);
        }
        let policies = caller.policies().get();
        built(move || Json(view(seen, policies.as_ref(), clock::now())).into_response()).await
    };
    answer
        .await
        .unwrap_or_else(|refused: Status| refusal(&refused))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Period {
    /// All if it is empty.
    namespace: String,
    /// From this time on (RFC 3339).
    from: Option<String>,
    /// Until before this time.
    to: Option<String>,
    /// Sessions of each type whose histories are read.
    sample: Option<usize>,
}

async fn granted(
    State(runtime): State<Runtime>,
    caller: Caller,
    asked: Result<Query<Period>, QueryRejection>,
) -> Response {
    let namespace = namespace_of(&asked, |of| &of.namespace);
    let permit = match caller.admit(CALL, namespace, "") {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    let answer = async {
        let asked = given(asked)?;
        let sample = within(asked.sample, SAMPLE, MAX_SAMPLE, "sample")?;
        let now = clock::now();
        let to = asked.to.as_deref().map(time).transpose()?.unwrap_or(now);
        let from = asked.from.as_deref().map(time).transpose()?;
        let from = from.unwrap_or(to.saturating_sub(PERIOD));
        if from >= to {
            return Err(Status::invalid_argument("from is not before to"));
        }
        let which = Which::Within { from, to, sample };
        let mut seen = Vec::new();
        for namespace in namespaces(&runtime, &asked.namespace) {
            seen.push(look(&runtime, &permit, namespace, &which).await?);
        }
        let policies = caller.policies().get();
        built(move || Json(unused(seen, policies.as_ref(), now, (from, to))).into_response()).await
    };
    answer
        .await
        .unwrap_or_else(|refused: Status| refusal(&refused))
}

async fn look(
    runtime: &Runtime,
    permit: &Permit,
    namespace: String,
    which: &Which,
) -> Result<Seen, Status> {
    let found = runtime.look_at_access(permit, &namespace, which).await;
    Ok(Seen {
        found: found.map_err(status)?,
        namespace,
    })
}

/// Asking policies thousands of times takes a while.
async fn built(build: impl FnOnce() -> Response + Send + 'static) -> Result<Response, Status> {
    let built = tokio::task::spawn_blocking(build).await;
    built.map_err(|error| Status::internal(error.to_string()))
}

/// Who is not permitted to ask is not told what is wrong with the question.
fn namespace_of<T>(
    asked: &Result<Query<T>, QueryRejection>,
    namespace: impl Fn(&T) -> &String,
) -> &str {
    asked.as_ref().map_or("", |Query(of)| namespace(of))
}

fn given<T>(asked: Result<Query<T>, QueryRejection>) -> Result<T, Status> {
    let asked = asked.map(|Query(of)| of);
    asked.map_err(|error| Status::invalid_argument(error.body_text()))
}

fn within(given: Option<usize>, usual: usize, most: usize, name: &str) -> Result<usize, Status> {
    match given.unwrap_or(usual) {
        given if given > most => {
            let message = format!("{name} is at most {most}");
            Err(Status::invalid_argument(message))
        }
        given => Ok(given),
    }
}

fn namespaces(runtime: &Runtime, named: &str) -> Vec<String> {
    match named {
        "" => {
            let all = runtime.namespaces().all();
            all.iter().map(|of| of.name.clone()).collect()
        }
        named => vec![named.to_owned()],
    }
}

fn time(text: &str) -> Result<Time, Status> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok();
    let nanoseconds = time.and_then(|of| of.timestamp_nanos_opt());
    nanoseconds.ok_or_else(|| {
        let message = format!("{text:?} is not a time such as 2026-11-23T10:00:00Z");
        Status::invalid_argument(message)
    })
}
