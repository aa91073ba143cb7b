//! Bundles are verified, and whatever is changed in one is found and named.

mod bytes;
mod decisions;
mod earlier;
mod files;
mod rotated;
mod tampering;
mod verified;
mod world;

use std::io::Cursor;

use steadfast_ledger::bundle::{Code, Limits, Report, Trust, Verdict, verify};
use steadfast_ledger::note::VerifierKey;

use world::{log_key, witness};

fn check(bundle: &[u8]) -> Report {
    check_with(bundle, &[log_key(1).verifier().clone()], 1)
}

fn check_with(bundle: &[u8], log: &[VerifierKey], quorum: usize) -> Report {
    let witnesses = [witness().verifier().clone()];
    let trust = Trust {
        log,
        witnesses: &witnesses,
        quorum,
        earlier: None,
    };
    verify(Cursor::new(bundle), &trust, &Limits::default())
}

/// Asserts that a finding with a code names a place.
#[track_caller]
fn assert_found(bundle: &[u8], code: Code, place: &str) {
    let report = check(bundle);
    assert_eq!(report.verdict, Verdict::Failed);
    let found = report
        .findings
        .iter()
        .any(|finding| finding.code == code && finding.place.to_string().contains(place));
    assert!(found, "no {code} at {place} in:\n{report}");
}

#[track_caller]
fn assert_verified(bundle: &[u8]) -> Report {
    let report = check(bundle);
    assert_eq!(report.verdict, Verdict::Verified, "{report}");
    report
}
