use serde_json::{Value, json};
use steadfast_engine::proto::common::Principal as Initiator;
use steadfast_policy::Source;
use steadfast_runtime::access::Held;

use super::*;

const POLICIES: &str = r#"
@id("agents") permit(principal is Agent, action in Action::"command", resource);
@id("refunds") @approval("required") @quorum("1") @timeout("PT1H")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/refund")
unless { context.numbers.hasTag("/0/amount") && context.numbers.getTag("/0/amount") < 100 };
@id("reports") forbid(principal == Agent::"default/Report", action, resource == Tool::"default/refund");
@id("bob") forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/delete")
when { context.initiator != "bob" };
@id("thrice") forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/look_up")
when { context.tool_calls.hasTag("look_up") && context.tool_calls.getTag("look_up") >= 3 };
"#;

const SECONDS: i64 = 1_800_000_000;

fn policies() -> Policies {
    let source = Source {
        name: "p".into(),
        text: POLICIES.into(),
    };
    Policies::parse(&[source]).expect("are valid")
}

fn session(id: &str, workflow_type: &str, who: &str, calls: &[(&str, u64)]) -> Session {
    let calls = calls.iter().map(|(tool, made)| {
        let calls = Calls {
            made: *made,
            refused: 0,
            last: SECONDS * SECOND,
        };
        (("tool", (*tool).to_owned()), calls)
    });
    let calls: BTreeMap<Callee, Calls> = calls.collect();
    let decided = calls
        .iter()
        .map(|((_, tool), of)| (tool.clone(), of.made as i64));
    Session {
        workflow_id: id.into(),
        workflow_type: workflow_type.into(),
        initiator: Some(Initiator {
            name: who.into(),
            r#type: "oidc".into(),
        }),
        started: SECONDS * SECOND,
        tool_calls: decided.collect(),
        credentials: vec![Held {
            id: format!("of-{id}"),
            audience: "https://pay.example".into(),
            expires: (SECONDS + 900) * SECOND,
            tool: "refund".into(),
            activity_id: "1".into(),
            attempt: 1,
        }],
        calls,
        is_complete: true,
        ..Session::default()
    }
}

fn seen(sessions: Vec<Session>) -> Vec<Seen> {
    let mut listed: BTreeMap<String, u64> = BTreeMap::new();
    for session in &sessions {
        *listed.entry(session.workflow_type.clone()).or_default() += 1;
    }
    vec![Seen {
        namespace: "default".into(),
        found: Found {
            sessions,
            listed,
            is_complete: true,
        },
    }]
}

fn may(calls: &Value) -> Value {
    let calls = calls.as_array().expect("a list").iter();
    let may = calls.map(|of| {
        (
            of["name"].as_str().expect("a name").to_owned(),
            of["may"].clone(),
        )
    });
    Value::Object(may.collect())
}

#[test]
fn a_view_says_what_each_session_may_do_and_did() {
    let sessions = vec![
        session("one", "Refund", "alice", &[("look_up", 3), ("refund", 1)]),
        session("two", "Report", "bob", &[("look_up", 1)]),
    ];
    let policies = policies();
    let now = (SECONDS + 60) * SECOND;
    let view = serde_json::to_value(view(seen(sessions), Some(&policies), now)).expect("JSON");
    let of = |id: &str| {
        let mut sessions = view["sessions"].as_array().expect("a list").iter();
        sessions
            .find(|of| of["workflowId"] == id)
            .expect("there")
            .clone()
    };
    let (one, two) = (of("one"), of("two"));
    assert_eq!(
        may(&one["calls"]),
        json!({"delete": "deny", "look_up": "deny", "refund": "approval"})
    );
    assert_eq!(
        may(&two["calls"]),
        json!({"delete": "allow", "look_up": "allow", "refund": "deny"})
    );
    assert_eq!(one["calls"][2]["byArguments"], json!(["refunds"]));
    assert_eq!(one["runsAs"], "default/Refund");
    assert_eq!(one["credentials"][0]["audience"], "https://pay.example");
    let principals = view["principals"].as_array().expect("a list").iter();
    let names: Vec<_> = principals
        .map(|of| of["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["alice", "bob", "default/Refund", "default/Report"]);
    let alice = &view["principals"][0];
    assert_eq!(alice["mayCall"], json!(["refund"]));
    assert_eq!(alice["called"], json!(["look_up", "refund"]));
    assert_eq!(alice["credentialsUntil"], one["credentials"][0]["expires"]);
    assert_eq!(view["isComplete"], true);
}

#[test]
fn what_is_granted_and_not_used_is_told_by_type() {
    let sessions = vec![
        session("one", "Refund", "alice", &[("look_up", 3)]),
        session("two", "Refund", "bob", &[("look_up", 1)]),
        session("three", "Report", "alice", &[("look_up", 1)]),
    ];
    let policies = policies();
    let now = (SECONDS + 60) * SECOND;
    let report = unused(seen(sessions), Some(&policies), now, (0, now));
    let report = serde_json::to_value(report).expect("JSON");
    let [refund, other] = &report["types"].as_array().expect("a list")[..] else {
        panic!("{report}");
    };
    // Bob's may; what was counted in one session does not count in the next.
    assert_eq!(
        may(&refund["unused"]),
        json!({"delete": "allow", "refund": "approval"})
    );
    assert_eq!(may(&refund["used"]), json!({"look_up": "allow"}));
    assert_eq!(
        (&refund["read"], &refund["used"][0]["calls"]),
        (&json!(2), &json!(4))
    );
    assert_eq!(may(&other["unused"]), json!({}));
}

#[test]
fn without_policies_everything_may_be_called() {
    let sessions = vec![session("one", "Refund", "alice", &[("look_up", 3)])];
    let view = serde_json::to_value(view(seen(sessions), None, 0)).expect("JSON");
    assert_eq!(view["policies"], Value::Null);
    assert_eq!(
        may(&view["sessions"][0]["calls"]),
        json!({"look_up": "allow"})
    );
}
