use std::time::Duration;

use proptest::prelude::{ProptestConfig, prop, proptest};
use serde_json::json;

use super::*;
use crate::arguments::Argument;
use crate::policies::Source;
use crate::principal::Kind;

fn policies(text: &str) -> Policies {
    let source = Source {
        name: "p".into(),
        text: text.into(),
    };
    Policies::parse(&[source]).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn tool<'a>(name: &'a str, argument: serde_json::Value) -> ToolContext<'a> {
    ToolContext {
        namespace: "default",
        tool: name,
        workflow_type: "RefundAgent",
        workflow_id: "order-7",
        task_queue: "tools",
        initiator: "alice",
        initiator_method: "oidc",
        attempt: 1,
        attested: false,
        session_age_seconds: 60,
        tool_calls: [("refund".to_owned(), 2)].into(),
        arguments: Arguments::new([Argument::Json(argument)]),
        ..ToolContext::default()
    }
}

fn agent() -> Principal {
    Principal {
        kind: Kind::Agent,
        id: "default/RefundAgent".into(),
        groups: vec!["agents".into()],
        method: "internal".into(),
    }
}

fn call(policies: &Policies, tool: ToolContext<'_>) -> Decision {
    policies.decide(&Request {
        principal: &agent(),
        action: Action::execute_tool(),
        resource: Resource::Tool(Box::new(tool)),
    })
}

fn api(policies: &Policies, who: &Principal, action: &str, namespace: &str) -> Verdict {
    let decision = policies.decide(&Request {
        principal: who,
        action: Action::of(action).expect("is known"),
        resource: Resource::Namespace {
            name: namespace,
            workflow_id: "order-7",
            workflow_type: "",
            task_queue: "",
            attested: false,
        },
    });
    assert_eq!(decision.errors, Vec::<String>::new());
    decision.verdict
}

const REFUNDS: &str = r#"
permit(principal is Agent, action in Action::"command", resource in Namespace::"default");

@id("large-refunds")
@approval("required") @approvers("finance,risk") @quorum("2") @timeout("PT4H")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/refund")
unless { context.numbers.hasTag("/0/amount") && context.numbers.getTag("/0/amount") <= 1000 };

@id("no-deletions")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/delete");

@id("not-too-often")
forbid(principal, action == Action::"ExecuteTool", resource)
when { context.tool_calls.hasTag("refund") && context.tool_calls.getTag("refund") > 5 };
"#;

fn approval() -> Verdict {
    Verdict::NeedsApproval(Requirement {
        groups: vec!["finance".into(), "risk".into()],
        quorum: 2,
        timeout: Duration::from_secs(4 * 3600),
    })
}

#[test]
fn tool_calls_are_decided_by_their_arguments() {
    let policies = policies(REFUNDS);
    for (name, argument, verdict, by) in [
        ("search", json!({}), Verdict::Allow, "p#1"),
        ("refund", json!({"amount": 1000}), Verdict::Allow, "p#1"),
        (
            "refund",
            json!({"amount": 1001}),
            approval(),
            "large-refunds",
        ),
        // What cannot be read is not small.
        (
            "refund",
            json!({"amount": "12"}),
            approval(),
            "large-refunds",
        ),
        (
            "refund",
            json!({"amount": 1e3}),
            approval(),
            "large-refunds",
        ),
        ("refund", json!({}), approval(), "large-refunds"),
        ("delete", json!({}), Verdict::Deny, "no-deletions"),
    ] {
        let decision = call(&policies, tool(name, argument.clone()));
        assert_eq!(decision.verdict, verdict, "{name} {argument}");
        assert_eq!(decision.policies, [by], "{name} {argument}");
        assert_eq!(decision.errors, Vec::<String>::new());
    }
    let encrypted = ToolContext {
        arguments: Arguments::new([Argument::Opaque]),
        ..tool("refund", json!({}))
    };
    assert_eq!(call(&policies, encrypted).verdict, approval());
    let often = ToolContext {
        tool_calls: [("refund".to_owned(), 6)].into(),
        ..tool("refund", json!({"amount": 5000}))
    };
    let decision = call(&policies, often);
    assert_eq!(decision.verdict, Verdict::Deny, "a hard one wins");
    let elsewhere = ToolContext {
        namespace: "other",
        ..tool("refund", json!({"amount": 5000}))
    };
    let decision = call(&policies, elsewhere);
    assert_eq!(
        (decision.verdict, decision.policies),
        (Verdict::Deny, vec![])
    );
}

