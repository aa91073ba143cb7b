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
use super::failpoint::reach;
use super::keys::Keys;
use super::reader::root_at;
use super::rotation::{Naming, Rotation, Rotations};

/// How often checkpoints are made: bounds how long an entry waits for its proof.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long to wait after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How often it is looked whether a rotation of the key is asked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

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
    /// The key file cannot be replaced.
    #[error("the key file: {0}")]
    Key(#[from] std::io::Error),
}

/// What is stored of a log's identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) origin: String,
    /// 1 for the first log of the namespace, 2 for the one that was begun when the store turned out
    /// not to extend the first, and so on.
    pub(super) generation: u32,
    /// Whether a checkpoint was ever signed.
    pub(super) signed: bool,
    /// The verifier key of the newest checkpoint.
    #[serde(default)]
    pub(super) key: String,
    /// Another key that the log is about to name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) naming: Option<Naming>,
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
    /// How the log came to its key, oldest first.
    pub rotations: Arc<Vec<Rotation>>,
}

/// The logs of a server, by the names of their namespaces. Cheap to clone.
#[derive(Clone, Default)]
pub struct Logs(Arc<RwLock<BTreeMap<String, PublishedLog>>>);

impl Logs {
    /// A log, if anything of it is signed.
    pub fn get(&self, namespace: &str) -> Option<PublishedLog> {
        self.0.read().get(namespace).cloned()
    }

