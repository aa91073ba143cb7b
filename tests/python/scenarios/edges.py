"""What commands and events do to each other, defaults that the server fills in, commands that it refuses."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from harness import Scene, eventually, scenario
from raw import command, complete, payloads, refusal, seconds
from temporalio import workflow
from temporalio.client import WorkflowFailureError
from temporalio.common import RetryPolicy, WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError

from .activities import double
from .basics import Greet, Inbox, Nap
from .runs import next_run


# Updates


@workflow.defn
class Vote:
    """Ends in the very task in which the deciding update is handled."""

    def __init__(self) -> None:
        self.votes: list[str] = []

    @workflow.run
    async def run(self, needed: int) -> list[str]:
        await workflow.wait_condition(lambda: len(self.votes) >= needed)
        return self.votes

    @workflow.update
    def vote(self, name: str) -> int:
        self.votes.append(name)
        return len(self.votes)

    @workflow.query
    def count(self) -> int:
        return len(self.votes)


async def admitted(scene: Scene, update_id: str) -> None:
    """Waits until the server knows of the update."""
    raw = scene.raw()

    async def look() -> bool:
        answer = raw.call(
            "poll_workflow_execution_update",
            update_ref={"workflow_execution": {"workflow_id": scene.id}, "update_id": update_id},
            wait_policy={"lifecycle_stage": "UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_ADMITTED"},
            timeout=5,
        )
        refused = await refusal(answer)
        return refused is None

    await eventually(look, f"update {update_id} admitted")


@scenario
async def updates_share_a_task(scene: Scene) -> None:
    handle = await scene.start(Vote.run, 3)
    updates = []
    for n, name in enumerate(("Ada", "Bob", "Eve"), start=1):
        updates.append(asyncio.create_task(handle.execute_update(Vote.vote, name, id=f"u{n}")))
        await admitted(scene, f"u{n}")
    async with scene.worker([Vote]):
        assert await asyncio.gather(*updates) == [1, 2, 3]
        assert await handle.result() == ["Ada", "Bob", "Eve"]
    await scene.record()


@scenario
async def update_ends_the_workflow(scene: Scene) -> None:
    async with scene.worker([Vote]):
        handle = await scene.start(Vote.run, 1)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        assert await handle.execute_update(Vote.vote, "Ada", id="u1") == 1
        assert await handle.result() == ["Ada"]
    await scene.record()


@scenario
async def update_without_cache(scene: Scene) -> None:
    """The worker replays everything for each update."""
    async with scene.worker([Vote], max_cached_workflows=0):
        handle = await scene.start(Vote.run, 2)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        assert await handle.execute_update(Vote.vote, "Ada", id="u1") == 1
        assert await handle.execute_update(Vote.vote, "Bob", id="u2") == 2
        assert await handle.result() == ["Ada", "Bob"]
    await scene.record()


@scenario
async def query_leaves_nothing(scene: Scene) -> None:
    async with scene.worker([Vote]):
        handle = await scene.start(Vote.run, 1)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        assert await handle.query(Vote.count) == 0
        await handle.execute_update(Vote.vote, "Ada", id="u1")
        await handle.result()
        assert await handle.query(Vote.count) == 1
    await scene.record()



# Commands that undo what came before


TIMER = command("START_TIMER", timer_id="t", start_to_fire_timeout=seconds(1000))


@scenario
async def activity_canceled_in_its_own_task(scene: Scene) -> None:
    raw = scene.raw()
    await raw.start()
    cancel = command("REQUEST_CANCEL_ACTIVITY_TASK", scheduled_event_id=5)
    await raw.answer(await raw.poll_workflow_task(), raw.activity(), cancel)
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def timer_canceled_in_its_own_task(scene: Scene) -> None:
    raw = scene.raw()
    await raw.start()
    await raw.answer(
        await raw.poll_workflow_task(),
        TIMER,
        command("CANCEL_TIMER", timer_id="t"),
        TIMER,
    )
    await raw.signal("wake")
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def timer_of_no_time(scene: Scene) -> None:
    """Fires at once."""
    raw = scene.raw()
    await raw.start()
    await raw.answer(await raw.poll_workflow_task(), command("START_TIMER", timer_id="t"))
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def cancel_twice(scene: Scene) -> None:
    """The second request changes nothing."""
    raw = scene.raw()
    await raw.start()
    for request in ("one", "two"):
        refused = await refusal(
            raw.call(
                "request_cancel_workflow_execution",
                workflow_execution=raw.execution(),
                request_id=request,
                reason=request,
            )
        )
        assert refused is None, refused
    await raw.answer(
        await raw.poll_workflow_task(), command("CANCEL_WORKFLOW_EXECUTION", details=payloads("bye"))
    )
    await scene.record()


# Defaults


@scenario
async def activity_defaults(scene: Scene) -> None:
    """Timeouts are filled in from each other and cut to the run's, retry policies are completed."""
    raw = scene.raw()
    await raw.start(workflow_run_timeout=seconds(600))
    asked: dict[str, dict[str, Any]] = {
        "schedule-to-close": {"start_to_close_timeout": None, "schedule_to_close_timeout": seconds(30)},
        "start-to-close": {"start_to_close_timeout": seconds(30)},
        "longer-than-the-run": {"start_to_close_timeout": seconds(6000), "heartbeat_timeout": seconds(7000)},
        "start-beyond-schedule": {
            "start_to_close_timeout": seconds(90),
            "schedule_to_close_timeout": seconds(60),
            "schedule_to_start_timeout": seconds(80),
        },
        "heartbeat-beyond-start": {"heartbeat_timeout": seconds(100)},
        "empty-policy": {"retry_policy": {}},
        "attempts-only": {"retry_policy": {"maximum_attempts": 2}},
        "interval-only": {"retry_policy": {"initial_interval": seconds(3)}},
    }
    nobody = {"name": f"{scene.queue}-nobody"}
    await raw.answer(
        await raw.poll_workflow_task(),
        *(raw.activity(activity_id=name, task_queue=nobody, **fields) for name, fields in asked.items()),
    )
    await raw.call("terminate_workflow_execution", workflow_execution=raw.execution(), identity="raw")
    await scene.record()


