//! Visibility: search attributes as the API has them and as the store searches them, lists and
//! counts.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::{Map, Value};
use steadfast_engine::Error as EngineError;
use steadfast_engine::proto::command::command::Attributes;
use steadfast_engine::proto::common::{
    Memo, Payload, SearchAttributes, WorkflowExecution, WorkflowType,
};
use steadfast_engine::proto::enums::{IndexedValueType, WorkflowTaskFailedCause};
use steadfast_engine::proto::workflow::WorkflowExecutionInfo;
use steadfast_engine::proto::workflowservice::RespondWorkflowTaskCompletedRequest;
use steadfast_engine::time::{duration, timestamp};
use steadfast_store::filter::{Filter, PREDEFINED_ATTRIBUTES};
use steadfast_store::{VisibilityCount, VisibilityQuery, VisibilityRow};

use crate::error::{Result, RuntimeError};
use crate::evidence::reads::{Read, Subject};
use crate::namespaces::Namespace;
use crate::permit::Permit;
use crate::runtime::Runtime;
use crate::token::ListToken;

/// Metadata key of a search attribute's type.
const TYPE_KEY: &str = "type";

/// Largest page of a list.
const MAX_PAGE: usize = 1000;

impl Runtime {
    /// Lists runs. Everything that was acknowledged before the call is found.
    pub async fn list_runs(
        &self,
        permit: &Permit,
        namespace: &Namespace,
        query: &str,
        page_size: i32,
        page_token: &[u8],
    ) -> Result<(Vec<WorkflowExecutionInfo>, Vec<u8>)> {
        let filter = parse(namespace, query)?;
        if filter.groups_by_status() {
            return Err(RuntimeError::invalid("GROUP BY is only for counts."));
        }
        let token = ListToken::read(page_token)?;
        self.projected().await?;
        let page_size = match usize::try_from(page_size) {
            Ok(0) | Err(_) => MAX_PAGE,
            Ok(asked) => asked.min(MAX_PAGE),
        };
        let page = self
            .store()
            .list_visibility(VisibilityQuery {
                namespace_id: namespace.id.clone(),
                filter,
                page_size,
                cursor: token.as_ref().map(|token| token.cursor.clone()),
            })
            .await?;
        let seal = self.read_seal(&namespace.id, query);
        if token.is_none_or(|token| token.noted != seal) {
            // The filter may hold values, and what is in a log stays there.
            let subject = Subject::default();
            self.note_read(permit, Read::List, &namespace.id, subject)
                .await?;
        }
        let token = |cursor| ListToken {
            cursor,
            noted: seal,
        };
        let infos = page
            .rows
            .into_iter()
            .map(|row| info(namespace, row))
            .collect();
        let next = page.cursor.map(|cursor| token(cursor).encode_to_vec());
        Ok((infos, next.unwrap_or_default()))
    }

    /// Counts runs. Everything that was acknowledged before the call is counted.
    pub async fn count_runs(
        &self,
        permit: &Permit,
        namespace: &Namespace,
        query: &str,
    ) -> Result<VisibilityCount> {
        let filter = parse(namespace, query)?;
        self.projected().await?;
        let count = self.store().count_visibility(&namespace.id, filter).await?;
        self.note_read(permit, Read::Count, &namespace.id, Subject::default())
            .await?;
        Ok(count)
    }
}

fn parse(namespace: &Namespace, query: &str) -> Result<Filter> {
    Filter::parse(query, &namespace.attribute_types())
        .map_err(|error| RuntimeError::invalid(error.to_string()))
}

