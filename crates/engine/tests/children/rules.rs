//! Which commands about other runs are refused.

use steadfast_engine::Error;
use steadfast_engine::commands::Completion;
use steadfast_engine::proto::command::{
    SignalExternalWorkflowExecutionCommandAttributes, StartChildWorkflowExecutionCommandAttributes,
    command::Attributes as C,
};
use steadfast_engine::proto::common::{Memo, Priority, RetryPolicy};
use steadfast_engine::proto::enums::WorkflowTaskFailedCause;

use crate::driver::family::{
    IntoCommand, Looks, cancel_command, child_command, payload, payloads, signal_command, uuid,
};
use crate::driver::{Driver, commands};
use crate::queue;

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
