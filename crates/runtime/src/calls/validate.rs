//! Checks of requests that need no state.

use prost_types::Duration;
use steadfast_engine::proto::common::RetryPolicy;
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::time::span;

use crate::error::{Result, RuntimeError};

/// A run id is empty or a UUID.
pub fn run_id(run_id: &str) -> Result<()> {
    match run_id.is_empty() || uuid::Uuid::parse_str(run_id).is_ok() {
        true => Ok(()),
        false => Err(RuntimeError::invalid("Invalid RunId.")),
    }
}

/// Refuses what is too long.
pub fn length(what: &str, value: &str, limit: usize) -> Result<()> {
    match value.len() <= limit {
        true => Ok(()),
        false => Err(RuntimeError::invalid(format!(
            "{what} length exceeds limit."
        ))),
    }
}

/// Refuses a name that is missing or too long.
pub fn name(what: &str, value: &str, limit: usize) -> Result<()> {
    if value.is_empty() {
        return Err(RuntimeError::invalid(format!(
            "{what} is not set on request."
        )));
    }
    length(what, value, limit)
}

/// The name of a request's task queue.
pub fn task_queue(queue: &Option<TaskQueue>, limit: usize) -> Result<&str> {
    let queue = queue.as_ref().map_or("", |queue| queue.name.as_str());
    if queue.is_empty() {
        return Err(RuntimeError::invalid("TaskQueue is not set on request."));
    }
    length("TaskQueue", queue, limit)?;
    if queue.starts_with("/_sys/") {
        return Err(RuntimeError::invalid(format!(
            "Task queue name {queue} is reserved."
        )));
    }
    Ok(queue)
}

/// Refuses a negative duration.
pub fn duration(what: &str, value: &Option<Duration>) -> Result<()> {
    match span(value) >= 0 {
        true => Ok(()),
        false => Err(RuntimeError::invalid(format!("Invalid {what}."))),
    }
}

/// Refuses a retry policy that makes no sense.
pub fn retry_policy(policy: &Option<RetryPolicy>) -> Result<()> {
    match policy {
        Some(policy) => {
            steadfast_engine::backoff::validate_retry_policy(policy).map_err(RuntimeError::invalid)
        }
        None => Ok(()),
    }
}

/// Refuses a message beyond the limit for payloads.
pub fn size(what: &str, bytes: usize, limit: usize) -> Result<()> {
    match bytes <= limit {
        true => Ok(()),
        false => Err(RuntimeError::invalid(format!(
            "{what} exceeds size limit: {bytes} bytes of at most {limit}."
        ))),
    }
}
