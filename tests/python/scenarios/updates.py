"""Updates: accepted, rejected, with a start, several, before the first task."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
from google.protobuf.any_pb2 import Any
from harness import Scene, scenario
from raw import Raw, command, complete, payloads, seconds
from temporalio import activity, workflow
from temporalio.api.update.v1 import Acceptance, Outcome, Rejection, Request, Response
from temporalio.client import WithStartWorkflowOperation, WorkflowUpdateFailedError, WorkflowUpdateStage
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError


@activity.defn
async def price(item: str) -> int:
    return len(item)


@workflow.defn
class Cart:
    """Items are added by update, with a price that an activity knows."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.done = False

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: self.done)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.items

    @workflow.update
    def add(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)

    @add.validator
    def check(self, item: str) -> None:
        if not item:
            raise ApplicationError("empty", type="Empty")

    @workflow.update
    async def add_priced(self, item: str) -> int:
        cost = await workflow.execute_activity(price, item, start_to_close_timeout=timedelta(seconds=10))
        self.items.append(f"{item}: {cost}")
        return cost

    @workflow.update
    def break_down(self) -> None:
        raise ApplicationError("no more", type="Full")

    @workflow.update
    async def add_when_done(self, item: str) -> str:
        await workflow.wait_condition(lambda: self.done)
        self.items.append(item)
        return "added"

    @workflow.signal
    def finish(self) -> None:
        self.done = True


@scenario
async def update_completed(scene: Scene) -> None:
    async with scene.worker([Cart]):
        handle = await scene.start(Cart.run)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        assert await handle.execute_update(Cart.add, "pen", id="u1") == 1
        await handle.signal(Cart.finish)
        assert await handle.result() == ["pen"]
    await scene.record()


@scenario
async def update_on_a_busy_worker(scene: Scene) -> None:
    """Each update is a workflow task of its own, as no other is due."""
    async with scene.worker([Cart]):
        handle = await scene.start(Cart.run)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        for n, item in enumerate(("pen", "ink", "paper"), start=1):
            assert await handle.execute_update(Cart.add, item, id=f"u{n}") == n
        await handle.signal(Cart.finish)
        assert await handle.result() == ["pen", "ink", "paper"]
    await scene.record()


@scenario
async def update_rejected(scene: Scene) -> None:
    """A rejected update leaves nothing in the history."""
    async with scene.worker([Cart]):
        handle = await scene.start(Cart.run)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.execute_update(Cart.add, "", id="u1")
        assert caught.value.cause.type == "Empty"
        assert await handle.execute_update(Cart.add, "pen", id="u2") == 1
        await handle.signal(Cart.finish)
        assert await handle.result() == ["pen"]
    await scene.record()


@scenario
async def update_fails(scene: Scene) -> None:
    async with scene.worker([Cart]):
        handle = await scene.start(Cart.run)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.execute_update(Cart.break_down, id="u1")
        assert caught.value.cause.type == "Full"
        await handle.signal(Cart.finish)
        await handle.result()
    await scene.record()


@scenario
async def update_with_activity(scene: Scene) -> None:
    async with scene.worker([Cart], [price]):
        handle = await scene.start(Cart.run)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        assert await handle.execute_update(Cart.add_priced, "pen", id="u1") == 3
        await handle.signal(Cart.finish)
        assert await handle.result() == ["pen: 3"]
    await scene.record()


@scenario
async def update_accepted_and_completed_later(scene: Scene) -> None:
    async with scene.worker([Cart]):
        handle = await scene.start(Cart.run)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        update = await handle.start_update(
            Cart.add_when_done, "pen", id="u1", wait_for_stage=WorkflowUpdateStage.ACCEPTED
        )
        await handle.signal(Cart.finish)
        assert await update.result() == "added"
        assert await handle.result() == ["pen"]
    await scene.record()


