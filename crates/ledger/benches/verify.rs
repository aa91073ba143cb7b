//! How long a large bundle takes to verify, and a proof to make in larger and larger trees.
//!
//! ```sh
//! cargo bench -p steadfast-ledger --bench verify -- [entries]
//! ```
//!
//! `cargo test --benches` runs it too, with little to do: then only whether it works is of interest.

#[path = "../tests/bundle/world.rs"]
#[expect(dead_code, reason = "the tests of bundles use the rest")]
mod world;

use std::collections::HashMap;
use std::hint::black_box;
use std::io::Cursor;
use std::time::{Duration, Instant};

use steadfast_ledger::Hash;
use steadfast_ledger::bundle::{Limits, Trust, Verdict, verify};
use steadfast_ledger::tile::{Appender, TileId, Tiles, tiles_for_inclusion};
use steadfast_ledger::tree::{Node, inclusion_proof, verify_inclusion};

use world::{World, log_key, witness};

/// So many entries are verified in this time.
const GOAL: (usize, Duration) = (100_000, Duration::from_secs(2));
const EVENTS_PER_RUN: usize = 100;
const TREES: &[u64] = &[1_000, 10_000, 100_000, 1_000_000];
const PROOFS: u64 = 10_000;

fn main() {
    let (flags, numbers): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|it| it.starts_with("--"));
    let has = |flag: &str| flags.iter().any(|it| it == flag);
    // Only `cargo bench` passes `--bench`.
    let (entries, trees, proofs) = match has("--bench") && !has("--test") {
        true => (GOAL.0, TREES, PROOFS),
        false => (100, &TREES[..1], 10),
    };
    let entries = numbers
        .first()
        .and_then(|it| it.parse().ok())
        .unwrap_or(entries);
    verify_bundle(entries);
    for size in trees {
        make_proofs(*size, proofs);
    }
}

/// A session of many runs, with an event in each entry.
fn verify_bundle(entries: usize) {
    let runs = entries.div_ceil(EVENTS_PER_RUN);
    let mut world = World::default();
    for index in 0..entries {
        let run_id = format!("run-{}", index % runs);
        world.step(&run_id, &["ACTIVITY_TASK_COMPLETED"], &|_| {});
    }
    let bundle = world.session();
    let trust = Trust {
        log: &[log_key(1).verifier().clone()],
        witnesses: &[witness().verifier().clone()],
        quorum: 1,
        earlier: None,
    };
    let start = Instant::now();
    let report = verify(Cursor::new(&bundle), &trust, &Limits::default());
    let elapsed = start.elapsed();
    assert_eq!(report.verdict, Verdict::Verified, "{report}");
    println!(
        "a bundle of {entries} entries with {entries} events, {} bytes: verified in {elapsed:.2?}",
        bundle.len()
    );
    assert!(entries > GOAL.0 || elapsed < GOAL.1, "{elapsed:?}");
}

/// Proofs of entries all over a tree: with all of its nodes at hand, which takes the logarithm of its
/// size, and from tiles, as the server makes them. Those add what is hashed within a few tiles: most
/// where the last one is nearly full, whatever the size.
fn make_proofs(size: u64, count: u64) {
    let leaves: Vec<Hash> = (0..size)
        .map(|index| Hash::leaf(&index.to_be_bytes()))
        .collect();
    let mut appender = Appender::default();
    leaves.iter().for_each(|leaf| appender.append(*leaf));
    let stored: HashMap<TileId, Vec<u8>> = appender.take_changes().into_iter().collect();
    let root = appender.root();
    let levels = levels(leaves);
    let node = |node: Node| levels[usize::from(node.level)].get(node.index as usize);

    let (mut tiles, mut hashes) = (0, 0);
    let (mut of_nodes, mut of_tiles) = (Duration::ZERO, Duration::ZERO);
    for index in (0..count).map(|place| place * size / count) {
        let start = Instant::now();
        let proof = black_box(inclusion_proof(index, size, |at| node(at).copied()));
        of_nodes += start.elapsed();

        let start = Instant::now();
        let wanted = tiles_for_inclusion(index, size);
        tiles += wanted.len();
        let loaded: Tiles = wanted
            .into_iter()
            .map(|tile| (tile, stored[&tile].clone()))
            .collect();
        let from_tiles = black_box(inclusion_proof(index, size, |node| loaded.hash_of(node)));
        of_tiles += start.elapsed();

        assert_eq!(proof, from_tiles);
        let proof = proof.expect("the nodes are there");
        hashes += proof.len();
        let leaf = &levels[0][index as usize];
        verify_inclusion(leaf, index, size, &proof, &root).expect("the proof holds");
    }
    let each = |sum: usize| sum as f64 / count as f64;
    let each_us = |sum: Duration| sum.as_secs_f64() * 1e6 / count as f64;
    println!(
        "an inclusion proof in {size} leaves, {:.1} hashes: made in {:.2} µs of nodes, \
         in {:.1} µs of {:.1} tiles",
        each(hashes),
        each_us(of_nodes),
        each_us(of_tiles),
        each(tiles),
    );
}

/// The hashes of all complete subtrees, by their height.
fn levels(leaves: Vec<Hash>) -> Vec<Vec<Hash>> {
    let above = |level: &Vec<Hash>| {
        let pairs = level.as_chunks().0.iter();
        let above: Vec<Hash> = pairs.map(|[left, right]| Hash::node(left, right)).collect();
        (!above.is_empty()).then_some(above)
    };
    std::iter::successors(Some(leaves), above).collect()
}
