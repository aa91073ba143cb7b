//! What passes between a worker and its server, as far as it matters here.

use std::collections::HashMap;

use prost::Message;
use sha2::{Digest, Sha256};
use steadfast_api::messages::common::v1::Payloads;
use steadfast_api::messages::enums::v1::WorkflowTaskFailedCause;
use steadfast_api::messages::failure::v1::Failure;
use steadfast_api::messages::workflowservice::v1 as api;

use crate::point::Boundary;

/// The service that workers use.
const SERVICE: &str = "/temporal.api.workflowservice.v1.WorkflowService/";

/// A task that a worker was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// A workflow task.
    Workflow {
        /// Workflow and run.
        run: (String, String),
        /// Type of the workflow.
        workflow_type: String,
    },
    /// An attempt of an activity.
    Activity {
        /// Workflow and run.
        run: (String, String),
        /// Id of the activity.
        id: String,
        /// Its type.
        activity_type: String,
        /// The attempt.
        attempt: i32,
        /// What it is called with: SHA-256.
        input: [u8; 32],
    },
}

/// How a worker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// It failed; why.
    Failed {
        /// Whether the workflow did not do what it had done before.
        is_non_determinism: bool,
        /// What the worker says.
        message: String,
    },
}

/// A call that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The worker asks for work.
    Poll,
    /// The worker asks for activities of this queue.
    PollActivities(String),
    /// The worker answers the task with this token.
    Answer(Vec<u8>, Answer),
    /// Anything else.
    Other,
}

impl Call {
    /// What a request is.
    pub fn of(path: &str, request: &[u8]) -> Self {
        let answer = |token: Option<Vec<u8>>, answer| match token {
            Some(token) => Self::Answer(token, answer),
            None => Self::Other,
        };
        match path.strip_prefix(SERVICE).unwrap_or_default() {
            "PollWorkflowTaskQueue" => Self::Poll,
            "PollActivityTaskQueue" => {
                let of = decoded::<api::PollActivityTaskQueueRequest>(request).unwrap_or_default();
                Self::PollActivities(of.task_queue.unwrap_or_default().name)
            }
            "RespondWorkflowTaskCompleted" => answer(
                decoded::<api::RespondWorkflowTaskCompletedRequest>(request)
                    .map(|of| of.task_token),
                Answer::Done,
            ),
            "RespondActivityTaskCompleted" => answer(
                decoded::<api::RespondActivityTaskCompletedRequest>(request)
                    .map(|of| of.task_token),
                Answer::Done,
            ),
            "RespondActivityTaskCanceled" => answer(
                decoded::<api::RespondActivityTaskCanceledRequest>(request).map(|of| of.task_token),
                Answer::Done,
            ),
            "RespondWorkflowTaskFailed" => {
                let Some(of) = decoded::<api::RespondWorkflowTaskFailedRequest>(request) else {
                    return Self::Other;
                };
                let failed = Answer::Failed {
                    is_non_determinism: of.cause()
                        == WorkflowTaskFailedCause::NonDeterministicError,
                    message: message(of.failure.as_ref()),
                };
                Self::Answer(of.task_token, failed)
            }
            "RespondActivityTaskFailed" => {
                let Some(of) = decoded::<api::RespondActivityTaskFailedRequest>(request) else {
                    return Self::Other;
                };
                let failed = Answer::Failed {
                    is_non_determinism: false,
                    message: message(of.failure.as_ref()),
                };
                Self::Answer(of.task_token, failed)
            }
            _ => Self::Other,
        }
    }
}

/// The activities that a server gives with its answer to a call, each as the answer to a poll.
pub fn activities_in(path: &str, response: &bytes::Bytes) -> Vec<(Vec<u8>, bytes::Bytes)> {
    match path.strip_prefix(SERVICE).unwrap_or_default() {
        "PollActivityTaskQueue" => decoded::<api::PollActivityTaskQueueResponse>(response)
            .filter(|of| !of.task_token.is_empty())
            .map(|of| (of.task_token, response.clone()))
            .into_iter()
            .collect(),
        "RespondWorkflowTaskCompleted" => {
            let of = decoded::<api::RespondWorkflowTaskCompletedResponse>(response);
            let eager = of.unwrap_or_default().activity_tasks.into_iter();
            let eager = eager.map(|of| (of.task_token.clone(), of.encode_to_vec().into()));
            eager.collect()
        }
        _ => Vec::new(),
    }
}

