//! Messages between runs: starting children, signals and cancels to others, and how children and
//! parents hear of each other's end.
//!
//! A message is part of its sender's state until the receiver has it. It is delivered after the
//! sender's commit; if the process dies in between, it is delivered again when the sender is loaded,
//! and the receiver recognises the repetition.

use std::time::Duration;

use steadfast_engine::external::Target;
use steadfast_engine::proto::common::{Payload, Payloads, WorkflowExecution};
use steadfast_engine::proto::enums::{
    CancelExternalWorkflowExecutionFailedCause as CancelFailed, ParentClosePolicy,
    SignalExternalWorkflowExecutionFailedCause as SignalFailed,
    StartChildWorkflowExecutionFailedCause as ChildFailed, WorkflowIdConflictPolicy,
};
use steadfast_engine::signal::CancelRequest;
use steadfast_engine::start::{OnExisting, on_existing};
use steadfast_engine::state::{ChildClosed, Delivery, OutMessage, RunState};
use steadfast_engine::{Cx, Error as EngineError, Run, Time};

use crate::aggregate::{LiveRun, WorkflowKey};
use crate::error::{Result, RuntimeError};
use crate::permit::Permit;
use crate::runtime::Runtime;

/// Longest pause between attempts. A message is tried until its receiver has it, one of the two is
/// gone, or the server stops; then the next start goes on.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Most runs of a chain that are asked whether they had a message: those that began since it was
/// sent, which are few unless it could not be acknowledged for long.
const MAX_PREDECESSORS: usize = 1000;

