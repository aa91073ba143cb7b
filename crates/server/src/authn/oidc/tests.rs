//! Tokens and sets of keys, as issuers and others may make them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{self as ring_signatures, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://issuer.example";

/// `ring` makes no RSA keys. Used nowhere else.
const RSA: &[u8] = include_bytes!("test-rsa.pk8");

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> i64 {
    steadfast_runtime::clock::now() / SECOND
}

/// What signs.
enum Signer {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::from_pkcs8(RSA).expect("a key"))
    }

    fn p256() -> Self {
        let (algorithm, random) = (
            &ring_signatures::ECDSA_P256_SHA256_FIXED_SIGNING,
            SystemRandom::new(),
        );
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        Self::P256(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).expect("a key"))
    }

    fn p384() -> Self {
        let (algorithm, random) = (
            &ring_signatures::ECDSA_P384_SHA384_FIXED_SIGNING,
            SystemRandom::new(),
        );
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        Self::P384(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).expect("a key"))
    }

    fn ed() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Self::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key"))
    }

    fn jwk(&self, id: &str) -> Value {
        let point = |key: &EcdsaKeyPair, curve: &str, length: usize| {
            let (x, y) = key.public_key().as_ref()[1..].split_at(length);
            json!({ "kty": "EC", "crv": curve, "kid": id, "x": base64(x), "y": base64(y) })
        };
        match self {
            Self::Rsa(key) => {
                let public: ring::rsa::PublicKeyComponents<Vec<u8>> = key.public().into();
                // With the sign's byte, as some issuers write it.
                let n = [&[0], &public.n[..]].concat();
                json!({ "kty": "RSA", "kid": id, "use": "sig", "n": base64(n), "e": base64(public.e) })
            }
            Self::P256(key) => point(key, "P-256", 32),
            Self::P384(key) => point(key, "P-384", 48),
            Self::Ed(key) => {
                let x = base64(key.public_key());
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x })
            }
        }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let padding: &dyn ring_signatures::RsaEncoding = match algorithm {
                    "RS256" => &ring_signatures::RSA_PKCS1_SHA256,
                    "RS384" => &ring_signatures::RSA_PKCS1_SHA384,
                    "RS512" => &ring_signatures::RSA_PKCS1_SHA512,
                    "PS256" => &ring_signatures::RSA_PSS_SHA256,
                    "PS384" => &ring_signatures::RSA_PSS_SHA384,
                    _ => &ring_signatures::RSA_PSS_SHA512,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, message, &mut signature)
                    .expect("signed");
                signature
            }
            Self::P256(key) | Self::P384(key) => {
                let signed = key.sign(&random, message).expect("signed");
                signed.as_ref().to_vec()
            }
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    fn token(&self, algorithm: &str, id: &str, claims: &Value) -> String {
        let header = json!({ "alg": algorithm, "kid": id, "typ": "JWT" });
        self.token_with(algorithm, &header, claims)
    }

    fn token_with(&self, algorithm: &str, header: &Value, claims: &Value) -> String {
        let message = format!(
            "{}.{}",
            base64(header.to_string()),
            base64(claims.to_string())
        );
        let signature = self.sign(algorithm, message.as_bytes());
        format!("{message}.{}", base64(signature))
    }
}

fn claims() -> Value {
    let now = now();
    json!({
        "iss": ISSUER, "aud": "steadfast", "sub": "alice",
        "iat": now, "nbf": now, "exp": now + 300, "groups": ["finance", "ops"],
    })
}

fn claims_with(change: Value) -> Value {
    let mut claims = claims();
    for (name, value) in change.as_object().expect("claims") {
        match value.is_null() {
            true => drop(claims.as_object_mut().map(|claims| claims.remove(name))),
            false => claims[name] = value.clone(),
        }
    }
    claims
}

fn config(more: &str) -> OidcConfig {
    let text = format!("issuer = '{ISSUER}'\naudiences = ['steadfast', 'other']\n{more}");
    toml::from_str(&text).expect("a configuration")
}

