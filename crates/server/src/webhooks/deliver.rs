//! Reads logs for one webhook, and delivers what they tell, in their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use prost::Message as _;
use serde_json::{Value, json};
use steadfast_engine::proto::common::Payloads;
use steadfast_engine::proto::failure::{Failure, failure::FailureInfo};
use steadfast_engine::proto::history::{HistoryEvent, history_event::Attributes};
use steadfast_engine::state::RunState;
use steadfast_ledger::Entry;
use steadfast_ledger::entry::{Note, Time};
use steadfast_runtime::{Permit, Runtime, RuntimeError, clock};
use steadfast_store::RunRef;

use super::events::{Call, End, Event, From, Initiator, Open, TOOL_DENIED, Wants};
use super::send::{self, Message, Sender};
use super::{Webhooks, events, places};
use crate::config::WebhookConfig;
use crate::evidence::{Logs, PublishedLog};

/// How often logs are looked at for new entries.
const INTERVAL: Duration = Duration::from_millis(250);

/// Entries read at a time, and their bytes.
const PAGE: usize = 1000;
const PAGE_BYTES: usize = 1 << 20;

/// A place is written after so many entries that told nothing.
const SAVE_EVERY: u64 = 10_000;

/// The longest pause between two attempts, without jitter: approvals have an end.
const MAX_PAUSE: Duration = Duration::from_secs(600);

/// So many calls that wait are remembered for a namespace. Of others it is not told that they expired or
/// were withdrawn.
const MAX_OPEN: usize = 100_000;

/// Larger arguments are left out of events, in bytes of JSON.
const MAX_ARGUMENTS: usize = 256 << 10;

/// An event of history is not read if it is larger.
const MAX_EVENT: usize = 4 << 20;

/// What the entry says that a delivery was given up.
const GIVEN_UP: &str = "webhook/given-up";

/// Serves one webhook.
pub(super) struct Deliverer {
    runtime: Runtime,
    logs: Logs,
    config: WebhookConfig,
    all: Webhooks,
    /// Where it is among all.
    number: usize,
    sender: Option<Sender>,
    places: HashMap<String, Place>,
}

/// Where it is in one log.
struct Place {
    next: u64,
    saved: u64,
    open: BTreeMap<Call, Open>,
    /// Events of the entry at `next` that are done.
    done: BTreeSet<String>,
    /// Attempts that failed since the last one that did not.
    failures: u32,
    not_before: Option<Instant>,
    waiting_since: Option<Time>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// It was taken, or given up.
    Done,
    /// It is to be tried again.
    Later,
}

impl Deliverer {
    pub(super) fn new(
        runtime: &Runtime,
        logs: &Logs,
        config: &WebhookConfig,
        all: Webhooks,
        number: usize,
    ) -> Self {
        Self {
            runtime: runtime.clone(),
            logs: logs.clone(),
            config: config.clone(),
            all,
            number,
            sender: None,
            places: HashMap::new(),
        }
    }

    /// Delivers until the server stops.
    pub(super) async fn run(mut self) {
        while !self.runtime.is_stopping() {
            let (mut lag, mut is_readable) = (0, true);
            for (namespace, log) in self.logs.all() {
                if !self.config.looks_at(&namespace) {
                    continue;
                }
                if let Err(error) = self.follow(&namespace, &log).await {
                    tracing::warn!(webhook = self.config.name, %error, "a log cannot be read");
                    self.update(|status| status.error = Some(error.to_string()));
                    is_readable = false;
                }
                let place = self.places.get(&log.namespace_id);
                lag += place.map_or(0, |place| log.head.size.saturating_sub(place.next));
            }
            let waiting = self.places.values().filter_map(|of| of.waiting_since).min();
            let fails = self.places.values().any(|of| of.failures > 0);
            self.update(|status| {
                if is_readable && !fails {
                    status.error = None;
                }
                status.lag_entries = lag;
                status.waiting_since = waiting.map(|of| of.to_string());
            });
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = self.runtime.stopping() => return,
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut super::WebhookStatus)) {
        self.all.update(self.number, change);
    }

    /// Delivers what a log has that is signed, up to an event that is to be tried again.
    async fn follow(&mut self, namespace: &str, log: &PublishedLog) -> Result<(), RuntimeError> {
        let id = &log.namespace_id;
        let mut place = match self.places.remove(id) {
            Some(place) => place,
            None => self.load(id).await?,
        };
        let is_early = place.not_before.is_some_and(|at| Instant::now() < at);
        let followed = match is_early {
            true => Ok(()),
            false => self.go_on(namespace, log, &mut place).await,
        };
        self.places.insert(id.clone(), place);
        followed
    }

