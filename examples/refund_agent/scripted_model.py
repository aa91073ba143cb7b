"""The agent's model: a script instead of a network call.

It sees exactly what a hosted model would see, the conversation so far, and answers with
the next tool calls. What it asks for depends on what the tools returned: how many
customers match, which of them has the orders, which charge is a duplicate, what is in
stock, what the person decided. To run the agent on a hosted model, give its name to
`Agent` in agent.py instead of this one.
"""

import re
from dataclasses import dataclass
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_core import to_jsonable_python

import shop


@dataclass
class Returned:
    """A tool call that has come back."""

    name: str
    args: dict[str, Any]
    content: Any
    denied: bool


class Conversation:
    def __init__(self, messages: list[ModelMessage]) -> None:
        self.ticket = ""
        self.turn = sum(isinstance(message, ModelResponse) for message in messages) + 1
        calls: dict[str, ToolCallPart] = {}
        self.returned: list[Returned] = []
        for message in messages:
            for part in message.parts:
                if isinstance(part, UserPromptPart) and isinstance(part.content, str):
                    self.ticket += part.content
                elif isinstance(part, ToolCallPart):
                    calls[part.tool_call_id] = part
                elif isinstance(part, ToolReturnPart) and isinstance(message, ModelRequest):
                    asked = calls[part.tool_call_id]
                    self.returned.append(
                        Returned(
                            name=asked.tool_name,
                            args=asked.args_as_dict(),
                            content=to_jsonable_python(part.content),
                            denied=part.outcome == "denied",
                        )
                    )

    def all(self, name: str) -> list[Returned]:
        return [call for call in self.returned if call.name == name]

    def last(self, name: str) -> Returned | None:
        return next(reversed(self.all(name)), None)


Step = list[tuple[str, dict[str, Any]]]


def next_step(seen: Conversation) -> Step:
    """The tool calls that come next; the call `finish` ends the session."""
    search = seen.last("find_customers")
    if search is None:
        sender = re.search(r"^From: .*?(\w+)$", seen.ticket, re.MULTILINE)
        return [("find_customers", {"name": sender.group(1) if sender else ""})]

    lookups = seen.all("list_orders")
    if not lookups:
        if not search.content:
            return finish(seen, None, "no such customer")
        return [("list_orders", {"customer_id": customer["id"]}) for customer in search.content]

    # The sender is whichever namesake ordered the things that the ticket is about.
    customer_id, orders = max(
        (
            (lookup.args["customer_id"], [o for o in lookup.content if o["item"] in seen.ticket])
            for lookup in lookups
        ),
        key=lambda candidate: len(candidate[1]),
    )
    customer = next(c for c in search.content if c["id"] == customer_id)
    if not orders:
        return finish(seen, customer, "no order matches the ticket")

    charges = seen.all("list_charges")
    if not charges:
        return [("list_charges", {"order_id": order["id"]}) for order in orders]

    wanted = re.search(r"the large one instead", seen.ticket)
    replaced = next((o for o in orders if o["item"] == "desk lamp"), None)
    if wanted and replaced:
        stock = seen.last("check_stock")
        if stock is None:
            return [("check_stock", {"item": replaced["item"] + ", large"})]
        if stock.content["in_stock"] and not seen.all("charge_card"):
            difference = stock.content["price_cents"] - replaced["price_cents"]
            reason = f"{stock.content['item']} instead of {replaced['item']}"
            return [
                (
                    "charge_card",
                    {"customer_id": customer_id, "amount_cents": difference, "reason": reason},
                )
            ]

    duplicates = [
        charge
        for lookup in charges
        for first, *others in [lookup.content]
        for charge in others
        if charge["amount_cents"] == first["amount_cents"]
    ]
    refund = seen.last("refund_card")
    if duplicates and refund is None:
        duplicate = duplicates[0]
        arguments = {"charge_id": duplicate["id"], "amount_cents": duplicate["amount_cents"]}
        news = "We found the double charge. A colleague is checking your refund."
        return [mail(customer, "We are on it", news), ("refund_card", arguments)]

    if refund and not refund.denied:
        status = seen.last("refund_status")
        waits = seen.all("wait_for_bank")
        if status is None or status.content["status"] != "settled":
            if len(waits) == len(seen.all("refund_status")):
                return [("wait_for_bank", {"seconds": refund.content["settles_in_seconds"]})]
            return [("refund_status", {"refund_id": refund.content["refund_id"]})]

    if len(seen.all("send_mail")) < 2:
        if refund is None:
            text = "There was no double charge on your order."
        elif refund.denied:
            text = f"We could not refund the charge: {refund.content}"
        else:
            text = f"Refund {refund.content['refund_id']} has reached your bank."
        return [mail(customer, "Your request is settled", text)]

    return finish(seen, customer, "refund denied" if refund and refund.denied else "done")


def mail(customer: dict[str, Any], subject: str, text: str) -> tuple[str, dict[str, Any]]:
    return ("send_mail", {"to": customer["email"], "subject": subject, "text": text})


def finish(seen: Conversation, customer: dict[str, Any] | None, outcome: str) -> Step:
    refund = seen.last("refund_card")
    refunded = refund if refund and not refund.denied else None
    charged = seen.last("charge_card")
    resolution = {
        "outcome": outcome,
        "customer_id": customer and customer["id"],
        "refund_id": refunded and refunded.content["refund_id"],
        "refunded_cents": refunded.content["amount_cents"] if refunded else 0,
        "charge_id": charged and charged.content["charge_id"],
        "charged_cents": charged.content["amount_cents"] if charged else 0,
        "mails": [sent.content["message_id"] for sent in seen.all("send_mail")],
    }
    return [("finish", resolution)]


async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    seen = Conversation(messages)
    async with shop.call("model", f"model call {seen.turn}", 0.4):
        step = next_step(seen)
    return ModelResponse(
        parts=[
            ToolCallPart(
                tool_name=info.output_tools[0].name if name == "finish" else name,
                args=args,
                tool_call_id=f"call_{seen.turn}_{index}",
            )
            for index, (name, args) in enumerate(step, start=1)
        ]
    )


scripted_model = FunctionModel(answer, model_name="scripted")
