"""Activities: outcomes, retries, the four time-outs, cancellation, asynchronous completion."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from harness import Scene, eventually, scenario
from temporalio import activity, workflow
from temporalio.client import WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

QUICK = RetryPolicy(initial_interval=timedelta(milliseconds=50), backoff_coefficient=1.0, maximum_attempts=3)


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
    async def run(self, non_retryable: bool, attempts: int, fatal: list[str]) -> None:
        policy = RetryPolicy(
            initial_interval=timedelta(milliseconds=50),
            backoff_coefficient=1.0,
            maximum_attempts=attempts,
            non_retryable_error_types=fatal,
        )
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


async def refused(scene: Scene, non_retryable: bool, attempts: int, fatal: list[str]) -> None:
    async with scene.worker([Refused], [refuse]):
        handle = await scene.start(Refused.run, non_retryable, attempts, fatal)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert isinstance(caught.value.cause, ActivityError)
    await scene.record()


@scenario
async def activity_not_retryable(scene: Scene) -> None:
    await refused(scene, True, 3, [])


@scenario
async def activity_not_retryable_by_policy(scene: Scene) -> None:
    await refused(scene, False, 0, ["Refused"])


@scenario
async def activity_retries_exhausted(scene: Scene) -> None:
    await refused(scene, False, 3, [])


@activity.defn
async def hang() -> None:
    await asyncio.Event().wait()


@activity.defn
async def resume() -> list:
    """Tells how far it is and hangs; the second attempt answers what the first one told."""
    if activity.info().attempt == 1:
        activity.heartbeat("half", 50)
        await asyncio.Event().wait()
    return list(activity.info().heartbeat_details)


@activity.defn
async def tell_and_hang() -> None:
    activity.heartbeat({"page": 3})
    await asyncio.Event().wait()


@workflow.defn
class Runs:
    """One activity with the options that are given by name, in seconds."""

    @workflow.run
    async def run(self, name: str, attempts: int, timeouts: dict[str, float], queue: str | None = None) -> Any:
        return await workflow.execute_activity(
            name,
            task_queue=queue,
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=50), backoff_coefficient=1.0, maximum_attempts=attempts
            ),
            **{key: timedelta(seconds=value) for key, value in timeouts.items()},
        )


async def times_out(scene: Scene, name: str, attempts: int, timeouts: dict[str, float], *queue: str) -> None:
    async with scene.worker([Runs], [hang, tell_and_hang, refuse_slowly]):
        handle = await scene.start(Runs.run, name, attempts, timeouts, *queue)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert isinstance(caught.value.cause, ActivityError)
    await scene.record()


@activity.defn
async def refuse_slowly() -> None:
    raise ApplicationError("not yet", next_retry_delay=timedelta(seconds=60))


@scenario
async def activity_start_to_close_timeout(scene: Scene) -> None:
    await times_out(scene, "hang", 1, {"start_to_close_timeout": 1})


@scenario
async def activity_start_to_close_timeout_retried(scene: Scene) -> None:
    await times_out(scene, "hang", 2, {"start_to_close_timeout": 1})


@scenario
async def activity_schedule_to_close_timeout(scene: Scene) -> None:
    await times_out(scene, "hang", 0, {"schedule_to_close_timeout": 1})


@scenario
async def activity_schedule_to_close_ends_retries(scene: Scene) -> None:
    """The next attempt would come too late, so it is not waited for."""
    await times_out(scene, "refuse_slowly", 0, {"schedule_to_close_timeout": 5})


@scenario
async def activity_schedule_to_start_timeout(scene: Scene) -> None:
    nobody = f"nobody-{scene.unique}"
    await times_out(scene, "hang", 5, {"schedule_to_start_timeout": 1, "start_to_close_timeout": 5}, nobody)


@scenario
async def activity_schedule_to_close_timeout_unstarted(scene: Scene) -> None:
    await times_out(scene, "hang", 5, {"schedule_to_close_timeout": 1}, f"nobody-{scene.unique}")


@scenario
async def activity_heartbeat_timeout(scene: Scene) -> None:
    await times_out(scene, "tell_and_hang", 1, {"start_to_close_timeout": 60, "heartbeat_timeout": 1})


@scenario
async def activity_heartbeat_details_kept(scene: Scene) -> None:
    async with scene.worker([Runs], [resume]):
        handle = await scene.start(Runs.run, "resume", 3, {"start_to_close_timeout": 60, "heartbeat_timeout": 1})
        assert await handle.result() == ["half", 50]
    await scene.record()


@activity.defn
async def beat_until_canceled() -> None:
    while True:
        activity.heartbeat("beat")
        await asyncio.sleep(0.1)


@workflow.defn
class GivesUp:
    """Cancels its activity when told to, and finishes when told to."""

    def __init__(self) -> None:
        self.finished = False

    @workflow.run
    async def run(self, name: str, policy: int, queue: str | None = None) -> str:
        running = workflow.start_activity(
            name,
            start_to_close_timeout=timedelta(seconds=60),
            heartbeat_timeout=timedelta(seconds=5),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=60)),
            cancellation_type=workflow.ActivityCancellationType(policy),
            task_queue=queue,
        )
        self.cancel_activity = running.cancel
        try:
            await running
            outcome = "completed"
        except ActivityError as error:
            outcome = type(error.cause).__name__
        await workflow.wait_condition(lambda: self.finished)
        return outcome

    @workflow.signal
    def give_up(self) -> None:
        self.cancel_activity()

    @workflow.signal
    def finish(self) -> None:
        self.finished = True


async def pending_activity(scene: Scene, started: bool, attempt: int = 1) -> None:
    """Waits until the only activity is in this state."""

    async def look() -> bool:
        description = await scene.client.get_workflow_handle(scene.id).describe()
        pending = description.raw_description.pending_activities
        return bool(pending) and (pending[0].state == 2) == started and pending[0].attempt == attempt

    await eventually(look, f"activity started={started} attempt={attempt}")


@scenario
async def activity_try_cancel(scene: Scene) -> None:
    async with scene.worker([GivesUp], [beat_until_canceled], max_heartbeat_throttle_interval=timedelta(seconds=0.2)):
        policy = workflow.ActivityCancellationType.TRY_CANCEL
        handle = await scene.start(GivesUp.run, "beat_until_canceled", policy)
        await pending_activity(scene, started=True)
        await handle.signal(GivesUp.give_up)
        await scene.reached("ACTIVITY_TASK_CANCELED")
        await scene.reached("WORKFLOW_TASK_COMPLETED", 3)
        await handle.signal(GivesUp.finish)
        assert await handle.result() == "CancelledError"
    await scene.record()


@scenario
async def activity_wait_cancel(scene: Scene) -> None:
    async with scene.worker([GivesUp], [beat_until_canceled], max_heartbeat_throttle_interval=timedelta(seconds=0.2)):
        policy = workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
        handle = await scene.start(GivesUp.run, "beat_until_canceled", policy)
        await pending_activity(scene, started=True)
        await handle.signal(GivesUp.give_up)
        await scene.reached("WORKFLOW_TASK_COMPLETED", 3)
        await handle.signal(GivesUp.finish)
        assert await handle.result() == "CancelledError"
    await scene.record()


@scenario
async def activity_abandoned(scene: Scene) -> None:
    async with scene.worker([GivesUp], [hang]):
        handle = await scene.start(GivesUp.run, "hang", workflow.ActivityCancellationType.ABANDON)
        await pending_activity(scene, started=True)
        await handle.signal(GivesUp.give_up)
        await scene.reached("WORKFLOW_TASK_COMPLETED", 2)
        await handle.signal(GivesUp.finish)
        assert await handle.result() == "CancelledError"
    await scene.record()


@scenario
async def activity_canceled_before_start(scene: Scene) -> None:
    async with scene.worker([GivesUp]):
        policy = workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
        handle = await scene.start(GivesUp.run, "hang", policy, f"nobody-{scene.unique}")
        await pending_activity(scene, started=False)
        await handle.signal(GivesUp.give_up)
        await scene.reached("WORKFLOW_TASK_COMPLETED", 3)
        await handle.signal(GivesUp.finish)
        assert await handle.result() == "CancelledError"
    await scene.record()


@scenario
async def activity_canceled_between_attempts(scene: Scene) -> None:
    async with scene.worker([GivesUp], [third_time_lucky]):
        policy = workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
        handle = await scene.start(GivesUp.run, "third_time_lucky", policy)
        await pending_activity(scene, started=False, attempt=2)
        await handle.signal(GivesUp.give_up)
        await scene.reached("WORKFLOW_TASK_COMPLETED", 3)
        await handle.signal(GivesUp.finish)
        assert await handle.result() == "CancelledError"
    await scene.record()


@activity.defn
async def answered_later() -> str:
    activity.raise_complete_async()


async def started_later(scene: Scene):
    handle = await scene.start(Runs.run, "answered_later", 1, {"start_to_close_timeout": 60})
    await pending_activity(scene, started=True)
    return handle


@scenario
async def activity_completed_by_token(scene: Scene) -> None:
    tokens: asyncio.Queue[bytes] = asyncio.Queue()

    @activity.defn(name="answered_later")
    async def hand_out() -> str:
        tokens.put_nowait(activity.info().task_token)
        activity.raise_complete_async()

    async with scene.worker([Runs], [hand_out]):
        handle = await started_later(scene)
        later = scene.client.get_async_activity_handle(task_token=await tokens.get())
        await later.heartbeat("on it")
        await later.complete("by token")
        assert await handle.result() == "by token"
    await scene.record()


@scenario
async def activity_completed_by_id(scene: Scene) -> None:
    async with scene.worker([Runs], [answered_later]):
        handle = await started_later(scene)
        later = scene.client.get_async_activity_handle(workflow_id=scene.id, run_id=None, activity_id="1")
        await later.heartbeat("on it")
        await later.complete("by id")
        assert await handle.result() == "by id"
    await scene.record()


@scenario
async def activity_failed_by_id(scene: Scene) -> None:
    async with scene.worker([Runs], [answered_later]):
        handle = await started_later(scene)
        later = scene.client.get_async_activity_handle(workflow_id=scene.id, run_id=None, activity_id="1")
        await later.fail(ApplicationError("refused by a person", type="Denied"))
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    await scene.record()


@workflow.defn
class Local:
    @workflow.run
    async def run(self, name: str, input: list) -> Any:
        return await workflow.execute_local_activity(
            name,
            args=input,
            start_to_close_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=20), backoff_coefficient=1.0, maximum_attempts=3
            ),
        )


@activity.defn
async def slow() -> str:
    await asyncio.sleep(2.5)
    return "slow"


@scenario
async def local_activity(scene: Scene) -> None:
    async with scene.worker([Local], [double]):
        handle = await scene.start(Local.run, "double", [4])
        assert await handle.result() == 8
    await scene.record()


@scenario
async def local_activity_retried(scene: Scene) -> None:
    async with scene.worker([Local], [third_time_lucky]):
        handle = await scene.start(Local.run, "third_time_lucky", [])
        assert await handle.result() == 3
    await scene.record()


@scenario
async def local_activity_fails(scene: Scene) -> None:
    async with scene.worker([Local], [refuse]):
        handle = await scene.start(Local.run, "refuse", [True])
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    await scene.record()


@scenario
async def local_activity_outlives_its_task(scene: Scene) -> None:
    """The worker keeps the workflow task alive by completing it and asking for a new one at once."""
    async with scene.worker([Local], [slow]):
        handle = await scene.start(Local.run, "slow", [], task_timeout=timedelta(seconds=2))
        assert await handle.result() == "slow"
    await scene.record()


@workflow.defn
class FanOut:
    """Three activities at once, each on a queue of its own."""

    @workflow.run
    async def run(self, queue: str) -> list[int]:
        return await asyncio.gather(
            *(
                workflow.execute_activity(
                    double, n, task_queue=f"{queue}-{n}", start_to_close_timeout=timedelta(seconds=60)
                )
                for n in range(3)
            )
        )


@scenario
async def activities_together(scene: Scene) -> None:
    """Scheduled by one task; each is done, and the task that follows handled, before the next one."""
    async with scene.worker([FanOut], max_cached_workflows=0):
        handle = await scene.start(FanOut.run, scene.queue)
        for done, n in enumerate((1, 0, 2), start=1):
            raw = scene.raw(f"{scene.queue}-{n}")
            await raw.complete_activity(await raw.poll_activity_task(), 2 * n)
            await scene.reached("WORKFLOW_TASK_COMPLETED", done + 1)
        assert await handle.result() == [0, 2, 4]
    await scene.record()
