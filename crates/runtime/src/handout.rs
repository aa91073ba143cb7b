//! What pollers are given: tasks that were started for them, and queries.

use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message;
use steadfast_engine::Ids;
use steadfast_engine::proto::common::{Header, WorkflowExecution, WorkflowType};
use steadfast_engine::proto::enums::TaskQueueKind;
use steadfast_engine::proto::history::{History, HistoryEvent};
use steadfast_engine::proto::protocol;
use steadfast_engine::proto::query::WorkflowQuery;
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::proto::workflowservice::{
    PollActivityTaskQueueResponse, PollWorkflowTaskQueueResponse,
};
use steadfast_engine::state::{Branch, WorkflowTask};
use steadfast_engine::time::timestamp;
use steadfast_engine::workflow_task::Poller;

use crate::aggregate::{LiveRun, WorkflowKey};
use crate::clock::RandomIds;
use crate::credentials::{Issued, Recorded, json_payload};
use crate::error::Result;
use crate::matching::{PollerInfo, QueueKind, Task};
use crate::permit::Permit;
use crate::queries::QueryHandout;
use crate::runtime::Runtime;
use crate::token::{HistoryToken, TaskToken};

/// Most bytes of history in one answer to a poll; the worker fetches the rest.
pub(crate) const HISTORY_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// What goes to a poller.
pub enum Delivery {
    /// A workflow task.
    WorkflowTask(Box<WorkflowTaskHandout>),
    /// An activity task.
    Activity(Box<ActivityHandout>),
    /// A query on its own.
    Query(Box<QueryHandout>),
    /// Nothing: the poll is over, because its worker says good-bye.
    Nothing,
}

impl Delivery {
    /// Whether somebody still waits for it.
    pub fn is_wanted(&self) -> bool {
        match self {
            Self::Query(query) => query.is_wanted(),
            _ => true,
        }
    }
}

/// A started workflow task, as it was when it was started.
pub struct WorkflowTaskHandout {
    key: WorkflowKey,
    task: WorkflowTask,
    workflow_type: String,
    task_queue: String,
    previous_started_event_id: i64,
    history: HistoryPart,
    queries: std::collections::HashMap<String, WorkflowQuery>,
    messages: Vec<protocol::Message>,
    run_id: String,
}

/// The events that go with a task: from memory where they are, else to be read.
pub struct HistoryPart {
    /// First event.
    pub first: i64,
    /// Last event that is in history.
    pub last: i64,
    /// First event that is in memory; what is before it is in the store.
    pub memory_from: i64,
    /// The events from there on.
    pub memory: Vec<Bytes>,
    /// Where older ones are stored.
    pub branches: Vec<Branch>,
    /// Events that follow but are not in history yet.
    pub virtual_events: Vec<HistoryEvent>,
}

impl WorkflowTaskHandout {
    /// Takes all that the worker needs out of the run. The task is started.
    pub fn prepare(key: &WorkflowKey, live: &mut LiveRun, task: &WorkflowTask) -> Self {
        let messages = live.run.update_messages(true);
        let state = &live.run.state;
        let first = if task.sticky {
            state.previous_started_event_id + 1
        } else {
            1
        };
        let history = HistoryPart::of(live, first);
        live.sent_queries.extend(
            live.queries
                .drain(..)
                .map(|query| (query.id.clone(), query)),
        );
        let state = &live.run.state;
        Self {
            key: key.clone(),
            run_id: state.run_id.clone(),
            workflow_type: state.workflow_type().to_owned(),
            task_queue: state.task_queue().to_owned(),
            previous_started_event_id: state.previous_started_event_id,
            history,
            queries: live
                .sent_queries
                .iter()
                .map(|(id, query)| (id.clone(), query.query.clone()))
                .collect(),
            messages,
            task: task.clone(),
        }
    }

    /// The answer to the poll.
    pub async fn into_response(self, runtime: &Runtime) -> Result<PollWorkflowTaskQueueResponse> {
        let task = self.task;
        let token = TaskToken {
            namespace_id: self.key.namespace_id.clone(),
            workflow_id: self.key.workflow_id.clone(),
            run_id: self.run_id.clone(),
            scheduled_event_id: task.scheduled_event_id,
            started_event_id: task.started_event_id,
            attempt: task.attempt,
            request_id: task.request_id,
        };
        let with_task = !self.history.virtual_events.is_empty();
        let (events, next_page_token) = self
            .history
            .into_page(runtime, &self.key, &self.run_id, with_task)
            .await?;
        Ok(PollWorkflowTaskQueueResponse {
            task_token: token.encode_to_vec(),
            workflow_execution: Some(WorkflowExecution {
                workflow_id: self.key.workflow_id,
                run_id: self.run_id,
            }),
            workflow_type: Some(WorkflowType {
                name: self.workflow_type,
            }),
            previous_started_event_id: self.previous_started_event_id,
            started_event_id: task.started_event_id,
            attempt: task.attempt,
            history: Some(History { events }),
            next_page_token,
            workflow_execution_task_queue: Some(TaskQueue {
                name: self.task_queue,
                kind: TaskQueueKind::Normal as i32,
                normal_name: String::new(),
            }),
            scheduled_time: Some(timestamp(task.scheduled_time)),
            started_time: Some(timestamp(task.started_time)),
            queries: self.queries,
            messages: self.messages,
            ..Default::default()
        })
    }
}

