//! What was found in a sample of runs, put together and ranked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::reader::Run;
use crate::risk::{Effect, Risk};

/// The version of the format.
pub const FORMAT: &str = "steadfast-inventory/1";

/// Live sessions count so much more.
const LIVE: f64 = 2.0;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// The version of this format.
    pub format: String,
    /// Name of the namespace.
    pub namespace: String,
    /// When it was made: RFC 3339.
    pub at: String,
    /// So many runs of each type were to be read, the newest.
    pub sample: usize,
    /// Runs that were seen.
    pub listed: u64,
    /// Runs whose histories were read.
    pub read: u64,
    /// Whether nothing was left out but what is beyond the sample.
    pub is_complete: bool,
    /// Workflow types, the worst first.
    pub types: Vec<TypeOf>,
    /// Tool calls about which there is something to say, the worst first.
    pub tools: Vec<ToolOf>,
}

/// A workflow type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeOf {
    /// Its name.
    pub workflow_type: String,
    /// By this they are ranked.
    pub score: f64,
    /// Runs that were seen.
    pub listed: u64,
    /// Those of them that live.
    pub live: u64,
    /// Runs whose histories were read.
    pub read: u64,
    /// Events of the longest history that was read.
    pub events: i64,
    /// The newest attestation, if there is one that counts.
    pub proven: Option<Proof>,
    /// What was found, the worst first.
    pub risks: Vec<Found>,
}

/// A tool that sessions of a type call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolOf {
    /// Its name: an activity type.
    pub tool: String,
    /// Who calls it.
    pub workflow_type: String,
    /// By this they are ranked.
    pub score: f64,
    /// Calls in the histories that were read.
    pub calls: u64,
    /// What was found, the worst first.
    pub risks: Vec<Found>,
}

/// One risk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Which.
    pub risk: Risk,
    /// What it leads to.
    pub effect: Effect,
    /// The tool that it is about; empty if it is about the workflow.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tool: String,
    /// In how many runs it was found.
    pub runs: u64,
    /// How often.
    pub count: u64,
    /// What was seen in the run of the example.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// A run in which it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<Example>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Example {
    /// Workflow id.
    pub workflow_id: String,
    /// Run id.
    pub run_id: String,
}

/// That a workflow type was proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// When: RFC 3339.
    pub at: String,
    /// Name of the key that signed.
    pub by: String,
}

/// Which run it was.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// Type of the workflow.
    pub workflow_type: &'a str,
    /// Workflow id.
    pub workflow_id: &'a str,
    /// Run id.
    pub run_id: &'a str,
}

/// Puts an inventory together.
#[derive(Debug, Default)]
pub struct Builder {
    types: BTreeMap<String, Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    listed: u64,
    live: u64,
    read: u64,
    events: i64,
    calls: BTreeMap<String, u64>,
    risks: BTreeMap<(Risk, String), Found>,
    proven: Option<Proof>,
}

impl Builder {
    /// A run was seen.
    pub fn listed(&mut self, workflow_type: &str, is_live: bool) {
        let tally = self.tally(workflow_type);
        tally.listed += 1;
        tally.live += u64::from(is_live);
    }

    /// The history of a run was read.
    pub fn read(&mut self, of: Of<'_>, run: Run) {
        let tally = self.tally(of.workflow_type);
        tally.read += 1;
        tally.events = tally.events.max(run.events);
        for (tool, calls) in run.calls {
            *tally.calls.entry(tool).or_default() += calls;
        }
        for ((risk, tool), seen) in run.risks {
            let found = tally.risks.entry((risk, tool.clone())).or_insert(Found {
                risk,
                effect: risk.effect(),
                tool,
                runs: 0,
                count: 0,
                detail: seen.detail,
                example: Some(Example {
                    workflow_id: of.workflow_id.to_owned(),
                    run_id: of.run_id.to_owned(),
                }),
            });
            found.runs += 1;
            found.count += seen.count;
        }
    }

    /// Asks of each workflow type whether it was proved.
    pub fn prove(&mut self, proof_of: impl Fn(&str) -> Option<Proof>) {
        for (workflow_type, tally) in &mut self.types {
            tally.proven = proof_of(workflow_type);
        }
    }

    /// All of it. `at` is when, in RFC 3339.
    pub fn finish(
        self,
        namespace: &str,
        at: String,
        sample: usize,
        is_complete: bool,
    ) -> Inventory {
        let tallies = || self.types.values();
        let mut inventory = Inventory {
            format: FORMAT.to_owned(),
            namespace: namespace.to_owned(),
            at,
            sample,
            listed: tallies().map(|of| of.listed).sum(),
            read: tallies().map(|of| of.read).sum(),
            is_complete,
            types: Vec::new(),
            tools: Vec::new(),
        };
        for (workflow_type, tally) in self.types {
            inventory.tools.extend(tally.tools(&workflow_type));
            inventory.types.push(tally.finish(workflow_type));
        }
        let worst = |one: f64, other: f64| other.total_cmp(&one);
        inventory.types.sort_by(|one, other| {
            worst(one.score, other.score)
                .then_with(|| other.live.cmp(&one.live))
                .then_with(|| one.workflow_type.cmp(&other.workflow_type))
        });
        inventory.tools.sort_by(|one, other| {
            worst(one.score, other.score)
                .then_with(|| other.calls.cmp(&one.calls))
                .then_with(|| {
                    (&one.tool, &one.workflow_type).cmp(&(&other.tool, &other.workflow_type))
                })
        });
        inventory
    }

