//! Creates many open workflows that wait, as fast as the server allows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::task::JoinSet;

use crate::{
    closed_loop::{Window, prepare, resident_mib, run_one},
    options::Options,
    report::Report,
    usage,
    worker::Load,
};

/// Creates `total` open workflows and reports how long that took.
pub async fn run(options: &Options, total: usize) -> Result<Report> {
    let load = prepare(options).await?;
    let own = [std::process::id()];
    let server_before = usage::cpu_time(&options.pid)?;
    let own_before = usage::cpu_time(&own)?;
    let start = Instant::now();
    load.recorder.open();
    let wanted = Arc::new(AtomicUsize::new(total));
    let mut slots = JoinSet::new();
    for slot in 0..load.slots.count() {
        slots.spawn(create(load.clone(), slot, wanted.clone()));
    }
    while let Some(created) = slots.join_next().await {
        created?;
    }
    let server_cpu = usage::cpu_time(&options.pid)?.saturating_sub(server_before);
    let window = Window {
        elapsed: start.elapsed(),
        latencies: load.recorder.close(),
        server_cpu: (!options.pid.is_empty()).then_some(server_cpu),
        own_cpu: usage::cpu_time(&own)?.saturating_sub(own_before),
    };
    let created = window.latencies.len();
    let report = Report {
        mode: "idle",
        payload_bytes: options.payload,
        server_rss_mib: resident_mib(&options.pid)?,
        ..window.report(load.slots.count(), &load.recorder)
    };
    if created < total {
        bail!(
            "{created} of {total} idle workflows were created: {:?}",
            report.errors
        );
    }
    Ok(report)
}

/// Gives up after a few failures in a row: a server that refuses all would be asked for ever.
async fn create(load: Arc<Load>, slot: usize, wanted: Arc<AtomicUsize>) {
    let take_one = |left: usize| left.checked_sub(1);
    let mut number = 0;
    while wanted
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one)
        .is_ok()
    {
        let mut attempts = 0;
        while !run_one(&load, slot, number).await {
            attempts += 1;
            if attempts == 5 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            number += 1;
        }
        number += 1;
    }
}
