//! One run's history, event by event.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use temporalio_protos::temporal::api::common::v1::Payloads;
use temporalio_protos::temporal::api::enums::v1::WorkflowTaskFailedCause as Cause;
use temporalio_protos::temporal::api::failure::v1::Failure;
use temporalio_protos::temporal::api::failure::v1::failure::FailureInfo;
use temporalio_protos::temporal::api::history::v1 as history;
use temporalio_protos::temporal::api::history::v1::HistoryEvent;
use temporalio_protos::temporal::api::history::v1::history_event::Attributes;

use crate::risk::Risk;

const SECOND: i64 = 1_000_000_000;

/// From when on something is a risk.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Events of a long history.
    pub long_history: i64,
    /// Nanoseconds of an attempt that should have had heartbeats.
    pub long_attempt: i64,
    /// Nanoseconds after which it is late to notice that a worker is gone.
    pub late: i64,
    /// Tools that are known to pass the service an idempotency key.
    pub idempotent: BTreeSet<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            long_history: 25_600,
            long_attempt: 60 * SECOND,
            late: 3600 * SECOND,
            idempotent: BTreeSet::new(),
        }
    }
}

/// A call that is open in a live session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenCall {
    /// Type of the activity.
    pub tool: String,
    /// The attempt, from 1.
    pub attempt: i32,
    /// Most attempts; 0 for no limit.
    pub maximum_attempts: i32,
    /// Whether a worker has it.
    pub is_started: bool,
    /// How long it has had it, in nanoseconds.
    pub running: i64,
    /// Whether it has to send heartbeats.
    pub has_heartbeat: bool,
}

/// What was found of one risk, in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// How often.
    pub count: u64,
    /// What was seen.
    pub detail: String,
    /// What the longest or largest was, by which details are compared.
    measure: i64,
}

/// What was found in one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// By risk and tool. The tool is empty for what is about the workflow.
    pub risks: BTreeMap<(Risk, String), Sighting>,
    /// How often each tool was called.
    pub calls: BTreeMap<String, u64>,
    /// Events.
    pub events: i64,
}

/// Reads one run.
pub struct Reader<'a> {
    settings: &'a Settings,
    run: Run,
    /// By the id of the scheduled event.
    open: HashMap<i64, Call>,
}

/// A call whose end was not read yet.
struct Call {
    tool: String,
    has_heartbeat: bool,
    started: i64,
}

