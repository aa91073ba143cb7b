//! The Merkle tree of RFC 6962, section 2.1: roots, proofs, and what proofs are made of.
//!
//! A tree is described by the roots of complete subtrees ([`Node`]). Whoever can look those up can
//! make proofs ([`inclusion_proof`], [`consistency_proof`]); whoever gets a proof needs nothing else.

use crate::Hash;

/// The root of the complete subtree over the leaves `index << level .. (index + 1) << level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// Height: 0 for a leaf.
    pub level: u8,
    /// Place among the nodes of that height.
    pub index: u64,
}

impl Node {
    /// The first leaf below it.
    pub fn first_leaf(self) -> Option<u64> {
        self.index
            .checked_shl(self.level.into())
            .filter(|first| first.checked_shr(self.level.into()) == Some(self.index))
    }
}

/// Why there is no proof, or why one does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The tree has no such entry, or no such size.
    #[error("outside of the tree")]
    Outside,
    /// A node that is needed is not there.
    #[error("node {} of level {} is missing", .0.index, .0.level)]
    Missing(Node),
    /// The proof does not lead to the root.
    #[error("the proof does not hold")]
    Wrong,
    /// Leaves and nodes leave a gap, overlap, or are out of order.
    #[error("leaves and nodes do not make up a tree at leaf {0}")]
    Gap(u64),
}

/// The largest complete subtrees that make up the leaves `first .. end`, from left to right.
fn cover(first: u64, end: u64) -> impl Iterator<Item = Node> {
    let mut at = first;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let by_place = if at == 0 { 63 } else { at.trailing_zeros() };
        let by_room = (end - at).ilog2();
        let level = by_place.min(by_room);
        let node = Node {
            level: level as u8,
            index: at >> level,
        };
        at += 1 << level;
        Some(node)
    })
}

/// The nodes whose hashes [`root`] asks for.
pub fn root_nodes(size: u64) -> impl Iterator<Item = Node> {
    cover(0, size)
}

/// The root of a tree.
pub fn root(size: u64, mut hash_of: impl FnMut(Node) -> Option<Hash>) -> Result<Hash, ProofError> {
    subtree(0, size, &mut hash_of)
}

/// The hash of the leaves `first .. end`, where `first` is a multiple of the least power of two that
/// is not less than their number.
fn subtree(
    first: u64,
    end: u64,
    hash_of: &mut impl FnMut(Node) -> Option<Hash>,
) -> Result<Hash, ProofError> {
    let mut hashes = Vec::new();
    for node in cover(first, end) {
        hashes.push(hash_of(node).ok_or(ProofError::Missing(node))?);
    }
    let folded = hashes.into_iter().rev();
    Ok(folded
        .reduce(|right, left| Hash::node(&left, &right))
        .unwrap_or_else(Hash::empty_root))
}

/// The largest power of two below `size`, which has at least two leaves.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The proof that the tree has an entry (section 2.1.1), from the leaf's sibling up.
pub fn inclusion_proof(
    index: u64,
    size: u64,
    mut hash_of: impl FnMut(Node) -> Option<Hash>,
) -> Result<Vec<Hash>, ProofError> {
    if index >= size {
        return Err(ProofError::Outside);
    }
    siblings(index, size)
        .into_iter()
        .map(|(first, end)| subtree(first, end, &mut hash_of))
        .collect()
}

/// The subtrees beside the way from a leaf to the root, from the leaf up.
fn siblings(index: u64, size: u64) -> Vec<(u64, u64)> {
    let (mut first, mut end) = (0, size);
    let mut siblings = Vec::new();
    while end - first > 1 {
        let middle = first + split(end - first);
        if index < middle {
            siblings.push((middle, end));
            end = middle;
        } else {
            siblings.push((first, middle));
            first = middle;
        }
    }
    siblings.reverse();
    siblings
}

/// The nodes whose hashes [`inclusion_proof`] asks for.
pub fn inclusion_nodes(index: u64, size: u64) -> Vec<Node> {
    if index >= size {
        return Vec::new();
    }
    let ranges = siblings(index, size).into_iter();
    ranges.flat_map(|(first, end)| cover(first, end)).collect()
}

/// The proof that a tree begins with an older one (section 2.1.2).
pub fn consistency_proof(
    old: u64,
    new: u64,
    mut hash_of: impl FnMut(Node) -> Option<Hash>,
) -> Result<Vec<Hash>, ProofError> {
    if old > new {
        return Err(ProofError::Outside);
    }
    consistency_ranges(old, new)
        .into_iter()
        .map(|(first, end)| subtree(first, end, &mut hash_of))
        .collect()
}

/// The nodes whose hashes [`consistency_proof`] asks for.
pub fn consistency_nodes(old: u64, new: u64) -> Vec<Node> {
    let ranges = consistency_ranges(old, new).into_iter();
    ranges.flat_map(|(first, end)| cover(first, end)).collect()
}

