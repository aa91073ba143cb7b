"""Policies decide every call of the API: with the SDK and keys of several groups."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from authority import Secured
from server import binary
from temporalio.api.common.v1 import WorkflowExecution, WorkflowType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    PollWorkflowTaskQueueRequest,
    RegisterNamespaceRequest,
    RespondWorkflowTaskFailedRequest,
    SignalWithStartWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
    TerminateWorkflowExecutionRequest,
)
from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from test_authn import Doubling, connect, double

if not binary().endswith("steadfast"):
    pytest.skip("only Steadfast has policies", allow_module_level=True)


def secured(folder, request, policies: str | None) -> Iterator[Secured]:
    from conftest import LOGS

    server = Secured(folder, "[auth]\napi_keys = true\n", policies=policies)
    request.config.stash[LOGS].append(server.log)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        request.config.stash[LOGS].remove(server.log)


@pytest.fixture
def starters(tmp_path, request) -> Iterator[Secured]:
    """A server that has no policies but those that are built in."""
    yield from secured(tmp_path, request, None)


async def member(server: Secured, group: str) -> Client:
    return await connect(server, server.new_key(f"{group}-key", "--group", group))


async def denied(call: Awaitable[Any]) -> str:
    with pytest.raises(RPCError) as error:
        await call
    assert error.value.status == RPCStatusCode.PERMISSION_DENIED, error.value
    return error.value.message


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


async def test_a_worker_works_and_no_more(starters: Secured) -> None:
    worker, operator = await member(starters, "worker"), await member(starters, "operator")
    async with Worker(
        worker,
        task_queue="doubling",
        workflows=[Doubling],
        activities=[double],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        options = {"id": "one", "task_queue": "doubling"}
        assert await operator.execute_workflow(Doubling.run, 21, **options) == 42
        message = await denied(worker.get_workflow_handle("one").terminate())
        assert message == (
            'TerminateWorkflowExecution is denied in namespace "default": '
            "no policy permits it to api-key#worker-key"
        )
        assert "StartWorkflowExecution" in await denied(
            worker.start_workflow(Doubling.run, 1, id="two", task_queue="doubling")
        )
    poll = PollWorkflowTaskQueueRequest(namespace="default", task_queue=TaskQueue(name="doubling"))
    assert "PollWorkflowTaskQueue" in await denied(operator.workflow_service.poll_workflow_task_queue(poll))
    new = RegisterNamespaceRequest(namespace="new")
    assert "RegisterNamespace" in await denied(operator.workflow_service.register_namespace(new))


async def test_an_auditor_exports_and_does_not_start(starters: Secured) -> None:
    operator = await member(starters, "operator")
    await operator.start_workflow(Doubling.run, 1, id="audited", task_queue="nobody")
    key = starters.new_key("ann", "--kind", "user", "--group", "auditor")
    auditor = await connect(starters, key)
    assert "StartWorkflowExecution" in await denied(
        auditor.start_workflow(Doubling.run, 1, id="mine", task_queue="nobody")
    )
    bundle = starters.folder / "bundle.zip"
    arguments = ["evidence", "export", "-w", "audited", "-o", str(bundle)]

    async def exported() -> bool:
        done = await asyncio.to_thread(starters.command, *arguments, key=key)
        return done.returncode == 0

    await eventually(exported)
    assert bundle.exists()
    other = starters.new_key("bob", "--group", "operator")
    done = starters.command(*arguments, key=other)
    assert done.returncode == 1 and "ExportEvidence is denied" in done.stderr, done
    # Erasing is for administrators.
    done = starters.command("evidence", "erase", "-w", "audited", "--yes", key=key)
    assert done.returncode == 1 and "EraseEvidence is denied" in done.stderr, done


async def test_who_is_in_no_group_connects_and_no_more(starters: Secured) -> None:
    key = starters.new_key("nobody")
    client = await connect(starters, key)
    await denied(client.get_workflow_handle("any").describe())
    for path, action in [
        ("/api/v1/status", "GetStatus"),
        ("/metrics", "GetMetrics"),
        ("/log/default/checkpoint", "ReadLog"),
        ("/api/v1/namespaces/default/approvals", "ListApprovals"),
        ("/api/v1/namespaces/default/evidence/ocsf", "ExportOcsf"),
        ("/api/v1/keys", "ListKeys"),
    ]:
        status, body, _ = starters.get(path, key)
        assert status == 403 and body.decode().startswith(f"{action} is denied"), (path, body)
    assert starters.get("/healthz")[0] == 200
    # It leads to the console, which begins with the namespaces.
    assert starters.get("/", key)[0] == 403


async def test_a_task_is_of_its_own_namespace(tmp_path, request) -> None:
    policies = """
        permit(principal in Group::"admin", action, resource);
        permit(principal, action in Action::"connect", resource);
        permit(principal in Group::"worker", action, resource == Namespace::"default");
    """
    for server in secured(tmp_path, request, policies):
        admin = await connect(server, server.admin_key, namespace="other")
        other = RegisterNamespaceRequest(namespace="other")
        other.workflow_execution_retention_period.FromSeconds(86_400)
        await admin.workflow_service.register_namespace(other)
        await admin.start_workflow("Any", id="theirs", task_queue="queue")
        poll = PollWorkflowTaskQueueRequest(namespace="other", task_queue=TaskQueue(name="queue"))
        task = await admin.workflow_service.poll_workflow_task_queue(poll)
        assert task.task_token
        worker = await member(server, "worker")
        answer = RespondWorkflowTaskFailedRequest(namespace="default", task_token=task.task_token)
        message = await denied(worker.workflow_service.respond_workflow_task_failed(answer))
        assert 'denied in namespace "other"' in message
        # Who may answer for both is told as by others.
        with pytest.raises(RPCError, match="different namespace") as error:
            await admin.workflow_service.respond_workflow_task_failed(answer)
        assert error.value.status == RPCStatusCode.INVALID_ARGUMENT
        # The id of a namespace says no less than its name.
        described = await admin.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="other"))
        by_id = DescribeNamespaceRequest(id=described.namespace_info.id)
        assert 'denied in namespace "other"' in await denied(worker.workflow_service.describe_namespace(by_id))


async def test_a_call_needs_all_that_it_does(tmp_path, request) -> None:
    policies = """
        permit(principal, action, resource);
        @id("not-this-one")
        forbid(principal in Group::"some", action == Action::"StartWorkflowExecution", resource)
        when { context has workflow_type && context.workflow_type == "Doubling" };
        @id("no-ends")
        forbid(principal in Group::"some", action == Action::"TerminateWorkflowExecution", resource);
    """
    for server in secured(tmp_path, request, policies):
        client = await member(server, "some")
        name = "StartWorkflowExecution"
        expected = f'{name} is denied in namespace "default": forbidden by not-this-one'
        assert await denied(client.start_workflow("Doubling", id="w", task_queue="q")) == expected
        with_start = SignalWithStartWorkflowExecutionRequest(
            namespace="default",
            workflow_id="w",
            workflow_type=WorkflowType(name="Doubling"),
            task_queue=TaskQueue(name="q"),
            signal_name="s",
            request_id="r",
        )
        assert await denied(client.workflow_service.signal_with_start_workflow_execution(with_start)) == expected
        start = WithStartWorkflowOperation(
            "Doubling", id="w", task_queue="q", id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING
        )
        with pytest.raises(RPCError) as error:
            await client.execute_update_with_start_workflow("u", start_workflow_operation=start)
        assert error.value.message == expected
        await client.start_workflow("Other", id="w", task_queue="q")
        start = StartWorkflowExecutionRequest(
            namespace="default",
            workflow_id="w",
            workflow_type=WorkflowType(name="Other"),
            task_queue=TaskQueue(name="q"),
            request_id="another",
            workflow_id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING.value,
        )
        message = await denied(client.workflow_service.start_workflow_execution(start))
        assert message.startswith("TerminateWorkflowExecution") and message.endswith("forbidden by no-ends")


async def test_changed_policies_count_within_seconds(tmp_path, request) -> None:
    for server in secured(tmp_path, request, "permit(principal, action, resource);"):
        client = await member(server, "some")
        handle = await client.start_workflow("Any", id="w", task_queue="q")
        file = server.policies / "policies.cedar"
        forbid = '@id("hands-off") forbid(principal in Group::"some", action in Action::"read", resource);'
        file.write_text(file.read_text() + forbid)

        async def is_forbidden() -> bool:
            try:
                await handle.describe()
            except RPCError as error:
                assert error.message.endswith("forbidden by hands-off"), error
                return True
            return False

        await eventually(is_forbidden)
        # What is not valid is not used.
        file.write_text("permit(")
        await asyncio.sleep(2.5)
        assert await is_forbidden()
        file.write_text("permit(principal, action, resource);")

        async def is_permitted() -> bool:
            return not await is_forbidden()

        await eventually(is_permitted)


def metric(server: Secured, name: str) -> int:
    _, body, _ = server.get("/metrics", server.admin_key)
    [line] = [line for line in body.decode().splitlines() if line.startswith(f"steadfast_{name} ")]
    return int(line.split()[-1])


async def test_refused_calls_leave_entries_but_not_many(starters: Secured) -> None:
    client = await member(starters, "worker")
    request = TerminateWorkflowExecutionRequest(
        namespace="default", workflow_execution=WorkflowExecution(workflow_id="order-7")
    )
    for _ in range(50):
        await denied(client.workflow_service.terminate_workflow_execution(request))
    request.namespace = "invented"
    await denied(client.workflow_service.terminate_workflow_execution(request))
    found: list[dict[str, Any]] = []

    async def are_there() -> bool:
        entries = await asyncio.to_thread(starters.entries, starters.admin_key)
        found[:] = [of for of in entries if of.get("note", {}).get("what") == "call/refused"]
        return len(found) >= 20

    await eventually(are_there)
    assert len(found) == 20
    assert found[0]["cause"] == {
        "auth": "api-key",
        "call": "TerminateWorkflowExecution",
        "principal": "api-key#worker-key",
    }
    assert found[0]["note"]["workflow_id"] == "order-7"
    assert "no policy permits it" in found[0]["note"]["detail"]
    assert metric(starters, "refused_calls_left_out_total") == 30
    assert metric(starters, 'refused_calls_total{why="denied"}') == 51
    starters.get("/api/v1/status", "sfk_nonsense")
    assert metric(starters, 'refused_calls_total{why="unauthenticated"}') == 1


def policy(*arguments: str, code: int = 0) -> str:
    done = subprocess.run([binary(), "policy", *arguments], capture_output=True, text=True, timeout=30)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


CASES = """
policies = "policies"

