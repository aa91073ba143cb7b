//! `steadfast session`: pausing, resuming and revoking sessions.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::evidence::client::Target;

/// What a session may do from now on.
#[derive(Subcommand)]
pub enum Command {
    /// Hand nothing of it out any more, until it is resumed. What a worker has may be answered.
    Pause(Session),
    /// Go on with what waited.
    Resume(Session),
    /// End it for good, and what it was given.
    Revoke(Session),
}

/// A session.
#[derive(Args)]
pub struct Session {
    #[command(flatten)]
    target: Target,
    /// The workflow.
    #[arg(long, short, value_name = "ID")]
    workflow_id: String,
    /// Its run; the current one if it is not given.
    #[arg(long, short, value_name = "ID", default_value = "")]
    run_id: String,
    /// Why: it is in the history and in the log.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Who asks for it, where nobody is authenticated; $USER if it is not given.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
}

impl Command {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode, String> {
        let (session, path, done) = match self {
            Self::Pause(session) => (session, "sessions/pause", "paused"),
            Self::Resume(session) => (session, "sessions/resume", "resumed"),
            Self::Revoke(session) => (session, "sessions/revoke", "revoked"),
        };
        let user = || std::env::var("USER").unwrap_or_default();
        let body = json!({
            "workflowId": session.workflow_id,
            "runId": session.run_id,
            "reason": session.reason,
            "identity": session.identity.clone().unwrap_or_else(user),
        });
        session.target.post_json(path, &body)?;
        println!("{done}: {}", session.workflow_id);
        Ok(ExitCode::SUCCESS)
    }
}
