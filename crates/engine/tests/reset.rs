//! Resets over whole runs: what the new run shares, what it does again, and what it forgets.

// Tests fail by panicking.
#![allow(clippy::unwrap_used)]

mod driver;

use bytes::Bytes;
use driver::{
    Driver, accept, answer, commands, complete, message, messages, payloads, request, success,
};
use prost::Message;
use steadfast_engine::proto::command::{
    CompleteWorkflowExecutionCommandAttributes, ScheduleActivityTaskCommandAttributes,
    SignalExternalWorkflowExecutionCommandAttributes, StartChildWorkflowExecutionCommandAttributes,
    StartTimerCommandAttributes, UpsertWorkflowSearchAttributesCommandAttributes,
    command::Attributes as C,
};
use steadfast_engine::proto::common::{
    ActivityType, Payload, SearchAttributes, WorkflowExecution, WorkflowType,
};
use steadfast_engine::proto::enums::{
    ResetReapplyExcludeType as Exclude, ResetReapplyType, UpdateAdmittedEventOrigin,
    WorkflowExecutionStatus, WorkflowTaskFailedCause,
};
use steadfast_engine::proto::failure::failure::FailureInfo;
use steadfast_engine::proto::history::{HistoryEvent, history_event::Attributes as A};
use steadfast_engine::proto::update::Acceptance;
use steadfast_engine::proto::workflowservice::ResetWorkflowExecutionRequest;
use steadfast_engine::record::StepKind;
use steadfast_engine::reset::{ResetPlan, reset};
use steadfast_engine::signal::Signal;
use steadfast_engine::state::{Branch, ChildClosed, Delivery};
use steadfast_engine::time::{SECOND, duration};
use steadfast_engine::update::UpdateView;
use steadfast_engine::{Effect, Error};

fn reset_request(finish: i64) -> ResetWorkflowExecutionRequest {
    ResetWorkflowExecutionRequest {
        reason: "why".into(),
        workflow_task_finish_event_id: finish,
        request_id: "reset-request".into(),
        ..Default::default()
    }
}

/// The whole history of a run that may itself come from a reset.
fn history(base: &Driver, inherited: &[(HistoryEvent, Bytes)]) -> Vec<(HistoryEvent, Bytes)> {
    let mut events = inherited.to_vec();
    events.extend(base.stored());
    events
}

fn plan(
    base: &Driver,
    inherited: &[(HistoryEvent, Bytes)],
    request: ResetWorkflowExecutionRequest,
) -> ResetPlan {
    let finish = request.workflow_task_finish_event_id;
    let (shared, later) = history(base, inherited)
        .into_iter()
        .partition(|(event, _)| event.event_id < finish);
    let mut ancestors = base.run.state.ancestors.clone();
    ancestors.retain(|branch| branch.last_event_id < finish - 1);
    ancestors.push(Branch {
        run_id: base.run.state.run_id.clone(),
        last_event_id: finish - 1,
    });
    let later: Vec<(HistoryEvent, Bytes)> = later;
    ResetPlan {
        request,
        base_events: shared,
        later_events: later.into_iter().map(|(event, _)| event).collect(),
        ancestors,
    }
}

fn try_reset(base: &mut Driver, request: ResetWorkflowExecutionRequest) -> Result<Driver, Error> {
    let plan = plan(base, &[], request);
    reset_with(base, plan)
}

fn reset_with(base: &mut Driver, plan: ResetPlan) -> Result<Driver, Error> {
    let state = base.run.state.clone();
    let (run, effects) = base.step(|_, cx| {
        let run = reset(cx, &state, plan)?;
        Ok::<_, Error>((run, std::mem::take(&mut cx.effects)))
    })?;
    let mut driver = Driver::adopt(run, base.now, base.ids.clone());
    driver.effects = effects;
    Ok(driver)
}

fn do_reset(base: &mut Driver, finish: i64) -> Driver {
    try_reset(base, reset_request(finish)).unwrap()
}

fn signal(driver: &mut Driver, name: &str) {
    let signal = Signal {
        name: name.into(),
        request_id: name.into(),
        ..Signal::default()
    };
    driver.step(|run, cx| run.signal(cx, signal)).unwrap();
}

