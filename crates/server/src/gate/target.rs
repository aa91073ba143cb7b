//! What a call is about, as far as policies can see it.

use std::sync::Arc;

use prost::Message;
use steadfast_engine::proto::common::{WorkflowExecution, WorkflowType};
use steadfast_engine::proto::enums::{WorkflowIdConflictPolicy, WorkflowIdReusePolicy};
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::proto::update::UpdateRef;
use steadfast_engine::proto::workflowservice as api;
use steadfast_engine::proto::workflowservice::execute_multi_operation_request::operation;
use steadfast_runtime::Runtime;
use steadfast_runtime::namespaces::Namespace;
use steadfast_runtime::token::{QueryToken, TaskToken};

/// What a call is about. What a request does not say is empty.
#[derive(Clone, Debug, Default)]
pub struct Target<'a> {
    /// Name of the namespace; empty for the whole server.
    pub namespace: &'a str,
    /// Who the caller says it is.
    pub claimed: &'a str,
    /// The workflow.
    pub workflow_id: &'a str,
    /// Its type.
    pub workflow_type: &'a str,
    /// The task queue.
    pub task_queue: &'a str,
    /// What else the call does, which has to be permitted as well.
    pub parts: Vec<(&'static str, Target<'a>)>,
    /// Says which task the call is about, and so the namespace.
    token: &'a [u8],
    /// Says which namespace it is, where no name does.
    namespace_id: &'a str,
}

impl<'a> Target<'a> {
    /// A namespace.
    pub fn of(namespace: &'a str) -> Self {
        Self {
            namespace,
            ..Self::default()
        }
    }

    /// Who the caller says it is.
    pub fn claimed(mut self, claimed: &'a str) -> Self {
        self.claimed = claimed;
        self
    }

    /// The workflow.
    pub fn workflow_id(mut self, workflow_id: &'a str) -> Self {
        self.workflow_id = workflow_id;
        self
    }

    /// The workflow.
    pub fn execution(self, execution: &'a Option<WorkflowExecution>) -> Self {
        self.workflow_id(execution.as_ref().map_or("", |of| &of.workflow_id))
    }

    /// The workflow of an update.
    pub fn update_ref(self, update: &'a Option<UpdateRef>) -> Self {
        match update {
            Some(of) => self.execution(&of.workflow_execution),
            None => self,
        }
    }

    /// The type of the workflow.
    pub fn workflow_type(mut self, workflow_type: &'a Option<WorkflowType>) -> Self {
        self.workflow_type = workflow_type.as_ref().map_or("", |of| &of.name);
        self
    }

    /// The task queue.
    pub fn task_queue(mut self, task_queue: &'a Option<TaskQueue>) -> Self {
        self.task_queue = task_queue.as_ref().map_or("", |of| &of.name);
        self
    }

    /// The token of the task that the call is about.
    pub fn token(mut self, token: &'a [u8]) -> Self {
        self.token = token;
        self
    }

    /// The namespace's id, where the call may have that in place of its name.
    pub fn namespace_id(mut self, id: &'a str) -> Self {
        self.namespace_id = id;
        self
    }

    /// What else the call does.
    pub fn part(mut self, call: &'static str, part: Target<'a>) -> Self {
        self.parts.push((call, part));
        self
    }

    fn ending(self, reuse: i32, conflict: i32) -> Self {
        #[allow(deprecated)]
        let ends = reuse == WorkflowIdReusePolicy::TerminateIfRunning as i32
            || conflict == WorkflowIdConflictPolicy::TerminateExisting as i32;
        let part = Target {
            parts: Vec::new(),
            ..self.clone()
        };
        match ends {
            true => self.part("TerminateWorkflowExecution", part),
            false => self,
        }
    }

    /// What the token, or the id of the namespace, says that the call is about. None for neither, and for
    /// what is of no namespace: nothing can be done with that.
    pub(crate) fn resolve(&self, runtime: &Runtime) -> Option<Resolved> {
        let (id, workflow_id) = match (self.token, self.namespace) {
            ([], "") => (self.namespace_id.to_owned(), String::new()),
            ([], _) => return None,
            (token, _) => match TaskToken::read(token) {
                Ok(token) => (token.namespace_id, token.workflow_id),
                Err(_) => (QueryToken::decode(token).ok()?.namespace_id, String::new()),
            },
        };
        let namespace = runtime.namespaces().by_id(&id).ok()?;
        Some(Resolved {
            namespace,
            workflow_id,
        })
    }

    /// The same with what was resolved.
    pub(crate) fn resolved<'b>(self, by: &'b Option<Resolved>) -> Target<'b>
    where
        'a: 'b,
    {
        match by {
            Some(by) => Target {
                namespace: &by.namespace.name,
                workflow_id: &by.workflow_id,
                ..self
            },
            None => self,
        }
    }
}

