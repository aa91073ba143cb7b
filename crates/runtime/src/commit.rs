//! The group committer: one thread appends what all runs decided, one fsync per group.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use steadfast_store::{JournalRow, Store, StoreError};
use tokio::sync::oneshot;

use crate::error::{Result, RuntimeError};
use crate::evidence::Leaf;

/// What happens once a row is durable. It runs on the committer's thread: short, never blocking.
pub type AfterCommit = Box<dyn FnOnce() + Send>;

/// Names what has to be durable before an answer that depends on it is given. After a failed group
/// positions are given out again, so a position alone does not say which row is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Failed groups before it was given out.
    epoch: u64,
    /// Position in the journal.
    pub seq: u64,
}

/// How many failures back a late caller is still answered exactly.
const REMEMBERED_FAILURES: usize = 10_000;

/// What happens when a group could not be written: it drops everything in memory that depends on it,
/// and calls the given function before it lets anybody decide again.
pub type OnFailure = Box<dyn Fn(&mut dyn FnMut()) + Send>;

/// Most bytes of rows that may wait for the disk before callers are slowed.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// Most rows of one group: bounds the time until the first of them is answered.
const MAX_GROUP: usize = 4096;

/// The queue in front of the journal.
pub struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    committed: AtomicU64,
    groups: AtomicU64,
    /// Counts failed groups. Changes only while all shards are locked.
    epoch: AtomicU64,
    /// Entries that are durable and not yet in the logs, in the order of the journal, with their
    /// rows' positions.
    unlogged: Mutex<VecDeque<(u64, Leaf)>>,
}

/// A row on its way to the journal.
struct Waiting {
    row: JournalRow,
    leaves: Vec<Leaf>,
    after: AfterCommit,
}

#[derive(Default)]
struct Queue {
    rows: VecDeque<Waiting>,
    bytes: usize,
    next_seq: u64,
    waiters: VecDeque<(u64, oneshot::Sender<Result<()>>)>,
    /// The journal's head at each failure, newest last.
    failures: VecDeque<u64>,
    closed: bool,
}

impl Committer {
    /// Starts the committer's thread. `head` is the journal's last durable position.
    pub fn start(store: Arc<dyn Store>, head: u64, on_failure: OnFailure) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                next_seq: head + 1,
                ..Queue::default()
            }),
            wake: Condvar::new(),
            committed: AtomicU64::new(head),
            groups: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            unlogged: Mutex::default(),
        });
        let thread = std::thread::Builder::new().name("commit".into()).spawn({
            let shared = shared.clone();
            move || run(&shared, &*store, &on_failure)
        })?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues a row and returns its position. The caller holds the lock of the workflow's shard, so
    /// that rows of one workflow are queued in the order in which they were decided. `leaves` are the
    /// row's entries.
    pub fn append(&self, slot: u16, bytes: Vec<u8>, leaves: Vec<Leaf>, after: AfterCommit) -> u64 {
        let mut queue = self.shared.queue.lock();
        let seq = queue.next_seq;
        queue.next_seq += 1;
        queue.bytes += bytes.len();
        queue.rows.push_back(Waiting {
            row: JournalRow { seq, slot, bytes },
            leaves,
            after,
        });
        drop(queue);
        self.shared.wake.notify_one();
        seq
    }

    /// Forgets the entries that are not in the logs: they are about to be read from the journal.
    pub(crate) fn forget_unlogged(&self) {
        self.shared.unlogged.lock().clear();
    }

    /// Entries of a row that was read from the journal.
    pub(crate) fn replay_unlogged(&self, seq: u64, leaves: Vec<Leaf>) {
        let leaves = leaves.into_iter().map(|leaf| (seq, leaf));
        self.shared.unlogged.lock().extend(leaves);
    }

    /// The entries of rows up to `seq` that are not in the logs.
    pub(crate) fn unlogged(&self, seq: u64) -> Vec<Leaf> {
        let unlogged = self.shared.unlogged.lock();
        let due = unlogged.iter().take_while(|(of, _)| *of <= seq);
        due.map(|(_, leaf)| leaf.clone()).collect()
    }

    /// They are in the logs now.
    pub(crate) fn logged(&self, seq: u64) {
        let mut unlogged = self.shared.unlogged.lock();
        let count = unlogged.partition_point(|(of, _)| *of <= seq);
        unlogged.drain(..count);
    }

    /// The ticket of a position that was read under the lock of a shard which is still held.
    pub fn ticket(&self, seq: u64) -> Ticket {
        Ticket {
            epoch: self.shared.epoch.load(Ordering::Acquire),
            seq,
        }
    }

    /// Whether no group has failed since a ticket was given out.
    pub fn is_current(&self, ticket: Ticket) -> bool {
        self.shared.epoch.load(Ordering::Acquire) == ticket.epoch
    }

    /// Whether it is durable already.
    pub fn is_durable(&self, ticket: Ticket) -> bool {
        // In this order: what was committed before the epoch was seen unchanged is of that epoch.
        self.committed() >= ticket.seq && self.is_current(ticket)
    }

    /// Waits until everything up to a ticket is durable. An error means that it never will be.
    pub async fn durable(&self, ticket: Ticket) -> Result<()> {
        if self.is_durable(ticket) {
            return Ok(());
        }
        let seq = ticket.seq;
        let receiver = {
            let mut queue = self.shared.queue.lock();
            let not_written =
                || RuntimeError::Unavailable("the transition was not written: try again".into());
            let epoch = self.shared.epoch.load(Ordering::Acquire);
            if epoch != ticket.epoch {
                // What was durable when that epoch ended still is; nothing else of it ever will be.
                let back = usize::try_from(epoch - ticket.epoch).unwrap_or(usize::MAX);
                let head = queue
                    .failures
                    .len()
                    .checked_sub(back)
                    .and_then(|at| queue.failures.get(at));
                return match head {
                    Some(head) if *head >= seq => Ok(()),
                    _ => Err(not_written()),
                };
            }
            if self.committed() >= seq {
                return Ok(());
            }
            if seq >= queue.next_seq {
                return Err(not_written());
            }
            let (sender, receiver) = oneshot::channel();
            let at = queue.waiters.partition_point(|(of, _)| *of <= seq);
            queue.waiters.insert(at, (seq, sender));
            receiver
        };
        receiver.await.unwrap_or_else(|_| {
            Err(RuntimeError::Unavailable(
                "the server is shutting down".into(),
            ))
        })
    }

    /// The last durable position.
    pub fn committed(&self) -> u64 {
        self.shared.committed.load(Ordering::Acquire)
    }

    /// Groups written so far.
    pub fn groups(&self) -> u64 {
        self.shared.groups.load(Ordering::Relaxed)
    }

    /// Whether so much waits for the disk that new work should wait too.
    pub fn is_behind(&self) -> bool {
        self.shared.queue.lock().bytes > MAX_WAITING_BYTES
    }

    /// Writes what is queued and ends the thread.
    pub fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the committer's thread panicked");
        }
    }
}

