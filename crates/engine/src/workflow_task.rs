//! The workflow task: at most one per run, scheduled → started → completed, failed or timed out.
//!
//! Three kinds. An ordinary task has its events in history. A *transient* one is an attempt after a
//! failure: its scheduled and started events are written only when it completes, so that a workflow
//! that fails for hours does not grow. A *speculative* one exists only to deliver updates and is
//! not even durable: if all its updates are rejected it leaves no trace.

use crate::effect::Effect;
use crate::error::{Error, Result};
use crate::proto::common::WorkerVersionStamp;
use crate::proto::enums::{
    SuggestContinueAsNewReason, TaskQueueKind, TimeoutType, WorkflowTaskFailedCause,
};
use crate::proto::failure::Failure;
use crate::proto::history::{
    HistoryEvent, WorkflowTaskCompletedEventAttributes, WorkflowTaskFailedEventAttributes,
    WorkflowTaskScheduledEventAttributes, WorkflowTaskStartedEventAttributes,
    WorkflowTaskTimedOutEventAttributes, history_event::Attributes,
};
use crate::proto::taskqueue::TaskQueue;
use crate::record::{NoWorkflowTask, StepKind};
use crate::run::{Cx, Run};
use crate::state::{Sticky, WorkflowTask};
use crate::time::{SECOND, Span, duration, span, time};

/// Who takes a workflow task.
#[derive(Clone, Debug, Default)]
pub struct Poller {
    /// Identity as the worker gives it.
    pub identity: String,
    /// Minted for this hand-out; becomes part of the token.
    pub request_id: String,
    /// The worker's version, if it says.
    pub worker_version: Option<WorkerVersionStamp>,
}

/// What the token of a workflow task says, to be compared with the task that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskClaim {
    /// Scheduled event.
    pub scheduled_event_id: i64,
    /// Started event.
    pub started_event_id: i64,
    /// Attempt.
    pub attempt: i32,
    /// Minted for the hand-out.
    pub request_id: String,
}

impl Run {
    /// The workflow task that is there, of any kind.
    pub fn workflow_task(&self) -> Option<&WorkflowTask> {
        self.state
            .workflow_task
            .as_ref()
            .or(self.speculative.as_ref())
    }

    /// Schedules a workflow task unless there is one, or it has to wait.
    pub(crate) fn schedule_workflow_task(&mut self, cx: &mut Cx<'_>) {
        if !self.state.is_running() || self.state.workflow_task.is_some() {
            return;
        }
        if self.state.first_task_at > cx.now || self.state.workflow_task_retry_at > cx.now {
            return;
        }
        if self.speculative.is_some() {
            self.make_speculative_task_real(cx);
            return;
        }
        if !self.state.buffered.is_empty() {
            self.flush_buffer();
            self.state_attempt_is_first();
        }
        let attempt = self.state.workflow_task_attempt;
        if attempt == 1 {
            self.add_scheduled_event(cx, attempt);
        } else {
            let task = self.new_task(cx, attempt);
            self.step(StepKind::WorkflowTask(task));
        }
        cx.effects.extend(self.workflow_task_effect());
    }

    /// Schedules a task that exists only for updates, unless there is a task already. With an
    /// attempt that is not the first there is nothing to save: it is an ordinary one.
    pub(crate) fn schedule_speculative_task(&mut self, cx: &mut Cx<'_>) {
        if self.workflow_task().is_some() || self.state.first_task_at > cx.now {
            return;
        }
        if self.state.workflow_task_attempt > 1 || !self.state.buffered.is_empty() {
            self.schedule_workflow_task(cx);
            return;
        }
        let mut task = self.new_task(cx, 1);
        task.speculative = true;
        self.speculative = Some(task);
        cx.effects.extend(self.workflow_task_effect());
    }

    /// A speculative task becomes an ordinary one as soon as anything is recorded beside it.
    pub(crate) fn make_speculative_task_real(&mut self, cx: &Cx<'_>) {
        if let Some(task) = self.speculative.take() {
            // As the Temporal server writes it: who started it is named if it is completed.
            self.write_speculative_task(
                cx,
                &WorkflowTask {
                    identity: String::new(),
                    ..task
                },
            );
        }
    }

    fn write_speculative_task(&mut self, cx: &Cx<'_>, task: &WorkflowTask) {
        self.add_scheduled_event(cx, task.attempt);
        if task.started_event_id != 0 {
            self.add_started_event(cx, task);
        }
    }

