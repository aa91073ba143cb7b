//! `steadfast evidence follow-key`: from a trusted key to the one that signs now. The server is not
//! believed: each step is proved by both keys.

use std::process::ExitCode;

use clap::Args;
use steadfast_ledger::note::VerifierKey;
use steadfast_ledger::proof::TlogProof;
use steadfast_ledger::rotation;

use super::client::Target;

/// Print the verifier key that signs a log now. Ends with 1 if no way leads there from the trusted key.
#[derive(Args)]
pub struct FollowKey {
    #[command(flatten)]
    target: Target,
    /// The log's verifier key that is trusted.
    #[arg(long, value_name = "KEY")]
    key: String,
}

impl FollowKey {
    /// Follows.
    pub fn run(self) -> Result<ExitCode, String> {
        let mut trusted = VerifierKey::parse(self.key.trim()).map_err(|error| error.to_string())?;
        for line in self.target.log("rotations")?.lines() {
            let mut words = line.split(' ');
            let (number, from) = (words.next(), words.next());
            // Those before the trusted key say nothing about it.
            if from != Some(trusted.to_string().as_str()) {
                continue;
            }
            let number: u64 = number
                .and_then(|number| number.parse().ok())
                .ok_or("not the answer of a server")?;
            let proof = self.target.log(&format!("rotations/{number}"))?;
            let proof = TlogProof::parse(proof).map_err(|error| error.to_string())?;
            trusted = rotation::verify(&proof, &trusted)
                .map_err(|error| format!("rotation {number}: {error}"))?;
        }
        // The server may be hiding a rotation, or the log may have lost its key.
        let signs = self.target.log("key")?;
        if signs.trim() != trusted.to_string() {
            return Err(format!(
                "the log is signed by {}, and no rotation leads there from the trusted key",
                signs.trim()
            ));
        }
        println!("{trusted}");
        Ok(ExitCode::SUCCESS)
    }
}
