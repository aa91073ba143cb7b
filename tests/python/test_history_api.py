"""Reading a history: pages, waiting for news, only the end, and backwards."""

from __future__ import annotations

import asyncio
import time

import pytest
from raw import NO_SUCH_RUN, Raw, command, complete, payloads, refusal, values

CLOSE_EVENT = "HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT"


@pytest.fixture
def raw(client, unique) -> Raw:
    return Raw(client, unique)


async def history(raw: Raw, **fields):
    fields.setdefault("execution", raw.execution())
    return await raw.call("get_workflow_execution_history", **fields)


def ids(answer) -> list[int]:
    return [event.event_id for event in answer.history.events]


async def signalled(raw: Raw, count: int) -> None:
    """Two events, then one a signal."""
    await raw.running()
    for number in range(count):
        await raw.signal(f"signal-{number}")


async def pages(raw: Raw, method: str, page_size: int) -> list[list[int]]:
    found, token = [], b""
    while True:
        page = await raw.call(method, execution=raw.execution(), maximum_page_size=page_size, next_page_token=token)
        found.append(ids(page))
        token = page.next_page_token
        if not token:
            return found


@pytest.mark.parametrize("page_size", [1, 3, 7, 12, 100])
async def test_pages_hold_every_event_once_in_order(raw, page_size):
    await signalled(raw, 10)
    found = await pages(raw, "get_workflow_execution_history", page_size)
    assert [each for page in found for each in page] == list(range(1, 13))
    assert len(found) > 1 or page_size >= 12


@pytest.mark.parametrize("page_size", [1, 3, 7, 12, 100])
async def test_backwards(raw, page_size):
    await signalled(raw, 10)
    found = await pages(raw, "get_workflow_execution_history_reverse", page_size)
    assert [each for page in found for each in page] == list(range(12, 0, -1))


async def test_a_page_token_keeps_to_its_run(raw):
    """Reading goes on in the run where it began, also after another run of the same id has started."""
    await signalled(raw, 4)
    first = raw.run_id
    page = await history(raw, execution=raw.execution(run_id=""), maximum_page_size=2)
    await raw.call("terminate_workflow_execution", workflow_execution=raw.execution())
    await raw.running(request_id="again")
    assert raw.run_id != first
    rest = await history(raw, execution=raw.execution(run_id=""), next_page_token=page.next_page_token)
    names = [event.workflow_execution_signaled_event_attributes.signal_name for event in rest.history.events]
    assert "signal-3" in names


async def test_what_is_appended_between_two_pages_is_not_lost(raw):
    await signalled(raw, 4)
    page = await history(raw, maximum_page_size=3)
    await raw.signal("late")
    found, token = ids(page), page.next_page_token
    while token:
        page = await history(raw, maximum_page_size=3, next_page_token=token)
        found, token = found + ids(page), page.next_page_token
    assert found[:6] == [1, 2, 3, 4, 5, 6]
    assert ids(await history(raw))[-1] == 7


async def test_waiting_for_a_new_event(raw):
    await signalled(raw, 1)
    page = await history(raw, wait_new_event=True)
    assert ids(page) == [1, 2, 3]
    assert page.next_page_token, "an open workflow has no last page"
    waiting = asyncio.create_task(history(raw, wait_new_event=True, next_page_token=page.next_page_token))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await raw.signal("news")
    page = await waiting
    assert ids(page) == [4]
    assert page.history.events[0].workflow_execution_signaled_event_attributes.signal_name == "news"
    await raw.call("terminate_workflow_execution", workflow_execution=raw.execution())
    page = await history(raw, wait_new_event=True, next_page_token=page.next_page_token)
    assert ids(page) == [5]
    assert not page.next_page_token


