//! Reads what an access view is made of: runs, with who started them, what they called, what they hold,
//! and what they wait for.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use steadfast_engine::proto::common::{Principal, WorkflowExecution};
use steadfast_engine::proto::failure::{Failure, failure::FailureInfo};
use steadfast_engine::proto::history::{HistoryEvent, history_event::Attributes};
use steadfast_engine::record::CallKind;
use steadfast_engine::state::{Approval, RunState};
use steadfast_engine::time::time;
use steadfast_inventory::local_activity;
use steadfast_store::filter::Filter;
use steadfast_store::{VisibilityQuery, VisibilityRow};

use crate::aggregate::WorkflowKey;
use crate::error::{Result, RuntimeError};
use crate::evidence::reads::{Read, Subject};
use crate::handout::{HISTORY_PAGE_BYTES, HistoryPart};
use crate::permit::Permit;
use crate::runtime::Runtime;

/// Runs that are looked at.
const MAX_LISTED: usize = 20_000;

/// Runs of a page.
const PAGE: usize = 1000;

/// Events that are read of one run.
const MAX_EVENTS: i64 = 50_000;

/// How long it may take: then it ends with what it has.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which runs are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that live, of one principal if it is not empty: whoever started it, or
    /// `<namespace>/<workflow type>`. At most so many.
    Live {
        /// The principal.
        principal: String,
        /// The workflow; any if it is empty.
        workflow_id: String,
        /// At most so many runs.
        most: usize,
    },
    /// Those that lived in a time, at most so many of each type: those that live, then those that closed last.
    Within {
        /// From this time on, in nanoseconds since the epoch.
        from: i64,
        /// Until before this time.
        to: i64,
        /// At most so many runs of each type.
        sample: usize,
    },
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The runs.
    pub sessions: Vec<Session>,
    /// Runs that there are, by workflow type; for those that live, how many there are of that.
    pub listed: BTreeMap<String, u64>,
    /// Whether nothing was left out but what is beyond the number that was asked for.
    pub is_complete: bool,
}

/// A run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// Workflow id.
    pub workflow_id: String,
    /// Run id.
    pub run_id: String,
    /// What runs.
    pub workflow_type: String,
    /// Queue of its workflow tasks.
    pub task_queue: String,
    /// Who started it.
    pub initiator: Option<Principal>,
    /// Its parent, if it is a child.
    pub parent: Option<WorkflowExecution>,
    /// When it was started, in nanoseconds since the epoch.
    pub started: i64,
    /// Whether it lives.
    pub is_live: bool,
    /// Since when it is paused, if it is.
    pub paused: Option<i64>,
    /// How often policies decided about each tool in this run.
    pub tool_calls: BTreeMap<String, i64>,
    /// How often they decided about children of each type.
    pub children_started: BTreeMap<String, i64>,
    /// What this run called in the time that was asked for.
    pub calls: BTreeMap<Callee, Calls>,
    /// Credentials of attempts that are under way.
    pub credentials: Vec<Held>,
    /// Tool calls that wait for people.
    pub waiting: Vec<Waiting>,
    /// Whether its whole history was read.
    pub is_complete: bool,
}

/// What is called: the name of its kind ([`CallKind::name`]: `tool`, `child` or `local`), and its type.
pub type Callee = (&'static str, String);

/// Calls of a tool, or children of a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// How many.
    pub made: u64,
    /// How many of them were refused, by policies or by people.
    pub refused: u64,
    /// When the last one was made.
    pub last: i64,
}

/// A credential that an attempt has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub id: String,
    /// For whom it is.
    pub audience: String,
    /// When it expires.
    pub expires: i64,
    /// The tool.
    pub tool: String,
    /// Activity id.
    pub activity_id: String,
    /// Attempt.
    pub attempt: i32,
}

/// A call that waits for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// What it is.
    pub kind: CallKind,
    /// Activity type; of others the workflow type, or the signal's name.
    pub name: String,
    /// Activity id; of others the workflow id of the child or the receiver.
    pub id: String,
    /// What is needed.
    pub approval: Approval,
}

impl Runtime {
    /// Looks at runs of a namespace.
    pub async fn look_at_access(
        &self,
        permit: &Permit,
        namespace: &str,
        which: &Which,
    ) -> Result<Found> {
        let namespace_id = self.namespaces().by_name(namespace)?.id.clone();
        let subject = Subject {
            detail: "access",
            ..Subject::default()
        };
        self.note_read(permit, Read::History, &namespace_id, subject)
            .await?;
        self.projected().await?;
        let looking = Looking {
            runtime: self,
            namespace,
            namespace_id,
            which,
            began: Instant::now(),
            now: crate::clock::now(),
        };
        looking.all().await
    }
}

