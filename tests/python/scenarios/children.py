"""Children, and signals and cancellations sent to other workflows."""

from __future__ import annotations

import asyncio

import pytest
from harness import Scene, scenario
from temporalio import workflow
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, ChildWorkflowError, WorkflowAlreadyStartedError

from .basics import Inbox, Nap


@workflow.defn
class Child:
    """Waits for the word, so that its parent has always seen it start before it ends."""

    def __init__(self) -> None:
        self.word = ""

    @workflow.run
    async def run(self) -> str:
        try:
            await workflow.wait_condition(lambda: bool(self.word))
        except asyncio.CancelledError:
            # Not at once: the parent has to see first that its request has arrived.
            await workflow.wait_condition(lambda: bool(self.word))
            raise
        if self.word == "fail":
            raise ApplicationError("naughty", type="Naughty")
        return self.word

    @workflow.signal
    def say(self, word: str) -> None:
        if word != "wait":
            self.word = word


@workflow.defn
class Parent:
    """Waits for its child, or does to it what it is told."""

    @workflow.run
    async def run(self, child: str) -> str:
        self.child = await workflow.start_child_workflow(Child.run, id=child)
        try:
            return await self.child
        except ChildWorkflowError as error:
            return type(error.cause).__name__

    @workflow.signal
    def cancel_child(self) -> None:
        self.child.cancel()

    @workflow.signal
    async def tell_child(self, word: str) -> None:
        await self.child.signal(Child.say, word)


async def with_child(scene: Scene) -> tuple[WorkflowHandle, WorkflowHandle]:
    """A parent that has seen its child start, and a child that has begun to wait."""
    parent = await scene.start(Parent.run, f"{scene.id}-child")
    await scene.reached("CHILD_WORKFLOW_EXECUTION_STARTED")
    await scene.reached("WORKFLOW_TASK_COMPLETED", 2)
    await scene.reached("WORKFLOW_TASK_COMPLETED", 1, workflow_id=f"{scene.id}-child")
    return parent, scene.client.get_workflow_handle(f"{scene.id}-child")


async def record_both(scene: Scene) -> None:
    await scene.record("parent")
    await scene.record("child", f"{scene.id}-child")


@scenario
async def child_completes(scene: Scene) -> None:
    async with scene.worker([Parent, Child]):
        parent, child = await with_child(scene)
        await child.signal(Child.say, "done")
        assert await parent.result() == "done"
    await record_both(scene)


@scenario
async def child_fails(scene: Scene) -> None:
    async with scene.worker([Parent, Child]):
        parent, child = await with_child(scene)
        await child.signal(Child.say, "fail")
        assert await parent.result() == "ApplicationError"
    await record_both(scene)


@scenario
async def child_terminated(scene: Scene) -> None:
    async with scene.worker([Parent, Child]):
        parent, child = await with_child(scene)
        await child.terminate("enough", reason="why")
        assert await parent.result() == "TerminatedError"
    await record_both(scene)


@scenario
async def child_canceled_by_its_parent(scene: Scene) -> None:
    async with scene.worker([Parent, Child]):
        parent, child = await with_child(scene)
        await parent.signal(Parent.cancel_child)
        await scene.reached("EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED")
        await scene.reached("WORKFLOW_TASK_COMPLETED", 4)
        await scene.reached("WORKFLOW_TASK_COMPLETED", 2, workflow_id=child.id)
        await child.signal(Child.say, "goodbye")
        assert await parent.result() == "CancelledError"
    await record_both(scene)


@scenario
async def child_canceled_by_somebody(scene: Scene) -> None:
    async with scene.worker([Parent, Child]):
        parent, child = await with_child(scene)
        await child.cancel()
        await scene.reached("WORKFLOW_TASK_COMPLETED", 2, workflow_id=child.id)
        await child.signal(Child.say, "goodbye")
        assert await parent.result() == "CancelledError"
    await record_both(scene)


@scenario
async def child_signaled_by_its_parent(scene: Scene) -> None:
    async with scene.worker([Parent, Child]):
        parent, _ = await with_child(scene)
        await parent.signal(Parent.tell_child, "wait")
        await scene.reached("EXTERNAL_WORKFLOW_EXECUTION_SIGNALED")
        await scene.reached("WORKFLOW_TASK_COMPLETED", 4)
        await parent.signal(Parent.tell_child, "wait")
        await scene.reached("WORKFLOW_TASK_COMPLETED", 6)
        await scene.client.get_workflow_handle(f"{scene.id}-child").signal(Child.say, "done")
        assert await parent.result() == "done"
    await record_both(scene)


@workflow.defn
class ParentThatCloses:
    """Starts a child on a queue of its own, and ends when told to."""

    def __init__(self) -> None:
        self.done = False

    @workflow.run
    async def run(self, child: str, policy: int) -> None:
        await workflow.start_child_workflow(
            Child.run,
            id=child,
            task_queue=f"{workflow.info().task_queue}-child",
            parent_close_policy=workflow.ParentClosePolicy(policy),
        )
        await workflow.wait_condition(lambda: self.done)

    @workflow.signal
    def finish(self) -> None:
        self.done = True


@scenario
async def parent_close_terminates(scene: Scene) -> None:
    child = await closed_parent(scene, workflow.ParentClosePolicy.TERMINATE)
    await scene.reached("WORKFLOW_EXECUTION_TERMINATED", workflow_id=child)
    await record_both(scene)


