//! Pausing a session: it is kept as it is, and nothing of it is handed out.
//!
//! Paused and resumed are events of history, as the Temporal API has them. While a run is paused:
//!
//! - no workflow task and no activity attempt is started, and no message leaves for another workflow
//!   that would start, signal or cancel it ([`Run::withholds`]);
//! - attempts that are out may complete, and their time-outs run: heartbeats tell them;
//! - signals, cancel requests, votes and timers that fire are recorded;
//! - what was not handed out does not run out of time: neither a waiting attempt nor an approval. When
//!   the run is resumed, their times have moved by as long as they waited in the pause;
//! - the time-outs of the run and of its chain go on, as they were set.
//!
//! The runs that follow (continued as new, tried again, next on a schedule) are paused, too.

use crate::effect::Effect;
use crate::error::{Error, Result};
use crate::proto::common::Principal;
use crate::proto::history::{
    HistoryEvent, WorkflowExecutionPausedEventAttributes, WorkflowExecutionUnpausedEventAttributes,
};
use crate::run::{Cx, Run};
use crate::state::{Activity, Approval, Delivery, Pause, RunState};
use crate::time::{Time, time};

/// Longest reason, in bytes.
const MAX_REASON: usize = 4000;

/// Who pauses, resumes or revokes a session, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PauseRequest {
    /// As its caller names itself.
    pub identity: String,
    /// Why.
    pub reason: String,
    /// Id of the request.
    pub request_id: String,
}

impl RunState {
    /// Why nothing of it is handed out; none if it is not paused, or closed.
    pub fn paused(&self) -> Option<&Pause> {
        self.pause.as_ref().filter(|_| self.is_running())
    }
}

impl Run {
    /// Pauses the run. Whether that changed anything: one that is paused stays so.
    pub fn pause(&mut self, cx: &mut Cx<'_>, request: PauseRequest) -> Result<bool> {
        check(&self.state, &request)?;
        if self.state.paused().is_some() {
            return Ok(false);
        }
        self.add_paused(cx, request, None);
        Ok(true)
    }

    /// Resumes the run: its tasks are offered again. Whether that changed anything.
    pub fn resume(&mut self, cx: &mut Cx<'_>, request: PauseRequest) -> Result<bool> {
        check(&self.state, &request)?;
        if self.state.paused().is_none() {
            return Ok(false);
        }
        self.add_unpaused(cx, request);
        let waiting = self.outstanding(cx.now);
        cx.effects.extend(waiting);
        Ok(true)
    }

    /// Ends the run for good: a pause that cannot be resumed. Its children end, or go on, by their
    /// parent-close policies.
    pub fn revoke(&mut self, cx: &mut Cx<'_>, request: PauseRequest) -> Result<()> {
        check(&self.state, &request)?;
        let by = match cx.cause.principal.is_empty() {
            true => request.identity.clone(),
            false => cx.cause.principal.clone(),
        };
        let reason = match request.reason.as_str() {
            "" => format!("revoked by {by}"),
            why => format!("revoked by {by}: {why}"),
        };
        let identity = match request.identity.is_empty() {
            true => by,
            false => request.identity,
        };
        self.terminate(cx, reason, None, identity, Vec::new())
    }

    /// Whether something that the run asks for has to wait until it is resumed.
    pub fn withholds(&self, effect: &Effect) -> bool {
        if self.state.paused().is_none() {
            return false;
        }
        match effect {
            Effect::WorkflowTask { .. } | Effect::ActivityTask { .. } => true,
            Effect::Message { message, .. } => matches!(
                message.delivery,
                Some(Delivery::StartChild(_) | Delivery::Signal(_) | Delivery::Cancel(_))
            ),
            Effect::UpdateChanged { .. } | Effect::Closed { .. } => false,
        }
    }

    /// Makes this run, which follows another one, paused or not as that one is.
    pub fn follow_pause(&mut self, cx: &mut Cx<'_>, pause: Option<&Pause>) {
        match (pause, self.state.paused().is_some()) {
            (Some(pause), false) => self.pause_as(cx, pause),
            (None, true) => self.add_unpaused(cx, PauseRequest::default()),
            _ => {}
        }
    }

