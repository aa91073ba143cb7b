//! Queries: asked of a worker, never recorded.
//!
//! While a workflow task is on its way, a query goes with it, so that the answer reflects what the
//! caller has seen acknowledged. Otherwise it is a task of its own.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use steadfast_engine::proto::common::{Payloads, WorkflowExecution, WorkflowType};
use steadfast_engine::proto::enums::{QueryResultType, TaskQueueKind};
use steadfast_engine::proto::failure::Failure;
use steadfast_engine::proto::history::History;
use steadfast_engine::proto::query::{WorkflowQuery, WorkflowQueryResult};
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::proto::workflowservice::PollWorkflowTaskQueueResponse;
use tokio::sync::oneshot;

use crate::aggregate::{LiveRun, WorkflowKey};
use crate::error::{Result, RuntimeError};
use crate::handout::HistoryPart;
use crate::runtime::Runtime;
use crate::token::QueryToken;

/// Most queries that wait for one run.
pub(crate) const MAX_BUFFERED: usize = 100;

/// What a worker answers.
pub type QueryAnswer = Result<Option<Payloads>>;

/// A query that goes with a workflow task.
#[derive(Debug)]
pub struct BufferedQuery {
    /// Minted when it was asked.
    pub id: String,
    /// The query.
    pub query: WorkflowQuery,
    /// Where the answer goes.
    pub answer: oneshot::Sender<QueryAnswer>,
}

/// A query that is a task of its own.
pub struct QueryHandout {
    id: String,
    query: WorkflowQuery,
    key: WorkflowKey,
    run_id: String,
    workflow_type: String,
    task_queue: String,
    previous_started_event_id: i64,
    history: HistoryPart,
    wanted: std::sync::Weak<()>,
}

/// Queries on their own that wait for their answers.
#[derive(Default)]
pub struct DirectQueries(Mutex<HashMap<String, oneshot::Sender<QueryAnswer>>>);

impl DirectQueries {
    /// Remembers a query until it is answered or given up.
    pub(crate) fn insert(&self, id: String, answer: oneshot::Sender<QueryAnswer>) {
        self.0.lock().insert(id, answer);
    }

    /// Forgets a query.
    pub(crate) fn remove(&self, id: &str) -> Option<oneshot::Sender<QueryAnswer>> {
        self.0.lock().remove(id)
    }
}

impl QueryHandout {
    /// A query for a worker that has the run cached (`sticky`), or for any.
    pub fn prepare(
        id: String,
        query: WorkflowQuery,
        key: &WorkflowKey,
        live: &LiveRun,
        sticky: bool,
        wanted: std::sync::Weak<()>,
    ) -> Self {
        let state = &live.run.state;
        let mut history = HistoryPart::of(live, if sticky { state.next_event_id } else { 1 });
        history.virtual_events.clear();
        Self {
            id,
            query,
            key: key.clone(),
            run_id: state.run_id.clone(),
            workflow_type: state.workflow_type().to_owned(),
            task_queue: state.task_queue().to_owned(),
            previous_started_event_id: state.previous_started_event_id,
            history,
            wanted,
        }
    }

    /// Whether the caller still waits.
    pub fn is_wanted(&self) -> bool {
        self.wanted.strong_count() > 0
    }

    /// The answer to the poll.
    pub async fn into_response(self, runtime: &Runtime) -> Result<PollWorkflowTaskQueueResponse> {
        let token = QueryToken {
            query_id: self.id,
            namespace_id: self.key.namespace_id.clone(),
        };
        let (events, next_page_token) = self
            .history
            .into_page(runtime, &self.key, &self.run_id, false)
            .await?;
        Ok(PollWorkflowTaskQueueResponse {
            task_token: token.encode_to_vec(),
            workflow_execution: Some(WorkflowExecution {
                workflow_id: self.key.workflow_id,
                run_id: self.run_id,
            }),
            workflow_type: Some(WorkflowType {
                name: self.workflow_type,
            }),
            previous_started_event_id: self.previous_started_event_id,
            query: Some(self.query),
            history: Some(History { events }),
            next_page_token,
            attempt: 1,
            workflow_execution_task_queue: Some(TaskQueue {
                name: self.task_queue,
                kind: TaskQueueKind::Normal as i32,
                normal_name: String::new(),
            }),
            ..Default::default()
        })
    }
}

impl LiveRun {
    /// Gives the answers that came with a workflow task to those who asked. Queries that the worker
    /// left out wait for the next task.
    pub(crate) fn answer_queries(&mut self, results: HashMap<String, WorkflowQueryResult>) {
        for (id, result) in results {
            if let Some(query) = self.sent_queries.remove(&id) {
                let _ = query.answer.send(read_result(result));
            }
        }
        self.requeue_queries();
    }

    /// The workflow task is over without answers: they are asked again with the next one.
    pub(crate) fn requeue_queries(&mut self) {
        self.queries
            .extend(self.sent_queries.drain().map(|(_, query)| query));
    }
}

fn read_result(result: WorkflowQueryResult) -> QueryAnswer {
    match result.result_type() {
        QueryResultType::Answered => Ok(result.answer),
        _ => Err(failed(result.error_message, result.failure)),
    }
}

/// The error of a query that failed in the worker.
pub(crate) fn failed(message: String, failure: Option<Failure>) -> RuntimeError {
    RuntimeError::QueryFailed {
        message,
        failure: failure.map(Box::new),
    }
}

/// Bytes of a query token, or none if it is a task's.
pub(crate) fn read_token(bytes: &[u8]) -> Result<QueryToken> {
    QueryToken::decode(Bytes::copy_from_slice(bytes))
        .ok()
        .filter(|token| !token.query_id.is_empty())
        .ok_or_else(|| RuntimeError::invalid("Invalid TaskToken."))
}
