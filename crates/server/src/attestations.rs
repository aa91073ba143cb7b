//! Attestations: signed statements that workflow types were proved to be resumable (`steadfast prove --attest`).
//!
//! They are kept by namespace, and believed if a key of the configuration signed them. Of a type the newest one
//! counts. The log of the namespace says who added which one; that entry is durable before it counts.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use steadfast_engine::time::SECOND;
use steadfast_ledger::attestation::{Attestation, AttestationError, Signed, Verdict};
use steadfast_ledger::entry::Note;
use steadfast_ledger::note::VerifierKey;
use steadfast_runtime::{Permit, Runtime, RuntimeError};

use crate::config::ProveConfig;

/// Kind of the stored records.
const KIND: &str = "attestation";

/// What the entry says that it is.
const ADDED: &str = "attestations/added";

/// Most attestations of a namespace.
const MAX_STORED: usize = 1000;

/// What clocks may differ by.
const SKEW: i64 = 300 * SECOND;

const DAY: i64 = 86_400 * SECOND;

/// Why one is not stored.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// It is none, or does not count any more.
    #[error("{0}")]
    Invalid(String),
    /// Nobody who is trusted signed it.
    #[error("{0}")]
    Untrusted(String),
    /// There are too many, each the newest of its type.
    #[error("the namespace has attestations of {MAX_STORED} workflow types")]
    Full,
    /// It cannot be written.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// An attestation with when and by whom it was added.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What was signed.
    pub signed: Signed,
    /// When it was added, in nanoseconds since the epoch.
    pub added: i64,
    /// Who added it.
    pub added_by: String,
}

/// As it is stored. Its key is the id of the namespace and the digest of the envelope.
#[derive(Serialize, Deserialize)]
struct Record {
    namespace_id: String,
    added: i64,
    added_by: String,
    /// In base64.
    envelope: String,
}

/// The attestations of a server. Cheap to clone. By default nobody is believed.
#[derive(Clone, Default)]
pub struct Attestations(Arc<Inner>);

#[derive(Default)]
struct Inner {
    keys: Vec<VerifierKey>,
    /// Nanoseconds.
    max_age: i64,
    min_coverage_percent: u64,
    /// By the id of the namespace and the type of the workflow, the newest first.
    stored: RwLock<HashMap<String, HashMap<String, Vec<Stored>>>>,
    /// Held while one is added: entries and records are in one order.
    changing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Attestations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attestations").finish_non_exhaustive()
    }
}

