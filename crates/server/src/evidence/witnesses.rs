//! Witnesses (`c2sp.org/tlog-witness`): others that vouch that a log only ever grew.
//!
//! Each witness is served by a task of its own, so that one that is down holds nobody up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use steadfast_ledger::note::{Note, VerifierKey};
use steadfast_ledger::witness::{AddCheckpoint, Answer};
use steadfast_runtime::Runtime;

use super::{Logs, PublishedLog, reader};
use crate::config::WitnessConfig;

/// How often a witness is asked at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a witness may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest pause after failures.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Most bytes of an answer that are read.
const MAX_ANSWER: u64 = 64 * 1024;

/// How things are with one witness.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WitnessStatus {
    /// Its name.
    pub name: String,
    /// Its verifier key.
    #[serde(skip)]
    pub key: Option<VerifierKey>,
    /// The size of each log that it cosigned last, by origin.
    pub cosigned: HashMap<String, u64>,
    /// Why the last request failed; none if it did not.
    pub error: Option<String>,
}

/// All witnesses, for the status page. Cheap to clone.
#[derive(Clone, Default)]
pub struct Witnesses(Arc<Mutex<Vec<WitnessStatus>>>);

impl Witnesses {
    /// How things are.
    pub fn status(&self) -> Vec<WitnessStatus> {
        self.0.lock().clone()
    }

    /// Their verifier keys.
    pub fn keys(&self) -> Vec<VerifierKey> {
        let all = self.0.lock();
        all.iter().filter_map(|one| one.key.clone()).collect()
    }

    /// Starts a task for each witness.
    pub fn start(
        &self,
        runtime: &Runtime,
        logs: &Logs,
        configs: &[WitnessConfig],
    ) -> Result<Vec<tokio::task::JoinHandle<()>>, String> {
        let mut tasks = Vec::new();
        for config in configs {
            let key = VerifierKey::parse(&config.key)
                .map_err(|error| format!("key of witness {}: {error}", config.url))?;
            let place = {
                let mut all = self.0.lock();
                all.push(WitnessStatus {
                    name: key.name().to_owned(),
                    key: Some(key.clone()),
                    ..WitnessStatus::default()
                });
                all.len() - 1
            };
            let pusher = Pusher {
                runtime: runtime.clone(),
                logs: logs.clone(),
                url: format!("{}/add-checkpoint", config.url.trim_end_matches('/')),
                key,
                sizes: HashMap::new(),
            };
            tasks.push(tokio::spawn(pusher.run(self.clone(), place)));
        }
        Ok(tasks)
    }
}

/// Sends checkpoints to one witness.
struct Pusher {
    runtime: Runtime,
    logs: Logs,
    url: String,
    key: VerifierKey,
    /// The size of each log that the witness cosigned last, as far as we know.
    sizes: HashMap<String, u64>,
}

impl Pusher {
    async fn run(mut self, all: Witnesses, place: usize) {
        let mut pause = INTERVAL;
        loop {
            tokio::time::sleep(pause).await;
            let mut error = None;
            for (namespace, log) in self.logs.all() {
                if self.sizes.get(&log.origin) == Some(&log.head.size) {
                    continue;
                }
                if let Err(problem) = self.push(&namespace, &log).await {
                    error = Some(format!("{}: {problem}", log.origin));
                }
            }
            pause = match &error {
                None => INTERVAL,
                Some(_) => (pause * 2).min(MAX_PAUSE),
            };
            let mut all = all.0.lock();
            if let Some(status) = all.get_mut(place) {
                if let Some(error) = &error
                    && status.error.as_ref() != Some(error)
                {
                    tracing::warn!(witness = status.name, error, "a witness did not cosign");
                }
                status.error = error;
                status.cosigned.clone_from(&self.sizes);
            }
        }
    }

    /// Has one checkpoint cosigned. A witness that knows another size than we thought says so, and is
    /// asked once more.
    async fn push(&mut self, namespace: &str, log: &PublishedLog) -> Result<(), String> {
        let checkpoint = Note::parse(&log.checkpoint).map_err(|error| error.to_string())?;
        for _ in 0..2 {
            let old_size = self.sizes.get(&log.origin).copied().unwrap_or(0);
            if old_size > log.head.size {
                return Err(format!(
                    "the witness has seen {old_size} entries, and the log has {}: it was rolled back",
                    log.head.size
                ));
            }
            let store = self.runtime.store();
            let (id, size) = (&log.namespace_id, log.head.size);
            let proof = reader::consistency_proof(&**store, id, old_size, size).await;
            let proof = proof.map_err(|error| error.to_string())?;
            let request = AddCheckpoint {
                old_size,
                proof: proof.ok_or("the log's tiles are not all there")?,
                checkpoint: checkpoint.clone(),
            };
            let (status, body) = self.send(request.to_string()).await?;
            let witnesses = std::slice::from_ref(&self.key);
            match Answer::parse(status, &body, &checkpoint, witnesses) {
                Ok(Answer::Cosigned(signatures)) => {
                    let lines: String = signatures
                        .iter()
                        .map(|signature| format!("{signature}\n"))
                        .collect();
                    self.sizes.insert(log.origin.clone(), size);
                    self.logs.cosign(namespace, log, &lines);
                    return Ok(());
                }
                Ok(Answer::Conflict { size }) => self.sizes.insert(log.origin.clone(), size),
                Err(error) => return Err(format!("{error}: {}", body.trim())),
            };
        }
        Err("the witness keeps changing its mind about the size".to_owned())
    }

    async fn send(&self, request: String) -> Result<(u16, String), String> {
        let url = self.url.clone();
        let send = move || {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .timeout_global(Some(PATIENCE))
                .http_status_as_error(false)
                .build()
                .into();
            let mut answer = agent.post(&url).send(request)?;
            let status = answer.status().as_u16();
            let body = answer.body_mut().with_config().limit(MAX_ANSWER);
            Ok::<_, ureq::Error>((status, body.read_to_string()?))
        };
        let sent = tokio::task::spawn_blocking(send).await;
        sent.map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    }
}
