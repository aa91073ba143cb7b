//! `steadfast prove`: whether a workflow survives what happens in production.

mod attest;

use std::io::{IsTerminal, Write, stderr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;
use steadfast_prove::report::Verdict;
use steadfast_prove::{Fault, Plan, Progress, Report, Same, prove};

use attest::{Keygen, Signer};

/// Run a workflow again and again, and kill its worker and its server at every place at which something
/// becomes durable. Ends with 0 if it always came to the same result, with 1 if not, with 2 if it could not be
/// tried.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Prove {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    attempt: Option<Attempt>,
}

/// Commands beside proving itself.
#[derive(Subcommand)]
enum Command {
    /// Make a key that signs attestations. Prints the verifier key, for trusted_keys of [prove].
    Keygen(Keygen),
}

#[derive(Args)]
struct Attempt {
    /// The command that starts the worker. It has to connect to the address in TEMPORAL_ADDRESS, which is also
    /// `{address}` in the command, or else to 127.0.0.1:7233.
    #[arg(long, value_name = "COMMAND")]
    worker: String,
    /// Type of the workflow.
    #[arg(long, value_name = "TYPE")]
    workflow: String,
    /// The worker's task queue.
    #[arg(long, value_name = "NAME")]
    task_queue: String,
    /// A file with the workflow's argument as JSON; `-` for none.
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// The file has a list with an argument in each place.
    #[arg(long)]
    input_list: bool,
    /// A signal that is sent when the workflow waits. May be repeated: they are sent one by one.
    #[arg(long, value_name = "NAME[=JSON]")]
    signal: Vec<String>,
    /// A file of Cedar policies, or a directory with such files, for the server. What they let wait for people
    /// is approved.
    #[arg(long, value_name = "PATH")]
    policy: Option<PathBuf>,
    /// A part of the result that may differ, as a JSON Pointer; "" for all of it.
    #[arg(long, value_name = "POINTER")]
    ignore: Vec<String>,
    /// The only parts of the result that are compared, as JSON Pointers.
    #[arg(long, value_name = "POINTER")]
    same_at: Vec<String>,
    /// A command that compares results where they differ. It gets the names of two files with JSON, the expected
    /// result and the other, and ends with 0 if they are the same and with 1 if they are not.
    #[arg(long, value_name = "COMMAND")]
    same_if: Option<String>,
    /// What is tried, by its name in the JSON of reports; everything if it is left out. May be repeated.
    #[arg(long, value_name = "NAME")]
    fault: Vec<String>,
    /// Most disturbed runs. Beyond that some are chosen.
    #[arg(long, value_name = "N", default_value_t = 300)]
    max_runs: usize,
    /// What chooses them.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Runs at the same time.
    #[arg(long, value_name = "N", default_value_t = 4)]
    jobs: usize,
    /// Seconds that one run may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the report as a web page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a signed attestation of what came out.
    #[arg(long, value_name = "FILE", requires = "key")]
    attest: Option<PathBuf>,
    /// The file with the key that signs it (`steadfast prove keygen`).
    #[arg(long, value_name = "FILE", env = "STEADFAST_PROVE_KEY")]
    key: Option<PathBuf>,
    /// The image that the worker is in, which the attestation is about then: NAME@sha256:DIGEST.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
}

impl Prove {
    /// Tries.
    pub fn run(self) -> Result<ExitCode, String> {
        match (self.command, self.attempt) {
            (Some(Command::Keygen(keygen)), _) => keygen.run(),
            (None, Some(attempt)) => attempt.run(),
            (None, None) => Ok(untried("say which worker and which workflow")),
        }
    }
}

