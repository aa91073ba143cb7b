//! Matching: tasks that wait for pollers, and pollers that wait for tasks.
//!
//! Nothing here is stored. A task follows from its run's state; when the process starts again, runs
//! offer their tasks again. A queue holds a bounded number of tasks in memory: what is beyond it is
//! found through the store when a poller comes for it ([`crate::prefetch`]).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use steadfast_engine::Time;
use tokio::sync::oneshot;

use crate::aggregate::WorkflowKey;
use crate::handout::Delivery;

/// Most tasks of one queue in memory.
const MAX_TASKS: usize = 10_000;

/// How long a poller is remembered after its last poll.
const POLLER_MEMORY: Duration = Duration::from_secs(300);

/// A sticky queue whose worker has not polled for so long is taken for dead.
const STICKY_SILENCE: Duration = Duration::from_secs(10);

/// How long a worker's good-bye is remembered: longer than any poll takes.
const DEPARTED_MEMORY: Duration = Duration::from_secs(120);

/// A queue without pollers and tasks is forgotten after so long.
const QUEUE_MEMORY: Duration = Duration::from_secs(600);

/// What a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QueueKind {
    /// Workflow tasks (and queries).
    Workflow,
    /// Activity tasks.
    Activity,
}

impl QueueKind {
    /// `temporal.api.enums.v1.TaskQueueType` as its number.
    pub fn number(self) -> i32 {
        match self {
            Self::Workflow => 1,
            Self::Activity => 2,
        }
    }

    /// From that number.
    pub fn from_number(number: i32) -> Option<Self> {
        match number {
            1 => Some(Self::Workflow),
            2 => Some(Self::Activity),
            _ => None,
        }
    }
}

/// Names a task queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueKey {
    /// Id of the namespace.
    pub namespace_id: String,
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: QueueKind,
}

/// A task that waits for a poller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// The workflow id.
    pub key: WorkflowKey,
    /// The run.
    pub run_id: String,
    /// Scheduled event of the workflow task or activity.
    pub scheduled_event_id: i64,
    /// Attempt (0 for workflow tasks).
    pub attempt: i32,
}

/// Who polls.
#[derive(Clone, Debug, Default)]
pub struct PollerInfo {
    /// Identity as the worker gives it.
    pub identity: String,
    /// Most tasks per second that the queue shall hand out, if the worker says.
    pub rate: Option<f64>,
    /// Worker version.
    pub worker_version: Option<steadfast_engine::proto::common::WorkerVersionStamp>,
    /// Identifies one worker instance, where it says.
    pub worker_instance_key: String,
    /// The poll, as the records of what it starts say it.
    pub cause: steadfast_engine::record::Cause,
}

/// A poller that waits.
pub struct Waiting {
    id: u64,
    /// Who it is.
    pub info: PollerInfo,
    /// Where its task goes.
    pub sender: oneshot::Sender<Delivery>,
}

/// What a poll gets at once.
pub enum Polled {
    /// A task.
    Task(Task),
    /// A query, which is not a task of the run's state.
    Query(Delivery),
    /// Nothing yet.
    Wait(Ticket, oneshot::Receiver<Delivery>),
}

/// Names a waiting poller, to take it away again.
pub struct Ticket {
    queue: Arc<Mutex<Queue>>,
    id: u64,
}

impl Drop for Ticket {
    /// A poll that ends takes its place in the queue away.
    fn drop(&mut self) {
        self.queue
            .lock()
            .pollers
            .retain(|waiting| waiting.id != self.id);
    }
}

/// A poller as task-queue descriptions show it.
#[derive(Clone, Debug)]
pub struct PollerView {
    /// Identity.
    pub identity: String,
    /// When it last polled, as time since then.
    pub since_poll: Duration,
    /// The rate it asked for.
    pub rate: Option<f64>,
}

