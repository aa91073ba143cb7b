"""Children, and signals and cancellations sent to other workflows."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from harness import Scene, scenario
from raw import command, complete
from temporalio import workflow
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, ChildWorkflowError, WorkflowAlreadyStartedError

from .basics import Inbox, Nap
from .runs import next_run


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


@workflow.defn
class ChildOfManyRuns:
    """Takes three runs: one fails and is retried, one continues as new, the last one completes."""

    @workflow.run
    async def run(self, number: int) -> int:
        # Runs that follow each other in less than a second are slowed down, by an amount that varies.
        await asyncio.sleep(1.1)
        if number == 1 and workflow.info().attempt == 1:
            raise ApplicationError("first time", type="Flaky")
        if number == 1:
            workflow.continue_as_new(number + 1)
        return number


@workflow.defn
class PatientParent:
    @workflow.run
    async def run(self, child: str) -> int:
        return await workflow.execute_child_workflow(
            ChildOfManyRuns.run,
            1,
            id=child,
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=2),
        )


@scenario
async def child_of_many_runs(scene: Scene) -> None:
    """The parent sees one child that started once and completed."""
    async with scene.worker([PatientParent, ChildOfManyRuns]):
        parent = await scene.start(PatientParent.run, f"{scene.id}-child")
        assert await parent.result() == 2
    await scene.record("parent")
    started = await scene.reached("CHILD_WORKFLOW_EXECUTION_STARTED")
    run_id = started.child_workflow_execution_started_event_attributes.workflow_execution.run_id
    for label in ("child, first run", "child, second run", "child, third run"):
        await scene.record(label, f"{scene.id}-child", run_id)
        run_id = await next_run(scene, run_id, f"{scene.id}-child")


@workflow.defn
class StrictParent:
    """Gives its child a second, and does not retry it."""

    @workflow.run
    async def run(self, child: str) -> str:
        try:
            await workflow.execute_child_workflow(
                Child.run, id=child, run_timeout=timedelta(seconds=1), memo={"from": "parent"}
            )
        except ChildWorkflowError as error:
            return type(error.cause).__name__
        return "in time"


@scenario
async def child_times_out(scene: Scene) -> None:
    async with scene.worker([StrictParent, Child]):
        parent = await scene.start(StrictParent.run, f"{scene.id}-child")
        assert await parent.result() == "TimeoutError"
    await record_both(scene)


@workflow.defn
class RestlessParent:
    """Starts a child on a queue of its own, then continues as new."""

    def __init__(self) -> None:
        self.go_on = False

    @workflow.run
    async def run(self, child: str, first: bool) -> None:
        if first:
            await workflow.start_child_workflow(Child.run, id=child, task_queue=f"{workflow.info().task_queue}-child")
            # Runs that follow each other in less than a second are slowed down, by an amount that varies.
            await asyncio.sleep(1.1)
            await workflow.wait_condition(lambda: self.go_on)
            workflow.continue_as_new(args=[child, False])

    @workflow.signal
    def finish(self) -> None:
        self.go_on = True


@scenario
async def parent_continues_as_new(scene: Scene) -> None:
    """For its children that is the parent's end."""
    child = f"{scene.id}-child"
    async with scene.worker([RestlessParent]):
        parent = await scene.start(RestlessParent.run, child, True)
        await scene.reached("TIMER_FIRED", run_id=parent.first_execution_run_id)
        await scene.reached("WORKFLOW_TASK_COMPLETED", 3)
        await parent.signal(RestlessParent.finish)
        await parent.result()
    await scene.reached("WORKFLOW_EXECUTION_TERMINATED", workflow_id=child)
    await scene.record("first", run_id=parent.first_execution_run_id)
    await scene.record("child", child)


@scenario
async def child_canceled_before_it_starts(scene: Scene) -> None:
    """Raw, as SDKs drop a child that they cancel in the task that starts it."""
    raw = scene.raw()
    await raw.start()
    child = f"{scene.id}-child"
    await raw.answer(
        await raw.poll_workflow_task(),
        command(
            "START_CHILD_WORKFLOW_EXECUTION",
            workflow_id=child,
            workflow_type={"name": "Raw"},
            task_queue={"name": f"{scene.queue}-child"},
            parent_close_policy="PARENT_CLOSE_POLICY_TERMINATE",
        ),
    )
    await scene.reached("CHILD_WORKFLOW_EXECUTION_STARTED")
    await raw.answer(
        await raw.poll_workflow_task(),
        command(
            "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION", workflow_id=child, child_workflow_only=True, reason="why"
        ),
    )
    await scene.reached("EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED")
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.reached("WORKFLOW_EXECUTION_TERMINATED", workflow_id=child)
    await record_both(scene)


@scenario
async def two_children(scene: Scene) -> None:
    """Children that close while a task of the parent runs wait for its end, in the order of their closing."""
    raw = scene.raw()
    await raw.start()
    for name in ("a", "b"):
        await raw.answer(
            await raw.poll_workflow_task(),
            command(
                "START_CHILD_WORKFLOW_EXECUTION",
                workflow_id=f"{scene.id}-{name}",
                workflow_type={"name": "Raw"},
                task_queue={"name": f"{scene.queue}-{name}"},
            ),
        )
    task = await raw.poll_workflow_task()
    for name, how in (("b", complete("b is done")), ("a", command("FAIL_WORKFLOW_EXECUTION", failure={"message": "a"}))):
        child = scene.raw(f"{scene.queue}-{name}")
        await child.answer(await child.poll_workflow_task(), how)
        # What the server holds back cannot be seen, so give it time.
        await asyncio.sleep(0.5)
    await raw.answer(task)
    await raw.answer(await raw.poll_workflow_task(), complete())
    await scene.record("parent")