/// The tasks that a server gives with its answer to a call.
pub fn tasks_in(path: &str, response: &[u8]) -> Vec<(Vec<u8>, Task)> {
    match path.strip_prefix(SERVICE).unwrap_or_default() {
        "PollWorkflowTaskQueue" => decoded::<api::PollWorkflowTaskQueueResponse>(response)
            .and_then(workflow_task)
            .into_iter()
            .collect(),
        "PollActivityTaskQueue" => decoded::<api::PollActivityTaskQueueResponse>(response)
            .and_then(activity_task)
            .into_iter()
            .collect(),
        "RespondWorkflowTaskCompleted" => {
            let Some(of) = decoded::<api::RespondWorkflowTaskCompletedResponse>(response) else {
                return Vec::new();
            };
            let eager = of.activity_tasks.into_iter().filter_map(activity_task);
            let next = of.workflow_task.and_then(workflow_task);
            eager.chain(next).collect()
        }
        _ => Vec::new(),
    }
}

/// A completion without the worker's own queue: the server will send the whole history next time.
pub fn without_cache(path: &str, request: &[u8]) -> Option<Vec<u8>> {
    if path.strip_prefix(SERVICE) != Some("RespondWorkflowTaskCompleted") {
        return None;
    }
    let mut of = decoded::<api::RespondWorkflowTaskCompletedRequest>(request)?;
    of.sticky_attributes = None;
    of.return_new_workflow_task = false;
    Some(of.encode_to_vec())
}

/// A workflow task as a first attempt: of a later one, SDKs do not say why it fails.
pub fn as_first_attempt(path: &str, response: &[u8]) -> Option<Vec<u8>> {
    if path.strip_prefix(SERVICE) != Some("PollWorkflowTaskQueue") {
        return None;
    }
    let mut of = decoded::<api::PollWorkflowTaskQueueResponse>(response)?;
    (of.attempt > 1).then(|| {
        of.attempt = 1;
        of.encode_to_vec()
    })
}

fn decoded<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}

fn workflow_task(of: api::PollWorkflowTaskQueueResponse) -> Option<(Vec<u8>, Task)> {
    // Tasks with nothing but queries are answered otherwise, and leave nothing.
    if of.task_token.is_empty() || of.query.is_some() {
        return None;
    }
    let run = of.workflow_execution.unwrap_or_default();
    let task = Task::Workflow {
        run: (run.workflow_id, run.run_id),
        workflow_type: of.workflow_type.unwrap_or_default().name,
    };
    Some((of.task_token, task))
}

fn activity_task(of: api::PollActivityTaskQueueResponse) -> Option<(Vec<u8>, Task)> {
    if of.task_token.is_empty() {
        return None;
    }
    let run = of.workflow_execution.unwrap_or_default();
    let task = Task::Activity {
        run: (run.workflow_id, run.run_id),
        id: of.activity_id,
        activity_type: of.activity_type.unwrap_or_default().name,
        attempt: of.attempt,
        input: digest(of.input.as_ref()),
    };
    Some((of.task_token, task))
}

/// Stands for arguments.
pub fn digest(input: Option<&Payloads>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for payload in input.iter().flat_map(|of| &of.payloads) {
        digest.update((payload.data.len() as u64).to_be_bytes());
        digest.update(&payload.data);
    }
    digest.finalize().into()
}

/// The messages of a failure and of what caused it.
pub fn message(failure: Option<&Failure>) -> String {
    let chain = std::iter::successors(failure, |failure| failure.cause.as_deref());
    let messages = chain.take(4).map(|of| of.message.as_str());
    let messages: Vec<&str> = messages.filter(|of| !of.is_empty()).collect();
    messages.join(": ")
}

