//! Offboarding certificates: a server's signed statement that a principal was disabled, what became of its
//! sessions, which credentials they held, and until when what remains of that.
//!
//! An in-toto Statement v1 in a DSSE envelope, signed by the key of a log. Its subject is the principal's
//! name.
//! `docs/control.md` has the format.

use serde::{Deserialize, Serialize};

use crate::Hash;
use crate::dsse::{self, Digest, STATEMENT_TYPE, Subject};
use crate::entry::Time;
use crate::note::{SigningKey, VerifierKey};

/// What the predicate is.
pub const PREDICATE_TYPE: &str = "https://steadfast.dev/offboarding/v1";

/// Largest envelope, in bytes.
pub const MAX_BYTES: usize = 64 << 20;

/// What is certified: the predicate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Certificate {
    /// `caller`, or `agent`: all sessions of a workflow type.
    pub kind: String,
    /// Whom it is about, by the name that the log has.
    pub principal: String,
    /// When it was disabled.
    pub disabled: Time,
    /// Who disabled it.
    pub disabled_by: String,
    /// Why.
    pub reason: String,
    /// What was to become of its sessions: `pause` or `revoke`.
    pub asked: String,
    /// When all of its sessions had been paused or ended.
    pub completed: Time,
    /// How many sessions it had.
    pub session_count: u64,
    /// These sessions, as many as are named, in order of namespace, workflow id and run id.
    pub sessions: Vec<Session>,
    /// Tool calls of these sessions that workers had in their hands: what workers do with them outside,
    /// the server cannot stop.
    pub attempts: Vec<Attempt>,
    /// Credentials of attempts of these sessions that had not expired when it was disabled, in order of
    /// their expiry.
    pub credentials: Vec<Credential>,
    /// Whoever verifies credentials by the issuer's public keys alone accepts the last of them until then;
    /// null if there are none. Who asks the server was told `inactive` from `disabled` on.
    pub credentials_until: Option<Time>,
    /// The logs that say so, as far as they were signed then.
    pub logs: Vec<Log>,
    /// When this was made.
    pub issued: Time,
}

/// A session of the principal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Session {
    /// Its namespace.
    pub namespace: String,
    /// Workflow id.
    pub workflow_id: String,
    /// Run id.
    pub run_id: String,
    /// Workflow type.
    pub workflow_type: String,
    /// Who started it.
    pub initiator: String,
    /// `paused`, or the status that it ended with.
    pub state: String,
    /// The entry of the log that says so; null if it was paused before.
    pub entry: Option<Place>,
}

/// An entry of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Place {
    /// Its index in the log of the namespace.
    pub index: u64,
    /// Its leaf hash, in base64.
    pub leaf: String,
    /// Its time.
    pub time: Time,
}

/// An attempt of a tool call that a worker had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Attempt {
    /// Namespace of the session.
    pub namespace: String,
    /// The session.
    pub workflow_id: String,
    /// Its run.
    pub run_id: String,
    /// Activity id.
    pub activity_id: String,
    /// Activity type.
    pub tool: String,
    /// Its number.
    pub attempt: i64,
    /// Identity of the worker.
    pub worker: String,
}

/// A credential that an attempt of a session was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Credential {
    /// When it expires.
    pub expires: Time,
    /// Its id (`jti`).
    pub id: String,
    /// For whom it is.
    pub audience: String,
    /// Namespace of the session.
    pub namespace: String,
    /// The session.
    pub workflow_id: String,
    /// Its run.
    pub run_id: String,
    /// The tool.
    pub tool: String,
    /// Identity of the worker that was given it.
    pub worker: String,
}

/// How far a log was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Log {
    /// The namespace.
    pub namespace: String,
    /// Its origin.
    pub origin: String,
    /// Its size.
    pub size: u64,
    /// Its root, in base64.
    pub root: String,
}

/// A certificate that somebody signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What it says.
    pub certificate: Certificate,
    /// Name and id of the key that signed.
    pub key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Certificate,
}

/// Why a certificate is not believed.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It is not one.
    #[error("not an offboarding certificate: {0}")]
    Malformed(String),
    /// It was signed by nobody who is trusted, or not at all.
    #[error("{0}")]
    Untrusted(String),
    /// What it says cannot be.
    #[error("it contradicts itself: {0}")]
    Contradiction(String),
}

impl Certificate {
    /// Sorts what it lists, and says until when credentials are accepted.
    pub fn finish(mut self) -> Self {
        self.sessions
            .sort_by(|one, other| key(one).cmp(&key(other)));
        self.credentials.sort_unstable();
        self.credentials.dedup();
        self.credentials_until = self.credentials.last().map(|of| of.expires);
        self
    }

    /// The envelope with the statement.
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, CertificateError> {
        let malformed = |error: serde_json::Error| CertificateError::Malformed(error.to_string());
        let statement = Statement {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: vec![subject(&self.principal)],
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: self.clone(),
        };
        let payload = serde_json::to_vec(&statement).map_err(malformed)?;
        dsse::sign(&payload, key).map_err(malformed)
    }

