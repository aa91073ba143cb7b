//! API keys: made, listed and revoked by this server. `sfk_<id>_<secret>`; the secret is 256 random
//! bits, and only its hash is stored.
//!
//! The log of each namespace says who made and revoked which key. The entries about a new key are
//! durable before it is; those about a revoked one come after, since a revocation waits for nothing.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use steadfast_ledger::Hash;
use steadfast_ledger::entry::Note;
use steadfast_runtime::{Kind, Permit, Runtime, RuntimeError};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use super::key_record::KIND;
pub use super::key_record::KeyRecord;
use super::{API_KEY_PREFIX, Identity, Refusal};

/// The method, and the issuer of all keys.
const METHOD: &str = "api-key";

/// Most keys, with those that are not valid any more.
const MAX_KEYS: usize = 10_000;

/// A key that is to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Whose it will be.
    pub name: String,
    /// What its holder is.
    pub kind: Kind,
    /// The groups of its holder.
    pub groups: Vec<String>,
    /// Until when it is valid, in nanoseconds since the epoch; none for ever.
    pub expires: Option<i64>,
}

/// Why nothing was done to a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is none.
    #[error("there is no API key {0:?}")]
    NotFound(String),
    /// There are too many.
    #[error("there are {MAX_KEYS} API keys that are valid: revoke some")]
    Full,
    /// It cannot be written.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// The keys of a server. Cheap to clone.
#[derive(Clone)]
pub struct ApiKeys {
    runtime: Runtime,
    keys: Arc<RwLock<HashMap<String, Key>>>,
    /// Held while keys are changed: entries and records are in one order.
    changing: Arc<tokio::sync::Mutex<()>>,
}

/// A key in memory.
struct Key {
    record: KeyRecord,
    secret_hash: Hash,
    identity: Arc<Identity>,
    /// Dropped when it is revoked: calls that are under way end.
    _alive: Option<watch::Sender<()>>,
}

impl Key {
    fn new(record: KeyRecord) -> Result<Self, String> {
        let (kind, groups) = (record.kind(), record.groups.clone());
        let identity = Identity::new(METHOD, METHOD, &record.name, kind, groups);
        let (alive, revoked) = watch::channel(());
        let identity = Identity {
            expires: record.expires,
            revoked: Some(revoked),
            ..identity.map_err(|error| format!("API key {}: {error}", record.id))?
        };
        Ok(Self {
            secret_hash: record.secret_hash()?,
            identity: Arc::new(identity),
            _alive: record.revoked.is_none().then_some(alive),
            record,
        })
    }
}

impl ApiKeys {
    /// Reads the keys of a store.
    pub(super) async fn open(runtime: &Runtime) -> Result<Self, String> {
        let stored = runtime.store().records(KIND).await;
        let mut keys = HashMap::new();
        for (id, bytes) in stored.map_err(|error| error.to_string())? {
            let key = KeyRecord::decode(&bytes).and_then(Key::new);
            keys.insert(id, key.map_err(|error| format!("stored API key: {error}"))?);
        }
        Ok(Self {
            runtime: runtime.clone(),
            keys: Arc::new(RwLock::new(keys)),
            changing: Arc::default(),
        })
    }

    /// Who has a key.
    pub(super) fn authenticate(&self, key: &str) -> Result<Arc<Identity>, Refusal> {
        let not_valid = || Refusal::because("the API key is not valid");
        let (id, secret) = split(key).ok_or_else(not_valid)?;
        let hash = Hash::of(secret.as_bytes());
        let keys = self.keys.read();
        let key = keys.get(id).ok_or_else(not_valid)?;
        if !bool::from(hash.0.ct_eq(&key.secret_hash.0)) {
            return Err(not_valid());
        }
        // Who has the secret may know what became of it.
        match key.record.revoked {
            Some(_) => Err(Refusal::because("the API key was revoked")),
            None => Ok(key.identity.clone()),
        }
    }

    /// All keys, the newest last.
    pub fn list(&self) -> Vec<KeyRecord> {
        let keys = self.keys.read();
        let mut records: Vec<_> = keys.values().map(|key| key.record.clone()).collect();
        records.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        records
    }

    /// Makes a key. Gives the key itself, which is not kept anywhere.
    pub async fn create(
        &self,
        permit: &Permit,
        new: NewKey,
    ) -> Result<(String, KeyRecord), KeyError> {
        let key = generate().map_err(KeyError::Invalid)?;
        let record = self.accept(permit, &key, new).await?;
        Ok((key, record))
    }

