//! Lists and counts.

use std::collections::HashMap;

use steadfast_engine::proto::common::Payload;
use steadfast_engine::proto::enums::WorkflowExecutionStatus;
use steadfast_engine::proto::filter::StartTimeFilter;
use steadfast_engine::proto::workflowservice::{
    CountWorkflowExecutionsRequest, CountWorkflowExecutionsResponse, GetSearchAttributesRequest,
    GetSearchAttributesResponse, ListClosedWorkflowExecutionsRequest,
    ListClosedWorkflowExecutionsResponse, ListOpenWorkflowExecutionsRequest,
    ListOpenWorkflowExecutionsResponse, ListWorkflowExecutionsRequest,
    ListWorkflowExecutionsResponse, ScanWorkflowExecutionsRequest, ScanWorkflowExecutionsResponse,
    count_workflow_executions_response::AggregationGroup, list_closed_workflow_executions_request,
    list_open_workflow_executions_request,
};
use steadfast_runtime::{Permit, Runtime, RuntimeError};

pub(crate) async fn list(
    runtime: &Runtime,
    permit: &Permit,
    request: ListWorkflowExecutionsRequest,
) -> Result<ListWorkflowExecutionsResponse, RuntimeError> {
    let namespace = runtime.namespaces().by_name(&request.namespace)?;
    let (executions, next_page_token) = runtime
        .list_runs(
            permit,
            &namespace,
            &request.query,
            request.page_size,
            &request.next_page_token,
        )
        .await?;
    Ok(ListWorkflowExecutionsResponse {
        executions,
        next_page_token,
    })
}

pub(crate) async fn scan(
    runtime: &Runtime,
    permit: &Permit,
    request: ScanWorkflowExecutionsRequest,
) -> Result<ScanWorkflowExecutionsResponse, RuntimeError> {
    let namespace = runtime.namespaces().by_name(&request.namespace)?;
    let (executions, next_page_token) = runtime
        .list_runs(
            permit,
            &namespace,
            &request.query,
            request.page_size,
            &request.next_page_token,
        )
        .await?;
    Ok(ScanWorkflowExecutionsResponse {
        executions,
        next_page_token,
    })
}

pub(crate) async fn list_open(
    runtime: &Runtime,
    permit: &Permit,
    request: ListOpenWorkflowExecutionsRequest,
) -> Result<ListOpenWorkflowExecutionsResponse, RuntimeError> {
    use list_open_workflow_executions_request::Filters;
    let namespace = runtime.namespaces().by_name(&request.namespace)?;
    let mut terms = vec!["ExecutionStatus = 'Running'".to_owned()];
    terms.extend(time_terms("StartTime", request.start_time_filter)?);
    match request.filters {
        Some(Filters::ExecutionFilter(filter)) => {
            terms.extend(execution_terms(&filter.workflow_id, &filter.run_id));
        }
        Some(Filters::TypeFilter(filter)) => {
            terms.push(format!("WorkflowType = {}", quote(&filter.name)))
        }
        None => {}
    }
    let (executions, next_page_token) = runtime
        .list_runs(
            permit,
            &namespace,
            &terms.join(" AND "),
            request.maximum_page_size,
            &request.next_page_token,
        )
        .await?;
    Ok(ListOpenWorkflowExecutionsResponse {
        executions,
        next_page_token,
    })
}

pub(crate) async fn list_closed(
    runtime: &Runtime,
    permit: &Permit,
    request: ListClosedWorkflowExecutionsRequest,
) -> Result<ListClosedWorkflowExecutionsResponse, RuntimeError> {
    use list_closed_workflow_executions_request::Filters;
    let namespace = runtime.namespaces().by_name(&request.namespace)?;
    let mut terms = vec!["ExecutionStatus != 'Running'".to_owned()];
    terms.extend(time_terms("CloseTime", request.start_time_filter)?);
    match request.filters {
        Some(Filters::ExecutionFilter(filter)) => {
            terms.extend(execution_terms(&filter.workflow_id, &filter.run_id));
        }
        Some(Filters::TypeFilter(filter)) => {
            terms.push(format!("WorkflowType = {}", quote(&filter.name)))
        }
        Some(Filters::StatusFilter(filter)) => {
            if matches!(
                filter.status(),
                WorkflowExecutionStatus::Unspecified | WorkflowExecutionStatus::Running
            ) {
                return Err(RuntimeError::invalid(
                    "StatusFilter must be specified and must be not Running.",
                ));
            }
            terms.push(format!("ExecutionStatus = {}", filter.status));
        }
        None => {}
    }
    let (executions, next_page_token) = runtime
        .list_runs(
            permit,
            &namespace,
            &terms.join(" AND "),
            request.maximum_page_size,
            &request.next_page_token,
        )
        .await?;
    Ok(ListClosedWorkflowExecutionsResponse {
        executions,
        next_page_token,
    })
}

