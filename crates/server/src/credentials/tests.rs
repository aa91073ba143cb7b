//! Tokens as others may make them, and keys on their way from one to the next.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use steadfast_engine::proto::common::Principal;
use steadfast_engine::state::Credential;
use steadfast_ledger::{Entry, Hash};
use steadfast_runtime::credentials::Recorded;
use steadfast_runtime::namespaces::Namespace;
use steadfast_store::Store;
use steadfast_store::sqlite::SqliteStore;

use super::keys::Key;
use super::*;

const ISSUER: &str = "https://agents.example";
const NOW: Time = 1_700_000_000 * SECOND;

fn issued() -> Issued {
    Issued {
        credential: Credential {
            id: "an-id".into(),
            audience: "https://pay.example".into(),
            expires: NOW + 60 * SECOND,
        },
        issued: NOW + 300,
        namespace: "default".into(),
        workflow_type: "RefundAgent".into(),
        workflow_id: "order-7".into(),
        run_id: "run".into(),
        activity_id: "1".into(),
        tool: "refund".into(),
        attempt: 2,
        initiator: Some(Principal {
            r#type: "oidc".into(),
            name: "https://i.example#alice".into(),
        }),
        agents: Vec::new(),
        idempotency_key: "run/5".into(),
        recorded: Some(Recorded {
            n: 4,
            leaf: Hash::of(b"leaf"),
        }),
    }
}

fn claims() -> Claims {
    Claims::of(&issued(), ISSUER, Some("log/default".into()))
}

fn ring() -> KeyRing {
    crate::authn::install_verification();
    KeyRing::of(Key::generate(NOW).expect("a key"))
}

fn signed(claims: &Claims, ring: &KeyRing) -> String {
    let key = ring.signer(NOW).expect("a key");
    claims.sign(key).expect("is signed")
}

