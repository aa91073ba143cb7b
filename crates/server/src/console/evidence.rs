//! The log of a namespace: what is signed and cosigned, bundles to take away, and bundles to look at.

use std::io::Cursor;

use axum::body::Bytes;
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use steadfast_ledger::bundle::{Limits, Report, Scope, Trust, Verdict, verify_with};
use tonic::Status;

use super::page::{Fault, Page, Section};
use super::{MAX_VERIFICATIONS, Visit, text, times};
use crate::evidence::PublishedLog;
use crate::gate::READ_LOG;
use crate::governance::PolicyJudge;

/// Largest bundle that is verified in a page, in bytes.
pub const MAX_BUNDLE: usize = 32 << 20;

/// What is read of one: it may be compressed.
const LIMITS: Limits = Limits {
    bytes: 1 << 30,
    events: 1_000_000,
    document_bytes: 64 << 20,
};

/// Findings that are shown.
const MAX_FINDINGS: usize = 50;

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// A workflow to make a bundle of.
    id: String,
}

/// The page.
pub async fn page(
    visit: Visit,
    Path(namespace): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let page = make(&visit, &namespace, &wanted, None);
    visit.answer(&namespace, Section::Evidence, page).await
}

fn make(
    visit: &Visit,
    namespace: &str,
    wanted: &Wanted,
    report: Option<Markup>,
) -> Result<Page, Fault> {
    visit.admit(READ_LOG, namespace)?;
    visit.console.runtime.namespaces().by_name(namespace)?;
    let log = visit.console.logs.get(namespace);
    Ok(Page {
        section: Section::Evidence,
        title: format!("Evidence of {namespace}"),
        live: report.is_none(),
        body: html! {
            div.heading { h1 { "Evidence" } }
            @if let Some(report) = report { (report) }
            div #log data-swap {
                @match log {
                    Some(log) => (of_log(visit, namespace, &log)),
                    None => div.empty { p { "Nothing of this namespace is signed yet." } },
                }
                (witnesses(visit))
            }
            div.cards {
                (bundle(visit, namespace, wanted))
                (upload(visit, namespace))
            }
        },
    })
}

fn of_log(visit: &Visit, namespace: &str, log: &PublishedLog) -> Markup {
    let name = text::encode(namespace);
    let cosigned = log.cosigned.as_ref().map(|(size, _)| *size);
    let has_witnesses = !visit.console.witnesses.status().is_empty();
    html! {
        h2 { "The log" }
        dl.facts {
            div { dt { "Signed entries" } dd { (log.head.size) } }
            @if has_witnesses {
                div { dt { "Cosigned by a witness" } dd {
                    @match cosigned {
                        Some(size) if size == log.head.size => { span.status.good { "all" } },
                        Some(size) => { (size) " (" (log.head.size.saturating_sub(size)) " to go)" },
                        None => span.status.waiting { "none yet" },
                    }
                } }
            }
            div { dt { "Origin" } dd.code { (text::name(&log.origin)) } }
            div { dt { "Verifier key" } dd.code { (text::name(&log.key.to_string())) } }
            div { dt { "Changes of the key" } dd { (log.rotations.len()) } }
            div { dt { "As files" } dd {
                a href={ "/log/" (name) "/checkpoint" } { "checkpoint" } " · "
                a href={ "/log/" (name) "/key" } { "key" }
            } }
        }
        details {
            summary { "The newest checkpoint, as it is signed" }
            pre.payload tabindex="0" { (text::visible(&log.checkpoint)) }
        }
    }
}

fn witnesses(visit: &Visit) -> Markup {
    let all = visit.console.witnesses.status();
    html! {
        @if all.is_empty() {
            p.note { "No witness is configured: that the log never forked is this server's word alone." }
        } @else {
            h2 { "Witnesses" }
            table.list {
                thead { tr { th { "Witness" } th { "State" } th { "Cosigned" } } }
                tbody {
                    @for one in &all {
                        tr {
                            td data-label="Witness" { (text::name(&one.name)) }
                            td data-label="State" {
                                @match &one.error {
                                    None => span.status.good { "Answers" },
                                    Some(error) => { span.status.bad { "Fails" } " " (text::prose(error, 300)) },
                                }
                            }
                            td data-label="Cosigned" { @for (origin, size) in &one.cosigned { div { (size) " entries of " (text::prose(origin, 80)) } } }
                        }
                    }
                }
            }
        }
    }
}

