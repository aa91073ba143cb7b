//! Updates: UpdateWorkflowExecution, PollWorkflowExecutionUpdate, and update-with-start.

use std::time::Duration;

use prost::Message;
use steadfast_engine::proto::common::WorkflowExecution;
use steadfast_engine::proto::enums::UpdateWorkflowExecutionLifecycleStage as Stage;
use steadfast_engine::proto::update::{Outcome, Request, UpdateRef, WaitPolicy};
use steadfast_engine::proto::workflowservice::{
    ExecuteMultiOperationRequest, ExecuteMultiOperationResponse,
    PollWorkflowExecutionUpdateRequest, PollWorkflowExecutionUpdateResponse,
    StartWorkflowExecutionResponse, UpdateWorkflowExecutionRequest,
    UpdateWorkflowExecutionResponse,
    execute_multi_operation_request::operation::Operation as Ask,
    execute_multi_operation_response::{Response as Answered, response::Response as Answer},
};
use steadfast_engine::update::UpdateView;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::aggregate::{LiveRun, WorkflowKey};
use crate::calls::start::{SoundStart, Started, start_in};
use crate::calls::validate;
use crate::error::{Result, RuntimeError};
use crate::permit::Permit;
use crate::runtime::Runtime;

/// How long a call waits for an update to get further.
const LONG_POLL: Duration = Duration::from_secs(20);

/// How far an update is, as a call answers it.
struct Progress {
    stage: Stage,
    outcome: Option<Outcome>,
}

impl Runtime {
    /// Sends an update and waits for the stage that the caller wants.
    pub async fn update_workflow(
        &self,
        permit: &Permit,
        request: UpdateWorkflowExecutionRequest,
        deadline: Option<Duration>,
    ) -> Result<UpdateWorkflowExecutionResponse> {
        let (key, run_id) = self.target(&request.namespace, &request.workflow_execution)?;
        let wanted = wanted_stage(&request.wait_policy)?;
        let update = self.check_update(request.request)?;
        let update_id = update_id(&update);
        let run_id = self
            .transact(permit, &key, &run_id, |workflow, cx| {
                let live =
                    workflow.named_live_of_chain(&run_id, &request.first_execution_run_id)?;
                admit(live, cx, update)?;
                Ok(live.run.state.run_id.clone())
            })
            .await?;
        let progress = self
            .await_update(&key, &run_id, &update_id, wanted, deadline)
            .await?;
        Ok(update_response(&key, run_id, update_id, progress))
    }

    /// Waits for an update that was sent before.
    pub async fn poll_update(
        &self,
        _permit: &Permit,
        request: PollWorkflowExecutionUpdateRequest,
        deadline: Option<Duration>,
    ) -> Result<PollWorkflowExecutionUpdateResponse> {
        let Some(update_ref) = request.update_ref else {
            return Err(RuntimeError::invalid("UpdateRef is not set on request."));
        };
        let (key, run_id) = self.target(&request.namespace, &update_ref.workflow_execution)?;
        let wanted = request
            .wait_policy
            .as_ref()
            .map_or(Stage::Unspecified, WaitPolicy::lifecycle_stage);
        let run_id = self
            .inspect(&key, &run_id, |workflow| {
                let live = workflow.whole_live(&run_id)?;
                match live.run.update_view(&update_ref.update_id) {
                    UpdateView::Unknown => Err(RuntimeError::not_found(format!(
                        "update \"{}\" not found",
                        update_ref.update_id
                    ))),
                    _ => Ok(live.run.state.run_id.clone()),
                }
            })
            .await?;
        let progress = self
            .await_update(&key, &run_id, &update_ref.update_id, wanted, deadline)
            .await?;
        Ok(PollWorkflowExecutionUpdateResponse {
            outcome: progress.outcome,
            stage: progress.stage as i32,
            update_ref: Some(UpdateRef {
                workflow_execution: Some(execution(&key, run_id)),
                update_id: update_ref.update_id,
            }),
        })
    }

