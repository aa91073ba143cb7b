//! The process dies, or a write fails, at every place where that can happen between a transition and
//! its signed checkpoint: no entry is lost or there twice, and whatever was signed is extended by all
//! that is signed later.

mod faulty;
mod life;
mod rotation;
mod twins;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// What happens at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process ends: nothing after it reaches a disk.
    Death,
    /// Only this step fails.
    Failure,
}

/// At which place something happens. Each write has two: before it, and when it is done and nobody
/// knows it yet.
pub(super) struct Plan {
    fault: Fault,
    /// Counted from 1.
    at: u64,
    passed: AtomicU64,
    dead: AtomicBool,
    /// Where it happened.
    pub(super) hit: Mutex<Option<&'static str>>,
}

impl Plan {
    pub(super) fn new(fault: Fault, at: u64) -> Self {
        Self {
            fault,
            at,
            passed: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            hit: Mutex::default(),
        }
    }

    /// Nothing happens.
    pub(super) fn none() -> Self {
        Self::new(Fault::Death, 0)
    }

    /// Whether the process gets past a place.
    pub(super) fn goes_on(&self, place: &'static str) -> bool {
        if self.is_dead() {
            return false;
        }
        if self.passed.fetch_add(1, Ordering::SeqCst) + 1 != self.at {
            return true;
        }
        *self.hit.lock() = Some(place);
        if self.fault == Fault::Death {
            self.dead.store(true, Ordering::SeqCst);
        }
        false
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    fn was_hit(&self) -> bool {
        self.hit.lock().is_some()
    }
}
