//! Attempts of an activity: handed out, alive, out of time, tried again.
//!
//! None of this is in history before the activity closes: an attempt lives in steps of the journal.

use crate::activity::{ActivityClaim, HeartbeatAnswer};
use crate::backoff::{Next, next_attempt};
use crate::error::{Error, Result};
use crate::failure::{timeout, timeout_name};
use crate::governance::Stage;
use crate::proto::common::Payloads;
use crate::proto::enums::{RetryState, TimeoutType};
use crate::proto::failure::{Failure, failure::FailureInfo};
use crate::proto::history::{
    ActivityTaskStartedEventAttributes, ActivityTaskTimedOutEventAttributes,
    history_event::Attributes,
};
use crate::record::{ActivityAttempt, StepKind};
use crate::run::{Cx, Run};
use crate::state::{Activity, Attempt};
use crate::time::{Span, Time, span};
use crate::workflow_task::Poller;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ActivityDeadline {
    /// The next attempt may be handed out.
    Retry,
    /// Nobody approved.
    Approval,
    /// A time-out.
    TimesOut(TimeoutType),
}

impl Activity {
    /// The next thing that happens by itself, and when.
    fn deadline(&self) -> Option<(Time, ActivityDeadline)> {
        if let Some(approval) = self.open_approval() {
            return Some((approval.expires, ActivityDeadline::Approval));
        }
        let scheduled = self.scheduled();
        let attempt = self.attempt();
        let at = |from: Time, timeout: Span, kind| {
            (timeout > 0).then(|| (from.saturating_add(timeout), kind))
        };
        let close = at(
            self.scheduled_time,
            span(&scheduled.schedule_to_close_timeout),
            ActivityDeadline::TimesOut(TimeoutType::ScheduleToClose),
        );
        let of_attempt = if self.is_started() {
            let start_to_close = at(
                attempt.started_time,
                span(&scheduled.start_to_close_timeout),
                ActivityDeadline::TimesOut(TimeoutType::StartToClose),
            );
            let heartbeat = at(
                attempt.started_time.max(attempt.heartbeat_time),
                span(&scheduled.heartbeat_timeout),
                ActivityDeadline::TimesOut(TimeoutType::Heartbeat),
            );
            earlier(start_to_close, heartbeat)
        } else {
            at(
                attempt.scheduled_time,
                span(&scheduled.schedule_to_start_timeout),
                ActivityDeadline::TimesOut(TimeoutType::ScheduleToStart),
            )
        };
        earlier(of_attempt, close)
    }
}

impl Run {
    /// Hands an attempt to a poller. The caller makes this durable before the worker hears of it. One that
    /// may not run is gone, and what was decided about it is recorded.
    pub fn start_activity(
        &mut self,
        cx: &mut Cx<'_>,
        scheduled_event_id: i64,
        attempt: i32,
        poller: &Poller,
    ) -> Result<()> {
        let gone = || Error::NotFound("activity task not found".into());
        if !self.state.is_running() {
            return Err(Error::completed());
        }
        let activity = self
            .state
            .activities
            .get(&scheduled_event_id)
            .ok_or_else(gone)?;
        let current = activity.attempt();
        if current.number != attempt
            || current.started_time != 0
            || current.scheduled_time > cx.now
            || activity.open_approval().is_some()
            || self.state.paused().is_some()
        {
            return Err(gone());
        }
        if !self.may_run(cx, scheduled_event_id, Stage::Dispatch) {
            return Err(gone());
        }
        let Some(activity) = self.state.activities.get(&scheduled_event_id) else {
            return Err(gone());
        };
        let mut started = activity.attempt().clone();
        started.credential = self.new_credential(cx, activity);
        started.started_time = cx.now;
        started.last_started_time = cx.now;
        started.request_id.clone_from(&poller.request_id);
        started.identity.clone_from(&poller.identity);
        started.worker_version.clone_from(&poller.worker_version);
        started.heartbeat_time = 0;
        self.set_attempt(scheduled_event_id, started);
        Ok(())
    }

    /// A worker's heartbeat.
    pub fn heartbeat_activity(
        &mut self,
        cx: &mut Cx<'_>,
        claim: &ActivityClaim,
        details: Option<Payloads>,
    ) -> Result<HeartbeatAnswer> {
        let activity = self.claimed_activity(claim)?;
        let answer = HeartbeatAnswer {
            cancel_requested: activity.cancel_requested_event_id != 0,
            paused: self.state.paused().is_some(),
        };
        let mut attempt = activity.attempt().clone();
        attempt.heartbeat_time = cx.now;
        if details.is_some() {
            attempt.heartbeat_details = details;
        }
        self.set_attempt(claim.scheduled_event_id, attempt);
        Ok(answer)
    }

    /// An activity that is ended before a worker has it counts as started by whoever ends it.
    pub(crate) fn start_for_caller(&mut self, cx: &mut Cx<'_>, id: i64, identity: &str) {
        let Some(activity) = self
            .state
            .activities
            .get(&id)
            .filter(|activity| !activity.is_started())
        else {
            return;
        };
        let attempt = Attempt {
            started_time: cx.now,
            last_started_time: cx.now,
            request_id: cx.ids.uuid(),
            identity: identity.to_owned(),
            ..activity.attempt().clone()
        };
        self.set_attempt(id, attempt);
    }

    /// A deadline of an activity has come.
    pub(crate) fn activity_due(&mut self, cx: &mut Cx<'_>, id: i64, due: ActivityDeadline) {
        match due {
            ActivityDeadline::Retry => {
                if let Some(activity) = self.state.activities.get(&id) {
                    cx.effects
                        .extend(self.activity_effect(id, activity, cx.now));
                }
            }
            ActivityDeadline::Approval => self.expire_approval(cx, id),
            ActivityDeadline::TimesOut(kind) => self.time_out_activity(cx, id, kind),
        }
    }

