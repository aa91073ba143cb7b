"""An agent whose tool is an MCP server that accepts nothing but the credential of the tool call.

    python agent.py worker
    python agent.py start order-7 12
"""

from __future__ import annotations

import argparse
import asyncio
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

import steadfast

with workflow.unsafe.imports_passed_through():
    import httpx2
    from mcp import Client as McpClient
    from mcp.client.streamable_http import streamable_http_client

QUEUE = "refunds"


class Tools:
    """The tools of the agent. There is no key of the shop's here: each call brings its own credential."""

    def __init__(self, shop: str):
        self.shop = shop

    @activity.defn
    async def refund(self, order: str, amount: int) -> dict[str, Any]:
        """Has the shop refund an order."""
        return await call(self.shop, "refund", {"order": order, "amount": amount})


async def call(url: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Calls a tool of an MCP server as this attempt of this activity."""
    headers = steadfast.credential().authorization_header
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        async with McpClient(streamable_http_client(url, http_client=http)) as client:
            result = await client.call_tool(tool, arguments)
    if result.is_error or result.structured_content is None:
        raise RuntimeError(f"{tool}: {result.content}")
    return result.structured_content


@workflow.defn
class RefundAgent:
    """What would be a model's decision is an argument here."""

    @workflow.run
    async def run(self, order: str, amount: int) -> dict[str, Any]:
        return await workflow.execute_activity(
            "refund",
            args=[order, amount],
            start_to_close_timeout=timedelta(seconds=60),
            retry_policy=RetryPolicy(maximum_attempts=5),
        )


def worker(client: Client, shop: str) -> Worker:
    """The agent's worker."""
    return Worker(
        client,
        task_queue=QUEUE,
        workflows=[RefundAgent],
        activities=[Tools(shop).refund],
        plugins=[steadfast.CredentialPlugin()],
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:7233", help="the Steadfast server")
    parser.add_argument("--shop", default="http://127.0.0.1:9100/mcp", help="the MCP server")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("worker")
    start = commands.add_parser("start")
    start.add_argument("order")
    start.add_argument("amount", type=int)
    given = parser.parse_args()
    client = await Client.connect(given.address)
    if given.command == "worker":
        await worker(client, given.shop).run()
    else:
        arguments = [given.order, given.amount]
        print(await client.execute_workflow(RefundAgent.run, args=arguments, id=given.order, task_queue=QUEUE))


if __name__ == "__main__":
    asyncio.run(main())
