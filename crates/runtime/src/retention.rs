//! Retention: closed runs are deleted when their namespace says so, and deleted namespaces are
//! emptied.

use std::time::Duration;

use steadfast_engine::proto::enums::NamespaceState;
use steadfast_store::RunRef;

use crate::aggregate::WorkflowKey;
use crate::error::Result;
use crate::permit::Permit;
use crate::runtime::Runtime;

/// Runs deleted at a time.
const BATCH: usize = 500;

impl Runtime {
    /// Deletes what is expired until the server stops.
    pub(crate) async fn run_retention(self) {
        loop {
            if let Err(error) = self.expire().await {
                tracing::warn!(%error, "deleting expired runs failed: trying again later");
            }
            tokio::time::sleep(
                self.0
                    .settings
                    .retention_interval
                    .max(Duration::from_millis(100)),
            )
            .await;
        }
    }

    async fn expire(&self) -> Result<()> {
        loop {
            let expired = self
                .0
                .store
                .expired_runs(crate::clock::now(), BATCH)
                .await?;
            self.delete_runs(&expired, false).await?;
            if expired.len() < BATCH {
                break;
            }
        }
        for namespace in self.namespaces().all() {
            if namespace.state == NamespaceState::Deleted as i32 {
                self.empty_namespace(&namespace.id).await?;
            }
        }
        Ok(())
    }

    async fn empty_namespace(&self, id: &str) -> Result<()> {
        loop {
            self.projected().await?;
            let runs = self.0.store.runs_of_namespace(id, BATCH).await?;
            if runs.is_empty() {
                return self.namespaces().remove(&*self.0.store, id).await;
            }
            self.delete_runs(&runs, true).await?;
        }
    }

    /// Deletes runs; with `running`, those that still run are terminated first.
    async fn delete_runs(&self, runs: &[RunRef], running: bool) -> Result<()> {
        let permit = Permit::internal("retention");
        for run in runs {
            let key = WorkflowKey::new(run.namespace_id.clone(), run.workflow_id.clone());
            if running {
                self.terminate_for_deletion(&permit, &key, &run.run_id)
                    .await?;
            }
            match self.delete_run(&permit, &key, &run.run_id).await {
                Ok(()) => {}
                Err(crate::RuntimeError::Engine(steadfast_engine::Error::NotFound(_))) => {}
                Err(error) => return Err(error),
            }
        }
        // Deleting is not done before the rows are gone: the next look must not find them again.
        if runs.is_empty() {
            Ok(())
        } else {
            self.projected().await
        }
    }
}
