//! `steadfast inventory`: what the sessions of a server would lose or repeat.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::evidence::client::Target;

/// Look at the sessions of a namespace, read the histories of the newest ones of each workflow type, and rank
/// workflow types and tool calls by what a crash would lose or repeat.
#[derive(Args)]
pub struct Inventory {
    #[command(flatten)]
    target: Target,
    /// Sessions of each workflow type whose histories are read.
    #[arg(long, value_name = "N", default_value_t = 20)]
    sample: usize,
    /// A tool that passes the service an idempotency key: it may be made again. May be repeated.
    #[arg(long, value_name = "NAME")]
    idempotent: Vec<String>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    /// Write it as a web page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Inventory {
    /// Takes it.
    pub fn run(self) -> Result<ExitCode, String> {
        let sample = self.sample.to_string();
        let idempotent = self.idempotent.join(",");
        let parameters = [("sample", &*sample), ("idempotent", &*idempotent)];
        let (_, body) = self.target.get("inventory", &parameters)?;
        let taken: steadfast_inventory::Inventory = serde_json::from_reader(body)
            .map_err(|error| format!("not the answer of a server: {error}"))?;
        if let Some(path) = &self.html {
            let written = std::fs::write(path, taken.to_html());
            written.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        match self.json {
            true => {
                let json = serde_json::to_string_pretty(&taken);
                println!("{}", json.map_err(|error| error.to_string())?);
            }
            false => print!("{taken}"),
        }
        Ok(ExitCode::SUCCESS)
    }
}
