//! A policy as it is evaluated: what it says of a request as one expression, which is made once. Cedar's
//! authorizer makes it for each request, which takes longer than evaluating it.
//!
//! Parts of the scope that are known to hold where the policy is looked at are left out (`slices.rs`).

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{
    AuthorizationError, Authorizer, Effect, Entities, EvalResult, Expression, Policy, PolicyId,
    PolicySet, Request, eval_expression,
};
use serde_json::{Value, json};

/// Parts of a scope that need not be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Known {
    pub principal: bool,
    pub action: bool,
    pub resource: bool,
}

/// A policy, where it is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub id: PolicyId,
    pub is_forbid: bool,
    condition: Arc<Condition>,
}

#[derive(Debug)]
enum Condition {
    Expression(Expression),
    /// It could not be made an expression: Cedar's authorizer is asked.
    Policy(Box<PolicySet>),
}

/// Makes rules, each once.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    made: HashMap<(PolicyId, Known), Arc<Condition>>,
    /// Whether any condition looks at the action.
    pub looks_at_action: bool,
}

impl Rules {
    /// The rule of a policy.
    pub fn rule(&mut self, policy: &Policy, known: Known) -> Rule {
        let id = policy.id().clone();
        let condition = match self.made.get(&(id.clone(), known)) {
            Some(condition) => condition.clone(),
            None => {
                let condition = Arc::new(self.condition(policy, known));
                self.made.insert((id.clone(), known), condition.clone());
                condition
            }
        };
        Rule {
            id,
            is_forbid: policy.effect() == Effect::Forbid,
            condition,
        }
    }

    fn condition(&mut self, policy: &Policy, known: Known) -> Condition {
        if let Some(said) = Said::of(policy, known) {
            self.looks_at_action |= said.looks_at_action;
            return Condition::Expression(said.expression);
        }
        self.looks_at_action = true;
        let mut alone = PolicySet::new();
        // It fails for ids that are there already only.
        let _ = alone.add(policy.clone());
        Condition::Policy(Box::new(alone))
    }
}

impl Rule {
    /// Whether it matches. An error is what the authorizer would say.
    pub fn matches(&self, request: &Request, entities: &Entities) -> Result<bool, String> {
        match &*self.condition {
            Condition::Expression(expression) => {
                let failed = |error: &dyn std::fmt::Display| {
                    format!("error while evaluating policy `{}`: {error}", self.id)
                };
                match eval_expression(request, entities, expression) {
                    Ok(EvalResult::Bool(matches)) => Ok(matches),
                    Ok(other) => Err(failed(&format!("type error: {other} is no boolean"))),
                    Err(error) => Err(failed(&error)),
                }
            }
            Condition::Policy(alone) => {
                let response = Authorizer::new().is_authorized(request, alone, entities);
                let diagnostics = response.diagnostics();
                if let Some(error) = diagnostics.errors().next() {
                    let AuthorizationError::PolicyEvaluationError(_) = error;
                    return Err(error.to_string());
                }
                Ok(diagnostics.reason().next().is_some())
            }
        }
    }
}

/// What a policy says.
struct Said {
    expression: Expression,
    looks_at_action: bool,
}

impl Said {
    /// None if it has a form that is not known here.
    fn of(policy: &Policy, known: Known) -> Option<Self> {
        let said = policy.to_json().ok()?;
        let mut parts = Vec::new();
        for (name, is_known) in [
            ("principal", known.principal),
            ("action", known.action),
            ("resource", known.resource),
        ] {
            if !is_known {
                parts.extend(scope(name, said.get(name)?)?);
            }
        }
        let conditions = said.get("conditions")?.as_array()?;
        let looks_at_action = Value::from(conditions.clone())
            .to_string()
            .contains("\"Var\":\"action\"");
        for condition in conditions {
            let body = condition.get("body")?.clone();
            parts.push(match condition.get("kind")?.as_str()? {
                "when" => body,
                "unless" => json!({"!": {"arg": body}}),
                _ => return None,
            });
        }
        let whole = parts
            .into_iter()
            .rev()
            .reduce(|right, left| json!({"&&": {"left": left, "right": right}}));
        Some(Self {
            expression: expression(whole.unwrap_or_else(|| json!({"Value": true})))?,
            looks_at_action,
        })
    }
}

/// A part of a scope as an expression; an empty one if it says nothing.
fn scope(name: &str, said: &Value) -> Option<Option<Value>> {
    let subject = json!({"Var": name});
    let entity = |of: &Value| json!({"Value": {"__entity": of}});
    let is_in = |of: &Value| json!({"in": {"left": subject, "right": of}});
    let part = match said.get("op")?.as_str()? {
        "All" => return Some(None),
        "==" => json!({"==": {"left": subject, "right": entity(said.get("entity")?)}}),
        "in" => match (said.get("entity"), said.get("entities")) {
            (Some(of), None) => is_in(&entity(of)),
            (None, Some(Value::Array(of))) => {
                let all: Vec<Value> = of.iter().map(entity).collect();
                is_in(&json!({ "Set": all }))
            }
            _ => return None,
        },
        "is" => {
            let mut is = json!({"left": subject, "entity_type": said.get("entity_type")?});
            if let Some(of) = said.get("in") {
                is["in"] = entity(of.get("entity")?);
            }
            json!({ "is": is })
        }
        _ => return None,
    };
    Some(Some(part))
}

/// An expression of Cedar's JSON. It is read from the text of a policy that says just that.
fn expression(body: Value) -> Option<Expression> {
    let all = || json!({"op": "All"});
    let policy = json!({
        "effect": "permit",
        "principal": all(),
        "action": all(),
        "resource": all(),
        "conditions": [{"kind": "when", "body": body}],
    });
    let text = Policy::from_json(None, policy).ok()?.to_cedar()?;
    let (_, rest) = text.split_once('{')?;
    let (body, _) = rest.rsplit_once('}')?;
    Expression::from_str(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(principal: bool, action: bool, resource: bool) -> Known {
        Known {
            principal,
            action,
            resource,
        }
    }

    #[test]
    fn every_form_of_policy_becomes_an_expression() {
        for (text, looks_at_action) in [
            ("permit(principal, action, resource);", false),
            (
                "forbid(principal is User in Group::\"g\", action, resource is Tool);",
                false,
            ),
            (
                "permit(principal in Group::\"g\", action == Action::\"a\", resource == Tool::\"t\");",
                false,
            ),
            (
                "permit(principal, action in [Action::\"a\", Action::\"b\"], resource in Namespace::\"n\");",
                false,
            ),
            (
                "permit(principal, action, resource) when { action in Action::\"a\" };",
                true,
            ),
            (
                "permit(principal, action, resource) when { context.a like \"}{*\\\"\" } \
                 unless { context.b.getTag(\"}\").lessThan(decimal(\"1.5\")) || [1, 2].contains(context.c) };",
                false,
            ),
            (
                "permit(principal, action, resource) when { if context has \"a b\" then true else {x: 1}.x > -3 };",
                false,
            ),
        ] {
            let policy = Policy::from_str(text).expect("parses");
            for known in [known(false, false, false), known(true, true, true)] {
                let said = Said::of(&policy, known).expect(text);
                assert_eq!(said.looks_at_action, looks_at_action, "{text}");
            }
        }
    }
}
