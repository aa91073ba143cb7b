//! Children and parents, and what a closing run tells others.

use prost::Message;
use steadfast_engine::child::ChildStart;
use steadfast_engine::commands::Completion;
use steadfast_engine::proto::command::{
    CancelWorkflowExecutionCommandAttributes, ContinueAsNewWorkflowExecutionCommandAttributes,
    FailWorkflowExecutionCommandAttributes, SignalExternalWorkflowExecutionCommandAttributes,
    StartChildWorkflowExecutionCommandAttributes, command::Attributes as C,
};
use steadfast_engine::proto::common::{Memo, Priority, RetryPolicy, WorkflowExecution};
use steadfast_engine::proto::enums::{
    EventType, ParentClosePolicy, RetryState, StartChildWorkflowExecutionFailedCause,
    WorkflowIdReusePolicy, WorkflowTaskFailedCause,
};
use steadfast_engine::proto::failure::Failure;
use steadfast_engine::proto::history::{
    HistoryEvent, WorkflowExecutionCanceledEventAttributes,
    WorkflowExecutionContinuedAsNewEventAttributes, WorkflowExecutionFailedEventAttributes,
    WorkflowExecutionTerminatedEventAttributes, WorkflowExecutionTimedOutEventAttributes,
    history_event::Attributes as A,
};
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::proto::workflowservice::ResetWorkflowExecutionRequest;
use steadfast_engine::record::Cause;
use steadfast_engine::signal::Signal;
use steadfast_engine::start::StartRun;
use steadfast_engine::state::{ChildClosed, Delivery};
use steadfast_engine::time::{SECOND, duration, span};
use steadfast_engine::{Cx, Error, Limits, Run, Time};

mod driver;

use driver::family::{
    CHILD_RUN, IntoCommand, LAST_CHILD_RUN, Looks, cancel_command, child_command, closed_by,
    complete, completed, header, payload, payloads, signal_command, summary, uuid, workflow_type,
};
use driver::{Counter, Driver, OneNamespace, answer, commands};

/// Drives a run that begins like this.
fn drive(start: StartRun, now: Time) -> Driver {
    let mut ids = Counter::default();
    let limits = Limits::default();
    let mut cx = Cx::new(
        now,
        &mut ids,
        &limits,
        &OneNamespace,
        "default",
        Cause::default(),
    );
    let run = Run::start(&mut cx, start);
    Driver::adopt(run, now, ids)
}

fn queue(name: &str) -> Option<TaskQueue> {
    Some(TaskQueue {
        name: name.into(),
        ..TaskQueue::default()
    })
}

fn child_with_policy(id: &str, policy: ParentClosePolicy) -> C {
    let mut command = child_command(id);
    command.parent_close_policy = policy as i32;
    command.into_command()
}

fn fail() -> C {
    C::FailWorkflowExecutionCommandAttributes(FailWorkflowExecutionCommandAttributes {
        failure: Some(Failure {
            message: "broken".into(),
            ..Failure::default()
        }),
    })
}

fn cancel() -> C {
    C::CancelWorkflowExecutionCommandAttributes(CancelWorkflowExecutionCommandAttributes::default())
}

fn continue_as_new() -> C {
    C::ContinueAsNewWorkflowExecutionCommandAttributes(
        ContinueAsNewWorkflowExecutionCommandAttributes::default(),
    )
}

/// A parent whose child `child` is initiated (event 5) and, if `started`, started as run 7.
fn parent_with_child(started: bool) -> Driver {
    let mut parent = Driver::start();
    parent.command(vec![child_command("child").into_command()]);
    if started {
        parent
            .step(|run, cx| run.child_started(cx, 5, CHILD_RUN.to_owned()))
            .expect("taken");
        parent.command(vec![]);
    }
    parent
}

