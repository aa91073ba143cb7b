//! Generates load on a Temporal-compatible server; see `loadgen --help`.

use anyhow::Result;
use clap::Parser;
use steadfast_bench::{closed_loop, idle, options::Options, probe};

// One thread: the server needs the other processors.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(workflow_id) = &options.first_request {
        let first = probe::run(&options, workflow_id).await?;
        if options.json {
            println!("{}", serde_json::to_string(&first)?);
        } else {
            println!("described after {:.1} ms", first.described_ms);
            println!("signalled after {:.1} ms", first.signalled_ms);
        }
        return Ok(());
    }
    let report = match options.idle {
        Some(total) => idle::run(&options, total).await?,
        None => closed_loop::run(&options).await?,
    };
    report.print(options.json)?;
    Ok(())
}