    /// The effect that offers the scheduled task to pollers.
    pub(crate) fn workflow_task_effect(&self) -> Option<Effect> {
        let task = self.workflow_task()?;
        let task_queue = match &self.state.sticky {
            Some(sticky) if task.sticky => sticky.queue.clone(),
            _ => self.state.task_queue().to_owned(),
        };
        (task.started_event_id == 0).then(|| Effect::WorkflowTask {
            run_id: self.state.run_id.clone(),
            scheduled_event_id: task.scheduled_event_id,
            task_queue,
            priority: crate::effect::priority_of(None, self.state.priority.as_ref()),
            sticky: task.sticky,
        })
    }

    /// Hands the scheduled task to a poller. Errors with [`Error::NotFound`] if it is not there any
    /// more.
    pub fn start_workflow_task(
        &mut self,
        cx: &mut Cx<'_>,
        scheduled_event_id: i64,
        poller: &Poller,
    ) -> Result<WorkflowTask> {
        let Some(mut task) = self
            .workflow_task()
            .filter(|task| {
                task.scheduled_event_id == scheduled_event_id && task.started_event_id == 0
            })
            .cloned()
        else {
            return Err(Error::NotFound("Workflow task not found.".into()));
        };
        if self.state.paused().is_some() {
            return Err(Error::NotFound("the workflow is paused".into()));
        }
        let moved_on = task.scheduled_event_id != self.state.next_event_id;
        if !task.in_history && !task.speculative && moved_on {
            // Something happened since the transient task was scheduled: it is a first attempt at
            // something new.
            self.step(StepKind::NoWorkflowTask(NoWorkflowTask {
                next_attempt: 1,
                retry_at: 0,
            }));
            task = self.add_scheduled_event(cx, 1);
        }
        task.started_event_id = match task.in_history {
            true => self.state.next_event_id,
            false => task.scheduled_event_id + 1,
        };
        task.started_time = cx.now;
        task.request_id.clone_from(&poller.request_id);
        task.identity.clone_from(&poller.identity);
        task.worker_version.clone_from(&poller.worker_version);
        task.history_bytes = self.state.history_bytes;
        task.suggest_reasons = self.suggest_continue_as_new(cx);
        task.suggest_continue_as_new = !task.suggest_reasons.is_empty();
        if task.speculative {
            self.speculative = Some(task.clone());
        } else if task.in_history {
            self.add_started_event(cx, &task);
        } else {
            self.step(StepKind::WorkflowTask(task.clone()));
        }
        Ok(task)
    }

    /// The scheduled and started events that history does not have yet, as the worker must see them:
    /// for transient and speculative tasks that are started.
    pub fn virtual_task_events(&self) -> Vec<HistoryEvent> {
        let Some(task) = self.workflow_task().filter(|task| !task.in_history) else {
            return Vec::new();
        };
        let event = |event_id, at, attributes: Attributes| HistoryEvent {
            event_id,
            event_time: Some(crate::time::timestamp(at)),
            event_type: attributes.event_type() as i32,
            attributes: Some(attributes),
            ..HistoryEvent::default()
        };
        vec![
            event(
                task.scheduled_event_id,
                task.scheduled_time,
                self.scheduled_attributes(task.attempt, task.timeout, task.sticky)
                    .into(),
            ),
            event(
                task.started_event_id,
                task.started_time,
                started_attributes(task).into(),
            ),
        ]
    }

    /// The started task that a token names, or why it is not there.
    pub fn claimed_task(&self, claim: &TaskClaim) -> Result<WorkflowTask> {
        self.workflow_task()
            .filter(|task| {
                self.state.is_running()
                    && task.started_event_id != 0
                    && task.scheduled_event_id == claim.scheduled_event_id
                    && task.started_event_id == claim.started_event_id
                    && task.attempt == claim.attempt
                    && task.request_id == claim.request_id
            })
            .cloned()
            .ok_or_else(|| Error::NotFound("Workflow task not found.".into()))
    }

    /// Completes the started task: writes what history lacks of it, and the completed event.
    /// Returns that event's id.
    pub(crate) fn add_completed_event(
        &mut self,
        cx: &mut Cx<'_>,
        task: &WorkflowTask,
        mut attributes: WorkflowTaskCompletedEventAttributes,
    ) -> i64 {
        self.write_task_into_history(cx, task);
        // Where the task was made real its ids are those it had: nothing was recorded between.
        attributes.scheduled_event_id = task.scheduled_event_id;
        attributes.started_event_id = task.started_event_id;
        self.event(cx, attributes.into())
    }

