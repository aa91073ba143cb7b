"""The credential of a tool call, as those see it who are shown it: with PyJWT and the issuer's public keys.

The agent's activity hands its token out and waits, so that a test can do with it what an attacker would.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from authority import Secured, base64url
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives import serialization
from server import ROOT, Server, binary
from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, TLSConfig
from temporalio.worker import Worker
from test_bundle import export, trusted_key, verdict
from test_log import Log, leaf_hash

sys.path.insert(0, str(ROOT / "packages" / "python" / "src"))

import steadfast  # noqa: E402
from steadfast.verify import Refused, Verifier  # noqa: E402

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast gives credentials", allow_module_level=True)

PAY = "https://pay.example"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"


class Desk:
    """Where attempts lay down their credentials, and wait for what becomes of them."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[steadfast.Credential] = asyncio.Queue()
        self.outcomes: asyncio.Queue[str] = asyncio.Queue()

    async def next(self) -> steadfast.Credential:
        return await asyncio.wait_for(self.given.get(), 30)

    @activity.defn(name="refund")
    async def refund(self) -> str:
        await self.given.put(steadfast.credential())
        if (outcome := await self.outcomes.get()) == "fail":
            raise ApplicationError("the service is away")
        return outcome


@workflow.defn(name="RefundAgent", sandboxed=False)
class RefundAgent:
    @workflow.run
    async def run(self, heartbeat: float | None = None) -> str:
        again = RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_attempts=3)
        return await workflow.execute_activity(
            "refund",
            start_to_close_timeout=timedelta(minutes=5),
            heartbeat_timeout=timedelta(seconds=heartbeat) if heartbeat else None,
            retry_policy=again,
        )


@asynccontextmanager
async def agent(client: Client, desk: Desk, name: str, *given: float) -> AsyncIterator[WorkflowHandle]:
    """A session whose tool call is under way."""
    plugins = [steadfast.CredentialPlugin()]
    async with Worker(
        client, task_queue=name, workflows=[RefundAgent], activities=[desk.refund], plugins=plugins
    ):
        yield await client.start_workflow("RefundAgent", args=given, id=name, task_queue=name)


@workflow.defn(name="Desk", sandboxed=False)
class DeskAgent:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_child_workflow("RefundAgent", id=f"{workflow.info().workflow_id}-child")


class Configured(Server):
    """A server from a configuration file, on this machine only."""

    def __init__(self, folder: Path, name: str, more: str):
        super().__init__(folder / f"{name}.db", log=folder / f"{name}.log")
        self.config = folder / f"{name}.toml"
        self.config.write_text(
            f"grpc = '127.0.0.1:{self.port}'\nhttp = '127.0.0.1:{self.http_port}'\n"
            f"[store]\npath = '{self.db}'\n[log]\nlevel = 'trace'\n"
            f"{more}\n"
        )

    def start(self) -> None:
        out = open(self.log, "ab")
        command = [binary(), "serve", "--config", str(self.config)]
        self.process = subprocess.Popen(command, stdout=out, stderr=out)


class Issuing(Configured):
    """A server that gives credentials."""

    def __init__(self, folder: Path, credentials: str = "", audience: str = PAY):
        audiences = f"[credentials.audiences]\nrefund = '{audience}'\n"
        super().__init__(folder, "steadfast", f"[credentials]\n{credentials}\n{audiences}")


def issuing(folder: Path, request, credentials: str = "", audience: str = PAY) -> Iterator[Issuing]:
    from conftest import LOGS

    server = Issuing(folder, credentials, audience)
    request.config.stash[LOGS].append(server.log)
    server.start()
    yield server
    server.kill()
    request.config.stash[LOGS].remove(server.log)


@pytest.fixture
def server(tmp_path, request) -> Iterator[Issuing]:
    yield from issuing(tmp_path, request)


@pytest.fixture
def rotating(tmp_path, request) -> Iterator[Issuing]:
    yield from issuing(tmp_path, request, "publish_ahead_seconds = 3")


def get(server: Server, path: str) -> tuple[dict[str, Any], Any]:
    with urllib.request.urlopen(server.http + path, timeout=10) as answer:
        return json.loads(answer.read()), answer.headers


def post(server: Server, path: str, **fields: str) -> tuple[int, dict[str, Any]]:
    body = urllib.parse.urlencode(fields).encode()
    try:
        with urllib.request.urlopen(server.http + path, data=body, timeout=10) as answer:
            assert answer.headers["cache-control"] == "no-store"
            content = answer.read()
            return answer.status, json.loads(content) if content else {}
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def is_active(server: Server, token: str) -> bool:
    status, answer = post(server, "/oauth/introspect", token=token)
    assert status == 200
    return answer["active"]