impl Attestations {
    /// Reads those that are stored. Those of keys that are not trusted any more are left out.
    pub async fn open(runtime: &Runtime, config: &ProveConfig) -> Result<Self, String> {
        let keys = config.trusted_keys.iter().map(|text| {
            VerifierKey::parse(text.trim())
                .map_err(|error| format!("trusted_keys of [prove]: {text:?}: {error}"))
        });
        let inner = Inner {
            keys: keys.collect::<Result<_, _>>()?,
            max_age: i64::from(config.max_age_days).saturating_mul(DAY),
            min_coverage_percent: config.min_coverage_percent.into(),
            ..Inner::default()
        };
        let failed = |error: &dyn fmt::Display| format!("stored attestation: {error}");
        let records = runtime.store().records(KIND).await;
        for (key, bytes) in records.map_err(|error| failed(&error))? {
            let record: Record = serde_json::from_slice(&bytes).map_err(|error| failed(&error))?;
            let envelope = STANDARD.decode(&record.envelope);
            let envelope = envelope.map_err(|error| failed(&error))?;
            match Attestation::open(&envelope, &inner.keys) {
                Ok(signed) => inner.insert(
                    &record.namespace_id,
                    Stored {
                        signed,
                        added: record.added,
                        added_by: record.added_by,
                    },
                ),
                Err(AttestationError::Untrusted(why)) => {
                    tracing::warn!(key, why, "an attestation does not count any more");
                }
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Whether the newest attestation of a workflow type says that it is resumable, and counts.
    pub fn is_attested(&self, namespace_id: &str, workflow_type: &str, now: i64) -> bool {
        self.with_newest(namespace_id, workflow_type, now, |_| ())
            .is_some()
    }

    /// The newest attestation of a workflow type, if it says that it is resumable, and counts.
    pub fn newest(&self, namespace_id: &str, workflow_type: &str, now: i64) -> Option<Stored> {
        self.with_newest(namespace_id, workflow_type, now, Stored::clone)
    }

    fn with_newest<T>(
        &self,
        namespace_id: &str,
        workflow_type: &str,
        now: i64,
        then: impl FnOnce(&Stored) -> T,
    ) -> Option<T> {
        let stored = self.0.stored.read();
        let newest = stored.get(namespace_id)?.get(workflow_type)?.first()?;
        self.0.counts(&newest.signed, now).then(|| then(newest))
    }

    /// All of a namespace, the newest first.
    pub fn list(&self, namespace_id: &str) -> Vec<Stored> {
        let stored = self.0.stored.read();
        let of_types = stored
            .get(namespace_id)
            .into_iter()
            .flat_map(HashMap::values);
        let mut all: Vec<Stored> = of_types.flatten().cloned().collect();
        all.sort_by(order);
        all
    }

    /// Stores one. One that is there is left as it is.
    pub async fn add(
        &self,
        runtime: &Runtime,
        permit: &Permit,
        namespace_id: &str,
        envelope: &[u8],
    ) -> Result<Stored, AddError> {
        let now = steadfast_runtime::clock::now();
        let signed = self.0.believe(envelope, now)?;
        let _changing = self.0.changing.lock().await;
        let mut all = self.list(namespace_id);
        if let Some(there) = all.iter().find(|of| of.signed.digest == signed.digest) {
            return Ok(there.clone());
        }
        if all.len() >= MAX_STORED {
            self.make_room(runtime, namespace_id, &mut all).await?;
        }
        let note = Note {
            what: ADDED.into(),
            detail: detail(&signed).into(),
            ..Note::default()
        };
        runtime.note(permit, namespace_id, note).await?;
        let stored = Stored {
            signed,
            added: now,
            added_by: permit.cause().principal,
        };
        let record = Record {
            namespace_id: namespace_id.to_owned(),
            added: stored.added,
            added_by: stored.added_by.clone(),
            envelope: STANDARD.encode(envelope),
        };
        let bytes = serde_json::to_vec(&record);
        let bytes = bytes.map_err(|error| RuntimeError::Internal(error.to_string()))?;
        let key = record_key(namespace_id, &stored.signed);
        let put = runtime.store().put_record(KIND, &key, bytes).await;
        put.map_err(RuntimeError::from)?;
        self.0.insert(namespace_id, stored.clone());
        Ok(stored)
    }

    /// Forgets the oldest one that is not the newest of its type.
    async fn make_room(
        &self,
        runtime: &Runtime,
        namespace_id: &str,
        all: &mut [Stored],
    ) -> Result<(), AddError> {
        let is_superseded = |(place, of): &(usize, &Stored)| {
            let workflow_type = &of.signed.attestation.workflow_type;
            let newer = &all[..*place];
            newer
                .iter()
                .any(|other| other.signed.attestation.workflow_type == *workflow_type)
        };
        let oldest = all.iter().enumerate().rev().find(is_superseded);
        let oldest = oldest.ok_or(AddError::Full)?.1.signed.clone();
        let key = record_key(namespace_id, &oldest);
        let deleted = runtime.store().delete_record(KIND, &key).await;
        deleted.map_err(RuntimeError::from)?;
        let mut stored = self.0.stored.write();
        let of_type = stored
            .get_mut(namespace_id)
            .and_then(|of| of.get_mut(&oldest.attestation.workflow_type));
        if let Some(of_type) = of_type {
            of_type.retain(|of| of.signed.digest != oldest.digest);
        }
        Ok(())
    }
}

impl Inner {
    fn counts(&self, signed: &Signed, now: i64) -> bool {
        let of = &signed.attestation;
        let age = now.saturating_sub(of.finished.0);
        // Nothing to try is nothing shown.
        let reached = of.reached.saturating_mul(100);
        let is_covered =
            of.points > 0 && reached >= of.points.saturating_mul(self.min_coverage_percent);
        of.verdict == Verdict::Resumable && age <= self.max_age && is_covered
    }

    fn believe(&self, envelope: &[u8], now: i64) -> Result<Signed, AddError> {
        let signed = Attestation::open(envelope, &self.keys).map_err(|error| match error {
            AttestationError::Untrusted(_) => AddError::Untrusted(error.to_string()),
            AttestationError::Malformed(_) => AddError::Invalid(error.to_string()),
        })?;
        let finished = signed.attestation.finished.0;
        if finished > now.saturating_add(SKEW) {
            return Err(AddError::Invalid("it is from the future".to_owned()));
        }
        if now.saturating_sub(finished) > self.max_age {
            let days = self.max_age / DAY;
            return Err(AddError::Invalid(format!("it is older than {days} days")));
        }
        Ok(signed)
    }

    fn insert(&self, namespace_id: &str, new: Stored) {
        let mut stored = self.stored.write();
        let of_namespace = stored.entry(namespace_id.to_owned()).or_default();
        let workflow_type = new.signed.attestation.workflow_type.clone();
        let of_type = of_namespace.entry(workflow_type).or_default();
        of_type.push(new);
        of_type.sort_by(order);
    }
}

/// The newest first; of two of the same time the one that was not resumable.
fn order(one: &Stored, other: &Stored) -> std::cmp::Ordering {
    let key = |of: &Stored| {
        let (attestation, digest) = (&of.signed.attestation, &of.signed.digest);
        let is_resumable = attestation.verdict == Verdict::Resumable;
        (-attestation.finished.0, is_resumable, digest.0)
    };
    key(one).cmp(&key(other))
}

fn record_key(namespace_id: &str, signed: &Signed) -> String {
    let digest: String = signed
        .digest
        .0
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{namespace_id}/{digest}")
}

fn detail(signed: &Signed) -> String {
    let of = &signed.attestation;
    let verdict = match of.verdict {
        Verdict::Resumable => "resumable",
        Verdict::NotResumable => "not resumable",
    };
    format!(
        "{:?} is {verdict}: {} of {} tried until {}, by {}, envelope {}",
        of.workflow_type, of.reached, of.points, of.finished, signed.key, signed.digest
    )
}

#[cfg(test)]
mod tests {
    use steadfast_ledger::attestation::worker_command;
    use steadfast_ledger::entry::Time;
    use steadfast_ledger::note::SigningKey;
    use steadfast_runtime::namespaces::Namespace;
    use steadfast_store::Store;
    use steadfast_store::sqlite::SqliteStore;

    use super::*;

    fn key(name: &str) -> SigningKey {
        SigningKey::new(name, [7; 32]).expect("a key")
    }

    /// An envelope about a type, of some days ago.
    fn envelope(workflow_type: &str, days: i64, verdict: Verdict, key: &SigningKey) -> Vec<u8> {
        let attestation = Attestation {
            workflow_type: workflow_type.to_owned(),
            worker: "python worker.py".into(),
            verdict,
            faults: vec!["worker_before".into()],
            boundaries: 5,
            points: 100,
            tried: 60,
            reached: 50,
            seed: 1,
            failures: Vec::new(),
            finished: Time(steadfast_runtime::clock::now() - days * DAY),
            prover: "steadfast".into(),
        };
        let signed = attestation.sign(worker_command("python worker.py"), key);
        signed.expect("is signed")
    }

    async fn open(store: &Arc<SqliteStore>, config: &ProveConfig) -> (Runtime, Attestations) {
        let shared: Arc<dyn Store> = store.clone();
        let settings = crate::Config::default().settings();
        let runtime = Runtime::open(shared, settings).await.expect("a runtime");
        if runtime.namespaces().by_name("one").is_err() {
            let put = runtime
                .namespaces()
                .put(&**runtime.store(), Namespace::new("one"));
            put.await.expect("a namespace");
        }
        let opened = Attestations::open(&runtime, config).await;
        (runtime, opened.expect("attestations"))
    }

    fn believing(keys: &[&SigningKey]) -> ProveConfig {
        ProveConfig {
            trusted_keys: keys.iter().map(|of| of.verifier().to_string()).collect(),
            ..ProveConfig::default()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_newest_one_counts_also_after_a_restart() {
        let store = Arc::new(SqliteStore::open_in_memory().expect("a store"));
        let (ci, other) = (key("ci.example"), key("other.example"));
        let (runtime, attestations) = open(&store, &believing(&[&ci])).await;
        let id = runtime
            .namespaces()
            .by_name("one")
            .expect("there")
            .id
            .clone();
        let permit = Permit::granted("AddAttestation", "ci".into(), "api-key".into());
        let add = async |envelope: Vec<u8>| {
            let added = attestations.add(&runtime, &permit, &id, &envelope).await;
            added.map(|_| ())
        };
        let now = steadfast_runtime::clock::now();
        let is_attested = |of: &Attestations| of.is_attested(&id, "A", now);
        assert!(!is_attested(&attestations));
        add(envelope("A", 2, Verdict::Resumable, &ci))
            .await
            .expect("is added");
        assert!(is_attested(&attestations));
        assert!(!attestations.is_attested(&id, "B", now));
        assert!(!attestations.is_attested("elsewhere", "A", now));
        // When it is old it does not count.
        assert!(!attestations.is_attested(&id, "A", now + 89 * DAY));
        for (wrong, expected) in [
            (
                envelope("B", 1, Verdict::Resumable, &other),
                "not a trusted key",
            ),
            (
                envelope("B", -1, Verdict::Resumable, &ci),
                "from the future",
            ),
            (
                envelope("B", 91, Verdict::Resumable, &ci),
                "older than 90 days",
            ),
            (b"{}".to_vec(), "not an attestation"),
        ] {
            let error = add(wrong).await.expect_err("is refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
        // An older one changes nothing; a newer one that says the contrary does.
        add(envelope("A", 3, Verdict::NotResumable, &ci))
            .await
            .expect("is added");
        assert!(is_attested(&attestations));
        let contrary = envelope("A", 1, Verdict::NotResumable, &ci);
        add(contrary.clone()).await.expect("is added");
        add(contrary).await.expect("is there");
        assert!(!is_attested(&attestations));
        assert_eq!(attestations.list(&id).len(), 3);
        runtime.stop();

        let (runtime, attestations) = open(&store, &believing(&[&ci])).await;
        assert_eq!(attestations.list(&id).len(), 3);
        assert!(!is_attested(&attestations));
        let strict = ProveConfig {
            min_coverage_percent: 51,
            ..believing(&[&ci])
        };
        let again = envelope("A", 0, Verdict::Resumable, &ci);
        let added = attestations.add(&runtime, &permit, &id, &again).await;
        added.expect("is added");
        assert!(is_attested(&attestations));
        let entries = store.clone();
        runtime.log_size(&id).await.expect("projected");
        let entries = entries
            .log_entries(&id, 0, 100, usize::MAX)
            .await
            .expect("entries");
        let notes = entries.iter().filter(|of| {
            let text = String::from_utf8_lossy(of);
            text.contains(ADDED) && text.contains("\"principal\":\"ci\"")
        });
        assert_eq!(notes.count(), 4);
        runtime.stop();
        let (runtime, attestations) = open(&store, &strict).await;
        assert!(!is_attested(&attestations));
        runtime.stop();
        // A key that is not trusted any more.
        let (runtime, attestations) = open(&store, &believing(&[&other])).await;
        assert_eq!(attestations.list(&id).len(), 0);
        runtime.stop();
    }
}
