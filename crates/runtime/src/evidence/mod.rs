//! Evidence: every transition leaves an entry, and entries are put into their namespace's log.
//!
//! A record's entry is made with the record and written with it, in one journal row. The log is a
//! projection of the journal like any other: entries have their place in it by their place in the
//! journal, so that making the projection again gives the same tree.

pub mod archive;
mod chain;
pub mod check;
mod entry_record;
pub mod erase;
mod erased;
pub mod export;
pub mod feeds;
pub mod reads;
mod seal;
mod sequencer;
pub mod what_if;

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use std::sync::Arc;

use bytes::Bytes;
use steadfast_engine::{RunRecord, Transition};

pub(crate) use chain::Chains;
pub use entry_record::EntryRecord;
pub use erased::ENCODING;
pub use seal::Sealer;
pub(crate) use seal::{as_hash, deletion, failure as failure_kind};
pub(crate) use sequencer::Sequencer;
pub use sequencer::TreeHead;

use steadfast_ledger::Hash;
use steadfast_ledger::entry::Note;
use steadfast_store::RunRef;

use crate::aggregate::Workflow;
use crate::error::Result;
use crate::permit::Permit;
use crate::runtime::Runtime;

/// An entry on its way into the log of its namespace.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Id of the namespace.
    pub namespace_id: Arc<str>,
    /// The entry's exact bytes.
    pub entry: Bytes,
    /// Its leaf hash.
    pub hash: Hash,
    /// Whether it belongs to no run.
    pub is_of_chain: bool,
}

/// The entries of a transition, in the order in which they go into the log. `hash_of` knows the leaf
/// hashes of some records' entries.
pub(crate) fn leaves(
    transition: &Transition,
    hash_of: impl Fn(&RunRecord) -> Option<Hash>,
) -> Vec<Leaf> {
    let namespace_id: Arc<str> = transition.namespace_id.as_str().into();
    let is_of_chain = transition.workflow_id.is_empty();
    let leaf = |entry: &Bytes, hash: Option<Hash>, is_of_chain| Leaf {
        namespace_id: namespace_id.clone(),
        entry: entry.clone(),
        hash: hash.unwrap_or_else(|| Hash::leaf(entry)),
        is_of_chain,
    };
    let records = transition.records.iter().filter(|of| !of.entry.is_empty());
    let of_records = records.map(|of| leaf(&of.entry, hash_of(of), is_of_chain));
    let entries = transition.entries.iter();
    let of_entries = entries.map(|entry| leaf(entry, None, is_of_chain));
    let notes = transition.notes.iter();
    let of_notes = notes.map(|entry| leaf(entry, None, true));
    of_records.chain(of_entries).chain(of_notes).collect()
}

/// Writes the entries of a transition's records into them. The records are in the order in which
/// they go into the log, a run after the one that it follows.
pub(crate) fn seal(
    sealer: &Sealer,
    namespace: &str,
    workflow: &mut Workflow,
    records: &mut [RunRecord],
) {
    for record in records {
        let predecessor = match record.n {
            1 => predecessor(workflow, &record.run_id),
            _ => None,
        };
        let Some(live) = workflow.runs.get_mut(&record.run_id) else {
            continue;
        };
        let state = &mut live.run.state;
        // A run of a reset has the one of its base; one from before there was evidence has none.
        if record.n == 1 || state.salt.is_empty() {
            record.salt = crate::clock::secret();
            state.salt = record.salt.clone();
        }
        let follows = predecessor
            .as_ref()
            .map(|(run_id, hash)| (run_id.as_str(), hash.as_ref()));
        record.entry = sealer.entry(namespace, state, record, follows);
        state.entry_hash = entry_hash(&record.entry);
    }
}

/// What the next entry of a run says of the one before it.
pub(crate) fn entry_hash(entry: &[u8]) -> Bytes {
    match entry.is_empty() {
        true => Bytes::new(),
        false => Bytes::copy_from_slice(&Hash::leaf(entry).0),
    }
}

