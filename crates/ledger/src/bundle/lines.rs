//! The lines of a bundle's `.jsonl` files, and the frames of its histories.

use std::io::{self, BufRead, Read, Write};

use serde::Deserialize;

use crate::Hash;
use crate::checkpoint::parse_decimal;
use crate::entry::MAX_BYTES;
use crate::json::Object;
use crate::shapes::varint;
use crate::skeleton::{Secret, Span};
use crate::tree::Node;

/// No event is longer, and no line about one.
const MAX_EVENT_BYTES: u64 = 1 << 28;

/// No request is longer: its arguments are bounded.
const MAX_DECISION_BYTES: u64 = 8 << 20;

/// Field 1, length-delimited: an event of a `History`.
const EVENT_TAG: u8 = 0x0a;

const ENTRY_BEGIN: &[u8] = b"{\"entry\":";
const ENTRY_INDEX: &[u8] = b",\"index\":";

/// What was asked for a decision.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DecisionLine {
    pub n: u64,
    pub place: usize,
    pub request: Box<serde_json::value::RawValue>,
    pub run_id: String,
}

/// Writes the line of a decision.
pub(super) fn write_decision(
    out: &mut impl Write,
    run_id: &str,
    n: u64,
    place: usize,
    request: &str,
) -> io::Result<()> {
    // The id can be the name of a file: nothing in it has to be escaped.
    writeln!(
        out,
        "{{\"n\":{n},\"place\":{place},\"request\":{request},\"run_id\":\"{run_id}\"}}"
    )
}

/// A file that does not have the format of its kind.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("line {line} is not what is expected: {why}")]
    Line { line: u64, why: String },
    #[error("line {0} is too long, or has no end")]
    Endless(u64),
    #[error("event {0} of the file is not framed as a field of a History")]
    Frame(u64),
}

/// Reads lines of a bounded length.
pub(super) struct Lines<R> {
    input: R,
    max_bytes: u64,
    line: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub fn entries(input: R) -> Self {
        Self::new(input, MAX_BYTES as u64 + 64)
    }

    pub fn nodes(input: R) -> Self {
        Self::new(input, 256)
    }

    pub fn payloads(input: R) -> Self {
        Self::new(input, MAX_EVENT_BYTES)
    }

    pub fn decisions(input: R) -> Self {
        Self::new(input, MAX_DECISION_BYTES)
    }

    fn new(input: R, max_bytes: u64) -> Self {
        Self {
            input,
            max_bytes,
            line: 0,
            buffer: Vec::new(),
        }
    }

    fn advance(&mut self) -> Result<bool, LineError> {
        self.buffer.clear();
        self.line += 1;
        let mut input = self.input.by_ref().take(self.max_bytes);
        if input.read_until(b'\n', &mut self.buffer)? == 0 {
            return Ok(false);
        }
        match self.buffer.pop_if(|last| *last == b'\n') {
            Some(_) => Ok(true),
            None => Err(LineError::Endless(self.line)),
        }
    }

    fn wrong(&self, why: impl ToString) -> LineError {
        LineError::Line {
            line: self.line,
            why: why.to_string(),
        }
    }

    /// The next entry: its index and its exact bytes.
    pub fn next_entry(&mut self) -> Result<Option<(u64, &[u8])>, LineError> {
        if !self.advance()? {
            return Ok(None);
        }
        match split_entry(&self.buffer) {
            Some((index, length)) => {
                let from = ENTRY_BEGIN.len();
                Ok(Some((index, &self.buffer[from..from + length])))
            }
            None => Err(self.wrong("not `{\"entry\":…,\"index\":…}`")),
        }
    }

    pub fn next_node(&mut self) -> Result<Option<(Node, Hash)>, LineError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Line<'a> {
            hash: &'a str,
            index: u64,
            level: u8,
        }
        if !self.advance()? {
            return Ok(None);
        }
        let line: Line<'_> =
            serde_json::from_slice(&self.buffer).map_err(|error| self.wrong(error))?;
        let hash = line.hash.parse().map_err(|error| self.wrong(error))?;
        let (level, index) = (line.level, line.index);
        Ok(Some((Node { level, index }, hash)))
    }

    /// What was asked for the next decision.
    pub fn next_decision(&mut self) -> Result<Option<DecisionLine>, LineError> {
        if !self.advance()? {
            return Ok(None);
        }
        let line = serde_json::from_slice(&self.buffer);
        line.map(Some).map_err(|error| self.wrong(error))
    }

    /// The payloads of the next event that has some.
    pub fn next_payloads(&mut self) -> Result<Option<Payloads>, LineError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Line<'a> {
            event_id: i64,
            #[serde(borrow)]
            spans: Vec<Payload<'a>>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Payload<'a> {
            offset: u32,
            length: u32,
            #[serde(default)]
            salt: Option<&'a str>,
            #[serde(default)]
            digest: Option<&'a str>,
        }
        if !self.advance()? {
            return Ok(None);
        }
        let line: Line<'_> =
            serde_json::from_slice(&self.buffer).map_err(|error| self.wrong(error))?;
        let mut spans = Vec::with_capacity(line.spans.len());
        for payload in line.spans {
            let secret = match (payload.salt, payload.digest) {
                (Some(salt), None) => salt.parse().map(|salt: Hash| Secret::Salt(salt.0)),
                (None, Some(digest)) => digest.parse().map(Secret::Erased),
                _ => return Err(self.wrong("a span has a salt or a digest")),
            };
            let span = Span {
                offset: payload.offset,
                length: payload.length,
            };
            spans.push((span, secret.map_err(|error| self.wrong(error))?));
        }
        let event_id = line.event_id;
        Ok(Some(Payloads { event_id, spans }))
    }
}

