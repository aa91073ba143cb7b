//! Where each webhook is in the logs, and the calls that it told of and that are not over: stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use steadfast_runtime::{Runtime, RuntimeError};
use steadfast_store::{Store, StoreError};

use super::events::{Call, Open};
use crate::config::WebhookConfig;

/// Kinds of the stored records. Keys begin with the webhook's name.
const WEBHOOK: &str = "webhook";
const PLACE: &str = "webhook-place";
const OPEN: &str = "webhook-open";

/// What a webhook was configured to look at.
#[derive(Deserialize, PartialEq, Serialize)]
struct Known {
    namespaces: Vec<String>,
}

/// Gives a webhook that is new, or looks at other namespaces than before, its places: what happens from
/// now on is told. A namespace that is made later is told of from its beginning.
pub(super) async fn establish(
    runtime: &Runtime,
    webhook: &WebhookConfig,
) -> Result<(), RuntimeError> {
    let store = &**runtime.store();
    let known = store.record(WEBHOOK, &webhook.name).await?;
    let known = known.and_then(|of| serde_json::from_slice::<Known>(&of).ok());
    let now = Known {
        namespaces: webhook.namespaces.clone(),
    };
    if known.as_ref() == Some(&now) {
        return Ok(());
    }
    for namespace in runtime.namespaces().all() {
        let place = place(store, &webhook.name, &namespace.id).await?;
        match (webhook.looks_at(&namespace.name), place) {
            (true, None) => {
                let size = runtime.log_size(&namespace.id).await?;
                put_place(store, &webhook.name, &namespace.id, size).await?;
            }
            (false, Some(_)) => {
                let key = format!("{}/{}", webhook.name, namespace.id);
                store.delete_record(PLACE, &key).await?;
            }
            _ => {}
        }
    }
    // At last: a start that ends before does it again.
    let known = serde_json::to_vec(&now).unwrap_or_default();
    store.put_record(WEBHOOK, &webhook.name, known).await?;
    Ok(())
}

/// The next entry to look at.
pub(super) async fn place(
    store: &dyn Store,
    webhook: &str,
    namespace_id: &str,
) -> Result<Option<u64>, StoreError> {
    let key = format!("{webhook}/{namespace_id}");
    let stored = store.record(PLACE, &key).await?;
    Ok(stored.and_then(|of| String::from_utf8(of).ok()?.parse().ok()))
}

/// Moves on.
pub(super) async fn put_place(
    store: &dyn Store,
    webhook: &str,
    namespace_id: &str,
    next: u64,
) -> Result<(), StoreError> {
    let key = format!("{webhook}/{namespace_id}");
    let value = next.to_string().into_bytes();
    store.put_record(PLACE, &key, value).await
}

fn key_of(webhook: &str, namespace_id: &str, call: &Call) -> String {
    let Call { run_id, event_id } = call;
    format!("{webhook}/{namespace_id}/{run_id}/{event_id}")
}

/// The calls that were told of and are not over.
pub(super) async fn open(
    store: &dyn Store,
    webhook: &str,
    namespace_id: &str,
) -> Result<BTreeMap<Call, Open>, StoreError> {
    let prefix = format!("{webhook}/{namespace_id}/");
    let mut open = BTreeMap::new();
    for (key, value) in store.records(OPEN).await? {
        let call = key.strip_prefix(&prefix).and_then(|of| {
            let (run_id, event_id) = of.rsplit_once('/')?;
            Some(Call {
                run_id: run_id.to_owned(),
                event_id: event_id.parse().ok()?,
            })
        });
        if let (Some(call), Ok(value)) = (call, serde_json::from_slice(&value)) {
            open.insert(call, value);
        }
    }
    Ok(open)
}

/// Remembers a call that was told of.
pub(super) async fn put_open(
    store: &dyn Store,
    webhook: &str,
    namespace_id: &str,
    call: &Call,
    open: &Open,
) -> Result<(), StoreError> {
    let key = key_of(webhook, namespace_id, call);
    let value = serde_json::to_vec(open).unwrap_or_default();
    store.put_record(OPEN, &key, value).await
}

/// Forgets one that is over.
pub(super) async fn delete_open(
    store: &dyn Store,
    webhook: &str,
    namespace_id: &str,
    call: &Call,
) -> Result<(), StoreError> {
    let key = key_of(webhook, namespace_id, call);
    store.delete_record(OPEN, &key).await
}
