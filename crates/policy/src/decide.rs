//! The decision.
//!
//! Where no `permit` applies, it is denied. Where a `forbid` applies, too; unless all that apply are soft
//! (`annotations.rs`) and it would be permitted without them: then it needs approval. A `forbid` that
//! cannot be evaluated counts as one that applies: Cedar itself passes over it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId,
    Request as CedarRequest, RestrictedExpression as Value,
};

use crate::action::{Action, Command};
use crate::annotations::Requirement;
use crate::arguments::Arguments;
use crate::policies::{OfAction, Policies};
use crate::principal::Principal;
use crate::slices::{Answer, Slices};

/// The server, which all namespaces are in.
const SERVER: &str = "this";

/// Types of the schema.
const TYPES: [&str; 18] = [
    "Action",
    "Agent",
    "Audience",
    "Counts",
    "Decimals",
    "Flags",
    "Group",
    "Lists",
    "Namespace",
    "Numbers",
    "Server",
    "Service",
    "Session",
    "Texts",
    "Tool",
    "Unauthenticated",
    "User",
    "Workflow",
];

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// Does what.
    pub action: Action,
    /// To what.
    pub resource: Resource<'a>,
}

/// What something is done to, with what is known about it.
#[derive(Clone, Debug)]
pub enum Resource<'a> {
    /// A call about a namespace. Empty: about the server.
    Namespace {
        /// Its name.
        name: &'a str,
        /// The workflow, if the call is about one.
        workflow_id: &'a str,
        /// Its type.
        workflow_type: &'a str,
        /// The task queue, if the call is about one.
        task_queue: &'a str,
        /// Whether the workflow's type was attested to be resumable: where one is started.
        attested: bool,
    },
    /// A command of an agent: a tool call, or another one.
    Tool(Box<ToolContext<'a>>),
    /// An audience that a credential is to be for.
    Audience(Box<ExchangeContext<'a>>),
}

/// What policies can see of the exchange of a tool call's credential.
#[derive(Clone, Debug, Default)]
pub struct ExchangeContext<'a> {
    /// For whom it is to be.
    pub audience: &'a str,
    /// Name of the namespace.
    pub namespace: &'a str,
    /// Activity type.
    pub tool: &'a str,
    /// Workflow id.
    pub workflow_id: &'a str,
    /// Workflow type.
    pub workflow_type: &'a str,
    /// Who started the session.
    pub initiator: &'a str,
    /// How they were authenticated.
    pub initiator_method: &'a str,
    /// Attempt.
    pub attempt: i64,
    /// What it is to be limited to; empty if it is not.
    pub scope: &'a [String],
}

/// What policies can see of a tool call, or another command.
#[derive(Clone, Debug, Default)]
pub struct ToolContext<'a> {
    /// Which command it is.
    pub command: Command,
    /// Name of the namespace.
    pub namespace: &'a str,
    /// What it is done to: the activity type, the workflow type of a child or of the next run, the
    /// workflow id of the receiver.
    pub tool: &'a str,
    /// Workflow type.
    pub workflow_type: &'a str,
    /// Workflow id.
    pub workflow_id: &'a str,
    /// Task queue of the tool, the child, or the next run.
    pub task_queue: &'a str,
    /// Who started the session.
    pub initiator: &'a str,
    /// How they were authenticated.
    pub initiator_method: &'a str,
    /// Attempt.
    pub attempt: i64,
    /// Whether the workflow type was attested to be resumable.
    pub attested: bool,
    /// How long the session has been running.
    pub session_age_seconds: i64,
    /// How often each tool was called before, in this run.
    pub tool_calls: BTreeMap<String, i64>,
    /// How many children of each type were started before, in this run.
    pub children: BTreeMap<String, i64>,
    /// Workflow id of the child.
    pub child_workflow_id: &'a str,
    /// Whether the start of the child ends a workflow of its id that is running.
    pub terminates_running: bool,
    /// Name of the signal.
    pub signal_name: &'a str,
    /// Whether the receiver has to be a child.
    pub children_only: bool,
    /// The arguments.
    pub arguments: Arguments,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The answer.
    pub verdict: Verdict,
    /// Ids of the policies that decided, in order.
    pub policies: Vec<String>,
    /// What could not be evaluated.
    pub errors: Vec<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Allow,
    /// It may not.
    Deny,
    /// It may go on once people approved.
    NeedsApproval(Requirement),
}

