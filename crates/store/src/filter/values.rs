//! The values that filters compare with: numbers, times, durations and statuses.

use chrono::{DateTime, SecondsFormat, Utc};

use super::FilterError;

/// A value of an attribute's type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Int(i64),
    Real(f64),
    Bool(bool),
    Time {
        /// Since the epoch, for attributes that are stored as numbers; what is beyond the range
        /// of a number compares as its nearest end.
        nanoseconds: i64,
        /// In the fixed width in which search attributes are stored.
        text: String,
    },
}

/// `temporal.api.enums.v1.WorkflowExecutionStatus`: names by number.
const STATUSES: &[(&str, &str)] = &[
    ("Unspecified", "WORKFLOW_EXECUTION_STATUS_UNSPECIFIED"),
    ("Running", "WORKFLOW_EXECUTION_STATUS_RUNNING"),
    ("Completed", "WORKFLOW_EXECUTION_STATUS_COMPLETED"),
    ("Failed", "WORKFLOW_EXECUTION_STATUS_FAILED"),
    ("Canceled", "WORKFLOW_EXECUTION_STATUS_CANCELED"),
    ("Terminated", "WORKFLOW_EXECUTION_STATUS_TERMINATED"),
    (
        "ContinuedAsNew",
        "WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW",
    ),
    ("TimedOut", "WORKFLOW_EXECUTION_STATUS_TIMED_OUT"),
    ("Paused", "WORKFLOW_EXECUTION_STATUS_PAUSED"),
];

/// A number as it was written: whole if it can be.
pub(super) fn number(written: &str) -> Result<Value, FilterError> {
    if let Ok(whole) = written.parse() {
        return Ok(Value::Int(whole));
    }
    match written.parse::<f64>() {
        Ok(real) if real.is_finite() => Ok(Value::Real(real)),
        _ => Err(FilterError::invalid(format!(
            "unable to parse value {written:?}"
        ))),
    }
}

/// The number of a status that is given by name or number.
pub(super) fn status(value: &Value) -> Result<Value, FilterError> {
    let found = match value {
        Value::Int(number) => usize::try_from(*number)
            .ok()
            .filter(|index| *index < STATUSES.len()),
        Value::Text(name) => STATUSES
            .iter()
            .position(|(short, long)| name == short || name == long),
        _ => return Err(unexpected_type(value, "ExecutionStatus")),
    };
    match found {
        Some(index) => Ok(Value::Int(index as i64)),
        None => Err(FilterError::invalid(format!(
            "invalid ExecutionStatus value {}",
            match value {
                Value::Text(name) => format!("'{name}'"),
                other => go_syntax(other),
            }
        ))),
    }
}

/// A duration in nanoseconds: a number, `2h45m`, `1.5d` or `hh:mm:ss`.
pub(super) fn duration(value: &Value) -> Result<Value, FilterError> {
    match value {
        Value::Int(_) => Ok(value.clone()),
        Value::Text(text) => match duration_nanoseconds(text) {
            Some(nanoseconds) => Ok(Value::Int(nanoseconds)),
            None => Err(FilterError::invalid(format!(
                "invalid duration value for search attribute ExecutionDuration: {text}"
            ))),
        },
        _ => Err(unexpected_type(value, "ExecutionDuration")),
    }
}

fn unexpected_type(value: &Value, attribute: &str) -> FilterError {
    FilterError::invalid(format!(
        "unexpected value type {} for search attribute {attribute}",
        go_type(value)
    ))
}

/// A point in time: nanoseconds since the epoch or RFC 3339.
pub(super) fn time(value: &Value) -> Option<Result<Value, FilterError>> {
    let time = match value {
        Value::Int(nanoseconds) => DateTime::from_timestamp_nanos(*nanoseconds),
        Value::Text(text) => match parse_time(text) {
            Some(time) => time,
            None => {
                let message = format!("unable to parse datetime '{text}'");
                return Some(Err(FilterError::invalid(message)));
            }
        },
        _ => return None,
    };
    let beyond = if time.timestamp() < 0 {
        i64::MIN
    } else {
        // The largest number stands for runs that are still open.
        i64::MAX - 1
    };
    Some(Ok(Value::Time {
        nanoseconds: time.timestamp_nanos_opt().unwrap_or(beyond),
        text: time.to_rfc3339_opts(SecondsFormat::Nanos, true),
    }))
}

fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    // chrono would also take a space or small letters.
    let separator = text.as_bytes().get(10);
    if separator != Some(&b'T') || text.ends_with('z') {
        return None;
    }
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    Some(time.with_timezone(&Utc))
}

fn duration_nanoseconds(text: &str) -> Option<i64> {
    if let Ok(nanoseconds) = text.parse() {
        return Some(nanoseconds);
    }
    units(text).or_else(|| clock(text))
}

/// `-1.5h`, `2h45m`, `300ms`; `d` is 24 hours.
fn units(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_f64;
    let mut exact = 0_i64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, after) = rest.split_at(digits);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60 * 1_000_000_000,
            "h" => 3_600 * 1_000_000_000,
            "d" => 24 * 3_600 * 1_000_000_000,
            _ => return None,
        };
        match amount.parse::<i64>() {
            Ok(whole) => exact = exact.checked_add(whole.checked_mul(scale)?)?,
            Err(_) => total += amount.parse::<f64>().ok()? * scale as f64,
        }
        rest = after;
    }
    if total.abs() >= i64::MAX as f64 {
        return None;
    }
    let sum = exact.checked_add(total.round() as i64)?;
    Some(if negative { -sum } else { sum })
}

/// `hh:mm:ss`.
fn clock(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let mut part = |limit: i64| {
        let part = parts.next()?;
        let number: i64 = part.parse().ok()?;
        let well_formed = part.len() >= 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        (well_formed && number < limit).then_some(number)
    };
    let (hours, minutes, seconds) = (part(i64::MAX)?, part(60)?, part(60)?);
    if parts.next().is_some() {
        return None;
    }
    hours
        .checked_mul(3_600)?
        .checked_add(minutes * 60 + seconds)?
        .checked_mul(1_000_000_000)
}

/// A value as Temporal's messages show it.
pub(super) fn go_syntax(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Int(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Time { text, .. } => text.clone(),
    }
}

/// The name of a value's type in Temporal's messages.
pub(super) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Text(_) | Value::Time { .. } => "string",
        Value::Int(_) => "int64",
        Value::Real(_) => "float64",
        Value::Bool(_) => "bool",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let second = 1_000_000_000;
        for (text, expected) in [
            ("5m", Some(300 * second)),
            ("300ms", Some(300_000_000)),
            ("-1.5h", Some(-5_400 * second)),
            ("2h45m", Some(9_900 * second)),
            ("1.5d", Some(129_600 * second)),
            ("1d2h", Some(93_600 * second)),
            ("01:02:03", Some(3_723 * second)),
            ("100:00:00", Some(360_000 * second)),
            ("1000", Some(1000)),
            ("-7", Some(-7)),
            ("7µs", Some(7_000)),
            ("0", Some(0)),
            ("1:2:3", None),
            ("01:60:00", None),
            ("01:02", None),
            ("5", Some(5)),
            ("5 m", None),
            ("m", None),
            ("", None),
            ("-", None),
            (".h", None),
            ("abc", None),
            ("99999999999h", None),
        ] {
            assert_eq!(duration_nanoseconds(text), expected, "{text}");
        }
    }

    #[test]
    fn times_are_utc_in_a_fixed_width() {
        let parse = |text: &str| match time(&Value::Text(text.to_owned())) {
            Some(Ok(Value::Time { nanoseconds, text })) => Some((nanoseconds, text)),
            _ => None,
        };
        assert_eq!(
            parse("2020-01-01T02:00:00.5+02:00"),
            Some((
                1_577_836_800_500_000_000,
                "2020-01-01T00:00:00.500000000Z".to_owned()
            ))
        );
        assert_eq!(
            parse("9999-12-31T23:59:59Z"),
            Some((i64::MAX - 1, "9999-12-31T23:59:59.000000000Z".to_owned()))
        );
        assert_eq!(
            parse("0001-01-01T00:00:00Z"),
            Some((i64::MIN, "0001-01-01T00:00:00.000000000Z".to_owned()))
        );
        for wrong in [
            "2020",
            "2020-01-01",
            "2020-01-01 00:00:00Z",
            "2020-01-01T00:00:00",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
