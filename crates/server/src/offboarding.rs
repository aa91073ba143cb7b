//! Offboarding certificates: put together from what a disabling came upon and from the logs, signed by the key
//! of a log, and kept.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use steadfast_engine::Time as Nanoseconds;
use steadfast_engine::time::SECOND;
use steadfast_ledger::entry::{AttemptItem, Note, Time};
use steadfast_ledger::offboarding::{Attempt, Certificate, Credential, Log, Place, Session};
use steadfast_ledger::{Entry, Hash};
use steadfast_runtime::calls::principals::Found;
use steadfast_runtime::disabled::{Fate, Who};
use steadfast_runtime::offboarding::Offboarding;
use steadfast_runtime::{Permit, Runtime, RuntimeError, clock};

use crate::evidence::Logs;
use crate::evidence::publisher::PublishedLog;

/// Kind of the stored records: one for each disabling, the envelope.
const KIND: &str = "offboarding-certificate";

/// What the entry says that it is.
const CERTIFIED: &str = "principal/certified";

/// The namespace whose log signs, if it is there.
const DEFAULT: &str = "default";

/// Entries that are read at a time, and at most.
const PAGE: u64 = 1000;
const MAX_ENTRIES: u64 = 5_000_000;

/// Longer than a credential is valid: those that were given out before cannot matter.
const LONGEST_CREDENTIAL: Nanoseconds = 3600 * SECOND;

/// How long the logs may take to be signed, and how often that is looked at.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum NoCertificate {
    /// There is nothing to certify.
    #[error("{0} was never disabled")]
    NeverDisabled(String),
    /// It is too early.
    #[error("the sessions of {0} are being stopped: try again")]
    UnderWay(String),
    /// The logs are behind.
    #[error("the logs are not signed as far as that yet: try again")]
    NotSigned,
    /// A log has too many entries since then.
    #[error("more than {MAX_ENTRIES} entries would have to be looked through")]
    TooLate,
    /// The store or the runtime failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// What is stored makes no sense.
    #[error("{0}")]
    Invalid(String),
}

type Result<T> = std::result::Result<T, NoCertificate>;

/// The certificate about the last disabling of a principal. It is made once, and then the same for ever. A log
/// has its hash.
pub async fn certificate(
    runtime: &Runtime,
    logs: &Logs,
    permit: &Permit,
    who: &Who,
) -> Result<Vec<u8>> {
    let of = runtime.offboarding(who).await?;
    let of = of.ok_or_else(|| NoCertificate::NeverDisabled(who.name()))?;
    let Some(completed) = of.completed else {
        return Err(NoCertificate::UnderWay(who.name()));
    };
    if let Some(kept) = kept(runtime, &of, completed).await? {
        return Ok(kept);
    }
    let signed = signed_logs(runtime, logs, who).await?;
    // One key signs all logs.
    let (namespace, log) = signed.first().ok_or(NoCertificate::NotSigned)?;
    let certificate = assemble(runtime, &of, completed, &signed).await?;
    let envelope = certificate.sign(&log.signer);
    let envelope = envelope.map_err(|error| NoCertificate::Invalid(error.to_string()))?;
    let note = Note {
        what: CERTIFIED.into(),
        detail: format!("{} {}: {}", who.kind(), who.name(), Hash::of(&envelope)).into(),
        ..Note::default()
    };
    runtime.note(permit, &log.namespace_id, note).await?;
    tracing::info!(
        principal = who.name(),
        namespace,
        "an offboarding certificate was signed"
    );
    let key = key(&of, completed);
    let put = runtime.store().put_record(KIND, &key, envelope.clone());
    put.await.map_err(RuntimeError::from)?;
    Ok(envelope)
}

fn key(of: &Offboarding, completed: Nanoseconds) -> String {
    format!("{} {completed:020}", of.key())
}

async fn kept(
    runtime: &Runtime,
    of: &Offboarding,
    completed: Nanoseconds,
) -> Result<Option<Vec<u8>>> {
    let records = runtime.store().records(KIND).await;
    let mut records = records.map_err(RuntimeError::from)?.into_iter();
    let key = key(of, completed);
    Ok(records
        .find(|(of, _)| *of == key)
        .map(|(_, envelope)| envelope))
}

/// The logs that say something about it, once they are signed as far as they have come.
async fn signed_logs(
    runtime: &Runtime,
    logs: &Logs,
    who: &Who,
) -> Result<Vec<(String, PublishedLog)>> {
    let mut sizes = Vec::new();
    for namespace in runtime.namespaces().all() {
        let is_meant = match who {
            Who::Caller { .. } => true,
            Who::Agent { namespace: of, .. } => *of == namespace.name,
        };
        if !is_meant {
            continue;
        }
        let size = runtime.log_size(&namespace.id).await?;
        if size > 0 {
            sizes.push((namespace.name.clone(), size));
        }
    }
    // The first one signs: that of the namespace that nearly every server has.
    sizes.sort_by_key(|(name, _)| name != DEFAULT);
    let begun = tokio::time::Instant::now();
    loop {
        let signed: Option<Vec<_>> = sizes
            .iter()
            .map(|(name, size)| {
                let log = logs.get(name)?;
                (log.head.size >= *size).then(|| (name.clone(), log))
            })
            .collect();
        match signed {
            Some(signed) => return Ok(signed),
            None if begun.elapsed() > PATIENCE => return Err(NoCertificate::NotSigned),
            None => tokio::time::sleep(LOOK_INTERVAL).await,
        }
    }
}

