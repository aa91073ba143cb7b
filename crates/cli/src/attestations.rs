//! `steadfast attestations`: what `steadfast prove --attest` wrote, at a server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::evidence::client::Target;

/// Attestations that workflow types are resumable.
#[derive(Subcommand)]
pub enum Command {
    /// Store an attestation. Its key has to be one of trusted_keys of [prove].
    Add(Add),
    /// List them, the newest first.
    List(List),
}

#[derive(Args)]
pub struct Add {
    #[command(flatten)]
    target: Target,
    /// What `steadfast prove --attest` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    target: Target,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

impl Command {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode, String> {
        match self {
            Self::Add(add) => add.run(),
            Self::List(list) => list.run(),
        }
    }
}

impl Add {
    fn run(self) -> Result<ExitCode, String> {
        let envelope = std::fs::read(&self.file);
        let envelope = envelope.map_err(|error| format!("{}: {error}", self.file.display()))?;
        let stored = self.target.post_bytes("attestations", &envelope)?;
        println!("{}", line(&stored));
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    fn run(self) -> Result<ExitCode, String> {
        let (_, body) = self.target.get("attestations", &[])?;
        let answer: Value = serde_json::from_reader(body)
            .map_err(|error| format!("not the answer of a server: {error}"))?;
        if self.json {
            println!("{}", answer["attestations"]);
            return Ok(ExitCode::SUCCESS);
        }
        let stored = answer["attestations"].as_array().cloned();
        let stored = stored.unwrap_or_default();
        if stored.is_empty() {
            println!("there are none");
        }
        for of in &stored {
            println!("{}", line(of));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// An attestation on a line. What others wrote cannot move the cursor.
fn line(of: &Value) -> String {
    let text = |name: &str| {
        of[name]
            .as_str()
            .unwrap_or_default()
            .escape_debug()
            .to_string()
    };
    let counts = match of["counts"].as_bool() {
        Some(true) => "",
        _ => ", does not count",
    };
    format!(
        "{}: {}, {} of {} tried, {} by {}{counts}",
        text("workflowType"),
        text("verdict").replace('_', " "),
        of["reached"],
        of["points"],
        text("finished"),
        text("key")
    )
}