def exchange(server: Server, token: str, audience: str, **more: str) -> tuple[int, dict[str, Any]]:
    fields = {"subject_token": token, "subject_token_type": JWT, "audience": audience}
    return post(server, "/oauth/token", **{"grant_type": EXCHANGE, **fields, **more})


def verified(server: Server, token: str, audience: str = PAY) -> dict[str, Any]:
    """As somebody verifies it who has only the issuer's address."""
    metadata, _ = get(server, "/.well-known/openid-configuration")
    key = jwt.PyJWKClient(metadata["jwks_uri"]).get_signing_key_from_jwt(token)
    return jwt.decode(token, key, algorithms=["ES256"], audience=audience, issuer=metadata["issuer"])


async def over_within_a_second(server: Server, token: str) -> None:
    begun = time.monotonic()
    while is_active(server, token):
        assert time.monotonic() - begun < 1
        await asyncio.sleep(0.05)


async def noted(server: Server, what: str) -> list[dict[str, Any]]:
    log = Log(server)
    checkpoint = await log.covers(what)
    entries = [json.loads(entry) for entry in log.entries(checkpoint.size)]
    return [entry for entry in entries if entry.get("note", {}).get("what") == what]


async def test_it_says_which_call_it_is_for_and_where_the_log_says_so(server: Issuing) -> None:
    await server.ready()
    log = Log(server)
    desk = Desk()
    client = await server.client(identity="alice")
    for name in ["first", "order-7"]:
        # The first one is there so that the log has begun, which has a name from then on.
        async with agent(client, desk, name) as session:
            credential = await desk.next()
            claims = verified(server, credential.token)
            answer = post(server, "/oauth/introspect", token=credential.token)[1]
            await desk.outcomes.put("done")
            assert await session.result() == "done"
        checkpoint = await log.covers(credential.id)
    assert answer == {**claims, "active": True, "token_type": "Bearer"}
    assert claims["iss"] == server.http and claims["sub"] == "default/RefundAgent"
    assert claims["aud"] == PAY and claims["iat"] == claims["nbf"] <= time.time()
    assert 0 < claims["exp"] - time.time() <= 300
    assert claims["act"] == {"sub": "unauthenticated#alice"}
    call = claims["steadfast"]
    reference = call.pop("log")
    assert call.pop("idempotency_key").startswith(f"{session.result_run_id}/")
    assert call == {
        "namespace": "default",
        "workflow_type": "RefundAgent",
        "workflow_id": "order-7",
        "run_id": session.result_run_id,
        "activity_id": "1",
        "tool": "refund",
        "attempt": 1,
        "initiator": "alice",
        "initiator_method": "unauthenticated",
    }
    assert reference["origin"] == checkpoint.origin and reference["run_id"] == call["run_id"]
    [entry] = [
        entry
        for entry in log.entries(checkpoint.size)
        if base64.b64encode(leaf_hash(entry)).decode() == reference["leaf"]
    ]
    entry = json.loads(entry)
    assert (entry["run_id"], entry["n"]) == (reference["run_id"], reference["entry"])
    [attempt] = entry["attempts"]
    expires = time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z", time.gmtime(claims["exp"]))
    assert attempt["credential"] == {"audience": PAY, "expires": expires, "jti": claims["jti"]}
    server.check_evidence()


async def test_a_child_acts_for_its_parent(server: Issuing) -> None:
    await server.ready()
    desk = Desk()
    client = await server.client(identity="alice")
    async with Worker(
        client,
        task_queue="family",
        workflows=[DeskAgent, RefundAgent],
        activities=[desk.refund],
        plugins=[steadfast.CredentialPlugin()],
    ):
        session = await client.start_workflow("Desk", id="parent", task_queue="family")
        credential = await desk.next()
        assert credential.subject == "default/RefundAgent"
        initiator = {"sub": "unauthenticated#alice"}
        assert credential.claims["act"] == {"sub": "default/Desk", "act": initiator}
        server.kill()
        server.start()
        await server.ready()
        await desk.outcomes.put("fail")
        again = await desk.next()
        assert again.claims["act"] == credential.claims["act"], "it is durable"
        await desk.outcomes.put("done")
        assert await session.result() == "done"
    server.check_evidence()


