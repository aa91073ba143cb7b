//! Tokens that were taken back: `<namespace>/<id>`, until the tokens would have expired anyway.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use steadfast_engine::Time;
use steadfast_engine::time::SECOND;
use steadfast_runtime::{Runtime, RuntimeError, clock};

/// Kind of the stored records; each has the token's name as its key.
const KIND: &str = "credential-revocation";

/// Most of them at once: credentials live for minutes.
const MOST: usize = 100_000;

/// How long one is kept after its token has expired.
const SLACK: Time = 60 * SECOND;

/// Why a token was not taken back.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// There are too many.
    #[error("{MOST} credentials are revoked and have not expired: try again in some minutes")]
    Full,
    /// It cannot be written.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// What is stored of one.
#[derive(Deserialize, Serialize)]
struct Stored {
    /// When the token expires, in nanoseconds since the epoch.
    expires: Time,
    /// When it was revoked.
    revoked: Time,
    /// Who did it.
    revoked_by: String,
}

/// What a token is called here: whoever may revoke those of one namespace may not those of another.
pub(super) fn name(namespace: &str, id: &str) -> String {
    format!("{namespace}/{id}")
}

/// All of them.
pub(super) struct Revocations {
    runtime: Runtime,
    /// When each token expires, by its name.
    revoked: Arc<RwLock<HashMap<String, Time>>>,
    /// Held while they are changed.
    changing: tokio::sync::Mutex<()>,
}

impl Revocations {
    /// Reads those of a store.
    pub(super) async fn open(runtime: &Runtime) -> Result<Self, String> {
        let stored = runtime.store().records(KIND).await;
        let mut revoked = HashMap::new();
        for (id, bytes) in stored.map_err(|error| error.to_string())? {
            let stored: Stored = serde_json::from_slice(&bytes)
                .map_err(|error| format!("stored revocation {id}: {error}"))?;
            revoked.insert(id, stored.expires);
        }
        Ok(Self {
            runtime: runtime.clone(),
            revoked: Arc::new(RwLock::new(revoked)),
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// Whether a token was taken back.
    pub(super) fn has(&self, id: &str) -> bool {
        self.revoked.read().contains_key(id)
    }

    /// Takes one back: it counts for nothing from here on, and after a crash. False if that was so before.
    pub(super) async fn add(
        &self,
        id: &str,
        expires: Time,
        by: &str,
    ) -> Result<bool, RevocationError> {
        let _changing = self.changing.lock().await;
        if self.has(id) {
            return Ok(false);
        }
        let now = clock::now();
        self.forget(now).await?;
        let stored = Stored {
            expires,
            revoked: now,
            revoked_by: by.to_owned(),
        };
        let bytes = serde_json::to_vec(&stored).unwrap_or_default();
        let put = self.runtime.store().put_record(KIND, id, bytes).await;
        put.map_err(RuntimeError::from)?;
        self.revoked.write().insert(id.to_owned(), expires);
        Ok(true)
    }

    /// Forgets those that have expired: a minute later, as clocks are set back.
    async fn forget(&self, now: Time) -> Result<(), RevocationError> {
        let expired = |revoked: &HashMap<String, Time>| -> Vec<String> {
            let expired = revoked.iter();
            let expired = expired.filter(|(_, expires)| expires.saturating_add(SLACK) <= now);
            expired.map(|(id, _)| id.clone()).collect()
        };
        let gone = expired(&self.revoked.read());
        for id in gone {
            let deleted = self.runtime.store().delete_record(KIND, &id).await;
            deleted.map_err(RuntimeError::from)?;
            self.revoked.write().remove(&id);
        }
        match self.revoked.read().len() < MOST {
            true => Ok(()),
            false => Err(RevocationError::Full),
        }
    }
}
