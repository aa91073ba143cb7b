//! Making memory again from what is durable: at start-up, and after a commit that failed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message;
use steadfast_engine::{Run, Transition};
use steadfast_store::JournalRow;

use crate::aggregate::{LiveRun, Workflow, WorkflowKey};
use crate::error::{Result, RuntimeError};
use crate::evidence;
use crate::matching::{QueueKey, QueueKind};
use crate::runtime::Runtime;

/// Journal rows read at a time.
const ROWS: usize = 2000;

impl Runtime {
    /// Replays the journal's tail: everything that is not in the projections yet.
    pub(crate) async fn recover(&self) -> Result<()> {
        // Nothing is projected meanwhile: memory does not hold all that is durable yet.
        let mut sequencer = self.0.projecting.lock().await;
        sequencer.forget();
        self.committer().forget_unlogged();
        self.0.chains.reset(&self.0.store.logs().await?);
        let mut position = self.0.store.projected_position().await?;
        let mut keys = Vec::new();
        loop {
            let rows = self.0.store.journal_rows(position, ROWS).await?;
            let Some(last) = rows.last() else { break };
            position = last.seq;
            for row in rows {
                keys.extend(self.replay(row).await?);
            }
        }
        for (namespace_id, kind, name, _, _) in self.0.store.pending_queues().await? {
            if let Some(kind) = QueueKind::from_number(kind) {
                self.0.matching.set_overflow(
                    &QueueKey {
                        namespace_id,
                        name,
                        kind,
                    },
                    true,
                );
            }
        }
        self.0.recovering.store(false, Ordering::Release);
        self.0.recovered.notify_waiters();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            self.offer_outstanding(&key);
        }
        Ok(())
    }

    /// Waits while memory is being made again.
    pub(crate) async fn wait_for_recovery(&self) {
        loop {
            let recovered = self.0.recovered.notified();
            if !self.0.recovering.load(Ordering::Acquire) {
                return;
            }
            // The bound is for a notification that came between the two lines above.
            let _ = tokio::time::timeout(Duration::from_millis(50), recovered).await;
        }
    }

    /// A commit failed: nothing in memory counts any more. `reset` clears the committer's queue.
    pub(crate) fn drop_memory(&self, reset: &mut dyn FnMut()) {
        let mut shards = self.0.shards.lock_all();
        self.0.recovering.store(true, Ordering::Release);
        for shard in &mut shards {
            shard.clear();
        }
        self.0.matching.clear_tasks();
        self.0.timers.distrust();
        reset();
        drop(shards);
        let runtime = self.clone();
        self.0.runtime.spawn(async move {
            let mut pause = Duration::from_millis(100);
            while let Err(error) = runtime.recover().await {
                tracing::error!(%error, "reading the journal back failed: trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(10));
            }
        });
    }

    /// Makes a workflow again whose memory holds steps that were given up: from its snapshots, and
    /// from its rows that are not projected yet. The caller sees to it that nothing is projected
    /// meanwhile; what is in memory only (queries, updates that were not accepted) is lost.
    pub(crate) async fn restore(&self, key: &WorkflowKey) -> Result<()> {
        let last = {
            let mut shard = self.0.shards.of(key.slot()).lock();
            match shard.ready(key) {
                Some(workflow) if workflow.spoiled => self.committer().ticket(workflow.last_seq),
                _ => return Ok(()),
            }
        };
        self.committer().durable(last).await?;
        let mut workflow = self.load(key).await?;
        let mut position = self.0.store.projected_position().await?;
        while position < last.seq {
            let rows = self.0.store.journal_rows(position, ROWS).await?;
            let Some(newest) = rows.last() else { break };
            position = newest.seq;
            for row in rows.iter().filter(|row| row.slot == key.slot()) {
                let transition = decode(row)?;
                if key_of(&transition) == *key {
                    self.replay_into(key, &mut workflow, &transition, row.seq)
                        .await?;
                }
            }
        }
        workflow.last_seq = last.seq;
        workflow.dirty = true;
        let mut shard = self.0.shards.of(key.slot()).lock();
        // Unless all memory was dropped in the meantime: then it is made again without us.
        if let Some((spoiled, dirty)) = shard.ready_with_dirty(key)
            && spoiled.spoiled
        {
            if !spoiled.dirty {
                dirty.push(key.clone());
            }
            *spoiled = workflow;
        }
        drop(shard);
        self.offer_outstanding(key);
        Ok(())
    }

    /// Replays one row. Gives the workflow that it is about, if it is about one.
    async fn replay(&self, row: JournalRow) -> Result<Option<WorkflowKey>> {
        let transition = decode(&row)?;
        let leaves = evidence::leaves(&transition, |_| None);
        for leaf in leaves.iter().filter(|leaf| leaf.is_of_chain) {
            self.0.chains.replay(&leaf.namespace_id, &leaf.entry);
        }
        self.committer().replay_unlogged(row.seq, leaves);
        if transition.workflow_id.is_empty() {
            return Ok(None);
        }
        let key = key_of(&transition);
        let shard = self.0.shards.of(key.slot());
        // Nobody misses it: all wait until memory is made again.
        let taken = shard.lock().take(&key);
        let mut workflow = taken.unwrap_or_default();
        self.replay_into(&key, &mut workflow, &transition, row.seq)
            .await?;
        let mut shard = shard.lock();
        if !std::mem::replace(&mut workflow.dirty, true) {
            shard.dirty.push(key.clone());
        }
        shard.insert(key.clone(), workflow);
        Ok(Some(key))
    }

    /// Replays a row over what is in memory, or in the store, of the runs that it is about.
    async fn replay_into(
        &self,
        key: &WorkflowKey,
        workflow: &mut Workflow,
        transition: &Transition,
        seq: u64,
    ) -> Result<()> {
        for record in &transition.records {
            if !workflow.runs.contains_key(&record.run_id) {
                let live = self.load_run(key, &record.run_id).await?;
                let live = live.unwrap_or_else(|| LiveRun::new(Run::default(), 0));
                let runs = &mut workflow.runs;
                runs.insert(record.run_id.clone(), Box::new(live));
            }
        }
        if workflow.current.is_none() {
            workflow.current = self
                .0
                .store
                .current_run(&key.namespace_id, &key.workflow_id)
                .await?;
        }
        apply(workflow, transition, seq)
    }
}

