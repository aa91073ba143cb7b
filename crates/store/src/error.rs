//! What can go wrong in a store, by what the caller has to do about it.

use crate::filter::FilterError;

/// An error of a store. Callers decide by variant, never by message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No space is left. Nothing was written; the same call may succeed once there is room.
    #[error("no space left for the store: {0}")]
    Full(String),
    /// A write may or may not have happened; the caller reads back before it does anything else.
    #[error("the outcome of a write is unknown: {0}")]
    Unknown(String),
    /// The rows or batch do not follow what is stored. Nothing was written.
    #[error("expected position {expected}, found {found}")]
    Conflict {
        /// The position that would have been accepted.
        expected: u64,
        /// The position that was given.
        found: u64,
    },
    /// The operating system could not make a write durable, and may have dropped it: what is in
    /// memory can no longer be trusted to match the disk, so the process must end.
    #[error("a write could not be made durable: {0}")]
    SyncFailed(String),
    /// The files are damaged, incomplete or do not belong together; the process must end.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// Another process has the store open.
    #[error("the store is in use by another process (it holds the lock on {0})")]
    Locked(String),
    /// The files were written by a newer release.
    #[error("the store has schema version {found}, this release supports up to {supported}")]
    TooNew {
        /// Version of the files.
        found: i64,
        /// Newest version that this release can read.
        supported: i64,
    },
    /// The caller asked for something that has no meaning; the message is for the client.
    #[error("{0}")]
    Invalid(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Anything else; nothing was written.
    #[error("the store failed: {0}")]
    Other(String),
}

impl From<FilterError> for StoreError {
    fn from(error: FilterError) -> Self {
        StoreError::Invalid(error.to_string())
    }
}
