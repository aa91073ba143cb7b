//! The issuer of credentials, as OpenID Connect and OAuth have it: metadata, keys, exchange, introspection,
//! revocation.

use axum::extract::rejection::FormRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use serde_json::{Value, json};
use steadfast_runtime::{Permit, RuntimeError};
use tonic::Status;

use super::refusal;
use crate::credentials::{Asked, Claims, Credentials, MAX_TOKEN, NotExchanged, RevocationError};
use crate::gate::Caller;
use crate::grpc::status;

/// Largest form, in bytes.
const MAX_FORM: usize = 2 * MAX_TOKEN;

/// How long the metadata may be kept.
const METADATA_KEPT: &str = "public, max-age=300";

/// Answers about tokens are not to be kept (RFC 6749, 5.1).
const NOT_KEPT: [(HeaderName, &str); 2] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::PRAGMA, "no-cache"),
];

type Pairs = Result<Form<Vec<(String, String)>>, FormRejection>;

/// The routes; they say so where there are no credentials.
pub fn router(credentials: Option<Credentials>) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(metadata))
        .route(
            "/api/v1/namespaces/{namespace}/credentials/{id}/revoke",
            post(revoke_id),
        )
        .route("/oauth/introspect", post(introspect))
        .route("/oauth/jwks", get(jwks))
        .route("/oauth/revoke", post(revoke))
        .route("/oauth/token", post(token))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .with_state(credentials)
}

/// There is no issuer.
fn off() -> Response {
    let message = "this server issues no credentials: it has no [credentials]\n";
    (StatusCode::NOT_FOUND, message).into_response()
}

async fn metadata(State(credentials): State<Option<Credentials>>) -> Response {
    let Some(credentials) = credentials else {
        return off();
    };
    let kept = [(header::CACHE_CONTROL, METADATA_KEPT)];
    (kept, Json(credentials.metadata())).into_response()
}

async fn jwks(State(credentials): State<Option<Credentials>>) -> Response {
    let Some(credentials) = credentials else {
        return off();
    };
    let (keys, seconds) = credentials.jwks();
    let kept = [(header::CACHE_CONTROL, format!("public, max-age={seconds}"))];
    (kept, Json(keys)).into_response()
}

async fn token(
    State(credentials): State<Option<Credentials>>,
    caller: Caller,
    form: Pairs,
) -> Response {
    let Some(credentials) = credentials else {
        return off();
    };
    let asked = form.map_err(|error| NotExchanged::InvalidRequest(error.body_text()));
    let asked = match asked.and_then(|Form(pairs)| Asked::parse(&pairs)) {
        Ok(asked) => asked,
        Err(error) => return not_exchanged(error),
    };
    // A caller that goes away does not stop it between the log and the answer.
    let exchanged = tokio::spawn(async move { exchange(&credentials, &caller, &asked).await });
    match exchanged.await {
        Ok(Ok(answer)) => (NOT_KEPT, Json(answer)).into_response(),
        Ok(Err(error)) => not_exchanged(error),
        Err(error) => refusal(&Status::internal(error.to_string())),
    }
}

async fn exchange(
    credentials: &Credentials,
    caller: &Caller,
    asked: &Asked,
) -> Result<Value, NotExchanged> {
    let subject = credentials.subject(&asked.subject_token).await?;
    let permitted = caller.admit_exchange(&subject, asked);
    let (permit, policies) =
        permitted.map_err(|denied| NotExchanged::InvalidTarget(denied.message().to_owned()))?;
    let exchanged = credentials.exchange(&permit, &subject, asked, &policies);
    let (token, claims) = exchanged.await?;
    let mut answer = json!({
        "access_token": token,
        "issued_token_type": asked.token_type,
        "token_type": "Bearer",
        "expires_in": claims.exp - claims.iat,
    });
    if let Some(scope) = claims.scope {
        answer["scope"] = scope.into();
    }
    Ok(answer)
}

async fn introspect(
    State(credentials): State<Option<Credentials>>,
    caller: Caller,
    form: Pairs,
) -> Response {
    let (credentials, claims) = match of_token(credentials, &caller, "IntrospectCredential", form) {
        Ok((credentials, claims, _)) => (credentials, claims),
        Err(why) => return why.into_response(),
    };
    let inactive = || (NOT_KEPT, Json(json!({ "active": false }))).into_response();
    let Some(claims) = claims else {
        return inactive();
    };
    match credentials.is_active(&claims).await {
        Ok(true) => {
            let mut answer = json!(claims);
            answer["active"] = true.into();
            answer["token_type"] = "Bearer".into();
            (NOT_KEPT, Json(answer)).into_response()
        }
        Ok(false) => inactive(),
        Err(error) => refusal(&status(error)),
    }
}

