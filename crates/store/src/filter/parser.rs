//! Reads the tokens of a filter by the grammar of a SQL statement's clauses. Names and values are
//! not looked at here: what is well-formed but has no meaning is for `check` to refuse.

use super::FilterError;
use super::lexer::{Kind, Token, syntax_error, tokens};

/// Parentheses and NOTs inside one another; a stack has an end.
const MAX_DEPTH: usize = 200;

/// A filter as it was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Statement {
    pub(super) condition: Option<Expression>,
    pub(super) group_by: Vec<Operand>,
    /// Each with whether it is descending.
    pub(super) order_by: Vec<(Operand, bool)>,
    pub(super) has_limit: bool,
}

/// A condition, or what stands in its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Compare {
        left: Operand,
        operator: Operator,
        right: Operand,
    },
    Between {
        left: Operand,
        negated: bool,
        from: Operand,
        to: Operand,
    },
    IsNull {
        left: Operand,
        negated: bool,
    },
    /// `IS` with something other than `NULL` or `NOT NULL`.
    IsOther {
        left: Operand,
    },
    Bare(Operand),
}

/// An operator between an attribute and a value or a list of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    NullSafeEqual,
    In,
    NotIn,
    Like,
    NotLike,
    Regexp,
    NotRegexp,
    StartsWith,
    NotStartsWith,
}

/// One side of an operator.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Column(String),
    Text(String),
    Number(String),
    Bool(bool),
    Tuple(Vec<Operand>),
    Function,
    /// What the language has and filters do not; named as Temporal's messages name it.
    Other(&'static str),
}

/// Words that are no attribute names unless they are in backticks.
const RESERVED: &[&str] = &[
    "and",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "desc",
    "distinct",
    "else",
    "exists",
    "from",
    "group",
    "having",
    "in",
    "is",
    "join",
    "like",
    "limit",
    "not",
    "on",
    "or",
    "order",
    "regexp",
    "rlike",
    "select",
    "set",
    "starts_with",
    "then",
    "union",
    "using",
    "when",
    "where",
];

/// Reads a whole filter.
pub(super) fn parse(text: &str) -> Result<Statement, FilterError> {
    let text = text.trim();
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        end: text.len(),
        depth: 0,
    };
    parser.statement()
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    /// Length of the text.
    end: usize,
    depth: usize,
}

impl Parser {
    fn statement(&mut self) -> Result<Statement, FilterError> {
        let mut statement = Statement::default();
        if self.tokens.is_empty() {
            return Ok(statement);
        }
        if !self.at_word("order") && !self.at_word("group") {
            statement.condition = Some(self.or()?);
        }
        if self.take_word("group") {
            self.expect_word("by")?;
            statement.group_by = self.operands()?;
        }
        if self.take_word("order") {
            self.expect_word("by")?;
            loop {
                let operand = self.operand()?;
                let descending = self.take_word("desc");
                if !descending {
                    self.take_word("asc");
                }
                statement.order_by.push((operand, descending));
                if !self.take_symbol(",") {
                    break;
                }
            }
        }
        if self.take_word("limit") {
            self.operands()?;
            statement.has_limit = true;
        }
        self.take_symbol(";");
        if self.at < self.tokens.len() {
            return Err(self.unexpected());
        }
        Ok(statement)
    }

    fn or(&mut self) -> Result<Expression, FilterError> {
        let mut terms = vec![self.and()?];
        while self.take_word("or") || self.take_symbol("||") {
            terms.push(self.and()?);
        }
        Ok(one_or(terms, Expression::Or))
    }

    fn and(&mut self) -> Result<Expression, FilterError> {
        let mut terms = vec![self.not()?];
        while self.take_word("and") || self.take_symbol("&&") {
            terms.push(self.not()?);
        }
        Ok(one_or(terms, Expression::And))
    }

    fn not(&mut self) -> Result<Expression, FilterError> {
        if self.take_word("not") {
            let inner = self.nested(Self::not)?;
            return Ok(Expression::Not(Box::new(inner)));
        }
        self.predicate()
    }

    fn predicate(&mut self) -> Result<Expression, FilterError> {
        let left = if self.take_symbol("(") {
            let inner = self.nested(Self::or)?;
            self.expect_symbol(")")?;
            if !self.at_operator() {
                return Ok(inner);
            }
            Operand::Other("*sqlparser.ParenExpr")
        } else {
            self.operand()?
        };
        if self.take_word("is") {
            let negated = self.take_word("not");
            return if self.take_word("null") {
                Ok(Expression::IsNull { left, negated })
            } else if self.take_word("true") || self.take_word("false") {
                Ok(Expression::IsOther { left })
            } else {
                Err(self.unexpected())
            };
        }
        let negated = self.take_word("not");
        if self.take_word("between") {
            let from = self.operand()?;
            self.expect_word("and")?;
            let to = self.operand()?;
            return Ok(Expression::Between {
                left,
                negated,
                from,
                to,
            });
        }
        match self.operator(negated) {
            Some(operator) => {
                let is_list = matches!(operator, Operator::In | Operator::NotIn);
                let right = if is_list {
                    self.list()?
                } else {
                    self.operand()?
                };
                Ok(Expression::Compare {
                    left,
                    operator,
                    right,
                })
            }
            None if negated => Err(self.unexpected()),
            None => Ok(Expression::Bare(left)),
        }
    }

    fn at_operator(&self) -> bool {
        let words = [
            "is",
            "in",
            "between",
            "like",
            "regexp",
            "rlike",
            "starts_with",
            "not",
        ];
        words.iter().any(|word| self.at_word(word))
            || matches!(
                self.tokens.get(self.at).map(|token| &token.kind),
                Some(Kind::Symbol(
                    "=" | "!=" | "<>" | "<" | "<=" | ">" | ">=" | "<=>"
                ))
            )
    }

