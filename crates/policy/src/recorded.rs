//! Requests and policies as they are recorded, so that others can decide again with their own Cedar: a
//! request in Cedar's JSON, a set of policies as the files that it was made of.

use std::str::FromStr;

use cedar_policy::{Context, Entities, EntityUid, Request as CedarRequest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::arguments::Arguments;
use crate::decide::{Decision, Facts, Request, Resource, ToolContext};
use crate::policies::{Policies, Source};
use crate::{Action, Command, Principal};

/// The types of entities that hold arguments.
const OF_ARGUMENTS: [&str; 5] = ["Decimals", "Flags", "Lists", "Numbers", "Texts"];

/// A request with all that policies can see of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    action: String,
    context: Value,
    entities: Value,
    principal: String,
    resource: String,
}

/// A set of policies.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    files: Vec<Source>,
}

impl Recorded {
    /// Of a request. An error says why Cedar does not take it.
    pub fn new(request: &Request<'_>) -> Result<Self, String> {
        Facts::new(request, None)?.recorded()
    }

    /// From JSON.
    pub fn parse(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    /// As JSON, on one line.
    pub fn to_json(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| error.to_string())
    }

    /// Whether it is about this command: `name` is what it is done to, or called, and `id` the workflow that it
    /// is about. Of names of `max` characters or more, as of those that were cut there, the beginning is
    /// compared.
    pub fn is_about(
        &self,
        command: Command,
        namespace: &str,
        (id, name): (&str, &str),
        max: usize,
    ) -> bool {
        let same = |found: &str, expected: &str| match expected.chars().count() < max {
            true => found == expected,
            false => found.starts_with(expected),
        };
        let in_context = |key: &str, expected: &str| {
            let found = self.context.get(key).and_then(Value::as_str);
            found.is_some_and(|found| same(found, expected))
        };
        let of_command = match command {
            Command::Tool | Command::Local | Command::ContinueAs | Command::Cancel => true,
            Command::Child => in_context("child_workflow_id", id),
            Command::Signal => in_context("signal_name", name),
        };
        let resource = match command {
            Command::Signal | Command::Cancel => id,
            _ => name,
        };
        let Ok(found) = EntityUid::from_str(&self.resource) else {
            return false;
        };
        let found_name: &str = found.id().as_ref();
        let in_namespace = found_name.strip_prefix(namespace);
        let found_name = in_namespace.and_then(|of| of.strip_prefix('/'));
        of_command
            && EntityUid::from_str(&self.action)
                .is_ok_and(|of| AsRef::<str>::as_ref(of.id()) == command.action_name())
            && found.type_name().to_string() == command.resource_type()
            && found_name.is_some_and(|found| same(found, resource))
    }

    /// The arguments of the command in it, in a form that is the same for the same arguments.
    pub fn arguments(&self) -> Value {
        let entities = self.entities.as_array().map_or(&[][..], Vec::as_slice);
        let mut arguments = Map::new();
        for entity in entities {
            let of_type = entity.pointer("/uid/type").and_then(Value::as_str);
            if let Some(name) = of_type.filter(|name| OF_ARGUMENTS.contains(name)) {
                let tags = entity.get("tags").cloned();
                arguments.insert(name.to_owned(), tags.unwrap_or_else(|| json!({})));
            }
        }
        for name in ["opaque", "unmapped"] {
            let value = self.context.get(name).cloned();
            arguments.insert(name.to_owned(), value.unwrap_or_default());
        }
        sorted(Value::Object(arguments))
    }
}

