//! SQL of a filter's condition and order.
//!
//! Everything that differs between databases, and between namespaces of one database, is behind
//! [`Dialect`]; the rest is plain SQL over the columns of `visibility AS v`, `run` and `word`.

mod keys;

pub(crate) use keys::Access;

use super::{Attribute, Comparison, Condition, Field, Value, ValueType};

/// A parameter of a statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Parameter {
    Null,
    Text(String),
    Int(i64),
    Real(f64),
}

/// What the database and the namespace add to the common SQL.
pub(crate) trait Dialect {
    /// The placeholder of the parameter with this number, counted from 1.
    fn placeholder(&self, number: usize) -> String;

    /// The number of the namespace that is searched.
    fn namespace_key(&self) -> i64;

    /// The value of a search attribute that is no list and no text.
    fn named(&self, name: &str, value_type: ValueType) -> String;

    /// Whether [`Dialect::named`] gives something that an index has.
    fn is_indexed(&self, name: &str, value_type: ValueType) -> bool;

    /// The same value in a form that no index is used for.
    fn without_index(&self, column: &str) -> String;

    /// Whether a search attribute has a value.
    fn has_value(&self, name: &str) -> String;

    /// The number by which `word` refers to a list or text; none if it has no rows.
    fn word_attribute(&self, name: &str) -> Option<i64>;
}

/// Statement text under construction, with its parameters.
pub(crate) struct Sql<'a> {
    dialect: &'a dyn Dialect,
    parameters: Vec<Parameter>,
    without_index: bool,
}

impl<'a> Sql<'a> {
    /// Begins a statement.
    pub(crate) fn new(dialect: &'a dyn Dialect) -> Self {
        Sql {
            dialect,
            parameters: Vec::new(),
            without_index: false,
        }
    }

    /// The parameters so far, in order.
    pub(crate) fn into_parameters(self) -> Vec<Parameter> {
        self.parameters
    }

    /// Adds a parameter and gives its placeholder.
    pub(crate) fn bind(&mut self, parameter: Parameter) -> String {
        self.parameters.push(parameter);
        self.dialect.placeholder(self.parameters.len())
    }

    /// A condition that has to be true, as one expression.
    pub(crate) fn condition(&mut self, condition: &Condition) -> String {
        match condition {
            Condition::And(terms) => {
                let terms = terms.iter().map(|term| self.condition(term));
                joined(&terms.collect::<Vec<_>>(), "AND")
            }
            Condition::Or(terms) => {
                let terms = terms.iter().map(|term| self.condition(term));
                joined(&terms.collect::<Vec<_>>(), "OR")
            }
            Condition::Not(inner) => format!("(NOT {})", self.condition(inner)),
            Condition::Compare { attribute, .. }
            | Condition::Between { attribute, .. }
            | Condition::StartsWith { attribute, .. } => {
                let column = self.column(attribute);
                self.test(condition, &column)
            }
            Condition::In {
                attribute,
                negated,
                values,
            } if attribute.value_type == ValueType::KeywordList => {
                let words = values.iter().map(|value| parameter(attribute, value));
                negate(*negated, self.has_word(attribute, words.collect()))
            }
            Condition::In { attribute, .. } => {
                let column = self.column(attribute);
                self.test(condition, &column)
            }
            Condition::IsNull { attribute, negated } => self.is_null(attribute, *negated),
            Condition::HasWords {
                attribute,
                negated,
                groups,
            } => {
                let groups: Vec<_> = groups
                    .iter()
                    .map(|words| {
                        let words = words.iter().map(|word| {
                            let word = Parameter::Text(word.clone());
                            self.has_word(attribute, vec![word])
                        });
                        joined(&words.collect::<Vec<_>>(), "AND")
                    })
                    .collect();
                negate(*negated, joined(&groups, "OR"))
            }
        }
    }

    /// Like [`Sql::condition`], with columns that no index is used for.
    pub(crate) fn condition_without_index(&mut self, condition: &Condition) -> String {
        self.without_index = true;
        let expression = self.condition(condition);
        self.without_index = false;
        expression
    }

