//! Erasing payloads: what a closed run carried goes, what happened stays.
//!
//! An erasure is an entry in the namespace's own chain, and a mark on the workflow, in one journal row.
//! From then on it happens: the projector replaces the run's rows by what is left of them in the very
//! transaction that puts the entry into the log, and a process that dies in between replays the row and
//! does the same. Last, old bytes in the store's files are overwritten, which the store remembers until
//! it is done.

use std::collections::HashSet;
use std::time::Duration;

use prost::Message;
use steadfast_engine::proto::common::WorkflowExecution;
use steadfast_engine::state::RunState;
use steadfast_ledger::entry::Note;
use steadfast_ledger::skeleton::{SaltKey, is_skeleton};
use steadfast_store::filter::Filter;
use steadfast_store::{ErasedRun, HistoryPage, RunRef, StoreError, VisibilityQuery};

use super::archive::salts_of;
use crate::aggregate::{LiveRun, Workflow, WorkflowKey};
use crate::calls::validate;
use crate::commit::end_process;
use crate::error::{Result, RuntimeError};
use crate::permit::Permit;
use crate::projector::visibility;
use crate::runtime::Runtime;

/// What an erasure is in the log.
pub(crate) const NOTE: &str = "evidence/erased";

/// Bytes of history read at a time, and runs listed.
const READ_BYTES: usize = 1 << 20;
const PAGE: usize = 500;

/// Longest reason.
const MAX_REASON: usize = 1000;

/// How often an erasure is tried anew because the workflow got another current run, or still has
/// messages to deliver; and the pause before that.
const ATTEMPTS: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// How often the end of a projection is waited for, and how long for the erasure before.
const ROUNDS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be erased.
#[derive(Clone, Debug, Default)]
pub struct Erasure {
    /// The workflow.
    pub workflow_id: String,
    /// One run of it, or all for an empty id.
    pub run_id: String,
    /// Why, for the log.
    pub reason: String,
}

/// What was erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Ids of the runs.
    pub run_ids: Vec<String>,
    /// Ids of runs that had been erased before.
    pub before: Vec<String>,
}

/// An erasure that was decided and has no row yet.
pub struct Decided {
    run_id: String,
    reason: String,
}

/// What is known of a run before it is erased.
struct Known {
    run_id: String,
    is_running: bool,
    is_erased: bool,
    /// Runs that its history begins with.
    bases: Vec<String>,
}

/// What to erase, in order.
struct Plan {
    /// The workflow's current run at that time: a reset would have made another one.
    current: Option<String>,
    /// Runs that are deleted, and whose history only runs that are erased begin with.
    bases: Vec<String>,
    runs: Vec<String>,
}

enum Outcome {
    Decided,
    Before,
    /// Look again.
    Moved,
    /// Messages to other runs are on their way.
    Busy,
}

impl Runtime {
    /// Erases the payloads of closed runs. When it returns, the erasure is in the log, and nothing of
    /// the payloads is left in the store's files. What was erased before is no error.
    pub async fn erase(
        &self,
        permit: &Permit,
        namespace: &str,
        erasure: Erasure,
    ) -> Result<Erased> {
        let execution = WorkflowExecution {
            workflow_id: erasure.workflow_id.clone(),
            run_id: erasure.run_id.clone(),
        };
        let (key, run_id) = self.target(namespace, &Some(execution))?;
        validate::length("Reason", &erasure.reason, MAX_REASON)?;
        if !self.0.settings.evidence {
            return Err(RuntimeError::failed_precondition(
                "this server keeps no log that an erasure could be in",
            ));
        }
        // One at a time: a run's whole history is in memory for a moment.
        let turn = tokio::time::timeout(PATIENCE, self.0.erasing.lock()).await;
        let _turn = turn.map_err(|_| {
            RuntimeError::Unavailable("another erasure takes long: try again later".into())
        })?;
        let wanted = self.wanted(&key, &run_id).await?;
        let mut erased = Erased::default();
        self.erase_runs(permit, &key, &wanted, &erasure.reason, &mut erased)
            .await?;
        self.overwrite_remains().await.map_err(|error| {
            RuntimeError::Unavailable(format!(
                "the payloads are erased, but old bytes in the store's files are not overwritten yet: \
                 {error}. Erase again, or restart the server"
            ))
        })?;
        Ok(erased)
    }

