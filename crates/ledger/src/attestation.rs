//! Attestations: somebody's signed statement that a workflow type was proved to be resumable, or not.
//!
//! An in-toto Statement v1 in a DSSE envelope. Its subject is the worker that was tried. `docs/prove.md` has the
//! format.

use serde::{Deserialize, Serialize};

use crate::Hash;
use crate::dsse::{self, STATEMENT_TYPE};
pub use crate::dsse::{Digest, Subject};
use crate::entry::Time;
use crate::note::{SigningKey, VerifierKey};

/// What the predicate is.
pub const PREDICATE_TYPE: &str = "https://steadfast.dev/prove/v1";

/// Largest envelope, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;

/// Longest text in it, in bytes.
const MAX_TEXT: usize = 10_000;

/// What was tried, and what came out: the predicate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Attestation {
    /// The type of the workflow.
    pub workflow_type: String,
    /// The command that started its worker.
    pub worker: String,
    /// Whether it was resumable, as far as it was tried.
    pub verdict: Verdict,
    /// The kinds of things that were done to it.
    pub faults: Vec<String>,
    /// Places of a run at which that was done.
    pub boundaries: u64,
    /// All that there was to try.
    pub points: u64,
    /// What was tried of it.
    pub tried: u64,
    /// What was tried and came to its place.
    pub reached: u64,
    /// What chose what was tried.
    pub seed: u64,
    /// Kinds of failures that were found, each once.
    pub failures: Vec<String>,
    /// When it was over.
    pub finished: Time,
    /// The program that tried it, and its version.
    pub prover: String,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing that was tried changed what it does.
    Resumable,
    /// Something did.
    NotResumable,
}

/// An attestation that somebody signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What they say.
    pub attestation: Attestation,
    /// The worker that it is about: its name and SHA-256.
    pub subject: Subject,
    /// Name and id of the key that signed.
    pub key: String,
    /// SHA-256 of the envelope.
    pub digest: Hash,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Attestation,
}

/// Why an attestation is not believed.
#[derive(Debug, thiserror::Error)]
pub enum AttestationError {
    /// It is not one.
    #[error("not an attestation: {0}")]
    Malformed(String),
    /// It was signed by nobody who is trusted, or not at all.
    #[error("{0}")]
    Untrusted(String),
}

/// The worker that a command starts: its digest is that of the command.
pub fn worker_command(command: &str) -> Subject {
    Subject {
        name: "worker command".to_owned(),
        digest: Digest {
            sha256: dsse::hex(&Hash::of(command.as_bytes())),
        },
    }
}

/// The worker in an image, written as `name@sha256:digest`.
pub fn image(reference: &str) -> Result<Subject, AttestationError> {
    let malformed = || AttestationError::Malformed("an image is name@sha256:digest".to_owned());
    let (name, sha256) = reference.split_once("@sha256:").ok_or_else(malformed)?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if name.is_empty() || sha256.len() != 64 || !sha256.bytes().all(is_digit) {
        return Err(malformed());
    }
    Ok(Subject {
        name: name.to_owned(),
        digest: Digest {
            sha256: sha256.to_owned(),
        },
    })
}

impl Attestation {
    /// The envelope with the statement about a worker.
    pub fn sign(&self, subject: Subject, key: &SigningKey) -> Result<Vec<u8>, AttestationError> {
        let malformed = |error: serde_json::Error| AttestationError::Malformed(error.to_string());
        let statement = Statement {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: vec![subject],
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: self.clone(),
        };
        let payload = serde_json::to_vec(&statement).map_err(malformed)?;
        dsse::sign(&payload, key).map_err(malformed)
    }

