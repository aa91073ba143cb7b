//! What entries say of decisions, approvals and credentials.

use std::borrow::Cow;

use steadfast_engine::record::{ActivityApproval, CallKind, Decision, Verdict};
use steadfast_engine::state::{Credential, Vote};
use steadfast_ledger::entry::{ApprovalItem, CredentialItem, DecisionItem, Time, VoteItem};

use super::{MAX_PRINCIPAL, as_hash, clipped, name};

/// So many groups, policies and votes are listed of one decision or approval.
const MAX_LISTED: usize = 20;

pub(super) fn credential(credential: &Credential) -> CredentialItem<'_> {
    CredentialItem {
        audience: name(&credential.audience),
        expires: Time(credential.expires),
        jti: name(&credential.id),
    }
}

pub(super) fn decision(decision: &Decision) -> DecisionItem<'_> {
    DecisionItem {
        activity_id: name(&decision.activity_id),
        activity_type: name(&decision.activity_type),
        answer: match decision.verdict() {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::Approval => "approval",
        }
        .into(),
        kind: kind(decision.kind()),
        policies: names(&decision.policies),
        policy_hash: as_hash(&decision.policy_hash).unwrap_or_default(),
        scheduled_event_id: decision.scheduled_event_id,
    }
}

pub(super) fn approval(change: &ActivityApproval) -> ApprovalItem<'_> {
    let mut item = ApprovalItem {
        activity_id: name(&change.activity_id),
        activity_type: name(&change.activity_type),
        kind: kind(change.kind()),
        scheduled_event_id: change.scheduled_event_id,
        ..ApprovalItem::default()
    };
    if let Some(approval) = &change.approval {
        item.digest = as_hash(&approval.digest).unwrap_or_default();
        item.expires = Time(approval.expires);
        item.groups = names(&approval.groups);
        item.quorum = approval.quorum.into();
        item.released = !approval.is_open();
        item.votes = approval.votes.iter().take(MAX_LISTED).map(vote).collect();
    }
    item
}

/// What a call is: entries say nothing of a tool call, as they did when there was nothing else.
fn kind(kind: CallKind) -> Cow<'static, str> {
    match kind {
        CallKind::Tool => "",
        kind => kind.name(),
    }
    .into()
}

fn vote(vote: &Vote) -> VoteItem<'_> {
    VoteItem {
        answer: if vote.approves { "approve" } else { "deny" }.into(),
        auth: vote.authentication.as_str().into(),
        by: clipped(&vote.principal, MAX_PRINCIPAL),
        groups: names(&vote.groups),
        t: Time(vote.time),
    }
}

fn names(names: &[String]) -> Vec<Cow<'_, str>> {
    names.iter().take(MAX_LISTED).map(|of| name(of)).collect()
}
