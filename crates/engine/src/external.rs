//! Signals and cancel requests that a workflow sends to other workflows: initiated → delivered or
//! failed.
//!
//! Like children these are messages; the receiver knows a repeated one by its request id, and the
//! sender takes the news of a delivery once.

use crate::call::Command;
use crate::commands::{NewIds, check_size};
use crate::error::{Error, Result};
use crate::governance::Stage;
use crate::proto::command::{
    RequestCancelExternalWorkflowExecutionCommandAttributes,
    SignalExternalWorkflowExecutionCommandAttributes,
};
use crate::proto::common::WorkflowExecution;
use crate::proto::enums::{
    CancelExternalWorkflowExecutionFailedCause, SignalExternalWorkflowExecutionFailedCause,
    WorkflowTaskFailedCause as Cause,
};
use crate::proto::history::{
    ExternalWorkflowExecutionCancelRequestedEventAttributes,
    ExternalWorkflowExecutionSignaledEventAttributes, HistoryEvent,
    RequestCancelExternalWorkflowExecutionFailedEventAttributes,
    RequestCancelExternalWorkflowExecutionInitiatedEventAttributes,
    SignalExternalWorkflowExecutionFailedEventAttributes,
    SignalExternalWorkflowExecutionInitiatedEventAttributes, history_event::Attributes,
};
use crate::run::{Cx, Run};
use crate::signal::{CancelRequest, Signal};
use crate::state::{Approval, Delivery, ExternalCancel, ExternalSignal, OutMessage};
use crate::time::{Time, time};

/// Who the server is in events that it causes itself in other runs.
pub const IDENTITY: &str = "history-service";

/// The run that a signal or a cancel request is for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// Namespace id.
    pub namespace_id: String,
    /// Workflow id.
    pub workflow_id: String,
    /// Run id, empty for the current run.
    pub run_id: String,
    /// When the message was sent. A run that closed before then cannot have had it.
    pub sent: Time,
    /// Whether it is the sender's own workflow id: that cannot be delivered, and is to be answered
    /// as not found.
    pub is_sender: bool,
}

