"""What describing a workflow tells about it while it lives and afterwards."""

from __future__ import annotations

import time

import pytest
from harness import eventually
from raw import Raw, command, complete, payload, payloads, seconds, values
from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState, WorkflowExecutionStatus


@pytest.fixture
def raw(client, unique) -> Raw:
    return Raw(client, unique)


async def describe(raw: Raw, **fields):
    return await raw.call("describe_workflow_execution", execution=raw.execution(**fields))


def state(activity) -> str:
    return PendingActivityState.Name(activity.state).removeprefix("PENDING_ACTIVITY_STATE_")


async def fail(raw: Raw, task, message: str, **fields) -> None:
    await raw.call(
        "respond_activity_task_failed",
        task_token=task.task_token,
        identity="the failing worker",
        failure={"message": message, "application_failure_info": {"type": "Refused"}, **fields},
    )


async def test_a_new_workflow(raw):
    before = time.time()
    await raw.running(
        workflow_execution_timeout=seconds(3600),
        workflow_run_timeout=seconds(600),
        workflow_task_timeout=seconds(7),
        memo={"fields": {"note": payload("remember")}},
        user_metadata={"summary": payload("a summary"), "details": payload("details")},
    )
    answer = await describe(raw)
    config, info = answer.execution_config, answer.workflow_execution_info
    assert config.task_queue.name == raw.queue
    assert config.workflow_execution_timeout == seconds(3600)
    assert config.workflow_run_timeout == seconds(600)
    assert config.default_workflow_task_timeout == seconds(7)
    assert config.user_metadata.summary == payload("a summary")
    assert (info.execution.workflow_id, info.execution.run_id) == (raw.id, raw.run_id)
    assert (info.type.name, info.task_queue, info.first_run_id) == ("Raw", raw.queue, raw.run_id)
    assert info.status == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
    assert info.history_length == 2
    assert info.history_size_bytes > 0
    assert not info.HasField("close_time")
    assert abs(info.start_time.ToNanoseconds() / 1e9 - before) < 10
    assert info.execution_time == info.start_time
    assert info.memo.fields["note"] == payload("remember")
    assert (info.root_execution.workflow_id, info.root_execution.run_id) == (raw.id, raw.run_id)
    expires = answer.workflow_extended_info.execution_expiration_time.ToNanoseconds() / 1e9
    assert abs(expires - before - 3600) < 10


@pytest.mark.parametrize("end", ["completed", "closed"])
async def test_a_closed_workflow(raw, end):
    await getattr(raw, end)()
    info = (await describe(raw)).workflow_execution_info
    assert info.status == {"completed": 2, "closed": 5}[end]
    assert info.close_time.ToNanoseconds() >= info.start_time.ToNanoseconds()
    assert info.history_length == len(await raw.events())
    assert info.execution_duration.ToNanoseconds() >= 0


async def test_the_default_timeouts(raw):
    await raw.running()
    config = (await describe(raw)).execution_config
    assert config.default_workflow_task_timeout == seconds(10)
    assert config.workflow_run_timeout == seconds(0)
    assert config.workflow_execution_timeout == seconds(0)


async def test_the_workflow_task(raw):
    await raw.running()
    pending = (await describe(raw)).pending_workflow_task
    assert pending.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED
    assert pending.attempt == 1
    assert pending.HasField("scheduled_time") and not pending.HasField("started_time")
    task = await raw.poll_workflow_task()
    pending = (await describe(raw)).pending_workflow_task
    assert pending.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED
    assert pending.HasField("started_time")
    await raw.call("respond_workflow_task_failed", task_token=task.task_token, failure={"message": "no"})
    again = await raw.poll_workflow_task()
    assert again.attempt == 2
    assert (await describe(raw)).pending_workflow_task.attempt == 2
    await raw.answer(again)
    assert not (await describe(raw)).HasField("pending_workflow_task")


async def test_an_activity_from_scheduled_to_completed(raw):
    await raw.answer(
        await raw.workflow_task(),
        raw.activity(activity_id="only", input=payloads("input"), heartbeat_timeout=seconds(60)),
    )
    [activity] = (await describe(raw)).pending_activities
    assert (activity.activity_id, activity.activity_type.name, state(activity)) == ("only", "raw_activity", "SCHEDULED")
    assert activity.attempt == 1
    assert not activity.HasField("last_started_time")
    task = await raw.poll_activity_task()
    [activity] = (await describe(raw)).pending_activities
    assert (state(activity), activity.last_worker_identity) == ("STARTED", "raw")
    assert activity.HasField("last_started_time")
    await raw.call("record_activity_task_heartbeat", task_token=task.task_token, details=payloads({"done": 3}))

    async def beaten():
        [activity] = (await describe(raw)).pending_activities
        return activity.HasField("heartbeat_details") and activity

    activity = await eventually(beaten, "the heartbeat shows", 5)
    assert values(activity.heartbeat_details) == [{"done": 3}]
    assert activity.HasField("last_heartbeat_time")
    await raw.complete_activity(task, "result")
    assert not (await describe(raw)).pending_activities


