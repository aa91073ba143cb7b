//! The one place where it is decided whether a caller may make a call.
//!
//! Where callers are authenticated, policies decide; what they do not permit is refused. Refused calls
//! leave entries in the logs (`refusals.rs`).

mod exchange;
mod refusals;
#[cfg(test)]
mod table;
mod target;

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use steadfast_policy::{Action, Policies, Principal, Request, Resource, Verdict};
use steadfast_runtime::disabled::Disabled;
use steadfast_runtime::{Kind, Permit, Runtime};
use tonic::Status;

use crate::authn::{Identity, UNAUTHENTICATED};
use crate::governance::InForce;
pub use refusals::Refusals;
use refusals::Refused;
pub use target::Target;

/// The group whose members make and revoke API keys.
pub const ADMIN: &str = "admin";

/// The call that reads a log.
pub const READ_LOG: &str = "ReadLog";

/// Marks requests for what everybody may read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Public;

/// Decides whether calls are made. Cheap to clone.
#[derive(Clone, Default)]
pub struct Gate {
    /// Whether callers have to show who they are.
    authenticates: bool,
    policies: InForce,
    refusals: Refusals,
    disabled: Disabled,
    /// Knows the ids of namespaces, by which attestations are kept.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut gate = f.debug_struct("Gate");
        gate.field("authenticates", &self.authenticates);
        gate.finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate for callers that are authenticated, and do what the policies in force permit; or for all.
    pub fn new(authenticates: bool, policies: InForce, refusals: Refusals) -> Self {
        Self {
            authenticates,
            policies,
            refusals,
            disabled: Disabled::default(),
            runtime: None,
        }
    }

    /// Refuses these, too, whatever policies permit.
    pub fn without(self, disabled: Disabled) -> Self {
        Self { disabled, ..self }
    }

    /// With what attestations can be looked up by.
    pub fn with_runtime(mut self, runtime: Runtime) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Whether sessions of the target's type were attested to be resumable.
    fn is_attested(&self, target: &Target<'_>) -> bool {
        let Some(runtime) = &self.runtime else {
            return false;
        };
        let Ok(namespace) = runtime.namespaces().by_name(target.namespace) else {
            return false;
        };
        let (attestations, now) = (
            self.policies.attestations(),
            steadfast_runtime::clock::now(),
        );
        attestations.is_attested(&namespace.id, target.workflow_type, now)
    }

    /// Whether policies decide here.
    pub(crate) fn governs(&self) -> bool {
        self.authenticates
    }

    /// Decides whether `call` is made, and all that it has in it.
    ///
    /// Who the caller is was put into the request's extensions. The name that it claims is who it is where
    /// nobody is authenticated; elsewhere it means nothing here.
    pub fn admit(
        &self,
        call: &str,
        extensions: &Extensions,
        target: &Target<'_>,
    ) -> Result<Permit, Status> {
        self.decide(call, extensions.get::<Arc<Identity>>(), target)
    }

    fn decide(
        &self,
        call: &str,
        identity: Option<&Arc<Identity>>,
        target: &Target<'_>,
    ) -> Result<Permit, Status> {
        let Some(identity) = identity else {
            // A request that came around authentication is not let in where there is any.
            return match self.authenticates {
                true => Err(Status::unauthenticated("the caller is not authenticated")),
                false => {
                    let permit = unauthenticated(call, target);
                    let checked = self.check_enabled(call, target.claimed, target);
                    checked.map_err(|denied| self.refuse(&denied, &permit))?;
                    Ok(permit)
                }
            };
        };
        debug_assert_ne!(identity.kind, Kind::Unauthenticated);
        let permit = Permit::granted(call, identity.principal(), identity.method.to_owned());
        self.check_enabled(call, &identity.principal(), target)
            .and_then(|()| self.check(call, identity, target))
            .map_err(|denied| self.refuse(&denied, &permit))?;
        Ok(permit.with(identity.kind, identity.groups.clone()))
    }