impl Run {
    /// Whether another workflow may be signalled.
    pub(crate) fn check_signal_external<'a>(
        &self,
        cx: &Cx<'_>,
        command: &'a SignalExternalWorkflowExecutionCommandAttributes,
        new: &mut NewIds<'a>,
    ) -> Result<()> {
        const CAUSE: Cause = Cause::BadSignalWorkflowExecutionAttributes;
        let Some(execution) = &command.execution else {
            return Err(Error::bad_command(
                CAUSE,
                "Execution is not set on SignalExternalWorkflowExecutionCommand.",
            ));
        };
        check_execution(cx, &execution.workflow_id, &execution.run_id, CAUSE)?;
        #[allow(deprecated)]
        check_target_namespace(cx, &command.namespace, CAUSE)?;
        if command.signal_name.is_empty() {
            return Err(Error::bad_command(
                CAUSE,
                "SignalName is not set on SignalExternalWorkflowExecutionCommand.",
            ));
        }
        check_id_length(cx, "SignalName", &command.signal_name, CAUSE)?;
        check_size(cx, &command.input, CAUSE, || {
            format!("Input of signal {}", command.signal_name)
        })?;
        new.signals += 1;
        if self.state.external_signals.len() + new.signals > cx.limits.pending {
            return Err(Error::bad_command(
                Cause::PendingSignalsLimitExceeded,
                format!(
                    "The workflow has {} pending signals to other workflows, the limit.",
                    cx.limits.pending
                ),
            ));
        }
        Ok(())
    }

    /// Whether another workflow's cancellation may be requested.
    pub(crate) fn check_cancel_external<'a>(
        &self,
        cx: &Cx<'_>,
        command: &'a RequestCancelExternalWorkflowExecutionCommandAttributes,
        new: &mut NewIds<'a>,
    ) -> Result<()> {
        const CAUSE: Cause = Cause::BadRequestCancelExternalWorkflowExecutionAttributes;
        let id = command.workflow_id.as_str();
        check_execution(cx, id, &command.run_id, CAUSE)?;
        #[allow(deprecated)]
        check_target_namespace(cx, &command.namespace, CAUSE)?;
        if new.child_workflow_ids.contains(id) {
            return Err(Error::bad_command(
                CAUSE,
                format!("Child {id} is started and cancelled by the same workflow task."),
            ));
        }
        new.cancels += 1;
        if self.state.external_cancels.len() + new.cancels > cx.limits.pending {
            return Err(Error::bad_command(
                Cause::PendingRequestCancelLimitExceeded,
                format!(
                    "The workflow has {} pending cancel requests to other workflows, the limit.",
                    cx.limits.pending
                ),
            ));
        }
        Ok(())
    }

    #[allow(deprecated)]
    pub(crate) fn signal_external(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        command: SignalExternalWorkflowExecutionCommandAttributes,
        adorn: impl FnOnce(&mut HistoryEvent),
    ) -> i64 {
        let execution = command.execution.unwrap_or_default();
        let attributes = SignalExternalWorkflowExecutionInitiatedEventAttributes {
            workflow_task_completed_event_id: completed_event_id,
            namespace: cx.namespace.to_owned(),
            namespace_id: self.state.namespace_id.clone(),
            workflow_execution: Some(execution),
            signal_name: command.signal_name,
            input: command.input,
            control: command.control,
            child_workflow_only: command.child_workflow_only,
            header: command.header,
        };
        let id = self.event_with(cx, attributes.into(), adorn);
        if self.may_run(cx, id, Stage::Scheduling) {
            self.dispatch(cx, id);
        }
        id
    }

    #[allow(deprecated)]
    pub(crate) fn cancel_external(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        command: RequestCancelExternalWorkflowExecutionCommandAttributes,
        adorn: impl FnOnce(&mut HistoryEvent),
    ) -> i64 {
        let execution = WorkflowExecution {
            workflow_id: command.workflow_id,
            run_id: command.run_id,
        };
        // As the command has it: it names the workflow's own namespace, or none.
        let namespace = command.namespace;
        let attributes = RequestCancelExternalWorkflowExecutionInitiatedEventAttributes {
            workflow_task_completed_event_id: completed_event_id,
            namespace,
            namespace_id: self.state.namespace_id.clone(),
            workflow_execution: Some(execution),
            control: command.control,
            child_workflow_only: command.child_workflow_only,
            reason: command.reason,
        };
        let withdrawn = self.waiting_child(&attributes);
        let id = self.event_with(cx, attributes.into(), adorn);
        if let Some(child) = withdrawn {
            // Nothing is sent, so nobody is asked.
            let requested = self.cancel_outcome(cx, id, Ok(()));
            self.withdraw_child(cx, child, requested);
        } else if self.may_run(cx, id, Stage::Scheduling) {
            self.dispatch(cx, id);
        }
        id
    }

    /// The child that is to be cancelled, if it waits for an approval.
    fn waiting_child(
        &self,
        cancel: &RequestCancelExternalWorkflowExecutionInitiatedEventAttributes,
    ) -> Option<i64> {
        let receiver = cancel.workflow_execution.as_ref()?;
        let is_it = |(_, command, _): &(i64, Command<'_>, &Approval)| {
            matches!(command, Command::Child(_)) && command.id() == receiver.workflow_id
        };
        let is_a_child = cancel.child_workflow_only && receiver.run_id.is_empty();
        let found = self.state.waiting().find(is_it).filter(|_| is_a_child);
        found.map(|(id, _, _)| id)
    }

    /// The signal was delivered, or cannot be.
    pub fn external_signal_delivered(
        &mut self,
        cx: &mut Cx<'_>,
        initiated_event_id: i64,
        outcome: std::result::Result<(), SignalExternalWorkflowExecutionFailedCause>,
    ) -> Result<()> {
        if let Some(attributes) = self.signal_outcome(initiated_event_id, outcome) {
            self.event(cx, attributes);
            self.schedule_workflow_task(cx);
        }
        Ok(())
    }

    /// The event that a signal was delivered, or cannot be; none if it is not under way.
    #[allow(deprecated)]
    pub(crate) fn signal_outcome(
        &self,
        initiated_event_id: i64,
        outcome: std::result::Result<(), SignalExternalWorkflowExecutionFailedCause>,
    ) -> Option<Attributes> {
        let initiated = self.pending_signal(initiated_event_id)?;
        let namespace = initiated.namespace.clone();
        let namespace_id = initiated.namespace_id.clone();
        let workflow_execution = initiated.workflow_execution.clone();
        let control = initiated.control.clone();
        Some(match outcome {
            Ok(()) => ExternalWorkflowExecutionSignaledEventAttributes {
                initiated_event_id,
                namespace,
                namespace_id,
                workflow_execution,
                control,
            }
            .into(),
            Err(cause) => SignalExternalWorkflowExecutionFailedEventAttributes {
                cause: cause as i32,
                workflow_task_completed_event_id: 0,
                namespace,
                namespace_id,
                workflow_execution,
                initiated_event_id,
                control,
            }
            .into(),
        })
    }

    /// The cancel request was delivered, or cannot be.
    pub fn external_cancel_delivered(
        &mut self,
        cx: &mut Cx<'_>,
        initiated_event_id: i64,
        outcome: std::result::Result<(), CancelExternalWorkflowExecutionFailedCause>,
    ) -> Result<()> {
        if let Some(attributes) = self.cancel_outcome(cx, initiated_event_id, outcome) {
            self.event(cx, attributes);
            self.schedule_workflow_task(cx);
        }
        Ok(())
    }

    /// The event that a cancel request was delivered, or cannot be; none if it is not under way.
    pub(crate) fn cancel_outcome(
        &self,
        cx: &Cx<'_>,
        initiated_event_id: i64,
        outcome: std::result::Result<(), CancelExternalWorkflowExecutionFailedCause>,
    ) -> Option<Attributes> {
        let initiated = self.pending_cancel(initiated_event_id)?;
        let namespace = cx.namespace.to_owned();
        let namespace_id = initiated.namespace_id.clone();
        let workflow_execution = initiated.workflow_execution.clone();
        Some(match outcome {
            Ok(()) => ExternalWorkflowExecutionCancelRequestedEventAttributes {
                initiated_event_id,
                namespace,
                namespace_id,
                workflow_execution,
            }
            .into(),
            Err(cause) => RequestCancelExternalWorkflowExecutionFailedEventAttributes {
                cause: cause as i32,
                namespace,
                namespace_id,
                workflow_execution,
                initiated_event_id,
                ..Default::default()
            }
            .into(),
        })
    }

    /// The signal to deliver, where to, and whether only to a child of this run; none if that is
    /// over, or not to be done any more.
    pub fn external_signal_request(
        &self,
        initiated_event_id: i64,
    ) -> Option<(Target, Signal, bool)> {
        let initiated = self.pending_signal(initiated_event_id)?;
        let pending = &self.state.external_signals[&initiated_event_id];
        let signal = Signal {
            name: initiated.signal_name.clone(),
            input: initiated.input.clone(),
            identity: IDENTITY.to_owned(),
            header: initiated.header.clone(),
            request_id: pending.request_id.clone(),
            external: Some(self.execution()),
            links: Vec::new(),
        };
        let target = self.target(
            &initiated.namespace_id,
            initiated.workflow_execution.as_ref(),
            pending.time,
        );
        Some((target, signal, initiated.child_workflow_only))
    }

    /// The cancel request to deliver, where to, and whether only to a child of this run; none if
    /// that is over, or not to be done any more.
    pub fn external_cancel_request(
        &self,
        initiated_event_id: i64,
    ) -> Option<(Target, CancelRequest, bool)> {
        let initiated = self.pending_cancel(initiated_event_id)?;
        let pending = &self.state.external_cancels[&initiated_event_id];
        let request = CancelRequest {
            reason: initiated.reason.clone(),
            identity: IDENTITY.to_owned(),
            request_id: pending.request_id.clone(),
            external: Some((self.execution(), initiated_event_id)),
            links: Vec::new(),
        };
        let target = self.target(
            &initiated.namespace_id,
            initiated.workflow_execution.as_ref(),
            pending.time,
        );
        Some((target, request, initiated.child_workflow_only))
    }

    pub(crate) fn apply_external_signal_initiated(
        &mut self,
        event: &HistoryEvent,
        attributes: &SignalExternalWorkflowExecutionInitiatedEventAttributes,
    ) {
        let id = event.event_id;
        let signal = ExternalSignal {
            initiated: Some(attributes.clone()),
            request_id: self.request_id_of(id),
            time: event.event_time.as_ref().map_or(0, time),
            approval: None,
        };
        self.state.external_signals.insert(id, signal);
    }

    pub(crate) fn apply_external_cancel_initiated(
        &mut self,
        event: &HistoryEvent,
        attributes: &RequestCancelExternalWorkflowExecutionInitiatedEventAttributes,
    ) {
        let id = event.event_id;
        let cancel = ExternalCancel {
            initiated: Some(attributes.clone()),
            request_id: self.request_id_of(id),
            time: event.event_time.as_ref().map_or(0, time),
            approval: None,
        };
        self.state.external_cancels.insert(id, cancel);
    }

    fn pending_signal(
        &self,
        initiated_event_id: i64,
    ) -> Option<&SignalExternalWorkflowExecutionInitiatedEventAttributes> {
        self.state
            .external_signals
            .get(&initiated_event_id)
            .filter(|_| self.state.is_running())?
            .initiated
            .as_ref()
    }

    fn pending_cancel(
        &self,
        initiated_event_id: i64,
    ) -> Option<&RequestCancelExternalWorkflowExecutionInitiatedEventAttributes> {
        self.state
            .external_cancels
            .get(&initiated_event_id)
            .filter(|_| self.state.is_running())?
            .initiated
            .as_ref()
    }

    fn target(
        &self,
        namespace_id: &str,
        execution: Option<&WorkflowExecution>,
        sent: Time,
    ) -> Target {
        let execution = execution.cloned().unwrap_or_default();
        Target {
            is_sender: namespace_id == self.state.namespace_id
                && execution.workflow_id == self.state.workflow_id,
            namespace_id: namespace_id.to_owned(),
            workflow_id: execution.workflow_id,
            run_id: execution.run_id,
            sent,
        }
    }

    fn execution(&self) -> WorkflowExecution {
        WorkflowExecution {
            workflow_id: self.state.workflow_id.clone(),
            run_id: self.state.run_id.clone(),
        }
    }

    /// A message to another workflow.
    pub(crate) fn message_to(
        &self,
        to: Option<&WorkflowExecution>,
        delivery: Delivery,
    ) -> OutMessage {
        let to = to.cloned().unwrap_or_default();
        OutMessage {
            id: 0,
            namespace_id: self.state.namespace_id.clone(),
            workflow_id: to.workflow_id,
            run_id: to.run_id,
            delivery: Some(delivery),
        }
    }
}

