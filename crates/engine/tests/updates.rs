//! Updates over a whole run: what ends up in history, and what callers see.

// Tests fail by panicking.
#![allow(clippy::unwrap_used)]

mod driver;

use driver::{
    Driver, accept, answer, commands, complete, failure, message, messages, reject, request,
    success,
};
use prost::Message;
use steadfast_engine::commands::Completion;
use steadfast_engine::proto::command::{
    CompleteWorkflowExecutionCommandAttributes, ContinueAsNewWorkflowExecutionCommandAttributes,
    ProtocolMessageCommandAttributes, StartTimerCommandAttributes, command::Attributes as C,
};
use steadfast_engine::proto::enums::{EventType, WorkflowTaskFailedCause};
use steadfast_engine::proto::failure::failure::FailureInfo;
use steadfast_engine::proto::history::history_event::Attributes as A;
use steadfast_engine::proto::protocol::{self, message::SequencingId};
use steadfast_engine::proto::update::{Acceptance, Outcome, Request, Response, outcome};
use steadfast_engine::signal::Signal;
use steadfast_engine::time::duration;
use steadfast_engine::update::{Abort, UpdateView};
use steadfast_engine::{Effect, Error};

const TASK: [&str; 3] = [
    "WORKFLOW_TASK_SCHEDULED",
    "WORKFLOW_TASK_STARTED",
    "WORKFLOW_TASK_COMPLETED",
];

impl Driver {
    fn admit(&mut self, id: &str) -> Result<(), Error> {
        self.step(|run, cx| run.admit_update(cx, request(id)))
    }

    fn changed_updates(&self) -> Vec<&str> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::UpdateChanged { update_id, .. } => Some(update_id.as_str()),
                _ => None,
            })
            .collect()
    }

    fn failure_type(&self, id: &str) -> String {
        let UpdateView::Completed(Outcome {
            value: Some(outcome::Value::Failure(failure)),
        }) = self.run.update_view(id)
        else {
            panic!("{id} has not failed: {:?}", self.run.update_view(id));
        };
        match failure.failure_info {
            Some(FailureInfo::ApplicationFailureInfo(info)) => {
                assert!(info.non_retryable);
                info.r#type
            }
            _ => String::new(),
        }
    }
}

fn finish() -> C {
    C::CompleteWorkflowExecutionCommandAttributes(
        CompleteWorkflowExecutionCommandAttributes::default(),
    )
}

fn timer(id: &str) -> C {
    C::StartTimerCommandAttributes(StartTimerCommandAttributes {
        timer_id: id.into(),
        start_to_fire_timeout: Some(duration(1)),
    })
}

fn rejected() -> UpdateView {
    UpdateView::Completed(Outcome {
        value: Some(outcome::Value::Failure(failure("no"))),
    })
}

#[test]
fn an_update_is_accepted_and_completed_in_one_task() {
    let mut driver = Driver::waiting();
    let records = driver.records.len();
    driver.admit("u").unwrap();
    assert!(matches!(
        driver.effects[..],
        [Effect::WorkflowTask {
            scheduled_event_id: 5,
            ..
        }]
    ));
    assert_eq!(driver.run.update_view("u"), UpdateView::Admitted);
    assert_eq!(driver.run.update_view("other"), UpdateView::Unknown);

    let (task, sent) = driver.take_task();
    assert!(task.speculative);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].id, "u/request");
    assert_eq!(sent[0].protocol_instance_id, "u");
    assert_eq!(sent[0].sequencing_id, Some(SequencingId::EventId(5)));
    let body = sent[0].body.clone().unwrap();
    assert_eq!(
        body.type_url,
        "type.googleapis.com/temporal.api.update.v1.Request"
    );
    assert_eq!(
        Request::decode(body.value.as_slice()).unwrap(),
        request("u")
    );
    assert_eq!(driver.records.len(), records, "nothing of this is durable");

    driver.complete(messages([accept("u"), complete("u")]));
    assert_eq!(driver.changed_updates(), ["u", "u"]);
    assert_eq!(
        driver.run.update_view("u"),
        UpdateView::Completed(success("done"))
    );
    assert_eq!(
        driver.types_from(5),
        [&TASK[..], &["UPDATE_ACCEPTED", "UPDATE_COMPLETED"]].concat()
    );
    let A::WorkflowExecutionUpdateAcceptedEventAttributes(accepted) = driver.event(8) else {
        panic!()
    };
    assert_eq!(accepted.protocol_instance_id, "u");
    assert_eq!(accepted.accepted_request_message_id, "u/request");
    assert_eq!(accepted.accepted_request_sequencing_event_id, 4);
    assert_eq!(accepted.accepted_request, Some(request("u")));
    let A::WorkflowExecutionUpdateCompletedEventAttributes(completed) = driver.event(9) else {
        panic!()
    };
    assert_eq!(completed.accepted_event_id, 8);
    assert_eq!(completed.outcome, Some(success("done")));
    let attached = &driver.run.state.request_ids["u-request"];
    assert_eq!(
        attached.event_type,
        EventType::WorkflowExecutionUpdateAccepted as i32
    );
    assert_eq!(attached.event_id, 8);
    assert_eq!(driver.run.state.update_count, 1);
}

