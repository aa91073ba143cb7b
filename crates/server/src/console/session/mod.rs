//! One session: what it does and did, why, what it waits for, and what can be done about it.

pub mod actions;
pub mod control;
mod detail;
mod events;
mod lanes;
mod pending;
mod story;
mod timeline;
mod words;

use axum::extract::{Path, Query};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;
use steadfast_engine::proto::common::WorkflowExecution;
use steadfast_engine::proto::history::HistoryEvent;
use steadfast_engine::proto::workflow::{WorkflowExecutionInfo, WorkflowExecutionPauseInfo};
use steadfast_engine::proto::workflowservice::{
    DescribeWorkflowExecutionRequest, DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryReverseRequest,
};
use steadfast_runtime::Permit;

use super::page::{Fault, Page, Section, badge, flash};
use super::{Visit, sessions, text, times};
use story::Story;
pub use words::needed;

/// Events of one page: the last ones of a longer history.
const MAX_EVENTS: usize = 2000;

/// Events of one history as JSON.
const MAX_EVENTS_AS_JSON: usize = 60_000;

/// Bytes of events of one history as JSON.
const MAX_BYTES_AS_JSON: usize = 64 << 20;

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// The workflow.
    id: String,
    /// The run; the current one if it is empty.
    run: String,
    /// The event that is looked at.
    event: i64,
    /// Whether to show what is between the agent and its workers, too.
    all: String,
    /// What was just done.
    done: String,
}

impl Wanted {
    fn execution(&self) -> Option<WorkflowExecution> {
        Some(WorkflowExecution {
            workflow_id: self.id.clone(),
            run_id: self.run.clone(),
        })
    }
}

/// The page.
pub async fn page(
    visit: Visit,
    Path(namespace): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let page = make(&visit, &namespace, &wanted).await;
    visit.answer(&namespace, Section::Sessions, page).await
}

/// What a page is about.
pub struct Session<'a> {
    visit: &'a Visit,
    namespace: &'a str,
    wanted: &'a Wanted,
    description: DescribeWorkflowExecutionResponse,
    info: WorkflowExecutionInfo,
    workflow_id: String,
    run_id: String,
    now: i64,
}

async fn make(visit: &Visit, namespace: &str, wanted: &Wanted) -> Result<Page, Fault> {
    let permit = visit.admit_to("DescribeWorkflowExecution", namespace, &wanted.id)?;
    let runtime = &visit.console.runtime;
    let request = DescribeWorkflowExecutionRequest {
        namespace: namespace.to_owned(),
        execution: wanted.execution(),
    };
    let description = runtime.describe_workflow(&permit, request).await?;
    let info = description
        .workflow_execution_info
        .clone()
        .unwrap_or_default();
    let execution = info.execution.clone().unwrap_or_default();
    let session = Session {
        visit,
        namespace,
        wanted,
        workflow_id: execution.workflow_id,
        run_id: execution.run_id,
        description,
        info,
        now: steadfast_runtime::clock::now(),
    };
    let story = match visit.may("GetWorkflowExecutionHistory", namespace, &wanted.id) {
        true => Some(session.story().await?),
        false => None,
    };
    Ok(Page {
        section: Section::Sessions,
        title: session.workflow_id.clone(),
        live: session.is_running(),
        body: session.body(story.as_ref()).await,
    })
}

