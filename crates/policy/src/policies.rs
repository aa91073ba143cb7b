//! A set of policies: parsed, validated against the schema, and known by the hash of its text.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, ValidationMode, Validator};
use miette::Diagnostic;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::action::{Action, Command};
use crate::annotations::{self, Requirement};
use crate::outlook;
use crate::rules::Rules;
use crate::schema::schema;
use crate::slices::Slices;

/// So many mistakes of one policy are listed.
const MAX_OF_A_POLICY: usize = 3;

/// A file of policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Why policies cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub source: String,
    /// The line, from 1; 0 if it is not known.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// Policies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Policies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hash: [u8; 32],
    /// In order of their names.
    sources: Vec<Source>,
    /// By the number of the action.
    of_actions: Vec<OfAction>,
    /// All policies, whatever they are about.
    whole: OfAction,
    /// Types of entities whose tags are read.
    reads: Vec<&'static str>,
    /// Attributes of commands that are not read.
    unread: Vec<&'static str>,
    /// Whether conditions look at actions.
    looks_at_action: bool,
    known: HashMap<PolicyId, Known>,
    /// Those that look at the arguments of tool calls, without that (`outlook.rs`).
    of_arguments: Slices,
    /// What policies name: the type of an entity, and its id.
    named: BTreeSet<(String, String)>,
}

/// The policies about an action.
#[derive(Debug)]
pub(crate) struct OfAction {
    pub(crate) all: Slices,
    /// Without those that people can override.
    pub(crate) hard: Slices,
}

/// What is known of a policy.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) is_forbid: bool,
    /// What it asks for, if it is a soft one.
    pub(crate) requirement: Option<Requirement>,
}

impl Policies {
    /// Reads and validates policies.
    pub fn parse(sources: &[Source]) -> Result<Self, Vec<Problem>> {
        let mut reading = Reading::of(sources)?;
        reading.validate()?;
        Ok(reading.finish(sources))
    }

    /// Reads policies that were validated before.
    pub(crate) fn read(sources: &[Source]) -> Result<Self, Vec<Problem>> {
        Ok(Reading::of(sources)?.finish(sources))
    }

    /// SHA-256 over the names and texts of the files, in order of their names, each after its length in
    /// 64 bits, big-endian.
    pub fn hash(&self) -> [u8; 32] {
        self.0.hash
    }

    /// The files, in order of their names.
    pub fn sources(&self) -> &[Source] {
        &self.0.sources
    }

    /// The ids of all policies, in order.
    pub fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.0.known.keys().map(ToString::to_string).collect();
        ids.sort_unstable();
        ids
    }

    /// What policies name in a namespace that a command could be done to, in order: activity types,
    /// workflow types, workflow ids.
    pub fn named(&self, command: Command, namespace: &str) -> Vec<String> {
        let names = self.0.named.iter();
        let names = names.filter(|(of_type, _)| of_type == command.resource_type());
        let names = names.filter_map(|(_, id)| id.strip_prefix(namespace)?.strip_prefix('/'));
        names.map(str::to_owned).collect()
    }

    pub(crate) fn of_arguments(&self) -> &Slices {
        &self.0.of_arguments
    }

    /// Those that can be about an action.
    pub(crate) fn about(&self, action: Action) -> &OfAction {
        &self.0.of_actions[action.index()]
    }

    /// All of them, for requests of another time, when actions may have been in other groups.
    pub(crate) fn whole(&self) -> &OfAction {
        &self.0.whole
    }

    /// Whether tags of this type of entities may be read.
    pub(crate) fn reads(&self, kind: &str) -> bool {
        self.0.reads.contains(&kind)
    }

    /// Whether this attribute of a command is surely not read.
    pub(crate) fn passes_over(&self, attribute: &str) -> bool {
        self.0.unread.contains(&attribute)
    }

    /// Whether the group of an action may be asked for.
    pub(crate) fn looks_at_action(&self) -> bool {
        self.0.looks_at_action
    }

    pub(crate) fn known(&self, id: &PolicyId) -> Option<&Known> {
        self.0.known.get(id)
    }
}

