//! `steadfast evidence`: what a server can prove, and the proof that it can.

mod check;
pub(crate) mod client;
mod erase;
mod export;
mod follow_key;
pub(crate) mod lines;
mod ocsf;
mod otlp;
mod rotate_key;
pub(crate) mod verify;
mod verify_certificate;

use clap::Subcommand;

/// Commands about evidence.
#[derive(Subcommand)]
pub enum Command {
    /// Compare a server's runs, log and tree with each other: replays every run.
    Check(check::Check),
    /// Write the evidence of a session, a principal or a time into one file.
    Export(export::Export),
    /// Erase the payloads of a session; its entries in the log stay.
    Erase(erase::Erase),
    /// Check such a file, without a server.
    Verify(verify::Verify),
    /// Check the certificate that a principal was disabled, without a server.
    VerifyCertificate(verify_certificate::VerifyCertificate),
    /// Write a namespace's log as OCSF events, for security tools.
    Ocsf(ocsf::Ocsf),
    /// Send runs as traces to a collector of OpenTelemetry.
    Otlp(otlp::Otlp),
    /// Have another key sign the logs from now on, in a way that others can follow.
    RotateKey(rotate_key::RotateKey),
    /// Find the key that signs a log now, from one that is trusted.
    FollowKey(follow_key::FollowKey),
}

impl Command {
    /// Runs the command. The code is the program's: 0 for proven, 1 for not.
    pub fn run(self) -> Result<std::process::ExitCode, String> {
        match self {
            Self::Check(check) => check.run(),
            Self::Export(export) => export.run(),
            Self::Ocsf(ocsf) => ocsf.run(),
            Self::Otlp(otlp) => otlp.run(),
            Self::Erase(erase) => erase.run(),
            Self::Verify(verify) => verify.run(),
            Self::VerifyCertificate(verify) => verify.run(),
            Self::RotateKey(rotate_key) => rotate_key.run(),
            Self::FollowKey(follow_key) => follow_key.run(),
        }
    }
}
