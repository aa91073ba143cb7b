//! What other policies would have decided of what is recorded in a bundle.

use std::cell::RefCell;

use serde_json::{Value, json};
use steadfast_ledger::Hash;
use steadfast_ledger::bundle::{AskedCall, Decided, Judge, Judged};
use steadfast_policy::{Policies, Recorded, Verdict};

use super::{Differences, PolicyJudge};

/// Decides again by the policies of the bundle, and by others.
pub struct WhatIf<F> {
    judge: PolicyJudge,
    policies: Policies,
    seen: RefCell<Seen<F>>,
}

struct Seen<F> {
    differences: Differences,
    run_id: String,
    /// What could not be decided.
    failed: Option<String>,
    line: F,
}

impl<F: FnMut(Value)> WhatIf<F> {
    /// By these policies. `line` is given what differs.
    pub fn new(policies: Policies, line: F) -> Self {
        Self {
            judge: PolicyJudge::default(),
            policies,
            seen: RefCell::new(Seen {
                differences: Differences::default(),
                run_id: String::new(),
                failed: None,
                line,
            }),
        }
    }

    /// Whether anything differed, and all counts; or why a decision could not be made again.
    pub fn finish(self) -> Result<(bool, Value), String> {
        let seen = self.seen.into_inner();
        match seen.failed {
            Some(error) => Err(error),
            None => {
                let hash = Hash(self.policies.hash()).to_string();
                let differences = seen.differences;
                Ok((differences.are_some(), differences.summary(&hash)))
            }
        }
    }

    fn decide_by_others(&self, of: &Decided<'_>) -> Result<(), String> {
        let recorded = Recorded::parse(of.request)?;
        let decision = self.policies.decide_recorded(&recorded)?;
        let now = match decision.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::NeedsApproval(_) => "approval",
        };
        let mut seen = self.seen.borrow_mut();
        // Decisions are in the bundle run by run.
        if seen.run_id != of.run_id {
            of.run_id.clone_into(&mut seen.run_id);
            seen.differences.begin();
        }
        let tool = of.activity_type;
        let id = of.scheduled_event_id;
        if seen.differences.add(id, tool, of.answer, now) {
            let request: Value = serde_json::from_str(of.request).unwrap_or_default();
            (seen.line)(json!({
                "workflowId": request["context"]["workflow_id"],
                "runId": of.run_id,
                "workflowType": request["context"]["workflow_type"],
                "activityId": of.activity_id,
                "tool": tool,
                "scheduledEventId": id,
                "entry": of.n,
                "then": {"answer": of.answer, "policies": of.policies},
                "now": {"answer": now, "policies": decision.policies},
            }));
        }
        Ok(())
    }
}

impl<F: FnMut(Value)> Judge for WhatIf<F> {
    fn policies(&self, file: &[u8]) -> Result<Hash, String> {
        self.judge.policies(file)
    }

    fn decide(&self, policies: &Hash, request: &str) -> Result<Judged, String> {
        self.judge.decide(policies, request)
    }

    fn is_about(&self, request: &str, call: &AskedCall<'_>) -> Result<bool, String> {
        self.judge.is_about(request, call)
    }

    fn arguments_of_request(&self, request: &str) -> Result<Hash, String> {
        self.judge.arguments_of_request(request)
    }

    fn arguments_of_event(&self, event: &[u8]) -> Option<Hash> {
        self.judge.arguments_of_event(event)
    }

    fn see(&self, of: &Decided<'_>) {
        if let Err(error) = self.decide_by_others(of) {
            self.seen.borrow_mut().failed = Some(error);
        }
    }
}
