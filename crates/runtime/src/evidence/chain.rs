//! The chain of a namespace's entries that belong to no run.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use steadfast_engine::record::Cause;
use steadfast_ledger::entry::{Note, Time, VERSION};
use steadfast_ledger::{Entry, Hash};
use steadfast_store::LogState;

use super::seal::{as_hash, cause_of, encode};

/// The end of each namespace's own chain, as decided: it may be ahead of the disk.
#[derive(Default)]
pub(crate) struct Chains(Mutex<HashMap<String, ChainEnd>>);

/// The end of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChainEnd {
    /// Entries so far.
    pub n: u64,
    /// Leaf hash of the last one.
    pub hash: Option<Hash>,
}

impl Chains {
    /// Forgets all, and begins with what the store has.
    pub fn reset(&self, stored: &[LogState]) {
        let ends = stored.iter();
        *self.0.lock() = ends
            .map(|log| (log.namespace_id.clone(), ChainEnd::of(log)))
            .collect();
    }

    /// An entry that is in the journal already.
    pub fn replay(&self, namespace_id: &str, entry: &[u8]) {
        let mut chains = self.0.lock();
        let end = chains.entry(namespace_id.to_owned()).or_default();
        end.push(entry);
    }

    /// Makes the next entry of a chain and hands it to `append`, under the lock, so that entries are
    /// appended in the order of their numbers.
    pub fn note<R>(
        &self,
        namespace_id: &str,
        namespace: &str,
        note: Note<'_>,
        cause: &Cause,
        now: i64,
        append: impl FnOnce(Bytes) -> R,
    ) -> R {
        let mut chains = self.0.lock();
        let end = chains.entry(namespace_id.to_owned()).or_default();
        let entry = encode(Entry {
            cause: cause_of(cause),
            n: end.n + 1,
            note: Some(note),
            ns: namespace.into(),
            prev: end.hash,
            t: Time(now),
            v: VERSION,
            ..Entry::default()
        });
        end.push(&entry);
        append(entry)
    }
}

impl ChainEnd {
    /// The end of a stored chain.
    pub fn of(log: &LogState) -> Self {
        Self {
            n: log.chain_n,
            hash: log.chain_hash.as_deref().and_then(as_hash),
        }
    }

    /// The chain's end after one more entry.
    pub fn push(&mut self, entry: &[u8]) {
        self.n += 1;
        self.hash = Some(Hash::leaf(entry));
    }
}
