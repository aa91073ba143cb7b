//! Starting workflows: StartWorkflowExecution, SignalWithStartWorkflowExecution, and the start half
//! of ExecuteMultiOperation.

use prost::Message;
use steadfast_engine::proto::enums::{
    ContinueAsNewInitiator, TaskQueueKind, WorkflowExecutionStatus, WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy,
};
use steadfast_engine::proto::history::WorkflowExecutionStartedEventAttributes;
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::proto::workflowservice::{
    SignalWithStartWorkflowExecutionRequest, SignalWithStartWorkflowExecutionResponse,
    StartWorkflowExecutionRequest, StartWorkflowExecutionResponse,
};
use steadfast_engine::signal::Signal;
use steadfast_engine::start::{OnExisting, StartRun, on_existing};
use steadfast_engine::time::{duration, some_duration, span};
use steadfast_engine::workflow_task::Poller;
use steadfast_engine::{Cx, Run};

use crate::aggregate::{LiveRun, Workflow, WorkflowKey};
use crate::calls::validate;
use crate::delivery::{first_cron_delay, terminate_for_reuse};
use crate::error::{Result, RuntimeError};
use crate::handout::WorkflowTaskHandout;
use crate::namespaces::Namespace;
use crate::permit::Permit;
use crate::runtime::Runtime;

/// A start request that was found to be sound.
pub(crate) struct SoundStart {
    pub(crate) key: WorkflowKey,
    pub(crate) request: StartWorkflowExecutionRequest,
    pub(crate) reuse: WorkflowIdReusePolicy,
    pub(crate) conflict: WorkflowIdConflictPolicy,
}

/// What a start request led to.
pub(crate) struct Started {
    pub(crate) run_id: String,
    pub(crate) first_run_id: String,
    pub(crate) is_new: bool,
    pub(crate) status: i32,
}

impl Runtime {
    /// Starts a workflow.
    pub async fn start_workflow(
        &self,
        permit: &Permit,
        request: StartWorkflowExecutionRequest,
    ) -> Result<StartWorkflowExecutionResponse> {
        let eager = request.request_eager_execution;
        let identity = request.identity.clone();
        let sound = self.check_start(request)?;
        let key = sound.key.clone();
        let (started, handout) = self
            .transact(permit, &key, "", |workflow, cx| {
                let (started, new) = start_in(workflow, cx, sound)?;
                let Some(mut run) = new else {
                    return Ok((started, None));
                };
                run.schedule_first_task(cx);
                let handout = match eager {
                    true => start_eagerly(&key, &mut run, cx, &identity),
                    false => None,
                };
                cx.new_runs.push(run);
                Ok((started, handout))
            })
            .await?;
        let eager_workflow_task = match handout {
            Some(handout) => Some(handout.into_response(self).await?),
            None => None,
        };
        Ok(StartWorkflowExecutionResponse {
            run_id: started.run_id,
            first_execution_run_id: started.first_run_id,
            started: started.is_new,
            status: started.status,
            eager_workflow_task,
            link: None,
        })
    }

    /// Signals a workflow, starting it if it does not run.
    pub async fn signal_with_start(
        &self,
        permit: &Permit,
        request: SignalWithStartWorkflowExecutionRequest,
    ) -> Result<SignalWithStartWorkflowExecutionResponse> {
        validate::name("SignalName", &request.signal_name, self.limits().id_bytes)?;
        let limit = self.limits().blob_bytes;
        validate::size("Signal input", encoded(&request.signal_input), limit)?;
        let (start, signal) = split_signal_with_start(request);
        if start.workflow_id_conflict_policy() == WorkflowIdConflictPolicy::Fail {
            return Err(RuntimeError::invalid(
                "Invalid WorkflowIDConflictPolicy: WORKFLOW_ID_CONFLICT_POLICY_FAIL is not supported for this operation.",
            ));
        }
        let mut sound = self.check_start(start)?;
        if sound.conflict == WorkflowIdConflictPolicy::Fail {
            sound.conflict = WorkflowIdConflictPolicy::UseExisting;
        }
        let key = sound.key.clone();
        let started = self
            .transact(permit, &key, "", |workflow, cx| {
                let (started, new) = start_in(workflow, cx, sound)?;
                match new {
                    Some(mut run) => {
                        run.signal(cx, signal)?;
                        run.schedule_first_task(cx);
                        cx.new_runs.push(run);
                    }
                    None => workflow
                        .named_live(&started.run_id)?
                        .run
                        .signal(cx, signal)?,
                }
                Ok(started)
            })
            .await?;
        Ok(SignalWithStartWorkflowExecutionResponse {
            run_id: started.run_id,
            first_execution_run_id: started.first_run_id,
            started: started.is_new,
            signal_link: None,
        })
    }

