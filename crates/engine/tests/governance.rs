//! What policies decide about tool calls, and approvals.
#![allow(clippy::unwrap_used)]

mod driver;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use driver::{Driver, answer};
use steadfast_engine::activity::{ActivityClaim, Outcome};
use steadfast_engine::approval::{Ballot, Voted, WhichCall};
use steadfast_engine::commands::Completion;
use steadfast_engine::governance::{Call, Governor, Reasons, Requirement, Ruling};
use steadfast_engine::proto::command::{
    Command, RequestCancelActivityTaskCommandAttributes, ScheduleActivityTaskCommandAttributes,
    command::Attributes as C,
};
use steadfast_engine::proto::common::{ActivityType, Payload, Payloads};
use steadfast_engine::proto::enums::{CommandType, EventType};
use steadfast_engine::proto::failure::failure::FailureInfo;
use steadfast_engine::proto::history::history_event::Attributes;
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::record::{Cause, Decision, StepKind, Verdict};
use steadfast_engine::signal::Signal;
use steadfast_engine::state::Approval;
use steadfast_engine::time::{SECOND, duration};
use steadfast_engine::workflow_task::Poller;
use steadfast_engine::{Effect, Error};

/// Rules as it is told.
#[derive(Default)]
struct Rules(Mutex<Option<Ruling>>, AtomicBool);

impl Rules {
    fn set(&self, ruling: Ruling) {
        *self.0.lock().unwrap() = Some(ruling);
    }
}

impl Governor for Rules {
    fn policy_hash(&self) -> &[u8] {
        match self.1.load(Ordering::Relaxed) {
            false => &[7; 32],
            true => &[8; 32],
        }
    }

    fn decide(&self, call: &Call<'_>) -> Ruling {
        assert_eq!(call.namespace, "default");
        assert_eq!(call.command.id(), "tool");
        self.0.lock().unwrap().clone().unwrap_or(Ruling::Free)
    }
}

fn reasons() -> Reasons {
    Reasons {
        policies: vec!["refunds".into()],
        policy_hash: vec![7; 32],
    }
}

/// Two people, of two groups, within an hour.
fn two_people() -> Ruling {
    let requirement = Requirement {
        groups: vec!["finance".into(), "risk".into()],
        quorum: 2,
        timeout: 3600 * SECOND,
    };
    Ruling::Approval(reasons(), requirement)
}

fn by(principal: &str) -> Cause {
    Cause {
        call: "Test".into(),
        principal: principal.into(),
        authentication: "oidc".into(),
    }
}

/// A session that alice started, whose agent calls a tool.
fn calling(ruling: Ruling, eager: bool) -> (Driver, Arc<Rules>) {
    let rules = Arc::new(Rules::default());
    rules.set(ruling);
    let mut run = Driver::start_by(by("alice"), |_| ());
    run.governor = Some(rules.clone());
    run.cause = by("worker");
    run.take_task();
    let command = ScheduleActivityTaskCommandAttributes {
        activity_id: "tool".into(),
        activity_type: Some(ActivityType {
            name: "refund".into(),
        }),
        task_queue: Some(TaskQueue {
            name: "tools".into(),
            ..Default::default()
        }),
        input: Some(amount("1200")),
        schedule_to_close_timeout: Some(duration(60 * SECOND)),
        request_eager_execution: eager,
        ..Default::default()
    };
    let claim = run.claim();
    let mut request = answer();
    request.commands.push(Command {
        command_type: CommandType::ScheduleActivityTask as i32,
        attributes: Some(C::ScheduleActivityTaskCommandAttributes(command)),
        ..Default::default()
    });
    let worker = Poller {
        identity: "worker".into(),
        ..Poller::default()
    };
    let done = run
        .step(|run, cx| run.complete_workflow_task(cx, &claim, request, Some(&worker), None))
        .unwrap();
    let Completion::Done(done) = done else {
        panic!("it breaks no rule");
    };
    let may_start = matches!(
        run_approval(&run),
        None | Some(Approval { released: 1.., .. })
    ) && run.run.state.activities.contains_key(&5);
    assert_eq!(
        done.eager_activities,
        if eager && may_start { vec![5] } else { vec![] }
    );
    (run, rules)
}

