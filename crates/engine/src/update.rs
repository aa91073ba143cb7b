//! Workflow updates: admitted → accepted → completed, or rejected.
//!
//! An admitted update is only in memory, and so is a rejection: neither leaves a trace in history.
//! From its acceptance on an update is durable. The exception is an update that a reset brings back:
//! history has an admitted event for it, and the worker reads the request there.

use crate::effect::Effect;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::proto::enums::EventType;
use crate::proto::failure::{ApplicationFailureInfo, Failure, failure::FailureInfo};
use crate::proto::history::{
    WorkflowExecutionUpdateAcceptedEventAttributes, WorkflowExecutionUpdateCompletedEventAttributes,
};
use crate::proto::protocol::{self, message::SequencingId};
use crate::proto::update::{Acceptance, Outcome, Request, Response, outcome};
use crate::proto::workflowservice::RespondWorkflowTaskCompletedRequest;
use crate::run::{Cx, Run};
use crate::state::{RunState, Update, WorkflowTask};
use crate::update_message::{Answer, answer, any, check_request, request_message_id, update_id};

/// Rejections that are remembered for callers that ask for them later.
const REMEMBERED_REJECTIONS: usize = 100;

/// Attempt of the workflow task from which on updates are refused: the workflow does not get past
/// its own history, so an update would only wait.
const REFUSED_FROM_ATTEMPT: i32 = 3;

/// Events that a dropped speculative task may have shown to a worker that can take them twice.
const EVENTS_SHOWN_TWICE: i64 = 10;

/// An update that the workflow has not accepted or rejected yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admitted {
    /// What the caller asks for.
    pub request: Request,
    /// Its id.
    pub update_id: String,
    /// Id of the message that carries it to the worker.
    pub message_id: String,
    /// Scheduled event of the workflow task that carried it, 0 while not delivered.
    pub delivered_to: i64,
    /// Whether history has its admitted event, so that no message needs to carry it.
    pub in_history: bool,
    /// Set when the run closed before the workflow took it.
    pub aborted: Option<Abort>,
}

/// Why an update will never be taken by this run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Abort {
    /// The workflow is over.
    Closed,
    /// Another run continues the workflow: the caller may ask that one.
    Continued,
}

/// How far an update got.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "made to be looked at once, never kept"
)]
pub enum UpdateView {
    /// No such update.
    Unknown,
    /// It waits for the workflow.
    Admitted,
    /// The workflow works on it.
    Accepted,
    /// It has an outcome; that of a rejected update is a failure.
    Completed(Outcome),
    /// The run closed before it could take it.
    Aborted(Abort),
}

impl Abort {
    /// What to tell the caller.
    pub fn error(self) -> Error {
        match self {
            Self::Closed => {
                Error::NotFound("workflow update was aborted by closing workflow".into())
            }
            Self::Continued => Error::ResourceExhausted(
                "the workflow is closing and another run continues it: try again".into(),
            ),
        }
    }
}

impl Admitted {
    /// An update that nobody has seen yet.
    pub(crate) fn new(request: Request, in_history: bool) -> Self {
        let update_id = update_id(&request).to_owned();
        Self {
            message_id: request_message_id(&update_id),
            update_id,
            request,
            in_history,
            ..Self::default()
        }
    }
}

/// How far an update got, as far as answers to it are concerned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stage {
    Admitted,
    Accepted,
    Completed,
}

impl Run {
    /// Takes in an update for the workflow to accept or reject; one that is known already changes
    /// nothing.
    pub fn admit_update(&mut self, cx: &mut Cx<'_>, request: Request) -> Result<()> {
        check_request(&request)?;
        let id = update_id(&request);
        if self.state.updates.contains_key(id) || self.admitted.iter().any(|a| a.update_id == id) {
            return Ok(());
        }
        if !self.state.is_running() {
            return Err(Error::completed());
        }
        if self.state.paused().is_some() {
            return Err(Error::FailedPrecondition(
                "Workflow is paused. Cannot update the workflow.".into(),
            ));
        }
        if self.state.workflow_task_attempt >= REFUSED_FROM_ATTEMPT {
            return Err(Error::WorkflowNotReady(
                "Unable to perform workflow execution update due to Workflow Task in failed state."
                    .into(),
            ));
        }
        self.check_in_flight_limit(cx.limits)?;
        self.check_total_limit(cx.limits)?;
        // The same id may be tried again after a rejection: only its new outcome counts.
        self.rejected.retain(|(rejected, _)| rejected != id);
        self.admitted.push(Admitted::new(request, false));
        self.schedule_speculative_task(cx);
        Ok(())
    }

