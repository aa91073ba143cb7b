//! Principals that are disabled: their calls are refused, and what they started or runs as them rests.
//!
//! A principal is disabled from the moment that it is in memory; the record in the store makes it so after
//! a restart. From then on each transition of a session of theirs pauses it first ([`Runtime::decide`]),
//! so nothing leaves it, wherever the cascade is that looks for all of them.
//!
//! [`Runtime::decide`]: crate::Runtime

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use steadfast_engine::pause::PauseRequest;
use steadfast_engine::record::Cause;
use steadfast_engine::{Cx, Run, RunState, Time};
use steadfast_store::Store;

use crate::aggregate::Workflow;
use crate::error::{Result, RuntimeError};

/// Kind of the store's records.
const KIND: &str = "disabled-principal";

/// A principal, by its name in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Who {
    /// Whoever makes calls under this name.
    Caller {
        /// Such as `api-key#refund-workers`.
        name: String,
    },
    /// All sessions of a workflow type.
    Agent {
        /// Name of the namespace.
        namespace: String,
        /// The workflow type.
        workflow_type: String,
    },
}

/// What becomes of the sessions of a disabled principal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// They are paused, and can be resumed once the principal is enabled.
    #[default]
    Pause,
    /// They end.
    Revoke,
}

/// That a principal is disabled, and how far that has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisabledPrincipal {
    /// Who.
    pub principal: Who,
    /// What becomes of its sessions.
    pub sessions: Fate,
    /// Since when, in nanoseconds since the epoch.
    pub at: Time,
    /// Who disabled it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Whether all of its sessions were found.
    pub complete: bool,
}

/// The principals that are disabled. Cheap to clone; all copies are the same.
#[derive(Clone, Debug, Default)]
pub struct Disabled(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Nearly always there are none, and each transition asks.
    any: AtomicBool,
    principals: RwLock<HashMap<Who, DisabledPrincipal>>,
}

impl Who {
    /// An agent, by the name that its policies have: `<namespace>/<workflow type>`.
    pub fn agent(namespace: &str, workflow_type: &str) -> Self {
        Self::Agent {
            namespace: namespace.to_owned(),
            workflow_type: workflow_type.to_owned(),
        }
    }

    /// A caller.
    pub fn caller(name: &str) -> Self {
        Self::Caller {
            name: name.to_owned(),
        }
    }

    /// Its name in the log.
    pub fn name(&self) -> String {
        match self {
            Self::Caller { name } => name.clone(),
            Self::Agent {
                namespace,
                workflow_type,
            } => format!("{namespace}/{workflow_type}"),
        }
    }

    /// What it is: `caller` or `agent`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Caller { .. } => "caller",
            Self::Agent { .. } => "agent",
        }
    }

    /// Whether a session was started by it, or runs as it.
    pub fn has(&self, namespace: &str, state: &RunState) -> bool {
        match self {
            Self::Caller { name } => state.initiator.as_ref().is_some_and(|of| of.name == *name),
            Self::Agent {
                namespace: of,
                workflow_type,
            } => of == namespace && state.workflow_type() == workflow_type,
        }
    }

    /// The id of the request that pauses its sessions: what was paused for it can be told from what was not.
    pub fn pause_id(&self) -> String {
        format!("disabled {} {}", self.kind(), self.name())
    }

    fn key(&self) -> String {
        format!("{} {}", self.kind(), self.name())
    }
}

