//! Writes a bundle, in memory for a little about each run.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Seek, Write};

use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;
use zip::write::StreamWriter;
use zip::{CompressionMethod, ZipWriter};

use super::chain::Chain;
use super::manifest::{Counts, Keys, TreeSummary};
use super::report::{Detail, ReportBuilder, write_page};
use super::statement::Statement;
use super::{
    CHECKPOINT, CONSISTENCY, DECISIONS, ENTRIES, FORMAT, MANIFEST, Manifest, README, REPORT,
    RunSummary, STATEMENT, Scope, TREE, history_file, is_file_name, lines, payloads_file,
    policies_file, rotation_file,
};
use crate::Hash;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::entry::{Entry, EntryError, Time};
use crate::note::{Note, NoteError, SigningKey, VerifierKey};
use crate::skeleton::{Secret, Span};
use crate::tree::Node;

/// Why a bundle cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The output or a spool.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The ZIP.
    #[error("the ZIP cannot be written: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// A JSON document.
    #[error("JSON cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// The checkpoint is none.
    #[error("the checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The checkpoint is none.
    #[error("the checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// What is to be an entry is none.
    #[error("entry {index} of the log: {error}")]
    Entry {
        /// Its index.
        index: u64,
        /// Why.
        error: EntryError,
    },
    /// Entries are not in the log's order, or outside of the checkpoint's tree.
    #[error("entry {0} of the log is out of order, or not in the checkpoint's tree")]
    Order(u64),
    /// A method was called after the files that it writes to.
    #[error("{0} comes too late")]
    Late(&'static str),
    /// There is no entry.
    #[error("there is no entry to make a bundle of")]
    Empty,
    /// The id of a run cannot be the name of a file.
    #[error("run id {0:?} cannot be the name of a file")]
    RunId(String),
    /// A history of a run whose entries are not all there, or a second one.
    #[error("the history of run {0} cannot be in the bundle: not all of its entries are")]
    History(String),
    /// A history goes beyond its run's entries.
    #[error("event {event_id} of run {run_id} is in no entry of the bundle")]
    Unaccounted {
        /// The run.
        run_id: String,
        /// The event.
        event_id: i64,
    },
}

/// What a bundle begins with.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// Name of the namespace.
    pub namespace: &'a str,
    /// What the bundle is about.
    pub scope: Scope,
    /// When it is made.
    pub made: Time,
    /// The signed checkpoint, with cosignatures.
    pub checkpoint: &'a str,
    /// The size of an earlier tree, and the proof that this one extends it.
    pub consistency: Option<(u64, &'a [Hash])>,
    /// How the log came to its key, oldest first: each the text of a `tlog-proof`
    /// ([`crate::rotation`]).
    pub rotations: &'a [String],
    /// The log's public keys.
    pub log_keys: &'a [VerifierKey],
    /// Those of witnesses.
    pub witness_keys: &'a [VerifierKey],
}

/// Writes a bundle: first the entries, then the nodes of the tree, then the histories of runs, each
/// once and in order. `S` are two files for what has its place later: temporary files, or memory.
pub struct BundleWriter<W: Write, S> {
    zip: Files<W>,
    stage: Stage,
    payloads: Spool<S>,
    rows: ReportBuilder<Spool<S>>,
    head: Manifest,
    next_index: u64,
    runs: Vec<Run>,
    by_id: HashMap<String, usize>,
    policies: BTreeSet<Hash>,
}

/// A run that there are entries of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOf<'a> {
    /// Workflow id.
    pub workflow_id: &'a str,
    /// Run id.
    pub run_id: &'a str,
    /// Where its history ends as far as the entries go; none if its history cannot be in the bundle:
    /// it is deleted, or not all of its entries are there.
    pub last_event_id: Option<i64>,
    /// Number of its last entry.
    pub last_n: u64,
    /// How often policies decided in it.
    pub decisions: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Entries,
    Tree,
    /// Of the run at this place.
    History(usize),
    Between,
    Decisions,
    Files,
}

