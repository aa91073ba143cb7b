//! Signing and publishing: what the sequencer put into the logs becomes checkpoints.
//!
//! The order is what keeps a log from forking: the entries are durable, then the anchor says how far
//! the log is about to be signed, then it is signed, then others see it. A crash in between signs
//! nothing that the next start does not extend.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use steadfast_ledger::checkpoint::Checkpoint;
use steadfast_ledger::entry::Note;
use steadfast_ledger::note::{SigningKey, VerifierKey};
use steadfast_runtime::evidence::TreeHead;
use steadfast_runtime::{Permit, Runtime};

use super::anchor::{Anchor, AnchorError, Heads, Move};
use super::reader::root_at;

/// How often checkpoints are made: bounds how long an entry waits for its proof.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long to wait after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Kind of the stored records.
const KIND: &str = "log";

/// Why the logs cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The anchor cannot be moved.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] steadfast_store::StoreError),
    /// The runtime refused an entry.
    #[error(transparent)]
    Runtime(#[from] steadfast_runtime::RuntimeError),
    /// A name or a stored value makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// What is stored of a log's identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Identity {
    origin: String,
    /// 1 for the first log of the namespace, 2 for the one that was begun when the store turned out
    /// not to extend the first, and so on.
    generation: u32,
    /// Whether a checkpoint was ever signed.
    signed: bool,
    /// The verifier key of the newest checkpoint.
    #[serde(default)]
    key: String,
}

/// A log as others see it.
#[derive(Clone, Debug)]
pub struct PublishedLog {
    /// Id of the namespace.
    pub namespace_id: String,
    /// Its origin.
    pub origin: String,
    /// The head that is signed.
    pub head: TreeHead,
    /// The signed checkpoint.
    pub checkpoint: String,
    /// The newest checkpoint that a witness cosigned, and the log's size in it.
    pub cosigned: Option<(u64, String)>,
    /// The verifier key of its log.
    pub key: VerifierKey,
    /// What signs checkpoints, and statements about what is taken out of the log.
    pub signer: SigningKey,
}

/// The logs of a server, by the names of their namespaces. Cheap to clone.
#[derive(Clone, Default)]
pub struct Logs(Arc<RwLock<BTreeMap<String, PublishedLog>>>);

impl Logs {
    /// A log, if anything of it is signed.
    pub fn get(&self, namespace: &str) -> Option<PublishedLog> {
        self.0.read().get(namespace).cloned()
    }

    /// All logs.
    pub fn all(&self) -> Vec<(String, PublishedLog)> {
        let logs = self.0.read();
        logs.iter()
            .map(|(name, log)| (name.clone(), log.clone()))
            .collect()
    }

    /// Adds cosignatures to a checkpoint. A newer one may be out already: then it is the older one
    /// that is vouched for.
    pub fn cosign(&self, namespace: &str, of: &PublishedLog, signatures: &str) {
        if let Some(log) = self.0.write().get_mut(namespace)
            && log.origin == of.origin
        {
            let text = match &log.cosigned {
                Some((size, text)) if *size == of.head.size => text,
                Some((size, _)) if *size > of.head.size => return,
                _ => &of.checkpoint,
            };
            log.cosigned = Some((of.head.size, format!("{text}{signatures}")));
        }
    }

    fn publish(&self, namespace: String, mut log: PublishedLog) {
        let mut logs = self.0.write();
        if let Some(before) = logs.get_mut(&namespace)
            && before.origin == log.origin
        {
            log.cosigned = before.cosigned.take();
        }
        logs.insert(namespace, log);
    }
}

/// Signs and publishes.
pub struct Publisher {
    runtime: Runtime,
    anchor: Anchor,
    key: SigningKey,
    /// What origins begin with.
    base: String,
    identities: HashMap<String, Identity>,
    /// What is signed, by origin.
    signed: Heads,
    logs: Logs,
}

impl Publisher {
    /// Opens the logs that are there, and refuses to go on with those that the store does not extend:
    /// for these a new log is begun.
    pub async fn open(
        runtime: Runtime,
        anchor: Anchor,
        key: SigningKey,
        base: String,
    ) -> Result<Self, PublishError> {
        let signed = anchor.read()?;
        let mut publisher = Self {
            runtime,
            anchor,
            key,
            base,
            identities: HashMap::new(),
            signed,
            logs: Logs::default(),
        };
        for (namespace_id, bytes) in publisher.runtime.store().records(KIND).await? {
            let identity: Identity = serde_json::from_slice(&bytes)
                .map_err(|error| PublishError::Invalid(format!("log {namespace_id}: {error}")))?;
            publisher.identities.insert(namespace_id, identity);
        }
        let heads = publisher.runtime.log_heads().borrow().clone();
        for (namespace_id, identity) in publisher.identities.clone() {
            let head = heads.get(&namespace_id).copied();
            publisher
                .check_continuity(&namespace_id, identity, head)
                .await?;
        }
        Ok(publisher)
    }

