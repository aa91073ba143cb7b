"""Workers: what they report about themselves, who is listed, and how they say goodbye."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from harness import eventually
from raw import Raw, complete, refusal, seconds
from temporalio import workflow
from temporalio.client import Client
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.worker import UnsandboxedWorkflowRunner, Worker


@workflow.defn
class Nothing:
    @workflow.run
    async def run(self) -> None:
        pass


@pytest.fixture
def raw(client, unique) -> Raw:
    return Raw(client, unique)


def heartbeat(raw: Raw, name: str = "one", **fields) -> dict:
    return {
        "worker_instance_key": f"{name}-{raw.unique}",
        "worker_identity": f"identity-{name}-{raw.unique}",
        "task_queue": raw.queue,
        "sdk_name": "raw",
        "sdk_version": "1.2.3",
        "status": "WORKER_STATUS_RUNNING",
        "host_info": {"host_name": "here", "process_id": "17"},
        "heartbeat_time": {"seconds": int(time.time())},
        "start_time": {"seconds": int(time.time()) - 5},
        **fields,
    }


async def beat(raw: Raw, *heartbeats: dict) -> None:
    await raw.call("record_worker_heartbeat", identity="raw", worker_heartbeat=list(heartbeats))


async def listed(raw: Raw, query: str) -> list[str]:
    answer = await raw.call("list_workers", query=query)
    return sorted(each.worker_heartbeat.worker_instance_key.split("-")[0] for each in answer.workers_info)


async def test_a_reported_worker_is_described(raw):
    await beat(raw, heartbeat(raw))
    answer = await raw.call("describe_worker", worker_instance_key=f"one-{raw.unique}")
    found = answer.worker_info.worker_heartbeat
    assert (found.worker_identity, found.task_queue) == (f"identity-one-{raw.unique}", raw.queue)
    assert (found.sdk_name, found.sdk_version, found.host_info.host_name) == ("raw", "1.2.3", "here")
    assert found.status == 1


async def test_the_latest_report_counts(raw):
    await beat(raw, heartbeat(raw, sdk_version="1.0.0"))
    await beat(raw, heartbeat(raw, sdk_version="1.1.0", current_sticky_cache_size=7))
    answer = await raw.call("describe_worker", worker_instance_key=f"one-{raw.unique}")
    found = answer.worker_info.worker_heartbeat
    assert (found.sdk_version, found.current_sticky_cache_size) == ("1.1.0", 7)
    assert await listed(raw, f"TaskQueue = '{raw.queue}'") == ["one"]


async def test_an_unknown_worker(raw):
    found = await refusal(raw.call("describe_worker", worker_instance_key=f"nobody-{raw.unique}"))
    assert found.code == "NOT_FOUND"


async def test_lists_by_filter(raw):
    await beat(
        raw,
        heartbeat(raw, "one"),
        heartbeat(raw, "two", sdk_version="2.0.0"),
        heartbeat(raw, "three", task_queue=f"other-{raw.unique}", status="WORKER_STATUS_SHUTTING_DOWN"),
    )
    mine = f"TaskQueue = '{raw.queue}'"
    assert await listed(raw, mine) == ["one", "two"]
    assert await listed(raw, f"TaskQueue = 'other-{raw.unique}'") == ["three"]
    assert await listed(raw, f"WorkerInstanceKey = 'two-{raw.unique}'") == ["two"]
    assert await listed(raw, f"WorkerIdentity = 'identity-one-{raw.unique}'") == ["one"]
    assert await listed(raw, f"{mine} AND SdkVersion = '2.0.0'") == ["two"]
    assert await listed(raw, f"{mine} OR TaskQueue = 'other-{raw.unique}'") == ["one", "three", "two"]


async def test_lists_in_pages(raw):
    await beat(raw, *[heartbeat(raw, f"w{number}") for number in range(5)])
    found, token = [], b""
    while True:
        page = await raw.call("list_workers", query=f"TaskQueue = '{raw.queue}'", page_size=2, next_page_token=token)
        found += [each.worker_heartbeat.worker_instance_key.split("-")[0] for each in page.workers_info]
        token = page.next_page_token
        if not token:
            break
    assert sorted(found) == ["w0", "w1", "w2", "w3", "w4"]


async def test_a_filter_that_breaks_off_is_refused(raw):
    await beat(raw, heartbeat(raw))
    found = await refusal(raw.call("list_workers", query="TaskQueue ="))
    assert found and found.code == "INVALID_ARGUMENT"


async def test_an_sdk_worker_reports_itself(raw):
    runtime = Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=timedelta(seconds=1))
    client = await Client.connect(raw.client.service_client.config.target_host, runtime=runtime)
    worker = Worker(
        client,
        task_queue=raw.queue,
        workflows=[Nothing],
        workflow_runner=UnsandboxedWorkflowRunner(),
        identity=f"sdk-{raw.unique}",
    )
    async with worker:
        await client.execute_workflow(Nothing.run, id=raw.id, task_queue=raw.queue)

        async def shows():
            answer = await raw.call("list_workers", query=f"TaskQueue = '{raw.queue}'")
            return list(answer.workers_info)

        [info] = await eventually(shows, "the worker is listed", 20)
        assert info.worker_heartbeat.worker_identity == f"sdk-{raw.unique}"
        assert info.worker_heartbeat.sdk_name == "temporal-python"


async def test_a_worker_that_leaves_is_done_quickly(raw):
    """The server ends the polls of a worker that says goodbye, so nobody waits for a whole long poll."""
    worker = Worker(raw.client, task_queue=raw.queue, workflows=[Nothing], workflow_runner=UnsandboxedWorkflowRunner())
    async with worker:
        await raw.client.execute_workflow(Nothing.run, id=raw.id, task_queue=raw.queue)
        start = time.monotonic()
    assert time.monotonic() - start < 10


async def test_shutting_down_marks_the_worker(raw):
    await beat(raw, heartbeat(raw))
    await raw.call(
        "shutdown_worker",
        identity="raw",
        reason="a test",
        sticky_task_queue=f"sticky-{raw.unique}",
        worker_instance_key=f"one-{raw.unique}",
        worker_heartbeat=heartbeat(raw, status="WORKER_STATUS_SHUTDOWN"),
    )

    async def not_running():
        found = await refusal(raw.call("describe_worker", worker_instance_key=f"one-{raw.unique}"))
        if found:
            return found.code == "NOT_FOUND"
        answer = await raw.call("describe_worker", worker_instance_key=f"one-{raw.unique}")
        return answer.worker_info.worker_heartbeat.status != 1

    await eventually(not_running, "the worker is no longer running", 5)


async def test_shutting_down_frees_the_sticky_queue_at_once(raw):
    """The task does not wait for the time-out of a sticky queue whose worker has said goodbye."""
    sticky = {"name": f"sticky-{raw.unique}", "kind": "TASK_QUEUE_KIND_STICKY", "normal_name": raw.queue}
    task = await raw.workflow_task()
    poll = asyncio.create_task(refusal(raw.poll_workflow_task(task_queue=sticky, timeout=2)))
    await asyncio.sleep(0.2)
    await raw.answer(task, sticky_attributes={"worker_task_queue": sticky, "schedule_to_start_timeout": seconds(60)})
    # The worker was there until now; an empty answer and a deadline are both the end of its poll.
    await poll
    await raw.call("shutdown_worker", identity="raw", reason="a test", sticky_task_queue=sticky["name"])
    await raw.signal()
    task = await raw.poll_workflow_task()
    assert task.workflow_execution.workflow_id == raw.id
    await raw.answer(task, complete())
