//! What can be done: every call of the API, and every command of an agent. One table, from which the
//! schema is made.

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Action(usize);

/// Groups of actions, for policies.
const GROUPS: [&str; 11] = [
    "admin", "approve", "audit", "command", "connect", "control", "erase", "exchange", "read",
    "worker", "write",
];

/// Name and group. Calls of the Temporal API have the names of their methods.
const ACTIONS: &[(&str, &str)] = &[
    ("AddAttestation", "write"),
    ("AddSearchAttributes", "admin"),
    ("CancelExternal", "command"),
    ("CheckEvidence", "audit"),
    ("CheckPolicies", "audit"),
    ("ContinueAs", "command"),
    ("CountWorkflowExecutions", "read"),
    ("CreateKey", "admin"),
    ("DecideApproval", "approve"),
    ("DeleteNamespace", "admin"),
    ("DeleteWorkflowExecution", "erase"),
    ("DeprecateNamespace", "admin"),
    ("DescribeNamespace", "read"),
    ("DescribeTaskQueue", "read"),
    ("DescribeWorker", "read"),
    ("DescribeWorkflowExecution", "read"),
    ("DisablePrincipal", "admin"),
    ("EnablePrincipal", "admin"),
    ("EraseEvidence", "erase"),
    (EXCHANGE_CREDENTIAL, "exchange"),
    ("ExecuteMultiOperation", "write"),
    ("ExecuteTool", "command"),
    ("ExportEvidence", "audit"),
    ("ExportOcsf", "audit"),
    ("ExportOtlp", "audit"),
    ("GetAccess", "read"),
    ("GetClusterInfo", "connect"),
    ("GetInventory", "read"),
    ("GetMetrics", "read"),
    ("GetPolicies", "audit"),
    ("GetSearchAttributes", "read"),
    ("GetStatus", "read"),
    ("GetSystemInfo", "connect"),
    ("GetWorkflowExecutionHistory", "read"),
    ("GetWorkflowExecutionHistoryReverse", "read"),
    ("IntrospectCredential", "connect"),
    ("ListApprovals", "approve"),
    ("ListAttestations", "read"),
    ("ListClosedWorkflowExecutions", "read"),
    ("ListClusters", "read"),
    ("ListKeys", "audit"),
    ("ListNamespaces", "read"),
    ("ListOpenWorkflowExecutions", "read"),
    ("ListPrincipals", "audit"),
    ("ListSearchAttributes", "read"),
    ("ListTaskQueuePartitions", "read"),
    ("ListWorkers", "read"),
    ("ListWorkflowExecutions", "read"),
    ("PauseWorkflowExecution", "control"),
    ("PollActivityTaskQueue", "worker"),
    ("PollWorkflowExecutionUpdate", "read"),
    ("PollWorkflowTaskQueue", "worker"),
    ("PutPolicies", "admin"),
    ("QueryWorkflow", "read"),
    ("ReadLog", "audit"),
    ("RecordActivityTaskHeartbeat", "worker"),
    ("RecordActivityTaskHeartbeatById", "worker"),
    ("RecordWorkerHeartbeat", "worker"),
    ("RegisterNamespace", "admin"),
    ("RemoveSearchAttributes", "admin"),
    ("RequestCancelWorkflowExecution", "write"),
    ("ResetStickyTaskQueue", "worker"),
    ("ResetWorkflowExecution", "write"),
    ("RespondActivityTaskCanceled", "worker"),
    ("RespondActivityTaskCanceledById", "worker"),
    ("RespondActivityTaskCompleted", "worker"),
    ("RespondActivityTaskCompletedById", "worker"),
    ("RespondActivityTaskFailed", "worker"),
    ("RespondActivityTaskFailedById", "worker"),
    ("RespondQueryTaskCompleted", "worker"),
    ("RespondWorkflowTaskCompleted", "worker"),
    ("RespondWorkflowTaskFailed", "worker"),
    ("RevokeCredential", "control"),
    ("RevokeKey", "admin"),
    ("RevokeSession", "control"),
    ("RunLocalTool", "command"),
    ("ScanWorkflowExecutions", "read"),
    ("ServerReflectionInfo", "connect"),
    ("ShutdownWorker", "worker"),
    ("SignalExternal", "command"),
    ("SignalWithStartWorkflowExecution", "write"),
    ("SignalWorkflowExecution", "write"),
    ("StartChild", "command"),
    ("StartWorkflowExecution", "write"),
    ("TerminateWorkflowExecution", "control"),
    ("TryPolicies", "audit"),
    ("UnpauseWorkflowExecution", "control"),
    ("UpdateNamespace", "admin"),
    ("UpdateWorkflowExecution", "write"),
];

const START: &str = "StartWorkflowExecution";
const EXCHANGE_CREDENTIAL: &str = "ExchangeCredential";

