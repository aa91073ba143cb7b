//! What was tried and what came out, for people and for programs.

mod html;
mod junit;
mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::Plan;
use crate::judge::{Finding, Kind, Severity};
use crate::point::{Boundary, Fault, Point};
use crate::session::Outcome;

/// The version of the report's format.
const FORMAT: &str = "steadfast-prove/1";

/// One disturbed run.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// Where and what.
    #[serde(flatten)]
    pub point: Point,
    /// Whether the run came there.
    pub reached: bool,
    /// What it did that it should not have done.
    pub findings: Vec<Finding>,
    /// How long it took.
    pub seconds: f64,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of this format.
    pub format: &'static str,
    /// Type of the workflow.
    pub workflow: String,
    /// The command that starts the worker.
    pub worker: String,
    /// Its SHA-256, in hexadecimal digits.
    pub worker_digest: String,
    /// Whether it is resumable, as far as it was tried.
    pub verdict: Verdict,
    /// What is to be known of undisturbed runs.
    pub undisturbed: Vec<Finding>,
    /// Seconds that an undisturbed run took.
    pub undisturbed_seconds: f64,
    /// How many things there are to try.
    pub points: usize,
    /// What chose among them.
    pub seed: u64,
    /// What was tried.
    pub tried: Vec<Tried>,
}

/// Whether a workflow is resumable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing that was tried changed what it does.
    Resumable,
    /// Something did.
    NotResumable,
}

