//! Where one begins; namespaces, and how the server is.

use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use steadfast_engine::proto::enums::NamespaceState;
use steadfast_runtime::namespaces::Namespace;

use super::page::{Fault, Page, Section};
use super::{Visit, sessions, text, times};

/// Namespaces that are counted for one page.
const MAX_NAMESPACES: usize = 50;

/// Goes to the sessions of the namespace that most likely is meant.
pub async fn home(visit: Visit) -> Response {
    let names = match visit.admit("ListNamespaces", "") {
        Ok(_) => there(&visit),
        // Whoever may not see all of them may still see this one.
        Err(fault) if !visit.may("ListWorkflowExecutions", "default", "") => {
            return visit.answer("", Section::Namespaces, Err(fault)).await;
        }
        Err(_) => Vec::new(),
    };
    let is_default = |of: &&std::sync::Arc<Namespace>| of.name == "default";
    let wanted = names.iter().find(is_default).or_else(|| names.first());
    let wanted = wanted.map_or("default", |of| of.name.as_str());
    Redirect::to(&format!("{}/sessions", Visit::base(wanted))).into_response()
}

fn there(visit: &Visit) -> Vec<std::sync::Arc<Namespace>> {
    let mut all = visit.console.runtime.namespaces().all();
    all.retain(|of| of.state != NamespaceState::Deleted as i32);
    all
}

/// All namespaces.
pub async fn page(visit: Visit) -> Response {
    let page = make(&visit).await;
    visit.answer("", Section::Namespaces, page).await
}

async fn make(visit: &Visit) -> Result<Page, Fault> {
    visit.admit("ListNamespaces", "")?;
    let all = there(visit);
    let mut rows = Vec::new();
    for namespace in all.iter().take(MAX_NAMESPACES) {
        rows.push(row(visit, namespace).await);
    }
    Ok(Page {
        section: Section::Namespaces,
        title: "Namespaces".into(),
        live: false,
        body: html! {
            div.heading { h1 { "Namespaces" } }
            div.scroll tabindex="0" {
                table.list {
                    thead { tr { th { "Namespace" } th { "Running" } th { "All sessions" } th { "Kept after their end" } th { "Log" } th { "About" } } }
                    tbody { @for row in rows { (row) } }
                }
            }
            @if all.len() > MAX_NAMESPACES { p.note { "and " (all.len() - MAX_NAMESPACES) " more" } }
            (health(visit))
        },
    })
}

async fn row(visit: &Visit, namespace: &Namespace) -> Markup {
    let counts = match visit.may("CountWorkflowExecutions", &namespace.name, "") {
        true => sessions::counts(visit, namespace, "").await.ok(),
        false => None,
    };
    let log = visit.console.logs.get(&namespace.name);
    html! {
        tr {
            td data-label="Namespace" { a href={ (Visit::base(&namespace.name)) "/sessions" } { (text::name(&namespace.name)) } }
            @match counts {
                Some(counts) => {
                    td.number data-label="Running" { (counts.running()) }
                    td.number data-label="All sessions" { (counts.total) }
                }
                None => { td {} td {} }
            }
            td.number data-label="Kept after their end" { (times::span(namespace.retention)) }
            td.number data-label="Log" {
                @if let Some(log) = log { a href={ (Visit::base(&namespace.name)) "/evidence" } { (log.head.size) " entries" } }
            }
            td data-label="About" { (text::name(&namespace.description)) }
        }
    }
}

fn health(visit: &Visit) -> Markup {
    if !visit.may("GetStatus", "", "") {
        return html! {};
    }
    let runtime = &visit.console.runtime;
    let (transitions, commits) = runtime.counters();
    let refused = visit.caller.refusals();
    html! {
        h2 { "This server" }
        dl.facts {
            div { dt { "Version" } dd { (env!("CARGO_PKG_VERSION")) } }
            div { dt { "State changes since the start" } dd { (transitions) } }
            div { dt { "Commits" } dd { (commits) } }
            div { dt { "Sessions in memory" } dd { (runtime.live_workflows()) } }
            div { dt { "Changes not yet in lists" } dd { (runtime.journal_lag()) } }
            div { dt { "Refused calls" } dd { (refused.denied()) } }
            div { dt { "Callers without a name" } dd { (refused.unauthenticated()) } }
        }
        p.note { "As JSON: " a href="/api/v1/status" { "status" } ". For Prometheus: " a href="/metrics" { "metrics" } "." }
    }
}
