//! `steadfast policy what-if`: what other policies would have decided.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use steadfast_ledger::bundle::{Limits, Trust, Verdict, verify_with};
use steadfast_policy::Policies;
use steadfast_server::governance::{self, load};

use crate::evidence::client::Target;
use crate::evidence::lines::Lines;
use crate::evidence::verify::keys;

/// A server that looks for differences says something within this time.
const PATIENCE: Duration = Duration::from_secs(600);

/// Which policies, and about what.
#[derive(Args)]
pub struct WhatIf {
    /// A file of Cedar policies, or a directory with such files.
    path: PathBuf,
    #[command(flatten)]
    target: Target,
    /// Only sessions with this workflow id.
    #[arg(long, short, value_name = "ID", conflicts_with = "bundle")]
    workflow_id: Option<String>,
    /// Only sessions that this list filter finds.
    #[arg(long, value_name = "FILTER", conflicts_with = "bundle")]
    query: Option<String>,
    /// Only decisions at or after this time (RFC 3339).
    #[arg(long, value_name = "TIME", conflicts_with = "bundle")]
    from: Option<String>,
    /// Only decisions before this time.
    #[arg(long, value_name = "TIME", conflicts_with = "bundle")]
    to: Option<String>,
    /// A bundle, without a server. It is verified as well.
    #[arg(long, value_name = "FILE", requires = "key")]
    bundle: Option<PathBuf>,
    /// The verifier key of the bundle's log, or a file with one key a line.
    #[arg(long, value_name = "KEY|FILE", requires = "bundle")]
    key: Vec<String>,
    /// Print each difference, and the counts at last, as JSON on a line.
    #[arg(long)]
    json: bool,
}

impl WhatIf {
    pub(super) fn run(self) -> Result<ExitCode, String> {
        let differs = load(&self.path).and_then(|(_, policies)| match &self.bundle {
            Some(bundle) => self.of_bundle(bundle, policies),
            None => self.of_server(&policies),
        });
        Ok(match differs {
            Ok(differs) => ExitCode::from(u8::from(differs)),
            Err(message) => {
                eprintln!("steadfast: {message}");
                ExitCode::from(2)
            }
        })
    }

    fn of_server(&self, policies: &Policies) -> Result<bool, String> {
        let mut body = json!({ "files": policies.sources() });
        let options = [
            ("workflowId", &self.workflow_id),
            ("query", &self.query),
            ("from", &self.from),
            ("to", &self.to),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                body[name] = value.as_str().into();
            }
        }
        let body = self.target.post_for_lines("policies/what-if", &body)?;
        let mut lines = Lines::new(body, PATIENCE);
        let mut differing = None;
        while let Some(line) = lines.next(|| Ok(()))? {
            let line: Value = serde_json::from_slice(&line)
                .map_err(|error| format!("not the answer of a server: {error}"))?;
            differing = line["summary"]["differing"].as_u64().or(differing);
            self.show(&line);
        }
        let differing = differing.ok_or("the answer broke off")?;
        Ok(differing > 0)
    }

    fn of_bundle(&self, bundle: &Path, policies: Policies) -> Result<bool, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", bundle.display());
        let log = keys(&self.key)?;
        let trust = Trust {
            log: &log,
            witnesses: &[],
            quorum: 0,
            earlier: None,
        };
        let file = BufReader::new(File::open(bundle).map_err(|error| failed(&error))?);
        let judge = governance::WhatIf::new(policies, |line| self.show(&line));
        let report = verify_with(file, &trust, &Limits::default(), Some(&judge));
        if report.verdict != Verdict::Verified {
            return Err(failed(&format!("it is not to be believed: {report}")));
        }
        let (differs, summary) = judge.finish().map_err(|error| failed(&error))?;
        self.show(&summary);
        Ok(differs)
    }

    fn show(&self, line: &Value) {
        if self.json {
            println!("{line}");
            return;
        }
        if line["summary"].is_object() {
            return summary(&line["summary"]);
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        println!(
            "{} {} ({}): {} -> {}",
            text(&line["workflowId"]),
            text(&line["tool"]),
            text(&line["activityId"]),
            answer(&line["then"]),
            answer(&line["now"])
        );
    }
}

/// An answer with the policies that gave it.
fn answer(of: &Value) -> String {
    let answer = of["answer"].as_str().unwrap_or_default();
    let policies = of["policies"].as_array().into_iter().flatten();
    let policies: Vec<&str> = policies.filter_map(Value::as_str).collect();
    match (answer, policies.is_empty()) {
        ("none", _) => "not decided".to_owned(),
        (answer, true) => answer.to_owned(),
        (answer, false) => format!("{answer} by {}", policies.join(", ")),
    }
}

fn summary(of: &Value) {
    println!(
        "{} of {} calls in {} sessions would have gone differently",
        of["differing"], of["calls"], of["sessions"]
    );
    for tool in of["tools"].as_array().into_iter().flatten() {
        if tool["differing"] == 0 {
            continue;
        }
        let changes = tool["changes"].as_object().into_iter().flatten();
        let changes: Vec<String> = changes
            .map(|(change, count)| format!("{count} {change}"))
            .collect();
        let name = tool["tool"].as_str().unwrap_or_default();
        println!(
            "  {name}: {} of {} calls",
            changes.join(", "),
            tool["calls"]
        );
    }
    if of["skipped"].as_u64().unwrap_or(0) > 0 {
        println!(
            "{} sessions were left out: their arguments are gone",
            of["skipped"]
        );
    }
}
