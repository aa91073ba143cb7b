//! Where payloads are in encoded messages, by the shapes of their schema: finding them, and writing
//! messages with something else in their place.

use std::collections::HashMap;

use crate::skeleton::Span;

/// Messages nested deeper than this are not looked into: what is there is hashed as it is.
const MAX_DEPTH: usize = 100;

/// Which fields of which messages hold payloads: the part of a schema that finding spans takes.
#[derive(Debug, Default)]
pub struct Shapes {
    messages: Vec<Shape>,
    names: Vec<String>,
    by_name: HashMap<String, usize>,
}

/// The fields of one message that matter, sorted by number.
type Shape = Vec<(u32, Field)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// A span.
    Payload,
    /// A message that may contain some, by its place in `messages`.
    Message(usize),
}

/// A field of a message, as a schema describes it.
#[derive(Clone, Debug)]
pub struct FieldShape {
    /// Full name of the message that it belongs to.
    pub message: String,
    /// Its number.
    pub number: u32,
    /// Full name of the message that it holds, if it holds one.
    pub holds: Option<String>,
    /// Whether its bytes are a payload.
    pub is_payload: bool,
}

impl Shapes {
    /// Made of all fields of all messages. Only those on a way to a payload are kept.
    pub fn new(fields: impl IntoIterator<Item = FieldShape>) -> Self {
        let mut shapes = Self::default();
        for field in fields {
            let of = shapes.place(&field.message);
            let kind = match (&field.holds, field.is_payload) {
                (_, true) => Field::Payload,
                (Some(name), _) => Field::Message(shapes.place(name)),
                (None, _) => continue,
            };
            shapes.messages[of].push((field.number, kind));
        }
        shapes.drop_dead_ends();
        for shape in &mut shapes.messages {
            shape.sort_unstable_by_key(|(number, _)| *number);
        }
        shapes
    }

    /// The place of a message for [`Shapes::spans`]; none if it is unknown.
    pub fn find(&self, name: &str) -> Option<MessageShape> {
        self.by_name.get(name).map(|place| MessageShape(*place))
    }

    /// Finds the payloads in an encoded message, in order, and adds them to `spans`. What is not
    /// valid protobuf has none from there on.
    pub fn spans(&self, message: &[u8], shape: MessageShape, spans: &mut Vec<Span>) {
        // An encoded message has less than 4 GiB.
        if u32::try_from(message.len()).is_ok() {
            self.walk(message, 0, shape.0, 0, spans);
        }
    }

    fn walk(
        &self,
        message: &[u8],
        base: usize,
        place: usize,
        depth: usize,
        spans: &mut Vec<Span>,
    ) -> Option<()> {
        let shape = self.messages.get(place)?;
        if shape.is_empty() || depth > MAX_DEPTH {
            return Some(());
        }
        let mut at = 0;
        while at < message.len() {
            let (number, content) = field(message, &mut at)?;
            match find(shape, number) {
                Some(Field::Payload) => spans.push(Span {
                    offset: u32::try_from(base + content.start).ok()?,
                    length: u32::try_from(content.len()).ok()?,
                }),
                Some(Field::Message(inner)) => {
                    let base = base + content.start;
                    self.walk(&message[content], base, inner, depth + 1, spans)?;
                }
                None => {}
            }
        }
        Some(())
    }

