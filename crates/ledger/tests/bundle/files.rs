//! Takes bundles apart, changes them, and packs them again.

use std::io::{Cursor, Read, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::world::world;

pub type Files = Vec<(String, Vec<u8>)>;

pub fn unpack(bundle: &[u8]) -> Files {
    let mut zip = ZipArchive::new(Cursor::new(bundle)).expect("is a ZIP");
    let read = |index| {
        let mut file = zip.by_index(index).expect("is there");
        let mut content = Vec::new();
        file.read_to_end(&mut content).expect("can be read");
        (file.name().expect("has a name").into_owned(), content)
    };
    (0..zip_len(bundle)).map(read).collect()
}

fn zip_len(bundle: &[u8]) -> usize {
    ZipArchive::new(Cursor::new(bundle))
        .expect("is a ZIP")
        .len()
}

pub fn pack(files: &Files) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::DEFAULT.compression_method(CompressionMethod::Stored);
    for (name, content) in files {
        zip.start_file(name, options).expect("is begun");
        zip.write_all(content).expect("is written");
    }
    zip.finish().expect("is finished").into_inner()
}

/// A session's bundle with one of its files changed.
pub fn changed(name: &str, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut files = unpack(&world().session());
    let (_, content) = files
        .iter_mut()
        .find(|(of, _)| of == name)
        .expect("is there");
    change(content);
    pack(&files)
}

pub fn changed_lines(name: &str, change: impl Fn(&mut Vec<String>)) -> Vec<u8> {
    changed(name, |content| {
        let text = String::from_utf8(content.clone()).expect("is a text");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        *content = lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>()
            .into();
    })
}
