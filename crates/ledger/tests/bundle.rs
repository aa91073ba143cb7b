//! Bundles are verified, and whatever is changed in one is found and named.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};

use steadfast_ledger::bundle::{
    BundleError, BundleWriter, Claim, Code, Detail, Head, Limits, Report, Scope, Trust, Verdict,
    verify,
};
use steadfast_ledger::checkpoint::Checkpoint;
use steadfast_ledger::cosignature::CosigningKey;
use steadfast_ledger::entry::{
    AttemptItem, BufferedItem, Cause, EventItem, EventRange, Follows, Note, Time, VERSION,
};
use steadfast_ledger::note::{SigningKey, VerifierKey};
use steadfast_ledger::skeleton::{SaltKey, Secret, Span, hash_with, restore, skeleton};
use steadfast_ledger::tree::{Node, multiproof_nodes, root_of};
use steadfast_ledger::{Entry, Hash, note};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

const ORIGIN: &str = "log.example/default";
const SESSION: &str = "order-7";

fn log_key(seed: u8) -> SigningKey {
    SigningKey::new(ORIGIN, [seed; 32]).expect("is a name")
}

fn witness() -> CosigningKey {
    CosigningKey::new("witness.example/w1", [9; 32]).expect("is a name")
}

/// An event as it is stored, with its payloads.
#[derive(Clone)]
struct Event {
    bytes: Vec<u8>,
    payloads: Vec<(Span, Secret)>,
}

impl Event {
    fn hash(&self) -> Hash {
        hash_with(&self.bytes, &self.payloads).expect("spans fit")
    }
}

/// A log, and the histories of the runs in it.
#[derive(Clone, Default)]
struct World {
    log: Vec<Vec<u8>>,
    histories: BTreeMap<String, Vec<Event>>,
    ends: BTreeMap<String, (u64, Hash)>,
}

