//! How a refusal looks to the agent: an ordinary failure that is not tried again.
//!
//! SDKs take a failed activity or child only after a started one. So both are written, by `steadfast`. A
//! child that was refused has a run id that no run has. What is refused to be sent to other workflows
//! fails with a cause that means nothing else: there is no room for a reason, which the log has.

use crate::call::Command;
use crate::proto::enums::{
    CancelExternalWorkflowExecutionFailedCause as CancelFailed, RetryState,
    SignalExternalWorkflowExecutionFailedCause as SignalFailed,
};
use crate::proto::failure::{ApplicationFailureInfo, Failure, failure::FailureInfo};
use crate::proto::history::{
    ActivityTaskFailedEventAttributes, ActivityTaskStartedEventAttributes,
    ChildWorkflowExecutionCanceledEventAttributes, ChildWorkflowExecutionFailedEventAttributes,
    HistoryEvent, history_event::Attributes,
};
use crate::run::{Cx, Run};

/// Who refuses, where events name a worker.
const IDENTITY: &str = "steadfast";

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refusal {
    /// By these policies.
    Policy(Vec<String>),
    /// By a person, who may have said why.
    Person(String, String),
    /// Nobody decided in time.
    Expired,
}

/// Where the refusal's events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// After all that the commands of the same workflow task do.
    AfterTheCommands,
    /// Into history, or behind the workflow task that is under way.
    Now,
}

impl Refusal {
    /// The failure of a refused call, which is named as in `tool call`.
    fn failure(&self, call: &str) -> Failure {
        let (r#type, message) = match self {
            Self::Policy(policies) if policies.is_empty() => {
                ("PolicyDenied", format!("no policy permits this {call}"))
            }
            Self::Policy(policies) => (
                "PolicyDenied",
                format!("refused by policy {}", policies.join(", ")),
            ),
            Self::Person(who, why) if why.is_empty() => {
                ("ApprovalDenied", format!("{who} denied this {call}"))
            }
            Self::Person(who, why) => {
                ("ApprovalDenied", format!("{who} denied this {call}: {why}"))
            }
            Self::Expired => (
                "ApprovalExpired",
                format!("this {call} was not approved in time"),
            ),
        };
        Failure {
            message,
            source: IDENTITY.to_owned(),
            failure_info: Some(FailureInfo::ApplicationFailureInfo(
                ApplicationFailureInfo {
                    r#type: r#type.to_owned(),
                    non_retryable: true,
                    ..Default::default()
                },
            )),
            ..Failure::default()
        }
    }
}

impl Run {
    /// Fails a call that is not under way.
    pub(crate) fn refuse(&mut self, cx: &mut Cx<'_>, id: i64, refusal: &Refusal, place: Place) {
        match self.state.command(id) {
            Some(Command::Tool(_)) => self.refuse_activity(cx, id, refusal, place),
            Some(Command::Child(_)) => self.refuse_child(cx, id, refusal, place),
            Some(Command::Signal(_)) => {
                let failed = self.signal_outcome(id, Err(SignalFailed::Unspecified));
                self.refusal_events(cx, failed, place);
            }
            Some(Command::Cancel(_)) => {
                let failed = self.cancel_outcome(cx, id, Err(CancelFailed::Unspecified));
                self.refusal_events(cx, failed, place);
            }
            // What was reported is refused with the workflow task.
            None | Some(Command::Reported(_)) => return,
        }
        if place == Place::Now {
            self.schedule_workflow_task(cx);
        }
    }

    fn refuse_child(&mut self, cx: &mut Cx<'_>, id: i64, refusal: &Refusal, place: Place) {
        // No run has it.
        let run_id = cx.ids.uuid();
        let Some(started) = self.child_started_attributes(id, run_id) else {
            return;
        };
        let mut failed = ChildWorkflowExecutionFailedEventAttributes {
            failure: Some(refusal.failure("start of a child")),
            namespace: started.namespace.clone(),
            namespace_id: started.namespace_id.clone(),
            workflow_execution: started.workflow_execution.clone(),
            workflow_type: started.workflow_type.clone(),
            initiated_event_id: id,
            started_event_id: 0,
            retry_state: RetryState::NonRetryableFailure as i32,
        };
        failed.started_event_id = self.refusal_event(cx, started.into(), place);
        self.refusal_event(cx, failed.into(), place);
    }

    /// Takes back a child that waits for an approval, as the agent asks by a cancel request: it looks like
    /// one that was cancelled. `requested` is the event that the request was taken.
    pub(crate) fn withdraw_child(
        &mut self,
        cx: &mut Cx<'_>,
        id: i64,
        requested: Option<Attributes>,
    ) {
        let place = Place::AfterTheCommands;
        self.refusal_events(cx, requested, place);
        let run_id = cx.ids.uuid();
        let Some(started) = self.child_started_attributes(id, run_id) else {
            return;
        };
        let mut canceled = ChildWorkflowExecutionCanceledEventAttributes {
            details: None,
            namespace: started.namespace.clone(),
            namespace_id: started.namespace_id.clone(),
            workflow_execution: started.workflow_execution.clone(),
            workflow_type: started.workflow_type.clone(),
            initiated_event_id: id,
            started_event_id: 0,
        };
        canceled.started_event_id = self.refusal_event(cx, started.into(), place);
        self.refusal_event(cx, canceled.into(), place);
    }

    fn refuse_activity(&mut self, cx: &mut Cx<'_>, id: i64, refusal: &Refusal, place: Place) {
        let Some(activity) = self.state.activities.get(&id) else {
            return;
        };
        let attempt = activity.attempt();
        let started = ActivityTaskStartedEventAttributes {
            scheduled_event_id: id,
            identity: IDENTITY.to_owned(),
            request_id: cx.ids.uuid(),
            attempt: attempt.number,
            last_failure: attempt.last_failure.clone(),
            ..Default::default()
        };
        let started_event_id = self.refusal_event(cx, started.into(), place);
        let failed = ActivityTaskFailedEventAttributes {
            failure: Some(refusal.failure("tool call")),
            scheduled_event_id: id,
            started_event_id,
            identity: IDENTITY.to_owned(),
            retry_state: RetryState::NonRetryableFailure as i32,
            ..Default::default()
        };
        self.refusal_event(cx, failed.into(), place);
    }

    fn refusal_events(&mut self, cx: &Cx<'_>, event: Option<Attributes>, place: Place) {
        if let Some(attributes) = event {
            self.refusal_event(cx, attributes, place);
        }
    }

    fn refusal_event(&mut self, cx: &Cx<'_>, attributes: Attributes, place: Place) -> i64 {
        // It is nobody's doing but the server's, whoever called.
        let by_the_server = |event: &mut HistoryEvent| event.principal = None;
        match place {
            Place::AfterTheCommands => self.buffer_event_with(cx, attributes, by_the_server),
            Place::Now => self.event_with(cx, attributes, by_the_server),
        }
    }
}
