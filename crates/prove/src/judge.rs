//! What a disturbed run should have done, and did not.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::compare::Same;
use crate::point::{Fault, Point};
use crate::session::{End, Outcome};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// To be known: it is so by design.
    Note,
    /// The workflow is not resumable.
    Failure,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The workflow's code did not do again what it had done.
    NonDeterminism,
    /// The workflow's code failed its task.
    TaskFailed,
    /// It did not come to an end.
    Stuck,
    /// It failed, and does not without the fault.
    Failed,
    /// Another result.
    DifferentResult,
    /// Other calls, or in another order.
    DifferentCalls,
    /// It was cancelled, and went on to its end.
    CancelIgnored,
    /// Its history is about to be too long.
    LongHistory,
    /// A tool call that waited for people did not afterwards.
    ApprovalLost,
    /// A call that was done was made again.
    DoneAgain,
    /// A call was made again that may have had its effect.
    AtLeastOnce,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// The activity that it is about, if it is about one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub activity: String,
    /// What was seen.
    pub detail: String,
}

impl Kind {
    /// Its name for programs.
    pub fn id(self) -> &'static str {
        match self {
            Self::NonDeterminism => "non_determinism",
            Self::TaskFailed => "task_failed",
            Self::Stuck => "stuck",
            Self::Failed => "failed",
            Self::DifferentResult => "different_result",
            Self::DifferentCalls => "different_calls",
            Self::CancelIgnored => "cancel_ignored",
            Self::LongHistory => "long_history",
            Self::ApprovalLost => "approval_lost",
            Self::DoneAgain => "done_again",
            Self::AtLeastOnce => "at_least_once",
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NonDeterminism => "non-determinism",
            Self::TaskFailed => "workflow task failed",
            Self::Stuck => "stuck",
            Self::Failed => "failed",
            Self::DifferentResult => "different result",
            Self::DifferentCalls => "different calls",
            Self::CancelIgnored => "cancellation ignored",
            Self::LongHistory => "long history",
            Self::ApprovalLost => "approval lost",
            Self::DoneAgain => "done again",
            Self::AtLeastOnce => "at least once",
        }
    }

    /// What a developer can do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::NonDeterminism => {
                "When the workflow's code is run again on its history it has to make the same calls in the same \
                 order. Take clock, random numbers and ids from the SDK's workflow API, do not go through sets or \
                 other unordered things, do no I/O, and guard changes of code by the SDK's patch or version function."
            }
            Self::TaskFailed => {
                "The workflow's code raised something that the SDK does not take for a failure of the workflow. \
                 The message says what."
            }
            Self::Stuck => {
                "What it waits for was only in the memory of the process that was killed. State that has to survive \
                 belongs into the workflow: signals, updates, timers, results of activities."
            }
            Self::Failed => {
                "An activity that a crash interrupts is tried again only if its retry policy lets it, and if it has a \
                 start-to-close time-out (and a heartbeat, if it takes long). Check maximum attempts and time-outs."
            }
            Self::DifferentResult => {
                "The result depends on how often code ran, or on the process's memory, clock or random numbers. \
                 What decides it has to come from arguments, activities and the SDK's workflow API."
            }
            Self::DifferentCalls => {
                "The workflow decided otherwise than undisturbed. If that is right (it deals with the failure), there is \
                 nothing to do; if not, the decision depends on something that is not in its history."
            }
            Self::CancelIgnored => {
                "Code that catches the SDK's cancellation has to end the workflow, after it has cleaned up: let it pass on, \
                 or raise it again."
            }
            Self::LongHistory => {
                "Every event is kept, and read again at each replay; beyond the server's limit the workflow is ended. \
                 Continue as new when the SDK says so, and keep large values elsewhere."
            }
            Self::ApprovalLost => {
                "What waits for people, and their votes, have to be as they were before the server was killed. Please \
                 report this: it is the server's fault."
            }
            Self::DoneAgain => {
                "A completed call was made a second time under another id: the workflow's code asked for it again."
            }
            Self::AtLeastOnce => {
                "The call had been made when its worker was killed or its answer was lost, and was made again: nobody can \
                 know whether it had its effect. Pass the service an idempotency key that is the same for all attempts, \
                 such as the one in the task's header steadfast-idempotency-key, or the workflow's run id and the activity's id."
            }
        }
    }
}