fn activity(id: &str) -> C {
    C::ScheduleActivityTaskCommandAttributes(ScheduleActivityTaskCommandAttributes {
        activity_id: id.into(),
        task_queue: Some(steadfast_engine::proto::taskqueue::TaskQueue {
            name: "tools".into(),
            ..Default::default()
        }),
        activity_type: Some(ActivityType {
            name: "work".into(),
        }),
        start_to_close_timeout: Some(duration(60 * SECOND)),
        ..Default::default()
    })
}

fn child(id: &str) -> C {
    C::StartChildWorkflowExecutionCommandAttributes(StartChildWorkflowExecutionCommandAttributes {
        workflow_id: id.into(),
        workflow_type: Some(WorkflowType {
            name: "Child".into(),
        }),
        ..Default::default()
    })
}

fn timer(id: &str) -> C {
    C::StartTimerCommandAttributes(StartTimerCommandAttributes {
        timer_id: id.into(),
        start_to_fire_timeout: Some(duration(100 * SECOND)),
    })
}

/// Messages that the run wants delivered.
fn deliveries(driver: &Driver) -> Vec<&Delivery> {
    driver
        .run
        .state
        .outbox
        .values()
        .filter_map(|message| message.delivery.as_ref())
        .collect()
}

#[test]
fn a_reset_shares_history_and_goes_on_with_a_new_task() {
    let mut base = Driver::waiting();
    let base_id = base.run.state.run_id.clone();
    let mut new = do_reset(&mut base, 4);
    assert_eq!(
        new.types_from(1),
        ["WORKFLOW_TASK_FAILED", "WORKFLOW_TASK_SCHEDULED"]
    );
    assert_eq!(new.own_events[0].event_id, 4);
    let A::WorkflowTaskFailedEventAttributes(failed) = new.event(4) else {
        panic!()
    };
    assert_eq!(failed.cause, WorkflowTaskFailedCause::ResetWorkflow as i32);
    assert_eq!((failed.scheduled_event_id, failed.started_event_id), (2, 3));
    assert_eq!(failed.base_run_id, base_id);
    assert_eq!(failed.new_run_id, new.run.state.run_id);
    let failure = failed.failure.as_ref().unwrap();
    assert_eq!(failure.message, "why");
    assert!(matches!(
        failure.failure_info,
        Some(FailureInfo::ResetWorkflowFailureInfo(_))
    ));

    let state = &new.run.state;
    assert_ne!(state.run_id, base_id);
    assert_eq!(state.workflow_id, "workflow");
    assert_eq!(state.namespace_id, "namespace-id");
    assert_eq!(state.reset_from_run_id, base_id);
    assert_eq!(state.start().first_execution_run_id, base_id);
    assert_eq!(
        state.ancestors,
        [Branch {
            run_id: base_id,
            last_event_id: 3
        }]
    );
    assert_eq!(state.start_request_id, "reset-request");
    assert!(state.request_ids.contains_key("start-request"));
    assert_eq!((state.n, state.next_event_id), (1, 6));
    assert!(new.effects.iter().any(|e| matches!(
        e,
        Effect::WorkflowTask {
            scheduled_event_id: 5,
            ..
        }
    )));
    assert!(matches!(
        new.records[0].steps[0].kind,
        Some(StepKind::Fork(_))
    ));

    let (task, _) = new.take_task();
    assert_eq!(task.attempt, 1);
    new.complete(commands([C::CompleteWorkflowExecutionCommandAttributes(
        CompleteWorkflowExecutionCommandAttributes {
            result: Some(payloads("other")),
        },
    )]));
    assert_eq!(
        new.run.state.status,
        WorkflowExecutionStatus::Completed as i32
    );
}

#[test]
fn a_reset_works_from_a_closed_run() {
    let mut base = Driver::waiting();
    base.step(|run, cx| run.terminate(cx, String::new(), None, String::new(), Vec::new()))
        .unwrap();
    let new = do_reset(&mut base, 4);
    assert!(new.run.state.is_running());
    assert_eq!(new.run.state.close_time, 0);
}

