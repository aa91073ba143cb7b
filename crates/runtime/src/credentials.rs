//! Credentials of attempts of activities: what goes into a task's header, and what they are worth.
//!
//! The record of a hand-out says which credential it is. The token is made after that, when the answer to
//! the poll is: not under a shard's lock, and nowhere but in that answer.

use std::sync::Arc;

use steadfast_engine::Error as EngineError;
use steadfast_engine::Time;
use steadfast_engine::credential::{CredentialClaim, CredentialState, Terms};
use steadfast_engine::proto::common::{Payload, Principal};
use steadfast_engine::state::Credential;
use steadfast_ledger::Hash;

use crate::aggregate::{LiveRun, WorkflowKey};
use crate::error::{Result, RuntimeError};
use crate::evidence::as_hash;
use crate::runtime::Runtime;

/// Makes credentials.
pub trait Issuer: Send + Sync {
    /// What they are like.
    fn terms(&self) -> &Terms;

    /// The token of a credential; none if it cannot be made.
    fn token(&self, of: &Issued) -> Option<String>;
}

/// A credential, and what it is for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Issued {
    /// What the record says of it.
    pub credential: Credential,
    /// When the attempt was handed out.
    pub issued: Time,
    /// Name of the namespace.
    pub namespace: String,
    /// Workflow type.
    pub workflow_type: String,
    /// Workflow id.
    pub workflow_id: String,
    /// Run id.
    pub run_id: String,
    /// Activity id.
    pub activity_id: String,
    /// Activity type.
    pub tool: String,
    /// Number of the attempt.
    pub attempt: i32,
    /// Who started the session.
    pub initiator: Option<Principal>,
    /// The agents above it, the nearest first.
    pub agents: Vec<String>,
    /// The same for all attempts.
    pub idempotency_key: String,
    /// The record of the hand-out.
    pub recorded: Option<Recorded>,
}

/// The record that says that a credential was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its number in the run.
    pub n: u64,
    /// Leaf hash of its entry.
    pub leaf: Hash,
}

impl Issued {
    /// What is known under the lock; none if the attempt has no credential.
    pub(crate) fn of(
        live: &LiveRun,
        scheduled_event_id: i64,
        idempotency_key: &str,
    ) -> Option<Self> {
        let state = &live.run.state;
        let activity = state.activities.get(&scheduled_event_id)?;
        let (scheduled, attempt) = (activity.scheduled(), activity.attempt());
        let tool = scheduled.activity_type.as_ref();
        Some(Self {
            credential: attempt.credential.clone()?,
            issued: attempt.started_time,
            namespace: String::new(),
            workflow_type: state.workflow_type().to_owned(),
            workflow_id: state.workflow_id.clone(),
            run_id: state.run_id.clone(),
            activity_id: scheduled.activity_id.clone(),
            tool: tool.map_or_else(String::new, |of| of.name.clone()),
            attempt: attempt.number,
            initiator: state.initiator.clone(),
            agents: state.agents.clone(),
            idempotency_key: idempotency_key.to_owned(),
            recorded: None,
        })
    }
}

impl LiveRun {
    /// Tells the hand-outs of a transition which record it became.
    pub(crate) fn tell_record(&mut self) {
        let state = &self.run.state;
        for place in self.unrecorded.drain(..) {
            if let Some(leaf) = as_hash(&state.entry_hash) {
                // It is told once.
                let _ = place.set(Recorded { n: state.n, leaf });
            }
        }
    }
}

impl Runtime {
    /// Has attempts be given credentials. To be called once, before anything is served.
    pub fn set_issuer(&self, issuer: Arc<dyn Issuer>) {
        let _ = self.0.issuer.set(issuer);
    }

    /// The payload with the token of a credential.
    pub(crate) fn credential_payload(&self, issued: &Issued) -> Option<Payload> {
        let token = self.0.issuer.get()?.token(issued)?;
        // A JWT has no character that JSON escapes.
        Some(json_payload(&token))
    }

