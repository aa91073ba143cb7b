//! Checkpoints: the head of a log's tree, signed. C2SP `tlog-checkpoint`.

use std::fmt;

use crate::Hash;
use crate::cosignature::verify_cosignature;
use crate::note::{KeyType, Note, NoteError, SigningKey, VerifierKey};

/// The head of a log's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: one line.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
    /// Lines that the log adds. None of them is empty.
    pub extensions: Vec<String>,
}

/// Why something is not a checkpoint, or not one that can be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not the format of a checkpoint.
    #[error("not a checkpoint: {0}")]
    Malformed(&'static str),
    /// Not a note, or signed wrongly.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// None of the known keys has the name of the log, or it did not sign.
    #[error("not signed by a known key of the log {0}")]
    NotByLog(String),
}

/// A checkpoint whose signatures were verified.
#[derive(Clone, Debug)]
pub struct Opened<'a> {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The note that it came in.
    pub note: Note,
    /// The log's keys that signed it: at least one.
    pub log_keys: Vec<&'a VerifierKey>,
    /// Cosignatures by known keys.
    pub cosignatures: Vec<Cosignature<'a>>,
}

/// One witness's word for a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cosignature<'a> {
    /// The witness.
    pub key: &'a VerifierKey,
    /// When it says that it saw the checkpoint, in seconds since the epoch: the last time, if there
    /// are several.
    pub time_s: u64,
}

/// The parts of an origin: what the logs of one namespace have in common, and which of them it is. A log
/// that is begun anew has `~2`, `~3` and so on at its end.
pub fn generation(origin: &str) -> (&str, u64) {
    origin
        .rsplit_once('~')
        .and_then(|(base, number)| Some((base, parse_decimal(number).filter(|of| *of > 1)?)))
        .unwrap_or((origin, 1))
}

impl Checkpoint {
    /// Reads the text of a checkpoint. What it accepts, it writes again in the same bytes.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Malformed;
        let text = text
            .strip_suffix('\n')
            .ok_or(malformed("its last line has no end"))?;
        let mut lines = text.split('\n');
        let mut next = || lines.next().filter(|line| !line.is_empty());
        let origin = next().ok_or(malformed("it has no origin"))?;
        let size = next()
            .and_then(parse_decimal)
            .ok_or(malformed("its second line is not a size"))?;
        let root = next()
            .and_then(|line| line.parse().ok())
            .ok_or(malformed("its third line is not a hash"))?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        let checkpoint = Self {
            origin: origin.to_owned(),
            size,
            root,
            extensions,
        };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    fn check(&self) -> Result<(), CheckpointError> {
        let is_line = |line: &String| !line.is_empty() && line.chars().all(|c| c >= ' ');
        match is_line(&self.origin) && self.extensions.iter().all(is_line) {
            true => Ok(()),
            false => Err(CheckpointError::Malformed(
                "a line is empty, or has control characters",
            )),
        }
    }

    /// Signs the checkpoint, and gives the note.
    pub fn sign(&self, keys: &[&SigningKey]) -> Result<String, CheckpointError> {
        self.check()?;
        Ok(Note::sign(self.to_string(), keys)?.to_string())
    }

    /// Reads and verifies a signed checkpoint. The keys may be those of several logs and witnesses: a
    /// key is the log's if its name is the checkpoint's origin, and one of these must have signed.
    pub fn open(
        note: impl AsRef<[u8]>,
        keys: &[VerifierKey],
    ) -> Result<Opened<'_>, CheckpointError> {
        Self::open_note(Note::parse(note)?, keys)
    }

    /// Verifies a signed checkpoint, as [`Checkpoint::open`] does.
    pub fn open_note(note: Note, keys: &[VerifierKey]) -> Result<Opened<'_>, CheckpointError> {
        let checkpoint = Self::parse(note.text())?;
        let (mut log_keys, mut cosignatures) = (Vec::new(), Vec::new());
        for key in note.verify(keys)? {
            match key.key_type() {
                KeyType::Ed25519 if key.name() == checkpoint.origin => log_keys.push(key),
                // A key of another log says nothing about this one.
                KeyType::Ed25519 => {}
                KeyType::Cosignature => cosignatures.extend(cosignature(&note, key)),
            }
        }
        if log_keys.is_empty() {
            return Err(CheckpointError::NotByLog(checkpoint.origin));
        }
        Ok(Opened {
            checkpoint,
            note,
            log_keys,
            cosignatures,
        })
    }
}

fn cosignature<'a>(note: &Note, key: &'a VerifierKey) -> Option<Cosignature<'a>> {
    let signatures = note.signatures().iter();
    let times = signatures.filter_map(|one| verify_cosignature(key, note.text(), one).ok());
    let time_s = times.max()?;
    Some(Cosignature { key, time_s })
}