#[test]
fn a_task_that_was_only_scheduled_gets_its_started_event() {
    let mut base = Driver::waiting();
    let new = do_reset(&mut base, 3);
    assert_eq!(
        new.types_from(1),
        [
            "WORKFLOW_TASK_STARTED",
            "WORKFLOW_TASK_FAILED",
            "WORKFLOW_TASK_SCHEDULED"
        ]
    );
    let A::WorkflowTaskFailedEventAttributes(failed) = new.event(4) else {
        panic!()
    };
    assert_eq!((failed.scheduled_event_id, failed.started_event_id), (2, 3));
}

#[test]
fn points_that_a_reset_cannot_name() {
    let mut base = Driver::waiting();
    signal(&mut base, "s"); // Events 5 and 6; the last one is a scheduled task.
    for finish in [-1, 0, 1, 2, 5, 7, 100] {
        let refused = try_reset(&mut base, reset_request(finish));
        assert!(
            matches!(refused, Err(Error::InvalidArgument(_))),
            "{finish}"
        );
    }
    for finish in [3, 4] {
        try_reset(&mut base, reset_request(finish)).expect("a workflow task was under way");
    }
}

#[test]
fn a_history_that_does_not_reach_the_point_is_corrupt() {
    let mut base = Driver::waiting();
    let damages: [fn(&mut ResetPlan); 2] = [
        |plan| drop(plan.base_events.pop()),
        |plan| drop(plan.base_events.remove(1)),
    ];
    for damage in damages {
        let mut plan = plan(&base, &[], reset_request(4));
        damage(&mut plan);
        assert!(matches!(
            reset_with(&mut base, plan),
            Err(Error::Corrupt(_))
        ));
    }
}

#[test]
fn signals_come_again_unless_excluded() {
    let table: [(i32, &[i32], bool); 5] = [
        (ResetReapplyType::Unspecified as i32, &[], true),
        (
            ResetReapplyType::AllEligible as i32,
            &[Exclude::Update as i32],
            true,
        ),
        (ResetReapplyType::Signal as i32, &[], true),
        (ResetReapplyType::None as i32, &[], false),
        (
            ResetReapplyType::Unspecified as i32,
            &[Exclude::Signal as i32],
            false,
        ),
    ];
    for (older, excluded, comes_again) in table {
        let mut base = Driver::waiting();
        signal(&mut base, "one");
        base.take_task();
        base.complete(answer());
        signal(&mut base, "two");
        let mut request = reset_request(4);
        #[allow(deprecated)]
        {
            request.reset_reapply_type = older;
        }
        request.reset_reapply_exclude_types = excluded.to_vec();
        let mut new = try_reset(&mut base, request).unwrap();
        let expected: &[&str] = if comes_again {
            &[
                "WORKFLOW_TASK_FAILED",
                "SIGNALED",
                "SIGNALED",
                "WORKFLOW_TASK_SCHEDULED",
            ]
        } else {
            &["WORKFLOW_TASK_FAILED", "WORKFLOW_TASK_SCHEDULED"]
        };
        assert_eq!(new.types_from(1), expected, "{older} {excluded:?}");
        let count = if comes_again { 2 } else { 0 };
        assert_eq!(new.run.state.signal_count, count);
        // Sent again, it is known, whether the new run was to have it or not.
        signal(&mut new, "two");
        assert_eq!(new.run.state.signal_count, count);
    }
}

#[test]
fn signals_before_the_point_are_shared_and_not_repeated() {
    let mut base = Driver::waiting();
    signal(&mut base, "shared"); // Event 5, then the task: 6, 7, 8.
    base.take_task();
    base.complete(answer());
    signal(&mut base, "later");
    let mut new = do_reset(&mut base, 8);
    assert_eq!(
        new.types_from(1),
        [
            "WORKFLOW_TASK_FAILED",
            "SIGNALED",
            "WORKFLOW_TASK_SCHEDULED"
        ]
    );
    let A::WorkflowExecutionSignaledEventAttributes(again) = new.event(9) else {
        panic!()
    };
    assert_eq!(again.signal_name, "later");
    // Both request ids are known: a sender that tries again changes nothing.
    let state = new.run.state.clone();
    signal(&mut new, "shared");
    signal(&mut new, "later");
    assert_eq!(new.run.state, state);
}

