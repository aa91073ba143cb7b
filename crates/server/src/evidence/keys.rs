//! The key that signs checkpoints: made on the first start, in a file that only its owner reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use steadfast_ledger::note::SigningKey;

/// Reads the key, or makes the file with one made of `seed`.
pub fn load_or_create(path: &Path, name: &str, seed: [u8; 32]) -> Result<SigningKey, String> {
    if path.exists() {
        return load(path);
    }
    let key = SigningKey::new(name, seed).map_err(|error| error.to_string())?;
    match create(path, &key) {
        Ok(()) => Ok(key),
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load(path),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Reads the key.
pub fn load(path: &Path) -> Result<SigningKey, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!(
            "{}: others may read the key: chmod 600 it",
            path.display()
        ));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    SigningKey::parse(text.trim()).map_err(|error| format!("{}: {error}", path.display()))
}

/// Makes the file at once with its content: a crash leaves all of it or nothing.
fn create(path: &Path, key: &SigningKey) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = Path::new(&name);
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)?;
    writeln!(file, "{}", key.encode())?;
    file.sync_all()?;
    fs::hard_link(temporary, path)?;
    fs::remove_file(temporary)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        let made = load_or_create(&path, "example.com/log", [1; 32]).expect("is made");
        let read = load_or_create(&path, "another", [2; 32]).expect("is read");
        assert_eq!(made.verifier().to_string(), read.verifier().to_string());
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        load_or_create(&path, "example.com/log", [1; 32]).expect("is made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changes");
        let error = load(&path).expect_err("is refused");
        assert!(error.contains("chmod 600"), "{error}");
    }
}