    /// Writes a message again with other fields in the place of its payloads: for those that
    /// [`Shapes::spans`] finds. `with` is told the name of the message that the payload is a field of,
    /// and the field's number; it gives encoded fields.
    pub fn replace(
        &self,
        message: &[u8],
        shape: MessageShape,
        with: &mut dyn FnMut(&str, u32) -> Vec<u8>,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len());
        self.rewrite(message, shape.0, 0, with, &mut out);
        out
    }

    /// None where the message is not valid: from there on it is copied.
    fn rewrite(
        &self,
        message: &[u8],
        place: usize,
        depth: usize,
        with: &mut dyn FnMut(&str, u32) -> Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let shape = self.messages.get(place).map_or(&[][..], Vec::as_slice);
        let (mut at, mut copied) = (0, 0);
        let mut is_valid = Some(());
        while at < message.len() && !shape.is_empty() && depth <= MAX_DEPTH && is_valid.is_some() {
            let begin = at;
            let Some((number, content)) = field(message, &mut at) else {
                is_valid = None;
                break;
            };
            let end = content.end;
            let Some(found) = find(shape, number) else {
                continue;
            };
            out.extend_from_slice(&message[copied..begin]);
            copied = end;
            match found {
                Field::Payload => out.extend(with(&self.names[place], number)),
                Field::Message(inner) => {
                    let mut rewritten = Vec::with_capacity(content.len());
                    let content = &message[content];
                    is_valid = self.rewrite(content, inner, depth + 1, with, &mut rewritten);
                    put_field(out, number, &rewritten);
                }
            }
        }
        out.extend_from_slice(&message[copied..]);
        is_valid
    }

    fn place(&mut self, name: &str) -> usize {
        if let Some(place) = self.by_name.get(name) {
            return *place;
        }
        self.messages.push(Shape::new());
        self.names.push(name.to_owned());
        let place = self.messages.len() - 1;
        self.by_name.insert(name.to_owned(), place);
        place
    }

    /// Leaves out fields that lead to no payload, so that most of a message is skipped, not walked.
    fn drop_dead_ends(&mut self) {
        let mut alive: Vec<bool> = vec![false; self.messages.len()];
        loop {
            let before = alive.iter().filter(|alive| **alive).count();
            for (place, shape) in self.messages.iter().enumerate() {
                alive[place] |= shape.iter().any(|(_, field)| match field {
                    Field::Payload => true,
                    Field::Message(inner) => alive[*inner],
                });
            }
            if alive.iter().filter(|alive| **alive).count() == before {
                break;
            }
        }
        for shape in &mut self.messages {
            shape.retain(|(_, field)| match field {
                Field::Payload => true,
                Field::Message(inner) => alive[*inner],
            });
        }
    }
}

/// The shape of one message of a [`Shapes`].
#[derive(Clone, Copy, Debug)]
pub struct MessageShape(usize);

/// The fields of an encoded message, in order, read in place. What is not valid protobuf has none from
/// there on.
pub struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

/// What one field of a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A number of wire type 0, as it is written.
    Varint(u64),
    /// 8 or 4 bytes: wire types 1 and 5.
    Fixed(&'a [u8]),
    /// What has a length: wire type 2.
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// Of an encoded message.
    pub fn of(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let from = self.at;
        self.at = from.checked_add(length)?;
        self.message.get(from..self.at)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Content<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = varint(self.message, &mut self.at)?;
        let number = u32::try_from(tag >> 3).ok()?;
        let content = match tag & 7 {
            0 => Content::Varint(varint(self.message, &mut self.at)?),
            1 => Content::Fixed(self.take(8)?),
            2 => {
                let length = usize::try_from(varint(self.message, &mut self.at)?).ok()?;
                Content::Bytes(self.take(length)?)
            }
            5 => Content::Fixed(self.take(4)?),
            _ => return None,
        };
        Some((number, content))
    }
}

/// The next field: its number, and the place of its content if it has a length and is not empty.
fn field(message: &[u8], at: &mut usize) -> Option<(u32, std::ops::Range<usize>)> {
    let mut fields = Fields { message, at: *at };
    let (number, content) = fields.next()?;
    *at = fields.at;
    match content {
        Content::Bytes(bytes) if !bytes.is_empty() => Some((number, *at - bytes.len()..*at)),
        // No field has this number.
        _ => Some((0, *at..*at)),
    }
}

/// What a field holds, if it matters.
fn find(shape: &[(u32, Field)], number: u32) -> Option<Field> {
    let known = shape.iter().find(|(of, _)| *of == number);
    known.map(|(_, field)| *field)
}