impl Runtime {
    /// Delivers a message in the background.
    pub(crate) fn deliver(&self, sender: WorkflowKey, run_id: String, message: OutMessage) {
        let runtime = self.clone();
        self.0.runtime.spawn(async move {
            let mut pause = Duration::from_millis(50);
            while !runtime.is_stopping() {
                match runtime.deliver_once(&sender, &run_id, &message).await {
                    Ok(()) => return,
                    Err(error) if is_gone(&error) => return,
                    Err(error) => {
                        tracing::warn!(%error, workflow_id = %sender.workflow_id, "a message could not be delivered: trying again");
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = runtime.stopping() => {}
                }
                pause = (pause * 2).min(MAX_PAUSE);
            }
        });
    }

    async fn deliver_once(
        &self,
        sender: &WorkflowKey,
        run_id: &str,
        message: &OutMessage,
    ) -> Result<()> {
        let target = WorkflowKey::new(message.namespace_id.clone(), message.workflow_id.clone());
        match &message.delivery {
            Some(Delivery::StartChild(id)) => {
                self.deliver_start(sender, run_id, message, *id).await
            }
            Some(Delivery::Signal(id)) => self.deliver_signal(sender, run_id, message, *id).await,
            Some(Delivery::Cancel(id)) => self.deliver_cancel(sender, run_id, message, *id).await,
            Some(Delivery::ChildClosed(closed)) => {
                self.deliver_child_closed(&target, &message.run_id, closed)
                    .await?;
                self.acknowledge(sender, run_id, message.id).await
            }
            Some(Delivery::ParentClosed(policy)) => {
                let policy =
                    ParentClosePolicy::try_from(*policy).unwrap_or(ParentClosePolicy::Abandon);
                self.deliver_parent_closed(sender, run_id, &target, &message.run_id, policy)
                    .await?;
                self.acknowledge(sender, run_id, message.id).await
            }
            None => self.acknowledge(sender, run_id, message.id).await,
        }
    }

    /// The receiver has it: the sender forgets the message.
    async fn acknowledge(&self, sender: &WorkflowKey, run_id: &str, id: u64) -> Result<()> {
        self.with_sender(sender, run_id, |live, _| {
            live.run.message_delivered(id);
            Ok(())
        })
        .await
    }

    async fn with_sender<R>(
        &self,
        sender: &WorkflowKey,
        run_id: &str,
        decide: impl FnOnce(&mut LiveRun, &mut Cx<'_>) -> Result<R>,
    ) -> Result<R> {
        self.transact(
            &Permit::internal("message"),
            sender,
            run_id,
            |workflow, cx| {
                let Some(live) = workflow.runs.get_mut(run_id) else {
                    return Err(RuntimeError::not_found("the sender is gone"));
                };
                decide(live, cx)
            },
        )
        .await
    }

    async fn deliver_start(
        &self,
        sender: &WorkflowKey,
        run_id: &str,
        message: &OutMessage,
        initiated: i64,
    ) -> Result<()> {
        let child = self
            .with_sender(sender, run_id, |live, _| {
                Ok(live.run.child_start_request(initiated))
            })
            .await?;
        let Some(child) = child else {
            return self.acknowledge(sender, run_id, message.id).await;
        };
        let target = WorkflowKey::new(child.namespace_id.clone(), child.workflow_id.clone());
        let permit = Permit::internal("start-child");
        let started = self
            .transact(&permit, &target, "", |workflow, cx| {
                let run_id = cx.ids.uuid();
                if let Some(current) = workflow.current_live() {
                    if let Some(first_run_id) = child.began(&current.run.state) {
                        return Ok(first_run_id);
                    }
                    let found = on_existing(
                        &current.run.state,
                        &child.request_id,
                        child.reuse_policy,
                        WorkflowIdConflictPolicy::Fail,
                    );
                    match found? {
                        OnExisting::Use => return Ok(current.run.state.run_id.clone()),
                        OnExisting::TerminateAndStart => {
                            terminate_for_reuse(&mut current.run, cx, &run_id)?;
                        }
                        OnExisting::Start => {}
                    }
                }
                let start = child.into_start_run(run_id.clone(), cx.now);
                let run = Run::start(cx, start);
                cx.new_runs.push(run);
                Ok(run_id)
            })
            .await;
        match started {
            Ok(child_run_id) => {
                self.with_sender(sender, run_id, |live, cx| {
                    live.run.child_started(cx, initiated, child_run_id)?;
                    live.run.message_delivered(message.id);
                    Ok(())
                })
                .await
            }
            Err(RuntimeError::Engine(EngineError::AlreadyStarted { .. })) => {
                self.with_sender(sender, run_id, |live, cx| {
                    live.run.child_start_failed(
                        cx,
                        initiated,
                        ChildFailed::WorkflowAlreadyExists,
                    )?;
                    live.run.message_delivered(message.id);
                    Ok(())
                })
                .await
            }
            Err(error) => Err(error),
        }
    }

    async fn deliver_signal(
        &self,
        sender: &WorkflowKey,
        run_id: &str,
        message: &OutMessage,
        initiated: i64,
    ) -> Result<()> {
        let request = self
            .with_sender(sender, run_id, |live, _| {
                Ok(live.run.external_signal_request(initiated))
            })
            .await?;
        let Some((target, signal, child_only)) = request else {
            return self.acknowledge(sender, run_id, message.id).await;
        };
        let delivered = match target.is_sender {
            true => Err(RuntimeError::not_found("a workflow does not signal itself")),
            false => {
                let request_id = signal.request_id.clone();
                self.to_external(&target, &request_id, sender, child_only, |run, cx| {
                    run.signal(cx, signal.clone())
                })
                .await
            }
        };
        let outcome = match delivered {
            Ok(()) => Ok(()),
            Err(RuntimeError::Engine(EngineError::ResourceExhausted(_))) => {
                Err(SignalFailed::SignalCountLimitExceeded)
            }
            Err(error) if is_gone(&error) => Err(SignalFailed::ExternalWorkflowExecutionNotFound),
            Err(RuntimeError::NamespaceNotFound(_)) => Err(SignalFailed::NamespaceNotFound),
            Err(error) => return Err(error),
        };
        self.with_sender(sender, run_id, |live, cx| {
            live.run.external_signal_delivered(cx, initiated, outcome)?;
            live.run.message_delivered(message.id);
            Ok(())
        })
        .await
    }

    async fn deliver_cancel(
        &self,
        sender: &WorkflowKey,
        run_id: &str,
        message: &OutMessage,
        initiated: i64,
    ) -> Result<()> {
        let request = self
            .with_sender(sender, run_id, |live, _| {
                Ok(live.run.external_cancel_request(initiated))
            })
            .await?;
        let Some((target, cancel, child_only)) = request else {
            return self.acknowledge(sender, run_id, message.id).await;
        };
        let delivered = match target.is_sender {
            true => Err(RuntimeError::not_found(
                "a workflow does not cancel itself from outside",
            )),
            false => {
                let request_id = cancel.request_id.clone();
                self.to_external(&target, &request_id, sender, child_only, |run, cx| {
                    run.request_cancel(cx, cancel.clone())
                })
                .await
            }
        };
        let outcome = match delivered {
            Ok(()) => Ok(()),
            Err(error) if is_gone(&error) => Err(CancelFailed::ExternalWorkflowExecutionNotFound),
            Err(RuntimeError::NamespaceNotFound(_)) => Err(CancelFailed::NamespaceNotFound),
            Err(error) => return Err(error),
        };
        self.with_sender(sender, run_id, |live, cx| {
            live.run.external_cancel_delivered(cx, initiated, outcome)?;
            live.run.message_delivered(message.id);
            Ok(())
        })
        .await
    }

    /// Does something to another workflow, if it is there (and a child of the sender, if it must
    /// be), unless it was done before.
    ///
    /// A message that is delivered again may find a run that only continues the one that had it.
    /// So a run that began after the message was sent is not given it before the runs that it
    /// continues were asked.
    async fn to_external(
        &self,
        target: &Target,
        request_id: &str,
        sender: &WorkflowKey,
        child_only: bool,
        act: impl Fn(&mut Run, &mut Cx<'_>) -> std::result::Result<(), EngineError>,
    ) -> Result<()> {
        let key = WorkflowKey::new(target.namespace_id.clone(), target.workflow_id.clone());
        let permit = Permit::internal("message");
        // The run whose predecessors are known not to have had it.
        let mut asked_before = String::new();
        loop {
            let to_ask = self
                .transact(&permit, &key, &target.run_id, |workflow, cx| {
                    let live = workflow.named_live(&target.run_id)?;
                    let state = &live.run.state;
                    let parent = state.start().parent_workflow_execution.as_ref();
                    if child_only
                        && parent.is_none_or(|parent| parent.workflow_id != sender.workflow_id)
                    {
                        return Err(RuntimeError::not_found("not a child of the sender"));
                    }
                    if live.run.has_taken(request_id) {
                        return Ok(None);
                    }
                    if target.run_id.is_empty()
                        && asked_before != state.run_id
                        && let Some(before) = predecessor_since(state, target.sent)
                    {
                        return Ok(Some((state.run_id.clone(), before)));
                    }
                    act(&mut live.run, cx)?;
                    Ok(None)
                })
                .await?;
            let Some((run_id, before)) = to_ask else {
                return Ok(());
            };
            if self
                .was_taken(&key, before, request_id, target.sent)
                .await?
            {
                return Ok(());
            }
            asked_before = run_id;
        }
    }

    /// Whether a run took a message that was sent then, or one that it continues.
    async fn was_taken(
        &self,
        key: &WorkflowKey,
        mut run_id: String,
        request_id: &str,
        sent: Time,
    ) -> Result<bool> {
        for _ in 0..MAX_PREDECESSORS {
            let answer = self
                .inspect(key, &run_id, |workflow| {
                    let run = &workflow.named_live(&run_id)?.run;
                    let before = predecessor_since(&run.state, sent);
                    Ok((run.has_taken(request_id), before))
                })
                .await;
            match answer {
                Ok((true, _)) => return Ok(true),
                Ok((false, Some(before))) => run_id = before,
                Ok((false, None)) => return Ok(false),
                // Deleted since, and with it what it knew.
                Err(error) if is_gone(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    async fn deliver_child_closed(
        &self,
        parent: &WorkflowKey,
        parent_run_id: &str,
        closed: &ChildClosed,
    ) -> Result<()> {
        let result = self
            .transact(
                &Permit::internal("child-closed"),
                parent,
                parent_run_id,
                |workflow, cx| {
                    let live = workflow.named_live(parent_run_id)?;
                    if live.run.state.is_running() {
                        return Ok(live.run.child_closed(cx, closed)?);
                    }
                    // The parent was reset: the run that has the child now is the current one.
                    if let Some(current) = workflow.current_live()
                        && current.run.state.is_running()
                        && current
                            .run
                            .state
                            .ancestors
                            .iter()
                            .any(|of| of.run_id == parent_run_id)
                    {
                        current.run.child_closed(cx, closed)?;
                    }
                    Ok(())
                },
            )
            .await;
        match result {
            Err(error) if is_gone(&error) => Ok(()),
            other => other,
        }
    }

    async fn deliver_parent_closed(
        &self,
        parent: &WorkflowKey,
        parent_run_id: &str,
        child: &WorkflowKey,
        child_run_id: &str,
        policy: ParentClosePolicy,
    ) -> Result<()> {
        let result = self
            .transact(
                &Permit::internal("parent-closed"),
                child,
                "",
                |workflow, cx| {
                    // The child may have continued as new since: its chain's current run is meant.
                    let Some(live) = workflow.current_live() else {
                        return Ok(());
                    };
                    let start = live.run.state.start();
                    let of_parent =
                        start
                            .parent_workflow_execution
                            .as_ref()
                            .is_some_and(|execution| {
                                execution.workflow_id == parent.workflow_id
                                    && (!child_run_id.is_empty()
                                        || execution.run_id == parent_run_id)
                            });
                    let same_chain =
                        child_run_id.is_empty() || start.first_execution_run_id == child_run_id;
                    if !of_parent || !same_chain || !live.run.state.is_running() {
                        return Ok(());
                    }
                    match policy {
                        ParentClosePolicy::Terminate => live.run.terminate(
                            cx,
                            "by parent close policy".into(),
                            None,
                            "history-service".into(),
                            Vec::new(),
                        )?,
                        ParentClosePolicy::RequestCancel => live.run.request_cancel(
                            cx,
                            CancelRequest {
                                identity: "history-service".into(),
                                external: Some((
                                    WorkflowExecution {
                                        workflow_id: parent.workflow_id.clone(),
                                        run_id: parent_run_id.to_owned(),
                                    },
                                    0,
                                )),
                                ..CancelRequest::default()
                            },
                        )?,
                        _ => {}
                    }
                    Ok(())
                },
            )
            .await;
        match result {
            Err(error) if is_gone(&error) => Ok(()),
            other => other,
        }
    }
}

/// Terminates a run because another with its workflow id takes its place.
pub(crate) fn terminate_for_reuse(run: &mut Run, cx: &mut Cx<'_>, by: &str) -> Result<()> {
    let details = Payload {
        metadata: [("encoding".to_owned(), b"json/plain".to_vec())].into(),
        data: format!("\"terminated by new runID: {by}\"").into_bytes(),
        ..Payload::default()
    };
    run.terminate(
        cx,
        "TerminateIfRunning WorkflowIdReusePolicy".into(),
        Some(Payloads {
            payloads: vec![details],
        }),
        "history-service".into(),
        Vec::new(),
    )?;
    Ok(())
}

/// Time until the first run of a cron schedule; 0 without one.
pub(crate) fn first_cron_delay(schedule: &str, now: steadfast_engine::Time) -> i64 {
    match schedule.is_empty() {
        true => 0,
        false => steadfast_engine::cron::next_after(schedule, now, now).unwrap_or(0),
    }
}

/// The run that a run continues, if that may have run when a message was sent.
fn predecessor_since(state: &RunState, sent: Time) -> Option<String> {
    let before = &state.start().continued_execution_run_id;
    (!before.is_empty() && state.start_time >= sent).then(|| before.clone())
}

/// Whether an error says that the workflow is not there, or not running, any more.
fn is_gone(error: &RuntimeError) -> bool {
    matches!(error, RuntimeError::Engine(EngineError::NotFound(_)))
}

#[cfg(test)]
mod tests {
    use steadfast_engine::Limits;
    use steadfast_engine::proto::command::{
        ContinueAsNewWorkflowExecutionCommandAttributes, command::Attributes as C,
    };
    use steadfast_engine::proto::enums::EventType;
    use steadfast_engine::signal::Signal;

    use super::*;
    use crate::Settings;
    use crate::testing::{Bed, start};

    const SENT_BY: &str = "0190f3c4-7b1a-7c3d-9e2f-000000000001:5";

    async fn open() -> Bed {
        let limits = Limits {
            continue_as_new_min_interval: 0,
            ..Limits::default()
        };
        Bed::open(Settings {
            limits,
            ..Settings::default()
        })
        .await
    }

    async fn continue_as_new(bed: &Bed) {
        let again = ContinueAsNewWorkflowExecutionCommandAttributes::default();
        bed.answer([C::ContinueAsNewWorkflowExecutionCommandAttributes(again)])
            .await;
    }

    /// Delivers what a sender that never hears of it sends again and again.
    async fn deliver(bed: &Bed, target: &Target, cancel: bool) -> Result<()> {
        let sender = bed.key("sender");
        bed.runtime
            .to_external(target, SENT_BY, &sender, false, |run, cx| match cancel {
                true => run.request_cancel(
                    cx,
                    CancelRequest {
                        request_id: SENT_BY.into(),
                        external: Some((WorkflowExecution::default(), 5)),
                        ..CancelRequest::default()
                    },
                ),
                false => run.signal(
                    cx,
                    Signal {
                        name: "poke".into(),
                        request_id: SENT_BY.into(),
                        ..Signal::default()
                    },
                ),
            })
            .await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_message_that_comes_again_is_known_to_the_runs_that_continue_its_receiver() {
        for (cancel, event) in [
            (false, EventType::WorkflowExecutionSignaled),
            (true, EventType::WorkflowExecutionCancelRequested),
        ] {
            let bed = open().await;
            bed.start(start("receiver")).await;
            // The run that has the message continues another one itself.
            continue_as_new(&bed).await;
            let target = Target {
                namespace_id: bed.key("").namespace_id,
                workflow_id: "receiver".into(),
                sent: crate::clock::now(),
                ..Target::default()
            };
            deliver(&bed, &target, cancel).await.expect("delivered");
            deliver(&bed, &target, cancel).await.expect("known");
            assert_eq!(bed.count("receiver", event).await, 1);
            for _ in 0..2 {
                continue_as_new(&bed).await;
                deliver(&bed, &target, cancel).await.expect("known");
                assert_eq!(bed.count("receiver", event).await, 0, "{event:?}");
            }
            // A run that began before a message was sent is given it: no other can have had it.
            let later = Target {
                sent: crate::clock::now(),
                ..target
            };
            deliver(&bed, &later, cancel).await.expect("delivered");
            assert_eq!(bed.count("receiver", event).await, 1);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_message_that_comes_again_is_known_to_its_closed_receiver() {
        let bed = open().await;
        let run_id = bed.start(start("receiver")).await;
        let target = Target {
            namespace_id: bed.key("").namespace_id,
            workflow_id: "receiver".into(),
            run_id,
            sent: crate::clock::now(),
            ..Target::default()
        };
        deliver(&bed, &target, false).await.expect("delivered");
        continue_as_new(&bed).await;
        deliver(&bed, &target, false).await.expect("known");
        assert_eq!(
            bed.count("receiver", EventType::WorkflowExecutionSignaled)
                .await,
            0
        );
    }
}