#[test]
fn a_child_starts_and_completes() {
    let mut parent = Driver::start();
    parent.command(vec![child_command("child").into_command()]);

    let initiated = parent.find(EventType::StartChildWorkflowExecutionInitiated);
    assert_eq!(initiated.event_id, 5);
    assert_eq!(initiated.user_metadata, Some(summary()));
    assert_eq!(parent.messages().len(), 1);
    let message = parent.messages()[0].clone();
    assert_eq!(message.delivery, Some(Delivery::StartChild(5)));
    assert_eq!(
        (message.namespace_id.as_str(), message.workflow_id.as_str()),
        ("namespace-id", "child")
    );

    parent
        .step(|run, cx| run.child_started(cx, 5, CHILD_RUN.to_owned()))
        .expect("taken");
    parent.step(|run, _| run.message_delivered(message.id));
    assert!(parent.run.state.outbox.is_empty());
    let A::ChildWorkflowExecutionStartedEventAttributes(started) = parent
        .find(EventType::ChildWorkflowExecutionStarted)
        .attributes
        .expect("attributes")
    else {
        panic!("wrong attributes");
    };
    assert_eq!(started.initiated_event_id, 5);
    assert_eq!(
        started
            .workflow_execution
            .map(|e| (e.workflow_id, e.run_id)),
        Some(("child".into(), CHILD_RUN.to_owned()))
    );
    assert_eq!(started.header, header());
    assert_eq!(
        parent.last_event().event_type(),
        EventType::WorkflowTaskScheduled
    );
    let kept = parent.run.state.children[&5].initiated();
    assert_eq!(
        (kept.input.as_ref(), kept.header.as_ref()),
        (None, None),
        "not needed any more"
    );
    parent.command(vec![]);

    parent
        .step(|run, cx| run.child_closed(cx, &closed_by(completed())))
        .expect("taken");
    let A::ChildWorkflowExecutionCompletedEventAttributes(closed) = parent
        .find(EventType::ChildWorkflowExecutionCompleted)
        .attributes
        .expect("attributes")
    else {
        panic!("wrong attributes");
    };
    assert_eq!(closed.result, payloads("result"));
    assert_eq!(closed.initiated_event_id, 5);
    assert_eq!(
        closed.started_event_id,
        parent
            .find(EventType::ChildWorkflowExecutionStarted)
            .event_id
    );
    assert_eq!(
        closed.workflow_execution.map(|e| e.run_id),
        Some(LAST_CHILD_RUN.to_owned())
    );
    assert_eq!(closed.workflow_type, workflow_type("Child"));
    assert_eq!(closed.namespace, "default");
    assert!(parent.run.state.children.is_empty());
    assert_eq!(
        parent.last_event().event_type(),
        EventType::WorkflowTaskScheduled
    );
}

#[test]
fn what_is_told_twice_changes_nothing() {
    let mut parent = parent_with_child(true);
    let records = parent.records.len();
    parent
        .step(|run, cx| run.child_started(cx, 5, CHILD_RUN.to_owned()))
        .expect("taken");
    parent
        .step(|run, cx| {
            run.child_start_failed(
                cx,
                5,
                StartChildWorkflowExecutionFailedCause::WorkflowAlreadyExists,
            )
        })
        .expect("taken");
    parent.step(|run, _| run.message_delivered(99));
    assert_eq!(parent.records.len(), records);

    parent
        .step(|run, cx| run.child_closed(cx, &closed_by(completed())))
        .expect("taken");
    parent
        .step(|run, cx| run.child_closed(cx, &closed_by(completed())))
        .expect("taken");
    parent
        .step(|run, cx| run.child_started(cx, 5, CHILD_RUN.to_owned()))
        .expect("taken");
    assert_eq!(parent.records.len(), records + 1);
}

#[test]
fn another_run_under_the_childs_id_is_not_the_child() {
    let mut parent = parent_with_child(true);
    for other in [
        ChildClosed {
            first_run_id: uuid(6),
            ..closed_by(completed())
        },
        ChildClosed {
            workflow_id: "somebody".into(),
            ..closed_by(completed())
        },
        ChildClosed {
            initiated_event_id: 6,
            ..closed_by(completed())
        },
    ] {
        parent
            .step(|run, cx| run.child_closed(cx, &other))
            .expect("ignored");
    }
    assert_eq!(parent.run.state.children.len(), 1);
    assert_eq!(parent.count(EventType::ChildWorkflowExecutionCompleted), 0);
}