struct Run {
    chain: Chain,
    decisions: u64,
    summary: RunSummary,
}

impl<W: Write, S: Read + Write + Seek> BundleWriter<W, S> {
    /// Begins a bundle.
    pub fn new(out: W, [payloads, rows]: [S; 2], head: Head<'_>) -> Result<Self, BundleError> {
        let checkpoint = Checkpoint::parse(Note::parse(head.checkpoint)?.text())?;
        let texts = |keys: &[VerifierKey]| keys.iter().map(VerifierKey::to_string).collect();
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            made: head.made,
            namespace: head.namespace.to_owned(),
            origin: checkpoint.origin,
            scope: head.scope,
            tree: TreeSummary {
                size: checkpoint.size,
                root: checkpoint.root,
            },
            keys: Keys {
                log: texts(head.log_keys),
                witnesses: texts(head.witness_keys),
            },
            counts: Counts::default(),
            runs: Vec::new(),
        };
        let mut zip = Files::new(out);
        zip.file(README, include_bytes!("README.txt"))?;
        zip.file(CHECKPOINT, head.checkpoint.as_bytes())?;
        if let Some((size, hashes)) = head.consistency {
            let lines = hashes.iter().map(|hash| format!("{hash}\n"));
            let text = format!("{size}\n{}", lines.collect::<String>());
            zip.file(CONSISTENCY, text.as_bytes())?;
        }
        for (number, proof) in (1..).zip(head.rotations) {
            zip.file(&rotation_file(number), proof.as_bytes())?;
        }
        zip.begin(ENTRIES)?;
        Ok(Self {
            zip,
            stage: Stage::Entries,
            payloads: Spool::new(payloads)?,
            rows: ReportBuilder::new(Spool::new(rows)?),
            head: manifest,
            next_index: 0,
            runs: Vec::new(),
            by_id: HashMap::new(),
            policies: BTreeSet::new(),
        })
    }

    /// Adds an entry, in the log's order. `details` say more about its events, for people.
    pub fn entry(
        &mut self,
        index: u64,
        bytes: &[u8],
        details: &[Detail<'_>],
    ) -> Result<(), BundleError> {
        if self.stage != Stage::Entries {
            return Err(BundleError::Late("an entry"));
        }
        if index < self.next_index || index >= self.head.tree.size {
            return Err(BundleError::Order(index));
        }
        let entry = Entry::parse(bytes).map_err(|error| BundleError::Entry { index, error })?;
        self.count(&entry, Hash::leaf(bytes))?;
        self.next_index = index + 1;
        lines::write_entry(&mut self.zip, index, bytes)?;
        self.rows.entry(index, &entry, details)?;
        Ok(())
    }

    fn count(&mut self, entry: &Entry<'_>, leaf: Hash) -> Result<(), BundleError> {
        self.head.counts.entries += 1;
        if entry.run_id.is_empty() {
            self.head.counts.notes += 1;
            return Ok(());
        }
        let place = match self.by_id.get(entry.run_id.as_ref()) {
            Some(place) => *place,
            None if !is_file_name(&entry.run_id) => {
                return Err(BundleError::RunId(entry.run_id.to_string()));
            }
            None => {
                self.runs.push(Run::new(entry));
                let place = self.runs.len() - 1;
                self.by_id.insert(entry.run_id.to_string(), place);
                place
            }
        };
        let run = &mut self.runs[place];
        run.chain.push(entry, leaf);
        run.decisions += entry.decisions.len() as u64;
        self.policies
            .extend(entry.decisions.iter().map(|of| of.policy_hash));
        Ok(())
    }

    /// Adds a node of the tree, from left to right: those of `tree::multiproof_nodes`.
    pub fn node(&mut self, node: Node, hash: &Hash) -> Result<(), BundleError> {
        if self.stage > Stage::Tree {
            return Err(BundleError::Late("a node"));
        }
        self.begin_tree()?;
        Ok(lines::write_node(&mut self.zip, node, hash)?)
    }

    fn begin_tree(&mut self) -> Result<(), BundleError> {
        if self.stage == Stage::Entries {
            self.zip.begin(TREE)?;
            self.stage = Stage::Tree;
        }
        Ok(())
    }

    /// The runs that the entries so far are about, in the order of their first entries.
    pub fn runs(&self) -> impl Iterator<Item = RunOf<'_>> {
        self.runs.iter().map(|run| RunOf {
            workflow_id: &run.summary.workflow_id,
            run_id: &run.summary.run_id,
            last_event_id: run
                .can_have_history()
                .then_some(run.chain.next_event_id - 1),
            last_n: run.chain.last_n,
            decisions: run.decisions,
        })
    }

    /// The hashes of the policies that decided anything in the entries so far.
    pub fn policies(&self) -> impl Iterator<Item = &Hash> {
        self.policies.iter()
    }

    /// Adds what was asked for a decision: the one at a place, from 0, in entry `n` of a run. `request` is
    /// JSON on one line.
    pub fn decision(
        &mut self,
        run_id: &str,
        n: u64,
        place: usize,
        request: &str,
    ) -> Result<(), BundleError> {
        self.begin_tree()?;
        self.end_history()?;
        match self.stage {
            Stage::Decisions => {}
            Stage::Tree | Stage::Between => {
                self.zip.begin(DECISIONS)?;
                self.stage = Stage::Decisions;
            }
            _ => return Err(BundleError::Late("a decision")),
        }
        Ok(lines::write_decision(
            &mut self.zip,
            run_id,
            n,
            place,
            request,
        )?)
    }

    /// Adds policies, after all decisions.
    pub fn policy_file(&mut self, hash: &Hash, content: &[u8]) -> Result<(), BundleError> {
        self.begin_tree()?;
        self.end_history()?;
        self.stage = Stage::Files;
        self.zip.file(&policies_file(hash), content)
    }

    /// Begins the history of a run: its events from the first on follow.
    pub fn begin_history(&mut self, run_id: &str) -> Result<(), BundleError> {
        if self.stage >= Stage::Decisions {
            return Err(BundleError::Late("a history"));
        }
        self.begin_tree()?;
        self.end_history()?;
        let refused = || BundleError::History(run_id.to_owned());
        let place = *self.by_id.get(run_id).ok_or_else(refused)?;
        let run = &mut self.runs[place];
        if !run.can_have_history() || run.summary.events.is_some() {
            return Err(refused());
        }
        run.summary.events = Some(0);
        self.zip.begin(&history_file(run_id))?;
        self.stage = Stage::History(place);
        Ok(())
    }

    /// Adds the next event of a history: its exact bytes and its payloads in the order in which they
    /// were hashed.
    pub fn event(&mut self, event: &[u8], payloads: &[(Span, Secret)]) -> Result<(), BundleError> {
        let Stage::History(place) = self.stage else {
            return Err(BundleError::Late("an event"));
        };
        let Run { chain, summary, .. } = &mut self.runs[place];
        let count = summary.events.get_or_insert_default();
        *count += 1;
        let event_id = i64::try_from(*count).unwrap_or(i64::MAX);
        if event_id >= chain.next_event_id {
            let run_id = summary.run_id.clone();
            return Err(BundleError::Unaccounted { run_id, event_id });
        }
        let is_erased = |secret: &Secret| matches!(secret, Secret::Erased(_));
        summary.erased |= payloads.iter().any(|(_, secret)| is_erased(secret));
        if !payloads.is_empty() {
            // What is not in its place is found by whoever verifies.
            let event_id = lines::event_id(event).unwrap_or(event_id);
            lines::write_payloads(&mut self.payloads, event_id, payloads)?;
        }
        Ok(lines::write_event(&mut self.zip, event)?)
    }

    fn end_history(&mut self) -> Result<(), BundleError> {
        let Stage::History(place) = self.stage else {
            return Ok(());
        };
        let run = &self.runs[place].summary;
        self.zip.begin(&payloads_file(&run.run_id))?;
        self.payloads.drain(&mut self.zip)?;
        self.stage = Stage::Between;
        Ok(())
    }

    /// Writes the rest, signs the statement with the log's key, and gives the output back.
    pub fn finish(mut self, key: &SigningKey) -> Result<W, BundleError> {
        if self.head.counts.entries == 0 {
            return Err(BundleError::Empty);
        }
        self.begin_tree()?;
        self.end_history()?;
        let mut manifest = self.head;
        for Run {
            chain, mut summary, ..
        } in self.runs
        {
            summary.entries = chain.entries;
            summary.last_entry = chain.last_n;
            summary.claim = chain.claim();
            summary.closed = chain.closed;
            summary.deleted = chain.deleted;
            manifest.counts.events += summary.events.unwrap_or_default();
            manifest.runs.push(summary);
        }
        manifest.counts.runs = manifest.runs.len() as u64;
        self.zip.begin(REPORT)?;
        let mut rows = self.rows.finish()?;
        write_page(&mut self.zip, &manifest, |out| rows.drain(out))?;
        let mut json = serde_json::to_vec_pretty(&manifest)?;
        json.push(b'\n');
        self.zip.file(MANIFEST, &json)?;
        self.zip.end();
        let statement = Statement::new(&self.zip.written, manifest.summary());
        self.zip.file(STATEMENT, &statement.sign(key)?)?;
        self.zip.finish()
    }
}

