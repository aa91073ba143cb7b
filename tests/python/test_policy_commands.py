"""Policies about children, signals, cancel requests and local activities of an agent on an unmodified SDK."""

import asyncio
import json
import subprocess
import time
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from server import Server, binary
from temporalio import activity, workflow
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, Worker
from test_bundle import export, trusted_key, verdict
from test_decisions import assert_others_agree
from test_policy import steadfast, vote, waiting

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast has policies", allow_module_level=True)

POLICIES = """
@id("commands")
permit(principal is Agent, action in Action::"command", resource in Namespace::"default");

@id("no-payments")
forbid(principal, action == Action::"StartChild", resource == Workflow::"default/Pay")
unless { context.numbers.hasTag("/0/amount") };

@id("large-payments")
@approval("required") @approvers("finance") @quorum("2") @timeout("PT1H")
forbid(principal, action == Action::"StartChild", resource == Workflow::"default/Pay")
unless { context.numbers.hasTag("/0/amount") && context.numbers.getTag("/0/amount") <= 1000 };

@id("few-children")
forbid(principal, action == Action::"StartChild", resource)
when { context.children.hasTag("Pay") && context.children.getTag("Pay") >= 2 };

@id("no-stop")
forbid(principal, action in [Action::"SignalExternal", Action::"CancelExternal"], resource == Session::"default/holy");

@id("shutdowns")
@approval("required")
forbid(principal, action == Action::"SignalExternal", resource)
when { context.signal_name == "shutdown" };

@id("no-local-deletes")
forbid(principal, action == Action::"RunLocalTool", resource == Tool::"default/delete_customer");

@id("no-other-types")
forbid(principal, action == Action::"ContinueAs", resource == Workflow::"default/Pay");
"""

done: list[str] = []


@workflow.defn(sandboxed=False)
class Pay:
    @workflow.run
    async def run(self, payment: dict[str, Any]) -> str:
        return f"paid {payment['amount']}"


@workflow.defn(sandboxed=False)
class Listener:
    """Tells which signals it had, once it was told to end."""

    def __init__(self) -> None:
        self.had: list[str] = []

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: "end" in self.had)
        return self.had

    @workflow.signal(dynamic=True)
    async def any(self, name: str, _: Sequence[RawValue]) -> None:
        self.had.append(name)


async def told(what: Any) -> list[str]:
    """The failure that an agent sees, outermost first."""
    try:
        return ["done", str(await what)]
    except Exception as error:  # noqa: BLE001
        seen, cause = [], error
        while cause is not None:
            seen.append(type(cause).__name__)
            if isinstance(cause, ApplicationError):
                seen += [str(cause.type), cause.message, "final" if cause.non_retryable else "retryable"]
            cause = cause.__cause__
        return seen


@workflow.defn(sandboxed=False)
class Parent:
    @workflow.run
    async def run(self, payments: list[Any]) -> list[list[str]]:
        seen = []
        for number, payment in enumerate(payments):
            child = f"{workflow.info().workflow_id}-{number}"
            seen.append(await told(workflow.execute_child_workflow("Pay", payment, id=child, result_type=str)))
        return seen


@workflow.defn(sandboxed=False)
class Impatient:
    @workflow.run
    async def run(self, payment: dict[str, Any]) -> list[str]:
        child = workflow.execute_child_workflow("Pay", payment, id="impatient-child", result_type=str)
        return await told(asyncio.wait_for(child, 1))


@workflow.defn(sandboxed=False)
class Sender:
    @workflow.run
    async def run(self, to: str, signals: list[str], cancel: bool) -> list[list[str]]:
        other = workflow.get_external_workflow_handle(to)
        seen = [await told(other.signal(signal, {"why": "tidy"})) for signal in signals]
        if cancel:
            seen.append(await told(other.cancel()))
        return seen


@activity.defn
async def look_up(customer: str) -> str:
    done.append(f"look up {customer}")
    return customer.upper()


@activity.defn
async def delete_customer(customer: str) -> None:
    done.append(f"delete {customer}")


@workflow.defn(sandboxed=False)
class Local:
    @workflow.run
    async def run(self, tool: str) -> str:
        return await workflow.execute_local_activity(
            tool, "c-7", result_type=str, start_to_close_timeout=timedelta(seconds=5)
        )


