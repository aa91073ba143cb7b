//! The key that signs checkpoints: made on the first start, in a file that only its owner reads.
//!
//! Another key that is to take its place is put beside it, as `<key>.next`. While both are there a
//! rotation is asked for or under way; its last step is to rename the new one over the old one. So
//! there are two states, and no third one for a crash to leave.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use steadfast_ledger::note::SigningKey;

use super::failpoint::reach;
use crate::private_file;

/// The keys of a server.
pub struct Keys {
    /// None in memory.
    path: Option<PathBuf>,
    current: SigningKey,
    /// It is being put in the place of the other: the file may have it already.
    replacing: Option<SigningKey>,
}

impl Keys {
    /// A key for a store in memory. It is not rotated: it is new at each start.
    pub fn in_memory(key: SigningKey) -> Self {
        Self {
            path: None,
            current: key,
            replacing: None,
        }
    }

    /// Reads the key file, or makes it with a key made of `seed`.
    pub fn open(path: &Path, name: &str, seed: [u8; 32]) -> Result<Self, String> {
        let path = resolved(path);
        let next = next_path(&path);
        // Without the old key nothing can be signed by both: the new one goes on alone, as after any
        // loss of the key.
        if !path.exists() && next.exists() {
            load(&next)?;
            fs::rename(&next, &path)
                .and_then(|()| sync_directory(&path))
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let keys = Self {
            current: load_or_create(&path, name, seed)?,
            path: Some(path),
            replacing: None,
        };
        keys.next()?;
        Ok(keys)
    }

    /// The key that signs.
    pub fn current(&self) -> &SigningKey {
        &self.current
    }

    /// The key that is to take its place, if there is one.
    pub fn next(&self) -> Result<Option<SigningKey>, String> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        let path = next_path(path);
        match path.exists() {
            true => load(&path).map(Some),
            false => Ok(self.replacing.clone()),
        }
    }

    /// Puts the new key in the place of the old one, durably, and destroys the old one. What was done
    /// of it already may be done again.
    pub fn replace(&mut self, new: SigningKey) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.replacing = Some(new.clone());
            let next = next_path(path);
            let is_in_place =
                |path: &Path| load(path).is_ok_and(|key| key.encode() == new.encode());
            let old = match is_in_place(path) {
                true => None,
                false => {
                    // The file keeps its content while it is open, whatever happens to its name.
                    let old = OpenOptions::new().read(true).write(true).open(path)?;
                    if !is_in_place(&next) {
                        remove(&next)?;
                        create(&next, &new)?;
                    }
                    reach("key: before it is replaced")?;
                    fs::rename(&next, path)?;
                    Some(old)
                }
            };
            reach("key: renamed")?;
            sync_directory(path)?;
            reach("key: replaced")?;
            remove(&next)?;
            if let Some(old) = old {
                wipe(old);
            }
        }
        self.replacing = None;
        self.current = new;
        Ok(())
    }
}

/// Asks for a rotation: puts a new key, made of `seed`, beside the key. Gives the new key and whether
/// it was made now; if one is there already, a rotation is under way and that is the one.
pub fn ask_for_rotation(path: &Path, seed: [u8; 32]) -> Result<(SigningKey, bool), String> {
    let path = resolved(path);
    let current = load(&path)?;
    let next = next_path(&path);
    let is_new = !next.exists();
    let key = load_or_create(&next, current.name(), seed)?;
    Ok((key, is_new))
}

/// Whether a rotation was asked for and is not finished.
pub fn is_rotating(path: &Path) -> bool {
    next_path(&resolved(path)).exists()
}

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
    let text = private_file::read(path)?;
    SigningKey::parse(text.trim()).map_err(|error| format!("{}: {error}", path.display()))
}

fn create(path: &Path, key: &SigningKey) -> io::Result<()> {
    private_file::create(path, &format!("{}\n", key.encode()))
}

/// Overwrites a key that has no name any more. A file system may keep old blocks all the same; what
/// another link shows is somebody's copy, and stays.
pub(crate) fn wipe(mut file: File) {
    let mut wipe = || {
        let metadata = file.metadata()?;
        if metadata.nlink() > 0 {
            tracing::warn!("the old key's file has another name: its owner has to destroy it");
            return Ok(());
        }
        let length = usize::try_from(metadata.len()).unwrap_or(0);
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&vec![0; length])?;
        file.sync_all()
    };
    let wiped: io::Result<()> = wipe();
    if let Err(error) = wiped {
        tracing::warn!(%error, "the old key was removed, but not overwritten");
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// The file itself where the path is a link: what replaces it must not replace the link.
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn next_path(path: &Path) -> PathBuf {
    with_suffix(path, ".next")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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

    #[test]
    fn the_new_key_takes_the_place_of_the_old_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        let link = directory.path().join("link");
        let mut keys = Keys::open(&path, "example.com/log", [1; 32]).expect("opens");
        let old = keys.current().encode();
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        let (new, is_new) = ask_for_rotation(&link, [2; 32]).expect("is asked for");
        assert!(is_new && is_rotating(&path));
        let (same, is_new) = ask_for_rotation(&path, [3; 32]).expect("is under way");
        assert!(!is_new && same.encode() == new.encode());
        assert_eq!(keys.current().encode(), old, "not before it is replaced");

        let handle = File::open(&path).expect("the old file");
        let next = keys.next().expect("reads").expect("is there");
        keys.replace(next.clone()).expect("is replaced");
        assert_eq!(keys.current().encode(), new.encode());
        assert_eq!(load(&path).expect("reads").encode(), new.encode());
        assert!(!is_rotating(&path));
        let wiped = io::read_to_string(handle).expect("reads");
        assert!(wiped.bytes().all(|byte| byte == 0), "{wiped:?}");
        // Again, as after an error whose effect was not known.
        keys.replace(next).expect("is in place");
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_copy_under_another_name_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        let copy = directory.path().join("copy");
        let mut keys = Keys::open(&path, "example.com/log", [1; 32]).expect("opens");
        let old = keys.current().encode();
        fs::hard_link(&path, &copy).expect("a link");
        let (new, _) = ask_for_rotation(&path, [2; 32]).expect("is asked for");
        keys.replace(new).expect("is replaced");
        assert_eq!(load(&copy).expect("reads").encode(), old);
    }

    #[test]
    fn without_the_old_key_the_new_one_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        load_or_create(&path, "example.com/log", [1; 32]).expect("is made");
        let (new, _) = ask_for_rotation(&path, [2; 32]).expect("is asked for");
        fs::remove_file(&path).expect("is lost");
        let keys = Keys::open(&path, "example.com/log", [3; 32]).expect("opens");
        assert_eq!(keys.current().encode(), new.encode());
        assert!(!is_rotating(&path));
    }

    #[test]
    fn no_rotation_without_a_key_or_with_one_that_others_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        assert!(ask_for_rotation(&path, [2; 32]).is_err());
        assert!(!is_rotating(&path));
        load_or_create(&path, "example.com/log", [1; 32]).expect("is made");
        ask_for_rotation(&path, [2; 32]).expect("is asked for");
        let next = next_path(&path);
        fs::set_permissions(&next, fs::Permissions::from_mode(0o644)).expect("changes");
        assert!(Keys::open(&path, "example.com/log", [3; 32]).is_err());
    }
}
