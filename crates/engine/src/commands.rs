//! A completed workflow task: its commands and messages, checked as a whole before the first of
//! them changes anything.

use std::collections::HashSet;

use prost::Message;

use crate::error::{Error, Result};
use crate::proto::command::{Command, command::Attributes as C};
use crate::proto::common::{Payloads, Priority};
use crate::proto::enums::{CommandType, WorkflowTaskFailedCause as Cause};
use crate::proto::history::{
    HistoryEvent, WorkflowTaskCompletedEventAttributes, WorkflowTaskFailedEventAttributes,
};
use crate::proto::workflowservice::RespondWorkflowTaskCompletedRequest;
use crate::record::StepKind;
use crate::run::{Cx, Run};
use crate::state::{Sticky, WorkflowTask};
use crate::time::span;
use crate::workflow_task::{Poller, TaskClaim};

/// What the commands of one task add, for checks among themselves.
#[derive(Default)]
pub(crate) struct NewIds<'a> {
    /// Timers.
    pub(crate) timers: HashSet<&'a str>,
    /// Activities.
    pub(crate) activities: HashSet<&'a str>,
    /// Children.
    pub(crate) children: usize,
    /// Their workflow ids.
    pub(crate) child_workflow_ids: HashSet<&'a str>,
    /// Signals to other workflows.
    pub(crate) signals: usize,
    /// Cancel requests to other workflows.
    pub(crate) cancels: usize,
    /// No event that the task makes has a higher id.
    pub(crate) last_event_id: i64,
}

/// What the completion of a workflow task led to.
#[derive(Debug, Default)]
pub struct Completed {
    /// The next workflow task, already started for the same worker.
    pub next_task: Option<WorkflowTask>,
    /// Activities to hand to the same worker, already started.
    pub eager_activities: Vec<i64>,
    /// For a task that left no trace: where the worker shall roll its history back to.
    pub reset_history_event_id: i64,
}

/// How the answer was taken.
#[derive(Debug)]
pub enum Completion {
    /// It was done.
    Done(Completed),
    /// It broke the rules, or policies refuse what it tells: the task was failed, which is recorded, and the
    /// worker is to be told. A policy's refusal of an attempt that is not the first is recorded only.
    Refused(Error),
    /// Heartbeats went on for too long: the task was timed out, which is recorded.
    HeartbeatTimedOut,
}

impl Run {
    /// Takes a worker's answer to a workflow task. `next_poller` is the worker itself, for tasks that
    /// it is given with the answer; `refusal` is what the caller, who knows more than the engine, has
    /// against it.
    ///
    /// Errors (nothing is recorded): the task is not there any more, or the answer breaks the rules
    /// on an attempt that is not the first, in which case the task is left to time out.
    pub fn complete_workflow_task(
        &mut self,
        cx: &mut Cx<'_>,
        claim: &TaskClaim,
        mut request: RespondWorkflowTaskCompletedRequest,
        next_poller: Option<&Poller>,
        refusal: Option<Error>,
    ) -> Result<Completion> {
        let task = self.claimed_task(claim)?;
        let checked = refusal.map_or_else(|| self.check_answer(cx, &request), Err);
        if let Err(error) = checked {
            return self.refuse_answer(cx, &task, &request, error);
        }
        if let Err(error) = self.decide_reported(cx, &request) {
            return self.refuse_reported(cx, &task, &request, error);
        }
        let heartbeat = request.force_create_new_workflow_task
            && request.commands.is_empty()
            && request.messages.is_empty();
        if heartbeat && task.original_scheduled_time + cx.limits.workflow_task_heartbeat < cx.now {
            self.set_heartbeat_since(0);
            self.time_out_started_task(cx);
            return Ok(Completion::HeartbeatTimedOut);
        }
        if task.speculative && self.speculative.is_some() && self.only_rejections(&request) {
            return Ok(Completion::Done(self.drop_task(
                cx,
                &task,
                request,
                next_poller,
            )));
        }
        self.set_heartbeat_since(if heartbeat {
            task.original_scheduled_time
        } else {
            0
        });
        let completed = self.add_completed_event(cx, &task, completed_attributes(&mut request));
        self.take_sticky(&request);
        let mut done = Completed::default();
        let closed_activity =
            self.handle_commands(cx, completed, &mut request, next_poller, &mut done)?;
        self.reject_unprocessed_updates(cx, &task, request.force_create_new_workflow_task);
        if self.state.is_running() {
            let unseen = !self.state.buffered.is_empty();
            let normal = request.force_create_new_workflow_task || unseen || closed_activity;
            if normal {
                self.schedule_workflow_task(cx);
            } else if self.has_undelivered_updates() {
                self.schedule_speculative_task(cx);
            }
            self.start_next_task(cx, &request, next_poller, &mut done);
        }
        Ok(Completion::Done(done))
    }

