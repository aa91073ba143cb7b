//! The calls that `loadgen` makes, answered as shortly as a worker can understand.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use steadfast_api::{
    messages::{
        command::v1::{ScheduleActivityTaskCommandAttributes, command::Attributes},
        common::v1::{ActivityType, Payloads, WorkflowExecution, WorkflowType},
        enums::v1::EventType,
        history::v1::{
            ActivityTaskCompletedEventAttributes, ActivityTaskScheduledEventAttributes, History,
            HistoryEvent, WorkflowExecutionStartedEventAttributes, history_event,
        },
        taskqueue::v1::TaskQueue,
        workflowservice::v1::{
            DescribeNamespaceRequest, DescribeNamespaceResponse, PollActivityTaskQueueRequest,
            PollActivityTaskQueueResponse, PollWorkflowTaskQueueRequest,
            PollWorkflowTaskQueueResponse, RespondActivityTaskCompletedRequest,
            RespondActivityTaskCompletedResponse, RespondWorkflowTaskCompletedRequest,
            RespondWorkflowTaskCompletedResponse, StartWorkflowExecutionRequest,
            StartWorkflowExecutionResponse,
        },
    },
    workflowservice::workflow_service_server::WorkflowService,
};
use tonic::{Request, Response, Status};

use super::{
    journal::{Closed, Journal},
    queues::{Queues, Table},
};

/// The service. A run's number is its task token, its run id and its journal key.
#[derive(Clone)]
pub struct Floor(Arc<Inner>);

struct Inner {
    journal: Journal,
    row_bytes: usize,
    last_run: AtomicI64,
    runs: Table<i64, Run>,
    workflow_tasks: Queues<i64>,
    activity_tasks: Queues<PollActivityTaskQueueResponse>,
}

/// An open workflow: where its tasks go, and the events that its worker has not seen.
struct Run {
    workflow_id: String,
    queue: String,
    last_event_id: i64,
    unseen: Vec<HistoryEvent>,
}

impl Floor {
    /// Every state change appends `row_bytes` to the journal.
    pub fn new(journal: Journal, row_bytes: usize) -> Self {
        Self(Arc::new(Inner {
            journal,
            row_bytes,
            last_run: AtomicI64::new(0),
            runs: Table::default(),
            workflow_tasks: Queues::default(),
            activity_tasks: Queues::default(),
        }))
    }

    async fn append(&self, run: i64) -> Result<(), Status> {
        let body = vec![0xA5; self.0.row_bytes];
        self.0
            .journal
            .append(run, body)
            .await
            .map_err(|Closed| Status::unavailable("no journal"))
    }

    /// Adds events, and a workflow task that brings them to the worker.
    fn offer_workflow_task(&self, run: i64, add: impl FnOnce(&mut Run)) -> Result<(), Status> {
        let queue = self.0.runs.with(&run, |state| {
            add(state);
            state.add(EventType::WorkflowTaskScheduled, None);
            state.add(EventType::WorkflowTaskStarted, None);
            state.queue.clone()
        });
        let queue = queue.ok_or_else(|| Status::not_found("the workflow is closed"))?;
        self.0.workflow_tasks.push(&queue, run);
        Ok(())
    }

    fn offer_activity_task(
        &self,
        run: i64,
        workflow_id: String,
        command: ScheduleActivityTaskCommandAttributes,
    ) {
        let queue = command
            .task_queue
            .map(|queue| queue.name)
            .unwrap_or_default();
        let task = PollActivityTaskQueueResponse {
            task_token: run.to_be_bytes().to_vec(),
            workflow_execution: Some(execution(run, workflow_id)),
            workflow_type: workflow_type(),
            activity_type: command.activity_type,
            activity_id: command.activity_id,
            input: command.input,
            attempt: 1,
            start_to_close_timeout: command.start_to_close_timeout,
            ..Default::default()
        };
        self.0.activity_tasks.push(&queue, task);
    }
}

impl Run {
    fn add(&mut self, event_type: EventType, attributes: Option<history_event::Attributes>) {
        self.last_event_id += 1;
        self.unseen.push(HistoryEvent {
            event_id: self.last_event_id,
            event_type: event_type as i32,
            attributes,
            ..Default::default()
        });
    }
}

#[tonic::async_trait]
impl WorkflowService for Floor {
    async fn describe_namespace(
        &self,
        _: Request<DescribeNamespaceRequest>,
    ) -> Result<Response<DescribeNamespaceResponse>, Status> {
        Ok(Response::new(DescribeNamespaceResponse::default()))
    }

    async fn start_workflow_execution(
        &self,
        request: Request<StartWorkflowExecutionRequest>,
    ) -> Result<Response<StartWorkflowExecutionResponse>, Status> {
        let request = request.into_inner();
        let run = self.0.last_run.fetch_add(1, Ordering::Relaxed) + 1;
        let state = Run {
            workflow_id: request.workflow_id,
            queue: request
                .task_queue
                .map(|queue| queue.name)
                .unwrap_or_default(),
            last_event_id: 0,
            unseen: Vec::with_capacity(3),
        };
        self.0.runs.insert(run, state);
        self.append(run).await?;
        let input = request.input;
        self.offer_workflow_task(run, |state| {
            state.add(EventType::WorkflowExecutionStarted, Some(started(input)));
        })?;
        Ok(Response::new(StartWorkflowExecutionResponse {
            run_id: run.to_string(),
            started: true,
            ..Default::default()
        }))
    }