@scenario
async def parent_close_cancels(scene: Scene) -> None:
    child = await closed_parent(scene, workflow.ParentClosePolicy.REQUEST_CANCEL)
    await scene.reached("WORKFLOW_EXECUTION_CANCEL_REQUESTED", workflow_id=child)
    await record_both(scene)


@scenario
async def parent_close_abandons(scene: Scene) -> None:
    child = await closed_parent(scene, workflow.ParentClosePolicy.ABANDON)
    await scene.client.get_workflow_handle(child).signal(Child.say, "alone")
    async with scene.worker([Child], task_queue=f"{scene.queue}-child"):
        assert await scene.client.get_workflow_handle(child).result() == "alone"
    await record_both(scene)


async def closed_parent(scene: Scene, policy: workflow.ParentClosePolicy) -> str:
    child = f"{scene.id}-child"
    async with scene.worker([ParentThatCloses]):
        parent = await scene.start(ParentThatCloses.run, child, policy)
        await scene.reached("CHILD_WORKFLOW_EXECUTION_STARTED")
        await scene.reached("WORKFLOW_TASK_COMPLETED", 2)
        await scene.reached("WORKFLOW_TASK_SCHEDULED", workflow_id=child)
        await parent.signal(ParentThatCloses.finish)
        await parent.result()
    return child


@scenario
async def parent_terminated(scene: Scene) -> None:
    """A parent's end of any kind applies its close policy."""
    child = f"{scene.id}-child"
    async with scene.worker([ParentThatCloses]):
        parent = await scene.start(ParentThatCloses.run, child, workflow.ParentClosePolicy.TERMINATE)
        await scene.reached("CHILD_WORKFLOW_EXECUTION_STARTED")
        await scene.reached("WORKFLOW_TASK_COMPLETED", 2)
        await scene.reached("WORKFLOW_TASK_SCHEDULED", workflow_id=child)
        await parent.terminate("enough")
    await scene.reached("WORKFLOW_EXECUTION_TERMINATED", workflow_id=child)
    await record_both(scene)


@workflow.defn
class Tries:
    """Starts a child whose id may be taken."""

    @workflow.run
    async def run(self, child: str) -> str:
        try:
            await workflow.execute_child_workflow(Child.run, id=child)
        except WorkflowAlreadyStartedError as error:
            return error.workflow_type
        return "started"


@scenario
async def child_already_started(scene: Scene) -> None:
    taken = f"{scene.id}-child"
    async with scene.worker([Tries]):
        await scene.client.start_workflow(Nap.run, 1000, id=taken, task_queue=f"{scene.queue}-nobody")
        parent = await scene.start(Tries.run, taken)
        assert await parent.result() == "Child"
        await scene.client.get_workflow_handle(taken).terminate()
    await scene.record()


@workflow.defn
class Meddles:
    """Signals or cancels a workflow that is not its child."""

    @workflow.run
    async def run(self, target: str, how: str) -> str:
        handle = workflow.get_external_workflow_handle(target)
        try:
            if how == "signal":
                await handle.signal(Inbox.put, "from afar")
            else:
                await handle.cancel()
        except ApplicationError as error:
            return f"{error.type}: {error.message}"
        return "done"


async def meddle(scene: Scene, how: str) -> None:
    target = f"{scene.id}-target"
    async with scene.worker([Meddles]):
        await scene.client.start_workflow(Nap.run, 1000, id=target, task_queue=f"{scene.queue}-nobody")
        handle = await scene.start(Meddles.run, target, how)
        assert await handle.result() == "done"
    await scene.record()
    await scene.record("target", target)
    await scene.client.get_workflow_handle(target).terminate()


@scenario
async def external_signal(scene: Scene) -> None:
    await meddle(scene, "signal")


@scenario
async def external_cancel(scene: Scene) -> None:
    await meddle(scene, "cancel")


async def meddle_with_nobody(scene: Scene, how: str) -> None:
    async with scene.worker([Meddles]):
        handle = await scene.start(Meddles.run, f"{scene.id}-nobody", how)
        answer = await handle.result()
    assert "not found" in answer, answer
    await scene.record()


@scenario
async def external_signal_not_found(scene: Scene) -> None:
    await meddle_with_nobody(scene, "signal")


@scenario
async def external_cancel_not_found(scene: Scene) -> None:
    await meddle_with_nobody(scene, "cancel")


@workflow.defn
class CancelsItsChild:
    """On its own cancellation, waits until its child is canceled too."""

    @workflow.run
    async def run(self, child: str) -> None:
        await workflow.execute_child_workflow(
            Child.run,
            id=child,
            cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        )


@scenario
async def cancellation_reaches_the_child(scene: Scene) -> None:
    async with scene.worker([CancelsItsChild, Child]):
        parent = await scene.start(CancelsItsChild.run, f"{scene.id}-child")
        await scene.reached("WORKFLOW_TASK_COMPLETED", 2)
        await scene.reached("WORKFLOW_TASK_COMPLETED", 1, workflow_id=f"{scene.id}-child")
        await parent.cancel()
        await scene.reached("WORKFLOW_TASK_COMPLETED", 4)
        await scene.reached("WORKFLOW_TASK_COMPLETED", 2, workflow_id=f"{scene.id}-child")
        await scene.client.get_workflow_handle(f"{scene.id}-child").signal(Child.say, "goodbye")
        with pytest.raises(WorkflowFailureError):
            await parent.result()
    await record_both(scene)