    /// The origin of a log, if anything of it is signed.
    pub fn origin(&self, namespace: &str) -> Option<String> {
        self.0.read().get(namespace).map(|log| log.origin.clone())
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

    pub(super) fn publish(&self, namespace: String, mut log: PublishedLog) {
        let mut logs = self.0.write();
        // A namespace that was deleted has another name now.
        logs.retain(|name, other| *name == namespace || other.namespace_id != log.namespace_id);
        // A cosigned checkpoint goes with the key that signed it.
        if let Some(before) = logs.get_mut(&namespace)
            && before.key == log.key
        {
            log.cosigned = before.cosigned.take();
        }
        logs.insert(namespace, log);
    }
}

/// Signs and publishes.
pub struct Publisher {
    pub(super) runtime: Runtime,
    anchor: Anchor,
    pub(super) keys: Keys,
    /// What origins begin with.
    base: String,
    pub(super) identities: HashMap<String, Identity>,
    /// What is signed, by origin.
    signed: Heads,
    /// Moves of the anchor whose outcome is not known.
    unsure: Vec<Move>,
    pub(super) rotations: Rotations,
    logs: Logs,
}

impl Publisher {
    /// Opens the logs that are there, and refuses to go on with those that the store does not extend:
    /// for these a new log is begun.
    pub async fn open(
        runtime: Runtime,
        anchor: Anchor,
        keys: Keys,
        base: String,
    ) -> Result<Self, PublishError> {
        let signed = anchor.read()?;
        let rotations = Rotations::load(&**runtime.store()).await?;
        let mut publisher = Self {
            runtime,
            anchor,
            keys,
            base,
            identities: HashMap::new(),
            signed,
            unsure: Vec::new(),
            rotations,
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
            let worked = self.work().await;
            let pause = match &worked {
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
            if worked.is_ok() && !self.is_behind(&heads.borrow_and_update()) {
                tokio::select! {
                    changed = heads.changed() => if changed.is_err() {
                        return;
                    },
                    () = tokio::time::sleep(LOOK_INTERVAL) => {}
                }
            }
        }
    }

    /// One round: a rotation of the key goes before all that it would be too late for afterwards.
    pub(super) async fn work(&mut self) -> Result<(), PublishError> {
        self.rotate().await?;
        let heads = self.runtime.log_heads().borrow().clone();
        self.publish(&heads).await
    }

    fn is_behind(&self, heads: &HashMap<String, TreeHead>) -> bool {
        heads
            .iter()
            .any(|(namespace_id, head)| !self.is_published(namespace_id, head))
    }

    /// Signs and publishes the logs that grew.
    pub async fn publish(&mut self, heads: &HashMap<String, TreeHead>) -> Result<(), PublishError> {
        let mut due = Vec::new();
        for (namespace_id, head) in heads {
            if head.size == 0 || self.is_published(namespace_id, head) {
                continue;
            }
            let identity = self.identity(namespace_id).await?;
            // A head that is older than what is signed already is of no use to anybody.
            let signed = self.signed.get(&identity.origin);
            if signed.is_some_and(|signed| signed.size > head.size) {
                continue;
            }
            let head = self.name_other_key(namespace_id, &identity, *head).await?;
            due.push((namespace_id, identity.origin, head));
        }
        self.advance(due.iter().map(|(_, origin, head)| (origin, *head)))?;
        for (namespace_id, origin, head) in due {
            let key = named(self.keys.current(), &origin)?;
            let verifier = key.verifier().to_string();
            let mut identity = self.identity(namespace_id).await?;
            // Before anybody can have a checkpoint: a start without an anchor must know of it.
            if !identity.signed || identity.key != verifier {
                identity.signed = true;
                identity.key = verifier;
                identity.naming = None;
                self.put(namespace_id, &identity).await?;
            }
            let checkpoint = signed(&origin, head, &[&key])?;
            reach("signed")?;
            self.show(namespace_id, head, checkpoint, key);
            reach("published")?;
        }
        Ok(())
    }

    /// Moves the anchor to heads that are about to be signed.
    pub(super) fn advance<'a>(
        &mut self,
        heads: impl IntoIterator<Item = (&'a String, TreeHead)>,
    ) -> Result<(), PublishError> {
        if !self.unsure.is_empty() {
            // It failed, and may have moved all the same: then that is where it goes on from.
            let anchor = self.anchor.read()?;
            for step in std::mem::take(&mut self.unsure) {
                if anchor.get(&step.origin) == Some(&step.to) {
                    self.signed.insert(step.origin, step.to);
                }
            }
        }
        let moves: Vec<Move> = heads
            .into_iter()
            .map(|(origin, to)| Move {
                origin: origin.clone(),
                from: self.signed.get(origin).copied(),
                to,
            })
            .filter(|step| step.from != Some(step.to))
            .collect();
        if moves.is_empty() {
            return Ok(());
        }
        // A small file, twice a second at most: not worth a thread of its own.
        if let Err(error) = self.anchor.advance(&moves) {
            if matches!(error, AnchorError::Io { .. }) {
                self.unsure = moves;
            }
            return Err(error.into());
        }
        let moved = moves.into_iter().map(|step| (step.origin, step.to));
        self.signed.extend(moved);
        Ok(())
    }

    /// Shows a signed checkpoint.
    pub(super) fn show(
        &self,
        namespace_id: &str,
        head: TreeHead,
        checkpoint: String,
        key: SigningKey,
    ) {
        let log = PublishedLog {
            namespace_id: namespace_id.to_owned(),
            origin: key.name().to_owned(),
            head,
            checkpoint,
            cosigned: None,
            key: key.verifier().clone(),
            rotations: self.rotations.of(namespace_id, key.name()),
            signer: key,
        };
        let namespace = self.runtime.namespaces().name(namespace_id);
        self.logs.publish(namespace, log);
    }

    /// If the key was replaced without a rotation, the log says so before the new one signs anything
    /// of it. Gives the head to sign.
    async fn name_other_key(
        &mut self,
        namespace_id: &str,
        identity: &Identity,
        head: TreeHead,
    ) -> Result<TreeHead, PublishError> {
        let key = named(self.keys.current(), &identity.origin)?;
        let verifier = key.verifier().to_string();
        if !identity.signed || identity.key.is_empty() || identity.key == verifier {
            return Ok(head);
        }
        tracing::warn!(
            log = identity.origin,
            "checkpoints are signed with another key now"
        );
        let (_, head) = self
            .name_key(namespace_id, &identity.key, &verifier)
            .await?;
        Ok(head)
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
                    naming: None,
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

    pub(super) async fn note(
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

    pub(super) async fn put(
        &mut self,
        namespace_id: &str,
        identity: &Identity,
    ) -> Result<(), PublishError> {
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
        next.naming = None;
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

/// The key under the name of a log.
pub(super) fn named(key: &SigningKey, origin: &str) -> Result<SigningKey, PublishError> {
    key.renamed(origin)
        .map_err(|error| PublishError::Invalid(error.to_string()))
}

/// The checkpoint of a head, signed.
pub(super) fn signed(
    origin: &str,
    head: TreeHead,
    keys: &[&SigningKey],
) -> Result<String, PublishError> {
    let checkpoint = Checkpoint {
        origin: origin.to_owned(),
        size: head.size,
        root: head.root,
        extensions: Vec::new(),
    };
    checkpoint
        .sign(keys)
        .map_err(|error| PublishError::Invalid(error.to_string()))
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
