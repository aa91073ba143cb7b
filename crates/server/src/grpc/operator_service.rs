//! The operator service. Methods that are not here answer UNIMPLEMENTED.

use steadfast_api::operatorservice::operator_service_server::OperatorService;
use steadfast_engine::proto::operatorservice as api;
use tonic::{Request, Response, Status};

use crate::gate::Target;

use super::{Service, operator, status};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl OperatorService for Service {
    async fn add_search_attributes(
        &self,
        request: Request<api::AddSearchAttributesRequest>,
    ) -> Answer<api::AddSearchAttributesResponse> {
        let permit = self.admit("AddSearchAttributes", &request, |of| {
            Target::of(&of.namespace)
        })?;
        operator::add_search_attributes(&self.runtime, &permit, request.into_inner())
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn remove_search_attributes(
        &self,
        request: Request<api::RemoveSearchAttributesRequest>,
    ) -> Answer<api::RemoveSearchAttributesResponse> {
        let permit = self.admit("RemoveSearchAttributes", &request, |of| {
            Target::of(&of.namespace)
        })?;
        operator::remove_search_attributes(&self.runtime, &permit, request.into_inner())
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn list_search_attributes(
        &self,
        request: Request<api::ListSearchAttributesRequest>,
    ) -> Answer<api::ListSearchAttributesResponse> {
        let permit = self.admit("ListSearchAttributes", &request, |of| {
            Target::of(&of.namespace)
        })?;
        operator::list_search_attributes(&self.runtime, &permit, request.into_inner())
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn delete_namespace(
        &self,
        request: Request<api::DeleteNamespaceRequest>,
    ) -> Answer<api::DeleteNamespaceResponse> {
        let permit = self.admit("DeleteNamespace", &request, |of| {
            Target::of(&of.namespace).namespace_id(&of.namespace_id)
        })?;
        operator::delete_namespace(&self.runtime, &permit, request.into_inner())
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn list_clusters(
        &self,
        request: Request<api::ListClustersRequest>,
    ) -> Answer<api::ListClustersResponse> {
        let permit = self.admit("ListClusters", &request, |_| Target::of(""))?;
        operator::list_clusters(&self.runtime, &permit, request.into_inner())
            .await
            .map(Response::new)
            .map_err(status)
    }
}
