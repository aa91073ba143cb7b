//! An entry: what the log says about one transition of one run, or about what belongs to no run.
//!
//! The entry's canonical JSON is the leaf of the log, byte for byte. Entries of a run are numbered
//! 1, 2, 3… and each holds the leaf hash of the one before it; entries that belong to no run form
//! such a chain for each namespace.

mod governance;

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use crate::Hash;
use crate::json::Object;

pub use governance::{ApprovalItem, CredentialItem, DecisionItem, VoteItem};

/// The version of the format.
pub const VERSION: i64 = 1;

/// An entry of the log has at most so many bytes (`tlog-tiles`, "Log entries": lengths have 16 bits).
pub const MAX_BYTES: usize = 65_535;

/// So many items of one kind are listed in one entry.
pub const MAX_ITEMS: usize = 200;

/// One entry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Entry<'a> {
    /// Approvals of tool calls that changed: asked for, voted on, given.
    #[serde(borrow)]
    pub approvals: Vec<ApprovalItem<'a>>,
    /// Attempts of activities that changed: handed out, failed, timed out, sent a heartbeat.
    pub attempts: Vec<AttemptItem<'a>>,
    /// Events that happened while a worker had the workflow task: they get their place in history
    /// in a later entry.
    pub buffered: Vec<BufferedItem<'a>>,
    /// Who and what caused it.
    pub cause: Cause<'a>,
    /// The status that the run ended with.
    pub closed: Cow<'a, str>,
    /// What policies decided.
    pub decisions: Vec<DecisionItem<'a>>,
    /// The run was deleted: nothing of it is kept but the log.
    pub deleted: bool,
    /// Events of history that there are too many of to list.
    pub event_range: Option<EventRange>,
    /// Events of history, in order.
    pub events: Vec<EventItem<'a>>,
    /// The run that this one follows or was reset from. In a run's first entry only.
    pub follows: Option<Follows<'a>>,
    /// Number within the run, or within the namespace's own chain: 1, 2, 3….
    pub n: u64,
    /// What happened, for an entry that is not about a run's transition.
    pub note: Option<Note<'a>>,
    /// Namespace name.
    pub ns: Cow<'a, str>,
    /// Approvals, attempts, buffered events and decisions that there was no room for.
    pub omitted: u64,
    /// Leaf hash of the entry before it in its chain; none in the first.
    #[serde(deserialize_with = "optional_hash")]
    pub prev: Option<Hash>,
    /// Run id; empty in the namespace's own chain.
    pub run_id: Cow<'a, str>,
    /// When.
    pub t: Time,
    /// Version of the format.
    pub v: i64,
    /// Workflow id; empty in the namespace's own chain.
    pub workflow_id: Cow<'a, str>,
}

/// Who and what caused a transition.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cause<'a> {
    /// How the principal was authenticated; empty for the server itself.
    pub auth: Cow<'a, str>,
    /// API method, or `internal/…`.
    pub call: Cow<'a, str>,
    /// The principal.
    pub principal: Cow<'a, str>,
}

/// One event of history.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventItem<'a> {
    /// The principal that the event names, where it is not the cause's.
    pub by: Cow<'a, str>,
    /// Hash of its skeleton.
    #[serde(deserialize_with = "hash")]
    pub hash: Hash,
    /// Event id.
    pub id: i64,
    /// Its type, as the API names it, without the prefix.
    #[serde(rename = "type")]
    pub event_type: Cow<'a, str>,
}

/// One event that has no place in history yet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BufferedItem<'a> {
    /// Hash of its skeleton, with the id that it has for now.
    #[serde(deserialize_with = "hash")]
    pub hash: Hash,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: Cow<'a, str>,
}

/// Consecutive events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventRange {
    /// The first one.
    pub first: i64,
    /// The last one.
    pub last: i64,
    /// Root of the RFC 6962 tree whose leaves are the hashes of their skeletons.
    #[serde(deserialize_with = "hash")]
    pub root: Hash,
}

