//! Entries: their place in the tree, and the chains that they form.

use std::collections::HashMap;
use std::io::{Read, Seek};

use super::archive::{Archive, Member};
use super::decisions::Decisions;
use super::findings::{Code, Findings, Place};
use super::gaps::Gaps;
use super::tree::Tree;
use crate::Hash;
use crate::bundle::chain::{Chain, Link};
use crate::bundle::lines::{LineError, Lines};
use crate::bundle::{Claim, ENTRIES, Manifest, Scope, TREE};
use crate::checkpoint::Checkpoint;
use crate::entry::{Entry, EventRange};

/// What is known before the entries are read.
pub(super) struct Expected<'a> {
    pub checkpoint: Option<&'a Checkpoint>,
    pub manifest: Option<&'a Manifest>,
    pub max_events: u64,
}

/// What the entries say.
#[derive(Default)]
pub(super) struct Log {
    pub entries: u64,
    pub notes: u64,
    pub runs: Vec<Run>,
    /// An entry could not be read: what it said, and about which run, is not known.
    pub is_damaged: bool,
    /// What could not be checked, for people.
    pub unchecked: Vec<String>,
    /// What policies decided.
    pub decisions: Decisions,
    by_id: HashMap<String, usize>,
    /// The namespace's own chain.
    own: Run,
    first_index: Option<u64>,
    next_index: u64,
    /// Hashes of events that are kept.
    events: u64,
}

/// What the entries say about one run.
#[derive(Default)]
pub(super) struct Run {
    pub workflow_id: String,
    pub run_id: String,
    pub chain: Chain,
    /// The events that its entries list.
    pub segments: Vec<Segment>,
    /// The run whose events its history begins with.
    pub base: Option<usize>,
    /// Something is wrong with its entries.
    pub is_broken: bool,
    /// Index of its last entry.
    last_index: u64,
    /// Entries by the principal that the bundle is about.
    by_principal: u64,
    /// Numbers of entries that did not come yet.
    gaps: Gaps<u64>,
    suspect: Option<Suspect>,
}

/// Consecutive events.
pub(super) enum Segment {
    /// Each with its hash.
    Listed { first: i64, hashes: Vec<Hash> },
    /// With the root of a tree.
    Range(EventRange),
}

impl Segment {
    pub fn first(&self) -> i64 {
        match self {
            Self::Listed { first, .. } => *first,
            Self::Range(range) => range.first,
        }
    }
}

/// An entry that does not hold the hash of the one before. Which of them was altered is known when
/// the next one comes.
struct Suspect {
    index: u64,
    n: u64,
    before: Option<(u64, u64)>,
}

/// An entry where it was found.
struct Found<'a> {
    index: u64,
    entry: &'a Entry<'a>,
    leaf: Hash,
}

impl Found<'_> {
    fn place(&self) -> Place {
        let place = Place::file(ENTRIES).index(self.index);
        place.run(&self.entry.run_id).entry(self.entry.n)
    }
}

impl Log {
    /// Reads entries and nodes, and compares the root that they give.
    pub fn read<R: Read + Seek>(
        archive: &Archive<'_, R>,
        expected: &Expected<'_>,
        findings: &Findings,
    ) -> Self {
        let mut log = Self::default();
        archive.read(ENTRIES, |entries| {
            archive.read(TREE, |nodes| {
                let tree = Tree::new(nodes, expected.checkpoint, findings);
                log.walk(entries, tree, expected, findings);
            })
        });
        log.close(expected, findings);
        log
    }

    fn walk(
        &mut self,
        entries: &mut Member<'_>,
        mut tree: Tree<'_, '_>,
        expected: &Expected<'_>,
        findings: &Findings,
    ) {
        let mut lines = Lines::entries(entries);
        loop {
            match lines.next_entry() {
                Ok(Some((index, bytes))) => {
                    let leaf = Hash::leaf(bytes);
                    if !self.is_next(index, expected, findings) {
                        tree.give_up();
                    }
                    tree.leaf(index, leaf);
                    self.entry(index, bytes, leaf, expected, findings);
                }
                Ok(None) => break,
                Err(error) => {
                    let place = Place::file(ENTRIES).index(self.next_index);
                    findings.add(Code::EntryAltered, place, &error);
                    tree.give_up();
                    self.is_damaged = true;
                    if !matches!(error, LineError::Line { .. }) {
                        break;
                    }
                }
            }
        }
        tree.finish();
    }

