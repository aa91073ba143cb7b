//! Evidence: every transition leaves an entry, and entries are put into their namespace's log.
//!
//! A record's entry is made with the record and written with it, in one journal row. The log is a
//! projection of the journal like any other: entries have their place in it by their place in the
//! journal, so that making the projection again gives the same tree.

pub mod archive;
mod chain;
pub mod check;
pub mod export;
pub mod feeds;
mod seal;
mod sequencer;

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use steadfast_engine::{RunRecord, Transition};

pub(crate) use chain::Chains;
pub use seal::Sealer;
pub(crate) use seal::{deletion, failure as failure_kind};
pub(crate) use sequencer::Sequencer;
pub use sequencer::TreeHead;

use steadfast_ledger::entry::Note;

use crate::aggregate::Workflow;
use crate::error::Result;
use crate::permit::Permit;
use crate::runtime::Runtime;

/// An entry on its way into the log of its namespace.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Id of the namespace.
    pub namespace_id: String,
    /// The entry's exact bytes.
    pub entry: Bytes,
    /// Whether it belongs to no run.
    pub is_of_chain: bool,
}

/// The entries of a transition, in the order in which they go into the log.
pub(crate) fn leaves(transition: &Transition) -> Vec<Leaf> {
    let of_records = transition.records.iter().map(|record| &record.entry);
    of_records
        .chain(&transition.entries)
        .filter(|entry| !entry.is_empty())
        .map(|entry| Leaf {
            namespace_id: transition.namespace_id.clone(),
            entry: entry.clone(),
            is_of_chain: transition.workflow_id.is_empty(),
        })
        .collect()
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
        false => Bytes::copy_from_slice(&steadfast_ledger::Hash::leaf(entry).0),
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
                let leaves = leaves(&transition);
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
            progress,
        }
    }

    /// The heads of all logs as they are now, by the id of their namespaces.
    pub fn log_heads(&self) -> tokio::sync::watch::Receiver<HashMap<String, TreeHead>> {
        self.0.heads.subscribe()
    }
}
