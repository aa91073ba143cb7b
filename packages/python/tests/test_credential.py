"""The package on its own: headers as the server sends them, an issuer on loopback."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
import urllib.parse
import uuid
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from temporalio.api.common.v1 import Payload
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

import steadfast
from steadfast.verify import Refused, Unavailable, Verifier

AUDIENCE = "https://shop.example.com"


def payload(value: object, encoding: bytes = b"json/plain") -> Payload:
    return Payload(metadata={"encoding": encoding}, data=json.dumps(value).encode())


class Issuer:
    """What the server's issuer answers."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.active = True
        self.forms: list[dict[str, str]] = []
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/.well-known/openid-configuration":
                    return self.answer(issuer.metadata())
                if self.path == "/oauth/jwks":
                    return self.answer({"keys": [issuer.jwk()]})
                self.answer({}, 404)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                form = dict(urllib.parse.parse_qsl(body))
                issuer.forms.append(form)
                if self.path == "/oauth/introspect":
                    return self.answer({"active": issuer.active})
                if form.get("audience") == "elsewhere":
                    self.send_response(302)
                    self.send_header("location", f"{issuer.url}/oauth/introspect")
                    self.end_headers()
                    return None
                if form.get("audience") == "forbidden":
                    return self.answer({"error": "invalid_target"}, 400)
                self.answer({"access_token": issuer.token(aud=form["audience"])})

            def answer(self, value: object, code: int = 200) -> None:
                content = json.dumps(value).encode()
                self.send_response(code)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def metadata(self) -> dict[str, str]:
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/oauth/jwks",
            "token_endpoint": f"{self.url}/oauth/token",
            "introspection_endpoint": f"{self.url}/oauth/introspect",
        }

    def jwk(self) -> dict[str, object]:
        jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        return {**jwk, "kid": "1", "alg": "ES256", "use": "sig"}

    def token(self, key: ec.EllipticCurvePrivateKey | None = None, **claims: object) -> str:
        given = {
            "iss": self.url,
            "sub": "default/RefundAgent",
            "aud": AUDIENCE,
            "exp": int(time.time()) + 300,
            "jti": uuid.uuid4().hex,
            "steadfast": {"tool": "refund", "attempt": 1, "workflow_id": "order-7"},
            **claims,
        }
        given = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(given, key or self.key, algorithm="ES256", headers={"kid": "1"})


@pytest.fixture
def issuer():
    issuer = Issuer()
    yield issuer
    issuer.http.shutdown()
    issuer.http.server_close()


class Innermost(ActivityInboundInterceptor):
    def __init__(self) -> None:
        pass

    async def execute_activity(self, input: ExecuteActivityInput) -> object:
        return await input.fn(*input.args)


async def run(fn, headers) -> object:
    """An activity, as a worker runs it whose tasks have these headers."""
    inbound = steadfast.CredentialInterceptor().intercept_activity(Innermost())
    return await inbound.execute_activity(
        ExecuteActivityInput(fn=fn, args=[], executor=None, headers=headers)
    )


async def both() -> tuple[steadfast.Credential, str]:
    return steadfast.credential(), steadfast.idempotency_key()


async def test_an_activity_has_its_credential_and_key(issuer):
    token = issuer.token()
    credential, key = await run(
        both, {"steadfast-credential": payload(token), "steadfast-idempotency-key": payload("k-1")}
    )
    assert (credential.token, key) == (token, "k-1")
    assert credential.subject == "default/RefundAgent"
    assert credential.tool_call["workflow_id"] == "order-7"
    assert credential.authorization_header == {"Authorization": f"Bearer {token}"}
    assert not credential.is_expired and credential.expires.utcoffset() == timedelta(0)
    for shown in (repr(credential), str(credential), f"{[credential]}"):
        assert token not in shown and token.split(".")[2] not in shown
    with pytest.raises(AttributeError):
        credential.token = "other"
    with pytest.raises(steadfast.NoCredential, match="not in an activity"):
        steadfast.credential()


async def test_activities_at_once_have_each_their_own(issuer):
    async def slow() -> str:
        await asyncio.sleep(0.01)
        return await asyncio.to_thread(steadfast.idempotency_key)

    keys = [f"k-{number}" for number in range(20)]
    found = await asyncio.gather(
        *(run(slow, {"steadfast-idempotency-key": payload(key)}) for key in keys)
    )
    assert found == keys