#[test]
fn all_that_a_policy_can_see_is_there() {
    let policies = policies(
        r#"permit(principal == Agent::"default/RefundAgent", action == Action::"ExecuteTool", resource)
        when {
            principal in Group::"agents" && resource in Server::"this" &&
            context.attempt == 1 && context.initiator == "alice" && context.initiator_method == "oidc" &&
            context.session_age_seconds == 60 && context.task_queue == "tools" &&
            context.workflow_id == "order-7" && context.workflow_type == "RefundAgent" &&
            context.opaque == false && context.unmapped.contains("/0/odd") &&
            context.texts.hasTag("/0/to") && context.texts.getTag("/0/to") like "a*" &&
            context.flags.hasTag("/0/ok") && context.flags.getTag("/0/ok") &&
            context.lists.hasTag("/0/tags") && context.lists.getTag("/0/tags").contains("x") &&
            context.decimals.hasTag("/0/rate") &&
            context.decimals.getTag("/0/rate").lessThan(decimal("1.5"))
        };"#,
    );
    let argument = json!({"to": "ann", "ok": true, "tags": ["x"], "rate": 1.25, "odd": 0.123456});
    let decision = call(&policies, tool("refund", argument));
    assert_eq!(decision.verdict, Verdict::Allow, "{decision:?}");
}

#[test]
fn what_is_not_permitted_cannot_be_approved() {
    let soft = r#"@approval("required") forbid(principal, action, resource);"#;
    let decision = call(&policies(soft), tool("refund", json!({})));
    assert_eq!(
        (decision.verdict, decision.policies),
        (Verdict::Deny, vec![])
    );
    let decision = call(&policies(""), tool("refund", json!({})));
    assert_eq!(decision.verdict, Verdict::Deny);
}

#[test]
fn soft_policies_add_up() {
    let text = r#"
        permit(principal, action, resource);
        @id("a") @approval("required") @approvers("risk") @quorum("3") @timeout("PT1H")
        forbid(principal, action == Action::"ExecuteTool", resource);
        @id("b") @approval("required") @approvers("board,finance") @timeout("PT2H")
        forbid(principal, action == Action::"ExecuteTool", resource);"#;
    let decision = call(&policies(text), tool("refund", json!({})));
    assert_eq!(decision.policies, ["a", "b"]);
    let requirement = Requirement {
        groups: vec!["board".into(), "finance".into(), "risk".into()],
        quorum: 3,
        timeout: Duration::from_secs(3600),
    };
    assert_eq!(decision.verdict, Verdict::NeedsApproval(requirement));
}

