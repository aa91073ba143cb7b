"""Nothing acknowledged is lost and nothing completed runs again, however the server ends."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from crash_load import Load, kind
from crash_worker import Walk
from server import Server, binary, free_port
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

ROUNDS = int(os.environ.get("STEADFAST_CRASH_ROUNDS", "8"))
SEED = int(os.environ.get("STEADFAST_CRASH_SEED", str(random.randrange(1_000_000))))
HERE = Path(__file__).parent

steadfast_only = pytest.mark.skipif(
    Path(os.environ.get("STEADFAST_BIN", "")).name == "temporal",
    reason="the development server of Temporal does not promise this",
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "steadfast.db", log=tmp_path / "server.log")
    yield server
    server.kill()


async def started(server: Server) -> Client:
    server.start()
    await server.ready()
    return await server.client()


@pytest.mark.timeout(120 + 30 * ROUNDS)
async def test_kill_under_load(server: Server) -> None:
    print(f"STEADFAST_CRASH_SEED={SEED}")
    chance = random.Random(SEED)
    load = Load(await started(server), seed=SEED)
    load.begin()
    for number in range(ROUNDS):
        await load.progress(chance.randrange(20, 150))
        await asyncio.sleep(chance.uniform(0, 0.3))
        server.kill()
        # Sometimes there is nobody to talk to for a while.
        await asyncio.sleep(chance.choice((0, 0, 0.5)))
        server.start()
        await server.ready()
        await load.check_present()
        print(f"round {number + 1}: {len(load.runs)} workflows, {load.acknowledged} acknowledgements")
    await load.finish()
    await load.check_all()
    server.kill()
    server.start()
    await server.ready()
    await load.check_all()
    await load.end()
    print(load.errors)
    server.check_evidence()


@pytest.mark.timeout(180)
async def test_kill_again_while_starting(server: Server) -> None:
    """A start that is cut short must not make anything worse, wherever it was."""
    chance = random.Random(SEED)
    load = Load(await started(server), seed=SEED)
    load.begin()
    for _ in range(3):
        await load.progress(60)
        server.kill()
        for _ in range(5):
            server.start()
            await asyncio.sleep(chance.uniform(0, 0.15))
            server.kill()
        server.start()
        await server.ready()
        await load.check_present()
    await load.finish()
    await load.check_all()
    await load.end()
    print(load.errors)
    server.check_evidence()


@pytest.mark.timeout(180)
async def test_terminate_under_load(server: Server) -> None:
    load = Load(await started(server), seed=SEED)
    load.begin()
    for _ in range(3):
        await load.progress(100)
        code = await asyncio.to_thread(server.stop)
        assert code == 0, server.tail()
        server.start()
        await server.ready()
        await load.check_present()
    await load.finish()
    await load.check_all()
    await load.end()
    print(load.errors)
    server.check_evidence()


class WorkerProcess:
    def __init__(self, address: str, task_queue: str):
        self.command = [sys.executable, str(HERE / "crash_worker.py"), address, task_queue]
        self.process = subprocess.Popen(self.command)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.process = subprocess.Popen(self.command)


@pytest.mark.timeout(180)
async def test_kill_worker_and_server_in_turn(server: Server, tmp_path: Path, unique: str) -> None:
    client = await started(server)
    journal = tmp_path / "steps"
    steps = 12
    worker = WorkerProcess(server.address, unique)
    try:
        handles = [
            await client.start_workflow(
                Walk.run,
                args=[str(journal), steps],
                id=f"walk-{unique}-{number}",
                task_queue=unique,
                task_timeout=timedelta(seconds=3),
            )
            for number in range(8)
        ]
        for turn in range(6):
            await lines_to_come(journal, 6)
            if turn % 2:
                server.kill()
                server.start()
                await server.ready()
            else:
                worker.restart()
        for handle in handles:
            await handle.signal(Walk.say, "home")
        for handle in handles:
            assert await asyncio.wait_for(handle.result(), 90) == [
                *(f"step {number}" for number in range(steps)),
                "home",
            ]
        for handle in handles:
            await check_walk(handle, journal, steps)
        server.check_evidence()
    finally:
        worker.kill()


async def lines_to_come(path: Path, count: int) -> None:
    def lines() -> int:
        return len(path.read_text().splitlines()) if path.exists() else 0

    goal = lines() + count
    deadline = time.monotonic() + 60
    while lines() < goal:
        assert time.monotonic() < deadline, f"{lines()} steps, not {goal}"
        await asyncio.sleep(0.02)


async def check_walk(handle, journal: Path, steps: int) -> None:
    events = [event async for event in handle.fetch_history_events()]
    assert [event.event_id for event in events] == list(range(1, len(events) + 1))
    kinds = [kind(event) for event in events]
    for expected in ("ACTIVITY_TASK_SCHEDULED", "ACTIVITY_TASK_STARTED", "ACTIVITY_TASK_COMPLETED", "TIMER_FIRED"):
        assert kinds.count(expected) == steps, (expected, kinds)
    assert kinds.count("WORKFLOW_EXECUTION_SIGNALED") == 1
    # The steps are one after the other, so the nth completion is that of step n.
    completions = [event.event_time for event in events if kind(event) == "ACTIVITY_TASK_COMPLETED"]
    executions = [line.split() for line in journal.read_text().splitlines()]
    for number, completion in enumerate(completions):
        times = [float(at) for at, workflow_id, step in executions if workflow_id == handle.id and int(step) == number]
        assert times, f"step {number} never ran"
        assert max(times) < completion.ToMicroseconds() / 1e6, f"step {number} ran again after it was completed"


def run_to_end(db: Path, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """A server that is expected to refuse."""
    command = [binary(), "server", "start-dev", "--headless", "--port", str(free_port()), "--db-filename", str(db)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


async def start_one(client: Client, unique: str) -> None:
    await client.start_workflow("Anything", id=unique, task_queue=unique)


async def is_there(client: Client, unique: str) -> bool:
    described = await client.get_workflow_handle(unique).describe()
    return described.id == unique


@steadfast_only
async def test_second_server_on_the_same_file(server: Server, tmp_path: Path, unique: str) -> None:
    client = await started(server)
    await start_one(client, unique)
    refused = await asyncio.to_thread(run_to_end, server.db)
    assert refused.returncode > 0, refused
    assert "in use by another process" in refused.stderr, refused
    # The first one has not noticed.
    assert await is_there(client, unique)
    await start_one(client, f"{unique}-after")
    server.kill()
    # Neither does a killed server leave a lock behind.
    client = await started(server)
    assert await is_there(client, unique)
    assert await is_there(client, f"{unique}-after")


@steadfast_only
async def test_second_server_through_a_link(server: Server, tmp_path: Path, unique: str) -> None:
    """Another name for the same file makes no difference."""
    client = await started(server)
    await start_one(client, unique)
    link = tmp_path / "link.db"
    link.symlink_to(server.db)
    refused = await asyncio.to_thread(run_to_end, link)
    assert refused.returncode > 0, refused
    assert "in use by another process" in refused.stderr, refused
    assert await asyncio.to_thread(server.stop) == 0
    server.db = link
    client = await started(server)
    assert await is_there(client, unique)


def user_version(file: Path) -> int:
    with sqlite3.connect(file) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return version


def set_user_version(file: Path, version: int) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


@steadfast_only
@pytest.mark.parametrize("name", ["steadfast.db", "steadfast.journal.db"])
async def test_store_of_a_newer_version(server: Server, tmp_path: Path, unique: str, name: str) -> None:
    client = await started(server)
    await start_one(client, unique)
    assert await asyncio.to_thread(server.stop) == 0
    file = tmp_path / name
    version = user_version(file)
    assert version > 0
    set_user_version(file, version + 1)
    before = file.read_bytes()

    refused = await asyncio.to_thread(run_to_end, server.db)
    assert refused.returncode > 0, refused
    assert f"schema version {version + 1}" in refused.stderr, refused
    assert f"up to {version}" in refused.stderr, refused
    assert file.read_bytes() == before, "a refused store was changed"

    set_user_version(file, version)
    client = await started(server)
    assert await is_there(client, unique)


@steadfast_only
async def test_store_without_its_journal(server: Server, tmp_path: Path, unique: str) -> None:
    client = await started(server)
    await start_one(client, unique)
    assert await asyncio.to_thread(server.stop) == 0
    for file in tmp_path.glob("steadfast.journal.db*"):
        file.rename(file.with_name(f"kept-{file.name}"))
    refused = await asyncio.to_thread(run_to_end, server.db)
    assert refused.returncode > 0, refused
    assert "journal" in refused.stderr, refused
    for file in tmp_path.glob("steadfast.journal.db*"):
        file.unlink()
    for file in tmp_path.glob("kept-*"):
        file.rename(file.with_name(file.name.removeprefix("kept-")))
    client = await started(server)
    assert await is_there(client, unique)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small file system is not permitted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leaves no room at all."""
    ballast = folder / "ballast"
    with open(ballast, "ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    assert shutil.disk_usage(folder).free == 0
    return ballast


async def refused_writes(client: Client, unique: str, seconds: float) -> list[RPCStatusCode]:
    """Starts workflows for so long; how the refused ones were refused."""
    codes = []
    deadline = time.monotonic() + seconds
    number = 0
    while time.monotonic() < deadline:
        number += 1
        try:
            await client.start_workflow(
                "Anything",
                "x" * 20_000,
                id=f"{unique}-{number}",
                task_queue=unique,
                rpc_timeout=timedelta(seconds=5),
            )
        except RPCError as error:
            codes.append(error.status)
    return codes


@pytest.mark.timeout(180)
@pytest.mark.parametrize("while_full", ["keep running", "kill"])
async def test_full_disk(small_disk: Path, tmp_path: Path, unique: str, while_full: str) -> None:
    server = Server(small_disk / "steadfast.db", log=tmp_path / "server.log")
    try:
        client = await started(server)
        load = Load(client, seed=SEED, payload_bytes=2000)
        load.begin()
        await load.progress(100)
        ballast = fill(small_disk)
        codes = await refused_writes(client, unique, 4)
        assert codes, "everything was accepted"
        allowed = {RPCStatusCode.RESOURCE_EXHAUSTED, RPCStatusCode.UNAVAILABLE}
        assert set(codes) <= allowed, set(codes)
        assert server.process and server.process.poll() is None, f"the server ended: {server.tail()}"
        if while_full == "kill":
            server.kill()
            ballast.unlink()
            server.start()
            await server.ready()
        else:
            await load.check_not_denied()
            ballast.unlink()
        await load.progress(100)
        await load.finish()
        await load.check_all()
        server.kill()
        server.start()
        await server.ready()
        await load.check_all()
        await load.end()
    finally:
        server.kill()
