"""A worker process for the tests to kill: `python crash_worker.py ADDRESS TASK_QUEUE`.

Every execution of an activity appends a line to a file that the workflow names: when, which workflow, which step.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import Worker


@dataclass
class Step:
    journal: str
    number: int


@activity.defn
async def take_step(step: Step) -> str:
    line = f"{time.time()} {activity.info().workflow_id} {step.number}\n"
    file = os.open(step.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)
    await asyncio.sleep(0.15)
    return f"step {step.number}"


@workflow.defn
class Walk:
    """Steps one after the other, each followed by a nap; then waits for a word."""

    def __init__(self) -> None:
        self.words: list[str] = []

    @workflow.run
    async def run(self, journal: str, steps: int) -> list[str]:
        results = []
        for number in range(steps):
            results.append(
                await workflow.execute_activity(
                    take_step,
                    Step(journal, number),
                    start_to_close_timeout=timedelta(seconds=3),
                    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=100), backoff_coefficient=1),
                )
            )
            await asyncio.sleep(0.1)
        await workflow.wait_condition(lambda: bool(self.words))
        return results + self.words

    @workflow.signal
    def say(self, word: str) -> None:
        self.words.append(word)


async def main(address: str, task_queue: str) -> None:
    client = await Client.connect(address)
    async with Worker(client, task_queue=task_queue, workflows=[Walk], activities=[take_step]):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
