//! What the server was started with, where it matters to who reads a log. A start with other settings
//! than the one before is said in the log of each namespace: a log has to be understood by itself, and
//! who has one may not have the others.

use std::collections::BTreeMap;

use steadfast_ledger::Hash;
use steadfast_ledger::entry::Note;
use steadfast_runtime::{Permit, Runtime};

use crate::config::{Config, ReadsConfig};

/// Kind and key of the stored record.
const KIND: &str = "configuration";
const LAST: &str = "last";

/// What the entry says that it is.
const STARTED: &str = "configuration/started";

/// Whether there is a log. Known for starts without one, which cannot say so themselves.
const LOG: &str = "evidence.log";

/// Settings by name, as text. No paths, no addresses, no secrets.
type Settings = BTreeMap<String, String>;

/// Notes what is different from the last start, and remembers what is in force now.
pub async fn note_changes(runtime: &Runtime, config: &Config) -> Result<(), String> {
    let store = runtime.store();
    let stored = store.records(KIND).await;
    let stored = stored.map_err(|error| error.to_string())?;
    let last = match stored.iter().find(|(key, _)| key == LAST) {
        Some((_, bytes)) => {
            let last = serde_json::from_slice::<Settings>(bytes);
            Some(last.map_err(|error| format!("the stored configuration: {error}"))?)
        }
        None => None,
    };
    let mut now = effective(config);
    if config.evidence.off_for_benchmarks {
        // The next start with a log says that there was none, and compares the rest with before.
        now = last.clone().unwrap_or(now);
        now.insert(LOG.into(), "off".into());
    }
    if last.as_ref() == Some(&now) {
        return Ok(());
    }
    if let Some(last) = last {
        let detail = detail(&last, &now);
        for namespace in runtime.namespaces().all() {
            let note = Note {
                what: STARTED.into(),
                detail: detail.as_str().into(),
                ..Note::default()
            };
            let permit = Permit::internal("configuration");
            let noted = runtime.note(&permit, &namespace.id, note).await;
            noted.map_err(|error| error.to_string())?;
        }
    }
    // At last: a start that ends before says it again.
    let bytes = serde_json::to_vec(&now).map_err(|error| error.to_string())?;
    let put = store.put_record(KIND, LAST, bytes).await;
    put.map_err(|error| error.to_string())
}

/// What is in force, by the names of the configuration file.
fn effective(config: &Config) -> Settings {
    let limits = config.settings().limits;
    let evidence = &config.evidence;
    let reads = match evidence.reads {
        ReadsConfig::None => "none",
        ReadsConfig::History => "history",
        ReadsConfig::All => "all",
    };
    // Of a witness only the key: its address may hold a password.
    let mut witnesses: Vec<_> = evidence.witnesses.iter().map(|of| &*of.key).collect();
    witnesses.sort_unstable();
    let pragmas = config.store.pragmas.iter();
    // The one that decides what a power failure may take. Others may be secrets.
    let synchronous = pragmas
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("synchronous"))
        .map(|(_, value)| value.trim().to_lowercase())
        .next_back();
    let settings = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        (LOG, "on".to_owned()),
        ("evidence.origin", evidence.origin.clone()),
        ("evidence.reads", reads.to_owned()),
        ("evidence.witnesses", witnesses.join(" ")),
        ("insecure", config.insecure.to_string()),
        ("limits.blob_bytes", limits.blob_bytes.to_string()),
        ("limits.memo_bytes", limits.memo_bytes.to_string()),
        ("limits.history_events", limits.history_events.to_string()),
        ("limits.history_bytes", limits.history_bytes.to_string()),
        (
            "limits.suggest_history_events",
            limits.suggest_history_events.to_string(),
        ),
        (
            "limits.suggest_history_bytes",
            limits.suggest_history_bytes.to_string(),
        ),
        ("limits.pending", limits.pending.to_string()),
        ("limits.signals", limits.signals.to_string()),
        ("store.synchronous", synchronous.unwrap_or("full".into())),
    ];
    let mut settings: Settings = settings
        .map(|(name, value)| (name.to_owned(), value))
        .into();
    settings.extend(who_is_let_in(config));
    settings.extend(who_is_believed(config));
    settings.extend(what_tools_are_given(config));
    settings.extend(who_is_told(config));
    settings
}

