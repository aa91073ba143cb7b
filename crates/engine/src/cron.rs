//! Cron schedules: five fields, the `@…` names, `@every` with a duration, each with an optional time
//! zone in front. Fields, names and corner cases are those of the parser that Temporal users know
//! (robfig/cron's standard one).

use chrono::{
    DateTime, Datelike, Days, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike,
};
use chrono_tz::Tz;

use crate::time::{MILLISECOND, SECOND, Span, Time};

/// Whether there is such a schedule, and a time in it. An empty one is valid: it means none.
pub fn validate(schedule: &str) -> Result<(), String> {
    if schedule.is_empty() {
        return Ok(());
    }
    // Whether there is a time at all does not depend on where the search begins, so any time does.
    const SOME_TIME: Time = 1_750_000_000 * SECOND;
    match Schedule::parse(schedule)?.next(SOME_TIME) {
        Some(_) => Ok(()),
        None => Err(format!(
            "cron schedule {schedule:?} has no time that ever comes"
        )),
    }
}

/// How long after `close_time` the run comes that follows one of `start_time`: the first time in
/// the schedule that is after `start_time` and not before `close_time`, rounded up to whole seconds.
/// None without a (valid) schedule.
pub fn next_after(schedule: &str, start_time: Time, close_time: Time) -> Option<Span> {
    if schedule.is_empty() {
        return None;
    }
    let schedule = Schedule::parse(schedule).ok()?;
    let next = if close_time < start_time {
        start_time
    } else {
        schedule.next_not_before(start_time, close_time)?
    };
    let backoff = next.saturating_sub(close_time);
    Some(backoff.saturating_add(SECOND - 1) / SECOND * SECOND)
}

/// A parsed schedule.
#[derive(Clone, Debug, PartialEq)]
enum Schedule {
    /// At fixed times.
    Fields(Fields),
    /// Every so many seconds, counted from the last time.
    Every(i64),
}

#[derive(Clone, Debug, PartialEq)]
struct Fields {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
    zone: Tz,
}

/// The values that a field allows, one bit each.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Field {
    bits: u64,
    /// Written as `*`: the other one of day and weekday decides alone.
    star: bool,
}

/// What a field can hold.
struct Bounds {
    name: &'static str,
    min: u32,
    max: u32,
    /// Names of the values from `min` on.
    names: &'static [&'static str],
}

const MINUTE: Bounds = Bounds {
    name: "minute",
    min: 0,
    max: 59,
    names: &[],
};
const HOUR: Bounds = Bounds {
    name: "hour",
    min: 0,
    max: 23,
    names: &[],
};
const DAY: Bounds = Bounds {
    name: "day of month",
    min: 1,
    max: 31,
    names: &[],
};
const MONTH: Bounds = Bounds {
    name: "month",
    min: 1,
    max: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAY: Bounds = Bounds {
    name: "day of week",
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Schedule {
    fn parse(text: &str) -> Result<Self, String> {
        let (zone, text) = split_zone(text)?;
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => text,
        };
        if let Some(every) = text.strip_prefix("@every ") {
            let every = parse_duration(every)
                .ok_or_else(|| format!("cron schedule: {every:?} is not a duration"))?;
            return Ok(Self::Every((every / SECOND).max(1)));
        }
        if text.starts_with('@') {
            return Err(format!("cron schedule: {text:?} is not known"));
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!(
                "cron schedule: 5 fields expected, there are {}",
                fields.len()
            ));
        };
        Ok(Self::Fields(Fields {
            minute: Field::parse(minute, &MINUTE)?,
            hour: Field::parse(hour, &HOUR)?,
            day: Field::parse(day, &DAY)?,
            month: Field::parse(month, &MONTH)?,
            weekday: Field::parse(weekday, &WEEKDAY)?,
            zone,
        }))
    }

    /// The first time after `time`.
    fn next(&self, time: Time) -> Option<Time> {
        let second = time.div_euclid(SECOND);
        let next = match self {
            Self::Fields(fields) => fields.next(second)?,
            Self::Every(seconds) => second.checked_add(*seconds)?,
        };
        next.checked_mul(SECOND)
    }

    /// The first time after `after` that is not before `earliest`.
    fn next_not_before(&self, after: Time, earliest: Time) -> Option<Time> {
        match self {
            Self::Fields(_) => self.next(after.max(earliest.saturating_sub(1))),
            Self::Every(seconds) => {
                let first = self.next(after)?;
                let missing = earliest.saturating_sub(first).max(0);
                let step = seconds.checked_mul(SECOND)?;
                let steps = missing.checked_add(step - 1)? / step;
                first.checked_add(steps.checked_mul(step)?)
            }
        }
    }
}

