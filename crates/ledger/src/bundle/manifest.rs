//! What a bundle covers, and what is claimed about it. `verify` makes the claims again.

use serde::{Deserialize, Serialize, Serializer};

use crate::Hash;
use crate::entry::Time;

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format.
    pub format: String,
    /// When the bundle was made.
    #[serde(serialize_with = "text")]
    pub made: Time,
    /// Which namespace's log it is from.
    pub namespace: String,
    /// Which log.
    pub origin: String,
    /// What the bundle is about.
    pub scope: Scope,
    /// The tree that the entries are in.
    pub tree: TreeSummary,
    /// Public keys, as `signed-note` writes them. Whoever verifies has them from somewhere else.
    pub keys: Keys,
    /// How much there is of what.
    pub counts: Counts,
    /// The runs, in the order of their first entries.
    pub runs: Vec<RunSummary>,
}

/// What a bundle is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Scope {
    /// The runs of a workflow id, each from its first entry on. That there is no other run can only be
    /// shown of those that one of these follows.
    Session {
        /// The workflow id.
        workflow_id: String,
    },
    /// What a principal did, alone or with all of the runs that it took part in. That nothing is left
    /// out cannot be shown, except within a run.
    Principal {
        /// The principal.
        principal: String,
    },
    /// A part of the log, without a gap.
    Range {
        /// Index of the first entry.
        from: u64,
        /// Index after the last entry.
        to: u64,
    },
}

/// The head of the tree, as in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeSummary {
    /// Number of leaves.
    pub size: u64,
    /// Root.
    #[serde(serialize_with = "text", deserialize_with = "hash")]
    pub root: Hash,
}

/// Public keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The log's.
    pub log: Vec<String>,
    /// Those of witnesses.
    pub witnesses: Vec<String>,
}

/// How much there is of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Entries.
    pub entries: u64,
    /// Entries among them that belong to no run.
    pub notes: u64,
    /// Runs.
    pub runs: u64,
    /// Events in histories.
    pub events: u64,
}

/// What there is of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSummary {
    /// Workflow id.
    pub workflow_id: String,
    /// Run id.
    pub run_id: String,
    /// Number of its entries.
    pub entries: u64,
    /// Number of its last one within the run.
    pub last_entry: u64,
    /// How much of the run this is.
    pub claim: Claim,
    /// Events in its history; none if its history is not in the bundle.
    pub events: Option<u64>,
    /// The status that it ended with, if it did.
    pub closed: Option<String>,
    /// It was deleted.
    pub deleted: bool,
    /// Some payloads of its history were erased.
    pub erased: bool,
}

/// How much of a run's chain of entries is in a bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// From the first one on without a gap, and one says how the run ended.
    Complete,
    /// From the first one on without a gap: all that happened until the last one.
    AsOf,
    /// Some.
    #[default]
    Partial,
}

/// The part of a manifest that the statement repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Summary {
    format: String,
    #[serde(serialize_with = "text")]
    made: Time,
    namespace: String,
    origin: String,
    scope: Scope,
    tree: TreeSummary,
    counts: Counts,
}

impl Manifest {
    pub(super) fn summary(&self) -> Summary {
        Summary {
            format: self.format.clone(),
            made: self.made,
            namespace: self.namespace.clone(),
            origin: self.origin.clone(),
            scope: self.scope.clone(),
            tree: self.tree.clone(),
            counts: self.counts,
        }
    }
}

fn text<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn hash<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}
