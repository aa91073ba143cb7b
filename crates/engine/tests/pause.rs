//! Paused sessions: what is handed out, what goes on, and what moves.
#![allow(clippy::unwrap_used)]

mod driver;

use driver::{Driver, commands, failure};
use steadfast_engine::Effect;
use steadfast_engine::activity::{ActivityClaim, Outcome};
use steadfast_engine::commands::Completion;
use steadfast_engine::credential::{CredentialClaim, CredentialState, Terms};
use steadfast_engine::pause::PauseRequest;
use steadfast_engine::proto::command::{
    CompleteWorkflowExecutionCommandAttributes, ScheduleActivityTaskCommandAttributes,
    StartTimerCommandAttributes, command::Attributes as C,
};
use steadfast_engine::proto::common::{ActivityType, RetryPolicy};
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::time::{SECOND, duration};
use steadfast_engine::workflow_task::Poller;

fn why() -> PauseRequest {
    PauseRequest {
        identity: "ada".into(),
        reason: "look first".into(),
        request_id: "r-1".into(),
    }
}

fn pause(run: &mut Driver) -> bool {
    run.step(|run, cx| run.pause(cx, why())).unwrap()
}

fn resume(run: &mut Driver) -> bool {
    run.step(|run, cx| run.resume(cx, why())).unwrap()
}

/// A session that waits for a tool, which is retried.
fn calling() -> Driver {
    let mut run = Driver::start();
    run.credentials = Some(Terms {
        audience: "https://pay.example".into(),
        lifetime: 900 * SECOND,
        ..Terms::default()
    });
    run.take_task();
    let call = ScheduleActivityTaskCommandAttributes {
        activity_id: "tool".into(),
        activity_type: Some(ActivityType {
            name: "refund".into(),
        }),
        task_queue: Some(TaskQueue {
            name: "tools".into(),
            ..Default::default()
        }),
        start_to_close_timeout: Some(duration(60 * SECOND)),
        schedule_to_start_timeout: Some(duration(30 * SECOND)),
        retry_policy: Some(RetryPolicy {
            maximum_attempts: 2,
            initial_interval: Some(duration(SECOND)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let timer = StartTimerCommandAttributes {
        timer_id: "t".into(),
        start_to_fire_timeout: Some(duration(100 * SECOND)),
    };
    run.complete(commands([
        C::ScheduleActivityTaskCommandAttributes(call),
        C::StartTimerCommandAttributes(timer),
    ]));
    run
}

fn start(run: &mut Driver, attempt: i32) -> bool {
    let poller = Poller {
        identity: "worker".into(),
        request_id: format!("hand-out {attempt}"),
        ..Poller::default()
    };
    run.step(|run, cx| run.start_activity(cx, 5, attempt, &poller))
        .is_ok()
}

fn claim(attempt: i32) -> ActivityClaim {
    ActivityClaim {
        scheduled_event_id: 5,
        attempt,
        request_id: format!("hand-out {attempt}"),
    }
}

fn wake(run: &mut Driver) {
    run.step(|run, cx| run.wake(cx));
}

fn offers(run: &Driver) -> (usize, usize) {
    let count = |is_it: fn(&Effect) -> bool| run.effects.iter().filter(|of| is_it(of)).count();
    (
        count(|of| matches!(of, Effect::WorkflowTask { .. })),
        count(|of| matches!(of, Effect::ActivityTask { .. })),
    )
}

#[test]
fn nothing_is_handed_out_until_it_is_resumed() {
    let mut run = calling();
    assert!(pause(&mut run));
    assert!(!pause(&mut run), "it is paused already");
    assert!(!start(&mut run, 1));
    // Longer than it may wait to be started: what is not handed out does not run out of time.
    run.now += 90 * SECOND;
    wake(&mut run);
    assert!(run.run.state.activities.contains_key(&5));
    run.restart();
    assert!(run.run.waiting_tasks().is_empty());
    assert!(resume(&mut run));
    assert!(!resume(&mut run), "it is not paused");
    run.now += 20 * SECOND;
    wake(&mut run);
    assert!(start(&mut run, 1), "20 of its 30 seconds were used");
}

#[test]
fn what_it_waits_for_is_offered_when_it_is_resumed() {
    let mut run = calling();
    pause(&mut run);
    run.now += 101 * SECOND;
    // The timer fires: its workflow task is there, and waits.
    wake(&mut run);
    assert!(run.run.state.workflow_task.is_some());
    assert!(run.run.outstanding(run.now).is_empty());
    resume(&mut run);
    assert_eq!(offers(&run), (1, 1));
}

#[test]
fn an_attempt_that_is_out_is_told_may_end_and_is_not_tried_again() {
    let mut run = calling();
    assert!(start(&mut run, 1));
    let credential = run.run.state.activities[&5]
        .attempt()
        .credential
        .clone()
        .unwrap();
    let state = |run: &Driver| {
        run.run.state.credential_state(&CredentialClaim {
            id: &credential.id,
            activity_id: "tool",
            attempt: 1,
        })
    };
    assert_eq!(state(&run), CredentialState::Active);
    pause(&mut run);
    assert_eq!(state(&run), CredentialState::Paused);
    let beat = run.step(|run, cx| run.heartbeat_activity(cx, &claim(1), None));
    assert!(beat.unwrap().paused);
    let failed = Outcome::Failed(Some(failure("no")), None);
    run.step(|run, cx| run.end_activity(cx, &claim(1), failed, "worker".into()))
        .unwrap();
    run.now += 10 * SECOND;
    wake(&mut run);
    assert!(!start(&mut run, 2));
    resume(&mut run);
    assert!(start(&mut run, 2));
    assert_eq!(state(&run), CredentialState::Over);
}

#[test]
fn a_pause_while_a_worker_has_the_workflow_task_holds_at_once() {
    let mut run = Driver::start();
    run.take_task();
    pause(&mut run);
    assert!(
        run.run.state.paused().is_some(),
        "although its event is buffered"
    );
    // The answer that ends the session is not taken: it would end in a pause.
    let done = CompleteWorkflowExecutionCommandAttributes::default();
    let refused = run.respond(commands([C::CompleteWorkflowExecutionCommandAttributes(
        done,
    )]));
    assert!(matches!(refused, Ok(Completion::Refused(_))), "{refused:?}");
    assert!(run.run.state.is_running());
    run.restart();
    assert!(run.run.state.paused().is_some());
    assert!(run.run.outstanding(run.now).is_empty());
    resume(&mut run);
    assert_eq!(offers(&run).0, 1);
}

#[test]
fn a_revoked_session_is_over() {
    let mut run = calling();
    start(&mut run, 1);
    pause(&mut run);
    run.step(|run, cx| run.revoke(cx, why())).unwrap();
    assert!(!run.run.state.is_running());
    assert!(run.run.state.paused().is_none());
    let again = run.step(|run, cx| run.pause(cx, why()));
    assert!(again.is_err(), "nothing is left to pause");
}
