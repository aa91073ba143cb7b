//! Signatures per Standard Webhooks (github.com/standard-webhooks/standard-webhooks, spec, "Signature
//! scheme"): HMAC-SHA256 over id, time and body.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::private_file;

/// What symmetric secrets begin with.
const PREFIX: &str = "whsec_";

/// So many secrets count at once: the one of today, and the one of before or after.
const MAX_SECRETS: usize = 4;

/// A secret.
pub(super) struct Secret(hmac::Key);

/// Reads a file with a secret on each line. While they are rotated there are two: each signs.
pub(super) fn read(path: &Path) -> Result<Vec<Secret>, String> {
    let text = private_file::read(path)?;
    let failed = |what: &str| format!("{}: {what}", path.display());
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let secrets: Option<Vec<Secret>> = lines.map(parse).collect();
    let secrets = secrets.ok_or_else(|| {
        failed("a secret is whsec_ and the base64 of 24 to 64 random bytes, on a line of its own")
    })?;
    match secrets.len() {
        0 => Err(failed("there is no secret")),
        1..=MAX_SECRETS => Ok(secrets),
        _ => Err(failed("there are too many secrets")),
    }
}

fn parse(line: &str) -> Option<Secret> {
    let bytes = STANDARD.decode(line.strip_prefix(PREFIX)?).ok()?;
    let is_strong = (24..=64).contains(&bytes.len());
    is_strong.then(|| Secret(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
}

/// The header `webhook-signature`: one signature by each secret.
pub(super) fn signatures(secrets: &[Secret], id: &str, seconds: i64, body: &str) -> String {
    let signed = format!("{id}.{seconds}.{body}");
    let signatures = secrets.iter().map(|Secret(key)| {
        let tag = hmac::sign(key, signed.as_bytes());
        format!("v1,{}", STANDARD.encode(tag))
    });
    signatures.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_of_the_specification() {
        // The example of the reference libraries.
        let secret = parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let body = r#"{"test": 2432232314}"#;
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        assert_eq!(
            signatures(&[secret], id, 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn secrets_are_read_line_by_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let one = format!("whsec_{}", STANDARD.encode([1; 24]));
        let other = format!("whsec_{}", STANDARD.encode([2; 64]));
        for (text, count) in [
            (format!("{one}\n"), Some(1)),
            (format!("# new\n{one}\n\n{other}"), Some(2)),
            (String::new(), None),
            ("secret".to_owned(), None),
            (format!("whsec_{}", STANDARD.encode([1; 23])), None),
            (format!("{one}\nwhsec_!"), None),
            ([one.as_str(); 5].join("\n"), None),
        ] {
            private_file::replace(&path, &text).expect("writes");
            let secrets = read(&path);
            assert_eq!(secrets.as_ref().map(Vec::len).ok(), count, "{text}");
            if let Err(error) = secrets {
                assert!(!error.contains("AQEB"), "a secret is told: {error}");
            }
        }
    }
}
