//! `steadfast evidence export`.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use clap::Args;
use steadfast_ledger::checkpoint::Checkpoint;
use steadfast_ledger::note::Note;

use super::client::Target;

/// How often progress is asked for.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

const BAR: usize = 30;

/// Write what happened in a session, by a principal, or within a time, into one file that others can
/// verify.
#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    about: About,
    /// A checkpoint of the log that was kept from before, such as that of an earlier bundle: the new one
    /// proves that the log extends it.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The file to write; `-` is the standard output.
    #[arg(long, short, default_value = "evidence.zip", value_name = "FILE")]
    output: PathBuf,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct About {
    /// All runs of this workflow.
    #[arg(long, short, value_name = "ID", conflicts_with_all = ["principal", "from", "to"])]
    workflow_id: Option<String>,
    /// All runs that this principal took part in.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["from", "to"])]
    principal: Option<String>,
    /// From this time on (RFC 3339), or from this index of the log on.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until before this time, or this index.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

impl Export {
    /// Runs the export.
    pub fn run(self) -> Result<ExitCode, String> {
        let given = [
            ("workflow_id", &self.about.workflow_id),
            ("principal", &self.about.principal),
            ("from", &self.about.from),
            ("to", &self.about.to),
        ];
        let query = given.iter().filter_map(|(name, value)| {
            let value = value.as_deref()?;
            Some((*name, value))
        });
        let since = self.checkpoint.as_deref().map(size).transpose()?;
        let since = since.map(|size| size.to_string());
        let query: Vec<_> = query
            .chain(since.as_deref().map(|size| ("since", size)))
            .collect();
        let (export, body) = self.target.get("evidence/bundle", &query)?;
        let (done, is_done) = channel();
        let bar = io::stderr()
            .is_terminal()
            .then(|| self.target.clone())
            .map(|target| std::thread::spawn(move || show_progress(&target, &export, &is_done)));
        let written = self.save(body);
        end_progress(done, bar);
        let bytes = written?;
        if self.output.as_os_str() != "-" {
            eprintln!("{}: {bytes} bytes", self.output.display());
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Writes a file that is there as a whole or not at all.
    fn save(&self, mut body: impl Read) -> Result<u64, String> {
        let path = &self.output;
        if path.as_os_str() == "-" {
            let mut out = io::stdout().lock();
            let copied = io::copy(&mut body, &mut out).and_then(|n| out.flush().map(|()| n));
            return copied.map_err(|error| format!("the export broke off: {error}"));
        }
        let mut partial = path.clone().into_os_string();
        partial.push(".partial");
        let partial = Path::new(&partial);
        let failed = |error: io::Error| {
            // Nobody should take it for a bundle.
            let _ = std::fs::remove_file(partial);
            format!("{}: {error}", path.display())
        };
        let mut file = File::create(partial).map_err(failed)?;
        let bytes = io::copy(&mut body, &mut file).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(partial, path).map_err(failed)?;
        Ok(bytes)
    }
}

/// The number of entries of a checkpoint. Whether it is to be believed is for whoever verifies.
fn size(path: &Path) -> Result<u64, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
    let note = Note::parse(bytes).map_err(|error| failed(&error))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| failed(&error))?;
    Ok(checkpoint.size)
}

fn end_progress(done: Sender<()>, bar: Option<std::thread::JoinHandle<()>>) {
    drop(done);
    if let Some(bar) = bar {
        let _ = bar.join();
    }
}

/// Draws a bar until the sender is gone.
fn show_progress(target: &Target, export: &str, is_done: &Receiver<()>) {
    let mut is_shown = false;
    while let Err(RecvTimeoutError::Timeout) = is_done.recv_timeout(PROGRESS_INTERVAL) {
        let Ok((_, body)) = target.get(&format!("evidence/exports/{export}"), &[]) else {
            continue;
        };
        let Ok(value) = serde_json::from_reader::<_, serde_json::Value>(body) else {
            continue;
        };
        let (done, total) = (value["done"].as_u64(), value["total"].as_u64());
        if let (Some(done), Some(total @ 1..)) = (done, total) {
            let full = BAR * done.min(total) as usize / total as usize;
            let bar = format!("{}{}", "#".repeat(full), "-".repeat(BAR - full));
            eprint!("\r[{bar}] {done} of {total} entries and events");
            is_shown = true;
        }
    }
    if is_shown {
        eprint!("\r\x1b[K");
    }
}