    /// A condition on one value, with `column` as the value.
    fn test(&mut self, condition: &Condition, column: &str) -> String {
        match condition {
            Condition::Compare {
                attribute,
                comparison,
                value,
            } => {
                let value = self.value(attribute, value);
                format!("{column} {} {value}", symbol(*comparison))
            }
            Condition::In {
                attribute,
                negated,
                values,
            } => {
                let values: Vec<_> = values
                    .iter()
                    .map(|value| self.value(attribute, value))
                    .collect();
                let is_one = match values.as_slice() {
                    [value] => format!("{column} = {value}"),
                    values => format!("{column} IN ({})", values.join(", ")),
                };
                negate(*negated, is_one)
            }
            Condition::Between {
                attribute,
                negated,
                from,
                to,
            } => {
                let from = self.value(attribute, from);
                let to = self.value(attribute, to);
                negate(*negated, format!("({column} BETWEEN {from} AND {to})"))
            }
            Condition::StartsWith {
                negated, prefix, ..
            } => {
                // As a range, which every index has in order.
                let from = self.bind(Parameter::Text(prefix.clone()));
                let range = match end_of_prefix(prefix) {
                    Some(end) => {
                        let end = self.bind(Parameter::Text(end));
                        format!("({column} >= {from} AND {column} < {end})")
                    }
                    None => format!("{column} >= {from}"),
                };
                negate(*negated, range)
            }
            Condition::And(_)
            | Condition::Or(_)
            | Condition::Not(_)
            | Condition::IsNull { .. }
            | Condition::HasWords { .. } => self.condition(condition),
        }
    }

    /// What a condition that has to be true says of the column that runs are sorted by. That is
    /// the close time of closed runs, and [`OPEN`] of open ones, for which the condition is not
    /// true.
    pub(crate) fn sort_hint(&mut self, condition: &Condition) -> Option<String> {
        let closed = format!("v.sort_close < {OPEN}");
        let (attribute, bounds) = match condition {
            Condition::IsNull { attribute, negated } if attribute.field == Field::CloseTime => {
                return Some(if *negated {
                    closed
                } else {
                    format!("v.sort_close = {OPEN}")
                });
            }
            Condition::Compare {
                attribute,
                comparison,
                value,
            } => (attribute, vec![(*comparison, value)]),
            Condition::Between {
                attribute,
                negated: false,
                from,
                to,
            } => (
                attribute,
                vec![
                    (Comparison::GreaterOrEqual, from),
                    (Comparison::LessOrEqual, to),
                ],
            ),
            _ => return None,
        };
        if attribute.field != Field::CloseTime {
            return None;
        }
        let bounds = bounds
            .into_iter()
            .filter(|(comparison, _)| *comparison != Comparison::NotEqual)
            .map(|(comparison, value)| {
                let value = self.value(attribute, value);
                format!("v.sort_close {} {value}", symbol(comparison))
            });
        let terms: Vec<_> = bounds.chain([closed]).collect();
        Some(joined(&terms, "AND"))
    }

    /// One of the words is among a list's elements or a text's words.
    fn has_word(&mut self, attribute: &Attribute, words: Vec<Parameter>) -> String {
        let is_word = self.is_word(attribute, words);
        format!("EXISTS (SELECT 1 FROM word WHERE {is_word} AND word.run_key = v.run_key)")
    }

    fn is_word(&mut self, attribute: &Attribute, words: Vec<Parameter>) -> String {
        let id = match &attribute.field {
            Field::Named(name) => self.dialect.word_attribute(name),
            _ => None,
        };
        let Some(id) = id else {
            return FALSE.to_owned();
        };
        let id = self.bind(Parameter::Int(id));
        let words: Vec<_> = words.into_iter().map(|word| self.bind(word)).collect();
        format!("attribute_id = {id} AND value IN ({})", words.join(", "))
    }

    fn is_null(&mut self, attribute: &Attribute, negated: bool) -> String {
        let is_list = matches!(
            attribute.value_type,
            ValueType::KeywordList | ValueType::Text
        );
        match &attribute.field {
            Field::Named(name) if is_list => {
                let has_value = self.dialect.has_value(name);
                negate(!negated, has_value)
            }
            _ => {
                let column = self.column(attribute);
                let test = if negated { "IS NOT NULL" } else { "IS NULL" };
                format!("{column} {test}")
            }
        }
    }

