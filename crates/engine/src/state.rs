//! What a run is at a moment: the state that records change and snapshots store.
//!
//! These are protobuf messages so that snapshots can grow: a tag that was used is never used for
//! anything else. Times are nanoseconds since the epoch, 0 for none; spans are nanoseconds.

use std::collections::BTreeMap;

use crate::proto::{common, enums, failure, history, sdk, update, workflow};

/// The durable state of one run.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RunState {
    /// Id of the namespace (not its name).
    #[prost(string, tag = "1")]
    pub namespace_id: String,
    /// Workflow id.
    #[prost(string, tag = "2")]
    pub workflow_id: String,
    /// Run id.
    #[prost(string, tag = "3")]
    pub run_id: String,
    /// Number of records so far: the next one is `n + 1`.
    #[prost(uint64, tag = "4")]
    pub n: u64,
    /// Time of the last record; time never goes back within a run.
    #[prost(int64, tag = "5")]
    pub time: i64,
    /// Status.
    #[prost(enumeration = "enums::WorkflowExecutionStatus", tag = "6")]
    pub status: i32,
    /// How it was started: attributes of the first event. `input`, `header`, `continued_failure`
    /// and `last_completion_result` are kept only where a retry policy or a cron schedule will need
    /// them again; the first event has them always.
    #[prost(message, optional, tag = "7")]
    pub started: Option<history::WorkflowExecutionStartedEventAttributes>,
    /// When it was started.
    #[prost(int64, tag = "8")]
    pub start_time: i64,
    /// When the first workflow task may run.
    #[prost(int64, tag = "9")]
    pub execution_time: i64,
    /// When it closed.
    #[prost(int64, tag = "10")]
    pub close_time: i64,
    /// When the run times out.
    #[prost(int64, tag = "11")]
    pub run_expires: i64,
    /// When the whole chain times out.
    #[prost(int64, tag = "12")]
    pub execution_expires: i64,
    /// Id of the next event.
    #[prost(int64, tag = "13")]
    pub next_event_id: i64,
    /// Bytes of history.
    #[prost(int64, tag = "14")]
    pub history_bytes: i64,
    /// Request id that started it.
    #[prost(string, tag = "15")]
    pub start_request_id: String,
    /// The workflow task that is scheduled or started.
    #[prost(message, optional, tag = "16")]
    pub workflow_task: Option<WorkflowTask>,
    /// Attempt that the next workflow task will be (1 = the first).
    #[prost(int32, tag = "17")]
    pub workflow_task_attempt: i32,
    /// Started event of the last completed workflow task.
    #[prost(int64, tag = "18")]
    pub previous_started_event_id: i64,
    /// Completed event of the last completed workflow task.
    #[prost(int64, tag = "19")]
    pub last_completed_event_id: i64,
    /// Where workflow tasks go while the worker that has the run cached is there.
    #[prost(message, optional, tag = "20")]
    pub sticky: Option<Sticky>,
    /// The first workflow task is held back until then (start delay, cron, retry).
    #[prost(int64, tag = "21")]
    pub first_task_at: i64,
    /// Pending activities by scheduled event id.
    #[prost(btree_map = "int64, message", tag = "22")]
    pub activities: BTreeMap<i64, Activity>,
    /// Pending timers by timer id.
    #[prost(btree_map = "string, message", tag = "23")]
    pub timers: BTreeMap<String, Timer>,
    /// Pending children by initiated event id.
    #[prost(btree_map = "int64, message", tag = "24")]
    pub children: BTreeMap<i64, Child>,
    /// Signals to other workflows that are under way, by initiated event id.
    #[prost(btree_map = "int64, message", tag = "25")]
    pub external_signals: BTreeMap<i64, ExternalSignal>,
    /// Cancel requests to other workflows that are under way, by initiated event id.
    #[prost(btree_map = "int64, message", tag = "26")]
    pub external_cancels: BTreeMap<i64, ExternalCancel>,
    /// Updates that were accepted, by update id.
    #[prost(btree_map = "string, message", tag = "27")]
    pub updates: BTreeMap<String, Update>,
    /// Encoded events without ids that wait for the workflow task in progress.
    #[prost(bytes = "bytes", repeated, tag = "28")]
    pub buffered: Vec<bytes::Bytes>,
    /// Request ids of signals, and of cancel requests of other workflows, that were taken; sorted.
    #[prost(string, repeated, tag = "29")]
    pub signal_request_ids: Vec<String>,
    /// Signals so far.
    #[prost(int64, tag = "30")]
    pub signal_count: i64,
    /// Cancellation was requested.
    #[prost(bool, tag = "31")]
    pub cancel_requested: bool,
    /// By this request.
    #[prost(string, tag = "32")]
    pub cancel_request_id: String,
    /// Memo, upserts included.
    #[prost(message, optional, tag = "33")]
    pub memo: Option<common::Memo>,
    /// Search attributes, upserts included.
    #[prost(message, optional, tag = "34")]
    pub search_attributes: Option<common::SearchAttributes>,
    /// Points that a reset can name by build id.
    #[prost(message, optional, tag = "35")]
    pub reset_points: Option<workflow::ResetPoints>,
    /// Messages to other runs that have not been acknowledged, by number.
    #[prost(btree_map = "uint64, message", tag = "36")]
    pub outbox: BTreeMap<u64, OutMessage>,
    /// Number of the next message to another run.
    #[prost(uint64, tag = "37")]
    pub next_message: u64,
    /// Runs whose events this run's history begins with (after a reset), oldest first.
    #[prost(message, repeated, tag = "38")]
    pub ancestors: Vec<Branch>,
    /// User metadata (summary and details) of the start.
    #[prost(message, optional, tag = "39")]
    pub user_metadata: Option<sdk::UserMetadata>,
    /// When the workflow task heartbeats began, 0 outside of them.
    #[prost(int64, tag = "40")]
    pub heartbeat_since: i64,
    /// Id of the run that follows this one, if any.
    #[prost(string, tag = "41")]
    pub successor_run_id: String,
    /// Id of the closing event.
    #[prost(int64, tag = "42")]
    pub close_event_id: i64,
    /// Back-off of the workflow task that is to be tried again: not scheduled before then.
    #[prost(int64, tag = "44")]
    pub workflow_task_retry_at: i64,
    /// Priority.
    #[prost(message, optional, tag = "45")]
    pub priority: Option<common::Priority>,
    /// Build id of the worker that completed the last workflow task.
    #[prost(message, optional, tag = "46")]
    pub worker_version: Option<common::WorkerVersionStamp>,
    /// Ids of requests attached to this run and the event that each made, for describe.
    #[prost(btree_map = "string, message", tag = "47")]
    pub request_ids: BTreeMap<String, RequestIdInfo>,
    /// Run that this one was reset from.
    #[prost(string, tag = "48")]
    pub reset_from_run_id: String,
    /// Run that came of the last reset of this one.
    #[prost(string, tag = "50")]
    pub reset_run_id: String,
    /// Updates that were ever accepted.
    #[prost(int64, tag = "49")]
    pub update_count: i64,
    /// Hash of the log's entry of the last record. Set by who writes the log, not by the engine.
    #[prost(bytes = "bytes", tag = "51")]
    pub entry_hash: bytes::Bytes,
    /// The secret from which the salts of the run's payloads are derived.
    #[prost(bytes = "bytes", tag = "52")]
    pub salt: bytes::Bytes,
    /// The run's payloads were erased: its own events are skeletons, and it has no records.
    #[prost(bool, tag = "53")]
    pub erased: bool,
    /// Who started the session: whoever started the first run, or the parent's.
    #[prost(message, optional, tag = "54")]
    pub initiator: Option<common::Principal>,
    /// The agents above it: `<namespace>/<workflow type>` of its parent, of the parent's parent, and so on.
    #[prost(string, repeated, tag = "85")]
    pub agents: Vec<String>,
    /// How often each tool was called, as far as policies decided it.
    #[prost(btree_map = "string, int64", tag = "55")]
    pub tool_calls: std::collections::BTreeMap<String, i64>,
    /// The newest call of any kind that was counted: its event.
    #[prost(int64, tag = "56")]
    pub tool_calls_until: i64,
    /// How many children of each type were started, as far as policies decided it.
    #[prost(btree_map = "string, int64", tag = "80")]
    pub children_started: std::collections::BTreeMap<String, i64>,
    /// Why nothing of it is handed out, while it is paused.
    #[prost(message, optional, tag = "70")]
    pub pause: Option<Pause>,
}

