"""A server, a worker, and the `temporal` command that talks to them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python"))

from server import Server  # noqa: E402
from temporal_command import Temporal  # noqa: E402


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("cli")
    server = Server(folder / "steadfast.db", log=folder / "server.log")
    server.start()
    asyncio.run(server.ready())
    yield server.address
    assert server.stop() == 0, server.tail()


@pytest.fixture(scope="session")
def temporal(address: str) -> Temporal:
    return Temporal(address)


@pytest.fixture(scope="session")
def queue(address: str) -> Iterator[str]:
    """The task queue of a worker."""
    queue = f"cli-{uuid.uuid4().hex[:8]}"
    worker = subprocess.Popen([sys.executable, str(HERE / "worker.py"), address, queue])
    yield queue
    worker.kill()
    worker.wait()


@pytest.fixture
def unique() -> str:
    return f"cli-{uuid.uuid4().hex[:12]}"
