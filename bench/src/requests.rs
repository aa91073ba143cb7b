//! The requests that an SDK's worker and client would send.

use std::collections::HashMap;

use bytes::Bytes;
use prost_types::Duration;
use steadfast_api::messages::{
    command::v1::{
        Command, CompleteWorkflowExecutionCommandAttributes, ScheduleActivityTaskCommandAttributes,
        StartTimerCommandAttributes, command::Attributes,
    },
    common::v1::{ActivityType, Payload, Payloads, WorkflowExecution, WorkflowType},
    enums::v1::{CommandType, TaskQueueKind},
    taskqueue::v1::{StickyExecutionAttributes, TaskQueue},
    workflowservice::v1::{
        DescribeNamespaceRequest, DescribeWorkflowExecutionRequest, PollActivityTaskQueueRequest,
        PollWorkflowTaskQueueRequest, RespondActivityTaskCompletedRequest,
        RespondWorkflowTaskCompletedRequest, SignalWorkflowExecutionRequest,
        StartWorkflowExecutionRequest,
    },
};

use crate::{options::Options, workflow::Step};

const THIRTY_DAYS_S: i64 = 30 * 24 * 3600;

/// Makes requests; knows the names that go into them.
pub struct Requests {
    namespace: String,
    queue: String,
    sticky_queue: String,
    identity: String,
    payload_bytes: usize,
    eager_activities: bool,
    eager_start: bool,
}

impl Requests {
    /// `tag` tells this process apart from others at the same server.
    pub fn new(options: &Options, tag: &str) -> Self {
        Self {
            namespace: options.namespace.clone(),
            queue: format!("bench-{tag}"),
            sticky_queue: format!("bench-{tag}-sticky"),
            identity: format!("{}@loadgen", std::process::id()),
            payload_bytes: options.payload,
            eager_activities: options.eager_activities,
            eager_start: options.eager_start,
        }
    }

