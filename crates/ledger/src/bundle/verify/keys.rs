//! From the keys that are trusted to those that took their place.

use std::io::{Read, Seek};

use super::archive::Archive;
use super::findings::{Code, Findings, Place};
use crate::bundle::{rotation_file, rotation_number};
use crate::note::VerifierKey;
use crate::proof::{MAX_BYTES, TlogProof};
use crate::rotation::{self, RotationError};

/// The keys that the bundle's rotations lead to from trusted ones. Rotations from before a trusted key
/// say nothing about it, and are left alone.
pub(super) fn follow<R: Read + Seek>(
    archive: &Archive<'_, R>,
    trusted: &[VerifierKey],
    findings: &Findings,
) -> Vec<VerifierKey> {
    let names = archive.names();
    let mut numbers: Vec<usize> = names.iter().filter_map(|of| rotation_number(of)).collect();
    numbers.sort_unstable();
    let mut followed = Vec::new();
    for name in numbers.into_iter().map(rotation_file) {
        let Some(bytes) = archive.read_all(&name, MAX_BYTES as u64) else {
            continue;
        };
        let add = |code, error: String| findings.add(code, Place::file(&name), error);
        let proof = match TlogProof::parse(bytes) {
            Ok(proof) => proof,
            Err(error) => {
                add(Code::FileMalformed, error.to_string());
                continue;
            }
        };
        let mut next = None;
        for key in trusted.iter().chain(&followed) {
            match rotation::verify(&proof, key) {
                Ok(key) => next = Some(key),
                Err(RotationError::OtherKey(_)) => {}
                Err(error) => add(Code::RotationForged, error.to_string()),
            }
        }
        followed.extend(next.filter(|key| !trusted.contains(key)));
    }
    followed
}
