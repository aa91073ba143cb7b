//! What workers and others say about activities: results, failures, heartbeats; by token and by id.

use prost::Message;
use steadfast_engine::activity::{ActivityClaim, HeartbeatAnswer, Outcome};
use steadfast_engine::proto::common::Payloads;
use steadfast_engine::proto::failure::{Failure, failure::FailureInfo};
use steadfast_engine::proto::workflowservice::{
    RecordActivityTaskHeartbeatByIdRequest, RecordActivityTaskHeartbeatRequest,
    RespondActivityTaskCanceledByIdRequest, RespondActivityTaskCanceledRequest,
    RespondActivityTaskCompletedByIdRequest, RespondActivityTaskCompletedRequest,
    RespondActivityTaskFailedByIdRequest, RespondActivityTaskFailedRequest,
};

use crate::aggregate::WorkflowKey;
use crate::error::{Result, RuntimeError};
use crate::permit::Permit;
use crate::runtime::Runtime;
use crate::token::TaskToken;

/// Which activity a call is about.
enum Which {
    Token(TaskToken),
    Id {
        key: WorkflowKey,
        run_id: String,
        activity_id: String,
    },
}

impl Which {
    fn key(&self) -> WorkflowKey {
        match self {
            Self::Token(token) => token.key(),
            Self::Id { key, .. } => key.clone(),
        }
    }

    fn run_id(&self) -> &str {
        match self {
            Self::Token(token) => &token.run_id,
            Self::Id { run_id, .. } => run_id,
        }
    }
}

impl Runtime {
    /// An activity completed.
    pub async fn complete_activity(
        &self,
        permit: &Permit,
        request: RespondActivityTaskCompletedRequest,
    ) -> Result<()> {
        let which = self.activity_by_token(&request.task_token, &request.namespace)?;
        let outcome = self.completed(request.result);
        self.end_activity(permit, which, outcome, request.identity)
            .await
    }

    /// An activity completed, by its id.
    pub async fn complete_activity_by_id(
        &self,
        permit: &Permit,
        request: RespondActivityTaskCompletedByIdRequest,
    ) -> Result<()> {
        let which = self.activity_by_id(
            &request.namespace,
            request.workflow_id,
            request.run_id,
            request.activity_id,
        )?;
        let outcome = self.completed(request.result);
        self.end_activity(permit, which, outcome, request.identity)
            .await
    }

    /// An activity failed.
    pub async fn fail_activity(
        &self,
        permit: &Permit,
        request: RespondActivityTaskFailedRequest,
    ) -> Result<()> {
        let which = self.activity_by_token(&request.task_token, &request.namespace)?;
        check_failure(&request.failure)?;
        let failure = self.bounded_failure(request.failure);
        let outcome = Outcome::Failed(failure, request.last_heartbeat_details);
        self.end_activity(permit, which, outcome, request.identity)
            .await
    }

    /// An activity failed, by its id.
    pub async fn fail_activity_by_id(
        &self,
        permit: &Permit,
        request: RespondActivityTaskFailedByIdRequest,
    ) -> Result<()> {
        let which = self.activity_by_id(
            &request.namespace,
            request.workflow_id,
            request.run_id,
            request.activity_id,
        )?;
        let failure = self.bounded_failure(request.failure);
        let outcome = Outcome::Failed(failure, request.last_heartbeat_details);
        self.end_activity(permit, which, outcome, request.identity)
            .await
    }

    /// An activity was cancelled.
    pub async fn cancel_activity(
        &self,
        permit: &Permit,
        request: RespondActivityTaskCanceledRequest,
    ) -> Result<()> {
        let which = self.activity_by_token(&request.task_token, &request.namespace)?;
        self.end_activity(
            permit,
            which,
            Outcome::Canceled(request.details),
            request.identity,
        )
        .await
    }

    /// An activity was cancelled, by its id.
    pub async fn cancel_activity_by_id(
        &self,
        permit: &Permit,
        request: RespondActivityTaskCanceledByIdRequest,
    ) -> Result<()> {
        let which = self.activity_by_id(
            &request.namespace,
            request.workflow_id,
            request.run_id,
            request.activity_id,
        )?;
        self.end_activity(
            permit,
            which,
            Outcome::Canceled(request.details),
            request.identity,
        )
        .await
    }

    /// An activity lives.
    pub async fn heartbeat_activity(
        &self,
        permit: &Permit,
        request: RecordActivityTaskHeartbeatRequest,
    ) -> Result<HeartbeatAnswer> {
        let which = self.activity_by_token(&request.task_token, &request.namespace)?;
        self.heartbeat(permit, which, request.details).await
    }

