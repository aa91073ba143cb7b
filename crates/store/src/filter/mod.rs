//! List filters: the query language of `ListWorkflowExecutions` and `CountWorkflowExecutions`.
//!
//! ```text
//! WorkflowType = 'agent' AND (ExecutionStatus = 'Running' OR CloseTime > '2026-01-01T00:00:00Z')
//! ```
//!
//! [`Filter::parse`] reads a text, checks every name and value against the attributes' types, and
//! keeps what the database needs to know. What follows is independent of a namespace's layout; the
//! store turns it into SQL through `sql::Dialect`.

mod attributes;
mod check;
mod lexer;
mod parser;
pub(crate) mod sql;
mod values;

pub use attributes::{AttributeTypes, PREDEFINED_ATTRIBUTES, SYSTEM_ATTRIBUTES, ValueType};

pub(crate) use attributes::{Attribute, Field};
pub(crate) use check::{Comparison, Condition, OrderBy, terms_of_text};
pub(crate) use values::Value;

/// Why a filter was refused. The message is for the client and reads as Temporal's does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid query: {message}")]
pub struct FilterError {
    message: String,
}

impl FilterError {
    fn malformed(detail: impl std::fmt::Display) -> Self {
        FilterError {
            message: format!("malformed SQL query: {detail}"),
        }
    }

    fn invalid(detail: impl std::fmt::Display) -> Self {
        FilterError {
            message: format!("invalid expression: {detail}"),
        }
    }

    fn unsupported(detail: impl std::fmt::Display) -> Self {
        FilterError {
            message: format!("operation is not supported: {detail}"),
        }
    }

    fn unknown_attribute(name: &str) -> Self {
        FilterError {
            message: format!("invalid search attribute: {name}"),
        }
    }
}

/// A checked filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// What rows have to satisfy; none for all of them.
    condition: Option<Condition>,
    /// How to sort; empty for the default order.
    order: Vec<OrderBy>,
    /// Count by status rather than in total.
    by_status: bool,
    /// Rows of namespace divisions are left out unless the filter speaks of divisions.
    any_division: bool,
}

impl Filter {
    /// Reads and checks a filter. An empty text matches every row.
    pub fn parse(text: &str, attributes: &AttributeTypes) -> Result<Self, FilterError> {
        check::check(parser::parse(text)?, attributes)
    }

    /// Matches every row, also of namespace divisions.
    pub fn everything() -> Self {
        Self {
            any_division: true,
            ..Self::default()
        }
    }

    /// Matches the runs of a workflow id, also in namespace divisions.
    pub fn of_workflow(workflow_id: &str) -> Self {
        let attribute = Attribute {
            alias: "WorkflowId".to_owned(),
            field: Field::WorkflowId,
            value_type: ValueType::Keyword,
        };
        Self {
            condition: Some(Condition::Compare {
                attribute,
                comparison: Comparison::Equal,
                value: Value::Text(workflow_id.to_owned()),
            }),
            ..Self::everything()
        }
    }

    /// Whether counts are wanted by execution status.
    pub fn groups_by_status(&self) -> bool {
        self.by_status
    }

    pub(crate) fn condition(&self) -> Option<&Condition> {
        self.condition.as_ref()
    }

    pub(crate) fn order(&self) -> &[OrderBy] {
        &self.order
    }

    pub(crate) fn any_division(&self) -> bool {
        self.any_division
    }
}
