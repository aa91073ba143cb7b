"""The worker: runs the workflow and the agent's activities until it is stopped."""

import argparse
import asyncio
import logging
from datetime import timedelta

from pydantic_ai.durable_exec.temporal import PydanticAIPlugin
from temporalio.client import Client
from temporalio.worker import Worker

from session import TASK_QUEUE, RefundSession


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:7233")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")

    client = await Client.connect(arguments.address, plugins=[PydanticAIPlugin()])
    worker = Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[RefundSession],
        # How long the server waits for this process before it gives a session to another.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )
    logging.info("worker is ready on %s", arguments.address)
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