/// A queue as task-queue descriptions show it.
#[derive(Clone, Debug, Default)]
pub struct QueueView {
    /// Those who polled lately.
    pub pollers: Vec<PollerView>,
    /// Tasks that wait in memory.
    pub backlog: usize,
    /// When the oldest of them was offered, as time since then.
    pub backlog_age: Duration,
    /// Whether more wait in the store.
    pub overflow: bool,
    /// Tasks added per second, over the last half minute.
    pub add_rate: f64,
    /// Tasks handed out per second, over the last half minute.
    pub dispatch_rate: f64,
}

/// All task queues.
#[derive(Default)]
pub struct Matching {
    queues: Mutex<HashMap<QueueKey, Arc<Mutex<Queue>>>>,
    /// Worker instances that said good-bye, and when: polls of theirs that were under way then are
    /// answered with nothing.
    departed: Mutex<HashMap<String, Instant>>,
}

struct Queue {
    next_id: u64,
    pollers: VecDeque<Waiting>,
    /// Tasks by priority (1 is served first), each first come, first served.
    tasks: BTreeMap<i32, VecDeque<(Task, Instant)>>,
    known: HashSet<Task>,
    queries: VecDeque<Delivery>,
    /// More tasks wait in the store than in memory.
    overflow: bool,
    seen: HashMap<String, (Instant, Option<f64>)>,
    last_poll: Option<Instant>,
    bucket: Option<Bucket>,
    added: Meter,
    dispatched: Meter,
    touched: Instant,
}

/// A token bucket.
struct Bucket {
    rate: f64,
    tokens: f64,
    filled: Instant,
}

/// Counts per second over the last half minute.
struct Meter {
    counts: [u32; 30],
    second: u64,
    origin: Instant,
}

impl Default for Queue {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            next_id: 1,
            pollers: VecDeque::new(),
            tasks: BTreeMap::new(),
            known: HashSet::new(),
            queries: VecDeque::new(),
            overflow: false,
            seen: HashMap::new(),
            last_poll: None,
            bucket: None,
            added: Meter::new(now),
            dispatched: Meter::new(now),
            touched: now,
        }
    }
}

impl Matching {
    /// Takes a waiting poller for a task that is being scheduled right now; none if nobody waits, or
    /// others were here first.
    pub fn reserve(&self, key: &QueueKey) -> Option<Waiting> {
        let queue = self.existing(key)?;
        let mut queue = queue.lock();
        if !queue.known.is_empty() || queue.overflow {
            return None;
        }
        let waiting = queue.take_poller()?;
        if !queue.take_token() {
            queue.pollers.push_front(waiting);
            return None;
        }
        queue.count_match();
        Some(waiting)
    }

    /// Puts a task where pollers find it. Returns a waiting poller's place if there is one: the
    /// caller hands the task over, or offers it again.
    pub fn offer(&self, key: &QueueKey, task: Task, priority: i32) -> Option<(Task, Waiting)> {
        let queue = self.queue(key);
        let mut queue = queue.lock();
        queue.added.add();
        if queue.known.contains(&task) {
            return None;
        }
        if queue.known.is_empty()
            && let Some(waiting) = queue.take_poller()
        {
            if queue.take_token() {
                queue.dispatched.add();
                return Some((task, waiting));
            }
            queue.pollers.push_front(waiting);
        }
        if queue.known.len() >= MAX_TASKS {
            queue.overflow = true;
            return None;
        }
        queue.known.insert(task.clone());
        queue
            .tasks
            .entry(priority)
            .or_default()
            .push_back((task, Instant::now()));
        None
    }

    /// Puts a query where pollers find it, or gives it to one that waits.
    pub fn offer_query(&self, key: &QueueKey, mut query: Delivery) {
        let queue = self.queue(key);
        let mut queue = queue.lock();
        while let Some(waiting) = queue.take_poller() {
            match waiting.sender.send(query) {
                Ok(()) => return,
                Err(back) => query = back,
            }
        }
        queue.queries.push_back(query);
    }

    /// Whether a worker instance said good-bye.
    pub fn has_departed(&self, worker_instance_key: &str) -> bool {
        !worker_instance_key.is_empty() && self.departed.lock().contains_key(worker_instance_key)
    }