/// Commands stay in their own namespace: whoever may complete a workflow's tasks was not thereby
/// allowed to do anything in another one.
pub(crate) fn check_target_namespace(cx: &Cx<'_>, namespace: &str, cause: Cause) -> Result<()> {
    if namespace.is_empty() || namespace == cx.namespace {
        return Ok(());
    }
    let message = match cx.namespaces.id(namespace) {
        Some(_) => {
            format!("Namespace {namespace} is not the workflow's own, which is not allowed.")
        }
        // Not the workflow's fault, so its task is not failed for it.
        None => {
            return Err(Error::NotFound(format!(
                "Namespace {namespace} is not found."
            )));
        }
    };
    Err(Error::bad_command(cause, message))
}

fn check_execution(cx: &Cx<'_>, workflow_id: &str, run_id: &str, cause: Cause) -> Result<()> {
    if workflow_id.is_empty() {
        return Err(Error::bad_command(
            cause,
            "WorkflowId of the other workflow is not set.",
        ));
    }
    check_id_length(cx, "WorkflowId", workflow_id, cause)?;
    if !run_id.is_empty() && !is_uuid(run_id) {
        return Err(Error::bad_command(
            cause,
            format!("RunId {run_id} of workflow {workflow_id} is not a valid one."),
        ));
    }
    Ok(())
}

fn check_id_length(cx: &Cx<'_>, what: &str, id: &str, cause: Cause) -> Result<()> {
    if id.len() <= cx.limits.id_bytes {
        return Ok(());
    }
    Err(Error::bad_command(
        cause,
        format!("{what} is longer than {} bytes.", cx.limits.id_bytes),
    ))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_id_looks_like() {
        let table = [
            ("0190f3c4-7b1a-7c3d-9e2f-000000000001", true),
            ("0190F3C4-7B1A-7C3D-9E2F-00000000000A", true),
            ("0190f3c4-7b1a-7c3d-9e2f-00000000000", false),
            ("0190f3c4-7b1a-7c3d-9e2f-0000000000011", false),
            ("0190f3c47b1a-7c3d-9e2f--000000000001", false),
            ("0190f3c4-7b1a-7c3d-9e2f-00000000000g", false),
            ("run", false),
        ];
        for (text, valid) in table {
            assert_eq!(is_uuid(text), valid, "{text}");
        }
    }
}