    /// How far an update got.
    pub fn update_view(&self, update_id: &str) -> UpdateView {
        if let Some((_, failure)) = self.rejected.iter().rev().find(|(id, _)| id == update_id) {
            return UpdateView::Completed(failed(failure.clone()));
        }
        if let Some(admitted) = self
            .admitted
            .iter()
            .find(|admitted| admitted.update_id == update_id)
        {
            return admitted
                .aborted
                .map_or(UpdateView::Admitted, UpdateView::Aborted);
        }
        let Some(update) = self.state.updates.get(update_id) else {
            return UpdateView::Unknown;
        };
        let running = self.state.is_running();
        match stage(update) {
            Stage::Completed => UpdateView::Completed(update.outcome.clone().unwrap_or_default()),
            Stage::Accepted if running => UpdateView::Accepted,
            Stage::Accepted => UpdateView::Completed(failed(workflow_completed_failure())),
            Stage::Admitted if running => UpdateView::Admitted,
            Stage::Admitted => UpdateView::Aborted(abort_of_closed(&self.state)),
        }
    }

    /// The messages that bring updates to the worker that just started the task, and marks those
    /// updates as delivered. `include_delivered` repeats what earlier tasks brought, for a worker
    /// that has not seen them.
    pub fn update_messages(&mut self, include_delivered: bool) -> Vec<protocol::Message> {
        let Some(task) = self
            .workflow_task()
            .filter(|task| task.started_event_id != 0)
        else {
            return Vec::new();
        };
        let scheduled_event_id = task.scheduled_event_id;
        // Updates come after everything else that the task shows.
        let after = SequencingId::EventId(task.started_event_id - 1);
        let mut messages = Vec::new();
        for admitted in &mut self.admitted {
            if admitted.aborted.is_some() || (admitted.delivered_to != 0 && !include_delivered) {
                continue;
            }
            admitted.delivered_to = scheduled_event_id;
            if !admitted.in_history {
                messages.push(protocol::Message {
                    id: admitted.message_id.clone(),
                    protocol_instance_id: admitted.update_id.clone(),
                    sequencing_id: Some(after),
                    body: Some(any(&admitted.request)),
                });
            }
        }
        messages
    }

    /// Does what a checked message says.
    pub(crate) fn handle_message(
        &mut self,
        cx: &mut Cx<'_>,
        _completed_event_id: i64,
        message: protocol::Message,
    ) -> Result<()> {
        let answer = answer(&message)?;
        let update_id = message.protocol_instance_id;
        let running = self.state.is_running();
        match answer {
            Answer::Rejection(rejection) => {
                self.reject_update(cx, update_id, rejection.failure.unwrap_or_default());
            }
            // The run closed in the same workflow task: what becomes of the update is settled.
            _ if !running => {}
            Answer::Acceptance(acceptance) => self.accept_update(cx, update_id, acceptance),
            Answer::Response(response) => self.complete_update(cx, update_id, response),
        }
        Ok(())
    }

    /// Whether the speculative task in progress may be dropped as if it never was, given the
    /// worker's answer: nothing in it makes an event.
    pub(crate) fn only_rejections(&self, request: &RespondWorkflowTaskCompletedRequest) -> bool {
        let speculative = self
            .speculative
            .as_ref()
            .is_some_and(|task| task.started_event_id != 0);
        if !speculative || !request.commands.is_empty() || request.force_create_new_workflow_task {
            return false;
        }
        // Events that came with the task will come again with the next one. Only some workers can
        // take that, and nobody shall be sent a long list again and again.
        let takes_twice = request
            .capabilities
            .as_ref()
            .is_some_and(|can| can.discard_speculative_workflow_task_with_events);
        let allowed = if takes_twice { EVENTS_SHOWN_TWICE } else { 0 };
        // Behind the started event of the last task there is at least its completed event.
        let shown = self.state.next_event_id - (self.state.previous_started_event_id + 2);
        shown <= allowed
            && request
                .messages
                .iter()
                .all(|message| matches!(answer(message), Ok(Answer::Rejection(_))))
    }