impl HistoryPart {
    /// The run's events from `first` on.
    pub fn of(live: &LiveRun, first: i64) -> Self {
        let state = &live.run.state;
        let (memory_from, memory) = live.events_from(first);
        Self {
            first,
            last: state.next_event_id - 1,
            memory_from,
            memory,
            branches: state.ancestors.clone(),
            virtual_events: live.run.virtual_task_events(),
        }
    }

    /// The first page of events, and the token for the rest.
    pub async fn into_page(
        mut self,
        runtime: &Runtime,
        key: &WorkflowKey,
        run_id: &str,
        with_task: bool,
    ) -> Result<(Vec<HistoryEvent>, Vec<u8>)> {
        let virtual_events = std::mem::take(&mut self.virtual_events);
        let last = self.last;
        let (mut events, next) = self
            .read(runtime, key, run_id, HISTORY_PAGE_BYTES, usize::MAX)
            .await?;
        if next > last {
            events.extend(virtual_events);
            return Ok((events, Vec::new()));
        }
        let token = HistoryToken {
            run_id: run_id.to_owned(),
            next_event_id: next,
            last_event_id: last,
            with_task,
            // A worker gets its task's history: that is no read.
            noted: runtime.read_seal(&key.namespace_id, run_id),
        };
        Ok((events, token.encode_to_vec()))
    }

    /// Reads events up to a size and a number, from the store and then from memory. Returns them and
    /// the id of the one after them.
    pub async fn read(
        self,
        runtime: &Runtime,
        key: &WorkflowKey,
        run_id: &str,
        max_bytes: usize,
        max_events: usize,
    ) -> Result<(Vec<HistoryEvent>, i64)> {
        let mut page = Page::new(runtime, max_bytes, max_events);
        let mut next = self.first;
        let stored_last = self.last.min(self.memory_from - 1);
        for (owner, first, last) in self.owners(run_id) {
            next = next.max(first);
            while next <= stored_last.min(last) {
                if page.is_full() {
                    return Ok((page.events, next));
                }
                let range = next..=stored_last.min(last);
                let stored = read_stored(runtime, key, &owner, range, page.room(), Order::Oldest);
                for (id, event) in stored.await? {
                    if !page.push(&event)? {
                        return Ok((page.events, next));
                    }
                    next = id + 1;
                }
            }
        }
        let skip = usize::try_from(next - self.memory_from).unwrap_or(0);
        for event in self.memory.iter().skip(skip) {
            if next > self.last || !page.push(event)? {
                break;
            }
            next += 1;
        }
        Ok((page.events, next))
    }

    /// The same from the end: newest events first. Returns them and the id of the one before them, 0
    /// for none.
    pub async fn read_reverse(
        self,
        runtime: &Runtime,
        key: &WorkflowKey,
        run_id: &str,
        max_bytes: usize,
        max_events: usize,
    ) -> Result<(Vec<HistoryEvent>, i64)> {
        let mut page = Page::new(runtime, max_bytes, max_events);
        let mut next = self.last;
        let in_memory = usize::try_from(next - self.memory_from + 1).unwrap_or(0);
        for event in self.memory.iter().take(in_memory).rev() {
            if !page.push(event)? {
                return Ok((page.events, next));
            }
            next -= 1;
        }
        for (owner, first, _) in self.owners(run_id).into_iter().rev() {
            let first = first.max(self.first);
            while next >= first {
                if page.is_full() {
                    return Ok((page.events, next));
                }
                let range = first..=next;
                let stored = read_stored(runtime, key, &owner, range, page.room(), Order::Newest);
                for (id, event) in stored.await? {
                    if !page.push(&event)? {
                        return Ok((page.events, next));
                    }
                    next = id - 1;
                }
            }
        }
        Ok((page.events, next))
    }

    /// The runs that wrote the events, oldest first, with the first and the last event of each.
    fn owners(&self, run_id: &str) -> Vec<(String, i64, i64)> {
        let mut first = 1;
        let mut owners = Vec::with_capacity(self.branches.len() + 1);
        for branch in &self.branches {
            owners.push((branch.run_id.clone(), first, branch.last_event_id));
            first = branch.last_event_id + 1;
        }
        owners.push((run_id.to_owned(), first, i64::MAX));
        owners
    }
}

