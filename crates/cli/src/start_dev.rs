//! `steadfast server start-dev`: takes the flags of the `temporal` command, so that the local test
//! environments of the SDKs can start this binary in its place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use steadfast_server::Config;
use steadfast_server::config::NamespaceConfig;

/// Retention of the namespaces, as the `temporal` command makes them.
const RETENTION_HOURS: u64 = 24;

/// Commands about servers.
#[derive(Subcommand)]
pub enum Command {
    /// Run a local server; without --db-filename its state is in memory.
    StartDev(StartDev),
}

/// Run a local server with the flags of `temporal server start-dev`.
#[derive(Args)]
pub struct StartDev {
    /// Address to serve gRPC on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    ip: IpAddr,
    /// Port for gRPC; 0 for any free one.
    #[arg(long, short = 'p', default_value_t = 7233)]
    port: u16,
    /// Address to serve HTTP on.
    #[arg(long)]
    ui_ip: Option<IpAddr>,
    /// Port for HTTP; the gRPC port + 1000 if left out.
    #[arg(long)]
    ui_port: Option<u16>,
    /// The same as --ui-port.
    #[arg(long)]
    http_port: Option<u16>,
    /// Do not serve HTTP, unless a port for it is given.
    #[arg(long)]
    headless: bool,
    /// SQLite file; in memory if left out.
    #[arg(long, short = 'f', value_name = "FILE")]
    db_filename: Option<PathBuf>,
    /// Namespaces to make.
    #[arg(long, short = 'n', value_name = "NAME")]
    namespace: Vec<String>,
    /// Search attributes to register: NAME=TYPE.
    #[arg(long, value_name = "NAME=TYPE")]
    search_attribute: Vec<String>,
    /// Settings of the Temporal server: NAME=JSON. Those that are known here take effect, the others
    /// are named in the log and do not.
    #[arg(long, value_name = "NAME=JSON")]
    dynamic_config_value: Vec<String>,
    /// SQLite pragmas: NAME=VALUE.
    #[arg(long, value_name = "NAME=VALUE")]
    sqlite_pragma: Vec<String>,
    /// error, warn, info, debug or never.
    #[arg(long, default_value = "warn")]
    log_level: String,
    /// text or json.
    #[arg(long, default_value = "text")]
    log_format: String,
    /// A file of Cedar policies, or a directory with such files: they decide every tool call.
    #[arg(long, value_name = "PATH")]
    policy: Option<PathBuf>,
    /// Give each attempt of a tool call a credential: this server is their issuer, where HTTP is served.
    #[arg(long)]
    credentials: bool,
    /// Write no evidence: only to measure what it costs.
    #[arg(long, hide = true)]
    no_evidence: bool,
    /// Take commands about time from the standard input, and end with it.
    #[arg(long, hide = true)]
    driven: bool,
    /// Further flags that change nothing here.
    #[command(flatten)]
    ignored: Ignored,
}

/// Flags that SDKs pass and that have no meaning here.
#[derive(Args)]
struct Ignored {
    #[arg(long, hide = true)]
    ui_asset_path: Option<String>,
    #[arg(long, hide = true)]
    ui_codec_endpoint: Option<String>,
    #[arg(long, hide = true)]
    ui_public_path: Option<String>,
    #[arg(long, hide = true)]
    metrics_port: Option<u16>,
    #[arg(long, hide = true)]
    log_config: bool,
    #[arg(long, hide = true)]
    color: Option<String>,
}

impl StartDev {
    /// Runs until told to stop.
    pub fn run(self) -> Result<(), String> {
        let is_driven = self.driven;
        let (config, unknown) = self.config()?;
        super::serve::run(&config, |server, address| {
            println!("Steadfast {}", env!("CARGO_PKG_VERSION"));
            println!("Server:  {address}");
            if !unknown.is_empty() {
                tracing::warn!("settings without meaning here: {}", unknown.join(", "));
            }
            if is_driven {
                tokio::spawn(super::driven::obey(server.runtime().clone()));
            }
        })
    }

