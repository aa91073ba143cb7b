//! What policies are asked from the command line: a call of the API, or of a tool.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::Deserialize;
use steadfast_policy::{
    Action, Arguments, Command, Decision, ExchangeContext, Policies, Principal, Request, Resource,
    ToolContext,
};

/// What a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    User,
    Service,
    Agent,
    Unauthenticated,
}

impl From<Kind> for steadfast_policy::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::User => Self::User,
            Kind::Service => Self::Service,
            Kind::Agent => Self::Agent,
            Kind::Unauthenticated => Self::Unauthenticated,
        }
    }
}

/// How a session is authenticated by its credential.
const CREDENTIAL: &str = "credential";

/// A call of the API, or a command of an agent.
pub struct Question<'a> {
    pub what: What<'a>,
    /// With a tool: for whom its credential is to be exchanged.
    pub audience: Option<&'a str>,
    /// What that one is to be limited to.
    pub scope: &'a [String],
    pub child_workflow_id: &'a str,
    /// Workflow id of the receiver of a signal.
    pub to: &'a str,
    pub children_only: bool,
    pub terminates_running: bool,
    /// None: a service, or the session if it is a command.
    pub kind: Option<Kind>,
    /// Empty for the session, if it is a command.
    pub principal: &'a str,
    pub groups: &'a [String],
    pub method: Option<&'a str>,
    pub namespace: &'a str,
    pub workflow_id: &'a str,
    pub workflow_type: &'a str,
    pub task_queue: &'a str,
    pub initiator: &'a str,
    pub initiator_method: &'a str,
    pub attempt: i64,
    pub attested: bool,
    pub session_age_seconds: i64,
    pub tool_calls: BTreeMap<String, i64>,
    pub children: BTreeMap<String, i64>,
    pub arguments: Arguments,
}

/// What is done: exactly one of these.
#[derive(Clone, Copy, Debug, Default)]
pub struct What<'a> {
    /// The action of a call of the API.
    pub action: Option<&'a str>,
    /// The tool that is called.
    pub tool: Option<&'a str>,
    /// The type of the child that is started.
    pub child: Option<&'a str>,
    /// The name of the signal that is sent.
    pub signal: Option<&'a str>,
    /// The workflow id of what is to be cancelled.
    pub cancel: Option<&'a str>,
    /// The local activity that ran.
    pub local_tool: Option<&'a str>,
    /// The workflow type of the next run.
    pub continue_as: Option<&'a str>,
}

impl<'a> What<'a> {
    /// The command with its name; none if it is a call of the API.
    fn command(&self) -> Result<Option<(Command, &'a str)>, String> {
        let commands = [
            (Command::Tool, self.tool),
            (Command::Child, self.child),
            (Command::Signal, self.signal),
            (Command::Cancel, self.cancel),
            (Command::Local, self.local_tool),
            (Command::ContinueAs, self.continue_as),
        ];
        let mut given = commands
            .into_iter()
            .filter_map(|(of, name)| Some((of, name?)));
        let found = given.next();
        match (self.action, found, given.next()) {
            (Some(_), None, _) => Ok(None),
            (None, Some(found), None) => Ok(Some(found)),
            _ => Err("say either which action it is, or which one command of an agent".to_owned()),
        }
    }
}

impl Question<'_> {
    /// What policies decide.
    pub fn ask(self, policies: &Policies) -> Result<Decision, String> {
        let command = self.what.command()?;
        let (action, resource) = match (command, self.audience) {
            (None, None) => {
                let name = self.what.action.unwrap_or_default();
                (call(name)?, self.namespace())
            }
            (Some((command, name)), None) => (command.action(), self.command(command, name)),
            (Some((Command::Tool, tool)), Some(audience)) => {
                let exchange = Action::exchange_credential();
                (exchange, self.audience(tool, audience))
            }
            _ => return Err("say for which tool the credential is".to_owned()),
        };
        Ok(policies.decide(&Request {
            principal: &self.principal(command.is_some()),
            action,
            resource,
        }))
    }

    fn principal(&self, is_command: bool) -> Principal {
        let session = format!("{}/{}", self.namespace, self.workflow_type);
        let kind = match (self.kind, is_command) {
            (Some(kind), _) => kind,
            (None, true) => Kind::Agent,
            (None, false) => Kind::Service,
        };
        Principal {
            kind: kind.into(),
            id: match self.principal {
                "" if is_command => session,
                id => id.to_owned(),
            },
            groups: self.groups.to_vec(),
            method: match (self.method, self.audience) {
                (None, Some(_)) => CREDENTIAL.to_owned(),
                (method, _) => method.unwrap_or_default().to_owned(),
            },
        }
    }

    fn namespace(&self) -> Resource<'_> {
        Resource::Namespace {
            name: self.namespace,
            workflow_id: self.workflow_id,
            workflow_type: self.workflow_type,
            task_queue: self.task_queue,
            attested: self.attested,
        }
    }

    fn audience<'a>(&'a self, tool: &'a str, audience: &'a str) -> Resource<'a> {
        Resource::Audience(Box::new(ExchangeContext {
            audience,
            namespace: self.namespace,
            tool,
            workflow_id: self.workflow_id,
            workflow_type: self.workflow_type,
            initiator: self.initiator,
            initiator_method: self.initiator_method,
            attempt: self.attempt,
            scope: self.scope,
        }))
    }

    fn command<'a>(&'a self, command: Command, name: &'a str) -> Resource<'a> {
        Resource::Tool(Box::new(ToolContext {
            command,
            namespace: self.namespace,
            tool: match command {
                Command::Signal => self.to,
                _ => name,
            },
            signal_name: name,
            child_workflow_id: self.child_workflow_id,
            children_only: self.children_only,
            terminates_running: self.terminates_running,
            workflow_type: self.workflow_type,
            workflow_id: self.workflow_id,
            task_queue: self.task_queue,
            initiator: self.initiator,
            initiator_method: self.initiator_method,
            attempt: self.attempt,
            attested: self.attested,
            session_age_seconds: self.session_age_seconds,
            tool_calls: self.tool_calls.clone(),
            children: self.children.clone(),
            arguments: self.arguments.clone(),
        }))
    }
}

fn call(name: &str) -> Result<Action, String> {
    let action = Action::of(name).ok_or_else(|| {
        format!("there is no action {name:?}: `steadfast policy schema` has all of them")
    })?;
    match action.is_of_agents() {
        true => Err(format!(
            "say what it is that {name} is done to, in place of the action"
        )),
        false => Ok(action),
    }
}
