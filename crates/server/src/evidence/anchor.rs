//! The anchor: a small file outside the store that says how far each log was signed.
//!
//! A store can be restored from an old copy, and would then sign another history under the same
//! name. So no checkpoint is signed before the anchor says so durably, and none that does not extend
//! what the anchor says. It must not be restored with the store.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use steadfast_ledger::Hash;
use steadfast_runtime::evidence::TreeHead;

use super::failpoint::reach;

/// Heads of trees by the origins of their logs.
pub type Heads = BTreeMap<String, TreeHead>;

/// Why the anchor was not moved.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The file cannot be read or written.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not an anchor.
    #[error("{path}: line {line} is not `origin size root`", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
    },
    /// Another process signs the same log.
    #[error("the log {origin} was signed by another process: this one signs no more of it")]
    Moved {
        /// The log.
        origin: String,
    },
}

/// The anchor of one server.
pub enum Anchor {
    /// In memory, for a store in memory.
    Memory(Heads),
    /// In a file.
    File(PathBuf),
}

impl Anchor {
    /// What was signed last, for each log.
    pub fn read(&self) -> Result<Heads, AnchorError> {
        match self {
            Self::Memory(heads) => Ok(heads.clone()),
            Self::File(path) => read(path),
        }
    }

    /// Moves logs from the heads that the caller believes in to new ones, durably, all or none.
    pub fn advance(&mut self, moves: &[Move]) -> Result<(), AnchorError> {
        match self {
            Self::Memory(heads) => apply(heads, moves),
            Self::File(path) => {
                // What is renamed below must replace the file, not a link to it.
                let path = &fs::canonicalize(&*path).unwrap_or_else(|_| path.clone());
                let _lock = lock(path)?;
                let mut heads = read(path)?;
                apply(&mut heads, moves)?;
                write(path, &heads)
            }
        }
    }
}

/// One log's way from one head to the next.
#[derive(Clone, Debug)]
pub struct Move {
    /// The log.
    pub origin: String,
    /// What the caller believes is signed.
    pub from: Option<TreeHead>,
    /// What will be signed next.
    pub to: TreeHead,
}

fn apply(heads: &mut Heads, moves: &[Move]) -> Result<(), AnchorError> {
    // It may be there already: written by a try whose success was not certain.
    let is_stale = |step: &&Move| {
        let head = heads.get(&step.origin);
        head != step.from.as_ref() && head != Some(&step.to)
    };
    if let Some(stale) = moves.iter().find(is_stale) {
        return Err(AnchorError::Moved {
            origin: stale.origin.clone(),
        });
    }
    heads.extend(moves.iter().map(|step| (step.origin.clone(), step.to)));
    Ok(())
}

fn read(path: &Path) -> Result<Heads, AnchorError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Heads::new()),
        Err(error) => return Err(failed(path, error)),
    };
    let lines = text.lines().zip(1..);
    lines
        .map(|(line, number)| {
            parse(line).ok_or_else(|| AnchorError::Format {
                path: path.to_owned(),
                line: number,
            })
        })
        .collect()
}

fn parse(line: &str) -> Option<(String, TreeHead)> {
    let mut words = line.split(' ');
    let origin = words.next()?.to_owned();
    let size = words.next()?.parse().ok()?;
    let root: Hash = words.next()?.parse().ok()?;
    words
        .next()
        .is_none()
        .then_some((origin, TreeHead { size, root }))
}

/// The order makes it durable: the new file's content, then its name.
fn write(path: &Path, heads: &Heads) -> Result<(), AnchorError> {
    let temporary = with_suffix(path, ".new");
    let write = || {
        let mut file = File::create(&temporary)?;
        for (origin, head) in heads {
            writeln!(file, "{origin} {} {}", head.size, head.root)?;
        }
        reach("anchor: written")?;
        file.sync_all()?;
        reach("anchor: synced")?;
        fs::rename(&temporary, path)?;
        reach("anchor: renamed")?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory)?.sync_all()?;
        reach("anchor: moved")
    };
    write().map_err(|error| failed(path, error))
}

/// Held while the file is read and written: two processes take turns.
fn lock(path: &Path) -> Result<File, AnchorError> {
    let lock = || {
        let file = File::create(with_suffix(path, ".lock"))?;
        file.lock()?;
        Ok(file)
    };
    lock().map_err(|error| failed(path, error))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn failed(path: &Path, error: io::Error) -> AnchorError {
    AnchorError::Io {
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(size: u64) -> TreeHead {
        TreeHead {
            size,
            root: Hash::of(&size.to_be_bytes()),
        }
    }

    fn step(from: Option<u64>, to: u64) -> Move {
        Move {
            origin: "example.com/log".into(),
            from: from.map(head),
            to: head(to),
        }
    }

    #[test]
    fn is_there_again_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("anchor");
        let mut anchor = Anchor::File(path.clone());
        assert!(
            anchor
                .read()
                .expect("no file is an empty anchor")
                .is_empty()
        );
        anchor.advance(&[step(None, 3)]).expect("moves");
        anchor.advance(&[step(Some(3), 5)]).expect("moves");
        let again = Anchor::File(path).read().expect("reads");
        assert_eq!(again, Heads::from([("example.com/log".into(), head(5))]));
    }

    #[test]
    fn a_move_that_was_made_can_be_made_again() {
        let mut anchor = Anchor::Memory(Heads::new());
        anchor.advance(&[step(None, 3)]).expect("moves");
        anchor.advance(&[step(None, 3)]).expect("is there");
        assert!(anchor.advance(&[step(None, 4)]).is_err());
    }

    #[test]
    fn a_second_signer_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("anchor");
        let (mut one, mut other) = (Anchor::File(path.clone()), Anchor::File(path));
        one.advance(&[step(None, 3)]).expect("moves");
        let refused = other.advance(&[step(None, 4)]);
        assert!(matches!(refused, Err(AnchorError::Moved { .. })));
        assert_eq!(one.read().expect("reads")["example.com/log"], head(3));
    }

    #[test]
    fn a_damaged_file_is_refused_with_its_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("anchor");
        fs::write(&path, "example.com/log three root\n").expect("writes");
        let error = Anchor::File(path).read().expect_err("is refused");
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}