/// Who paused a run, when and why.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Pause {
    /// When.
    #[prost(int64, tag = "1")]
    pub time: i64,
    /// Who, as authenticated; none for the server itself.
    #[prost(message, optional, tag = "2")]
    pub principal: Option<common::Principal>,
    /// Who, as the caller names itself.
    #[prost(string, tag = "3")]
    pub identity: String,
    /// Why.
    #[prost(string, tag = "4")]
    pub reason: String,
    /// Id of the request.
    #[prost(string, tag = "5")]
    pub request_id: String,
}

/// A request that a run remembers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestIdInfo {
    /// Type of the event that the request made.
    #[prost(enumeration = "enums::EventType", tag = "1")]
    pub event_type: i32,
    /// Its id, 0 while buffered.
    #[prost(int64, tag = "2")]
    pub event_id: i64,
}

/// A stretch of history that belongs to another run.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Branch {
    /// The run that wrote the events.
    #[prost(string, tag = "1")]
    pub run_id: String,
    /// The last event that is shared.
    #[prost(int64, tag = "2")]
    pub last_event_id: i64,
}

/// The one workflow task that may be scheduled or started.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WorkflowTask {
    /// Id that its scheduled event has, or will have.
    #[prost(int64, tag = "1")]
    pub scheduled_event_id: i64,
    /// Id that its started event has, or will have; 0 while not started.
    #[prost(int64, tag = "2")]
    pub started_event_id: i64,
    /// Attempt.
    #[prost(int32, tag = "3")]
    pub attempt: i32,
    /// When it was scheduled.
    #[prost(int64, tag = "4")]
    pub scheduled_time: i64,
    /// When it was started, 0 while not.
    #[prost(int64, tag = "5")]
    pub started_time: i64,
    /// When the first of a chain of heartbeating tasks was scheduled.
    #[prost(int64, tag = "6")]
    pub original_scheduled_time: i64,
    /// Start-to-close time-out, a span.
    #[prost(int64, tag = "7")]
    pub timeout: i64,
    /// Whether its scheduled (and, once started, started) events are in history. Not so for
    /// transient tasks (attempts after a failure) and speculative ones.
    #[prost(bool, tag = "8")]
    pub in_history: bool,
    /// Whether it exists only for updates, and leaves no trace if they are all rejected.
    #[prost(bool, tag = "9")]
    pub speculative: bool,
    /// Whether it waits in the sticky queue.
    #[prost(bool, tag = "10")]
    pub sticky: bool,
    /// Minted for this hand-out and part of its token, so that a token from before a crash is
    /// refused even where event ids and attempt are the same again.
    #[prost(string, tag = "11")]
    pub request_id: String,
    /// Identity of the worker that started it.
    #[prost(string, tag = "12")]
    pub identity: String,
    /// As told to the worker in the started event.
    #[prost(int64, tag = "14")]
    pub history_bytes: i64,
    /// As told to the worker in the started event.
    #[prost(bool, tag = "15")]
    pub suggest_continue_as_new: bool,
    /// As told to the worker in the started event.
    #[prost(
        enumeration = "enums::SuggestContinueAsNewReason",
        repeated,
        tag = "16"
    )]
    pub suggest_reasons: Vec<i32>,
    /// Worker version of the poller that started it.
    #[prost(message, optional, tag = "17")]
    pub worker_version: Option<common::WorkerVersionStamp>,
}