/// A run as lists show it.
fn info(namespace: &Namespace, row: VisibilityRow) -> WorkflowExecutionInfo {
    let execution = |workflow_id: String, run_id: String| {
        (!workflow_id.is_empty()).then_some(WorkflowExecution {
            workflow_id,
            run_id,
        })
    };
    let mut search_attributes =
        SearchAttributes::decode(row.search_attributes_bytes.as_slice()).ok();
    type_search_attributes(namespace, &mut search_attributes);
    WorkflowExecutionInfo {
        execution: execution(row.workflow_id, row.run_id),
        r#type: Some(WorkflowType {
            name: row.workflow_type,
        }),
        start_time: Some(timestamp(row.start_time)),
        close_time: row.close_time.map(timestamp),
        status: row.status,
        history_length: row.history_length,
        history_size_bytes: row.history_size_bytes,
        state_transition_count: row.state_transition_count,
        execution_time: Some(timestamp(row.execution_time)),
        execution_duration: row
            .close_time
            .map(|close| duration((close - row.execution_time).max(0))),
        memo: Some(Memo::decode(row.memo_bytes.as_slice()).unwrap_or_default()),
        search_attributes,
        task_queue: row.task_queue,
        parent_execution: execution(row.parent_workflow_id, row.parent_run_id),
        root_execution: execution(row.root_workflow_id, row.root_run_id),
        first_run_id: row.first_run_id,
        ..Default::default()
    }
}

/// The type of a search attribute that may be set in a namespace.
fn type_of(namespace: &Namespace, name: &str) -> Option<IndexedValueType> {
    let custom = namespace.search_attributes.get(name).copied();
    let predefined = || {
        PREDEFINED_ATTRIBUTES
            .iter()
            .find(|(predefined, _)| *predefined == name)
            .map(|(_, value_type)| value_type.number())
    };
    custom
        .or_else(predefined)
        .and_then(|number| IndexedValueType::try_from(number).ok())
}

/// Puts each attribute's type into its metadata, as readers expect it.
pub fn type_search_attributes(namespace: &Namespace, attributes: &mut Option<SearchAttributes>) {
    for (name, payload) in attributes.iter_mut().flat_map(|of| &mut of.indexed_fields) {
        if let Some(value_type) = type_of(namespace, name) {
            payload
                .metadata
                .insert(TYPE_KEY.into(), type_name(value_type).into());
        }
    }
}

/// The name of a type.
pub fn type_name(value_type: IndexedValueType) -> &'static str {
    match value_type {
        IndexedValueType::Text => "Text",
        IndexedValueType::Keyword => "Keyword",
        IndexedValueType::Int => "Int",
        IndexedValueType::Double => "Double",
        IndexedValueType::Bool => "Bool",
        IndexedValueType::Datetime => "Datetime",
        IndexedValueType::KeywordList => "KeywordList",
        IndexedValueType::Unspecified => "Unspecified",
    }
}

/// Refuses search attributes that are not registered, or whose values are not of their type.
pub fn check_search_attributes(
    namespace: &Namespace,
    attributes: &Option<SearchAttributes>,
) -> Result<()> {
    for (name, payload) in attributes.iter().flat_map(|of| &of.indexed_fields) {
        let Some(value_type) = type_of(namespace, name) else {
            return Err(RuntimeError::invalid(format!(
                "Namespace {} has no mapping defined for search attribute {name}",
                namespace.name
            )));
        };
        if is_null(payload) {
            continue;
        }
        if value(payload).is_none_or(|value| typed(value, value_type).is_none()) {
            return Err(RuntimeError::invalid(format!(
                "invalid value for search attribute {name} of type {}: {}",
                type_name(value_type),
                String::from_utf8_lossy(&payload.data)
            )));
        }
    }
    Ok(())
}

/// What is wrong with the search attributes of a worker's commands: the engine does not know a
/// namespace's types.
pub(crate) fn check_commands(
    namespace: &Namespace,
    request: &RespondWorkflowTaskCompletedRequest,
) -> Option<EngineError> {
    for command in &request.commands {
        let attributes = match &command.attributes {
            Some(Attributes::UpsertWorkflowSearchAttributesCommandAttributes(a)) => {
                &a.search_attributes
            }
            Some(Attributes::StartChildWorkflowExecutionCommandAttributes(a)) => {
                &a.search_attributes
            }
            Some(Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(a)) => {
                &a.search_attributes
            }
            _ => continue,
        };
        if let Err(error) = check_search_attributes(namespace, attributes) {
            let cause = WorkflowTaskFailedCause::BadSearchAttributes;
            return Some(EngineError::bad_command(cause, error.to_string()));
        }
    }
    None
}