#[test]
fn a_child_that_cannot_start_is_an_event() {
    let mut parent = parent_with_child(false);
    parent
        .step(|run, cx| {
            run.child_start_failed(
                cx,
                5,
                StartChildWorkflowExecutionFailedCause::WorkflowAlreadyExists,
            )
        })
        .expect("taken");
    let A::StartChildWorkflowExecutionFailedEventAttributes(failed) = parent
        .find(EventType::StartChildWorkflowExecutionFailed)
        .attributes
        .expect("attributes")
    else {
        panic!("wrong attributes");
    };
    assert_eq!(
        failed.cause(),
        StartChildWorkflowExecutionFailedCause::WorkflowAlreadyExists
    );
    assert_eq!(
        (failed.initiated_event_id, failed.workflow_id.as_str()),
        (5, "child")
    );
    assert!(parent.run.state.children.is_empty());
    assert_eq!(
        parent.last_event().event_type(),
        EventType::WorkflowTaskScheduled
    );
}

#[test]
fn a_start_that_comes_again_is_known_to_the_runs_that_continue_the_child() {
    let mut parent = Driver::start();
    parent.command(vec![
        child_command("child").into_command(),
        child_command("other").into_command(),
    ]);
    let request = parent.run.child_start_request(5).expect("to be started");
    let other = parent.run.child_start_request(6).expect("to be started");

    let start = request.clone().into_start_run(CHILD_RUN.into(), parent.now);
    let mut child = drive(start, parent.now);
    let mut chain = vec![child.run.state.clone()];
    for _ in 0..2 {
        child.take_task();
        let claim = child.claim();
        let next = child.step(|run, cx| {
            let answer = commands([continue_as_new()]);
            run.complete_workflow_task(cx, &claim, answer, None, None)
                .expect("taken");
            cx.new_runs.pop().expect("a successor")
        });
        child = Driver::adopt(next, child.now, child.ids.clone());
        chain.push(child.run.state.clone());
    }
    for state in &chain {
        assert_eq!(
            state.agents, request.agents,
            "runs that continue it are under the same"
        );
        assert_eq!(request.began(state), Some(CHILD_RUN.into()));
        assert_eq!(other.began(state), None);
    }

    // A parent that was reset asks by the same request id, as another run.
    let mut again = request.clone();
    if let Some(parent) = &mut again.attributes.parent_workflow_execution {
        parent.run_id = uuid(99);
    }
    assert_eq!(again.began(&chain[2]), Some(CHILD_RUN.into()));
    again.request_id = format!("{}:5", uuid(99));
    assert_eq!(again.began(&chain[2]), None);
}

#[test]
fn every_end_of_a_child_has_its_event() {
    let table = [
        (
            completed(),
            Some(EventType::ChildWorkflowExecutionCompleted),
        ),
        (
            A::WorkflowExecutionFailedEventAttributes(WorkflowExecutionFailedEventAttributes {
                retry_state: RetryState::MaximumAttemptsReached as i32,
                ..Default::default()
            }),
            Some(EventType::ChildWorkflowExecutionFailed),
        ),
        (
            A::WorkflowExecutionCanceledEventAttributes(
                WorkflowExecutionCanceledEventAttributes::default(),
            ),
            Some(EventType::ChildWorkflowExecutionCanceled),
        ),
        (
            A::WorkflowExecutionTimedOutEventAttributes(
                WorkflowExecutionTimedOutEventAttributes::default(),
            ),
            Some(EventType::ChildWorkflowExecutionTimedOut),
        ),
        (
            A::WorkflowExecutionTerminatedEventAttributes(
                WorkflowExecutionTerminatedEventAttributes::default(),
            ),
            Some(EventType::ChildWorkflowExecutionTerminated),
        ),
        (
            A::WorkflowExecutionContinuedAsNewEventAttributes(
                WorkflowExecutionContinuedAsNewEventAttributes::default(),
            ),
            None,
        ),
    ];
    for (close, expected) in table {
        let mut parent = parent_with_child(true);
        parent
            .step(|run, cx| run.child_closed(cx, &closed_by(close.clone())))
            .expect("taken");
        assert_eq!(
            parent.run.state.children.is_empty(),
            expected.is_some(),
            "{close:?}"
        );
        if let Some(expected) = expected {
            assert_eq!(parent.count(expected), 1, "{close:?}");
        }
        if let Some(A::ChildWorkflowExecutionFailedEventAttributes(failed)) =
            expected.and_then(|expected| parent.find(expected).attributes)
        {
            assert_eq!(failed.retry_state(), RetryState::MaximumAttemptsReached);
        }
    }
}

