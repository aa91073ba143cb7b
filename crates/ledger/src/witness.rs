//! Asking witnesses for cosignatures, and being one: C2SP `tlog-witness`, "add-checkpoint". Who sends
//! the bytes is not decided here.

use std::collections::BTreeMap;
use std::fmt;

use crate::Hash;
use crate::checkpoint::{Checkpoint, parse_decimal};
use crate::cosignature::{CosigningKey, verify_cosignature};
use crate::note::{self, KeyType, Note, NoteError, Signature, VerifierKey};
use crate::tree::verify_consistency;

/// A request has at most so many bytes.
pub const MAX_BYTES: usize = note::MAX_BYTES + 4096;

/// A request's proof has at most so many hashes.
pub const MAX_HASHES: usize = 63;

/// The content type of a conflict's body.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// A request to cosign a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the last checkpoint that the witness cosigned.
    pub old_size: u64,
    /// Proof that the new one is consistent with it.
    pub proof: Vec<Hash>,
    /// The new one, signed by the log.
    pub checkpoint: Note,
}

/// A request that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an add-checkpoint request: {0}")]
pub struct MalformedRequest(String);

impl AddCheckpoint {
    /// Reads the body of a request. What it accepts, it writes again in the same bytes.
    pub fn parse(body: impl AsRef<[u8]>) -> Result<Self, MalformedRequest> {
        let malformed = |why: &str| MalformedRequest(why.to_owned());
        let body = body.as_ref();
        if body.len() > MAX_BYTES {
            return Err(malformed("it is too long"));
        }
        let text = std::str::from_utf8(body).map_err(|_| malformed("not UTF-8"))?;
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or_else(|| malformed("it has no checkpoint"))?;
        let mut lines = head.split('\n');
        let old_size = lines
            .next()
            .and_then(|line| parse_decimal(line.strip_prefix("old ")?))
            .ok_or_else(|| malformed("it has no old size"))?;
        let proof = lines
            .take(MAX_HASHES + 1)
            .map(|line| line.parse().map_err(|_| malformed("a line is not a hash")))
            .collect::<Result<Vec<Hash>, _>>()?;
        if proof.len() > MAX_HASHES {
            return Err(malformed("it has too many hashes"));
        }
        let checkpoint = Note::parse(checkpoint).map_err(|error| malformed(&error.to_string()))?;
        Ok(Self {
            old_size,
            proof,
            checkpoint,
        })
    }
}

/// The body of the request.
impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        self.proof
            .iter()
            .try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// What a witness answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Cosignatures by known witnesses: at least one.
    Cosigned(Vec<Signature>),
    /// The last checkpoint that it cosigned has another size: ask again with a proof from there.
    Conflict {
        /// That size.
        size: u64,
    },
}

