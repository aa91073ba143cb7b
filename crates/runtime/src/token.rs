//! Tokens that clients carry: opaque to them, checked when they come back.

use prost::Message;
use steadfast_engine::activity::ActivityClaim;
use steadfast_engine::workflow_task::TaskClaim;

use crate::aggregate::WorkflowKey;
use crate::error::{Result, RuntimeError};

/// The token of a workflow or activity task.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskToken {
    /// Id of the namespace.
    #[prost(string, tag = "1")]
    pub namespace_id: String,
    /// Workflow id.
    #[prost(string, tag = "2")]
    pub workflow_id: String,
    /// Run id.
    #[prost(string, tag = "3")]
    pub run_id: String,
    /// Scheduled event.
    #[prost(int64, tag = "4")]
    pub scheduled_event_id: i64,
    /// Started event, for workflow tasks.
    #[prost(int64, tag = "5")]
    pub started_event_id: i64,
    /// Attempt.
    #[prost(int32, tag = "6")]
    pub attempt: i32,
    /// Minted for this hand-out.
    #[prost(string, tag = "7")]
    pub request_id: String,
}

impl TaskToken {
    /// Reads a token that a client sends.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Err(RuntimeError::invalid("Task token not set on request."));
        }
        Self::decode(bytes)
            .ok()
            .filter(|token| !token.workflow_id.is_empty() && !token.run_id.is_empty())
            .ok_or_else(|| RuntimeError::invalid("Error deserializing task token."))
    }

    /// The workflow that it is about.
    pub fn key(&self) -> WorkflowKey {
        WorkflowKey::new(self.namespace_id.clone(), self.workflow_id.clone())
    }

    /// What it claims as a workflow task.
    pub fn task_claim(&self) -> TaskClaim {
        TaskClaim {
            scheduled_event_id: self.scheduled_event_id,
            started_event_id: self.started_event_id,
            attempt: self.attempt,
            request_id: self.request_id.clone(),
        }
    }

    /// What it claims as an activity.
    pub fn activity_claim(&self) -> ActivityClaim {
        ActivityClaim {
            scheduled_event_id: self.scheduled_event_id,
            attempt: self.attempt,
            request_id: self.request_id.clone(),
        }
    }
}

/// The token of a query task.
#[derive(Clone, PartialEq, prost::Message)]
pub struct QueryToken {
    /// The query.
    #[prost(string, tag = "20")]
    pub query_id: String,
    /// Id of the namespace.
    #[prost(string, tag = "21")]
    pub namespace_id: String,
}

/// Where a page of history ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HistoryToken {
    /// The run, so that a call for the current one stays with it.
    #[prost(string, tag = "1")]
    pub run_id: String,
    /// The next event to give.
    #[prost(int64, tag = "2")]
    pub next_event_id: i64,
    /// The last event to give, 0 for all there are.
    #[prost(int64, tag = "3")]
    pub last_event_id: i64,
    /// Whether events that history does not have yet follow, for a worker's workflow task.
    #[prost(bool, tag = "4")]
    pub with_task: bool,
    /// The seal of a read that has its entry.
    #[prost(bytes = "vec", tag = "5")]
    pub noted: Vec<u8>,
}

/// Where a page of a list ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListToken {
    /// The store's cursor.
    #[prost(bytes = "vec", tag = "1")]
    pub cursor: Vec<u8>,
    /// The seal of a read that has its entry.
    #[prost(bytes = "vec", tag = "2")]
    pub noted: Vec<u8>,
}

impl ListToken {
    /// Reads a token that a client sends; none for an empty one.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        match Self::decode(bytes) {
            Ok(token) if !token.cursor.is_empty() => Ok(Some(token)),
            _ => Err(RuntimeError::invalid("Invalid NextPageToken.")),
        }
    }
}

impl HistoryToken {
    /// Reads a token that a client sends; none for an empty one.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        match Self::decode(bytes) {
            Ok(token) if !token.run_id.is_empty() => Ok(Some(token)),
            _ => Err(RuntimeError::invalid("Invalid NextPageToken.")),
        }
    }
}
