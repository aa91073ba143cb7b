//! The sessions that live, and whose they are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use steadfast_engine::Time;
use steadfast_ledger::Hash;
use steadfast_ledger::entry::Time as Moment;
use steadfast_policy::Policies;
use steadfast_runtime::access::{Callee, Held, Session, Waiting};

use super::{Asking, Call, Seen, Who, call, initiator, known, runs_as};

const FORMAT: &str = "steadfast-access/1";

/// What lives, and what it may do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    format: &'static str,
    at: String,
    /// Hash of the policies in force.
    policies: Option<String>,
    /// Those that were started last come first.
    sessions: Vec<LiveSession>,
    principals: Vec<Rollup>,
    /// Live sessions that there are, beside those that are told about.
    more: u64,
    is_complete: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LiveSession {
    namespace: String,
    workflow_id: String,
    run_id: String,
    workflow_type: String,
    /// The agent that it is for policies.
    runs_as: String,
    initiator: Option<Who>,
    parent: Option<Parent>,
    started: String,
    /// Since when it is paused.
    paused: Option<String>,
    calls: Vec<Call>,
    credentials: Vec<Credential>,
    waiting: Vec<Approval>,
    is_complete: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Parent {
    workflow_id: String,
    run_id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Credential {
    id: String,
    audience: String,
    expires: String,
    tool: String,
    activity_id: String,
    attempt: i32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Approval {
    kind: &'static str,
    name: String,
    id: String,
    requested: String,
    expires: String,
    quorum: u32,
    groups: Vec<String>,
    votes: usize,
}

/// What is known of a principal: somebody who starts sessions, or an agent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rollup {
    name: String,
    /// How they were authenticated; `agent` for an agent.
    #[serde(rename = "type")]
    method: String,
    sessions: u64,
    /// Tools and children that their sessions may call now: also those that need approval, or some arguments.
    may_call: BTreeSet<String>,
    /// Those that they called.
    called: BTreeSet<String>,
    credentials: u64,
    /// When the last of these credentials expires.
    credentials_until: Option<String>,
    waiting: u64,
}

/// Puts a view together.
pub fn view(seen: Vec<Seen>, policies: Option<&Policies>, now: Time) -> View {
    let mut asking = Asking::by(policies, now);
    let mut view = View {
        format: FORMAT,
        at: Moment(now).to_string(),
        policies: policies.map(|of| Hash(of.hash()).to_string()),
        sessions: Vec::new(),
        principals: Vec::new(),
        more: 0,
        is_complete: true,
    };
    for seen in seen {
        let (known, is_all) = known(&seen, policies);
        view.is_complete &= is_all && seen.found.is_complete;
        let listed: u64 = seen.found.listed.values().sum();
        view.more += listed.saturating_sub(seen.found.sessions.len() as u64);
        for session in seen.found.sessions {
            let session = live(&mut asking, &seen.namespace, session, &known);
            view.sessions.push(session);
        }
    }
    view.is_complete &= asking.left > 0 && view.more == 0;
    view.sessions
        .sort_by(|one, other| other.started.cmp(&one.started));
    view.principals = rollups(&view.sessions);
    view
}

fn live(
    asking: &mut Asking<'_>,
    namespace: &str,
    session: Session,
    known: &BTreeSet<Callee>,
) -> LiveSession {
    let calls = known.iter().map(|of| {
        let made = session.calls.get(of).copied().unwrap_or_default();
        call(of, asking.outlook(namespace, &session, of), made)
    });
    LiveSession {
        calls: calls.collect(),
        namespace: namespace.to_owned(),
        runs_as: runs_as(namespace, &session),
        initiator: initiator(&session),
        parent: session.parent.map(|of| Parent {
            workflow_id: of.workflow_id,
            run_id: of.run_id,
        }),
        workflow_id: session.workflow_id,
        run_id: session.run_id,
        workflow_type: session.workflow_type,
        started: Moment(session.started).to_string(),
        paused: session.paused.map(|of| Moment(of).to_string()),
        credentials: session.credentials.into_iter().map(credential).collect(),
        waiting: session.waiting.into_iter().map(waiting).collect(),
        is_complete: session.is_complete,
    }
}

fn credential(of: Held) -> Credential {
    Credential {
        id: of.id,
        audience: of.audience,
        expires: Moment(of.expires).to_string(),
        tool: of.tool,
        activity_id: of.activity_id,
        attempt: of.attempt,
    }
}

fn waiting(of: Waiting) -> Approval {
    Approval {
        kind: of.kind.name(),
        name: of.name,
        id: of.id,
        requested: Moment(of.approval.requested).to_string(),
        expires: Moment(of.approval.expires).to_string(),
        quorum: of.approval.quorum,
        groups: of.approval.groups,
        votes: of.approval.votes.len(),
    }
}

/// By principal: those who started sessions, and the agents that sessions run as.
fn rollups(sessions: &[LiveSession]) -> Vec<Rollup> {
    let mut all: BTreeMap<Who, Rollup> = BTreeMap::new();
    for session in sessions {
        let agent = Who {
            name: session.runs_as.clone(),
            method: "agent".to_owned(),
        };
        for who in session.initiator.clone().into_iter().chain([agent]) {
            let rollup = all.entry(who.clone()).or_insert_with(|| Rollup {
                name: who.name,
                method: who.method,
                sessions: 0,
                may_call: BTreeSet::new(),
                called: BTreeSet::new(),
                credentials: 0,
                credentials_until: None,
                waiting: 0,
            });
            rollup.add(session);
        }
    }
    all.into_values().collect()
}

impl Rollup {
    fn add(&mut self, session: &LiveSession) {
        self.sessions += 1;
        self.credentials += session.credentials.len() as u64;
        self.waiting += session.waiting.len() as u64;
        // As they are written, the order of times is that of their texts.
        let until = session.credentials.iter().map(|of| &of.expires).max();
        self.credentials_until = self.credentials_until.take().max(until.cloned());
        for call in &session.calls {
            if call.may.is_some_and(|of| of != "deny") {
                self.may_call.insert(call.name.clone());
            }
            if call.calls > 0 {
                self.called.insert(call.name.clone());
            }
        }
    }
}