impl Field {
    fn parse(text: &str, bounds: &Bounds) -> Result<Self, String> {
        let mut field = Self {
            bits: 0,
            star: false,
        };
        for range in text.split(',').filter(|range| !range.is_empty()) {
            field.add_range(range, bounds).map_err(|message| {
                format!("cron schedule: {} {range:?}: {message}", bounds.name)
            })?;
        }
        if field.bits == 0 {
            return Err(format!(
                "cron schedule: {} {text:?} has no value",
                bounds.name
            ));
        }
        Ok(field)
    }

    /// Adds `*`, `n`, `n-m`, each with an optional `/step`.
    fn add_range(&mut self, range: &str, bounds: &Bounds) -> Result<(), &'static str> {
        let (values, step) = match range.split_once('/') {
            None => (range, None),
            Some((_, step)) if step.contains('/') => return Err("too many slashes"),
            Some((values, step)) => (values, Some(number(step)?)),
        };
        let (low, high) = match values.split_once('-') {
            None => (values, None),
            Some((low, high)) => (low, Some(high)),
        };
        let star = low == "*" || low == "?";
        let (start, end) = if star {
            (bounds.min, bounds.max)
        } else {
            let start = bounds.value(low)?;
            let end = match high {
                Some(high) if high.contains('-') => return Err("too many hyphens"),
                Some(high) => bounds.value(high)?,
                None if step.is_some() => bounds.max,
                None => start,
            };
            (start, end)
        };
        if start < bounds.min || end > bounds.max {
            return Err("out of range");
        }
        if start > end {
            return Err("the beginning is after the end");
        }
        let step = step.unwrap_or(1);
        if step == 0 {
            return Err("a step has to be positive");
        }
        self.star |= star && step == 1;
        for value in (start..=end).step_by(step as usize) {
            self.bits |= 1 << value;
        }
        Ok(())
    }

    fn allows(&self, value: u32) -> bool {
        self.bits & (1 << value) != 0
    }
}

impl Bounds {
    fn value(&self, text: &str) -> Result<u32, &'static str> {
        match self
            .names
            .iter()
            .position(|name| name.eq_ignore_ascii_case(text))
        {
            Some(index) => Ok(self.min + index as u32),
            None => number(text),
        }
    }
}

fn number(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "not a number")
}

/// How far ahead a time is looked for, in years: farther than any leap day, so what is not found
/// does not exist.
const YEARS_AHEAD: i32 = 5;

impl Fields {
    /// The first second after `second` that the fields allow. Steps are of real time, not of clock
    /// time, so an hour that is skipped when summer begins has no runs, and one that is repeated
    /// when it ends has them twice.
    fn next(&self, second: i64) -> Option<i64> {
        let mut at = second.checked_add(1)?;
        let last_year = self.local(at)?.year() + YEARS_AHEAD;
        // What is looked for begins at a whole month, day, hour or minute, except where it is in
        // the very month, day, hour or minute in which the search begins.
        loop {
            let local = self.local(at)?;
            if local.year() > last_year {
                return None;
            }
            if !self.month.allows(local.month()) {
                at = self.utc(first_of_next_month(local.date())?)?.max(at + 1);
            } else if !self.allows_day(local.date()) {
                at = self
                    .utc(local.date().checked_add_days(Days::new(1))?)?
                    .max(at + 1);
            } else if !self.hour.allows(local.hour()) {
                at += 3600 - i64::from(local.minute() * 60 + local.second());
            } else if !self.minute.allows(local.minute()) || local.second() != 0 {
                at += 60 - i64::from(local.second());
            } else {
                return Some(at);
            }
        }
    }

    /// Day of month and weekday: either is enough if both are restricted.
    fn allows_day(&self, date: NaiveDate) -> bool {
        let day = self.day.allows(date.day());
        let weekday = self.weekday.allows(date.weekday().num_days_from_sunday());
        if self.day.star || self.weekday.star {
            day && weekday
        } else {
            day || weekday
        }
    }

    fn local(&self, second: i64) -> Option<NaiveDateTime> {
        let utc = DateTime::from_timestamp(second, 0)?.naive_utc();
        utc.checked_add_offset(self.zone.offset_from_utc_datetime(&utc).fix())
    }

