//! Credentials of tool calls: this server is the issuer of a token for each attempt of an activity
//! (OpenID Connect Discovery, RFC 7517), says what one is worth (RFC 7662), exchanges it for another
//! audience (RFC 8693) and takes it back (RFC 7009).
//!
//! Tokens are kept nowhere: what one is about is in it, and what it is worth follows from the state of the
//! run.

mod exchange;
pub mod keys;
mod revocations;
mod rotation;
#[cfg(test)]
mod tests;
mod token;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::{Value, json};
use steadfast_engine::Time;
use steadfast_engine::credential::{CredentialState, Terms};
use steadfast_engine::time::SECOND;
use steadfast_ledger::entry::Note;
use steadfast_runtime::credentials::{Issued, Issuer};
use steadfast_runtime::{Permit, Runtime, RuntimeError};

pub use exchange::{Asked, NotExchanged};
use keys::KeyRing;
pub use revocations::RevocationError;
use revocations::Revocations;
pub use token::{Claims, MAX_TOKEN};

use crate::config::{Config, CredentialsConfig, MAX_LIFETIME};
use crate::evidence::Logs;

/// Signs tokens. It knows no runtime: the runtime has it.
struct Signer {
    issuer: String,
    terms: Terms,
    keys: RwLock<Arc<KeyRing>>,
    logs: Logs,
}

impl Signer {
    fn keys(&self) -> Arc<KeyRing> {
        self.keys.read().clone()
    }

    fn sign(&self, claims: &Claims) -> Option<String> {
        let keys = self.keys();
        let token = claims.sign(keys.signer(steadfast_runtime::clock::now())?);
        if token.is_none() {
            tracing::error!(jti = claims.jti, "a credential could not be signed");
        }
        token
    }
}

impl Issuer for Signer {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn token(&self, of: &Issued) -> Option<String> {
        let origin = self.logs.origin(&of.namespace);
        self.sign(&Claims::of(of, &self.issuer, origin))
    }
}

/// The credentials of a server. Cheap to clone.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    signer: Arc<Signer>,
    revocations: Revocations,
    /// None in memory.
    path: Option<PathBuf>,
    rotate_after: Time,
    publish_ahead: Time,
    /// Whether callers have to show who they are.
    authenticates: bool,
}

impl Credentials {
    /// Opens the keys, and has attempts be given credentials from now on; none if that is not configured.
    /// `http` is where HTTP is served.
    pub async fn open(
        runtime: &Runtime,
        config: &Config,
        http: Option<SocketAddr>,
        logs: &Logs,
    ) -> Result<Option<Self>, String> {
        let Some(of) = &config.credentials else {
            return Ok(None);
        };
        let issuer = match (of.issuer.as_str(), http) {
            ("", None) => return Err("there is no issuer".into()),
            ("", Some(address)) => {
                let scheme = if config.tls.is_some() {
                    "https"
                } else {
                    "http"
                };
                format!("{scheme}://{address}")
            }
            (issuer, _) => issuer.to_owned(),
        };
        crate::authn::install_verification();
        let path = key_path(config, of);
        let keys = rotation::open(runtime, path.as_deref()).await?;
        let seconds = |of: u64| i64::try_from(of).unwrap_or(i64::MAX).saturating_mul(SECOND);
        let signer = Arc::new(Signer {
            terms: of.terms(&issuer),
            issuer,
            keys: RwLock::new(keys.into()),
            logs: logs.clone(),
        });
        runtime.set_issuer(signer.clone());
        Ok(Some(Self(Arc::new(Inner {
            revocations: Revocations::open(runtime).await?,
            runtime: runtime.clone(),
            signer,
            path,
            rotate_after: seconds(of.rotate_after_hours.saturating_mul(3600)),
            publish_ahead: seconds(of.publish_ahead_seconds),
            authenticates: config.auth.is_on(),
        }))))
    }

    /// The issuer's name: a URL.
    pub fn issuer(&self) -> &str {
        &self.0.signer.issuer
    }

    /// The issuer's metadata (OpenID Connect Discovery 1.0, 3; RFC 8414, 2).
    pub fn metadata(&self) -> Value {
        let issuer = self.issuer();
        let at = |path: &str| format!("{issuer}{path}");
        let asked_by = if self.0.authenticates {
            "Bearer"
        } else {
            "none"
        };
        json!({
            "issuer": issuer,
            "jwks_uri": at("/oauth/jwks"),
            "token_endpoint": at("/oauth/token"),
            "introspection_endpoint": at("/oauth/introspect"),
            "revocation_endpoint": at("/oauth/revoke"),
            "grant_types_supported": [exchange::GRANT_TYPE],
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "introspection_endpoint_auth_methods_supported": [asked_by],
            "revocation_endpoint_auth_methods_supported": [asked_by],
            "claims_supported": [
                "iss", "sub", "aud", "iat", "nbf", "exp", "jti", "act", "scope", "steadfast"
            ],
        })
    }