#[test]
fn a_child_may_close_before_its_start_is_known() {
    let mut parent = parent_with_child(false);
    parent
        .step(|run, cx| run.child_closed(cx, &closed_by(completed())))
        .expect("taken");
    let started = parent.find(EventType::ChildWorkflowExecutionStarted);
    let closed = parent.find(EventType::ChildWorkflowExecutionCompleted);
    assert_eq!(closed.event_id, started.event_id + 1);
    let (
        Some(A::ChildWorkflowExecutionStartedEventAttributes(started_attributes)),
        Some(A::ChildWorkflowExecutionCompletedEventAttributes(closed_attributes)),
    ) = (started.attributes, closed.attributes)
    else {
        panic!("wrong attributes");
    };
    assert_eq!(
        started_attributes.workflow_execution.map(|e| e.run_id),
        Some(CHILD_RUN.to_owned())
    );
    assert_eq!(closed_attributes.started_event_id, started.event_id);
    assert_eq!(parent.count(EventType::WorkflowTaskScheduled), 2);
}

#[test]
fn news_of_a_child_waits_for_the_workflow_task_in_progress() {
    let mut parent = parent_with_child(false);
    let signal = Signal {
        name: "poke".into(),
        ..Signal::default()
    };
    parent
        .step(|run, cx| run.signal(cx, signal))
        .expect("taken");
    parent.take_task();
    parent
        .step(|run, cx| run.child_started(cx, 5, CHILD_RUN.to_owned()))
        .expect("taken");
    parent
        .step(|run, cx| run.child_closed(cx, &closed_by(completed())))
        .expect("taken");
    assert_eq!(parent.count(EventType::ChildWorkflowExecutionStarted), 0);
    assert!(parent.run.state.children.is_empty());

    parent.complete(answer());
    let started = parent.find(EventType::ChildWorkflowExecutionStarted);
    let Some(A::ChildWorkflowExecutionCompletedEventAttributes(closed)) = parent
        .find(EventType::ChildWorkflowExecutionCompleted)
        .attributes
    else {
        panic!("wrong attributes");
    };
    assert_eq!(closed.started_event_id, started.event_id);
}

#[test]
fn a_closed_parent_takes_no_news() {
    let mut parent = parent_with_child(true);
    parent
        .step(|run, cx| run.child_closed(cx, &closed_by(completed())))
        .expect("taken");
    parent.command(vec![complete()]);
    let records = parent.records.len();
    let answer = parent.step(|run, cx| run.child_closed(cx, &closed_by(completed())));
    assert!(matches!(answer, Err(Error::NotFound(_))));
    parent
        .step(|run, cx| run.child_started(cx, 5, CHILD_RUN.to_owned()))
        .expect("ignored");
    parent
        .step(|run, cx| run.external_signal_delivered(cx, 5, Ok(())))
        .expect("ignored");
    parent
        .step(|run, cx| run.external_cancel_delivered(cx, 5, Ok(())))
        .expect("ignored");
    assert_eq!(parent.records.len(), records);
}