    /// Drops a started speculative task whose updates were all rejected, as if it never was.
    pub(crate) fn drop_speculative_task(&mut self) {
        self.speculative = None;
    }

    /// A worker failed the task, or its answer broke the rules.
    pub(crate) fn fail_task(
        &mut self,
        cx: &mut Cx<'_>,
        task: &WorkflowTask,
        mut failed: WorkflowTaskFailedEventAttributes,
    ) {
        if self.speculative.take().is_some() {
            self.write_speculative_task(cx, task);
        }
        if task.in_history || task.speculative {
            failed.scheduled_event_id = task.scheduled_event_id;
            failed.started_event_id = task.started_event_id;
            self.event(cx, failed.into());
        } else {
            self.drop_transient_task(task.attempt + 1);
        }
    }

    /// A worker reports that it failed the task; the next attempt follows.
    pub fn fail_workflow_task(
        &mut self,
        cx: &mut Cx<'_>,
        claim: &TaskClaim,
        cause: WorkflowTaskFailedCause,
        failure: Option<Failure>,
        identity: String,
        binary_checksum: String,
    ) -> Result<()> {
        let task = self.claimed_task(claim)?;
        self.fail_task(
            cx,
            &task,
            WorkflowTaskFailedEventAttributes {
                cause: cause as i32,
                failure,
                identity,
                binary_checksum,
                ..Default::default()
            },
        );
        self.forget_delivered_updates(cx);
        self.schedule_workflow_task(cx);
        Ok(())
    }

    /// The started task was not answered in time.
    pub(crate) fn time_out_started_task(&mut self, cx: &mut Cx<'_>) {
        let Some(task) = self.workflow_task().cloned() else {
            return;
        };
        self.make_speculative_task_real(cx);
        if task.in_history || task.speculative {
            self.add_timed_out_event(cx, &task, TimeoutType::StartToClose);
        } else {
            self.drop_transient_task(task.attempt + 1);
        }
        self.forget_delivered_updates(cx);
        self.schedule_workflow_task(cx);
    }

    /// The worker that has the run cached did not take the task: it goes to the normal queue.
    pub(crate) fn time_out_sticky_task(&mut self, cx: &mut Cx<'_>) {
        let Some(task) = self.workflow_task().cloned() else {
            return;
        };
        self.make_speculative_task_real(cx);
        self.add_timed_out_event(cx, &task, TimeoutType::ScheduleToStart);
        self.schedule_workflow_task(cx);
    }

    /// Fails the started task because the run is closed from outside.
    pub(crate) fn fail_task_of_closing_run(&mut self, cx: &mut Cx<'_>) {
        if let Some(task) = self
            .workflow_task()
            .filter(|t| t.started_event_id != 0)
            .cloned()
        {
            self.fail_task(
                cx,
                &task,
                WorkflowTaskFailedEventAttributes {
                    cause: WorkflowTaskFailedCause::ForceCloseCommand as i32,
                    identity: "history-service".into(),
                    ..Default::default()
                },
            );
        }
        self.flush_buffer();
    }

    /// The worker's cache is not to be relied on any more.
    pub fn reset_sticky(&mut self) {
        if self.state.sticky.is_some() {
            self.step(StepKind::Sticky(Sticky::default()));
        }
    }

    /// Workflow tasks go to the completing worker's own queue from now on.
    pub(crate) fn set_sticky(&mut self, sticky: Sticky) {
        if self.state.sticky.as_ref() != Some(&sticky) {
            self.step(StepKind::Sticky(sticky));
        }
    }

    /// When the task is due: to be tried again, timed out in the sticky queue, or timed out in a
    /// worker's hands.
    pub(crate) fn workflow_task_deadline(&self) -> Option<crate::Time> {
        match self.workflow_task() {
            Some(task) if task.started_event_id != 0 => {
                Some(task.started_time.saturating_add(task.timeout))
            }
            Some(task) if task.sticky && self.state.paused().is_some() => None,
            Some(task) if task.sticky => self
                .state
                .sticky
                .as_ref()
                .map(|sticky| task.scheduled_time.saturating_add(sticky.schedule_to_start)),
            Some(_) => None,
            None => [self.state.first_task_at, self.state.workflow_task_retry_at]
                .into_iter()
                .find(|&at| at != 0),
        }
    }

