//! The Rust SDK, unchanged, against our server.

mod harness;
mod workflows;

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use harness::{beside, count, history, run, with_server};
use temporalio_client::errors::{
    WorkflowGetResultError, WorkflowStartError, WorkflowUpdateError, WorkflowUpdateWithStartError,
};
use temporalio_client::{
    Client, WorkflowExecutionStatus, WorkflowHandle, WorkflowIdConflictPolicy,
    WorkflowUpdateWithStartOptions,
};
use temporalio_common::HasWorkflowDefinition;
use temporalio_common::error::IncomingError;
use temporalio_common::protos::temporal::api::enums::v1::EventType;
use temporalio_sdk::workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions};
use tokio::time::sleep;
use uuid::Uuid;
use workflows::*;

type AddingRun = <Adding as HasWorkflowDefinition>::Run;

async fn result<W: HasWorkflowDefinition>(
    handle: &WorkflowHandle<Client, W>,
) -> Result<W::Output, WorkflowGetResultError> {
    handle.get_result(Default::default()).await
}

async fn status<W: HasWorkflowDefinition>(
    handle: &WorkflowHandle<Client, W>,
) -> WorkflowExecutionStatus {
    handle.describe(Default::default()).await.unwrap().status()
}

async fn add_and_get(
    handle: &WorkflowHandle<Client, AddingRun>,
    amount: i64,
) -> Result<i64, WorkflowUpdateError> {
    let options = Default::default();
    handle
        .execute_update(Adding::add_and_get, amount, options)
        .await
}

async fn total(handle: &WorkflowHandle<Client, AddingRun>) -> i64 {
    let total = handle.query(Adding::total, (), Default::default());
    total.await.unwrap()
}

async fn finish(handle: &WorkflowHandle<Client, AddingRun>) -> i64 {
    let sent = handle.signal(Adding::finish, (), Default::default());
    sent.await.unwrap();
    result(handle).await.unwrap()
}

