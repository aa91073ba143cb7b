//! The tree cut into tiles of 256 hashes, as C2SP `tlog-tiles` lays them out ("Merkle Tree"): their
//! names, the end of a growing tree, and proofs from stored tiles.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::Hash;
use crate::tree::{self, Node, RootBuilder};

/// Hashes in a full tile.
pub const WIDTH: u16 = 256;

const HASH_BYTES: usize = 32;
const TILE_BYTES: usize = WIDTH as usize * HASH_BYTES;

/// The levels of the tree that one tile spans.
const HEIGHT: u8 = 8;

/// A tile of hashes: those of the nodes `index * 256 .. (index + 1) * 256` at level `8 * level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// Level among tiles: 0 holds the leaf hashes.
    pub level: u8,
    /// Place among the tiles of its level.
    pub index: u64,
}

impl TileId {
    /// The tile that has the hash of a node, or the hashes that it is made of.
    pub fn of(node: Node) -> Self {
        Self {
            level: node.level / HEIGHT,
            index: node.index >> (HEIGHT - node.level % HEIGHT),
        }
    }

    /// How many hashes the tile has in a tree of `size` leaves: from 0, if there is no such tile, to
    /// 256.
    pub fn width(self, size: u64) -> u16 {
        let shift = u32::from(self.level) * u32::from(HEIGHT);
        let count = size.checked_shr(shift).unwrap_or(0);
        let before = self.index.saturating_mul(WIDTH.into());
        u16::try_from(count.saturating_sub(before)).map_or(WIDTH, |width| width.min(WIDTH))
    }
}

/// What is served under `tile/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TilePath {
    /// `tile/<L>/<N>[.p/<W>]`: hashes.
    Hashes {
        /// The tile.
        tile: TileId,
        /// Hashes in it, 1 to 256.
        width: u16,
    },
    /// `tile/entries/<N>[.p/<W>]`: entries.
    Entries {
        /// Entries `index * 256` and following.
        index: u64,
        /// How many of them, 1 to 256.
        width: u16,
    },
}

/// Text that is not the path of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the path of a tile")]
pub struct NotATile;

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, width) = match self {
            Self::Hashes { tile, width } => {
                write!(f, "tile/{}/", tile.level)?;
                (tile.index, *width)
            }
            Self::Entries { index, width } => {
                f.write_str("tile/entries/")?;
                (*index, *width)
            }
        };
        let mut divisor = 1u64;
        while index / divisor >= 1000 {
            divisor *= 1000;
        }
        while divisor > 1 {
            write!(f, "x{:03}/", index / divisor % 1000)?;
            divisor /= 1000;
        }
        write!(f, "{:03}", index % 1000)?;
        match width == WIDTH {
            true => Ok(()),
            false => write!(f, ".p/{width}"),
        }
    }
}

impl FromStr for TilePath {
    type Err = NotATile;

    fn from_str(text: &str) -> Result<Self, NotATile> {
        let path = parse_path(text).ok_or(NotATile)?;
        // There is one way to write each path: zeroes and signs too many show when it is written.
        match path.to_string() == text {
            true => Ok(path),
            false => Err(NotATile),
        }
    }
}

fn parse_path(text: &str) -> Option<TilePath> {
    let (level, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let (number, width) = match rest.split_once(".p/") {
        Some((number, width)) => (number, width.parse().ok()?),
        None => (rest, WIDTH),
    };
    if !(1..=WIDTH).contains(&width) {
        return None;
    }
    let mut index = 0u64;
    for element in number.split('/') {
        let digits = element.strip_prefix('x').unwrap_or(element);
        let digits = u64::from(digits.parse::<u16>().ok().filter(|n| *n < 1000)?);
        index = index.checked_mul(1000)?.checked_add(digits)?;
    }
    if level == "entries" {
        return Some(TilePath::Entries { index, width });
    }
    let level = level.parse().ok().filter(|level| *level <= 63)?;
    let tile = TileId { level, index };
    Some(TilePath::Hashes { tile, width })
}

/// Why tiles do not make up a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// A tile is not there.
    #[error("tile {index} of level {level} is missing", level = _0.level, index = _0.index)]
    Missing(TileId),
    /// A tile has not enough hashes.
    #[error(
        "tile {index} of level {level} has {actual} bytes, and a tree of this size needs {expected}",
        level = tile.level,
        index = tile.index
    )]
    TooShort {
        /// The tile.
        tile: TileId,
        /// Bytes that it must have.
        expected: usize,
        /// Bytes that it has.
        actual: usize,
    },
    /// No log has so many entries.
    #[error("a tree of {0} leaves is too large")]
    TooLarge(u64),
}

