//! Start-up: the lock, the two files, and whether they belong together.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};

use super::SqliteOptions;
use super::connection::{Durability, checkpoint, error, open_writer, to_position};
use super::journal::read_ends;
use super::schema::{self, FileState};
use crate::StoreError;

/// Both files, checked and up to date, and the lock that keeps other processes out.
pub(super) struct OpenFiles {
    pub(super) lock: Option<File>,
    pub(super) journal: Connection,
    pub(super) projections: Connection,
}

/// The journal's file, beside the projections'.
pub(super) fn journal_path(path: &Path) -> PathBuf {
    let name = match (path.file_stem(), path.extension()) {
        (Some(stem), Some(extension)) => {
            let mut name = OsString::from(stem);
            name.push(".journal.");
            name.push(extension);
            name
        }
        _ => {
            let mut name = path.file_name().map(OsString::from).unwrap_or_default();
            name.push(".journal");
            name
        }
    };
    path.with_file_name(name)
}

/// The file whose lock says that a process has the store open. It stays when the process ends: to
/// remove it would let two processes lock two files of one name.
fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(".lock");
    path.with_file_name(name)
}

/// The file itself where the path is a link: whatever name a store is opened by, its journal and its
/// lock are found beside the file. A store that is not there yet has the name it is given.
pub(super) fn resolve(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Opens what is there, or creates it.
pub(super) fn open(path: Option<&Path>, options: &SqliteOptions) -> Result<OpenFiles, StoreError> {
    let lock = path.map(take_lock).transpose()?;
    let journal_path = path.map(journal_path);
    let journal = open_writer(
        journal_path.as_deref(),
        Durability::Full,
        &options.journal_pragmas,
    )?;
    let projections = open_writer(path, Durability::Normal, &options.projection_pragmas)?;
    let files = OpenFiles {
        lock,
        journal,
        projections,
    };
    files.prepare()?;
    if let Some(path) = path {
        // Durable before the first append is: a journal with rows and no projections to go with
        // it would be refused.
        checkpoint(&files.projections)?;
        sync_directory(path)?;
    }
    Ok(files)
}

/// Makes sure that new files are found again after a power failure.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let synced = File::open(parent).and_then(|directory| directory.sync_all());
    synced.map_err(|failure| {
        StoreError::SyncFailed(format!("the directory {}: {failure}", parent.display()))
    })
}

fn take_lock(path: &Path) -> Result<File, StoreError> {
    let path = lock_path(path);
    let name = path.display().to_string();
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|failure| StoreError::Other(format!("cannot open {name}: {failure}")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(name)),
        Err(TryLockError::Error(failure)) => {
            Err(StoreError::Other(format!("cannot lock {name}: {failure}")))
        }
    }
}

impl OpenFiles {
    /// Checks both files before either is changed, so that a refusal leaves them as they were.
    fn prepare(&self) -> Result<(), StoreError> {
        let journal = schema::JOURNAL.inspect(&self.journal, "the journal")?;
        let projections = schema::PROJECTIONS.inspect(&self.projections, "the projections")?;
        match (journal, projections) {
            (FileState::Known, FileState::Known) => self.check_pair()?,
            // The journal is created first, so this is also what a crash in between leaves.
            (FileState::Known, FileState::New) => {
                if read_ends(&self.journal)?.head > 0 {
                    return Err(StoreError::Corrupt(
                        "the journal has entries but the projections' file is missing".into(),
                    ));
                }
            }
            (FileState::New, FileState::Known) => {
                return Err(StoreError::Corrupt("the journal's file is missing".into()));
            }
            (FileState::New, FileState::New) => {}
        }
        schema::JOURNAL.migrate(&self.journal)?;
        schema::PROJECTIONS.migrate(&self.projections)?;
        let store_id = match store_id(&self.journal)? {
            Some(store_id) => store_id,
            None => new_store_id(&self.journal)?,
        };
        self.projections
            .execute(
                "INSERT INTO meta (key, value) VALUES ('store_id', ?1) ON CONFLICT DO NOTHING",
                [store_id],
            )
            .map_err(error)?;
        Ok(())
    }

    fn check_pair(&self) -> Result<(), StoreError> {
        let journal_id = store_id(&self.journal)?;
        let projections_id = store_id(&self.projections)?;
        // A crash right after a file was created can leave it without an id.
        if projections_id.is_some() && journal_id != projections_id {
            return Err(StoreError::Corrupt(
                "the journal and the projections are of different stores".into(),
            ));
        }
        let ends = read_ends(&self.journal)?;
        let position = read_position(&self.projections)?;
        if position > ends.head {
            return Err(StoreError::Corrupt(format!(
                "the projections are at position {position}, the journal ends at {}: it was \
                 replaced by an older copy",
                ends.head
            )));
        }
        if position + 1 < ends.first {
            return Err(StoreError::Corrupt(format!(
                "the projections are at position {position}, the journal begins at {}: they were \
                 replaced by an older copy",
                ends.first
            )));
        }
        Ok(())
    }
}

/// The position of the last batch that was written.
pub(super) fn read_position(connection: &Connection) -> Result<u64, StoreError> {
    connection
        .query_row("SELECT value FROM meta WHERE key = 'position'", [], |row| {
            row.get(0)
        })
        .map(to_position)
        .map_err(error)
}

fn store_id(connection: &Connection) -> Result<Option<String>, StoreError> {
    connection
        .query_row("SELECT value FROM meta WHERE key = 'store_id'", [], |row| {
            row.get(0)
        })
        .optional()
        .map_err(error)
}

fn new_store_id(journal: &Connection) -> Result<String, StoreError> {
    journal
        .query_row(
            "INSERT INTO meta (key, value) VALUES ('store_id', 'id-' || lower(hex(randomblob(16))))
             RETURNING value",
            [],
            |row| row.get(0),
        )
        .map_err(error)
}