    /// Everything that can be wrong with an answer.
    fn check_answer(
        &self,
        cx: &Cx<'_>,
        request: &RespondWorkflowTaskCompletedRequest,
    ) -> Result<()> {
        check_sequence(&request.commands)?;
        let mut new = NewIds {
            // The task's own events come before those of its commands.
            last_event_id: self.state.next_event_id + 3 + request.commands.len() as i64,
            ..NewIds::default()
        };
        for command in &request.commands {
            let closes = self.check_command(cx, command, &mut new)?;
            if closes && !self.state.buffered.is_empty() {
                return Err(Error::bad_command(
                    Cause::UnhandledCommand,
                    "UnhandledCommand",
                ));
            }
        }
        self.check_messages(cx, &request.messages, &request.commands)
    }

    /// Checks one command. Returns whether it closes the run.
    fn check_command<'a>(
        &self,
        cx: &Cx<'_>,
        command: &'a Command,
        new: &mut NewIds<'a>,
    ) -> Result<bool> {
        let cause = cause_of(command.command_type());
        let attributes = match &command.attributes {
            Some(attributes) if type_of(attributes) == command.command_type() => attributes,
            _ => {
                let name = command.command_type().as_str_name();
                let message = format!("Attributes of {name} are not set on the command.");
                return Err(Error::bad_command(cause, message));
            }
        };
        match attributes {
            C::ScheduleActivityTaskCommandAttributes(a) => {
                self.check_schedule_activity(cx, a, new)?
            }
            C::RequestCancelActivityTaskCommandAttributes(a) => {
                self.check_cancel_activity(a, new)?
            }
            C::StartTimerCommandAttributes(a) => self.check_start_timer(cx, a, &mut new.timers)?,
            C::CancelTimerCommandAttributes(a) => self.check_cancel_timer(a, &mut new.timers)?,
            C::StartChildWorkflowExecutionCommandAttributes(a) => {
                self.check_start_child(cx, a, new)?
            }
            C::SignalExternalWorkflowExecutionCommandAttributes(a) => {
                self.check_signal_external(cx, a, new)?;
            }
            C::RequestCancelExternalWorkflowExecutionCommandAttributes(a) => {
                self.check_cancel_external(cx, a, new)?;
            }
            C::RecordMarkerCommandAttributes(a) => self.check_marker(cx, a)?,
            C::UpsertWorkflowSearchAttributesCommandAttributes(a) => {
                self.check_search_attributes(cx, a)?;
            }
            C::ModifyWorkflowPropertiesCommandAttributes(a) => self.check_properties(cx, a)?,
            C::ProtocolMessageCommandAttributes(_) => {}
            C::CompleteWorkflowExecutionCommandAttributes(a) => {
                check_size(
                    cx,
                    &a.result,
                    Cause::BadCompleteWorkflowExecutionAttributes,
                    || "Result of the workflow".into(),
                )?;
                return Ok(true);
            }
            C::FailWorkflowExecutionCommandAttributes(a) => {
                let Some(failure) = &a.failure else {
                    return Err(Error::bad_command(
                        Cause::BadFailWorkflowExecutionAttributes,
                        "Failure is not set on FailWorkflowExecutionCommand.",
                    ));
                };
                if failure.encoded_len() > cx.limits.blob_bytes {
                    return Err(Error::bad_command(
                        Cause::BadFailWorkflowExecutionAttributes,
                        format!("Failure is larger than {} bytes.", cx.limits.blob_bytes),
                    ));
                }
                return Ok(true);
            }
            C::CancelWorkflowExecutionCommandAttributes(_) => return Ok(true),
            C::ContinueAsNewWorkflowExecutionCommandAttributes(a) => {
                self.check_continue_as_new(cx, a)?;
                return Ok(true);
            }
            C::ScheduleNexusOperationCommandAttributes(_)
            | C::RequestCancelNexusOperationCommandAttributes(_) => {
                return Err(Error::bad_command(
                    Cause::FeatureDisabled,
                    "Nexus operations are not supported by this server.",
                ));
            }
        }
        Ok(false)
    }

    /// Does what the commands say, then takes the messages that no command placed. Returns whether an
    /// activity was cancelled, or something refused, on the spot, which the workflow needs another task to see.
    fn handle_commands(
        &mut self,
        cx: &mut Cx<'_>,
        completed: i64,
        request: &mut RespondWorkflowTaskCompletedRequest,
        worker: Option<&Poller>,
        done: &mut Completed,
    ) -> Result<bool> {
        let identity = request.identity.clone();
        let mut messages: Vec<_> = std::mem::take(&mut request.messages);
        let mut closed_activity = false;
        for command in std::mem::take(&mut request.commands) {
            if !self.state.is_running() {
                break;
            }
            let Some(attributes) = command.attributes else {
                continue;
            };
            let metadata = command.user_metadata;
            let markers = command.event_group_markers;
            let adorn = |event: &mut HistoryEvent| {
                event.user_metadata = metadata;
                event.event_group_markers = markers;
            };
            match attributes {
                C::ScheduleActivityTaskCommandAttributes(a) => {
                    let eager = a.request_eager_execution && worker.is_some();
                    let (id, may_run) = self.schedule_activity(cx, completed, a, !eager, adorn);
                    if let Some(worker) = worker.filter(|_| eager && may_run) {
                        self.start_eager_activity(cx, id, worker, done);
                    }
                    closed_activity |= !self.state.activities.contains_key(&id);
                }
                C::RequestCancelActivityTaskCommandAttributes(a) => {
                    closed_activity |=
                        self.cancel_activity(cx, completed, &identity, a.scheduled_event_id);
                }
                C::StartTimerCommandAttributes(a) => self.start_timer(cx, completed, a, adorn),
                C::CancelTimerCommandAttributes(a) => {
                    self.cancel_timer(cx, completed, &identity, a.timer_id);
                }
                C::StartChildWorkflowExecutionCommandAttributes(a) => {
                    let id = self.start_child(cx, completed, a, adorn);
                    closed_activity |= self.state.command(id).is_none();
                }
                C::SignalExternalWorkflowExecutionCommandAttributes(a) => {
                    let id = self.signal_external(cx, completed, a, adorn);
                    closed_activity |= self.state.command(id).is_none();
                }
                C::RequestCancelExternalWorkflowExecutionCommandAttributes(a) => {
                    let id = self.cancel_external(cx, completed, a, adorn);
                    closed_activity |= self.state.command(id).is_none();
                }
                C::RecordMarkerCommandAttributes(a) => self.record_marker(cx, completed, a, adorn),
                C::UpsertWorkflowSearchAttributesCommandAttributes(a) => {
                    self.upsert_search_attributes(cx, completed, a, adorn);
                }
                C::ModifyWorkflowPropertiesCommandAttributes(a) => {
                    self.modify_properties(cx, completed, a, adorn);
                }
                C::ProtocolMessageCommandAttributes(a) => {
                    if let Some(at) = messages.iter().position(|m| m.id == a.message_id) {
                        let message = messages.remove(at);
                        self.handle_message(cx, completed, message)?;
                    }
                }
                C::CompleteWorkflowExecutionCommandAttributes(a) => {
                    self.handle_messages(cx, completed, &mut messages)?;
                    self.complete(cx, completed, a.result);
                }
                C::FailWorkflowExecutionCommandAttributes(a) => {
                    self.handle_messages(cx, completed, &mut messages)?;
                    self.fail(cx, completed, a.failure);
                }
                C::CancelWorkflowExecutionCommandAttributes(a) => {
                    self.handle_messages(cx, completed, &mut messages)?;
                    self.cancel(cx, completed, a.details);
                }
                C::ContinueAsNewWorkflowExecutionCommandAttributes(a) => {
                    self.handle_messages(cx, completed, &mut messages)?;
                    self.continue_as_new(cx, completed, a);
                }
                C::ScheduleNexusOperationCommandAttributes(_)
                | C::RequestCancelNexusOperationCommandAttributes(_) => {}
            }
        }
        if self.state.is_running() {
            self.handle_messages(cx, completed, &mut messages)?;
        }
        Ok(closed_activity)
    }

    fn handle_messages(
        &mut self,
        cx: &mut Cx<'_>,
        completed: i64,
        messages: &mut Vec<crate::proto::protocol::Message>,
    ) -> Result<()> {
        for message in messages.drain(..) {
            self.handle_message(cx, completed, message)?;
        }
        Ok(())
    }

    /// Starts an activity for the worker that scheduled it, without a round through its queue.
    fn start_eager_activity(
        &mut self,
        cx: &mut Cx<'_>,
        id: i64,
        worker: &Poller,
        done: &mut Completed,
    ) {
        let poller = Poller {
            request_id: cx.ids.uuid(),
            ..worker.clone()
        };
        if self.start_activity(cx, id, 1, &poller).is_ok() {
            done.eager_activities.push(id);
        }
    }

    /// Hands the new workflow task to the worker that completed the last one, if it asked for it.
    fn start_next_task(
        &mut self,
        cx: &mut Cx<'_>,
        request: &RespondWorkflowTaskCompletedRequest,
        next_poller: Option<&Poller>,
        done: &mut Completed,
    ) {
        let Some(poller) = next_poller.filter(|_| request.return_new_workflow_task) else {
            return;
        };
        let Some(id) = self
            .workflow_task()
            .filter(|task| task.started_event_id == 0)
            .map(|task| task.scheduled_event_id)
        else {
            return;
        };
        if let Ok(task) = self.start_workflow_task(cx, id, poller) {
            Self::withdraw_task_offer(cx, &self.state.run_id);
            done.next_task = Some(task);
        }
    }

    /// A speculative task whose updates were all rejected: nothing happened.
    fn drop_task(
        &mut self,
        cx: &mut Cx<'_>,
        task: &WorkflowTask,
        mut request: RespondWorkflowTaskCompletedRequest,
        next_poller: Option<&Poller>,
    ) -> Completed {
        let mut done = Completed {
            reset_history_event_id: self.state.previous_started_event_id,
            ..Completed::default()
        };
        self.drop_speculative_task();
        for message in std::mem::take(&mut request.messages) {
            // Checked before; a rejection changes nothing durable.
            let _ = self.handle_message(cx, 0, message);
        }
        self.reject_unprocessed_updates(cx, task, false);
        if self.has_undelivered_updates() {
            self.schedule_speculative_task(cx);
            self.start_next_task(cx, &request, next_poller, &mut done);
        }
        done
    }

    /// Fails the task whose answer breaks the rules.
    fn refuse_answer(
        &mut self,
        cx: &mut Cx<'_>,
        task: &WorkflowTask,
        request: &RespondWorkflowTaskCompletedRequest,
        error: Error,
    ) -> Result<Completion> {
        let Error::BadCommand { cause, message } = &error else {
            return Err(error);
        };
        if task.attempt > 1 && *cause != Cause::UnhandledCommand {
            // It fails again and again: leaving it to its time-out is what paces the attempts.
            return Err(Error::InvalidArgument(message.clone()));
        }
        let failed = WorkflowTaskFailedEventAttributes {
            cause: *cause as i32,
            failure: Some(crate::proto::failure::Failure {
                source: String::new(),
                ..crate::failure::server(message.clone(), false)
            }),
            identity: request.identity.clone(),
            binary_checksum: request.binary_checksum.clone(),
            ..Default::default()
        };
        self.fail_task(cx, task, failed);
        self.forget_delivered_updates(cx);
        self.schedule_workflow_task(cx);
        Ok(Completion::Refused(error))
    }

    /// Fails the task whose answer policies refuse. Each refusal is recorded; attempts that are not the first
    /// are left to time out, as others are that break the rules.
    fn refuse_reported(
        &mut self,
        cx: &mut Cx<'_>,
        task: &WorkflowTask,
        request: &RespondWorkflowTaskCompletedRequest,
        error: Error,
    ) -> Result<Completion> {
        match task.attempt {
            1 => self.refuse_answer(cx, task, request, error),
            _ => Ok(Completion::Refused(error)),
        }
    }

    fn take_sticky(&mut self, request: &RespondWorkflowTaskCompletedRequest) {
        let queue = request
            .sticky_attributes
            .as_ref()
            .and_then(|sticky| Some((sticky.worker_task_queue.as_ref()?, sticky)));
        match queue {
            Some((queue, sticky)) if !queue.name.is_empty() => self.set_sticky(Sticky {
                queue: queue.name.clone(),
                schedule_to_start: span(&sticky.schedule_to_start_timeout),
            }),
            _ => self.reset_sticky(),
        }
    }

    fn set_heartbeat_since(&mut self, since: i64) {
        if self.state.heartbeat_since != since {
            self.step(StepKind::HeartbeatSince(since));
        }
    }
}