fn bundle(visit: &Visit, namespace: &str, wanted: &Wanted) -> Markup {
    if !visit.may("ExportEvidence", namespace, "") {
        return html! {};
    }
    html! {
        section.card {
            h2 { "Take a bundle" }
            p { "Everything about one session in one file: history, entries, proofs, policies. Whoever has it can verify it without this server." }
            form method="get" action={ "/api/v1/namespaces/" (text::encode(namespace)) "/evidence/bundle" } {
                label { span { "Workflow id" } input name="workflow_id" required value=(wanted.id) maxlength="1000" autocomplete="off" spellcheck="false"; }
                div.buttons { button type="submit" { "Download" } }
            }
        }
    }
}

fn upload(visit: &Visit, namespace: &str) -> Markup {
    if !visit.may("CheckEvidence", namespace, "") {
        return html! {};
    }
    html! {
        section.card {
            h2 { "Verify a bundle" }
            p { "Checks that nothing in it was changed, left out or reordered, that one of this server's logs signed it, and decides again what policies decided. At most " (text::bytes(MAX_BUNDLE)) "." }
            form method="post" enctype="multipart/form-data" action={ (Visit::base(namespace)) "/evidence/verify" } {
                (visit.token_field())
                label { span { "Bundle" } input type="file" name="bundle" accept=".zip,application/zip" required; }
                div.buttons { button type="submit" { "Verify" } }
            }
            p.note { "Whoever does not trust this server runs " code { "steadfast evidence verify" } " elsewhere." }
        }
    }
}

/// Verifies an uploaded bundle.
pub async fn verify(
    visit: Visit,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let page = match verified(&visit, &namespace, &headers, body).await {
        Ok(report) => make(&visit, &namespace, &Wanted::default(), Some(report)),
        Err(fault) => Err(fault),
    };
    visit.answer(&namespace, Section::Evidence, page).await
}

