//! The check of a store against itself: every run is replayed, and its state and entries are made
//! again and compared with what is stored; every tree is built again from its entries.

mod erased;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use prost::Message;
use steadfast_engine::{Run, RunState};
use steadfast_ledger::tile::Appender;
use steadfast_ledger::{Entry, Hash};
use steadfast_store::filter::Filter;
use steadfast_store::{LogState, RunRef, Store, VisibilityQuery};

use super::archive::{Entries, Events, Records};
use super::{Sealer, entry_hash, erase};
use crate::error::Result;

/// Runs listed at a time.
const PAGE: usize = 500;

/// Bytes of a log read at a time.
const READ_BYTES: usize = 4 << 20;

/// What was looked at, and the differences that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Entries of logs.
    pub entries: u64,
    /// Runs that were replayed.
    pub runs: u64,
    /// Their records.
    pub records: u64,
    /// Runs whose payloads are erased: their events were compared with the log, but not replayed.
    pub erased: u64,
    /// Differences, each with its place, in the order in which they were found.
    pub differences: Vec<String>,
}

/// The end of a chain, as a log has it.
#[derive(Clone, Copy, Default)]
struct End {
    /// Number of its first entry: not 1 for a run from before there was evidence.
    first: u64,
    n: u64,
    hash: Option<Hash>,
    deleted: bool,
    /// Where its entries are: none is before, and none after.
    from: u64,
    to: u64,
}

/// What the log says.
#[derive(Default)]
struct Said {
    /// The ends of the chains, by run; that of the namespace's own under an empty id.
    ends: HashMap<String, End>,
    /// Runs whose payloads were erased.
    erased: HashSet<String>,
}