/// Refuses sequences that no worker makes: unknown commands, and commands after the one that closes
/// the run. This is not the workflow's fault, so the task is not failed for it.
fn check_sequence(commands: &[Command]) -> Result<()> {
    use CommandType as T;
    for (index, command) in commands.iter().enumerate() {
        let command_type = command.command_type();
        let closes = matches!(
            command_type,
            T::CompleteWorkflowExecution
                | T::FailWorkflowExecution
                | T::CancelWorkflowExecution
                | T::ContinueAsNewWorkflowExecution
        );
        if command_type == T::Unspecified {
            return Err(Error::InvalidArgument(format!(
                "Unknown command type: {}.",
                command.command_type
            )));
        }
        if closes && index + 1 < commands.len() {
            return Err(Error::InvalidArgument(format!(
                "invalid command sequence: {} must be the last command",
                command_type.as_str_name()
            )));
        }
    }
    Ok(())
}

/// The type of the command that attributes belong to.
pub fn type_of(attributes: &C) -> CommandType {
    use CommandType as T;
    match attributes {
        C::ScheduleActivityTaskCommandAttributes(_) => T::ScheduleActivityTask,
        C::RequestCancelActivityTaskCommandAttributes(_) => T::RequestCancelActivityTask,
        C::StartTimerCommandAttributes(_) => T::StartTimer,
        C::CancelTimerCommandAttributes(_) => T::CancelTimer,
        C::CompleteWorkflowExecutionCommandAttributes(_) => T::CompleteWorkflowExecution,
        C::FailWorkflowExecutionCommandAttributes(_) => T::FailWorkflowExecution,
        C::CancelWorkflowExecutionCommandAttributes(_) => T::CancelWorkflowExecution,
        C::RequestCancelExternalWorkflowExecutionCommandAttributes(_) => {
            T::RequestCancelExternalWorkflowExecution
        }
        C::RecordMarkerCommandAttributes(_) => T::RecordMarker,
        C::ContinueAsNewWorkflowExecutionCommandAttributes(_) => T::ContinueAsNewWorkflowExecution,
        C::StartChildWorkflowExecutionCommandAttributes(_) => T::StartChildWorkflowExecution,
        C::SignalExternalWorkflowExecutionCommandAttributes(_) => {
            T::SignalExternalWorkflowExecution
        }
        C::UpsertWorkflowSearchAttributesCommandAttributes(_) => T::UpsertWorkflowSearchAttributes,
        C::ProtocolMessageCommandAttributes(_) => T::ProtocolMessage,
        C::ModifyWorkflowPropertiesCommandAttributes(_) => T::ModifyWorkflowProperties,
        C::ScheduleNexusOperationCommandAttributes(_) => T::ScheduleNexusOperation,
        C::RequestCancelNexusOperationCommandAttributes(_) => T::RequestCancelNexusOperation,
    }
}

