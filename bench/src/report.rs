//! What a measurement prints: text for people, JSON for scripts.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::stats::Latency;

/// A finished measurement.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `loop`, `idle` or `restate`.
    pub mode: &'static str,
    /// Workflows kept in flight.
    pub in_flight: usize,
    /// Activities of each.
    pub activities: u32,
    /// Length of each payload.
    pub payload_bytes: usize,
    /// Length of the measured window.
    pub seconds: f64,
    /// Workflows completed in it.
    pub workflows: usize,
    /// The same per second.
    pub workflows_per_second: f64,
    /// From the call that starts a workflow to the answer that acknowledges its end.
    pub latency_ms: Latency,
    /// Processor time of the server for each workflow, if its process is known.
    pub server_cpu_ms: Option<f64>,
    /// Processor time of this program for each workflow.
    pub loadgen_cpu_ms: f64,
    /// Resident memory of the server at the end, if its process is known.
    pub server_rss_mib: Option<f64>,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
}

/// Processor time for each of `workflows`, in milliseconds.
pub fn per_workflow_ms(used: Duration, workflows: usize) -> f64 {
    used.as_secs_f64() * 1e3 / workflows.max(1) as f64
}

impl Report {
    /// Prints it.
    pub fn print(&self, json: bool) -> serde_json::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        println!(
            "{}: {} in flight, {} activities, payloads of {} bytes, {:.1} s",
            self.mode, self.in_flight, self.activities, self.payload_bytes, self.seconds
        );
        println!(
            "workflows   {} ({:.1}/s)",
            self.workflows, self.workflows_per_second
        );
        let Latency { p50, p90, p99, max } = self.latency_ms;
        println!("latency     p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");
        if let Some(cpu) = self.server_cpu_ms {
            println!("server CPU  {cpu:.3} ms per workflow");
        }
        println!("loadgen CPU {:.3} ms per workflow", self.loadgen_cpu_ms);
        if let Some(rss) = self.server_rss_mib {
            println!("server RSS  {rss:.1} MiB");
        }
        for (error, count) in &self.errors {
            println!("error       {count} × {error}");
        }
        Ok(())
    }
}