#[test]
fn a_child_is_started_with_what_its_parent_says() {
    let mut parent = Driver::start_with(|start| {
        start.priority = Some(Priority {
            priority_key: 2,
            ..Priority::default()
        });
        start.root_workflow_execution = Some(WorkflowExecution {
            workflow_id: "root".into(),
            run_id: uuid(9),
        });
    });
    parent.command(vec![
        StartChildWorkflowExecutionCommandAttributes {
            task_queue: queue("elsewhere"),
            workflow_execution_timeout: Some(duration(60 * SECOND)),
            workflow_task_timeout: Some(duration(500 * SECOND)),
            workflow_id_reuse_policy: WorkflowIdReusePolicy::RejectDuplicate as i32,
            retry_policy: Some(RetryPolicy {
                maximum_attempts: 3,
                ..RetryPolicy::default()
            }),
            cron_schedule: "@every 1h".into(),
            memo: Some(Memo {
                fields: [("note".to_owned(), payload("memo"))].into(),
            }),
            priority: Some(Priority {
                fairness_key: "tenant".into(),
                ..Priority::default()
            }),
            ..child_command("child")
        }
        .into_command(),
    ]);
    let request = parent.run.child_start_request(5).expect("to be started");
    let ChildStart { attributes, .. } = request.clone();
    assert_eq!(request.namespace_id, "namespace-id");
    assert_eq!(request.workflow_id, "child");
    assert_eq!(request.request_id, format!("{}:5", uuid(1)));
    assert_eq!(request.reuse_policy, WorkflowIdReusePolicy::RejectDuplicate);
    assert_eq!(request.user_metadata, Some(summary()));
    assert_eq!(
        attributes
            .task_queue
            .as_ref()
            .map(|queue| queue.name.as_str()),
        Some("elsewhere")
    );
    assert_eq!(attributes.input, payloads("input"));
    assert_eq!(attributes.header, header());
    assert_eq!(span(&attributes.workflow_execution_timeout), 60 * SECOND);
    assert_eq!(
        span(&attributes.workflow_run_timeout),
        60 * SECOND,
        "not longer than all runs"
    );
    assert_eq!(
        span(&attributes.workflow_task_timeout),
        60 * SECOND,
        "not longer than the run"
    );
    let policy = attributes.retry_policy.clone().expect("a policy");
    assert_eq!(
        (policy.maximum_attempts, span(&policy.initial_interval)),
        (3, SECOND)
    );
    assert_eq!(attributes.parent_workflow_namespace, "default");
    assert_eq!(attributes.parent_workflow_namespace_id, "namespace-id");
    assert_eq!(attributes.parent_initiated_event_id, 5);
    assert_eq!(
        attributes
            .parent_workflow_execution
            .clone()
            .map(|e| (e.workflow_id, e.run_id)),
        Some(("workflow".into(), uuid(1)))
    );
    assert_eq!(
        attributes
            .root_workflow_execution
            .clone()
            .map(|e| e.workflow_id),
        Some("root".into())
    );
    let priority = attributes.priority.clone().expect("a priority");
    assert_eq!(
        (priority.priority_key, priority.fairness_key.as_str()),
        (2, "tenant")
    );

    // The child waits for the first time of its schedule.
    let child = drive(
        request.into_start_run(CHILD_RUN.to_owned(), parent.now),
        parent.now,
    );
    assert_eq!(child.run.state.first_task_at, parent.now + 3600 * SECOND);
    assert_eq!(child.run.workflow_task(), None);
}

#[test]
fn what_a_child_command_leaves_open_comes_from_the_parent_and_the_limits() {
    let mut parent = Driver::start();
    parent.command(vec![child_command("child").into_command()]);
    let Some(A::StartChildWorkflowExecutionInitiatedEventAttributes(initiated)) = parent
        .find(EventType::StartChildWorkflowExecutionInitiated)
        .attributes
    else {
        panic!("wrong attributes");
    };
    assert_eq!(
        initiated
            .task_queue
            .as_ref()
            .map(|queue| queue.name.as_str()),
        Some("queue")
    );
    assert_eq!(span(&initiated.workflow_run_timeout), 0);
    assert_eq!(span(&initiated.workflow_task_timeout), 10 * SECOND);
    assert_eq!(
        initiated.parent_close_policy(),
        ParentClosePolicy::Terminate
    );
    assert_eq!(
        initiated.workflow_id_reuse_policy(),
        WorkflowIdReusePolicy::AllowDuplicate
    );
    assert_eq!(initiated.retry_policy, None);
    assert_eq!(initiated.namespace, "default");

    let start = parent.run.child_start_request(5).expect("to be started");
    let root = start.attributes.root_workflow_execution.expect("a root");
    assert_eq!(
        (root.workflow_id, root.run_id),
        ("workflow".into(), uuid(1))
    );

    parent
        .step(|run, cx| run.child_started(cx, 5, CHILD_RUN.to_owned()))
        .expect("taken");
    assert!(parent.run.child_start_request(5).is_none(), "it is done");
    assert!(
        parent.run.child_start_request(4).is_none(),
        "there is no such child"
    );
}

