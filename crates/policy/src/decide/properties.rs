//! What holds for any policies and any requests.

use cedar_policy::{Authorizer, Decision as CedarDecision, PolicySet};
use proptest::prelude::{ProptestConfig, Strategy, any, prop, proptest};
use serde_json::{Value, json};

use super::*;
use crate::arguments::Argument;
use crate::policies::Source;
use crate::principal::Kind;

/// Policies of every kind of scope.
const POLICIES: [&str; 20] = [
    r#"permit(principal, action, resource);"#,
    r#"permit(principal is Agent, action in Action::"command", resource);"#,
    r#"permit(principal == User::"a", action, resource);"#,
    r#"permit(principal, action == Action::"QueryWorkflow", resource == Namespace::"a");"#,
    r#"permit(principal in Group::"a", action in [Action::"read", Action::"write"], resource in Server::"this");"#,
    r#"permit(principal == Agent::"a/", action == Action::"ExecuteTool", resource == Tool::"a/a") when { context.attempt < 3 };"#,
    r#"forbid(principal, action == Action::"ExecuteTool", resource == Tool::"a/b");"#,
    r#"forbid(principal == Agent::"a/", action == Action::"ExecuteTool", resource) when { context.opaque };"#,
    r#"forbid(principal == User::"b", action in Action::"read", resource in Namespace::"b");"#,
    r#"forbid(principal, action == Action::"StartWorkflowExecution", resource) unless { context has workflow_id };"#,
    r#"forbid(principal, action == Action::"ExecuteTool", resource) when { context.attempt + 9223372036854775807 > 0 };"#,
    r#"@approval("required") forbid(principal, action == Action::"ExecuteTool", resource == Tool::"b/a");"#,
    r#"@approval("required") forbid(principal, action, resource in Namespace::"b");"#,
    r#"forbid(principal, action in Action::"command", resource) when { context.numbers.hasTag("/0") && context.numbers.getTag("/0") > 5 };"#,
    r#"forbid(principal, action == Action::"StartChild", resource == Workflow::"a/a") when { context.children.hasTag("a") && context.children.getTag("a") > 5 };"#,
    r#"@approval("required") forbid(principal, action in [Action::"SignalExternal", Action::"CancelExternal"], resource == Session::"a/b") unless { context.children_only };"#,
    r#"forbid(principal, action == Action::"SignalExternal", resource) when { context.signal_name == "a" };"#,
    r#"forbid(principal, action, resource) when { action in Action::"read" };"#,
    r#"permit(principal is User in Group::"a", action, resource is Namespace) unless { action == Action::"GetSystemInfo" };"#,
    r#"forbid(principal, action == Action::"command", resource);"#,
];

const CALLS: [&str; 4] = [
    "QueryWorkflow",
    "StartWorkflowExecution",
    "TerminateWorkflowExecution",
    "GetSystemInfo",
];

fn parse(texts: &[&str]) -> (Policies, PolicySet) {
    let text = texts.join("\n");
    let source = Source {
        name: "p".into(),
        text: text.clone(),
    };
    let policies = Policies::parse(&[source]).unwrap_or_else(|problems| panic!("{problems:#?}"));
    (policies, text.parse().expect("parses"))
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = proptest::prop_oneof![
        any::<()>().prop_map(|()| Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|of| json!(of)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        proptest::prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|of| Value::Object(of.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Looking at some policies only is the same as looking at all.
    #[test]
    fn policies_that_are_not_looked_at_would_not_matter(
        texts in prop::sample::subsequence(POLICIES.to_vec(), 0..POLICIES.len()),
        call in prop::sample::select(CALLS.to_vec()),
        command in prop::option::of(prop::sample::select(Command::ALL.to_vec())),
        id in "[ab]", namespace in "[ab]", tool in "[ab]", group in "[ab]", number in 0_i64..9,
    ) {
        let (policies, whole) = parse(&texts);
        let is_tool = command.is_some();
        let principal = Principal {
            kind: if is_tool { Kind::Agent } else { Kind::User },
            id: if is_tool { format!("{id}/") } else { id },
            groups: vec![group],
            method: "oidc".into(),
        };
        let request = Request {
            principal: &principal,
            action: command.map_or_else(|| Action::of(call).expect("is known"), Command::action),
            resource: if let Some(command) = command {
                Resource::Tool(Box::new(ToolContext {
                    command,
                    children: [(tool.clone(), number)].into(),
                    namespace: &namespace,
                    tool: &tool,
                    arguments: Arguments::new([Argument::Json(json!(number))]),
                    ..ToolContext::default()
                }))
            } else {
                Resource::Namespace { name: &namespace, workflow_id: "", workflow_type: "", task_queue: "", attested: false }
            },
        };
        let facts = Facts::new(&request, Some(&policies)).expect("are facts");
        // Cedar itself, with all facts, whether policies read them or not.
        let all = Facts::new(&request, None).expect("are facts");
        let response = Authorizer::new().is_authorized(&all.request, &whole, &all.entities);
        let answer = facts.ask(&policies.about(request.action).all);
        assert_eq!(answer.is_allowed(), response.decision() == CedarDecision::Allow);
        assert_eq!(answer.reasons.len(), response.diagnostics().reason().count());
        assert_eq!(answer.errors.len(), response.diagnostics().errors().count());
        // So is deciding again by the record, with all arguments.
        let recorded = crate::Recorded::new(&request).expect("is recorded");
        let again = policies.decide_recorded(&recorded).expect("is decided");
        assert_eq!(again, policies.decide(&request));
    }

    #[test]
    fn no_text_is_too_odd_for_policies(text: String, name: String) {
        let _ = Policies::parse(&[Source { name, text }]);
    }

    #[test]
    fn no_broken_policies_are_too_odd(
        texts in prop::sample::subsequence(POLICIES.to_vec(), 1..4),
        cut in any::<prop::sample::Index>(), other: char,
    ) {
        let mut text = texts.join("\n");
        let at = cut.index(text.len());
        text.replace_range(at..=at, &other.to_string());
        let _ = Policies::parse(&[Source { name: "p".into(), text }]);
    }

    #[test]
    fn no_arguments_and_names_are_too_odd(
        arguments in prop::collection::vec(json(), 0..3),
        namespace: String, tool: String, workflow_id: String, id: String, group: String,
    ) {
        let (policies, _) = parse(&[POLICIES[0], POLICIES[13]]);
        let principal = Principal { kind: Kind::Agent, id, groups: vec![group], ..Principal::default() };
        let decision = policies.decide(&Request {
            principal: &principal,
            action: Action::execute_tool(),
            resource: Resource::Tool(Box::new(ToolContext {
                namespace: &namespace,
                tool: &tool,
                workflow_id: &workflow_id,
                arguments: Arguments::new(arguments.into_iter().map(Argument::Json)),
                ..ToolContext::default()
            })),
        });
        assert_eq!(decision.errors, Vec::<String>::new());
        let decision = policies.decide(&Request {
            principal: &principal,
            action: Action::of("QueryWorkflow").expect("is known"),
            resource: Resource::Namespace {
                name: &namespace,
                workflow_id: &workflow_id,
                workflow_type: &tool,
                task_queue: &tool,
                attested: false,
            },
        });
        assert_eq!(decision.verdict, Verdict::Allow);
    }
}
