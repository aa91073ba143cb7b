//! What policies decide about children and about what is sent to other workflows, and approvals of these.
#![allow(clippy::unwrap_used)]

mod driver;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use driver::Driver;
use driver::family::{
    IntoCommand, Looks, cancel_command, child_command, closed_by, complete, completed, payloads,
    signal_command, workflow_type,
};
use prost::Message;
use steadfast_engine::approval::{Ballot, Voted, WhichCall};
use steadfast_engine::call::Command;
use steadfast_engine::commands::Completion;
use steadfast_engine::governance::{Call, Governor, Reasons, Requirement, Ruling};
use steadfast_engine::proto::command::{
    ContinueAsNewWorkflowExecutionCommandAttributes, RecordMarkerCommandAttributes,
    command::Attributes as C,
};
use steadfast_engine::proto::enums::{
    EventType, WorkflowExecutionStatus, WorkflowIdReusePolicy, WorkflowTaskFailedCause,
};
use steadfast_engine::proto::failure::failure::FailureInfo;
use steadfast_engine::proto::history::history_event::Attributes as A;
use steadfast_engine::proto::workflowservice::ResetWorkflowExecutionRequest;
use steadfast_engine::record::{ActivityApproval, CallKind, Cause, Decision, StepKind, Verdict};
use steadfast_engine::reset::{ResetPlan, reset};
use steadfast_engine::state::{Approval, Branch, Delivery};
use steadfast_engine::time::SECOND;
use steadfast_engine::{Effect, Error};

const HOUR: i64 = 3600 * SECOND;

/// Rules as it is told, by kind. It notes what it was asked.
#[derive(Default)]
struct Rules {
    rulings: Mutex<BTreeMap<&'static str, Ruling>>,
    other_policies: Mutex<bool>,
    children_before: Mutex<Vec<i64>>,
}

impl Rules {
    fn set(&self, kind: CallKind, ruling: Ruling) {
        self.rulings.lock().unwrap().insert(kind.name(), ruling);
    }
}

impl Governor for Rules {
    fn policy_hash(&self) -> &[u8] {
        match *self.other_policies.lock().unwrap() {
            false => &[7; 32],
            true => &[8; 32],
        }
    }

    fn decide(&self, call: &Call<'_>) -> Ruling {
        let kind = call.command.kind();
        if kind == CallKind::Child {
            let before = call.earlier_children();
            let before = before.get("Child").copied().unwrap_or(0);
            self.children_before.lock().unwrap().push(before);
        }
        let rulings = self.rulings.lock().unwrap();
        rulings.get(kind.name()).cloned().unwrap_or(Ruling::Free)
    }
}

fn reasons() -> Reasons {
    Reasons {
        policies: vec!["no-more".into()],
        policy_hash: vec![7; 32],
    }
}

fn deny() -> Ruling {
    Ruling::Deny(reasons())
}