fn hash(sorted: &[Source]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in sorted.iter().flat_map(|of| [&of.name, &of.text]) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// Attributes of the contexts of commands. Those that are not here are always there.
const COMMAND_ATTRIBUTES: [&str; 20] = [
    "attempt",
    "attested",
    "child_workflow_id",
    "children",
    "children_only",
    "decimals",
    "flags",
    "initiator",
    "initiator_method",
    "lists",
    "numbers",
    "opaque",
    "session_age_seconds",
    "signal_name",
    "task_queue",
    "texts",
    "tool_calls",
    "unmapped",
    "workflow_id",
    "workflow_type",
];

/// What is named nowhere is not read. Names may be written with escapes: then anything may be.
fn is_named(sources: &[Source], names: &[&str]) -> bool {
    let mut texts = sources.iter().map(|of| &of.text);
    texts.any(|of| of.contains('\\') || names.iter().any(|name| of.contains(name)))
}

fn unread(sources: &[Source]) -> Vec<&'static str> {
    let attributes = COMMAND_ATTRIBUTES.into_iter();
    attributes
        .filter(|name| !is_named(sources, &[name]))
        .collect()
}

fn reads(sources: &[Source]) -> Vec<&'static str> {
    let tagged = [
        ("Counts", "tool_calls"),
        ("Counts", "children"),
        ("Decimals", "decimals"),
        ("Flags", "flags"),
        ("Lists", "lists"),
        ("Numbers", "numbers"),
        ("Texts", "texts"),
    ];
    let tagged = tagged.into_iter();
    let read = tagged.filter(|(kind, by)| is_named(sources, &[kind, by]));
    read.map(|(kind, _)| kind).collect()
}

#[derive(Default)]
struct Reading {
    all: PolicySet,
    known: HashMap<PolicyId, Known>,
    /// Where each policy is.
    places: HashMap<PolicyId, (String, usize)>,
    problems: Vec<Problem>,
}

impl Reading {
    fn of(sources: &[Source]) -> Result<Self, Vec<Problem>> {
        let mut reading = Self::default();
        for source in sources {
            reading.read(source);
        }
        match reading.problems.is_empty() {
            true => Ok(reading),
            false => Err(reading.problems),
        }
    }

    fn finish(self, sources: &[Source]) -> Policies {
        let mut sources = sources.to_vec();
        sources.sort_by(|one, other| one.name.cmp(&other.name));
        let mut rules = Rules::default();
        let of_actions = Action::all().map(|of| self.of_action(Some(of), &mut rules));
        Policies(Arc::new(Inner {
            hash: hash(&sources),
            of_actions: of_actions.collect(),
            whole: self.of_action(None, &mut Rules::default()),
            reads: reads(&sources),
            unread: unread(&sources),
            looks_at_action: rules.looks_at_action,
            of_arguments: outlook::of_arguments(&self.all),
            named: outlook::named(&self.all),
            sources,
            known: self.known,
        }))
    }

    fn read(&mut self, source: &Source) {
        let parsed = match PolicySet::from_str(&source.text) {
            Ok(parsed) => parsed,
            Err(errors) => {
                for error in errors.iter() {
                    let labels = error.labels().into_iter().flatten();
                    let line = labels.map(|of| line(&source.text, of.offset())).next();
                    self.add(&source.name, line.unwrap_or(0), error.to_string());
                }
                return;
            }
        };
        if parsed.templates().next().is_some() {
            self.add(
                &source.name,
                0,
                "templates have nothing that links them here".into(),
            );
        }
        for (number, policy) in (1..).zip(parsed.policies()) {
            self.policy(source, number, policy);
        }
    }

    fn policy(&mut self, source: &Source, number: usize, policy: &Policy) {
        let text = policy.to_string();
        let line = source
            .text
            .find(text.trim())
            .map_or(0, |at| line(&source.text, at));
        let id = match policy.annotation("id") {
            Some(id) if !id.is_empty() => id.to_owned(),
            _ => format!("{}#{number}", source.name),
        };
        let requirement = match annotations::read(policy) {
            Ok(requirement) => requirement,
            Err(message) => return self.add(&source.name, line, format!("policy {id}: {message}")),
        };
        let id = PolicyId::new(id);
        let policy = policy.new_id(id.clone());
        if self.all.add(policy.clone()).is_err() {
            return self.add(&source.name, line, format!("there are two policies {id}"));
        }
        let known = Known {
            is_forbid: policy.effect() == Effect::Forbid,
            requirement,
        };
        self.places.insert(id.clone(), (source.name.clone(), line));
        self.known.insert(id, known);
    }

