//! Approvals: a tool call, or another command that reaches beyond the workflow, waits until enough people
//! have approved exactly this call.
//!
//! They are part of the run's state, and survive what that survives. An approval is for the digest of
//! the call ([`Command::digest`]): other arguments are another call. Nobody approves a session that they
//! started, and nobody votes twice. An activity's own time-outs start when it is released; a child or a
//! message that waits has not been sent.

use crate::call::Command;
use crate::error::{Error, Result};
use crate::governance::{Reasons, Requirement, Stage};
use crate::record::{ActivityApproval, StepKind};
use crate::refusal::{Place, Refusal};
use crate::run::{Cx, Run};
use crate::state::{Activity, Approval, Delivery, RunState, Vote};
use crate::time::Time;

/// Longest comment of a vote, in bytes.
const MAX_COMMENT: usize = 4000;

/// What a person says about a call that waits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ballot {
    /// Who.
    pub principal: String,
    /// How they were authenticated.
    pub authentication: String,
    /// Groups that they are in.
    pub groups: Vec<String>,
    /// Whether they approve.
    pub approves: bool,
    /// Why.
    pub comment: String,
}

/// What a vote led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voted {
    /// More votes are needed.
    Waiting,
    /// The call goes on.
    Released,
    /// The call was refused.
    Refused,
}

/// Which call is meant.
#[derive(Clone, Debug, PartialEq)]
pub enum WhichCall {
    /// The tool call with this activity id.
    Activity(String),
    /// The call that this event scheduled or initiated.
    Event(i64),
}

impl WhichCall {
    fn is(&self, event_id: i64, command: &Command<'_>) -> bool {
        match self {
            Self::Activity(id) => matches!(command, Command::Tool(_)) && command.id() == id,
            Self::Event(id) => event_id == *id,
        }
    }
}

impl std::fmt::Display for WhichCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Activity(id) => write!(f, "activity {id:?}"),
            Self::Event(id) => write!(f, "the call of event {id}"),
        }
    }
}

impl Approval {
    /// Whether the call waits for it.
    pub fn is_open(&self) -> bool {
        self.released == 0
    }

    /// Whether the votes are enough: so many people, and each group among them.
    pub fn is_met(&self) -> bool {
        let approving = || self.votes.iter().filter(|vote| vote.approves);
        let is_represented = |group: &String| approving().any(|vote| vote.groups.contains(group));
        approving().count() >= self.quorum as usize && self.groups.iter().all(is_represented)
    }
}

impl Activity {
    /// The approval that it waits for.
    pub fn open_approval(&self) -> Option<&Approval> {
        self.approval.as_ref().filter(|approval| approval.is_open())
    }
}

impl Run {
    /// A call needs approval. Whether it may go on: the votes that it has may be enough.
    pub(crate) fn require_approval(
        &mut self,
        cx: &mut Cx<'_>,
        id: i64,
        reasons: Reasons,
        requirement: Requirement,
    ) -> bool {
        let Some(command) = self.state.command(id) else {
            return false;
        };
        let before = command.approval().cloned().unwrap_or_default();
        let is_new = command.approval().is_none();
        let mut approval = Approval {
            requested: if is_new { cx.now } else { before.requested },
            expires: cx.now.saturating_add(requirement.timeout),
            quorum: requirement.quorum.max(1),
            groups: requirement.groups,
            digest: command.digest(&self.state, id).into(),
            policies: reasons.policies,
            policy_hash: reasons.policy_hash,
            votes: before.votes.clone(),
            released: before.released,
        };
        if !is_new {
            // Asking again gives no more time.
            approval.expires = approval.expires.min(before.expires);
        }
        let is_met = approval.is_met();
        if !is_met {
            approval.released = 0;
        } else if approval.is_open() {
            approval.released = cx.now;
        }
        if approval != before {
            self.set_approval(id, approval);
        }
        is_met
    }

    /// Nothing is needed any more: a call that waited goes on.
    pub(crate) fn release(&mut self, cx: &Cx<'_>, id: i64) {
        let command = self.state.command(id);
        let approval = command.and_then(|of| of.open_approval());
        if let Some(approval) = approval.cloned() {
            self.set_approval(
                id,
                Approval {
                    released: cx.now,
                    ..approval
                },
            );
        }
    }

