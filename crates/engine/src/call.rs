//! The commands of an agent that reach beyond its workflow: what policies are asked about, and people
//! approve.

use sha2::{Digest, Sha256};

use crate::proto::common::{Payloads, WorkflowExecution};
use crate::proto::enums::WorkflowIdReusePolicy;
use crate::record::{CallKind, Decision};
use crate::state::{Activity, Approval, Child, ExternalCancel, ExternalSignal, RunState};

/// A command.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// A tool call.
    Tool(&'a Activity),
    /// The start of a child.
    Child(&'a Child),
    /// A signal to another workflow.
    Signal(&'a ExternalSignal),
    /// A request to another workflow to cancel.
    Cancel(&'a ExternalCancel),
    /// What the answer to a workflow task tells, or does at once.
    Reported(Reported<'a>),
}

/// A local activity, or going on as a workflow of another type. It is nowhere in the state, and what is known
/// of it is in its decision: so arguments are not.
#[derive(Clone, Copy, Debug)]
pub struct Reported<'a> {
    /// Which of them.
    pub kind: CallKind,
    /// Activity id.
    pub id: &'a str,
    /// Activity type, or workflow type.
    pub name: &'a str,
    /// Attempt.
    pub attempt: i32,
}

impl CallKind {
    /// Its name where people and programs read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Child => "child",
            Self::Signal => "signal",
            Self::Cancel => "cancel",
            Self::Local => "local",
            Self::ContinueAs => "continue-as",
        }
    }
}

impl<'a> Command<'a> {
    /// Its kind.
    pub fn kind(&self) -> CallKind {
        match self {
            Self::Tool(_) => CallKind::Tool,
            Self::Child(_) => CallKind::Child,
            Self::Signal(_) => CallKind::Signal,
            Self::Cancel(_) => CallKind::Cancel,
            Self::Reported(of) => of.kind,
        }
    }

    /// Activity id of a tool call; workflow id of a child, or of the receiver.
    pub fn id(&self) -> &'a str {
        match self {
            Self::Tool(activity) => &activity.scheduled().activity_id,
            Self::Child(child) => &child.initiated().workflow_id,
            Self::Signal(_) | Self::Cancel(_) => {
                self.receiver().map_or("", |receiver| &receiver.workflow_id)
            }
            Self::Reported(of) => of.id,
        }
    }

    /// Activity type, workflow type of a child, or name of a signal.
    pub fn name(&self) -> &'a str {
        match self {
            Self::Tool(activity) => {
                let activity_type = activity.scheduled().activity_type.as_ref();
                activity_type.map_or("", |of| &of.name)
            }
            Self::Child(child) => {
                let workflow_type = child.initiated().workflow_type.as_ref();
                workflow_type.map_or("", |of| &of.name)
            }
            Self::Signal(signal) => {
                let initiated = signal.initiated.as_ref();
                initiated.map_or("", |of| &of.signal_name)
            }
            Self::Cancel(_) => "",
            Self::Reported(of) => of.name,
        }
    }

    /// The workflow that a signal or a cancel request is for.
    pub fn receiver(&self) -> Option<&'a WorkflowExecution> {
        match self {
            Self::Tool(_) | Self::Child(_) | Self::Reported(_) => None,
            Self::Signal(signal) => signal.initiated.as_ref()?.workflow_execution.as_ref(),
            Self::Cancel(cancel) => cancel.initiated.as_ref()?.workflow_execution.as_ref(),
        }
    }

    /// Whether the start of a child ends a workflow of its id that is running.
    pub fn terminates_running(&self) -> bool {
        match self {
            Self::Child(child) => {
                let policy = child.initiated().workflow_id_reuse_policy();
                policy == WorkflowIdReusePolicy::TerminateIfRunning
            }
            _ => false,
        }
    }

    /// Whether the receiver has to be a child.
    pub fn children_only(&self) -> bool {
        match self {
            Self::Tool(_) | Self::Child(_) | Self::Reported(_) => false,
            Self::Signal(signal) => {
                let initiated = signal.initiated.as_ref();
                initiated.is_some_and(|of| of.child_workflow_only)
            }
            Self::Cancel(cancel) => {
                let initiated = cancel.initiated.as_ref();
                initiated.is_some_and(|of| of.child_workflow_only)
            }
        }
    }

    /// The task queue of a tool call or a child.
    pub fn task_queue(&self) -> &'a str {
        match self {
            Self::Tool(activity) => activity.task_queue(),
            Self::Child(child) => {
                let queue = child.initiated().task_queue.as_ref();
                queue.map_or("", |of| &of.name)
            }
            Self::Signal(_) | Self::Cancel(_) | Self::Reported(_) => "",
        }
    }

    /// The arguments.
    pub fn arguments(&self) -> Option<&'a Payloads> {
        match self {
            Self::Tool(activity) => activity.scheduled().input.as_ref(),
            Self::Child(child) => child.initiated().input.as_ref(),
            Self::Signal(signal) => signal.initiated.as_ref()?.input.as_ref(),
            Self::Cancel(_) | Self::Reported(_) => None,
        }
    }

    /// Whether arguments cannot be seen.
    pub fn hides_arguments(&self) -> bool {
        matches!(self, Self::Reported(_))
    }

    /// The attempt of a tool call, also of a local one; the first of all others.
    pub fn attempt(&self) -> i32 {
        match self {
            Self::Tool(activity) => activity.attempt().number,
            Self::Reported(of) => of.attempt,
            _ => 1,
        }
    }

    /// The approval that it needs, or needed.
    pub fn approval(&self) -> Option<&'a Approval> {
        match self {
            Self::Tool(activity) => activity.approval.as_ref(),
            Self::Child(child) => child.approval.as_ref(),
            Self::Signal(signal) => signal.approval.as_ref(),
            Self::Cancel(cancel) => cancel.approval.as_ref(),
            Self::Reported(_) => None,
        }
    }

    /// The approval that it waits for.
    pub fn open_approval(&self) -> Option<&'a Approval> {
        self.approval().filter(|approval| approval.is_open())
    }

    /// What an approval is for: SHA-256 over the run, what is called, and the arguments, byte for byte.
    /// Each part is after its length, in 64 bits, big-endian; metadata of a payload is sorted.
    ///
    /// A tool call's parts are: run, activity id, activity type, arguments. Those of others are: nothing,
    /// the kind, run, initiated event, then of a child its workflow id, type, task queue, cron schedule,
    /// whether it ends one that is running, and arguments; of a signal or a cancel request the receiver's workflow id and run id, whether it has to
    /// be a child, the signal's name or the reason, and arguments.
    pub fn digest(&self, state: &RunState, event_id: i64) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut part = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        if self.kind() != CallKind::Tool {
            part(b"");
            part(self.kind().name().as_bytes());
        }
        part(state.run_id.as_bytes());
        if self.kind() != CallKind::Tool {
            part(&event_id.to_be_bytes());
        }
        part(self.id().as_bytes());
        match self {
            Self::Tool(_) | Self::Reported(_) => part(self.name().as_bytes()),
            Self::Child(child) => {
                part(self.name().as_bytes());
                part(self.task_queue().as_bytes());
                part(child.initiated().cron_schedule.as_bytes());
                part(&[u8::from(self.terminates_running())]);
            }
            Self::Signal(_) | Self::Cancel(_) => {
                part(self.receiver().map_or(b"", |of| of.run_id.as_bytes()));
                part(&[u8::from(self.children_only())]);
                part(self.name().as_bytes());
                part(self.reason().as_bytes());
            }
        }
        let arguments = self.arguments().map_or(&[][..], |of| &of.payloads);
        part(&(arguments.len() as u64).to_be_bytes());
        for payload in arguments {
            let mut metadata: Vec<_> = payload.metadata.iter().collect();
            metadata.sort_unstable();
            part(&(metadata.len() as u64).to_be_bytes());
            for (key, value) in metadata {
                part(key.as_bytes());
                part(value);
            }
            part(&payload.data);
        }
        digest.finalize().into()
    }

    /// Why another workflow is to cancel.
    pub fn reason(&self) -> &'a str {
        match self {
            Self::Cancel(cancel) => cancel.initiated.as_ref().map_or("", |of| &of.reason),
            _ => "",
        }
    }
}