[[case]]
name = "operators start"
principal = { kind = "user", id = "ann", groups = ["operator"] }
action = "StartWorkflowExecution"
expect = "allow"

[[case]]
name = "agents call tools"
tool = "refund"
arguments = [{ amount = 5 }]
expect = "allow"
policies = ["agents"]
"""


def test_policies_are_written_explained_and_tested(tmp_path) -> None:
    policies = tmp_path / "policies"
    assert "admin.cedar" in policy("init", str(policies))
    assert "agents" in policy("check", str(policies))
    # What is there may have been edited.
    policy("init", str(policies), code=1)
    explain = ["explain", str(policies), "--action", "StartWorkflowExecution", "--principal", "api-key#w"]
    assert policy(*explain, "--group", "operator") == "allowed\nby policy operator\n"
    assert policy(*explain, "--group", "worker") == "denied: no policy permits it\n"
    answer = json.loads(policy(*explain, "--group", "operator", "--kind", "user", "--json"))
    assert (answer["answer"], answer["policies"]) == ("allow", ["operator"])
    policy("explain", str(policies), "--action", "Nothing", code=1)
    assert "by policy agents" in policy("explain", str(policies), "--tool", "refund", "--argument", "1")
    cases = tmp_path / "cases.toml"
    cases.write_text(CASES)
    assert policy("test", str(cases)).endswith("2 ok, 0 failed\n")
    cases.write_text(CASES.replace('["agents"]', '["admin"]'))
    told = policy("test", str(cases), code=1)
    assert "FAILED  agents call tools\n  expected: allow, by admin\n  decided:  allow, by agents\n" in told
    told = json.loads(policy("test", str(cases), "--json", code=1))
    assert told["failed"] == 1 and [case["ok"] for case in told["cases"]] == [True, False]
