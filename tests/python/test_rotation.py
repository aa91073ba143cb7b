"""Rotation of the key that signs the logs: others find the way from the old key to the new one.

What proves it is verified here with nothing of ours (c2sp.org/signed-note, tlog-checkpoint, tlog-proof),
and with `steadfast evidence follow-key`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.server
import json
import random
import stat
import subprocess
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from server import Server, binary
from temporalio.api.operatorservice.v1 import DeleteNamespaceRequest
from temporalio.client import Client
from test_log import Checkpoint, Log, leaf_hash, proven_root, root, start_many
from test_witness import NAME as WITNESS_NAME
from test_witness import Witness, cosigned, get, serve, witness

# A fixture is used by its name.
__all__ = ["witness"]

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast has a log", allow_module_level=True)

KEY_CHANGED = "evidence/key-changed"


def steadfast(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary(), "evidence", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def ask(server: Server, wait: int = 30) -> str:
    """Asks for a rotation and gives what the command says."""
    done = steadfast("rotate-key", "--db", server.db, "--wait", str(wait))
    assert done.returncode == 0, done.stderr
    return done.stdout


def rotate(server: Server) -> str:
    """Rotates the key of a running server, and gives the new one."""
    assert "rotated" in ask(server)
    return key_of(server)


def follow(server: Server, key: str, namespace: str = "default") -> subprocess.CompletedProcess[str]:
    return steadfast("follow-key", "--address", server.http, "--namespace", namespace, "--key", key)


def key_file(server: Server) -> Path:
    return Path(f"{server.db}.log-key")


def next_file(server: Server) -> Path:
    return Path(f"{server.db}.log-key.next")


def secret_of(path: Path) -> bytes:
    """The part of a key file that nobody may see."""
    # PRIVATE+KEY+<name>+<hash>+<base64>, and base64 has plus signs of its own.
    return path.read_bytes().strip().split(b"+", 4)[4]


async def eventually(is_so: Callable[[], bool], what: str, timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


async def started(server: Server) -> Client:
    """A running server with a log."""
    server.start()
    await server.ready()
    await Log(server).covers("namespace/registered")
    return await server.client()


@dataclass(frozen=True)
class Key:
    """A verifier key."""

    name: str
    id: str
    public: Ed25519PublicKey

    @classmethod
    def parse(cls, text: str) -> Key:
        name, key_id, key = text.strip().split("+", 2)
        blob = base64.b64decode(key, validate=True)
        assert blob[0] == 1, "an Ed25519 key"
        assert hashlib.sha256(f"{name}\n".encode() + blob).digest()[:4].hex() == key_id
        return cls(name, key_id, Ed25519PublicKey.from_public_bytes(blob[1:]))

    def signed(self, note: str) -> bool:
        """Whether it signed a note. A wrong signature under its name and id is an error."""
        text, _, signatures = note.rpartition("\n\n")
        text += "\n"
        for line in signatures.strip().split("\n"):
            dash, name, signature = line.split(" ")
            blob = base64.b64decode(signature, validate=True)
            if (dash, name, blob[:4].hex()) == ("—", self.name, self.id):
                self.public.verify(blob[4:], text.encode())
                return True
        return False


def key_of(server: Server, namespace: str = "default") -> str:
    return get(server, f"log/{namespace}/key").strip()


def rotations(server: Server, namespace: str = "default") -> list[tuple[int, str, str]]:
    lines = get(server, f"log/{namespace}/rotations").splitlines()
    return [(int(number), before, after) for number, before, after in (line.split(" ") for line in lines)]


@dataclass
class Proof:
    """A tlog-proof that contains its entry."""

    entry: bytes
    index: int
    hashes: list[bytes]
    note: str

    @classmethod
    def parse(cls, text: str) -> Proof:
        head, _, note = text.partition("\n\n")
        first, extra, index, *hashes = head.split("\n")
        assert first == "c2sp.org/tlog-proof@v1"
        return cls(
            base64.b64decode(extra.removeprefix("extra "), validate=True),
            int(index.removeprefix("index ")),
            [base64.b64decode(line, validate=True) for line in hashes],
            note,
        )

    def verify(self, trusted: str) -> str:
        """The key that may be trusted after `trusted`."""
        note = json.loads(self.entry)["note"]
        assert note["what"] == KEY_CHANGED
        old, new = note["detail"].split(" -> ")
        assert old == trusted
        origin, size, root_hash = self.note.split("\n")[:3]
        for key in (Key.parse(old), Key.parse(new)):
            assert key.name == origin
            assert key.signed(self.note), f"{key} did not sign {self.note}"
        assert proven_root(self.entry, self.index, int(size), self.hashes) == base64.b64decode(root_hash)
        return new


def key_changes(entries: list[bytes]) -> list[tuple[str, str]]:
    notes = [json.loads(entry).get("note", {}) for entry in entries]
    changes = [tuple(note["detail"].split(" -> ")) for note in notes if note.get("what") == KEY_CHANGED]
    assert all(len(change) == 2 for change in changes)
    return changes


async def test_a_running_server_rotates(own_server: Server, tmp_path: Path) -> None:
    own_server.flags = ["--namespace", "books"]
    client = await started(own_server)
    await Log(own_server, "books").covers("namespace/registered")
    await client.start_workflow("Nothing", id="before", task_queue="nobody")
    log = Log(own_server)
    before = await log.covers("before")
    namespaces = ("default", "books")
    old = {namespace: key_of(own_server, namespace) for namespace in namespaces}
    assert rotations(own_server) == []
    secret = secret_of(key_file(own_server))
    with open(key_file(own_server), "rb") as old_file:
        new_key = rotate(own_server)
        # It has no name any more; what it held is overwritten, for who looks at the disk.
        await eventually(lambda: not old_file.seek(0) and not old_file.read().strip(b"\0"), "the old key is there")
    assert new_key != old["default"]
    assert stat.S_IMODE(key_file(own_server).stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.glob("*log-key*")) == ["steadfast.db.log-key"]
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        # Some files are there for a moment only.
        with suppress(FileNotFoundError):
            assert secret not in path.read_bytes(), f"the old key is in {path}"

    for namespace in namespaces:
        now = key_of(own_server, namespace)
        assert rotations(own_server, namespace) == [(1, old[namespace], now)]
        proof = Proof.parse(get(own_server, f"log/{namespace}/rotations/1"))
        assert proof.verify(old[namespace]) == now
        assert Log(own_server, namespace).entries(proof.index + 1)[-1] == proof.entry
        assert follow(own_server, old[namespace], namespace).stdout.strip() == now
        own_server.check_evidence(namespace)
    for number in (0, 2):
        with pytest.raises(urllib.error.HTTPError) as error:
            get(own_server, f"log/default/rotations/{number}")
        assert error.value.code == 404

    # From here on the new key signs, and it alone.
    await client.start_workflow("Nothing", id="after", task_queue="nobody")
    after = await log.covers('"workflow_id":"after"')
    note = get(own_server, "log/default/checkpoint")
    assert Key.parse(new_key).signed(note) and not Key.parse(old["default"]).signed(note)
    entries = log.entries(after.size)
    hashes = [leaf_hash(entry) for entry in entries]
    assert root(hashes) == after.root and root(hashes[: before.size]) == before.root
    assert after.origin == before.origin, "it is the same log"
    assert key_changes(entries) == [(old["default"], new_key)]
    own_server.check_evidence()


async def test_what_a_proof_binds(own_server: Server) -> None:
    """The verification of this file finds what is wrong, so what it accepts means something."""
    await started(own_server)
    old = key_of(own_server)
    new = rotate(own_server)
    text = get(own_server, "log/default/rotations/1")
    assert Proof.parse(text).verify(old) == new
    proof = Proof.parse(text)
    with pytest.raises(AssertionError):
        proof.verify(new)
    proof.entry = proof.entry.replace(b'"n":', b'"n":1')
    with pytest.raises(AssertionError):
        proof.verify(old)
    proof = Proof.parse(text)
    origin, size, rest = proof.note.split("\n", 2)
    proof.note = f"{origin}\n{int(size) + 1}\n{rest}"
    with pytest.raises(InvalidSignature):
        proof.verify(old)


async def test_a_stopped_server_rotates_when_it_starts(own_server: Server) -> None:
    await started(own_server)
    old = key_of(own_server)
    assert own_server.stop() == 0
    content = key_file(own_server).read_bytes()
    said = ask(own_server, wait=0)
    assert "the server rotates when it runs" in said and "before" not in said
    assert key_file(own_server).read_bytes() == content
    assert stat.S_IMODE(next_file(own_server).stat().st_mode) == 0o600
    asked = next_file(own_server).read_bytes()
    # Who asks again gets the same rotation, not another one.
    assert "a rotation was asked for before" in ask(own_server, wait=0)
    assert next_file(own_server).read_bytes() == asked

    own_server.start()
    await own_server.ready()
    await eventually(lambda: not next_file(own_server).exists(), "not rotated")
    assert key_file(own_server).read_bytes() == asked
    new = key_of(own_server)
    assert rotations(own_server) == [(1, old, new)]
    assert Proof.parse(get(own_server, "log/default/rotations/1")).verify(old) == new
    own_server.check_evidence()

    # It is known after the next start, too.
    proof = get(own_server, "log/default/rotations/1")
    assert own_server.stop() == 0
    await started(own_server)
    assert get(own_server, "log/default/rotations/1") == proof
    assert follow(own_server, old).stdout.strip() == new == key_of(own_server)


async def test_the_way_leads_over_several_keys(own_server: Server, tmp_path: Path) -> None:
    client = await started(own_server)
    keys = [key_of(own_server)]
    for number in range(2):
        await client.start_workflow("Nothing", id=f"between-{number}", task_queue="nobody")
        keys.append(rotate(own_server))
    assert len(set(keys)) == 3
    for key in keys:
        done = follow(own_server, key)
        assert (done.returncode, done.stdout) == (0, f"{keys[-1]}\n"), done.stderr
    by_hand = keys[0]
    for number, before, after in rotations(own_server):
        assert before == by_hand
        by_hand = Proof.parse(get(own_server, f"log/default/rotations/{number}")).verify(before)
        assert by_hand == after
    assert by_hand == keys[-1]

    unrelated = a_key(by_hand.split("+")[0])[1]
    done = follow(own_server, unrelated)
    assert done.returncode == 1 and not done.stdout
    assert "no rotation leads there from the trusted key" in done.stderr
    done = follow(own_server, "nonsense")
    assert done.returncode == 1 and "not a key" in done.stderr
    done = steadfast("rotate-key", "--db", tmp_path / "nowhere.db", "--wait", "0")
    assert done.returncode == 1 and "nowhere.db.log-key" in done.stderr
    assert not list(tmp_path.glob("nowhere*"))


def a_key(name: str) -> tuple[Ed25519PrivateKey, str]:
    """A key of somebody else under the same name."""
    private = Ed25519PrivateKey.generate()
    public = b"\1" + private.public_key().public_bytes_raw()
    key_id = hashlib.sha256(f"{name}\n".encode() + public).digest()[:4].hex()
    return private, f"{name}+{key_id}+{base64.b64encode(public).decode()}"


@contextmanager
def served(files: dict[str, str]) -> Iterator[str]:
    """A server that says what it likes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write((content or "").encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


async def test_a_server_that_lies_leads_nowhere(own_server: Server) -> None:
    await started(own_server)
    old = key_of(own_server)
    new = rotate(own_server)
    rotation = get(own_server, "log/default/rotations/1")
    origin = old.split("+")[0]
    private, thief = a_key(origin)
    text = rotation.split("\n\n")[1] + "\n"
    blob = bytes.fromhex(thief.split("+")[1]) + private.sign(text.encode())
    by_thief = rotation + f"— {origin} {base64.b64encode(blob).decode()}\n"
    assert Key.parse(thief).signed(Proof.parse(by_thief).note)
    entry = Proof.parse(rotation).entry
    own_entry = base64.b64encode(entry.replace(new.encode(), thief.encode())).decode()
    named = by_thief.replace(base64.b64encode(entry).decode(), own_entry)
    assert named != by_thief

    def files(proof: str, key: str) -> dict[str, str]:
        return {
            "/log/default/key": f"{key}\n",
            "/log/default/rotations": f"1 {old} {key}\n",
            "/log/default/rotations/1": proof,
        }

    no_way = "no rotation leads there from the trusted key"
    lies = {
        # A signature is easily added; the log does not name the key.
        "added": (files(by_thief, thief), no_way),
        # The entry names it, and is in no tree that the old key signed.
        "named": (files(named, thief), "the proof does not hold"),
        "hidden": ({"/log/default/key": f"{thief}\n", "/log/default/rotations": ""}, no_way),
        "missing": ({"/log/default/key": f"{thief}\n", "/log/default/rotations": f"1 {old} {thief}\n"}, "404"),
        "nonsense": (files("nonsense", thief), "not a proof"),
    }
    for name, (answers, sentence) in lies.items():
        with served(answers) as address:
            done = steadfast("follow-key", "--address", address, "--key", old)
        assert done.returncode == 1 and not done.stdout, name
        assert sentence in done.stderr, (name, done.stderr)
    # The same server, with the truth.
    with served(files(rotation, new)) as address:
        done = steadfast("follow-key", "--address", address, "--key", old)
    assert (done.returncode, done.stdout) == (0, f"{new}\n"), done.stderr


@pytest.mark.timeout(300)
async def test_a_server_that_is_killed_rotates_all_the_same(own_server: Server) -> None:
    """Killed at any moment, while rotations are asked for and entries are written."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    await started(own_server)
    first = key_of(own_server)
    seen: list[Checkpoint] = []
    for round_number in range(10):
        client = await own_server.client()
        load = asyncio.create_task(start_many(client, f"kill-{round_number}"))
        ending = threading.Event()
        asking = threading.Thread(target=ask_until, args=(own_server, ending))
        asking.start()
        try:
            if round_number % 2:
                # Near the moment when all of it happens: a rotation takes milliseconds.
                await eventually(lambda: not next_file(own_server).exists(), f"seed {seed}: not rotated")
                await eventually(next_file(own_server).exists, f"seed {seed}: not asked")
                before = key_of(own_server)
                deadline = time.monotonic() + 10
                while key_of(own_server) == before and time.monotonic() < deadline:
                    pass
                await asyncio.sleep(chance.uniform(0, 0.02))
            else:
                await asyncio.sleep(chance.uniform(0, 2))
            seen.append(await signed_checkpoint(own_server))
        finally:
            own_server.kill()
            ending.set()
            await asyncio.to_thread(asking.join)
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
        own_server.start()
        if round_number % 3 == 0:
            # A start that goes on with a rotation is killed, too.
            await asyncio.sleep(chance.uniform(0, 0.4))
            own_server.kill()
            own_server.start()
        await own_server.ready()
        await eventually(lambda: not next_file(own_server).exists(), f"seed {seed}: not rotated")
    ask(own_server)
    client = await own_server.client()
    await client.start_workflow("Nothing", id="kill-last", task_queue="nobody")
    log = Log(own_server)
    last = await log.covers("kill-last")
    entries = log.entries(last.size)
    hashes = [leaf_hash(entry) for entry in entries]
    assert root(hashes) == last.root, f"seed {seed}"
    for checkpoint in seen:
        assert checkpoint.origin == last.origin, f"seed {seed}: a new log began"
        assert root(hashes[: checkpoint.size]) == checkpoint.root, f"seed {seed}"
    own_server.check_evidence()

    # Each rotation is in the log once, and all of them are one chain.
    all_rotations = rotations(own_server)
    assert len(all_rotations) > 5, f"seed {seed}: {len(all_rotations)} rotations"
    assert [number for number, _, _ in all_rotations] == list(range(1, len(all_rotations) + 1))
    assert key_changes(entries) == [change[1:] for change in all_rotations], f"seed {seed}"
    trusted = first
    for number, _, _ in all_rotations:
        trusted = Proof.parse(get(own_server, f"log/default/rotations/{number}")).verify(trusted)
    assert trusted == key_of(own_server)
    done = follow(own_server, first)
    assert (done.returncode, done.stdout.strip()) == (0, trusted), f"seed {seed}: {done.stderr}"
    assert stat.S_IMODE(key_file(own_server).stat().st_mode) == 0o600
    left = sorted(path.name for path in key_file(own_server).parent.glob("*log-key*"))
    assert left == [key_file(own_server).name], f"seed {seed}"


def ask_until(server: Server, ending: threading.Event) -> None:
    while not ending.is_set():
        steadfast("rotate-key", "--db", server.db, "--wait", "0")
        ending.wait(0.02)


async def signed_checkpoint(server: Server) -> Checkpoint:
    """The newest checkpoint, though the key may change between the two requests that it takes."""
    for _ in range(20):
        try:
            return Log(server).checkpoint()
        except AssertionError:
            await asyncio.sleep(0.01)
    return Log(server).checkpoint()


def verdict(bundle: Path, key: str) -> list[str]:
    done = steadfast("verify", bundle, "--key", key, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == int(not report["verified"]), done.stderr
    return [finding["code"] for finding in report["findings"]]


def export(server: Server, output: Path, workflow_id: str = "order-1") -> Path:
    done = steadfast("export", "--address", server.http, "--output", output, "--workflow-id", workflow_id)
    assert done.returncode == 0, done.stderr
    return output


async def test_a_bundle_is_verified_with_an_older_key(own_server: Server, tmp_path: Path) -> None:
    client = await started(own_server)
    await client.start_workflow("Nothing", id="order-1", task_queue="nobody")
    await Log(own_server).covers("order-1")
    old_bundle = export(own_server, tmp_path / "old.zip")
    old = key_of(own_server)
    middle = rotate(own_server)
    new = rotate(own_server)
    bundle = export(own_server, tmp_path / "new.zip")
    with zipfile.ZipFile(bundle) as files:
        for number, trusted in ((1, old), (2, middle)):
            text = files.read(f"rotations/{number}.tlog-proof").decode()
            assert text == get(own_server, f"log/default/rotations/{number}")
            Proof.parse(text).verify(trusted)
    assert own_server.stop() == 0
    for key in (old, middle, new):
        assert verdict(bundle, key) == []
    assert "unknown-key" in verdict(bundle, a_key(new.split("+")[0])[1])
    # What the old key signed needs the old key: no way leads back.
    assert verdict(old_bundle, old) == []
    assert "unknown-key" in verdict(old_bundle, new)
    for gone in (1, 2):
        broken = without(bundle, tmp_path / f"without-{gone}.zip", f"rotations/{gone}.tlog-proof")
        assert verdict(broken, old), f"rotation {gone} is gone"


def without(bundle: Path, target: Path, gone: str) -> Path:
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(target, "w") as new:
        assert gone in old.namelist()
        for name in old.namelist():
            if name != gone:
                new.writestr(name, old.read(name))
    return target


async def test_a_lost_key_is_no_rotation(own_server: Server) -> None:
    client = await started(own_server)
    old = key_of(own_server)
    assert own_server.stop() == 0
    key_file(own_server).unlink()
    client = await started(own_server)
    await client.start_workflow("Nothing", id="after", task_queue="nobody")
    log = Log(own_server)
    checkpoint = await log.covers('"workflow_id":"after"')
    other = key_of(own_server)
    assert other != old
    assert key_changes(log.entries(checkpoint.size)) == [(old, other)]
    assert rotations(own_server) == []
    done = follow(own_server, old)
    assert done.returncode == 1 and not done.stdout
    assert "no rotation leads there from the trusted key" in done.stderr

    # What comes after it is a rotation again, from the key that took its place.
    new = rotate(own_server)
    assert [(before, after) for _, before, after in rotations(own_server)] == [(other, new)]
    assert follow(own_server, other).stdout.strip() == new
    assert follow(own_server, old).returncode == 1
    own_server.check_evidence()


async def test_a_key_that_is_lost_before_it_is_rotated(own_server: Server) -> None:
    await started(own_server)
    old = key_of(own_server)
    assert own_server.stop() == 0
    ask(own_server, wait=0)
    asked = next_file(own_server).read_bytes()
    key_file(own_server).unlink()
    await started(own_server)
    # The key that was made for the rotation signs, but nothing of the old key says so.
    assert key_file(own_server).read_bytes() == asked and not next_file(own_server).exists()
    log = Log(own_server)
    checkpoint = await log.covers(KEY_CHANGED)
    assert key_changes(log.entries(checkpoint.size)) == [(old, key_of(own_server))]
    assert rotations(own_server) == []
    assert follow(own_server, old).returncode == 1
    own_server.check_evidence()


async def test_a_log_that_began_anew_is_rotated(own_server: Server) -> None:
    client = await started(own_server)
    rotate(own_server)
    assert own_server.stop() == 0
    # Without the anchor nobody knows how far the log was signed.
    Path(f"{own_server.db}.log-anchor").unlink()
    client = await started(own_server)
    await client.start_workflow("Nothing", id="anew", task_queue="nobody")
    assert (await Log(own_server).covers("anew")).origin.endswith("~2")
    assert rotations(own_server) == [], "those of the other log lead nowhere here"
    old = key_of(own_server)
    new = rotate(own_server)
    [(number, *change)] = rotations(own_server)
    assert change == [old, new]
    assert Proof.parse(get(own_server, f"log/default/rotations/{number}")).verify(old) == new
    assert follow(own_server, old).stdout.strip() == new
    bundle = export(own_server, own_server.db.parent / "anew.zip", "anew")
    assert verdict(bundle, old) == []
    own_server.check_evidence()


async def test_the_log_of_a_deleted_namespace_is_rotated(own_server: Server) -> None:
    own_server.flags = ["--namespace", "books"]
    client = await started(own_server)
    await Log(own_server, "books").covers("namespace/registered")
    before = key_of(own_server, "books")
    await client.operator_service.delete_namespace(DeleteNamespaceRequest(namespace="books"))
    assert own_server.stop() == 0
    # The next start must not make a namespace of this name again.
    own_server.flags = []
    await started(own_server)
    old, new = key_of(own_server), rotate(own_server)
    assert follow(own_server, old).stdout.strip() == new
    # Its log has another name now, and the same origin.
    origin = before.split("+")[0]
    [deleted] = [log["namespace"] for log in logs(own_server) if log["origin"] == origin]
    assert key_of(own_server, deleted).split("+", 2)[2] == new.split("+", 2)[2]
    assert follow(own_server, before, deleted).stdout.strip() == key_of(own_server, deleted)
    with pytest.raises(urllib.error.HTTPError) as error:
        key_of(own_server, "books")
    assert error.value.code == 404


def logs(server: Server) -> list[dict]:
    return json.loads(get(server, "api/v1/status"))["logs"]


async def test_no_log_stays_with_the_old_key(own_server: Server) -> None:
    """Not under the name of a namespace that was deleted since the start, either."""
    own_server.flags = ["--namespace", "books"]
    client = await started(own_server)
    await Log(own_server, "books").covers("namespace/registered")
    await client.operator_service.delete_namespace(DeleteNamespaceRequest(namespace="books"))
    new = rotate(own_server).split("+", 2)[2]
    for name in [log["namespace"] for log in logs(own_server)]:
        assert key_of(own_server, name).split("+", 2)[2] == new, name


async def test_a_witness_has_to_know_the_new_key(own_server: Server, tmp_path: Path, witness: Witness) -> None:
    """A witness accepts what a key signed that it knows. It sees the checkpoint that both keys signed."""
    trusted: list[Key] = []
    accept = witness.add_checkpoint

    def add_checkpoint(path: str, body: str) -> tuple[int, bytes]:
        note = body.split("\n\n", 1)[1]
        if trusted and not any(key.signed(note) for key in trusted):
            return 403, b"no trusted key\n"
        return accept(path, body)

    witness.add_checkpoint = add_checkpoint
    serve(own_server, tmp_path, witness)
    await own_server.ready()
    client = await own_server.client()
    await cosigned(own_server, 1)
    old = key_of(own_server)
    trusted.append(Key.parse(old))
    done = steadfast("rotate-key", "--config", tmp_path / "steadfast.toml")
    assert done.returncode == 0 and "rotated" in done.stdout, done.stderr
    new = key_of(own_server)
    # The old key is good for this one.
    note = await cosigned(own_server, 2)
    assert Key.parse(old).signed(note) and Key.parse(new).signed(note)
    assert f"\n— {WITNESS_NAME} " in note

    await client.start_workflow("Nothing", id="after", task_queue="nobody")
    checkpoint = await Log(own_server).covers('"workflow_id":"after"')

    def error() -> str | None:
        return json.loads(get(own_server, "api/v1/status"))["witnesses"][0]["error"]

    await eventually(lambda: "403" in (error() or ""), "the witness does not refuse")
    assert checkpoint.size == 3, "the log goes on"
    # Its operator is shown the way, and trusts the new key.
    led_to = Proof.parse(get(own_server, "log/default/rotations/1")).verify(old)
    trusted.append(Key.parse(led_to))
    note = await cosigned(own_server, 3, timeout=60)
    assert Key.parse(new).signed(note) and not Key.parse(old).signed(note)
    await eventually(lambda: error() is None, "the witness still refuses")
    assert not witness.refused