    /// What the credential of an attempt is worth now: as of what is durable, and what is due by now.
    pub async fn credential_state(
        &self,
        namespace: &str,
        workflow_id: &str,
        run_id: &str,
        claim: &CredentialClaim<'_>,
    ) -> Result<CredentialState> {
        let Ok(namespace) = self.namespaces().by_name(namespace) else {
            return Ok(CredentialState::Closed);
        };
        let key = WorkflowKey::new(namespace.id.clone(), workflow_id);
        let state = self.inspect(&key, run_id, |workflow| {
            let live = workflow.named_live(run_id)?;
            Ok(live.run.state.credential_state(claim))
        });
        match state.await {
            Err(RuntimeError::Engine(EngineError::NotFound(_))) => Ok(CredentialState::Closed),
            other => other,
        }
    }
}

/// A text that has no character that JSON escapes, as JSON.
pub(crate) fn json_payload(text: &str) -> Payload {
    Payload {
        metadata: [("encoding".to_owned(), b"json/plain".to_vec())].into(),
        data: format!("\"{text}\"").into_bytes(),
        ..Payload::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use steadfast_engine::proto::command::ScheduleActivityTaskCommandAttributes;
    use steadfast_engine::proto::common::{ActivityType, Header};
    use steadfast_engine::proto::taskqueue::TaskQueue;
    use steadfast_engine::proto::workflowservice::{
        PollActivityTaskQueueRequest, PollActivityTaskQueueResponse,
        RespondActivityTaskCompletedRequest, RespondWorkflowTaskCompletedRequest,
    };
    use steadfast_engine::time::{SECOND, duration};
    use steadfast_ledger::Entry;

    use super::*;
    use crate::Settings;
    use crate::handout::{CREDENTIAL, IDEMPOTENCY_KEY};
    use crate::testing::{Bed, start};

    struct Plain(Terms);

    impl Issuer for Plain {
        fn terms(&self) -> &Terms {
            &self.0
        }

        fn token(&self, of: &Issued) -> Option<String> {
            let recorded = of.recorded?;
            let (n, leaf) = (recorded.n, recorded.leaf);
            assert_eq!((&*of.namespace, &*of.tool), ("default", "refund"));
            assert!(of.issued > 0 && of.initiator.is_some());
            Some(format!("{} {} {n} {leaf}", of.credential.id, of.attempt))
        }
    }

    async fn issuing() -> Bed {
        let bed = Bed::open(Settings::default()).await;
        bed.runtime.set_issuer(Arc::new(Plain(Terms {
            audience: "https://steadfast.example".into(),
            lifetime: 900 * SECOND,
            ..Terms::default()
        })));
        bed
    }

    fn queue() -> Option<TaskQueue> {
        Some(TaskQueue {
            name: "tools".into(),
            ..Default::default()
        })
    }

    fn command(eager: bool) -> ScheduleActivityTaskCommandAttributes {
        let forged = json_payload("forged");
        ScheduleActivityTaskCommandAttributes {
            activity_id: "tool".into(),
            activity_type: Some(ActivityType {
                name: "refund".into(),
            }),
            task_queue: queue(),
            header: Some(Header {
                fields: [
                    (CREDENTIAL.to_owned(), forged.clone()),
                    (IDEMPOTENCY_KEY.to_owned(), forged.clone()),
                    ("own".to_owned(), forged),
                ]
                .into(),
            }),
            start_to_close_timeout: Some(duration(60 * SECOND)),
            request_eager_execution: eager,
            ..Default::default()
        }
    }

    async fn poll(bed: &Bed) -> PollActivityTaskQueueResponse {
        let request = PollActivityTaskQueueRequest {
            namespace: "default".into(),
            task_queue: queue(),
            ..Default::default()
        };
        let patience = Some(Duration::from_secs(10));
        let polled = bed
            .runtime
            .poll_activity_task(&bed.permit, request, patience);
        polled.await.expect("polled")
    }

    fn text(task: &PollActivityTaskQueueResponse, field: &str) -> String {
        let payload = &task.header.as_ref().expect("a header").fields[field];
        assert_eq!(payload.metadata["encoding"], b"json/plain");
        serde_json::from_slice(&payload.data).expect("a JSON string")
    }

    /// What the log says of the record with a number, and its leaf hash.
    async fn logged(bed: &Bed, n: u64) -> (String, Hash) {
        bed.runtime.project_all().await.expect("projected");
        let id = bed.key("flow").namespace_id;
        let entries = bed.store.log_entries(&id, 0, usize::MAX, usize::MAX);
        let entries = entries.await.expect("read");
        let is_it = |bytes: &&Vec<u8>| {
            let entry = Entry::parse(bytes).expect("an entry");
            entry.n == n && entry.workflow_id == "flow"
        };
        let bytes = entries.iter().find(is_it).expect("is there");
        let entry = String::from_utf8(bytes.clone()).expect("text");
        (entry, Hash::leaf(bytes))
    }

    async fn state(bed: &Bed, run_id: &str, jti: &str) -> CredentialState {
        let claim = CredentialClaim {
            id: jti,
            activity_id: "tool",
            attempt: 1,
        };
        let state = bed
            .runtime
            .credential_state("default", "flow", run_id, &claim);
        state.await.expect("a state")
    }

    /// Checks what a worker was given: returns the credential's id.
    async fn check(bed: &Bed, task: &PollActivityTaskQueueResponse, run_id: &str) -> String {
        let token = text(task, CREDENTIAL);
        let parts: Vec<&str> = token.split(' ').collect();
        let [jti, "1", n, leaf] = parts[..] else {
            panic!("not a token: {token}");
        };
        let (entry, hash) = logged(bed, n.parse().expect("a number")).await;
        assert_eq!(leaf, hash.to_string());
        let credential = r#""credential":{"audience":"https://steadfast.example","expires":"#;
        assert!(entry.contains(credential), "{entry}");
        assert!(entry.contains(&format!("\"jti\":\"{jti}\"")), "{entry}");
        assert!(text(task, IDEMPOTENCY_KEY).starts_with(&format!("{run_id}/")));
        assert_eq!(text(task, "own"), "forged");
        jti.to_owned()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_that_waits_comes_with_a_credential_until_it_ends() {
        let bed = issuing().await;
        let run_id = bed.start(start("flow")).await;
        bed.answer([command(false).into()]).await;
        let task = poll(&bed).await;
        let jti = check(&bed, &task, &run_id).await;
        assert_eq!(state(&bed, &run_id, &jti).await, CredentialState::Active);
        let other = state(&bed, &run_id, "another").await;
        assert_eq!(other, CredentialState::Over);
        let gone = state(&bed, "00000000-0000-4000-8000-000000000000", &jti).await;
        assert_eq!(gone, CredentialState::Closed);
        // What is durable says so, too.
        let bed = Bed::reopen(bed.stop().await, Settings::default()).await;
        assert_eq!(state(&bed, &run_id, &jti).await, CredentialState::Active);
        let done = RespondActivityTaskCompletedRequest {
            namespace: "default".into(),
            task_token: task.task_token,
            ..Default::default()
        };
        let done = bed.runtime.complete_activity(&bed.permit, done).await;
        done.expect("completed");
        assert_eq!(state(&bed, &run_id, &jti).await, CredentialState::Over);
        let id = bed.key("flow").namespace_id;
        let findings = bed.runtime.check_evidence(&id, |_| {}).await;
        let differences = findings.expect("is checked").differences;
        assert_eq!(differences, Vec::<String>::new());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn so_do_tasks_that_are_matched_before_the_commit_and_eager_ones() {
        let bed = issuing().await;
        let run_id = bed.start(start("flow")).await;
        let (task, ()) = tokio::join!(poll(&bed), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            bed.answer([command(false).into()]).await;
        });
        check(&bed, &task, &run_id).await;

        let bed = issuing().await;
        let run_id = bed.start(start("flow")).await;
        let task = bed.take().await;
        let attributes = steadfast_engine::proto::command::command::Attributes::from(command(true));
        let answer = RespondWorkflowTaskCompletedRequest {
            task_token: task.task_token,
            commands: vec![steadfast_engine::proto::command::Command {
                command_type: steadfast_engine::commands::type_of(&attributes) as i32,
                attributes: Some(attributes),
                ..Default::default()
            }],
            ..Default::default()
        };
        let answered = bed
            .runtime
            .complete_workflow_task(&bed.permit, answer)
            .await;
        let tasks = answered.expect("answered").activity_tasks;
        let [task] = &tasks[..] else {
            panic!("{} tasks", tasks.len());
        };
        check(&bed, task, &run_id).await;
    }
}