    /// Rejects the updates that the completed task brought and the worker said nothing about: a
    /// worker that ignored them once would do so again.
    pub(crate) fn reject_unprocessed_updates(
        &mut self,
        cx: &mut Cx<'_>,
        _task: &WorkflowTask,
        force_create: bool,
    ) {
        // A heartbeat answers nothing yet.
        if force_create || !self.state.is_running() {
            return;
        }
        let ignored: Vec<String> = self
            .admitted
            .iter()
            .filter(|admitted| admitted.delivered_to != 0)
            .map(|admitted| admitted.update_id.clone())
            .collect();
        for update_id in ignored {
            self.reject_update(cx, update_id, unprocessed_failure());
        }
    }

    /// The task that brought updates failed or timed out: the next one brings them again.
    pub(crate) fn forget_delivered_updates(&mut self, _cx: &mut Cx<'_>) {
        for admitted in &mut self.admitted {
            admitted.delivered_to = 0;
        }
    }

    /// Whether updates wait for a workflow task to bring them.
    pub(crate) fn has_undelivered_updates(&self) -> bool {
        self.admitted
            .iter()
            .any(|admitted| admitted.delivered_to == 0 && admitted.aborted.is_none())
    }

    /// The run closed: whoever waits for an update is told. `continuing` if another run takes over.
    pub(crate) fn abort_updates(&mut self, cx: &mut Cx<'_>, continuing: bool) {
        let reason = if continuing {
            Abort::Continued
        } else {
            Abort::Closed
        };
        let mut changed = Vec::new();
        for admitted in &mut self.admitted {
            if admitted.aborted.is_none() {
                admitted.aborted = Some(reason);
                changed.push(admitted.update_id.clone());
            }
        }
        let unfinished = self
            .state
            .updates
            .iter()
            .filter(|(_, update)| stage(update) == Stage::Accepted);
        changed.extend(unfinished.map(|(id, _)| id.clone()));
        for update_id in changed {
            self.update_changed(cx, update_id);
        }
    }

    fn check_in_flight_limit(&self, limits: &Limits) -> Result<()> {
        let limit = limits.updates_in_flight;
        let unfinished = self
            .state
            .updates
            .values()
            .filter(|u| stage(u) != Stage::Completed)
            .count();
        let in_history = self
            .admitted
            .iter()
            .filter(|admitted| admitted.in_history)
            .count();
        if limit > 0 && self.admitted.len() - in_history + unfinished >= limit {
            return Err(Error::ResourceExhausted(format!(
                "limit on number of concurrent in-flight updates has been reached ({limit})"
            )));
        }
        Ok(())
    }

    pub(crate) fn check_total_limit(&self, limits: &Limits) -> Result<()> {
        let limit = limits.updates_total;
        let in_memory = self
            .admitted
            .iter()
            .filter(|admitted| !admitted.in_history)
            .count();
        if limit > 0 && in_memory + self.state.updates.len() >= limit {
            return Err(Error::FailedPrecondition(format!(
                "The limit on the total number of distinct updates in this workflow has been reached \
                 ({limit}). Give repeated updates the same id, reject those that will not be \
                 processed, or continue as new when the workflow is told to."
            )));
        }
        Ok(())
    }

    fn accept_update(&mut self, cx: &mut Cx<'_>, update_id: String, acceptance: Acceptance) {
        let admitted = self.forget_admitted(&update_id);
        // Where history has an admitted event, it has the request; once is enough.
        let accepted_request = match (admitted, self.state.updates.contains_key(&update_id)) {
            (_, true) => None,
            (Some(admitted), _) => Some(admitted.request),
            (None, _) => acceptance.accepted_request,
        };
        self.event(
            cx,
            WorkflowExecutionUpdateAcceptedEventAttributes {
                accepted_request_message_id: request_message_id(&update_id),
                protocol_instance_id: update_id.clone(),
                accepted_request_sequencing_event_id: acceptance
                    .accepted_request_sequencing_event_id,
                accepted_request,
            }
            .into(),
        );
        self.update_changed(cx, update_id);
    }

