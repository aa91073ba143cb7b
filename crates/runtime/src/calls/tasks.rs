//! What workers answer to workflow tasks.

use steadfast_engine::commands::{Completed, Completion};
use steadfast_engine::proto::enums::WorkflowTaskFailedCause;
use steadfast_engine::proto::workflowservice::{
    RespondWorkflowTaskCompletedRequest, RespondWorkflowTaskCompletedResponse,
    RespondWorkflowTaskFailedRequest,
};
use steadfast_engine::workflow_task::Poller;

use crate::aggregate::{LiveRun, WorkflowKey};
use crate::error::{Result, RuntimeError};
use crate::handout::{ActivityHandout, WorkflowTaskHandout};
use crate::permit::Permit;
use crate::runtime::Runtime;
use crate::token::TaskToken;

/// What goes back with the answer.
enum Answer {
    Done {
        task: Option<Box<WorkflowTaskHandout>>,
        activities: Vec<ActivityHandout>,
        reset_history_event_id: i64,
    },
    /// The answer broke the rules; that is recorded, and the worker is told.
    Refused(RuntimeError),
}

impl Runtime {
    /// A worker completes a workflow task.
    pub async fn complete_workflow_task(
        &self,
        permit: &Permit,
        mut request: RespondWorkflowTaskCompletedRequest,
    ) -> Result<RespondWorkflowTaskCompletedResponse> {
        let token = TaskToken::read(&request.task_token)?;
        let namespace = self.namespace_of(&token, &request.namespace)?;
        if request.intermediate_page || request.page_number > 0 {
            return Err(RuntimeError::failed_precondition(
                "workflow task completion pagination is not supported by this server",
            ));
        }
        let refusal = crate::visibility::check_commands(&namespace, &request);
        crate::visibility::type_commands(&namespace, &mut request);
        let key = token.key();
        let results = std::mem::take(&mut request.query_results);
        let poller = Poller {
            identity: request.identity.clone(),
            request_id: uuid::Uuid::new_v4().to_string(),
            worker_version: request.worker_version_stamp.clone(),
        };
        let answer = self
            .transact(permit, &key, &token.run_id, |workflow, cx| {
                let live = workflow.named_live(&token.run_id)?;
                let claim = token.task_claim();
                let completion =
                    live.run
                        .complete_workflow_task(cx, &claim, request, Some(&poller), refusal)?;
                let answer = match completion {
                    Completion::Done(done) => {
                        live.answer_queries(results);
                        give(&key, live, done)
                    }
                    Completion::Refused(error) => {
                        live.requeue_queries();
                        Answer::Refused(match error {
                            steadfast_engine::Error::BadCommand { message, .. } => {
                                RuntimeError::invalid(message)
                            }
                            error => error.into(),
                        })
                    }
                    Completion::HeartbeatTimedOut => {
                        live.requeue_queries();
                        Answer::Refused(RuntimeError::not_found("workflow task heartbeat timeout"))
                    }
                };
                self.settle_queries(&key, live);
                Ok(answer)
            })
            .await?;
        match answer {
            Answer::Refused(error) => Err(error),
            Answer::Done {
                task,
                activities,
                reset_history_event_id,
            } => {
                let workflow_task = match task {
                    Some(task) => Some(task.into_response(self).await?),
                    None => None,
                };
                let namespace = namespace.name.clone();
                Ok(RespondWorkflowTaskCompletedResponse {
                    workflow_task,
                    activity_tasks: activities
                        .into_iter()
                        .map(|activity| activity.into_response(self, namespace.clone()))
                        .collect(),
                    reset_history_event_id,
                })
            }
        }
    }

    /// A worker reports that it failed a workflow task.
    pub async fn fail_workflow_task(
        &self,
        permit: &Permit,
        request: RespondWorkflowTaskFailedRequest,
    ) -> Result<()> {
        let token = TaskToken::read(&request.task_token)?;
        self.namespace_of(&token, &request.namespace)?;
        let key = token.key();
        let cause = WorkflowTaskFailedCause::try_from(request.cause)
            .unwrap_or(WorkflowTaskFailedCause::Unspecified);
        self.transact(permit, &key, &token.run_id, |workflow, cx| {
            let live = workflow.named_live(&token.run_id)?;
            if cause == WorkflowTaskFailedCause::GrpcMessageTooLarge {
                // It would be too large again and again: nothing but an end helps.
                live.run.claimed_task(&token.task_claim())?;
                let reason = "the worker's answer exceeds the gRPC message size limit".to_owned();
                live.run
                    .terminate(cx, reason, None, "steadfast".into(), Vec::new())?;
                return Ok(());
            }
            live.run.fail_workflow_task(
                cx,
                &token.task_claim(),
                cause,
                request.failure,
                request.identity,
                request.binary_checksum,
            )?;
            live.requeue_queries();
            Ok(())
        })
        .await
    }

    /// The namespace of a token, which must be the one that the request names, if it does.
    pub(crate) fn namespace_of(
        &self,
        token: &TaskToken,
        named: &str,
    ) -> Result<std::sync::Arc<crate::namespaces::Namespace>> {
        self.namespace_of_token(&token.namespace_id, named)
    }

    /// The same for the namespace's id in a token of any kind.
    pub(crate) fn namespace_of_token(
        &self,
        id: &str,
        named: &str,
    ) -> Result<std::sync::Arc<crate::namespaces::Namespace>> {
        let namespace = self.namespaces().by_id(id)?;
        if !named.is_empty() && namespace.name != named {
            self.namespaces().by_name(named)?;
            return Err(RuntimeError::invalid(
                "Operation requested with a token from a different namespace.",
            ));
        }
        Ok(namespace)
    }
}

/// What the worker gets with its answer.
fn give(key: &WorkflowKey, live: &mut LiveRun, done: Completed) -> Answer {
    let activities = done
        .eager_activities
        .iter()
        .filter_map(|id| ActivityHandout::prepare(key, live, *id))
        .collect();
    let task = done.next_task.map(|mut task| {
        // The worker that answered has the run cached: it needs only what is new.
        task.sticky = true;
        Box::new(WorkflowTaskHandout::prepare(key, live, &task))
    });
    Answer::Done {
        task,
        activities,
        reset_history_event_id: done.reset_history_event_id,
    }
}
