//! The filters of `ListWorkers`.
//!
//! ```text
//! TaskQueue = 'agents' AND (HostName STARTS_WITH 'gpu-' OR StartTime > '2026-01-01T00:00:00Z')
//! ```

use chrono::DateTime;
use steadfast_engine::Time;
use steadfast_engine::proto::worker::WorkerHeartbeat;
use steadfast_engine::time::time;

use crate::grpc::visibility::short_name;

/// Deepest nesting of parentheses: reading goes down by recursion.
const MAX_DEPTH: usize = 50;

/// Which workers to list.
#[derive(Debug)]
pub(super) struct WorkerFilter(Option<Condition>);

#[derive(Debug)]
enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Text {
        field: TextField,
        test: TextTest,
        negated: bool,
    },
    Time {
        field: TimeField,
        test: TimeTest,
        negated: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum TextField {
    WorkerInstanceKey,
    WorkerIdentity,
    HostName,
    TaskQueue,
    DeploymentName,
    BuildId,
    SdkName,
    SdkVersion,
    Status,
}

#[derive(Clone, Copy, Debug)]
enum TimeField {
    StartTime,
    HeartbeatTime,
}

#[derive(Debug)]
enum TextTest {
    Equals(String),
    StartsWith(String),
    IsNull,
}

#[derive(Debug)]
enum TimeTest {
    /// Both ends belong to it.
    Within(Time, Time),
    IsNull,
}

impl WorkerFilter {
    /// Reads a filter; an empty one takes everybody.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self(None));
        }
        let mut parser = Parser {
            tokens: tokens(text)?,
            at: 0,
            depth: 0,
        };
        let condition = parser.any()?;
        match parser.next() {
            None => Ok(Self(Some(condition))),
            Some(token) => Err(format!("malformed query: unexpected {token}")),
        }
    }

    /// Whether it takes a worker.
    pub(super) fn matches(&self, worker: &WorkerHeartbeat) -> bool {
        self.0
            .as_ref()
            .is_none_or(|condition| condition.matches(worker))
    }
}

impl Condition {
    fn matches(&self, worker: &WorkerHeartbeat) -> bool {
        match self {
            Self::All(conditions) => conditions.iter().all(|condition| condition.matches(worker)),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.matches(worker)),
            Self::Text {
                field,
                test,
                negated,
            } => {
                let value = field.of(worker);
                let passed = match test {
                    TextTest::Equals(wanted) => value == *wanted,
                    TextTest::StartsWith(prefix) => value.starts_with(prefix),
                    TextTest::IsNull => value.is_empty(),
                };
                passed != *negated
            }
            Self::Time {
                field,
                test,
                negated,
            } => match (field.of(worker), test) {
                (value, TimeTest::IsNull) => value.is_none() != *negated,
                // A time that nobody knows is neither within nor without.
                (None, TimeTest::Within(..)) => false,
                (Some(value), TimeTest::Within(from, to)) => {
                    (*from..=*to).contains(&value) != *negated
                }
            },
        }
    }
}

impl TextField {
    fn of(self, worker: &WorkerHeartbeat) -> String {
        let version = worker.deployment_version.as_ref();
        match self {
            Self::WorkerInstanceKey => worker.worker_instance_key.clone(),
            Self::WorkerIdentity => worker.worker_identity.clone(),
            Self::HostName => worker
                .host_info
                .as_ref()
                .map(|host| host.host_name.clone())
                .unwrap_or_default(),
            Self::TaskQueue => worker.task_queue.clone(),
            Self::DeploymentName => version
                .map(|version| version.deployment_name.clone())
                .unwrap_or_default(),
            Self::BuildId => version
                .map(|version| version.build_id.clone())
                .unwrap_or_default(),
            Self::SdkName => worker.sdk_name.clone(),
            Self::SdkVersion => worker.sdk_version.clone(),
            Self::Status => short_name(worker.status().as_str_name(), "WORKER_STATUS_"),
        }
    }
}

impl TimeField {
    fn of(self, worker: &WorkerHeartbeat) -> Option<Time> {
        match self {
            Self::StartTime => worker.start_time.as_ref().map(time),
            Self::HeartbeatTime => worker.heartbeat_time.as_ref().map(time),
        }
    }
}