async def test_an_activity_between_two_attempts(raw):
    task = await raw.activity_task(
        retry_policy={"initial_interval": seconds(30), "backoff_coefficient": 2, "maximum_attempts": 5}
    )
    await fail(raw, task, "the first attempt failed")
    [activity] = (await describe(raw)).pending_activities
    assert (state(activity), activity.attempt, activity.maximum_attempts) == ("SCHEDULED", 2, 5)
    assert activity.last_failure.message == "the first attempt failed"
    assert activity.last_failure.application_failure_info.type == "Refused"
    assert activity.last_worker_identity == "raw", "who started it"
    assert 25 < activity.next_attempt_schedule_time.ToNanoseconds() / 1e9 - time.time() < 31
    assert 30 <= activity.current_retry_interval.ToNanoseconds() / 1e9 < 31
    assert "ACTIVITY_TASK_STARTED" not in await raw.event_types(), "an attempt that is retried leaves no event"


async def test_the_second_attempt(raw):
    task = await raw.activity_task(retry_policy={"initial_interval": seconds(0.1), "backoff_coefficient": 1})
    await raw.call("record_activity_task_heartbeat", task_token=task.task_token, details=payloads("so far"))
    await fail(raw, task, "the first attempt failed")
    again = await raw.poll_activity_task()
    assert again.attempt == 2
    assert values(again.heartbeat_details) == ["so far"]
    [activity] = (await describe(raw)).pending_activities
    assert (state(activity), activity.attempt) == ("STARTED", 2)
    assert activity.last_failure.message == "the first attempt failed"
    await raw.complete_activity(again)
    started = [e for e in await raw.events() if e.HasField("activity_task_started_event_attributes")]
    assert started[0].activity_task_started_event_attributes.attempt == 2
    assert started[0].activity_task_started_event_attributes.last_failure.message == "the first attempt failed"


async def test_a_cancel_that_is_asked_for(raw):
    task = await raw.activity_task(heartbeat_timeout=seconds(60))
    await raw.signal()
    scheduled = [e.event_id for e in await raw.events() if e.HasField("activity_task_scheduled_event_attributes")]
    await raw.answer(
        await raw.poll_workflow_task(), command("REQUEST_CANCEL_ACTIVITY_TASK", scheduled_event_id=scheduled[0])
    )
    [activity] = (await describe(raw)).pending_activities
    assert state(activity) == "CANCEL_REQUESTED"
    answer = await raw.call("record_activity_task_heartbeat", task_token=task.task_token)
    assert answer.cancel_requested
    await raw.call("respond_activity_task_canceled", task_token=task.task_token)
    assert not (await describe(raw)).pending_activities


async def test_children(raw):
    child_id = f"child-{raw.unique}"
    await raw.answer(
        await raw.workflow_task(),
        command(
            "START_CHILD_WORKFLOW_EXECUTION",
            workflow_id=child_id,
            workflow_type={"name": "Child"},
            task_queue={"name": f"child-{raw.queue}"},
            parent_close_policy="PARENT_CLOSE_POLICY_ABANDON",
        ),
    )

    async def started():
        children = (await describe(raw)).pending_children
        return children and children[0].run_id and children[0]

    child = await eventually(started, "the child has started", 10)
    assert (child.workflow_id, child.workflow_type_name) == (child_id, "Child")
    assert child.parent_close_policy == 2
    assert child.initiated_id == 5
    described = await raw.call("describe_workflow_execution", execution={"workflow_id": child_id})
    info = described.workflow_execution_info
    assert (info.parent_execution.workflow_id, info.parent_execution.run_id) == (raw.id, raw.run_id)
    assert info.root_execution.workflow_id == raw.id
    task = await raw.poll_workflow_task(task_queue={"name": f"child-{raw.queue}"})
    await raw.answer(task, complete("from the child"))

    async def gone():
        return not (await describe(raw)).pending_children

    await eventually(gone, "the child is no longer pending", 10)


async def test_a_requested_cancellation(raw):
    await raw.answer(await raw.workflow_task())
    await raw.call("request_cancel_workflow_execution", workflow_execution=raw.execution())
    assert (await describe(raw)).workflow_extended_info.cancel_requested


async def test_without_a_run_id_the_latest_run_is_described(raw):
    await raw.closed()
    await raw.running(request_id="again")
    info = (await describe(raw, run_id="")).workflow_execution_info
    assert info.execution.run_id == raw.run_id
    assert info.status == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING


async def test_a_start_that_is_delayed(raw):
    await raw.running(workflow_start_delay=seconds(3600))
    answer = await describe(raw)
    info = answer.workflow_execution_info
    delay = (info.execution_time.ToNanoseconds() - info.start_time.ToNanoseconds()) / 1e9
    assert 3599 < delay < 3601
    assert info.history_length == 1
    assert not answer.HasField("pending_workflow_task")
    await raw.signal()
    assert not (await describe(raw)).HasField("pending_workflow_task"), "a signal does not end the delay"
    assert await raw.event_types() == ["WORKFLOW_EXECUTION_STARTED", "WORKFLOW_EXECUTION_SIGNALED"]
