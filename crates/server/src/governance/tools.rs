//! Tool calls and other commands: what policies are told of them, and what the engine is told.

use steadfast_engine::RunState;
use steadfast_engine::governance::{Call, Governor, Reasons, Requirement, Ruling};
use steadfast_engine::proto::common::Payload;
use steadfast_engine::record::CallKind;
use steadfast_engine::time::{SECOND, Time};
use steadfast_policy::{
    Argument, Arguments, Command, Decision, Kind, Policies, Principal, Recorded, Request, Resource,
    ToolContext, Verdict,
};

use crate::attestations::Attestations;

/// Asks policies about tool calls and other commands.
pub struct ToolCalls {
    policies: Policies,
    attestations: Attestations,
    hash: Vec<u8>,
}

impl ToolCalls {
    /// By these policies.
    pub fn new(policies: Policies, attestations: Attestations) -> Self {
        Self {
            hash: policies.hash().into(),
            attestations,
            policies,
        }
    }

    fn ruling(&self, decision: Decision) -> Ruling {
        let reasons = Reasons {
            policies: decision.policies,
            policy_hash: self.hash.clone(),
        };
        match decision.verdict {
            Verdict::Allow => Ruling::Allow(reasons),
            Verdict::Deny => Ruling::Deny(reasons),
            Verdict::NeedsApproval(of) => Ruling::Approval(
                reasons,
                Requirement {
                    groups: of.groups,
                    quorum: of.quorum,
                    timeout: i64::try_from(of.timeout.as_nanos()).unwrap_or(i64::MAX),
                },
            ),
        }
    }
}

/// What policies are asked about a command, as JSON on one line.
pub fn explain(call: &Call<'_>) -> Result<String, String> {
    asked(call, |request| Recorded::new(request)?.to_json())
}

/// Puts what policies can see of a command together.
fn asked<T>(call: &Call<'_>, ask: impl FnOnce(&Request<'_>) -> T) -> T {
    let (state, of) = (call.state, &call.command);
    let workflow_type = state.workflow_type();
    let payloads = of.arguments().into_iter().flat_map(|of| &of.payloads);
    let hidden = of.hides_arguments().then_some(Argument::Opaque);
    let command = command(of.kind());
    let initiator = state.initiator.as_ref();
    let context = ToolContext {
        command,
        namespace: call.namespace,
        tool: match command {
            Command::Signal | Command::Cancel => of.id(),
            _ => of.name(),
        },
        workflow_type,
        workflow_id: &state.workflow_id,
        task_queue: of.task_queue(),
        initiator: initiator.map_or("", |of| &of.name),
        initiator_method: initiator.map_or("", |of| &of.r#type),
        attempt: of.attempt().into(),
        attested: call.attested,
        session_age_seconds: (call.now - state.start_time).max(0) / SECOND,
        tool_calls: call.earlier_tool_calls(),
        children: call.earlier_children(),
        child_workflow_id: of.id(),
        terminates_running: of.terminates_running(),
        signal_name: of.name(),
        children_only: of.children_only(),
        arguments: Arguments::new(payloads.map(argument).chain(hidden)),
    };
    let principal = Principal {
        kind: Kind::Agent,
        id: format!("{}/{workflow_type}", call.namespace),
        ..Principal::default()
    };
    ask(&Request {
        principal: &principal,
        action: command.action(),
        resource: Resource::Tool(Box::new(context)),
    })
}

impl Governor for ToolCalls {
    fn policy_hash(&self) -> &[u8] {
        &self.hash
    }

    fn is_attested(&self, state: &RunState, now: Time) -> bool {
        let (namespace_id, workflow_type) = (&state.namespace_id, state.workflow_type());
        self.attestations
            .is_attested(namespace_id, workflow_type, now)
    }

    fn decide(&self, call: &Call<'_>) -> Ruling {
        let decision = asked(call, |request| self.policies.decide(request));
        let (workflow_id, kind) = (&call.state.workflow_id, call.command.kind().name());
        let name = call.command.name();
        for error in &decision.errors {
            tracing::warn!(%error, %workflow_id, kind, name, "a policy could not be evaluated");
        }
        self.ruling(decision)
    }
}

fn command(kind: CallKind) -> Command {
    match kind {
        CallKind::Tool => Command::Tool,
        CallKind::Child => Command::Child,
        CallKind::Signal => Command::Signal,
        CallKind::Cancel => Command::Cancel,
        CallKind::Local => Command::Local,
        CallKind::ContinueAs => Command::ContinueAs,
    }
}

/// An argument as policies see it.
pub(super) fn argument(payload: &Payload) -> Argument {
    let json = match payload.metadata.get("encoding").map(Vec::as_slice) {
        Some(b"binary/null") => Some(serde_json::Value::Null),
        Some(b"json/plain") => serde_json::from_slice(&payload.data).ok(),
        _ => None,
    };
    json.map_or(Argument::Opaque, Argument::Json)
}
