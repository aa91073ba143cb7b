//! `steadfast evidence ocsf`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::Target;
use super::lines::Lines;

/// How long a line may take. A server that is followed sends an empty one every 10 seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// No event is longer.
const MAX_EVENT: u64 = 1 << 20;

/// Write the entries of a namespace's log as OCSF events, a line of JSON each. A file that is there
/// is continued after its last event.
#[derive(Args)]
pub struct Ocsf {
    #[command(flatten)]
    target: Target,
    /// The index of the first entry.
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// Go on with new entries as they are signed.
    #[arg(long)]
    follow: bool,
    /// The file to write; `-` is the standard output.
    #[arg(long, short, default_value = "-", value_name = "FILE")]
    output: PathBuf,
}

/// Where a file is to be continued.
#[derive(Debug, PartialEq, Eq)]
struct Continued {
    next: u64,
    log: String,
}

impl Ocsf {
    /// Runs the export.
    pub fn run(self) -> Result<ExitCode, String> {
        let is_file = self.output.as_os_str() != "-";
        let (file, continued) = match is_file {
            true => open(&self.output).map(|(file, at)| (Some(file), at))?,
            false => (None, None),
        };
        if self.from.is_some() && continued.is_some() {
            return Err(format!(
                "{}: there is something in the file, and it is continued after that: leave out --from",
                self.output.display()
            ));
        }
        let from = continued
            .as_ref()
            .map_or(self.from.unwrap_or(0), |at| at.next);
        let (from, follow) = (from.to_string(), self.follow.to_string());
        let query = [("from", from.as_str()), ("follow", follow.as_str())];
        let (_, body) = self.target.get("evidence/ocsf", &query)?;
        let lines = Lines::new(body, PATIENCE);
        let log = continued.map(|at| at.log);
        match file {
            None => copy(lines, io::stdout().lock(), log),
            Some(file) => {
                let synced = file.try_clone().and_then(|copy| {
                    // Also what was written before an error stays.
                    let copied = self::copy(lines, file, log);
                    copy.sync_all().map(|()| copied)
                });
                synced.map_err(|error| format!("{}: {error}", self.output.display()))?
            }
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Copies events. The first one must be of the log that the file's are of.
fn copy(mut lines: Lines, out: impl Write, log: Option<String>) -> Result<(), String> {
    let failed = |error: io::Error| format!("writing failed: {error}");
    let mut out = BufWriter::new(out);
    let mut log = log;
    loop {
        let Some(line) = lines.next(|| out.flush().map_err(failed))? else {
            return out.flush().map_err(failed);
        };
        if let Some(expected) = log.take() {
            let (_, origin) = place(&line).ok_or("not the answer of a server")?;
            if origin != expected {
                return Err(format!(
                    "the log is {origin} now, and the file is of {expected}: begin another file"
                ));
            }
        }
        out.write_all(&line).map_err(failed)?;
    }
}

/// The index and the log of an event.
fn place(line: &[u8]) -> Option<(u64, String)> {
    let event: Value = serde_json::from_slice(line).ok()?;
    let metadata = &event["metadata"];
    let log = metadata["log_name"].as_str()?;
    Some((metadata["sequence"].as_u64()?, log.to_owned()))
}

/// Opens a file to be continued. A line that was not written to its end is cut off.
fn open(path: &Path) -> Result<(File, Option<Continued>), String> {
    let open = || {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let tail = tail(&mut file)?;
        Ok((file, tail))
    };
    let (file, tail) = open().map_err(|error: io::Error| format!("{}: {error}", path.display()))?;
    let Some(line) = tail else {
        return Ok((file, None));
    };
    let (index, log) =
        place(&line).ok_or_else(|| format!("{}: does not end with an event", path.display()))?;
    Ok((
        file,
        Some(Continued {
            next: index.saturating_add(1),
            log,
        }),
    ))
}

/// The last line of a file, which is written from its end on; none of an empty file.
fn tail(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let length = file.seek(SeekFrom::End(0))?;
    let begin = length.saturating_sub(2 * MAX_EVENT);
    file.seek(SeekFrom::Start(begin))?;
    let mut end = Vec::new();
    Read::by_ref(file)
        .take(2 * MAX_EVENT)
        .read_to_end(&mut end)?;
    let whole = end
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    if whole == 0 && begin > 0 {
        // Not of this command: nothing of it is cut off.
        return Ok(Some(end));
    }
    end.truncate(whole);
    let line = end.iter().rev().skip(1).position(|byte| *byte == b'\n');
    let last = line.map_or(0, |from_end| whole - 1 - from_end);
    let last = end.split_off(last);
    if last.is_empty() || place(&last).is_some() {
        file.set_len(begin + whole as u64)?;
    }
    file.seek(SeekFrom::End(0))?;
    Ok((!last.is_empty()).then_some(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"metadata":{"log_name":"a/log","sequence":41}}"#;

    fn opened(name: &str, content: &str) -> (Result<Option<Continued>, String>, String) {
        let name = format!("steadfast-ocsf-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).expect("writes");
        let opened = open(&path).map(|(mut file, at)| {
            file.write_all(b"next\n").expect("writes");
            at
        });
        let after = std::fs::read_to_string(&path).expect("reads");
        std::fs::remove_file(&path).expect("removes");
        (opened, after)
    }

    #[test]
    fn a_file_is_continued_after_its_last_event() {
        let at = || {
            Ok(Some(Continued {
                next: 42,
                log: "a/log".into(),
            }))
        };
        let whole = format!("{EVENT}\n");
        assert_eq!(opened("one", &whole), (at(), format!("{whole}next\n")));
        let two = format!("{{}}\n{EVENT}\n");
        assert_eq!(opened("two", &two), (at(), format!("{two}next\n")));
        let torn = format!("{EVENT}\n{{\"meta");
        assert_eq!(opened("torn", &torn), (at(), format!("{whole}next\n")));
        assert_eq!(opened("empty", ""), (Ok(None), "next\n".into()));
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let other = "Dear diary,\nnothing hap";
        let (opened, after) = opened("other", other);
        assert!(opened.is_err());
        assert_eq!(after, other);
    }

    #[test]
    fn an_event_of_another_log_is_refused() {
        let lines = || Lines::new(io::Cursor::new(format!("{EVENT}\n")), PATIENCE);
        let mut out = Vec::new();
        assert_eq!(copy(lines(), &mut out, Some("a/log".into())), Ok(()));
        assert_eq!(out, format!("{EVENT}\n").into_bytes());
        out.clear();
        assert!(copy(lines(), &mut out, Some("a/log~2".into())).is_err());
        assert!(out.is_empty());
    }
}
