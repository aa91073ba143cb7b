//! What is left of a closed run's state once its payloads are erased.

use crate::proto::history::WorkflowExecutionStartedEventAttributes;
use crate::state::RunState;

impl RunState {
    /// Leaves of the state what describes the run, what its history is read by, and what repeated
    /// requests are recognised by. All fields are named, so that none is kept by mistake: what may hold
    /// a payload goes, and so does the secret of the salts, without which digests say nothing.
    pub fn erase(&mut self) {
        let whole = std::mem::take(self);
        *self = Self {
            erased: true,
            namespace_id: whole.namespace_id,
            workflow_id: whole.workflow_id,
            run_id: whole.run_id,
            n: whole.n,
            time: whole.time,
            status: whole.status,
            started: whole.started.map(erased_start),
            start_time: whole.start_time,
            execution_time: whole.execution_time,
            close_time: whole.close_time,
            run_expires: whole.run_expires,
            execution_expires: whole.execution_expires,
            next_event_id: whole.next_event_id,
            history_bytes: whole.history_bytes,
            start_request_id: whole.start_request_id,
            workflow_task_attempt: whole.workflow_task_attempt,
            previous_started_event_id: whole.previous_started_event_id,
            last_completed_event_id: whole.last_completed_event_id,
            first_task_at: whole.first_task_at,
            signal_request_ids: whole.signal_request_ids,
            signal_count: whole.signal_count,
            cancel_requested: whole.cancel_requested,
            cancel_request_id: whole.cancel_request_id,
            reset_points: whole.reset_points,
            next_message: whole.next_message,
            ancestors: whole.ancestors,
            successor_run_id: whole.successor_run_id,
            close_event_id: whole.close_event_id,
            priority: whole.priority,
            worker_version: whole.worker_version,
            request_ids: whole.request_ids,
            reset_from_run_id: whole.reset_from_run_id,
            reset_run_id: whole.reset_run_id,
            update_count: whole.update_count,
            entry_hash: whole.entry_hash,
            initiator: whole.initiator,
            agents: whole.agents,
            tool_calls: whole.tool_calls,
            tool_calls_until: whole.tool_calls_until,
            children_started: whole.children_started,
            // Payloads, or what only an open run has.
            pause: None,
            workflow_task: None,
            sticky: None,
            activities: Default::default(),
            timers: Default::default(),
            children: Default::default(),
            external_signals: Default::default(),
            external_cancels: Default::default(),
            updates: Default::default(),
            buffered: Vec::new(),
            memo: None,
            search_attributes: None,
            outbox: Default::default(),
            user_metadata: None,
            heartbeat_since: 0,
            workflow_task_retry_at: 0,
            salt: Default::default(),
        };
    }
}

fn erased_start(
    whole: WorkflowExecutionStartedEventAttributes,
) -> WorkflowExecutionStartedEventAttributes {
    WorkflowExecutionStartedEventAttributes {
        workflow_type: whole.workflow_type,
        parent_workflow_namespace: whole.parent_workflow_namespace,
        parent_workflow_namespace_id: whole.parent_workflow_namespace_id,
        parent_workflow_execution: whole.parent_workflow_execution,
        parent_initiated_event_id: whole.parent_initiated_event_id,
        root_workflow_execution: whole.root_workflow_execution,
        task_queue: whole.task_queue,
        workflow_execution_timeout: whole.workflow_execution_timeout,
        workflow_run_timeout: whole.workflow_run_timeout,
        workflow_task_timeout: whole.workflow_task_timeout,
        workflow_execution_expiration_time: whole.workflow_execution_expiration_time,
        first_workflow_task_backoff: whole.first_workflow_task_backoff,
        continued_execution_run_id: whole.continued_execution_run_id,
        original_execution_run_id: whole.original_execution_run_id,
        first_execution_run_id: whole.first_execution_run_id,
        workflow_id: whole.workflow_id,
        initiator: whole.initiator,
        identity: whole.identity,
        retry_policy: whole.retry_policy,
        attempt: whole.attempt,
        cron_schedule: whole.cron_schedule,
        prev_auto_reset_points: whole.prev_auto_reset_points,
        priority: whole.priority,
        eager_execution_accepted: whole.eager_execution_accepted,
        // The rest is payloads, or what this server does not use.
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::common::{Memo, Payload, Payloads, SearchAttributes};
    use crate::proto::failure::Failure;
    use crate::proto::sdk::UserMetadata;
    use crate::proto::update::{Outcome, outcome::Value};
    use crate::state::{Activity, Attempt, Branch, OutMessage, Update};

    const SECRET: &str = "4111-1111";

    fn payload() -> Payload {
        Payload {
            data: SECRET.into(),
            ..Payload::default()
        }
    }

    fn payloads() -> Option<Payloads> {
        Some(Payloads {
            payloads: vec![payload()],
        })
    }

    fn state() -> RunState {
        let failure = Failure {
            message: SECRET.into(),
            ..Failure::default()
        };
        let start = WorkflowExecutionStartedEventAttributes {
            input: payloads(),
            last_completion_result: payloads(),
            continued_failure: Some(failure.clone()),
            identity: "alice@desk".into(),
            ..Default::default()
        };
        let attempt = Attempt {
            heartbeat_details: payloads(),
            last_failure: Some(failure),
            ..Attempt::default()
        };
        let activity = Activity {
            attempt: Some(attempt),
            ..Activity::default()
        };
        let update = Update {
            outcome: Some(Outcome {
                value: payloads().map(Value::Success),
            }),
            ..Update::default()
        };
        RunState {
            run_id: "run".into(),
            n: 7,
            next_event_id: 12,
            started: Some(start),
            memo: Some(Memo {
                fields: [("memo".to_owned(), payload())].into(),
            }),
            search_attributes: Some(SearchAttributes {
                indexed_fields: [("Customer".to_owned(), payload())].into(),
            }),
            activities: [(5, activity)].into(),
            updates: [("update".to_owned(), update)].into(),
            buffered: vec![SECRET.into()],
            outbox: [(1, OutMessage::default())].into(),
            user_metadata: Some(UserMetadata {
                summary: Some(payload()),
                details: None,
            }),
            salt: SECRET.into(),
            entry_hash: "hash".into(),
            ancestors: vec![Branch::default()],
            ..RunState::default()
        }
    }

    #[test]
    fn nothing_of_a_payload_is_left_and_the_rest_is() {
        let whole = state();
        let count = |state: &RunState| {
            let bytes = state.encode_to_vec();
            let windows = bytes.windows(SECRET.len());
            windows.filter(|of| *of == SECRET.as_bytes()).count()
        };
        assert_eq!(count(&whole), 11);
        let mut erased = whole.clone();
        erased.erase();
        assert_eq!(count(&erased), 0);
        assert!(erased.erased && erased.salt.is_empty());
        assert_eq!(erased.start().identity, "alice@desk");
        assert_eq!((erased.n, erased.next_event_id), (7, 12));
        assert_eq!(erased.entry_hash, whole.entry_hash);
        assert_eq!(erased.ancestors, whole.ancestors);
        let once = erased.clone();
        erased.erase();
        assert_eq!(erased, once);
    }
}