impl RunState {
    /// The command that an event scheduled or initiated, if it is under way. A child that is started is
    /// not.
    pub fn command(&self, event_id: i64) -> Option<Command<'_>> {
        if let Some(activity) = self.activities.get(&event_id) {
            return Some(Command::Tool(activity));
        }
        if let Some(child) = self.children.get(&event_id) {
            return (!child.is_started()).then_some(Command::Child(child));
        }
        if let Some(signal) = self.external_signals.get(&event_id) {
            return Some(Command::Signal(signal));
        }
        let cancel = self.external_cancels.get(&event_id);
        cancel.map(Command::Cancel)
    }

    /// The command that was decided, as it was before.
    pub fn decided<'a>(&'a self, decision: &'a Decision) -> Option<Command<'a>> {
        match decision.kind() {
            kind @ (CallKind::Local | CallKind::ContinueAs) => Some(Command::Reported(Reported {
                kind,
                id: &decision.activity_id,
                name: &decision.activity_type,
                attempt: decision.attempt,
            })),
            _ => self.command(decision.scheduled_event_id),
        }
    }

    /// The commands that wait for people, by their events.
    pub fn waiting(&self) -> impl Iterator<Item = (i64, Command<'_>, &Approval)> {
        let tools = self.activities.iter();
        let tools = tools.map(|(&id, activity)| (id, Command::Tool(activity)));
        tools
            .chain(self.messages_under_way())
            .filter_map(|(id, command)| Some((id, command, command.open_approval()?)))
    }

    /// Children that are not started, and what is under way to other workflows.
    pub(crate) fn messages_under_way(&self) -> impl Iterator<Item = (i64, Command<'_>)> {
        let children = self
            .children
            .iter()
            .filter(|(_, child)| !child.is_started());
        let children = children.map(|(&id, child)| (id, Command::Child(child)));
        let signals = self.external_signals.iter();
        let signals = signals.map(|(&id, signal)| (id, Command::Signal(signal)));
        let cancels = self.external_cancels.iter();
        let cancels = cancels.map(|(&id, cancel)| (id, Command::Cancel(cancel)));
        children.chain(signals).chain(cancels)
    }

    /// Receivers that began since a message was sent are asked whether they had it: what waited was not
    /// sent before its release.
    pub(crate) fn sent_at_release(&mut self, event_id: i64) {
        let (time, approval) = if let Some(signal) = self.external_signals.get_mut(&event_id) {
            (&mut signal.time, &signal.approval)
        } else if let Some(cancel) = self.external_cancels.get_mut(&event_id) {
            (&mut cancel.time, &cancel.approval)
        } else {
            return;
        };
        if let Some(approval) = approval.as_ref().filter(|approval| !approval.is_open()) {
            *time = approval.released;
        }
    }

    /// Where the approval of a command that is no tool call is.
    pub(crate) fn approval_mut(&mut self, event_id: i64) -> Option<&mut Option<Approval>> {
        if let Some(child) = self.children.get_mut(&event_id) {
            return Some(&mut child.approval);
        }
        if let Some(signal) = self.external_signals.get_mut(&event_id) {
            return Some(&mut signal.approval);
        }
        let cancel = self.external_cancels.get_mut(&event_id);
        cancel.map(|cancel| &mut cancel.approval)
    }
}
