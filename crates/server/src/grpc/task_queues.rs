//! Task queues: who polls them, what waits in them.

use std::time::{Duration, SystemTime};

use steadfast_engine::proto::enums::{DescribeTaskQueueMode, TaskQueueType};
use steadfast_engine::proto::taskqueue::{
    PollerInfo, TaskIdBlock, TaskQueuePartitionMetadata, TaskQueueStats, TaskQueueStatus,
    TaskQueueTypeInfo, TaskQueueVersionInfo,
};
use steadfast_engine::proto::workflowservice::{
    DescribeTaskQueueRequest, DescribeTaskQueueResponse, ListTaskQueuePartitionsRequest,
    ListTaskQueuePartitionsResponse,
};
use steadfast_runtime::calls::validate;
use steadfast_runtime::matching::{PollerView, QueueKey, QueueKind, QueueView};
use steadfast_runtime::{Permit, Runtime, RuntimeError};

/// What pollers without a limit are shown with.
const UNLIMITED: f64 = 100_000.0;

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
    if request.api_mode() == DescribeTaskQueueMode::Enhanced {
        return describe_enhanced(runtime, &queue, &request).await;
    }
    let view = whole_view(runtime, &queue).await?;
    let stats = stats(&view);
    Ok(DescribeTaskQueueResponse {
        task_queue_status: request.include_task_queue_status.then(|| TaskQueueStatus {
            backlog_count_hint: stats.approximate_backlog_count,
            rate_per_second: view
                .pollers
                .iter()
                .filter_map(|poller| poller.rate)
                .fold(UNLIMITED, f64::min),
            task_id_block: Some(TaskIdBlock::default()),
            ..Default::default()
        }),
        stats: request.report_stats.then_some(stats),
        pollers: view.pollers.into_iter().map(poller).collect(),
        ..Default::default()
    })
}

/// The enhanced answer: by worker version, of which there is one here, the unversioned, and by type.
async fn describe_enhanced(
    runtime: &Runtime,
    queue: &QueueKey,
    request: &DescribeTaskQueueRequest,
) -> Result<DescribeTaskQueueResponse, RuntimeError> {
    let asked: Vec<QueueKind> = request
        .task_queue_types
        .iter()
        .filter_map(|number| QueueKind::from_number(*number))
        .collect();
    let kinds = match asked.is_empty() {
        true => vec![QueueKind::Workflow, QueueKind::Activity],
        false => asked,
    };
    let mut unversioned = TaskQueueVersionInfo::default();
    for kind in kinds {
        let view = whole_view(
            runtime,
            &QueueKey {
                kind,
                ..queue.clone()
            },
        )
        .await?;
        let info = TaskQueueTypeInfo {
            stats: request.report_stats.then(|| stats(&view)),
            pollers: match request.report_pollers {
                true => view.pollers.into_iter().map(poller).collect(),
                false => Vec::new(),
            },
        };
        unversioned.types_info.insert(kind.number(), info);
    }
    Ok(DescribeTaskQueueResponse {
        versions_info: [(String::new(), unversioned)].into(),
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

/// A queue with what waits in the store: memory has only the beginning of a long one.
async fn whole_view(runtime: &Runtime, queue: &QueueKey) -> Result<QueueView, RuntimeError> {
    let mut view = runtime.queue_view(queue);
    if !view.overflow {
        return Ok(view);
    }
    for (namespace_id, kind, name, tasks, oldest) in runtime.store().pending_queues().await? {
        if namespace_id == queue.namespace_id && kind == queue.kind.number() && name == queue.name {
            let age = steadfast_runtime::clock::now()
                .saturating_sub(oldest)
                .max(0);
            view.backlog = view
                .backlog
                .max(usize::try_from(tasks).unwrap_or(usize::MAX));
            view.backlog_age = view
                .backlog_age
                .max(Duration::from_nanos(age.unsigned_abs()));
        }
    }
    Ok(view)
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
        rate_per_second: view.rate.unwrap_or(UNLIMITED),
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