/// Who is let in and how, where that is configured.
fn who_is_let_in(config: &Config) -> Settings {
    let auth = &config.auth;
    let mut issuers: Vec<_> = auth.oidc.iter().map(|of| &*of.issuer).collect();
    issuers.sort_unstable();
    let on = |is_on: bool| if is_on { "on" } else { "" };
    let domain = auth.mtls.as_ref().map(|of| match &of.trust_domain {
        Some(domain) => format!("spiffe://{domain}"),
        None => "on".to_owned(),
    });
    [
        ("auth.api_keys", on(auth.api_keys).to_owned()),
        ("auth.mtls", domain.unwrap_or_default()),
        ("auth.oidc", issuers.join(" ")),
        ("auth.public_log", on(auth.public_log).to_owned()),
        ("tls", on(config.tls.is_some()).to_owned()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// What credentials of tool calls are like, where there are some.
fn what_tools_are_given(config: &Config) -> Settings {
    let Some(of) = &config.credentials else {
        return Settings::new();
    };
    let audiences = of.audiences.iter();
    let audiences = audiences.map(|(tool, audience)| format!("{tool}={audience}"));
    [
        ("credentials", "on".to_owned()),
        ("credentials.issuer", of.issuer.clone()),
        ("credentials.audience", of.audience.clone()),
        (
            "credentials.audiences",
            audiences.collect::<Vec<_>>().join(" "),
        ),
        (
            "credentials.lifetime_seconds",
            of.lifetime_seconds.to_string(),
        ),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Who is told of what, where there are webhooks.
fn who_is_told(config: &Config) -> Settings {
    let webhooks = config.webhooks.iter().map(|of| {
        let arguments = if of.arguments { " with arguments" } else { "" };
        let told = format!("{} {}{arguments}", of.host(), of.events.join(","));
        (format!("webhooks.{}", of.name), told)
    });
    webhooks.collect()
}

/// Whose attestations are believed, where anybody's are.
fn who_is_believed(config: &Config) -> Settings {
    let prove = &config.prove;
    if prove.trusted_keys.is_empty() {
        return Settings::new();
    }
    let mut keys = prove.trusted_keys.clone();
    keys.sort_unstable();
    let settings = [
        ("prove.max_age_days", prove.max_age_days.to_string()),
        (
            "prove.min_coverage_percent",
            prove.min_coverage_percent.to_string(),
        ),
        ("prove.trusted_keys", keys.join(" ")),
    ];
    settings
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

/// What changed, and a digest of all that is in force: two starts with the same one had the same
/// settings.
fn detail(last: &Settings, now: &Settings) -> String {
    let none = String::new();
    let mut changes = Vec::new();
    let names: std::collections::BTreeSet<_> = last.keys().chain(now.keys()).collect();
    for name in names {
        let (was, is) = (last.get(name), now.get(name));
        if was != is {
            let (was, is) = (was.unwrap_or(&none), is.unwrap_or(&none));
            changes.push(format!("{name}: {was:?} -> {is:?}"));
        }
    }
    // The digest goes first: the end is what an entry cuts off.
    format!("{}; {}", digest(now), changes.join("; "))
}

fn digest(settings: &Settings) -> String {
    let lines: String = settings
        .iter()
        .map(|(name, value)| format!("{name}={value:?}\n"))
        .collect();
    format!("settings {}", Hash::of(lines.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use steadfast_ledger::Entry;
    use steadfast_runtime::namespaces::Namespace;
    use steadfast_store::Store;
    use steadfast_store::sqlite::SqliteStore;

    use super::*;

    /// Starts with a configuration and gives the notes of each namespace's log.
    async fn start(store: &Arc<SqliteStore>, config: &Config) -> Vec<Vec<String>> {
        let shared: Arc<dyn Store> = store.clone();
        let runtime = Runtime::open(shared, config.settings()).await;
        let runtime = runtime.expect("a runtime");
        for name in ["one", "two"] {
            if runtime.namespaces().by_name(name).is_err() {
                let namespace = Namespace::new(name);
                let put = runtime.namespaces().put(&**runtime.store(), namespace);
                put.await.expect("a namespace");
            }
        }
        note_changes(&runtime, config).await.expect("noted");
        let mut logs = Vec::new();
        for namespace in runtime.namespaces().all() {
            runtime.log_size(&namespace.id).await.expect("projected");
            let entries = store.log_entries(&namespace.id, 0, 100, usize::MAX).await;
            let notes = entries.expect("entries").into_iter().map(|entry| {
                let entry = Entry::parse(&entry).expect("an entry");
                assert_eq!(entry.cause.call, "internal/configuration");
                let note = entry.note.expect("a note");
                assert_eq!(note.what, STARTED);
                note.detail
                    .split_once("; ")
                    .expect("two parts")
                    .1
                    .to_owned()
            });
            logs.push(notes.collect());
        }
        runtime.stop();
        logs
    }

    fn store() -> Arc<SqliteStore> {
        Arc::new(SqliteStore::open_in_memory().expect("a store"))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_start_with_other_settings_is_in_each_log_once() {
        let store = store();
        let before = Config::default();
        let mut after = Config::default();
        after.limits.signals = Some(7);
        after.auth.api_keys = true;
        after.evidence.reads = ReadsConfig::All;
        after.evidence.witnesses = vec![crate::config::WitnessConfig {
            url: "https://user:password@witness.example".into(),
            key: "witness.example+00000000+key".into(),
        }];
        after.store.pragmas = [("KEY", "secret"), ("synchronous", "normal")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let none: [Vec<String>; 2] = Default::default();
        assert_eq!(start(&store, &before).await, none);
        assert_eq!(start(&store, &before).await, none);
        let change = "auth.api_keys: \"\" -> \"on\"; evidence.reads: \"none\" -> \"all\"; \
             evidence.witnesses: \"\" -> \"witness.example+00000000+key\"; \
             limits.signals: \"10000\" -> \"7\"; \
             store.synchronous: \"full\" -> \"normal\"";
        let once = vec![change.to_owned()];
        assert_eq!(start(&store, &after).await, [once.clone(), once.clone()]);
        assert_eq!(start(&store, &after).await, [once.clone(), once]);
        let back = start(&store, &before).await;
        assert!(
            back[0][1].contains("limits.signals: \"7\" -> \"10000\""),
            "{back:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_start_without_a_log_is_told_by_the_next_one() {
        let store = store();
        let on = Config::default();
        let mut off = Config::default();
        off.evidence.off_for_benchmarks = true;
        off.limits.signals = Some(7);
        start(&store, &on).await;
        assert_eq!(start(&store, &off).await, [vec![], Vec::<String>::new()]);
        let told = vec!["evidence.log: \"off\" -> \"on\"".to_owned()];
        assert_eq!(start(&store, &on).await, [told.clone(), told]);
    }

    #[test]
    fn the_digest_is_that_of_all_settings() {
        let mut config = Config::default();
        let one = digest(&effective(&config));
        assert_eq!(one, digest(&effective(&config)));
        config.limits.pending = Some(1);
        assert_ne!(one, digest(&effective(&config)));
    }
}
