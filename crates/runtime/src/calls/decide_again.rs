//! Other policies are in force: what waits for people is decided again, without a vote.

use std::time::Duration;

use steadfast_engine::Error as EngineError;

use crate::aggregate::WorkflowKey;
use crate::error::{Result, RuntimeError};
use crate::permit::Permit;
use crate::projector::APPROVALS;
use crate::runtime::Runtime;

/// Runs of a namespace that are looked at: those that wait longest.
const MAX_RUNS: usize = 100_000;

/// A transition that was under way when the policies changed may have been decided by those before. So what
/// waits is looked at twice, with this between.
const SETTLING: Duration = Duration::from_secs(1);

/// How often it is tried, if it cannot be done.
const ATTEMPTS: u32 = 30;

impl Runtime {
    /// Decides again what waits, after each change of what governs, until the server stops.
    pub(crate) async fn run_decisions_again(self) {
        loop {
            self.0.governor_changed.notified().await;
            let mut looks_left = 2;
            for _ in 0..ATTEMPTS {
                match self.decide_waiting_again().await {
                    Ok(()) => looks_left -= 1,
                    Err(error) => tracing::warn!(
                        %error,
                        "not all that waits for approval could be decided by the policies in force"
                    ),
                }
                if looks_left == 0 {
                    break;
                }
                tokio::time::sleep(SETTLING).await;
            }
        }
    }

    /// Decides again what waits by other policies than those in force. When it returns, what was decided is
    /// durable. Errors with the last error of a run, after all of them were tried.
    pub(crate) async fn decide_waiting_again(&self) -> Result<()> {
        self.projected().await?;
        let permit = Permit::internal("policy");
        let store = self.store();
        let mut failed = None;
        for namespace in self.namespaces().all() {
            let runs = store.runs_with_pending_tasks(&namespace.id, APPROVALS, "", MAX_RUNS);
            for run in runs.await? {
                let key = WorkflowKey::new(run.namespace_id, run.workflow_id);
                let decided = self.transact(&permit, &key, &run.run_id, |workflow, cx| {
                    workflow.named_live(&run.run_id)?.run.decide_again(cx);
                    Ok(())
                });
                match decided.await {
                    // It may be gone by now.
                    Ok(()) | Err(RuntimeError::Engine(EngineError::NotFound(_))) => {}
                    Err(error) => failed = Some(error),
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