impl Policies {
    /// Decides.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        match Facts::new(request, Some(self)) {
            Ok(facts) => self.decide_by(self.about(request.action), &facts),
            // A name that is no entity's, or a context that Cedar does not take: nobody can say that
            // it is permitted.
            Err(error) => Decision {
                verdict: Verdict::Deny,
                policies: Vec::new(),
                errors: vec![error],
            },
        }
    }

    pub(crate) fn decide_by(&self, policies: &OfAction, facts: &Facts) -> Decision {
        let answer = facts.ask(&policies.all);
        let is_forbid = |id: &PolicyId| self.known(id).is_none_or(|of| of.is_forbid);
        let mut errors: Vec<String> = answer.errors.iter().map(|of| of.1.clone()).collect();
        errors.sort_unstable();
        let decided = |verdict, by: &mut dyn Iterator<Item = &PolicyId>| Decision {
            verdict,
            policies: names(by),
            errors: errors.clone(),
        };
        let failed = || answer.errors.iter().map(|of| &of.0);
        if failed().any(is_forbid) {
            let mut failed = failed().filter(|id| is_forbid(id));
            return decided(Verdict::Deny, &mut failed);
        }
        if answer.is_allowed() {
            return decided(Verdict::Allow, &mut answer.reasons.iter());
        }
        let requirements = answer.reasons.iter();
        let requirements = requirements.map(|id| self.known(id)?.requirement.clone());
        let requirements: Option<Vec<Requirement>> = requirements.collect();
        let requirement = requirements.and_then(|of| of.into_iter().reduce(Requirement::and));
        let Some(mut requirement) = requirement else {
            return decided(Verdict::Deny, &mut answer.reasons.iter());
        };
        // What is not permitted anyway cannot be approved.
        if !facts.ask(&policies.hard).is_allowed() {
            return decided(Verdict::Deny, &mut std::iter::empty());
        }
        let groups = u32::try_from(requirement.groups.len()).unwrap_or(u32::MAX);
        requirement.quorum = requirement.quorum.max(groups).max(1);
        requirement.groups.sort_unstable();
        decided(
            Verdict::NeedsApproval(requirement),
            &mut answer.reasons.iter(),
        )
    }
}

fn names(ids: &mut dyn Iterator<Item = &PolicyId>) -> Vec<String> {
    let mut names: Vec<String> = ids.map(ToString::to_string).collect();
    names.sort_unstable();
    names
}

/// A request as Cedar takes it.
pub(crate) struct Facts {
    pub(crate) request: CedarRequest,
    pub(crate) entities: Entities,
}

