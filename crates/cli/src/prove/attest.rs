//! Attestations of proofs: the key, and the signed statement.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use steadfast_ledger::attestation::{self, Attestation, Verdict, worker_command};
use steadfast_ledger::entry::Time;
use steadfast_ledger::note::SigningKey;
use steadfast_prove::report::{self, Report};
use steadfast_prove::{Boundary, Fault, Finding, Severity};

/// Make a key that signs attestations.
#[derive(Args)]
pub struct Keygen {
    /// The key's name: who signs with it, such as `ci.example.com`.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The file that it is written into, which only you may read. One that is there is left as it is.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Keygen {
    /// Makes it.
    pub fn run(self) -> Result<ExitCode, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", self.out.display());
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| format!("no randomness for a key: {error}"))?;
        let key = SigningKey::new(&self.name, seed).map_err(|error| error.to_string())?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.out);
        let mut file: File = file.map_err(|error| failed(&error))?;
        let written = writeln!(file, "{}", key.encode()).and_then(|()| file.sync_all());
        written.map_err(|error| failed(&error))?;
        println!("{}", key.verifier());
        Ok(ExitCode::SUCCESS)
    }
}

/// Who signs, and about which worker.
pub struct Signer {
    key: SigningKey,
    /// None: about the command that starts the worker.
    image: Option<attestation::Subject>,
}

impl Signer {
    /// Reads the key.
    pub fn open(path: &Path, image: Option<&str>) -> Result<Self, String> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        let key = SigningKey::parse(text.trim());
        let image = image.map(attestation::image).transpose();
        Ok(Self {
            key: key.map_err(|error| format!("{}: {error}", path.display()))?,
            image: image.map_err(|error| format!("--image: {error}"))?,
        })
    }

    /// Writes the attestation of a report.
    pub fn attest(&self, report: &Report, path: &Path) -> Result<(), String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_err(|error| format!("the clock: {error}"))?;
        let now = i64::try_from(now.as_nanos()).map_err(|error| format!("the clock: {error}"))?;
        let subject = self.image.clone();
        let subject = subject.unwrap_or_else(|| worker_command(&report.worker));
        let signed = attested(report, Time(now)).sign(subject, &self.key);
        let bytes = signed.map_err(|error| error.to_string())?;
        std::fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// What a report says, as an attestation.
fn attested(report: &Report, finished: Time) -> Attestation {
    let tried = || report.tried.iter();
    let faults: BTreeSet<Fault> = tried().map(|of| of.point.fault).collect();
    let boundaries: BTreeSet<&Boundary> = tried().map(|of| &of.point.boundary).collect();
    let findings = tried().flat_map(|of| &of.findings);
    let is_failure = |of: &&Finding| of.severity == Severity::Failure;
    let failures = findings.chain(&report.undisturbed).filter(is_failure);
    let failures: BTreeSet<&str> = failures.map(|of| of.kind.id()).collect();
    Attestation {
        workflow_type: report.workflow.clone(),
        worker: report.worker.clone(),
        verdict: match report.verdict {
            report::Verdict::Resumable => Verdict::Resumable,
            report::Verdict::NotResumable => Verdict::NotResumable,
        },
        faults: faults.into_iter().map(|of| of.id().to_owned()).collect(),
        boundaries: boundaries.len() as u64,
        points: report.points as u64,
        tried: report.tried.len() as u64,
        reached: tried().filter(|of| of.reached).count() as u64,
        seed: report.seed,
        failures: failures.into_iter().map(str::to_owned).collect(),
        finished,
        prover: format!("steadfast {}", env!("CARGO_PKG_VERSION")),
    }
}
