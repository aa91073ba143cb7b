//! Go's `golang.org/x/mod/sumdb/{note,tlog}` must come to the same verdicts: see `tests/go`.
//!
//! Without Go this is passed over, unless `STEADFAST_REQUIRE_GO=1`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use steadfast_ledger::Hash;
use steadfast_ledger::checkpoint::Checkpoint;
use steadfast_ledger::cosignature::CosigningKey;
use steadfast_ledger::note::{Note, SigningKey, VerifierKey};
use steadfast_ledger::tile::{Appender, TileId, TilePath, Tiles};
use steadfast_ledger::tree::{
    consistency_proof, inclusion_proof, root, verify_consistency, verify_inclusion,
};

/// Where Debian has Go packages.
const GOPATH: &str = "/usr/share/gocode";

const ORIGIN: &str = "example.com/log";

/// What the Go program reads.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    #[serde(rename = "VKey")]
    vkey: String,
    witness: String,
    checkpoint: String,
    entries: Vec<Entry>,
    tiles: Vec<Tile>,
    older: Vec<Older>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    index: u64,
    #[serde(serialize_with = "base64")]
    data: Vec<u8>,
    #[serde(serialize_with = "hashes")]
    proof: Vec<Hash>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tile {
    path: String,
    #[serde(serialize_with = "base64")]
    data: Vec<u8>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Older {
    size: u64,
    #[serde(serialize_with = "hash")]
    root: Hash,
    #[serde(serialize_with = "hashes")]
    proof: Vec<Hash>,
}

fn base64<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn hash<S: serde::Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(hash)
}

fn hashes<S: serde::Serializer>(hashes: &[Hash], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(hashes.iter().map(Hash::to_string))
}

fn log_key() -> SigningKey {
    SigningKey::new(ORIGIN, [1; 32]).expect("is a name")
}

fn witness_key() -> CosigningKey {
    CosigningKey::new("witness.example/w1", [2; 32]).expect("is a name")
}

