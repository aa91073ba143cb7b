"""Bundles of real sessions, verified with Go's own packages and none of our code: see tests/go.

Without Go these are skipped, unless STEADFAST_REQUIRE_GO=1.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from raw import Raw, command, complete, payloads
from server import ROOT, Server, binary
from temporalio.client import Client
from test_bundle import (
    SECRET,
    export,
    manifest,
    rewritten,
    session,
    steadfast,
    trusted_key,
    verdict,
    without_last_event,
)

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast has evidence", allow_module_level=True)

# Where Debian has Go packages.
GOPATH = Path("/usr/share/gocode")

STATEMENT = "statement.dsse.json"

# What Go says of a bundle with a key.
Go = Callable[[str, Path], list[str]]

# From a file's name and content to what takes its place.
Change = Callable[[str, bytes], bytes | None]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program. It is built once: `go run` would do it for each bundle."""
    if shutil.which("go") is None or not (GOPATH / "src/golang.org/x/mod").exists():
        assert os.environ.get("STEADFAST_REQUIRE_GO") != "1", "Go and golang.org/x/mod are required"
        pytest.skip("no Go, or no golang.org/x/mod")
    path = tmp_path_factory.mktemp("go") / "verify"
    environment = {name: value for name, value in os.environ.items() if name != "GOFLAGS"}
    environment |= {"GO111MODULE": "off", "GOPATH": str(GOPATH)}
    build = ["go", "build", "-o", str(path), "."]
    done = subprocess.run(build, cwd=ROOT / "tests/go", env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def go(program: Path) -> Go:
    def verify(key: str, bundle: Path) -> list[str]:
        done = subprocess.run([program, "bundle", key, bundle], capture_output=True, text=True, timeout=60)
        said = done.stdout.splitlines()
        assert said and done.stderr == "", done.stderr
        assert done.returncode == (0 if said[0].startswith("ok: ") else 1), said
        return said

    return verify


async def started(server: Server) -> Client:
    server.start()
    await server.ready()
    return await server.client()


def ok(bundle: Path) -> list[str]:
    """What Go says of a bundle that verifies as a whole."""
    counts = manifest(bundle)["counts"]
    assert counts["entries"] > 0 and counts["events"] > 0
    return [f"ok: {counts['entries']} entries, {counts['events']} events"]


def history_of(bundle: Path, run: int = 0) -> str:
    return f"history/{manifest(bundle)['runs'][run]['run_id']}.binpb"


class Signer:
    """The log's key. Who has it can state what they like: only the tree stands in their way."""

    def __init__(self, server: Server):
        seed = Path(f"{server.db}.log-key").read_text().strip().split("+", 4)[4]
        self.key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(seed)[1:])

    def restated(self, bundle: Path, target: Path, change: Change) -> Path:
        """The bundle with other files, and a statement that fits them."""
        changed = rewritten(bundle, target.with_suffix(".unsigned"), change)
        with zipfile.ZipFile(changed) as files:
            digests = {name: hashlib.sha256(files.read(name)).hexdigest() for name in files.namelist()}
            envelope = json.loads(files.read(STATEMENT))
        statement = json.loads(base64.b64decode(envelope["payload"]))
        del digests[STATEMENT]
        statement["subject"] = [{"name": name, "digest": {"sha256": digest}} for name, digest in digests.items()]
        text = json.dumps(statement).encode()
        kind = envelope["payloadType"]
        signature = self.key.sign(f"DSSEv1 {len(kind)} {kind} {len(text)} ".encode() + text)
        envelope["payload"] = base64.b64encode(text).decode()
        envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
        signed = json.dumps(envelope, separators=(",", ":")).encode() + b"\n"
        return rewritten(changed, target, of(STATEMENT, lambda _: signed))


def of(file: str, change: Callable[[bytes], bytes | None]) -> Change:
    return lambda name, content: change(content) if name == file else content


def of_lines(file: str, change: Callable[[list[bytes]], list[bytes]]) -> Change:
    return of(file, lambda content: b"".join(change(content.splitlines(keepends=True))))


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return change