impl Facts {
    /// The facts of a request: all, or as far as some policies read them.
    pub(crate) fn new(
        asked: &Request<'_>,
        for_policies: Option<&Policies>,
    ) -> Result<Self, String> {
        let mut entities = Vec::new();
        let principal = principal(asked.principal, &mut entities)?;
        let action = uid("Action", asked.action.name())?;
        if for_policies.is_none_or(Policies::looks_at_action) {
            let group = uid("Action", asked.action.group())?;
            entities.push(entity(&action, [], [group.clone()])?);
            entities.push(entity(&group, [], [])?);
        }
        let (resource, context) = match &asked.resource {
            Resource::Namespace {
                name,
                workflow_id,
                workflow_type,
                task_queue,
                attested,
            } => {
                let pairs = [
                    ("workflow_id", workflow_id),
                    ("workflow_type", workflow_type),
                    ("task_queue", task_queue),
                ];
                let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
                let pairs = pairs.map(|(key, value)| (key.to_owned(), text(value)));
                let attested = ("attested".to_owned(), Value::new_bool(*attested));
                let attested = asked.action.is_start().then_some(attested);
                let pairs = pairs.chain(attested);
                (namespace(name, &mut entities)?, pairs.collect())
            }
            Resource::Tool(tool) => {
                let namespace = namespace(tool.namespace, &mut entities)?;
                let of_type = tool.command.resource_type();
                let resource = uid(of_type, &format!("{}/{}", tool.namespace, tool.tool))?;
                entities.push(entity(&resource, [], [namespace])?);
                (resource, tool_context(tool, for_policies, &mut entities)?)
            }
            Resource::Audience(of) => {
                let resource = uid("Audience", of.audience)?;
                entities.push(entity(&resource, [], [])?);
                (resource, exchange_context(of))
            }
        };
        let context: Vec<(String, Value)> = context;
        let context = Context::from_pairs(context).map_err(|error| error.to_string())?;
        let request = CedarRequest::new(principal, action, resource, context, None)
            .map_err(|error| error.to_string())?;
        let entities =
            Entities::from_entities(distinct(entities), None).map_err(|error| error.to_string())?;
        Ok(Self { request, entities })
    }

    fn ask(&self, policies: &Slices) -> Answer {
        policies.ask(&self.request, &self.entities)
    }
}

fn distinct(entities: Vec<Entity>) -> impl Iterator<Item = Entity> {
    let mut seen = HashSet::new();
    entities.into_iter().filter(move |of| seen.insert(of.uid()))
}

fn principal(of: &Principal, entities: &mut Vec<Entity>) -> Result<EntityUid, String> {
    let groups = of.groups.iter().map(|group| uid("Group", group));
    let groups: Vec<EntityUid> = groups.collect::<Result<_, _>>()?;
    for group in &groups {
        entities.push(entity(group, [], [])?);
    }
    let principal = uid(of.kind.entity_type(), &of.id)?;
    let method = ("method", text(&of.method));
    entities.push(entity(&principal, [method], groups)?);
    Ok(principal)
}

fn namespace(name: &str, entities: &mut Vec<Entity>) -> Result<EntityUid, String> {
    let server = uid("Server", SERVER)?;
    entities.push(entity(&server, [], [])?);
    let namespace = uid("Namespace", name)?;
    entities.push(entity(&namespace, [], [server])?);
    Ok(namespace)
}

fn exchange_context(of: &ExchangeContext<'_>) -> Vec<(String, Value)> {
    let scope = of.scope.iter().map(|part| text(part));
    let context = [
        ("attempt", Value::new_long(of.attempt)),
        ("initiator", text(of.initiator)),
        ("initiator_method", text(of.initiator_method)),
        ("namespace", text(of.namespace)),
        ("scope", Value::new_set(scope)),
        ("tool", text(of.tool)),
        ("workflow_id", text(of.workflow_id)),
        ("workflow_type", text(of.workflow_type)),
    ];
    context.map(|(key, value)| (key.to_owned(), value)).into()
}