/// A change of an entry before it is written.
type Change<'a> = &'a dyn Fn(&mut Entry<'_>);

impl World {
    /// Appends an entry of a run, with the next events of its history.
    fn step(&mut self, run_id: &str, events: &[&str], change: Change<'_>) {
        let salts = SaltKey(Hash::of(run_id.as_bytes()).0);
        let history = self.histories.entry(run_id.to_owned()).or_default();
        let mut items = Vec::new();
        for event_type in events {
            let id = history.len() as i64 + 1;
            let event = event(id, event_type, &salts);
            items.push(EventItem {
                hash: event.hash(),
                id,
                event_type: (*event_type).to_owned().into(),
                ..EventItem::default()
            });
            history.push(event);
        }
        self.append(SESSION, run_id, items, change);
    }

    fn append(
        &mut self,
        workflow: &str,
        run: &str,
        events: Vec<EventItem<'_>>,
        change: Change<'_>,
    ) {
        let (n, prev) = match self.ends.get(run) {
            Some((n, hash)) => (n + 1, Some(*hash)),
            None => (1, None),
        };
        let mut entry = Entry {
            cause: Cause {
                auth: "oidc".into(),
                call: "RespondWorkflowTaskCompleted".into(),
                principal: "alice".into(),
            },
            events,
            n,
            ns: "default".into(),
            prev,
            run_id: run.into(),
            t: Time(1_700_000_000_000_000_000 + self.log.len() as i64),
            v: VERSION,
            workflow_id: workflow.into(),
            ..Entry::default()
        };
        change(&mut entry);
        let mut text = String::new();
        entry.write(&mut text);
        self.ends
            .insert(run.to_owned(), (n, Hash::leaf(text.as_bytes())));
        self.log.push(text.into_bytes());
    }

    /// Entries of other sessions.
    fn noise(&mut self, count: usize) {
        for _ in 0..count {
            self.append("another", "another", Vec::new(), &|_| {});
        }
    }

    fn note(&mut self, what: &'static str, workflow_id: &'static str) {
        self.append("", "", Vec::new(), &move |entry| {
            entry.note = Some(Note {
                what: what.into(),
                workflow_id: workflow_id.into(),
                detail: "<b>why</b>".into(),
                ..Note::default()
            });
        });
    }

    /// A run that follows another one, as of now.
    fn follow(&mut self, run_id: &str, before: &str, event_id: i64, events: &[&str]) {
        let (_, end) = self.ends[before];
        let shared = self.histories[before][..event_id as usize].to_vec();
        self.histories.insert(run_id.to_owned(), shared);
        let before = before.to_owned();
        self.step(run_id, events, &move |entry| {
            entry.follows = Some(Follows {
                entry: Some(end),
                event_id,
                run_id: before.clone().into(),
            });
        });
    }

    fn erase(&mut self, run_id: &str) {
        let salts = SaltKey(Hash::of(run_id.as_bytes()).0);
        let history = self.histories.get_mut(run_id).expect("is there");
        for (id, event) in (1..).zip(history) {
            let spans: Vec<Span> = event.payloads.iter().map(|(span, _)| *span).collect();
            let skeleton = skeleton(&event.bytes, &spans, &salts, id).expect("spans fit");
            let (bytes, erased) = restore(&skeleton).expect("a skeleton");
            let payloads = erased.into_iter();
            *event = Event {
                bytes,
                payloads: payloads
                    .map(|(span, hash)| (span, Secret::Erased(hash)))
                    .collect(),
            };
        }
    }

    fn hash_of(&self, node: Node) -> Hash {
        let first = (node.index << node.level) as usize;
        let leaves = &self.log[first..first + (1 << node.level)];
        root_of(leaves.iter().map(|entry| Hash::leaf(entry)))
    }

    fn checkpoint(&self, key: &SigningKey) -> String {
        let checkpoint = Checkpoint {
            origin: ORIGIN.into(),
            size: self.log.len() as u64,
            root: root_of(self.log.iter().map(|entry| Hash::leaf(entry))),
            extensions: Vec::new(),
        };
        let signed = checkpoint.sign(&[key]).expect("is signed");
        let mut note = note::Note::parse(signed).expect("is a note");
        let cosignature = witness().cosign(note.text(), 1_700_000_001);
        note.add(cosignature.expect("is signed")).expect("is added");
        note.to_string()
    }

    /// A bundle of this, which the log's key signs.
    fn bundle(&self, scope: Scope) -> Vec<u8> {
        let key = log_key(1);
        self.bundle_with(scope, &self.checkpoint(&key), &key)
            .expect("is written")
    }

    fn session(&self) -> Vec<u8> {
        self.bundle(session())
    }

    fn bundle_with(
        &self,
        scope: Scope,
        checkpoint: &str,
        key: &SigningKey,
    ) -> Result<Vec<u8>, BundleError> {
        let size = Checkpoint::parse(note::Note::parse(checkpoint)?.text())?.size;
        let indexes: Vec<u64> = (0..self.log.len() as u64)
            .filter(|index| is_in(&scope, *index, &self.entry(*index)))
            .collect();
        let head = Head {
            namespace: "default",
            scope,
            made: Time(1_700_000_002_000_000_000),
            checkpoint,
            log_keys: &[key.verifier().clone()],
            witness_keys: &[witness().verifier().clone()],
        };
        let spools = [Cursor::new(Vec::new()), Cursor::new(Vec::new())];
        let mut bundle = BundleWriter::new(Vec::new(), spools, head)?;
        for index in &indexes {
            let detail = Detail {
                event_id: 1,
                text: "with <i>this</i>",
            };
            bundle.entry(*index, &self.log[*index as usize], &[detail])?;
        }
        for node in multiproof_nodes(indexes, size) {
            bundle.node(node, &self.hash_of(node))?;
        }
        let runs: Vec<(String, i64)> = bundle
            .runs()
            .filter_map(|run| Some((run.run_id.to_owned(), run.last_event_id?)))
            .collect();
        for (run_id, last) in runs {
            let Some(history) = self.histories.get(&run_id) else {
                continue;
            };
            bundle.begin_history(&run_id)?;
            for event in history.iter().take(last as usize) {
                bundle.event(&event.bytes, &event.payloads)?;
            }
        }
        bundle.finish(key)
    }

    fn entry(&self, index: u64) -> Entry<'_> {
        Entry::parse(&self.log[index as usize]).expect("an entry")
    }
}

fn session() -> Scope {
    Scope::Session {
        workflow_id: SESSION.into(),
    }
}

fn is_in(scope: &Scope, index: u64, entry: &Entry<'_>) -> bool {
    match scope {
        Scope::Session { workflow_id } => {
            let about = entry.note.as_ref().map(|note| &note.workflow_id);
            about.unwrap_or(&entry.workflow_id) == workflow_id.as_str()
        }
        Scope::Principal { principal } => entry.cause.principal == principal.as_str(),
        Scope::Range { from, to } => (*from..*to).contains(&index),
    }
}

/// `{ 1: id, 3: number, 20: { 1: payload }, 21: text }`
fn event(id: i64, event_type: &str, salts: &SaltKey) -> Event {
    let payload = format!("secret of {event_type} {id}");
    let mut bytes = vec![0x08, id as u8, 0x18, event_type.len() as u8, 0xa2, 0x01];
    bytes.extend([payload.len() as u8 + 2, 0x0a, payload.len() as u8]);
    let offset = bytes.len() as u32;
    bytes.extend(payload.as_bytes());
    bytes.extend(b"\xaa\x01\x04text");
    let span = Span {
        offset,
        length: payload.len() as u32,
    };
    Event {
        bytes,
        payloads: vec![(span, Secret::Salt(salts.salt(id, 0)))],
    }
}

