"""Deleting executions, and resetting them to an earlier workflow task."""

from __future__ import annotations

from datetime import timedelta

import pytest
from harness import eventually
from raw import Raw, command, complete, refusal, seconds, shows_at_once
from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType, ResetReapplyExcludeType, WorkflowExecutionStatus, WorkflowTaskFailedCause
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

RUNNING = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
TERMINATED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TERMINATED
COMPLETED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED


@pytest.fixture
def raw(client, unique) -> Raw:
    return Raw(client, unique)


async def status(raw: Raw, run_id: str | None = None) -> int:
    execution = raw.execution(run_id=raw.run_id if run_id is None else run_id)
    return (await raw.call("describe_workflow_execution", execution=execution)).workflow_execution_info.status


async def gone(raw: Raw) -> bool:
    found = await refusal(raw.call("describe_workflow_execution", execution=raw.execution()))
    return bool(found and found.code == "NOT_FOUND")


async def patience(raw: Raw) -> float:
    """The Temporal server deletes a closed workflow only half a minute later."""
    return 5 if await shows_at_once(raw.client) else 75


async def delete(raw: Raw, **fields) -> None:
    await raw.call("delete_workflow_execution", workflow_execution=raw.execution(**fields))


# Deleting.


async def test_deleting_a_closed_workflow_leaves_nothing(raw):
    await raw.completed()
    await delete(raw)
    await eventually(lambda: gone(raw), "deleted", await patience(raw))
    found = await refusal(raw.events())
    assert (found.code, found.detail) == ("NOT_FOUND", "NotFoundFailure")

    async def listed():
        return [each.execution.run_id for each in (await raw.list(f"WorkflowId = '{raw.id}'")).executions]

    await raw.shown(listed, [])


async def test_deleting_a_running_workflow_ends_it(raw):
    task = await raw.workflow_task()
    await delete(raw)
    await eventually(lambda: gone(raw), "deleted", await patience(raw))
    found = await refusal(raw.answer(task, complete()))
    assert found.code == "NOT_FOUND"


async def test_deleting_one_run_leaves_the_others(raw):
    await raw.closed()
    first = raw.run_id
    await raw.running(request_id="again")
    await delete(raw, run_id=first)

    async def first_is_gone():
        found = await refusal(raw.call("describe_workflow_execution", execution=raw.execution(run_id=first)))
        return bool(found and found.code == "NOT_FOUND")

    await eventually(first_is_gone, "deleted", await patience(raw))
    assert await status(raw) == RUNNING
    assert await status(raw, "") == RUNNING


async def test_a_deleted_id_can_be_used_again(raw):
    await raw.completed()
    first = raw.run_id
    await delete(raw)
    await eventually(lambda: gone(raw), "deleted", await patience(raw))
    await raw.running(request_id="again", workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE")
    assert raw.run_id != first
    assert await raw.event_types() == ["WORKFLOW_EXECUTION_STARTED", "WORKFLOW_TASK_SCHEDULED"]


# Resetting.


async def two_tasks(raw: Raw, *last) -> None:
    """Completed workflow tasks at the events 4 and, after the signals b and c, at 9."""
    await raw.answer(await raw.workflow_task())
    await raw.signal("a")
    await raw.answer(await raw.poll_workflow_task())
    await raw.signal("b")
    await raw.signal("c")
    task = await raw.poll_workflow_task()
    await raw.answer(task, *last)


async def reset(raw: Raw, event_id: int, **fields) -> Raw:
    """The run that goes on from there."""
    answer = await raw.reset(workflow_task_finish_event_id=event_id, reason="a test", **fields)
    after = Raw(raw.client, raw.unique)
    after.run_id = answer.run_id
    return after


def signals(events) -> list[str]:
    return [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    ]


async def test_a_running_workflow_is_terminated_and_goes_on(raw):
    await two_tasks(raw)
    after = await reset(raw, 4)
    assert after.run_id != raw.run_id
    assert await status(raw) == TERMINATED
    assert await status(after) == RUNNING
    assert await status(raw, "") == RUNNING
    events = await after.events()
    assert [event.event_id for event in events] == list(range(1, len(events) + 1))
    failed = events[3].workflow_task_failed_event_attributes
    assert failed.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW
    assert (failed.base_run_id, failed.new_run_id) == (raw.run_id, after.run_id)
    assert signals(events) == ["a", "b", "c"], "what came later is applied again"
    task = await after.poll_workflow_task()
    assert task.workflow_execution.run_id == after.run_id
    await after.answer(task, complete("after the reset"))
    assert await status(after) == COMPLETED


async def test_a_refused_reset_changes_nothing(raw):
    """No workflow task ends there: the workflow goes on as if nobody had asked."""
    await two_tasks(raw)
    before = [event.event_id for event in await raw.events()]
    found = await refusal(reset(raw, 2))
    assert found and found.code == "INVALID_ARGUMENT", found
    assert await status(raw) == RUNNING
    assert [event.event_id for event in await raw.events()] == before


async def test_the_original_keeps_its_history(raw):
    await two_tasks(raw, complete("first"))
    before = await raw.event_types()
    after = await reset(raw, 4)
    assert await raw.event_types() == before
    assert await status(raw) == COMPLETED
    assert await status(after) == RUNNING
    assert (await after.events())[:3] == (await raw.events())[:3], "a prefix is shared as it is"


async def test_a_later_task(raw):
    await two_tasks(raw)
    finished = [
        event.event_id
        for event in await raw.events()
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]
    after = await reset(raw, finished[1])
    events = await after.events()
    assert events[finished[1] - 1].HasField("workflow_task_failed_event_attributes")
    assert signals(events) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["a", "b", "c"]),
        ({"reset_reapply_type": "RESET_REAPPLY_TYPE_NONE"}, []),
        ({"reset_reapply_type": "RESET_REAPPLY_TYPE_SIGNAL"}, ["a", "b", "c"]),
        ({"reset_reapply_exclude_types": [ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL]}, []),
        ({"reset_reapply_exclude_types": [ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_UPDATE]}, ["a", "b", "c"]),
    ],
)
async def test_which_signals_are_applied_again(raw, fields, expected):
    await two_tasks(raw)
    after = await reset(raw, 4, **fields)
    assert signals(await after.events()) == expected


