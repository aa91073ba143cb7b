use steadfast_engine::proto::{workflowservice::*, operatorservice::*}; use steadfast_runtime::{Permit, Runtime, RuntimeError};
pub(crate) async fn register(_r: &Runtime, _p: &Permit, _q: RegisterNamespaceRequest) -> Result<RegisterNamespaceResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn describe(_r: &Runtime, _p: &Permit, _q: DescribeNamespaceRequest) -> Result<DescribeNamespaceResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn list(_r: &Runtime, _p: &Permit, _q: ListNamespacesRequest) -> Result<ListNamespacesResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn update(_r: &Runtime, _p: &Permit, _q: UpdateNamespaceRequest) -> Result<UpdateNamespaceResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn deprecate(_r: &Runtime, _p: &Permit, _q: DeprecateNamespaceRequest) -> Result<DeprecateNamespaceResponse, RuntimeError> { Ok(Default::default()) }
