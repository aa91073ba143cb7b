//! Which workflow each place of the closed loop waits for.
//!
//! A workflow's id names its slot and its number within it, so a worker finds who waits for it, and
//! how far it has come, without a search.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::oneshot;

use crate::{
    client::Event,
    workflow::{Plan, Progress, Step},
};

/// All places of the closed loop.
pub struct Slots {
    prefix: String,
    slots: Vec<Mutex<Slot>>,
}

#[derive(Default)]
struct Slot {
    number: u64,
    progress: Progress,
    done: Option<oneshot::Sender<Instant>>,
}

/// A workflow of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    slot: usize,
    number: u64,
}

impl Slots {
    /// `count` empty places; ids begin with `prefix`.
    pub fn new(prefix: String, count: usize) -> Self {
        let slots = (0..count).map(|_| Mutex::default()).collect();
        Self { prefix, slots }
    }

    /// How many places there are.
    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// Puts a new workflow into `slot`; what was there before is no longer waited for.
    pub fn begin(&self, slot: usize, number: u64) -> (String, oneshot::Receiver<Instant>) {
        let (sender, receiver) = oneshot::channel();
        *self.lock(slot) = Slot {
            number,
            progress: Progress::default(),
            done: Some(sender),
        };
        (format!("{}-{slot}-{number}", self.prefix), receiver)
    }

    /// Whose workflow id this is; nothing if it is not one of ours.
    pub fn key_of(&self, workflow_id: &str) -> Option<Key> {
        let rest = workflow_id.strip_prefix(&self.prefix)?.strip_prefix('-')?;
        let (slot, number) = rest.split_once('-')?;
        let key = Key {
            slot: slot.parse().ok()?,
            number: number.parse().ok()?,
        };
        (key.slot < self.slots.len()).then_some(key)
    }

    /// What the workflow does after these events. One that nobody waits for any more has to tell
    /// from these events alone.
    pub fn next_step(&self, key: Key, events: &[Event], plan: Plan) -> Step {
        let mut slot = self.lock(key.slot);
        let mut abandoned = Progress::default();
        let current = slot.number == key.number;
        let progress = if current {
            &mut slot.progress
        } else {
            &mut abandoned
        };
        progress.observe(events);
        progress.next_step(plan)
    }

    /// The workflow's last answer was acknowledged.
    pub fn finished(&self, key: Key) {
        let mut slot = self.lock(key.slot);
        if slot.number == key.number
            && let Some(done) = slot.done.take()
        {
            // Nobody listens once the measurement is over.
            let _ = done.send(Instant::now());
        }
    }

    fn lock(&self, slot: usize) -> MutexGuard<'_, Slot> {
        self.slots[slot]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_back_to_its_slot() {
        let slots = Slots::new("a-b".to_owned(), 3);
        let (id, mut done) = slots.begin(2, 7);
        let key = slots.key_of(&id);
        assert_eq!(key, Some(Key { slot: 2, number: 7 }));
        slots.finished(Key { slot: 2, number: 6 });
        assert!(done.try_recv().is_err());
        key.into_iter().for_each(|key| slots.finished(key));
        assert!(done.try_recv().is_ok());
    }

    #[test]
    fn foreign_ids_are_refused() {
        let slots = Slots::new("a".to_owned(), 3);
        for id in ["b-0-0", "a-3-0", "a-x-0", "a-0", "a", ""] {
            assert_eq!(slots.key_of(id), None, "{id}");
        }
    }
}
