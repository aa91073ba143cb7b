//! The runtime: everything that one server process has in memory, and its background tasks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use steadfast_engine::Limits;
use steadfast_engine::governance::Governor;
use steadfast_ledger::skeleton::Shapes;
use steadfast_store::Store;
use tokio::sync::{Notify, watch};

use crate::commit::Committer;
use crate::credentials::Issuer;
use crate::disabled::Disabled;
use crate::error::{Result, RuntimeError};
use crate::evidence::reads::Reads;
use crate::evidence::{Chains, Sealer, Sequencer, TreeHead};
use crate::matching::Matching;
use crate::namespaces::NamespaceRegistry;
use crate::queries::DirectQueries;
use crate::shard::Shards;
use crate::timers::Timers;

/// Settings of the runtime.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engine's limits.
    pub limits: Limits,
    /// Workflows kept in memory; idle ones beyond it are let go.
    pub live_workflows: usize,
    /// How often what changed is projected.
    pub projection_interval: Duration,
    /// Journal rows that may wait for their projection before callers are slowed.
    pub projection_lag: u64,
    /// How long a poll waits for a task.
    pub long_poll: Duration,
    /// How often expired runs are looked for.
    pub retention_interval: Duration,
    /// Runs with something due that are taken up from the store at a time.
    pub wake_batch: usize,
    /// Whether transitions leave entries in the log. Off only to measure what they cost.
    pub evidence: bool,
    /// Which reads leave entries, too.
    pub reads: Reads,
    /// Where payloads are in the API's messages: what entries hash without them.
    pub shapes: Arc<Shapes>,
    /// Says what policies were asked, for bundles.
    pub explain: Option<crate::evidence::export::Explain>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            live_workflows: 10_000,
            projection_interval: Duration::from_millis(250),
            projection_lag: 200_000,
            long_poll: Duration::from_secs(60),
            retention_interval: Duration::from_secs(60),
            wake_batch: 2000,
            evidence: true,
            reads: Reads::default(),
            shapes: Arc::default(),
            explain: None,
        }
    }
}

/// How long the last projection may take when the server ends.
const LAST_PROJECTION: Duration = Duration::from_secs(20);

/// The runtime. Cheap to clone.
#[derive(Clone)]
pub struct Runtime(pub(crate) Arc<Inner>);

/// What all clones share.
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shards: Shards,
    pub(crate) committer: std::sync::OnceLock<Committer>,
    pub(crate) matching: Matching,
    pub(crate) timers: Timers,
    pub(crate) namespaces: NamespaceRegistry,
    pub(crate) direct_queries: DirectQueries,
    /// While memory is being made again from the journal, calls wait.
    pub(crate) recovering: AtomicBool,
    pub(crate) recovered: Notify,
    /// Position up to which the journal is projected.
    pub(crate) projected: watch::Sender<u64>,
    pub(crate) project_now: Notify,
    /// Held while a batch is written.
    pub(crate) projecting: tokio::sync::Mutex<Sequencer>,
    /// The heads of the logs, as they are projected.
    pub(crate) heads: watch::Sender<HashMap<String, TreeHead>>,
    pub(crate) sealer: Sealer,
    /// Held by the one erasure that goes on.
    pub(crate) erasing: tokio::sync::Mutex<()>,
    pub(crate) chains: Chains,
    /// Decides what agents may do.
    pub(crate) governor: RwLock<Option<Arc<dyn Governor>>>,
    pub(crate) governor_changed: Notify,
    /// Makes the credentials of attempts.
    pub(crate) issuer: OnceLock<Arc<dyn Issuer>>,
    /// Who may do nothing any more.
    pub(crate) disabled: Disabled,
    /// Held while somebody is disabled or enabled.
    pub(crate) disabling: tokio::sync::Mutex<()>,
    /// What the seals of reads are made with.
    pub(crate) read_secret: bytes::Bytes,
    pub(crate) stopping: watch::Sender<bool>,
    pub(crate) transitions: AtomicU64,
    pub(crate) runtime: tokio::runtime::Handle,
}

