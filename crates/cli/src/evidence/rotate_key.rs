//! `steadfast evidence rotate-key`: works on the key's file. Who may write it may have it rotated, and
//! no secret goes over a network. The server does the rest: at once if it runs, or when it starts.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use steadfast_server::Config;
use steadfast_server::evidence::{key_path, keys, seed};

/// How often it is looked whether the server is done.
const LOOK: Duration = Duration::from_millis(100);

/// Make a new key and have the server sign with it from now on. Each log names the new key, and both
/// keys sign the checkpoint that covers this; then the old key is destroyed.
#[derive(Args)]
pub struct RotateKey {
    /// The configuration file of `steadfast serve`, which says where the key is.
    #[arg(long, value_name = "FILE", conflicts_with = "db")]
    config: Option<PathBuf>,
    /// The store of `steadfast dev` or `server start-dev`: the key is beside it.
    #[arg(long, value_name = "FILE", default_value = "steadfast.db")]
    db: PathBuf,
    /// How long to wait for a running server, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
}

impl RotateKey {
    /// Asks for the rotation, and waits for it.
    pub fn run(self) -> Result<ExitCode, String> {
        let mut config = match &self.config {
            Some(path) => crate::serve::read(path)?,
            None => Config::default(),
        };
        if self.config.is_none() {
            config.store.path = self.db;
        }
        let path = key_path(&config);
        let (_, is_new) = keys::ask_for_rotation(&path, seed()?)?;
        if !is_new {
            println!("a rotation was asked for before, and is not finished");
        }
        let begun = Instant::now();
        while keys::is_rotating(&path) {
            if begun.elapsed() >= Duration::from_secs(self.wait) {
                println!(
                    "{}.next has the new key: the server rotates when it runs, and signs with the \
                     old key until then",
                    path.display()
                );
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(LOOK);
        }
        println!("rotated: the new key signs, and the old one is destroyed");
        Ok(ExitCode::SUCCESS)
    }
}
