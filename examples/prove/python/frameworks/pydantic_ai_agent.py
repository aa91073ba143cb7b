"""An agent by Pydantic AI that is right: its model and its tools are called in activities.

    steadfast prove --worker "python frameworks/pydantic_ai_agent.py" --task-queue agents --workflow PydanticAgent

The model is a function of the conversation, so that nothing here needs a network or a key.
"""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import timedelta

from pydantic_ai import Agent
from pydantic_ai.durable_exec.temporal import PydanticAIPlugin, PydanticAIWorkflow, TemporalDurability
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker


def think(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Looks up the customer, refunds the balance, and says so."""
    returned = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    if not returned:
        return ModelResponse(parts=[ToolCallPart("look_up", {"customer": "c-7"}, tool_call_id="call-1")])
    if len(returned) == 1:
        amount = returned[0].content["balance"]
        return ModelResponse(parts=[ToolCallPart("refund", {"amount": amount}, tool_call_id="call-2")])
    return ModelResponse(parts=[TextPart(f"Done: {returned[1].content}.")])


agent = Agent(
    FunctionModel(think),
    name="refunds",
    instructions="Refund what the customer is owed.",
    capabilities=[TemporalDurability(activity_config={"start_to_close_timeout": timedelta(minutes=5)})],
)


@agent.tool_plain
async def look_up(customer: str) -> dict[str, int]:
    """The balance of a customer."""
    return {"balance": 1200}


@agent.tool_plain
async def refund(amount: int) -> str:
    """Pays an amount back."""
    return f"refunded {amount}"


@workflow.defn
class PydanticAgent(PydanticAIWorkflow):
    """One conversation."""

    __pydantic_ai_agents__ = [agent]

    @workflow.run
    async def run(self) -> str:
        result = await agent.run("I want my money back.")
        return result.output


async def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    address = os.environ.get("TEMPORAL_ADDRESS", "127.0.0.1:7233")
    client = await Client.connect(address, plugins=[PydanticAIPlugin()])
    await Worker(client, task_queue="agents", workflows=[PydanticAgent]).run()


if __name__ == "__main__":
    asyncio.run(main())
