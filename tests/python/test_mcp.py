"""examples/mcp: an MCP server that accepts nothing but the credential of a tool call that is under way."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from server import ROOT, free_port
from temporalio.client import Client
from test_credentials import Desk, Issuing, agent, exchange, issuing, over_within_a_second

pytest.importorskip("mcp")

EXAMPLE = ROOT / "examples" / "mcp"
PACKAGE = ROOT / "packages" / "python" / "src"


class Shop:
    """The example's MCP server, and the Steadfast server that it trusts."""

    def __init__(self, steadfast: Issuing, port: int, log: Path):
        self.steadfast = steadfast
        self.url = f"http://127.0.0.1:{port}/mcp"
        self.log = log
        self.processes: list[subprocess.Popen[bytes]] = []
        self.run("shop.py", "--issuer", steadfast.http, "--port", str(port))

    def run(self, *command: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        out = open(self.log, "ab")
        process = subprocess.Popen([sys.executable, *command], cwd=EXAMPLE, env=env, stdout=out, stderr=out)
        self.processes.append(process)
        return process

    async def ready(self) -> None:
        for _ in range(300):
            if self.ask(None, "tools/list")[0] == 401:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def ask(self, token: str | None, method: str, **params: Any) -> tuple[int, Any]:
        """One request of MCP, as anybody can send it."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        request = urllib.request.Request(self.url, data=json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        request.add_header("Accept", "application/json, text/event-stream")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, error

    def call(self, token: str | None, tool: str, **arguments: Any) -> tuple[int, Any]:
        status, answer = self.ask(token, "tools/call", name=tool, arguments=arguments)
        return status, answer["result"] if status == 200 else answer

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest_asyncio.fixture
async def shop(tmp_path, request) -> AsyncIterator[Shop]:
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    for steadfast in issuing(tmp_path, request, audience=url):
        await steadfast.ready()
        shop = Shop(steadfast, port, tmp_path / "shop.log")
        try:
            await shop.ready()
            yield shop
        finally:
            shop.stop()


async def test_the_agent_refunds_by_its_credential(shop: Shop) -> None:
    address = shop.steadfast.address
    shop.run("agent.py", "--address", address, "--shop", shop.url, "worker")
    client = await Client.connect(address, identity="alice")
    result = client.execute_workflow("RefundAgent", args=["order-7", 12], id="order-7", task_queue="refunds")
    assert await asyncio.wait_for(result, 60) == {
        "order": "order-7",
        "amount": 12,
        "refund": "refund-1",
        "agent": "default/RefundAgent",
        "session": "order-7",
        "for": "alice",
    }
    shop.steadfast.check_evidence()


async def test_it_says_whom_it_trusts(shop: Shop) -> None:
    url = shop.url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")
    with urllib.request.urlopen(url, timeout=10) as answer:
        metadata = json.loads(answer.read())
    assert metadata["resource"] == shop.url
    assert metadata["authorization_servers"] == [shop.steadfast.http]


async def test_nothing_else_is_accepted(shop: Shop) -> None:
    desk = Desk()
    order: dict[str, Any] = {"order": "order-8", "amount": 5}
    async with agent(await shop.steadfast.client(), desk, "attacked") as session:
        credential = await desk.next()
        for token in [None, "", "a.b.c", credential.token[:-4] + "AAAA"]:
            assert shop.call(token, "refund", **order)[0] == 401, token
        # Genuine and active, but for somebody else.
        _, other = exchange(shop.steadfast, credential.token, "https://other.example")
        assert shop.call(other["access_token"], "refund", **order)[0] == 401
        # For this server, but another tool of it.
        status, answer = shop.call(credential.token, "close_account", customer="alice")
        assert status == 200 and answer["isError"]
        assert "for the tool 'refund'" in answer["content"][0]["text"]
        # It is asked again, and refunds once.
        first = shop.call(credential.token, "refund", **order)
        assert first[0] == 200 and not first[1].get("isError")
        again = shop.call(credential.token, "refund", **order)
        assert again[1]["structuredContent"] == first[1]["structuredContent"]
        await desk.outcomes.put("fail")
        second = await desk.next()
        assert shop.call(credential.token, "refund", **order)[0] == 401, "the attempt is over"
        retried = shop.call(second.token, "refund", **order)
        assert retried[1]["structuredContent"] == first[1]["structuredContent"], "the next attempt of the same call"
        await session.terminate()
        await over_within_a_second(shop.steadfast, second.token)
        assert shop.call(second.token, "refund", **order)[0] == 401
        await desk.outcomes.put("too late")