/// A session with a bit of everything.
fn world() -> World {
    let mut world = World::default();
    world.note("namespace/registered", "");
    world.noise(3);
    world.step(
        "first",
        &["WORKFLOW_EXECUTION_STARTED", "WORKFLOW_TASK_SCHEDULED"],
        &|entry| entry.cause.call = "StartWorkflowExecution".into(),
    );
    world.noise(1);
    world.step("first", &[], &|entry| {
        entry.buffered = vec![BufferedItem {
            hash: Hash::of(b"buffered"),
            event_type: "WORKFLOW_EXECUTION_SIGNALED".into(),
        }];
    });
    world.step(
        "first",
        &[
            "WORKFLOW_TASK_COMPLETED",
            "ACTIVITY_TASK_SCHEDULED",
            "WORKFLOW_EXECUTION_SIGNALED",
        ],
        &|_| {},
    );
    world.step("first", &[], &|entry| {
        entry.attempts = vec![AttemptItem {
            activity_id: "1".into(),
            activity_type: "pay<script>".into(),
            attempt: 2,
            last_failure: "application/Declined".into(),
            scheduled_event_id: 4,
            state: "scheduled".into(),
            worker: "".into(),
        }];
    });
    world.noise(5);
    // Events that there are too many of to list.
    world.step("first", &["TIMER_STARTED"; 6], &|entry| {
        let (first, last) = (entry.events[0].id, entry.events[5].id);
        let leaves = entry.events.iter().map(|event| Hash::leaf(&event.hash.0));
        let root = root_of(leaves);
        entry.event_range = Some(EventRange { first, last, root });
        entry.events.clear();
    });
    world.step(
        "first",
        &["WORKFLOW_EXECUTION_CONTINUED_AS_NEW"],
        &|entry| {
            entry.closed = "CONTINUED_AS_NEW".into();
        },
    );
    // Goes on as a new run.
    world.follow("second", "first", 0, &["WORKFLOW_EXECUTION_STARTED"]);
    world.step("second", &["WORKFLOW_TASK_FAILED"], &|_| {});
    world.noise(2);
    // Reset: begins in the middle of the events that are not listed.
    world.follow(
        "third",
        "first",
        8,
        &["WORKFLOW_TASK_FAILED", "TIMER_FIRED"],
    );
    world.step("third", &["WORKFLOW_EXECUTION_COMPLETED"], &|entry| {
        entry.closed = "COMPLETED".into();
    });
    world.step(
        "erased",
        &["WORKFLOW_EXECUTION_STARTED", "TIMER_STARTED"],
        &|_| {},
    );
    world.note("evidence/erased", SESSION);
    world.erase("erased");
    world.step("deleted", &["WORKFLOW_EXECUTION_STARTED"], &|_| {});
    world.noise(1);
    world.step("deleted", &[], &|entry| entry.deleted = true);
    world.histories.remove("deleted");
    world.noise(4);
    world
}

fn check(bundle: &[u8]) -> Report {
    check_with(bundle, &[log_key(1).verifier().clone()], 1)
}

fn check_with(bundle: &[u8], log: &[VerifierKey], quorum: usize) -> Report {
    let witnesses = [witness().verifier().clone()];
    let trust = Trust {
        log,
        witnesses: &witnesses,
        quorum,
    };
    verify(Cursor::new(bundle), &trust, &Limits::default())
}

/// Asserts that a finding with a code names a place.
#[track_caller]
fn assert_found(bundle: &[u8], code: Code, place: &str) {
    let report = check(bundle);
    assert_eq!(report.verdict, Verdict::Failed);
    let found = report
        .findings
        .iter()
        .any(|finding| finding.code == code && finding.place.to_string().contains(place));
    assert!(found, "no {code} at {place} in:\n{report}");
}

#[track_caller]
fn assert_verified(bundle: &[u8]) -> Report {
    let report = check(bundle);
    assert_eq!(report.verdict, Verdict::Verified, "{report}");
    report
}

type Files = Vec<(String, Vec<u8>)>;

fn unpack(bundle: &[u8]) -> Files {
    let mut zip = ZipArchive::new(Cursor::new(bundle)).expect("is a ZIP");
    let read = |index| {
        let mut file = zip.by_index(index).expect("is there");
        let mut content = Vec::new();
        file.read_to_end(&mut content).expect("can be read");
        (file.name().expect("has a name").into_owned(), content)
    };
    (0..zip_len(bundle)).map(read).collect()
}

fn zip_len(bundle: &[u8]) -> usize {
    ZipArchive::new(Cursor::new(bundle))
        .expect("is a ZIP")
        .len()
}

fn pack(files: &Files) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::DEFAULT.compression_method(CompressionMethod::Stored);
    for (name, content) in files {
        zip.start_file(name, options).expect("is begun");
        zip.write_all(content).expect("is written");
    }
    zip.finish().expect("is finished").into_inner()
}

