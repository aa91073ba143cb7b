"""`steadfast inventory` says what sessions would lose or repeat, from their histories."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from server import Server, binary
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast takes inventories", allow_module_level=True)

SHORT = timedelta(seconds=20)


@activity.defn
async def look_up(customer: str) -> int:
    return len(customer)


@activity.defn
async def flaky() -> int:
    if activity.info().attempt < 3:
        raise RuntimeError("not yet")
    return activity.info().attempt


@activity.defn
async def refund(amount: int) -> str:
    return f"refunded {amount}"


@workflow.defn
class Careful:
    @workflow.run
    async def run(self) -> int:
        return await workflow.execute_activity(look_up, "c-7", start_to_close_timeout=SHORT)


@workflow.defn
class Careless:
    @workflow.run
    async def run(self) -> str:
        again = RetryPolicy(initial_interval=timedelta(milliseconds=20))
        await workflow.execute_activity(flaky, start_to_close_timeout=SHORT, retry_policy=again)
        await workflow.execute_local_activity(look_up, "c-7", start_to_close_timeout=SHORT)
        await workflow.execute_activity(look_up, "c-8", start_to_close_timeout=timedelta(days=3))
        once = RetryPolicy(maximum_attempts=1)
        return await workflow.execute_activity(refund, 10, start_to_close_timeout=SHORT, retry_policy=once)


FAILURES = ["once"]


@workflow.defn(name="<b>Failing</b>")
class Failing:
    @workflow.run
    async def run(self) -> str:
        if FAILURES:
            raise RuntimeError(f"<script>{FAILURES.pop()}</script>")
        return "done"


def inventory(server: Server, *flags: str) -> str:
    command = [*(binary(), "inventory", "--address", server.http), *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def risks(of: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(risk["risk"], risk.get("tool", "")): risk for risk in of["risks"]}


async def test_what_would_be_lost_comes_first(own_server: Server, tmp_path: Path) -> None:
    own_server.start()
    await own_server.ready()
    client = await Client.connect(own_server.address)
    async with Worker(
        client,
        task_queue="agents",
        workflows=[Careful, Careless, Failing],
        activities=[look_up, flaky, refund],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        for number in range(3):
            await client.execute_workflow(Careful.run, id=f"careful-{number}", task_queue="agents")
        await client.execute_workflow(Careless.run, id="careless", task_queue="agents")
        await client.execute_workflow(Failing.run, id="failing", task_queue="agents")

    taken = json.loads(inventory(own_server, "--json", "--sample", "2"))
    assert [of["workflowType"] for of in taken["types"]] == ["Careless", "<b>Failing</b>", "Careful"]
    careless, failing, careful = taken["types"]
    found = risks(careless)
    assert {name for name in found} == {
        ("made_again", "flaky"),
        ("local_activity", "look_up"),
        ("late_notice", "look_up"),
        ("single_attempt", "refund"),
        ("never_proven", ""),
    }
    # Two attempts before the third.
    assert found["made_again", "flaky"]["count"] == 2
    assert found["single_attempt", "refund"]["example"]["workflowId"] == "careless"
    assert ("task_failed", "") in risks(failing)
    assert (careful["listed"], careful["read"]) == (3, 2) and taken["isComplete"]
    assert set(risks(careful)) == {("never_proven", "")}
    assert [tool["tool"] for tool in taken["tools"]] == ["refund", "look_up", "flaky"]

    taken = json.loads(inventory(own_server, "--json", "--idempotent", "flaky"))
    assert ("made_again", "flaky") not in risks(taken["types"][0])

    page = tmp_path / "inventory.html"
    text = inventory(own_server, "--html", str(page))
    assert text.splitlines()[1].split()[:2] == [str(careless["score"]), "Careless"]
    written = page.read_text()
    assert "&lt;script&gt;once" in written and "<script" not in written and "<b>Failing" not in written
    assert "http" not in written.replace(own_server.address, "")

    for query, expected in [("sample=501", "sample is at most 500"), ("smaple=1", "unknown field")]:
        url = f"{own_server.http}/api/v1/namespaces/default/inventory?{query}"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=10)
        assert refused.value.code == 400 and expected in refused.value.read().decode()
