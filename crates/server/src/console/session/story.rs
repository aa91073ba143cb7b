//! A run as it is told: its events, and between them what only its records say.

use std::collections::HashMap;

use steadfast_engine::proto::failure::Failure;
use steadfast_engine::proto::history::{HistoryEvent, history_event::Attributes};
use steadfast_engine::proto::workflow::WorkflowExecutionInfo;
use steadfast_engine::record::{ActivityAttempt, Decision};
use steadfast_engine::state::Approval;
use steadfast_runtime::calls::account::{Change, Recorded};

use super::times;

/// A run.
pub struct Story {
    pub events: Vec<HistoryEvent>,
    pub records: Vec<Recorded>,
    /// When the run began, and when it ended or now.
    pub begin: i64,
    pub end: i64,
    pub is_running: bool,
    /// Places of events by their ids.
    places: HashMap<i64, usize>,
    /// Places of records by the ids of their events.
    causes: HashMap<i64, usize>,
}

/// What happened, in order.
pub enum Item<'a> {
    Event(&'a HistoryEvent),
    /// An attempt was handed to a worker.
    Started(&'a ActivityAttempt, &'a Recorded),
    /// The attempt before this one failed.
    Failed(&'a ActivityAttempt, &'a Failure, &'a Recorded),
    Decided(&'a Decision, &'a Recorded),
    /// What an approval is now, and what it was before.
    Approval {
        scheduled_event_id: i64,
        tool: &'a str,
        now: &'a Approval,
        before: Option<&'a Approval>,
        record: &'a Recorded,
    },
}

impl Item<'_> {
    pub fn time(&self) -> i64 {
        match self {
            Self::Event(event) => times::nanos(&event.event_time),
            Self::Started(_, record)
            | Self::Failed(_, _, record)
            | Self::Decided(_, record)
            | Self::Approval { record, .. } => record.time,
        }
    }
}

impl Story {
    pub fn new(
        events: Vec<HistoryEvent>,
        records: Vec<Recorded>,
        info: &WorkflowExecutionInfo,
        now: i64,
    ) -> Self {
        let places = events.iter().enumerate();
        let places = places
            .map(|(place, event)| (event.event_id, place))
            .collect();
        let causes = records.iter().enumerate();
        let causes =
            causes.flat_map(|(place, of)| (of.events.0..of.events.1).map(move |id| (id, place)));
        let closed = times::nanos(&info.close_time);
        let begin = times::nanos(&info.start_time);
        Self {
            causes: causes.collect(),
            begin,
            end: if closed == 0 { now.max(begin) } else { closed },
            is_running: closed == 0,
            places,
            events,
            records,
        }
    }

    /// An event by its id.
    pub fn event(&self, id: i64) -> Option<&HistoryEvent> {
        self.events.get(*self.places.get(&id)?)
    }

    /// The record that an event is in.
    pub fn record_of(&self, event_id: i64) -> Option<&Recorded> {
        self.records.get(*self.causes.get(&event_id)?)
    }

    fn attributes(&self, id: i64) -> Option<&Attributes> {
        self.event(id)?.attributes.as_ref()
    }

    /// A tool call's name by its scheduled event.
    pub fn tool_name(&self, scheduled_event_id: i64) -> &str {
        match self.attributes(scheduled_event_id) {
            Some(Attributes::ActivityTaskScheduledEventAttributes(of)) => {
                of.activity_type.as_ref().map_or("", |of| &of.name)
            }
            _ => "a tool",
        }
    }

    /// Who started the session.
    pub fn initiator(&self) -> Option<String> {
        let event = self.event(1)?;
        match (&event.principal, &event.attributes) {
            (Some(principal), _) if !principal.name.is_empty() => Some(principal.name.clone()),
            (_, Some(Attributes::WorkflowExecutionStartedEventAttributes(of))) => {
                Some(of.identity.clone()).filter(|of| !of.is_empty())
            }
            _ => None,
        }
    }

    /// Everything, in order: what a record says besides comes after its events.
    pub fn items(&self) -> Vec<Item<'_>> {
        let mut items = Vec::new();
        let mut approvals: HashMap<i64, &Approval> = HashMap::new();
        let mut told = 0;
        for record in &self.records {
            while let Some(event) = self.events.get(told)
                && event.event_id < record.events.1
            {
                items.push(Item::Event(event));
                told += 1;
            }
            for change in &record.changes {
                items.extend(item(change, record, &mut approvals));
            }
        }
        items.extend(self.events[told..].iter().map(Item::Event));
        items
    }

    /// All decisions about a tool call.
    pub fn decisions(&self, scheduled_event_id: i64) -> Vec<(&Decision, &Recorded)> {
        let all = self.records.iter().flat_map(|record| {
            record
                .changes
                .iter()
                .filter_map(move |change| match change {
                    Change::Decision(of) if of.scheduled_event_id == scheduled_event_id => {
                        Some((of, record))
                    }
                    _ => None,
                })
        });
        all.collect()
    }

    /// The newest state of a tool call's approval.
    pub fn approval(&self, scheduled_event_id: i64) -> Option<&Approval> {
        let mut changes = self
            .records
            .iter()
            .rev()
            .flat_map(|record| record.changes.iter().rev());
        changes.find_map(|change| match change {
            Change::Approval(of) if of.scheduled_event_id == scheduled_event_id => {
                of.approval.as_ref()
            }
            _ => None,
        })
    }
}

fn item<'a>(
    change: &'a Change,
    record: &'a Recorded,
    approvals: &mut HashMap<i64, &'a Approval>,
) -> Option<Item<'a>> {
    match change {
        Change::Attempt(of) => {
            let attempt = of.attempt.as_ref()?;
            match (attempt.started_time, &attempt.last_failure) {
                (0, Some(failure)) if attempt.number > 1 && attempt.heartbeat_time == 0 => {
                    Some(Item::Failed(of, failure, record))
                }
                // Of the records of an attempt, the one that hands it out.
                (started, _) if started == record.time => Some(Item::Started(of, record)),
                _ => None,
            }
        }
        Change::Decision(of) => Some(Item::Decided(of, record)),
        Change::Approval(of) => {
            let now = of.approval.as_ref()?;
            let before = approvals.insert(of.scheduled_event_id, now);
            Some(Item::Approval {
                scheduled_event_id: of.scheduled_event_id,
                tool: &of.activity_type,
                now,
                before,
                record,
            })
        }
    }
}
