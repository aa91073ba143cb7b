//! Reset: a new run that shares the beginning of another one's history, up to a workflow task, and
//! goes on differently from there.
//!
//! The new run's state is what replaying the shared events gives, corrected by what history does
//! not say. Its first record holds that state ([`StepKind::Fork`]); the events stay where they are.

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message;

use crate::error::{Error, Result};
use crate::governance::Stage;
use crate::proto::enums::{
    ResetReapplyExcludeType, ResetReapplyType, UpdateAdmittedEventOrigin, WorkflowTaskFailedCause,
};
use crate::proto::failure::{Failure, ResetWorkflowFailureInfo, failure::FailureInfo};
use crate::proto::history::{
    HistoryEvent, WorkflowExecutionTerminatedEventAttributes,
    WorkflowExecutionUpdateAdmittedEventAttributes, WorkflowTaskFailedEventAttributes,
    WorkflowTaskStartedEventAttributes, history_event::Attributes,
};
use crate::proto::update::Request;
use crate::proto::workflowservice::ResetWorkflowExecutionRequest;
use crate::record::{Begin, Fork, StepKind};
use crate::run::{Cx, Run};
use crate::state::{Attempt, Branch, RunState, WorkflowTask};
use crate::time::span;
use crate::update::Admitted;

/// Identity of the server where it fails a workflow task so that the workflow goes on differently.
const SERVER_IDENTITY: &str = "history-service";
/// Identity of the server where it terminates the run that a reset replaces.
const RESETTER_IDENTITY: &str = "history-resetter";

/// What a reset works on.
#[derive(Clone, Debug, Default)]
pub struct ResetPlan {
    /// The request.
    pub request: ResetWorkflowExecutionRequest,
    /// The base run's events before `workflow_task_finish_event_id`, with their stored bytes.
    pub base_events: Vec<(HistoryEvent, Bytes)>,
    /// The rest of the base run, then the runs that continued it as new, each from its first event
    /// on. If the current run is among them it is to be terminated before its events are taken.
    pub later_events: Vec<HistoryEvent>,
    /// The runs that own the base events, oldest first; the last one is the base run.
    pub ancestors: Vec<Branch>,
}

/// Whether a workflow task can be found at the point that a plan names. To be asked before anything
/// is changed for the reset.
pub fn check_reset_plan(base: &RunState, plan: &ResetPlan) -> Result<()> {
    validate_reset_point(base, &plan.request)?;
    match replay(base, plan)?.state.workflow_task {
        Some(_) => Ok(()),
        None => Err(no_task_at(plan.request.workflow_task_finish_event_id)),
    }
}

fn no_task_at(event_id: i64) -> Error {
    Error::InvalidArgument(format!(
        "Can only reset workflow to event ID in range [WorkflowTaskScheduled +1, \
         WorkflowTaskStarted + 1]: {event_id}"
    ))
}

/// Whether a reset of `base` may be tried. Whether the event is one where a workflow task can be
/// failed shows when the history is replayed.
pub fn validate_reset_point(
    base: &RunState,
    request: &ResetWorkflowExecutionRequest,
) -> Result<()> {
    let finish = request.workflow_task_finish_event_id;
    if finish <= 1 || finish >= base.next_event_id {
        return Err(Error::InvalidArgument(
            "Workflow task finish ID must be > 1 && <= workflow last event ID.".into(),
        ));
    }
    if !request.post_reset_operations.is_empty() {
        return Err(Error::InvalidArgument(
            "post reset operations are not supported".into(),
        ));
    }
    Ok(())
}

/// Makes the new run. The caller terminates the current run first if it is still running
/// ([`Run::terminate_for_reset`]), and commits both together.
pub fn reset(cx: &mut Cx<'_>, base: &RunState, plan: ResetPlan) -> Result<Run> {
    validate_reset_point(base, &plan.request)?;
    let mut run = replay(base, &plan)?;
    let Some(task) = run.state.workflow_task.clone() else {
        return Err(no_task_at(plan.request.workflow_task_finish_event_id));
    };
    let run_id = cx.ids.uuid();
    let reapply = Reapply::of(&plan.request);
    let shared = shared_updates(&run.state, &plan);
    let later = if reapply.updates {
        later_updates(&run.state, &plan, &shared)
    } else {
        Vec::new()
    };
    correct_state(cx, base, &plan, &run_id, &mut run.state);
    for request in shared.iter().chain(&later) {
        run.state.count_update(update_id(request));
        run.admitted.push(Admitted::new(request.clone(), true));
    }
    run.step(StepKind::Fork(Fork {
        state: run.state.encode_to_vec(),
    }));

    run.fail_task_for_reset(cx, &task, &plan);
    run.reapply(cx, plan.later_events, reapply, later);
    run.offer_again(cx);
    run.schedule_workflow_task(cx);
    Ok(run)
}