struct Looking<'a> {
    runtime: &'a Runtime,
    namespace: &'a str,
    namespace_id: String,
    which: &'a Which,
    began: Instant,
    now: i64,
}

impl Looking<'_> {
    async fn all(&self) -> Result<Found> {
        let mut found = Found {
            is_complete: true,
            ..Found::default()
        };
        let mut of_type: HashMap<String, usize> = HashMap::new();
        let (mut cursor, mut listed) = (None, 0);
        loop {
            let page = self.runtime.store().list_visibility(VisibilityQuery {
                namespace_id: self.namespace_id.clone(),
                filter: self.filter()?,
                page_size: PAGE,
                cursor,
            });
            let page = page.await?;
            for row in &page.rows {
                listed += 1;
                if !self.is_meant(row) {
                    continue;
                }
                if self.began.elapsed() > PATIENCE {
                    found.is_complete = false;
                    return Ok(found);
                }
                let seen = of_type.entry(row.workflow_type.clone()).or_default();
                if self.has_enough(*seen, found.sessions.len()) {
                    // Whose it is, is not in the list.
                    found.is_complete &= !self.is_of_somebody();
                    if !self.is_of_somebody() {
                        *found.listed.entry(row.workflow_type.clone()).or_default() += 1;
                    }
                    continue;
                }
                // It may be gone by now, or its history cannot be read: what is there is told.
                let Ok(session) = self.look_at(row).await else {
                    found.is_complete = false;
                    continue;
                };
                if let Some(session) = session {
                    *seen += 1;
                    *found.listed.entry(row.workflow_type.clone()).or_default() += 1;
                    found.is_complete &= session.is_complete;
                    found.sessions.push(session);
                }
            }
            cursor = page.cursor;
            if cursor.is_none() || listed >= MAX_LISTED {
                found.is_complete &= cursor.is_none();
                return Ok(found);
            }
        }
    }

    fn filter(&self) -> Result<Filter> {
        let text = match self.which {
            Which::Live { .. } => "ExecutionStatus = 'Running'",
            Which::Within { .. } => "",
        };
        let filter = Filter::parse(text, &Default::default());
        filter.map_err(|error| RuntimeError::Internal(error.to_string()))
    }

    /// As far as the list tells it.
    fn is_meant(&self, row: &VisibilityRow) -> bool {
        match self.which {
            Which::Live { workflow_id, .. } => {
                workflow_id.is_empty() || *workflow_id == row.workflow_id
            }
            Which::Within { from, to, .. } => {
                row.start_time < *to && row.close_time.is_none_or(|at| at >= *from)
            }
        }
    }

    fn has_enough(&self, of_type: usize, of_all: usize) -> bool {
        match self.which {
            Which::Live { most, .. } => of_all >= *most,
            Which::Within { sample, .. } => of_type >= *sample,
        }
    }

    fn is_of_somebody(&self) -> bool {
        matches!(self.which, Which::Live { principal, .. } if !principal.is_empty())
    }

    /// A run; none if it is not one that is asked for.
    async fn look_at(&self, row: &VisibilityRow) -> Result<Option<Session>> {
        let key = WorkflowKey::new(self.namespace_id.clone(), row.workflow_id.clone());
        let run_id = &row.run_id;
        let first = self.runtime.inspect(&key, run_id, |workflow| {
            let live = workflow.named_live(run_id)?;
            let state = &live.run.state;
            if !self.is_of_principal(state) {
                return Ok(None);
            }
            let session = session(state, self.now);
            Ok(Some((session, HistoryPart::of(live, 1))))
        });
        let Some((mut session, part)) = first.await? else {
            return Ok(None);
        };
        self.read_calls(&key, run_id, part, &mut session).await?;
        Ok(Some(session))
    }

    fn is_of_principal(&self, state: &RunState) -> bool {
        let Which::Live { principal, .. } = self.which else {
            return true;
        };
        let agent = principal.strip_prefix(self.namespace);
        let agent = agent.and_then(|of| of.strip_prefix('/'));
        // It may have closed since it was listed.
        state.is_running()
            && (principal.is_empty()
                || agent == Some(state.workflow_type())
                || (state.initiator.as_ref()).is_some_and(|of| of.name == *principal))
    }

    /// Reads a run's history, a page at a time, to its end as of the first page.
    async fn read_calls(
        &self,
        key: &WorkflowKey,
        run_id: &str,
        first: HistoryPart,
        session: &mut Session,
    ) -> Result<()> {
        let end = first.last;
        let last = end.min(MAX_EVENTS);
        let mut reader = Reader::default();
        let (mut next, mut part) = (1, first);
        loop {
            part.last = last;
            let read = part.read(self.runtime, key, run_id, HISTORY_PAGE_BYTES, usize::MAX);
            let (events, after) = read.await?;
            for event in &events {
                reader.event(event, self.which, &mut session.calls);
            }
            if after <= next || after > last {
                session.is_complete = after > end;
                return Ok(());
            }
            next = after;
            let more = self.runtime.inspect(key, run_id, |workflow| {
                Ok(HistoryPart::of(workflow.named_live(run_id)?, next))
            });
            part = more.await?;
        }
    }
}