fn document(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

/// One issuer that always shows these keys.
fn oidc(config: &OidcConfig, keys: &[Value]) -> Oidc {
    signatures::install();
    let document = document(keys);
    let fetch = Box::new(move || Ok(document.clone()));
    Oidc::of(vec![Issuer::new(config, fetch)])
}

async fn refused(oidc: &Oidc, token: &str) -> String {
    let refused = oidc.authenticate(token).await.expect_err(token);
    let message = refused.to_string();
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(!message.contains(part), "{message}");
    }
    message
}

#[tokio::test]
async fn each_algorithm_is_verified_with_keys_of_its_own() {
    let signers = [
        ("r", Signer::rsa()),
        ("2", Signer::p256()),
        ("3", Signer::p384()),
        ("e", Signer::ed()),
    ];
    let keys: Vec<_> = signers.iter().map(|(id, signer)| signer.jwk(id)).collect();
    let oidc = oidc(&config(""), &keys);
    let rsa = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    let table = rsa.map(|algorithm| (algorithm, "r"));
    let others = [("ES256", "2"), ("ES384", "3"), ("EdDSA", "e")];
    for (algorithm, id) in table.into_iter().chain(others) {
        let (_, signer) = signers.iter().find(|(of, _)| *of == id).expect("a signer");
        let token = signer.token(algorithm, id, &claims());
        let identity = oidc.authenticate(&token).await.expect(algorithm);
        assert_eq!(identity.principal(), "https://issuer.example#alice");
        assert_eq!((identity.kind, identity.method), (Kind::User, "oidc"));
        assert_eq!(*identity.groups, ["finance".to_owned(), "ops".to_owned()]);
        // The same signature under another algorithm, and one that is changed.
        for (other, _) in table.into_iter().chain(others) {
            if other != algorithm {
                let header = json!({ "alg": other, "kid": id });
                let wrong = signer.token_with(algorithm, &header, &claims());
                refused(&oidc, &wrong).await;
            }
        }
        let (rest, _) = token.rsplit_once('.').expect("three parts");
        let (_, signature) = signer
            .token(algorithm, id, &claims_with(json!({ "sub": "bob" })))
            .rsplit_once('.')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .expect("three parts");
        let message = refused(&oidc, &format!("{rest}.{signature}")).await;
        assert_eq!(message, "the token's signature is wrong");
    }
}

#[tokio::test]
async fn claims_decide() {
    let signer = Signer::p256();
    let oidc = oidc(&config(""), &[signer.jwk("k")]);
    let now = now();
    let table = [
        (json!({ "iss": "https://evil.example" }), "not known here"),
        (json!({ "iss": null }), "not known here"),
        (json!({ "iss": [ISSUER] }), "not known here"),
        (json!({ "aud": "somebody" }), "another audience"),
        (json!({ "aud": ["somebody"] }), "another audience"),
        (json!({ "aud": [] }), "another audience"),
        (json!({ "aud": null }), "names no audience"),
        (json!({ "aud": 7 }), "names no audience"),
        (json!({ "exp": now - 100 }), "has expired"),
        (json!({ "exp": null }), "no time at which it expires"),
        (json!({ "exp": "never" }), "token"),
        (json!({ "exp": -1 }), "token"),
        (json!({ "nbf": now + 100 }), "not valid yet"),
        (json!({ "nbf": "now" }), "cannot be verified"),
        (json!({ "iat": now + 100 }), "issued in the future"),
        (json!({ "iat": "now" }), "issued in the future"),
        (json!({ "sub": null }), "no claim \"sub\""),
        (json!({ "sub": 7 }), "no claim \"sub\""),
        (json!({ "sub": "" }), "empty"),
        (json!({ "sub": "a\nb" }), "control"),
        (json!({ "groups": 7 }), "no list of groups"),
        (json!({ "groups": ["a", 7] }), "no list of groups"),
        (json!({ "groups": { "admin": true } }), "no list of groups"),
    ];
    for (change, expected) in table {
        let token = signer.token("ES256", "k", &claims_with(change.clone()));
        let message = refused(&oidc, &token).await;
        assert!(message.contains(expected), "{change}: {message}");
    }
    let fine = [
        json!({ "aud": ["x", "other"] }),
        json!({ "exp": now - 30 }),
        json!({ "nbf": now + 30, "iat": now + 30 }),
        json!({ "nbf": null, "iat": null }),
        json!({ "groups": null }),
        json!({ "groups": "one" }),
    ];
    for change in fine {
        let token = signer.token("ES256", "k", &claims_with(change.clone()));
        let known = oidc.authenticate(&token).await;
        assert!(known.is_ok(), "{change}: {known:?}");
    }
}