impl Disabled {
    /// Those of a store.
    pub(crate) async fn load(store: &dyn Store) -> Result<Self> {
        let mut principals = HashMap::new();
        for (key, bytes) in store.records(KIND).await? {
            let record: DisabledPrincipal = serde_json::from_slice(&bytes).map_err(|error| {
                RuntimeError::Internal(format!("the stored principal {key:?}: {error}"))
            })?;
            principals.insert(record.principal.clone(), record);
        }
        Ok(Self(Arc::new(Inner {
            any: AtomicBool::new(!principals.is_empty()),
            principals: RwLock::new(principals),
        })))
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<DisabledPrincipal> {
        let mut all: Vec<_> = self.0.principals.read().values().cloned().collect();
        all.sort_by(|one, other| one.principal.cmp(&other.principal));
        all
    }

    /// Since when and why a principal is disabled; none if it is not.
    pub fn get(&self, who: &Who) -> Option<DisabledPrincipal> {
        match self.0.any.load(Ordering::Acquire) {
            true => self.0.principals.read().get(who).cloned(),
            false => None,
        }
    }

    /// Whether calls under this name are refused.
    pub fn refuses(&self, name: &str) -> bool {
        self.0.any.load(Ordering::Acquire)
            && self.0.principals.read().contains_key(&Who::caller(name))
    }

    /// Whether sessions of this type are refused.
    pub fn refuses_agent(&self, namespace: &str, workflow_type: &str) -> bool {
        self.0.any.load(Ordering::Acquire)
            && !workflow_type.is_empty()
            && (self.0.principals.read()).contains_key(&Who::agent(namespace, workflow_type))
    }

    /// The principal for whose sake a session rests.
    pub fn of_session(&self, namespace: &str, state: &RunState) -> Option<DisabledPrincipal> {
        if !self.0.any.load(Ordering::Acquire) {
            return None;
        }
        let principals = self.0.principals.read();
        let initiator = state.initiator.as_ref();
        let initiator = initiator.and_then(|of| principals.get(&Who::caller(&of.name)));
        let agent = || principals.get(&Who::agent(namespace, state.workflow_type()));
        initiator.or_else(agent).cloned()
    }

    /// Takes effect at once, and is durable when this returns.
    pub(crate) async fn put(&self, store: &dyn Store, record: DisabledPrincipal) -> Result<()> {
        let bytes = serde_json::to_vec(&record)
            .map_err(|error| RuntimeError::Internal(format!("a principal: {error}")))?;
        let key = record.principal.key();
        {
            let mut principals = self.0.principals.write();
            principals.insert(record.principal.clone(), record);
            self.0.any.store(true, Ordering::Release);
        }
        Ok(store.put_record(KIND, &key, bytes).await?)
    }

    /// Takes effect once it is durable.
    pub(crate) async fn remove(&self, store: &dyn Store, who: &Who) -> Result<()> {
        store.delete_record(KIND, &who.key()).await?;
        let mut principals = self.0.principals.write();
        principals.remove(who);
        self.0.any.store(!principals.is_empty(), Ordering::Release);
        Ok(())
    }

    /// Pauses the runs of a workflow that are to rest, those that were just made too, whoever causes the
    /// transition.
    pub(crate) fn rest(&self, workflow: &mut Workflow, cx: &mut Cx<'_>) {
        if !self.0.any.load(Ordering::Acquire) {
            return;
        }
        let itself = Cause {
            call: "internal/disabled".into(),
            principal: "steadfast".into(),
            authentication: String::new(),
        };
        let caller = std::mem::replace(&mut cx.cause, itself);
        let mut made = std::mem::take(&mut cx.new_runs);
        for run in &mut made {
            self.rest_run(run, cx);
        }
        for live in workflow.runs.values_mut() {
            self.rest_run(&mut live.run, cx);
        }
        made.append(&mut cx.new_runs);
        cx.new_runs = made;
        cx.cause = caller;
    }

    fn rest_run(&self, run: &mut Run, cx: &mut Cx<'_>) {
        if !run.state.is_running() || run.state.paused().is_some() {
            return;
        }
        let Some(of) = self.of_session(cx.namespace, &run.state) else {
            return;
        };
        let who = of.principal.name();
        let request = PauseRequest {
            identity: of.by.clone(),
            reason: match of.reason.as_str() {
                "" => format!("{who} is disabled"),
                why => format!("{who} is disabled: {why}"),
            },
            request_id: of.principal.pause_id(),
        };
        // It runs and is not paused, and the reason was short enough to be taken.
        if let Err(error) = run.pause(cx, request) {
            tracing::error!(run_id = run.state.run_id, %error, "a session of a disabled principal goes on");
        }
    }
}