    async fn load(&self, namespace_id: &str) -> Result<Place, RuntimeError> {
        let (store, name) = (&**self.runtime.store(), &self.config.name);
        // A namespace that was made since is looked at from its beginning.
        let next = places::place(store, name, namespace_id).await?.unwrap_or(0);
        Ok(Place {
            next,
            saved: next,
            open: places::open(store, name, namespace_id).await?,
            done: BTreeSet::new(),
            failures: 0,
            not_before: None,
            waiting_since: None,
        })
    }

    async fn go_on(
        &mut self,
        namespace: &str,
        log: &PublishedLog,
        place: &mut Place,
    ) -> Result<(), RuntimeError> {
        let wants = Wants {
            denied: self.config.wants(TOOL_DENIED),
            notes: self.config.wants_notes(),
        };
        while place.next < log.head.size && !self.runtime.is_stopping() {
            let count = usize::try_from(log.head.size - place.next).unwrap_or(PAGE);
            let store = self.runtime.store();
            let page =
                store.log_entries(&log.namespace_id, place.next, count.min(PAGE), PAGE_BYTES);
            let page = page.await?;
            if page.is_empty() {
                return Ok(());
            }
            for bytes in page {
                let mut has_told = false;
                if events::is_relevant(&bytes, &place.open, &wants) {
                    let told = self.entry(namespace, log, place, &bytes).await?;
                    let Some(told) = told else {
                        return Ok(());
                    };
                    has_told = told;
                }
                place.next += 1;
                place.done.clear();
                if has_told || place.next - place.saved >= SAVE_EVERY {
                    self.save(log, place).await?;
                }
            }
        }
        Ok(())
    }

    async fn save(&self, log: &PublishedLog, place: &mut Place) -> Result<(), RuntimeError> {
        let (store, name) = (&**self.runtime.store(), &self.config.name);
        places::put_place(store, name, &log.namespace_id, place.next).await?;
        place.saved = place.next;
        Ok(())
    }

    /// Tells what an entry has to tell. Whether there was something; none if it is to be tried again.
    async fn entry(
        &mut self,
        namespace: &str,
        log: &PublishedLog,
        place: &mut Place,
        bytes: &[u8],
    ) -> Result<Option<bool>, RuntimeError> {
        let parsed = match Entry::parse(bytes) {
            Ok(entry) => entry,
            Err(error) => {
                let index = place.next;
                tracing::error!(index, %error, "an entry cannot be read: nothing is told of it");
                return Ok(Some(false));
            }
        };
        let record = match parsed.omitted {
            0 => None,
            // What there was no room for is in the record, as long as the run is there.
            _ => {
                let (workflow_id, run_id) = (&parsed.workflow_id, &parsed.run_id);
                let runtime = &self.runtime;
                let id = &log.namespace_id;
                runtime
                    .entry_record(id, workflow_id, run_id, parsed.n)
                    .await?
            }
        };
        let mut entry = parsed;
        if let Some(record) = &record {
            (entry.approvals, entry.decisions) = record.items();
        }
        let ended = self.ended(&log.namespace_id, &entry, &place.open).await?;
        let mut has_told = false;
        for event in events::of_entry(&entry, &place.open, &ended) {
            let from = From {
                namespace,
                namespace_id: &log.namespace_id,
                origin: &log.origin,
                index: place.next,
                entry: &entry,
            };
            let id = from.id(&event);
            if place.done.contains(&id) {
                continue;
            }
            let is_wanted = self.config.wants(&event.name);
            has_told |= is_wanted || event.is_of_approval();
            let event = self.with_details(&log.namespace_id, event).await?;
            if is_wanted && self.tell(&from, place, &event).await? == Attempt::Later {
                return Ok(None);
            }
            self.keep_up(&log.namespace_id, place, event).await?;
            place.done.insert(id);
        }
        Ok(Some(has_told))
    }

    /// Remembers which calls wait.
    async fn keep_up(
        &self,
        namespace_id: &str,
        place: &mut Place,
        event: Event,
    ) -> Result<(), RuntimeError> {
        if !event.is_of_approval() {
            return Ok(());
        }
        let is_request = event.is_request();
        let Some((call, open)) = event.call else {
            return Ok(());
        };
        let (store, name) = (&**self.runtime.store(), &self.config.name);
        if !is_request {
            if place.open.remove(&call).is_some() {
                places::delete_open(store, name, namespace_id, &call).await?;
            }
        } else if place.open.len() < MAX_OPEN || place.open.contains_key(&call) {
            places::put_open(store, name, namespace_id, &call, &open).await?;
            place.open.insert(call, open);
        }
        Ok(())
    }