    /// A poller comes: it gets a task, or a place to wait.
    pub fn poll(&self, key: &QueueKey, info: PollerInfo) -> Polled {
        let shared = self.queue(key);
        let mut queue = shared.lock();
        queue.seen_polling(&info);
        if let Some(query) = queue.take_query() {
            return Polled::Query(query);
        }
        if !queue.known.is_empty()
            && queue.take_token()
            && let Some(task) = queue.take_task()
        {
            queue.dispatched.add();
            return Polled::Task(task);
        }
        let (sender, receiver) = oneshot::channel();
        let id = queue.next_id;
        queue.next_id += 1;
        queue.pollers.push_back(Waiting { id, info, sender });
        drop(queue);
        Polled::Wait(Ticket { queue: shared, id }, receiver)
    }

    /// Pairs waiting pollers with waiting tasks, where a rate limit had kept them apart.
    pub fn pair(&self, key: &QueueKey) -> Vec<(Task, Waiting)> {
        let Some(queue) = self.existing(key) else {
            return Vec::new();
        };
        let mut queue = queue.lock();
        let mut pairs = Vec::new();
        while !queue.known.is_empty() {
            let Some(waiting) = queue.take_poller() else {
                break;
            };
            let task = if queue.take_token() {
                queue.take_task()
            } else {
                None
            };
            match task {
                Some(task) => {
                    queue.dispatched.add();
                    pairs.push((task, waiting));
                }
                None => {
                    queue.pollers.push_front(waiting);
                    break;
                }
            }
        }
        pairs
    }

    /// Queues in which both tasks and pollers wait: a rate limit keeps them apart.
    pub fn throttled(&self) -> Vec<QueueKey> {
        self.keys_where(|queue| !queue.known.is_empty() && !queue.pollers.is_empty())
    }

    /// Queues that have more tasks in the store and room for them.
    pub fn wants_prefetch(&self) -> Vec<QueueKey> {
        self.keys_where(|queue| {
            queue.overflow
                && queue.known.len() < MAX_TASKS / 10
                && (!queue.pollers.is_empty() || queue.polled_within(STICKY_SILENCE))
        })
    }

    /// Says whether tasks wait in the store beyond those in memory.
    pub fn set_overflow(&self, key: &QueueKey, overflow: bool) {
        self.queue(key).lock().overflow = overflow;
    }

    /// Whether a worker polls a queue, or did so a moment ago.
    pub fn is_polled(&self, key: &QueueKey) -> bool {
        self.existing(key).is_some_and(|queue| {
            let queue = queue.lock();
            queue
                .pollers
                .iter()
                .any(|waiting| !waiting.sender.is_closed())
                || queue.polled_within(STICKY_SILENCE)
        })
    }

    /// A worker says that it is gone: its own queue is not waited for any more.
    pub fn forget_queue(&self, key: &QueueKey) {
        if let Some(queue) = self.existing(key) {
            let mut queue = queue.lock();
            queue.last_poll = None;
            queue.seen.clear();
            queue.pollers.clear();
        }
    }

    /// Ends the waiting polls of one worker instance: each is answered with nothing.
    pub fn release_worker(&self, worker_instance_key: &str) {
        let mut departed = self.departed.lock();
        departed.retain(|_, at| at.elapsed() < DEPARTED_MEMORY);
        departed.insert(worker_instance_key.to_owned(), Instant::now());
        drop(departed);
        let queues: Vec<_> = self.queues.lock().values().cloned().collect();
        for queue in queues {
            let mut queue = queue.lock();
            let (gone, kept) = std::mem::take(&mut queue.pollers)
                .into_iter()
                .partition(|waiting| waiting.info.worker_instance_key == worker_instance_key);
            queue.pollers = kept;
            let gone: VecDeque<Waiting> = gone;
            for waiting in gone {
                // A poll that ended by itself needs no answer.
                let _ = waiting.sender.send(Delivery::Nothing);
            }
        }
    }

