//! Gives a filter's names and values their types, and refuses what has no meaning.

use super::attributes::{Attribute, AttributeTypes, Field, NAMESPACE_DIVISION, ValueType};
use super::parser::{Expression, Operand, Operator, Statement};
use super::values::{Value, duration, go_syntax, go_type, number, status, time};
use super::{Filter, FilterError};

/// What rows have to satisfy. As in SQL, a comparison with an absent value is neither true nor
/// false, and neither is its negation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Compare {
        attribute: Attribute,
        comparison: Comparison,
        value: Value,
    },
    /// The value is, or for a list one of its elements is, one of `values`. An absent list has no
    /// elements, so its negation is true.
    In {
        attribute: Attribute,
        negated: bool,
        values: Vec<Value>,
    },
    Between {
        attribute: Attribute,
        negated: bool,
        from: Value,
        to: Value,
    },
    StartsWith {
        attribute: Attribute,
        negated: bool,
        prefix: String,
    },
    IsNull {
        attribute: Attribute,
        negated: bool,
    },
    /// For texts: all terms of one of the groups occur. Unlike other comparisons, an absent text
    /// has no words, and its negation is true.
    HasWords {
        attribute: Attribute,
        negated: bool,
        groups: Vec<Vec<String>>,
    },
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// One term of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderBy {
    pub(crate) attribute: Attribute,
    pub(crate) descending: bool,
}

/// What a text can be found by: its words, and its pairs of neighbouring words.
pub(crate) fn terms_of_text(text: &str) -> Vec<String> {
    let mut terms = words(text);
    terms.extend(pairs(&terms));
    terms
}

/// The terms that a text has if it contains these words one after the other. (It may also have
/// them without, if there are more than two words and it has the pairs in different places.)
fn terms_of_phrase(phrase: &str) -> Vec<String> {
    let words = words(phrase);
    if words.len() > 1 {
        pairs(&words)
    } else {
        words
    }
}

/// What lies between characters that are neither letters nor digits.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|character: char| !character.is_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

fn pairs(words: &[String]) -> Vec<String> {
    words.windows(2).map(|pair| pair.join(" ")).collect()
}

/// Makes a filter of what was read.
pub(super) fn check(
    statement: Statement,
    attributes: &AttributeTypes,
) -> Result<Filter, FilterError> {
    if statement.has_limit {
        return Err(FilterError::unsupported("'LIMIT' clause"));
    }
    let mut checker = Checker {
        attributes,
        any_division: false,
    };
    let condition = match &statement.condition {
        Some(expression) => Some(checker.condition(expression)?),
        None => None,
    };
    let by_status = checker.group_by(&statement.group_by)?;
    let mut order = Vec::new();
    for (operand, descending) in &statement.order_by {
        order.push(checker.order_by(operand, *descending)?);
    }
    Ok(Filter {
        condition,
        order,
        by_status,
        any_division: checker.any_division,
    })
}

struct Checker<'a> {
    attributes: &'a AttributeTypes,
    /// Whether the filter speaks of namespace divisions.
    any_division: bool,
}

