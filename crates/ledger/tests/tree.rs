//! Trees, proofs and tiles against the definitions of RFC 6962, section 2.1, written down naively.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use steadfast_ledger::Hash;
use steadfast_ledger::tile::{
    Appender, TileId, Tiles, tiles_for_consistency, tiles_for_inclusion, tiles_for_root,
};
use steadfast_ledger::tree::{
    Node, RootBuilder, consistency_proof, inclusion_proof, multiproof_nodes, root, root_of,
    verify_consistency, verify_inclusion,
};

const MAX: usize = 300;

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|n| Hash::leaf(&n.to_be_bytes())).collect()
}

/// The largest power of two that is less than `n`.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

fn mth(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            Hash::node(&mth(left), &mth(right))
        }
    }
}

fn path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut proof, other) = match m < left.len() {
        true => (path(m, left), mth(right)),
        false => (path(m - left.len(), right), mth(left)),
    };
    proof.push(other);
    proof
}

fn subproof(m: usize, leaves: &[Hash], is_whole: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return match is_whole {
            true => Vec::new(),
            false => vec![mth(leaves)],
        };
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut proof, other) = match m <= left.len() {
        true => (subproof(m, left, is_whole), mth(right)),
        false => (subproof(m - left.len(), right, false), mth(left)),
    };
    proof.push(other);
    proof
}

/// The hashes of all complete subtrees.
struct Table(Vec<Vec<Hash>>);

impl Table {
    fn of(leaves: &[Hash]) -> Self {
        let mut levels = vec![leaves.to_vec()];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let pairs = below.chunks_exact(2);
            levels.push(
                pairs
                    .map(|pair| Hash::node(&pair[0], &pair[1]))
                    .collect::<Vec<_>>(),
            );
        }
        Self(levels)
    }

    /// Proofs may ask for subtrees that are complete in their tree, and for no others.
    fn hash_of(&self, node: Node, size: usize) -> Option<Hash> {
        let end = (node.index + 1) << node.level;
        assert!(end <= size as u64, "{node:?} is not complete in {size}");
        Some(self.0[usize::from(node.level)][node.index as usize])
    }
}

#[test]
fn roots_of_all_sizes() {
    let leaves = leaves(MAX);
    let table = Table::of(&leaves);
    for size in 0..=MAX {
        let expected = mth(&leaves[..size]);
        let found = root(size as u64, |node| table.hash_of(node, size));
        assert_eq!(found, Ok(expected));
        assert_eq!(root_of(leaves[..size].iter().copied()), expected);
    }
}

#[test]
fn inclusion_proofs_of_all_sizes() {
    let leaves = leaves(MAX);
    let table = Table::of(&leaves);
    for size in 1..=MAX {
        let root = mth(&leaves[..size]);
        for index in (0..size).step_by(1 + size / 40) {
            let (at, of) = (index as u64, size as u64);
            let proof = inclusion_proof(at, of, |node| table.hash_of(node, size)).expect("a proof");
            assert_eq!(proof, path(index, &leaves[..size]), "{index} of {size}");
            let verify = |leaf: &Hash, at, of, proof: &[Hash]| {
                verify_inclusion(leaf, at, of, proof, &root).is_ok()
            };
            assert!(verify(&leaves[index], at, of, &proof));
            assert!(!verify(&Hash::of(b"other"), at, of, &proof));
            assert!(!verify(&leaves[index], at ^ 1, of, &proof));
            let longer: Vec<Hash> = proof.iter().copied().chain([root]).collect();
            assert!(!verify(&leaves[index], at, of, &longer));
        }
    }
}

#[test]
fn consistency_proofs_of_all_sizes() {
    let leaves = leaves(MAX);
    let table = Table::of(&leaves);
    let roots: Vec<Hash> = (0..=MAX).map(|size| mth(&leaves[..size])).collect();
    for new in 1..=MAX {
        for old in (1..new).step_by(1 + new / 40).chain([new]) {
            let (from, to) = (old as u64, new as u64);
            let proof =
                consistency_proof(from, to, |node| table.hash_of(node, new)).expect("a proof");
            assert_eq!(proof, subproof(old, &leaves[..new], true), "{old} to {new}");
            let verify = |from, old_root, new_root, proof: &[Hash]| {
                verify_consistency(from, old_root, to, new_root, proof).is_ok()
            };
            assert!(verify(from, &roots[old], &roots[new], &proof));
            assert!(!verify(from, &roots[old - 1], &roots[new], &proof));
            assert!(!verify(from, &roots[old], &roots[new - 1], &proof));
            assert!(old == 1 || !verify(from - 1, &roots[old], &roots[new], &proof));
            for at in 0..proof.len() {
                let mut wrong = proof.clone();
                wrong[at].0[31] ^= 0x80;
                assert!(!verify(from, &roots[old], &roots[new], &wrong));
                wrong.remove(at);
                assert!(!verify(from, &roots[old], &roots[new], &wrong));
            }
        }
    }
}

