//! Messages to other runs: kept in the sender's state until the receiver has them.

use prost::Message;

use crate::proto::enums::ParentClosePolicy;
use crate::proto::history::{HistoryEvent, history_event::Attributes};
use crate::record::StepKind;
use crate::run::{Cx, Run};
use crate::state::{ChildClosed, Delivery, OutMessage};

impl Run {
    /// The receiver has the message, or never will.
    pub fn message_delivered(&mut self, id: u64) {
        if self.state.outbox.contains_key(&id) {
            self.step(StepKind::Delivered(id));
        }
    }

    /// Tells parent and children that the run closed; to be called after its closing event.
    ///
    /// What the run still wanted to send is dropped: nobody is there to take the answers. So a
    /// child that is not started when its parent closes is not started at all, whatever its parent
    /// close policy.
    pub(crate) fn send_closing_messages(
        &mut self,
        cx: &mut Cx<'_>,
        close_event: &HistoryEvent,
        has_successor: bool,
    ) {
        let terminated = matches!(
            close_event.attributes,
            Some(Attributes::WorkflowExecutionTerminatedEventAttributes(_))
        );
        self.drop_requests(cx);
        if !has_successor {
            self.tell_parent(cx, close_event);
        }
        // Only a reset terminates a run that goes on in another one, which then has its children.
        let goes_on_with_children = terminated && has_successor;
        if !goes_on_with_children {
            self.tell_children(cx);
        }
    }

    fn drop_requests(&mut self, cx: &mut Cx<'_>) {
        let requests: Vec<u64> = self
            .state
            .outbox
            .values()
            .filter(|message| {
                matches!(
                    message.delivery,
                    Some(Delivery::StartChild(_) | Delivery::Signal(_) | Delivery::Cancel(_))
                )
            })
            .map(|message| message.id)
            .collect();
        for id in requests {
            self.message_delivered(id);
            let run_id = &self.state.run_id;
            cx.effects.retain(|effect| {
                !matches!(effect, crate::Effect::Message { run_id: sender, message }
                    if sender == run_id && message.id == id)
            });
        }
    }

    fn tell_parent(&mut self, cx: &mut Cx<'_>, close_event: &HistoryEvent) {
        let start = self.state.start();
        let Some(parent) = start.parent_workflow_execution.clone() else {
            return;
        };
        let first_run_id = match start.first_execution_run_id.is_empty() {
            true => self.state.run_id.clone(),
            false => start.first_execution_run_id.clone(),
        };
        let closed = ChildClosed {
            initiated_event_id: start.parent_initiated_event_id,
            first_run_id,
            workflow_type: self.state.workflow_type().to_owned(),
            close_event: close_event.encode_to_vec(),
            workflow_id: self.state.workflow_id.clone(),
            run_id: self.state.run_id.clone(),
        };
        let message = OutMessage {
            id: 0,
            namespace_id: start.parent_workflow_namespace_id.clone(),
            workflow_id: parent.workflow_id,
            run_id: parent.run_id,
            delivery: Some(Delivery::ChildClosed(closed)),
        };
        self.send(cx, message);
    }

    /// Applies the parent close policies, also of a run that goes on in another one: children
    /// belong to the run that started them.
    ///
    /// `run_id` is the first of the child's chain, which may have gone on since; it is empty if the
    /// parent does not know whether the child was started. So the receiver has to make sure that
    /// the run it finds is a child of the sender.
    fn tell_children(&mut self, cx: &mut Cx<'_>) {
        let messages: Vec<OutMessage> = self
            .state
            .children
            .values()
            .filter(|child| child.approval.as_ref().is_none_or(|of| !of.is_open()))
            .filter_map(|child| {
                let initiated = child.initiated();
                let policy = initiated.parent_close_policy();
                let acts = matches!(
                    policy,
                    ParentClosePolicy::Terminate | ParentClosePolicy::RequestCancel
                );
                acts.then(|| OutMessage {
                    id: 0,
                    namespace_id: initiated.namespace_id.clone(),
                    workflow_id: initiated.workflow_id.clone(),
                    run_id: child.run_id.clone(),
                    delivery: Some(Delivery::ParentClosed(policy as i32)),
                })
            })
            .collect();
        for message in messages {
            self.send(cx, message);
        }
    }
}
