//! Makes logs with histories, and bundles of them.

use std::collections::BTreeMap;
use std::io::Cursor;

use steadfast_ledger::bundle::{BundleError, BundleWriter, Detail, Head, Scope};
use steadfast_ledger::checkpoint::Checkpoint;
use steadfast_ledger::cosignature::CosigningKey;
use steadfast_ledger::entry::{
    AttemptItem, BufferedItem, Cause, EventItem, EventRange, Follows, Note, Time, VERSION,
};
use steadfast_ledger::note::SigningKey;
use steadfast_ledger::proof::TlogProof;
use steadfast_ledger::skeleton::{SaltKey, Secret, Span, hash_with, restore, skeleton};
use steadfast_ledger::tree::{Node, consistency_proof, inclusion_proof, multiproof_nodes, root_of};
use steadfast_ledger::{Entry, Hash, note, rotation};

const ORIGIN: &str = "log.example/default";
pub const SESSION: &str = "order-7";

pub fn log_key(seed: u8) -> SigningKey {
    SigningKey::new(ORIGIN, [seed; 32]).expect("is a name")
}

pub fn witness() -> CosigningKey {
    CosigningKey::new("witness.example/w1", [9; 32]).expect("is a name")
}

/// An event as it is stored, with its payloads.
#[derive(Clone)]
pub struct Event {
    pub bytes: Vec<u8>,
    pub payloads: Vec<(Span, Secret)>,
}

impl Event {
    fn hash(&self) -> Hash {
        hash_with(&self.bytes, &self.payloads).expect("spans fit")
    }
}

/// A log, and the histories of the runs in it.
#[derive(Clone, Default)]
pub struct World {
    pub log: Vec<Vec<u8>>,
    pub histories: BTreeMap<String, Vec<Event>>,
    ends: BTreeMap<String, (u64, Hash)>,
    pub rotations: Vec<String>,
    /// The size of an earlier tree that bundles prove to be extended.
    pub earlier: Option<u64>,
    /// What was asked for decisions: run, entry, place, request.
    pub asked: Vec<(&'static str, u64, usize, String)>,
    /// Files of policies, and what they are called after.
    pub policies: Vec<(Hash, Vec<u8>)>,
}

/// A change of an entry before it is written.
pub type Change<'a> = &'a dyn Fn(&mut Entry<'_>);

impl World {
    /// Appends an entry of a run, with the next events of its history.
    pub fn step(&mut self, run_id: &str, events: &[&str], change: Change<'_>) {
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

    pub fn append(
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
    pub fn noise(&mut self, count: usize) {
        for _ in 0..count {
            self.append("another", "another", Vec::new(), &|_| {});
        }
    }

    pub fn note(&mut self, what: &'static str, workflow_id: &'static str) {
        self.append("", "", Vec::new(), &move |entry| {
            entry.note = Some(Note {
                what: what.into(),
                workflow_id: workflow_id.into(),
                detail: "<b>why</b>".into(),
                ..Note::default()
            });
        });
    }

    /// The log names another key, and signs this with those that are given.
    pub fn rotate(&mut self, from: &SigningKey, to: &SigningKey, signers: &[&SigningKey]) {
        let detail = rotation::detail(&from.verifier().to_string(), &to.verifier().to_string());
        self.append("", "", Vec::new(), &|entry| {
            entry.note = Some(Note {
                what: rotation::KEY_CHANGED.into(),
                detail: detail.clone().into(),
                ..Note::default()
            });
        });
        let size = self.log.len() as u64;
        let hashes = inclusion_proof(size - 1, size, |node| Some(self.hash_of(node)));
        let proof = TlogProof {
            extra: self.log[self.log.len() - 1].clone(),
            index: size - 1,
            hashes: hashes.expect("is in the tree"),
            checkpoint: note::Note::parse(self.signed(signers)).expect("is a note"),
        };
        self.rotations.push(proof.to_string());
    }

    /// A run that follows another one, as of now.
    pub fn follow(&mut self, run_id: &str, before: &str, event_id: i64, events: &[&str]) {
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

    fn signed(&self, keys: &[&SigningKey]) -> String {
        let checkpoint = Checkpoint {
            origin: ORIGIN.into(),
            size: self.log.len() as u64,
            root: root_of(self.log.iter().map(|entry| Hash::leaf(entry))),
            extensions: Vec::new(),
        };
        checkpoint.sign(keys).expect("is signed")
    }

    pub fn checkpoint(&self, key: &SigningKey) -> String {
        let mut note = note::Note::parse(self.signed(&[key])).expect("is a note");
        let cosignature = witness().cosign(note.text(), 1_700_000_001);
        note.add(cosignature.expect("is signed")).expect("is added");
        note.to_string()
    }

    /// A bundle of this, which the log's key signs.
    pub fn bundle(&self, scope: Scope) -> Vec<u8> {
        let key = log_key(1);
        self.bundle_with(scope, &self.checkpoint(&key), &key)
            .expect("is written")
    }

    pub fn session(&self) -> Vec<u8> {
        self.bundle(session())
    }

    pub fn bundle_with(
        &self,
        scope: Scope,
        checkpoint: &str,
        key: &SigningKey,
    ) -> Result<Vec<u8>, BundleError> {
        let size = Checkpoint::parse(note::Note::parse(checkpoint)?.text())?.size;
        let indexes: Vec<u64> = (0..self.log.len() as u64)
            .filter(|index| is_in(&scope, *index, &self.entry(*index)))
            .collect();
        let consistency = self.earlier.map(|old| {
            let proof = consistency_proof(old, size, |node| Some(self.hash_of(node)));
            (old, proof.expect("is smaller"))
        });
        let head = Head {
            namespace: "default",
            scope,
            made: Time(1_700_000_002_000_000_000),
            checkpoint,
            consistency: consistency
                .as_ref()
                .map(|(size, hashes)| (*size, hashes.as_slice())),
            rotations: &self.rotations,
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
        for (run_id, n, place, request) in &self.asked {
            bundle.decision(run_id, *n, *place, request)?;
        }
        for (hash, content) in &self.policies {
            bundle.policy_file(hash, content)?;
        }
        bundle.finish(key)
    }

    fn entry(&self, index: u64) -> Entry<'_> {
        Entry::parse(&self.log[index as usize]).expect("an entry")
    }
}

pub fn session() -> Scope {
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
pub fn world() -> World {
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
            ..AttemptItem::default()
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