/// What undisturbed runs did.
pub struct Baseline {
    end: End,
    result: Value,
    same: Same,
    calls: Vec<(String, [u8; 32])>,
    /// Whether undisturbed runs agree on calls, and on their arguments.
    same_calls: bool,
    same_arguments: bool,
    /// Whether they agree on the result.
    same_result: bool,
    /// What is wrong without any fault.
    pub findings: Vec<Finding>,
}

impl Baseline {
    /// Of several runs, at least one.
    pub fn new(runs: &[Outcome], same: &Same) -> Self {
        let first = &runs[0];
        let result = same.compared(&first.result);
        let same_result = runs.iter().all(|run| same.compared(&run.result) == result);
        let same_arguments = runs.iter().all(|run| run.actions == first.actions);
        let mut findings: Vec<Finding> = Vec::new();
        if !same_result {
            let results: BTreeSet<String> = runs.iter().map(|run| short(&run.result)).collect();
            let results: Vec<String> = results.into_iter().collect();
            findings.push(note(
                Kind::DifferentResult,
                format!(
                    "undisturbed runs differ ({}): results are not compared; --ignore, --same-at and --same-if say what may differ",
                    results.join(" and ")
                ),
            ));
        }
        let same_calls = runs
            .iter()
            .all(|run| names(&run.actions) == names(&first.actions));
        if !same_calls {
            findings.push(note(
                Kind::DifferentCalls,
                "undisturbed runs differ: calls are not compared".to_owned(),
            ));
        }
        if let (events, true) = first.history {
            let detail = format!("{events} events, and the server suggested to continue as new");
            findings.push(failure(Kind::LongHistory, detail));
        }
        for run in runs {
            for finding in failed_tasks(run) {
                if !findings.contains(&finding) {
                    findings.push(finding);
                }
            }
        }
        Self {
            end: first.end.clone(),
            result,
            same: same.clone(),
            calls: first.actions.clone(),
            same_calls,
            same_arguments,
            same_result,
            findings,
        }
    }

    /// What a disturbed run did otherwise.
    pub fn judge(&self, point: &Point, run: &Outcome) -> Vec<Finding> {
        let mut findings = failed_tasks(run);
        let is_explained = !findings.is_empty();
        let lost = run.approvals_lost.iter();
        findings.extend(lost.map(|of| failure(Kind::ApprovalLost, of.clone())));
        match &run.end {
            End::Completed if point.fault == Fault::Cancel && run.has_fired => {
                let detail = format!("it completed with {}", short(&run.result));
                findings.push(failure(Kind::CancelIgnored, detail));
                return findings;
            }
            End::Failed if point.fault == Fault::Cancel && run.has_fired => return findings,
            End::Stuck(why) => {
                if let Some(line) = non_determinism_in(&run.worker_log)
                    && !is_explained
                {
                    findings.push(failure(Kind::NonDeterminism, clipped(line)));
                }
                findings.push(failure(Kind::Stuck, why.clone()));
            }
            end if *end != self.end => {
                findings.push(failure(Kind::Failed, short(&run.result)));
            }
            _ if self.same_result && self.same.compared(&run.result) != self.result => {
                findings.push(failure(
                    Kind::DifferentResult,
                    format!("{} instead of {}", short(&run.result), short(&self.result)),
                ));
            }
            _ => {}
        }
        if !is_explained && !matches!(run.end, End::Stuck(_)) {
            findings.extend(self.calls_of(point, run));
        }
        for activity in distinct(&run.seen.given_again) {
            findings.push(Finding {
                activity: activity.clone(),
                ..failure(
                    Kind::DoneAgain,
                    format!("{activity} was given to a worker after its answer was taken"),
                )
            });
        }
        findings.extend(at_least_once(run));
        if point.fault == Fault::ClockJump {
            // Who waits for a person for so long only may well go on without one.
            let by_time = |kind| matches!(kind, Kind::Failed | Kind::DifferentResult);
            for finding in findings.iter_mut().filter(|of| by_time(of.kind)) {
                finding.severity = Severity::Note;
            }
        }
        findings
    }

    fn calls_of(&self, point: &Point, run: &Outcome) -> Option<Finding> {
        let (before, now) = (names(&self.calls), names(&run.actions));
        let is_same = match (self.same_calls, self.same_arguments) {
            (false, _) => true,
            (true, false) => before == now,
            (true, true) => self.calls == run.actions,
        };
        if is_same {
            return None;
        }
        let detail = match before == now {
            true => "the same calls with other arguments".to_owned(),
            false => format!("{} instead of {}", listed(&now), listed(&before)),
        };
        // What passes later may well be dealt with otherwise: that is what time-outs are for.
        match point.fault {
            Fault::Late | Fault::ClockJump => Some(note(Kind::DifferentCalls, detail)),
            _ => Some(failure(Kind::DifferentCalls, detail)),
        }
    }
}