@workflow.defn(sandboxed=False)
class Becomes:
    @workflow.run
    async def run(self, payment: dict[str, Any]) -> str:
        workflow.continue_as_new(payment, workflow="Pay")


WORKFLOWS = [Pay, Listener, Parent, Impatient, Sender, Local, Becomes]


@asynccontextmanager
async def agents(server: Server) -> AsyncIterator[Client]:
    client = await server.client(identity="alice@desk")
    worker = Worker(client, task_queue="agents", workflows=WORKFLOWS, activities=[look_up, delete_customer])
    async with worker:
        yield client


async def started(server: Server, tmp_path: Path) -> Path:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "commands.cedar").write_text(POLICIES)
    server.flags = [*server.flags, "--policy", str(policies)]
    server.start()
    await server.ready()
    done.clear()
    return policies


async def start(client: Client, what: Any, workflow_id: str, *arguments: Any) -> WorkflowHandle:
    return await client.start_workflow(what, args=list(arguments), id=workflow_id, task_queue="agents")


async def replayed(handle: WorkflowHandle) -> None:
    """The SDK replays the history without finding it nondeterministic."""
    await Replayer(workflows=WORKFLOWS).replay_workflow(await handle.fetch_history())


async def failed_task(handle: WorkflowHandle) -> Any:
    """What the event of the workflow task that failed says."""
    deadline = time.monotonic() + 15
    while True:
        for event in (await handle.fetch_history()).events:
            if event.HasField("workflow_task_failed_event_attributes"):
                return event.workflow_task_failed_event_attributes
        assert time.monotonic() < deadline, "no workflow task failed"
        await asyncio.sleep(0.1)


def decisions(bundle: Path) -> list[dict[str, Any]]:
    with zipfile.ZipFile(bundle) as files:
        entries = [json.loads(line)["entry"] for line in files.read("entries.jsonl").splitlines()]
    return [item for entry in entries for item in entry.get("decisions", [])]


REFUSED = ["ChildWorkflowError", "ApplicationError", "PolicyDenied"]


async def test_a_forbidden_child_fails_and_its_parent_goes_on(own_server: Server, tmp_path: Path) -> None:
    await started(own_server, tmp_path)
    async with agents(own_server) as client:
        handle = await start(client, Parent.run, "parent", ["a lot", {"amount": 10}, {"amount": 20}])
        refused, paid, too_many = await handle.result()
        assert refused == [*REFUSED, "refused by policy large-payments, no-payments", "final"]
        assert paid == ["done", "paid 10"]
        # A refused start counts: it was asked for.
        assert too_many == [*REFUSED, "refused by policy few-children", "final"]
        await replayed(handle)
    bundle = export(own_server, tmp_path / "parent.zip", "-w", "parent")
    verdict(bundle, trusted_key(own_server), 0)
    seen = [(of["kind"], of["activity_type"], of["activity_id"], of["answer"]) for of in decisions(bundle)]
    assert seen == [
        ("child", "Pay", "parent-0", "deny"),
        ("child", "Pay", "parent-1", "allow"),
        ("child", "Pay", "parent-2", "deny"),
    ]
    assert assert_others_agree(bundle) == {"allow", "deny"}
    own_server.check_evidence()


