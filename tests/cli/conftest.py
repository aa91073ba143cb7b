"""A server, a worker, and the `temporal` command that talks to them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python"))

from server import Server  # noqa: E402


class Temporal:
    """The command, with our server's address."""

    def __init__(self, address: str):
        self.address = address
        command = shutil.which("temporal")
        assert command, "the temporal command is not on the PATH"
        self.command = command

    def run(self, *arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        # Nothing that a developer has configured may redirect a test.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}
        command = [self.command, *arguments, "--address", self.address, "--disable-config-file"]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=clean)

    def text(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.text(*arguments, "--output", "json"))

    def refused(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode != 0, done
        return done.stderr


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
