//! Failures that the server itself makes.

use crate::proto::common::Payloads;
use crate::proto::enums::TimeoutType;
use crate::proto::failure::{Failure, ServerFailureInfo, TimeoutFailureInfo, failure::FailureInfo};

/// Name of the server as the source of a failure.
pub const SOURCE: &str = "Server";

/// A failure of the server's own making.
pub fn server(message: impl Into<String>, non_retryable: bool) -> Failure {
    Failure {
        message: message.into(),
        source: SOURCE.into(),
        failure_info: Some(FailureInfo::ServerFailureInfo(ServerFailureInfo {
            non_retryable,
        })),
        ..Failure::default()
    }
}

/// A time-out.
pub fn timeout(
    message: impl Into<String>,
    kind: TimeoutType,
    details: Option<Payloads>,
) -> Failure {
    Failure {
        message: message.into(),
        source: SOURCE.into(),
        failure_info: Some(FailureInfo::TimeoutFailureInfo(TimeoutFailureInfo {
            timeout_type: kind as i32,
            last_heartbeat_details: details,
        })),
        ..Failure::default()
    }
}

/// The name of a time-out in messages.
pub fn timeout_name(kind: TimeoutType) -> &'static str {
    match kind {
        TimeoutType::StartToClose => "StartToClose",
        TimeoutType::ScheduleToStart => "ScheduleToStart",
        TimeoutType::ScheduleToClose => "ScheduleToClose",
        TimeoutType::Heartbeat => "Heartbeat",
        TimeoutType::Unspecified => "Unspecified",
    }
}
