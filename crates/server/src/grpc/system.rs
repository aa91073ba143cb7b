use steadfast_engine::proto::{workflowservice::*, operatorservice::*}; use steadfast_runtime::{Permit, Runtime, RuntimeError};
pub(crate) async fn system_info(_r: &Runtime, _p: &Permit, _q: GetSystemInfoRequest) -> Result<GetSystemInfoResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn cluster_info(_r: &Runtime, _p: &Permit, _q: GetClusterInfoRequest) -> Result<GetClusterInfoResponse, RuntimeError> { Ok(Default::default()) }
