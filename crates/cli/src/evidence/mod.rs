//! `steadfast evidence`: what a server can prove, and the proof that it can.

mod check;
mod client;

use clap::Subcommand;

/// Commands about evidence.
#[derive(Subcommand)]
pub enum Command {
    /// Compare a server's runs, log and tree with each other: replays every run.
    Check(check::Check),
}

impl Command {
    /// Runs the command. The code is the program's: 0 for proven, 1 for not.
    pub fn run(self) -> Result<std::process::ExitCode, String> {
        match self {
            Self::Check(check) => check.run(),
        }
    }
}
