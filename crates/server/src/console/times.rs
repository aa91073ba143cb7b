//! Times and spans for people. All are nanoseconds; the page's own script turns times into local ones.

use chrono::DateTime;
use maud::{Markup, html};
use prost_types::{Duration, Timestamp};
use steadfast_engine::time::time as nanos_of;

const SECOND: i64 = 1_000_000_000;

/// A moment, in UTC.
pub fn moment(nanos: i64) -> Markup {
    if nanos == 0 {
        return html! {};
    }
    let time = DateTime::from_timestamp_nanos(nanos);
    html! {
        time datetime=(time.format("%Y-%m-%dT%H:%M:%S%.3fZ")) { (time.format("%Y-%m-%d %H:%M:%S")) }
    }
}

/// How long ago something was; the moment is in its title.
pub fn ago(nanos: i64, now: i64) -> Markup {
    if nanos == 0 {
        return html! {};
    }
    let time = DateTime::from_timestamp_nanos(nanos);
    let text = match now.saturating_sub(nanos) {
        past if past >= 0 => format!("{} ago", rough(past)),
        future => format!("in {}", span(whole(-future))),
    };
    html! {
        time.ago datetime=(time.format("%Y-%m-%dT%H:%M:%S%.3fZ")) title=(time.format("%Y-%m-%d %H:%M:%S UTC")) { (text) }
    }
}

/// In whole seconds: what is to come is not known better.
fn whole(nanos: i64) -> i64 {
    nanos / SECOND * SECOND
}

/// A message's time; 0 for none.
pub fn nanos(time: &Option<Timestamp>) -> i64 {
    time.as_ref().map_or(0, nanos_of)
}

/// A message's span; 0 for none.
pub fn span_of(span: &Option<Duration>) -> i64 {
    let Some(of) = span else { return 0 };
    of.seconds
        .saturating_mul(SECOND)
        .saturating_add(of.nanos.into())
}

/// A span in its two largest units.
pub fn span(nanos: i64) -> String {
    let nanos = nanos.max(0);
    let seconds = nanos / SECOND;
    let two = |large: i64, unit: &str, small: i64, smaller: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {smaller}"),
    };
    match seconds {
        0 => format!("{} ms", nanos / 1_000_000),
        1..10 if nanos % SECOND != 0 => format!("{:.2} s", nanos as f64 / 1e9),
        1..10 => format!("{seconds} s"),
        10..60 => format!("{:.1} s", nanos as f64 / 1e9),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// A span in its largest unit.
pub fn rough(nanos: i64) -> String {
    let seconds = nanos.max(0) / SECOND;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_their_two_largest_units() {
        for (nanos, shown) in [
            (-1, "0 ms"),
            (1_500, "0 ms"),
            (6 * SECOND, "6 s"),
            (250_000_000, "250 ms"),
            (1_500_000_000, "1.50 s"),
            (59_900_000_000, "59.9 s"),
            (60 * SECOND, "1 min"),
            (3_725 * SECOND, "1 h 2 min"),
            (90_000 * SECOND, "1 d 1 h"),
        ] {
            assert_eq!(span(nanos), shown);
        }
        assert_eq!(rough(7_300 * SECOND), "2 h");
    }

    #[test]
    fn what_is_to_come_is_not_ago() {
        let shown = ago(10 * SECOND, 4 * SECOND).into_string();
        assert!(shown.contains(">in 6 s<"), "{shown}");
        assert!(ago(0, 4).into_string().is_empty());
    }
}