enum Field {
    Text(TextField),
    Time(TimeField),
}

fn field(name: &str) -> Option<Field> {
    Some(match name {
        "WorkerInstanceKey" => Field::Text(TextField::WorkerInstanceKey),
        "WorkerIdentity" => Field::Text(TextField::WorkerIdentity),
        "HostName" => Field::Text(TextField::HostName),
        "TaskQueue" => Field::Text(TextField::TaskQueue),
        "DeploymentName" => Field::Text(TextField::DeploymentName),
        "BuildId" => Field::Text(TextField::BuildId),
        "SdkName" => Field::Text(TextField::SdkName),
        "SdkVersion" => Field::Text(TextField::SdkVersion),
        "StartTime" => Field::Time(TimeField::StartTime),
        "HeartbeatTime" => Field::Time(TimeField::HeartbeatTime),
        "WorkerStatus" => Field::Text(TextField::Status),
        // A word of SQL, and as such in any case.
        _ if name.eq_ignore_ascii_case("status") => Field::Text(TextField::Status),
        _ => return None,
    })
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Value(String),
    Symbol(&'static str),
}

impl std::fmt::Display for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(formatter, "{name}"),
            Self::Value(value) => write!(formatter, "{value:?}"),
            Self::Symbol(symbol) => write!(formatter, "{symbol}"),
        }
    }
}

/// Longer ones first: the first that fits is taken.
const SYMBOLS: &[&str] = &["!=", "<>", "<=", ">=", "=", "<", ">", "(", ")"];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let token;
        (token, rest) = match first {
            '\'' | '"' => quoted(rest, first)?,
            '`' => match rest[1..].split_once('`') {
                Some((name, rest)) => (Token::Name(name.to_owned()), rest),
                None => return Err("malformed query: a ` is not closed".into()),
            },
            _ => word_or_symbol(rest)?,
        };
        tokens.push(token);
        rest = rest.trim_start();
    }
    Ok(tokens)
}

fn quoted(text: &str, quote: char) -> Result<(Token, &str), String> {
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == quote {
            if characters.next_if(|(_, next)| *next == quote).is_none() {
                return Ok((Token::Value(value), &text[at + quote.len_utf8()..]));
            }
            value.push(quote);
        } else if character == '\\' {
            value.extend(characters.next().map(|(_, escaped)| escaped));
        } else {
            value.push(character);
        }
    }
    Err(format!("malformed query: a {quote} is not closed"))
}

