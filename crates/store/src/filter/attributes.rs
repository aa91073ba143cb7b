//! The attributes that filters can name, and their types.

use std::collections::HashMap;

use super::FilterError;

/// Type of a search attribute; numbered as `temporal.api.enums.v1.IndexedValueType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum ValueType {
    /// Matched by the words in it.
    Text = 1,
    /// One exact string.
    Keyword = 2,
    /// A whole number.
    Int = 3,
    /// A number.
    Double = 4,
    /// True or false.
    Bool = 5,
    /// A point in time.
    Datetime = 6,
    /// Several exact strings.
    KeywordList = 7,
}

impl ValueType {
    /// The type with this number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            1 => ValueType::Text,
            2 => ValueType::Keyword,
            3 => ValueType::Int,
            4 => ValueType::Double,
            5 => ValueType::Bool,
            6 => ValueType::Datetime,
            7 => ValueType::KeywordList,
            _ => return None,
        })
    }

    /// The type's number.
    pub fn number(self) -> i32 {
        self as i32
    }

    /// The type's name, as clients know it.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::Text => "Text",
            ValueType::Keyword => "Keyword",
            ValueType::Int => "Int",
            ValueType::Double => "Double",
            ValueType::Bool => "Bool",
            ValueType::Datetime => "Datetime",
            ValueType::KeywordList => "KeywordList",
        }
    }
}

/// Attributes that every run has; they are columns of visibility.
pub const SYSTEM_ATTRIBUTES: &[(&str, ValueType)] = &[
    ("CloseTime", ValueType::Datetime),
    ("ExecutionDuration", ValueType::Int),
    ("ExecutionStatus", ValueType::Keyword),
    ("ExecutionTime", ValueType::Datetime),
    ("HistoryLength", ValueType::Int),
    ("HistorySizeBytes", ValueType::Int),
    ("ParentRunId", ValueType::Keyword),
    ("ParentWorkflowId", ValueType::Keyword),
    ("RootRunId", ValueType::Keyword),
    ("RootWorkflowId", ValueType::Keyword),
    ("RunId", ValueType::Keyword),
    ("StartTime", ValueType::Datetime),
    ("StateTransitionCount", ValueType::Int),
    ("TaskQueue", ValueType::Keyword),
    ("WorkflowId", ValueType::Keyword),
    ("WorkflowType", ValueType::Keyword),
];

/// Attributes that exist in every namespace and are set by servers and SDKs; they are stored as
/// custom ones are.
pub const PREDEFINED_ATTRIBUTES: &[(&str, ValueType)] = &[
    ("BatcherNamespace", ValueType::Keyword),
    ("BatcherUser", ValueType::Keyword),
    ("BinaryChecksums", ValueType::KeywordList),
    ("BuildIds", ValueType::KeywordList),
    ("TemporalChangeVersion", ValueType::KeywordList),
    ("TemporalExternalPayloadCount", ValueType::Int),
    ("TemporalExternalPayloadSizeBytes", ValueType::Int),
    ("TemporalNamespaceDivision", ValueType::Keyword),
    ("TemporalPauseInfo", ValueType::KeywordList),
    ("TemporalReportedProblems", ValueType::KeywordList),
    ("TemporalSchedulePaused", ValueType::Bool),
    ("TemporalScheduledById", ValueType::Keyword),
    ("TemporalScheduledStartTime", ValueType::Datetime),
    (
        "TemporalUsedWorkerDeploymentVersions",
        ValueType::KeywordList,
    ),
    ("TemporalWorkerDeployment", ValueType::Keyword),
    ("TemporalWorkerDeploymentVersion", ValueType::Keyword),
    ("TemporalWorkflowVersioningBehavior", ValueType::Keyword),
];

/// Predefined attributes may be named with or without this.
const RESERVED_PREFIX: &str = "Temporal";

/// The name under which a run's namespace division is stored.
pub(crate) const NAMESPACE_DIVISION: &str = "TemporalNamespaceDivision";

/// The custom search attributes of a namespace.
#[derive(Clone, Debug, Default)]
pub struct AttributeTypes {
    custom: HashMap<String, ValueType>,
}

impl AttributeTypes {
    /// Takes names with their `IndexedValueType` numbers; unknown numbers are left out.
    pub fn new<N: Into<String>>(custom: impl IntoIterator<Item = (N, i32)>) -> Self {
        let known = custom.into_iter().filter_map(|(name, number)| {
            ValueType::from_number(number).map(|value_type| (name.into(), value_type))
        });
        AttributeTypes {
            custom: known.collect(),
        }
    }

