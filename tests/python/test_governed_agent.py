"""One agent, governed from its first call to the end of its identity: an unmodified SDK, a server that is
killed in the middle, a service that takes the attempt's credential only, and a bundle that has all of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import eventually
from server import binary
from temporalio import activity, workflow
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker
from test_bundle import export, trusted_key, verdict
from test_credentials import PAY, Configured, is_active, over_within_a_second, steadfast, verified
from test_policy import vote

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast governs", allow_module_level=True)

POLICIES = """
@id("agents")
permit(principal is Agent, action in Action::"command", resource);

@id("no-deletions")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/delete_customer");

@id("large-refunds")
@approval("required") @approvers("finance,risk") @quorum("2") @timeout("PT1H")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/refund")
unless { context.numbers.hasTag("/0/amount") && context.numbers.getTag("/0/amount") <= 1000 };
"""


class Bank:
    """A service: it pays to who shows a credential that the issuer says is active, and for the call that it
    is for only."""

    def __init__(self, server: Configured) -> None:
        self.server = server
        self.paid: list[str] = []

    async def pay(self, token: str, amount: int) -> None:
        claims = await asyncio.to_thread(verified, self.server, token, PAY)
        assert claims["sub"] == "default/RefundAgent" and claims["steadfast"]["tool"] == "refund"
        assert await asyncio.to_thread(is_active, self.server, token)
        key = claims["steadfast"]["idempotency_key"]
        if key not in self.paid:
            self.paid.append(key)


class Desk:
    """The agent's tools."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.deleted: list[str] = []
        self.held: asyncio.Queue[str] = asyncio.Queue()
        self.go_on = asyncio.Event()

    @activity.defn
    async def refund(self, call: dict[str, Any]) -> str:
        token = steadfast.credential().token
        await self.bank.pay(token, call["amount"])
        await self.held.put(token)
        await self.go_on.wait()
        return f"refunded {call['amount']}"

    @activity.defn
    async def delete_customer(self, customer: str) -> None:
        self.deleted.append(customer)


@workflow.defn(sandboxed=False)
class RefundAgent:
    @workflow.run
    async def run(self, call: dict[str, Any]) -> list[str]:
        said = []
        for tool, argument in [("delete_customer", "c-1"), ("refund", call)]:
            try:
                done = await workflow.execute_activity(
                    tool, argument, start_to_close_timeout=timedelta(minutes=5)
                )
                said.append(str(done))
            except ActivityError as error:
                assert isinstance(error.cause, ApplicationError)
                said.append(f"{error.cause.type}: {error.cause.message}")
        return said


def principals(server: Configured, *arguments: str) -> str:
    command = [binary(), "principals", arguments[0], "--address", server.http, *arguments[1:]]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


async def test_from_the_first_call_to_the_end_of_its_identity(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "agents.cedar").write_text(POLICIES)
    more = f"[policy]\npath = '{tmp_path / 'policies'}'\n[credentials]\n[credentials.audiences]\nrefund = '{PAY}'\n"
    server = Configured(tmp_path, "steadfast", more)
    server.start()
    try:
        await server.ready()
        bank = Bank(server)
        desk = Desk(bank)
        client = await server.client(identity="alice@desk")
        tools = {"activities": [desk.refund, desk.delete_customer], "plugins": [steadfast.CredentialPlugin()]}
        async with Worker(client, task_queue="q", workflows=[RefundAgent], **tools):
            first = await client.start_workflow(RefundAgent.run, {"amount": 5000}, id="first", task_queue="q")
            await approved_across_a_crash(server, bank)
            token = await asyncio.wait_for(desk.held.get(), 30)
            desk.go_on.set()
            refused, refunded = await first.result()
            assert refused.startswith("PolicyDenied") and "no-deletions" in refused
            assert (refunded, desk.deleted, len(bank.paid)) == ("refunded 5000", [], 1)
            await over_within_a_second(server, token)

            # A small one needs nobody. While it is under way the agent loses its identity.
            desk.go_on.clear()
            second = await client.start_workflow(RefundAgent.run, {"amount": 5}, id="second", task_queue="q")
            token = await asyncio.wait_for(desk.held.get(), 30)
            assert is_active(server, token)
            principals(
                server, "disable", "default/RefundAgent", "--agent", "--sessions", "revoke", "--identity", "root"
            )
            await over_within_a_second(server, token)
            with pytest.raises(WorkflowFailureError):
                await second.result()
            desk.go_on.set()
        paper = tmp_path / "certificate.json"
        principals(server, "certificate", "default/RefundAgent", "--agent", "-o", str(paper))
        key = trusted_key(server)
        command = [binary(), "evidence", "verify-certificate", str(paper), "--key", key]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert shown.returncode == 0 and "default/RefundAgent was disabled by root" in shown.stdout
        await all_of_it_is_in_bundles(server, key, tmp_path)
        server.check_evidence()
    finally:
        server.kill()


async def approved_across_a_crash(server: Configured, bank: Bank) -> None:
    """The refund waits for two people of two groups, whatever happens to the server."""

    async def waits() -> bool:
        command = [binary(), "approvals", "list", "--address", server.http, "--json"]
        ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
        return ran.returncode == 0 and '"first"' in ran.stdout

    await eventually(waits, "the approval")
    assert "more votes" in await vote(server, "approve", "first", "bob", "finance")
    server.kill()
    server.start()
    await server.ready()
    await eventually(waits, "the approval after the crash")
    assert bank.paid == []
    assert "released" in await vote(server, "approve", "first", "carol", "risk")


async def all_of_it_is_in_bundles(server: Configured, key: str, folder: Path) -> None:
    for name in ("first", "second"):
        bundle = export(server, folder / f"{name}.zip", "--workflow-id", name)
        assert verdict(bundle, key, 0)
    with zipfile.ZipFile(folder / "first.zip") as files:
        entries = [json.loads(line) for line in files.read("entries.jsonl").splitlines()]
    told = json.dumps(entries)
    for what in ("no-deletions", "large-refunds", "bob", "carol", '"jti"'):
        assert what in told, f"the bundle says nothing of {what}"
