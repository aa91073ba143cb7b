//! What is hashed of a stored message: its bytes, with payloads replaced by salted digests.
//!
//! A plain hash of a short secret can be guessed, and a hash that covers the payload itself could
//! not be checked any more once the payload is erased. So the hash of an encoded message is
//!
//! ```text
//! SHA-256( 0x00 || count || (offset || length || digest) × count || rest )
//! digest = SHA-256( salt || payload )
//! salt   = SHA-256( run's salt || event id || number of the payload in the event )
//! ```
//!
//! where each of the `count` spans of the encoding is a payload's data (or another text that may
//! hold personal data), `rest` is the encoding without the spans, and all numbers are big-endian:
//! 32 bits, the event id 64. The bytes that are hashed are the *skeleton*. It can be stored in place
//! of the message, which no encoded message can be mistaken for: no field has the number 0. Nobody
//! needs to know the message's type to check one.

use sha2::{Digest, Sha256};

use crate::Hash;

pub use crate::shapes::{Content, FieldShape, Fields, MessageShape, Shapes, put_field};

/// The first byte of a skeleton.
const MARK: u8 = 0;

/// A run's secret, from which the salts of its payloads are derived. Without it digests say nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SaltKey(pub [u8; 32]);

impl std::fmt::Debug for SaltKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SaltKey(…)")
    }
}

impl SaltKey {
    /// The salt of one payload of one event.
    pub fn salt(&self, event_id: i64, number: u32) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.0)
            .chain_update(event_id.to_be_bytes())
            .chain_update(number.to_be_bytes())
            .finalize()
            .into()
    }

    fn digest(&self, event_id: i64, number: u32, payload: &[u8]) -> Hash {
        digest(&self.salt(event_id, number), payload)
    }
}

/// A part of an encoded message that is replaced by its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub offset: u32,
    /// How many bytes it has.
    pub length: u32,
}

/// A payload that is not there any more: where it was, and its digest.
pub type Erased = (Span, Hash);

/// Why bytes are not a skeleton, or spans not those of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkeletonError {
    /// Spans overlap, are out of order, or end after the message.
    #[error("the spans do not fit the message")]
    Spans,
    /// The bytes are not a skeleton.
    #[error("not a skeleton")]
    Format,
    /// There is something where a payload was erased.
    #[error("there are bytes where a payload was erased")]
    Erased,
}

/// The hash of an encoded message.
pub fn hash(
    message: &[u8],
    spans: &[Span],
    salts: &SaltKey,
    event_id: i64,
) -> Result<Hash, SkeletonError> {
    let mut hasher = Sha256::new();
    write(message, spans, salts, event_id, |bytes| {
        hasher.update(bytes)
    })?;
    Ok(Hash(hasher.finalize().into()))
}

/// What the digest of a payload is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// The payload is there, and this is its salt.
    Salt([u8; 32]),
    /// The payload is erased, and this is its digest.
    Erased(Hash),
}

/// The hash of an encoded message, for those who do not have the run's secret. Where a payload is
/// erased, the message must have zeros: the hash does not depend on what is there.
pub fn hash_with(message: &[u8], payloads: &[(Span, Secret)]) -> Result<Hash, SkeletonError> {
    let mut hasher = Sha256::new();
    let spans = payloads.iter().map(|(span, _)| *span);
    let digest = |number: u32, payload: &[u8]| match payloads.get(number as usize)?.1 {
        Secret::Salt(salt) => Some(digest(&salt, payload)),
        Secret::Erased(digest) => payload.iter().all(|byte| *byte == 0).then_some(digest),
    };
    write_with(message, spans, digest, |bytes| hasher.update(bytes))?;
    Ok(Hash(hasher.finalize().into()))
}

fn digest(salt: &[u8; 32], payload: &[u8]) -> Hash {
    let hash = Sha256::new().chain_update(salt).chain_update(payload);
    Hash(hash.finalize().into())
}

/// The skeleton of an encoded message: what is left of it once its payloads are erased.
pub fn skeleton(
    message: &[u8],
    spans: &[Span],
    salts: &SaltKey,
    event_id: i64,
) -> Result<Vec<u8>, SkeletonError> {
    let mut skeleton = Vec::with_capacity(message.len() + 8 + spans.len() * 40);
    write(message, spans, salts, event_id, |bytes| {
        skeleton.extend_from_slice(bytes);
    })?;
    Ok(skeleton)
}

/// Whether stored bytes are a skeleton, not a whole message.
pub fn is_skeleton(bytes: &[u8]) -> bool {
    bytes.first() == Some(&MARK)
}

/// A message of the same length, with zeros where the erased payloads were, and their spans with
/// their digests.
pub fn restore(skeleton: &[u8]) -> Result<(Vec<u8>, Vec<Erased>), SkeletonError> {
    let mut input = Reader(skeleton);
    if input.take(1)? != [MARK] {
        return Err(SkeletonError::Format);
    }
    let count = input.number()?;
    let mut spans = Vec::new();
    for _ in 0..count {
        let (offset, length) = (input.number()?, input.number()?);
        let digest = input
            .take(32)?
            .try_into()
            .map_err(|_| SkeletonError::Format)?;
        spans.push((Span { offset, length }, Hash(digest)));
    }
    let mut rest = input.0;
    let mut message = Vec::with_capacity(rest.len());
    for (span, _) in &spans {
        let before = (span.offset as usize)
            .checked_sub(message.len())
            .ok_or(SkeletonError::Format)?;
        let (part, after) = rest.split_at_checked(before).ok_or(SkeletonError::Format)?;
        message.extend_from_slice(part);
        rest = after;
        // The lengths are not held by any bytes of the skeleton: refuse what cannot be one.
        let length = message.len() + span.length as usize;
        if length > MAX_MESSAGE {
            return Err(SkeletonError::Format);
        }
        message.resize(length, 0);
    }
    message.extend_from_slice(rest);
    Ok((message, spans))
}

