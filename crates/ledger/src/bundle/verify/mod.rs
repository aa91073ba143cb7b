//! Verifies a bundle. Nothing in it is believed: not the names of its files, not their sizes, and its
//! own keys least of all.

mod archive;
mod decisions;
mod earlier;
mod findings;
mod gaps;
mod history;
mod keys;
mod log;
mod tree;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Seek};

use archive::Archive;
pub use decisions::{AskedCall, Decided, Judge, Judged};
use findings::Findings;
pub use findings::{Code, Finding, Place};
use history::Seen;
use log::{Expected, Log};

use super::statement::{Statement, StatementError, hex, key_id};
use super::{
    CHECKPOINT, CONSISTENCY, DECISIONS, FILES, FORMAT, MANIFEST, Manifest, RunSummary, STATEMENT,
    Scope, history_file, is_file_name, is_policies_file, payloads_file, rotation_number,
};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::note::{KeyType, MAX_BYTES, Note, NoteError, VerifierKey};

/// Whom to believe. Trusted keys of logs are followed through the rotations in the bundle.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trust<'a> {
    /// Public keys of logs.
    pub log: &'a [VerifierKey],
    /// Public keys of witnesses.
    pub witnesses: &'a [VerifierKey],
    /// So many witnesses have to have signed the checkpoint.
    pub quorum: usize,
    /// A checkpoint that was kept from before: the log must extend it.
    pub earlier: Option<&'a [u8]>,
}

/// How much to read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Events that entries list. 32 bytes of memory are needed for each.
    pub events: u64,
    /// Bytes of the manifest and of the statement, which are read into memory.
    pub document_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 32 << 30,
            events: 20_000_000,
            document_bytes: 256 << 20,
        }
    }
}

/// Whether to believe a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is as the log says, and the log's key is trusted.
    Verified,
    /// Something is wrong: nothing in it is to be believed.
    Failed,
}

/// What verification came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether to believe it.
    pub verdict: Verdict,
    /// What is wrong: some of each kind.
    pub findings: Vec<Finding>,
    /// How many findings there were.
    pub total: usize,
    /// What the bundle covers. To be believed if it is verified.
    pub manifest: Option<Manifest>,
    /// Keys that the bundle's rotations lead to from a trusted one.
    pub followed: Vec<VerifierKey>,
    /// Witnesses that signed the checkpoint, with the time that they did, in seconds since the epoch.
    pub witnesses: Vec<(VerifierKey, u64)>,
    /// What could not be checked, as what it follows from is not in the bundle.
    pub unchecked: Vec<String>,
}

/// Verifies a bundle, but for what policies decided.
pub fn verify<R: Read + Seek>(bundle: R, trust: &Trust<'_>, limits: &Limits) -> Report {
    verify_with(bundle, trust, limits, None)
}

/// Verifies a bundle, with somebody who can decide again.
pub fn verify_with<R: Read + Seek>(
    bundle: R,
    trust: &Trust<'_>,
    limits: &Limits,
    judge: Option<&dyn Judge>,
) -> Report {
    let (findings, bundle) = (Findings::default(), RefCell::new(bundle));
    let mut report = Report {
        verdict: Verdict::Failed,
        findings: Vec::new(),
        total: 0,
        manifest: None,
        followed: Vec::new(),
        witnesses: Vec::new(),
        unchecked: Vec::new(),
    };
    match Archive::open(&bundle, limits.bytes, &findings) {
        Ok(archive) => {
            report.followed = keys::follow(&archive, trust.log, &findings);
            let verification = Verification {
                archive: &archive,
                log_keys: &[trust.log, &report.followed].concat(),
                trust,
                limits,
                judge,
                findings: &findings,
            };
            verification.run(&mut report);
        }
        Err(error) => findings.add(Code::ZipMalformed, Place::default(), error),
    }
    (report.findings, report.total) = findings.take();
    if report.total == 0 {
        report.verdict = Verdict::Verified;
    }
    report
}

struct Verification<'a, R> {
    archive: &'a Archive<'a, R>,
    /// The log's keys: those that are trusted, and those that rotations lead to from there.
    log_keys: &'a [VerifierKey],
    trust: &'a Trust<'a>,
    limits: &'a Limits,
    judge: Option<&'a dyn Judge>,
    findings: &'a Findings,
}

