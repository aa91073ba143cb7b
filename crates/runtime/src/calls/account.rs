//! What a run's records say beyond its history: who caused each change, every attempt of a tool call,
//! what policies decided, and how people voted.

use steadfast_engine::RunRecord;
use steadfast_engine::proto::common::WorkflowExecution;
use steadfast_engine::record::{ActivityApproval, ActivityAttempt, Cause, Decision, StepKind};
use steadfast_store::RunRef;

use crate::error::Result;
use crate::evidence::archive::Records;
use crate::permit::Permit;
use crate::projector::APPROVALS;
use crate::runtime::Runtime;

/// A record of a run, as far as it says more than its events.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Its number within the run, which is that of its entry in the log.
    pub n: u64,
    /// When.
    pub time: i64,
    /// Who and what caused it.
    pub cause: Option<Cause>,
    /// The ids of its events: from the first, to before the second.
    pub events: (i64, i64),
    /// What it says besides.
    pub changes: Vec<Change>,
}

/// What a record says that no event says.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An attempt was handed out, or the one before it ended.
    Attempt(Box<ActivityAttempt>),
    /// A policy decided.
    Decision(Decision),
    /// An approval was asked for, voted on, or given.
    Approval(ActivityApproval),
}

impl Runtime {
    /// The last `limit` records of a run, in order, as of now. Whoever shows them has read the history, which
    /// leaves the entry of a read where reads leave one.
    pub async fn account(
        &self,
        _permit: &Permit,
        namespace: &str,
        workflow_id: &str,
        run_id: &str,
        limit: u64,
    ) -> Result<Vec<Recorded>> {
        let execution = WorkflowExecution {
            workflow_id: workflow_id.to_owned(),
            run_id: run_id.to_owned(),
        };
        let (key, run_id) = self.target(namespace, &Some(execution))?;
        let (run_id, last, end) = self
            .inspect(&key, &run_id, |workflow| {
                let state = &workflow.named_live(&run_id)?.run.state;
                Ok((state.run_id.clone(), state.n, state.next_event_id))
            })
            .await?;
        self.projected().await?;
        let run = RunRef {
            namespace_id: key.namespace_id,
            workflow_id: key.workflow_id,
            run_id,
        };
        let first = last.saturating_sub(limit).max(1);
        let mut records = Records::from(&**self.store(), run, first);
        let mut kept = Vec::new();
        while let Some(record) = records.next().await? {
            if record.n > last {
                break;
            }
            kept.push(recorded(record));
        }
        // Counted from the end: records do not say which events they have, only how many.
        let mut next = end;
        for record in kept.iter_mut().rev() {
            let count = record.events.1;
            record.events = (next - count, next);
            next -= count;
        }
        Ok(kept)
    }

    /// How many sessions of a namespace wait for people, counted up to `limit`.
    pub async fn sessions_that_wait(
        &self,
        _permit: &Permit,
        namespace: &str,
        limit: usize,
    ) -> Result<usize> {
        let namespace_id = self.namespaces().by_name(namespace)?.id.clone();
        let store = self.store();
        let runs = store.runs_with_pending_tasks(&namespace_id, APPROVALS, "", limit);
        Ok(runs.await?.len())
    }
}

/// With the number of its events in place of their ids.
fn recorded(record: RunRecord) -> Recorded {
    let mut changes = Vec::new();
    let mut count = 0;
    for step in record.steps {
        match step.kind {
            Some(StepKind::Event(_)) => count += 1,
            Some(StepKind::Flush(flush)) => {
                count += i64::try_from(flush.events.len()).unwrap_or_default();
            }
            Some(StepKind::Attempt(of)) => changes.push(Change::Attempt(Box::new(of))),
            Some(StepKind::Decision(of)) => changes.push(Change::Decision(of)),
            Some(StepKind::Approval(of)) => changes.push(Change::Approval(of)),
            _ => {}
        }
    }
    Recorded {
        n: record.n,
        time: record.time,
        cause: record.cause,
        events: (0, count),
        changes,
    }
}
