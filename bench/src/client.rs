//! A lean client: few connections, no compression, and answers of which only the needed fields are
//! decoded. The load generator shares its processors with the server that it measures.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use tonic::{
    Request, Status,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// The time limit of a long poll, as SDKs set it.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(70);
/// The time limit of every other call.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

const MAX_ANSWER_BYTES: usize = 64 << 20;
const WINDOW_BYTES: u32 = 4 << 20;

/// The fields of `PollWorkflowTaskQueueResponse` that a worker cannot do without.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WorkflowTask {
    /// Empty when the poll ended without a task.
    #[prost(bytes = "bytes", tag = "1")]
    pub task_token: Bytes,
    /// Whose task it is.
    #[prost(message, optional, tag = "2")]
    pub workflow_execution: Option<Execution>,
    /// The events since the last task, or all of them.
    #[prost(message, optional, tag = "8")]
    pub history: Option<History>,
}

/// A workflow execution, without its run id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Execution {
    /// The id that its starter chose.
    #[prost(string, tag = "1")]
    pub workflow_id: String,
}

/// A history, or a part of one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct History {
    /// In order.
    #[prost(message, repeated, tag = "1")]
    pub events: Vec<Event>,
}

/// A history event, without its attributes.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Event {
    /// 1 is the workflow's start.
    #[prost(int64, tag = "1")]
    pub event_id: i64,
    /// An `EventType`.
    #[prost(int32, tag = "3")]
    pub event_type: i32,
}

/// The fields of `PollActivityTaskQueueResponse` that are needed to complete it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ActivityTask {
    /// Empty when the poll ended without a task.
    #[prost(bytes = "bytes", tag = "1")]
    pub task_token: Bytes,
}

/// The answer to a start.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Started {
    /// The first task, if it was asked for and given.
    #[prost(message, optional, tag = "2")]
    pub eager_workflow_task: Option<WorkflowTask>,
}

/// The answer to a completed workflow task.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskCompleted {
    /// The next task of the same workflow, if there is one already.
    #[prost(message, optional, tag = "1")]
    pub workflow_task: Option<WorkflowTask>,
    /// Activities handed out eagerly.
    #[prost(message, repeated, tag = "2")]
    pub activity_tasks: Vec<ActivityTask>,
}

/// An answer of which nothing is needed.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Ignored {}

/// A method of the workflow service.
#[derive(Clone, Copy)]
pub struct Method {
    /// How errors name it.
    pub name: &'static str,
    path: &'static str,
}

macro_rules! methods {
    ($($constant:ident = $name:literal;)*) => {
        impl Method {
            $(
                #[doc = concat!("`", $name, "`")]
                pub const $constant: Method = Method {
                    name: $name,
                    path: concat!("/temporal.api.workflowservice.v1.WorkflowService/", $name),
                };
            )*
        }
    };
}

methods! {
    DESCRIBE_NAMESPACE = "DescribeNamespace";
    DESCRIBE_WORKFLOW = "DescribeWorkflowExecution";
    POLL_ACTIVITY_TASK = "PollActivityTaskQueue";
    POLL_WORKFLOW_TASK = "PollWorkflowTaskQueue";
    COMPLETE_ACTIVITY_TASK = "RespondActivityTaskCompleted";
    COMPLETE_WORKFLOW_TASK = "RespondWorkflowTaskCompleted";
    SIGNAL_WORKFLOW = "SignalWorkflowExecution";
    START_WORKFLOW = "StartWorkflowExecution";
}

/// One HTTP/2 connection to the server.
#[derive(Clone)]
pub struct Client(Grpc<Channel>);

impl Client {
    /// Connects.
    pub async fn connect(address: &str) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(address.to_owned())?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(5))
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .connect()
            .await?;
        Ok(Self(
            Grpc::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES),
        ))
    }

    /// Calls `method` and waits for its answer.
    pub async fn call<Question, Answer>(
        &self,
        method: Method,
        question: Question,
        timeout: Duration,
    ) -> Result<Answer, Status>
    where
        Question: prost::Message + 'static,
        Answer: prost::Message + Default + 'static,
    {
        let mut request = Request::new(question);
        request.set_timeout(timeout);
        let mut grpc = self.0.clone();
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(method.path);
        let answer = grpc.unary(request, path, ProstCodec::default()).await?;
        Ok(answer.into_inner())
    }
}
