//! Measures Temporal-compatible servers from the outside, and what they are compared with.
//!
//! The load generator (`loadgen`) speaks the raw gRPC API, so that no SDK's own cost is measured.
//! `floor` is the cheapest server that could answer it and still be durable. `restate-load` drives
//! Restate in the same closed loop. `compare` runs all of them in turn.

pub mod client;
pub mod closed_loop;
pub mod floor;
pub mod idle;
pub mod options;
pub mod probe;
pub mod report;
pub mod requests;
pub mod slots;
pub mod stats;
pub mod usage;
pub mod worker;
pub mod workflow;
