//! The sequencer: gives entries their places in the logs, in the order of the journal.
//!
//! It runs as part of the projector, and what it makes is written in the projection's own
//! transaction, together with the journal position that it stands for. So a crash loses nothing and
//! repeats nothing: the same entries get the same places again.

use std::collections::HashMap;
use std::sync::Arc;

use steadfast_ledger::Hash;
use steadfast_ledger::tile::{Appender, TileId};
use steadfast_store::{LogProjection, LogState, Store};

use super::Leaf;
use super::chain::ChainEnd;
use crate::error::{Result, RuntimeError};

/// The ends of the logs, as they are in the store.
#[derive(Default)]
pub(crate) struct Sequencer {
    ends: HashMap<String, LogEnd>,
}

/// The end of one log.
#[derive(Clone)]
struct LogEnd {
    tree: Appender,
    chain: ChainEnd,
}

/// What a batch adds, to be written.
#[derive(Default)]
pub(crate) struct Integration {
    /// For the store.
    pub logs: Vec<LogProjection>,
    ends: HashMap<String, LogEnd>,
}

/// The head of a log's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Number of entries.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
}

impl Sequencer {
    /// Gives entries their places. Nothing has changed before [`Sequencer::keep`].
    pub async fn integrate(&mut self, store: &dyn Store, leaves: Vec<Leaf>) -> Result<Integration> {
        let mut integration = Integration::default();
        let mut ends: Vec<LogEnd> = Vec::new();
        let mut places: HashMap<Arc<str>, usize> = HashMap::new();
        for leaf in leaves {
            let logs = &mut integration.logs;
            // Nearly always it is the log of the entry before.
            let last = logs.last().map(|of| of.namespace_id.as_str());
            let known = match last == Some(&*leaf.namespace_id) {
                true => Some(logs.len() - 1),
                false => places.get(&*leaf.namespace_id).copied(),
            };
            let place = match known {
                Some(place) => place,
                None => {
                    let end = self.end(store, &leaf.namespace_id).await?;
                    logs.push(LogProjection {
                        namespace_id: leaf.namespace_id.to_string(),
                        first_index: end.tree.size(),
                        ..LogProjection::default()
                    });
                    ends.push(end);
                    places.insert(leaf.namespace_id.clone(), logs.len() - 1);
                    logs.len() - 1
                }
            };
            ends[place].tree.append(leaf.hash);
            if leaf.is_of_chain {
                ends[place].chain.push(&leaf.entry);
            }
            logs[place].entries.push(leaf.entry);
        }
        for (log, mut end) in integration.logs.iter_mut().zip(ends) {
            let tiles = end.tree.take_changes().into_iter();
            log.tiles = tiles
                .map(|(tile, hashes)| (tile.level, tile.index, hashes))
                .collect();
            log.chain_n = end.chain.n;
            log.chain_hash = end.chain.hash.map(|hash| hash.0.to_vec());
            integration.ends.insert(log.namespace_id.clone(), end);
        }
        Ok(integration)
    }

    /// The integration is in the store. Gives the heads of the logs that grew.
    pub fn keep(&mut self, integration: Integration) -> Vec<(String, TreeHead)> {
        let heads = integration
            .ends
            .iter()
            .map(|(namespace_id, end)| (namespace_id.clone(), end.head()))
            .collect();
        self.ends.extend(integration.ends);
        heads
    }

    /// Writing failed: only the store knows where the logs end.
    pub fn forget(&mut self) {
        self.ends.clear();
    }

    /// The size of a log, as it is in the store.
    pub async fn size(&mut self, store: &dyn Store, namespace_id: &str) -> Result<u64> {
        match self.ends.get(namespace_id) {
            Some(end) => Ok(end.tree.size()),
            None => Ok(self.end(store, namespace_id).await?.tree.size()),
        }
    }

    /// The heads of all logs that are in the store.
    pub async fn heads(&mut self, store: &dyn Store) -> Result<Vec<(String, TreeHead)>> {
        let mut heads = Vec::new();
        for log in store.logs().await? {
            let end = self.end(store, &log.namespace_id).await?;
            heads.push((log.namespace_id, end.head()));
        }
        Ok(heads)
    }

    async fn end(&mut self, store: &dyn Store, namespace_id: &str) -> Result<LogEnd> {
        if let Some(end) = self.ends.get(namespace_id) {
            return Ok(end.clone());
        }
        let stored = store.logs().await?;
        let state = stored
            .into_iter()
            .find(|log| log.namespace_id == namespace_id)
            .unwrap_or_default();
        let end = load(store, namespace_id, &state).await?;
        self.ends.insert(namespace_id.to_owned(), end.clone());
        Ok(end)
    }
}

impl LogEnd {
    fn head(&self) -> TreeHead {
        TreeHead {
            size: self.tree.size(),
            root: self.tree.root(),
        }
    }
}

async fn load(store: &dyn Store, namespace_id: &str, state: &LogState) -> Result<LogEnd> {
    let mut tiles = HashMap::new();
    for tile in steadfast_ledger::tile::tiles_for_root(state.size) {
        let hashes = store.log_tile(namespace_id, tile.level, tile.index).await?;
        tiles.extend(hashes.map(|hashes| (tile, hashes)));
    }
    let tree = Appender::resume(state.size, |tile: TileId| tiles.remove(&tile))
        .map_err(|error| RuntimeError::Internal(format!("log of {namespace_id}: {error}")))?;
    Ok(LogEnd {
        tree,
        chain: ChainEnd::of(state),
    })
}