/// Two people, one of them of finance, within an hour.
fn two_people() -> Ruling {
    let requirement = Requirement {
        groups: vec!["finance".into()],
        quorum: 2,
        timeout: HOUR,
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

/// A session that alice started, whose agent does this as its fifth event.
fn doing(kind: CallKind, ruling: Ruling) -> (Driver, Arc<Rules>) {
    let rules = Arc::new(Rules::default());
    rules.set(kind, ruling);
    let mut run = Driver::start_by(by("alice"), |_| ());
    run.governor = Some(rules.clone());
    run.cause = by("worker");
    run.command(vec![command(kind)]);
    (run, rules)
}

fn command(kind: CallKind) -> C {
    match kind {
        CallKind::Child => child_command("child").into_command(),
        CallKind::Signal => signal_command("other", "").into_command(),
        CallKind::Cancel => cancel_command("other", "").into_command(),
        kind => panic!("{kind:?}"),
    }
}

const MESSAGES: [CallKind; 3] = [CallKind::Child, CallKind::Signal, CallKind::Cancel];

fn delivery(kind: CallKind) -> Delivery {
    match kind {
        CallKind::Child => Delivery::StartChild(5),
        CallKind::Signal => Delivery::Signal(5),
        _ => Delivery::Cancel(5),
    }
}

fn approval(run: &Driver) -> Option<Approval> {
    run.run.state.command(5)?.approval().cloned()
}

fn vote(run: &mut Driver, who: &str, group: &str, approves: bool) -> Result<Voted, Error> {
    let digest = approval(run).unwrap().digest;
    let ballot = Ballot {
        principal: who.into(),
        authentication: "oidc".into(),
        groups: vec![group.into()],
        approves,
        comment: "because".into(),
    };
    run.cause = by(who);
    run.step(|run, cx| run.vote(cx, &WhichCall::Event(5), &digest, ballot))
}

fn decisions(run: &Driver) -> Vec<(CallKind, Verdict)> {
    let steps = run.records.iter().flat_map(|record| &record.steps);
    let decisions = steps.filter_map(|step| match &step.kind {
        Some(StepKind::Decision(of)) => Some((of.kind(), of.verdict())),
        _ => None,
    });
    decisions.collect()
}

fn types(run: &Driver) -> Vec<EventType> {
    let own = run.own_events.iter().filter(|event| event.event_id > 4);
    own.map(|event| event.event_type()).collect()
}

/// What the agent sees of a child that was refused: type and message.
fn child_failure(run: &Driver) -> (String, String) {
    assert_eq!(
        types(run),
        [
            EventType::StartChildWorkflowExecutionInitiated,
            EventType::ChildWorkflowExecutionStarted,
            EventType::ChildWorkflowExecutionFailed,
            EventType::WorkflowTaskScheduled,
        ]
    );
    let started = run.find(EventType::ChildWorkflowExecutionStarted);
    let failed = run.find(EventType::ChildWorkflowExecutionFailed);
    assert!(started.principal.is_none() && failed.principal.is_none());
    let (
        Some(A::ChildWorkflowExecutionStartedEventAttributes(of_start)),
        Some(A::ChildWorkflowExecutionFailedEventAttributes(of_failure)),
    ) = (started.attributes, failed.attributes)
    else {
        panic!("wrong attributes");
    };
    assert_eq!(
        (of_failure.initiated_event_id, of_failure.started_event_id),
        (5, started.event_id)
    );
    assert_eq!(of_failure.workflow_execution, of_start.workflow_execution);
    let failure = of_failure.failure.unwrap();
    let Some(FailureInfo::ApplicationFailureInfo(info)) = failure.failure_info else {
        panic!("no application failure");
    };
    assert!(info.non_retryable);
    assert!(run.run.state.children.is_empty() && run.run.state.outbox.is_empty());
    (info.r#type, failure.message)
}

/// That what was to be sent failed, for no cause that means anything else.
fn assert_failed(run: &Driver, kind: CallKind) {
    let failed = run
        .own_events
        .iter()
        .rev()
        .find_map(|event| match &event.attributes {
            Some(A::SignalExternalWorkflowExecutionFailedEventAttributes(of)) => {
                Some((CallKind::Signal, of.cause, of.initiated_event_id))
            }
            Some(A::RequestCancelExternalWorkflowExecutionFailedEventAttributes(of)) => {
                Some((CallKind::Cancel, of.cause, of.initiated_event_id))
            }
            _ => None,
        });
    assert_eq!(failed, Some((kind, 0, 5)));
    assert!(run.run.state.outbox.is_empty() && run.run.state.command(5).is_none());
    let last = run.last_event();
    assert_eq!(last.event_type(), EventType::WorkflowTaskScheduled);
}

#[test]
fn what_nothing_governs_leaves_no_trace() {
    for kind in MESSAGES {
        let (run, _) = doing(kind, Ruling::Free);
        assert_eq!(run.messages()[0].delivery, Some(delivery(kind)));
        assert!(decisions(&run).is_empty() && approval(&run).is_none());
    }
}

#[test]
fn what_is_allowed_is_recorded_and_sent() {
    for kind in MESSAGES {
        let (run, _) = doing(kind, Ruling::Allow(reasons()));
        assert_eq!(run.messages()[0].delivery, Some(delivery(kind)));
        assert_eq!(decisions(&run), [(kind, Verdict::Allow)]);
    }
}

#[test]
fn a_forbidden_child_fails_as_one_that_was_started() {
    let (run, _) = doing(CallKind::Child, deny());
    let (kind, message) = child_failure(&run);
    assert_eq!(
        (kind.as_str(), message.as_str()),
        ("PolicyDenied", "refused by policy no-more")
    );
    assert_eq!(decisions(&run), [(CallKind::Child, Verdict::Deny)]);
    assert!(run.messages().is_empty());
}

#[test]
fn what_is_forbidden_to_be_sent_fails() {
    for kind in [CallKind::Signal, CallKind::Cancel] {
        let (run, _) = doing(kind, deny());
        assert_failed(&run, kind);
        assert_eq!(decisions(&run), [(kind, Verdict::Deny)]);
        assert!(run.messages().is_empty());
    }
}

#[test]
fn a_refusal_comes_after_what_else_the_task_does() {
    let rules = Arc::new(Rules::default());
    rules.set(CallKind::Child, deny());
    let mut run = Driver::start();
    run.governor = Some(rules.clone());
    run.command(vec![
        command(CallKind::Child),
        child_command("second").into_command(),
        command(CallKind::Signal),
    ]);
    use EventType as T;
    assert_eq!(
        types(&run),
        [
            T::StartChildWorkflowExecutionInitiated,
            T::StartChildWorkflowExecutionInitiated,
            T::SignalExternalWorkflowExecutionInitiated,
            T::ChildWorkflowExecutionStarted,
            T::ChildWorkflowExecutionStarted,
            T::ChildWorkflowExecutionFailed,
            T::ChildWorkflowExecutionFailed,
            T::WorkflowTaskScheduled,
        ]
    );
    assert_eq!(*rules.children_before.lock().unwrap(), [0, 1]);
    assert_eq!(run.run.state.children_started["Child"], 2);
}

#[test]
fn what_waits_is_sent_once_people_approved() {
    for kind in MESSAGES {
        let (mut run, rules) = doing(kind, two_people());
        assert!(run.messages().is_empty() && run.run.state.outbox.is_empty());
        assert!(
            run.run.workflow_task().is_none(),
            "there is nothing to tell"
        );
        assert_eq!(run.run.child_start_request(5).map(|_| ()), None);
        let first = approval(&run).unwrap();
        assert_eq!(run.run.next_wake(), Some(first.expires));
        assert!(matches!(
            vote(&mut run, "alice", "finance", true),
            Err(Error::PermissionDenied(_))
        ));
        assert_eq!(vote(&mut run, "bob", "finance", true), Ok(Voted::Waiting));
        run.restart();
        assert!(run.run.outstanding(run.now).is_empty());
        assert!(
            vote(&mut run, "bob", "finance", true).is_err(),
            "nobody votes twice"
        );
        assert_eq!(
            vote(&mut run, "carol", "finance", true),
            Ok(Voted::Released)
        );
        assert_eq!(run.messages()[0].delivery, Some(delivery(kind)));
        let offered = run.run.outstanding(run.now);
        assert!(
            matches!(&offered[..], [Effect::Message { .. }]),
            "also after a restart"
        );
        assert_eq!(run.run.next_wake(), None);
        // It was sent: policies that change do not take it back, and it is not asked for again.
        rules.set(kind, deny());
        run.step(|run, cx| run.decide_again(cx));
        assert_eq!(decisions(&run), [(kind, Verdict::Approval); 3]);
        assert!(vote(&mut run, "dave", "finance", true).is_err());
        let sent_at = match run.run.state.command(5).unwrap() {
            Command::Signal(signal) => signal.time,
            Command::Cancel(cancel) => cancel.time,
            _ => approval(&run).unwrap().released,
        };
        assert_eq!(sent_at, approval(&run).unwrap().released);
        assert_eq!(
            run.run.state.children_started.values().sum::<i64>(),
            i64::from(kind == CallKind::Child)
        );
    }
}

#[test]
fn what_is_denied_or_not_approved_in_time_fails() {
    for (denies, expected) in [(true, "ApprovalDenied"), (false, "ApprovalExpired")] {
        for kind in MESSAGES {
            let (mut run, _) = doing(kind, two_people());
            match denies {
                true => assert_eq!(vote(&mut run, "bob", "finance", false), Ok(Voted::Refused)),
                false => {
                    run.now += HOUR;
                    run.step(|run, cx| run.wake(cx));
                }
            }
            match kind {
                CallKind::Child => assert_eq!(child_failure(&run).0, expected),
                kind => assert_failed(&run, kind),
            }
            assert!(run.messages().is_empty());
            assert!(vote_gone(&mut run), "it waits no more");
        }
    }
}

fn vote_gone(run: &mut Driver) -> bool {
    let ballot = Ballot {
        principal: "bob".into(),
        approves: true,
        ..Ballot::default()
    };
    let voted = run.step(|run, cx| run.vote(cx, &WhichCall::Event(5), &[], ballot));
    matches!(voted, Err(Error::NotFound(_)))
}

#[test]
fn other_policies_decide_what_waits() {
    for kind in MESSAGES {
        let (mut run, rules) = doing(kind, two_people());
        vote(&mut run, "bob", "finance", true).unwrap();
        run.step(|run, cx| run.decide_again(cx));
        assert_eq!(decisions(&run).len(), 2, "the policies are the same");
        *rules.other_policies.lock().unwrap() = true;
        rules.set(kind, deny());
        run.step(|run, cx| run.decide_again(cx));
        match kind {
            CallKind::Child => assert_eq!(child_failure(&run).0, "PolicyDenied"),
            kind => assert_failed(&run, kind),
        }

        let (mut run, _) = doing(kind, two_people());
        run.governor = None;
        run.step(|run, cx| run.decide_again(cx));
        assert_eq!(run.messages()[0].delivery, Some(delivery(kind)));
    }
}

#[test]
fn a_refusal_waits_for_the_workflow_task_under_way() {
    let (mut run, _) = doing(CallKind::Child, two_people());
    let signal = steadfast_engine::signal::Signal::default();
    run.step(|run, cx| run.signal(cx, signal)).unwrap();
    run.take_task();
    vote(&mut run, "bob", "finance", false).unwrap();
    assert_eq!(run.count(EventType::ChildWorkflowExecutionFailed), 0);
    run.complete(driver::answer());
    let started = run.find(EventType::ChildWorkflowExecutionStarted).event_id;
    let failed = run.find(EventType::ChildWorkflowExecutionFailed);
    let Some(A::ChildWorkflowExecutionFailedEventAttributes(failed)) = failed.attributes else {
        panic!("wrong attributes");
    };
    assert_eq!(failed.started_event_id, started);
}

#[test]
fn a_run_that_ends_withdraws_what_waits() {
    for kind in MESSAGES {
        let (mut run, _) = doing(kind, two_people());
        let digest = approval(&run).unwrap().digest;
        run.step(|run, cx| run.signal(cx, Default::default()))
            .unwrap();
        run.command(vec![complete()]);
        assert_eq!(
            run.run.state.status,
            WorkflowExecutionStatus::Completed as i32
        );
        assert!(
            run.run.state.outbox.is_empty(),
            "also no parent close policy"
        );
        let ballot = Ballot {
            principal: "bob".into(),
            approves: true,
            ..Ballot::default()
        };
        let voted = run.step(|run, cx| run.vote(cx, &WhichCall::Event(5), &digest, ballot));
        assert_eq!(voted, Err(Error::completed()));
    }
}

#[test]
fn a_reset_asks_anew() {
    for kind in MESSAGES {
        let (mut base, rules) = doing(kind, two_people());
        vote(&mut base, "bob", "finance", true).unwrap();
        base.step(|run, cx| run.signal(cx, Default::default()))
            .unwrap();
        base.take_task();
        base.complete(driver::answer());
        let before = approval(&base).unwrap();
        let finish = base.own_events.last().unwrap().event_id;
        let again = |base: &mut Driver| {
            let (shared, later) = base
                .stored()
                .into_iter()
                .partition(|(of, _)| of.event_id < finish);
            let later: Vec<(_, _)> = later;
            let plan = ResetPlan {
                request: ResetWorkflowExecutionRequest {
                    workflow_task_finish_event_id: finish,
                    ..Default::default()
                },
                base_events: shared,
                later_events: later.into_iter().map(|(event, _)| event).collect(),
                ancestors: vec![Branch {
                    run_id: base.run.state.run_id.clone(),
                    last_event_id: finish - 1,
                }],
            };
            let state = base.run.state.clone();
            let (run, effects) = base.step(|_, cx| {
                let run = reset(cx, &state, plan).unwrap();
                (run, std::mem::take(&mut cx.effects))
            });
            let mut driver = Driver::adopt(run, base.now, base.ids.clone());
            driver.effects = effects;
            driver
        };
        let waiting = again(&mut base);
        let after = approval(&waiting).unwrap();
        assert!(after.is_open() && after.votes.is_empty());
        assert_ne!(after.digest, before.digest, "it is another run's call");
        assert!(waiting.messages().is_empty());
        assert_eq!(
            waiting.run.state.children_started,
            base.run.state.children_started
        );

        rules.set(kind, deny());
        let refused = again(&mut base);
        assert!(refused.run.state.command(5).is_none() && refused.messages().is_empty());
        rules.set(kind, Ruling::Free);
        assert_eq!(
            again(&mut base).messages()[0].delivery,
            Some(delivery(kind))
        );
    }
}

#[test]
fn an_approval_is_for_one_call() {
    let (run, _) = doing(CallKind::Child, two_people());
    let state = &run.run.state;
    let digest = approval(&run).unwrap().digest;
    let child = &state.children[&5];
    let of = |change: &dyn Fn(&mut steadfast_engine::state::Child)| {
        let mut changed = child.clone();
        change(&mut changed);
        Command::Child(&changed).digest(state, 5).to_vec()
    };
    assert_eq!(of(&|_| ()), digest);
    type Initiated =
        steadfast_engine::proto::history::StartChildWorkflowExecutionInitiatedEventAttributes;
    let initiated: [fn(&mut Initiated); 5] = [
        |of| of.workflow_id.push('2'),
        |of| of.workflow_type = None,
        |of| of.input = payloads("else"),
        |of| of.cron_schedule.push('*'),
        |of| of.workflow_id_reuse_policy = WorkflowIdReusePolicy::TerminateIfRunning as i32,
    ];
    for change in initiated {
        assert_ne!(
            of(&|child| change(child.initiated.as_mut().unwrap())),
            digest
        );
    }
    assert_ne!(Command::Child(child).digest(state, 6).to_vec(), digest);
    let (signal, _) = doing(CallKind::Signal, two_people());
    let (cancel, _) = doing(CallKind::Cancel, two_people());
    assert_ne!(
        approval(&signal).unwrap().digest,
        approval(&cancel).unwrap().digest
    );
}

#[test]
fn a_child_that_is_there_after_all_needs_no_approval() {
    // The run that this one was reset from had started it.
    let (mut run, _) = doing(CallKind::Child, two_people());
    run.step(|run, cx| run.child_closed(cx, &closed_by(completed())))
        .unwrap();
    assert_eq!(run.count(EventType::ChildWorkflowExecutionCompleted), 1);
    assert!(vote_gone(&mut run));
}

#[test]
fn records_from_before_are_about_tool_calls() {
    let decision = Decision {
        scheduled_event_id: 5,
        activity_id: "tool".into(),
        activity_type: "refund".into(),
        verdict: Verdict::Allow.into(),
        ..Decision::default()
    };
    let bytes = decision.encode_to_vec();
    let mut known = vec![0x08, 5, 0x10, 1, 0x2a, 4];
    known.extend(b"tool");
    known.extend([0x32, 6]);
    known.extend(b"refund");
    assert_eq!(bytes, known, "as it was written before there were kinds");
    assert_eq!(Decision::decode(&known[..]).unwrap().kind(), CallKind::Tool);
    let approval = ActivityApproval::decode(&[0x08, 5][..]).unwrap();
    assert_eq!(
        (approval.kind(), approval.scheduled_event_id),
        (CallKind::Tool, 5)
    );
}

#[test]
fn a_child_that_waits_can_be_cancelled() {
    let rules = Arc::new(Rules::default());
    rules.set(CallKind::Child, two_people());
    // It goes nowhere, so it is not asked about.
    rules.set(CallKind::Cancel, deny());
    let mut run = Driver::start();
    run.governor = Some(rules);
    run.command(vec![command(CallKind::Child)]);
    run.step(|run, cx| run.signal(cx, Default::default()))
        .unwrap();
    let mut cancel = cancel_command("child", "");
    run.command(vec![cancel.clone().into_command()]);
    assert_eq!(
        run.count(EventType::RequestCancelExternalWorkflowExecutionFailed),
        1
    );
    assert!(
        approval(&run).unwrap().is_open(),
        "another workflow of this id is meant"
    );

    cancel.child_workflow_only = true;
    run.command(vec![cancel.into_command()]);
    let canceled = run.find(EventType::ChildWorkflowExecutionCanceled);
    let Some(A::ChildWorkflowExecutionCanceledEventAttributes(canceled)) = canceled.attributes
    else {
        panic!("wrong attributes");
    };
    let started = run.find(EventType::ChildWorkflowExecutionStarted).event_id;
    assert_eq!(
        (canceled.initiated_event_id, canceled.started_event_id),
        (5, started)
    );
    assert_eq!(
        run.count(EventType::ExternalWorkflowExecutionCancelRequested),
        1
    );
    let state = &run.run.state;
    assert!(
        state.children.is_empty() && state.external_cancels.is_empty() && state.outbox.is_empty()
    );
    assert!(run.run.workflow_task().is_some());
    assert!(vote_gone(&mut run));
}

fn local_activity(name: &str) -> C {
    let data = format!(r#"{{"seq":1,"attempt":2,"activity_id":"9","activity_type":"{name}"}}"#);
    let details = [("data".to_owned(), payloads(&data).unwrap())];
    C::RecordMarkerCommandAttributes(RecordMarkerCommandAttributes {
        marker_name: "core_local_activity".into(),
        details: details.into(),
        ..Default::default()
    })
}

fn continue_as(name: &str) -> C {
    C::ContinueAsNewWorkflowExecutionCommandAttributes(
        ContinueAsNewWorkflowExecutionCommandAttributes {
            workflow_type: workflow_type(name),
            ..Default::default()
        },
    )
}

/// A session that policies decide about, and what they say of this kind.
fn ruled(kind: CallKind, ruling: Ruling) -> (Driver, Arc<Rules>) {
    let rules = Arc::new(Rules::default());
    rules.set(kind, ruling);
    let mut run = Driver::start();
    run.governor = Some(rules.clone());
    (run, rules)
}

#[test]
fn a_local_activity_is_decided_when_it_is_told_of() {
    let (mut run, _) = ruled(CallKind::Local, Ruling::Allow(reasons()));
    run.command(vec![local_activity("pay"), local_activity("pay")]);
    assert_eq!(decisions(&run), [(CallKind::Local, Verdict::Allow); 2]);
    assert_eq!(run.count(EventType::MarkerRecorded), 2);
    assert_eq!(run.run.state.tool_calls["pay"], 2);
}

#[test]
fn a_forbidden_local_activity_fails_the_workflow_task() {
    for (ruling, verdict, said) in [
        (
            deny(),
            Verdict::Deny,
            "the local activity pay is refused by policy no-more.",
        ),
        (
            two_people(),
            Verdict::Approval,
            "the local activity pay needs an approval by policy no-more, and cannot wait.",
        ),
    ] {
        let (mut run, rules) = ruled(CallKind::Local, ruling);
        let refused = run.answer(vec![local_activity("pay"), complete()]);
        let Completion::Refused(Error::BadCommand { message, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            message,
            format!("PolicyDenied: {said} It has run in the worker: what it did is not undone.")
        );
        let Some(A::WorkflowTaskFailedEventAttributes(failed)) =
            run.find(EventType::WorkflowTaskFailed).attributes
        else {
            panic!("wrong attributes");
        };
        assert_eq!(
            failed.cause(),
            WorkflowTaskFailedCause::BadRecordMarkerAttributes
        );
        assert_eq!(failed.failure.unwrap().message, message);
        assert_eq!(decisions(&run), [(CallKind::Local, verdict)]);

        // It ran again, which is recorded, too. The task is left to time out.
        let refused = run.answer(vec![local_activity("pay"), complete()]);
        assert!(matches!(refused, Completion::Refused(_)));
        assert_eq!(decisions(&run), [(CallKind::Local, verdict); 2]);
        assert_eq!(run.count(EventType::WorkflowTaskFailed), 1);
        assert!(run.run.state.workflow_task_started());
        assert_eq!(run.run.state.tool_calls["pay"], 2);

        run.now += 10 * SECOND;
        run.step(|run, cx| run.wake(cx));
        rules.set(CallKind::Local, Ruling::Allow(reasons()));
        run.command(vec![local_activity("pay"), complete()]);
        assert_eq!(
            run.run.state.status,
            WorkflowExecutionStatus::Completed as i32
        );
    }
}

#[test]
fn a_session_goes_on_as_another_type_if_policies_let_it() {
    let (mut run, rules) = ruled(CallKind::ContinueAs, deny());
    let refused = run.answer(vec![continue_as("Other")]);
    let Completion::Refused(Error::BadCommand { cause, message }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(cause, WorkflowTaskFailedCause::BadContinueAsNewAttributes);
    assert_eq!(
        message,
        "PolicyDenied: going on as a workflow of type Other is refused by policy no-more."
    );
    assert_eq!(decisions(&run), [(CallKind::ContinueAs, Verdict::Deny)]);
    rules.set(CallKind::ContinueAs, Ruling::Allow(reasons()));
    run.command(vec![continue_as("Other")]);
    assert_eq!(
        decisions(&run)[1..],
        [(CallKind::ContinueAs, Verdict::Allow)]
    );

    // Its own type is no other.
    for name in ["", "Flow"] {
        let (mut run, _) = ruled(CallKind::ContinueAs, deny());
        run.command(vec![continue_as(name)]);
        assert!(decisions(&run).is_empty());
    }
}
