//! The `steadfast` command: one file per subcommand.

mod access;
mod approvals;
mod attestations;
mod credentials;
mod dev;
mod driven;
mod evidence;
mod inventory;
mod keys;
mod policy;
mod principals;
mod prove;
mod serve;
mod session;
mod start_dev;
mod status;

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
    /// Show how a server is.
    Status(status::Status),
    /// Tool calls that wait for people.
    #[command(subcommand)]
    Approvals(approvals::Command),
    /// Principals that may do nothing any more: cut off, with all that runs for them.
    #[command(subcommand)]
    Principals(principals::Command),
    /// Pause, resume or revoke a session.
    #[command(subcommand)]
    Session(session::Command),
    /// Attestations that workflow types are resumable.
    #[command(subcommand)]
    Attestations(attestations::Command),
    /// Policies: whether they are valid, and what they decide.
    #[command(subcommand)]
    Policy(policy::Command),
    /// What a server can prove of its sessions.
    #[command(subcommand)]
    Evidence(evidence::Command),
    /// Try out whether a workflow survives that its worker or its server is killed.
    Prove(prove::Prove),
    /// Who may call what, who did, and what is granted and not used.
    Access(access::Access),
    /// Rank workflow types and tool calls by what a crash would lose or repeat.
    Inventory(inventory::Inventory),
    /// The API keys of a server.
    #[command(subcommand)]
    Keys(keys::Command),
    /// The credentials of tool calls.
    #[command(subcommand)]
    Credentials(credentials::Command),
    /// The flags of `temporal server`, for SDKs that start a local server by themselves.
    #[command(subcommand, name = "server")]
    Server(start_dev::Command),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Dev(dev) => dev.run().map(|()| ExitCode::SUCCESS),
        Command::Serve(serve) => serve.run().map(|()| ExitCode::SUCCESS),
        Command::Status(status) => status.run(),
        Command::Approvals(command) => command.run(),
        Command::Session(command) => command.run(),
        Command::Principals(command) => command.run(),
        Command::Attestations(command) => command.run(),
        Command::Policy(command) => command.run(),
        Command::Evidence(command) => command.run(),
        Command::Prove(prove) => prove.run(),
        Command::Credentials(command) => command.run(),
        Command::Access(access) => access.run(),
        Command::Inventory(inventory) => inventory.run(),
        Command::Keys(command) => command.run().map(|()| ExitCode::SUCCESS),
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