@scenario
async def update_same_id(scene: Scene) -> None:
    """An update id is carried out once; whoever repeats it gets the first outcome."""
    async with scene.worker([Cart]):
        handle = await scene.start(Cart.run)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        assert await handle.execute_update(Cart.add, "pen", id="same") == 1
        assert await handle.execute_update(Cart.add, "ink", id="same") == 1
        await handle.signal(Cart.finish)
        assert await handle.result() == ["pen"]
    await scene.record()


@scenario
async def update_before_the_first_task(scene: Scene) -> None:
    """It travels with the first workflow task."""
    handle = await scene.start(Cart.run)
    update = asyncio.create_task(handle.execute_update(Cart.add, "pen", id="u1"))
    await asyncio.sleep(0.5)
    async with scene.worker([Cart]):
        assert await update == 1
        await handle.signal(Cart.finish)
        assert await handle.result() == ["pen"]
    await scene.record()


@scenario
async def update_with_start(scene: Scene) -> None:
    def operation() -> WithStartWorkflowOperation:
        return WithStartWorkflowOperation(
            Cart.run,
            id=scene.id,
            task_queue=scene.queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )

    async with scene.worker([Cart]):
        first = operation()
        assert await scene.client.execute_update_with_start_workflow(
            Cart.add, "pen", id="u1", start_workflow_operation=first
        ) == 1
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        assert await scene.client.execute_update_with_start_workflow(
            Cart.add, "ink", id="u2", start_workflow_operation=operation()
        ) == 2
        handle = await first.workflow_handle()
        await handle.signal(Cart.finish)
        assert await handle.result() == ["pen", "ink"]
    await scene.record()


@scenario
async def update_with_start_rejected(scene: Scene) -> None:
    """The workflow starts all the same."""
    async with scene.worker([Cart]):
        operation = WithStartWorkflowOperation(
            Cart.run, id=scene.id, task_queue=scene.queue, id_conflict_policy=WorkflowIDConflictPolicy.FAIL
        )
        with pytest.raises(WorkflowUpdateFailedError):
            await scene.client.execute_update_with_start_workflow(
                Cart.add, "", id="u1", start_workflow_operation=operation
            )
        await (await operation.workflow_handle()).terminate("done")
    await scene.record()


@workflow.defn
class LeavesUpdatesBehind:
    """Ends while its update still runs."""

    def __init__(self) -> None:
        self.asked = False

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.asked)
        return "gone"

    @workflow.update(unfinished_policy=workflow.HandlerUnfinishedPolicy.ABANDON)
    async def never(self) -> None:
        self.asked = True
        await asyncio.sleep(1000)


@scenario
async def update_abandoned(scene: Scene) -> None:
    """Its outcome is a failure that the server makes up."""
    async with scene.worker([LeavesUpdatesBehind]):
        handle = await scene.start(LeavesUpdatesBehind.run)
        await scene.reached("WORKFLOW_TASK_COMPLETED")
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.execute_update(LeavesUpdatesBehind.never, id="u1")
        assert caught.value.cause.type == "AcceptedUpdateCompletedWorkflow"
        assert await handle.result() == "gone"
    await scene.record()


def answers(task, *kinds: str) -> dict:
    """The messages and commands that accept, reject or complete the update that came with a task."""
    [request] = task.messages
    asked = Request()
    assert request.body.Unpack(asked)
    about = {"accepted_request": asked, "accepted_request_message_id": request.id}
    bodies = {
        "accept": Acceptance(**about, accepted_request_sequencing_event_id=request.event_id),
        "complete": Response(meta=asked.meta, outcome=Outcome(success=payloads("done"))),
        "reject": Rejection(
            rejected_request=asked,
            rejected_request_message_id=request.id,
            rejected_request_sequencing_event_id=request.event_id,
            failure={"message": "no"},
        ),
    }
    messages, commands = [], []
    for kind in kinds:
        body = Any()
        body.Pack(bodies[kind])
        message_id = f"{request.id}/{kind}"
        messages.append({"id": message_id, "protocol_instance_id": request.protocol_instance_id, "body": body})
        commands.append(command("PROTOCOL_MESSAGE", message_id=message_id))
    return {"messages": messages, "commands": commands}


