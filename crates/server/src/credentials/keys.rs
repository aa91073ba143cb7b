//! The keys that sign credentials: which there are, which of them signs, and which are shown.
//!
//! A new key is shown before it signs, so that nobody who keeps the set of keys for a while meets one that
//! they do not know. The old one is shown until the last token that it signed has expired; its private
//! part goes as soon as it signs no more. All that follows from the keys' times and the clock.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING as ES256, EcdsaKeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use steadfast_engine::Time;
use steadfast_engine::time::SECOND;
use steadfast_ledger::Hash;

use crate::config::MAX_LIFETIME;
use crate::evidence::keys::wipe;
use crate::private_file;

/// How long a key is shown after its last token has expired: clocks differ.
const LEEWAY: Time = 60 * SECOND;

/// A key as it is in the file. Times are nanoseconds since the epoch.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// When it was made.
    created: Time,
    /// From when on it signs.
    signs_from: Time,
    /// The point, in base64url.
    x: String,
    y: String,
    /// PKCS #8, in base64; none if it signs no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    private: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredRing {
    keys: Vec<Stored>,
}

/// A key.
pub struct Key {
    stored: Stored,
    id: String,
    header: String,
    pair: Option<EcdsaKeyPair>,
    verifying: DecodingKey,
}

impl Key {
    /// A new key.
    pub fn generate(created: Time) -> Result<Self, String> {
        let random = SystemRandom::new();
        let failed = |_| "no randomness for a key".to_owned();
        let private = EcdsaKeyPair::generate_pkcs8(&ES256, &random).map_err(failed)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ES256, private.as_ref(), &random);
        let pair = pair.map_err(|error| error.to_string())?;
        let (x, y) = point(&pair)?;
        Self::read(Stored {
            created,
            signs_from: created,
            x,
            y,
            private: Some(STANDARD.encode(private.as_ref())),
        })
    }

    fn read(stored: Stored) -> Result<Self, String> {
        let broken = |why: &str| format!("the key is broken: {why}");
        let pair = match &stored.private {
            Some(private) => {
                let bytes = STANDARD.decode(private).map_err(|_| broken("no base64"))?;
                let pair = EcdsaKeyPair::from_pkcs8(&ES256, &bytes, &SystemRandom::new());
                let pair = pair.map_err(|error| broken(&error.to_string()))?;
                if point(&pair)? != (stored.x.clone(), stored.y.clone()) {
                    return Err(broken("its parts do not belong together"));
                }
                Some(pair)
            }
            None => None,
        };
        let id = thumbprint(&stored.x, &stored.y);
        let header = json!({ "alg": "ES256", "kid": id, "typ": "JWT" }).to_string();
        let verifying = DecodingKey::from_ec_components(&stored.x, &stored.y);
        Ok(Self {
            header: URL_SAFE_NO_PAD.encode(header),
            verifying: verifying.map_err(|error| broken(&error.to_string()))?,
            stored,
            id,
            pair,
        })
    }

    /// Its id (`kid`): its thumbprint (RFC 7638).
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The encoded header of the tokens that it signs.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// What verifies its signatures.
    pub fn verifying(&self) -> &DecodingKey {
        &self.verifying
    }

    /// From when on it signs.
    pub fn signs_from(&self) -> Time {
        self.stored.signs_from
    }

    /// A signature (RFC 7518, 3.4); none if it signs no more.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let signature = self.pair.as_ref()?.sign(&SystemRandom::new(), message);
        Some(signature.ok()?.as_ref().to_vec())
    }

    /// What others see of it (RFC 7517).
    fn jwk(&self) -> Value {
        json!({
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "use": "sig",
            "kid": self.id,
            "x": self.stored.x,
            "y": self.stored.y,
        })
    }
}

fn point(pair: &EcdsaKeyPair) -> Result<(String, String), String> {
    // Uncompressed: 4, x, y (SEC 1, 2.3.3).
    match pair.public_key().as_ref() {
        [4, point @ ..] if point.len() == 64 => {
            let (x, y) = point.split_at(32);
            Ok((URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y)))
        }
        _ => Err("the key is broken: no point".into()),
    }
}

fn thumbprint(x: &str, y: &str) -> String {
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(Hash::of(members.as_bytes()).0)
}

/// The keys of a server, in the order in which they sign.
#[derive(Default)]
pub struct KeyRing(Vec<std::sync::Arc<Key>>);

impl KeyRing {
    /// One key.
    pub fn of(key: Key) -> Self {
        Self(vec![key.into()])
    }

    fn read(text: &str) -> Result<Self, String> {
        let stored: StoredRing = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let keys = stored.keys.into_iter().map(|of| Ok(Key::read(of)?.into()));
        let keys: Vec<std::sync::Arc<Key>> = keys.collect::<Result<_, String>>()?;
        match keys.is_sorted_by_key(|key| key.signs_from()) && !keys.is_empty() {
            true => Ok(Self(keys)),
            false => Err("there is no key, or they are not in order".into()),
        }
    }