/// A session's bundle with one of its files changed.
fn changed(name: &str, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut files = unpack(&world().session());
    let (_, content) = files
        .iter_mut()
        .find(|(of, _)| of == name)
        .expect("is there");
    change(content);
    pack(&files)
}

fn changed_lines(name: &str, change: impl Fn(&mut Vec<String>)) -> Vec<u8> {
    changed(name, |content| {
        let text = String::from_utf8(content.clone()).expect("is a text");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        *content = lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>()
            .into();
    })
}

#[test]
fn a_session_is_verified() {
    let report = assert_verified(&world().session());
    let manifest = report.manifest.expect("is there");
    let claims: Vec<(&str, Claim, Option<u64>)> = manifest
        .runs
        .iter()
        .map(|run| (run.run_id.as_str(), run.claim, run.events))
        .collect();
    let expected = [
        ("first", Claim::Complete, Some(12)),
        ("second", Claim::AsOf, Some(2)),
        ("third", Claim::Complete, Some(11)),
        ("erased", Claim::AsOf, Some(2)),
        ("deleted", Claim::Complete, None),
    ];
    assert_eq!(claims, expected);
    assert!(manifest.runs[3].erased && manifest.runs[4].deleted);
    assert_eq!(manifest.counts.notes, 1);
    assert_eq!(report.witnesses.len(), 1);
    assert_eq!(report.unchecked, Vec::<String>::new());
    assert_verified(&pack(&unpack(&world().session())));
}

#[test]
fn the_files_are_in_their_order() {
    let names: Vec<String> = unpack(&world().session())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let expected = [
        "README.txt",
        "checkpoint",
        "entries.jsonl",
        "tree.jsonl",
        "history/first.binpb",
        "history/first.payloads.jsonl",
        "history/second.binpb",
        "history/second.payloads.jsonl",
        "history/third.binpb",
        "history/third.payloads.jsonl",
        "history/erased.binpb",
        "history/erased.payloads.jsonl",
        "report.html",
        "manifest.json",
        "statement.dsse.json",
    ];
    assert_eq!(names, expected);
}

#[test]
fn the_same_bundle_twice_has_the_same_bytes() {
    assert_eq!(world().session(), world().session());
}

#[test]
fn parts_of_the_log_are_verified() {
    let world = world();
    let size = world.log.len() as u64;
    for (from, to) in [(0, size), (0, 1), (5, 12), (size - 3, size)] {
        let report = assert_verified(&world.bundle(Scope::Range { from, to }));
        let counts = report.manifest.expect("is there").counts;
        assert_eq!(counts.entries, to - from);
    }
    for at in 0..size {
        let (from, to) = (at, at + 1);
        assert_verified(&world.bundle(Scope::Range { from, to }));
    }
}

#[test]
fn what_a_principal_did_is_verified() {
    let mut world = world();
    world.step("second", &["TIMER_STARTED"], &|entry| {
        entry.cause.principal = "bob".into();
    });
    let scope = Scope::Principal {
        principal: "bob".into(),
    };
    let report = assert_verified(&world.bundle(scope));
    let runs = report.manifest.expect("is there").runs;
    assert_eq!(runs.len(), 1);
    assert_eq!((runs[0].entries, runs[0].last_entry), (1, 3));
    assert_eq!((runs[0].claim, runs[0].events), (Claim::Partial, None));
}

#[test]
fn a_changed_byte_of_an_event_is_found() {
    let mut world = world();
    let events = world.histories.get_mut("first").expect("is there");
    *events[1].bytes.last_mut().expect("has bytes") ^= 1;
    assert_found(&world.session(), Code::EventAltered, "run first, event 2");
    // The log's key signed that one. Here it did not.
    let bundle = changed("history/first.binpb", |content| content[80] ^= 1);
    assert_found(&bundle, Code::FileAltered, "history/first.binpb");
    assert_found(&bundle, Code::EventAltered, "run first, event 2");
}

#[test]
fn a_changed_payload_is_found() {
    let mut world = world();
    let events = world.histories.get_mut("second").expect("is there");
    let offset = events[0].payloads[0].0.offset as usize;
    events[0].bytes[offset] ^= 1;
    assert_found(&world.session(), Code::EventAltered, "run second, event 1");
}

#[test]
fn nothing_can_be_put_in_the_place_of_what_was_erased() {
    let mut world = world();
    let events = world.histories.get_mut("erased").expect("is there");
    let offset = events[0].payloads[0].0.offset as usize;
    events[0].bytes[offset] = b'!';
    assert_found(&world.session(), Code::EventAltered, "run erased, event 1");
}

