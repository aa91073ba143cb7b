//! The way from a key that is trusted to the one that took its place.
//!
//! A rotation is a `tlog-proof` of the entry that names the new key, with the entry itself in it. Its
//! checkpoint is signed by both keys. That both signed is not enough: anybody can put a signature of
//! their own under a checkpoint. What binds the new key is that the old one signed a tree in which the
//! log names it.

use crate::Entry;
use crate::note::VerifierKey;
use crate::proof::{TlogProof, TlogProofError};

/// What the entry says that it is.
pub const KEY_CHANGED: &str = "evidence/key-changed";

const ARROW: &str = " -> ";

/// Why a rotation does not lead from a trusted key to another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// Not a proof, or a wrong one.
    #[error(transparent)]
    Proof(#[from] TlogProofError),
    /// The entry that was proved does not name a key.
    #[error("the entry does not change a key: {0}")]
    Entry(String),
    /// It begins with another key than the one that is trusted.
    #[error("it begins with the key {0}, which is not the trusted one")]
    OtherKey(String),
    /// One of the keys did not sign the checkpoint.
    #[error("{0} did not sign the checkpoint")]
    NotSigned(String),
}

/// What the entry says of a change, for a reader and for [`verify`].
pub fn detail(from: &str, to: &str) -> String {
    format!("{from}{ARROW}{to}")
}

/// The keys that an entry's detail names: the old one, the new one.
pub fn parse_detail(detail: &str) -> Option<(VerifierKey, VerifierKey)> {
    let (from, to) = detail.split_once(ARROW)?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// Verifies one rotation, and gives the key that may be trusted from here on.
pub fn verify(rotation: &TlogProof, trusted: &VerifierKey) -> Result<VerifierKey, RotationError> {
    let entry =
        Entry::parse(&rotation.extra).map_err(|error| RotationError::Entry(error.to_string()))?;
    let note = entry
        .note
        .filter(|note| note.what == KEY_CHANGED)
        .ok_or_else(|| RotationError::Entry("it is about something else".into()))?;
    let (from, to) = parse_detail(&note.detail)
        .filter(|(from, to)| from.name() == to.name())
        .ok_or_else(|| RotationError::Entry("it does not name two keys of one log".into()))?;
    if from != *trusted {
        return Err(RotationError::OtherKey(from.to_string()));
    }
    let keys = [from, to];
    let opened = rotation.verify(&rotation.extra, &keys)?;
    if let Some(key) = keys.iter().find(|key| !opened.log_keys.contains(key)) {
        return Err(RotationError::NotSigned(key.to_string()));
    }
    let [_, to] = keys;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hash;
    use crate::checkpoint::Checkpoint;
    use crate::entry::{Cause, Note as EntryNote, VERSION};
    use crate::note::{Note, SigningKey};

    fn key(seed: u8) -> SigningKey {
        SigningKey::new("example.com/log", [seed; 32]).expect("is a name")
    }

    fn entry(what: &str, detail: &str) -> Vec<u8> {
        let mut out = String::new();
        let entry = Entry {
            cause: Cause {
                call: "internal/evidence".into(),
                principal: "steadfast".into(),
                ..Cause::default()
            },
            n: 1,
            note: Some(EntryNote {
                what: what.into(),
                detail: detail.into(),
                ..EntryNote::default()
            }),
            ns: "default".into(),
            v: VERSION,
            ..Entry::default()
        };
        entry.write(&mut out);
        out.into_bytes()
    }

    /// A rotation in a log of this one entry.
    fn rotation(entry: Vec<u8>, signers: &[&SigningKey]) -> TlogProof {
        let checkpoint = Checkpoint {
            origin: "example.com/log".into(),
            size: 1,
            root: Hash::leaf(&entry),
            extensions: Vec::new(),
        };
        let signed = checkpoint.sign(signers).expect("is signed");
        TlogProof {
            extra: entry,
            index: 0,
            hashes: Vec::new(),
            checkpoint: Note::parse(signed).expect("is a note"),
        }
    }

    fn named(from: &SigningKey, to: &SigningKey) -> Vec<u8> {
        let detail = detail(&from.verifier().to_string(), &to.verifier().to_string());
        entry(KEY_CHANGED, &detail)
    }

    #[test]
    fn the_old_key_leads_to_the_new_one() {
        let (old, new) = (key(1), key(2));
        let rotation = rotation(named(&old, &new), &[&old, &new]);
        assert_eq!(
            verify(&rotation, old.verifier()).as_ref(),
            Ok(new.verifier())
        );
        let again = TlogProof::parse(rotation.to_string()).expect("parses");
        assert_eq!(verify(&again, old.verifier()).as_ref(), Ok(new.verifier()));
    }

    #[test]
    fn both_keys_must_have_signed() {
        let (old, new) = (key(1), key(2));
        let by_old = rotation(named(&old, &new), &[&old]);
        let error = verify(&by_old, old.verifier()).expect_err("is refused");
        assert_eq!(error, RotationError::NotSigned(new.verifier().to_string()));
        let by_new = rotation(named(&old, &new), &[&new]);
        let error = verify(&by_new, old.verifier()).expect_err("is refused");
        assert_eq!(error, RotationError::NotSigned(old.verifier().to_string()));
    }

    #[test]
    fn a_signature_that_somebody_added_leads_nowhere() {
        let (old, new, thief) = (key(1), key(2), key(3));
        // The log names the new key. The thief signs the checkpoint, too, and shows its own entry.
        let mut stolen = rotation(named(&old, &new), &[&old, &thief]);
        let error = verify(&stolen, old.verifier()).expect_err("is refused");
        assert!(matches!(error, RotationError::NotSigned(_)), "{error}");
        stolen.extra = named(&old, &thief);
        let error = verify(&stolen, old.verifier()).expect_err("is refused");
        assert!(
            matches!(error, RotationError::Proof(TlogProofError::Proof(_))),
            "{error}"
        );
    }

    #[test]
    fn it_must_be_about_the_trusted_key_of_this_log() {
        let (old, new, other) = (key(1), key(2), key(3));
        let good = rotation(named(&old, &new), &[&old, &new]);
        let error = verify(&good, other.verifier()).expect_err("is refused");
        assert_eq!(error, RotationError::OtherKey(old.verifier().to_string()));
        let renamed = new.renamed("example.com/other").expect("is a name");
        for entry in [
            entry("evidence/log-restarted", "x"),
            entry(KEY_CHANGED, "x -> y"),
            entry(KEY_CHANGED, &old.verifier().to_string()),
            named(&old, &renamed),
            b"{}".to_vec(),
        ] {
            let error = verify(&rotation(entry, &[&old, &new]), old.verifier());
            let error = error.expect_err("is refused");
            assert!(matches!(error, RotationError::Entry(_)), "{error}");
        }
    }
}