async def test_a_bundle_says_what_was_given(server: Issuing, tmp_path) -> None:
    await server.ready()
    desk = Desk()
    async with agent(await server.client(), desk, "bundled") as session:
        credential = await desk.next()
        assert exchange(server, credential.token, "https://shop.example")[0] == 200
        await desk.outcomes.put("done")
        await session.result()
    await Log(server).covers("credential/exchanged")
    bundle = export(server, tmp_path / "session.zip", "--workflow-id", "bundled")
    assert verdict(bundle, trusted_key(server), 0)
    with zipfile.ZipFile(bundle) as files:
        parts = {name: files.read(name) for name in files.namelist()}
    report = next(content for name, content in parts.items() if name.endswith(".html")).decode()
    assert f"its credential {credential.id} is for {PAY} until" in report
    assert credential.token.split(".")[2].encode() not in b"".join(parts.values())
    command = [binary(), "evidence", "ocsf", "--address", server.http]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and credential.id in done.stdout


async def test_it_counts_until_the_attempt_is_over(server: Issuing) -> None:
    await server.ready()
    desk = Desk()
    client = await server.client()
    async with agent(client, desk, "retried") as session:
        first = await desk.next()
        assert is_active(server, first.token)
        await desk.outcomes.put("fail")
        second = await desk.next()
        assert first.id != second.id and second.tool_call["attempt"] == 2
        assert first.tool_call["idempotency_key"] == second.tool_call["idempotency_key"]
        assert not is_active(server, first.token) and is_active(server, second.token)
        await desk.outcomes.put("done")
        await session.result()
        await over_within_a_second(server, second.token)
    async with agent(client, desk, "terminated") as session:
        credential = await desk.next()
        assert is_active(server, credential.token)
        await session.terminate()
        await over_within_a_second(server, credential.token)
        await desk.outcomes.put("too late")
    # It is signed, and has not expired: only who asks knows.
    assert verified(server, credential.token)["jti"] == credential.id
    verifier = Verifier(server.http, PAY)
    with pytest.raises(Refused, match="not active"):
        verifier.verify_sync(credential.token)


async def test_a_silent_attempt_loses_it(server: Issuing) -> None:
    await server.ready()
    desk = Desk()
    async with agent(await server.client(), desk, "silent", 1.0) as session:
        first = await desk.next()
        assert is_active(server, first.token)
        assert first.claims["exp"] - time.time() > 200
        second = await desk.next()
        assert second.tool_call["attempt"] == 2
        assert not is_active(server, first.token) and is_active(server, second.token)
        await session.terminate()
        for _ in range(2):
            await desk.outcomes.put("too late")


async def test_another_steadfast_server_knows_the_agent_by_it(tmp_path, request) -> None:
    for first in issuing(tmp_path, request, audience="the-other-one"):
        await first.ready()
        (tmp_path / "policies").mkdir()
        policy = f"""permit(
            principal == Agent::"{first.http}#default/RefundAgent",
            action in [Action::"connect", Action::"ListWorkflowExecutions"],
            resource
        );"""
        (tmp_path / "policies" / "p.cedar").write_text(policy)
        other = Configured(
            tmp_path,
            "other",
            f"[policy]\npath = '{tmp_path / 'policies'}'\n[[auth.oidc]]\nissuer = '{first.http}'\n"
            "audiences = ['the-other-one']\nkind = 'agent'\n",
        )
        other.start()
        desk = Desk()
        try:
            async with agent(await first.client(), desk, "abroad") as session:
                credential = await desk.next()
                deadline = time.monotonic() + 30
                while True:
                    try:
                        client = await Client.connect(other.address, api_key=credential.token, tls=False)
                        break
                    except RuntimeError:
                        assert time.monotonic() < deadline, other.tail()
                        await asyncio.sleep(0.1)
                assert [each async for each in client.list_workflows()] == []
                with pytest.raises(RPCError, match="no policy permits"):
                    await client.get_workflow_handle("x").terminate()
                stranger = exchange(first, credential.token, "somebody-else")[1]["access_token"]
                with pytest.raises(RuntimeError, match="another audience"):
                    await Client.connect(other.address, api_key=stranger, tls=False)
                await desk.outcomes.put("done")
                await session.result()
        finally:
            other.kill()


async def test_packages_accept_it(server: Issuing) -> None:
    await server.ready()
    desk = Desk()
    async with agent(await server.client(), desk, "packages") as session:
        credential = await desk.next()
        verifier = Verifier(server.http, PAY)
        assert (await verifier.verify(credential.token, tool="refund")).id == credential.id
        with pytest.raises(Refused, match="another tool"):
            await verifier.verify(credential.token, tool="delete")
        with pytest.raises(Refused, match="Audience"):
            await Verifier(server.http, "https://bank.example").verify(credential.token)
        narrow = await credential.exchange(audience="https://shop.example", scope="refunds")
        shop = Verifier(server.http, "https://shop.example")
        exchanged = await shop.verify(narrow.token, tool="refund")
        assert exchanged.claims["scope"] == "refunds" and exchanged.expires == credential.expires
        with pytest.raises(steadfast.ExchangeError, match="invalid_request"):
            await narrow.exchange(audience=PAY)
        await desk.outcomes.put("done")
        await session.result()
        with pytest.raises(steadfast.ExchangeError, match="not active"):
            await credential.exchange(audience="https://shop.example")
        with pytest.raises(Refused, match="not active"):
            await shop.verify(narrow.token)


