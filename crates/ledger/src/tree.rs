//! The Merkle tree of RFC 6962, section 2.1: roots, inclusion and consistency proofs, and the nodes
//! that prove many leaves at once.
//!
//! Nothing here keeps a tree: hashes are asked for by the node that they belong to.

use crate::Hash;

/// The root of the complete subtree of the leaves `index << level .. (index + 1) << level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Height above the leaves.
    pub level: u8,
    /// Place among the nodes of its level.
    pub index: u64,
}

/// Why there is no proof, or why it proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf is not in the tree.
    #[error("leaf {index} is not in a tree of {size}")]
    NotInTree {
        /// The leaf.
        index: u64,
        /// Size of the tree.
        size: u64,
    },
    /// The newer tree is smaller.
    #[error("a tree of {new} leaves does not extend one of {old}")]
    Shrunk {
        /// Size of the older tree.
        old: u64,
        /// Size of the newer tree.
        new: u64,
    },
    /// A hash that the proof is made of is not known.
    #[error("the hash of node {index} at level {level} is not known", level = _0.level, index = _0.index)]
    Missing(Node),
    /// The proof has too many hashes or too few.
    #[error("the proof has {actual} hashes where {expected} are needed")]
    Length {
        /// Hashes that a proof for such a tree has.
        expected: usize,
        /// Hashes that it has.
        actual: usize,
    },
    /// The proof leads to another root.
    #[error("the proof does not lead to the root")]
    Root,
}

/// The root of a tree of `size` leaves.
pub fn root(size: u64, mut hash_of: impl FnMut(Node) -> Option<Hash>) -> Result<Hash, ProofError> {
    range(0, size, &mut hash_of)
}

/// The root of the tree of these leaf hashes.
pub fn root_of(leaves: impl IntoIterator<Item = Hash>) -> Hash {
    let mut tree = RootBuilder::default();
    for leaf in leaves {
        tree.merge(0, leaf, |_, _| ());
    }
    tree.root()
}

/// The proof that leaf `index` is in the tree of `size` leaves: `PATH` of RFC 6962, section 2.1.1.
pub fn inclusion_proof(
    index: u64,
    size: u64,
    mut hash_of: impl FnMut(Node) -> Option<Hash>,
) -> Result<Vec<Hash>, ProofError> {
    let path = Path::from_leaf(index, size)?;
    path.map(|sibling| subtree(sibling.node, size, &mut hash_of))
        .collect()
}

/// The proof that the tree of `new` leaves extends the one of `old`: `PROOF` of RFC 6962, section
/// 2.1.2. There is nothing to prove, and the proof is empty, if either is empty or both are the same.
pub fn consistency_proof(
    old: u64,
    new: u64,
    mut hash_of: impl FnMut(Node) -> Option<Hash>,
) -> Result<Vec<Hash>, ProofError> {
    if old > new {
        return Err(ProofError::Shrunk { old, new });
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let (seam, path) = Path::from_seam(old, new);
    seam.into_iter()
        .chain(path.map(|sibling| sibling.node))
        .map(|node| subtree(node, new, &mut hash_of))
        .collect()
}

/// Verifies that `leaf` is leaf `index` of the tree with this size and root.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    let path = Path::from_leaf(index, size)?;
    check_length(path.clone().count(), proof)?;
    let found = path
        .zip(proof)
        .fold(*leaf, |hash, (sibling, other)| sibling.join(hash, other));
    match found == *root {
        true => Ok(()),
        false => Err(ProofError::Root),
    }
}

