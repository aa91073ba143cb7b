use steadfast_engine::proto::{workflowservice::*, operatorservice::*}; use steadfast_runtime::{Permit, Runtime, RuntimeError};
pub(crate) async fn describe(_r: &Runtime, _p: &Permit, _q: DescribeTaskQueueRequest) -> Result<DescribeTaskQueueResponse, RuntimeError> { Ok(Default::default()) }
pub(crate) async fn partitions(_r: &Runtime, _p: &Permit, _q: ListTaskQueuePartitionsRequest) -> Result<ListTaskQueuePartitionsResponse, RuntimeError> { Ok(Default::default()) }
