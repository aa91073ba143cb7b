//! What a decision asks the shell to do once its record is durable.
//!
//! Effects are never stored: they follow from the state ([`Run::outstanding`]), so after a restart
//! they are simply asked for again.

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

impl Run {
    /// Everything that the state says is waiting: offered again when a run is loaded.
    pub fn outstanding(&mut self, now: crate::Time) -> Vec<Effect> {
        self.offered_until = now;
        let mut effects = self.waiting_tasks();
        effects.extend(self.state.outbox.values().map(|message| Effect::Message {
            run_id: self.state.run_id.clone(),
            message: message.clone(),
        }));
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
        effects
    }
}