/// One attempt of an activity.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttemptItem<'a> {
    /// Activity id.
    pub activity_id: Cow<'a, str>,
    /// Activity type.
    pub activity_type: Cow<'a, str>,
    /// Number of the attempt: 1, 2, 3….
    pub attempt: i64,
    /// The credential that it was handed out with.
    #[serde(borrow)]
    pub credential: Option<CredentialItem<'a>>,
    /// What the attempt before it failed with: `application/<type>`, `timeout/<kind>`, ….
    pub last_failure: Cow<'a, str>,
    /// The event that scheduled the activity.
    pub scheduled_event_id: i64,
    /// `scheduled`, `started` or `heartbeat`.
    pub state: Cow<'a, str>,
    /// Identity of the worker that has it.
    pub worker: Cow<'a, str>,
}

/// The end of another run's chain.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Follows<'a> {
    /// Leaf hash of its newest entry at that time.
    #[serde(deserialize_with = "optional_hash")]
    pub entry: Option<Hash>,
    /// For a reset: the last event that this run's history shares with it.
    pub event_id: i64,
    /// The run.
    pub run_id: Cow<'a, str>,
}

/// What happened that is not a transition.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Note<'a> {
    /// More about it, for people.
    pub detail: Cow<'a, str>,
    /// The run that it is about.
    pub run_id: Cow<'a, str>,
    /// What: `evidence/erased`, `evidence/key-changed`, ….
    pub what: Cow<'a, str>,
    /// The workflow that it is about.
    pub workflow_id: Cow<'a, str>,
}

/// Why bytes are not an entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Not the JSON of an entry.
    #[error("not an entry: {0}")]
    Json(#[from] serde_json::Error),
    /// Made by a newer version.
    #[error("an entry of version {0}, which this program does not know")]
    Version(i64),
    /// Not written in the one canonical way.
    #[error("not canonical JSON")]
    NotCanonical,
}

impl<'a> Entry<'a> {
    /// Reads an entry's exact bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EntryError> {
        #[derive(Deserialize)]
        struct Version {
            v: i64,
        }
        let entry: Entry<'a> = match serde_json::from_slice(bytes) {
            Ok(entry) => entry,
            Err(error) => match serde_json::from_slice(bytes) {
                Ok(Version { v }) if v != VERSION => return Err(EntryError::Version(v)),
                _ => return Err(error.into()),
            },
        };
        if entry.v != VERSION {
            return Err(EntryError::Version(entry.v));
        }
        let mut canonical = String::with_capacity(bytes.len());
        entry.write(&mut canonical);
        match canonical.as_bytes() == bytes {
            true => Ok(entry),
            false => Err(EntryError::NotCanonical),
        }
    }

    /// Appends the entry's canonical JSON.
    pub fn write(&self, out: &mut String) {
        let mut entry = Object::begin(out);
        entry.objects("approvals", &self.approvals, |object, item| {
            item.write(object);
        });
        entry.objects("attempts", &self.attempts, |object, item| {
            object.string("activity_id", &item.activity_id);
            object.string("activity_type", &item.activity_type);
            object.number("attempt", item.attempt);
            if let Some(credential) = &item.credential {
                object.object("credential", |object| credential.write(object));
            }
            object.string_unless_empty("last_failure", &item.last_failure);
            object.number("scheduled_event_id", item.scheduled_event_id);
            object.string("state", &item.state);
            object.string_unless_empty("worker", &item.worker);
        });
        entry.objects("buffered", &self.buffered, |object, item| {
            object.plain("hash", item.hash);
            object.string("type", &item.event_type);
        });
        entry.object("cause", |object| {
            object.string_unless_empty("auth", &self.cause.auth);
            object.string("call", &self.cause.call);
            object.string("principal", &self.cause.principal);
        });
        entry.string_unless_empty("closed", &self.closed);
        entry.objects("decisions", &self.decisions, |object, item| {
            item.write(object);
        });
        if self.deleted {
            entry.flag("deleted");
        }
        if let Some(range) = &self.event_range {
            entry.object("event_range", |object| {
                object.number("first", range.first);
                object.number("last", range.last);
                object.plain("root", range.root);
            });
        }
        entry.objects("events", &self.events, |object, item| {
            object.string_unless_empty("by", &item.by);
            object.plain("hash", item.hash);
            object.number("id", item.id);
            object.string("type", &item.event_type);
        });
        if let Some(follows) = &self.follows {
            entry.object("follows", |object| {
                if let Some(hash) = follows.entry {
                    object.plain("entry", hash);
                }
                if follows.event_id != 0 {
                    object.number("event_id", follows.event_id);
                }
                object.string("run_id", &follows.run_id);
            });
        }
        entry.number("n", i64::try_from(self.n).unwrap_or(i64::MAX));
        if let Some(note) = &self.note {
            entry.object("note", |object| {
                object.string_unless_empty("detail", &note.detail);
                object.string_unless_empty("run_id", &note.run_id);
                object.string("what", &note.what);
                object.string_unless_empty("workflow_id", &note.workflow_id);
            });
        }
        entry.string("ns", &self.ns);
        if self.omitted > 0 {
            entry.number("omitted", i64::try_from(self.omitted).unwrap_or(i64::MAX));
        }
        if let Some(prev) = self.prev {
            entry.plain("prev", prev);
        }
        entry.string_unless_empty("run_id", &self.run_id);
        entry.plain("t", self.t);
        entry.number("v", self.v);
        entry.string_unless_empty("workflow_id", &self.workflow_id);
        entry.end();
    }
}

