//! What was going on when: a lane for the agent, and one for each tool call, timer and child.

use std::collections::BTreeMap;

use steadfast_engine::proto::history::{HistoryEvent, history_event::Attributes as Of};

use super::story::{Item, Story};
use crate::console::{message, text, times};

/// One line of the picture.
#[derive(Debug, Default, PartialEq)]
pub struct Lane {
    pub label: String,
    pub kind: &'static str,
    /// The event that it began with; 0 for none.
    pub event_id: i64,
    pub spans: Vec<Span>,
    /// Moments, with what they were.
    pub marks: Vec<(i64, String)>,
}

/// What went on for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub from: i64,
    pub to: i64,
    pub class: &'static str,
    pub title: String,
}

/// A lane that is being drawn.
struct Open {
    lane: Lane,
    since: i64,
    class: &'static str,
    title: String,
    is_over: bool,
}

impl Open {
    fn new(label: &str, kind: &'static str, event_id: i64, since: i64, title: &str) -> Self {
        Self {
            lane: Lane {
                label: text::plain(label, 80),
                kind,
                event_id,
                ..Lane::default()
            },
            since,
            class: "wait",
            title: title.to_owned(),
            is_over: false,
        }
    }

    /// What went on ends as `class`, or as it was.
    fn end(&mut self, now: i64, class: Option<&'static str>, title: &str) {
        if self.is_over {
            return;
        }
        let title = match title {
            "" => self.title.clone(),
            title => title.to_owned(),
        };
        self.lane.spans.push(Span {
            from: self.since,
            to: now.max(self.since),
            class: class.unwrap_or(self.class),
            title,
        });
        self.since = now.max(self.since);
    }

    fn next(&mut self, now: i64, class: &'static str, title: String) {
        self.end(now, None, "");
        (self.class, self.title) = (class, title);
    }

    fn close(&mut self, now: i64, class: &'static str, title: &str) {
        // What nobody worked on has not failed by itself: it waited.
        let ends = if self.class == "running" {
            Some(class)
        } else {
            None
        };
        self.end(now, ends, title);
        if ends.is_none() {
            self.lane.marks.push((now, title.to_owned()));
        }
        self.is_over = true;
    }
}

/// All lanes, in the order in which they began.
pub fn of(story: &Story) -> Vec<Lane> {
    let mut drawing = Drawing {
        story,
        agent: Open::new("Agent", "agent", 0, story.begin, ""),
        signals: Lane {
            label: "Signals and updates".into(),
            kind: "signal",
            ..Lane::default()
        },
        others: BTreeMap::new(),
    };
    drawing.agent.is_over = true;
    for item in story.items() {
        drawing.add(&item);
    }
    drawing.finish()
}

struct Drawing<'a> {
    story: &'a Story,
    agent: Open,
    signals: Lane,
    /// By the events that they began with.
    others: BTreeMap<i64, Open>,
}

