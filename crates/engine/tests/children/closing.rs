//! What a closing run tells its parent and its children.

use prost::Message;
use steadfast_engine::proto::command::{
    CancelWorkflowExecutionCommandAttributes, FailWorkflowExecutionCommandAttributes,
    StartChildWorkflowExecutionCommandAttributes, command::Attributes as C,
};
use steadfast_engine::proto::enums::{EventType, ParentClosePolicy};
use steadfast_engine::proto::failure::Failure;
use steadfast_engine::proto::history::HistoryEvent;
use steadfast_engine::proto::workflowservice::ResetWorkflowExecutionRequest;
use steadfast_engine::state::Delivery;

use crate::driver::Driver;
use crate::driver::family::{
    CHILD_RUN, IntoCommand, LAST_CHILD_RUN, Looks, cancel_command, child_command, complete,
    signal_command, uuid,
};
use crate::{continue_as_new, drive};

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
