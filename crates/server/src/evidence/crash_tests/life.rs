//! Processes that live one after the other on the same files, and what must hold of them all.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use steadfast_engine::proto::common::WorkflowType;
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::proto::workflowservice::StartWorkflowExecutionRequest;
use steadfast_ledger::note::{Note, SigningKey, VerifierKey};
use steadfast_ledger::rotation::KEY_CHANGED;
use steadfast_ledger::tree::{root_of, verify_consistency};
use steadfast_ledger::{Entry, Hash};
use steadfast_runtime::evidence::TreeHead;
use steadfast_runtime::namespaces::Namespace;
use steadfast_runtime::{Permit, Runtime, Settings};
use steadfast_store::Store;
use steadfast_store::sqlite::SqliteStore;

use super::faulty::Faulty;
use super::{Fault, Plan};
use crate::evidence::anchor::{Anchor, AnchorError};
use crate::evidence::failpoint::tests::follow;
use crate::evidence::keys::{self, Keys};
use crate::evidence::publisher::{PublishError, PublishedLog, Publisher};
use crate::evidence::reader::{consistency_proof, root_at};

pub(super) const NAMESPACE: &str = "default";
pub(super) const BASE: &str = "example.com/log";
const OLD_SEED: [u8; 32] = [1; 32];
const NEW_SEED: [u8; 32] = [2; 32];

/// How often a step that failed is tried again.
const TRIES: usize = 200;

/// For the threads of a process that is dead.
const LAST_BREATH: Duration = Duration::from_millis(100);

/// What outlives a process.
pub(super) struct World {
    pub(super) store: Arc<dyn Store>,
    folder: tempfile::TempDir,
    /// The checkpoints that anybody could have seen, in order.
    seen: Vec<PublishedLog>,
    /// Workflows whose start was answered.
    acknowledged: BTreeSet<String>,
    started: usize,
}

/// What a process does with its life.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) rounds: usize,
    pub(super) rotate: bool,
}

