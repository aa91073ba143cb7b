"""Activities: outcomes, retries, the four time-outs, cancellation, asynchronous completion."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from harness import Scene, scenario
from temporalio import activity, workflow
from temporalio.client import WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

QUICK = RetryPolicy(initial_interval=timedelta(milliseconds=50), backoff_coefficient=1.0, maximum_attempts=3)
ONCE = RetryPolicy(maximum_attempts=1)


@activity.defn
async def double(number: int) -> int:
    return number * 2


@activity.defn
async def third_time_lucky() -> int:
    if activity.info().attempt < 3:
        raise ApplicationError(f"attempt {activity.info().attempt}", type="Flaky")
    return activity.info().attempt


@activity.defn
async def refuse(non_retryable: bool) -> None:
    raise ApplicationError("no", activity.info().attempt, type="Refused", non_retryable=non_retryable)


@workflow.defn
class Doubles:
    @workflow.run
    async def run(self) -> int:
        once = await workflow.execute_activity(
            double, 3, activity_id="once", start_to_close_timeout=timedelta(seconds=10)
        )
        return await workflow.execute_activity(double, once, start_to_close_timeout=timedelta(seconds=10))


@workflow.defn
class Lucky:
    @workflow.run
    async def run(self) -> int:
        return await workflow.execute_activity(
            third_time_lucky, start_to_close_timeout=timedelta(seconds=10), retry_policy=QUICK
        )


@workflow.defn
class Refused:
    @workflow.run
    async def run(self, non_retryable: bool, policy: RetryPolicy) -> None:
        await workflow.execute_activity(
            refuse, non_retryable, start_to_close_timeout=timedelta(seconds=10), retry_policy=policy
        )


@scenario
async def activity_ok(scene: Scene) -> None:
    async with scene.worker([Doubles], [double]):
        handle = await scene.start(Doubles.run)
        assert await handle.result() == 12
    await scene.record()


@scenario
async def activity_retried(scene: Scene) -> None:
    async with scene.worker([Lucky], [third_time_lucky]):
        handle = await scene.start(Lucky.run)
        assert await handle.result() == 3
    await scene.record()


async def refused(scene: Scene, non_retryable: bool, policy: RetryPolicy) -> None:
    async with scene.worker([Refused], [refuse]):
        handle = await scene.start(Refused.run, non_retryable, policy)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert isinstance(caught.value.cause, ActivityError)
    await scene.record()


@scenario
async def activity_not_retryable(scene: Scene) -> None:
    await refused(scene, True, QUICK)


@scenario
async def activity_not_retryable_by_policy(scene: Scene) -> None:
    policy = RetryPolicy(initial_interval=timedelta(milliseconds=50), non_retryable_error_types=["Refused"])
    await refused(scene, False, policy)


@scenario
async def activity_retries_exhausted(scene: Scene) -> None:
    await refused(scene, False, QUICK)
