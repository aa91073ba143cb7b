//! Signed notes: C2SP `signed-note`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature as Ed25519Signature, Signer as _, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::cosignature;

/// A note has at most so many bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// A note has at most so many signatures.
pub const MAX_SIGNATURES: usize = 100;

const SIGNATURE_PREFIX: &str = "— ";
const ED25519: u8 = 0x01;
const COSIGNATURE: u8 = 0x04;

/// Why something is not a note, a key, or not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not the format of a note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// Not the format of a key.
    #[error("not a key: {0}")]
    MalformedKey(&'static str),
    /// A key of a type that is not supported.
    #[error("a key of type {0:#04x}, which is not supported")]
    KeyType(u8),
    /// A signature by a known key is wrong.
    #[error("the signature by {name}+{id:08x} is wrong")]
    WrongSignature {
        /// Name of the key.
        name: String,
        /// Its id.
        id: u32,
    },
    /// None of the known keys signed it.
    #[error("not signed by a known key")]
    Unverified,
}

/// What a key signs ("Signature types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// 0x01: Ed25519 over the note's text.
    Ed25519,
    /// 0x04: Ed25519 over a checkpoint and a time, as C2SP `tlog-cosignature` says.
    Cosignature,
}

impl KeyType {
    fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => ED25519,
            Self::Cosignature => COSIGNATURE,
        }
    }

    fn from_byte(byte: u8) -> Result<Self, NoteError> {
        match byte {
            ED25519 => Ok(Self::Ed25519),
            COSIGNATURE => Ok(Self::Cosignature),
            other => Err(NoteError::KeyType(other)),
        }
    }
}

/// A public key, written as the "Verifier keys" section says.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: u32,
    key_type: KeyType,
    key: VerifyingKey,
}

impl VerifierKey {
    fn new(name: &str, key_type: KeyType, key: VerifyingKey) -> Result<Self, NoteError> {
        check_name(name)?;
        if key.is_weak() {
            return Err(NoteError::MalformedKey("it verifies anything"));
        }
        Ok(Self {
            name: name.to_owned(),
            id: key_id(name, key_type, &key),
            key_type,
            key,
        })
    }

    /// Reads `<name>+<id>+<key>`.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::MalformedKey("three parts are expected"));
        };
        let (key_type, bytes) = parse_key(key)?;
        let key = VerifyingKey::from_bytes(&bytes)
            .map_err(|_| NoteError::MalformedKey("not an Ed25519 public key"))?;
        let key = Self::new(name, key_type, key)?;
        key.check_id(id)?;
        Ok(key)
    }

    fn check_id(&self, id: &str) -> Result<(), NoteError> {
        match id == format!("{:08x}", self.id) {
            true => Ok(()),
            false => Err(NoteError::MalformedKey("its id is not that of the key")),
        }
    }

    /// The same key under another name.
    pub fn renamed(&self, name: &str) -> Result<Self, NoteError> {
        Self::new(name, self.key_type, self.key)
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's id, which depends on its name.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What the key signs.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The Ed25519 public key.
    pub fn public_key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Whether a signature says that it is by this key.
    pub fn is_named_by(&self, signature: &Signature) -> bool {
        signature.key_id == self.id && signature.name == self.name
    }

    /// Verifies one signature of a text.
    pub fn verify(&self, text: &str, signature: &Signature) -> Result<(), NoteError> {
        let is_valid = self.is_named_by(signature)
            && match self.key_type {
                KeyType::Ed25519 => self.verify_bytes(text.as_bytes(), &signature.bytes),
                KeyType::Cosignature => cosignature::verify(self, text, &signature.bytes).is_some(),
            };
        match is_valid {
            true => Ok(()),
            false => Err(NoteError::WrongSignature {
                name: self.name.clone(),
                id: self.id,
            }),
        }
    }

    /// Verifies an Ed25519 signature of a message.
    pub(crate) fn verify_bytes(&self, message: &[u8], signature: &[u8]) -> bool {
        Ed25519Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = encode_key(self.key_type, self.key.as_bytes());
        write!(f, "{}+{:08x}+{key}", self.name, self.id)
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        Self::parse(text)
    }
}