impl Run {
    /// Notes which run came of a reset of this one.
    pub fn note_reset(&mut self, run_id: &str) {
        self.step(StepKind::ResetTo(run_id.to_owned()));
    }

    /// Terminates the current run because another one is made from it or from one before it.
    pub fn terminate_for_reset(
        &mut self,
        cx: &mut Cx<'_>,
        request: &ResetWorkflowExecutionRequest,
    ) -> Result<()> {
        if !self.state.is_running() {
            return Err(Error::completed());
        }
        self.fail_task_of_closing_run(cx);
        let terminated = WorkflowExecutionTerminatedEventAttributes {
            reason: request.reason.clone(),
            details: None,
            identity: RESETTER_IDENTITY.into(),
        };
        // The new run follows it: for its parent and its children this is no end.
        self.close_with(cx, terminated.into(), Vec::new(), true);
        Ok(())
    }

    /// Fails the workflow task at which the shared history ends.
    fn fail_task_for_reset(&mut self, cx: &mut Cx<'_>, task: &WorkflowTask, plan: &ResetPlan) {
        let mut started_event_id = task.started_event_id;
        if started_event_id == 0 {
            let started = WorkflowTaskStartedEventAttributes {
                scheduled_event_id: task.scheduled_event_id,
                identity: SERVER_IDENTITY.into(),
                request_id: cx.ids.uuid(),
                history_size_bytes: self.state.history_bytes,
                ..Default::default()
            };
            started_event_id = self.event(cx, started.into());
        }
        let failed = WorkflowTaskFailedEventAttributes {
            scheduled_event_id: task.scheduled_event_id,
            started_event_id,
            cause: WorkflowTaskFailedCause::ResetWorkflow as i32,
            failure: Some(Failure {
                message: plan.request.reason.clone(),
                failure_info: Some(FailureInfo::ResetWorkflowFailureInfo(
                    ResetWorkflowFailureInfo::default(),
                )),
                ..Default::default()
            }),
            identity: SERVER_IDENTITY.into(),
            base_run_id: self.state.reset_from_run_id.clone(),
            new_run_id: self.state.run_id.clone(),
            fork_event_version: plan
                .base_events
                .last()
                .map_or(0, |(event, _)| event.version),
            ..Default::default()
        };
        self.event(cx, failed.into());
    }

    /// Lets happen again what happened after the reset point and did not come from the workflow
    /// itself.
    fn reapply(
        &mut self,
        cx: &mut Cx<'_>,
        events: Vec<HistoryEvent>,
        reapply: Reapply,
        mut updates: Vec<Request>,
    ) {
        // Ids that events of later runs refer to mean something else there.
        let mut of_base = true;
        for event in events {
            of_base &= event.event_id != 1;
            let Some(attributes) = event.attributes else {
                continue;
            };
            use Attributes as A;
            match attributes {
                A::WorkflowExecutionSignaledEventAttributes(_) if reapply.signals => {
                    self.event_with(cx, attributes, |again| again.links = event.links);
                }
                // The workflow had it: it must not come again as a message that is sent again, either.
                A::WorkflowExecutionSignaledEventAttributes(signal) => {
                    self.remember_request(&signal.request_id);
                }
                _ if !reapply.anything() => {}
                A::WorkflowExecutionUpdateAdmittedEventAttributes(admitted) => {
                    self.readmit(cx, admitted.request, &mut updates);
                }
                A::WorkflowExecutionUpdateAcceptedEventAttributes(accepted) => {
                    self.readmit(cx, accepted.accepted_request, &mut updates);
                }
                A::WorkflowExecutionOptionsUpdatedEventAttributes(_) => {
                    self.event_with(cx, attributes, |again| again.links = event.links);
                }
                attributes if of_base => self.reapply_child(cx, attributes),
                _ => {}
            }
        }
    }

    /// Writes the event that brings an update back, if this is one that does.
    fn readmit(&mut self, cx: &Cx<'_>, request: Option<Request>, updates: &mut Vec<Request>) {
        let Some(at) = updates
            .iter()
            .position(|update| Some(update) == request.as_ref())
        else {
            return;
        };
        self.event(
            cx,
            WorkflowExecutionUpdateAdmittedEventAttributes {
                request: Some(updates.remove(at)),
                origin: UpdateAdmittedEventOrigin::Reapply as i32,
            }
            .into(),
        );
    }

