//! A run as it is stored: its records with their events back in place, and its entries.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message;
use steadfast_engine::RunRecord;
use steadfast_engine::record::StepKind;
use steadfast_engine::state::RunState;
use steadfast_ledger::Entry;
use steadfast_ledger::skeleton::SaltKey;
use steadfast_store::{RunRef, Store};

use crate::error::{Result, RuntimeError};

/// Bytes of history or of the log read at a time.
const READ_BYTES: usize = 1 << 20;

/// Reads the records of a run, in order.
pub struct Records<'a> {
    store: &'a dyn Store,
    run: RunRef,
    next_n: u64,
    /// Whether the page that holds the next record may begin before it.
    in_the_middle: bool,
    page: VecDeque<RunRecord>,
    /// The log's size before the entries of the page were in it.
    pub log_from: u64,
}

impl<'a> Records<'a> {
    /// From the first one on.
    pub fn new(store: &'a dyn Store, run: RunRef) -> Self {
        Self {
            store,
            run,
            next_n: 1,
            in_the_middle: false,
            page: VecDeque::new(),
            log_from: 0,
        }
    }

    /// From record `n` on.
    pub fn from(store: &'a dyn Store, run: RunRef, n: u64) -> Self {
        Self {
            next_n: n,
            in_the_middle: true,
            ..Self::new(store, run)
        }
    }

    /// The next record, without its events; none after the last.
    pub async fn next(&mut self) -> Result<Option<RunRecord>> {
        if self.page.is_empty() {
            let Some(page) = self.store.record_page(&self.run, self.next_n).await? else {
                return Ok(None);
            };
            self.log_from = page.log_from;
            for (n, bytes) in (page.first_n..).zip(&page.records) {
                let mut record = RunRecord::decode(bytes.as_slice())
                    .map_err(|error| self.damaged(n, &error.to_string()))?;
                record.run_id.clone_from(&self.run.run_id);
                if record.n != n {
                    return Err(self.damaged(n, "it has another number"));
                }
                self.page.push_back(record);
            }
            let before = self.next_n.saturating_sub(page.first_n);
            if std::mem::take(&mut self.in_the_middle) {
                let before = usize::try_from(before).unwrap_or(usize::MAX);
                self.page.drain(..before.min(self.page.len()));
            } else if page.first_n != self.next_n {
                return Err(self.damaged(self.next_n, "it is missing"));
            }
        }
        let record = self.page.pop_front();
        self.next_n += u64::from(record.is_some());
        Ok(record)
    }

    fn damaged(&self, n: u64, why: &str) -> RuntimeError {
        RuntimeError::Internal(format!(
            "record {n} of run {} cannot be read: {why}",
            self.run.run_id
        ))
    }
}

/// The secret of a run's salts: in its state or, if the run was deleted and its history is kept for
/// another, in its records. None if it has none: it was erased, or is from before there was evidence.
pub async fn salts_of(
    store: &dyn Store,
    run: &RunRef,
    state: Option<&RunState>,
) -> Result<Option<SaltKey>> {
    let salt = match state {
        Some(state) => state.salt.clone(),
        None => {
            let page = store.record_page(run, 1).await?;
            let first = page.as_ref().and_then(|page| page.records.first());
            let record = first.map(|bytes| RunRecord::decode(bytes.as_slice()));
            let record = record.transpose().map_err(|error| {
                RuntimeError::Internal(format!("a record of run {}: {error}", run.run_id))
            })?;
            // The first record that is kept is the one that brought it.
            record.map_or_else(Bytes::new, |record| record.salt)
        }
    };
    Ok(salt.as_ref().try_into().ok().map(SaltKey))
}

/// Reads the events that a run itself wrote, in order.
pub struct Events<'a> {
    store: &'a dyn Store,
    run: RunRef,
    page: VecDeque<(i64, Vec<u8>)>,
}

impl<'a> Events<'a> {
    /// The events of a run's own branch.
    pub fn new(store: &'a dyn Store, run: RunRef) -> Self {
        Self {
            store,
            run,
            page: VecDeque::new(),
        }
    }

