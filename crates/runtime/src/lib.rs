//! The shell around the pure engine: it holds live runs in memory, commits transitions in groups,
//! matches tasks with pollers, wakes runs when something is due, and projects the journal.
//!
//! The life of a transition: a call takes the lock of the workflow's shard, the engine decides,
//! the record goes to the [`commit`]ter's queue, and the lock is let go. The shard goes on at once
//! with the next input. Only when the group that holds the record is durable is the caller
//! answered, tasks become visible to pollers, and messages leave.

pub mod access;
pub mod aggregate;
pub mod calls;
pub mod clock;
pub mod commit;
pub mod credentials;
pub mod delivery;
pub mod disabled;
mod effects;
pub mod error;
pub mod evidence;
pub mod handout;
pub mod inventory;
mod loading;
pub mod matching;
pub mod namespaces;
pub mod offboarding;
pub mod permit;
pub mod prefetch;
pub mod projector;
pub mod queries;
pub mod recovery;
mod reserve;
pub mod retention;
pub mod runtime;
pub mod shard;
#[cfg(test)]
pub(crate) mod testing;
pub mod timers;
pub mod token;
pub mod transact;
pub mod visibility;

pub use error::RuntimeError;
pub use permit::{Kind, Permit};
pub use runtime::{Runtime, Settings};
