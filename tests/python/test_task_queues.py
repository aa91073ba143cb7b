"""Task queues: who polls, what waits, worker-specific queues, priorities and rate limits."""

from __future__ import annotations

import asyncio
import time

import pytest
from harness import eventually
from raw import Raw, complete, refusal, seconds

WORKFLOW, ACTIVITY = "TASK_QUEUE_TYPE_WORKFLOW", "TASK_QUEUE_TYPE_ACTIVITY"


@pytest.fixture
def raw(client, unique) -> Raw:
    return Raw(client, unique)


async def describe(raw: Raw, kind: str, name: str | None = None, **fields):
    return await raw.call("describe_task_queue", task_queue={"name": name or raw.queue}, task_queue_type=kind, **fields)


async def identities(raw: Raw, kind: str) -> list[str]:
    return sorted(each.identity for each in (await describe(raw, kind)).pollers)


async def backlog(raw: Raw, kind: str) -> int:
    return (await describe(raw, kind, report_stats=True)).stats.approximate_backlog_count


async def scheduled(raw: Raw, count: int, **fields) -> None:
    """A workflow with so many activities in the queue."""
    await raw.answer(
        await raw.workflow_task(), *[raw.activity(activity_id=str(number), **fields) for number in range(count)]
    )


async def test_a_queue_that_nobody_used_is_empty(raw):
    for kind in (WORKFLOW, ACTIVITY):
        assert await identities(raw, kind) == []
        assert await backlog(raw, kind) == 0


async def test_pollers_are_listed_by_kind(raw):
    waiting = [
        asyncio.create_task(
            raw.call("poll_workflow_task_queue", task_queue={"name": raw.queue}, identity="of workflows", timeout=4)
        ),
        asyncio.create_task(
            raw.call("poll_activity_task_queue", task_queue={"name": raw.queue}, identity="of activities", timeout=4)
        ),
    ]

    async def listed():
        return await identities(raw, WORKFLOW), await identities(raw, ACTIVITY)

    async def both():
        return (await listed()) == (["of workflows"], ["of activities"])

    await eventually(both, "both pollers are listed", 3)
    [poller] = (await describe(raw, WORKFLOW)).pollers
    assert abs(poller.last_access_time.ToNanoseconds() / 1e9 - time.time()) < 60
    await asyncio.gather(*waiting, return_exceptions=True)
    # One that polled lately is still of interest.
    assert await identities(raw, ACTIVITY) == ["of activities"]


async def test_a_backlog_is_counted_and_goes(raw):
    async def waiting(kind: str, count: int):
        async def look():
            return await backlog(raw, kind) == count

        return await eventually(look, f"{count} waiting in {kind}", 10)

    await raw.running()
    await waiting(WORKFLOW, 1)
    await raw.answer(await raw.poll_workflow_task(), *[raw.activity(activity_id=str(number)) for number in range(3)])
    await waiting(WORKFLOW, 0)
    await waiting(ACTIVITY, 3)
    stats = (await describe(raw, ACTIVITY, report_stats=True)).stats
    assert stats.approximate_backlog_age.ToNanoseconds() > 0
    for _ in range(3):
        await raw.complete_activity(await raw.poll_activity_task())
    await waiting(ACTIVITY, 0)


async def test_every_activity_is_handed_out_once(raw):
    await scheduled(raw, 20)
    found = [(await raw.poll_activity_task()).activity_id for _ in range(20)]
    assert sorted(found, key=int) == [str(number) for number in range(20)]
    assert await backlog(raw, ACTIVITY) == 0


async def test_urgent_activities_overtake_the_others(raw):
    """On the whole only: a queue may have partitions, each with an order of its own."""
    later = [raw.activity(activity_id=f"later-{n}", priority={"priority_key": 5}) for n in range(24)]
    urgent = [raw.activity(activity_id=f"urgent-{n}", priority={"priority_key": 1}) for n in range(8)]
    await raw.answer(await raw.workflow_task(), *later, *urgent)
    await asyncio.sleep(0.5)
    tasks = [await raw.poll_activity_task() for _ in range(32)]
    keys = [task.priority.priority_key for task in tasks]
    assert sorted(keys) == [1] * 8 + [5] * 24
    ranks = [rank for rank, key in enumerate(keys) if key == 1]
    assert sum(ranks) / 8 < 12, f"urgent ones came at {ranks}"


async def test_the_two_kinds_of_a_queue_do_not_mix(raw):
    await raw.running()
    poll = asyncio.create_task(raw.poll_activity_task())
    task = await raw.poll_workflow_task()
    await asyncio.sleep(0.2)
    assert not poll.done()
    await raw.answer(task, raw.activity())
    assert (await poll).activity_id == "1"