    /// The deadline has come.
    pub(crate) fn workflow_task_due(&mut self, cx: &mut Cx<'_>) {
        match self.workflow_task() {
            Some(task) if task.started_event_id != 0 => self.time_out_started_task(cx),
            Some(_) => self.time_out_sticky_task(cx),
            None => self.schedule_workflow_task(cx),
        }
    }

    fn state_attempt_is_first(&mut self) {
        if self.state.workflow_task_attempt != 1 {
            self.step(StepKind::NoWorkflowTask(NoWorkflowTask {
                next_attempt: 1,
                retry_at: 0,
            }));
        }
    }

    fn new_task(&self, cx: &Cx<'_>, attempt: i32) -> WorkflowTask {
        let original = match self.state.heartbeat_since {
            0 => cx.now,
            since => since,
        };
        WorkflowTask {
            scheduled_event_id: self.state.next_event_id,
            attempt,
            scheduled_time: cx.now,
            original_scheduled_time: original,
            timeout: self.task_timeout(cx, attempt),
            sticky: attempt == 1 && self.state.sticky.is_some(),
            ..WorkflowTask::default()
        }
    }

    fn add_scheduled_event(&mut self, cx: &Cx<'_>, attempt: i32) -> WorkflowTask {
        let timeout = self.task_timeout(cx, attempt);
        let sticky = attempt == 1 && self.state.sticky.is_some();
        let attributes = self.scheduled_attributes(attempt, timeout, sticky);
        self.event(cx, attributes.into());
        self.state.workflow_task.clone().unwrap_or_default()
    }

    fn add_started_event(&mut self, cx: &Cx<'_>, task: &WorkflowTask) {
        self.event_with(cx, started_attributes(task).into(), |event| {
            event.event_time = Some(crate::time::timestamp(task.started_time));
        });
    }

    /// Writes the scheduled and started events of a task that history does not have yet.
    fn write_task_into_history(&mut self, cx: &Cx<'_>, task: &WorkflowTask) {
        if self.speculative.take().is_some() {
            self.write_speculative_task(cx, task);
        } else if !task.in_history {
            let attributes = self.scheduled_attributes(task.attempt, task.timeout, task.sticky);
            self.event_with(cx, attributes.into(), |event| {
                event.event_time = Some(crate::time::timestamp(task.scheduled_time));
            });
            self.add_started_event(cx, task);
        }
    }

    fn scheduled_attributes(
        &self,
        attempt: i32,
        timeout: Span,
        sticky: bool,
    ) -> WorkflowTaskScheduledEventAttributes {
        let normal = self.state.task_queue().to_owned();
        let task_queue = match &self.state.sticky {
            Some(to) if sticky => TaskQueue {
                name: to.queue.clone(),
                kind: TaskQueueKind::Sticky as i32,
                normal_name: normal,
            },
            _ => TaskQueue {
                name: normal,
                kind: TaskQueueKind::Normal as i32,
                normal_name: String::new(),
            },
        };
        WorkflowTaskScheduledEventAttributes {
            task_queue: Some(task_queue),
            start_to_close_timeout: Some(duration(timeout)),
            attempt,
        }
    }

    /// Attempts far beyond the first wait longer and longer for their answer: a worker that cannot
    /// make progress does not answer, and this is what paces it.
    fn task_timeout(&self, cx: &Cx<'_>, attempt: i32) -> Span {
        let base = match span(&self.state.start().workflow_task_timeout) {
            0 => cx.limits.workflow_task_timeout,
            timeout => timeout,
        };
        let over = attempt - cx.limits.workflow_task_backoff_attempts;
        if over <= 0 {
            return base;
        }
        let backoff = 5 * SECOND * (1_i64 << (over - 1).min(20));
        base + backoff.min(cx.limits.workflow_task_max_backoff)
    }

    fn suggest_continue_as_new(&self, cx: &Cx<'_>) -> Vec<i32> {
        let mut reasons = Vec::new();
        if self.state.history_bytes >= cx.limits.suggest_history_bytes {
            reasons.push(SuggestContinueAsNewReason::HistorySizeTooLarge as i32);
        }
        if self.state.next_event_id > cx.limits.suggest_history_events {
            reasons.push(SuggestContinueAsNewReason::TooManyHistoryEvents as i32);
        }
        if self.state.updates.len() * 10 >= cx.limits.updates_total * 9 {
            reasons.push(SuggestContinueAsNewReason::TooManyUpdates as i32);
        }
        reasons
    }

