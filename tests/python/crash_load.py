"""A load of raw API calls that knows what the server acknowledged.

An SDK retries by itself, so with one nobody can say which answer came before a crash. Here every call
is made once, and what was acknowledged is noted: it must outlive any crash. A call whose outcome is
unknown is made again with the same request id, and must not count twice.

Every workflow: activities and a timer at once, signals from outside, one last activity, a result.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from raw import command, complete, payloads, seconds, values
from temporalio.api.common.v1 import WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import EventType, WorkflowExecutionStatus, WorkflowIdReusePolicy
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryRequest,
    PollActivityTaskQueueRequest,
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    RespondActivityTaskCompletedRequest,
    RespondWorkflowTaskCompletedRequest,
    SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

ACTIVITIES = ("a", "b", "c")
LAST_ACTIVITY = "last"
SIGNALS = ("red", "green", "blue")
TIMER_SECONDS = 0.5

OUTCOME_UNKNOWN = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.INTERNAL,
    RPCStatusCode.ABORTED,
}
"""Answers after which a call may or may not have had its effect."""


def activity_result(workflow_id: str, activity_id: str) -> str:
    return f"{activity_id} of {workflow_id}"


def last_result(workflow_id: str) -> str:
    return " + ".join(activity_result(workflow_id, each) for each in ACTIVITIES)


def kind(event: HistoryEvent) -> str:
    return EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")


@dataclass
class Run:
    """What is known for certain of one workflow."""

    workflow_id: str
    run_id: str = ""
    """Empty until the start is acknowledged."""
    signals: set[str] = field(default_factory=set)
    activities: dict[str, int] = field(default_factory=dict)
    """Acknowledged completions: activity id -> attempt."""
    handed_out: set[tuple[str, int]] = field(default_factory=set)
    """Activity id, attempt."""
    workflow_tasks: set[int] = field(default_factory=set)
    """Acknowledged completions, by the id of the started event."""
    seen: list[str] = field(default_factory=list)
    """Kinds of the events that the server has shown, the first one first."""
    perhaps_completed: bool = False
    """It was said to complete, and nobody heard the answer."""
    completed: bool = False
    """The server has said so."""


class Load:
    def __init__(self, client: Client, *, seed: int, open_limit: int = 24, payload_bytes: int = 0):
        self.client = client
        self.service = client.workflow_service
        self.random = random.Random(seed)
        self.open_limit = open_limit
        self.padding = "x" * payload_bytes
        self.name = uuid.uuid4().hex[:10]
        self.queue = TaskQueue(name=f"crash-{self.name}")
        self.runs: dict[str, Run] = {}
        self.wrong: list[str] = []
        """What contradicts an acknowledgement."""
        self.errors: Counter[tuple[str, str]] = Counter()
        """By method and code."""
        self.acknowledged = 0
        self.starting = True
        self.tasks: list[asyncio.Task[None]] = []
        self.signallers: set[asyncio.Task[None]] = set()

    # Running

    def begin(self) -> None:
        loops: list[Callable[[], Awaitable[None]]] = [self.start_workflows]
        loops += [self.look_for_completed]
        loops += [self.do_workflow_tasks] * 4
        loops += [self.do_activities] * 6
        self.tasks = [asyncio.ensure_future(loop()) for loop in loops]

    async def end(self) -> None:
        everything = [*self.tasks, *self.signallers]
        for task in everything:
            task.cancel()
        for ended in await asyncio.gather(*everything, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    def check_alive(self) -> None:
        """Raises what ended one of the loops, if anything did."""
        for task in self.tasks:
            if task.done():
                task.result()

    async def progress(self, count: int, timeout: float = 60) -> None:
        """Waits for this many further acknowledgements."""
        goal = self.acknowledged + count
        await self.until(lambda: self.acknowledged >= goal, timeout, f"{count} more acknowledgements")

    async def finish(self, timeout: float = 90) -> None:
        """Starts nothing more, and waits until all is done."""
        self.starting = False
        await self.until(
            lambda: not self.signallers and all(run.completed for run in self.runs.values()),
            timeout,
            "every workflow completes",
        )

    async def until(self, reached: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = asyncio.get_running_loop().time() + timeout
        while not reached():
            self.check_alive()
            unfinished = [run for run in self.runs.values() if not run.completed]
            assert asyncio.get_running_loop().time() < deadline, (
                f"never happened: {what}; {len(unfinished)} unfinished, such as {unfinished[:2]}; wrong: {self.wrong[:3]}; {self.errors}"
            )
            await asyncio.sleep(0.02)

    # The calls

    async def call(self, method: str, request: Any, timeout: float = 10) -> Any:
        """One call, never repeated."""
        call = getattr(self.service, method)(request, timeout=timedelta(seconds=timeout))
        try:
            # The client's own time-out is not always kept when the connection goes away under a call.
            return await asyncio.wait_for(call, timeout + 5)
        except asyncio.TimeoutError:
            self.errors[method, "no answer"] += 1
            raise RPCError(f"{method} did not return", RPCStatusCode.CANCELLED, b"") from None
        except RPCError as error:
            self.errors[method, error.status.name] += 1
            raise

    async def insist(self, method: str, request: Any) -> Any:
        """Repeats a call with a request id until its outcome is known."""
        while True:
            try:
                return await self.call(method, request)
            except RPCError as error:
                if error.status not in OUTCOME_UNKNOWN:
                    raise
                await asyncio.sleep(0.05)

    async def start_workflows(self) -> None:
        while True:
            open_runs = sum(not run.completed for run in self.runs.values())
            if not self.starting or open_runs >= self.open_limit:
                await asyncio.sleep(0.01)
                continue
            run = Run(f"crash-{self.name}-{len(self.runs):05}")
            self.runs[run.workflow_id] = run
            started = await self.insist(
                "start_workflow_execution",
                StartWorkflowExecutionRequest(
                    namespace=self.client.namespace,
                    workflow_id=run.workflow_id,
                    workflow_type=WorkflowType(name="Crash"),
                    task_queue=self.queue,
                    input=payloads(run.workflow_id, self.padding),
                    request_id=f"start-{run.workflow_id}",
                    workflow_id_reuse_policy=WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
                    workflow_task_timeout=seconds(2),
                ),
            )
            run.run_id = started.run_id
            self.acknowledged += 1
            signaller = asyncio.ensure_future(self.send_signals(run))
            self.signallers.add(signaller)
            signaller.add_done_callback(self.signaller_ended)

    def signaller_ended(self, task: asyncio.Task[None]) -> None:
        self.signallers.discard(task)
        if not task.cancelled() and task.exception():
            self.wrong.append(f"a signal failed: {task.exception()}")

    async def send_signals(self, run: Run) -> None:
        for signal in SIGNALS:
            await asyncio.sleep(self.random.uniform(0, 0.3))
            request = SignalWorkflowExecutionRequest(
                namespace=self.client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=run.workflow_id),
                signal_name=signal,
                input=payloads(signal, self.padding),
                request_id=f"{signal}-{run.workflow_id}",
            )
            repeated = False
            while True:
                try:
                    await self.call("signal_workflow_execution", request)
                    break
                except RPCError as error:
                    # A signal whose acknowledgement was lost may have let the workflow complete.
                    if repeated and error.status == RPCStatusCode.NOT_FOUND:
                        break
                    if error.status not in OUTCOME_UNKNOWN:
                        raise
                repeated = True
                await asyncio.sleep(0.05)
            run.signals.add(signal)
            self.acknowledged += 1

    async def poll(self, method: str, request: Any) -> Any:
        """The next task; none if the server had none, or was not there."""
        try:
            answer = await self.call(method, request, timeout=20)
        except RPCError as error:
            if error.status not in OUTCOME_UNKNOWN:
                raise
            await asyncio.sleep(0.05)
            return None
        return answer if answer.task_token else None

    async def respond(self, method: str, request: Any) -> bool:
        """Whether the server acknowledged. It may refuse: a task can have timed out, or completed with
        its acknowledgement lost."""
        try:
            await self.call(method, request)
        except RPCError as error:
            if error.status not in OUTCOME_UNKNOWN | {RPCStatusCode.NOT_FOUND}:
                raise
            return False
        self.acknowledged += 1
        return True

    async def do_activities(self) -> None:
        request = PollActivityTaskQueueRequest(
            namespace=self.client.namespace, task_queue=self.queue, identity="crash"
        )
        while True:
            task = await self.poll("poll_activity_task_queue", request)
            if task is None:
                continue
            run = self.runs[task.workflow_execution.workflow_id]
            attempt = (task.activity_id, task.attempt)
            if task.activity_id in run.activities:
                self.wrong.append(f"{run.workflow_id}: {attempt} was handed out after its acknowledged completion")
            if attempt in run.handed_out:
                self.wrong.append(f"{run.workflow_id}: {attempt} was handed out twice")
            run.handed_out.add(attempt)
            await asyncio.sleep(self.random.choice((0, 0, 0.01, 0.1)))
            input_values = values(task.input)
            is_last = task.activity_id == LAST_ACTIVITY
            result = " + ".join(input_values) if is_last else activity_result(run.workflow_id, task.activity_id)
            if await self.respond(
                "respond_activity_task_completed",
                RespondActivityTaskCompletedRequest(
                    namespace=self.client.namespace,
                    task_token=task.task_token,
                    result=payloads(result),
                    identity="crash",
                ),
            ):
                run.activities[task.activity_id] = task.attempt

    async def do_workflow_tasks(self) -> None:
        request = PollWorkflowTaskQueueRequest(
            namespace=self.client.namespace, task_queue=self.queue, identity="crash"
        )
        while True:
            task = await self.poll("poll_workflow_task_queue", request)
            if task is None:
                continue
            try:
                events = await self.whole_history(task)
            except RPCError as error:
                if error.status not in OUTCOME_UNKNOWN:
                    raise
                continue
            run = self.runs[task.workflow_execution.workflow_id]
            if run.completed:
                self.wrong.append(f"{run.workflow_id}: a workflow task after the acknowledged completion")
            # What says that this task started is a promise only when the task is answered; from the
            # second attempt on, also what says that it was scheduled.
            self.saw(run, events[:-1] if task.attempt == 1 else events[:-2])
            commands = self.decide(run, events)
            completes = any(
                each.HasField("complete_workflow_execution_command_attributes") for each in commands
            )
            if await self.respond(
                "respond_workflow_task_completed",
                RespondWorkflowTaskCompletedRequest(
                    namespace=self.client.namespace,
                    task_token=task.task_token,
                    commands=commands,
                    identity="crash",
                ),
            ):
                run.workflow_tasks.add(task.started_event_id)
                run.completed = completes
            else:
                run.perhaps_completed |= completes

    async def look_for_completed(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            for run in [run for run in self.runs.values() if run.perhaps_completed and not run.completed]:
                described = await self.describe(run)
                run.completed = (
                    described.workflow_execution_info.status
                    == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED
                )

    async def describe(self, run: Run) -> Any:
        return await self.insist(
            "describe_workflow_execution",
            DescribeWorkflowExecutionRequest(
                namespace=self.client.namespace,
                execution=WorkflowExecution(workflow_id=run.workflow_id, run_id=run.run_id),
            ),
        )

    async def whole_history(self, task: PollWorkflowTaskQueueResponse) -> list[HistoryEvent]:
        events, token = list(task.history.events), task.next_page_token
        while token:
            page = await self.call(
                "get_workflow_execution_history",
                GetWorkflowExecutionHistoryRequest(
                    namespace=self.client.namespace, execution=task.workflow_execution, next_page_token=token
                ),
            )
            events += page.history.events
            token = page.next_page_token
        return events

    def saw(self, run: Run, events: list[HistoryEvent]) -> None:
        if [event.event_id for event in events] != list(range(1, len(events) + 1)):
            self.wrong.append(f"{run.workflow_id}: event ids {[event.event_id for event in events]}")
        kinds = [kind(event) for event in events]
        shared = min(len(kinds), len(run.seen))
        if kinds[:shared] != run.seen[:shared]:
            self.wrong.append(f"{run.workflow_id}: a workflow task showed {run.seen}, a later one {kinds}")
            run.seen = kinds
        if len(kinds) > len(run.seen):
            run.seen = kinds

    def decide(self, run: Run, events: list[HistoryEvent]) -> list[Any]:
        """The workflow's code: the commands that follow from its history."""
        scheduled = {
            event.event_id: event.activity_task_scheduled_event_attributes.activity_id
            for event in events
            if kind(event) == "ACTIVITY_TASK_SCHEDULED"
        }
        results: dict[str, str] = {}
        for event in events:
            if kind(event) == "ACTIVITY_TASK_COMPLETED":
                completed = event.activity_task_completed_event_attributes
                results[scheduled[completed.scheduled_event_id]] = values(completed.result)[0]
        if not scheduled:
            timer = command(
                "START_TIMER", timer_id="timer", start_to_fire_timeout=seconds(TIMER_SECONDS)
            )
            return [timer, *(self.activity(each, [self.padding]) for each in ACTIVITIES)]
        if LAST_ACTIVITY in results:
            return [complete(results[LAST_ACTIVITY])]
        kinds = Counter(kind(event) for event in events)
        ready = (
            kinds["TIMER_FIRED"] == 1
            and kinds["WORKFLOW_EXECUTION_SIGNALED"] >= len(SIGNALS)
            and all(each in results for each in ACTIVITIES)
        )
        if ready and LAST_ACTIVITY not in scheduled.values():
            return [self.activity(LAST_ACTIVITY, [results[each] for each in ACTIVITIES])]
        return []

    def activity(self, activity_id: str, arguments: list[str]) -> Any:
        return command(
            "SCHEDULE_ACTIVITY_TASK",
            activity_id=activity_id,
            activity_type={"name": "crash"},
            task_queue=self.queue,
            input=payloads(*arguments),
            # Short, so that an attempt that a crash left with nobody is soon made again.
            start_to_close_timeout=seconds(2),
            retry_policy={"initial_interval": seconds(0.1), "backoff_coefficient": 1.0},
        )

    # What must be true

    async def check_present(self) -> None:
        """After a restart: what was acknowledged of the workflows that are not finished, or were not a
        moment ago."""
        recent = list(self.runs.values())[-4 * self.open_limit :]
        await self.check(run for run in recent if run.run_id)

    async def check_not_denied(self) -> None:
        """While the server cannot do its work, it may refuse to say what it has; it must not say that it
        has not."""
        for run in [run for run in self.runs.values() if run.run_id]:
            execution = WorkflowExecution(workflow_id=run.workflow_id, run_id=run.run_id)
            try:
                await self.call(
                    "describe_workflow_execution",
                    DescribeWorkflowExecutionRequest(namespace=self.client.namespace, execution=execution),
                )
            except RPCError as error:
                if error.status not in OUTCOME_UNKNOWN:
                    self.wrong.append(f"{run.workflow_id}: acknowledged, but {error.message}")

    async def check_all(self) -> None:
        assert self.runs and all(run.completed for run in self.runs.values())
        await self.check(self.runs.values())

    async def check(self, runs: Iterable[Run]) -> None:
        at_once = asyncio.Semaphore(16)

        async def one(run: Run) -> None:
            async with at_once:
                await self.check_run(run)

        await asyncio.gather(*(one(run) for run in runs))
        assert not self.wrong, "\n".join(self.wrong[:20])

    async def check_run(self, run: Run) -> None:
        deadline = asyncio.get_running_loop().time() + 15
        while True:
            completed = run.completed
            try:
                problems = await self.problems(run)
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
                self.wrong.append(f"{run.workflow_id}: acknowledged, but {error.message}")
                return
            # What comes while a workflow task is out is in the history only when that task has ended.
            if not problems or completed or asyncio.get_running_loop().time() > deadline:
                self.wrong += problems
                return
            await asyncio.sleep(0.2)

    async def problems(self, run: Run) -> list[str]:
        # Noted before the history is read: what is acknowledged meanwhile may be in it or not.
        signals, activities = set(run.signals), dict(run.activities)
        workflow_tasks, completed, seen = set(run.workflow_tasks), run.completed, list(run.seen)
        execution = WorkflowExecution(workflow_id=run.workflow_id, run_id=run.run_id)
        described = await self.describe(run)
        events: list[HistoryEvent] = []
        token = b""
        while True:
            page = await self.insist(
                "get_workflow_execution_history",
                GetWorkflowExecutionHistoryRequest(
                    namespace=self.client.namespace, execution=execution, next_page_token=token
                ),
            )
            events += page.history.events
            token = page.next_page_token
            if not token:
                break

        problems: list[str] = []

        def expect(holds: bool, what: str) -> None:
            if not holds:
                problems.append(f"{run.workflow_id}: {what}: {[kind(event) for event in events]}")

        kinds = [kind(event) for event in events]
        expect([event.event_id for event in events] == list(range(1, len(events) + 1)), "a gap in the history")
        expect(kinds[: len(seen)] == seen, f"events that a workflow task showed are gone, {seen}")
        present = Counter(
            event.workflow_execution_signaled_event_attributes.signal_name
            for event in events
            if kind(event) == "WORKFLOW_EXECUTION_SIGNALED"
        )
        expect(all(present[signal] == 1 for signal in signals), f"acknowledged signals {signals}, found {present}")
        expect(all(count == 1 for count in present.values()), f"signals twice: {present}")
        self.check_activities(run, events, activities, expect)
        answered = {
            event.workflow_task_completed_event_attributes.started_event_id
            for event in events
            if kind(event) == "WORKFLOW_TASK_COMPLETED"
        }
        expect(workflow_tasks <= answered, f"acknowledged workflow tasks {workflow_tasks}, found {answered}")
        if not completed:
            return problems
        expect(
            described.workflow_execution_info.status
            == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED,
            "completed, but described otherwise",
        )
        expect(described.workflow_execution_info.history_length == len(events), "described with another length")
        expect(kinds[-1] == "WORKFLOW_EXECUTION_COMPLETED", "not completed")
        expect(kinds.count("WORKFLOW_EXECUTION_COMPLETED") == 1, "completed more than once")
        result = values(events[-1].workflow_execution_completed_event_attributes.result)
        expect(result == [last_result(run.workflow_id)], f"wrong result {result}")
        self.check_timer(events, expect)
        return problems

    def check_activities(
        self,
        run: Run,
        events: list[HistoryEvent],
        acknowledged: dict[str, int],
        expect: Callable[[bool, str], None],
    ) -> None:
        scheduled: dict[int, str] = {}
        attempts: dict[int, int] = {}
        completed: Counter[str] = Counter()
        completed_attempt: dict[str, int] = {}
        for event in events:
            match kind(event):
                case "ACTIVITY_TASK_SCHEDULED":
                    scheduled[event.event_id] = event.activity_task_scheduled_event_attributes.activity_id
                case "ACTIVITY_TASK_STARTED":
                    started = event.activity_task_started_event_attributes
                    attempts[event.event_id] = started.attempt
                case "ACTIVITY_TASK_COMPLETED":
                    attributes = event.activity_task_completed_event_attributes
                    activity_id = scheduled[attributes.scheduled_event_id]
                    completed[activity_id] += 1
                    completed_attempt[activity_id] = attempts[attributes.started_event_id]
        expect(len(set(scheduled.values())) == len(scheduled), f"scheduled twice: {scheduled}")
        expect(all(count == 1 for count in completed.values()), f"completed twice: {completed}")
        for activity_id, attempt in acknowledged.items():
            expect(completed[activity_id] == 1, f"the acknowledged completion of {activity_id} is gone")
            expect(
                completed_attempt.get(activity_id) == attempt,
                f"{activity_id}: acknowledged attempt {attempt}, found {completed_attempt.get(activity_id)}",
            )
            later = [each for each in run.handed_out if each[0] == activity_id and each[1] > attempt]
            expect(not later, f"attempts after the completed one: {later}")

    def check_timer(self, events: list[HistoryEvent], expect: Callable[[bool, str], None]) -> None:
        started = [event for event in events if kind(event) == "TIMER_STARTED"]
        fired = [event for event in events if kind(event) == "TIMER_FIRED"]
        expect(len(started) == len(fired) == 1, "not exactly one timer")
        if started and fired:
            waited = fired[0].event_time.ToDatetime() - started[0].event_time.ToDatetime()
            expect(waited >= timedelta(seconds=TIMER_SECONDS), f"the timer fired after {waited}")
