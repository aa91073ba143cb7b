//! What policies decide.
//!
//! Policies are Cedar (`cedarpolicy.com`), validated against the schema of this crate. A policy set is
//! immutable, and known by the hash of its text. [`Policies::decide`] takes a principal, an action, a
//! resource and a context, and says whether it may go on, or whose approval it needs first.
//!
//! Pure: no clock, no files, no randomness.

pub mod action;
pub mod annotations;
pub mod arguments;
pub mod decide;
pub mod outlook;
pub mod policies;
pub mod principal;
pub mod recorded;
mod rules;
pub mod schema;
mod slices;
pub mod starter;

pub use action::{Action, Command};
pub use annotations::Requirement;
pub use arguments::{Argument, Arguments};
pub use decide::{Decision, ExchangeContext, Request, Resource, ToolContext, Verdict};
pub use outlook::{May, Outlook};
pub use policies::{Policies, Problem, Source};
pub use principal::{Kind, Principal};
pub use recorded::Recorded;
