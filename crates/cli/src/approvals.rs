//! `steadfast approvals`: tool calls, and other commands of agents, that wait for people.

use std::io::{IsTerminal, Write, stdin};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::evidence::client::Target;

/// Tool calls, and other commands of agents, that wait for people.
#[derive(Subcommand)]
pub enum Command {
    /// List what waits, oldest first, with the exact arguments.
    List(List),
    /// Approve a call.
    Approve(Vote),
    /// Deny a call: it fails at once.
    Deny(Vote),
}

impl Command {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode, String> {
        match self {
            Self::List(list) => list.run(),
            Self::Approve(vote) => vote.run(true),
            Self::Deny(vote) => vote.run(false),
        }
    }
}

/// The list.
#[derive(Args)]
pub struct List {
    #[command(flatten)]
    target: Target,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// A vote.
#[derive(Args)]
pub struct Vote {
    #[command(flatten)]
    target: Target,
    /// The workflow.
    #[arg(long, short, value_name = "ID")]
    workflow_id: String,
    /// The tool call; not needed if the workflow has one call that waits.
    #[arg(long, value_name = "ID")]
    activity_id: Option<String>,
    /// The call, of whatever kind, by the event that the list shows.
    #[arg(long, value_name = "NUMBER", conflicts_with = "activity_id")]
    event_id: Option<i64>,
    /// The digest of the call, as the list shows it: nothing is shown and asked then.
    #[arg(long, value_name = "BASE64")]
    digest: Option<String>,
    /// Why.
    #[arg(long, value_name = "TEXT", default_value = "")]
    comment: String,
    /// Who votes, where nobody is authenticated; $USER if it is not given.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// A group that you are in, where nobody is authenticated. May be repeated.
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

impl List {
    fn run(self) -> Result<ExitCode, String> {
        let calls = waiting(&self.target)?;
        if self.json {
            println!("{}", Value::from(calls));
            return Ok(ExitCode::SUCCESS);
        }
        if calls.is_empty() {
            println!("nothing waits");
        }
        for call in &calls {
            show(call);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Vote {
    fn run(self, approve: bool) -> Result<ExitCode, String> {
        let call = self.find()?;
        let digest = text(&call["digest"]);
        if self.digest.as_ref().is_some_and(|given| *given != digest) {
            return Err(format!(
                "the call that waits is another one: its digest is {digest}"
            ));
        }
        if self.digest.is_none() {
            show(&call);
            if !self.yes && !is_confirmed(approve)? {
                eprintln!("no vote was given");
                return Ok(ExitCode::FAILURE);
            }
        }
        let user = || std::env::var("USER").unwrap_or_default();
        let body = json!({
            "workflowId": self.workflow_id,
            "runId": call["runId"],
            "eventId": call["eventId"],
            "digest": digest,
            "approve": approve,
            "comment": self.comment,
            "identity": self.identity.clone().unwrap_or_else(user),
            "groups": self.group,
        });
        let answer = self.target.post_json("approvals", &body)?;
        println!(
            "{}",
            match answer["state"].as_str() {
                Some("released") => "released: the call goes on",
                Some("refused") => "refused: the call failed",
                _ => "counted: more votes are needed",
            }
        );
        Ok(ExitCode::SUCCESS)
    }

    /// The call that is meant.
    fn find(&self) -> Result<Value, String> {
        let is_it = |call: &Value| {
            let id = self.activity_id.as_deref();
            let is_named = |id| call["kind"] == "tool" && call["activityId"] == id;
            call["workflowId"] == self.workflow_id.as_str()
                && id.is_none_or(is_named)
                && self.event_id.is_none_or(|id| call["eventId"] == id)
        };
        let mut found: Vec<Value> = waiting(&self.target)?.into_iter().filter(is_it).collect();
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(format!(
                "no such call of workflow {:?} waits for approval",
                self.workflow_id
            )),
            _ => {
                let ids: Vec<String> = found.iter().map(|of| of["eventId"].to_string()).collect();
                Err(format!(
                    "{} calls wait: name one with --event-id: {}",
                    ids.len(),
                    ids.join(", ")
                ))
            }
        }
    }
}

fn waiting(target: &Target) -> Result<Vec<Value>, String> {
    let (_, body) = target.get("approvals", &[])?;
    let answer: Value = serde_json::from_reader(body)
        .map_err(|error| format!("not the answer of a server: {error}"))?;
    let calls = answer["approvals"].as_array().cloned();
    calls.ok_or_else(|| "not the answer of a server".to_owned())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> String {
    let items = value.as_array().into_iter().flatten();
    items.map(text).collect::<Vec<_>>().join(", ")
}

/// Shows a call. What agents and callers write cannot move the cursor.
fn show(call: &Value) {
    let clean = |value: &Value| text(value).escape_debug().to_string();
    let (name, id) = (clean(&call["activityType"]), clean(&call["activityId"]));
    let what = match call["kind"].as_str() {
        Some("child") => format!("child {id} ({name})"),
        Some("signal") => format!("signal {name} to workflow {id}"),
        Some("cancel") => format!("request to cancel workflow {id}"),
        _ => name,
    };
    println!(
        "{what} of workflow {} ({}), {}event {}",
        clean(&call["workflowId"]),
        clean(&call["workflowType"]),
        match call["kind"].as_str() {
            Some("tool") => format!("activity {id}, "),
            _ => String::new(),
        },
        call["eventId"],
    );
    for key in ["runId", "taskQueue", "cronSchedule", "reason"] {
        if let Some(text) = call["target"].get(key) {
            println!("  {key}: {}", clean(text));
        }
    }
    if call["target"]["terminatesRunning"] == true {
        println!("  ends a workflow of this id, if one is running");
    }
    for (number, argument) in call["arguments"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let shown = match argument.get("json") {
            Some(value) => value.to_string(),
            None => format!(
                "{} bytes in base64 ({}): {}",
                text(&argument["base64"]).len() / 4 * 3,
                clean(&argument["encoding"]),
                clean(&argument["base64"])
            ),
        };
        println!("  argument {number}: {}", printable(&shown));
    }
    println!("  started by {}", clean(&call["initiator"]["name"]));
    let groups = list(&call["groups"]).escape_debug().to_string();
    let people = match groups.is_empty() {
        true => "anybody else".to_owned(),
        false => groups,
    };
    println!("  needs {} of: {people}", call["quorum"]);
    for vote in call["votes"].as_array().into_iter().flatten() {
        println!("  approved by {}", clean(&vote["principal"]));
    }
    println!("  policies {}", list(&call["policies"]).escape_debug());
    println!("  expires {}", text(&call["expires"]));
    println!("  digest {}", text(&call["digest"]));
}

/// JSON escapes control characters of ASCII, but not all that a terminal takes for one.
fn printable(json: &str) -> String {
    json.chars()
        .flat_map(|c| match c.is_control() {
            true => c.escape_unicode().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect()
}

fn is_confirmed(approve: bool) -> Result<bool, String> {
    if !stdin().is_terminal() {
        return Err("there is nobody to ask: give --digest or --yes".to_owned());
    }
    eprint!(
        "{} this call? [y/N] ",
        if approve { "Approve" } else { "Deny" }
    );
    let mut answer = String::new();
    std::io::stderr()
        .flush()
        .and_then(|()| stdin().read_line(&mut answer))
        .map_err(|error| error.to_string())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
