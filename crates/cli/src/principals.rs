//! `steadfast principals`: cutting off who may do nothing any more, with all that runs for them.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::evidence::client::{Server, escaped};

/// Principals that may do nothing any more.
#[derive(Subcommand)]
pub enum Command {
    /// List those that are disabled.
    List(List),
    /// Refuse its calls, and stop its sessions, at once.
    Disable(Disable),
    /// Let it go on.
    Enable(Enable),
    /// Get the signed certificate that it was disabled: what became of its sessions, what they held, what
    /// remains of that and until when.
    Certificate(Certificate),
}

/// The list.
#[derive(Args)]
pub struct List {
    #[command(flatten)]
    server: Server,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Who is meant.
#[derive(Args)]
struct Who {
    /// Its name in the log, such as api-key#refund-workers; with --agent <namespace>/<workflow type>.
    name: String,
    /// An agent: all sessions of a workflow type.
    #[arg(long)]
    agent: bool,
    /// Who asks for it, where nobody is authenticated; $USER if it is not given.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
}

/// What becomes of sessions.
#[derive(Clone, Copy, ValueEnum)]
enum Sessions {
    /// They rest, and can go on once the principal is enabled.
    Pause,
    /// They end.
    Revoke,
}

/// Who is disabled, and how.
#[derive(Args)]
pub struct Disable {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    who: Who,
    /// What becomes of its sessions.
    #[arg(long, value_enum, default_value = "pause")]
    sessions: Sessions,
    /// Why: it is in histories and in the log.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Only say what it would come upon.
    #[arg(long)]
    dry_run: bool,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Who is enabled, and how.
#[derive(Args)]
pub struct Enable {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    who: Who,
    /// Resume the sessions that were paused for it.
    #[arg(long)]
    resume: bool,
}

/// Whose certificate, and where it goes.
#[derive(Args)]
pub struct Certificate {
    #[command(flatten)]
    server: Server,
    /// Its name in the log; with --agent <namespace>/<workflow type>.
    name: String,
    /// An agent: all sessions of a workflow type.
    #[arg(long)]
    agent: bool,
    /// The file to write; `-` is the standard output.
    #[arg(long, short, default_value = "-", value_name = "FILE")]
    output: PathBuf,
}

impl Certificate {
    fn run(self) -> Result<ExitCode, String> {
        let by = if self.agent { "agent" } else { "name" };
        let path = format!(
            "/api/v1/principals/certificate?{by}={}",
            escaped(&self.name)
        );
        let url = self.server.url(&path);
        let mut envelope = Vec::new();
        let read = self.server.get(&path)?.read_to_end(&mut envelope);
        read.map_err(|error| format!("{url}: {error}"))?;
        if self.output.as_os_str() == "-" {
            let written = std::io::stdout().write_all(&envelope);
            written.map_err(|error| error.to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
        let written = std::fs::write(&self.output, &envelope);
        written.map_err(|error| format!("{}: {error}", self.output.display()))?;
        eprintln!("{}: {} bytes", self.output.display(), envelope.len());
        Ok(ExitCode::SUCCESS)
    }
}

impl Who {
    fn body(&self) -> Value {
        let user = || std::env::var("USER").unwrap_or_default();
        let identity = self.identity.clone().unwrap_or_else(user);
        match self.agent {
            true => json!({ "agent": self.name, "identity": identity }),
            false => json!({ "name": self.name, "identity": identity }),
        }
    }
}

impl Command {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode, String> {
        match self {
            Self::List(list) => list.run(),
            Self::Disable(disable) => disable.run(),
            Self::Enable(enable) => enable.run(),
            Self::Certificate(certificate) => certificate.run(),
        }
    }
}

impl List {
    fn run(self) -> Result<ExitCode, String> {
        let answer = self.server.get_json("/api/v1/principals")?;
        if self.json {
            println!("{answer}");
            return Ok(ExitCode::SUCCESS);
        }
        let disabled = answer["disabled"].as_array().map_or(&[][..], Vec::as_slice);
        if disabled.is_empty() {
            println!("nobody is disabled");
        }
        for one in disabled {
            let progress = match one["complete"].as_bool() {
                Some(true) => "",
                _ => " (its sessions are being stopped)",
            };
            println!(
                "{} {}: since {} by {}, sessions: {}{progress}{}",
                text(one, "kind"),
                text(one, "name"),
                text(one, "at"),
                text(one, "by"),
                text(one, "sessions"),
                match text(one, "reason") {
                    "" => String::new(),
                    why => format!("\n    {why}"),
                }
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Disable {
    fn run(self) -> Result<ExitCode, String> {
        let mut body = self.who.body();
        body["reason"] = json!(self.reason);
        body["dryRun"] = json!(self.dry_run);
        body["sessions"] = json!(match self.sessions {
            Sessions::Pause => "pause",
            Sessions::Revoke => "revoke",
        });
        let answer = self.server.post_json("/api/v1/principals/disable", &body)?;
        if self.json {
            println!("{answer}");
            return Ok(ExitCode::SUCCESS);
        }
        let what = match (self.dry_run, self.sessions) {
            (true, Sessions::Pause) => "would be paused",
            (true, Sessions::Revoke) => "would be revoked",
            (false, Sessions::Pause) => "paused",
            (false, Sessions::Revoke) => "revoked",
        };
        show(&answer, what);
        Ok(ExitCode::SUCCESS)
    }
}

impl Enable {
    fn run(self) -> Result<ExitCode, String> {
        let mut body = self.who.body();
        body["resume"] = json!(self.resume);
        let answer = self.server.post_json("/api/v1/principals/enable", &body)?;
        println!("enabled: {}", self.who.name);
        if self.resume {
            show(&answer, "resumed");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a cascade came upon.
fn show(answer: &Value, what: &str) {
    println!(
        "sessions {what}: {}; attempts in workers' hands: {}",
        answer["sessions"], answer["attempts"]
    );
    if let Some(until) = answer["credentialsUntil"].as_str() {
        println!("who does not ask this server takes their credentials until {until}");
    }
    let named = answer["named"].as_array().map_or(&[][..], Vec::as_slice);
    for session in named {
        println!(
            "  {}/{} {} (run {})",
            text(session, "namespace"),
            text(session, "workflowId"),
            text(session, "workflowType"),
            text(session, "runId")
        );
    }
    let more = answer["sessions"]
        .as_u64()
        .unwrap_or(0)
        .saturating_sub(named.len() as u64);
    if more > 0 {
        println!("  and {more} more");
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
