"""Sessions to look at in the console: an agent that does what agents do, and one that means harm."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from server import Server
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

QUEUE = "agents"

POLICIES = """
@id("tools")
permit(principal is Agent, action in Action::"command", resource);

@id("no-deletions")
@description("Nobody's agent deletes customers.")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/delete_customer");

@id("large-refunds")
@approval("required") @approvers("finance,risk") @quorum("2") @timeout("PT4H")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/refund")
unless { context.numbers.hasTag("/0/amount") && context.numbers.getTag("/0/amount") <= 1000 };
"""

HOSTILE_ID = "x</title><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\u202egpj.exe"
HOSTILE_TYPE = "\"><svg/onload=window.hacked=1>javascript:window.hacked=1"
HOSTILE_TEXT = "</pre></script><script>window.hacked=1</script>\u202e {{7*7}} ${7*7} javascript:window.hacked=1"


@activity.defn
async def look_up_order(order: str) -> dict:
    await asyncio.sleep(0.35)
    return {"order": order, "customer": "Ada Fenwick", "paid": 5000, "currency": "EUR"}


@activity.defn
async def check_fraud(order: dict) -> dict:
    await asyncio.sleep(0.4)
    if activity.info().attempt < 3:
        raise ApplicationError("the scoring service answered 503", {"retryable": True}, type="ServiceUnavailable")
    return {"score": 0.07, "model": "fraud-3"}


@activity.defn
async def refund(call: dict) -> str:
    await asyncio.sleep(0.2)
    return f"refunded {call['amount']}"


@activity.defn
async def delete_customer(customer: str) -> None:
    return None


@activity.defn
async def search(question: str) -> list[str]:
    await asyncio.sleep(0.3)
    return [f"three pages about {question}"]


@activity.defn
async def misbehave(text: str) -> str:
    raise ApplicationError(HOSTILE_TEXT, {"html": HOSTILE_TEXT}, type=HOSTILE_TYPE, non_retryable=True)


RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=700), maximum_attempts=5)


async def tool(name: Any, *arguments: Any) -> Any:
    return await workflow.execute_activity(
        name, args=list(arguments), start_to_close_timeout=timedelta(seconds=20), retry_policy=RETRY
    )


@workflow.defn(sandboxed=False)
class RefundAgent:
    @workflow.run
    async def run(self, request: dict) -> str:
        order = await tool(look_up_order, request["order"])
        await tool(check_fraud, order)
        return await tool(refund, {"order": request["order"], "amount": request["amount"], "reason": request["reason"]})


@workflow.defn(sandboxed=False)
class Research:
    """Asks children, sleeps, and waits to be told to go on."""

    def __init__(self) -> None:
        self.told = False

    @workflow.run
    async def run(self, question: str) -> dict:
        found = await tool(search, question)
        child = await workflow.start_child_workflow(Search.run, question, id=f"{workflow.info().workflow_id}/deeper")
        await asyncio.sleep(0.8)
        more = await child
        await workflow.wait_condition(lambda: self.told)
        return {"found": found + more}

    @workflow.signal
    def go_on(self, why: dict) -> None:
        self.told = True


@workflow.defn(sandboxed=False)
class Search:
    @workflow.run
    async def run(self, question: str) -> list[str]:
        return await tool(search, f"{question}, in depth")


@workflow.defn(sandboxed=False)
class Tidy:
    @workflow.run
    async def run(self, customer: str) -> None:
        await tool(delete_customer, customer)


@workflow.defn(sandboxed=False)
class Sleeper:
    @workflow.run
    async def run(self) -> None:
        await tool(search, "what to do tomorrow")
        await asyncio.sleep(3 * 24 * 3600)


@workflow.defn(sandboxed=False, name=HOSTILE_TYPE)
class Hostile:
    @workflow.run
    async def run(self, text: str) -> None:
        await tool(misbehave, text)


def worker(client: Client) -> Worker:
    return Worker(
        client,
        task_queue=QUEUE,
        workflows=[RefundAgent, Research, Search, Tidy, Sleeper, Hostile],
        activities=[look_up_order, check_fraud, refund, delete_customer, search, misbehave],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )


async def start(server: Server) -> Client:
    """Starts one session of each kind, on behalf of somebody with a name."""
    client = await server.client(identity="maria@support")

    async def begin(agent: Any, argument: Any, id: str) -> None:
        arguments = [] if argument is None else [argument]
        await client.start_workflow(agent, args=arguments, id=id, task_queue=QUEUE)

    request = {"order": "4711", "amount": 4200, "reason": "arrived broken"}
    await begin(RefundAgent.run, request, "refund-4711")
    await begin(RefundAgent.run, {**request, "order": "4712", "amount": 180}, "refund-4712")
    await begin(Research.run, "tidal power", "research-tidal-power")
    await begin(Tidy.run, "customer-9", "tidy-customer-9")
    await begin(Sleeper.run, None, "plan-for-tomorrow")
    await begin(HOSTILE_TYPE, HOSTILE_TEXT, HOSTILE_ID)
    await begin(HOSTILE_TYPE, "A" * 300_000 + "<script>window.hacked=1</script>", "huge")
    await client.start_workflow("Nobody", id="without-a-worker", task_queue="nobody-polls-this")
    return client