#[test]
fn a_changed_event_that_is_not_listed_is_found() {
    let mut world = world();
    let events = world.histories.get_mut("first").expect("is there");
    *events[8].bytes.last_mut().expect("has bytes") ^= 1;
    assert_found(&world.session(), Code::EventAltered, "run first, event 6");
}

#[test]
fn a_changed_event_of_the_run_before_a_reset_is_found() {
    let mut world = world();
    for event in [3, 7] {
        let events = world.histories.get_mut("third").expect("is there");
        *events[event].bytes.last_mut().expect("has bytes") ^= 1;
        let place = format!("run third, event {}", event + 1);
        assert_found(&world.session(), Code::EventAltered, &place);
    }
}

#[test]
fn a_removed_entry_is_found() {
    let bundle = changed_lines("entries.jsonl", |lines| {
        lines.remove(2);
    });
    assert_found(&bundle, Code::EntryMissing, "index 7");
    assert_found(&bundle, Code::EntryMissing, "run first, entry 3");
    // With its hash in its place, the tree is whole.
    let world = world();
    let bundle = changed_lines("entries.jsonl", |lines| {
        lines.remove(2);
    });
    let mut files = unpack(&bundle);
    let hash = Hash::leaf(&world.log[7]);
    let text = String::from_utf8(files[3].1.clone()).expect("is a text");
    let mut lines: Vec<&str> = text.lines().collect();
    let line = format!("{{\"hash\":\"{hash}\",\"index\":7,\"level\":0}}");
    let at = lines
        .iter()
        .position(|line| line.contains("\"index\":10,\"level\":0"));
    lines.insert(at.unwrap_or(2), &line);
    files[3].1 = lines
        .iter()
        .map(|line| format!("{line}\n"))
        .collect::<String>()
        .into();
    assert_found(&pack(&files), Code::EntryMissing, "run first, entry 3");
}

#[test]
fn entries_in_another_order_are_found() {
    let bundle = changed_lines("entries.jsonl", |lines| lines.swap(1, 2));
    assert_found(&bundle, Code::OrderChanged, "entries.jsonl, index 6");
    assert_found(&bundle, Code::OrderChanged, "run first, entry 2");
    let report = check(&bundle);
    let codes: Vec<Code> = report.findings.iter().map(|finding| finding.code).collect();
    assert!(!codes.contains(&Code::EntryMissing), "{report}");
}

#[test]
fn events_in_another_order_are_found() {
    let mut world = world();
    let events = world.histories.get_mut("first").expect("is there");
    events.swap(2, 3);
    assert_found(&world.session(), Code::OrderChanged, "run first, event 3");
}

#[test]
fn a_truncated_history_is_found() {
    let mut world = world();
    let events = world.histories.get_mut("first").expect("is there");
    events.pop();
    assert_found(
        &world.session(),
        Code::HistoryTruncated,
        "run first, event 12",
    );
    let bundle = changed("history/second.binpb", |content| {
        content.pop();
    });
    assert_found(&bundle, Code::EventAltered, "run second, event 2");
}

#[test]
fn a_removed_event_is_found() {
    let mut world = world();
    world
        .histories
        .get_mut("first")
        .expect("is there")
        .remove(2);
    assert_found(&world.session(), Code::EventMissing, "run first, event 3");
}

#[test]
fn an_event_too_many_is_found() {
    let bundle = changed("history/second.binpb", |content| {
        let first = content[..usize::from(content[1]) + 2].to_vec();
        content.extend(first);
        content.extend(b"\x0a\x02\x08\x09");
    });
    assert_found(&bundle, Code::OrderChanged, "run second, event 1");
    assert_found(&bundle, Code::EventUnexpected, "run second, event 9");
}

#[test]
fn an_altered_entry_is_found() {
    let rename = |line: &mut String| *line = line.replacen("alice", "mallory", 1);
    for (line, place) in [
        (0, "index 4, run first, entry 1"),
        (2, "index 7, run first, entry 3"),
    ] {
        let bundle = changed_lines("entries.jsonl", |lines| rename(&mut lines[line]));
        assert_found(&bundle, Code::EntryAltered, place);
        assert_found(&bundle, Code::RootMismatch, "");
    }
    let bundle = changed_lines("entries.jsonl", |lines| {
        lines[3] = lines[3].replace("\"n\":4", "\"n\": 4");
    });
    assert_found(&bundle, Code::EntryAltered, "index 8");
}

#[test]
fn an_altered_node_is_found() {
    let bundle = changed_lines("tree.jsonl", |lines| {
        lines[1] = lines[0].replace("\"index\":0,\"level\":2", "\"index\":2,\"level\":1");
        lines.truncate(2);
    });
    assert_eq!(check(&bundle).verdict, Verdict::Failed);
    let bundle = changed_lines("tree.jsonl", |lines| {
        lines.remove(0);
    });
    assert_found(&bundle, Code::EntryMissing, "index 0");
}

