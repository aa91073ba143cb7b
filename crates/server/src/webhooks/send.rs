//! One attempt to deliver an event over HTTP.

use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::sign;
use crate::config::WebhookConfig;

/// So much of an answer is read.
const MAX_ANSWER: u64 = 16 << 10;

/// So much of it is told where it is an error.
const MAX_TOLD: usize = 200;

/// The longest time that an endpoint may ask to be left alone.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Why an event was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// For people.
    pub why: String,
    /// How long the endpoint wants to be left alone.
    pub retry_after: Option<Duration>,
}

/// An event as it goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The same at each attempt.
    pub id: String,
    /// JSON.
    pub body: String,
}

/// Sends to one endpoint.
#[derive(Clone)]
pub(super) struct Sender {
    agent: ureq::Agent,
    config: WebhookConfig,
}

impl Sender {
    /// Reads the certificates that the endpoint is verified with.
    pub(super) fn new(config: &WebhookConfig) -> Result<Self, String> {
        let is_plain = config.url.starts_with("http://");
        let mut tls = ureq::tls::TlsConfig::builder();
        if let Some(path) = &config.ca {
            tls = tls.root_certs(ureq::tls::RootCerts::Specific(Arc::new(certificates(
                path,
            )?)));
        }
        let mut agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(config.timeout_seconds)))
            .http_status_as_error(false)
            .https_only(!is_plain)
            // An endpoint that moves is to be configured anew: what it says may lead anywhere.
            .max_redirects(0)
            .user_agent(concat!("steadfast/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build());
        // What is on this machine is not reached by a proxy of the environment.
        if config.is_local() {
            agent = agent.proxy(None);
        }
        let resolver = Careful {
            loopback_only: is_plain,
            allow_link_local: config.allow_link_local,
            inner: DefaultResolver::default(),
        };
        Ok(Self {
            agent: ureq::Agent::with_parts(agent.build(), DefaultConnector::new(), resolver),
            config: config.clone(),
        })
    }

    /// Sends an event once. Blocks.
    pub(super) fn send(&self, message: &Message) -> Result<(), Failure> {
        let failed = |why: String| Failure {
            why,
            retry_after: None,
        };
        // Read each time: secrets are rotated without a restart.
        let secrets = sign::read(&self.config.secret).map_err(failed)?;
        let Message { id, body } = message;
        let seconds = steadfast_runtime::clock::now() / steadfast_engine::time::SECOND;
        let signature = sign::signatures(&secrets, id, seconds, body);
        let answer = self
            .agent
            .post(&self.config.url)
            .header(
                "content-type",
                "application/cloudevents+json; charset=utf-8",
            )
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds.to_string())
            .header("webhook-signature", signature)
            .send(body.as_bytes());
        // The address may have a secret in it: it is not told.
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        let status = answer.status();
        let retry_after = answer.headers().get("retry-after");
        let retry_after = retry_after.and_then(|of| of.to_str().ok()?.parse().ok());
        let mut text = String::new();
        // What is not read is not needed, and an answer without an end takes the time that there is.
        let reader = answer.into_body().into_reader();
        let read = reader.take(MAX_ANSWER).read_to_string(&mut text);
        if status.is_success() {
            return Ok(());
        }
        let told: String = text.chars().take(MAX_TOLD).collect();
        let told = match read.is_ok() && !told.trim().is_empty() {
            true => format!("{status}: {}", told.trim()),
            false => status.to_string(),
        };
        Err(Failure {
            why: told.replace(char::is_control, " "),
            retry_after: retry_after.map(|of| Duration::from_secs(of).min(MAX_RETRY_AFTER)),
        })
    }
}

fn certificates(path: &Path) -> Result<Vec<ureq::tls::Certificate<'static>>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let pem = std::fs::read(path).map_err(|error| failed(&error))?;
    let certificates = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
        Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(error) => Some(Err(failed(&error))),
    });
    let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
    match certificates.is_empty() {
        true => Err(failed(&"no certificate")),
        false => Ok(certificates),
    }
}

/// Leaves out addresses that an endpoint must not have: names can be made to lead to what only this
/// machine reaches, such as a cloud's metadata.
#[derive(Debug)]
struct Careful {
    loopback_only: bool,
    allow_link_local: bool,
    inner: DefaultResolver,
}

impl Careful {
    fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_link_local = match address {
            IpAddr::V4(of) => of.is_link_local(),
            IpAddr::V6(of) => of.is_unicast_link_local(),
        };
        match address {
            _ if self.loopback_only => address.is_loopback(),
            _ if address.is_unspecified() || address.is_multicast() => false,
            _ => self.allow_link_local || !is_link_local,
        }
    }
}

impl Resolver for Careful {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        for address in found.iter().filter(|of| self.allows(of.ip())) {
            allowed.push(*address);
        }
        match allowed.is_empty() {
            true => Err(ureq::Error::Other(
                "its name leads to an address that webhooks must not have".into(),
            )),
            false => Ok(allowed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_machine_reaches_is_not_reached() {
        let careful = |loopback_only, allow_link_local| Careful {
            loopback_only,
            allow_link_local,
            inner: DefaultResolver::default(),
        };
        for (address, plain, usual, with_link_local) in [
            ("127.0.0.1", true, true, true),
            ("::1", true, true, true),
            ("192.0.2.7", false, true, true),
            ("10.0.0.7", false, true, true),
            ("169.254.169.254", false, false, true),
            ("::ffff:169.254.169.254", false, false, true),
            ("fe80::1", false, false, true),
            ("0.0.0.0", false, false, false),
            ("224.0.0.1", false, false, false),
        ] {
            let ip: IpAddr = address.parse().expect("an address");
            assert_eq!(careful(true, false).allows(ip), plain, "{address}");
            assert_eq!(careful(false, false).allows(ip), usual, "{address}");
            assert_eq!(
                careful(false, true).allows(ip),
                with_link_local,
                "{address}"
            );
        }
    }
}
