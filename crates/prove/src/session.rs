//! One run: a fresh server, a fresh worker, one workflow, and at most one fault.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use steadfast_api::messages::enums::v1::WorkflowExecutionStatus as Status;
use steadfast_api::messages::history::v1::HistoryEvent;
use steadfast_api::messages::history::v1::history_event::Attributes;

use crate::approvals::{self, WaitingCall};
use crate::children::{Server, Worker};
use crate::client;
use crate::point::{Fault, Point};
use crate::ports::Ports;
use crate::proxy::{Business, Proxy, Stage, listen};
use crate::seen::{Seen, digest};
use crate::{Plan, ProveError};

/// How often it is looked how things are.
const LOOK: Duration = Duration::from_millis(20);

/// Without anything to do for so long, everybody waits for time to pass.
const IDLE: Duration = Duration::from_millis(120);

/// How long a worker may take to ask for work.
const WORKER_PATIENCE: Duration = Duration::from_secs(30);

/// Times that everybody may wait: more says that it never ends.
const MAX_WAITS: usize = 500;

/// Failed workflow tasks after which it is not looked whether the next one does better.
const MAX_FAILED_TASKS: usize = 4;

/// SDKs do not report that the next attempt of a workflow task failed as well: nothing for so long says that it
/// did.
const FAILED_QUIET: Duration = Duration::from_secs(2);

/// How long a worker may take for a workflow task. SDKs break off code that holds one up after two seconds, and say
/// nothing when it is a second attempt that fails.
const TASK_PATIENCE: Duration = Duration::from_secs(5);

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How.
    pub end: End,
    /// The result, or why it failed, as JSON.
    pub result: Value,
    /// What the workflow did: the calls that it made, in order, with what stands for their arguments.
    pub actions: Vec<(String, [u8; 32])>,
    /// How many events its history has, and whether the server suggested to continue as new.
    pub history: (usize, bool),
    /// What passed between worker and server.
    pub seen: Seen,
    /// Tool calls that waited for people before everything was killed, and did not afterwards as before.
    pub approvals_lost: Vec<String>,
    /// Whether the point was reached.
    pub has_fired: bool,
    /// The worker's last lines.
    pub worker_log: String,
    /// How long it took.
    pub took: Duration,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The workflow completed.
    Completed,
    /// It failed, timed out, or was ended.
    Failed,
    /// It did not come to an end. What it waits for.
    Stuck(String),
}

/// Runs the workflow once, disturbed at a point.
pub async fn run(
    plan: &Plan,
    point: Option<Point>,
    address: Option<SocketAddr>,
) -> Result<Outcome, ProveError> {
    let begun = Instant::now();
    let folder = tempfile::tempdir().map_err(ProveError::Io)?;
    let listener = listen(address).await?;
    let worker_address = listener.local_addr().map_err(ProveError::Io)?;
    let ports = Ports::claim()?;
    // Approvals are asked for and given by HTTP.
    let policy = plan.policy.as_deref().map(|path| (path, ports.http));
    let mut server = Server::new(&plan.server, folder.path(), policy, ports.grpc);
    server.start().await?;
    let mut worker = Worker::new(&plan.worker, folder.path(), worker_address);
    worker.start()?;
    let stage = Stage { server, worker };
    let (proxy, serving) = Proxy::serve(listener, stage, point).await?;
    let mut approvals_lost = Vec::new();
    let end = drive(plan, &proxy, &mut approvals_lost).await;
    let outcome = match end {
        Ok(end) => {
            let events = client::history(proxy.channel(), WORKFLOW_ID).await?;
            Ok(Outcome {
                end,
                result: client::result_of(&events),
                actions: actions(&events),
                history: (events.len(), is_long(&events)),
                seen: proxy.seen(),
                approvals_lost,
                has_fired: proxy.has_fired(),
                worker_log: proxy.stage().await.worker.last_words(),
                took: begun.elapsed(),
            })
        }
        Err(error) => Err(error),
    };
    let mut stage = proxy.stage().await;
    stage.worker.kill().await;
    stage.server.kill().await;
    drop(stage);
    serving.abort();
    match proxy.wrong() {
        Some(wrong) => Err(ProveError::Server(wrong)),
        None => outcome,
    }
}

const WORKFLOW_ID: &str = "prove";

