//! Times and durations as plain nanoseconds, and their protobuf forms.

use prost_types::{Duration, Timestamp};

/// A point in time: nanoseconds since the Unix epoch.
pub type Time = i64;

/// A span of time in nanoseconds, never negative.
pub type Span = i64;

/// One second.
pub const SECOND: Span = 1_000_000_000;
/// One millisecond.
pub const MILLISECOND: Span = 1_000_000;

/// The protobuf form of a time.
pub fn timestamp(time: Time) -> Timestamp {
    Timestamp {
        seconds: time.div_euclid(SECOND),
        nanos: time.rem_euclid(SECOND) as i32,
    }
}

/// A protobuf timestamp as a time; saturates outside the years 1677 to 2262.
pub fn time(timestamp: &Timestamp) -> Time {
    timestamp
        .seconds
        .saturating_mul(SECOND)
        .saturating_add(i64::from(timestamp.nanos))
}

/// The protobuf form of a span.
pub fn duration(span: Span) -> Duration {
    Duration {
        seconds: span / SECOND,
        nanos: (span % SECOND) as i32,
    }
}

/// A protobuf duration as a span: 0 for none, saturating, negative values kept so that validation
/// can see them.
pub fn span(duration: &Option<Duration>) -> Span {
    duration.as_ref().map_or(0, |duration| {
        duration
            .seconds
            .saturating_mul(SECOND)
            .saturating_add(i64::from(duration.nanos))
    })
}

/// A span, none for 0.
pub fn some_duration(span: Span) -> Option<Duration> {
    (span > 0).then(|| duration(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_round_trip_before_and_after_the_epoch() {
        for value in [0, 1, -1, SECOND, -SECOND - 1, 1_700_000_000_123_456_789] {
            assert_eq!(time(&timestamp(value)), value);
        }
    }

    #[test]
    fn huge_durations_saturate() {
        let huge = Some(Duration {
            seconds: i64::MAX,
            nanos: 1,
        });
        assert_eq!(span(&huge), i64::MAX);
        assert_eq!(span(&None), 0);
    }
}
