//! DSSE envelopes with an in-toto statement (<https://github.com/secure-systems-lab/dsse>): written in one way, with
//! one signature, by an Ed25519 key of a signed note.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::Hash;
use crate::note::{SigningKey, VerifierKey};

pub(crate) const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

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

/// What a statement is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// What it is.
    pub digest: Digest,
}

/// A digest of a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// Why an envelope cannot be believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("not a DSSE envelope with one signature, as it is written here: {0}")]
    Malformed(String),
    #[error("signed by {0}, which is not a trusted key")]
    UnknownKey(String),
    #[error("the signature by {0} is wrong")]
    Signature(String),
}

/// Signs a payload.
pub(crate) fn sign(payload: &[u8], key: &SigningKey) -> Result<Vec<u8>, serde_json::Error> {
    write(&Envelope {
        payload: STANDARD.encode(payload),
        payload_type: PAYLOAD_TYPE.to_owned(),
        signatures: vec![Signature {
            keyid: key_id(key.verifier()),
            sig: STANDARD.encode(key.sign_bytes(&to_be_signed(payload))),
        }],
    })
}

/// The payload of an envelope that one of the keys signed, and that key.
pub(crate) fn open<'a>(
    bytes: &[u8],
    keys: impl IntoIterator<Item = &'a VerifierKey>,
) -> Result<(Vec<u8>, &'a VerifierKey), EnvelopeError> {
    let malformed = |error: &dyn std::fmt::Display| EnvelopeError::Malformed(error.to_string());
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
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
    let key = keys.into_iter().find(|key| key_id(key) == *id);
    let key = key.ok_or_else(|| EnvelopeError::UnknownKey(id.clone()))?;
    match key.verify_bytes(&to_be_signed(&payload), &bytes) {
        true => Ok((payload, key)),
        false => Err(EnvelopeError::Signature(id.clone())),
    }
}

fn write(envelope: &Envelope) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(envelope)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The name and id of a key, as in a signature line.
pub(crate) fn key_id(key: &VerifierKey) -> String {
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

pub(crate) fn hex(hash: &Hash) -> String {
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
