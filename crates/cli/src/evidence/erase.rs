//! `steadfast evidence erase`.

use std::io::{IsTerminal, Write, stdin};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::client::Target;

/// Erase the payloads of a session that is over: inputs, results, memo, search attributes, what
/// failures say. What happened, when and by whom stays, and the log verifies as before. There is no way
/// back.
#[derive(Args)]
pub struct Erase {
    #[command(flatten)]
    target: Target,
    /// The workflow.
    #[arg(long, short, value_name = "ID")]
    workflow_id: String,
    /// Only this run of it.
    #[arg(long, short, value_name = "RUN")]
    run_id: Option<String>,
    /// Why: it is in the log, for everybody who can read that.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who erases, for the log; $USER if it is not given.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

impl Erase {
    /// Erases.
    pub fn run(self) -> Result<ExitCode, String> {
        if !self.yes && !self.is_confirmed()? {
            eprintln!("nothing was erased");
            return Ok(ExitCode::FAILURE);
        }
        let user = || std::env::var("USER").unwrap_or_default();
        let body = json!({
            "workflowId": self.workflow_id,
            "runId": self.run_id.as_deref().unwrap_or_default(),
            "reason": self.reason.as_deref().unwrap_or_default(),
            "identity": self.identity.clone().unwrap_or_else(user),
        });
        let answer = self.target.post_json("evidence/erase", &body)?;
        for (name, text) in [("erased", "erased"), ("erasedBefore", "was erased before")] {
            let runs = answer[name].as_array();
            for run in runs.into_iter().flatten().filter_map(Value::as_str) {
                println!("run {run}: {text}");
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn is_confirmed(&self) -> Result<bool, String> {
        if !stdin().is_terminal() {
            return Err("there is nobody to ask: give --yes".to_owned());
        }
        let what = match &self.run_id {
            Some(run_id) => format!("run {run_id}"),
            None => "all runs".to_owned(),
        };
        eprint!(
            "Erase the payloads of {what} of workflow {:?} in namespace {:?}, for ever? [y/N] ",
            self.workflow_id, self.target.namespace
        );
        let mut answer = String::new();
        std::io::stderr()
            .flush()
            .and_then(|()| stdin().read_line(&mut answer))
            .map_err(|error| error.to_string())?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}
