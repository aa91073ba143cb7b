//! Pausing, resuming and revoking sessions.

use steadfast_engine::pause::PauseRequest;
use steadfast_engine::proto::common::WorkflowExecution;
use steadfast_engine::proto::workflowservice::{
    PauseWorkflowExecutionRequest, UnpauseWorkflowExecutionRequest,
};

use crate::calls::validate;
use crate::error::{Result, RuntimeError};
use crate::permit::Permit;
use crate::runtime::Runtime;

impl Runtime {
    /// Pauses a run: nothing of it is handed out until it is resumed. The same request again is as if it
    /// had been made once.
    pub async fn pause_workflow(
        &self,
        permit: &Permit,
        request: PauseWorkflowExecutionRequest,
    ) -> Result<()> {
        let execution = execution(request.workflow_id, request.run_id);
        let (key, run_id) = self.target(&request.namespace, &execution)?;
        validate::length("RequestId", &request.request_id, self.limits().id_bytes)?;
        let pause = PauseRequest {
            identity: request.identity,
            reason: request.reason,
            request_id: request.request_id,
        };
        self.transact(permit, &key, &run_id, |workflow, cx| {
            let run = &mut workflow.named_live(&run_id)?.run;
            if let Some(paused) = run.state.paused() {
                let is_again =
                    paused.request_id == pause.request_id && !pause.request_id.is_empty();
                return match is_again {
                    true => Ok(()),
                    false => Err(RuntimeError::failed_precondition(
                        "workflow is already paused.",
                    )),
                };
            }
            run.pause(cx, pause)?;
            Ok(())
        })
        .await
    }

    /// Resumes a run: its tasks are offered again.
    pub async fn unpause_workflow(
        &self,
        permit: &Permit,
        request: UnpauseWorkflowExecutionRequest,
    ) -> Result<()> {
        let execution = execution(request.workflow_id, request.run_id);
        let (key, run_id) = self.target(&request.namespace, &execution)?;
        validate::length("RequestId", &request.request_id, self.limits().id_bytes)?;
        let resume = PauseRequest {
            identity: request.identity,
            reason: request.reason,
            request_id: request.request_id,
        };
        self.transact(permit, &key, &run_id, |workflow, cx| {
            let run = &mut workflow.named_live(&run_id)?.run;
            match run.resume(cx, resume)? {
                true => Ok(()),
                false => Err(RuntimeError::failed_precondition("workflow is not paused.")),
            }
        })
        .await
    }

    /// Ends a run for good, and all that it was given.
    pub async fn revoke_workflow(
        &self,
        permit: &Permit,
        namespace: &str,
        workflow_id: String,
        run_id: String,
        request: PauseRequest,
    ) -> Result<()> {
        let (key, run_id) = self.target(namespace, &execution(workflow_id, run_id))?;
        self.transact(permit, &key, &run_id, |workflow, cx| {
            Ok(workflow.named_live(&run_id)?.run.revoke(cx, request)?)
        })
        .await
    }
}

fn execution(workflow_id: String, run_id: String) -> Option<WorkflowExecution> {
    Some(WorkflowExecution {
        workflow_id,
        run_id,
    })
}
