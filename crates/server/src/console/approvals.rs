//! Tool calls that wait for people: what each would do, exactly, who asked, who has to say yes; and votes.

use axum::body::Bytes;
use axum::extract::{Path, Query};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};
use serde::Deserialize;
use steadfast_engine::approval::{Voted, WhichCall};
use steadfast_engine::record::CallKind;
use steadfast_runtime::Kind;
use steadfast_runtime::calls::approvals::{Decide, WaitingCall};

use super::page::{Fault, Page, Section, field, flash};
use super::{CLAIMED, Visit, payload, text, times};
use crate::gate::Target;

/// Calls of one page.
const MAX_CALLS: usize = 100;

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// Only calls that somebody of this group has to approve.
    group: String,
    /// What was just done.
    done: String,
}

/// The inbox.
pub async fn page(
    visit: Visit,
    Path(namespace): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let page = make(&visit, &namespace, &wanted).await;
    visit.answer(&namespace, Section::Approvals, page).await
}

async fn make(visit: &Visit, namespace: &str, wanted: &Wanted) -> Result<Page, Fault> {
    let permit = visit.admit("ListApprovals", namespace)?;
    let all = visit
        .console
        .runtime
        .waiting_calls(&permit, namespace)
        .await?;
    let mut groups: Vec<&String> = all.iter().flat_map(|call| &call.approval.groups).collect();
    groups.sort_unstable();
    groups.dedup();
    let shown: Vec<&WaitingCall> = all
        .iter()
        .filter(|call| wanted.group.is_empty() || call.approval.groups.contains(&wanted.group))
        .collect();
    let now = steadfast_runtime::clock::now();
    let base = Visit::base(namespace);
    let link = |group: &str| format!("{base}/approvals{}", text::query(&[("group", group)]));
    let in_group = |group: &String| {
        all.iter()
            .filter(|call| call.approval.groups.contains(group))
            .count()
    };
    Ok(Page {
        section: Section::Approvals,
        title: format!("Approvals in {namespace}"),
        live: true,
        body: html! {
            div.heading { h1 { "Approvals" } }
            (flash(&wanted.done))
            nav.tabs #groups data-swap aria-label="By group" {
                a href=(link("")) aria-current=[wanted.group.is_empty().then_some("true")] { "All " b { (all.len()) } }
                @for group in groups {
                    a href=(link(group)) aria-current=[(wanted.group == *group).then_some("true")] { (text::prose(group, 40)) " " b { (in_group(group)) } }
                }
            }
            div #calls data-swap="keep" {
                @if shown.is_empty() {
                    div.empty { p { "Nothing waits for people." } p { "Tool calls that a policy wants approved come here, and wait." } }
                }
                @for call in shown.iter().take(MAX_CALLS) { (card(visit, namespace, call, now)) }
                @if shown.len() > MAX_CALLS { p.note { "and " (shown.len() - MAX_CALLS) " more, which waited less" } }
            }
        },
    })
}

fn card(visit: &Visit, namespace: &str, call: &WaitingCall, now: i64) -> Markup {
    let approval = &call.approval;
    let digest = STANDARD.encode(&approval.digest);
    let me = visit.caller.principal();
    let initiator = call.initiator.as_ref().map_or("", |of| &of.name);
    let has_voted = !me.is_empty() && approval.votes.iter().any(|of| of.principal == me);
    let is_mine = !me.is_empty() && initiator == me;
    html! {
        article.call id={ "call-" (hex(&approval.digest)) } {
            header {
                h2 { (text::name(&call.activity_type)) }
                @if let Some(what) = what(call) { p { (what) " " b { (text::name(&call.activity_id)) } } }
                p { "for " a href=(Visit::session(namespace, &call.workflow_id, &call.run_id)) { (text::name(&call.workflow_id)) }
                    " of " b { (text::name(&call.workflow_type)) }
                    @if !initiator.is_empty() { ", on behalf of " b { (text::name(initiator)) } } }
                p.left { span.status.approval { "Waits " (times::rough(now.saturating_sub(approval.requested))) }
                    " Refused " (times::ago(approval.expires, now)) " if nobody decides." }
            }
            div.arguments {
                h3 { "What it would be called with" }
                @match &call.arguments {
                    Some(arguments) if !arguments.payloads.is_empty() => (payload::payloads(arguments)),
                    _ => p.note { "no arguments" },
                }
            }
            div.needs {
                h3 { "Who has to say yes" }
                p { (super::session::needed(approval)) "."
                    " Asked for by " @for (place, id) in approval.policies.iter().enumerate() { @if place > 0 { ", " } span.policy { (text::name(id)) } } "." }
                @if !approval.votes.is_empty() {
                    ul.plain {
                        @for vote in &approval.votes {
                            li { span.status.good { "Approved" } " " (text::name(&vote.principal))
                                @if !vote.groups.is_empty() { small { " of " (text::prose(&vote.groups.join(", "), 100)) } }
                                @if !vote.comment.is_empty() { ": “" (text::prose(&vote.comment, 300)) "”" } }
                        }
                    }
                }
                @if is_mine { p.note { "You started this session: somebody else has to decide." } }
                @else if has_voted { p.note { "You have voted." } }
                @else if visit.may("DecideApproval", namespace, &call.workflow_id) { (ballot(visit, namespace, call, &digest)) }
                @else { p.note { "You may see this, and not vote." } }
            }
        }
    }
}

