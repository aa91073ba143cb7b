//! Signals from outside, and cancel requests.

use crate::error::{Error, Result};
use crate::proto::common::{Header, Link, Payloads, WorkflowExecution};
use crate::proto::enums::EventType;
use crate::proto::history::{
    WorkflowExecutionCancelRequestedEventAttributes,
    WorkflowExecutionOptionsUpdatedEventAttributes, WorkflowExecutionSignaledEventAttributes,
};
use crate::record::StepKind;
use crate::run::{Cx, Run};
use crate::state::RequestIdInfo;

/// A signal to deliver.
#[derive(Clone, Debug, Default)]
pub struct Signal {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub input: Option<Payloads>,
    /// Who sends it.
    pub identity: String,
    /// Its header.
    pub header: Option<Header>,
    /// By which a repeated request is recognised; empty for none.
    pub request_id: String,
    /// The workflow that sends it, if one does.
    pub external: Option<WorkflowExecution>,
    /// Links.
    pub links: Vec<Link>,
}

/// A cancel request to deliver.
#[derive(Clone, Debug, Default)]
pub struct CancelRequest {
    /// Why.
    pub reason: String,
    /// Who asks.
    pub identity: String,
    /// By which a repeated request is recognised; empty for none.
    pub request_id: String,
    /// The workflow that asks, if one does, and its initiated event.
    pub external: Option<(WorkflowExecution, i64)>,
    /// Links.
    pub links: Vec<Link>,
}

impl Run {
    /// Delivers a signal; a repeated one changes nothing.
    pub fn signal(&mut self, cx: &mut Cx<'_>, signal: Signal) -> Result<()> {
        if !self.state.is_running() {
            return Err(Error::completed());
        }
        if self.has_taken(&signal.request_id) {
            return Ok(());
        }
        if self.state.signal_count >= cx.limits.signals {
            return Err(Error::ResourceExhausted(
                "exceeded workflow execution limit for signal events".into(),
            ));
        }
        let links = signal.links;
        self.event_with(
            cx,
            WorkflowExecutionSignaledEventAttributes {
                signal_name: signal.name,
                input: signal.input,
                identity: signal.identity,
                header: signal.header,
                external_workflow_execution: signal.external,
                request_id: signal.request_id,
                ..Default::default()
            }
            .into(),
            |event| event.links = links,
        );
        self.schedule_workflow_task(cx);
        Ok(())
    }

    /// Asks the workflow to cancel itself; a repeated request changes nothing.
    pub fn request_cancel(&mut self, cx: &mut Cx<'_>, request: CancelRequest) -> Result<()> {
        if !self.state.is_running() {
            return Err(Error::completed());
        }
        if request.external.is_some() {
            // Its sender may ask again when this run has long gone on in another one.
            self.remember_request(&request.request_id);
        }
        if self.state.cancel_requested {
            // Asked already, by this request or by another: there is nothing to add.
            return Ok(());
        }
        let (external, initiated) = match request.external {
            Some((execution, initiated)) => (Some(execution), initiated),
            None => (None, 0),
        };
        let links = request.links;
        self.event_with(
            cx,
            WorkflowExecutionCancelRequestedEventAttributes {
                cause: request.reason,
                external_initiated_event_id: initiated,
                external_workflow_execution: external,
                identity: request.identity,
            }
            .into(),
            |event| event.links = links,
        );
        self.schedule_workflow_task(cx);
        Ok(())
    }

    pub(crate) fn apply_signaled(
        &mut self,
        id: i64,
        attributes: &WorkflowExecutionSignaledEventAttributes,
    ) {
        self.state.signal_count += 1;
        if attributes.request_id.is_empty() {
            return;
        }
        let request_id = &attributes.request_id;
        if let Err(at) = self.state.signal_request_ids.binary_search(request_id) {
            self.state.signal_request_ids.insert(at, request_id.clone());
        }
        self.state.request_ids.insert(
            request_id.clone(),
            RequestIdInfo {
                event_type: EventType::WorkflowExecutionSignaled as i32,
                event_id: id.max(0),
            },
        );
    }

    /// Leaves the id and links of a start request that uses this run.
    pub fn attach_start_request(&mut self, cx: &mut Cx<'_>, request_id: &str, links: Vec<Link>) {
        if request_id.is_empty() || self.state.request_ids.contains_key(request_id) {
            return;
        }
        let attributes = WorkflowExecutionOptionsUpdatedEventAttributes {
            attached_request_id: request_id.to_owned(),
            ..Default::default()
        };
        self.event_with(cx, attributes.into(), |event| {
            event.links = links;
            event.worker_may_ignore = true;
        });
    }

    /// Whether the run took a signal, or a cancel request of another workflow, with this request id.
    pub fn has_taken(&self, request_id: &str) -> bool {
        let known = &self.state.signal_request_ids;
        !request_id.is_empty()
            && known
                .binary_search_by(|id| id.as_str().cmp(request_id))
                .is_ok()
    }

    /// Remembers a request id that made no event.
    pub fn remember_request(&mut self, request_id: &str) {
        if !request_id.is_empty() && !self.has_taken(request_id) {
            self.step(StepKind::RequestId(request_id.to_owned()));
        }
    }
}