    /// The stored bytes of an event; none if it is not there.
    pub async fn get(&mut self, id: i64) -> Result<Option<Bytes>> {
        while self.page.front().is_some_and(|(first, _)| *first < id) {
            self.page.pop_front();
        }
        if self.page.is_empty() {
            let (namespace, run) = (&self.run.namespace_id, &self.run.run_id);
            let read = self
                .store
                .read_history(namespace, run, id, i64::MAX, READ_BYTES);
            self.page = read.await?.into();
        }
        match self.page.front() {
            Some((first, _)) if *first == id => {
                Ok(self.page.pop_front().map(|(_, bytes)| Bytes::from(bytes)))
            }
            _ => Ok(None),
        }
    }

    /// Puts the events of a record back into it. `next_id` is the run's next event id before it.
    pub async fn fill(&mut self, record: &mut RunRecord, mut next_id: i64) -> Result<()> {
        for step in &mut record.steps {
            let wanted: &mut [Bytes] = match &mut step.kind {
                Some(StepKind::Begin(_)) => {
                    next_id = 1;
                    continue;
                }
                Some(StepKind::Fork(fork)) => {
                    let state = RunState::decode(fork.state.as_slice());
                    next_id = state.map_or(next_id, |state| state.next_event_id);
                    continue;
                }
                Some(StepKind::Event(bytes)) => std::slice::from_mut(bytes),
                Some(StepKind::Flush(flush)) => &mut flush.events,
                _ => continue,
            };
            for bytes in wanted {
                *bytes = self.get(next_id).await?.ok_or_else(|| {
                    RuntimeError::Internal(format!(
                        "event {next_id} of run {} is missing",
                        self.run.run_id
                    ))
                })?;
                next_id += 1;
            }
        }
        Ok(())
    }
}

/// An entry at its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its index.
    pub index: u64,
    /// Its exact bytes.
    pub entry: Vec<u8>,
}

/// Finds the entries of one run in the log of its namespace, in order.
pub struct Entries<'a> {
    store: &'a dyn Store,
    namespace_id: String,
    run_id: String,
    /// The bytes that only entries of the run have.
    mark: Vec<u8>,
    next: u64,
    size: u64,
    page: VecDeque<Vec<u8>>,
}

impl<'a> Entries<'a> {
    /// Looks through the first `size` entries of the log, from `from` on.
    pub fn new(store: &'a dyn Store, run: &RunRef, from: u64, size: u64) -> Self {
        Self {
            store,
            namespace_id: run.namespace_id.clone(),
            run_id: run.run_id.clone(),
            mark: format!("\"run_id\":\"{}\"", run.run_id).into_bytes(),
            next: from,
            size,
            page: VecDeque::new(),
        }
    }

    /// Goes on no earlier than at `from`: nothing of the run is in between.
    pub fn skip_to(&mut self, from: u64) {
        while self.next < from && self.page.pop_front().is_some() {
            self.next += 1;
        }
        self.next = self.next.max(from);
    }

    /// The next entry of the run; none if there is none up to the size.
    pub async fn next(&mut self) -> Result<Option<Logged>> {
        while self.next < self.size {
            if self.page.is_empty() {
                let count = usize::try_from(self.size - self.next).unwrap_or(usize::MAX);
                let read = self
                    .store
                    .log_entries(&self.namespace_id, self.next, count, READ_BYTES);
                self.page = read.await?.into();
            }
            let Some(entry) = self.page.pop_front() else {
                return Ok(None);
            };
            let index = self.next;
            self.next += 1;
            // Most entries are of other runs: these are not parsed.
            let mentions = memchr::memmem::find(&entry, &self.mark).is_some();
            if mentions && Entry::parse(&entry).is_ok_and(|of| of.run_id == self.run_id.as_str()) {
                return Ok(Some(Logged { index, entry }));
            }
        }
        Ok(None)
    }
}