/// A secret key of either type. What it may sign is up to those who hold one.
#[derive(Clone)]
pub(crate) struct SecretKey {
    pub(crate) verifier: VerifierKey,
    key: ed25519_dalek::SigningKey,
}

impl SecretKey {
    pub(crate) fn new(name: &str, key_type: KeyType, seed: [u8; 32]) -> Result<Self, NoteError> {
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        let verifier = VerifierKey::new(name, key_type, key.verifying_key())?;
        Ok(Self { verifier, key })
    }

    pub(crate) fn renamed(&self, name: &str) -> Result<Self, NoteError> {
        Ok(Self {
            verifier: self.verifier.renamed(name)?,
            key: self.key.clone(),
        })
    }

    pub(crate) fn parse(text: &str, expected: KeyType) -> Result<Self, NoteError> {
        const MALFORMED: NoteError = NoteError::MalformedKey("`PRIVATE+KEY+…` is expected");
        let rest = text.strip_prefix("PRIVATE+KEY+").ok_or(MALFORMED)?;
        let mut parts = rest.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(MALFORMED);
        };
        let (key_type, seed) = parse_key(key)?;
        if key_type != expected {
            return Err(NoteError::KeyType(key_type.byte()));
        }
        let key = Self::new(name, key_type, seed)?;
        key.verifier.check_id(id)?;
        Ok(key)
    }

    pub(crate) fn encode(&self) -> String {
        let VerifierKey { name, id, .. } = &self.verifier;
        let key = encode_key(self.verifier.key_type, self.key.as_bytes());
        format!("PRIVATE+KEY+{name}+{id:08x}+{key}")
    }

    /// An Ed25519 signature.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    pub(crate) fn signature(&self, bytes: Vec<u8>) -> Signature {
        Signature {
            name: self.verifier.name.clone(),
            key_id: self.verifier.id,
            bytes,
        }
    }
}

/// A secret key that signs notes.
#[derive(Clone)]
pub struct SigningKey(SecretKey);

impl SigningKey {
    /// The key that is made of a seed.
    pub fn new(name: &str, seed: [u8; 32]) -> Result<Self, NoteError> {
        Ok(Self(SecretKey::new(name, KeyType::Ed25519, seed)?))
    }

    /// Reads what [`SigningKey::encode`] writes.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        Ok(Self(SecretKey::parse(text, KeyType::Ed25519)?))
    }

    /// The key as text, secret and all, in the format of Go's `golang.org/x/mod/sumdb/note`.
    pub fn encode(&self) -> String {
        self.0.encode()
    }

    /// The same key under another name.
    pub fn renamed(&self, name: &str) -> Result<Self, NoteError> {
        Ok(Self(self.0.renamed(name)?))
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.0.verifier.name
    }

    /// The public key.
    pub fn verifier(&self) -> &VerifierKey {
        &self.0.verifier
    }

    /// Signs a message that is not a note. Whoever uses this sees to it that it cannot be one.
    pub(crate) fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.0.verifier)
    }
}

/// One signature line of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Name of the key.
    pub name: String,
    /// Id of the key.
    pub key_id: u32,
    /// What the key's type says.
    pub bytes: Vec<u8>,
}

impl Signature {
    /// Reads a signature line, without its newline.
    pub fn parse(line: &str) -> Result<Self, NoteError> {
        const MALFORMED: NoteError = NoteError::Malformed("a signature line is wrong");
        let rest = line.strip_prefix(SIGNATURE_PREFIX).ok_or(MALFORMED)?;
        let (name, base64) = rest.split_once(' ').ok_or(MALFORMED)?;
        check_name(name).map_err(|_| MALFORMED)?;
        let bytes = STANDARD.decode(base64).map_err(|_| MALFORMED)?;
        let (id, bytes) = bytes.split_first_chunk().ok_or(MALFORMED)?;
        if bytes.is_empty() {
            return Err(MALFORMED);
        }
        Ok(Self {
            name: name.to_owned(),
            key_id: u32::from_be_bytes(*id),
            bytes: bytes.to_vec(),
        })
    }

