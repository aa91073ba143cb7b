//! Writing canonical JSON (RFC 8785): keys in order, no spaces, one way to write each string.
//!
//! Keys are ASCII and written in order by whoever writes an object. Numbers are integers that a
//! double holds exactly; what may be larger is written as a string.

use std::fmt::Write;

/// Writes one object: the keys must be given in ascending order.
pub(crate) struct Object<'a> {
    out: &'a mut String,
    #[cfg(debug_assertions)]
    last: &'static str,
    is_empty: bool,
}

impl<'a> Object<'a> {
    pub(crate) fn begin(out: &'a mut String) -> Self {
        out.push('{');
        Self {
            out,
            #[cfg(debug_assertions)]
            last: "",
            is_empty: true,
        }
    }

    pub(crate) fn end(self) {
        self.out.push('}');
    }

    pub(crate) fn string(&mut self, key: &'static str, value: &str) {
        string(self.key(key), value);
    }

    /// Left out if it is empty.
    pub(crate) fn string_unless_empty(&mut self, key: &'static str, value: &str) {
        if !value.is_empty() {
            self.string(key, value);
        }
    }

    /// A value that needs no escapes.
    pub(crate) fn plain(&mut self, key: &'static str, value: impl std::fmt::Display) {
        let out = self.key(key);
        // Writing to a string does not fail.
        let _ = write!(out, "\"{value}\"");
    }

    pub(crate) fn number(&mut self, key: &'static str, value: i64) {
        let _ = write!(self.key(key), "{value}");
    }

    pub(crate) fn flag(&mut self, key: &'static str) {
        self.key(key).push_str("true");
    }

    pub(crate) fn object(&mut self, key: &'static str, write: impl FnOnce(&mut Object<'_>)) {
        let mut object = Object::begin(self.key(key));
        write(&mut object);
        object.end();
    }

    /// A list of objects; left out if it is empty.
    pub(crate) fn objects<T>(
        &mut self,
        key: &'static str,
        items: &[T],
        write: impl Fn(&mut Object<'_>, &T),
    ) {
        if items.is_empty() {
            return;
        }
        let out = self.key(key);
        out.push('[');
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            let mut object = Object::begin(out);
            write(&mut object, item);
            object.end();
        }
        out.push(']');
    }

    /// A list of strings; left out if it is empty.
    pub(crate) fn strings(&mut self, key: &'static str, items: &[impl AsRef<str>]) {
        if items.is_empty() {
            return;
        }
        let out = self.key(key);
        for (place, item) in items.iter().enumerate() {
            out.push(if place == 0 { '[' } else { ',' });
            string(out, item.as_ref());
        }
        out.push(']');
    }

    fn key(&mut self, key: &'static str) -> &mut String {
        #[cfg(debug_assertions)]
        {
            debug_assert!(self.last < key, "{key} after {}", self.last);
            self.last = key;
        }
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(',');
        }
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
        self.out
    }
}

/// A string with the escapes of RFC 8785, section 3.2.2.2.
fn string(out: &mut String, value: &str) {
    out.push('"');
    let mut from = 0;
    for (at, byte) in value.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&value[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x08 => out.push_str("\\b"),
            0x0c => out.push_str("\\f"),
            _ => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
    }
    out.push_str(&value[from..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_as_the_rfc_writes_them() {
        let mut out = String::new();
        // The sample of RFC 8785, section 3.2.2.
        string(&mut out, "\u{20ac}$\u{f}\nA'B\"\\\\\"/");
        assert_eq!(out, "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"");
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(value: String) {
            let mut out = String::new();
            string(&mut out, &value);
            let read: String = serde_json::from_str(&out).expect("valid JSON");
            assert_eq!(read, value);
        }
    }
}