    /// Whether an index is greater than the one before and, in a part of the log, the next one.
    fn is_next(&mut self, index: u64, expected: &Expected<'_>, findings: &Findings) -> bool {
        self.entries += 1;
        let place = || Place::file(ENTRIES).index(index);
        if index < self.next_index {
            let detail = "it does not come after the one before";
            findings.add(Code::OrderChanged, place(), detail);
            self.is_damaged = true;
            return false;
        }
        if let Some(Scope::Range { from, .. }) = expected.manifest.map(|of| &of.scope) {
            let next = self.first_index.map_or(*from, |_| self.next_index);
            if index != next {
                let detail = format!("index {next} is expected before it");
                findings.add(Code::EntryMissing, place(), detail);
            }
        }
        self.first_index.get_or_insert(index);
        self.next_index = index.saturating_add(1);
        true
    }

    fn entry(
        &mut self,
        index: u64,
        bytes: &[u8],
        leaf: Hash,
        expected: &Expected<'_>,
        findings: &Findings,
    ) {
        let entry = match Entry::parse(bytes) {
            Ok(entry) => entry,
            Err(error) => {
                let place = Place::file(ENTRIES).index(index);
                findings.add(Code::EntryAltered, place, error);
                self.is_damaged = true;
                return;
            }
        };
        let found = Found {
            index,
            entry: &entry,
            leaf,
        };
        let scope = expected.manifest.map(|manifest| &manifest.scope);
        if let Some(manifest) = expected.manifest {
            check_scope(manifest, &found, findings);
        }
        if entry.run_id.is_empty() {
            self.notes += 1;
            let is_whole_part = matches!(scope, Some(Scope::Range { .. }));
            self.own
                .push(&found, is_whole_part && self.own.has_begun(), findings);
            return;
        }
        let place = self.run(&found, scope, findings);
        let run = &mut self.runs[place];
        let needs_all = match scope {
            Some(Scope::Session { .. }) => true,
            Some(Scope::Range { .. }) => run.has_begun(),
            _ => false,
        };
        run.push(&found, needs_all, findings);
        if let Some(Scope::Principal { principal }) = scope {
            run.by_principal += u64::from(is_by(&entry, principal));
        }
        self.events += entry.events.len() as u64;
        if self.events <= expected.max_events {
            run.list_events(&entry);
            self.decisions.add(place, &entry);
        }
    }

    /// The place of a run.
    pub fn place_of(&self, run_id: &str) -> Option<usize> {
        self.by_id.get(run_id).copied()
    }

    /// The place of an entry's run, which it may be the first of.
    fn run(&mut self, found: &Found<'_>, scope: Option<&Scope>, findings: &Findings) -> usize {
        let entry = found.entry;
        if let Some(place) = self.by_id.get(entry.run_id.as_ref()) {
            if self.runs[*place].workflow_id != entry.workflow_id {
                let detail = "the run is one of another workflow";
                findings.add(Code::EntryAltered, found.place(), detail);
            }
            return *place;
        }
        let base = self.follow(found, scope, findings);
        self.runs.push(Run {
            workflow_id: entry.workflow_id.to_string(),
            run_id: entry.run_id.to_string(),
            base,
            ..Run::default()
        });
        let place = self.runs.len() - 1;
        self.by_id.insert(entry.run_id.to_string(), place);
        place
    }

    /// Compares what a run's first entry says of the run before it.
    fn follow(
        &mut self,
        found: &Found<'_>,
        scope: Option<&Scope>,
        findings: &Findings,
    ) -> Option<usize> {
        let follows = found.entry.follows.as_ref()?;
        let (run_id, before) = (&follows.run_id, follows.entry);
        let Some(place) = self.by_id.get(run_id.as_ref()).copied() else {
            if matches!(scope, Some(Scope::Session { .. })) && before.is_some() {
                let detail = format!("it follows run {run_id}, of which there is no entry");
                findings.add(Code::EntryMissing, found.place(), detail);
            } else {
                self.unchecked.push(format!(
                    "run {}: what it has from run {run_id}, which is not in the bundle",
                    found.entry.run_id
                ));
            }
            return None;
        };
        let chain = &self.runs[place].chain;
        if chain.is_whole && before.is_some() && before != chain.end {
            let detail = format!("it holds another hash of the last entry of run {run_id} then");
            let place = found.place();
            findings.add(Code::EntryAltered, place, detail);
        }
        Some(place)
    }

    /// Says what is known at the end only.
    fn close(&mut self, expected: &Expected<'_>, findings: &Findings) {
        for run in self.runs.iter_mut().chain([&mut self.own]) {
            run.close(findings);
        }
        if self.events > expected.max_events {
            let detail = format!("it lists more than {} events", expected.max_events);
            findings.add(Code::TooLarge, Place::file(ENTRIES), detail);
        }
        let missing = |detail: &str| {
            findings.add(Code::EntryMissing, Place::file(ENTRIES), detail);
        };
        match expected.manifest.map(|manifest| &manifest.scope) {
            _ if self.entries == 0 => missing("there is none"),
            Some(Scope::Range { to, .. }) if self.next_index != *to => {
                missing(&format!("the last index is not the one before {to}"));
            }
            Some(Scope::Session { .. }) if self.runs.is_empty() => missing("there is no run"),
            Some(Scope::Principal { .. }) => self.check_principal(findings),
            _ => {}
        }
    }

