//! Activities: scheduled → attempts → completed, failed, timed out or cancelled.
//!
//! Attempts are not in history: an attempt that fails and will be tried again leaves only a step in
//! the journal. History gets the started event together with the event that closes the activity.

use crate::commands::NewIds;
use crate::effect::Effect;
use crate::error::{Error, Result};
use crate::governance::Stage;
use crate::proto::command::{
    RequestCancelActivityTaskCommandAttributes, ScheduleActivityTaskCommandAttributes,
};
use crate::proto::common::{Payload, Payloads};
use crate::proto::enums::{RetryState, TaskQueueKind, WorkflowTaskFailedCause as Cause};
use crate::proto::failure::Failure;
use crate::proto::history::{
    ActivityTaskCancelRequestedEventAttributes, ActivityTaskCanceledEventAttributes,
    ActivityTaskCompletedEventAttributes, ActivityTaskFailedEventAttributes,
    ActivityTaskScheduledEventAttributes, HistoryEvent,
};
use crate::proto::taskqueue::TaskQueue;
use crate::run::{Cx, Run};
use crate::state::{Activity, Attempt};
use crate::time::{Span, Time, duration, span, time};

/// What the token of an activity task says.
#[derive(Clone, Debug, PartialEq)]
pub struct ActivityClaim {
    /// Scheduled event.
    pub scheduled_event_id: i64,
    /// Attempt.
    pub attempt: i32,
    /// Minted for the hand-out; empty for a claim by activity id, which fits any.
    pub request_id: String,
}

/// How an attempt ended, as its worker says.
#[derive(Clone, Debug)]
// Made once per call and moved once: boxing would cost more than it saves.
#[allow(clippy::large_enum_variant)]
pub enum Outcome {
    /// With a result.
    Completed(Option<Payloads>),
    /// With a failure, and heartbeat details to keep for the next attempt.
    Failed(Option<Failure>, Option<Payloads>),
    /// Cancelled, with details.
    Canceled(Option<Payloads>),
}

/// What a heartbeat's answer says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HeartbeatAnswer {
    /// The activity shall stop.
    pub cancel_requested: bool,
    /// Its session is paused.
    pub paused: bool,
}

impl Activity {
    /// Attributes of the scheduled event.
    pub fn scheduled(&self) -> &ActivityTaskScheduledEventAttributes {
        static NONE: std::sync::LazyLock<ActivityTaskScheduledEventAttributes> =
            std::sync::LazyLock::new(Default::default);
        self.scheduled.as_ref().unwrap_or(&NONE)
    }

    /// The attempt under way or next.
    pub fn attempt(&self) -> &Attempt {
        static NONE: std::sync::LazyLock<Attempt> = std::sync::LazyLock::new(Default::default);
        self.attempt.as_ref().unwrap_or(&NONE)
    }

    /// Whether an attempt is in a worker's hands.
    pub fn is_started(&self) -> bool {
        self.attempt().started_time != 0
    }

    /// When the whole activity times out, 0 for never.
    pub fn expires(&self) -> Time {
        match span(&self.scheduled().schedule_to_close_timeout) {
            0 => 0,
            timeout => self.scheduled_time.saturating_add(timeout),
        }
    }

    /// Its task queue.
    pub fn task_queue(&self) -> &str {
        self.scheduled()
            .task_queue
            .as_ref()
            .map_or("", |queue| &queue.name)
    }
}