/// With the members of all objects in the order of their names.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> = members.into_iter().collect();
            members.sort_unstable_by(|one, other| one.0.cmp(&other.0));
            let members = members.into_iter().map(|(name, of)| (name, sorted(of)));
            Value::Object(members.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

impl Arguments {
    /// As [`Recorded::arguments`] has them.
    pub fn recorded(self) -> Result<Value, String> {
        let principal = Principal::default();
        let context = ToolContext {
            arguments: self,
            ..ToolContext::default()
        };
        let request = Request {
            principal: &principal,
            action: Action::execute_tool(),
            resource: Resource::Tool(Box::new(context)),
        };
        Ok(Recorded::new(&request)?.arguments())
    }
}

impl Facts {
    fn recorded(&self) -> Result<Recorded, String> {
        let no_name = || "the request has an unknown part".to_owned();
        let name = |of: Option<&EntityUid>| of.map(ToString::to_string).ok_or_else(no_name);
        let context = self.request.context().ok_or_else(no_name)?;
        let context = context.to_json_value().map_err(|error| error.to_string())?;
        let entities = self.entities.to_json_value();
        let mut entities = entities.map_err(|error| error.to_string())?;
        if let Some(all) = entities.as_array_mut() {
            // They are kept in no order.
            all.sort_by_cached_key(|of| of.get("uid").map(ToString::to_string));
        }
        Ok(Recorded {
            action: name(self.request.action())?,
            context,
            entities,
            principal: name(self.request.principal())?,
            resource: name(self.request.resource())?,
        })
    }

    fn of(recorded: &Recorded) -> Result<Self, String> {
        let uid = |text: &str| EntityUid::from_str(text).map_err(|error| error.to_string());
        let context = Context::from_json_value(recorded.context.clone(), None)
            .map_err(|error| error.to_string())?;
        let (principal, action) = (uid(&recorded.principal)?, uid(&recorded.action)?);
        let resource = uid(&recorded.resource)?;
        Ok(Self {
            request: CedarRequest::new(principal, action, resource, context, None)
                .map_err(|error| error.to_string())?,
            entities: Entities::from_json_value(recorded.entities.clone(), None)
                .map_err(|error| error.to_string())?,
        })
    }
}

impl Policies {
    /// Decides a recorded request.
    pub fn decide_recorded(&self, recorded: &Recorded) -> Result<Decision, String> {
        Ok(self.decide_by(self.whole(), &Facts::of(recorded)?))
    }

    /// The files that they were made of, as JSON: `{"files": [{"name": …, "text": …}, …]}`.
    pub fn to_json(&self) -> Result<String, String> {
        let files = self.sources().to_vec();
        serde_json::to_string(&Files { files }).map_err(|error| error.to_string())
    }

    /// From that. They are not validated: the schema may have been another one when they were.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let files: Files = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        Self::read(&files.files).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            lines.join("; ")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Argument, Kind, Verdict};

    fn decided(amount: Value, policies: &Policies) -> (Decision, Recorded) {
        let principal = Principal {
            kind: Kind::Agent,
            id: "default/\"Refund\"".into(),
            ..Principal::default()
        };
        let argument =
            json!({"amount": amount, "rate": 0.5, "to": "ada", "tags": ["x"], "big": 1e300});
        let request = Request {
            principal: &principal,
            action: Action::execute_tool(),
            resource: Resource::Tool(Box::new(ToolContext {
                namespace: "default",
                tool: "refund",
                tool_calls: [("refund".to_owned(), 2)].into(),
                arguments: Arguments::new([Argument::Json(argument)]),
                ..ToolContext::default()
            })),
        };
        let recorded = Recorded::new(&request).expect("is recorded");
        (policies.decide(&request), recorded)
    }

    #[test]
    fn a_recorded_request_is_decided_the_same() {
        let text = r#"
            @id("tools") permit(principal, action, resource);
            @id("small") @approval("required") forbid(principal, action == Action::"ExecuteTool", resource)
                unless { context.numbers.hasTag("/0/amount") && context.numbers.getTag("/0/amount") <= 1000 };
            @id("none") forbid(principal, action == Action::"ExecuteTool", resource)
                when { context.decimals.getTag("/0/amount").lessThan(decimal("0.0")) };"#;
        let source = Source {
            name: "p.cedar".into(),
            text: text.into(),
        };
        // The last one cannot be evaluated for amounts that are none, which is not what a strict
        // validation lets through.
        let policies = Policies::read(&[source]).expect("parses");
        let json = policies.to_json().expect("is written");
        let again = Policies::from_json(json.as_bytes()).expect("is read");
        assert_eq!(again.hash(), policies.hash());
        for (amount, verdict) in [
            (json!(5), Some(Verdict::Allow)),
            (json!(5000), None),
            (json!("x"), Some(Verdict::Deny)),
        ] {
            let (decision, recorded) = decided(amount, &policies);
            let line = recorded.to_json().expect("is written");
            assert!(!line.contains('\n'));
            let read = Recorded::parse(&line).expect("is read");
            assert_eq!(again.decide_recorded(&read).as_ref(), Ok(&decision));
            match verdict {
                Some(verdict) => assert_eq!(decision.verdict, verdict),
                None => assert!(matches!(decision.verdict, Verdict::NeedsApproval(_))),
            }
        }
    }

    #[test]
    fn what_a_request_is_about_is_compared() {
        let policies = Policies::read(&[]).expect("parses");
        let (_, tool) = decided(json!(5), &policies);
        let is =
            |of: &Recorded, command, namespace, names| of.is_about(command, namespace, names, 8);
        assert!(is(&tool, Command::Tool, "default", ("7", "refund")));
        for (command, namespace, name) in [
            (Command::Local, "default", "refund"),
            (Command::Child, "default", "refund"),
            (Command::Tool, "defaul", "refund"),
            (Command::Tool, "other", "refund"),
            (Command::Tool, "default", "refun"),
            (Command::Tool, "default", "refunds"),
            (Command::Tool, "default", ""),
        ] {
            assert!(
                !is(&tool, command, namespace, ("", name)),
                "{command:?} {namespace} {name}"
            );
        }
        for command in Command::ALL {
            let principal = Principal::default();
            let recorded = |name: &str| {
                let context = ToolContext {
                    command,
                    namespace: "a",
                    tool: match command {
                        Command::Signal | Command::Cancel => "\"id\" of it",
                        _ => name,
                    },
                    child_workflow_id: "\"id\" of it",
                    signal_name: name,
                    ..ToolContext::default()
                };
                Recorded::new(&Request {
                    principal: &principal,
                    action: command.action(),
                    resource: Resource::Tool(Box::new(context)),
                })
            };
            let recorded = recorded("name").expect("is recorded");
            assert!(is(&recorded, command, "a", ("\"id\" of it", "name")));
            assert!(
                is(&recorded, command, "a", ("\"id\" of ", "name")),
                "it was cut"
            );
            assert!(!is(&recorded, command, "b", ("\"id\" of it", "name")));
            let (other_id, other_name) = ("\"id\" of x", "other");
            let by_name = is(&recorded, command, "a", ("\"id\" of it", other_name));
            assert_eq!(by_name, command == Command::Cancel);
            let by_id = is(&recorded, command, "a", (other_id, "name"));
            let has_id = matches!(command, Command::Child | Command::Signal | Command::Cancel);
            assert_eq!(by_id, !has_id, "{command:?}");
        }
    }

    #[test]
    fn arguments_are_compared() {
        let policies = Policies::read(&[]).expect("parses");
        let (_, recorded) = decided(json!(5), &policies);
        let of = |amount: i64| {
            let argument =
                json!({"amount": amount, "rate": 0.5, "to": "ada", "tags": ["x"], "big": 1e300});
            Arguments::new([Argument::Json(argument)]).recorded()
        };
        assert_eq!(of(5), Ok(recorded.arguments()));
        assert_ne!(of(6), Ok(recorded.arguments()));
        let opaque = Arguments::new([Argument::Opaque]).recorded();
        assert_ne!(opaque, Ok(recorded.arguments()));
    }
}
