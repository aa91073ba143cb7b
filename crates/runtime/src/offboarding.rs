//! What a disabling came upon: kept for the certificate about it, also when its sessions are long gone.

use serde::{Deserialize, Serialize};
use steadfast_engine::Time;
use steadfast_store::Store;

use crate::calls::principals::{Cascade, Found, Held};
use crate::disabled::{DisabledPrincipal, Fate, Who};
use crate::error::{Result, RuntimeError};
use crate::runtime::Runtime;

/// Kind of the store's records.
const KIND: &str = "offboarding";

/// So many sessions are named, and attempts of each. All are counted.
const MAX_NAMED: usize = 1000;

/// One disabling of a principal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Offboarding {
    /// Who.
    pub principal: Who,
    /// What was to become of its sessions.
    pub sessions: Fate,
    /// Since when, in nanoseconds since the epoch.
    pub at: Time,
    /// Who disabled it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When all of its sessions had been paused or ended; none while that is under way.
    pub completed: Option<Time>,
    /// How many sessions it had.
    pub counted: u64,
    /// Those, as many as are named.
    pub found: Vec<Found>,
}

impl Offboarding {
    /// As far as it had come, if it was begun before.
    pub(crate) async fn of(store: &dyn Store, record: &DisabledPrincipal) -> Result<Self> {
        let all = all(store).await?;
        let mut same = all.into_iter().filter(|of| of.is_of(record));
        let before = same.next();
        let (counted, found) = before.map_or((0, Vec::new()), |of| (of.counted, of.found));
        Ok(Self {
            principal: record.principal.clone(),
            sessions: record.sessions,
            at: record.at,
            by: record.by.clone(),
            reason: record.reason.clone(),
            completed: None,
            counted,
            found,
        })
    }

    fn is_of(&self, record: &DisabledPrincipal) -> bool {
        self.principal == record.principal && self.at == record.at
    }

    /// Adds what a look at all running sessions came upon. What was known before stays: sessions that have
    /// ended, and attempts that workers had.
    pub(crate) fn add(&mut self, cascade: &Cascade) {
        for found in &cascade.named {
            let is_it = |of: &Found| of.run_id == found.run_id && of.namespace == found.namespace;
            match self.found.iter().position(is_it) {
                Some(index) => self.found[index].add_attempts(&found.attempts),
                None if self.found.len() < MAX_NAMED => self.found.push(found.clone()),
                None => {}
            }
        }
        let named = self.found.len() as u64;
        self.counted = self.counted.max(cascade.sessions).max(named);
    }

    /// Keeps it.
    pub(crate) async fn put(&self, store: &dyn Store) -> Result<()> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| RuntimeError::Internal(format!("an offboarding: {error}")))?;
        Ok(store.put_record(KIND, &self.key(), bytes).await?)
    }

    /// What its records are called: a principal may be disabled several times.
    pub fn key(&self) -> String {
        let (kind, name) = (self.principal.kind(), self.principal.name());
        format!("{kind} {name} {:020}", self.at)
    }
}

impl Found {
    fn add_attempts(&mut self, attempts: &[Held]) {
        for attempt in attempts {
            let is_known = self
                .attempts
                .iter()
                .any(|of| of.activity_id == attempt.activity_id && of.attempt == attempt.attempt);
            if !is_known && self.attempts.len() < MAX_NAMED {
                self.attempts.push(attempt.clone());
            }
        }
    }
}

impl Runtime {
    /// The last disabling of a principal, if it ever was.
    pub async fn offboarding(&self, who: &Who) -> Result<Option<Offboarding>> {
        let all = all(&**self.store()).await?;
        let of_it = all.into_iter().filter(|of| of.principal == *who);
        Ok(of_it.max_by_key(|of| of.at))
    }
}

async fn all(store: &dyn Store) -> Result<Vec<Offboarding>> {
    let records = store.records(KIND).await?.into_iter();
    let all = records.map(|(key, bytes)| {
        serde_json::from_slice(&bytes).map_err(|error| {
            RuntimeError::Internal(format!("the stored offboarding {key:?}: {error}"))
        })
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(run_id: &str, attempts: &[&str]) -> Found {
        let attempts = attempts.iter().map(|activity_id| Held {
            activity_id: (*activity_id).to_owned(),
            attempt: 1,
            ..Held::default()
        });
        Found {
            namespace: "default".into(),
            run_id: run_id.into(),
            attempts: attempts.collect(),
            ..Found::default()
        }
    }

    #[tokio::test]
    async fn what_was_known_before_a_crash_stays() {
        let store = steadfast_store::sqlite::SqliteStore::open_in_memory().expect("a store");
        let record = DisabledPrincipal {
            principal: Who::caller("bot"),
            sessions: Fate::Revoke,
            at: 7,
            by: "alice".into(),
            reason: String::new(),
            complete: false,
        };
        let look = |named: Vec<Found>| Cascade {
            sessions: named.len() as u64,
            named,
            ..Cascade::default()
        };
        let mut first = Offboarding::of(&store, &record).await.expect("reads");
        first.add(&look(vec![found("one", &["a"]), found("two", &[])]));
        first.put(&store).await.expect("is written");
        // One has ended; another attempt was under way.
        let mut next = Offboarding::of(&store, &record).await.expect("reads");
        next.add(&look(vec![found("two", &["b"])]));
        assert_eq!(next.counted, 2);
        assert_eq!(next.found, [found("one", &["a"]), found("two", &["b"])]);
        next.completed = Some(9);
        next.put(&store).await.expect("is written");
        assert_eq!(all(&store).await.expect("reads"), [next]);
        let later = DisabledPrincipal { at: 8, ..record };
        let later = Offboarding::of(&store, &later).await.expect("reads");
        assert_eq!((later.counted, later.found), (0, Vec::new()));
    }
}
