//! The gRPC services. One file per group of methods; a handler converts, calls, converts back.

mod namespaces;
mod operator;
mod operator_service;
mod status;
mod system;
mod task_queues;
mod visibility;
mod workers;
mod workflow_service;

use std::sync::Arc;
use std::time::Duration;

use steadfast_runtime::{Permit, Runtime};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::gate::{Gate, Target};
pub(crate) use status::status;
use workers::WorkerRegistry;

/// What every service is made of.
#[derive(Clone)]
pub struct Service {
    runtime: Runtime,
    workers: Arc<WorkerRegistry>,
    gate: Gate,
}

impl Service {
    /// The services of a runtime.
    pub fn new(runtime: Runtime, gate: Gate) -> Self {
        Self {
            runtime,
            workers: Arc::default(),
            gate,
        }
    }

    /// Lets a request pass the gate. `of` gives what it is about.
    fn admit<T>(
        &self,
        call: &str,
        request: &Request<T>,
        of: impl for<'a> FnOnce(&'a T) -> Target<'a>,
    ) -> Result<Permit, Status> {
        let target = of(request.get_ref());
        let extensions = request.extensions();
        if !self.gate.governs() {
            return self.gate.admit(call, extensions, &target);
        }
        let resolved = target.resolve(&self.runtime);
        let target = target.resolved(&resolved);
        self.gate.admit(call, extensions, &target)
    }
}

/// How long the caller waits, by the `grpc-timeout` header (gRPC over HTTP/2, "Requests").
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let header = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount.checked_mul(3600)?)),
        "M" => Some(Duration::from_secs(amount.checked_mul(60)?)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use steadfast_api::operatorservice::operator_service_server::OperatorService;
    use steadfast_api::workflowservice::workflow_service_server::WorkflowService;
    use tonic::Request;

    use super::*;

    /// A service of which nothing is written.
    struct Nothing;

    #[tonic::async_trait]
    impl WorkflowService for Nothing {}

    #[tonic::async_trait]
    impl OperatorService for Nothing {}

    #[tokio::test]
    async fn a_method_that_is_not_written_says_which_it_is() {
        let answers = [
            (
                WorkflowService::start_batch_operation(&Nothing, Request::new(Default::default()))
                    .await
                    .err(),
                "StartBatchOperation",
            ),
            (
                OperatorService::list_nexus_endpoints(&Nothing, Request::new(Default::default()))
                    .await
                    .err(),
                "ListNexusEndpoints",
            ),
        ];
        for (status, method) in answers {
            let status = status.expect("an error");
            assert_eq!(status.code(), tonic::Code::Unimplemented);
            assert_eq!(
                status.message(),
                format!("Steadfast does not implement {method} yet")
            );
        }
    }

    #[test]
    fn the_timeout_header_has_a_unit_and_at_most_eight_digits() {
        let parse = |value: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(
                "grpc-timeout",
                tonic::metadata::MetadataValue::from_static(value),
            );
            deadline(&metadata)
        };
        assert_eq!(parse("10S"), Some(Duration::from_secs(10)));
        assert_eq!(parse("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        for nonsense in ["", "S", "10", "10x", "-1S", "99999999999999999999H"] {
            assert_eq!(parse(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(deadline(&MetadataMap::new()), None);
    }
}
