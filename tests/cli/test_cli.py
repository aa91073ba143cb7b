"""The `temporal` command, unchanged, against our server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from temporal_command import Temporal


def eventually(check: Callable[[], Any], what: str, timeout: float = 20) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + timeout
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.1)


def start(temporal: Temporal, queue: str, workflow_id: str, kind: str = "Adding", *more: str) -> str:
    """The id of the run."""
    return temporal.json(
        "workflow", "start", "--type", kind, "--task-queue", queue, "--workflow-id", workflow_id, *more
    )["runId"]


def status(temporal: Temporal, workflow_id: str, *more: str) -> str:
    described = temporal.json("workflow", "describe", "--workflow-id", workflow_id, *more)
    return described["workflowExecutionInfo"]["status"].removeprefix("WORKFLOW_EXECUTION_STATUS_")


def event_types(temporal: Temporal, workflow_id: str, *more: str) -> list[str]:
    events = temporal.json("workflow", "show", "--workflow-id", workflow_id, *more)["events"]
    assert [int(event["eventId"]) for event in events] == list(range(1, len(events) + 1))
    return [event["eventType"].removeprefix("EVENT_TYPE_") for event in events]


def test_execute_describe_show(temporal: Temporal, queue: str, unique: str) -> None:
    done = temporal.json(
        *("workflow", "execute", "--type", "Greeting", "--task-queue", queue),
        *("--workflow-id", unique, "--input", '"Ada"'),
    )
    assert done["status"] == "COMPLETED"
    assert done["result"] == "Hello, Ada!"
    assert temporal.json("workflow", "result", "--workflow-id", unique)["result"] == "Hello, Ada!"

    described = temporal.json("workflow", "describe", "--workflow-id", unique)
    info = described["workflowExecutionInfo"]
    assert info["type"]["name"] == "Greeting"
    assert info["execution"] == {"workflowId": unique, "runId": done["runId"]}
    assert info["status"] == "WORKFLOW_EXECUTION_STATUS_COMPLETED"
    assert info["taskQueue"] == queue
    assert info["closeTime"] >= info["startTime"]

    assert event_types(temporal, unique) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "ACTIVITY_TASK_SCHEDULED",
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_COMPLETED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]
    assert int(info["historyLength"]) == 11
    text = temporal.text("workflow", "show", "--workflow-id", unique)
    assert "ActivityTaskCompleted" in text and "Hello, Ada!" in text


def test_execute_of_a_failing_workflow(temporal: Temporal, queue: str, unique: str) -> None:
    done = temporal.run(
        *("workflow", "execute", "--type", "Failing", "--task-queue", queue, "--workflow-id", unique)
    )
    assert done.returncode != 0
    assert "it broke" in done.stdout + done.stderr, done
    assert status(temporal, unique) == "FAILED"


def test_a_second_start(temporal: Temporal, queue: str, unique: str) -> None:
    start(temporal, queue, unique)
    more = ("workflow", "start", "--type", "Adding", "--task-queue", queue, "--workflow-id", unique)
    assert "already" in temporal.refused(*more, "--fail-existing").lower()
    temporal.text("workflow", "terminate", "--workflow-id", unique)


def test_unknown_workflow(temporal: Temporal, unique: str) -> None:
    assert "not found" in temporal.refused("workflow", "describe", "--workflow-id", unique).lower()
    assert "not found" in temporal.refused("workflow", "signal", "--workflow-id", unique, "--name", "x").lower()


def test_signal_query_update(temporal: Temporal, queue: str, unique: str) -> None:
    start(temporal, queue, unique)
    here = ("--workflow-id", unique)
    temporal.text("workflow", "signal", *here, "--name", "add", "--input", "2")

    def total() -> int:
        return temporal.json("workflow", "query", *here, "--type", "total")["queryResult"][0]

    assert total() == 2
    update = ("workflow", "update", "execute", *here, "--name", "add_and_get")
    assert temporal.json(*update, "--input", "3", "--update-id", "first")["result"] == 5
    # The same update again is the same update.
    assert temporal.json(*update, "--input", "3", "--update-id", "first")["result"] == 5
    assert total() == 5
    before = time.monotonic()
    assert "only upwards" in temporal.refused(*update, "--input", "-1")
    assert time.monotonic() - before < 8, "a rejection took a workflow task's timeout"
    started = temporal.json(
        *("workflow", "update", "start", *here, "--name", "add_and_get", "--input", "10"),
        *("--update-id", "second", "--wait-for-stage", "accepted"),
    )
    assert started["updateId"] == "second"
    result = temporal.json("workflow", "update", "result", *here, "--update-id", "second")
    assert result["result"] == 15
    temporal.text("workflow", "signal", *here, "--name", "finish")
    assert temporal.json("workflow", "result", *here)["result"] == 15


def test_signal_with_start(temporal: Temporal, queue: str, unique: str) -> None:
    command = ("workflow", "signal-with-start", "--type", "Adding", "--task-queue", queue, "--workflow-id", unique)
    signal = ("--signal-name", "add", "--signal-input", "4")
    first = temporal.json(*command, *signal)
    assert temporal.json(*command, *signal)["runId"] == first["runId"]
    temporal.text("workflow", "signal", "--workflow-id", unique, "--name", "finish")
    assert temporal.json("workflow", "result", "--workflow-id", unique)["result"] == 8


def test_cancel(temporal: Temporal, queue: str, unique: str) -> None:
    start(temporal, queue, unique)
    temporal.text("workflow", "cancel", "--workflow-id", unique)
    eventually(lambda: status(temporal, unique) == "CANCELED", "the workflow is cancelled")
    assert "WORKFLOW_EXECUTION_CANCEL_REQUESTED" in event_types(temporal, unique)


def test_terminate(temporal: Temporal, queue: str, unique: str) -> None:
    start(temporal, queue, unique)
    temporal.text("workflow", "terminate", "--workflow-id", unique, "--reason", "enough")
    assert status(temporal, unique) == "TERMINATED"
    events = temporal.json("workflow", "show", "--workflow-id", unique)["events"]
    assert events[-1]["workflowExecutionTerminatedEventAttributes"]["reason"] == "enough"


def test_reset(temporal: Temporal, queue: str, unique: str) -> None:
    old = start(temporal, queue, unique, "Greeting", "--input", '"Grace"')
    temporal.json("workflow", "result", "--workflow-id", unique)
    new = temporal.json(
        *("workflow", "reset", "--workflow-id", unique, "--type", "FirstWorkflowTask", "--reason", "once more")
    )["runId"]
    assert new != old
    done = temporal.json("workflow", "result", "--workflow-id", unique, "--run-id", new)
    assert done["result"] == "Hello, Grace!"
    types = event_types(temporal, unique, "--run-id", new)
    assert types[3] == "WORKFLOW_TASK_FAILED"
    assert types.count("ACTIVITY_TASK_COMPLETED") == 1
    assert status(temporal, unique, "--run-id", old) == "COMPLETED"
    by_event = temporal.json(
        *("workflow", "reset", "--workflow-id", unique, "--run-id", old, "--event-id", "10", "--reason", "late")
    )["runId"]
    temporal.json("workflow", "result", "--workflow-id", unique, "--run-id", by_event)
    # The activity's result is from before the reset.
    assert event_types(temporal, unique, "--run-id", by_event)[6] == "ACTIVITY_TASK_COMPLETED"


def test_list_and_count(temporal: Temporal, queue: str, unique: str) -> None:
    ids = {f"{unique}-{number}" for number in range(3)}
    for workflow_id in ids:
        start(temporal, queue, workflow_id)
    query = f'WorkflowId STARTS_WITH "{unique}" AND ExecutionStatus = "Running"'

    def listed() -> set[str]:
        found = temporal.json("workflow", "list", "--query", query)
        return {each["execution"]["workflowId"] for each in found}

    eventually(lambda: listed() == ids, "all three are listed")
    assert temporal.json("workflow", "count", "--query", query)["count"] == "3"
    assert temporal.text("workflow", "list", "--query", query, "--limit", "2").count(unique) == 2
    grouped = temporal.json(
        "workflow", "count", "--query", f'WorkflowId STARTS_WITH "{unique}" GROUP BY ExecutionStatus'
    )
    assert [each["count"] for each in grouped["groups"]] == ["3"]
    for workflow_id in ids:
        temporal.text("workflow", "terminate", "--workflow-id", workflow_id)
    eventually(lambda: not listed(), "none is running")


def test_delete(temporal: Temporal, queue: str, unique: str) -> None:
    start(temporal, queue, unique)
    temporal.text("workflow", "delete", "--workflow-id", unique, "--yes")

    def gone() -> bool:
        return temporal.run("workflow", "describe", "--workflow-id", unique).returncode != 0

    eventually(gone, "the workflow is deleted")
    query = f'WorkflowId = "{unique}"'
    eventually(lambda: temporal.json("workflow", "list", "--query", query) == [], "it is not listed")


def test_namespaces(temporal: Temporal, unique: str) -> None:
    temporal.text("operator", "namespace", "create", unique, "--retention", "48h", "--description", "for a test")

    def described() -> Any:
        done = temporal.run("operator", "namespace", "describe", unique, "--output", "json")
        return done.returncode == 0

    eventually(described, "the namespace is described")
    namespace = temporal.json("operator", "namespace", "describe", unique)
    assert namespace["namespaceInfo"]["name"] == unique
    assert namespace["namespaceInfo"]["description"] == "for a test"
    assert namespace["config"]["workflowExecutionRetentionTtl"] == "172800s"
    names = {each["namespaceInfo"]["name"] for each in temporal.json("operator", "namespace", "list")}
    assert {"default", unique} <= names
    assert "already" in temporal.refused("operator", "namespace", "create", unique).lower()
    assert "not found" in temporal.refused("operator", "namespace", "describe", f"no-{unique}").lower()

    # What is in one namespace is in no other.
    def can_start() -> bool:
        start_it = ("workflow", "start", "--type", "T", "--task-queue", "q", "--workflow-id", unique)
        return temporal.run(*start_it, "--namespace", unique).returncode == 0

    eventually(can_start, "a workflow starts in the new namespace")
    assert "not found" in temporal.refused("workflow", "describe", "--workflow-id", unique).lower()
    assert status(temporal, unique, "--namespace", unique) == "RUNNING"


@pytest.mark.parametrize("value", ['"blue"', '["blue"]'])
def test_search_attributes(temporal: Temporal, queue: str, unique: str, value: str) -> None:
    """A list of one is that one: this is how the TypeScript SDK says it."""
    name = f"Word{unique.removeprefix('cli-')}"
    temporal.text("operator", "search-attribute", "create", "--name", name, "--type", "Keyword")

    def known() -> bool:
        return name in temporal.text("operator", "search-attribute", "list")

    eventually(known, "the search attribute is listed")

    def started() -> bool:
        command = ("workflow", "start", "--type", "Adding", "--task-queue", queue, "--workflow-id", unique)
        return temporal.run(*command, "--search-attribute", f"{name}={value}").returncode == 0

    eventually(started, "a workflow with the attribute starts")
    query = f'{name} = "blue"'
    found = eventually(lambda: temporal.json("workflow", "list", "--query", query), "it is found")
    assert [each["execution"]["workflowId"] for each in found] == [unique]
    temporal.text("workflow", "terminate", "--workflow-id", unique)
    assert temporal.refused("workflow", "list", "--query", f'No{name} = "blue"')


def test_task_queue_describe(temporal: Temporal, queue: str, unique: str) -> None:
    # The worker is there, and has polled.
    temporal.json(
        *("workflow", "execute", "--type", "Greeting", "--task-queue", queue),
        *("--workflow-id", unique, "--input", '"Alan"'),
    )

    def pollers() -> set[str]:
        described = temporal.json("task-queue", "describe", "--task-queue", queue)
        return {each["taskQueueType"] for each in described["pollers"] or []}

    eventually(lambda: pollers() >= {"workflow", "activity"}, "the worker's pollers are listed")


def test_cluster(temporal: Temporal) -> None:
    assert temporal.text("operator", "cluster", "health").strip() == "SERVING"
    assert temporal.json("operator", "cluster", "system")["serverVersion"]