    /// Reads signature lines, each with its newline.
    pub fn parse_lines(text: &str) -> Result<Vec<Self>, NoteError> {
        let lines = text
            .strip_suffix('\n')
            .ok_or(NoteError::Malformed("its last line has no end"))?;
        if lines.split('\n').count() > MAX_SIGNATURES {
            return Err(NoteError::Malformed("it has too many signatures"));
        }
        lines.split('\n').map(Self::parse).collect()
    }
}

/// A line, without its newline.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.key_id.to_be_bytes()[..], &self.bytes].concat();
        let base64 = STANDARD.encode(bytes);
        write!(f, "{SIGNATURE_PREFIX}{} {base64}", self.name)
    }
}

/// A text and its signatures. Nothing in it is to be believed before it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

impl Note {
    /// Reads a note. What it accepts, it writes again in the same bytes.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, NoteError> {
        let bytes = bytes.as_ref();
        if bytes.len() > MAX_BYTES {
            return Err(NoteError::Malformed("it is too long"));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::Malformed("not UTF-8"))?;
        let Some((text, signatures)) = note.rsplit_once("\n\n") else {
            return Err(NoteError::Malformed("it has no signatures"));
        };
        // The first of the two newlines belongs to the text.
        let text = note.get(..=text.len()).unwrap_or_default().to_owned();
        check_text(&text)?;
        let signatures = Signature::parse_lines(signatures)?;
        Ok(Self { text, signatures })
    }

    /// Signs a text.
    pub fn sign(text: impl Into<String>, keys: &[&SigningKey]) -> Result<Self, NoteError> {
        let text = text.into();
        check_text(&text)?;
        if keys.is_empty() || keys.len() > MAX_SIGNATURES {
            return Err(NoteError::Malformed(
                "it needs a signature, and not too many",
            ));
        }
        let sign = |key: &&SigningKey| key.0.signature(key.0.sign(text.as_bytes()).to_vec());
        let signatures = keys.iter().map(sign).collect();
        Ok(Self { text, signatures })
    }

    /// The text that is signed, with its last newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, by whomever.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds a signature, unless it is there already.
    pub fn add(&mut self, signature: Signature) -> Result<(), NoteError> {
        if self.signatures.contains(&signature) {
            return Ok(());
        }
        if self.signatures.len() >= MAX_SIGNATURES {
            return Err(NoteError::Malformed("it has too many signatures"));
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// Gives those of the known keys that signed the text. Signatures by other keys do not count; a
    /// wrong one by a known key spoils the note.
    pub fn verify<'a>(&self, keys: &'a [VerifierKey]) -> Result<Vec<&'a VerifierKey>, NoteError> {
        let mut verified: Vec<&VerifierKey> = Vec::new();
        for key in keys {
            let mut is_signed = false;
            for signature in self.signatures.iter().filter(|one| key.is_named_by(one)) {
                key.verify(&self.text, signature)?;
                is_signed = true;
            }
            if is_signed && !verified.contains(&key) {
                verified.push(key);
            }
        }
        match verified.is_empty() {
            true => Err(NoteError::Unverified),
            false => Ok(verified),
        }
    }

    /// The note with the signatures by known keys only, which are verified.
    pub fn verified(&self, keys: &[VerifierKey]) -> Result<Self, NoteError> {
        let verified = self.verify(keys)?;
        let is_by_known = |one: &&Signature| verified.iter().any(|key| key.is_named_by(one));
        Ok(Self {
            text: self.text.clone(),
            signatures: self
                .signatures
                .iter()
                .filter(is_by_known)
                .cloned()
                .collect(),
        })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures
            .iter()
            .try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return Err(NoteError::Malformed("its text does not end in a newline"));
    }
    if text.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
        return Err(NoteError::Malformed("it has control characters"));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let is_wrong = |c: char| c.is_whitespace() || c == '+' || c < ' ';
    if name.is_empty() || name.contains(is_wrong) {
        return Err(NoteError::MalformedKey(
            "its name is empty, or has spaces or a plus in it",
        ));
    }
    Ok(())
}