/// Where the worker that has the run in its cache polls.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sticky {
    /// Its queue.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// How long a task waits there before it goes to the normal queue, a span.
    #[prost(int64, tag = "2")]
    pub schedule_to_start: i64,
}

/// A pending activity.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Activity {
    /// Attributes of its scheduled event, arguments included.
    #[prost(message, optional, tag = "1")]
    pub scheduled: Option<history::ActivityTaskScheduledEventAttributes>,
    /// When it was scheduled.
    #[prost(int64, tag = "2")]
    pub scheduled_time: i64,
    /// The attempt that is under way or will be next.
    #[prost(message, optional, tag = "3")]
    pub attempt: Option<Attempt>,
    /// Event that requested its cancellation, 0 for none.
    #[prost(int64, tag = "4")]
    pub cancel_requested_event_id: i64,
    /// The approval that it needs, or needed.
    #[prost(message, optional, tag = "5")]
    pub approval: Option<Approval>,
}

/// What people have to say before a tool call, or another command, may go on, and have said.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Approval {
    /// When it was asked for.
    #[prost(int64, tag = "1")]
    pub requested: i64,
    /// When the call is refused, if it still waits.
    #[prost(int64, tag = "2")]
    pub expires: i64,
    /// So many people have to approve.
    #[prost(uint32, tag = "3")]
    pub quorum: u32,
    /// Groups that have to be among them; none for anybody.
    #[prost(string, repeated, tag = "4")]
    pub groups: Vec<String>,
    /// What it is for: the digest of the call.
    #[prost(bytes = "vec", tag = "5")]
    pub digest: Vec<u8>,
    /// Ids of the policies that ask for it.
    #[prost(string, repeated, tag = "6")]
    pub policies: Vec<String>,
    /// SHA-256 of the policies in force then.
    #[prost(bytes = "vec", tag = "7")]
    pub policy_hash: Vec<u8>,
    /// Votes, oldest first.
    #[prost(message, repeated, tag = "8")]
    pub votes: Vec<Vote>,
    /// When the call was released, 0 while it waits.
    #[prost(int64, tag = "9")]
    pub released: i64,
}

