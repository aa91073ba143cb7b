//! What can be said of a tool call, or another command of an agent, before it is made.
//!
//! Nobody knows the arguments yet. So it is decided as for a call without any, and the policies are named
//! that look at arguments and are about it otherwise: a call may be decided differently by them.

use std::collections::BTreeSet;

use cedar_policy::{Policy, PolicyId, PolicySet};
use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::decide::{Facts, Request, Resource, ToolContext, Verdict};
use crate::policies::Policies;
use crate::principal::Principal;
use crate::rules::Rules;
use crate::slices::Slices;

/// What the context has of a call's arguments (`schema.rs`).
const OF_ARGUMENTS: [&str; 7] = [
    "decimals", "flags", "lists", "numbers", "opaque", "texts", "unmapped",
];

/// Whether a tool may be called, as far as that is known before a call. In order of how much it lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum May {
    /// Whatever the arguments are, it is denied.
    Deny,
    /// It is permitted with some arguments only, if with any.
    Depends,
    /// With people's approval.
    Approval,
    /// Yes, unless policies that look at the arguments say otherwise.
    Allow,
}

impl May {
    /// As answers have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Depends => "depends",
            Self::Approval => "approval",
            Self::Allow => "allow",
        }
    }
}

/// What can be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Whether it may be called.
    pub may: May,
    /// Policies that say so, in order.
    pub policies: Vec<String>,
    /// Policies that may decide otherwise when they see the arguments, in order.
    pub by_arguments: Vec<String>,
}

impl Policies {
    /// What can be said of a command now. Its arguments are not looked at.
    pub fn outlook(&self, principal: &Principal, tool: ToolContext<'_>) -> Outlook {
        let request = Request {
            principal,
            action: tool.command.action(),
            resource: Resource::Tool(Box::new(ToolContext {
                arguments: Arguments::default(),
                ..tool
            })),
        };
        let decision = self.decide(&request);
        let open = self.open(&request);
        let is_forbid = |id: &&String| {
            let known = self.known(&PolicyId::new(id));
            known.is_none_or(|of| of.is_forbid)
        };
        let forbids_anyway = |id: &String| {
            let known = self.known(&PolicyId::new(id));
            !open.contains(id) && known.is_none_or(|of| of.is_forbid && of.requirement.is_none())
        };
        let may = match decision.verdict {
            Verdict::Allow => May::Allow,
            Verdict::NeedsApproval(_) => May::Approval,
            // None forbids it: one that permits it for some arguments is needed.
            Verdict::Deny if decision.policies.is_empty() => {
                match open.iter().all(|id| is_forbid(&id)) {
                    true => May::Deny,
                    false => May::Depends,
                }
            }
            Verdict::Deny if decision.policies.iter().any(forbids_anyway) => May::Deny,
            Verdict::Deny if open.is_empty() => May::Deny,
            Verdict::Deny => May::Depends,
        };
        let by_arguments: Vec<String> = match may {
            May::Deny => Vec::new(),
            May::Depends => open.into_iter().collect(),
            // Another permit changes nothing.
            May::Allow | May::Approval => open.into_iter().filter(|id| is_forbid(&id)).collect(),
        };
        Outlook {
            may,
            policies: decision.policies,
            by_arguments,
        }
    }

    /// The policies that look at arguments and would be about the request with some of them.
    fn open(&self, request: &Request<'_>) -> BTreeSet<String> {
        // All of them: scopes ask for groups of actions here.
        let Ok(facts) = Facts::new(request, None) else {
            return BTreeSet::new();
        };
        let answer = self.of_arguments().ask(&facts.request, &facts.entities);
        let failed = answer.errors.iter().map(|of| &of.0);
        let ids = answer.reasons.iter().chain(failed);
        ids.map(ToString::to_string).collect()
    }
}

/// Of each policy that looks at arguments one that permits what it would be about: its scope,
/// and those of its conditions that do not look at them.
pub(crate) fn of_arguments(policies: &PolicySet) -> Slices {
    let opened: Vec<Policy> = policies.policies().filter_map(opened).collect();
    Slices::new(None, opened.iter(), &mut Rules::default())
}

/// What policies name: the type of an entity, and its id.
pub(crate) fn named(policies: &PolicySet) -> BTreeSet<(String, String)> {
    let mut names = BTreeSet::new();
    for policy in policies.policies() {
        if let Ok(json) = policy.to_json() {
            collect_names(&json, &mut names);
        }
    }
    names
}

fn collect_names(json: &Value, names: &mut BTreeSet<(String, String)>) {
    match json {
        Value::Object(fields) => {
            if let (Some(of_type), Some(id)) = (text(json, "type"), text(json, "id")) {
                names.insert((of_type.to_owned(), id.to_owned()));
            }
            fields.values().for_each(|of| collect_names(of, names));
        }
        Value::Array(items) => items.iter().for_each(|of| collect_names(of, names)),
        _ => {}
    }
}

fn text<'a>(json: &'a Value, field: &str) -> Option<&'a str> {
    json.get(field)?.as_str()
}

fn opened(policy: &Policy) -> Option<Policy> {
    let mut json = policy.to_json().ok()?;
    let conditions = json.get_mut("conditions")?.as_array_mut()?;
    if !conditions.iter().any(looks_at_arguments) {
        return None;
    }
    for condition in conditions {
        let is_unless = text(condition, "kind") == Some("unless");
        let body = condition.get_mut("body")?;
        *body = match (is_unless, looks_at_arguments(body)) {
            (true, true) => json!({ "Value": false }),
            (true, false) => continue,
            (false, _) => without_arguments(body),
        };
    }
    json["effect"] = "permit".into();
    Policy::from_json(Some(policy.id().clone()), json).ok()
}