impl Run {
    fn new(entry: &Entry<'_>) -> Self {
        Self {
            chain: Chain::default(),
            decisions: 0,
            summary: RunSummary {
                workflow_id: entry.workflow_id.to_string(),
                run_id: entry.run_id.to_string(),
                ..RunSummary::default()
            },
        }
    }

    fn can_have_history(&self) -> bool {
        self.chain.is_whole && self.chain.events_are_in_order && !self.chain.deleted
    }
}

/// The files of the ZIP, with their digests.
struct Files<W: Write> {
    zip: ZipWriter<StreamWriter<W>>,
    open: Option<(String, Sha256)>,
    written: Vec<(String, Hash)>,
}

impl<W: Write> Files<W> {
    fn new(out: W) -> Self {
        Self {
            zip: ZipWriter::new_stream(out),
            open: None,
            written: Vec::new(),
        }
    }

    fn begin(&mut self, name: &str) -> Result<(), BundleError> {
        self.end();
        let options = SimpleFileOptions::DEFAULT
            .compression_method(CompressionMethod::Deflated)
            .system(zip::System::Unix)
            .large_file(true);
        self.zip.start_file(name, options)?;
        self.open = Some((name.to_owned(), Sha256::new()));
        Ok(())
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), BundleError> {
        self.begin(name)?;
        Ok(self.write_all(content)?)
    }

    fn end(&mut self) {
        if let Some((name, digest)) = self.open.take() {
            self.written.push((name, Hash(digest.finalize().into())));
        }
    }

    fn finish(self) -> Result<W, BundleError> {
        let mut out = self.zip.finish()?.into_inner();
        out.flush()?;
        Ok(out)
    }
}

impl<W: Write> Write for Files<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.zip.write(bytes)?;
        if let Some((_, digest)) = &mut self.open {
            digest.update(&bytes[..written]);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.zip.flush()
    }
}

/// What is written now and read later.
struct Spool<S> {
    file: S,
    length: u64,
}

impl<S: Read + Write + Seek> Spool<S> {
    fn new(mut file: S) -> io::Result<Self> {
        file.rewind()?;
        Ok(Self { file, length: 0 })
    }

    /// Gives all that was written, and begins anew.
    fn drain(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.file.flush()?;
        self.file.rewind()?;
        io::copy(&mut Read::by_ref(&mut self.file).take(self.length), out)?;
        self.file.rewind()?;
        self.length = 0;
        Ok(())
    }
}

impl<S: Write> Write for Spool<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
