"""Queries: who answers them, when, and when nobody does."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from raw import Raw, complete, payload, payloads, refusal, seconds, values
from temporalio import workflow
from temporalio.api.enums.v1 import QueryRejectCondition
from temporalio.api.query.v1 import WorkflowQueryResult
from temporalio.client import WorkflowExecutionStatus, WorkflowQueryFailedError, WorkflowQueryRejectedError
from temporalio.common import QueryRejectCondition as Reject
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

ANSWERED = "QUERY_RESULT_TYPE_ANSWERED"
FAILED = "QUERY_RESULT_TYPE_FAILED"


@workflow.defn
class Counter:
    def __init__(self) -> None:
        self.total = 0
        self.done = False

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self.done)
        return self.total

    @workflow.signal
    def add(self, number: int) -> None:
        self.total += number

    @workflow.signal
    def finish(self) -> None:
        self.done = True

    @workflow.query
    def current(self) -> int:
        return self.total

    @workflow.query
    def broken(self) -> int:
        raise ValueError("the handler gives up")


@pytest.fixture
def raw(client, unique) -> Raw:
    return Raw(client, unique)


def worker(raw: Raw, **options) -> Worker:
    return Worker(
        raw.client,
        task_queue=raw.queue,
        workflows=[Counter],
        workflow_runner=UnsandboxedWorkflowRunner(),
        **options,
    )


async def counter(raw: Raw):
    return await raw.client.start_workflow(Counter.run, id=raw.id, task_queue=raw.queue)


async def finished(raw: Raw):
    handle = await counter(raw)
    async with worker(raw):
        await handle.signal(Counter.add, 5)
        await handle.signal(Counter.finish)
        assert await handle.result() == 5
    return handle


def query(raw: Raw, name: str = "q", **fields):
    return asyncio.create_task(
        raw.call("query_workflow", execution=raw.execution(), query={"query_type": name}, **fields)
    )


async def answer_query(raw: Raw, task, *result, **fields) -> None:
    await raw.call(
        "respond_query_task_completed",
        task_token=task.task_token,
        **{"completed_type": ANSWERED, "query_result": payloads(*result), **fields},
    )


async def test_a_running_workflow_answers_with_what_was_signalled_before(raw):
    async with worker(raw):
        handle = await counter(raw)
        for number in range(1, 11):
            await handle.signal(Counter.add, 1)
            assert await handle.query(Counter.current) == number


async def test_queries_leave_no_trace_in_the_history(raw):
    async with worker(raw):
        handle = await counter(raw)
        await handle.query(Counter.current)
        before = await raw.event_types()
        for _ in range(3):
            await handle.query(Counter.current)
        assert await raw.event_types() == before


async def test_a_closed_workflow_answers_through_any_worker(raw):
    handle = await finished(raw)
    async with worker(raw):
        assert await handle.query(Counter.current) == 5


async def test_a_terminated_workflow_answers(raw):
    async with worker(raw):
        handle = await counter(raw)
        await handle.signal(Counter.add, 2)
        assert await handle.query(Counter.current) == 2
        await handle.terminate()
        assert await handle.query(Counter.current) == 2


@pytest.mark.parametrize("name", ["broken", "no_such_query"])
async def test_a_failing_handler_fails_the_query_and_not_the_workflow(raw, name):
    async with worker(raw):
        handle = await counter(raw)
        with pytest.raises(WorkflowQueryFailedError):
            await handle.query(name)
        assert await handle.query(Counter.current) == 0


async def test_nobody_answers_when_the_worker_is_gone(raw):
    handle = await counter(raw)
    async with worker(raw):
        await handle.query(Counter.current)
    with pytest.raises(RPCError) as error:
        await handle.query(Counter.current, rpc_timeout=timedelta(seconds=3))
    # CANCELLED is the client's own clock.
    assert error.value.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)


async def test_another_worker_answers_after_the_one_with_the_cache_stopped(raw):
    handle = await counter(raw)
    async with worker(raw):
        await handle.signal(Counter.add, 3)
        assert await handle.query(Counter.current) == 3
    async with worker(raw):
        assert await handle.query(Counter.current) == 3


async def test_another_worker_answers_after_the_one_with_the_cache_died(raw):
    """The first worker says that it keeps the workflow, and is never heard of again."""
    task = await raw.workflow_task()
    await raw.answer(
        task,
        sticky_attributes={
            "worker_task_queue": {
                "name": f"sticky-{raw.unique}",
                "kind": "TASK_QUEUE_KIND_STICKY",
                "normal_name": raw.queue,
            },
            "schedule_to_start_timeout": seconds(2),
        },
    )
    asked = query(raw)
    taken = await raw.poll_workflow_task()
    assert taken.query.query_type == "q"
    assert taken.history.events[0].event_id == 1, "a worker without the cache needs the whole history"
    await answer_query(raw, taken, "from the other")
    assert values((await asked).query_result) == ["from the other"]


@pytest.mark.parametrize(
    ("end", "condition", "rejected_as"),
    [
        ("none", Reject.NONE, None),
        ("none", Reject.NOT_OPEN, None),
        ("none", Reject.NOT_COMPLETED_CLEANLY, None),
        ("finish", Reject.NONE, None),
        ("finish", Reject.NOT_OPEN, WorkflowExecutionStatus.COMPLETED),
        ("finish", Reject.NOT_COMPLETED_CLEANLY, None),
        ("terminate", Reject.NONE, None),
        ("terminate", Reject.NOT_OPEN, WorkflowExecutionStatus.TERMINATED),
        ("terminate", Reject.NOT_COMPLETED_CLEANLY, WorkflowExecutionStatus.TERMINATED),
    ],
)
async def test_reject_condition(raw, end, condition, rejected_as):
    async with worker(raw):
        handle = await counter(raw)
        assert await handle.query(Counter.current) == 0
        if end == "finish":
            await handle.signal(Counter.finish)
            await handle.result()
        if end == "terminate":
            await handle.terminate()
        if rejected_as is None:
            assert await handle.query(Counter.current, reject_condition=condition) == 0
            return
        with pytest.raises(WorkflowQueryRejectedError) as error:
            await handle.query(Counter.current, reject_condition=condition)
        assert error.value.status == rejected_as


async def test_a_rejection_names_the_status_and_has_no_result(raw):
    await raw.closed()
    answer = await query(raw, query_reject_condition=QueryRejectCondition.QUERY_REJECT_CONDITION_NOT_OPEN)
    assert answer.query_rejected.status == WorkflowExecutionStatus.TERMINATED
    assert not answer.HasField("query_result")


async def test_a_query_rides_on_a_workflow_task_that_is_pending(raw):
    await raw.answer(await raw.workflow_task())
    await raw.signal()
    asked = query(raw)
    await asyncio.sleep(0.3)
    task = await raw.poll_workflow_task()
    assert not task.HasField("query")
    [(key, asked_for)] = task.queries.items()
    assert asked_for.query_type == "q"
    await raw.answer(task, query_results={key: WorkflowQueryResult(result_type=ANSWERED, answer=payloads(7))})
    assert values((await asked).query_result) == [7]


async def test_a_query_during_a_workflow_task_is_answered_after_it(raw):
    task = await raw.workflow_task()
    await raw.answer(task)
    await raw.signal()
    task = await raw.poll_workflow_task()
    asked = query(raw)
    await asyncio.sleep(0.3)
    assert not asked.done()
    await raw.answer(task)
    late = await raw.poll_workflow_task()
    assert late.query.query_type == "q"
    assert "WORKFLOW_EXECUTION_SIGNALED" in await raw.event_types()
    assert late.history.events[-1].event_id >= 6, "the query sees the task that just completed"
    await answer_query(raw, late, 8)
    assert values((await asked).query_result) == [8]


async def test_a_query_that_rode_on_a_task_which_closed_the_workflow(raw):
    await raw.answer(await raw.workflow_task())
    await raw.signal()
    asked = query(raw)
    await asyncio.sleep(0.3)
    task = await raw.poll_workflow_task()
    [key] = task.queries
    await raw.answer(
        task,
        complete("done"),
        query_results={key: WorkflowQueryResult(result_type=ANSWERED, answer=payloads("last words"))},
    )
    assert values((await asked).query_result) == ["last words"]


async def test_a_failed_answer_reaches_the_caller_with_its_message(raw):
    await raw.answer(await raw.workflow_task())
    asked = query(raw)
    task = await raw.poll_workflow_task()
    await answer_query(
        raw,
        task,
        completed_type=FAILED,
        query_result=None,
        error_message="cannot say",
        failure={"message": "cannot say"},
    )
    found = await refusal(asked)
    assert (found.code, found.detail) == ("INVALID_ARGUMENT", "QueryFailedFailure")
    assert found.message == "cannot say"
    assert found.value.failure.message == "cannot say"


async def test_the_answer_to_a_query_is_taken_once(raw):
    await raw.answer(await raw.workflow_task())
    asked = query(raw)
    task = await raw.poll_workflow_task()
    await answer_query(raw, task, 1)
    await asked
    found = await refusal(answer_query(raw, task, 2))
    assert (found.code, found.detail) == ("NOT_FOUND", "NotFoundFailure")


async def test_arguments_and_header_reach_the_worker(raw):
    await raw.answer(await raw.workflow_task())
    asked = asyncio.create_task(
        raw.call(
            "query_workflow",
            execution=raw.execution(),
            query={
                "query_type": "q",
                "query_args": payloads("a", 2),
                "header": {"fields": {"trace": payload("t")}},
            },
        )
    )
    task = await raw.poll_workflow_task()
    assert values(task.query.query_args) == ["a", 2]
    assert task.query.header.fields["trace"] == payload("t")
    await answer_query(raw, task, None)
    assert values((await asked).query_result) == [None]


async def test_the_latest_run_answers_when_no_run_is_named(raw):
    await raw.closed()
    await raw.running(request_id="again")
    await raw.answer(await raw.poll_workflow_task())
    asked = asyncio.create_task(
        raw.call("query_workflow", execution=raw.execution(run_id=""), query={"query_type": "q"})
    )
    task = await raw.poll_workflow_task()
    assert task.workflow_execution.run_id == raw.run_id
    await answer_query(raw, task, "latest")
    assert values((await asked).query_result) == ["latest"]
