//! Who a caller is, as it was shown.

use std::sync::Arc;

use steadfast_runtime::Kind;
use tokio::sync::watch;

/// Longest name that a caller may have, in bytes. With its issuer it fits into an entry of the log.
const MAX_ID: usize = 512;

/// Most groups of a caller, and their longest name.
const MAX_GROUPS: usize = 1000;
const MAX_GROUP: usize = 256;

/// The method of those who did not show who they are.
pub const UNAUTHENTICATED: &str = "unauthenticated";

/// Who a caller is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What it is.
    pub kind: Kind,
    /// Its name, as `issuer` knows it.
    pub id: String,
    /// Its groups.
    pub groups: Arc<[String]>,
    /// How it was authenticated: `oidc`, `mtls`, `api-key` or `unauthenticated`.
    pub method: &'static str,
    /// Who says so.
    pub issuer: String,
    /// Until when, in nanoseconds since the epoch.
    pub expires: Option<i64>,
    /// Closed when it is revoked.
    pub(super) revoked: Option<watch::Receiver<()>>,
}

impl Identity {
    /// An identity, unless its name or groups are out of bounds.
    pub(super) fn new(
        method: &'static str,
        issuer: &str,
        id: &str,
        kind: Kind,
        groups: Vec<String>,
    ) -> Result<Self, &'static str> {
        if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
            return Err("the name that it gives is empty, too long, or has control characters");
        }
        if groups.len() > MAX_GROUPS || groups.iter().any(|group| group.len() > MAX_GROUP) {
            return Err("it has too many groups, or one with too long a name");
        }
        Ok(Self {
            kind,
            id: id.to_owned(),
            groups: groups.into(),
            method,
            issuer: issuer.to_owned(),
            expires: None,
            revoked: None,
        })
    }

    /// A person that `issuer` knows.
    #[cfg(test)]
    pub(crate) fn for_tests(issuer: &str, id: &str, groups: Vec<String>) -> Self {
        Self::new("oidc", issuer, id, Kind::User, groups).expect("an identity")
    }

    /// Its name in records and logs: the same for nobody else, whoever authenticates them. A SPIFFE ID
    /// is one by itself. No issuer has a `#`, so the first one ends it.
    pub fn principal(&self) -> String {
        match self.method {
            "mtls" if self.id.starts_with("spiffe://") => self.id.clone(),
            _ => format!("{}#{}", self.issuer, self.id),
        }
    }

    /// Whether it is over.
    pub fn has_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Resolves when it is revoked or has expired; never, if neither happens.
    pub async fn over(&self) {
        let left = self.expires.map(|expires| {
            let left = expires.saturating_sub(steadfast_runtime::clock::now());
            std::time::Duration::from_nanos(left.max(0).unsigned_abs())
        });
        let expired = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.revoked() => {}
            () = expired => {}
        }
    }

    /// Resolves when it is revoked; never, if it is not.
    pub async fn revoked(&self) {
        match self.revoked.clone() {
            // Nothing is ever sent: it ends.
            Some(mut revoked) => while revoked.changed().await.is_ok() {},
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(method: &'static str, issuer: &str, id: &str) -> Identity {
        Identity {
            method,
            ..Identity::for_tests(issuer, id, Vec::new())
        }
    }

    #[test]
    fn no_two_issuers_have_the_same_principal() {
        let principals = [
            identity("oidc", "https://a.example", "x").principal(),
            identity("oidc", "https://b.example", "x").principal(),
            identity("oidc", "https://a.example", "https://b.example#x").principal(),
            identity("api-key", "api-key", "x").principal(),
            identity("api-key", "api-key", "spiffe://a/x").principal(),
            identity("mtls", "x509", "x").principal(),
            identity("mtls", "spiffe://a", "spiffe://a/x").principal(),
        ];
        assert_eq!(principals[0], "https://a.example#x");
        assert_eq!(principals[6], "spiffe://a/x");
        let distinct: std::collections::BTreeSet<_> = principals.iter().collect();
        assert_eq!(distinct.len(), principals.len());
    }

    #[test]
    fn names_are_bounded() {
        for id in ["", "a\nb", "a\0", &"x".repeat(MAX_ID + 1)] {
            assert!(Identity::new("oidc", "i", id, Kind::User, Vec::new()).is_err());
        }
        let many = vec!["g".to_owned(); MAX_GROUPS + 1];
        assert!(Identity::new("oidc", "i", "x", Kind::User, many).is_err());
    }
}