/// Nanoseconds since the epoch, written as RFC 3339 in UTC with nine digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(SECOND);
        let (year, month, day) = civil(seconds.div_euclid(DAY));
        let second = seconds.rem_euclid(DAY);
        // By hand: it is in each entry, and formatting eight numbers takes longer than hashing it.
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        for (range, number) in [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, second / 3600),
            (14..16, second / 60 % 60),
            (17..19, second % 60),
            (20..29, self.0.rem_euclid(SECOND)),
        ] {
            digits(&mut text[range], number);
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// Writes a number that is not negative with leading zeros. 64 bits of nanoseconds are years of four
/// digits.
fn digits(text: &mut [u8], mut number: i64) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10).unsigned_abs() as u8;
        number /= 10;
    }
}

/// The date of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Counts years from
/// March on, so that the leap day is the last of its year, in eras of 400 years.
fn civil(day: i64) -> (i64, i64, i64) {
    let from_march = day + 719_468;
    let era = from_march.div_euclid(146_097);
    let of_era = from_march.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// The day of a date.
fn day_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

impl std::str::FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ERROR: &str = "not a time in UTC with nine digits of a second";
        let number = |range: std::ops::Range<usize>| {
            let digits = text.get(range)?;
            let all = digits.bytes().all(|byte| byte.is_ascii_digit());
            all.then(|| digits.parse::<i64>().ok()).flatten()
        };
        let parse = || {
            let day = day_of(number(0..4)?, number(5..7)?, number(8..10)?);
            let second = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
            let seconds = (day * DAY + second).checked_mul(SECOND)?;
            Some(Time(seconds.checked_add(number(20..29)?)?))
        };
        let time = parse().ok_or(ERROR)?;
        // Whatever else was wrong shows when it is written again.
        match time.to_string() == text {
            true => Ok(time),
            false => Err(ERROR),
        }
    }
}