#[test]
fn a_log_that_was_rolled_back_is_found() {
    let world = world();
    let mut older = world.clone();
    older.log.truncate(10);
    let checkpoint = older.checkpoint(&log_key(1));
    let bundle = changed("checkpoint", |content| {
        *content = checkpoint.clone().into_bytes();
    });
    assert_found(&bundle, Code::LogRolledBack, "index 14");
    let refused = world.bundle_with(session(), &checkpoint, &log_key(1));
    assert!(matches!(refused, Err(BundleError::Order(14))));
}

#[test]
fn a_forged_checkpoint_is_found() {
    let world = world();
    let mut forked = world.clone();
    forked.noise(1);
    forked.log.remove(1);
    let other_root = forked.checkpoint(&log_key(1));
    let bundle = changed("checkpoint", |content| {
        *content = other_root.clone().into_bytes();
    });
    assert_found(&bundle, Code::RootMismatch, "");
    // The text of one, with the signatures of another.
    let bundle = changed("checkpoint", |content| {
        let old = String::from_utf8(content.clone()).expect("is a text");
        let (_, signatures) = old.split_once("\n\n").expect("has some");
        let (text, _) = other_root.split_once("\n\n").expect("has one");
        *content = format!("{text}\n\n{signatures}").into_bytes();
    });
    assert_found(&bundle, Code::CheckpointForged, "checkpoint");
    assert_found(&bundle, Code::CosignatureForged, "checkpoint");
    let bundle = changed("checkpoint", |content| content.truncate(20));
    assert_found(&bundle, Code::CheckpointForged, "checkpoint");
}

#[test]
fn another_key_is_found() {
    let world = world();
    let key = log_key(2);
    let bundle = world
        .bundle_with(session(), &world.checkpoint(&key), &key)
        .expect("is written");
    assert_found(&bundle, Code::UnknownKey, "checkpoint");
    assert_found(&bundle, Code::UnknownKey, "statement.dsse.json");
    assert_eq!(check(&bundle).total, 2);
    // The log's checkpoint, and a statement by somebody else.
    let checkpoint = world.checkpoint(&log_key(1));
    let bundle = world.bundle_with(session(), &checkpoint, &key);
    let bundle = bundle.expect("is written");
    assert_found(&bundle, Code::UnknownKey, "statement.dsse.json");
    assert_eq!(check(&bundle).total, 1);
    // Nobody is trusted.
    let report = check_with(&world.session(), &[], 0);
    assert_eq!(report.verdict, Verdict::Failed);
}

#[test]
fn witnesses_are_counted() {
    let bundle = world().session();
    let key = log_key(1).verifier().clone();
    let report = check_with(&bundle, std::slice::from_ref(&key), 2);
    let codes: Vec<Code> = report.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [Code::WitnessesMissing]);
    // A witness with two names is one.
    let renamed = witness().verifier().renamed("other").expect("is a name");
    let witnesses = [witness().verifier().clone(), renamed];
    let trust = Trust {
        log: &[key],
        witnesses: &witnesses,
        quorum: 2,
    };
    let report = verify(Cursor::new(&bundle), &trust, &Limits::default());
    assert_eq!(report.findings[0].code, Code::WitnessesMissing);
}

#[test]
fn files_that_are_missing_or_too_many_are_found() {
    let files = unpack(&world().session());
    for place in 0..files.len() {
        let mut fewer = files.clone();
        let (name, _) = fewer.remove(place);
        assert_found(&pack(&fewer), Code::FileMissing, &name);
    }
    for name in ["history/other.binpb", "extra", "history/deleted.binpb"] {
        let mut more = files.clone();
        more.push((name.into(), b"x".to_vec()));
        assert_found(&pack(&more), Code::FileUnexpected, name);
    }
}

#[test]
fn a_run_that_is_left_out_is_found() {
    let mut world = world();
    // The one that others follow.
    let is_first = |entry: &Vec<u8>| Entry::parse(entry).expect("parses").run_id == "first";
    for entry in world.log.iter_mut().filter(|entry| is_first(entry)) {
        *entry = String::from_utf8_lossy(entry)
            .replace(SESSION, "hidden")
            .into();
    }
    let bundle = world.session();
    assert_found(&bundle, Code::EntryMissing, "run second, entry 1");
    // A part of the log begins in the middle.
    let size = world.log.len() as u64;
    let report = assert_verified(&world.bundle(Scope::Range { from: 16, to: size }));
    assert!(!report.unchecked.is_empty(), "{report}");
}

#[test]
fn an_entry_that_does_not_belong_is_found() {
    let world = world();
    let scope = Scope::Session {
        workflow_id: "another".into(),
    };
    let bundle = world.bundle(scope);
    assert_found(&bundle, Code::FileMissing, "history/another.binpb");
    let mut files = unpack(&world.session());
    let text = String::from_utf8(files[13].1.clone()).expect("is a text");
    files[13].1 = text.replace(SESSION, "another").into();
    let bundle = pack(&files);
    assert_found(&bundle, Code::OutOfScope, "run first, entry 1");
    assert_found(&bundle, Code::ManifestFalse, "manifest.json");
}

