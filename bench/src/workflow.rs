//! The workflows' logic: pure functions of the events that a task brings.

use crate::client::Event;

const ACTIVITY_TASK_SCHEDULED: i32 = 10;
const ACTIVITY_TASK_COMPLETED: i32 = 12;

/// What a workflow is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// So many activities, one after another; then it completes.
    Activities(u32),
    /// It starts a long timer and stays open.
    IdleOnTimer,
    /// It waits for a signal and stays open.
    IdleOnSignal,
}

/// What a workflow task is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The activity with this number, from 1.
    Schedule(u32),
    /// The workflow's end.
    Complete,
    /// A long timer.
    StartTimer,
    /// No command: something is still awaited.
    Nothing,
}

/// How far a workflow has come. An SDK's cache of sticky workflows keeps far more than this.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    scheduled: u32,
    completed: u32,
}

impl Progress {
    /// Takes in a task's events: the news of a sticky workflow, or its whole history.
    pub fn observe(&mut self, events: &[Event]) {
        if events.first().is_some_and(|event| event.event_id == 1) {
            *self = Self::default();
        }
        for event in events {
            match event.event_type {
                ACTIVITY_TASK_SCHEDULED => self.scheduled += 1,
                ACTIVITY_TASK_COMPLETED => self.completed += 1,
                _ => {}
            }
        }
    }

    /// What comes next.
    pub fn next_step(self, plan: Plan) -> Step {
        match plan {
            Plan::Activities(_) if self.completed < self.scheduled => Step::Nothing,
            Plan::Activities(total) if self.scheduled < total => Step::Schedule(self.scheduled + 1),
            Plan::Activities(_) => Step::Complete,
            Plan::IdleOnTimer => Step::StartTimer,
            Plan::IdleOnSignal => Step::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(first_id: i64, types: &[i32]) -> Vec<Event> {
        let numbered = types.iter().zip(first_id..);
        numbered
            .map(|(&event_type, event_id)| Event {
                event_id,
                event_type,
            })
            .collect()
    }

    #[test]
    fn activities_run_one_after_another() {
        let plan = Plan::Activities(2);
        let mut progress = Progress::default();
        progress.observe(&events(1, &[1, 5, 6]));
        assert_eq!(progress.next_step(plan), Step::Schedule(1));
        progress.observe(&events(4, &[7, 10]));
        assert_eq!(progress.next_step(plan), Step::Nothing);
        progress.observe(&events(6, &[11, 12, 5, 6]));
        assert_eq!(progress.next_step(plan), Step::Schedule(2));
        progress.observe(&events(10, &[7, 10, 11, 12, 5, 6]));
        assert_eq!(progress.next_step(plan), Step::Complete);
    }

    #[test]
    fn a_whole_history_replaces_what_was_known() {
        let mut progress = Progress {
            scheduled: 1,
            completed: 0,
        };
        progress.observe(&events(1, &[1, 5, 6, 7, 10, 11, 12, 5, 6]));
        assert_eq!(progress.next_step(Plan::Activities(1)), Step::Complete);
    }
}
