//! Signals and cancel requests to other workflows.

use steadfast_engine::proto::command::SignalExternalWorkflowExecutionCommandAttributes;
use steadfast_engine::proto::enums::{
    CancelExternalWorkflowExecutionFailedCause, EventType,
    SignalExternalWorkflowExecutionFailedCause,
};
use steadfast_engine::proto::history::history_event::Attributes as A;
use steadfast_engine::signal::CancelRequest;
use steadfast_engine::state::Delivery;

mod driver;

use driver::Driver;
use driver::family::{
    CHILD_RUN, IntoCommand, Looks, cancel_command, header, payloads, signal_command, uuid,
};

#[test]
fn a_signal_to_another_workflow_is_delivered() {
    let mut sender = Driver::start();
    sender.command(vec![
        SignalExternalWorkflowExecutionCommandAttributes {
            child_workflow_only: true,
            ..signal_command("other", CHILD_RUN)
        }
        .into_command(),
    ]);
    assert_eq!(sender.messages().len(), 1);
    let message = sender.messages().remove(0);
    assert_eq!(message.delivery, Some(Delivery::Signal(5)));
    assert_eq!(
        (message.workflow_id.as_str(), &message.run_id),
        ("other", &CHILD_RUN.to_owned())
    );

    let (target, signal, child_only) = sender.run.external_signal_request(5).expect("to be sent");
    assert_eq!(
        (target.workflow_id.as_str(), &target.run_id),
        ("other", &CHILD_RUN.to_owned())
    );
    assert_eq!(
        (target.namespace_id.as_str(), target.is_sender, child_only),
        ("namespace-id", false, true)
    );
    assert_eq!(signal.name, "poke");
    assert_eq!(
        (&signal.input, &signal.header),
        (&payloads("input"), &header())
    );
    assert_eq!(signal.request_id, format!("{}:5", uuid(1)));

    // The receiver takes it once.
    let mut receiver = Driver::start();
    receiver
        .step(|run, cx| run.signal(cx, signal.clone()))
        .expect("taken");
    receiver
        .step(|run, cx| run.signal(cx, signal))
        .expect("known");
    let Some(A::WorkflowExecutionSignaledEventAttributes(signaled)) = receiver
        .find(EventType::WorkflowExecutionSignaled)
        .attributes
    else {
        panic!("wrong attributes");
    };
    assert_eq!(
        signaled.external_workflow_execution.map(|e| e.run_id),
        Some(uuid(1))
    );
    assert_eq!(receiver.count(EventType::WorkflowExecutionSignaled), 1);

    sender
        .step(|run, cx| run.external_signal_delivered(cx, 5, Ok(())))
        .expect("taken");
    sender
        .step(|run, cx| run.external_signal_delivered(cx, 5, Ok(())))
        .expect("known");
    let Some(A::ExternalWorkflowExecutionSignaledEventAttributes(delivered)) = sender
        .find(EventType::ExternalWorkflowExecutionSignaled)
        .attributes
    else {
        panic!("wrong attributes");
    };
    assert_eq!(delivered.initiated_event_id, 5);
    assert_eq!(
        delivered.workflow_execution.map(|e| e.workflow_id),
        Some("other".into())
    );
    assert_eq!(
        sender.count(EventType::ExternalWorkflowExecutionSignaled),
        1
    );
    assert!(sender.run.state.external_signals.is_empty());
    assert_eq!(
        sender.last_event().event_type(),
        EventType::WorkflowTaskScheduled
    );
}

#[test]
fn a_cancel_request_to_another_workflow_is_delivered() {
    let mut sender = Driver::start();
    sender.command(vec![cancel_command("other", "").into_command()]);
    assert_eq!(sender.messages()[0].delivery, Some(Delivery::Cancel(5)));

    let (target, request, child_only) = sender.run.external_cancel_request(5).expect("to be sent");
    assert_eq!(
        (
            target.workflow_id.as_str(),
            target.run_id.as_str(),
            child_only
        ),
        ("other", "", false)
    );
    let CancelRequest {
        reason,
        request_id,
        external,
        ..
    } = request.clone();
    assert_eq!(
        (reason.as_str(), request_id),
        ("enough", format!("{}:5", uuid(1)))
    );
    assert_eq!(
        external.map(|(by, initiated)| (by.workflow_id, initiated)),
        Some(("workflow".into(), 5))
    );

    let mut receiver = Driver::start();
    receiver
        .step(|run, cx| run.request_cancel(cx, request))
        .expect("taken");
    assert!(receiver.run.state.cancel_requested);
    assert!(receiver.run.has_taken(&format!("{}:5", uuid(1))));

    sender
        .step(|run, cx| run.external_cancel_delivered(cx, 5, Ok(())))
        .expect("taken");
    sender
        .step(|run, cx| run.external_cancel_delivered(cx, 5, Ok(())))
        .expect("known");
    assert_eq!(
        sender.count(EventType::ExternalWorkflowExecutionCancelRequested),
        1
    );
    assert!(sender.run.state.external_cancels.is_empty());
    assert_eq!(
        sender.last_event().event_type(),
        EventType::WorkflowTaskScheduled
    );
}

#[test]
fn what_cannot_be_delivered_is_an_event() {
    let mut sender = Driver::start();
    sender.command(vec![
        signal_command("workflow", "").into_command(),
        cancel_command("workflow", "").into_command(),
    ]);
    let (target, ..) = sender.run.external_signal_request(5).expect("to be sent");
    assert!(target.is_sender);
    let (target, ..) = sender.run.external_cancel_request(6).expect("to be sent");
    assert!(target.is_sender);

    let cause = SignalExternalWorkflowExecutionFailedCause::ExternalWorkflowExecutionNotFound;
    sender
        .step(|run, cx| run.external_signal_delivered(cx, 5, Err(cause)))
        .expect("taken");
    let Some(A::SignalExternalWorkflowExecutionFailedEventAttributes(failed)) = sender
        .find(EventType::SignalExternalWorkflowExecutionFailed)
        .attributes
    else {
        panic!("wrong attributes");
    };
    assert_eq!((failed.cause(), failed.initiated_event_id), (cause, 5));

    let cause = CancelExternalWorkflowExecutionFailedCause::ExternalWorkflowExecutionNotFound;
    sender
        .step(|run, cx| run.external_cancel_delivered(cx, 6, Err(cause)))
        .expect("taken");
    let Some(A::RequestCancelExternalWorkflowExecutionFailedEventAttributes(failed)) = sender
        .find(EventType::RequestCancelExternalWorkflowExecutionFailed)
        .attributes
    else {
        panic!("wrong attributes");
    };
    assert_eq!((failed.cause(), failed.initiated_event_id), (cause, 6));
    assert!(sender.run.state.external_signals.is_empty());
    assert!(sender.run.state.external_cancels.is_empty());
}