    /// What the flags say, and the names of the settings that have no meaning here.
    fn config(self) -> Result<(Config, Vec<String>), String> {
        let mut config = Config {
            grpc: SocketAddr::new(self.ip, self.port),
            http: self.http_address(),
            ..Config::default()
        };
        config.store.path = self
            .db_filename
            .unwrap_or_else(|| PathBuf::from(":memory:"));
        config.log.level = self.log_level;
        config.log.format = self.log_format;
        config.evidence.off_for_benchmarks = self.no_evidence;
        config.policy.path = self.policy;
        config.credentials = self.credentials.then(Default::default);
        for pragma in &self.sqlite_pragma {
            let (name, value) = pair("--sqlite-pragma", pragma)?;
            config.store.pragmas.insert(name, value);
        }
        for name in &self.namespace {
            if config
                .namespaces
                .iter()
                .all(|namespace| namespace.name != *name)
            {
                config.namespaces.push(NamespaceConfig::named(name));
            }
        }
        for namespace in &mut config.namespaces {
            namespace.retention_hours = RETENTION_HOURS;
        }
        for attribute in &self.search_attribute {
            let (name, value_type) = pair("--search-attribute", attribute)?;
            for namespace in &mut config.namespaces {
                namespace
                    .search_attributes
                    .insert(name.clone(), value_type.clone());
            }
        }
        let mut unknown = Vec::new();
        for setting in &self.dynamic_config_value {
            let (name, value) = pair("--dynamic-config-value", setting)?;
            if !apply_setting(&mut config, &name, &value)? {
                unknown.push(name);
            }
        }
        drop(self.ignored);
        Ok((config, unknown))
    }

    fn http_address(&self) -> Option<SocketAddr> {
        let asked = self.ui_port.or(self.http_port);
        let ip = self.ui_ip.unwrap_or(self.ip);
        match asked {
            Some(port) => Some(SocketAddr::new(ip, port)),
            None if self.headless || self.port == 0 => None,
            None => self
                .port
                .checked_add(1000)
                .map(|port| SocketAddr::new(ip, port)),
        }
    }
}

fn pair(flag: &str, text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{flag} wants NAME=VALUE, got {text:?}"))
}

/// Applies one of the Temporal server's settings. Returns whether it has a meaning here.
fn apply_setting(config: &mut Config, name: &str, value: &str) -> Result<bool, String> {
    let number = || {
        value
            .parse::<i64>()
            .map_err(|_| format!("--dynamic-config-value {name} wants a number, got {value:?}"))
    };
    let size = || usize::try_from(number()?).map_err(|_| format!("{name} wants a positive number"));
    let limits = &mut config.limits;
    match name {
        "limit.blobSize.error" => limits.blob_bytes = Some(size()?),
        "limit.memoSize.error" => limits.memo_bytes = Some(size()?),
        "limit.historyCount.error" => limits.history_events = Some(number()?),
        "limit.historySize.error" => limits.history_bytes = Some(number()?),
        "limit.historyCount.suggestContinueAsNew" => {
            limits.suggest_history_events = Some(number()?)
        }
        "limit.historySize.suggestContinueAsNew" => limits.suggest_history_bytes = Some(number()?),
        "limit.numPendingActivities.error" => limits.pending = Some(size()?),
        "history.maximumSignalsPerExecution" => limits.signals = Some(number()?),
        _ => return Ok(false),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        start_dev: StartDev,
    }

    #[test]
    fn namespaces_keep_closed_runs_for_a_day() {
        let flags = Flags::try_parse_from(["start-dev", "--namespace", "other"]).expect("parses");
        let (config, _) = flags.start_dev.config().expect("a configuration");
        let namespaces: Vec<_> = config
            .namespaces
            .iter()
            .map(|of| (of.name.as_str(), of.retention_hours))
            .collect();
        assert_eq!(namespaces, [("default", 24), ("other", 24)]);
    }
}
