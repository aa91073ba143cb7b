"""The world outside the agent: a small web shop and the ledger of what was done to it.

Every call appends to one JSONL file, fsynced line by line: a `started` line when a call
begins and a `completed` line when its effect has happened. Nothing is ever deduplicated
here, so a call that is carried out twice is seen twice.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel
from temporalio import activity

SETTLEMENT_SECONDS = 4.0


class Customer(BaseModel):
    id: str
    name: str
    email: str


class Order(BaseModel):
    id: str
    item: str
    price_cents: int


class Charge(BaseModel):
    id: str
    order_id: str
    amount_cents: int


class StockItem(BaseModel):
    item: str
    price_cents: int
    in_stock: int


CUSTOMERS = [
    Customer(id="cus_101", name="Adaeze Okafor", email="adaeze@example.com"),
    Customer(id="cus_214", name="Chidi Okafor", email="chidi@example.com"),
    Customer(id="cus_377", name="Amara Okafor-Lind", email="amara@example.com"),
    Customer(id="cus_402", name="Jonas Lind", email="jonas@example.com"),
]

ORDERS = {
    "cus_101": [Order(id="ord_7001", item="office chair", price_cents=21900)],
    "cus_214": [
        Order(id="ord_7040", item="standing desk", price_cents=38900),
        Order(id="ord_7052", item="desk lamp", price_cents=4500),
    ],
    "cus_377": [],
    "cus_402": [Order(id="ord_7066", item="standing desk", price_cents=38900)],
}

CHARGES = {
    "ord_7001": [Charge(id="ch_9001", order_id="ord_7001", amount_cents=21900)],
    "ord_7040": [
        Charge(id="ch_9040", order_id="ord_7040", amount_cents=38900),
        Charge(id="ch_9041", order_id="ord_7040", amount_cents=38900),
    ],
    "ord_7052": [Charge(id="ch_9052", order_id="ord_7052", amount_cents=4500)],
    "ord_7066": [Charge(id="ch_9066", order_id="ord_7066", amount_cents=38900)],
}

STOCK = {
    "desk lamp, large": StockItem(item="desk lamp, large", price_cents=6900, in_stock=12),
}


def ledger_path() -> str:
    return os.environ.get("REFUND_AGENT_LEDGER", "effects.jsonl")


def pace() -> float:
    """How slow the outside world is: 1 is the normal pace, 0 answers at once."""
    return float(os.environ.get("REFUND_AGENT_PACE", "1"))


def _append(line: dict[str, Any]) -> None:
    data = (json.dumps(line, sort_keys=True) + "\n").encode()
    # One write per line: a killed process leaves whole lines only.
    file = os.open(ledger_path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, data)
        os.fsync(file)
    finally:
        os.close(file)


def read_ledger(path: str) -> list[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@contextlib.asynccontextmanager
async def call(kind: str, name: str, seconds: float, /, **args: Any) -> AsyncIterator[None]:
    """One call to the outside world, made by the activity that is running."""
    info = activity.info()
    line = {
        "kind": kind,
        "name": name,
        "args": args,
        "workflow_id": info.workflow_id,
        "activity_id": info.activity_id,
        "attempt": info.attempt,
        "worker_pid": os.getpid(),
    }
    _append({**line, "what": "started", "at": time.time()})
    await asyncio.sleep(seconds * pace())
    yield
    # Last: up to here a crash leaves no effect, after it the activity only has to report.
    _append({**line, "what": "completed", "at": time.time()})


def settled(refund_id: str) -> bool:
    """Whether the bank has settled the refund, which takes a while after it was made."""
    workflow_id = activity.info().workflow_id
    return any(
        line["what"] == "completed"
        and line["name"] == "refund_card"
        and line["workflow_id"] == workflow_id
        and "re_" + line["args"]["charge_id"].removeprefix("ch_") == refund_id
        and time.time() - line["at"] >= SETTLEMENT_SECONDS
        for line in read_ledger(ledger_path())
    )
