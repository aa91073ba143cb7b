"""Updates: accepted, rejected, with a start, several, before the first task."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from harness import Scene, scenario
from temporalio import activity, workflow
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
