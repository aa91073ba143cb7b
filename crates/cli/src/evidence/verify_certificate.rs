//! `steadfast evidence verify-certificate`: needs the certificate and a key that is trusted, and no server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use steadfast_ledger::offboarding::{Certificate, CertificateError, Signed};

use super::verify::keys;

/// Check the certificate that a principal was disabled: that the log's key signed it, and that it does not
/// contradict itself. Ends with 1 if it is not to be believed.
#[derive(Args)]
pub struct VerifyCertificate {
    /// The certificate.
    certificate: PathBuf,
    /// The log's verifier key, or a file with one key a line. From somebody whom you trust.
    #[arg(long, required = true, value_name = "KEY|FILE")]
    key: Vec<String>,
    /// Print what it says as JSON.
    #[arg(long)]
    json: bool,
}

impl VerifyCertificate {
    /// Checks it.
    pub fn run(self) -> Result<ExitCode, String> {
        let keys = keys(&self.key)?;
        let bytes = std::fs::read(&self.certificate)
            .map_err(|error| format!("{}: {error}", self.certificate.display()))?;
        let signed = match Certificate::open(&bytes, &keys) {
            Ok(signed) => signed,
            Err(error @ CertificateError::Malformed(_)) => return Err(error.to_string()),
            Err(error) => {
                println!("NOT VERIFIED: {error}");
                return Ok(ExitCode::FAILURE);
            }
        };
        match self.json {
            true => {
                let json = serde_json::to_string_pretty(&signed.certificate);
                println!("{}", json.map_err(|error| error.to_string())?);
            }
            false => print!("{}", text(&signed)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// For people. What callers and agents write cannot move the cursor.
fn text(signed: &Signed) -> String {
    let of = &signed.certificate;
    let mut text = format!(
        "VERIFIED: signed by {} at {}\n\n{} {} was disabled by {} at {}\n",
        signed.key.escape_debug(),
        of.issued,
        of.kind.escape_debug(),
        of.principal.escape_debug(),
        of.disabled_by.escape_debug(),
        of.disabled,
    );
    if !of.reason.is_empty() {
        text += &format!("  {}\n", of.reason.escape_debug());
    }
    text += &format!(
        "sessions: {}, stopped by {}\n",
        of.session_count, of.completed
    );
    for session in &of.sessions {
        let place = match &session.entry {
            Some(entry) => format!("entry {} at {}", entry.index, entry.time),
            None => "before".to_owned(),
        };
        text += &format!(
            "  {}/{} {} (run {}): {}, {place}\n",
            session.namespace.escape_debug(),
            session.workflow_id.escape_debug(),
            session.workflow_type.escape_debug(),
            session.run_id.escape_debug(),
            session.state.escape_debug(),
        );
    }
    text += &format!("tool calls in workers' hands: {}\n", of.attempts.len());
    for attempt in &of.attempts {
        text += &format!(
            "  {} of {}/{}, attempt {}, worker {}\n",
            attempt.tool.escape_debug(),
            attempt.namespace.escape_debug(),
            attempt.workflow_id.escape_debug(),
            attempt.attempt,
            attempt.worker.escape_debug(),
        );
    }
    text += &format!("credentials: {}\n", of.credentials.len());
    for credential in &of.credentials {
        text += &format!(
            "  {} for {} until {}, of {} in {}/{}\n",
            credential.id.escape_debug(),
            credential.audience.escape_debug(),
            credential.expires,
            credential.tool.escape_debug(),
            credential.namespace.escape_debug(),
            credential.workflow_id.escape_debug(),
        );
    }
    text + &match of.credentials_until {
        Some(until) => {
            format!("who does not ask the server takes the last of them until {until}\n")
        }
        None => "nothing remains of its sessions' credentials\n".to_owned(),
    }
}