/// Checks the log of a namespace and all runs of the namespace. `progress` is told what was done.
pub async fn check_namespace(
    store: &dyn Store,
    sealer: &Sealer,
    namespace_id: &str,
    namespace: &str,
    mut progress: impl FnMut(&Findings),
) -> Result<Findings> {
    let mut findings = Findings::default();
    let logs = store.logs().await?;
    let log = logs
        .into_iter()
        .find(|log| log.namespace_id == namespace_id)
        .unwrap_or_default();
    let mut said = check_log(store, namespace_id, &log, &mut findings, &mut progress).await?;
    let mut cursor = None;
    loop {
        let page = store
            .list_visibility(VisibilityQuery {
                namespace_id: namespace_id.to_owned(),
                filter: Filter::everything(),
                page_size: PAGE,
                cursor,
            })
            .await?;
        for row in &page.rows {
            let run = RunRef {
                namespace_id: namespace_id.to_owned(),
                workflow_id: row.workflow_id.clone(),
                run_id: row.run_id.clone(),
            };
            let about = About {
                log: &log,
                end: said.ends.remove(&row.run_id).unwrap_or_default(),
                erased: said.erased.contains(&row.run_id),
            };
            check_run(store, sealer, namespace, &run, about, &mut findings).await?;
        }
        progress(&findings);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    // What is left was in the log and not among the runs.
    said.ends.remove("");
    for (run_id, end) in said.ends {
        let is_deleted = |entry: &Entry<'_>| entry.deleted && entry.run_id == run_id.as_str();
        if !end.deleted && !said_since(store, namespace_id, log.size, &run_id, is_deleted).await? {
            findings.add(format!(
                "run {run_id} has {} entries in the log, and is not in the store",
                end.n
            ));
        }
    }
    Ok(findings)
}

/// Whether the log says something of a run after its first `size` entries.
async fn said_since(
    store: &dyn Store,
    namespace_id: &str,
    size: u64,
    run_id: &str,
    is_it: impl Fn(&Entry<'_>) -> bool,
) -> Result<bool> {
    let logs = store.logs().await?;
    let now = logs.iter().find(|log| log.namespace_id == namespace_id);
    let end = now.map_or(size, |log| log.size);
    let mut index = size;
    while index < end {
        let page = store
            .log_entries(namespace_id, index, usize::MAX, READ_BYTES)
            .await?;
        let mentions = |bytes: &&Vec<u8>| memchr::memmem::find(bytes, run_id.as_bytes()).is_some();
        let mut found = page.iter().filter(mentions);
        if page.is_empty() || found.any(|bytes| Entry::parse(bytes).is_ok_and(|of| is_it(&of))) {
            return Ok(!page.is_empty());
        }
        index += page.len() as u64;
    }
    Ok(false)
}

/// Builds the tree of a log again, and follows the chains in it. Gives the ends of the chains.
async fn check_log(
    store: &dyn Store,
    namespace_id: &str,
    log: &LogState,
    findings: &mut Findings,
    progress: &mut impl FnMut(&Findings),
) -> Result<Said> {
    let mut said = Said::default();
    let mut tree = Appender::default();
    let mut index = 0;
    while index < log.size {
        let page = store
            .log_entries(namespace_id, index, usize::MAX, READ_BYTES)
            .await?;
        if page.is_empty() {
            findings.add(format!("the log has no entry {index} of {}", log.size));
            return Ok(said);
        }
        for bytes in page.iter().take((log.size - index) as usize) {
            tree.append(Hash::leaf(bytes));
            match Entry::parse(bytes) {
                Ok(entry) => {
                    let end = said.ends.entry(entry.run_id.to_string()).or_default();
                    follow(index, &entry, bytes, end, findings);
                    if let Some(run_id) = erased_by(&entry) {
                        said.erased.insert(run_id.to_owned());
                    }
                }
                Err(error) => findings.add(format!("entry {index} of the log: {error}")),
            }
            index += 1;
            findings.entries += 1;
        }
        progress(findings);
    }
    for (tile, hashes) in tree.take_changes() {
        let stored = store.log_tile(namespace_id, tile.level, tile.index).await?;
        let is_same = stored.is_some_and(|stored| stored.starts_with(&hashes));
        if !is_same {
            findings.add(format!(
                "tile {} of level {} is not made of the log's entries",
                tile.index, tile.level
            ));
        }
    }
    let chain = said.ends.get("").copied().unwrap_or_default();
    if chain.n != log.chain_n {
        findings.add(format!(
            "the namespace's own chain has {} entries, and the store says {}",
            chain.n, log.chain_n
        ));
    }
    Ok(said)
}

/// The run that an entry says was erased.
fn erased_by<'a>(entry: &'a Entry<'_>) -> Option<&'a str> {
    let note = entry.note.as_ref().filter(|_| entry.run_id.is_empty())?;
    (note.what == erase::NOTE).then_some(note.run_id.as_ref())
}

fn follow(index: u64, entry: &Entry<'_>, bytes: &[u8], end: &mut End, findings: &mut Findings) {
    let what = match entry.run_id.as_ref() {
        "" => "the namespace's own chain".to_owned(),
        run_id => format!("run {run_id}"),
    };
    let is_first = end.n == 0 && entry.prev.is_none();
    if entry.n != end.n + 1 && !is_first {
        findings.add(format!(
            "entry {index} of the log is number {} of {what}, after number {}",
            entry.n, end.n
        ));
    } else if entry.prev != end.hash {
        findings.add(format!(
            "entry {index} of the log, number {} of {what}, does not hold the hash of the one before",
            entry.n
        ));
    }
    *end = End {
        first: if is_first { entry.n } else { end.first },
        n: entry.n,
        hash: Some(Hash::leaf(bytes)),
        deleted: entry.deleted,
        from: if end.n == 0 { index } else { end.from },
        to: index + 1,
    };
}

/// What the log says of a run.
struct About<'a> {
    log: &'a LogState,
    end: End,
    erased: bool,
}

/// Replays a run or, if it is erased, compares what is left of it.
async fn check_run(
    store: &dyn Store,
    sealer: &Sealer,
    namespace: &str,
    run: &RunRef,
    about: About<'_>,
    findings: &mut Findings,
) -> Result<()> {
    let About { log, end, .. } = about;
    let of_run = |what: String| format!("run {}: {what}", run.run_id);
    let Some(stored) = store.load_run(run).await? else {
        let (id, run_id) = (&run.namespace_id, &run.run_id);
        let is_deleted = |entry: &Entry<'_>| entry.deleted && entry.run_id == run_id.as_str();
        if !end.deleted && !said_since(store, id, log.size, run_id, is_deleted).await? {
            findings.add(of_run("its state is missing".to_owned()));
        }
        return Ok(());
    };
    let expected = match RunState::decode(stored.snapshot.as_slice()) {
        Ok(state) => state,
        Err(error) => {
            findings.add(of_run(format!("its state cannot be read: {error}")));
            return Ok(());
        }
    };
    if expected.erased {
        return check_erased(store, run, about, &expected, findings).await;
    }
    if about.erased {
        findings.add(of_run(
            "the log says that it is erased, and it is not".to_owned(),
        ));
    }
    if end.deleted || expected.entry_hash.is_empty() || end.first > 1 {
        // Deleted meanwhile, or from before there was evidence: its first records were not kept.
        return Ok(());
    }
    findings.runs += 1;
    if end.n > expected.n {
        findings.add(of_run(format!(
            "the log has {} entries, and its state stands for {} records",
            end.n, expected.n
        )));
        return Ok(());
    }
    let mut replay = Replay {
        sealer,
        namespace,
        live: Run::default(),
        records: Records::new(store, run.clone()),
        events: Events::new(store, run.clone()),
        entries: Entries::new(store, run, 0, log.size),
        in_log: end.n,
    };
    while replay.live.state.n < expected.n {
        match replay.step().await {
            Ok(Step::Same) => findings.records += 1,
            Ok(Step::NoRecord) => {
                let n = replay.live.state.n + 1;
                findings.add(of_run(format!("record {n} is missing")));
                return Ok(());
            }
            Ok(Step::Differs(what)) => {
                findings.add(of_run(what));
                return Ok(());
            }
            Err(error) => {
                findings.add(of_run(error.to_string()));
                return Ok(());
            }
        }
    }
    if replay.live.state != expected {
        findings.add(of_run(format!(
            "the state after its {} records is not the stored one",
            expected.n
        )));
    }
    Ok(())
}

async fn check_erased(
    store: &dyn Store,
    run: &RunRef,
    about: About<'_>,
    state: &RunState,
    findings: &mut Findings,
) -> Result<()> {
    findings.erased += 1;
    let (namespace_id, run_id) = (&run.namespace_id, run.run_id.as_str());
    let says_so = |entry: &Entry<'_>| erased_by(entry) == Some(run_id);
    let is_said =
        about.erased || said_since(store, namespace_id, about.log.size, run_id, says_so).await?;
    if !is_said {
        findings.add(format!(
            "run {run_id}: it is erased, and the log does not say so"
        ));
    }
    match erased::compare(store, run, state, &about.end).await {
        Ok(None) => {}
        Ok(Some(what)) => findings.add(format!("run {run_id}: {what}")),
        Err(error) => findings.add(format!("run {run_id}: {error}")),
    }
    Ok(())
}

struct Replay<'a> {
    sealer: &'a Sealer,
    namespace: &'a str,
    live: Run,
    records: Records<'a>,
    events: Events<'a>,
    entries: Entries<'a>,
    /// Entries of the run that the log has. Records of the last moment may not be in it yet.
    in_log: u64,
}

