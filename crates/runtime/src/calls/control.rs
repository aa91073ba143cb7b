//! Signals, cancel requests, termination, deletion, and letting go of a worker's cache.

use prost::Message;
use steadfast_engine::proto::workflowservice::{
    DeleteWorkflowExecutionRequest, RequestCancelWorkflowExecutionRequest,
    ResetStickyTaskQueueRequest, SignalWorkflowExecutionRequest, TerminateWorkflowExecutionRequest,
};
use steadfast_engine::signal::{CancelRequest, Signal};

use crate::aggregate::WorkflowKey;
use crate::calls::validate;
use crate::error::{Result, RuntimeError};
use crate::permit::Permit;
use crate::runtime::Runtime;

impl Runtime {
    /// Delivers a signal.
    pub async fn signal_workflow(
        &self,
        permit: &Permit,
        request: SignalWorkflowExecutionRequest,
    ) -> Result<()> {
        let (key, run_id) = self.target(&request.namespace, &request.workflow_execution)?;
        let limits = self.limits();
        validate::name("SignalName", &request.signal_name, limits.id_bytes)?;
        validate::length("RequestId", &request.request_id, limits.id_bytes)?;
        let bytes = request.input.as_ref().map_or(0, Message::encoded_len);
        validate::size("Signal input", bytes, limits.blob_bytes)?;
        let signal = Signal {
            name: request.signal_name,
            input: request.input,
            identity: request.identity,
            header: request.header,
            request_id: request.request_id,
            external: None,
            links: request.links,
        };
        self.transact(permit, &key, &run_id, |workflow, cx| {
            Ok(workflow.named_live(&run_id)?.run.signal(cx, signal)?)
        })
        .await
    }

    /// Asks a workflow to cancel itself.
    pub async fn cancel_workflow(
        &self,
        permit: &Permit,
        request: RequestCancelWorkflowExecutionRequest,
    ) -> Result<()> {
        let (key, run_id) = self.target(&request.namespace, &request.workflow_execution)?;
        validate::run_id(&request.first_execution_run_id)?;
        let cancel = CancelRequest {
            reason: request.reason,
            identity: request.identity,
            request_id: request.request_id,
            external: None,
            links: request.links,
        };
        self.transact(permit, &key, &run_id, |workflow, cx| {
            let live = workflow.named_live_of_chain(&run_id, &request.first_execution_run_id)?;
            if !live.run.state.is_running() {
                // It does what was asked for already.
                return Ok(());
            }
            Ok(live.run.request_cancel(cx, cancel)?)
        })
        .await
    }

    /// Terminates a workflow.
    pub async fn terminate_workflow(
        &self,
        permit: &Permit,
        request: TerminateWorkflowExecutionRequest,
    ) -> Result<()> {
        let (key, run_id) = self.target(&request.namespace, &request.workflow_execution)?;
        validate::run_id(&request.first_execution_run_id)?;
        self.transact(permit, &key, &run_id, |workflow, cx| {
            let live = workflow.named_live_of_chain(&run_id, &request.first_execution_run_id)?;
            let TerminateWorkflowExecutionRequest {
                mut reason,
                details,
                mut identity,
                links,
                ..
            } = request;
            if reason.is_empty() {
                reason = "terminated by user via frontend".into();
            }
            if identity.is_empty() {
                identity = "frontend-service".into();
            }
            Ok(live.run.terminate(cx, reason, details, identity, links)?)
        })
        .await
    }

    /// Deletes a run; a running one is terminated first.
    pub async fn delete_workflow(
        &self,
        permit: &Permit,
        request: DeleteWorkflowExecutionRequest,
    ) -> Result<()> {
        let (key, run_id) = self.target(&request.namespace, &request.workflow_execution)?;
        let run_id = self.terminate_for_deletion(permit, &key, &run_id).await?;
        self.delete_run(permit, &key, &run_id).await
    }

    /// Terminates a run if it is running, because it is to be deleted. Returns its id.
    pub(crate) async fn terminate_for_deletion(
        &self,
        permit: &Permit,
        key: &WorkflowKey,
        run_id: &str,
    ) -> Result<String> {
        self.transact(permit, key, run_id, |workflow, cx| {
            let live = workflow.named_live(run_id)?;
            if live.run.state.is_running() {
                let reason = "Delete workflow execution".to_owned();
                live.run
                    .terminate(cx, reason, None, "steadfast".into(), Vec::new())?;
            }
            Ok(live.run.state.run_id.clone())
        })
        .await
    }

    /// Deletes a closed run and all that belongs to it.
    pub(crate) async fn delete_run(
        &self,
        permit: &Permit,
        key: &WorkflowKey,
        run_id: &str,
    ) -> Result<()> {
        self.transact(permit, key, run_id, |workflow, _| {
            if workflow.named_live(run_id)?.run.state.is_running() {
                return Err(RuntimeError::failed_precondition(
                    "a running workflow is not deleted",
                ));
            }
            workflow.deleted.push(run_id.to_owned());
            if workflow.current.as_deref() == Some(run_id) {
                workflow.current = None;
            }
            Ok(())
        })
        .await
    }

    /// A worker lets go of a run that it had cached.
    pub async fn reset_sticky_task_queue(
        &self,
        permit: &Permit,
        request: ResetStickyTaskQueueRequest,
    ) -> Result<()> {
        let (key, run_id) = self.target(&request.namespace, &request.execution)?;
        self.transact(permit, &key, &run_id, |workflow, _| {
            let live = workflow.named_live(&run_id)?;
            if !live.run.state.is_running() {
                return Err(steadfast_engine::Error::completed().into());
            }
            live.run.reset_sticky();
            Ok(())
        })
        .await
    }
}