fn run(shared: &Shared, store: &dyn Store, on_failure: &OnFailure) {
    loop {
        let group: Vec<_> = {
            let mut queue = shared.queue.lock();
            while queue.rows.is_empty() {
                if queue.closed {
                    return;
                }
                shared.wake.wait(&mut queue);
            }
            let count = queue.rows.len().min(MAX_GROUP);
            let group: Vec<_> = queue.rows.drain(..count).collect();
            queue.bytes -= group.iter().map(|of| of.row.bytes.len()).sum::<usize>();
            group
        };
        let mut rows = Vec::with_capacity(group.len());
        let mut leaves = Vec::new();
        let mut after = Vec::with_capacity(group.len());
        for of in group {
            leaves.extend(of.leaves.into_iter().map(|leaf| (of.row.seq, leaf)));
            rows.push(of.row);
            after.push(of.after);
        }
        let last = rows.last().map_or(0, |row| row.seq);
        match append(store, &rows) {
            Ok(()) => {
                // Before the position is known as committed: whoever knows it finds them.
                shared.unlogged.lock().extend(leaves);
                succeed(shared, last, after);
            }
            Err(error) => fail(shared, store, error, on_failure),
        }
    }
}

/// Appends a group. Where the outcome is unknown the journal's head says what became of it.
fn append(store: &dyn Store, rows: &[JournalRow]) -> std::result::Result<(), StoreError> {
    let last = rows.last().map_or(0, |row| row.seq);
    let result = futures::executor::block_on(store.append(rows));
    match result {
        Err(StoreError::Unknown(message)) => {
            tracing::warn!(%message, "outcome of a commit is unknown: reading the journal back");
            match futures::executor::block_on(store.journal_head()) {
                Ok(head) if head >= last => Ok(()),
                Ok(_) => Err(StoreError::Unknown(message)),
                Err(error) => end_process(&error),
            }
        }
        Err(error @ (StoreError::SyncFailed(_) | StoreError::Corrupt(_))) => end_process(&error),
        other => other,
    }
}

/// After a failed fsync nothing that this process believes about the disk is worth anything.
pub(crate) fn end_process(error: &StoreError) -> ! {
    tracing::error!(%error, "the store cannot be trusted any more: ending the process");
    std::process::abort();
}

fn succeed(shared: &Shared, last: u64, after: Vec<AfterCommit>) {
    shared.committed.store(last, Ordering::Release);
    shared.groups.fetch_add(1, Ordering::Relaxed);
    let ready: Vec<_> = {
        let mut queue = shared.queue.lock();
        let count = queue.waiters.partition_point(|(seq, _)| *seq <= last);
        queue.waiters.drain(..count).collect()
    };
    for (_, waiter) in ready {
        // A caller that went away does not need its answer.
        let _ = waiter.send(Ok(()));
    }
    for after in after {
        after();
    }
}

/// A failed group voids all that was decided after it: nothing of it may ever be written.
fn fail(shared: &Shared, store: &dyn Store, error: StoreError, on_failure: &OnFailure) {
    tracing::error!(%error, "a commit failed: going back to what is on disk");
    let committed = shared.committed.load(Ordering::Acquire);
    let head = futures::executor::block_on(store.journal_head()).unwrap_or(committed);
    let head = head.max(committed);
    let mut waiters = VecDeque::new();
    on_failure(&mut || {
        let mut queue = shared.queue.lock();
        queue.rows.clear();
        queue.bytes = 0;
        queue.next_seq = head + 1;
        queue.failures.push_back(head);
        if queue.failures.len() > REMEMBERED_FAILURES {
            queue.failures.pop_front();
        }
        shared.epoch.fetch_add(1, Ordering::AcqRel);
        // After the epoch, which voids the tickets of rows that are there although they failed.
        shared.committed.store(head, Ordering::Release);
        waiters = std::mem::take(&mut queue.waiters);
    });
    let error = RuntimeError::from(error);
    for (_, waiter) in waiters {
        let _ = waiter.send(Err(error.clone()));
    }
}