#[test]
fn an_update_that_is_only_accepted_is_completed_later_and_outlives_the_server() {
    let mut driver = Driver::waiting();
    driver.admit("u").unwrap();
    driver.take_task();
    driver.complete(messages([accept("u")]));
    assert_eq!(driver.run.update_view("u"), UpdateView::Accepted);
    assert!(driver.run.workflow_task().is_none());
    driver.restart();
    assert_eq!(driver.run.update_view("u"), UpdateView::Accepted);

    driver
        .step(|run, cx| run.signal(cx, Signal::default()))
        .unwrap();
    let (_, sent) = driver.take_task();
    assert_eq!(sent, [], "it is in the worker's hands already");
    driver.complete(messages([complete("u")]));
    assert_eq!(
        driver.run.update_view("u"),
        UpdateView::Completed(success("done"))
    );
}

#[test]
fn a_rejected_update_leaves_no_trace() {
    let mut driver = Driver::waiting();
    let before = driver.run.state.clone();
    driver.admit("u").unwrap();
    driver.take_task();
    let completion = driver.respond(messages([reject("u")])).unwrap();
    let Completion::Done(done) = completion else {
        panic!("{completion:?}")
    };
    assert_eq!(
        done.reset_history_event_id, 3,
        "the worker forgets the task, too"
    );
    assert_eq!(driver.run.state, before);
    assert!(driver.run.workflow_task().is_none());
    assert_eq!(driver.changed_updates(), ["u"]);
    assert_eq!(driver.run.update_view("u"), rejected());

    // The id is free again.
    driver.admit("u").unwrap();
    assert_eq!(driver.run.update_view("u"), UpdateView::Admitted);
    driver.take_task();
    driver.complete(messages([accept("u"), complete("u")]));
    assert_eq!(
        driver.run.update_view("u"),
        UpdateView::Completed(success("done"))
    );
}

#[test]
fn a_task_with_anything_but_rejections_stays_in_history() {
    let beside_rejections: [fn(&mut Driver); 2] = [
        |driver| {
            driver.complete({
                let mut both = messages([reject("u")]);
                both.commands = commands([timer("t")]).commands;
                both
            })
        },
        |driver| {
            driver.complete({
                let mut heartbeat = messages([reject("u")]);
                heartbeat.force_create_new_workflow_task = true;
                heartbeat
            })
        },
    ];
    for respond in beside_rejections {
        let mut driver = Driver::waiting();
        driver.admit("u").unwrap();
        driver.take_task();
        respond(&mut driver);
        assert_eq!(driver.types_from(5)[..3], TASK);
        assert_eq!(driver.run.update_view("u"), rejected());
    }
}

#[test]
fn a_task_that_showed_events_is_dropped_only_for_workers_that_can_see_them_twice() {
    for (timers, takes_twice, dropped) in [
        (0, false, true),
        (1, false, false),
        (1, true, true),
        (10, true, true),
        (11, true, false),
    ] {
        let mut driver = Driver::start();
        driver.take_task();
        driver.complete(commands((0..timers).map(|n| timer(&n.to_string()))));
        let next = driver.run.state.next_event_id;
        driver.admit("u").unwrap();
        driver.take_task();
        let mut answer = messages([reject("u")]);
        answer
            .capabilities
            .get_or_insert_default()
            .discard_speculative_workflow_task_with_events = takes_twice;
        driver.complete(answer);
        let kept: &[&str] = if dropped { &[] } else { &TASK };
        assert_eq!(
            driver.types_from(next),
            kept,
            "{timers} events, twice: {takes_twice}"
        );
        assert_eq!(driver.run.update_view("u"), rejected());
    }
}