    fn operator(&mut self, negated: bool) -> Option<Operator> {
        let words = [
            ("in", Operator::In, Operator::NotIn),
            ("like", Operator::Like, Operator::NotLike),
            ("regexp", Operator::Regexp, Operator::NotRegexp),
            ("rlike", Operator::Regexp, Operator::NotRegexp),
            ("starts_with", Operator::StartsWith, Operator::NotStartsWith),
        ];
        for (word, plain, opposite) in words {
            if self.take_word(word) {
                return Some(if negated { opposite } else { plain });
            }
        }
        if negated {
            return None;
        }
        let symbols = [
            ("=", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<>", Operator::NotEqual),
            ("<=>", Operator::NullSafeEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        symbols
            .into_iter()
            .find(|(symbol, _)| self.take_symbol(symbol))
            .map(|(_, operator)| operator)
    }

    fn list(&mut self) -> Result<Operand, FilterError> {
        self.expect_symbol("(")?;
        let operands = self.operands()?;
        self.expect_symbol(")")?;
        Ok(Operand::Tuple(operands))
    }

    fn operands(&mut self) -> Result<Vec<Operand>, FilterError> {
        let mut operands = vec![self.operand()?];
        while self.take_symbol(",") {
            operands.push(self.operand()?);
        }
        Ok(operands)
    }

    fn operand(&mut self) -> Result<Operand, FilterError> {
        let mut operand = self.primary()?;
        while ["+", "-", "*", "/", "%"]
            .iter()
            .any(|symbol| self.take_symbol(symbol))
        {
            self.primary()?;
            operand = Operand::Other("*sqlparser.BinaryExpr");
        }
        Ok(operand)
    }

    fn primary(&mut self) -> Result<Operand, FilterError> {
        if self.take_symbol("(") {
            let mut operands = self.nested(Self::operands)?;
            self.expect_symbol(")")?;
            return Ok(match operands.pop() {
                Some(only) if operands.is_empty() => only,
                last => Operand::Tuple(operands.into_iter().chain(last).collect()),
            });
        }
        if self.take_symbol("-") {
            return Ok(match self.nested(Self::primary)? {
                Operand::Number(number) if !number.starts_with('-') => {
                    Operand::Number(format!("-{number}"))
                }
                _ => Operand::Other("*sqlparser.UnaryExpr"),
            });
        }
        let Some(token) = self.tokens.get(self.at) else {
            return Err(self.unexpected());
        };
        let operand = match &token.kind {
            Kind::Text(text) => Operand::Text(text.clone()),
            Kind::Number(number) => Operand::Number(number.clone()),
            Kind::Name { .. } => return self.name(),
            Kind::Symbol(_) => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok(operand)
    }

    fn name(&mut self) -> Result<Operand, FilterError> {
        if self.take_word("true") {
            return Ok(Operand::Bool(true));
        }
        if self.take_word("false") {
            return Ok(Operand::Bool(false));
        }
        if self.take_word("null") {
            return Ok(Operand::Other("*sqlparser.NullVal"));
        }
        let mut name = self.name_part()?;
        if self.take_symbol("(") {
            if !self.take_symbol(")") {
                self.nested(Self::operands)?;
                self.expect_symbol(")")?;
            }
            return Ok(Operand::Function);
        }
        while self.take_symbol(".") {
            name.push('.');
            name.push_str(&self.name_part()?);
        }
        Ok(Operand::Column(name))
    }

    fn name_part(&mut self) -> Result<String, FilterError> {
        match self.tokens.get(self.at).map(|token| &token.kind) {
            Some(Kind::Name { text, quoted }) if *quoted || !is_reserved(text) => {
                let text = text.clone();
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// Runs a rule that may contain itself, up to a depth.
    fn nested<T>(
        &mut self,
        rule: impl FnOnce(&mut Self) -> Result<T, FilterError>,
    ) -> Result<T, FilterError> {
        if self.depth >= MAX_DEPTH {
            return Err(FilterError::malformed("nested too deeply"));
        }
        self.depth += 1;
        let result = rule(self);
        self.depth -= 1;
        result
    }

    fn at_word(&self, word: &str) -> bool {
        matches!(
            self.tokens.get(self.at).map(|token| &token.kind),
            Some(Kind::Name { text, quoted: false }) if text.eq_ignore_ascii_case(word)
        )
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        self.at += usize::from(found);
        found
    }

    fn expect_word(&mut self, word: &str) -> Result<(), FilterError> {
        match self.take_word(word) {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(
            self.tokens.get(self.at).map(|token| &token.kind),
            Some(Kind::Symbol(found)) if *found == symbol
        );
        self.at += usize::from(found);
        found
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<(), FilterError> {
        match self.take_symbol(symbol) {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    fn unexpected(&self) -> FilterError {
        let Some(token) = self.tokens.get(self.at) else {
            return syntax_error(self.end, None);
        };
        let near = match &token.kind {
            Kind::Name { text, .. } | Kind::Text(text) | Kind::Number(text) => Some(text.as_str()),
            Kind::Symbol(_) => None,
        };
        syntax_error(token.end, near)
    }
}

fn one_or(
    mut terms: Vec<Expression>,
    join: impl FnOnce(Vec<Expression>) -> Expression,
) -> Expression {
    match terms.pop() {
        Some(only) if terms.is_empty() => only,
        last => {
            terms.extend(last);
            join(terms)
        }
    }
}

fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|word| name.eq_ignore_ascii_case(word))
}