    fn of_action(&self, action: Option<Action>, rules: &mut Rules) -> OfAction {
        let is_hard = |of: &&Policy| {
            let known = self.known.get(of.id());
            known.is_none_or(|of| of.requirement.is_none())
        };
        OfAction {
            all: Slices::new(action, self.all.policies(), rules),
            hard: Slices::new(action, self.all.policies().filter(is_hard), rules),
        }
    }

    fn validate(&mut self) -> Result<(), Vec<Problem>> {
        let Some(schema) = schema() else {
            self.add("the schema", 0, "it is not valid".into());
            return Err(std::mem::take(&mut self.problems));
        };
        let validator = Validator::new(schema.clone());
        let result = validator.validate(&self.all, ValidationMode::Strict);
        let mut errors: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for error in result.validation_errors() {
            let of_policy = errors.entry(error.policy_id().to_string()).or_default();
            of_policy.push(error.to_string());
        }
        for (id, mut messages) in errors {
            // The same mistake is found for each action that the policy is about.
            messages.sort_unstable();
            let place = self.places.get(&PolicyId::new(id));
            let (source, line) = place.cloned().unwrap_or_default();
            let more = messages.len().saturating_sub(MAX_OF_A_POLICY);
            messages.truncate(MAX_OF_A_POLICY);
            for message in messages {
                self.add(&source, line, message);
            }
            if more > 0 {
                self.add(&source, line, format!("and {more} more like these"));
            }
        }
        match self.problems.is_empty() {
            true => Ok(()),
            false => Err(std::mem::take(&mut self.problems)),
        }
    }

    fn add(&mut self, source: &str, line: usize, message: String) {
        self.problems.push(Problem {
            source: source.to_owned(),
            line,
            message,
        });
    }
}

fn line(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.source, self.message),
            line => write!(f, "{}:{line}: {}", self.source, self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, text: &str) -> Source {
        Source {
            name: name.into(),
            text: text.into(),
        }
    }

    fn problems(text: &str) -> Vec<String> {
        let parsed = Policies::parse(&[source("p.cedar", text)]);
        let problems = parsed.err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, place, part) in [
            (
                "\n\npermit(principal, action",
                "p.cedar:3: ",
                "unexpected end of input",
            ),
            (
                "permit(principal, action, resource);\n@id(\"x\")\n@soft(\"x\") forbid(principal, action, resource);",
                "p.cedar:2: policy x: ",
                "there is no annotation @soft",
            ),
            (
                "permit(principal, action == Action::\"Nothing\", resource);",
                "p.cedar:1: ",
                "Nothing",
            ),
            (
                "permit(principal, action == Action::\"ExecuteTool\", resource) when { context.amount > 1 };",
                "p.cedar:1: ",
                "amount",
            ),
            (
                "permit(principal, action == Action::\"ExecuteTool\", resource) when { context.numbers.getTag(\"/0\") > 1 };",
                "p.cedar:1: ",
                "tag",
            ),
            (
                "@id(\"x\") permit(principal, action, resource); @id(\"x\") permit(principal, action, resource);",
                "p.cedar:1: ",
                "two policies x",
            ),
            (
                "permit(principal == ?principal, action, resource);",
                "p.cedar: ",
                "templates",
            ),
        ] {
            let problems = problems(text);
            let found = problems
                .iter()
                .any(|of| of.starts_with(place) && of.contains(part));
            assert!(found, "{text}: {problems:#?}");
        }
    }

    #[test]
    fn policies_are_known_by_their_text() {
        let one = source("a", "permit(principal, action, resource);");
        let other = source("b", "@id(\"never\") forbid(principal, action, resource);");
        let parse = |sources: &[Source]| Policies::parse(sources).expect("parses");
        let both = parse(&[one.clone(), other.clone()]);
        assert_eq!(both.ids(), ["a#1", "never"]);
        assert_eq!(both.hash(), parse(&[other.clone(), one.clone()]).hash());
        assert_ne!(both.hash(), parse(std::slice::from_ref(&one)).hash());
        let renamed = source("c", &one.text);
        assert_ne!(both.hash(), parse(&[renamed, other]).hash());
    }
}
