//! The run after a run: continued as new by its own command, tried again, or next on a schedule.

use crate::error::{Error, Result};
use crate::proto::command::ContinueAsNewWorkflowExecutionCommandAttributes;
use crate::proto::common::Payloads;
use crate::proto::enums::{
    ContinueAsNewInitiator, TaskQueueKind, WorkflowTaskFailedCause as Cause,
};
use crate::proto::failure::Failure;
use crate::proto::history::{
    WorkflowExecutionContinuedAsNewEventAttributes, WorkflowExecutionStartedEventAttributes,
};
use crate::proto::taskqueue::TaskQueue;
use crate::run::{Cx, Run};
use crate::start::StartRun;
use crate::time::{Span, duration, some_duration, span};

/// A run that follows this one with the same input.
pub(crate) struct Successor {
    pub(crate) initiator: ContinueAsNewInitiator,
    pub(crate) delay: Span,
    pub(crate) attempt: i32,
    pub(crate) failure: Option<Failure>,
    pub(crate) last_completion_result: Option<Payloads>,
}

impl Run {
    /// Whether the workflow may continue as new.
    pub(crate) fn check_continue_as_new(
        &self,
        cx: &Cx<'_>,
        command: &ContinueAsNewWorkflowExecutionCommandAttributes,
    ) -> Result<()> {
        let bad = |message: String| {
            Err(Error::bad_command(
                Cause::BadContinueAsNewAttributes,
                message,
            ))
        };
        let name = command
            .workflow_type
            .as_ref()
            .map_or("", |t| t.name.as_str());
        let queue = command.task_queue.as_ref().map_or("", |q| q.name.as_str());
        for (what, value) in [("WorkflowType", name), ("TaskQueue", queue)] {
            if value.len() > cx.limits.id_bytes {
                return bad(format!(
                    "{what} is longer than {} bytes.",
                    cx.limits.id_bytes
                ));
            }
        }
        for (what, timeout) in [
            ("WorkflowRunTimeout", &command.workflow_run_timeout),
            ("WorkflowTaskTimeout", &command.workflow_task_timeout),
            ("BackoffStartInterval", &command.backoff_start_interval),
        ] {
            if span(timeout) < 0 {
                return bad(format!("{what} is negative."));
            }
        }
        if let Some(policy) = &command.retry_policy
            && let Err(message) = crate::backoff::validate_retry_policy(policy)
        {
            return bad(format!("RetryPolicy: {message}"));
        }
        crate::commands::check_size(
            cx,
            &command.input,
            Cause::BadContinueAsNewAttributes,
            || "Input of the new run".into(),
        )
    }