async fn assemble(
    runtime: &Runtime,
    of: &Offboarding,
    completed: Nanoseconds,
    logs: &[(String, PublishedLog)],
) -> Result<Certificate> {
    let mut ends: HashMap<(String, String), (String, Place)> = HashMap::new();
    let mut credentials = Vec::new();
    for (namespace, log) in logs {
        let runs = of.found.iter().filter(|of| of.namespace == *namespace);
        let runs: HashSet<&str> = runs.map(|of| of.run_id.as_str()).collect();
        if runs.is_empty() {
            continue;
        }
        let since = of.at.saturating_sub(LONGEST_CREDENTIAL);
        scan_back(runtime, log, since, |index, bytes, entry| {
            if !runs.contains(entry.run_id.as_ref()) {
                return;
            }
            let still = entry.attempts.iter();
            let still = still.filter_map(|attempt| credential(namespace, entry, attempt, of.at));
            credentials.extend(still);
            let Some(state) = end(entry, of) else {
                return;
            };
            let place = Place {
                index,
                leaf: Hash::leaf(bytes).to_string(),
                time: entry.t,
            };
            let key = (namespace.clone(), entry.run_id.to_string());
            // From the last one back: how a session ended counts, and else since when it rests.
            match ends.get(&key) {
                Some((known, _)) if known != "paused" => {}
                _ => drop(ends.insert(key, (state, place))),
            }
        })
        .await?;
    }
    let sessions = of.found.iter().map(|found| {
        let key = (found.namespace.clone(), found.run_id.clone());
        session(found, ends.remove(&key))
    });
    let sessions = sessions.collect();
    let certificate = Certificate {
        kind: of.principal.kind().to_owned(),
        principal: of.principal.name(),
        disabled: Time(of.at),
        disabled_by: of.by.clone(),
        reason: of.reason.clone(),
        asked: match of.sessions {
            Fate::Pause => "pause".to_owned(),
            Fate::Revoke => "revoke".to_owned(),
        },
        completed: Time(completed),
        session_count: of.counted,
        sessions,
        attempts: of.found.iter().flat_map(attempts).collect(),
        credentials,
        credentials_until: None,
        logs: logs
            .iter()
            .map(|(namespace, log)| head(namespace, log))
            .collect(),
        issued: Time(clock::now().max(completed)),
    };
    Ok(certificate.finish())
}

/// Looks at the entries of a log that are not older than a time, the newest first, as far as it is signed.
async fn scan_back(
    runtime: &Runtime,
    log: &PublishedLog,
    since: Nanoseconds,
    mut visit: impl FnMut(u64, &[u8], &Entry<'_>),
) -> Result<()> {
    let mut end = log.head.size;
    while end > 0 {
        if log.head.size - end >= MAX_ENTRIES {
            return Err(NoCertificate::TooLate);
        }
        let first = end.saturating_sub(PAGE);
        let count = usize::try_from(end - first).unwrap_or(usize::MAX);
        let page = runtime
            .store()
            .log_entries(&log.namespace_id, first, count, usize::MAX);
        let page = page.await.map_err(RuntimeError::from)?;
        let mut is_older = true;
        for (bytes, index) in page
            .iter()
            .zip(first..)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            let entry = Entry::parse(bytes);
            let entry = entry.map_err(|error| NoCertificate::Invalid(error.to_string()))?;
            is_older &= entry.t.0 < since;
            visit(index, bytes, &entry);
        }
        // Entries are nearly in the order of their times.
        if is_older || page.is_empty() {
            return Ok(());
        }
        end = first;
    }
    Ok(())
}

fn credential(
    namespace: &str,
    entry: &Entry<'_>,
    attempt: &AttemptItem<'_>,
    since: Nanoseconds,
) -> Option<Credential> {
    let of = attempt
        .credential
        .as_ref()
        .filter(|of| of.expires.0 > since)?;
    Some(Credential {
        expires: of.expires,
        id: of.jti.to_string(),
        audience: of.audience.to_string(),
        namespace: namespace.to_owned(),
        workflow_id: entry.workflow_id.to_string(),
        run_id: entry.run_id.to_string(),
        tool: attempt.activity_type.to_string(),
        worker: attempt.worker.to_string(),
    })
}

/// What an entry says about the end of a session, or its rest.
fn end(entry: &Entry<'_>, of: &Offboarding) -> Option<String> {
    const PAUSED: &str = "WORKFLOW_EXECUTION_PAUSED";
    if entry.t.0 < of.at {
        return None;
    }
    if !entry.closed.is_empty() {
        return Some(entry.closed.to_lowercase());
    }
    // A pause while a worker has the workflow task gets its place in history later.
    let is_pause = entry.events.iter().any(|of| of.event_type == PAUSED)
        || entry.buffered.iter().any(|of| of.event_type == PAUSED);
    is_pause.then(|| "paused".to_owned())
}

fn session(found: &Found, end: Option<(String, Place)>) -> Session {
    // It rested before if no entry says that it was paused since.
    let (state, entry) = match end {
        Some((state, place)) => (state, Some(place)),
        None => ("paused".to_owned(), None),
    };
    Session {
        namespace: found.namespace.clone(),
        workflow_id: found.workflow_id.clone(),
        run_id: found.run_id.clone(),
        workflow_type: found.workflow_type.clone(),
        initiator: found.initiator.clone(),
        state,
        entry,
    }
}

fn attempts(found: &Found) -> impl Iterator<Item = Attempt> + '_ {
    found.attempts.iter().map(|held| Attempt {
        namespace: found.namespace.clone(),
        workflow_id: found.workflow_id.clone(),
        run_id: found.run_id.clone(),
        activity_id: held.activity_id.clone(),
        tool: held.tool.clone(),
        attempt: held.attempt.into(),
        worker: held.worker.clone(),
    })
}

fn head(namespace: &str, log: &PublishedLog) -> Log {
    Log {
        namespace: namespace.to_owned(),
        origin: log.origin.clone(),
        size: log.head.size,
        root: log.head.root.to_string(),
    }
}
