//! What a parent is told of its children, from the start to the end.

use steadfast_engine::Error;
use steadfast_engine::proto::enums::{
    EventType, RetryState, StartChildWorkflowExecutionFailedCause,
};
use steadfast_engine::proto::history::{
    WorkflowExecutionCanceledEventAttributes, WorkflowExecutionContinuedAsNewEventAttributes,
    WorkflowExecutionFailedEventAttributes, WorkflowExecutionTerminatedEventAttributes,
    WorkflowExecutionTimedOutEventAttributes, history_event::Attributes as A,
};
use steadfast_engine::signal::Signal;
use steadfast_engine::state::{ChildClosed, Delivery};

use crate::driver::family::{
    CHILD_RUN, IntoCommand, LAST_CHILD_RUN, Looks, child_command, closed_by, complete, completed,
    header, payloads, summary, uuid, workflow_type,
};
use crate::driver::{Driver, answer};

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