async def test_a_queue_of_one_worker(raw):
    """Only the worker that polls its own queue gets what is scheduled there."""
    own = f"own-{raw.unique}"
    await raw.answer(await raw.workflow_task(), raw.activity(task_queue={"name": own}))
    poll = asyncio.create_task(raw.poll_activity_task())
    taken = await raw.poll_activity_task(task_queue={"name": own})
    assert taken.activity_id == "1"
    assert not poll.done()
    poll.cancel()


async def test_a_dead_worker_s_queue_times_out(raw):
    await raw.answer(
        await raw.workflow_task(),
        raw.activity(task_queue={"name": f"dead-{raw.unique}"}, schedule_to_start_timeout=seconds(1)),
    )
    task = await raw.poll_workflow_task()
    kinds = await raw.event_types()
    assert "ACTIVITY_TASK_TIMED_OUT" in kinds
    await raw.answer(task, complete())


async def test_a_sticky_queue_falls_back(raw):
    sticky = {"name": f"sticky-{raw.unique}", "kind": "TASK_QUEUE_KIND_STICKY", "normal_name": raw.queue}
    task = await raw.workflow_task()
    poll = asyncio.create_task(raw.poll_workflow_task(task_queue=sticky))
    await asyncio.sleep(0.2)
    await raw.answer(task, sticky_attributes={"worker_task_queue": sticky, "schedule_to_start_timeout": seconds(1)})
    await raw.signal("first")
    task = await poll
    assert task.history.events[0].event_id > 1, "the cache has the beginning"
    await raw.answer(task, sticky_attributes={"worker_task_queue": sticky, "schedule_to_start_timeout": seconds(1)})
    await raw.signal("second")
    task = await raw.poll_workflow_task()
    assert task.history.events[0].event_id == 1
    assert (await raw.event_types()).count("WORKFLOW_TASK_TIMED_OUT") == 1
    await raw.answer(task, complete())


async def test_resetting_stickiness_sends_the_next_task_to_the_normal_queue(raw):
    sticky = {"name": f"sticky-{raw.unique}", "kind": "TASK_QUEUE_KIND_STICKY", "normal_name": raw.queue}
    await raw.answer(
        await raw.workflow_task(),
        sticky_attributes={"worker_task_queue": sticky, "schedule_to_start_timeout": seconds(60)},
    )
    await raw.call("reset_sticky_task_queue", execution=raw.execution())
    await raw.signal()
    task = await raw.poll_workflow_task()
    assert task.history.events[0].event_id == 1
    assert "WORKFLOW_TASK_TIMED_OUT" not in await raw.event_types()


async def test_a_worker_limits_the_rate_of_its_queue(raw):
    """Two a second: ten cannot start within three seconds, and all do start."""
    await scheduled(raw, 10)
    limit = {"max_tasks_per_second": {"value": 2.0}}
    start = time.monotonic()
    for _ in range(10):
        while not (await raw.poll_activity_task(task_queue_metadata=limit)).task_token:
            pass
    elapsed = time.monotonic() - start
    assert 3 < elapsed < 15, elapsed


async def test_partitions(raw):
    answer = await raw.call("list_task_queue_partitions", task_queue={"name": raw.queue})
    assert raw.queue in [each.key for each in answer.activity_task_queue_partitions]
    assert raw.queue in [each.key for each in answer.workflow_task_queue_partitions]


async def test_an_eager_activity_goes_to_who_asked(raw):
    task = await raw.workflow_task()
    answer = await raw.answer(task, raw.activity(request_eager_execution=True))
    [eager] = answer.activity_tasks
    assert eager.activity_id == "1"
    await raw.complete_activity(eager)
    assert "ACTIVITY_TASK_COMPLETED" in await raw.event_types()


async def test_an_eager_workflow_task_goes_to_who_started_it(raw):
    started = await raw.start(request_eager_execution=True)
    raw.run_id = started.run_id
    assert started.eager_workflow_task.workflow_execution.run_id == started.run_id
    assert started.eager_workflow_task.attempt == 1
    await raw.answer(started.eager_workflow_task, complete())
    assert (await raw.event_types())[-1] == "WORKFLOW_EXECUTION_COMPLETED"


async def test_the_next_workflow_task_comes_with_the_answer(raw):
    task = await raw.workflow_task()
    await raw.signal()
    answer = await raw.answer(task, return_new_workflow_task=True)
    assert answer.workflow_task.started_event_id > task.started_event_id
    await raw.answer(answer.workflow_task, complete())


async def test_a_poll_that_ends_empty(raw):
    """The client waits longer than the server does, and gets an empty answer and no error."""
    found = await refusal(raw.poll_workflow_task(timeout=3))
    assert found is None or found.code == "DEADLINE_EXCEEDED"
