//! gRPC status codes and error details: the one place that knows them.

use prost::Message;
use prost_types::Any;
use steadfast_engine::Error as EngineError;
use steadfast_engine::proto::enums::{
    ResourceExhaustedCause as Cause, ResourceExhaustedScope as Scope,
};
use steadfast_engine::proto::errordetails;
use steadfast_runtime::RuntimeError;
use tonic::{Code, Status};

/// What clients find in the `grpc-status-details-bin` trailer (google.rpc.Status).
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// The status of an error, with the details that Temporal's clients look for.
pub(crate) fn status(error: RuntimeError) -> Status {
    let (code, details) = describe(&error);
    let message = error.to_string();
    if code == Code::Internal {
        tracing::error!(%message, "a call failed unexpectedly");
    }
    let rpc = RpcStatus {
        code: code as i32,
        message: message.clone(),
        details,
    };
    match rpc.details.is_empty() {
        true => Status::new(code, message),
        false => Status::with_details(code, message, rpc.encode_to_vec().into()),
    }
}

fn describe(error: &RuntimeError) -> (Code, Vec<Any>) {
    match error {
        RuntimeError::Engine(error) => describe_engine(error),
        RuntimeError::NamespaceNotFound(namespace) => (
            Code::NotFound,
            detail(
                "NamespaceNotFoundFailure",
                &errordetails::NamespaceNotFoundFailure {
                    namespace: namespace.clone(),
                },
            ),
        ),
        RuntimeError::NamespaceExists => (
            Code::AlreadyExists,
            detail(
                "NamespaceAlreadyExistsFailure",
                &errordetails::NamespaceAlreadyExistsFailure::default(),
            ),
        ),
        RuntimeError::DeadlineExceeded(_) => (Code::DeadlineExceeded, Vec::new()),
        RuntimeError::PermissionDenied(_) => (Code::PermissionDenied, Vec::new()),
        RuntimeError::Unavailable(_) => (Code::Unavailable, Vec::new()),
        RuntimeError::Full => (
            Code::ResourceExhausted,
            exhausted(Cause::PersistenceStorageLimit, Scope::System),
        ),
        RuntimeError::QueryFailed { failure, .. } => (
            Code::InvalidArgument,
            detail(
                "QueryFailedFailure",
                &errordetails::QueryFailedFailure {
                    failure: failure.as_deref().cloned(),
                },
            ),
        ),
        RuntimeError::MultiOperation(errors) => describe_multi(errors),
        RuntimeError::Internal(_) => (Code::Internal, Vec::new()),
    }
}

fn describe_engine(error: &EngineError) -> (Code, Vec<Any>) {
    match error {
        EngineError::InvalidArgument(_) | EngineError::BadCommand { .. } => {
            (Code::InvalidArgument, Vec::new())
        }
        EngineError::NotFound(_) => (
            Code::NotFound,
            detail("NotFoundFailure", &errordetails::NotFoundFailure::default()),
        ),
        EngineError::AlreadyStarted {
            start_request_id,
            run_id,
            first_run_id,
            ..
        } => (
            Code::AlreadyExists,
            detail(
                "WorkflowExecutionAlreadyStartedFailure",
                &errordetails::WorkflowExecutionAlreadyStartedFailure {
                    start_request_id: start_request_id.clone(),
                    run_id: run_id.clone(),
                    first_execution_run_id: first_run_id.clone(),
                },
            ),
        ),
        EngineError::PermissionDenied(_) => (Code::PermissionDenied, Vec::new()),
        EngineError::FailedPrecondition(_) => (Code::FailedPrecondition, Vec::new()),
        EngineError::WorkflowNotReady(_) => (
            Code::FailedPrecondition,
            detail(
                "WorkflowNotReadyFailure",
                &errordetails::WorkflowNotReadyFailure::default(),
            ),
        ),
        EngineError::ResourceExhausted(_) => (
            Code::ResourceExhausted,
            exhausted(Cause::ConcurrentLimit, Scope::Namespace),
        ),
        EngineError::Corrupt(_) => (Code::Internal, Vec::new()),
    }
}

/// The whole takes the code of the operation that failed; the others were given up for it.
fn describe_multi(errors: &[Option<RuntimeError>]) -> (Code, Vec<Any>) {
    use errordetails::multi_operation_execution_failure::OperationStatus;
    let statuses = errors
        .iter()
        .map(|error| match error {
            Some(error) => {
                let (code, details) = describe(error);
                OperationStatus {
                    code: code as i32,
                    message: error.to_string(),
                    details,
                }
            }
            None => OperationStatus {
                code: Code::Aborted as i32,
                message: "Operation was aborted.".into(),
                details: vec![any(
                    "temporal.api.failure.v1.MultiOperationExecutionAborted",
                    &steadfast_engine::proto::failure::MultiOperationExecutionAborted::default(),
                )],
            },
        })
        .collect();
    let code = errors
        .iter()
        .flatten()
        .next()
        .map_or(Code::Internal, |error| describe(error).0);
    let failure = errordetails::MultiOperationExecutionFailure { statuses };
    (code, detail("MultiOperationExecutionFailure", &failure))
}

fn exhausted(cause: Cause, scope: Scope) -> Vec<Any> {
    detail(
        "ResourceExhaustedFailure",
        &errordetails::ResourceExhaustedFailure {
            cause: cause as i32,
            scope: scope as i32,
        },
    )
}

fn detail(name: &str, message: &impl Message) -> Vec<Any> {
    vec![any(
        &format!("temporal.api.errordetails.v1.{name}"),
        message,
    )]
}

fn any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{name}"),
        value: message.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use steadfast_engine::proto::enums::WorkflowExecutionStatus;

    use super::*;

    fn decode(status: &Status) -> RpcStatus {
        RpcStatus::decode(status.details()).expect("details are a google.rpc.Status")
    }

    fn already_started() -> RuntimeError {
        RuntimeError::Engine(EngineError::AlreadyStarted {
            message: "there".into(),
            start_request_id: "request".into(),
            run_id: "run".into(),
            first_run_id: "first".into(),
            status: WorkflowExecutionStatus::Running,
        })
    }

    #[test]
    fn a_run_that_is_there_is_named_in_the_details() {
        let status = status(already_started());
        assert_eq!(status.code(), Code::AlreadyExists);
        let rpc = decode(&status);
        assert_eq!(rpc.code, Code::AlreadyExists as i32);
        assert!(
            rpc.details[0]
                .type_url
                .ends_with(".WorkflowExecutionAlreadyStartedFailure")
        );
        let failure = errordetails::WorkflowExecutionAlreadyStartedFailure::decode(
            rpc.details[0].value.as_slice(),
        )
        .expect("decodes");
        assert_eq!(failure.run_id, "run");
    }

    #[test]
    fn an_operation_that_was_not_tried_is_aborted() {
        let status = status(RuntimeError::MultiOperation(vec![
            Some(already_started()),
            None,
        ]));
        assert_eq!(status.code(), Code::AlreadyExists);
        let failure = errordetails::MultiOperationExecutionFailure::decode(
            decode(&status).details[0].value.as_slice(),
        )
        .expect("decodes");
        let aborted = &failure.statuses[1].details[0].type_url;
        // Unlike the other details it is not in the package `errordetails`.
        assert_eq!(
            aborted,
            "type.googleapis.com/temporal.api.failure.v1.MultiOperationExecutionAborted"
        );
        let codes: Vec<i32> = failure.statuses.iter().map(|status| status.code).collect();
        assert_eq!(codes, [Code::AlreadyExists as i32, Code::Aborted as i32]);
    }
}
