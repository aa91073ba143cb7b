//! Tool calls, and other commands, that wait for people: listing them, and deciding one.

use std::sync::Arc;

use steadfast_engine::approval::{Ballot, Voted, WhichCall};
use steadfast_engine::call::Command;
use steadfast_engine::governance::Governor;
use steadfast_engine::proto::common::{Payloads, Principal, WorkflowExecution};
use steadfast_engine::record::CallKind;
use steadfast_engine::state::{Approval, RunState};
use steadfast_store::RunRef;

use crate::aggregate::WorkflowKey;
use crate::error::Result;
use crate::permit::Permit;
use crate::projector::APPROVALS;
use crate::runtime::Runtime;

/// Runs that are looked at for one list.
const MAX_RUNS: usize = 1000;

/// A call that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingCall {
    /// Workflow id.
    pub workflow_id: String,
    /// Run id.
    pub run_id: String,
    /// What runs.
    pub workflow_type: String,
    /// Who started it.
    pub initiator: Option<Principal>,
    /// What it is.
    pub kind: CallKind,
    /// The event that scheduled or initiated it.
    pub event_id: i64,
    /// Activity id; of others the workflow id of the child or the receiver.
    pub activity_id: String,
    /// Activity type; of others the workflow type, or the signal's name.
    pub activity_type: String,
    /// The run of the receiver, if it is said.
    pub target_run_id: String,
    /// Whether the receiver has to be a child.
    pub children_only: bool,
    /// The task queue of a tool call or a child.
    pub task_queue: String,
    /// When a child is started again and again.
    pub cron_schedule: String,
    /// Whether the start of a child ends a workflow of its id that is running.
    pub terminates_running: bool,
    /// Why another workflow is to cancel.
    pub reason: String,
    /// The exact arguments.
    pub arguments: Option<Payloads>,
    /// What is needed, and the votes until now.
    pub approval: Approval,
}

/// A decision about a call.
#[derive(Clone, Debug)]
pub struct Decide {
    /// Workflow id.
    pub workflow_id: String,
    /// Run id; empty for the current run.
    pub run_id: String,
    /// Which call.
    pub call: WhichCall,
    /// The digest of the call that was looked at.
    pub digest: Vec<u8>,
    /// Groups of whoever decides.
    pub groups: Vec<String>,
    /// Whether they approve.
    pub approves: bool,
    /// Why.
    pub comment: String,
}

impl Runtime {
    /// Has policies decide from now on, or none. Tool calls that are under way go on; those that wait for
    /// people are decided again soon.
    pub fn set_governor(&self, governor: Option<Arc<dyn Governor>>) {
        *self.0.governor.write() = governor;
        self.0.governor_changed.notify_one();
    }

    /// The calls of a namespace that wait for people, of those runs that wait longest.
    pub async fn waiting_calls(
        &self,
        _permit: &Permit,
        namespace: &str,
    ) -> Result<Vec<WaitingCall>> {
        let namespace_id = self.namespaces().by_name(namespace)?.id.clone();
        self.projected().await?;
        let store = self.store();
        let runs = store.runs_with_pending_tasks(&namespace_id, APPROVALS, "", MAX_RUNS);
        let mut calls = Vec::new();
        for run in runs.await? {
            // It may be gone by now.
            calls.extend(self.waiting_calls_of(&run).await.unwrap_or_default());
        }
        calls.sort_by_key(|call| call.approval.requested);
        Ok(calls)
    }

    async fn waiting_calls_of(&self, run: &RunRef) -> Result<Vec<WaitingCall>> {
        let key = WorkflowKey::new(run.namespace_id.clone(), run.workflow_id.clone());
        self.inspect(&key, &run.run_id, |workflow| {
            let state = &workflow.named_live(&run.run_id)?.run.state;
            let waiting = state.is_running().then(|| state.waiting());
            let waiting = waiting.into_iter().flatten();
            let calls = waiting.map(|(id, command, of)| waiting_call(state, id, &command, of));
            Ok(calls.collect())
        })
        .await
    }

    /// Counts a vote. When it returns, the vote and what it led to are durable.
    pub async fn decide_approval(
        &self,
        permit: &Permit,
        namespace: &str,
        decide: Decide,
    ) -> Result<Voted> {
        let execution = WorkflowExecution {
            workflow_id: decide.workflow_id,
            run_id: decide.run_id,
        };
        let (key, run_id) = self.target(namespace, &Some(execution))?;
        let cause = permit.cause();
        let ballot = Ballot {
            principal: cause.principal,
            authentication: cause.authentication,
            groups: decide.groups,
            approves: decide.approves,
            comment: decide.comment,
        };
        self.transact(permit, &key, &run_id, |workflow, cx| {
            let live = workflow.named_live(&run_id)?;
            let voted = live.run.vote(cx, &decide.call, &decide.digest, ballot)?;
            Ok(voted)
        })
        .await
    }
}