/// The text that is signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, self.root)?;
        self.extensions
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A number in decimal, without a sign and without zeroes in front.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_canonical = is_plain && (text == "0" || !text.starts_with('0'));
    is_canonical.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosignature::CosigningKey;

    // The example of `tlog-cosignature`, which that of `tlog-checkpoint` is the beginning of.
    const SIGNED: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: "example.com/log".into(),
            size: 42,
            root: Hash::of(b"root"),
            extensions: Vec::new(),
        }
    }

    fn log_key(seed: u8) -> SigningKey {
        SigningKey::new("example.com/log", [seed; 32]).expect("is a name")
    }

    #[test]
    fn the_example_of_the_specification() {
        let note = Note::parse(SIGNED).expect("is a note");
        assert_eq!(note.to_string(), SIGNED);
        let checkpoint = Checkpoint::parse(note.text()).expect("is a checkpoint");
        assert_eq!(checkpoint.origin, "example.com/behind-the-sofa");
        assert_eq!(checkpoint.size, 20_852_163);
        assert_eq!(checkpoint.to_string(), note.text());
        assert_eq!(checkpoint.extensions, Vec::<String>::new());
    }

    #[test]
    fn signed_checkpoints_open() {
        let (log, witness) = (
            log_key(1),
            CosigningKey::new("witness.example/w1", [2; 32]).expect("is a name"),
        );
        let signed = checkpoint().sign(&[&log]).expect("is signed");
        let keys = [witness.verifier().clone(), log.verifier().clone()];
        let opened = Checkpoint::open(&signed, &keys).expect("is signed");
        assert_eq!(opened.checkpoint, checkpoint());
        assert_eq!(opened.log_keys, [&keys[1]]);
        assert_eq!(opened.cosignatures, []);
        let mut note = opened.note;
        for time_s in [17, 20, 18] {
            let cosignature = witness.cosign(note.text(), time_s).expect("is signed");
            note.add(cosignature).expect("is added");
        }
        let opened = Checkpoint::open(note.to_string(), &keys).expect("is signed");
        let key = &keys[0];
        assert_eq!(opened.cosignatures, [Cosignature { key, time_s: 20 }]);
    }

    #[test]
    fn only_the_log_signs_its_checkpoints() {
        let (log, witness) = (
            log_key(1),
            CosigningKey::new("witness.example/w1", [2; 32]).expect("is a name"),
        );
        let mut note = Note::parse(checkpoint().sign(&[&log]).expect("is signed")).expect("parses");
        note.add(witness.cosign(note.text(), 17).expect("is signed"))
            .expect("is added");
        let keys = [witness.verifier().clone()];
        assert_eq!(
            Checkpoint::open(note.to_string(), &keys).expect_err("is not by the log"),
            CheckpointError::NotByLog("example.com/log".into())
        );
        let other = SigningKey::new("example.com/other", [3; 32]).expect("is a name");
        let signed = checkpoint().sign(&[&other]).expect("is signed");
        assert_eq!(
            Checkpoint::open(signed, &[other.verifier().clone()]).expect_err("is not by the log"),
            CheckpointError::NotByLog("example.com/log".into())
        );
        let signed = checkpoint().sign(&[&log]).expect("is signed");
        assert_eq!(
            Checkpoint::open(signed, &[other.verifier().clone()]).expect_err("is not signed"),
            CheckpointError::Note(NoteError::Unverified)
        );
    }

    #[test]
    fn malformed_checkpoints_are_refused() {
        let hash = Hash::of(b"root");
        let wrong = [
            String::new(),
            "\n".into(),
            "log\n".into(),
            "log\n1\n".into(),
            format!("log\n1\n{hash}"),
            format!("\n1\n{hash}\n"),
            format!("log\n\n{hash}\n"),
            format!("log\n01\n{hash}\n"),
            format!("log\n+1\n{hash}\n"),
            format!("log\n-1\n{hash}\n"),
            format!("log\n 1\n{hash}\n"),
            format!("log\n1 \n{hash}\n"),
            format!("log\n0x1\n{hash}\n"),
            format!("log\n18446744073709551616\n{hash}\n"),
            format!("log\n1\n{hash} \n"),
            format!("log\n1\n{}\n", &hash.to_string()[1..]),
            format!("log\n1\n{}\n", hash.to_string().replace('=', "")),
            "log\n1\nAAAA\n".into(),
            format!("log\n1\n{hash}\n\n"),
            format!("log\n1\n{hash}\next\n\n"),
            format!("log\n1\n{hash}\n\next\n"),
            format!("log\r\n1\n{hash}\n"),
        ];
        for text in wrong {
            assert!(Checkpoint::parse(&text).is_err(), "{text:?}");
        }
        let key = log_key(1);
        for (origin, extension) in [
            ("", "x"),
            ("a\nb", "x"),
            ("a", ""),
            ("a", "x\ny"),
            ("a", "\t"),
        ] {
            let checkpoint = Checkpoint {
                origin: origin.into(),
                extensions: vec![extension.into()],
                ..checkpoint()
            };
            assert!(checkpoint.sign(&[&key]).is_err(), "{checkpoint:?}");
        }
    }

    #[test]
    fn any_changed_bit_is_found() {
        let key = log_key(1);
        let signed = checkpoint().sign(&[&key]).expect("is signed");
        let keys = [key.verifier().clone()];
        for bit in 0..signed.len() * 8 {
            let mut bytes = signed.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Checkpoint::open(&bytes, &keys).is_err(), "bit {bit}");
        }
    }

    proptest::proptest! {
        #[test]
        fn checkpoints_round_trip(
            origin in "[^\\x00-\\x1f]{1,40}",
            size: u64,
            root: [u8; 32],
            extensions in proptest::collection::vec("[^\\x00-\\x1f]{1,20}", 0..3),
        ) {
            let root = Hash(root);
            let checkpoint = Checkpoint { origin, size, root, extensions };
            assert_eq!(Checkpoint::parse(&checkpoint.to_string()), Ok(checkpoint));
        }

        #[test]
        fn any_text_does_no_harm(text: String, near in "[a-z]{1,3}\n[0-9]{1,20}\n[A-Za-z0-9+/]{43}=\n(.{0,3}\n)?") {
            for text in [text, near] {
                if let Ok(checkpoint) = Checkpoint::parse(&text) {
                    assert_eq!(checkpoint.to_string(), text);
                }
            }
        }
    }
}
