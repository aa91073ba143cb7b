//! `steadfast evidence verify`: needs the bundle and the keys that are trusted, and no server.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use steadfast_ledger::bundle::{Finding, Limits, Report, Trust, Verdict, verify_with};
use steadfast_ledger::note::VerifierKey;

use steadfast_server::governance::PolicyJudge;

/// Check a bundle: that nothing in it was changed, left out or put into another order, and that the
/// log signed it. Ends with 1 if it is not to be believed.
#[derive(Args)]
pub struct Verify {
    /// The bundle.
    bundle: PathBuf,
    /// The log's verifier key, or a file with one key a line. From somebody whom you trust. An older
    /// key of the log will do, too: the bundle proves which keys took its place.
    #[arg(long, required = true, value_name = "KEY|FILE")]
    key: Vec<String>,
    /// The verifier key of a witness, or a file with one key a line.
    #[arg(long, value_name = "KEY|FILE")]
    witness: Vec<String>,
    /// So many of these witnesses must have cosigned the checkpoint; all of them if it is not given.
    #[arg(long, value_name = "N")]
    quorum: Option<usize>,
    /// A checkpoint of the log that was kept from before: the log must extend it. Export with it, too.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// Verifies.
    pub fn run(self) -> Result<ExitCode, String> {
        let log = keys(&self.key)?;
        let witnesses = keys(&self.witness)?;
        let earlier = self.checkpoint.as_deref().map(|path| {
            std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
        });
        let earlier = earlier.transpose()?;
        let trust = Trust {
            log: &log,
            witnesses: &witnesses,
            quorum: self.quorum.unwrap_or(witnesses.len()),
            earlier: earlier.as_deref(),
        };
        let file = File::open(&self.bundle)
            .map_err(|error| format!("{}: {error}", self.bundle.display()))?;
        let policies = PolicyJudge::default();
        let limits = Limits::default();
        let report = verify_with(BufReader::new(file), &trust, &limits, Some(&policies));
        match self.json {
            true => println!("{}", as_json(&report)),
            false => print!("{report}"),
        }
        Ok(ExitCode::from(u8::from(
            report.verdict != Verdict::Verified,
        )))
    }
}

/// Keys that are given as they are, or in files.
pub(crate) fn keys(given: &[String]) -> Result<Vec<VerifierKey>, String> {
    let mut keys = Vec::new();
    for one in given {
        // A key has `+` between its parts; a file with such a name can be given with its directory.
        let text = match VerifierKey::parse(one) {
            Ok(key) => {
                keys.push(key);
                continue;
            }
            Err(error) if !Path::new(one).exists() => {
                return Err(format!("{one:?} is no verifier key ({error}), and no file"));
            }
            Err(_) => std::fs::read_to_string(one).map_err(|error| format!("{one}: {error}"))?,
        };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let key = VerifierKey::parse(line).map_err(|error| format!("{one}: {error}"))?;
            keys.push(key);
        }
    }
    Ok(keys)
}

fn as_json(report: &Report) -> Value {
    let followed: Vec<_> = report.followed.iter().map(VerifierKey::to_string).collect();
    let witnesses = report.witnesses.iter();
    let witnesses = witnesses.map(|(key, time)| json!({ "key": key.to_string(), "time": time }));
    json!({
        "verified": report.verdict == Verdict::Verified,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "total": report.total,
        "manifest": report.manifest,
        "followedKeys": followed,
        "witnesses": witnesses.collect::<Vec<_>>(),
        "unchecked": report.unchecked,
    })
}

fn finding(finding: &Finding) -> Value {
    let place = &finding.place;
    json!({
        "code": finding.code.as_str(),
        "detail": finding.detail,
        "file": place.file,
        "index": place.index,
        "runId": place.run_id,
        "entry": place.entry,
        "eventId": place.event_id,
    })
}