/// The cause that names a command of this type as the bad one.
fn cause_of(command_type: CommandType) -> Cause {
    use CommandType as T;
    match command_type {
        T::ScheduleActivityTask => Cause::BadScheduleActivityAttributes,
        T::RequestCancelActivityTask => Cause::BadRequestCancelActivityAttributes,
        T::StartTimer => Cause::BadStartTimerAttributes,
        T::CancelTimer => Cause::BadCancelTimerAttributes,
        T::CompleteWorkflowExecution => Cause::BadCompleteWorkflowExecutionAttributes,
        T::FailWorkflowExecution => Cause::BadFailWorkflowExecutionAttributes,
        T::CancelWorkflowExecution => Cause::BadCancelWorkflowExecutionAttributes,
        T::RequestCancelExternalWorkflowExecution => {
            Cause::BadRequestCancelExternalWorkflowExecutionAttributes
        }
        T::RecordMarker => Cause::BadRecordMarkerAttributes,
        T::ContinueAsNewWorkflowExecution => Cause::BadContinueAsNewAttributes,
        T::StartChildWorkflowExecution => Cause::BadStartChildExecutionAttributes,
        T::SignalExternalWorkflowExecution => Cause::BadSignalWorkflowExecutionAttributes,
        T::UpsertWorkflowSearchAttributes => Cause::BadSearchAttributes,
        T::ModifyWorkflowProperties => Cause::BadModifyWorkflowPropertiesAttributes,
        T::ProtocolMessage => Cause::BadUpdateWorkflowExecutionMessage,
        _ => Cause::Unspecified,
    }
}

