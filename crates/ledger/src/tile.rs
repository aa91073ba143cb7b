//! Tiles (`c2sp.org/tlog-tiles`): the tree in pieces of 256 hashes, which is how it is stored and
//! served.

use std::collections::HashMap;
use std::fmt;

use crate::Hash;
use crate::tree::{Node, RootBuilder, consistency_nodes, inclusion_nodes, root_nodes};

/// Hashes of a full tile, and entries of a full bundle.
pub const FULL_WIDTH: usize = 256;

/// Levels of the tree that one tile spans.
const HEIGHT: u8 = 8;

/// Bytes of a hash.
const HASH: usize = 32;

/// Names a tile. Its hashes are the nodes of height `8 * level` from `256 * index` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileId {
    /// Level of tiles: 0 for leaf hashes.
    pub level: u8,
    /// Place within the level.
    pub index: u64,
}

/// Why a tree cannot be taken up from its tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// A tile is not there.
    #[error("tile {} of level {} is missing", .0.index, .0.level)]
    Missing(TileId),
    /// A tile has fewer hashes than the tree's size asks for.
    #[error("tile {} of level {} is too short", .0.index, .0.level)]
    Short(TileId),
}

/// The right edge of a growing tree: the tiles that are not full yet, and nothing else.
#[derive(Clone, Debug, Default)]
pub struct Appender {
    size: u64,
    /// Per level, the hashes of the last tile, which is never full.
    edge: Vec<Vec<u8>>,
    /// Tiles that became full since the changes were taken.
    filled: Vec<(TileId, Vec<u8>)>,
    /// Size when the changes were taken.
    taken_at: u64,
}

impl Appender {
    /// Takes a stored tree up again. `tile` gives tiles as far as they have come; what they have
    /// beyond the size is left out.
    pub fn resume(
        size: u64,
        mut tile: impl FnMut(TileId) -> Option<Vec<u8>>,
    ) -> Result<Self, TileError> {
        let mut edge = Vec::new();
        for (level, width) in widths(size) {
            let id = TileId {
                level,
                index: tiles_at(size, level),
            };
            let mut hashes = match width {
                0 => Vec::new(),
                _ => tile(id).ok_or(TileError::Missing(id))?,
            };
            if hashes.len() < width * HASH {
                return Err(TileError::Short(id));
            }
            hashes.truncate(width * HASH);
            edge.push(hashes);
        }
        Ok(Self {
            size,
            edge,
            filled: Vec::new(),
            taken_at: size,
        })
    }

    /// Adds a leaf.
    pub fn append(&mut self, leaf: Hash) {
        let mut index = self.size;
        self.size += 1;
        let mut hash = leaf;
        for level in 0.. {
            if self.edge.len() == usize::from(level) {
                self.edge.push(Vec::with_capacity(FULL_WIDTH * HASH));
            }
            let hashes = &mut self.edge[usize::from(level)];
            hashes.extend_from_slice(&hash.0);
            if hashes.len() < FULL_WIDTH * HASH {
                return;
            }
            hash = fold(hashes);
            index >>= HEIGHT;
            let full = std::mem::take(hashes);
            self.filled.push((TileId { level, index }, full));
        }
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root.
    pub fn root(&self) -> Hash {
        let mut builder = RootBuilder::default();
        let mut index = 0;
        for (level, hashes) in self.edge.iter().enumerate().rev() {
            index <<= HEIGHT;
            for hash in split(hashes) {
                let node = Node {
                    level: level as u8 * HEIGHT,
                    index,
                };
                // They are in order, without gaps, by the way they were appended.
                let pushed = builder.push_node(node, hash);
                debug_assert!(pushed.is_ok());
                index += 1;
            }
        }
        builder.fold()
    }

    /// The tiles that changed since the last call, each as far as it has come.
    pub fn take_changes(&mut self) -> Vec<(TileId, Vec<u8>)> {
        let mut changes = std::mem::take(&mut self.filled);
        let before = std::mem::replace(&mut self.taken_at, self.size);
        for (level, hashes) in (0..).zip(&self.edge) {
            let grew = nodes_at(before, level) != nodes_at(self.size, level);
            if grew && !hashes.is_empty() {
                let index = tiles_at(self.size, level);
                changes.push((TileId { level, index }, hashes.clone()));
            }
        }
        changes
    }
}

/// Hashes at a level of tiles in a tree of this size.
fn nodes_at(size: u64, level: u8) -> u64 {
    size.checked_shr(u32::from(level) * u32::from(HEIGHT))
        .unwrap_or(0)
}

/// Full tiles at a level; the index of the one that is not full.
fn tiles_at(size: u64, level: u8) -> u64 {
    nodes_at(size, level) >> HEIGHT
}

/// The width of the last, partial tile of each level.
fn widths(size: u64) -> impl Iterator<Item = (u8, usize)> {
    (0..)
        .map(move |level| (level, nodes_at(size, level)))
        .take_while(|(_, nodes)| *nodes > 0)
        .map(|(level, nodes)| (level, nodes as usize % FULL_WIDTH))
}

fn split(hashes: &[u8]) -> impl Iterator<Item = Hash> + '_ {
    hashes.as_chunks().0.iter().map(|hash| Hash(*hash))
}