async def respond(raw: Raw, task, *kinds: str, then: Sequence = ()) -> None:
    answer = answers(task, *kinds)
    await raw.answer(task, *answer["commands"], *then, messages=answer["messages"])


def asking(raw: Raw, update_id: str = "u1") -> asyncio.Task:
    """Asks, and waits for the outcome in the background."""
    request = {"meta": {"update_id": update_id, "identity": "raw"}, "input": {"name": "do", "args": payloads(1)}}
    return asyncio.create_task(
        raw.call(
            "update_workflow_execution",
            workflow_execution=raw.execution(),
            request=request,
            wait_policy={"lifecycle_stage": "UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED"},
        )
    )


async def idle(scene: Scene, **options) -> Raw:
    raw = scene.raw()
    await raw.start(**options)
    await raw.answer(await raw.poll_workflow_task())
    return raw


@scenario
async def update_task_times_out(scene: Scene) -> None:
    """A task that exists only for an update becomes part of the history when it goes wrong."""
    raw = await idle(scene, workflow_task_timeout=seconds(2))
    update = asking(raw)
    await raw.poll_workflow_task()
    await respond(raw, await raw.poll_workflow_task(), "accept", "complete", then=[complete()])
    await update
    await scene.record()


@scenario
async def update_task_fails(scene: Scene) -> None:
    raw = await idle(scene)
    update = asking(raw)
    task = await raw.poll_workflow_task()
    await raw.call(
        "respond_workflow_task_failed",
        task_token=task.task_token,
        cause="WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE",
        identity="raw",
    )
    await respond(raw, await raw.poll_workflow_task(), "accept", "complete", then=[complete()])
    await update
    await scene.record()


@scenario
async def signal_during_an_update_task(scene: Scene) -> None:
    """The signal comes after the update, and the rejected update's task stays in the history for it."""
    raw = await idle(scene)
    update = asking(raw)
    task = await raw.poll_workflow_task()
    await raw.signal("meanwhile")
    await respond(raw, task, "reject")
    await update
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()


@scenario
async def signal_before_an_update_task(scene: Scene) -> None:
    """A signal makes the task that waits for a worker a real one."""
    raw = await idle(scene)
    update = asking(raw)
    await asyncio.sleep(0.3)
    await raw.signal("first")
    await respond(raw, await raw.poll_workflow_task(), "reject")
    await update
    await raw.call("terminate_workflow_execution", workflow_execution=raw.execution(), identity="raw")
    await scene.record()


@scenario
async def update_rejected_with_a_command(scene: Scene) -> None:
    """The task stays in the history, as it decided something else as well."""
    raw = await idle(scene)
    update = asking(raw)
    timer = command("START_TIMER", timer_id="t", start_to_fire_timeout=seconds(1000))
    await respond(raw, await raw.poll_workflow_task(), "reject", then=[timer])
    await update
    await raw.call("terminate_workflow_execution", workflow_execution=raw.execution(), identity="raw")
    await scene.record()


@scenario
async def update_while_a_task_runs(scene: Scene) -> None:
    """The update waits for the next task, which it causes."""
    raw = await idle(scene)
    await raw.signal("wake")
    task = await raw.poll_workflow_task()
    update = asking(raw)
    await asyncio.sleep(0.3)
    await raw.answer(task)
    await respond(raw, await raw.poll_workflow_task(), "accept", then=[])
    await raw.signal("finish")
    task = await raw.poll_workflow_task()
    assert not task.messages
    await raw.answer(task, complete())
    await update
    await scene.record()


@scenario
async def rejected_updates_leave_nothing(scene: Scene) -> None:
    raw = await idle(scene)
    for number in range(3):
        update = asking(raw, f"u{number}")
        await respond(raw, await raw.poll_workflow_task(), "reject")
        await update
    await raw.signal("finish")
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record()