    /// Nobody who is disabled calls anything, and nobody starts an agent that is.
    fn check_enabled<'a>(
        &self,
        call: &'a str,
        principal: &str,
        target: &'a Target<'a>,
    ) -> Result<(), Denied<'a>> {
        let (namespace, workflow_type) = (target.namespace, target.workflow_type);
        let why = match self.disabled.refuses(principal) {
            true => format!("{principal} is disabled"),
            false if self.disabled.refuses_agent(namespace, workflow_type) => {
                format!("{namespace}/{workflow_type} is disabled")
            }
            false => {
                let mut parts = target.parts.iter();
                return parts
                    .try_for_each(|(call, part)| self.check_enabled(call, principal, part));
            }
        };
        Err(Denied {
            call,
            target,
            policies: Vec::new(),
            why,
        })
    }

    fn check<'a>(
        &self,
        call: &'a str,
        identity: &Identity,
        target: &'a Target<'a>,
    ) -> Result<(), Denied<'a>> {
        // Whoever makes keys can be anybody: no policy gives that away.
        let is_about_keys = matches!(call, "CreateKey" | "RevokeKey");
        let denied = |policies, why: String| Denied {
            call,
            target,
            policies,
            why,
        };
        if is_about_keys && !identity.groups.iter().any(|group| group == ADMIN) {
            let why = format!("only members of the group {ADMIN} make and revoke API keys");
            return Err(denied(Vec::new(), why));
        }
        let principal = principal(identity);
        let (verdict, policies) = self.ask(&principal, call, target);
        let named = || policies.join(", ");
        let why = match verdict {
            Verdict::Allow => None,
            Verdict::Deny if policies.is_empty() => {
                Some(format!("no policy permits it to {}", principal.id))
            }
            Verdict::Deny => Some(format!("forbidden by {}", named())),
            Verdict::NeedsApproval(_) => Some(format!(
                "{} asks for approval, which calls of the API do not wait for",
                named()
            )),
        };
        match why {
            Some(why) => Err(denied(policies, why)),
            None => target
                .parts
                .iter()
                .try_for_each(|(call, part)| self.check(call, identity, part)),
        }
    }

    fn ask(
        &self,
        principal: &Principal,
        call: &str,
        target: &Target<'_>,
    ) -> (Verdict, Vec<String>) {
        // An action that is in no table, and a server without policies, permit nothing.
        let (Some(action), Some(policies)) = (Action::of(call), self.policies.get()) else {
            return (Verdict::Deny, Vec::new());
        };
        let decision = policies.decide(&Request {
            principal,
            action,
            resource: Resource::Namespace {
                name: target.namespace,
                workflow_id: target.workflow_id,
                workflow_type: target.workflow_type,
                task_queue: target.task_queue,
                attested: action.is_start() && self.is_attested(target),
            },
        });
        for error in &decision.errors {
            tracing::warn!(%error, call, "a policy could not be evaluated");
        }
        (decision.verdict, decision.policies)
    }

    fn refuse(&self, denied: &Denied<'_>, permit: &Permit) -> Status {
        let (call, target) = (denied.call, denied.target);
        let place = match target.namespace {
            "" => String::new(),
            namespace => format!(" in namespace {namespace:?}"),
        };
        let message = format!("{call} is denied{place}: {}", denied.why);
        tracing::debug!(
            principal = permit.cause().principal,
            message,
            "a call was refused"
        );
        self.refusals.add(Refused {
            call,
            permit,
            namespace: target.namespace,
            workflow_id: target.workflow_id,
            policies: &denied.policies,
            why: &denied.why,
        });
        Status::permission_denied(message)
    }
}

/// Why a call is refused. What is refused may be one of several that it has in it.
struct Denied<'a> {
    call: &'a str,
    target: &'a Target<'a>,
    policies: Vec<String>,
    why: String,
}

fn unauthenticated(call: &str, target: &Target<'_>) -> Permit {
    Permit::granted(call, target.claimed.to_owned(), UNAUTHENTICATED.to_owned())
}

/// A caller as policies see it.
fn principal(identity: &Identity) -> Principal {
    Principal {
        kind: match identity.kind {
            Kind::User => steadfast_policy::Kind::User,
            Kind::Service => steadfast_policy::Kind::Service,
            Kind::Agent => steadfast_policy::Kind::Agent,
            Kind::Unauthenticated => steadfast_policy::Kind::Unauthenticated,
        },
        id: identity.principal(),
        groups: identity.groups.to_vec(),
        method: identity.method.to_owned(),
    }
}

