//! What can be wrong, and what it leads to.

use serde::{Deserialize, Serialize};

/// What can be wrong with a workflow type, or with a tool call of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// A live session is in the last attempt of a call.
    LastAttempt,
    /// A call has one attempt only.
    SingleAttempt,
    /// A replay did not do what the history has.
    NonDeterminism,
    /// The workflow's code failed its task.
    TaskFailed,
    /// The history is long.
    LongHistory,
    /// Calls were made again.
    MadeAgain,
    /// Attempts took long, without heartbeats.
    NoHeartbeat,
    /// Nobody would notice for long that an attempt's worker is gone.
    LateNotice,
    /// Calls that no policy sees.
    LocalActivity,
    /// Nobody has shown that it is resumable.
    NeverProven,
}

/// What a risk leads to in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// A session, or what it has done, is lost.
    Lost,
    /// A session goes no further until somebody changes its code.
    Stuck,
    /// Something is done twice, or long work again.
    Repeated,
    /// Something is done that no policy decides.
    Ungoverned,
    /// Nobody knows.
    Unknown,
}

impl Effect {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] = [
        Self::Lost,
        Self::Stuck,
        Self::Repeated,
        Self::Ungoverned,
        Self::Unknown,
    ];

    /// What a run that it concerns counts in the score.
    pub fn weight(self) -> f64 {
        match self {
            Self::Lost | Self::Stuck => 8.0,
            Self::Repeated => 4.0,
            Self::Ungoverned => 2.0,
            Self::Unknown => 1.0,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Stuck => "stuck",
            Self::Repeated => "repeated",
            Self::Ungoverned => "ungoverned",
            Self::Unknown => "unknown",
        }
    }
}

impl Risk {
    /// What it leads to.
    pub fn effect(self) -> Effect {
        match self {
            Self::LastAttempt | Self::SingleAttempt | Self::LongHistory => Effect::Lost,
            Self::NonDeterminism | Self::TaskFailed => Effect::Stuck,
            Self::MadeAgain | Self::NoHeartbeat | Self::LateNotice => Effect::Repeated,
            Self::LocalActivity => Effect::Ungoverned,
            Self::NeverProven => Effect::Unknown,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::LastAttempt => "in its last attempt",
            Self::SingleAttempt => "one attempt only",
            Self::NonDeterminism => "non-determinism",
            Self::TaskFailed => "workflow task failed",
            Self::LongHistory => "long history",
            Self::MadeAgain => "made again",
            Self::NoHeartbeat => "long, no heartbeat",
            Self::LateNotice => "noticed late",
            Self::LocalActivity => "local activity",
            Self::NeverProven => "never proven",
        }
    }

    /// What a developer can do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::LastAttempt => {
                "If its worker dies now, this call fails for good. Give it more attempts, and an idempotency key."
            }
            Self::SingleAttempt => {
                "A crash of its worker fails this call, and mostly the session. Allow more attempts, pass the service an \
                 idempotency key, or deal with the failure in the workflow."
            }
            Self::NonDeterminism => {
                "The workflow's code does not do again what it did. Take clock, random numbers and ids from the SDK, and \
                 guard changes of code by its patch or version function. steadfast prove shows where."
            }
            Self::TaskFailed => {
                "The workflow's code raised something that is no failure of the workflow: it is tried again until the code \
                 is changed."
            }
            Self::LongHistory => {
                "Beyond the limit the server ends the session. Continue as new when the SDK suggests it, and keep large \
                 values elsewhere."
            }
            Self::MadeAgain => {
                "Each attempt may have had its effect. Pass the service the key in the task's header \
                 steadfast-idempotency-key. Whether that is done cannot be seen here: --idempotent NAME says that it is."
            }
            Self::NoHeartbeat => {
                "When its worker dies, all of it is done again. Report progress with heartbeats, set a heartbeat time-out, \
                 and go on from the last heartbeat's details."
            }
            Self::LateNotice => {
                "That its worker died is noticed when the start-to-close time-out is over. Set a heartbeat time-out, or a \
                 shorter start-to-close time-out."
            }
            Self::LocalActivity => {
                "It runs within the workflow task: no policy decides it, nobody approves it, and a crash repeats it. Make \
                 it an ordinary activity if it does something outside."
            }
            Self::NeverProven => {
                "Run steadfast prove --attest, and store what it writes with steadfast attestations add."
            }
        }
    }
}