fn word_or_symbol(text: &str) -> Result<(Token, &str), String> {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let length = text
        .find(|character| !is_part(character))
        .unwrap_or(text.len());
    if length > 0 {
        return Ok((Token::Name(text[..length].to_owned()), &text[length..]));
    }
    let symbol = SYMBOLS.iter().find(|symbol| text.starts_with(**symbol));
    let unexpected = || format!("malformed query: unexpected {:?}", text.chars().next());
    let symbol = symbol.ok_or_else(unexpected)?;
    Ok((Token::Symbol(symbol), &text[symbol.len()..]))
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn any(&mut self) -> Result<Condition, String> {
        let mut conditions = vec![self.all()?];
        while self.takes_word("or") {
            conditions.push(self.all()?);
        }
        Ok(Condition::Any(conditions))
    }

    fn all(&mut self) -> Result<Condition, String> {
        let mut conditions = vec![self.one()?];
        while self.takes_word("and") {
            conditions.push(self.one()?);
        }
        Ok(Condition::All(conditions))
    }

    fn one(&mut self) -> Result<Condition, String> {
        if !self.takes(&Token::Symbol("(")) {
            return self.comparison();
        }
        if self.depth == MAX_DEPTH {
            return Err(format!("the query nests deeper than {MAX_DEPTH}"));
        }
        self.depth += 1;
        let condition = self.any()?;
        self.depth -= 1;
        match self.takes(&Token::Symbol(")")) {
            true => Ok(condition),
            false => Err("malformed query: a ( is not closed".into()),
        }
    }

    fn comparison(&mut self) -> Result<Condition, String> {
        let Some(Token::Name(name)) = self.next() else {
            return Err("malformed query: a field is missing".into());
        };
        let field = field(&name).ok_or_else(|| {
            format!("unknown or unsupported worker heartbeat search field: {name}")
        })?;
        match field {
            Field::Text(field) => {
                let (test, negated) = self.text_test(&name)?;
                Ok(Condition::Text {
                    field,
                    test,
                    negated,
                })
            }
            Field::Time(field) => {
                let (test, negated) = self.time_test(&name)?;
                Ok(Condition::Time {
                    field,
                    test,
                    negated,
                })
            }
        }
    }

    fn text_test(&mut self, name: &str) -> Result<(TextTest, bool), String> {
        if self.takes_word("is") {
            return Ok((TextTest::IsNull, self.null()?));
        }
        let (is_equality, negated) = match self.operator() {
            Some("=") => (true, false),
            Some("!=" | "<>") => (true, true),
            Some(_) => return Err(unsupported(name)),
            None => {
                let negated = self.takes_word("not");
                if !self.takes_word("starts_with") {
                    return Err(unsupported(name));
                }
                (false, negated)
            }
        };
        let value = self.value(name)?;
        if value.is_empty() {
            return Err(format!("{name} cannot be empty"));
        }
        match is_equality {
            true => Ok((TextTest::Equals(value), negated)),
            false => Ok((TextTest::StartsWith(value), negated)),
        }
    }

    fn time_test(&mut self, name: &str) -> Result<(TimeTest, bool), String> {
        if self.takes_word("is") {
            return Ok((TimeTest::IsNull, self.null()?));
        }
        if let Some(operator) = self.operator() {
            let at = self.time(name)?;
            // What is not at or after is before, and so on: one range and its negation do for all.
            return Ok(match operator {
                "=" => (TimeTest::Within(at, at), false),
                ">=" => (TimeTest::Within(at, Time::MAX), false),
                "<=" => (TimeTest::Within(Time::MIN, at), false),
                ">" => (TimeTest::Within(Time::MIN, at), true),
                "<" => (TimeTest::Within(at, Time::MAX), true),
                _ => (TimeTest::Within(at, at), true),
            });
        }
        let negated = self.takes_word("not");
        if !self.takes_word("between") {
            return Err(unsupported(name));
        }
        let from = self.time(name)?;
        if !self.takes_word("and") {
            return Err("malformed query: BETWEEN without AND".into());
        }
        Ok((TimeTest::Within(from, self.time(name)?), negated))
    }

    /// What comes after IS: whether it is NOT NULL.
    fn null(&mut self) -> Result<bool, String> {
        let negated = self.takes_word("not");
        match self.takes_word("null") {
            true => Ok(negated),
            false => Err("only IS NULL and IS NOT NULL are supported".into()),
        }
    }

    fn operator(&mut self) -> Option<&'static str> {
        match self.tokens.get(self.at) {
            Some(Token::Symbol(symbol)) if !matches!(*symbol, "(" | ")") => {
                self.at += 1;
                Some(symbol)
            }
            _ => None,
        }
    }

    fn value(&mut self, name: &str) -> Result<String, String> {
        match self.next() {
            Some(Token::Value(value)) => Ok(value),
            Some(other) => Err(format!(
                "invalid value for {name}: {other} is not in quotes"
            )),
            None => Err(format!("malformed query: a value for {name} is missing")),
        }
    }

    fn time(&mut self, name: &str) -> Result<Time, String> {
        let value = self.value(name)?;
        let time = DateTime::parse_from_rfc3339(&value);
        let nanos = time.ok().and_then(|time| time.timestamp_nanos_opt());
        nanos.ok_or_else(|| format!("invalid value for {name}: {value:?} is no RFC 3339 time"))
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn takes(&mut self, wanted: &Token) -> bool {
        let is_next = self.tokens.get(self.at) == Some(wanted);
        self.at += usize::from(is_next);
        is_next
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is_next = matches!(
            self.tokens.get(self.at),
            Some(Token::Name(name)) if name.eq_ignore_ascii_case(word)
        );
        self.at += usize::from(is_next);
        is_next
    }
}

