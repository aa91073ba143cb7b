//! The list of sessions: counts by status, filters, pages. All of it is in the URL.

use axum::extract::{Path, Query};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maud::{Markup, html};
use serde::Deserialize;
use steadfast_engine::proto::enums::WorkflowExecutionStatus as Status;
use steadfast_engine::proto::workflow::WorkflowExecutionInfo;
use steadfast_runtime::namespaces::Namespace;

use super::page::{Fault, Page, Section, badge};
use super::{Visit, text, times};

/// Sessions of a page.
const PAGE: i32 = 50;

/// Statuses in the order of their tabs: number, name in filters, word, class.
const STATUSES: [(Status, &str, &str, &str); 7] = [
    (Status::Running, "Running", "Running", "running"),
    (Status::Completed, "Completed", "Completed", "good"),
    (Status::Failed, "Failed", "Failed", "bad"),
    (Status::Canceled, "Canceled", "Cancelled", "ended"),
    (Status::Terminated, "Terminated", "Terminated", "ended"),
    (Status::TimedOut, "TimedOut", "Timed out", "bad"),
    (
        Status::ContinuedAsNew,
        "ContinuedAsNew",
        "Continued",
        "ended",
    ),
];

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// In the language of list filters.
    query: String,
    /// One of the statuses, as filters name them.
    status: String,
    /// What workflow ids begin with.
    id: String,
    /// A workflow type.
    r#type: String,
    /// Started in the last so many hours.
    hours: String,
    /// Where the page begins.
    after: String,
}

