use steadfast_runtime::RuntimeError;
use tonic::{Code, Status};
pub(crate) fn status(error: RuntimeError) -> Status {
    use steadfast_engine::Error as E;
    let message = error.to_string();
    let code = match &error {
        RuntimeError::Engine(E::InvalidArgument(_) | E::BadCommand { .. }) => Code::InvalidArgument,
        RuntimeError::Engine(E::NotFound(_)) | RuntimeError::NamespaceNotFound(_) => Code::NotFound,
        RuntimeError::Engine(E::AlreadyStarted { .. }) | RuntimeError::NamespaceExists => Code::AlreadyExists,
        RuntimeError::Engine(E::FailedPrecondition(_) | E::WorkflowNotReady(_)) => Code::FailedPrecondition,
        RuntimeError::Engine(E::ResourceExhausted(_)) | RuntimeError::Full => Code::ResourceExhausted,
        RuntimeError::DeadlineExceeded(_) => Code::DeadlineExceeded,
        RuntimeError::QueryFailed { .. } => Code::InvalidArgument,
        RuntimeError::Unavailable(_) => Code::Unavailable,
        _ => Code::Internal,
    };
    Status::new(code, message)
}