def forged(token: str, jwk: dict[str, Any]) -> dict[str, str]:
    """What attackers make of a token, and of the public key that verifies it."""
    _, payload, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    public = jwt.PyJWK(jwk).key
    pem = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    point = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint

    def header(alg: str, **more: str) -> str:
        return base64url(json.dumps({"alg": alg, "typ": "JWT", "kid": jwk["kid"], **more}).encode())

    def hs256(secret: bytes) -> str:
        message = f"{header('HS256')}.{payload}"
        return f"{message}.{base64url(hmac.digest(secret, message.encode(), hashlib.sha256))}"

    own = ec.generate_private_key(ec.SECP256R1())

    def signed(kid: str = jwk["kid"], **changed: Any) -> str:
        return jwt.encode({**claims, **changed}, own, algorithm="ES256", headers={"kid": kid})

    def changed(**changes: Any) -> str:
        body = base64url(json.dumps({**claims, **changes}).encode())
        return ".".join([token.split(".")[0], body, signature])

    call = claims["steadfast"]
    return {
        "none": f"{header('none')}.{payload}.",
        "None": f"{header('None')}.{payload}.",
        "none with the signature": f"{header('none')}.{payload}.{signature}",
        "without a signature": f"{token.split('.')[0]}.{payload}.",
        "HS256 with the key as PEM": hs256(public.public_bytes(*pem)),
        "HS256 with the point": hs256(public.public_bytes(*point)),
        "HS256 with the JWK": hs256(json.dumps(jwk).encode()),
        "HS256 with nothing": hs256(b""),
        "another key": signed(),
        "another key and kid": signed("other"),
        "a kid that is a path": signed("../../dev/null"),
        "a kid with SQL": signed("' or 1=1 --"),
        "another audience": changed(aud="https://bank.example"),
        "another namespace": changed(steadfast={**call, "namespace": "payroll"}),
        "longer": changed(exp=claims["exp"] + 3600),
        "a key of its own": jwt.encode(
            claims,
            own,
            algorithm="ES256",
            headers={"jwk": json.loads(jwt.algorithms.ECAlgorithm.to_jwk(own.public_key())), "kid": "x"},
        ),
        "no token": "a.b.c",
        "nothing": "",
    }


async def test_what_is_forged_counts_for_nothing(server: Issuing) -> None:
    await server.ready()
    desk = Desk()
    async with agent(await server.client(), desk, "forged") as session:
        credential = await desk.next()
        [jwk] = get(server, "/oauth/jwks")[0]["keys"]
        assert is_active(server, credential.token)
        for what, token in forged(credential.token, jwk).items():
            if token:
                assert post(server, "/oauth/introspect", token=token) == (200, {"active": False}), what
                assert post(server, "/oauth/revoke", token=token) == (200, {}), what
            status, answer = exchange(server, token, PAY)
            assert (status, answer["error"]) == (400, "invalid_request"), what
            assert not token or token not in answer["error_description"]
            with pytest.raises(jwt.PyJWTError):
                jwt.decode(token, jwt.PyJWK(jwk), algorithms=["ES256"], audience=PAY, issuer=server.http)
        assert is_active(server, credential.token), "nobody revoked it"
        await desk.outcomes.put("done")
        await session.result()


async def test_what_its_own_key_signs_has_to_be_right_too(server: Issuing) -> None:
    await server.ready()
    stored = json.loads((server.db.parent / "steadfast.db.credential-keys").read_text())["keys"][0]
    key = serialization.load_der_private_key(base64.b64decode(stored["private"]), None)
    desk = Desk()
    async with agent(await server.client(), desk, "insider") as session:
        credential = await desk.next()
        kid = jwt.get_unverified_header(credential.token)["kid"]
        claims, now = dict(credential.claims), int(time.time())
        call = claims["steadfast"]

        def signed(**changed: Any) -> str:
            given = {name: value for name, value in {**claims, **changed}.items() if value is not None}
            return jwt.encode(given, key, algorithm="ES256", headers={"kid": kid})

        assert is_active(server, signed())
        table = [
            {"nbf": now + 60},
            {"exp": now - 1},
            {"exp": None},
            {"iss": "https://evil.example"},
            {"iss": None},
            {"aud": None},
            {"aud": [PAY, "https://bank.example"]},
            {"jti": "another"},
            {"steadfast": {**call, "attempt": 2}},
            {"steadfast": {**call, "activity_id": "2"}},
            {"steadfast": {**call, "run_id": "00000000-0000-4000-8000-000000000000"}},
            {"steadfast": {**call, "workflow_id": "another"}},
            {"steadfast": {**call, "namespace": "temporal-system"}},
            {"steadfast": None},
        ]
        for changed in table:
            assert not is_active(server, signed(**changed)), changed
        await desk.outcomes.put("done")
        await session.result()


