"""The support agent: its tools, what it returns, and how it is made durable.

`TemporalDurability` is Pydantic AI's own integration: inside a workflow each model call
and each tool call becomes an activity, so none is repeated once it has completed.
"""

import hashlib
from datetime import timedelta

from pydantic import BaseModel
from pydantic_ai import Agent, DeferredToolRequests, FunctionToolset
from pydantic_ai.durable_exec.temporal import TemporalDurability
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityConfig

import shop
from scripted_model import scripted_model


class Resolution(BaseModel):
    """How the ticket was resolved: the agent's answer."""

    outcome: str
    customer_id: str | None
    refund_id: str | None
    refunded_cents: int
    charge_id: str | None
    charged_cents: int
    mails: list[str]


tools = FunctionToolset[object](id="shop")


@tools.tool_plain
async def find_customers(name: str) -> list[shop.Customer]:
    """Find customers by a part of their name."""
    async with shop.call("tool", "find_customers", 0.3, name=name):
        return [c for c in shop.CUSTOMERS if name.lower() in c.name.lower()]


@tools.tool_plain
async def list_orders(customer_id: str) -> list[shop.Order]:
    """List what a customer has ordered."""
    async with shop.call("tool", "list_orders", 0.5, customer_id=customer_id):
        return shop.ORDERS[customer_id]


@tools.tool_plain
async def list_charges(order_id: str) -> list[shop.Charge]:
    """List the card charges of an order."""
    async with shop.call("tool", "list_charges", 0.3, order_id=order_id):
        return shop.CHARGES[order_id]


@tools.tool_plain
async def check_stock(item: str) -> shop.StockItem:
    """Look up the price and the stock of an item."""
    async with shop.call("tool", "check_stock", 0.3, item=item):
        return shop.STOCK.get(item) or shop.StockItem(item=item, price_cents=0, in_stock=0)


class ChargeReceipt(BaseModel):
    charge_id: str
    amount_cents: int


@tools.tool_plain
async def charge_card(customer_id: str, amount_cents: int, reason: str) -> ChargeReceipt:
    """Charge the customer's card."""
    arguments = {"customer_id": customer_id, "amount_cents": amount_cents, "reason": reason}
    async with shop.call("tool", "charge_card", 0.6, **arguments):
        return ChargeReceipt(
            charge_id="ch_" + _reference(customer_id, amount_cents, reason),
            amount_cents=amount_cents,
        )


class RefundReceipt(BaseModel):
    refund_id: str
    amount_cents: int
    settles_in_seconds: float


@tools.tool_plain(requires_approval=True)
async def refund_card(charge_id: str, amount_cents: int) -> RefundReceipt:
    """Refund a charge. A person has to approve each refund."""
    arguments = {"charge_id": charge_id, "amount_cents": amount_cents}
    async with shop.call("tool", "refund_card", 0.5, **arguments):
        return RefundReceipt(
            refund_id="re_" + charge_id.removeprefix("ch_"),
            amount_cents=amount_cents,
            settles_in_seconds=shop.SETTLEMENT_SECONDS,
        )


class RefundStatus(BaseModel):
    refund_id: str
    status: str


@tools.tool_plain
async def refund_status(refund_id: str) -> RefundStatus:
    """Ask the bank whether a refund has been settled."""
    async with shop.call("tool", "refund_status", 0.3, refund_id=refund_id):
        status = "settled" if shop.settled(refund_id) else "pending"
        return RefundStatus(refund_id=refund_id, status=status)


class MailReceipt(BaseModel):
    message_id: str


@tools.tool_plain
async def send_mail(to: str, subject: str, text: str) -> MailReceipt:
    """Send a mail to the customer."""
    async with shop.call("tool", "send_mail", 0.5, to=to, subject=subject, text=text):
        return MailReceipt(message_id="msg_" + _reference(to, subject, text))


class Waited(BaseModel):
    seconds: float


# No activity: it runs in the workflow itself, so the sleep is a durable timer.
@tools.tool_plain(metadata={"temporal": False})
async def wait_for_bank(seconds: float) -> Waited:
    """Wait until the bank should have settled a refund."""
    await workflow.sleep(seconds, summary="waiting for the bank")
    return Waited(seconds=seconds)


def _reference(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


support_agent = Agent(
    scripted_model,
    name="refund_agent",
    instructions="You resolve support tickets of a web shop.",
    output_type=[Resolution, DeferredToolRequests],
    toolsets=[tools],
    capabilities=[
        TemporalDurability(
            # Short, so that what a killed worker had in its hands is soon tried again.
            activity_config=ActivityConfig(
                start_to_close_timeout=timedelta(seconds=3),
                retry_policy=RetryPolicy(
                    initial_interval=timedelta(milliseconds=200),
                    backoff_coefficient=1.5,
                    maximum_interval=timedelta(seconds=1),
                ),
            ),
            # Model calls send heartbeats, so they may take long and a death is still noticed.
            model_activity_config=ActivityConfig(
                start_to_close_timeout=timedelta(seconds=60),
                heartbeat_timeout=timedelta(seconds=2),
            ),
        )
    ],
)