impl serde::Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn hash<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn optional_hash<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Hash>, D::Error> {
    hash(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            cause: Cause {
                auth: "unauthenticated".into(),
                call: "StartWorkflowExecution".into(),
                principal: "alice@laptop".into(),
            },
            events: vec![EventItem {
                hash: Hash::of(b"one"),
                id: 1,
                event_type: "WORKFLOW_EXECUTION_STARTED".into(),
                ..EventItem::default()
            }],
            n: 1,
            ns: "default".into(),
            run_id: "a run".into(),
            t: Time(1_700_000_000_123_456_789),
            v: VERSION,
            workflow_id: "order \"7\"".into(),
            ..Entry::default()
        }
    }

    fn text(entry: &Entry<'_>) -> String {
        let mut out = String::new();
        entry.write(&mut out);
        out
    }

    #[test]
    fn is_canonical_json() {
        let expected = concat!(
            r#"{"cause":{"auth":"unauthenticated","call":"StartWorkflowExecution","#,
            r#""principal":"alice@laptop"},"events":[{"hash":"#,
            r#""dpLDre4rtsjTwDSSRl8MqFw0xP/lgrHH+O9R20Q4bg0=","id":1,"#,
            r#""type":"WORKFLOW_EXECUTION_STARTED"}],"n":1,"ns":"default","run_id":"a run","#,
            r#""t":"2023-11-14T22:13:20.123456789Z","v":1,"workflow_id":"order \"7\""}"#,
        );
        let written = text(&entry());
        let hash = Hash::of(b"one").to_string();
        assert_eq!(
            written,
            expected.replace("dpLDre4rtsjTwDSSRl8MqFw0xP/lgrHH+O9R20Q4bg0=", &hash)
        );
    }

    #[test]
    fn with_everything_in_it_is_read_again() {
        let full = Entry {
            approvals: vec![ApprovalItem {
                activity_id: "3".into(),
                activity_type: "refund".into(),
                digest: Hash::of(b"call"),
                expires: Time(1_700_000_000_000_000_000),
                groups: vec!["finance".into(), "risk".into()],
                kind: "signal".into(),
                quorum: 2,
                released: true,
                scheduled_event_id: 5,
                votes: vec![VoteItem {
                    answer: "approve".into(),
                    auth: "oidc".into(),
                    by: "bob".into(),
                    groups: vec!["finance".into()],
                    t: Time(1_700_000_000_000_000_001),
                }],
            }],
            decisions: vec![DecisionItem {
                activity_id: "3".into(),
                activity_type: "refund".into(),
                answer: "approval".into(),
                kind: "child".into(),
                policies: vec!["refunds".into()],
                policy_hash: Hash::of(b"policies"),
                scheduled_event_id: 5,
            }],
            attempts: vec![AttemptItem {
                activity_id: "3".into(),
                activity_type: "charge".into(),
                attempt: 2,
                credential: Some(CredentialItem {
                    audience: "https://pay.example".into(),
                    expires: Time(1_700_000_900_000_000_000),
                    jti: "an id".into(),
                }),
                last_failure: "timeout/HEARTBEAT".into(),
                scheduled_event_id: 5,
                state: "started".into(),
                worker: "w".into(),
            }],
            buffered: vec![BufferedItem {
                hash: Hash::of(b"b"),
                event_type: "WORKFLOW_EXECUTION_SIGNALED".into(),
            }],
            closed: "COMPLETED".into(),
            deleted: true,
            event_range: Some(EventRange {
                first: 5,
                last: 900,
                root: Hash::of(b"r"),
            }),
            follows: Some(Follows {
                entry: Some(Hash::of(b"f")),
                event_id: 4,
                run_id: "before".into(),
            }),
            note: Some(Note {
                detail: "why\n".into(),
                run_id: "r".into(),
                what: "evidence/erased".into(),
                workflow_id: "w".into(),
            }),
            omitted: 3,
            prev: Some(Hash::of(b"p")),
            ..entry()
        };
        let bytes = text(&full);
        assert_eq!(Entry::parse(bytes.as_bytes()).expect("an entry"), full);
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        let good = text(&entry());
        assert!(Entry::parse(good.as_bytes()).is_ok());
        for bad in [
            good.replace("\"n\":1", "\"n\": 1"),
            good.replace("alice", "\\u0061lice"),
            good.replace("\"n\":1,", "\"n\":1,\"n\":1,"),
            good.replace("\"v\":1", "\"v\":2"),
            good.replace("\"n\":1", "\"n\":1,\"new\":1"),
            good.replace("2023-11-14", "2023-11-31"),
            format!("{good} "),
        ] {
            assert!(Entry::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        for (time, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (951_782_400 * SECOND, "2000-02-29T00:00:00.000000000Z"),
        ] {
            assert_eq!(Time(time).to_string(), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_time_is_read_again(nanoseconds in 0_i64..) {
            let time = Time(nanoseconds);
            assert_eq!(time.to_string().parse(), Ok(time));
        }

        #[test]
        fn any_text_is_read_again(name: String, call: String) {
            let mut written = entry();
            written.workflow_id = name.into();
            written.cause.call = call.into();
            let bytes = text(&written);
            assert_eq!(Entry::parse(bytes.as_bytes()).expect("an entry"), written);
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _ = Entry::parse(&bytes);
        }
    }
}
