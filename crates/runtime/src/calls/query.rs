//! Queries.

use std::sync::Arc;
use std::time::Duration;

use steadfast_engine::proto::enums::{
    QueryRejectCondition, QueryResultType, WorkflowExecutionStatus,
};
use steadfast_engine::proto::query::{QueryRejected, WorkflowQuery};
use steadfast_engine::proto::workflowservice::{
    QueryWorkflowRequest, QueryWorkflowResponse, RespondQueryTaskCompletedRequest,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::aggregate::{LiveRun, WorkflowKey};
use crate::effects::queue_key;
use crate::error::{Result, RuntimeError};
use crate::evidence::reads::{Read, Subject};
use crate::handout::Delivery;
use crate::matching::{QueueKey, QueueKind};
use crate::permit::Permit;
use crate::queries::{BufferedQuery, MAX_BUFFERED, QueryAnswer, QueryHandout, failed, read_token};
use crate::runtime::Runtime;

/// How long a query waits for its answer where the caller does not say.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it waits for the worker that has the run cached before it goes to any other.
const STICKY_PATIENCE: Duration = Duration::from_secs(5);

/// How a query is to be asked.
enum Route {
    Rejected(i32),
    /// With the workflow task that is on its way.
    Buffered(oneshot::Receiver<QueryAnswer>),
    /// On its own, to these queues in turn.
    Direct(Vec<(QueueKey, bool)>),
}

impl Runtime {
    /// Asks a workflow.
    pub async fn query_workflow(
        &self,
        permit: &Permit,
        request: QueryWorkflowRequest,
        deadline: Option<Duration>,
    ) -> Result<QueryWorkflowResponse> {
        let (key, run_id) = self.target(&request.namespace, &request.execution)?;
        let reject = request.query_reject_condition();
        let Some(query) = request.query else {
            return Err(RuntimeError::invalid("Query is not set on request."));
        };
        if query.query_type.is_empty() {
            return Err(RuntimeError::invalid("QueryType is not set on request."));
        }
        let bytes = query
            .query_args
            .as_ref()
            .map_or(0, prost::Message::encoded_len);
        let query_type = query.query_type.clone();
        crate::calls::validate::size("Query arguments", bytes, self.limits().blob_bytes)?;
        let until = Instant::now()
            + deadline.map_or(PATIENCE, |d| d.saturating_sub(Duration::from_millis(200)));
        let (run_id, route) = self
            .inspect(&key, &run_id, |workflow| {
                let live = workflow.whole_live(&run_id)?;
                let route = route(&key, live, reject, &query)?;
                Ok((live.run.state.run_id.clone(), route))
            })
            .await?;
        let answer = match route {
            Route::Rejected(status) => {
                return Ok(QueryWorkflowResponse {
                    query_rejected: Some(QueryRejected { status }),
                    ..Default::default()
                });
            }
            Route::Buffered(receiver) => wait(receiver, until).await?,
            Route::Direct(queues) => self.ask(&key, &run_id, query, queues, until).await?,
        };
        // A failure is an answer, too.
        let subject = Subject {
            workflow_id: &key.workflow_id,
            run_id: &run_id,
            detail: &query_type,
        };
        self.note_read(permit, Read::Query, &key.namespace_id, subject)
            .await?;
        Ok(QueryWorkflowResponse {
            query_result: answer?,
            ..Default::default()
        })
    }

    /// A worker answers a query that was a task of its own.
    pub fn answer_query(
        &self,
        _permit: &Permit,
        request: RespondQueryTaskCompletedRequest,
    ) -> Result<()> {
        let token = read_token(&request.task_token)?;
        self.namespace_of_token(&token.namespace_id, &request.namespace)?;
        let Some(sender) = self.0.direct_queries.remove(&token.query_id) else {
            return Err(RuntimeError::not_found(
                "query task not found, or already expired",
            ));
        };
        let answer = match request.completed_type() {
            QueryResultType::Answered => Ok(request.query_result),
            _ => Err(failed(request.error_message, request.failure)),
        };
        // A caller that gave up does not need it.
        let _ = sender.send(answer);
        Ok(())
    }

    /// Asks the queues in turn until one answers.
    async fn ask(
        &self,
        key: &WorkflowKey,
        run_id: &str,
        query: WorkflowQuery,
        queues: Vec<(QueueKey, bool)>,
        until: Instant,
    ) -> Result<QueryAnswer> {
        for (queue, sticky) in queues {
            if sticky && !self.0.matching.is_polled(&queue) {
                continue;
            }
            let patience = match sticky {
                true => until.min(Instant::now() + STICKY_PATIENCE),
                false => until,
            };
            match self
                .ask_one(key, run_id, query.clone(), &queue, sticky, patience)
                .await
            {
                Err(RuntimeError::DeadlineExceeded(_)) if sticky => {}
                other => return other,
            }
        }
        Err(RuntimeError::DeadlineExceeded(
            "query timed out before a worker could process it".into(),
        ))
    }

    async fn ask_one(
        &self,
        key: &WorkflowKey,
        run_id: &str,
        query: WorkflowQuery,
        queue: &QueueKey,
        sticky: bool,
        until: Instant,
    ) -> Result<QueryAnswer> {
        let id = uuid::Uuid::new_v4().to_string();
        let wanted = Arc::new(());
        let handout = self
            .inspect(key, run_id, |workflow| {
                let live = workflow.whole_live(run_id)?;
                let weak = Arc::downgrade(&wanted);
                Ok(QueryHandout::prepare(
                    id.clone(),
                    query,
                    key,
                    live,
                    sticky,
                    weak,
                ))
            })
            .await?;
        let (sender, receiver) = oneshot::channel();
        self.0.direct_queries.insert(id.clone(), sender);
        self.0
            .matching
            .offer_query(queue, Delivery::Query(Box::new(handout)));
        let answer = wait(receiver, until).await;
        self.0.direct_queries.remove(&id);
        drop(wanted);
        answer
    }

    /// After a workflow task: queries that still wait and have no task to go with are asked on their
    /// own.
    pub(crate) fn settle_queries(&self, key: &WorkflowKey, live: &mut LiveRun) {
        if live.queries.is_empty() || live.run.workflow_task().is_some() {
            return;
        }
        for buffered in std::mem::take(&mut live.queries) {
            let wanted = Arc::new(());
            let weak = Arc::downgrade(&wanted);
            let queues = queues(key, live);
            let handout =
                QueryHandout::prepare(buffered.id.clone(), buffered.query, key, live, false, weak);
            let Some((queue, _)) = queues.into_iter().next_back() else {
                continue;
            };
            let (sender, receiver) = oneshot::channel();
            self.0.direct_queries.insert(buffered.id.clone(), sender);
            self.0
                .matching
                .offer_query(&queue, Delivery::Query(Box::new(handout)));
            let runtime = self.clone();
            self.0.runtime.spawn(async move {
                let answer = wait(receiver, Instant::now() + PATIENCE).await;
                runtime.0.direct_queries.remove(&buffered.id);
                drop(wanted);
                let _ = buffered.answer.send(answer.unwrap_or_else(Err));
            });
        }
    }
}

fn route(
    key: &WorkflowKey,
    live: &mut LiveRun,
    reject: QueryRejectCondition,
    query: &WorkflowQuery,
) -> Result<Route> {
    let state = &live.run.state;
    let completed = state.status == WorkflowExecutionStatus::Completed as i32;
    let rejected = match reject {
        QueryRejectCondition::NotOpen => !state.is_running(),
        QueryRejectCondition::NotCompletedCleanly => !state.is_running() && !completed,
        _ => false,
    };
    if rejected {
        return Ok(Route::Rejected(state.status));
    }
    if state.previous_started_event_id == 0 && live.run.workflow_task().is_none() {
        return Err(steadfast_engine::Error::WorkflowNotReady(
            "the first workflow task has not run yet: the workflow cannot be queried".into(),
        )
        .into());
    }
    // A task that waits in a pause brings no query, as long as there is another way.
    let is_held = state.paused().is_some()
        && state.previous_started_event_id != 0
        && !state.workflow_task_started();
    if state.is_running() && live.run.workflow_task().is_some() && !is_held {
        if live.queries.len() + live.sent_queries.len() >= MAX_BUFFERED {
            return Err(steadfast_engine::Error::ResourceExhausted(
                "too many queries wait for this workflow".into(),
            )
            .into());
        }
        let (answer, receiver) = oneshot::channel();
        let id = uuid::Uuid::new_v4().to_string();
        live.queries.push(BufferedQuery {
            id,
            query: query.clone(),
            answer,
        });
        return Ok(Route::Buffered(receiver));
    }
    Ok(Route::Direct(queues(key, live)))
}

/// The queues that can answer for a run, best first.
fn queues(key: &WorkflowKey, live: &LiveRun) -> Vec<(QueueKey, bool)> {
    let state = &live.run.state;
    let sticky = state
        .sticky
        .as_ref()
        .map(|sticky| (queue_key(key, &sticky.queue, QueueKind::Workflow), true));
    let normal = (
        queue_key(key, state.task_queue(), QueueKind::Workflow),
        false,
    );
    sticky.into_iter().chain([normal]).collect()
}

async fn wait(receiver: oneshot::Receiver<QueryAnswer>, until: Instant) -> Result<QueryAnswer> {
    match tokio::time::timeout_at(until, receiver).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(RuntimeError::Unavailable(
            "the query was lost: ask again".into(),
        )),
        Err(_) => Err(RuntimeError::DeadlineExceeded(
            "query timed out before a worker could process it".into(),
        )),
    }
}
