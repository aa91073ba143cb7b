//! Rotation of the signing key: each log names the new key, and one checkpoint that covers this is
//! signed by both keys. Who trusts the old key finds the way to the new one
//! ([`steadfast_ledger::rotation`]).
//!
//! For each log, in this order, each step durable before the next:
//!
//! 1. its identity says that it is about to name the key, and since which size;
//! 2. the entry `evidence/key-changed` is in the journal, and in the tree;
//! 3. the anchor knows the head that covers the entry;
//! 4. the checkpoint, signed by both keys, is kept as a record;
//! 5. its identity says that the new key signs it.
//!
//! At last the new key takes the place of the old one in its file. What a crash leaves is found by the
//! next round: a step that was done is not done again. Nothing else is signed meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use steadfast_ledger::Entry;
use steadfast_ledger::note::{Note, SigningKey};
use steadfast_ledger::proof::TlogProof;
use steadfast_ledger::rotation::{KEY_CHANGED, detail};
use steadfast_runtime::evidence::TreeHead;
use steadfast_store::{Store, StoreError};

use super::failpoint::reach;
use super::publisher::{PublishError, Publisher, named, signed};
use super::reader::inclusion_proof;

/// Kind of the stored records.
const KIND: &str = "log-rotation";

/// Entries that are looked through at a time, and their bytes.
const PAGE: usize = 1000;
const PAGE_BYTES: usize = 4 << 20;

/// A key that a log is about to name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Naming {
    /// The verifier key.
    to: String,
    /// The log's size before.
    since: u64,
}

/// One rotation of a log's key, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The log.
    pub origin: String,
    /// 1 for the first one of the namespace.
    pub number: u64,
    /// The verifier key before.
    pub from: String,
    /// The verifier key since.
    pub to: String,
    /// The `tlog-proof` of the entry that names the new key, with the entry and the checkpoint that
    /// both keys signed.
    pub proof: String,
    /// The head that is signed.
    size: u64,
    root: String,
}

/// All rotations, by the ids of the namespaces, oldest first.
#[derive(Default)]
pub(super) struct Rotations(HashMap<String, Vec<Rotation>>);

impl Rotations {
    /// Reads them.
    pub(super) async fn load(store: &dyn Store) -> Result<Self, PublishError> {
        let mut all: HashMap<String, Vec<Rotation>> = HashMap::new();
        for (key, bytes) in store.records(KIND).await? {
            let rotation: Rotation = serde_json::from_slice(&bytes)
                .map_err(|error| PublishError::Invalid(format!("rotation {key}: {error}")))?;
            let namespace_id = key.rsplit_once('/').map_or("", |(id, _)| id);
            all.entry(namespace_id.to_owned())
                .or_default()
                .push(rotation);
        }
        for rotations in all.values_mut() {
            rotations.sort_by_key(|rotation| rotation.number);
        }
        Ok(Self(all))
    }

    /// Those of one log.
    pub(super) fn of(&self, namespace_id: &str, origin: &str) -> Arc<Vec<Rotation>> {
        let all = self.0.get(namespace_id).into_iter().flatten();
        Arc::new(all.filter(|of| of.origin == origin).cloned().collect())
    }

    fn last(&self, namespace_id: &str) -> Option<&Rotation> {
        self.0.get(namespace_id)?.last()
    }

    async fn put(
        &mut self,
        store: &dyn Store,
        namespace_id: &str,
        rotation: Rotation,
    ) -> Result<(), PublishError> {
        let key = format!("{namespace_id}/{}", rotation.number);
        let bytes = serde_json::to_vec(&rotation)
            .map_err(|error| PublishError::Invalid(error.to_string()))?;
        store.put_record(KIND, &key, bytes).await?;
        self.0
            .entry(namespace_id.to_owned())
            .or_default()
            .push(rotation);
        Ok(())
    }
}

impl Publisher {
    /// Begins a rotation that is asked for, or goes on with one.
    pub(super) async fn rotate(&mut self) -> Result<(), PublishError> {
        let Some(next) = self.keys.next().map_err(PublishError::Invalid)? else {
            return Ok(());
        };
        // A record whose writing seemed to fail may be there all the same.
        self.rotations = Rotations::load(&**self.runtime.store()).await?;
        let mut signed: Vec<_> = self
            .identities
            .iter()
            .filter(|(_, identity)| identity.signed)
            .map(|(namespace_id, _)| namespace_id.clone())
            .collect();
        signed.sort_unstable();
        // A copy of the key is no other key.
        if next.encode() == self.keys.current().encode() {
            signed.clear();
        }
        for namespace_id in signed {
            self.rotate_log(&namespace_id, &next).await?;
        }
        self.keys.replace(next)?;
        reach("rotated")?;
        tracing::warn!("the signing key was rotated: the new key signs from here on");
        Ok(())
    }