#[test]
fn accepted_updates_come_again_as_admitted_ones() {
    let mut base = Driver::waiting();
    base.step(|run, cx| run.admit_update(cx, request("u")))
        .unwrap();
    base.take_task();
    base.complete(messages([accept("u"), complete("u")]));
    let mut new = do_reset(&mut base, 4);
    assert_eq!(
        new.types_from(1),
        [
            "WORKFLOW_TASK_FAILED",
            "UPDATE_ADMITTED",
            "WORKFLOW_TASK_SCHEDULED"
        ]
    );
    let A::WorkflowExecutionUpdateAdmittedEventAttributes(admitted) = new.event(5) else {
        panic!()
    };
    assert_eq!(admitted.request, Some(request("u")));
    assert_eq!(admitted.origin, UpdateAdmittedEventOrigin::Reapply as i32);
    assert_eq!(new.run.update_view("u"), UpdateView::Admitted);
    assert_eq!(new.run.state.update_count, 1);

    let (_, sent) = new.take_task();
    assert_eq!(sent, [], "the worker reads the request in history");
    let acceptance = Acceptance {
        accepted_request_message_id: "u/request".into(),
        accepted_request_sequencing_event_id: 6,
        accepted_request: Some(request("u")),
    };
    new.complete(messages([
        message("u", "accept", &acceptance),
        complete("u"),
    ]));
    let A::WorkflowExecutionUpdateAcceptedEventAttributes(accepted) = new.event(9) else {
        panic!()
    };
    assert_eq!(
        accepted.accepted_request, None,
        "it is in the admitted event"
    );
    assert_eq!(
        new.run.update_view("u"),
        UpdateView::Completed(success("done"))
    );
    assert_eq!(new.run.state.update_count, 1);
}

#[test]
fn updates_that_come_again_outlive_the_server() {
    let mut base = Driver::waiting();
    base.step(|run, cx| run.admit_update(cx, request("u")))
        .unwrap();
    base.take_task();
    base.complete(messages([accept("u")]));
    let mut new = do_reset(&mut base, 4);
    new.restart();
    assert_eq!(new.run.update_view("u"), UpdateView::Admitted);
    new.step(|run, cx| run.admit_update(cx, request("u")))
        .expect("it is known");
    new.take_task();
    new.complete(messages([accept("u")]));
    assert_eq!(new.run.update_view("u"), UpdateView::Accepted);
}

#[test]
fn excluded_updates_do_not_come_again() {
    let mut base = Driver::waiting();
    base.step(|run, cx| run.admit_update(cx, request("u")))
        .unwrap();
    base.take_task();
    base.complete(messages([accept("u")]));
    let mut request = reset_request(4);
    request.reset_reapply_exclude_types = vec![Exclude::Update as i32];
    let new = try_reset(&mut base, request).unwrap();
    assert_eq!(
        new.types_from(1),
        ["WORKFLOW_TASK_FAILED", "WORKFLOW_TASK_SCHEDULED"]
    );
    assert_eq!(new.run.update_view("u"), UpdateView::Unknown);
}

#[test]
fn a_reset_of_a_reset_has_the_ancestors_that_it_needs() {
    let mut base = Driver::waiting();
    base.step(|run, cx| run.admit_update(cx, request("u")))
        .unwrap();
    base.take_task();
    base.complete(messages([accept("u")]));
    let shared: Vec<_> = base.stored().into_iter().take(3).collect();
    let mut first = do_reset(&mut base, 4); // 4 failed, 5 admitted, 6 scheduled
    first.take_task(); // 7
    first.complete(messages([accept("u"), complete("u")])); // 8, 9, 10

    // Behind the admitted event: it is shared, and the update is still to be taken.
    let at_task = plan(&first, &shared, reset_request(8));
    let second = reset_with(&mut first, at_task).unwrap();
    let (first_id, base_id) = (
        first.run.state.run_id.clone(),
        base.run.state.run_id.clone(),
    );
    assert_eq!(
        second.run.state.ancestors,
        [
            Branch {
                run_id: base_id.clone(),
                last_event_id: 3
            },
            Branch {
                run_id: first_id.clone(),
                last_event_id: 7
            },
        ]
    );
    assert_eq!(
        second.types_from(1),
        ["WORKFLOW_TASK_FAILED", "WORKFLOW_TASK_SCHEDULED"]
    );
    assert_eq!(second.run.update_view("u"), UpdateView::Admitted);
    assert_eq!(second.run.state.reset_from_run_id, first_id);
    assert_eq!(second.run.state.start().first_execution_run_id, base_id);

    // Before it: it comes again.
    let at_start = plan(&first, &shared, reset_request(3));
    let third = reset_with(&mut first, at_start).unwrap();
    assert_eq!(
        third.types_from(1),
        [
            "WORKFLOW_TASK_STARTED",
            "WORKFLOW_TASK_FAILED",
            "UPDATE_ADMITTED",
            "WORKFLOW_TASK_SCHEDULED"
        ]
    );
    assert_eq!(third.run.update_view("u"), UpdateView::Admitted);
}

