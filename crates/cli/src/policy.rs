//! `steadfast policy`: policies, without a server and in one.

mod cases;
mod question;
mod remote;
mod what_if;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};
use steadfast_policy::{Argument, Arguments, Decision, Verdict, schema, starter};
use steadfast_server::governance::load;

use question::{Kind, Question, What};

/// Policies: whether they are valid, and what they decide.
#[derive(Subcommand)]
pub enum Command {
    /// Check that policies are valid. Ends with 1 if they are not.
    Check(Check),
    /// Show what policies decide about a call of the API or a command of an agent, and which of them decide.
    Explain(Box<Explain>),
    /// Write the policies to begin with into a directory, to be edited there.
    Init(Init),
    /// Decide a table of cases. Ends with 1 if something is decided otherwise than expected.
    Test(cases::Test),
    /// Print the schema that policies are written against.
    Schema,
    /// Show the policies that are in force in a server, or were.
    Get(remote::Get),
    /// Put policies into force in a server that reads none from files.
    Put(remote::Put),
    /// List when which policies came into force in a server, and who did it.
    History(remote::History),
    /// Show what other policies would have decided in sessions of a server, or of a bundle. Ends with 0 if
    /// nothing would have gone differently, with 1 if something would, with 2 if it cannot be told.
    WhatIf(Box<what_if::WhatIf>),
}

/// Which policies.
#[derive(Args)]
pub struct Check {
    /// A file of Cedar policies, or a directory with such files.
    path: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Where to.
#[derive(Args)]
pub struct Init {
    /// The directory. It is made if it is not there; files in it are not overwritten.
    path: PathBuf,
    /// Print the names of the files as JSON.
    #[arg(long)]
    json: bool,
}

/// A call.
#[derive(Args)]
#[command(group = ArgGroup::new("what").required(true)
    .args(["tool", "child", "signal", "cancel", "local_tool", "continue_as", "action"]))]
pub struct Explain {
    /// A file of Cedar policies, or a directory with such files.
    path: PathBuf,
    /// The tool: the activity's type.
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// For whom the tool's credential is to be: asks whether it is exchanged for that audience.
    #[arg(long, value_name = "URL", requires = "tool")]
    audience: Option<String>,
    /// What that one is to be limited to; may be repeated.
    #[arg(long, value_name = "WORD", requires = "audience")]
    scope: Vec<String>,
    /// The type of a child that is started.
    #[arg(long, value_name = "TYPE")]
    child: Option<String>,
    /// The workflow id of the child.
    #[arg(long, value_name = "ID", default_value = "", requires = "child")]
    child_workflow_id: String,
    /// The start of the child ends a workflow of its id that is running.
    #[arg(long, requires = "child")]
    terminates_running: bool,
    /// The name of a signal to another workflow.
    #[arg(long, value_name = "NAME", requires = "to")]
    signal: Option<String>,
    /// The workflow that the signal is for.
    #[arg(long, value_name = "ID", default_value = "", requires = "signal")]
    to: String,
    /// The workflow that is to be cancelled.
    #[arg(long, value_name = "ID")]
    cancel: Option<String>,
    /// The receiver of the signal or the request to cancel has to be a child.
    #[arg(long)]
    children_only: bool,
    /// A tool that ran in the worker: the local activity's type.
    #[arg(long, value_name = "NAME")]
    local_tool: Option<String>,
    /// The other workflow type that a session goes on as.
    #[arg(long, value_name = "TYPE")]
    continue_as: Option<String>,
    /// The call of the API, such as `TerminateWorkflowExecution`.
    #[arg(long, value_name = "NAME")]
    action: Option<String>,
    /// Who calls, as the log names them. A command is the session's.
    #[arg(long, value_name = "NAME", default_value = "", requires = "action")]
    principal: String,
    /// What the caller is: a service by default.
    #[arg(long, requires = "action")]
    kind: Option<Kind>,
    /// A group that the caller is in; may be repeated.
    #[arg(long = "group", value_name = "NAME", requires = "action")]
    groups: Vec<String>,
    /// How the caller was authenticated: oidc, mtls or api-key.
    #[arg(long, value_name = "NAME", requires = "action")]
    method: Option<String>,
    /// Arguments, each as JSON, in order.
    #[arg(long = "argument", value_name = "JSON", conflicts_with = "action")]
    arguments: Vec<String>,
    /// The workflow's id.
    #[arg(long, value_name = "ID", default_value = "")]
    workflow_id: String,
    /// The workflow's type.
    #[arg(long, value_name = "NAME", default_value = "")]
    workflow_type: String,
    /// The task queue.
    #[arg(long, value_name = "NAME", default_value = "")]
    task_queue: String,
    /// Who started the workflow.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        conflicts_with = "action"
    )]
    initiator: String,
    /// The workflow's type was attested to be resumable.
    #[arg(long)]
    attested: bool,
    /// The namespace; empty for calls about the whole server.
    #[arg(long, short, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

