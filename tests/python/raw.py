"""The API as a worker and a client without an SDK use it: one request, one answer or one refusal."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import temporalio.api.operatorservice.v1 as operatorservice
import temporalio.api.workflowservice.v1 as workflowservice
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from temporalio.api import errordetails
from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.service import RPCError

T = TypeVar("T")
NO_SUCH_RUN = "00000000-0000-4000-8000-000000000000"


def payload(value: Any) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(value).encode())


def payloads(*values: Any) -> Payloads:
    return Payloads(payloads=[payload(value) for value in values])


def values(message: Payloads) -> list[Any]:
    return [json.loads(each.data) for each in message.payloads]


def seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=value))
    return duration


def command(kind: str, **attributes: Any) -> Command:
    return Command(
        command_type=f"COMMAND_TYPE_{kind}",
        **{f"{kind.lower()}_command_attributes": attributes},
    )


def complete(*result: Any) -> Command:
    return command("COMPLETE_WORKFLOW_EXECUTION", result=payloads(*result))


def camel_case(method: str) -> str:
    return "".join(word.capitalize() for word in method.split("_"))


@dataclass(frozen=True)
class Refusal:
    code: str
    message: str
    detail: str | None
    """The name of the first detail's message."""
    value: Message | None

    def __str__(self) -> str:
        return f"{self.code} {self.detail}: {self.message}"


async def refusal(call: Awaitable[Any]) -> Refusal | None:
    """How the server refuses this call; None if it does not."""
    try:
        await call
    except RPCError as error:
        if error.message == "Timeout expired":
            # The client's own clock was faster than the server's answer.
            return Refusal("DEADLINE_EXCEEDED", error.message, None, None)
        for packed in error.grpc_status.details:
            name = packed.type_url.rsplit(".", 1)[-1]
            value = getattr(errordetails.v1, name)()
            assert packed.Unpack(value), packed.type_url
            return Refusal(error.status.name, error.message, name, value)
        return Refusal(error.status.name, error.message, None, None)
    return None


async def shows_at_once(client: Client) -> bool:
    """Whether lists and counts show what was written before they were asked: the Temporal server's do later."""
    info = await client.workflow_service.get_system_info(workflowservice.GetSystemInfoRequest())
    return "steadfast" in info.server_version


