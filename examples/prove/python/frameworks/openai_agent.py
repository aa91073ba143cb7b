"""An agent by the OpenAI Agents SDK that is right: its model and its tools are called in activities.

    steadfast prove --worker "python frameworks/openai_agent.py" --task-queue agents --workflow OpenAIAgent

The model is a function of the conversation, so that nothing here needs a network or a key.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from agents import Agent, Model, ModelProvider, ModelResponse, Runner, set_tracing_disabled
from agents.items import TResponseStreamEvent
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.contrib.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
from temporalio.contrib.openai_agents.testing import ResponseBuilders
from temporalio.contrib.openai_agents.workflow import activity_as_tool
from temporalio.worker import Worker

SHORT = timedelta(minutes=5)


class Scripted(Model):
    """Looks up the customer, refunds the balance, and says so."""

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> ModelResponse:
        items = [] if isinstance(input, str) else input
        outputs = [item["output"] for item in items if item.get("type") == "function_call_output"]
        if not outputs:
            return ResponseBuilders.tool_call(json.dumps({"customer": "c-7"}), "look_up", call_id="call-1")
        if len(outputs) == 1:
            amount = json.dumps({"amount": int(outputs[0])})
            return ResponseBuilders.tool_call(amount, "refund", call_id="call-2")
        return ResponseBuilders.output_message(f"Done: {outputs[1]}.")

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[TResponseStreamEvent]:
        raise NotImplementedError


class Models(ModelProvider):
    """The one model that there is."""

    def get_model(self, model_name: str | None) -> Model:
        return Scripted()


@activity.defn
async def look_up(customer: str) -> int:
    """The balance of a customer."""
    return 1200


@activity.defn
async def refund(amount: int) -> str:
    """Pays an amount back."""
    return f"refunded {amount}"


@workflow.defn
class OpenAIAgent:
    """One conversation."""

    @workflow.run
    async def run(self) -> str:
        agent = Agent(
            name="refunds",
            model="scripted",
            instructions="Refund what the customer is owed.",
            tools=[activity_as_tool(tool, start_to_close_timeout=SHORT) for tool in (look_up, refund)],
        )
        result = await Runner.run(agent, "I want my money back.")
        return str(result.final_output)


async def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    # Traces would go to the network.
    set_tracing_disabled(True)
    plugin = OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(start_to_close_timeout=SHORT),
        model_provider=Models(),
    )
    address = os.environ.get("TEMPORAL_ADDRESS", "127.0.0.1:7233")
    client = await Client.connect(address, plugins=[plugin])
    await Worker(client, task_queue="agents", workflows=[OpenAIAgent], activities=[look_up, refund]).run()


if __name__ == "__main__":
    asyncio.run(main())