impl<R: Read + Seek> Verification<'_, R> {
    fn run(&self, report: &mut Report) {
        let checkpoint = self.checkpoint(&mut report.witnesses);
        if let (Some(now), Some(earlier)) = (&checkpoint, self.trust.earlier) {
            earlier::compare(self.archive, now, earlier, self.log_keys, self.findings);
        }
        let statement = self.statement(checkpoint.as_ref());
        report.manifest = self.manifest();
        let expected = Expected {
            checkpoint: checkpoint.as_ref(),
            manifest: report.manifest.as_ref(),
            max_events: self.limits.events,
        };
        let before = self.findings.count();
        let mut log = Log::read(self.archive, &expected, self.findings);
        let is_log_good = self.findings.count() == before;
        let seen = self.histories(&mut log, report.manifest.as_ref());
        decisions::check(self.archive, &mut log, &seen, self.judge, self.findings);
        self.read_the_rest();
        self.check_names(&log);
        if let Some(statement) = &statement {
            self.check_files(statement);
        }
        if let Some(manifest) = &report.manifest {
            self.check_manifest(manifest, checkpoint.as_ref(), statement.as_ref());
            // Otherwise it is clear that its counts are others.
            if is_log_good {
                self.check_claims(manifest, &log, &seen);
            }
        }
        report.unchecked = log.unchecked;
    }

    fn add(&self, code: Code, file: &str, detail: impl fmt::Display) {
        self.findings.add(code, Place::file(file), detail);
    }

    /// The checkpoint, signed or not.
    fn checkpoint(&self, witnesses: &mut Vec<(VerifierKey, u64)>) -> Option<Checkpoint> {
        let bytes = self.archive.read_all(CHECKPOINT, MAX_BYTES as u64)?;
        let parsed = Note::parse(&bytes)
            .map_err(CheckpointError::from)
            .and_then(|note| Ok((Checkpoint::parse(note.text())?, note)));
        let (checkpoint, note) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                self.add(Code::CheckpointForged, CHECKPOINT, error);
                return None;
            }
        };
        if let Err(error) = Checkpoint::open_note(note.clone(), self.log_keys) {
            let signers = note.signatures().iter();
            let signers = signers.map(|one| format!("{}+{:08x}", one.name, one.key_id));
            let signers = signers.collect::<Vec<_>>().join(", ");
            match error {
                _ if earlier::is_begun_anew(&note, &checkpoint, self.log_keys) => {
                    let detail = format!(
                        "the log {} was begun anew in the place of the trusted one, as the server's store \
                         had lost some of it",
                        checkpoint.origin
                    );
                    self.add(Code::LogRolledBack, CHECKPOINT, detail);
                }
                CheckpointError::NotByLog(_) | CheckpointError::Note(NoteError::Unverified) => {
                    let detail = format!("signed by {signers}: no trusted key of this log");
                    self.add(Code::UnknownKey, CHECKPOINT, detail);
                }
                error => self.add(Code::CheckpointForged, CHECKPOINT, error),
            }
        }
        self.witnesses(&note, witnesses);
        Some(checkpoint)
    }

    fn witnesses(&self, note: &Note, witnesses: &mut Vec<(VerifierKey, u64)>) {
        for key in self.trust.witnesses {
            let signatures = note.signatures().iter();
            for signature in signatures.filter(|signature| key.is_named_by(signature)) {
                let time = crate::cosignature::verify_cosignature(key, note.text(), signature);
                match time {
                    Ok(time) => add_witness(witnesses, key, time),
                    Err(error) => self.add(Code::CosignatureForged, CHECKPOINT, error),
                }
            }
        }
        if witnesses.len() < self.trust.quorum {
            let (count, quorum) = (witnesses.len(), self.trust.quorum);
            let detail = format!("{count} known witnesses signed it, and {quorum} are asked for");
            self.add(Code::WitnessesMissing, CHECKPOINT, detail);
        }
    }

    fn statement(&self, checkpoint: Option<&Checkpoint>) -> Option<Statement> {
        let bytes = self.document(STATEMENT)?;
        let is_of_log = |key: &&VerifierKey| {
            key.key_type() == KeyType::Ed25519
                && checkpoint.is_none_or(|checkpoint| key.name() == checkpoint.origin)
        };
        let keys: Vec<&VerifierKey> = self.log_keys.iter().filter(is_of_log).collect();
        match Statement::open(&bytes, &keys) {
            Ok(statement) => Some(statement),
            Err(error @ StatementError::UnknownKey(_)) => {
                self.add(Code::UnknownKey, STATEMENT, error);
                None
            }
            Err(error) => {
                self.add(Code::StatementForged, STATEMENT, error);
                None
            }
        }
    }

    fn manifest(&self) -> Option<Manifest> {
        let bytes = self.document(MANIFEST)?;
        let manifest: Result<Manifest, _> = serde_json::from_slice(&bytes);
        manifest
            .map_err(|error| self.add(Code::FileMalformed, MANIFEST, error))
            .ok()
    }

    fn document(&self, name: &str) -> Option<Vec<u8>> {
        self.archive.read_all(name, self.limits.document_bytes)
    }

    /// Reads the histories, and says what is in them, by the place of their run.
    fn histories(&self, log: &mut Log, manifest: Option<&Manifest>) -> BTreeMap<usize, Seen> {
        let is_session = manifest.is_some_and(|of| matches!(of.scope, Scope::Session { .. }));
        let mut histories = BTreeMap::new();
        for place in 0..log.runs.len() {
            let run = &log.runs[place];
            let (chain, run_id) = (&run.chain, run.run_id.clone());
            let file = history_file(&run_id);
            let is_there = is_file_name(&run_id) && self.archive.has(&file);
            let can_be = chain.is_whole && chain.events_are_in_order && !chain.deleted;
            if is_there && can_be {
                let seen = history::check(self.archive, log, place, self.judge, self.findings);
                histories.extend(seen.map(|seen| (place, seen)));
            } else if is_there && !run.is_broken && !log.is_damaged {
                let detail = "not all entries of the run are there, or it was deleted";
                self.add(Code::FileUnexpected, &file, detail);
            } else if !is_there && can_be && is_session {
                let place = Place::file(&file).run(&run_id);
                let detail = "the run was not deleted, and its history is not there";
                self.findings.add(Code::FileMissing, place, detail);
            }
        }
        histories
    }

    /// The digests of what nobody looked at yet.
    fn read_the_rest(&self) {
        for name in self.archive.names() {
            if self.archive.is_unread(&name) {
                self.archive.read(&name, |_| ());
            }
        }
    }

    fn check_names(&self, log: &Log) {
        for name in FILES.iter().filter(|name| !self.archive.has(name)) {
            self.add(Code::FileMissing, name, "every bundle has this file");
        }
        let of_runs = log.runs.iter().filter(|run| is_file_name(&run.run_id));
        let of_runs = of_runs.flat_map(|run| {
            let (history, payloads) = (history_file(&run.run_id), payloads_file(&run.run_id));
            [(history.clone(), payloads.clone()), (payloads, history)]
        });
        let mut known: BTreeMap<String, Option<String>> =
            of_runs.map(|(name, other)| (name, Some(other))).collect();
        known.extend(FILES.map(|name| (name.to_owned(), None)));
        for name in self.archive.names() {
            match known.get(&name) {
                Some(Some(other)) if !self.archive.has(other) => {
                    let detail = format!("it belongs to {name}");
                    self.add(Code::FileMissing, other, detail);
                }
                Some(_) => {}
                None if rotation_number(&name).is_some() || name == CONSISTENCY => {}
                None if name == DECISIONS || is_policies_file(&name) => {}
                None => self.add(Code::FileUnexpected, &name, "no entry is about it"),
            }
        }
    }

    fn check_files(&self, statement: &Statement) {
        let stated: BTreeMap<&str, &str> = statement.files().collect();
        for (name, digest) in &stated {
            match self.archive.digest(name) {
                Some(actual) if hex(&actual) == **digest => {}
                Some(actual) => {
                    let actual = hex(&actual);
                    let detail = format!("its SHA-256 is {actual}, and {digest} was signed");
                    self.add(Code::FileAltered, name, detail);
                }
                None if self.archive.has(name) => {}
                None => self.add(Code::FileMissing, name, "the statement is about it"),
            }
        }
        for name in self.archive.names() {
            if name != STATEMENT && !stated.contains_key(name.as_str()) {
                self.add(Code::FileUnexpected, &name, "the statement is not about it");
            }
        }
    }

    /// Compares what the manifest says of the log, and what the statement says of the manifest.
    fn check_manifest(
        &self,
        manifest: &Manifest,
        checkpoint: Option<&Checkpoint>,
        statement: Option<&Statement>,
    ) {
        let wrong = |detail: &str| self.add(Code::ManifestFalse, MANIFEST, detail);
        if manifest.format != FORMAT {
            wrong("it is of a version that this program does not know");
        }
        if let Some(checkpoint) = checkpoint {
            if manifest.origin != checkpoint.origin {
                wrong("the checkpoint is of another log");
            }
            let tree = (manifest.tree.size, manifest.tree.root);
            if tree != (checkpoint.size, checkpoint.root) {
                wrong("the checkpoint is of another tree");
            }
        }
        if statement.is_some_and(|statement| statement.predicate != manifest.summary()) {
            wrong("the statement says something else");
        }
    }

    /// Compares what the manifest says of entries and histories.
    fn check_claims(&self, manifest: &Manifest, log: &Log, seen: &BTreeMap<usize, Seen>) {
        let wrong = |place: Place, detail: String| {
            self.findings.add(Code::ManifestFalse, place, detail);
        };
        let counts = manifest.counts;
        let of_histories = || seen.values().map(|seen| seen.events).sum::<u64>();
        for (what, claimed, actual) in [
            ("entries", counts.entries, log.entries),
            ("entries that belong to no run", counts.notes, log.notes),
            ("runs", counts.runs, log.runs.len() as u64),
            ("runs", manifest.runs.len() as u64, log.runs.len() as u64),
            ("events", counts.events, of_histories()),
        ] {
            if claimed != actual {
                let detail = format!("it claims {claimed} {what}, and there are {actual}");
                wrong(Place::file(MANIFEST), detail);
            }
        }
        for (place, (run, claimed)) in log.runs.iter().zip(&manifest.runs).enumerate() {
            let seen = seen.get(&place);
            let actual = RunSummary {
                workflow_id: run.workflow_id.clone(),
                run_id: run.run_id.clone(),
                entries: run.chain.entries,
                last_entry: run.chain.last_n,
                claim: run.chain.claim(),
                events: seen.map(|seen| seen.events),
                closed: run.chain.closed.clone(),
                deleted: run.chain.deleted,
                erased: seen.is_some_and(|seen| seen.is_erased),
            };
            if *claimed != actual {
                let place = Place::file(MANIFEST).run(&run.run_id);
                wrong(
                    place,
                    format!("it claims {claimed:?}, and it is {actual:?}"),
                );
            }
        }
    }
}

