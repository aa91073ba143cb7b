"""Workflow tasks: failures and recovery, time-outs, events that arrive while one is running, markers."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

from harness import Scene, eventually, scenario
from raw import command, complete, payloads, refusal, seconds
from temporalio import activity, workflow

from .basics import Inbox


# How often each workflow has broken: outside the workflow, as a bug that gets fixed is.
BROKEN: Counter[str] = Counter()


@workflow.defn
class Breaks:
    """Its code breaks so often before it works."""

    @workflow.run
    async def run(self, times: int) -> str:
        name = workflow.info().workflow_id
        if BROKEN[name] < times:
            BROKEN[name] += 1
            raise RuntimeError(f"bug {BROKEN[name]}")
        return "fixed"


@scenario
async def task_fails_once(scene: Scene) -> None:
    async with scene.worker([Breaks]):
        handle = await scene.start(Breaks.run, 1)
        assert await handle.result() == "fixed"
    await scene.record()


@scenario
async def task_fails_twice(scene: Scene) -> None:
    """Only the first failure is in the history; the second attempt leaves nothing."""
    raw = scene.raw()
    await raw.start()
    for attempt in (1, 2):
        task = await raw.poll_workflow_task()
        assert task.attempt == attempt
        await raw.call(
            "respond_workflow_task_failed",
            task_token=task.task_token,
            cause="WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE",
            failure={"message": f"bug {attempt}", "application_failure_info": {"type": "Bug"}},
        )
    task = await raw.poll_workflow_task()
    assert task.attempt == 3
    await raw.answer(task, complete())
    await scene.record()


@workflow.defn(name="Changes")
class Before:
    @workflow.run
    async def run(self) -> None:
        await asyncio.sleep(1000)


@activity.defn
async def other() -> None:
    pass


@workflow.defn(name="Changes")
class After:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(other, start_to_close_timeout=timedelta(seconds=10))

    @workflow.signal
    def wake(self) -> None:
        pass


@scenario
async def nondeterminism(scene: Scene) -> None:
    """The code has changed while the workflow was waiting: the task fails, the workflow does not."""
    async with scene.worker([Before], max_cached_workflows=0):
        handle = await scene.start("Changes")
        await scene.reached("TIMER_STARTED")
    await handle.signal("wake")
    async with scene.worker([After], max_cached_workflows=0):
        await scene.reached("WORKFLOW_TASK_FAILED")
        await handle.terminate("unfixable")
    await scene.record()


@scenario
async def task_times_out(scene: Scene) -> None:
    raw = scene.raw()
    await raw.start(workflow_task_timeout=seconds(1))
    await raw.poll_workflow_task()
    await scene.reached("WORKFLOW_TASK_TIMED_OUT")
    task = await raw.poll_workflow_task()
    assert task.attempt == 2
    await raw.answer(task, complete("late"))
    await scene.record()


@scenario
async def signals_while_a_task_runs(scene: Scene) -> None:
    """They come after what the task has decided, whenever they arrived."""
    raw = scene.raw()
    await raw.start()
    task = await raw.poll_workflow_task()
    await raw.signal("first", input=payloads(1))
    await raw.signal("second", input=payloads(2))
    await raw.answer(task, command("START_TIMER", timer_id="t", start_to_fire_timeout=seconds(1000)))
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def completion_with_unseen_signal(scene: Scene) -> None:
    """A workflow may not end while there is a signal that it has not seen."""
    raw = scene.raw()
    await raw.start()
    task = await raw.poll_workflow_task()
    await raw.signal("unseen")
    refused = await refusal(raw.answer(task, complete("too early")))
    assert refused and refused.message == "UnhandledCommand", refused
    await raw.answer(await raw.poll_workflow_task(), complete("now"))
    await scene.record()


@scenario
async def cancel_while_a_task_runs(scene: Scene) -> None:
    raw = scene.raw()
    await raw.start()
    task = await raw.poll_workflow_task()
    await raw.call("request_cancel_workflow_execution", workflow_execution=raw.execution(), reason="stop")
    await raw.answer(task, command("START_TIMER", timer_id="t", start_to_fire_timeout=seconds(1000)))
    await raw.answer(
        await raw.poll_workflow_task(),
        command("CANCEL_TIMER", timer_id="t"),
        command("CANCEL_WORKFLOW_EXECUTION", details=payloads("stopped")),
    )
    await scene.record()


@scenario
async def terminate_while_a_task_runs(scene: Scene) -> None:
    raw = scene.raw()
    await raw.start()
    await raw.poll_workflow_task()
    await raw.signal("lost?")
    await raw.call("terminate_workflow_execution", workflow_execution=raw.execution(), reason="now")
    await scene.record()


@scenario
async def new_task_in_the_answer(scene: Scene) -> None:
    """A completion that forces a new task gets it in the answer."""
    raw = scene.raw()
    await raw.start()
    answer = await raw.answer(
        await raw.poll_workflow_task(), force_create_new_workflow_task=True, return_new_workflow_task=True
    )
    assert answer.workflow_task.started_event_id == 6
    await raw.answer(answer.workflow_task, complete())
    await scene.record()


@scenario
async def eager_activity(scene: Scene) -> None:
    """The worker that schedules the activity gets it in the answer."""
    raw = scene.raw()
    await raw.start()
    answer = await raw.answer(await raw.poll_workflow_task(), raw.activity(request_eager_execution=True))
    [task] = answer.activity_tasks
    await raw.complete_activity(task, "eager")
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def markers(scene: Scene) -> None:
    """What SDKs write for side effects and versions."""
    raw = scene.raw()
    await raw.start()
    await raw.answer(
        await raw.poll_workflow_task(),
        command("RECORD_MARKER", marker_name="SideEffect", details={"data": payloads(42), "id": payloads(1)}),
        command("RECORD_MARKER", marker_name="Version", details={"version": payloads(2)}, header={}),
        complete(),
    )
    await scene.record()


@workflow.defn
class Patched:
    @workflow.run
    async def run(self) -> list[bool]:
        seen = [workflow.patched("fix-1"), workflow.patched("fix-2")]
        await asyncio.sleep(0.1)
        workflow.deprecate_patch("fix-0")
        return [*seen, workflow.patched("fix-1")]


@scenario
async def patched(scene: Scene) -> None:
    async with scene.worker([Patched]):
        handle = await scene.start(Patched.run)
        assert await handle.result() == [True, True, True]
    await scene.record()


@scenario
async def sticky_worker_gone(scene: Scene) -> None:
    """A task that its sticky worker does not take in time goes to the normal queue."""
    raw = scene.raw()
    sticky = f"sticky-{scene.unique}"
    queue = {"name": sticky, "kind": "TASK_QUEUE_KIND_STICKY", "normal_name": scene.queue}
    await raw.start()
    await raw.answer(
        await raw.poll_workflow_task(),
        command("START_TIMER", timer_id="t", start_to_fire_timeout=seconds(1000)),
        sticky_attributes={"worker_task_queue": queue, "schedule_to_start_timeout": seconds(60)},
    )
    # The server believes in a sticky queue only if somebody has polled it of late.
    polling = asyncio.create_task(raw.poll_workflow_task(task_queue=queue))

    async def polled() -> bool:
        answer = await raw.call("describe_task_queue", task_queue=queue, task_queue_type="TASK_QUEUE_TYPE_WORKFLOW")
        return bool(answer.pollers)

    await eventually(polled, "a poller of the sticky queue")
    await raw.signal("taken")
    await raw.answer(
        await polling, sticky_attributes={"worker_task_queue": queue, "schedule_to_start_timeout": seconds(1)}
    )
    await raw.signal("not taken")
    task = await raw.poll_workflow_task()
    await raw.answer(task, complete())
    await scene.record()


@scenario
async def signals_without_a_worker(scene: Scene) -> None:
    """They share one task."""
    async with scene.worker([Inbox], max_cached_workflows=0):
        handle = await scene.start(Inbox.run)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
    for item in ("one", "two", "three"):
        await handle.signal(Inbox.put, item)
    await handle.signal(Inbox.finish)
    async with scene.worker([Inbox], max_cached_workflows=0):
        assert await handle.result() == ["one", "two", "three"]
    await scene.record()