/// Where a worker's log says so: SDKs report it for the first attempt of a task only.
fn non_determinism_in(log: &str) -> Option<&str> {
    let is_it = |line: &&str| line.to_lowercase().contains("nondeterminis");
    log.lines().rev().find(is_it).map(str::trim)
}

fn names(calls: &[(String, [u8; 32])]) -> Vec<String> {
    calls.iter().map(|(name, _)| name.clone()).collect()
}

fn failed_tasks(run: &Outcome) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let tasks = run.seen.failed_tasks.iter();
    let tasks = tasks.filter(|(_, message)| seen.insert(message.clone()));
    let finding = |(is_non_determinism, message): &(bool, String)| {
        let is_it = *is_non_determinism || message.to_lowercase().contains("nondeterminis");
        let kind = match is_it {
            true => Kind::NonDeterminism,
            false => Kind::TaskFailed,
        };
        failure(kind, clipped(message))
    };
    tasks.map(finding).collect()
}

/// Calls that were made more than once, although one of them may have had its effect.
fn at_least_once(run: &Outcome) -> Vec<Finding> {
    let mut calls: BTreeMap<(&(String, String), &str), Vec<&crate::seen::Attempt>> =
        BTreeMap::new();
    for attempt in &run.seen.attempts {
        let key = (&attempt.run, attempt.id.as_str());
        calls.entry(key).or_default().push(attempt);
    }
    let again = calls.into_values().filter(|attempts| {
        let done = attempts.iter().position(|of| of.is_done);
        done.is_some_and(|at| at + 1 < attempts.len())
    });
    let names: Vec<String> = again.map(|of| of[0].activity_type.clone()).collect();
    let finding = |activity: String| Finding {
        detail: format!("{activity} was made again after it had been done"),
        activity,
        ..note(Kind::AtLeastOnce, String::new())
    };
    distinct(&names).into_iter().map(finding).collect()
}

fn failure(kind: Kind, detail: String) -> Finding {
    Finding {
        kind,
        severity: Severity::Failure,
        activity: String::new(),
        detail,
    }
}

fn note(kind: Kind, detail: String) -> Finding {
    Finding {
        severity: Severity::Note,
        ..failure(kind, detail)
    }
}

fn distinct(names: &[String]) -> Vec<String> {
    let names: BTreeSet<&String> = names.iter().collect();
    names.into_iter().cloned().collect()
}

fn listed(names: &[String]) -> String {
    const MAX: usize = 12;
    let more = names.len().saturating_sub(MAX);
    let shown = names[..names.len() - more].join(", ");
    match (names.is_empty(), more) {
        (true, _) => "no calls".to_owned(),
        (_, 0) => shown,
        _ => format!("{shown} and {more} more"),
    }
}

fn short(value: &Value) -> String {
    clipped(&value.to_string())
}

