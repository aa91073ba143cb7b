//! Bundles of logs whose key was replaced: who trusts an older key is led to the one that signed.

use steadfast_ledger::bundle::{Code, Report, Verdict};
use steadfast_ledger::note::SigningKey;

use crate::check_with;
use crate::files::{pack, unpack};
use crate::world::{World, log_key, session, world};

/// A log with the keys 1, 2 and 3, one after the other.
fn rotated() -> World {
    let [first, second, third] = [1, 2, 3].map(log_key);
    let mut world = world();
    world.rotate(&first, &second, &[&first, &second]);
    world.noise(2);
    world.rotate(&second, &third, &[&second, &third]);
    world.noise(1);
    world
}

fn bundle(world: &World, key: &SigningKey) -> Vec<u8> {
    let bundle = world.bundle_with(session(), &world.checkpoint(key), key);
    bundle.expect("is written")
}

fn check(bundle: &[u8], trusted: &[u8]) -> Report {
    let keys: Vec<_> = trusted.iter().map(|seed| log_key(*seed)).collect();
    let keys: Vec<_> = keys.iter().map(|key| key.verifier().clone()).collect();
    check_with(bundle, &keys, 1)
}

/// The findings' codes, each once.
fn codes(report: &Report) -> Vec<Code> {
    let mut codes: Vec<Code> = report.findings.iter().map(|of| of.code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

#[test]
fn every_key_leads_to_the_one_that_signed() {
    let bundle = bundle(&rotated(), &log_key(3));
    for (trusted, followed) in [
        (&[1][..], &[2, 3][..]),
        (&[2], &[3]),
        (&[3], &[]),
        (&[1, 2], &[3]),
        (&[1, 2, 3], &[]),
    ] {
        let report = check(&bundle, trusted);
        assert_eq!(report.verdict, Verdict::Verified, "{trusted:?}: {report}");
        let keys = followed
            .iter()
            .map(|seed| log_key(*seed).verifier().clone());
        assert_eq!(report.followed, keys.collect::<Vec<_>>());
    }
    let report = check(&bundle, &[4]);
    assert_eq!(codes(&report), [Code::UnknownKey]);
}

#[test]
fn without_all_rotations_there_is_no_way() {
    for left in [vec![], vec![0], vec![1]] {
        let mut world = rotated();
        let rotations = left.iter().map(|at: &usize| world.rotations[*at].clone());
        world.rotations = rotations.collect();
        let report = check(&bundle(&world, &log_key(3)), &[1]);
        assert_eq!(codes(&report), [Code::UnknownKey], "{left:?}");
    }
}

#[test]
fn a_key_that_the_trusted_one_did_not_name_is_unknown() {
    let [owner, thief] = [1, 3].map(log_key);
    for signers in [vec![&thief], vec![&owner]] {
        let mut world = world();
        world.rotate(&owner, &thief, &signers);
        let report = check(&bundle(&world, &thief), &[1]);
        assert_eq!(codes(&report), [Code::UnknownKey, Code::RotationForged]);
    }
}

#[test]
fn any_changed_byte_of_a_rotation_is_found() {
    let mut world = World::default();
    let [first, second] = [1, 2].map(log_key);
    world.step("run", &["WORKFLOW_EXECUTION_STARTED"], &|_| {});
    world.rotate(&first, &second, &[&first, &second]);
    let files = unpack(&bundle(&world, &second));
    let name = "rotations/1.tlog-proof";
    let place = files.iter().position(|(of, _)| of == name);
    let place = place.expect("is there");
    for at in 0..files[place].1.len() {
        let mut changed = files.clone();
        changed[place].1[at] ^= 1 << (at % 8);
        for trusted in [1, 2] {
            let report = check(&pack(&changed), &[trusted]);
            assert_eq!(report.verdict, Verdict::Failed, "byte {at}");
        }
    }
    let mut more = files.clone();
    for name in ["rotations/2.tlog-proof", "rotations/01.tlog-proof"] {
        more.push((name.to_owned(), files[place].1.clone()));
    }
    let report = check(&pack(&more), &[1]);
    assert_eq!(codes(&report), [Code::FileUnexpected]);
}
