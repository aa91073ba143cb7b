use steadfast_engine::proto::{workflowservice::*, operatorservice::*}; use steadfast_runtime::{Permit, Runtime, RuntimeError};
#[derive(Default)] pub struct WorkerRegistry;
pub(crate) async fn heartbeat(_r: &Runtime, _p: &Permit, _w: &WorkerRegistry, _q: RecordWorkerHeartbeatRequest) -> Result<RecordWorkerHeartbeatResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn list(_r: &Runtime, _p: &Permit, _w: &WorkerRegistry, _q: ListWorkersRequest) -> Result<ListWorkersResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn describe(_r: &Runtime, _p: &Permit, _w: &WorkerRegistry, _q: DescribeWorkerRequest) -> Result<DescribeWorkerResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn shutdown(_r: &Runtime, _p: &Permit, _q: ShutdownWorkerRequest) -> Result<ShutdownWorkerResponse, RuntimeError> { Ok(Default::default()) }
