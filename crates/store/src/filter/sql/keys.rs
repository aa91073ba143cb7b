//! Which conditions an index can answer, and the queries that read it.

use super::{Parameter, Sql, parameter};
use crate::filter::{Attribute, Comparison, Condition, Field, ValueType};

/// How an index can help to find what satisfies a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Not at all.
    None,
    /// It has the keys.
    Keys,
    /// It has the keys in the default order.
    Ordered,
}

impl Sql<'_> {
    /// How an index can help with a condition that has to be true.
    pub(crate) fn access(&self, condition: &Condition) -> Access {
        let (attribute, is_equality) = match condition {
            Condition::Compare {
                comparison: Comparison::NotEqual,
                ..
            } => return Access::None,
            Condition::Compare {
                attribute,
                comparison,
                ..
            } => (attribute, *comparison == Comparison::Equal),
            Condition::In {
                attribute,
                negated: false,
                values,
            } => (attribute, values.len() == 1),
            Condition::Between {
                attribute,
                negated: false,
                ..
            }
            | Condition::StartsWith {
                attribute,
                negated: false,
                ..
            } => (attribute, false),
            Condition::HasWords { negated: false, .. } => return Access::Keys,
            _ => return Access::None,
        };
        let is_ordered = match &attribute.field {
            Field::ExecutionStatus | Field::WorkflowType | Field::TaskQueue => is_equality,
            Field::Named(_) if attribute.value_type == ValueType::KeywordList => false,
            Field::Named(name) if self.dialect.is_indexed(name, attribute.value_type) => {
                is_equality
            }
            Field::StartTime
            | Field::WorkflowId
            | Field::RunId
            | Field::ParentWorkflowId
            | Field::ParentRunId => false,
            Field::RootWorkflowId | Field::RootRunId
                if is_equality || matches!(condition, Condition::In { .. }) =>
            {
                false
            }
            _ => return Access::None,
        };
        if is_ordered {
            Access::Ordered
        } else {
            Access::Keys
        }
    }

    /// A query for the keys of all runs that satisfy a condition, and maybe of some that do not,
    /// each once. For conditions with [`Access`]; `in_space` restricts `v.space`.
    pub(crate) fn keys(&mut self, condition: &Condition, in_space: &str) -> String {
        match condition {
            Condition::In {
                attribute, values, ..
            } if attribute.value_type == ValueType::KeywordList => {
                let words = values.iter().map(|value| parameter(attribute, value));
                self.keys_of_words(attribute, words.collect())
            }
            Condition::HasWords {
                attribute, groups, ..
            } => {
                let firsts = groups.iter().filter_map(|words| words.first());
                let firsts = firsts.map(|word| Parameter::Text(word.clone()));
                self.keys_of_words(attribute, firsts.collect())
            }
            Condition::Compare { attribute, .. }
            | Condition::In { attribute, .. }
            | Condition::Between { attribute, .. }
            | Condition::StartsWith { attribute, .. } => match attribute.field {
                Field::WorkflowId => self.keys_of_own_name(condition, "workflow_id"),
                Field::RunId => self.keys_of_own_name(condition, "run_id"),
                Field::RootWorkflowId => {
                    let others = self.keys_of_column(condition, "v.root_workflow_id", in_space);
                    let roots = self.keys_of_own_name(condition, "workflow_id");
                    format!("{others} UNION {roots}")
                }
                Field::RootRunId => {
                    let others = self.keys_of_column(condition, "v.root_run_id", in_space);
                    let roots = self.keys_of_own_name(condition, "run_id");
                    format!("{others} UNION {roots}")
                }
                _ => {
                    let column = self.column(attribute);
                    self.keys_of_column(condition, &column, in_space)
                }
            },
            other => {
                let expression = self.condition(other);
                format!("SELECT v.run_key FROM visibility AS v WHERE {in_space} AND {expression}")
            }
        }
    }

    fn keys_of_column(&mut self, condition: &Condition, column: &str, in_space: &str) -> String {
        let test = self.test(condition, column);
        format!("SELECT v.run_key FROM visibility AS v WHERE {in_space} AND {test}")
    }

    fn keys_of_own_name(&mut self, condition: &Condition, column: &str) -> String {
        let namespace_key = self.bind(Parameter::Int(self.dialect.namespace_key()));
        let test = self.test(condition, column);
        format!("SELECT run_key FROM run WHERE namespace_key = {namespace_key} AND {test}")
    }

    fn keys_of_words(&mut self, attribute: &Attribute, words: Vec<Parameter>) -> String {
        let distinct = if words.len() > 1 { "DISTINCT " } else { "" };
        let is_word = self.is_word(attribute, words);
        format!("SELECT {distinct}run_key FROM word WHERE {is_word}")
    }
}