/// Who makes an HTTP request, and the gate that it has to pass.
#[derive(Clone)]
pub(crate) struct Caller {
    gate: Gate,
    identity: Option<Arc<Identity>>,
    is_public: bool,
}

impl Caller {
    /// The attestations of all namespaces. Whoever shows them asks whether the caller may see them.
    pub(crate) fn attestations(&self) -> &crate::attestations::Attestations {
        self.gate.policies.attestations()
    }

    /// As [`Gate::admit`].
    pub(crate) fn admit(
        &self,
        call: &str,
        namespace: &str,
        claimed: &str,
    ) -> Result<Permit, Status> {
        self.admit_to(call, &Target::of(namespace).claimed(claimed))
    }

    /// As [`Gate::admit`].
    pub(crate) fn admit_to(&self, call: &str, target: &Target<'_>) -> Result<Permit, Status> {
        if self.is_public && call == READ_LOG {
            return Ok(unauthenticated(call, target));
        }
        self.gate.decide(call, self.identity.as_ref(), target)
    }

    /// The policies in force.
    pub(crate) fn policies(&self) -> &InForce {
        &self.gate.policies
    }

    /// Whether this caller could make a call about the whole server if these policies were in force.
    pub(crate) fn could(&self, call: &str, policies: &Policies) -> bool {
        let in_force = InForce::of(policies.clone());
        let gate = Gate::new(self.gate.authenticates, in_force, Refusals::default());
        let decided = gate.decide(call, self.identity.as_ref(), &Target::of(""));
        decided.is_ok()
    }

    /// Whether a call would be let in. Nothing is recorded of the question.
    pub(crate) fn may(&self, call: &str, target: &Target<'_>) -> bool {
        match &self.identity {
            Some(identity) => self.gate.check(call, identity, target).is_ok(),
            None => !self.gate.authenticates,
        }
    }

    /// The principal; empty where nobody is authenticated.
    pub(crate) fn principal(&self) -> String {
        self.identity
            .as_ref()
            .map_or_else(String::new, |of| of.principal())
    }