    /// Starts a workflow, if it is not there, and updates it, in one transition.
    pub async fn execute_multi_operation(
        &self,
        permit: &Permit,
        request: ExecuteMultiOperationRequest,
        deadline: Option<Duration>,
    ) -> Result<ExecuteMultiOperationResponse> {
        let (start, update) = split(request)?;
        let wanted = wanted_stage(&update.wait_policy).map_err(second)?;
        let sound = self.check_start(start).map_err(first)?;
        let request = self.check_update(update.request).map_err(second)?;
        let update_id = update_id(&request);
        let key = sound.key.clone();
        let started = self
            .transact(permit, &key, "", |workflow, cx| {
                start_and_admit(workflow, cx, sound, request)
            })
            .await?;
        let run_id = started.run_id.clone();
        let progress = self
            .await_update(&key, &run_id, &update_id, wanted, deadline)
            .await
            .map_err(second)?;
        let start = StartWorkflowExecutionResponse {
            run_id: started.run_id,
            first_execution_run_id: started.first_run_id,
            started: started.is_new,
            status: started.status,
            ..Default::default()
        };
        let update = update_response(&key, run_id, update_id, progress);
        Ok(ExecuteMultiOperationResponse {
            responses: vec![
                Answered {
                    response: Some(Answer::StartWorkflow(start)),
                },
                Answered {
                    response: Some(Answer::UpdateWorkflow(update)),
                },
            ],
        })
    }

    /// Waits until an update has reached a stage, or the time is over: then answers how far it is.
    async fn await_update(
        &self,
        key: &WorkflowKey,
        run_id: &str,
        update_id: &str,
        wanted: Stage,
        deadline: Option<Duration>,
    ) -> Result<Progress> {
        let patience = deadline.map_or(LONG_POLL, |d| {
            LONG_POLL.min(d.saturating_sub(Duration::from_millis(500)))
        });
        let until = Instant::now() + patience;
        loop {
            let (progress, mut changed) = self
                .inspect(key, run_id, |workflow| {
                    let live = workflow.named_live(run_id)?;
                    Ok((progress(live, update_id)?, live.watch()))
                })
                .await?;
            if progress.stage >= wanted || self.is_stopping() {
                return Ok(progress);
            }
            if Instant::now() >= until {
                // A caller with less patience than a long poll has given up; others ask again.
                return match deadline.is_some_and(|deadline| deadline <= LONG_POLL) {
                    true => Err(RuntimeError::DeadlineExceeded(
                        "the update did not get far enough in time".into(),
                    )),
                    false => Ok(progress),
                };
            }
            self.wait_for_change(&mut changed, until).await;
        }
    }

    async fn wait_for_change(&self, changed: &mut watch::Receiver<u64>, until: Instant) {
        tokio::select! {
            // An error says that the run was let go of: look again.
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(until) => {}
            () = self.stopping() => {}
        }
    }

    fn check_update(&self, request: Option<Request>) -> Result<Request> {
        let Some(mut request) = request else {
            return Err(RuntimeError::invalid(
                "Update request is not set on request.",
            ));
        };
        let limits = self.limits();
        if request.meta.is_none() {
            return Err(RuntimeError::invalid("Update meta is not set on request."));
        }
        let name = request
            .input
            .as_ref()
            .map_or("", |input| input.name.as_str());
        validate::name("Update name", name, limits.id_bytes)?;
        validate::size("Update input", request.encoded_len(), limits.blob_bytes)?;
        let meta = request.meta.get_or_insert_default();
        validate::length("UpdateId", &meta.update_id, limits.id_bytes)?;
        if meta.update_id.is_empty() {
            meta.update_id = uuid::Uuid::new_v4().to_string();
        }
        Ok(request)
    }
}

fn start_and_admit(
    workflow: &mut crate::aggregate::Workflow,
    cx: &mut steadfast_engine::Cx<'_>,
    start: SoundStart,
    request: Request,
) -> Result<Started> {
    let (started, new) = start_in(workflow, cx, start).map_err(first)?;
    match new {
        Some(mut run) => {
            run.schedule_first_task(cx);
            run.admit_update(cx, request)
                .map_err(|error| second(error.into()))?;
            cx.new_runs.push(run);
        }
        None => {
            let live = workflow.named_live(&started.run_id).map_err(second)?;
            admit(live, cx, request).map_err(second)?;
        }
    }
    Ok(started)
}