/// A witness counts once, whatever its keys are called.
fn add_witness(witnesses: &mut Vec<(VerifierKey, u64)>, key: &VerifierKey, time: u64) {
    let same = |(one, _): &&mut (VerifierKey, u64)| one.public_key() == key.public_key();
    match witnesses.iter_mut().find(same) {
        Some((_, latest)) => *latest = time.max(*latest),
        None => witnesses.push((key.clone(), time)),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let listed = self.findings.len();
        if self.total > listed {
            writeln!(f, "… and {} more", self.total - listed)?;
        }
        match (self.verdict, &self.manifest) {
            (Verdict::Verified, Some(manifest)) => self.write_summary(f, manifest),
            _ => writeln!(f, "FAILED: nothing in this bundle is to be believed"),
        }
    }
}

impl Report {
    fn write_summary(&self, f: &mut fmt::Formatter<'_>, manifest: &Manifest) -> fmt::Result {
        let counts = manifest.counts;
        let scope = match &manifest.scope {
            Scope::Session { workflow_id } => format!("session {}", workflow_id.escape_debug()),
            Scope::Principal { principal } => format!("principal {}", principal.escape_debug()),
            Scope::Range { from, to } => format!("entries {from} to {to}"),
        };
        writeln!(
            f,
            "verified: {scope}: {} entries about {} runs, {} events",
            counts.entries, counts.runs, counts.events
        )?;
        let (size, origin) = (manifest.tree.size, manifest.origin.escape_debug());
        writeln!(f, "log {origin}, {size} entries")?;
        for key in &self.followed {
            writeln!(f, "key {} is proved by an older one", key_id(key))?;
        }
        for (key, time) in &self.witnesses {
            writeln!(f, "witness {}, at {time}", key_id(key))?;
        }
        for what in &self.unchecked {
            writeln!(f, "not checked: {}", what.escape_debug())?;
        }
        Ok(())
    }
}
