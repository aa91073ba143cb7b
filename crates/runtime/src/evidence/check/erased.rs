//! The check of a run whose payloads are erased. It cannot be replayed any more; that it was erased is
//! in the log, and what is left of its events gives the hashes that are in its entries.

use steadfast_engine::RunState;
use steadfast_ledger::entry::EventRange;
use steadfast_ledger::skeleton::is_skeleton;
use steadfast_ledger::tree::root_of;
use steadfast_ledger::{Entry, Hash};
use steadfast_store::{RunRef, Store};

use super::End;
use crate::error::Result;
use crate::evidence::archive::{Entries, Events};

/// Compares the stored events of an erased run with its entries in the log. Gives what differs first.
pub(super) async fn compare(
    store: &dyn Store,
    run: &RunRef,
    state: &RunState,
    end: &End,
) -> Result<Option<String>> {
    let branch = state.ancestors.last();
    let mut left = Left {
        events: Events::new(store, run.clone()),
        next: branch.map_or(1, |branch| branch.last_event_id + 1),
    };
    // Of a run that is older than the log, the first events are in no entry.
    let is_whole = end.first == 1;
    let mut entries = Entries::new(store, run, end.from, end.to);
    while let Some(logged) = entries.next().await? {
        let Ok(entry) = Entry::parse(&logged.entry) else {
            continue;
        };
        let first = entry.events.first().map(|event| event.id);
        let first = first.or(entry.event_range.as_ref().map(|range| range.first));
        if let Some(first) = first.filter(|first| *first != left.next && !is_whole) {
            left.next = first;
        }
        if let Some(what) = left.compare(&entry).await? {
            return Ok(Some(what));
        }
    }
    if end.n < state.n {
        // The newest entries came to the log after it was looked at.
        return Ok(None);
    }
    Ok(match () {
        () if end.n > 0 && left.next != state.next_event_id => Some(format!(
            "the log has its events up to {}, and its state up to {}",
            left.next - 1,
            state.next_event_id - 1
        )),
        () if end.n > state.n => Some(format!(
            "the log has {} entries, and its state stands for {} records",
            end.n, state.n
        )),
        () if end.hash.map(|hash| hash.0.to_vec()).unwrap_or_default() != state.entry_hash => {
            Some("its state does not hold the hash of its last entry".to_owned())
        }
        () => None,
    })
}

/// What is left of a run's events.
struct Left<'a> {
    events: Events<'a>,
    next: i64,
}

impl Left<'_> {
    async fn compare(&mut self, entry: &Entry<'_>) -> Result<Option<String>> {
        for event in &entry.events {
            if event.id != self.next {
                return Ok(Some(format!(
                    "entry {} lists event {} after event {}",
                    entry.n,
                    event.id,
                    self.next - 1
                )));
            }
            match self.hash().await? {
                Ok(hash) if hash == event.hash => {}
                Ok(_) => {
                    return Ok(Some(format!(
                        "event {} does not give the hash that entry {} has of it",
                        event.id, entry.n
                    )));
                }
                Err(what) => return Ok(Some(what)),
            }
        }
        match &entry.event_range {
            Some(range) => self.compare_range(range, entry.n).await,
            None => Ok(None),
        }
    }

    async fn compare_range(&mut self, range: &EventRange, n: u64) -> Result<Option<String>> {
        let mut leaves = Vec::new();
        while self.next <= range.last && self.next >= range.first {
            match self.hash().await? {
                Ok(hash) => leaves.push(Hash::leaf(&hash.0)),
                Err(what) => return Ok(Some(what)),
            }
        }
        Ok((root_of(leaves) != range.root).then(|| {
            format!(
                "events {} to {} do not give the root that entry {n} has of them",
                range.first, range.last
            )
        }))
    }

    /// The hash of the next event, or what is wrong with it.
    async fn hash(&mut self) -> Result<std::result::Result<Hash, String>> {
        let id = self.next;
        self.next += 1;
        Ok(match self.events.get(id).await? {
            Some(bytes) if is_skeleton(&bytes) => Ok(Hash::of(&bytes)),
            Some(_) => Err(format!("event {id} is not erased")),
            None => Err(format!("event {id} is missing")),
        })
    }
}
