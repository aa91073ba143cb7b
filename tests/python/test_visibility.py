"""Lists and counts: the filter grammar on a small population, and that nothing written is missing."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import datetime, timezone

import pytest
import pytest_asyncio
from raw import Raw, command, complete, payload, refusal, shows_at_once
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.service import RPCError

ATTRIBUTES = {
    "SeatText": "INDEXED_VALUE_TYPE_TEXT",
    "SeatKeyword": "INDEXED_VALUE_TYPE_KEYWORD",
    "SeatInt": "INDEXED_VALUE_TYPE_INT",
    "SeatDouble": "INDEXED_VALUE_TYPE_DOUBLE",
    "SeatBool": "INDEXED_VALUE_TYPE_BOOL",
    "SeatTime": "INDEXED_VALUE_TYPE_DATETIME",
    "SeatWords": "INDEXED_VALUE_TYPE_KEYWORD_LIST",
}
FIRST, SECOND, THIRD = "2024-01-01T00:00:00Z", "2024-06-01T12:00:00.5Z", "2025-01-01T00:00:00+02:00"

# name: how it ends, and its search attributes.
# fmt: off
POPULATION = {
    "ada": ("running", {"SeatText": "the quick brown fox", "SeatKeyword": "red", "SeatInt": 1, "SeatDouble": 1.5, "SeatBool": True, "SeatTime": FIRST, "SeatWords": ["a", "b"]}),
    "ben": ("completed", {"SeatText": "a lazy dog", "SeatKeyword": "redder", "SeatInt": 2, "SeatDouble": -2.5, "SeatBool": False, "SeatTime": SECOND, "SeatWords": ["b"]}),
    "cyd": ("failed", {"SeatText": "quick thinking", "SeatKeyword": "blue", "SeatInt": 30, "SeatDouble": 0.0, "SeatBool": True, "SeatTime": THIRD, "SeatWords": ["c"]}),
    "dee": ("canceled", {"SeatKeyword": "it's 100%", "SeatInt": -4}),
    "eve": ("terminated", {"SeatKeyword": "under_score"}),
    "fay": ("continued", {}),
}
# fmt: on
EVERYONE = "ada ben cyd dee eve fay"


def encoded(attributes: dict) -> dict:
    kinds = {name: kind.removeprefix("INDEXED_VALUE_TYPE_") for name, kind in ATTRIBUTES.items()}
    fields = {}
    for name, value in attributes.items():
        fields[name] = payload(value)
        fields[name].metadata["type"] = kinds[name].title().replace("_", "").encode()
    return {"indexed_fields": fields}


class Population:
    """Workflows of one type that no other test uses."""

    def __init__(self, client, unique: str):
        self.client, self.unique, self.type = client, unique, f"Type-{unique}"
        self.raw = Raw(client, unique)

    def member(self, name: str) -> Raw:
        raw = Raw(self.client, f"{name}-{self.unique}")
        raw.id = f"{name}-{self.unique}"
        return raw

    async def add(self, name: str, end: str, attributes: dict) -> Raw:
        raw = self.member(name)
        await raw.running(workflow_type={"name": self.type}, search_attributes=encoded(attributes))
        if end == "running":
            return raw
        if end == "terminated":
            await raw.call("terminate_workflow_execution", workflow_execution=raw.execution())
            return raw
        if end == "canceled":
            await raw.call("request_cancel_workflow_execution", workflow_execution=raw.execution())
        last = {
            "completed": complete("done"),
            "failed": command("FAIL_WORKFLOW_EXECUTION", failure={"message": "no"}),
            "canceled": command("CANCEL_WORKFLOW_EXECUTION", details={}),
            "continued": command(
                "CONTINUE_AS_NEW_WORKFLOW_EXECUTION",
                workflow_type={"name": f"{self.type}-next"},
                task_queue={"name": raw.queue},
            ),
        }[end]
        await raw.answer(await raw.poll_workflow_task(), last)
        return raw

    def filter(self, query: str) -> str:
        mine = f"WorkflowType = '{self.type}'"
        if query.upper().startswith(("ORDER BY", "GROUP BY")):
            return f"{mine} {query}"
        condition, order, rest = query.partition(" ORDER BY ")
        return f"{mine} AND ({condition}){order}{rest}" if condition else mine

    async def names(self, query: str, ordered: bool = False) -> str:
        answer = await self.raw.list(self.filter(query))
        names = [each.execution.workflow_id.split("-")[0] for each in answer.executions]
        return " ".join(names if ordered else sorted(names))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def population(client):
    raw = Raw(client, "unused")
    registered = await raw.call("list_search_attributes")
    missing = {name: kind for name, kind in ATTRIBUTES.items() if name not in registered.custom_attributes}
    if missing:
        await raw.call("add_search_attributes", search_attributes=missing)
    population = Population(client, uuid.uuid4().hex[:12])
    for name, (end, attributes) in POPULATION.items():
        for _ in range(100):
            try:
                await population.add(name, end, attributes)
                break
            except RPCError as error:
                # The Temporal server learns of a new attribute a little later.
                if "no mapping defined" not in error.message:
                    raise
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.01)
    await population.raw.shown(lambda: population.names(""), EVERYONE)
    await population.raw.shown(lambda: population.names("ExecutionStatus != 'Running'"), "ben cyd dee eve fay")
    return population


FILTERS = [
    ("", EVERYONE),
    # Status and times.
    ("ExecutionStatus = 'Running'", "ada"),
    ("ExecutionStatus = 'Completed'", "ben"),
    ("ExecutionStatus = 'Failed'", "cyd"),
    ("ExecutionStatus = 'Canceled'", "dee"),
    ("ExecutionStatus = 'Terminated'", "eve"),
    ("ExecutionStatus = 'ContinuedAsNew'", "fay"),
    ("ExecutionStatus = 'TimedOut'", ""),
    ("ExecutionStatus = 1", "ada"),
    ("ExecutionStatus != 'Running'", "ben cyd dee eve fay"),
    ("ExecutionStatus IN ('Running', 'Failed')", "ada cyd"),
    ("ExecutionStatus NOT IN ('Running', 'Failed')", "ben dee eve fay"),
    ("CloseTime IS NULL", "ada"),
    ("CloseTime IS NOT NULL", "ben cyd dee eve fay"),
    ("CloseTime > '2020-01-01T00:00:00Z'", "ben cyd dee eve fay"),
    ("StartTime > '2020-01-01T00:00:00Z'", EVERYONE),
    ("StartTime < '2020-01-01T00:00:00Z'", ""),
    ("StartTime BETWEEN '2020-01-01T00:00:00Z' AND '2220-01-01T00:00:00Z'", EVERYONE),
    ("StartTime NOT BETWEEN '2020-01-01T00:00:00Z' AND '2220-01-01T00:00:00Z'", ""),
    ("ExecutionTime > '2020-01-01T00:00:00Z'", EVERYONE),
    ("ExecutionDuration >= 0", "ben cyd dee eve fay"),
    ("ExecutionDuration < '1h'", "ben cyd dee eve fay"),
    ("HistoryLength > 2", "ben cyd dee eve fay"),
    ("HistorySizeBytes > 0", "ben cyd dee eve fay"),
    ("StateTransitionCount > 0", "ben cyd dee eve fay"),
    # Names.
    ("WorkflowId = 'ada-{unique}'", "ada"),
    ('WorkflowId = "ada-{unique}"', "ada"),
    ("`WorkflowId` = 'ada-{unique}'", "ada"),
    ("WorkflowId != 'ada-{unique}'", "ben cyd dee eve fay"),
    ("WorkflowId IN ('ada-{unique}', 'ben-{unique}', 'zoe')", "ada ben"),
    ("WorkflowId STARTS_WITH 'ada-'", "ada"),
    ("WorkflowId NOT STARTS_WITH 'ada-'", "ben cyd dee eve fay"),
    ("WorkflowId > 'dee'", "dee eve fay"),
    ("WorkflowId <= 'ben-{unique}'", "ada ben"),
    ("TaskQueue = 'queue-ben-{unique}'", "ben"),
    ("RootWorkflowId = 'cyd-{unique}'", "cyd"),
    ("ParentWorkflowId IS NULL", EVERYONE),
    ("RunId = 'none'", ""),
    # Custom attributes, each of the seven types.
    ("SeatKeyword = 'red'", "ada"),
    ("SeatKeyword = 'RED'", ""),
    ("SeatKeyword != 'red'", "ben cyd dee eve"),
    ("SeatKeyword STARTS_WITH 'red'", "ada ben"),
    ("SeatKeyword STARTS_WITH 'under_'", "eve"),
    ("SeatKeyword STARTS_WITH '_nder'", ""),
    ("SeatKeyword STARTS_WITH '%'", ""),
    ("SeatKeyword = 'it''s 100%'", "dee"),
    ("SeatKeyword IN ('red', 'blue')", "ada cyd"),
    ("SeatKeyword NOT IN ('red', 'blue')", "ben dee eve"),
    ("SeatKeyword IS NULL", "fay"),
    ("SeatKeyword IS NOT NULL", "ada ben cyd dee eve"),
    ("SeatKeyword >= 'red'", "ada ben eve"),
    ("SeatKeyword BETWEEN 'blue' AND 'red'", "ada cyd dee"),
    ("SeatInt = 2", "ben"),
    ("SeatInt != 2", "ada cyd dee"),
    ("SeatInt > 2", "cyd"),
    ("SeatInt >= 2", "ben cyd"),
    ("SeatInt < 2", "ada dee"),
    ("SeatInt <= 2", "ada ben dee"),
    ("SeatInt = -4", "dee"),
    ("SeatInt IN (1, 30)", "ada cyd"),
    ("SeatInt BETWEEN 1 AND 2", "ada ben"),
    ("SeatInt NOT BETWEEN 1 AND 2", "cyd dee"),
    ("SeatInt IS NULL", "eve fay"),
    ("SeatDouble = 1.5", "ada"),
    ("SeatDouble < 0", "ben"),
    ("SeatDouble >= 0", "ada cyd"),
    ("SeatDouble BETWEEN -3 AND 0.5", "ben cyd"),
    ("SeatBool = true", "ada cyd"),
    ("SeatBool = false", "ben"),
    ("SeatBool != true", "ben"),
    ("SeatBool IS NULL", "dee eve fay"),
    ("SeatTime > '2024-03-01T00:00:00Z'", "ben cyd"),
    ("SeatTime < '2024-12-31T22:30:00Z'", "ada ben cyd"),
    ("SeatTime < '2024-12-31T21:30:00Z'", "ada ben"),
    ("SeatTime BETWEEN '2024-03-01T00:00:00Z' AND '2024-09-01T00:00:00Z'", "ben"),
    ("SeatTime > '2024-06-01T12:00:00Z'", "ben cyd"),
    ("SeatTime > '2024-06-01T13:30:00+01:00'", "cyd"),
    ("SeatTime IS NULL", "dee eve fay"),
    ("SeatText = 'quick'", "ada cyd"),
    ("SeatText = 'dog'", "ben"),
    ("SeatText = 'QUICK'", "ada cyd"),
    ("SeatText = 'lazy fox'", "ada ben"),
    ("SeatText != 'quick'", "ben dee eve fay"),
    ("SeatText IS NULL", "dee eve fay"),
    ("SeatWords = 'b'", "ada ben"),
    ("SeatWords != 'b'", "cyd dee eve fay"),
    ("SeatWords IN ('a', 'c')", "ada cyd"),
    ("SeatWords NOT IN ('a', 'c')", "ben dee eve fay"),
    ("SeatWords IS NULL", "dee eve fay"),
    # Connectives.
    ("SeatBool = true AND SeatInt = 1", "ada"),
    ("SeatInt = 1 OR SeatInt = 2", "ada ben"),
    ("SeatInt = 1 OR SeatInt = 2 AND SeatBool = true", "ada"),
    ("(SeatInt = 1 OR SeatInt = 2) AND SeatBool = false", "ben"),
    ("NOT SeatInt = 1", "ben cyd dee"),
    ("NOT (SeatInt = 1 OR SeatInt = 2)", "cyd dee"),
    ("SeatInt is not null and SeatBool is null", "dee"),
    ("SeatInt in (1,2) or SeatKeyword starts_with 'b'", "ada ben cyd"),
]


@pytest.mark.parametrize(("query", "expected"), FILTERS)
async def test_filter(population, query, expected):
    assert await population.names(query.replace("{unique}", population.unique)) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (f"SeatTime = '{SECOND}'", "ben"),
        (f"SeatTime != '{SECOND}'", "ada cyd"),
        ("SeatTime = '2024-06-01T13:00:00.5+01:00'", "ben"),
        ("SeatTime = '2024-12-31T22:00:00Z'", "cyd"),
        (f"SeatTime IN ('{FIRST}', '{THIRD}')", "ada cyd"),
        (f"SeatTime BETWEEN '{FIRST}' AND '{SECOND}'", "ada ben"),
        (f"SeatTime > '{FIRST}'", "ben cyd"),
    ],
)
async def test_a_time_equals_itself(population, client, query, expected):
    if not await shows_at_once(client):
        pytest.skip("the Temporal server on SQLite compares custom times as text")
    assert await population.names(query) == expected


async def test_order(population):
    """The open ones first, then the one that closed last."""
    assert await population.names("", ordered=True) == "ada fay eve dee cyd ben"


@pytest.mark.parametrize("query", [f for f, _ in FILTERS if f][::7])
async def test_count_and_scan_agree_with_list(population, query):
    query = query.replace("{unique}", population.unique)
    expected = (await population.names(query)).split()
    counted = await population.raw.call("count_workflow_executions", query=population.filter(query))
    assert counted.count == len(expected)
    scanned = await population.raw.call("scan_workflow_executions", query=population.filter(query))
    assert sorted(each.execution.workflow_id.split("-")[0] for each in scanned.executions) == expected


async def test_count_by_status(population):
    counted = await population.raw.call(
        "count_workflow_executions", query=population.filter("GROUP BY ExecutionStatus")
    )
    groups = {json.loads(group.group_values[0].data): group.count for group in counted.groups}
    assert groups == {
        "Running": 1,
        "Completed": 1,
        "Failed": 1,
        "Canceled": 1,
        "Terminated": 1,
        "ContinuedAsNew": 1,
    }
    assert counted.count == 6
    assert counted.groups[0].group_values[0].metadata["type"] == b"Keyword"


@pytest.mark.parametrize("page_size", [1, 2, 4, 6, 7])
async def test_pages(population, page_size):
    names, token, pages = [], b"", 0
    while True:
        page = await population.raw.list(population.filter(""), page_size=page_size, next_page_token=token)
        assert len(page.executions) <= page_size
        names += [each.execution.workflow_id.split("-")[0] for each in page.executions]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert sorted(names) == EVERYONE.split()
    assert pages >= -(-6 // page_size)


async def test_what_a_row_holds(population):
    raw = population.member("ben")
    answer = await raw.list(f"WorkflowId = '{raw.id}'")
    [row] = answer.executions
    assert (row.type.name, row.task_queue) == (population.type, raw.queue)
    assert row.status == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED
    assert row.start_time.ToNanoseconds() <= row.close_time.ToNanoseconds()
    assert row.execution_time == row.start_time
    assert row.history_length == 5
    assert row.history_size_bytes > 0
    assert row.root_execution.workflow_id == raw.id
    assert not row.HasField("parent_execution")
    stored = {
        name: (value.data, value.metadata["type"]) for name, value in row.search_attributes.indexed_fields.items()
    }
    assert stored["SeatKeyword"] == (b'"redder"', b"Keyword")
    assert stored["SeatInt"] == (b"2", b"Int")
    assert stored["SeatDouble"] == (b"-2.5", b"Double")
    assert stored["SeatBool"] == (b"false", b"Bool")
    assert stored["SeatText"] == (b'"a lazy dog"', b"Text")
    assert stored["SeatWords"][1] == b"KeywordList"
    moment = datetime.fromisoformat(stored["SeatTime"][0].decode().strip('"').replace("Z", "+00:00"))
    assert moment == datetime(2024, 6, 1, 12, 0, 0, 500_000, tzinfo=timezone.utc)


async def test_open_and_closed_lists(population):
    window = {"earliest_time": {"seconds": 0}, "latest_time": {"seconds": 4_000_000_000}}
    by_type = {"type_filter": {"name": population.type}, "start_time_filter": window}
    opened = await population.raw.call("list_open_workflow_executions", **by_type)
    assert [each.execution.workflow_id.split("-")[0] for each in opened.executions] == ["ada"]
    closed = await population.raw.call("list_closed_workflow_executions", **by_type)
    assert [each.execution.workflow_id.split("-")[0] for each in closed.executions] == "fay eve dee cyd ben".split()
    by_id = {"execution_filter": {"workflow_id": f"eve-{population.unique}"}, "start_time_filter": window}
    closed = await population.raw.call("list_closed_workflow_executions", **by_id)
    assert [each.execution.workflow_id.split("-")[0] for each in closed.executions] == ["eve"]
    by_status = {
        "status_filter": {"status": "WORKFLOW_EXECUTION_STATUS_FAILED"},
        "start_time_filter": window,
        "maximum_page_size": 1000,
    }
    closed = await population.raw.call("list_closed_workflow_executions", **by_status)
    assert f"cyd-{population.unique}" in [each.execution.workflow_id for each in closed.executions]
    assert f"ben-{population.unique}" not in [each.execution.workflow_id for each in closed.executions]


async def test_a_start_and_a_close_are_visible_at_once(client, unique):
    raw = Raw(client, unique)

    async def statuses():
        answer = await raw.list(f"WorkflowId = '{raw.id}'")
        return [each.status for each in answer.executions]

    async def open_ones():
        return (
            await raw.call(
                "count_workflow_executions", query=f"TaskQueue = '{raw.queue}' AND ExecutionStatus = 'Running'"
            )
        ).count

    assert await statuses() == []
    for round_ in range(5):
        await raw.running(request_id=f"round-{round_}")
        await raw.shown(open_ones, 1)
        await raw.shown(statuses, [1] + [2] * round_)
        await raw.answer(await raw.poll_workflow_task(), complete())
        await raw.shown(open_ones, 0)
        await raw.shown(statuses, [2] * (round_ + 1))


async def test_an_upsert_is_visible_at_once_and_null_removes(population, client, unique):
    raw = Raw(client, unique)

    async def reds():
        answer = await raw.list(f"SeatKeyword = 'red-{unique}'")
        return [each.execution.workflow_id for each in answer.executions]

    def upsert(fields):
        return command("UPSERT_WORKFLOW_SEARCH_ATTRIBUTES", search_attributes={"indexed_fields": fields})

    task = await raw.workflow_task()
    await raw.answer(task, upsert({"SeatKeyword": payload(f"red-{unique}"), "SeatInt": payload(5)}))
    await raw.shown(reds, [raw.id])
    await raw.signal()
    nothing = payload(None)
    nothing.metadata["encoding"] = b"binary/null"
    nothing.data = b""
    await raw.answer(await raw.poll_workflow_task(), upsert({"SeatKeyword": nothing}))
    await raw.shown(reds, [])


async def test_a_memo_is_listed(client, unique):
    raw = Raw(client, unique)
    await raw.running(memo={"fields": {"note": payload("remember")}})

    async def notes():
        answer = await raw.list(f"WorkflowId = '{raw.id}'")
        return [each.memo.fields["note"].data for each in answer.executions]

    await raw.shown(notes, [b'"remember"'])


async def test_attributes_are_listed_and_cannot_be_added_twice(population):
    raw = population.raw
    listed = await raw.call("list_search_attributes")
    kinds = {name: listed.custom_attributes[name] for name in ATTRIBUTES}
    assert kinds == dict(zip(ATTRIBUTES, [1, 2, 3, 4, 5, 6, 7]))
    assert listed.system_attributes["ExecutionStatus"] == 2
    again = await refusal(raw.call("add_search_attributes", search_attributes={"SeatInt": "INDEXED_VALUE_TYPE_INT"}))
    assert again is None or again.code == "ALREADY_EXISTS"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SeatInt", "many"),
        ("SeatInt", 1.5),
        ("SeatDouble", "much"),
        ("SeatBool", "perhaps"),
        ("SeatTime", "yesterday"),
        ("SeatKeyword", 17),
        ("SeatText", 17),
        ("SeatWords", 17),
    ],
)
async def test_a_value_of_the_wrong_type_is_refused(population, client, unique, name, value):
    raw = Raw(client, unique)
    found = await refusal(raw.start(search_attributes={"indexed_fields": {name: payload(value)}}))
    assert found and found.code == "INVALID_ARGUMENT", str(found)
    assert name in found.message


async def test_a_removed_attribute_is_unknown(population, client, unique):
    raw = Raw(client, unique)
    name = f"Brief{unique}"
    await raw.call("add_search_attributes", search_attributes={name: "INDEXED_VALUE_TYPE_KEYWORD"})
    await raw.call("remove_search_attributes", search_attributes=[name])
    assert name not in (await raw.call("list_search_attributes")).custom_attributes

    async def code():
        found = await refusal(raw.list(f"{name} = 'x'"))
        return found and found.code

    await raw.shown(code, "INVALID_ARGUMENT")