#[test]
fn events_of_runs_that_continued_the_base_come_again_but_not_their_children() {
    let mut base = Driver::start();
    base.take_task();
    base.complete(commands([child("c")])); // 4, 5 initiated
    signal(&mut base, "in-base");
    base.take_task();
    base.complete(answer());
    let mut plan = plan(&base, &[], reset_request(9));

    let mut next = Driver::start();
    next.take_task();
    next.complete(commands([child("d")])); // Event 5 there, too.
    signal(&mut next, "in-next");
    next.step(|run, cx| run.child_started(cx, 5, "child-run".into()))
        .unwrap();
    plan.later_events.extend(next.own_events.iter().cloned());
    let new = reset_with(&mut base, plan).unwrap();
    assert_eq!(
        new.types_from(1),
        [
            "WORKFLOW_TASK_FAILED",
            "SIGNALED",
            "WORKFLOW_TASK_SCHEDULED"
        ]
    );
    let A::WorkflowExecutionSignaledEventAttributes(again) = new.event(10) else {
        panic!()
    };
    assert_eq!(again.signal_name, "in-next");
    assert!(!new.run.state.children[&5].is_started());
}

#[test]
fn activities_are_offered_again_from_the_first_attempt() {
    let mut base = Driver::start();
    base.take_task();
    base.complete(commands([activity("a")])); // 4, 5 scheduled
    let poller = steadfast_engine::workflow_task::Poller::default();
    base.step(|run, cx| run.start_activity(cx, 5, 1, &poller).map(drop))
        .unwrap();
    signal(&mut base, "s"); // 6, 7 scheduled
    base.take_task(); // 8
    base.complete(answer()); // 9
    base.now += 1000 * SECOND;
    let new = do_reset(&mut base, 9);
    let pending = &new.run.state.activities[&5];
    assert_eq!(pending.attempt().number, 1);
    assert!(!pending.is_started());
    assert_eq!(pending.scheduled_time, base.now);
    assert!(new.effects.iter().any(|effect| {
        matches!(effect, Effect::ActivityTask { run_id, scheduled_event_id: 5, attempt: 1, task_queue, .. }
            if *run_id == new.run.state.run_id && task_queue == "tools")
    }));
}

#[test]
fn timers_fire_when_they_would_have() {
    let mut base = Driver::start();
    base.take_task();
    base.complete(commands([timer("t")])); // 4, 5 started
    let fires = base.run.state.timers["t"].fires;
    signal(&mut base, "s");
    base.take_task();
    base.complete(answer()); // 9
    base.now += 1000 * SECOND;
    let mut new = do_reset(&mut base, 9);
    assert_eq!(new.run.state.timers["t"].fires, fires);
    new.step(|run, cx| run.wake(cx));
    assert_eq!(new.types_from(11), ["TIMER_FIRED"]);
}

#[test]
fn the_new_run_has_its_full_time() {
    let mut base = Driver::start_with(|started| {
        started.workflow_execution_timeout = Some(duration(500 * SECOND));
        started.workflow_run_timeout = Some(duration(100 * SECOND));
    });
    base.take_task();
    base.complete(answer());
    base.now += 1000 * SECOND;
    let new = do_reset(&mut base, 4);
    assert_eq!(new.run.state.start_time, base.now);
    assert_eq!(new.run.state.execution_expires, base.now + 500 * SECOND);
    assert_eq!(new.run.state.run_expires, base.now + 100 * SECOND);
}