/// An answer that is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The witness refused.
    #[error("the witness answered with status {0}")]
    Status(u16),
    /// Not the format of an answer.
    #[error("not an answer of a witness: {0}")]
    Malformed(&'static str),
    /// A cosignature by a known witness is wrong.
    #[error(transparent)]
    Signature(#[from] NoteError),
    /// None of the known witnesses cosigned.
    #[error("not cosigned by a known witness")]
    Unverified,
}

impl Answer {
    /// Reads an answer to a request about a checkpoint. Cosignatures are verified; those by other keys
    /// are left out.
    pub fn parse(
        status: u16,
        body: impl AsRef<[u8]>,
        checkpoint: &Note,
        witnesses: &[VerifierKey],
    ) -> Result<Self, AnswerError> {
        let body = body.as_ref();
        if body.len() > note::MAX_BYTES {
            return Err(AnswerError::Malformed("it is too long"));
        }
        let text = || std::str::from_utf8(body).map_err(|_| AnswerError::Malformed("not UTF-8"));
        match status {
            200 => cosigned(text()?, checkpoint, witnesses),
            409 => {
                let size = text()?.strip_suffix('\n').and_then(parse_decimal);
                let size = size.ok_or(AnswerError::Malformed("not a size"))?;
                Ok(Self::Conflict { size })
            }
            other => Err(AnswerError::Status(other)),
        }
    }
}

fn cosigned(
    text: &str,
    checkpoint: &Note,
    witnesses: &[VerifierKey],
) -> Result<Answer, AnswerError> {
    let mut known = Vec::new();
    let lines = Signature::parse_lines(text)
        .map_err(|_| AnswerError::Malformed("a signature line is wrong"))?;
    for signature in lines {
        let is_by = |key: &&VerifierKey| {
            key.key_type() == KeyType::Cosignature && key.is_named_by(&signature)
        };
        let Some(key) = witnesses.iter().find(is_by) else {
            continue;
        };
        if verify_cosignature(key, checkpoint.text(), &signature)? == 0 {
            return Err(AnswerError::Malformed("a cosignature has no time"));
        }
        known.push(signature);
    }
    match known.is_empty() {
        true => Err(AnswerError::Unverified),
        false => Ok(Answer::Cosigned(known)),
    }
}

/// A witness: the newest checkpoint that it cosigned of each log.
///
/// Whoever keeps it must make it durable before an answer is sent.
pub struct Witness {
    key: CosigningKey,
    logs: BTreeMap<String, WitnessedLog>,
}

#[derive(Default)]
struct WitnessedLog {
    keys: Vec<VerifierKey>,
    latest: Option<(Checkpoint, Note)>,
}

/// Why a witness does not cosign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a request.
    #[error("{0}")]
    Malformed(String),
    /// The old size is larger than the new one.
    #[error("the old size is larger than the checkpoint's")]
    Backwards,
    /// The log is not known.
    #[error("the log is not known")]
    UnknownLog,
    /// The checkpoint is not signed by a known key of the log.
    #[error("not signed by the log")]
    Unsigned,
    /// The old size is not that of the newest checkpoint.
    #[error("{size}")]
    Conflict {
        /// The size of the newest checkpoint.
        size: u64,
    },
    /// The checkpoint does not extend the newest one, or the proof does not show it.
    #[error("not consistent with the latest checkpoint")]
    Inconsistent,
}

impl Refusal {
    /// The status that the specification says.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::Backwards => 400,
            Self::Unsigned => 403,
            Self::UnknownLog => 404,
            Self::Conflict { .. } => 409,
            Self::Inconsistent => 422,
        }
    }

    /// The body to answer with.
    pub fn body(&self) -> String {
        format!("{self}\n")
    }
}

impl Witness {
    /// A witness that knows no logs.
    pub fn new(key: CosigningKey) -> Self {
        Self {
            key,
            logs: BTreeMap::new(),
        }
    }

    /// Trusts a key to sign for a log.
    pub fn trust(&mut self, origin: &str, key: VerifierKey) {
        let log = self.logs.entry(origin.to_owned()).or_default();
        log.keys.push(key);
    }

    /// The witness's public key.
    pub fn verifier(&self) -> &VerifierKey {
        self.key.verifier()
    }

    /// The newest checkpoint that it cosigned of a log, with its cosignature.
    pub fn latest(&self, origin: &str) -> Option<&Note> {
        let (_, note) = self.logs.get(origin)?.latest.as_ref()?;
        Some(note)
    }

    /// Handles a request, at a time in seconds since the epoch. Gives the body to answer with.
    pub fn add_checkpoint(
        &mut self,
        body: impl AsRef<[u8]>,
        time_s: u64,
    ) -> Result<String, Refusal> {
        let malformed = |error: &dyn fmt::Display| Refusal::Malformed(error.to_string());
        let request = AddCheckpoint::parse(body).map_err(|error| malformed(&error))?;
        let checkpoint =
            Checkpoint::parse(request.checkpoint.text()).map_err(|error| malformed(&error))?;
        let log = self.logs.get_mut(&checkpoint.origin);
        let log = log.ok_or(Refusal::UnknownLog)?;
        let mut note = request
            .checkpoint
            .verified(&log.keys)
            .map_err(|_| Refusal::Unsigned)?;
        if request.old_size > checkpoint.size {
            return Err(Refusal::Backwards);
        }
        log.check(&request, &checkpoint)?;
        let cosignature = self
            .key
            .cosign(note.text(), time_s)
            .map_err(|error| malformed(&error))?;
        let body = format!("{cosignature}\n");
        note.add(cosignature).map_err(|error| malformed(&error))?;
        log.latest = Some((checkpoint, note));
        Ok(body)
    }
}