#[test]
fn a_forbid_that_cannot_be_evaluated_forbids() {
    // Adding to a count that is as large as can be.
    let error = "context.attempt + 9223372036854775807 > 0";
    let text = |effect: &str| {
        format!(
            "permit(principal, action, resource);
             @id(\"broken\") {effect}(principal, action == Action::\"ExecuteTool\", resource) when {{ {error} }};"
        )
    };
    let decision = call(&policies(&text("forbid")), tool("refund", json!({})));
    assert_eq!(decision.verdict, Verdict::Deny);
    assert_eq!(decision.policies, ["broken"]);
    assert_eq!(decision.errors.len(), 1);
    let decision = call(&policies(&text("permit")), tool("refund", json!({})));
    assert_eq!(
        decision.verdict,
        Verdict::Allow,
        "the other permit is enough"
    );
}

#[test]
fn calls_are_decided_by_groups_and_namespaces() {
    let policies = policies(
        r#"permit(principal in Group::"ops", action in Action::"read", resource in Server::"this");
           permit(principal == User::"bob", action == Action::"StartWorkflowExecution", resource == Namespace::"dev")
           when { context has workflow_id && context.workflow_id like "order-*" };
           forbid(principal is Unauthenticated, action, resource);"#,
    );
    let who = |kind, id: &str, groups: &[&str]| Principal {
        kind,
        id: id.into(),
        groups: groups.iter().map(|of| (*of).to_owned()).collect(),
        method: "oidc".into(),
    };
    let ops = who(Kind::User, "ann", &["ops", "ops"]);
    assert_eq!(
        api(&policies, &ops, "DescribeWorkflowExecution", "dev"),
        Verdict::Allow
    );
    assert_eq!(api(&policies, &ops, "ListNamespaces", ""), Verdict::Allow);
    assert_eq!(
        api(&policies, &ops, "StartWorkflowExecution", "dev"),
        Verdict::Deny
    );
    let bob = who(Kind::User, "bob", &[]);
    assert_eq!(
        api(&policies, &bob, "StartWorkflowExecution", "dev"),
        Verdict::Allow
    );
    assert_eq!(
        api(&policies, &bob, "StartWorkflowExecution", "prod"),
        Verdict::Deny
    );
    let impostor = who(Kind::Service, "bob", &[]);
    assert_eq!(
        api(&policies, &impostor, "StartWorkflowExecution", "dev"),
        Verdict::Deny
    );
    let nobody = who(Kind::Unauthenticated, "ann", &["ops"]);
    assert_eq!(api(&policies, &nobody, "ListNamespaces", ""), Verdict::Deny);
}

#[test]
fn other_commands_are_decided_by_what_they_are_about() {
    let policies = policies(
        r#"
        @id("all") permit(principal is Agent, action in Action::"command", resource in Namespace::"default");
        @id("pay") forbid(principal, action == Action::"StartChild", resource == Workflow::"default/Pay")
            unless { context.numbers.hasTag("/0/amount") && context.child_workflow_id like "pay-*" };
        @id("end") forbid(principal, action == Action::"StartChild", resource) when { context.terminates_running };
        @id("few") forbid(principal, action == Action::"StartChild", resource)
            when { context.children.hasTag("Pay") && context.children.getTag("Pay") > 5 };
        @id("holy") forbid(principal, action in [Action::"SignalExternal", Action::"CancelExternal"],
            resource == Session::"default/holy") unless { context.children_only };
        @id("stop") @approval("required") forbid(principal, action == Action::"SignalExternal", resource)
            when { context.signal_name == "stop" };
        @id("delete") forbid(principal, action in Action::"command", resource == Tool::"default/delete");
        @id("large") forbid(principal, action in Action::"command", resource)
            when { context.numbers.hasTag("/0/amount") && context.numbers.getTag("/0/amount") > 1000 };"#,
    );
    let asked = |command: Command, name: &'static str| {
        let mut of = tool(name, json!({"amount": 5}));
        (of.command, of.child_workflow_id, of.signal_name) = (command, "pay-7", "go");
        of
    };
    let decide = |of: ToolContext<'_>| {
        let decision = policies.decide(&Request {
            principal: &agent(),
            action: of.command.action(),
            resource: Resource::Tool(Box::new(of)),
        });
        assert_eq!(decision.errors, Vec::<String>::new());
        (decision.verdict, decision.policies.join(", "))
    };
    let denied = |by: &str| (Verdict::Deny, by.to_owned());
    let allowed = (Verdict::Allow, "all".to_owned());
    for command in Command::ALL {
        assert_eq!(decide(asked(command, "Pay")), allowed, "{command:?}");
        let elsewhere = ToolContext {
            namespace: "other",
            ..asked(command, "Pay")
        };
        assert_eq!(decide(elsewhere), denied(""));
        let large = ToolContext {
            arguments: Arguments::new([Argument::Json(json!({"amount": 5000}))]),
            ..asked(command, "Other")
        };
        assert_eq!(decide(large), denied("large"));
    }
    for (command, is_denied) in [
        (Command::Tool, true),
        (Command::Local, true),
        (Command::Child, false),
        (Command::Signal, false),
    ] {
        let verdict = decide(asked(command, "delete")).0;
        assert_eq!(verdict == Verdict::Deny, is_denied, "{command:?}");
    }
    let unnamed = ToolContext {
        child_workflow_id: "x",
        ..asked(Command::Child, "Pay")
    };
    assert_eq!(decide(unnamed), denied("pay"));
    let ending = ToolContext {
        terminates_running: true,
        ..asked(Command::Child, "Pay")
    };
    assert_eq!(decide(ending), denied("end"));
    let often = ToolContext {
        children: [("Pay".to_owned(), 6)].into(),
        ..asked(Command::Child, "Other")
    };
    assert_eq!(decide(often), denied("few"));
    for command in [Command::Signal, Command::Cancel] {
        assert_eq!(decide(asked(command, "holy")), denied("holy"));
        let own = ToolContext {
            children_only: true,
            ..asked(command, "holy")
        };
        assert_eq!(decide(own), allowed);
    }
    let stop = ToolContext {
        signal_name: "stop",
        ..asked(Command::Signal, "x")
    };
    assert!(matches!(decide(stop), (Verdict::NeedsApproval(_), by) if by == "stop"));
}

