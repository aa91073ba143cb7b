//! How soon a server that is starting serves its first requests.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    client::{CALL_TIMEOUT, Client, Ignored, Method},
    closed_loop::unique_tag,
    options::Options,
    requests::Requests,
};

/// Milliseconds from the start of this program.
#[derive(Debug, Serialize)]
pub struct FirstRequests {
    /// Until an open workflow was described.
    pub described_ms: f64,
    /// Until it was then signalled.
    pub signalled_ms: f64,
}

/// Asks until the workflow is described, then signals it.
pub async fn run(options: &Options, workflow_id: &str) -> Result<FirstRequests> {
    let start = Instant::now();
    let requests = Requests::new(options, &unique_tag()?);
    let patience = Duration::try_from_secs_f64(options.ready_timeout)?;
    let client = loop {
        match describe(options, &requests, workflow_id).await {
            Ok(client) => break client,
            Err(error) if start.elapsed() > patience => {
                return Err(error).context("the workflow could not be described in time");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    };
    let described_ms = start.elapsed().as_secs_f64() * 1e3;
    let question = requests.signal(workflow_id);
    let _: Ignored = client
        .call(Method::SIGNAL_WORKFLOW, question, CALL_TIMEOUT)
        .await?;
    Ok(FirstRequests {
        described_ms,
        signalled_ms: start.elapsed().as_secs_f64() * 1e3,
    })
}

async fn describe(options: &Options, requests: &Requests, workflow_id: &str) -> Result<Client> {
    let client = Client::connect(&options.address).await?;
    let question = requests.describe(workflow_id);
    let _: Ignored = client
        .call(Method::DESCRIBE_WORKFLOW, question, CALL_TIMEOUT)
        .await?;
    Ok(client)
}