#[tokio::test]
async fn tokens_that_anybody_can_make_are_refused() {
    let signer = Signer::rsa();
    let jwk = signer.jwk("k");
    let shared = json!({ "kty": "oct", "kid": "shared", "k": base64("secret") });
    let keys = [jwk.clone(), shared];
    let oidc = oidc(&config(""), &keys);
    let body = base64(claims().to_string());
    let header = |header: Value| base64(header.to_string());
    for algorithm in ["none", "None", "", "XS256"] {
        let header = header(json!({ "alg": algorithm, "kid": "k" }));
        for signature in ["", "AAAA"] {
            let message = refused(&oidc, &format!("{header}.{body}.{signature}")).await;
            assert!(
                message.contains("neither an API key nor a JWT"),
                "{message}"
            );
        }
    }
    // The public key as the secret of an HMAC, in the ways in which it is written.
    let Signer::Rsa(key) = &signer else {
        panic!("an RSA key");
    };
    let secrets = [
        key.public().as_ref().to_vec(),
        jwk["n"].as_str().expect("a number").as_bytes().to_vec(),
        jwk.to_string().into_bytes(),
        b"secret".to_vec(),
    ];
    for secret in secrets {
        for id in ["k", "shared"] {
            let message = format!("{}.{body}", header(json!({ "alg": "HS256", "kid": id })));
            let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
            let signature = base64(hmac::sign(&secret, message.as_bytes()));
            let message = refused(&oidc, &format!("{message}.{signature}")).await;
            assert!(message.contains("not accepted"), "{message}");
        }
    }
    // A key that the token brings along.
    let other = Signer::p256();
    let brought = json!({ "alg": "ES256", "kid": "mine", "jwk": other.jwk("mine") });
    let token = other.token_with("ES256", &brought, &claims());
    assert!(refused(&oidc, &token).await.contains("does not show"));
    let critical = json!({ "alg": "RS256", "kid": "k", "crit": ["exp"] });
    let token = signer.token_with("RS256", &critical, &claims());
    assert!(refused(&oidc, &token).await.contains("extensions"));
    let token = signer.token("RS256", "k", &claims());
    for broken in [
        "",
        ".",
        "..",
        "a.b.c",
        &token[1..],
        &format!("{token}.x"),
        "\u{e9}",
    ] {
        refused(&oidc, broken).await;
    }
}

#[tokio::test]
async fn keys_are_for_what_their_issuer_says() {
    let signer = Signer::rsa();
    let with = |name: &str, value: Value| {
        let mut jwk = signer.jwk("k");
        jwk[name] = value;
        vec![jwk, Signer::ed().jwk("other")]
    };
    let table = [
        (with("alg", json!("RS256")), "RS256", true),
        (with("alg", json!("RS256")), "PS256", false),
        (with("alg", json!("RSA-OAEP")), "RS256", false),
        (with("use", json!("enc")), "RS256", false),
        (with("key_ops", json!(["verify"])), "RS256", true),
        (with("key_ops", json!(["encrypt"])), "RS256", false),
        (with("kid", json!("other")), "RS256", false),
        (with("n", json!("AQAB")), "RS256", false),
        // What is not known here does no harm to the rest.
        (
            vec![json!({ "kty": "new" }), json!(7), signer.jwk("k")],
            "RS256",
            true,
        ),
    ];
    for (keys, algorithm, is_fine) in table {
        let oidc = oidc(&config(""), &keys);
        let known = oidc
            .authenticate(&signer.token(algorithm, "k", &claims()))
            .await;
        assert_eq!(known.is_ok(), is_fine, "{keys:?} {algorithm}");
    }
    // Without a key id there has to be one key that fits.
    let header = json!({ "alg": "RS256" });
    let token = signer.token_with("RS256", &header, &claims());
    let one = oidc(&config(""), &[signer.jwk("k"), Signer::ed().jwk("e")]);
    assert!(one.authenticate(&token).await.is_ok());
    let two = oidc(&config(""), &[signer.jwk("k"), signer.jwk("l")]);
    assert!(two.authenticate(&token).await.is_err());
}