    /// The queues of a namespace, by name.
    pub fn queues(&self, namespace_id: &str) -> Vec<QueueKey> {
        let queues = self.queues.lock();
        let of_it = queues.keys().filter(|key| key.namespace_id == namespace_id);
        let mut found: Vec<QueueKey> = of_it.cloned().collect();
        found.sort_by(|one, other| {
            (&one.name, one.kind.number()).cmp(&(&other.name, other.kind.number()))
        });
        found
    }

    /// A queue as descriptions show it.
    pub fn view(&self, key: &QueueKey) -> QueueView {
        let Some(queue) = self.existing(key) else {
            return QueueView::default();
        };
        let mut queue = queue.lock();
        queue.seen.retain(|_, (at, _)| at.elapsed() < POLLER_MEMORY);
        let oldest = queue
            .tasks
            .values()
            .filter_map(|tasks| tasks.front())
            .map(|(_, at)| *at)
            .min();
        QueueView {
            pollers: queue
                .seen
                .iter()
                .map(|(identity, (at, rate))| PollerView {
                    identity: identity.clone(),
                    since_poll: at.elapsed(),
                    rate: *rate,
                })
                .collect(),
            backlog: queue.known.len(),
            backlog_age: oldest.map_or(Duration::ZERO, |at| at.elapsed()),
            overflow: queue.overflow,
            add_rate: queue.added.rate(),
            dispatch_rate: queue.dispatched.rate(),
        }
    }

    /// Forgets every task: their runs are loaded again and offer them again.
    pub fn clear_tasks(&self) {
        for queue in self.queues.lock().values() {
            let mut queue = queue.lock();
            queue.known.clear();
            queue.tasks.clear();
        }
    }

    /// Forgets queues that nobody uses.
    pub fn forget_unused(&self) {
        self.queues.lock().retain(|_, queue| {
            let queue = queue.lock();
            let used = !queue.known.is_empty()
                || !queue.pollers.is_empty()
                || !queue.queries.is_empty()
                || queue.overflow;
            used || queue.touched.elapsed() < QUEUE_MEMORY
        });
    }

    fn keys_where(&self, wanted: impl Fn(&Queue) -> bool) -> Vec<QueueKey> {
        let queues = self.queues.lock();
        queues
            .iter()
            .filter(|(_, queue)| wanted(&queue.lock()))
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn existing(&self, key: &QueueKey) -> Option<Arc<Mutex<Queue>>> {
        self.queues.lock().get(key).cloned()
    }

    fn queue(&self, key: &QueueKey) -> Arc<Mutex<Queue>> {
        let mut queues = self.queues.lock();
        match queues.get(key) {
            Some(queue) => queue.clone(),
            None => queues.entry(key.clone()).or_default().clone(),
        }
    }
}

impl Queue {
    fn take_poller(&mut self) -> Option<Waiting> {
        self.touched = Instant::now();
        while let Some(waiting) = self.pollers.pop_front() {
            if !waiting.sender.is_closed() {
                return Some(waiting);
            }
        }
        None
    }

    fn take_task(&mut self) -> Option<Task> {
        let mut entry = self.tasks.first_entry()?;
        let task = entry.get_mut().pop_front();
        if entry.get().is_empty() {
            entry.remove();
        }
        let (task, _) = task?;
        self.known.remove(&task);
        Some(task)
    }

    fn take_query(&mut self) -> Option<Delivery> {
        while let Some(query) = self.queries.pop_front() {
            if query.is_wanted() {
                return Some(query);
            }
        }
        None
    }

    fn seen_polling(&mut self, info: &PollerInfo) {
        let now = Instant::now();
        self.touched = now;
        self.last_poll = Some(now);
        if let Some(rate) = info.rate {
            match &mut self.bucket {
                Some(bucket) => bucket.rate = rate,
                None => {
                    self.bucket = Some(Bucket {
                        rate,
                        tokens: rate.max(1.0),
                        filled: now,
                    })
                }
            }
        }
        match self.seen.get_mut(&info.identity) {
            Some(seen) => *seen = (now, info.rate),
            None => {
                self.seen.insert(info.identity.clone(), (now, info.rate));
            }
        }
    }

    fn polled_within(&self, silence: Duration) -> bool {
        self.last_poll.is_some_and(|at| at.elapsed() < silence)
    }

