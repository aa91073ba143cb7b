//! The statement: in-toto Statement v1 in a DSSE envelope.

use serde::{Deserialize, Serialize};

use super::PREDICATE_TYPE;
use super::manifest::Summary;
use crate::Hash;
use crate::dsse::{self, Digest, EnvelopeError, STATEMENT_TYPE, Subject};
pub(super) use crate::dsse::{hex, key_id};
use crate::note::{SigningKey, VerifierKey};

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

/// Why a statement cannot be believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatementError {
    #[error("{0}")]
    Envelope(EnvelopeError),
    #[error("not an in-toto statement about a bundle: {0}")]
    Statement(String),
    #[error("signed by {0}, which is not a trusted key of the log")]
    UnknownKey(String),
}

impl From<EnvelopeError> for StatementError {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::UnknownKey(id) => Self::UnknownKey(id),
            other => Self::Envelope(other),
        }
    }
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
        dsse::sign(&serde_json::to_vec(self)?, key)
    }

    /// Reads a statement that one of the keys signed.
    pub fn open(bytes: &[u8], keys: &[&VerifierKey]) -> Result<Self, StatementError> {
        let (payload, _) = dsse::open(bytes, keys.iter().copied())?;
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
