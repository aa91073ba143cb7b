//! Timers: which workflow has something due, and when.
//!
//! Memory holds only the near future. What is due later is found through the store's index of wake
//! times, so a million sleeping sessions cost disk, not memory.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use steadfast_engine::Time;
use steadfast_engine::time::SECOND;
use steadfast_store::DuePlace;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::aggregate::{Workflow, WorkflowKey};
use crate::error::Result;
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

/// For an alarm: at no time.
const NEVER: Time = Time::MAX;

/// The near future.
#[derive(Default)]
pub struct Timers {
    queue: Mutex<BinaryHeap<Reverse<Ring>>>,
    sooner: Notify,
    /// Time was skipped: what the store says is due has to be looked at.
    skipped: AtomicBool,
}

/// One place in the queue.
struct Ring {
    at: Time,
    alarm: Arc<Alarm>,
}

/// What wakes a run. A run in memory holds it as well and keeps `wanted` up to date, and what it said
/// last holds when it is let go: nothing is loaded from the store to find that nothing is due. Most
/// deadlines are of workflow tasks, which are done long before.
#[derive(Debug)]
pub struct Alarm {
    key: WorkflowKey,
    run_id: String,
    /// When the run has something due.
    wanted: AtomicI64,
    /// When the queue has it next.
    rings: AtomicI64,
}

impl Alarm {
    fn new(key: WorkflowKey, run_id: String, at: Time) -> Arc<Self> {
        Arc::new(Self {
            key,
            run_id,
            wanted: at.into(),
            rings: NEVER.into(),
        })
    }
}

impl Timers {
    fn push(&self, at: Time, alarm: Arc<Alarm>) {
        alarm.rings.store(at, SeqCst);
        let ring = Reverse(Ring { at, alarm });
        let mut queue = self.queue.lock();
        let sooner = queue.peek().is_none_or(|first| ring > *first);
        queue.push(ring);
        drop(queue);
        if sooner {
            self.sooner.notify_one();
        }
    }

    /// Takes what has something due. What is wanted later rings again then, or is forgotten until
    /// the store's index or memory brings it into the horizon.
    fn take_due(&self, now: Time) -> Vec<Arc<Alarm>> {
        let mut queue = self.queue.lock();
        let mut due = Vec::new();
        while queue.peek().is_some_and(|Reverse(ring)| ring.at <= now)
            && let Some(Reverse(Ring { alarm, .. })) = queue.pop()
        {
            // In this order: who changes `wanted` now sees that the queue has it no more.
            alarm.rings.store(NEVER, SeqCst);
            let at = alarm.wanted.load(SeqCst);
            if at <= now {
                due.push(alarm);
            } else if at < now + HORIZON {
                alarm.rings.store(at, SeqCst);
                queue.push(Reverse(Ring { at, alarm }));
            }
        }
        due
    }

    /// What runs wanted last may never have become durable: all that ring are woken to see.
    pub(crate) fn distrust(&self) {
        for Reverse(ring) in self.queue.lock().iter() {
            ring.alarm.wanted.store(Time::MIN, SeqCst);
        }
    }

    /// When the next run has something due, of those that memory knows of.
    fn next_wanted(&self) -> Option<Time> {
        let queue = self.queue.lock();
        let wanted = queue
            .iter()
            .map(|Reverse(ring)| ring.alarm.wanted.load(SeqCst));
        wanted.filter(|at| *at < NEVER).min()
    }

    fn next(&self) -> Option<Time> {
        self.queue.lock().peek().map(|Reverse(ring)| ring.at)
    }
}

