"""Webhooks: approvals are told to an endpoint, signed, in order, and also when somebody dies meanwhile."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import ssl
import subprocess
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from authority import Authority, Pair
from server import Server, binary, free_port
from temporalio.client import WorkflowFailureError
from test_policies_api import call
from test_policy import POLICIES, agents, run, vote, waiting

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast has webhooks", allow_module_level=True)

SHORT = """
@id("tools")
permit(principal is Agent, action == Action::"ExecuteTool", resource in Namespace::"default");
@id("soon")
@approval("required") @timeout("PT2S")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/delete_customer");
@id("risk")
@approval("required") @approvers("risk")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/refund");
"""


def new_secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


class Receiver:
    """An endpoint that verifies signatures with its own HMAC."""

    def __init__(self, *secrets: str, port: int | None = None):
        self.secrets = secrets
        self.port = port or free_port()
        self.requests: list[dict] = []
        self.taken: list[dict] = []
        self.answer: Callable[[dict], tuple[int, dict]] = lambda event: (204, {})
        self.server: ThreadingHTTPServer | None = None
        self.wrong: list[str] = []
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook?token=in-the-url"

    def open(self, tls: Pair | None = None) -> Receiver:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                event = receiver.verified(self.headers, body)
                receiver.requests.append(event)
                code, headers = receiver.answer(event)
                if code // 100 == 2:
                    receiver.taken.append(event)
                try:
                    self.send_response(code)
                    for name, value in {"content-length": "0", **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                except OSError:
                    pass

            def log_message(self, *_) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.cert, tls.key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.scheme = "https"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def close(self) -> None:
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def verified(self, headers, body: bytes) -> dict:
        """Standard Webhooks: `v1,` and the base64 of HMAC-SHA256 over id, time and body."""
        ident, stamp = headers["webhook-id"], headers["webhook-timestamp"]
        signed = f"{ident}.{stamp}.".encode() + body
        sent = set(headers["webhook-signature"].split(" "))
        for secret in self.secrets:
            key = base64.b64decode(secret.removeprefix("whsec_"))
            expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
            if expected not in sent:
                self.wrong.append(f"{ident}: not signed by a secret")
        if abs(time.time() - int(stamp)) > 60:
            self.wrong.append(f"{ident}: signed at {stamp}")
        if not headers["content-type"].startswith("application/cloudevents+json"):
            self.wrong.append(headers["content-type"])
        event = json.loads(body)
        if event["id"] != ident or event["specversion"] != "1.0":
            self.wrong.append(f"{ident}: {event}")
        return event

    async def names(self, count: int, seconds: float = 15) -> list[str]:
        """The types of the first events that were taken, without what they begin with."""
        deadline = time.monotonic() + seconds
        while len(self.taken) < count:
            assert time.monotonic() < deadline, (self.taken, self.requests[-3:])
            await asyncio.sleep(0.05)
        assert self.wrong == []
        return [of["type"].removeprefix("dev.steadfast.") for of in self.taken]


class Configured(Server):
    """A server from a configuration file."""

    def __init__(self, folder: Path, webhooks: str, policies: str = POLICIES):
        super().__init__(folder / "steadfast.db", log=folder / "server.log")
        self.config = folder / "steadfast.toml"
        (folder / "policies").mkdir()
        (folder / "policies" / "tools.cedar").write_text(policies)
        self.config.write_text(
            f"grpc = '127.0.0.1:{self.port}'\nhttp = '127.0.0.1:{self.http_port}'\n"
            f"[store]\npath = '{self.db}'\n[policy]\npath = '{folder / 'policies'}'\n{webhooks}"
        )

    def start(self) -> None:
        out = open(self.log, "ab")
        self.process = subprocess.Popen([binary(), "serve", "--config", str(self.config)], stdout=out, stderr=out)


def webhook(folder: Path, name: str, receiver: Receiver, more: str = "") -> str:
    path = folder / f"{name}.secret"
    path.write_text("\n".join(receiver.secrets) + "\n")
    path.chmod(0o600)
    return f"[[webhooks]]\nname = '{name}'\nurl = '{receiver.url}'\nsecret = '{path}'\n{more}\n"


@pytest.fixture
def world(tmp_path, request) -> Iterator[Callable[..., Configured]]:
    from conftest import LOGS

    made: list = []

    def make(webhooks: str, policies: str = POLICIES) -> Configured:
        server = Configured(tmp_path, webhooks, policies)
        request.config.stash[LOGS].append(server.log)
        made.append(server)
        return server

    yield make
    for server in made:
        server.kill()
        request.config.stash[LOGS].remove(server.log)


@pytest.fixture
def receivers() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(*secrets: str) -> Receiver:
        made.append(Receiver(*(secrets or (new_secret(),))))
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


def status(server: Server, name: str) -> dict:
    [found] = [of for of in call(server, "GET", "/api/v1/status")[1]["webhooks"] if of["name"] == name]
    return found


async def test_each_outcome_is_told_once_and_signed(world, receivers, tmp_path: Path) -> None:
    usual, open_one = receivers().open(), receivers().open()
    server = world(
        webhook(tmp_path, "usual", usual)
        + webhook(tmp_path, "open", open_one, "arguments = true\nevents = ['approval.requested', 'tool.denied']")
    )
    server.start()
    await server.ready()
    async with agents(server) as client:
        approved = await run(client, "refund", {"amount": 5000}, "approved")
        waits = await waiting(server)
        await vote(server, "approve", "approved", "bob", "finance")
        await vote(server, "approve", "approved", "rita", "risk")
        assert await approved.result() == "refunded 5000"
        denied = await run(client, "refund", {"amount": 6000}, "denied")
        await waiting(server)
        await vote(server, "deny", "denied", "bob", "finance")
        withdrawn = await run(client, "refund", {"amount": 7000}, "withdrawn")
        await waiting(server)
        await withdrawn.terminate()
        with pytest.raises(WorkflowFailureError):
            await denied.result()
        with pytest.raises(WorkflowFailureError):
            await (await run(client, "delete_customer", "c-1", "forbidden")).result()
    names = await usual.names(6)
    by_session = defaultdict(list)
    for event, name in zip(usual.taken, names, strict=True):
        by_session[event["subject"]].append(name)
    assert by_session == {
        "approved": ["approval.requested", "approval.approved"],
        "denied": ["approval.requested", "approval.denied"],
        "withdrawn": ["approval.requested", "approval.withdrawn"],
    }
    first, second = usual.taken[0], usual.taken[1]
    data = first["data"]
    assert data["digest"] == waits["digest"] and data["quorum"] == 2 and data["groups"] == ["finance", "risk"]
    assert (data["workflowType"], data["activityType"], data["kind"]) == ("Agent", "refund", "tool")
    assert data["initiator"]["name"] == "alice@desk" and data["policies"] == ["large-refunds"]
    assert data["expires"] == waits["expires"] and data["requested"] == waits["requested"]
    assert [of["principal"] for of in second["data"]["votes"]] == ["bob", "rita"]
    assert "arguments" not in data and "5000" not in json.dumps(usual.taken)
    # The entry that it comes from is in the log.
    with urllib.request.urlopen(f"{server.http}/log/default/checkpoint", timeout=10) as answer:
        origin, size = answer.read().decode().splitlines()[:2]
    assert first["source"] == origin and first["data"]["entry"]["index"] < int(size)
    assert len({of["id"] for of in usual.requests}) == len(usual.requests) == 6

    names = await open_one.names(4)
    assert sorted(names) == ["approval.requested"] * 3 + ["tool.denied"]
    amounts = [of["data"]["arguments"][0]["json"]["amount"] for of in open_one.taken if "digest" in of["data"]]
    assert amounts == [5000, 6000, 7000]
    [refused] = [of["data"] for of in open_one.taken if of["type"].endswith("tool.denied")]
    assert (refused["activityType"], refused["policies"]) == ("delete_customer", ["no-deletions"])

    known = status(server, "usual")
    assert (known["delivered"], known["failed"], known["givenUp"], known["error"]) == (6, 0, 0, None)
    assert known["host"] == f"http://127.0.0.1:{usual.port}" and "token" not in json.dumps(known)
    with urllib.request.urlopen(server.http + "/metrics", timeout=10) as answer:
        assert 'steadfast_webhook_delivered_total{webhook="usual"} 6' in answer.read().decode()
    # A restart tells nothing again.
    assert server.stop() == 0
    server.start()
    await server.ready()
    await asyncio.sleep(1)
    assert len(usual.requests) == 6 and len(open_one.requests) == 4


async def test_what_nobody_decides_expires_and_what_is_cancelled_is_withdrawn(world, receivers, tmp_path) -> None:
    receiver = receivers().open()
    server = world(webhook(tmp_path, "one", receiver), SHORT)
    server.start()
    await server.ready()
    async with agents(server) as client:
        with pytest.raises(WorkflowFailureError):
            await (await run(client, "delete_customer", "c-1", "late")).result()
        assert await receiver.names(2) == ["approval.requested", "approval.expired"]
        # Other policies, by which it is not needed any more.
        freed = await run(client, "refund", {"amount": 1}, "freed")
        await receiver.names(3)
        path = tmp_path / "policies" / "tools.cedar"
        path.write_text(SHORT.split("@id(\"risk\")")[0])
        await freed.result()
        assert (await receiver.names(4))[2:] == ["approval.requested", "approval.withdrawn"]
        assert "policies" in receiver.taken[3]["data"]["reason"]
        path.write_text(SHORT)
        await asyncio.sleep(2.5)
        # In a pause nobody is late.
        paused = await run(client, "delete_customer", "c-1", "paused")
        path_of = "/api/v1/namespaces/default/sessions/"
        for what in ("pause", "resume"):
            body = {"workflowId": "paused", "reason": "a test"}
            code, answer, _ = await asyncio.to_thread(call, server, "POST", path_of + what, body)
            assert code == 200, answer
            await asyncio.sleep(2.5 if what == "pause" else 0)
            assert len(receiver.taken) == 5, receiver.taken
        with pytest.raises(WorkflowFailureError):
            await paused.result()
        assert (await receiver.names(6))[4:] == ["approval.requested", "approval.expired"]
        cancelled = await run(client, "refund", {"amount": 1}, "cancelled")
        await receiver.names(7)
        await cancelled.cancel()
        with pytest.raises(WorkflowFailureError):
            await cancelled.result()
        assert (await receiver.names(8))[6:] == ["approval.requested", "approval.withdrawn"]
    assert len(receiver.requests) == 8


async def test_nothing_is_lost_when_the_server_is_killed_before_the_delivery(world, receivers, tmp_path) -> None:
    receiver = receivers().open()
    receiver.answer = lambda event: (500, {})
    server = world(webhook(tmp_path, "one", receiver))
    server.start()
    await server.ready()
    async with agents(server) as client:
        await run(client, "refund", {"amount": 5000}, "one")
        await run(client, "refund", {"amount": 6000}, "two")
        deadline = time.monotonic() + 10
        while not receiver.requests:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    server.kill()
    assert receiver.taken == []
    first = receiver.requests[0]["id"]
    receiver.answer = lambda event: (200, {})
    server.start()
    await server.ready()
    assert await receiver.names(2) == ["approval.requested"] * 2
    assert receiver.taken[0]["id"] == first, "the id is the same"

    # Killed again with what was taken: an end that comes now is told, though the request was told before.
    receiver.answer = lambda event: (503, {"retry-after": "1"})
    client = await server.client(identity="alice@desk")
    await client.get_workflow_handle("one").terminate()
    await asyncio.sleep(0.7)
    server.kill()
    receiver.answer = lambda event: (200, {})
    server.start()
    await server.ready()
    assert (await receiver.names(3))[2] == "approval.withdrawn"
    assert receiver.taken[2]["subject"] == "one"


async def test_an_endpoint_that_is_down_slow_or_moved_holds_up_nobody(world, receivers, tmp_path) -> None:
    down, slow, moved, works = receivers(), receivers().open(), receivers().open(), receivers().open()
    elsewhere = receivers().open()

    def wait(event: dict) -> tuple[int, dict]:
        time.sleep(3)
        return 200, {}

    slow.answer = wait
    moved.answer = lambda event: (302, {"location": elsewhere.url})
    server = world(
        webhook(tmp_path, "down", down)
        + webhook(tmp_path, "slow", slow, "timeout_seconds = 1")
        + webhook(tmp_path, "moved", moved)
        + webhook(tmp_path, "works", works)
    )
    server.start()
    await server.ready()
    async with agents(server) as client:
        for number in range(5):
            await run(client, "refund", {"amount": 5000 + number}, f"s-{number}")
        await works.names(5)
        deadline = time.monotonic() + 10
        while not all(status(server, name)["error"] for name in ("down", "slow", "moved")):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        known = status(server, "down")
        assert known["delivered"] == 0 and known["lagEntries"] > 0 and known["waitingSince"]
        assert "302" in status(server, "moved")["error"] and elsewhere.requests == []
        done = subprocess.run([binary(), "status", "--address", server.http], capture_output=True, text=True, timeout=30)
        assert done.returncode == 1 and "webhook down: FAILS" in done.stdout, done
        # Where it comes back, all is told, in order.
        down.open()
        await down.names(5, 30)
        for receiver in (down, works):
            assert [of["subject"] for of in receiver.taken] == [of["subject"] for of in works.taken]
        # It is asked again and again, by the same id.
        assert len({of["id"] for of in slow.requests}) == 1


async def test_an_endpoint_is_verified(world, receivers, tmp_path: Path) -> None:
    folder = tmp_path / "authority"
    folder.mkdir()
    authority = Authority(folder)
    known, unknown = (receivers().open(authority.issue("server")) for _ in range(2))
    server = world(
        webhook(tmp_path, "known", known, f"ca = '{authority.pair.cert}'") + webhook(tmp_path, "unknown", unknown)
    )
    server.start()
    await server.ready()
    async with agents(server) as client:
        await run(client, "refund", {"amount": 5000}, "one")
        await known.names(1)
        deadline = time.monotonic() + 10
        while not status(server, "unknown")["error"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    assert unknown.requests == [] and status(server, "known")["error"] is None


async def test_two_secrets_sign_while_they_are_rotated(world, receivers, tmp_path) -> None:
    old, new = new_secret(), new_secret()
    receiver = receivers(old).open()
    server = world(webhook(tmp_path, "one", receiver))
    server.start()
    await server.ready()
    async with agents(server) as client:
        await run(client, "refund", {"amount": 5000}, "one")
        await receiver.names(1)
        # Without a restart: first both, then the new one.
        (tmp_path / "one.secret").write_text(f"{new}\n{old}\n")
        receiver.secrets = (old, new)
        await run(client, "refund", {"amount": 5000}, "two")
        await receiver.names(2)
        (tmp_path / "one.secret").write_text(f"{new}\n")
        receiver.secrets = (new,)
        await run(client, "refund", {"amount": 5000}, "three")
        await receiver.names(3)


async def test_what_is_given_up_is_in_the_log(world, receivers, tmp_path) -> None:
    receiver = receivers().open()
    receiver.answer = lambda event: (410, {})
    server = world(webhook(tmp_path, "one", receiver, "give_up_after_seconds = 1"))
    server.start()
    await server.ready()
    async with agents(server) as client:
        await run(client, "refund", {"amount": 5000}, "one")
        deadline = time.monotonic() + 20
        while status(server, "one")["givenUp"] < 1:
            assert time.monotonic() < deadline, status(server, "one")
            await asyncio.sleep(0.1)
        receiver.answer = lambda event: (200, {})
        await run(client, "refund", {"amount": 6000}, "two")
        await receiver.names(1)
        assert receiver.taken[0]["subject"] == "two"
    deadline = time.monotonic() + 10
    while True:
        with urllib.request.urlopen(
            server.http + "/api/v1/namespaces/default/evidence/ocsf", timeout=10
        ) as answer:
            told = [line for line in answer.read().decode().splitlines() if "webhook/given-up" in line]
        if told:
            break
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    assert len(told) == 1 and receiver.requests[0]["id"] in told[0]


def test_what_makes_no_sense_is_refused(world, receivers, tmp_path) -> None:
    receiver = receivers()
    server = world(webhook(tmp_path, "one", receiver))
    (tmp_path / "one.secret").write_text("secret\n")
    command = [binary(), "serve", "--config", str(server.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "whsec_" in done.stderr
    (tmp_path / "one.secret").write_text(new_secret())
    (tmp_path / "one.secret").chmod(0o644)
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "chmod 600" in done.stderr
