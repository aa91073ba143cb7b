//! Task queues: who polls them, what waits in them.

use std::time::{Duration, SystemTime};

use steadfast_engine::proto::enums::TaskQueueType;
use steadfast_engine::proto::taskqueue::{
    PollerInfo, TaskIdBlock, TaskQueuePartitionMetadata, TaskQueueStats, TaskQueueStatus,
};
use steadfast_engine::proto::workflowservice::{
    DescribeTaskQueueRequest, DescribeTaskQueueResponse, ListTaskQueuePartitionsRequest,
    ListTaskQueuePartitionsResponse,
};
use steadfast_runtime::calls::validate;
use steadfast_runtime::matching::{PollerView, QueueKey, QueueKind, QueueView};
use steadfast_runtime::{Permit, Runtime, RuntimeError};

pub(crate) async fn describe(
    runtime: &Runtime,
    _permit: &Permit,
    request: DescribeTaskQueueRequest,
) -> Result<DescribeTaskQueueResponse, RuntimeError> {
    let namespace = runtime.namespaces().by_name(&request.namespace)?;
    let name = validate::task_queue(&request.task_queue, runtime.limits().id_bytes)?;
    let kind = match request.task_queue_type() {
        TaskQueueType::Activity => QueueKind::Activity,
        TaskQueueType::Nexus => {
            return Err(RuntimeError::invalid(
                "Nexus is not supported by this server",
            ));
        }
        _ => QueueKind::Workflow,
    };
    let queue = QueueKey {
        namespace_id: namespace.id.clone(),
        name: name.to_owned(),
        kind,
    };
    let view = runtime.queue_view(&queue);
    let stats = stats(&view);
    Ok(DescribeTaskQueueResponse {
        task_queue_status: request.include_task_queue_status.then(|| TaskQueueStatus {
            backlog_count_hint: stats.approximate_backlog_count,
            rate_per_second: view
                .pollers
                .iter()
                .filter_map(|poller| poller.rate)
                .fold(f64::NAN, f64::min),
            task_id_block: Some(TaskIdBlock::default()),
            ..Default::default()
        }),
        stats: request.report_stats.then_some(stats),
        pollers: view.pollers.into_iter().map(poller).collect(),
        ..Default::default()
    })
}

pub(crate) async fn partitions(
    runtime: &Runtime,
    _permit: &Permit,
    request: ListTaskQueuePartitionsRequest,
) -> Result<ListTaskQueuePartitionsResponse, RuntimeError> {
    runtime.namespaces().by_name(&request.namespace)?;
    let name = validate::task_queue(&request.task_queue, runtime.limits().id_bytes)?;
    // A queue is one piece here.
    let whole = || {
        vec![TaskQueuePartitionMetadata {
            key: name.to_owned(),
            owner_host_name: "steadfast".into(),
        }]
    };
    Ok(ListTaskQueuePartitionsResponse {
        activity_task_queue_partitions: whole(),
        workflow_task_queue_partitions: whole(),
    })
}

fn stats(view: &QueueView) -> TaskQueueStats {
    TaskQueueStats {
        approximate_backlog_count: i64::try_from(view.backlog).unwrap_or(i64::MAX),
        approximate_backlog_age: prost_types::Duration::try_from(view.backlog_age).ok(),
        tasks_add_rate: view.add_rate as f32,
        tasks_dispatch_rate: view.dispatch_rate as f32,
        ..Default::default()
    }
}

fn poller(view: PollerView) -> PollerInfo {
    PollerInfo {
        last_access_time: Some(ago(view.since_poll)),
        identity: view.identity,
        rate_per_second: view.rate.unwrap_or(100_000.0),
        ..Default::default()
    }
}

fn ago(since: Duration) -> prost_types::Timestamp {
    let at = SystemTime::now()
        .checked_sub(since)
        .unwrap_or(SystemTime::UNIX_EPOCH);
    let nanos = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    steadfast_engine::time::timestamp(i64::try_from(nanos).unwrap_or(i64::MAX))
}