/// What is left of a condition if all that looks at arguments is true.
fn without_arguments(condition: &Value) -> Value {
    match condition.get("&&") {
        _ if !looks_at_arguments(condition) => condition.clone(),
        Some(both) => json!({ "&&": {
            "left": without_arguments(&both["left"]),
            "right": without_arguments(&both["right"]),
        }}),
        None => json!({ "Value": true }),
    }
}

/// Whether part of a policy, in Cedar's JSON, reads what the context has of the arguments.
fn looks_at_arguments(json: &Value) -> bool {
    match json {
        Value::Object(fields) => {
            let reads = |operator: &str| {
                let attribute = fields.get(operator).and_then(|of| text(of, "attr"));
                attribute.is_some_and(|of| OF_ARGUMENTS.contains(&of))
            };
            reads(".") || reads("has") || fields.values().any(looks_at_arguments)
        }
        Value::Array(items) => items.iter().any(looks_at_arguments),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Command;
    use crate::policies::Source;
    use crate::principal::Kind;

    fn policies(text: &str) -> Policies {
        let source = Source {
            name: "p".into(),
            text: text.into(),
        };
        Policies::parse(&[source]).unwrap_or_else(|problems| panic!("{problems:#?}"))
    }

    fn outlook(text: &str) -> (May, Vec<String>, Vec<String>) {
        let principal = Principal {
            kind: Kind::Agent,
            id: "default/Agent".into(),
            ..Principal::default()
        };
        let tool = ToolContext {
            namespace: "default",
            tool: "refund",
            workflow_type: "Agent",
            initiator: "alice",
            tool_calls: [("refund".to_owned(), 2)].into(),
            ..ToolContext::default()
        };
        let of = policies(text).outlook(&principal, tool);
        (of.may, of.policies, of.by_arguments)
    }

    #[test]
    fn what_depends_on_arguments_is_told_from_what_does_not() {
        const ALL: &str = r#"@id("all") permit(principal, action, resource);"#;
        const LARGE: &str =
            r#"context.numbers.hasTag("/0/amount") && context.numbers.getTag("/0/amount") > 9"#;
        let names = |of: &[&str]| of.iter().map(|of| (*of).to_owned()).collect::<Vec<_>>();
        for (text, may, by, open) in [
            (String::new(), May::Deny, &[][..], &[][..]),
            (ALL.into(), May::Allow, &["all"], &[]),
            (
                format!(
                    r#"{ALL} @id("large") forbid(principal, action == Action::"ExecuteTool", resource) when {{ {LARGE} }};"#
                ),
                May::Allow,
                &["all"],
                &["large"],
            ),
            (
                format!(
                    r#"{ALL} @id("ask") @approval("required") @quorum("1") @timeout("PT1H") forbid(principal, action == Action::"ExecuteTool", resource) unless {{ {LARGE} }};"#
                ),
                May::Approval,
                &["ask"],
                &["ask"],
            ),
            (
                format!(
                    r#"@id("large") permit(principal, action == Action::"ExecuteTool", resource) when {{ {LARGE} }};"#
                ),
                May::Depends,
                &[],
                &["large"],
            ),
            (
                format!(
                    r#"{ALL} @id("small") forbid(principal, action == Action::"ExecuteTool", resource) unless {{ {LARGE} }};"#
                ),
                May::Depends,
                &["small"],
                &["all", "small"][1..],
            ),
            // What does not look at arguments is decided: it is about another tool, initiator, or count.
            (
                format!(
                    r#"{ALL} @id("no") forbid(principal, action, resource == Tool::"default/delete") when {{ true }}; @id("large") forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/delete") when {{ {LARGE} }};"#
                ),
                May::Allow,
                &["all"],
                &[],
            ),
            (
                format!(
                    r#"{ALL} @id("large") forbid(principal, action == Action::"ExecuteTool", resource) when {{ context.initiator == "bob" && {LARGE} }};"#
                ),
                May::Allow,
                &["all"],
                &[],
            ),
            (
                format!(
                    r#"{ALL} @id("large") forbid(principal, action == Action::"ExecuteTool", resource) when {{ {LARGE} }}; @id("never") forbid(principal, action == Action::"ExecuteTool", resource) when {{ context.tool_calls.hasTag("refund") && context.tool_calls.getTag("refund") > 1 }};"#
                ),
                May::Deny,
                &["never"],
                &[],
            ),
            // Without a permit no forbid matters.
            (
                format!(
                    r#"@id("large") forbid(principal, action == Action::"ExecuteTool", resource) when {{ {LARGE} }};"#
                ),
                May::Deny,
                &[],
                &[],
            ),
        ] {
            assert_eq!(outlook(&text), (may, names(by), names(open)), "{text}");
        }
    }

    #[test]
    fn tools_that_policies_name_are_known() {
        let policies = policies(
            r#"permit(principal, action, resource == Tool::"default/refund");
            forbid(principal, action, resource) when { resource == Tool::"default/delete" };
            forbid(principal, action, resource == Tool::"other/pay");
            forbid(principal, action, resource == Workflow::"default/Payer");"#,
        );
        let tools = |namespace| policies.named(Command::Tool, namespace);
        assert_eq!(tools("default"), ["delete", "refund"]);
        assert_eq!(tools("other"), ["pay"]);
        assert!(tools("oth").is_empty());
        assert_eq!(policies.named(Command::Child, "default"), ["Payer"]);
    }
}
