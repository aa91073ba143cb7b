"""One server for the ordinary tests; a client and unique names for each.

`STEADFAST_BIN` names the binary under test, `STEADFAST_TEST_ADDRESS` a server that runs already.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from server import Server
from temporalio.client import Client

LOGS = pytest.StashKey[list[Path]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LOGS] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what the servers said meanwhile."""
    report = yield
    if report.failed:
        for log in item.config.stash[LOGS]:
            if log.exists() and (text := log.read_text(errors="replace")):
                report.sections.append((f"server log {log}", text[-3000:]))
    return report


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_server(tmp_path_factory, request) -> AsyncIterator[str]:
    """The address of the server that all but the crash tests share."""
    address = os.environ.get("STEADFAST_TEST_ADDRESS")
    if address:
        yield address
        return
    folder = tmp_path_factory.mktemp("server")
    server = Server(folder / "steadfast.db", log=folder / "server.log")
    request.config.stash[LOGS].append(server.log)
    server.start()
    try:
        await server.ready()
        yield server.address
        assert server.process and server.process.poll() is None, f"the server died: {server.tail()}"
        server.check_evidence()
        code = server.stop()
        assert code == 0, f"the server ended with {code}: {server.tail()}"
    finally:
        server.kill()


@pytest_asyncio.fixture
async def own_server(tmp_path, request) -> AsyncIterator[Server]:
    """A server that the test may kill: not started yet."""
    server = Server(tmp_path / "steadfast.db", log=tmp_path / "server.log")
    request.config.stash[LOGS].append(server.log)
    yield server
    server.kill()
    request.config.stash[LOGS].remove(server.log)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(shared_server) -> Client:
    return await Client.connect(shared_server)


@pytest.fixture
def unique() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex[:12]
