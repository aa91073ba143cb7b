"""`steadfast evidence check` on stores that somebody changed behind the server's back."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from server import Server, binary
from temporalio import activity, workflow
from temporalio.worker import Worker


@activity.defn
async def pay(whom: str) -> str:
    return f"paid {whom}"


@workflow.defn(sandboxed=False)
class Payment:
    def __init__(self) -> None:
        self.approved = False

    @workflow.signal
    def approve(self) -> None:
        self.approved = True

    @workflow.run
    async def run(self, whom: str) -> str:
        await workflow.wait_condition(lambda: self.approved)
        return await workflow.execute_activity(pay, whom, start_to_close_timeout=timedelta(seconds=5))


def replace(table: str, column: str, old: bytes, new: bytes) -> Callable[[sqlite3.Connection], int]:
    """Puts other bytes of the same length into a blob."""
    assert len(old) == len(new)

    def change(db: sqlite3.Connection) -> int:
        changed = 0
        for rowid, blob in db.execute(f"SELECT rowid, {column} FROM {table}").fetchall():
            blob = unpacked(blob)
            if old in blob:
                db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (blob.replace(old, new, 1), rowid))
                changed += 1
        return changed

    return change


def unpacked(blob: bytes) -> bytes:
    """A blob that may be compressed: an LZ4 block (lz4_Block_format.md) after a zero and its length. The
    server reads either kind."""
    if blob[:1] != b"\0":
        return blob
    at, out = 5, bytearray()

    def length(of: int) -> int:
        nonlocal at
        if of == 15:
            more = 255
            while more == 255:
                more = blob[at]
                at += 1
                of += more
        return of

    while at < len(blob):
        token = blob[at]
        at += 1
        literals = length(token >> 4)
        out += blob[at : at + literals]
        at += literals
        if at < len(blob):
            offset = int.from_bytes(blob[at : at + 2], "little")
            at += 2
            for _ in range(length(token & 15) + 4):
                out.append(out[-offset])
    assert len(out) == int.from_bytes(blob[1:5], "little")
    return bytes(out)


def frames(blob: bytes) -> list[bytes]:
    """The entries of a row, each with its length before it."""
    blob = unpacked(blob)
    found, at = [], 0
    while at < len(blob):
        begin, length, shift = at, 0, 0
        while True:
            byte = blob[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        at += length
        found.append(blob[begin:at])
    return found


def swap_entries(db: sqlite3.Connection) -> int:
    """Two neighbouring entries of a run change places."""
    rows = db.execute("SELECT rowid, entries FROM log_entries").fetchall()
    # How many entries are in a row depends on when they were projected.
    rowid, entries = max(((rowid, frames(blob)) for rowid, blob in rows), key=lambda row: len(row[1]))
    assert len(entries) >= 2 and b"run_id" in entries[-2], "no two entries of the run in a row"
    swapped = b"".join([*entries[:-2], entries[-1], entries[-2]])
    return db.execute("UPDATE log_entries SET entries = ? WHERE rowid = ?", (swapped, rowid)).rowcount


def flip_in_tile(db: sqlite3.Connection) -> int:
    rowid, hashes = db.execute("SELECT rowid, hashes FROM log_tile WHERE level = 0").fetchone()
    changed = bytes([hashes[0] ^ 1]) + hashes[1:]
    return db.execute("UPDATE log_tile SET hashes = ? WHERE rowid = ?", (changed, rowid)).rowcount


def delete_all(table: str) -> Callable[[sqlite3.Connection], int]:
    return lambda db: db.execute(f"DELETE FROM {table}").rowcount


def delete_run(db: sqlite3.Connection) -> int:
    """As if it had never been there."""
    return sum(db.execute(f"DELETE FROM {table}").rowcount for table in ("visibility", "snapshot", "run"))


CHANGES = {
    "payload of an event": (replace("history", "events", b"paid alice", b"paid mallo"), "does not give entry"),
    "who approved": (replace("history", "events", b"boss@desk", b"evil@desk"), "does not give entry"),
    "who is in the log": (replace("log_entries", "entries", b"boss@desk", b"evil@desk"), "does not"),
    "state of the run": (replace("snapshot", "bytes", b"Payment", b"Paiment"), "is not the stored one"),
    "order of the log": (swap_entries, "number"),
    "a hash of the tree": (flip_in_tile, "is not made of the log's entries"),
    "a removed run": (delete_run, "is not in the store"),
    "a removed state": (delete_all("snapshot"), "its state is missing"),
    "a removed record": (delete_all("record_page"), "is missing"),
    "a removed event": (delete_all("history"), "is missing"),
    "a removed entry": (delete_all("log_entries"), "the log has no entry"),
}


async def paid(server: Server) -> None:
    server.start()
    await server.ready()
    client = await server.client()
    boss = await server.client(identity="boss@desk")
    async with Worker(client, task_queue="pay", workflows=[Payment], activities=[pay]):
        handle = await client.start_workflow(Payment.run, "alice", id="payment", task_queue="pay")
        await asyncio.sleep(0.2)
        await boss.get_workflow_handle("payment").signal(Payment.approve)
        assert await handle.result() == "paid alice"


@pytest.mark.parametrize("what", CHANGES)
async def test_a_changed_store_is_found(own_server: Server, what: str) -> None:
    if Path(binary()).name != "steadfast":
        pytest.skip("only Steadfast has evidence")
    change, expected = CHANGES[what]
    await paid(own_server)
    own_server.check_evidence()
    assert own_server.stop() == 0
    with closing(sqlite3.connect(own_server.db)) as db:
        assert change(db) > 0, "the change changed nothing"
        db.commit()
    own_server.start()
    await own_server.ready()
    address = f"http://127.0.0.1:{own_server.http_port}"
    command = [binary(), "evidence", "check", "--address", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "DIFFERS" in done.stdout and expected in done.stdout, done.stdout