    /// Reads an envelope that one of the keys signed.
    pub fn open<'a>(
        bytes: &[u8],
        keys: impl IntoIterator<Item = &'a VerifierKey>,
    ) -> Result<Signed, AttestationError> {
        let malformed = |why: &str| AttestationError::Malformed(why.to_owned());
        if bytes.len() > MAX_BYTES {
            return Err(malformed("it is too large"));
        }
        let (payload, key) = dsse::open(bytes, keys).map_err(|error| match error {
            dsse::EnvelopeError::Malformed(_) => AttestationError::Malformed(error.to_string()),
            _ => AttestationError::Untrusted(error.to_string()),
        })?;
        let statement: Statement = serde_json::from_slice(&payload)
            .map_err(|error| AttestationError::Malformed(error.to_string()))?;
        if statement.statement_type != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE
        {
            return Err(malformed("it is a statement of another type"));
        }
        let Ok([subject]) = <[Subject; 1]>::try_from(statement.subject) else {
            return Err(malformed("one subject is expected"));
        };
        let attestation = statement.predicate;
        let texts = [
            &attestation.workflow_type,
            &attestation.worker,
            &subject.name,
        ];
        if attestation.workflow_type.is_empty() || texts.iter().any(|of| of.len() > MAX_TEXT) {
            return Err(malformed("a name is empty, or too long"));
        }
        Ok(Signed {
            attestation,
            subject,
            key: dsse::key_id(key),
            digest: Hash::of(bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> SigningKey {
        SigningKey::new(name, [7; 32]).expect("a key")
    }

    fn attestation() -> Attestation {
        Attestation {
            workflow_type: "RefundAgent".into(),
            worker: "python worker.py".into(),
            verdict: Verdict::Resumable,
            faults: vec!["worker_before".into()],
            boundaries: 5,
            points: 31,
            tried: 31,
            reached: 31,
            seed: 1,
            failures: Vec::new(),
            finished: Time(1_700_000_000_000_000_000),
            prover: "steadfast 0.1.0".into(),
        }
    }

    #[test]
    fn only_what_a_trusted_key_signed_is_read() {
        let subject = worker_command("python worker.py");
        let signer = key("ci.example");
        let bytes = attestation().sign(subject.clone(), &signer).expect("signs");
        let signed = Attestation::open(&bytes, [signer.verifier()]).expect("is read");
        assert_eq!(signed.attestation, attestation());
        assert_eq!(signed.subject, subject);
        assert!(signed.key.starts_with("ci.example+"));
        let untrusted = |bytes: &[u8], keys: &[&VerifierKey]| {
            let opened = Attestation::open(bytes, keys.iter().copied());
            matches!(opened, Err(AttestationError::Untrusted(_)))
        };
        assert!(untrusted(&bytes, &[]));
        assert!(untrusted(&bytes, &[key("other.example").verifier()]));
        // Another key of the same name has another id; of the same id, another signature.
        let other = SigningKey::new("ci.example", [8; 32]).expect("a key");
        assert!(untrusted(&bytes, &[other.verifier()]));
        let text = String::from_utf8(bytes.clone()).expect("is text");
        let at = text.find("\"sig\":\"").expect("a signature") + 8;
        let letter = if &text[at..=at] == "A" { "B" } else { "A" };
        let forged = format!("{}{letter}{}", &text[..at], &text[at + 1..]);
        assert!(untrusted(forged.as_bytes(), &[signer.verifier()]));
        // Written otherwise, it is not the same file.
        let spaced = text.replacen(':', ": ", 1);
        for wrong in [spaced.as_bytes(), b"{}", b"", &vec![b' '; MAX_BYTES + 1]] {
            let opened = Attestation::open(wrong, [signer.verifier()]);
            assert!(matches!(opened, Err(AttestationError::Malformed(_))));
        }
    }

    #[test]
    fn other_statements_are_refused() {
        let signer = key("ci.example");
        let subject = serde_json::json!([{"name": "a", "digest": {"sha256": "0"}}]);
        let predicate = serde_json::to_value(attestation()).expect("is JSON");
        let statement = |kind: &str, subject: &serde_json::Value| {
            let statement = serde_json::json!({
                "_type": STATEMENT_TYPE, "subject": subject, "predicateType": kind, "predicate": predicate,
            });
            let bytes = dsse::sign(statement.to_string().as_bytes(), &signer).expect("signs");
            Attestation::open(&bytes, [signer.verifier()])
        };
        assert!(statement(PREDICATE_TYPE, &subject).is_ok());
        assert!(statement(crate::bundle::PREDICATE_TYPE, &subject).is_err());
        assert!(statement(PREDICATE_TYPE, &serde_json::json!([])).is_err());
    }

    #[test]
    fn images_have_digests() {
        let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let of = image(&format!("registry.example/agent@sha256:{digest}")).expect("an image");
        assert_eq!(of.name, "registry.example/agent");
        for wrong in [
            "agent:latest",
            "agent@sha256:00",
            &format!("@sha256:{digest}"),
        ] {
            assert!(image(wrong).is_err());
        }
    }
}
