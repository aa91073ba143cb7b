//! What a child is started with.

use steadfast_engine::child::ChildStart;
use steadfast_engine::proto::command::StartChildWorkflowExecutionCommandAttributes;
use steadfast_engine::proto::common::{Memo, Priority, RetryPolicy, WorkflowExecution};
use steadfast_engine::proto::enums::{EventType, ParentClosePolicy, WorkflowIdReusePolicy};
use steadfast_engine::proto::history::history_event::Attributes as A;
use steadfast_engine::time::{SECOND, duration, span};

use crate::driver::family::{
    CHILD_RUN, IntoCommand, Looks, child_command, header, payload, payloads, summary, uuid,
};
use crate::driver::{Driver, commands};
use crate::{continue_as_new, drive, queue};

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
