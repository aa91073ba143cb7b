//! Whether a log is still the one that was seen before.

use std::io::{Read, Seek};

use super::archive::Archive;
use super::findings::{Code, Findings, Place};
use crate::bundle::CONSISTENCY;
use crate::checkpoint::{Checkpoint, parse_decimal};
use crate::note::{Note, VerifierKey};
use crate::tree::verify_consistency;
use crate::{Hash, checkpoint};

/// No proof is longer than two hashes for each level of the highest tree.
const MAX_BYTES: u64 = 16 << 10;

/// Compares the checkpoint of a bundle with one that was kept from before.
pub(super) fn compare<R: Read + Seek>(
    archive: &Archive<'_, R>,
    now: &Checkpoint,
    earlier: &[u8],
    keys: &[VerifierKey],
    findings: &Findings,
) {
    let add = |code, detail: String| findings.add(code, Place::file(super::CHECKPOINT), detail);
    let before = match Checkpoint::open(earlier, keys) {
        Ok(opened) => opened.checkpoint,
        Err(error) => {
            let detail = format!("the earlier checkpoint: {error}");
            return add(Code::EarlierUnknown, detail);
        }
    };
    if before.origin != now.origin {
        let detail = format!("the earlier checkpoint is of the log {}", before.origin);
        return add(Code::EarlierUnknown, detail);
    }
    if before.size > now.size {
        let detail = format!("it has {} entries, and had {}", now.size, before.size);
        return add(Code::LogRolledBack, detail);
    }
    let forked = || {
        let size = before.size;
        format!("its first {size} entries are not those that it had at the earlier checkpoint")
    };
    if before.size == now.size {
        if before.root != now.root {
            add(Code::LogForked, forked());
        }
        return;
    }
    match proof(archive, before.size) {
        Ok(Some(hashes)) => {
            let (old, new) = ((before.size, &before.root), (now.size, &now.root));
            if verify_consistency(old.0, old.1, new.0, new.1, &hashes).is_err() {
                add(Code::LogForked, forked());
            }
        }
        Ok(None) => {
            let detail = "nothing in the bundle proves that the log extends the earlier checkpoint: \
                          export it with that one";
            add(Code::ConsistencyMissing, detail.to_owned());
        }
        Err(detail) => {
            findings.add(Code::FileMalformed, Place::file(CONSISTENCY), detail);
        }
    }
}

/// The proof in the bundle; none if there is none, or one from another size.
fn proof<R: Read + Seek>(
    archive: &Archive<'_, R>,
    size: u64,
) -> Result<Option<Vec<Hash>>, &'static str> {
    let Some(bytes) = archive.read_all(CONSISTENCY, MAX_BYTES) else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|_| "it is no text")?;
    let mut lines = text.lines();
    let from = lines.next().and_then(parse_decimal);
    if from.ok_or("it does not begin with a size")? != size {
        return Ok(None);
    }
    let hashes = lines.map(|line| line.parse::<Hash>());
    let hashes: Result<_, _> = hashes.collect();
    hashes
        .map(Some)
        .map_err(|_| "one of its lines is not a hash")
}

/// Whether a trusted key signed the checkpoint of a log that was begun anew in the place of the trusted
/// one: a server does that when its store turns out to be an older copy.
pub(super) fn is_begun_anew(note: &Note, checkpoint: &Checkpoint, keys: &[VerifierKey]) -> bool {
    let origin = &checkpoint.origin;
    keys.iter().any(|key| {
        let (base, generation) = checkpoint::generation(key.name());
        let (base_now, generation_now) = checkpoint::generation(origin);
        let renamed = key.renamed(origin);
        base == base_now
            && generation < generation_now
            && renamed.is_ok_and(|key| Checkpoint::open_note(note.clone(), &[key]).is_ok())
    })
}
