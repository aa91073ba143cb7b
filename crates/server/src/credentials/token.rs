//! Tokens of tool calls: JWTs (RFC 7519) that are signed with ES256, and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Validation};
use serde::{Deserialize, Serialize};
use steadfast_engine::credential::CredentialClaim;
use steadfast_engine::time::SECOND;
use steadfast_runtime::credentials::Issued;

use super::keys::{Key, KeyRing};

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 16 << 10;

/// The method of initiators who only said who they are.
const UNAUTHENTICATED: &str = "unauthenticated";

/// What a token says. Times are seconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who issued it.
    pub iss: String,
    /// The agent: `<namespace>/<workflow type>`.
    pub sub: String,
    /// For whom it is.
    pub aud: String,
    /// When it was issued.
    pub iat: i64,
    /// Not valid before.
    pub nbf: i64,
    /// When it expires.
    pub exp: i64,
    /// Its id.
    pub jti: String,
    /// Who the agent acts for (RFC 8693, 4.1): the agents above it, and at last who started the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Actor>,
    /// What it is limited to, if it is (RFC 8693, 4.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The tool call.
    pub steadfast: Call,
}

/// Somebody who is acted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Who.
    pub sub: String,
    /// Who that one acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Actor>>,
}

/// A tool call: one attempt of one activity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Name of the namespace.
    pub namespace: String,
    /// Workflow type.
    pub workflow_type: String,
    /// Workflow id.
    pub workflow_id: String,
    /// Run id.
    pub run_id: String,
    /// Activity id.
    pub activity_id: String,
    /// Activity type.
    pub tool: String,
    /// Number of the attempt.
    pub attempt: i32,
    /// Who started the session.
    pub initiator: String,
    /// How they were authenticated.
    pub initiator_method: String,
    /// The same for all attempts.
    pub idempotency_key: String,
    /// Where the log says that the attempt was given the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogReference>,
    /// Id of the attempt's own credential, if this one was exchanged for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchanged_from: Option<String>,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogReference {
    /// The log's origin; none before anything of it is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The run whose entry it is.
    pub run_id: String,
    /// The entry's number within the run (`n`).
    pub entry: u64,
    /// The entry's leaf hash, in base64.
    pub leaf: String,
}

impl Claims {
    /// What the token of an attempt's credential says.
    pub fn of(issued: &Issued, issuer: &str, origin: Option<String>) -> Self {
        let credential = &issued.credential;
        let begun = issued.issued / SECOND;
        let (initiator, method) = match &issued.initiator {
            Some(of) => (of.name.clone(), of.r#type.clone()),
            None => Default::default(),
        };
        // What somebody claimed must not look like what was shown.
        let sub = match method.as_str() {
            UNAUTHENTICATED => format!("{UNAUTHENTICATED}#{initiator}"),
            _ => initiator.clone(),
        };
        Self {
            iss: issuer.to_owned(),
            sub: agent(&issued.namespace, &issued.workflow_type),
            aud: credential.audience.clone(),
            iat: begun,
            nbf: begun,
            exp: credential.expires / SECOND,
            jti: credential.id.clone(),
            act: chain(&issued.agents, (!initiator.is_empty()).then_some(sub)),
            scope: None,
            steadfast: Call {
                namespace: issued.namespace.clone(),
                workflow_type: issued.workflow_type.clone(),
                workflow_id: issued.workflow_id.clone(),
                run_id: issued.run_id.clone(),
                activity_id: issued.activity_id.clone(),
                tool: issued.tool.clone(),
                attempt: issued.attempt,
                initiator,
                initiator_method: method,
                idempotency_key: issued.idempotency_key.clone(),
                log: issued.recorded.map(|of| LogReference {
                    origin,
                    run_id: issued.run_id.clone(),
                    entry: of.n,
                    leaf: of.leaf.to_string(),
                }),
                exchanged_from: None,
            },
        }
    }

    /// Id of the attempt's own credential.
    pub fn attempts_own(&self) -> &str {
        let exchanged = self.steadfast.exchanged_from.as_ref();
        exchanged.unwrap_or(&self.jti)
    }

    /// What the engine is asked about it.
    pub fn claim(&self) -> CredentialClaim<'_> {
        CredentialClaim {
            id: self.attempts_own(),
            activity_id: &self.steadfast.activity_id,
            attempt: self.steadfast.attempt,
        }
    }

    /// The signed token; none if the key only verifies.
    pub fn sign(&self, key: &Key) -> Option<String> {
        let claims = serde_json::to_vec(self).ok()?;
        let message = format!("{}.{}", key.header(), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes())?);
        Some(format!("{message}.{signature}"))
    }

    /// Reads a token that one of these keys signed for `issuer`, whose time it is now. None for all else:
    /// who shows it is told nothing more.
    pub fn verified(token: &str, keys: &KeyRing, issuer: &str, now: i64) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        // The key decides on the algorithm, not the token.
        if header.alg != Algorithm::ES256 || header.crit.is_some() {
            return None;
        }
        let key = keys
            .published(now)
            .find(|of| Some(of.id()) == header.kid.as_deref())?;
        let mut validation = Validation::new(Algorithm::ES256);
        // Time is this server's, which may be skipped; for whom the token is matters to others.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[issuer]);
        let decoded = jsonwebtoken::decode::<Self>(token, key.verifying(), &validation);
        let claims = decoded.ok()?.claims;
        let seconds = now.div_euclid(SECOND);
        (claims.nbf <= seconds && seconds < claims.exp).then_some(claims)
    }
}

/// The chain of those who are acted for, from the nearest.
fn chain(agents: &[String], initiator: Option<String>) -> Option<Actor> {
    let agents = agents.iter().cloned();
    let all: Vec<String> = agents.chain(initiator).collect();
    all.into_iter().rev().fold(None, |act, sub| {
        let act = act.map(Box::new);
        Some(Actor { sub, act })
    })
}

/// The name of an agent.
pub fn agent(namespace: &str, workflow_type: &str) -> String {
    format!("{namespace}/{workflow_type}")
}
