//! What stands before the pages: which names the server answers to, where forms come from, and what
//! browsers may do with what they get.

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::hmac;
use subtle::ConstantTimeEq;

/// Nothing is loaded from elsewhere, no script or style is in a page, no other site frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Puts the headers that browsers have to keep to on every answer.
pub async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Forms say where they come from; nobody else is told.
        (header::REFERRER_POLICY, "same-origin"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Refuses what another site has a browser send.
pub async fn same_origin(request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match is_read || is_from_here(request.headers()) {
        true => next.run(request).await,
        false => {
            let message = "this form comes from another site\n";
            (StatusCode::FORBIDDEN, message).into_response()
        }
    }
}

/// Whether a request that changes something comes from a page of this server, or from no page at all.
fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return matches!(site, "same-origin" | "none");
    }
    match text(header::ORIGIN) {
        None => true,
        Some(origin) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some() && host == text(header::HOST)
        }
    }
}

/// Refuses requests for a name that is not this machine's, where everybody who reaches the server may do
/// everything: a page of another site could have its own name lead here (DNS rebinding).
pub async fn local_names(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    // What machines ask for by any name, and what pages of others gain nothing from.
    let is_open = matches!(path, "/healthz" | "/metrics")
        || ["/log/", "/oauth/", "/.well-known/"]
            .iter()
            .any(|open| path.starts_with(open));
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    if is_open || host.is_none_or(is_local_name) {
        return next.run(request).await;
    }
    let message = "nobody is authenticated here, so this server answers to localhost, to names without a \
                   dot, and to IP addresses only\n";
    (StatusCode::FORBIDDEN, message).into_response()
}

/// Whether no other site can make this name its own.
fn is_local_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let name = name.strip_suffix('.').unwrap_or(name);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<std::net::IpAddr>().is_ok()
        || !name.contains('.')
        || name.to_ascii_lowercase().ends_with(".localhost")
}

/// Makes the tokens of forms, and knows them again. A token is for one principal, as long as the process
/// lives. Without randomness there is no key, and no form works.
#[derive(Clone)]
pub struct Tokens(Option<hmac::Key>);

impl Tokens {
    /// With a key of its own.
    pub fn new() -> Self {
        let random = ring::rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random);
        if key.is_err() {
            tracing::error!("no randomness for the console's forms: they will not work");
        }
        Self(key.ok())
    }

    /// The token for the forms of a principal.
    pub fn make(&self, principal: &str) -> String {
        let Some(key) = &self.0 else {
            return String::new();
        };
        let tag = hmac::sign(key, principal.as_bytes());
        tag.as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Whether it is that token.
    pub fn is_good(&self, principal: &str, token: &str) -> bool {
        let good = self.make(principal);
        !good.is_empty() && bool::from(good.as_bytes().ct_eq(token.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        pairs.collect()
    }

    #[test]
    fn forms_come_from_here() {
        let here = ("host", "localhost:8233");
        for (pairs, good) in [
            (vec![here], true),
            (vec![here, ("origin", "http://localhost:8233")], true),
            (vec![here, ("origin", "http://localhost:8234")], false),
            (vec![here, ("origin", "https://evil.example")], false),
            (vec![here, ("origin", "null")], false),
            (vec![("origin", "http://localhost:8233")], false),
            (vec![here, ("sec-fetch-site", "same-origin")], true),
            (vec![here, ("sec-fetch-site", "cross-site")], false),
            (vec![here, ("sec-fetch-site", "same-site")], false),
        ] {
            assert_eq!(is_from_here(&headers(&pairs)), good, "{pairs:?}");
        }
    }

    #[test]
    fn names_that_others_can_have_are_none_of_ours() {
        for name in [
            "localhost:8233",
            "LOCALHOST",
            "127.0.0.1:8233",
            "[::1]:8233",
            "10.1.2.3",
            "steadfast:8233",
            "a.localhost:1",
            "localhost.",
        ] {
            assert!(is_local_name(name), "{name}");
        }
        for name in [
            "evil.example:8233",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "a b",
            "x@y.z:1",
        ] {
            assert!(!is_local_name(name), "{name}");
        }
    }

    #[test]
    fn tokens_are_for_one_principal_and_one_process() {
        let (tokens, others) = (Tokens::new(), Tokens::new());
        let token = tokens.make("alice");
        assert!(tokens.is_good("alice", &token));
        assert!(!tokens.is_good("bob", &token));
        assert!(!tokens.is_good("alice", ""));
        assert!(!others.is_good("alice", &token));
    }
}