/// What a run at a point came to, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Good,
    Note,
    Failure,
    NotReached,
    NotTried,
    None,
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        undisturbed: &Outcome,
        findings: Vec<Finding>,
        tried: Vec<Tried>,
        points: usize,
    ) -> Self {
        let all = tried.iter().flat_map(|of| &of.findings).chain(&findings);
        let verdict = match all.into_iter().any(|of| of.severity == Severity::Failure) {
            true => Verdict::NotResumable,
            false => Verdict::Resumable,
        };
        let digest = Sha256::digest(plan.worker.as_bytes());
        Self {
            format: FORMAT,
            workflow: plan.workflow.clone(),
            worker: plan.worker.clone(),
            worker_digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            verdict,
            undisturbed: findings,
            undisturbed_seconds: undisturbed.took.as_secs_f64(),
            points,
            seed: plan.seed,
            tried,
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// The first failure, as it comes in a run.
    pub fn first_failure(&self) -> Option<(Option<&Point>, &Finding)> {
        let is_it = |finding: &&Finding| finding.severity == Severity::Failure;
        let undisturbed = self.undisturbed.iter().find(is_it).map(|of| (None, of));
        undisturbed.or_else(|| {
            self.tried.iter().find_map(|of| {
                let finding = of.findings.iter().find(is_it)?;
                Some((Some(&of.point), finding))
            })
        })
    }

    /// Activities that were made again although they may have had their effect, and how often.
    pub fn at_least_once(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        let findings = self.tried.iter().flat_map(|of| &of.findings);
        for finding in findings.filter(|of| of.kind == Kind::AtLeastOnce) {
            *counts.entry(finding.activity.as_str()).or_default() += 1;
        }
        counts
    }

    /// Failures by what they are about, with how often they were seen, the first one's place and what was seen.
    fn failures(&self) -> Vec<(Kind, usize, &Point, &Finding)> {
        let mut failures: Vec<(Kind, usize, &Point, &Finding)> = Vec::new();
        for of in &self.tried {
            for finding in of
                .findings
                .iter()
                .filter(|of| of.severity == Severity::Failure)
            {
                match failures.iter_mut().find(|(kind, ..)| *kind == finding.kind) {
                    Some((_, count, ..)) => *count += 1,
                    None => failures.push((finding.kind, 1, &of.point, finding)),
                }
            }
        }
        failures
    }

    /// The boundaries, in the order of a run.
    fn rows(&self) -> Vec<&Boundary> {
        let mut rows: Vec<&Boundary> = Vec::new();
        for of in &self.tried {
            if !rows.contains(&&of.point.boundary) {
                rows.push(&of.point.boundary);
            }
        }
        rows
    }

    /// The faults that any boundary has.
    fn columns(&self) -> Vec<Fault> {
        let is_used = |fault: &Fault| self.tried.iter().any(|of| of.point.fault == *fault);
        Fault::ALL.into_iter().filter(is_used).collect()
    }

    fn cell(&self, boundary: &Boundary, fault: Fault) -> Cell {
        if !boundary.faults().contains(&fault) {
            return Cell::None;
        }
        let point = |of: &&Tried| of.point.boundary == *boundary && of.point.fault == fault;
        let Some(tried) = self.tried.iter().find(point) else {
            return Cell::NotTried;
        };
        let worst = tried.findings.iter().map(|of| of.severity).max();
        match worst {
            Some(Severity::Failure) => Cell::Failure,
            _ if !tried.reached => Cell::NotReached,
            Some(Severity::Note) => Cell::Note,
            None => Cell::Good,
        }
    }
}

impl Cell {
    fn mark(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "ok*",
            Self::Failure => "FAIL",
            Self::NotReached => "?",
            Self::NotTried => "-",
            Self::None => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(n: u32, fault: Fault, reached: bool, findings: Vec<Finding>) -> Tried {
        Tried {
            point: Point {
                boundary: Boundary::Activity {
                    activity_type: "pay <now>".into(),
                    n,
                },
                fault,
            },
            reached,
            findings,
            seconds: 1.5,
        }
    }

    fn finding(kind: Kind, severity: Severity) -> Finding {
        Finding {
            kind,
            severity,
            activity: "pay <now>".into(),
            detail: "\"a\" & <b>\u{1}".into(),
        }
    }

    fn report(verdict: Verdict, tried: Vec<Tried>) -> Report {
        Report {
            format: FORMAT,
            workflow: "Agent<T>".into(),
            worker: "python worker.py".into(),
            worker_digest: String::new(),
            verdict,
            undisturbed: Vec::new(),
            undisturbed_seconds: 1.0,
            points: 9,
            seed: 1,
            tried,
        }
    }

    #[test]
    fn a_report_says_what_was_found_where() {
        let failed = finding(Kind::DifferentResult, Severity::Failure);
        let again = finding(Kind::AtLeastOnce, Severity::Note);
        let report = report(
            Verdict::NotResumable,
            vec![
                tried(1, Fault::WorkerBefore, true, vec![again]),
                tried(1, Fault::Late, true, Vec::new()),
                tried(2, Fault::WorkerBefore, true, vec![failed]),
                tried(2, Fault::Late, false, Vec::new()),
            ],
        );
        let text = report.to_string();
        for part in [
            "pay <now>          ok*            ok  ",
            "pay <now>, call 2  FAIL           ?   ",
            "FAIL different result\n    First at pay <now>, call 2: the worker was killed just before",
            "ok* at least once: pay <now> (1)",
            "Agent<T> is NOT resumable (4 of 9 runs that there are to try, seed 1)",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        let html = report.to_html();
        assert!(html.contains("<h1>Agent&lt;T&gt; is not resumable</h1>"));
        assert!(!html.contains("<now>") && !html.contains("<b>"));
        let junit = report.to_junit();
        assert!(junit.contains("tests=\"4\" failures=\"1\" skipped=\"1\""));
        assert!(junit.contains("&quot;a&quot; &amp; &lt;b&gt;\""), "{junit}");
        let (point, first) = report.first_failure().expect("failed");
        assert_eq!(first.kind, Kind::DifferentResult);
        assert_eq!(point.map(|of| of.fault), Some(Fault::WorkerBefore));
        assert!(
            report
                .to_json()
                .expect("is JSON")
                .contains("\"not_resumable\"")
        );
    }
}