    async fn poll_workflow_task_queue(
        &self,
        request: Request<PollWorkflowTaskQueueRequest>,
    ) -> Result<Response<PollWorkflowTaskQueueResponse>, Status> {
        let queue = queue_name(request.into_inner().task_queue);
        let Some(run) = self.0.workflow_tasks.poll(&queue).await else {
            return Ok(Response::new(Default::default()));
        };
        let news = self.0.runs.with(&run, |state| {
            (
                state.workflow_id.clone(),
                state.last_event_id,
                std::mem::take(&mut state.unseen),
            )
        });
        let (workflow_id, started_event_id, events) =
            news.ok_or_else(|| Status::not_found("the workflow is closed"))?;
        Ok(Response::new(PollWorkflowTaskQueueResponse {
            task_token: run.to_be_bytes().to_vec(),
            workflow_execution: Some(execution(run, workflow_id)),
            workflow_type: workflow_type(),
            started_event_id,
            attempt: 1,
            history: Some(History { events }),
            ..Default::default()
        }))
    }

    async fn respond_workflow_task_completed(
        &self,
        request: Request<RespondWorkflowTaskCompletedRequest>,
    ) -> Result<Response<RespondWorkflowTaskCompletedResponse>, Status> {
        let request = request.into_inner();
        let run = run_of(&request.task_token)?;
        self.append(run).await?;
        let sticky = request
            .sticky_attributes
            .map(|sticky| queue_name(sticky.worker_task_queue));
        let workflow_id = self.0.runs.with(&run, |state| {
            if let Some(queue) = sticky {
                state.queue = queue;
            }
            state.add(EventType::WorkflowTaskCompleted, None);
            state.workflow_id.clone()
        });
        let workflow_id = workflow_id.ok_or_else(|| Status::not_found("the workflow is closed"))?;
        for command in request.commands {
            match command.attributes {
                Some(Attributes::ScheduleActivityTaskCommandAttributes(command)) => {
                    let scheduled = scheduled(&command);
                    self.0.runs.with(&run, |state| {
                        state.add(EventType::ActivityTaskScheduled, Some(scheduled));
                    });
                    self.offer_activity_task(run, workflow_id.clone(), command);
                }
                Some(Attributes::CompleteWorkflowExecutionCommandAttributes(_)) => {
                    self.0.runs.remove(&run);
                }
                _ => {}
            }
        }
        Ok(Response::new(Default::default()))
    }

    async fn poll_activity_task_queue(
        &self,
        request: Request<PollActivityTaskQueueRequest>,
    ) -> Result<Response<PollActivityTaskQueueResponse>, Status> {
        let queue = queue_name(request.into_inner().task_queue);
        let task = self.0.activity_tasks.poll(&queue).await;
        Ok(Response::new(task.unwrap_or_default()))
    }

    async fn respond_activity_task_completed(
        &self,
        request: Request<RespondActivityTaskCompletedRequest>,
    ) -> Result<Response<RespondActivityTaskCompletedResponse>, Status> {
        let request = request.into_inner();
        let run = run_of(&request.task_token)?;
        self.append(run).await?;
        self.offer_workflow_task(run, |state| {
            state.add(EventType::ActivityTaskStarted, None);
            state.add(
                EventType::ActivityTaskCompleted,
                Some(completed(request.result)),
            );
        })?;
        Ok(Response::new(Default::default()))
    }
}

fn run_of(token: &[u8]) -> Result<i64, Status> {
    let bytes = token
        .try_into()
        .map_err(|_| Status::invalid_argument("not a task token"))?;
    Ok(i64::from_be_bytes(bytes))
}

fn queue_name(queue: Option<TaskQueue>) -> String {
    queue.map(|queue| queue.name).unwrap_or_default()
}

fn execution(run: i64, workflow_id: String) -> WorkflowExecution {
    WorkflowExecution {
        workflow_id,
        run_id: run.to_string(),
    }
}

fn workflow_type() -> Option<WorkflowType> {
    Some(WorkflowType {
        name: "bench".to_owned(),
    })
}

fn started(input: Option<Payloads>) -> history_event::Attributes {
    history_event::Attributes::WorkflowExecutionStartedEventAttributes(
        WorkflowExecutionStartedEventAttributes {
            input,
            ..Default::default()
        },
    )
}

fn scheduled(command: &ScheduleActivityTaskCommandAttributes) -> history_event::Attributes {
    history_event::Attributes::ActivityTaskScheduledEventAttributes(
        ActivityTaskScheduledEventAttributes {
            activity_id: command.activity_id.clone(),
            activity_type: command.activity_type.as_ref().map(|kind| ActivityType {
                name: kind.name.clone(),
            }),
            input: command.input.clone(),
            ..Default::default()
        },
    )
}

fn completed(result: Option<Payloads>) -> history_event::Attributes {
    history_event::Attributes::ActivityTaskCompletedEventAttributes(
        ActivityTaskCompletedEventAttributes {
            result,
            ..Default::default()
        },
    )
}
