//! Decisions of policies: each in an entry has the request that it was made on, is about the call in the
//! history, and would be made again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Seek};

use super::archive::Archive;
use super::findings::{Code, Findings, Place};
use super::history::Seen;
use super::log::Log;
use crate::Entry;
use crate::Hash;
use crate::bundle::lines::{DecisionLine, Lines};
use crate::bundle::{DECISIONS, is_policies_file, policies_file};
#[cfg(doc)]
use crate::entry::DecisionItem;

/// A file of policies has no more bytes.
const MAX_POLICIES: u64 = 256 << 20;

/// Knows policies, which this crate does not: decides again what was decided.
pub trait Judge {
    /// Takes in a file of policies that were in force. Gives their hash.
    fn policies(&self, file: &[u8]) -> Result<Hash, String>;

    /// Decides a request by policies that were taken in.
    fn decide(&self, policies: &Hash, request: &str) -> Result<Judged, String>;

    /// Whether a request is about this call.
    fn is_about(&self, request: &str, call: &AskedCall<'_>) -> Result<bool, String>;

    /// What stands for the arguments of the call in a request.
    fn arguments_of_request(&self, request: &str) -> Result<Hash, String>;

    /// The same of the event that scheduled it; none if it is no such event. Without bytes: of a call that has
    /// no event, whose arguments cannot be seen.
    fn arguments_of_event(&self, event: &[u8]) -> Option<Hash>;

    /// Is shown each decision with what was asked for it.
    fn see(&self, _of: &Decided<'_>) {}
}

/// A decision in an entry of a bundle.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'a> {
    /// The run.
    pub run_id: &'a str,
    /// Number of the entry.
    pub n: u64,
    /// The event that scheduled or initiated the call.
    pub scheduled_event_id: i64,
    /// Activity id; of others the workflow id of the child or the receiver.
    pub activity_id: &'a str,
    /// Activity type; of others the workflow type, or the signal's name.
    pub activity_type: &'a str,
    /// What was decided.
    pub answer: &'a str,
    /// By these policies.
    pub policies: &'a [String],
    /// What they were asked.
    pub request: &'a str,
}

/// The call that an entry says was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedCall<'a> {
    /// Its kind; empty for a tool call.
    pub kind: &'a str,
    /// Name of the namespace.
    pub namespace: &'a str,
    /// As [`DecisionItem::activity_id`].
    pub activity_id: &'a str,
    /// As [`DecisionItem::activity_type`].
    pub activity_type: &'a str,
}

/// What was decided again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// `allow`, `deny` or `approval`.
    pub answer: &'static str,
    /// Ids of the policies that decided, in order.
    pub policies: Vec<String>,
}

/// Place of a run, number of an entry, place of a decision in it.
type Key = (usize, u64, usize);

/// What entries say of decisions.
#[derive(Default)]
pub(super) struct Decisions {
    of_entries: HashMap<Key, Item>,
    /// What stands for the arguments of calls in histories, by run and event.
    arguments: HashMap<(usize, i64), Option<Hash>>,
}

struct Item {
    namespace: String,
    kind: String,
    scheduled_event_id: i64,
    activity_id: String,
    activity_type: String,
    answer: String,
    policies: Vec<String>,
    policy_hash: Hash,
}

impl Item {
    fn call(&self) -> AskedCall<'_> {
        AskedCall {
            kind: &self.kind,
            namespace: &self.namespace,
            activity_id: &self.activity_id,
            activity_type: &self.activity_type,
        }
    }
}

impl Decisions {
    /// Notes those of an entry.
    pub fn add(&mut self, run: usize, entry: &Entry<'_>) {
        let n = entry.n;
        for (place, item) in entry.decisions.iter().enumerate() {
            let decided = Item {
                namespace: entry.ns.to_string(),
                kind: item.kind.to_string(),
                scheduled_event_id: item.scheduled_event_id,
                activity_id: item.activity_id.to_string(),
                activity_type: item.activity_type.to_string(),
                answer: item.answer.to_string(),
                policies: item.policies.iter().map(ToString::to_string).collect(),
                policy_hash: item.policy_hash,
            };
            self.of_entries.insert((run, n, place), decided);
            if item.scheduled_event_id != 0 {
                self.arguments.insert((run, item.scheduled_event_id), None);
            }
        }
    }

    /// Whether the arguments of a call are asked for.
    pub fn wants(&self, run: usize, event_id: i64) -> bool {
        self.arguments.contains_key(&(run, event_id))
    }

    /// Notes the arguments of calls.
    pub fn learn(&mut self, run: usize, found: Vec<(i64, Hash)>) {
        for (event_id, hash) in found {
            self.arguments.insert((run, event_id), Some(hash));
        }
    }
}