fn waiting_call(
    state: &RunState,
    event_id: i64,
    command: &Command<'_>,
    approval: &Approval,
) -> WaitingCall {
    let receiver = command.receiver();
    let cron_schedule = match command {
        Command::Child(child) => child.initiated().cron_schedule.clone(),
        _ => String::new(),
    };
    WaitingCall {
        workflow_id: state.workflow_id.clone(),
        run_id: state.run_id.clone(),
        workflow_type: state.workflow_type().to_owned(),
        initiator: state.initiator.clone(),
        kind: command.kind(),
        event_id,
        activity_id: command.id().to_owned(),
        activity_type: command.name().to_owned(),
        target_run_id: receiver.map_or_else(String::new, |of| of.run_id.clone()),
        children_only: command.children_only(),
        task_queue: command.task_queue().to_owned(),
        cron_schedule,
        terminates_running: command.terminates_running(),
        reason: command.reason().to_owned(),
        arguments: command.arguments().cloned(),
        approval: approval.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use steadfast_engine::governance::{Call, Reasons, Requirement, Ruling};
    use steadfast_engine::proto::command::ScheduleActivityTaskCommandAttributes;
    use steadfast_engine::proto::common::{ActivityType, Payload};
    use steadfast_engine::proto::enums::EventType;
    use steadfast_engine::proto::taskqueue::TaskQueue;
    use steadfast_engine::proto::workflowservice::{
        PollActivityTaskQueueRequest, PollActivityTaskQueueResponse,
    };
    use steadfast_engine::time::{SECOND, duration};
    use steadfast_ledger::Entry;

    use super::*;
    use crate::testing::{Bed, start};
    use crate::{RuntimeError, Settings};

    /// Refunds need two people, deletions nobody may do.
    struct Rules;

    impl Governor for Rules {
        fn policy_hash(&self) -> &[u8] {
            &[7; 32]
        }

        fn decide(&self, call: &Call<'_>) -> Ruling {
            let reasons = |id: &str| Reasons {
                policies: vec![id.into()],
                policy_hash: vec![7; 32],
            };
            match call.command.name() {
                "refund" => Ruling::Approval(
                    reasons("refunds"),
                    Requirement {
                        groups: vec!["finance".into(), "risk".into()],
                        quorum: 2,
                        timeout: 3600 * SECOND,
                    },
                ),
                "delete" => Ruling::Deny(reasons("never")),
                _ => Ruling::Allow(reasons("all")),
            }
        }
    }

    async fn calling(bed: &Bed, tool: &str) -> String {
        bed.runtime.set_governor(Some(Arc::new(Rules)));
        let run_id = bed.start(start("flow")).await;
        let command = ScheduleActivityTaskCommandAttributes {
            activity_id: "tool".into(),
            activity_type: Some(ActivityType { name: tool.into() }),
            task_queue: Some(TaskQueue {
                name: "tools".into(),
                ..Default::default()
            }),
            input: Some(Payloads {
                payloads: vec![Payload {
                    data: "1200".into(),
                    ..Default::default()
                }],
            }),
            start_to_close_timeout: Some(duration(60 * SECOND)),
            ..Default::default()
        };
        bed.answer([command.into()]).await;
        run_id
    }

    async fn vote(
        bed: &Bed,
        who: &str,
        group: &str,
        approves: bool,
    ) -> std::result::Result<Voted, RuntimeError> {
        let permit = Permit::granted("DecideApproval", who.into(), "oidc".into());
        let waiting = bed.runtime.waiting_calls(&permit, "default").await;
        let waiting = waiting.expect("a list");
        let [call] = &waiting[..] else {
            panic!("{} calls wait", waiting.len());
        };
        let decide = Decide {
            workflow_id: call.workflow_id.clone(),
            run_id: call.run_id.clone(),
            call: WhichCall::Activity(call.activity_id.clone()),
            digest: call.approval.digest.clone(),
            groups: vec![group.into()],
            approves,
            comment: String::new(),
        };
        bed.runtime
            .decide_approval(&permit, "default", decide)
            .await
    }

    async fn poll(bed: &Bed, patience: u64) -> PollActivityTaskQueueResponse {
        let request = PollActivityTaskQueueRequest {
            namespace: "default".into(),
            task_queue: Some(TaskQueue {
                name: "tools".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let patience = Some(Duration::from_millis(patience));
        let polled = bed
            .runtime
            .poll_activity_task(&bed.permit, request, patience);
        polled.await.expect("polled")
    }

    /// The entries of the log, as text.
    async fn entries(bed: &Bed) -> Vec<String> {
        let id = bed.key("").namespace_id;
        let size = bed.runtime.log_size(&id).await.expect("a size");
        let size = usize::try_from(size).expect("a small log");
        let entries = bed.store.log_entries(&id, 0, size, usize::MAX).await;
        let entries = entries.expect("entries").into_iter().map(|bytes| {
            Entry::parse(&bytes).expect("an entry");
            String::from_utf8(bytes).expect("text")
        });
        entries.collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_call_waits_for_people_over_restarts() {
        let bed = Bed::open(Settings::default()).await;
        let run_id = calling(&bed, "refund").await;
        assert!(poll(&bed, 1200).await.task_token.is_empty(), "it waits");
        let waiting = bed.runtime.waiting_calls(&bed.permit, "default").await;
        let waiting = waiting.expect("a list").remove(0);
        assert_eq!(
            (waiting.run_id, waiting.activity_type),
            (run_id, "refund".into())
        );
        assert_eq!(waiting.initiator.expect("known").name, "tester");
        assert_eq!(waiting.arguments.expect("there").payloads[0].data, b"1200");
        assert!(vote(&bed, "tester", "risk", true).await.is_err());
        assert_eq!(
            vote(&bed, "bob", "risk", true).await.expect("counts"),
            Voted::Waiting
        );

        let bed = Bed::reopen(bed.stop().await, Settings::default()).await;
        bed.runtime.set_governor(Some(Arc::new(Rules)));
        assert!(
            poll(&bed, 1200).await.task_token.is_empty(),
            "it waits still"
        );
        let voted = vote(&bed, "carol", "finance", true).await;
        assert_eq!(voted.expect("counts"), Voted::Released);
        let task = poll(&bed, 5000).await;
        assert_eq!(task.activity_id, "tool");
        let waiting = bed.runtime.waiting_calls(&bed.permit, "default").await;
        assert_eq!(waiting.expect("a list"), []);

        let entries = entries(&bed).await;
        let of = |text: &str| entries.iter().filter(|entry| entry.contains(text)).count();
        assert_eq!(of(r#""answer":"approval","policies":["refunds"]"#), 4);
        assert_eq!(of(r#""answer":"approve","auth":"oidc","by":"bob""#), 2);
        assert_eq!(of(r#""released":true"#), 1);
        let id = bed.key("").namespace_id;
        let found = bed
            .runtime
            .check_evidence(&id, |_| {})
            .await
            .expect("checks");
        assert_eq!(found.differences, Vec::<String>::new());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_refusal_is_a_failure_that_a_worker_sees() {
        let bed = Bed::open(Settings::default()).await;
        calling(&bed, "delete").await;
        let task = bed.take().await;
        let events = task.history.expect("there").events;
        let types: Vec<_> = events.iter().map(|event| event.event_type()).collect();
        assert_eq!(
            types[4..7],
            [
                EventType::ActivityTaskScheduled,
                EventType::ActivityTaskStarted,
                EventType::ActivityTaskFailed
            ]
        );
        let entries = entries(&bed).await;
        let denied = r#""answer":"deny","policies":["never"]"#;
        assert!(entries.iter().any(|entry| entry.contains(denied)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_person_can_deny() {
        let bed = Bed::open(Settings::default()).await;
        calling(&bed, "refund").await;
        let voted = vote(&bed, "bob", "risk", false).await;
        assert_eq!(voted.expect("counts"), Voted::Refused);
        assert!(poll(&bed, 1200).await.task_token.is_empty());
        let waiting = bed.runtime.waiting_calls(&bed.permit, "default").await;
        assert_eq!(waiting.expect("a list"), []);
        bed.take().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn other_policies_decide_what_waits_without_a_vote() {
        let bed = Bed::open(Settings::default()).await;
        calling(&bed, "refund").await;
        let asked = async || {
            let entries = entries(&bed).await;
            let asked = r#""answer":"approval","policies":["refunds"]"#;
            entries.iter().filter(|entry| entry.contains(asked)).count()
        };
        let before = asked().await;
        bed.runtime.set_governor(Some(Arc::new(Rules)));
        bed.runtime.decide_waiting_again().await.expect("decided");
        assert_eq!(asked().await, before, "the policies are the same");
        assert!(poll(&bed, 1200).await.task_token.is_empty());

        bed.runtime.set_governor(None);
        assert_eq!(poll(&bed, 5000).await.activity_id, "tool");
        let waiting = bed.runtime.waiting_calls(&bed.permit, "default").await;
        assert_eq!(waiting.expect("a list"), []);
        let id = bed.key("").namespace_id;
        let found = bed.runtime.check_evidence(&id, |_| {}).await;
        assert_eq!(found.expect("checks").differences, Vec::<String>::new());
    }
}