#[test]
fn every_tree_extends_the_empty_one_which_has_one_root() {
    let (empty, other) = (Hash::empty_root(), Hash::of(b"other"));
    let verify = |old_root, new, new_root, proof: &[Hash]| {
        verify_consistency(0, old_root, new, new_root, proof).is_ok()
    };
    assert_eq!(consistency_proof(0, 5, |_| None), Ok(Vec::new()));
    assert!(verify(&empty, 5, &other, &[]));
    assert!(verify(&empty, 0, &empty, &[]));
    assert!(!verify(&other, 5, &other, &[]));
    assert!(!verify(&other, 0, &other, &[]));
    assert!(!verify(&empty, 0, &other, &[]));
    assert!(!verify(&empty, 5, &other, &[other]));
}

#[test]
fn any_changed_bit_of_a_proof_is_found() {
    let leaves = leaves(70);
    let table = Table::of(&leaves);
    let whole = mth(&leaves);
    let inclusion = inclusion_proof(66, 70, |node| table.hash_of(node, 70)).expect("a proof");
    let consistency = consistency_proof(67, 70, |node| table.hash_of(node, 70)).expect("a proof");
    let older = mth(&leaves[..67]);
    for bit in 0..256 {
        for at in 0..inclusion.len() {
            let mut wrong = inclusion.clone();
            wrong[at].0[bit / 8] ^= 1 << (bit % 8);
            assert!(verify_inclusion(&leaves[66], 66, 70, &wrong, &whole).is_err());
        }
        for at in 0..consistency.len() {
            let mut wrong = consistency.clone();
            wrong[at].0[bit / 8] ^= 1 << (bit % 8);
            assert!(verify_consistency(67, &older, 70, &whole, &wrong).is_err());
        }
    }
}

#[test]
fn the_largest_trees_do_no_harm() {
    let some = |_| Some(Hash::default());
    let (hash, max) = (Hash::default(), u64::MAX);
    assert_eq!(
        inclusion_proof(0, max, some).map(|proof| proof.len()),
        Ok(64)
    );
    let proof = inclusion_proof(max - 1, max, some).expect("a proof");
    assert_eq!(proof.len(), 63);
    assert!(verify_inclusion(&hash, max - 1, max, &proof, &hash).is_err());
    let proof = consistency_proof(max - 1, max, some).expect("a proof");
    assert!(verify_consistency(max - 1, &hash, max, &hash, &proof).is_err());
    assert!(consistency_proof(1 << 63, max, some).is_ok());
    for index in [0, max - 1] {
        assert!(!tiles_for_inclusion(index, max).is_empty());
    }
    let mut builder = RootBuilder::default();
    for node in multiproof_nodes([], max) {
        builder.push_node(node, hash).expect("is next");
    }
    assert_eq!(builder.size(), max);
    assert!(builder.push_leaf(max, hash).is_err());
}

#[test]
fn a_multiproof_of_one_leaf_has_as_many_hashes_as_its_inclusion_proof() {
    for index in 0..64 {
        assert_eq!(multiproof_nodes([index], 64).count(), 6);
    }
    assert_eq!(multiproof_nodes(0..64, 64).count(), 0);
    assert_eq!(multiproof_nodes([], 70).count(), 3);
    assert_eq!(multiproof_nodes([], 0).count(), 0);
}

#[test]
fn a_million_leaves_stream_through() {
    let mut builder = RootBuilder::default();
    for index in 0..1u64 << 20 {
        builder.push_leaf(index, Hash::default()).expect("is next");
    }
    let node = Node {
        level: 20,
        index: 1,
    };
    let hash = (0..20).fold(Hash::default(), |hash, _| Hash::node(&hash, &hash));
    builder.push_node(node, hash).expect("is next");
    assert_eq!(
        (builder.size(), builder.fold()),
        (2 << 20, Hash::node(&hash, &hash))
    );
}

#[test]
fn appending_is_resumed_at_any_size() {
    let all = leaves(1000);
    let mut stored: BTreeMap<TileId, Vec<u8>> = BTreeMap::new();
    let mut tree = Appender::default();
    for size in 0..=all.len() {
        let expected = root_of(all[..size].iter().copied());
        assert_eq!((tree.size(), tree.root()), (size as u64, expected));
        stored.extend(tree.take_changes());
        let tiles: Tiles = tiles_for_root(size as u64)
            .into_iter()
            .map(|id| (id, stored[&id].clone()))
            .collect();
        assert_eq!(root(size as u64, |node| tiles.hash_of(node)), Ok(expected));
        tree = Appender::resume(size as u64, |id| stored.get(&id).cloned()).expect("resumes");
        assert!(tree.take_changes().is_empty());
        if let Some(leaf) = all.get(size) {
            tree.append(*leaf);
        }
    }
}