    fn encode(&self) -> Result<String, String> {
        let keys = self.0.iter().map(|key| key.stored.clone()).collect();
        let text = serde_json::to_string_pretty(&StoredRing { keys });
        text.map(|text| text + "\n")
            .map_err(|error| error.to_string())
    }

    /// The key that signs.
    pub fn signer(&self, now: Time) -> Option<&Key> {
        let signing = self.0.iter().rev().find(|key| key.signs_from() <= now);
        // If the clock went back behind all of them, the first.
        signing.or(self.0.first()).map(|key| &**key)
    }

    /// The newest key, which signs or will.
    pub fn newest(&self) -> Option<&Key> {
        self.0.last().map(|key| &**key)
    }

    /// The keys that others see.
    pub fn published(&self, now: Time) -> impl Iterator<Item = &Key> {
        let shown_until = move |place: usize| self.shown_until(place);
        let keys = self.0.iter().enumerate();
        let keys = keys.filter(move |(place, _)| shown_until(*place).is_none_or(|at| at > now));
        keys.map(|(_, key)| &**key)
    }

    /// Until when a key is shown; none as long as no other takes its place.
    fn shown_until(&self, place: usize) -> Option<Time> {
        let successor = self.0.get(place + 1)?;
        let longest = i64::try_from(MAX_LIFETIME).unwrap_or(0) * SECOND;
        Some(successor.signs_from().saturating_add(longest + LEEWAY))
    }

    /// The set that others see (RFC 7517).
    pub fn jwks(&self, now: Time) -> Value {
        let keys: Vec<Value> = self.published(now).map(Key::jwk).collect();
        json!({ "keys": keys })
    }

    /// The same with another key, which signs from `signs_from` on, or after those that wait already.
    pub fn with(&self, mut key: Key, signs_from: Time) -> Self {
        let last = self.newest().map_or(0, Key::signs_from);
        key.stored.signs_from = signs_from.max(last);
        let mut keys = self.0.clone();
        keys.push(key.into());
        Self(keys)
    }

    /// The same without what is not needed any more; none if all is.
    pub fn trimmed(&self, now: Time) -> Result<Option<Self>, String> {
        let signer = self.signer(now).map_or("", Key::id).to_owned();
        let mut has_signed = true;
        let mut is_changed = false;
        let mut keys = Vec::new();
        for (place, key) in self.0.iter().enumerate() {
            has_signed &= key.id != signer;
            if self.shown_until(place).is_some_and(|at| at <= now) {
                is_changed = true;
                continue;
            }
            keys.push(match has_signed && key.pair.is_some() {
                true => {
                    is_changed = true;
                    let private = None;
                    let stored = Stored {
                        private,
                        ..key.stored.clone()
                    };
                    Key::read(stored)?.into()
                }
                false => key.clone(),
            });
        }
        Ok(is_changed.then_some(Self(keys)))
    }

    /// Whether there is a key with this id.
    pub fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id == id)
    }
}

/// Reads the file of keys; none if it is not there.
pub fn load(path: &Path) -> Result<Option<KeyRing>, String> {
    if !path.exists() {
        return Ok(None);
    }
    let text = private_file::read(path)?;
    let keys = KeyRing::read(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Some(keys))
}

/// Writes the file of keys, in the place of the one that is there, whose content is destroyed.
pub fn save(path: &Path, keys: &KeyRing) -> Result<(), String> {
    let text = keys.encode()?;
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let path = resolved(path);
    // It keeps its content while it is open, whatever happens to its name.
    let old = OpenOptions::new().read(true).write(true).open(&path).ok();
    private_file::replace(&path, &text).map_err(failed)?;
    if let Some(old) = old {
        wipe(old);
    }
    Ok(())
}

/// Asks for a rotation: puts a new key beside the file of keys. Gives its id, and whether it was made now;
/// if one is there already, a rotation was asked for before.
pub fn ask_for_rotation(path: &Path) -> Result<(String, bool), String> {
    if load(path)?.is_none() {
        return Err(format!(
            "{}: there are no keys yet: a server makes them",
            path.display()
        ));
    }
    let next = next_path(path);
    if let Some(key) = load(&next)?.as_ref().and_then(KeyRing::newest) {
        return Ok((key.id.clone(), false));
    }
    let key = Key::generate(steadfast_runtime::clock::now())?;
    let id = key.id.clone();
    let text = KeyRing::of(key).encode()?;
    let created = private_file::create(&next, &text);
    created.map_err(|error| format!("{}: {error}", next.display()))?;
    Ok((id, true))
}

/// Whether a rotation was asked for, and no server has taken the new key yet.
pub fn is_asked_for(path: &Path) -> bool {
    next_path(path).exists()
}

