//! The arguments of a tool call, as policies see them.
//!
//! Cedar is typed, and JSON is not: so each value is found by its path, a JSON Pointer (RFC 6901) into the
//! list of arguments, among the values of its type. `/0/amount` is the member `amount` of the first
//! argument. Integers are numbers, and decimals as well; numbers with up to four digits after the point
//! are decimals. Strings are texts, booleans flags, arrays of strings lists. What Cedar has no type for
//! is unmapped, and policies can see that it is there. Null is nothing.
//!
//! An argument that is no JSON (encrypted, binary), and a list of arguments beyond the limits, is opaque:
//! then there are no values at all.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Values of one tool call.
const MAX_VALUES: usize = 2_000;

/// Bytes of all paths and texts.
const MAX_BYTES: usize = 256 << 10;

/// How deep values may be.
const MAX_DEPTH: usize = 32;

/// One argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// JSON.
    Json(Value),
    /// What cannot be read here.
    Opaque,
}

/// All arguments, by the types of their values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments {
    pub(crate) numbers: BTreeMap<String, i64>,
    pub(crate) decimals: BTreeMap<String, String>,
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) flags: BTreeMap<String, bool>,
    pub(crate) lists: BTreeMap<String, BTreeSet<String>>,
    pub(crate) unmapped: BTreeSet<String>,
    pub(crate) opaque: bool,
}

struct TooMuch;

impl Arguments {
    /// Of a list of arguments.
    pub fn new(arguments: impl IntoIterator<Item = Argument>) -> Self {
        let mut of = Self::default();
        let mut budget = Budget {
            values: MAX_VALUES,
            bytes: MAX_BYTES,
        };
        for (number, argument) in arguments.into_iter().enumerate() {
            let added = match &argument {
                Argument::Json(value) => of.add(format!("/{number}"), value, 0, &mut budget),
                Argument::Opaque => Err(TooMuch),
            };
            if added.is_err() {
                return Self {
                    opaque: true,
                    ..Self::default()
                };
            }
        }
        of
    }

    fn add(
        &mut self,
        path: String,
        value: &Value,
        depth: usize,
        budget: &mut Budget,
    ) -> Result<(), TooMuch> {
        budget.take(path.len())?;
        if depth > MAX_DEPTH {
            return Err(TooMuch);
        }
        match value {
            Value::Null => {}
            Value::Bool(flag) => {
                self.flags.insert(path, *flag);
            }
            Value::Number(number) => self.number(path, number),
            Value::String(text) => {
                budget.take(text.len())?;
                self.texts.insert(path, text.clone());
            }
            Value::Array(items) => {
                for (number, item) in items.iter().enumerate() {
                    self.add(format!("{path}/{number}"), item, depth + 1, budget)?;
                }
                let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
                if let Some(texts) = texts.collect::<Option<BTreeSet<String>>>() {
                    budget.take(texts.iter().map(String::len).sum())?;
                    self.lists.insert(path, texts);
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    self.add(format!("{path}/{name}"), member, depth + 1, budget)?;
                }
            }
        }
        Ok(())
    }

    fn number(&mut self, path: String, number: &serde_json::Number) {
        if let Some(decimal) = decimal(&number.to_string()) {
            self.decimals.insert(path.clone(), decimal);
        } else if number.as_i64().is_none() {
            self.unmapped.insert(path.clone());
        }
        if let Some(number) = number.as_i64() {
            self.numbers.insert(path, number);
        }
    }
}

/// A number as Cedar writes decimals, if it is one: 1 to 4 digits after the point, and between
/// -922337203685477.5808 and 922337203685477.5807.
fn decimal(number: &str) -> Option<String> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let fits = is_plain(digits) && is_plain(fraction) && fraction.len() <= 4;
    let scaled = format!("{whole}{fraction:0<4}").parse::<i64>().ok();
    (fits && scaled.is_some()).then(|| format!("{whole}.{fraction}"))
}

struct Budget {
    values: usize,
    bytes: usize,
}

impl Budget {
    fn take(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.values = self.values.checked_sub(1).ok_or(TooMuch)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(TooMuch)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(values: impl IntoIterator<Item = Value>) -> Arguments {
        Arguments::new(values.into_iter().map(Argument::Json))
    }

    #[test]
    fn values_are_found_by_type_and_path() {
        let arguments = of([
            json!({"amount": 1200, "rate": 1.25, "to": "alice", "ok": true, "tags": ["a", "b"],
                   "a/b~c": {"deep": [1, "x"]}, "nothing": null}),
            json!(-7),
        ]);
        let text = |of: &str| of.to_owned();
        assert_eq!(
            arguments.numbers,
            [("/0/a~1b~0c/deep/0", 1), ("/0/amount", 1200), ("/1", -7)]
                .map(|(path, value)| (text(path), value))
                .into()
        );
        let decimals: Vec<_> = arguments.decimals.values().collect();
        assert_eq!(decimals, ["1200.0", "1.0", "1.25", "-7.0"]);
        assert_eq!(arguments.texts["/0/to"], "alice");
        assert!(arguments.flags["/0/ok"]);
        let tags = arguments.lists["/0/tags"].iter().collect::<Vec<_>>();
        assert_eq!(tags, ["a", "b"]);
        assert!(!arguments.lists.contains_key("/0/a~1b~0c/deep"));
        assert!(arguments.unmapped.is_empty() && !arguments.opaque);
    }

    #[test]
    fn numbers_that_cedar_has_no_type_for_are_named() {
        let arguments = of([json!({
            "fine": 0.12345, "huge": 1e300, "large": u64::MAX, "long": i64::MAX, "most": 922337203685477_i64,
        })]);
        let unmapped: Vec<_> = arguments.unmapped.iter().collect();
        assert_eq!(unmapped, ["/0/fine", "/0/huge", "/0/large"]);
        assert_eq!(arguments.numbers["/0/long"], i64::MAX);
        let decimals: Vec<_> = arguments.decimals.keys().collect();
        assert_eq!(decimals, ["/0/most"]);
    }

    #[test]
    fn what_cannot_be_read_leaves_no_values() {
        let opaque = Arguments {
            opaque: true,
            ..Arguments::default()
        };
        let some = [Argument::Json(json!({"a": 1})), Argument::Opaque];
        assert_eq!(Arguments::new(some), opaque);
        let mut deep = json!(1);
        for _ in 0..40 {
            deep = json!([deep]);
        }
        assert_eq!(of([deep]), opaque);
        assert_eq!(of([json!(vec![1; 3000])]), opaque);
        assert_eq!(of([json!("x".repeat(300 << 10))]), opaque);
        assert!(!of([json!("x".repeat(200 << 10))]).opaque);
    }
}
