//! Policies in force: read from files, watched, or put by the API; asked by the engine.

mod changes;
mod differences;
mod files;
mod judge;
mod tools;
mod what_if;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use steadfast_ledger::Hash;
use steadfast_ledger::entry::Note;
use steadfast_policy::{Policies, starter};
use steadfast_runtime::evidence::export::keep_policies;
use steadfast_runtime::{Permit, Runtime, clock};

use crate::attestations::Attestations;
pub use changes::{MAX_PUT_BYTES, PutError, parse, put};
pub(crate) use changes::{changes, kept};
pub use differences::Differences;
pub use files::{Files, load};
pub use judge::PolicyJudge;
pub(crate) use tools::ToolCalls;
pub use tools::explain;
pub use what_if::WhatIf;

/// How often it is looked whether the files have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Kind and key of the stored record that has the hash of the policies that were in force last.
const KIND: &str = "policy";
const LAST: &str = "last";

/// What the entry says that it is.
const CHANGED: &str = "policy/changed";

/// Where the policies in force come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// There are none.
    #[default]
    None,
    /// They are those to begin with.
    Starter,
    /// They were read from there, and are read again when that changes.
    Files(PathBuf),
    /// They were put by the API.
    Api,
}

/// The policies in force, and what they can see of attestations. Cheap to clone and to read; all copies are the same.
#[derive(Clone, Debug, Default)]
pub struct InForce(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    now: RwLock<(Option<Policies>, Origin)>,
    /// Held while they are changed.
    changing: tokio::sync::Mutex<()>,
    attestations: Attestations,
}

impl InForce {
    /// Those of now.
    pub fn get(&self) -> Option<Policies> {
        self.0.now.read().0.clone()
    }

    /// The attestations that count.
    pub(crate) fn attestations(&self) -> &Attestations {
        &self.0.attestations
    }

    /// Those of now, and where they come from.
    pub fn get_with_origin(&self) -> (Option<Policies>, Origin) {
        self.0.now.read().clone()
    }

    /// These alone, from nowhere.
    pub(crate) fn of(policies: Policies) -> Self {
        let in_force = Self::default();
        in_force.set_from(Some(policies), Origin::None);
        in_force
    }

    #[cfg(test)]
    pub(crate) fn set(&self, policies: Option<Policies>) {
        self.set_from(policies, Origin::None);
    }

    fn set_from(&self, policies: Option<Policies>, origin: Origin) {
        *self.0.now.write() = (policies, origin);
    }
}

/// Reads the policies and puts them into force, before anything is decided. Gives them, and what goes on
/// watching the files. Without a path they are those that were put by the API, else the starters where
/// callers are authenticated, and else there are none: nothing is governed.
pub async fn start(
    runtime: &Runtime,
    path: Option<&Path>,
    authenticates: bool,
    attestations: Attestations,
) -> Result<(InForce, Option<Watch>), String> {
    let in_force = InForce(Arc::new(Shared {
        attestations,
        ..Shared::default()
    }));
    let permit = Permit::internal("policy");
    let Some(path) = path else {
        if let Some((policies, permit)) = changes::stored(runtime).await? {
            let origin = Origin::Api;
            put_into_force(runtime, &in_force, Some(&policies), origin, &permit).await?;
            return Ok((in_force, None));
        }
        let starters = authenticates.then(starter::policies).transpose();
        let starters = starters.map_err(|_| "the starter policies are not valid")?;
        let origin = match starters {
            Some(_) => Origin::Starter,
            None => Origin::None,
        };
        put_into_force(runtime, &in_force, starters.as_ref(), origin, &permit).await?;
        return Ok((in_force, None));
    };
    let (files, policies) = load(path)?;
    let origin = Origin::Files(path.to_owned());
    put_into_force(runtime, &in_force, Some(&policies), origin, &permit).await?;
    let watch = Watch {
        runtime: runtime.clone(),
        in_force: in_force.clone(),
        path: path.to_owned(),
        files,
    };
    Ok((in_force, Some(watch)))
}

/// Has the engine and the gate ask these policies from now on. Each log says so first, unless they were
/// in force already.
async fn put_into_force(
    runtime: &Runtime,
    in_force: &InForce,
    policies: Option<&Policies>,
    origin: Origin,
    permit: &Permit,
) -> Result<(), String> {
    let hash = policies.map_or_else(String::new, |of| Hash(of.hash()).to_string());
    let store = runtime.store();
    let failed = |error: &dyn std::fmt::Display| format!("the policies: {error}");
    let last = store.record(KIND, LAST).await;
    let last = last.map_err(|error| failed(&error))?.unwrap_or_default();
    if let Some(policies) = policies {
        let content = policies.to_json()?.into_bytes();
        let kept = keep_policies(&**store, &Hash(policies.hash()), content).await;
        kept.map_err(|error| failed(&error))?;
    }
    if last != hash.as_bytes() {
        let name = |hash: &str| if hash.is_empty() { "none" } else { hash }.to_owned();
        let was = name(&String::from_utf8_lossy(&last));
        let detail = match policies {
            Some(of) => format!("{was} -> {hash}: {}", of.ids().join(", ")),
            None => format!("{was} -> none"),
        };
        for namespace in runtime.namespaces().all() {
            let note = Note {
                what: CHANGED.into(),
                detail: detail.as_str().into(),
                ..Note::default()
            };
            let noted = runtime.note(permit, &namespace.id, note).await;
            noted.map_err(|error| failed(&error))?;
        }
        let change = changes::Change {
            hash: name(&hash),
            was,
            time: clock::now(),
            cause: changes::By::of(permit),
        };
        changes::remember(&**store, change)
            .await
            .map_err(|error| failed(&error))?;
        let put = store.put_record(KIND, LAST, hash.into_bytes()).await;
        put.map_err(|error| failed(&error))?;
    }
    in_force.set_from(policies.cloned(), origin);
    let governor = |of: &Policies| ToolCalls::new(of.clone(), in_force.attestations().clone());
    runtime.set_governor(policies.map(|of| Arc::new(governor(of)) as _));
    Ok(())
}

/// Watches the files of policies.
pub struct Watch {
    runtime: Runtime,
    in_force: InForce,
    path: PathBuf,
    files: Files,
}

impl Watch {
    /// Puts changed policies into force until the server stops. Those that are not valid are not: the ones
    /// before stay in force, and the server's log says why.
    pub async fn run(mut self) {
        while !self.runtime.is_stopping() {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if self.files.are_as_before(&self.path) {
                continue;
            }
            let loaded = load(&self.path);
            let changed = match loaded {
                Ok((files, policies)) => {
                    let origin = Origin::Files(self.path.clone());
                    let permit = Permit::internal("policy");
                    let (runtime, in_force) = (&self.runtime, &self.in_force);
                    let put =
                        put_into_force(runtime, in_force, Some(&policies), origin, &permit).await;
                    if put.is_ok() {
                        self.files = files;
                        tracing::info!("other policies are in force");
                    }
                    put
                }
                Err(problems) => {
                    self.files = Files::of(&self.path);
                    Err(problems)
                }
            };
            if let Err(error) = changed {
                tracing::error!(%error, "the policies before stay in force");
            }
        }
    }
}