fn unsupported(name: &str) -> String {
    format!("operation is not supported for {name}")
}

#[cfg(test)]
mod tests {
    use steadfast_engine::proto::enums::WorkerStatus;
    use steadfast_engine::proto::worker::WorkerHostInfo;
    use steadfast_engine::time::timestamp;

    use super::*;

    fn worker() -> WorkerHeartbeat {
        WorkerHeartbeat {
            worker_instance_key: "key".into(),
            task_queue: "agents".into(),
            worker_identity: "it's me".into(),
            status: WorkerStatus::ShuttingDown as i32,
            host_info: Some(WorkerHostInfo {
                host_name: "gpu-1".into(),
                ..Default::default()
            }),
            start_time: Some(timestamp(1_000_000_000)),
            ..WorkerHeartbeat::default()
        }
    }

    #[test]
    fn filters_take_whom_they_mean() {
        let table = [
            ("", true),
            ("  ", true),
            ("TaskQueue = 'agents'", true),
            ("TaskQueue='other'", false),
            ("TaskQueue != \"other\"", true),
            ("WorkerIdentity = 'it''s me'", true),
            (r"WorkerIdentity = 'it\'s me'", true),
            ("HostName STARTS_WITH 'gpu-'", true),
            ("HostName not starts_with 'gpu-'", false),
            ("`Status` = 'ShuttingDown'", true),
            ("STATUS = 'Running' or WorkerStatus != 'Running'", true),
            ("BuildId IS NULL and HostName IS NOT NULL", true),
            // AND goes before OR.
            (
                "TaskQueue = 'agents' OR TaskQueue = 'x' AND HostName = 'x'",
                true,
            ),
            (
                "(TaskQueue = 'agents' OR TaskQueue = 'x') AND HostName = 'x'",
                false,
            ),
            ("StartTime = '1970-01-01T00:00:01Z'", true),
            ("StartTime <> '1970-01-01T00:00:01Z'", false),
            ("StartTime > '1970-01-01T00:00:01Z'", false),
            ("StartTime >= '1970-01-01T00:00:01Z'", true),
            ("StartTime < '1970-01-01T00:00:01Z'", false),
            ("StartTime < '1970-01-01T00:00:01.000000001Z'", true),
            ("StartTime <= '1970-01-01T01:00:01+01:00'", true),
            (
                "StartTime BETWEEN '1970-01-01T00:00:00Z' AND '1970-01-01T00:00:02Z'",
                true,
            ),
            (
                "StartTime NOT BETWEEN '1970-01-01T00:00:00Z' AND '1970-01-01T00:00:02Z'",
                false,
            ),
            ("HeartbeatTime IS NULL", true),
            ("HeartbeatTime != '1970-01-01T00:00:01Z'", false),
        ];
        for (text, taken) in table {
            let filter =
                WorkerFilter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(filter.matches(&worker()), taken, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = [
            "Nope = 'x'",
            "taskqueue = 'x'",
            "TaskQueue",
            "TaskQueue =",
            "TaskQueue = ''",
            "TaskQueue = x",
            "TaskQueue > 'x'",
            "TaskQueue ( 'x'",
            "TaskQueue IN ('x')",
            "TaskQueue = 'x",
            "`TaskQueue = 'x'",
            "TaskQueue = 'x' LIMIT 1",
            "TaskQueue = 'x' AND",
            "(TaskQueue = 'x'",
            "TaskQueue = 'x')",
            "TaskQueue IS 'x'",
            "NOT TaskQueue = 'x'",
            "StartTime = 'today'",
            "StartTime STARTS_WITH '1970'",
            "StartTime BETWEEN '1970-01-01T00:00:00Z'",
            "§ = 'x'",
        ];
        for text in refused {
            assert!(WorkerFilter::parse(text).is_err(), "{text}");
        }
        let deep = "(".repeat(100_000) + "TaskQueue = 'x'";
        assert!(WorkerFilter::parse(&deep).is_err());
    }
}