/// Counts calls, event by event.
#[derive(Default)]
struct Reader {
    /// What was called, by the event that scheduled or initiated it.
    open: HashMap<i64, Callee>,
}

impl Reader {
    fn event(&mut self, event: &HistoryEvent, which: &Which, calls: &mut BTreeMap<Callee, Calls>) {
        use Attributes as A;
        let at = event.event_time.as_ref().map_or(0, time);
        let made = match &event.attributes {
            Some(A::ActivityTaskScheduledEventAttributes(of)) => {
                let tool = of.activity_type.as_ref().map_or("", |of| &of.name);
                Some((CallKind::Tool, tool.to_owned()))
            }
            Some(A::StartChildWorkflowExecutionInitiatedEventAttributes(of)) => {
                let child = of.workflow_type.as_ref().map_or("", |of| &of.name);
                Some((CallKind::Child, child.to_owned()))
            }
            Some(A::MarkerRecordedEventAttributes(of)) => {
                local_activity(of).map(|tool| (CallKind::Local, tool))
            }
            Some(A::ActivityTaskFailedEventAttributes(of)) => {
                self.failed(of.scheduled_event_id, &of.failure, calls);
                None
            }
            Some(A::ChildWorkflowExecutionFailedEventAttributes(of)) => {
                self.failed(of.initiated_event_id, &of.failure, calls);
                None
            }
            _ => None,
        };
        let is_meant = match which {
            Which::Live { .. } => true,
            Which::Within { from, to, .. } => (*from..*to).contains(&at),
        };
        if let Some((kind, name)) = made.filter(|_| is_meant) {
            let callee = (kind.name(), name);
            let calls = calls.entry(callee.clone()).or_default();
            calls.made += 1;
            calls.last = calls.last.max(at);
            self.open.insert(event.event_id, callee);
        }
    }

    fn failed(&mut self, id: i64, failure: &Option<Failure>, calls: &mut BTreeMap<Callee, Calls>) {
        let callee = self.open.remove(&id);
        let is_refused = failure.as_ref().is_some_and(is_refusal);
        if let Some(calls) = callee.and_then(|of| calls.get_mut(&of)) {
            calls.refused += u64::from(is_refused);
        }
    }
}

/// What the server itself made of a refusal.
fn is_refusal(failure: &Failure) -> bool {
    let info = failure.failure_info.as_ref();
    failure.source == "steadfast" && matches!(info, Some(FailureInfo::ApplicationFailureInfo(_)))
}

