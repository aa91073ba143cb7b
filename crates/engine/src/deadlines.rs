//! What happens by itself: the time-outs and timers of a run, and when the next one is.

use crate::attempt::ActivityDeadline;
use crate::run::{Cx, Run};
use crate::time::Time;

/// Something that is due.
enum Due {
    Execution,
    WorkflowTask,
    Activity(i64, ActivityDeadline),
    /// An approval of what is to be sent.
    Approval(i64),
    Timer(String),
}

impl Run {
    /// When the run has to be looked at next, if nobody asks for it before; none for never.
    pub fn next_wake(&self) -> Option<Time> {
        if !self.state.is_running() {
            return None;
        }
        let state = &self.state;
        let expires = [state.run_expires, state.execution_expires]
            .into_iter()
            .filter(|&at| at != 0);
        let timers = state.timers.values().map(|timer| timer.fires);
        let activities = self.activity_deadlines().map(|(at, _, _)| at);
        let approvals = self.message_approval_deadlines().map(|(at, _)| at);
        expires
            .chain(self.workflow_task_deadline())
            .chain(timers)
            .chain(activities)
            .chain(approvals)
            .min()
    }

    /// Does all that is due at `cx.now`, earliest first.
    pub fn wake(&mut self, cx: &mut Cx<'_>) {
        // Each round closes or moves one deadline; the bound is for a bug that would not.
        let state = &self.state;
        let messages = state.messages_under_way().count();
        let bound = 64 + 4 * (state.timers.len() + state.activities.len() + messages);
        self.retries_due(cx);
        for _ in 0..bound {
            if !self.state.is_running() {
                return;
            }
            let Some(due) = self.earliest_due(cx.now) else {
                return;
            };
            match due {
                Due::Execution => self.time_out(cx),
                Due::WorkflowTask => self.workflow_task_due(cx),
                Due::Activity(id, due) => self.activity_due(cx, id, due),
                Due::Approval(id) => self.expire_approval(cx, id),
                Due::Timer(id) => self.fire_timer(cx, &id),
            }
        }
    }

    /// Offers the attempts whose back-off ended since the last look. That changes nothing durable.
    fn retries_due(&mut self, cx: &mut Cx<'_>) {
        let due: Vec<i64> = self
            .activity_deadlines()
            .filter(|(at, _, due)| *at <= cx.now && *due == ActivityDeadline::Retry)
            .map(|(_, id, _)| id)
            .collect();
        for id in due {
            self.activity_due(cx, id, ActivityDeadline::Retry);
        }
        self.offered_until = cx.now;
    }

    fn earliest_due(&self, now: Time) -> Option<Due> {
        let state = &self.state;
        let expires = [state.run_expires, state.execution_expires]
            .into_iter()
            .filter(|&at| at != 0)
            .map(|at| (at, Due::Execution));
        let task = self
            .workflow_task_deadline()
            .map(|at| (at, Due::WorkflowTask));
        let timers = state
            .timers
            .iter()
            .map(|(id, timer)| (timer.fires, Due::Timer(id.clone())));
        let activities = self
            .activity_deadlines()
            .map(|(at, id, due)| (at, Due::Activity(id, due)));
        let approvals = self
            .message_approval_deadlines()
            .map(|(at, id)| (at, Due::Approval(id)));
        expires
            .chain(task)
            .chain(timers)
            .chain(activities)
            .chain(approvals)
            .filter(|(at, _)| *at <= now)
            .min_by_key(|(at, _)| *at)
            .map(|(_, due)| due)
    }
}