/// From when on a key of the file signs (RFC 3339).
pub fn signs_from(path: &Path, id: &str) -> Result<String, String> {
    let keys = load(path)?.unwrap_or_default();
    let key = keys.0.iter().find(|key| key.id == id);
    let key = key.ok_or_else(|| format!("{}: key {id} is gone", path.display()))?;
    let from = chrono::DateTime::from_timestamp_nanos(key.signs_from());
    Ok(from.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}

/// The new key that somebody put beside the file of keys.
pub(super) fn asked_for(path: &Path) -> Result<Option<Key>, String> {
    let Some(ring) = load(&next_path(path))? else {
        return Ok(None);
    };
    let newest = ring.0.into_iter().next_back();
    Ok(newest.and_then(std::sync::Arc::into_inner))
}

/// Takes away what asked for a rotation.
pub(super) fn taken(path: &Path) -> Result<(), String> {
    let next = next_path(path);
    let file = OpenOptions::new().read(true).write(true).open(&next);
    let removed = std::fs::remove_file(&next);
    removed.map_err(|error| format!("{}: {error}", next.display()))?;
    if let Ok(file) = file {
        wipe(file);
    }
    Ok(())
}

/// The file itself where the path is a link: what replaces it must not replace the link.
fn resolved(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn next_path(path: &Path) -> PathBuf {
    let mut name = resolved(path).into_os_string();
    name.push(".next");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = 1_700_000_000 * SECOND;
    const SHOWN_AFTER: Time = 900 * SECOND + LEEWAY;

    fn ids<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<String> {
        keys.map(|key| key.id.clone()).collect()
    }

    #[test]
    fn a_key_is_shown_before_it_signs_and_until_its_last_token_has_expired() {
        let first = KeyRing::of(Key::generate(NOW).expect("a key"));
        let old = first.newest().expect("a key").id.clone();
        let key = Key::generate(NOW).expect("a key");
        let new = key.id.clone();
        let both = first.with(key, NOW + 600 * SECOND);
        let turn = NOW + 600 * SECOND;
        // When, which signs, and how many are shown.
        for (at, signs, shown) in [
            (NOW - 1, &old, 2),
            (NOW, &old, 2),
            (turn - 1, &old, 2),
            (turn, &new, 2),
            (turn + SHOWN_AFTER - 1, &new, 2),
            (turn + SHOWN_AFTER, &new, 1),
        ] {
            assert_eq!(both.signer(at).map(Key::id), Some(signs.as_str()), "{at}");
            assert_eq!(both.published(at).count(), shown, "{at}");
        }
        assert!(both.trimmed(turn - 1).expect("reads").is_none());
        let trimmed = both.trimmed(turn).expect("reads").expect("something goes");
        assert_eq!(ids(trimmed.published(turn)), [old.clone(), new.clone()]);
        let private: Vec<_> = trimmed.0.iter().map(|key| key.pair.is_some()).collect();
        assert_eq!(private, [false, true]);
        assert!(trimmed.trimmed(turn).expect("reads").is_none());
        let at = turn + SHOWN_AFTER;
        let alone = trimmed.trimmed(at).expect("reads").expect("something goes");
        assert_eq!(ids(alone.published(at)), [new]);
        assert!(!alone.has(&old));
    }

    #[test]
    fn the_id_is_the_thumbprint() {
        // RFC 7517, appendix A.1; the thumbprint by another implementation.
        let (x, y) = (
            "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        );
        assert_eq!(
            thumbprint(x, y),
            "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"
        );
    }

    #[test]
    fn what_is_written_is_read_and_the_old_content_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        assert!(load(&path).expect("reads").is_none());
        assert!(ask_for_rotation(&path).is_err());
        let ring = KeyRing::of(Key::generate(NOW).expect("a key"));
        save(&path, &ring).expect("is written");
        let old = std::fs::File::open(&path).expect("the old file");
        let (id, is_new) = ask_for_rotation(&path).expect("is asked for");
        assert!(is_new && is_asked_for(&path));
        assert_eq!(ask_for_rotation(&path), Ok((id.clone(), false)));
        let key = asked_for(&path).expect("reads").expect("is there");
        assert_eq!(key.id, id);
        save(&path, &ring.with(key, NOW + SECOND)).expect("is written");
        taken(&path).expect("goes");
        assert!(!is_asked_for(&path));
        let read = load(&path).expect("reads").expect("is there");
        assert!(read.has(&id) && read.0.len() == 2);
        let wiped = std::io::read_to_string(old).expect("reads");
        assert!(wiped.bytes().all(|byte| byte == 0));
        for broken in ["", "{}", r#"{"keys":[]}"#] {
            std::fs::write(&path, broken).expect("is written");
            assert!(load(&path).is_err(), "{broken}");
        }
    }

    #[test]
    fn parts_of_two_keys_are_no_key() {
        let (one, other) = (Key::generate(NOW), Key::generate(NOW));
        let mut stored = one.expect("a key").stored.clone();
        stored.private = other.expect("a key").stored.private.clone();
        assert!(Key::read(stored).is_err());
    }
}
