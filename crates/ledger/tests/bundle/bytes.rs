//! Byte by byte, and hostile input.

use std::io::{Cursor, Write};

use steadfast_ledger::Hash;
use steadfast_ledger::bundle::{Code, Limits, Trust, Verdict, verify};
use steadfast_ledger::entry::{EventItem, EventRange, Follows};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::files::{Files, pack, unpack};
use crate::world::{SESSION, World, world};
use crate::{assert_found, check};

#[test]
fn what_is_no_bundle_is_refused() {
    for bytes in [&b""[..], b"PK", &[0; 4096], &pack(&Vec::new())] {
        let report = check(bytes);
        assert_eq!(report.verdict, Verdict::Failed);
    }
    let good = world().session();
    let before = [b"#!/bin/sh\n", good.as_slice()].concat();
    assert_found(&before, Code::ZipMalformed, "");
    let after = [good.as_slice(), b"\n"].concat();
    assert_found(&after, Code::ZipMalformed, "");
    for length in (0..good.len()).step_by(7) {
        assert_eq!(check(&good[..length]).verdict, Verdict::Failed);
    }
}

#[test]
fn a_bomb_is_not_unpacked() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::DEFAULT.compression_method(CompressionMethod::Deflated);
    for name in ["entries.jsonl", "tree.jsonl", "checkpoint", "manifest.json"] {
        zip.start_file(name, options).expect("is begun");
        for _ in 0..64 {
            zip.write_all(&[b'x'; 1 << 16]).expect("is written");
        }
    }
    let bomb = zip.finish().expect("is finished").into_inner();
    assert_found(&bomb, Code::TooLarge, "checkpoint");
    let limits = Limits {
        bytes: 1 << 20,
        ..Limits::default()
    };
    let report = verify(Cursor::new(&bomb), &Trust::default(), &limits);
    let codes: Vec<Code> = report.findings.iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&Code::TooLarge), "{report}");
    let limits = Limits {
        events: 3,
        ..Limits::default()
    };
    let report = verify(Cursor::new(world().session()), &Trust::default(), &limits);
    let codes: Vec<Code> = report.findings.iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&Code::TooLarge), "{report}");
}

/// A small session, for tests that change each byte.
fn small() -> Vec<u8> {
    let mut world = World::default();
    world.noise(1);
    world.step("run", &["WORKFLOW_EXECUTION_STARTED"], &|_| {});
    world.step("run", &["TIMER_STARTED"], &|_| {});
    world.noise(1);
    world.session()
}

/// Runs `check` for each place, on a few threads.
fn for_each(places: usize, check: impl Fn(usize) + Sync) {
    let threads = 2;
    std::thread::scope(|scope| {
        for first in 0..threads {
            let check = &check;
            scope.spawn(move || (first..places).step_by(threads).for_each(check));
        }
    });
}

#[test]
fn any_changed_byte_of_any_file_is_found() {
    let files = unpack(&small());
    for (place, (name, content)) in files.iter().enumerate() {
        for_each(content.len(), |at| {
            let mut changed = files.clone();
            changed[place].1[at] ^= 1 << (at % 8);
            let report = check(&pack(&changed));
            assert_eq!(report.verdict, Verdict::Failed, "byte {at} of {name}");
        });
    }
}

#[test]
fn any_changed_byte_of_the_zip_is_found_or_changes_nothing() {
    let good = small();
    let files = unpack(&good);
    let same = std::sync::atomic::AtomicUsize::new(0);
    for_each(good.len(), |at| {
        for bit in [1, 0x80, 1 << (at % 8)] {
            let mut bytes = good.clone();
            bytes[at] ^= bit;
            if check(&bytes).verdict == Verdict::Verified {
                assert_eq!(unpack(&bytes), files, "byte {at} of {}", good.len());
                same.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    // Times, attributes and versions of files.
    let same = same.into_inner();
    assert!(same < good.len() * 3 / 10, "{same} of {}", good.len() * 3);
}

proptest::proptest! {
    #[test]
    fn whatever_is_put_into_a_file_does_no_harm(
        place: proptest::sample::Index,
        at: proptest::sample::Index,
        removed in 0_usize..40,
        bytes: Vec<u8>,
        number in proptest::option::of(proptest::prelude::any::<i64>()),
    ) {
        static FILES: std::sync::OnceLock<Files> = std::sync::OnceLock::new();
        let good = FILES.get_or_init(|| unpack(&world().session()));
        let mut files = good.clone();
        let (_, content) = &mut files[place.index(good.len())];
        let at = at.index(content.len());
        let end = content.len().min(at + removed);
        // A number may be in the place of another one.
        let bytes = number.map_or(bytes, |number| number.to_string().into_bytes());
        content.splice(at..end, bytes);
        let verdict = check(&pack(&files)).verdict;
        assert_eq!(verdict == Verdict::Verified, files == *good);
    }

    #[test]
    fn any_numbers_do_no_harm(first: i64, last: i64, shared: i64, n: u64, id: i64) {
        let mut world = world();
        world.append(SESSION, "hostile", Vec::new(), &|entry| {
            entry.n = n.min(1 << 60);
            entry.event_range = Some(EventRange { first, last, root: Hash::of(b"root") });
            let (run_id, event_id) = ("first".into(), shared);
            entry.follows = Some(Follows { entry: None, event_id, run_id });
        });
        let item = EventItem { id, ..EventItem::default() };
        world.append(SESSION, "hostile", vec![item.clone(), item], &|_| {});
        world.follow("next", "first", 3, &["TIMER_FIRED"]);
        world.append(SESSION, "next", Vec::new(), &|entry| {
            entry.event_range = Some(EventRange { first: 5, last, root: Hash::of(b"root") });
        });
        assert_eq!(check(&world.session()).verdict, Verdict::Failed);
    }
}