#[test]
fn a_child_knows_the_agents_above_it() {
    let mut run = Driver::start();
    let mut above: Vec<String> = Vec::new();
    for depth in 1..13 {
        assert_eq!(run.run.state.agents, above);
        let own = format!("default/{}", run.run.state.workflow_type());
        above.insert(0, own);
        above.truncate(10);
        run.command(vec![child_command("child").into_command()]);
        let request = run.run.child_start_request(5).expect("to be started");
        run = drive(request.into_start_run(uuid(100 + depth), run.now), run.now);
    }
    assert_eq!(run.run.state.agents.len(), 10);
}

#[test]
fn a_child_tells_its_parent_when_its_chain_ends() {
    let start = |cron: &str| {
        let mut parent = Driver::start();
        parent.command(vec![
            StartChildWorkflowExecutionCommandAttributes {
                cron_schedule: cron.into(),
                ..child_command("child")
            }
            .into_command(),
        ]);
        let mut request = parent.run.child_start_request(5).expect("to be started");
        // As in a later run of the chain.
        request.attributes.first_execution_run_id = CHILD_RUN.to_owned();
        let mut start = request.into_start_run(LAST_CHILD_RUN.to_owned(), parent.now);
        start.delay = 0;
        drive(start, parent.now)
    };
    type Close = fn(&mut Driver);
    let complete: Close = |child| child.command(vec![complete()]);
    let fail: Close = |child| child.command(vec![fail()]);
    let cancel: Close = |child| child.command(vec![cancel()]);
    let continue_as_new: Close = |child| child.command(vec![continue_as_new()]);
    let terminate: Close = |child| {
        child
            .step(|run, cx| run.terminate(cx, "enough".into(), None, "me".into(), Vec::new()))
            .expect("it is running");
    };
    let reset: Close = |child| {
        child
            .step(|run, cx| run.terminate_for_reset(cx, &ResetWorkflowExecutionRequest::default()))
            .expect("it is running");
    };
    let table = [
        (
            "complete",
            "",
            complete,
            Some(EventType::WorkflowExecutionCompleted),
        ),
        ("fail", "", fail, Some(EventType::WorkflowExecutionFailed)),
        (
            "cancel",
            "",
            cancel,
            Some(EventType::WorkflowExecutionCanceled),
        ),
        (
            "terminate",
            "",
            terminate,
            Some(EventType::WorkflowExecutionTerminated),
        ),
        ("continue as new", "", continue_as_new, None),
        ("complete on a schedule", "@hourly", complete, None),
        (
            "terminate on a schedule",
            "@hourly",
            terminate,
            Some(EventType::WorkflowExecutionTerminated),
        ),
        ("reset", "", reset, None),
    ];
    for (name, cron, close, expected) in table {
        let mut child = start(cron);
        close(&mut child);
        assert!(!child.run.state.is_running(), "{name}");
        let Some(expected) = expected else {
            assert_eq!(child.messages(), [], "{name}");
            continue;
        };
        assert_eq!(child.messages().len(), 1, "{name}");
        let message = child.messages().remove(0);
        assert_eq!(
            (
                message.namespace_id.as_str(),
                message.workflow_id.as_str(),
                &message.run_id
            ),
            ("namespace-id", "workflow", &uuid(1)),
            "{name}"
        );
        let Some(Delivery::ChildClosed(closed)) = &message.delivery else {
            panic!("{name}")
        };
        assert_eq!(
            (&closed.first_run_id, &closed.run_id),
            (&CHILD_RUN.to_owned(), &LAST_CHILD_RUN.to_owned()),
            "{name}"
        );
        assert_eq!(
            (closed.initiated_event_id, closed.workflow_type.as_str()),
            (5, "Child"),
            "{name}"
        );
        let event = HistoryEvent::decode(closed.close_event.as_slice()).expect("an event");
        assert_eq!(event, child.last_event(), "{name}");
        assert_eq!(event.event_type(), expected, "{name}");
        assert_eq!(
            child.run.state.outbox.len(),
            1,
            "{name}: until it is delivered"
        );
    }
}