/// The run that a new one follows, and the end of its chain if it is in memory.
fn predecessor(workflow: &Workflow, run_id: &str) -> Option<(String, Bytes)> {
    let state = &workflow.runs.get(run_id)?.run.state;
    let before = match state.reset_from_run_id.as_str() {
        "" => &state.start().continued_execution_run_id,
        reset => reset,
    };
    if before.is_empty() {
        return None;
    }
    let hash = workflow
        .runs
        .get(before)
        .map_or_else(Bytes::new, |live| live.run.state.entry_hash.clone());
    Some((before.to_owned(), hash))
}

impl Runtime {
    /// Puts an entry that belongs to no run into a namespace's log, and waits until it is durable.
    pub async fn note(&self, permit: &Permit, namespace_id: &str, note: Note<'_>) -> Result<()> {
        let namespace = self.namespaces().name(namespace_id);
        self.note_of(permit, namespace_id, &namespace, note).await
    }

    /// The same for a namespace that is not there yet.
    pub(crate) async fn note_of(
        &self,
        permit: &Permit,
        namespace_id: &str,
        namespace: &str,
        note: Note<'_>,
    ) -> Result<()> {
        if !self.0.settings.evidence {
            return Ok(());
        }
        let ticket = loop {
            self.wait_for_recovery().await;
            // Held so that memory is not dropped in between, and the chain with it.
            let _shard = self.0.shards.of(0).lock();
            if self.0.recovering.load(Ordering::Acquire) {
                continue;
            }
            let note = note.clone();
            let (cause, now) = (permit.cause(), crate::clock::now());
            let append = |entry: Bytes| {
                let transition = Transition {
                    namespace_id: namespace_id.to_owned(),
                    entries: vec![entry],
                    ..Transition::default()
                };
                let leaves = leaves(&transition, |_| None);
                let row = transition.encode_row();
                let seq = self.committer().append(0, row, leaves, Box::new(|| {}));
                self.committer().ticket(seq)
            };
            let chains = &self.0.chains;
            break chains.note(namespace_id, namespace, note, &cause, now, append);
        };
        self.committer().durable(ticket).await
    }

    /// Checks the log and the runs of a namespace against each other, as of now or a little later.
    pub async fn check_evidence(
        &self,
        namespace_id: &str,
        progress: impl FnMut(&check::Findings),
    ) -> Result<check::Findings> {
        self.projected().await?;
        let namespace = self.namespaces().name(namespace_id);
        let store = &*self.0.store;
        check::check_namespace(store, &self.0.sealer, namespace_id, &namespace, progress).await
    }

    /// The record of a run's entry `n`, for what there was no room for in the entry; none if it is gone.
    pub async fn entry_record(
        &self,
        namespace_id: &str,
        workflow_id: &str,
        run_id: &str,
        n: u64,
    ) -> Result<Option<EntryRecord>> {
        let run = RunRef {
            namespace_id: namespace_id.to_owned(),
            workflow_id: workflow_id.to_owned(),
            run_id: run_id.to_owned(),
        };
        EntryRecord::read(&**self.store(), &run, n).await
    }

    /// How many entries the log of a namespace has, with all that was durable when it was called.
    pub async fn log_size(&self, namespace_id: &str) -> Result<u64> {
        self.projected().await?;
        let heads = self.0.heads.borrow();
        Ok(heads.get(namespace_id).map_or(0, |head| head.size))
    }

    /// What bundles of a namespace are made of.
    pub fn export_source<'a>(
        &'a self,
        namespace_id: &'a str,
        namespace: &'a str,
        progress: &'a export::Progress,
    ) -> export::Source<'a> {
        export::Source {
            store: &*self.0.store,
            sealer: &self.0.sealer,
            namespace_id,
            namespace,
            explain: self.0.settings.explain,
            progress,
        }
    }

    /// The heads of all logs as they are now, by the id of their namespaces.
    pub fn log_heads(&self) -> tokio::sync::watch::Receiver<HashMap<String, TreeHead>> {
        self.0.heads.subscribe()
    }
}
