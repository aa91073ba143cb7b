//! Describing a workflow.

use steadfast_engine::proto::workflowservice::{
    DescribeWorkflowExecutionRequest, DescribeWorkflowExecutionResponse,
};

use crate::error::Result;
use crate::permit::Permit;
use crate::runtime::Runtime;

impl Runtime {
    /// What is known of a run.
    pub async fn describe_workflow(
        &self,
        _permit: &Permit,
        request: DescribeWorkflowExecutionRequest,
    ) -> Result<DescribeWorkflowExecutionResponse> {
        let (key, run_id) = self.target(&request.namespace, &request.execution)?;
        let namespace = self.namespaces().by_name(&request.namespace)?;
        let mut response = self
            .inspect(&key, &run_id, |workflow| {
                Ok(workflow
                    .named_live(&run_id)?
                    .run
                    .describe(crate::clock::now()))
            })
            .await?;
        if let Some(info) = &mut response.workflow_execution_info {
            crate::visibility::type_search_attributes(&namespace, &mut info.search_attributes);
        }
        Ok(response)
    }
}