def says(said: list[str], *expected: str) -> bool:
    """Whether there are these lines and no others: each has one of the texts."""
    return len(said) == len(expected) and all(text in line for line, text in zip(said, expected))


async def test_a_session_verifies(own_server: Server, tmp_path: Path, go: Go) -> None:
    await started(own_server)
    await session(own_server, "another")
    await session(own_server, "order-7", rounds=1)
    bundle = export(own_server, tmp_path / "good.zip", "--workflow-id", "order-7")
    assert manifest(bundle)["counts"]["runs"] == 2
    assert go(trusted_key(own_server), bundle) == ok(bundle)


async def test_a_session_that_was_reset_verifies(own_server: Server, tmp_path: Path, go: Go) -> None:
    client = await started(own_server)
    raw = Raw(client, "reset")
    task = await raw.workflow_task(input=payloads(SECRET))
    # So many events that the entry has the root of their tree.
    marker = command("RECORD_MARKER", marker_name="note", details={"of": payloads(SECRET)})
    await raw.answer(task, *[marker] * 250)
    await raw.signal(input=payloads(SECRET))
    await raw.answer(await raw.poll_workflow_task(), complete("done"))
    raw.run_id = (await raw.reset(workflow_task_finish_event_id=258)).run_id
    await raw.answer(await raw.poll_workflow_task(), complete("other"))
    bundle = export(own_server, tmp_path / "good.zip", "--workflow-id", raw.id)
    key, signer = trusted_key(own_server), Signer(own_server)
    with zipfile.ZipFile(bundle) as files:
        entries = files.read("entries.jsonl")
        events = [files.read(history_of(bundle, run)).count(SECRET.encode()) for run in (0, 1)]
    assert b'"event_range"' in entries and b'"follows"' in entries and min(events) >= 250
    assert go(key, bundle) == ok(bundle)

    # Events from before the reset are those of the first run, also where only their root is in an entry.
    bad = tmp_path / "bad.zip"
    altered = replaced(SECRET.encode(), b"4999-1111-1111-1111")
    first, second = history_of(bundle, 0), history_of(bundle, 1)
    assert says(go(key, signer.restated(bundle, bad, of(second, altered))), f"{second}: event 1: its hash is not")

    def in_the_range(content: bytes) -> bytes:
        return content[:5000] + altered(content[5000:])

    said = go(key, signer.restated(bundle, bad, of(second, in_the_range)))
    assert says(said, "its hash is not the one in its entry")
    said = go(key, signer.restated(bundle, bad, of(first, in_the_range)))
    assert says(said, "event 254: it, or one since event 4, is not what the root in their entry is of")


async def test_an_erased_session_verifies(own_server: Server, tmp_path: Path, go: Go) -> None:
    await started(own_server)
    await session(own_server, "order-7", rounds=1)
    before = export(own_server, tmp_path / "before.zip", "-w", "order-7")
    done = steadfast("erase", "--address", own_server.http, "-w", "order-7", "--yes")
    assert done.returncode == 0, done.stderr
    bundle = export(own_server, tmp_path / "erased.zip", "-w", "order-7")
    assert all(run["erased"] for run in manifest(bundle)["runs"])
    file = history_of(bundle)
    with zipfile.ZipFile(before) as old, zipfile.ZipFile(bundle) as new:
        place = old.read(file).index(SECRET.encode())
        assert SECRET.encode() not in new.read(file)
    key, signer = trusted_key(own_server), Signer(own_server)
    assert go(key, bundle) == ok(bundle)
    assert go(key, before) == ok(before)

    # Nobody can put words where something was erased.
    forged = of(file, lambda content: content[:place] + b"4999" + content[place + 4 :])
    said = go(key, signer.restated(bundle, tmp_path / "bad.zip", forged))
    assert says(said, f"{file}: event 1: there is something where a payload was erased")


