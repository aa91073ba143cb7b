//! The end of a run: by its own command, by termination, by time-out.

use crate::backoff::{Next, next_attempt};
use crate::continue_as_new::Successor;
use crate::effect::Effect;
use crate::error::{Error, Result};
use crate::proto::common::{Link, Payloads};
use crate::proto::enums::{
    ContinueAsNewInitiator, RetryState, TimeoutType, WorkflowExecutionStatus as Status,
};
use crate::proto::failure::Failure;
use crate::proto::history::{
    HistoryEvent, WorkflowExecutionCanceledEventAttributes,
    WorkflowExecutionCompletedEventAttributes, WorkflowExecutionFailedEventAttributes,
    WorkflowExecutionTerminatedEventAttributes, WorkflowExecutionTimedOutEventAttributes,
    history_event::Attributes,
};
use crate::run::{Cx, Run};
use crate::time::{Span, time};

impl Run {
    /// Terminates the run, whatever it is doing.
    pub fn terminate(
        &mut self,
        cx: &mut Cx<'_>,
        reason: String,
        details: Option<Payloads>,
        identity: String,
        links: Vec<Link>,
    ) -> Result<()> {
        if !self.state.is_running() {
            return Err(Error::completed());
        }
        self.fail_task_of_closing_run(cx);
        let attributes = WorkflowExecutionTerminatedEventAttributes {
            reason,
            details,
            identity,
        };
        self.close_with(cx, attributes.into(), links, false);
        Ok(())
    }

    /// Ends what has grown beyond the limits: a run with too long a history is terminated, a workflow
    /// task during which too much happened is failed, so that the worker sees it.
    pub fn enforce_limits(&mut self, cx: &mut Cx<'_>) {
        if !self.has_steps() || !self.state.is_running() {
            return;
        }
        let limits = cx.limits;
        let reason = if self.state.next_event_id - 1 > limits.history_events {
            "Workflow history count exceeds limit."
        } else if self.state.history_bytes > limits.history_bytes {
            "Workflow history size exceeds limit."
        } else {
            if self.state.buffered.len() > limits.buffered_events {
                self.fail_task_of_closing_run(cx);
                self.schedule_workflow_task(cx);
            }
            return;
        };
        // It runs, so it can be terminated.
        let _ = self.terminate(cx, reason.into(), None, "steadfast".into(), Vec::new());
    }

    /// The run, or its whole chain, is out of time.
    pub(crate) fn time_out(&mut self, cx: &mut Cx<'_>) {
        self.fail_task_of_closing_run(cx);
        let whole_chain =
            self.state.execution_expires != 0 && self.state.execution_expires <= cx.now;
        let failure = crate::failure::timeout("workflow timeout", TimeoutType::StartToClose, None);
        let (retry_state, successor) = match whole_chain {
            true => (RetryState::Timeout, None),
            false => self.follow_up(cx, Some(&failure)),
        };
        let successor = successor.map(|mut successor| {
            successor.last_completion_result = self.state.start().last_completion_result.clone();
            self.continue_as(cx, successor)
        });
        let attributes = WorkflowExecutionTimedOutEventAttributes {
            retry_state: retry_state as i32,
            new_execution_run_id: successor.clone().unwrap_or_default(),
        };
        self.close_with(cx, attributes.into(), Vec::new(), successor.is_some());
    }

    /// The workflow completed itself.
    pub(crate) fn complete(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        result: Option<Payloads>,
    ) {
        let successor = self.cron_backoff(cx).map(|delay| {
            self.continue_as(
                cx,
                Successor {
                    initiator: ContinueAsNewInitiator::CronSchedule,
                    delay,
                    attempt: 1,
                    failure: None,
                    last_completion_result: result.clone(),
                },
            )
        });
        let attributes = WorkflowExecutionCompletedEventAttributes {
            result,
            workflow_task_completed_event_id: completed_event_id,
            new_execution_run_id: successor.clone().unwrap_or_default(),
        };
        self.close_with(cx, attributes.into(), Vec::new(), successor.is_some());
    }

    /// The workflow failed itself; a retry policy or a cron schedule may follow it up.
    pub(crate) fn fail(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        failure: Option<Failure>,
    ) {
        let (retry_state, successor) = self.follow_up(cx, failure.as_ref());
        let successor = successor.map(|successor| self.continue_as(cx, successor));
        let attributes = WorkflowExecutionFailedEventAttributes {
            failure,
            retry_state: retry_state as i32,
            workflow_task_completed_event_id: completed_event_id,
            new_execution_run_id: successor.clone().unwrap_or_default(),
        };
        self.close_with(cx, attributes.into(), Vec::new(), successor.is_some());
    }