    /// An activity lives, by its id.
    pub async fn heartbeat_activity_by_id(
        &self,
        permit: &Permit,
        request: RecordActivityTaskHeartbeatByIdRequest,
    ) -> Result<HeartbeatAnswer> {
        let which = self.activity_by_id(
            &request.namespace,
            request.workflow_id,
            request.run_id,
            request.activity_id,
        )?;
        self.heartbeat(permit, which, request.details).await
    }

    async fn end_activity(
        &self,
        permit: &Permit,
        which: Which,
        outcome: Outcome,
        identity: String,
    ) -> Result<()> {
        let key = which.key();
        self.transact(permit, &key, which.run_id(), |workflow, cx| {
            let live = workflow.named_live(which.run_id())?;
            let claim = claim(&live.run, &which)?;
            Ok(live.run.end_activity(cx, &claim, outcome, identity)?)
        })
        .await
    }

    async fn heartbeat(
        &self,
        permit: &Permit,
        which: Which,
        details: Option<Payloads>,
    ) -> Result<HeartbeatAnswer> {
        let key = which.key();
        let limit = self.limits().blob_bytes;
        let bytes = details.as_ref().map_or(0, Message::encoded_len);
        let answer = self
            .transact(permit, &key, which.run_id(), |workflow, cx| {
                let live = workflow.named_live(which.run_id())?;
                let claim = claim(&live.run, &which)?;
                if bytes > limit {
                    let failure = too_large("Heartbeat details of the activity", bytes, limit);
                    let outcome = Outcome::Failed(Some(failure), None);
                    live.run.end_activity(cx, &claim, outcome, String::new())?;
                    return Ok(None);
                }
                Ok(Some(live.run.heartbeat_activity(cx, &claim, details)?))
            })
            .await?;
        // The attempt has failed: the worker is told to stop it.
        Ok(answer.unwrap_or(HeartbeatAnswer {
            cancel_requested: true,
            paused: false,
        }))
    }

    fn activity_by_token(&self, token: &[u8], namespace: &str) -> Result<Which> {
        let token = TaskToken::read(token)?;
        self.namespace_of(&token, namespace)?;
        Ok(Which::Token(token))
    }

    fn activity_by_id(
        &self,
        namespace: &str,
        workflow_id: String,
        run_id: String,
        activity_id: String,
    ) -> Result<Which> {
        if activity_id.is_empty() {
            return Err(RuntimeError::invalid("ActivityId is not set on request."));
        }
        let execution = steadfast_engine::proto::common::WorkflowExecution {
            workflow_id,
            run_id,
        };
        let (key, run_id) = self.target(namespace, &Some(execution))?;
        Ok(Which::Id {
            key,
            run_id,
            activity_id,
        })
    }

    /// A result within the limit; else the failure that says so, which no retry would mend.
    fn completed(&self, result: Option<Payloads>) -> Outcome {
        let limit = self.limits().blob_bytes;
        let bytes = result.as_ref().map_or(0, Message::encoded_len);
        match bytes > limit {
            true => Outcome::Failed(
                Some(too_large("Result of the activity", bytes, limit)),
                None,
            ),
            false => Outcome::Completed(result),
        }
    }

    /// A failure within the limit: a larger one is cut down to its message.
    fn bounded_failure(&self, failure: Option<Failure>) -> Option<Failure> {
        let limit = self.limits().blob_bytes;
        let failure = failure?;
        let bytes = failure.encoded_len();
        match bytes > limit {
            true => Some(too_large("Failure of the activity", bytes, limit)),
            false => Some(failure),
        }
    }
}

fn claim(run: &steadfast_engine::Run, which: &Which) -> Result<ActivityClaim> {
    match which {
        Which::Token(token) => Ok(token.activity_claim()),
        Which::Id { .. } if !run.state.is_running() => {
            Err(steadfast_engine::Error::completed().into())
        }
        Which::Id { activity_id, .. } => Ok(run.activity_by_id(activity_id)?),
    }
}

/// A worker fails an activity with the failure of its own code.
fn check_failure(failure: &Option<Failure>) -> Result<()> {
    let info = failure.as_ref().map(|failure| &failure.failure_info);
    match info {
        None | Some(Some(FailureInfo::ApplicationFailureInfo(_))) => Ok(()),
        Some(_) => Err(RuntimeError::invalid(
            "Failure must have ApplicationFailureInfo.",
        )),
    }
}

fn too_large(what: &str, bytes: usize, limit: usize) -> Failure {
    steadfast_engine::failure::server(
        format!("{what} has {bytes} bytes, more than the limit of {limit}."),
        true,
    )
}
