//! `steadfast dev`: a server for development.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use steadfast_server::Config;
use steadfast_server::config::NamespaceConfig;

/// Run a server for development.
#[derive(Args)]
pub struct Dev {
    /// Address to serve on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    ip: IpAddr,
    /// Port for gRPC.
    #[arg(long, default_value_t = 7233)]
    port: u16,
    /// Port for HTTP.
    #[arg(long, default_value_t = 8233)]
    http_port: u16,
    /// SQLite file, or `:memory:`.
    #[arg(long, value_name = "FILE", default_value = "steadfast.db")]
    db: PathBuf,
    /// Further namespaces to make.
    #[arg(long, value_name = "NAME")]
    namespace: Vec<String>,
    /// A file of Cedar policies, or a directory with such files: they decide every tool call.
    #[arg(long, value_name = "PATH")]
    policy: Option<PathBuf>,
    /// Give each attempt of a tool call a credential: this server is their issuer.
    #[arg(long)]
    credentials: bool,
    /// Serve other machines although nobody is authenticated.
    #[arg(long)]
    insecure: bool,
    /// error, warn, info, debug, trace or never.
    #[arg(long, default_value = "info")]
    log_level: String,
    /// text or json.
    #[arg(long, default_value = "text")]
    log_format: String,
}

impl Dev {
    /// Runs until told to stop.
    pub fn run(self) -> Result<(), String> {
        let mut config = Config {
            grpc: SocketAddr::new(self.ip, self.port),
            http: Some(SocketAddr::new(self.ip, self.http_port)),
            insecure: self.insecure,
            ..Config::default()
        };
        config.store.path = self.db;
        config.policy.path = self.policy;
        config.credentials = self.credentials.then(Default::default);
        config.log.level = self.log_level;
        config.log.format = self.log_format;
        config.namespaces.extend(
            self.namespace
                .iter()
                .map(|name| NamespaceConfig::named(name)),
        );
        let http = config.http;
        let db = config.store.path.display().to_string();
        super::serve::run(&config, |server, grpc| {
            println!("Steadfast {}", env!("CARGO_PKG_VERSION"));
            println!("  gRPC   {grpc}   (Temporal SDKs, the temporal command)");
            if let Some(http) = http {
                println!("  HTTP   http://{http}");
            }
            println!("  store  {db}");
            if let Some(issuer) = server.issuer() {
                println!("  credentials of tool calls are issued by {issuer}");
            }
            println!("  Callers are NOT authenticated: for development on this machine only.");
        })
    }
}
