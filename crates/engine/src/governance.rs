//! What an agent may do: asked of a [`Governor`] when a tool call, or another command that reaches beyond
//! the workflow, is scheduled, and again when it is handed out, so that a policy that changes binds
//! sessions that are already running.
//!
//! The engine knows no policy. It records what was decided, waits for people where that was the answer
//! (`approval.rs`), and turns a refusal into what SDKs understand (`refusal.rs`). What commands there are
//! is in `call.rs`.

use std::collections::BTreeMap;

use crate::call::Command;
use crate::record::{CallKind, Decision, StepKind, Verdict};
use crate::refusal::{Place, Refusal};
use crate::run::{Cx, Run};
use crate::state::RunState;
use crate::time::{Span, Time};

/// Decides what agents may do.
pub trait Governor: Send + Sync {
    /// Whether a command may be done.
    fn decide(&self, call: &Call<'_>) -> Ruling;

    /// Whether an attestation says that the session's type is resumable.
    fn is_attested(&self, _state: &RunState, _now: Time) -> bool {
        false
    }

    /// SHA-256 of the policies that it decides by, as in [`Reasons`].
    fn policy_hash(&self) -> &[u8];
}

/// A command that is to be decided.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Name of the namespace.
    pub namespace: &'a str,
    /// The session.
    pub state: &'a RunState,
    /// The event that scheduled or initiated it; 0 if it has none.
    pub event_id: i64,
    /// What it is.
    pub command: Command<'a>,
    /// When.
    pub now: Time,
    /// Whether the session's type was attested to be resumable. It is recorded with the decision.
    pub attested: bool,
}

/// What a [`Governor`] says.
#[derive(Clone, Debug, PartialEq)]
pub enum Ruling {
    /// Nothing governs it: nothing is recorded.
    Free,
    /// It may go on.
    Allow(Reasons),
    /// It may not.
    Deny(Reasons),
    /// It may go on once people approved.
    Approval(Reasons, Requirement),
}

/// Why it was decided so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reasons {
    /// Ids of the policies that decided.
    pub policies: Vec<String>,
    /// SHA-256 of the policies in force.
    pub policy_hash: Vec<u8>,
}

/// Whose approval is needed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requirement {
    /// Each group must be represented among those who approve. None: anybody but the initiator.
    pub groups: Vec<String>,
    /// So many people.
    pub quorum: u32,
    /// After this it is refused.
    pub timeout: Span,
}

/// When a command is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// With the command itself.
    Scheduling,
    /// Before an attempt is handed out or a message is sent, or when something it waits for has changed.
    Dispatch,
}

/// How often something was done before a call, by its name.
pub type Counts = BTreeMap<String, i64>;

impl Call<'_> {
    /// How often each tool was called before this call.
    pub fn earlier_tool_calls(&self) -> Counts {
        let counts = &self.state.tool_calls;
        self.without_itself(counts, &[CallKind::Tool])
    }

    /// How many children of each type were started before this call.
    pub fn earlier_children(&self) -> Counts {
        let counts = &self.state.children_started;
        self.without_itself(counts, &[CallKind::Child])
    }

    /// A call that is decided again has been counted.
    fn without_itself(&self, counts: &Counts, kinds: &[CallKind]) -> Counts {
        let mut counts = counts.clone();
        if self.event_id != 0
            && self.event_id <= self.state.tool_calls_until
            && kinds.contains(&self.command.kind())
            && let Some(count) = counts.get_mut(self.command.name())
        {
            *count -= 1;
        }
        counts
    }
}

impl Run {
    pub(crate) fn apply_decision(&mut self, decision: &Decision) {
        let state = &mut self.state;
        let id = decision.scheduled_event_id;
        // One without an event is decided once.
        if id != 0 && id <= state.tool_calls_until {
            return;
        }
        state.tool_calls_until = state.tool_calls_until.max(id);
        let counts = match decision.kind() {
            CallKind::Tool | CallKind::Local => &mut state.tool_calls,
            CallKind::Child => &mut state.children_started,
            CallKind::Signal | CallKind::Cancel | CallKind::ContinueAs => return,
        };
        *counts.entry(decision.activity_type.clone()).or_default() += 1;
    }

    /// Whether a command may be done now. If not, it waits or was refused. What was decided is recorded.
    pub(crate) fn may_run(&mut self, cx: &mut Cx<'_>, id: i64, stage: Stage) -> bool {
        let (Some(governor), Some(command)) = (cx.governor, self.state.command(id)) else {
            self.release(cx, id);
            return true;
        };
        let attested = governor.is_attested(&self.state, cx.now);
        if stage == Stage::Dispatch && self.was_just_allowed(id, governor.policy_hash(), attested) {
            self.release(cx, id);
            return true;
        }
        let ruling = governor.decide(&Call {
            namespace: cx.namespace,
            state: &self.state,
            event_id: id,
            command,
            now: cx.now,
            attested,
        });
        match ruling {
            Ruling::Free => {
                self.release(cx, id);
                true
            }
            Ruling::Allow(reasons) => {
                self.decided(id, Verdict::Allow, reasons, attested);
                self.release(cx, id);
                true
            }
            Ruling::Deny(reasons) => {
                let refusal = Refusal::Policy(reasons.policies.clone());
                self.decided(id, Verdict::Deny, reasons, attested);
                let place = match stage {
                    Stage::Scheduling => Place::AfterTheCommands,
                    Stage::Dispatch => Place::Now,
                };
                self.refuse(cx, id, &refusal, place);
                false
            }
            Ruling::Approval(reasons, requirement) => {
                self.decided(id, Verdict::Approval, reasons.clone(), attested);
                self.require_approval(cx, id, reasons, requirement)
            }
        }
    }

    /// Whether the first attempt of a call is handed out in the transition that scheduled and allowed it:
    /// nothing can have changed since, neither policies nor people's minds, and the same need not be decided
    /// and recorded twice.
    fn was_just_allowed(&self, id: i64, policy_hash: &[u8], attested: bool) -> bool {
        let is_first = self.state.command(id).is_some_and(|of| of.attempt() == 1);
        let of_now = self.steps_of_now().iter().rev();
        let mut decisions = of_now.filter_map(|step| match &step.kind {
            Some(StepKind::Decision(of)) if of.scheduled_event_id == id => Some(of),
            _ => None,
        });
        is_first
            && decisions.next().is_some_and(|last| {
                last.verdict() == Verdict::Allow
                    && last.policy_hash == policy_hash
                    && last.attested == attested
            })
    }

    fn decided(&mut self, event_id: i64, verdict: Verdict, reasons: Reasons, attested: bool) {
        let Some(command) = self.state.command(event_id) else {
            return;
        };
        let decision = Decision {
            kind: command.kind().into(),
            scheduled_event_id: event_id,
            activity_id: command.id().to_owned(),
            activity_type: command.name().to_owned(),
            verdict: verdict.into(),
            policies: reasons.policies,
            policy_hash: reasons.policy_hash,
            attempt: 0,
            attested,
        };
        self.step(StepKind::Decision(decision));
    }
}