impl<'a> Reader<'a> {
    /// At the beginning of a run.
    pub fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            run: Run::default(),
            open: HashMap::new(),
        }
    }

    /// The next event.
    pub fn event(&mut self, event: &HistoryEvent) {
        use Attributes as A;
        self.run.events = self.run.events.max(event.event_id);
        let time = event.event_time.as_ref().map_or(0, nanoseconds);
        match &event.attributes {
            Some(A::ActivityTaskScheduledEventAttributes(of)) => self.scheduled(event.event_id, of),
            Some(A::ActivityTaskStartedEventAttributes(of)) => self.started(time, of),
            Some(A::ActivityTaskCompletedEventAttributes(of)) => {
                self.ended(of.scheduled_event_id, time);
            }
            Some(A::ActivityTaskFailedEventAttributes(of)) => {
                self.ended(of.scheduled_event_id, time);
            }
            Some(A::ActivityTaskCanceledEventAttributes(of)) => {
                self.ended(of.scheduled_event_id, time);
            }
            Some(A::ActivityTaskTimedOutEventAttributes(of)) => {
                self.open.remove(&of.scheduled_event_id);
            }
            Some(A::WorkflowTaskStartedEventAttributes(of)) if of.suggest_continue_as_new => {
                let bytes = of.history_size_bytes;
                let detail = format!(
                    "event {} and {bytes} bytes, and the server suggests to continue as new",
                    event.event_id
                );
                self.see(Risk::LongHistory, "", detail, event.event_id);
            }
            Some(A::WorkflowTaskFailedEventAttributes(of)) => self.task_failed(of),
            Some(A::MarkerRecordedEventAttributes(of)) => self.marker(of),
            _ => {}
        }
    }

    /// At the end of what there is, with the calls that are open if the session lives.
    pub fn finish(mut self, open: &[OpenCall]) -> Run {
        for call in open {
            let is_last = call.maximum_attempts > 0 && call.attempt >= call.maximum_attempts;
            if call.is_started && is_last {
                let detail = format!("attempt {} is with a worker", call.attempt);
                self.see(Risk::LastAttempt, &call.tool, detail, 0);
            }
            let is_long = call.running >= self.settings.long_attempt;
            if call.is_started && is_long && !call.has_heartbeat {
                let detail = format!("an attempt has been running for {}", in_words(call.running));
                self.see(Risk::NoHeartbeat, &call.tool, detail, call.running);
            }
            // Attempts before this one are not in the history before the call ends.
            if call.attempt > 1 {
                self.made_again(&call.tool, call.attempt, false);
            }
        }
        let events = self.run.events;
        if events >= self.settings.long_history {
            let detail = format!("{events} events");
            self.see(Risk::LongHistory, "", detail, events);
        }
        self.run
    }

    fn see(&mut self, risk: Risk, tool: &str, detail: String, measure: i64) {
        self.see_times(risk, tool, detail, measure, 1);
    }

    fn see_times(&mut self, risk: Risk, tool: &str, detail: String, measure: i64, times: u64) {
        let seen = self.run.risks.entry((risk, tool.to_owned())).or_default();
        seen.count += times;
        if seen.detail.is_empty() || measure > seen.measure {
            seen.detail = detail;
            seen.measure = measure;
        }
    }

    fn scheduled(&mut self, id: i64, of: &history::ActivityTaskScheduledEventAttributes) {
        let tool = of.activity_type.as_ref().map_or("", |of| &of.name);
        *self.run.calls.entry(tool.to_owned()).or_default() += 1;
        let attempts = of.retry_policy.as_ref().map_or(0, |of| of.maximum_attempts);
        if attempts == 1 {
            let detail = "its retry policy allows one attempt".to_owned();
            self.see(Risk::SingleAttempt, tool, detail, 0);
        }
        let span = |of: &Option<prost_types::Duration>| of.as_ref().map_or(0, span);
        let has_heartbeat = span(&of.heartbeat_timeout) > 0;
        // The server fills in one from the other.
        let limit = match span(&of.start_to_close_timeout) {
            0 => span(&of.schedule_to_close_timeout),
            limit => limit,
        };
        if !has_heartbeat && (limit == 0 || limit >= self.settings.late) {
            let detail = match limit {
                0 => "an attempt has no time-out".to_owned(),
                _ => format!("an attempt times out after {} only", in_words(limit)),
            };
            let measure = if limit == 0 { i64::MAX } else { limit };
            self.see(Risk::LateNotice, tool, detail, measure);
        }
        let call = Call {
            tool: tool.to_owned(),
            has_heartbeat,
            started: 0,
        };
        self.open.insert(id, call);
    }

    fn started(&mut self, time: i64, of: &history::ActivityTaskStartedEventAttributes) {
        let Some(call) = self.open.get_mut(&of.scheduled_event_id) else {
            return;
        };
        call.started = time;
        if of.attempt > 1 {
            let tool = call.tool.clone();
            self.made_again(&tool, of.attempt, is_timeout(of.last_failure.as_ref()));
        }
    }

    fn made_again(&mut self, tool: &str, attempt: i32, timed_out: bool) {
        if self.settings.idempotent.contains(tool) {
            return;
        }
        let times = u64::try_from(attempt - 1).unwrap_or(0);
        let why = match timed_out {
            true => ", the one before having timed out: it may have had its effect",
            false => "",
        };
        let detail = format!("attempt {attempt}{why}");
        let measure = i64::from(timed_out) << 32 | i64::from(attempt);
        self.see_times(Risk::MadeAgain, tool, detail, measure, times);
    }

    fn ended(&mut self, scheduled: i64, time: i64) {
        let Some(call) = self.open.remove(&scheduled) else {
            return;
        };
        let took = time.saturating_sub(call.started);
        if call.started > 0 && !call.has_heartbeat && took >= self.settings.long_attempt {
            let detail = format!("an attempt took {}", in_words(took));
            self.see(Risk::NoHeartbeat, &call.tool, detail, took);
        }
    }

    fn task_failed(&mut self, of: &history::WorkflowTaskFailedEventAttributes) {
        let message = of.failure.as_ref().map_or("", |of| of.message.as_str());
        let risk = match of.cause() {
            Cause::NonDeterministicError => Risk::NonDeterminism,
            // These are the server's own doing, or that of somebody who resets.
            Cause::ResetWorkflow
            | Cause::UnhandledCommand
            | Cause::ForceCloseCommand
            | Cause::FailoverCloseCommand
            | Cause::ResetStickyTaskQueue => return,
            _ if message.to_lowercase().contains("nondeterminis") => Risk::NonDeterminism,
            _ => Risk::TaskFailed,
        };
        self.see(risk, "", clipped(message), 0);
    }

    fn marker(&mut self, of: &history::MarkerRecordedEventAttributes) {
        let Some(tool) = local_activity(of) else {
            return;
        };
        *self.run.calls.entry(tool.clone()).or_default() += 1;
        let detail = "it ran as a local activity".to_owned();
        self.see(Risk::LocalActivity, &tool, detail, 0);
    }
}

/// The type of the local activity that a marker stands for; empty if the marker does not say it.
pub fn local_activity(of: &history::MarkerRecordedEventAttributes) -> Option<String> {
    // Core of the newer SDKs; Go and Java.
    let is_one = matches!(&*of.marker_name, "core_local_activity" | "LocalActivity");
    is_one.then(|| of.details.values().find_map(local_type).unwrap_or_default())
}

/// The type of a local activity, where a marker's detail has it.
fn local_type(details: &Payloads) -> Option<String> {
    let data = &details.payloads.first()?.data;
    let value: serde_json::Value = serde_json::from_slice(data).ok()?;
    let names = ["activity_type", "activityType", "ActivityType"];
    let name = names.iter().find_map(|name| value.get(name)?.as_str());
    name.map(str::to_owned)
}

fn is_timeout(failure: Option<&Failure>) -> bool {
    let info = failure.and_then(|of| of.failure_info.as_ref());
    matches!(info, Some(FailureInfo::TimeoutFailureInfo(_)))
}

fn nanoseconds(time: &prost_types::Timestamp) -> i64 {
    let nanos = time.seconds.saturating_mul(SECOND);
    nanos.saturating_add(time.nanos.into())
}

fn span(time: &prost_types::Duration) -> i64 {
    let nanos = time.seconds.saturating_mul(SECOND);
    nanos.saturating_add(time.nanos.into())
}

/// A time that people can read.
fn in_words(nanoseconds: i64) -> String {
    let seconds = nanoseconds / SECOND;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn clipped(text: &str) -> String {
    const MAX: usize = 300;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
