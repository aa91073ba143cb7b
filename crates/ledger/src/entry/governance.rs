//! What an entry says about policies, people and credentials: decisions, approvals with their votes, and
//! what attempts were handed out with.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Time, hash};
use crate::Hash;
use crate::json::Object;

/// The credential of an attempt. The token itself is nowhere.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialItem<'a> {
    /// For whom it is.
    pub audience: Cow<'a, str>,
    /// When it expires.
    pub expires: Time,
    /// Its id.
    pub jti: Cow<'a, str>,
}

/// What a policy decided about a tool call, or another command of an agent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecisionItem<'a> {
    /// Activity id; of others the workflow id of the child or the receiver.
    pub activity_id: Cow<'a, str>,
    /// Activity type; of others the workflow type, or the signal's name.
    pub activity_type: Cow<'a, str>,
    /// `allow`, `deny`, or `approval`: people have to decide.
    pub answer: Cow<'a, str>,
    /// `child`, `signal`, `cancel`, `local`, `continue-as`; empty for a tool call.
    pub kind: Cow<'a, str>,
    /// Ids of the policies that decided.
    pub policies: Vec<Cow<'a, str>>,
    /// SHA-256 of all policies in force.
    #[serde(deserialize_with = "hash")]
    pub policy_hash: Hash,
    /// The event that scheduled or initiated it, 0 if there is none.
    pub scheduled_event_id: i64,
}

/// The approval that a tool call or another command needs, as it is after the transition.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApprovalItem<'a> {
    /// As [`DecisionItem::activity_id`].
    pub activity_id: Cow<'a, str>,
    /// As [`DecisionItem::activity_type`].
    pub activity_type: Cow<'a, str>,
    /// What is approved: the digest of the call with its arguments.
    #[serde(deserialize_with = "hash")]
    pub digest: Hash,
    /// When the call is refused, if it still waits.
    pub expires: Time,
    /// Groups that have to be among those who approve.
    pub groups: Vec<Cow<'a, str>>,
    /// As [`DecisionItem::kind`].
    pub kind: Cow<'a, str>,
    /// So many people.
    pub quorum: i64,
    /// The call goes on.
    pub released: bool,
    /// The event that scheduled or initiated it, 0 if there is none.
    pub scheduled_event_id: i64,
    /// All votes until now, oldest first.
    pub votes: Vec<VoteItem<'a>>,
}

/// What one person said.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VoteItem<'a> {
    /// `approve` or `deny`.
    pub answer: Cow<'a, str>,
    /// How the person was authenticated.
    pub auth: Cow<'a, str>,
    /// The person.
    pub by: Cow<'a, str>,
    /// Groups that the person was in.
    pub groups: Vec<Cow<'a, str>>,
    /// When.
    pub t: Time,
}

impl CredentialItem<'_> {
    pub(super) fn write(&self, object: &mut Object<'_>) {
        object.string("audience", &self.audience);
        object.plain("expires", self.expires);
        object.string("jti", &self.jti);
    }
}

impl DecisionItem<'_> {
    pub(super) fn write(&self, object: &mut Object<'_>) {
        object.string("activity_id", &self.activity_id);
        object.string("activity_type", &self.activity_type);
        object.string("answer", &self.answer);
        write_kind(&self.kind, object);
        object.strings("policies", &self.policies);
        object.plain("policy_hash", self.policy_hash);
        object.number("scheduled_event_id", self.scheduled_event_id);
    }
}

impl ApprovalItem<'_> {
    pub(super) fn write(&self, object: &mut Object<'_>) {
        object.string("activity_id", &self.activity_id);
        object.string("activity_type", &self.activity_type);
        object.plain("digest", self.digest);
        object.plain("expires", self.expires);
        object.strings("groups", &self.groups);
        write_kind(&self.kind, object);
        object.number("quorum", self.quorum);
        if self.released {
            object.flag("released");
        }
        object.number("scheduled_event_id", self.scheduled_event_id);
        object.objects("votes", &self.votes, |object, vote| {
            object.string("answer", &vote.answer);
            object.string("auth", &vote.auth);
            object.string("by", &vote.by);
            object.strings("groups", &vote.groups);
            object.plain("t", vote.t);
        });
    }
}

fn write_kind(kind: &str, object: &mut Object<'_>) {
    if !kind.is_empty() {
        object.string("kind", kind);
    }
}