fn key_id(name: &str, key_type: KeyType, key: &VerifyingKey) -> u32 {
    let hash = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', key_type.byte()])
        .chain_update(key.as_bytes());
    let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
    u32::from_be_bytes([a, b, c, d])
}

fn encode_key(key_type: KeyType, key: &[u8; 32]) -> String {
    let mut bytes = [key_type.byte(); 33];
    bytes[1..].copy_from_slice(key);
    STANDARD.encode(bytes)
}

fn parse_key(base64: &str) -> Result<(KeyType, [u8; 32]), NoteError> {
    let bytes = STANDARD
        .decode(base64)
        .map_err(|_| NoteError::MalformedKey("not base64"))?;
    let Some((key_type, key)) = bytes.split_first() else {
        return Err(NoteError::MalformedKey("it is empty"));
    };
    let key_type = KeyType::from_byte(*key_type)?;
    let key = key
        .try_into()
        .map_err(|_| NoteError::MalformedKey("not 32 bytes"))?;
    Ok((key_type, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example at the end of the specification.
    const KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const NOTE: &str = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    // The example at the start of it, which has an empty line in its text.
    const QUASIMODO: &str = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";

    fn signer(name: &str, seed: u8) -> SigningKey {
        SigningKey::new(name, [seed; 32]).expect("is a name")
    }

    #[test]
    fn the_example_of_the_specification() {
        let keys = [VerifierKey::parse(KEY).expect("is a key")];
        assert_eq!(keys[0].to_string(), KEY);
        assert_eq!(keys[0].name(), "example.com/foo");
        assert_eq!(keys[0].id(), 0x530d_903a);
        let note = Note::parse(NOTE).expect("is a note");
        assert_eq!(note.text(), "This is an example message.\n");
        assert_eq!(note.to_string(), NOTE);
        assert_eq!(note.verify(&keys), Ok(vec![&keys[0]]));
    }

    #[test]
    fn the_example_of_gos_package() {
        // In the documentation of `golang.org/x/mod/sumdb/note`.
        let key = SigningKey::parse(
            "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz",
        )
        .expect("is a key");
        assert_eq!(
            key.verifier().to_string(),
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
        );
        let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let note = Note::sign(text, &[&key]).expect("is signed");
        assert_eq!(
            note.to_string(),
            format!(
                "{text}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
            )
        );
    }

    #[test]
    fn a_text_may_have_empty_lines() {
        let note = Note::parse(QUASIMODO).expect("is a note");
        assert!(note.text().ends_with(":\n\ned è subito sera.\n"));
        assert_eq!(note.to_string(), QUASIMODO);
        assert_eq!(note.verify(&[]), Err(NoteError::Unverified));
    }

    #[test]
    fn any_changed_bit_is_found() {
        let keys = [VerifierKey::parse(KEY).expect("is a key")];
        for bit in 0..NOTE.len() * 8 {
            let mut bytes = NOTE.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let verified = Note::parse(&bytes).and_then(|note| {
                note.verify(&keys)?;
                Ok(note)
            });
            assert!(verified.is_err(), "bit {bit}: {verified:?}");
        }
    }

    #[test]
    fn signed_notes_verify() {
        let (a, b) = (signer("example.com/a", 1), signer("example.com/b", 2));
        let note = Note::sign("text\n", &[&a, &b]).expect("is signed");
        let keys = [b.verifier().clone(), a.verifier().clone()];
        let read = Note::parse(note.to_string()).expect("is a note");
        assert_eq!(read, note);
        assert_eq!(read.verify(&keys), Ok(vec![&keys[0], &keys[1]]));
        assert_eq!(read.verify(&keys[..1]), Ok(vec![&keys[0]]));
        // The same key twice is one signer.
        let twice = [keys[0].clone(), keys[0].clone()];
        assert_eq!(read.verify(&twice).map(|keys| keys.len()), Ok(1));
    }

    #[test]
    fn unknown_keys_are_ignored_and_wrong_signatures_are_not() {
        let (a, b) = (signer("example.com/a", 1), signer("example.com/b", 2));
        let keys = [a.verifier().clone()];
        let mut note = Note::sign("text\n", &[&a, &b]).expect("is signed");
        assert_eq!(note.verify(&keys).map(|keys| keys.len()), Ok(1));
        let verified = note.verified(&keys).expect("is signed");
        assert_eq!(verified.signatures(), &note.signatures()[..1]);
        // Another key by the same name is another key.
        let other = signer("example.com/a", 3);
        let by_other = Note::sign("text\n", &[&other]).expect("is signed");
        assert_eq!(by_other.verify(&keys), Err(NoteError::Unverified));
        // One right signature does not make up for a wrong one.
        let mut wrong = note.signatures()[0].clone();
        wrong.bytes[10] ^= 1;
        note.add(wrong).expect("is added");
        assert_eq!(
            note.verify(&keys),
            Err(NoteError::WrongSignature {
                name: "example.com/a".into(),
                id: keys[0].id(),
            })
        );
    }

    #[test]
    fn a_signature_is_added_once() {
        let key = signer("example.com/a", 1);
        let mut note = Note::sign("text\n", &[&key]).expect("is signed");
        let mut signature = note.signatures()[0].clone();
        note.add(signature.clone()).expect("is there");
        assert_eq!(note.signatures().len(), 1);
        for id in 1..MAX_SIGNATURES {
            signature.key_id = id as u32;
            note.add(signature.clone()).expect("is added");
        }
        signature.key_id = 0;
        assert!(note.add(signature.clone()).is_err());
        assert_eq!(Note::parse(note.to_string()), Ok(note.clone()));
        let more = format!("{note}{signature}\n");
        assert!(Note::parse(more).is_err());
    }

    #[test]
    fn malformed_notes_are_refused() {
        let line = NOTE.lines().last().expect("has lines");
        let wrong = [
            String::new(),
            "\n".into(),
            "text\n".into(),
            "text\n\n".into(),
            format!("{line}\n"),
            format!("\n{line}\n"),
            format!("text\n{line}\n"),
            format!("text\n\n{line}"),
            format!("text\n\n{line}\n\n"),
            format!("text\n\n{line}\nmore\n"),
            format!("text\n\n{line}\r\n"),
            format!("te\txt\n\n{line}\n"),
            format!("text\0\n\n{line}\n"),
            format!("text\n\n{}\n", line.replace('—', "-")),
            format!("text\n\n{}\n", line.replace("— ", "—  ")),
            format!("text\n\n{}\n", line.replace("/foo", "+foo")),
            format!("text\n\n{}\n", line.replace("/foo", "\u{a0}foo")),
            format!("text\n\n{}\n", line.replace("M=", "M")),
            format!("text\n\n{}\n", line.replace("M=", "N=")),
            format!("text\n\n{line} \n"),
            "text\n\n— name\n".into(),
            "text\n\n— name \n".into(),
            // An id and nothing else.
            "text\n\n— name AAAAAA==\n".into(),
            format!("{}\n\n{line}\n", "x".repeat(MAX_BYTES)),
        ];
        for text in wrong {
            assert!(Note::parse(&text).is_err(), "{text:?}");
        }
        assert!(Note::parse([b"\xff".as_slice(), NOTE.as_bytes()].concat()).is_err());
        let key = signer("example.com/a", 1);
        assert!(Note::sign("no newline", &[&key]).is_err());
        assert!(Note::sign("control\r\n", &[&key]).is_err());
        assert!(Note::sign("text\n", &[]).is_err());
    }

    #[test]
    fn malformed_keys_are_refused() {
        let wrong = [
            "",
            "name",
            "name+530d903a",
            // Another name, another id.
            &KEY.replace("foo", "bar"),
            &KEY.replace("530d903a", "530d903b"),
            &KEY.replace("530d903a", "530D903A"),
            &KEY.replace("530d903a", "+30d903a"),
            &KEY.replace("example.com/foo", ""),
            &KEY.replace("example.com/foo", "a b"),
            &KEY.replace("Aeky", "Aekz"),
            &KEY.replace("3U2k", "3U2"),
            &format!("{KEY}="),
            &format!("{KEY}AAAA"),
        ];
        for text in wrong {
            assert!(VerifierKey::parse(text).is_err(), "{text}");
        }
        let other_type = format!("name+00000000+{}", STANDARD.encode([6; 33]));
        assert_eq!(VerifierKey::parse(&other_type), Err(NoteError::KeyType(6)));
        // The identity of the group, which some would take for the signer of anything.
        let mut weak = [1; 33];
        weak[2..].fill(0);
        let weak = format!("name+00000000+{}", STANDARD.encode(weak));
        assert_eq!(
            VerifierKey::parse(&weak),
            Err(NoteError::MalformedKey("it verifies anything"))
        );
    }

    #[test]
    fn secret_keys_are_stored_and_not_shown() {
        let key = signer("example.com/a", 7);
        let text = key.encode();
        assert!(text.starts_with("PRIVATE+KEY+example.com/a+"), "{text}");
        let read = SigningKey::parse(&text).expect("is a key");
        assert_eq!(read.verifier(), key.verifier());
        let secret = text.rsplit('+').next().expect("has parts");
        assert!(!format!("{key:?}").contains(secret));
        assert_eq!(
            format!("{key:?}"),
            format!("SigningKey({})", key.verifier())
        );
        for wrong in [
            text.replace("PRIVATE", "PUBLIC"),
            text.replace("/a", "/b"),
            text.replace("+AQ", "+BA"),
            format!("{text}AAAA"),
            key.verifier().to_string(),
        ] {
            assert!(SigningKey::parse(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_renamed_key_is_another_key() {
        let key = signer("example.com/a", 7);
        let renamed = key.renamed("example.com/b").expect("is a name");
        assert_eq!(renamed.verifier(), signer("example.com/b", 7).verifier());
        assert_ne!(renamed.verifier().id(), key.verifier().id());
        assert_eq!(
            key.verifier().renamed("example.com/b").as_ref(),
            Ok(renamed.verifier())
        );
        assert!(key.renamed("a b").is_err());
    }

    proptest::proptest! {
        #[test]
        fn notes_round_trip(text in "[^\\x00-\\x09\\x0b-\\x1f]{0,200}", name in "[a-zé./~]{1,20}", seed: [u8; 32]) {
            let key = SigningKey::new(&name, seed).expect("is a name");
            let note = Note::sign(text + "\n", &[&key]).expect("is signed");
            assert_eq!(Note::parse(note.to_string()), Ok(note.clone()));
            assert_eq!(note.verify(&[key.verifier().clone()]).map(|keys| keys.len()), Ok(1));
            assert_eq!(VerifierKey::parse(&key.verifier().to_string()).as_ref(), Ok(key.verifier()));
            let stored = SigningKey::parse(&key.encode()).expect("is a key");
            assert_eq!(stored.encode(), key.encode());
        }

        #[test]
        fn any_bytes_do_no_harm(bytes: Vec<u8>, at in 0..NOTE.len(), text: String) {
            let mut near = NOTE.as_bytes().to_vec();
            near.splice(at..at, bytes.iter().copied());
            for bytes in [bytes, near] {
                if let Ok(note) = Note::parse(&bytes) {
                    assert_eq!(note.to_string().as_bytes(), bytes);
                }
            }
            let _ = Signature::parse(&text);
            for key in [text.clone(), KEY.replace("530d903a", &text), KEY.replace("3U2k", &text)] {
                if let Ok(parsed) = VerifierKey::parse(&key) {
                    assert_eq!(parsed.to_string(), key);
                }
                let _ = SigningKey::parse(&format!("PRIVATE+KEY+{key}"));
            }
        }
    }
}