    /// Tells the new run what it does not know yet of a child that the shared history started.
    fn reapply_child(&mut self, cx: &Cx<'_>, mut attributes: Attributes) {
        use Attributes as A;
        let (initiated_event_id, started_event_id) = match &mut attributes {
            A::StartChildWorkflowExecutionFailedEventAttributes(a) => (a.initiated_event_id, None),
            A::ChildWorkflowExecutionStartedEventAttributes(a) => (a.initiated_event_id, None),
            A::ChildWorkflowExecutionCompletedEventAttributes(a) => {
                (a.initiated_event_id, Some(&mut a.started_event_id))
            }
            A::ChildWorkflowExecutionFailedEventAttributes(a) => {
                (a.initiated_event_id, Some(&mut a.started_event_id))
            }
            A::ChildWorkflowExecutionCanceledEventAttributes(a) => {
                (a.initiated_event_id, Some(&mut a.started_event_id))
            }
            A::ChildWorkflowExecutionTimedOutEventAttributes(a) => {
                (a.initiated_event_id, Some(&mut a.started_event_id))
            }
            A::ChildWorkflowExecutionTerminatedEventAttributes(a) => {
                (a.initiated_event_id, Some(&mut a.started_event_id))
            }
            _ => return,
        };
        let Some(child) = self.state.children.get(&initiated_event_id) else {
            return;
        };
        match started_event_id {
            Some(started) => *started = child.started_event_id,
            None if child.started_event_id != 0 => return,
            None => {}
        }
        self.event(cx, attributes);
    }

    /// Asks again for everything that the shared history leaves under way, policies first. Receivers know
    /// the requests they have had.
    fn offer_again(&mut self, cx: &mut Cx<'_>) {
        for (&id, activity) in &self.state.activities {
            cx.effects
                .extend(self.activity_effect(id, activity, cx.now));
        }
        let unsent = self.state.messages_under_way().map(|(id, _)| id);
        for id in unsent.collect::<Vec<_>>() {
            if self.may_run(cx, id, Stage::Dispatch) {
                self.dispatch(cx, id);
            }
        }
    }
}

/// What of the later events counts again.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reapply {
    signals: bool,
    updates: bool,
    nexus: bool,
    cancel_requests: bool,
}

impl Reapply {
    // The older of the two fields is deprecated, and still what older clients send.
    #[allow(deprecated)]
    fn of(request: &ResetWorkflowExecutionRequest) -> Self {
        use ResetReapplyExcludeType as Exclude;
        let excluded = |kind: Exclude| request.reset_reapply_exclude_types.contains(&(kind as i32));
        let older = ResetReapplyType::try_from(request.reset_reapply_type).unwrap_or_default();
        Self {
            signals: older != ResetReapplyType::None && !excluded(Exclude::Signal),
            updates: !matches!(older, ResetReapplyType::None | ResetReapplyType::Signal)
                && !excluded(Exclude::Update),
            nexus: !excluded(Exclude::Nexus),
            cancel_requests: !excluded(Exclude::CancelRequest),
        }
    }

    /// Excluding everything that can be named also excludes what cannot be.
    fn anything(self) -> bool {
        self.signals || self.updates || self.nexus || self.cancel_requests
    }
}

/// The state that the shared events give.
fn replay(base: &RunState, plan: &ResetPlan) -> Result<Run> {
    let mut run = Run::default();
    run.apply(&StepKind::Begin(Begin {
        namespace_id: base.namespace_id.clone(),
        workflow_id: base.workflow_id.clone(),
        run_id: base.run_id.clone(),
        request_id: base.start_request_id.clone(),
        initiator: base.initiator.clone(),
        agents: base.agents.clone(),
    }))?;
    let finish = plan.request.workflow_task_finish_event_id;
    let mut owners = plan.ancestors.iter().peekable();
    for (event, bytes) in &plan.base_events {
        if event.event_id != run.state.next_event_id || event.event_id >= finish {
            return Err(Error::Corrupt(format!(
                "reset of run {}: event {} where {} is next",
                base.run_id, event.event_id, run.state.next_event_id
            )));
        }
        while owners
            .next_if(|owner| owner.last_event_id < event.event_id)
            .is_some()
        {}
        if let Some(owner) = owners.peek() {
            // Request ids are made from the run's id. They have to come out as they did there, so
            // that receivers recognise what they have had.
            run.state.run_id.clone_from(&owner.run_id);
        }
        run.apply_event(event, bytes.clone());
    }
    if run.state.next_event_id != finish {
        return Err(Error::Corrupt(format!(
            "reset of run {}: history ends before event {finish}",
            base.run_id
        )));
    }
    run.tail.clear();
    Ok(run)
}

