use steadfast_engine::proto::{workflowservice::*, operatorservice::*}; use steadfast_runtime::{Permit, Runtime, RuntimeError};
pub(crate) async fn add_search_attributes(_r: &Runtime, _p: &Permit, _q: AddSearchAttributesRequest) -> Result<AddSearchAttributesResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn remove_search_attributes(_r: &Runtime, _p: &Permit, _q: RemoveSearchAttributesRequest) -> Result<RemoveSearchAttributesResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn list_search_attributes(_r: &Runtime, _p: &Permit, _q: ListSearchAttributesRequest) -> Result<ListSearchAttributesResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn delete_namespace(_r: &Runtime, _p: &Permit, _q: DeleteNamespaceRequest) -> Result<DeleteNamespaceResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn list_clusters(_r: &Runtime, _p: &Permit, _q: ListClustersRequest) -> Result<ListClustersResponse, RuntimeError> { Ok(Default::default()) }
