//! What a bundle's entries say about one run. The writer and the verifier make their claims of it.

use crate::entry::Entry;
use crate::{Hash, bundle::Claim};

/// The entries of one run, or those of a namespace that belong to no run, in the log's order.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    pub entries: u64,
    pub last_n: u64,
    /// Leaf hash of the last one.
    pub end: Option<Hash>,
    /// They begin with number 1 and have no gap.
    pub is_whole: bool,
    pub closed: Option<String>,
    pub deleted: bool,
    /// First event that is the run's own: those before it are of the run that it was reset from.
    pub first_event_id: i64,
    /// The event that the next entry begins with.
    pub next_event_id: i64,
    /// Each entry goes on with the event after the last one.
    pub events_are_in_order: bool,
}

/// How an entry is linked to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// By its number and the hash that it holds.
    Good,
    /// Its number is the next one, and the hash that it holds is not that of the one before.
    OtherHash,
    /// Entries between them are not there.
    Gap,
    /// Its number is not greater.
    Back,
}

impl Chain {
    pub fn push(&mut self, entry: &Entry<'_>, leaf: Hash) -> Link {
        let link = self.link(entry);
        if self.entries == 0 {
            self.begin(entry);
        }
        self.is_whole &= matches!(link, Link::Good | Link::OtherHash);
        self.entries += 1;
        if link == Link::Back {
            return link;
        }
        self.last_n = entry.n;
        self.end = Some(leaf);
        if !entry.closed.is_empty() {
            self.closed = Some(entry.closed.to_string());
        }
        self.deleted |= entry.deleted;
        self.count_events(entry);
        link
    }

    fn link(&self, entry: &Entry<'_>) -> Link {
        let expected = self.last_n.saturating_add(1);
        match entry.n.cmp(&expected) {
            std::cmp::Ordering::Less => Link::Back,
            std::cmp::Ordering::Greater => Link::Gap,
            std::cmp::Ordering::Equal if entry.prev == self.end => Link::Good,
            std::cmp::Ordering::Equal => Link::OtherHash,
        }
    }

    fn begin(&mut self, entry: &Entry<'_>) {
        let shared = entry.follows.as_ref().map_or(0, |follows| follows.event_id);
        self.is_whole = true;
        self.events_are_in_order = true;
        self.first_event_id = shared.max(0).saturating_add(1);
        self.next_event_id = self.first_event_id;
    }

    fn count_events(&mut self, entry: &Entry<'_>) {
        let mut count = |first: i64, last: i64| {
            self.events_are_in_order &= first == self.next_event_id && first <= last;
            self.next_event_id = last.saturating_add(1);
        };
        for event in &entry.events {
            count(event.id, event.id);
        }
        if let Some(range) = &entry.event_range {
            count(range.first, range.last);
        }
    }

    pub fn claim(&self) -> Claim {
        match self.is_whole {
            true if self.closed.is_some() || self.deleted => Claim::Complete,
            true => Claim::AsOf,
            false => Claim::Partial,
        }
    }
}
