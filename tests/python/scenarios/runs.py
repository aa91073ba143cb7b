"""What makes a workflow id go on in another run: retry, cron, continue-as-new, reset, id policies."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from harness import Scene, scenario
from raw import command, complete, payloads, seconds
from temporalio import workflow
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError

from .basics import Fail, Greet, Inbox, Nap
from .updates import Cart


async def next_run(scene: Scene, run_id: str, workflow_id: str | None = None) -> str:
    """The run that took over when this one closed; nothing if none did."""
    last = (await scene.events(workflow_id, run_id))[-1]
    return getattr(last, last.WhichOneof("attributes")).new_execution_run_id


@workflow.defn
class Counts:
    """Counts up, one run for each number."""

    @workflow.run
    async def run(self, number: int, limit: int) -> int:
        # Runs that follow each other in less than a second are slowed down, by an amount that varies.
        await asyncio.sleep(1.1)
        if number < limit:
            workflow.continue_as_new(args=[number + 1, limit], memo={"number": number + 1})
        return number


@scenario
async def continue_as_new(scene: Scene) -> None:
    async with scene.worker([Counts]):
        handle = await scene.start(Counts.run, 1, 3, memo={"number": 1}, execution_timeout=timedelta(hours=1))
        assert await handle.result() == 3
    run_id = handle.first_execution_run_id
    for label in ("first", "second", "third"):
        await scene.record(label, run_id=run_id)
        run_id = await next_run(scene, run_id)


@workflow.defn
class Persistent:
    """Works on the second run."""

    @workflow.run
    async def run(self) -> int:
        if workflow.info().attempt == 1:
            raise ApplicationError("first time", type="Flaky")
        return workflow.info().attempt


@scenario
async def workflow_retried(scene: Scene) -> None:
    policy = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=3)
    async with scene.worker([Persistent]):
        handle = await scene.start(Persistent.run, retry_policy=policy, memo={"kept": True})
        assert await handle.result() == 2
    await scene.record("first", run_id=handle.first_execution_run_id)
    await scene.record("second", run_id=await next_run(scene, handle.first_execution_run_id))


@scenario
async def workflow_retries_exhausted(scene: Scene) -> None:
    """`Fail` raises what no policy retries; a run that times out is retried until attempts are up."""
    policy = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=2)
    async with scene.worker([Nap]):
        handle = await scene.start(Nap.run, 1000, retry_policy=policy, run_timeout=timedelta(seconds=1))
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    await scene.record("first", run_id=handle.first_execution_run_id)
    await scene.record("second", run_id=await next_run(scene, handle.first_execution_run_id))


@scenario
async def workflow_failure_not_retryable(scene: Scene) -> None:
    policy = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=5)
    async with scene.worker([Fail]):
        handle = await scene.start(Fail.run, retry_policy=policy)
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    await scene.record()


@workflow.defn
class Ticks:
    """A cron job that remembers its last result; its second run waits for its end."""

    @workflow.run
    async def run(self) -> int:
        last = workflow.get_last_completion_result(int) if workflow.has_last_completion_result() else 0
        if last:
            await asyncio.sleep(1000)
        return last + 1


@scenario
async def cron(scene: Scene) -> None:
    scene.normalizer.mask("firstWorkflowTaskBackoff")
    async with scene.worker([Ticks]):
        handle = await scene.start(Ticks.run, cron_schedule="@every 1s")
        first = handle.first_execution_run_id
        await scene.reached("WORKFLOW_EXECUTION_COMPLETED", run_id=first)
        second = await next_run(scene, first)
        await scene.reached("TIMER_STARTED", run_id=second)
        await scene.client.get_workflow_handle(scene.id).terminate(reason="enough ticks")
    await scene.record("first", run_id=first)
    await scene.record("second", run_id=second)


@scenario
async def cron_after_failure(scene: Scene) -> None:
    """A failed run does not end the schedule."""
    scene.normalizer.mask("firstWorkflowTaskBackoff")
    raw = scene.raw()
    first = (await raw.start(cron_schedule="@every 1s")).run_id
    unlucky = {"message": "unlucky", "application_failure_info": {"type": "Unlucky"}}
    await raw.answer(await raw.poll_workflow_task(), command("FAIL_WORKFLOW_EXECUTION", failure=unlucky))
    second = await next_run(scene, first)
    await raw.answer(
        await raw.poll_workflow_task(), command("START_TIMER", timer_id="t", start_to_fire_timeout=seconds(60))
    )
    await raw.call("terminate_workflow_execution", workflow_execution={"workflow_id": scene.id})
    await scene.record("first", run_id=first)
    await scene.record("second", run_id=second)


@scenario
async def start_delay(scene: Scene) -> None:
    async with scene.worker([Greet]):
        handle = await scene.start(Greet.run, "Ada", start_delay=timedelta(seconds=1))
        assert await handle.result() == "hello Ada"
    await scene.record()


@scenario
async def start_delay_and_signal(scene: Scene) -> None:
    """A signal does not shorten the delay."""
    async with scene.worker([Inbox]):
        handle = await scene.start(Inbox.run, start_delay=timedelta(seconds=2))
        await handle.signal(Inbox.put, "early")
        await handle.signal(Inbox.finish)
        assert await handle.result() == ["early"]
    await scene.record()


@scenario
async def start_delay_and_signal_with_start(scene: Scene) -> None:
    async with scene.worker([Inbox]):
        handle = await scene.start(
            Inbox.run, start_delay=timedelta(seconds=1), start_signal="put", start_signal_args=["early"]
        )
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        await handle.signal(Inbox.finish)
        assert await handle.result() == ["early"]
    await scene.record()


@scenario
async def start_delay_and_cancel(scene: Scene) -> None:
    """Neither does a cancellation."""
    async with scene.worker([Nap]):
        handle = await scene.start(Nap.run, 1000, start_delay=timedelta(seconds=1))
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    await scene.record()


@scenario
async def eager_start(scene: Scene) -> None:
    async with scene.worker([Greet]):
        handle = await scene.start(Greet.run, "Ada", request_eager_start=True)
        assert await handle.result() == "hello Ada"
    await scene.record()


@scenario
async def id_conflict_terminates(scene: Scene) -> None:
    first = await scene.start(Nap.run, 1000)
    second = await scene.start(
        Greet.run, "Ada", id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING
    )
    # Not before: it would be given the first one's task, of a type that it does not know.
    async with scene.worker([Greet]):
        assert await second.result() == "hello Ada"
    await scene.record("first", run_id=first.first_execution_run_id)
    await scene.record("second", run_id=second.first_execution_run_id)


@scenario
async def id_conflict_uses_existing(scene: Scene) -> None:
    first = await scene.start(Nap.run, 1000)
    again = await scene.start(Nap.run, 5, id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING)
    assert again.first_execution_run_id == first.first_execution_run_id
    await again.terminate()
    await scene.record()


@scenario
async def id_conflict_attaches_the_request(scene: Scene) -> None:
    """The workflow that is there learns of the request that joined it, and of its links."""
    raw = scene.raw()
    first = (await raw.start(request_id="one")).run_id
    joined = await raw.start(
        request_id="two",
        workflow_id_conflict_policy="WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING",
        on_conflict_options={"attach_request_id": True},
    )
    assert joined.run_id == first and not joined.started
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def id_conflict_fails(scene: Scene) -> None:
    first = await scene.start(Nap.run, 1000)
    with pytest.raises(WorkflowAlreadyStartedError) as caught:
        await scene.start(Nap.run, 5)
    assert caught.value.run_id == first.first_execution_run_id
    await first.terminate()
    await scene.record()


@scenario
async def id_reuse(scene: Scene) -> None:
    """After a completion: allowed, unless only failures may be repeated or nothing may."""
    async with scene.worker([Greet, Fail]):
        first = await scene.start(Greet.run, "Ada")
        await first.result()
        for policy in (WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY, WorkflowIDReusePolicy.REJECT_DUPLICATE):
            with pytest.raises(WorkflowAlreadyStartedError):
                await scene.start(Greet.run, "Eve", id_reuse_policy=policy)
        second = await scene.start(Fail.run, id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE)
        with pytest.raises(WorkflowFailureError):
            await second.result()
        third = await scene.start(
            Greet.run, "Bob", id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
        )
        assert await third.result() == "hello Bob"
    for label, handle in {"first": first, "second": second, "third": third}.items():
        await scene.record(label, run_id=handle.first_execution_run_id)


async def reset(scene: Scene, run_id: str, event_id: int, **options) -> str:
    answer = await scene.raw().call(
        "reset_workflow_execution",
        workflow_execution={"workflow_id": scene.id, "run_id": run_id},
        workflow_task_finish_event_id=event_id,
        reason="again",
        request_id=f"reset-{scene.unique}",
        **options,
    )
    return answer.run_id


async def told_twice(scene: Scene) -> WorkflowHandle:
    """A completed workflow that got two signals, each in a workflow task of its own."""
    async with scene.worker([Inbox], max_cached_workflows=0):
        handle = await scene.start(Inbox.run)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        await handle.signal(Inbox.put, "one")
        await scene.reached("WORKFLOW_TASK_COMPLETED", 2)
        await handle.signal(Inbox.finish)
        assert await handle.result() == ["one"]
    return handle


@scenario
async def reset_reapplies_signals(scene: Scene) -> None:
    handle = await told_twice(scene)
    first = handle.first_execution_run_id
    again = await reset(scene, first, 4)
    async with scene.worker([Inbox], max_cached_workflows=0):
        assert await scene.client.get_workflow_handle(scene.id, run_id=again).result() == ["one"]
    await scene.record("first", run_id=first)
    await scene.record("second", run_id=again)


@scenario
async def reset_leaves_signals_out(scene: Scene) -> None:
    handle = await told_twice(scene)
    again = await reset(
        scene,
        handle.first_execution_run_id,
        8,
        reset_reapply_exclude_types=["RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL"],
    )
    await scene.client.get_workflow_handle(scene.id, run_id=again).signal(Inbox.finish)
    async with scene.worker([Inbox], max_cached_workflows=0):
        # The task that is done again had brought the first signal, so that one stays.
        assert await scene.client.get_workflow_handle(scene.id, run_id=again).result() == ["one"]
    await scene.record("second", run_id=again)


@scenario
async def reset_of_a_running_workflow(scene: Scene) -> None:
    """The run that is reset is terminated; its timers start anew in the next."""
    async with scene.worker([Nap], max_cached_workflows=0):
        handle = await scene.start(Nap.run, 1000)
        await scene.reached("TIMER_STARTED")
    first = handle.first_execution_run_id
    again = await reset(scene, first, 4)
    async with scene.worker([Nap], max_cached_workflows=0):
        await scene.reached("TIMER_STARTED", run_id=again)
        await scene.client.get_workflow_handle(scene.id).terminate()
    await scene.record("first", run_id=first)
    await scene.record("second", run_id=again)


@scenario
async def reset_hands_activities_out_again(scene: Scene) -> None:
    """Activities scheduled before the reset point belong to the new run, also one that had started."""
    raw = scene.raw()
    first = (await raw.start()).run_id
    await raw.answer(await raw.poll_workflow_task(), raw.activity())
    await raw.poll_activity_task()
    await raw.signal("wake")
    await raw.answer(await raw.poll_workflow_task())
    again = await reset(scene, first, 9)
    await raw.answer(await raw.poll_workflow_task())
    task = await raw.poll_activity_task()
    assert (task.workflow_execution.run_id, task.attempt) == (again, 1)
    await raw.complete_activity(task, "done")
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record("first", run_id=first)
    await scene.record("second", run_id=again)


@scenario
async def reset_reapplies_updates(scene: Scene) -> None:
    """An update that was accepted after the reset point is admitted again."""
    async with scene.worker([Cart], max_cached_workflows=0):
        handle = await scene.start(Cart.run)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        assert await handle.execute_update(Cart.add, "pen", id="u1") == 1
        await handle.signal(Cart.finish)
        assert await handle.result() == ["pen"]
    first = handle.first_execution_run_id
    again = await reset(scene, first, 4)
    async with scene.worker([Cart], max_cached_workflows=0):
        assert await scene.client.get_workflow_handle(scene.id, run_id=again).result() == ["pen"]
    await scene.record("second", run_id=again)


@scenario
async def reset_twice(scene: Scene) -> None:
    """The second reset starts from the run that the first one made."""
    handle = await told_twice(scene)
    again = await reset(scene, handle.first_execution_run_id, 8)
    async with scene.worker([Inbox], max_cached_workflows=0):
        assert await scene.client.get_workflow_handle(scene.id, run_id=again).result() == ["one"]
    third = (
        await scene.raw().reset(
            workflow_execution={"workflow_id": scene.id, "run_id": again},
            workflow_task_finish_event_id=4,
            request_id="second reset",
            reason="once more",
        )
    ).run_id
    async with scene.worker([Inbox], max_cached_workflows=0):
        assert await scene.client.get_workflow_handle(scene.id, run_id=third).result() == ["one"]
    await scene.record("second", run_id=again)
    await scene.record("third", run_id=third)


@scenario
async def retry_after_a_delay_of_its_own(scene: Scene) -> None:
    """A failure may name the delay to the next attempt, and a type may rule the next attempt out."""
    raw = scene.raw()
    policy = {"initial_interval": seconds(60), "maximum_attempts": 5, "non_retryable_error_types": ["Final"]}
    first = (await raw.start(retry_policy=policy)).run_id
    soon = {"message": "soon", "application_failure_info": {"next_retry_delay": seconds(1)}}
    await raw.answer(await raw.poll_workflow_task(), command("FAIL_WORKFLOW_EXECUTION", failure=soon))
    second = await next_run(scene, first)
    final = {"message": "never", "application_failure_info": {"type": "Final"}}
    await raw.answer(await raw.poll_workflow_task(), command("FAIL_WORKFLOW_EXECUTION", failure=final))
    await scene.record("first", run_id=first)
    await scene.record("second", run_id=second)


@scenario
async def continue_as_new_with_other_options(scene: Scene) -> None:
    """Raw, for all that the command can say."""
    raw = scene.raw()
    first = (await raw.start(memo={"fields": {"kept": payloads(1).payloads[0]}}, header={"fields": {}})).run_id
    task = await raw.poll_workflow_task()
    await asyncio.sleep(1.1)
    await raw.answer(
        task,
        command(
            "CONTINUE_AS_NEW_WORKFLOW_EXECUTION",
            workflow_type={"name": "Other"},
            task_queue={"name": f"{scene.queue}-other"},
            input=payloads("carried over"),
            workflow_run_timeout=seconds(60),
            workflow_task_timeout=seconds(5),
            last_completion_result=payloads("result so far"),
            failure={"message": "failure so far"},
            retry_policy={"initial_interval": seconds(2), "maximum_attempts": 2},
            header={"fields": {"trace": payloads("abc").payloads[0]}},
        ),
    )
    second = await next_run(scene, first)
    other = scene.raw(f"{scene.queue}-other")
    await other.answer(await other.poll_workflow_task(), complete())
    await scene.record("first", run_id=first)
    await scene.record("second", run_id=second)


@scenario
async def continue_as_new_after_a_delay(scene: Scene) -> None:
    raw = scene.raw()
    first = (await raw.start()).run_id
    task = await raw.poll_workflow_task()
    await asyncio.sleep(1.1)
    again = command(
        "CONTINUE_AS_NEW_WORKFLOW_EXECUTION",
        workflow_type={"name": "Raw"},
        task_queue={"name": scene.queue},
        backoff_start_interval=seconds(1),
    )
    await raw.answer(task, again)
    second = await next_run(scene, first)
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record("first", run_id=first)
    await scene.record("second", run_id=second)


@scenario
async def execution_timeout_spans_runs(scene: Scene) -> None:
    """A run that is continued does not get more time."""
    async with scene.worker([Counts]):
        handle = await scene.start(Counts.run, 1, 100, execution_timeout=timedelta(seconds=3))
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    second = await next_run(scene, handle.first_execution_run_id)
    await scene.record("first", run_id=handle.first_execution_run_id)
    await scene.record("second", run_id=second)


@scenario
async def cancel_between_attempts(scene: Scene) -> None:
    """A run that waits out its back-off hears of its cancellation at once."""
    raw = scene.raw()
    policy = {"initial_interval": seconds(2), "maximum_attempts": 5}
    first = (await raw.start(retry_policy=policy)).run_id
    await raw.answer(await raw.poll_workflow_task(), command("FAIL_WORKFLOW_EXECUTION", failure={"message": "f"}))
    second = await next_run(scene, first)
    await raw.call("request_cancel_workflow_execution", workflow_execution={"workflow_id": scene.id})
    await raw.answer(await raw.poll_workflow_task(), command("CANCEL_WORKFLOW_EXECUTION"))
    await scene.record("second", run_id=second)


@scenario
async def signal_between_attempts_of_a_workflow(scene: Scene) -> None:
    raw = scene.raw()
    policy = {"initial_interval": seconds(2), "maximum_attempts": 5}
    first = (await raw.start(retry_policy=policy)).run_id
    await raw.answer(await raw.poll_workflow_task(), command("FAIL_WORKFLOW_EXECUTION", failure={"message": "f"}))
    second = await next_run(scene, first)
    raw.run_id = second
    await raw.signal("early", input=payloads(1))
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record("second", run_id=second)