    async fn erase_runs(
        &self,
        permit: &Permit,
        key: &WorkflowKey,
        wanted: &[String],
        reason: &str,
        erased: &mut Erased,
    ) -> Result<()> {
        let mut plan = self.plan(key, wanted).await?;
        let mut attempts = 0;
        loop {
            let is_base = !plan.bases.is_empty();
            let of = match is_base {
                true => &mut plan.bases,
                false => &mut plan.runs,
            };
            let Some(run_id) = of.pop() else {
                return Ok(());
            };
            // What cannot be read cannot be erased: found out before anything is said to be.
            self.erased_run(key, &run_id).await?;
            let decided = self.decide_erasure(permit, key, &run_id, is_base, &plan.current, reason);
            match decided.await {
                Ok(Outcome::Decided) => {
                    self.wait_until_projected().await?;
                    if self.is_whole(key, &run_id).await? {
                        return Err(RuntimeError::Internal(format!(
                            "run {run_id} could not be erased: the server's log says why"
                        )));
                    }
                    erased.run_ids.push(run_id);
                }
                Ok(Outcome::Before) => erased.before.push(run_id),
                Ok(moved @ (Outcome::Moved | Outcome::Busy)) => {
                    attempts += 1;
                    if attempts > ATTEMPTS {
                        return Err(RuntimeError::Unavailable(format!(
                            "run {run_id} could not be erased, {}: try again",
                            match moved {
                                Outcome::Busy => "its messages to other workflows are on their way",
                                _ => "the workflow keeps moving on",
                            }
                        )));
                    }
                    tokio::time::sleep(PAUSE).await;
                    let done: HashSet<_> = erased.run_ids.iter().chain(&erased.before).collect();
                    let left = wanted.iter().filter(|of| !done.contains(of));
                    let left: Vec<String> = left.cloned().collect();
                    plan = self.plan(key, &left).await?;
                }
                // Retention was faster.
                Err(RuntimeError::Engine(steadfast_engine::Error::NotFound(_))) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The transition that makes the entry and marks the run.
    async fn decide_erasure(
        &self,
        permit: &Permit,
        key: &WorkflowKey,
        run_id: &str,
        is_base: bool,
        current: &Option<String>,
        reason: &str,
    ) -> Result<Outcome> {
        let named = if is_base { "" } else { run_id };
        self.transact(permit, key, named, |workflow, _| {
            if workflow.current != *current {
                return Ok(Outcome::Moved);
            }
            if !is_base {
                let live = workflow.named_live(run_id)?;
                if live.run.state.erased {
                    return Ok(Outcome::Before);
                }
                if live.run.state.is_running() {
                    return Err(open(key, run_id));
                }
                if !live.run.state.outbox.is_empty() {
                    return Ok(Outcome::Busy);
                }
            }
            if !workflow.erasing.iter().any(|of| of == run_id) {
                workflow.erasure = Some(Decided {
                    run_id: run_id.to_owned(),
                    reason: reason.to_owned(),
                });
            }
            Ok(Outcome::Decided)
        })
        .await
    }

    /// The ids of the runs that are asked for.
    async fn wanted(&self, key: &WorkflowKey, run_id: &str) -> Result<Vec<String>> {
        let known = self.runs_of(key).await?;
        let wanted = known
            .into_iter()
            .map(|of| of.run_id)
            .filter(|of| run_id.is_empty() || of == run_id);
        let wanted: Vec<String> = wanted.collect();
        match wanted.is_empty() {
            true => Err(RuntimeError::not_found(match run_id {
                "" => format!("there is no run of workflow {:?}", key.workflow_id),
                _ => format!("workflow {:?} has no run {run_id}", key.workflow_id),
            })),
            false => Ok(wanted),
        }
    }

    async fn plan(&self, key: &WorkflowKey, wanted: &[String]) -> Result<Plan> {
        let current = self
            .inspect(key, "", |workflow| Ok(workflow.current.clone()))
            .await?;
        let known = self.runs_of(key).await?;
        let is_wanted = |run_id: &String| wanted.contains(run_id);
        let (mine, others): (Vec<&Known>, Vec<&Known>) =
            known.iter().partition(|of| is_wanted(&of.run_id));
        if let Some(running) = mine.iter().find(|of| of.is_running) {
            return Err(open(key, &running.run_id));
        }
        let in_use = |run_id: &String| {
            let mut others = others.iter().filter(|of| !of.is_erased);
            others.find(|of| of.bases.contains(run_id))
        };
        for run in mine.iter().filter(|of| !of.is_erased) {
            if let Some(user) = in_use(&run.run_id) {
                return Err(RuntimeError::failed_precondition(format!(
                    "run {} was reset from run {}, and its history begins with it: erase all runs of \
                     workflow {:?} once they are closed",
                    user.run_id, run.run_id, key.workflow_id
                )));
            }
        }
        let mut bases = Vec::new();
        for base in mine.iter().flat_map(|of| &of.bases) {
            let is_deleted = known.iter().all(|of| of.run_id != *base);
            if is_deleted
                && !bases.contains(base)
                && in_use(base).is_none()
                && self.is_whole(key, base).await?
            {
                bases.push(base.clone());
            }
        }
        let runs = mine.iter().map(|of| of.run_id.clone()).collect();
        Ok(Plan {
            current,
            bases,
            runs,
        })
    }

    /// Whether a run, which may be deleted, has events that are not erased.
    async fn is_whole(&self, key: &WorkflowKey, run_id: &str) -> Result<bool> {
        let read = self
            .0
            .store
            .read_history(&key.namespace_id, run_id, 1, i64::MAX, 0);
        let first = read.await?;
        Ok(first.first().is_some_and(|(_, bytes)| !is_skeleton(bytes)))
    }

    /// All runs of a workflow that are not deleted.
    async fn runs_of(&self, key: &WorkflowKey) -> Result<Vec<Known>> {
        self.projected().await?;
        let mut known = Vec::new();
        let mut cursor = None;
        loop {
            let query = VisibilityQuery {
                namespace_id: key.namespace_id.clone(),
                filter: Filter::of_workflow(&key.workflow_id),
                page_size: PAGE,
                cursor,
            };
            let page = self.0.store.list_visibility(query).await?;
            for row in page.rows {
                if let Some(state) = self.state_of(&run_ref(key, &row.run_id)).await? {
                    known.push(Known {
                        is_running: state.is_running(),
                        is_erased: state.erased,
                        bases: state.ancestors.into_iter().map(|of| of.run_id).collect(),
                        run_id: state.run_id,
                    });
                }
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(known);
            }
        }
    }

    async fn state_of(&self, run: &RunRef) -> Result<Option<RunState>> {
        let Some(stored) = self.0.store.load_run(run).await? else {
            return Ok(None);
        };
        let state = RunState::decode(stored.snapshot.as_slice()).map_err(|error| {
            RuntimeError::Internal(format!("snapshot of run {}: {error}", run.run_id))
        })?;
        Ok(Some(state))
    }

    async fn wait_until_projected(&self) -> Result<()> {
        for _ in 0..ROUNDS {
            match self.projected().await {
                Err(RuntimeError::Unavailable(_)) => {}
                ended => return ended,
            }
        }
        Err(RuntimeError::Unavailable(
            "the erasure is decided and goes on, but takes long: erase again to see its end".into(),
        ))
    }

    /// What is left of a run; none if nothing has to change any more. All of the run is in the store.
    pub(crate) async fn erased_run(
        &self,
        key: &WorkflowKey,
        run_id: &str,
    ) -> Result<Option<ErasedRun>> {
        let store = &*self.0.store;
        let run = run_ref(key, run_id);
        let state = self.state_of(&run).await?;
        if state.as_ref().is_some_and(|state| state.erased) {
            return Ok(None);
        }
        // A run from before there was evidence has no salts: nothing else is made of these.
        let salts = salts_of(store, &run, state.as_ref()).await?;
        let salts = match salts {
            Some(salts) => salts,
            None => SaltKey(
                crate::clock::secret()
                    .as_ref()
                    .try_into()
                    .map_err(|_| RuntimeError::Internal("a secret of another length".into()))?,
            ),
        };
        let mut page = HistoryPage {
            first_event_id: 0,
            events: Vec::new(),
        };
        let mut next = 1;
        loop {
            let read = store.read_history(&key.namespace_id, run_id, next, i64::MAX, READ_BYTES);
            let events = read.await?;
            let Some((first, _)) = events.first() else {
                break;
            };
            if page.events.is_empty() {
                page.first_event_id = *first;
            }
            for (id, bytes) in events {
                next = id + 1;
                page.events.push(match is_skeleton(&bytes) {
                    true => bytes,
                    false => self.0.sealer.erase(&bytes, &salts, id)?,
                });
            }
        }
        let history = match page.events.is_empty() {
            true => Vec::new(),
            false => vec![page],
        };
        let namespace = self.0.namespaces.by_id(&key.namespace_id).ok();
        let state = state.map(|mut state| {
            state.erase();
            state
        });
        Ok(Some(ErasedRun {
            run,
            snapshot: state.as_ref().map(Message::encode_to_vec),
            history,
            visibility: state.map(|state| visibility(&state, namespace.as_deref())),
        }))
    }

    /// Makes old bytes of what was erased go. Also finishes what a crash interrupted.
    pub(crate) async fn overwrite_remains(&self) -> Result<()> {
        match self.0.store.overwrite_remains().await {
            Err(error @ (StoreError::SyncFailed(_) | StoreError::Corrupt(_))) => {
                end_process(&error)
            }
            ended => Ok(ended?),
        }
    }
}

impl Decided {
    /// The run.
    pub(crate) fn run_id(&self) -> &str {
        &self.run_id
    }

    /// What the log says about it.
    pub(crate) fn note<'a>(&'a self, workflow_id: &'a str) -> Note<'a> {
        Note {
            what: NOTE.into(),
            detail: self.reason.as_str().into(),
            workflow_id: workflow_id.into(),
            run_id: self.run_id.as_str().into(),
        }
    }
}

impl Workflow {
    /// The run that a call means, if its payloads are there.
    pub(crate) fn whole_live(&mut self, run_id: &str) -> Result<&mut LiveRun> {
        let id = match run_id {
            "" => self.current.clone().unwrap_or_default(),
            named => named.to_owned(),
        };
        let is_marked = self.erasing.contains(&id);
        let live = self.named_live(run_id)?;
        match is_marked || live.run.state.erased {
            true => Err(RuntimeError::failed_precondition(format!(
                "the payloads of run {id} were erased: its history shows what happened, but no worker \
                 can go through it again"
            ))),
            false => Ok(live),
        }
    }

    /// Runs that were marked are erased in the store.
    pub(crate) fn erased(&mut self, run_ids: &[String]) {
        self.erasing.retain(|of| !run_ids.contains(of));
        for run_id in run_ids {
            if let Some(live) = self.runs.get_mut(run_id) {
                live.run.state.erase();
                live.run.tail.clear();
                live.run.admitted.clear();
                live.run.rejected.clear();
                live.records.clear();
            }
        }
    }
}

fn run_ref(key: &WorkflowKey, run_id: &str) -> RunRef {
    RunRef {
        namespace_id: key.namespace_id.clone(),
        workflow_id: key.workflow_id.clone(),
        run_id: run_id.to_owned(),
    }
}

fn open(key: &WorkflowKey, run_id: &str) -> RuntimeError {
    RuntimeError::failed_precondition(format!(
        "run {run_id} of workflow {:?} is open, and its worker needs the payloads: let it end, or \
         terminate it, or name a run that is closed",
        key.workflow_id
    ))
}

#[cfg(test)]
mod tests;
