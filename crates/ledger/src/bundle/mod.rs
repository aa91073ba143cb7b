//! The evidence bundle: one file that says what happened in a session, and from which anybody can
//! check that it says all of it, and nothing else.
//!
//! A ZIP with these files, in this order:
//!
//! - `README.txt`
//! - `checkpoint`: the signed head of the log's tree, with cosignatures.
//! - `consistency`, if it was asked for: the size of an earlier tree, and the hashes that prove that the
//!   checkpoint's tree extends it (RFC 6962, section 2.1.2), one a line.
//! - `rotations/<number>.tlog-proof` for each time that the log's key was replaced: the way from an older
//!   key to the one that signed this.
//! - `entries.jsonl`: entries, in the log's order.
//! - `tree.jsonl`: the nodes of the tree that, with the entries, give its root.
//! - `history/<run id>.binpb` and `history/<run id>.payloads.jsonl` for each run: its events, as
//!   `temporal.api.history.v1.History`, and what is needed to hash them.
//! - `decisions.jsonl`, if policies decided anything: what they were asked, a line for each decision in
//!   the entries of runs whose histories are there; and `policies/<hash>.json`, the policies.
//! - `report.html`: the same for people.
//! - `manifest.json`: what the bundle covers, and which completeness is claimed.
//! - `statement.dsse.json`: an in-toto statement about all other files, signed by the log's key.

use crate::Hash;

mod chain;
mod lines;
pub mod manifest;
pub mod report;
mod statement;
pub mod verify;
mod words;
mod writer;

pub use manifest::{Claim, Manifest, RunSummary, Scope};
pub use report::{Detail, ReportBuilder};
pub use verify::{
    AskedCall, Code, Decided, Finding, Judge, Judged, Limits, Place, Report, Trust, Verdict,
    verify, verify_with,
};
pub use writer::{BundleError, BundleWriter, Head, RunOf};

/// The version of the format.
pub const FORMAT: &str = "steadfast-evidence-bundle/1";

/// What the statement states.
pub const PREDICATE_TYPE: &str = "https://steadfast.dev/evidence-bundle/v1";

const README: &str = "README.txt";
const CHECKPOINT: &str = "checkpoint";
const CONSISTENCY: &str = "consistency";
const DECISIONS: &str = "decisions.jsonl";
const ENTRIES: &str = "entries.jsonl";
const TREE: &str = "tree.jsonl";
const REPORT: &str = "report.html";
const MANIFEST: &str = "manifest.json";
const STATEMENT: &str = "statement.dsse.json";

/// The files that are in every bundle.
const FILES: [&str; 7] = [
    README, CHECKPOINT, ENTRIES, TREE, REPORT, MANIFEST, STATEMENT,
];

fn rotation_file(number: usize) -> String {
    format!("rotations/{number}.tlog-proof")
}

/// The number of a rotation's file.
fn rotation_number(name: &str) -> Option<usize> {
    let number = name.strip_prefix("rotations/")?;
    let number = number.strip_suffix(".tlog-proof")?.parse().ok()?;
    (rotation_file(number) == name).then_some(number)
}

fn policies_file(hash: &Hash) -> String {
    let digits = hash.0.iter().map(|byte| format!("{byte:02x}"));
    format!("policies/{}.json", digits.collect::<String>())
}

/// Whether it is the name of a file of policies.
fn is_policies_file(name: &str) -> bool {
    let hash = name.strip_prefix("policies/");
    let hash = hash.and_then(|rest| rest.strip_suffix(".json"));
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    hash.is_some_and(|hash| hash.len() == 64 && hash.bytes().all(is_digit))
}

fn history_file(run_id: &str) -> String {
    format!("history/{run_id}.binpb")
}

fn payloads_file(run_id: &str) -> String {
    format!("history/{run_id}.payloads.jsonl")
}

/// Whether a run id can be the name of a file everywhere. The server's are UUIDs.
fn is_file_name(run_id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=100).contains(&run_id.len()) && run_id.bytes().all(is_plain)
}