    /// Delivers an event once, unless it is too old by then.
    async fn tell(
        &mut self,
        from: &From<'_>,
        place: &mut Place,
        event: &Event,
    ) -> Result<Attempt, RuntimeError> {
        let arguments = match &event.call {
            Some((call, open)) if self.config.arguments && event.is_request() => {
                self.arguments(from.namespace_id, call, open).await?
            }
            _ => None,
        };
        let message = Message {
            id: from.id(event),
            body: from.cloud_event(event, arguments).to_string(),
        };
        let happened = from.entry.t;
        match self.send(&message).await {
            Ok(()) => {
                place.failures = 0;
                place.not_before = None;
                place.waiting_since = None;
                self.update(|status| {
                    status.delivered += 1;
                    status.error = None;
                });
                Ok(Attempt::Done)
            }
            Err(failure) => {
                self.sender = None;
                place.failures = place.failures.saturating_add(1);
                if place.failures == 1 {
                    let (webhook, error) = (&self.config.name, &failure.why);
                    tracing::warn!(webhook, error, "an event was not taken");
                }
                let age = clock::now().saturating_sub(happened.0);
                if age >= self.config.give_up_after() {
                    place.waiting_since = None;
                    self.give_up(from, event, &message, &failure).await?;
                    return Ok(Attempt::Done);
                }
                place.waiting_since = Some(happened);
                place.not_before = Some(Instant::now() + pause(place.failures, &failure));
                self.update(|status| {
                    status.failed += 1;
                    status.error = Some(failure.why);
                });
                Ok(Attempt::Later)
            }
        }
    }

    async fn send(&mut self, message: &Message) -> Result<(), send::Failure> {
        let failed = |why: String| send::Failure {
            why,
            retry_after: None,
        };
        let sender = match self.sender.take() {
            Some(sender) => sender,
            None => Sender::new(&self.config).map_err(failed)?,
        };
        let (sending, message) = (sender.clone(), message.clone());
        let sent = tokio::task::spawn_blocking(move || sending.send(&message)).await;
        self.sender = Some(sender);
        sent.map_err(|error| failed(error.to_string()))?
    }

    /// Says in the log that an event was not delivered, and goes on.
    async fn give_up(
        &self,
        from: &From<'_>,
        event: &Event,
        message: &Message,
        failure: &send::Failure,
    ) -> Result<(), RuntimeError> {
        let name = &self.config.name;
        let detail = format!("{name}: {} was not delivered: {}", message.id, failure.why);
        let run_id = event.call.as_ref().map_or("", |(call, _)| &call.run_id);
        let workflow_id = event
            .call
            .as_ref()
            .map_or("", |(_, open)| &open.workflow_id);
        let note = Note {
            what: GIVEN_UP.into(),
            detail: detail.as_str().into(),
            run_id: run_id.into(),
            workflow_id: workflow_id.into(),
        };
        let permit = Permit::internal("webhook");
        // A note about notes that were not delivered would go on for ever.
        if event.name != GIVEN_UP {
            self.runtime.note(&permit, from.namespace_id, note).await?;
        }
        tracing::error!(webhook = name, id = message.id, "an event was given up");
        self.update(|status| {
            status.failed += 1;
            status.given_up += 1;
            status.error = Some(failure.why.clone());
        });
        Ok(())
    }

    /// Adds what the log does not say of a session.
    async fn with_details(
        &self,
        namespace_id: &str,
        mut event: Event,
    ) -> Result<Event, RuntimeError> {
        let Some((call, open)) = &mut event.call else {
            return Ok(event);
        };
        if !open.workflow_type.is_empty() {
            return Ok(event);
        }
        let run = run(namespace_id, call, open);
        let stored = self.runtime.store().load_run(&run).await?;
        let state = stored.and_then(|of| RunState::decode(of.snapshot.as_slice()).ok());
        if let Some(state) = state {
            state.workflow_type().clone_into(&mut open.workflow_type);
            open.initiator = state.initiator.map(|of| Initiator {
                name: of.name,
                r#type: of.r#type,
            });
        }
        Ok(event)
    }

    /// The arguments of a call, from the event that scheduled it, if it is there.
    async fn arguments(
        &self,
        namespace_id: &str,
        call: &Call,
        open: &Open,
    ) -> Result<Option<Value>, RuntimeError> {
        let run = run(namespace_id, call, open);
        let Some(event) = self.event(&run, call.event_id).await? else {
            return Ok(None);
        };
        let arguments = match event.attributes {
            Some(Attributes::ActivityTaskScheduledEventAttributes(of)) => of.input,
            Some(Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(of)) => of.input,
            Some(Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(of)) => {
                of.input
            }
            _ => None,
        };
        let Payloads { payloads } = arguments.unwrap_or_default();
        let size: usize = payloads.iter().map(|of| of.data.len()).sum();
        if size > MAX_ARGUMENTS {
            return Ok(Some(json!("left out: too large")));
        }
        let shown = payloads.iter().map(crate::http::argument);
        Ok(Some(shown.collect()))
    }