impl Wanted {
    /// Everything but the status.
    fn conditions(&self, now: i64) -> Result<String, Fault> {
        let mut all = Vec::new();
        if !self.query.trim().is_empty() {
            all.push(format!("({})", self.query.trim()));
        }
        if !self.id.is_empty() {
            all.push(format!("WorkflowId STARTS_WITH {}", quote(&self.id)));
        }
        if !self.r#type.is_empty() {
            all.push(format!("WorkflowType = {}", quote(&self.r#type)));
        }
        if !self.hours.is_empty() {
            let hours: i64 = self.hours.parse().map_err(|_| {
                Fault::invalid(format!("{:?} is not a number of hours", self.hours))
            })?;
            let since = now.saturating_sub(hours.clamp(0, 1_000_000) * 3_600_000_000_000);
            let since = chrono::DateTime::from_timestamp_nanos(since);
            all.push(format!(
                "StartTime >= '{}'",
                since.format("%Y-%m-%dT%H:%M:%SZ")
            ));
        }
        Ok(all.join(" AND "))
    }

    fn link(&self, base: &str, status: &str, after: &str) -> String {
        let query = text::query(&[
            ("status", status),
            ("type", &self.r#type),
            ("id", &self.id),
            ("hours", &self.hours),
            ("query", &self.query),
            ("after", after),
        ]);
        format!("{base}/sessions{query}")
    }

    fn is_filtered(&self) -> bool {
        [&self.query, &self.id, &self.r#type, &self.hours]
            .iter()
            .any(|of| !of.is_empty())
    }
}

/// A text in a filter, where a backslash escapes what follows it.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// How many there are of each status.
pub struct Counts {
    pub total: i64,
    groups: Vec<(i32, i64)>,
}

impl Counts {
    fn of(&self, status: Status) -> i64 {
        let found = self.groups.iter().find(|(of, _)| *of == status as i32);
        found.map_or(0, |(_, count)| *count)
    }

    pub fn running(&self) -> i64 {
        self.of(Status::Running)
    }
}

/// Counts what meets the conditions.
pub async fn counts(
    visit: &Visit,
    namespace: &Namespace,
    conditions: &str,
) -> Result<Counts, Fault> {
    let permit = visit.admit("CountWorkflowExecutions", &namespace.name)?;
    let query = format!("{conditions} GROUP BY ExecutionStatus");
    let runtime = &visit.console.runtime;
    let counted = runtime.count_runs(&permit, namespace, query.trim()).await?;
    Ok(Counts {
        total: counted.total,
        groups: counted.groups,
    })
}

/// The word and class of a status.
pub fn status_of(number: i32) -> (&'static str, &'static str) {
    let found = STATUSES.iter().find(|(of, ..)| *of as i32 == number);
    found.map_or(("Unknown", "ended"), |(_, _, word, class)| (word, class))
}

/// The list.
pub async fn page(
    visit: Visit,
    Path(namespace): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let page = make(&visit, &namespace, &wanted).await;
    visit.answer(&namespace, Section::Sessions, page).await
}

async fn make(visit: &Visit, namespace: &str, wanted: &Wanted) -> Result<Page, Fault> {
    let permit = visit.admit("ListWorkflowExecutions", namespace)?;
    let runtime = &visit.console.runtime;
    let known = runtime.namespaces().by_name(namespace)?;
    let now = steadfast_runtime::clock::now();
    let found = find(visit, &permit, &known, wanted, now).await;
    // A filter that makes no sense is said above the filter, where it is mended.
    let (problem, rows, next, counted) = match found {
        Ok((rows, next, counted)) => (None, rows, next, counted),
        Err(Fault(status)) if status.code() == tonic::Code::InvalidArgument => (
            Some(status.message().to_owned()),
            Vec::new(),
            Vec::new(),
            None,
        ),
        Err(fault) => return Err(fault),
    };
    let base = Visit::base(namespace);
    Ok(Page {
        section: Section::Sessions,
        title: format!("Sessions of {namespace}"),
        live: true,
        body: html! {
            div.heading { h1 { "Sessions" } }
            (tabs(&base, wanted, counted.as_ref()))
            (filters(&base, wanted, problem.as_deref()))
            div #sessions data-swap {
                @if rows.is_empty() && problem.is_none() { (nothing(wanted)) }
                @if !rows.is_empty() { (table(namespace, &rows, now)) }
                nav.pages aria-label="Pages" {
                    @if !wanted.after.is_empty() { a href=(wanted.link(&base, &wanted.status, "")) { "Newest" } }
                    @if !next.is_empty() { a rel="next" href=(wanted.link(&base, &wanted.status, &URL_SAFE_NO_PAD.encode(&next))) { "Older" } }
                }
            }
        },
    })
}

type Found = (Vec<WorkflowExecutionInfo>, Vec<u8>, Option<Counts>);

async fn find(
    visit: &Visit,
    permit: &steadfast_runtime::Permit,
    namespace: &Namespace,
    wanted: &Wanted,
    now: i64,
) -> Result<Found, Fault> {
    let conditions = wanted.conditions(now)?;
    let status = STATUSES.iter().find(|(_, name, ..)| *name == wanted.status);
    let query = match (status, conditions.as_str()) {
        (None, conditions) => conditions.to_owned(),
        (Some((_, name, ..)), "") => format!("ExecutionStatus = '{name}'"),
        (Some((_, name, ..)), conditions) => format!("{conditions} AND ExecutionStatus = '{name}'"),
    };
    let token = URL_SAFE_NO_PAD.decode(&wanted.after);
    let token = token.map_err(|_| Fault::invalid("this is no page of a list"))?;
    let runtime = &visit.console.runtime;
    let (rows, next) = runtime
        .list_runs(permit, namespace, &query, PAGE, &token)
        .await?;
    let counted = match visit.may("CountWorkflowExecutions", &namespace.name, "") {
        true => Some(counts(visit, namespace, &conditions).await?),
        false => None,
    };
    Ok((rows, next, counted))
}

fn tabs(base: &str, wanted: &Wanted, counted: Option<&Counts>) -> Markup {
    let current = |name: &str| (wanted.status == name).then_some("true");
    html! {
        nav.tabs #counts data-swap aria-label="By status" {
            a href=(wanted.link(base, "", "")) aria-current=[current("")] {
                "All" @if let Some(counted) = counted { " " b { (counted.total) } }
            }
            @for (status, name, word, class) in STATUSES {
                @let count = counted.map(|of| of.of(status));
                @if count != Some(0) || wanted.status == name || matches!(status, Status::Running | Status::Completed | Status::Failed) {
                    a class=(class) href=(wanted.link(base, name, "")) aria-current=[current(name)] {
                        (word) @if let Some(count) = count { " " b { (count) } }
                    }
                }
            }
        }
    }
}

fn filters(base: &str, wanted: &Wanted, problem: Option<&str>) -> Markup {
    let hours = [
        ("", "any time"),
        ("1", "the last hour"),
        ("24", "the last day"),
        ("168", "the last week"),
        ("720", "the last 30 days"),
    ];
    html! {
        form.filters role="search" method="get" action={ (base) "/sessions" } {
            @if !wanted.status.is_empty() { input type="hidden" name="status" value=(wanted.status); }
            label { span { "Id begins with" } input type="search" name="id" value=(wanted.id) maxlength="1000" autocomplete="off" spellcheck="false"; }
            label { span { "Type" } input type="search" name="type" value=(wanted.r#type) maxlength="1000" autocomplete="off" spellcheck="false"; }
            label { span { "Started" }
                select name="hours" {
                    @for (value, word) in hours { option value=(value) selected[wanted.hours == value] { (word) } }
                }
            }
            label.wide { span { "And this list filter" }
                input.code type="search" name="query" value=(wanted.query) placeholder="CloseTime IS NULL AND TaskQueue = 'agents'"
                    autocomplete="off" spellcheck="false" aria-invalid=[problem.map(|_| "true")] aria-describedby=[problem.map(|_| "problem")];
            }
            div.buttons {
                button type="submit" { "Filter" }
                @if wanted.is_filtered() { a href={ (base) "/sessions" } { "Clear" } }
            }
            @if let Some(problem) = problem { p.problem #problem role="alert" { (text::prose(problem, 500)) } }
        }
    }
}

fn nothing(wanted: &Wanted) -> Markup {
    html! {
        div.empty {
            @if wanted.is_filtered() || !wanted.status.is_empty() {
                p { "No session is like this." }
            } @else {
                p { "No session yet." }
                p { "Point an SDK or the " code { "temporal" } " command at this server's gRPC port, and start a workflow. It shows up here by itself." }
            }
        }
    }
}

fn table(namespace: &str, rows: &[WorkflowExecutionInfo], now: i64) -> Markup {
    html! {
        table.list.sessions {
            thead { tr { th { "Status" } th { "Session" } th { "Type" } th { "Started" } th.number { "Took" } th.number { "Events" } th { "Task queue" } } }
            tbody {
                @for info in rows { (row(namespace, info, now)) }
            }
        }
    }
}

fn row(namespace: &str, info: &WorkflowExecutionInfo, now: i64) -> Markup {
    let execution = info.execution.clone().unwrap_or_default();
    let (word, class) = status_of(info.status);
    let (started, closed) = (
        times::nanos(&info.start_time),
        times::nanos(&info.close_time),
    );
    let until = if closed == 0 { now } else { closed };
    let workflow_type = info.r#type.as_ref().map_or("", |of| &of.name);
    html! {
        tr {
            td data-label="Status" { (badge(class, word)) }
            td.id data-label="Session" {
                a href=(Visit::session(namespace, &execution.workflow_id, &execution.run_id)) { (text::name(&execution.workflow_id)) }
                small.run title="run" { (text::prose(&execution.run_id, 8)) }
                @if let Some(parent) = &info.parent_execution {
                    small { " child of " (text::prose(&parent.workflow_id, 40)) }
                }
            }
            td.kind data-label="Type" { (text::name(workflow_type)) }
            td data-label="Started" { (times::ago(started, now)) }
            td.number data-label="Took" { (times::span(until.saturating_sub(started))) }
            td.number data-label="Events" { @if info.history_length > 0 { (info.history_length) } @else { "–" } }
            td data-label="Task queue" { (text::name(&info.task_queue)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use steadfast_store::filter::{AttributeTypes, Filter};

    use super::*;

    #[test]
    fn what_is_asked_for_is_one_filter() {
        let wanted = Wanted {
            query: "CloseTime IS NULL OR WorkflowType = 'x'".into(),
            id: r"it's \".into(),
            r#type: "Refund' OR 'a' = 'a".into(),
            hours: "24".into(),
            ..Wanted::default()
        };
        let Ok(conditions) = wanted.conditions(1_700_000_000_000_000_000) else {
            panic!("is a filter");
        };
        assert!(conditions.starts_with("(CloseTime IS NULL OR WorkflowType = 'x') AND "));
        for query in [
            conditions.clone(),
            format!("{conditions} GROUP BY ExecutionStatus"),
        ] {
            let parsed = Filter::parse(&query, &AttributeTypes::default());
            assert!(parsed.is_ok(), "{query}: {parsed:?}");
        }
        let odd = Wanted {
            hours: "x".into(),
            ..Wanted::default()
        };
        assert!(odd.conditions(0).is_err());
    }
}
