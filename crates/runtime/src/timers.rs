//! Timers: which workflow has something due, and when.
//!
//! Memory holds only the near future. What is due later is found through the store's index of wake
//! times, so a million sleeping sessions cost disk, not memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use parking_lot::Mutex;
use steadfast_engine::Time;
use steadfast_engine::time::SECOND;
use tokio::sync::Notify;

use crate::aggregate::{Workflow, WorkflowKey};
use crate::permit::Permit;
use crate::runtime::Runtime;

/// How far ahead memory knows.
const HORIZON: Time = 60 * SECOND;

/// How often the store is asked for what comes into the horizon.
const SCAN_INTERVAL: Duration = Duration::from_secs(20);

/// How often queues that are held up are looked at.
const QUEUE_INTERVAL: Duration = Duration::from_millis(50);

/// Most runs that one scan takes up.
const SCAN_LIMIT: usize = 20_000;

/// Most workflows woken at the same time.
const CONCURRENT_WAKES: usize = 64;

/// The near future.
#[derive(Default)]
pub struct Timers {
    queue: Mutex<BinaryHeap<Reverse<(Time, WorkflowKey, String)>>>,
    sooner: Notify,
}

impl Timers {
    fn push(&self, at: Time, key: WorkflowKey, run_id: String) {
        let mut queue = self.queue.lock();
        let sooner = queue
            .peek()
            .is_none_or(|Reverse((first, _, _))| at < *first);
        queue.push(Reverse((at, key, run_id)));
        drop(queue);
        if sooner {
            self.sooner.notify_one();
        }
    }

    fn take_due(&self, now: Time) -> Vec<(WorkflowKey, String)> {
        let mut queue = self.queue.lock();
        let mut due = Vec::new();
        while let Some(Reverse((at, _, _))) = queue.peek()
            && *at <= now
        {
            if let Some(Reverse((_, key, run_id))) = queue.pop() {
                due.push((key, run_id));
            }
        }
        due
    }

    fn next(&self) -> Option<Time> {
        self.queue.lock().peek().map(|Reverse((at, _, _))| *at)
    }
}

impl Runtime {
    /// Remembers when the workflow's runs have something due, if that is soon. What is due later is
    /// in the store's index before it is forgotten here.
    pub(crate) fn arm_timers(&self, key: &WorkflowKey, workflow: &mut Workflow) {
        let horizon = crate::clock::now() + HORIZON;
        for (run_id, live) in &mut workflow.runs {
            let Some(at) = live.run.next_wake() else {
                continue;
            };
            if at < horizon && live.armed.is_none_or(|armed| at < armed) {
                live.armed = Some(at);
                self.0.timers.push(at, key.clone(), run_id.clone());
            }
        }
    }

    /// Wakes what is due, until the server stops.
    pub(crate) async fn run_timers(self) {
        let mut next_scan = tokio::time::Instant::now();
        loop {
            if tokio::time::Instant::now() >= next_scan {
                next_scan = tokio::time::Instant::now() + SCAN_INTERVAL;
                self.scan_store().await;
                self.rearm_live().await;
            }
            let now = crate::clock::now();
            let due = self.0.timers.take_due(now);
            for chunk in due.chunks(CONCURRENT_WAKES) {
                let wakes = chunk.iter().map(|(key, run_id)| self.wake(key, run_id));
                futures::future::join_all(wakes).await;
            }
            let sleep = self.0.timers.next().map_or(SCAN_INTERVAL, |at| {
                let nanos = u64::try_from(at - crate::clock::now()).unwrap_or(0);
                Duration::from_nanos(nanos).min(SCAN_INTERVAL)
            });
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = self.0.timers.sooner.notified() => {}
                () = tokio::time::sleep_until(next_scan) => {}
            }
        }
    }

    /// Looks after queues that a rate limit or the bound of memory keeps waiting.
    pub(crate) async fn run_queues(self) {
        loop {
            tokio::time::sleep(QUEUE_INTERVAL).await;
            self.release_throttled().await;
            for queue in self.0.matching.wants_prefetch() {
                if let Err(error) = self.prefetch(&queue).await {
                    tracing::warn!(%error, queue = %queue.name, "reading a backlog failed: trying again");
                }
            }
        }
    }

    async fn wake(&self, key: &WorkflowKey, run_id: &str) {
        let permit = Permit::internal("timer");
        // Loading, or being in memory, is enough: whatever is due happens at the beginning of every
        // transition.
        let result = self
            .transact_early(&permit, key, run_id, |workflow, _| {
                if let Some(live) = workflow.runs.get_mut(run_id) {
                    live.armed = None;
                }
                Ok(())
            })
            .await;
        if let Err(error) = result
            && !matches!(
                error,
                crate::RuntimeError::Engine(steadfast_engine::Error::NotFound(_))
            )
        {
            tracing::warn!(%error, workflow_id = %key.workflow_id, "waking a workflow failed: trying again");
            self.0
                .timers
                .push(crate::clock::now() + SECOND, key.clone(), run_id.to_owned());
        }
    }

    /// Takes up what the store says is due within the horizon.
    async fn scan_store(&self) {
        let before = crate::clock::now() + HORIZON;
        match self.0.store.due_runs(before, SCAN_LIMIT).await {
            Ok(due) => {
                for (at, run) in due {
                    let key = WorkflowKey::new(run.namespace_id, run.workflow_id);
                    let in_memory = self.0.shards.of(key.slot()).lock().ready(&key).is_some();
                    if !in_memory {
                        self.0.timers.push(at, key, run.run_id);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "reading what is due failed: trying again later"),
        }
    }

    /// Arms live workflows again whose next deadline has come into the horizon.
    async fn rearm_live(&self) {
        for shard in self.0.shards.iter() {
            let mut shard = shard.lock();
            for (key, workflow) in shard.workflows() {
                self.arm_timers(key, workflow);
            }
        }
        self.0.matching.forget_unused();
    }

    /// Hands out tasks that a rate limit had held back.
    async fn release_throttled(&self) {
        for queue in self.0.matching.throttled() {
            for (task, waiting) in self.0.matching.pair(&queue) {
                self.hand_over(&queue, task, waiting).await;
            }
        }
    }
}
