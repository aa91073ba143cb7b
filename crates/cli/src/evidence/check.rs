//! `steadfast evidence check`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::{Target, json_lines};

/// Replay every run of a namespace and compare what comes out with the stored state, the log and its
/// tree. Ends with 1 if anything differs.
#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    target: Target,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Runs the check.
    pub fn run(self) -> Result<ExitCode, String> {
        let mut result = None;
        for value in json_lines(self.target.post("evidence/check")?) {
            let value = value?;
            if let Some(error) = value.get("error").and_then(Value::as_str) {
                return Err(error.to_owned());
            }
            if value.get("differences").is_some() {
                result = Some(value);
            } else if !self.json {
                eprint!("\r{}", counts(&value));
            }
        }
        let result = result.ok_or("the answer broke off")?;
        let differences = result["differences"].as_array().map_or(0, Vec::len);
        if self.json {
            println!("{result}");
        } else {
            eprint!("\r\x1b[K");
            println!("checked {}", counts(&result));
            for difference in result["differences"].as_array().into_iter().flatten() {
                println!("DIFFERS: {}", difference.as_str().unwrap_or_default());
            }
            if differences == 0 {
                println!("state, entries and tree agree");
            }
        }
        Ok(ExitCode::from(u8::from(differences > 0)))
    }
}

fn counts(value: &Value) -> String {
    let number = |name: &str| value[name].as_u64().unwrap_or(0);
    let erased = match number("erased") {
        0 => String::new(),
        erased => format!(", {erased} erased runs"),
    };
    format!(
        "{} entries, {} runs, {} records{erased}",
        number("entries"),
        number("runs"),
        number("records")
    )
}