async def test_parts_of_the_log_verify(own_server: Server, tmp_path: Path, go: Go) -> None:
    await started(own_server)
    await session(own_server, "order-1")
    await session(own_server, "order-2")
    whole = export(own_server, tmp_path / "whole.zip", "--from", "0")
    key, signer = trusted_key(own_server), Signer(own_server)
    assert go(key, whole) == ok(whole)
    size = manifest(whole)["tree"]["size"]
    # From within one run to within another one.
    bundle = export(own_server, tmp_path / "part.zip", "--from", "4", "--to", str(size - 3))
    entries = manifest(bundle)["counts"]["entries"]
    assert entries == size - 7 and all(run["last_entry"] for run in manifest(bundle)["runs"])
    assert go(key, bundle) == [f"ok: {entries} entries, {manifest(bundle)['counts']['events']} events"]
    of_worker = export(own_server, tmp_path / "worker.zip", "--principal", "worker-7")
    assert go(key, of_worker) == ok(of_worker)

    # An entry less at either end, with its hash in its place: the tree verifies.
    for at, text in ((0, f"and has 5 to {size - 3}"), (-1, f"and has 4 to {size - 4}")):
        hidden = signer.restated(bundle, tmp_path / "bad.zip", without_entry(bundle, at))
        assert says(go(key, hidden), text)
    hidden = signer.restated(bundle, tmp_path / "bad.zip", without_entry(bundle, 1))
    assert go(key, hidden)[0] == "entries.jsonl: 1 entries are not there"
    # A node less, and one too many.
    shorter = signer.restated(bundle, tmp_path / "bad.zip", of_lines("tree.jsonl", lambda all: all[:-1]))
    assert says(go(key, shorter), "leave a gap or overlap at index ")
    longer = signer.restated(bundle, tmp_path / "bad.zip", of_lines("tree.jsonl", lambda all: [*all, all[-1]]))
    assert says(go(key, longer), "tree.jsonl: it goes on after the last node")


def without_entry(bundle: Path, at: int) -> Change:
    """Takes an entry out, and puts its hash among the nodes of the tree."""
    with zipfile.ZipFile(bundle) as files:
        line = files.read("entries.jsonl").splitlines(keepends=True)[at]
        nodes = [json.loads(node) for node in files.read("tree.jsonl").splitlines()]
    entry, _, index = line.removeprefix(b'{"entry":').rpartition(b',"index":')
    leaf = base64.b64encode(hashlib.sha256(b"\0" + entry).digest()).decode()
    nodes.append({"hash": leaf, "index": int(index.rstrip(b"}\n")), "level": 0})
    nodes.sort(key=lambda node: node["index"] << node["level"])
    tree = "".join(f"{json.dumps(node)}\n" for node in nodes).encode()

    def change(name: str, content: bytes) -> bytes:
        if name == "entries.jsonl":
            return content.replace(line, b"")
        return tree if name == "tree.jsonl" else content

    return change


