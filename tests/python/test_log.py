"""The log, read as an outsider reads it: over HTTP, with nothing of ours but the formats.

Formats: RFC 6962 (tree), c2sp.org/tlog-tiles, tlog-checkpoint and signed-note.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.duration_pb2 import Duration
from server import Server
from temporalio import activity, workflow
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from datetime import timedelta


@activity.defn
async def double(number: int) -> int:
    return 2 * number


@workflow.defn(sandboxed=False)
class Doubles:
    @workflow.run
    async def run(self, count: int) -> int:
        number = 1
        for _ in range(count):
            number = await workflow.execute_activity(double, number, start_to_close_timeout=timedelta(seconds=10))
        return number


async def work(client: Client, workflows: int, prefix: str) -> None:
    async with Worker(client, task_queue=prefix, workflows=[Doubles], activities=[double]):
        await asyncio.gather(
            *(
                client.execute_workflow(Doubles.run, 3, id=f"{prefix}-{n}", task_queue=prefix)
                for n in range(workflows)
            )
        )


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def root(hashes: list[bytes]) -> bytes:
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    middle = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root(hashes[:middle]) + root(hashes[middle:])).digest()


@dataclass
class Checkpoint:
    origin: str
    size: int
    root: bytes


class Log:
    """A client of one log."""

    def __init__(self, server: Server, namespace: str = "default"):
        self.url = f"http://127.0.0.1:{server.http_port}/log/{namespace}"

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=10) as answer:
            return answer.read()

    def checkpoint(self) -> Checkpoint:
        note = self.get("checkpoint").decode()
        text, _, signatures = note.rpartition("\n\n")
        text += "\n"
        name, key_id, key = self.get("key").decode().strip().split("+", 2)
        key = base64.b64decode(key)
        assert key[0] == 1, "an Ed25519 key"
        assert hashlib.sha256(f"{name}\n".encode() + key).digest()[:4].hex() == key_id
        for line in signatures.strip().split("\n"):
            dash, signer, signature = line.split(" ")
            signature = base64.b64decode(signature)
            if dash == "—" and signer == name and signature[:4].hex() == key_id:
                Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], text.encode())
                break
        else:
            raise AssertionError(f"not signed by {name}: {note}")
        origin, size, root_hash = text.strip().split("\n")
        assert origin == name
        return Checkpoint(origin, int(size), base64.b64decode(root_hash))

    def entries(self, size: int) -> list[bytes]:
        entries = []
        for index in range((size + 255) // 256):
            bundle = self.get(tile_path("entries", index, size - 256 * index))
            while bundle:
                length = int.from_bytes(bundle[:2], "big")
                entries.append(bundle[2 : 2 + length])
                bundle = bundle[2 + length :]
        return entries

    async def covers(self, what: str) -> Checkpoint:
        """The first checkpoint whose entries mention something."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                checkpoint = self.checkpoint()
                if any(what.encode() in entry for entry in self.entries(checkpoint.size)):
                    return checkpoint
            except urllib.error.HTTPError as error:
                assert error.code == 404
            await asyncio.sleep(0.05)
        raise AssertionError(f"no checkpoint covers {what}")


def tile_path(level: int | str, index: int, width: int) -> str:
    elements = [f"{index % 1000:03}"]
    while index >= 1000:
        index //= 1000
        elements.insert(0, f"x{index % 1000:03}")
    partial = f".p/{width}" if width < 256 else ""
    return f"tile/{level}/{'/'.join(elements)}{partial}"


async def started(server: Server) -> Client:
    server.start()
    await server.ready()
    return await server.client()