/// Verifies that the newer tree begins with all leaves of the older one. Every tree extends the empty
/// one, so for an old size of zero this says nothing about the newer root.
pub fn verify_consistency(
    old: u64,
    old_root: &Hash,
    new: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    let is_proven = match old {
        _ if old > new => return Err(ProofError::Shrunk { old, new }),
        _ if old == new => {
            check_length(0, proof)?;
            old_root == new_root && (old != 0 || *old_root == Hash::empty_root())
        }
        0 => {
            check_length(0, proof)?;
            *old_root == Hash::empty_root()
        }
        _ => {
            let (seam, path) = Path::from_seam(old, new);
            check_length(usize::from(seam.is_some()) + path.clone().count(), proof)?;
            let (seam, proof) = match (seam, proof) {
                (Some(_), [first, rest @ ..]) => (first, rest),
                // The older tree is complete: the proof starts at its root, and does not repeat it.
                _ => (old_root, proof),
            };
            let roots = path.zip(proof).fold((*seam, *seam), |roots, step| {
                let (sibling, other) = step;
                match sibling.is_left {
                    true => (sibling.join(roots.0, other), sibling.join(roots.1, other)),
                    // What is to the right came after the older tree.
                    false => (roots.0, sibling.join(roots.1, other)),
                }
            });
            roots == (*old_root, *new_root)
        }
    };
    match is_proven {
        true => Ok(()),
        false => Err(ProofError::Root),
    }
}

fn check_length(expected: usize, proof: &[Hash]) -> Result<(), ProofError> {
    let actual = proof.len();
    match actual == expected {
        true => Ok(()),
        false => Err(ProofError::Length { expected, actual }),
    }
}

/// The siblings that are met on the way from a node up to the root, lowest first.
#[derive(Clone)]
struct Path {
    level: u8,
    index: u64,
    /// The last node of the level, complete or not.
    last: u64,
}

#[derive(Clone, Copy)]
struct Sibling {
    node: Node,
    is_left: bool,
}

impl Path {
    fn from_leaf(index: u64, size: u64) -> Result<Self, ProofError> {
        if index >= size {
            return Err(ProofError::NotInTree { index, size });
        }
        Ok(Self {
            level: 0,
            index,
            last: size - 1,
        })
    }

    /// From the last complete subtree of the older tree, `0 < old < new`. Gives that too, unless it
    /// is the whole older tree.
    fn from_seam(old: u64, new: u64) -> (Option<Node>, Self) {
        let level = old.trailing_zeros();
        let index = (old >> level) - 1;
        let path = Self {
            level: level as u8,
            index,
            last: (new - 1) >> level,
        };
        let level = path.level;
        ((index > 0).then_some(Node { level, index }), path)
    }
}

impl Iterator for Path {
    type Item = Sibling;

    fn next(&mut self) -> Option<Sibling> {
        while self.last > 0 {
            let (level, index, last) = (self.level, self.index, self.last);
            self.level += 1;
            self.index /= 2;
            self.last /= 2;
            if index % 2 == 1 {
                let index = index - 1;
                return Some(Sibling {
                    node: Node { level, index },
                    is_left: true,
                });
            }
            if index < last {
                let index = index + 1;
                return Some(Sibling {
                    node: Node { level, index },
                    is_left: false,
                });
            }
        }
        None
    }
}

impl Sibling {
    fn join(self, hash: Hash, other: &Hash) -> Hash {
        match self.is_left {
            true => Hash::node(other, &hash),
            false => Hash::node(&hash, other),
        }
    }
}

/// The hash of a node which begins within the tree, but may not be complete in it.
fn subtree(
    node: Node,
    size: u64,
    hash_of: &mut impl FnMut(Node) -> Option<Hash>,
) -> Result<Hash, ProofError> {
    let first = node.index << node.level;
    range(first, (size - first).min(1 << node.level), hash_of)
}

/// `MTH(D[first : first + count])`, where `first` is a multiple of a power of two that is not less
/// than `count`: joins the complete subtrees from the right, smallest first.
fn range(
    first: u64,
    count: u64,
    hash_of: &mut impl FnMut(Node) -> Option<Hash>,
) -> Result<Hash, ProofError> {
    let end = first + count;
    let mut rest = count;
    let mut root = None;
    while rest > 0 {
        let level = rest.trailing_zeros();
        rest &= rest - 1;
        let node = Node {
            level: level as u8,
            index: (end >> level) - 1,
        };
        let hash = hash_of(node).ok_or(ProofError::Missing(node))?;
        root = Some(match root {
            None => hash,
            Some(right) => Hash::node(&hash, &right),
        });
    }
    Ok(root.unwrap_or_else(Hash::empty_root))
}

