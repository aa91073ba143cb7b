//! Files with secrets, which only their owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// More than any file with a key has.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a file that nobody else may read.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!(
            "{}: others may read the key: chmod 600 it",
            path.display()
        ));
    }
    let mut text = String::new();
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

/// Whether there is something of that name, if only a link that leads nowhere.
pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Makes a file at once with its content: a crash leaves all of it or nothing. One that is there
/// already is an error.
pub(crate) fn create(path: &Path, text: &str) -> io::Result<()> {
    let temporary = &write_beside(path, text)?;
    let linked = fs::hard_link(temporary, path);
    fs::remove_file(temporary)?;
    linked?;
    sync_directory(path)
}

/// The same, in the place of one that may be there.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = write_beside(path, text)?;
    fs::rename(temporary, path)?;
    sync_directory(path)
}

fn write_beside(path: &Path, text: &str) -> io::Result<std::path::PathBuf> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = std::path::PathBuf::from(temporary);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(temporary)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_owners() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        create(&path, "secret\n").expect("made");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = create(&path, "other\n").expect_err("refused");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path).as_deref(), Ok("secret\n"));
        replace(&path, "other\n").expect("replaced");
        assert_eq!(read(&path).as_deref(), Ok("other\n"));
        let names = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(names, 1);
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            assert!(read(&path).is_err_and(|error| error.contains("chmod 600")));
        }
    }
}
