//! Where a run is disturbed, and how.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

/// A place in a run at which something became durable, or was about to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Boundary {
    /// The worker answers a workflow task.
    WorkflowTask {
        /// Type of the workflow.
        workflow_type: String,
        /// Which answer, from 1.
        n: u32,
    },
    /// The worker answers an activity.
    Activity {
        /// Type of the activity.
        activity_type: String,
        /// Which answer, from 1.
        n: u32,
    },
    /// Nothing happens: everybody waits for time to pass, or for a person.
    Idle {
        /// Which time, from 1.
        n: u32,
    },
    /// A tool call waits for a vote.
    Approval {
        /// Type of the activity.
        activity_type: String,
        /// Which vote, from 1.
        n: u32,
    },
    /// The whole run.
    Run,
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The worker is killed before its answer arrives.
    WorkerBefore,
    /// The worker is killed after its answer was taken.
    WorkerAfter,
    /// The server is killed before the answer arrives.
    ServerBefore,
    /// The server is killed after it took the answer.
    ServerAfter,
    /// The worker never hears that its answer was taken, and sends it again.
    AnswerLost,
    /// The answer comes after the attempt's time-out.
    Late,
    /// The worker is given the same attempt a second time.
    Twice,
    /// Worker and server are killed, and come back.
    Restart,
    /// An hour passes at once.
    ClockJump,
    /// The workflow is cancelled.
    Cancel,
    /// The worker remembers nothing: each workflow task is a replay.
    NoCache,
}

/// One thing that is tried.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Point {
    /// Where.
    pub boundary: Boundary,
    /// What.
    pub fault: Fault,
}

impl Fault {
    /// All of them, as reports order them.
    pub const ALL: [Self; 11] = [
        Self::WorkerBefore,
        Self::WorkerAfter,
        Self::ServerBefore,
        Self::ServerAfter,
        Self::AnswerLost,
        Self::Late,
        Self::Twice,
        Self::Restart,
        Self::ClockJump,
        Self::Cancel,
        Self::NoCache,
    ];

    /// Its name for programs.
    pub fn id(self) -> &'static str {
        match self {
            Self::WorkerBefore => "worker_before",
            Self::WorkerAfter => "worker_after",
            Self::ServerBefore => "server_before",
            Self::ServerAfter => "server_after",
            Self::AnswerLost => "answer_lost",
            Self::Late => "late",
            Self::Twice => "twice",
            Self::Restart => "restart",
            Self::ClockJump => "clock_jump",
            Self::Cancel => "cancel",
            Self::NoCache => "no_cache",
        }
    }

    /// The one with this name for programs.
    pub fn by_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.id() == id)
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::WorkerBefore => "worker killed before",
            Self::WorkerAfter => "worker killed after",
            Self::ServerBefore => "server killed before",
            Self::ServerAfter => "server killed after",
            Self::AnswerLost => "answer lost",
            Self::Late => "too late",
            Self::Twice => "given twice",
            Self::Restart => "both killed",
            Self::ClockJump => "clock jumps",
            Self::Cancel => "is cancelled",
            Self::NoCache => "no cache",
        }
    }

    /// A sentence about it.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::WorkerBefore => "the worker was killed just before its answer arrived",
            Self::WorkerAfter => "the worker was killed just after its answer was taken",
            Self::ServerBefore => "the server was killed just before the answer arrived",
            Self::ServerAfter => "the server was killed just after it took the answer",
            Self::AnswerLost => "the worker did not hear that its answer was taken",
            Self::Late => "the answer came after the attempt's time-out",
            Self::Twice => "the worker was given the same attempt a second time",
            Self::Restart => "worker and server were killed while everybody waited",
            Self::ClockJump => "an hour passed at once while everybody waited",
            Self::Cancel => "the workflow was cancelled while it waited",
            Self::NoCache => "the worker had to replay the workflow for each task",
        }
    }
}

