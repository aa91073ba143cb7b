//! Whether a workflow survives what happens in production.
//!
//! A worker, unchanged and in any language, runs one workflow against a throw-away server, through a proxy
//! that sees what passes. An undisturbed run shows at which places something becomes durable. Then the
//! workflow is run again for each of them and for each thing that can go wrong there: the worker is
//! killed, the server is killed, an answer is lost or late. Each run has to come to the same result by
//! the same calls.
//!
//! Time is skipped while everybody waits, so that runs with time-outs of hours take seconds.

mod approvals;
mod children;
mod client;
mod compare;
pub mod judge;
pub mod point;
mod ports;
mod proxy;
pub mod report;
mod seen;
mod session;
mod twice;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

pub use compare::Same;
pub use judge::{Finding, Kind, Severity};
pub use point::{Boundary, Fault, Point};
pub use report::Report;

use judge::Baseline;
use report::Tried;
use session::{End, Outcome};

/// Where workers look for a server if nobody tells them.
const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7233);

/// Undisturbed runs, to see whether they agree.
const BASELINES: usize = 2;

/// What is tried.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program of the server: ours.
    pub server: PathBuf,
    /// The command that starts the worker. `{address}` in it is where its server is; the variable
    /// `TEMPORAL_ADDRESS` says so, too.
    pub worker: String,
    /// Type of the workflow.
    pub workflow: String,
    /// Its arguments.
    pub input: Vec<Value>,
    /// The task queue of the worker.
    pub task_queue: String,
    /// Signals, with their arguments, that are sent one by one when the workflow waits.
    pub signals: Vec<(String, Option<Value>)>,
    /// Policies that the server has.
    pub policy: Option<PathBuf>,
    /// Seconds that one run may take.
    pub timeout: Duration,
    /// What is tried: everything if there are none.
    pub faults: Vec<Fault>,
    /// Most disturbed runs.
    pub max_runs: usize,
    /// What chooses among them if there are more.
    pub seed: u64,
    /// Runs at the same time, if the worker looks where it is told to.
    pub jobs: usize,
    /// What makes results the same.
    pub same: Same,
}

/// Why nothing could be tried.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// A file or a process.
    #[error(transparent)]
    Io(std::io::Error),
    /// A port is taken.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The throw-away server.
    #[error("the server: {0}")]
    Server(String),
    /// The worker.
    #[error("the worker: {0}")]
    Worker(String),
    /// The worker never asked for work.
    #[error(
        "the worker did not ask for work. It has to connect to the address in TEMPORAL_ADDRESS or, without \
         that, to 127.0.0.1:7233. It said:\n{0}"
    )]
    NoPoll(String),
    /// The command that compares results.
    #[error("the command that compares results: {0}")]
    Compare(String),
    /// The workflow does not complete even if nothing happens.
    #[error("the workflow does not complete, undisturbed: {0}")]
    Baseline(String),
}

/// Told how far it is: runs that are done, and how many there will be.
pub type Progress = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// Tries everything.
pub async fn prove(plan: Plan, progress: Progress) -> Result<Report, ProveError> {
    let plan = Arc::new(plan);
    let (first, address) = find_worker(&plan).await?;
    let mut undisturbed = vec![first];
    while undisturbed.len() < BASELINES {
        let mut outcome = session::run(&plan, None, address).await?;
        plan.same
            .unify(&undisturbed[0].result, &mut outcome.result)
            .await?;
        undisturbed.push(outcome);
    }
    for outcome in &undisturbed {
        check_baseline(outcome)?;
    }
    let baseline = Baseline::new(&undisturbed, &plan.same);
    let expected = Arc::new(undisturbed[0].result.clone());
    let mut boundaries = undisturbed[0].seen.boundaries.clone();
    boundaries.push(Boundary::Run);
    let all = point::points(&boundaries, &[], usize::MAX, 0).len();
    let points = point::points(&boundaries, &plan.faults, plan.max_runs, plan.seed);
    // The fixed address has room for one worker.
    let jobs = address.map_or(plan.jobs.max(1), |_| 1);
    let total = points.len();
    let mut waiting = points.into_iter().enumerate();
    let mut running = JoinSet::new();
    let mut tried: Vec<(usize, Tried)> = Vec::with_capacity(total);
    loop {
        while running.len() < jobs
            && let Some((place, point)) = waiting.next()
        {
            let (plan, expected) = (plan.clone(), expected.clone());
            running.spawn(async move {
                let outcome = disturbed(&plan, &point, address, &expected).await;
                (place, point, outcome)
            });
        }
        let Some(ended) = running.join_next().await else {
            break;
        };
        let (place, point, outcome) =
            ended.map_err(|error| ProveError::Server(error.to_string()))?;
        let outcome = outcome?;
        let findings = baseline.judge(&point, &outcome);
        tried.push((
            place,
            Tried {
                point,
                reached: outcome.has_fired,
                findings,
                seconds: outcome.took.as_secs_f64(),
            },
        ));
        progress(tried.len(), total);
    }
    tried.sort_by_key(|(place, _)| *place);
    let tried = tried.into_iter().map(|(_, of)| of).collect();
    Ok(Report::new(
        &plan,
        &undisturbed[0],
        baseline.findings,
        tried,
        all,
    ))
}

/// A disturbed run, with the expected result if its own is the same by the user's command.
async fn disturbed(
    plan: &Plan,
    point: &Point,
    address: Option<SocketAddr>,
    expected: &Value,
) -> Result<Outcome, ProveError> {
    let mut outcome = session::run(plan, Some(point.clone()), address).await?;
    plan.same.unify(expected, &mut outcome.result).await?;
    Ok(outcome)
}

/// Finds out where the worker looks for its server.
async fn find_worker(plan: &Plan) -> Result<(Outcome, Option<SocketAddr>), ProveError> {
    match session::run(plan, None, None).await {
        Ok(outcome) => Ok((outcome, None)),
        // It may have connected to the usual address, where nobody is, or not.
        Err(ProveError::NoPoll(_) | ProveError::Worker(_)) => {
            let outcome = session::run(plan, None, Some(DEFAULT_ADDRESS)).await?;
            Ok((outcome, Some(DEFAULT_ADDRESS)))
        }
        Err(error) => Err(error),
    }
}

fn check_baseline(outcome: &Outcome) -> Result<(), ProveError> {
    match &outcome.end {
        End::Stuck(why) => Err(ProveError::Baseline(format!(
            "{why}\n{}",
            outcome.worker_log
        ))),
        // It may be what it is for.
        End::Completed | End::Failed => Ok(()),
    }
}
