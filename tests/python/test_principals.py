"""Disabling principals: what they started rests or ends, whatever is in between."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import eventually
from server import Server, binary
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast disables principals", allow_module_level=True)

calls: list[str] = []
gate = asyncio.Event()


@activity.defn
async def step(who: str) -> None:
    calls.append(who)


@activity.defn
async def hold(who: str) -> None:
    """Stays with its worker until the test lets go."""
    calls.append(f"hold {who}")
    while not gate.is_set():
        activity.heartbeat()
        await asyncio.sleep(0.05)


@workflow.defn(sandboxed=False)
class Looping:
    @workflow.run
    async def run(self, who: str, count: int) -> str:
        for _ in range(count):
            await workflow.execute_activity(step, who, start_to_close_timeout=timedelta(seconds=20))
            await workflow.sleep(0.05)
        return who


@workflow.defn(sandboxed=False)
class Parent:
    @workflow.run
    async def run(self, who: str) -> str:
        return await workflow.execute_child_workflow(Looping.run, args=[who, 60], id=f"child-of-{who}")


@workflow.defn(sandboxed=False)
class Holding:
    @workflow.run
    async def run(self, who: str) -> None:
        await workflow.execute_activity(
            hold, who, start_to_close_timeout=timedelta(seconds=60), heartbeat_timeout=timedelta(seconds=20)
        )


@asynccontextmanager
async def worker(client: Client) -> AsyncIterator[None]:
    calls.clear()
    gate.clear()
    kinds = [Looping, Parent, Holding]
    async with Worker(client, task_queue="q", workflows=kinds, activities=[step, hold]):
        yield


def principals(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [binary(), "principals", arguments[0], "--address", server.http, *arguments[1:]]
    if arguments[0] != "list":
        command += ["--identity", "root"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def done(server: Server, *arguments: str) -> str:
    ran = principals(server, *arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


async def started(server: Server) -> Client:
    server.start()
    await server.ready()
    return await server.client(identity="worker@desk")



async def running(client: Client, workflow_id: str, calls_of: str, count: int) -> None:
    async def far_enough() -> bool:
        return calls.count(calls_of) >= count

    await eventually(far_enough, f"{count} steps of {workflow_id}")


async def rests(who: str, seconds: float = 1.0) -> None:
    await asyncio.sleep(0.4)
    before = calls.count(who)
    await asyncio.sleep(seconds)
    assert calls.count(who) == before, f"{who} goes on"


async def test_what_a_caller_started_rests_until_it_is_enabled(own_server: Server) -> None:
    client = await started(own_server)
    mallory, alice = [await own_server.client(identity=name) for name in ("mallory", "alice")]
    async with worker(client):
        bad = await mallory.start_workflow(Looping.run, args=["mallory", 40], id="bad", task_queue="q")
        child = await mallory.start_workflow(Parent.run, "kid", id="parent", task_queue="q")
        good = await alice.start_workflow(Looping.run, args=["alice", 60], id="good", task_queue="q")
        for who in ("mallory", "kid", "alice"):
            await running(client, who, who, 3)
        preview = done(own_server, "disable", "mallory", "--dry-run")
        assert "sessions would be paused: 3" in preview and "default/bad" in preview
        assert "nobody is disabled" in done(own_server, "list")
        told = json.loads(done(own_server, "disable", "mallory", "--reason", "left", "--json"))
        assert {found["workflowId"] for found in told["named"]} == {"bad", "parent", "child-of-kid"}
        await asyncio.gather(rests("mallory"), rests("kid"))
        with pytest.raises(RPCError) as refused:
            await mallory.start_workflow(Looping.run, args=["m", 1], id="another", task_queue="q")
        assert refused.value.status == RPCStatusCode.PERMISSION_DENIED
        assert "mallory is disabled" in refused.value.message
        own_server.kill()
        own_server.start()
        await own_server.ready()
        await asyncio.gather(rests("mallory"), rests("kid"))
        assert "by root" in done(own_server, "list")
        assert await good.result() == "alice", "others go on"
        assert "resumed: 3" in done(own_server, "enable", "mallory", "--resume")
        assert await bad.result() == "mallory"
        assert await child.result() == "kid"
        assert (calls.count("mallory"), calls.count("kid")) == (40, 60), "nothing was done twice"
        await mallory.start_workflow(Looping.run, args=["m", 1], id="another", task_queue="q")
    own_server.check_evidence()


async def test_all_sessions_of_an_agent_are_revoked_with_their_children(own_server: Server) -> None:
    client = await started(own_server)
    async with worker(client):
        parent = await client.start_workflow(Parent.run, "kid", id="parent", task_queue="q")
        other = await client.start_workflow(Looping.run, args=["other", 20], id="other", task_queue="q")
        await running(client, "kid", "kid", 2)
        done(own_server, "disable", "default/Parent", "--agent", "--sessions", "revoke")
        with pytest.raises(WorkflowFailureError):
            await parent.result()
        await rests("kid")
        status = (await client.get_workflow_handle("child-of-kid").describe()).status
        assert status == WorkflowExecutionStatus.TERMINATED
        with pytest.raises(RPCError) as refused:
            await client.start_workflow(Parent.run, "kid", id="parent-2", task_queue="q")
        assert refused.value.status == RPCStatusCode.PERMISSION_DENIED
        assert await other.result() == "other"
    own_server.check_evidence()


async def test_a_worker_that_is_disabled_gets_no_task_and_others_do(own_server: Server) -> None:
    client = await started(own_server)
    async with worker(client):
        # Its polls wait by now.
        await asyncio.sleep(0.5)
        done(own_server, "disable", "worker@desk")
        starter = await own_server.client(identity="alice")
        handle = await starter.start_workflow(Looping.run, args=["alice", 3], id="w", task_queue="q")
        await rests("alice")
        assert calls == []
        kinds = {"workflows": [Looping], "activities": [step]}
        async with Worker(await own_server.client(identity="other@desk"), task_queue="q", **kinds):
            assert await handle.result() == "alice"
    own_server.check_evidence()


async def test_it_is_finished_after_a_crash_in_the_middle(own_server: Server) -> None:
    """The record is there, and nothing else: as if the process had died right after it."""
    client = await started(own_server)
    mallory = await own_server.client(identity="mallory")
    async with worker(client):
        for number in range(30):
            await mallory.start_workflow(Looping.run, args=["m", 1000], id=f"m-{number}", task_queue="q")
        await running(client, "m", "m", 40)
        disabling = asyncio.create_task(asyncio.to_thread(principals, own_server, "disable", "mallory"))
        await asyncio.sleep(0.03)
        own_server.kill()
        await disabling
        own_server.start()
        await own_server.ready()
        if "nobody is disabled" in done(own_server, "list"):
            done(own_server, "disable", "mallory")

        async def is_finished() -> bool:
            return "being stopped" not in done(own_server, "list")

        await eventually(is_finished, "the cascade", timeout=30)
        await rests("m")
        for number in range(30):
            description = await client.get_workflow_handle(f"m-{number}").describe()
            assert description.raw_description.workflow_extended_info.pause_info.reason == "mallory is disabled"
    own_server.check_evidence()


async def test_what_cannot_be_done_is_refused_with_a_sentence(own_server: Server) -> None:
    await started(own_server)
    itself = principals(own_server, "disable", "root")
    assert itself.returncode != 0 and "nobody disables themselves" in itself.stderr
    nobody = principals(own_server, "enable", "nobody")
    assert nobody.returncode != 0 and "is not disabled" in nobody.stderr
    agent = principals(own_server, "disable", "Parent", "--agent")
    assert agent.returncode != 0 and "<namespace>/<workflow type>" in agent.stderr
    request = urllib.request.Request(
        own_server.http + "/api/v1/principals/disable", b'{"nam": "x"}', {"content-type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as odd:
        urllib.request.urlopen(request, timeout=10)
    assert 400 <= odd.value.code < 500