async fn revoke(
    State(credentials): State<Option<Credentials>>,
    caller: Caller,
    form: Pairs,
) -> Response {
    let (credentials, claims, permit) =
        match of_token(credentials, &caller, "RevokeCredential", form) {
            Ok(all) => all,
            Err(why) => return why.into_response(),
        };
    // What is no token of ours counts for nothing already (RFC 7009, 2.2).
    let Some(claims) = claims else {
        return (NOT_KEPT, StatusCode::OK).into_response();
    };
    let revoked = tokio::spawn(async move { credentials.revoke(&permit, &claims).await });
    was_revoked(revoked.await)
}

/// The same by the id, for whoever has the log and not the token.
async fn revoke_id(
    State(credentials): State<Option<Credentials>>,
    caller: Caller,
    Path((namespace, id)): Path<(String, String)>,
) -> Response {
    let permit = match caller.admit("RevokeCredential", &namespace, "") {
        Ok(permit) => permit,
        Err(refused) => return refusal(&refused),
    };
    let Some(credentials) = credentials else {
        return off();
    };
    if uuid::Uuid::try_parse(&id).is_err() {
        return refusal(&Status::invalid_argument(
            "that is not the id of a credential",
        ));
    }
    let revoked =
        tokio::spawn(async move { credentials.revoke_id(&permit, &namespace, &id).await });
    was_revoked(revoked.await)
}

fn was_revoked(revoked: Result<Result<(), RevocationError>, tokio::task::JoinError>) -> Response {
    match revoked {
        Ok(Ok(())) => (NOT_KEPT, StatusCode::OK).into_response(),
        Ok(Err(RevocationError::Runtime(error))) => refusal(&status(error)),
        Ok(Err(error)) => refusal(&Status::unavailable(error.to_string())),
        Err(error) => refusal(&Status::internal(error.to_string())),
    }
}

/// What a request about a token is about, if its caller may ask. No claims: no token that counts.
fn of_token(
    credentials: Option<Credentials>,
    caller: &Caller,
    call: &str,
    form: Pairs,
) -> Result<(Credentials, Option<Claims>, Permit), NoAnswer> {
    let pairs = form.map(|Form(pairs)| pairs);
    let mut tokens = pairs.iter().flatten().filter(|(name, _)| name == "token");
    let token = match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) => Some(token),
        _ => None,
    };
    let claims = token.zip(credentials.as_ref());
    let claims = claims.and_then(|(token, credentials)| credentials.read(token));
    let namespace = claims.as_ref().map_or("", |of| &of.steadfast.namespace);
    let permit = caller.admit(call, namespace, "");
    let permit = permit.map_err(NoAnswer::Denied)?;
    let credentials = credentials.ok_or(NoAnswer::Off)?;
    if let Err(error) = &pairs {
        return Err(NoAnswer::Malformed(error.body_text()));
    }
    match token {
        Some(_) => Ok((credentials, claims, permit)),
        None => Err(NoAnswer::Malformed("there has to be one token".into())),
    }
}

/// Why nothing is said about a token.
enum NoAnswer {
    /// The caller may not.
    Denied(Status),
    /// There is no issuer.
    Off,
    /// The request makes no sense.
    Malformed(String),
}

impl IntoResponse for NoAnswer {
    fn into_response(self) -> Response {
        match self {
            Self::Denied(refused) => refusal(&refused),
            Self::Off => off(),
            Self::Malformed(why) => failed("invalid_request", &why),
        }
    }
}

fn not_exchanged(error: NotExchanged) -> Response {
    let code = match &error {
        NotExchanged::InvalidRequest(_) => "invalid_request",
        NotExchanged::UnsupportedGrantType => "unsupported_grant_type",
        NotExchanged::InvalidTarget(_) => "invalid_target",
        NotExchanged::InvalidScope(_) => "invalid_scope",
        NotExchanged::Runtime(error) => return unavailable(error),
    };
    failed(code, &error.to_string())
}

fn unavailable(error: &RuntimeError) -> Response {
    tracing::warn!(%error, "a credential could not be exchanged");
    let message = "it cannot be said now: try again\n";
    (StatusCode::SERVICE_UNAVAILABLE, message).into_response()
}

/// An error as RFC 6749, 5.2 has it.
fn failed(code: &str, description: &str) -> Response {
    // Only these characters may be in it.
    let fits = |of: &char| matches!(of, ' '..='!' | '#'..='[' | ']'..='~');
    let description: String = description.replace('"', "'").chars().filter(fits).collect();
    let body = json!({ "error": code, "error_description": description });
    (StatusCode::BAD_REQUEST, NOT_KEPT, Json(body)).into_response()
}