    /// Closes this run and begins the one that its command describes.
    pub(crate) fn continue_as_new(
        &mut self,
        cx: &mut Cx<'_>,
        completed_event_id: i64,
        command: ContinueAsNewWorkflowExecutionCommandAttributes,
    ) {
        let start = self.state.start().clone();
        let workflow_type = command
            .workflow_type
            .filter(|t| !t.name.is_empty())
            .or_else(|| start.workflow_type.clone());
        let task_queue = TaskQueue {
            name: command
                .task_queue
                .map(|queue| queue.name)
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| self.state.task_queue().to_owned()),
            kind: TaskQueueKind::Normal as i32,
            normal_name: String::new(),
        };
        let or_start = |mine: Option<prost_types::Duration>,
                        of_start: &Option<prost_types::Duration>| {
            if span(&mine) > 0 {
                mine
            } else {
                of_start.or(mine)
            }
        };
        let run_timeout = or_start(command.workflow_run_timeout, &start.workflow_run_timeout);
        let run_timeout = Some(duration(span(&run_timeout)));
        let task_timeout = or_start(command.workflow_task_timeout, &start.workflow_task_timeout);
        // A run that continues at once, again and again, would keep a core busy for nothing.
        let lived = cx.now - self.state.start_time;
        let asked = span(&command.backoff_start_interval);
        let delay = match lived < cx.limits.continue_as_new_min_interval {
            true => asked.max(cx.limits.continue_as_new_min_interval - lived),
            false => asked,
        };
        let initiator = match ContinueAsNewInitiator::try_from(command.initiator) {
            Ok(ContinueAsNewInitiator::Unspecified) | Err(_) => ContinueAsNewInitiator::Workflow,
            Ok(initiator) => initiator,
        };
        let (memo, search_attributes) = (command.memo, command.search_attributes);
        let attributes = WorkflowExecutionStartedEventAttributes {
            workflow_type: workflow_type.clone(),
            task_queue: Some(task_queue.clone()),
            input: command.input.clone(),
            workflow_run_timeout: run_timeout,
            workflow_task_timeout: task_timeout,
            initiator: initiator as i32,
            continued_failure: command.failure.clone(),
            last_completion_result: command
                .last_completion_result
                .clone()
                .or_else(|| start.last_completion_result.clone()),
            retry_policy: command.retry_policy.map(|mut policy| {
                crate::backoff::default_retry_policy(&mut policy);
                policy
            }),
            cron_schedule: command.cron_schedule,
            memo: memo.clone(),
            search_attributes: search_attributes.clone(),
            header: command.header.clone(),
            attempt: 1,
            ..self.inherited()
        };
        let run_id = self.begin_successor(cx, attributes, delay);
        let continued = WorkflowExecutionContinuedAsNewEventAttributes {
            new_execution_run_id: run_id,
            workflow_type,
            task_queue: Some(task_queue),
            input: command.input,
            workflow_run_timeout: run_timeout,
            workflow_task_timeout: task_timeout,
            workflow_task_completed_event_id: completed_event_id,
            backoff_start_interval: some_duration(delay),
            initiator: command.initiator,
            inherit_build_id: command.inherit_build_id,
            failure: command.failure,
            last_completion_result: command.last_completion_result,
            header: command.header,
            memo,
            search_attributes,
            ..Default::default()
        };
        self.close_with(cx, continued.into(), Vec::new(), true);
    }

    /// Begins a run that does the same again, after a failure or on a schedule. Returns its id.
    pub(crate) fn continue_as(&mut self, cx: &mut Cx<'_>, successor: Successor) -> String {
        let start = self.state.start().clone();
        let attributes = WorkflowExecutionStartedEventAttributes {
            workflow_type: start.workflow_type,
            task_queue: start.task_queue,
            input: start.input,
            workflow_run_timeout: start.workflow_run_timeout,
            workflow_task_timeout: start.workflow_task_timeout,
            initiator: successor.initiator as i32,
            continued_failure: successor.failure,
            last_completion_result: successor.last_completion_result,
            retry_policy: start.retry_policy,
            cron_schedule: start.cron_schedule,
            memo: self.state.memo.clone(),
            search_attributes: self.state.search_attributes.clone(),
            header: start.header,
            attempt: successor.attempt,
            ..self.inherited()
        };
        self.begin_successor(cx, attributes, successor.delay)
    }

    /// What every run of a chain has from its first one.
    fn inherited(&self) -> WorkflowExecutionStartedEventAttributes {
        let start = self.state.start();
        WorkflowExecutionStartedEventAttributes {
            parent_workflow_namespace: start.parent_workflow_namespace.clone(),
            parent_workflow_namespace_id: start.parent_workflow_namespace_id.clone(),
            parent_workflow_execution: start.parent_workflow_execution.clone(),
            parent_initiated_event_id: start.parent_initiated_event_id,
            root_workflow_execution: start.root_workflow_execution.clone(),
            workflow_execution_timeout: start.workflow_execution_timeout,
            workflow_execution_expiration_time: start.workflow_execution_expiration_time,
            continued_execution_run_id: self.state.run_id.clone(),
            first_execution_run_id: start.first_execution_run_id.clone(),
            prev_auto_reset_points: self.state.reset_points.clone(),
            priority: self.state.priority.clone(),
            identity: String::new(),
            ..Default::default()
        }
    }

    fn begin_successor(
        &mut self,
        cx: &mut Cx<'_>,
        attributes: WorkflowExecutionStartedEventAttributes,
        delay: Span,
    ) -> String {
        let run_id = cx.ids.uuid();
        let start = StartRun {
            namespace_id: self.state.namespace_id.clone(),
            workflow_id: self.state.workflow_id.clone(),
            run_id: run_id.clone(),
            request_id: cx.ids.uuid(),
            attributes,
            user_metadata: None,
            links: Vec::new(),
            delay,
            initiator: self.state.initiator.clone(),
            agents: self.state.agents.clone(),
        };
        let mut run = Self::start(cx, start);
        run.follow_pause(cx, self.state.pause.as_ref());
        cx.new_runs.push(run);
        run_id
    }
}
