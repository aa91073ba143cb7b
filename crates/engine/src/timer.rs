//! Timers: started → fired or cancelled.

use std::collections::HashSet;

use prost::Message;

use crate::error::{Error, Result};
use crate::proto::command::{CancelTimerCommandAttributes, StartTimerCommandAttributes};
use crate::proto::enums::WorkflowTaskFailedCause as Cause;
use crate::proto::history::{
    HistoryEvent, TimerCanceledEventAttributes, TimerFiredEventAttributes,
    TimerStartedEventAttributes, history_event::Attributes,
};
use crate::record::StepKind;
use crate::run::{Cx, Run};
use crate::state::Timer;
use crate::time::{span, time};

impl Run {
    /// Whether a timer may be started, given those that the same workflow task starts.
    pub(crate) fn check_start_timer<'a>(
        &self,
        cx: &Cx<'_>,
        command: &'a StartTimerCommandAttributes,
        new_timers: &mut HashSet<&'a str>,
    ) -> Result<()> {
        let bad =
            |message: String| Err(Error::bad_command(Cause::BadStartTimerAttributes, message));
        if command.timer_id.is_empty() {
            return bad("TimerId is not set on StartTimerCommand.".into());
        }
        if span(&command.start_to_fire_timeout) < 0 {
            return bad(format!(
                "StartToFireTimeout of timer {} is negative.",
                command.timer_id
            ));
        }
        if command.timer_id.len() > cx.limits.id_bytes {
            return bad(format!(
                "TimerId is longer than {} bytes.",
                cx.limits.id_bytes
            ));
        }
        if self.state.timers.contains_key(&command.timer_id)
            || !new_timers.insert(&command.timer_id)
        {
            return Err(Error::bad_command(
                Cause::StartTimerDuplicateId,
                format!("Timer {} is already started.", command.timer_id),
            ));
        }
        Ok(())
    }

    /// Whether a cancel names a timer that is there.
    pub(crate) fn check_cancel_timer<'a>(
        &self,
        command: &'a CancelTimerCommandAttributes,
        new_timers: &mut HashSet<&'a str>,
    ) -> Result<()> {
        let id = command.timer_id.as_str();
        if id.is_empty() {
            return Err(Error::bad_command(
                Cause::BadCancelTimerAttributes,
                "TimerId is not set on CancelTimerCommand.",
            ));
        }
        let known = new_timers.remove(id)
            || self.state.timers.contains_key(id)
            || self.has_buffered_timer_fired(id);
        if known {
            return Ok(());
        }
        Err(Error::bad_command(
            Cause::BadCancelTimerAttributes,
            format!("Timer {id} is not there to be cancelled."),
        ))
    }

    pub(crate) fn start_timer(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        command: StartTimerCommandAttributes,
        adorn: impl FnOnce(&mut HistoryEvent),
    ) {
        self.event_with(
            cx,
            TimerStartedEventAttributes {
                timer_id: command.timer_id,
                start_to_fire_timeout: command.start_to_fire_timeout,
                workflow_task_completed_event_id: completed_event_id,
            }
            .into(),
            adorn,
        );
    }

    pub(crate) fn cancel_timer(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        identity: &str,
        timer_id: String,
    ) {
        let started_event_id = match self.state.timers.get(&timer_id) {
            Some(timer) => timer.started_event_id,
            // It fired while the worker decided to cancel it: the cancel wins and the firing, which
            // the worker has not seen, is taken back.
            None => self.take_back_timer_fired(&timer_id).unwrap_or_default(),
        };
        self.event(
            cx,
            TimerCanceledEventAttributes {
                timer_id,
                started_event_id,
                workflow_task_completed_event_id: completed_event_id,
                identity: identity.to_owned(),
            }
            .into(),
        );
    }

    /// Fires a timer whose time has come.
    pub(crate) fn fire_timer(&mut self, cx: &mut Cx<'_>, timer_id: &str) {
        let Some(timer) = self.state.timers.get(timer_id) else {
            return;
        };
        let attributes = TimerFiredEventAttributes {
            timer_id: timer_id.to_owned(),
            started_event_id: timer.started_event_id,
        };
        self.event(cx, attributes.into());
        self.schedule_workflow_task(cx);
    }

    pub(crate) fn apply_timer_started(
        &mut self,
        event: &HistoryEvent,
        attributes: &TimerStartedEventAttributes,
    ) {
        let started = event.event_time.as_ref().map_or(0, time);
        self.state.timers.insert(
            attributes.timer_id.clone(),
            Timer {
                started_event_id: event.event_id,
                fires: started.saturating_add(span(&attributes.start_to_fire_timeout)),
            },
        );
    }

    pub(crate) fn apply_timer_closed(&mut self, timer_id: &str) {
        self.state.timers.remove(timer_id);
    }

    fn has_buffered_timer_fired(&self, timer_id: &str) -> bool {
        self.buffered_timer_fired(timer_id).is_some()
    }

    fn take_back_timer_fired(&mut self, timer_id: &str) -> Option<i64> {
        let (index, started_event_id) = self.buffered_timer_fired(timer_id)?;
        self.step(StepKind::Unbuffer(index as u64));
        Some(started_event_id)
    }

    /// Place in the buffer and started event of a timer that fired during the workflow task.
    fn buffered_timer_fired(&self, timer_id: &str) -> Option<(usize, i64)> {
        self.state.buffered.iter().enumerate().find_map(
            |(index, bytes)| match HistoryEvent::decode(bytes.clone()).ok()?.attributes? {
                Attributes::TimerFiredEventAttributes(fired) if fired.timer_id == timer_id => {
                    Some((index, fired.started_event_id))
                }
                _ => None,
            },
        )
    }
}
