//! Workflows from the store into memory, and what they wait for asked for again.

use std::sync::atomic::Ordering;

use prost::Message;
use steadfast_engine::{Effect, Run, RunState};
use steadfast_store::RunRef;

use crate::aggregate::{LiveRun, Workflow, WorkflowKey};
use crate::error::{Result, RuntimeError};
use crate::runtime::Runtime;
use crate::shard::{Found, Generation};

impl Runtime {
    /// Loads a workflow, its current run and a named run, unless they are in memory.
    pub(crate) async fn ensure_loaded(&self, key: &WorkflowKey, run_id: &str) -> Result<()> {
        loop {
            self.wait_for_recovery().await;
            match self.look_up(key, run_id) {
                LookUp::Ready => return Ok(()),
                LookUp::RunMissing(since) => return self.load_named_run(key, run_id, since).await,
                LookUp::Recovering => {}
                LookUp::Spoiled => {
                    let _no_projection = self.0.projecting.lock().await;
                    self.restore(key).await?;
                }
                // An error only says that it is there, or that loading failed: look again.
                LookUp::Loading(mut receiver) => drop(receiver.recv().await),
                LookUp::Absent(since) => {
                    // A caller that goes away in the middle lets others load it.
                    let unfinished = Unfinished { runtime: self, key };
                    let loaded = self.load(key).await;
                    std::mem::forget(unfinished);
                    self.finish_loading(key, loaded, since)?;
                    self.offer_outstanding(key);
                }
            }
        }
    }

    fn look_up(&self, key: &WorkflowKey, run_id: &str) -> LookUp {
        let mut shard = self.0.shards.of(key.slot()).lock();
        // What is in the store is outdated then, and memory does not know it yet.
        if self.0.recovering.load(Ordering::Acquire) {
            return LookUp::Recovering;
        }
        match shard.find(key) {
            Found::Ready(workflow) if workflow.spoiled => LookUp::Spoiled,
            Found::Ready(workflow) if has_run(workflow, run_id) => LookUp::Ready,
            Found::Ready(workflow) => {
                // Not evicted while we read, so that what we read cannot be outdated.
                if !std::mem::replace(&mut workflow.dirty, true) {
                    shard.dirty.push(key.clone());
                }
                LookUp::RunMissing(shard.generation())
            }
            Found::Loading(receiver) => LookUp::Loading(receiver),
            Found::Absent => LookUp::Absent(shard.loading(key)),
        }
    }

    fn finish_loading(
        &self,
        key: &WorkflowKey,
        loaded: Result<Workflow>,
        since: Generation,
    ) -> Result<()> {
        let mut shard = self.0.shards.of(key.slot()).lock();
        match loaded {
            Ok(workflow) => {
                shard.loaded(key.clone(), workflow, since);
                Ok(())
            }
            Err(error) => {
                shard.load_failed(key);
                Err(error)
            }
        }
    }

    pub(crate) async fn load(&self, key: &WorkflowKey) -> Result<Workflow> {
        let mut workflow = Workflow {
            used: crate::clock::now(),
            ..Workflow::default()
        };
        let current = self
            .0
            .store
            .current_run(&key.namespace_id, &key.workflow_id)
            .await?;
        if let Some(run_id) = current {
            if let Some(live) = self.load_run(key, &run_id).await? {
                workflow.last_seq = live.seq;
                workflow.runs.insert(run_id.clone(), Box::new(live));
            }
            workflow.current = Some(run_id);
        }
        Ok(workflow)
    }

    /// Loads a run of a workflow that is in memory. Does nothing if memory was dropped `since`: the
    /// caller looks again.
    async fn load_named_run(
        &self,
        key: &WorkflowKey,
        run_id: &str,
        since: Generation,
    ) -> Result<()> {
        let loaded = self.load_run(key, run_id).await?;
        let mut shard = self.0.shards.of(key.slot()).lock();
        if shard.generation() != since {
            return Ok(());
        }
        let Some(live) = loaded else {
            return Err(RuntimeError::not_found(format!(
                "workflow execution not found for workflow ID \"{}\" and run ID \"{run_id}\"",
                key.workflow_id
            )));
        };
        if let Some(workflow) = shard.ready(key) {
            let runs = &mut workflow.runs;
            runs.entry(run_id.to_owned())
                .or_insert_with(|| Box::new(live));
        }
        drop(shard);
        self.offer_outstanding(key);
        Ok(())
    }