impl Checker<'_> {
    fn condition(&mut self, expression: &Expression) -> Result<Condition, FilterError> {
        match expression {
            Expression::And(terms) => Ok(Condition::And(self.conditions(terms)?)),
            Expression::Or(terms) => Ok(Condition::Or(self.conditions(terms)?)),
            Expression::Not(inner) => Ok(Condition::Not(Box::new(self.condition(inner)?))),
            Expression::Compare {
                left,
                operator,
                right,
            } => {
                let attribute = self.attribute(left)?;
                compare(attribute, *operator, right)
            }
            Expression::Between {
                left,
                negated,
                from,
                to,
            } => {
                let attribute = self.attribute(left)?;
                between(attribute, *negated, from, to)
            }
            Expression::IsNull { left, negated } => Ok(Condition::IsNull {
                attribute: self.attribute(left)?,
                negated: *negated,
            }),
            Expression::IsOther { left } => {
                self.attribute(left)?;
                Err(FilterError::invalid(
                    "'IS' operator can only be used as 'IS NULL' or 'IS NOT NULL'",
                ))
            }
            Expression::Bare(Operand::Column(_)) => {
                Err(FilterError::invalid("incomplete expression"))
            }
            Expression::Bare(Operand::Function) => {
                Err(FilterError::unsupported("function expression"))
            }
            Expression::Bare(operand) => Err(FilterError::unsupported(format!(
                "expression of type {}",
                parser_type(operand)
            ))),
        }
    }

    fn conditions(&mut self, terms: &[Expression]) -> Result<Vec<Condition>, FilterError> {
        terms.iter().map(|term| self.condition(term)).collect()
    }

    fn attribute(&mut self, operand: &Operand) -> Result<Attribute, FilterError> {
        let Operand::Column(alias) = operand else {
            return Err(FilterError::invalid(format!(
                "must be a column name but was {}",
                parser_type(operand)
            )));
        };
        let attribute = self.attributes.resolve(alias)?;
        if matches!(&attribute.field, Field::Named(name) if name == NAMESPACE_DIVISION) {
            self.any_division = true;
        }
        Ok(attribute)
    }

    fn group_by(&mut self, operands: &[Operand]) -> Result<bool, FilterError> {
        match operands {
            [] => Ok(false),
            [operand] => {
                let attribute = self.attribute(operand)?;
                if attribute.field == Field::ExecutionStatus {
                    return Ok(true);
                }
                Err(FilterError::unsupported(format!(
                    "'GROUP BY' clause is not supported for search attribute {}",
                    attribute.alias
                )))
            }
            _ => Err(FilterError::unsupported(
                "'GROUP BY' clause supports only a single field",
            )),
        }
    }

    fn order_by(&mut self, operand: &Operand, descending: bool) -> Result<OrderBy, FilterError> {
        let attribute = self.attribute(operand)?;
        match attribute.value_type {
            ValueType::Text | ValueType::KeywordList => Err(FilterError::unsupported(format!(
                "unable to sort by search attribute type {}",
                attribute.value_type.name()
            ))),
            _ => Ok(OrderBy {
                attribute,
                descending,
            }),
        }
    }
}

fn compare(
    attribute: Attribute,
    operator: Operator,
    right: &Operand,
) -> Result<Condition, FilterError> {
    // Values go before the operator, so that of two mistakes the same one is named as by Temporal.
    let mut values = match right {
        Operand::Tuple(operands) if matches!(operator, Operator::In | Operator::NotIn) => operands
            .iter()
            .map(|operand| value(&attribute, operand))
            .collect::<Result<Vec<_>, _>>()?,
        operand => vec![value(&attribute, operand)?],
    };
    if !is_supported(&attribute, operator) {
        return Err(FilterError::unsupported(format!(
            "operator '{}' not supported for {} type search attribute '{}'",
            written(operator),
            attribute.value_type.name(),
            attribute.alias
        )));
    }
    let comparison = match operator {
        Operator::In | Operator::NotIn => {
            return Ok(Condition::In {
                attribute,
                negated: operator == Operator::NotIn,
                values,
            });
        }
        Operator::Less => Comparison::Less,
        Operator::LessOrEqual => Comparison::LessOrEqual,
        Operator::Greater => Comparison::Greater,
        Operator::GreaterOrEqual => Comparison::GreaterOrEqual,
        Operator::NotEqual => Comparison::NotEqual,
        _ => Comparison::Equal,
    };
    let value = values.swap_remove(0);
    if matches!(operator, Operator::StartsWith | Operator::NotStartsWith) {
        return match value {
            Value::Text(prefix) => Ok(Condition::StartsWith {
                attribute,
                negated: operator == Operator::NotStartsWith,
                prefix,
            }),
            other => Err(FilterError::invalid(format!(
                "right-hand side of \"{}\" operator must be a literal string (got: {})",
                written(operator).to_lowercase(),
                go_syntax(&other)
            ))),
        };
    }
    match (attribute.value_type, value) {
        (ValueType::Text, Value::Text(text)) => {
            let groups: Vec<_> = text
                .split(' ')
                .filter(|token| !token.is_empty())
                .map(terms_of_phrase)
                .collect();
            if groups.is_empty() {
                return Err(FilterError::invalid(format!(
                    "no tokens found filtering on Text type search attribute {}",
                    attribute.alias
                )));
            }
            Ok(Condition::HasWords {
                attribute,
                negated: comparison == Comparison::NotEqual,
                groups: groups.into_iter().filter(|g| !g.is_empty()).collect(),
            })
        }
        (ValueType::KeywordList, value) => Ok(Condition::In {
            attribute,
            negated: comparison == Comparison::NotEqual,
            values: vec![value],
        }),
        (_, value) => Ok(Condition::Compare {
            attribute,
            comparison,
            value,
        }),
    }
}

