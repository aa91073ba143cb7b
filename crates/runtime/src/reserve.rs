//! Tasks that are started in the transition that schedules them, for pollers that wait already.

use steadfast_engine::workflow_task::Poller;
use steadfast_engine::{Cx, Effect};

use crate::aggregate::{LiveRun, Workflow, WorkflowKey};
use crate::effects::queue_key;
use crate::handout::{ActivityHandout, Delivery, WorkflowTaskHandout, poller};
use crate::matching::{QueueKey, QueueKind, Waiting};
use crate::runtime::Runtime;

/// A poller that was given a task in the very transition that made it.
pub(crate) struct Reserved {
    pub(crate) waiting: Waiting,
    pub(crate) delivery: Delivery,
}

impl Runtime {
    /// Gives tasks that are being scheduled to pollers that wait for them, so that scheduling and
    /// starting are one transition.
    pub(crate) fn match_waiting_pollers(
        &self,
        key: &WorkflowKey,
        workflow: &mut Workflow,
        cx: &mut Cx<'_>,
        effects: Vec<Effect>,
    ) -> (Vec<Reserved>, Vec<Effect>) {
        let mut reserved = Vec::new();
        let mut rest = Vec::new();
        for effect in effects {
            let (run_id, queue) = match &effect {
                Effect::WorkflowTask {
                    run_id, task_queue, ..
                } => (run_id, queue_key(key, task_queue, QueueKind::Workflow)),
                Effect::ActivityTask {
                    run_id, task_queue, ..
                } => (run_id, queue_key(key, task_queue, QueueKind::Activity)),
                _ => {
                    rest.push(effect);
                    continue;
                }
            };
            let matched = workflow
                .runs
                .get_mut(run_id)
                .and_then(|live| self.match_one(key, live, cx, &queue, &effect));
            match matched {
                Some(found) => reserved.push(found),
                None => rest.push(effect),
            }
        }
        (reserved, rest)
    }

    fn match_one(
        &self,
        key: &WorkflowKey,
        live: &mut LiveRun,
        cx: &mut Cx<'_>,
        queue: &QueueKey,
        effect: &Effect,
    ) -> Option<Reserved> {
        let waiting = loop {
            let waiting = self.0.matching.reserve(queue)?;
            // A poll that was there when its caller was disabled ends without a task.
            if !self.0.disabled.refuses(&waiting.info.cause.principal) {
                break waiting;
            }
        };
        // Who starts a task is the worker that takes it, not who made it.
        let caller = std::mem::replace(&mut cx.cause, waiting.info.cause.clone());
        let delivery = start_for(key, live, cx, effect, &poller(&waiting.info));
        cx.cause = caller;
        delivery.map(|delivery| Reserved { waiting, delivery })
    }
}

/// Starts the task that an effect offers; none if it is not there.
fn start_for(
    key: &WorkflowKey,
    live: &mut LiveRun,
    cx: &mut Cx<'_>,
    effect: &Effect,
    poller: &Poller,
) -> Option<Delivery> {
    match effect {
        Effect::WorkflowTask {
            scheduled_event_id, ..
        } => {
            let task = live
                .run
                .start_workflow_task(cx, *scheduled_event_id, poller)
                .ok()?;
            let handout = WorkflowTaskHandout::prepare(key, live, &task);
            Some(Delivery::WorkflowTask(Box::new(handout)))
        }
        Effect::ActivityTask {
            scheduled_event_id,
            attempt,
            ..
        } => {
            live.run
                .start_activity(cx, *scheduled_event_id, *attempt, poller)
                .ok()?;
            let handout = ActivityHandout::prepare(key, live, *scheduled_event_id)?;
            Some(Delivery::Activity(Box::new(handout)))
        }
        _ => None,
    }
}