/// One process.
struct Process<'a> {
    world: &'a mut World,
    plan: Arc<Plan>,
    runtime: Runtime,
    publisher: Publisher,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            store: Arc::new(SqliteStore::open_in_memory().expect("a store")),
            folder: tempfile::tempdir().expect("a directory"),
            seen: Vec::new(),
            acknowledged: BTreeSet::new(),
            started: 0,
        }
    }

    pub(super) fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    fn anchor(&self) -> Anchor {
        Anchor::File(self.folder.path().join("anchor"))
    }

    /// A process from its start to its end, or to its death.
    pub(super) fn live(&mut self, plan: &Arc<Plan>, task: Task) {
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("an executor");
        follow(Some(plan.clone()));
        executor.block_on(async {
            let death = async {
                while !plan.is_dead() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let store: Arc<dyn Store> = Arc::new(Faulty {
                store: self.store.clone(),
                plan: plan.clone(),
            });
            let mut opened = None;
            tokio::select! {
                biased;
                () = death => {}
                () = self.act(&store, plan, task, &mut opened) => {}
            }
            // Ends the committer's thread. What it still writes does not arrive if the process is dead.
            let Some(runtime) = opened else { return };
            match plan.is_dead() {
                // It would wait for the projection of what it takes for lost.
                true => drop(tokio::time::timeout(LAST_BREATH, runtime.close()).await),
                false => runtime.close().await.expect("closes"),
            }
        });
        follow(None);
    }

    async fn act(
        &mut self,
        store: &Arc<dyn Store>,
        plan: &Arc<Plan>,
        task: Task,
        opened: &mut Option<Runtime>,
    ) {
        let runtime = Runtime::open(store.clone(), settings()).await;
        let runtime = runtime.expect("opens: it writes nothing that it could not do without");
        *opened = Some(runtime.clone());
        let permit = Permit::internal("configuration");
        // Always of the same id: a second try is no second namespace.
        let namespace = Namespace {
            id: "5f137b97-6739-4fc4-8a82-25c9e8a84034".into(),
            ..Namespace::new(NAMESPACE)
        };
        for _ in 0..TRIES {
            let put = runtime.register_namespace(&permit, namespace.clone());
            let _ = put.await;
            if runtime.namespaces().by_name(NAMESPACE).is_ok() {
                break;
            }
        }
        let keys = || Keys::open(&self.key(), BASE, OLD_SEED).expect("a key");
        let mut publisher = Err(None);
        for _ in 0..TRIES {
            let opened = Publisher::open(runtime.clone(), self.anchor(), keys(), BASE.into());
            publisher = opened.await.map_err(Some);
            if publisher.is_ok() || plan.is_dead() {
                break;
            }
        }
        let Ok(publisher) = publisher else {
            assert!(plan.is_dead(), "the logs do not open");
            return;
        };
        let mut process = Process {
            world: self,
            plan: plan.clone(),
            runtime,
            publisher,
        };
        for _ in 0..task.rounds {
            process.start_workflow().await;
            process.publish().await;
        }
        if task.rotate && !process.world.is_rotated() {
            // The command is another process.
            follow(None);
            keys::ask_for_rotation(&process.world.key(), NEW_SEED).expect("is asked for");
            follow(Some(plan.clone()));
            process.start_workflow().await;
            process.publish().await;
            process.start_workflow().await;
            process.publish().await;
        }
    }

    pub(super) fn is_rotated(&self) -> bool {
        let new = SigningKey::new(BASE, NEW_SEED).expect("a key");
        keys::load(&self.key()).is_ok_and(|key| key.encode() == new.encode())
    }

    /// Everything that must hold, whatever happened.
    pub(super) fn check(&self, context: &str) {
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("an executor");
        executor.block_on(async {
            // Closing it must not close what the test still reads.
            let store: Arc<dyn Store> = Arc::new(Faulty {
                store: self.store.clone(),
                plan: Arc::new(Plan::none()),
            });
            let runtime = Runtime::open(store, settings()).await.expect("opens");
            let id = &runtime
                .namespaces()
                .by_name(NAMESPACE)
                .expect("there")
                .id
                .clone();
            let found = runtime.check_evidence(id, |_| {}).await.expect("checks");
            assert_eq!(found.differences, Vec::<String>::new(), "{context}");
            let entries = self.entries(id).await;
            self.check_entries(&entries, context);
            self.check_checkpoints(id, &entries, context).await;
            self.check_keys(&entries, context);
            self.check_anchor(&entries, context);
            runtime.close().await.expect("closes");
        });
    }

    async fn entries(&self, id: &str) -> Vec<Vec<u8>> {
        let logs = self.store.logs().await.expect("logs");
        let size = logs.iter().find(|log| log.namespace_id == *id);
        let size = usize::try_from(size.expect("a log").size).expect("a small one");
        let entries = self.store.log_entries(id, 0, size, usize::MAX).await;
        let entries = entries.expect("entries");
        assert_eq!(entries.len(), size);
        entries
    }

    /// No entry is missing, and none is there twice.
    fn check_entries(&self, entries: &[Vec<u8>], context: &str) {
        let mut ends: BTreeMap<String, (u64, Option<Hash>)> = BTreeMap::new();
        let mut begun: BTreeMap<String, usize> = BTreeMap::new();
        let mut leaves = HashSet::new();
        for bytes in entries {
            let entry = Entry::parse(bytes).expect("an entry");
            let leaf = Hash::leaf(bytes);
            assert!(leaves.insert(leaf), "{context}: an entry is there twice");
            let end = ends.entry(entry.run_id.to_string()).or_default();
            assert_eq!((entry.n, entry.prev), (end.0 + 1, end.1), "{context}");
            *end = (entry.n, Some(leaf));
            if entry.n == 1 && !entry.workflow_id.is_empty() {
                *begun.entry(entry.workflow_id.to_string()).or_default() += 1;
            }
        }
        for id in &self.acknowledged {
            assert_eq!(begun.get(id), Some(&1), "{context}: {id} was acknowledged");
        }
    }

    /// Each checkpoint is that of the entries, and extends all that were seen before it.
    async fn check_checkpoints(&self, id: &str, entries: &[Vec<u8>], context: &str) {
        let mut before: Option<TreeHead> = None;
        for log in &self.seen {
            assert_eq!(log.origin, format!("{BASE}/{NAMESPACE}"), "{context}");
            let size = usize::try_from(log.head.size).expect("a small log");
            assert!(
                size <= entries.len(),
                "{context}: {size} entries were signed"
            );
            let root = root_of(entries[..size].iter().map(|entry| Hash::leaf(entry)));
            assert_eq!(root, log.head.root, "{context}");
            let found = root_at(&*self.store, id, log.head.size).await;
            assert_eq!(found.expect("tiles"), Some(root), "{context}");
            if let Some(before) = before {
                let proof = consistency_proof(&*self.store, id, before.size, log.head.size);
                let proof = proof.await.expect("tiles").expect("a proof");
                let (old, new) = ((before.size, before.root), (log.head.size, log.head.root));
                verify_consistency(old.0, &old.1, new.0, &new.1, &proof)
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
            }
            before = Some(log.head);
        }
    }

    /// The key that signs is the old one, then for one checkpoint both, then the new one; and the log
    /// names the new one before.
    fn check_keys(&self, entries: &[Vec<u8>], context: &str) {
        let keys = verifiers();
        let mut phase = 0;
        for log in &self.seen {
            let note = Note::parse(&log.checkpoint).expect("a note");
            let signers = note.verify(&keys).expect("is signed");
            let now = match signers[..] {
                [key] if *key == keys[0] => 0,
                [_, _] => 1,
                _ => 2,
            };
            assert!(now >= phase, "{context}: an older key signs again");
            phase = now;
            let size = usize::try_from(log.head.size).expect("a small log");
            let named = changes(&entries[..size]).len();
            assert_eq!(
                named > 0,
                now > 0,
                "{context}: signed by {now}, named {named} times"
            );
        }
        assert!(
            changes(entries).len() <= 1,
            "{context}: the key is named twice"
        );
    }

    fn check_anchor(&self, entries: &[Vec<u8>], context: &str) {
        for (origin, head) in self.anchor().read().expect("an anchor") {
            assert_eq!(origin, format!("{BASE}/{NAMESPACE}"), "{context}");
            let size = usize::try_from(head.size).expect("a small log");
            assert!(size <= entries.len(), "{context}: the anchor is ahead");
            let root = root_of(entries[..size].iter().map(|entry| Hash::leaf(entry)));
            assert_eq!(root, head.root, "{context}");
            let seen = self.seen.last().map_or(0, |log| log.head.size);
            assert!(head.size >= seen, "{context}: the anchor is behind");
        }
    }

    pub(super) fn newest(&self) -> &PublishedLog {
        self.seen.last().expect("something is signed")
    }
}

