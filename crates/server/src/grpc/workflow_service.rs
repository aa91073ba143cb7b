//! The workflow service: each method admits its caller, does one call, and answers.
//!
//! Methods that are not here answer UNIMPLEMENTED.

use steadfast_api::workflowservice::workflow_service_server::WorkflowService;
use steadfast_engine::proto::workflowservice as api;
use tonic::{Request, Response, Status};

use super::{Service, deadline, namespaces, status, system, task_queues, visibility, workers};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl WorkflowService for Service {
    async fn start_workflow_execution(
        &self,
        request: Request<api::StartWorkflowExecutionRequest>,
    ) -> Answer<api::StartWorkflowExecutionResponse> {
        let permit = self.admit("StartWorkflowExecution", &request.get_ref().identity)?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .start_workflow(&permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn signal_with_start_workflow_execution(
        &self,
        request: Request<api::SignalWithStartWorkflowExecutionRequest>,
    ) -> Answer<api::SignalWithStartWorkflowExecutionResponse> {
        let permit = self.admit(
            "SignalWithStartWorkflowExecution",
            &request.get_ref().identity,
        )?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .signal_with_start(&permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn signal_workflow_execution(
        &self,
        request: Request<api::SignalWorkflowExecutionRequest>,
    ) -> Answer<api::SignalWorkflowExecutionResponse> {
        let permit = self.admit("SignalWorkflowExecution", &request.get_ref().identity)?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .signal_workflow(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(
            api::SignalWorkflowExecutionResponse::default(),
        ))
    }

    async fn request_cancel_workflow_execution(
        &self,
        request: Request<api::RequestCancelWorkflowExecutionRequest>,
    ) -> Answer<api::RequestCancelWorkflowExecutionResponse> {
        let permit = self.admit(
            "RequestCancelWorkflowExecution",
            &request.get_ref().identity,
        )?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .cancel_workflow(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(
            api::RequestCancelWorkflowExecutionResponse {},
        ))
    }

    async fn terminate_workflow_execution(
        &self,
        request: Request<api::TerminateWorkflowExecutionRequest>,
    ) -> Answer<api::TerminateWorkflowExecutionResponse> {
        let permit = self.admit("TerminateWorkflowExecution", &request.get_ref().identity)?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .terminate_workflow(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(api::TerminateWorkflowExecutionResponse {}))
    }

    async fn delete_workflow_execution(
        &self,
        request: Request<api::DeleteWorkflowExecutionRequest>,
    ) -> Answer<api::DeleteWorkflowExecutionResponse> {
        let permit = self.admit("DeleteWorkflowExecution", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .delete_workflow(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(api::DeleteWorkflowExecutionResponse {}))
    }

    async fn reset_workflow_execution(
        &self,
        request: Request<api::ResetWorkflowExecutionRequest>,
    ) -> Answer<api::ResetWorkflowExecutionResponse> {
        let permit = self.admit("ResetWorkflowExecution", &request.get_ref().identity)?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .reset_workflow(&permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn reset_sticky_task_queue(
        &self,
        request: Request<api::ResetStickyTaskQueueRequest>,
    ) -> Answer<api::ResetStickyTaskQueueResponse> {
        let permit = self.admit("ResetStickyTaskQueue", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .reset_sticky_task_queue(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(api::ResetStickyTaskQueueResponse {}))
    }

    async fn execute_multi_operation(
        &self,
        request: Request<api::ExecuteMultiOperationRequest>,
    ) -> Answer<api::ExecuteMultiOperationResponse> {
        let permit = self.admit("ExecuteMultiOperation", "")?;
        let deadline = deadline(request.metadata());
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .execute_multi_operation(&permit, request, deadline)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn update_workflow_execution(
        &self,
        request: Request<api::UpdateWorkflowExecutionRequest>,
    ) -> Answer<api::UpdateWorkflowExecutionResponse> {
        let permit = self.admit("UpdateWorkflowExecution", "")?;
        let deadline = deadline(request.metadata());
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .update_workflow(&permit, request, deadline)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn poll_workflow_execution_update(
        &self,
        request: Request<api::PollWorkflowExecutionUpdateRequest>,
    ) -> Answer<api::PollWorkflowExecutionUpdateResponse> {
        let permit = self.admit("PollWorkflowExecutionUpdate", &request.get_ref().identity)?;
        let deadline = deadline(request.metadata());
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .poll_update(&permit, request, deadline)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn query_workflow(
        &self,
        request: Request<api::QueryWorkflowRequest>,
    ) -> Answer<api::QueryWorkflowResponse> {
        let permit = self.admit("QueryWorkflow", "")?;
        let deadline = deadline(request.metadata());
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .query_workflow(&permit, request, deadline)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn respond_query_task_completed(
        &self,
        request: Request<api::RespondQueryTaskCompletedRequest>,
    ) -> Answer<api::RespondQueryTaskCompletedResponse> {
        let permit = self.admit("RespondQueryTaskCompleted", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        std::future::ready(runtime.answer_query(&permit, request))
            .await
            .map_err(status)?;
        Ok(Response::new(api::RespondQueryTaskCompletedResponse {}))
    }

    async fn describe_workflow_execution(
        &self,
        request: Request<api::DescribeWorkflowExecutionRequest>,
    ) -> Answer<api::DescribeWorkflowExecutionResponse> {
        let permit = self.admit("DescribeWorkflowExecution", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .describe_workflow(&permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn get_workflow_execution_history(
        &self,
        request: Request<api::GetWorkflowExecutionHistoryRequest>,
    ) -> Answer<api::GetWorkflowExecutionHistoryResponse> {
        let permit = self.admit("GetWorkflowExecutionHistory", "")?;
        let deadline = deadline(request.metadata());
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .get_history(&permit, request, deadline)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn get_workflow_execution_history_reverse(
        &self,
        request: Request<api::GetWorkflowExecutionHistoryReverseRequest>,
    ) -> Answer<api::GetWorkflowExecutionHistoryReverseResponse> {
        let permit = self.admit("GetWorkflowExecutionHistoryReverse", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .get_history_reverse(&permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn poll_workflow_task_queue(
        &self,
        request: Request<api::PollWorkflowTaskQueueRequest>,
    ) -> Answer<api::PollWorkflowTaskQueueResponse> {
        let permit = self.admit("PollWorkflowTaskQueue", &request.get_ref().identity)?;
        let deadline = deadline(request.metadata());
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .poll_workflow_task(&permit, request, deadline)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn respond_workflow_task_completed(
        &self,
        request: Request<api::RespondWorkflowTaskCompletedRequest>,
    ) -> Answer<api::RespondWorkflowTaskCompletedResponse> {
        let permit = self.admit("RespondWorkflowTaskCompleted", &request.get_ref().identity)?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .complete_workflow_task(&permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn respond_workflow_task_failed(
        &self,
        request: Request<api::RespondWorkflowTaskFailedRequest>,
    ) -> Answer<api::RespondWorkflowTaskFailedResponse> {
        let permit = self.admit("RespondWorkflowTaskFailed", &request.get_ref().identity)?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .fail_workflow_task(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(api::RespondWorkflowTaskFailedResponse {}))
    }

    async fn poll_activity_task_queue(
        &self,
        request: Request<api::PollActivityTaskQueueRequest>,
    ) -> Answer<api::PollActivityTaskQueueResponse> {
        let permit = self.admit("PollActivityTaskQueue", &request.get_ref().identity)?;
        let deadline = deadline(request.metadata());
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .poll_activity_task(&permit, request, deadline)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn respond_activity_task_completed(
        &self,
        request: Request<api::RespondActivityTaskCompletedRequest>,
    ) -> Answer<api::RespondActivityTaskCompletedResponse> {
        let permit = self.admit("RespondActivityTaskCompleted", &request.get_ref().identity)?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .complete_activity(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(api::RespondActivityTaskCompletedResponse {}))
    }

    async fn respond_activity_task_completed_by_id(
        &self,
        request: Request<api::RespondActivityTaskCompletedByIdRequest>,
    ) -> Answer<api::RespondActivityTaskCompletedByIdResponse> {
        let permit = self.admit(
            "RespondActivityTaskCompletedById",
            &request.get_ref().identity,
        )?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .complete_activity_by_id(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(
            api::RespondActivityTaskCompletedByIdResponse {},
        ))
    }

    async fn respond_activity_task_failed(
        &self,
        request: Request<api::RespondActivityTaskFailedRequest>,
    ) -> Answer<api::RespondActivityTaskFailedResponse> {
        let permit = self.admit("RespondActivityTaskFailed", &request.get_ref().identity)?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .fail_activity(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(
            api::RespondActivityTaskFailedResponse::default(),
        ))
    }

    async fn respond_activity_task_failed_by_id(
        &self,
        request: Request<api::RespondActivityTaskFailedByIdRequest>,
    ) -> Answer<api::RespondActivityTaskFailedByIdResponse> {
        let permit = self.admit("RespondActivityTaskFailedById", &request.get_ref().identity)?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .fail_activity_by_id(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(
            api::RespondActivityTaskFailedByIdResponse::default(),
        ))
    }

    async fn respond_activity_task_canceled(
        &self,
        request: Request<api::RespondActivityTaskCanceledRequest>,
    ) -> Answer<api::RespondActivityTaskCanceledResponse> {
        let permit = self.admit("RespondActivityTaskCanceled", &request.get_ref().identity)?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .cancel_activity(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(api::RespondActivityTaskCanceledResponse {}))
    }

    async fn respond_activity_task_canceled_by_id(
        &self,
        request: Request<api::RespondActivityTaskCanceledByIdRequest>,
    ) -> Answer<api::RespondActivityTaskCanceledByIdResponse> {
        let permit = self.admit(
            "RespondActivityTaskCanceledById",
            &request.get_ref().identity,
        )?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .cancel_activity_by_id(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(
            api::RespondActivityTaskCanceledByIdResponse {},
        ))
    }

    async fn record_activity_task_heartbeat(
        &self,
        request: Request<api::RecordActivityTaskHeartbeatRequest>,
    ) -> Answer<api::RecordActivityTaskHeartbeatResponse> {
        let permit = self.admit("RecordActivityTaskHeartbeat", &request.get_ref().identity)?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        let answer = runtime
            .heartbeat_activity(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(api::RecordActivityTaskHeartbeatResponse {
            cancel_requested: answer.cancel_requested,
            ..Default::default()
        }))
    }

    async fn record_activity_task_heartbeat_by_id(
        &self,
        request: Request<api::RecordActivityTaskHeartbeatByIdRequest>,
    ) -> Answer<api::RecordActivityTaskHeartbeatByIdResponse> {
        let permit = self.admit(
            "RecordActivityTaskHeartbeatById",
            &request.get_ref().identity,
        )?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        let answer = runtime
            .heartbeat_activity_by_id(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(
            api::RecordActivityTaskHeartbeatByIdResponse {
                cancel_requested: answer.cancel_requested,
                ..Default::default()
            },
        ))
    }

    async fn shutdown_worker(
        &self,
        request: Request<api::ShutdownWorkerRequest>,
    ) -> Answer<api::ShutdownWorkerResponse> {
        let permit = self.admit("ShutdownWorker", &request.get_ref().identity)?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        workers::shutdown(runtime, &permit, &self.workers, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn register_namespace(
        &self,
        request: Request<api::RegisterNamespaceRequest>,
    ) -> Answer<api::RegisterNamespaceResponse> {
        let permit = self.admit("RegisterNamespace", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        namespaces::register(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn describe_namespace(
        &self,
        request: Request<api::DescribeNamespaceRequest>,
    ) -> Answer<api::DescribeNamespaceResponse> {
        let permit = self.admit("DescribeNamespace", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        namespaces::describe(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn list_namespaces(
        &self,
        request: Request<api::ListNamespacesRequest>,
    ) -> Answer<api::ListNamespacesResponse> {
        let permit = self.admit("ListNamespaces", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        namespaces::list(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn update_namespace(
        &self,
        request: Request<api::UpdateNamespaceRequest>,
    ) -> Answer<api::UpdateNamespaceResponse> {
        let permit = self.admit("UpdateNamespace", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        namespaces::update(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn deprecate_namespace(
        &self,
        request: Request<api::DeprecateNamespaceRequest>,
    ) -> Answer<api::DeprecateNamespaceResponse> {
        let permit = self.admit("DeprecateNamespace", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        namespaces::deprecate(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn list_workflow_executions(
        &self,
        request: Request<api::ListWorkflowExecutionsRequest>,
    ) -> Answer<api::ListWorkflowExecutionsResponse> {
        let permit = self.admit("ListWorkflowExecutions", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        visibility::list(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn scan_workflow_executions(
        &self,
        request: Request<api::ScanWorkflowExecutionsRequest>,
    ) -> Answer<api::ScanWorkflowExecutionsResponse> {
        let permit = self.admit("ScanWorkflowExecutions", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        visibility::scan(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn list_open_workflow_executions(
        &self,
        request: Request<api::ListOpenWorkflowExecutionsRequest>,
    ) -> Answer<api::ListOpenWorkflowExecutionsResponse> {
        let permit = self.admit("ListOpenWorkflowExecutions", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        visibility::list_open(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn list_closed_workflow_executions(
        &self,
        request: Request<api::ListClosedWorkflowExecutionsRequest>,
    ) -> Answer<api::ListClosedWorkflowExecutionsResponse> {
        let permit = self.admit("ListClosedWorkflowExecutions", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        visibility::list_closed(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn count_workflow_executions(
        &self,
        request: Request<api::CountWorkflowExecutionsRequest>,
    ) -> Answer<api::CountWorkflowExecutionsResponse> {
        let permit = self.admit("CountWorkflowExecutions", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        visibility::count(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn get_search_attributes(
        &self,
        request: Request<api::GetSearchAttributesRequest>,
    ) -> Answer<api::GetSearchAttributesResponse> {
        let permit = self.admit("GetSearchAttributes", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        visibility::search_attributes(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn describe_task_queue(
        &self,
        request: Request<api::DescribeTaskQueueRequest>,
    ) -> Answer<api::DescribeTaskQueueResponse> {
        let permit = self.admit("DescribeTaskQueue", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        task_queues::describe(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn list_task_queue_partitions(
        &self,
        request: Request<api::ListTaskQueuePartitionsRequest>,
    ) -> Answer<api::ListTaskQueuePartitionsResponse> {
        let permit = self.admit("ListTaskQueuePartitions", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        task_queues::partitions(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn record_worker_heartbeat(
        &self,
        request: Request<api::RecordWorkerHeartbeatRequest>,
    ) -> Answer<api::RecordWorkerHeartbeatResponse> {
        let permit = self.admit("RecordWorkerHeartbeat", &request.get_ref().identity)?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        workers::heartbeat(runtime, &permit, &self.workers, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn list_workers(
        &self,
        request: Request<api::ListWorkersRequest>,
    ) -> Answer<api::ListWorkersResponse> {
        let permit = self.admit("ListWorkers", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        workers::list(runtime, &permit, &self.workers, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn describe_worker(
        &self,
        request: Request<api::DescribeWorkerRequest>,
    ) -> Answer<api::DescribeWorkerResponse> {
        let permit = self.admit("DescribeWorker", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        workers::describe(runtime, &permit, &self.workers, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn get_system_info(
        &self,
        request: Request<api::GetSystemInfoRequest>,
    ) -> Answer<api::GetSystemInfoResponse> {
        let permit = self.admit("GetSystemInfo", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        system::system_info(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn get_cluster_info(
        &self,
        request: Request<api::GetClusterInfoRequest>,
    ) -> Answer<api::GetClusterInfoResponse> {
        let permit = self.admit("GetClusterInfo", "")?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        system::cluster_info(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }
}
