//! Backlogs beyond memory: when a poller comes to a queue whose tasks wait in the store, their runs
//! are loaded, and offer them.

use steadfast_store::RunRef;

use crate::aggregate::WorkflowKey;
use crate::error::Result;
use crate::matching::QueueKey;
use crate::runtime::Runtime;

/// Most runs loaded at a time.
const BATCH: usize = 500;

impl Runtime {
    /// Loads the next of a queue's backlog.
    pub(crate) async fn prefetch(&self, queue: &QueueKey) -> Result<()> {
        // Tasks of runs that are not projected yet are found only after they are.
        self.projected().await?;
        let runs = self
            .0
            .store
            .runs_with_pending_tasks(&queue.namespace_id, queue.kind.number(), &queue.name, BATCH)
            .await?;
        if runs.len() < BATCH {
            self.0.matching.set_overflow(queue, false);
        }
        for run in runs {
            if let Err(error) = self.load_for_tasks(&run).await {
                tracing::warn!(%error, run_id = %run.run_id, "a run with waiting tasks could not be loaded");
            }
        }
        Ok(())
    }

    async fn load_for_tasks(&self, run: &RunRef) -> Result<()> {
        let key = WorkflowKey::new(run.namespace_id.clone(), run.workflow_id.clone());
        self.inspect(&key, &run.run_id, |_| Ok(())).await?;
        self.offer_outstanding(&key);
        Ok(())
    }
}
