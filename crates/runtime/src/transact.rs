//! One transition: find the workflow, let the engine decide, queue the record, say when it counts.

use std::sync::atomic::Ordering;
use std::time::Duration;

use steadfast_engine::{Cx, Effect, RunState, Transition};

use crate::aggregate::{LiveRun, Workflow, WorkflowKey};
use crate::clock::RandomIds;
use crate::commit::{AfterCommit, Ticket};
use crate::error::{Result, RuntimeError};
use crate::evidence;
use crate::loading::has_run;
use crate::permit::Permit;
use crate::reserve::Reserved;
use crate::runtime::Runtime;

impl Runtime {
    /// Runs `decide` on a workflow and waits until what it decided, and what it saw, is durable.
    ///
    /// `run_id` names a run that must be in memory besides the current one (empty for none). What is
    /// due by now happens first. If the process dies at the await, the transition is either wholly
    /// in the journal or not at all, and the caller knows nothing yet. If `decide` fails, nothing of
    /// what it did is recorded.
    pub(crate) async fn transact<R>(
        &self,
        permit: &Permit,
        key: &WorkflowKey,
        run_id: &str,
        decide: impl FnOnce(&mut Workflow, &mut Cx<'_>) -> Result<R>,
    ) -> Result<R> {
        let (result, ticket) = self.transact_early(permit, key, run_id, decide).await?;
        self.committer().durable(ticket).await?;
        result
    }

    /// The same without the wait: returns the ticket of what the answer depends on.
    pub(crate) async fn transact_early<R>(
        &self,
        permit: &Permit,
        key: &WorkflowKey,
        run_id: &str,
        decide: impl FnOnce(&mut Workflow, &mut Cx<'_>) -> Result<R>,
    ) -> Result<(Result<R>, Ticket)> {
        self.wait_for_room().await?;
        loop {
            self.ensure_loaded(key, run_id).await?;
            let slot = key.slot();
            let mut shard = self.0.shards.of(slot).lock();
            if self.0.recovering.load(Ordering::Acquire) {
                continue;
            }
            let Some((workflow, dirty)) = shard.ready_with_dirty(key) else {
                continue;
            };
            if workflow.spoiled || !has_run(workflow, run_id) {
                continue;
            }
            let decided = self.decide(permit, key, workflow, decide);
            if workflow.dirty && !decided.was_dirty {
                dirty.push(key.clone());
            }
            return Ok((decided.result, decided.ticket));
        }
    }

    /// Looks at a workflow without changing it, and waits until what was seen is durable.
    pub(crate) async fn inspect<R>(
        &self,
        key: &WorkflowKey,
        run_id: &str,
        look: impl FnOnce(&mut Workflow) -> Result<R>,
    ) -> Result<R> {
        self.transact(&Permit::internal("read"), key, run_id, |workflow, _| {
            look(workflow)
        })
        .await
    }

    fn decide<R>(
        &self,
        permit: &Permit,
        key: &WorkflowKey,
        workflow: &mut Workflow,
        decide: impl FnOnce(&mut Workflow, &mut Cx<'_>) -> Result<R>,
    ) -> Decided<R> {
        let was_dirty = workflow.dirty;
        let mut ids = RandomIds;
        let newest = workflow
            .runs
            .values()
            .map(|live| live.run.state.time)
            .max()
            .unwrap_or(0);
        let now = crate::clock::now().max(newest);
        workflow.used = now;
        let namespace = self.0.namespaces.name(&key.namespace_id);
        let mut cx = Cx::new(
            now,
            &mut ids,
            &self.0.settings.limits,
            &self.0.namespaces,
            &namespace,
            permit.cause(),
        );
        let governor = self.0.governor.read().clone();
        cx.governor = governor.as_deref().map(|of| of as _);
        cx.credentials = self.0.issuer.get().map(|of| of.terms());
        self.0.disabled.rest(workflow, &mut cx);
        wake_what_is_due(workflow, &mut cx);
        let before = changes(workflow, &cx);
        let result = decide(workflow, &mut cx);
        if result.is_err() && changes(workflow, &cx) > before {
            // Steps are applied as they are made, and cannot be taken back one by one.
            workflow.spoiled = true;
            workflow.dirty = true;
            return Decided {
                result,
                ticket: self.committer().ticket(workflow.last_seq),
                was_dirty,
            };
        }
        for live in workflow.runs.values_mut() {
            live.run.enforce_limits(&mut cx);
        }
        self.0.disabled.rest(workflow, &mut cx);
        let ticket = self.record(key, workflow, cx);
        Decided {
            result,
            ticket,
            was_dirty,
        }
    }

    /// Makes one journal row of all that was decided, with pollers that wait already matched.
    fn record(&self, key: &WorkflowKey, workflow: &mut Workflow, mut cx: Cx<'_>) -> Ticket {
        let erasure = workflow.erasure.take();
        let mut transition = Transition {
            namespace_id: key.namespace_id.clone(),
            workflow_id: key.workflow_id.clone(),
            ..Transition::default()
        };
        for state in workflow.take_deletions() {
            if self.0.settings.evidence {
                let entry = evidence::deletion(cx.namespace, &state, cx.now, &cx.cause);
                transition.entries.push(entry);
            }
            transition.deleted_run_ids.push(state.run_id);
        }
        for run in std::mem::take(&mut cx.new_runs) {
            let run_id = run.state.run_id.clone();
            transition.current_run_id.clone_from(&run_id);
            workflow.current = Some(run_id.clone());
            workflow.current_changed = true;
            let live = Box::new(LiveRun::new(run, 0));
            workflow.runs.insert(run_id, live);
        }
        if !transition.deleted_run_ids.is_empty() && workflow.current.is_none() {
            transition.no_current_run = true;
            workflow.current_changed = true;
        }
        let mut effects = std::mem::take(&mut cx.effects);
        effects.retain(|effect| !workflow.withholds(effect));
        // What happens to an update need not leave a record: a rejection does not.
        for effect in &effects {
            if let Effect::UpdateChanged { run_id, .. } = effect
                && let Some(changed) = workflow
                    .runs
                    .get(run_id)
                    .and_then(|live| live.changed.as_ref())
            {
                changed.send_modify(|changes| *changes += 1);
            }
        }
        let (reserved, effects) = self.match_waiting_pollers(key, workflow, &mut cx, effects);
        for live in workflow.runs.values_mut() {
            transition.records.extend(live.run.take_record(&cx));
        }
        // A new run's first record comes after the record of the run that it follows.
        transition.records.sort_by_key(|record| record.n == 1);
        if self.0.settings.evidence {
            let records = &mut transition.records;
            evidence::seal(&self.0.sealer, cx.namespace, workflow, records);
        }
        for live in workflow.runs.values_mut() {
            live.tell_record();
        }
        let after = self.after_commit(key.clone(), reserved, effects);
        let is_empty = transition.records.is_empty()
            && transition.deleted_run_ids.is_empty()
            && !transition.no_current_run
            && erasure.is_none();
        if is_empty {
            if let Some(after) = after {
                self.run_when_durable(self.committer().ticket(workflow.last_seq), after);
            }
        } else {
            let after = after.unwrap_or_else(|| Box::new(|| {}));
            self.queue_row(key, workflow, transition, erasure, after, &cx);
        }
        self.arm_timers(key, workflow);
        self.committer().ticket(workflow.last_seq)
    }

    /// Queues the journal row of a transition, and keeps in memory what is in it.
    fn queue_row(
        &self,
        key: &WorkflowKey,
        workflow: &mut Workflow,
        mut transition: Transition,
        erasure: Option<evidence::erase::Decided>,
        after: AfterCommit,
        cx: &Cx<'_>,
    ) {
        let seq = match erasure {
            None => self.append(key, workflow, &transition, after),
            Some(erasure) => {
                let run_id = erasure.run_id().to_owned();
                workflow.erasing.push(run_id.clone());
                transition.erased_run_ids.push(run_id);
                let (id, note) = (&key.namespace_id, erasure.note(&key.workflow_id));
                let append = |entry| {
                    transition.notes.push(entry);
                    self.append(key, workflow, &transition, after)
                };
                let chains = &self.0.chains;
                chains.note(id, cx.namespace, note, &cx.cause, cx.now, append)
            }
        };
        self.0.transitions.fetch_add(1, Ordering::Relaxed);
        workflow.last_seq = seq;
        workflow.dirty = true;
        for record in transition.records {
            if let Some(live) = workflow.runs.get_mut(&record.run_id) {
                live.seq = seq;
                live.archive(record);
                if let Some(changed) = &live.changed {
                    changed.send_modify(|changes| *changes += 1);
                }
            }
        }
    }

    fn append(
        &self,
        key: &WorkflowKey,
        workflow: &Workflow,
        transition: &Transition,
        after: AfterCommit,
    ) -> u64 {
        // A run has one record in a transition: its state holds the hash of that one's entry.
        let leaves = evidence::leaves(transition, |record| {
            let live = workflow.runs.get(&record.run_id)?;
            evidence::as_hash(&live.run.state.entry_hash)
        });
        let row = transition.encode_row();
        self.committer().append(key.slot(), row, leaves, after)
    }

    /// What is done once the row is durable.
    fn after_commit(
        &self,
        key: WorkflowKey,
        reserved: Vec<Reserved>,
        effects: Vec<Effect>,
    ) -> Option<AfterCommit> {
        if reserved.is_empty() && effects.is_empty() {
            return None;
        }
        let runtime = self.clone();
        Some(Box::new(move || {
            for Reserved { waiting, delivery } in reserved {
                // A poller that went away in this moment leaves its task to its time-out, as one
                // that dies a moment later does.
                let _ = waiting.sender.send(delivery);
            }
            for effect in effects {
                runtime.perform(&key, effect);
            }
        }))
    }

    fn run_when_durable(&self, ticket: Ticket, after: AfterCommit) {
        if self.committer().is_durable(ticket) {
            // The shard's lock is held here, and what runs may need it: let it run elsewhere.
            self.0.runtime.spawn(async move { after() });
            return;
        }
        let runtime = self.clone();
        self.0.runtime.spawn(async move {
            if runtime.committer().durable(ticket).await.is_ok() {
                after();
            }
        });
    }

    /// Slows callers while the disk or the projector is far behind.
    pub(crate) async fn wait_for_room(&self) -> Result<()> {
        const ROUNDS: u32 = 200;
        for _ in 0..ROUNDS {
            let lag = self
                .committer()
                .committed()
                .saturating_sub(*self.0.projected.borrow());
            if lag < self.0.settings.projection_lag && !self.committer().is_behind() {
                return Ok(());
            }
            self.0.project_now.notify_one();
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Err(RuntimeError::Unavailable(
            "the store cannot keep up: try again later".into(),
        ))
    }
}

struct Decided<R> {
    result: Result<R>,
    ticket: Ticket,
    was_dirty: bool,
}

impl Workflow {
    /// Takes deleted runs out of memory: their last states.
    fn take_deletions(&mut self) -> Vec<RunState> {
        let gone = self.deleted.iter();
        gone.filter_map(|run_id| self.runs.remove(run_id))
            .map(|live| live.run.state)
            .collect()
    }
}

/// Counts what is going to be recorded.
fn changes(workflow: &Workflow, cx: &Cx<'_>) -> usize {
    let steps = workflow.runs.values().map(|live| live.run.step_count());
    steps.sum::<usize>()
        + cx.new_runs.len()
        + workflow.deleted.len()
        + usize::from(workflow.erasure.is_some())
}

/// Does what is due. Nobody's call causes that, whoever happens to call.
fn wake_what_is_due(workflow: &mut Workflow, cx: &mut Cx<'_>) {
    let caller = std::mem::replace(&mut cx.cause, Permit::internal("timer").cause());
    for live in workflow.runs.values_mut() {
        if live.run.next_wake().is_some_and(|at| at <= cx.now) {
            live.run.wake(cx);
        }
    }
    cx.cause = caller;
}

#[cfg(test)]
mod tests {
    use steadfast_engine::proto::enums::{EventType, WorkflowIdConflictPolicy};
    use steadfast_engine::proto::workflowservice::SignalWithStartWorkflowExecutionRequest;
    use steadfast_engine::{Error as EngineError, Limits, Run};

    use super::*;
    use crate::Settings;
    use crate::testing::{Bed, start};

    async fn open(signals: i64) -> Bed {
        Bed::open(Settings {
            limits: Limits {
                signals,
                ..Limits::default()
            },
            ..Settings::default()
        })
        .await
    }

    async fn types(bed: &Bed) -> Vec<EventType> {
        let events = bed.history("flow", "").await;
        events.iter().map(|event| event.event_type()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_decision_did_before_it_failed_is_not_there() {
        let bed = open(100).await;
        let run_id = bed.start(start("flow")).await;
        let key = bed.key("flow");
        let mut expected = types(&bed).await;
        for round in 0..20 {
            // Rows that are neither projected nor, perhaps, durable when the decision fails.
            bed.signal("flow", 10).await.expect("signalled");
            expected.push(EventType::WorkflowExecutionSignaled);
            let (failed, _) = bed
                .runtime
                .transact_early(&bed.permit, &key, "", |workflow, cx| {
                    let run = &mut workflow.current_live().expect("there").run;
                    if round % 2 == 0 {
                        let end = "it does not end".to_owned();
                        run.terminate(cx, end, None, String::new(), Vec::new())?;
                    } else {
                        run.signal(cx, Default::default())?;
                        let run = Run::begin(cx, Default::default());
                        cx.new_runs.push(run);
                    }
                    Err::<(), _>(RuntimeError::invalid("no"))
                })
                .await
                .expect("decided");
            assert!(matches!(
                failed,
                Err(RuntimeError::Engine(EngineError::InvalidArgument(_)))
            ));
            match round % 3 {
                0 => bed.runtime.project_all().await.expect("projected"),
                1 => assert_eq!(types(&bed).await, expected, "{round}"),
                _ => {}
            }
        }
        assert_eq!(types(&bed).await, expected);
        assert_eq!(bed.history("flow", &run_id).await.len(), expected.len());
        // Nor is it on disk, in the projections or in the journal.
        let store = bed.stop().await;
        let bed = Bed::reopen(store, Settings::default()).await;
        assert_eq!(types(&bed).await, expected);
        bed.answer([]).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_refused_signal_that_was_to_start_a_workflow_ends_none() {
        let bed = open(0).await;
        bed.start(start("flow")).await;
        let before = types(&bed).await;
        let start = start("flow");
        let request = SignalWithStartWorkflowExecutionRequest {
            namespace: start.namespace,
            workflow_id: start.workflow_id,
            workflow_type: start.workflow_type,
            task_queue: start.task_queue,
            signal_name: "one too many".into(),
            workflow_id_conflict_policy: WorkflowIdConflictPolicy::TerminateExisting as i32,
            ..Default::default()
        };
        let refused = bed.runtime.signal_with_start(&bed.permit, request).await;
        assert!(matches!(
            refused.map(|_| ()),
            Err(RuntimeError::Engine(EngineError::ResourceExhausted(_)))
        ));
        assert_eq!(types(&bed).await, before);
    }
}
