//! Payloads, decoded for people: JSON with its lines broken and nothing else changed, text, or bytes.

use maud::{Markup, html};
use serde::de::IgnoredAny;
use steadfast_engine::proto::common::{Payload, Payloads};
use steadfast_runtime::evidence::ENCODING as ERASED;

use super::text;

/// Most bytes of one payload in a page.
const MAX_SHOWN: usize = 32 << 10;

/// Most payloads of one list in a page.
const MAX_PAYLOADS: usize = 50;

/// Most bytes that are shown of what is no text.
const MAX_BINARY: usize = 256;

/// A list of payloads, such as arguments.
pub fn payloads(of: &Payloads) -> Markup {
    html! {
        @for payload in of.payloads.iter().take(MAX_PAYLOADS) { (show(payload)) }
        @if of.payloads.len() > MAX_PAYLOADS {
            p.note { "and " (of.payloads.len() - MAX_PAYLOADS) " more" }
        }
    }
}

/// One payload.
pub fn show(payload: &Payload) -> Markup {
    let encoding = payload.metadata.get("encoding").map(Vec::as_slice);
    let name = String::from_utf8_lossy(encoding.unwrap_or_default());
    let size = text::bytes(payload.data.len());
    if name.as_bytes() == ERASED.as_bytes() {
        return html! { p.payload-kind { "erased" } };
    }
    let content = match encoding {
        Some(b"binary/null") => html! { pre.payload { "null" } },
        Some(b"json/plain" | b"json/protobuf") => json(&payload.data),
        _ => plain(&payload.data),
    };
    html! {
        figure.payload-box {
            figcaption.payload-kind {
                @if name.is_empty() { "no encoding" } @else { (text::prose(&name, 40)) }
                " · " (size)
            }
            (content)
        }
    }
}

/// A payload in one line.
pub fn brief(payload: &Payload, max: usize) -> String {
    match std::str::from_utf8(&payload.data) {
        Ok("") => "null".to_owned(),
        Ok(content) => text::plain(content.trim(), max),
        Err(_) => text::bytes(payload.data.len()),
    }
}

fn json(data: &[u8]) -> Markup {
    let Ok(content) = std::str::from_utf8(data) else {
        return plain(data);
    };
    // What is too long to be shown whole is not broken into lines either.
    if data.len() > MAX_SHOWN || serde_json::from_str::<IgnoredAny>(content).is_err() {
        return plain(data);
    }
    html! {
        pre.payload tabindex="0" {
            @for (is_key, piece) in pieces(content) {
                @if is_key { span.key { (text::visible(&piece)) } }
                @else { (text::visible(&piece)) }
            }
        }
    }
}

