//! Configuration: a TOML file, or the flags of `steadfast dev`.

mod auth;
mod credentials;
mod webhooks;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use steadfast_engine::Limits;
use steadfast_engine::time::SECOND;
use steadfast_runtime::Settings;
use steadfast_runtime::evidence::reads::Reads;

pub(crate) use auth::is_safe;
pub use auth::{AuthConfig, KindConfig, MtlsConfig, OidcConfig, TlsConfig};
pub use credentials::CredentialsConfig;
pub(crate) use credentials::{MAX_LIFETIME, is_name};
pub use webhooks::WebhookConfig;

/// Everything that a server is started with.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where HTTP is served; none for nowhere.
    pub http: Option<SocketAddr>,
    /// The store.
    pub store: StoreConfig,
    /// Namespaces that are made at the start if they are not there.
    pub namespaces: Vec<NamespaceConfig>,
    /// Limits that clients see.
    pub limits: LimitsConfig,
    /// What is logged.
    pub log: LogConfig,
    /// Allows to serve other machines although nobody is authenticated, or without TLS.
    pub insecure: bool,
    /// TLS on both ports; none for plain connections.
    pub tls: Option<TlsConfig>,
    /// How callers are authenticated.
    pub auth: AuthConfig,
    /// Threads that serve requests; 0 for as many as there are cores.
    pub threads: usize,
    /// The tamper-evident log.
    pub evidence: EvidenceConfig,
    /// What agents may do.
    pub policy: PolicyConfig,
    /// Who may say that workflow types are resumable.
    pub prove: ProveConfig,
    /// Credentials of tool calls; none if there are none.
    pub credentials: Option<CredentialsConfig>,
    /// Who is told of approvals.
    pub webhooks: Vec<WebhookConfig>,
}

/// Who may say that workflow types are resumable, and what of it counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProveConfig {
    /// Verifier keys, as `steadfast prove keygen` prints them, of those whose attestations are believed.
    pub trusted_keys: Vec<String>,
    /// After so many days an attestation does not count any more.
    pub max_age_days: u32,
    /// So many percent of all that there was to try must have been tried, and have come to its place.
    pub min_coverage_percent: u32,
}

impl Default for ProveConfig {
    fn default() -> Self {
        Self {
            trusted_keys: Vec::new(),
            max_age_days: 90,
            min_coverage_percent: 0,
        }
    }
}

/// What agents may do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// A file of Cedar policies, or a directory with such files (`*.cedar`). None: nothing is governed.
    pub path: Option<PathBuf>,
}

/// The tamper-evident log.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvidenceConfig {
    /// What the origins of the logs begin with, such as `agents.example.com/log`: the namespace
    /// comes after it. Empty for a name that is made of the store's id.
    pub origin: String,
    /// File with the key that signs checkpoints; made if it is not there. Beside the store by
    /// default.
    pub key: Option<PathBuf>,
    /// File with the newest checkpoints that were signed; made if it is not there. Beside the store
    /// by default. Not to be restored together with the store: it is what shows that the store was.
    pub anchor: Option<PathBuf>,
    /// Witnesses that cosign checkpoints.
    pub witnesses: Vec<WitnessConfig>,
    /// Which reads leave entries.
    pub reads: ReadsConfig,
    /// No log at all: only to measure what it costs.
    #[serde(skip)]
    pub off_for_benchmarks: bool,
}

/// Which reads leave entries in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadsConfig {
    /// None.
    #[default]
    None,
    /// Those of histories.
    History,
    /// Queries, descriptions, lists and counts as well.
    All,
}

/// A witness (`c2sp.org/tlog-witness`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Its submission prefix: checkpoints are sent to `<url>/add-checkpoint`.
    pub url: String,
    /// Its verifier key.
    pub key: String,
}

/// The store.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Path of the SQLite file, or `:memory:`.
    pub path: PathBuf,
    /// Further SQLite pragmas.
    pub pragmas: BTreeMap<String, String>,
    /// Workflows kept in memory; idle ones beyond it are let go.
    pub live_workflows: usize,
}

/// A namespace to make.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceConfig {
    /// Its name.
    pub name: String,
    /// How long its closed runs are kept, in hours.
    #[serde(default = "default_retention_hours")]
    pub retention_hours: u64,
    /// Custom search attributes: name and type (Text, Keyword, Int, Double, Bool, Datetime,
    /// KeywordList).
    #[serde(default)]
    pub search_attributes: BTreeMap<String, String>,
}

/// Limits that clients see. What is left out keeps its default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Largest payloads of one request or command, in bytes.
    pub blob_bytes: Option<usize>,
    /// Largest memo, in bytes.
    pub memo_bytes: Option<usize>,
    /// Most events of one run.
    pub history_events: Option<i64>,
    /// Largest history of one run, in bytes.
    pub history_bytes: Option<i64>,
    /// Number of events from which on continue-as-new is suggested.
    pub suggest_history_events: Option<i64>,
    /// Bytes of history from which on continue-as-new is suggested.
    pub suggest_history_bytes: Option<i64>,
    /// Most activities, children, signals and cancels of other workflows pending at once, each.
    pub pending: Option<usize>,
    /// Most signals of one run.
    pub signals: Option<i64>,
    /// How long a poll waits for a task, in seconds.
    pub long_poll_seconds: Option<u64>,
}

/// What is logged, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace` or `never`.
    pub level: String,
    /// `text` or `json`.
    pub format: String,
}

fn default_retention_hours() -> u64 {
    72
}

