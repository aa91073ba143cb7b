//! The conformance suite on SQLite, in files and in memory.

mod conformance;

use std::path::PathBuf;
use std::sync::Arc;

use steadfast_store::sqlite::{SqliteOptions, SqliteStore};
use steadfast_store::{Store, StoreError};

struct Files {
    directory: tempfile::TempDir,
    options: SqliteOptions,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let options = SqliteOptions::default();
        Files { directory, options }
    }

    /// So that filters are answered as over a great many runs.
    fn with_few_keys(few_keys: u32) -> Self {
        let mut files = Files::new();
        files.options.few_keys = few_keys;
        files
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("steadfast.db")
    }
}

impl conformance::Fixture for Files {
    fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        let store = SqliteStore::open(&self.path(), self.options.clone())?;
        Ok(Arc::new(store))
    }

    fn is_durable(&self) -> bool {
        true
    }
}

struct Memory;

impl conformance::Fixture for Memory {
    fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(SqliteStore::open_in_memory()?))
    }

    fn is_durable(&self) -> bool {
        false
    }
}

mod in_files {
    crate::conformance!(super::Files::new());
}

mod in_memory {
    crate::conformance!(super::Memory);
}

mod in_files_as_over_many_runs {
    crate::conformance!(super::Files::with_few_keys(0));
}
