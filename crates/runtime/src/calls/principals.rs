//! Disabling and enabling principals, and what that does to their sessions.
//!
//! The order of a disabling: it takes effect in memory and in the store; entries say so; then all sessions
//! of the principal are found, and rest or end. A process that dies in between goes on with it at its next
//! start: looking at a session twice does no harm.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast_engine::Error as EngineError;
use steadfast_engine::pause::PauseRequest;
use steadfast_engine::state::Credential;
use steadfast_engine::{RunState, Time};
use steadfast_ledger::entry::Note;
use steadfast_store::VisibilityQuery;
use steadfast_store::filter::Filter;

use crate::aggregate::WorkflowKey;
use crate::disabled::{Disabled, DisabledPrincipal, Fate, Who};
use crate::error::{Result, RuntimeError};
use crate::namespaces::Namespace;
use crate::offboarding::Offboarding;
use crate::permit::Permit;
use crate::runtime::Runtime;

/// Sessions that are listed at a time.
const PAGE: usize = 1000;

/// So many sessions, and attempts of each, are named in an answer. All are counted.
const MAX_NAMED: usize = 1000;

/// Longest name and reason, in bytes.
const MAX_NAME: usize = 1000;
const MAX_REASON: usize = 1000;

/// How often what could not be finished is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What a cascade came upon.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cascade {
    /// How many sessions.
    pub sessions: u64,
    /// How many attempts of theirs were in workers' hands.
    pub attempts: u64,
    /// The sessions, as many as are named.
    pub named: Vec<Found>,
    /// Until when credentials that they held are valid for those who do not ask the server; 0 without any.
    pub credentials_until: Time,
    /// Whether all sessions were looked at.
    pub complete: bool,
}

/// A session of a principal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Name of its namespace.
    pub namespace: String,
    /// Workflow id.
    pub workflow_id: String,
    /// Run id.
    pub run_id: String,
    /// Workflow type.
    pub workflow_type: String,
    /// Who started it.
    pub initiator: String,
    /// Attempts in workers' hands.
    pub attempts: Vec<Held>,
}

/// An attempt of a tool call in a worker's hands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Activity id.
    pub activity_id: String,
    /// Activity type.
    pub tool: String,
    /// Its number.
    pub attempt: i32,
    /// Who has it.
    pub worker: String,
    /// The credential that it was given. The log has it.
    #[serde(skip)]
    pub credential: Option<Credential>,
}

/// What is done with each session that is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Look,
    Pause,
    Revoke,
    Resume,
}

/// One session that a cascade goes to.
struct Stop {
    namespace: Namespaced,
    workflow_id: String,
    run_id: String,
}

#[derive(Clone)]
struct Namespaced {
    id: String,
    name: String,
}

impl Runtime {
    /// The principals that are disabled.
    pub fn disabled(&self) -> &Disabled {
        &self.0.disabled
    }

    /// What disabling a principal would come upon.
    pub async fn would_disable(&self, permit: &Permit, who: &Who) -> Result<Cascade> {
        check(who, "")?;
        self.cascade(permit, who, Deed::Look, "").await
    }

    /// Disables a principal, at once, and stops its sessions. One that is disabled already stays so since
    /// then; what becomes of its sessions may change.
    pub async fn disable_principal(
        &self,
        permit: &Permit,
        who: Who,
        sessions: Fate,
        reason: String,
    ) -> Result<Cascade> {
        check(&who, &reason)?;
        let cause = permit.cause();
        if who == Who::caller(&cause.principal) {
            return Err(RuntimeError::failed_precondition(
                "nobody disables themselves: nobody would be left to enable them",
            ));
        }
        let _changing = self.0.disabling.lock().await;
        let before = self.disabled().get(&who);
        let record = DisabledPrincipal {
            at: (before.as_ref()).map_or_else(crate::clock::now, |before| before.at),
            by: cause.principal,
            reason,
            sessions,
            complete: false,
            principal: who,
        };
        let store = self.store().clone();
        self.disabled().put(&*store, record.clone()).await?;
        let fate = match sessions {
            Fate::Pause => "paused",
            Fate::Revoke => "revoked",
        };
        let detail = match record.reason.as_str() {
            "" => format!("its sessions are {fate}"),
            why => format!("its sessions are {fate}: {why}"),
        };
        self.note_principal(permit, "principal/disabled", &record.principal, &detail)
            .await?;
        self.stop_sessions(permit, record).await
    }

    /// Enables a principal. Sessions that were paused for it are resumed if that is asked for.
    pub async fn enable_principal(
        &self,
        permit: &Permit,
        who: &Who,
        resume: bool,
    ) -> Result<Cascade> {
        let _changing = self.0.disabling.lock().await;
        if self.disabled().get(who).is_none() {
            let message = format!("{} is not disabled", who.name());
            return Err(RuntimeError::not_found(message));
        }
        let detail = match resume {
            true => "its paused sessions are resumed",
            false => "its paused sessions stay so",
        };
        self.note_principal(permit, "principal/enabled", who, detail)
            .await?;
        self.disabled().remove(&**self.store(), who).await?;
        match resume {
            true => self.cascade(permit, who, Deed::Resume, "").await,
            false => Ok(Cascade {
                complete: true,
                ..Cascade::default()
            }),
        }
    }