impl Default for Config {
    fn default() -> Self {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            grpc: SocketAddr::new(local, 7233),
            http: Some(SocketAddr::new(local, 8233)),
            store: StoreConfig::default(),
            namespaces: vec![NamespaceConfig::named("default")],
            limits: LimitsConfig::default(),
            log: LogConfig::default(),
            insecure: false,
            tls: None,
            auth: AuthConfig::default(),
            threads: 0,
            policy: PolicyConfig::default(),
            prove: ProveConfig::default(),
            evidence: EvidenceConfig::default(),
            credentials: None,
            webhooks: Vec::new(),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("steadfast.db"),
            pragmas: BTreeMap::new(),
            live_workflows: Settings::default().live_workflows,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: "text".into(),
        }
    }
}

impl NamespaceConfig {
    /// A namespace with this name and nothing special.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            retention_hours: default_retention_hours(),
            search_attributes: BTreeMap::new(),
        }
    }

    /// Retention in nanoseconds.
    pub fn retention(&self) -> i64 {
        i64::try_from(self.retention_hours)
            .unwrap_or(i64::MAX)
            .saturating_mul(3600 * SECOND)
    }
}

impl Config {
    /// Reads a TOML file's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Refuses what must not be started.
    pub fn check(&self) -> Result<(), String> {
        let addresses = [Some(self.grpc), self.http];
        let open = addresses
            .into_iter()
            .flatten()
            .find(|address| !address.ip().is_loopback());
        if let Some(address) = open
            && !self.insecure
        {
            let missing = match (self.auth.is_on(), self.tls.is_some()) {
                (true, true) => None,
                (true, false) => Some("there is no TLS, so that keys and tokens can be read"),
                (false, _) => Some("nobody is authenticated"),
            };
            if let Some(missing) = missing {
                return Err(format!(
                    "{address} can be reached by other machines, but {missing}: serve a loopback address, or say insecure"
                ));
            }
        }
        self.check_auth()?;
        self.check_credentials()?;
        self.check_webhooks()?;
        for namespace in &self.namespaces {
            if namespace.retention_hours == 0 {
                return Err(format!(
                    "namespace {}: retention_hours has to be at least 1",
                    namespace.name
                ));
            }
        }
        Ok(())
    }

    /// The runtime's settings.
    pub fn settings(&self) -> Settings {
        let of = &self.limits;
        let default = Limits::default();
        let limits = Limits {
            blob_bytes: of.blob_bytes.unwrap_or(default.blob_bytes),
            memo_bytes: of.memo_bytes.unwrap_or(default.memo_bytes),
            history_events: of.history_events.unwrap_or(default.history_events),
            history_bytes: of.history_bytes.unwrap_or(default.history_bytes),
            suggest_history_events: of
                .suggest_history_events
                .unwrap_or(default.suggest_history_events),
            suggest_history_bytes: of
                .suggest_history_bytes
                .unwrap_or(default.suggest_history_bytes),
            pending: of.pending.unwrap_or(default.pending),
            signals: of.signals.unwrap_or(default.signals),
            ..default
        };
        let defaults = Settings::default();
        Settings {
            limits,
            live_workflows: self.store.live_workflows,
            long_poll: of
                .long_poll_seconds
                .map_or(defaults.long_poll, Duration::from_secs),
            evidence: !self.evidence.off_for_benchmarks,
            reads: match self.evidence.reads {
                ReadsConfig::None => Reads::None,
                ReadsConfig::History => Reads::History,
                ReadsConfig::All => Reads::All,
            },
            shapes: crate::shapes::shapes(),
            explain: Some(crate::governance::explain),
            ..defaults
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        let config = Config::parse("").expect("an empty file is fine");
        assert_eq!(config.grpc.port(), 7233);
        assert!(config.check().is_ok());
    }

    #[test]
    fn unknown_keys_are_refused_with_their_name() {
        let error = Config::parse("[store]\npaht = 'x'").expect_err("a typo is refused");
        assert!(error.contains("paht"), "{error}");
    }

    #[test]
    fn a_retention_of_nothing_is_refused() {
        let parse = |hours: u32| {
            let text = format!("[[namespaces]]\nname = 'n'\nretention_hours = {hours}");
            Config::parse(&text).expect("parses")
        };
        assert!(parse(1).check().is_ok());
        let error = parse(0).check().expect_err("refused");
        assert_eq!(error, "namespace n: retention_hours has to be at least 1");
    }

    #[test]
    fn reads_have_three_values() {
        let parse = |value: &str| Config::parse(&format!("[evidence]\nreads = '{value}'"));
        let settings = |value| parse(value).expect("parses").settings().reads;
        assert_eq!(settings("none"), Reads::None);
        assert_eq!(settings("history"), Reads::History);
        assert_eq!(settings("all"), Reads::All);
        let error = parse("some").expect_err("refused");
        assert!(
            error.contains("some") && error.contains("history"),
            "{error}"
        );
    }

    #[test]
    fn other_machines_are_served_only_when_that_is_spelt_out() {
        let tls = "[tls]\ncert = 'c'\nkey = 'k'\n";
        let auth = "[auth]\napi_keys = true\n";
        for (rest, is_safe) in [
            (String::new(), false),
            (tls.to_owned(), false),
            (auth.to_owned(), false),
            (format!("{tls}{auth}"), true),
        ] {
            let text = format!("grpc = '0.0.0.0:7233'\n{rest}");
            let mut config = Config::parse(&text).expect("parses");
            assert_eq!(config.check().is_ok(), is_safe, "{text}");
            config.insecure = true;
            assert!(config.check().is_ok(), "{text}");
        }
    }
}
