//! Evidence at the edge: signing the logs, keeping their keys, and reading them.

pub mod anchor;
pub mod keys;
pub mod publisher;
pub mod reader;

pub use publisher::{Logs, PublishedLog, Publisher};