#[test]
fn a_child_that_is_not_started_is_asked_for_again_under_the_same_request() {
    let mut base = Driver::start();
    base.take_task();
    base.complete(commands([child("c")])); // 4, 5 initiated
    let request_id = base.run.child_start_request(5).unwrap().request_id;
    signal(&mut base, "s"); // 6, 7
    base.take_task(); // 8
    base.complete(answer()); // 9
    let new = do_reset(&mut base, 9);
    assert_eq!(deliveries(&new), [&Delivery::StartChild(5)]);
    assert_eq!(
        new.run.child_start_request(5).unwrap().request_id,
        request_id
    );
    assert!(
        new.effects
            .iter()
            .any(|effect| matches!(effect, Effect::Message { .. }))
    );
}

#[test]
fn requests_stay_the_same_over_several_resets() {
    let mut base = Driver::start();
    base.take_task();
    base.complete(commands([child("of-base")])); // 4, 5 initiated
    signal(&mut base, "s"); // 6, 7
    base.take_task(); // 8
    base.complete(answer()); // 9
    let shared: Vec<_> = base.stored().into_iter().take(8).collect();
    let mut first = do_reset(&mut base, 9); // 9 failed, 10 scheduled
    first.take_task(); // 11
    first.complete(commands([child("of-first")])); // 12, 13 initiated
    signal(&mut first, "t"); // 14, 15
    first.take_task(); // 16
    first.complete(answer()); // 17
    let plan = plan(&first, &shared, reset_request(17));
    let second = reset_with(&mut first, plan).unwrap();
    assert_eq!(
        deliveries(&second),
        [&Delivery::StartChild(5), &Delivery::StartChild(13)]
    );
    let request_id = |driver: &Driver, id| driver.run.child_start_request(id).unwrap().request_id;
    assert_eq!(request_id(&second, 5), request_id(&base, 5));
    assert_eq!(request_id(&second, 13), request_id(&first, 13));
}

#[test]
fn what_happened_to_a_child_later_comes_again() {
    let mut base = Driver::start();
    base.take_task();
    base.complete(commands([child("c"), child("failed")])); // 4, 5 and 6 initiated
    signal(&mut base, "s"); // 7, 8 scheduled
    base.take_task(); // 9
    base.complete(answer()); // 10
    base.step(|run, cx| run.child_started(cx, 5, "child-run".into()))
        .unwrap(); // 11
    let cause = steadfast_engine::proto::enums::StartChildWorkflowExecutionFailedCause::WorkflowAlreadyExists;
    base.step(|run, cx| run.child_start_failed(cx, 6, cause))
        .unwrap();
    let closed = HistoryEvent {
        attributes: Some(A::WorkflowExecutionCompletedEventAttributes(
            Default::default(),
        )),
        ..Default::default()
    };
    let closed = ChildClosed {
        initiated_event_id: 5,
        first_run_id: "child-run".into(),
        workflow_type: "Child".into(),
        close_event: closed.encode_to_vec(),
        workflow_id: "c".into(),
        run_id: "child-run".into(),
    };
    base.step(|run, cx| run.child_closed(cx, &closed)).unwrap();
    let new = do_reset(&mut base, 10);
    assert_eq!(
        new.types_from(11),
        [
            "CHILD_WORKFLOW_EXECUTION_STARTED",
            "START_CHILD_WORKFLOW_EXECUTION_FAILED",
            "CHILD_WORKFLOW_EXECUTION_COMPLETED",
            "WORKFLOW_TASK_SCHEDULED"
        ]
    );
    let A::ChildWorkflowExecutionCompletedEventAttributes(completed) = new.event(13) else {
        panic!()
    };
    assert_eq!(
        (completed.initiated_event_id, completed.started_event_id),
        (5, 11)
    );
    assert!(new.run.state.children.is_empty());
    assert_eq!(deliveries(&new), [] as [&Delivery; 0]);
}