fn between(
    attribute: Attribute,
    negated: bool,
    from: &Operand,
    to: &Operand,
) -> Result<Condition, FilterError> {
    match attribute.value_type {
        ValueType::Bool | ValueType::Text | ValueType::KeywordList => {
            Err(FilterError::invalid(format!(
                "cannot do range condition on search attribute '{}' of type {}",
                attribute.alias,
                attribute.value_type.name()
            )))
        }
        _ => {
            let from = value(&attribute, from)?;
            let to = value(&attribute, to)?;
            Ok(Condition::Between {
                attribute,
                negated,
                from,
                to,
            })
        }
    }
}

fn is_supported(attribute: &Attribute, operator: Operator) -> bool {
    use Operator as O;
    match attribute.value_type {
        ValueType::Text => matches!(operator, O::Equal | O::NotEqual),
        ValueType::KeywordList => {
            matches!(operator, O::Equal | O::NotEqual | O::In | O::NotIn)
        }
        ValueType::Keyword => !matches!(
            operator,
            O::NullSafeEqual | O::Like | O::NotLike | O::Regexp | O::NotRegexp
        ),
        _ => matches!(
            operator,
            O::Equal
                | O::NotEqual
                | O::Less
                | O::LessOrEqual
                | O::Greater
                | O::GreaterOrEqual
                | O::In
                | O::NotIn
        ),
    }
}

/// A value for an attribute, of the attribute's type.
fn value(attribute: &Attribute, operand: &Operand) -> Result<Value, FilterError> {
    let value = match operand {
        Operand::Text(text) => Value::Text(text.clone()),
        Operand::Number(written) => number(written)?,
        Operand::Bool(flag) => Value::Bool(*flag),
        Operand::Function => return Err(FilterError::unsupported("nested func")),
        Operand::Column(name) => {
            return Err(FilterError::unsupported(format!(
                "column name on the right side of comparison expression (did you forget to quote \
                 {name:?}?)"
            )));
        }
        Operand::Tuple(_) | Operand::Other(_) => {
            return Err(FilterError::invalid(format!(
                "unexpected value type {}",
                parser_type(operand)
            )));
        }
    };
    match attribute.field {
        Field::ExecutionStatus => return status(&value),
        Field::ExecutionDuration => return duration(&value),
        _ => {}
    }
    let fits = match attribute.value_type {
        ValueType::Datetime => match time(&value) {
            Some(time) => return time,
            None => false,
        },
        ValueType::Int | ValueType::Double => matches!(value, Value::Int(_) | Value::Real(_)),
        ValueType::Bool => matches!(value, Value::Bool(_)),
        ValueType::Keyword | ValueType::KeywordList | ValueType::Text => {
            matches!(value, Value::Text(_))
        }
    };
    if fits {
        return Ok(value);
    }
    Err(FilterError::invalid(format!(
        "invalid value type for search attribute {} of type {}: {} (type: {})",
        attribute.alias,
        attribute.value_type.name(),
        go_syntax(&value),
        go_type(&value)
    )))
}

fn parser_type(operand: &Operand) -> &'static str {
    match operand {
        Operand::Column(_) => "*sqlparser.ColName",
        Operand::Text(_) | Operand::Number(_) => "*sqlparser.SQLVal",
        Operand::Bool(_) => "sqlparser.BoolVal",
        Operand::Tuple(_) => "sqlparser.ValTuple",
        Operand::Function => "*sqlparser.FuncExpr",
        Operand::Other(name) => name,
    }
}

fn written(operator: Operator) -> &'static str {
    match operator {
        Operator::Equal => "=",
        Operator::NotEqual => "!=",
        Operator::Less => "<",
        Operator::LessOrEqual => "<=",
        Operator::Greater => ">",
        Operator::GreaterOrEqual => ">=",
        Operator::NullSafeEqual => "<=>",
        Operator::In => "IN",
        Operator::NotIn => "NOT IN",
        Operator::Like => "LIKE",
        Operator::NotLike => "NOT LIKE",
        Operator::Regexp => "REGEXP",
        Operator::NotRegexp => "NOT REGEXP",
        Operator::StartsWith => "STARTS_WITH",
        Operator::NotStartsWith => "NOT STARTS_WITH",
    }
}
