//! The first API key: somebody has to make the others. It is a file that only its owner reads, beside
//! the store; who may write there has the store as well.

use std::io;
use std::path::Path;

use steadfast_runtime::{Kind, Permit};

use super::api_keys::{self, ApiKeys, NewKey};
use crate::gate::ADMIN;
use crate::private_file;

/// Takes the key in the file, unless it is known. A store without keys gets one, in a new file.
pub(super) async fn ensure_key(keys: &ApiKeys, path: &Path) -> Result<(), String> {
    let known = keys.list();
    let key = match private_file::exists(path) {
        true => private_file::read(path)?.trim().to_owned(),
        false if known.is_empty() => {
            let key = api_keys::generate()?;
            private_file::create(path, &format!("{key}\n"))
                .map_err(|error| format!("{}: {error}", path.display()))?;
            key
        }
        false => return Ok(()),
    };
    let path = path.display();
    let Some((id, _)) = api_keys::split(&key) else {
        return Err(format!("{path}: not an API key"));
    };
    if known.iter().any(|record| record.id == id) {
        return Ok(());
    }
    let new = NewKey {
        name: ADMIN.into(),
        kind: Kind::User,
        groups: vec![ADMIN.into()],
        expires: None,
    };
    let accepted = keys.accept(&Permit::internal("bootstrap"), &key, new).await;
    accepted.map_err(|error| format!("{path}: {error}"))?;
    tracing::warn!(
        "{path} has an API key of the group {ADMIN}: make others with it, then remove the file and revoke {id}"
    );
    Ok(())
}

/// Writes a new key in the place of the one that may be there. The server takes it at its next start.
pub fn write_new_key(path: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let key = api_keys::generate()?;
    private_file::replace(path, &format!("{key}\n")).map_err(failed)
}
