//! `steadfast serve`: a server from a configuration file. Also what the other two run in the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use steadfast_server::{Config, Server};

/// Run a server from a configuration file.
#[derive(Args)]
pub struct Serve {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Serve {
    /// Runs until told to stop.
    pub fn run(self) -> Result<(), String> {
        run(&read(&self.config)?, |_, _| {})
    }
}

/// Reads a configuration file.
pub fn read(path: &Path) -> Result<Config, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    Config::parse(&text).map_err(|error| failed(&error))
}

/// Runs a server until SIGINT or SIGTERM. `ready` is called once it listens.
pub fn run(
    config: &Config,
    ready: impl FnOnce(&Server, std::net::SocketAddr),
) -> Result<(), String> {
    steadfast_server::telemetry::init(&config.log)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.threads > 0 {
        builder.worker_threads(config.threads);
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| format!("no threads: {error}"))?;
    let served = runtime.block_on(async {
        let stop = stop_signal()?;
        let server = Server::start(config)
            .await
            .map_err(|error| error.to_string())?;
        let address = server.grpc_address().map_err(|error| error.to_string())?;
        let store = config.store.path.display();
        let tls = if config.tls.is_some() {
            " with TLS"
        } else {
            ""
        };
        match config.auth.is_on() {
            true => tracing::info!("serving gRPC on {address}{tls}, store {store}"),
            false => tracing::warn!(
                "serving gRPC on {address}{tls}, store {store}; callers are NOT authenticated"
            ),
        }
        ready(&server, address);
        server.run(stop).await.map_err(|error| error.to_string())
    });
    // Nothing waits for the answers of witnesses and webhooks.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// Resolves when the process is told to stop.
pub fn stop_signal() -> Result<impl Future<Output = ()>, String> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}