fn clipped(text: &str) -> String {
    const MAX: usize = 600;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::point::Boundary;
    use crate::seen::{Answer, Seen, Task};

    fn outcome(calls: &[(&str, u8)], result: Value) -> Outcome {
        let calls = calls.iter();
        Outcome {
            end: End::Completed,
            result,
            actions: calls
                .map(|(name, input)| ((*name).to_owned(), [*input; 32]))
                .collect(),
            history: (10, false),
            seen: Seen::default(),
            approvals_lost: Vec::new(),
            has_fired: true,
            worker_log: String::new(),
            took: Duration::ZERO,
        }
    }

    fn at(fault: Fault) -> Point {
        Point {
            boundary: Boundary::Run,
            fault,
        }
    }

    fn found(baseline: &Baseline, fault: Fault, run: &Outcome) -> Vec<(Kind, Severity)> {
        let findings = baseline.judge(&at(fault), run);
        findings.iter().map(|of| (of.kind, of.severity)).collect()
    }

    fn good() -> Outcome {
        outcome(&[("look", 1), ("pay", 2)], json!({"paid": 5, "at": "noon"}))
    }

    #[test]
    fn the_same_is_good() {
        let baseline = Baseline::new(&[good(), good()], &Same::default());
        assert!(baseline.findings.is_empty());
        for fault in Fault::ALL {
            let mut run = good();
            // Who was cancelled ends by that.
            if fault == Fault::Cancel {
                run.end = End::Failed;
            }
            assert_eq!(found(&baseline, fault, &run), [], "{fault:?}");
        }
    }

    #[test]
    fn what_differs_is_found() {
        let (bad, noted) = (Severity::Failure, Severity::Note);
        let other_result = outcome(&[("look", 1), ("pay", 2)], json!({"paid": 6, "at": "noon"}));
        let other_input = outcome(&[("look", 1), ("pay", 3)], json!({"paid": 5, "at": "noon"}));
        let other_calls = outcome(&[("pay", 2), ("look", 1)], json!({"paid": 5, "at": "noon"}));
        let failed = Outcome {
            end: End::Failed,
            ..good()
        };
        let stuck = Outcome {
            end: End::Stuck("it waits".into()),
            worker_log: "a line\n  Nondeterminism error: no\nanother".into(),
            ..good()
        };
        let baseline = Baseline::new(&[good(), good()], &Same::default());
        for (fault, run, expected) in [
            (
                Fault::WorkerAfter,
                &other_result,
                vec![(Kind::DifferentResult, bad)],
            ),
            (
                Fault::ClockJump,
                &other_result,
                vec![(Kind::DifferentResult, noted)],
            ),
            (
                Fault::WorkerAfter,
                &other_input,
                vec![(Kind::DifferentCalls, bad)],
            ),
            (
                Fault::WorkerAfter,
                &other_calls,
                vec![(Kind::DifferentCalls, bad)],
            ),
            (
                Fault::Late,
                &other_calls,
                vec![(Kind::DifferentCalls, noted)],
            ),
            (Fault::WorkerBefore, &failed, vec![(Kind::Failed, bad)]),
            (Fault::Cancel, &good(), vec![(Kind::CancelIgnored, bad)]),
            (
                Fault::NoCache,
                &stuck,
                vec![(Kind::NonDeterminism, bad), (Kind::Stuck, bad)],
            ),
        ] {
            assert_eq!(found(&baseline, fault, run), expected, "{fault:?}");
        }
    }

    #[test]
    fn what_differs_undisturbed_is_not_compared() {
        let other = outcome(&[("look", 1), ("pay", 9)], json!({"paid": 5, "at": "one"}));
        let baseline = Baseline::new(&[good(), other], &Same::default());
        let third = outcome(&[("look", 1), ("pay", 7)], json!({"paid": 5, "at": "two"}));
        assert_eq!(baseline.findings.len(), 1);
        assert_eq!(found(&baseline, Fault::WorkerAfter, &third), []);
        // What is said to differ is no reason to compare nothing.
        let other = outcome(&[("look", 1), ("pay", 2)], json!({"paid": 5, "at": "one"}));
        let same = Same {
            ignore: vec!["/at".to_owned()],
            ..Same::default()
        };
        let baseline = Baseline::new(&[good(), other], &same);
        assert!(baseline.findings.is_empty());
        let wrong = outcome(&[("look", 1), ("pay", 2)], json!({"paid": 6, "at": "two"}));
        assert_eq!(
            found(&baseline, Fault::WorkerAfter, &wrong),
            [(Kind::DifferentResult, Severity::Failure)]
        );
    }

    #[test]
    fn calls_that_are_made_again_are_told_apart() {
        let task = |attempt| Task::Activity {
            run: ("w".into(), "r".into()),
            id: "1".into(),
            activity_type: "pay".into(),
            attempt,
            input: [0; 32],
        };
        let baseline = Baseline::new(&[good(), good()], &Same::default());
        // Lost after it was done: its effect may be there twice.
        let mut run = good();
        run.seen.given(&task(1));
        run.seen.answers(&task(1), &Answer::Done);
        run.seen.given(&task(2));
        assert_eq!(
            found(&baseline, Fault::WorkerBefore, &run),
            [(Kind::AtLeastOnce, Severity::Note)]
        );
        // Taken, and yet given again: that is the server's fault.
        run.seen.taken(&task(1), &Answer::Done);
        run.seen.given(&task(3));
        let findings = found(&baseline, Fault::WorkerBefore, &run);
        assert!(findings.contains(&(Kind::DoneAgain, Severity::Failure)));
    }
}
