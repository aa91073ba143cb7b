"""Policies and approvals, with an agent on an unmodified SDK."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from server import Server, binary
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker
from test_bundle import export, trusted_key, verdict

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast has policies", allow_module_level=True)

POLICIES = """
@id("tools")
permit(principal is Agent, action == Action::"ExecuteTool", resource in Namespace::"default");

@id("no-deletions")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/delete_customer");

@id("large-refunds")
@approval("required") @approvers("finance,risk") @quorum("2") @timeout("PT1H")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/refund")
unless { context.numbers.hasTag("/0/amount") && context.numbers.getTag("/0/amount") <= 1000 };
"""

done: list[str] = []


@activity.defn
async def refund(call: dict) -> str:
    done.append(f"refund {call['amount']}")
    return f"refunded {call['amount']}"


@activity.defn
async def delete_customer(customer: str) -> None:
    done.append(f"delete {customer}")


@workflow.defn(sandboxed=False)
class Agent:
    @workflow.run
    async def run(self, tool: str, argument: Any) -> str:
        return await workflow.execute_activity(
            tool,
            argument,
            result_type=str,
            start_to_close_timeout=timedelta(seconds=5),
            retry_policy=RetryPolicy(maximum_attempts=3),
        )


@asynccontextmanager
async def agents(server: Server) -> AsyncIterator[Client]:
    client = await server.client(identity="alice@desk")
    worker = Worker(client, task_queue="agents", workflows=[Agent], activities=[refund, delete_customer])
    async with worker:
        yield client


def steadfast(server: Server, *arguments: str, code: int = 0) -> str:
    command = [binary(), *arguments, "--address", server.http]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


async def waiting(server: Server) -> dict:
    deadline = time.monotonic() + 10
    while not (calls := json.loads(await asyncio.to_thread(steadfast, server, "approvals", "list", "--json"))):
        assert time.monotonic() < deadline, "nothing waits"
        await asyncio.sleep(0.1)
    [call] = calls
    return call


async def vote(server: Server, answer: str, workflow_id: str, who: str, group: str, code: int = 0) -> str:
    arguments = ["approvals", answer, "--workflow-id", workflow_id, "--identity", who, "--group", group, "--yes"]
    return await asyncio.to_thread(steadfast, server, *arguments, code=code)


async def started(server: Server, tmp_path: Path) -> Path:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "tools.cedar").write_text(POLICIES)
    server.flags = [*server.flags, "--policy", str(policies)]
    server.start()
    await server.ready()
    done.clear()
    return policies


def why(error: WorkflowFailureError) -> tuple[str | None, str]:
    cause = error.cause
    assert isinstance(cause, ActivityError) and isinstance(cause.cause, ApplicationError)
    assert cause.cause.non_retryable
    return cause.cause.type, cause.cause.message


async def run(client: Client, tool: str, argument: Any, workflow_id: str):
    return await client.start_workflow(Agent.run, args=[tool, argument], id=workflow_id, task_queue="agents")


async def test_a_forbidden_tool_call_is_refused_by_the_engine(own_server: Server, tmp_path: Path) -> None:
    await started(own_server, tmp_path)
    async with agents(own_server) as client:
        assert await (await run(client, "refund", {"amount": 10}, "small")).result() == "refunded 10"
        with pytest.raises(WorkflowFailureError) as refused:
            await (await run(client, "delete_customer", "c-7", "delete")).result()
        assert why(refused.value) == ("PolicyDenied", "refused by policy no-deletions")
    assert done == ["refund 10"]


async def test_a_large_refund_waits_for_two_people_over_kills(own_server: Server, tmp_path: Path) -> None:
    await started(own_server, tmp_path)
    async with agents(own_server) as client:
        handle = await run(client, "refund", {"amount": 1200}, "order-7")
        call = await waiting(own_server)
        assert call["arguments"] == [{"json": {"amount": 1200}}]
        assert (call["quorum"], call["groups"], call["initiator"]["name"]) == (2, ["finance", "risk"], "alice@desk")
        refused = await vote(own_server, "approve", "order-7", "alice@desk", "finance", code=1)
        assert "started this session" in refused
        await vote(own_server, "approve", "order-7", "mallory", "sales", code=1)
        assert "more votes" in await vote(own_server, "approve", "order-7", "bob", "finance")
        await vote(own_server, "approve", "order-7", "bob", "risk", code=1)
        for _ in range(2):
            own_server.kill()
            own_server.start()
            await own_server.ready()
        [first] = (await waiting(own_server))["votes"]
        assert first["principal"] == "bob" and done == []
        assert "released" in await vote(own_server, "approve", "order-7", "carol", "risk")
        assert await handle.result() == "refunded 1200"
    assert done == ["refund 1200"]
    bundle = export(own_server, tmp_path / "order-7.zip", "-w", "order-7")
    verdict(bundle, trusted_key(own_server), 0)
    with zipfile.ZipFile(bundle) as files:
        entries = [json.loads(line)["entry"] for line in files.read("entries.jsonl").splitlines()]
        page = files.read("report.html").decode()
    votes = [vote["by"] for entry in entries for item in entry.get("approvals", []) for vote in item.get("votes", [])]
    assert {"bob", "carol"} == set(votes)
    answers = {item["answer"] for entry in entries for item in entry.get("decisions", [])}
    assert answers == {"approval"}
    assert "refund goes on: bob approved, carol approved" in page
    own_server.check_evidence()


async def test_a_person_denies(own_server: Server, tmp_path: Path) -> None:
    await started(own_server, tmp_path)
    async with agents(own_server) as client:
        handle = await run(client, "refund", {"amount": "a lot"}, "order-8")
        await waiting(own_server)
        assert "refused" in await vote(own_server, "deny", "order-8", "bob", "risk")
        with pytest.raises(WorkflowFailureError) as refused:
            await handle.result()
        assert why(refused.value)[0] == "ApprovalDenied"
    assert done == []


async def test_policies_change_without_a_restart(own_server: Server, tmp_path: Path) -> None:
    policies = await started(own_server, tmp_path)
    async with agents(own_server) as client:
        (policies / "tools.cedar").write_text("permit(principal, action")
        await asyncio.sleep(2.5)
        assert await (await run(client, "refund", {"amount": 1}, "before")).result() == "refunded 1"
        (policies / "tools.cedar").write_text('@id("closed") forbid(principal, action, resource);')
        deadline = time.monotonic() + 10
        for number in range(100):
            assert time.monotonic() < deadline
            try:
                await (await run(client, "refund", {"amount": 1}, f"after-{number}")).result()
            except WorkflowFailureError as error:
                assert why(error) == ("PolicyDenied", "refused by policy closed")
                break
            await asyncio.sleep(0.2)
    # A server does not start without the policies that it is told to have.
    own_server.stop()
    (policies / "tools.cedar").write_text("permit(principal, action")
    own_server.start()
    with pytest.raises(RuntimeError, match="tools.cedar:1"):
        await own_server.ready()


async def test_other_policies_decide_what_waits_without_a_vote(own_server: Server, tmp_path: Path) -> None:
    policies = (await started(own_server, tmp_path)) / "tools.cedar"
    async with agents(own_server) as client:
        released = await run(client, "refund", {"amount": 1200}, "released")
        await waiting(own_server)
        policies.write_text(POLICIES.replace("<= 1000", "<= 2000"))
        assert await asyncio.wait_for(released.result(), 10) == "refunded 1200"

        refused = await run(client, "refund", {"amount": 3000}, "refused")
        await waiting(own_server)
        policies.write_text(POLICIES.replace('@approval("required") @approvers("finance,risk")', "").replace(
            '@quorum("2") @timeout("PT1H")', ""
        ))
        with pytest.raises(WorkflowFailureError) as error:
            await asyncio.wait_for(refused.result(), 10)
        assert why(error.value) == ("PolicyDenied", "refused by policy large-refunds")

        policies.write_text(POLICIES)
        await asyncio.sleep(2.5)
        taken_away = await run(client, "refund", {"amount": 4000}, "taken-away")
        await waiting(own_server)
        await vote(own_server, "approve", "taken-away", "bob", "finance")
        own_server.kill()
        own_server.flags = own_server.flags[:-2]
        own_server.start()
        await own_server.ready()
        assert await asyncio.wait_for(taken_away.result(), 20) == "refunded 4000"
    assert done == ["refund 1200", "refund 4000"]
    own_server.check_evidence()


def test_policies_are_checked_and_explained_without_a_server(tmp_path: Path) -> None:
    path = tmp_path / "tools.cedar"
    path.write_text(POLICIES)

    def policy(*arguments: str, code: int = 0) -> str:
        command = [binary(), "policy", arguments[0], str(path), *arguments[1:]]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    assert policy("check") == "valid: large-refunds, no-deletions, tools\n"
    explained = json.loads(policy("explain", "--tool", "refund", "--argument", '{"amount": 5000}', "--json"))
    assert (explained["answer"], explained["policies"]) == ("approval", ["large-refunds"])
    assert explained["groups"] == ["finance", "risk"] and explained["timeoutSeconds"] == 3600
    assert policy("explain", "--tool", "search") == "allowed\nby policy tools\n"
    path.write_text('\n@aproval("required") forbid(principal, action, resource);')
    assert "tools.cedar:2" in policy("check", code=1)
