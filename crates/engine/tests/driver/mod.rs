//! Drives one run as a server and a worker would, and checks after every step that the records
//! replay to the state that the run has.
#![allow(clippy::unwrap_used)]
// Each test binary uses its own part of this.
#![allow(dead_code)]

pub mod family;

use prost::{Message, Name};
use steadfast_engine::commands::Completion;
use steadfast_engine::credential::Terms;
use steadfast_engine::governance::Governor;
use steadfast_engine::proto::command::{Command, ProtocolMessageCommandAttributes, command};
use steadfast_engine::proto::common::{Payload, Payloads, WorkflowType};
use steadfast_engine::proto::enums::EventType;
use steadfast_engine::proto::history::{
    HistoryEvent, WorkflowExecutionStartedEventAttributes, history_event::Attributes,
};
use steadfast_engine::proto::protocol;
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::proto::update::{
    Acceptance, Input, Meta, Outcome, Rejection, Request, Response, outcome,
};
use steadfast_engine::proto::workflowservice::RespondWorkflowTaskCompletedRequest;
use steadfast_engine::record::Cause;
use steadfast_engine::run::{Ids, Namespaces};
use steadfast_engine::start::StartRun;
use steadfast_engine::state::WorkflowTask;
use steadfast_engine::time::SECOND;
use steadfast_engine::workflow_task::{Poller, TaskClaim};
use steadfast_engine::{Cx, Effect, Error, Limits, Run, RunRecord, Time};

/// Ids that tests can name.
#[derive(Clone, Default)]
pub struct Counter(u64);

impl Ids for Counter {
    fn uuid(&mut self) -> String {
        self.0 += 1;
        format!("00000000-0000-4000-8000-{:012}", self.0)
    }
}

/// The one namespace of these tests.
pub struct OneNamespace;

impl Namespaces for OneNamespace {
    fn id(&self, name: &str) -> Option<String> {
        matches!(name, "default" | "other")
            .then(|| format!("{}-id", if name == "default" { "namespace" } else { name }))
    }
}

/// A run and what surrounds it.
pub struct Driver {
    pub run: Run,
    pub now: Time,
    pub limits: Limits,
    pub ids: Counter,
    /// Effects of the last step.
    pub effects: Vec<Effect>,
    /// All records of the run.
    pub records: Vec<RunRecord>,
    /// All events of the run that it wrote itself.
    pub own_events: Vec<HistoryEvent>,
    replayed: Run,
    /// Decides what the agent may do, and who calls, where a test is about that.
    pub governor: Option<std::sync::Arc<dyn Governor>>,
    pub cause: Cause,
    /// The credentials that attempts are given.
    pub credentials: Option<Terms>,
}

impl Driver {
    /// Takes over a run that has records to take.
    pub fn adopt(run: Run, now: Time, ids: Counter) -> Self {
        let mut driver = Self {
            run,
            now,
            limits: Limits::default(),
            ids,
            effects: Vec::new(),
            records: Vec::new(),
            own_events: Vec::new(),
            replayed: Run::default(),
            governor: None,
            cause: Cause::default(),
            credentials: None,
        };
        driver.step(|_, _| ());
        driver
    }

    /// A started workflow with its first workflow task scheduled.
    pub fn start() -> Self {
        Self::start_with(|_| ())
    }

    pub fn start_with(change: impl FnOnce(&mut WorkflowExecutionStartedEventAttributes)) -> Self {
        Self::start_by(Cause::default(), change)
    }