async def test_what_is_missing_is_said():
    async def no_credential():
        with pytest.raises(steadfast.NoCredential, match="gives this activity no credential"):
            steadfast.credential()
        with pytest.raises(steadfast.NoIdempotencyKey, match="steadfast-idempotency-key"):
            steadfast.idempotency_key()

    await run(no_credential, {})
    await run(no_credential, {"steadfast-credential": payload("x", b"binary/encrypted")})
    await run(no_credential, {"steadfast-credential": payload({"not": "a string"})})


@pytest.mark.parametrize(
    "token",
    ["x", "a.b", "a.!.c", "a.W10.c", "a.e30.c", "a.eyJleHAiOnRydWV9.c", "a.eyJleHAiOjFlOTl9.c", "a.é.c"],
)
async def test_a_bad_credential_fails_only_who_asks_for_it(token):
    async def body():
        with pytest.raises(steadfast.InvalidCredential):
            steadfast.credential()
        return steadfast.idempotency_key()

    headers = {"steadfast-credential": payload(token), "steadfast-idempotency-key": payload("k")}
    assert await run(body, headers) == "k"


async def test_an_exchange(issuer):
    token = issuer.token()
    other = await steadfast.Credential.parse(token).exchange(audience="https://b.example", scope="r")
    assert other.claims["aud"] == "https://b.example"
    assert issuer.forms == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "audience": "https://b.example",
            "scope": "r",
        }
    ]


@pytest.mark.parametrize("audience, said", [("forbidden", "400: invalid_target"), ("elsewhere", "302")])
async def test_an_exchange_that_is_refused_or_led_elsewhere(issuer, audience, said):
    token = issuer.token()
    with pytest.raises(steadfast.ExchangeError, match=said) as refused:
        await steadfast.Credential.parse(token).exchange(audience=audience)
    assert token not in str(refused.value) and len(issuer.forms) == 1


@pytest.mark.parametrize("url", ["http://steadfast.example.com", "file:///etc/passwd", "", "http://[", None])
async def test_tokens_go_nowhere_unencrypted(issuer, url):
    with pytest.raises(steadfast.ExchangeError):
        await steadfast.Credential.parse(issuer.token(iss=url)).exchange(audience="x")


async def test_a_service_verifies(issuer):
    verifier = Verifier(issuer.url, AUDIENCE)
    credential = await verifier.verify(issuer.token(), tool="refund")
    assert credential.tool_call["attempt"] == 1
    assert len(issuer.forms) == 1


@pytest.mark.parametrize(
    "claims, said",
    [
        ({"exp": 1}, "expired"),
        ({"aud": "https://other.example"}, "[Aa]udience"),
        ({"iss": "https://other.example"}, "[Ii]ssuer"),
        ({"jti": None}, "jti"),
        ({"exp": None}, "exp"),
        ({"steadfast": None}, "not the credential of a tool call"),
        ({"steadfast": {"tool": "payout"}}, "another tool: 'payout'"),
        ({"key": ec.generate_private_key(ec.SECP256R1())}, "[Ss]ignature"),
    ],
)
async def test_a_service_refuses(issuer, claims, said):
    with pytest.raises(Refused, match=said):
        await Verifier(issuer.url, AUDIENCE).verify(issuer.token(**claims), tool="refund")


async def test_other_algorithms_are_refused(issuer):
    claims = issuer.token().split(".")[1]
    for algorithm in ("none", "HS256"):
        header = json.dumps({"alg": algorithm, "kid": "1"}).encode()
        head = base64.urlsafe_b64encode(header).decode().rstrip("=")
        with pytest.raises(Refused):
            await Verifier(issuer.url, AUDIENCE).verify(f"{head}.{claims}.AAAA")


async def test_a_service_refuses_what_is_over(issuer):
    verifier = Verifier(issuer.url, AUDIENCE)
    token = issuer.token()
    await verifier.verify(token)
    issuer.active = False
    with pytest.raises(Refused, match="not active"):
        await verifier.verify(token)
    await Verifier(issuer.url, AUDIENCE, introspect=False).verify(token)


async def test_an_issuer_that_is_away_is_nobodys_fault(issuer):
    token = issuer.token()
    issuer.http.shutdown()
    issuer.http.server_close()
    with pytest.raises(Unavailable):
        await Verifier(issuer.url, AUDIENCE, timeout_seconds=1).verify(token)
