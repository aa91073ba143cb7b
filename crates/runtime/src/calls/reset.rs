//! Resetting a workflow to an earlier workflow task.

use bytes::Bytes;
use prost::Message;
use steadfast_engine::proto::history::HistoryEvent;
use steadfast_engine::proto::workflowservice::{
    ResetWorkflowExecutionRequest, ResetWorkflowExecutionResponse,
};
use steadfast_engine::reset::{ResetPlan, check_reset_plan, reset, validate_reset_point};
use steadfast_engine::state::{Branch, RunState};

use crate::aggregate::WorkflowKey;
use crate::calls::validate;
use crate::error::{Result, RuntimeError};
use crate::handout::HistoryPart;
use crate::permit::Permit;
use crate::runtime::Runtime;

/// How often a reset is tried anew because the workflow moved on while its history was read.
const ATTEMPTS: usize = 20;

/// Most runs that continued the one that is reset, whose signals are taken over.
const MAX_CHAIN: usize = 100;

impl Runtime {
    /// Makes a new run that goes on from an earlier workflow task, and makes it the current one.
    pub async fn reset_workflow(
        &self,
        permit: &Permit,
        request: ResetWorkflowExecutionRequest,
    ) -> Result<ResetWorkflowExecutionResponse> {
        let (key, run_id) = self.target(&request.namespace, &request.workflow_execution)?;
        validate::length("RequestId", &request.request_id, self.limits().id_bytes)?;
        for _ in 0..ATTEMPTS {
            if let Some(run_id) = self.try_reset(permit, &key, &run_id, &request).await? {
                return Ok(ResetWorkflowExecutionResponse { run_id });
            }
        }
        Err(RuntimeError::Unavailable(
            "the workflow keeps moving on: try the reset again".into(),
        ))
    }

    /// One attempt; none if the workflow moved on meanwhile.
    async fn try_reset(
        &self,
        permit: &Permit,
        key: &WorkflowKey,
        run_id: &str,
        request: &ResetWorkflowExecutionRequest,
    ) -> Result<Option<String>> {
        // A request that was done already has its run: the current one, begun by this request.
        let (base, done) = self
            .inspect(key, run_id, |workflow| {
                let base = workflow.named_live(run_id)?.run.state.clone();
                let done = workflow
                    .current_live()
                    .filter(|live| {
                        !request.request_id.is_empty()
                            && live.run.state.start_request_id == request.request_id
                    })
                    .map(|live| live.run.state.run_id.clone());
                Ok((base, done))
            })
            .await?;
        if done.is_some() {
            return Ok(done);
        }
        self.check_whole(key, &base.run_id).await?;
        validate_reset_point(&base, request)?;
        let history = self.whole_history(key, &base.run_id).await?;
        let (later, seen) = self.later_runs(key, &base).await?;
        let base_run_id = base.run_id.clone();
        self.transact(permit, key, &base_run_id, |workflow, cx| {
            let moved_on = workflow.current_live().is_some_and(|current| {
                let state = &current.run.state;
                state.is_running()
                    && seen.as_ref().is_none_or(|(run, next)| {
                        *run != state.run_id || *next != state.next_event_id
                    })
            });
            if moved_on {
                return Ok(None);
            }
            let finish = request.workflow_task_finish_event_id;
            let (before, after): (Vec<_>, Vec<_>) = history
                .iter()
                .cloned()
                .partition(|(event, _)| event.event_id < finish);
            let state = workflow.whole_live(&base_run_id)?.run.state.clone();
            let later = later.iter().cloned();
            let plan = ResetPlan {
                request: request.clone(),
                base_events: before,
                later_events: after
                    .into_iter()
                    .map(|(event, _)| event)
                    .chain(later)
                    .collect(),
                ancestors: ancestors(&state, finish - 1),
            };
            let pause = workflow
                .current_live()
                .and_then(|live| live.run.state.paused().cloned());
            // Nothing is terminated for a reset that cannot be done.
            check_reset_plan(&state, &plan)?;
            if let Some(current) = workflow
                .current_live()
                .filter(|live| live.run.state.is_running())
            {
                current.run.terminate_for_reset(cx, request)?;
            }
            let mut run = reset(cx, &state, plan)?;
            // A reset is no way out of a pause.
            run.follow_pause(cx, pause.as_ref());
            let new_run_id = run.state.run_id.clone();
            workflow
                .named_live(&base_run_id)?
                .run
                .note_reset(&new_run_id);
            cx.new_runs.push(run);
            Ok(Some(new_run_id))
        })
        .await
    }

    /// Events of the runs that continued a run, and the last of them with its next event.
    async fn later_runs(
        &self,
        key: &WorkflowKey,
        base: &RunState,
    ) -> Result<(Vec<HistoryEvent>, Option<(String, i64)>)> {
        let mut later = Vec::new();
        let mut last = (base.run_id.clone(), base.next_event_id);
        let mut next = base.successor_run_id.clone();
        for _ in 0..MAX_CHAIN {
            if next.is_empty() {
                break;
            }
            let run_id = std::mem::take(&mut next);
            // What it would take over from there is gone.
            self.check_whole(key, &run_id).await?;
            later.extend(
                self.whole_history(key, &run_id)
                    .await?
                    .into_iter()
                    .map(|(event, _)| event),
            );
            let (successor, next_event_id) = self
                .inspect(key, &run_id, |workflow| {
                    let state = &workflow.named_live(&run_id)?.run.state;
                    Ok((state.successor_run_id.clone(), state.next_event_id))
                })
                .await?;
            last = (run_id, next_event_id);
            next = successor;
        }
        let current = self
            .inspect(key, "", |workflow| {
                Ok(workflow
                    .current_live()
                    .map(|live| (live.run.state.run_id.clone(), live.run.state.next_event_id)))
            })
            .await?;
        // A current run outside of the chain (started after it ended) is only terminated.
        Ok((
            later,
            current.map(|current| if current.0 == last.0 { last } else { current }),
        ))
    }

    /// Refuses a run whose payloads are erased.
    async fn check_whole(&self, key: &WorkflowKey, run_id: &str) -> Result<()> {
        self.inspect(key, run_id, |workflow| {
            workflow.whole_live(run_id).map(|_| ())
        })
        .await
    }

    async fn whole_history(
        &self,
        key: &WorkflowKey,
        run_id: &str,
    ) -> Result<Vec<(HistoryEvent, Bytes)>> {
        let part = self
            .inspect(key, run_id, |workflow| {
                Ok(HistoryPart::of(workflow.named_live(run_id)?, 1))
            })
            .await?;
        let (events, _) = part.read(self, key, run_id, usize::MAX, usize::MAX).await?;
        Ok(events
            .into_iter()
            .map(|event| {
                let bytes = Bytes::from(event.encode_to_vec());
                (event, bytes)
            })
            .collect())
    }
}

/// Who owns the events up to `last`, oldest first.
fn ancestors(base: &RunState, last: i64) -> Vec<Branch> {
    let mut branches: Vec<Branch> = base
        .ancestors
        .iter()
        .filter(|branch| branch.last_event_id < last)
        .cloned()
        .collect();
    let inherited = base
        .ancestors
        .last()
        .map_or(0, |branch| branch.last_event_id);
    let owner = match last > inherited {
        true => base.run_id.clone(),
        // The point lies in what the base run itself inherited.
        false => base
            .ancestors
            .iter()
            .find(|branch| branch.last_event_id >= last)
            .map_or_else(|| base.run_id.clone(), |branch| branch.run_id.clone()),
    };
    branches.push(Branch {
        run_id: owner,
        last_event_id: last,
    });
    branches
}
