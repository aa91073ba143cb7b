//! A workflow id in memory: its current run and whichever other runs are in use.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message;
use steadfast_engine::record::StepKind;
use steadfast_engine::{Effect, Run, RunRecord, Time};
use tokio::sync::watch;

use crate::credentials::Recorded;
use crate::error::{Result, RuntimeError};
use crate::evidence::erase::Decided;
use crate::queries::BufferedQuery;
use crate::timers::Alarm;

/// Names a workflow id: what a shard, a lock and a journal row are about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkflowKey {
    /// Id of the namespace.
    pub namespace_id: String,
    /// Workflow id.
    pub workflow_id: String,
}

impl WorkflowKey {
    /// The key of a workflow id in a namespace.
    pub fn new(namespace_id: impl Into<String>, workflow_id: impl Into<String>) -> Self {
        Self {
            namespace_id: namespace_id.into(),
            workflow_id: workflow_id.into(),
        }
    }

    /// The hash bucket: stable over restarts and machines, so that it can be stored.
    pub fn slot(&self) -> u16 {
        // FNV-1a: short, stable, good enough for buckets.
        let bytes = self
            .namespace_id
            .bytes()
            .chain([0])
            .chain(self.workflow_id.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        ((hash >> 32) as u16 ^ hash as u16) % SLOTS
    }
}

/// Number of hash buckets. Only buckets: no rows, queues or threads of their own.
pub const SLOTS: u16 = 4096;

/// A workflow id in memory.
#[derive(Default)]
pub struct Workflow {
    /// The current run: the one that calls without a run id mean.
    pub current: Option<String>,
    /// Runs in memory, the current one always among them. Boxed: a table has room for several runs at
    /// least, nearly all have one, and a run is large.
    pub runs: HashMap<String, Box<LiveRun>>,
    /// Position of the newest journal row of this workflow id: answers wait for it.
    pub last_seq: u64,
    /// Whether it is in the shard's list of what is to be projected.
    pub dirty: bool,
    /// Whether `current` changed since it was projected.
    pub current_changed: bool,
    /// Runs deleted since the last projection.
    pub deleted: Vec<String>,
    /// A run whose payloads are to be erased, in the transition that is being made.
    pub erasure: Option<Decided>,
    /// Runs whose payloads are erased by rows of the journal, and not yet in the store.
    pub erasing: Vec<String>,
    /// Whether memory holds steps that were given up. Nothing is decided, shown or projected of it
    /// before it is made again from the store and the journal.
    pub spoiled: bool,
    /// When it was last used, for eviction.
    pub used: Time,
}

/// A run in memory, and what only this process knows of it.
pub struct LiveRun {
    /// The run.
    pub run: Run,
    /// Position of its newest record, or of the snapshot it was loaded from.
    pub seq: u64,
    /// Position that is projected.
    pub projected_seq: u64,
    /// First event that is not projected; those from here on are in `run.tail`.
    pub unprojected_event_id: i64,
    /// Queries that wait for the workflow task in progress.
    pub queries: Vec<BufferedQuery>,
    /// Queries that the worker which has the workflow task is to answer with it.
    pub sent_queries: HashMap<String, BufferedQuery>,
    /// Tells history long polls and update waiters that something happened; made when asked for.
    pub changed: Option<watch::Sender<u64>>,
    /// What wakes it, once it had something due soon.
    pub alarm: Option<Arc<Alarm>>,
    /// Records that are not projected.
    pub records: Vec<ArchivedRecord>,
    /// Hand-outs of the transition that is being made, which are to know its record.
    pub unrecorded: Vec<Arc<OnceLock<Recorded>>>,
}

/// A record, encoded without what is stored elsewhere: its run's id, its events and its entry.
pub struct ArchivedRecord {
    /// Its number in the run.
    pub n: u64,
    /// The rest of it.
    pub bytes: Vec<u8>,
}

impl LiveRun {
    /// A run just made or loaded.
    pub fn new(run: Run, seq: u64) -> Self {
        let unprojected_event_id = run
            .tail
            .front()
            .map_or(run.state.next_event_id, |(id, _)| *id);
        Self {
            run,
            seq,
            projected_seq: seq,
            unprojected_event_id,
            queries: Vec::new(),
            sent_queries: HashMap::new(),
            changed: None,
            alarm: None,
            records: Vec::new(),
            unrecorded: Vec::new(),
        }
    }

