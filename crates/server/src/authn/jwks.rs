//! The keys of an issuer (RFC 7517): fetched, kept, and fetched again.
//!
//! They are fetched at intervals, and for a key that is not known, then at most once in a shorter
//! interval: whoever invents key ids causes no more requests than that. Where an issuer does not answer,
//! its keys stay for a day.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::RwLock;
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore};

use super::Refusal;
use crate::config::{OidcConfig, is_safe};

/// How long an issuer may take for one document.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Largest document of an issuer.
const MAX_BYTES: u64 = 256 << 10;

/// Most keys of an issuer.
const MAX_KEYS: usize = 200;

/// How long keys stay that cannot be fetched again.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// How soon it is tried again after a failure, at the latest.
const RETRY: Duration = Duration::from_secs(30);

/// Callers that wait for keys at a time.
const MAX_WAITING: usize = 256;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// Gets the document with the keys. Blocks.
pub(super) type Fetch = Box<dyn Fn() -> Result<Vec<u8>, String> + Send + Sync>;

/// The keys of one issuer.
pub(super) struct Jwks {
    issuer: String,
    fetch: Arc<Fetch>,
    refresh: Duration,
    refetch: Duration,
    state: RwLock<State>,
    /// Goes up when a key may have gone: what it signed is to be verified again.
    generation: AtomicU64,
    fetching: Mutex<()>,
    waiting: Semaphore,
}

#[derive(Default)]
struct State {
    keys: Vec<Key>,
    document: Vec<u8>,
    fetched: Option<Instant>,
    attempted: Option<Instant>,
}

/// One key.
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// A document with keys.
#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl Jwks {
    /// The keys of an issuer, none of which is there yet.
    pub(super) fn new(config: &OidcConfig, fetch: Fetch) -> Self {
        Self {
            issuer: config.issuer.clone(),
            fetch: Arc::new(fetch),
            refresh: Duration::from_secs(config.refresh_seconds),
            refetch: Duration::from_secs(config.refetch_seconds),
            state: RwLock::default(),
            generation: AtomicU64::default(),
            fetching: Mutex::default(),
            waiting: Semaphore::new(MAX_WAITING),
        }
    }

    /// The generation of the keys.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Fetches the keys at intervals, for ever.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let is_done = {
                let _fetching = self.fetching.lock().await;
                self.update().await
            };
            let pause = match is_done {
                true => self.refresh,
                false => self.refresh.min(RETRY),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// The key with an id for an algorithm; without an id, the only one for it.
    pub(super) async fn key(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, Refusal> {
        if let Some(key) = self.find(id, algorithm) {
            return Ok(key);
        }
        if self.may_fetch() {
            let _waiting = self.waiting.try_acquire().map_err(|_| self.unavailable())?;
            let _fetching = self.fetching.lock().await;
            // Somebody else may have done it meanwhile.
            if self.find(id, algorithm).is_none() && self.may_fetch() {
                self.update().await;
            }
        }
        let found = self.find(id, algorithm);
        found.ok_or_else(|| match self.state.read().keys.is_empty() {
            true => self.unavailable(),
            false => {
                Refusal::because("the token is signed with a key that its issuer does not show")
            }
        })
    }

    fn unavailable(&self) -> Refusal {
        let issuer = &self.issuer;
        Refusal::Unavailable(format!("the keys of {issuer} cannot be had now: try again"))
    }

    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let state = self.state.read();
        let mut fitting = state.keys.iter().filter(|key| {
            key.algorithms.contains(&algorithm) && (id.is_none() || key.id.as_deref() == id)
        });
        let key = fitting.next()?;
        fitting.next().is_none().then(|| key.key.clone())
    }

    fn may_fetch(&self) -> bool {
        let attempted = self.state.read().attempted;
        attempted.is_none_or(|at| at.elapsed() >= self.refetch)
    }

    /// Fetches the keys once. Says whether that worked. `fetching` is held.
    async fn update(&self) -> bool {
        let fetch = self.fetch.clone();
        let fetched = tokio::task::spawn_blocking(move || fetch()).await;
        let fetched = fetched.unwrap_or_else(|error| Err(error.to_string()));
        let parsed = fetched.and_then(|document| Ok((keys(&document)?, document)));
        let now = Instant::now();
        let mut state = self.state.write();
        state.attempted = Some(now);
        match parsed {
            Ok((keys, document)) => {
                state.fetched = Some(now);
                if state.document != document {
                    state.keys = keys;
                    state.document = document;
                    self.generation.fetch_add(1, Ordering::AcqRel);
                }
                true
            }
            Err(error) => {
                tracing::warn!(
                    issuer = self.issuer,
                    error,
                    "the keys of an issuer cannot be fetched"
                );
                if state.fetched.is_some_and(|at| at.elapsed() > MAX_AGE) {
                    *state = State {
                        attempted: Some(now),
                        ..State::default()
                    };
                    self.generation.fetch_add(1, Ordering::AcqRel);
                }
                false
            }
        }
    }
}

