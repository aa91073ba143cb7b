//! Policies that are put by the API, and what was in force when.
//!
//! What was put is durable before it is in force: a start goes on with it, in the name of who put it.

use serde::{Deserialize, Serialize};
use steadfast_engine::Time;
use steadfast_ledger::Hash;
use steadfast_policy::{Policies, Source};
use steadfast_runtime::evidence::export::{keep_policies, kept_policies};
use steadfast_runtime::{Permit, Runtime};
use steadfast_store::{Store, StoreError};

use super::{InForce, KIND, Origin, put_into_force};

/// Largest body with policies, in bytes.
pub const MAX_PUT_BYTES: usize = 1 << 20;

/// So many files are put at once, with names of so many bytes.
const MAX_FILES: usize = 1000;
const MAX_NAME: usize = 200;

/// Key of the record that has what was put last.
const PUT: &str = "api";

/// Kind of the stored records that have the changes, by their time.
const CHANGES: &str = "policy-change";

/// So many changes are kept. The logs have all of them.
const MAX_CHANGES: usize = 1000;

/// Why policies are not put into force.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// They come from elsewhere.
    #[error("the policies come from {0}: change them there, or start the server without a path")]
    Files(String),
    /// Others are in force than those that are to be replaced.
    #[error("other policies are in force than those to be replaced: {0}; look at them again")]
    Changed(String),
    /// They cannot be written, or not be put into force.
    #[error("{0}")]
    Failed(String),
}

/// Who changed policies.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct By {
    pub call: String,
    pub principal: String,
    pub authentication: String,
}

impl By {
    pub(super) fn of(permit: &Permit) -> Self {
        let cause = permit.cause();
        Self {
            call: cause.call,
            principal: cause.principal,
            authentication: cause.authentication,
        }
    }
}

/// Policies came into force.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Change {
    /// Their hash, or `none`.
    pub hash: String,
    /// That of those before.
    pub was: String,
    /// When, in nanoseconds since the epoch.
    pub time: Time,
    /// By whom.
    pub cause: By,
}

/// What was put last.
#[derive(Deserialize, Serialize)]
struct Stored {
    hash: String,
    by: By,
}

/// Reads and validates what is to be put: the files. Problems are told with their places.
pub fn parse(files: &[Source]) -> Result<Policies, Vec<String>> {
    if files.is_empty() {
        // No policies at all would be a decision that nobody made.
        return Err(vec!["there is no file".to_owned()]);
    }
    if files.len() > MAX_FILES {
        return Err(vec![format!("there are more than {MAX_FILES} files")]);
    }
    let mut names: Vec<&str> = files.iter().map(|of| of.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|of| of[0] == of[1]) {
        return Err(vec![format!("there are two files {:?}", twice[0])]);
    }
    let is_odd =
        |of: &&&str| of.is_empty() || of.len() > MAX_NAME || of.contains(['/', '\\', '\0']);
    if let Some(odd) = names.iter().find(is_odd) {
        return Err(vec![format!("{odd:?} is no name of a file")]);
    }
    Policies::parse(files).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// Puts policies into force in place of those with the hash `replaces` (`none` for none), if nothing else
/// says which ones are.
pub async fn put(
    runtime: &Runtime,
    in_force: &InForce,
    policies: &Policies,
    replaces: &str,
    permit: &Permit,
) -> Result<(), PutError> {
    let _changing = in_force.0.changing.lock().await;
    let (now, origin) = in_force.get_with_origin();
    if let Origin::Files(path) = origin {
        return Err(PutError::Files(path.display().to_string()));
    }
    let hash = now.map_or_else(|| "none".to_owned(), |of| Hash(of.hash()).to_string());
    if hash != replaces {
        return Err(PutError::Changed(hash));
    }
    let failed = |error: &dyn std::fmt::Display| PutError::Failed(format!("the policies: {error}"));
    let content = policies.to_json().map_err(|error| failed(&error))?;
    let (store, hash) = (runtime.store(), Hash(policies.hash()));
    let kept = keep_policies(&**store, &hash, content.into_bytes()).await;
    kept.map_err(|error| failed(&error))?;
    let stored = Stored {
        hash: hash.to_string(),
        by: By::of(permit),
    };
    let stored = serde_json::to_vec(&stored).map_err(|error| failed(&error))?;
    // From here on they are in force after every start.
    let put = store.put_record(KIND, PUT, stored).await;
    put.map_err(|error| failed(&error))?;
    put_into_force(runtime, in_force, Some(policies), Origin::Api, permit)
        .await
        .map_err(PutError::Failed)
}

/// What was put last, and who did it.
pub(super) async fn stored(runtime: &Runtime) -> Result<Option<(Policies, Permit)>, String> {
    let store = runtime.store();
    let failed = |error: &dyn std::fmt::Display| format!("the policies that were put: {error}");
    let record = store.record(KIND, PUT).await;
    let Some(record) = record.map_err(|error| failed(&error))? else {
        return Ok(None);
    };
    let stored: Stored = serde_json::from_slice(&record).map_err(|error| failed(&error))?;
    let hash: Hash = stored.hash.parse().map_err(|error| failed(&error))?;
    let policies = kept(&**store, &hash)
        .await
        .map_err(|error| failed(&error))?;
    let policies = policies.ok_or_else(|| failed(&"they are not there"))?;
    // By the schema of today.
    let policies = Policies::parse(policies.sources()).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let lines = lines.join("\n");
        failed(&format!(
            "{lines}\nthey are not valid any more: start with a path in [policy]"
        ))
    })?;
    let By {
        call,
        principal,
        authentication,
    } = stored.by;
    let permit = Permit::granted(&call, principal, authentication);
    Ok(Some((policies, permit)))
}

