"""The plugin and the interceptor in workers of the SDK, against a server.

The headers are put there by a workflow's interceptor, as a server without credentials leaves them.
"""

from __future__ import annotations

import concurrent.futures
import uuid
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.worker import (
    Interceptor,
    StartActivityInput,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

# As anybody writes it: in the SDK's sandbox for workflows, too.
import steadfast


@activity.defn
async def in_the_loop() -> str:
    return steadfast.idempotency_key()


@activity.defn
def in_a_thread() -> str:
    return steadfast.idempotency_key()


@workflow.defn
class Calls:
    @workflow.run
    async def run(self) -> list[str]:
        wait = timedelta(seconds=20)
        return [
            await workflow.execute_activity(in_the_loop, start_to_close_timeout=wait),
            await workflow.execute_activity(in_a_thread, start_to_close_timeout=wait),
        ]


class _Outbound(WorkflowOutboundInterceptor):
    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle:
        key = Payload(metadata={"encoding": b"json/plain"}, data=f'"for {input.activity}"'.encode())
        input.headers = {**input.headers, "steadfast-idempotency-key": key}
        return super().start_activity(input)


class _Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_Outbound(outbound))


class Headers(Interceptor):
    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput):
        return _Inbound


@pytest.mark.parametrize("way", ["interceptor", "worker plugin", "client plugin"])
async def test_a_worker_hands_it_to_activities(shared_server: str, way: str) -> None:
    plugin = [steadfast.CredentialPlugin()]
    client = await Client.connect(shared_server, plugins=plugin if way == "client plugin" else [])
    interceptors: list[Interceptor] = [Headers()]
    if way == "interceptor":
        interceptors.append(steadfast.CredentialInterceptor())
    queue = f"package-{uuid.uuid4()}"
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        async with Worker(
            client,
            task_queue=queue,
            workflows=[Calls],
            activities=[in_the_loop, in_a_thread],
            activity_executor=threads,
            interceptors=interceptors,
            plugins=plugin if way == "worker plugin" else [],
        ):
            keys = await client.execute_workflow(Calls.run, id=queue, task_queue=queue)
    # A server that makes keys replaces what workflows claim.
    assert len(keys) == 2 and all(keys)