    /// The workflow cancelled itself.
    pub(crate) fn cancel(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        details: Option<Payloads>,
    ) {
        let attributes = WorkflowExecutionCanceledEventAttributes {
            workflow_task_completed_event_id: completed_event_id,
            details,
        };
        self.close_with(cx, attributes.into(), Vec::new(), false);
    }

    /// Adds the closing event and tells whom it concerns.
    pub(crate) fn close_with(
        &mut self,
        cx: &mut Cx<'_>,
        attributes: Attributes,
        links: Vec<Link>,
        has_successor: bool,
    ) {
        self.drop_buffer();
        let mut event = HistoryEvent::default();
        self.event_with(cx, attributes, |closing| {
            closing.links = links;
            event = closing.clone();
        });
        self.send_closing_messages(cx, &event, has_successor);
        self.abort_updates(cx, has_successor);
        cx.effects.push(Effect::Closed {
            run_id: self.state.run_id.clone(),
        });
    }

    /// What follows a failed or timed-out run: another attempt, the next run of its schedule, or
    /// nothing, and why.
    fn follow_up(
        &mut self,
        cx: &Cx<'_>,
        failure: Option<&Failure>,
    ) -> (RetryState, Option<Successor>) {
        let start = self.state.start();
        let retry = next_attempt(
            start.retry_policy.as_ref(),
            cx.now,
            self.state.execution_expires,
            start.attempt,
            failure,
            None,
        );
        let retry_state = match retry {
            Next::After(delay) => {
                let successor = Successor {
                    initiator: ContinueAsNewInitiator::Retry,
                    delay,
                    attempt: start.attempt + 1,
                    failure: failure.cloned(),
                    last_completion_result: start.last_completion_result.clone(),
                };
                return (RetryState::InProgress, Some(successor));
            }
            Next::No(retry_state) => retry_state,
        };
        match self.cron_backoff(cx) {
            Some(delay) => {
                let successor = Successor {
                    initiator: ContinueAsNewInitiator::CronSchedule,
                    delay,
                    attempt: 1,
                    failure: failure.cloned(),
                    last_completion_result: start.last_completion_result.clone(),
                };
                (retry_state, Some(successor))
            }
            None => (retry_state, None),
        }
    }

    /// Time until the next run of a cron schedule; none where there is no schedule or no time left.
    fn cron_backoff(&self, cx: &Cx<'_>) -> Option<Span> {
        let schedule = &self.state.start().cron_schedule;
        if schedule.is_empty() || self.state.cancel_requested {
            return None;
        }
        let delay = crate::cron::next_after(schedule, self.state.execution_time, cx.now)?;
        let expires = self.state.execution_expires;
        (expires == 0 || cx.now.saturating_add(delay) < expires).then_some(delay)
    }

    pub(crate) fn apply_closed(&mut self, event: &HistoryEvent) {
        use Attributes as A;
        let (status, successor) = match &event.attributes {
            Some(A::WorkflowExecutionCompletedEventAttributes(a)) => {
                (Status::Completed, &a.new_execution_run_id)
            }
            Some(A::WorkflowExecutionFailedEventAttributes(a)) => {
                (Status::Failed, &a.new_execution_run_id)
            }
            Some(A::WorkflowExecutionTimedOutEventAttributes(a)) => {
                (Status::TimedOut, &a.new_execution_run_id)
            }
            Some(A::WorkflowExecutionContinuedAsNewEventAttributes(a)) => {
                (Status::ContinuedAsNew, &a.new_execution_run_id)
            }
            Some(A::WorkflowExecutionCanceledEventAttributes(_)) => {
                (Status::Canceled, &String::new())
            }
            _ => (Status::Terminated, &String::new()),
        };
        self.state.status = status as i32;
        self.state.successor_run_id.clone_from(successor);
        self.state.close_time = event.event_time.as_ref().map_or(0, time);
        self.state.close_event_id = event.event_id;
        self.state.workflow_task = None;
        self.state.sticky = None;
        self.state.buffered.clear();
        self.state.activities.clear();
        self.state.timers.clear();
        self.speculative = None;
    }
}