/// No stored message is longer.
const MAX_MESSAGE: usize = 1 << 28;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], SkeletonError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(SkeletonError::Format)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, SkeletonError> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes(
            bytes.try_into().map_err(|_| SkeletonError::Format)?,
        ))
    }
}

fn write(
    message: &[u8],
    spans: &[Span],
    salts: &SaltKey,
    event_id: i64,
    out: impl FnMut(&[u8]),
) -> Result<(), SkeletonError> {
    let digest = |number, payload: &[u8]| Some(salts.digest(event_id, number, payload));
    write_with(message, spans.iter().copied(), digest, out)
}

/// `digest` gives none for a payload that cannot be the one that was there.
fn write_with(
    message: &[u8],
    spans: impl ExactSizeIterator<Item = Span> + Clone,
    digest: impl Fn(u32, &[u8]) -> Option<Hash>,
    mut out: impl FnMut(&[u8]),
) -> Result<(), SkeletonError> {
    let count = u32::try_from(spans.len()).map_err(|_| SkeletonError::Spans)?;
    out(&[MARK]);
    out(&count.to_be_bytes());
    for (number, span) in (0..count).zip(spans.clone()) {
        let end = span.offset as usize + span.length as usize;
        let payload = message
            .get(span.offset as usize..end)
            .ok_or(SkeletonError::Spans)?;
        out(&span.offset.to_be_bytes());
        out(&span.length.to_be_bytes());
        out(&digest(number, payload).ok_or(SkeletonError::Erased)?.0);
    }
    let mut from = 0;
    for span in spans {
        let rest = message
            .get(from..span.offset as usize)
            .ok_or(SkeletonError::Spans)?;
        out(rest);
        from = span.offset as usize + span.length as usize;
    }
    out(message.get(from..).ok_or(SkeletonError::Spans)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::fixture::spans_of;

    const KEY: SaltKey = SaltKey([7; 32]);

    #[test]
    fn what_is_erased_can_still_be_hashed() {
        let message = b"\x0a\x05\x12\x03abc\x1a\x02hi";
        let spans = spans_of(message);
        let whole = hash(message, &spans, &KEY, 5).expect("spans fit");
        let skeleton = skeleton(message, &spans, &KEY, 5).expect("spans fit");
        assert!(is_skeleton(&skeleton) && !is_skeleton(message));
        assert!(!skeleton.windows(3).any(|window| window == b"abc"));
        assert_eq!(Hash::of(&skeleton), whole);
        let (restored, erased) = restore(&skeleton).expect("a skeleton");
        assert_eq!(restored, b"\x0a\x05\x12\x03\0\0\0\x1a\x02hi");
        assert_eq!(erased.len(), 1);
        assert_eq!(erased[0].0, spans[0]);
    }

    #[test]
    fn whoever_has_the_salts_gets_the_same_hash() {
        let message = b"\x0a\x05\x12\x03abc\x0a\x03\x12\x01z\x1a\x02hi";
        let spans = spans_of(message);
        let whole = hash(message, &spans, &KEY, 5);
        let salted = |number: usize| (spans[number], Secret::Salt(KEY.salt(5, number as u32)));
        assert_eq!(hash_with(message, &[salted(0), salted(1)]), whole);
        assert_ne!(hash_with(message, &[salted(1), salted(0)]), whole);
        let skeleton = skeleton(message, &spans, &KEY, 5).expect("spans fit");
        let (restored, erased) = restore(&skeleton).expect("a skeleton");
        let erased = |number: usize| (erased[number].0, Secret::Erased(erased[number].1));
        assert_eq!(hash_with(&restored, &[erased(0), erased(1)]), whole);
        let refused = Err(SkeletonError::Erased);
        assert_eq!(hash_with(message, &[erased(0), erased(1)]), refused);
    }

    #[test]
    fn the_hash_depends_on_everything() {
        let message = b"\x0a\x05\x12\x03abc\x1a\x02hi";
        let spans = spans_of(message);
        let whole = hash(message, &spans, &KEY, 5);
        for place in 0..message.len() {
            let mut changed = *message;
            changed[place] ^= 1;
            assert_ne!(hash(&changed, &spans, &KEY, 5), whole, "byte {place}");
        }
        assert_ne!(hash(message, &spans, &KEY, 6), whole);
        assert_ne!(hash(message, &spans, &SaltKey([8; 32]), 5), whole);
        assert_ne!(hash(message, &[], &KEY, 5), whole);
    }

    #[test]
    fn spans_that_do_not_fit_are_refused() {
        let span = |offset, length| Span { offset, length };
        for spans in [
            vec![span(3, 1)],
            vec![span(0, 4)],
            vec![span(u32::MAX, u32::MAX)],
            vec![span(1, 1), span(0, 1)],
            vec![span(0, 2), span(1, 1)],
        ] {
            assert_eq!(hash(b"abc", &spans, &KEY, 1), Err(SkeletonError::Spans));
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let spans = spans_of(&bytes);
            let skeleton = skeleton(&bytes, &spans, &KEY, 1).expect("found spans fit");
            let (restored, _) = restore(&skeleton).expect("a skeleton");
            assert_eq!(restored.len(), bytes.len());
            let _ = restore(&bytes);
        }
    }
}
