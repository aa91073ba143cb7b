"""Completion, failure, cancellation, termination, timers and signals."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from harness import Scene, scenario
from temporalio import workflow
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError


@workflow.defn
class Greet:
    @workflow.run
    async def run(self, name: str) -> str:
        return f"hello {name}"


@workflow.defn
class Fail:
    @workflow.run
    async def run(self) -> None:
        raise ApplicationError("cannot", {"code": 7}, type="Refused", non_retryable=True)


@workflow.defn
class Nap:
    @workflow.run
    async def run(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "rested"


@workflow.defn
class ShortNapLongNap:
    """Gives up the long timer as soon as the short one has fired."""

    @workflow.run
    async def run(self) -> str:
        long = asyncio.create_task(asyncio.sleep(1000))
        await asyncio.sleep(0.1)
        long.cancel()
        await asyncio.sleep(0.1)
        return "woke"


@workflow.defn
class Inbox:
    """Collects what it is told until it is told to finish."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.done = False

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: self.done)
        return self.items

    @workflow.signal
    def put(self, item: str) -> None:
        self.items.append(item)

    @workflow.signal
    def finish(self) -> None:
        self.done = True


@workflow.defn
class TidyUp:
    """On cancellation, sleeps once more and then completes instead of being canceled."""

    @workflow.run
    async def run(self) -> str:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
        return "tidy"


@scenario
async def complete(scene: Scene) -> None:
    async with scene.worker([Greet]):
        handle = await scene.start(Greet.run, "Ada", memo={"note": "first"})
        assert await handle.result() == "hello Ada"
    await scene.record()


@scenario
async def fail(scene: Scene) -> None:
    async with scene.worker([Fail]):
        handle = await scene.start(Fail.run)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert caught.value.cause.type == "Refused"
    await scene.record()


@scenario
async def timer_fires(scene: Scene) -> None:
    async with scene.worker([Nap]):
        handle = await scene.start(Nap.run, 0.2)
        assert await handle.result() == "rested"
    await scene.record()


@scenario
async def timer_canceled(scene: Scene) -> None:
    async with scene.worker([ShortNapLongNap]):
        handle = await scene.start(ShortNapLongNap.run)
        assert await handle.result() == "woke"
    await scene.record()


@scenario
async def signals(scene: Scene) -> None:
    async with scene.worker([Inbox]):
        handle = await scene.start(Inbox.run)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        await handle.signal(Inbox.put, "one")
        await scene.reached("WORKFLOW_TASK_COMPLETED", 2)
        await handle.signal(Inbox.finish)
        assert await handle.result() == ["one"]
    await scene.record()


@scenario
async def signals_before_the_first_task(scene: Scene) -> None:
    handle = await scene.start(Inbox.run)
    await handle.signal(Inbox.put, "one")
    await handle.signal(Inbox.put, "two")
    await handle.signal(Inbox.finish)
    async with scene.worker([Inbox]):
        assert await handle.result() == ["one", "two"]
    await scene.record()


@scenario
async def signal_with_start(scene: Scene) -> None:
    handle = await scene.start(Inbox.run, start_signal="put", start_signal_args=["first"])
    again = await scene.start(Inbox.run, start_signal="put", start_signal_args=["second"])
    assert again.first_execution_run_id == handle.first_execution_run_id
    await handle.signal(Inbox.finish)
    async with scene.worker([Inbox]):
        assert await handle.result() == ["first", "second"]
    await scene.record()


@scenario
async def cancel(scene: Scene) -> None:
    async with scene.worker([Nap]):
        handle = await scene.start(Nap.run, 1000)
        await scene.reached("TIMER_STARTED")
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert isinstance(caught.value.cause, CancelledError)
    await scene.record()


@scenario
async def cancel_is_ignored(scene: Scene) -> None:
    async with scene.worker([TidyUp]):
        handle = await scene.start(TidyUp.run)
        await scene.reached("TIMER_STARTED")
        await handle.cancel()
        assert await handle.result() == "tidy"
    await scene.record()


@scenario
async def cancel_before_the_first_task(scene: Scene) -> None:
    handle = await scene.start(Nap.run, 1000)
    await handle.cancel()
    async with scene.worker([Nap]):
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    await scene.record()


@scenario
async def terminate(scene: Scene) -> None:
    async with scene.worker([Nap]):
        handle = await scene.start(Nap.run, 1000)
        await scene.reached("TIMER_STARTED")
        await handle.terminate("why", 1, reason="enough")
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert isinstance(caught.value.cause, TerminatedError)
    await scene.record()


@scenario
async def terminate_before_the_first_task(scene: Scene) -> None:
    handle = await scene.start(Nap.run, 1000)
    await handle.terminate(reason="never mind")
    await scene.record()


@scenario
async def execution_timeout(scene: Scene) -> None:
    async with scene.worker([Nap]):
        handle = await scene.start(Nap.run, 1000, execution_timeout=timedelta(seconds=1))
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    await scene.record()


@scenario
async def run_timeout(scene: Scene) -> None:
    async with scene.worker([Nap]):
        handle = await scene.start(Nap.run, 1000, run_timeout=timedelta(seconds=1))
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    await scene.record()