    /// Counts a vote on a call, if it is the one with this digest.
    pub fn vote(
        &mut self,
        cx: &mut Cx<'_>,
        which: &WhichCall,
        digest: &[u8],
        ballot: Ballot,
    ) -> Result<Voted> {
        if !self.state.is_running() {
            return Err(Error::completed());
        }
        let is_meant = |(id, command, _): &(i64, Command<'_>, &Approval)| which.is(*id, command);
        let found = self.state.waiting().find(is_meant);
        let Some((id, _, approval)) = found else {
            return Err(Error::NotFound(format!(
                "{which} does not wait for an approval"
            )));
        };
        check_ballot(&self.state, approval, digest, &ballot)?;
        let mut approval = approval.clone();
        let refusal = (!ballot.approves)
            .then(|| Refusal::Person(ballot.principal.clone(), ballot.comment.clone()));
        approval.votes.push(Vote {
            principal: ballot.principal,
            authentication: ballot.authentication,
            groups: ballot.groups,
            approves: ballot.approves,
            comment: ballot.comment,
            time: cx.now,
        });
        self.set_approval(id, approval);
        if let Some(refusal) = refusal {
            self.refuse(cx, id, &refusal, Place::Now);
            return Ok(Voted::Refused);
        }
        Ok(self.decide_waiting_call(cx, id))
    }

    /// What waits by other policies than those in force, or by none, is decided again: it goes on, is
    /// refused, or waits on. Votes are kept.
    pub fn decide_again(&mut self, cx: &mut Cx<'_>) {
        if !self.state.is_running() {
            return;
        }
        let policy_hash = cx.governor.map_or(&[][..], |of| of.policy_hash());
        let by_others = self.state.waiting();
        let by_others = by_others.filter(|(_, _, approval)| approval.policy_hash != policy_hash);
        let by_others: Vec<i64> = by_others.map(|(id, _, _)| id).collect();
        for id in by_others {
            self.decide_waiting_call(cx, id);
        }
    }

    /// The policy may have changed since it was asked: it decides what the votes are worth.
    fn decide_waiting_call(&mut self, cx: &mut Cx<'_>, id: i64) -> Voted {
        let may_run = self.may_run(cx, id, Stage::Dispatch);
        if self.state.command(id).is_none() {
            return Voted::Refused;
        }
        if !may_run {
            return Voted::Waiting;
        }
        self.dispatch(cx, id);
        Voted::Released
    }

    /// Offers a tool call to workers, or sends a message that was held back.
    pub(crate) fn dispatch(&mut self, cx: &mut Cx<'_>, id: i64) {
        let message = match self.state.command(id) {
            None | Some(Command::Reported(_)) => return,
            Some(Command::Tool(activity)) => {
                let effect = self.activity_effect(id, activity, cx.now);
                cx.effects.extend(effect);
                return;
            }
            Some(Command::Child(child)) => self.start_message(id, child),
            Some(command @ Command::Signal(_)) => {
                self.message_to(command.receiver(), Delivery::Signal(id))
            }
            Some(command @ Command::Cancel(_)) => {
                self.message_to(command.receiver(), Delivery::Cancel(id))
            }
        };
        self.send(cx, message);
    }

    /// When approvals of messages are over: those of tool calls are among the activities' deadlines.
    pub(crate) fn message_approval_deadlines(&self) -> impl Iterator<Item = (Time, i64)> {
        let is_paused = self.state.paused().is_some();
        let messages = self.state.messages_under_way().filter(move |_| !is_paused);
        messages.filter_map(|(id, command)| Some((command.open_approval()?.expires, id)))
    }

    /// Nobody decided in time.
    pub(crate) fn expire_approval(&mut self, cx: &mut Cx<'_>, id: i64) {
        self.refuse(cx, id, &Refusal::Expired, Place::Now);
    }

    fn set_approval(&mut self, event_id: i64, approval: Approval) {
        let Some(command) = self.state.command(event_id) else {
            return;
        };
        let change = ActivityApproval {
            kind: command.kind().into(),
            scheduled_event_id: event_id,
            activity_id: command.id().to_owned(),
            activity_type: command.name().to_owned(),
            approval: Some(approval),
        };
        self.step(StepKind::Approval(change));
    }

    pub(crate) fn apply_approval(&mut self, change: &ActivityApproval) {
        let id = change.scheduled_event_id;
        let Some(activity) = self.state.activities.get_mut(&id) else {
            if let Some(approval) = self.state.approval_mut(id) {
                approval.clone_from(&change.approval);
            }
            self.state.sent_at_release(id);
            return;
        };
        let waited = activity.open_approval().is_some();
        activity.approval.clone_from(&change.approval);
        // Its time-outs start when it is released.
        if let (true, Some(released)) = (waited, activity.released_at()) {
            activity.scheduled_time = released;
            if let Some(attempt) = &mut activity.attempt {
                attempt.scheduled_time = released;
            }
        }
    }
}

impl Activity {
    fn released_at(&self) -> Option<Time> {
        let approval = self.approval.as_ref()?;
        (!approval.is_open()).then_some(approval.released)
    }
}

fn check_ballot(
    state: &RunState,
    approval: &Approval,
    digest: &[u8],
    ballot: &Ballot,
) -> Result<()> {
    if approval.digest != digest {
        return Err(Error::FailedPrecondition(
            "this is not the call that was shown: look at it again".into(),
        ));
    }
    if ballot.comment.len() > MAX_COMMENT {
        let message = format!("the comment is longer than {MAX_COMMENT} bytes");
        return Err(Error::InvalidArgument(message));
    }
    if ballot.principal.is_empty() {
        return Err(Error::PermissionDenied("nobody knows who votes".into()));
    }
    let initiator = state.initiator.as_ref();
    if initiator.is_some_and(|of| of.name == ballot.principal) {
        return Err(Error::PermissionDenied(format!(
            "{} started this session, and cannot decide its approvals",
            ballot.principal
        )));
    }
    let is_member = approval.groups.is_empty()
        || approval
            .groups
            .iter()
            .any(|group| ballot.groups.contains(group));
    if !is_member {
        return Err(Error::PermissionDenied(format!(
            "{} is in none of the groups {}",
            ballot.principal,
            approval.groups.join(", ")
        )));
    }
    if approval
        .votes
        .iter()
        .any(|vote| vote.principal == ballot.principal)
    {
        return Err(Error::FailedPrecondition(format!(
            "{} has voted on this call",
            ballot.principal
        )));
    }
    Ok(())
}