fn tool_context(
    tool: &ToolContext<'_>,
    for_policies: Option<&Policies>,
    entities: &mut Vec<Entity>,
) -> Result<Vec<(String, Value)>, String> {
    let arguments = &tool.arguments;
    let numbers = arguments.numbers.iter();
    let mut numbers = numbers.map(|(path, value)| (path.clone(), Value::new_long(*value)));
    let decimals = arguments.decimals.iter();
    let mut decimals = decimals.map(|(path, value)| (path.clone(), Value::new_decimal(value)));
    let texts = arguments.texts.iter();
    let mut texts = texts.map(|(path, value)| (path.clone(), text(value)));
    let flags = arguments.flags.iter();
    let mut flags = flags.map(|(path, value)| (path.clone(), Value::new_bool(*value)));
    let mut lists = arguments.lists.iter().map(|(path, items)| {
        let items = items.iter().map(|item| text(item));
        (path.clone(), Value::new_set(items))
    });
    let counted = |(name, count): (&String, &i64)| (name.clone(), Value::new_long(*count));
    let mut tool_calls = tool.tool_calls.iter().map(counted);
    let mut children = tool.children.iter().map(counted);
    let unmapped = arguments.unmapped.iter().map(|path| text(path));
    // Tags and attributes that no policy reads need not be made. An entity that is not there has no tags.
    let is_read = |kind| for_policies.is_none_or(|of| of.reads(kind));
    let is_needed = |name: &str| for_policies.is_none_or(|of| !of.passes_over(name));
    let mut tagged_as = |kind, id: &str, tags: &mut dyn Iterator<Item = (String, Value)>| {
        let uid = uid(kind, id)?;
        let mut tags = tags.filter(|_| is_read(kind)).peekable();
        if tags.peek().is_some() {
            let entity = Entity::new_with_tags(uid.clone(), [], [], tags);
            entities.push(entity.map_err(|error| error.to_string())?);
        }
        Ok::<_, String>(Value::new_entity_uid(uid))
    };
    let children = tagged_as("Counts", "children", &mut children)?;
    let mut tagged =
        |kind, tags: &mut dyn Iterator<Item = (String, Value)>| tagged_as(kind, "", tags);
    let mut context = vec![
        ("attempt", Value::new_long(tool.attempt)),
        ("attested", Value::new_bool(tool.attested)),
        ("children", children),
        ("decimals", tagged("Decimals", &mut decimals)?),
        ("flags", tagged("Flags", &mut flags)?),
        ("initiator", text(tool.initiator)),
        ("initiator_method", text(tool.initiator_method)),
        ("lists", tagged("Lists", &mut lists)?),
        ("numbers", tagged("Numbers", &mut numbers)?),
        ("opaque", Value::new_bool(arguments.opaque)),
        (
            "session_age_seconds",
            Value::new_long(tool.session_age_seconds),
        ),
        ("task_queue", text(tool.task_queue)),
        ("texts", tagged("Texts", &mut texts)?),
        ("tool_calls", tagged("Counts", &mut tool_calls)?),
        ("unmapped", Value::new_set(unmapped)),
        ("workflow_id", text(tool.workflow_id)),
        ("workflow_type", text(tool.workflow_type)),
    ];
    if tool.command == Command::Child {
        let terminates = Value::new_bool(tool.terminates_running);
        context.push(("child_workflow_id", text(tool.child_workflow_id)));
        context.push(("terminates_running", terminates));
    }
    if tool.command == Command::Signal {
        context.push(("signal_name", text(tool.signal_name)));
    }
    if matches!(tool.command, Command::Signal | Command::Cancel) {
        context.push(("children_only", Value::new_bool(tool.children_only)));
    }
    let context = context.into_iter().filter(|(key, _)| is_needed(key));
    Ok(context
        .map(|(key, value)| (key.to_owned(), value))
        .collect())
}

fn entity(
    uid: &EntityUid,
    attributes: impl IntoIterator<Item = (&'static str, Value)>,
    parents: impl IntoIterator<Item = EntityUid>,
) -> Result<Entity, String> {
    let attributes = attributes
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    Entity::new(
        uid.clone(),
        attributes.collect(),
        parents.into_iter().collect(),
    )
    .map_err(|error| error.to_string())
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, String> {
    Ok(EntityUid::from_type_name_and_id(
        type_name(kind)?,
        EntityId::new(id),
    ))
}

/// The name of a type. Reading one takes longer than many a decision, so those of the schema are kept.
fn type_name(kind: &str) -> Result<EntityTypeName, String> {
    static NAMES: LazyLock<HashMap<&str, EntityTypeName>> = LazyLock::new(|| {
        let names = TYPES.iter().map(|of| Some((*of, of.parse().ok()?)));
        names.flatten().collect()
    });
    match NAMES.get(kind) {
        Some(name) => Ok(name.clone()),
        None => EntityTypeName::from_str(kind).map_err(|error| error.to_string()),
    }
}

fn text(value: &str) -> Value {
    Value::new_string(value.to_owned())
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
