//! What a decision asks the shell to do once its record is durable.
//!
//! Effects are never stored: they follow from the state ([`Run::outstanding`]), so after a restart
//! they are simply asked for again.

use crate::proto::common::Priority;
use crate::run::Run;
use crate::state::OutMessage;

/// Something to do after the commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A workflow task waits for a poller.
    WorkflowTask {
        /// The run.
        run_id: String,
        /// The task.
        scheduled_event_id: i64,
        /// The queue it waits in.
        task_queue: String,
        /// 1 is served first, 5 last.
        priority: i32,
        /// Whether that is a sticky queue.
        sticky: bool,
    },
    /// An activity's attempt waits for a poller.
    ActivityTask {
        /// The run.
        run_id: String,
        /// The activity.
        scheduled_event_id: i64,
        /// The attempt.
        attempt: i32,
        /// The queue it waits in.
        task_queue: String,
        /// 1 is served first, 5 last.
        priority: i32,
    },
    /// A message is to be delivered to another run.
    Message {
        /// The sender.
        run_id: String,
        /// The message.
        message: OutMessage,
    },
    /// An update got further: whoever waits for it can look again.
    UpdateChanged {
        /// The run.
        run_id: String,
        /// The update.
        update_id: String,
    },
    /// The run closed.
    Closed {
        /// The run.
        run_id: String,
    },
}

/// The priority of what does not say.
const DEFAULT_PRIORITY: i32 = 3;

/// Lowest priority.
const LOWEST_PRIORITY: i32 = 5;

/// The place of a task among those of its queue: its own priority, else its workflow's.
pub(crate) fn priority_of(own: Option<&Priority>, workflow: Option<&Priority>) -> i32 {
    [own, workflow]
        .into_iter()
        .flatten()
        .map(|priority| priority.priority_key)
        .find(|key| *key > 0)
        .map_or(DEFAULT_PRIORITY, |key| key.min(LOWEST_PRIORITY))
}

impl Run {
    /// Everything that the state says is waiting: offered again when a run is loaded.
    pub fn outstanding(&mut self, now: crate::Time) -> Vec<Effect> {
        self.offered_until = now;
        let mut effects = self.waiting_tasks();
        effects.extend(self.state.outbox.values().map(|message| Effect::Message {
            run_id: self.state.run_id.clone(),
            message: message.clone(),
        }));
        effects.retain(|effect| !self.withholds(effect));
        effects
    }

    /// The tasks that have been offered and wait for pollers.
    pub fn waiting_tasks(&self) -> Vec<Effect> {
        let mut effects: Vec<Effect> = self.workflow_task_effect().into_iter().collect();
        if self.state.is_running() {
            let now = self.offered_until.max(self.state.time);
            for (&id, activity) in &self.state.activities {
                effects.extend(self.activity_effect(id, activity, now));
            }
        }
        effects.retain(|effect| !self.withholds(effect));
        effects
    }
}