    async fn event(&self, run: &RunRef, id: i64) -> Result<Option<HistoryEvent>, RuntimeError> {
        let (namespace_id, run_id) = (&run.namespace_id, &run.run_id);
        let store = self.runtime.store();
        let read = store.read_history(namespace_id, run_id, id, id, MAX_EVENT);
        let read = read.await?;
        Ok(read
            .first()
            .and_then(|(_, bytes)| HistoryEvent::decode(bytes.as_slice()).ok()))
    }

    /// The calls that ended by events of an entry.
    async fn ended(
        &self,
        namespace_id: &str,
        entry: &Entry<'_>,
        open: &BTreeMap<Call, Open>,
    ) -> Result<BTreeMap<i64, End>, RuntimeError> {
        let store = self.runtime.store();
        let mut ended = BTreeMap::new();
        for range in events::ends(entry, open) {
            let (mut next, last) = range.into_inner();
            while next <= last {
                let read = store.read_history(namespace_id, &entry.run_id, next, last, PAGE_BYTES);
                let read = read.await?;
                // It may have been deleted meanwhile.
                let Some((read_until, _)) = read.last() else {
                    break;
                };
                next = read_until + 1;
                let events = read.iter();
                let events = events.filter_map(|(_, of)| HistoryEvent::decode(&of[..]).ok());
                ended.extend(events.filter_map(|event| end(&event)));
            }
        }
        Ok(ended)
    }
}

/// The event that scheduled or initiated what an event ends, and how it ended.
fn end(event: &HistoryEvent) -> Option<(i64, End)> {
    Some(match event.attributes.as_ref()? {
        Attributes::ActivityTaskFailedEventAttributes(of) => {
            (of.scheduled_event_id, end_by(of.failure.as_ref()))
        }
        Attributes::ChildWorkflowExecutionFailedEventAttributes(of) => {
            (of.initiated_event_id, end_by(of.failure.as_ref()))
        }
        Attributes::SignalExternalWorkflowExecutionFailedEventAttributes(of) => {
            (of.initiated_event_id, End::Unclear)
        }
        Attributes::RequestCancelExternalWorkflowExecutionFailedEventAttributes(of) => {
            (of.initiated_event_id, End::Unclear)
        }
        Attributes::ActivityTaskCanceledEventAttributes(of) => {
            (of.scheduled_event_id, End::Cancelled)
        }
        Attributes::ChildWorkflowExecutionCanceledEventAttributes(of) => {
            (of.initiated_event_id, End::Cancelled)
        }
        Attributes::ActivityTaskTimedOutEventAttributes(of) => {
            (of.scheduled_event_id, End::Cancelled)
        }
        Attributes::StartChildWorkflowExecutionFailedEventAttributes(of) => {
            (of.initiated_event_id, End::Cancelled)
        }
        _ => return None,
    })
}

/// As the engine says it to the agent (`refusal.rs`).
fn end_by(failure: Option<&Failure>) -> End {
    let Some(FailureInfo::ApplicationFailureInfo(of)) =
        failure.and_then(|of| of.failure_info.as_ref())
    else {
        return End::Unclear;
    };
    match &*of.r#type {
        "ApprovalExpired" => End::Expired,
        "ApprovalDenied" | "PolicyDenied" => End::Denied,
        _ => End::Unclear,
    }
}

fn run(namespace_id: &str, call: &Call, open: &Open) -> RunRef {
    RunRef {
        namespace_id: namespace_id.to_owned(),
        workflow_id: open.workflow_id.clone(),
        run_id: call.run_id.clone(),
    }
}

/// How long to wait after so many failures: doubled each time, a quarter more or less.
fn pause(failures: u32, failure: &send::Failure) -> Duration {
    let seconds = 1_u64 << failures.saturating_sub(1).min(20);
    let pause = Duration::from_secs(seconds).min(MAX_PAUSE);
    let pause = pause.max(failure.retry_after.unwrap_or_default());
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    pause.mul_f64(0.75 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_have_an_end() {
        let failure = |retry_after| send::Failure {
            why: String::new(),
            retry_after,
        };
        for (failures, seconds) in [(1, 1.0), (4, 8.0), (10, 512.0), (11, 600.0), (90, 600.0)] {
            let pause = pause(failures, &failure(None)).as_secs_f64();
            assert!(
                (0.75 * seconds..=1.25 * seconds).contains(&pause),
                "{failures}: {pause}"
            );
        }
        let asked = failure(Some(Duration::from_secs(60)));
        assert!(pause(1, &asked) >= Duration::from_secs(45));
    }
}
