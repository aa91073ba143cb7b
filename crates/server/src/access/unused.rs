//! What workflow types may call, against what they called in a time.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use steadfast_engine::Time;
use steadfast_ledger::Hash;
use steadfast_ledger::entry::Time as Moment;
use steadfast_policy::{May, Outlook, Policies};
use steadfast_runtime::access::{Callee, Calls, Session};

use super::{Asking, Call, Seen, Who, add, call, initiator, known, runs_as};

const FORMAT: &str = "steadfast-unused-access/1";

/// Different people who started sessions of a type: for each of them policies may decide otherwise.
const MAX_INITIATORS: usize = 20;

/// What is granted, and not used.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unused {
    format: &'static str,
    at: String,
    from: String,
    to: String,
    /// Hash of the policies in force.
    policies: Option<String>,
    /// Those with most that is not used come first.
    types: Vec<OfType>,
    is_complete: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfType {
    namespace: String,
    workflow_type: String,
    /// The agent that its sessions are for policies.
    runs_as: String,
    /// Sessions of this time.
    sessions: u64,
    /// Sessions whose histories were read.
    read: u64,
    /// Who started those.
    initiators: BTreeSet<Who>,
    /// What may be called, and was not.
    unused: Vec<Call>,
    /// What was called.
    used: Vec<Call>,
}

/// Puts a report together.
pub fn unused(
    seen: Vec<Seen>,
    policies: Option<&Policies>,
    now: Time,
    (from, to): (Time, Time),
) -> Unused {
    let mut asking = Asking::by(policies, now);
    let mut report = Unused {
        format: FORMAT,
        at: Moment(now).to_string(),
        from: Moment(from).to_string(),
        to: Moment(to).to_string(),
        policies: policies.map(|of| Hash(of.hash()).to_string()),
        types: Vec::new(),
        is_complete: true,
    };
    for seen in seen {
        let (known, is_all) = known(&seen, policies);
        report.is_complete &= is_all && seen.found.is_complete;
        let mut of_types: BTreeMap<String, Vec<Session>> = BTreeMap::new();
        for session in seen.found.sessions {
            let of_type = of_types.entry(session.workflow_type.clone());
            of_type.or_default().push(session);
        }
        for (workflow_type, sessions) in of_types {
            let listed = seen.found.listed.get(&workflow_type).copied();
            let mut of_type = of_type(&mut asking, &seen.namespace, &sessions, &known);
            of_type.sessions = listed.unwrap_or_default();
            report.types.push(of_type);
        }
    }
    report.is_complete &= asking.left > 0;
    report
        .types
        .sort_by_key(|of| std::cmp::Reverse(of.unused.len()));
    report
}

/// About sessions of one type. There is one at least.
fn of_type(
    asking: &mut Asking<'_>,
    namespace: &str,
    sessions: &[Session],
    known: &BTreeSet<Callee>,
) -> OfType {
    let mut calls: BTreeMap<Callee, Calls> = BTreeMap::new();
    let mut examples: BTreeMap<Option<Who>, Session> = BTreeMap::new();
    for session in sessions {
        add(&mut calls, &session.calls);
        let who = initiator(session);
        if examples.len() < MAX_INITIATORS && !examples.contains_key(&who) {
            examples.insert(who, begun_now(session, asking.now));
        }
    }
    let mut of_type = OfType {
        namespace: namespace.to_owned(),
        workflow_type: sessions
            .first()
            .map_or_else(String::new, |of| of.workflow_type.clone()),
        runs_as: sessions
            .first()
            .map_or_else(String::new, |of| runs_as(namespace, of)),
        sessions: 0,
        read: sessions.len() as u64,
        initiators: sessions.iter().filter_map(initiator).collect(),
        unused: Vec::new(),
        used: Vec::new(),
    };
    for of in known {
        let outlooks: Vec<Outlook> = examples
            .values()
            .filter_map(|session| asking.outlook(namespace, session, of))
            .collect();
        // What one of them may do, the type may do.
        let widest = outlooks.into_iter().max_by_key(|of| of.may);
        let is_denied = widest.as_ref().is_some_and(|of| of.may == May::Deny);
        let made = calls.get(of).copied().unwrap_or_default();
        let call = call(of, widest, made);
        match made.made {
            0 if is_denied => {}
            0 => of_type.unused.push(call),
            _ => of_type.used.push(call),
        }
    }
    of_type
}

/// A session like this one that begins now.
fn begun_now(session: &Session, now: Time) -> Session {
    Session {
        started: now,
        tool_calls: BTreeMap::new(),
        children_started: BTreeMap::new(),
        ..session.clone()
    }
}
