//! From one key to the next: asked for on the command line, or because it is time.
//!
//! First each log says so, then the file has the new key, then others see it. Whoever goes on after a crash
//! begins with the first: a log may then say the same twice.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use steadfast_engine::Time;
use steadfast_ledger::entry::Note;
use steadfast_runtime::{Permit, Runtime, clock};

use super::keys::{self, Key, KeyRing};
use super::{Credentials, Inner};

/// How often it is looked whether something is to be done.
const LOOK: Duration = Duration::from_secs(1);

/// How long it waits after what failed.
const PAUSE: Duration = Duration::from_secs(30);

/// The keys of a server; a first one is made if there is none.
pub(super) async fn open(runtime: &Runtime, path: Option<&Path>) -> Result<KeyRing, String> {
    let stored = path.map(keys::load).transpose()?.flatten();
    if let Some(stored) = stored {
        return Ok(stored);
    }
    let key = Key::generate(clock::now())?;
    let detail = format!("key {} signs credentials", key.id());
    note(runtime, "credential/key-created", &detail).await?;
    let ring = KeyRing::of(key);
    if let Some(path) = path {
        keys::save(path, &ring)?;
    }
    Ok(ring)
}

async fn note(runtime: &Runtime, what: &str, detail: &str) -> Result<(), String> {
    let permit = Permit::internal("credential-keys");
    for namespace in runtime.namespaces().all() {
        let note = Note {
            what: what.into(),
            detail: detail.into(),
            ..Note::default()
        };
        let noted = runtime.note(&permit, &namespace.id, note).await;
        noted.map_err(|error| error.to_string())?;
    }
    Ok(())
}

impl Credentials {
    /// Rotates keys from now on, as long as it is polled.
    pub async fn rotate_keys(self) {
        loop {
            let done = self.0.look_after_keys(clock::now()).await;
            if let Err(error) = &done {
                tracing::error!(error, "the keys of credentials cannot be rotated");
            }
            tokio::time::sleep(if done.is_ok() { LOOK } else { PAUSE }).await;
        }
    }
}

impl Inner {
    /// Does what is to be done to the keys now.
    pub(super) async fn look_after_keys(&self, now: Time) -> Result<(), String> {
        let asked_for = self.path.as_deref().map(keys::asked_for).transpose()?;
        if let Some(key) = asked_for.flatten() {
            if !self.signer.keys().has(key.id()) {
                self.add(key, now).await?;
            }
            if let Some(path) = &self.path {
                keys::taken(path)?;
            }
        }
        if self.is_time(now) {
            self.add(Key::generate(now)?, now).await?;
        }
        if let Some(trimmed) = self.signer.keys().trimmed(now)? {
            self.put(trimmed)?;
        }
        Ok(())
    }

    fn is_time(&self, now: Time) -> bool {
        let keys = self.signer.keys();
        let newest = keys.newest().map_or(now, Key::signs_from);
        let due = newest.saturating_add(self.rotate_after);
        self.rotate_after > 0 && due.saturating_sub(self.publish_ahead) <= now
    }

    async fn add(&self, key: Key, now: Time) -> Result<(), String> {
        let keys = self.signer.keys();
        let old = keys.newest().map_or("none", Key::id).to_owned();
        let with = keys.with(key, now.saturating_add(self.publish_ahead));
        let new = with.newest().ok_or("there is no key")?;
        let from = chrono::DateTime::from_timestamp_nanos(new.signs_from());
        let from = from.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let detail = format!(
            "{old} -> {}, which signs credentials from {from} on",
            new.id()
        );
        note(&self.runtime, "credential/key-rotated", &detail).await?;
        tracing::info!("keys of credentials: {detail}");
        self.put(with)
    }

    fn put(&self, keys: KeyRing) -> Result<(), String> {
        if let Some(path) = &self.path {
            keys::save(path, &keys)?;
        }
        *self.signer.keys.write() = Arc::new(keys);
        Ok(())
    }
}
