"""What other policies would have decided about what sessions did: in a server, and from a bundle."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
from server import Server, binary
from temporalio.client import WorkflowFailureError
from test_bundle import export, trusted_key
from test_policies_api import PERMIT, call, files
from test_policy import agents, run, started, vote, waiting

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast has policies", allow_module_level=True)

# Smaller refunds than before wait, and deletions go on.
OTHER = """
@id("tools")
permit(principal is Agent, action == Action::"ExecuteTool", resource in Namespace::"default");

@id("refunds-wait")
@approval("required") @approvers("finance")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/refund")
unless { context.numbers.hasTag("/0/amount") && context.numbers.getTag("/0/amount") <= 100 };
"""


def ask(server: Server, policies: Path, *options: str, code: int) -> tuple[list[dict], dict]:
    command = [binary(), "policy", "what-if", str(policies), "--json", "--address", server.http, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return lines[:-1], lines[-1]["summary"]


def told(lines: list[dict]) -> set[tuple]:
    return {
        (of["workflowId"], of["tool"], of["then"]["answer"], of["now"]["answer"], *of["now"]["policies"])
        for of in lines
    }


EXPECTED = {
    ("middle", "refund", "allow", "approval", "refunds-wait"),
    ("gone", "delete_customer", "deny", "allow", "tools"),
}


async def test_sessions_are_decided_again(own_server: Server, tmp_path: Path) -> None:
    policies = await started(own_server, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "other.cedar").write_text(OTHER)
    async with agents(own_server) as client:
        assert await (await run(client, "refund", {"amount": 7}, "small")).result() == "refunded 7"
        assert await (await run(client, "refund", {"amount": 500}, "middle")).result() == "refunded 500"
        with pytest.raises(WorkflowFailureError):
            await (await run(client, "delete_customer", "c-1", "gone")).result()
        # This one is not over: it waits, and would wait.
        live = await run(client, "refund", {"amount": 5000}, "large")
        await waiting(own_server)

        lines, summary = await asyncio.to_thread(ask, own_server, other, code=1)
        assert told(lines) == EXPECTED
        assert {of["then"]["policies"][0] for of in lines} == {"tools", "no-deletions"}
        assert (summary["sessions"], summary["calls"], summary["differing"]) == (4, 4, 2)
        assert {of["tool"]: of["changes"] for of in summary["tools"]} == {
            "refund": {"allow -> approval": 1},
            "delete_customer": {"deny -> allow": 1},
        }

        # The policies that decided decide the same.
        lines, summary = await asyncio.to_thread(ask, own_server, policies, code=0)
        assert lines == [] and summary["differing"] == 0 and summary["sessions"] == 4

        for options, expected in [
            (["--workflow-id", "gone"], {"gone"}),
            (["--query", "ExecutionStatus = 'Completed'"], {"middle"}),
            (["--query", "ExecutionStatus = 'Completed'", "--workflow-id", "gone"], set()),
            (["--from", "2100-01-01T00:00:00Z"], set()),
            (["--to", "2000-01-01T00:00:00Z"], set()),
            (["--from", "2000-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z"], {"middle", "gone"}),
        ]:
            lines, _ = await asyncio.to_thread(ask, own_server, other, *options, code=1 if expected else 0)
            assert {of["workflowId"] for of in lines} == expected, options

        # People are told the same.
        command = [binary(), "policy", "what-if", str(other), "--address", own_server.http]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert "middle refund (1): allow by tools -> approval by refunds-wait" in done.stdout
        assert "2 of 4 calls in 4 sessions would have gone differently" in done.stdout

        await vote(own_server, "approve", "large", "bob", "finance")
        await vote(own_server, "approve", "large", "rita", "risk")
        await live.result()

    # From a bundle, without the server.
    bundle, key = tmp_path / "bundle.zip", trusted_key(own_server)
    await asyncio.to_thread(export, own_server, bundle, "--workflow-id", "middle")
    own_server.kill()
    options = ["--bundle", str(bundle), "--key", key]
    command = [binary(), "policy", "what-if", str(other), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr
    *lines, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert told(lines) == {of for of in EXPECTED if of[0] == "middle"}
    assert last["summary"]["sessions"] == 1
    command[3] = str(policies)
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    # Of a bundle that nobody can believe nothing is told.
    bundle.write_bytes(bundle.read_bytes()[:-100])
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 2


async def test_what_no_policy_decided_is_asked_about_too(own_server: Server, tmp_path: Path) -> None:
    own_server.start()
    await own_server.ready()
    other = tmp_path / "other.cedar"
    other.write_text(OTHER)
    async with agents(own_server) as client:
        await (await run(client, "refund", {"amount": 7}, "small")).result()
        await (await run(client, "refund", {"amount": 500}, "middle")).result()
    lines, summary = await asyncio.to_thread(ask, own_server, other, code=1)
    assert told(lines) == {("middle", "refund", "none", "approval", "refunds-wait")}
    assert summary["calls"] == 2


async def test_what_is_odd_is_refused(own_server: Server, tmp_path: Path) -> None:
    own_server.start()
    await own_server.ready()
    path = "/api/v1/namespaces/default/policies/what-if"
    for body, code, part in [
        ({**files(a=PERMIT), "query": "Nonsense = "}, 400, ""),
        ({**files(a=PERMIT), "from": "yesterday"}, 400, "RFC 3339"),
        ({"files": []}, 422, "no file"),
        (files(a="permit("), 422, "a.cedar:1"),
        ({"policies": 1}, 400, "not a question"),
    ]:
        status, message, _ = await asyncio.to_thread(call, own_server, "POST", path, body)
        assert status == code and part in message, (body, status, message)
    status, _, _ = await asyncio.to_thread(
        call, own_server, "POST", path.replace("default", "nothing"), files(a=PERMIT)
    )
    assert status == 404
    # No session, no difference.
    status, answer, _ = await asyncio.to_thread(call, own_server, "POST", path, files(a=PERMIT))
    assert status == 200 and answer["summary"]["sessions"] == 0