#[test]
fn batches_leave_the_same_tiles() {
    let all = leaves(2600);
    let mut whole = Appender::default();
    all.iter().for_each(|leaf| whole.append(*leaf));
    let expected: BTreeMap<_, _> = whole.take_changes().into_iter().collect();
    let mut tree = Appender::default();
    let mut stored = BTreeMap::new();
    let mut rest = all.as_slice();
    for batch in [1, 254, 1, 1, 0, 255, 256, 257, 512, 3, 1060] {
        let (now, later) = rest.split_at(batch);
        now.iter().for_each(|leaf| tree.append(*leaf));
        let changes = tree.take_changes();
        assert_eq!(changes.is_empty(), batch == 0);
        stored.extend(changes);
        rest = later;
    }
    assert!(rest.is_empty());
    assert_eq!(stored, expected);
}

#[test]
fn every_node_is_in_its_tile() {
    let all = leaves(70_000);
    let mut tree = Appender::default();
    all.iter().for_each(|leaf| tree.append(*leaf));
    let tiles: Tiles = tree.take_changes().into_iter().collect();
    for (row, level) in Table::of(&all).0.iter().zip(0..) {
        for (hash, index) in row.iter().zip(0..) {
            assert_eq!(tiles.hash_of(Node { level, index }), Some(*hash));
        }
        let index = row.len() as u64;
        assert_eq!(tiles.hash_of(Node { level, index }), None);
    }
}

#[test]
fn a_proof_needs_few_tiles() {
    for size in [1, 255, 256, 257, 70_000, 20_000_000] {
        for index in [0, size / 2, size - 1] {
            let tiles: BTreeSet<_> = tiles_for_inclusion(index, size).into_iter().collect();
            assert!(tiles.len() <= 6, "{index} of {size}: {tiles:?}");
            let tiles: BTreeSet<_> = tiles_for_consistency(index, size).into_iter().collect();
            assert!(tiles.len() <= 6, "{index} to {size}: {tiles:?}");
        }
    }
    assert_eq!(tiles_for_inclusion(5, 5), []);
    assert_eq!(tiles_for_consistency(5, 4), []);
    assert_eq!(tiles_for_root(0), []);
}

proptest! {
    #[test]
    fn a_multiproof_gives_the_root(picked in prop::collection::btree_set(0..200u64, 0..50), size in 1..200u64) {
        let leaves = leaves(size as usize);
        let table = Table::of(&leaves);
        let picked: Vec<u64> = picked.into_iter().filter(|index| *index < size).collect();
        let mut pieces: Vec<Node> = multiproof_nodes(picked.iter().copied(), size).collect();
        let is_ordered = pieces.is_sorted_by_key(|node| node.index << node.level);
        assert!(is_ordered);
        pieces.extend(picked.iter().map(|index| Node { level: 0, index: *index }));
        pieces.sort_by_key(|node| node.index << node.level);
        let mut builder = RootBuilder::default();
        for node in pieces {
            let hash = table.hash_of(node, size as usize).expect("is complete");
            builder.push_node(node, hash).expect("is next");
            assert!(builder.push_node(node, hash).is_err(), "twice");
        }
        assert_eq!((builder.size(), builder.fold()), (size, mth(&leaves)));
    }

    #[test]
    fn any_numbers_do_no_harm(index: u64, size: u64, level: u8, count in 0..70usize) {
        let hash = Hash::default();
        let proof = vec![hash; count];
        assert!(verify_inclusion(&hash, index, size, &proof, &Hash::of(b"x")).is_err());
        let _ = verify_consistency(index, &hash, size, &hash, &proof);
        let _ = consistency_proof(index, size, |_| Some(hash));
        let _ = RootBuilder::default().push_node(Node { level, index }, hash);
        let _ = Tiles::default().hash_of(Node { level, index });
        let _ = tiles_for_consistency(index, size);
    }

    #[test]
    fn any_tiles_do_no_harm(size in 0..100_000u64, bytes: Vec<u8>, level: u8, index: u64) {
        let _ = Appender::resume(size, |_| Some(bytes.clone())).map(|tree| tree.root());
        let tiles: Tiles = [(TileId { level, index }, bytes)].into_iter().collect();
        let _ = root(size, |node| tiles.hash_of(node));
        let _ = tiles.hash_of(Node { level, index });
    }
}