#[test]
fn the_end_of_a_parent_reaches_its_children() {
    use ParentClosePolicy::{Abandon, RequestCancel, Terminate};
    let all_policies = || {
        let mut parent = Driver::start();
        parent.command(vec![
            child_with_policy("terminated", Terminate),
            child_with_policy("cancelled", RequestCancel),
            child_with_policy("abandoned", Abandon),
            child_with_policy("unstarted", Terminate),
            child_with_policy("unstarted-abandoned", Abandon),
        ]);
        for (initiated, run) in [(5, 15), (6, 16), (7, 17)] {
            parent
                .step(|run_, cx| run_.child_started(cx, initiated, uuid(run)))
                .expect("taken");
        }
        parent
    };
    let told = vec![
        (
            "terminated".to_owned(),
            uuid(15),
            Some(Delivery::ParentClosed(Terminate as i32)),
        ),
        (
            "cancelled".to_owned(),
            uuid(16),
            Some(Delivery::ParentClosed(RequestCancel as i32)),
        ),
        // Its start may be under way.
        (
            "unstarted".to_owned(),
            String::new(),
            Some(Delivery::ParentClosed(Terminate as i32)),
        ),
    ];
    type Close = fn(&mut Driver);
    let reset: Close = |parent| {
        parent
            .step(|run, cx| run.terminate_for_reset(cx, &ResetWorkflowExecutionRequest::default()))
            .expect("it is running");
    };
    let terminate: Close = |parent| {
        parent
            .step(|run, cx| run.terminate(cx, "enough".into(), None, "me".into(), Vec::new()))
            .expect("it is running");
    };
    let table: [(&str, Close, bool); 6] = [
        ("complete", |parent| parent.command(vec![complete()]), true),
        ("fail", |parent| parent.command(vec![fail()]), true),
        ("cancel", |parent| parent.command(vec![cancel()]), true),
        (
            "continue as new",
            |parent| parent.command(vec![continue_as_new()]),
            true,
        ),
        ("terminate", terminate, true),
        ("reset", reset, false),
    ];
    for (name, close, reaches) in table {
        let mut parent = all_policies();
        close(&mut parent);
        let messages: Vec<_> = parent
            .messages()
            .into_iter()
            .map(|message| (message.workflow_id, message.run_id, message.delivery))
            .collect();
        assert_eq!(
            messages,
            if reaches { told.clone() } else { Vec::new() },
            "{name}"
        );
        // What was not started or sent by then never will be.
        assert_eq!(parent.run.state.outbox.len(), messages.len(), "{name}");
        assert!(parent.run.child_start_request(8).is_none(), "{name}");
        assert!(parent.run.child_start_request(9).is_none(), "{name}");
    }
}

#[test]
fn a_run_that_closes_does_not_send_what_it_had_to_send() {
    let mut parent = Driver::start();
    parent.command(vec![
        signal_command("other", "").into_command(),
        cancel_command("other", "").into_command(),
        child_with_policy("child", ParentClosePolicy::Abandon),
        complete(),
    ]);
    assert_eq!(parent.messages(), []);
    assert!(parent.run.state.outbox.is_empty());
    assert!(parent.run.external_signal_request(5).is_none());
    assert!(parent.run.external_cancel_request(6).is_none());
}