@scenario
async def start_defaults(scene: Scene) -> None:
    """Timeouts are cut to the next larger one, a retry policy is completed."""
    asked: dict[str, dict[str, Any]] = {
        "run-beyond-execution": {
            "workflow_execution_timeout": seconds(100),
            "workflow_run_timeout": seconds(200),
        },
        "task-beyond-limit": {"workflow_task_timeout": seconds(1000)},
        "task-beyond-run": {"workflow_run_timeout": seconds(50), "workflow_task_timeout": seconds(60)},
        "empty-policy": {"retry_policy": {}},
        "interval-only": {"retry_policy": {"initial_interval": seconds(3)}},
    }
    raw = scene.raw()
    for name, fields in asked.items():
        raw.id = f"{scene.id}-{name}"
        await raw.start(request_id=f"start-{name}", **fields)
        await raw.call("terminate_workflow_execution", workflow_execution=raw.execution(), identity="raw")
        await scene.record(name, raw.id)


@scenario
async def child_defaults(scene: Scene) -> None:
    """A child that is asked for with nothing but its type."""
    raw = scene.raw()
    child = f"{scene.id}-child"
    await raw.start(workflow_run_timeout=seconds(600), memo={"fields": {"note": payloads(1).payloads[0]}})
    start = command(
        "START_CHILD_WORKFLOW_EXECUTION",
        workflow_id=child,
        workflow_type={"name": "Raw"},
        task_queue={"name": f"{scene.queue}-nobody"},
    )
    await raw.answer(await raw.poll_workflow_task(), start)
    await scene.reached("CHILD_WORKFLOW_EXECUTION_STARTED")
    await scene.reached("WORKFLOW_TASK_SCHEDULED", workflow_id=child)
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.reached("WORKFLOW_EXECUTION_TERMINATED", workflow_id=child)
    await scene.record("parent")
    await scene.record("child", child)