/// The subtrees whose hashes are the proof, in its order.
fn consistency_ranges(old: u64, new: u64) -> Vec<(u64, u64)> {
    if old == 0 || old >= new {
        return Vec::new();
    }
    let (mut first, mut end) = (0, new);
    let mut ranges = Vec::new();
    while end != old {
        let middle = first + split(end - first);
        if old <= middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((first, middle));
            first = middle;
        }
    }
    // The old root itself is known to whoever asks.
    if first > 0 {
        ranges.push((first, end));
    }
    ranges.reverse();
    ranges
}

/// Whether a proof shows that a tree has an entry.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Outside);
    }
    let siblings = siblings(index, size);
    if siblings.len() != proof.len() {
        return Err(ProofError::Wrong);
    }
    let mut hash = *leaf;
    for ((first, _), sibling) in siblings.into_iter().zip(proof) {
        hash = match first > index {
            true => Hash::node(&hash, sibling),
            false => Hash::node(sibling, &hash),
        };
    }
    (hash == *root).then_some(()).ok_or(ProofError::Wrong)
}

/// Whether a proof shows that a tree begins with an older one.
pub fn verify_consistency(
    old: u64,
    old_root: &Hash,
    new: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Outside);
    }
    if old == 0 || old == new {
        // The tree without leaves has one root.
        let is_possible = |size, root: &Hash| size > 0 || *root == Hash::empty_root();
        let same = old == 0 || old_root == new_root;
        let holds =
            proof.is_empty() && same && is_possible(old, old_root) && is_possible(new, new_root);
        return holds.then_some(()).ok_or(ProofError::Wrong);
    }
    let ranges = consistency_ranges(old, new);
    if ranges.len() != proof.len() {
        return Err(ProofError::Wrong);
    }
    let mut parts = ranges.into_iter().zip(proof).peekable();
    // The subtree that the two trees share last: the old root, if that is a whole subtree.
    let shared = match parts.peek() {
        Some(((_, end), hash)) if *end == old => {
            let hash = **hash;
            parts.next();
            hash
        }
        _ => *old_root,
    };
    let (mut old_hash, mut new_hash) = (shared, shared);
    for ((first, _), hash) in parts {
        if first < old {
            old_hash = Hash::node(hash, &old_hash);
            new_hash = Hash::node(hash, &new_hash);
        } else {
            new_hash = Hash::node(&new_hash, hash);
        }
    }
    let holds = old_hash == *old_root && new_hash == *new_root;
    holds.then_some(()).ok_or(ProofError::Wrong)
}

/// The root of a tree whose leaves are at hand.
pub fn root_of(leaves: impl IntoIterator<Item = Hash>) -> Hash {
    let mut builder = RootBuilder::default();
    for leaf in leaves {
        builder.push(0, leaf);
    }
    builder.fold()
}

/// The nodes that, with the given leaves, make up a tree: as few as possible, from left to right.
/// `leaves` are in ascending order and within the tree.
pub fn multiproof_nodes(
    leaves: impl IntoIterator<Item = u64>,
    size: u64,
) -> impl Iterator<Item = Node> {
    let mut leaves = leaves.into_iter().chain([size]);
    let mut at = 0;
    let mut gap: Box<dyn Iterator<Item = Node>> = Box::new(std::iter::empty());
    std::iter::from_fn(move || {
        loop {
            if let Some(node) = gap.next() {
                return Some(node);
            }
            let next = leaves.next()?;
            gap = Box::new(cover(at, next));
            at = next.saturating_add(1);
        }
    })
}

/// Makes the root of leaves and nodes that come in order: in memory for as many hashes as the tree is
/// high.
#[derive(Clone, Debug, Default)]
pub struct RootBuilder {
    size: u64,
    /// Roots of complete subtrees, from left to right, each smaller than the one before it.
    subtrees: Vec<(u8, Hash)>,
}

impl RootBuilder {
    /// Adds a leaf.
    pub fn push_leaf(&mut self, index: u64, leaf: Hash) -> Result<(), ProofError> {
        self.push_node(Node { level: 0, index }, leaf)
    }

    /// Adds a complete subtree.
    pub fn push_node(&mut self, node: Node, hash: Hash) -> Result<(), ProofError> {
        let end = node
            .index
            .checked_add(1)
            .and_then(|index| Node { index, ..node }.first_leaf());
        if node.first_leaf() != Some(self.size) || end.is_none() {
            return Err(ProofError::Gap(self.size));
        }
        self.push(node.level, hash);
        Ok(())
    }

    /// The number of leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root.
    pub fn fold(&self) -> Hash {
        let subtrees = self.subtrees.iter().rev().map(|(_, hash)| *hash);
        subtrees
            .reduce(|right, left| Hash::node(&left, &right))
            .unwrap_or_else(Hash::empty_root)
    }