    /// Reads an envelope that one of the keys signed, and looks whether what it says can be.
    pub fn open<'a>(
        bytes: &[u8],
        keys: impl IntoIterator<Item = &'a VerifierKey>,
    ) -> Result<Signed, CertificateError> {
        let malformed = |why: &str| CertificateError::Malformed(why.to_owned());
        if bytes.len() > MAX_BYTES {
            return Err(malformed("it is too large"));
        }
        let (payload, key) = dsse::open(bytes, keys).map_err(|error| match error {
            dsse::EnvelopeError::Malformed(_) => CertificateError::Malformed(error.to_string()),
            _ => CertificateError::Untrusted(error.to_string()),
        })?;
        let statement: Statement = serde_json::from_slice(&payload)
            .map_err(|error| CertificateError::Malformed(error.to_string()))?;
        if statement.statement_type != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE
        {
            return Err(malformed("it is a statement of another type"));
        }
        let certificate = statement.predicate;
        if statement.subject != [subject(&certificate.principal)] {
            return Err(malformed("its subject is another principal"));
        }
        certificate.check()?;
        Ok(Signed {
            certificate,
            key: dsse::key_id(key),
        })
    }

    fn check(&self) -> Result<(), CertificateError> {
        let size = |namespace: &str| {
            let mut logs = self.logs.iter().filter(|of| of.namespace == namespace);
            logs.next().map_or(0, |of| of.size)
        };
        let is_beyond = |of: &Session| {
            let entry = of.entry.as_ref();
            entry.is_some_and(|entry| entry.index >= size(&of.namespace))
        };
        let wrong = [
            (
                self.disabled > self.completed || self.completed > self.issued,
                "its times are not in order",
            ),
            (
                !self
                    .sessions
                    .is_sorted_by(|one, other| key(one) < key(other)),
                "its sessions are not in order",
            ),
            (
                (self.sessions.len() as u64) > self.session_count,
                "it names more sessions than it counts",
            ),
            (
                !self.credentials.is_sorted_by(|one, other| one < other),
                "its credentials are not in order",
            ),
            (
                self.credentials_until != self.credentials.last().map(|of| of.expires),
                "its credentials expire at another time than it says",
            ),
            (
                self.sessions.iter().any(is_beyond),
                "it names an entry that the signed log does not have",
            ),
        ];
        match wrong.into_iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, why)) => Err(CertificateError::Contradiction(why.to_owned())),
            None => Ok(()),
        }
    }
}

fn key(of: &Session) -> (&str, &str, &str) {
    (&of.namespace, &of.workflow_id, &of.run_id)
}

/// The principal: its digest is that of its name.
fn subject(principal: &str) -> Subject {
    Subject {
        name: principal.to_owned(),
        digest: Digest {
            sha256: dsse::hex(&Hash::of(principal.as_bytes())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signing_key(seed: u8) -> SigningKey {
        SigningKey::new("example.com/log", [seed; 32]).expect("a key")
    }

    fn certificate() -> Certificate {
        let session = |workflow_id: &str, index| Session {
            namespace: "default".into(),
            workflow_id: workflow_id.into(),
            run_id: "r".into(),
            workflow_type: "Agent".into(),
            initiator: "api-key#bot".into(),
            state: "paused".into(),
            entry: Some(Place {
                index,
                leaf: Hash::of(b"leaf").to_string(),
                time: Time(12),
            }),
        };
        let credential = |expires, id: &str| Credential {
            expires: Time(expires),
            id: id.into(),
            audience: "https://pay.example".into(),
            namespace: "default".into(),
            workflow_id: "two".into(),
            run_id: "r".into(),
            tool: "refund".into(),
            worker: "w".into(),
        };
        let certificate = Certificate {
            kind: "caller".into(),
            principal: "api-key#bot".into(),
            disabled: Time(10),
            disabled_by: "https://i.example#alice".into(),
            reason: "left".into(),
            asked: "pause".into(),
            completed: Time(13),
            session_count: 2,
            sessions: vec![session("two", 6), session("one", 5)],
            attempts: Vec::new(),
            credentials: vec![
                credential(900, "b"),
                credential(800, "a"),
                credential(900, "b"),
            ],
            credentials_until: None,
            logs: vec![Log {
                namespace: "default".into(),
                origin: "example.com/log".into(),
                size: 7,
                root: Hash::of(b"root").to_string(),
            }],
            issued: Time(14),
        };
        certificate.finish()
    }

    #[test]
    fn what_was_signed_is_read_again() {
        let certificate = certificate();
        assert_eq!(certificate.credentials_until, Some(Time(900)));
        assert_eq!(certificate.credentials.len(), 2);
        let key = signing_key(7);
        let envelope = certificate.sign(&key).expect("signs");
        let signed = Certificate::open(&envelope, [key.verifier()]).expect("opens");
        assert_eq!(signed.certificate, certificate);
        assert!(signed.key.starts_with("example.com/log+"));

        let other = signing_key(8);
        let refused = Certificate::open(&envelope, [other.verifier()]);
        assert!(matches!(refused, Err(CertificateError::Untrusted(_))));
        for index in (0..envelope.len()).step_by(29) {
            let mut changed = envelope.clone();
            changed[index] ^= 1;
            assert!(
                Certificate::open(&changed, [key.verifier()]).is_err(),
                "{index}"
            );
        }
    }

    #[test]
    fn what_cannot_be_is_refused_though_it_is_signed() {
        type Change = fn(&mut Certificate);
        let changes: [Change; 7] = [
            |of| of.completed = Time(9),
            |of| of.issued = Time(12),
            |of| of.sessions.reverse(),
            |of| of.session_count = 1,
            |of| of.credentials.reverse(),
            |of| of.credentials_until = Some(Time(800)),
            |of| of.logs[0].size = 6,
        ];
        let key = signing_key(7);
        for (number, change) in changes.into_iter().enumerate() {
            let mut certificate = certificate();
            change(&mut certificate);
            let envelope = certificate.sign(&key).expect("signs");
            let refused = Certificate::open(&envelope, [key.verifier()]);
            assert!(
                matches!(refused, Err(CertificateError::Contradiction(_))),
                "{number}: {refused:?}"
            );
        }
    }
}