fn signal(run: &mut Driver) {
    let signal = Signal {
        name: "go on".into(),
        ..Signal::default()
    };
    run.step(|run, cx| run.signal(cx, signal)).unwrap();
}

fn amount(amount: &str) -> Payloads {
    Payloads {
        payloads: vec![Payload {
            metadata: [
                ("encoding".to_owned(), b"json/plain".to_vec()),
                ("other".to_owned(), b"x".to_vec()),
            ]
            .into(),
            data: amount.into(),
            ..Payload::default()
        }],
    }
}

fn run_approval(run: &Driver) -> Option<&Approval> {
    run.run.state.activities.get(&5)?.approval.as_ref()
}

fn digest(run: &Driver) -> Vec<u8> {
    run_approval(run).unwrap().digest.clone()
}

fn vote(run: &mut Driver, who: &str, groups: &[&str], approves: bool) -> Result<Voted, Error> {
    let digest = digest(run);
    vote_on(run, &digest, who, groups, approves)
}

fn vote_on(
    run: &mut Driver,
    digest: &[u8],
    who: &str,
    groups: &[&str],
    approves: bool,
) -> Result<Voted, Error> {
    let ballot = Ballot {
        principal: who.into(),
        authentication: "oidc".into(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        approves,
        comment: "because".into(),
    };
    run.cause = by(who);
    let which = WhichCall::Activity("tool".into());
    run.step(|run, cx| run.vote(cx, &which, digest, ballot))
}

fn is_offered(run: &Driver) -> bool {
    let is_it = |effect: &Effect| {
        matches!(
            effect,
            Effect::ActivityTask {
                scheduled_event_id: 5,
                ..
            }
        )
    };
    assert_eq!(
        run.run.waiting_tasks().iter().any(is_it),
        run.effects.iter().any(is_it)
    );
    run.effects.iter().any(is_it)
}

fn start(run: &mut Driver) -> Result<(), Error> {
    let poller = Poller {
        identity: "worker".into(),
        request_id: "hand-out".into(),
        ..Poller::default()
    };
    run.cause = by("worker");
    run.step(|run, cx| run.start_activity(cx, 5, 1, &poller))
}

fn types(run: &Driver) -> Vec<EventType> {
    let own = run.own_events.iter().filter(|event| event.event_id > 4);
    own.map(|event| event.event_type()).collect()
}

const REFUSED: [EventType; 4] = [
    EventType::ActivityTaskScheduled,
    EventType::ActivityTaskStarted,
    EventType::ActivityTaskFailed,
    EventType::WorkflowTaskScheduled,
];

/// Asserts that the tool call was refused, in events that SDKs take; gives type and message.
fn refusal(run: &Driver) -> (String, String) {
    assert_eq!(types(run), REFUSED);
    let of = |at: usize| &run.own_events[run.own_events.len() - at];
    assert!(
        [2, 3].iter().all(|at| of(*at).principal.is_none()),
        "nobody did it but the server"
    );
    let (started, failed) = match (&of(3).attributes, &of(2).attributes) {
        (
            Some(Attributes::ActivityTaskStartedEventAttributes(started)),
            Some(Attributes::ActivityTaskFailedEventAttributes(failed)),
        ) => (started, failed),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (started.scheduled_event_id, started.identity.as_str()),
        (5, "steadfast")
    );
    assert_eq!((failed.scheduled_event_id, failed.started_event_id), (5, 6));
    let failure = failed.failure.as_ref().unwrap();
    let Some(FailureInfo::ApplicationFailureInfo(info)) = &failure.failure_info else {
        panic!("{failure:?}");
    };
    assert!(info.non_retryable);
    assert!(run.run.state.activities.is_empty());
    (info.r#type.clone(), failure.message.clone())
}

fn decisions(run: &Driver) -> Vec<Verdict> {
    let steps = run.records.iter().flat_map(|record| &record.steps);
    let decisions = steps.filter_map(|step| match &step.kind {
        Some(StepKind::Decision(decision)) => Some(decision),
        _ => None,
    });
    decisions
        .map(|decision: &Decision| {
            assert_eq!(decision.policies, ["refunds"]);
            assert_eq!(decision.policy_hash, [7; 32]);
            decision.verdict()
        })
        .collect()
}

#[test]
fn what_nothing_governs_leaves_no_trace() {
    let (mut run, _) = calling(Ruling::Free, false);
    assert!(is_offered(&run));
    start(&mut run).unwrap();
    assert!(decisions(&run).is_empty() && run_approval(&run).is_none());
}

#[test]
fn what_is_allowed_is_recorded_at_scheduling_and_at_dispatch() {
    let (mut run, _) = calling(Ruling::Allow(reasons()), false);
    assert!(is_offered(&run));
    start(&mut run).unwrap();
    assert_eq!(decisions(&run), [Verdict::Allow; 2]);
}

#[test]
fn what_is_handed_out_as_it_is_scheduled_is_decided_once() {
    let (mut run, rules) = calling(Ruling::Allow(reasons()), true);
    assert_eq!(decisions(&run), [Verdict::Allow]);
    // Its next attempt is decided for itself.
    let claim = run.run.activity_by_id("tool").unwrap();
    let failed = Outcome::Failed(Some(driver::failure("no")), None);
    run.step(|run, cx| run.end_activity(cx, &claim, failed, "worker".into()))
        .unwrap();
    run.now += 10 * SECOND;
    run.step(|run, cx| run.wake(cx));
    rules.set(Ruling::Deny(reasons()));
    let poller = Poller {
        identity: "worker".into(),
        request_id: "second".into(),
        ..Poller::default()
    };
    let started = run.step(|run, cx| run.start_activity(cx, 5, 2, &poller));
    assert!(started.is_err(), "the second attempt is refused");
    assert_eq!(decisions(&run), [Verdict::Allow, Verdict::Deny]);
}

#[test]
fn what_is_denied_fails_at_once() {
    for eager in [false, true] {
        let (run, _) = calling(Ruling::Deny(reasons()), eager);
        let (kind, message) = refusal(&run);
        assert_eq!(kind, "PolicyDenied");
        assert_eq!(message, "refused by policy refunds");
        assert_eq!(decisions(&run), [Verdict::Deny]);
        assert!(!is_offered(&run));
    }
}

#[test]
fn a_policy_that_changes_binds_what_is_scheduled() {
    let (mut run, rules) = calling(Ruling::Allow(reasons()), false);
    rules.set(Ruling::Deny(reasons()));
    assert!(matches!(start(&mut run), Err(Error::NotFound(_))));
    assert_eq!(refusal(&run).0, "PolicyDenied");
    assert_eq!(decisions(&run), [Verdict::Allow, Verdict::Deny]);

    let (mut run, rules) = calling(Ruling::Free, false);
    rules.set(two_people());
    assert!(matches!(start(&mut run), Err(Error::NotFound(_))));
    assert!(run_approval(&run).unwrap().is_open() && !is_offered(&run));
}

#[test]
fn two_people_of_two_groups_release_a_call() {
    for eager in [false, true] {
        let (mut run, _) = calling(two_people(), eager);
        assert!(!is_offered(&run) && start(&mut run).is_err());
        assert_eq!(
            vote(&mut run, "bob", &["finance"], true),
            Ok(Voted::Waiting)
        );
        run.restart();
        assert!(!is_offered(&run) && start(&mut run).is_err());
        assert_eq!(
            vote(&mut run, "carol", &["risk"], true),
            Ok(Voted::Released)
        );
        assert!(is_offered(&run));
        let released = run.now;
        run.restart();
        start(&mut run).unwrap();
        let votes = &run_approval(&run).unwrap().votes;
        let who: Vec<_> = votes.iter().map(|vote| vote.principal.as_str()).collect();
        assert_eq!(who, ["bob", "carol"]);
        // Its time-outs start with the release.
        let wake = run.run.next_wake();
        assert_eq!(wake, Some(released + 60 * SECOND));
    }
}

#[test]
fn votes_that_do_not_count() {
    let (mut run, _) = calling(two_people(), false);
    let refused = |result: Result<Voted, Error>| matches!(result, Err(Error::PermissionDenied(_)));
    assert!(
        refused(vote(&mut run, "alice", &["finance"], true)),
        "alice started it"
    );
    assert!(
        refused(vote(&mut run, "bob", &["sales"], true)),
        "in no group"
    );
    assert!(refused(vote(&mut run, "", &["finance"], true)), "nobody");
    assert!(run_approval(&run).unwrap().votes.is_empty());
    vote(&mut run, "bob", &["finance"], true).unwrap();
    let again = vote(&mut run, "bob", &["risk"], true);
    assert!(matches!(again, Err(Error::FailedPrecondition(_))));
    // Enough people, and nobody of the other group.
    assert_eq!(
        vote(&mut run, "dan", &["finance"], true),
        Ok(Voted::Waiting)
    );
    assert_eq!(
        vote(&mut run, "carol", &["risk"], true),
        Ok(Voted::Released)
    );
    let late = vote(&mut run, "erin", &["risk"], false);
    assert!(matches!(late, Err(Error::NotFound(_))));
}

#[test]
fn one_person_of_both_groups_is_one_person() {
    let (mut run, _) = calling(two_people(), false);
    let both = ["finance", "risk"];
    assert_eq!(vote(&mut run, "bob", &both, true), Ok(Voted::Waiting));
    assert_eq!(
        vote(&mut run, "carol", &["finance"], true),
        Ok(Voted::Released)
    );
}

#[test]
fn an_approval_is_for_one_call() {
    let (mut run, _) = calling(two_people(), false);
    let digest = digest(&run);
    let other = vote_on(&mut run, &[0; 32], "bob", &["finance"], true);
    assert!(matches!(other, Err(Error::FailedPrecondition(_))));
    let activity = run.run.state.activities[&5].clone();
    let state = &run.run.state;
    let of = |change: &dyn Fn(&mut ScheduledOf)| {
        let mut changed = activity.clone();
        change(changed.scheduled.as_mut().unwrap());
        steadfast_engine::call::Command::Tool(&changed)
            .digest(state, 5)
            .to_vec()
    };
    // Metadata has no order in memory: the digest has.
    for _ in 0..8 {
        assert_eq!(of(&|_| ()), digest);
        assert_eq!(of(&|of| of.input = Some(amount("1200"))), digest);
    }
    assert_ne!(of(&|of| of.input = Some(amount("1201"))), digest);
    assert_ne!(of(&|of| of.input = None), digest);
    assert_ne!(of(&|of| of.activity_id = "tool2".into()), digest);
    assert_ne!(of(&|of| of.activity_type = None), digest);
}

type ScheduledOf = steadfast_engine::proto::history::ActivityTaskScheduledEventAttributes;

#[test]
fn one_person_can_deny() {
    let (mut run, _) = calling(two_people(), false);
    vote(&mut run, "bob", &["finance"], true).unwrap();
    assert_eq!(
        vote(&mut run, "carol", &["risk"], false),
        Ok(Voted::Refused)
    );
    let (kind, message) = refusal(&run);
    assert_eq!(kind, "ApprovalDenied");
    assert_eq!(message, "carol denied this tool call: because");
}

#[test]
fn what_nobody_decides_expires() {
    let (mut run, _) = calling(two_people(), false);
    let expires = run.now + 3600 * SECOND;
    assert_eq!(run.run.next_wake(), Some(expires), "its own time-outs wait");
    run.now = expires - 2 * SECOND;
    run.step(|run, cx| run.wake(cx));
    assert!(run_approval(&run).is_some());
    run.cause = Cause::default();
    run.step(|run, cx| run.wake(cx));
    assert_eq!(refusal(&run).0, "ApprovalExpired");
}

#[test]
fn a_call_that_waits_can_be_cancelled_and_not_completed() {
    let (mut run, _) = calling(two_people(), false);
    let claim = run.run.activity_by_id("tool").unwrap();
    assert_eq!(
        claim,
        ActivityClaim {
            scheduled_event_id: 5,
            attempt: 1,
            request_id: String::new()
        }
    );
    let ended =
        run.step(|run, cx| run.end_activity(cx, &claim, Outcome::Completed(None), "x".into()));
    assert!(matches!(ended, Err(Error::FailedPrecondition(_))));
    signal(&mut run);
    run.take_task();
    let mut request = answer();
    request.commands.push(Command {
        command_type: CommandType::RequestCancelActivityTask as i32,
        attributes: Some(C::RequestCancelActivityTaskCommandAttributes(
            RequestCancelActivityTaskCommandAttributes {
                scheduled_event_id: 5,
            },
        )),
        ..Default::default()
    });
    run.complete(request);
    assert!(run.run.state.activities.is_empty());
    assert!(types(&run).contains(&EventType::ActivityTaskCanceled));
}

#[test]
fn a_refusal_waits_for_the_task_that_is_under_way() {
    let (mut run, _) = calling(two_people(), false);
    signal(&mut run);
    run.take_task();
    assert_eq!(vote(&mut run, "bob", &["risk"], false), Ok(Voted::Refused));
    assert!(!types(&run).contains(&EventType::ActivityTaskFailed));
    run.complete(answer());
    let end = types(&run);
    let end = &end[end.len() - 3..];
    assert_eq!(end, &REFUSED[1..]);
}

#[test]
fn a_requirement_that_grows_keeps_votes_and_gives_no_more_time() {
    let (mut run, rules) = calling(two_people(), false);
    vote(&mut run, "bob", &["finance"], true).unwrap();
    let expires = run_approval(&run).unwrap().expires;
    let requirement = Requirement {
        groups: vec!["finance".into(), "board".into()],
        quorum: 3,
        timeout: 7200 * SECOND,
    };
    rules.set(Ruling::Approval(reasons(), requirement));
    assert_eq!(
        vote(&mut run, "carol", &["risk", "finance"], true),
        Ok(Voted::Waiting)
    );
    let approval = run_approval(&run).unwrap();
    assert_eq!((approval.quorum, approval.votes.len()), (3, 2));
    assert_eq!(approval.expires, expires);
    // And if nothing is asked for any more, the next vote shows it.
    rules.set(Ruling::Allow(reasons()));
    assert_eq!(vote(&mut run, "dan", &["board"], true), Ok(Voted::Released));
    assert!(is_offered(&run));
}

#[test]
fn other_policies_decide_what_waits_again() {
    let other = || Reasons {
        policy_hash: vec![8; 32],
        ..reasons()
    };
    let again = |run: &mut Driver| run.step(|run, cx| run.decide_again(cx));
    let table = [
        (Ruling::Free, "goes on"),
        (Ruling::Allow(other()), "goes on"),
        (Ruling::Deny(other()), "refused"),
        (two_people(), "waits"),
    ];
    for (ruling, end) in table {
        let (mut run, rules) = calling(two_people(), false);
        vote(&mut run, "bob", &["finance"], true).unwrap();
        let records = run.records.len();
        again(&mut run);
        assert_eq!(run.records.len(), records, "by the same policies");
        rules.set(ruling);
        rules.1.store(true, Ordering::Relaxed);
        again(&mut run);
        assert_eq!(is_offered(&run), end == "goes on");
        run.restart();
        match run_approval(&run) {
            None => assert_eq!((refusal(&run).0.as_str(), end), ("PolicyDenied", "refused")),
            Some(approval) => {
                assert_eq!(approval.is_open(), end == "waits");
                assert_eq!(approval.votes.len(), 1, "votes are kept");
            }
        }
    }
    // One vote is enough now.
    let (mut run, rules) = calling(two_people(), false);
    vote(&mut run, "bob", &["finance"], true).unwrap();
    let requirement = Requirement {
        quorum: 1,
        timeout: 3600 * SECOND,
        ..Requirement::default()
    };
    rules.set(Ruling::Approval(other(), requirement));
    rules.1.store(true, Ordering::Relaxed);
    again(&mut run);
    assert!(is_offered(&run));
}