/// The right edge of a growing tree: of each level the tile that is not full yet.
#[derive(Clone, Default)]
pub struct Appender {
    tree: RootBuilder,
    /// By level.
    edge: Vec<EdgeTile>,
    /// Became full since the changes were taken.
    full: Vec<(TileId, Vec<u8>)>,
}

#[derive(Clone, Default)]
struct EdgeTile {
    index: u64,
    hashes: Vec<u8>,
    is_changed: bool,
}

impl Appender {
    /// Goes on with a tree of `size` leaves whose tiles are stored. Of each the first hashes are
    /// taken, and what a larger tree has added is not.
    pub fn resume(
        size: u64,
        mut tile: impl FnMut(TileId) -> Option<Vec<u8>>,
    ) -> Result<Self, TileError> {
        if size > i64::MAX as u64 {
            return Err(TileError::TooLarge(size));
        }
        let mut appender = Self::default();
        let mut count = size;
        for level in 0.. {
            if count == 0 {
                break;
            }
            let index = count / u64::from(WIDTH);
            let id = TileId { level, index };
            let mut hashes = Vec::new();
            let expected = usize::from(id.width(size)) * HASH_BYTES;
            if expected > 0 {
                hashes = tile(id).ok_or(TileError::Missing(id))?;
                let actual = hashes.len();
                if actual < expected {
                    return Err(TileError::TooShort {
                        tile: id,
                        expected,
                        actual,
                    });
                }
                hashes.truncate(expected);
            }
            appender.edge.push(EdgeTile {
                index,
                hashes,
                is_changed: false,
            });
            count = index;
        }
        // The highest tile spans the first leaves, the next lower one those after them, and so on.
        for (tile, level) in appender.edge.iter().zip(0..=u8::MAX).rev() {
            for hash in hashes(&tile.hashes) {
                appender.tree.merge(level * HEIGHT, hash, |_, _| ());
            }
        }
        Ok(appender)
    }

