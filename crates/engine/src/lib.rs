//! The workflow state machine of Steadfast, behind the Temporal API.
//!
//! The engine is pure: time, ids and limits come in as arguments ([`Cx`]), and there is no clock,
//! no randomness, no SQL and no async in it. It is event-sourced in the strict sense: a decision
//! (`Run::signal`, `Run::complete_workflow_task`, …) emits [`record::Step`]s, and each step changes
//! the state through [`Run::apply`], the same function that replays a journal. State changes in no
//! other way, so replaying a run's records gives its state.
//!
//! One file per entity: its decisions, and how its events change the state.

pub mod activity;
pub mod approval;
pub(crate) mod attempt;
pub mod backoff;
pub mod call;
pub mod child;
pub mod close;
pub mod commands;
pub mod continue_as_new;
pub mod credential;
pub mod cron;
pub mod deadlines;
pub mod describe;
pub mod effect;
pub mod erase;
pub mod error;
pub mod external;
pub mod failure;
pub mod governance;
pub mod limits;
pub mod outbox;
pub mod pause;
pub mod properties;
pub mod record;
pub(crate) mod refusal;
pub(crate) mod reported;
pub(crate) mod request_ids;
pub mod reset;
pub mod run;
pub mod signal;
pub mod start;
pub mod state;
pub mod time;
pub mod timer;
pub mod update;
pub(crate) mod update_message;
pub mod workflow_task;

pub use effect::Effect;
pub use error::Error;
pub use limits::Limits;
pub use record::{RunRecord, Transition};
pub use run::{Cx, Ids, Run};
pub use state::RunState;
pub use time::Time;

/// The Temporal API's messages, under the names that the rest of the workspace uses.
pub mod proto {
    pub use temporalio_protos::temporal::api::{
        command::v1 as command, common::v1 as common, deployment::v1 as deployment,
        enums::v1 as enums, errordetails::v1 as errordetails, failure::v1 as failure,
        filter::v1 as filter, history::v1 as history, namespace::v1 as namespace,
        operatorservice::v1 as operatorservice, protocol::v1 as protocol, query::v1 as query,
        sdk::v1 as sdk, taskqueue::v1 as taskqueue, update::v1 as update, version::v1 as version,
        worker::v1 as worker, workflow::v1 as workflow, workflowservice::v1 as workflowservice,
    };
}
