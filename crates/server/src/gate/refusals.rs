//! Calls that were refused: entries in the logs of their namespaces, and counts.
//!
//! Whoever is refused decides how often that happens, so entries are few: so many for each principal and
//! for all in a minute. How many were left out is an entry, too, at the end of the minute.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use steadfast_ledger::entry::Note;
use steadfast_runtime::{Permit, Runtime};
use tokio::sync::mpsc;

/// Entries of one principal, and of all, in a window.
const OF_A_PRINCIPAL: u32 = 20;
const OF_ALL: u32 = 200;
const WINDOW: Duration = Duration::from_secs(60);

/// Entries that wait to be written.
const WAITING: usize = 64;

/// Longest text that a caller chose, in bytes: entries are small.
const MAX_TEXT: usize = 1000;

/// What the entries say that they are.
const REFUSED: &str = "call/refused";
const LEFT_OUT: &str = "call/refused-left-out";

/// A call that was refused.
pub struct Refused<'a> {
    /// What was refused: the call, or one that it has in it.
    pub call: &'a str,
    /// Who made which call.
    pub permit: &'a Permit,
    /// The namespace.
    pub namespace: &'a str,
    /// The workflow.
    pub workflow_id: &'a str,
    /// The policies that forbid it.
    pub policies: &'a [String],
    /// Why, for people.
    pub why: &'a str,
}

/// Counts refused calls, and has entries made of them. Cheap to clone. The default one makes none.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Inner>);

#[derive(Default)]
struct Inner {
    writer: Option<Writer>,
    window: Mutex<Window>,
    denied: AtomicU64,
    left_out: AtomicU64,
    /// Callers that did not show who they are.
    unauthenticated: Arc<AtomicU64>,
}

struct Writer {
    runtime: Runtime,
    entries: mpsc::Sender<Entry>,
}

/// An entry to be written.
struct Entry {
    permit: Permit,
    namespace_id: String,
    what: &'static str,
    detail: String,
    workflow_id: String,
}

/// What there was in this window.
#[derive(Debug, Default)]
struct Window {
    entries: u32,
    /// Not more of them than entries.
    of_principals: HashMap<String, u32>,
    /// By id of the namespace: not more of them than namespaces.
    left_out: BTreeMap<String, u64>,
}

impl Refusals {
    /// Refusals with entries, and what writes them, which is to be run. `unauthenticated` is counted
    /// elsewhere.
    pub fn new(
        runtime: &Runtime,
        unauthenticated: Arc<AtomicU64>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (entries, receiver) = mpsc::channel(WAITING);
        let refusals = Self(Arc::new(Inner {
            writer: Some(Writer {
                runtime: runtime.clone(),
                entries,
            }),
            unauthenticated,
            ..Inner::default()
        }));
        let writing = write(refusals.clone(), runtime.clone(), receiver);
        (refusals, writing)
    }

    /// Counts a refused call, and makes an entry of it if there are not too many. Never waits.
    pub fn add(&self, refused: Refused<'_>) {
        self.0.denied.fetch_add(1, Ordering::Relaxed);
        let Some(writer) = &self.0.writer else {
            return;
        };
        // Namespaces that are not there have no log.
        let namespaces = writer.runtime.namespaces();
        let Ok(namespace) = namespaces.by_name(refused.namespace) else {
            return;
        };
        let principal = refused.permit.cause().principal;
        let entry = || Entry {
            permit: refused.permit.clone(),
            namespace_id: namespace.id.clone(),
            what: REFUSED,
            detail: detail(&refused),
            workflow_id: bounded(refused.workflow_id).to_owned(),
        };
        let mut window = self.0.window.lock();
        let is_written = window.admits(&principal) && writer.entries.try_send(entry()).is_ok();
        if !is_written {
            *window.left_out.entry(namespace.id.clone()).or_default() += 1;
            self.0.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Calls that policies refused since the start.
    pub fn denied(&self) -> u64 {
        self.0.denied.load(Ordering::Relaxed)
    }

    /// Those of them in namespaces that have no entry of their own.
    pub fn left_out(&self) -> u64 {
        self.0.left_out.load(Ordering::Relaxed)
    }

    /// Requests of callers that did not show who they are.
    pub fn unauthenticated(&self) -> u64 {
        self.0.unauthenticated.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refusals").finish_non_exhaustive()
    }
}

impl Window {
    /// Whether one more entry of `principal` fits.
    fn admits(&mut self, principal: &str) -> bool {
        if self.entries >= OF_ALL {
            return false;
        }
        let of_principal = self.of_principals.entry(principal.to_owned()).or_default();
        let fits = *of_principal < OF_A_PRINCIPAL;
        if fits {
            *of_principal += 1;
            self.entries += 1;
        }
        fits
    }
}

/// Writes entries until the task is ended.
async fn write(refusals: Refusals, runtime: Runtime, mut entries: mpsc::Receiver<Entry>) {
    let mut ends = tokio::time::interval(WINDOW);
    ends.tick().await;
    loop {
        tokio::select! {
            entry = entries.recv() => match entry {
                Some(entry) => note(&runtime, entry).await,
                None => return,
            },
            _ = ends.tick() => {
                let window = std::mem::take(&mut *refusals.0.window.lock());
                for (namespace_id, count) in window.left_out {
                    note(&runtime, left_out(namespace_id, count)).await;
                }
            }
        }
    }
}

fn left_out(namespace_id: String, count: u64) -> Entry {
    let seconds = WINDOW.as_secs();
    Entry {
        permit: Permit::internal("refusals"),
        namespace_id,
        what: LEFT_OUT,
        detail: format!("{count} in {seconds} seconds"),
        workflow_id: String::new(),
    }
}

async fn note(runtime: &Runtime, entry: Entry) {
    let note = Note {
        what: entry.what.into(),
        detail: entry.detail.into(),
        workflow_id: entry.workflow_id.into(),
        ..Note::default()
    };
    let noted = runtime.note(&entry.permit, &entry.namespace_id, note).await;
    if let Err(error) = noted {
        tracing::warn!(%error, "a refused call has no entry");
    }
}

fn detail(refused: &Refused<'_>) -> String {
    let why = match refused.policies {
        [] => refused.why.to_owned(),
        policies => format!("policies {}", policies.join(", ")),
    };
    bounded(&format!("{}: {why}", refused.call)).to_owned()
}

fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_few_however_many_calls_are_refused() {
        let mut window = Window::default();
        let written = (0..1000).filter(|_| window.admits("mallory")).count();
        assert_eq!(written, OF_A_PRINCIPAL as usize);
        assert!(window.admits("alice"), "others are not hurt");
        for number in 0..100_000 {
            window.admits(&format!("invented-{number}"));
        }
        assert_eq!(window.entries, OF_ALL);
        assert!(window.of_principals.len() <= OF_ALL as usize);
        assert!(!window.admits("alice"));
    }

    #[test]
    fn texts_of_callers_are_cut() {
        let long = "é".repeat(MAX_TEXT);
        assert_eq!(bounded(&long).len(), MAX_TEXT);
        let permit = Permit::granted("Call", "p".into(), "oidc".into());
        let policies = vec![long];
        let refused = Refused {
            call: "Call",
            permit: &permit,
            namespace: "n",
            workflow_id: "",
            policies: &policies,
            why: "",
        };
        assert!(detail(&refused).len() <= MAX_TEXT);
    }
}
