//! Runs that have to do with other runs: the commands, and the looks at what came of them.

use prost::Message;
use steadfast_engine::Effect;
use steadfast_engine::commands::Completion;
use steadfast_engine::proto::command::{
    CompleteWorkflowExecutionCommandAttributes,
    RequestCancelExternalWorkflowExecutionCommandAttributes,
    SignalExternalWorkflowExecutionCommandAttributes, StartChildWorkflowExecutionCommandAttributes,
    command::Attributes as C,
};
use steadfast_engine::proto::common::{Header, Payload, Payloads, WorkflowExecution, WorkflowType};
use steadfast_engine::proto::enums::EventType;
use steadfast_engine::proto::history::{
    HistoryEvent, WorkflowExecutionCompletedEventAttributes, history_event::Attributes as A,
};
use steadfast_engine::proto::sdk::UserMetadata;
use steadfast_engine::state::{ChildClosed, OutMessage};

use super::{Driver, commands};

/// The child's first run, and its last one.
pub const CHILD_RUN: &str = "00000000-0000-4000-8000-000000000007";
pub const LAST_CHILD_RUN: &str = "00000000-0000-4000-8000-000000000008";

pub fn uuid(n: u64) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

/// What these tests look at in a run.
pub trait Looks {
    /// Messages asked for by the last step.
    fn messages(&self) -> Vec<OutMessage>;
    /// Takes the workflow task and answers it with commands.
    fn answer(&mut self, commands: Vec<C>) -> Completion;
    /// [`Looks::answer`] for commands that are in order.
    fn command(&mut self, commands: Vec<C>);
    /// The newest event.
    fn last_event(&self) -> HistoryEvent;
    /// The newest event of a type.
    fn find(&self, event_type: EventType) -> HistoryEvent;
    /// How many events there are of a type.
    fn count(&self, event_type: EventType) -> usize;
}

impl Looks for Driver {
    fn messages(&self) -> Vec<OutMessage> {
        let messages = self.effects.iter().filter_map(|effect| match effect {
            Effect::Message { message, .. } => Some(message.clone()),
            _ => None,
        });
        messages.collect()
    }

    fn answer(&mut self, attributes: Vec<C>) -> Completion {
        let (task, _) = self.take_task();
        let started = self
            .run
            .workflow_task()
            .map_or(0, |task| task.started_event_id);
        assert_eq!(
            task.started_event_id, started,
            "the worker's token names the task"
        );
        let mut request = commands(attributes);
        for command in &mut request.commands {
            command.user_metadata = Some(summary());
        }
        self.respond(request).expect("the task is there")
    }

    fn command(&mut self, commands: Vec<C>) {
        let completion = self.answer(commands);
        assert!(matches!(completion, Completion::Done(_)), "{completion:?}");
    }

    fn last_event(&self) -> HistoryEvent {
        self.own_events.last().expect("an event").clone()
    }

    fn find(&self, event_type: EventType) -> HistoryEvent {
        let found = self
            .own_events
            .iter()
            .rev()
            .find(|event| event.event_type() == event_type);
        found.unwrap_or_else(|| panic!("no {event_type:?}")).clone()
    }

    fn count(&self, event_type: EventType) -> usize {
        self.own_events
            .iter()
            .filter(|event| event.event_type() == event_type)
            .count()
    }
}

pub fn workflow_type(name: &str) -> Option<WorkflowType> {
    Some(WorkflowType { name: name.into() })
}

pub fn payload(text: &str) -> Payload {
    Payload {
        data: text.into(),
        ..Payload::default()
    }
}

pub fn payloads(text: &str) -> Option<Payloads> {
    Some(Payloads {
        payloads: vec![payload(text)],
    })
}

pub fn header() -> Option<Header> {
    Some(Header {
        fields: [("trace".to_owned(), payload("on"))].into(),
    })
}

pub fn summary() -> UserMetadata {
    UserMetadata {
        summary: Some(payload("why")),
        details: None,
    }
}

pub fn child_command(id: &str) -> StartChildWorkflowExecutionCommandAttributes {
    StartChildWorkflowExecutionCommandAttributes {
        workflow_id: id.into(),
        workflow_type: workflow_type("Child"),
        input: payloads("input"),
        header: header(),
        ..Default::default()
    }
}

pub trait IntoCommand {
    fn into_command(self) -> C;
}

impl IntoCommand for StartChildWorkflowExecutionCommandAttributes {
    fn into_command(self) -> C {
        C::StartChildWorkflowExecutionCommandAttributes(self)
    }
}

impl IntoCommand for SignalExternalWorkflowExecutionCommandAttributes {
    fn into_command(self) -> C {
        C::SignalExternalWorkflowExecutionCommandAttributes(self)
    }
}

impl IntoCommand for RequestCancelExternalWorkflowExecutionCommandAttributes {
    fn into_command(self) -> C {
        C::RequestCancelExternalWorkflowExecutionCommandAttributes(self)
    }
}

pub fn signal_command(
    workflow_id: &str,
    run_id: &str,
) -> SignalExternalWorkflowExecutionCommandAttributes {
    SignalExternalWorkflowExecutionCommandAttributes {
        execution: Some(WorkflowExecution {
            workflow_id: workflow_id.into(),
            run_id: run_id.into(),
        }),
        signal_name: "poke".into(),
        input: payloads("input"),
        header: header(),
        ..Default::default()
    }
}

pub fn cancel_command(
    workflow_id: &str,
    run_id: &str,
) -> RequestCancelExternalWorkflowExecutionCommandAttributes {
    RequestCancelExternalWorkflowExecutionCommandAttributes {
        workflow_id: workflow_id.into(),
        run_id: run_id.into(),
        reason: "enough".into(),
        ..Default::default()
    }
}

pub fn complete() -> C {
    C::CompleteWorkflowExecutionCommandAttributes(CompleteWorkflowExecutionCommandAttributes {
        result: payloads("result"),
    })
}

pub fn closed_by(attributes: A) -> ChildClosed {
    let event = HistoryEvent {
        event_id: 9,
        attributes: Some(attributes),
        ..HistoryEvent::default()
    };
    ChildClosed {
        initiated_event_id: 5,
        first_run_id: CHILD_RUN.to_owned(),
        workflow_type: "Child".into(),
        close_event: event.encode_to_vec(),
        workflow_id: "child".into(),
        run_id: LAST_CHILD_RUN.into(),
    }
}

pub fn completed() -> A {
    A::WorkflowExecutionCompletedEventAttributes(WorkflowExecutionCompletedEventAttributes {
        result: payloads("result"),
        ..Default::default()
    })
}