/// What was seen in one run.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Boundaries, in the order in which they came.
    pub boundaries: Vec<Boundary>,
    /// Workflow tasks that a worker failed: whether for non-determinism, and what it said.
    pub failed_tasks: Vec<(bool, String)>,
    /// What each activity was: attempts that a worker was given, in order.
    pub attempts: Vec<Attempt>,
    /// Completed activities that a worker was given again.
    pub given_again: Vec<String>,
    answers: HashMap<String, u32>,
}

/// An attempt of an activity that a worker was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Workflow and run.
    pub run: (String, String),
    /// Id of the activity.
    pub id: String,
    /// Its type.
    pub activity_type: String,
    /// The attempt.
    pub attempt: i32,
    /// Whether the worker said that it is done.
    pub is_done: bool,
    /// Whether the server took that.
    pub is_taken: bool,
}

impl Seen {
    /// A worker is given a task.
    pub fn given(&mut self, task: &Task) {
        let Task::Activity {
            run,
            id,
            activity_type,
            attempt,
            ..
        } = task
        else {
            return;
        };
        let same = |of: &&Attempt| of.run == *run && of.id == *id;
        if self.attempts.iter().filter(same).any(|of| of.is_taken) {
            self.given_again.push(activity_type.clone());
        }
        self.attempts.push(Attempt {
            run: run.clone(),
            id: id.clone(),
            activity_type: activity_type.clone(),
            attempt: *attempt,
            is_done: false,
            is_taken: false,
        });
    }

    /// A worker is about to answer a task: the boundary that it is at.
    pub fn answers(&mut self, task: &Task, answer: &Answer) -> Option<Boundary> {
        match (task, answer) {
            (
                Task::Workflow { .. },
                Answer::Failed {
                    is_non_determinism,
                    message,
                },
            ) => {
                self.failed_tasks
                    .push((*is_non_determinism, message.clone()));
                None
            }
            // A failed attempt is made again: where is not known beforehand.
            (Task::Activity { .. }, Answer::Failed { .. }) => None,
            (Task::Workflow { workflow_type, .. }, Answer::Done) => {
                let n = self.count(format!("workflow {workflow_type}"));
                let workflow_type = workflow_type.clone();
                Some(self.reached(Boundary::WorkflowTask { workflow_type, n }))
            }
            (Task::Activity { activity_type, .. }, Answer::Done) => {
                if let Some(attempt) = self.attempt_of(task) {
                    attempt.is_done = true;
                }
                let n = self.count(format!("activity {activity_type}"));
                let activity_type = activity_type.clone();
                Some(self.reached(Boundary::Activity { activity_type, n }))
            }
        }
    }

    /// The server took an answer.
    pub fn taken(&mut self, task: &Task, answer: &Answer) {
        if *answer == Answer::Done
            && let Some(attempt) = self.attempt_of(task)
        {
            attempt.is_taken = true;
        }
    }

    /// Everybody waits.
    pub fn idle(&mut self) -> Boundary {
        let n = self.count("idle".to_owned());
        self.reached(Boundary::Idle { n })
    }

    /// A tool call of this type waits for a vote.
    pub fn waits_for_vote(&mut self, activity_type: &str) -> Boundary {
        let n = self.count(format!("approval {activity_type}"));
        let activity_type = activity_type.to_owned();
        self.reached(Boundary::Approval { activity_type, n })
    }

    fn reached(&mut self, boundary: Boundary) -> Boundary {
        self.boundaries.push(boundary.clone());
        boundary
    }

    fn count(&mut self, what: String) -> u32 {
        let count = self.answers.entry(what).or_default();
        *count += 1;
        *count
    }

    fn attempt_of(&mut self, task: &Task) -> Option<&mut Attempt> {
        let Task::Activity {
            run, id, attempt, ..
        } = task
        else {
            return None;
        };
        let mut attempts = self.attempts.iter_mut().rev();
        attempts.find(|of| of.run == *run && of.id == *id && of.attempt == *attempt)
    }
}
