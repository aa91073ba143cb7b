//! The history of a run, compared with what its entries say.

use std::io::{BufRead, Read, Seek};

use super::archive::Archive;
use super::decisions::Judge;
use super::findings::{Code, Findings, Place};
use super::gaps::Gaps;
use super::log::{Log, Run, Segment};
use crate::Hash;
use crate::bundle::lines::{Frames, LineError, Lines, Payloads, event_id};
use crate::bundle::{history_file, payloads_file};
use crate::entry::EventRange;
use crate::skeleton::{Secret, hash_with};
use crate::tree::root_of;

/// A history is followed through so many resets.
const MAX_BASES: usize = 1000;

/// What a history has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub events: u64,
    pub is_erased: bool,
}

/// What is known of an event.
enum Known {
    Hash(Hash),
    /// It is one of those that a root is known of.
    InRange(EventRange),
    /// Its entry is not in the bundle.
    Unknown,
    /// No entry lists it.
    Unlisted,
}

impl Log {
    /// What the entries say of an event of a run's history.
    fn known(&self, place: usize, event_id: i64) -> Known {
        let mut at = place;
        for _ in 0..MAX_BASES {
            let run = &self.runs[at];
            if event_id >= run.chain.first_event_id {
                return match (run.listed(event_id), at == place) {
                    // Only some of them may be there.
                    (Known::InRange(_), false) => Known::Unknown,
                    (known, _) => known,
                };
            }
            match run.base.filter(|base| self.runs[*base].chain.is_whole) {
                Some(base) => at = base,
                None => return Known::Unknown,
            }
        }
        Known::Unknown
    }
}

impl Run {
    /// What its own entries say of an event.
    fn listed(&self, event_id: i64) -> Known {
        let after = self.segments.partition_point(|of| of.first() <= event_id);
        match after.checked_sub(1).and_then(|at| self.segments.get(at)) {
            Some(Segment::Listed { first, hashes }) => {
                let at = usize::try_from(event_id - first).unwrap_or(usize::MAX);
                hashes
                    .get(at)
                    .map_or(Known::Unlisted, |hash| Known::Hash(*hash))
            }
            Some(Segment::Range(range)) if event_id <= range.last => Known::InRange(range.clone()),
            _ => Known::Unlisted,
        }
    }
}

/// Compares the history of the run at a place.
pub(super) fn check<R: Read + Seek>(
    archive: &Archive<'_, R>,
    log: &mut Log,
    place: usize,
    judge: Option<&dyn Judge>,
    findings: &Findings,
) -> Option<Seen> {
    let run_id = log.runs[place].run_id.clone();
    let file = history_file(&run_id);
    let mut check = Check {
        file: &file,
        run_id: &run_id,
        place,
        next: 1,
        gaps: Gaps::default(),
        range: None,
        verified: Vec::new(),
        is_unknown: false,
        seen: Seen::default(),
        judge,
        arguments: Vec::new(),
        findings,
    };
    archive.read(&file, |events| {
        archive.read(&payloads_file(&run_id), |payloads| {
            check.walk(log, Frames::new(events), PayloadLines::new(payloads));
        })
    })?;
    let (seen, is_unknown) = (check.seen, check.is_unknown);
    let verified = std::mem::take(&mut check.verified);
    let arguments = std::mem::take(&mut check.arguments);
    log.decisions.learn(place, arguments);
    for (first, hashes) in verified {
        log.runs[place].replace(first, hashes);
    }
    if is_unknown {
        log.unchecked.push(format!(
            "run {run_id}: events that it has from a run whose history is not in the bundle"
        ));
    }
    Some(seen)
}

impl Run {
    /// Puts the hashes of events in the place of their root, for runs that begin with some of them.
    fn replace(&mut self, of: i64, hashes: Vec<Hash>) {
        let at = self
            .segments
            .partition_point(|segment| segment.first() < of);
        if let Some(segment @ Segment::Range(_)) = self.segments.get_mut(at) {
            *segment = Segment::Listed { first: of, hashes };
        }
    }
}

struct Check<'a> {
    file: &'a str,
    run_id: &'a str,
    place: usize,
    /// The event that is expected next.
    next: i64,
    /// Events that did not come yet.
    gaps: Gaps<i64>,
    /// The events with one root that are coming.
    range: Option<OpenRange>,
    /// Ranges that were as their roots say, by their first event.
    verified: Vec<(i64, Vec<Hash>)>,
    is_unknown: bool,
    seen: Seen,
    judge: Option<&'a dyn Judge>,
    /// What stands for the arguments of calls that were decided.
    arguments: Vec<(i64, Hash)>,
    findings: &'a Findings,
}

struct OpenRange {
    range: EventRange,
    hashes: Vec<Hash>,
}