    async fn rotate_log(
        &mut self,
        namespace_id: &str,
        next: &SigningKey,
    ) -> Result<(), PublishError> {
        let Some(identity) = self.identities.get(namespace_id).cloned() else {
            return Ok(());
        };
        let origin = identity.origin;
        let old = named(self.keys.current(), &origin)?;
        let new = named(next, &origin)?;
        let (from, to) = (old.verifier().to_string(), new.verifier().to_string());
        if identity.key == to {
            return Ok(());
        }
        if !identity.key.is_empty() && identity.key != from {
            // The key before was lost: the log has to name the one that is about to go, too.
            self.name_key(namespace_id, &identity.key, &from).await?;
            self.keep_key(namespace_id, from.clone()).await?;
        }
        let is_made = |of: &&Rotation| of.origin == origin && of.to == to && of.from == from;
        let rotation = match self.rotations.last(namespace_id).filter(is_made) {
            Some(rotation) => rotation.clone(),
            None => self.make_rotation(namespace_id, &old, &new).await?,
        };
        self.keep_key(namespace_id, to).await?;
        let root = rotation.root.parse();
        let head = TreeHead {
            size: rotation.size,
            root: root.map_err(|_| PublishError::Invalid("a stored root is none".into()))?,
        };
        let proof = TlogProof::parse(&rotation.proof)
            .map_err(|error| PublishError::Invalid(error.to_string()))?;
        self.show(namespace_id, head, proof.checkpoint.to_string(), new);
        Ok(reach("rotation: published")?)
    }

    /// Has the log name the new key, and keeps the checkpoint that both keys sign.
    async fn make_rotation(
        &mut self,
        namespace_id: &str,
        old: &SigningKey,
        new: &SigningKey,
    ) -> Result<Rotation, PublishError> {
        let origin = old.name().to_owned();
        let (from, to) = (old.verifier().to_string(), new.verifier().to_string());
        let (index, head) = self.name_key(namespace_id, &from, &to).await?;
        self.advance([(&origin, head)])?;
        let checkpoint = signed(&origin, head, &[old, new])?;
        reach("rotation: signed")?;
        let store = self.runtime.store().clone();
        let entry = store
            .log_entries(namespace_id, index, 1, usize::MAX)
            .await?;
        let hashes = inclusion_proof(&*store, namespace_id, index, head.size).await?;
        let (Some(entry), Some(hashes)) = (entry.into_iter().next(), hashes) else {
            return Err(PublishError::Invalid(format!(
                "{origin}: entry {index} cannot be proved"
            )));
        };
        let proof = TlogProof {
            extra: entry,
            index,
            hashes,
            checkpoint: Note::parse(checkpoint)
                .map_err(|error| PublishError::Invalid(error.to_string()))?,
        };
        let last = self.rotations.last(namespace_id);
        let rotation = Rotation {
            origin,
            number: last.map_or(1, |last| last.number + 1),
            from,
            to,
            proof: proof.to_string(),
            size: head.size,
            root: head.root.to_string(),
        };
        self.rotations
            .put(&*store, namespace_id, rotation.clone())
            .await?;
        Ok(rotation)
    }

    async fn keep_key(&mut self, namespace_id: &str, key: String) -> Result<(), PublishError> {
        let Some(mut identity) = self.identities.get(namespace_id).cloned() else {
            return Ok(());
        };
        identity.key = key;
        identity.naming = None;
        self.put(namespace_id, &identity).await
    }

    /// Has a log name the key that signs it from here on, once. Gives the index of the entry, and a
    /// head that covers it.
    pub(super) async fn name_key(
        &mut self,
        namespace_id: &str,
        from: &str,
        to: &str,
    ) -> Result<(u64, TreeHead), PublishError> {
        let mut size = self.runtime.log_size(namespace_id).await?;
        let Some(mut identity) = self.identities.get(namespace_id).cloned() else {
            let message = format!("the log of {namespace_id} has no identity");
            return Err(PublishError::Invalid(message));
        };
        let since = match identity.naming.as_ref().filter(|naming| naming.to == to) {
            Some(naming) => naming.since,
            None => {
                identity.naming = Some(Naming {
                    to: to.to_owned(),
                    since: size,
                });
                self.put(namespace_id, &identity).await?;
                size
            }
        };
        let detail = detail(from, to);
        let store = self.runtime.store().clone();
        let mut index = find(&*store, namespace_id, since..size, &detail).await?;
        if index.is_none() {
            self.note(namespace_id, KEY_CHANGED, detail.clone()).await?;
            size = self.runtime.log_size(namespace_id).await?;
            index = find(&*store, namespace_id, since..size, &detail).await?;
        }
        let head = self.runtime.log_heads().borrow().get(namespace_id).copied();
        match (index, head) {
            (Some(index), Some(head)) if head.size > index => Ok((index, head)),
            _ => Err(PublishError::Invalid(format!(
                "{}: the entry that names the key {to} is not in the log",
                identity.origin
            ))),
        }
    }
}

/// The index of the entry that changes a key as `detail` says.
async fn find(
    store: &dyn Store,
    namespace_id: &str,
    range: std::ops::Range<u64>,
    detail: &str,
) -> Result<Option<u64>, StoreError> {
    let mut next = range.start;
    while next < range.end {
        let entries = store
            .log_entries(namespace_id, next, PAGE, PAGE_BYTES)
            .await?;
        if entries.is_empty() {
            break;
        }
        for (entry, index) in entries.iter().zip(next..) {
            let note = Entry::parse(entry).ok().and_then(|entry| entry.note);
            if note.is_some_and(|note| note.what == KEY_CHANGED && note.detail == detail) {
                return Ok(Some(index));
            }
        }
        next += entries.len() as u64;
    }
    Ok(None)
}
