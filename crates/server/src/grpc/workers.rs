//! Workers as they describe themselves in their heartbeats. Held in memory only: whoever lives
//! tells it again within a minute.

mod filter;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message;
use steadfast_engine::proto::enums::WorkerStatus;
use steadfast_engine::proto::worker::{WorkerHeartbeat, WorkerInfo, WorkerListInfo};
use steadfast_engine::proto::workflowservice::{
    DescribeWorkerRequest, DescribeWorkerResponse, ListWorkersRequest, ListWorkersResponse,
    RecordWorkerHeartbeatRequest, RecordWorkerHeartbeatResponse, ShutdownWorkerRequest,
    ShutdownWorkerResponse,
};
use steadfast_runtime::{Permit, Runtime, RuntimeError};

use filter::WorkerFilter;

/// A worker that has said nothing for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(300);

/// Most workers of all namespaces; of more, those who spoke longest ago are forgotten.
const MAX_WORKERS: usize = 20_000;

/// Largest heartbeat, in bytes.
const MAX_HEARTBEAT: usize = 8 * 1024;

/// Most workers in one page, which has to fit into what clients take for one message.
const MAX_PAGE: usize = 200;

/// The workers that are alive, as far as they say so.
#[derive(Default)]
pub(crate) struct WorkerRegistry {
    workers: Mutex<Workers>,
}

#[derive(Default)]
struct Workers {
    /// By id of the namespace and key of the worker.
    alive: BTreeMap<(String, String), Worker>,
    /// Whose turn it is to be forgotten, by number: the first has been silent for longest.
    turns: BTreeMap<u64, (String, String)>,
    next_turn: u64,
}

struct Worker {
    heartbeat: WorkerHeartbeat,
    seen: Instant,
    turn: u64,
}

/// A page of workers, and whether there are more.
type Page = (Vec<WorkerHeartbeat>, bool);

impl WorkerRegistry {
    fn record(&self, namespace_id: &str, heartbeat: WorkerHeartbeat, now: Instant) {
        let mut workers = self.workers.lock();
        let key = (
            namespace_id.to_owned(),
            heartbeat.worker_instance_key.clone(),
        );
        workers.remove(&key);
        if heartbeat.status == WorkerStatus::Shutdown as i32 {
            return;
        }
        let turn = workers.next_turn;
        workers.next_turn += 1;
        workers.turns.insert(turn, key.clone());
        workers.alive.insert(
            key,
            Worker {
                heartbeat,
                seen: now,
                turn,
            },
        );
        workers.forget_the_dead(now);
    }

    fn forget(&self, namespace_id: &str, key: &str) {
        self.workers
            .lock()
            .remove(&(namespace_id.to_owned(), key.to_owned()));
    }

    fn get(&self, namespace_id: &str, key: &str, now: Instant) -> Option<WorkerHeartbeat> {
        let mut workers = self.workers.lock();
        workers.forget_the_dead(now);
        let found = workers
            .alive
            .get(&(namespace_id.to_owned(), key.to_owned()));
        found.map(|worker| worker.heartbeat.clone())
    }

    /// Workers of a namespace that the filter takes, by key, after a key.
    fn list(
        &self,
        namespace_id: &str,
        filter: &WorkerFilter,
        after: &str,
        page: usize,
        now: Instant,
    ) -> Page {
        let mut workers = self.workers.lock();
        workers.forget_the_dead(now);
        let from = Bound::Excluded((namespace_id.to_owned(), after.to_owned()));
        let mut wanted = workers
            .alive
            .range((from, Bound::Unbounded))
            .take_while(|((namespace, _), _)| namespace == namespace_id)
            .map(|(_, worker)| &worker.heartbeat)
            .filter(|heartbeat| filter.matches(heartbeat));
        let found = wanted.by_ref().take(page).cloned().collect();
        (found, wanted.next().is_some())
    }
}

impl Workers {
    fn remove(&mut self, key: &(String, String)) {
        if let Some(worker) = self.alive.remove(key) {
            self.turns.remove(&worker.turn);
        }
    }

