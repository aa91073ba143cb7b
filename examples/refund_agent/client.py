"""Start a session, see what waits for a person, decide, and read the result."""

import argparse
import asyncio
import uuid
from datetime import timedelta

from pydantic_ai.durable_exec.temporal import PydanticAIPlugin
from temporalio.client import Client, WorkflowHandle

from session import TASK_QUEUE, Decision, PendingApproval, RefundSession, SessionResult

TICKET = """\
From: C. Okafor
My standing desk was charged twice. And the desk lamp arrived broken: please send
the large one instead and take the difference from my card."""


async def connect(address: str) -> Client:
    return await Client.connect(address, plugins=[PydanticAIPlugin()])


async def start(
    client: Client, workflow_id: str, ticket: str = TICKET
) -> WorkflowHandle[RefundSession, SessionResult]:
    return await client.start_workflow(
        RefundSession.run,
        ticket,
        id=workflow_id,
        task_queue=TASK_QUEUE,
        # A worker that dies between two steps is noticed after this.
        task_timeout=timedelta(seconds=2),
    )


async def pending(client: Client, workflow_id: str) -> list[PendingApproval]:
    return await client.get_workflow_handle(workflow_id).query(RefundSession.pending)


async def decide(client: Client, workflow_id: str, decision: Decision) -> None:
    await client.get_workflow_handle(workflow_id).signal(RefundSession.decide, decision)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:7233")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("start", help="open a ticket")
    command.add_argument("--id", default=f"ticket-{uuid.uuid4().hex[:8]}")
    command.add_argument("--ticket", default=TICKET)
    for name, text in [("pending", "what waits for a person"), ("result", "wait for the end")]:
        command = commands.add_parser(name, help=text)
        command.add_argument("id")
    command = commands.add_parser("decide", help="approve or deny what waits")
    command.add_argument("id")
    command.add_argument("--deny", action="store_true")
    command.add_argument("--by", default="you")
    command.add_argument("--note", default="")
    arguments = parser.parse_args()

    client = await connect(arguments.address)
    match arguments.command:
        case "start":
            handle = await start(client, arguments.id, arguments.ticket)
            print(handle.id)
        case "pending":
            for request in await pending(client, arguments.id):
                print(request.tool_call_id, request.tool, request.args)
        case "decide":
            for request in await pending(client, arguments.id):
                decision = Decision(
                    tool_call_id=request.tool_call_id,
                    approved=not arguments.deny,
                    by=arguments.by,
                    note=arguments.note,
                )
                await decide(client, arguments.id, decision)
                print("denied" if arguments.deny else "approved", request.tool, request.args)
        case "result":
            handle = client.get_workflow_handle_for(RefundSession.run, arguments.id)
            print((await handle.result()).model_dump_json(indent=2))


if __name__ == "__main__":
    asyncio.run(main())