/// Policies that are or were in force. They are not validated.
pub(crate) async fn kept(store: &dyn Store, hash: &Hash) -> Result<Option<Policies>, String> {
    let content = kept_policies(store, hash)
        .await
        .map_err(|error| error.to_string())?;
    let policies = content.map(|content| Policies::from_json(&content));
    policies.transpose()
}

/// Remembers a change, and forgets the oldest ones.
pub(super) async fn remember(store: &dyn Store, change: Change) -> Result<(), StoreError> {
    let key = format!("{:020}", change.time);
    let value = serde_json::to_vec(&change).unwrap_or_default();
    store.put_record(CHANGES, &key, value).await?;
    let all = store.records(CHANGES).await?;
    let too_many = all.len().saturating_sub(MAX_CHANGES);
    for (key, _) in &all[..too_many] {
        store.delete_record(CHANGES, key).await?;
    }
    Ok(())
}

/// The changes, newest first.
pub(crate) async fn changes(store: &dyn Store) -> Result<Vec<Change>, StoreError> {
    let all = store.records(CHANGES).await?;
    let read = all.iter().rev();
    Ok(read
        .filter_map(|(_, value)| serde_json::from_slice(value).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use steadfast_store::sqlite::SqliteStore;

    use super::super::start;
    use super::*;

    fn file(name: &str, text: &str) -> Source {
        Source {
            name: name.into(),
            text: text.into(),
        }
    }

    fn policies(id: &str) -> Policies {
        let text = format!("@id(\"{id}\") permit(principal, action, resource);");
        parse(&[file("p.cedar", &text)]).expect("are valid")
    }

    #[test]
    fn what_is_odd_is_told() {
        for (files, part) in [
            (vec![], "no file"),
            (vec![file("a", ""), file("a", "")], "two files \"a\""),
            (vec![file("../a", "")], "no name of a file"),
            (vec![file("", "")], "no name of a file"),
            (vec![file("a.cedar", "permit(principal")], "a.cedar:1: "),
        ] {
            let problems = parse(&files).expect_err(part);
            assert!(problems[0].contains(part), "{problems:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_put_is_in_force_after_a_start_and_replaces_what_it_says() {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open_in_memory().expect("a store"));
        let runtime = Runtime::open(store.clone(), Default::default()).await;
        let runtime = runtime.expect("a runtime");
        let (in_force, _) = start(&runtime, None, false, Default::default())
            .await
            .expect("starts");
        assert_eq!(in_force.get_with_origin().1, Origin::None);
        let alice = Permit::granted("PutPolicies", "alice".into(), "oidc".into());
        let (one, other) = (policies("one"), policies("other"));
        put(&runtime, &in_force, &one, "none", &alice)
            .await
            .expect("is put");
        // Two who have seen the same: one of them comes too late.
        let late = put(&runtime, &in_force, &other, "none", &alice).await;
        assert!(matches!(late, Err(PutError::Changed(_))), "{late:?}");
        let hash = Hash(one.hash()).to_string();
        put(&runtime, &in_force, &other, &hash, &alice)
            .await
            .expect("is put");
        runtime.stop();

        let runtime = Runtime::open(store.clone(), Default::default()).await;
        let runtime = runtime.expect("a runtime");
        let (in_force, _) = start(&runtime, None, true, Default::default())
            .await
            .expect("starts");
        let (now, origin) = in_force.get_with_origin();
        assert_eq!(now.expect("policies").ids(), ["other"]);
        assert_eq!(origin, Origin::Api);
        let changes = changes(&*store).await.expect("changes");
        let hashes: Vec<_> = changes.iter().map(|of| of.was.as_str()).collect();
        assert_eq!(hashes, [hash.as_str(), "none"]);
        assert!(changes.iter().all(|of| of.cause.principal == "alice"));

        // Files win, and what was put stays for when they go.
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("f.cedar");
        let text = "@id(\"of-files\") permit(principal, action, resource);";
        std::fs::write(&path, text).expect("writes");
        let (in_force, _) = start(&runtime, Some(&path), true, Default::default())
            .await
            .expect("starts");
        assert_eq!(in_force.get().expect("policies").ids(), ["of-files"]);
        let hash = Hash(in_force.get().expect("policies").hash()).to_string();
        let refused = put(&runtime, &in_force, &one, &hash, &alice).await;
        assert!(matches!(refused, Err(PutError::Files(_))), "{refused:?}");
        let (in_force, _) = start(&runtime, None, true, Default::default())
            .await
            .expect("starts");
        assert_eq!(in_force.get().expect("policies").ids(), ["other"]);
        runtime.stop();
    }
}