    fn push(&mut self, mut level: u8, mut hash: Hash) {
        self.size += 1 << level;
        while let Some((_, left)) = self.subtrees.pop_if(|(of, _)| *of == level) {
            hash = Hash::node(&left, &hash);
            level += 1;
        }
        self.subtrees.push((level, hash));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 70;

    fn leaf(index: u64) -> Hash {
        Hash::leaf(&index.to_be_bytes())
    }

    /// The definition of section 2.1, word for word.
    fn mth(first: u64, end: u64) -> Hash {
        match end - first {
            0 => Hash::empty_root(),
            1 => leaf(first),
            size => {
                let middle = first + (1..size).rev().find(|k| k.is_power_of_two()).unwrap_or(1);
                Hash::node(&mth(first, middle), &mth(middle, end))
            }
        }
    }

    fn hash_of(node: Node) -> Option<Hash> {
        let first = node.first_leaf()?;
        Some(mth(first, first + (1 << node.level)))
    }

    #[test]
    fn roots_are_as_defined() {
        for size in 0..=MOST {
            let expected = mth(0, size);
            assert_eq!(root(size, hash_of), Ok(expected), "size {size}");
            assert_eq!(root_of((0..size).map(leaf)), expected, "size {size}");
        }
    }

    #[test]
    fn every_entry_of_every_tree_can_be_proved_and_no_other() {
        for size in 1..=MOST {
            let root = mth(0, size);
            for index in 0..size {
                let proof = inclusion_proof(index, size, hash_of).expect("a proof");
                let verify = |leaf: &Hash, index, proof: &[Hash]| {
                    verify_inclusion(leaf, index, size, proof, &root)
                };
                assert_eq!(verify(&leaf(index), index, &proof), Ok(()));
                assert!(verify(&leaf(index + 1), index, &proof).is_err());
                assert!(verify(&leaf(index), index + 1, &proof).is_err());
                for place in 0..proof.len() {
                    let mut wrong = proof.clone();
                    wrong[place].0[0] ^= 1;
                    assert!(verify(&leaf(index), index, &wrong).is_err());
                    wrong.remove(place);
                    assert!(verify(&leaf(index), index, &wrong).is_err());
                }
            }
        }
    }

    #[test]
    fn every_tree_extends_every_smaller_one_and_no_other() {
        for new in 0..=MOST {
            for old in 0..=new {
                let proof = consistency_proof(old, new, hash_of).expect("a proof");
                let (old_root, new_root) = (mth(0, old), mth(0, new));
                let verify = |old_root: &Hash, proof: &[Hash]| {
                    verify_consistency(old, old_root, new, &new_root, proof)
                };
                assert_eq!(verify(&old_root, &proof), Ok(()), "{old} of {new}");
                if old > 0 {
                    assert!(verify(&leaf(99), &proof).is_err(), "{old} of {new}");
                }
                for place in 0..proof.len() {
                    let mut wrong = proof.clone();
                    wrong[place].0[0] ^= 1;
                    assert!(verify(&old_root, &wrong).is_err(), "{old} of {new}");
                }
            }
        }
    }

    #[test]
    fn some_leaves_and_the_nodes_between_them_make_the_root() {
        for size in 1..=MOST {
            for step in 1..=size {
                let leaves = || (0..size).step_by(step as usize);
                let mut builder = RootBuilder::default();
                let mut nodes = multiproof_nodes(leaves(), size).peekable();
                let mut leaves = leaves().peekable();
                while builder.size() < size {
                    let at = builder.size();
                    match leaves.next_if_eq(&at) {
                        Some(index) => builder.push_leaf(index, leaf(index)).expect("fits"),
                        None => {
                            let node = nodes.next().expect("a node fills the gap");
                            let hash = hash_of(node).expect("a hash");
                            builder.push_node(node, hash).expect("fits");
                        }
                    }
                }
                assert_eq!(nodes.next(), None);
                assert_eq!(builder.fold(), mth(0, size), "size {size} step {step}");
            }
        }
    }

    #[test]
    fn gaps_and_overlaps_are_refused() {
        let mut builder = RootBuilder::default();
        assert!(builder.push_leaf(1, leaf(1)).is_err());
        builder.push_leaf(0, leaf(0)).expect("fits");
        assert!(builder.push_leaf(0, leaf(0)).is_err());
        let overlaps = Node { level: 1, index: 0 };
        assert!(builder.push_node(overlaps, leaf(0)).is_err());
        for node in [(64, 0), (64, 1), (63, 1), (200, 7), (1, u64::MAX)] {
            let (level, index) = node;
            assert!(builder.push_node(Node { level, index }, leaf(0)).is_err());
        }
    }
}
