//! What is wrong with a bundle, and where.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

/// Findings with the same code that are listed. More of them say nothing new.
const MAX_OF_A_CODE: usize = 20;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// What is wrong. The texts are for programs, and do not change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code { $($(#[doc = $doc])+ $name,)+ }

        impl Code {
            /// All of them.
            pub const ALL: &[Code] = &[$(Code::$name,)+];

            /// The text for programs.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)+ }
            }
        }
    };
}

codes! {
    /// The file is not a ZIP, or one that programs may read differently.
    ZipMalformed = "zip-malformed",
    /// A file does not have the format of its kind.
    FileMalformed = "file-malformed",
    /// A file is not the one that the statement is about.
    FileAltered = "file-altered",
    /// A file is missing.
    FileMissing = "file-missing",
    /// A file does not belong here.
    FileUnexpected = "file-unexpected",
    /// There is more than whoever verifies is ready to read.
    TooLarge = "too-large",
    /// The checkpoint is not the one that the log signed.
    CheckpointForged = "checkpoint-forged",
    /// Signed by a key that is not trusted.
    UnknownKey = "unknown-key",
    /// It does not lead from a trusted key to another one, as it claims.
    RotationForged = "rotation-forged",
    /// A witness did not sign this.
    CosignatureForged = "cosignature-forged",
    /// Too few witnesses signed the checkpoint.
    WitnessesMissing = "witnesses-missing",
    /// The statement is not the one that the log's key signed.
    StatementForged = "statement-forged",
    /// Entries and nodes do not give the root that was signed.
    RootMismatch = "root-mismatch",
    /// The log has fewer entries than it had, or begins anew.
    LogRolledBack = "log-rolled-back",
    /// The log is not the one of an earlier checkpoint.
    LogForked = "log-forked",
    /// The earlier checkpoint is not of this log, or not signed by a trusted key.
    EarlierUnknown = "earlier-unknown",
    /// There is no proof that the log extends an earlier checkpoint.
    ConsistencyMissing = "consistency-missing",
    /// An entry is not the one that was written.
    EntryAltered = "entry-altered",
    /// An entry is missing.
    EntryMissing = "entry-missing",
    /// Entries or events are not in their order.
    OrderChanged = "order-changed",
    /// An entry is not about what the bundle is about.
    OutOfScope = "out-of-scope",
    /// An event is not the one that its entry lists.
    EventAltered = "event-altered",
    /// An event of an entry is missing.
    EventMissing = "event-missing",
    /// An event is in no entry.
    EventUnexpected = "event-unexpected",
    /// The last events of a history are missing.
    HistoryTruncated = "history-truncated",
    /// What was asked for a decision of a policy is missing, or the policies are.
    DecisionMissing = "decision-missing",
    /// The policies do not decide so, or not about this call.
    DecisionFalse = "decision-false",
    /// Policies are not the ones that were in force.
    PoliciesAltered = "policies-altered",
    /// The manifest claims what is not so.
    ManifestFalse = "manifest-false",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where something is wrong, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// File of the bundle.
    pub file: Option<String>,
    /// Index in the log.
    pub index: Option<u64>,
    /// Run.
    pub run_id: Option<String>,
    /// Number of the entry within its run.
    pub entry: Option<u64>,
    /// Event of the run.
    pub event_id: Option<i64>,
}

impl Place {
    pub(super) fn file(name: &str) -> Self {
        Self {
            file: Some(name.to_owned()),
            ..Self::default()
        }
    }

    pub(super) fn index(mut self, index: u64) -> Self {
        self.index = Some(index);
        self
    }

    pub(super) fn run(mut self, run_id: &str) -> Self {
        self.run_id = Some(run_id.to_owned()).filter(|id| !id.is_empty());
        self
    }

    pub(super) fn entry(mut self, n: u64) -> Self {
        self.entry = Some(n);
        self
    }

    pub(super) fn event(mut self, event_id: i64) -> Self {
        self.event_id = Some(event_id);
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.file.clone(),
            self.index.map(|index| format!("index {index}")),
            self.run_id.as_ref().map(|run_id| format!("run {run_id}")),
            self.entry.map(|n| format!("entry {n}")),
            self.event_id.map(|id| format!("event {id}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        // Names are those of whoever made the file.
        write!(f, "{}", parts.join(", ").escape_debug())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// Where.
    pub place: Place,
    /// What differs, for people.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.to_string();
        let separator = if place.is_empty() { "" } else { ": " };
        let detail = self.detail.escape_debug();
        write!(f, "{}: {place}{separator}{detail}", self.code)
    }
}

/// Collects findings, so many of each code.
#[derive(Default)]
pub(super) struct Findings(RefCell<Collected>);

#[derive(Default)]
struct Collected {
    listed: Vec<Finding>,
    counts: HashMap<Code, usize>,
    total: usize,
}

impl Findings {
    pub fn add(&self, code: Code, place: Place, detail: impl fmt::Display) {
        let mut collected = self.0.borrow_mut();
        collected.total += 1;
        let count = collected.counts.entry(code).or_default();
        *count += 1;
        if *count <= MAX_OF_A_CODE {
            let detail = detail.to_string();
            collected.listed.push(Finding {
                code,
                place,
                detail,
            });
        }
    }

    pub fn count(&self) -> usize {
        self.0.borrow().total
    }

    /// The listed ones, and how many there are.
    pub fn take(self) -> (Vec<Finding>, usize) {
        let collected = self.0.into_inner();
        (collected.listed, collected.total)
    }
}
