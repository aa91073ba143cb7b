//! What others wrote, as a page may show it.
//!
//! Every id, type, message and payload comes from workflows, workers and callers, and is hostile until
//! proven otherwise. Markup is escaped by the templates. What could mislead the eye, such as characters
//! that turn the direction of writing around, is shown by its number; what is long is cut.

use maud::{Markup, html};

/// Most characters of a name in a page.
const MAX_NAME: usize = 200;

/// A name: of a workflow, a type, a person.
pub fn name(text: &str) -> Markup {
    prose(text, MAX_NAME)
}

/// A text of one or several lines, at most `max` characters of it.
pub fn prose(text: &str, max: usize) -> Markup {
    let (shown, cut) = cut(text, max);
    html! {
        bdi { (visible(shown)) }
        @if cut { span.cut title="there is more of it" { "…" } }
    }
}

/// The first characters of a text, and whether there are more.
pub fn cut(text: &str, max: usize) -> (&str, bool) {
    match text.char_indices().nth(max) {
        Some((end, _)) => (&text[..end], true),
        None => (text, false),
    }
}

/// The text, with characters that are not seen as what they are shown by their numbers.
pub fn visible(text: &str) -> Markup {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(misleads) {
        let (before, after) = rest.split_at(at);
        let odd = after.chars().next().unwrap_or_default();
        parts.push((before, Some(odd)));
        rest = &after[odd.len_utf8()..];
    }
    parts.push((rest, None));
    html! {
        @for (plain, odd) in parts {
            (plain)
            @if let Some(odd) = odd { span.odd { (format!("U+{:04X}", u32::from(odd))) } }
        }
    }
}

/// The same for attributes and titles, which have no markup.
pub fn plain(text: &str, max: usize) -> String {
    let (shown, cut) = cut(text, max);
    let mut out = String::with_capacity(shown.len());
    for character in shown.chars() {
        match misleads(character) {
            true => out.push_str(&format!("\\u{{{:x}}}", u32::from(character))),
            false => out.push(character),
        }
    }
    if cut {
        out.push('…');
    }
    out
}

/// Controls, and marks that change how what follows is written or are not seen at all.
fn misleads(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}' | '\u{00ad}' => true,
        '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        // Characters of tags, which nobody sees.
        '\u{e0000}'..='\u{e007f}' => true,
        other => other.is_control(),
    }
}

/// A part of a URL: all but letters, digits and `-._~` by their numbers (RFC 3986, 2.3).
pub fn encode(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// A query of a URL, of the pairs that are not empty.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (key, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        out.push(if out.is_empty() { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        out.push_str(&encode(value));
    }
    out
}

/// The fields of a form, as browsers send them (`application/x-www-form-urlencoded`).
pub fn form(body: &[u8]) -> Vec<(String, String)> {
    let pairs = body.split(|byte| *byte == b'&').filter(|of| !of.is_empty());
    let pairs = pairs.map(|pair| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let mut next = || decode(halves.next().unwrap_or_default());
        (next(), next())
    });
    pairs.collect()
}

fn decode(part: &[u8]) -> String {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut out = Vec::with_capacity(part.len());
    let mut at = 0;
    while let Some(byte) = part.get(at) {
        at += 1;
        let number = match byte {
            b'%' => digit(part.get(at)).zip(digit(part.get(at + 1))),
            _ => None,
        };
        match (byte, number) {
            (_, Some((high, low))) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 2;
            }
            (b'+', None) => out.push(b' '),
            (other, None) => out.push(*other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A number of bytes.
pub fn bytes(count: usize) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

/// A number with its noun.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {many}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misleads_is_shown_by_its_number() {
        let shown = name("a\u{202e}gpj.<b>\u{7}").into_string();
        assert_eq!(
            shown,
            "<bdi>a<span class=\"odd\">U+202E</span>gpj.&lt;b&gt;<span class=\"odd\">U+0007</span></bdi>"
        );
        assert_eq!(plain("x\u{202e}\u{200b}y", 99), "x\\u{202e}\\u{200b}y");
        assert_eq!(plain("äöüß", 2), "äö…");
        assert!(name(&"x".repeat(10_000)).into_string().len() < 400);
    }

    #[test]
    fn parts_of_urls_come_back() {
        let odd = "a/b?c=d&e#f%2F ..\u{202e}\"<é>";
        let sent = query(&[("id", odd), ("none", ""), ("run", "1")]);
        assert!(sent.starts_with("?id=a%2Fb"), "{sent}");
        let read = form(&sent.as_bytes()[1..]);
        assert_eq!(
            read,
            [("id".into(), odd.into()), ("run".into(), "1".into())]
        );
    }

    #[test]
    fn any_body_is_a_form() {
        assert_eq!(form(b""), []);
        let read = form(b"a+b=%zz%4&&c&=d&%ff=%2B");
        let expected = [("a b", "%zz%4"), ("c", ""), ("", "d"), ("\u{fffd}", "+")];
        assert_eq!(read, expected.map(|(k, v)| (k.into(), v.into())));
    }
}