/// Compares all decisions in entries of runs whose histories are there.
pub(super) fn check<R: Read + Seek>(
    archive: &Archive<'_, R>,
    log: &mut Log,
    seen: &BTreeMap<usize, Seen>,
    judge: Option<&dyn Judge>,
    findings: &Findings,
) {
    let mut check = Check {
        decisions: std::mem::take(&mut log.decisions),
        judge,
        known: BTreeSet::new(),
        findings,
    };
    if let Some(judge) = judge {
        check.policies(archive, judge);
    }
    archive.read(DECISIONS, |input| {
        let mut lines = Lines::decisions(input);
        loop {
            match lines.next_decision() {
                Ok(Some(line)) => check.line(log, &line),
                Ok(None) => break,
                Err(error) => {
                    findings.add(Code::FileMalformed, Place::file(DECISIONS), error);
                    break;
                }
            }
        }
    });
    let mut erased = BTreeSet::new();
    let mut left: Vec<Key> = check.decisions.of_entries.keys().copied().collect();
    left.sort_unstable();
    for key in left {
        let decided = &check.decisions.of_entries[&key];
        if decided.answer == "deny" && decided.policies.is_empty() {
            // Refused as it could not be asked.
            continue;
        }
        let (run, n, _) = key;
        let run_id = &log.runs[run].run_id;
        match seen.get(&run) {
            Some(seen) if !seen.is_erased => {
                let place = Place::file(DECISIONS).run(run_id).entry(n);
                let detail = "what was asked for a decision of this entry is not there";
                findings.add(Code::DecisionMissing, place, detail);
            }
            _ => {
                erased.insert(run_id.clone());
            }
        }
    }
    let unchecked = erased.into_iter();
    log.unchecked.extend(unchecked.map(|run_id| {
        format!(
            "run {run_id}: decisions of policies about calls whose arguments are not in the bundle"
        )
    }));
    if judge.is_none() && archive.has(DECISIONS) {
        let what = "whether the policies would decide the same again";
        log.unchecked.push(what.to_owned());
    }
}

struct Check<'a> {
    decisions: Decisions,
    judge: Option<&'a dyn Judge>,
    /// Policies that can be asked.
    known: BTreeSet<Hash>,
    findings: &'a Findings,
}

impl Check<'_> {
    fn policies<R: Read + Seek>(&mut self, archive: &Archive<'_, R>, judge: &dyn Judge) {
        for name in archive.names().iter().filter(|name| is_policies_file(name)) {
            let Some(content) = archive.read_all(name, MAX_POLICIES) else {
                continue;
            };
            match judge.policies(&content) {
                Ok(hash) if policies_file(&hash) == *name => {
                    self.known.insert(hash);
                }
                Ok(_) => {
                    let detail = "they have another hash";
                    self.findings
                        .add(Code::PoliciesAltered, Place::file(name), detail);
                }
                Err(error) => {
                    self.findings
                        .add(Code::PoliciesAltered, Place::file(name), error);
                }
            }
        }
    }

    fn line(&mut self, log: &Log, line: &DecisionLine) {
        let place = Place::file(DECISIONS).run(&line.run_id).entry(line.n);
        let wrong = |detail: String| {
            self.findings
                .add(Code::DecisionFalse, place.clone(), detail);
        };
        let decided = log.place_of(&line.run_id).and_then(|run| {
            let key = (run, line.n, line.place);
            Some((run, self.decisions.of_entries.remove(&key)?))
        });
        let Some((run, decided)) = decided else {
            return wrong("there is no such decision in the entry, or it came before".to_owned());
        };
        let Some(judge) = self.judge else {
            return;
        };
        let request = line.request.get();
        judge.see(&Decided {
            run_id: &line.run_id,
            n: line.n,
            scheduled_event_id: decided.scheduled_event_id,
            activity_id: &decided.activity_id,
            activity_type: &decided.activity_type,
            answer: &decided.answer,
            policies: &decided.policies,
            request,
        });
        match judge.is_about(request, &decided.call()) {
            Ok(true) => {}
            Ok(false) => return wrong("the request is about another call".to_owned()),
            Err(error) => return wrong(error),
        }
        let event = (run, decided.scheduled_event_id);
        let of_event = match decided.scheduled_event_id {
            0 => judge.arguments_of_event(&[]),
            _ => self.decisions.arguments.get(&event).copied().flatten(),
        };
        match (judge.arguments_of_request(request), of_event) {
            (Ok(of_request), Some(of_event)) if of_request == of_event => {}
            (Err(error), _) => return wrong(error),
            _ => {
                let id = decided.scheduled_event_id;
                return wrong(format!("event {id} has no such arguments"));
            }
        }
        if !self.known.contains(&decided.policy_hash) {
            let detail = "the policies that decided this are not there";
            return self
                .findings
                .add(Code::DecisionMissing, place.clone(), detail);
        }
        match judge.decide(&decided.policy_hash, request) {
            Ok(judged)
                if judged.answer == decided.answer && judged.policies == decided.policies => {}
            Ok(judged) => wrong(format!(
                "the entry says {} by {}, and the policies say {} by {}",
                decided.answer,
                names(&decided.policies),
                judged.answer,
                names(&judged.policies)
            )),
            Err(error) => wrong(error),
        }
    }
}

fn names(policies: &[String]) -> String {
    match policies.is_empty() {
        true => "no policy".to_owned(),
        false => policies.join(", "),
    }
}
