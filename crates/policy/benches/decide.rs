//! What a decision costs: `cargo bench -p steadfast-policy`.
//!
//! The goal is 50 µs for a tool call by 200 policies.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use steadfast_policy::{
    Action, Argument, Arguments, Kind, Policies, Principal, Request, Resource, Source, ToolContext,
    Verdict, starter,
};

/// So many policies, as a company may have them: most about one tool each, some about all.
fn policies(count: usize) -> Policies {
    let of_tools = (0..count - 21).map(|number| match number % 3 {
        0 => format!(
            "@id(\"limit-{number}\") @approval(\"required\") @approvers(\"finance\")\n\
             forbid(principal, action == Action::\"ExecuteTool\", resource == Tool::\"default/tool-{number}\")\n\
             unless {{ context.numbers.hasTag(\"/0/amount\") && context.numbers.getTag(\"/0/amount\") <= 1000 }};"
        ),
        1 => format!(
            "@id(\"never-{number}\")\n\
             forbid(principal == Agent::\"default/Agent-{number}\", action == Action::\"ExecuteTool\", resource)\n\
             when {{ context.opaque || context.task_queue like \"test-*\" }};"
        ),
        _ => format!(
            "@id(\"group-{number}\")\n\
             permit(principal in Group::\"team-{number}\", action in Action::\"write\", resource in Namespace::\"ns-{number}\");"
        ),
    });
    let of_all = (0..20).map(|number| {
        format!(
            "@id(\"all-{number}\") forbid(principal, action in Action::\"command\", resource)\n\
             when {{ context.tool_calls.hasTag(\"tool-{number}\") && context.tool_calls.getTag(\"tool-{number}\") > 5 }};"
        )
    });
    let last = "permit(principal is Agent, action in Action::\"command\", resource);".to_owned();
    let text: Vec<String> = of_tools.chain(of_all).chain([last]).collect();
    let source = Source {
        name: "p".into(),
        text: text.join("\n"),
    };
    let policies = Policies::parse(&[source]).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(policies.ids().len(), count);
    policies
}

fn argument() -> Value {
    json!({"amount": 250, "currency": "EUR", "customer": {"id": "c-17", "tags": ["a", "b"]}, "ok": true})
}

fn tool() -> ToolContext<'static> {
    ToolContext {
        namespace: "default",
        tool: "tool-30",
        workflow_type: "Agent",
        workflow_id: "order-7",
        task_queue: "tools",
        initiator: "https://login.example.com#alice",
        initiator_method: "oidc",
        attempt: 1,
        attested: false,
        session_age_seconds: 60,
        tool_calls: (0..5).map(|n| (format!("tool-{n}"), n)).collect(),
        arguments: Arguments::new([Argument::Json(argument())]),
        ..ToolContext::default()
    }
}

fn tool_calls(criterion: &mut Criterion) {
    let agent = Principal {
        kind: Kind::Agent,
        id: "default/Agent".into(),
        ..Principal::default()
    };
    for count in [21, 200, 1000] {
        let policies = policies(count);
        criterion.bench_function(&format!("a tool call by {count} policies"), |bencher| {
            bencher.iter_batched(
                tool,
                |tool| {
                    let decision = policies.decide(&Request {
                        principal: &agent,
                        action: Action::execute_tool(),
                        resource: Resource::Tool(Box::new(tool)),
                    });
                    assert_eq!(decision.verdict, Verdict::Allow);
                    decision
                },
                BatchSize::SmallInput,
            );
        });
    }
    criterion.bench_function("reading the arguments of a tool call", |bencher| {
        let text = argument().to_string();
        bencher.iter(|| {
            let value = serde_json::from_str(&text).map(Argument::Json);
            Arguments::new([value.unwrap_or(Argument::Opaque)])
        });
    });
}

fn calls(criterion: &mut Criterion) {
    let worker = Principal {
        kind: Kind::Service,
        id: "api-key#workers".into(),
        groups: vec!["worker".into()],
        method: "api-key".into(),
    };
    let starters = starter::policies().unwrap_or_else(|problems| panic!("{problems:?}"));
    let Some(action) = Action::of("RespondActivityTaskCompleted") else {
        return;
    };
    criterion.bench_function("a call by the starter policies", |bencher| {
        bencher.iter(|| {
            let decision = starters.decide(&Request {
                principal: &worker,
                action,
                resource: Resource::Namespace {
                    name: "default",
                    workflow_id: "order-7",
                    workflow_type: "",
                    task_queue: "",
                    attested: false,
                },
            });
            assert_eq!(decision.verdict, Verdict::Allow);
            decision
        });
    });
}

criterion_group!(benches, tool_calls, calls);
criterion_main!(benches);
