//! Task queues: who works on them, and what waits.

use axum::extract::Path;
use axum::response::Response;
use maud::{Markup, html};
use steadfast_runtime::matching::{QueueKind, QueueView};

use super::page::{Fault, Page, Section};
use super::{Visit, text, times};

/// Most queues of one page.
const MAX_QUEUES: usize = 200;

/// Most workers of one queue.
const MAX_WORKERS: usize = 50;

/// The page.
pub async fn page(visit: Visit, Path(namespace): Path<String>) -> Response {
    let page = make(&visit, &namespace).await;
    visit.answer(&namespace, Section::Workers, page).await
}

async fn make(visit: &Visit, namespace: &str) -> Result<Page, Fault> {
    visit.admit("DescribeTaskQueue", namespace)?;
    let runtime = &visit.console.runtime;
    let namespace_id = runtime.namespaces().by_name(namespace)?.id.clone();
    let keys = runtime.queues(&namespace_id);
    let queues: Vec<_> = keys
        .iter()
        .map(|key| (key, runtime.queue_view(key)))
        .collect();
    // Each worker has a queue of its own besides, for sessions that it has in its cache.
    let own = |view: &QueueView, name: &str| view.pollers.len() <= 1 && is_own(name);
    let shown: Vec<_> = queues
        .iter()
        .filter(|(key, view)| !own(view, &key.name))
        .collect();
    let hidden = queues.len() - shown.len();
    Ok(Page {
        section: Section::Workers,
        title: format!("Workers of {namespace}"),
        live: true,
        body: html! {
            div.heading { h1 { "Workers" } }
            div #queues data-swap {
                @if shown.is_empty() {
                    div.empty { p { "No worker has polled, and nothing waits for one." } }
                } @else {
                    table.list {
                        thead { tr { th { "Task queue" } th { "For" } th { "Workers" } th.number { "Waiting" } th.number { "Oldest" } th.number { "In and out, a second" } } }
                        tbody { @for (key, view) in shown.iter().take(MAX_QUEUES) { (row(&key.name, key.kind, view)) } }
                    }
                    @if shown.len() > MAX_QUEUES { p.note { "and " (shown.len() - MAX_QUEUES) " more" } }
                }
                @if hidden > 0 { p.note { "Not shown: " (text::counted(hidden, "queue", "queues")) " that workers have for what is in their caches." } }
            }
        },
    })
}

/// Whether a queue's name is one that SDKs make: it ends with 32 hexadecimal digits.
fn is_own(name: &str) -> bool {
    let digits = name.rsplit(['-', ':']).next().unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|of| of.is_ascii_hexdigit())
}

fn row(name: &str, kind: QueueKind, view: &QueueView) -> Markup {
    let mut workers: Vec<_> = view.pollers.iter().collect();
    workers.sort_by_key(|of| of.since_poll);
    let nanos = |of: std::time::Duration| i64::try_from(of.as_nanos()).unwrap_or(i64::MAX);
    html! {
        tr {
            td data-label="Task queue" { (text::name(name)) }
            td data-label="For" { @match kind { QueueKind::Workflow => "agents", _ => "tool calls" } }
            td data-label="Workers" {
                @if workers.is_empty() { span.status.bad { "nobody polls" } }
                @for worker in workers.iter().take(MAX_WORKERS) {
                    div { (text::name(&worker.identity)) small { " polled " (times::rough(nanos(worker.since_poll))) " ago" } }
                }
                @if workers.len() > MAX_WORKERS { small { "and " (workers.len() - MAX_WORKERS) " more" } }
            }
            td.number data-label="Waiting" { (view.backlog) @if view.overflow { "+" } }
            td.number data-label="Oldest" { @if view.backlog > 0 { (times::span(nanos(view.backlog_age))) } @else { "–" } }
            td.number data-label="In and out, a second" { (format!("{:.1} / {:.1}", view.add_rate, view.dispatch_rate)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_sdks_make_are_known() {
        assert!(is_own("123@host-0123456789abcdef0123456789abcdef"));
        assert!(!is_own("agents"));
        assert!(!is_own("0123456789abcdef0123456789abcdeg"));
    }
}
