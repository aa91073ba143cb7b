//! Long polls for workflow and activity tasks.

use std::time::Duration;

use steadfast_engine::proto::enums::TaskQueueKind;
use steadfast_engine::proto::workflowservice::{
    PollActivityTaskQueueRequest, PollActivityTaskQueueResponse, PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse, ShutdownWorkerRequest,
};
use tokio::time::Instant;

use crate::calls::validate;
use crate::error::{Result, RuntimeError};
use crate::handout::Delivery;
use crate::matching::{Polled, PollerInfo, QueueKey, QueueKind, Task};
use crate::permit::Permit;
use crate::runtime::Runtime;

impl Runtime {
    /// Waits for a workflow task. An empty answer says that none came.
    pub async fn poll_workflow_task(
        &self,
        permit: &Permit,
        request: PollWorkflowTaskQueueRequest,
        deadline: Option<Duration>,
    ) -> Result<PollWorkflowTaskQueueResponse> {
        let namespace = self.namespaces().by_name(&request.namespace)?;
        check_poll(&request.identity, deadline, self.limits().id_bytes)?;
        let name = validate::task_queue(&request.task_queue, self.limits().id_bytes)?.to_owned();
        let queue = QueueKey {
            namespace_id: namespace.id.clone(),
            name,
            kind: QueueKind::Workflow,
        };
        let capabilities = request.worker_version_capabilities;
        let info = PollerInfo {
            identity: request.identity,
            rate: None,
            worker_version: capabilities.filter(|c| !c.build_id.is_empty()).map(|c| {
                steadfast_engine::proto::common::WorkerVersionStamp {
                    build_id: c.build_id,
                    use_versioning: c.use_versioning,
                }
            }),
            worker_instance_key: request.worker_instance_key,
            cause: permit.cause(),
        };
        match self.poll(&queue, info, deadline).await? {
            Some(Delivery::WorkflowTask(handout)) => {
                let sticky = request
                    .task_queue
                    .is_some_and(|q| q.kind == TaskQueueKind::Sticky as i32);
                let mut response = handout.into_response(self).await?;
                if !sticky {
                    response.backlog_count_hint =
                        i64::try_from(self.0.matching.view(&queue).backlog).unwrap_or(0);
                }
                Ok(response)
            }
            Some(Delivery::Query(query)) => query.into_response(self).await,
            _ => Ok(PollWorkflowTaskQueueResponse::default()),
        }
    }

    /// Waits for an activity task. An empty answer says that none came.
    pub async fn poll_activity_task(
        &self,
        permit: &Permit,
        request: PollActivityTaskQueueRequest,
        deadline: Option<Duration>,
    ) -> Result<PollActivityTaskQueueResponse> {
        let namespace = self.namespaces().by_name(&request.namespace)?;
        check_poll(&request.identity, deadline, self.limits().id_bytes)?;
        let name = validate::task_queue(&request.task_queue, self.limits().id_bytes)?.to_owned();
        let queue = QueueKey {
            namespace_id: namespace.id.clone(),
            name,
            kind: QueueKind::Activity,
        };
        let info = PollerInfo {
            identity: request.identity,
            rate: request
                .task_queue_metadata
                .and_then(|metadata| metadata.max_tasks_per_second),
            worker_version: None,
            worker_instance_key: request.worker_instance_key,
            cause: permit.cause(),
        };
        match self.poll(&queue, info, deadline).await? {
            Some(Delivery::Activity(handout)) => Ok(handout.into_response(self, request.namespace)),
            _ => Ok(PollActivityTaskQueueResponse::default()),
        }
    }

    /// A worker shuts down: its cached runs go to others, and its polls are answered.
    pub fn shutdown_worker(&self, _permit: &Permit, request: &ShutdownWorkerRequest) -> Result<()> {
        let namespace = self.namespaces().by_name(&request.namespace)?;
        if !request.sticky_task_queue.is_empty() {
            self.0.matching.forget_queue(&QueueKey {
                namespace_id: namespace.id.clone(),
                name: request.sticky_task_queue.clone(),
                kind: QueueKind::Workflow,
            });
        }
        if !request.worker_instance_key.is_empty() {
            self.0.matching.release_worker(&request.worker_instance_key);
        }
        Ok(())
    }

    /// Waits for anything in a queue until it comes, the time is over, or the server stops. None in
    /// the latter cases.
    async fn poll(
        &self,
        queue: &QueueKey,
        info: PollerInfo,
        deadline: Option<Duration>,
    ) -> Result<Option<Delivery>> {
        let longest = self.0.settings.long_poll;
        // A little before the caller gives up, so that nothing is handed to a caller that is gone.
        let patience = deadline.map_or(longest, |deadline| {
            longest.min(deadline.saturating_sub(Duration::from_millis(500)))
        });
        let until = Instant::now() + patience;
        loop {
            if self.is_stopping() || self.0.matching.has_departed(&info.worker_instance_key) {
                return Ok(None);
            }
            // Its next poll is refused.
            if self.0.disabled.refuses(&info.cause.principal) {
                return Ok(None);
            }
            match self.0.matching.poll(queue, info.clone()) {
                Polled::Query(query) => return Ok(Some(query)),
                Polled::Task(task) => {
                    // A caller that goes away in the middle leaves the task to others.
                    let unstarted = Unstarted {
                        runtime: self,
                        queue,
                        task: Some(task),
                    };
                    match unstarted.start(&info).await {
                        Ok(Some(delivery)) => return Ok(Some(delivery)),
                        Ok(None) => {}
                        Err(error) => return Err(error),
                    }
                }
                Polled::Wait(ticket, receiver) => {
                    let received = tokio::select! {
                        received = receiver => received,
                        () = tokio::time::sleep_until(until) => return Ok(None),
                        () = self.stopping() => return Ok(None),
                    };
                    drop(ticket);
                    // An error says that the task that was meant for this poll is gone.
                    if let Ok(delivery) = received {
                        return Ok(Some(delivery));
                    }
                }
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    /// What is known of a queue.
    pub fn queue_view(&self, queue: &QueueKey) -> crate::matching::QueueView {
        self.0.matching.view(queue)
    }

    /// The queues of a namespace that this process knows: polled lately, or with tasks.
    pub fn queues(&self, namespace_id: &str) -> Vec<QueueKey> {
        self.0.matching.queues(namespace_id)
    }
}

/// A poll that hardly waits would miss its task more often than not.
const SHORTEST_POLL: Duration = Duration::from_secs(1);

fn check_poll(identity: &str, deadline: Option<Duration>, limit: usize) -> Result<()> {
    validate::length("Identity", identity, limit)?;
    match deadline {
        Some(deadline) if deadline < SHORTEST_POLL => {
            Err(RuntimeError::failed_precondition(format!(
                "the deadline of a long poll has to be at least {} s away",
                SHORTEST_POLL.as_secs()
            )))
        }
        _ => Ok(()),
    }
}

/// A task that was taken out of its queue: unless it is started, or found to be gone, it goes back.
struct Unstarted<'a> {
    runtime: &'a Runtime,
    queue: &'a QueueKey,
    task: Option<Task>,
}

impl Unstarted<'_> {
    async fn start(mut self, info: &PollerInfo) -> Result<Option<Delivery>> {
        let Some(task) = self.task.clone() else {
            return Ok(None);
        };
        let delivery = self
            .runtime
            .start_task(self.queue.kind, &task, info)
            .await?;
        self.task = None;
        Ok(delivery)
    }
}

impl Drop for Unstarted<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            self.runtime.offer(self.queue, task, 3);
        }
    }
}