#[test]
fn names_are_names_whatever_is_in_them() {
    let policies = policies(
        r#"permit(principal, action, resource == Tool::"default/a\"b") when { context.workflow_id == "x" };"#,
    );
    let named = |tool_name| ToolContext {
        workflow_id: "x",
        ..tool(tool_name, json!({"a\"]": "\u{0}"}))
    };
    assert_eq!(call(&policies, named("a\"b")).verdict, Verdict::Allow);
    for name in ["", "a", "a\"b\" || true", "\u{0}", "::", "é"] {
        assert_eq!(
            call(&policies, named(name)).verdict,
            Verdict::Deny,
            "{name:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hard_forbid_always_wins(amount: i64, others in prop::sample::subsequence(vec![
        "permit(principal, action, resource);",
        "@approval(\"required\") forbid(principal, action, resource);",
        "@approval(\"required\") @quorum(\"5\") forbid(principal, action == Action::\"ExecuteTool\", resource);",
        "permit(principal, action in Action::\"command\", resource);",
    ], 0..4)) {
        let text = format!("{}\n@id(\"hard\") forbid(principal, action == Action::\"ExecuteTool\", resource);", others.join("\n"));
        let decision = call(&policies(&text), tool("refund", json!({"amount": amount})));
        assert_eq!(decision.verdict, Verdict::Deny);
        // And without it, nothing but a permit permits.
        let decision = call(&policies(&others.join("\n")), tool("refund", json!({"amount": amount})));
        let is_permitted = others.iter().any(|of| of.starts_with("permit"));
        assert_eq!(decision.verdict == Verdict::Deny, !is_permitted);
        let is_soft = others.iter().any(|of| of.starts_with("@approval"));
        assert_eq!(decision.verdict == Verdict::Allow, is_permitted && !is_soft);
    }
}

#[test]
fn policies_can_require_an_attestation() {
    let policies = policies(
        r#"permit(principal, action, resource);
           forbid(principal, action == Action::"StartWorkflowExecution", resource) unless { context.attested };
           forbid(principal, action == Action::"ExecuteTool", resource) unless { context.attested };"#,
    );
    for attested in [false, true] {
        let expected = match attested {
            true => Verdict::Allow,
            false => Verdict::Deny,
        };
        let called = ToolContext {
            attested,
            ..tool("refund", json!({}))
        };
        assert_eq!(call(&policies, called).verdict, expected);
        let start = |action| {
            let request = Request {
                principal: &agent(),
                action: Action::of(action).expect("is known"),
                resource: Resource::Namespace {
                    name: "default",
                    workflow_id: "order-7",
                    workflow_type: "RefundAgent",
                    task_queue: "",
                    attested,
                },
            };
            policies.decide(&request).verdict
        };
        assert_eq!(start("StartWorkflowExecution"), expected);
        assert_eq!(start("SignalWorkflowExecution"), Verdict::Allow);
    }
    // Other calls have no such thing: a policy that asks for it there is not valid.
    let wrong = r#"permit(principal, action == Action::"SignalWorkflowExecution", resource) when { context.attested };"#;
    let source = Source {
        name: "wrong.cedar".into(),
        text: wrong.into(),
    };
    assert!(Policies::parse(&[source]).is_err());
}