    pub fn start_by(
        cause: Cause,
        change: impl FnOnce(&mut WorkflowExecutionStartedEventAttributes),
    ) -> Self {
        let mut attributes = WorkflowExecutionStartedEventAttributes {
            workflow_type: Some(WorkflowType {
                name: "Flow".into(),
            }),
            task_queue: Some(TaskQueue {
                name: "queue".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        change(&mut attributes);
        let mut ids = Counter::default();
        let limits = Limits::default();
        let now = 1_700_000_000 * SECOND;
        let start = StartRun {
            namespace_id: "namespace-id".into(),
            workflow_id: "workflow".into(),
            run_id: ids.uuid(),
            request_id: "start-request".into(),
            attributes,
            ..StartRun::default()
        };
        let mut cx = Cx::new(now, &mut ids, &limits, &OneNamespace, "default", cause);
        let run = Run::start(&mut cx, start);
        Self::adopt(run, now, ids)
    }

    /// A workflow that waits after its first workflow task, which was events 2 to 4.
    pub fn waiting() -> Self {
        let mut driver = Self::start();
        driver.take_task();
        driver.complete(answer());
        driver
    }

    /// One transition.
    pub fn step<T>(&mut self, decide: impl FnOnce(&mut Run, &mut Cx<'_>) -> T) -> T {
        self.now += SECOND;
        let mut cx = Cx::new(
            self.now,
            &mut self.ids,
            &self.limits,
            &OneNamespace,
            "default",
            self.cause.clone(),
        );
        let governor = self.governor.clone();
        cx.governor = governor.as_deref();
        cx.credentials = self.credentials.as_ref();
        let out = decide(&mut self.run, &mut cx);
        let record = self.run.take_record(&cx);
        self.effects = std::mem::take(&mut cx.effects);
        if let Some(record) = record {
            let stored = RunRecord::decode(record.encode_to_vec().as_slice()).unwrap();
            self.replayed.apply_record(&stored).unwrap();
            self.records.push(record);
        }
        assert_eq!(
            self.replayed.state, self.run.state,
            "the records give the state"
        );
        let known = self.own_events.last().map_or(0, |event| event.event_id);
        for (id, bytes) in &self.run.tail {
            if *id > known {
                self.own_events
                    .push(HistoryEvent::decode(bytes.clone()).unwrap());
            }
        }
        out
    }

    /// What a server that starts again has of the run.
    pub fn restart(&mut self) {
        self.run = Run::from_state(self.run.state.clone());
    }

    /// A worker takes the workflow task that is there.
    pub fn take_task(&mut self) -> (WorkflowTask, Vec<protocol::Message>) {
        let id = self
            .run
            .workflow_task()
            .expect("a task is scheduled")
            .scheduled_event_id;
        self.step(|run, cx| {
            let poller = Poller {
                request_id: cx.ids.uuid(),
                ..Poller::default()
            };
            let task = run
                .start_workflow_task(cx, id, &poller)
                .expect("the task is there");
            let messages = run.update_messages(task.attempt > 1);
            (task, messages)
        })
    }

    /// The worker answers the task in its hands.
    pub fn respond(
        &mut self,
        request: RespondWorkflowTaskCompletedRequest,
    ) -> Result<Completion, Error> {
        let claim = self.claim();
        self.step(|run, cx| run.complete_workflow_task(cx, &claim, request, None, None))
    }

    /// [`Driver::respond`] for an answer that is in order.
    pub fn complete(&mut self, request: RespondWorkflowTaskCompletedRequest) {
        let completion = self.respond(request).expect("the answer is taken");
        assert!(matches!(completion, Completion::Done(_)), "{completion:?}");
    }

    /// What the token of the started task says.
    pub fn claim(&self) -> TaskClaim {
        let task = self.run.workflow_task().expect("a task is started");
        TaskClaim {
            scheduled_event_id: task.scheduled_event_id,
            started_event_id: task.started_event_id,
            attempt: task.attempt,
            request_id: task.request_id.clone(),
        }
    }

    /// Types of the run's own events from this id on, in short.
    pub fn types_from(&self, id: i64) -> Vec<&'static str> {
        self.own_events
            .iter()
            .filter(|event| event.event_id >= id)
            .map(|event| {
                let name = EventType::try_from(event.event_type).unwrap().as_str_name();
                name.trim_start_matches("EVENT_TYPE_")
                    .trim_start_matches("WORKFLOW_EXECUTION_")
            })
            .collect()
    }

    /// Attributes of one of the run's own events.
    pub fn event(&self, id: i64) -> &Attributes {
        let event = self.own_events.iter().find(|event| event.event_id == id);
        event
            .and_then(|event| event.attributes.as_ref())
            .expect("the event is there")
    }

    /// Events with their stored bytes.
    pub fn stored(&self) -> Vec<(HistoryEvent, bytes::Bytes)> {
        self.own_events
            .iter()
            .map(|event| (event.clone(), event.encode_to_vec().into()))
            .collect()
    }
}

/// An answer without anything.
pub fn answer() -> RespondWorkflowTaskCompletedRequest {
    RespondWorkflowTaskCompletedRequest::default()
}

/// An answer with commands.
pub fn commands(
    attributes: impl IntoIterator<Item = command::Attributes>,
) -> RespondWorkflowTaskCompletedRequest {
    let commands = attributes
        .into_iter()
        .map(|attributes| Command {
            command_type: steadfast_engine::commands::type_of(&attributes) as i32,
            attributes: Some(attributes),
            ..Default::default()
        })
        .collect();
    RespondWorkflowTaskCompletedRequest {
        commands,
        ..Default::default()
    }
}

/// An answer with messages and the commands that put them in their places.
pub fn messages(
    messages: impl IntoIterator<Item = protocol::Message>,
) -> RespondWorkflowTaskCompletedRequest {
    let messages: Vec<_> = messages.into_iter().collect();
    let places = messages
        .iter()
        .filter(|message| !message.id.ends_with("/reject"))
        .map(|message| {
            command::Attributes::ProtocolMessageCommandAttributes(
                ProtocolMessageCommandAttributes {
                    message_id: message.id.clone(),
                },
            )
        });
    let mut answer = commands(places);
    answer.messages = messages;
    answer
}

/// An update request.
pub fn request(id: &str) -> Request {
    Request {
        meta: Some(Meta {
            update_id: id.into(),
            identity: "client".into(),
        }),
        input: Some(Input {
            name: "change".into(),
            ..Default::default()
        }),
        request_id: format!("{id}-request"),
        ..Default::default()
    }
}

/// A worker's message about an update.
pub fn message<M: Name>(update_id: &str, kind: &str, body: &M) -> protocol::Message {
    protocol::Message {
        id: format!("{update_id}/{kind}"),
        protocol_instance_id: update_id.into(),
        body: Some(prost_types::Any {
            type_url: format!("type.googleapis.com/{}", M::full_name()),
            value: body.encode_to_vec(),
        }),
        ..Default::default()
    }
}

/// The worker accepts an update.
pub fn accept(id: &str) -> protocol::Message {
    message(
        id,
        "accept",
        &Acceptance {
            accepted_request_message_id: format!("{id}/request"),
            accepted_request_sequencing_event_id: 4,
            accepted_request: None,
        },
    )
}

/// The worker rejects an update.
pub fn reject(id: &str) -> protocol::Message {
    message(
        id,
        "reject",
        &Rejection {
            failure: Some(failure("no")),
            ..Default::default()
        },
    )
}

/// The worker completes an update.
pub fn complete(id: &str) -> protocol::Message {
    message(
        id,
        "complete",
        &Response {
            meta: Some(Meta {
                update_id: id.into(),
                identity: String::new(),
            }),
            outcome: Some(success("done")),
        },
    )
}

/// A failure with this message.
pub fn failure(message: &str) -> steadfast_engine::proto::failure::Failure {
    steadfast_engine::proto::failure::Failure {
        message: message.into(),
        ..Default::default()
    }
}

/// An outcome with this result.
pub fn success(result: &str) -> Outcome {
    Outcome {
        value: Some(outcome::Value::Success(payloads(result))),
    }
}

/// One payload.
pub fn payloads(text: &str) -> Payloads {
    Payloads {
        payloads: vec![Payload {
            data: text.as_bytes().to_vec(),
            ..Default::default()
        }],
    }
}
