//! Another token for an attempt's own, for another audience (RFC 8693).
//!
//! It never lives longer than the one that it was exchanged for, and counts for nothing as soon as that one
//! does not. It is not exchanged again: so it leads nowhere else.

use steadfast_engine::time::SECOND;
use steadfast_runtime::{Permit, RuntimeError};

use super::{Claims, Credentials};
use crate::config::is_name;

/// What has to be asked for (RFC 8693, 2.1).
pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Types of tokens that ours are (RFC 8693, 3).
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Longest scope, in bytes.
const MAX_SCOPE: usize = 1000;

/// What is asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Asked {
    /// An attempt's own credential.
    pub subject_token: String,
    /// For whom the other one is to be.
    pub audience: String,
    /// What it is to be limited to.
    pub scope: Vec<String>,
    /// The type that it is to be called.
    pub token_type: String,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked")
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// Why there is no other token (RFC 6749, 5.2; RFC 8693, 2.2.2). No token is ever part of it.
#[derive(Debug, thiserror::Error)]
pub enum NotExchanged {
    /// The request makes no sense, or its token does not count.
    #[error("{0}")]
    InvalidRequest(String),
    /// Another grant is asked for.
    #[error("this server exchanges tokens, and grants nothing else")]
    UnsupportedGrantType,
    /// The token may not be for that audience.
    #[error("{0}")]
    InvalidTarget(String),
    /// The scope makes no sense.
    #[error("{0}")]
    InvalidScope(String),
    /// It cannot be found out, or written down.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl Asked {
    /// Reads a form.
    pub fn parse(form: &[(String, String)]) -> Result<Self, NotExchanged> {
        let invalid = |why: &str| NotExchanged::InvalidRequest(why.to_owned());
        let value = |name: &str| {
            let mut values = form
                .iter()
                .filter(|(of, value)| of == name && !value.is_empty());
            match (values.next(), values.next()) {
                (_, Some(_)) => Err(invalid(&format!("{name} is there twice"))),
                (value, None) => Ok(value.map(|(_, value)| value.as_str())),
            }
        };
        let grant_type = value("grant_type")?.ok_or_else(|| invalid("grant_type is missing"))?;
        if grant_type != GRANT_TYPE {
            return Err(NotExchanged::UnsupportedGrantType);
        }
        let is_ours = |of: &str| matches!(of, JWT | ACCESS_TOKEN);
        let subject_type = value("subject_token_type")?;
        if !subject_type.is_some_and(is_ours) {
            return Err(invalid("subject_token_type has to be that of a JWT"));
        }
        let token_type = value("requested_token_type")?.unwrap_or(JWT);
        if !is_ours(token_type) {
            return Err(invalid("requested_token_type has to be that of a JWT"));
        }
        if value("actor_token")?.is_some() {
            return Err(invalid("actors are not exchanged: leave actor_token out"));
        }
        if value("resource")?.is_some() {
            let why = "name the target by audience, not by resource";
            return Err(NotExchanged::InvalidTarget(why.into()));
        }
        let subject_token = value("subject_token")?;
        let subject_token = subject_token.ok_or_else(|| invalid("subject_token is missing"))?;
        let audience = value("audience")?.ok_or_else(|| invalid("audience is missing"))?;
        if !is_name(audience) {
            let why = "the audience is longer than 400 bytes, or has control characters";
            return Err(NotExchanged::InvalidTarget(why.into()));
        }
        Ok(Self {
            subject_token: subject_token.to_owned(),
            audience: audience.to_owned(),
            scope: scope(value("scope")?.unwrap_or_default())?,
            token_type: token_type.to_owned(),
        })
    }
}