    pub(crate) async fn load_run(
        &self,
        key: &WorkflowKey,
        run_id: &str,
    ) -> Result<Option<LiveRun>> {
        let name = RunRef {
            namespace_id: key.namespace_id.clone(),
            workflow_id: key.workflow_id.clone(),
            run_id: run_id.to_owned(),
        };
        let Some(stored) = self.0.store.load_run(&name).await? else {
            return Ok(None);
        };
        let state = RunState::decode(stored.snapshot.as_slice()).map_err(|error| {
            RuntimeError::Internal(format!("snapshot of run {run_id}: {error}"))
        })?;
        Ok(Some(LiveRun::new(Run::from_state(state), stored.seq)))
    }

    /// Asks again for everything that a loaded workflow waits for. Duplicates do no harm.
    pub(crate) fn offer_outstanding(&self, key: &WorkflowKey) {
        let effects: Vec<Effect> = {
            let mut shard = self.0.shards.of(key.slot()).lock();
            let Some(workflow) = shard.ready(key).filter(|workflow| !workflow.spoiled) else {
                return;
            };
            let now = crate::clock::now();
            let effects = workflow
                .runs
                .values_mut()
                .flat_map(|live| live.run.outstanding(now))
                .collect();
            self.arm_timers(key, workflow);
            effects
        };
        for effect in effects {
            self.perform(key, effect);
        }
    }
}

/// A load that was begun; dropped before it is finished, it is given up.
struct Unfinished<'a> {
    runtime: &'a Runtime,
    key: &'a WorkflowKey,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.runtime
            .0
            .shards
            .of(self.key.slot())
            .lock()
            .load_failed(self.key);
    }
}

/// What memory says of a workflow.
enum LookUp {
    Ready,
    /// It is there, but not the run that is asked for.
    RunMissing(Generation),
    /// Memory is being made again: it says nothing.
    Recovering,
    /// It is there, with steps that were given up.
    Spoiled,
    Loading(tokio::sync::broadcast::Receiver<()>),
    /// The caller has to load it.
    Absent(Generation),
}

pub(crate) fn has_run(workflow: &Workflow, run_id: &str) -> bool {
    run_id.is_empty() || workflow.runs.contains_key(run_id)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Settings;
    use crate::testing::{Bed, start};

    /// Between a failed commit and the end of the recovery from it, neither memory nor the store's
    /// projections know what is durable: whoever looks then must not take anything from there.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_read_around_a_recovery_is_not_believed() {
        let bed = Bed::open(Settings {
            projection_interval: Duration::from_secs(3600),
            ..Settings::default()
        })
        .await;
        let run_id = bed.start(start("flow")).await;
        let (runtime, key) = (&bed.runtime, bed.key("flow"));
        let since = runtime.0.shards.of(key.slot()).lock().generation();
        let turn = runtime.0.projecting.lock().await;
        runtime.drop_memory(&mut || {});
        for run_id in ["", &run_id] {
            let found = runtime.look_up(&key, run_id);
            assert!(matches!(found, LookUp::Recovering));
        }
        // One that looked before memory was dropped: the store does not have the run.
        let named = runtime.load_named_run(&key, &run_id, since).await;
        assert_eq!(named.map_err(|error| error.to_string()), Ok(()));
        let outdated = runtime.load(&key).await.expect("read");
        assert_eq!(outdated.current, None);
        drop(turn);
        runtime.wait_for_recovery().await;
        runtime.project_all().await.expect("projected");
        {
            let mut shard = runtime.0.shards.of(key.slot()).lock();
            shard.take(&key);
            shard.loading(&key);
        }
        let finished = runtime.finish_loading(&key, Ok(outdated), since);
        assert!(finished.is_ok());
        runtime.0.shards.of(key.slot()).lock().load_failed(&key);
        assert!(!bed.history("flow", "").await.is_empty());
    }
}