/// What one person said.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Vote {
    /// Who.
    #[prost(string, tag = "1")]
    pub principal: String,
    /// How they were authenticated.
    #[prost(string, tag = "2")]
    pub authentication: String,
    /// Groups that they were in.
    #[prost(string, repeated, tag = "3")]
    pub groups: Vec<String>,
    /// Whether they approve.
    #[prost(bool, tag = "4")]
    pub approves: bool,
    /// Why.
    #[prost(string, tag = "5")]
    pub comment: String,
    /// When.
    #[prost(int64, tag = "6")]
    pub time: i64,
}

/// One attempt of an activity; none of this is in history before the activity closes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attempt {
    /// 1 = the first.
    #[prost(int32, tag = "1")]
    pub number: i32,
    /// When it may be handed out.
    #[prost(int64, tag = "2")]
    pub scheduled_time: i64,
    /// When it was handed out, 0 while not.
    #[prost(int64, tag = "3")]
    pub started_time: i64,
    /// Minted for this hand-out and part of its token, so that a token from before a crash is
    /// refused even where event ids and attempt are the same again.
    #[prost(string, tag = "4")]
    pub request_id: String,
    /// Identity of the worker that runs it, or ran the last one.
    #[prost(string, tag = "5")]
    pub identity: String,
    /// Last heartbeat's details, kept over attempts.
    #[prost(message, optional, tag = "7")]
    pub heartbeat_details: Option<common::Payloads>,
    /// When the last heartbeat came, 0 for none in this attempt.
    #[prost(int64, tag = "8")]
    pub heartbeat_time: i64,
    /// Why the attempt before failed.
    #[prost(message, optional, tag = "9")]
    pub last_failure: Option<failure::Failure>,
    /// When the attempt before ended.
    #[prost(int64, tag = "10")]
    pub last_complete_time: i64,
    /// Back-off before this attempt, a span.
    #[prost(int64, tag = "11")]
    pub backoff: i64,
    /// Worker version.
    #[prost(message, optional, tag = "12")]
    pub worker_version: Option<common::WorkerVersionStamp>,
    /// When an attempt was last handed out.
    #[prost(int64, tag = "13")]
    pub last_started_time: i64,
    /// The credential that it was handed out with.
    #[prost(message, optional, tag = "14")]
    pub credential: Option<Credential>,
}

/// What is known of a credential. The token itself is nowhere.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Credential {
    /// Its id (`jti`).
    #[prost(string, tag = "1")]
    pub id: String,
    /// For whom it is.
    #[prost(string, tag = "2")]
    pub audience: String,
    /// When it expires: a whole second.
    #[prost(int64, tag = "3")]
    pub expires: i64,
}

/// A pending timer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Timer {
    /// Its started event.
    #[prost(int64, tag = "1")]
    pub started_event_id: i64,
    /// When it fires.
    #[prost(int64, tag = "2")]
    pub fires: i64,
}

/// A pending child.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Child {
    /// Attributes of its initiated event, without the input once it is started.
    #[prost(message, optional, tag = "1")]
    pub initiated: Option<history::StartChildWorkflowExecutionInitiatedEventAttributes>,
    /// Request id of its start, minted at initiation.
    #[prost(string, tag = "2")]
    pub request_id: String,
    /// Its started event: 0 while not started, [`crate::run::BUFFERED`] while that is buffered.
    #[prost(int64, tag = "3")]
    pub started_event_id: i64,
    /// Its (first) run id, once started.
    #[prost(string, tag = "4")]
    pub run_id: String,
    /// Summary and details, until it is started.
    #[prost(message, optional, tag = "5")]
    pub user_metadata: Option<sdk::UserMetadata>,
    /// The approval that its start needs, or needed.
    #[prost(message, optional, tag = "10")]
    pub approval: Option<Approval>,
}