async def test_what_is_changed_is_refused_even_if_the_log_signs_it(own_server: Server, tmp_path: Path, go: Go) -> None:
    await started(own_server)
    await session(own_server, "order-1")
    older = export(own_server, tmp_path / "older.zip", "-w", "order-1")
    await session(own_server, "order-7", rounds=1)
    bundle = export(own_server, tmp_path / "good.zip", "-w", "order-7")
    key, signer = trusted_key(own_server), Signer(own_server)
    with zipfile.ZipFile(older) as files:
        old_checkpoint = files.read("checkpoint")
    with zipfile.ZipFile(bundle) as files:
        indexes = [json.loads(line)["index"] for line in files.read("entries.jsonl").splitlines()]
    file = history_of(bundle)
    events = manifest(bundle)["runs"][0]["events"]
    # Without all entries nothing is known of the events.
    unknown = f"{file}: not all entries of the run are there"
    cases: dict[str, tuple[Change, list[str]]] = {
        "a byte of a payload": (
            of(file, replaced(b"4111", b"4112")),
            [f"{file}: event 1: its hash is not the one in its entry"],
        ),
        "a byte of what is no payload": (
            of(file, replaced(b"alice@desk", b"alicf@desk")),
            [f"{file}: event 1: its hash is not the one in its entry"],
        ),
        "a byte of an entry": (
            of("entries.jsonl", replaced(b"alice@desk", b"alicf@desk")),
            ["the root is ", "entry 2 does not hold the hash of the one before"],
        ),
        "a removed entry": (
            of_lines("entries.jsonl", lambda all: all[:2] + all[3:]),
            [f"leave a gap or overlap at index {indexes[2]}", "entry 3 is not there", unknown],
        ),
        "a removed entry with its hash in its place": (
            without_entry(bundle, 2),
            ["entry 3 is not there", unknown],
        ),
        "swapped entries": (
            of_lines("entries.jsonl", lambda all: [*all[:2], all[3], all[2], *all[4:]]),
            [
                f"index {indexes[2]} comes after index {indexes[3]}",
                f"leave a gap or overlap at index {indexes[2]}",
                "entry 3 is not there",
                "entry 3 comes after entry 4",
                unknown,
            ],
        ),
        "a truncated history": (of(file, without_last_event), [f"{file}: it ends after event {events - 1}, and"]),
        "no history": (
            lambda name, content: None if name.startswith(file.removesuffix("binpb")) else content,
            [f"{file}: it is missing"],
        ),
        "a forged checkpoint": (of("checkpoint", forged), ["checkpoint: invalid signature for key"]),
        "a checkpoint by a stranger": (
            of("checkpoint", signed_by_a_stranger),
            ["checkpoint: note has no verifiable signatures"],
        ),
        "a rolled back checkpoint": (
            of("checkpoint", lambda _: old_checkpoint),
            [f"index {indexes[0]}, and the checkpoint is of {old_checkpoint.split()[1].decode()} entries"],
        ),
    }
    same = signer.restated(bundle, tmp_path / "same.zip", lambda _, content: content)
    assert go(key, same) == ok(bundle) and verdict(same, key, 0)["verified"]
    for what, (change, expected) in cases.items():
        said = go(key, signer.restated(bundle, tmp_path / "bad.zip", change))
        assert says(said, *expected), (what, said)
        # Our own verdict is the same.
        verdict(tmp_path / "bad.zip", key, 1)
    of_nothing = of(file.replace("binpb", "payloads.jsonl"), lambda content: content + b'{"event_id":99,"spans":[]}\n')
    said = go(key, signer.restated(bundle, tmp_path / "bad.zip", of_nothing))
    assert says(said, f"{file}: there are payloads of events that are not there")


def forged(checkpoint: bytes) -> bytes:
    """The checkpoint of a tree with one entry less, with the signature of the whole one."""
    origin, size, rest = checkpoint.split(b"\n", 2)
    return b"\n".join([origin, str(int(size) - 1).encode(), rest])


def signed_by_a_stranger(checkpoint: bytes) -> bytes:
    """The same checkpoint, signed with a key of the same name (c2sp.org/signed-note)."""
    text = checkpoint[: checkpoint.rindex(b"\n\n") + 1]
    name = text.split(b"\n")[0]
    key = Ed25519PrivateKey.generate()
    key_id = hashlib.sha256(name + b"\n\x01" + key.public_key().public_bytes_raw()).digest()[:4]
    return text + "\n— ".encode() + name + b" " + base64.b64encode(key_id + key.sign(text)) + b"\n"