    /// Checks a start request, and fills in what it leaves out.
    pub(crate) fn check_start(
        &self,
        mut request: StartWorkflowExecutionRequest,
    ) -> Result<SoundStart> {
        let namespace = self.namespaces().by_name(&request.namespace)?;
        takes_workflows(&namespace)?;
        let limits = self.limits();
        validate::name("WorkflowId", &request.workflow_id, limits.id_bytes)?;
        let workflow_type = request
            .workflow_type
            .as_ref()
            .map_or("", |t| t.name.as_str());
        validate::name("WorkflowType", workflow_type, limits.id_bytes)?;
        validate::task_queue(&request.task_queue, limits.id_bytes)?;
        validate::length("RequestId", &request.request_id, limits.id_bytes)?;
        validate::duration(
            "WorkflowExecutionTimeoutSeconds",
            &request.workflow_execution_timeout,
        )?;
        validate::duration("WorkflowRunTimeoutSeconds", &request.workflow_run_timeout)?;
        validate::duration("WorkflowTaskTimeoutSeconds", &request.workflow_task_timeout)?;
        validate::duration("WorkflowStartDelay", &request.workflow_start_delay)?;
        validate::retry_policy(&request.retry_policy)?;
        steadfast_engine::commands::check_priority(request.priority.as_ref())
            .map_err(RuntimeError::invalid)?;
        check_schedule(&request)?;
        validate::size("Input", encoded(&request.input), limits.blob_bytes)?;
        validate::size("Memo", encoded(&request.memo), limits.memo_bytes)?;
        crate::visibility::check_search_attributes(&namespace, &request.search_attributes)?;
        if let Some(policy) = &mut request.retry_policy {
            steadfast_engine::backoff::default_retry_policy(policy);
        }
        if request.request_id.is_empty() {
            request.request_id = uuid::Uuid::new_v4().to_string();
        }
        let (reuse, conflict) = check_policies(&request)?;
        self.default_timeouts(&mut request);
        if !request.completion_callbacks.is_empty() {
            return Err(RuntimeError::invalid(
                "completion callbacks are not supported by this server",
            ));
        }
        Ok(SoundStart {
            key: WorkflowKey::new(namespace.id.clone(), request.workflow_id.clone()),
            request,
            reuse,
            conflict,
        })
    }

    fn default_timeouts(&self, request: &mut StartWorkflowExecutionRequest) {
        let limits = self.limits();
        let execution = span(&request.workflow_execution_timeout);
        let mut run = span(&request.workflow_run_timeout);
        if execution > 0 {
            run = if run == 0 {
                execution
            } else {
                run.min(execution)
            };
        }
        let task = match span(&request.workflow_task_timeout) {
            0 => limits.workflow_task_timeout,
            asked => asked.min(limits.max_workflow_task_timeout),
        };
        let task = if run > 0 { task.min(run) } else { task };
        request.workflow_execution_timeout = some_duration(execution);
        request.workflow_run_timeout = some_duration(run);
        request.workflow_task_timeout = Some(duration(task));
    }
}