/// Asks until it does; the test's time-out ends the wait.
async fn has_event<W: HasWorkflowDefinition>(handle: &WorkflowHandle<Client, W>, one: EventType) {
    while count(&history(handle).await, one) == 0 {
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn activity() {
    run(async |setup| {
        let handle = setup.start(Greeting::run, "Ada".to_owned()).await;
        assert_eq!(result(&handle).await.unwrap(), "Hello, Ada!");
        assert_eq!(status(&handle).await, WorkflowExecutionStatus::Completed);
        let events = history(&handle).await;
        assert_eq!(count(&events, EventType::ActivityTaskScheduled), 1);
        assert_eq!(count(&events, EventType::ActivityTaskStarted), 1);
        assert_eq!(count(&events, EventType::ActivityTaskCompleted), 1);
    })
    .await;
}

#[tokio::test]
async fn an_activity_is_retried_until_it_succeeds() {
    run(async |setup| {
        let handle = setup.start(Retried::run, ()).await;
        assert_eq!(result(&handle).await.unwrap(), 3);
        assert_eq!(
            setup.activities.calls(),
            ["attempt 1", "attempt 2", "attempt 3"]
        );
    })
    .await;
}

#[tokio::test]
async fn a_failure_that_is_not_retryable_reaches_the_client() {
    run(async |setup| {
        let handle = setup.start(Refused::run, ()).await;
        let error = result(&handle).await.unwrap_err();
        let WorkflowGetResultError::Failed(failed) = &error else {
            panic!("{error:?}")
        };
        // Of the workflow's failure, the activity's, and what it failed with, it is the last one.
        let mut innermost: &IncomingError = failed;
        while let Some(cause) = innermost.cause() {
            innermost = cause;
        }
        let IncomingError::Application(failure) = innermost else {
            panic!("{error:?}")
        };
        assert_eq!(failure.to_string(), "not today");
        assert_eq!(failure.type_name(), Some("Refused"));
        assert!(failure.is_non_retryable());
        let details: Option<String> = failure.details().unwrap();
        assert_eq!(details.as_deref(), Some("until tomorrow"));
        assert_eq!(status(&handle).await, WorkflowExecutionStatus::Failed);
        assert_eq!(setup.activities.calls(), ["refuse"]);
    })
    .await;
}

#[tokio::test]
async fn timer() {
    run(async |setup| {
        let handle = setup.start(Napping::run, 300).await;
        let slept_ms = result(&handle).await.unwrap();
        assert!((300..5_000).contains(&slept_ms), "{slept_ms} ms");
        assert_eq!(count(&history(&handle).await, EventType::TimerFired), 1);
    })
    .await;
}

#[tokio::test]
async fn signal_query_and_update() {
    run(async |setup| {
        let handle = setup.start(Adding::run, ()).await;
        let signal = handle.signal(Adding::add, 2, Default::default());
        signal.await.unwrap();
        assert_eq!(add_and_get(&handle, 3).await.unwrap(), 5);
        assert_eq!(total(&handle).await, 5);

        let before = Instant::now();
        let refused = add_and_get(&handle, -1).await;
        let Err(WorkflowUpdateError::Failed(failure)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(failure.message, "only upwards");
        let waited = before.elapsed();
        assert!(waited < Duration::from_secs(8), "until a time-out");

        let update = handle.start_update(Adding::add_and_get, 10, Default::default());
        let update = update.await.unwrap();
        assert_eq!(update.get_result(Default::default()).await.unwrap(), 15);
        assert_eq!(finish(&handle).await, 15);
        // Also when it is closed.
        assert_eq!(total(&handle).await, 15);

        // What was rejected leaves no trace.
        let events = history(&handle).await;
        let updates = [
            count(&events, EventType::WorkflowExecutionUpdateAccepted),
            count(&events, EventType::WorkflowExecutionUpdateCompleted),
        ];
        assert_eq!(updates, [2, 2]);
    })
    .await;
}

#[tokio::test]
async fn signal_with_start() {
    run(async |setup| {
        let options = setup.options();
        let signal = async || {
            let options = options.clone();
            setup
                .client
                .signal_with_start_workflow(Adding::run, (), Adding::add, 4, options)
                .await
        };
        let first = signal().await.unwrap();
        signal().await.unwrap();
        assert_eq!(finish(&first).await, 8);
    })
    .await;
}

#[tokio::test]
async fn update_with_start() {
    run(async |setup| {
        let id = Uuid::new_v4();
        let update = async |amount| {
            let policy = WorkflowIdConflictPolicy::UseExisting;
            let options =
                WorkflowUpdateWithStartOptions::new(setup.task_queue.as_str(), id, policy);
            let client = &setup.client;
            client
                .execute_update_with_start_workflow(
                    Adding::run,
                    (),
                    Adding::add_and_get,
                    amount,
                    options.build(),
                )
                .await
        };
        assert_eq!(update(3).await.unwrap(), 3);
        assert_eq!(update(4).await.unwrap(), 7);
        let error = update(-1).await.unwrap_err();
        let WorkflowUpdateWithStartError::Update(WorkflowUpdateError::Failed(_)) = &error else {
            panic!("{error:?}")
        };
        let handle = setup.client.get_workflow_handle::<AddingRun>(id);
        assert_eq!(finish(&handle).await, 7);
    })
    .await;
}

#[tokio::test]
async fn list_and_count() {
    run(async |setup| {
        let mut started = Vec::new();
        for _ in 0..3 {
            let handle = setup.start(Napping::run, 1).await;
            result(&handle).await.unwrap();
            started.push(handle.info().workflow_id.clone());
        }
        let query = r#"WorkflowType = "Napping" AND ExecutionStatus = "Completed""#;
        let found = setup.client.list_workflows(query, Default::default());
        let mut found: Vec<String> = found
            .map_ok(|workflow| workflow.id().to_owned())
            .try_collect()
            .await
            .unwrap();
        found.sort();
        started.sort();
        assert_eq!(found, started);
        let counted = setup.client.count_workflows(query, Default::default());
        assert_eq!(counted.await.unwrap().count(), 3);
    })
    .await;
}

#[tokio::test]
async fn one_workflow_id_runs_once() {
    run(async |setup| {
        let options = setup.options();
        let handle = setup
            .client
            .start_workflow(Adding::run, (), options.clone())
            .await
            .unwrap();
        let again = setup.client.start_workflow(Adding::run, (), options).await;
        assert!(matches!(
            again,
            Err(WorkflowStartError::AlreadyStarted { .. })
        ));
        handle.terminate(Default::default()).await.unwrap();
        let error = result(&handle).await.unwrap_err();
        assert!(
            matches!(error, WorkflowGetResultError::Terminated { .. }),
            "{error:?}"
        );
        assert_eq!(status(&handle).await, WorkflowExecutionStatus::Terminated);
    })
    .await;
}

#[tokio::test]
async fn child_workflow_and_external_signal() {
    run(async |setup| {
        let handle = setup.start(Parent::run, "Grace".to_owned()).await;
        assert_eq!(
            result(&handle).await.unwrap(),
            ("Hello, Grace!".to_owned(), 5)
        );
        let events = history(&handle).await;
        let children = count(&events, EventType::ChildWorkflowExecutionCompleted);
        let signals = count(&events, EventType::ExternalWorkflowExecutionSignaled);
        assert_eq!((children, signals), (2, 3));
    })
    .await;
}

#[tokio::test]
async fn continue_as_new() {
    run(async |setup| {
        let first = setup.start(Countdown::run, (2, 1)).await;
        let (runs, continued_from) = result(&first).await.unwrap();
        assert_eq!(runs, 3);
        assert_eq!(
            status(&first).await,
            WorkflowExecutionStatus::ContinuedAsNew
        );
        let id = first.info().workflow_id.clone();
        let last = setup.client.get_workflow_handle::<Countdown>(id);
        let last = last.describe(Default::default()).await.unwrap();
        assert_eq!(last.status(), WorkflowExecutionStatus::Completed);
        let continued_from = continued_from.expect("a run that it continues");
        assert_ne!(continued_from, last.run_id());
        assert_ne!(Some(continued_from), first.info().run_id);
    })
    .await;
}

#[tokio::test]
async fn cancel() {
    run(async |setup| {
        let handle = setup.start(Stubborn::run, ()).await;
        has_event(&handle, EventType::TimerStarted).await;
        handle.cancel(Default::default()).await.unwrap();
        let error = result(&handle).await.unwrap_err();
        assert!(
            matches!(error, WorkflowGetResultError::Cancelled { .. }),
            "{error:?}"
        );
        assert_eq!(status(&handle).await, WorkflowExecutionStatus::Canceled);
        let events = history(&handle).await;
        assert_eq!(count(&events, EventType::TimerCanceled), 1);
        assert_eq!(count(&events, EventType::ActivityTaskCompleted), 1);
        assert_eq!(setup.activities.calls(), ["tidy up"]);
    })
    .await;
}

#[tokio::test]
async fn an_activity_learns_of_its_cancellation() {
    run(async |setup| {
        let handle = setup.start(CancelsActivity::run, ()).await;
        assert_eq!(result(&handle).await.unwrap(), "tidied up");
        let events = history(&handle).await;
        assert_eq!(count(&events, EventType::ActivityTaskCancelRequested), 1);
    })
    .await;
}

#[tokio::test]
async fn local_activity() {
    run(async |setup| {
        let handle = setup.start(Locally::run, "Alan".to_owned()).await;
        assert_eq!(
            result(&handle).await.unwrap(),
            ("Hello, Alan!".to_owned(), 3)
        );
        let events = history(&handle).await;
        assert_eq!(count(&events, EventType::MarkerRecorded), 2);
        assert_eq!(count(&events, EventType::ActivityTaskScheduled), 0);
    })
    .await;
}

#[tokio::test]
async fn heartbeat_details_are_kept_for_the_next_attempt() {
    run(async |setup| {
        let handle = setup.start(Heartbeating::run, ()).await;
        assert_eq!(result(&handle).await.unwrap(), "half way");
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_forgets_everything_goes_on_from_the_history() {
    with_server(async |setup| {
        let handle = setup.start(Adding::run, ()).await;
        for (amount, sum) in [(1, 1), (10, 11)] {
            let update = beside(setup.worker(), add_and_get(&handle, amount));
            assert_eq!(update.await.unwrap(), sum);
        }
        beside(setup.worker(), async {
            assert_eq!(total(&handle).await, 11);
            assert_eq!(finish(&handle).await, 11);
        })
        .await;
        let options = WorkflowReplayerOptions::new()
            .register_workflow::<Adding>()
            .unwrap()
            .build();
        let history = handle.fetch_history(Default::default());
        WorkflowReplayer::new(options)
            .unwrap()
            .replay_workflow(history)
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_server_is_killed_between_two_activities() {
    run(async |setup| {
        let handle = setup.start(TwoSteps::run, 2_000).await;
        has_event(&handle, EventType::TimerStarted).await;
        setup.server.kill().await;
        assert_eq!(setup.activities.calls(), ["first"], "killed too late");
        setup.server.restart().await;
        assert_eq!(result(&handle).await.unwrap(), "first, second");
        assert_eq!(setup.activities.calls(), ["first", "second"]);
        assert_eq!(count(&history(&handle).await, EventType::TimerFired), 1);
    })
    .await;
}

#[tokio::test]
async fn another_worker_goes_on_after_the_server_was_killed() {
    with_server(async |setup| {
        let handle = setup.start(TwoSteps::run, 2_000).await;
        beside(setup.worker(), has_event(&handle, EventType::TimerStarted)).await;
        setup.server.kill().await;
        assert_eq!(setup.activities.calls(), ["first"], "killed too late");
        setup.server.restart().await;
        let result = beside(setup.worker(), result(&handle)).await;
        assert_eq!(result.unwrap(), "first, second");
        assert_eq!(setup.activities.calls(), ["first", "second"]);
    })
    .await;
}

#[tokio::test]
async fn the_server_is_killed_during_an_activity() {
    run(async |setup| {
        let handle = setup.start(Holding::run, ()).await;
        while setup.activities.calls().is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
        setup.server.kill().await;
        // The activity ends while nobody listens; its worker goes on trying to say so.
        setup.activities.gate.add_permits(1);
        sleep(Duration::from_millis(500)).await;
        setup.server.restart().await;
        result(&handle).await.unwrap();
        assert_eq!(setup.activities.calls(), ["held"]);
    })
    .await;
}
