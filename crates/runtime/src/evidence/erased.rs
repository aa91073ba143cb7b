//! Events whose payloads are erased: what is stored of them, and what readers are given.
//!
//! In place of the event its skeleton is stored. It is what was hashed, byte for byte, and begins with a
//! zero, as no encoded event does.

use std::borrow::Cow;

use steadfast_ledger::skeleton::{
    SaltKey, Secret, SkeletonError, Span, is_skeleton, put_field, restore, skeleton,
};

use super::Sealer;
use crate::error::{Result, RuntimeError};

/// The encoding that a payload has for readers once it is erased.
pub const ENCODING: &str = "steadfast/erased";

/// What a failure says once its message is erased.
const MESSAGE: &[u8] = b"erased";

/// An event to be hashed: its bytes, whole or with zeros where payloads are erased, and what the
/// digests of its payloads are made of.
pub type Open<'a> = (Cow<'a, [u8]>, Vec<(Span, Secret)>);

impl Sealer {
    /// What is stored of an event once its payloads are erased.
    pub fn erase(&self, event: &[u8], salts: &SaltKey, event_id: i64) -> Result<Vec<u8>> {
        let mut spans = Vec::new();
        self.spans(event, &mut spans);
        skeleton(event, &spans, salts, event_id).map_err(damaged)
    }

    /// Opens stored bytes of an event, whole or erased, for those who hash them. The salts are those of
    /// the run that wrote the event; of an erased one they are not needed.
    pub fn open<'a>(&self, stored: &'a [u8], salts: &SaltKey, event_id: i64) -> Result<Open<'a>> {
        if is_skeleton(stored) {
            let (event, erased) = restore(stored).map_err(damaged)?;
            let secrets = erased
                .into_iter()
                .map(|(span, digest)| (span, Secret::Erased(digest)));
            return Ok((event.into(), secrets.collect()));
        }
        let mut spans = Vec::new();
        self.spans(stored, &mut spans);
        let numbered = (0..).zip(spans);
        let secrets =
            numbered.map(|(number, span)| (span, Secret::Salt(salts.salt(event_id, number))));
        Ok((stored.into(), secrets.collect()))
    }

    /// Stored bytes of an event as readers can decode them: where something was erased, it says so.
    pub fn readable<'a>(&self, stored: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        if !is_skeleton(stored) {
            return Ok(stored.into());
        }
        let (event, _) = restore(stored).map_err(damaged)?;
        Ok(self.replace(&event, &mut in_place).into())
    }
}

/// The fields that readers find in the place of an erased one (`temporal.api`).
fn in_place(message: &str, field: u32) -> Vec<u8> {
    let mut out = Vec::new();
    match (message, field) {
        // Payload.data: an entry of the metadata comes in its place, and wins over an earlier one.
        ("temporal.api.common.v1.Payload", _) => {
            let mut entry = Vec::new();
            put_field(&mut entry, 1, b"encoding");
            put_field(&mut entry, 2, ENCODING.as_bytes());
            put_field(&mut out, 1, &entry);
        }
        // Failure.message. Its stack trace goes.
        ("temporal.api.failure.v1.Failure", 1) => put_field(&mut out, 1, MESSAGE),
        _ => {}
    }
    out
}

fn damaged(error: SkeletonError) -> RuntimeError {
    RuntimeError::Internal(format!("a stored event: {error}"))
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use steadfast_engine::proto::common::{Payload, Payloads};
    use steadfast_engine::proto::failure::Failure;
    use steadfast_engine::proto::history::{
        ActivityTaskFailedEventAttributes, HistoryEvent, WorkflowExecutionSignaledEventAttributes,
        history_event::Attributes,
    };
    use steadfast_ledger::Hash;
    use steadfast_ledger::skeleton::hash_with;

    use super::*;
    use crate::testing::shapes;

    fn event(attributes: Attributes) -> HistoryEvent {
        HistoryEvent {
            event_id: 7,
            attributes: Some(attributes),
            ..HistoryEvent::default()
        }
    }

    fn payload(encoding: &str, data: &str) -> Payload {
        Payload {
            metadata: [("encoding".to_owned(), encoding.into())].into(),
            data: data.into(),
            ..Payload::default()
        }
    }

    fn signaled(payloads: Vec<Payload>) -> HistoryEvent {
        let attributes = WorkflowExecutionSignaledEventAttributes {
            signal_name: "approve".into(),
            input: Some(Payloads { payloads }),
            ..Default::default()
        };
        event(attributes.into())
    }

    fn failed(message: &str, trace: &str) -> HistoryEvent {
        let failure = Failure {
            message: message.into(),
            stack_trace: trace.into(),
            source: "PythonSDK".into(),
            ..Failure::default()
        };
        let attributes = ActivityTaskFailedEventAttributes {
            failure: Some(failure),
            ..Default::default()
        };
        event(attributes.into())
    }

    #[test]
    fn an_erased_event_can_be_read_and_hashed() {
        let sealer = Sealer::new(shapes());
        let salts = SaltKey([3; 32]);
        let whole = signaled(vec![
            payload("json/plain", "\"4111\""),
            payload("binary/null", ""),
        ]);
        let of_readers = signaled(vec![payload(ENCODING, ""), payload("binary/null", "")]);
        for (whole, of_readers) in [
            (whole, of_readers),
            (failed("no card 4111", "line 4111"), failed("erased", "")),
            (failed("", ""), failed("", "")),
        ] {
            let bytes = whole.encode_to_vec();
            let erased = sealer.erase(&bytes, &salts, 7).expect("is erased");
            assert!(!erased.windows(4).any(|of| of == b"4111"));
            let (message, secrets) = sealer.open(&bytes, &salts, 7).expect("opens");
            let hash = hash_with(&message, &secrets).expect("a hash");
            assert_eq!(Hash::of(&erased), hash);
            // Nobody needs the salts for it.
            let none = SaltKey([0; 32]);
            let (message, secrets) = sealer.open(&erased, &none, 7).expect("opens");
            assert_eq!(hash_with(&message, &secrets), Ok(hash));
            let readable = sealer.readable(&erased).expect("can be read");
            let read = HistoryEvent::decode(readable.as_ref()).expect("an event");
            assert_eq!(read, of_readers);
            assert_eq!(sealer.readable(&bytes).expect("can be read"), bytes);
        }
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let sealer = Sealer::new(shapes());
        for bytes in [b"\0".as_slice(), b"\0\0\0\0\x01", b"\0\xff\xff\xff\xff"] {
            assert!(sealer.readable(bytes).is_err());
            assert!(sealer.open(bytes, &SaltKey([0; 32]), 1).is_err());
        }
    }
}