async fn drive(
    plan: &Plan,
    proxy: &Proxy,
    approvals_lost: &mut Vec<String>,
) -> Result<End, ProveError> {
    wait_for_worker(proxy).await?;
    let (workflow_type, queue) = (&plan.workflow, &plan.task_queue);
    client::start(
        proxy.channel(),
        workflow_type,
        WORKFLOW_ID,
        queue,
        &plan.input,
    )
    .await?;
    let deadline = Instant::now() + plan.timeout;
    let mut signals = plan.signals.iter().enumerate();
    let mut waits = 0;
    let mut asked: Option<WaitingCall> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let described = client::describe(proxy.channel(), WORKFLOW_ID).await?;
        match described.status {
            Status::Running => {}
            Status::Completed => return Ok(End::Completed),
            // The next run is the current one in a moment.
            Status::ContinuedAsNew => {}
            _ => return Ok(End::Failed),
        }
        let waits_for = || match described.waits_for.is_empty() {
            true => "a signal, or something else that never comes".to_owned(),
            false => described.waits_for.join("; "),
        };
        if Instant::now() > deadline {
            let seconds = plan.timeout.as_secs();
            return Ok(End::Stuck(format!(
                "after {seconds} s it waits for {}",
                waits_for()
            )));
        }
        let (failed, quiet) = proxy.failed_tasks();
        if failed >= MAX_FAILED_TASKS || failed > 0 && quiet > FAILED_QUIET {
            let what = "its workflow task fails again and again";
            return Ok(End::Stuck(what.to_owned()));
        }
        if proxy.unanswered() > TASK_PATIENCE {
            let what = "the worker does not answer its workflow task: its code blocks, or the SDK cannot replay it";
            return Ok(End::Stuck(what.to_owned()));
        }
        if let Some(why) = proxy.stage().await.worker.ended() {
            return Err(ProveError::Worker(why));
        }
        if !matches!(proxy.business(), Business::Idle(time) if time >= IDLE) {
            continue;
        }
        waits += 1;
        if waits > MAX_WAITS {
            return Ok(End::Stuck(format!(
                "it waits again and again, for {}",
                waits_for()
            )));
        }
        let waiting = match &plan.policy {
            Some(_) => waiting_calls(proxy).await?,
            None => Vec::new(),
        };
        if let Some(before) = asked.take() {
            approvals_lost.extend(approvals::lost(&before, &waiting));
        }
        let call = waiting.first();
        let activity_type = call.map(|of| of.activity_type.as_str());
        if proxy.idle(WORKFLOW_ID, activity_type).await? {
            if proxy.is_point_of(Fault::Restart) {
                asked = call.cloned();
            }
            wait_for_worker(proxy).await?;
            continue;
        }
        if let Some(call) = call {
            vote(proxy, call).await?;
            continue;
        }
        if described.waits_for.is_empty()
            && let Some((number, (name, input))) = signals.next()
        {
            client::signal(proxy.channel(), WORKFLOW_ID, name, number, input.as_ref()).await?;
            proxy.stirred();
            continue;
        }
        if !proxy.stage().await.server.skip(Duration::ZERO).await? {
            return Ok(End::Stuck(format!("it waits for {}", waits_for())));
        }
    }
}

async fn waiting_calls(proxy: &Proxy) -> Result<Vec<WaitingCall>, ProveError> {
    let server = proxy.stage().await.server.http_address();
    match server {
        Some(server) => approvals::waiting(server).await,
        None => Ok(Vec::new()),
    }
}

async fn vote(proxy: &Proxy, call: &WaitingCall) -> Result<(), ProveError> {
    let server = proxy.stage().await.server.http_address();
    if let Some(server) = server {
        approvals::approve(server, call).await?;
        proxy.stirred();
    }
    Ok(())
}

async fn wait_for_worker(proxy: &Proxy) -> Result<(), ProveError> {
    let deadline = Instant::now() + WORKER_PATIENCE;
    while proxy.business() == Business::Absent {
        let mut stage = proxy.stage().await;
        if let Some(why) = stage.worker.ended() {
            return Err(ProveError::Worker(why));
        }
        if Instant::now() > deadline {
            let said = stage.worker.last_words();
            return Err(ProveError::NoPoll(said));
        }
        drop(stage);
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn is_long(events: &[HistoryEvent]) -> bool {
    events.iter().any(|event| {
        matches!(
            &event.attributes,
            Some(Attributes::WorkflowTaskStartedEventAttributes(of)) if of.suggest_continue_as_new
        )
    })
}

/// The calls that the workflow made.
fn actions(events: &[HistoryEvent]) -> Vec<(String, [u8; 32])> {
    use Attributes as A;
    let name = |of: Option<&str>| of.unwrap_or_default().to_owned();
    let actions = events
        .iter()
        .filter_map(|event| match event.attributes.as_ref()? {
            A::ActivityTaskScheduledEventAttributes(of) => {
                let activity = of.activity_type.as_ref().map(|of| of.name.as_str());
                Some((name(activity), digest(of.input.as_ref())))
            }
            A::StartChildWorkflowExecutionInitiatedEventAttributes(of) => {
                let child = of.workflow_type.as_ref().map(|of| of.name.as_str());
                Some((format!("child {}", name(child)), digest(of.input.as_ref())))
            }
            A::SignalExternalWorkflowExecutionInitiatedEventAttributes(of) => Some((
                format!("signal {}", of.signal_name),
                digest(of.input.as_ref()),
            )),
            A::TimerStartedEventAttributes(_) => Some(("timer".to_owned(), [0; 32])),
            _ => None,
        });
    actions.collect()
}