    fn forget_the_dead(&mut self, now: Instant) {
        while let Some(first) = self.turns.first_entry() {
            let is_dead = |worker: &Worker| now.saturating_duration_since(worker.seen) > SILENCE;
            if self.alive.len() <= MAX_WORKERS && !self.alive.get(first.get()).is_none_or(is_dead) {
                return;
            }
            let key = first.remove();
            self.alive.remove(&key);
        }
    }
}

/// Remembers what workers say of themselves.
pub(crate) async fn heartbeat(
    runtime: &Runtime,
    _permit: &Permit,
    workers: &WorkerRegistry,
    request: RecordWorkerHeartbeatRequest,
) -> Result<RecordWorkerHeartbeatResponse, RuntimeError> {
    let namespace = runtime.namespaces().by_name(&request.namespace)?;
    request.worker_heartbeat.iter().try_for_each(check)?;
    let now = Instant::now();
    for heartbeat in request.worker_heartbeat {
        workers.record(&namespace.id, heartbeat, now);
    }
    Ok(RecordWorkerHeartbeatResponse {})
}

/// Lists workers by their keys.
pub(crate) async fn list(
    runtime: &Runtime,
    _permit: &Permit,
    workers: &WorkerRegistry,
    request: ListWorkersRequest,
) -> Result<ListWorkersResponse, RuntimeError> {
    let namespace = runtime.namespaces().by_name(&request.namespace)?;
    let filter = WorkerFilter::parse(&request.query).map_err(RuntimeError::invalid)?;
    let after = String::from_utf8(request.next_page_token)
        .map_err(|_| RuntimeError::invalid("invalid next_page_token"))?;
    let page = match usize::try_from(request.page_size) {
        Ok(0) | Err(_) => MAX_PAGE,
        Ok(page) => page.min(MAX_PAGE),
    };
    let (found, more) = workers.list(&namespace.id, &filter, &after, page, Instant::now());
    let next_page_token = match found.last() {
        Some(last) if more => last.worker_instance_key.clone().into_bytes(),
        _ => Vec::new(),
    };
    Ok(ListWorkersResponse {
        workers: found.iter().map(summary).collect(),
        // Clients from before `workers` read this.
        workers_info: found.into_iter().map(info).collect(),
        next_page_token,
    })
}

/// Describes one worker.
pub(crate) async fn describe(
    runtime: &Runtime,
    _permit: &Permit,
    workers: &WorkerRegistry,
    request: DescribeWorkerRequest,
) -> Result<DescribeWorkerResponse, RuntimeError> {
    let namespace = runtime.namespaces().by_name(&request.namespace)?;
    let key = &request.worker_instance_key;
    match workers.get(&namespace.id, key, Instant::now()) {
        Some(heartbeat) => Ok(DescribeWorkerResponse {
            worker_info: Some(info(heartbeat)),
        }),
        None => Err(RuntimeError::not_found(format!("Worker {key} not found"))),
    }
}

/// A worker says that it ends.
pub(crate) async fn shutdown(
    runtime: &Runtime,
    permit: &Permit,
    workers: &WorkerRegistry,
    request: ShutdownWorkerRequest,
) -> Result<ShutdownWorkerResponse, RuntimeError> {
    let namespace = runtime.namespaces().by_name(&request.namespace)?;
    runtime.shutdown_worker(permit, &request)?;
    workers.forget(&namespace.id, &request.worker_instance_key);
    Ok(ShutdownWorkerResponse {})
}

fn check(heartbeat: &WorkerHeartbeat) -> Result<(), RuntimeError> {
    if heartbeat.worker_instance_key.is_empty() {
        return Err(RuntimeError::invalid(
            "WorkerInstanceKey is not set on a heartbeat.",
        ));
    }
    let bytes = heartbeat.encoded_len();
    match bytes <= MAX_HEARTBEAT {
        true => Ok(()),
        false => Err(RuntimeError::invalid(format!(
            "A worker's heartbeat exceeds size limit: {bytes} bytes of at most {MAX_HEARTBEAT}."
        ))),
    }
}