    fn take_token(&mut self) -> bool {
        match &mut self.bucket {
            Some(bucket) => bucket.take(),
            None => true,
        }
    }

    fn count_match(&mut self) {
        self.added.add();
        self.dispatched.add();
    }
}

impl Bucket {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let burst = self.rate.max(1.0);
        self.tokens =
            (self.tokens + now.duration_since(self.filled).as_secs_f64() * self.rate).min(burst);
        self.filled = now;
        if self.tokens < 1.0 || self.rate <= 0.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

impl Meter {
    fn new(origin: Instant) -> Self {
        Self {
            counts: [0; 30],
            second: 0,
            origin,
        }
    }

    fn add(&mut self) {
        self.advance();
        let slot = (self.second % 30) as usize;
        self.counts[slot] = self.counts[slot].saturating_add(1);
    }

    fn advance(&mut self) {
        let second = self.origin.elapsed().as_secs();
        for passed in (self.second + 1..=second).rev().take(30) {
            self.counts[(passed % 30) as usize] = 0;
        }
        self.second = second;
    }

    fn rate(&mut self) -> f64 {
        self.advance();
        let span = self.origin.elapsed().as_secs_f64().clamp(1.0, 30.0);
        f64::from(self.counts.iter().sum::<u32>()) / span
    }
}

/// The time of an engine event as an age, for views.
pub fn age(now: Time, then: Time) -> Duration {
    Duration::from_nanos(u64::try_from(now - then).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> QueueKey {
        QueueKey {
            namespace_id: "n".into(),
            name: "q".into(),
            kind: QueueKind::Activity,
        }
    }

    fn task(id: i64) -> Task {
        Task {
            key: WorkflowKey::new("n", "w"),
            run_id: "r".into(),
            scheduled_event_id: id,
            attempt: 1,
        }
    }

    fn polled_id(matching: &Matching) -> Option<i64> {
        match matching.poll(&key(), PollerInfo::default()) {
            Polled::Task(task) => Some(task.scheduled_event_id),
            _ => None,
        }
    }

    #[test]
    fn tasks_come_by_priority_then_in_order_and_once() {
        let matching = Matching::default();
        for (id, priority) in [(1, 3), (2, 3), (3, 1), (1, 3)] {
            assert!(matching.offer(&key(), task(id), priority).is_none());
        }
        let order: Vec<_> = (0..4).map(|_| polled_id(&matching)).collect();
        assert_eq!(order, [Some(3), Some(1), Some(2), None]);
    }

    #[test]
    fn a_waiting_poller_is_reserved_only_while_it_waits() {
        let matching = Matching::default();
        assert!(matching.reserve(&key()).is_none(), "nobody waits");
        let Polled::Wait(ticket, receiver) = matching.poll(&key(), PollerInfo::default()) else {
            panic!("an empty queue makes pollers wait");
        };
        drop(receiver);
        assert!(matching.reserve(&key()).is_none(), "the poller went away");
        drop(ticket);
        let waiting = matching.poll(&key(), PollerInfo::default());
        assert!(matching.reserve(&key()).is_some());
        assert!(
            matching.reserve(&key()).is_none(),
            "a poller takes one task"
        );
        drop(waiting);
    }

    #[test]
    fn a_poller_is_not_reserved_past_older_tasks() {
        let matching = Matching::default();
        let info = PollerInfo {
            rate: Some(0.0),
            ..PollerInfo::default()
        };
        let waiting = matching.poll(&key(), info);
        assert!(
            matching.offer(&key(), task(1), 3).is_none(),
            "a rate of zero hands nothing out"
        );
        assert!(matching.reserve(&key()).is_none());
        drop(waiting);
    }

    #[test]
    fn beyond_its_bound_a_queue_remembers_only_that_there_is_more() {
        let matching = Matching::default();
        for id in 0..=MAX_TASKS as i64 {
            matching.offer(&key(), task(id), 3);
        }
        let view = matching.view(&key());
        assert_eq!(view.backlog, MAX_TASKS);
        assert!(view.overflow);
    }
}