impl WitnessedLog {
    fn check(&self, request: &AddCheckpoint, new: &Checkpoint) -> Result<(), Refusal> {
        let (size, root) = match &self.latest {
            Some((latest, _)) => (latest.size, latest.root),
            None => (0, Hash::empty_root()),
        };
        if request.old_size != size {
            return Err(Refusal::Conflict { size });
        }
        verify_consistency(size, &root, new.size, &new.root, &request.proof)
            .map_err(|_| Refusal::Inconsistent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::SigningKey;
    use crate::tile::{Appender, TileId, Tiles};
    use crate::tree::consistency_proof;

    const ORIGIN: &str = "example.com/log";

    /// The example of the specification, and the answer that it gives.
    const REQUEST: &str = "old 20852014\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\njrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\nexample.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";
    const ANSWER: &str = "— witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==\n— witness.example/w1 I7rEps0pvK2UqkS2gSpVUDhrhVtQV9lgF6pRrWAvjJHjyWpW7VcE3SiOlVlbQNt64vWhO+DlkL0+UfzuOBMh9ChdMkP1vi/lCAsmlw==\n— witness.example/w2 AWui8Sk55XjYLOijihBjhqEH6nS1ndDymE0a+6idX7pLcnoB+dhnz0854aLZgrrKbYKA7nC3HNJhm/kWl7oJlqU3rXXvpysAdyP3wQ==\n";

    /// A log and a witness that knows it.
    struct World {
        log: SigningKey,
        tree: Appender,
        stored: BTreeMap<TileId, Vec<u8>>,
        witness: Witness,
    }

    impl World {
        fn new() -> Self {
            let log = SigningKey::new(ORIGIN, [1; 32]).expect("is a name");
            let key = CosigningKey::new("witness.example/w1", [2; 32]).expect("is a name");
            let mut witness = Witness::new(key);
            witness.trust(ORIGIN, log.verifier().clone());
            Self {
                log,
                tree: Appender::default(),
                stored: BTreeMap::new(),
                witness,
            }
        }

        fn grow(&mut self, count: u64) {
            for _ in 0..count {
                let leaf = Hash::leaf(&self.tree.size().to_be_bytes());
                self.tree.append(leaf);
            }
            self.stored.extend(self.tree.take_changes());
        }

        fn checkpoint(&self, size: u64, root: Hash) -> Note {
            let checkpoint = Checkpoint {
                origin: ORIGIN.into(),
                size,
                root,
                extensions: Vec::new(),
            };
            let signed = checkpoint.sign(&[&self.log]).expect("is signed");
            Note::parse(signed).expect("is a note")
        }

        fn request(&self, old_size: u64) -> AddCheckpoint {
            let size = self.tree.size();
            let tiles: Tiles = self.stored.clone().into_iter().collect();
            AddCheckpoint {
                old_size,
                proof: consistency_proof(old_size, size, |node| tiles.hash_of(node))
                    .unwrap_or_default(),
                checkpoint: self.checkpoint(size, self.tree.root()),
            }
        }

        fn send(&mut self, request: &AddCheckpoint) -> Result<String, Refusal> {
            self.witness
                .add_checkpoint(request.to_string(), 1_700_000_000)
        }
    }

    #[test]
    fn the_examples_of_the_specification() {
        let request = AddCheckpoint::parse(REQUEST).expect("is a request");
        assert_eq!((request.old_size, request.proof.len()), (20_852_014, 4));
        assert_eq!(request.to_string(), REQUEST);
        assert_eq!(
            Answer::parse(200, ANSWER, &request.checkpoint, &[]),
            Err(AnswerError::Unverified)
        );
        assert_eq!(
            Answer::parse(409, "20852014\n", &request.checkpoint, &[]),
            Ok(Answer::Conflict { size: 20_852_014 })
        );
    }

    #[test]
    fn a_log_grows_and_is_cosigned() {
        let mut world = World::new();
        let witnesses = [world.witness.verifier().clone()];
        let mut old_size = 0;
        for count in [1, 0, 6, 250, 1, 0, 500] {
            world.grow(count);
            let request = world.request(old_size);
            let body = world.send(&request).expect("is cosigned");
            let answer = Answer::parse(200, &body, &request.checkpoint, &witnesses);
            let Ok(Answer::Cosigned(cosignatures)) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(cosignatures.len(), 1);
            let latest = world.witness.latest(ORIGIN).expect("is cosigned");
            let keys = [world.log.verifier().clone(), witnesses[0].clone()];
            let opened = Checkpoint::open(latest.to_string(), &keys).expect("is signed");
            assert_eq!(opened.cosignatures[0].time_s, 1_700_000_000);
            old_size = world.tree.size();
        }
    }

    #[test]
    fn a_client_finds_its_place_by_a_conflict() {
        let mut world = World::new();
        world.grow(10);
        let request = world.request(0);
        world.send(&request).expect("is cosigned");
        world.grow(10);
        for wrong in [0, 9, 11, 20] {
            let refused = world.send(&world.request(wrong)).expect_err("is refused");
            assert_eq!(refused, Refusal::Conflict { size: 10 });
            let answer = Answer::parse(refused.status(), refused.body(), &request.checkpoint, &[]);
            assert_eq!(answer, Ok(Answer::Conflict { size: 10 }));
        }
        let request = world.request(10);
        world.send(&request).expect("is cosigned");
    }

    #[test]
    fn refusals_have_the_status_of_the_specification() {
        let mut world = World::new();
        world.grow(10);
        let first = world.request(0);
        world.send(&first).expect("is cosigned");
        world.grow(10);
        let good = world.request(10);
        let status = |world: &mut World, request: &AddCheckpoint| {
            world.send(request).expect_err("is refused").status()
        };
        let with = |change: &dyn Fn(&mut AddCheckpoint)| {
            let mut request = good.clone();
            change(&mut request);
            request
        };
        let fork = world.checkpoint(20, Hash::of(b"another"));
        let rollback = world.checkpoint(5, Hash::of(b"any"));
        let other_key = SigningKey::new(ORIGIN, [9; 32]).expect("is a name");
        let unsigned = Note::sign(good.checkpoint.text(), &[&other_key]).expect("is signed");
        let mut spoiled = good.checkpoint.signatures()[0].clone();
        spoiled.bytes[0] ^= 1;
        let elsewhere = good.checkpoint.text().replace(ORIGIN, "example.com/other");
        let elsewhere = Note::sign(elsewhere, &[&world.log]).expect("is signed");
        let no_checkpoint = Note::sign("not a checkpoint\n", &[&world.log]).expect("is signed");
        let cases = [
            (400, with(&|request| request.old_size = 21)),
            (400, with(&|request| request.checkpoint = rollback.clone())),
            (
                400,
                with(&|request| request.checkpoint = no_checkpoint.clone()),
            ),
            (
                400,
                with(&|request| request.proof = vec![Hash::default(); 64]),
            ),
            (403, with(&|request| request.checkpoint = unsigned.clone())),
            (
                403,
                with(&|request| request.checkpoint.add(spoiled.clone()).expect("is added")),
            ),
            (404, with(&|request| request.checkpoint = elsewhere.clone())),
            (409, with(&|request| request.old_size = 9)),
            (422, with(&|request| request.checkpoint = fork.clone())),
            (422, with(&|request| request.proof.clear())),
            (422, with(&|request| request.proof.push(Hash::default()))),
            (422, with(&|request| request.proof[0].0[0] ^= 1)),
        ];
        for (expected, request) in cases {
            assert_eq!(status(&mut world, &request), expected, "{request}");
            assert!(Answer::parse(expected, "x", &request.checkpoint, &[]).is_err());
        }
        // None of this has left a trace.
        world.send(&good).expect("is cosigned");
        let again = AddCheckpoint {
            old_size: 20,
            proof: Vec::new(),
            checkpoint: fork,
        };
        assert_eq!(status(&mut world, &again), 422);
    }

    #[test]
    fn the_empty_tree_has_one_root() {
        let mut world = World::new();
        let request = |world: &World, root| AddCheckpoint {
            old_size: 0,
            proof: Vec::new(),
            checkpoint: world.checkpoint(0, root),
        };
        let wrong = request(&world, Hash::of(b"any"));
        assert_eq!(world.send(&wrong), Err(Refusal::Inconsistent));
        let right = request(&world, Hash::empty_root());
        world.send(&right).expect("is cosigned");
        let mut proven = world.request(0);
        proven.proof.push(Hash::default());
        assert_eq!(world.send(&proven), Err(Refusal::Inconsistent));
    }

    #[test]
    fn answers_are_verified() {
        let mut world = World::new();
        world.grow(3);
        let request = world.request(0);
        let body = world.send(&request).expect("is cosigned");
        let witnesses = [world.witness.verifier().clone()];
        let parse =
            |status, body: &str| Answer::parse(status, body, &request.checkpoint, &witnesses);
        let Ok(Answer::Cosigned(expected)) = parse(200, &body) else {
            panic!("{body}");
        };
        assert_eq!(
            parse(200, &format!("{ANSWER}{body}")),
            Ok(Answer::Cosigned(expected))
        );
        assert_eq!(parse(200, ANSWER), Err(AnswerError::Unverified));
        let other = world.checkpoint(4, Hash::of(b"any"));
        assert!(matches!(
            Answer::parse(200, &body, &other, &witnesses),
            Err(AnswerError::Signature(NoteError::WrongSignature { .. }))
        ));
        for wrong in ["", "\n", "x\n", body.trim_end(), &format!("{body}\n")] {
            assert!(parse(200, wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["", "\n", "3", "3\n\n", "03\n", "-1\n", "x\n"] {
            assert!(parse(409, wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(parse(500, &body), Err(AnswerError::Status(500)));
        // A key that signs notes is not a witness.
        let log = [world.log.verifier().clone()];
        let signature = format!("{}\n", request.checkpoint.signatures()[0]);
        let answer = Answer::parse(200, signature, &request.checkpoint, &log);
        assert_eq!(answer, Err(AnswerError::Unverified));
    }

    #[test]
    fn malformed_requests_are_refused() {
        let hash = Hash::of(b"any");
        let note = REQUEST.split_once("\n\n").expect("has a checkpoint").1;
        let wrong = [
            String::new(),
            note.to_owned(),
            format!("old 0\n{note}"),
            format!("old\n\n{note}"),
            format!("old \n\n{note}"),
            format!("old 01\n\n{note}"),
            format!("old -1\n\n{note}"),
            format!("old 1 \n\n{note}"),
            format!("new 1\n\n{note}"),
            format!("\nold 1\n\n{note}"),
            format!("old 1\n{hash} \n\n{note}"),
            format!("old 1\nAAAA\n\n{note}"),
            format!("old 1\n{hash}\n\n\n{}", "\n".repeat(5)),
            format!("old 1\n{}\n{note}", format!("{hash}\n").repeat(64)),
            format!("old 1\n\n{note}\n"),
        ];
        for text in wrong {
            assert!(AddCheckpoint::parse(&text).is_err(), "{text:?}");
        }
        let most = format!("old 1\n{}\n{note}", format!("{hash}\n").repeat(63));
        assert!(AddCheckpoint::parse(most).is_ok());
        assert!(AddCheckpoint::parse(vec![b'x'; MAX_BYTES + 1]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_do_no_harm(bytes: Vec<u8>, at in 0..REQUEST.len(), status in 0..600u16) {
            let mut world = World::new();
            let mut near = REQUEST.as_bytes().to_vec();
            near.splice(at..at, bytes.iter().copied());
            let checkpoint = AddCheckpoint::parse(REQUEST).expect("is a request").checkpoint;
            for bytes in [bytes, near] {
                if let Ok(request) = AddCheckpoint::parse(&bytes) {
                    assert_eq!(request.to_string().as_bytes(), bytes);
                }
                assert!(world.witness.add_checkpoint(&bytes, 1).is_err());
                let _ = Answer::parse(status, &bytes, &checkpoint, &[]);
            }
        }
    }
}