#[test]
fn false_claims_are_found() {
    for (claim, other) in [
        ("\"claim\": \"as-of\"", "\"claim\": \"complete\""),
        ("\"events\": 2,", "\"events\": 3,"),
        ("\"erased\": true", "\"erased\": false"),
        ("\"deleted\": true", "\"deleted\": false"),
        ("\"closed\": \"COMPLETED\"", "\"closed\": \"FAILED\""),
        ("\"runs\": 5", "\"runs\": 4"),
        ("evidence-bundle/1", "evidence-bundle/2"),
        ("\"origin\": \"log", "\"origin\": \"fog"),
    ] {
        let bundle = changed("manifest.json", |content| {
            let text = String::from_utf8(content.clone()).expect("is a text");
            assert!(text.contains(claim), "{claim} in {text}");
            *content = text.replacen(claim, other, 1).into_bytes();
        });
        assert_found(&bundle, Code::ManifestFalse, "manifest.json");
    }
}

#[test]
fn nothing_of_clients_is_markup_in_the_report() {
    let files = unpack(&world().session());
    let (_, page) = files
        .iter()
        .find(|(name, _)| name == "report.html")
        .expect("is there");
    let page = String::from_utf8(page.clone()).expect("is a text");
    for hostile in ["<script", "<b>why", "<i>this", "http://", "https://"] {
        assert!(!page.contains(hostile), "{hostile}");
    }
    for shown in [
        "pay&lt;script&gt;",
        "application/Declined",
        "The run completed",
        "was deleted",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
}

#[test]
fn what_is_no_bundle_is_refused() {
    for bytes in [&b""[..], b"PK", &[0; 4096], &pack(&Vec::new())] {
        let report = check(bytes);
        assert_eq!(report.verdict, Verdict::Failed);
    }
    let good = world().session();
    let before = [b"#!/bin/sh\n", good.as_slice()].concat();
    assert_found(&before, Code::ZipMalformed, "");
    let after = [good.as_slice(), b"\n"].concat();
    assert_found(&after, Code::ZipMalformed, "");
    for length in (0..good.len()).step_by(7) {
        assert_eq!(check(&good[..length]).verdict, Verdict::Failed);
    }
}

#[test]
fn a_bomb_is_not_unpacked() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::DEFAULT.compression_method(CompressionMethod::Deflated);
    for name in ["entries.jsonl", "tree.jsonl", "checkpoint", "manifest.json"] {
        zip.start_file(name, options).expect("is begun");
        for _ in 0..64 {
            zip.write_all(&[b'x'; 1 << 16]).expect("is written");
        }
    }
    let bomb = zip.finish().expect("is finished").into_inner();
    assert_found(&bomb, Code::TooLarge, "checkpoint");
    let limits = Limits {
        bytes: 1 << 20,
        ..Limits::default()
    };
    let report = verify(Cursor::new(&bomb), &Trust::default(), &limits);
    let codes: Vec<Code> = report.findings.iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&Code::TooLarge), "{report}");
    let limits = Limits {
        events: 3,
        ..Limits::default()
    };
    let report = verify(Cursor::new(world().session()), &Trust::default(), &limits);
    let codes: Vec<Code> = report.findings.iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&Code::TooLarge), "{report}");
}

#[test]
fn the_writer_refuses_what_would_not_verify() {
    let world = world();
    let key = log_key(1);
    let checkpoint = world.checkpoint(&key);
    let writer = || {
        let head = Head {
            namespace: "default",
            scope: session(),
            made: Time(0),
            checkpoint: &checkpoint,
            log_keys: &[],
            witness_keys: &[],
        };
        let spools = [Cursor::new(Vec::new()), Cursor::new(Vec::new())];
        BundleWriter::new(Vec::new(), spools, head).expect("begins")
    };
    let entry = |index: usize| &world.log[index];
    assert!(matches!(writer().finish(&key), Err(BundleError::Empty)));
    assert!(writer().entry(0, b"{}", &[]).is_err());
    let mut bundle = writer();
    bundle.entry(6, entry(6), &[]).expect("is written");
    assert!(matches!(
        bundle.entry(4, entry(4), &[]),
        Err(BundleError::Order(4))
    ));
    // Not all of its entries are there.
    assert!(matches!(
        bundle.begin_history("first"),
        Err(BundleError::History(_))
    ));
    let mut bundle = writer();
    bundle.entry(4, entry(4), &[]).expect("is written");
    bundle.begin_history("first").expect("begins");
    for event in &world.histories["first"][..2] {
        bundle.event(&event.bytes, &event.payloads).expect("fits");
    }
    assert!(matches!(
        bundle.event(b"", &[]),
        Err(BundleError::Unaccounted { event_id: 3, .. })
    ));
    assert!(bundle.entry(6, entry(6), &[]).is_err());
    let mut path = World::default();
    path.step("../../etc/passwd", &[], &|_| {});
    assert!(matches!(
        path.bundle_with(session(), &path.checkpoint(&key), &key),
        Err(BundleError::RunId(_))
    ));
}

