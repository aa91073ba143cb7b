"""`steadfast access` says of live sessions who started them, what they may call and what they called."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from server import Server, binary
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker
from test_openapi import answer_schema
from test_policy import steadfast

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast has policies", allow_module_level=True)

POLICIES = """
@id("agents") permit(principal is Agent, action in Action::"command", resource);
@id("refunds") @approval("required") @quorum("1") @timeout("PT1H")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/refund")
unless { context.numbers.hasTag("/0") && context.numbers.getTag("/0") < 100 };
@id("reports") forbid(principal == Agent::"default/Report", action, resource == Tool::"default/refund");
@id("never") forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/delete_customer");
"""
SHORT = timedelta(seconds=20)


@activity.defn
async def look_up(customer: str) -> int:
    return len(customer)


@activity.defn
async def refund(amount: int) -> str:
    return f"refunded {amount}"


@activity.defn
async def slow() -> None:
    await asyncio.sleep(60)


@workflow.defn(name="Refund", sandboxed=False)
class Refund:
    @workflow.run
    async def run(self, amount: int) -> None:
        await workflow.execute_activity(look_up, "c-7", start_to_close_timeout=SHORT)
        await workflow.execute_activity(refund, amount, start_to_close_timeout=SHORT)
        await workflow.execute_activity(slow, start_to_close_timeout=timedelta(minutes=5))


@workflow.defn(name="Report", sandboxed=False)
class Report:
    def __init__(self) -> None:
        self.over = False

    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(look_up, "c-7", start_to_close_timeout=SHORT)
        await workflow.execute_local_activity(look_up, "c-7", start_to_close_timeout=SHORT)
        await workflow.wait_condition(lambda: self.over)

    @workflow.signal
    def end(self) -> None:
        self.over = True


@asynccontextmanager
async def agents(server: Server, client: Client) -> AsyncIterator[None]:
    worker = Worker(
        client,
        task_queue="agents",
        workflows=[Refund, Report],
        activities=[look_up, refund, slow],
        graceful_shutdown_timeout=timedelta(seconds=0),
    )
    async with worker:
        yield


async def access(server: Server, *flags: str) -> dict[str, Any]:
    return json.loads(await asyncio.to_thread(steadfast, server, "access", "--json", *flags))


async def until(server: Server, done: Any) -> dict[str, Any]:
    for _ in range(100):
        view = await access(server)
        sessions = {of["workflowId"]: of for of in view["sessions"]}
        if done(sessions):
            return view
        await asyncio.sleep(0.1)
    raise AssertionError(view)


def may(calls: list[dict[str, Any]]) -> dict[str, str]:
    return {of["name"]: of["may"] for of in calls if of["kind"] == "tool"}


async def test_live_sessions_and_their_principals(own_server: Server, tmp_path: Path) -> None:
    (tmp_path / "p.cedar").write_text(POLICIES)
    own_server.flags = [*own_server.flags, "--policy", str(tmp_path / "p.cedar"), "--credentials"]
    own_server.start()
    await own_server.ready()
    alice = await own_server.client(identity="alice@desk")
    bob = await own_server.client(identity="bob@desk")
    async with agents(own_server, alice):
        await alice.start_workflow(Refund.run, 10, id="small", task_queue="agents")
        await alice.start_workflow(Refund.run, 1000, id="large", task_queue="agents")
        report = await bob.start_workflow(Report.run, id="report", task_queue="agents")
        view = await until(
            own_server,
            lambda of: {"small", "large", "report"} <= of.keys()
            and of["small"]["credentials"]
            and of["small"]["credentials"][0]["tool"] == "slow"
            and of["large"]["waiting"]
            and any(call["kind"] == "local" for call in of["report"]["calls"]),
        )
        jsonschema.Draft202012Validator(answer_schema("/api/v1/access", "get")).validate(view)
        assert view["isComplete"] and view["more"] == 0
        sessions = {of["workflowId"]: of for of in view["sessions"]}
        small, large = sessions["small"], sessions["large"]
        allowed = {"look_up": "allow", "refund": "approval", "slow": "allow", "delete_customer": "deny"}
        assert may(small["calls"]) == allowed
        assert may(sessions["report"]["calls"]) == {**allowed, "refund": "deny"}
        by_name = {(of["kind"], of["name"]): of for of in small["calls"]}
        assert by_name["tool", "refund"]["byArguments"] == ["refunds"]
        assert by_name["tool", "refund"]["calls"] == 1
        assert (small["initiator"]["name"], small["runsAs"]) == ("alice@desk", "default/Refund")
        [credential] = small["credentials"]
        assert datetime.fromisoformat(credential["expires"]) < datetime.now(timezone.utc) + timedelta(minutes=16)
        [waiting] = large["waiting"]
        assert (waiting["name"], waiting["quorum"], waiting["votes"]) == ("refund", 1, 0)
        principals = {of["name"]: of for of in view["principals"]}
        assert set(principals) == {"alice@desk", "bob@desk", "default/Refund", "default/Report"}
        assert principals["alice@desk"]["sessions"] == 2 and principals["alice@desk"]["waiting"] == 1
        assert principals["alice@desk"]["credentialsUntil"] == credential["expires"]
        assert principals["bob@desk"]["called"] == ["look_up"]

        for flags, expected in [
            (["--principal", "bob@desk"], {"report"}),
            (["--principal", "default/Refund"], {"small", "large"}),
            (["--workflow-id", "large"], {"large"}),
            (["--namespace", "default"], {"small", "large", "report"}),
        ]:
            found = await access(own_server, *flags)
            assert {of["workflowId"] for of in found["sessions"]} == expected, flags
        few = await access(own_server, "--limit", "1")
        assert (len(few["sessions"]), few["more"], few["isComplete"]) == (1, 2, False)
        shown = await asyncio.to_thread(steadfast, own_server, "access")
        assert "alice@desk" in shown and "default/Report" in shown
        shown = await asyncio.to_thread(steadfast, own_server, "access", "--workflow-id", "small")
        assert f"holds {credential['id']}" in shown and "by the arguments: refunds" in shown
        refused = await asyncio.to_thread(
            steadfast, own_server, "access", "--namespace", "nowhere", code=1
        )
        assert "404" in refused

        assert small["paused"] is None
        await asyncio.to_thread(steadfast, own_server, "session", "pause", "--workflow-id", "small")
        [small] = (await access(own_server, "--workflow-id", "small"))["sessions"]
        assert small["paused"] is not None and len(small["credentials"]) == 1
        assert "small (paused)" in await asyncio.to_thread(steadfast, own_server, "access")

        # What closed counts for the report, and lives no more.
        await report.signal(Report.end)
        await report.result()
        assert {of["workflowId"] for of in (await access(own_server))["sessions"]} == {"small", "large"}
        unused = await access(own_server, "--unused")
        path = "/api/v1/access/unused"
        jsonschema.Draft202012Validator(answer_schema(path, "get")).validate(unused)
        types = {of["workflowType"]: of for of in unused["types"]}
        assert may(types["Report"]["unused"]) == {"slow": "allow"}
        assert may(types["Report"]["used"]) == {"look_up": "allow"}
        assert [of["name"] for of in types["Report"]["used"] if of["kind"] == "local"] == ["look_up"]
        assert may(types["Refund"]["unused"]) == {}
        assert [of["kind"] for of in types["Refund"]["unused"]] == ["local"]
        assert types["Refund"]["sessions"] == types["Refund"]["read"] == 2
        long_ago = await access(own_server, "--unused", "--to", "2020-01-01T00:00:00Z")
        assert long_ago["types"] == []
        shown = await asyncio.to_thread(steadfast, own_server, "access", "--unused")
        assert "Report in default: 1 sessions, 1 read; 1 of 3" in shown


async def test_odd_questions_are_refused(own_server: Server) -> None:
    own_server.start()
    await own_server.ready()
    for query in ["limit=1001", "limit=x", "limit=-1", "no=1", "namespace=nowhere"]:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{own_server.http}/api/v1/access?{query}", timeout=10)
        assert refused.value.code in (400, 404), query
    for query in ["from=yesterday", "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "sample=501"]:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{own_server.http}/api/v1/access/unused?{query}", timeout=10)
        assert refused.value.code == 400, query
    with urllib.request.urlopen(f"{own_server.http}/api/v1/access", timeout=10) as answer:
        view = json.load(answer)
    assert (view["sessions"], view["principals"], view["policies"]) == ([], [], None)
