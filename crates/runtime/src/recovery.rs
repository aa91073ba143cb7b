//! Making memory again from what is durable: at start-up, and after a commit that failed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message;
use steadfast_engine::{Run, Transition};
use steadfast_store::JournalRow;

use crate::aggregate::{LiveRun, Workflow, WorkflowKey};
use crate::error::{Result, RuntimeError};
use crate::matching::{QueueKey, QueueKind};
use crate::runtime::Runtime;

/// Journal rows read at a time.
const ROWS: usize = 2000;

impl Runtime {
    /// Replays the journal's tail: everything that is not in the projections yet.
    pub(crate) async fn recover(&self) -> Result<()> {
        // Nothing is projected meanwhile: memory does not hold all that is durable yet.
        let _no_projection = self.0.projecting.lock().await;
        let mut position = self.0.store.projected_position().await?;
        let mut keys = Vec::new();
        loop {
            let rows = self.0.store.journal_rows(position, ROWS).await?;
            let Some(last) = rows.last() else { break };
            position = last.seq;
            for row in rows {
                keys.push(self.replay(row).await?);
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

    async fn replay(&self, row: JournalRow) -> Result<WorkflowKey> {
        let transition = Transition::decode(row.bytes.as_slice())
            .map_err(|error| RuntimeError::Internal(format!("journal row {}: {error}", row.seq)))?;
        let key = WorkflowKey::new(
            transition.namespace_id.clone(),
            transition.workflow_id.clone(),
        );
        let missing: Vec<String> = {
            let mut shard = self.0.shards.of(key.slot()).lock();
            if shard.ready(&key).is_none() {
                shard.insert(key.clone(), Workflow::default());
            }
            let workflow = shard.ready(&key);
            transition
                .records
                .iter()
                .map(|record| record.run_id.clone())
                .filter(|run_id| {
                    workflow
                        .as_ref()
                        .is_none_or(|w| !w.runs.contains_key(run_id))
                })
                .collect()
        };
        let mut loaded = Vec::new();
        for run_id in missing {
            let live = self.load_run(&key, &run_id).await?;
            loaded.push((
                run_id,
                live.unwrap_or_else(|| LiveRun::new(Run::default(), 0)),
            ));
        }
        let current = self
            .0
            .store
            .current_run(&key.namespace_id, &key.workflow_id)
            .await?;
        let mut shard = self.0.shards.of(key.slot()).lock();
        let Some((workflow, dirty)) = shard.ready_with_dirty(&key) else {
            return Err(RuntimeError::Internal(
                "a workflow vanished during recovery".into(),
            ));
        };
        if workflow.current.is_none() {
            workflow.current = current;
        }
        for (run_id, live) in loaded {
            workflow.runs.entry(run_id).or_insert(live);
        }
        apply(workflow, &transition, row.seq)?;
        if !workflow.dirty {
            workflow.dirty = true;
            dirty.push(key.clone());
        }
        Ok(key)
    }
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
    workflow.last_seq = seq;
    Ok(())
}
