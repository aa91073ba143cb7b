//! Bundles of every scope are verified; the writer makes no others.

use std::io::Cursor;

use steadfast_ledger::bundle::{
    BundleError, BundleWriter, Claim, Code, Head, Limits, Scope, Trust, verify,
};
use steadfast_ledger::entry::Time;

use crate::files::{pack, unpack};
use crate::world::{World, log_key, session, witness, world};
use crate::{assert_verified, check_with};

#[test]
fn a_session_is_verified() {
    let report = assert_verified(&world().session());
    let manifest = report.manifest.expect("is there");
    let claims: Vec<(&str, Claim, Option<u64>)> = manifest
        .runs
        .iter()
        .map(|run| (run.run_id.as_str(), run.claim, run.events))
        .collect();
    let expected = [
        ("first", Claim::Complete, Some(12)),
        ("second", Claim::AsOf, Some(2)),
        ("third", Claim::Complete, Some(11)),
        ("erased", Claim::AsOf, Some(2)),
        ("deleted", Claim::Complete, None),
    ];
    assert_eq!(claims, expected);
    assert!(manifest.runs[3].erased && manifest.runs[4].deleted);
    assert_eq!(manifest.counts.notes, 1);
    assert_eq!(report.witnesses.len(), 1);
    assert_eq!(report.unchecked, Vec::<String>::new());
    assert_verified(&pack(&unpack(&world().session())));
}

#[test]
fn the_files_are_in_their_order() {
    let names: Vec<String> = unpack(&world().session())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let expected = [
        "README.txt",
        "checkpoint",
        "entries.jsonl",
        "tree.jsonl",
        "history/first.binpb",
        "history/first.payloads.jsonl",
        "history/second.binpb",
        "history/second.payloads.jsonl",
        "history/third.binpb",
        "history/third.payloads.jsonl",
        "history/erased.binpb",
        "history/erased.payloads.jsonl",
        "report.html",
        "manifest.json",
        "statement.dsse.json",
    ];
    assert_eq!(names, expected);
}

#[test]
fn the_same_bundle_twice_has_the_same_bytes() {
    assert_eq!(world().session(), world().session());
}

#[test]
fn parts_of_the_log_are_verified() {
    let world = world();
    let size = world.log.len() as u64;
    for (from, to) in [(0, size), (0, 1), (5, 12), (size - 3, size)] {
        let report = assert_verified(&world.bundle(Scope::Range { from, to }));
        let counts = report.manifest.expect("is there").counts;
        assert_eq!(counts.entries, to - from);
    }
    for at in 0..size {
        let (from, to) = (at, at + 1);
        assert_verified(&world.bundle(Scope::Range { from, to }));
    }
}

#[test]
fn what_a_principal_did_is_verified() {
    let mut world = world();
    world.step("second", &["TIMER_STARTED"], &|entry| {
        entry.cause.principal = "bob".into();
    });
    let scope = Scope::Principal {
        principal: "bob".into(),
    };
    let report = assert_verified(&world.bundle(scope));
    let runs = report.manifest.expect("is there").runs;
    assert_eq!(runs.len(), 1);
    assert_eq!((runs[0].entries, runs[0].last_entry), (1, 3));
    assert_eq!((runs[0].claim, runs[0].events), (Claim::Partial, None));
}

#[test]
fn witnesses_are_counted() {
    let bundle = world().session();
    let key = log_key(1).verifier().clone();
    let report = check_with(&bundle, std::slice::from_ref(&key), 2);
    let codes: Vec<Code> = report.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [Code::WitnessesMissing]);
    // A witness with two names is one.
    let renamed = witness().verifier().renamed("other").expect("is a name");
    let witnesses = [witness().verifier().clone(), renamed];
    let trust = Trust {
        log: &[key],
        witnesses: &witnesses,
        quorum: 2,
        earlier: None,
    };
    let report = verify(Cursor::new(&bundle), &trust, &Limits::default());
    assert_eq!(report.findings[0].code, Code::WitnessesMissing);
}

#[test]
fn nothing_of_clients_is_markup_in_the_report() {
    let files = unpack(&world().session());
    let (_, page) = files
        .iter()
        .find(|(name, _)| name == "report.html")
        .expect("is there");
    let page = String::from_utf8(page.clone()).expect("is a text");
    for hostile in ["<script", "<b>why", "<i>this", "http://", "https://"] {
        assert!(!page.contains(hostile), "{hostile}");
    }
    for shown in [
        "pay&lt;script&gt;",
        "application/Declined",
        "The run completed",
        "was deleted",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
}

#[test]
fn the_writer_refuses_what_would_not_verify() {
    let world = world();
    let key = log_key(1);
    let checkpoint = world.checkpoint(&key);
    let writer = || {
        let head = Head {
            namespace: "default",
            scope: session(),
            made: Time(0),
            checkpoint: &checkpoint,
            consistency: None,
            rotations: &[],
            log_keys: &[],
            witness_keys: &[],
        };
        let spools = [Cursor::new(Vec::new()), Cursor::new(Vec::new())];
        BundleWriter::new(Vec::new(), spools, head).expect("begins")
    };
    let entry = |index: usize| &world.log[index];
    assert!(matches!(writer().finish(&key), Err(BundleError::Empty)));
    assert!(writer().entry(0, b"{}", &[]).is_err());
    let mut bundle = writer();
    bundle.entry(6, entry(6), &[]).expect("is written");
    assert!(matches!(
        bundle.entry(4, entry(4), &[]),
        Err(BundleError::Order(4))
    ));
    // Not all of its entries are there.
    assert!(matches!(
        bundle.begin_history("first"),
        Err(BundleError::History(_))
    ));
    let mut bundle = writer();
    bundle.entry(4, entry(4), &[]).expect("is written");
    bundle.begin_history("first").expect("begins");
    for event in &world.histories["first"][..2] {
        bundle.event(&event.bytes, &event.payloads).expect("fits");
    }
    assert!(matches!(
        bundle.event(b"", &[]),
        Err(BundleError::Unaccounted { event_id: 3, .. })
    ));
    assert!(bundle.entry(6, entry(6), &[]).is_err());
    let mut path = World::default();
    path.step("../../etc/passwd", &[], &|_| {});
    assert!(matches!(
        path.bundle_with(session(), &path.checkpoint(&key), &key),
        Err(BundleError::RunId(_))
    ));
}
