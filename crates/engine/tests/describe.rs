//! What a describe request is told about a run.

use steadfast_engine::proto::command::{
    ScheduleActivityTaskCommandAttributes, command::Attributes as C,
};
use steadfast_engine::proto::common::{ActivityType, Memo, RetryPolicy};
use steadfast_engine::proto::enums::{
    ParentClosePolicy, PendingActivityState, PendingWorkflowTaskState, WorkflowExecutionStatus,
};
use steadfast_engine::proto::failure::Failure;
use steadfast_engine::time::{SECOND, duration, span, timestamp};
use steadfast_engine::workflow_task::Poller;

mod driver;

use driver::Driver;
use driver::family::{
    CHILD_RUN, IntoCommand, Looks, child_command, closed_by, complete, completed, uuid,
};

#[test]
fn describe_shows_what_is_pending() {
    let mut parent = Driver::start_with(|start| {
        start.workflow_run_timeout = Some(duration(600 * SECOND));
        start.workflow_task_timeout = Some(duration(10 * SECOND));
    });
    let started = parent.run.state.time - SECOND;
    parent.command(vec![
        child_command("child").into_command(),
        C::ScheduleActivityTaskCommandAttributes(ScheduleActivityTaskCommandAttributes {
            activity_id: "tool".into(),
            task_queue: Some(steadfast_engine::proto::taskqueue::TaskQueue {
                name: "tools".into(),
                ..Default::default()
            }),
            activity_type: Some(ActivityType {
                name: "Tool".into(),
            }),
            start_to_close_timeout: Some(duration(30 * SECOND)),
            ..Default::default()
        }),
    ]);
    parent
        .step(|run, cx| run.child_started(cx, 5, CHILD_RUN.to_owned()))
        .expect("taken");
    let described = parent.run.describe(parent.now);

    let info = described.workflow_execution_info.expect("info");
    assert_eq!(info.status(), WorkflowExecutionStatus::Running);
    assert_eq!(info.start_time, Some(timestamp(started)));
    assert_eq!((info.close_time, info.execution_duration), (None, None));
    assert_eq!(info.history_length, parent.last_event().event_id);
    assert_eq!(info.state_transition_count, parent.records.len() as i64);
    assert_eq!(info.task_queue, "queue");
    assert_eq!(info.first_run_id, uuid(1));
    assert_eq!(info.root_execution.map(|e| e.run_id), Some(uuid(1)));
    assert_eq!(info.parent_execution, None);
    assert_eq!(info.memo, Some(Memo::default()));
    let bytes: usize = parent.run.tail.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(info.history_size_bytes, bytes as i64);

    let config = described.execution_config.expect("config");
    assert_eq!(span(&config.workflow_run_timeout), 600 * SECOND);
    assert_eq!(span(&config.default_workflow_task_timeout), 10 * SECOND);
    let extended = described.workflow_extended_info.expect("extended info");
    assert_eq!(
        extended.run_expiration_time,
        Some(timestamp(started + 600 * SECOND))
    );
    assert_eq!(
        (extended.execution_expiration_time, extended.last_reset_time),
        (None, None)
    );
    assert_eq!(extended.original_start_time, Some(timestamp(started)));
    let request = &extended.request_id_infos["start-request"];
    assert_eq!((request.event_id, request.buffered), (1, false));

    let [child] = &described.pending_children[..] else {
        panic!("one child")
    };
    assert_eq!(
        (
            child.workflow_id.as_str(),
            &child.run_id,
            child.initiated_id
        ),
        ("child", &CHILD_RUN.to_owned(), 5)
    );
    assert_eq!(child.workflow_type_name, "Child");
    assert_eq!(child.parent_close_policy(), ParentClosePolicy::Terminate);

    let task = described.pending_workflow_task.expect("a task");
    assert_eq!(task.state(), PendingWorkflowTaskState::Scheduled);
    assert_eq!(
        (task.scheduled_time, task.started_time),
        (Some(timestamp(parent.now)), None)
    );

    let [activity] = &described.pending_activities[..] else {
        panic!("one activity")
    };
    assert_eq!(activity.activity_id, "tool");
    assert_eq!(
        (activity.state(), activity.attempt),
        (PendingActivityState::Scheduled, 1)
    );
    assert_eq!(
        (
            activity.next_attempt_schedule_time,
            activity.last_started_time
        ),
        (None, None)
    );

    parent
        .step(|run, cx| run.child_closed(cx, &closed_by(completed())))
        .expect("taken");
    parent.command(vec![complete()]);
    let described = parent.run.describe(parent.now);
    let info = described.workflow_execution_info.expect("info");
    assert_eq!(info.status(), WorkflowExecutionStatus::Completed);
    assert_eq!(info.close_time, Some(timestamp(parent.now)));
    assert_eq!(span(&info.execution_duration), parent.now - started);
    assert_eq!(described.pending_workflow_task, None);
    assert_eq!(
        (
            described.pending_activities.len(),
            described.pending_children.len()
        ),
        (0, 0)
    );
}

