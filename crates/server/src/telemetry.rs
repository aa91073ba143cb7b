//! Logging. Payloads and secrets are never logged.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

/// Begins to log. To be called once per process; later calls change nothing.
pub fn init(config: &LogConfig) -> Result<(), String> {
    let level = match config.level.as_str() {
        "never" | "off" => "off",
        level @ ("error" | "warn" | "info" | "debug" | "trace") => level,
        other => return Err(format!("unknown log level {other:?}")),
    };
    let filter = EnvFilter::new(format!("{level},h2=warn,hyper=warn,tonic=warn,tower=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // An error says that logging was begun before, by a test for example.
    let _ = match config.format.as_str() {
        "json" => builder.json().try_init(),
        "text" | "pretty" => builder.with_target(false).try_init(),
        other => return Err(format!("unknown log format {other:?}")),
    };
    Ok(())
}
