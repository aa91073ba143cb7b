"""Agents with one fault each, as they are written every day, and some that are right.

    steadfast prove --worker "python agents.py" --task-queue agents --workflow PlainAgent --signal approve

tells which of them survive that their worker or their server is killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import tempfile
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

SHORT = {"start_to_close_timeout": timedelta(minutes=5)}


@activity.defn
async def look_up(customer: str) -> dict:
    return {"customer": customer, "balance": 1200}


@activity.defn
async def refund(amount: int) -> str:
    return f"refunded {amount}"


@activity.defn
async def send_mail(text: str) -> str:
    return f"mailed: {text}"


@activity.defn
async def send_letter(text: str) -> str:
    return f"sent: {text}"


@activity.defn
async def read_pages(number: int) -> str:
    return "x" * 600_000


# What is right.


@workflow.defn
class PlainAgent:
    """All that has to survive is in the workflow; each call may be made again."""

    def __init__(self) -> None:
        self.approved = False

    @workflow.signal
    def approve(self) -> None:
        self.approved = True

    @workflow.run
    async def run(self) -> str:
        customer = await workflow.execute_activity(look_up, "c-7", **SHORT)
        await workflow.wait_condition(lambda: self.approved)
        done = await workflow.execute_activity(refund, customer["balance"], **SHORT)
        await workflow.sleep(timedelta(days=30))
        return await workflow.execute_activity(send_mail, done, **SHORT)


@workflow.defn
class LongAgent:
    """Twenty calls, one after the other."""

    @workflow.run
    async def run(self) -> int:
        sent = 0
        for number in range(20):
            await workflow.execute_activity(send_mail, f"letter {number}", **SHORT)
            sent += 1
        return sent


@activity.defn
async def pay(amount: int) -> dict:
    return {"paid": amount, "by": os.getpid()}


@workflow.defn
class TellsWho:
    """Its result has a part that is different each time, and one that must not be."""

    @workflow.run
    async def run(self) -> dict:
        return await workflow.execute_activity(pay, 10, **SHORT)


# What is not.


@workflow.defn
class AmbientRandomness:
    """Draws lots in the workflow's code: a replay draws others."""

    @workflow.run
    async def run(self) -> str:
        said = ""
        for number in range(4):
            tool = send_mail if random.random() < 0.5 else send_letter
            said = await workflow.execute_activity(tool, f"offer {number}", **SHORT)
        return "done" if said else "nothing"


@workflow.defn
class UnorderedIteration:
    """Goes through a set: its order is another one in the next process."""

    @workflow.run
    async def run(self) -> int:
        count = 0
        for tool in {"look_up", "send_mail", "send_letter", "record", "archive"}:
            known = {"look_up": look_up, "send_mail": send_mail}.get(tool, send_letter)
            await workflow.execute_activity(known, tool, **SHORT)
            count += 1
        return count


CHARGED: set[str] = set()


def charge_once(order: str) -> str:
    """Stands for a service that refuses a second charge."""
    if order in CHARGED:
        return "refused"
    CHARGED.add(order)
    return "charged"


@workflow.defn
class SideEffect:
    """Calls a service from the workflow's code: each replay calls it again."""

    @workflow.run
    async def run(self) -> str:
        charged = charge_once(workflow.info().run_id)
        await workflow.execute_activity(send_mail, charged, **SHORT)
        return charged


TICKETS: dict[str, str] = {}


@activity.defn
async def ask_person(question: str) -> str:
    TICKETS["t-1"] = "yes"
    return "t-1"


@activity.defn
async def read_decision(ticket: str) -> str:
    return TICKETS[ticket]


@workflow.defn
class LostApproval:
    """Keeps the decision in the worker's memory."""

    @workflow.run
    async def run(self) -> str:
        ticket = await workflow.execute_activity(ask_person, "refund?", **SHORT)
        await workflow.sleep(timedelta(hours=1))
        few = RetryPolicy(maximum_attempts=3)
        return await workflow.execute_activity(read_decision, ticket, retry_policy=few, **SHORT)


ADDRESS = os.environ.get("TEMPORAL_ADDRESS", "127.0.0.1:7233")


def deployments() -> int:
    """Counts starts of the server's worker: each stands for a deployment."""
    file = Path(tempfile.gettempdir()) / f"steadfast-prove-deployments-{ADDRESS.replace(':', '-')}"
    with file.open("a+") as log:
        log.write("x")
    return file.stat().st_size


DEPLOYMENT = deployments()


@workflow.defn
class ChangedCode:
    """Every other deployment has one call more, and does not guard it."""

    @workflow.run
    async def run(self) -> str:
        await workflow.execute_activity(look_up, "c-7", **SHORT)
        if DEPLOYMENT % 2:
            await workflow.execute_activity(send_letter, "audit", **SHORT)
        await workflow.execute_activity(refund, 10, **SHORT)
        return "refunded"


@workflow.defn
class UnboundedHistory:
    """Puts everything that it reads into its history."""

    @workflow.run
    async def run(self) -> int:
        size = 0
        for number in range(10):
            size += len(await workflow.execute_activity(read_pages, number, **SHORT))
        return size


@workflow.defn
class SwallowedCancellation:
    """Catches its cancellation and goes on."""

    @workflow.run
    async def run(self) -> str:
        try:
            await workflow.sleep(timedelta(hours=1))
        except asyncio.CancelledError:
            pass
        return await workflow.execute_activity(refund, 10, **SHORT)


@workflow.defn
class OneAttempt:
    """Does not let a call be made again, and does not deal with its failure."""

    @workflow.run
    async def run(self) -> str:
        once = RetryPolicy(maximum_attempts=1)
        return await workflow.execute_activity(refund, 10, retry_policy=once, **SHORT)


GOOD = [PlainAgent, LongAgent, TellsWho]
BROKEN = [
    AmbientRandomness,
    UnorderedIteration,
    SideEffect,
    LostApproval,
    ChangedCode,
    UnboundedHistory,
    SwallowedCancellation,
    OneAttempt,
]


async def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    client = await Client.connect(ADDRESS)
    activities = [look_up, refund, send_mail, send_letter, pay, read_pages, ask_person, read_decision]
    await Worker(
        client,
        task_queue="agents",
        workflows=[*GOOD, *BROKEN],
        activities=activities,
        # The sandbox would find some of the faults, in Python, in code that does not go around it.
        workflow_runner=UnsandboxedWorkflowRunner(),
    ).run()


if __name__ == "__main__":
    asyncio.run(main())
