//! Task queues in memory: a task meets a waiting poller, or waits for one.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

/// How long a poll waits before it is answered with nothing.
const POLL_WAIT: Duration = Duration::from_secs(60);

/// Queues of tasks `T`, each under a name.
pub struct Queues<T> {
    by_name: Mutex<HashMap<String, Queue<T>>>,
}

struct Queue<T> {
    tasks: VecDeque<T>,
    pollers: VecDeque<oneshot::Sender<T>>,
}

impl<T> Default for Queues<T> {
    fn default() -> Self {
        Self {
            by_name: Mutex::default(),
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            tasks: VecDeque::new(),
            pollers: VecDeque::new(),
        }
    }
}

impl<T> Queues<T> {
    /// Gives the task to the poller that has waited longest, if there is one.
    pub fn push(&self, name: &str, mut task: T) {
        let mut queues = lock(&self.by_name);
        let queue = entry(&mut queues, name);
        while let Some(poller) = queue.pollers.pop_front() {
            match poller.send(task) {
                Ok(()) => return,
                // That poller has gone; the next one gets it.
                Err(returned) => task = returned,
            }
        }
        queue.tasks.push_back(task);
    }

    /// Takes a task, or waits for one. A poll's time limit ends in nothing.
    pub async fn poll(&self, name: &str) -> Option<T> {
        let waiting = {
            let mut queues = lock(&self.by_name);
            let queue = entry(&mut queues, name);
            if let Some(task) = queue.tasks.pop_front() {
                return Some(task);
            }
            let (poller, waiting) = oneshot::channel();
            queue.pollers.push_back(poller);
            waiting
        };
        tokio::time::timeout(POLL_WAIT, waiting).await.ok()?.ok()
    }
}

/// Without a copy of the name for a queue that is known.
fn entry<'a, T>(queues: &'a mut HashMap<String, Queue<T>>, name: &str) -> &'a mut Queue<T> {
    if !queues.contains_key(name) {
        queues.insert(name.to_owned(), Queue::default());
    }
    queues.get_mut(name).expect("inserted just above")
}

/// A map whose entries are only ever replaced as a whole.
pub struct Table<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> Table<K, V> {
    /// Puts an entry in.
    pub fn insert(&self, key: K, value: V) {
        lock(&self.0).insert(key, value);
    }

    /// Takes an entry out.
    pub fn remove(&self, key: &K) -> Option<V> {
        lock(&self.0).remove(key)
    }

    /// Works on an entry, if there is one.
    pub fn with<R>(&self, key: &K, work: impl FnOnce(&mut V) -> R) -> Option<R> {
        lock(&self.0).get_mut(key).map(work)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_meets_a_poller_whichever_comes_first() {
        let queues = Queues::default();
        queues.push("a", 1);
        assert_eq!(queues.poll("a").await, Some(1));
        let (task, ()) = tokio::join!(queues.poll("a"), async { queues.push("a", 2) });
        assert_eq!(task, Some(2));
    }

    #[tokio::test]
    async fn a_poller_that_went_away_loses_nothing() {
        let queues = Queues::default();
        let gone = tokio::time::timeout(Duration::from_millis(1), queues.poll("a"));
        assert!(gone.await.is_err());
        queues.push("a", 3);
        assert_eq!(queues.poll("a").await, Some(3));
    }
}