/// What a call does to another workflow; none for a tool call.
fn what(call: &WaitingCall) -> Option<&'static str> {
    match call.kind {
        CallKind::Tool | CallKind::Local | CallKind::ContinueAs => None,
        CallKind::Child => Some("Starts the child"),
        CallKind::Signal => Some("Sends this signal to"),
        CallKind::Cancel => Some("Asks to cancel"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn ballot(visit: &Visit, namespace: &str, call: &WaitingCall, digest: &str) -> Markup {
    let query = text::query(&[("id", &call.workflow_id), ("run", &call.run_id)]);
    html! {
        form method="post" action={ (Visit::base(namespace)) "/approvals" (query) } {
            (visit.token_field())
            input type="hidden" name="event" value=(call.event_id);
            input type="hidden" name="digest" value=(digest);
            @if !visit.caller.is_authenticated() {
                div.pair {
                    label { span { "Your name" } input name="identity" required maxlength="200" autocomplete="username" data-remember="identity"; }
                    label { span { "Your groups" } input name="groups" maxlength="1000" value=(call.approval.groups.join(", ")) autocomplete="off"; }
                }
                p.note { "Nobody is authenticated here: both are claims." }
            }
            label { span { "Comment, for the record" } input name="comment" maxlength="1000" autocomplete="off"; }
            div.buttons {
                button.good type="submit" name="vote" value="approve" { "Approve this call" }
                button.danger type="submit" name="vote" value="deny" { "Deny it" }
            }
        }
    }
}

/// Which session a vote is about.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct About {
    id: String,
    run: String,
}

/// Counts a vote.
pub async fn vote(
    visit: Visit,
    Path(namespace): Path<String>,
    Query(about): Query<About>,
    body: Bytes,
) -> Response {
    let done = count(&visit, &namespace, &about, &body).await;
    visit.done(&namespace, Section::Approvals, done).await
}

async fn count(
    visit: &Visit,
    namespace: &str,
    about: &About,
    body: &Bytes,
) -> Result<String, Fault> {
    let form = text::form(body);
    let claimed = match field(&form, "identity").trim() {
        "" => CLAIMED,
        name => name,
    };
    let target = Target::of(namespace)
        .claimed(claimed)
        .workflow_id(&about.id);
    let permit = visit.caller.admit_to("DecideApproval", &target)?;
    visit.check_token(&form)?;
    let digest = STANDARD.decode(field(&form, "digest"));
    let approves = match field(&form, "vote") {
        "approve" => true,
        "deny" => false,
        _ => return Err(Fault::invalid("the form says neither yes nor no")),
    };
    // Groups are claims where everything about a caller is.
    let groups = match permit.kind() {
        Kind::Unauthenticated => {
            let groups = field(&form, "groups").split(',').map(str::trim);
            groups
                .filter(|of| !of.is_empty())
                .map(str::to_owned)
                .collect()
        }
        _ => permit.groups().to_vec(),
    };
    let event_id = field(&form, "event").parse();
    let event_id =
        event_id.map_err(|_| Fault::invalid("the form does not say which call it is"))?;
    let decide = Decide {
        workflow_id: about.id.clone(),
        run_id: about.run.clone(),
        call: WhichCall::Event(event_id),
        digest: digest.map_err(|_| Fault::invalid("the digest is not base64"))?,
        groups,
        approves,
        comment: field(&form, "comment").to_owned(),
    };
    let voted = visit
        .console
        .runtime
        .decide_approval(&permit, namespace, decide)
        .await?;
    let done = match voted {
        Voted::Waiting => "counted",
        Voted::Released => "approved",
        Voted::Refused => "denied",
    };
    Ok(format!("{}/approvals?done={done}", Visit::base(namespace)))
}