    /// Whether callers are who they show to be here, not who they claim to be.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.identity.is_some()
    }

    /// Calls that were refused.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.gate.refusals
    }

    /// Resolves when its credential has expired or was revoked: for answers without an end.
    pub(crate) async fn over(&self) {
        match &self.identity {
            Some(identity) => identity.over().await,
            None => std::future::pending().await,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let gate = parts.extensions.get::<Gate>().cloned();
        // Routes that nobody put a gate before are closed.
        let closed = || Gate::new(true, InForce::default(), Refusals::default());
        Ok(Self {
            gate: gate.unwrap_or_else(closed),
            identity: parts.extensions.get().cloned(),
            is_public: parts.extensions.get::<Public>().is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use steadfast_policy::{Source, starter};

    use super::*;

    fn extensions(groups: &[&str]) -> Extensions {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let identity = Identity::for_tests("https://i.example", "alice", groups);
        let mut extensions = Extensions::new();
        extensions.insert(Arc::new(identity));
        extensions
    }

    fn gate(authenticates: bool, policies: Option<Policies>) -> Gate {
        let in_force = InForce::default();
        in_force.set(policies);
        Gate::new(authenticates, in_force, Refusals::default())
    }

    fn policies(text: &str) -> Option<Policies> {
        let source = Source {
            name: "p".into(),
            text: text.into(),
        };
        Some(Policies::parse(&[source]).expect("are valid"))
    }

    fn starters() -> Option<Policies> {
        Some(starter::policies().expect("are valid"))
    }

    fn target() -> Target<'static> {
        Target::of("default").claimed("mallory")
    }

    #[test]
    fn the_permit_names_who_was_authenticated_and_not_who_it_claims_to_be() {
        let gate = gate(true, starters());
        let permit = gate.admit("GetSystemInfo", &extensions(&["g"]), &target());
        let permit = permit.expect("admitted");
        let cause = permit.cause();
        assert_eq!(cause.principal, "https://i.example#alice");
        assert_eq!(cause.authentication, "oidc");
        assert_eq!(
            (permit.kind(), permit.groups()),
            (Kind::User, &["g".to_owned()][..])
        );
    }

    #[test]
    fn without_authentication_the_claim_counts_and_policies_do_not() {
        for policies in [None, policies("forbid(principal, action, resource);")] {
            let gate = gate(false, policies);
            let permit = gate.admit("TerminateWorkflowExecution", &Extensions::new(), &target());
            let cause = permit.expect("admitted").cause();
            assert_eq!(
                (&*cause.principal, &*cause.authentication),
                ("mallory", UNAUTHENTICATED)
            );
        }
    }

    #[test]
    fn who_is_not_authenticated_is_refused_where_others_are() {
        let refused = gate(true, starters()).admit("GetSystemInfo", &Extensions::new(), &target());
        let refused = refused.expect_err("refused");
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    }

    #[test]
    fn keys_are_for_administrators_whatever_policies_say() {
        let gate = gate(true, policies("permit(principal, action, resource);"));
        for call in ["CreateKey", "RevokeKey"] {
            let refused = gate.admit(call, &extensions(&["g"]), &Target::of(""));
            let refused = refused.expect_err("refused");
            assert_eq!(refused.code(), tonic::Code::PermissionDenied);
            let admitted = gate.admit(call, &extensions(&["g", ADMIN]), &Target::of(""));
            assert!(admitted.is_ok());
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        let table = [
            (None, "no policy permits it to https://i.example#alice"),
            (
                policies(""),
                "no policy permits it to https://i.example#alice",
            ),
            (
                policies(
                    "permit(principal, action, resource); \
                     @id(\"never\") forbid(principal, action, resource in Namespace::\"default\");",
                ),
                "forbidden by never",
            ),
            (
                policies(
                    "permit(principal, action, resource); \
                     @id(\"soft\") @approval(\"required\") forbid(principal, action, resource);",
                ),
                "soft asks for approval, which calls of the API do not wait for",
            ),
        ];
        for (policies, why) in table {
            let gate = gate(true, policies);
            let refused = gate.admit("QueryWorkflow", &extensions(&[]), &target());
            let refused = refused.expect_err("refused");
            assert_eq!(refused.code(), tonic::Code::PermissionDenied);
            let expected = format!("QueryWorkflow is denied in namespace \"default\": {why}");
            assert_eq!(refused.message(), expected);
        }
    }

    #[test]
    fn what_nobody_knows_is_refused_even_if_everything_is_permitted() {
        let gate = gate(true, policies("permit(principal, action, resource);"));
        for call in ["Nothing", "", "admin", "read"] {
            assert!(gate.admit(call, &extensions(&[ADMIN]), &target()).is_err());
        }
    }

    #[test]
    fn each_part_of_a_call_has_to_be_permitted() {
        let gate = gate(
            true,
            policies(
                "permit(principal, action, resource); \
                 @id(\"no\") forbid(principal, action == Action::\"TerminateWorkflowExecution\", resource) \
                 when { context has workflow_id && context.workflow_id == \"w\" };",
            ),
        );
        let start = |id| {
            let part = Target::of("default").workflow_id(id);
            let with = part.clone().part("TerminateWorkflowExecution", part);
            let outer = target().part("StartWorkflowExecution", with);
            gate.admit("ExecuteMultiOperation", &extensions(&[]), &outer)
        };
        assert!(start("other").is_ok());
        let refused = start("w").expect_err("refused");
        let expected =
            "TerminateWorkflowExecution is denied in namespace \"default\": forbidden by no";
        assert_eq!(refused.message(), expected);
    }

    #[test]
    fn what_is_public_is_the_log_only() {
        let caller = Caller {
            gate: gate(true, starters()),
            identity: None,
            is_public: true,
        };
        assert!(caller.admit(READ_LOG, "default", "").is_ok());
        assert!(caller.admit("ExportOcsf", "default", "").is_err());
    }
}