/// Starts a run in a workflow, or finds the one that answers the request. A new run comes back
/// without its first workflow task.
pub(crate) fn start_in(
    workflow: &mut Workflow,
    cx: &mut Cx<'_>,
    start: SoundStart,
) -> Result<(Started, Option<Run>)> {
    let run_id = cx.ids.uuid();
    if let Some(current) = workflow.current_live() {
        let found = on_existing(
            &current.run.state,
            &start.request.request_id,
            start.reuse,
            start.conflict,
        );
        match found? {
            OnExisting::Use => {
                attach(&mut current.run, cx, &start.request);
                // The repetition of a request is answered as the request was.
                let repeated = current.run.state.start_request_id == start.request.request_id;
                return Ok((
                    Started {
                        is_new: repeated,
                        ..found_run(current)
                    },
                    None,
                ));
            }
            OnExisting::TerminateAndStart => terminate_for_reuse(&mut current.run, cx, &run_id)?,
            OnExisting::Start => {}
        }
    }
    let run = Run::begin(cx, start_run(cx.now, start, run_id.clone()));
    let started = Started {
        first_run_id: run_id.clone(),
        run_id,
        is_new: true,
        status: WorkflowExecutionStatus::Running as i32,
    };
    Ok((started, Some(run)))
}

/// A start request that uses a running workflow may leave its request id and links there.
fn attach(run: &mut Run, cx: &mut Cx<'_>, request: &StartWorkflowExecutionRequest) {
    let Some(options) = &request.on_conflict_options else {
        return;
    };
    if options.attach_request_id {
        let links = if options.attach_links {
            request.links.clone()
        } else {
            Vec::new()
        };
        run.attach_start_request(cx, &request.request_id, links);
    }
}

fn found_run(live: &LiveRun) -> Started {
    let state = &live.run.state;
    Started {
        run_id: state.run_id.clone(),
        first_run_id: state.start().first_execution_run_id.clone(),
        is_new: false,
        status: state.status,
    }
}

fn start_run(now: steadfast_engine::Time, start: SoundStart, run_id: String) -> StartRun {
    let request = start.request;
    let initiator = match request.cron_schedule.is_empty() {
        true => ContinueAsNewInitiator::Unspecified,
        false => ContinueAsNewInitiator::CronSchedule,
    };
    let delay = match request.cron_schedule.is_empty() {
        true => span(&request.workflow_start_delay),
        false => first_cron_delay(&request.cron_schedule, now),
    };
    StartRun {
        namespace_id: start.key.namespace_id,
        workflow_id: request.workflow_id,
        request_id: request.request_id,
        attributes: WorkflowExecutionStartedEventAttributes {
            workflow_type: request.workflow_type,
            task_queue: request.task_queue.map(|queue| TaskQueue {
                name: queue.name,
                kind: TaskQueueKind::Normal as i32,
                normal_name: String::new(),
            }),
            input: request.input,
            workflow_execution_timeout: request.workflow_execution_timeout,
            workflow_run_timeout: request.workflow_run_timeout,
            workflow_task_timeout: request.workflow_task_timeout,
            initiator: initiator as i32,
            continued_failure: request.continued_failure,
            last_completion_result: request.last_completion_result,
            identity: request.identity,
            retry_policy: request.retry_policy,
            attempt: 1,
            cron_schedule: request.cron_schedule,
            memo: request.memo,
            search_attributes: request.search_attributes,
            header: request.header,
            priority: request.priority,
            eager_execution_accepted: request.request_eager_execution && delay == 0,
            ..Default::default()
        },
        run_id,
        user_metadata: request.user_metadata,
        links: request.links,
        delay,
        initiator: None,
        agents: Vec::new(),
    }
}

/// Hands the first workflow task to the starter itself.
fn start_eagerly(
    key: &WorkflowKey,
    run: &mut Run,
    cx: &mut Cx<'_>,
    identity: &str,
) -> Option<WorkflowTaskHandout> {
    let id = run.workflow_task()?.scheduled_event_id;
    let poller = Poller {
        identity: identity.to_owned(),
        request_id: cx.ids.uuid(),
        worker_version: None,
    };
    let task = run.start_workflow_task(cx, id, &poller).ok()?;
    Run::withdraw_task_offer(cx, &run.state.run_id);
    // The run is not among the live ones yet: lend it to a live run for the moment.
    let mut live = LiveRun::new(std::mem::take(run), 0);
    let handout = WorkflowTaskHandout::prepare(key, &mut live, &task);
    *run = live.run;
    Some(handout)
}