/// Events on their way to a caller, up to a size and a number.
struct Page<'a> {
    runtime: &'a Runtime,
    events: Vec<HistoryEvent>,
    bytes: usize,
    max_bytes: usize,
    max_events: usize,
}

impl<'a> Page<'a> {
    fn new(runtime: &'a Runtime, max_bytes: usize, max_events: usize) -> Self {
        Self {
            runtime,
            events: Vec::new(),
            bytes: 0,
            max_bytes,
            max_events,
        }
    }

    /// Whether no event has a place any more. The first one always has, however large.
    fn is_full(&self) -> bool {
        (self.bytes >= self.max_bytes && !self.events.is_empty())
            || self.events.len() >= self.max_events
    }

    /// Bytes that are left.
    fn room(&self) -> usize {
        self.max_bytes.saturating_sub(self.bytes)
    }

    /// Adds an event; false if there was no place for it.
    fn push(&mut self, event: &[u8]) -> Result<bool> {
        if self.is_full() {
            return Ok(false);
        }
        self.bytes += event.len();
        let readable = self.runtime.0.sealer.readable(event)?;
        let event = HistoryEvent::decode(readable.as_ref())
            .map_err(|error| crate::RuntimeError::Internal(format!("a stored event: {error}")))?;
        self.events.push(event);
        Ok(true)
    }
}

/// Which end of a range comes first.
#[derive(Clone, Copy)]
enum Order {
    Oldest,
    Newest,
}

/// Events of a run's own branch from the store: at least one.
async fn read_stored(
    runtime: &Runtime,
    key: &WorkflowKey,
    owner: &str,
    range: RangeInclusive<i64>,
    max_bytes: usize,
    order: Order,
) -> Result<Vec<(i64, Vec<u8>)>> {
    let (store, namespace) = (runtime.store(), &key.namespace_id);
    let (first, last) = (*range.start(), *range.end());
    for attempt in 0..2 {
        if attempt > 0 {
            // What another run wrote a moment ago may be on its way to the store.
            runtime.projected().await?;
        }
        let read = match order {
            Order::Oldest => store.read_history(namespace, owner, first, last, max_bytes),
            Order::Newest => store.read_history_reverse(namespace, owner, first, last, max_bytes),
        };
        let events = read.await?;
        if !events.is_empty() {
            return Ok(events);
        }
    }
    let id = match order {
        Order::Oldest => first,
        Order::Newest => last,
    };
    Err(missing(id, owner))
}

fn missing(event_id: i64, run_id: &str) -> crate::RuntimeError {
    crate::RuntimeError::Internal(format!(
        "event {event_id} of run {run_id} is missing in the store"
    ))
}

/// A started activity attempt.
pub struct ActivityHandout {
    response: PollActivityTaskQueueResponse,
    /// The credential that it comes with.
    issued: Option<(Issued, Arc<OnceLock<Recorded>>)>,
}

/// Field of an activity task's header: a text that is the same for all attempts of one activity of one run,
/// and no other's. A service that is called with it can tell a call that is made again from another one.
pub const IDEMPOTENCY_KEY: &str = "steadfast-idempotency-key";

/// Field of an activity task's header that is kept for the server: whoever schedules an activity cannot
/// claim it.
pub const CREDENTIAL: &str = "steadfast-credential";

/// The header that was scheduled, and what the server says.
fn header(scheduled: Option<&Header>, idempotency_key: &str) -> Header {
    let mut header = scheduled.cloned().unwrap_or_default();
    header.fields.remove(CREDENTIAL);
    let payload = json_payload(idempotency_key);
    header.fields.insert(IDEMPOTENCY_KEY.to_owned(), payload);
    header
}

