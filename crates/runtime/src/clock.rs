//! The two things that the engine may not have: a clock and randomness.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use steadfast_engine::{Ids, Time};

/// How far time was skipped in this process. Always zero but where somebody tries out what happens later.
static SKIPPED: AtomicI64 = AtomicI64::new(0);

/// Nanoseconds since the Unix epoch by the system's clock, and what was skipped.
pub fn now() -> Time {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        });
    now.saturating_add(SKIPPED.load(Ordering::Relaxed))
}

/// Skips time, for all of this process.
pub(crate) fn skip(nanos: Time) {
    SKIPPED.fetch_add(nanos.max(0), Ordering::Relaxed);
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
