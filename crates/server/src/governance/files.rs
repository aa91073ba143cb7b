//! Files of policies: one, or all `*.cedar` of a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use steadfast_policy::{Policies, Source};

/// So many files, and bytes of one.
const MAX_FILES: usize = 1000;
const MAX_BYTES: u64 = 4 << 20;

/// By what it is seen that files have changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Files(Vec<(PathBuf, Option<SystemTime>, u64)>);

impl Files {
    /// As they are now.
    pub fn of(path: &Path) -> Self {
        let files = list(path).unwrap_or_default().into_iter().map(|file| {
            let metadata = fs::metadata(&file).ok();
            let modified = metadata.as_ref().and_then(|of| of.modified().ok());
            (file, modified, metadata.map_or(0, |of| of.len()))
        });
        Self(files.collect())
    }

    /// Whether nothing has changed since.
    pub fn are_as_before(&self, path: &Path) -> bool {
        *self == Self::of(path)
    }
}

/// Reads and validates policies. What is wrong is told with its place, a line for each.
pub fn load(path: &Path) -> Result<(Files, Policies), String> {
    // Before they are read: what changes meanwhile is seen the next time.
    let files = Files::of(path);
    let mut sources = Vec::new();
    for file in list(path)? {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let bytes = fs::metadata(&file).map_err(|error| failed(&error))?.len();
        if bytes > MAX_BYTES {
            return Err(failed(&format!("it has more than {MAX_BYTES} bytes")));
        }
        let text = fs::read_to_string(&file).map_err(|error| failed(&error))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        sources.push(Source {
            name: name.into_owned(),
            text,
        });
    }
    let policies = Policies::parse(&sources).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })?;
    Ok((files, policies))
}

fn list(path: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    if !fs::metadata(path).map_err(|error| failed(&error))?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| failed(&error))? {
        let file = entry.map_err(|error| failed(&error))?.path();
        if file.extension().is_some_and(|of| of == "cedar") {
            files.push(file);
        }
    }
    // No policies at all would be a decision that nobody made.
    match files.len() {
        0 => Err(failed(&"there is no *.cedar in this directory")),
        1..=MAX_FILES => {
            files.sort_unstable();
            Ok(files)
        }
        _ => Err(failed(&format!("there are more than {MAX_FILES} files"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_directory_is_read_and_changes_are_seen() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path();
        assert!(load(path).is_err(), "no policies");
        fs::write(
            path.join("b.cedar"),
            "@id(\"b\") permit(principal, action, resource);",
        )
        .expect("writes");
        fs::write(path.join("notes.txt"), "nothing").expect("writes");
        let (files, policies) = load(path).expect("loads");
        assert_eq!(policies.ids(), ["b"]);
        assert!(files.are_as_before(path));
        fs::write(path.join("a.cedar"), "permit(principal, action, resource").expect("writes");
        assert!(!files.are_as_before(path));
        let problems = load(path).expect_err("is not valid");
        assert!(problems.starts_with("a.cedar:1: "), "{problems}");
        let one = load(&path.join("b.cedar")).expect("loads").1;
        assert_eq!(one.hash(), policies.hash());
        assert!(load(&path.join("c.cedar")).is_err());
    }
}