    /// Goes on with what was not finished, until the server stops.
    pub(crate) async fn run_cascades(self) {
        while !self.is_stopping() {
            let waiting = self.disabled().all();
            for record in waiting.into_iter().filter(|of| !of.complete) {
                let _changing = self.0.disabling.lock().await;
                let is_same = |now: &DisabledPrincipal| *now == record;
                if !self
                    .disabled()
                    .get(&record.principal)
                    .is_some_and(|now| is_same(&now))
                {
                    continue;
                }
                let name = record.principal.name();
                let permit = Permit::internal("disabled");
                match self.stop_sessions(&permit, record).await {
                    Ok(_) => tracing::info!(principal = name, "its sessions were stopped"),
                    Err(error) => {
                        tracing::warn!(principal = name, %error, "not all of its sessions are stopped");
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Finds all sessions of a disabled principal and stops them.
    async fn stop_sessions(&self, permit: &Permit, record: DisabledPrincipal) -> Result<Cascade> {
        let deed = match record.sessions {
            Fate::Pause => Deed::Pause,
            Fate::Revoke => Deed::Revoke,
        };
        let who = &record.principal;
        let mut offboarding = Offboarding::of(&**self.store(), &record).await?;
        if deed == Deed::Revoke {
            // A crash in the middle of it leaves nothing to find of those that have ended.
            let ahead = self.cascade(permit, who, Deed::Look, "").await?;
            offboarding.add(&ahead);
            offboarding.put(&**self.store()).await?;
        }
        let cascade = self.cascade(permit, who, deed, &record.reason).await?;
        offboarding.add(&cascade);
        let until = match cascade.credentials_until {
            0 => String::new(),
            until => format!(
                ", the last of their credentials expires {}",
                steadfast_ledger::entry::Time(until)
            ),
        };
        let detail = format!(
            "stopped sessions: {}, attempts in workers' hands: {}{until}",
            cascade.sessions, cascade.attempts
        );
        self.note_principal(permit, "principal/stopped", who, &detail)
            .await?;
        offboarding.completed = Some(crate::clock::now());
        offboarding.put(&**self.store()).await?;
        let record = DisabledPrincipal {
            complete: true,
            ..record
        };
        self.disabled().put(&**self.store(), record).await?;
        Ok(cascade)
    }

    async fn note_principal(
        &self,
        permit: &Permit,
        what: &str,
        who: &Who,
        detail: &str,
    ) -> Result<()> {
        let detail = format!("{} {}: {detail}", who.kind(), who.name());
        for namespace in self.namespaces_of(who) {
            let note = Note {
                what: what.into(),
                detail: detail.as_str().into(),
                ..Note::default()
            };
            self.note(permit, &namespace.id, note).await?;
        }
        Ok(())
    }

    fn namespaces_of(&self, who: &Who) -> Vec<std::sync::Arc<Namespace>> {
        let all = self.namespaces().all();
        match who {
            Who::Caller { .. } => all,
            Who::Agent { namespace, .. } => {
                all.into_iter().filter(|of| of.name == *namespace).collect()
            }
        }
    }

    /// Goes to all running sessions. Errors with the last error of a session, after all were tried.
    async fn cascade(
        &self,
        permit: &Permit,
        who: &Who,
        deed: Deed,
        reason: &str,
    ) -> Result<Cascade> {
        self.projected().await?;
        let mut cascade = Cascade::default();
        let mut failed = None;
        for namespace in self.namespaces_of(who) {
            let namespace = Namespaced {
                id: namespace.id.clone(),
                name: namespace.name.clone(),
            };
            let mut cursor = None;
            loop {
                let filter = Filter::parse("ExecutionStatus = 'Running'", &Default::default());
                let page = self.store().list_visibility(VisibilityQuery {
                    namespace_id: namespace.id.clone(),
                    filter: filter.map_err(|error| RuntimeError::Internal(error.to_string()))?,
                    page_size: PAGE,
                    cursor,
                });
                let page = page.await?;
                for row in page.rows {
                    let is_other = matches!(who, Who::Agent { workflow_type, .. } if *workflow_type != row.workflow_type);
                    if is_other {
                        continue;
                    }
                    let stop = Stop {
                        namespace: namespace.clone(),
                        workflow_id: row.workflow_id,
                        run_id: row.run_id,
                    };
                    let visited = self.visit(permit, who, deed, reason, stop, &mut cascade);
                    failed = visited.await.err().or(failed);
                }
                cursor = page.cursor;
                if cursor.is_none() {
                    break;
                }
            }
        }
        cascade.complete = failed.is_none();
        failed.map_or(Ok(cascade), Err)
    }

    /// Goes to one session and, where it is an agent's, to the children that run for it.
    async fn visit(
        &self,
        permit: &Permit,
        who: &Who,
        deed: Deed,
        reason: &str,
        stop: Stop,
        cascade: &mut Cascade,
    ) -> Result<()> {
        let mut stops = vec![(stop, false)];
        let mut seen = std::collections::HashSet::new();
        while let Some((stop, is_child)) = stops.pop() {
            if !seen.insert((stop.namespace.id.clone(), stop.workflow_id.clone())) {
                continue;
            }
            let key = WorkflowKey::new(stop.namespace.id.clone(), stop.workflow_id.as_str());
            let name = &stop.namespace.name;
            let run_id = stop.run_id.as_str();
            let visited = self.transact(permit, &key, run_id, |workflow, cx| {
                let run = &mut workflow.named_live(run_id)?.run;
                if !run.state.is_running() || !(is_child || who.has(name, &run.state)) {
                    return Ok(None);
                }
                let found = found(name, &run.state);
                let children = children(&run.state);
                let is_for_it = |run: &RunState| {
                    (run.paused()).is_some_and(|pause| pause.request_id == who.pause_id())
                };
                let request = PauseRequest {
                    identity: cx.cause.principal.clone(),
                    reason: match reason {
                        "" => format!("{} is disabled", who.name()),
                        why => format!("{} is disabled: {why}", who.name()),
                    },
                    request_id: who.pause_id(),
                };
                match deed {
                    Deed::Look => {}
                    // It rests already, if it is one of the principal's own.
                    Deed::Pause => drop(run.pause(cx, request)?),
                    Deed::Revoke => run.revoke(cx, request)?,
                    Deed::Resume if !is_for_it(&run.state) => return Ok(None),
                    Deed::Resume => drop(run.resume(cx, request)?),
                }
                Ok(Some((found, children)))
            });
            let (found, children) = match visited.await {
                Ok(Some(visited)) => visited,
                // It may be gone by now.
                Ok(None) | Err(RuntimeError::Engine(EngineError::NotFound(_))) => continue,
                Err(error) => return Err(error),
            };
            cascade.add(found);
            if matches!(who, Who::Agent { .. }) {
                for (namespace, workflow_id, run_id) in children {
                    let Ok(namespace) = self.namespaces().by_name(&namespace) else {
                        continue;
                    };
                    let namespace = Namespaced {
                        id: namespace.id.clone(),
                        name: namespace.name.clone(),
                    };
                    let stop = Stop {
                        namespace,
                        workflow_id,
                        run_id,
                    };
                    stops.push((stop, true));
                }
            }
        }
        Ok(())
    }
}

impl Cascade {
    fn add(&mut self, found: Found) {
        self.sessions += 1;
        self.attempts += found.attempts.len() as u64;
        let credentials = found
            .attempts
            .iter()
            .filter_map(|of| of.credential.as_ref());
        let until = credentials.map(|of| of.expires).max().unwrap_or(0);
        self.credentials_until = self.credentials_until.max(until);
        if self.named.len() < MAX_NAMED {
            self.named.push(found);
        }
    }
}

fn found(namespace: &str, state: &RunState) -> Found {
    let out = state.activities.values().filter(|of| of.is_started());
    let held = out.take(MAX_NAMED).map(|activity| {
        let (scheduled, attempt) = (activity.scheduled(), activity.attempt());
        let tool = scheduled.activity_type.as_ref();
        Held {
            activity_id: scheduled.activity_id.clone(),
            tool: tool.map_or_else(String::new, |of| of.name.clone()),
            attempt: attempt.number,
            worker: attempt.identity.clone(),
            credential: attempt.credential.clone(),
        }
    });
    Found {
        namespace: namespace.to_owned(),
        workflow_id: state.workflow_id.clone(),
        run_id: state.run_id.clone(),
        workflow_type: state.workflow_type().to_owned(),
        initiator: (state.initiator.as_ref()).map_or_else(String::new, |of| of.name.clone()),
        attempts: held.collect(),
    }
}

/// Namespace, workflow id and current run of the children that run.
fn children(state: &RunState) -> Vec<(String, String, String)> {
    let started = state.children.values().filter(|child| child.is_started());
    let initiated = started.filter_map(|child| child.initiated.as_ref());
    initiated
        .map(|of| (of.namespace.clone(), of.workflow_id.clone(), String::new()))
        .collect()
}

fn check(who: &Who, reason: &str) -> Result<()> {
    let name = who.name();
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        let message =
            format!("a principal's name has 1 to {MAX_NAME} bytes and no control characters");
        return Err(RuntimeError::invalid(message));
    }
    if let Who::Agent {
        namespace,
        workflow_type,
    } = who
        && (namespace.is_empty() || workflow_type.is_empty())
    {
        return Err(RuntimeError::invalid(
            "an agent is <namespace>/<workflow type>",
        ));
    }
    match reason.len() > MAX_REASON {
        true => Err(RuntimeError::invalid(format!(
            "the reason is longer than {MAX_REASON} bytes"
        ))),
        false => Ok(()),
    }
}
