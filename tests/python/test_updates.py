"""Updates: accepted, rejected, polled, deduplicated, with a start, and on closed workflows."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from google.protobuf.any_pb2 import Any
from raw import Raw, command, complete, payloads, refusal, values
from temporalio import workflow
from temporalio.api.update.v1 import Acceptance, Outcome, Rejection, Request, Response
from temporalio.client import (
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

# Seconds; an answer that only comes with the end of a long poll is too late.
PROMPTLY = 5
STAGE = "UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_"
ACCEPTED, COMPLETED, ADMITTED = f"{STAGE}ACCEPTED", f"{STAGE}COMPLETED", f"{STAGE}ADMITTED"


@workflow.defn
class Account:
    def __init__(self) -> None:
        self.balance = 0
        self.calls = 0
        self.released = False
        self.done = False

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self.done)
        return self.balance

    @workflow.update
    async def deposit(self, amount: int) -> int:
        self.calls += 1
        self.balance += amount
        return self.balance

    @deposit.validator
    def check(self, amount: int) -> None:
        if amount <= 0:
            raise ValueError("only positive amounts")

    @workflow.update
    async def slow(self) -> str:
        await workflow.wait_condition(lambda: self.released)
        return "released"

    @workflow.update
    async def broken(self) -> None:
        raise ApplicationError("the handler gives up", type="Refused")

    @workflow.update
    async def last(self) -> str:
        self.done = True
        return "bye"

    @workflow.signal
    def release(self) -> None:
        self.released = True

    @workflow.signal
    def finish(self) -> None:
        self.done = True

    @workflow.query
    def count(self) -> int:
        return self.calls


@pytest.fixture
def raw(client, unique) -> Raw:
    return Raw(client, unique)


def worker(raw: Raw) -> Worker:
    return Worker(raw.client, task_queue=raw.queue, workflows=[Account], workflow_runner=UnsandboxedWorkflowRunner())


async def account(raw: Raw):
    return await raw.client.start_workflow(Account.run, id=raw.id, task_queue=raw.queue)


def with_start(raw: Raw, policy=WorkflowIDConflictPolicy.USE_EXISTING) -> WithStartWorkflowOperation:
    return WithStartWorkflowOperation(Account.run, id=raw.id, task_queue=raw.queue, id_conflict_policy=policy)


async def test_accepted_and_completed(raw):
    async with worker(raw):
        handle = await account(raw)
        assert await handle.execute_update(Account.deposit, 3) == 3
        assert await handle.execute_update(Account.deposit, 4) == 7
    types = await raw.event_types()
    assert types.count("WORKFLOW_EXECUTION_UPDATE_ACCEPTED") == 2
    assert types.count("WORKFLOW_EXECUTION_UPDATE_COMPLETED") == 2


async def test_a_rejected_update_leaves_no_trace(raw):
    async with worker(raw):
        handle = await account(raw)
        await handle.execute_update(Account.deposit, 1)
        before = await raw.event_types()
        with pytest.raises(WorkflowUpdateFailedError) as error:
            await asyncio.wait_for(handle.execute_update(Account.deposit, -1), PROMPTLY)
        assert "only positive amounts" in str(error.value.cause)
        assert await raw.event_types() == before


async def test_an_unknown_update_is_rejected(raw):
    async with worker(raw):
        handle = await account(raw)
        with pytest.raises(WorkflowUpdateFailedError):
            await asyncio.wait_for(handle.execute_update("no_such_update"), PROMPTLY)


async def test_a_failing_handler_fails_the_update_and_not_the_workflow(raw):
    async with worker(raw):
        handle = await account(raw)
        with pytest.raises(WorkflowUpdateFailedError) as error:
            await asyncio.wait_for(handle.execute_update(Account.broken), PROMPTLY)
        assert isinstance(error.value.cause, ApplicationError)
        assert error.value.cause.type == "Refused"
        assert await handle.execute_update(Account.deposit, 1) == 1


async def test_wait_for_accepted_then_for_the_result(raw):
    async with worker(raw):
        handle = await account(raw)
        update = await handle.start_update(Account.slow, wait_for_stage=WorkflowUpdateStage.ACCEPTED)
        waiting = asyncio.create_task(update.result())
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await handle.signal(Account.release)
        assert await waiting == "released"


async def test_another_client_polls_by_id(raw):
    async with worker(raw):
        handle = await account(raw)
        await handle.start_update(Account.slow, id="slow", wait_for_stage=WorkflowUpdateStage.ACCEPTED)
        elsewhere = raw.client.get_workflow_handle(raw.id).get_update_handle("slow", result_type=str)
        await handle.signal(Account.release)
        assert await elsewhere.result() == "released"
        assert await elsewhere.result() == "released"


async def test_one_id_is_handled_once(raw):
    async with worker(raw):
        handle = await account(raw)
        answers = await asyncio.gather(*[handle.execute_update(Account.deposit, 5, id="once") for _ in range(5)])
        assert answers == [5] * 5
        assert await handle.execute_update(Account.deposit, 5, id="once") == 5
        assert await handle.query(Account.count) == 1


async def test_an_outcome_outlives_the_workflow(raw):
    async with worker(raw):
        handle = await account(raw)
        await handle.execute_update(Account.deposit, 5, id="once")
        await handle.signal(Account.finish)
        assert await handle.result() == 5
        assert await handle.get_update_handle("once", result_type=int).result() == 5
        assert await handle.execute_update(Account.deposit, 5, id="once") == 5
        with pytest.raises(RPCError) as error:
            await handle.execute_update(Account.deposit, 5, id="new")
        assert error.value.status == RPCStatusCode.NOT_FOUND


async def test_an_update_may_complete_the_workflow(raw):
    async with worker(raw):
        handle = await account(raw)
        assert await handle.execute_update(Account.last) == "bye"
        assert await handle.result() == 0


async def test_an_accepted_update_fails_when_the_workflow_ends_without_it(raw):
    async with worker(raw):
        handle = await account(raw)
        update = await handle.start_update(Account.slow, wait_for_stage=WorkflowUpdateStage.ACCEPTED)
        await handle.signal(Account.finish)
        await handle.result()
        with pytest.raises(WorkflowUpdateFailedError) as error:
            await update.result()
        assert error.value.cause.type == "AcceptedUpdateCompletedWorkflow"


async def test_nobody_answers_without_a_worker(raw):
    handle = await account(raw)
    with pytest.raises(WorkflowUpdateRPCTimeoutOrCancelledError):
        await handle.execute_update(Account.deposit, 1, rpc_timeout=timedelta(seconds=1))
    # The workflow has not changed and the next worker finds a healthy one.
    async with worker(raw):
        assert await handle.execute_update(Account.deposit, 2, id="later") in (2, 3)


async def test_a_worker_that_comes_later_handles_what_waits(raw):
    handle = await account(raw)
    waiting = asyncio.create_task(handle.execute_update(Account.deposit, 9))
    await asyncio.sleep(0.5)
    async with worker(raw):
        assert await waiting == 9


async def test_with_start_starts_the_workflow(raw):
    async with worker(raw):
        operation = with_start(raw)
        answer = await raw.client.execute_update_with_start_workflow(
            Account.deposit, 6, start_workflow_operation=operation
        )
        assert answer == 6
        handle = await operation.workflow_handle()
        assert await handle.query(Account.count) == 1


async def test_with_start_uses_the_running_workflow(raw):
    async with worker(raw):
        handle = await account(raw)
        await handle.execute_update(Account.deposit, 1)
        operation = with_start(raw)
        answer = await raw.client.execute_update_with_start_workflow(
            Account.deposit, 6, start_workflow_operation=operation
        )
        assert answer == 7
        assert (await operation.workflow_handle()).first_execution_run_id == handle.first_execution_run_id


async def test_with_start_and_policy_fail_leaves_the_running_workflow_alone(raw):
    async with worker(raw):
        handle = await account(raw)
        with pytest.raises(WorkflowAlreadyStartedError):
            await raw.client.execute_update_with_start_workflow(
                Account.deposit,
                6,
                start_workflow_operation=with_start(raw, WorkflowIDConflictPolicy.FAIL),
            )
        assert await handle.query(Account.count) == 0


async def test_with_start_is_started_even_if_the_update_is_rejected(raw):
    async with worker(raw):
        operation = with_start(raw)
        with pytest.raises(WorkflowUpdateFailedError):
            await raw.client.execute_update_with_start_workflow(Account.deposit, -1, start_workflow_operation=operation)
        handle = await operation.workflow_handle()
        assert await handle.query(Account.count) == 0


def response(task, kind: str, **fields) -> dict:
    """A message of the update protocol in answer to the request that came with the task."""
    [request] = task.messages
    asked = Request()
    assert request.body.Unpack(asked)
    body = Any()
    if kind == "accept":
        body.Pack(
            Acceptance(
                accepted_request_message_id=request.id,
                accepted_request_sequencing_event_id=request.event_id,
                accepted_request=asked,
            )
        )
    elif kind == "reject":
        body.Pack(
            Rejection(
                rejected_request_message_id=request.id,
                rejected_request_sequencing_event_id=request.event_id,
                rejected_request=asked,
                failure={"message": "no"},
            )
        )
    else:
        body.Pack(Response(meta=asked.meta, outcome=Outcome(success=payloads("done"))))
    return {
        "id": f"{request.protocol_instance_id}/{kind}",
        "protocol_instance_id": request.protocol_instance_id,
        "body": body,
    }


def protocol(message: dict):
    return command("PROTOCOL_MESSAGE", message_id=message["id"])


async def asked(raw: Raw, **fields):
    """An update on an idle workflow, and the workflow task that carries it."""
    await raw.answer(await raw.workflow_task())
    pending = asyncio.create_task(raw.update(**fields))
    return pending, await raw.poll_workflow_task()


async def test_the_request_comes_with_the_workflow_task(raw):
    pending, task = await asked(
        raw,
        request={
            "meta": {"update_id": "u1", "identity": "someone"},
            "input": {"name": "deposit", "args": payloads(1, "two")},
        },
    )
    [message] = task.messages
    request = Request()
    assert message.body.Unpack(request)
    assert (message.protocol_instance_id, request.meta.update_id) == ("u1", "u1")
    assert (request.meta.identity, request.input.name) == ("someone", "deposit")
    assert values(request.input.args) == [1, "two"]
    accept, done = response(task, "accept"), response(task, "complete")
    await raw.answer(task, protocol(accept), protocol(done), messages=[accept, done])
    answer = await asyncio.wait_for(pending, PROMPTLY)
    assert answer.stage == 3
    assert values(answer.outcome.success) == ["done"]
    assert (answer.update_ref.update_id, answer.update_ref.workflow_execution.run_id) == ("u1", raw.run_id)


async def test_accepted_first_completed_in_a_later_task(raw):
    pending, task = await asked(raw, wait_policy={"lifecycle_stage": ACCEPTED})
    accept, done = response(task, "accept"), response(task, "complete")
    await raw.answer(task, protocol(accept), messages=[accept])
    answer = await asyncio.wait_for(pending, PROMPTLY)
    assert (answer.stage, answer.HasField("outcome")) == (2, False)
    reference = {"workflow_execution": raw.execution(), "update_id": "update"}
    at_once = await raw.call("poll_workflow_execution_update", update_ref=reference)
    assert (at_once.stage, at_once.HasField("outcome")) == (2, False)
    waiting = asyncio.create_task(
        raw.call("poll_workflow_execution_update", update_ref=reference, wait_policy={"lifecycle_stage": COMPLETED})
    )
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await raw.signal()
    await raw.answer(await raw.poll_workflow_task(), protocol(done), messages=[done])
    assert values((await waiting).outcome.success) == ["done"]


async def test_a_rejection_reaches_the_caller(raw):
    pending, task = await asked(raw)
    before = len(await raw.events())
    reject = response(task, "reject")
    await raw.answer(task, messages=[reject])
    answer = await asyncio.wait_for(pending, PROMPTLY)
    assert (answer.stage, answer.outcome.failure.message) == (3, "no")
    assert "WORKFLOW_EXECUTION_UPDATE_ACCEPTED" not in await raw.event_types()
    assert len(await raw.events()) <= before


async def test_an_update_that_the_task_ignores_is_rejected_for_it(raw):
    pending, task = await asked(raw)
    await raw.answer(task)
    answer = await asyncio.wait_for(pending, PROMPTLY)
    assert answer.stage == 3
    assert answer.outcome.failure.message


async def test_a_failed_workflow_task_keeps_the_update(raw):
    pending, task = await asked(raw)
    await raw.call("respond_workflow_task_failed", task_token=task.task_token, failure={"message": "oops"})
    again = await raw.poll_workflow_task()
    assert [m.protocol_instance_id for m in again.messages] == ["update"]
    accept, done = response(again, "accept"), response(again, "complete")
    await raw.answer(again, protocol(accept), protocol(done), messages=[accept, done])
    assert values((await asyncio.wait_for(pending, PROMPTLY)).outcome.success) == ["done"]


async def test_a_workflow_that_completes_over_an_update_refuses_it(raw):
    pending, task = await asked(raw)
    await raw.answer(task, complete("done"))
    found = await refusal(asyncio.wait_for(pending, PROMPTLY))
    assert (found.code, found.detail) == ("NOT_FOUND", "NotFoundFailure")


async def test_terminating_ends_the_wait(raw):
    pending, _ = await asked(raw)
    await raw.call("terminate_workflow_execution", workflow_execution=raw.execution())
    found = await refusal(asyncio.wait_for(pending, PROMPTLY))
    assert (found.code, found.detail) == ("NOT_FOUND", "NotFoundFailure")


async def test_waiting_only_for_admission_is_refused(raw):
    await raw.running()
    found = await refusal(raw.update(wait_policy={"lifecycle_stage": ADMITTED}))
    assert found.code == "PERMISSION_DENIED"
