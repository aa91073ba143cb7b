//! What a transition writes: the only thing that changes state, and the journal's content.

use bytes::Bytes;
use prost::Message;

use crate::state::{Approval, Attempt, OutMessage, Sticky, WorkflowTask};

/// One journal row: the records of one or several runs of one workflow id, which change together.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Transition {
    /// Id of the namespace.
    #[prost(string, tag = "1")]
    pub namespace_id: String,
    /// Workflow id.
    #[prost(string, tag = "2")]
    pub workflow_id: String,
    /// One record per run that changed, in order.
    #[prost(message, repeated, tag = "3")]
    pub records: Vec<RunRecord>,
    /// The current run after this transition; empty for unchanged.
    #[prost(string, tag = "4")]
    pub current_run_id: String,
    /// Runs deleted by this transition.
    #[prost(string, repeated, tag = "5")]
    pub deleted_run_ids: Vec<String>,
    /// The run that was the current one is gone and none took its place.
    #[prost(bool, tag = "6")]
    pub no_current_run: bool,
    /// Entries of the log that belong to no record: of deleted runs, and of no run.
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub entries: Vec<Bytes>,
    /// Entries of the namespace's own chain, about this workflow.
    #[prost(bytes = "bytes", repeated, tag = "8")]
    pub notes: Vec<Bytes>,
    /// Runs whose payloads are erased from here on.
    #[prost(string, repeated, tag = "9")]
    pub erased_run_ids: Vec<String>,
}

/// What changed in one run.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RunRecord {
    /// The run.
    #[prost(string, tag = "1")]
    pub run_id: String,
    /// 1, 2, 3… within the run.
    #[prost(uint64, tag = "2")]
    pub n: u64,
    /// When.
    #[prost(int64, tag = "3")]
    pub time: i64,
    /// Who and what caused it.
    #[prost(message, optional, tag = "4")]
    pub cause: Option<Cause>,
    /// The changes, in order.
    #[prost(message, repeated, tag = "5")]
    pub steps: Vec<Step>,
    /// What the log says of it, byte for byte. The engine only keeps it.
    #[prost(bytes = "bytes", tag = "6")]
    pub entry: Bytes,
    /// The secret from which the salts of the run's payloads are derived, where it is new.
    #[prost(bytes = "bytes", tag = "7")]
    pub salt: Bytes,
}

/// Who and what caused a record.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Cause {
    /// API method, or `internal/…` for a time-out, a message of another run and the like.
    #[prost(string, tag = "1")]
    pub call: String,
    /// The principal's name: authenticated, or as claimed by the caller.
    #[prost(string, tag = "2")]
    pub principal: String,
    /// How it was authenticated: `unauthenticated`, …; empty for the server itself.
    #[prost(string, tag = "3")]
    pub authentication: String,
}

/// One change of one run.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Step {
    /// What kind.
    #[prost(
        oneof = "StepKind",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17"
    )]
    pub kind: Option<StepKind>,
}

/// The kinds of changes.
#[derive(Clone, PartialEq, prost::Oneof)]
// Nearly all steps are events, which are small.
#[allow(clippy::large_enum_variant)]
pub enum StepKind {
    /// A new run begins: names it. Always the first step of the first record.
    #[prost(message, tag = "1")]
    Begin(Begin),
    /// An encoded event is added to history, and has its effect.
    #[prost(bytes = "bytes", tag = "2")]
    Event(Bytes),
    /// An encoded event without id has its effect now and waits for its place in history.
    #[prost(bytes = "bytes", tag = "3")]
    Buffer(Bytes),
    /// The buffered events get their ids and places.
    #[prost(message, tag = "4")]
    Flush(Flush),
    /// The workflow task is now this one.
    #[prost(message, tag = "5")]
    WorkflowTask(WorkflowTask),
    /// There is no workflow task now; holds the next attempt and when it may be scheduled.
    #[prost(message, tag = "6")]
    NoWorkflowTask(NoWorkflowTask),
    /// An activity's attempt is now this one.
    #[prost(message, tag = "7")]
    Attempt(ActivityAttempt),
    /// Workflow tasks go to this queue now; an empty name for the normal one.
    #[prost(message, tag = "8")]
    Sticky(Sticky),
    /// A message to another run is to be delivered.
    #[prost(message, tag = "9")]
    Send(OutMessage),
    /// The receiver has the message.
    #[prost(uint64, tag = "10")]
    Delivered(u64),
    /// The run begins with another run's history: its state as of there, encoded, and the branch.
    #[prost(message, tag = "11")]
    Fork(Fork),
    /// A request id is remembered.
    #[prost(string, tag = "12")]
    RequestId(String),
    /// Workflow task heartbeats go on since then; 0 for their end.
    #[prost(int64, tag = "13")]
    HeartbeatSince(i64),
    /// The buffered event at this place is taken back: its place in history is never given.
    #[prost(uint64, tag = "14")]
    Unbuffer(u64),
    /// The run was reset, and this run came of it.
    #[prost(string, tag = "15")]
    ResetTo(String),
    /// A policy decided about a tool call or another command, which is counted.
    #[prost(message, tag = "16")]
    Decision(Decision),
    /// The approval that a tool call or another command needs is now this one.
    #[prost(message, tag = "17")]
    Approval(ActivityApproval),
}

