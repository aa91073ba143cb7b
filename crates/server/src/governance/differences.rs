//! What differs between what was decided and what other policies decide, counted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// So many tools are counted by name; what comes after them is counted together.
const MAX_TOOLS: usize = 1000;
const OTHERS: &str = "(others)";

/// Counts decisions of sessions, one session after the other.
#[derive(Debug, Default)]
pub struct Differences {
    sessions: u64,
    skipped: u64,
    decisions: u64,
    differing: u64,
    tools: BTreeMap<String, Tool>,
    /// Calls of this session, and those whose difference is known.
    calls: BTreeSet<i64>,
    told: BTreeSet<i64>,
}

#[derive(Debug, Default)]
struct Tool {
    calls: u64,
    /// By `then -> now`.
    changes: BTreeMap<String, u64>,
}

impl Differences {
    /// What comes is about another session.
    pub fn begin(&mut self) {
        self.sessions += 1;
        self.calls.clear();
        self.told.clear();
    }

    /// A session could not be asked about.
    pub fn skip(&mut self) {
        self.skipped += 1;
    }

    /// Counts a decision about the call of an event. True if it is the first one of the call that differs.
    pub fn add(&mut self, event_id: i64, tool: &str, then: &str, now: &str) -> bool {
        self.decisions += 1;
        let is_known = self.tools.contains_key(tool) || self.tools.len() < MAX_TOOLS;
        let name = if is_known { tool } else { OTHERS };
        let tool = self.tools.entry(name.to_owned()).or_default();
        tool.calls += u64::from(self.calls.insert(event_id));
        // What nobody decided went on.
        let went_on = matches!((then, now), ("none", "allow") | ("allow", "none"));
        let differs = then != now && !went_on;
        if !differs || !self.told.insert(event_id) {
            return false;
        }
        self.differing += 1;
        *tool.changes.entry(format!("{then} -> {now}")).or_default() += 1;
        true
    }

    /// Whether anything differed.
    pub fn are_some(&self) -> bool {
        self.differing > 0
    }

    /// All counts. `hash` is that of the policies.
    pub fn summary(&self, hash: &str) -> Value {
        let tools = self.tools.iter().map(|(name, tool)| {
            let differing: u64 = tool.changes.values().sum();
            json!({
                "tool": name,
                "calls": tool.calls,
                "differing": differing,
                "changes": tool.changes,
            })
        });
        let calls: u64 = self.tools.values().map(|of| of.calls).sum();
        json!({ "summary": {
            "hash": hash,
            "sessions": self.sessions,
            "skipped": self.skipped,
            "decisions": self.decisions,
            "calls": calls,
            "differing": self.differing,
            "tools": tools.collect::<Vec<_>>(),
        }})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_differs_once() {
        let mut of = Differences::default();
        of.begin();
        assert!(!of.add(5, "refund", "allow", "allow"));
        assert!(of.add(5, "refund", "allow", "deny"));
        assert!(!of.add(5, "refund", "allow", "deny"));
        assert!(!of.add(6, "look", "none", "allow"));
        of.begin();
        assert!(of.add(5, "refund", "none", "approval"));
        of.skip();
        let summary = &of.summary("h")["summary"];
        assert_eq!(
            *summary,
            json!({
                "hash": "h", "sessions": 2, "skipped": 1, "decisions": 5, "calls": 3, "differing": 2,
                "tools": [
                    {"tool": "look", "calls": 1, "differing": 0, "changes": {}},
                    {"tool": "refund", "calls": 2, "differing": 2,
                     "changes": {"allow -> deny": 1, "none -> approval": 1}},
                ],
            })
        );
    }

    #[test]
    fn there_is_an_end_to_names() {
        let mut of = Differences::default();
        of.begin();
        for number in 0..MAX_TOOLS as i64 + 5 {
            of.add(number, &number.to_string(), "allow", "deny");
        }
        assert_eq!(of.tools.len(), MAX_TOOLS + 1);
        assert_eq!(of.tools[OTHERS].calls, 5);
    }
}
