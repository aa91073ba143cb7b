//! Configuration of webhooks.

use std::path::PathBuf;

use serde::Deserialize;
use steadfast_engine::Time;
use steadfast_engine::time::SECOND;

use super::{Config, is_safe};
use crate::webhooks::{APPROVALS, TOOL_DENIED};

/// So many webhooks.
const MAX_WEBHOOKS: usize = 20;

/// Longest time for one attempt, in seconds.
const MAX_TIMEOUT: u64 = 60;

/// Longest time until an event is given up, in seconds.
const MAX_AGE: u64 = 30 * 24 * 3600;

/// Where events are sent to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// What it is known by: its place in the logs is kept under this name.
    pub name: String,
    /// The endpoint: https, or this machine.
    pub url: String,
    /// Which events: `approval.requested` and so on, `tool.denied`, or what a note in the log says that it
    /// is, such as `policy/changed`. All about approvals by default.
    #[serde(default = "default_events")]
    pub events: Vec<String>,
    /// File with the secret that signs, or two while it is rotated, on lines of their own.
    pub secret: PathBuf,
    /// File with the certificates that the endpoint is verified with (PEM); public ones by default.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Only these namespaces; all if there are none.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Whether requests for approval have the raw arguments.
    #[serde(default)]
    pub arguments: bool,
    /// How long the endpoint may take, in seconds.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u64,
    /// How old an event is when it is given up, in seconds.
    #[serde(default = "default_age")]
    pub give_up_after_seconds: u64,
    /// Whether the endpoint's name may lead to a link-local address.
    #[serde(default)]
    pub allow_link_local: bool,
}

fn default_events() -> Vec<String> {
    APPROVALS.map(str::to_owned).into()
}

fn default_timeout() -> u64 {
    10
}

fn default_age() -> u64 {
    3 * 24 * 3600
}

impl WebhookConfig {
    /// Whether it looks at a namespace.
    pub(crate) fn looks_at(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|of| of == namespace)
    }

    /// Whether it is told of an event.
    pub(crate) fn wants(&self, event: &str) -> bool {
        self.events.iter().any(|of| of == event)
    }

    /// Whether it is told of notes.
    pub(crate) fn wants_notes(&self) -> bool {
        self.events.iter().any(|of| of.contains('/'))
    }

    /// How old an event is when it is given up, in nanoseconds.
    pub(crate) fn give_up_after(&self) -> Time {
        let seconds = i64::try_from(self.give_up_after_seconds).unwrap_or(i64::MAX);
        seconds.saturating_mul(SECOND)
    }

    /// The address without what may be a secret in it.
    pub(crate) fn host(&self) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        format!("{scheme}://{host}")
    }

    /// Whether the endpoint is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        let plain = self.host().replacen("https://", "http://", 1);
        is_safe(&plain)
    }

    fn check(&self) -> Result<(), String> {
        let failed = |what: &str| Err(format!("webhook {:?}: {what}", self.name));
        let is_plain = |of: char| of.is_ascii_alphanumeric() || "-_".contains(of);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(is_plain) {
            return failed("a name has letters, digits, - and _, at most 64");
        }
        if !is_safe(&self.url) || self.url.contains([' ', '#']) || self.host().len() < 9 {
            return failed("the url is https://…, or http:// to a loopback address");
        }
        let is_known = |of: &&String| {
            APPROVALS.contains(&of.as_str()) || *of == TOOL_DENIED || of.contains('/')
        };
        if let Some(odd) = self.events.iter().find(|of| !is_known(of)) {
            return failed(&format!("there is no event {odd:?}"));
        }
        if self.events.is_empty() {
            return failed("it has no events");
        }
        if !(1..=MAX_TIMEOUT).contains(&self.timeout_seconds) {
            return failed(&format!("timeout_seconds is 1 to {MAX_TIMEOUT}"));
        }
        if !(1..=MAX_AGE).contains(&self.give_up_after_seconds) {
            return failed(&format!("give_up_after_seconds is 1 to {MAX_AGE}"));
        }
        Ok(())
    }
}

impl Config {
    pub(super) fn check_webhooks(&self) -> Result<(), String> {
        if self.webhooks.len() > MAX_WEBHOOKS {
            return Err(format!("there are more than {MAX_WEBHOOKS} webhooks"));
        }
        let mut names: Vec<&str> = self.webhooks.iter().map(|of| of.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|of| of[0] == of[1]) {
            return Err(format!("there are two webhooks {:?}", twice[0]));
        }
        self.webhooks.iter().try_for_each(WebhookConfig::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rest: &str) -> Result<WebhookConfig, String> {
        let text = format!("[[webhooks]]\nsecret = 's'\n{rest}");
        let config = Config::parse(&text)?;
        config.check()?;
        Ok(config.webhooks[0].clone())
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let usual = "name = 'a'\nurl = 'https://user:pw@hooks.example:8443/x?token=y'\n";
        let webhook = check(usual).expect("is fine");
        assert!(webhook.wants("approval.expired") && !webhook.wants("tool.denied"));
        assert_eq!(webhook.host(), "https://hooks.example:8443");
        assert!(!webhook.is_local());
        assert!(check("name = 'a'\nurl = 'http://127.0.0.1:80/'").is_ok());
        for (rest, part) in [
            ("name = 'a'\nurl = 'http://hooks.example/'", "https"),
            ("name = 'a'\nurl = 'ftp://hooks.example/'", "https"),
            ("name = 'a/b'\nurl = 'https://hooks.example/'", "name"),
            (
                &format!("{usual}events = ['approval.lost']"),
                "approval.lost",
            ),
            (&format!("{usual}events = []"), "no events"),
            (&format!("{usual}timeout_seconds = 0"), "timeout_seconds"),
            (&format!("{usual}give_up_after_seconds = 0"), "give_up"),
            (
                &format!("{usual}[[webhooks]]\nsecret = 's'\n{usual}"),
                "two webhooks",
            ),
        ] {
            let error = check(rest).expect_err(rest);
            assert!(error.contains(part), "{rest}: {error}");
        }
    }
}
