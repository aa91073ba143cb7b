//! Which policies can be about a request, by what they say before their conditions: their scopes. A
//! decision looks at those only; the others could neither match nor fail.

use std::collections::HashMap;

use cedar_policy::{
    ActionConstraint, Entities, EntityUid, Policy, PolicyId, PrincipalConstraint, Request,
    ResourceConstraint,
};

use crate::action::Action;
use crate::rules::{Known, Rule, Rules};

/// Policies about one action, each in one place.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    /// About one resource.
    of_resources: HashMap<EntityUid, Vec<Rule>>,
    /// About one principal, and no single resource.
    of_principals: HashMap<EntityUid, Vec<Rule>>,
    others: Vec<Rule>,
}

/// What policies say, of all slices together.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Ids of the policies that forbid; where none does, of those that permit.
    pub reasons: Vec<PolicyId>,
    /// Whether one forbids.
    pub is_forbidden: bool,
    /// Policies that could not be evaluated, with why.
    pub errors: Vec<(PolicyId, String)>,
}

impl Answer {
    /// Whether it is permitted, and nothing forbids it.
    pub fn is_allowed(&self) -> bool {
        !self.is_forbidden && !self.reasons.is_empty()
    }

    fn add(&mut self, rule: &Rule) {
        // Where one forbids, those that permit do not count.
        if rule.is_forbid && !self.is_forbidden {
            self.is_forbidden = true;
            self.reasons.clear();
        }
        if rule.is_forbid == self.is_forbidden {
            self.reasons.push(rule.id.clone());
        }
    }
}

impl Slices {
    /// Those of `policies` that are about an action, or all. Their ids differ.
    pub fn new<'a>(
        action: Option<Action>,
        policies: impl Iterator<Item = &'a Policy>,
        rules: &mut Rules,
    ) -> Self {
        let mut slices = Self::default();
        for policy in policies.filter(|of| action.is_none_or(|action| is_about(of, action))) {
            let mut known = Known {
                action: action.is_some_and(|action| is_surely_about(policy, action)),
                ..Known::default()
            };
            let (resource, principal) =
                (policy.resource_constraint(), policy.principal_constraint());
            let place = match (resource, principal) {
                (ResourceConstraint::Eq(uid), _) => {
                    known.resource = true;
                    slices.of_resources.entry(uid).or_default()
                }
                (_, PrincipalConstraint::Eq(uid)) => {
                    known.principal = true;
                    slices.of_principals.entry(uid).or_default()
                }
                _ => &mut slices.others,
            };
            place.push(rules.rule(policy, known));
        }
        slices
    }

    /// Asks those that can be about the request.
    pub fn ask(&self, request: &Request, entities: &Entities) -> Answer {
        let of_resource = request.resource().and_then(|of| self.of_resources.get(of));
        let of_principal = request
            .principal()
            .and_then(|of| self.of_principals.get(of));
        let slices = [of_resource, of_principal, Some(&self.others)];
        let mut answer = Answer::default();
        for rule in slices.into_iter().flatten().flatten() {
            match rule.matches(request, entities) {
                Ok(true) => answer.add(rule),
                Ok(false) => {}
                Err(error) => answer.errors.push((rule.id.clone(), error)),
            }
        }
        answer
    }
}

fn is_about(policy: &Policy, action: Action) -> bool {
    let names = [action.name(), action.group()];
    let is_one = |uid: &EntityUid| {
        let name: &str = uid.id().as_ref();
        names.contains(&name)
    };
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::In(uids) => uids.iter().any(is_one),
        ActionConstraint::Eq(uid) => is_one(&uid),
    }
}

/// Whether what it says of the action holds for this one: an action is in its group.
fn is_surely_about(policy: &Policy, action: Action) -> bool {
    let is = |uid: &EntityUid, name: &str| {
        uid.type_name().to_string() == "Action" && AsRef::<str>::as_ref(uid.id()) == name
    };
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::In(uids) => {
            let mut uids = uids.iter();
            uids.any(|uid| is(uid, action.name()) || is(uid, action.group()))
        }
        ActionConstraint::Eq(uid) => is(&uid, action.name()),
    }
}