    /// Takes a key that was made elsewhere. One that is known is left as it is.
    pub(super) async fn accept(
        &self,
        permit: &Permit,
        key: &str,
        new: NewKey,
    ) -> Result<KeyRecord, KeyError> {
        let (id, secret) =
            split(key).ok_or_else(|| KeyError::Invalid("not an API key".to_owned()))?;
        let mut record = KeyRecord::new(id.to_owned(), Hash::of(secret.as_bytes()), new);
        record.created_by = permit.cause().principal;
        if record
            .expires
            .is_some_and(|expires| expires <= record.created)
        {
            return Err(KeyError::Invalid("the key would have expired".to_owned()));
        }
        let key = Key::new(record.clone()).map_err(KeyError::Invalid)?;
        let _changing = self.changing.lock().await;
        if self.keys.read().contains_key(id) {
            return Err(KeyError::Invalid(format!("API key {id} is there")));
        }
        self.make_room(record.created).await?;
        let detail = format!(
            "API key {id} of {:?}: {}, groups {:?}",
            record.name,
            record.kind().name(),
            record.groups
        );
        self.note(permit, "keys/created", &detail).await?;
        self.put(&record).await?;
        self.keys.write().insert(id.to_owned(), key);
        Ok(record)
    }

    /// Revokes a key, at once. One that was revoked stays as it is.
    pub async fn revoke(&self, permit: &Permit, id: &str) -> Result<KeyRecord, KeyError> {
        let _changing = self.changing.lock().await;
        let record = self.keys.read().get(id).map(|key| key.record.clone());
        let mut record = record.ok_or_else(|| KeyError::NotFound(id.to_owned()))?;
        if record.revoked.is_some() {
            return Ok(record);
        }
        record.revoked = Some(steadfast_runtime::clock::now());
        record.revoked_by = Some(permit.cause().principal);
        self.put(&record).await?;
        if let Some(key) = self.keys.write().get_mut(id) {
            key.record = record.clone();
            key._alive = None;
        }
        let detail = format!("API key {id} of {:?}", record.name);
        self.note(permit, "keys/revoked", &detail).await?;
        Ok(record)
    }

    /// Forgets a key that is not valid any more if there are too many.
    async fn make_room(&self, now: i64) -> Result<(), KeyError> {
        let oldest = {
            let keys = self.keys.read();
            if keys.len() < MAX_KEYS {
                return Ok(());
            }
            let dead = keys.values().filter(|key| !key.record.is_live(now));
            let oldest = dead.min_by_key(|key| key.record.created);
            oldest.ok_or(KeyError::Full)?.record.id.clone()
        };
        let deleted = self.runtime.store().delete_record(KIND, &oldest).await;
        deleted.map_err(RuntimeError::from)?;
        self.keys.write().remove(&oldest);
        Ok(())
    }

    async fn put(&self, record: &KeyRecord) -> Result<(), KeyError> {
        let bytes = record.encode().map_err(KeyError::Invalid)?;
        let put = self.runtime.store().put_record(KIND, &record.id, bytes);
        Ok(put.await.map_err(RuntimeError::from)?)
    }

    /// Says it in the log of each namespace: who has one may not have the others.
    async fn note(&self, permit: &Permit, what: &str, detail: &str) -> Result<(), RuntimeError> {
        for namespace in self.runtime.namespaces().all() {
            let note = Note {
                what: what.into(),
                detail: detail.into(),
                ..Note::default()
            };
            self.runtime.note(permit, &namespace.id, note).await?;
        }
        Ok(())
    }
}

/// A new key.
pub(super) fn generate() -> Result<String, String> {
    let failed = |error| format!("no randomness for a key: {error}");
    let (mut id, mut secret) = ([0; 8], [0; 32]);
    getrandom::fill(&mut id).map_err(failed)?;
    getrandom::fill(&mut secret).map_err(failed)?;
    let id = u64::from_be_bytes(id);
    let secret = URL_SAFE_NO_PAD.encode(secret);
    Ok(format!("{API_KEY_PREFIX}{id:016x}_{secret}"))
}

