//! Serves the floor: the cheapest durable server that `loadgen` can run against.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Result;
use clap::Parser;
use steadfast_api::workflowservice::workflow_service_server::WorkflowServiceServer;
use steadfast_bench::floor::{journal::Journal, service::Floor};
use tonic::{codec::CompressionEncoding, transport::Server};

/// A gRPC server that does nothing but append to one SQLite table.
#[derive(Parser)]
#[command(name = "floor")]
struct Options {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:7233")]
    listen: SocketAddr,
    /// The SQLite file; created if it is not there.
    #[arg(long)]
    db: PathBuf,
    /// Bytes appended for each state change; a workflow with one activity has four.
    #[arg(long, default_value_t = 1100)]
    row_bytes: usize,
    /// Threads that serve requests; the committing thread comes on top.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .enable_all()
        .build()?;
    let journal = Journal::open(&options.db)?;
    let service = WorkflowServiceServer::new(Floor::new(journal, options.row_bytes))
        .accept_compressed(CompressionEncoding::Gzip);
    runtime.block_on(
        Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .add_service(service)
            .serve(options.listen),
    )?;
    Ok(())
}
