//! Who may call what, and who did: sessions as the runtime reads them, beside what policies permit now.

mod unused;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use steadfast_engine::Time;
use steadfast_engine::time::SECOND;
use steadfast_ledger::entry::Time as Moment;
use steadfast_policy::{Command, Kind, May, Outlook, Policies, Principal, ToolContext};
use steadfast_runtime::access::{Callee, Calls, Found, Session};

pub use unused::unused;
pub use view::view;

/// So many tools and types of children of a namespace are asked about.
const MAX_KNOWN: usize = 500;

/// So often policies are asked for one answer.
const MAX_QUESTIONS: usize = 50_000;

/// What was read of a namespace.
pub struct Seen {
    /// Its name.
    pub namespace: String,
    /// What was read.
    pub found: Found,
}

/// Whoever started a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Who {
    /// The name, as the log has it.
    pub name: String,
    /// How they were authenticated.
    #[serde(rename = "type")]
    pub method: String,
}

/// A tool, or a type of children: whether it may be called, and whether it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// `tool`, `child` or `local`.
    pub kind: &'static str,
    /// Activity type or workflow type.
    pub name: String,
    /// `allow`, `approval`, `depends` or `deny`; none if there were too many questions.
    pub may: Option<&'static str>,
    /// Policies that say so.
    pub policies: Vec<String>,
    /// Policies that may say otherwise when they see the arguments.
    pub by_arguments: Vec<String>,
    /// How often it was called.
    pub calls: u64,
    /// How many of these calls were refused.
    pub refused: u64,
    /// When it was called last.
    pub last_called: Option<String>,
}

/// Asks policies, not too often.
struct Asking<'a> {
    policies: Option<&'a Policies>,
    now: Time,
    left: usize,
}

impl Asking<'_> {
    fn by(policies: Option<&Policies>, now: Time) -> Asking<'_> {
        Asking {
            policies,
            now,
            left: MAX_QUESTIONS,
        }
    }

    /// What can be said of a call that a session has not made. None if that was asked too often.
    fn outlook(&mut self, namespace: &str, session: &Session, of: &Callee) -> Option<Outlook> {
        let Some(policies) = self.policies else {
            return Some(Outlook {
                may: May::Allow,
                policies: Vec::new(),
                by_arguments: Vec::new(),
            });
        };
        self.left = self.left.checked_sub(1)?;
        let principal = Principal {
            kind: Kind::Agent,
            id: runs_as(namespace, session),
            ..Principal::default()
        };
        let initiator = session.initiator.as_ref();
        let tool = ToolContext {
            command: match of.0 {
                "child" => Command::Child,
                "local" => Command::Local,
                _ => Command::Tool,
            },
            namespace,
            tool: &of.1,
            workflow_type: &session.workflow_type,
            workflow_id: &session.workflow_id,
            task_queue: &session.task_queue,
            initiator: initiator.map_or("", |of| &of.name),
            initiator_method: initiator.map_or("", |of| &of.r#type),
            attempt: 1,
            session_age_seconds: (self.now - session.started).max(0) / SECOND,
            tool_calls: session.tool_calls.clone(),
            children: session.children_started.clone(),
            ..ToolContext::default()
        };
        Some(policies.outlook(&principal, tool))
    }
}

/// The agent that a session is for policies.
fn runs_as(namespace: &str, session: &Session) -> String {
    format!("{namespace}/{}", session.workflow_type)
}

fn initiator(session: &Session) -> Option<Who> {
    let initiator = session.initiator.as_ref()?;
    Some(Who {
        name: initiator.name.clone(),
        method: initiator.r#type.clone(),
    })
}

/// What can be called in a namespace, as far as that is known: what was called, and what policies name. And
/// whether that is all.
fn known(seen: &Seen, policies: Option<&Policies>) -> (BTreeSet<Callee>, bool) {
    let calls = seen.found.sessions.iter().flat_map(|of| of.calls.keys());
    let mut known: BTreeSet<Callee> = calls.cloned().collect();
    for (command, kind) in [(Command::Tool, "tool"), (Command::Child, "child")] {
        let named = policies.map(|of| of.named(command, &seen.namespace));
        known.extend(named.into_iter().flatten().map(|name| (kind, name)));
    }
    let is_all = known.len() <= MAX_KNOWN;
    (known.into_iter().take(MAX_KNOWN).collect(), is_all)
}

fn call(of: &Callee, outlook: Option<Outlook>, calls: Calls) -> Call {
    let last = (calls.last > 0).then(|| Moment(calls.last).to_string());
    let may = outlook.as_ref().map(|of| of.may.name());
    let (policies, by_arguments) =
        outlook.map_or_else(Default::default, |of| (of.policies, of.by_arguments));
    Call {
        kind: of.0,
        name: of.1.clone(),
        may,
        policies,
        by_arguments,
        calls: calls.made,
        refused: calls.refused,
        last_called: last,
    }
}

/// Adds calls of one session to those of others.
fn add(all: &mut BTreeMap<Callee, Calls>, some: &BTreeMap<Callee, Calls>) {
    for (of, calls) in some {
        let sum = all.entry(of.clone()).or_default();
        sum.made += calls.made;
        sum.refused += calls.refused;
        sum.last = sum.last.max(calls.last);
    }
}

#[cfg(test)]
mod tests;