#[test]
fn a_signal_beside_an_update_makes_the_task_real() {
    let mut driver = Driver::waiting();
    driver.admit("u").unwrap();
    driver
        .step(|run, cx| run.signal(cx, Signal::default()))
        .unwrap();
    let (task, sent) = driver.take_task();
    assert!(!task.speculative);
    assert_eq!(sent.len(), 1);
    driver.complete(messages([reject("u")]));
    assert_eq!(
        driver.types_from(5),
        [
            "WORKFLOW_TASK_SCHEDULED",
            "SIGNALED",
            "WORKFLOW_TASK_STARTED",
            "WORKFLOW_TASK_COMPLETED"
        ]
    );
    assert_eq!(driver.run.update_view("u"), rejected());
}

#[test]
fn an_update_waits_for_the_task_in_progress_and_comes_with_the_next() {
    let mut driver = Driver::start();
    driver.take_task();
    driver.admit("u").unwrap();
    assert_eq!(driver.effects, []);
    driver.complete(answer());
    assert_eq!(
        driver.run.update_view("u"),
        UpdateView::Admitted,
        "the worker has not had it"
    );
    let (task, sent) = driver.take_task();
    assert!(task.speculative);
    assert_eq!(sent.len(), 1);
}

#[test]
fn an_update_that_the_worker_ignores_is_rejected() {
    let mut driver = Driver::waiting();
    driver.admit("u").unwrap();
    driver.take_task();
    driver.complete(commands([timer("t")]));
    assert_eq!(driver.failure_type("u"), "UnprocessedUpdate");
    assert!(driver.run.workflow_task().is_none());
}

#[test]
fn a_heartbeat_ignores_nothing() {
    let mut driver = Driver::waiting();
    driver.admit("u").unwrap();
    driver.take_task();
    let mut heartbeat = answer();
    heartbeat.force_create_new_workflow_task = true;
    driver.complete(heartbeat);
    assert_eq!(driver.run.update_view("u"), UpdateView::Admitted);
    let (_, sent) = driver.take_task();
    assert_eq!(sent, [], "the worker has it");
    driver.complete(messages([accept("u"), complete("u")]));
    assert_eq!(
        driver.run.update_view("u"),
        UpdateView::Completed(success("done"))
    );
}

#[test]
fn a_failed_task_brings_its_updates_again() {
    let mut driver = Driver::waiting();
    driver.admit("u").unwrap();
    driver.take_task();
    let claim = driver.claim();
    let cause = WorkflowTaskFailedCause::WorkflowWorkerUnhandledFailure;
    driver
        .step(|run, cx| {
            run.fail_workflow_task(cx, &claim, cause, None, String::new(), String::new())
        })
        .unwrap();
    assert_eq!(driver.run.update_view("u"), UpdateView::Admitted);
    let (task, sent) = driver.take_task();
    assert_eq!(task.attempt, 2);
    assert_eq!(sent.len(), 1);
    driver.complete(messages([accept("u")]));
    assert_eq!(driver.run.update_view("u"), UpdateView::Accepted);
}

#[test]
fn an_update_is_known_by_its_id() {
    let mut driver = Driver::waiting();
    driver.admit("u").unwrap();
    driver.admit("u").unwrap();
    let (_, sent) = driver.take_task();
    assert_eq!(sent.len(), 1);
    driver.complete(messages([accept("u")]));
    let state = driver.run.state.clone();
    driver.admit("u").unwrap();
    assert_eq!(driver.run.state, state);
    assert!(driver.run.workflow_task().is_none());
}

