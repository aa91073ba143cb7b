//! Configuration of the credentials of tool calls.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use steadfast_engine::credential::Terms;
use steadfast_engine::time::SECOND;

use super::{Config, is_safe};

/// Longest lifetime of a credential, in seconds.
pub const MAX_LIFETIME: u64 = 15 * 60;

/// Longest name of an issuer or an audience, in bytes.
pub const MAX_NAME: usize = 400;

/// Longest time between two keys, or between the publication of one and its use.
const MAX_KEY_HOURS: u64 = 10 * 365 * 24;
const MAX_PUBLISH_AHEAD: u64 = 7 * 24 * 3600;

/// Credentials of tool calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialsConfig {
    /// What tokens have as `iss`: where this server is reached by who verifies them. Empty for where HTTP
    /// is served, if that is this machine only.
    pub issuer: String,
    /// For whom tokens are (`aud`). Empty for the issuer: they are then for nobody else before they are
    /// exchanged.
    pub audience: String,
    /// For whom those of some tools are, by activity type.
    pub audiences: BTreeMap<String, String>,
    /// Longest time that one is valid, in seconds.
    pub lifetime_seconds: u64,
    /// File with the keys that sign; made if it is not there. Beside the store by default.
    pub key: Option<PathBuf>,
    /// After how many hours another key signs; 0 for never.
    pub rotate_after_hours: u64,
    /// How long a new key is published before it signs, in seconds: caches of the old ones expire.
    pub publish_ahead_seconds: u64,
}

impl Default for CredentialsConfig {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: String::new(),
            audiences: BTreeMap::new(),
            lifetime_seconds: MAX_LIFETIME,
            key: None,
            rotate_after_hours: 90 * 24,
            publish_ahead_seconds: 600,
        }
    }
}

impl CredentialsConfig {
    /// What the engine needs to know. `issuer` is what the tokens have as `iss`.
    pub(crate) fn terms(&self, issuer: &str) -> Terms {
        let audience = match self.audience.is_empty() {
            true => issuer,
            false => &self.audience,
        };
        Terms {
            audience: audience.to_owned(),
            audiences: self.audiences.clone(),
            lifetime: i64::try_from(self.lifetime_seconds).unwrap_or(0) * SECOND,
        }
    }

    fn check(&self) -> Result<(), String> {
        let failed = |what: &str| Err(format!("credentials: {what}"));
        let issuer = &self.issuer;
        let has = |of: &[char]| issuer.contains(of);
        if !issuer.is_empty()
            && (!is_safe(issuer) || has(&['#', '?', ' ']) || issuer.ends_with('/'))
        {
            return failed("an issuer is an https:// URL without ?, # and a slash at its end");
        }
        let named = self.audiences.values().chain([issuer, &self.audience]);
        if named.into_iter().any(|of| !is_name(of)) {
            return failed(
                "issuers and audiences have 400 bytes at most, and no control characters",
            );
        }
        if self.audiences.values().any(String::is_empty) {
            return failed("an audience of a tool is empty");
        }
        if !(1..=MAX_LIFETIME).contains(&self.lifetime_seconds) {
            return failed("lifetime_seconds has to be 1 to 900");
        }
        if self.rotate_after_hours > MAX_KEY_HOURS {
            return failed("rotate_after_hours may be 87600 at most");
        }
        if !(1..=MAX_PUBLISH_AHEAD).contains(&self.publish_ahead_seconds) {
            return failed("publish_ahead_seconds has to be 1 to 604800");
        }
        Ok(())
    }
}

/// Whether a text may be the name of an issuer or an audience.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && !text.chars().any(char::is_control)
}

impl Config {
    /// Refuses what nobody could verify.
    pub(super) fn check_credentials(&self) -> Result<(), String> {
        let Some(of) = &self.credentials else {
            return Ok(());
        };
        of.check()?;
        let Some(address) = self.http else {
            return Err("credentials need HTTP: whoever verifies them asks for the keys".into());
        };
        if of.issuer.is_empty() && !address.ip().is_loopback() {
            return Err(format!(
                "credentials.issuer is missing: {address} is not how others know this server"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        Config::parse(text).and_then(|config| config.check())
    }

    #[test]
    fn what_nobody_could_verify_is_refused() {
        let of = |rest: &str| format!("[credentials]\nissuer = 'https://agents.example'\n{rest}");
        assert_eq!(check("[credentials]"), Ok(()));
        assert_eq!(check(&of("")), Ok(()));
        let table = [
            (of("").replace("https", "http"), "https://"),
            (of("").replace("example", "example/"), "slash"),
            (of("").replace("example", "example?x"), "?"),
            (of("lifetime_seconds = 901"), "lifetime_seconds"),
            (of("lifetime_seconds = 0"), "lifetime_seconds"),
            (of("publish_ahead_seconds = 0"), "publish_ahead_seconds"),
            (of("rotate_after_hours = 87601"), "rotate_after_hours"),
            (of("audience = \"a\\nb\""), "control"),
            (of("[credentials.audiences]\nrefund = ''"), "empty"),
            (of("secret = 'x'"), "secret"),
            (
                "http = '0.0.0.0:80'\ninsecure = true\n[credentials]".to_owned(),
                "credentials.issuer",
            ),
        ];
        for (text, part) in table {
            let error = check(&text).expect_err(&text);
            assert!(error.contains(part), "{text}: {error}");
        }
        let mut config = Config::parse(&of("")).expect("parses");
        config.http = None;
        assert!(config.check().is_err_and(|error| error.contains("HTTP")));
    }

    #[test]
    fn without_an_audience_they_are_for_the_issuer() {
        let config = CredentialsConfig::default();
        assert_eq!(config.terms("https://i").audience, "https://i");
        let config = CredentialsConfig {
            audience: "https://a".into(),
            audiences: [("refund".to_owned(), "https://pay".to_owned())].into(),
            ..config
        };
        let terms = config.terms("https://i");
        assert_eq!(terms.audience_of("refund"), "https://pay");
        assert_eq!(terms.audience_of("other"), "https://a");
        assert_eq!(terms.lifetime, 900 * SECOND);
    }
}
