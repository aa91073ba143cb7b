//! The closed loop: as many workflows in flight as there are slots, each followed by the next.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::{
    client::{CALL_TIMEOUT, Client, Ignored, Method, Started},
    options::{Options, Wait},
    report::{Report, per_workflow_ms},
    requests::Requests,
    slots::Slots,
    stats::{Latency, Recorder},
    usage,
    worker::Load,
    workflow::Plan,
};

/// A workflow that takes longer is counted as lost, and its slot goes on.
const LOST_AFTER: Duration = Duration::from_secs(60);
/// How long the last workflows may take, so that none is left to time out in the next measurement.
const DRAIN: Duration = Duration::from_secs(10);

/// What happened in a window of time.
pub struct Window {
    /// Its length.
    pub elapsed: Duration,
    /// Of each workflow that was completed in it.
    pub latencies: Vec<Duration>,
    /// Processor time of the server, if its processes are known.
    pub server_cpu: Option<Duration>,
    /// Processor time of this program.
    pub own_cpu: Duration,
}

/// Connects, waits until the namespace can be used, and starts the worker.
pub async fn prepare(options: &Options) -> Result<Arc<Load>> {
    let tag = match &options.id_prefix {
        Some(prefix) => prefix.clone(),
        None => unique_tag()?,
    };
    let requests = Requests::new(options, &tag);
    let plan = match (options.idle, options.idle_wait) {
        (None, _) => Plan::Activities(options.activities),
        (Some(_), Wait::Timer) => Plan::IdleOnTimer,
        (Some(_), Wait::Signal) => Plan::IdleOnSignal,
    };
    let patience = Duration::try_from_secs_f64(options.ready_timeout)?;
    let mut clients = vec![ready(&options.address, &requests, patience).await?];
    for _ in 1..options.connections.max(1) {
        clients.push(Client::connect(&options.address).await?);
    }
    let slots = Slots::new(tag, options.in_flight.max(1));
    let recorder = Recorder::default();
    let load = Arc::new(Load {
        clients,
        requests,
        slots,
        plan,
        recorder,
    });
    load.spawn_worker(options.pollers());
    Ok(load)
}

/// Runs the load and measures it.
pub async fn run(options: &Options) -> Result<Report> {
    let load = prepare(options).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut slots = JoinSet::new();
    for slot in 0..load.slots.count() {
        slots.spawn(keep_busy(load.clone(), slot, stop.clone()));
    }
    let (warmup, duration) = options.window()?;
    let window = measure(warmup, duration, &options.pid, &load.recorder).await?;
    let rss = resident_mib(&options.pid)?;
    stop.store(true, Ordering::Relaxed);
    let drained = tokio::time::timeout(DRAIN, async { while slots.join_next().await.is_some() {} });
    if drained.await.is_err() {
        load.recorder.failed("workflows still open at the end");
    }
    Ok(Report {
        mode: "loop",
        activities: options.activities,
        payload_bytes: options.payload,
        server_rss_mib: rss,
        ..window.report(load.slots.count(), &load.recorder)
    })
}

/// Measures what goes on in a window that begins after `warmup`.
pub async fn measure(
    warmup: Duration,
    duration: Duration,
    pids: &[u32],
    recorder: &Recorder,
) -> Result<Window> {
    let own = [std::process::id()];
    tokio::time::sleep(warmup).await;
    let server_before = usage::cpu_time(pids)?;
    let own_before = usage::cpu_time(&own)?;
    let start = Instant::now();
    recorder.open();
    tokio::time::sleep(duration).await;
    let latencies = recorder.close();
    let elapsed = start.elapsed();
    let server_cpu = usage::cpu_time(pids)?.saturating_sub(server_before);
    let own_cpu = usage::cpu_time(&own)?.saturating_sub(own_before);
    let server_cpu = (!pids.is_empty()).then_some(server_cpu);
    Ok(Window {
        elapsed,
        latencies,
        server_cpu,
        own_cpu,
    })
}

impl Window {
    /// The report's figures; what the load was made of is left to the caller.
    pub fn report(self, in_flight: usize, recorder: &Recorder) -> Report {
        let workflows = self.latencies.len();
        Report {
            mode: "",
            in_flight,
            activities: 0,
            payload_bytes: 0,
            seconds: self.elapsed.as_secs_f64(),
            workflows,
            workflows_per_second: workflows as f64 / self.elapsed.as_secs_f64(),
            latency_ms: Latency::of(self.latencies),
            server_cpu_ms: self.server_cpu.map(|cpu| per_workflow_ms(cpu, workflows)),
            loadgen_cpu_ms: per_workflow_ms(self.own_cpu, workflows),
            server_rss_mib: None,
            errors: recorder.errors(),
        }
    }
}

/// Resident memory, if the processes are known.
pub fn resident_mib(pids: &[u32]) -> Result<Option<f64>> {
    if pids.is_empty() {
        return Ok(None);
    }
    Ok(Some(
        usage::resident_bytes(pids)? as f64 / f64::from(1 << 20),
    ))
}

/// Starts one workflow and waits for its end. Says whether it went well.
pub async fn run_one(load: &Arc<Load>, slot: usize, number: u64) -> bool {
    let (workflow_id, done) = load.slots.begin(slot, number);
    let question = load.requests.start(workflow_id);
    let begun = Instant::now();
    let method = Method::START_WORKFLOW;
    let answer = load
        .client(slot)
        .call::<_, Started>(method, question, CALL_TIMEOUT)
        .await;
    match answer {
        Ok(Started {
            eager_workflow_task: Some(task),
        }) => {
            load.clone().do_workflow_task(slot, task).await;
        }
        Ok(_) => {}
        Err(status) => {
            load.note(method, &status);
            return false;
        }
    }
    match tokio::time::timeout(LOST_AFTER, done).await {
        Ok(Ok(ended)) => {
            load.recorder.completed(ended - begun);
            true
        }
        _ => {
            load.recorder
                .failed(format!("a workflow took over {} s", LOST_AFTER.as_secs()));
            false
        }
    }
}

async fn keep_busy(load: Arc<Load>, slot: usize, stop: Arc<AtomicBool>) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        if !run_one(&load, slot, number).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        number += 1;
    }
}

/// Connects, again and again until the server answers for the namespace.
pub async fn ready(address: &str, requests: &Requests, patience: Duration) -> Result<Client> {
    let deadline = Instant::now() + patience;
    loop {
        let error = match Client::connect(address).await {
            Ok(client) => {
                let question = requests.describe_namespace();
                let method = Method::DESCRIBE_NAMESPACE;
                match client
                    .call::<_, Ignored>(method, question, CALL_TIMEOUT)
                    .await
                {
                    Ok(_) => return Ok(client),
                    Err(status) => anyhow::Error::new(status),
                }
            }
            Err(error) => error.into(),
        };
        if Instant::now() > deadline {
            return Err(error).with_context(|| format!("no server is ready at {address}"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Different for each process at the same server.
pub fn unique_tag() -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(format!("load-{}-{}", std::process::id(), now.as_millis()))
}