/// Turns the replayed state into the new run's.
fn correct_state(
    cx: &Cx<'_>,
    base: &RunState,
    plan: &ResetPlan,
    run_id: &str,
    state: &mut RunState,
) {
    let now = cx.now;
    state.run_id = run_id.to_owned();
    state.n = 0;
    state.reset_from_run_id.clone_from(&base.run_id);
    // What was done is done.
    state.tool_calls.clone_from(&base.tool_calls);
    state.children_started.clone_from(&base.children_started);
    state.tool_calls_until = state.next_event_id - 1;
    state.ancestors.clone_from(&plan.ancestors);
    if !plan.request.request_id.is_empty() {
        // By which a repeated reset is recognised; that of the start is among the request ids.
        state.start_request_id.clone_from(&plan.request.request_id);
    }
    let inherited = |id: &str| plan.ancestors.iter().any(|branch| branch.run_id == id);
    for point in state
        .reset_points
        .iter_mut()
        .flat_map(|points| &mut points.points)
    {
        if inherited(&point.run_id) {
            point.run_id = run_id.to_owned();
        }
    }

    // The new run has its full time: it may be made long after the base run's was over.
    state.start_time = now;
    state.execution_time = now;
    let start = state.start();
    let (whole, single) = (
        span(&start.workflow_execution_timeout),
        span(&start.workflow_run_timeout),
    );
    state.execution_expires = if whole > 0 {
        now.saturating_add(whole)
    } else {
        0
    };
    state.run_expires = match (single, state.execution_expires) {
        (0, _) => 0,
        (single, 0) => now.saturating_add(single),
        (single, expires) => now.saturating_add(single).min(expires),
    };

    for activity in state.activities.values_mut() {
        activity.scheduled_time = now;
        activity.attempt = Some(Attempt {
            number: 1,
            scheduled_time: now,
            ..Attempt::default()
        });
    }
}

/// Updates that the shared history admits and does not accept, in order.
fn shared_updates(replayed: &RunState, plan: &ResetPlan) -> Vec<Request> {
    let admitted = plan
        .base_events
        .iter()
        .filter_map(|(event, _)| match &event.attributes {
            Some(Attributes::WorkflowExecutionUpdateAdmittedEventAttributes(a)) => {
                a.request.as_ref()
            }
            _ => None,
        });
    first_of_each(admitted, |id| replayed.updates.contains_key(id))
}

/// Updates that the workflow took later and is to take again, in order.
fn later_updates(replayed: &RunState, plan: &ResetPlan, shared: &[Request]) -> Vec<Request> {
    use Attributes as A;
    let taken = plan
        .later_events
        .iter()
        .filter_map(|event| match &event.attributes {
            Some(A::WorkflowExecutionUpdateAdmittedEventAttributes(a)) => a.request.as_ref(),
            // Without the request there is an admitted event before, which has it.
            Some(A::WorkflowExecutionUpdateAcceptedEventAttributes(a)) => {
                a.accepted_request.as_ref()
            }
            _ => None,
        });
    first_of_each(taken, |id| {
        replayed.updates.contains_key(id) || shared.iter().any(|request| update_id(request) == id)
    })
}

fn first_of_each<'a>(
    requests: impl Iterator<Item = &'a Request>,
    known: impl Fn(&str) -> bool,
) -> Vec<Request> {
    let mut seen = HashSet::new();
    requests
        .filter(|request| !known(update_id(request)) && seen.insert(update_id(request)))
        .cloned()
        .collect()
}

fn update_id(request: &Request) -> &str {
    request.meta.as_ref().map_or("", |meta| &meta.update_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(deprecated)]
    fn what_a_request_lets_happen_again() {
        use ResetReapplyExcludeType as E;
        use ResetReapplyType as T;
        let everything = [E::Signal, E::Update, E::Nexus, E::CancelRequest];
        #[allow(clippy::type_complexity)]
        let table: [(T, &[E], (bool, bool, bool)); 8] = [
            (T::Unspecified, &[], (true, true, true)),
            (T::AllEligible, &[], (true, true, true)),
            (T::Signal, &[], (true, false, true)),
            (T::Signal, &[E::Signal], (false, false, true)),
            (T::None, &[], (false, false, true)),
            (T::Unspecified, &[E::Signal], (false, true, true)),
            (T::AllEligible, &[E::Update, E::Nexus], (true, false, true)),
            (T::AllEligible, &everything, (false, false, false)),
        ];
        for (older, excluded, expected) in table {
            let reapply = Reapply::of(&ResetWorkflowExecutionRequest {
                reset_reapply_type: older as i32,
                reset_reapply_exclude_types: excluded.iter().map(|&kind| kind as i32).collect(),
                ..Default::default()
            });
            let got = (reapply.signals, reapply.updates, reapply.anything());
            assert_eq!(got, expected, "{older:?} {excluded:?}");
        }
    }
}