impl PartialEq for Ring {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Ring {}

impl PartialOrd for Ring {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ring {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
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
            let at = live.run.next_wake().unwrap_or(NEVER);
            let alarm = match &live.alarm {
                Some(alarm) => {
                    alarm.wanted.store(at, SeqCst);
                    alarm
                }
                None if at >= horizon => continue,
                None => live
                    .alarm
                    .insert(Alarm::new(key.clone(), run_id.clone(), at)),
            };
            if at < horizon && at < alarm.rings.load(SeqCst) {
                self.0.timers.push(at, alarm.clone());
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
            if self.0.timers.skipped.swap(false, SeqCst) {
                scan.after = None;
                scan.next = Instant::now();
                next_rearm = Instant::now();
            }
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
                let wakes = chunk.iter().map(|alarm| self.wake(alarm));
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

    /// Skips time, for whoever tries out what happens later: to when the next run has something due, by
    /// `extra` nanoseconds more. Gives how many nanoseconds were skipped; none if nothing will ever be due.
    pub async fn skip_time(&self, extra: Time) -> Result<Option<Time>> {
        // Everything that memory does not know is in the store then.
        self.projected().await?;
        let now = crate::clock::now();
        let in_store = self.0.store.next_wake(Time::MIN).await?;
        let in_memory = self.0.timers.next_wanted();
        let Some(next) = in_store.into_iter().chain(in_memory).min() else {
            return Ok(None);
        };
        let skipped = (next - now).max(0).saturating_add(extra);
        self.skip_time_by(skipped);
        Ok(Some(skipped))
    }

    /// Skips so many nanoseconds.
    pub fn skip_time_by(&self, nanos: Time) {
        crate::clock::skip(nanos);
        self.0.timers.skipped.store(true, SeqCst);
        self.0.timers.sooner.notify_one();
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

    async fn wake(&self, alarm: &Arc<Alarm>) {
        let Alarm { key, run_id, .. } = &**alarm;
        let permit = Permit::internal("timer");
        // Loading, or being in memory, is enough: whatever is due happens at the beginning of every
        // transition.
        let result = self
            .transact_early(&permit, key, run_id, |_, _| Ok(()))
            .await;
        if let Err(error) = result
            && !matches!(
                error,
                crate::RuntimeError::Engine(steadfast_engine::Error::NotFound(_))
            )
        {
            tracing::warn!(%error, workflow_id = %key.workflow_id, "waking a workflow failed: trying again");
            let at = crate::clock::now() + SECOND;
            self.0.timers.push(at, alarm.clone());
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
                        let alarm = Alarm::new(key, run.run_id, place.at);
                        self.0.timers.push(place.at, alarm);
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

    fn due(timers: &Timers, now: Time) -> Vec<String> {
        let due = timers.take_due(now).into_iter();
        due.map(|alarm| alarm.run_id.clone()).collect()
    }

    #[test]
    fn an_alarm_rings_for_what_is_wanted_then() {
        let timers = Timers::default();
        let alarm = |run_id: &str| {
            let alarm = Alarm::new(WorkflowKey::new("n", "w"), run_id.to_owned(), 10);
            timers.push(10, alarm.clone());
            alarm
        };
        alarm("due");
        alarm("done").wanted.store(NEVER, SeqCst);
        alarm("later").wanted.store(20, SeqCst);
        let beyond = alarm("beyond");
        beyond.wanted.store(10 + HORIZON, SeqCst);
        assert_eq!(timers.next(), Some(10));
        assert!(due(&timers, 9).is_empty());
        assert_eq!(due(&timers, 10), ["due"]);
        assert_eq!(timers.next(), Some(20));
        assert_eq!(beyond.rings.load(SeqCst), NEVER, "it can be pushed again");
        assert_eq!(due(&timers, 20), ["later"]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn after_a_failed_commit_all_that_ring_are_woken() {
        let timers = Timers::default();
        let alarm = Alarm::new(WorkflowKey::new("n", "w"), "run".to_owned(), 10);
        timers.push(10, alarm.clone());
        alarm.wanted.store(NEVER, SeqCst);
        timers.distrust();
        assert_eq!(due(&timers, 10), ["run"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_deadline_of_a_task_that_is_done_wakes_nobody() {
        let bed = Bed::open(Settings::default()).await;
        bed.start(start("flow")).await;
        bed.start(start("other")).await;
        bed.answer([]).await;
        let other = bed.take().await.workflow_execution.expect("named").run_id;
        assert!(bed.runtime.0.timers.next().is_some());
        // Beyond the time-out of workflow tasks.
        let then = crate::clock::now() + HORIZON / 2;
        assert_eq!(due(&bed.runtime.0.timers, then), [other]);
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