/// The payloads of one event.
pub(super) struct Payloads {
    pub event_id: i64,
    pub spans: Vec<(Span, Secret)>,
}

/// The index of an entry's line, and the length of the entry.
fn split_entry(line: &[u8]) -> Option<(u64, usize)> {
    let rest = line.strip_prefix(ENTRY_BEGIN)?.strip_suffix(b"}")?;
    let digits = rest.iter().rev().take_while(|byte| byte.is_ascii_digit());
    let (rest, index) = rest.split_at_checked(rest.len().checked_sub(digits.count())?)?;
    let entry = rest.strip_suffix(ENTRY_INDEX)?;
    let index = parse_decimal(std::str::from_utf8(index).ok()?)?;
    Some((index, entry.len()))
}

pub(super) fn write_entry(out: &mut impl Write, index: u64, entry: &[u8]) -> io::Result<()> {
    out.write_all(ENTRY_BEGIN)?;
    out.write_all(entry)?;
    out.write_all(ENTRY_INDEX)?;
    writeln!(out, "{index}}}")
}

pub(super) fn write_node(out: &mut impl Write, node: Node, hash: &Hash) -> io::Result<()> {
    let Node { level, index } = node;
    writeln!(
        out,
        r#"{{"hash":"{hash}","index":{index},"level":{level}}}"#
    )
}

pub(super) fn write_payloads(
    out: &mut impl Write,
    event_id: i64,
    spans: &[(Span, Secret)],
) -> io::Result<()> {
    let mut line = String::new();
    let mut object = Object::begin(&mut line);
    object.number("event_id", event_id);
    object.objects("spans", spans, |object, (span, secret)| {
        if let Secret::Erased(digest) = secret {
            object.plain("digest", digest);
        }
        object.number("length", span.length.into());
        object.number("offset", span.offset.into());
        if let Secret::Salt(salt) = secret {
            object.plain("salt", Hash(*salt));
        }
    });
    object.end();
    line.push('\n');
    out.write_all(line.as_bytes())
}

pub(super) fn write_event(out: &mut impl Write, event: &[u8]) -> io::Result<()> {
    out.write_all(&[EVENT_TAG])?;
    let mut length = event.len() as u64;
    while length >= 0x80 {
        out.write_all(&[length as u8 | 0x80])?;
        length >>= 7;
    }
    out.write_all(&[length as u8])?;
    out.write_all(event)
}

/// Reads the events of a history.
pub(super) struct Frames<R> {
    input: R,
    count: u64,
    event: Vec<u8>,
}

impl<R: BufRead> Frames<R> {
    pub fn new(input: R) -> Self {
        Self {
            input,
            count: 0,
            event: Vec::new(),
        }
    }

    pub fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        self.count += 1;
        let Some(tag) = self.byte()? else {
            return Ok(None);
        };
        let length = match tag {
            EVENT_TAG => self.varint()?.filter(|length| *length <= MAX_EVENT_BYTES),
            _ => None,
        };
        let length = length.ok_or(LineError::Frame(self.count))?;
        self.event.clear();
        // What is not there takes no room.
        let read = self
            .input
            .by_ref()
            .take(length)
            .read_to_end(&mut self.event)?;
        match read as u64 == length {
            true => Ok(Some(&self.event)),
            false => Err(LineError::Frame(self.count)),
        }
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        let byte = self.input.fill_buf()?.first().copied();
        self.input.consume(byte.is_some().into());
        Ok(byte)
    }

    fn varint(&mut self) -> io::Result<Option<u64>> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let Some(byte) = self.byte()? else {
                return Ok(None);
            };
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

/// The id of an encoded event, which is its field 1.
pub(super) fn event_id(event: &[u8]) -> Option<i64> {
    let (mut at, mut id) = (0, None);
    while at < event.len() {
        let tag = varint(event, &mut at)?;
        let skipped = match tag & 7 {
            0 => {
                let value = varint(event, &mut at)?;
                if tag >> 3 == 1 {
                    id = Some(value as i64);
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(event, &mut at)?).ok()?,
            5 => 4,
            _ => return None,
        };
        at = at.checked_add(skipped).filter(|at| *at <= event.len())?;
    }
    id
}
