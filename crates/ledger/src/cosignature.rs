//! Cosignatures: a witness says that, at some time, a checkpoint was the newest that it saw of a log
//! and extended all that it saw before. C2SP `tlog-cosignature`, "Ed25519 signed message".

use std::fmt;

use crate::note::{KeyType, NoteError, SecretKey, Signature, VerifierKey};

/// The last time that can be written.
const MAX_TIMESTAMP: u64 = i64::MAX as u64;

/// A secret key that cosigns checkpoints.
#[derive(Clone)]
pub struct CosigningKey(SecretKey);

impl CosigningKey {
    /// The key that is made of a seed.
    pub fn new(name: &str, seed: [u8; 32]) -> Result<Self, NoteError> {
        Ok(Self(SecretKey::new(name, KeyType::Cosignature, seed)?))
    }

    /// Reads what [`CosigningKey::encode`] writes.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        Ok(Self(SecretKey::parse(text, KeyType::Cosignature)?))
    }

    /// The key as text, secret and all, in the format that Go's tools use.
    pub fn encode(&self) -> String {
        self.0.encode()
    }

    /// The public key.
    pub fn verifier(&self) -> &VerifierKey {
        &self.0.verifier
    }

    /// Cosigns the text of a checkpoint, at a time in seconds since the epoch.
    pub fn cosign(&self, text: &str, time_s: u64) -> Result<Signature, NoteError> {
        if !(1..=MAX_TIMESTAMP).contains(&time_s) {
            return Err(NoteError::Malformed("its time is none, or too late"));
        }
        let signature = self.0.sign(message(text, time_s).as_bytes());
        let bytes = [&time_s.to_be_bytes()[..], &signature].concat();
        Ok(self.0.signature(bytes))
    }
}

impl fmt::Debug for CosigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CosigningKey({})", self.0.verifier)
    }
}

/// Verifies a cosignature of the text of a checkpoint, and gives its time in seconds since the epoch.
pub fn verify_cosignature(
    key: &VerifierKey,
    text: &str,
    signature: &Signature,
) -> Result<u64, NoteError> {
    let time_s = match key.key_type() {
        KeyType::Cosignature if key.is_named_by(signature) => verify(key, text, &signature.bytes),
        _ => None,
    };
    time_s.ok_or_else(|| NoteError::WrongSignature {
        name: key.name().to_owned(),
        id: key.id(),
    })
}

pub(crate) fn verify(key: &VerifierKey, text: &str, bytes: &[u8]) -> Option<u64> {
    let (time_s, signature) = bytes.split_first_chunk()?;
    let time_s = u64::from_be_bytes(*time_s);
    let is_valid =
        time_s <= MAX_TIMESTAMP && key.verify_bytes(message(text, time_s).as_bytes(), signature);
    is_valid.then_some(time_s)
}

fn message(text: &str, time_s: u64) -> String {
    format!("cosignature/v1\ntime {time_s}\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::{Note, SigningKey};

    const TEXT: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    fn key(seed: u8) -> CosigningKey {
        CosigningKey::new("witness.example/w1", [seed; 32]).expect("is a name")
    }

    #[test]
    fn the_message_of_the_specification() {
        let expected = format!("cosignature/v1\ntime 1679315147\n{TEXT}");
        assert_eq!(message(TEXT, 1_679_315_147), expected);
    }

    #[test]
    fn the_signature_line_of_the_specification() {
        let line = "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==";
        let signature = Signature::parse(line).expect("is a line");
        assert_eq!(signature.bytes.len(), 8 + 64);
        assert_eq!(signature.bytes[..8], 1_679_315_147u64.to_be_bytes());
        assert_eq!(signature.to_string(), line);
    }

    #[test]
    fn cosignatures_verify_and_give_their_time() {
        let key = key(1);
        let signature = key.cosign(TEXT, 1_679_315_147).expect("is signed");
        let verified = verify_cosignature(key.verifier(), TEXT, &signature);
        assert_eq!(verified, Ok(1_679_315_147));
        for bit in 0..signature.bytes.len() * 8 {
            let mut wrong = signature.clone();
            wrong.bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                verify_cosignature(key.verifier(), TEXT, &wrong).is_err(),
                "bit {bit}"
            );
        }
        for length in 0..signature.bytes.len() {
            let mut wrong = signature.clone();
            wrong.bytes.truncate(length);
            assert!(
                verify_cosignature(key.verifier(), TEXT, &wrong).is_err(),
                "{length}"
            );
        }
        let other = TEXT.replace("20852163", "20852164");
        assert!(verify_cosignature(key.verifier(), &other, &signature).is_err());
    }

    #[test]
    fn notes_count_cosignatures() {
        let (log, witness) = (
            SigningKey::new("example.com/behind-the-sofa", [9; 32]).expect("is a name"),
            key(1),
        );
        let mut note = Note::sign(TEXT, &[&log]).expect("is signed");
        let cosignature = witness.cosign(TEXT, 1).expect("is signed");
        note.add(cosignature.clone()).expect("is added");
        let keys = [log.verifier().clone(), witness.verifier().clone()];
        assert_eq!(note.verify(&keys).map(|keys| keys.len()), Ok(2));
        let mut wrong = cosignature;
        wrong.bytes[7] ^= 1;
        note.add(wrong).expect("is added");
        assert!(note.verify(&keys).is_err());
        assert_eq!(note.verify(&keys[..1]).map(|keys| keys.len()), Ok(1));
    }

    #[test]
    fn the_types_do_not_mix() {
        let (witness, log) = (
            key(1),
            SigningKey::new("witness.example/w1", [1; 32]).expect("is a name"),
        );
        assert_ne!(witness.verifier().id(), log.verifier().id());
        // The same secret, and a signature of the bare text under the witness's name and id.
        let mut forged = Note::sign(TEXT, &[&log]).expect("is signed").signatures()[0].clone();
        forged.key_id = witness.verifier().id();
        assert!(verify_cosignature(witness.verifier(), TEXT, &forged).is_err());
        assert!(verify_cosignature(log.verifier(), TEXT, &forged).is_err());
        assert!(SigningKey::parse(&witness.encode()).is_err());
        assert!(CosigningKey::parse(&log.encode()).is_err());
        let read = CosigningKey::parse(&witness.encode()).expect("is a key");
        assert_eq!(read.verifier(), witness.verifier());
        assert!(!format!("{witness:?}").contains("PRIVATE"));
    }

    #[test]
    fn times_have_63_bits() {
        let key = key(1);
        assert!(key.cosign(TEXT, 1 << 63).is_err());
        assert!(key.cosign(TEXT, 0).is_err());
        let last = key.cosign(TEXT, MAX_TIMESTAMP).expect("is signed");
        let verified = verify_cosignature(key.verifier(), TEXT, &last);
        assert_eq!(verified, Ok(MAX_TIMESTAMP));
    }
}