    fn pause_as(&mut self, cx: &Cx<'_>, pause: &Pause) {
        let request = PauseRequest {
            identity: pause.identity.clone(),
            reason: pause.reason.clone(),
            request_id: pause.request_id.clone(),
        };
        self.add_paused(cx, request, pause.principal.clone());
    }

    fn add_paused(&mut self, cx: &Cx<'_>, request: PauseRequest, principal: Option<Principal>) {
        let attributes = WorkflowExecutionPausedEventAttributes {
            identity: request.identity,
            reason: request.reason,
            request_id: request.request_id,
        };
        self.event_with(cx, attributes.into(), |event| {
            // The workflow's code does not see it, and SDKs skip it only if it says so.
            event.worker_may_ignore = true;
            if principal.is_some() {
                event.principal = principal;
            }
        });
    }

    fn add_unpaused(&mut self, cx: &Cx<'_>, request: PauseRequest) {
        let attributes = WorkflowExecutionUnpausedEventAttributes {
            identity: request.identity,
            reason: request.reason,
            request_id: request.request_id,
        };
        self.event_with(cx, attributes.into(), |event| {
            event.worker_may_ignore = true;
        });
    }

    pub(crate) fn apply_paused(
        &mut self,
        event: &HistoryEvent,
        attributes: &WorkflowExecutionPausedEventAttributes,
    ) {
        self.state.pause = Some(Pause {
            time: event.event_time.as_ref().map_or(0, time),
            principal: event.principal.clone(),
            identity: attributes.identity.clone(),
            reason: attributes.reason.clone(),
            request_id: attributes.request_id.clone(),
        });
    }

    pub(crate) fn apply_unpaused(&mut self, event: &HistoryEvent) {
        let Some(pause) = self.state.pause.take() else {
            return;
        };
        let now = event.event_time.as_ref().map_or(pause.time, time);
        for activity in self.state.activities.values_mut() {
            activity.waited_in_pause(pause.time, now);
        }
        let RunState {
            children,
            external_signals,
            external_cancels,
            ..
        } = &mut self.state;
        let approvals = (children.values_mut().map(|of| &mut of.approval))
            .chain(external_signals.values_mut().map(|of| &mut of.approval))
            .chain(external_cancels.values_mut().map(|of| &mut of.approval));
        for approval in approvals.flatten().filter(|of| of.is_open()) {
            approval.waited_in_pause(pause.time, now);
        }
        if let Some(task) = &mut self.state.workflow_task
            && task.sticky
            && task.started_event_id == 0
        {
            // The worker that has the run cached gets its chance now.
            task.scheduled_time = task.scheduled_time.max(now);
        }
    }
}

impl Activity {
    /// Moves the times of what waited between `paused` and `resumed`.
    fn waited_in_pause(&mut self, paused: Time, resumed: Time) {
        if self.is_started() {
            return;
        }
        let moved = |since: Time| resumed.saturating_sub(paused.max(since)).max(0);
        let last_complete_time = self.attempt().last_complete_time;
        let waited = moved(self.scheduled_time.max(last_complete_time));
        self.scheduled_time = self.scheduled_time.saturating_add(waited);
        if let Some(approval) = self.approval.as_mut().filter(|of| of.is_open()) {
            approval.waited_in_pause(paused, resumed);
        }
        // A back-off goes on in a pause.
        if let Some(attempt) = self.attempt.as_mut()
            && attempt.scheduled_time < resumed
        {
            let waited = moved(attempt.scheduled_time);
            attempt.scheduled_time = attempt.scheduled_time.saturating_add(waited);
        }
    }
}

impl Approval {
    /// Nobody misses the time that they have for it in a pause.
    fn waited_in_pause(&mut self, paused: Time, resumed: Time) {
        let waited = resumed.saturating_sub(paused.max(self.requested)).max(0);
        self.expires = self.expires.saturating_add(waited);
    }
}

fn check(state: &RunState, request: &PauseRequest) -> Result<()> {
    if request.reason.len() > MAX_REASON {
        let message = format!("the reason is longer than {MAX_REASON} bytes");
        return Err(Error::InvalidArgument(message));
    }
    match state.is_running() {
        true => Ok(()),
        false => Err(Error::completed()),
    }
}