impl Runtime {
    /// Opens the runtime on a store: replays what is not projected yet, and starts the background
    /// tasks on the current tokio runtime.
    pub async fn open(store: Arc<dyn Store>, settings: Settings) -> Result<Self> {
        let head = store.journal_head().await?;
        let projected = store.projected_position().await?;
        if projected > head {
            return Err(RuntimeError::Internal(format!(
                "the projections stand for journal position {projected}, but the journal ends at {head}"
            )));
        }
        let runtime = Self(Arc::new(Inner {
            sealer: Sealer::new(settings.shapes.clone()),
            settings,
            store: store.clone(),
            shards: Shards::default(),
            committer: std::sync::OnceLock::new(),
            matching: Matching::default(),
            timers: Timers::default(),
            namespaces: NamespaceRegistry::load(&*store).await?,
            direct_queries: DirectQueries::default(),
            recovering: AtomicBool::new(true),
            recovered: Notify::new(),
            projected: watch::channel(projected).0,
            project_now: Notify::new(),
            projecting: tokio::sync::Mutex::default(),
            heads: watch::Sender::default(),
            erasing: tokio::sync::Mutex::default(),
            chains: Chains::default(),
            governor: RwLock::default(),
            governor_changed: Notify::new(),
            issuer: OnceLock::new(),
            disabled: Disabled::load(&*store).await?,
            disabling: tokio::sync::Mutex::default(),
            read_secret: crate::clock::secret(),
            stopping: watch::channel(false).0,
            transitions: AtomicU64::new(0),
            runtime: tokio::runtime::Handle::current(),
        }));
        let on_failure = {
            let inner = Arc::downgrade(&runtime.0);
            Box::new(move |reset: &mut dyn FnMut()| match inner.upgrade() {
                Some(inner) => Self(inner).drop_memory(reset),
                None => reset(),
            })
        };
        let committer = Committer::start(store, head, on_failure)
            .map_err(|error| RuntimeError::Internal(format!("no thread for commits: {error}")))?;
        let _ = runtime.0.committer.set(committer);
        runtime.recover().await?;
        // What the journal has and the projections lost in a power failure counts as there.
        runtime.project_all().await?;
        if let Err(error) = runtime.overwrite_remains().await {
            tracing::warn!(%error, "old bytes of erased payloads are not overwritten yet");
        }
        let heads = runtime
            .0
            .projecting
            .lock()
            .await
            .heads(&*runtime.0.store)
            .await?;
        runtime.0.heads.send_modify(|known| known.extend(heads));
        runtime.spawn_background();
        Ok(runtime)
    }

    /// The committer.
    pub(crate) fn committer(&self) -> &Committer {
        // Set in `open` before anybody else has the runtime.
        match self.0.committer.get() {
            Some(committer) => committer,
            None => unreachable!("the committer is set when the runtime is opened"),
        }
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.0.settings.limits
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// The namespaces.
    pub fn namespaces(&self) -> &NamespaceRegistry {
        &self.0.namespaces
    }

    /// Workflows in memory.
    pub fn live_workflows(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Transitions and commits since the start.
    pub fn counters(&self) -> (u64, u64) {
        (
            self.0.transitions.load(Ordering::Relaxed),
            self.committer().groups(),
        )
    }

    /// An id of this cluster: that of its default namespace, which lives as long as the store.
    pub fn cluster_id(&self) -> String {
        self.namespaces()
            .all()
            .first()
            .map_or_else(String::new, |namespace| namespace.id.clone())
    }

    /// Durable journal rows that are not projected yet.
    pub fn journal_lag(&self) -> u64 {
        self.committer()
            .committed()
            .saturating_sub(*self.0.projected.borrow())
    }

    /// Whether the server is shutting down.
    pub fn is_stopping(&self) -> bool {
        *self.0.stopping.borrow()
    }

    /// Resolves when the server begins to shut down.
    pub async fn stopping(&self) {
        let mut stopping = self.0.stopping.subscribe();
        // The sender lives as long as the runtime.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    /// Begins the shutdown: polls are answered with nothing, background tasks end.
    pub fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    /// Ends: writes what is queued, projects it, and closes the store.
    pub async fn close(&self) -> Result<()> {
        self.stop();
        let this = self.clone();
        let closed = tokio::task::spawn_blocking(move || this.committer().close()).await;
        if closed.is_err() {
            tracing::error!("closing the committer failed");
        }
        // What does not get into the projections now is in the journal: the next start finds it.
        match tokio::time::timeout(LAST_PROJECTION, self.project_all()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the last projection is left to the next start")
            }
            Err(_) => tracing::warn!("the last projection takes too long: left to the next start"),
        }
        self.0.store.close().await?;
        Ok(())
    }

    fn spawn_background(&self) {
        // Not cut off in the middle of a batch: it looks for the end by itself.
        self.0.runtime.spawn(self.clone().run_projector());
        self.spawn(Self::run_timers);
        self.spawn(Self::run_queues);
        self.spawn(Self::run_retention);
        self.spawn(Self::run_decisions_again);
        self.spawn(Self::run_cascades);
    }

    /// Runs a task until it ends or the server stops.
    fn spawn<F>(&self, task: impl FnOnce(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stopping = self.clone();
        let task = task(self.clone());
        self.0.runtime.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stopping.stopping() => {}
            }
        });
    }
}