/// What an agent does by a command of its workflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Command {
    /// It calls a tool: an activity.
    #[default]
    Tool,
    /// It starts another workflow.
    Child,
    /// It signals another workflow.
    Signal,
    /// It requests another workflow's cancellation.
    Cancel,
    /// It ran a tool within its worker: a local activity.
    Local,
    /// It goes on as a workflow of another type.
    ContinueAs,
}

impl Command {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Tool,
        Self::Child,
        Self::Signal,
        Self::Cancel,
        Self::Local,
        Self::ContinueAs,
    ];

    /// The name of its action.
    pub fn action_name(self) -> &'static str {
        match self {
            Self::Tool => "ExecuteTool",
            Self::Child => "StartChild",
            Self::Signal => "SignalExternal",
            Self::Cancel => "CancelExternal",
            Self::Local => "RunLocalTool",
            Self::ContinueAs => "ContinueAs",
        }
    }

    /// Its action.
    pub fn action(self) -> Action {
        // It is in the table: a test says so.
        Action::of(self.action_name()).unwrap_or(Action(0))
    }

    /// The type of entity that it is done to.
    pub(crate) fn resource_type(self) -> &'static str {
        match self {
            Self::Tool | Self::Local => "Tool",
            Self::Child | Self::ContinueAs => "Workflow",
            Self::Signal | Self::Cancel => "Session",
        }
    }

    /// The type of its context in the schema.
    pub(crate) fn context_type(self) -> &'static str {
        match self {
            Self::Tool | Self::Local | Self::ContinueAs => "ToolCall",
            Self::Child => "ChildStart",
            Self::Signal => "OutgoingSignal",
            Self::Cancel => "OutgoingCancel",
        }
    }
}

impl Action {
    /// A tool call of an agent.
    pub fn execute_tool() -> Self {
        Command::Tool.action()
    }

    /// The exchange of an agent's credential for one for another audience.
    pub fn exchange_credential() -> Self {
        Self::of(EXCHANGE_CREDENTIAL).unwrap_or(Self(0))
    }

    /// The action of a call; none if nobody knows it, which nobody may do.
    pub fn of(name: &str) -> Option<Self> {
        let found = ACTIONS.binary_search_by(|(of, _)| of.cmp(&name));
        found.ok().map(Self)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        ACTIONS[self.0].0
    }

    /// The group that it is in.
    pub fn group(self) -> &'static str {
        ACTIONS[self.0].1
    }

    /// Whether only agents do it.
    pub fn is_of_agents(self) -> bool {
        self.command().is_some() || self.name() == EXCHANGE_CREDENTIAL
    }

    /// The command of an agent that it is; none for calls of the API.
    pub fn command(self) -> Option<Command> {
        let mut commands = Command::ALL.into_iter();
        commands.find(|of| of.action_name() == self.name())
    }

    /// Whether it starts a session, whose type may have been attested.
    pub fn is_start(self) -> bool {
        self.name() == START
    }

    /// Where it is in the table.
    pub(crate) fn index(self) -> usize {
        self.0
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..ACTIONS.len()).map(Self)
    }
}

/// The declarations of all actions and groups, in the language of Cedar's schemas.
pub(crate) fn declarations() -> String {
    let groups = GROUPS.iter().map(|group| format!("action \"{group}\";\n"));
    let calls = ACTIONS.iter().map(|(name, group)| {
        let command = Action::of(name).and_then(Action::command);
        let (principals, resource, context) = match command {
            Some(of) => ("Agent", of.resource_type(), of.context_type()),
            None if *name == EXCHANGE_CREDENTIAL => ("Agent", "Audience", "Exchange"),
            None if *name == START => (
                "User, Service, Agent, Unauthenticated",
                "Namespace",
                "Start",
            ),
            None => ("User, Service, Agent, Unauthenticated", "Namespace", "Call"),
        };
        format!(
            "action \"{name}\" in [\"{group}\"] appliesTo {{ principal: [{principals}], \
             resource: [{resource}], context: {context} }};\n"
        )
    });
    groups.chain(calls).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_groups_are_known() {
        assert!(ACTIONS.is_sorted_by(|one, other| one.0 < other.0));
        assert!(ACTIONS.iter().all(|(_, group)| GROUPS.contains(group)));
        for (name, _) in ACTIONS {
            assert_eq!(Action::of(name).map(Action::name), Some(*name));
        }
        for command in Command::ALL {
            assert_eq!(command.action().command(), Some(command));
            assert_eq!(command.action().group(), "command");
        }
        let commands = Action::all().filter(|of| of.group() == "command");
        assert_eq!(commands.count(), Command::ALL.len());
        assert_eq!(Action::exchange_credential().name(), EXCHANGE_CREDENTIAL);
        assert_eq!(Action::of("Nothing"), None);
    }
}
