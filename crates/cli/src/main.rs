//! The `steadfast` command: one file per subcommand.

mod dev;
mod evidence;
mod serve;
mod start_dev;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Many small, short-lived allocations on several threads: what this allocator is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Durable execution for AI agents, with proof.
#[derive(Parser)]
#[command(name = "steadfast", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a server for development: loopback only, a SQLite file in the current directory.
    Dev(dev::Dev),
    /// Run a server from a configuration file.
    Serve(serve::Serve),
    /// What a server can prove of its sessions.
    #[command(subcommand)]
    Evidence(evidence::Command),
    /// The flags of `temporal server`, for SDKs that start a local server by themselves.
    #[command(subcommand, name = "server")]
    Server(start_dev::Command),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Dev(dev) => dev.run().map(|()| ExitCode::SUCCESS),
        Command::Serve(serve) => serve.run().map(|()| ExitCode::SUCCESS),
        Command::Evidence(command) => command.run(),
        Command::Server(start_dev::Command::StartDev(start_dev)) => {
            start_dev.run().map(|()| ExitCode::SUCCESS)
        }
    };
    match result {
        Ok(code) => code,
        Err(message) => {
            eprintln!("steadfast: {message}");
            ExitCode::FAILURE
        }
    }
}
