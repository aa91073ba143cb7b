//! Decisions of policies: what is missing, about another call, or would be decided otherwise is found.

use std::io::Cursor;

use steadfast_ledger::Hash;
use steadfast_ledger::bundle::{
    AskedCall, Code, Judge, Judged, Limits, Report, Trust, Verdict, verify_with,
};
use steadfast_ledger::entry::DecisionItem;

use crate::world::{World, log_key};

const POLICIES: &[u8] = b"permit";

/// Requests are JSON strings: the arguments, a colon, and the answer; and a mark, if about another call.
struct Fake;

impl Fake {
    fn split(request: &str) -> Result<(String, String), String> {
        let text: String = serde_json::from_str(request).map_err(|error| error.to_string())?;
        let (arguments, answer) = text.split_once(':').ok_or("no colon")?;
        let answer = answer.trim_end_matches('!');
        Ok((arguments.to_owned(), answer.to_owned()))
    }
}

impl Judge for Fake {
    fn policies(&self, file: &[u8]) -> Result<Hash, String> {
        Ok(Hash::of(file))
    }

    fn decide(&self, policies: &Hash, request: &str) -> Result<Judged, String> {
        assert_eq!(*policies, Hash::of(POLICIES));
        let answer = match Self::split(request)?.1.as_str() {
            "allow" => "allow",
            _ => "deny",
        };
        let policies = vec!["p".to_owned()];
        Ok(Judged { answer, policies })
    }

    fn is_about(&self, request: &str, call: &AskedCall<'_>) -> Result<bool, String> {
        assert_eq!((call.kind, call.activity_type), ("", "refund"));
        Ok(!request.contains('!'))
    }

    fn arguments_of_request(&self, request: &str) -> Result<Hash, String> {
        Ok(Hash::of(Self::split(request)?.0.as_bytes()))
    }

    fn arguments_of_event(&self, event: &[u8]) -> Option<Hash> {
        // Its payload is `secret of <type> <id>`.
        let text = String::from_utf8_lossy(event).into_owned();
        let is_call = text.contains("secret of ACTIVITY_TASK_SCHEDULED 2");
        is_call.then(|| Hash::of(b"x"))
    }
}

/// A run whose event 2 is a call that policies decided.
fn world(asked: &[(u64, usize, &str)], policies: &[(Hash, &[u8])]) -> World {
    let mut world = World::default();
    world.step(
        "run",
        &["WORKFLOW_EXECUTION_STARTED", "ACTIVITY_TASK_SCHEDULED"],
        &|entry| {
            entry.decisions = vec![DecisionItem {
                activity_id: "1".into(),
                activity_type: "refund".into(),
                answer: "allow".into(),
                kind: "".into(),
                policies: vec!["p".into()],
                policy_hash: Hash::of(POLICIES),
                scheduled_event_id: 2,
            }];
        },
    );
    let asked = asked.iter();
    world.asked = asked
        .map(|(n, place, request)| ("run", *n, *place, format!("{request:?}")))
        .collect();
    let policies = policies.iter();
    world.policies = policies
        .map(|(hash, content)| (*hash, content.to_vec()))
        .collect();
    world
}

fn check(bundle: &[u8], judge: Option<&dyn Judge>) -> Report {
    let log = [log_key(1).verifier().clone()];
    let trust = Trust {
        log: &log,
        ..Trust::default()
    };
    verify_with(Cursor::new(bundle), &trust, &Limits::default(), judge)
}

#[test]
fn decisions_are_made_again() {
    let hash = Hash::of(POLICIES);
    let good = world(&[(1, 0, "x:allow")], &[(hash, POLICIES)]).session();
    let report = check(&good, Some(&Fake));
    assert_eq!(report.verdict, Verdict::Verified, "{report}");
    assert!(report.unchecked.is_empty());
    let report = check(&good, None);
    assert_eq!(report.verdict, Verdict::Verified, "{report}");
    assert_eq!(
        report.unchecked,
        ["whether the policies would decide the same again"]
    );
}

#[test]
fn what_is_wrong_with_decisions_is_found() {
    let hash = Hash::of(POLICIES);
    let right: (Hash, &[u8]) = (hash, POLICIES);
    for (asked, policies, code) in [
        (&[][..], vec![right], Code::DecisionMissing),
        (&[(1, 0, "x:allow")][..], vec![], Code::DecisionMissing),
        (&[(1, 0, "x:deny")][..], vec![right], Code::DecisionFalse),
        (&[(1, 0, "y:allow")][..], vec![right], Code::DecisionFalse),
        (&[(1, 0, "x")][..], vec![right], Code::DecisionFalse),
        (&[(1, 0, "x:allow!")][..], vec![right], Code::DecisionFalse),
        (&[(2, 0, "x:allow")][..], vec![right], Code::DecisionFalse),
        (
            &[(1, 0, "x:allow"), (1, 0, "x:allow")][..],
            vec![right],
            Code::DecisionFalse,
        ),
        (
            &[(1, 0, "x:allow")][..],
            vec![(hash, b"forbid")],
            Code::PoliciesAltered,
        ),
    ] {
        let bundle = world(asked, &policies).session();
        let report = check(&bundle, Some(&Fake));
        assert_eq!(report.verdict, Verdict::Failed, "{asked:?}");
        let found = report.findings.iter().any(|finding| finding.code == code);
        assert!(found, "{asked:?} {policies:?}: no {code} in {report}");
    }
}
