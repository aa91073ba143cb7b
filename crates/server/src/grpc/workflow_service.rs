//! The workflow service: each method admits its caller, does one call, and answers.
//!
//! Methods that are not here answer UNIMPLEMENTED.

use steadfast_api::workflowservice::workflow_service_server::WorkflowService;
use steadfast_engine::proto::workflowservice as api;
use tonic::{Request, Response, Status};

use crate::gate::Target;

use super::{Service, deadline, namespaces, status, system, task_queues, visibility, workers};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl WorkflowService for Service {
    async fn start_workflow_execution(
        &self,
        request: Request<api::StartWorkflowExecutionRequest>,
    ) -> Answer<api::StartWorkflowExecutionResponse> {
        let permit = self.admit("StartWorkflowExecution", &request, Target::start)?;
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
            &request,
            Target::signal_with_start,
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
        let permit = self.admit("SignalWorkflowExecution", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .execution(&of.workflow_execution)
        })?;
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
        let permit = self.admit("RequestCancelWorkflowExecution", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .execution(&of.workflow_execution)
        })?;
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
        let permit = self.admit("TerminateWorkflowExecution", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .execution(&of.workflow_execution)
        })?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        runtime
            .terminate_workflow(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(api::TerminateWorkflowExecutionResponse {}))
    }

    async fn pause_workflow_execution(
        &self,
        request: Request<api::PauseWorkflowExecutionRequest>,
    ) -> Answer<api::PauseWorkflowExecutionResponse> {
        let permit = self.admit("PauseWorkflowExecution", &request, |of| {
            let target = Target::of(&of.namespace).claimed(&of.identity);
            target.workflow_id(&of.workflow_id)
        })?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        let paused = runtime.pause_workflow(&permit, request).await;
        paused.map_err(status)?;
        Ok(Response::new(api::PauseWorkflowExecutionResponse {}))
    }

    async fn unpause_workflow_execution(
        &self,
        request: Request<api::UnpauseWorkflowExecutionRequest>,
    ) -> Answer<api::UnpauseWorkflowExecutionResponse> {
        let permit = self.admit("UnpauseWorkflowExecution", &request, |of| {
            let target = Target::of(&of.namespace).claimed(&of.identity);
            target.workflow_id(&of.workflow_id)
        })?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        let resumed = runtime.unpause_workflow(&permit, request).await;
        resumed.map_err(status)?;
        Ok(Response::new(api::UnpauseWorkflowExecutionResponse {}))
    }

    async fn delete_workflow_execution(
        &self,
        request: Request<api::DeleteWorkflowExecutionRequest>,
    ) -> Answer<api::DeleteWorkflowExecutionResponse> {
        let permit = self.admit("DeleteWorkflowExecution", &request, |of| {
            Target::of(&of.namespace).execution(&of.workflow_execution)
        })?;
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
        let permit = self.admit("ResetWorkflowExecution", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .execution(&of.workflow_execution)
        })?;
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
        let permit = self.admit("ResetStickyTaskQueue", &request, |of| {
            Target::of(&of.namespace).execution(&of.execution)
        })?;
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
        let permit = self.admit("ExecuteMultiOperation", &request, Target::several)?;
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
        let permit = self.admit("UpdateWorkflowExecution", &request, Target::update)?;
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
        let permit = self.admit("PollWorkflowExecutionUpdate", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .update_ref(&of.update_ref)
        })?;
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
        let permit = self.admit("QueryWorkflow", &request, |of| {
            Target::of(&of.namespace).execution(&of.execution)
        })?;
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
        let permit = self.admit("RespondQueryTaskCompleted", &request, |of| {
            Target::of(&of.namespace).token(&of.task_token)
        })?;
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
        let permit = self.admit("DescribeWorkflowExecution", &request, |of| {
            Target::of(&of.namespace).execution(&of.execution)
        })?;
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
        let permit = self.admit("GetWorkflowExecutionHistory", &request, |of| {
            Target::of(&of.namespace).execution(&of.execution)
        })?;
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
        let permit = self.admit("GetWorkflowExecutionHistoryReverse", &request, |of| {
            Target::of(&of.namespace).execution(&of.execution)
        })?;
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
        let permit = self.admit("PollWorkflowTaskQueue", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .task_queue(&of.task_queue)
        })?;
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
        let permit = self.admit("RespondWorkflowTaskCompleted", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .token(&of.task_token)
        })?;
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
        let permit = self.admit("RespondWorkflowTaskFailed", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .token(&of.task_token)
        })?;
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
        let permit = self.admit("PollActivityTaskQueue", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .task_queue(&of.task_queue)
        })?;
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
        let permit = self.admit("RespondActivityTaskCompleted", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .token(&of.task_token)
        })?;
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
        let permit = self.admit("RespondActivityTaskCompletedById", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .workflow_id(&of.workflow_id)
        })?;
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
        let permit = self.admit("RespondActivityTaskFailed", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .token(&of.task_token)
        })?;
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
        let permit = self.admit("RespondActivityTaskFailedById", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .workflow_id(&of.workflow_id)
        })?;
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
        let permit = self.admit("RespondActivityTaskCanceled", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .token(&of.task_token)
        })?;
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
        let permit = self.admit("RespondActivityTaskCanceledById", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .workflow_id(&of.workflow_id)
        })?;
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
        let permit = self.admit("RecordActivityTaskHeartbeat", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .token(&of.task_token)
        })?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        let answer = runtime
            .heartbeat_activity(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(api::RecordActivityTaskHeartbeatResponse {
            cancel_requested: answer.cancel_requested,
            activity_paused: answer.paused,
            ..Default::default()
        }))
    }

    async fn record_activity_task_heartbeat_by_id(
        &self,
        request: Request<api::RecordActivityTaskHeartbeatByIdRequest>,
    ) -> Answer<api::RecordActivityTaskHeartbeatByIdResponse> {
        let permit = self.admit("RecordActivityTaskHeartbeatById", &request, |of| {
            Target::of(&of.namespace)
                .claimed(&of.identity)
                .workflow_id(&of.workflow_id)
        })?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        let answer = runtime
            .heartbeat_activity_by_id(&permit, request)
            .await
            .map_err(status)?;
        Ok(Response::new(
            api::RecordActivityTaskHeartbeatByIdResponse {
                cancel_requested: answer.cancel_requested,
                activity_paused: answer.paused,
                ..Default::default()
            },
        ))
    }

    async fn shutdown_worker(
        &self,
        request: Request<api::ShutdownWorkerRequest>,
    ) -> Answer<api::ShutdownWorkerResponse> {
        let permit = self.admit("ShutdownWorker", &request, |of| {
            Target::of(&of.namespace).claimed(&of.identity)
        })?;
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
        let permit = self.admit("RegisterNamespace", &request, |of| {
            Target::of(&of.namespace)
        })?;
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
        let permit = self.admit("DescribeNamespace", &request, |of| {
            Target::of(&of.namespace).namespace_id(&of.id)
        })?;
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
        let permit = self.admit("ListNamespaces", &request, |_| Target::of(""))?;
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
        let permit = self.admit("UpdateNamespace", &request, |of| Target::of(&of.namespace))?;
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
        let permit = self.admit("DeprecateNamespace", &request, |of| {
            Target::of(&of.namespace)
        })?;
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
        let permit = self.admit("ListWorkflowExecutions", &request, |of| {
            Target::of(&of.namespace)
        })?;
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
        let permit = self.admit("ScanWorkflowExecutions", &request, |of| {
            Target::of(&of.namespace)
        })?;
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
        let permit = self.admit("ListOpenWorkflowExecutions", &request, |of| {
            Target::of(&of.namespace)
        })?;
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
        let permit = self.admit("ListClosedWorkflowExecutions", &request, |of| {
            Target::of(&of.namespace)
        })?;
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
        let permit = self.admit("CountWorkflowExecutions", &request, |of| {
            Target::of(&of.namespace)
        })?;
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
        let permit = self.admit("GetSearchAttributes", &request, |_| Target::of(""))?;
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
        let permit = self.admit("DescribeTaskQueue", &request, |of| {
            Target::of(&of.namespace).task_queue(&of.task_queue)
        })?;
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
        let permit = self.admit("ListTaskQueuePartitions", &request, |of| {
            Target::of(&of.namespace).task_queue(&of.task_queue)
        })?;
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
        let permit = self.admit("RecordWorkerHeartbeat", &request, |of| {
            Target::of(&of.namespace).claimed(&of.identity)
        })?;
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
        let permit = self.admit("ListWorkers", &request, |of| Target::of(&of.namespace))?;
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
        let permit = self.admit("DescribeWorker", &request, |of| Target::of(&of.namespace))?;
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
        let permit = self.admit("GetSystemInfo", &request, |_| Target::of(""))?;
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
        let permit = self.admit("GetClusterInfo", &request, |_| Target::of(""))?;
        let (runtime, request) = (&self.runtime, request.into_inner());
        system::cluster_info(runtime, &permit, request)
            .await
            .map(Response::new)
            .map_err(status)
    }
}