/// A signal to another workflow that is under way.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExternalSignal {
    /// Attributes of its initiated event.
    #[prost(message, optional, tag = "1")]
    pub initiated: Option<history::SignalExternalWorkflowExecutionInitiatedEventAttributes>,
    /// Request id, minted at initiation.
    #[prost(string, tag = "2")]
    pub request_id: String,
    /// When it was sent: when it was initiated, or released.
    #[prost(int64, tag = "3")]
    pub time: i64,
    /// The approval that it needs, or needed.
    #[prost(message, optional, tag = "10")]
    pub approval: Option<Approval>,
}

/// A cancel request to another workflow that is under way.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExternalCancel {
    /// Attributes of its initiated event.
    #[prost(message, optional, tag = "1")]
    pub initiated: Option<history::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes>,
    /// Request id, minted at initiation.
    #[prost(string, tag = "2")]
    pub request_id: String,
    /// When it was sent: when it was initiated, or released.
    #[prost(int64, tag = "3")]
    pub time: i64,
    /// The approval that it needs, or needed.
    #[prost(message, optional, tag = "10")]
    pub approval: Option<Approval>,
}

/// An update that the workflow accepted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Update {
    /// Its accepted event.
    #[prost(int64, tag = "1")]
    pub accepted_event_id: i64,
    /// Its completed event, 0 while under way.
    #[prost(int64, tag = "2")]
    pub completed_event_id: i64,
    /// Its outcome, once completed.
    #[prost(message, optional, tag = "3")]
    pub outcome: Option<update::Outcome>,
}

/// A message to another run. It stays in the sender's state until the receiver has it; receivers
/// drop duplicates.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OutMessage {
    /// Number within the sender.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Namespace id of the receiver.
    #[prost(string, tag = "2")]
    pub namespace_id: String,
    /// Workflow id of the receiver.
    #[prost(string, tag = "3")]
    pub workflow_id: String,
    /// Run id of the receiver, empty for the current one.
    #[prost(string, tag = "4")]
    pub run_id: String,
    /// What to do there.
    #[prost(oneof = "Delivery", tags = "10, 11, 12, 13, 14")]
    pub delivery: Option<Delivery>,
}

/// What a message does at its receiver.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Delivery {
    /// Start the child that this event initiated.
    #[prost(int64, tag = "10")]
    StartChild(i64),
    /// Deliver the signal that this event initiated.
    #[prost(int64, tag = "11")]
    Signal(i64),
    /// Deliver the cancel request that this event initiated.
    #[prost(int64, tag = "12")]
    Cancel(i64),
    /// Tell the parent how its child closed.
    #[prost(message, tag = "13")]
    ChildClosed(ChildClosed),
    /// Apply the parent close policy.
    #[prost(enumeration = "enums::ParentClosePolicy", tag = "14")]
    ParentClosed(i32),
}

/// How a child closed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChildClosed {
    /// The parent's initiated event.
    #[prost(int64, tag = "1")]
    pub initiated_event_id: i64,
    /// First run id of the child's chain, by which the parent knows it.
    #[prost(string, tag = "2")]
    pub first_run_id: String,
    /// The child's workflow type.
    #[prost(string, tag = "3")]
    pub workflow_type: String,
    /// The child's closing event, encoded.
    #[prost(bytes = "vec", tag = "4")]
    pub close_event: Vec<u8>,
    /// Workflow id of the child.
    #[prost(string, tag = "5")]
    pub workflow_id: String,
    /// Run id of the child's last run.
    #[prost(string, tag = "6")]
    pub run_id: String,
}

impl RunState {
    /// Whether the run is still open.
    pub fn is_running(&self) -> bool {
        self.status == enums::WorkflowExecutionStatus::Running as i32
            || self.status == enums::WorkflowExecutionStatus::Paused as i32
    }

    /// How it was started. Every run has this from its first step on.
    pub fn start(&self) -> &history::WorkflowExecutionStartedEventAttributes {
        static NONE: std::sync::LazyLock<history::WorkflowExecutionStartedEventAttributes> =
            std::sync::LazyLock::new(Default::default);
        self.started.as_ref().unwrap_or(&NONE)
    }

    /// Workflow type name.
    pub fn workflow_type(&self) -> &str {
        self.start().workflow_type.as_ref().map_or("", |t| &t.name)
    }

    /// The normal (not sticky) task queue.
    pub fn task_queue(&self) -> &str {
        self.start()
            .task_queue
            .as_ref()
            .map_or("", |queue| &queue.name)
    }

    /// Whether a workflow task is in a worker's hands.
    pub fn workflow_task_started(&self) -> bool {
        self.workflow_task
            .as_ref()
            .is_some_and(|task| task.started_event_id != 0)
    }
}