async def test_a_child_waits_for_people_over_kills(own_server: Server, tmp_path: Path) -> None:
    await started(own_server, tmp_path)
    async with agents(own_server) as client:
        handle = await start(client, Parent.run, "parent", [{"amount": 5000}])
        call = await waiting(own_server)
        assert (call["kind"], call["activityType"], call["eventId"]) == ("child", "Pay", 5)
        assert call["target"] == {"workflowId": "parent-0", "taskQueue": "agents"}
        assert call["arguments"] == [{"json": {"amount": 5000}}]
        listed = await asyncio.to_thread(steadfast, own_server, "approvals", "list")
        assert "child parent-0 (Pay) of workflow parent (Parent), event 5" in listed
        await vote(own_server, "approve", "parent", "alice@desk", "finance", code=1)
        assert "more votes" in await vote(own_server, "approve", "parent", "bob", "finance")
        for _ in range(2):
            own_server.kill()
            own_server.start()
            await own_server.ready()
        assert [of["principal"] for of in (await waiting(own_server))["votes"]] == ["bob"]
        assert "released" in await vote(own_server, "approve", "parent", "carol", "finance")
        assert await asyncio.wait_for(handle.result(), 20) == [["done", "paid 5000"]]
        await replayed(handle)

        denied = await start(client, Parent.run, "denied", [{"amount": 6000}])
        await waiting(own_server)
        assert "refused" in await vote(own_server, "deny", "denied", "bob", "finance")
        [[*kinds, message, final]] = await asyncio.wait_for(denied.result(), 20)
        assert kinds == ["ChildWorkflowError", "ApplicationError", "ApprovalDenied"] and final == "final"
        assert message == "bob denied this start of a child"
        await replayed(denied)
    bundle = export(own_server, tmp_path / "parent.zip", "-w", "parent")
    verdict(bundle, trusted_key(own_server), 0)
    assert assert_others_agree(bundle) == {"approval"}
    with zipfile.ZipFile(bundle) as files:
        assert "The child parent-0 (Pay) goes on: bob approved, carol approved" in files.read("report.html").decode()
    own_server.check_evidence()


async def test_a_child_that_waits_is_cancelled(own_server: Server, tmp_path: Path) -> None:
    await started(own_server, tmp_path)
    async with agents(own_server) as client:
        handle = await start(client, Impatient.run, "impatient", {"amount": 5000})
        assert (await waiting(own_server))["target"]["workflowId"] == "impatient-child"
        seen = await asyncio.wait_for(handle.result(), 20)
        assert seen[0] in ("TimeoutError", "ChildWorkflowError") and "CancelledError" in seen, seen
        assert "nothing waits" in await asyncio.to_thread(steadfast, own_server, "approvals", "list")
        await replayed(handle)
    own_server.check_evidence()


async def test_signals_and_cancel_requests_are_refused(own_server: Server, tmp_path: Path) -> None:
    await started(own_server, tmp_path)
    async with agents(own_server) as client:
        holy = await start(client, Listener.run, "holy")
        handle = await start(client, Sender.run, "sender", "holy", ["end"], True)
        signal, cancel = await handle.result()
        # There is room for a cause only, and no cause for this: it is the one that nothing else has.
        assert signal[0] == "ApplicationError" and "unknown" in signal[2], signal
        assert cancel[0] == "ApplicationError" and "unknown" in cancel[2], cancel
        await replayed(handle)
        assert (await holy.describe()).status.name == "RUNNING"
        await holy.signal("end")
        assert await holy.result() == ["end"]
    bundle = export(own_server, tmp_path / "sender.zip", "-w", "sender")
    verdict(bundle, trusted_key(own_server), 0)
    seen = [(of["kind"], of["activity_type"], of["activity_id"], of["policies"]) for of in decisions(bundle)]
    assert seen == [("signal", "end", "holy", ["no-stop"]), ("cancel", "", "holy", ["no-stop"])]
    assert assert_others_agree(bundle) == {"deny"}
    own_server.check_evidence()


async def test_a_signal_waits_for_people(own_server: Server, tmp_path: Path) -> None:
    policies = await started(own_server, tmp_path) / "commands.cedar"
    async with agents(own_server) as client:
        listener = await start(client, Listener.run, "listener")
        handle = await start(client, Sender.run, "sender", "listener", ["hello", "shutdown", "end"], False)
        call = await waiting(own_server)
        assert (call["kind"], call["activityType"], call["target"]) == (
            "signal",
            "shutdown",
            {"workflowId": "listener"},
        )
        assert call["arguments"] == [{"json": {"why": "tidy"}}]
        own_server.kill()
        own_server.start()
        await own_server.ready()
        await vote(own_server, "approve", "sender", "bob", "finance")
        assert await asyncio.wait_for(handle.result(), 20) == [["done", "None"]] * 3
        assert await asyncio.wait_for(listener.result(), 20) == ["hello", "shutdown", "end"]
        await replayed(handle)

        listener = await start(client, Listener.run, "second")
        handle = await start(client, Sender.run, "changed", "second", ["shutdown", "end"], False)
        await waiting(own_server)
        policies.write_text(POLICIES.replace('== "shutdown"', '== "nothing"'))
        assert await asyncio.wait_for(handle.result(), 20) == [["done", "None"]] * 2
        assert await asyncio.wait_for(listener.result(), 20) == ["shutdown", "end"]
    bundle = export(own_server, tmp_path / "sender.zip", "-w", "sender")
    verdict(bundle, trusted_key(own_server), 0)
    assert assert_others_agree(bundle) == {"allow", "approval"}
    own_server.check_evidence()