#[test]
fn describe_shows_an_activity_that_is_tried_again() {
    use steadfast_engine::activity::{ActivityClaim, Outcome};
    let mut run = Driver::start();
    run.command(vec![C::ScheduleActivityTaskCommandAttributes(
        ScheduleActivityTaskCommandAttributes {
            activity_id: "tool".into(),
            task_queue: Some(steadfast_engine::proto::taskqueue::TaskQueue {
                name: "tools".into(),
                ..Default::default()
            }),
            activity_type: Some(ActivityType {
                name: "Tool".into(),
            }),
            start_to_close_timeout: Some(duration(30 * SECOND)),
            schedule_to_close_timeout: Some(duration(300 * SECOND)),
            retry_policy: Some(RetryPolicy {
                initial_interval: Some(duration(5 * SECOND)),
                maximum_attempts: 4,
                ..RetryPolicy::default()
            }),
            ..Default::default()
        },
    )]);
    let scheduled = run.now;
    let poller = Poller {
        identity: "worker".into(),
        request_id: "first".into(),
        ..Poller::default()
    };
    run.step(|run, cx| run.start_activity(cx, 5, 1, &poller))
        .expect("handed out");
    let started = run.now;
    let activity = |run: &Driver, at| run.run.describe(at).pending_activities.remove(0);
    let now = activity(&run, run.now);
    assert_eq!(now.state(), PendingActivityState::Started);
    assert_eq!(now.last_started_time, Some(timestamp(started)));
    assert_eq!(now.last_worker_identity, "worker");
    assert_eq!(
        now.expiration_time,
        Some(timestamp(scheduled + 300 * SECOND))
    );
    assert_eq!(now.maximum_attempts, 4);

    let claim = ActivityClaim {
        scheduled_event_id: 5,
        attempt: 1,
        request_id: "first".into(),
    };
    let failure = Failure {
        message: "busy".into(),
        ..Failure::default()
    };
    let outcome = Outcome::Failed(Some(failure.clone()), None);
    run.step(|run, cx| run.end_activity(cx, &claim, outcome, "worker".into()))
        .expect("taken");
    let failed = run.now;
    let waiting = activity(&run, failed);
    assert_eq!(waiting.state(), PendingActivityState::Scheduled);
    assert_eq!(waiting.attempt, 2);
    assert_eq!(waiting.last_failure, Some(failure));
    assert_eq!(waiting.last_started_time, Some(timestamp(started)));
    assert_eq!(waiting.last_attempt_complete_time, Some(timestamp(failed)));
    assert_eq!(
        waiting.next_attempt_schedule_time,
        Some(timestamp(failed + 5 * SECOND))
    );
    assert_eq!(span(&waiting.current_retry_interval), 5 * SECOND);
    let options = waiting.activity_options.expect("options");
    assert_eq!(span(&options.start_to_close_timeout), 30 * SECOND);

    let ready = activity(&run, failed + 5 * SECOND);
    assert_eq!(
        (
            ready.next_attempt_schedule_time,
            ready.current_retry_interval
        ),
        (None, None)
    );
}