    fn check_principal(&self, findings: &Findings) {
        for run in &self.runs {
            let is_complete = run.chain.claim() != Claim::Partial;
            if run.by_principal == 0 || !is_complete && run.by_principal < run.chain.entries {
                let place = Place::file(ENTRIES).run(&run.run_id);
                let detail = "it has entries that are not by the principal, and is not complete, \
                              or none that is";
                findings.add(Code::OutOfScope, place, detail);
            }
        }
    }
}

/// Compares an entry with what the bundle is about.
fn check_scope(manifest: &Manifest, found: &Found<'_>, findings: &Findings) {
    let entry = found.entry;
    let out = |detail: &str| findings.add(Code::OutOfScope, found.place(), detail);
    if entry.ns != manifest.namespace {
        out("it is of another namespace");
    }
    match (&manifest.scope, &entry.note) {
        (Scope::Session { workflow_id }, None) if entry.workflow_id != workflow_id.as_str() => {
            out("it is about another workflow");
        }
        (Scope::Session { workflow_id }, Some(note))
            if !note.workflow_id.is_empty() && note.workflow_id != workflow_id.as_str() =>
        {
            out("it is about another workflow");
        }
        (Scope::Principal { principal }, _)
            if entry.run_id.is_empty() && !is_by(entry, principal) =>
        {
            out("it is not by the principal");
        }
        _ => {}
    }
}

fn is_by(entry: &Entry<'_>, principal: &str) -> bool {
    entry.cause.principal == principal || entry.events.iter().any(|event| event.by == principal)
}

impl Run {
    fn has_begun(&self) -> bool {
        self.chain.entries > 0
    }

    /// `needs_all`: entries before it may not be missing.
    fn push(&mut self, found: &Found<'_>, needs_all: bool, findings: &Findings) {
        let before = self
            .has_begun()
            .then_some((self.last_index, self.chain.last_n));
        let last_n = self.chain.last_n;
        let link = self.chain.push(found.entry, found.leaf);
        let n = found.entry.n;
        let is_explained = self.suspect.is_some();
        self.judge_suspect(link, findings);
        match link {
            Link::Good => {}
            Link::OtherHash if is_explained => {}
            Link::OtherHash => {
                self.suspect = Some(Suspect {
                    index: found.index,
                    n,
                    before,
                });
            }
            Link::Gap if needs_all => self.gaps.open(last_n + 1, n - 1),
            Link::Gap => {}
            Link::Back => {
                self.is_broken = true;
                self.gaps.fill(n);
                let detail = format!("it comes after entry {last_n}");
                findings.add(Code::OrderChanged, found.place(), detail);
                return;
            }
        }
        self.last_index = found.index;
    }

    /// An entry that breaks both of its links was altered itself; otherwise the one before it was.
    fn judge_suspect(&mut self, link: Link, findings: &Findings) {
        let Some(suspect) = self.suspect.take() else {
            return;
        };
        self.is_broken = true;
        let (index, n) = match (link, suspect.before) {
            (Link::OtherHash, _) | (_, None) => (suspect.index, suspect.n),
            (_, Some(before)) => before,
        };
        let place = Place::file(ENTRIES).index(index).run(&self.run_id).entry(n);
        let detail = match n == suspect.n {
            true => "it does not hold the hash of the entry before it",
            false => "the entry after it holds another hash of it",
        };
        findings.add(Code::EntryAltered, place, detail);
    }

    fn list_events(&mut self, entry: &Entry<'_>) {
        for event in &entry.events {
            match self.segments.last_mut() {
                Some(Segment::Listed { first, hashes })
                    if first.checked_add_unsigned(hashes.len() as u64) == Some(event.id) =>
                {
                    hashes.push(event.hash);
                }
                _ => self.segments.push(Segment::Listed {
                    first: event.id,
                    hashes: vec![event.hash],
                }),
            }
        }
        if let Some(range) = &entry.event_range {
            self.segments.push(Segment::Range(range.clone()));
        }
    }

    fn close(&mut self, findings: &Findings) {
        self.judge_suspect(Link::Good, findings);
        self.is_broken |= !self.gaps.is_empty();
        for (first, last) in self.gaps.iter() {
            let place = Place::file(ENTRIES).run(&self.run_id).entry(first);
            let detail = match first == last {
                true => "it is not there".to_owned(),
                false => format!("the entries from it to {last} are not there"),
            };
            findings.add(Code::EntryMissing, place, detail);
        }
        if self.chain.is_whole && !self.chain.events_are_in_order && !self.run_id.is_empty() {
            self.is_broken = true;
            let place = Place::file(ENTRIES).run(&self.run_id);
            findings.add(Code::OrderChanged, place, "its events are not in order");
        }
    }
}