impl ActivityHandout {
    /// Takes all that the worker needs out of the run; none if the activity is not there.
    pub fn prepare(key: &WorkflowKey, live: &mut LiveRun, scheduled_event_id: i64) -> Option<Self> {
        // Neither has a character that JSON escapes.
        let idempotency_key = format!("{}/{scheduled_event_id}", live.run.state.run_id);
        let issued = Issued::of(live, scheduled_event_id, &idempotency_key);
        let issued = issued.map(|issued| {
            let recorded = Arc::<OnceLock<Recorded>>::default();
            live.unrecorded.push(recorded.clone());
            (issued, recorded)
        });
        let state = &live.run.state;
        let activity = state.activities.get(&scheduled_event_id)?;
        let (scheduled, attempt) = (activity.scheduled(), activity.attempt());
        let token = TaskToken {
            namespace_id: key.namespace_id.clone(),
            workflow_id: key.workflow_id.clone(),
            run_id: state.run_id.clone(),
            scheduled_event_id,
            started_event_id: 0,
            attempt: attempt.number,
            request_id: attempt.request_id.clone(),
        };
        Some(Self {
            response: PollActivityTaskQueueResponse {
                task_token: token.encode_to_vec(),
                workflow_type: Some(WorkflowType {
                    name: state.workflow_type().to_owned(),
                }),
                workflow_execution: Some(WorkflowExecution {
                    workflow_id: key.workflow_id.clone(),
                    run_id: state.run_id.clone(),
                }),
                activity_type: scheduled.activity_type.clone(),
                activity_id: scheduled.activity_id.clone(),
                header: Some(header(scheduled.header.as_ref(), &idempotency_key)),
                input: scheduled.input.clone(),
                heartbeat_details: attempt.heartbeat_details.clone(),
                scheduled_time: Some(timestamp(activity.scheduled_time)),
                current_attempt_scheduled_time: Some(timestamp(attempt.scheduled_time)),
                started_time: Some(timestamp(attempt.started_time)),
                attempt: attempt.number,
                schedule_to_close_timeout: scheduled.schedule_to_close_timeout,
                start_to_close_timeout: scheduled.start_to_close_timeout,
                heartbeat_timeout: scheduled.heartbeat_timeout,
                retry_policy: scheduled.retry_policy.clone(),
                priority: scheduled.priority.clone(),
                ..Default::default()
            },
            issued,
        })
    }

    /// The answer to the poll. Here the credential is signed: whoever calls this holds no lock.
    pub fn into_response(
        mut self,
        runtime: &Runtime,
        namespace: String,
    ) -> PollActivityTaskQueueResponse {
        if let Some((mut issued, recorded)) = self.issued {
            issued.namespace.clone_from(&namespace);
            issued.recorded = recorded.get().copied();
            let header = self.response.header.get_or_insert_default();
            if let Some(payload) = runtime.credential_payload(&issued) {
                header.fields.insert(CREDENTIAL.to_owned(), payload);
            }
        }
        self.response.workflow_namespace = namespace;
        self.response
    }
}

impl Runtime {
    /// Starts a workflow task for a poller. It may be handed out before its start is durable, because
    /// its token is refused after a crash; all else that it shows has to be durable.
    async fn start_workflow_task(
        &self,
        permit: &Permit,
        task: &Task,
        poller: &Poller,
    ) -> Result<Option<Delivery>> {
        let (result, start) = self
            .transact_early(permit, &task.key, &task.run_id, |workflow, cx| {
                let before = self.committer().ticket(workflow.last_seq);
                let Some(live) = workflow.runs.get_mut(&task.run_id) else {
                    return Ok(None);
                };
                let alone = !live.run.has_steps();
                let Ok(started) = live
                    .run
                    .start_workflow_task(cx, task.scheduled_event_id, poller)
                else {
                    return Ok(None);
                };
                let handout = WorkflowTaskHandout::prepare(&task.key, live, &started);
                Ok(Some((
                    Delivery::WorkflowTask(Box::new(handout)),
                    before,
                    alone,
                )))
            })
            .await?;
        let Some((delivery, before, alone)) = result? else {
            return Ok(None);
        };
        self.committer()
            .durable(if alone { before } else { start })
            .await?;
        Ok(Some(delivery))
    }

    /// Starts a task for a poller; none if it is not there any more. An activity attempt is handed
    /// out only once its start is durable.
    pub(crate) async fn start_task(
        &self,
        kind: QueueKind,
        task: &Task,
        info: &PollerInfo,
    ) -> Result<Option<Delivery>> {
        let permit = Permit::of(info.cause.clone());
        let poller = poller(info);
        let result = match kind {
            QueueKind::Workflow => self.start_workflow_task(&permit, task, &poller).await,
            QueueKind::Activity => {
                self.transact(&permit, &task.key, &task.run_id, |workflow, cx| {
                    let Some(live) = workflow.runs.get_mut(&task.run_id) else {
                        return Ok(None);
                    };
                    let id = task.scheduled_event_id;
                    if live
                        .run
                        .start_activity(cx, id, task.attempt, &poller)
                        .is_err()
                    {
                        return Ok(None);
                    }
                    Ok(ActivityHandout::prepare(&task.key, live, id)
                        .map(|handout| Delivery::Activity(Box::new(handout))))
                })
                .await
            }
        };
        match result {
            Err(crate::RuntimeError::Engine(steadfast_engine::Error::NotFound(_))) => Ok(None),
            other => other,
        }
    }
}

/// The engine's view of a poller, with a fresh id for the hand-out.
pub(crate) fn poller(info: &PollerInfo) -> Poller {
    Poller {
        identity: info.identity.clone(),
        request_id: RandomIds.uuid(),
        worker_version: info.worker_version.clone(),
    }
}