#[test]
fn refused_updates() {
    let mut driver = Driver::waiting();
    driver.limits.updates_in_flight = 2;
    driver.limits.updates_total = 3;
    for incomplete in [
        Request::default(),
        Request {
            input: None,
            ..request("u")
        },
        Request {
            meta: None,
            ..request("u")
        },
    ] {
        let refused = driver.step(|run, cx| run.admit_update(cx, incomplete));
        assert!(
            matches!(refused, Err(Error::InvalidArgument(_))),
            "{refused:?}"
        );
    }
    driver.admit("a").unwrap();
    driver.admit("b").unwrap();
    assert!(matches!(
        driver.admit("c"),
        Err(Error::ResourceExhausted(_))
    ));
    driver.take_task();
    driver.complete(messages([accept("a"), accept("b"), complete("b")]));
    driver.admit("c").unwrap();
    assert!(matches!(
        driver.admit("d"),
        Err(Error::ResourceExhausted(_))
    ));
    driver.take_task();
    driver.complete(messages([accept("c"), complete("c")]));
    assert!(matches!(
        driver.admit("d"),
        Err(Error::FailedPrecondition(_))
    ));
    driver
        .step(|run, cx| run.terminate(cx, String::new(), None, String::new(), Vec::new()))
        .unwrap();
    assert!(matches!(driver.admit("d"), Err(Error::NotFound(_))));
    driver
        .admit("b")
        .expect("what is known can be asked for again");
}

#[test]
fn a_workflow_that_cannot_proceed_takes_no_updates() {
    let mut driver = Driver::start();
    for _ in 0..2 {
        driver.take_task();
        let claim = driver.claim();
        let cause = WorkflowTaskFailedCause::NonDeterministicError;
        driver
            .step(|run, cx| {
                run.fail_workflow_task(cx, &claim, cause, None, String::new(), String::new())
            })
            .unwrap();
    }
    assert!(matches!(driver.admit("u"), Err(Error::WorkflowNotReady(_))));
}

#[test]
fn what_callers_hear_when_the_run_closes() {
    let next_run = C::ContinueAsNewWorkflowExecutionCommandAttributes(
        ContinueAsNewWorkflowExecutionCommandAttributes::default(),
    );
    for (close, abort) in [(finish(), Abort::Closed), (next_run, Abort::Continued)] {
        let mut driver = Driver::waiting();
        driver.admit("accepted").unwrap();
        driver.admit("rejected").unwrap();
        driver.take_task();
        driver.admit("late").unwrap();
        let mut answer = messages([accept("accepted"), reject("rejected")]);
        answer.commands.extend(commands([close]).commands);
        driver.complete(answer);
        assert!(!driver.run.state.is_running());
        assert_eq!(driver.run.update_view("late"), UpdateView::Aborted(abort));
        assert_eq!(driver.run.update_view("rejected"), rejected());
        assert_eq!(
            driver.failure_type("accepted"),
            "AcceptedUpdateCompletedWorkflow"
        );
        assert!(driver.changed_updates().contains(&"late"));
        driver.restart();
        assert_eq!(
            driver.failure_type("accepted"),
            "AcceptedUpdateCompletedWorkflow"
        );
    }
}

#[test]
fn answers_that_break_the_rules_fail_the_task() {
    let accept_with = |change: fn(&mut Acceptance)| {
        let mut acceptance = Acceptance {
            accepted_request_message_id: "u/request".into(),
            accepted_request_sequencing_event_id: 4,
            accepted_request: None,
        };
        change(&mut acceptance);
        message("u", "accept", &acceptance)
    };
    let table: Vec<(&str, Vec<protocol::Message>)> = vec![
        ("wasn't found", vec![accept("unknown")]),
        ("wasn't found", vec![reject("u"), reject("u")]),
        (
            "received Response message while in state Admitted",
            vec![complete("u")],
        ),
        (
            "received Acceptance message while in state Accepted",
            vec![accept("u"), accept("u")],
        ),
        (
            "received Rejection message while in state Accepted",
            vec![accept("u"), reject("u")],
        ),
        (
            "received Response message while in state Completed",
            vec![accept("u"), complete("u"), complete("u")],
        ),
        (
            "sequencing_event_id",
            vec![accept_with(|a| a.accepted_request_sequencing_event_id = 0)],
        ),
        (
            "message_id",
            vec![accept_with(|a| a.accepted_request_message_id.clear())],
        ),
        (
            "meta.update_id is not set",
            vec![accept("u"), message("u", "complete", &Response::default())],
        ),
        (
            "meta.update_id other != u",
            vec![
                accept("u"),
                protocol::Message {
                    protocol_instance_id: "u".into(),
                    ..complete("other")
                },
            ],
        ),
        ("not supported", vec![message("u", "what", &request("u"))]),
        (
            "nil body",
            vec![protocol::Message {
                body: None,
                ..accept("u")
            }],
        ),
        (
            "exceeds size limit",
            vec![accept_with(|a| {
                a.accepted_request_message_id = "x".repeat(9_999)
            })],
        ),
    ];
    for (expected, sent) in table {
        let mut driver = Driver::waiting();
        driver.limits.blob_bytes = 1_000;
        driver.admit("u").unwrap();
        driver.take_task();
        let completion = driver.respond(messages(sent)).unwrap();
        let Completion::Refused(Error::BadCommand { cause, message }) = completion else {
            panic!("{expected}: {completion:?}");
        };
        assert_eq!(
            cause,
            WorkflowTaskFailedCause::BadUpdateWorkflowExecutionMessage
        );
        assert!(message.contains(expected), "{expected}: {message}");
        assert_eq!(driver.types_from(7), ["WORKFLOW_TASK_FAILED"]);
        assert_eq!(
            driver.run.update_view("u"),
            UpdateView::Admitted,
            "it comes again"
        );
        assert_eq!(driver.take_task().1.len(), 1);
    }
}