async fn verified(
    visit: &Visit,
    namespace: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Markup, Fault> {
    visit.admit("CheckEvidence", namespace)?;
    let parts = parts(headers, &body);
    let part = |name: &str| {
        parts
            .iter()
            .find(|(of, _)| of == name)
            .map(|(_, content)| content)
    };
    let token = part("token").map(|of| String::from_utf8_lossy(of).into_owned());
    visit.check_token(&[("token".to_owned(), token.unwrap_or_default())])?;
    let bundle = part("bundle").filter(|of| !of.is_empty());
    let bundle = bundle
        .ok_or_else(|| Fault::invalid("no file was chosen"))?
        .clone();
    let slot = visit.console.verifications.clone().try_acquire_owned();
    let slot = slot.map_err(|_| {
        let message = format!("{MAX_VERIFICATIONS} bundles are being verified: try again");
        Fault(Status::unavailable(message))
    })?;
    let logs = visit.console.logs.all();
    let keys: Vec<_> = logs.into_iter().map(|(_, log)| log.key).collect();
    let witnesses = visit.console.witnesses.keys();
    let report = tokio::task::spawn_blocking(move || {
        let _slot = slot;
        let trust = Trust {
            log: &keys,
            witnesses: &witnesses,
            quorum: 0,
            earlier: None,
        };
        verify_with(
            Cursor::new(bundle),
            &trust,
            &LIMITS,
            Some(&PolicyJudge::default()),
        )
    });
    let report = report.await;
    let report = report.map_err(|_| Fault(Status::internal("the bundle could not be verified")))?;
    Ok(shown(&report))
}

fn shown(report: &Report) -> Markup {
    let is_good = report.verdict == Verdict::Verified;
    html! {
        section.verdict.good[is_good].bad[!is_good] role="status" aria-labelledby="verdict" {
            h2 #verdict { @if is_good { "Verified" } @else { "Not to be believed" } }
            @if let Some(manifest) = report.manifest.as_ref().filter(|_| is_good) {
                p { (about(&manifest.scope)) " of namespace " b { (text::name(&manifest.namespace)) }
                    ": " (text::counted(manifest.runs.len(), "run", "runs"))
                    ", in a tree of " (manifest.tree.size) " entries, made " (times::moment(manifest.made.0)) "." }
                p { @if report.witnesses.is_empty() { "No witness cosigned it." }
                    @else { "Cosigned by " (text::counted(report.witnesses.len(), "witness", "witnesses")) "." } }
            }
            @if !is_good {
                p { (text::counted(report.total, "thing is", "things are")) " wrong:" }
                ul { @for finding in report.findings.iter().take(MAX_FINDINGS) { li { (text::prose(&finding.to_string(), 500)) } } }
            }
            @if !report.unchecked.is_empty() {
                details {
                    summary { (text::counted(report.unchecked.len(), "thing", "things")) " could not be checked" }
                    ul { @for one in report.unchecked.iter().take(MAX_FINDINGS) { li { (text::prose(one, 500)) } } }
                }
            }
        }
    }
}

fn about(scope: &Scope) -> Markup {
    match scope {
        Scope::Session { workflow_id } => html! { "Session " b { (text::name(workflow_id)) } },
        Scope::Principal { principal } => html! { "What " b { (text::name(principal)) } " did" },
        Scope::Range { from, to } => html! { "Entries " (from) " to " (to) },
    }
}

/// The parts of a form with a file (RFC 7578), by their names.
fn parts(headers: &HeaderMap, body: &Bytes) -> Vec<(String, Bytes)> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|of| of.to_str().ok());
    let boundary = kind.and_then(|of| of.strip_prefix("multipart/form-data"));
    let boundary = boundary.and_then(|of| of.split_once("boundary="));
    let Some(boundary) = boundary.map(|(_, of)| of.trim().trim_matches('"')) else {
        return Vec::new();
    };
    let mark = format!("--{boundary}");
    let mut found = Vec::new();
    let mut places = memchr::memmem::find_iter(body, mark.as_bytes()).peekable();
    while let Some(start) = places.next() {
        let Some(end) = places.peek() else { break };
        // Between the line of one boundary and the line break before the next.
        let from = start + mark.len() + 2;
        let to = end.saturating_sub(2);
        if from < to
            && let Some(part) = part(&body.slice(from..to))
        {
            found.push(part);
        }
    }
    found
}

fn part(content: &Bytes) -> Option<(String, Bytes)> {
    let end = memchr::memmem::find(content, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(content.get(..end)?);
    let (_, name) = head.split_once("name=\"")?;
    let (name, _) = name.split_once('"')?;
    Some((name.to_owned(), content.slice(end + 4..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &'static str, body: &'static [u8]) -> Vec<(String, Bytes)> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().expect("a value"));
        parts(&headers, &Bytes::from_static(body))
    }

    #[test]
    fn forms_with_files_have_their_parts() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\nabc\r\n\
            --x\r\nContent-Disposition: form-data; name=\"bundle\"; filename=\"a\"\r\nContent-Type: a/b\r\n\r\nPK\r\n\r\n\0\r\n--x--\r\n";
        let expected = [("token", &b"abc"[..]), ("bundle", b"PK\r\n\r\n\0")];
        let expected =
            expected.map(|(name, content)| (name.to_owned(), Bytes::from_static(content)));
        assert_eq!(read("multipart/form-data; boundary=x", body), expected);
        assert_eq!(read("multipart/form-data; boundary=\"x\"", body), expected);
    }

    #[test]
    fn other_bodies_have_none() {
        for (kind, body) in [
            ("application/json", &b"{}"[..]),
            ("multipart/form-data", b"--x\r\n\r\n--x--"),
            ("multipart/form-data; boundary=x", b""),
            ("multipart/form-data; boundary=x", b"--x"),
            ("multipart/form-data; boundary=x", b"--x--x--x"),
            ("multipart/form-data; boundary=", b"------"),
        ] {
            assert_eq!(read(kind, body), []);
        }
    }
}