impl Drawing<'_> {
    fn add(&mut self, item: &Item<'_>) {
        let now = item.time();
        match item {
            Item::Event(event) => self.event(event, now),
            Item::Started(of, _) => {
                let attempt = of.attempt.clone().unwrap_or_default();
                let title = format!("attempt {} runs", attempt.number);
                self.with(of.scheduled_event_id, |open| {
                    open.next(now, "running", title)
                });
            }
            Item::Failed(of, failure, _) => {
                let attempt = of.attempt.clone().unwrap_or_default();
                let failed = format!(
                    "attempt {} failed: {}",
                    attempt.number - 1,
                    text::plain(&message::reason(failure), 120)
                );
                let waits = format!("waits for attempt {}", attempt.number);
                self.with(of.scheduled_event_id, |open| {
                    open.end(now, Some("bad"), &failed);
                    (open.class, open.title) = ("wait", waits);
                });
            }
            Item::Approval {
                scheduled_event_id,
                now: approval,
                ..
            } => {
                let (class, title) = match approval.released {
                    0 => ("approval", "waits for people".to_owned()),
                    _ => ("wait", "waits for a worker".to_owned()),
                };
                self.with(*scheduled_event_id, |open| {
                    if open.class != class {
                        open.next(now, class, title);
                    }
                });
            }
            Item::Decided(..) => {}
        }
    }

    fn with(&mut self, id: i64, change: impl FnOnce(&mut Open)) {
        if let Some(open) = self.others.get_mut(&id) {
            change(open);
        }
    }

    fn begin(
        &mut self,
        label: &str,
        kind: &'static str,
        event: &HistoryEvent,
        now: i64,
        title: &str,
    ) {
        let id = event.event_id;
        self.others
            .insert(id, Open::new(label, kind, id, now, title));
    }

    fn event(&mut self, event: &HistoryEvent, now: i64) {
        let Some(attributes) = &event.attributes else {
            return;
        };
        self.agent_event(attributes, now);
        self.tool_event(event, attributes, now);
        self.other_event(event, attributes, now);
    }

    fn agent_event(&mut self, attributes: &Of, now: i64) {
        let agent = &mut self.agent;
        match attributes {
            Of::WorkflowTaskScheduledEventAttributes(_) => {
                agent.is_over = false;
                agent.since = now;
                (agent.class, agent.title) = ("wait", "waits for a worker".into());
            }
            Of::WorkflowTaskStartedEventAttributes(_) => {
                agent.next(now, "running", "thinks".into())
            }
            Of::WorkflowTaskCompletedEventAttributes(_) => agent.close(now, "good", "thought"),
            Of::WorkflowTaskFailedEventAttributes(_) => agent.close(now, "bad", "its code failed"),
            Of::WorkflowTaskTimedOutEventAttributes(_) => {
                agent.close(now, "bad", "its worker did not answer");
            }
            _ => {}
        }
    }

    fn tool_event(&mut self, event: &HistoryEvent, attributes: &Of, now: i64) {
        match attributes {
            Of::ActivityTaskScheduledEventAttributes(a) => {
                let name = a.activity_type.as_ref().map_or("", |of| &of.name);
                self.begin(name, "tool", event, now, "waits for a worker");
            }
            Of::ActivityTaskStartedEventAttributes(a) => {
                // Where records are missing it is all that says that somebody had it.
                let title = format!("attempt {} runs", a.attempt);
                self.with(a.scheduled_event_id, |open| {
                    if open.class == "wait" && open.since <= now {
                        open.next(now, "running", title);
                    }
                });
            }
            Of::ActivityTaskCompletedEventAttributes(a) => {
                self.with(a.scheduled_event_id, |open| {
                    open.close(now, "good", "returned")
                });
            }
            Of::ActivityTaskFailedEventAttributes(a) => {
                let why = a.failure.as_ref().map(message::reason).unwrap_or_default();
                let why = format!("failed: {}", text::plain(&why, 120));
                self.with(a.scheduled_event_id, |open| open.close(now, "bad", &why));
            }
            Of::ActivityTaskTimedOutEventAttributes(a) => {
                self.with(a.scheduled_event_id, |open| {
                    open.close(now, "bad", "timed out")
                });
            }
            Of::ActivityTaskCanceledEventAttributes(a) => {
                self.with(a.scheduled_event_id, |open| {
                    open.close(now, "ended", "cancelled")
                });
            }
            _ => {}
        }
    }

    fn other_event(&mut self, event: &HistoryEvent, attributes: &Of, now: i64) {
        match attributes {
            Of::TimerStartedEventAttributes(a) => {
                let span = times::span(times::span_of(&a.start_to_fire_timeout));
                self.begin(&format!("Timer {span}"), "timer", event, now, "waits");
            }
            Of::TimerFiredEventAttributes(a) => {
                self.with(a.started_event_id, |open| open.close(now, "good", "fired"));
            }
            Of::TimerCanceledEventAttributes(a) => {
                self.with(a.started_event_id, |open| {
                    open.close(now, "ended", "cancelled")
                });
            }
            Of::StartChildWorkflowExecutionInitiatedEventAttributes(a) => {
                self.begin(&a.workflow_id, "child", event, now, "is to start");
            }
            Of::ChildWorkflowExecutionStartedEventAttributes(a) => {
                self.with(a.initiated_event_id, |open| {
                    open.next(now, "running", "runs".into())
                });
            }
            Of::StartChildWorkflowExecutionFailedEventAttributes(a) => {
                self.with(a.initiated_event_id, |open| {
                    open.close(now, "bad", "could not start")
                });
            }
            Of::ChildWorkflowExecutionCompletedEventAttributes(a) => {
                self.with(a.initiated_event_id, |open| {
                    open.close(now, "good", "completed")
                });
            }
            Of::ChildWorkflowExecutionFailedEventAttributes(a) => {
                self.with(a.initiated_event_id, |open| {
                    open.close(now, "bad", "failed")
                });
            }
            Of::ChildWorkflowExecutionTimedOutEventAttributes(a) => {
                self.with(a.initiated_event_id, |open| {
                    open.close(now, "bad", "timed out")
                });
            }
            Of::ChildWorkflowExecutionTerminatedEventAttributes(a) => {
                self.with(a.initiated_event_id, |open| {
                    open.close(now, "bad", "terminated")
                });
            }
            Of::ChildWorkflowExecutionCanceledEventAttributes(a) => {
                self.with(a.initiated_event_id, |open| {
                    open.close(now, "ended", "cancelled")
                });
            }
            Of::WorkflowExecutionSignaledEventAttributes(a) => {
                let name = format!("signal {}", text::plain(&a.signal_name, 80));
                self.signals.marks.push((now, name));
            }
            Of::WorkflowExecutionCancelRequestedEventAttributes(_) => {
                self.signals
                    .marks
                    .push((now, "cancellation requested".into()));
            }
            Of::WorkflowExecutionUpdateAcceptedEventAttributes(_) => {
                self.signals.marks.push((now, "update".into()));
            }
            _ => {}
        }
    }

    /// What is open goes on until now, or until the session ended.
    fn finish(mut self) -> Vec<Lane> {
        let (end, is_running) = (self.story.end, self.story.is_running);
        let mut lanes = Vec::new();
        let mut finish = |mut open: Open| {
            let class = match (is_running, open.class) {
                (false, _) => "ended",
                (true, "running") => "running",
                (true, other) => other,
            };
            let title = if is_running {
                ""
            } else {
                "left open at the session's end"
            };
            open.end(end, Some(class), title);
            lanes.push(open.lane);
        };
        finish(self.agent);
        self.others.into_values().for_each(finish);
        if !self.signals.marks.is_empty() {
            self.signals.event_id = 0;
            lanes.insert(1, self.signals);
        }
        lanes
    }
}
