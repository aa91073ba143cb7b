"""The worker behind the command line tests: `python worker.py ADDRESS TASK_QUEUE`."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker


@activity.defn
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@workflow.defn
class Greeting:
    @workflow.run
    async def run(self, name: str) -> str:
        return await workflow.execute_activity(greet, name, start_to_close_timeout=timedelta(seconds=10))


@workflow.defn
class Failing:
    @workflow.run
    async def run(self) -> None:
        from temporalio.exceptions import ApplicationError

        raise ApplicationError("it broke", type="Broken")


@workflow.defn
class Adding:
    def __init__(self) -> None:
        self.sum = 0
        self.done = False

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self.done)
        return self.sum

    @workflow.signal
    def add(self, amount: int) -> None:
        self.sum += amount

    @workflow.signal
    def finish(self) -> None:
        self.done = True

    @workflow.query
    def total(self) -> int:
        return self.sum

    @workflow.update
    def add_and_get(self, amount: int) -> int:
        self.sum += amount
        return self.sum

    @add_and_get.validator
    def only_upwards(self, amount: int) -> None:
        if amount < 0:
            raise ValueError("only upwards")


async def main(address: str, task_queue: str) -> None:
    client = await Client.connect(address)
    async with Worker(client, task_queue=task_queue, workflows=[Greeting, Failing, Adding], activities=[greet]):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
