//! Reading logs: tiles, roots and proofs, from the store.

use std::collections::HashMap;

use steadfast_ledger::Hash;
use steadfast_ledger::tile::{
    TileId, Tiles, tiles_for_consistency, tiles_for_inclusion, tiles_for_root,
};
use steadfast_ledger::tree;
use steadfast_store::{Store, StoreError};

/// The root of a log's tree at a size that it had or has; none if the store does not have all of it.
pub async fn root_at(
    store: &dyn Store,
    namespace_id: &str,
    size: u64,
) -> Result<Option<Hash>, StoreError> {
    let tiles = load(store, namespace_id, tiles_for_root(size)).await?;
    Ok(tree::root(size, |node| tiles.hash_of(node)).ok())
}

/// The proof that an entry is in a tree.
pub async fn inclusion_proof(
    store: &dyn Store,
    namespace_id: &str,
    index: u64,
    size: u64,
) -> Result<Option<Vec<Hash>>, StoreError> {
    let tiles = load(store, namespace_id, tiles_for_inclusion(index, size)).await?;
    Ok(tree::inclusion_proof(index, size, |node| tiles.hash_of(node)).ok())
}

/// The proof that a tree extends an older one.
pub async fn consistency_proof(
    store: &dyn Store,
    namespace_id: &str,
    old: u64,
    new: u64,
) -> Result<Option<Vec<Hash>>, StoreError> {
    let tiles = load(store, namespace_id, tiles_for_consistency(old, new)).await?;
    Ok(tree::consistency_proof(old, new, |node| tiles.hash_of(node)).ok())
}

/// Loads tiles as far as they have come.
pub async fn load(
    store: &dyn Store,
    namespace_id: &str,
    wanted: Vec<TileId>,
) -> Result<Tiles, StoreError> {
    let mut loaded = HashMap::new();
    for tile in wanted {
        let hashes = store.log_tile(namespace_id, tile.level, tile.index).await?;
        loaded.extend(hashes.map(|hashes| (tile, hashes)));
    }
    Ok(loaded.into_iter().collect())
}