/// The id and the secret of a key.
pub(super) fn split(key: &str) -> Option<(&str, &str)> {
    let (id, secret) = key.strip_prefix(API_KEY_PREFIX)?.split_once('_')?;
    let is_id = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && secret.len() == 43).then_some((id, secret))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use steadfast_ledger::Entry;
    use steadfast_runtime::namespaces::Namespace;
    use steadfast_store::Store;
    use steadfast_store::sqlite::SqliteStore;

    use super::*;

    async fn open(store: &Arc<SqliteStore>) -> (Runtime, ApiKeys) {
        let shared: Arc<dyn Store> = store.clone();
        let settings = crate::Config::default().settings();
        let runtime = Runtime::open(shared, settings).await.expect("a runtime");
        for name in ["one", "two"] {
            if runtime.namespaces().by_name(name).is_err() {
                let namespace = Namespace::new(name);
                let put = runtime.namespaces().put(&**runtime.store(), namespace);
                put.await.expect("a namespace");
            }
        }
        let keys = ApiKeys::open(&runtime).await.expect("keys");
        (runtime, keys)
    }

    fn new(name: &str, expires: Option<i64>) -> NewKey {
        NewKey {
            name: name.into(),
            kind: Kind::Service,
            groups: vec!["workers".into()],
            expires,
        }
    }

    fn permit() -> Permit {
        Permit::granted("CreateKey", "root".into(), "oidc".into())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_key_works_until_it_is_revoked_also_after_a_restart() {
        let store = Arc::new(SqliteStore::open_in_memory().expect("a store"));
        let (runtime, keys) = open(&store).await;
        let made = keys.create(&permit(), new("ci", None)).await;
        let (key, record) = made.expect("a key");
        assert_eq!(record.created_by, "root");
        let identity = keys.authenticate(&key).expect("known");
        assert_eq!(identity.principal(), "api-key#ci");
        assert_eq!((identity.kind, identity.method), (Kind::Service, METHOD));
        assert_eq!(*identity.groups, ["workers".to_owned()]);
        let (_, secret) = split(&key).expect("two parts");
        for (_, bytes) in store.records(KIND).await.expect("records") {
            assert!(!String::from_utf8_lossy(&bytes).contains(secret));
        }
        runtime.stop();
        let (runtime, keys) = open(&store).await;
        let identity = keys.authenticate(&key).expect("known");
        let waiting = tokio::spawn(async move { identity.over().await });
        keys.revoke(&permit(), &record.id).await.expect("revoked");
        let over = tokio::time::timeout(Duration::from_secs(5), waiting).await;
        over.expect("calls under way end").expect("no panic");
        let refused = keys.authenticate(&key).expect_err("refused");
        assert!(refused.to_string().contains("revoked"));
        runtime.stop();
        let (runtime, keys) = open(&store).await;
        assert!(keys.authenticate(&key).is_err());
        let again = keys.revoke(&permit(), &record.id).await.expect("revoked");
        assert!(again.revoked.is_some());
        for namespace in runtime.namespaces().all() {
            runtime.log_size(&namespace.id).await.expect("projected");
            let entries = store.log_entries(&namespace.id, 0, 100, usize::MAX).await;
            let entries = entries.expect("entries");
            let notes = entries.iter().filter_map(|entry| {
                let entry = Entry::parse(entry).expect("an entry");
                let note = entry.note?;
                let is_about_keys = note.what.starts_with("keys/");
                assert!(!is_about_keys || entry.cause.principal == "root");
                is_about_keys.then(|| (note.what.into_owned(), note.detail.into_owned()))
            });
            let notes: Vec<_> = notes.collect();
            let whats: Vec<_> = notes.iter().map(|(what, _)| what.as_str()).collect();
            assert_eq!(whats, ["keys/created", "keys/revoked"]);
            assert!(notes.iter().all(|(_, detail)| detail.contains(&record.id)));
            assert!(notes.iter().all(|(_, detail)| !detail.contains(secret)));
        }
        runtime.stop();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn other_keys_are_refused() {
        let store = Arc::new(SqliteStore::open_in_memory().expect("a store"));
        let (runtime, keys) = open(&store).await;
        let made = keys.create(&permit(), new("ci", None)).await;
        let (key, record) = made.expect("a key");
        let other = generate().expect("a key");
        let (_, other_secret) = split(&other).expect("two parts");
        let forged = format!("sfk_{}_{other_secret}", record.id);
        let longer = format!("{key}x");
        for wrong in [&*other, &forged, &longer, "sfk_", "sfk__", "sfk_x_y", ""] {
            let refused = keys.authenticate(wrong).expect_err("refused");
            assert_eq!(refused.to_string(), "the API key is not valid");
        }
        let past = keys.create(&permit(), new("ci", Some(1))).await;
        assert!(matches!(past, Err(KeyError::Invalid(_))));
        let nameless = keys.create(&permit(), new("", None)).await;
        assert!(matches!(nameless, Err(KeyError::Invalid(_))));
        let unknown = keys.revoke(&permit(), "0").await;
        assert!(matches!(unknown, Err(KeyError::NotFound(_))));
        runtime.stop();
    }

    #[test]
    fn keys_are_random_and_have_two_parts() {
        let (a, b) = (generate().expect("a key"), generate().expect("a key"));
        assert_ne!(a, b);
        for key in [&a, &b] {
            let (id, secret) = split(key).expect("two parts");
            let bytes = URL_SAFE_NO_PAD.decode(secret).expect("base64");
            assert_eq!((id.len(), bytes.len()), (16, 32));
        }
    }
}