    fn tally(&mut self, workflow_type: &str) -> &mut Tally {
        self.types.entry(workflow_type.to_owned()).or_default()
    }
}

impl Tally {
    /// The weight of what leads to harm, by the part of the runs in which it was found.
    fn score(&self, risks: &[Found]) -> f64 {
        let read = self.read.max(1) as f64;
        let sum: f64 = risks
            .iter()
            .map(|of| of.effect.weight() * of.runs as f64 / read)
            .sum();
        let live = if self.live > 0 { LIVE } else { 1.0 };
        // One place is enough to rank by.
        (sum * live * 10.0).round() / 10.0
    }

    fn tools<'a>(&'a self, workflow_type: &'a str) -> impl Iterator<Item = ToolOf> + 'a {
        self.calls.iter().filter_map(move |(tool, calls)| {
            let risks = self.risks.values().filter(|of| of.tool == *tool);
            let risks: Vec<Found> = risks.cloned().collect();
            (!risks.is_empty()).then(|| ToolOf {
                tool: tool.clone(),
                workflow_type: workflow_type.to_owned(),
                score: self.score(&risks),
                calls: *calls,
                risks: sorted(risks),
            })
        })
    }

    fn finish(self, workflow_type: String) -> TypeOf {
        let mut risks: Vec<Found> = self.risks.values().cloned().collect();
        if self.proven.is_none() {
            risks.push(Found {
                risk: Risk::NeverProven,
                effect: Risk::NeverProven.effect(),
                tool: String::new(),
                runs: self.read.max(1),
                count: 1,
                detail: String::new(),
                example: None,
            });
        }
        TypeOf {
            workflow_type,
            score: self.score(&risks),
            listed: self.listed,
            live: self.live,
            read: self.read,
            events: self.events,
            proven: self.proven,
            risks: sorted(risks),
        }
    }
}

fn sorted(mut risks: Vec<Found>) -> Vec<Found> {
    risks.sort_by(|one, other| {
        (one.effect, other.runs, one.risk, &one.tool).cmp(&(
            other.effect,
            one.runs,
            other.risk,
            &other.tool,
        ))
    });
    risks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::{OpenCall, Reader, Settings};

    fn run(tool: &str) -> Run {
        let call = OpenCall {
            tool: tool.to_owned(),
            attempt: 3,
            maximum_attempts: 3,
            is_started: true,
            ..OpenCall::default()
        };
        let settings = Settings::default();
        let mut run = Reader::new(&settings).finish(&[call]);
        run.calls.insert(tool.to_owned(), 1);
        run
    }

    fn of<'a>(workflow_type: &'a str, workflow_id: &'a str) -> Of<'a> {
        Of {
            workflow_type,
            workflow_id,
            run_id: "r",
        }
    }

    #[test]
    fn the_worst_comes_first() {
        let mut builder = Builder::default();
        for (name, is_live) in [
            ("Good", true),
            ("Bad", true),
            ("Bad", false),
            ("Old", false),
        ] {
            builder.listed(name, is_live);
        }
        builder.read(of("Bad", "b-1"), run("pay"));
        builder.read(of("Bad", "b-2"), Run::default());
        builder.read(of("Old", "o"), Run::default());
        builder.read(of("Good", "g"), Run::default());
        let proof = Proof {
            at: "2026-01-01T00:00:00Z".into(),
            by: "ci".into(),
        };
        builder.prove(|name| (name == "Good").then(|| proof.clone()));
        let inventory = builder.finish("default", "now".into(), 20, true);
        let scores = inventory.types.iter();
        let scores: Vec<_> = scores
            .map(|of| (of.workflow_type.as_str(), of.score))
            .collect();
        // (8 lost + 4 repeated) in one of two runs, and 1 unknown, of live sessions; 1 unknown; nothing.
        assert_eq!(scores, [("Bad", 14.0), ("Old", 1.0), ("Good", 0.0)]);
        assert_eq!((inventory.listed, inventory.read), (4, 4));
        assert_eq!(inventory.types[2].proven, Some(proof));
        let risks: Vec<_> = inventory.types[0].risks.iter().map(|of| of.risk).collect();
        assert_eq!(
            risks,
            [Risk::LastAttempt, Risk::MadeAgain, Risk::NeverProven]
        );
        let tools: Vec<_> = inventory
            .tools
            .iter()
            .map(|of| (of.tool.as_str(), of.score))
            .collect();
        assert_eq!(tools, [("pay", 12.0)]);
        let json = serde_json::to_string(&inventory).expect("is JSON");
        assert_eq!(
            serde_json::from_str::<Inventory>(&json).expect("is read"),
            inventory
        );
    }
}
