//! What a durable transition asks for: tasks offered to pollers, messages sent.

use steadfast_engine::Effect;

use crate::aggregate::WorkflowKey;
use crate::matching::{QueueKey, QueueKind, Task, Waiting};
use crate::runtime::Runtime;

impl Runtime {
    /// Does what a durable transition asks for.
    pub(crate) fn perform(&self, key: &WorkflowKey, effect: Effect) {
        match effect {
            Effect::WorkflowTask {
                run_id,
                scheduled_event_id,
                task_queue,
                priority,
                sticky,
            } => {
                let queue = queue_key(key, &task_queue, QueueKind::Workflow);
                if sticky && !self.0.matching.is_polled(&queue) {
                    // The worker that has the run cached is gone: no use to wait for it.
                    self.offer_to_normal_queue(key.clone(), run_id, scheduled_event_id);
                    return;
                }
                let task = Task {
                    key: key.clone(),
                    run_id,
                    scheduled_event_id,
                    attempt: 0,
                };
                self.offer(&queue, task, priority);
            }
            Effect::ActivityTask {
                run_id,
                scheduled_event_id,
                attempt,
                task_queue,
                priority,
            } => {
                let queue = queue_key(key, &task_queue, QueueKind::Activity);
                let task = Task {
                    key: key.clone(),
                    run_id,
                    scheduled_event_id,
                    attempt,
                };
                self.offer(&queue, task, priority);
            }
            Effect::Message { run_id, message } => self.deliver(key.clone(), run_id, message),
            Effect::UpdateChanged { .. } | Effect::Closed { .. } => {}
        }
    }

    /// Offers a durable task; a poller that came in the meantime gets it.
    pub(crate) fn offer(&self, queue: &QueueKey, task: Task, priority: i32) {
        if let Some((task, waiting)) = self.0.matching.offer(queue, task, priority) {
            let (runtime, queue) = (self.clone(), queue.clone());
            self.0
                .runtime
                .spawn(async move { runtime.hand_over(&queue, task, waiting).await });
        }
    }

    /// Starts a task for a poller that waits, and gives it to it.
    pub(crate) async fn hand_over(&self, queue: &QueueKey, task: Task, waiting: Waiting) {
        if self.0.disabled.refuses(&waiting.info.cause.principal) {
            drop(waiting);
            self.offer(queue, task, 3);
            return;
        }
        match self.start_task(queue.kind, &task, &waiting.info).await {
            Ok(Some(delivery)) => {
                let _ = waiting.sender.send(delivery);
            }
            // The task is gone: the poller's sender is dropped, and it polls again.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "a task could not be started");
                self.offer(queue, task, 3);
            }
        }
    }

    fn offer_to_normal_queue(&self, key: WorkflowKey, run_id: String, scheduled_event_id: i64) {
        let runtime = self.clone();
        self.0.runtime.spawn(async move {
            let queue = runtime
                .inspect(&key, &run_id, |workflow| {
                    let live = workflow.runs.get(&run_id);
                    Ok(live.map(|live| live.run.state.task_queue().to_owned()))
                })
                .await;
            if let Ok(Some(task_queue)) = queue {
                let queue = queue_key(&key, &task_queue, QueueKind::Workflow);
                runtime.offer(
                    &queue,
                    Task {
                        key,
                        run_id,
                        scheduled_event_id,
                        attempt: 0,
                    },
                    3,
                );
            }
        });
    }
}

/// A queue of the workflow's namespace.
pub(crate) fn queue_key(key: &WorkflowKey, name: &str, kind: QueueKind) -> QueueKey {
    QueueKey {
        namespace_id: key.namespace_id.clone(),
        name: name.to_owned(),
        kind,
    }
}
