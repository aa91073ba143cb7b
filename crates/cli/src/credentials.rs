//! `steadfast credentials`: the credentials of tool calls, and the keys that sign them. A rotation works on
//! the keys' file: who may write it may have it rotated, and no secret goes over a network.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use steadfast_server::Config;
use steadfast_server::credentials::{key_path, keys};

use crate::evidence::client::Target;

/// How often it is looked whether the server is done.
const LOOK: Duration = Duration::from_millis(100);

/// Commands about the credentials of tool calls.
#[derive(Subcommand)]
pub enum Command {
    /// Make a new key. A running server shows it at once, and signs with it some time later.
    RotateKey(RotateKey),
    /// Take a credential back by its id: the log names it.
    Revoke(Revoke),
}

/// Take a credential back.
#[derive(Args)]
pub struct Revoke {
    #[command(flatten)]
    target: Target,
    /// The id (`jti`).
    id: String,
}

impl Revoke {
    fn run(self) -> Result<ExitCode, String> {
        let is_id = |of: char| of.is_ascii_alphanumeric() || of == '-';
        if self.id.is_empty() || !self.id.chars().all(is_id) {
            return Err(
                "an id has letters, digits and hyphens: the token itself is not needed".into(),
            );
        }
        self.target
            .post(&format!("credentials/{}/revoke", self.id))?;
        println!("revoked: {}", self.id);
        Ok(ExitCode::SUCCESS)
    }
}

/// Make a new key.
#[derive(Args)]
pub struct RotateKey {
    /// The configuration file of `steadfast serve`, which says where the keys are.
    #[arg(long, value_name = "FILE", conflicts_with = "db")]
    config: Option<PathBuf>,
    /// The store of `steadfast dev` or `server start-dev`: the keys are beside it.
    #[arg(long, value_name = "FILE", default_value = "steadfast.db")]
    db: PathBuf,
    /// How long to wait for a running server, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
}

impl Command {
    /// Does what is asked for.
    pub fn run(self) -> Result<ExitCode, String> {
        match self {
            Self::RotateKey(of) => of.run(),
            Self::Revoke(of) => of.run(),
        }
    }
}

impl RotateKey {
    /// Asks for the rotation, and waits until a server has taken the key.
    fn run(self) -> Result<ExitCode, String> {
        let mut config = match &self.config {
            Some(path) => crate::serve::read(path)?,
            None => Config::default(),
        };
        if self.config.is_none() {
            config.store.path = self.db;
        }
        let of = config.credentials.clone().unwrap_or_default();
        let Some(path) = key_path(&config, &of) else {
            return Err("the keys of a store in memory are in memory, too".into());
        };
        let (id, is_new) = keys::ask_for_rotation(&path)?;
        if !is_new {
            println!("a rotation was asked for before, and no server has taken the key yet");
        }
        let begun = Instant::now();
        while keys::is_asked_for(&path) {
            if begun.elapsed() >= Duration::from_secs(self.wait) {
                println!(
                    "{}.next has the new key {id}: the server takes it when it runs",
                    path.display()
                );
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(LOOK);
        }
        let signs_from = keys::signs_from(&path, &id)?;
        println!("key {id} is shown to those who verify, and signs from {signs_from} on");
        Ok(ExitCode::SUCCESS)
    }
}
