//! The worker: polls, decides, answers. Like an SDK's, it polls again before it answers a task.

use std::{sync::Arc, time::Duration};

use tonic::{Code, Status};

use crate::{
    client::{
        ActivityTask, CALL_TIMEOUT, Client, Ignored, Method, POLL_TIMEOUT, TaskCompleted,
        WorkflowTask,
    },
    requests::Requests,
    slots::Slots,
    stats::Recorder,
    workflow::{Plan, Step},
};

/// Everything that the load's tasks share.
pub struct Load {
    /// The connections.
    pub clients: Vec<Client>,
    /// Makes the requests.
    pub requests: Requests,
    /// Who waits for which workflow.
    pub slots: Slots,
    /// What the workflows do.
    pub plan: Plan,
    /// Where results go.
    pub recorder: Recorder,
}

#[derive(Clone, Copy)]
enum Queue {
    Normal,
    Sticky,
}

impl Load {
    /// Starts `pollers` waiting polls on each of the three queues. They end with the runtime.
    pub fn spawn_worker(self: &Arc<Self>, pollers: usize) {
        for index in 0..pollers {
            tokio::spawn(self.clone().poll_workflow_tasks(index, Queue::Normal));
            tokio::spawn(self.clone().poll_workflow_tasks(index, Queue::Sticky));
            tokio::spawn(self.clone().poll_activity_tasks(index));
        }
    }

    /// The connection for the `index`th user.
    pub fn client(&self, index: usize) -> &Client {
        &self.clients[index % self.clients.len()]
    }

    /// Does a workflow task, and whatever its answer brings.
    pub async fn do_workflow_task(self: Arc<Self>, index: usize, task: WorkflowTask) {
        let mut next = Some(task);
        while let Some(task) = next.take().filter(|task| !task.task_token.is_empty()) {
            let Some(key) = task
                .workflow_execution
                .as_ref()
                .and_then(|execution| self.slots.key_of(&execution.workflow_id))
            else {
                return self.recorder.failed("a task of an unknown workflow");
            };
            let events = task
                .history
                .as_ref()
                .map_or(&[][..], |history| &history.events);
            let step = self.slots.next_step(key, events, self.plan);
            let question = self.requests.complete_workflow_task(task.task_token, step);
            let method = Method::COMPLETE_WORKFLOW_TASK;
            let answer: Result<TaskCompleted, _> = self
                .client(index)
                .call(method, question, CALL_TIMEOUT)
                .await;
            match answer {
                Ok(answer) => {
                    if step == Step::Complete || !matches!(self.plan, Plan::Activities(_)) {
                        self.slots.finished(key);
                    }
                    for activity in answer.activity_tasks {
                        tokio::spawn(self.clone().do_activity_task(index, activity));
                    }
                    next = answer.workflow_task;
                }
                Err(status) => self.note(method, &status),
            }
        }
    }

    /// Records a failed call.
    pub fn note(&self, method: Method, status: &Status) {
        self.recorder.failed(format!(
            "{}: {:?} {}",
            method.name,
            status.code(),
            status.message()
        ));
    }

    async fn poll_workflow_tasks(self: Arc<Self>, index: usize, queue: Queue) {
        loop {
            let question = match queue {
                Queue::Normal => self.requests.poll_workflow_task(),
                Queue::Sticky => self.requests.poll_sticky_task(),
            };
            let method = Method::POLL_WORKFLOW_TASK;
            match self
                .client(index)
                .call::<_, WorkflowTask>(method, question, POLL_TIMEOUT)
                .await
            {
                Ok(task) if task.task_token.is_empty() => {}
                Ok(task) => {
                    tokio::spawn(self.clone().do_workflow_task(index, task));
                }
                Err(status) => self.poll_failed(method, &status).await,
            }
        }
    }

    async fn poll_activity_tasks(self: Arc<Self>, index: usize) {
        loop {
            let question = self.requests.poll_activity_task();
            let method = Method::POLL_ACTIVITY_TASK;
            match self
                .client(index)
                .call::<_, ActivityTask>(method, question, POLL_TIMEOUT)
                .await
            {
                Ok(task) if task.task_token.is_empty() => {}
                Ok(task) => {
                    tokio::spawn(self.clone().do_activity_task(index, task));
                }
                Err(status) => self.poll_failed(method, &status).await,
            }
        }
    }

    async fn do_activity_task(self: Arc<Self>, index: usize, task: ActivityTask) {
        let question = self.requests.complete_activity_task(task.task_token);
        let method = Method::COMPLETE_ACTIVITY_TASK;
        if let Err(status) = self
            .client(index)
            .call::<_, Ignored>(method, question, CALL_TIMEOUT)
            .await
        {
            self.note(method, &status);
        }
    }

    /// A poll that ran out of time is no fault; after any other error a pause keeps this loop from
    /// hammering the server.
    async fn poll_failed(&self, method: Method, status: &Status) {
        if status.code() != Code::DeadlineExceeded {
            self.note(method, status);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
