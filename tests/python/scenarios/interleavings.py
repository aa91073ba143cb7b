"""Things that happen while a workflow task runs: they come after what the task has decided."""

from __future__ import annotations

import asyncio

from harness import Scene, scenario
from raw import command, complete, payloads, refusal, seconds


def timer(timer_id: str = "t", after: float = 1000):
    return command("START_TIMER", timer_id=timer_id, start_to_fire_timeout=seconds(after))


@scenario
async def activity_completes_while_a_task_runs(scene: Scene) -> None:
    raw = scene.raw()
    await raw.start()
    await raw.answer(await raw.poll_workflow_task(), raw.activity())
    activity = await raw.poll_activity_task()
    await raw.signal("wake")
    task = await raw.poll_workflow_task()
    await raw.complete_activity(activity, "done")
    await raw.answer(task, timer())
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def activity_fails_while_a_task_runs(scene: Scene) -> None:
    raw = scene.raw()
    await raw.start()
    await raw.answer(
        await raw.poll_workflow_task(), raw.activity(retry_policy={"maximum_attempts": 1})
    )
    activity = await raw.poll_activity_task()
    await raw.signal("wake")
    task = await raw.poll_workflow_task()
    await raw.call(
        "respond_activity_task_failed",
        task_token=activity.task_token,
        failure={"message": "broken", "application_failure_info": {"type": "Broken"}},
    )
    await raw.signal("again")
    await raw.answer(task)
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def timer_fires_while_a_task_runs(scene: Scene) -> None:
    raw = scene.raw()
    await raw.start()
    await raw.answer(await raw.poll_workflow_task(), timer(after=1))
    await raw.signal("wake")
    task = await raw.poll_workflow_task()
    # A fired timer cannot be seen while it is held back.
    await asyncio.sleep(3)
    await raw.answer(task, command("RECORD_MARKER", marker_name="first", details={"d": payloads(1)}))
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def fired_timer_canceled(scene: Scene) -> None:
    """The task did not know that the timer had fired, and canceled it: then it has not fired."""
    raw = scene.raw()
    await raw.start()
    await raw.answer(await raw.poll_workflow_task(), timer(after=1))
    await raw.signal("wake")
    task = await raw.poll_workflow_task()
    await asyncio.sleep(3)
    await raw.answer(task, command("CANCEL_TIMER", timer_id="t"), timer("next"))
    await raw.call("terminate_workflow_execution", workflow_execution=raw.execution(), identity="raw")
    await scene.record()


