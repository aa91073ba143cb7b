//! Credentials of attempts: what is recorded of them, and until when they are worth something.
#![allow(clippy::unwrap_used)]

mod driver;

use driver::{Driver, commands, failure};
use steadfast_engine::activity::{ActivityClaim, Outcome};
use steadfast_engine::credential::{CredentialClaim, CredentialState, Terms};
use steadfast_engine::proto::command::{
    ScheduleActivityTaskCommandAttributes, command::Attributes as C,
};
use steadfast_engine::proto::common::{ActivityType, RetryPolicy};
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::state::Credential;
use steadfast_engine::time::{SECOND, duration};
use steadfast_engine::workflow_task::Poller;

/// A session whose agent calls a tool; an attempt of it is in a worker's hands.
fn calling(tool: &str) -> Driver {
    let mut run = Driver::start();
    run.credentials = Some(Terms {
        audience: "https://steadfast.example".into(),
        audiences: [("refund".to_owned(), "https://pay.example".to_owned())].into(),
        lifetime: 900 * SECOND,
    });
    run.take_task();
    let command = ScheduleActivityTaskCommandAttributes {
        activity_id: "tool".into(),
        activity_type: Some(ActivityType { name: tool.into() }),
        task_queue: Some(TaskQueue {
            name: "tools".into(),
            ..Default::default()
        }),
        start_to_close_timeout: Some(duration(60 * SECOND)),
        retry_policy: Some(RetryPolicy {
            maximum_attempts: 2,
            initial_interval: Some(duration(SECOND)),
            ..Default::default()
        }),
        ..Default::default()
    };
    run.complete(commands([C::ScheduleActivityTaskCommandAttributes(
        command,
    )]));
    start(&mut run, 1);
    run
}

fn start(run: &mut Driver, attempt: i32) {
    let poller = Poller {
        identity: "worker".into(),
        request_id: format!("hand-out {attempt}"),
        ..Poller::default()
    };
    run.step(|run, cx| run.start_activity(cx, 5, attempt, &poller))
        .unwrap();
}

fn credential(run: &Driver) -> Credential {
    let activity = &run.run.state.activities[&5];
    activity.attempt().credential.clone().unwrap()
}

fn state(run: &Driver, of: &Credential, attempt: i32) -> CredentialState {
    run.run.state.credential_state(&CredentialClaim {
        id: &of.id,
        activity_id: "tool",
        attempt,
    })
}

fn end(run: &mut Driver, attempt: i32, outcome: Outcome) {
    let claim = ActivityClaim {
        scheduled_event_id: 5,
        attempt,
        request_id: format!("hand-out {attempt}"),
    };
    run.step(|run, cx| run.end_activity(cx, &claim, outcome, "worker".into()))
        .unwrap();
}

#[test]
fn each_attempt_is_given_its_own_for_its_tool() {
    for (tool, audience) in [
        ("refund", "https://pay.example"),
        ("look", "https://steadfast.example"),
    ] {
        let mut run = calling(tool);
        let first = credential(&run);
        assert_eq!(first.audience, audience);
        assert_eq!(first.expires, run.now + 60 * SECOND);
        assert_eq!(state(&run, &first, 1), CredentialState::Active);
        end(&mut run, 1, Outcome::Failed(Some(failure("no")), None));
        assert_eq!(state(&run, &first, 1), CredentialState::Over);
        let waiting = &run.run.state.activities[&5];
        assert_eq!(
            waiting.attempt().credential,
            None,
            "before it is handed out"
        );
        run.now += 2 * SECOND;
        start(&mut run, 2);
        let second = credential(&run);
        assert_ne!(first.id, second.id);
        assert_eq!(state(&run, &first, 1), CredentialState::Over);
        assert_eq!(state(&run, &first, 2), CredentialState::Over);
        assert_eq!(state(&run, &second, 1), CredentialState::Over);
        assert_eq!(state(&run, &second, 2), CredentialState::Active);
    }
}

#[test]
fn heartbeats_and_restarts_keep_it() {
    let mut run = calling("refund");
    let first = credential(&run);
    let claim = ActivityClaim {
        scheduled_event_id: 5,
        attempt: 1,
        request_id: "hand-out 1".into(),
    };
    run.step(|run, cx| run.heartbeat_activity(cx, &claim, None))
        .unwrap();
    run.restart();
    assert_eq!(credential(&run), first);
    assert_eq!(state(&run, &first, 1), CredentialState::Active);
}

#[test]
fn whatever_ends_the_attempt_ends_it() {
    type End = fn(&mut Driver);
    let table: [(&str, End, CredentialState); 4] = [
        (
            "completed",
            |run| end(run, 1, Outcome::Completed(None)),
            CredentialState::Over,
        ),
        (
            "failed",
            |run| end(run, 1, Outcome::Failed(None, None)),
            CredentialState::Over,
        ),
        (
            "timed out",
            |run| {
                run.now += 61 * SECOND;
                run.step(|run, cx| run.wake(cx));
            },
            CredentialState::Over,
        ),
        (
            "terminated",
            |run| {
                run.step(|run, cx| {
                    run.terminate(cx, "enough".into(), None, String::new(), Vec::new())
                })
                .unwrap();
            },
            CredentialState::Closed,
        ),
    ];
    for (what, end, expected) in table {
        let mut run = calling("refund");
        let first = credential(&run);
        end(&mut run);
        assert_eq!(state(&run, &first, 1), expected, "{what}");
    }
}

#[test]
fn there_are_none_where_there_are_no_terms() {
    let mut run = calling("refund");
    run.credentials = None;
    end(&mut run, 1, Outcome::Failed(Some(failure("no")), None));
    run.now += 2 * SECOND;
    start(&mut run, 2);
    let attempt = run.run.state.activities[&5].attempt();
    assert!(attempt.started_time > 0 && attempt.credential.is_none());
}