fn session(state: &RunState, now: i64) -> Session {
    let is_live = state.is_running();
    let waiting = state.waiting().filter(|_| is_live);
    let waiting = waiting.map(|(_, command, approval)| Waiting {
        kind: command.kind(),
        name: command.name().to_owned(),
        id: command.id().to_owned(),
        approval: approval.clone(),
    });
    let activities = state.activities.values().filter(|_| is_live);
    let credentials = activities.filter_map(|activity| {
        let (scheduled, attempt) = (activity.scheduled(), activity.attempt());
        let of = attempt.credential.as_ref()?;
        (activity.is_started() && of.expires > now).then(|| Held {
            id: of.id.clone(),
            audience: of.audience.clone(),
            expires: of.expires,
            tool: (scheduled.activity_type.as_ref()).map_or_else(String::new, |of| of.name.clone()),
            activity_id: scheduled.activity_id.clone(),
            attempt: attempt.number,
        })
    });
    Session {
        workflow_id: state.workflow_id.clone(),
        run_id: state.run_id.clone(),
        workflow_type: state.workflow_type().to_owned(),
        task_queue: state.task_queue().to_owned(),
        initiator: state.initiator.clone(),
        parent: state.start().parent_workflow_execution.clone(),
        started: state.start_time,
        is_live,
        paused: state.paused().map(|of| of.time),
        tool_calls: state.tool_calls.clone(),
        children_started: state.children_started.clone(),
        calls: BTreeMap::new(),
        credentials: credentials.collect(),
        waiting: waiting.collect(),
        is_complete: false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use steadfast_engine::governance::{Call, Governor, Reasons, Requirement, Ruling};
    use steadfast_engine::proto::command::ScheduleActivityTaskCommandAttributes;
    use steadfast_engine::proto::common::ActivityType;
    use steadfast_engine::proto::taskqueue::TaskQueue;
    use steadfast_engine::time::{SECOND, duration};

    use super::*;
    use crate::Settings;
    use crate::testing::{Bed, start};

    /// Refunds need somebody, deletions nobody may do.
    struct Rules;

    impl Governor for Rules {
        fn policy_hash(&self) -> &[u8] {
            &[7; 32]
        }

        fn decide(&self, call: &Call<'_>) -> Ruling {
            let reasons = Reasons::default();
            match call.command.name() {
                "refund" => Ruling::Approval(
                    reasons,
                    Requirement {
                        groups: Vec::new(),
                        quorum: 1,
                        timeout: 3600 * SECOND,
                    },
                ),
                "delete" => Ruling::Deny(reasons),
                _ => Ruling::Allow(reasons),
            }
        }
    }

    fn call(tool: &str) -> ScheduleActivityTaskCommandAttributes {
        ScheduleActivityTaskCommandAttributes {
            activity_id: tool.into(),
            activity_type: Some(ActivityType { name: tool.into() }),
            task_queue: Some(TaskQueue {
                name: "tools".into(),
                ..Default::default()
            }),
            start_to_close_timeout: Some(duration(60 * SECOND)),
            ..Default::default()
        }
    }

    async fn look(bed: &Bed, which: Which) -> Found {
        let namespace = start("").namespace;
        let found = bed.runtime.look_at_access(&bed.permit, &namespace, &which);
        found.await.expect("found")
    }

    fn live(principal: &str, most: usize) -> Which {
        Which::Live {
            principal: principal.into(),
            workflow_id: String::new(),
            most,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sessions_say_who_started_them_and_what_they_did() {
        let bed = Bed::open(Settings::default()).await;
        bed.runtime.set_governor(Some(Arc::new(Rules)));
        bed.start(start("one")).await;
        bed.answer(["look_up", "refund", "delete"].map(|of| call(of).into()))
            .await;
        bed.start(start("other")).await;

        for is_stored in [false, true] {
            let found = look(&bed, live("", 10)).await;
            assert!(found.is_complete);
            assert_eq!(found.sessions.len(), 2);
            let one = found.sessions.iter().find(|of| of.workflow_id == "one");
            let one = one.expect("is there");
            assert_eq!(one.initiator.as_ref().expect("known").name, "tester");
            let refused = |tool: &str| one.calls[&("tool", tool.to_owned())].refused;
            assert_eq!(one.calls.len(), 3);
            assert!(one.calls.values().all(|of| of.made == 1 && of.last > 0));
            assert_eq!(
                [refused("look_up"), refused("delete")],
                [0, 1],
                "{is_stored}"
            );
            let [waiting] = &one.waiting[..] else {
                panic!("{:?}", one.waiting);
            };
            assert_eq!((&*waiting.name, waiting.approval.quorum), ("refund", 1));
            bed.runtime.project_all().await.expect("projected");
        }
        assert_eq!(look(&bed, live("tester", 10)).await.sessions.len(), 2);
        assert_eq!(look(&bed, live("default/", 10)).await.sessions.len(), 0);
        assert_eq!(look(&bed, live("nobody", 10)).await.sessions.len(), 0);
        let found = look(&bed, live("", 1)).await;
        assert_eq!((found.sessions.len(), found.is_complete), (1, true));
        assert_eq!(found.listed.values().sum::<u64>(), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn calls_count_in_their_time() {
        let bed = Bed::open(Settings::default()).await;
        bed.start(start("one")).await;
        bed.answer([call("look_up").into()]).await;
        let now = crate::clock::now();
        for (from, to, sessions, calls) in [
            (now - 60 * SECOND, now + 60 * SECOND, 1, 1),
            (now + 50 * SECOND, now + 60 * SECOND, 1, 0),
            (0, now - 60 * SECOND, 0, 0),
        ] {
            let sample = 5;
            let found = look(&bed, Which::Within { from, to, sample }).await;
            assert_eq!(found.sessions.len(), sessions);
            let made = found.sessions.iter().flat_map(|of| of.calls.values());
            assert_eq!(made.map(|of| of.made).sum::<u64>(), calls);
        }
    }
}