#[tokio::test]
async fn names_and_groups_come_from_the_claims_that_are_configured() {
    let signer = Signer::ed();
    let keys = [signer.jwk("k")];
    let more = "id_claim = 'email'\ngroups_claim = '/realm/roles'\nkind = 'service'";
    let oidc = oidc(&config(more), &keys);
    let realm = json!({ "roles": ["r"] });
    let with = |verified: Value| {
        let change = json!({ "email": "a@b.c", "realm": realm, "email_verified": verified });
        signer.token("EdDSA", "k", &claims_with(change))
    };
    let identity = oidc.authenticate(&with(json!(true))).await.expect("known");
    assert_eq!(identity.principal(), format!("{ISSUER}#a@b.c"));
    assert_eq!(
        (identity.kind, &*identity.groups),
        (Kind::Service, &["r".to_owned()][..])
    );
    assert!(oidc.authenticate(&with(Value::Null)).await.is_ok());
    let message = refused(&oidc, &with(json!(false))).await;
    assert!(message.contains("not verified"), "{message}");
}

/// An issuer whose keys can be changed.
struct Changing {
    oidc: Oidc,
    document: Arc<Mutex<Vec<u8>>>,
    fetches: Arc<AtomicUsize>,
    is_down: Arc<AtomicBool>,
}

fn changing(more: &str, keys: &[Value]) -> Changing {
    signatures::install();
    let shared = Arc::new(Mutex::new(document(keys)));
    let (fetches, is_down) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let fetch = {
        let (shared, fetches, is_down) = (shared.clone(), fetches.clone(), is_down.clone());
        Box::new(move || {
            fetches.fetch_add(1, Ordering::SeqCst);
            match is_down.load(Ordering::SeqCst) {
                true => Err("no answer".to_owned()),
                false => Ok(shared.lock().clone()),
            }
        })
    };
    let mut config = config(more);
    if more.is_empty() {
        config.refetch_seconds = 0;
    }
    Changing {
        oidc: Oidc::of(vec![Issuer::new(&config, fetch)]),
        document: shared,
        fetches,
        is_down,
    }
}

#[tokio::test]
async fn a_key_that_the_issuer_takes_back_is_refused_also_for_tokens_that_were_verified() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let issuer = changing("", &[old.jwk("old")]);
    let token = old.token("ES256", "old", &claims());
    for _ in 0..10 {
        issuer.oidc.authenticate(&token).await.expect("known");
    }
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 1);
    *issuer.document.lock() = document(&[new.jwk("new")]);
    let newer = new.token("ES256", "new", &claims());
    issuer.oidc.authenticate(&newer).await.expect("known");
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 2);
    assert!(
        refused(&issuer.oidc, &token)
            .await
            .contains("does not show")
    );
}