async def test_it_is_not_before_its_time_and_not_after(tmp_path, request) -> None:
    for server in issuing(tmp_path, request, "lifetime_seconds = 2"):
        await server.ready()
        desk = Desk()
        async with agent(await server.client(), desk, "short") as session:
            credential = await desk.next()
            assert credential.claims["exp"] - credential.claims["iat"] == 2
            assert is_active(server, credential.token)
            status, other = exchange(server, credential.token, "https://shop.example")
            assert status == 200 and other["expires_in"] <= 2
            await asyncio.sleep(credential.claims["exp"] - time.time() + 0.1)
            assert not is_active(server, credential.token), "the attempt is under way, and it has expired"
            assert not is_active(server, other["access_token"])
            status, answer = exchange(server, credential.token, PAY)
            assert (status, answer["error"]) == (400, "invalid_request")
            with pytest.raises(jwt.ExpiredSignatureError):
                verified(server, credential.token)
            await desk.outcomes.put("done")
            await session.result()


async def test_it_survives_kill_9_and_so_does_its_revocation(server: Issuing) -> None:
    await server.ready()
    desk = Desk()
    async with agent(await server.client(), desk, "killed") as session:
        credential = await desk.next()
        server.kill()
        server.start()
        await server.ready()
        assert is_active(server, credential.token)
        assert verified(server, credential.token)["jti"] == credential.id
        _, other = exchange(server, credential.token, "https://shop.example")
        _, third = exchange(server, credential.token, "https://third.example")
        assert post(server, "/oauth/revoke", token=third["access_token"]) == (200, {})
        assert not is_active(server, third["access_token"])
        assert is_active(server, credential.token), "only that one"
        assert is_active(server, other["access_token"])
        # By its id, as an operator has it from the log; in another namespace it is another one.
        command = [binary(), "credentials", "revoke", "--address", server.http, credential.id]
        elsewhere = subprocess.run([*command, "--namespace", "x"], capture_output=True, text=True, timeout=60)
        assert elsewhere.returncode == 1 and "not found" in elsewhere.stderr
        assert is_active(server, credential.token)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        server.kill()
        server.start()
        await server.ready()
        assert not is_active(server, credential.token)
        assert not is_active(server, other["access_token"]), "dies with what it was exchanged for"
        entries = await noted(server, "credential/revoked")
        assert credential.id in entries[-1]["note"]["detail"]
        assert entries[0]["note"]["workflow_id"] == "killed"
        assert post(server, "/oauth/revoke", token=credential.token) == (200, {})
        await desk.outcomes.put("done")
        await session.result()
    server.check_evidence()


async def test_an_exchange_is_for_one_audience_and_is_in_the_log(server: Issuing) -> None:
    await server.ready()
    desk = Desk()
    async with agent(await server.client(), desk, "exchanged") as session:
        credential = await desk.next()
        status, answer = exchange(server, credential.token, "https://shop.example", scope="read refund")
        assert status == 200
        token = answer.pop("access_token")
        assert 0 < answer.pop("expires_in") <= 300
        assert answer == {"issued_token_type": JWT, "token_type": "Bearer", "scope": "read refund"}
        claims = verified(server, token, "https://shop.example")
        own = dict(credential.claims)
        assert claims["steadfast"].pop("exchanged_from") == credential.id
        for same in ["iss", "sub", "act", "exp", "steadfast"]:
            assert claims[same] == own[same], same
        assert claims["jti"] != credential.id
        for audience in [PAY, "https://shop.example", "https://bank.example"]:
            status, refused = exchange(server, token, audience)
            assert (status, refused["error"]) == (400, "invalid_request"), "it is not exchanged again"
        [entry] = await noted(server, "credential/exchanged")
        assert entry["cause"]["principal"] == "default/RefundAgent"
        assert entry["cause"]["auth"] == "credential"
        detail = entry["note"]["detail"]
        assert all(part in detail for part in [claims["jti"], credential.id, "https://shop.example"])
        await session.terminate()
        await over_within_a_second(server, token)
        await desk.outcomes.put("too late")