/// The parts of a scope (RFC 6749, 3.3).
fn scope(text: &str) -> Result<Vec<String>, NotExchanged> {
    let is_part = |part: &str| {
        let fits = |of: u8| matches!(of, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        !part.is_empty() && part.bytes().all(fits)
    };
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<&str> = text.split(' ').collect();
    match text.len() <= MAX_SCOPE && parts.iter().all(|part| is_part(part)) {
        true => Ok(parts.into_iter().map(str::to_owned).collect()),
        false => Err(NotExchanged::InvalidScope(
            "the scope is not words with single spaces between them, 1000 bytes at most".into(),
        )),
    }
}

impl Credentials {
    /// What a token says that may be exchanged now.
    pub async fn subject(&self, token: &str) -> Result<Claims, NotExchanged> {
        let invalid = |why: &str| NotExchanged::InvalidRequest(why.to_owned());
        let Some(claims) = self.read(token) else {
            return Err(invalid(
                "the subject token is none of this issuer, or has expired",
            ));
        };
        if claims.steadfast.exchanged_from.is_some() {
            return Err(invalid(
                "the subject token was exchanged: use the attempt's own",
            ));
        }
        match self.is_active(&claims).await? {
            true => Ok(claims),
            false => Err(invalid("the subject token is not active any more")),
        }
    }

    /// Another token for one that may be exchanged. The log says so before it is there. `policies` are the
    /// ids of those that permit it.
    pub async fn exchange(
        &self,
        permit: &Permit,
        subject: &Claims,
        asked: &Asked,
        policies: &[String],
    ) -> Result<(String, Claims), NotExchanged> {
        let now = steadfast_runtime::clock::now().div_euclid(SECOND);
        let mut claims = subject.clone();
        claims.jti = uuid::Uuid::new_v4().to_string();
        claims.aud.clone_from(&asked.audience);
        claims.scope = (!asked.scope.is_empty()).then(|| asked.scope.join(" "));
        (claims.iat, claims.nbf) = (now, now);
        claims.steadfast.exchanged_from = Some(subject.jti.clone());
        let token = self
            .0
            .signer
            .sign(&claims)
            .ok_or_else(|| RuntimeError::Unavailable("the token cannot be signed".into()))?;
        let mut detail = format!(
            "credential {} for {} in exchange for {}",
            claims.jti, claims.aud, subject.jti
        );
        if let Some(scope) = &claims.scope {
            detail = format!("{detail}, scope {scope}");
        }
        if !policies.is_empty() {
            detail = format!("{detail}, by {}", policies.join(", "));
        }
        self.note(permit, &claims, "credential/exchanged", &detail)
            .await?;
        Ok((token, claims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Asked, NotExchanged> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Asked::parse(&pairs.collect::<Vec<_>>())
    }

    const WHOLE: [(&str, &str); 5] = [
        ("grant_type", GRANT_TYPE),
        ("subject_token", "t"),
        ("subject_token_type", JWT),
        ("audience", "https://a"),
        ("scope", "read write"),
    ];

    #[test]
    fn what_is_whole_is_read() {
        let asked = parse(&WHOLE).expect("is whole");
        assert_eq!(asked.scope, ["read", "write"]);
        assert_eq!(
            (&*asked.subject_token, &*asked.audience),
            ("t", "https://a")
        );
        assert_eq!(asked.token_type, JWT);
    }

    #[test]
    fn what_is_not_is_refused() {
        for left_out in &WHOLE[..4] {
            let rest: Vec<_> = WHOLE.iter().filter(|of| *of != left_out).copied().collect();
            let error = parse(&rest).expect_err("refused");
            assert!(
                matches!(error, NotExchanged::InvalidRequest(_)),
                "{left_out:?}"
            );
        }
        type Is = fn(&NotExchanged) -> bool;
        let table: [(&str, &str, Is); 8] = [
            ("audience", "https://b", |of| {
                matches!(of, NotExchanged::InvalidRequest(_))
            }),
            ("actor_token", "t", |of| {
                matches!(of, NotExchanged::InvalidRequest(_))
            }),
            ("requested_token_type", "saml", |of| {
                matches!(of, NotExchanged::InvalidRequest(_))
            }),
            ("resource", "https://a", |of| {
                matches!(of, NotExchanged::InvalidTarget(_))
            }),
            ("-scope", "a  b", |of| {
                matches!(of, NotExchanged::InvalidScope(_))
            }),
            ("-scope", "a\"b", |of| {
                matches!(of, NotExchanged::InvalidScope(_))
            }),
            ("-audience", "a\nb", |of| {
                matches!(of, NotExchanged::InvalidTarget(_))
            }),
            ("-grant_type", "password", |of| {
                matches!(of, NotExchanged::UnsupportedGrantType)
            }),
        ];
        for (name, value, is) in table {
            let mut form = WHOLE.to_vec();
            match name.strip_prefix('-') {
                Some(name) => form
                    .iter_mut()
                    .filter(|of| of.0 == name)
                    .for_each(|of| of.1 = value),
                None => form.push((name, value)),
            }
            let error = parse(&form).expect_err("refused");
            assert!(is(&error), "{name}={value}: {error:?}");
        }
    }
}