impl Command {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode, String> {
        match self {
            Self::Check(check) => check.run(),
            Self::Explain(explain) => explain.run(),
            Self::Init(init) => init.run(),
            Self::Test(test) => test.run(),
            Self::Schema => {
                print!("{}", schema::text());
                Ok(ExitCode::SUCCESS)
            }
            Self::Get(get) => get.run(),
            Self::Put(put) => put.run(),
            Self::History(history) => history.run(),
            Self::WhatIf(what_if) => what_if.run(),
        }
    }
}

impl Check {
    fn run(self) -> Result<ExitCode, String> {
        let loaded = load(&self.path);
        match (&loaded, self.json) {
            (Ok((_, policies)), true) => {
                println!("{}", json!({ "valid": true, "policies": policies.ids() }));
            }
            (Ok((_, policies)), false) => println!("valid: {}", policies.ids().join(", ")),
            (Err(problems), true) => {
                let problems: Vec<&str> = problems.lines().collect();
                println!("{}", json!({ "valid": false, "problems": problems }));
            }
            (Err(problems), false) => eprintln!("{problems}"),
        }
        Ok(match loaded {
            Ok(_) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        })
    }
}

impl Init {
    fn run(self) -> Result<ExitCode, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.path.display());
        std::fs::create_dir_all(&self.path).map_err(failed)?;
        let mut written = Vec::new();
        for (name, text) in starter::FILES {
            let path = self.path.join(name);
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            // What is there may have been edited.
            let mut file = std::fs::File::create_new(&path).map_err(failed)?;
            file.write_all(text.as_bytes()).map_err(failed)?;
            written.push(path.display().to_string());
        }
        match self.json {
            true => println!("{}", json!({ "files": written })),
            false => written.iter().for_each(|path| println!("{path}")),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Explain {
    fn run(self) -> Result<ExitCode, String> {
        let (_, policies) = load(&self.path)?;
        let arguments = self.arguments.iter().map(|text| {
            serde_json::from_str(text)
                .map(Argument::Json)
                .map_err(|error| format!("argument {text:?}: {error}"))
        });
        let arguments: Vec<Argument> = arguments.collect::<Result<_, _>>()?;
        let question = Question {
            what: What {
                action: self.action.as_deref(),
                tool: self.tool.as_deref(),
                child: self.child.as_deref(),
                signal: self.signal.as_deref(),
                cancel: self.cancel.as_deref(),
                local_tool: self.local_tool.as_deref(),
                continue_as: self.continue_as.as_deref(),
            },
            audience: self.audience.as_deref(),
            scope: &self.scope,
            child_workflow_id: &self.child_workflow_id,
            to: &self.to,
            children_only: self.children_only,
            terminates_running: self.terminates_running,
            kind: self.kind,
            principal: &self.principal,
            groups: &self.groups,
            method: self.method.as_deref(),
            namespace: &self.namespace,
            workflow_id: &self.workflow_id,
            workflow_type: &self.workflow_type,
            task_queue: &self.task_queue,
            initiator: &self.initiator,
            initiator_method: "",
            attempt: 1,
            attested: self.attested,
            session_age_seconds: 0,
            tool_calls: BTreeMap::new(),
            children: BTreeMap::new(),
            arguments: Arguments::new(arguments),
        };
        let decision = question.ask(&policies)?;
        match self.json {
            true => println!("{}", as_json(&decision)),
            false => print(&decision),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn answer(decision: &Decision) -> &'static str {
    match decision.verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
        Verdict::NeedsApproval(_) => "approval",
    }
}

fn as_json(decision: &Decision) -> Value {
    let mut value = json!({
        "answer": answer(decision),
        "policies": decision.policies,
        "errors": decision.errors,
    });
    if let Verdict::NeedsApproval(of) = &decision.verdict {
        value["groups"] = of.groups.clone().into();
        value["quorum"] = of.quorum.into();
        value["timeoutSeconds"] = of.timeout.as_secs().into();
    }
    value
}

fn print(decision: &Decision) {
    match &decision.verdict {
        Verdict::Allow => println!("allowed"),
        Verdict::Deny if decision.policies.is_empty() => println!("denied: no policy permits it"),
        Verdict::Deny => println!("denied"),
        Verdict::NeedsApproval(of) => {
            let groups = match of.groups.is_empty() {
                true => String::new(),
                false => format!(", of {}", of.groups.join(" and ")),
            };
            let (quorum, seconds) = (of.quorum, of.timeout.as_secs());
            println!("needs approval: {quorum} people{groups}, within {seconds} seconds");
        }
    }
    for id in &decision.policies {
        println!("by policy {id}");
    }
    for error in &decision.errors {
        println!("error: {error}");
    }
}
