"""The key that a tool gives to the service that it calls, so that a call which is made again is known."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from server import binary
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    StartActivityInput,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast gives keys", allow_module_level=True)

KEY, CREDENTIAL = "steadfast-idempotency-key", "steadfast-credential"
seen: list[tuple[str, int, dict[str, Payload]]] = []


@activity.defn
async def pay(amount: int) -> None:
    if activity.info().attempt < 3:
        raise ApplicationError("the service is away")


@workflow.defn(sandboxed=False)
class Pays:
    @workflow.run
    async def run(self) -> None:
        again = RetryPolicy(initial_interval=timedelta(milliseconds=10))
        for amount in (1, 1):
            await workflow.execute_activity(
                pay, amount, start_to_close_timeout=timedelta(seconds=10), retry_policy=again
            )


class Reads(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput):
        info = activity.info()
        seen.append((info.activity_id, info.attempt, dict(input.headers)))
        return await super().execute_activity(input)


class Claims(WorkflowOutboundInterceptor):
    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle:
        forged = Payload(metadata={"encoding": b"json/plain"}, data=b'"forged"')
        own = Payload(metadata={"encoding": b"json/plain"}, data=b'"own"')
        input.headers = {**input.headers, KEY: forged, CREDENTIAL: forged, "own": own}
        return super().start_activity(input)


class Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(Claims(outbound))


class Both(Interceptor):
    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return Reads(next)

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput):
        return Inbound


async def test_all_attempts_of_a_call_have_one_key_and_no_other_call_has_it(client: Client, unique: str) -> None:
    seen.clear()
    async with Worker(client, task_queue=unique, workflows=[Pays], activities=[pay], interceptors=[Both()]):
        handle = await client.start_workflow(Pays.run, id=unique, task_queue=unique)
        await handle.result()
    assert len(seen) == 6
    keys: dict[str, set[str]] = {}
    for activity_id, _, headers in seen:
        # What a workflow claims is replaced; the rest of its header is there.
        assert CREDENTIAL not in headers and headers["own"].data == b'"own"'
        keys.setdefault(activity_id, set()).add(json.loads(headers[KEY].data))
    [first], [second] = keys.values()
    assert first != second and "forged" not in (first, second)
    assert all(key.startswith(f"{handle.result_run_id}/") for key in (first, second))
    history = await handle.fetch_history()
    assert first not in history.to_json()