async def test_errors_are_those_of_oauth(server: Issuing) -> None:
    await server.ready()
    whole = {"grant_type": EXCHANGE, "subject_token": "x", "subject_token_type": JWT, "audience": PAY}
    table = [
        ({**whole, "grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({**whole, "grant_type": ""}, "invalid_request"),
        ({**whole, "subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({**whole, "resource": PAY}, "invalid_target"),
        ({**whole, "audience": "x" * 401}, "invalid_target"),
        ({**whole, "scope": "a  b"}, "invalid_scope"),
        (whole, "invalid_request"),
    ]
    for fields, error in table:
        status, answer = post(server, "/oauth/token", **fields)
        assert (status, answer["error"]) == (400, error), fields
        assert answer["error_description"]
    assert post(server, "/oauth/introspect")[1]["error"] == "invalid_request"
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(server.http + "/oauth/token", data=b"x" * 100_000, timeout=10)


async def test_keys_turn_without_anybody_noticing(rotating: Issuing) -> None:
    await rotating.ready()
    metadata, headers = get(rotating, "/.well-known/openid-configuration")
    assert headers["cache-control"] == "public, max-age=300"
    keys, headers = get(rotating, "/oauth/jwks")
    assert headers["cache-control"] == "public, max-age=1"
    [old] = keys["keys"]
    assert (old["kty"], old["crv"], old["alg"], old["use"]) == ("EC", "P-256", "ES256", "sig")
    members = json.dumps({name: old[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    assert old["kid"] == base64url(hashlib.sha256(members.encode()).digest())
    cached = jwt.PyJWKClient(metadata["jwks_uri"], lifespan=300)

    def by_cached(token: str) -> dict[str, Any]:
        key = cached.get_signing_key_from_jwt(token)
        return jwt.decode(token, key, algorithms=["ES256"], audience=PAY)

    desk = Desk()
    client = await rotating.client()
    async with agent(client, desk, "before") as before:
        first = await desk.next()
        assert by_cached(first.token)["jti"] == first.id
        stale = jwt.PyJWKSet.from_dict(keys)
        command = [binary(), "credentials", "rotate-key", "--config", str(rotating.config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "signs from" in done.stdout
        shown = [key["kid"] for key in get(rotating, "/oauth/jwks")[0]["keys"]]
        assert len(shown) == 2 and shown[0] == old["kid"]
        async with agent(client, desk, "meanwhile") as meanwhile:
            second = await desk.next()
            # Whoever has only the old set does not notice: the new key does not sign yet.
            assert jwt.get_unverified_header(second.token)["kid"] == old["kid"]
            assert jwt.decode(second.token, stale[old["kid"]], algorithms=["ES256"], audience=PAY)
            await asyncio.sleep(3.5)
            async with agent(client, desk, "after") as after:
                third = await desk.next()
                assert jwt.get_unverified_header(third.token)["kid"] == shown[1]
                for credential in [first, second, third]:
                    assert by_cached(credential.token)["jti"] == credential.id
                    assert is_active(rotating, credential.token)
                # All of it is in the files.
                rotating.kill()
                rotating.start()
                await rotating.ready()
                for credential in [first, second, third]:
                    assert verified(rotating, credential.token)["jti"] == credential.id
                    assert is_active(rotating, credential.token)
                for session in [before, meanwhile, after]:
                    await desk.outcomes.put("done")
                for session in [before, meanwhile, after]:
                    await session.result()
    [entry] = await noted(rotating, "credential/key-rotated")
    assert all(kid in entry["note"]["detail"] for kid in shown)
    keys_file = rotating.db.parent / "steadfast.db.credential-keys"
    assert keys_file.stat().st_mode & 0o777 == 0o600
    assert keys_file.read_text().count('"private"') == 1, "what signs no more is gone"


async def test_no_token_is_kept_anywhere(server: Issuing) -> None:
    await server.ready()
    desk = Desk()
    client = await server.client()
    tokens = []
    for name in ["kept", "kept-too"]:
        async with agent(client, desk, name) as session:
            credential = await desk.next()
            tokens.append(credential.token)
            _, answer = exchange(server, credential.token, "https://shop.example")
            tokens.append(answer["access_token"])
            assert is_active(server, credential.token)
            post(server, "/oauth/revoke", token=answer["access_token"])
            await desk.outcomes.put("done")
            await session.result()
            history = await session.fetch_history()
            for event in history.events:
                if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                    fields = event.activity_task_scheduled_event_attributes.header.fields
                    assert "steadfast-credential" not in fields
    await Log(server).covers(credential.id)
    server.check_evidence()
    assert server.stop() == 0
    files = {path: path.read_bytes() for path in server.db.parent.rglob("*") if path.is_file()}
    assert any(credential.id.encode() in content for content in files.values()), "the id is"
    for token in tokens:
        _, payload, signature = token.split(".")
        for path, content in files.items():
            for part in (payload, signature, payload[:40]):
                assert part.encode() not in content, path
            # Nor decoded.
            assert base64.urlsafe_b64decode(signature + "==") not in content, path


async def test_there_are_none_unless_asked_for(own_server: Server) -> None:
    own_server.start()
    await own_server.ready()
    for path in ["/.well-known/openid-configuration", "/oauth/jwks"]:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(own_server, path)


async def test_dev_issues_them_when_asked_to(tmp_path, request) -> None:
    server = Server(tmp_path / "steadfast.db", log=tmp_path / "server.log", flags=["--credentials"])
    server.start()
    try:
        await server.ready()
        desk = Desk()
        async with agent(await server.client(), desk, "dev") as session:
            credential = await desk.next()
            assert verified(server, credential.token, server.http)["iss"] == server.http
            await desk.outcomes.put("done")
            await session.result()
        assert server.stop() == 0
    finally:
        server.kill()


POLICIES = """
@id("admins")
permit(principal in Group::"admin", action, resource in Server::"this");
@id("tools")
permit(principal is Agent, action in Action::"command", resource);
@id("connect")
permit(principal, action in Action::"connect", resource);
@id("workers")
permit(principal in Group::"worker", action in [Action::"worker", Action::"DescribeNamespace"], resource);
@id("payers")
permit(principal in Group::"payer", action == Action::"RevokeCredential", resource == Namespace::"payroll");
@id("refunds-to-the-shop")
permit(
  principal == Agent::"default/RefundAgent",
  action == Action::"ExchangeCredential",
  resource == Audience::"https://shop.example"
) when { context.tool == "refund" && context.initiator_method == "api-key" && context.scope.contains("refunds") };
@id("never-the-bank")
forbid(principal, action == Action::"ExchangeCredential", resource == Audience::"https://bank.example");
"""


class Closed:
    """A server with authentication and policies, over HTTPS."""

    def __init__(self, folder: Path, policies: str | None):
        auth = f"[auth]\napi_keys = true\n[credentials]\n[credentials.audiences]\nrefund = '{PAY}'\n"
        self.server = Secured(folder, auth, policies=policies)

    async def client(self, key: str) -> Client:
        tls = TLSConfig(server_root_ca_cert=self.server.ca)
        return await Client.connect(self.server.address, tls=tls, api_key=key)

    def post(self, path: str, key: str | None = None, **fields: str) -> tuple[int, Any]:
        context = ssl.create_default_context(cadata=self.server.ca.decode())
        url = f"https://127.0.0.1:{self.server.http_port}{path}"
        request = urllib.request.Request(url, data=urllib.parse.urlencode(fields).encode())
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                content, status = answer.read(), answer.status
        except urllib.error.HTTPError as error:
            content, status = error.read(), error.code
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content.decode()

    def exchange(self, token: str, audience: str, **more: str) -> tuple[int, Any]:
        fields = {"subject_token": token, "subject_token_type": JWT, "audience": audience}
        return self.post("/oauth/token", **{"grant_type": EXCHANGE, **fields, **more})


@pytest.fixture
def closed(tmp_path, request) -> Iterator[Any]:
    servers = []

    def start(policies: str | None) -> Closed:
        closed = Closed(tmp_path, policies)
        closed.server.start()
        servers.append(closed.server)
        return closed

    yield start
    for server in servers:
        server.stop()


async def test_who_may_ask_and_for_whom_policies_decide(closed) -> None:
    closed = closed(POLICIES)
    server = closed.server
    admin = server.admin_key
    worker = server.new_key("refund-workers", "--group", "worker")
    shop = server.new_key("shop")
    payer = server.new_key("payer", "--group", "payer")
    desk = Desk()
    async with agent(await closed.client(admin), desk, "governed") as session:
        credential = await desk.next()
        issuer = f"https://127.0.0.1:{server.http_port}"
        assert credential.issuer == issuer
        # Metadata and keys are open; nothing else is.
        status, metadata, _ = server.get("/.well-known/openid-configuration")
        assert status == 200
        assert json.loads(metadata)["introspection_endpoint_auth_methods_supported"] == ["Bearer"]
        status, keys, _ = server.get("/oauth/jwks")
        key = jwt.PyJWKSet.from_dict(json.loads(keys)).keys[0]
        claims = jwt.decode(credential.token, key, algorithms=["ES256"], audience=PAY, issuer=issuer)
        initiator = claims["act"]["sub"]
        assert initiator.startswith("api-key#") and claims["steadfast"]["initiator"] == initiator
        for path in ["/oauth/introspect", "/oauth/revoke"]:
            assert closed.post(path, token=credential.token)[0] == 401
        # Whoever was shown it may ask, of no group at all; not take it back.
        assert closed.post("/oauth/introspect", shop, token=credential.token)[1]["active"] is True
        assert closed.post("/oauth/revoke", shop, token=credential.token)[0] == 403
        by_id = f"/api/v1/namespaces/default/credentials/{credential.id}/revoke"
        assert closed.post(by_id)[0] == 401
        assert closed.post(by_id, payer)[0] == 403
        status, why = closed.post("/oauth/revoke", payer, token=credential.token)
        assert status == 403 and "RevokeCredential is denied" in why, "of another namespace"
        # The credential is not who calls the API.
        assert closed.post("/oauth/introspect", credential.token, token=credential.token)[0] == 401
        table = [
            ("https://other.example", "refunds", "no policy permits"),
            ("https://shop.example", "", "no policy permits"),
            ("https://bank.example", "refunds", "forbidden by never-the-bank"),
        ]
        for audience, scope, why in table:
            status, answer = closed.exchange(credential.token, audience, scope=scope)
            assert (status, answer["error"]) == (400, "invalid_target")
            assert why in answer["error_description"]
        status, answer = closed.exchange(credential.token, "https://shop.example", scope="refunds")
        assert status == 200
        active = closed.post("/oauth/introspect", shop, token=answer["access_token"])[1]
        assert active["active"] and active["scope"] == "refunds"
        assert closed.post("/oauth/revoke", admin, token=answer["access_token"])[0] == 200
        inactive = closed.post("/oauth/introspect", shop, token=answer["access_token"])
        assert inactive == (200, {"active": False})
        await desk.outcomes.put("done")
        await session.result()
    deadline = time.monotonic() + 20
    while True:
        notes = [entry for entry in server.entries(admin) if "note" in entry]
        said = [(of["note"]["what"], of["cause"]["principal"], of["note"]["detail"]) for of in notes]
        if sum(what == "call/refused" for what, _, _ in said) >= 5:
            break
        assert time.monotonic() < deadline, said
        await asyncio.sleep(0.1)
    exchanges = [detail for what, _, detail in said if what == "credential/exchanged"]
    assert len(exchanges) == 1 and "by refunds-to-the-shop" in exchanges[0]
    refused = [(who, detail) for what, who, detail in said if what == "call/refused"]
    assert ("default/RefundAgent", True) in [(who, "never-the-bank" in detail) for who, detail in refused]
    assert worker


def test_what_policies_decide_can_be_tried(tmp_path) -> None:
    (tmp_path / "policies.cedar").write_text(POLICIES)
    cases = [
        {"audience": "https://shop.example", "scope": ["refunds"], "expect": "allow", "policies": ["refunds-to-the-shop"]},
        {"audience": "https://shop.example", "expect": "deny", "policies": []},
        {"audience": "https://bank.example", "expect": "deny", "policies": ["never-the-bank"]},
    ]
    common = {"tool": "refund", "workflow_type": "RefundAgent", "initiator_method": "api-key"}
    table = {"policies": "policies.cedar", "case": [{**common, **case} for case in cases]}
    (tmp_path / "cases.json").write_text(json.dumps(table))
    command = [binary(), "policy", "test", str(tmp_path / "cases.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    command = [binary(), "policy", "explain", str(tmp_path), "--tool", "refund", "--workflow-type", "RefundAgent"]
    command += ["--audience", "https://bank.example", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "never-the-bank" in done.stdout, done.stdout + done.stderr


async def test_by_the_starter_policies_nothing_is_exchanged(closed) -> None:
    closed = closed(None)
    server = closed.server
    worker = server.new_key("refund-workers", "--group", "worker")
    desk = Desk()
    async with agent(await closed.client(server.admin_key), desk, "starters") as session:
        credential = await desk.next()
        status, answer = closed.exchange(credential.token, "https://shop.example")
        assert (status, answer["error"]) == (400, "invalid_target")
        # A worker that has no more use for it may end it.
        assert closed.post("/oauth/revoke", worker, token=credential.token)[0] == 200
        assert closed.post("/oauth/introspect", worker, token=credential.token)[1] == {"active": False}
        await desk.outcomes.put("done")
        await session.result()