    /// The keys that others see, and for how many seconds they may be kept.
    pub fn jwks(&self) -> (Value, i64) {
        let now = steadfast_runtime::clock::now();
        // Twice: once here, once in somebody's cache.
        let kept = (self.0.publish_ahead / SECOND / 2).clamp(0, 300);
        (self.0.signer.keys().jwks(now), kept)
    }

    /// What a token says, if this server signed it and it has not expired.
    pub fn read(&self, token: &str) -> Option<Claims> {
        let now = steadfast_runtime::clock::now();
        Claims::verified(token, &self.0.signer.keys(), self.issuer(), now)
    }

    /// Whether a token that was read counts now.
    pub async fn is_active(&self, claims: &Claims) -> Result<bool, RuntimeError> {
        let own = claims.attempts_own();
        let (call, claim) = (&claims.steadfast, claims.claim());
        let is_revoked = |id: &str| {
            let name = revocations::name(&call.namespace, id);
            self.0.revocations.has(&name)
        };
        if is_revoked(own) || is_revoked(&claims.jti) {
            return Ok(false);
        }
        let state = self.0.runtime.credential_state(
            &call.namespace,
            &call.workflow_id,
            &call.run_id,
            &claim,
        );
        Ok(state.await? == CredentialState::Active)
    }

    /// Takes a token back, durably. The log says so.
    pub async fn revoke(&self, permit: &Permit, claims: &Claims) -> Result<(), RevocationError> {
        let namespace = &claims.steadfast.namespace;
        let until = claims.exp.saturating_mul(SECOND);
        if !self
            .take_back(permit, namespace, &claims.jti, until)
            .await?
        {
            return Ok(());
        }
        let detail = format!("credential {} for {}", claims.jti, claims.aud);
        Ok(self
            .note(permit, claims, "credential/revoked", &detail)
            .await?)
    }

    /// Takes back the token of a namespace with an id, as the log has it, whether there is one or not.
    pub async fn revoke_id(
        &self,
        permit: &Permit,
        namespace: &str,
        id: &str,
    ) -> Result<(), RevocationError> {
        let runtime = &self.0.runtime;
        let known = runtime.namespaces().by_name(namespace)?;
        // No token lives longer.
        let longest = i64::try_from(MAX_LIFETIME).unwrap_or(0) * SECOND;
        let until = steadfast_runtime::clock::now().saturating_add(longest);
        if !self.take_back(permit, namespace, id, until).await? {
            return Ok(());
        }
        let note = Note {
            what: "credential/revoked".into(),
            detail: format!("credential {id}").into(),
            ..Note::default()
        };
        Ok(runtime.note(permit, &known.id, note).await?)
    }

    async fn take_back(
        &self,
        permit: &Permit,
        namespace: &str,
        id: &str,
        until: Time,
    ) -> Result<bool, RevocationError> {
        let by = permit.cause().principal;
        let name = revocations::name(namespace, id);
        self.0.revocations.add(&name, until, &by).await
    }

    /// Says something of a token in the log of its namespace.
    async fn note(
        &self,
        permit: &Permit,
        claims: &Claims,
        what: &str,
        detail: &str,
    ) -> Result<(), RuntimeError> {
        let call = &claims.steadfast;
        let runtime = &self.0.runtime;
        let Ok(namespace) = runtime.namespaces().by_name(&call.namespace) else {
            return Ok(());
        };
        let note = Note {
            what: what.into(),
            detail: detail.into(),
            run_id: call.run_id.as_str().into(),
            workflow_id: call.workflow_id.as_str().into(),
        };
        runtime.note(permit, &namespace.id, note).await
    }
}

/// Where the keys are; nowhere if they are in memory.
pub fn key_path(config: &Config, of: &CredentialsConfig) -> Option<PathBuf> {
    if let Some(path) = &of.key {
        return Some(path.clone());
    }
    let mut path = config.store.path.clone().into_os_string();
    path.push(".credential-keys");
    (config.store.path.as_os_str() != ":memory:").then(|| path.into())
}
