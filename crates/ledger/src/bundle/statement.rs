//! The statement: in-toto Statement v1 in a DSSE envelope.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::PREDICATE_TYPE;
use super::manifest::Summary;
use crate::Hash;
use crate::note::{SigningKey, VerifierKey};

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// What is stated: that a bundle of these files is the one that the predicate is about.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    pub predicate: Summary,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: Digest,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Digest {
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    keyid: String,
    sig: String,
}

/// Why a statement cannot be believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatementError {
    #[error("not a DSSE envelope with one signature, as it is written here: {0}")]
    Envelope(String),
    #[error("not an in-toto statement about a bundle: {0}")]
    Statement(String),
    #[error("signed by {0}, which is not a trusted key of the log")]
    UnknownKey(String),
    #[error("the signature by {0} is wrong")]
    Signature(String),
}

impl Statement {
    pub fn new(files: &[(String, Hash)], predicate: Summary) -> Self {
        let subject = files.iter().map(|(name, digest)| Subject {
            name: name.clone(),
            digest: Digest {
                sha256: hex(digest),
            },
        });
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: subject.collect(),
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate,
        }
    }

    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, serde_json::Error> {
        let payload = serde_json::to_vec(self)?;
        let envelope = Envelope {
            payload: STANDARD.encode(&payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![Signature {
                keyid: key_id(key.verifier()),
                sig: STANDARD.encode(key.sign_bytes(&to_be_signed(&payload))),
            }],
        };
        write(&envelope)
    }

    /// Reads a statement that one of the keys signed.
    pub fn open(bytes: &[u8], keys: &[&VerifierKey]) -> Result<Self, StatementError> {
        let malformed = |error: &dyn std::fmt::Display| StatementError::Envelope(error.to_string());
        let envelope: Envelope =
            serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
        // White space and the like are not signed.
        if write(&envelope).map_err(|error| malformed(&error))? != bytes {
            return Err(malformed(&"not written in the one way"));
        }
        let [signature] = envelope.signatures.as_slice() else {
            return Err(malformed(&"one signature is expected"));
        };
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(malformed(&"another type of payload"));
        }
        let decode = |text: &str| STANDARD.decode(text).map_err(|error| malformed(&error));
        let (payload, bytes) = (decode(&envelope.payload)?, decode(&signature.sig)?);
        let id = &signature.keyid;
        let key = keys.iter().find(|key| key_id(key) == *id);
        let key = key.ok_or_else(|| StatementError::UnknownKey(id.clone()))?;
        if !key.verify_bytes(&to_be_signed(&payload), &bytes) {
            return Err(StatementError::Signature(id.clone()));
        }
        Self::parse(&payload)
    }

    fn parse(payload: &[u8]) -> Result<Self, StatementError> {
        let malformed =
            |error: &dyn std::fmt::Display| StatementError::Statement(error.to_string());
        let statement: Self = serde_json::from_slice(payload).map_err(|error| malformed(&error))?;
        match statement.statement_type == STATEMENT_TYPE
            && statement.predicate_type == PREDICATE_TYPE
        {
            true => Ok(statement),
            false => Err(malformed(&"it is of another type")),
        }
    }

    /// The files that it is about, with the text of their digests.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        let subjects = self.subject.iter();
        subjects.map(|subject| (subject.name.as_str(), subject.digest.sha256.as_str()))
    }
}

fn write(envelope: &Envelope) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(envelope)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The name and id of a key, as in a signature line.
pub(super) fn key_id(key: &VerifierKey) -> String {
    format!("{}+{:08x}", key.name(), key.id())
}

/// DSSE's pre-authentication encoding. It is no checkpoint of a log, unless one is named like it.
fn to_be_signed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "DSSEv1 {} {PAYLOAD_TYPE} {} ",
        PAYLOAD_TYPE.len(),
        payload.len()
    )
    .into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

pub(super) fn hex(hash: &Hash) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    let bytes = hash.0.iter();
    bytes
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_of_the_specification() {
        let expected = "DSSEv1 28 application/vnd.in-toto+json 2 {}";
        assert_eq!(to_be_signed(b"{}"), expected.as_bytes());
    }

    #[test]
    fn digests_are_hexadecimal() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&Hash::of(b"")), empty);
    }
}