fn admit(live: &mut LiveRun, cx: &mut steadfast_engine::Cx<'_>, request: Request) -> Result<()> {
    live.run.admit_update(cx, request)?;
    Ok(())
}

fn progress(live: &LiveRun, update_id: &str) -> Result<Progress> {
    match live.run.update_view(update_id) {
        UpdateView::Completed(outcome) => Ok(Progress {
            stage: Stage::Completed,
            outcome: Some(outcome),
        }),
        UpdateView::Accepted => Ok(Progress {
            stage: Stage::Accepted,
            outcome: None,
        }),
        UpdateView::Admitted => Ok(Progress {
            stage: Stage::Admitted,
            outcome: None,
        }),
        UpdateView::Aborted(abort) => Err(abort.error().into()),
        UpdateView::Unknown => Err(RuntimeError::Unavailable(
            "the update was lost before the workflow accepted it: send it again".into(),
        )),
    }
}

fn update_response(
    key: &WorkflowKey,
    run_id: String,
    update_id: String,
    progress: Progress,
) -> UpdateWorkflowExecutionResponse {
    UpdateWorkflowExecutionResponse {
        update_ref: Some(UpdateRef {
            workflow_execution: Some(execution(key, run_id)),
            update_id,
        }),
        outcome: progress.outcome,
        stage: progress.stage as i32,
        link: None,
    }
}

fn execution(key: &WorkflowKey, run_id: String) -> WorkflowExecution {
    WorkflowExecution {
        workflow_id: key.workflow_id.clone(),
        run_id,
    }
}

fn update_id(request: &Request) -> String {
    request
        .meta
        .as_ref()
        .map_or_else(String::new, |meta| meta.update_id.clone())
}

fn wanted_stage(policy: &Option<WaitPolicy>) -> Result<Stage> {
    match policy
        .as_ref()
        .map_or(Stage::Unspecified, WaitPolicy::lifecycle_stage)
    {
        Stage::Unspecified => Ok(Stage::Accepted),
        Stage::Admitted => Err(RuntimeError::PermissionDenied(
            "waiting for the stage UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_ADMITTED is not supported".into(),
        )),
        stage => Ok(stage),
    }
}

fn split(
    request: ExecuteMultiOperationRequest,
) -> Result<(
    steadfast_engine::proto::workflowservice::StartWorkflowExecutionRequest,
    UpdateWorkflowExecutionRequest,
)> {
    let namespace = request.namespace;
    let operations: [_; 2] = request
        .operations
        .try_into()
        .map_err(|_| RuntimeError::invalid("Operations have to be exactly [Start, Update]."))?;
    let [a, b] = operations.map(|operation| operation.operation);
    let (Some(Ask::StartWorkflow(start)), Some(Ask::UpdateWorkflow(update))) = (a, b) else {
        return Err(RuntimeError::invalid(
            "Operations have to be exactly [Start, Update].",
        ));
    };
    if start.namespace != namespace || update.namespace != namespace {
        return Err(RuntimeError::invalid(
            "All operations of a MultiOperation must be in its namespace.",
        ));
    }
    let workflow_id = update
        .workflow_execution
        .as_ref()
        .map_or("", |e| e.workflow_id.as_str());
    if workflow_id != start.workflow_id {
        return Err(second(RuntimeError::invalid(
            "WorkflowId is not consistent with previous operation(s).",
        )));
    }
    let delayed = steadfast_engine::time::span(&start.workflow_start_delay) > 0;
    if !start.cron_schedule.is_empty() || start.request_eager_execution || delayed {
        return Err(first(RuntimeError::invalid(
            "CronSchedule, WorkflowStartDelay and eager execution are not allowed in a MultiOperation.",
        )));
    }
    Ok((start, update))
}

/// The start failed: the update was not tried.
fn first(error: RuntimeError) -> RuntimeError {
    RuntimeError::MultiOperation(vec![Some(error), None])
}

/// The update failed.
fn second(error: RuntimeError) -> RuntimeError {
    RuntimeError::MultiOperation(vec![None, Some(error)])
}