async def test_a_forbidden_local_activity_fails_the_workflow_task(own_server: Server, tmp_path: Path) -> None:
    policies = await started(own_server, tmp_path) / "commands.cedar"
    async with agents(own_server) as client:
        allowed = await start(client, Local.run, "allowed", "look_up")
        assert await allowed.result() == "C-7"
        await replayed(allowed)

        refused = await start(client, Local.run, "refused", "delete_customer")
        failed = await failed_task(refused)
        assert failed.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_RECORD_MARKER_ATTRIBUTES
        assert failed.failure.message == (
            "PolicyDenied: the local activity delete_customer is refused by policy no-local-deletes. "
            "It has run in the worker: what it did is not undone."
        )
        assert "delete c-7" in done, "which nothing can prevent"
        policies.write_text(POLICIES.replace("default/delete_customer", "default/nothing"))
        await asyncio.wait_for(refused.result(), 60)
        await replayed(refused)
    for workflow_id, answers in (("allowed", {"allow"}), ("refused", {"allow", "deny"})):
        bundle = export(own_server, tmp_path / f"{workflow_id}.zip", "-w", workflow_id)
        verdict(bundle, trusted_key(own_server), 0)
        assert {of["kind"] for of in decisions(bundle)} == {"local"}
        assert assert_others_agree(bundle) == answers
    own_server.check_evidence()


async def test_a_session_does_not_become_another(own_server: Server, tmp_path: Path) -> None:
    policies = await started(own_server, tmp_path) / "commands.cedar"
    async with agents(own_server) as client:
        handle = await start(client, Becomes.run, "becomes", {"amount": 1})
        failed = await failed_task(handle)
        assert failed.failure.message == (
            "PolicyDenied: going on as a workflow of type Pay is refused by policy no-other-types."
        )
        policies.write_text(POLICIES.replace('"ContinueAs"', '"RunLocalTool"'))
        assert await asyncio.wait_for(handle.result(), 60) == "paid 1"
    bundle = export(own_server, tmp_path / "becomes.zip", "-w", "becomes")
    verdict(bundle, trusted_key(own_server), 0)
    assert {(of["kind"], of["activity_type"]) for of in decisions(bundle)} == {("continue-as", "Pay")}
    assert assert_others_agree(bundle) == {"allow", "deny"}
    own_server.check_evidence()


def test_commands_are_explained_without_a_server(tmp_path: Path) -> None:
    path = tmp_path / "commands.cedar"
    path.write_text(POLICIES)

    def explain(*arguments: str, code: int = 0) -> tuple[str, list[str]]:
        command = [binary(), "policy", "explain", str(path), "--json", *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert ended.returncode == code, ended.stdout + ended.stderr
        told = json.loads(ended.stdout or "{}")
        return told.get("answer", ""), told.get("policies", [])

    assert explain("--child", "Pay", "--argument", '{"amount": 5}') == ("allow", ["commands"])
    assert explain("--child", "Pay", "--argument", '{"amount": 5000}') == ("approval", ["large-payments"])
    assert explain("--child", "Pay")[0] == "deny"
    assert explain("--signal", "end", "--to", "holy") == ("deny", ["no-stop"])
    assert explain("--signal", "shutdown", "--to", "other") == ("approval", ["shutdowns"])
    assert explain("--cancel", "holy") == ("deny", ["no-stop"])
    assert explain("--local-tool", "delete_customer") == ("deny", ["no-local-deletes"])
    assert explain("--tool", "delete_customer")[0] == "allow"
    assert explain("--continue-as", "Pay") == ("deny", ["no-other-types"])
    explain("--signal", "end", code=2)
    explain("--signal", "end", "--to", "x", "--cancel", "x", code=2)
    explain("--action", "StartChild", code=1)
