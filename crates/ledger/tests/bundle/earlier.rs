//! Who kept an earlier checkpoint finds out whether the log still extends it.

use std::io::Cursor;

use steadfast_ledger::bundle::{Code, Limits, Report, Trust, verify};
use steadfast_ledger::checkpoint::Checkpoint;
use steadfast_ledger::note::{Note, SigningKey};

use crate::world::{World, log_key, session, world};

fn check(bundle: &[u8], earlier: &str) -> Report {
    let trust = Trust {
        log: &[log_key(1).verifier().clone()],
        earlier: Some(earlier.as_bytes()),
        ..Trust::default()
    };
    verify(Cursor::new(bundle), &trust, &Limits::default())
}

#[track_caller]
fn assert_only(report: &Report, code: Code) {
    let codes: Vec<Code> = report.findings.iter().map(|of| of.code).collect();
    assert_eq!(codes, [code], "{report}");
}

/// The world as it was, and as it is now.
fn grown() -> (World, World) {
    let before = world();
    let mut now = before.clone();
    now.noise(9);
    (before, now)
}

#[test]
fn a_log_that_grew_extends_its_earlier_checkpoint() {
    let (before, mut now) = grown();
    let earlier = before.checkpoint(&log_key(1));
    assert_only(&check(&now.session(), &earlier), Code::ConsistencyMissing);
    now.earlier = Some(before.log.len() as u64 - 1);
    assert_only(&check(&now.session(), &earlier), Code::ConsistencyMissing);
    now.earlier = Some(before.log.len() as u64);
    let report = check(&now.session(), &earlier);
    assert_eq!(report.total, 0, "{report}");
    // The same one needs no proof.
    let report = check(&before.session(), &earlier);
    assert_eq!(report.total, 0, "{report}");
}

#[test]
fn a_log_that_was_rolled_back_is_named() {
    let (before, now) = grown();
    let earlier = now.checkpoint(&log_key(1));
    assert_only(&check(&before.session(), &earlier), Code::LogRolledBack);
}

#[test]
fn a_log_with_another_past_is_named() {
    let (before, mut now) = grown();
    let mut other = before.clone();
    other.log[1].push(b' ');
    let earlier = other.checkpoint(&log_key(1));
    assert_only(&check(&before.session(), &earlier), Code::LogForked);
    now.earlier = Some(before.log.len() as u64);
    assert_only(&check(&now.session(), &earlier), Code::LogForked);
}

#[test]
fn an_earlier_checkpoint_is_not_believed_either() {
    let (before, _) = grown();
    let stranger = before.checkpoint(&log_key(5));
    for earlier in [&stranger, "nothing"] {
        assert_only(&check(&before.session(), earlier), Code::EarlierUnknown);
    }
}

/// The bundle of a log that has another name.
fn named(world: &World, name: &str, key: &SigningKey) -> Vec<u8> {
    let key = key.renamed(name).expect("is a name");
    let text = Note::parse(world.checkpoint(&log_key(1))).expect("a note");
    let mut checkpoint = Checkpoint::parse(text.text()).expect("a checkpoint");
    checkpoint.origin = name.to_owned();
    let signed = checkpoint.sign(&[&key]).expect("is signed");
    let bundle = world.bundle_with(session(), &signed, &key);
    bundle.expect("is written")
}

#[test]
fn a_log_that_was_begun_anew_is_named() {
    let earlier = world().checkpoint(&log_key(1));
    let first = log_key(1).name().to_owned();
    let codes = |bundle: &[u8]| -> Vec<Code> {
        let report = check(bundle, &earlier);
        report.findings.iter().map(|of| of.code).collect()
    };
    let anew = named(&world(), &format!("{first}~2"), &log_key(1));
    assert!(codes(&anew).contains(&Code::LogRolledBack));
    // That is only for the key's owner to say.
    for (name, seed) in [("~2", 5), ("~1", 1), ("~x", 1), ("/other", 1)] {
        let other = named(&world(), &format!("{first}{name}"), &log_key(seed));
        let codes = codes(&other);
        assert!(codes.contains(&Code::UnknownKey), "{name}: {codes:?}");
        assert!(!codes.contains(&Code::LogRolledBack), "{name}: {codes:?}");
    }
}
