//! For tests: a runtime on a store in memory, and what clients and a worker do with it.

use std::sync::Arc;
use std::time::Duration;

use steadfast_engine::commands::type_of;
use steadfast_engine::proto::command::{Command, command::Attributes};
use steadfast_engine::proto::common::{Payload, Payloads, WorkflowExecution, WorkflowType};
use steadfast_engine::proto::enums::EventType;
use steadfast_engine::proto::history::HistoryEvent;
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::proto::workflowservice::{
    GetWorkflowExecutionHistoryRequest, PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse, RespondWorkflowTaskCompletedRequest,
    SignalWorkflowExecutionRequest, StartWorkflowExecutionRequest,
};
use steadfast_ledger::skeleton::{FieldShape, Shapes};
use steadfast_store::Store;
use steadfast_store::sqlite::SqliteStore;

use crate::aggregate::WorkflowKey;
use crate::error::Result;
use crate::namespaces::Namespace;
use crate::{Permit, Runtime, Settings};

/// The one namespace and the one task queue.
const NAME: &str = "default";

/// A runtime in which a test acts.
pub(crate) struct Bed {
    pub(crate) runtime: Runtime,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) permit: Permit,
}

impl Bed {
    pub(crate) async fn open(settings: Settings) -> Self {
        let store = SqliteStore::open_in_memory().expect("a store");
        let bed = Self::reopen(Arc::new(store), settings).await;
        let runtime = &bed.runtime;
        runtime
            .namespaces()
            .put(&**runtime.store(), Namespace::new(NAME))
            .await
            .expect("a namespace");
        bed
    }

    /// A runtime on a store that another one has used.
    pub(crate) async fn reopen(store: Arc<dyn Store>, settings: Settings) -> Self {
        let runtime = Runtime::open(store.clone(), settings).await;
        Self {
            runtime: runtime.expect("a runtime"),
            store,
            permit: Permit::granted("Test", "tester".into(), "unauthenticated".into()),
        }
    }

    /// Ends the runtime as a crash would, but for what it still has to write.
    pub(crate) async fn stop(self) -> Arc<dyn Store> {
        self.runtime.stop();
        self.runtime.project_all().await.expect("projected");
        self.store
    }

    pub(crate) fn key(&self, workflow_id: &str) -> WorkflowKey {
        let namespace = self.runtime.namespaces().by_name(NAME).expect("there");
        WorkflowKey::new(namespace.id.clone(), workflow_id)
    }

    /// Starts a workflow and returns its run id.
    pub(crate) async fn start(&self, request: StartWorkflowExecutionRequest) -> String {
        let started = self.runtime.start_workflow(&self.permit, request).await;
        started.expect("started").run_id
    }

    /// Takes the next workflow task.
    pub(crate) async fn take(&self) -> PollWorkflowTaskQueueResponse {
        let request = PollWorkflowTaskQueueRequest {
            namespace: NAME.into(),
            task_queue: queue(),
            ..Default::default()
        };
        let deadline = Some(Duration::from_secs(10));
        let polled = self
            .runtime
            .poll_workflow_task(&self.permit, request, deadline)
            .await;
        let task = polled.expect("polled");
        assert!(!task.task_token.is_empty(), "a task is there");
        task
    }

    /// Answers the next workflow task with these commands.
    pub(crate) async fn answer(&self, commands: impl IntoIterator<Item = Attributes>) {
        let task = self.take().await;
        self.answer_task(task.task_token, commands).await;
    }

