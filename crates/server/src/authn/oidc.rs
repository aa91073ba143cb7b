//! JWTs of OpenID Connect issuers (RFC 7519, RFC 8725).

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use steadfast_engine::time::SECOND;
use steadfast_ledger::Hash;
use steadfast_runtime::Kind;

use super::jwks::{self, Jwks};
use super::{Identity, Refusal, signatures};
use crate::config::OidcConfig;

const METHOD: &str = "oidc";

/// Most tokens that are not verified anew at each call.
const MAX_VERIFIED: usize = 10_000;

/// What is accepted. Nothing that who verifies could make.
const ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// All issuers, and tokens of theirs that were verified.
pub(super) struct Oidc {
    issuers: Vec<Arc<Issuer>>,
    verified: Mutex<HashMap<Hash, Verified>>,
}

/// A token that was verified.
struct Verified {
    identity: Arc<Identity>,
    issuer: usize,
    generation: u64,
}

/// An issuer.
struct Issuer {
    config: OidcConfig,
    jwks: Jwks,
}

type Claims = Map<String, Value>;

impl Oidc {
    /// The issuers of a configuration. Nothing is fetched yet.
    pub(super) fn open(configs: &[OidcConfig]) -> Result<Self, String> {
        signatures::install();
        let issuers = configs.iter().map(|config| {
            let fetch = jwks::over_http(config)
                .map_err(|error| format!("auth.oidc {:?}: {error}", config.issuer))?;
            Ok(Issuer::new(config, fetch))
        });
        Ok(Self::of(issuers.collect::<Result<_, String>>()?))
    }

    fn of(issuers: Vec<Issuer>) -> Self {
        Self {
            issuers: issuers.into_iter().map(Arc::new).collect(),
            verified: Mutex::default(),
        }
    }

    /// Whether there is no issuer.
    pub(super) fn is_empty(&self) -> bool {
        self.issuers.is_empty()
    }

    /// Keeps the keys of all issuers fresh.
    pub(super) fn start(&self) -> Vec<tokio::task::JoinHandle<()>> {
        let issuers = self.issuers.iter().cloned();
        let task = |issuer: Arc<Issuer>| async move { issuer.jwks.keep_fresh().await };
        issuers.map(|issuer| tokio::spawn(task(issuer))).collect()
    }

    /// Who has a token.
    pub(super) async fn authenticate(&self, token: &str) -> Result<Arc<Identity>, Refusal> {
        if self.is_empty() {
            return Err(Refusal::because("this server does not accept tokens"));
        }
        let hash = Hash::of(token.as_bytes());
        if let Some(identity) = self.verified(&hash) {
            return Ok(identity);
        }
        let header = header(token)?;
        let (place, issuer) = self.issuer(token)?;
        // Before the key is taken: if the keys change meanwhile, the token is verified again.
        let generation = issuer.jwks.generation();
        let key = issuer.jwks.key(header.kid.as_deref(), header.alg).await?;
        let claims = issuer.claims(token, &header, &key)?;
        let identity = Arc::new(issuer.identity(&claims)?);
        let verified = Verified {
            identity: identity.clone(),
            issuer: place,
            generation,
        };
        self.keep(hash, verified);
        Ok(identity)
    }

    fn verified(&self, hash: &Hash) -> Option<Arc<Identity>> {
        let mut all = self.verified.lock();
        let verified = all.get(hash)?;
        let is_current = verified.generation == self.issuers[verified.issuer].jwks.generation();
        let now = steadfast_runtime::clock::now();
        if is_current && !verified.identity.has_expired(now) {
            return Some(verified.identity.clone());
        }
        all.remove(hash);
        None
    }

    fn keep(&self, hash: Hash, of: Verified) {
        let mut all = self.verified.lock();
        if all.len() >= MAX_VERIFIED {
            let now = steadfast_runtime::clock::now();
            all.retain(|_, of| !of.identity.has_expired(now));
        }
        if all.len() >= MAX_VERIFIED {
            all.clear();
        }
        all.insert(hash, of);
    }

