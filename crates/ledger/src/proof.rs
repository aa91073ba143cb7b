//! One file that proves that one entry is in a log: C2SP `tlog-proof`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Hash;
use crate::checkpoint::{Checkpoint, CheckpointError, Opened, parse_decimal};
use crate::note::{self, Note, NoteError, VerifierKey};
use crate::tree::{self, ProofError};

/// A proof has at most so many bytes.
pub const MAX_BYTES: usize = 2 * note::MAX_BYTES;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// No tree is higher.
const MAX_HASHES: usize = 64;

/// A proof for one entry, with the checkpoint that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// What else whoever made it wants to say; empty if nothing. It is not signed: anybody can have
    /// changed it.
    pub extra: Vec<u8>,
    /// Index of the entry.
    pub index: u64,
    /// The inclusion proof, from the leaf's sibling up.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint.
    pub checkpoint: Note,
}

/// Why something is not a proof, or proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// Not the format of a proof.
    #[error("not a proof: {0}")]
    Malformed(&'static str),
    /// Its checkpoint is not to be believed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The entry is not in the tree.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl From<NoteError> for TlogProofError {
    fn from(error: NoteError) -> Self {
        Self::Checkpoint(error.into())
    }
}

impl TlogProof {
    /// Reads a proof. What it accepts, it writes again in the same bytes.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, TlogProofError> {
        let malformed = TlogProofError::Malformed;
        let bytes = bytes.as_ref();
        if bytes.len() > MAX_BYTES {
            return Err(malformed("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("not UTF-8"))?;
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or(malformed("it has no checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST_LINE) {
            return Err(malformed("its first line is another"));
        }
        let extra = match lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            Some(base64) => {
                lines.next();
                let extra = STANDARD.decode(base64).ok();
                extra
                    .filter(|extra| !extra.is_empty())
                    .ok_or(malformed("its extra data is not base64"))?
            }
            None => Vec::new(),
        };
        let index = lines
            .next()
            .and_then(|line| parse_decimal(line.strip_prefix("index ")?))
            .ok_or(malformed("it has no index"))?;
        let hashes = lines
            .take(MAX_HASHES + 1)
            .map(|line| line.parse().map_err(|_| malformed("a line is not a hash")))
            .collect::<Result<Vec<Hash>, _>>()?;
        if hashes.len() > MAX_HASHES {
            return Err(malformed("it has too many hashes"));
        }
        let checkpoint = Note::parse(checkpoint)?;
        Checkpoint::parse(checkpoint.text())?;
        Ok(Self {
            extra,
            index,
            hashes,
            checkpoint,
        })
    }

    /// Verifies that these are the bytes of the entry. The keys are those of logs and witnesses; what
    /// is given says which of them signed, and whether that is enough is for the caller to say.
    pub fn verify<'a>(
        &self,
        entry: &[u8],
        keys: &'a [VerifierKey],
    ) -> Result<Opened<'a>, TlogProofError> {
        let opened = Checkpoint::open_note(self.checkpoint.clone(), keys)?;
        let Checkpoint { size, root, .. } = opened.checkpoint;
        tree::verify_inclusion(&Hash::leaf(entry), self.index, size, &self.hashes, &root)?;
        Ok(opened)
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if !self.extra.is_empty() {
            writeln!(f, "extra {}", STANDARD.encode(&self.extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes
            .iter()
            .try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosignature::CosigningKey;
    use crate::note::SigningKey;
    use crate::tile::{Appender, Tiles};

    const INDEX: u64 = 17;

    fn log() -> SigningKey {
        SigningKey::new("example.com/log", [1; 32]).expect("is a name")
    }

    fn witness() -> CosigningKey {
        CosigningKey::new("witness.example/w1", [2; 32]).expect("is a name")
    }

    fn keys() -> [VerifierKey; 2] {
        [log().verifier().clone(), witness().verifier().clone()]
    }

    fn entry(index: u64) -> Vec<u8> {
        format!("entry {index}").into_bytes()
    }

    fn proof(extra: &[u8]) -> TlogProof {
        let mut appender = Appender::default();
        (0..100).for_each(|index| appender.append(Hash::leaf(&entry(index))));
        let (size, root) = (appender.size(), appender.root());
        let tiles: Tiles = appender.take_changes().into_iter().collect();
        let checkpoint = Checkpoint {
            origin: "example.com/log".into(),
            size,
            root,
            extensions: Vec::new(),
        };
        let signed = checkpoint.sign(&[&log()]).expect("is signed");
        let mut note = Note::parse(signed).expect("is a note");
        let cosignature = witness().cosign(note.text(), 1_700_000_000);
        note.add(cosignature.expect("is signed")).expect("is added");
        TlogProof {
            extra: extra.to_vec(),
            index: INDEX,
            hashes: tree::inclusion_proof(INDEX, size, |node| tiles.hash_of(node))
                .expect("all tiles are there"),
            checkpoint: note,
        }
    }

    #[test]
    fn proofs_verify() {
        for extra in [b"".as_slice(), b"more"] {
            let text = proof(extra).to_string();
            let read = TlogProof::parse(&text).expect("is a proof");
            assert_eq!(read, proof(extra));
            let keys = keys();
            let opened = read.verify(&entry(INDEX), &keys).expect("is proven");
            assert_eq!(opened.log_keys, [&keys[0]]);
            assert_eq!(opened.cosignatures.len(), 1);
            let other = read
                .verify(&entry(INDEX + 1), &keys)
                .expect_err("is another");
            assert!(matches!(other, TlogProofError::Proof(_)), "{other}");
        }
    }

    #[test]
    fn the_format_of_the_specification() {
        let text = proof(b"more").to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            ["c2sp.org/tlog-proof@v1", "extra bW9yZQ==", "index 17"]
        );
        assert_eq!(lines[3..10].iter().map(|line| line.len()).max(), Some(44));
        assert_eq!(lines[10..13], ["", "example.com/log", "100"]);
    }

    #[test]
    fn changed_bits_are_found_or_do_not_matter() {
        let text = proof(b"more").to_string();
        let keys = keys();
        let witness_line = text.rfind("— ").expect("is cosigned");
        let extra = text.find("bW9y").expect("has extra data");
        for bit in 0..text.len() * 8 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(read) = TlogProof::parse(&bytes) else {
                continue;
            };
            assert_eq!(read.to_string().as_bytes(), bytes);
            let Ok(opened) = read.verify(&entry(INDEX), &keys) else {
                continue;
            };
            // What is not signed, or by a witness that is not known any more.
            let is_extra = (extra..extra + 8).contains(&(bit / 8));
            let is_witness = bit / 8 >= witness_line && opened.cosignatures.is_empty();
            assert!(is_extra || is_witness, "bit {bit}");
        }
    }

    #[test]
    fn malformed_proofs_are_refused() {
        let text = proof(b"more").to_string();
        let first_hash = text.lines().nth(3).expect("has hashes");
        let wrong = [
            String::new(),
            text.replace("@v1", "@v2"),
            text.replace("@v1\n", "@v1\n\n"),
            text.replace("@v1\n", "@v1\r\n"),
            text.replace("bW9yZQ==", ""),
            text.replace("bW9yZQ==", "bW9yZQ"),
            text.replace("extra ", "extra"),
            text.replace("extra ", "Extra "),
            text.replace("index 17\n", ""),
            text.replace("index 17", "index 017"),
            text.replace("index 17", "index +17"),
            text.replace("index 17", "index  17"),
            text.replace("index 17", "index 18446744073709551616"),
            text.replace("index 17\n", "index 17\n\n"),
            text.replace("index 17\n", "index 17\nindex 17\n"),
            text.replace("index 17\n", "index 17\nAAAA\n"),
            text.replace(
                "index 17\n",
                &format!("index 17\n{}", format!("{first_hash}\n").repeat(60)),
            ),
            text.replace("\n\nexample", "\nexample"),
            format!("{text}\n"),
            text.trim_end().to_owned(),
        ];
        for text in wrong {
            assert!(TlogProof::parse(&text).is_err(), "{text}");
        }
        assert!(TlogProof::parse(vec![b'x'; MAX_BYTES + 1]).is_err());
        assert!(TlogProof::parse(text.replace("extra bW9yZQ==\n", "")).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_do_no_harm(bytes: Vec<u8>, at in 0..400usize) {
            let mut near = proof(b"more").to_string().into_bytes();
            near.splice(at..at, bytes.iter().copied());
            for bytes in [bytes, near] {
                if let Ok(proof) = TlogProof::parse(&bytes) {
                    assert_eq!(proof.to_string().as_bytes(), bytes);
                }
            }
        }

        #[test]
        fn proofs_round_trip(extra: Vec<u8>, index: u64, hashes in proptest::collection::vec(proptest::array::uniform32(0u8..), 0..64)) {
            let hashes = hashes.into_iter().map(Hash).collect();
            let proof = TlogProof { extra, index, hashes, ..proof(b"") };
            assert_eq!(TlogProof::parse(proof.to_string()), Ok(proof));
        }
    }
}