/// Puts the types of upserted search attributes into their metadata, as histories have them.
pub(crate) fn type_commands(
    namespace: &Namespace,
    request: &mut RespondWorkflowTaskCompletedRequest,
) {
    for command in &mut request.commands {
        if let Some(Attributes::UpsertWorkflowSearchAttributesCommandAttributes(upsert)) =
            &mut command.attributes
        {
            type_search_attributes(namespace, &mut upsert.search_attributes);
        }
    }
}

fn is_null(payload: &Payload) -> bool {
    let encoding = payload.metadata.get("encoding").map(Vec::as_slice);
    encoding == Some(b"binary/null")
        || payload.data.is_empty()
        || payload.data == b"null"
        || payload.data == b"[]"
}

fn value(payload: &Payload) -> Option<Value> {
    serde_json::from_slice(&payload.data).ok()
}

/// Search attributes as the store searches them, by the types of their namespace. What is not of its
/// type was refused before; an attribute that was removed since is not searched.
pub(crate) fn searchable(
    namespace: Option<&Namespace>,
    attributes: &SearchAttributes,
) -> Map<String, Value> {
    let sorted: BTreeMap<_, _> = attributes.indexed_fields.iter().collect();
    sorted
        .into_iter()
        .filter(|(_, payload)| !is_null(payload))
        .filter_map(|(name, payload)| {
            let value = typed(value(payload)?, type_of(namespace?, name)?)?;
            Some((name.clone(), value))
        })
        .collect()
}

/// The type with this name.
pub fn type_by_name(name: &str) -> Option<IndexedValueType> {
    [
        IndexedValueType::Text,
        IndexedValueType::Keyword,
        IndexedValueType::Int,
        IndexedValueType::Double,
        IndexedValueType::Bool,
        IndexedValueType::Datetime,
        IndexedValueType::KeywordList,
    ]
    .into_iter()
    .find(|value_type| {
        type_name(*value_type) == name || value_type.as_str_name().ends_with(&name.to_uppercase())
    })
}

/// A value in the form that the store wants for its type; none if it is not of that type.
fn typed(value: Value, value_type: IndexedValueType) -> Option<Value> {
    let value = match value {
        // A list of one is taken for its element where one is wanted.
        Value::Array(mut list) if value_type != IndexedValueType::KeywordList => match list.len() {
            1 => list.remove(0),
            _ => return None,
        },
        value => value,
    };
    match (value_type, value) {
        (IndexedValueType::Text | IndexedValueType::Keyword, value @ Value::String(_)) => {
            Some(value)
        }
        (IndexedValueType::Int, value @ Value::Number(_)) => value.as_i64().map(Value::from),
        (IndexedValueType::Double, value @ Value::Number(_)) => Some(value),
        (IndexedValueType::Bool, value @ Value::Bool(_)) => Some(value),
        (IndexedValueType::Datetime, Value::String(text)) => normal_time(&text).map(Value::String),
        (IndexedValueType::KeywordList, value @ Value::String(_)) => {
            Some(Value::Array(vec![value]))
        }
        (IndexedValueType::KeywordList, Value::Array(list)) => list
            .iter()
            .all(Value::is_string)
            .then_some(Value::Array(list)),
        _ => None,
    }
}

/// A time in the one form whose order as text is its order in time; none if it is no time.
fn normal_time(text: &str) -> Option<String> {
    if text.len() < 20 || text.as_bytes().get(4) != Some(&b'-') {
        return None;
    }
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    Some(
        time.to_utc()
            .to_rfc3339_opts(chrono::SecondsFormat::Nanos, true),
    )
}