impl Boundary {
    /// What can happen at it.
    pub fn faults(&self) -> &'static [Fault] {
        use Fault as F;
        match self {
            Self::WorkflowTask { .. } => &[
                F::WorkerBefore,
                F::WorkerAfter,
                F::ServerBefore,
                F::ServerAfter,
                F::AnswerLost,
            ],
            Self::Activity { .. } => &[
                F::WorkerBefore,
                F::WorkerAfter,
                F::ServerBefore,
                F::ServerAfter,
                F::AnswerLost,
                F::Late,
                F::Twice,
            ],
            Self::Idle { .. } => &[F::Restart, F::ClockJump, F::Cancel],
            Self::Approval { .. } => &[F::Restart, F::Cancel],
            Self::Run => &[F::NoCache],
        }
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkflowTask { workflow_type, n } => write!(f, "{workflow_type}, task {n}"),
            Self::Activity {
                activity_type,
                n: 1,
            } => write!(f, "{activity_type}"),
            Self::Activity { activity_type, n } => write!(f, "{activity_type}, call {n}"),
            Self::Idle { n } => write!(f, "waiting, time {n}"),
            Self::Approval {
                activity_type,
                n: 1,
            } => write!(f, "approval of {activity_type}"),
            Self::Approval { activity_type, n } => {
                write!(f, "approval of {activity_type}, vote {n}")
            }
            Self::Run => f.write_str("the whole run"),
        }
    }
}

/// Everything that can be tried at these boundaries, by these faults or by all if there are none: all of it, or
/// `max` of it, chosen by `seed`.
pub fn points(boundaries: &[Boundary], faults: &[Fault], max: usize, seed: u64) -> Vec<Point> {
    let is_wanted = |fault: &&Fault| faults.is_empty() || faults.contains(fault);
    let mut seen = BTreeSet::new();
    let all: Vec<Point> = boundaries
        .iter()
        .filter(|boundary| seen.insert(*boundary))
        .flat_map(|boundary| {
            boundary
                .faults()
                .iter()
                .filter(is_wanted)
                .map(|fault| Point {
                    boundary: boundary.clone(),
                    fault: *fault,
                })
        })
        .collect();
    if all.len() <= max {
        return all;
    }
    // The first `max` of a shuffle (Fisher and Yates), in their order.
    let mut places: Vec<usize> = (0..all.len()).collect();
    let mut random = SplitMix(seed);
    for at in 0..max {
        let other = at + (random.next() % (places.len() - at) as u64) as usize;
        places.swap(at, other);
    }
    let chosen: BTreeSet<usize> = places[..max].iter().copied().collect();
    chosen.into_iter().map(|at| all[at].clone()).collect()
}

/// SplitMix64 (Steele, Lea and Flood, 2014): short, and the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(count: u32) -> Vec<Boundary> {
        (1..=count)
            .map(|n| Boundary::WorkflowTask {
                workflow_type: "Agent".into(),
                n,
            })
            .collect()
    }

    #[test]
    fn all_is_tried_if_it_is_not_too_much() {
        let mut boundaries = tasks(2);
        boundaries.push(Boundary::Run);
        boundaries.push(Boundary::Run);
        assert_eq!(points(&boundaries, &[], 100, 1).len(), 11);
        let some = [Fault::NoCache, Fault::WorkerAfter];
        assert_eq!(points(&boundaries, &some, 100, 1).len(), 3);
    }

    #[test]
    fn names_for_programs_are_those_of_the_report() {
        for fault in Fault::ALL {
            assert_eq!(serde_json::json!(fault), fault.id());
            assert_eq!(Fault::by_id(fault.id()), Some(fault));
        }
    }

    #[test]
    fn a_sample_is_the_same_for_the_same_seed() {
        let some = |seed| points(&tasks(50), &[], 20, seed);
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
        assert_eq!(some(3).len(), 20);
        assert!(some(3).is_sorted());
    }
}
