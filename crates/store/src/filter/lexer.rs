//! Splits a filter's text into tokens, by MySQL's rules, which Temporal's filters follow.

use super::FilterError;

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// A name or a word of the language; only names can be in backticks.
    Name { text: String, quoted: bool },
    /// A string, without its quotes and with escapes resolved.
    Text(String),
    /// A number as it was written.
    Number(String),
    /// An operator or punctuation.
    Symbol(&'static str),
}

/// A token and where it ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Offset of the byte after it.
    pub(super) end: usize,
}

/// Longer ones first: the first that fits is taken.
const SYMBOLS: &[&str] = &[
    "<=>", "!=", "<>", "<=", ">=", "||", "&&", "=", "<", ">", "(", ")", ",", "-", "+", "*", "/",
    "%", ".", ";", "!",
];

/// All tokens of a text, and the position in it where something could not be read.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    while let Some(kind) = lexer.next_kind()? {
        tokens.push(Token {
            kind,
            end: lexer.at,
        });
    }
    Ok(tokens)
}

/// An error message of Temporal's parser names the position in the statement that it makes of the
/// filter; this much comes before it.
pub(super) const STATEMENT_BEFORE_FILTER: usize = "select * from table1 where ".len();

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn next_kind(&mut self) -> Result<Option<Kind>, FilterError> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let Some(first) = self.rest().chars().next() else {
            return Ok(None);
        };
        match first {
            '\'' | '"' => self.text(first).map(Some),
            '`' => self.quoted_name().map(Some),
            '0'..='9' => Ok(Some(self.number())),
            '.' if self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                Ok(Some(self.number()))
            }
            _ if is_name_start(first) => Ok(Some(self.name())),
            _ => self.symbol().map(Some),
        }
    }

    fn text(&mut self, quote: char) -> Result<Kind, FilterError> {
        let mut text = String::new();
        let mut characters = self.rest().char_indices().skip(1).peekable();
        while let Some((offset, character)) = characters.next() {
            if character == quote {
                if characters.next_if(|(_, next)| *next == quote).is_some() {
                    text.push(quote);
                    continue;
                }
                self.at += offset + quote.len_utf8();
                return Ok(Kind::Text(text));
            }
            if character == '\\' {
                match characters.next() {
                    Some((_, escaped)) => text.push(unescape(escaped)),
                    None => break,
                }
            } else {
                text.push(character);
            }
        }
        Err(self.error_at_end(&text))
    }

    fn quoted_name(&mut self) -> Result<Kind, FilterError> {
        let inner = &self.rest()[1..];
        match inner.find('`') {
            Some(length) if length > 0 => {
                let text = inner[..length].to_owned();
                self.at += length + 2;
                Ok(Kind::Name { text, quoted: true })
            }
            _ => Err(self.error_at_end(inner)),
        }
    }

    fn name(&mut self) -> Kind {
        let rest = self.rest();
        let length = rest.find(|c: char| !is_name_part(c)).unwrap_or(rest.len());
        let text = rest[..length].to_owned();
        self.at += length;
        Kind::Name {
            text,
            quoted: false,
        }
    }

    fn number(&mut self) -> Kind {
        let bytes = self.rest().as_bytes();
        let digits = |from: usize| {
            let rest = bytes[from..].iter();
            from + rest.take_while(|byte| byte.is_ascii_digit()).count()
        };
        let mut end;
        if bytes.starts_with(b"0x") || bytes.starts_with(b"0X") {
            let hex = bytes[2..].iter().take_while(|b| b.is_ascii_hexdigit());
            end = 2 + hex.count();
        } else {
            end = digits(0);
            if bytes.get(end) == Some(&b'.') {
                end = digits(end + 1);
            }
            if matches!(bytes.get(end), Some(b'e' | b'E')) {
                let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
                let exponent = digits(end + 1 + sign);
                if exponent > end + 1 + sign {
                    end = exponent;
                }
            }
        }
        let text = self.rest()[..end].to_owned();
        self.at += end;
        Kind::Number(text)
    }

    fn symbol(&mut self) -> Result<Kind, FilterError> {
        let found = SYMBOLS
            .iter()
            .find(|symbol| self.rest().starts_with(**symbol));
        match found {
            Some(symbol) => {
                self.at += symbol.len();
                Ok(Kind::Symbol(symbol))
            }
            None => {
                let length = self.rest().chars().next().map_or(0, char::len_utf8);
                self.at += length;
                Err(syntax_error(self.at, None))
            }
        }
    }

    fn error_at_end(&self, near: &str) -> FilterError {
        syntax_error(self.text.len(), Some(near))
    }
}

/// The error for a token that ends at `end` and does not fit.
pub(super) fn syntax_error(end: usize, near: Option<&str>) -> FilterError {
    let position = STATEMENT_BEFORE_FILTER + end + 1;
    match near.filter(|near| !near.is_empty()) {
        Some(near) => {
            FilterError::malformed(format!("syntax error at position {position} near '{near}'"))
        }
        None => FilterError::malformed(format!("syntax error at position {position}")),
    }
}

fn is_name_start(character: char) -> bool {
    character.is_alphabetic() || matches!(character, '_' | '@')
}

fn is_name_part(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '@' | '$')
}

fn unescape(escaped: char) -> char {
    match escaped {
        '0' => '\0',
        'b' => '\u{8}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'Z' => '\u{1a}',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        let tokens = tokens(text).expect("a readable text");
        tokens.into_iter().map(|token| token.kind).collect()
    }

    fn text(text: &str) -> Kind {
        Kind::Text(text.to_owned())
    }

    #[test]
    fn strings_have_two_kinds_of_quotes_and_two_kinds_of_escapes() {
        assert_eq!(kinds(r"'it''s'"), [text("it's")]);
        assert_eq!(kinds(r"'it\'s'"), [text("it's")]);
        assert_eq!(kinds(r#""a ""b"" 'c'""#), [text("a \"b\" 'c'")]);
        assert_eq!(kinds(r"'a\n\\\%'"), [text("a\n\\%")]);
        assert_eq!(kinds("''"), [text("")]);
        assert_eq!(kinds("'ähnlich 💚'"), [text("ähnlich 💚")]);
    }

    #[test]
    fn numbers_are_kept_as_written() {
        let number = |text: &str| Kind::Number(text.to_owned());
        assert_eq!(
            kinds("12 1.5 .5 1e3 1E-3 0x1F"),
            [
                number("12"),
                number("1.5"),
                number(".5"),
                number("1e3"),
                number("1E-3"),
                number("0x1F"),
            ]
        );
        assert_eq!(
            kinds("1e"),
            [
                number("1"),
                Kind::Name {
                    text: "e".to_owned(),
                    quoted: false
                }
            ]
        );
    }

    #[test]
    fn longer_symbols_go_first() {
        let symbols = ["<=", "<>", "<", ">", ">=", "<=>", "!=", "="];
        assert_eq!(kinds("<= <> < > >= <=> != ="), symbols.map(Kind::Symbol));
    }

    #[test]
    fn what_does_not_end_is_an_error() {
        for unfinished in ["'abc", "\"", "`abc", "``", "'abc\\"] {
            assert!(tokens(unfinished).is_err(), "{unfinished}");
        }
    }
}