#[test]
fn a_signal_under_way_is_sent_again_under_the_same_request() {
    let mut base = Driver::start();
    base.take_task();
    let to = WorkflowExecution {
        workflow_id: "other".into(),
        run_id: String::new(),
    };
    base.complete(commands([
        C::SignalExternalWorkflowExecutionCommandAttributes(
            SignalExternalWorkflowExecutionCommandAttributes {
                execution: Some(to),
                signal_name: "hello".into(),
                ..Default::default()
            },
        ),
    ])); // 4, 5 initiated
    let (_, sent, _) = base.run.external_signal_request(5).unwrap();
    signal(&mut base, "s"); // 6, 7
    base.take_task(); // 8
    base.complete(answer()); // 9
    let new = do_reset(&mut base, 9);
    assert_eq!(deliveries(&new), [&Delivery::Signal(5)]);
    let message = new.run.state.outbox.values().next().unwrap();
    assert_eq!(
        (message.namespace_id.as_str(), message.workflow_id.as_str()),
        ("namespace-id", "other")
    );
    let (_, again, _) = new.run.external_signal_request(5).unwrap();
    assert_eq!(again.request_id, sent.request_id);
    assert!(!again.request_id.is_empty());
}

#[test]
fn the_run_that_is_replaced_is_terminated_and_its_signals_come_along() {
    let mut base = Driver::start();
    base.take_task();
    base.complete(commands([child("c")]));
    base.step(|run, cx| run.child_started(cx, 5, "child-run".into()))
        .unwrap();
    base.take_task(); // 7 scheduled, 8 started
    signal(&mut base, "buffered");
    let next = base.run.state.next_event_id;
    base.step(|run, cx| run.terminate_for_reset(cx, &reset_request(8)))
        .unwrap();
    assert_eq!(
        base.types_from(next),
        ["WORKFLOW_TASK_FAILED", "SIGNALED", "TERMINATED"]
    );
    let A::WorkflowExecutionTerminatedEventAttributes(terminated) = base.event(next + 2) else {
        panic!()
    };
    assert_eq!(
        (terminated.reason.as_str(), terminated.identity.as_str()),
        ("why", "history-resetter")
    );
    assert_eq!(
        deliveries(&base),
        [] as [&Delivery; 0],
        "its children are the new run's"
    );
    let again = base.step(|run, cx| run.terminate_for_reset(cx, &reset_request(8)));
    assert!(matches!(again, Err(Error::NotFound(_))));

    let new = do_reset(&mut base, next);
    assert_eq!(
        new.types_from(next),
        [
            "WORKFLOW_TASK_FAILED",
            "SIGNALED",
            "WORKFLOW_TASK_SCHEDULED"
        ]
    );
    assert_eq!(new.run.state.children[&5].run_id, "child-run");
}

#[test]
fn properties_are_as_of_the_point() {
    let upsert = |value: &str| {
        let payload = Payload {
            data: value.as_bytes().to_vec(),
            ..Default::default()
        };
        C::UpsertWorkflowSearchAttributesCommandAttributes(
            UpsertWorkflowSearchAttributesCommandAttributes {
                search_attributes: Some(SearchAttributes {
                    indexed_fields: [("Place".to_owned(), payload)].into(),
                }),
            },
        )
    };
    let mut base = Driver::start();
    base.take_task();
    base.complete(commands([upsert("before")])); // 4, 5
    signal(&mut base, "s"); // 6, 7
    base.take_task(); // 8
    base.complete(commands([upsert("after")])); // 9, 10
    let new = do_reset(&mut base, 9);
    let of = |driver: &Driver| {
        let attributes = driver.run.state.search_attributes.clone().unwrap();
        attributes.indexed_fields["Place"].data.clone()
    };
    assert_eq!(
        (of(&base), of(&new)),
        (b"after".to_vec(), b"before".to_vec())
    );
    let points = &new.run.state.reset_points.as_ref().unwrap().points;
    assert_eq!(points[0].run_id, new.run.state.run_id);
    assert_eq!(points[0].first_workflow_task_completed_id, 4);
}

#[test]
fn the_same_reset_gives_the_same_record() {
    let record = || {
        let mut base = Driver::waiting();
        signal(&mut base, "s");
        do_reset(&mut base, 4).records.remove(0)
    };
    assert_eq!(record().encode_to_vec(), record().encode_to_vec());
}
