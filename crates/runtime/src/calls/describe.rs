//! Describing a workflow.

use steadfast_engine::proto::workflowservice::{
    DescribeWorkflowExecutionRequest, DescribeWorkflowExecutionResponse,
};

use crate::error::Result;
use crate::evidence::reads::{Read, Subject};
use crate::permit::Permit;
use crate::runtime::Runtime;

impl Runtime {
    /// What is known of a run.
    pub async fn describe_workflow(
        &self,
        permit: &Permit,
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
            let execution = info.execution.as_ref();
            let subject = Subject {
                workflow_id: &key.workflow_id,
                run_id: execution.map_or("", |of| &of.run_id),
                ..Subject::default()
            };
            self.note_read(permit, Read::Describe, &key.namespace_id, subject)
                .await?;
        }
        Ok(response)
    }
}