impl Process<'_> {
    /// Starts a workflow, and tries again for as long as it fails.
    async fn start_workflow(&mut self) {
        let id = format!("flow-{}", self.world.started);
        self.world.started += 1;
        for _ in 0..TRIES {
            let request = StartWorkflowExecutionRequest {
                namespace: NAMESPACE.into(),
                workflow_id: id.clone(),
                request_id: id.clone(),
                workflow_type: Some(WorkflowType {
                    name: "Flow".into(),
                }),
                task_queue: Some(TaskQueue {
                    name: "queue".into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let permit = Permit::granted("Test", "tester".into(), String::new());
            if self.runtime.start_workflow(&permit, request).await.is_ok() {
                self.world.acknowledged.insert(id);
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(self.plan.is_dead(), "{id} cannot be started");
    }

    /// Has everything signed that is durable now.
    async fn publish(&mut self) {
        for _ in 0..TRIES {
            let namespace = self.runtime.namespaces().by_name(NAMESPACE);
            let id = namespace.expect("there").id.clone();
            let size = self.runtime.log_size(&id).await;
            let worked = self.publisher.work().await;
            self.look();
            match (size, worked) {
                (Ok(size), Ok(())) => {
                    assert!(self.world.newest().head.size >= size, "all is signed");
                    return;
                }
                (_, Err(PublishError::Anchor(error @ AnchorError::Moved { .. }))) => {
                    panic!("it fights with itself: {error}")
                }
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        assert!(self.plan.is_dead(), "the log cannot be signed");
    }

    /// What others see.
    fn look(&mut self) {
        if let Some(log) = self.publisher.logs().get(NAMESPACE)
            && self.world.seen.last().map(|seen| &seen.checkpoint) != Some(&log.checkpoint)
        {
            self.world.seen.push(log);
        }
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        projection_interval: Duration::from_millis(5),
        shapes: crate::shapes::shapes(),
        ..Settings::default()
    }
}

/// The old key and the new one, as the log has them.
pub(super) fn verifiers() -> [VerifierKey; 2] {
    let origin = format!("{BASE}/{NAMESPACE}");
    [OLD_SEED, NEW_SEED].map(|seed| {
        let key = SigningKey::new(&origin, seed).expect("a key");
        key.verifier().clone()
    })
}

/// The entries that change a key.
pub(super) fn changes(entries: &[Vec<u8>]) -> Vec<String> {
    let notes = entries.iter().filter_map(|entry| {
        let note = Entry::parse(entry).expect("an entry").note?;
        (note.what == KEY_CHANGED).then(|| note.detail.into_owned())
    });
    notes.collect()
}

/// Lives with a fault at each place in turn, until there is no such place.
pub(super) fn at_every_place(fault: Fault, task: Task, mut check: impl FnMut(&World, &str)) -> u64 {
    let mut at = 0;
    loop {
        at += 1;
        let plan = Arc::new(Plan::new(fault, at));
        let mut world = World::new();
        world.live(&plan, task);
        let place = *plan.hit.lock();
        let context = format!("{fault:?} at {at}, {place:?}");
        world.live(&Arc::new(Plan::none()), task);
        world.check(&context);
        check(&world, &context);
        if !plan.was_hit() {
            return at - 1;
        }
    }
}

const ROUNDS: Task = Task {
    rounds: 2,
    rotate: false,
};

#[test]
fn a_process_that_dies_anywhere_loses_nothing_and_forks_nothing() {
    let places = at_every_place(Fault::Death, ROUNDS, |_, _| {});
    assert!(places > 25, "there are {places} places");
}

#[test]
fn a_write_that_fails_anywhere_loses_nothing_and_forks_nothing() {
    let places = at_every_place(Fault::Failure, ROUNDS, |_, _| {});
    assert!(places > 25, "there are {places} places");
}