fn check_schedule(request: &StartWorkflowExecutionRequest) -> Result<()> {
    if request.cron_schedule.is_empty() {
        return Ok(());
    }
    steadfast_engine::cron::validate(&request.cron_schedule).map_err(RuntimeError::invalid)?;
    if span(&request.workflow_start_delay) > 0 {
        return Err(RuntimeError::invalid(
            "CronSchedule and WorkflowStartDelay may not be used together.",
        ));
    }
    Ok(())
}

/// The two policies about a workflow id that is taken, where they go together.
fn check_policies(
    request: &StartWorkflowExecutionRequest,
) -> Result<(WorkflowIdReusePolicy, WorkflowIdConflictPolicy)> {
    let reuse = match request.workflow_id_reuse_policy() {
        WorkflowIdReusePolicy::Unspecified => WorkflowIdReusePolicy::AllowDuplicate,
        policy => policy,
    };
    let asked = request.workflow_id_conflict_policy();
    if reuse == WorkflowIdReusePolicy::TerminateIfRunning
        && asked != WorkflowIdConflictPolicy::Unspecified
    {
        return Err(RuntimeError::invalid(
            "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING cannot be used together with a WorkflowIDConflictPolicy.",
        ));
    }
    if reuse == WorkflowIdReusePolicy::RejectDuplicate
        && asked == WorkflowIdConflictPolicy::TerminateExisting
    {
        return Err(RuntimeError::invalid(
            "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE cannot be used together with WorkflowIdConflictPolicy WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING.",
        ));
    }
    let conflict = match asked {
        WorkflowIdConflictPolicy::Unspecified => WorkflowIdConflictPolicy::Fail,
        policy => policy,
    };
    Ok((reuse, conflict))
}

fn encoded<M: Message>(message: &Option<M>) -> usize {
    message.as_ref().map_or(0, Message::encoded_len)
}

fn split_signal_with_start(
    request: SignalWithStartWorkflowExecutionRequest,
) -> (StartWorkflowExecutionRequest, Signal) {
    let signal = Signal {
        name: request.signal_name,
        input: request.signal_input,
        identity: request.identity.clone(),
        header: request.header.clone(),
        request_id: request.request_id.clone(),
        external: None,
        links: request.links.clone(),
    };
    let start = StartWorkflowExecutionRequest {
        namespace: request.namespace,
        workflow_id: request.workflow_id,
        workflow_type: request.workflow_type,
        task_queue: request.task_queue,
        input: request.input,
        workflow_execution_timeout: request.workflow_execution_timeout,
        workflow_run_timeout: request.workflow_run_timeout,
        workflow_task_timeout: request.workflow_task_timeout,
        identity: request.identity,
        request_id: request.request_id,
        workflow_id_reuse_policy: request.workflow_id_reuse_policy,
        workflow_id_conflict_policy: request.workflow_id_conflict_policy,
        retry_policy: request.retry_policy,
        cron_schedule: request.cron_schedule,
        memo: request.memo,
        search_attributes: request.search_attributes,
        header: request.header,
        workflow_start_delay: request.workflow_start_delay,
        user_metadata: request.user_metadata,
        links: request.links,
        priority: request.priority,
        ..Default::default()
    };
    (start, signal)
}

/// A namespace that may take new workflows.
pub(crate) fn takes_workflows(namespace: &Namespace) -> Result<()> {
    use steadfast_engine::proto::enums::NamespaceState;
    match namespace.state == NamespaceState::Registered as i32 {
        true => Ok(()),
        false => Err(RuntimeError::failed_precondition(format!(
            "Namespace {} takes no new workflows: it is deprecated or deleted.",
            namespace.name
        ))),
    }
}
