//! The two things that the engine may not have: a clock and randomness.

use std::time::{SystemTime, UNIX_EPOCH};

use steadfast_engine::{Ids, Time};

/// Nanoseconds since the Unix epoch by the system's clock.
pub fn now() -> Time {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        })
}

/// Random ids.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    fn uuid(&mut self) -> String {
        uuid::Uuid::new_v4().to_string()
    }
}