/// The fewest complete subtrees which, together with the given leaves, make up the tree of `size`
/// leaves: in the order of their first leaves. Leaves are given in ascending order; those out of
/// order, repeated or not in the tree are passed over.
pub fn multiproof_nodes(
    leaves: impl IntoIterator<Item = u64>,
    size: u64,
) -> impl Iterator<Item = Node> {
    Gaps {
        leaves: leaves.into_iter(),
        size,
        position: 0,
        end: None,
    }
}

struct Gaps<I> {
    leaves: I,
    size: u64,
    position: u64,
    /// The leaf that ends the gap at `position`, or the size.
    end: Option<u64>,
}

impl<I: Iterator<Item = u64>> Iterator for Gaps<I> {
    type Item = Node;

    fn next(&mut self) -> Option<Node> {
        while self.position < self.size {
            let position = self.position;
            let end = *self.end.get_or_insert_with(|| {
                let next = self.leaves.find(|leaf| *leaf >= position);
                next.unwrap_or(self.size).min(self.size)
            });
            if position == end {
                self.position += 1;
                self.end = None;
                continue;
            }
            let level = position.trailing_zeros().min((end - position).ilog2());
            self.position += 1 << level;
            return Some(Node {
                level: level as u8,
                index: position >> level,
            });
        }
        None
    }
}

/// Finds the root of a tree from its leaves and complete subtrees, given from left to right. It holds
/// one hash for each level, however many leaves there are.
#[derive(Clone)]
pub struct RootBuilder {
    size: u64,
    /// Where `size` has a bit set, the root of the complete subtree of so many leaves.
    peaks: [Hash; 64],
}

/// What was given does not follow what was given before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Leaves are left out.
    #[error("leaf {found} follows {size} leaves: some are missing")]
    Gap {
        /// Leaves so far.
        size: u64,
        /// First leaf of what was given.
        found: u64,
    },
    /// Leaves are given twice.
    #[error("leaf {found} follows {size} leaves: it is among them")]
    Overlap {
        /// Leaves so far.
        size: u64,
        /// First leaf of what was given.
        found: u64,
    },
    /// No tree is so large.
    #[error("node {index} at level {level} is in no tree", level = _0.level, index = _0.index)]
    TooLarge(Node),
}

impl Default for RootBuilder {
    fn default() -> Self {
        Self {
            size: 0,
            peaks: [Hash::default(); 64],
        }
    }
}

impl RootBuilder {
    /// Adds the next leaf.
    pub fn push_leaf(&mut self, index: u64, hash: Hash) -> Result<(), OrderError> {
        self.push_node(Node { level: 0, index }, hash)
    }