pub(crate) async fn count(
    runtime: &Runtime,
    permit: &Permit,
    request: CountWorkflowExecutionsRequest,
) -> Result<CountWorkflowExecutionsResponse, RuntimeError> {
    let namespace = runtime.namespaces().by_name(&request.namespace)?;
    let count = runtime
        .count_runs(permit, &namespace, &request.query)
        .await?;
    let groups = count
        .groups
        .into_iter()
        .map(|(status, count)| AggregationGroup {
            group_values: vec![status_payload(status)],
            count,
        })
        .collect();
    Ok(CountWorkflowExecutionsResponse {
        count: count.total,
        groups,
    })
}

pub(crate) async fn search_attributes(
    runtime: &Runtime,
    _permit: &Permit,
    _request: GetSearchAttributesRequest,
) -> Result<GetSearchAttributesResponse, RuntimeError> {
    let mut keys: HashMap<String, i32> = super::operator::system_attributes();
    for namespace in runtime.namespaces().all() {
        keys.extend(namespace.search_attributes.clone());
    }
    Ok(GetSearchAttributesResponse { keys })
}

/// The name of a status as the value of a search attribute.
fn status_payload(status: i32) -> Payload {
    let status =
        WorkflowExecutionStatus::try_from(status).unwrap_or(WorkflowExecutionStatus::Unspecified);
    let name = short_name(status.as_str_name(), "WORKFLOW_EXECUTION_STATUS_");
    Payload {
        metadata: [("encoding", "json/plain"), ("type", "Keyword")]
            .map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()))
            .into(),
        data: format!("\"{name}\"").into_bytes(),
        ..Default::default()
    }
}

/// The first second of the year 1, which Go sends for no time.
const GO_ZERO_TIME: i64 = -62_135_596_800;

fn time_terms(
    attribute: &str,
    filter: Option<StartTimeFilter>,
) -> Result<Vec<String>, RuntimeError> {
    let filter = filter.unwrap_or_default();
    let set = |time: Option<prost_types::Timestamp>| {
        let time = time.filter(|time| (time.seconds, time.nanos) != (GO_ZERO_TIME, 0));
        time.map(|time| steadfast_engine::time::time(&time))
    };
    let (earliest, latest) = (set(filter.earliest_time), set(filter.latest_time));
    if let (Some(earliest), Some(latest)) = (earliest, latest)
        && earliest > latest
    {
        return Err(RuntimeError::invalid(
            "EarliestTime in StartTimeFilter should not be larger than LatestTime.",
        ));
    }
    let from = earliest.map(|time| format!("{attribute} >= {time}"));
    let to = latest.map(|time| format!("{attribute} <= {time}"));
    Ok(from.into_iter().chain(to).collect())
}

fn execution_terms(workflow_id: &str, run_id: &str) -> Vec<String> {
    [("WorkflowId", workflow_id), ("RunId", run_id)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name} = {}", quote(value)))
        .collect()
}

fn quote(text: &str) -> String {
    // In filters a backslash escapes what follows it.
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The name of an enum's value as filters and search attributes have it: `CONTINUED_AS_NEW` is
/// `ContinuedAsNew`.
pub(crate) fn short_name(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .split('_')
        .map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            format!("{first}{}", rest.to_lowercase())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use steadfast_store::filter::{AttributeTypes, Filter};

    use super::*;

    fn times(earliest: i64, latest: i64) -> Option<StartTimeFilter> {
        let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
        Some(StartTimeFilter {
            earliest_time: time(earliest),
            latest_time: time(latest),
        })
    }

    #[test]
    fn any_text_can_be_quoted() {
        let parse = |text: &str| Filter::parse(text, &AttributeTypes::default());
        let written = format!("WorkflowId = {}", quote(r"it's \"));
        assert!(parse(&written).is_ok(), "{written}");
        assert_eq!(parse(&written), parse(r#"WorkflowId = "it's \\""#));
    }

    #[test]
    fn times_are_in_order_and_go_s_zero_is_none() {
        assert!(time_terms("StartTime", times(2, 1)).is_err());
        let terms = time_terms("StartTime", times(GO_ZERO_TIME, 1)).expect("one bound");
        assert_eq!(terms, ["StartTime <= 1000000000"]);
    }

    #[test]
    fn statuses_have_the_names_that_filters_use() {
        let payload = |status: WorkflowExecutionStatus| {
            String::from_utf8(status_payload(status as i32).data).unwrap_or_default()
        };
        assert_eq!(payload(WorkflowExecutionStatus::Running), "\"Running\"");
        assert_eq!(
            payload(WorkflowExecutionStatus::ContinuedAsNew),
            "\"ContinuedAsNew\""
        );
    }
}
