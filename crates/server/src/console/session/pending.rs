//! What a session waits for.

use maud::{Markup, html};
use steadfast_engine::proto::enums::{PendingActivityState, PendingWorkflowTaskState};
use steadfast_engine::proto::history::history_event::Attributes as Of;
use steadfast_engine::proto::workflow::PendingActivityInfo;
use steadfast_runtime::matching::{QueueKey, QueueKind};

use super::story::Story;
use super::{Session, words};
use crate::console::page::badge;
use crate::console::{Visit, message, text, times};

/// Longest reason that is shown, in characters.
const MAX_REASON: usize = 300;

/// Most lines.
const MAX_LINES: usize = 20;

impl Session<'_> {
    /// What it waits for, if it runs.
    pub async fn pending(&self, story: Option<&Story>) -> Markup {
        let mut lines = Vec::new();
        if let Some(pause) = self.paused() {
            let since = times::ago(times::nanos(&pause.paused_time), self.now);
            lines.push(html! {
                (badge("waiting", "Paused"))
                span { "by " (text::prose(&pause.identity, 60)) ", " (since) @if !pause.reason.is_empty() { ": " (text::prose(&pause.reason, MAX_REASON)) } ". Nothing is handed to workers." }
            });
        }
        if self.is_running() {
            for activity in &self.description.pending_activities {
                lines.push(self.activity(activity, story));
            }
            lines.extend(self.workflow_task());
            lines.extend(story.iter().flat_map(|story| self.timers(story)));
            for child in &self.description.pending_children {
                lines.push(html! {
                    (badge("running", "Child"))
                    span { a href=(Visit::session(self.namespace, &child.workflow_id, &child.run_id)) { (text::name(&child.workflow_id)) }
                        " of " (text::name(&child.workflow_type_name)) " is running" }
                });
            }
            if lines.is_empty() {
                lines.push(html! { (badge("running", "Idle")) span { "It waits for a signal, or for something that its code alone knows." } });
            }
        }
        let more = lines.len().saturating_sub(MAX_LINES);
        html! {
            section #pending data-swap .pending hidden[lines.is_empty()] aria-label="What it waits for" {
                @if !lines.is_empty() {
                    h2 { "Now" }
                    ul { @for line in lines.into_iter().take(MAX_LINES) { li { (line) } } }
                    @if more > 0 { p.note { "and " (more) " more" } }
                }
            }
        }
    }

    fn activity(&self, of: &PendingActivityInfo, story: Option<&Story>) -> Markup {
        let tool = of.activity_type.as_ref().map_or("", |of| &of.name);
        if let Some(line) = self.approval(of, story) {
            return line;
        }
        let last = of.last_failure.as_ref().map(message::reason);
        let (next, last_started) = (
            times::nanos(&of.next_attempt_schedule_time),
            times::nanos(&of.last_started_time),
        );
        let beat = times::nanos(&of.last_heartbeat_time);
        let queue = of
            .activity_options
            .as_ref()
            .and_then(|of| of.task_queue.as_ref());
        let queue = queue.map_or("", |of| &of.name);
        html! {
            @match of.state() {
                PendingActivityState::Started => {
                    (badge("running", "Tool call"))
                    span { b { (text::name(tool)) } " is running: attempt " (of.attempt) " since " (times::ago(last_started, self.now)) " on worker " (text::prose(&of.last_worker_identity, 60))
                        @if beat > 0 { ", last heartbeat " (times::ago(beat, self.now)) } }
                },
                PendingActivityState::CancelRequested => {
                    (badge("waiting", "Tool call"))
                    span { b { (text::name(tool)) } " is asked to stop" }
                },
                _ if next > self.now => {
                    (badge("waiting", "Tool call"))
                    span { b { (text::name(tool)) } " is tried again " (times::ago(next, self.now)) ": attempt " (of.attempt)
                        @if of.maximum_attempts > 0 { " of " (of.maximum_attempts) } }
                },
                _ => {
                    (badge("waiting", "Tool call"))
                    span { b { (text::name(tool)) } " waits for a worker of task queue " (text::name(queue)) (self.pollers(queue, QueueKind::Activity)) }
                },
            }
            @if let Some(last) = last { span.because { "Last failure: " (text::prose(&last, 300)) } }
        }
    }

    /// A tool call that waits for people.
    fn approval(&self, of: &PendingActivityInfo, story: Option<&Story>) -> Option<Markup> {
        let story = story?;
        let scheduled = story.events.iter().find(|event| match &event.attributes {
            Some(Of::ActivityTaskScheduledEventAttributes(a)) => a.activity_id == of.activity_id,
            _ => false,
        })?;
        let approval = story
            .approval(scheduled.event_id)
            .filter(|of| of.is_open())?;
        let tool = story.tool_name(scheduled.event_id);
        let approving = approval.votes.iter().filter(|of| of.approves).count();
        Some(html! {
            (badge("approval", "Approval"))
            span { b { (text::name(tool)) } " waits for approval by " (words::needed(approval)) "; "
                (approving) " so far. It is refused " (times::ago(approval.expires, self.now)) ". "
                a href={ (Visit::base(self.namespace)) "/approvals" } { "Look at the call and decide" } }
        })
    }

    fn workflow_task(&self) -> Option<Markup> {
        let task = self.description.pending_workflow_task.as_ref()?;
        let queue = &self.info.task_queue;
        let (scheduled, started) = (
            times::nanos(&task.scheduled_time),
            times::nanos(&task.started_time),
        );
        Some(match task.state() {
            PendingWorkflowTaskState::Started => html! {
                (badge("running", "Agent"))
                span { "A worker works out what is next, since " (times::ago(started, self.now))
                    @if task.attempt > 1 { ", attempt " (task.attempt) } }
            },
            _ => html! {
                (badge("waiting", "Agent"))
                span { "Waits for a worker of task queue " (text::name(queue)) ", since " (times::ago(scheduled, self.now))
                    @if task.attempt > 1 { ", attempt " (task.attempt) ": the code failed before" }
                    (self.pollers(queue, QueueKind::Workflow)) }
            },
        })
    }

    /// Says it if nobody works on a queue.
    fn pollers(&self, queue: &str, kind: QueueKind) -> Markup {
        let runtime = &self.visit.console.runtime;
        let Ok(namespace) = runtime.namespaces().by_name(self.namespace) else {
            return html! {};
        };
        if queue.is_empty() || !self.visit.may("DescribeTaskQueue", self.namespace, "") {
            return html! {};
        }
        let key = QueueKey {
            namespace_id: namespace.id.clone(),
            name: queue.to_owned(),
            kind,
        };
        let view = runtime.queue_view(&key);
        html! { @if view.pollers.is_empty() { ". " b.alarm { "No worker polls this queue." } } }
    }

    fn timers(&self, story: &Story) -> Vec<Markup> {
        let mut open = std::collections::BTreeMap::new();
        for event in &story.events {
            match &event.attributes {
                Some(Of::TimerStartedEventAttributes(a)) => {
                    let span = times::span_of(&a.start_to_fire_timeout);
                    let due = times::nanos(&event.event_time).saturating_add(span);
                    open.insert(event.event_id, due);
                }
                Some(Of::TimerFiredEventAttributes(a)) => {
                    open.remove(&a.started_event_id);
                }
                Some(Of::TimerCanceledEventAttributes(a)) => {
                    open.remove(&a.started_event_id);
                }
                _ => {}
            }
        }
        let lines = open.values().map(|due| {
            html! { (badge("waiting", "Timer")) span { "Sleeps; wakes " (times::ago(*due, self.now)) } }
        });
        lines.collect()
    }
}