    fn drop_transient_task(&mut self, next_attempt: i32) {
        self.step(StepKind::NoWorkflowTask(NoWorkflowTask {
            next_attempt,
            retry_at: 0,
        }));
        self.reset_sticky();
    }

    fn add_timed_out_event(&mut self, cx: &mut Cx<'_>, task: &WorkflowTask, kind: TimeoutType) {
        self.event(
            cx,
            WorkflowTaskTimedOutEventAttributes {
                scheduled_event_id: task.scheduled_event_id,
                started_event_id: task.started_event_id,
                timeout_type: kind as i32,
            }
            .into(),
        );
    }

    pub(crate) fn apply_workflow_task_scheduled(
        &mut self,
        event: &HistoryEvent,
        attributes: &WorkflowTaskScheduledEventAttributes,
    ) {
        let at = event.event_time.as_ref().map_or(0, time);
        let original = match self.state.heartbeat_since {
            0 => at,
            since => since,
        };
        self.state.first_task_at = 0;
        self.state.workflow_task_retry_at = 0;
        self.state.workflow_task = Some(WorkflowTask {
            scheduled_event_id: event.event_id,
            attempt: attributes.attempt,
            scheduled_time: at,
            original_scheduled_time: original,
            timeout: span(&attributes.start_to_close_timeout),
            in_history: true,
            sticky: attributes
                .task_queue
                .as_ref()
                .is_some_and(|queue| queue.kind == TaskQueueKind::Sticky as i32),
            ..WorkflowTask::default()
        });
    }

    pub(crate) fn apply_workflow_task_started(
        &mut self,
        event: &HistoryEvent,
        attributes: &WorkflowTaskStartedEventAttributes,
    ) {
        let Some(task) = &mut self.state.workflow_task else {
            return;
        };
        task.started_event_id = event.event_id;
        task.started_time = event.event_time.as_ref().map_or(0, time);
        task.request_id.clone_from(&attributes.request_id);
        task.identity.clone_from(&attributes.identity);
        task.history_bytes = attributes.history_size_bytes;
        task.suggest_continue_as_new = attributes.suggest_continue_as_new;
        task.suggest_reasons
            .clone_from(&attributes.suggest_continue_as_new_reasons);
        task.worker_version.clone_from(&attributes.worker_version);
    }

    pub(crate) fn apply_workflow_task_completed(
        &mut self,
        event: &HistoryEvent,
        attributes: &WorkflowTaskCompletedEventAttributes,
    ) {
        self.state.workflow_task = None;
        self.state.workflow_task_attempt = 1;
        self.state.workflow_task_retry_at = 0;
        self.state.previous_started_event_id = attributes.started_event_id;
        self.state.last_completed_event_id = event.event_id;
        if attributes.worker_version.is_some() {
            self.state
                .worker_version
                .clone_from(&attributes.worker_version);
        }
        self.add_reset_point(event, attributes);
    }

    pub(crate) fn apply_workflow_task_failed(
        &mut self,
        attributes: &WorkflowTaskFailedEventAttributes,
    ) {
        let cause = attributes.cause;
        let reset = cause == WorkflowTaskFailedCause::ResetWorkflow as i32;
        self.close_task_without_progress(!reset);
        if reset {
            self.state.workflow_task_attempt = 1;
        }
    }

    pub(crate) fn apply_workflow_task_timed_out(
        &mut self,
        attributes: &WorkflowTaskTimedOutEventAttributes,
    ) {
        // A task that nobody took is not a failed attempt: the next one is an ordinary one too.
        self.close_task_without_progress(
            attributes.timeout_type != TimeoutType::ScheduleToStart as i32,
        );
    }

    fn close_task_without_progress(&mut self, count_attempt: bool) {
        let attempt = self
            .state
            .workflow_task
            .take()
            .map_or(1, |task| task.attempt);
        self.state.workflow_task_attempt = if count_attempt { attempt + 1 } else { 1 };
        self.state.workflow_task_retry_at = 0;
        self.state.sticky = None;
    }
}

fn started_attributes(task: &WorkflowTask) -> WorkflowTaskStartedEventAttributes {
    WorkflowTaskStartedEventAttributes {
        scheduled_event_id: task.scheduled_event_id,
        identity: task.identity.clone(),
        request_id: task.request_id.clone(),
        suggest_continue_as_new: task.suggest_continue_as_new,
        suggest_continue_as_new_reasons: task.suggest_reasons.clone(),
        history_size_bytes: task.history_bytes,
        worker_version: task.worker_version.clone(),
        ..Default::default()
    }
}