impl Attempt {
    fn run(self) -> Result<ExitCode, String> {
        // What cannot be signed need not be tried.
        let signer = match self.signer() {
            Ok(signer) => signer,
            Err(error) => return Ok(untried(&error)),
        };
        let plan = match self.plan() {
            Ok(plan) => plan,
            Err(error) => return Ok(untried(&error)),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no threads: {error}"))?;
        let progress: Progress = Arc::new(show);
        let tried = runtime.block_on(async {
            let stop = super::serve::stop_signal()?;
            tokio::select! {
                tried = prove(plan, progress) => tried.map_err(|error| error.to_string()),
                // What is dropped ends its processes.
                () = stop => Err("stopped".to_owned()),
            }
        });
        // Runs under way are dropped with it.
        drop(runtime);
        let report = match tried {
            Ok(report) => report,
            Err(error) => return Ok(untried(&error)),
        };
        print!("{report}");
        self.write(&report)?;
        if let (Some(signer), Some(path)) = (&signer, &self.attest) {
            signer.attest(&report, path)?;
        }
        Ok(match report.verdict {
            Verdict::Resumable => ExitCode::SUCCESS,
            Verdict::NotResumable => ExitCode::from(1),
        })
    }

    fn signer(&self) -> Result<Option<Signer>, String> {
        match (&self.attest, &self.key) {
            (Some(_), Some(key)) => Signer::open(key, self.image.as_deref()).map(Some),
            _ => Ok(None),
        }
    }

    fn plan(&self) -> Result<Plan, String> {
        let server = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
        let input = match self.input.as_os_str() == "-" {
            true => Vec::new(),
            false => arguments(&self.input, self.input_list)?,
        };
        let signals = self
            .signal
            .iter()
            .map(|signal| match signal.split_once('=') {
                None => Ok((signal.clone(), None)),
                Some((name, json)) => {
                    let value = serde_json::from_str(json);
                    let value = value.map_err(|error| format!("--signal {signal}: {error}"))?;
                    Ok((name.to_owned(), Some(value)))
                }
            });
        let fault = |name: &String| {
            let names = || Fault::ALL.map(Fault::id).join(", ");
            Fault::by_id(name).ok_or_else(|| format!("--fault {name}: it is one of {}", names()))
        };
        Ok(Plan {
            server,
            worker: self.worker.clone(),
            workflow: self.workflow.clone(),
            input,
            task_queue: self.task_queue.clone(),
            signals: signals.collect::<Result<_, String>>()?,
            policy: self.policy.clone(),
            timeout: Duration::from_secs(self.timeout),
            faults: self.fault.iter().map(fault).collect::<Result<_, _>>()?,
            max_runs: self.max_runs,
            seed: self.seed,
            jobs: self.jobs,
            same: Same {
                only: self.same_at.clone(),
                ignore: self.ignore.clone(),
                command: self.same_if.clone(),
            },
        })
    }

    fn write(&self, report: &Report) -> Result<(), String> {
        let json = report.to_json().map_err(|error| error.to_string())?;
        let files = [
            (&self.json, json),
            (&self.junit, report.to_junit()),
            (&self.html, report.to_html()),
        ];
        for (path, text) in files {
            if let Some(path) = path {
                std::fs::write(path, text)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        Ok(())
    }
}

fn untried(error: &str) -> ExitCode {
    eprintln!("steadfast: {error}");
    ExitCode::from(2)
}

fn arguments(path: &Path, is_list: bool) -> Result<Vec<Value>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    match (
        serde_json::from_str(&text).map_err(|error| failed(&error))?,
        is_list,
    ) {
        (Value::Array(values), true) => Ok(values),
        (_, true) => Err(failed(&"it has no list")),
        (value, false) => Ok(vec![value]),
    }
}

/// A bar, where somebody looks.
fn show(done: usize, total: usize) {
    const WIDTH: usize = 40;
    let mut out = stderr();
    if !out.is_terminal() {
        return;
    }
    let full = done * WIDTH / total.max(1);
    let bar = "#".repeat(full) + &".".repeat(WIDTH - full);
    let end = if done == total { "\r\x1b[K" } else { "" };
    // Nobody misses it.
    let _ = write!(out, "\r[{bar}] {done}/{total}{end}");
    let _ = out.flush();
}