class Raw:
    """One test's workflow and task queue, driven call by call.

    Fields of requests are given as keywords and may be plain dicts; the ones that every call needs
    are filled in.
    """

    def __init__(self, client: Client, unique: str):
        self.client = client
        self.namespace = client.namespace
        self.unique = unique
        self.id = f"workflow-{unique}"
        self.queue = f"queue-{unique}"
        self.run_id = ""

    async def call(self, method: str, *, timeout: float = 30, **fields: Any) -> Any:
        package, service = workflowservice, self.client.workflow_service
        if not hasattr(service, method):
            package, service = operatorservice, self.client.operator_service
        request = getattr(package, f"{camel_case(method)}Request")
        if "namespace" in request.DESCRIPTOR.fields_by_name:
            fields.setdefault("namespace", self.namespace)
        # The Temporal server limits how often it looks things up.
        retry = method.startswith(("list_", "count_", "scan_"))
        return await getattr(service, method)(request(**fields), timeout=timedelta(seconds=timeout), retry=retry)

    def execution(self, **fields: Any) -> dict[str, str]:
        return {"workflow_id": self.id, "run_id": self.run_id, **fields}

    def start_fields(self, **fields: Any) -> dict[str, Any]:
        return {
            "workflow_id": self.id,
            "workflow_type": {"name": "Raw"},
            "task_queue": {"name": self.queue},
            "request_id": f"start-{self.unique}",
            "identity": "raw",
            **fields,
        }

    async def start(self, **fields: Any) -> Any:
        return await self.call("start_workflow_execution", **self.start_fields(**fields))

    async def running(self, **fields: Any) -> dict[str, str]:
        """A workflow whose first task nobody has taken."""
        self.run_id = (await self.start(**fields)).run_id
        return self.execution()

    async def closed(self) -> dict[str, str]:
        execution = await self.running()
        await self.call("terminate_workflow_execution", workflow_execution=execution)
        return execution

    async def signal(self, name: str = "wake", **fields: Any) -> None:
        await self.call("signal_workflow_execution", workflow_execution=self.execution(), signal_name=name, **fields)

    async def poll_workflow_task(self, timeout: float = 20, **fields: Any) -> Any:
        fields.setdefault("task_queue", {"name": self.queue})
        return await self.call("poll_workflow_task_queue", timeout=timeout, identity="raw", **fields)

    async def workflow_task(self, **fields: Any) -> Any:
        """The first task of a new workflow."""
        await self.running(**fields)
        return await self.poll_workflow_task()

    async def answer(self, task: Any, *commands: Command | dict[str, Any], **fields: Any) -> Any:
        fields.setdefault("task_token", task.task_token)
        return await self.call("respond_workflow_task_completed", identity="raw", commands=commands, **fields)

    async def completed(self) -> dict[str, str]:
        await self.answer(await self.workflow_task(), complete("done"))
        return self.execution()

    def activity(self, **fields: Any) -> Command:
        """The command that schedules an activity."""
        return command(
            "SCHEDULE_ACTIVITY_TASK",
            **{
                "activity_id": "1",
                "activity_type": {"name": "raw_activity"},
                "task_queue": {"name": self.queue},
                "start_to_close_timeout": seconds(60),
                **fields,
            },
        )

    async def poll_activity_task(self, timeout: float = 20, **fields: Any) -> Any:
        fields.setdefault("task_queue", {"name": self.queue})
        return await self.call("poll_activity_task_queue", timeout=timeout, identity="raw", **fields)

    async def activity_task(self, **fields: Any) -> Any:
        """A started activity of a new workflow."""
        await self.answer(await self.workflow_task(), self.activity(**fields))
        return await self.poll_activity_task()

    async def complete_activity(self, task: Any, *result: Any) -> None:
        await self.call(
            "respond_activity_task_completed",
            task_token=task.task_token,
            result=payloads(*result),
            identity="raw",
        )

    def update_fields(self, **fields: Any) -> dict[str, Any]:
        return {
            "workflow_execution": self.execution(),
            "wait_policy": {"lifecycle_stage": "UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED"},
            "request": {"meta": {"update_id": "update"}, "input": {"name": "raw_update"}},
            **fields,
        }

    async def update(self, timeout: float = 30, **fields: Any) -> Any:
        return await self.call("update_workflow_execution", timeout=timeout, **self.update_fields(**fields))

    def start_operation(self, **fields: Any) -> dict[str, Any]:
        return {"start_workflow": {"namespace": self.namespace, **self.start_fields(**fields)}}

    def update_operation(self, **fields: Any) -> dict[str, Any]:
        fields = {"workflow_execution": {"workflow_id": self.id}, **fields}
        return {"update_workflow": {"namespace": self.namespace, **self.update_fields(**fields)}}

    async def reset(self, **fields: Any) -> Any:
        return await self.call(
            "reset_workflow_execution",
            **{
                "workflow_execution": self.execution(),
                "workflow_task_finish_event_id": 4,
                "request_id": f"reset-{self.unique}",
                **fields,
            },
        )

    async def list(self, query: str, **fields: Any) -> Any:
        return await self.call("list_workflow_executions", query=query, **fields)

    async def shown(self, look: Callable[[], Awaitable[T]], expected: T) -> None:
        """Asserts what a list or count shows now: the first answer counts, unless the server is slow by design."""
        found = await look()
        if found != expected and not await shows_at_once(self.client):
            deadline = time.monotonic() + 15
            while found != expected and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                found = await look()
        assert found == expected

    async def events(self) -> list[HistoryEvent]:
        events: list[HistoryEvent] = []
        token = b""
        while True:
            page = await self.call("get_workflow_execution_history", execution=self.execution(), next_page_token=token)
            events += page.history.events
            token = page.next_page_token
            if not token:
                return events

    async def event_types(self) -> list[str]:
        return [EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in await self.events()]