    fn complete_update(&mut self, cx: &mut Cx<'_>, update_id: String, response: Response) {
        let accepted = self.state.updates.get(&update_id);
        let accepted_event_id = accepted.map_or(0, |update| update.accepted_event_id);
        self.event(
            cx,
            WorkflowExecutionUpdateCompletedEventAttributes {
                meta: response.meta,
                accepted_event_id,
                outcome: response.outcome,
            }
            .into(),
        );
        self.update_changed(cx, update_id);
    }

    fn reject_update(&mut self, cx: &mut Cx<'_>, update_id: String, failure: Failure) {
        self.forget_admitted(&update_id);
        if self.rejected.len() >= REMEMBERED_REJECTIONS {
            self.rejected.pop_front();
        }
        self.rejected.push_back((update_id.clone(), failure));
        self.update_changed(cx, update_id);
    }

    fn forget_admitted(&mut self, update_id: &str) -> Option<Admitted> {
        let at = self
            .admitted
            .iter()
            .position(|admitted| admitted.update_id == update_id)?;
        Some(self.admitted.remove(at))
    }

    fn update_changed(&self, cx: &mut Cx<'_>, update_id: String) {
        cx.effects.push(Effect::UpdateChanged {
            run_id: self.state.run_id.clone(),
            update_id,
        });
    }

    pub(crate) fn apply_update_accepted(
        &mut self,
        id: i64,
        attributes: &WorkflowExecutionUpdateAcceptedEventAttributes,
    ) {
        self.state
            .count_update(&attributes.protocol_instance_id)
            .accepted_event_id = id;
        let request_id = attributes
            .accepted_request
            .as_ref()
            .map_or("", |request| &request.request_id);
        self.attach_request(request_id, EventType::WorkflowExecutionUpdateAccepted, id);
    }

    pub(crate) fn apply_update_completed(
        &mut self,
        id: i64,
        attributes: &WorkflowExecutionUpdateCompletedEventAttributes,
    ) {
        let update_id = attributes.meta.as_ref().map_or("", |meta| &meta.update_id);
        if let Some(update) = self.state.updates.get_mut(update_id) {
            update.completed_event_id = id;
            update.outcome.clone_from(&attributes.outcome);
        }
    }
}

impl RunState {
    /// The durable record of an update, made and counted if it is not there yet.
    pub(crate) fn count_update(&mut self, update_id: &str) -> &mut Update {
        if !self.updates.contains_key(update_id) {
            self.update_count += 1;
        }
        self.updates.entry(update_id.to_owned()).or_default()
    }
}

pub(crate) fn stage(update: &Update) -> Stage {
    match update {
        Update {
            accepted_event_id: 0,
            ..
        } => Stage::Admitted,
        Update {
            completed_event_id: 0,
            ..
        } => Stage::Accepted,
        _ => Stage::Completed,
    }
}

fn abort_of_closed(state: &RunState) -> Abort {
    if state.successor_run_id.is_empty() {
        Abort::Closed
    } else {
        Abort::Continued
    }
}

fn failed(failure: Failure) -> Outcome {
    Outcome {
        value: Some(outcome::Value::Failure(failure)),
    }
}

fn application_failure(kind: &str, message: &str) -> Failure {
    Failure {
        message: message.to_owned(),
        source: "Server".into(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(
            ApplicationFailureInfo {
                r#type: kind.to_owned(),
                non_retryable: true,
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

fn unprocessed_failure() -> Failure {
    application_failure(
        "UnprocessedUpdate",
        "Workflow Update is rejected because it wasn't processed by worker. Probably, Workflow \
         Update is not supported by the worker.",
    )
}

fn workflow_completed_failure() -> Failure {
    application_failure(
        "AcceptedUpdateCompletedWorkflow",
        "Workflow Update failed because the Workflow completed before the Update completed.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_durable_update_got() {
        let update = |accepted_event_id, completed_event_id| Update {
            accepted_event_id,
            completed_event_id,
            outcome: None,
        };
        assert_eq!(stage(&update(0, 0)), Stage::Admitted);
        assert_eq!(stage(&update(5, 0)), Stage::Accepted);
        assert_eq!(stage(&update(5, 6)), Stage::Completed);
    }
}