impl Run {
    /// Whether an activity may be scheduled.
    pub(crate) fn check_schedule_activity<'a>(
        &self,
        cx: &Cx<'_>,
        command: &'a ScheduleActivityTaskCommandAttributes,
        new: &mut NewIds<'a>,
    ) -> Result<()> {
        let bad = |message: String| {
            Err(Error::bad_command(
                Cause::BadScheduleActivityAttributes,
                message,
            ))
        };
        let id = command.activity_id.as_str();
        let name = command
            .activity_type
            .as_ref()
            .map_or("", |t| t.name.as_str());
        if id.is_empty() {
            return bad("ActivityId is not set on ScheduleActivityTaskCommand.".into());
        }
        if name.is_empty() {
            return bad(format!("ActivityType is not set on activity {id}."));
        }
        let queue = command
            .task_queue
            .as_ref()
            .map_or("", |queue| queue.name.as_str());
        for (what, value) in [
            ("ActivityId", id),
            ("ActivityType", name),
            ("TaskQueue", queue),
        ] {
            if value.len() > cx.limits.id_bytes {
                return bad(format!(
                    "{what} of an activity is longer than {} bytes.",
                    cx.limits.id_bytes
                ));
            }
        }
        if queue.is_empty() {
            return bad(format!("TaskQueue is not set on activity {id}."));
        }
        if let Err(message) = crate::commands::check_priority(command.priority.as_ref()) {
            return bad(format!("Priority of activity {id}: {message}."));
        }
        if queue.starts_with("/_sys/") {
            return bad(format!("TaskQueue {queue} of activity {id} is reserved."));
        }
        let timeouts = [
            ("ScheduleToCloseTimeout", &command.schedule_to_close_timeout),
            ("ScheduleToStartTimeout", &command.schedule_to_start_timeout),
            ("StartToCloseTimeout", &command.start_to_close_timeout),
            ("HeartbeatTimeout", &command.heartbeat_timeout),
        ];
        for (what, timeout) in timeouts {
            if span(timeout) < 0 {
                return bad(format!("{what} of activity {id} is negative."));
            }
        }
        if span(&command.schedule_to_close_timeout) == 0
            && span(&command.start_to_close_timeout) == 0
        {
            return bad(format!(
                "Activity {id} needs a StartToCloseTimeout or a ScheduleToCloseTimeout."
            ));
        }
        if let Some(policy) = &command.retry_policy
            && let Err(message) = crate::backoff::validate_retry_policy(policy)
        {
            return bad(format!("RetryPolicy of activity {id}: {message}"));
        }
        let known = self
            .state
            .activities
            .values()
            .any(|a| a.scheduled().activity_id == id);
        if known || !new.activities.insert(id) {
            return Err(Error::bad_command(
                Cause::ScheduleActivityDuplicateId,
                format!("Activity {id} is already scheduled."),
            ));
        }
        if self.state.activities.len() + new.activities.len() > cx.limits.pending {
            return Err(Error::bad_command(
                Cause::PendingActivitiesLimitExceeded,
                format!(
                    "The workflow has {} pending activities, the limit.",
                    cx.limits.pending
                ),
            ));
        }
        crate::commands::check_size(
            cx,
            &command.input,
            Cause::BadScheduleActivityAttributes,
            || format!("Input of activity {id}"),
        )
    }

    /// Whether an activity may be cancelled.
    pub(crate) fn check_cancel_activity(
        &self,
        command: &RequestCancelActivityTaskCommandAttributes,
        new: &NewIds<'_>,
    ) -> Result<()> {
        // An activity that closed in the meantime is no error; one that was never there is.
        let id = command.scheduled_event_id;
        if id <= 0 || id > new.last_event_id {
            return Err(Error::bad_command(
                Cause::BadRequestCancelActivityAttributes,
                format!(
                    "ScheduledEventId {id} of RequestCancelActivityTaskCommand is not an activity's."
                ),
            ));
        }
        Ok(())
    }

    /// Schedules an activity. Returns its scheduled event's id, and whether it may run now: if not, it
    /// waits for an approval or was refused.
    pub(crate) fn schedule_activity(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        command: ScheduleActivityTaskCommandAttributes,
        offer: bool,
        adorn: impl FnOnce(&mut HistoryEvent),
    ) -> (i64, bool) {
        let attributes = self.scheduled_activity_attributes(completed_event_id, command);
        let id = self.event_with(cx, attributes.into(), adorn);
        let may_run = self.may_run(cx, id, Stage::Scheduling);
        if offer
            && may_run
            && let Some(activity) = self.state.activities.get(&id)
        {
            cx.effects
                .extend(self.activity_effect(id, activity, cx.now));
        }
        (id, may_run)
    }

    /// Fills in what the command leaves to the server, as the server documents it.
    fn scheduled_activity_attributes(
        &self,
        completed_event_id: i64,
        command: ScheduleActivityTaskCommandAttributes,
    ) -> ActivityTaskScheduledEventAttributes {
        let run_timeout = span(&self.state.start().workflow_run_timeout);
        let cap = |timeout: Span| match run_timeout {
            0 => timeout,
            run => timeout.min(run),
        };
        let mut to_close = cap(span(&command.schedule_to_close_timeout));
        let mut to_start = cap(span(&command.schedule_to_start_timeout));
        let mut start_to_close = cap(span(&command.start_to_close_timeout));
        if to_close > 0 {
            to_start = if to_start == 0 {
                to_close
            } else {
                to_start.min(to_close)
            };
            start_to_close = if start_to_close == 0 {
                to_close
            } else {
                start_to_close.min(to_close)
            };
        } else {
            to_close = run_timeout;
            if to_start == 0 {
                to_start = run_timeout;
            }
        }
        let heartbeat = span(&command.heartbeat_timeout).min(start_to_close);
        let mut policy = command.retry_policy.unwrap_or_default();
        crate::backoff::default_retry_policy(&mut policy);
        let queue = command
            .task_queue
            .map(|queue| queue.name)
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| self.state.task_queue().to_owned());
        ActivityTaskScheduledEventAttributes {
            activity_id: command.activity_id,
            activity_type: command.activity_type,
            task_queue: Some(TaskQueue {
                name: queue,
                kind: TaskQueueKind::Normal as i32,
                normal_name: String::new(),
            }),
            header: command.header,
            input: command.input,
            schedule_to_close_timeout: Some(duration(to_close)),
            schedule_to_start_timeout: Some(duration(to_start)),
            start_to_close_timeout: Some(duration(start_to_close)),
            heartbeat_timeout: Some(duration(heartbeat)),
            workflow_task_completed_event_id: completed_event_id,
            retry_policy: Some(policy),
            use_workflow_build_id: command.use_workflow_build_id,
            priority: command.priority,
        }
    }

    /// Requests an activity's cancellation. One that is not in a worker's hands is cancelled at once.
    /// Returns whether that closed an activity, so that the workflow needs a task to see it.
    pub(crate) fn cancel_activity(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        identity: &str,
        scheduled_event_id: i64,
    ) -> bool {
        let Some(activity) = self.state.activities.get(&scheduled_event_id) else {
            return false;
        };
        if activity.cancel_requested_event_id != 0 {
            return false;
        }
        let started = activity.is_started();
        let cancel_requested = self.event(
            cx,
            ActivityTaskCancelRequestedEventAttributes {
                scheduled_event_id,
                workflow_task_completed_event_id: completed_event_id,
            }
            .into(),
        );
        if !started {
            // An outcome: it comes after everything that the same task's commands do.
            self.buffer_event(
                cx,
                ActivityTaskCanceledEventAttributes {
                    details: Some(not_started()),
                    latest_cancel_requested_event_id: cancel_requested,
                    scheduled_event_id,
                    started_event_id: 0,
                    identity: identity.to_owned(),
                    worker_version: None,
                }
                .into(),
            );
        }
        !started
    }

    /// The effect that offers a waiting attempt to pollers; none if it is started or not due yet.
    pub(crate) fn activity_effect(
        &self,
        id: i64,
        activity: &Activity,
        now: Time,
    ) -> Option<Effect> {
        let attempt = activity.attempt();
        let is_waiting = attempt.started_time == 0
            && attempt.scheduled_time <= now
            && activity.open_approval().is_none();
        is_waiting.then(|| Effect::ActivityTask {
            run_id: self.state.run_id.clone(),
            scheduled_event_id: id,
            attempt: attempt.number,
            task_queue: activity.task_queue().to_owned(),
            priority: crate::effect::priority_of(
                activity.scheduled().priority.as_ref(),
                self.state.priority.as_ref(),
            ),
        })
    }

    /// The activity that a token names, if its attempt is still under way.
    pub fn claimed_activity(&self, claim: &ActivityClaim) -> Result<&Activity> {
        let gone = || {
            Error::NotFound(
                "invalid activityID or activity already timed out or invoking workflow is completed".into(),
            )
        };
        if !self.state.is_running() {
            return Err(Error::completed());
        }
        let activity = self
            .state
            .activities
            .get(&claim.scheduled_event_id)
            .ok_or_else(gone)?;
        let attempt = activity.attempt();
        if activity.open_approval().is_some() {
            return Err(Error::FailedPrecondition(
                "this activity waits for an approval".into(),
            ));
        }
        // Whoever knows the activity's id may end it before a worker has it.
        let by_id = claim.request_id.is_empty();
        let fits = by_id
            || (activity.is_started()
                && attempt.number == claim.attempt
                && attempt.request_id == claim.request_id);
        if fits { Ok(activity) } else { Err(gone()) }
    }

    /// A claim on the pending activity with this activity id.
    pub fn activity_by_id(&self, activity_id: &str) -> Result<ActivityClaim> {
        self.state
            .activities
            .iter()
            .find(|(_, activity)| activity.scheduled().activity_id == activity_id)
            .map(|(&scheduled_event_id, activity)| ActivityClaim {
                scheduled_event_id,
                attempt: activity.attempt().number,
                request_id: String::new(),
            })
            .ok_or_else(|| {
                Error::NotFound(format!(
                    "cannot find pending activity with ActivityID {activity_id}"
                ))
            })
    }

    /// A worker ends an attempt.
    pub fn end_activity(
        &mut self,
        cx: &mut Cx<'_>,
        claim: &ActivityClaim,
        outcome: Outcome,
        identity: String,
    ) -> Result<()> {
        self.claimed_activity(claim)?;
        let id = claim.scheduled_event_id;
        self.start_for_caller(cx, id, &identity);
        let activity = self.claimed_activity(claim)?;
        match outcome {
            Outcome::Completed(result) => {
                let started_event_id = self.add_activity_started(cx, id);
                self.event(
                    cx,
                    ActivityTaskCompletedEventAttributes {
                        result,
                        scheduled_event_id: id,
                        started_event_id,
                        identity,
                        worker_version: None,
                    }
                    .into(),
                );
            }
            Outcome::Canceled(details) => {
                let latest_cancel_requested_event_id = activity.cancel_requested_event_id;
                if latest_cancel_requested_event_id == 0 {
                    return Err(Error::InvalidArgument(
                        "Unable to cancel activity: cancellation was not requested.".into(),
                    ));
                }
                let started_event_id = self.add_activity_started(cx, id);
                self.event(
                    cx,
                    ActivityTaskCanceledEventAttributes {
                        details,
                        latest_cancel_requested_event_id,
                        scheduled_event_id: id,
                        started_event_id,
                        identity,
                        worker_version: None,
                    }
                    .into(),
                );
            }
            Outcome::Failed(failure, heartbeat_details) => {
                let failure = failure.unwrap_or_default();
                if let Some(heartbeat_details) = heartbeat_details {
                    let mut attempt = activity.attempt().clone();
                    attempt.heartbeat_details = Some(heartbeat_details);
                    self.set_attempt(id, attempt);
                }
                match self.retry_activity(cx, id, &failure) {
                    RetryState::InProgress => return Ok(()),
                    retry_state => self.fail_activity(cx, id, failure, retry_state, identity),
                }
            }
        }
        self.schedule_workflow_task(cx);
        Ok(())
    }

    fn fail_activity(
        &mut self,
        cx: &mut Cx<'_>,
        id: i64,
        failure: Failure,
        retry_state: RetryState,
        identity: String,
    ) {
        let started_event_id = self.add_activity_started(cx, id);
        self.event(
            cx,
            ActivityTaskFailedEventAttributes {
                failure: Some(failure),
                scheduled_event_id: id,
                started_event_id,
                identity,
                retry_state: retry_state as i32,
                ..Default::default()
            }
            .into(),
        );
    }

    pub(crate) fn apply_activity_scheduled(
        &mut self,
        event: &HistoryEvent,
        attributes: &ActivityTaskScheduledEventAttributes,
    ) {
        let at = event.event_time.as_ref().map_or(0, time);
        self.state.activities.insert(
            event.event_id,
            Activity {
                scheduled: Some(attributes.clone()),
                scheduled_time: at,
                attempt: Some(Attempt {
                    number: 1,
                    scheduled_time: at,
                    ..Attempt::default()
                }),
                cancel_requested_event_id: 0,
                approval: None,
            },
        );
    }

    pub(crate) fn apply_activity_cancel_requested(
        &mut self,
        id: i64,
        attributes: &ActivityTaskCancelRequestedEventAttributes,
    ) {
        if let Some(activity) = self
            .state
            .activities
            .get_mut(&attributes.scheduled_event_id)
        {
            activity.cancel_requested_event_id = id;
        }
    }

    pub(crate) fn apply_activity_closed(&mut self, scheduled_event_id: i64) {
        self.state.activities.remove(&scheduled_event_id);
    }
}

/// The details of an activity that was cancelled before it was handed out, as SDKs know them.
fn not_started() -> Payloads {
    let payload = Payload {
        metadata: [("encoding".to_owned(), b"json/plain".to_vec())].into(),
        data: b"\"ACTIVITY_ID_NOT_STARTED\"".to_vec(),
        ..Payload::default()
    };
    Payloads {
        payloads: vec![payload],
    }
}