enum Step {
    Same,
    NoRecord,
    Differs(String),
}

impl Replay<'_> {
    /// Applies the next record, makes its entry again, and compares.
    async fn step(&mut self) -> Result<Step> {
        let Some(mut record) = self.records.next().await? else {
            return Ok(Step::NoRecord);
        };
        let next_id = self.live.state.next_event_id;
        self.events.fill(&mut record, next_id).await?;
        self.live.apply_record(&record)?;
        self.live.tail.clear();
        let n = record.n;
        let logged = match n <= self.in_log {
            true => {
                self.entries.skip_to(self.records.log_from);
                self.entries.next().await?
            }
            false => None,
        };
        let parsed = match &logged {
            Some(logged) => Entry::parse(&logged.entry).ok(),
            None if n <= self.in_log => {
                return Ok(Step::Differs(format!("the log has no entry of record {n}")));
            }
            None => None,
        };
        // What a run follows is not in its own records: the chains are followed in the log.
        let follows = parsed.as_ref().and_then(|entry| entry.follows.as_ref());
        let hash = follows.map(|of| of.entry.map_or_else(Vec::new, |hash| hash.0.to_vec()));
        let follows = follows
            .zip(hash.as_deref())
            .map(|(of, hash)| (of.run_id.as_ref(), hash));
        let made: Bytes = self
            .sealer
            .entry(self.namespace, &self.live.state, &record, follows);
        if let Some(logged) = &logged
            && made != logged.entry
        {
            let index = logged.index;
            return Ok(Step::Differs(format!(
                "record {n} does not give entry {index} of the log"
            )));
        }
        self.live.state.entry_hash = entry_hash(&made);
        Ok(Step::Same)
    }
}

impl Findings {
    /// Differences that are listed. More of them say nothing new.
    const MAX: usize = 100;

    fn add(&mut self, difference: String) {
        if self.differences.len() < Self::MAX {
            self.differences.push(difference);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Settings;
    use crate::testing::{Bed, start};

    #[tokio::test(flavor = "multi_thread")]
    async fn runs_from_before_there_was_evidence_go_on_with_it() {
        let without = Settings {
            evidence: false,
            ..Settings::default()
        };
        let bed = Bed::open(without).await;
        bed.start(start("old")).await;
        let store = bed.stop().await;
        let bed = Bed::reopen(store, Settings::default()).await;
        bed.signal("old", 10).await.expect("signalled");
        bed.start(start("new")).await;
        let id = bed.key("old").namespace_id;
        let findings = bed.runtime.check_evidence(&id, |_| {}).await;
        let findings = findings.expect("is checked");
        assert_eq!(findings.differences, Vec::<String>::new());
        // The new run; the old one cannot be replayed.
        assert_eq!((findings.runs, findings.entries), (1, 2));
        let store = bed.stop().await;
        let bed = Bed::reopen(store, Settings::default()).await;
        bed.signal("old", 10).await.expect("signalled");
        let findings = bed.runtime.check_evidence(&id, |_| {}).await;
        assert_eq!(
            findings.expect("is checked").differences,
            Vec::<String>::new()
        );
    }
}