/// The root over the hashes of a tile, or of a part of it that is a complete subtree.
fn fold(hashes: &[u8]) -> Hash {
    crate::tree::root_of(split(hashes))
}

/// Tiles at hand, to make proofs of.
#[derive(Clone, Debug, Default)]
pub struct Tiles(HashMap<TileId, Vec<u8>>);

impl FromIterator<(TileId, Vec<u8>)> for Tiles {
    fn from_iter<T: IntoIterator<Item = (TileId, Vec<u8>)>>(tiles: T) -> Self {
        Self(tiles.into_iter().collect())
    }
}

impl Tiles {
    /// The hash of a node, if the tile that it is in came that far.
    pub fn hash_of(&self, node: Node) -> Option<Hash> {
        let (tile, first, count) = place(node);
        let hashes = self.0.get(&tile)?;
        hashes.get(first * HASH..(first + count) * HASH).map(fold)
    }
}

/// The tile that a node is in, and its part of it: the first hash and the number of hashes.
fn place(node: Node) -> (TileId, usize, usize) {
    let within = node.level % HEIGHT;
    let first = node.index << within;
    let tile = TileId {
        level: node.level / HEIGHT,
        index: first >> HEIGHT,
    };
    (tile, first as usize % FULL_WIDTH, 1 << within)
}

/// The tile that a node is made of.
pub fn tile_of(node: Node) -> TileId {
    place(node).0
}

/// The tiles that the root of a tree is made of.
pub fn tiles_for_root(size: u64) -> Vec<TileId> {
    tiles_of(root_nodes(size))
}

/// The tiles that an inclusion proof is made of.
pub fn tiles_for_inclusion(index: u64, size: u64) -> Vec<TileId> {
    tiles_of(inclusion_nodes(index, size))
}

/// The tiles that a consistency proof is made of.
pub fn tiles_for_consistency(old: u64, new: u64) -> Vec<TileId> {
    tiles_of(consistency_nodes(old, new))
}

fn tiles_of(nodes: impl IntoIterator<Item = Node>) -> Vec<TileId> {
    let mut tiles: Vec<_> = nodes.into_iter().map(tile_of).collect();
    tiles.sort_unstable();
    tiles.dedup();
    tiles
}

/// The path of a tile or of a bundle of entries, as it is served: `tile/0/x001/067`,
/// `tile/entries/x001/067.p/12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TilePath {
    /// Level; none for entries.
    level: Option<u8>,
    index: u64,
    width: u16,
}

/// Text that is not the path of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the path of a tile")]
pub struct NotATile;

impl TilePath {
    /// The path of a tile of hashes; none for a width that no tile has.
    pub fn tile(tile: TileId, width: usize) -> Option<Self> {
        Self::of(Some(tile.level), tile.index, width)
    }

    /// The path of a bundle of entries.
    pub fn entries(index: u64, width: usize) -> Option<Self> {
        Self::of(None, index, width)
    }

    fn of(level: Option<u8>, index: u64, width: usize) -> Option<Self> {
        let is_valid = (1..=FULL_WIDTH).contains(&width) && level.is_none_or(|level| level < 64);
        is_valid.then_some(Self {
            level,
            index,
            width: width as u16,
        })
    }