    /// Finds an attribute by the name that a client used for it: as it is; then with or without
    /// the reserved prefix. A custom attribute goes before an alias, never before a system one.
    pub(super) fn resolve(&self, alias: &str) -> Result<Attribute, FilterError> {
        let attribute = |field, value_type| Attribute {
            alias: alias.to_owned(),
            field,
            value_type,
        };
        if let Some((field, value_type)) = built_in(alias) {
            return Ok(attribute(field, value_type));
        }
        if let Some(value_type) = self.custom.get(alias) {
            return Ok(attribute(Field::Named(alias.to_owned()), *value_type));
        }
        let stripped = alias.strip_prefix(RESERVED_PREFIX);
        if stripped.unwrap_or(alias) == "ScheduleId" {
            return Ok(attribute(Field::WorkflowId, ValueType::Keyword));
        }
        let other_name = match stripped {
            Some(stripped) => stripped.to_owned(),
            None => format!("{RESERVED_PREFIX}{alias}"),
        };
        match built_in(&other_name) {
            Some((field, value_type)) => Ok(attribute(field, value_type)),
            None => Err(FilterError::unknown_attribute(alias)),
        }
    }
}

fn built_in(name: &str) -> Option<(Field, ValueType)> {
    let find = |table: &[(&str, ValueType)]| {
        let found = table.iter().find(|(known, _)| *known == name);
        found.map(|(_, value_type)| *value_type)
    };
    if let Some(value_type) = find(SYSTEM_ATTRIBUTES) {
        return Field::system(name).map(|field| (field, value_type));
    }
    find(PREDEFINED_ATTRIBUTES).map(|value_type| (Field::Named(name.to_owned()), value_type))
}

/// Where an attribute's values are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Field {
    CloseTime,
    ExecutionDuration,
    ExecutionStatus,
    ExecutionTime,
    HistoryLength,
    HistorySizeBytes,
    ParentRunId,
    ParentWorkflowId,
    RootRunId,
    RootWorkflowId,
    RunId,
    StartTime,
    StateTransitionCount,
    TaskQueue,
    WorkflowId,
    WorkflowType,
    /// Among the search attributes that came with the run.
    Named(String),
}

impl Field {
    fn system(name: &str) -> Option<Self> {
        Some(match name {
            "CloseTime" => Field::CloseTime,
            "ExecutionDuration" => Field::ExecutionDuration,
            "ExecutionStatus" => Field::ExecutionStatus,
            "ExecutionTime" => Field::ExecutionTime,
            "HistoryLength" => Field::HistoryLength,
            "HistorySizeBytes" => Field::HistorySizeBytes,
            "ParentRunId" => Field::ParentRunId,
            "ParentWorkflowId" => Field::ParentWorkflowId,
            "RootRunId" => Field::RootRunId,
            "RootWorkflowId" => Field::RootWorkflowId,
            "RunId" => Field::RunId,
            "StartTime" => Field::StartTime,
            "StateTransitionCount" => Field::StateTransitionCount,
            "TaskQueue" => Field::TaskQueue,
            "WorkflowId" => Field::WorkflowId,
            "WorkflowType" => Field::WorkflowType,
            _ => return None,
        })
    }
}

/// An attribute as a filter names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    /// The client's name for it, for messages.
    pub(crate) alias: String,
    /// Where its values are.
    pub(crate) field: Field,
    /// What its values are.
    pub(crate) value_type: ValueType,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_attribute_has_a_field() {
        for (name, _) in SYSTEM_ATTRIBUTES {
            assert!(Field::system(name).is_some(), "{name}");
        }
    }

    #[test]
    fn value_types_keep_their_numbers() {
        for number in 1..=7 {
            let value_type = ValueType::from_number(number).expect("a known type");
            assert_eq!(value_type.number(), number);
        }
        assert_eq!(ValueType::from_number(0), None);
        assert_eq!(ValueType::from_number(8), None);
    }

    #[test]
    fn names_resolve_as_they_do_in_temporal() {
        let types = AttributeTypes::new([("Customer", 2), ("TaskQueue", 3), ("Odd", 99)]);
        let resolve = |name| {
            types
                .resolve(name)
                .map(|found| (found.field, found.value_type))
        };
        let named = |name: &str| Field::Named(name.to_owned());
        assert_eq!(
            resolve("Customer"),
            Ok((named("Customer"), ValueType::Keyword))
        );
        assert_eq!(
            resolve("TaskQueue"),
            Ok((Field::TaskQueue, ValueType::Keyword))
        );
        assert_eq!(
            resolve("TemporalTaskQueue"),
            Ok((Field::TaskQueue, ValueType::Keyword))
        );
        assert_eq!(
            resolve("ScheduleId"),
            Ok((Field::WorkflowId, ValueType::Keyword))
        );
        assert_eq!(
            resolve("TemporalScheduleId"),
            Ok((Field::WorkflowId, ValueType::Keyword))
        );
        assert_eq!(
            resolve("ScheduledById"),
            Ok((named("TemporalScheduledById"), ValueType::Keyword))
        );
        let error = resolve("Odd").expect_err("an attribute of unknown type is unknown");
        assert_eq!(
            error.to_string(),
            "invalid query: invalid search attribute: Odd"
        );
    }
}