#[tokio::test]
async fn invented_key_ids_cause_one_fetch() {
    let signer = Signer::p256();
    let issuer = changing("refetch_seconds = 3600", &[signer.jwk("k")]);
    let attempts = (0..300).map(|id| {
        let token = signer.token("ES256", &format!("invented-{id}"), &claims());
        let oidc = &issuer.oidc;
        async move { oidc.authenticate(&token).await.expect_err("refused") }
    });
    futures::future::join_all(attempts).await;
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 1);
    let token = signer.token("ES256", "k", &claims());
    issuer.oidc.authenticate(&token).await.expect("known");
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_issuer_that_is_down_is_not_the_callers_fault_and_its_keys_stay() {
    let (known, unknown) = (Signer::p256(), Signer::p256());
    let issuer = changing("", &[known.jwk("k")]);
    issuer.is_down.store(true, Ordering::SeqCst);
    let token = |n: i64| known.token("ES256", "k", &claims_with(json!({ "n": n })));
    let refused = issuer.oidc.authenticate(&token(0)).await;
    assert!(matches!(refused, Err(Refusal::Unavailable(_))));
    issuer.is_down.store(false, Ordering::SeqCst);
    issuer.oidc.authenticate(&token(1)).await.expect("known");
    issuer.is_down.store(true, Ordering::SeqCst);
    let other = unknown.token("ES256", "u", &claims());
    let refused = issuer.oidc.authenticate(&other).await;
    assert!(matches!(refused, Err(Refusal::Unauthenticated(_))));
    issuer.oidc.authenticate(&token(2)).await.expect("known");
    // Nonsense instead of keys is no reason to forget them.
    issuer.is_down.store(false, Ordering::SeqCst);
    for nonsense in [
        &b"{}"[..],
        b"",
        b"{\"keys\": []}",
        b"{\"keys\": [{\"kty\": \"oct\"}]}",
    ] {
        *issuer.document.lock() = nonsense.to_vec();
        assert!(issuer.oidc.authenticate(&other).await.is_err());
        issuer.oidc.authenticate(&token(3)).await.expect("known");
    }
}

/// Answers `pages` by path on a port of this machine, until the process ends.
fn serve(pages: impl Fn(&str) -> Option<String> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let (status, body) = match pages(path) {
                Some(body) => ("200 OK", body),
                None => ("404 Not Found", String::new()),
            };
            let head = "connection: close\r\ncontent-type: application/json";
            let length = body.len();
            let answer =
                format!("HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn keys_are_found_by_discovery() {
    let signer = Signer::rsa();
    let jwks = String::from_utf8(document(&[signer.jwk("k")])).expect("text");
    let (sender, receiver) = std::sync::mpsc::channel::<String>();
    let base = serve({
        let metadata = std::sync::OnceLock::new();
        move |path| match path {
            "/.well-known/openid-configuration" => Some(
                metadata
                    .get_or_init(|| receiver.recv().expect("sent"))
                    .clone(),
            ),
            "/keys" => Some(jwks.clone()),
            _ => None,
        }
    });
    let metadata = json!({ "issuer": base, "jwks_uri": format!("{base}/keys") });
    sender.send(metadata.to_string()).expect("sent");
    let mut config = config("");
    config.issuer = base.clone();
    let oidc = Oidc::open(&[config.clone()]).expect("an issuer");
    let token = signer.token("RS256", "k", &claims_with(json!({ "iss": base })));
    oidc.authenticate(&token).await.expect("known");
    // Metadata of somebody else.
    config.issuer = base.replace("127.0.0.1", "localhost");
    let oidc = Oidc::open(&[config.clone()]).expect("an issuer");
    let token = signer.token("RS256", "k", &claims_with(json!({ "iss": config.issuer })));
    let refused = oidc.authenticate(&token).await;
    assert!(matches!(refused, Err(Refusal::Unavailable(_))));
}

#[tokio::test]
async fn a_document_of_any_size_is_not_read() {
    let signer = Signer::p256();
    let jwks = |padding: usize| {
        let padding = json!({ "kty": "x".repeat(padding) });
        String::from_utf8(document(&[signer.jwk("k"), padding])).expect("text")
    };
    let (fits, too_large) = (jwks(200 << 10), jwks(300 << 10));
    let base = serve(move |path| match path {
        "/fits" => Some(fits.clone()),
        "/large" => Some(too_large.clone()),
        _ => None,
    });
    for (path, is_fine) in [("fits", true), ("large", false), ("none", false)] {
        let oidc = Oidc::open(&[config(&format!("jwks_url = '{base}/{path}'"))]);
        let oidc = oidc.expect("an issuer");
        let known = oidc
            .authenticate(&signer.token("ES256", "k", &claims()))
            .await;
        assert_eq!(known.is_ok(), is_fine, "{path}: {known:?}");
    }
}
