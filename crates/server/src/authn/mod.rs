//! Authentication: who calls, on both ports. What a caller may do is decided elsewhere
//! ([`crate::gate`]).
//!
//! One file for each method. A credential in the `authorization` header goes before the connection's
//! certificate: it is the narrower one, and where it is not valid the call is refused.

pub mod api_keys;
mod bootstrap;
mod identity;
mod jwks;
mod key_record;
mod layer;
mod mtls;
mod oidc;
mod signatures;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, header};
use steadfast_runtime::Runtime;

pub use api_keys::ApiKeys;
pub use bootstrap::write_new_key;
pub use identity::{Identity, UNAUTHENTICATED};
pub(crate) use layer::{AuthLayer, require};
pub use mtls::{Mtls, Peer};
use oidc::Oidc;

use crate::config::Config;

/// Makes JWTs verifiable in this process.
pub(crate) fn install_verification() {
    signatures::install();
}

/// Longest credential that is looked at, in bytes.
const MAX_CREDENTIAL: usize = 16 << 10;

/// What everybody may ask on HTTP. Who exchanges a credential shows it by that.
const OPEN: [&str; 4] = [
    "/.well-known/openid-configuration",
    "/healthz",
    "/oauth/jwks",
    "/oauth/token",
];

/// What API keys begin with.
const API_KEY_PREFIX: &str = "sfk_";

/// Why a caller is not let in. No credential is ever part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller did not show who it is.
    #[error("{0}")]
    Unauthenticated(String),
    /// Whether it did cannot be found out now.
    #[error("{0}")]
    Unavailable(String),
}

impl Refusal {
    fn because(why: impl Into<String>) -> Self {
        Self::Unauthenticated(why.into())
    }
}

/// Finds out who calls. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator(Arc<Methods>);

struct Methods {
    api_keys: Option<ApiKeys>,
    oidc: Oidc,
    mtls: bool,
    public_log: bool,
    /// Requests of callers that did not show who they are.
    refused: Arc<AtomicU64>,
}

impl Authenticator {
    /// The authenticator of a configuration; none if it has no method.
    pub async fn open(runtime: &Runtime, config: &Config) -> Result<Option<Self>, String> {
        let auth = &config.auth;
        if !auth.is_on() {
            return Ok(None);
        }
        let api_keys = match auth.api_keys {
            true => {
                let keys = ApiKeys::open(runtime).await?;
                if let Some(path) = auth.admin_key_path(config) {
                    bootstrap::ensure_key(&keys, &path).await?;
                }
                Some(keys)
            }
            false => None,
        };
        Ok(Some(Self(Arc::new(Methods {
            api_keys,
            oidc: Oidc::open(&auth.oidc)?,
            mtls: auth.mtls.is_some(),
            public_log: auth.public_log,
            refused: Arc::default(),
        }))))
    }

    /// How many requests were refused because callers did not show who they are.
    pub fn refused(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.0.refused)
    }

    fn count(&self, refusal: &Refusal) {
        if matches!(refusal, Refusal::Unauthenticated(_)) {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The API keys, where they are accepted.
    pub fn api_keys(&self) -> Option<&ApiKeys> {
        self.0.api_keys.as_ref()
    }

    /// Fetches the keys of issuers from now on, as long as the tasks are there.
    pub fn start(&self) -> Vec<tokio::task::JoinHandle<()>> {
        self.0.oidc.start()
    }

    /// Who sent a request with these headers over the connection of `peer`.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Result<Arc<Identity>, Refusal> {
        let identity = match bearer(headers)? {
            Some(key) if key.starts_with(API_KEY_PREFIX) => match &self.0.api_keys {
                Some(keys) => keys.authenticate(key)?,
                None => return Err(Refusal::because("this server does not accept API keys")),
            },
            Some(token) => self.0.oidc.authenticate(token).await?,
            None => match peer.filter(|_| self.0.mtls).and_then(Peer::identity) {
                Some(identity) => identity.clone().map_err(Refusal::because)?,
                None => return Err(self.nothing_shown()),
            },
        };
        if identity.has_expired(steadfast_runtime::clock::now()) {
            return Err(Refusal::because("the credential has expired"));
        }
        Ok(identity)
    }

    fn nothing_shown(&self) -> Refusal {
        let mut accepted = Vec::new();
        if self.0.api_keys.is_some() {
            accepted.push("an API key");
        }
        if !self.0.oidc.is_empty() {
            accepted.push("a token of a known issuer");
        }
        if self.0.mtls {
            accepted.push("a client certificate");
        }
        let accepted = accepted.join(", or ");
        Refusal::because(format!(
            "this server answers callers that show who they are: {accepted} is missing"
        ))
    }

    /// Whether everybody may ask for a path of HTTP.
    fn is_open(&self, path: &str) -> bool {
        OPEN.contains(&path)
            || path.starts_with("/ui/assets/")
            || (self.0.public_log && path.starts_with("/log/"))
    }
}

/// The credential in the headers, if there is one.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let malformed = || Refusal::because("the authorization header is not one Bearer credential");
    if values.next().is_some() || value.len() > MAX_CREDENTIAL {
        return Err(malformed());
    }
    let value = value.to_str().map_err(|_| malformed())?;
    let (scheme, credential) = value.split_once(' ').ok_or_else(malformed)?;
    let credential = credential.trim();
    match scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty() {
        true => Ok(Some(credential)),
        false => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_credential_is_in_the_header() {
        let parse = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().expect("a value"));
            }
            bearer(&headers).map(|found| found.map(str::to_owned)).ok()
        };
        assert_eq!(parse(&[]), Some(None));
        for value in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(parse(&[value]), Some(Some("abc".to_owned())), "{value:?}");
        }
        for values in [
            &["abc"][..],
            &["Bearer"],
            &["Bearer "],
            &["Basic abc"],
            &["Bearer a", "Bearer b"],
        ] {
            assert_eq!(parse(values), None, "{values:?}");
        }
    }
}
