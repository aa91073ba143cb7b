//! The projector: writes what changed since the last time into the tables that everything but the
//! hot path reads.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message;
use steadfast_engine::Time;
use steadfast_engine::proto::enums::WorkflowExecutionStatus;
use steadfast_engine::state::RunState;
use steadfast_store::{
    ErasedRun, HistoryPage, PendingTask, ProjectionBatch, RecordPage, RunProjection, RunRef,
    StoreError, VisibilityRow,
};

use crate::aggregate::{LiveRun, Workflow, WorkflowKey};
use crate::commit::{Ticket, end_process};
use crate::error::{Result, RuntimeError};
use crate::evidence::Sequencer;
use crate::namespaces::{DEFAULT_RETENTION, Namespace};
use crate::runtime::Runtime;

/// Most runs in one batch: bounds the time that the store is busy with it.
const BATCH_RUNS: usize = 1000;

/// How long to wait after a failure.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What was taken of one workflow, to be marked as projected once it is.
struct Taken {
    key: WorkflowKey,
    runs: Vec<TakenRun>,
}

/// Runs of a workflow that are being erased.
struct Erasing {
    key: WorkflowKey,
    run_ids: Vec<String>,
}

/// How far a run was taken.
struct TakenRun {
    run_id: String,
    seq: u64,
    next_event_id: i64,
    n: u64,
}

