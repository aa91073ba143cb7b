//! Reads the files of a bundle, with their digests, and not more than allowed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};
use zip::read::{ArchiveOffset, Config};
use zip::{CompressionMethod, ZipArchive};

use super::findings::{Code, Findings, Place};
use crate::Hash;

const BUFFER_BYTES: usize = 1 << 16;

/// Size and first bytes of a ZIP's last record, if it has no comment.
const END_BYTES: i64 = 22;
const END_MAGIC: [u8; 4] = *b"PK\x05\x06";

/// The ZIP. Its files may be read side by side.
pub(super) struct Archive<'a, R> {
    zip: ZipArchive<Shared<'a, R>>,
    findings: &'a Findings,
    /// Bytes that may still be read.
    left: Cell<u64>,
    files: RefCell<BTreeMap<String, Progress>>,
}

/// How far a file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Unread,
    Failed,
    /// To its end. This is its digest.
    Read(Hash),
}

/// A file of the ZIP that is being read.
pub(super) type Member<'m> = BufReader<Metered<'m>>;

impl<'a, R: Read + Seek> Archive<'a, R> {
    pub fn open(
        file: &'a RefCell<R>,
        max_bytes: u64,
        findings: &'a Findings,
    ) -> Result<Self, String> {
        let shared = Shared { file, at: 0 };
        check_end(shared.clone()).map_err(|error| error.to_string())?;
        let config = Config {
            archive_offset: ArchiveOffset::Known(0),
        };
        let failed = |error: zip::result::ZipError| error.to_string();
        let mut zip = ZipArchive::with_config(config, shared).map_err(failed)?;
        zip.validate_header_consistency().map_err(failed)?;
        let mut files = BTreeMap::new();
        for index in 0..zip.len() {
            files.insert(plain_file(&zip, index)?, Progress::Unread);
        }
        Ok(Self {
            zip,
            findings,
            left: Cell::new(max_bytes),
            files: RefCell::new(files),
        })
    }

    pub fn has(&self, name: &str) -> bool {
        self.files.borrow().contains_key(name)
    }

    pub fn names(&self) -> Vec<String> {
        self.files.borrow().keys().cloned().collect()
    }

    /// The digest of a file that was read to its end.
    pub fn digest(&self, name: &str) -> Option<Hash> {
        match self.files.borrow().get(name) {
            Some(Progress::Read(digest)) => Some(*digest),
            _ => None,
        }
    }

    pub fn is_unread(&self, name: &str) -> bool {
        self.files.borrow().get(name) == Some(&Progress::Unread)
    }

    fn set(&self, name: &str, progress: Progress) {
        self.files.borrow_mut().insert(name.to_owned(), progress);
    }

    /// Reads a file: as far as `read` does, and the rest for its digest. None if there is no such file.
    pub fn read<T>(&self, name: &str, read: impl FnOnce(&mut Member<'_>) -> T) -> Option<T> {
        if !self.has(name) {
            return None;
        }
        self.set(name, Progress::Failed);
        let mut zip = self.zip.clone();
        let mut file = match zip.by_name(name) {
            Ok(file) => file,
            Err(error) => {
                let place = Place::file(name);
                self.findings.add(Code::FileAltered, place, error);
                return None;
            }
        };
        let size = file.size();
        let metered = Metered {
            input: &mut file,
            digest: Sha256::new(),
            read: 0,
            left: &self.left,
        };
        let mut member = BufReader::with_capacity(BUFFER_BYTES, metered);
        let result = read(&mut member);
        match io::copy(&mut member, &mut io::sink()) {
            Ok(_) => {
                let Metered { digest, read, .. } = member.into_inner();
                if read != size {
                    // Another program may stop there.
                    let detail = format!("it has {read} bytes, and the ZIP says {size}");
                    self.findings
                        .add(Code::ZipMalformed, Place::file(name), detail);
                }
                self.set(name, Progress::Read(Hash(digest.finalize().into())));
            }
            Err(error) => self.report(name, &error),
        }
        Some(result)
    }

    /// All of a file that has a reasonable size.
    pub fn read_all(&self, name: &str, max_bytes: u64) -> Option<Vec<u8>> {
        let bytes = self.read(name, |member| {
            let mut bytes = Vec::new();
            match member.take(max_bytes + 1).read_to_end(&mut bytes) {
                Ok(_) if bytes.len() as u64 > max_bytes => {
                    let place = Place::file(name);
                    self.findings
                        .add(Code::TooLarge, place, "it is larger than any such file");
                    None
                }
                // What goes wrong here goes wrong again when the rest is read.
                Err(_) => None,
                Ok(_) => Some(bytes),
            }
        });
        bytes.flatten()
    }

    fn report(&self, name: &str, error: &io::Error) {
        let code = match self.left.get() {
            0 => Code::TooLarge,
            _ => Code::FileAltered,
        };
        let place = Place::file(name);
        let detail = format!("it cannot be read to its end: {error}");
        self.findings.add(code, place, detail);
    }
}

/// Nothing follows the ZIP, not even a comment: it has one end only.
fn check_end<R: Read + Seek>(mut file: Shared<'_, R>) -> io::Result<()> {
    let mut magic = [0; 4];
    file.seek(SeekFrom::End(-END_BYTES))?;
    file.read_exact(&mut magic)?;
    match magic == END_MAGIC {
        true => Ok(()),
        false => Err(io::Error::other("it does not end as a ZIP does")),
    }
}

/// The name of a file that all programs take for the same.
fn plain_file<R: Read + Seek>(zip: &ZipArchive<R>, index: usize) -> Result<String, String> {
    let entry = zip
        .by_index_data(index)
        .map_err(|error| error.to_string())?;
    let name = entry.name().map_err(|error| error.to_string())?;
    let is_stored_plainly = matches!(
        entry.compression(),
        CompressionMethod::Stored | CompressionMethod::Deflated
    );
    let is_plain = is_stored_plainly
        && entry.is_file()
        && !entry.is_symlink()
        && !entry.encrypted()
        && name.as_bytes() == entry.name_raw()
        && name.is_ascii();
    match is_plain {
        true => Ok(name.into_owned()),
        false => Err(format!("{name:?} is not a plain file")),
    }
}

/// Counts and hashes what is read.
pub(super) struct Metered<'m> {
    input: &'m mut dyn Read,
    digest: Sha256,
    read: u64,
    left: &'m Cell<u64>,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        let left = self.left.get().saturating_sub(read as u64);
        self.left.set(left);
        if left == 0 {
            return Err(io::Error::other("the bundle is larger than allowed"));
        }
        self.read += read as u64;
        self.digest.update(&buffer[..read]);
        Ok(read)
    }
}

/// A reader with a position of its own.
struct Shared<'a, R> {
    file: &'a RefCell<R>,
    at: u64,
}

impl<R> Clone for Shared<'_, R> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<R: Read + Seek> Read for Shared<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file.borrow_mut();
        file.seek(SeekFrom::Start(self.at))?;
        let read = file.read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<R: Read + Seek> Seek for Shared<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(_) => Some(self.file.borrow_mut().seek(to)?),
        };
        self.at = at.ok_or_else(|| io::Error::other("a position out of range"))?;
        Ok(self.at)
    }
}
