//! How the server is: for people and programs as JSON, for Prometheus as text.

use std::fmt::Write;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::json;
use steadfast_runtime::Runtime;

use crate::evidence::{Logs, Witnesses};
use crate::gate::{Caller, Refusals};
use crate::webhooks::{WebhookStatus, Webhooks};

/// The routes.
pub fn router(runtime: Runtime, logs: Logs, witnesses: Witnesses) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(Status {
            runtime,
            logs,
            witnesses,
        })
}

/// What the status is made of.
#[derive(Clone)]
struct Status {
    runtime: Runtime,
    logs: Logs,
    witnesses: Witnesses,
}

async fn status(
    State(state): State<Status>,
    webhooks: Option<Extension<Webhooks>>,
    caller: Caller,
) -> Response {
    if let Err(refused) = caller.admit("GetStatus", "", "") {
        return super::refusal(&refused);
    }
    let runtime = &state.runtime;
    let (transitions, commits) = runtime.counters();
    let logs = state.logs.all().into_iter().map(|(namespace, log)| {
        json!({
            "namespace": namespace,
            "origin": log.origin,
            "size": log.head.size,
            "cosignedSize": log.cosigned.map(|(size, _)| size),
        })
    });
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "transitions": transitions,
        "commits": commits,
        "liveWorkflows": runtime.live_workflows(),
        "journalLag": runtime.journal_lag(),
        "logs": logs.collect::<Vec<_>>(),
        "witnesses": state.witnesses.status(),
        "webhooks": webhooks.map(|Extension(of)| of.status()).unwrap_or_default(),
    }))
    .into_response()
}

async fn metrics(
    State(state): State<Status>,
    webhooks: Option<Extension<Webhooks>>,
    caller: Caller,
) -> Response {
    if let Err(refused) = caller.admit("GetMetrics", "", "") {
        return super::refusal(&refused);
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let mut metrics = state.metrics(caller.refusals());
    metrics.extend(webhooks.map(|Extension(of)| webhook_metrics(&of)));
    ([(header::CONTENT_TYPE, kind)], metrics).into_response()
}

impl Status {
    /// The same in Prometheus' text format, version 0.0.4.
    fn metrics(&self, refusals: &Refusals) -> String {
        let mut page = Page::default();
        let (transitions, commits) = self.runtime.counters();
        let lag = self.runtime.journal_lag();
        page.counter("transitions_total", "State changes since the start.");
        page.sample("transitions_total", &[], transitions);
        page.counter("commits_total", "Commits of the journal since the start.");
        page.sample("commits_total", &[], commits);
        page.gauge("live_workflows", "Workflows in memory.");
        page.sample("live_workflows", &[], self.runtime.live_workflows() as u64);
        page.gauge("journal_lag_rows", "Journal rows that are not projected.");
        page.sample("journal_lag_rows", &[], lag);
        page.counter("refused_calls_total", "Calls that were refused.");
        let refused = [
            ("denied", refusals.denied()),
            ("unauthenticated", refusals.unauthenticated()),
        ];
        for (why, count) in refused {
            page.sample("refused_calls_total", &[("why", why)], count);
        }
        let name = "refused_calls_left_out_total";
        page.counter(name, "Denied calls that have no entry in the log.");
        page.sample(name, &[], refusals.left_out());
        let logs = self.logs.all();
        page.gauge("log_size", "Entries that are signed.");
        for (namespace, log) in &logs {
            page.sample("log_size", &[("namespace", namespace)], log.head.size);
        }
        page.gauge("log_cosigned_size", "Entries that a witness cosigned.");
        for (namespace, log) in &logs {
            let size = log.cosigned.as_ref().map_or(0, |(size, _)| *size);
            page.sample("log_cosigned_size", &[("namespace", namespace)], size);
        }
        let witnesses = self.witnesses.status();
        page.gauge("witness_up", "1 if the last request to the witness worked.");
        for witness in &witnesses {
            let up = u64::from(witness.error.is_none());
            page.sample("witness_up", &[("witness", &witness.name)], up);
        }
        page.gauge("witness_cosigned_size", "Entries that it cosigned last.");
        for witness in &witnesses {
            for (origin, size) in &witness.cosigned {
                let labels = [("witness", witness.name.as_str()), ("origin", origin)];
                page.sample("witness_cosigned_size", &labels, *size);
            }
        }
        page.0
    }
}

/// Those of webhooks.
fn webhook_metrics(webhooks: &Webhooks) -> String {
    let (mut page, all) = (Page::default(), webhooks.status());
    type Sample = fn(&WebhookStatus) -> u64;
    let counters: [(&str, &str, Sample); 3] = [
        ("webhook_delivered_total", "Events that were taken.", |of| {
            of.delivered
        }),
        ("webhook_failed_total", "Attempts that failed.", |of| {
            of.failed
        }),
        (
            "webhook_given_up_total",
            "Events that were given up.",
            |of| of.given_up,
        ),
    ];
    for (name, help, sample) in counters {
        page.counter(name, help);
        for of in &all {
            page.sample(name, &[("webhook", &of.name)], sample(of));
        }
    }
    page.gauge("webhook_lag_entries", "Entries that are to be looked at.");
    for of in &all {
        page.sample(
            "webhook_lag_entries",
            &[("webhook", &of.name)],
            of.lag_entries,
        );
    }
    page.gauge(
        "webhook_waiting_seconds",
        "Age of the oldest event that waits.",
    );
    for of in &all {
        page.sample(
            "webhook_waiting_seconds",
            &[("webhook", &of.name)],
            of.waiting_seconds(),
        );
    }
    page.0
}

/// A page of metrics.
#[derive(Default)]
struct Page(String);

impl Page {
    fn counter(&mut self, name: &str, help: &str) {
        self.head(name, "counter", help);
    }

    fn gauge(&mut self, name: &str, help: &str) {
        self.head(name, "gauge", help);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP steadfast_{name} {help}");
        let _ = writeln!(self.0, "# TYPE steadfast_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let _ = write!(self.0, "steadfast_{name}");
        for (place, (label, value)) in labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            let value = value.replace('\n', "\\n");
            let _ = write!(self.0, "{before}{label}=\"{value}\"");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.gauge("log_size", "Entries.");
        page.sample("log_size", &[("namespace", "a\"b\\c\nd"), ("x", "y")], 7);
        page.sample("log_size", &[], 0);
        let expected = "# HELP steadfast_log_size Entries.\n# TYPE steadfast_log_size gauge\n\
             steadfast_log_size{namespace=\"a\\\"b\\\\c\\nd\",x=\"y\"} 7\nsteadfast_log_size 0\n";
        assert_eq!(page.0, expected);
    }
}
