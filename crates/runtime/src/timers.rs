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
use steadfast_store::DuePlace;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::aggregate::{Workflow, WorkflowKey};
use crate::permit::Permit;
use crate::runtime::Runtime;

/// How far ahead memory knows.
const HORIZON: Time = 60 * SECOND;

/// How often the store is asked for what comes into the horizon.
const SCAN_INTERVAL: Duration = Duration::from_secs(20);

/// How often queues that are held up are looked at.
const QUEUE_INTERVAL: Duration = Duration::from_millis(50);

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

/// The look into the store's index of wake times: it goes on in batches, so that a backlog costs
/// time, and not memory.
struct Scan {
    /// When the next batch is read.
    next: Instant,
    /// Where it begins; none for the beginning.
    after: Option<DuePlace>,
}

impl Scan {
    /// Where and when to go on after a batch, of which this is the last run if the batch is full.
    ///
    /// What is due before that run is in memory by now. What of it comes into the index later was in
    /// memory when it was decided, within the horizon, and was armed then.
    fn go_on(&mut self, last: Option<DuePlace>, now: Time) {
        self.after = last;
        let pause = last.map_or(SCAN_INTERVAL, |last| {
            Duration::from_nanos(u64::try_from(last.at - now).unwrap_or(0)).min(SCAN_INTERVAL)
        });
        self.next = Instant::now() + pause;
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
        let mut scan = Scan {
            next: Instant::now(),
            after: None,
        };
        let mut next_rearm = Instant::now();
        loop {
            if Instant::now() >= scan.next {
                self.scan_store(&mut scan).await;
            }
            if Instant::now() >= next_rearm {
                next_rearm = Instant::now() + SCAN_INTERVAL;
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
                () = tokio::time::sleep_until(scan.next.min(next_rearm)) => {}
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

    /// Takes up the next batch of what the store says is due within the horizon.
    async fn scan_store(&self, scan: &mut Scan) {
        let now = crate::clock::now();
        let limit = self.0.settings.wake_batch;
        let due = self.0.store.due_runs(scan.after, now + HORIZON, limit);
        match due.await {
            Ok(due) => {
                let last = due.last().filter(|_| due.len() >= limit);
                scan.go_on(last.map(|(place, _)| *place), now);
                for (place, run) in due {
                    let key = WorkflowKey::new(run.namespace_id, run.workflow_id);
                    if !self.has_in_memory(&key, &run.run_id) {
                        self.0.timers.push(place.at, key, run.run_id);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "reading what is due failed: trying again later");
                scan.next = Instant::now() + SCAN_INTERVAL;
            }
        }
    }

    /// Whether a run is in memory, and so is armed. Others of its workflow id say nothing of it.
    fn has_in_memory(&self, key: &WorkflowKey, run_id: &str) -> bool {
        let mut shard = self.0.shards.of(key.slot()).lock();
        let workflow = shard.ready(key);
        workflow.is_some_and(|workflow| workflow.runs.contains_key(run_id))
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

#[cfg(test)]
mod tests {
    use steadfast_engine::proto::workflowservice::StartWorkflowExecutionRequest;
    use steadfast_engine::time::duration;

    use super::*;
    use crate::Settings;
    use crate::testing::{Bed, start};

    fn settings() -> Settings {
        Settings {
            wake_batch: 10,
            ..Settings::default()
        }
    }

    /// Runs that are due, and that only the store knows.
    async fn due_runs(count: usize) -> Bed {
        let bed = Bed::open(settings()).await;
        for number in 0..count {
            bed.start(StartWorkflowExecutionRequest {
                workflow_run_timeout: Some(duration(SECOND)),
                ..start(&format!("flow-{number}"))
            })
            .await;
        }
        let store = bed.stop().await;
        tokio::time::sleep(Duration::from_millis(1100)).await;
        Bed::reopen(store, settings()).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backlog_is_woken_batch_after_batch_without_a_pause() {
        let bed = due_runs(45).await;
        let patience = Instant::now() + SCAN_INTERVAL / 2;
        while bed.runtime.counters().0 < 45 {
            assert!(Instant::now() < patience, "{:?}", bed.runtime.counters());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_run_is_in_memory_only_if_it_is_there_itself() {
        let bed = Bed::open(settings()).await;
        let run_id = bed.start(start("flow")).await;
        let key = bed.key("flow");
        assert!(bed.runtime.has_in_memory(&key, &run_id));
        assert!(!bed.runtime.has_in_memory(&key, "another"));
        assert!(!bed.runtime.has_in_memory(&bed.key("other"), &run_id));
    }

    #[test]
    fn a_scan_goes_on_when_the_last_batch_is_used_up() {
        let mut scan = Scan {
            next: Instant::now(),
            after: None,
        };
        let at = |at| DuePlace { at, tie: 1 };
        let table = [
            (None, SCAN_INTERVAL),
            (Some(at(-5)), Duration::ZERO),
            (Some(at(5 * SECOND)), Duration::from_secs(5)),
            (Some(at(50 * SECOND)), SCAN_INTERVAL),
        ];
        for (last, pause) in table {
            let before = Instant::now();
            scan.go_on(last, 0);
            assert_eq!(scan.after, last);
            assert!(scan.next >= before + pause, "{last:?}");
            assert!(scan.next <= Instant::now() + pause, "{last:?}");
        }
    }
}