    /// When a day begins: at midnight, or at the next half hour that the clock does not skip.
    fn utc(&self, date: NaiveDate) -> Option<i64> {
        let midnight = date.and_hms_opt(0, 0, 0)?;
        // The longest gap there ever was is a whole day.
        (0..=48)
            .map(|half_hours| midnight + TimeDelta::minutes(30 * half_hours))
            .find_map(|local| self.zone.from_local_datetime(&local).earliest())
            .map(|begin| begin.timestamp())
    }
}

fn first_of_next_month(date: NaiveDate) -> Option<NaiveDate> {
    match date.month() {
        12 => NaiveDate::from_ymd_opt(date.year() + 1, 1, 1),
        month => NaiveDate::from_ymd_opt(date.year(), month + 1, 1),
    }
}

/// Splits `TZ=…` or `CRON_TZ=…` off; UTC without.
fn split_zone(text: &str) -> Result<(Tz, &str), String> {
    let Some(rest) = text
        .strip_prefix("TZ=")
        .or_else(|| text.strip_prefix("CRON_TZ="))
    else {
        return Ok((Tz::UTC, text));
    };
    let (name, rest) = rest
        .split_once(' ')
        .ok_or_else(|| format!("cron schedule {text:?} is only a time zone"))?;
    let zone = match name {
        "" | "Local" => Tz::UTC,
        name => name
            .parse()
            .map_err(|_| format!("cron schedule: there is no time zone {name:?}"))?,
    };
    Ok((zone, rest.trim()))
}

/// A duration as Go writes it: `1h30m`, `1.5h`, `90s`, `-1m`.
fn parse_duration(text: &str) -> Option<Span> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: Span = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1000,
            "ms" => MILLISECOND,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            _ => return None,
        };
        total = total.checked_add(scaled(number, unit)?)?;
        rest = after;
    }
    Some(if negative { -total } else { total })
}

