use steadfast_engine::proto::{workflowservice::*, operatorservice::*}; use steadfast_runtime::{Permit, Runtime, RuntimeError};
pub(crate) async fn list(_r: &Runtime, _p: &Permit, _q: ListWorkflowExecutionsRequest) -> Result<ListWorkflowExecutionsResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn scan(_r: &Runtime, _p: &Permit, _q: ScanWorkflowExecutionsRequest) -> Result<ScanWorkflowExecutionsResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn list_open(_r: &Runtime, _p: &Permit, _q: ListOpenWorkflowExecutionsRequest) -> Result<ListOpenWorkflowExecutionsResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn list_closed(_r: &Runtime, _p: &Permit, _q: ListClosedWorkflowExecutionsRequest) -> Result<ListClosedWorkflowExecutionsResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn count(_r: &Runtime, _p: &Permit, _q: CountWorkflowExecutionsRequest) -> Result<CountWorkflowExecutionsResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn search_attributes(_r: &Runtime, _p: &Permit, _q: GetSearchAttributesRequest) -> Result<GetSearchAttributesResponse, RuntimeError> { Ok(Default::default()) }
