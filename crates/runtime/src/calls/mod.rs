//! What can be asked of the runtime, one file per group of calls. Each takes the request as the API
//! has it and gives back what the API answers; status codes are made at the server's edge.

pub mod account;
pub mod activities;
pub mod approvals;
pub mod control;
mod decide_again;
pub mod describe;
pub mod history;
pub mod pause;
pub mod polls;
pub mod principals;
pub mod query;
pub mod reset;
pub mod start;
pub mod tasks;
pub mod updates;
pub mod validate;

use steadfast_engine::proto::common::WorkflowExecution;

use crate::aggregate::WorkflowKey;
use crate::error::{Result, RuntimeError};
use crate::runtime::Runtime;

impl Runtime {
    /// The workflow and the run that a request names.
    pub(crate) fn target(
        &self,
        namespace: &str,
        execution: &Option<WorkflowExecution>,
    ) -> Result<(WorkflowKey, String)> {
        let namespace = self.namespaces().by_name(namespace)?;
        let Some(execution) = execution else {
            return Err(RuntimeError::invalid("Execution is not set on request."));
        };
        if execution.workflow_id.is_empty() {
            return Err(RuntimeError::invalid("WorkflowId is not set on request."));
        }
        validate::run_id(&execution.run_id)?;
        validate::length("WorkflowId", &execution.workflow_id, self.limits().id_bytes)?;
        let key = WorkflowKey::new(namespace.id.clone(), execution.workflow_id.clone());
        Ok((key, execution.run_id.clone()))
    }
}
