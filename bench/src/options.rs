//! The command line of `loadgen`.

use std::time::Duration;

use clap::Parser;

/// Generates load on a Temporal-compatible server through its raw gRPC API.
///
/// Keeps a number of workflows in flight (closed loop). This program is also their worker: each
/// workflow runs its activities one after another and completes.
#[derive(Debug, Clone, Parser)]
#[command(name = "loadgen")]
pub struct Options {
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:7233")]
    pub address: String,
    /// An existing namespace.
    #[arg(long, default_value = "default")]
    pub namespace: String,
    /// Workflows kept in flight.
    #[arg(long, default_value_t = 64)]
    pub in_flight: usize,
    /// Activities of each workflow, one after another.
    #[arg(long, default_value_t = 1)]
    pub activities: u32,
    /// Measured seconds.
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// Seconds of load before the measurement.
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
    /// Bytes of each payload: the workflow's and the activities' inputs and results.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,
    /// Process whose processor time and memory are the server's; may be repeated.
    #[arg(long)]
    pub pid: Vec<u32>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// HTTP/2 connections.
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Waiting polls for each of the three task queues [default: half of --in-flight, 2 to 32].
    #[arg(long)]
    pub pollers: Option<usize>,
    /// Ask for the activity in the answer to the task that schedules it.
    #[arg(long)]
    pub eager_activities: bool,
    /// Ask for the first workflow task in the answer to the start.
    #[arg(long)]
    pub eager_start: bool,
    /// Create this many open workflows instead, which then wait.
    #[arg(long, value_name = "N", conflicts_with = "first_request")]
    pub idle: Option<usize>,
    /// What idle workflows wait for.
    #[arg(long, value_enum, default_value_t = Wait::Timer)]
    pub idle_wait: Wait,
    /// Workflow ids begin with this; the first idle workflow is PREFIX-0-0.
    #[arg(long, value_name = "PREFIX")]
    pub id_prefix: Option<String>,
    /// Time how long it takes until this open workflow can be described and signalled, instead.
    #[arg(long, value_name = "WORKFLOW_ID")]
    pub first_request: Option<String>,
    /// Seconds to wait for the server to answer at all.
    #[arg(long, default_value_t = 60.0)]
    pub ready_timeout: f64,
}

/// What an idle workflow waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Wait {
    /// A timer of thirty days.
    Timer,
    /// A signal, so no command at all.
    Signal,
}

impl Options {
    /// Waiting polls for each task queue.
    pub fn pollers(&self) -> usize {
        self.pollers.unwrap_or((self.in_flight / 2).clamp(2, 32))
    }

    /// The warm-up and the measured time.
    pub fn window(&self) -> anyhow::Result<(Duration, Duration)> {
        Ok((
            Duration::try_from_secs_f64(self.warmup)?,
            Duration::try_from_secs_f64(self.duration)?,
        ))
    }
}