impl Runtime {
    /// Projects until the server stops.
    pub(crate) async fn run_projector(self) {
        while !self.is_stopping() {
            tokio::select! {
                () = tokio::time::sleep(self.0.settings.projection_interval) => {}
                () = self.0.project_now.notified() => {}
            }
            if self.0.recovering.load(Ordering::Acquire) {
                continue;
            }
            if let Err(error) = self.project_all().await {
                tracing::warn!(%error, "projecting failed: trying again");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            self.evict();
        }
    }

    /// Waits until everything that is durable now can be found in the projections.
    pub(crate) async fn projected(&self) -> Result<()> {
        let head = self.committer().committed();
        let mut projected = self.0.projected.subscribe();
        if *projected.borrow() >= head {
            return Ok(());
        }
        self.0.project_now.notify_one();
        let wait = projected.wait_for(|position| *position >= head);
        match tokio::time::timeout(Duration::from_secs(8), wait).await {
            Ok(_) => Ok(()),
            Err(_) => Err(RuntimeError::Unavailable(
                "the projections are behind: try again".into(),
            )),
        }
    }

    /// Projects everything that was durable when it was called.
    pub(crate) async fn project_all(&self) -> Result<()> {
        let mut sequencer = self.0.projecting.lock().await;
        let head = self.committer().committed();
        let before = self.committer().ticket(head);
        // Looked at under the lock, which making memory again needs, and after the ticket: a commit that
        // failed while the lock was waited for has emptied memory, and a ticket of now does not show it.
        if self.0.recovering.load(Ordering::Acquire) {
            return Err(RuntimeError::Unavailable(
                "memory is being made again".into(),
            ));
        }
        if head == *self.0.projected.borrow() && !self.has_dirty() {
            return Ok(());
        }
        let mut erasing = Vec::new();
        let projected = self
            .project_changes(&mut sequencer, head, before, &mut erasing)
            .await;
        self.end_erasing(erasing, projected.is_ok());
        projected?;
        self.0.projected.send_replace(head);
        Ok(())
    }

    /// Projects what changed, and the entries of rows up to `head`.
    async fn project_changes(
        &self,
        sequencer: &mut Sequencer,
        head: u64,
        before: Ticket,
        erasing: &mut Vec<Erasing>,
    ) -> Result<()> {
        let unlogged = self.committer().unlogged(head);
        let mut integration = sequencer.integrate(&*self.0.store, unlogged).await?;
        let mut batch = ProjectionBatch::default();
        let mut taken = Vec::new();
        // What changes from here on is for the next time: nothing is taken twice.
        let mut keys = self.take_keys();
        while let Some(key) = keys.pop() {
            if let Err(error) = self.restore(&key).await {
                keys.push(key);
                self.give_keys_back(keys);
                self.take_back(taken, &batch.current_runs, batch.deleted);
                return Err(error);
            }
            // A lower bound: where the size is not to be had, zero is one too.
            let log_from = sequencer.size(&*self.0.store, &key.namespace_id).await;
            let log_from = log_from.unwrap_or(0);
            taken.extend(self.take(&key, log_from, &mut batch, erasing));
            if batch.runs.len() >= BATCH_RUNS {
                batch.position = *self.0.projected.borrow();
                let written = self.write(std::mem::take(&mut batch), std::mem::take(&mut taken));
                if let Err(error) = written.await {
                    self.give_keys_back(keys);
                    return Err(error);
                }
            }
        }
        if !erasing.is_empty() {
            // Erased is what is in the store: all of it has to be there.
            batch.position = *self.0.projected.borrow();
            self.write(std::mem::take(&mut batch), std::mem::take(&mut taken))
                .await?;
            batch.erased = self.erased_runs(erasing).await?;
        }
        if !self.committer().is_current(before) {
            // Memory was dropped while it was looked through: what was taken is not all there was.
            self.take_back(taken, &batch.current_runs, batch.deleted);
            return Err(RuntimeError::Unavailable("a commit failed".into()));
        }
        batch.position = head;
        batch.logs = std::mem::take(&mut integration.logs);
        if let Err(error) = self.write(batch, taken).await {
            // It may have been written all the same: only the store knows.
            sequencer.forget();
            return Err(error);
        }
        self.committer().logged(head);
        self.0
            .heads
            .send_modify(|heads| heads.extend(sequencer.keep(integration)));
        Ok(())
    }

    /// What is left of the runs that are being erased.
    async fn erased_runs(&self, erasing: &[Erasing]) -> Result<Vec<ErasedRun>> {
        let mut erased = Vec::new();
        for of in erasing {
            for run_id in &of.run_ids {
                match self.erased_run(&of.key, run_id).await {
                    Ok(left) => erased.extend(left),
                    // Damaged since it was decided. Nothing else waits for that.
                    Err(error @ RuntimeError::Internal(_)) => {
                        tracing::error!(%run_id, %error, "a run could not be erased");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(erased)
    }

    /// Tells workflows that their runs are erased, or that it is still to be done.
    fn end_erasing(&self, erasing: Vec<Erasing>, is_done: bool) {
        for Erasing { key, run_ids } in erasing {
            let mut shard = self.0.shards.of(key.slot()).lock();
            let Some((workflow, dirty)) = shard.ready_with_dirty(&key) else {
                continue;
            };
            if is_done {
                workflow.erased(&run_ids);
            } else if !std::mem::replace(&mut workflow.dirty, true) {
                dirty.push(key);
                continue;
            }
            if workflow.is_idle() && workflow.is_closed() {
                shard.take(&key);
            }
        }
    }

    fn has_dirty(&self) -> bool {
        self.0
            .shards
            .iter()
            .any(|shard| !shard.lock().dirty.is_empty())
    }

    /// Takes the lists of what changed.
    fn take_keys(&self) -> Vec<WorkflowKey> {
        self.0
            .shards
            .iter()
            .flat_map(|shard| std::mem::take(&mut shard.lock().dirty))
            .collect()
    }

    /// Gives back what was not taken up, if it is still there.
    fn give_keys_back(&self, keys: Vec<WorkflowKey>) {
        for key in keys {
            let mut shard = self.0.shards.of(key.slot()).lock();
            if let Some((workflow, dirty)) = shard.ready_with_dirty(&key)
                && workflow.dirty
            {
                dirty.push(key);
            }
        }
    }

    /// Takes a changed workflow into the batch.
    fn take(
        &self,
        key: &WorkflowKey,
        log_from: u64,
        batch: &mut ProjectionBatch,
        erasing: &mut Vec<Erasing>,
    ) -> Option<Taken> {
        let mut shard = self.0.shards.of(key.slot()).lock();
        let workflow = shard.ready(key)?;
        if !std::mem::take(&mut workflow.dirty) {
            return None;
        }
        if !workflow.erasing.is_empty() {
            erasing.push(Erasing {
                key: key.clone(),
                run_ids: workflow.erasing.clone(),
            });
        }
        Some(self.take_workflow(key, workflow, log_from, batch))
    }

    fn take_workflow(
        &self,
        key: &WorkflowKey,
        workflow: &mut Workflow,
        log_from: u64,
        batch: &mut ProjectionBatch,
    ) -> Taken {
        let namespace = self.0.namespaces.by_id(&key.namespace_id).ok();
        let mut runs = Vec::new();
        for (run_id, live) in &workflow.runs {
            if live.seq > live.projected_seq {
                let mut projection = project_run(key, live, namespace.as_deref());
                projection.records = record_page(live, log_from);
                batch.runs.push(projection);
                runs.push(TakenRun {
                    run_id: run_id.clone(),
                    seq: live.seq,
                    next_event_id: live.run.state.next_event_id,
                    n: live.run.state.n,
                });
            }
        }
        if std::mem::take(&mut workflow.current_changed) {
            batch.current_runs.push((
                key.namespace_id.clone(),
                key.workflow_id.clone(),
                workflow.current.clone(),
            ));
        }
        batch
            .deleted
            .extend(workflow.deleted.drain(..).map(|run_id| RunRef {
                namespace_id: key.namespace_id.clone(),
                workflow_id: key.workflow_id.clone(),
                run_id,
            }));
        Taken {
            key: key.clone(),
            runs,
        }
    }

    /// Writes a batch, and lets memory forget what is in it.
    async fn write(&self, batch: ProjectionBatch, taken: Vec<Taken>) -> Result<()> {
        // States may be ahead of the disk: what is projected must never be ahead of the journal.
        let newest = taken
            .iter()
            .flat_map(|taken| &taken.runs)
            .map(|run| run.seq)
            .max();
        let result = match newest {
            Some(seq) => self.committer().durable(self.committer().ticket(seq)).await,
            None => Ok(()),
        };
        let (current_runs, deleted) = (batch.current_runs.clone(), batch.deleted.clone());
        let result = match result {
            Ok(()) => self.write_or_find(batch).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            self.take_back(taken, &current_runs, deleted);
            return Err(error);
        }
        for of_workflow in taken {
            let mut shard = self.0.shards.of(of_workflow.key.slot()).lock();
            let Some(workflow) = shard.ready(&of_workflow.key) else {
                continue;
            };
            for taken in of_workflow.runs {
                if let Some(live) = workflow.runs.get_mut(&taken.run_id) {
                    live.projected_seq = live.projected_seq.max(taken.seq);
                    live.unprojected_event_id = live.unprojected_event_id.max(taken.next_event_id);
                    live.records.retain(|record| record.n > taken.n);
                    live.trim_tail();
                }
            }
            workflow.forget_predecessors();
            // Nothing will happen to it any more: who asks about it reads the store.
            if workflow.is_idle() && workflow.is_closed() {
                shard.take(&of_workflow.key);
            }
        }
        Ok(())
    }

    /// Writes a batch. One that fails may be there all the same, and must not be written again: its
    /// entries would be in the logs twice.
    async fn write_or_find(&self, batch: ProjectionBatch) -> Result<()> {
        let position = batch.position;
        let is_end = position > *self.0.projected.borrow();
        let first = batch.runs.first().map(|run| (run.run.clone(), run.seq));
        let error = match self.0.store.project(batch).await {
            Ok(()) => return Ok(()),
            // As in the journal: what a checkpoint lost would be missed after the trimming.
            Err(error @ (StoreError::SyncFailed(_) | StoreError::Corrupt(_))) => {
                end_process(&error)
            }
            // The server ends: the next start finds what is there.
            Err(error @ StoreError::Closed) => return Err(error.into()),
            Err(error) => error,
        };
        let found = match (is_end, first) {
            (true, _) => self
                .0
                .store
                .projected_position()
                .await
                .map(|at| at >= position),
            // Only the last batch moves the position: the others are known by what is in them.
            (false, Some((run, seq))) => {
                let stored = self.0.store.load_run(&run).await;
                stored.map(|stored| stored.is_some_and(|stored| stored.seq >= seq))
            }
            // What is left (deletions, current runs) may be written twice.
            (false, None) => Ok(false),
        };
        match found {
            Ok(true) => {
                tracing::warn!(%error, "a projection was written, and something after it failed");
                Ok(())
            }
            Ok(false) => Err(error.into()),
            Err(unreadable) => end_process(&unreadable),
        }
    }

    /// A batch failed: all of it is still to be done.
    fn take_back(
        &self,
        taken: Vec<Taken>,
        current_runs: &[(String, String, Option<String>)],
        deleted: Vec<RunRef>,
    ) {
        for of_workflow in taken {
            let key = of_workflow.key;
            let mut shard = self.0.shards.of(key.slot()).lock();
            let Some((workflow, dirty)) = shard.ready_with_dirty(&key) else {
                continue;
            };
            workflow.current_changed |= current_runs
                .iter()
                .any(|(namespace, id, _)| *namespace == key.namespace_id && *id == key.workflow_id);
            workflow.deleted.extend(
                deleted
                    .iter()
                    .filter(|run| {
                        run.namespace_id == key.namespace_id && run.workflow_id == key.workflow_id
                    })
                    .map(|run| run.run_id.clone()),
            );
            if !workflow.dirty {
                workflow.dirty = true;
                dirty.push(key);
            }
        }
    }

    fn evict(&self) {
        let keep = self.0.settings.live_workflows / self.0.shards.count();
        for shard in self.0.shards.iter() {
            let mut shard = shard.lock();
            if shard.len() > keep {
                shard.evict(keep);
            }
        }
    }
}

impl Workflow {
    /// Lets go of closed runs that others have followed, and that nobody uses.
    fn forget_predecessors(&mut self) {
        let current = self.current.as_deref();
        self.runs.retain(|run_id, live| {
            let state = &live.run.state;
            let done = !state.is_running() && state.outbox.is_empty() && live.is_idle();
            current == Some(run_id.as_str()) || !done
        });
    }
}

impl LiveRun {
    /// Keeps of the projected events only those that the next workflow task will need.
    fn trim_tail(&mut self) {
        let needed = self.run.state.previous_started_event_id + 1;
        let keep = match self.run.state.is_running() {
            true => needed.min(self.unprojected_event_id),
            false => self.unprojected_event_id,
        };
        while self.run.tail.front().is_some_and(|(id, _)| *id < keep) {
            self.run.tail.pop_front();
        }
    }
}

/// Everything that is written about a run.
fn project_run(key: &WorkflowKey, live: &LiveRun, namespace: Option<&Namespace>) -> RunProjection {
    let state = &live.run.state;
    let retention = namespace.map_or(DEFAULT_RETENTION, |namespace| namespace.retention);
    let events: Vec<Vec<u8>> = live
        .run
        .tail
        .iter()
        .filter(|(id, _)| *id >= live.unprojected_event_id)
        .map(|(_, bytes)| bytes.to_vec())
        .collect();
    let history = match events.is_empty() {
        true => Vec::new(),
        false => vec![HistoryPage {
            first_event_id: live.unprojected_event_id,
            events,
        }],
    };
    RunProjection {
        run: RunRef {
            namespace_id: key.namespace_id.clone(),
            workflow_id: key.workflow_id.clone(),
            run_id: state.run_id.clone(),
        },
        slot: key.slot(),
        snapshot: state.encode_to_vec(),
        seq: live.seq,
        wake_at: wake_at(live),
        history,
        history_parents: match live.projected_seq {
            0 => state
                .ancestors
                .iter()
                .map(|branch| branch.run_id.clone())
                .collect(),
            _ => Vec::new(),
        },
        visibility: Some(visibility(state, namespace)),
        pending_tasks: pending_tasks(live),
        delete_at: (!state.is_running()).then(|| state.close_time.saturating_add(retention)),
        records: None,
    }
}

/// The records that are not projected yet.
fn record_page(live: &LiveRun, log_from: u64) -> Option<RecordPage> {
    Some(RecordPage {
        first_n: live.records.first()?.n,
        log_from,
        records: live.records.iter().map(|of| of.bytes.clone()).collect(),
    })
}

/// When the run has to be loaded even if nobody asks: at once if it has messages to deliver.
fn wake_at(live: &LiveRun) -> Option<Time> {
    let state = &live.run.state;
    match state.outbox.is_empty() || state.paused().is_some() {
        true => live.run.next_wake(),
        false => Some(state.time),
    }
}

/// The kind of pending task that waits for people. There are no pollers for it.
pub(crate) const APPROVALS: i32 = 3;

fn pending_tasks(live: &LiveRun) -> Vec<PendingTask> {
    use steadfast_engine::Effect;
    let state = &live.run.state;
    let mut pending: Vec<PendingTask> = Vec::new();
    for effect in live.run.waiting_tasks() {
        let (kind, task_queue, since) = match effect {
            Effect::WorkflowTask { task_queue, .. } => (
                1,
                task_queue,
                state
                    .workflow_task
                    .as_ref()
                    .map_or(0, |task| task.scheduled_time),
            ),
            Effect::ActivityTask {
                task_queue,
                scheduled_event_id,
                ..
            } => {
                let since = state.activities.get(&scheduled_event_id);
                (
                    2,
                    task_queue,
                    since.map_or(0, |activity| activity.attempt().scheduled_time),
                )
            }
            _ => continue,
        };
        match pending
            .iter_mut()
            .find(|task| task.kind == kind && task.task_queue == task_queue)
        {
            Some(task) => {
                task.count += 1;
                task.since = task.since.min(since);
            }
            None => pending.push(PendingTask {
                kind,
                task_queue,
                count: 1,
                since,
            }),
        }
    }
    let approvals = || live.run.state.waiting().map(|(_, _, approval)| approval);
    if let (true, Some(since)) = (
        state.is_running(),
        approvals().map(|approval| approval.requested).min(),
    ) {
        pending.push(PendingTask {
            kind: APPROVALS,
            task_queue: String::new(),
            count: u32::try_from(approvals().count()).unwrap_or(u32::MAX),
            since,
        });
    }
    pending
}

pub(crate) fn visibility(state: &RunState, namespace: Option<&Namespace>) -> VisibilityRow {
    let start = state.start();
    let closed = !state.is_running();
    let execution = |of: &Option<steadfast_engine::proto::common::WorkflowExecution>| {
        of.as_ref()
            .map(|of| (of.workflow_id.clone(), of.run_id.clone()))
            .unwrap_or_default()
    };
    let (parent_workflow_id, parent_run_id) = execution(&start.parent_workflow_execution);
    let (root_workflow_id, root_run_id) = match &start.root_workflow_execution {
        Some(root) => (root.workflow_id.clone(), root.run_id.clone()),
        None => (state.workflow_id.clone(), state.run_id.clone()),
    };
    let search_attributes = state.search_attributes.clone().unwrap_or_default();
    let status = WorkflowExecutionStatus::try_from(state.status)
        .unwrap_or(WorkflowExecutionStatus::Unspecified);
    VisibilityRow {
        workflow_id: state.workflow_id.clone(),
        run_id: state.run_id.clone(),
        workflow_type: state.workflow_type().to_owned(),
        status: status as i32,
        start_time: state.start_time,
        execution_time: state.execution_time,
        close_time: closed.then_some(state.close_time),
        history_length: if closed { state.next_event_id - 1 } else { 0 },
        history_size_bytes: if closed { state.history_bytes } else { 0 },
        state_transition_count: if closed {
            i64::try_from(state.n).unwrap_or(i64::MAX)
        } else {
            0
        },
        task_queue: state.task_queue().to_owned(),
        parent_workflow_id,
        parent_run_id,
        root_workflow_id,
        root_run_id,
        first_run_id: start.first_execution_run_id.clone(),
        search_attributes: crate::visibility::searchable(namespace, &search_attributes),
        search_attributes_bytes: search_attributes.encode_to_vec(),
        memo_bytes: state
            .memo
            .as_ref()
            .map_or_else(Vec::new, Message::encode_to_vec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::testing::{Bed, start};

    /// A projection that waits for its turn while a commit fails finds memory empty: it must not
    /// take that for all there is.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_emptied_memory_is_not_projected() {
        let settings = Settings {
            projection_interval: Duration::from_secs(3600),
            ..Settings::default()
        };
        let bed = Bed::open(settings.clone()).await;
        bed.start(start("flow")).await;
        let turn = bed.runtime.0.projecting.lock().await;
        let runtime = bed.runtime.clone();
        let projection = tokio::spawn(async move { runtime.project_all().await });
        // Until it waits for the lock, before memory is made again does.
        tokio::time::sleep(Duration::from_millis(50)).await;
        bed.runtime.drop_memory(&mut || {});
        drop(turn);
        let projected = projection.await.expect("ends");
        assert!(projected.is_err(), "nothing could be projected");
        assert!(!bed.history("flow", "").await.is_empty());
        let store = bed.stop().await;
        let bed = Bed::reopen(store, settings).await;
        assert!(!bed.history("flow", "").await.is_empty());
    }
}