impl Target<'_> {
    /// A start. What ends a run that is there has to be permitted, too.
    pub fn start(of: &api::StartWorkflowExecutionRequest) -> Target<'_> {
        let target = Target::of(&of.namespace)
            .claimed(&of.identity)
            .workflow_id(&of.workflow_id)
            .workflow_type(&of.workflow_type)
            .task_queue(&of.task_queue);
        target.ending(of.workflow_id_reuse_policy, of.workflow_id_conflict_policy)
    }

    /// A signal, and a start if the workflow is not there: both have to be permitted.
    pub fn signal_with_start(of: &api::SignalWithStartWorkflowExecutionRequest) -> Target<'_> {
        let target = Target::of(&of.namespace)
            .claimed(&of.identity)
            .workflow_id(&of.workflow_id)
            .workflow_type(&of.workflow_type)
            .task_queue(&of.task_queue);
        let part = target.clone();
        target
            .part("StartWorkflowExecution", part.clone())
            .part("SignalWorkflowExecution", part)
            .ending(of.workflow_id_reuse_policy, of.workflow_id_conflict_policy)
    }

    /// An update.
    pub fn update(of: &api::UpdateWorkflowExecutionRequest) -> Target<'_> {
        Target::of(&of.namespace).execution(&of.workflow_execution)
    }

    /// Several calls in one: each has to be permitted.
    pub fn several(of: &api::ExecuteMultiOperationRequest) -> Target<'_> {
        let operations = of.operations.iter();
        let operations = operations.filter_map(|of| of.operation.as_ref());
        operations.fold(Target::of(&of.namespace), |target, of| match of {
            operation::Operation::StartWorkflow(of) => {
                target.part("StartWorkflowExecution", Target::start(of))
            }
            operation::Operation::UpdateWorkflow(of) => {
                target.part("UpdateWorkflowExecution", Target::update(of))
            }
        })
    }
}

/// What a token or an id is about.
pub(crate) struct Resolved {
    namespace: Arc<Namespace>,
    workflow_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::proptest;
    use steadfast_store::sqlite::SqliteStore;

    fn calls(target: &Target<'_>) -> Vec<&'static str> {
        let parts = target.parts.iter().flat_map(|(call, part)| {
            let mut all = vec![*call];
            all.extend(calls(part));
            all
        });
        parts.collect()
    }

    fn start(conflict: WorkflowIdConflictPolicy) -> api::StartWorkflowExecutionRequest {
        api::StartWorkflowExecutionRequest {
            namespace: "n".into(),
            workflow_id: "w".into(),
            workflow_type: Some(WorkflowType { name: "T".into() }),
            task_queue: Some(TaskQueue {
                name: "q".into(),
                ..TaskQueue::default()
            }),
            workflow_id_conflict_policy: conflict as i32,
            ..Default::default()
        }
    }

    #[test]
    fn a_call_has_all_in_it_that_it_does() {
        let plain = start(WorkflowIdConflictPolicy::Fail);
        let target = Target::start(&plain);
        assert_eq!(calls(&target), [""; 0]);
        assert_eq!((target.workflow_id, target.workflow_type), ("w", "T"));
        assert_eq!((target.namespace, target.task_queue), ("n", "q"));
        let ending = start(WorkflowIdConflictPolicy::TerminateExisting);
        assert_eq!(
            calls(&Target::start(&ending)),
            ["TerminateWorkflowExecution"]
        );
        let both = api::SignalWithStartWorkflowExecutionRequest {
            workflow_id_conflict_policy: WorkflowIdConflictPolicy::TerminateExisting as i32,
            ..Default::default()
        };
        assert_eq!(
            calls(&Target::signal_with_start(&both)),
            [
                "StartWorkflowExecution",
                "SignalWorkflowExecution",
                "TerminateWorkflowExecution"
            ]
        );
        let operations = [
            operation::Operation::StartWorkflow(ending),
            operation::Operation::UpdateWorkflow(Default::default()),
        ];
        let operations = operations.map(|of| api::execute_multi_operation_request::Operation {
            operation: Some(of),
        });
        let several = api::ExecuteMultiOperationRequest {
            operations: operations.into(),
            ..Default::default()
        };
        let target = Target::several(&several);
        assert_eq!(
            calls(&target),
            [
                "StartWorkflowExecution",
                "TerminateWorkflowExecution",
                "UpdateWorkflowExecution"
            ]
        );
        assert_eq!(target.parts[0].1.namespace, "n", "that of the operation");
    }

    #[tokio::test]
    async fn a_task_is_of_the_namespace_in_its_token() {
        let store = Arc::new(SqliteStore::open_in_memory().expect("a store"));
        let runtime = Runtime::open(store, Default::default()).await;
        let runtime = runtime.expect("a runtime");
        let namespace = Namespace::new("other");
        let id = namespace.id.clone();
        let permit = steadfast_runtime::Permit::internal("test");
        let put = runtime.put_namespace(&permit, namespace).await;
        put.expect("a namespace");
        let task = TaskToken {
            namespace_id: id.clone(),
            workflow_id: "w".into(),
            run_id: "r".into(),
            ..TaskToken::default()
        };
        let query = QueryToken {
            query_id: "q".into(),
            namespace_id: id.clone(),
        };
        let of = |target: Target<'_>| {
            let resolved = target.resolve(&runtime);
            let target = target.resolved(&resolved);
            (target.namespace.to_owned(), target.workflow_id.to_owned())
        };
        let claimed = || Target::of("claimed");
        let is = |namespace: &str, workflow: &str| (namespace.to_owned(), workflow.to_owned());
        assert_eq!(of(claimed().token(&task.encode_to_vec())), is("other", "w"));
        assert_eq!(of(claimed().token(&query.encode_to_vec())), is("other", ""));
        let nowhere = TaskToken {
            namespace_id: "nothing".into(),
            ..task
        };
        for bytes in [&nowhere.encode_to_vec()[..], b"", b"\xff", b"\x0a\x05"] {
            assert_eq!(of(claimed().token(bytes)), is("claimed", ""));
        }
        assert_eq!(of(Target::of("").namespace_id(&id)), is("other", ""));
        assert_eq!(of(claimed().namespace_id(&id)), is("claimed", ""));
        // Tokens are what anybody sends.
        proptest!(|(bytes: Vec<u8>)| {
            assert_eq!(of(claimed().token(&bytes)), is("claimed", ""));
        });
        runtime.stop();
    }
}