/// Writes a field that has a length.
pub fn put_field(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;

    /// `Outer { 1: Inner { 2: payload }, 3: text }`, and `Outer` in `Outer` as field 4.
    pub(crate) fn shapes() -> Shapes {
        let field = |message: &str, number, holds: Option<&str>, is_payload| FieldShape {
            message: message.to_owned(),
            number,
            holds: holds.map(str::to_owned),
            is_payload,
        };
        Shapes::new([
            field("Outer", 1, Some("Inner"), false),
            field("Outer", 3, None, false),
            field("Outer", 4, Some("Outer"), false),
            field("Outer", 5, Some("Dull"), false),
            field("Dull", 1, Some("Dull"), false),
            field("Inner", 1, None, false),
            field("Inner", 2, None, true),
        ])
    }

    pub(crate) fn spans_of(message: &[u8]) -> Vec<Span> {
        let shapes = shapes();
        let mut spans = Vec::new();
        let outer = shapes.find("Outer").expect("it is there");
        shapes.spans(message, outer, &mut spans);
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::*;
    use super::*;

    #[test]
    fn finds_payloads_at_any_depth_and_skips_the_rest() {
        //             text "hi"      Inner { payload "abc" }        Outer { Inner { payload "z" } }
        let message = b"\x1a\x02hi\x0a\x05\x12\x03abc\x22\x05\x0a\x03\x12\x01z\x2a\x02\x0a\x00";
        let found = spans_of(message);
        let texts: Vec<&[u8]> = found
            .iter()
            .map(|span| &message[span.offset as usize..][..span.length as usize])
            .collect();
        assert_eq!(texts, [b"abc".as_slice(), b"z".as_slice()]);
    }

    #[test]
    fn fields_are_read_in_place_up_to_what_is_not_valid() {
        let message = b"\x08\x96\x01\x12\x02hi\x1d1234\x21 8 bytes\x0a\x7f";
        let fields: Vec<(u32, Content<'_>)> = Fields::of(message).collect();
        let expected = [
            (1, Content::Varint(150)),
            (2, Content::Bytes(b"hi")),
            (3, Content::Fixed(b"1234")),
            (4, Content::Fixed(b" 8 bytes")),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn an_empty_payload_is_no_span() {
        assert_eq!(spans_of(b"\x0a\x02\x12\x00"), []);
    }

    #[test]
    fn payloads_are_replaced_at_any_depth() {
        let message = b"\x1a\x02hi\x0a\x05\x12\x03abc\x22\x05\x0a\x03\x12\x01z\x2a\x02\x0a\x00";
        let shapes = shapes();
        let outer = shapes.find("Outer").expect("it is there");
        let mut replaced = Vec::new();
        let out = shapes.replace(message, outer, &mut |name, number| {
            replaced.push((name.to_owned(), number));
            let mut field = Vec::new();
            put_field(&mut field, 1, &[b'x'; 200]);
            field
        });
        assert_eq!(replaced, [("Inner".to_owned(), 2), ("Inner".to_owned(), 2)]);
        let x = [b'x'; 200];
        let inner = [b"\x0a\xc8\x01".as_slice(), &x].concat();
        let expected = [
            b"\x1a\x02hi\x0a\xcb\x01".as_slice(),
            &inner,
            b"\x22\xce\x01\x0a\xcb\x01",
            &inner,
            b"\x2a\x02\x0a\x00",
        ];
        assert_eq!(out, expected.concat());
    }

    proptest::proptest! {
        #[test]
        fn what_is_not_replaced_stays_as_it_was(bytes: Vec<u8>) {
            // What cannot be a message is copied, and each payload replaced once.
            let shapes = shapes();
            let outer = shapes.find("Outer").expect("it is there");
            let mut count = 0;
            let out = shapes.replace(&bytes, outer, &mut |_, _| {
                count += 1;
                Vec::new()
            });
            assert_eq!(count, spans_of(&bytes).len());
            assert!(count > 0 || bytes.is_empty() || !out.is_empty());
        }
    }
}