fn plain(data: &[u8]) -> Markup {
    let shown = &data[..data.len().min(MAX_SHOWN)];
    let content = match std::str::from_utf8(shown) {
        Ok(content) => Some(content),
        // The cut may have gone through a character.
        Err(error) if data.len() > MAX_SHOWN && error.valid_up_to() + 4 > shown.len() => {
            std::str::from_utf8(&shown[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let left_out = data.len().saturating_sub(MAX_SHOWN);
    html! {
        @match content {
            Some(content) => {
                pre.payload tabindex="0" { (text::visible(content)) }
                @if left_out > 0 { p.note { (text::bytes(left_out)) " more are in the history as JSON" } }
            }
            None => {
                pre.payload tabindex="0" { (hexadecimal(&data[..data.len().min(MAX_BINARY)])) }
                @if data.len() > MAX_BINARY { p.note { "the first " (MAX_BINARY) " bytes, which are no text" } }
            }
        }
    }
}

fn hexadecimal(data: &[u8]) -> String {
    let lines = data.chunks(16).map(|line| {
        let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Valid JSON with its lines broken: keys, and all between them. Numbers and strings are as they were
/// written, and so is the order.
fn pieces(content: &str) -> Vec<(bool, String)> {
    let mut out = Writer::default();
    let mut characters = content.char_indices().peekable();
    while let Some((start, character)) = characters.next() {
        match character {
            '"' => {
                let mut end = start + 1;
                while let Some((at, inner)) = characters.next() {
                    end = at + 1;
                    match inner {
                        '\\' => {
                            characters.next();
                        }
                        '"' => break,
                        _ => {}
                    }
                }
                let rest = content[end..].trim_start();
                out.text(&content[start..end], rest.starts_with(':'));
            }
            '{' | '[' => {
                let closes = content[start + 1..].trim_start().starts_with(['}', ']']);
                out.open(character, closes);
            }
            '}' | ']' => out.close(character),
            ',' => {
                out.plain.push(',');
                out.line();
            }
            ':' => out.plain.push_str(": "),
            other if other.is_ascii_whitespace() => {}
            other => out.plain.push(other),
        }
    }
    out.flush();
    out.pieces
}

#[derive(Default)]
struct Writer {
    pieces: Vec<(bool, String)>,
    plain: String,
    depth: usize,
    is_empty: bool,
}

impl Writer {
    fn text(&mut self, text: &str, is_key: bool) {
        if is_key {
            self.flush();
            self.pieces.push((true, text.to_owned()));
        } else {
            self.plain.push_str(text);
        }
    }

    fn open(&mut self, character: char, is_empty: bool) {
        self.plain.push(character);
        self.is_empty = is_empty;
        self.depth += 1;
        if !is_empty {
            self.line();
        }
    }

    fn close(&mut self, character: char) {
        self.depth = self.depth.saturating_sub(1);
        if !std::mem::take(&mut self.is_empty) {
            self.line();
        }
        self.plain.push(character);
    }

    fn line(&mut self) {
        self.plain.push('\n');
        // Deep nesting is not to make a page of blanks.
        self.plain.push_str(&"  ".repeat(self.depth.min(24)));
    }

    fn flush(&mut self) {
        if !self.plain.is_empty() {
            self.pieces.push((false, std::mem::take(&mut self.plain)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(encoding: &str, data: &[u8]) -> Payload {
        Payload {
            metadata: [("encoding".to_owned(), encoding.into())].into(),
            data: data.into(),
            ..Payload::default()
        }
    }

    fn broken(content: &str) -> String {
        pieces(content).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn json_is_as_it_was_written_but_for_its_lines() {
        let written = r#"{"b":1.0e400,"a":[1,{"x":"y, {:\"\\"}],"b":{},"c":[ ]}"#;
        let expected = "{\n  \"b\": 1.0e400,\n  \"a\": [\n    1,\n    {\n      \"x\": \"y, {:\\\"\\\\\"\n    }\n  ],\n  \"b\": {},\n  \"c\": []\n}";
        assert_eq!(broken(written), expected);
        assert_eq!(broken("\"é\""), "\"é\"");
        assert_eq!(broken(" [ ] "), "[]");
    }

    #[test]
    fn nothing_in_a_payload_is_markup() {
        let script = b"\"<script>alert(1)</script>\"";
        for encoding in ["json/plain", "text/html", "<script>", ""] {
            let shown = show(&payload(encoding, script)).into_string();
            assert!(!shown.contains("<script"), "{shown}");
            assert!(shown.contains("&lt;script&gt;"));
        }
    }

    #[test]
    fn what_is_long_or_no_text_is_cut() {
        let long = show(&payload("json/plain", &[b'1'; 3 << 20])).into_string();
        assert!(long.len() < MAX_SHOWN + 1000 && long.contains("3.0 MiB"));
        let umlauts = "ü".repeat(MAX_SHOWN);
        let long = show(&payload("text/plain", format!("x{umlauts}").as_bytes())).into_string();
        assert!(long.contains("xüü"));
        let binary = show(&payload("binary/encrypted", &[0xff; 4096])).into_string();
        assert!(binary.contains("ff ff") && binary.len() < 2000);
        assert!(
            show(&payload("binary/null", b""))
                .into_string()
                .contains(">null<")
        );
    }
}
