"""What a scenario needs: names, workers, and a way to wait until the history has come so far."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from normalize import Normalizer
from raw import Raw
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

SCENARIOS: dict[str, Callable[[Scene], Awaitable[None]]] = {}


def scenario(function: Callable[[Scene], Awaitable[None]]):
    """Registers a scenario under its function's name."""
    assert function.__name__ not in SCENARIOS, function.__name__
    SCENARIOS[function.__name__] = function
    return function


async def run_scenario(name: str, client: Client) -> dict[str, list[dict[str, Any]]]:
    """The normalized histories that the scenario leaves, by label."""
    scene = Scene(client, name)
    await asyncio.wait_for(SCENARIOS[name](scene), 90)
    assert scene.histories, f"{name} recorded nothing"
    return scene.histories


async def fetch_events(client: Client, workflow_id: str, run_id: str = "") -> list[HistoryEvent]:
    events: list[HistoryEvent] = []
    token = b""
    while True:
        answer = await client.workflow_service.get_workflow_execution_history(
            GetWorkflowExecutionHistoryRequest(
                namespace=client.namespace,
                execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
                next_page_token=token,
            )
        )
        events += answer.history.events
        token = answer.next_page_token
        if not token:
            return events


async def eventually(check: Callable[[], Awaitable[Any]], what: str, timeout: float = 20.0) -> Any:
    """The first true answer of `check`."""
    deadline = time.monotonic() + timeout
    while True:
        answer = await check()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"never happened: {what}"
        await asyncio.sleep(0.03)


class Scene:
    """One run of one scenario: its own ids and task queue on a shared server."""

    def __init__(self, client: Client, name: str):
        self.client = client
        self.unique = uuid.uuid4().hex[:10]
        self.id = f"{name}-{self.unique}"
        self.queue = f"queue-{self.unique}"
        self.normalizer = Normalizer(self.unique)
        self.histories: dict[str, list[dict[str, Any]]] = {}

    def worker(self, workflows: list[type], activities: list[Callable] | None = None, **options) -> Worker:
        options.setdefault("task_queue", self.queue)
        options.setdefault("workflow_runner", UnsandboxedWorkflowRunner())
        return Worker(self.client, workflows=workflows, activities=activities or [], **options)

    def raw(self, queue: str | None = None) -> Raw:
        """A worker without an SDK, for what an SDK would not do."""
        raw = Raw(self.client, self.unique)
        raw.id, raw.queue = self.id, queue or self.queue
        return raw

    async def start(self, workflow: Any, *args: Any, **options) -> WorkflowHandle:
        options.setdefault("id", self.id)
        options.setdefault("task_queue", self.queue)
        return await self.client.start_workflow(workflow, args=list(args), **options)

    async def events(self, workflow_id: str | None = None, run_id: str | None = None) -> list[HistoryEvent]:
        return await fetch_events(self.client, workflow_id or self.id, run_id or "")

    async def reached(self, event: str, count: int = 1, workflow_id: str | None = None, run_id: str | None = None) -> HistoryEvent:
        """Waits until the history holds `count` events of this type; answers the last of them."""
        kind = EventType.Value(f"EVENT_TYPE_{event}")

        async def look() -> HistoryEvent | None:
            found = [e for e in await self.events(workflow_id, run_id) if e.event_type == kind]
            return found[count - 1] if len(found) >= count else None

        return await eventually(look, f"{count} x {event}")

    async def record(self, label: str = "workflow", workflow_id: str | None = None, run_id: str | None = None) -> None:
        """Keeps a run's history, as it is now, as a result of the scenario."""
        assert label not in self.histories, label
        events = await self.events(workflow_id, run_id)
        self.histories[label] = self.normalizer.history(events)
