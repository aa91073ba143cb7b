//! What a request can do wrong, as facts. Status codes and details are made at the server's edge.

use crate::proto::enums::{WorkflowExecutionStatus, WorkflowTaskFailedCause};

/// Why the engine refused an input. Nothing was changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The request is malformed, whatever the state.
    #[error("{0}")]
    InvalidArgument(String),
    /// What the request names is not there (any more).
    #[error("{0}")]
    NotFound(String),
    /// A run with this workflow id is there and the policy does not allow another.
    #[error("{message}")]
    AlreadyStarted {
        /// What to tell the caller.
        message: String,
        /// Request id of the run that is there.
        start_request_id: String,
        /// Its run id.
        run_id: String,
        /// The first run of its chain.
        first_run_id: String,
        /// Its status.
        status: WorkflowExecutionStatus,
    },
    /// The state does not allow it now.
    #[error("{0}")]
    FailedPrecondition(String),
    /// Whoever asks may not.
    #[error("{0}")]
    PermissionDenied(String),
    /// The workflow cannot take it yet; the caller may try again soon.
    #[error("{0}")]
    WorkflowNotReady(String),
    /// A limit is reached.
    #[error("{0}")]
    ResourceExhausted(String),
    /// A workflow task's answer breaks the rules: the task is to be failed with this cause.
    #[error("{message}")]
    BadCommand {
        /// The cause that the failed task's event names.
        cause: WorkflowTaskFailedCause,
        /// What is wrong with which command.
        message: String,
    },
    /// The records do not fit together: a bug or a damaged store. Nothing goes on with this run.
    #[error("{0}")]
    Corrupt(String),
}

impl Error {
    /// A [`Error::BadCommand`].
    pub fn bad_command(cause: WorkflowTaskFailedCause, message: impl Into<String>) -> Self {
        Self::BadCommand {
            cause,
            message: message.into(),
        }
    }

    /// The error of requests that find a closed run.
    pub fn completed() -> Self {
        Self::NotFound("workflow execution already completed".into())
    }
}

/// The engine's result.
pub type Result<T> = std::result::Result<T, Error>;
