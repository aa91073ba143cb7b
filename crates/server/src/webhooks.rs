//! Webhooks: what happens to approvals is told to others, as CloudEvents signed per Standard Webhooks.
//!
//! What is told follows from a namespace's log: each webhook has a place in it, which moves on when what is
//! there was delivered. So nothing is lost when a process dies, and what waits for an endpoint that is down
//! takes no memory. Each webhook is served by a task of its own.

mod deliver;
mod events;
mod places;
mod send;
mod sign;

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use steadfast_runtime::Runtime;

use crate::config::{Config, WebhookConfig};
use crate::evidence::Logs;
use deliver::Deliverer;
pub(crate) use events::{APPROVALS, TOOL_DENIED};
use send::Sender;

/// How things are with one webhook.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStatus {
    /// Its name.
    pub name: String,
    /// Scheme and host of its address: the rest may be a secret.
    pub host: String,
    /// Events that were taken since the start.
    pub delivered: u64,
    /// Attempts that failed since the start.
    pub failed: u64,
    /// Events that were given up since the start.
    pub given_up: u64,
    /// Entries of logs that are to be looked at.
    pub lag_entries: u64,
    /// When the oldest event that waits happened (RFC 3339); none if none is known to wait.
    pub waiting_since: Option<String>,
    /// Why the last attempt failed; none if it did not.
    pub error: Option<String>,
}

impl WebhookStatus {
    /// How long the oldest event has been waiting.
    pub(crate) fn waiting_seconds(&self) -> u64 {
        let since = self.waiting_since.as_deref().unwrap_or_default();
        let since = chrono::DateTime::parse_from_rfc3339(since).ok();
        let since = since.and_then(|of| of.timestamp_nanos_opt());
        let age = since.map_or(0, |of| steadfast_runtime::clock::now().saturating_sub(of));
        u64::try_from(age / steadfast_engine::time::SECOND).unwrap_or(0)
    }
}

/// All webhooks. Cheap to clone.
#[derive(Clone, Default)]
pub struct Webhooks(Arc<Inner>);

#[derive(Default)]
struct Inner {
    configs: Vec<WebhookConfig>,
    status: Mutex<Vec<WebhookStatus>>,
}

impl Webhooks {
    /// Has every webhook know its places in the logs, before anything happens that it is to tell.
    pub async fn open(runtime: &Runtime, config: &Config) -> Result<Self, String> {
        let mut status = Vec::new();
        for webhook in &config.webhooks {
            let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", webhook.name);
            sign::read(&webhook.secret).map_err(|error| failed(&error))?;
            Sender::new(webhook).map_err(|error| failed(&error))?;
            let established = places::establish(runtime, webhook).await;
            established.map_err(|error| failed(&error))?;
            status.push(WebhookStatus {
                name: webhook.name.clone(),
                host: webhook.host(),
                ..WebhookStatus::default()
            });
        }
        Ok(Self(Arc::new(Inner {
            configs: config.webhooks.clone(),
            status: Mutex::new(status),
        })))
    }

    /// How things are.
    pub fn status(&self) -> Vec<WebhookStatus> {
        self.0.status.lock().clone()
    }

    /// Starts a task for each.
    pub fn start(&self, runtime: &Runtime, logs: &Logs) -> Vec<tokio::task::JoinHandle<()>> {
        let configs = self.0.configs.iter().enumerate();
        let tasks = configs.map(|(place, config)| {
            let deliverer = Deliverer::new(runtime, logs, config, self.clone(), place);
            tokio::spawn(deliverer.run())
        });
        tasks.collect()
    }

    fn update(&self, place: usize, change: impl FnOnce(&mut WebhookStatus)) {
        if let Some(status) = self.0.status.lock().get_mut(place) {
            change(status);
        }
    }
}