    /// The issuer that a token names, which is not verified yet.
    fn issuer(&self, token: &str) -> Result<(usize, &Issuer), Refusal> {
        let claims = jsonwebtoken::dangerous::insecure_decode_claims::<Claims>(token);
        let claims = claims.map_err(|_| malformed())?;
        let name = claims.get("iss").and_then(Value::as_str);
        let mut issuers = self.issuers.iter().enumerate();
        issuers
            .find(|(_, issuer)| Some(issuer.config.issuer.as_str()) == name)
            .map(|(place, issuer)| (place, &**issuer))
            .ok_or_else(|| Refusal::because("the token is of an issuer that is not known here"))
    }
}

fn malformed() -> Refusal {
    Refusal::because("the credential is neither an API key nor a JWT")
}

/// The header of a token, if it is one that can be verified.
fn header(token: &str) -> Result<Header, Refusal> {
    // Other algorithms, such as none, are not even read.
    let header = jsonwebtoken::decode_header(token).map_err(|_| malformed())?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(Refusal::because(
            "the token is signed with an algorithm that is not accepted",
        ));
    }
    if header.crit.is_some() {
        return Err(Refusal::because(
            "the token's header has extensions that are not known",
        ));
    }
    Ok(header)
}

impl Issuer {
    fn new(config: &OidcConfig, fetch: jwks::Fetch) -> Self {
        Self {
            config: config.clone(),
            jwks: Jwks::new(config, fetch),
        }
    }

    /// The claims of a token, verified.
    fn claims(
        &self,
        token: &str,
        header: &Header,
        key: &jsonwebtoken::DecodingKey,
    ) -> Result<Claims, Refusal> {
        let mut validation = Validation::new(header.alg);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&self.config.audiences);
        validation.leeway = self.config.leeway_seconds;
        validation.validate_nbf = true;
        let decoded = jsonwebtoken::decode::<Claims>(token, key, &validation);
        let claims = decoded.map_err(|error| refusal(error.kind()))?.claims;
        if let Some(issued) = claims.get("iat") {
            let leeway = i64::try_from(self.config.leeway_seconds).unwrap_or(0);
            let latest = steadfast_runtime::clock::now() / SECOND + leeway;
            if issued.as_f64().is_none_or(|issued| issued > latest as f64) {
                return Err(Refusal::because("the token was issued in the future"));
            }
        }
        Ok(claims)
    }

    /// Who the claims are about.
    fn identity(&self, claims: &Claims) -> Result<Identity, Refusal> {
        let of = &self.config;
        let id = claim(claims, &of.id_claim).and_then(Value::as_str);
        let id = id.ok_or_else(|| {
            Refusal::because(format!(
                "the token has no claim {:?} that is a text",
                of.id_claim
            ))
        })?;
        // What somebody typed in is not who they are.
        if of.id_claim == "email" && claims.get("email_verified") == Some(&Value::Bool(false)) {
            return Err(Refusal::because(
                "the token's e-mail address is not verified",
            ));
        }
        let groups = match claim(claims, &of.groups_claim) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::String(group)) => Some(vec![group.clone()]),
            Some(Value::Array(groups)) => groups
                .iter()
                .map(|group| group.as_str().map(str::to_owned))
                .collect(),
            Some(_) => None,
        };
        let groups = groups.ok_or_else(|| {
            Refusal::because(format!(
                "the token's claim {:?} is no list of groups",
                of.groups_claim
            ))
        })?;
        let identity = Identity::new(METHOD, &of.issuer, id, Kind::from(of.kind), groups);
        let mut identity =
            identity.map_err(|error| Refusal::because(format!("the token is refused: {error}")))?;
        let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or(0.0);
        // Saturates.
        let expires = (expires * SECOND as f64) as i64;
        let leeway = i64::try_from(of.leeway_seconds).unwrap_or(0) * SECOND;
        identity.expires = Some(expires.saturating_add(leeway));
        Ok(identity)
    }
}

/// A claim by its name, or by its place, such as `/realm_access/roles` (RFC 6901).
fn claim<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let path = name.strip_prefix('/')?;
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let value = claims.get(first)?;
    match rest.is_empty() {
        true => Some(value),
        false => value.pointer(&format!("/{rest}")),
    }
}

/// What is wrong, without a word of the token.
fn refusal(kind: &ErrorKind) -> Refusal {
    let why = match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => "the token has no time at which it expires",
            "aud" => "the token names no audience",
            _ => "the token names no issuer",
        },
        _ => "the token cannot be verified",
    };
    Refusal::because(why)
}

#[cfg(test)]
mod tests;