/// What a policy decided about a tool call or another command.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Decision {
    /// The event that scheduled or initiated it, 0 if there is none.
    #[prost(int64, tag = "1")]
    pub scheduled_event_id: i64,
    /// What was decided.
    #[prost(enumeration = "Verdict", tag = "2")]
    pub verdict: i32,
    /// Ids of the policies that decided.
    #[prost(string, repeated, tag = "3")]
    pub policies: Vec<String>,
    /// SHA-256 of the policies in force.
    #[prost(bytes = "vec", tag = "4")]
    pub policy_hash: Vec<u8>,
    /// Activity id; of others the workflow id of the child or the receiver. What is refused is gone after
    /// the record.
    #[prost(string, tag = "5")]
    pub activity_id: String,
    /// Activity type; of others the workflow type, or the signal's name.
    #[prost(string, tag = "6")]
    pub activity_type: String,
    /// What it was about.
    #[prost(enumeration = "CallKind", tag = "10")]
    pub kind: i32,
    /// Attempt of a local activity.
    #[prost(int32, tag = "11")]
    pub attempt: i32,
    /// Whether the session's type was attested to be resumable.
    #[prost(bool, tag = "12")]
    pub attested: bool,
}

/// What policies decide about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum CallKind {
    /// An activity.
    Tool = 0,
    /// The start of a child.
    Child = 1,
    /// A signal to another workflow.
    Signal = 2,
    /// A cancel request to another workflow.
    Cancel = 3,
    /// A local activity, which has run.
    Local = 4,
    /// Going on as a workflow of another type.
    ContinueAs = 5,
}

/// What a policy can decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Verdict {
    /// It may not go on.
    Deny = 0,
    /// It may go on.
    Allow = 1,
    /// It may go on once people approved.
    Approval = 2,
}

/// What people have to say about a tool call or another command, and have said.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ActivityApproval {
    /// The event that scheduled or initiated it.
    #[prost(int64, tag = "1")]
    pub scheduled_event_id: i64,
    /// Its approval.
    #[prost(message, optional, tag = "2")]
    pub approval: Option<Approval>,
    /// As [`Decision::activity_id`].
    #[prost(string, tag = "3")]
    pub activity_id: String,
    /// As [`Decision::activity_type`].
    #[prost(string, tag = "4")]
    pub activity_type: String,
    /// What it is about.
    #[prost(enumeration = "CallKind", tag = "10")]
    pub kind: i32,
}

/// Names a new run.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Begin {
    /// Id of the namespace.
    #[prost(string, tag = "1")]
    pub namespace_id: String,
    /// Workflow id.
    #[prost(string, tag = "2")]
    pub workflow_id: String,
    /// Run id.
    #[prost(string, tag = "3")]
    pub run_id: String,
    /// Request id of the start.
    #[prost(string, tag = "4")]
    pub request_id: String,
    /// Who started the session: whoever started the first run, or the parent's.
    #[prost(message, optional, tag = "5")]
    pub initiator: Option<crate::proto::common::Principal>,
    /// The agents above it, the nearest first.
    #[prost(string, repeated, tag = "6")]
    pub agents: Vec<String>,
}

/// Buffered events with their ids, in their final order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Flush {
    /// Encoded events.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub events: Vec<Bytes>,
}

/// The state between two workflow tasks.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NoWorkflowTask {
    /// Attempt that the next one will be.
    #[prost(int32, tag = "1")]
    pub next_attempt: i32,
    /// When it may be scheduled, 0 for any time.
    #[prost(int64, tag = "2")]
    pub retry_at: i64,
}

/// An activity's attempt.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ActivityAttempt {
    /// The activity.
    #[prost(int64, tag = "1")]
    pub scheduled_event_id: i64,
    /// Its attempt.
    #[prost(message, optional, tag = "2")]
    pub attempt: Option<Attempt>,
}

/// The beginning of a run that was reset from another.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Fork {
    /// The new run's encoded state at the point of the fork.
    #[prost(bytes = "vec", tag = "1")]
    pub state: Vec<u8>,
}

impl Transition {
    /// The journal row's bytes.
    pub fn encode_row(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

impl From<StepKind> for Step {
    fn from(kind: StepKind) -> Self {
        Self { kind: Some(kind) }
    }
}