    /// All that activities wait for: when, which, what. Back-offs that are over are not in it: those
    /// attempts have been offered.
    pub(crate) fn activity_deadlines(&self) -> impl Iterator<Item = (Time, i64, ActivityDeadline)> {
        let offered_until = self.offered_until;
        let is_paused = self.state.paused().is_some();
        self.state
            .activities
            .iter()
            .flat_map(move |(&id, activity)| {
                let attempt = activity.attempt();
                let backing_off = !activity.is_started()
                    && attempt.backoff > 0
                    && attempt.scheduled_time > offered_until;
                let retry =
                    backing_off.then_some((attempt.scheduled_time, id, ActivityDeadline::Retry));
                // What is not handed out does not run out of time in a pause.
                let deadline = match is_paused && !activity.is_started() {
                    true => None,
                    false => activity.deadline(),
                };
                let timeout = deadline.map(|(at, due)| (at, id, due));
                retry.into_iter().chain(timeout)
            })
    }

    fn time_out_activity(&mut self, cx: &mut Cx<'_>, id: i64, kind: TimeoutType) {
        let Some(activity) = self.state.activities.get(&id) else {
            return;
        };
        let attempt = activity.attempt();
        let details = attempt.heartbeat_details.clone();
        let last_failure = attempt.last_failure.clone();
        let mut failure = timeout(
            format!("activity {} timeout", timeout_name(kind)),
            kind,
            None,
        );
        let mut retry_state = RetryState::Timeout;
        match kind {
            TimeoutType::StartToClose | TimeoutType::Heartbeat => {
                retry_state = self.retry_activity(cx, id, &failure);
                if retry_state == RetryState::InProgress {
                    return;
                }
                if retry_state == RetryState::Timeout {
                    // No time is left for another attempt: the activity as a whole is out of time.
                    failure = timeout(
                        "Not enough time to schedule next retry before activity ScheduleToClose timeout, giving up retrying",
                        TimeoutType::ScheduleToClose,
                        None,
                    );
                }
            }
            _ => {}
        }
        if let Some(FailureInfo::TimeoutFailureInfo(info)) = &mut failure.failure_info {
            info.last_heartbeat_details = details;
        }
        // What the attempt before died of.
        failure.cause = last_failure.map(Box::new);
        let started_event_id = self.add_activity_started(cx, id);
        self.event(
            cx,
            ActivityTaskTimedOutEventAttributes {
                failure: Some(failure),
                scheduled_event_id: id,
                started_event_id,
                retry_state: retry_state as i32,
            }
            .into(),
        );
        self.schedule_workflow_task(cx);
    }

    /// Arranges the next attempt, or says why there is none.
    pub(crate) fn retry_activity(
        &mut self,
        cx: &mut Cx<'_>,
        id: i64,
        failure: &Failure,
    ) -> RetryState {
        let Some(activity) = self.state.activities.get(&id) else {
            return RetryState::InternalServerError;
        };
        if activity.cancel_requested_event_id != 0 {
            return RetryState::CancelRequested;
        }
        let next_delay = match &failure.failure_info {
            Some(FailureInfo::ApplicationFailureInfo(info)) => info
                .next_retry_delay
                .as_ref()
                .map(|delay| span(&Some(*delay))),
            _ => None,
        };
        let attempt = activity.attempt();
        let next = next_attempt(
            activity.scheduled().retry_policy.as_ref(),
            cx.now,
            activity.expires(),
            attempt.number,
            Some(failure),
            next_delay,
        );
        let backoff = match next {
            Next::After(backoff) => backoff,
            Next::No(retry_state) => return retry_state,
        };
        let next = Attempt {
            number: attempt.number + 1,
            scheduled_time: cx.now.saturating_add(backoff),
            started_time: 0,
            request_id: String::new(),
            heartbeat_time: 0,
            last_failure: Some(failure.clone()),
            last_complete_time: cx.now,
            backoff,
            credential: None,
            ..attempt.clone()
        };
        self.set_attempt(id, next);
        if let Some(activity) = self.state.activities.get(&id) {
            cx.effects
                .extend(self.activity_effect(id, activity, cx.now));
        }
        RetryState::InProgress
    }

    /// Writes the started event that history does not have yet. Returns its id, 0 if no attempt was
    /// ever handed out.
    pub(crate) fn add_activity_started(&mut self, cx: &mut Cx<'_>, id: i64) -> i64 {
        let Some(activity) = self.state.activities.get(&id) else {
            return 0;
        };
        let attempt = activity.attempt().clone();
        if attempt.started_time == 0 {
            return 0;
        }
        self.event_with(
            cx,
            Attributes::from(ActivityTaskStartedEventAttributes {
                scheduled_event_id: id,
                identity: attempt.identity,
                request_id: attempt.request_id,
                attempt: attempt.number,
                last_failure: attempt.last_failure,
                worker_version: attempt.worker_version,
                build_id_redirect_counter: 0,
            }),
            |event| event.event_time = Some(crate::time::timestamp(attempt.started_time)),
        )
    }

    pub(crate) fn set_attempt(&mut self, scheduled_event_id: i64, attempt: Attempt) {
        self.step(StepKind::Attempt(ActivityAttempt {
            scheduled_event_id,
            attempt: Some(attempt),
        }));
    }
}

fn earlier<T>(a: Option<(Time, T)>, b: Option<(Time, T)>) -> Option<(Time, T)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
        (a, b) => a.or(b),
    }
}