    /// The published logs.
    pub fn logs(&self) -> Logs {
        self.logs.clone()
    }

    /// Publishes until the server stops.
    pub async fn run(mut self) {
        let mut heads = self.runtime.log_heads();
        loop {
            let current = heads.borrow_and_update().clone();
            let pause = match self.publish(&current).await {
                Ok(()) => INTERVAL,
                Err(PublishError::Anchor(error @ AnchorError::Moved { .. })) => {
                    tracing::error!(%error, "no more checkpoints");
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "signing the logs failed: trying again");
                    RETRY_INTERVAL
                }
            };
            tokio::time::sleep(pause).await;
            let is_pending = current
                .iter()
                .any(|(namespace_id, head)| !self.is_published(namespace_id, head));
            if !is_pending && heads.changed().await.is_err() {
                return;
            }
        }
    }

    /// Signs and publishes the logs that grew.
    pub async fn publish(&mut self, heads: &HashMap<String, TreeHead>) -> Result<(), PublishError> {
        let mut due = Vec::new();
        for (namespace_id, head) in heads {
            if head.size == 0 || self.is_published(namespace_id, head) {
                continue;
            }
            let identity = self.identity(namespace_id).await?;
            due.push((namespace_id, identity, *head));
        }
        let moves: Vec<Move> = due
            .iter()
            .map(|(_, identity, head)| Move {
                origin: identity.origin.clone(),
                from: self.signed.get(&identity.origin).copied(),
                to: *head,
            })
            .filter(|step| step.from != Some(step.to))
            .collect();
        if moves.is_empty() && due.is_empty() {
            return Ok(());
        }
        // A small file, twice a second at most: not worth a thread of its own.
        self.anchor.advance(&moves)?;
        for (namespace_id, mut identity, head) in due {
            let origin = identity.origin.clone();
            self.signed.insert(origin.clone(), head);
            let key = self
                .key
                .renamed(&origin)
                .map_err(|error| PublishError::Invalid(error.to_string()))?;
            let verifier = key.verifier().to_string();
            // Before anybody can have a checkpoint: a start without an anchor must know of it.
            if !identity.signed || identity.key != verifier {
                self.note_key_change(namespace_id, &identity, &verifier)
                    .await?;
                identity.signed = true;
                identity.key = verifier;
                self.put(namespace_id, &identity).await?;
            }
            let checkpoint = Checkpoint {
                origin: origin.clone(),
                size: head.size,
                root: head.root,
                extensions: Vec::new(),
            };
            let log = PublishedLog {
                namespace_id: namespace_id.clone(),
                origin,
                head,
                checkpoint: checkpoint
                    .sign(&[&key])
                    .map_err(|error| PublishError::Invalid(error.to_string()))?,
                cosigned: None,
                key: key.verifier().clone(),
                signer: key,
            };
            let namespace = self.runtime.namespaces().name(namespace_id);
            self.logs.publish(namespace, log);
        }
        Ok(())
    }

    fn is_published(&self, namespace_id: &str, head: &TreeHead) -> bool {
        let namespace = self.runtime.namespaces().name(namespace_id);
        let published = self.logs.0.read();
        published
            .get(&namespace)
            .is_some_and(|log| log.head == *head && log.namespace_id == namespace_id)
    }

    /// The identity of a log.
    async fn identity(&mut self, namespace_id: &str) -> Result<Identity, PublishError> {
        if let Some(identity) = self.identities.get(namespace_id) {
            return Ok(identity.clone());
        }
        let identity = self.first_identity(namespace_id);
        if identity.generation > 1 {
            // A namespace made again after it was deleted, or a store from before the first checkpoint.
            let origin = &identity.origin;
            tracing::warn!("an earlier log of this name was signed: {origin} begins");
            let detail = format!("an earlier log of this name was signed. {origin} begins");
            self.note(namespace_id, "evidence/log-restarted", detail)
                .await?;
        }
        self.put(namespace_id, &identity).await?;
        Ok(identity)
    }

    fn first_identity(&self, namespace_id: &str) -> Identity {
        let mut generation = 1;
        loop {
            let origin = self.origin(namespace_id, generation);
            if !self.is_taken(&origin) {
                return Identity {
                    origin,
                    generation,
                    signed: false,
                    key: String::new(),
                };
            }
            generation += 1;
        }
    }

    /// Whether an origin is, or was, that of a log.
    fn is_taken(&self, origin: &str) -> bool {
        let mut identities = self.identities.values();
        self.signed.contains_key(origin) || identities.any(|identity| identity.origin == origin)
    }

    /// Says in the log itself that it is signed with another key from here on.
    async fn note_key_change(
        &self,
        namespace_id: &str,
        before: &Identity,
        key: &str,
    ) -> Result<(), PublishError> {
        if before.key.is_empty() || before.key == key {
            return Ok(());
        }
        tracing::warn!(
            log = before.origin,
            "checkpoints are signed with another key now"
        );
        let detail = format!("{} -> {key}", before.key);
        self.note(namespace_id, "evidence/key-changed", detail)
            .await
    }

    async fn note(
        &self,
        namespace_id: &str,
        what: &'static str,
        detail: String,
    ) -> Result<(), PublishError> {
        let note = Note {
            what: what.into(),
            detail: detail.into(),
            ..Note::default()
        };
        let permit = Permit::internal("evidence");
        Ok(self.runtime.note(&permit, namespace_id, note).await?)
    }

    fn origin(&self, namespace_id: &str, generation: u32) -> String {
        let namespace = self.runtime.namespaces().name(namespace_id);
        let namespace = escaped(&namespace);
        match generation {
            1 => format!("{}/{namespace}", self.base),
            _ => format!("{}/{namespace}~{generation}", self.base),
        }
    }

    async fn put(&mut self, namespace_id: &str, identity: &Identity) -> Result<(), PublishError> {
        let bytes = serde_json::to_vec(identity)
            .map_err(|error| PublishError::Invalid(error.to_string()))?;
        let store = self.runtime.store();
        store.put_record(KIND, namespace_id, bytes).await?;
        self.identities
            .insert(namespace_id.to_owned(), identity.clone());
        Ok(())
    }

    /// Begins a new log if the store does not extend what was signed.
    async fn check_continuity(
        &mut self,
        namespace_id: &str,
        identity: Identity,
        head: Option<TreeHead>,
    ) -> Result<(), PublishError> {
        let problem = match self.signed.get(&identity.origin) {
            None if identity.signed => {
                Some("nobody remembers how far it was signed: the anchor is gone".to_owned())
            }
            None => None,
            Some(signed) => {
                let head = head.unwrap_or(TreeHead {
                    size: 0,
                    root: steadfast_ledger::Hash::empty_root(),
                });
                self.difference(namespace_id, signed, &head).await?
            }
        };
        let Some(problem) = problem else {
            return Ok(());
        };
        let mut next = identity.clone();
        while self.is_taken(&next.origin) {
            next.generation += 1;
            next.origin = self.origin(namespace_id, next.generation);
        }
        next.signed = false;
        next.key.clear();
        tracing::error!(
            log = identity.origin,
            next = next.origin,
            "the store is not the one that was signed: {problem}. A new log begins"
        );
        let detail = format!(
            "{} ends: {problem}. {} begins",
            identity.origin, next.origin
        );
        self.put(namespace_id, &next).await?;
        self.note(namespace_id, "evidence/log-restarted", detail)
            .await
    }

    /// How the log in the store differs from what was signed, if it does not extend that.
    async fn difference(
        &self,
        namespace_id: &str,
        signed: &TreeHead,
        head: &TreeHead,
    ) -> Result<Option<String>, PublishError> {
        if signed.size > head.size {
            return Ok(Some(format!(
                "{} entries were signed, and the store has {}: it was rolled back",
                signed.size, head.size
            )));
        }
        let store = self.runtime.store();
        let root = root_at(&**store, namespace_id, signed.size).await?;
        Ok((root != Some(signed.root)).then(|| {
            format!(
                "the first {} entries are not the ones that were signed",
                signed.size
            )
        }))
    }
}

/// A name as part of an origin: without what the name of a key may not have, and without `~`, which
/// sets off generations. Different names stay different.
fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_whitespace() || c.is_control() || matches!(c, '+' | '%' | '~') {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn names_that_differ_have_origins_that_differ() {
        assert_eq!(escaped("default"), "default");
        assert_eq!(escaped("a b"), "a%20b");
        assert_eq!(escaped("a+b~2"), "a%2Bb%7E2");
        assert_eq!(escaped("a%20b"), "a%2520b");
    }
}