@scenario
async def activity_times_out_while_a_task_runs(scene: Scene) -> None:
    raw = scene.raw()
    await raw.start()
    await raw.answer(
        await raw.poll_workflow_task(),
        raw.activity(start_to_close_timeout=seconds(1), retry_policy={"maximum_attempts": 1}),
    )
    await raw.poll_activity_task()
    await raw.signal("wake")
    task = await raw.poll_workflow_task()
    await asyncio.sleep(3)
    await raw.answer(task)
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def signals_survive_a_failed_task(scene: Scene) -> None:
    raw = scene.raw()
    await raw.start()
    task = await raw.poll_workflow_task()
    await raw.signal("kept", input=payloads(1))
    await raw.call(
        "respond_workflow_task_failed",
        task_token=task.task_token,
        cause="WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE",
        identity="raw",
    )
    await raw.signal("later", input=payloads(2))
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def signal_between_failed_attempts(scene: Scene) -> None:
    """The second attempt fails without a trace; the signal that came meanwhile makes the third a new task."""
    raw = scene.raw()
    await raw.start()
    for attempt in (1, 2):
        task = await raw.poll_workflow_task()
        if attempt == 2:
            await raw.signal("meanwhile")
        await raw.call(
            "respond_workflow_task_failed",
            task_token=task.task_token,
            cause="WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE",
            identity="raw",
        )
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def signals_survive_a_task_that_times_out(scene: Scene) -> None:
    raw = scene.raw()
    await raw.start(workflow_task_timeout=seconds(1))
    await raw.poll_workflow_task()
    await raw.signal("kept")
    await scene.reached("WORKFLOW_TASK_TIMED_OUT")
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def continue_as_new_with_unseen_signal(scene: Scene) -> None:
    raw = scene.raw()
    await raw.start()
    task = await raw.poll_workflow_task()
    await raw.signal("unseen")
    again = command(
        "CONTINUE_AS_NEW_WORKFLOW_EXECUTION",
        workflow_type={"name": "Raw"},
        task_queue={"name": scene.queue},
        input=payloads(2),
    )
    refused = await refusal(raw.answer(task, again))
    assert refused and refused.message == "UnhandledCommand", refused
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def signal_sent_twice(scene: Scene) -> None:
    """A repeated request id is the same signal."""
    raw = scene.raw()
    await raw.start()
    for _ in range(2):
        await raw.signal("once", request_id="same", input=payloads(1))
    task = await raw.poll_workflow_task()
    for _ in range(2):
        await raw.signal("while running", request_id="other", input=payloads(2))
    await raw.answer(task)
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def start_sent_twice(scene: Scene) -> None:
    raw = scene.raw()
    first, again = await raw.start(request_id="same"), await raw.start(request_id="same")
    assert (first.run_id, first.started) == (again.run_id, again.started)
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def cancel_sent_twice(scene: Scene) -> None:
    raw = scene.raw()
    await raw.start()
    for _ in range(2):
        await raw.call(
            "request_cancel_workflow_execution",
            workflow_execution=raw.execution(),
            request_id="same",
            reason="stop",
        )
    await raw.answer(await raw.poll_workflow_task(), complete("ignored it"))
    await scene.record()


@scenario
async def many_commands(scene: Scene) -> None:
    """Events come in the order of the commands."""
    raw = scene.raw()
    await raw.start()
    await raw.answer(
        await raw.poll_workflow_task(),
        timer("first"),
        raw.activity(activity_id="a", task_queue={"name": f"{scene.queue}-nobody"}, input=payloads(1, "two")),
        command("RECORD_MARKER", marker_name="m", details={"d": payloads([1])}),
        command("CANCEL_TIMER", timer_id="first"),
        command("MODIFY_WORKFLOW_PROPERTIES", upserted_memo={"fields": {"note": {"data": b"raw"}}}),
        command("REQUEST_CANCEL_ACTIVITY_TASK", scheduled_event_id=6),
        timer("second"),
    )
    await raw.answer(await raw.poll_workflow_task(), command("FAIL_WORKFLOW_EXECUTION", failure={"message": "f"}))
    await scene.record()


@scenario
async def first_task_times_out_twice(scene: Scene) -> None:
    """The second time-out leaves nothing either."""
    raw = scene.raw()
    await raw.start(workflow_task_timeout=seconds(1))
    for attempt in (1, 2):
        assert (await raw.poll_workflow_task()).attempt == attempt
    task = await raw.poll_workflow_task()
    assert task.attempt == 3
    await raw.answer(task, complete())
    await scene.record()


@scenario
async def bad_command(scene: Scene) -> None:
    """It fails the task, not the workflow; what came before it in the same answer is forgotten."""
    scene.normalizer.mask("message")
    raw = scene.raw()
    await raw.start()
    twice = await refusal(raw.answer(await raw.poll_workflow_task(), timer("t"), timer("t")))
    assert twice and twice.code == "INVALID_ARGUMENT", twice
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def commands_after_the_completion(scene: Scene) -> None:
    """Nothing may follow the command that closes the workflow; the task is not over by that."""
    raw = scene.raw()
    await raw.start(workflow_task_timeout=seconds(2))
    refused = await refusal(raw.answer(await raw.poll_workflow_task(), complete("first"), complete("second")))
    assert refused and refused.code == "INVALID_ARGUMENT", refused
    await raw.answer(await raw.poll_workflow_task(), complete("only"))
    await scene.record()