/// What is wrong with a priority, if anything is.
pub fn check_priority(priority: Option<&Priority>) -> std::result::Result<(), String> {
    /// Longest fairness key, in bytes.
    const FAIRNESS_KEY_BYTES: usize = 64;
    let Some(priority) = priority else {
        return Ok(());
    };
    if priority.priority_key < 0 {
        return Err("priority key can't be negative".into());
    }
    if priority.fairness_key.len() > FAIRNESS_KEY_BYTES {
        return Err(format!(
            "fairness key length exceeds limit of {FAIRNESS_KEY_BYTES}"
        ));
    }
    Ok(())
}

fn completed_attributes(
    request: &mut RespondWorkflowTaskCompletedRequest,
) -> WorkflowTaskCompletedEventAttributes {
    WorkflowTaskCompletedEventAttributes {
        identity: request.identity.clone(),
        binary_checksum: std::mem::take(&mut request.binary_checksum),
        worker_version: request.worker_version_stamp.take(),
        sdk_metadata: request.sdk_metadata.take(),
        metering_metadata: request.metering_metadata.take(),
        ..Default::default()
    }
}

/// Refuses payloads beyond the limit.
pub(crate) fn check_size(
    cx: &Cx<'_>,
    payloads: &Option<Payloads>,
    cause: Cause,
    what: impl FnOnce() -> String,
) -> Result<()> {
    let bytes = payloads.as_ref().map_or(0, Message::encoded_len);
    if bytes <= cx.limits.blob_bytes {
        return Ok(());
    }
    Err(Error::bad_command(
        cause,
        format!(
            "{} has {bytes} bytes, more than the limit of {}.",
            what(),
            cx.limits.blob_bytes
        ),
    ))
}
