//! Whether an agent may have a credential for another audience.

use steadfast_policy::Verdict;
use steadfast_policy::{Action, ExchangeContext, Kind as PolicyKind, Principal, Request, Resource};
use steadfast_runtime::{Kind, Permit};
use tonic::Status;

use super::{Caller, Denied, Target};
use crate::credentials::{Asked, Claims};

/// The call.
const EXCHANGE: &str = "ExchangeCredential";

/// How an agent is authenticated by what it was given.
const METHOD: &str = "credential";

impl Caller {
    /// Decides whether an attempt's credential is exchanged: the policies do if there are any, whether
    /// callers are authenticated or not. Gives also the policies that permit it.
    pub(crate) fn admit_exchange(
        &self,
        subject: &Claims,
        asked: &Asked,
    ) -> Result<(Permit, Vec<String>), Status> {
        let call = &subject.steadfast;
        let permit = Permit::granted(EXCHANGE, subject.sub.clone(), METHOD.to_owned());
        let permit = permit.with(Kind::Agent, Default::default());
        let decision = match self.gate.policies.get() {
            None if !self.gate.authenticates => return Ok((permit, Vec::new())),
            Some(policies) => Some(policies.decide(&Request {
                principal: &Principal {
                    kind: PolicyKind::Agent,
                    id: subject.sub.clone(),
                    groups: Vec::new(),
                    method: METHOD.to_owned(),
                },
                action: Action::exchange_credential(),
                resource: Resource::Audience(Box::new(ExchangeContext {
                    audience: &asked.audience,
                    namespace: &call.namespace,
                    tool: &call.tool,
                    workflow_id: &call.workflow_id,
                    workflow_type: &call.workflow_type,
                    initiator: &call.initiator,
                    initiator_method: &call.initiator_method,
                    attempt: call.attempt.into(),
                    scope: &asked.scope,
                })),
            })),
            None => None,
        };
        let (verdict, policies) = match decision {
            Some(decision) => (decision.verdict, decision.policies),
            None => (Verdict::Deny, Vec::new()),
        };
        let why = match verdict {
            Verdict::Allow => return Ok((permit, policies)),
            Verdict::Deny if policies.is_empty() => {
                format!("no policy permits {} to {}", asked.audience, subject.sub)
            }
            Verdict::Deny => format!("{} is forbidden by {}", asked.audience, policies.join(", ")),
            Verdict::NeedsApproval(_) => format!(
                "{} asks for approval, which exchanges do not wait for",
                policies.join(", ")
            ),
        };
        let target = Target::of(&call.namespace).workflow_id(&call.workflow_id);
        let denied = Denied {
            call: EXCHANGE,
            target: &target,
            policies,
            why,
        };
        Err(self.gate.refuse(&denied, &permit))
    }
}