    /// Keeps a record until it is projected: without its events, which history will have, and its
    /// entry, which the log will have. One without an entry is not evidence, and not kept. It is
    /// encoded at once: one allocation waits for the projector in the place of a dozen.
    pub fn archive(&mut self, mut record: RunRecord) {
        if record.entry.is_empty() {
            return;
        }
        for step in &mut record.steps {
            match &mut step.kind {
                Some(StepKind::Event(bytes)) => *bytes = Bytes::new(),
                Some(StepKind::Flush(flush)) => flush.events.fill(Bytes::new()),
                _ => {}
            }
        }
        record.entry = Bytes::new();
        record.run_id = String::new();
        self.records.push(ArchivedRecord {
            n: record.n,
            bytes: record.encode_to_vec(),
        });
    }

    /// A receiver that sees every later change.
    pub fn watch(&mut self) -> watch::Receiver<u64> {
        self.changed
            .get_or_insert_with(|| watch::channel(0).0)
            .subscribe()
    }

    /// Events that are in memory, from `first` or a later one on, and the id of the first of them.
    pub fn events_from(&self, first: i64) -> (i64, Vec<Bytes>) {
        let front = self
            .run
            .tail
            .front()
            .map_or(self.run.state.next_event_id, |(id, _)| *id);
        let skip = usize::try_from(first - front).unwrap_or(0);
        let events = self
            .run
            .tail
            .iter()
            .skip(skip)
            .map(|(_, bytes)| bytes.clone())
            .collect();
        (front.max(first), events)
    }

    /// Whether nothing but the store is needed to have it again.
    pub fn is_idle(&self) -> bool {
        self.projected_seq == self.seq
            && self.run.speculative.is_none()
            && self.run.admitted.is_empty()
            && self.queries.is_empty()
            && self.sent_queries.is_empty()
            && self
                .changed
                .as_ref()
                .is_none_or(|changed| changed.receiver_count() == 0)
    }
}

impl Workflow {
    /// The current run.
    pub fn current_live(&mut self) -> Option<&mut LiveRun> {
        self.runs.get_mut(self.current.as_ref()?).map(Box::as_mut)
    }

    /// The run that a call means: the named one, or the current one for an empty name.
    pub fn named_live(&mut self, run_id: &str) -> Result<&mut LiveRun> {
        let live = match run_id {
            "" => self.current_live(),
            named => self.runs.get_mut(named).map(Box::as_mut),
        };
        live.ok_or_else(|| RuntimeError::not_found("workflow execution not found"))
    }

    /// The same, if `first_run_id` (unless empty) is the first run of its chain.
    pub fn named_live_of_chain(
        &mut self,
        run_id: &str,
        first_run_id: &str,
    ) -> Result<&mut LiveRun> {
        let live = self.named_live(run_id)?;
        let of_chain = first_run_id.is_empty()
            || live.run.state.start().first_execution_run_id == first_run_id;
        match of_chain {
            true => Ok(live),
            false => Err(RuntimeError::not_found("workflow execution not found")),
        }
    }

    /// Whether an effect of one of its runs waits, because that run is paused.
    pub fn withholds(&self, effect: &Effect) -> bool {
        let (Effect::WorkflowTask { run_id, .. }
        | Effect::ActivityTask { run_id, .. }
        | Effect::Message { run_id, .. }
        | Effect::UpdateChanged { run_id, .. }
        | Effect::Closed { run_id }) = effect;
        let live = self.runs.get(run_id);
        live.is_some_and(|live| live.run.withholds(effect))
    }

    /// Whether no run of it goes on, and nothing is left to deliver.
    pub fn is_closed(&self) -> bool {
        let mut runs = self.runs.values();
        runs.all(|live| !live.run.state.is_running() && live.run.state.outbox.is_empty())
    }

    /// Whether all of it could be loaded again.
    pub fn is_idle(&self) -> bool {
        !self.dirty
            && self.deleted.is_empty()
            && self.erasing.is_empty()
            && self.runs.values().all(|live| live.is_idle())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_stable_because_they_are_stored() {
        assert_eq!(
            WorkflowKey::new("n", "w").slot(),
            WorkflowKey::new("n", "w").slot()
        );
        let spread: std::collections::HashSet<u16> = (0..10_000)
            .map(|i| WorkflowKey::new("n", format!("w{i}")).slot())
            .collect();
        assert!(
            spread.len() > 3000,
            "{} of 4096 slots used by 10,000 ids",
            spread.len()
        );
        assert!(spread.iter().all(|slot| *slot < SLOTS));
    }
}