    /// Starts a workflow.
    pub fn start(&self, workflow_id: String) -> StartWorkflowExecutionRequest {
        StartWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            request_id: format!("start-{workflow_id}"),
            workflow_id,
            workflow_type: Some(WorkflowType {
                name: "bench".to_owned(),
            }),
            task_queue: Some(self.normal_queue()),
            input: self.payloads(),
            workflow_task_timeout: Some(seconds(10)),
            identity: self.identity.clone(),
            request_eager_execution: self.eager_start,
            ..Default::default()
        }
    }

    /// Waits for a workflow task that any worker may take.
    pub fn poll_workflow_task(&self) -> PollWorkflowTaskQueueRequest {
        PollWorkflowTaskQueueRequest {
            namespace: self.namespace.clone(),
            task_queue: Some(self.normal_queue()),
            identity: self.identity.clone(),
            ..Default::default()
        }
    }

    /// Waits for a task of a workflow that this worker has in its cache.
    pub fn poll_sticky_task(&self) -> PollWorkflowTaskQueueRequest {
        PollWorkflowTaskQueueRequest {
            namespace: self.namespace.clone(),
            task_queue: Some(self.sticky_queue()),
            identity: self.identity.clone(),
            ..Default::default()
        }
    }

    /// Waits for an activity task.
    pub fn poll_activity_task(&self) -> PollActivityTaskQueueRequest {
        PollActivityTaskQueueRequest {
            namespace: self.namespace.clone(),
            task_queue: Some(self.normal_queue()),
            identity: self.identity.clone(),
            ..Default::default()
        }
    }

    /// Answers a workflow task.
    pub fn complete_workflow_task(
        &self,
        token: Bytes,
        step: Step,
    ) -> RespondWorkflowTaskCompletedRequest {
        RespondWorkflowTaskCompletedRequest {
            task_token: token.into(),
            commands: self.command(step).into_iter().collect(),
            identity: self.identity.clone(),
            sticky_attributes: Some(StickyExecutionAttributes {
                worker_task_queue: Some(self.sticky_queue()),
                schedule_to_start_timeout: Some(seconds(10)),
            }),
            return_new_workflow_task: true,
            namespace: self.namespace.clone(),
            ..Default::default()
        }
    }

    /// Answers an activity task.
    pub fn complete_activity_task(&self, token: Bytes) -> RespondActivityTaskCompletedRequest {
        RespondActivityTaskCompletedRequest {
            task_token: token.into(),
            result: self.payloads(),
            identity: self.identity.clone(),
            namespace: self.namespace.clone(),
            ..Default::default()
        }
    }

    /// Asks for the namespace: the first thing that an SDK does.
    pub fn describe_namespace(&self) -> DescribeNamespaceRequest {
        DescribeNamespaceRequest {
            namespace: self.namespace.clone(),
            ..Default::default()
        }
    }

    /// Asks for a workflow.
    pub fn describe(&self, workflow_id: &str) -> DescribeWorkflowExecutionRequest {
        DescribeWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            execution: Some(execution(workflow_id)),
        }
    }

    /// Signals a workflow.
    pub fn signal(&self, workflow_id: &str) -> SignalWorkflowExecutionRequest {
        SignalWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_execution: Some(execution(workflow_id)),
            signal_name: "bench".to_owned(),
            input: self.payloads(),
            identity: self.identity.clone(),
            request_id: format!("signal-{}-{workflow_id}", std::process::id()),
            ..Default::default()
        }
    }

    fn command(&self, step: Step) -> Option<Command> {
        let (command_type, attributes) = match step {
            Step::Nothing => return None,
            Step::Schedule(number) => (
                CommandType::ScheduleActivityTask,
                Attributes::ScheduleActivityTaskCommandAttributes(self.activity(number)),
            ),
            Step::Complete => (
                CommandType::CompleteWorkflowExecution,
                Attributes::CompleteWorkflowExecutionCommandAttributes(
                    CompleteWorkflowExecutionCommandAttributes {
                        result: self.payloads(),
                    },
                ),
            ),
            Step::StartTimer => (
                CommandType::StartTimer,
                Attributes::StartTimerCommandAttributes(StartTimerCommandAttributes {
                    timer_id: "1".to_owned(),
                    start_to_fire_timeout: Some(seconds(THIRTY_DAYS_S)),
                }),
            ),
        };
        Some(Command {
            command_type: command_type as i32,
            attributes: Some(attributes),
            ..Default::default()
        })
    }

    fn activity(&self, number: u32) -> ScheduleActivityTaskCommandAttributes {
        ScheduleActivityTaskCommandAttributes {
            activity_id: number.to_string(),
            activity_type: Some(ActivityType {
                name: "step".to_owned(),
            }),
            task_queue: Some(self.normal_queue()),
            input: self.payloads(),
            start_to_close_timeout: Some(seconds(60)),
            request_eager_execution: self.eager_activities,
            ..Default::default()
        }
    }

    fn normal_queue(&self) -> TaskQueue {
        TaskQueue {
            name: self.queue.clone(),
            kind: TaskQueueKind::Normal as i32,
            ..Default::default()
        }
    }

    fn sticky_queue(&self) -> TaskQueue {
        TaskQueue {
            name: self.sticky_queue.clone(),
            kind: TaskQueueKind::Sticky as i32,
            normal_name: self.queue.clone(),
        }
    }

    /// A JSON string of the asked length.
    fn payloads(&self) -> Option<Payloads> {
        let mut data = vec![b'x'; self.payload_bytes.max(2)];
        data[0] = b'"';
        data[self.payload_bytes.max(2) - 1] = b'"';
        let metadata = HashMap::from([("encoding".to_owned(), b"json/plain".to_vec())]);
        Some(Payloads {
            payloads: vec![Payload {
                metadata,
                data,
                ..Default::default()
            }],
        })
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

fn execution(workflow_id: &str) -> WorkflowExecution {
    WorkflowExecution {
        workflow_id: workflow_id.to_owned(),
        run_id: String::new(),
    }
}
