//! The processes that are killed: a throw-away server and a worker.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::ProveError;

/// How long a server may take to start, or to answer a command.
const SERVER_PATIENCE: Duration = Duration::from_secs(20);

/// A throw-away server, with its clock in our hands.
pub struct Server {
    program: PathBuf,
    folder: PathBuf,
    /// Policies, and where it serves HTTP.
    policy: Option<(PathBuf, SocketAddr)>,
    address: SocketAddr,
    /// Nanoseconds that its time is ahead.
    skipped: i64,
    process: Option<Process>,
}

struct Process {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// One that keeps what it stores in a folder. It is not started.
    pub fn new(
        program: &Path,
        folder: &Path,
        policy: Option<(&Path, SocketAddr)>,
        address: SocketAddr,
    ) -> Self {
        Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            policy: policy.map(|(path, http)| (path.to_owned(), http)),
            address,
            skipped: 0,
            process: None,
        }
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves HTTP, if it does.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.policy.as_ref().map(|(_, http)| *http)
    }

    /// Starts it, on what an earlier process of it stored.
    pub async fn start(&mut self) -> Result<(), ProveError> {
        let log = log_file(&self.folder.join("server.log"))?;
        let mut command = Command::new(&self.program);
        command
            .args(["server", "start-dev", "--driven", "--headless", "--port"])
            .arg(self.address.port().to_string())
            .arg("--db-filename")
            .arg(self.folder.join("steadfast.db"));
        if let Some((policy, http)) = &self.policy {
            command.arg("--policy").arg(policy);
            command.arg("--http-port").arg(http.port().to_string());
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| ProveError::Server(format!("it cannot be started: {error}")))?;
        let (Some(commands), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ProveError::Server("it has no pipes".into()));
        };
        let mut answers = BufReader::new(output).lines();
        loop {
            match timeout(SERVER_PATIENCE, answers.next_line()).await {
                Ok(Ok(Some(line))) if line.starts_with("Server:") => break,
                Ok(Ok(Some(_))) => {}
                _ => return Err(ProveError::Server(self.last_words())),
            }
        }
        self.process = Some(Process {
            child,
            commands,
            answers,
        });
        if self.skipped > 0 {
            let by = format!("by {}", self.skipped);
            self.command(&by).await?;
        }
        Ok(())
    }

    /// Kills it, as a power failure would but for the disk.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It is dead if that fails.
            let _ = process.child.kill().await;
        }
    }

    /// Skips to when something is due, by some nanoseconds more. False if nothing will ever be due.
    pub async fn skip(&mut self, extra: Duration) -> Result<bool, ProveError> {
        let command = format!("skip {}", extra.as_nanos());
        match self.command(&command).await?.strip_prefix("skipped ") {
            Some(nanos) => {
                let nanos: i64 = nanos.parse().unwrap_or(0);
                self.skipped = self.skipped.saturating_add(nanos);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Skips so much time.
    pub async fn skip_by(&mut self, time: Duration) -> Result<(), ProveError> {
        let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        self.command(&format!("by {nanos}")).await?;
        self.skipped = self.skipped.saturating_add(nanos);
        Ok(())
    }

    async fn command(&mut self, command: &str) -> Result<String, ProveError> {
        let gone = |what: &str| ProveError::Server(format!("it does not answer: {what}"));
        let process = self.process.as_mut().ok_or_else(|| gone("not started"))?;
        let line = format!("{command}\n");
        let written = process.commands.write_all(line.as_bytes()).await;
        written.map_err(|error| gone(&error.to_string()))?;
        match timeout(SERVER_PATIENCE, process.answers.next_line()).await {
            Ok(Ok(Some(answer))) if !answer.starts_with("error") => Ok(answer),
            Ok(Ok(Some(error))) => Err(gone(&error)),
            _ => Err(gone(&self.last_words())),
        }
    }

    fn last_words(&self) -> String {
        tail(&self.folder.join("server.log"))
    }
}

/// The worker: a command in a process group of its own.
pub struct Worker {
    command: String,
    folder: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

impl Worker {
    /// A worker that looks for its server at an address. It is not started.
    pub fn new(command: &str, folder: &Path, address: SocketAddr) -> Self {
        Self {
            command: command.replace("{address}", &address.to_string()),
            folder: folder.to_owned(),
            address,
            child: None,
        }
    }

    /// Starts it.
    pub fn start(&mut self) -> Result<(), ProveError> {
        let log = log_file(&self.folder.join("worker.log"))?;
        let errors = log.try_clone().map_err(ProveError::Io)?;
        let child = Command::new("sh")
            .args(["-c", &self.command])
            .env("TEMPORAL_ADDRESS", self.address.to_string())
            .env("TEMPORAL_HOST_PORT", self.address.to_string())
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| ProveError::Worker(format!("it cannot be started: {error}")))?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills it and what it started.
    pub async fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
            // They are gone if that fails.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
        let _ = child.kill().await;
    }

    /// Why it ended by itself, if it did.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        Some(format!("it ended with {status}:\n{}", self.last_words()))
    }

    /// The end of what it printed.
    pub fn last_words(&self) -> String {
        tail(&self.folder.join("worker.log"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let id = self.child.as_ref().and_then(Child::id);
        if let Some(id) = id.and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

fn log_file(path: &Path) -> Result<File, ProveError> {
    let file = File::options().create(true).append(true).open(path);
    file.map_err(ProveError::Io)
}

/// The last lines of a file.
fn tail(path: &Path) -> String {
    const LINES: usize = 40;
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
