//! Gives a task a second time, as a network or a server may that does not know whether it arrived.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::{Response, Status};

/// How long it is waited for a poll that the task can be given to.
const PATIENCE: Duration = Duration::from_secs(5);

/// A poll that is under way, until nobody waits for it any more.
pub struct Polled(pub JoinHandle<Result<Response<Bytes>, Status>>);

impl Drop for Polled {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tasks that were given, and the one that is to be given again.
#[derive(Default)]
pub struct Twice {
    state: std::sync::Mutex<State>,
    /// There is one to give.
    offered: Notify,
    /// It was given.
    taken: Notify,
}

#[derive(Default)]
struct State {
    /// By token: the queue, and the answer to the poll. The queue is empty if the task came without a poll.
    given: HashMap<Vec<u8>, (String, Bytes)>,
    offer: Option<(String, Bytes)>,
    /// Polls whose worker was answered with the offer: the next one of the same queue goes on with it.
    parked: Vec<(String, Polled)>,
}

impl Twice {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        let state = self.state.lock();
        state.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A worker is given a task.
    pub fn given(&self, queue: &str, token: Vec<u8>, task: Bytes) {
        let mut state = self.state();
        state.given.insert(token, (queue.to_owned(), task));
    }

    /// Has the task with this token given again, and waits until it is.
    pub async fn give_again(&self, token: &[u8]) {
        {
            let mut state = self.state();
            let Some(offer) = state.given.get(token).cloned() else {
                return;
            };
            state.offer = Some(offer);
        }
        self.offered.notify_waiters();
        // A worker that does not ask any more is not given it.
        let _ = tokio::time::timeout(PATIENCE, self.taken.notified()).await;
        self.state().offer = None;
    }

    /// The task that is to be given again to a poll of this queue, when there is one.
    pub async fn again(&self, queue: &str) -> Bytes {
        loop {
            let offered = self.offered.notified();
            tokio::pin!(offered);
            // From here on no offer is missed.
            offered.as_mut().enable();
            if let Some(task) = self.take(queue) {
                self.taken.notify_one();
                return task;
            }
            offered.await;
        }
    }

    fn take(&self, queue: &str) -> Option<Bytes> {
        let mut state = self.state();
        let is_for = |(of, _): &mut (String, Bytes)| of.is_empty() || of == queue;
        state.offer.take_if(is_for).map(|(_, task)| task)
    }

    /// Keeps a poll for the next one of its queue.
    pub fn park(&self, queue: &str, polled: Polled) {
        self.state().parked.push((queue.to_owned(), polled));
    }

    /// A poll of this queue that goes on.
    pub fn parked(&self, queue: &str) -> Option<Polled> {
        let parked = &mut self.state().parked;
        let place = parked.iter().position(|(of, _)| of == queue)?;
        Some(parked.swap_remove(place).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_is_given_to_one_poll_of_its_queue() {
        let twice = std::sync::Arc::new(Twice::default());
        twice.given("tools", b"t".to_vec(), Bytes::from_static(b"task"));
        let again = |queue: &'static str| {
            let twice = twice.clone();
            tokio::spawn(async move { twice.again(queue).await })
        };
        let (other, first) = (again("other"), again("tools"));
        tokio::task::yield_now().await;
        twice.give_again(b"t").await;
        assert_eq!(first.await.expect("ends"), "task");
        // Once is enough, and others have nothing of it.
        assert!(!other.is_finished());
        assert_eq!(twice.take("tools"), None);
        // What is not known is not waited for.
        twice.give_again(b"unknown").await;
    }
}
