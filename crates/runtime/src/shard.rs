//! Shards: each a lock over the live workflows of many slots.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::broadcast;

use crate::aggregate::{Workflow, WorkflowKey};

/// Number of shards: enough that two cores rarely wait for the same lock.
const SHARDS: usize = 64;

/// Live workflows of some slots.
#[derive(Default)]
pub struct Shard {
    entries: HashMap<WorkflowKey, Entry>,
    /// Workflows that changed since they were projected, in order of their first change.
    pub dirty: Vec<WorkflowKey>,
    /// How often it was cleared: what was read before that may be outdated after it.
    generation: u64,
}

/// Says of something that is being read for a shard since when: it is of use only if the shard was not
/// cleared in the meantime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

enum Entry {
    /// Someone is loading it; the sender is dropped when it is there.
    Loading(broadcast::Sender<()>),
    Ready(Box<Workflow>),
}

/// What a look-up finds.
pub enum Found<'a> {
    /// The workflow.
    Ready(&'a mut Workflow),
    /// Someone else is loading it.
    Loading(broadcast::Receiver<()>),
    /// Nobody has it.
    Absent,
}

impl Shard {
    /// Looks a workflow up.
    pub fn find(&mut self, key: &WorkflowKey) -> Found<'_> {
        match self.entries.get_mut(key) {
            Some(Entry::Ready(workflow)) => Found::Ready(workflow),
            Some(Entry::Loading(sender)) => Found::Loading(sender.subscribe()),
            None => Found::Absent,
        }
    }

    /// The workflow and the dirty list, for marking it.
    pub fn ready_with_dirty(
        &mut self,
        key: &WorkflowKey,
    ) -> Option<(&mut Workflow, &mut Vec<WorkflowKey>)> {
        match self.entries.get_mut(key) {
            Some(Entry::Ready(workflow)) => Some((workflow, &mut self.dirty)),
            _ => None,
        }
    }

    /// The workflow if it is in memory.
    pub fn ready(&mut self, key: &WorkflowKey) -> Option<&mut Workflow> {
        self.ready_with_dirty(key).map(|(workflow, _)| workflow)
    }

    /// To be asked for before something is read for it.
    pub fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    /// Announces that the caller loads it. Whoever looks for it waits until
    /// [`Shard::loaded`] or [`Shard::load_failed`].
    pub fn loading(&mut self, key: &WorkflowKey) -> Generation {
        self.entries
            .insert(key.clone(), Entry::Loading(broadcast::channel(1).0));
        self.generation()
    }

    /// Puts in what was loaded, unless memory was dropped in the meantime: another may load it by now,
    /// and know more.
    pub fn loaded(&mut self, key: WorkflowKey, workflow: Workflow, since: Generation) {
        let is_loading = matches!(self.entries.get(&key), Some(Entry::Loading(_)));
        if is_loading && since == self.generation() {
            self.entries.insert(key, Entry::Ready(Box::new(workflow)));
        }
    }

    /// Gives up loading.
    pub fn load_failed(&mut self, key: &WorkflowKey) {
        if matches!(self.entries.get(key), Some(Entry::Loading(_))) {
            self.entries.remove(key);
        }
    }

    /// Puts in a workflow, whatever was there.
    pub fn insert(&mut self, key: WorkflowKey, workflow: Workflow) {
        self.entries.insert(key, Entry::Ready(Box::new(workflow)));
    }

    /// Takes a workflow out, to put it back in.
    pub fn take(&mut self, key: &WorkflowKey) -> Option<Workflow> {
        match self.entries.remove(key) {
            Some(Entry::Ready(workflow)) => Some(*workflow),
            _ => None,
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.dirty.clear();
        self.generation += 1;
    }

    /// Number of workflows in memory.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Lets go of idle workflows, least recently used first, until `keep` are left.
    pub fn evict(&mut self, keep: usize) {
        let excess = self.entries.len().saturating_sub(keep);
        if excess == 0 {
            return;
        }
        let mut idle: Vec<(i64, WorkflowKey)> = self
            .entries
            .iter()
            .filter_map(|(key, entry)| match entry {
                Entry::Ready(workflow) if workflow.is_idle() => Some((workflow.used, key.clone())),
                _ => None,
            })
            .collect();
        if idle.len() > excess {
            idle.select_nth_unstable(excess);
            idle.truncate(excess);
        }
        for (_, key) in idle {
            self.entries.remove(&key);
        }
    }

    /// All workflows in memory.
    pub fn workflows(&mut self) -> impl Iterator<Item = (&WorkflowKey, &mut Workflow)> {
        self.entries
            .iter_mut()
            .filter_map(|(key, entry)| match entry {
                Entry::Ready(workflow) => Some((key, &mut **workflow)),
                Entry::Loading(_) => None,
            })
    }
}

/// All shards.
pub struct Shards(Vec<Mutex<Shard>>);

impl Default for Shards {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Shards {
    /// The shard of a slot.
    pub fn of(&self, slot: u16) -> &Mutex<Shard> {
        &self.0[usize::from(slot) % self.0.len()]
    }

    /// A shard by its index.
    pub fn at(&self, index: usize) -> &Mutex<Shard> {
        &self.0[index]
    }

    /// All shards, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Mutex<Shard>> {
        self.0.iter()
    }

    /// All shards' locks at once, always in the same order.
    pub fn lock_all(&self) -> Vec<MutexGuard<'_, Shard>> {
        self.0.iter().map(Mutex::lock).collect()
    }

    /// Number of shards.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