fn info(heartbeat: WorkerHeartbeat) -> WorkerInfo {
    WorkerInfo {
        worker_heartbeat: Some(heartbeat),
    }
}

fn summary(heartbeat: &WorkerHeartbeat) -> WorkerListInfo {
    let host = heartbeat.host_info.clone().unwrap_or_default();
    WorkerListInfo {
        worker_instance_key: heartbeat.worker_instance_key.clone(),
        worker_identity: heartbeat.worker_identity.clone(),
        task_queue: heartbeat.task_queue.clone(),
        deployment_version: heartbeat.deployment_version.clone(),
        sdk_name: heartbeat.sdk_name.clone(),
        sdk_version: heartbeat.sdk_version.clone(),
        status: heartbeat.status,
        start_time: heartbeat.start_time,
        host_name: host.host_name,
        worker_grouping_key: host.worker_grouping_key,
        process_id: host.process_id,
        plugins: heartbeat.plugins.clone(),
        drivers: heartbeat.drivers.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(key: &str) -> WorkerHeartbeat {
        WorkerHeartbeat {
            worker_instance_key: key.into(),
            ..WorkerHeartbeat::default()
        }
    }

    fn keys(registry: &WorkerRegistry, after: &str, page: usize, now: Instant) -> (String, bool) {
        let everybody = WorkerFilter::parse("").expect("no filter");
        let (found, more) = registry.list("n", &everybody, after, page, now);
        (
            found
                .into_iter()
                .map(|found| found.worker_instance_key)
                .collect(),
            more,
        )
    }

    #[test]
    fn pages_follow_each_other_and_stay_in_their_namespace() {
        let (registry, now) = (WorkerRegistry::default(), Instant::now());
        for key in ["c", "a", "b"] {
            registry.record("n", worker(key), now);
            registry.record("o", worker(key), now);
        }
        assert_eq!(keys(&registry, "", 2, now), ("ab".into(), true));
        assert_eq!(keys(&registry, "b", 2, now), ("c".into(), false));
        assert_eq!(keys(&registry, "c", 2, now), (String::new(), false));
    }

    #[test]
    fn who_is_silent_or_says_good_bye_is_forgotten() {
        let (registry, start) = (WorkerRegistry::default(), Instant::now());
        registry.record("n", worker("a"), start);
        registry.record("n", worker("b"), start);
        let later = start + SILENCE;
        registry.record("n", worker("a"), later);
        assert_eq!(keys(&registry, "", 9, later).0, "ab");
        assert_eq!(
            keys(&registry, "", 9, later + Duration::from_secs(1)).0,
            "a"
        );
        assert!(registry.get("n", "b", later).is_none());
        let good_bye = WorkerHeartbeat {
            status: WorkerStatus::Shutdown as i32,
            ..worker("a")
        };
        registry.record("n", good_bye, later);
        assert_eq!(keys(&registry, "", 9, later).0, "");
        assert!(registry.workers.lock().turns.is_empty());
        registry.record("n", worker("b"), later);
        registry.forget("n", "b");
        assert_eq!(keys(&registry, "", 9, later).0, "");
    }

    #[test]
    fn beyond_the_bound_the_most_silent_goes() {
        let (registry, now) = (WorkerRegistry::default(), Instant::now());
        for number in 0..=MAX_WORKERS {
            registry.record("n", worker(&format!("{number:06}")), now);
        }
        assert!(registry.get("n", "000000", now).is_none());
        assert!(registry.get("n", "000001", now).is_some());
        let workers = registry.workers.lock();
        assert_eq!(
            (workers.alive.len(), workers.turns.len()),
            (MAX_WORKERS, MAX_WORKERS)
        );
    }

    #[test]
    fn a_heartbeat_has_a_key_and_a_bounded_size() {
        assert!(check(&worker("a")).is_ok());
        assert!(check(&worker("")).is_err());
        let sdk_name = "x".repeat(MAX_HEARTBEAT);
        assert!(
            check(&WorkerHeartbeat {
                sdk_name,
                ..worker("a")
            })
            .is_err()
        );
    }
}