@scenario
async def continue_as_new_defaults(scene: Scene) -> None:
    """Type, queue and timeouts are taken over from the run that ends; input, memo, header and retries are not."""
    raw = scene.raw()
    first = (
        await raw.start(
            input=payloads("first"),
            memo={"fields": {"note": payloads(1).payloads[0]}},
            header={"fields": {"trace": payloads("t").payloads[0]}},
            retry_policy={"maximum_attempts": 3},
            workflow_execution_timeout=seconds(600),
            workflow_run_timeout=seconds(300),
            workflow_task_timeout=seconds(20),
        )
    ).run_id
    again = command("CONTINUE_AS_NEW_WORKFLOW_EXECUTION", backoff_start_interval=seconds(1))
    await raw.answer(await raw.poll_workflow_task(), again)
    second = await next_run(scene, first)
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record("first", run_id=first)
    await scene.record("second", run_id=second)


# Commands that the server refuses: the task fails, and the history says why


async def refused_command(scene: Scene, *commands: Any) -> None:
    # Servers word the refusal as they like; the cause is what counts.
    scene.normalizer.mask("message")
    raw = scene.raw()
    await raw.start()
    refused = await refusal(raw.answer(await raw.poll_workflow_task(), *commands))
    assert refused and refused.code == "INVALID_ARGUMENT", refused
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def refused_activity_without_timeout(scene: Scene) -> None:
    await refused_command(scene, scene.raw().activity(start_to_close_timeout=None))


@scenario
async def refused_activity_twice(scene: Scene) -> None:
    await refused_command(scene, scene.raw().activity(), scene.raw().activity())


@scenario
async def refused_timer_twice(scene: Scene) -> None:
    await refused_command(scene, TIMER, TIMER)


@scenario
async def refused_cancel_of_unknown_timer(scene: Scene) -> None:
    await refused_command(scene, command("CANCEL_TIMER", timer_id="t"))


@scenario
async def refused_cancel_of_unknown_activity(scene: Scene) -> None:
    await refused_command(scene, command("REQUEST_CANCEL_ACTIVITY_TASK", scheduled_event_id=77))


@scenario
async def refused_marker_without_name(scene: Scene) -> None:
    await refused_command(scene, command("RECORD_MARKER", details={"data": payloads(1)}))


@scenario
async def refused_search_attribute(scene: Scene) -> None:
    unknown = {"indexed_fields": {"NobodyRegisteredThis": payloads("x").payloads[0]}}
    await refused_command(scene, command("UPSERT_WORKFLOW_SEARCH_ATTRIBUTES", search_attributes=unknown))


# Runs


@workflow.defn
class Picky:
    @workflow.run
    async def run(self) -> None:
        cause = ApplicationError("root", 1, type="Root")
        raise ApplicationError("outer", {"code": 2}, type="Outer") from cause


@scenario
async def workflow_failure_not_retryable_by_policy(scene: Scene) -> None:
    policy = RetryPolicy(initial_interval=timedelta(seconds=1), non_retryable_error_types=["Outer"])
    async with scene.worker([Picky]):
        handle = await scene.start(Picky.run, retry_policy=policy)
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    await scene.record()


@scenario
async def execution_timeout_ends_retries(scene: Scene) -> None:
    """The next run would come too late, so it is not waited for."""
    policy = RetryPolicy(initial_interval=timedelta(seconds=100))
    async with scene.worker([Picky]):
        handle = await scene.start(Picky.run, retry_policy=policy, execution_timeout=timedelta(seconds=30))
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    await scene.record()