async def test_what_nobody_signed_is_refused(own_server: Server, tmp_path: Path, go: Go) -> None:
    await started(own_server)
    await session(own_server, "order-7")
    bundle = export(own_server, tmp_path / "good.zip", "-w", "order-7")
    key, signer = trusted_key(own_server), Signer(own_server)
    bad = tmp_path / "bad.zip"
    # Nothing but the statement is about these.
    page = of("report.html", replaced(b"alice@desk", b"mallory@hq"))
    assert go(key, rewritten(bundle, bad, page)) == ["report.html: it is not the file that was signed"]
    page = of("report.html", lambda _: None)
    assert go(key, rewritten(bundle, bad, page)) == ["report.html: it is missing, and was signed"]
    shutil.copy(bundle, bad)
    with zipfile.ZipFile(bad, "a") as files:
        files.writestr("report.pdf", b"")
    assert go(key, bad) == ["report.pdf: it was not signed"]
    shutil.copy(bundle, bad)
    with zipfile.ZipFile(bad, "a") as files, pytest.warns(UserWarning, match="Duplicate name"):
        files.writestr("manifest.json", files.read("manifest.json"))
    assert go(key, bad) == ["the ZIP: manifest.json is there twice"]
    # Another key of the same name, and a statement by it.
    name = key.split("+")[0]
    signer.key = Ed25519PrivateKey.generate()
    public = b"\x01" + signer.key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(name.encode() + b"\n" + public).hexdigest()[:8]
    stranger = f"{name}+{key_id}+{base64.b64encode(public).decode()}"
    unsigned = f"{STATEMENT}: no key of the log signed it"
    assert go(stranger, bundle) == ["checkpoint: note has no verifiable signatures", unsigned]
    assert go(key, signer.restated(bundle, bad, lambda _, content: content)) == [unsigned]


async def test_keys_are_followed_through_rotations(own_server: Server, tmp_path: Path, go: Go) -> None:
    await started(own_server)
    await session(own_server, "order-1")
    before = export(own_server, tmp_path / "before.zip", "-w", "order-1")
    keys = [trusted_key(own_server)]
    for number in (2, 3):
        done = steadfast("rotate-key", "--db", own_server.db)
        assert done.returncode == 0 and done.stdout.startswith("rotated:"), done.stdout + done.stderr
        await session(own_server, f"order-{number}")
        keys.append(trusted_key(own_server))
    assert len(set(keys)) == 3
    bundle = export(own_server, tmp_path / "after.zip", "-w", "order-3")
    assert [go(key, bundle) for key in keys] == [ok(bundle)] * 3
    assert go(keys[0], before) == ok(before)
    refused = ["checkpoint: note has no verifiable signatures", f"{STATEMENT}: no key of the log signed it"]
    assert go(keys[2], before) == refused

    # Without a step, or with one that the old key did not sign, the way ends.
    signer, bad = Signer(own_server), tmp_path / "bad.zip"
    first, second = "rotations/1.tlog-proof", "rotations/2.tlog-proof"
    broken = signer.restated(bundle, bad, of(first, lambda _: None))
    assert go(keys[0], broken) == refused
    assert go(keys[1], broken) == go(keys[2], broken) == ok(bundle)
    broken = signer.restated(bundle, bad, of(second, lambda _: None))
    assert go(keys[0], broken) == go(keys[1], broken) == refused
    for key in keys[1:]:
        broken = signer.restated(bundle, bad, of(second, lambda content: without_signature(content, key)))
        assert go(keys[1], broken) == [f"{second}: one of the keys did not sign it", *refused]
    broken = signer.restated(bundle, bad, of(second, another_entry))
    assert says(go(keys[1], broken), f"{second}: invalid transparency proof", *refused)


def without_signature(proof: bytes, key: str) -> bytes:
    """The proof without the line that a key signed."""
    key_id = bytes.fromhex(key.split("+")[1])
    lines = proof.splitlines(keepends=True)
    kept = [line for line in lines if not is_signed_by(line, key_id)]
    assert len(kept) == len(lines) - 1
    return b"".join(kept)


def is_signed_by(line: bytes, key_id: bytes) -> bool:
    return line.startswith("— ".encode()) and base64.b64decode(line.split(b" ")[2])[:4] == key_id


def another_entry(proof: bytes) -> bytes:
    """The proof with an entry that says something else of the same keys."""
    lines = proof.split(b"\n")
    entry = base64.b64decode(lines[1].removeprefix(b"extra "))
    lines[1] = b"extra " + base64.b64encode(replaced(b'"steadfast"', b'"steadfase"')(entry))
    return b"\n".join(lines)
