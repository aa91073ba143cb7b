//! `steadfast serve`: a server from a configuration file. Also what the other two run in the end.

use std::path::PathBuf;

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
        let path = self.config.display();
        let text =
            std::fs::read_to_string(&self.config).map_err(|error| format!("{path}: {error}"))?;
        let config = Config::parse(&text).map_err(|error| format!("{path}: {error}"))?;
        run(&config, |_| {})
    }
}

/// Runs a server until SIGINT or SIGTERM. `ready` is called once it listens.
pub fn run(config: &Config, ready: impl FnOnce(std::net::SocketAddr)) -> Result<(), String> {
    steadfast_server::telemetry::init(&config.log)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.threads > 0 {
        builder.worker_threads(config.threads);
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| format!("no threads: {error}"))?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        let server = Server::start(config)
            .await
            .map_err(|error| error.to_string())?;
        let address = server.grpc_address().map_err(|error| error.to_string())?;
        tracing::info!(
            "serving gRPC on {address}, store {}; callers are not authenticated",
            config.store.path.display()
        );
        ready(address);
        server.run(stop).await.map_err(|error| error.to_string())
    })
}

/// Resolves when the process is told to stop.
fn stop_signal() -> Result<impl Future<Output = ()>, String> {
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