    /// Answers a workflow task with these commands.
    pub(crate) async fn answer_task(
        &self,
        task_token: Vec<u8>,
        commands: impl IntoIterator<Item = Attributes>,
    ) {
        let request = RespondWorkflowTaskCompletedRequest {
            task_token,
            commands: commands
                .into_iter()
                .map(|attributes| Command {
                    command_type: type_of(&attributes) as i32,
                    attributes: Some(attributes),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let answered = self
            .runtime
            .complete_workflow_task(&self.permit, request)
            .await;
        answered.expect("answered");
    }

    pub(crate) async fn signal(&self, workflow_id: &str, bytes: usize) -> Result<()> {
        let request = SignalWorkflowExecutionRequest {
            namespace: NAME.into(),
            workflow_execution: execution(workflow_id, ""),
            signal_name: "signal".into(),
            input: Some(Payloads {
                payloads: vec![Payload {
                    data: vec![7; bytes],
                    ..Default::default()
                }],
            }),
            ..Default::default()
        };
        self.runtime.signal_workflow(&self.permit, request).await
    }

    /// The whole history of a run, the current one for an empty id.
    pub(crate) async fn history(&self, workflow_id: &str, run_id: &str) -> Vec<HistoryEvent> {
        let mut events = Vec::new();
        let mut next_page_token = Vec::new();
        loop {
            let request = GetWorkflowExecutionHistoryRequest {
                namespace: NAME.into(),
                execution: execution(workflow_id, run_id),
                next_page_token,
                ..Default::default()
            };
            let page = self.runtime.get_history(&self.permit, request, None).await;
            let page = page.expect("a history");
            events.extend(page.history.expect("events").events);
            next_page_token = page.next_page_token;
            if next_page_token.is_empty() {
                return events;
            }
        }
    }

    /// How many events of a type the current run has.
    pub(crate) async fn count(&self, workflow_id: &str, event_type: EventType) -> usize {
        let events = self.history(workflow_id, "").await;
        let of_type = |event: &&HistoryEvent| event.event_type() == event_type;
        events.iter().filter(of_type).count()
    }
}

/// The shapes of the messages that tests erase.
pub(crate) fn shapes() -> Arc<Shapes> {
    let (history, common) = ("temporal.api.history.v1", "temporal.api.common.v1");
    let failure = "temporal.api.failure.v1.Failure";
    let payloads = format!("{common}.Payloads");
    let event = format!("{history}.HistoryEvent");
    let of = |name: &str| format!("{history}.{name}EventAttributes");
    let started = of("WorkflowExecutionStarted");
    let mut fields = vec![
        (started.clone(), 6, Some(payloads.clone())),
        (started.clone(), 22, Some(format!("{common}.Memo"))),
        (event.clone(), 6, Some(started)),
        (format!("{common}.Memo"), 1, Some("MemoEntry".into())),
        ("MemoEntry".into(), 2, Some(format!("{common}.Payload"))),
        (payloads.clone(), 1, Some(format!("{common}.Payload"))),
        (format!("{common}.Payload"), 2, None),
        (failure.into(), 1, None),
        (failure.into(), 3, None),
    ];
    for (number, name, field, holds) in [
        (7, "WorkflowExecutionCompleted", 1, payloads.as_str()),
        (18, "ActivityTaskFailed", 1, failure),
        (26, "WorkflowExecutionSignaled", 2, payloads.as_str()),
    ] {
        fields.push((of(name), field, Some(holds.to_owned())));
        fields.push((event.clone(), number, Some(of(name))));
    }
    let fields = fields
        .into_iter()
        .map(|(message, number, holds)| FieldShape {
            is_payload: holds.is_none(),
            message,
            number,
            holds,
        });
    Arc::new(Shapes::new(fields))
}

/// A request to start a workflow.
pub(crate) fn start(workflow_id: &str) -> StartWorkflowExecutionRequest {
    StartWorkflowExecutionRequest {
        namespace: NAME.into(),
        workflow_id: workflow_id.into(),
        workflow_type: Some(WorkflowType {
            name: "Flow".into(),
        }),
        task_queue: queue(),
        ..Default::default()
    }
}

pub(crate) fn execution(workflow_id: &str, run_id: &str) -> Option<WorkflowExecution> {
    Some(WorkflowExecution {
        workflow_id: workflow_id.into(),
        run_id: run_id.into(),
    })
}

fn queue() -> Option<TaskQueue> {
    Some(TaskQueue {
        name: NAME.into(),
        ..Default::default()
    })
}