/// The keys of a document that can be used here. Others are no error: issuers have keys for much else.
fn keys(document: &[u8]) -> Result<Vec<Key>, String> {
    let document: Document =
        serde_json::from_slice(document).map_err(|error| format!("not a set of keys: {error}"))?;
    if document.keys.len() > MAX_KEYS {
        return Err(format!("more than {MAX_KEYS} keys"));
    }
    let keys: Vec<_> = document.keys.into_iter().filter_map(key).collect();
    match keys.is_empty() {
        true => Err("no key that can be used".to_owned()),
        false => Ok(keys),
    }
}

fn key(value: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let common = &jwk.common;
    let is_for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature))
        && common
            .key_operations
            .as_ref()
            .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !is_for_signatures {
        return None;
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA.to_vec(),
        AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P256 => {
            vec![Algorithm::ES256]
        }
        AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P384 => {
            vec![Algorithm::ES384]
        }
        AlgorithmParameters::OctetKeyPair(of) if of.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        // A shared secret that is shown to everybody is none.
        _ => return None,
    };
    if let Some(of) = common.key_algorithm {
        let of = Algorithm::try_from(of).ok()?;
        algorithms.retain(|algorithm| *algorithm == of);
    }
    Some(Key {
        id: common.key_id.clone(),
        algorithms,
        key: DecodingKey::from_jwk(&jwk).ok()?,
    })
}

/// Fetches over HTTP, from where the configuration or the issuer says.
pub(super) fn over_http(config: &OidcConfig) -> Result<Fetch, String> {
    let issuer = config.issuer.clone();
    let url = config.jwks_url.clone();
    let agent = agent(config.ca.as_deref())?;
    Ok(Box::new(move || match &url {
        Some(url) => get(&agent, url),
        None => get(&agent, &discovered(&agent, &issuer)?),
    }))
}

fn agent(ca: Option<&Path>) -> Result<ureq::Agent, String> {
    let mut tls = ureq::tls::TlsConfig::builder();
    if let Some(path) = ca {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let pem = std::fs::read(path).map_err(|error| failed(&error))?;
        let certificates = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
            Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(failed(&error))),
        });
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        if certificates.is_empty() {
            return Err(failed(&"no certificate"));
        }
        let roots = ureq::tls::RootCerts::Specific(Arc::new(certificates));
        tls = tls.root_certs(roots);
    }
    Ok(ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .max_redirects(3)
        .tls_config(tls.build())
        .build()
        .into())
}

/// Where an issuer's keys are (OpenID Connect Discovery 1.0, section 4).
fn discovered(agent: &ureq::Agent, issuer: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Metadata {
        issuer: String,
        jwks_uri: String,
    }
    let base = issuer.trim_end_matches('/');
    let document = get(agent, &format!("{base}/.well-known/openid-configuration"))?;
    let metadata: Metadata = serde_json::from_slice(&document)
        .map_err(|error| format!("not the metadata of an issuer: {error}"))?;
    if metadata.issuer != issuer {
        return Err(format!("the metadata is of {:?}", metadata.issuer));
    }
    let is_https = |url: &str| url.starts_with("https://");
    let is_as_safe = is_https(&metadata.jwks_uri) || !is_https(issuer);
    match is_as_safe && is_safe(&metadata.jwks_uri) {
        true => Ok(metadata.jwks_uri),
        false => Err(format!(
            "its keys are at {:?}, without TLS",
            metadata.jwks_uri
        )),
    }
}

fn get(agent: &ureq::Agent, url: &str) -> Result<Vec<u8>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{url}: {error}");
    // No redirect leads from TLS to a place without it.
    let request = agent.get(url).config();
    let request = request.https_only(url.starts_with("https://")).build();
    let answer = request.call().map_err(|error| failed(&error))?;
    let mut document = Vec::new();
    let reader = answer.into_body().into_reader();
    let read = reader.take(MAX_BYTES + 1).read_to_end(&mut document);
    read.map_err(|error| failed(&error))?;
    match document.len() as u64 > MAX_BYTES {
        true => Err(failed(&format!("more than {MAX_BYTES} bytes"))),
        false => Ok(document),
    }
}