impl Session<'_> {
    fn is_running(&self) -> bool {
        times::nanos(&self.info.close_time) == 0
    }

    /// Who paused it, when and why, if it is paused.
    fn paused(&self) -> Option<&WorkflowExecutionPauseInfo> {
        let extended = self.description.workflow_extended_info.as_ref()?;
        extended.pause_info.as_ref().filter(|_| self.is_running())
    }

    fn action(&self, name: &str) -> String {
        let query = text::query(&[("id", &self.workflow_id), ("run", &self.run_id)]);
        format!("{}/session/{name}{query}", Visit::base(self.namespace))
    }

    /// The history and the records, as much of them as a page has.
    async fn story(&self) -> Result<Story, Fault> {
        let permit = self.visit.admit_to(
            "GetWorkflowExecutionHistory",
            self.namespace,
            &self.workflow_id,
        )?;
        let length = usize::try_from(self.info.history_length).unwrap_or(usize::MAX);
        let events = match length > MAX_EVENTS {
            true => self.last_events(&permit).await?,
            false => {
                let (namespace, run_id) = (self.namespace, &self.run_id);
                read(
                    self.visit,
                    &permit,
                    namespace,
                    &self.workflow_id,
                    run_id,
                    MAX_EVENTS,
                )
                .await?
                .0
            }
        };
        let runtime = &self.visit.console.runtime;
        let limit = MAX_EVENTS as u64;
        let account = runtime.account(
            &permit,
            self.namespace,
            &self.workflow_id,
            &self.run_id,
            limit,
        );
        Ok(Story::new(events, account.await?, &self.info, self.now))
    }

    async fn last_events(&self, permit: &Permit) -> Result<Vec<HistoryEvent>, Fault> {
        let mut events = Vec::new();
        let mut token = Vec::new();
        while events.len() < MAX_EVENTS {
            let request = GetWorkflowExecutionHistoryReverseRequest {
                namespace: self.namespace.to_owned(),
                execution: Some(WorkflowExecution {
                    workflow_id: self.workflow_id.clone(),
                    run_id: self.run_id.clone(),
                }),
                maximum_page_size: 500,
                next_page_token: token,
            };
            let answer = self
                .visit
                .console
                .runtime
                .get_history_reverse(permit, request)
                .await?;
            events.extend(answer.history.unwrap_or_default().events);
            token = answer.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        events.reverse();
        Ok(events)
    }

    async fn body(&self, story: Option<&Story>) -> Markup {
        let pending = self.pending(story).await;
        html! {
            (self.heading(story))
            (flash(&self.wanted.done))
            (pending)
            @if let Some(story) = story {
                (timeline::draw(story, self))
                div.columns {
                    (events::list(story, self))
                    (detail::panel(story, self))
                }
            } @else {
                p.note { "You may see that this session is there, and not its history." }
            }
            @if self.is_running() { (actions::dialogs(self, story)) }
        }
    }

    fn heading(&self, story: Option<&Story>) -> Markup {
        let info = &self.info;
        let (word, class) = sessions::status_of(info.status);
        let workflow_type = info.r#type.as_ref().map_or("", |of| &of.name);
        let (started, closed) = (
            times::nanos(&info.start_time),
            times::nanos(&info.close_time),
        );
        let until = if closed == 0 { self.now } else { closed };
        let initiator = story.and_then(Story::initiator);
        let extended = self
            .description
            .workflow_extended_info
            .clone()
            .unwrap_or_default();
        html! {
            div.heading.session {
                div {
                    p.crumbs { a href={ (Visit::base(self.namespace)) "/sessions" } { "Sessions" } }
                    div.title {
                        h1 { (text::name(&self.workflow_id)) }
                        div.state #state data-swap {
                            (badge(class, word))
                            @if self.paused().is_some() { (badge("waiting", "Paused")) }
                            @if extended.cancel_requested && self.is_running() { (badge("waiting", "Cancellation requested")) }
                        }
                    }
                }
                div #actions data-swap { @if self.is_running() { (actions::bar(self)) } }
            }
            dl.facts #facts data-swap {
                div { dt { "Agent" } dd { (text::name(workflow_type)) } }
                div { dt { "Started" } dd { (times::moment(started)) } }
                div { dt { @if closed == 0 { "Runs for" } @else { "Took" } } dd { (times::span(until.saturating_sub(started))) } }
                @if let Some(initiator) = initiator { div { dt { "By" } dd { (text::name(&initiator)) } } }
                div { dt { "Task queue" } dd { (text::name(&info.task_queue)) } }
                div { dt { "Run" } dd.code { (text::name(&self.run_id)) } }
                @if let Some(parent) = &info.parent_execution {
                    div { dt { "Child of" } dd { a href=(Visit::session(self.namespace, &parent.workflow_id, &parent.run_id)) { (text::name(&parent.workflow_id)) } } }
                }
                @if !info.first_run_id.is_empty() && info.first_run_id != self.run_id {
                    div { dt { "First run" } dd { a href=(Visit::session(self.namespace, &self.workflow_id, &info.first_run_id)) { (text::prose(&info.first_run_id, 8)) } } }
                }
                @if !extended.reset_run_id.is_empty() {
                    div { dt { "Reset to" } dd { a href=(Visit::session(self.namespace, &self.workflow_id, &extended.reset_run_id)) { (text::prose(&extended.reset_run_id, 8)) } } }
                }
                div { dt { "Evidence" } dd {
                    a href={ "/api/v1/namespaces/" (text::encode(self.namespace)) "/evidence/bundle" (text::query(&[("workflow_id", &self.workflow_id)])) } download { "bundle" }
                    " · "
                    a href=(self.action("history.json")) { "history as JSON" }
                } }
            }
        }
    }
}

/// Events of a history from the first on, and whether these are all.
async fn read(
    visit: &Visit,
    permit: &Permit,
    namespace: &str,
    workflow_id: &str,
    run_id: &str,
    max: usize,
) -> Result<(Vec<HistoryEvent>, bool), Fault> {
    let mut events: Vec<HistoryEvent> = Vec::new();
    let mut bytes = 0;
    let mut token = Vec::new();
    loop {
        let request = GetWorkflowExecutionHistoryRequest {
            namespace: namespace.to_owned(),
            execution: Some(WorkflowExecution {
                workflow_id: workflow_id.to_owned(),
                run_id: run_id.to_owned(),
            }),
            next_page_token: token,
            ..Default::default()
        };
        let answer = visit
            .console
            .runtime
            .get_history(permit, request, None)
            .await?;
        let page = answer.history.unwrap_or_default().events;
        bytes += page.iter().map(prost::Message::encoded_len).sum::<usize>();
        events.extend(page);
        token = answer.next_page_token;
        if token.is_empty() {
            return Ok((events, true));
        }
        if events.len() >= max || bytes >= MAX_BYTES_AS_JSON {
            return Ok((events, false));
        }
    }
}

/// The history as the `temporal` command reads it.
pub async fn history(
    visit: Visit,
    Path(namespace): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    match history_of(&visit, &namespace, &wanted).await {
        Ok(json) => {
            let headers = [
                (header::CONTENT_TYPE, "application/json"),
                (
                    header::CONTENT_DISPOSITION,
                    "inline; filename=\"history.json\"",
                ),
            ];
            (headers, json).into_response()
        }
        Err(Fault(status)) => crate::http::refusal(&status),
    }
}

async fn history_of(visit: &Visit, namespace: &str, wanted: &Wanted) -> Result<String, Fault> {
    let permit = visit.admit_to("GetWorkflowExecutionHistory", namespace, &wanted.id)?;
    let events = read(
        visit,
        &permit,
        namespace,
        &wanted.id,
        &wanted.run,
        MAX_EVENTS_AS_JSON,
    )
    .await?;
    let (events, true) = events else {
        let message = "this history is too long for one answer: read it over gRPC";
        return Err(Fault(tonic::Status::failed_precondition(message)));
    };
    let json = super::message::history_json(events);
    json.ok_or_else(|| {
        Fault(tonic::Status::internal(
            "this history cannot be written as JSON",
        ))
    })
}