fn reads(token: &str, ring: &KeyRing) -> bool {
    Claims::verified(token, ring, ISSUER, NOW).is_some()
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[test]
fn a_token_says_what_it_is_for() {
    let expected = json!({
        "iss": ISSUER,
        "sub": "default/RefundAgent",
        "aud": "https://pay.example",
        "iat": 1_700_000_000,
        "nbf": 1_700_000_000,
        "exp": 1_700_000_060,
        "jti": "an-id",
        "act": { "sub": "https://i.example#alice" },
        "steadfast": {
            "namespace": "default",
            "workflow_type": "RefundAgent",
            "workflow_id": "order-7",
            "run_id": "run",
            "activity_id": "1",
            "tool": "refund",
            "attempt": 2,
            "initiator": "https://i.example#alice",
            "initiator_method": "oidc",
            "idempotency_key": "run/5",
            "log": {
                "origin": "log/default",
                "run_id": "run",
                "entry": 4,
                "leaf": Hash::of(b"leaf").to_string(),
            },
        },
    });
    assert_eq!(json!(claims()), expected);
    let ring = ring();
    let token = signed(&claims(), &ring);
    let read = Claims::verified(&token, &ring, ISSUER, NOW);
    assert_eq!(read, Some(claims()));
}

#[test]
fn an_initiator_that_was_only_claimed_looks_like_it() {
    let mut issued = issued();
    issued.initiator = Some(Principal {
        r#type: "unauthenticated".into(),
        name: "https://i.example#alice".into(),
    });
    let claims = Claims::of(&issued, ISSUER, None);
    let actor = claims.act.expect("an actor").sub;
    assert_eq!(actor, "unauthenticated#https://i.example#alice");
    issued.agents = vec!["default/Lead".into(), "default/Desk".into()];
    let claims = Claims::of(&issued, ISSUER, None);
    let chain = json!({ "sub": "default/Lead", "act": { "sub": "default/Desk", "act": {
        "sub": "unauthenticated#https://i.example#alice",
    } } });
    assert_eq!(json!(claims.act), chain);
    issued.agents.clear();
    issued.initiator = None;
    assert_eq!(Claims::of(&issued, ISSUER, None).act, None);
}

#[test]
fn a_token_counts_in_its_time_only() {
    let ring = ring();
    let token = signed(&claims(), &ring);
    for (at, counts) in [
        (NOW - 1, false),
        (NOW, true),
        (NOW + 60 * SECOND - 1, true),
        (NOW + 60 * SECOND, false),
    ] {
        let read = Claims::verified(&token, &ring, ISSUER, at);
        assert_eq!(read.is_some(), counts, "{at}");
    }
}

#[test]
fn what_this_server_did_not_sign_is_nothing() {
    let (ring, other) = (ring(), ring());
    let token = signed(&claims(), &ring);
    assert!(reads(&token, &ring));
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        panic!("three parts");
    };
    let key = ring.signer(NOW).expect("a key");
    let with = |alg: &str| encoded(&json!({ "alg": alg, "kid": key.id(), "typ": "JWT" }));
    // The public key as a shared secret, in the forms that libraries confuse.
    let jwk = ring.jwks(NOW)["keys"][0].clone();
    let point = |name: &str| {
        let text = jwk[name].as_str().expect("a coordinate");
        URL_SAFE_NO_PAD.decode(text).expect("base64")
    };
    let sec1 = [&[4][..], &point("x"), &point("y")].concat();
    let secrets = [sec1, jwk.to_string().into_bytes(), key.id().into()];
    let hs256 = secrets.iter().map(|secret| {
        let message = format!("{}.{payload}", with("HS256"));
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let tag = hmac::sign(&secret, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
    });
    let widened = Claims {
        aud: "https://bank.example".into(),
        ..claims()
    };
    let foreign = {
        let mut foreign = claims();
        foreign.steadfast.namespace = "payroll".into();
        foreign
    };
    let elsewhere = Claims {
        iss: "https://evil.example".into(),
        ..claims()
    };
    let extension = json!({ "alg": "ES256", "kid": key.id(), "crit": ["x"], "x": 1 });
    let sign = |header: &str| {
        let message = format!("{header}.{payload}");
        let signature = key.sign(message.as_bytes()).expect("signed");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let nameless = sign(&encoded(&json!({ "alg": "ES256" })));
    let table = [
        format!("{}.{payload}.", with("none")),
        format!("{}.{payload}.{signature}", with("none")),
        format!("{}.{payload}.{signature}", with("ES384")),
        format!("{header}.{payload}."),
        format!("{header}.{}.{signature}", encoded(&json!(widened))),
        format!("{header}.{}.{signature}", encoded(&json!(foreign))),
        signed(&claims(), &other),
        signed(&elsewhere, &ring),
        sign(&encoded(&extension)),
        nameless,
        format!("{header}.{payload}.{signature}="),
        format!("{token}.{payload}"),
        format!("{header}.{payload}"),
        format!("{token}{}", "A".repeat(MAX_TOKEN)),
        String::new(),
    ];
    for forged in table.into_iter().chain(hs256) {
        assert!(!reads(&forged, &ring), "{forged}");
    }
    assert!(reads(&sign(header), &ring), "what is left is the signature");
}

#[test]
fn an_exchanged_token_is_asked_about_by_what_it_was_exchanged_for() {
    let mut claims = claims();
    claims.steadfast.exchanged_from = Some("own".into());
    assert_eq!(claims.claim().id, "own");
    assert_eq!(super::tests::claims().claim().id, "an-id");
}

async fn runtime(store: &Arc<SqliteStore>) -> Runtime {
    let shared: Arc<dyn Store> = store.clone();
    let settings = Config::default().settings();
    let runtime = Runtime::open(shared, settings).await.expect("a runtime");
    if runtime.namespaces().by_name("default").is_err() {
        let put = runtime
            .namespaces()
            .put(&**runtime.store(), Namespace::new("default"));
        put.await.expect("a namespace");
    }
    runtime
}

async fn open(runtime: &Runtime, path: &std::path::Path) -> Credentials {
    let credentials = CredentialsConfig {
        issuer: ISSUER.into(),
        key: Some(path.to_owned()),
        rotate_after_hours: 1,
        ..CredentialsConfig::default()
    };
    let config = Config {
        credentials: Some(credentials),
        ..Config::default()
    };
    let opened = Credentials::open(runtime, &config, None, &Logs::default()).await;
    opened.expect("opens").expect("is configured")
}

/// What the log says of credentials.
async fn notes(runtime: &Runtime) -> Vec<(String, String)> {
    let id = &runtime.namespaces().by_name("default").expect("there").id;
    runtime.log_size(id).await.expect("projected");
    let entries = runtime.store().log_entries(id, 0, 100, usize::MAX).await;
    let entries = entries.expect("entries");
    let notes = entries.iter().filter_map(|entry| {
        let note = Entry::parse(entry).expect("an entry").note?;
        let is_ours = note.what.starts_with("credential/");
        is_ours.then(|| (note.what.into_owned(), note.detail.into_owned()))
    });
    notes.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_kept_and_rotated_and_the_log_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    let store = Arc::new(SqliteStore::open_in_memory().expect("a store"));
    let first = runtime(&store).await;
    let credentials = open(&first, &path).await;
    let ids = |credentials: &Credentials, at| -> Vec<String> {
        let keys = credentials.0.signer.keys();
        keys.published(at).map(|key| key.id().to_owned()).collect()
    };
    let now = steadfast_runtime::clock::now();
    let [old] = &ids(&credentials, now)[..] else {
        panic!("one key");
    };
    credentials
        .0
        .look_after_keys(now)
        .await
        .expect("nothing to do");
    assert_eq!(ids(&credentials, now), std::slice::from_ref(old));
    // Asked for on the command line, while no server runs.
    let (new, _) = keys::ask_for_rotation(&path).expect("is asked for");
    let next = folder.path().join("keys.next");
    let asked = std::fs::read(&next).expect("the new key");
    first.stop();
    let second = runtime(&store).await;
    let credentials = open(&second, &path).await;
    credentials.0.look_after_keys(now).await.expect("is taken");
    assert!(!keys::is_asked_for(&path));
    assert_eq!(ids(&credentials, now), [old.clone(), new.clone()]);
    // As after a crash before the new key's own file was removed.
    std::fs::write(&next, asked).expect("is there again");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&next, private).expect("changes");
    credentials.0.look_after_keys(now).await.expect("is known");
    assert!(!keys::is_asked_for(&path));
    assert_eq!(ids(&credentials, now), [old.clone(), new.clone()]);
    let signer = |at| {
        let keys = credentials.0.signer.keys();
        keys.signer(at).map(|key| key.id().to_owned())
    };
    assert_eq!(signer(now).as_ref(), Some(old));
    let turn = now + 600 * SECOND;
    credentials.0.look_after_keys(turn).await.expect("turns");
    assert_eq!(signer(turn).as_ref(), Some(&new));
    assert_eq!(ids(&credentials, turn).len(), 2);
    // An hour later it is time by itself.
    let hour = turn + 3600 * SECOND;
    credentials
        .0
        .look_after_keys(hour - 601 * SECOND)
        .await
        .expect("nothing to do");
    credentials
        .0
        .look_after_keys(hour - 600 * SECOND)
        .await
        .expect("rotates");
    let shown = ids(&credentials, hour);
    assert!(shown.len() == 2 && shown[0] == new, "{shown:?}");
    let notes = notes(&second).await;
    let whats: Vec<&str> = notes.iter().map(|(what, _)| what.as_str()).collect();
    let expected = [
        "credential/key-created",
        "credential/key-rotated",
        "credential/key-rotated",
    ];
    assert_eq!(whats, expected);
    assert!(notes[0].1.contains(old) && notes[1].1.contains(&new));
    let text = std::fs::read_to_string(&path).expect("the file");
    assert!(notes.iter().all(|(_, detail)| !detail.contains("PRIVATE")));
    assert_eq!(
        text.matches("\"private\"").count(),
        2,
        "the first one's is gone"
    );
    second.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_stays_so_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    let store = Arc::new(SqliteStore::open_in_memory().expect("a store"));
    let first = runtime(&store).await;
    let credentials = open(&first, &path).await;
    let permit = Permit::granted("RevokeCredential", "root".into(), "oidc".into());
    let mut claims = claims();
    claims.exp = steadfast_runtime::clock::now() / SECOND + 60;
    credentials.revoke(&permit, &claims).await.expect("revoked");
    credentials.revoke(&permit, &claims).await.expect("again");
    let whats = notes(&first).await;
    assert_eq!(whats.len(), 2, "{whats:?}");
    assert_eq!(whats[1].0, "credential/revoked");
    assert!(whats[1].1.contains("an-id"));
    let revoked = credentials.revoke_id(&permit, "default", "another").await;
    revoked.expect("revoked");
    let nowhere = credentials.revoke_id(&permit, "nowhere", "another").await;
    assert!(nowhere.is_err());
    first.stop();
    let second = runtime(&store).await;
    let credentials = open(&second, &path).await;
    assert!(credentials.0.revocations.has("default/another"));
    assert!(credentials.0.revocations.has("default/an-id"));
    assert!(!credentials.is_active(&claims).await.expect("known"));
    second.stop();
}