    /// Adds the complete subtree that is next.
    pub fn push_node(&mut self, node: Node, hash: Hash) -> Result<(), OrderError> {
        let size = self.size;
        let width = 1u64.checked_shl(u32::from(node.level));
        let found = width.and_then(|width| node.index.checked_mul(width));
        let end = width
            .zip(found)
            .and_then(|(width, found)| found.checked_add(width));
        let (Some(found), Some(_)) = (found, end) else {
            return Err(OrderError::TooLarge(node));
        };
        if found > size {
            return Err(OrderError::Gap { size, found });
        }
        if found < size {
            return Err(OrderError::Overlap { size, found });
        }
        self.merge(node.level, hash, |_, _| ());
        Ok(())
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root of the tree of the leaves so far.
    pub fn root(&self) -> Hash {
        let peak = |node: Node| self.peaks.get(usize::from(node.level)).copied();
        root(self.size, peak).unwrap_or_else(|_| Hash::empty_root())
    }

    /// Adds the complete subtree that is next, of a level that `size` has no bits below. Tells the
    /// hash of each node that this completes, from the lowest up.
    pub(crate) fn merge(&mut self, level: u8, hash: Hash, mut tell: impl FnMut(u8, &Hash)) {
        let (mut at, mut hash) = (level, hash);
        tell(at, &hash);
        while self.size >> at & 1 == 1 {
            hash = Hash::node(&self.peaks[usize::from(at)], &hash);
            at += 1;
            tell(at, &hash);
        }
        self.peaks[usize::from(at)] = hash;
        self.size += 1 << level;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `MTH` as RFC 6962, section 2.1, writes it down.
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

    /// The largest power of two that is less than `n`.
    fn split(n: usize) -> usize {
        n.next_power_of_two() / 2
    }

    /// `PATH` as section 2.1.1 writes it down.
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

    /// `SUBPROOF` as section 2.1.2 writes it down.
    fn subproof(m: usize, leaves: &[Hash], is_whole: bool) -> Vec<Hash> {
        if m == leaves.len() {
            return if is_whole {
                Vec::new()
            } else {
                vec![mth(leaves)]
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

    const MAX: usize = 300;

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|n| Hash::leaf(&n.to_be_bytes())).collect()
    }

    /// Answers for the complete subtrees of these leaves, and refuses to for others.
    fn complete(leaves: &[Hash]) -> impl Fn(Node) -> Option<Hash> {
        move |node| {
            let first = (node.index as usize) << node.level;
            Some(mth(leaves.get(first..first + (1 << node.level))?))
        }
    }

    #[test]
    fn roots_are_those_of_the_rfc() {
        let leaves = leaves(MAX);
        let mut builder = RootBuilder::default();
        for size in 0..=MAX {
            let expected = mth(&leaves[..size]);
            assert_eq!(root(size as u64, complete(&leaves[..size])), Ok(expected));
            assert_eq!(root_of(leaves[..size].iter().copied()), expected);
            assert_eq!((builder.size(), builder.root()), (size as u64, expected));
            if let Some(leaf) = leaves.get(size) {
                builder.push_leaf(size as u64, *leaf).expect("is next");
            }
        }
    }

    /// The hashes of all complete subtrees, so that the tests over all sizes are quick.
    struct Table(Vec<Vec<Hash>>);

    impl Table {
        fn of(leaves: Vec<Hash>) -> Self {
            let mut levels = vec![leaves];
            while let Some(below) = levels.last().filter(|level| level.len() > 1) {
                let pairs = below.chunks_exact(2);
                levels.push(pairs.map(|pair| Hash::node(&pair[0], &pair[1])).collect());
            }
            Self(levels)
        }

        fn hash_of(&self, node: Node, size: usize) -> Option<Hash> {
            let end = (node.index + 1) << node.level;
            assert!(
                end <= size as u64,
                "{node:?} is not complete in a tree of {size}"
            );
            Some(self.0[usize::from(node.level)][node.index as usize])
        }
    }

    #[test]
    fn inclusion_proofs_are_those_of_the_rfc() {
        let leaves = leaves(MAX);
        let table = Table::of(leaves.clone());
        for size in 1..=MAX {
            let root = mth(&leaves[..size]);
            // All leaves of small trees, some of larger ones.
            for index in (0..size).step_by(1 + size / 40) {
                let (at, of) = (index as u64, size as u64);
                let proof = inclusion_proof(at, of, |node| table.hash_of(node, size))
                    .expect("there is a proof");
                assert_eq!(proof, path(index, &leaves[..size]), "{index} of {size}");
                let leaf = &leaves[index];
                assert_eq!(verify_inclusion(leaf, at, of, &proof, &root), Ok(()));
                assert!(verify_inclusion(&root, at, of, &proof, &root).is_err() || size == 1);
                let elsewhere = verify_inclusion(leaf, at ^ 1, of, &proof, &root);
                assert!(elsewhere.is_err(), "{index} of {size} at another place");
            }
        }
    }

    #[test]
    fn consistency_proofs_are_those_of_the_rfc() {
        let leaves = leaves(MAX);
        let table = Table::of(leaves.clone());
        let roots: Vec<Hash> = (0..=MAX).map(|size| mth(&leaves[..size])).collect();
        for new in 1..=MAX {
            for old in (1..new).step_by(1 + new / 40).chain([new]) {
                let (a, b) = (old as u64, new as u64);
                let proof = consistency_proof(a, b, |node| table.hash_of(node, new))
                    .expect("there is a proof");
                assert_eq!(proof, subproof(old, &leaves[..new], true), "{old} to {new}");
                let verify = |a, a_root, proof: &[Hash]| {
                    verify_consistency(a, a_root, b, &roots[new], proof)
                };
                assert_eq!(verify(a, &roots[old], &proof), Ok(()));
                assert!(verify(a, &roots[old - 1], &proof).is_err());
                assert!(verify(a - 1, &roots[old], &proof).is_err());
                for at in 0..proof.len() {
                    let mut wrong = proof.clone();
                    wrong[at].0[0] ^= 1;
                    assert_eq!(verify(a, &roots[old], &wrong), Err(ProofError::Root));
                    wrong.remove(at);
                    let length = verify(a, &roots[old], &wrong);
                    assert!(matches!(length, Err(ProofError::Length { .. })));
                }
            }
        }
    }

    #[test]
    fn a_changed_inclusion_proof_is_refused() {
        let leaves = leaves(70);
        let root = mth(&leaves);
        let proof = inclusion_proof(66, 70, complete(&leaves)).expect("there is a proof");
        let verify = |proof: &[Hash]| verify_inclusion(&leaves[66], 66, 70, proof, &root);
        assert_eq!(verify(&proof), Ok(()));
        for at in 0..proof.len() {
            let mut wrong = proof.clone();
            for bit in 0..256 {
                wrong[at] = proof[at];
                wrong[at].0[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(verify(&wrong), Err(ProofError::Root));
            }
            wrong.remove(at);
            assert!(matches!(verify(&wrong), Err(ProofError::Length { .. })));
        }
        let longer: Vec<Hash> = proof.iter().copied().chain([root]).collect();
        assert!(matches!(verify(&longer), Err(ProofError::Length { .. })));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let none = |_| None;
        let hash = Hash::default();
        for (index, size) in [(0, 0), (5, 5), (u64::MAX, u64::MAX)] {
            let expected = ProofError::NotInTree { index, size };
            assert_eq!(inclusion_proof(index, size, none), Err(expected));
            let verified = verify_inclusion(&hash, index, size, &[], &hash);
            assert_eq!(verified, Err(expected));
        }
        let shrunk = Err(ProofError::Shrunk { old: 2, new: 1 });
        assert_eq!(consistency_proof(2, 1, none), shrunk);
        assert_eq!(
            verify_consistency(2, &hash, 1, &hash, &[]),
            Err(ProofError::Shrunk { old: 2, new: 1 })
        );
        let node = Node { level: 1, index: 0 };
        assert_eq!(root(2, none), Err(ProofError::Missing(node)));
    }

    #[test]
    fn everything_extends_the_empty_tree() {
        let (empty, other) = (Hash::empty_root(), Hash::of(b"any"));
        assert_eq!(consistency_proof(0, 5, |_| None), Ok(Vec::new()));
        assert_eq!(verify_consistency(0, &empty, 5, &other, &[]), Ok(()));
        assert_eq!(verify_consistency(0, &empty, 0, &empty, &[]), Ok(()));
        assert!(verify_consistency(0, &other, 5, &other, &[]).is_err());
        assert!(verify_consistency(0, &other, 0, &other, &[]).is_err());
        assert!(verify_consistency(0, &empty, 5, &other, &[other]).is_err());
    }

    #[test]
    fn the_largest_trees_have_proofs() {
        let some = |_| Some(Hash::default());
        let max = u64::MAX;
        let proof = inclusion_proof(max - 1, max, some).expect("there is a proof");
        assert_eq!(proof.len(), 63);
        let hash = Hash::default();
        let verified = verify_inclusion(&hash, max - 1, max, &proof, &hash);
        assert_eq!(verified, Err(ProofError::Root));
        let proof = consistency_proof(max - 1, max, some).expect("there is a proof");
        let verified = verify_consistency(max - 1, &hash, max, &hash, &proof);
        assert_eq!(verified, Err(ProofError::Root));
        assert_eq!(
            inclusion_proof(0, max, some).map(|proof| proof.len()),
            Ok(64)
        );
        assert!(consistency_proof(1 << 63, max, some).is_ok());
    }

    fn build(picked: &[u64], leaves: &[Hash]) -> (usize, RootBuilder) {
        let size = leaves.len() as u64;
        let nodes: Vec<Node> = multiproof_nodes(picked.iter().copied(), size).collect();
        let of = complete(leaves);
        let mut pieces: Vec<Node> = picked
            .iter()
            .map(|index| Node {
                level: 0,
                index: *index,
            })
            .collect();
        pieces.extend(&nodes);
        pieces.sort_by_key(|node| node.index << node.level);
        let mut builder = RootBuilder::default();
        for node in pieces {
            let hash = of(node).expect("is complete");
            builder.push_node(node, hash).expect("is next");
        }
        (nodes.len(), builder)
    }

    #[test]
    fn a_multiproof_of_one_leaf_is_its_inclusion_proof() {
        let leaves = leaves(64);
        for index in 0..64 {
            let (nodes, builder) = build(&[index], &leaves);
            assert_eq!(nodes, 6);
            assert_eq!((builder.size(), builder.root()), (64, mth(&leaves)));
        }
    }

    #[test]
    fn a_multiproof_of_all_leaves_or_none() {
        let leaves = leaves(70);
        let all: Vec<u64> = (0..70).collect();
        assert_eq!(build(&all, &leaves).0, 0);
        assert_eq!(build(&[], &leaves).0, 3);
        assert_eq!(multiproof_nodes([], 0).count(), 0);
        assert_eq!(multiproof_nodes([3], u64::MAX).count(), 65);
        // Out of order, twice, not in the tree.
        assert_eq!(multiproof_nodes([1, 0, 1, 9], 2).count(), 1);
    }

    #[test]
    fn gaps_and_overlaps_are_refused() {
        let hash = Hash::default();
        let mut builder = RootBuilder::default();
        let node = |level, index| Node { level, index };
        let gap = Err(OrderError::Gap { size: 0, found: 1 });
        assert_eq!(builder.push_leaf(1, hash), gap);
        assert_eq!(builder.push_node(node(1, 0), hash), Ok(()));
        let overlap = Err(OrderError::Overlap { size: 2, found: 1 });
        assert_eq!(builder.push_leaf(1, hash), overlap);
        let gap = Err(OrderError::Gap { size: 2, found: 4 });
        assert_eq!(builder.push_node(node(2, 1), hash), gap);
        for large in [
            node(64, 0),
            node(255, 1),
            node(63, 1),
            node(0, u64::MAX),
            node(1, 1 << 63),
        ] {
            let refused = Err(OrderError::TooLarge(large));
            assert_eq!(builder.push_node(large, hash), refused);
        }
        assert_eq!(builder.size(), 2);
    }

    #[test]
    fn the_largest_tree_can_be_built() {
        let hash = Hash::default();
        let mut builder = RootBuilder::default();
        for node in multiproof_nodes([], u64::MAX) {
            builder.push_node(node, hash).expect("is next");
        }
        assert_eq!(builder.size(), u64::MAX);
        assert!(builder.push_leaf(u64::MAX, hash).is_err());
    }

    #[test]
    fn a_million_leaves_stream_through() {
        let mut builder = RootBuilder::default();
        for index in 0..1u64 << 20 {
            builder.push_leaf(index, Hash::default()).expect("is next");
        }
        let expected = (0..20).fold(Hash::default(), |hash, _| Hash::node(&hash, &hash));
        assert_eq!(builder.root(), expected);
    }

    proptest::proptest! {
        #[test]
        fn a_multiproof_gives_the_root(
            picked in proptest::collection::btree_set(0..200u64, 0..50),
            size in 1..200usize,
        ) {
            let leaves = leaves(size);
            let picked: Vec<u64> = picked.into_iter().filter(|index| *index < size as u64).collect();
            let (_, builder) = build(&picked, &leaves);
            assert_eq!((builder.size(), builder.root()), (size as u64, mth(&leaves)));
        }

        #[test]
        fn any_numbers_do_no_harm(index: u64, size: u64, level: u8, count in 0..70usize) {
            let hash = Hash::default();
            let proof = vec![hash; count];
            assert!(verify_inclusion(&hash, index, size, &proof, &Hash::of(b"x")).is_err());
            let _ = verify_consistency(index, &hash, size, &hash, &proof);
            let _ = consistency_proof(index, size, |_| Some(hash));
            let _ = RootBuilder::default().push_node(Node { level, index }, hash);
            let _ = multiproof_nodes([index], size).count();
        }
    }
}