    /// The level of tiles; none for a bundle of entries.
    pub fn level(&self) -> Option<u8> {
        self.level
    }

    /// Place within the level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Hashes or entries: 256 for a full one.
    pub fn width(&self) -> usize {
        self.width.into()
    }

    /// Whether a tree of this size has all of it.
    pub fn is_within(&self, size: u64) -> bool {
        let end = self.index.checked_mul(FULL_WIDTH as u64);
        let end = end.and_then(|first| first.checked_add(self.width.into()));
        end.is_some_and(|end| end <= nodes_at(size, self.level.unwrap_or(0)))
    }

    /// Reads a path. There is one way to write each.
    pub fn parse(path: &str) -> Result<Self, NotATile> {
        let parse = || {
            let rest = path.strip_prefix("tile/")?;
            let (level, rest) = rest.split_once('/')?;
            let (index, width) = match rest.split_once(".p/") {
                Some((index, width)) => (index, width.parse().ok()?),
                None => (rest, FULL_WIDTH),
            };
            let level = match level {
                "entries" => None,
                level => Some(level.parse().ok()?),
            };
            let mut number: u64 = 0;
            for element in index.split('/') {
                let digits = element.strip_prefix('x').unwrap_or(element);
                let element: u64 = (digits.len() == 3).then(|| digits.parse().ok())??;
                number = number.checked_mul(1000)?.checked_add(element)?;
            }
            Self::of(level, number, width)
        };
        let parsed = parse().ok_or(NotATile)?;
        // Signs, leading zeroes and misplaced "x" show when it is written again.
        match parsed.to_string() == path {
            true => Ok(parsed),
            false => Err(NotATile),
        }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Some(level) => write!(f, "tile/{level}")?,
            None => f.write_str("tile/entries")?,
        }
        let mut elements = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            elements.push(rest % 1000);
            rest /= 1000;
        }
        for element in elements[1..].iter().rev() {
            write!(f, "/x{element:03}")?;
        }
        write!(f, "/{:03}", elements[0])?;
        match self.width() {
            FULL_WIDTH => Ok(()),
            width => write!(f, ".p/{width}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{
        consistency_proof, inclusion_proof, root_of, verify_consistency, verify_inclusion,
    };

    fn leaf(index: u64) -> Hash {
        Hash::leaf(&index.to_be_bytes())
    }

    /// A tree, and its tiles as a store has them.
    fn grown(size: u64, batch: u64) -> (Appender, HashMap<TileId, Vec<u8>>) {
        let mut tree = Appender::default();
        let mut stored = HashMap::new();
        for index in 0..size {
            tree.append(leaf(index));
            if index % batch == 0 {
                stored.extend(tree.take_changes());
            }
        }
        stored.extend(tree.take_changes());
        (tree, stored)
    }

    const SIZES: [u64; 9] = [0, 1, 255, 256, 257, 511, 512, 65_536, 70_000];

    #[test]
    fn the_root_is_that_of_the_leaves() {
        for size in SIZES {
            let (tree, _) = grown(size, 100);
            assert_eq!(tree.root(), root_of((0..size).map(leaf)), "size {size}");
        }
    }

    #[test]
    fn a_tree_goes_on_from_its_tiles() {
        for size in SIZES {
            let (mut tree, stored) = grown(size, 7);
            // What the store has beyond the size does no harm.
            let (_, longer) = grown(size + 100, 7);
            for tiles in [stored, longer] {
                let mut again =
                    Appender::resume(size, |tile| tiles.get(&tile).cloned()).expect("resumes");
                assert_eq!(again.root(), tree.root(), "size {size}");
                let mut before = tree.clone();
                for index in size..size + 300 {
                    again.append(leaf(index));
                    before.append(leaf(index));
                }
                assert_eq!(again.root(), before.root(), "size {size}");
                assert_eq!(again.take_changes(), before.take_changes(), "size {size}");
            }
            tree.take_changes();
        }
    }

    #[test]
    fn tiles_have_the_widths_of_the_specification() {
        // Section "Partial Tiles".
        let (_, stored) = grown(70_000, 1000);
        let widths = |level| {
            let mut of_level: Vec<_> = stored.iter().filter(|(id, _)| id.level == level).collect();
            of_level.sort();
            let widths = of_level.iter().map(|(_, hashes)| hashes.len() / HASH);
            widths.collect::<Vec<_>>()
        };
        assert_eq!(widths(0)[..273], [256; 273]);
        assert_eq!(widths(0)[273..], [112]);
        assert_eq!(widths(1), [256, 17]);
        assert_eq!(widths(2), [1]);
    }

    #[test]
    fn a_missing_or_short_tile_is_named() {
        let (_, mut stored) = grown(300, 100);
        let partial = TileId { level: 0, index: 1 };
        stored
            .get_mut(&partial)
            .expect("is there")
            .truncate(43 * HASH);
        let resume =
            |stored: &HashMap<_, Vec<u8>>| Appender::resume(300, |tile| stored.get(&tile).cloned());
        assert_eq!(resume(&stored).err(), Some(TileError::Short(partial)));
        stored.remove(&partial);
        assert_eq!(resume(&stored).err(), Some(TileError::Missing(partial)));
    }

    #[test]
    fn proofs_are_made_of_the_tiles_that_are_asked_for() {
        let size = 70_000;
        let (tree, stored) = grown(size, 1000);
        let only = |wanted: Vec<TileId>| -> Tiles {
            let wanted = wanted.into_iter();
            wanted.map(|tile| (tile, stored[&tile].clone())).collect()
        };
        for index in [0, 1, 255, 256, 40_000, 65_535, 65_536, 69_999] {
            let tiles = only(tiles_for_inclusion(index, size));
            let proof = inclusion_proof(index, size, |node| tiles.hash_of(node)).expect("a proof");
            assert_eq!(
                verify_inclusion(&leaf(index), index, size, &proof, &tree.root()),
                Ok(())
            );
        }
        for old in [1, 255, 256, 257, 65_535, 65_536, 69_999, 70_000] {
            let tiles = only(tiles_for_consistency(old, size));
            let proof = consistency_proof(old, size, |node| tiles.hash_of(node)).expect("a proof");
            let old_tiles = only(tiles_for_root(old));
            let old_root = crate::tree::root(old, |node| old_tiles.hash_of(node)).expect("a root");
            assert_eq!(old_root, root_of((0..old).map(leaf)));
            assert_eq!(
                verify_consistency(old, &old_root, size, &tree.root(), &proof),
                Ok(())
            );
        }
    }

    #[test]
    fn paths_are_those_of_the_specification() {
        for path in [
            "tile/0/x001/x234/067",
            "tile/entries/000",
            "tile/63/000.p/1",
            "tile/1/x999/999.p/255",
        ] {
            assert_eq!(
                TilePath::parse(path).map(|path| path.to_string()),
                Ok(path.into())
            );
        }
        for path in [
            "",
            "tile/0/",
            "tile/0/1",
            "tile/0/0001",
            "tile/00/001",
            "tile/64/001",
            "tile/0/001.p/0",
            "tile/0/001.p/256",
            "tile/0/001.p/01",
            "tile/0/001.p/+1",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/x001",
            "tile/0/+01",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(TilePath::parse(path), Err(NotATile), "{path}");
        }
    }

    #[test]
    fn only_what_the_tree_has_is_within() {
        let within =
            |path: &str, size| TilePath::parse(path).is_ok_and(|path| path.is_within(size));
        assert!(within("tile/0/001.p/44", 300));
        assert!(!within("tile/0/001.p/45", 300));
        assert!(within("tile/1/000.p/1", 300));
        assert!(!within("tile/1/000.p/2", 300));
        assert!(within("tile/entries/000", 300));
        assert!(!within("tile/entries/001", 300));
        assert!(!within("tile/9/000.p/1", u64::MAX));
    }

    proptest::proptest! {
        #[test]
        fn any_path_is_read_again(level in 0_u8..64, index: u64, width in 1_usize..=256) {
            let path = TilePath::tile(TileId { level, index }, width).expect("a tile");
            assert_eq!(TilePath::parse(&path.to_string()), Ok(path));
        }

        #[test]
        fn arbitrary_text_does_no_harm(path: String) {
            let _ = TilePath::parse(&path);
        }
    }
}