#[test]
fn commands_place_messages_that_are_there() {
    for (id, expected) in [
        ("", "MessageID is not set"),
        ("other", "absent message ID other"),
    ] {
        let mut driver = Driver::waiting();
        driver.admit("u").unwrap();
        driver.take_task();
        let place = C::ProtocolMessageCommandAttributes(ProtocolMessageCommandAttributes {
            message_id: id.into(),
        });
        let completion = driver.respond(commands([place])).unwrap();
        let Completion::Refused(error) = completion else {
            panic!("{completion:?}")
        };
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn messages_take_effect_in_the_order_of_their_commands() {
    let mut driver = Driver::waiting();
    driver.admit("u").unwrap();
    driver.take_task();
    let mut answer = messages([accept("u"), complete("u")]);
    answer
        .commands
        .insert(1, commands([timer("t")]).commands.remove(0));
    driver.complete(answer);
    assert_eq!(
        driver.types_from(8),
        ["UPDATE_ACCEPTED", "TIMER_STARTED", "UPDATE_COMPLETED"]
    );
}

#[test]
fn messages_without_commands_come_last() {
    let mut driver = Driver::waiting();
    driver.admit("u").unwrap();
    driver.take_task();
    let mut answer = commands([timer("t")]);
    answer.messages = vec![accept("u"), complete("u")];
    driver.complete(answer);
    assert_eq!(
        driver.types_from(8),
        ["TIMER_STARTED", "UPDATE_ACCEPTED", "UPDATE_COMPLETED"]
    );
}

#[test]
fn an_update_that_the_server_forgot_is_known_from_the_worker() {
    let mut driver = Driver::waiting();
    driver.admit("u").unwrap();
    driver
        .step(|run, cx| run.signal(cx, Signal::default()))
        .unwrap();
    driver.take_task();
    driver.restart();
    assert_eq!(driver.run.update_view("u"), UpdateView::Unknown);
    let acceptance = Acceptance {
        accepted_request_message_id: "u/request".into(),
        accepted_request_sequencing_event_id: 6,
        accepted_request: Some(request("u")),
    };
    driver.complete(messages([
        message("u", "accept", &acceptance),
        complete("u"),
    ]));
    let A::WorkflowExecutionUpdateAcceptedEventAttributes(accepted) = driver.event(9) else {
        panic!()
    };
    assert_eq!(accepted.accepted_request, Some(request("u")));
    assert_eq!(
        driver.run.update_view("u"),
        UpdateView::Completed(success("done"))
    );
}

#[test]
fn only_the_newest_rejections_are_remembered() {
    let mut driver = Driver::waiting();
    driver.limits.updates_in_flight = 1000;
    for n in 0..101 {
        driver.admit(&n.to_string()).unwrap();
    }
    driver.take_task();
    driver.complete(messages((0..101).map(|n| reject(&n.to_string()))));
    assert_eq!(driver.run.update_view("0"), UpdateView::Unknown);
    assert_eq!(driver.run.update_view("1"), rejected());
    assert_eq!(driver.run.update_view("100"), rejected());
    assert_eq!(driver.types_from(5), [] as [&str; 0]);
}
