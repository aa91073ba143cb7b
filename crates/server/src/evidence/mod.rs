//! Evidence at the edge: signing the logs, keeping their keys, and reading them.

pub mod anchor;
pub mod bundles;
#[cfg(test)]
mod crash_tests;
mod failpoint;
pub mod keys;
pub mod publisher;
pub mod reader;
pub mod rotation;
pub mod settings;
pub mod witnesses;

use std::path::{Path, PathBuf};

use steadfast_runtime::Runtime;

pub use publisher::{Logs, PublishedLog, Publisher};
pub use witnesses::Witnesses;

use crate::config::Config;
use anchor::{Anchor, Heads};
use keys::Keys;
use steadfast_ledger::note::SigningKey;

/// Kind and key of the stored record that says what the origins of this store's logs begin with.
const KIND: &str = "evidence";
const BASE: &str = "origin";

/// Opens the logs of a server.
pub async fn open(runtime: &Runtime, config: &Config) -> Result<Publisher, String> {
    let base = base(runtime, config).await?;
    let path = &config.store.path;
    let seed = seed()?;
    let (anchor, keys) = match path.as_os_str() == ":memory:" {
        true => {
            let key = SigningKey::new(&base, seed).map_err(|error| error.to_string())?;
            (Anchor::Memory(Heads::new()), Keys::in_memory(key))
        }
        false => {
            let anchor = config.evidence.anchor.clone();
            let anchor = anchor.unwrap_or_else(|| with_suffix(path, ".log-anchor"));
            let keys = Keys::open(&key_path(config), &base, seed)?;
            (Anchor::File(anchor), keys)
        }
    };
    Publisher::open(runtime.clone(), anchor, keys, base)
        .await
        .map_err(|error| error.to_string())
}

/// Where the key is: as configured, or beside the store.
pub fn key_path(config: &Config) -> PathBuf {
    let given = config.evidence.key.clone();
    given.unwrap_or_else(|| with_suffix(&config.store.path, ".log-key"))
}

/// What the origins of the logs begin with: as configured, or a name that no other store has.
async fn base(runtime: &Runtime, config: &Config) -> Result<String, String> {
    let configured = config.evidence.origin.trim_end_matches('/');
    if !configured.is_empty() {
        return Ok(configured.to_owned());
    }
    let store = runtime.store();
    let stored = store.records(KIND).await;
    let stored = stored.map_err(|error| error.to_string())?;
    if let Some((_, base)) = stored.into_iter().find(|(key, _)| key == BASE) {
        return String::from_utf8(base).map_err(|error| error.to_string());
    }
    let base = format!("steadfast/{}", uuid::Uuid::new_v4());
    let put = store.put_record(KIND, BASE, base.clone().into_bytes());
    put.await.map_err(|error| error.to_string())?;
    Ok(base)
}

/// Randomness for a key.
pub fn seed() -> Result<[u8; 32], String> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| format!("no randomness for a key: {error}"))?;
    Ok(seed)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