fn entry(index: u64) -> Vec<u8> {
    format!(r#"{{"n":{index}}}"#).into_bytes()
}

fn checkpoint(size: u64, root: Hash) -> Checkpoint {
    Checkpoint {
        origin: ORIGIN.into(),
        size,
        root,
        extensions: Vec::new(),
    }
}

/// A log of this size, with some of its entries and older trees.
fn document(size: u64) -> Document {
    let mut tree = Appender::default();
    (0..size).for_each(|index| tree.append(Hash::leaf(&entry(index))));
    let stored: BTreeMap<TileId, Vec<u8>> = tree.take_changes().into_iter().collect();
    let tiles: Tiles = stored.clone().into_iter().collect();
    let hash_of = |node| tiles.hash_of(node);
    let signed = checkpoint(size, tree.root()).sign(&[&log_key()]);
    let mut note = Note::parse(signed.expect("is signed")).expect("is a note");
    let cosignature = witness_key().cosign(note.text(), 1_700_000_000);
    note.add(cosignature.expect("is signed")).expect("is added");
    let some = [0, 1, 2, 254, 255, 256, 65_535, 65_536, 69_999];
    let indexes = some.into_iter().chain([size / 2, size - 1]);
    let sizes = some.into_iter().chain([size / 2, size]);
    Document {
        vkey: log_key().verifier().to_string(),
        witness: witness_key().verifier().to_string(),
        checkpoint: note.to_string(),
        entries: indexes
            .filter(|index| *index < size)
            .map(|index| Entry {
                index,
                data: entry(index),
                proof: inclusion_proof(index, size, hash_of).expect("a proof"),
            })
            .collect(),
        tiles: stored
            .into_iter()
            .map(|(id, data)| Tile {
                path: TilePath::tile(id, data.len() / 32)
                    .expect("a tile")
                    .to_string(),
                data,
            })
            .collect(),
        older: sizes
            .filter(|older| (1..=size).contains(older))
            .map(|older| Older {
                size: older,
                root: root(older, hash_of).expect("a root"),
                proof: consistency_proof(older, size, hash_of).expect("a proof"),
            })
            .collect(),
    }
}

impl Document {
    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    /// Our own verdict. It says nothing about tiles, which are believed here and proofs made from
    /// them are not.
    fn is_valid(&self) -> bool {
        let keys = [&self.vkey, &self.witness].map(|key| VerifierKey::parse(key));
        let [Ok(log), Ok(witness)] = keys else {
            return false;
        };
        let keys = [log, witness];
        let Ok(opened) = Checkpoint::open(&self.checkpoint, &keys) else {
            return false;
        };
        let Checkpoint { size, root, .. } = opened.checkpoint;
        let mut entries = self.entries.iter();
        let mut older = self.older.iter();
        opened.cosignatures.len() == 1
            && entries.all(|entry| {
                let leaf = Hash::leaf(&entry.data);
                verify_inclusion(&leaf, entry.index, size, &entry.proof, &root).is_ok()
            })
            && older.all(|older| {
                verify_consistency(older.size, &older.root, size, &root, &older.proof).is_ok()
            })
    }
}

/// What must not verify, and a name for each.
fn tampered(size: u64) -> Vec<(String, Document)> {
    let good = document(size);
    let mut cases = tampered_checkpoint(&good, size);
    for at in 0..good.entries.len() {
        let name = |what: &str| format!("{what} of entry {at}");
        let mut case = |what: &str, change: &dyn Fn(&mut Entry)| {
            let changed = good.with(|document| change(&mut document.entries[at]));
            cases.push((name(what), changed));
        };
        case("data", &|entry| entry.data[0] ^= 1);
        case("index", &|entry| entry.index ^= 1);
        case("longer proof", &|entry| entry.proof.push(Hash::default()));
        if !good.entries[at].proof.is_empty() {
            case("shorter proof", &|entry| {
                entry.proof.truncate(entry.proof.len() - 1)
            });
            case("first hash", &|entry| entry.proof[0].0[0] ^= 1);
            case("last hash", &|entry| {
                if let Some(last) = entry.proof.last_mut() {
                    last.0[31] ^= 0x80;
                }
            });
        }
    }
    for at in 0..good.older.len() {
        let name = |what: &str| format!("{what} of older tree {at}");
        let mut case = |what: &str, change: &dyn Fn(&mut Older)| {
            let changed = good.with(|document| change(&mut document.older[at]));
            cases.push((name(what), changed));
        };
        case("root", &|older| older.root.0[0] ^= 1);
        case("longer proof", &|older| older.proof.push(Hash::default()));
        if !good.older[at].proof.is_empty() {
            case("size", &|older| older.size += 1);
            case("shorter proof", &|older| {
                older.proof.truncate(older.proof.len() - 1)
            });
            case("first hash", &|older| older.proof[0].0[0] ^= 1);
        }
    }
    cases
}

fn tampered_checkpoint(good: &Document, size: u64) -> Vec<(String, Document)> {
    let note = Note::parse(&good.checkpoint).expect("is a note");
    let [by_log, by_witness] = note.signatures() else {
        panic!("two signed");
    };
    let text = note.text();
    let checkpoint_is = |what: &str, text: String| {
        let changed = good.with(|document| document.checkpoint = text);
        (what.to_owned(), changed)
    };
    let key_is = |what: &str, vkey: String| {
        let changed = good.with(|document| document.vkey = vkey);
        (what.to_owned(), changed)
    };
    let spoiled = |of: &steadfast_ledger::note::Signature, at: usize| {
        let mut spoiled = of.clone();
        spoiled.bytes[at] ^= 1;
        spoiled
    };
    let other = SigningKey::new(ORIGIN, [3; 32]).expect("is a name");
    let renamed = log_key().renamed("example.com/other").expect("is a name");
    let fork = checkpoint(size, Hash::of(b"another")).sign(&[&log_key()]);
    let larger = text.replace(&format!("\n{size}\n"), &format!("\n{}\n", size + 1));
    vec![
        key_is("another key", other.verifier().to_string()),
        key_is("another name", renamed.verifier().to_string()),
        key_is("a changed key", good.vkey.replace("+A", "+B")),
        key_is("no key", String::new()),
        checkpoint_is("a fork", fork.expect("is signed")),
        checkpoint_is(
            "another size",
            format!("{larger}\n{by_log}\n{by_witness}\n"),
        ),
        checkpoint_is(
            "another line",
            format!("{text}more\n\n{by_log}\n{by_witness}\n"),
        ),
        checkpoint_is(
            "another signature",
            format!("{text}\n{}\n{by_witness}\n", spoiled(by_log, 0)),
        ),
        checkpoint_is(
            "another time",
            format!("{text}\n{by_log}\n{}\n", spoiled(by_witness, 7)),
        ),
        checkpoint_is(
            "another cosignature",
            format!("{text}\n{by_log}\n{}\n", spoiled(by_witness, 71)),
        ),
        checkpoint_is("no witness", format!("{text}\n{by_log}\n")),
        checkpoint_is("only a witness", format!("{text}\n{by_witness}\n")),
        checkpoint_is("no signature", format!("{text}\n")),
        checkpoint_is("no newline", good.checkpoint.trim_end().to_owned()),
        checkpoint_is("no empty line", good.checkpoint.replace("\n\n", "\n")),
        checkpoint_is("a tab", good.checkpoint.replacen('\n', "\t\n", 1)),
    ]
}

fn tampered_tiles(size: u64) -> Vec<(String, Document)> {
    let good = document(size);
    let mut cases = Vec::new();
    for at in 0..good.tiles.len() {
        let path = &good.tiles[at].path;
        let mut case = |what: &str, change: &dyn Fn(&mut Vec<Tile>)| {
            let changed = good.with(|document| change(&mut document.tiles));
            cases.push((format!("{what} {path}"), changed));
        };
        case("a bit of", &|tiles| tiles[at].data[31] ^= 1);
        case("without", &|tiles| drop(tiles.remove(at)));
        case("a shorter", &|tiles| tiles[at].data.truncate(16));
        case("another path of", &|tiles| tiles[at].path.push('0'));
    }
    cases
}

/// Runs the Go program. Gives its verdicts, or nothing if there is no Go.
fn verdicts(documents: &[Document]) -> Option<Vec<String>> {
    let program: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/go");
    let is_there = Path::new(GOPATH).join("src/golang.org/x/mod").exists();
    let start = || {
        Command::new("go")
            .args(["run", ".", "log"])
            .current_dir(program)
            .env("GO111MODULE", "off")
            .env("GOPATH", GOPATH)
            .env_remove("GOFLAGS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    };
    let mut child = match is_there.then(start) {
        Some(Ok(child)) => child,
        _ if std::env::var("STEADFAST_REQUIRE_GO").is_ok_and(|value| value == "1") => {
            panic!("Go and golang.org/x/mod are required")
        }
        _ => {
            eprintln!("passed over: no Go, or no golang.org/x/mod");
            return None;
        }
    };
    let mut stdin = child.stdin.take().expect("is piped");
    let input: Vec<u8> = documents
        .iter()
        .flat_map(|document| serde_json::to_vec(document).expect("is JSON"))
        .collect();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("ends");
    let written = writer.join().expect("ends");
    assert!(written.is_ok(), "it reads all documents");
    let text = String::from_utf8(output.stdout).expect("is text");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_success = lines.iter().all(|line| line == "ok");
    assert_eq!(output.status.success(), is_success, "{text}");
    assert_eq!(lines.len(), documents.len(), "{text}");
    Some(lines)
}

#[test]
fn go_verifies_what_we_make() {
    let documents = [1, 2, 255, 256, 257, 70_000].map(document);
    assert!(documents.iter().all(Document::is_valid));
    if let Some(verdicts) = verdicts(&documents) {
        assert!(verdicts.iter().all(|line| line == "ok"), "{verdicts:?}");
    }
}

#[test]
fn go_refuses_what_we_refuse() {
    let mut cases = tampered(257);
    cases.extend(tampered(1));
    for (name, document) in &cases {
        assert!(!document.is_valid(), "{name}");
    }
    // Without tiles, so that it is the proofs that are refused.
    for (_, document) in &mut cases {
        document.tiles.clear();
    }
    cases.extend(tampered_tiles(257));
    let (names, documents): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    if let Some(verdicts) = verdicts(&documents) {
        let accepted = names
            .iter()
            .zip(&verdicts)
            .filter(|(_, line)| *line == "ok");
        let accepted: Vec<_> = accepted.map(|(name, _)| name).collect();
        assert!(accepted.is_empty(), "{accepted:?}");
    }
}