/// A decimal number of units.
fn scaled(number: &str, unit: Span) -> Option<Span> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mut value = match whole {
        "" => 0,
        whole => whole.parse::<Span>().ok()?.checked_mul(unit)?,
    };
    let mut weight = unit;
    for digit in fraction.bytes() {
        weight /= 10;
        value = value.checked_add(weight.checked_mul(Span::from(digit - b'0'))?)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        let text = if text.contains('T') {
            text.to_owned()
        } else {
            format!("{text}T00:00:00Z")
        };
        DateTime::parse_from_rfc3339(&text)
            .expect("a time of the table")
            .timestamp_nanos_opt()
            .expect("in range")
    }

    fn next(schedule: &str, after: &str) -> Option<String> {
        let next = Schedule::parse(schedule)
            .expect("a valid schedule")
            .next(at(after))?;
        Some(
            DateTime::from_timestamp_nanos(next).to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        )
    }

    #[test]
    fn next_times() {
        // 2024-01-01 is a Monday.
        let table = [
            // Simple steps.
            ("* * * * *", "2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z"),
            (
                "* * * * *",
                "2024-01-01T00:00:59.9Z",
                "2024-01-01T00:01:00Z",
            ),
            (
                "*/15 * * * *",
                "2024-01-01T00:15:00Z",
                "2024-01-01T00:30:00Z",
            ),
            (
                "*/15 * * * *",
                "2024-01-01T00:45:01Z",
                "2024-01-01T01:00:00Z",
            ),
            (
                "20-35/15 * * * *",
                "2024-01-01T00:21:00Z",
                "2024-01-01T00:35:00Z",
            ),
            (
                "20-35/15 * * * *",
                "2024-01-01T00:35:00Z",
                "2024-01-01T01:20:00Z",
            ),
            // "n/step" goes up to the end.
            (
                "20/15 * * * *",
                "2024-01-01T00:35:00Z",
                "2024-01-01T00:50:00Z",
            ),
            (
                "0 9-17 * * *",
                "2024-01-01T17:00:00Z",
                "2024-01-02T09:00:00Z",
            ),
            (
                "5,10,,15 3 * * *",
                "2024-01-01T03:10:00Z",
                "2024-01-01T03:15:00Z",
            ),
            // Wraps over hour, day, month and year.
            (
                "59 23 31 12 *",
                "2024-12-31T23:59:00Z",
                "2025-12-31T23:59:00Z",
            ),
            ("0 0 1 * *", "2024-12-01T00:00:00Z", "2025-01-01T00:00:00Z"),
            ("0 0 31 * *", "2024-01-31T00:00:00Z", "2024-03-31T00:00:00Z"),
            ("0 0 29 2 *", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"),
            // Names, in any case.
            (
                "0 0 * FEB Mon",
                "2024-01-01T00:00:00Z",
                "2024-02-05T00:00:00Z",
            ),
            (
                "0 0 * jun-aug sat,sun",
                "2024-01-01T00:00:00Z",
                "2024-06-01T00:00:00Z",
            ),
            // Day and weekday: either is enough, unless one is a star.
            (
                "0 0 1,15 * sun",
                "2024-01-01T00:00:00Z",
                "2024-01-07T00:00:00Z",
            ),
            (
                "0 0 1,15 * sun",
                "2024-01-14T00:00:00Z",
                "2024-01-15T00:00:00Z",
            ),
            (
                "0 0 1,15 * *",
                "2024-01-01T00:00:00Z",
                "2024-01-15T00:00:00Z",
            ),
            (
                "0 0 * * sun",
                "2024-01-07T00:00:00Z",
                "2024-01-14T00:00:00Z",
            ),
            (
                "0 0 ? * sun",
                "2024-01-07T00:00:00Z",
                "2024-01-14T00:00:00Z",
            ),
            // A star with a step is a restriction.
            (
                "0 0 */10 * sun",
                "2024-01-01T00:00:00Z",
                "2024-01-07T00:00:00Z",
            ),
            (
                "0 0 */10 * sun",
                "2024-01-07T00:00:00Z",
                "2024-01-11T00:00:00Z",
            ),
            (
                "0 0 */1 * sun",
                "2024-01-01T00:00:00Z",
                "2024-01-07T00:00:00Z",
            ),
            // Names of schedules.
            ("@yearly", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
            ("@annually", "2024-05-05T00:00:00Z", "2025-01-01T00:00:00Z"),
            ("@monthly", "2024-05-05T00:00:00Z", "2024-06-01T00:00:00Z"),
            ("@weekly", "2024-01-01T00:00:00Z", "2024-01-07T00:00:00Z"),
            ("@daily", "2024-01-01T12:00:00Z", "2024-01-02T00:00:00Z"),
            ("@midnight", "2024-01-01T12:00:00Z", "2024-01-02T00:00:00Z"),
            ("@hourly", "2024-01-01T12:00:00Z", "2024-01-01T13:00:00Z"),
            // From the last time, not from the hour; fractions of seconds go.
            (
                "@every 90m",
                "2024-01-01T00:10:00.7Z",
                "2024-01-01T01:40:00Z",
            ),
            (
                "@every 1h30m10s",
                "2024-01-01T00:00:00Z",
                "2024-01-01T01:30:10Z",
            ),
            (
                "@every 1500ms",
                "2024-01-01T00:00:00Z",
                "2024-01-01T00:00:01Z",
            ),
            ("@every 5ms", "2024-01-01T00:00:00Z", "2024-01-01T00:00:01Z"),
            ("@every -5h", "2024-01-01T00:00:00Z", "2024-01-01T00:00:01Z"),
            (
                "@every 1.5h",
                "2024-01-01T00:00:00Z",
                "2024-01-01T01:30:00Z",
            ),
            // Time zones. India has no summer time and half an hour.
            (
                "TZ=Asia/Kolkata 0 9 * * *",
                "2024-01-01T00:00:00Z",
                "2024-01-01T03:30:00Z",
            ),
            (
                "CRON_TZ=Asia/Kolkata  0 9 * * *",
                "2024-01-01T03:30:00Z",
                "2024-01-02T03:30:00Z",
            ),
            (
                "CRON_TZ=Asia/Kolkata 0 * * * *",
                "2024-01-01T03:30:00Z",
                "2024-01-01T04:30:00Z",
            ),
            (
                "CRON_TZ=America/New_York @daily",
                "2024-01-01T12:00:00Z",
                "2024-01-02T05:00:00Z",
            ),
            (
                "TZ=Local 0 9 * * *",
                "2024-01-01T00:00:00Z",
                "2024-01-01T09:00:00Z",
            ),
            // Summer begins in New York on 2024-03-10: 02:00 to 03:00 is skipped.
            (
                "TZ=America/New_York 30 2 * * *",
                "2024-03-09T08:00:00Z",
                "2024-03-11T06:30:00Z",
            ),
            (
                "TZ=America/New_York 0 * * * *",
                "2024-03-10T06:00:00Z",
                "2024-03-10T07:00:00Z",
            ),
            (
                "TZ=America/New_York 0 3 * * *",
                "2024-03-10T06:00:00Z",
                "2024-03-10T07:00:00Z",
            ),
            // It ends on 2024-11-03: 01:00 to 02:00 comes twice.
            (
                "TZ=America/New_York 30 1 * * *",
                "2024-11-03T00:00:00Z",
                "2024-11-03T05:30:00Z",
            ),
            (
                "TZ=America/New_York 30 1 * * *",
                "2024-11-03T05:30:00Z",
                "2024-11-03T06:30:00Z",
            ),
            (
                "TZ=America/New_York 30 1 * * *",
                "2024-11-03T06:30:00Z",
                "2024-11-04T06:30:00Z",
            ),
            // Midnight is skipped in Beirut on 2024-03-31, so nothing at midnight runs.
            (
                "TZ=Asia/Beirut 0 0 * * *",
                "2024-03-30T00:00:00Z",
                "2024-03-31T21:00:00Z",
            ),
            (
                "TZ=Asia/Beirut 0 1 * * *",
                "2024-03-30T00:00:00Z",
                "2024-03-30T22:00:00Z",
            ),
        ];
        for (schedule, after, expected) in table {
            assert_eq!(
                next(schedule, after).as_deref(),
                Some(expected),
                "{schedule} after {after}"
            );
        }
    }

    #[test]
    fn backoffs() {
        let second = |n: i64| Some(n * SECOND);
        let table = [
            // Nothing missed: the next one.
            (
                "*/10 * * * *",
                "2024-01-01T00:00:00Z",
                "2024-01-01T00:03:00Z",
                second(420),
            ),
            // At a time of the schedule: this one.
            (
                "*/10 * * * *",
                "2024-01-01T00:00:00Z",
                "2024-01-01T00:10:00Z",
                second(0),
            ),
            (
                "*/10 * * * *",
                "2024-01-01T00:00:00Z",
                "2024-01-01T00:00:00Z",
                second(600),
            ),
            // Missed ones are skipped.
            (
                "*/10 * * * *",
                "2024-01-01T00:00:00Z",
                "2024-01-01T05:01:00Z",
                second(540),
            ),
            // Fractions are rounded up.
            (
                "*/10 * * * *",
                "2024-01-01T00:00:00Z",
                "2024-01-01T00:09:58.5Z",
                second(2),
            ),
            // A start that is still to come is the next time.
            (
                "*/10 * * * *",
                "2024-01-01T00:05:00Z",
                "2024-01-01T00:01:00Z",
                second(240),
            ),
            // Counted from the start, not from the close.
            (
                "@every 1h",
                "2024-01-01T00:20:00Z",
                "2024-01-01T00:50:00Z",
                second(1800),
            ),
            (
                "@every 1h",
                "2024-01-01T00:20:00Z",
                "2024-01-01T03:50:00Z",
                second(1800),
            ),
            (
                "@every 1h",
                "2024-01-01T00:20:00Z",
                "2024-01-01T03:20:00Z",
                second(0),
            ),
            (
                "@every 1s",
                "2004-01-01T00:00:00Z",
                "2024-01-01T00:00:00.2Z",
                second(1),
            ),
            ("", "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z", None),
            (
                "nonsense",
                "2024-01-01T00:00:00Z",
                "2024-01-01T00:00:00Z",
                None,
            ),
            (
                "0 0 30 2 *",
                "2024-01-01T00:00:00Z",
                "2024-01-01T00:00:00Z",
                None,
            ),
        ];
        for (schedule, start, close, expected) in table {
            assert_eq!(
                next_after(schedule, at(start), at(close)),
                expected,
                "{schedule} from {start} after {close}"
            );
        }
    }

    #[test]
    fn what_is_valid() {
        for schedule in [
            "",
            "* * * * *",
            "@every 1h",
            "@daily",
            "CRON_TZ=Europe/Paris 0 0 29 2 *",
        ] {
            assert_eq!(validate(schedule), Ok(()), "{schedule}");
        }
        let invalid = [
            " ",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            // Sunday is 0 only.
            "* * * * 7",
            "* * * * monday",
            "5-1 * * * *",
            "*/0 * * * *",
            "1/2/3 * * * *",
            "1-2-3 * * * *",
            "-1 * * * *",
            "x * * * *",
            "L * * * *",
            ", * * * *",
            "@fortnightly",
            "@every",
            "@every soon",
            "@every 1",
            "@every 1.h.",
            "@every 99999999h",
            "TZ=Mars/Olympus * * * * *",
            "TZ=UTC",
            // Days that never come.
            "0 0 30 2 *",
            "0 0 31 4,6,9,11 *",
        ];
        for schedule in invalid {
            assert!(validate(schedule).is_err(), "{schedule}");
        }
    }
}
