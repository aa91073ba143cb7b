//! Children and parents, and what a closing run tells others.

#[path = "../driver/mod.rs"]
mod driver;

mod closing;
mod lifecycle;
mod rules;
mod start;

use steadfast_engine::proto::command::{
    ContinueAsNewWorkflowExecutionCommandAttributes, command::Attributes as C,
};
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::record::Cause;
use steadfast_engine::start::StartRun;
use steadfast_engine::{Cx, Limits, Run, Time};

use driver::{Counter, Driver, OneNamespace};

/// Drives a run that begins like this.
fn drive(start: StartRun, now: Time) -> Driver {
    let mut ids = Counter::default();
    let limits = Limits::default();
    let mut cx = Cx::new(
        now,
        &mut ids,
        &limits,
        &OneNamespace,
        "default",
        Cause::default(),
    );
    let run = Run::start(&mut cx, start);
    Driver::adopt(run, now, ids)
}

fn queue(name: &str) -> Option<TaskQueue> {
    Some(TaskQueue {
        name: name.into(),
        ..TaskQueue::default()
    })
}

fn continue_as_new() -> C {
    C::ContinueAsNewWorkflowExecutionCommandAttributes(
        ContinueAsNewWorkflowExecutionCommandAttributes::default(),
    )
}
