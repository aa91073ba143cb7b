"""One server for the ordinary tests; a client and unique names for each."""

from __future__ import annotations

import os
import uuid

import pytest
import pytest_asyncio
from server import Server
from temporalio.client import Client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_server(tmp_path_factory):
    address = os.environ.get("STEADFAST_TEST_ADDRESS")
    if address:
        yield address
        return
    folder = tmp_path_factory.mktemp("server")
    server = Server(folder / "steadfast.db", log=folder / "server.log")
    server.start()
    await server.ready()
    yield server.address
    code = server.stop()
    print(server.tail())
    assert code == 0, f"the server ended with {code}"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(shared_server) -> Client:
    return await Client.connect(shared_server)


@pytest.fixture
def unique() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex[:12]