#[test]
fn which_commands_break_the_rules() {
    use WorkflowTaskFailedCause as F;
    let child = |change: fn(&mut StartChildWorkflowExecutionCommandAttributes)| {
        let mut command = child_command("child");
        change(&mut command);
        vec![command.into_command()]
    };
    #[allow(deprecated)]
    let in_namespace = |name: &str| StartChildWorkflowExecutionCommandAttributes {
        namespace: name.into(),
        ..child_command("child")
    };
    let bad_child = Some(F::BadStartChildExecutionAttributes);
    let bad_signal = Some(F::BadSignalWorkflowExecutionAttributes);
    let bad_cancel = Some(F::BadRequestCancelExternalWorkflowExecutionAttributes);
    let table: Vec<(&str, Vec<C>, Option<F>)> = vec![
        ("a child", child(|_| {}), None),
        (
            "own namespace",
            vec![in_namespace("default").into_command()],
            None,
        ),
        (
            "another namespace",
            vec![in_namespace("other").into_command()],
            bad_child,
        ),
        ("no id", child(|c| c.workflow_id.clear()), bad_child),
        ("no type", child(|c| c.workflow_type = None), bad_child),
        (
            "long id",
            child(|c| c.workflow_id = "i".repeat(1001)),
            bad_child,
        ),
        (
            "long queue",
            child(|c| c.task_queue = queue(&"q".repeat(1001))),
            bad_child,
        ),
        (
            "negative time-out",
            child(|c| {
                c.workflow_run_timeout = Some(prost_types::Duration {
                    seconds: -1,
                    nanos: 0,
                })
            }),
            bad_child,
        ),
        (
            "bad retry policy",
            child(|c| {
                c.retry_policy = Some(RetryPolicy {
                    backoff_coefficient: 0.5,
                    ..Default::default()
                });
            }),
            bad_child,
        ),
        (
            "open retry policy",
            child(|c| c.retry_policy = Some(RetryPolicy::default())),
            None,
        ),
        (
            "bad schedule",
            child(|c| c.cron_schedule = "sometimes".into()),
            bad_child,
        ),
        (
            "bad priority",
            child(|c| {
                c.priority = Some(Priority {
                    priority_key: -1,
                    ..Default::default()
                })
            }),
            bad_child,
        ),
        (
            "large input",
            child(|c| c.input = payloads(&"x".repeat(2 << 20))),
            bad_child,
        ),
        (
            "large memo",
            child(|c| {
                let fields = [("note".to_owned(), payload(&"x".repeat(2 << 20)))].into();
                c.memo = Some(Memo { fields });
            }),
            bad_child,
        ),
        (
            "too many children",
            (0..4)
                .map(|n| child_command(&format!("child-{n}")).into_command())
                .collect(),
            Some(F::PendingChildWorkflowsLimitExceeded),
        ),
        (
            "a signal",
            vec![signal_command("other", "").into_command()],
            None,
        ),
        (
            "a signal to a run",
            vec![signal_command("other", &uuid(1)).into_command()],
            None,
        ),
        (
            "a signal to nobody",
            vec![signal_command("", "").into_command()],
            bad_signal,
        ),
        (
            "a signal to a bad run",
            vec![signal_command("other", "run").into_command()],
            bad_signal,
        ),
        (
            "a signal without target",
            vec![
                SignalExternalWorkflowExecutionCommandAttributes {
                    execution: None,
                    ..signal_command("other", "")
                }
                .into_command(),
            ],
            bad_signal,
        ),
        (
            "a signal without name",
            vec![
                SignalExternalWorkflowExecutionCommandAttributes {
                    signal_name: String::new(),
                    ..signal_command("other", "")
                }
                .into_command(),
            ],
            bad_signal,
        ),
        (
            "too many signals",
            (0..4)
                .map(|_| signal_command("other", "").into_command())
                .collect(),
            Some(F::PendingSignalsLimitExceeded),
        ),
        (
            "a cancel request",
            vec![cancel_command("other", "").into_command()],
            None,
        ),
        (
            "a cancel request to nobody",
            vec![cancel_command("", "").into_command()],
            bad_cancel,
        ),
        (
            "a cancel request to a bad run",
            vec![cancel_command("other", "run").into_command()],
            bad_cancel,
        ),
        (
            "too many cancel requests",
            (0..4)
                .map(|_| cancel_command("other", "").into_command())
                .collect(),
            Some(F::PendingRequestCancelLimitExceeded),
        ),
        (
            "a child started and cancelled",
            vec![
                child_command("child").into_command(),
                cancel_command("child", "").into_command(),
            ],
            bad_cancel,
        ),
        (
            "a cancel request, then a child",
            vec![
                cancel_command("child", "").into_command(),
                child_command("child").into_command(),
            ],
            None,
        ),
    ];
    for (name, commands, expected) in table {
        let mut run = Driver::start();
        run.limits.pending = 3;
        let refusal = match run.answer(commands) {
            Completion::Refused(Error::BadCommand { cause, .. }) => Some(cause),
            Completion::Done(_) => None,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(refusal, expected, "{name}");
    }
}

#[test]
fn a_namespace_that_is_not_there_is_not_the_workflows_fault() {
    let mut parent = Driver::start();
    let task = parent.run.workflow_task().expect("started").clone();
    let request = commands([StartChildWorkflowExecutionCommandAttributes {
        namespace: "nowhere".into(),
        ..child_command("child")
    }
    .into_command()]);
    let refused = parent.respond(request);
    assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
    assert_eq!(parent.run.workflow_task(), Some(&task), "the task goes on");
}