/// A small session, for tests that change each byte.
fn small() -> Vec<u8> {
    let mut world = World::default();
    world.noise(1);
    world.step("run", &["WORKFLOW_EXECUTION_STARTED"], &|_| {});
    world.step("run", &["TIMER_STARTED"], &|_| {});
    world.noise(1);
    world.session()
}

/// Runs `check` for each place, on a few threads.
fn for_each(places: usize, check: impl Fn(usize) + Sync) {
    let threads = 2;
    std::thread::scope(|scope| {
        for first in 0..threads {
            let check = &check;
            scope.spawn(move || (first..places).step_by(threads).for_each(check));
        }
    });
}

#[test]
fn any_changed_byte_of_any_file_is_found() {
    let files = unpack(&small());
    for (place, (name, content)) in files.iter().enumerate() {
        for_each(content.len(), |at| {
            let mut changed = files.clone();
            changed[place].1[at] ^= 1 << (at % 8);
            let report = check(&pack(&changed));
            assert_eq!(report.verdict, Verdict::Failed, "byte {at} of {name}");
        });
    }
}

#[test]
fn any_changed_byte_of_the_zip_is_found_or_changes_nothing() {
    let good = small();
    let files = unpack(&good);
    let same = std::sync::atomic::AtomicUsize::new(0);
    for_each(good.len(), |at| {
        for bit in [1, 0x80, 1 << (at % 8)] {
            let mut bytes = good.clone();
            bytes[at] ^= bit;
            if check(&bytes).verdict == Verdict::Verified {
                assert_eq!(unpack(&bytes), files, "byte {at} of {}", good.len());
                same.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    // Times, attributes and versions of files.
    let same = same.into_inner();
    assert!(same < good.len() * 3 / 10, "{same} of {}", good.len() * 3);
}

proptest::proptest! {
    #[test]
    fn whatever_is_put_into_a_file_does_no_harm(
        place: proptest::sample::Index,
        at: proptest::sample::Index,
        removed in 0_usize..40,
        bytes: Vec<u8>,
        number in proptest::option::of(proptest::prelude::any::<i64>()),
    ) {
        static FILES: std::sync::OnceLock<Files> = std::sync::OnceLock::new();
        let good = FILES.get_or_init(|| unpack(&world().session()));
        let mut files = good.clone();
        let (_, content) = &mut files[place.index(good.len())];
        let at = at.index(content.len());
        let end = content.len().min(at + removed);
        // A number may be in the place of another one.
        let bytes = number.map_or(bytes, |number| number.to_string().into_bytes());
        content.splice(at..end, bytes);
        let verdict = check(&pack(&files)).verdict;
        assert_eq!(verdict == Verdict::Verified, files == *good);
    }

    #[test]
    fn any_numbers_do_no_harm(first: i64, last: i64, shared: i64, n: u64, id: i64) {
        let mut world = world();
        world.append(SESSION, "hostile", Vec::new(), &|entry| {
            entry.n = n.min(1 << 60);
            entry.event_range = Some(EventRange { first, last, root: Hash::of(b"root") });
            let (run_id, event_id) = ("first".into(), shared);
            entry.follows = Some(Follows { entry: None, event_id, run_id });
        });
        let item = EventItem { id, ..EventItem::default() };
        world.append(SESSION, "hostile", vec![item.clone(), item], &|_| {});
        world.follow("next", "first", 3, &["TIMER_FIRED"]);
        world.append(SESSION, "next", Vec::new(), &|entry| {
            entry.event_range = Some(EventRange { first: 5, last, root: Hash::of(b"root") });
        });
        assert_eq!(check(&world.session()).verdict, Verdict::Failed);
    }
}

#[test]
#[ignore = "for a release build, with nothing else at the same time"]
fn a_large_bundle_is_verified_in_time() {
    let mut world = World::default();
    for index in 0..100_000 {
        let run_id = format!("run-{}", index % 1000);
        world.step(&run_id, &["ACTIVITY_TASK_COMPLETED"], &|_| {});
    }
    let bundle = world.session();
    let start = std::time::Instant::now();
    assert_verified(&bundle);
    let elapsed = start.elapsed();
    assert!(elapsed.as_secs_f64() < 2.0, "{elapsed:?}");
    println!("{} bytes in {elapsed:?}", bundle.len());
}
