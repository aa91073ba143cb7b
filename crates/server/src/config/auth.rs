//! Configuration of TLS and of authentication.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use steadfast_runtime::Kind;

use super::Config;

/// Longest name of an issuer.
const MAX_ISSUER: usize = 400;

/// Longest time for which keys are not fetched.
const MAX_REFRESH: u64 = 24 * 3600;

/// TLS on both ports.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// File with the server's certificate and those between it and the root (PEM).
    pub cert: PathBuf,
    /// File with its private key (PEM), which nobody else may read.
    pub key: PathBuf,
    /// File with the certificates of whoever signs those of clients (PEM).
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Refuses clients without a certificate.
    #[serde(default)]
    pub require_client_cert: bool,
}

/// How callers are authenticated. Nobody is if nothing is configured.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Accepts API keys that this server made.
    pub api_keys: bool,
    /// File with the first API key. Beside the store by default.
    pub admin_key: Option<PathBuf>,
    /// Shows the logs, their proofs and keys to everybody.
    pub public_log: bool,
    /// Issuers of JWTs.
    pub oidc: Vec<OidcConfig>,
    /// Accepts certificates of clients as what says who they are.
    pub mtls: Option<MtlsConfig>,
}

/// An issuer of JWTs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// What its tokens have as `iss`.
    pub issuer: String,
    /// What its tokens must have as `aud`, one of these.
    pub audiences: Vec<String>,
    /// Where its keys are; asked of the issuer if it is not there.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// File with the certificates that its server is verified with (PEM); public ones by default.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The claim that names the caller.
    #[serde(default = "default_id_claim")]
    pub id_claim: String,
    /// The claim with the caller's groups.
    #[serde(default = "default_groups_claim")]
    pub groups_claim: String,
    /// What those who have its tokens are.
    #[serde(default)]
    pub kind: KindConfig,
    /// How much clocks may differ.
    #[serde(default = "default_leeway")]
    pub leeway_seconds: u64,
    /// How often its keys are fetched.
    #[serde(default = "default_refresh")]
    pub refresh_seconds: u64,
    /// How soon they are fetched again for a key that is not known.
    #[serde(default = "default_refetch")]
    pub refetch_seconds: u64,
}

/// Certificates of clients as identities.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MtlsConfig {
    /// The only trust domain whose SPIFFE IDs are accepted; subjects without one are then refused.
    pub trust_domain: Option<String>,
    /// What those who have a certificate are.
    pub kind: Option<KindConfig>,
    /// The subject's organizational units are groups.
    pub groups_from_ou: bool,
    /// Groups by SPIFFE ID or common name.
    pub groups: BTreeMap<String, Vec<String>>,
}

/// What a principal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KindConfig {
    /// A person.
    #[default]
    User,
    /// A program.
    Service,
    /// An agent.
    Agent,
}

impl From<KindConfig> for Kind {
    fn from(kind: KindConfig) -> Self {
        match kind {
            KindConfig::User => Self::User,
            KindConfig::Service => Self::Service,
            KindConfig::Agent => Self::Agent,
        }
    }
}

fn default_id_claim() -> String {
    "sub".into()
}

fn default_groups_claim() -> String {
    "groups".into()
}

fn default_leeway() -> u64 {
    60
}

fn default_refresh() -> u64 {
    900
}

fn default_refetch() -> u64 {
    30
}

impl AuthConfig {
    /// Whether callers have to show who they are.
    pub fn is_on(&self) -> bool {
        self.api_keys || !self.oidc.is_empty() || self.mtls.is_some()
    }

    /// Where the first API key is, if there is a place for it.
    pub fn admin_key_path(&self, config: &Config) -> Option<PathBuf> {
        if let Some(path) = &self.admin_key {
            return Some(path.clone());
        }
        let store = &config.store.path;
        let mut path = store.clone().into_os_string();
        path.push(".admin-key");
        (store.as_os_str() != ":memory:").then(|| path.into())
    }
}

