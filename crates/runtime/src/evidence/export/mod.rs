//! Makes evidence bundles of what is stored: finds the entries that a bundle is about, and writes them
//! with the nodes of the tree and the histories of their runs.
//!
//! Needs memory for a little about each run, a page of entries and a page of events, however long the
//! log and the histories are.

mod decisions;
mod details;
mod histories;
mod select;

use std::io::{Read, Seek, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use steadfast_ledger::bundle::{BundleError, BundleWriter, Detail, Head};
use steadfast_ledger::entry::Time;
use steadfast_ledger::note::{SigningKey, VerifierKey};
use steadfast_ledger::tile::{TileId, Tiles, tile_of};
use steadfast_ledger::tree::{Node, multiproof_nodes};
use steadfast_ledger::{Entry, Hash};
use steadfast_store::{Store, StoreError};

pub use decisions::{Explain, keep_policies, kept_policies};
pub use select::{About, Bound, Selection};

use super::Sealer;
use crate::error::RuntimeError;

/// Bytes of a log or of a history read at a time.
const READ_BYTES: usize = 1 << 20;

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored cannot be read.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The bundle cannot be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The log has nothing of what the bundle is to be about.
    #[error("the log has no entry {0}")]
    Nothing(String),
    /// It was there a moment ago.
    #[error("{0} was deleted meanwhile: try again")]
    Gone(String),
}

/// How far an export is, for others to look at.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Entries and events that were looked at, and how many there are to look at as far as is known.
    pub fn get(&self) -> (u64, u64) {
        let done = self.done.load(Ordering::Relaxed);
        (done, self.total.load(Ordering::Relaxed).max(done))
    }

    fn expect(&self, more: u64) {
        self.total.fetch_add(more, Ordering::Relaxed);
    }

    fn pass(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }
}

/// Where a bundle is made of.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// Finds the payloads in events.
    pub sealer: &'a Sealer,
    /// Id of the namespace.
    pub namespace_id: &'a str,
    /// Its name.
    pub namespace: &'a str,
    /// Says what policies were asked. None: nothing of that is in the bundle.
    pub explain: Option<Explain>,
    /// Told how far it is.
    pub progress: &'a Progress,
}

/// What signs a bundle, and what it is checked with.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    /// The signed checkpoint, with cosignatures.
    pub checkpoint: &'a str,
    /// The size of an earlier tree, and the proof that this one extends it.
    pub consistency: Option<(u64, &'a [Hash])>,
    /// How the log came to its key, oldest first.
    pub rotations: &'a [String],
    /// The log's key.
    pub key: &'a SigningKey,
    /// Public keys of witnesses.
    pub witnesses: &'a [VerifierKey],
    /// When the bundle is made.
    pub made: Time,
}

impl Source<'_> {
    /// Writes the bundle of a selection, and gives the output back. `spools` are two empty files for what
    /// has its place later in the bundle.
    pub async fn write<W: Write, S: Read + Write + Seek>(
        &self,
        selection: &Selection,
        signed: Signed<'_>,
        out: W,
        spools: [S; 2],
    ) -> Result<W, ExportError> {
        let head = Head {
            namespace: self.namespace,
            scope: selection.scope.clone(),
            made: signed.made,
            checkpoint: signed.checkpoint,
            consistency: signed.consistency,
            rotations: signed.rotations,
            log_keys: std::slice::from_ref(signed.key.verifier()),
            witness_keys: signed.witnesses,
        };
        let mut bundle = BundleWriter::new(out, spools, head)?;
        for range in &selection.ranges {
            self.entries(&mut bundle, range.clone()).await?;
        }
        self.nodes(&mut bundle, selection).await?;
        self.histories(&mut bundle).await?;
        self.decisions(&mut bundle).await?;
        Ok(bundle.finish(signed.key)?)
    }

    async fn entries<W: Write, S: Read + Write + Seek>(
        &self,
        bundle: &mut BundleWriter<W, S>,
        range: std::ops::Range<u64>,
    ) -> Result<(), ExportError> {
        let mut index = range.start;
        while index < range.end {
            let page = self.page(index, range.end).await?;
            for bytes in &page {
                let entry = Entry::parse(bytes);
                let entry = entry.map_err(|error| BundleError::Entry { index, error })?;
                let details = self.details(&entry).await?;
                let details: Vec<Detail<'_>> = details
                    .iter()
                    .map(|(event_id, text)| Detail {
                        event_id: *event_id,
                        text,
                    })
                    .collect();
                bundle.entry(index, bytes, &details)?;
                index += 1;
            }
            self.progress.pass(page.len() as u64);
        }
        Ok(())
    }

    /// The next entries of the log.
    async fn page(&self, index: u64, end: u64) -> Result<Vec<Vec<u8>>, ExportError> {
        let count = usize::try_from(end - index).unwrap_or(usize::MAX);
        let read = self
            .store
            .log_entries(self.namespace_id, index, count, READ_BYTES);
        let page = read.await?;
        match page.is_empty() {
            true => Err(missing(format!("entry {index} of the log"))),
            false => Ok(page),
        }
    }

    async fn nodes<W: Write, S: Read + Write + Seek>(
        &self,
        bundle: &mut BundleWriter<W, S>,
        selection: &Selection,
    ) -> Result<(), ExportError> {
        let leaves = selection.ranges.iter().cloned().flatten();
        // The last tile of each level is enough: nodes come from left to right.
        let mut tiles: Vec<(TileId, Tiles)> = Vec::new();
        for node in multiproof_nodes(leaves, selection.size) {
            let hash = self.hash_of(node, &mut tiles).await?;
            bundle.node(node, &hash)?;
        }
        Ok(())
    }

    async fn hash_of(
        &self,
        node: Node,
        tiles: &mut Vec<(TileId, Tiles)>,
    ) -> Result<Hash, ExportError> {
        let id = tile_of(node);
        let level = usize::from(id.level);
        if tiles.get(level).is_none_or(|(of, _)| *of != id) {
            let read = self.store.log_tile(self.namespace_id, id.level, id.index);
            let hashes = read.await?.unwrap_or_default();
            tiles.resize(tiles.len().max(level + 1), (id, Tiles::default()));
            tiles[level] = (id, [(id, hashes)].into_iter().collect());
        }
        tiles[level]
            .1
            .hash_of(node)
            .ok_or_else(|| missing(format!("tile {} of level {}", id.index, id.level)))
    }
}

fn missing(what: String) -> ExportError {
    RuntimeError::Internal(format!("{what} is missing in the store")).into()
}
