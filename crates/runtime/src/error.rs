//! Why a call could not be done. The server's edge makes status codes of these.

use steadfast_engine::Error as EngineError;
use steadfast_store::StoreError;

/// Why a call could not be done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The engine refused it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// There is no such namespace.
    #[error("Namespace {0} is not found.")]
    NamespaceNotFound(String),
    /// There is such a namespace already.
    #[error("Namespace already exists.")]
    NamespaceExists,
    /// The caller's time is over; it may ask again.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// Nobody may do this.
    #[error("{0}")]
    PermissionDenied(String),
    /// It cannot be done at the moment; the caller may try again.
    #[error("{0}")]
    Unavailable(String),
    /// The disk is full; it goes on once there is room.
    #[error("the store is full: nothing was changed")]
    Full,
    /// A query failed in the workflow's code.
    #[error("{message}")]
    QueryFailed {
        /// What it says.
        message: String,
        /// The failure, where the worker gives one.
        failure: Option<Box<steadfast_engine::proto::failure::Failure>>,
    },
    /// One of several operations failed: the error of each.
    #[error("Update-with-Start could not be executed.")]
    MultiOperation(Vec<Option<RuntimeError>>),
    /// A bug, or a damaged store.
    #[error("{0}")]
    Internal(String),
}

impl From<StoreError> for RuntimeError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) => Self::Full,
            StoreError::Invalid(message) => Self::invalid(message),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl RuntimeError {
    /// A malformed request.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Engine(EngineError::InvalidArgument(message.into()))
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::Engine(EngineError::NotFound(message.into()))
    }

    /// Something that the state does not allow.
    pub fn failed_precondition(message: impl Into<String>) -> Self {
        Self::Engine(EngineError::FailedPrecondition(message.into()))
    }
}

/// The runtime's result.
pub type Result<T> = std::result::Result<T, RuntimeError>;