impl Config {
    /// Refuses what would leave a door open, or nobody in.
    pub(super) fn check_auth(&self) -> Result<(), String> {
        let auth = &self.auth;
        for (place, oidc) in auth.oidc.iter().enumerate() {
            oidc.check()?;
            if auth.oidc[..place].iter().any(|of| of.issuer == oidc.issuer) {
                return Err(format!("auth.oidc: {} is there twice", oidc.issuer));
            }
        }
        let client_ca = self.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
        if client_ca.is_none() {
            if auth.mtls.is_some() {
                return Err("auth.mtls needs tls.client_ca".into());
            }
            if self.tls.as_ref().is_some_and(|tls| tls.require_client_cert) {
                return Err("tls.require_client_cert needs tls.client_ca".into());
            }
        }
        if auth.api_keys && auth.admin_key_path(self).is_none() {
            return Err("auth.api_keys with a store in memory needs auth.admin_key".into());
        }
        if auth.public_log && !auth.is_on() {
            return Err("auth.public_log has no meaning where nobody is authenticated".into());
        }
        Ok(())
    }
}

impl OidcConfig {
    fn check(&self) -> Result<(), String> {
        let failed = |what: &str| Err(format!("auth.oidc {:?}: {what}", self.issuer));
        for url in [Some(&self.issuer), self.jwks_url.as_ref()] {
            if url.is_some_and(|url| !is_safe(url)) {
                return failed("URLs have to begin with https://");
            }
        }
        // What separates issuer and subject where a principal is named.
        if self.issuer.contains('#') || self.issuer.len() > MAX_ISSUER {
            return failed("an issuer has no #, and 400 characters at most");
        }
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            return failed("audiences are missing: tokens for others would be accepted");
        }
        if self.id_claim.is_empty() {
            return failed("id_claim is empty");
        }
        if self.leeway_seconds > 600 {
            return failed("leeway_seconds may be 600 at most");
        }
        let seconds = [self.refresh_seconds, self.refetch_seconds];
        if seconds.iter().any(|of| !(1..=MAX_REFRESH).contains(of)) {
            return failed("refresh_seconds and refetch_seconds have to be 1 to 86400");
        }
        Ok(())
    }
}

/// Whether what comes from there cannot be changed on its way: keys decide who is let in.
pub(crate) fn is_safe(url: &str) -> bool {
    if url.starts_with("https://") {
        return true;
    }
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(host) => host.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    !host.contains('@') && matches!(name, "localhost" | "127.0.0.1" | "::1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        Config::parse(text).and_then(|config| config.check())
    }

    #[test]
    fn what_leaves_a_door_open_is_refused() {
        let oidc = |rest: &str| {
            format!("[[auth.oidc]]\nissuer = 'https://i.example'\naudiences = ['a']\n{rest}")
        };
        assert_eq!(check(&oidc("")), Ok(()));
        let table = [
            (oidc("").replace("https", "http"), "https://"),
            (oidc("jwks_url = 'http://i.example/keys'"), "https://"),
            (oidc("").replace("['a']", "[]"), "audiences"),
            (oidc("").replace("i.example", "i.example#x"), "#"),
            (oidc("leeway_seconds = 601"), "leeway_seconds"),
            (oidc("refetch_seconds = 0"), "refetch_seconds"),
            (oidc("algorithms = ['none']"), "algorithms"),
            (format!("{}\n{}", oidc(""), oidc("")), "twice"),
            ("[auth.mtls]".to_owned(), "tls.client_ca"),
            (
                "[tls]\ncert = 'c'\nkey = 'k'\nrequire_client_cert = true".to_owned(),
                "tls.client_ca",
            ),
            (
                "[store]\npath = ':memory:'\n[auth]\napi_keys = true".to_owned(),
                "auth.admin_key",
            ),
            ("[auth]\npublic_log = true".to_owned(), "public_log"),
        ];
        for (text, part) in table {
            let error = check(&text).expect_err(&text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn keys_come_by_https_or_from_this_machine() {
        for safe in [
            "https://i.example/keys",
            "http://127.0.0.1:9000/keys",
            "http://localhost",
            "http://[::1]:80/",
        ] {
            assert!(is_safe(safe), "{safe}");
        }
        for unsafe_one in [
            "http://i.example",
            "http://127.0.0.1.example",
            "http://127.0.0.1@i.example/",
            "http://localhost:x@i.example/",
            "file:///etc/passwd",
            "",
        ] {
            assert!(!is_safe(unsafe_one), "{unsafe_one}");
        }
    }
}
