"""Pausing, resuming and revoking sessions, with an agent on an unmodified SDK."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from harness import eventually
from server import Server, binary
from temporalio import activity, workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    PauseWorkflowExecutionRequest,
    UnpauseWorkflowExecutionRequest,
)
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import TerminatedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer, Worker

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast pauses here", allow_module_level=True)

calls: list[str] = []
gate = asyncio.Event()


@activity.defn
async def step(number: int) -> int:
    calls.append(f"step {number}")
    return number


@activity.defn
async def held(number: int) -> int:
    """Stays with its worker until the test lets go, and heartbeats."""
    calls.append(f"held {number}")
    while not gate.is_set():
        activity.heartbeat()
        await asyncio.sleep(0.05)
    return number


@activity.defn
async def flaky() -> str:
    calls.append("flaky")
    if activity.info().attempt < 3:
        raise RuntimeError("not yet")
    return "at last"


@workflow.defn(sandboxed=False)
class Steps:
    def __init__(self) -> None:
        self.signals = 0

    @workflow.run
    async def run(self, count: int) -> int:
        total = 0
        for number in range(count):
            total += await workflow.execute_activity(step, number, start_to_close_timeout=timedelta(seconds=20))
            await workflow.sleep(0.05)
        return total

    @workflow.signal
    def note(self) -> None:
        self.signals += 1

    @workflow.query
    def seen(self) -> int:
        return self.signals


@workflow.defn(sandboxed=False)
class Held:
    @workflow.run
    async def run(self) -> int:
        return await workflow.execute_activity(
            held,
            7,
            start_to_close_timeout=timedelta(seconds=60),
            heartbeat_timeout=timedelta(seconds=10),
        )


@workflow.defn(sandboxed=False)
class Flaky:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(
            flaky,
            start_to_close_timeout=timedelta(seconds=5),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200), backoff_coefficient=1),
        )


@asynccontextmanager
async def worker(client: Client) -> AsyncIterator[None]:
    calls.clear()
    gate.clear()
    async with Worker(client, task_queue="q", workflows=[Steps, Held, Flaky], activities=[step, held, flaky]):
        yield


def session(server: Server, verb: str, workflow_id: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [binary(), "session", verb, "--address", server.http, "--workflow-id", workflow_id]
    command += ["--identity", "ada", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def done(server: Server, verb: str, workflow_id: str, *flags: str) -> None:
    ran = session(server, verb, workflow_id, *flags)
    assert ran.returncode == 0, ran.stderr


async def started(server: Server) -> Client:
    server.start()
    await server.ready()
    return await server.client()


async def pause_info(client: Client, workflow_id: str):
    request = DescribeWorkflowExecutionRequest(
        namespace=client.namespace, execution=WorkflowExecution(workflow_id=workflow_id)
    )
    answer = await client.workflow_service.describe_workflow_execution(request)
    return answer.workflow_extended_info.pause_info


async def quiet(seconds: float = 1.0) -> int:
    """Nothing is called in this time."""
    await asyncio.sleep(0.3)
    before = len(calls)
    await asyncio.sleep(seconds)
    assert len(calls) == before, calls
    return before


async def test_a_paused_agent_rests_through_a_crash_and_goes_on_where_it_was(own_server: Server) -> None:
    client = await started(own_server)
    async with worker(client):
        handle = await client.start_workflow(Steps.run, 30, id="steps", task_queue="q")

        async def some() -> bool:
            return len(calls) >= 5

        await eventually(some, "five steps")
        done(own_server, "pause", "steps", "--reason", "let me look")
        before = await quiet()
        assert before < 30
        info = await pause_info(client, "steps")
        assert (info.identity, info.reason) == ("ada", "let me look")
        own_server.kill()
        own_server.start()
        await own_server.ready()
        assert await quiet() == before
        again = session(own_server, "pause", "steps")
        assert again.returncode != 0 and "already paused" in again.stderr
        done(own_server, "resume", "steps")
        assert await handle.result() == sum(range(30))
        assert sorted(calls) == sorted(f"step {number}" for number in range(30)), "each of them once"
        history = await handle.fetch_history()
    own_server.check_evidence()
    await Replayer(workflows=[Steps]).replay_workflow(history)
    kinds = [event.event_type for event in history.events]
    assert kinds.count(58) == 1 and kinds.count(59) == 1, "paused and resumed are in the history"


async def test_signals_and_queries_reach_a_paused_agent_and_updates_do_not(own_server: Server) -> None:
    client = await started(own_server)
    async with worker(client):
        handle = await client.start_workflow(Steps.run, 40, id="steps", task_queue="q")

        async def some() -> bool:
            return len(calls) >= 2

        await eventually(some, "two steps")
        done(own_server, "pause", "steps")
        await quiet(0.5)
        await handle.signal(Steps.note)
        assert await handle.query(Steps.seen) == 0, "the signal waits as well"
        with pytest.raises(RPCError) as refused:
            await handle.execute_update("anything")
        assert refused.value.status == RPCStatusCode.FAILED_PRECONDITION
        done(own_server, "resume", "steps")

        async def has_signal() -> bool:
            return await handle.query(Steps.seen) == 1

        await eventually(has_signal, "the signal")
        assert await handle.result() == sum(range(40))
    own_server.check_evidence()


async def test_an_attempt_that_is_out_is_told_and_what_it_answers_counts(own_server: Server) -> None:
    client = await started(own_server)
    async with worker(client):
        handle = await client.start_workflow(Held.run, id="held", task_queue="q")

        async def is_out() -> bool:
            return calls == ["held 7"]

        await eventually(is_out, "the attempt")
        request = PauseWorkflowExecutionRequest(
            namespace="default", workflow_id="held", identity="ada", reason="why not", request_id="once"
        )
        await client.workflow_service.pause_workflow_execution(request)
        await client.workflow_service.pause_workflow_execution(request)
        with pytest.raises(RPCError) as refused:
            request.request_id = "twice"
            await client.workflow_service.pause_workflow_execution(request)
        assert refused.value.status == RPCStatusCode.FAILED_PRECONDITION
        gate.set()
        await asyncio.sleep(0.5)
        assert (await handle.describe()).status.name == "RUNNING"
        resume = UnpauseWorkflowExecutionRequest(namespace="default", workflow_id="held")
        await client.workflow_service.unpause_workflow_execution(resume)
        assert await handle.result() == 7
        with pytest.raises(RPCError) as closed:
            await client.workflow_service.unpause_workflow_execution(resume)
        assert closed.value.status == RPCStatusCode.NOT_FOUND
    assert set(calls) == {"held 7"}
    own_server.check_evidence()


async def test_a_tool_call_that_is_retried_waits_for_the_end_of_the_pause(own_server: Server) -> None:
    client = await started(own_server)
    async with worker(client):
        handle = await client.start_workflow(Flaky.run, id="flaky", task_queue="q")

        async def once() -> bool:
            return len(calls) >= 1

        await eventually(once, "an attempt")
        done(own_server, "pause", "flaky")
        await quiet()
        done(own_server, "resume", "flaky")
        assert await handle.result() == "at last"
    assert calls == ["flaky"] * 3
    own_server.check_evidence()


async def test_a_revoked_session_is_over(own_server: Server) -> None:
    client = await started(own_server)
    async with worker(client):
        handle = await client.start_workflow(Held.run, id="held", task_queue="q")

        async def is_out() -> bool:
            return calls == ["held 7"]

        await eventually(is_out, "the attempt")
        done(own_server, "pause", "held")
        done(own_server, "revoke", "held", "--reason", "it paid the wrong one")
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
        assert isinstance(failed.value.cause, TerminatedError)
        assert "revoked by ada: it paid the wrong one" in str(failed.value.cause)
        assert session(own_server, "resume", "held").returncode != 0
        gate.set()
    own_server.check_evidence()


async def test_who_is_not_there_cannot_be_paused(own_server: Server) -> None:
    await started(own_server)
    missing = session(own_server, "pause", "nobody")
    assert missing.returncode != 0 and "not found" in missing.stderr
