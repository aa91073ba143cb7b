//! An API key as it is stored: without its secret.

use serde::{Deserialize, Serialize};
use steadfast_ledger::Hash;
use steadfast_runtime::Kind;

/// Kind of the stored records; each has the key's id as its key.
pub(super) const KIND: &str = "api-key";

/// What is known of an API key. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Its id: public, the middle part of the key.
    pub id: String,
    /// Whose it is: the name in records and logs.
    pub name: String,
    /// `user`, `service` or `agent`.
    kind: String,
    /// The groups of whoever has it.
    pub groups: Vec<String>,
    /// SHA-256 of its secret.
    secret_hash: String,
    /// When it was made.
    pub created: i64,
    /// Who made it.
    pub created_by: String,
    /// Until when it is valid, if not for ever.
    pub expires: Option<i64>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<i64>,
    /// Who revoked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
}

impl KeyRecord {
    /// A key that is made now.
    pub(super) fn new(id: String, secret_hash: Hash, of: super::api_keys::NewKey) -> Self {
        Self {
            id,
            name: of.name,
            kind: of.kind.name().to_owned(),
            groups: of.groups,
            secret_hash: secret_hash.to_string(),
            created: steadfast_runtime::clock::now(),
            created_by: String::new(),
            expires: of.expires,
            revoked: None,
            revoked_by: None,
        }
    }

    /// What its holder is.
    pub fn kind(&self) -> Kind {
        [Kind::User, Kind::Service, Kind::Agent]
            .into_iter()
            .find(|kind| kind.name() == self.kind)
            .unwrap_or_default()
    }

    /// The hash that its secret has.
    pub(super) fn secret_hash(&self) -> Result<Hash, String> {
        let hash = self.secret_hash.parse::<Hash>();
        hash.map_err(|error| format!("API key {}: {error}", self.id))
    }

    /// Whether it can be used.
    pub fn is_live(&self, now: i64) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|expires| expires > now)
    }

    /// The bytes that are stored.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }

    /// Reads stored bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match record.kind() {
            Kind::Unauthenticated => Err(format!("API key {} is of no known kind", record.id)),
            _ => record.secret_hash().map(|_| record),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::api_keys::NewKey;
    use super::*;

    #[test]
    fn what_is_stored_is_read_back() {
        let new = NewKey {
            name: "ci".into(),
            kind: Kind::Agent,
            groups: vec!["a".into(), "b".into()],
            expires: Some(7),
        };
        let mut record = KeyRecord::new("0123".into(), Hash::of(b"secret"), new);
        for _ in 0..2 {
            let bytes = record.encode().expect("encoded");
            assert!(!bytes.windows(6).any(|bytes| bytes == b"secret\""));
            assert_eq!(KeyRecord::decode(&bytes).as_ref(), Ok(&record));
            assert_eq!(record.kind(), Kind::Agent);
            record.revoked = Some(8);
            record.revoked_by = Some("somebody".into());
        }
        assert!(!record.is_live(0));
    }

    #[test]
    fn a_key_of_no_kind_is_refused() {
        let new = NewKey {
            name: "ci".into(),
            kind: Kind::Service,
            groups: Vec::new(),
            expires: None,
        };
        let record = KeyRecord::new("0123".into(), Hash::of(b"secret"), new);
        let text = String::from_utf8(record.encode().expect("encoded")).expect("text");
        for (from, to) in [
            ("service", "root"),
            ("\"secret_hash\":\"", "\"secret_hash\":\"x"),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            assert!(KeyRecord::decode(changed.as_bytes()).is_err(), "{changed}");
        }
    }
}