impl Check<'_> {
    fn walk<E: BufRead, P: BufRead>(
        &mut self,
        log: &Log,
        mut events: Frames<E>,
        mut payloads: PayloadLines<P>,
    ) {
        let before = self.findings.count();
        loop {
            let event = match events.next() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    // It cannot be known what comes after it.
                    return self.add(Code::EventAltered, self.next, error);
                }
            };
            let id = event_id(event).unwrap_or(self.next);
            let of_event = match payloads.of(id) {
                Ok(of_event) => of_event,
                Err(error) => return self.add_payloads(error),
            };
            let spans = of_event.map_or(&[][..], |payloads| &payloads.spans);
            self.seen.events += 1;
            self.seen.is_erased |= spans
                .iter()
                .any(|(_, secret)| matches!(secret, Secret::Erased(_)));
            if let Some(judge) = self.judge.filter(|_| log.decisions.wants(self.place, id)) {
                let arguments = judge.arguments_of_event(event);
                self.arguments.extend(arguments.map(|of| (id, of)));
            }
            match hash_with(event, spans) {
                Ok(hash) => self.event(log, id, hash),
                Err(error) => {
                    self.add(Code::EventAltered, id, error);
                    self.pass(id);
                }
            }
        }
        self.close(log);
        match payloads.left() {
            // Where events are missing, their lines are left over.
            Ok(Some(id)) if self.findings.count() == before => {
                self.add_payloads(format!("a line is about event {id}, which is not there"));
            }
            Ok(_) => {}
            Err(error) => self.add_payloads(error),
        }
    }

    fn add_payloads(&self, detail: impl std::fmt::Display) {
        let place = Place::file(&payloads_file(self.run_id)).run(self.run_id);
        self.findings.add(Code::FileMalformed, place, detail);
    }

    fn event(&mut self, log: &Log, id: i64, hash: Hash) {
        if id < self.next {
            self.gaps.fill(id);
            let detail = format!("it comes after event {}", self.next - 1);
            return self.add(Code::OrderChanged, id, detail);
        }
        let known = log.known(self.place, id);
        let is_listed = match &known {
            Known::Hash(listed) => *listed == hash,
            _ => true,
        };
        if !is_listed && id > self.next {
            // What it says its id is may be what was altered.
            let detail = format!("event {} is expected here", self.next);
            self.add(Code::EventAltered, self.next, detail);
            self.pass(self.next);
            return;
        }
        match known {
            Known::Hash(_) if is_listed => {}
            Known::Hash(listed) => {
                let detail = format!("its hash is {hash}, and its entry says {listed}");
                self.add(Code::EventAltered, id, detail);
            }
            Known::InRange(range) => self.in_range(range, id, hash),
            Known::Unknown => self.is_unknown = true,
            Known::Unlisted => self.add(Code::EventUnexpected, id, "it is in no entry"),
        }
        self.pass(id);
    }

    /// Goes on after an event.
    fn pass(&mut self, id: i64) {
        if id > self.next {
            self.gaps.open(self.next, id - 1);
        }
        self.next = self.next.max(id.saturating_add(1));
    }

    fn in_range(&mut self, range: EventRange, id: i64, hash: Hash) {
        if id == range.first {
            let hashes = Vec::new();
            self.range = Some(OpenRange { range, hashes });
        }
        let Some(open) = &mut self.range else {
            return;
        };
        open.hashes.push(hash);
        if id != open.range.last {
            return;
        }
        let Some(OpenRange { range, hashes }) = self.range.take() else {
            return;
        };
        let (first, last) = (range.first, range.last);
        if last.abs_diff(first) + 1 != hashes.len() as u64 {
            // Some are missing, which is said elsewhere.
            return;
        }
        match root_of(hashes.iter().map(|hash| Hash::leaf(&hash.0))) == range.root {
            true => self.verified.push((first, hashes)),
            false => {
                let detail = format!("one of the events from it to {last}: their root is another");
                self.add(Code::EventAltered, first, detail);
            }
        }
    }

    fn close(&mut self, log: &Log) {
        for (first, last) in self.gaps.iter() {
            let detail = match first == last {
                true => "it is not there".to_owned(),
                false => format!("the events from it to {last} are not there"),
            };
            self.add(Code::EventMissing, first, detail);
        }
        let end = log.runs[self.place].chain.next_event_id;
        if self.next < end {
            let detail = format!("the history ends before it; it has {} events", end - 1);
            self.add(Code::HistoryTruncated, self.next, detail);
        }
    }

    fn add(&self, code: Code, event_id: i64, detail: impl std::fmt::Display) {
        let place = Place::file(self.file).run(self.run_id).event(event_id);
        self.findings.add(code, place, detail);
    }
}

/// The lines about payloads, beside the events.
struct PayloadLines<R> {
    lines: Lines<R>,
    next: Option<Payloads>,
    is_used: bool,
    /// The first event that there is a line about, and that did not come.
    unused: Option<i64>,
}

impl<R: BufRead> PayloadLines<R> {
    fn new(input: R) -> Self {
        Self {
            lines: Lines::payloads(input),
            next: None,
            is_used: false,
            unused: None,
        }
    }

    /// The payloads of an event. Those of events before it are left out.
    fn of(&mut self, event_id: i64) -> Result<Option<&Payloads>, LineError> {
        while self
            .next
            .as_ref()
            .is_none_or(|next| next.event_id < event_id)
        {
            match self.advance()? {
                true => {}
                false => break,
            }
        }
        let next = self.next.as_ref();
        let found = next.filter(|next| next.event_id == event_id);
        self.is_used |= found.is_some();
        Ok(found)
    }

    /// Goes to the next line. Whether there was one.
    fn advance(&mut self) -> Result<bool, LineError> {
        if let Some(left) = self.next.take().filter(|_| !self.is_used) {
            self.unused.get_or_insert(left.event_id);
        }
        self.is_used = false;
        self.next = self.lines.next_payloads()?;
        Ok(self.next.is_some())
    }

    /// An event that there is a line about, and that did not come. Reads all that is left.
    fn left(&mut self) -> Result<Option<i64>, LineError> {
        while self.advance()? {}
        Ok(self.unused)
    }
}
