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

/// A secret of 32 random bytes.
pub fn secret() -> bytes::Bytes {
    let (a, b) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    bytes::Bytes::from([a.into_bytes(), b.into_bytes()].concat())
}

/// Random ids.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    fn uuid(&mut self) -> String {
        uuid::Uuid::new_v4().to_string()
    }
}