async def test_the_tree_is_that_of_the_entries(own_server: Server) -> None:
    client = await started(own_server)
    await work(client, 60, "tree")
    await client.start_workflow("Nothing", id="tree-last", task_queue="nobody")
    log = Log(own_server)
    began = time.monotonic()
    checkpoint = await log.covers("tree-last")
    assert time.monotonic() - began < 1.5, "an entry is in the log within about a second"
    assert checkpoint.size > 512
    entries = log.entries(checkpoint.size)
    assert len(entries) == checkpoint.size
    hashes = [leaf_hash(entry) for entry in entries]
    assert root(hashes) == checkpoint.root
    for index in range((checkpoint.size + 255) // 256):
        width = min(256, checkpoint.size - 256 * index)
        assert log.get(tile_path(0, index, width)) == b"".join(hashes[256 * index :][:width])
    full = checkpoint.size // 256
    level_1 = b"".join(root(hashes[256 * index :][:256]) for index in range(full))
    assert log.get(tile_path(1, 0, full)) == level_1
    for path in (
        tile_path(0, checkpoint.size // 256 + 1, 1),
        "tile/0/1",
        "tile/64/000",
        "tile/entries/../000",
    ):
        with pytest.raises(urllib.error.HTTPError) as error:
            log.get(path)
        assert error.value.code == 404, path


def proven_root(entry: bytes, index: int, size: int, proof: list[bytes]) -> bytes:
    """The root that an inclusion proof leads to (RFC 6962, section 2.1.1)."""
    if size == 1:
        assert not proof
        return leaf_hash(entry)
    middle = 1 << (size - 1).bit_length() - 1
    *below, sibling = proof
    if index < middle:
        left, right = proven_root(entry, index, middle, below), sibling
    else:
        left, right = sibling, proven_root(entry, index - middle, size - middle, below)
    return hashlib.sha256(b"\1" + left + right).digest()


async def test_a_single_entry_can_be_proved(own_server: Server) -> None:
    client = await started(own_server)
    await work(client, 30, "proof")
    log = Log(own_server)
    checkpoint = await log.covers("proof-29")
    entries = log.entries(checkpoint.size)
    for index in (0, 1, checkpoint.size // 2, checkpoint.size - 1):
        head, _, note = log.get(f"proof/{index}").decode().partition("\n\n")
        first, index_line, *hashes = head.split("\n")
        assert (first, index_line) == ("c2sp.org/tlog-proof@v1", f"index {index}")
        _, size, root_hash = note.split("\n")[:3]
        proof = [base64.b64decode(line) for line in hashes]
        assert proven_root(entries[index], index, int(size), proof) == base64.b64decode(root_hash)


async def test_each_entry_holds_the_hash_of_the_one_before(own_server: Server) -> None:
    client = await started(own_server)
    await work(client, 5, "chain")
    log = Log(own_server)
    await client.start_workflow("Nothing", id="chain-last", task_queue="nobody")
    checkpoint = await log.covers("chain-last")
    ends: dict[str, tuple[int, str | None]] = {}
    statuses = []
    for entry in log.entries(checkpoint.size):
        fields = json.loads(entry)
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert canonical.encode() == entry
        # What belongs to no run is a chain too.
        chain = fields.get("run_id", "")
        n, previous = ends.get(chain, (0, None))
        assert fields["n"] == n + 1
        assert fields.get("prev") == previous
        ends[chain] = (n + 1, base64.b64encode(leaf_hash(entry)).decode())
        if "closed" in fields:
            statuses.append(fields["closed"])
    assert statuses == ["COMPLETED"] * 5
    assert len(ends) == 7


@pytest.mark.timeout(120)
async def test_a_killed_server_goes_on_with_the_same_log(own_server: Server) -> None:
    own_server.start()
    seen: list[Checkpoint] = []
    for round_number in range(6):
        await own_server.ready()
        client = await own_server.client()
        load = asyncio.create_task(start_many(client, f"kill-{round_number}"))
        await asyncio.sleep(0.8 + 0.13 * round_number)
        log = Log(own_server)
        seen.append(log.checkpoint())
        own_server.kill()
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        own_server.start()
    await own_server.ready()
    client = await own_server.client()
    await client.start_workflow("Nothing", id="kill-last", task_queue="nobody")
    log = Log(own_server)
    last = await log.covers("kill-last")
    hashes = [leaf_hash(entry) for entry in log.entries(last.size)]
    assert root(hashes) == last.root
    assert len({checkpoint.size for checkpoint in seen}) == 6
    for checkpoint in seen:
        assert checkpoint.origin == last.origin
        assert root(hashes[: checkpoint.size]) == checkpoint.root, "the log extends what was signed"
    own_server.check_evidence()


async def start_many(client: Client, prefix: str) -> None:
    """Starts workflows that nobody works on, until the server is gone."""
    number = 0
    while True:
        handle = await client.start_workflow("Nothing", id=f"{prefix}-{number}", task_queue="nobody")
        await handle.signal("go on")
        number += 1


FILES = ["steadfast.db", "steadfast.journal.db"]


def copy_store(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in FILES:
        for suffix in ("-wal", "-shm"):
            (target / (name + suffix)).unlink(missing_ok=True)
        shutil.copy(source / name, target / name)


async def test_a_store_that_was_rolled_back_begins_another_log(own_server: Server, tmp_path: Path) -> None:
    client = await started(own_server)
    await work(client, 3, "old")
    await Log(own_server).covers("old-2")
    assert own_server.stop() == 0
    copy_store(tmp_path, tmp_path / "backup")
    client = await started(own_server)
    await work(client, 3, "lost")
    before = await Log(own_server).covers("lost-2")
    assert own_server.stop() == 0

    copy_store(tmp_path / "backup", tmp_path)
    client = await started(own_server)
    await work(client, 1, "new")
    log = Log(own_server)
    after = await log.covers("new-0")
    assert after.origin == f"{before.origin}~2"
    notes = [json.loads(entry)["note"] for entry in log.entries(after.size) if b'"note"' in entry]
    assert [note["what"] for note in notes] == ["namespace/registered", "evidence/log-restarted"]
    assert "rolled back" in notes[1]["detail"]
    assert own_server.stop() == 0

    # The new log goes on like any other.
    client = await started(own_server)
    await work(client, 1, "newer")
    assert (await Log(own_server).covers("newer-0")).origin == after.origin


async def test_a_lost_anchor_begins_another_log(own_server: Server, tmp_path: Path) -> None:
    client = await started(own_server)
    await work(client, 1, "old")
    before = await Log(own_server).covers("old-0")
    assert own_server.stop() == 0
    (tmp_path / "steadfast.db.log-anchor").unlink()
    client = await started(own_server)
    await work(client, 1, "new")
    assert (await Log(own_server).covers("new-0")).origin == f"{before.origin}~2"


async def test_two_servers_cannot_fork_a_log(own_server: Server, tmp_path: Path) -> None:
    client = await started(own_server)
    await work(client, 1, "common")
    await Log(own_server).covers("common-0")
    assert own_server.stop() == 0
    twin_folder = tmp_path / "twin"
    copy_store(tmp_path, twin_folder)
    for name in ("log-key", "log-anchor"):
        # The twin shares what is outside of the store.
        (twin_folder / f"steadfast.db.{name}").symlink_to(tmp_path / f"steadfast.db.{name}")
    twin = Server(twin_folder / "steadfast.db", log=twin_folder / "server.log")
    client = await started(own_server)
    twin_client = await started(twin)
    try:
        await work(client, 1, "first")
        first = await Log(own_server).covers("first-0")
        await work(twin_client, 1, "second")
        await asyncio.sleep(1.5)
        try:
            signed_by_twin = Log(twin).checkpoint().size
        except urllib.error.HTTPError:
            signed_by_twin = 0
        assert signed_by_twin < first.size
        assert "was signed by another process" in twin.tail()
    finally:
        twin.kill()


async def test_changes_of_a_namespace_are_in_its_log(own_server: Server) -> None:
    client = await started(own_server)
    service = client.workflow_service
    retention = Duration(seconds=7200)
    await service.register_namespace(
        RegisterNamespaceRequest(namespace="books", workflow_execution_retention_period=retention)
    )
    change = NamespaceConfig(workflow_execution_retention_ttl=Duration(seconds=3600))
    await service.update_namespace(UpdateNamespaceRequest(namespace="books", config=change))
    log = Log(own_server, "books")
    checkpoint = await log.covers("namespace/changed")
    notes = [json.loads(entry)["note"] for entry in log.entries(checkpoint.size)]
    assert [note["what"] for note in notes] == ["namespace/registered", "namespace/changed"]
    assert "retention in seconds: 0 -> 7200" in notes[0]["detail"]
    assert notes[1]["detail"] == "retention in seconds: 7200 -> 3600"
    own_server.check_evidence("books")


async def test_namespaces_with_similar_names_have_logs_of_their_own(own_server: Server) -> None:
    client = await started(own_server)
    retention = Duration(seconds=7200)
    origins = set()
    for name in ("a b", "a_b", "a%20b", "a+b", "a~2"):
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=retention)
        )
        log = Log(own_server, urllib.parse.quote(name, safe=""))
        origins.add((await log.covers("namespace/registered")).origin)
        own_server.check_evidence(name)
    assert len(origins) == 5


async def test_projections_lost_in_a_power_failure_are_no_rollback(own_server: Server, tmp_path: Path) -> None:
    await started(own_server)
    await Log(own_server).covers("namespace/registered")
    assert own_server.stop() == 0
    # From here on what is projected is in the write-ahead log only.
    client = await started(own_server)
    await work(client, 1, "before")
    before = await Log(own_server).covers("before-0")
    own_server.kill()
    # What was not synced of the projections; the journal has it all.
    (tmp_path / "steadfast.db-wal").unlink()
    client = await started(own_server)
    await work(client, 1, "after")
    after = await Log(own_server).covers("after-0")
    assert after.origin == before.origin
    hashes = [leaf_hash(entry) for entry in Log(own_server).entries(after.size)]
    assert root(hashes[: before.size]) == before.root
    own_server.check_evidence()


async def test_an_identity_of_any_length_leaves_a_readable_log(own_server: Server) -> None:
    own_server.start()
    await own_server.ready()
    client = await own_server.client(identity="x" * 70_000)
    await client.start_workflow("Nothing", id="long-identity", task_queue="nobody")
    log = Log(own_server)
    checkpoint = await log.covers("long-identity")
    assert root([leaf_hash(entry) for entry in log.entries(checkpoint.size)]) == checkpoint.root