fn decode(row: &JournalRow) -> Result<Transition> {
    Transition::decode(row.bytes.as_slice())
        .map_err(|error| RuntimeError::Internal(format!("journal row {}: {error}", row.seq)))
}

fn key_of(transition: &Transition) -> WorkflowKey {
    WorkflowKey::new(
        transition.namespace_id.clone(),
        transition.workflow_id.clone(),
    )
}

/// Applies a row to the workflow, except where the snapshots contain it already.
fn apply(workflow: &mut Workflow, transition: &Transition, seq: u64) -> Result<()> {
    for record in &transition.records {
        let Some(live) = workflow.runs.get_mut(&record.run_id) else {
            continue;
        };
        // The snapshot has it; or the run is gone from the store, because a later row deletes it.
        let is_gone = live.run.state.n == 0 && record.n > 1;
        if live.seq >= seq || is_gone {
            continue;
        }
        live.run.apply_record(record)?;
        live.run.state.entry_hash = evidence::entry_hash(&record.entry);
        live.archive(record.clone());
        live.seq = seq;
        if live.projected_seq == 0 {
            live.unprojected_event_id = live.run.tail.front().map_or(1, |(id, _)| *id);
        }
    }
    workflow.runs.retain(|_, live| live.run.state.n > 0);
    if !transition.current_run_id.is_empty() {
        workflow.current = Some(transition.current_run_id.clone());
        workflow.current_changed = true;
    }
    if transition.no_current_run {
        workflow.current = None;
        workflow.current_changed = true;
    }
    for run_id in &transition.deleted_run_ids {
        workflow.runs.remove(run_id);
        workflow.deleted.push(run_id.clone());
    }
    for run_id in &transition.erased_run_ids {
        if !workflow.erasing.contains(run_id) {
            workflow.erasing.push(run_id.clone());
        }
    }
    workflow.last_seq = seq;
    Ok(())
}
