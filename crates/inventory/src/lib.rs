//! What sessions would lose or repeat in a crash, judged by their histories.
//!
//! [`Reader`] is fed the events of one run, one after the other, and keeps only what its open calls need.
//! [`Inventory`] puts what was found in a sample of runs together, and ranks workflow types and tool calls. It
//! reads nothing itself and has no clock.

mod html;
mod inventory;
mod reader;
mod risk;
mod text;

pub use inventory::{Builder, Example, FORMAT, Found, Inventory, Of, Proof, ToolOf, TypeOf};
pub use reader::{OpenCall, Reader, Run, Settings, Sighting, local_activity};
pub use risk::{Effect, Risk};
