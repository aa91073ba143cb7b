//! `steadfast evidence`: what a server can prove, and the proof that it can.

mod check;
mod client;
mod export;
mod lines;
mod ocsf;
mod otlp;
mod verify;

use clap::Subcommand;

/// Commands about evidence.
#[derive(Subcommand)]
pub enum Command {
    /// Compare a server's runs, log and tree with each other: replays every run.
    Check(check::Check),
    /// Write the evidence of a session, a principal or a time into one file.
    Export(export::Export),
    /// Check such a file, without a server.
    Verify(verify::Verify),
    /// Write a namespace's log as OCSF events, for security tools.
    Ocsf(ocsf::Ocsf),
    /// Send runs as traces to a collector of OpenTelemetry.
    Otlp(otlp::Otlp),
}

impl Command {
    /// Runs the command. The code is the program's: 0 for proven, 1 for not.
    pub fn run(self) -> Result<std::process::ExitCode, String> {
        match self {
            Self::Check(check) => check.run(),
            Self::Export(export) => export.run(),
            Self::Ocsf(ocsf) => ocsf.run(),
            Self::Otlp(otlp) => otlp.run(),
            Self::Verify(verify) => verify.run(),
        }
    }
}
