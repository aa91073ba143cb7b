//! `steadfast status`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::evidence::client::Server;

/// Show how a server is. Ends with 1 if something needs a person: a witness or a webhook that fails, or a
/// backlog.
#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    server: Server,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Journal rows that are not projected: more than a second's worth at any load that a server takes.
const BACKLOG: u64 = 50_000;

impl Status {
    /// Shows it.
    pub fn run(self) -> Result<ExitCode, String> {
        let body = self.server.get("/api/v1/status")?;
        let status: Value = serde_json::from_reader(body)
            .map_err(|error| format!("not the answer of a server: {error}"))?;
        match self.json {
            true => println!("{status}"),
            false => print(&status),
        }
        let number = |name: &str| status[name].as_u64().unwrap_or(0);
        let mut witnesses = status["witnesses"].as_array().into_iter().flatten();
        let mut webhooks = status["webhooks"].as_array().into_iter().flatten();
        let is_bad = number("journalLag") > BACKLOG
            || witnesses.any(|of| !of["error"].is_null())
            || webhooks.any(|of| !of["error"].is_null());
        Ok(ExitCode::from(u8::from(is_bad)))
    }
}

fn print(status: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    println!("Steadfast {}", text(&status["version"]));
    println!(
        "{} transitions in {} commits since the start; {} workflows in memory",
        status["transitions"], status["commits"], status["liveWorkflows"]
    );
    println!("{} journal rows to be projected", status["journalLag"]);
    for log in status["logs"].as_array().into_iter().flatten() {
        let cosigned = match log["cosignedSize"].as_u64() {
            Some(size) => format!(", {size} of them cosigned"),
            None => String::new(),
        };
        println!(
            "log {}: {} entries signed{cosigned}",
            text(&log["origin"]),
            log["size"]
        );
    }
    for witness in status["witnesses"].as_array().into_iter().flatten() {
        match witness["error"].as_str() {
            Some(error) => println!("witness {}: FAILS: {error}", text(&witness["name"])),
            None => println!("witness {}: works", text(&witness["name"])),
        }
    }
    for webhook in status["webhooks"].as_array().into_iter().flatten() {
        let (name, host) = (text(&webhook["name"]), text(&webhook["host"]));
        match webhook["error"].as_str() {
            Some(error) => println!(
                "webhook {name}: FAILS: {error}; waiting since {}",
                text(&webhook["waitingSince"])
            ),
            None => println!("webhook {name}: {} events to {host}", webhook["delivered"]),
        }
    }
}