@scenario
async def signal_with_start_of_a_running_workflow(scene: Scene) -> None:
    async with scene.worker([Inbox]):
        handle = await scene.start(Inbox.run)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        again = await scene.start(Inbox.run, start_signal="put", start_signal_args=["hello"])
        await scene.reached("WORKFLOW_TASK_COMPLETED", 2)
        await again.signal(Inbox.finish)
        assert await handle.result() == ["hello"]
    await scene.record()


@scenario
async def signal_with_start_terminates(scene: Scene) -> None:
    first = await scene.start(Nap.run, 1000)
    second = await scene.start(
        Nap.run,
        1000,
        start_signal="put",
        start_signal_args=["hello"],
        id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
    )
    run_id = (await second.describe()).run_id
    assert run_id != first.first_execution_run_id
    await second.terminate("over")
    await scene.record("first", run_id=first.first_execution_run_id)
    await scene.record("second", run_id=run_id)


@scenario
async def cron_terminated_before_its_first_run(scene: Scene) -> None:
    scene.normalizer.mask("firstWorkflowTaskBackoff")
    handle = await scene.start(Greet.run, "Ada", cron_schedule="@every 1h")
    await handle.terminate("never mind")
    await scene.record()


# Children


@workflow.defn
class Stumbles:
    """Takes two runs, by failing or by continuing as new."""

    @workflow.run
    async def run(self, how: str) -> str:
        # Runs that follow each other in less than a second are slowed down, by an amount that varies.
        await asyncio.sleep(1.1)
        if how == "retry" and workflow.info().attempt == 1:
            raise ApplicationError("first time", type="Flaky")
        if how == "continue":
            workflow.continue_as_new("continued")
        return how


@workflow.defn
class Keeper:
    @workflow.run
    async def run(self, child: str, how: str) -> str:
        again = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=2)
        return await workflow.execute_child_workflow(
            Stumbles.run,
            how,
            id=child,
            retry_policy=again if how == "retry" else None,
            static_summary="stumbling",
            static_details="along",
            memo={"how": how},
        )


async def kept(scene: Scene, how: str, outcome: str) -> str:
    async with scene.worker([Keeper, Stumbles]):
        handle = await scene.start(Keeper.run, f"{scene.id}-child", how)
        started = await scene.reached("CHILD_WORKFLOW_EXECUTION_STARTED")
        assert await handle.result() == outcome
    await scene.record("parent")
    first = started.child_workflow_execution_started_event_attributes.workflow_execution.run_id
    await scene.record("child", f"{scene.id}-child", run_id=first)
    return first


async def child_of_two_runs(scene: Scene, how: str, outcome: str) -> None:
    """The parent sees the last run's end as its child's."""
    first = await kept(scene, how, outcome)
    await scene.record("child-again", f"{scene.id}-child", run_id=await next_run_of(scene, first))


async def next_run_of(scene: Scene, run_id: str) -> str:
    last = (await scene.events(f"{scene.id}-child", run_id))[-1]
    return getattr(last, last.WhichOneof("attributes")).new_execution_run_id


@scenario
async def child_retried(scene: Scene) -> None:
    await child_of_two_runs(scene, "retry", "retry")


@scenario
async def child_continues_as_new(scene: Scene) -> None:
    await child_of_two_runs(scene, "continue", "continued")


@workflow.defn
class Nested:
    @workflow.run
    async def run(self, depth: int) -> int:
        if depth:
            return await workflow.execute_child_workflow(
                Nested.run, depth - 1, id=f"{workflow.info().workflow_id}-{depth}"
            )
        return await workflow.execute_activity(
            double, 21, start_to_close_timeout=timedelta(seconds=10), summary="doubling"
        )


@scenario
async def grandchild(scene: Scene) -> None:
    """Knows both its parent and the root."""
    async with scene.worker([Nested], [double]):
        handle = await scene.start(Nested.run, 2)
        assert await handle.result() == 42
    await scene.record("grandchild", f"{scene.id}-2-1")