async def test_a_reset_of_a_reset(raw):
    await two_tasks(raw)
    first = await reset(raw, 4)
    await first.answer(await first.poll_workflow_task())
    second = await reset(first, 4, request_id="second")
    assert await status(first) == TERMINATED
    assert await status(second) == RUNNING
    assert signals(await second.events()) == ["a", "b", "c"]


async def test_an_activity_that_was_running_is_not_taken_over(raw):
    """Its answer belongs to the old run; the new one schedules it again."""
    task = await raw.activity_task()
    after = await reset(raw, 4)
    found = await refusal(raw.complete_activity(task))
    assert found.code == "NOT_FOUND"
    again = await after.poll_workflow_task()
    await after.answer(again, after.activity())
    taken = await after.poll_activity_task()
    assert taken.workflow_execution.run_id == after.run_id
    await after.complete_activity(taken, 1)


async def test_a_pending_timer_survives(raw):
    """The timer was started before the point of reset, so it still fires."""
    await raw.answer(await raw.workflow_task(), command("START_TIMER", timer_id="t", start_to_fire_timeout=seconds(2)))
    await raw.signal("a")
    await raw.answer(await raw.poll_workflow_task())
    after = await reset(raw, 9)
    await after.answer(await after.poll_workflow_task())

    async def fired():
        return "TIMER_FIRED" in await after.event_types()

    await eventually(fired, "the timer of the old run fires in the new one", 15)


async def test_describe_names_the_points_of_reset(raw):
    await two_tasks(raw)
    after = await reset(raw, 4)
    described = await raw.call("describe_workflow_execution", execution=raw.execution())
    assert described.workflow_extended_info.reset_run_id == after.run_id
    described = await raw.call("describe_workflow_execution", execution=after.execution())
    assert described.workflow_execution_info.first_run_id == raw.run_id


async def test_the_chain_names_its_original_run(raw):
    await two_tasks(raw)
    after = await reset(raw, 4)
    started = (await after.events())[0].workflow_execution_started_event_attributes
    assert started.original_execution_run_id == raw.run_id
    assert started.first_execution_run_id == raw.run_id


@workflow.defn
class Steps:
    """Counts on what its activities answered."""

    def __init__(self) -> None:
        self.signals: list[str] = []

    @workflow.run
    async def run(self) -> list[str]:
        first = await workflow.execute_activity("step", "one", start_to_close_timeout=timedelta(seconds=10))
        await workflow.wait_condition(lambda: bool(self.signals))
        second = await workflow.execute_activity("step", "two", start_to_close_timeout=timedelta(seconds=10))
        return [first, second, *self.signals]

    @workflow.signal
    def tell(self, word: str) -> None:
        self.signals.append(word)


async def test_a_workflow_of_the_sdk_runs_on_from_there(raw):
    calls: list[str] = []

    @activity.defn(name="step")
    async def step(name: str) -> str:
        calls.append(name)
        return f"{name} {calls.count(name)}"

    async with Worker(
        raw.client,
        task_queue=raw.queue,
        workflows=[Steps],
        activities=[step],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        handle = await raw.client.start_workflow(Steps.run, id=raw.id, task_queue=raw.queue)
        raw.run_id = handle.first_execution_run_id

        async def waits_for_the_signal():
            kinds = await raw.event_types()
            return calls and kinds.count("WORKFLOW_TASK_COMPLETED") == 2

        await eventually(waits_for_the_signal, "the first step is over")
        await handle.signal(Steps.tell, "word")
        assert await handle.result() == ["one 1", "two 1", "word"]
        completed = [
            event.event_id
            for event in await raw.events()
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
        ]
        after = await reset(raw, completed[2])
        result = await raw.client.get_workflow_handle(raw.id, run_id=after.run_id).result()
        assert result == ["one 1", "two 2", "word"], "the first step is kept, the second is run again"
        assert calls == ["one", "two", "two"]