async def test_waiting_follows_a_workflow_to_its_end(raw):
    task = await raw.workflow_task()
    found: list[int] = []

    async def follow():
        token = b""
        while True:
            page = await history(raw, wait_new_event=True, next_page_token=token)
            found.extend(ids(page))
            token = page.next_page_token
            if not token:
                return

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.1)
    await raw.answer(task)
    for number in range(5):
        await raw.signal(f"{number}")
    await raw.answer(await raw.poll_workflow_task(), complete())
    await asyncio.wait_for(following, 20)
    assert found == list(range(1, len(found) + 1))
    assert found == ids(await history(raw))


async def test_many_wait_for_the_same_end(raw):
    task = await raw.workflow_task()
    waiting = [
        asyncio.create_task(history(raw, wait_new_event=True, history_event_filter_type=CLOSE_EVENT)) for _ in range(20)
    ]
    await asyncio.sleep(0.3)
    assert not any(each.done() for each in waiting)
    await raw.answer(task, complete("done"))
    for page in await asyncio.gather(*waiting):
        [event] = page.history.events
        assert values(event.workflow_execution_completed_event_attributes.result) == ["done"]


async def test_only_the_close_event(raw):
    await raw.completed()
    page = await history(raw, history_event_filter_type=CLOSE_EVENT)
    [event] = page.history.events
    assert event.event_id == 5
    assert values(event.workflow_execution_completed_event_attributes.result) == ["done"]
    assert not page.next_page_token


async def test_only_the_close_event_of_an_open_workflow(raw):
    """Without waiting there is nothing to give."""
    await signalled(raw, 2)
    page = await history(raw, history_event_filter_type=CLOSE_EVENT)
    assert ids(page) == []
    assert not page.next_page_token


async def test_the_latest_run_when_no_run_is_named(raw):
    await raw.closed()
    first = raw.run_id
    await raw.running(request_id="again")
    assert ids(await history(raw, execution=raw.execution(run_id=""))) == [1, 2]
    assert ids(await history(raw, execution=raw.execution(run_id=first))) == [1, 2, 3]


async def test_a_close_event_names_the_next_run(raw):
    task = await raw.workflow_task()
    await raw.answer(
        task,
        command(
            "CONTINUE_AS_NEW_WORKFLOW_EXECUTION",
            workflow_type={"name": "Raw"},
            task_queue={"name": raw.queue},
            input=payloads("next"),
        ),
    )
    [event] = (await history(raw, history_event_filter_type=CLOSE_EVENT)).history.events
    following = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    page = await history(raw, execution=raw.execution(run_id=following))
    started = page.history.events[0].workflow_execution_started_event_attributes
    assert started.continued_execution_run_id == raw.run_id
    assert started.first_execution_run_id == raw.run_id
    assert values(started.input) == ["next"]


async def test_events_are_timed_and_numbered(raw):
    before = time.time()
    await raw.completed()
    events = await raw.events()
    times = [event.event_time.ToNanoseconds() / 1e9 for event in events]
    assert [event.event_id for event in events] == [1, 2, 3, 4, 5]
    assert times == sorted(times)
    assert before - 5 < times[0] <= times[-1] < time.time() + 5
    tasks = [event.task_id for event in events]
    assert tasks == sorted(tasks) and len(set(tasks)) == 5


async def test_a_token_of_another_run_is_refused_or_keeps_to_its_own(raw):
    await signalled(raw, 4)
    page = await history(raw, maximum_page_size=2)
    found = await refusal(
        history(raw, execution=raw.execution(run_id=NO_SUCH_RUN), next_page_token=page.next_page_token)
    )
    assert found is None or found.code in ("INVALID_ARGUMENT", "NOT_FOUND")


async def test_a_long_history_comes_whole(raw):
    await raw.running()
    for _ in range(15):
        await asyncio.gather(*[raw.signal("s", input=payloads("x" * 1000)) for _ in range(40)])
    assert [event.event_id for event in await raw.events()] == list(range(1, 603))
    task = await raw.poll_workflow_task()
    found, token = [event.event_id for event in task.history.events], task.next_page_token
    while token:
        page = await history(raw, next_page_token=token)
        found, token = found + ids(page), page.next_page_token
    assert found == list(range(1, 604)), "up to the task's own WORKFLOW_TASK_STARTED"