    /// Adds a leaf.
    pub fn append(&mut self, leaf: Hash) {
        let Self { tree, edge, full } = self;
        tree.merge(0, leaf, |level, hash| {
            if level % HEIGHT != 0 {
                return;
            }
            let level = level / HEIGHT;
            if edge.len() == usize::from(level) {
                edge.push(EdgeTile::default());
            }
            let tile = &mut edge[usize::from(level)];
            let index = tile.index;
            full.extend(
                tile.push(hash)
                    .map(|hashes| (TileId { level, index }, hashes)),
            );
        });
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Root of the tree of the leaves so far.
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// The tiles that changed since the changes were last taken, each with all its hashes so far, in
    /// the order of their ids.
    pub fn take_changes(&mut self) -> Vec<(TileId, Vec<u8>)> {
        let mut changes = std::mem::take(&mut self.full);
        for (tile, level) in self.edge.iter_mut().zip(0..) {
            if std::mem::take(&mut tile.is_changed) && !tile.hashes.is_empty() {
                let index = tile.index;
                changes.push((TileId { level, index }, tile.hashes.clone()));
            }
        }
        changes.sort_unstable_by_key(|(id, _)| *id);
        changes
    }
}

impl EdgeTile {
    /// Gives the tile's hashes if this one made it full: then the next tile begins.
    fn push(&mut self, hash: &Hash) -> Option<Vec<u8>> {
        if self.hashes.is_empty() {
            self.hashes.reserve_exact(TILE_BYTES);
        }
        self.hashes.extend_from_slice(&hash.0);
        self.is_changed = true;
        if self.hashes.len() < TILE_BYTES {
            return None;
        }
        self.index += 1;
        Some(std::mem::take(&mut self.hashes))
    }
}

/// The root of the tree of the first `size` leaves, from stored tiles.
pub fn root_at(size: u64, tile: impl FnMut(TileId) -> Option<Vec<u8>>) -> Result<Hash, TileError> {
    Ok(Appender::resume(size, tile)?.root())
}

/// Loaded tiles, to make proofs from. They are believed: what is made from them must still be
/// verified with a root.
#[derive(Clone, Default)]
pub struct Tiles(BTreeMap<TileId, Vec<u8>>);

impl FromIterator<(TileId, Vec<u8>)> for Tiles {
    fn from_iter<I: IntoIterator<Item = (TileId, Vec<u8>)>>(tiles: I) -> Self {
        Self(tiles.into_iter().collect())
    }
}

impl Extend<(TileId, Vec<u8>)> for Tiles {
    fn extend<I: IntoIterator<Item = (TileId, Vec<u8>)>>(&mut self, tiles: I) {
        self.0.extend(tiles);
    }
}

impl Tiles {
    /// The hash of a node, if its tile is loaded and has come so far.
    pub fn hash_of(&self, node: Node) -> Option<Hash> {
        let tile = self.0.get(&TileId::of(node))?;
        let width = 1usize << (node.level % HEIGHT);
        let place = node.index % (u64::from(WIDTH) / width as u64);
        let first = usize::try_from(place).ok()? * width * HASH_BYTES;
        let hashes = tile.get(first..first + width * HASH_BYTES)?;
        Some(subtree(hashes))
    }
}

/// The root of the subtree of a power of two of hashes.
fn subtree(bytes: &[u8]) -> Hash {
    match bytes.len() <= HASH_BYTES {
        true => hash(bytes),
        false => {
            let (left, right) = bytes.split_at(bytes.len() / 2);
            Hash::node(&subtree(left), &subtree(right))
        }
    }
}

fn hashes(bytes: &[u8]) -> impl Iterator<Item = Hash> {
    bytes.chunks_exact(HASH_BYTES).map(hash)
}

fn hash(bytes: &[u8]) -> Hash {
    // Slices come here in pieces of 32 bytes.
    Hash(bytes.try_into().unwrap_or_default())
}

/// The tiles from which the root of a tree is made.
pub fn tiles_for_root(size: u64) -> Vec<TileId> {
    needed(|hash_of| tree::root(size, hash_of).is_ok())
}

/// The tiles from which an inclusion proof is made.
pub fn tiles_for_inclusion(index: u64, size: u64) -> Vec<TileId> {
    needed(|hash_of| tree::inclusion_proof(index, size, hash_of).is_ok())
}

/// The tiles from which a consistency proof is made.
pub fn tiles_for_consistency(old: u64, new: u64) -> Vec<TileId> {
    needed(|hash_of| tree::consistency_proof(old, new, hash_of).is_ok())
}

/// The tiles of the nodes that are asked for.
fn needed(make: impl FnOnce(&mut dyn FnMut(Node) -> Option<Hash>) -> bool) -> Vec<TileId> {
    let mut tiles = BTreeSet::new();
    make(&mut |node| {
        tiles.insert(TileId::of(node));
        Some(Hash::default())
    });
    tiles.into_iter().collect()
}

/// An entry with more bytes than 16 bits can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry of {0} bytes is too long for a log")]
pub struct EntryTooLong(pub usize);

/// Appends an entry to the entries that are served together: `tlog-tiles`, "Log entries".
pub fn push_entry(entries: &mut Vec<u8>, entry: &[u8]) -> Result<(), EntryTooLong> {
    let length = u16::try_from(entry.len()).map_err(|_| EntryTooLong(entry.len()))?;
    entries.extend_from_slice(&length.to_be_bytes());
    entries.extend_from_slice(entry);
    Ok(())
}

/// The entries that are served together; none if that is not what the bytes are.
pub fn split_entries(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (entry, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        entries.push(entry);
        bytes = rest;
    }
    (bytes.is_empty() && entries.len() <= WIDTH.into()).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{consistency_proof, inclusion_proof, root_of};

    fn leaf(index: u64) -> Hash {
        Hash::leaf(&index.to_be_bytes())
    }

    fn leaves(size: u64) -> impl Iterator<Item = Hash> {
        (0..size).map(leaf)
    }

    /// A store of tiles, as an upsert leaves them.
    #[derive(Default)]
    struct Stored(BTreeMap<TileId, Vec<u8>>);

    impl Stored {
        fn of(size: u64) -> Self {
            let mut appender = Appender::default();
            leaves(size).for_each(|leaf| appender.append(leaf));
            Self(appender.take_changes().into_iter().collect())
        }

        fn tile(&self, id: TileId) -> Option<Vec<u8>> {
            self.0.get(&id).cloned()
        }

        fn load(&self, wanted: Vec<TileId>) -> Tiles {
            let tiles = wanted.into_iter();
            tiles
                .map(|id| (id, self.tile(id).expect("is stored")))
                .collect()
        }
    }

    #[test]
    fn tiles_of_the_specification() {
        // "Partial Tiles" describes these two trees.
        let widths = |size| {
            let mut widths: BTreeMap<(u8, usize), usize> = BTreeMap::new();
            for (id, bytes) in Stored::of(size).0 {
                assert_eq!(bytes.len(), usize::from(id.width(size)) * 32);
                *widths.entry((id.level, bytes.len() / 32)).or_default() += 1;
            }
            widths.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(
            widths(70_000),
            [
                ((0, 112), 1),
                ((0, 256), 273),
                ((1, 17), 1),
                ((1, 256), 1),
                ((2, 1), 1)
            ]
        );
        assert_eq!(widths(256), [((0, 256), 1), ((1, 1), 1)]);
    }

    #[test]
    fn roots_are_the_trees() {
        let mut appender = Appender::default();
        let mut stored = Stored::default();
        for size in 0..1000 {
            let root = root_of(leaves(size));
            assert_eq!((appender.size(), appender.root()), (size, root));
            stored.0.extend(appender.take_changes());
            let tile = |id| stored.tile(id);
            let resumed = Appender::resume(size, tile).expect("all tiles are there");
            assert_eq!((resumed.size(), resumed.root()), (size, root));
            let tiles = stored.load(tiles_for_root(size));
            assert_eq!(tree::root(size, |node| tiles.hash_of(node)), Ok(root));
            appender.append(leaf(size));
        }
    }

    #[test]
    fn batches_give_the_same_tiles() {
        let mut appender = Appender::default();
        let mut stored = Stored::default();
        let mut next = 0;
        for batch in [1, 254, 1, 1, 0, 255, 256, 257, 512, 3, 1000] {
            for _ in 0..batch {
                appender.append(leaf(next));
                next += 1;
            }
            let changes = appender.take_changes();
            assert!(changes.is_sorted_by_key(|(id, _)| *id));
            assert_eq!(changes.is_empty(), batch == 0);
            stored.0.extend(changes);
            let tile = |id| stored.tile(id);
            appender = Appender::resume(next, tile).expect("all tiles are there");
            assert_eq!(appender.take_changes(), []);
        }
        assert_eq!(stored.0, Stored::of(next).0);
    }

    #[test]
    fn an_older_size_is_read_from_longer_tiles() {
        let stored = Stored::of(70_000);
        for size in [
            0, 1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 69_999,
        ] {
            let root = root_at(size, |id| stored.tile(id)).expect("all tiles are there");
            assert_eq!(root, root_of(leaves(size)), "{size}");
        }
    }

    #[test]
    fn missing_and_short_tiles_are_told() {
        let stored = Stored::of(300);
        let id = TileId { level: 0, index: 1 };
        let missing = root_at(300, |wanted| stored.tile(wanted).filter(|_| wanted != id));
        assert_eq!(missing, Err(TileError::Missing(id)));
        let short = root_at(301, |wanted| stored.tile(wanted)).expect_err("is too short");
        assert_eq!(
            short.to_string(),
            "tile 1 of level 0 has 1408 bytes, and a tree of this size needs 1440"
        );
        let large = root_at(u64::MAX, |_| None);
        assert_eq!(large, Err(TileError::TooLarge(u64::MAX)));
    }

    #[test]
    fn proofs_need_only_their_tiles() {
        let size = 70_000;
        let stored = Stored::of(size);
        let root = root_of(leaves(size));
        for index in [0, 1, 255, 256, 65_535, 65_536, 69_887, 69_888, 69_999] {
            let wanted = tiles_for_inclusion(index, size);
            assert!(wanted.len() <= 5, "{wanted:?}");
            let tiles = stored.load(wanted);
            let proof = inclusion_proof(index, size, |node| tiles.hash_of(node));
            let proof = proof.expect("all tiles are loaded");
            let verified = tree::verify_inclusion(&leaf(index), index, size, &proof, &root);
            assert_eq!(verified, Ok(()), "{index}");
        }
        for old in [1, 2, 255, 256, 257, 65_535, 65_536, 65_537, 69_999, 70_000] {
            let tiles = stored.load(tiles_for_consistency(old, size));
            let proof = consistency_proof(old, size, |node| tiles.hash_of(node));
            let proof = proof.expect("all tiles are loaded");
            let old_root = root_of(leaves(old));
            let verified = tree::verify_consistency(old, &old_root, size, &root, &proof);
            assert_eq!(verified, Ok(()), "{old}");
        }
        assert_eq!(tiles_for_inclusion(5, 5), []);
        assert_eq!(tiles_for_consistency(5, 4), []);
    }

    #[test]
    fn every_node_is_in_its_tile() {
        let size = 70_000;
        let tiles: Tiles = Stored::of(size).0.into_iter().collect();
        let mut row: Vec<Hash> = leaves(size).collect();
        for level in 0..20 {
            for (hash, index) in row.iter().zip(0..) {
                assert_eq!(tiles.hash_of(Node { level, index }), Some(*hash));
            }
            let index = row.len() as u64;
            assert_eq!(tiles.hash_of(Node { level, index }), None);
            let pairs = row.chunks_exact(2);
            row = pairs.map(|pair| Hash::node(&pair[0], &pair[1])).collect();
        }
    }

    #[test]
    fn paths_as_the_specification_writes_them() {
        let hashes = |level, index, width| TilePath::Hashes {
            tile: TileId { level, index },
            width,
        };
        let cases = [
            ("tile/0/x001/x234/067", hashes(0, 1_234_067, 256)),
            ("tile/63/000", hashes(63, 0, 256)),
            ("tile/1/x001/000.p/1", hashes(1, 1000, 1)),
            ("tile/2/999.p/255", hashes(2, 999, 255)),
            (
                "tile/7/x018/x446/x744/x073/x709/x551/615",
                hashes(7, u64::MAX, 256),
            ),
            (
                "tile/entries/x123/456.p/7",
                TilePath::Entries {
                    index: 123_456,
                    width: 7,
                },
            ),
        ];
        for (text, path) in cases {
            assert_eq!(path.to_string(), text);
            assert_eq!(text.parse(), Ok(path));
        }
    }

    #[test]
    fn other_paths_are_refused() {
        let wrong = [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/0/0",
            "tile/0/00",
            "tile/0/0000",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/x001",
            "tile/0/x001/x002",
            "tile/0/xx01/002",
            "tile/0/+01",
            "tile/0/1e1",
            "tile/0/000/",
            "tile/0//000",
            "tile/00/000",
            "tile/01/000",
            "tile/+1/000",
            "tile/64/000",
            "tile/-1/000",
            "tile/256/000",
            "tile/data/000",
            "/tile/0/000",
            "tile/0/000.p",
            "tile/0/000.p/",
            "tile/0/000.p/0",
            "tile/0/000.p/01",
            "tile/0/000.p/256",
            "tile/0/000.p/257",
            "tile/0/000.p/1/",
            "tile/0/000.p/1.p/1",
            "tile/0/x000.p/001",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
            "tile/0/x001/x018/x446/x744/x073/x709/x551/615",
            "tile/entries",
            "tile/entries/1",
            "tile/entries/000.p/256",
        ];
        for text in wrong {
            assert_eq!(text.parse::<TilePath>(), Err(NotATile), "{text}");
        }
    }

    #[test]
    fn widths() {
        let width = |level, index, size| TileId { level, index }.width(size);
        assert_eq!(width(0, 0, 0), 0);
        assert_eq!(width(0, 0, 5), 5);
        assert_eq!(width(0, 1, 256), 0);
        assert_eq!(width(1, 0, 256), 1);
        assert_eq!(width(0, 0, u64::MAX), 256);
        assert_eq!(width(7, 0, u64::MAX), 255);
        assert_eq!(width(8, 0, u64::MAX), 0);
        assert_eq!(width(255, u64::MAX, u64::MAX), 0);
    }

    #[test]
    fn entries_are_put_together_and_split() {
        let mut bytes = Vec::new();
        for entry in [b"one".as_slice(), b"", b"three"] {
            push_entry(&mut bytes, entry).expect("is short");
        }
        assert_eq!(bytes, b"\0\x03one\0\0\0\x05three");
        let split = split_entries(&bytes).expect("are entries");
        assert_eq!(split, [b"one".as_slice(), b"", b"three"]);
        assert_eq!(split_entries(&[]), Some(Vec::new()));
        assert_eq!(split_entries(&bytes[..bytes.len() - 1]), None);
        assert_eq!(split_entries(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(split_entries(&[0; 2 * 257]), None);
        let long = vec![0; 65_536];
        assert_eq!(push_entry(&mut bytes, &long), Err(EntryTooLong(65_536)));
        assert_eq!(push_entry(&mut bytes, &long[1..]), Ok(()));
    }

    proptest::proptest! {
        #[test]
        fn paths_round_trip(level in 0..=63u8, index: u64, width in 1..=256u16, entries: bool) {
            let path = match entries {
                true => TilePath::Entries { index, width },
                false => TilePath::Hashes { tile: TileId { level, index }, width },
            };
            assert_eq!(path.to_string().parse(), Ok(path));
        }

        #[test]
        fn any_text_does_no_harm(text: String, near in "tile/[0-9a-z]{1,7}/[x0-9/.p]{0,30}") {
            for text in [text, near] {
                if let Ok(path) = text.parse::<TilePath>() {
                    assert_eq!(path.to_string(), text);
                }
            }
        }

        #[test]
        fn any_bytes_are_entries_or_not(bytes: Vec<u8>) {
            if let Some(entries) = split_entries(&bytes) {
                let mut again = Vec::new();
                for entry in entries {
                    push_entry(&mut again, entry).expect("is short");
                }
                assert_eq!(again, bytes);
            }
        }

        #[test]
        fn any_tile_bytes_do_no_harm(size in 0..100_000u64, bytes: Vec<u8>, level: u8, index: u64) {
            let _ = root_at(size, |_| Some(bytes.clone()));
            let tile = TileId { level, index };
            let tiles: Tiles = [(tile, bytes)].into_iter().collect();
            let _ = tiles.hash_of(Node { level, index });
            let _ = tile.width(size);
        }
    }
}