    fn value(&mut self, attribute: &Attribute, value: &Value) -> String {
        self.bind(parameter(attribute, value))
    }

    /// The expression of an attribute's value. It is null where the attribute is absent.
    pub(crate) fn column(&self, attribute: &Attribute) -> String {
        let own_run_id = "(SELECT run_id FROM run WHERE run.run_key = v.run_key)";
        let fixed = match &attribute.field {
            Field::CloseTime => "v.close_time",
            Field::ExecutionDuration => "(v.close_time - v.execution_time)",
            Field::ExecutionStatus => "v.status",
            Field::ExecutionTime => "v.execution_time",
            Field::HistoryLength => "v.history_length",
            Field::HistorySizeBytes => "v.history_size_bytes",
            Field::ParentRunId => "v.parent_run_id",
            Field::ParentWorkflowId => "v.parent_workflow_id",
            // A root is its own root, and has nulls in these columns.
            Field::RootRunId => return format!("coalesce(v.root_run_id, {own_run_id})"),
            Field::RootWorkflowId => "coalesce(v.root_workflow_id, v.workflow_id)",
            Field::RunId => own_run_id,
            Field::StartTime => "v.start_time",
            Field::StateTransitionCount => "v.state_transition_count",
            Field::TaskQueue => "v.task_queue",
            Field::WorkflowId => "v.workflow_id",
            Field::WorkflowType => "v.workflow_type",
            Field::Named(name) => {
                let column = self.dialect.named(name, attribute.value_type);
                return self.maybe_without_index(column);
            }
        };
        self.maybe_without_index(fixed.to_owned())
    }

    fn maybe_without_index(&self, column: String) -> String {
        if self.without_index {
            self.dialect.without_index(&column)
        } else {
            column
        }
    }
}

/// The sort position of runs that are still open.
pub(crate) const OPEN: i64 = i64::MAX;

const FALSE: &str = "1 = 0";
const TRUE: &str = "1 = 1";

fn parameter(attribute: &Attribute, value: &Value) -> Parameter {
    match value {
        Value::Text(text) => Parameter::Text(text.clone()),
        Value::Int(number) => Parameter::Int(*number),
        Value::Real(number) => Parameter::Real(*number),
        Value::Bool(flag) => Parameter::Int(i64::from(*flag)),
        // System times are numbers; search attributes are in their JSON form.
        Value::Time { nanoseconds, text } => match attribute.field {
            Field::Named(_) => Parameter::Text(text.clone()),
            _ => Parameter::Int(*nanoseconds),
        },
    }
}

fn symbol(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "=",
        Comparison::NotEqual => "<>",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}

fn negate(negated: bool, expression: String) -> String {
    if negated {
        format!("(NOT {expression})")
    } else {
        expression
    }
}

/// Joins terms as a balanced tree: databases limit how deep expressions are, not how many.
fn joined(terms: &[String], operator: &str) -> String {
    match terms {
        [] if operator == "AND" => TRUE.to_owned(),
        [] => FALSE.to_owned(),
        [only] => only.clone(),
        terms => {
            let (left, right) = terms.split_at(terms.len() / 2);
            format!(
                "({} {operator} {})",
                joined(left, operator),
                joined(right, operator)
            )
        }
    }
}

/// The first string, in the order of code points, after all strings with this prefix.
fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        let following = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(following) = following {
            characters.push(following);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(end_of_prefix("ab"), Some("ac".to_owned()));
        assert_eq!(end_of_prefix("a\u{10ffff}"), Some("b".to_owned()));
        assert_eq!(end_of_prefix("\u{d7ff}"), Some("\u{e000}".to_owned()));
        assert_eq!(end_of_prefix("\u{10ffff}"), None);
        assert_eq!(end_of_prefix(""), None);
    }

    #[test]
    fn many_terms_do_not_nest_deeply() {
        let terms: Vec<_> = (0..1000).map(|number| number.to_string()).collect();
        let text = joined(&terms, "OR");
        let mut depth = 0_usize;
        let mut deepest = 0;
        for character in text.chars() {
            match character {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        assert_eq!(deepest, 10);
    }
}
