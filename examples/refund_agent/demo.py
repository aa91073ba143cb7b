"""Runs the agent twice, once left alone and once killed again and again, and compares.

Exit code 0 means: both runs have the same result, and no step that had completed was run
a second time. ./demo in the repository's root builds the server and starts this script.
"""

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

import client as example
import shop
import verify
from session import Decision, RefundSession
from stage import Kill, Stage, StageError
from timeline import Step, steps
from verify import Check, Run

TIME_LIMIT_SECONDS = 240


class Terminal:
    """Plain ANSI colours, if the output is a terminal and NO_COLOR is not set."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours else text

    def bold(self, text: str) -> str:
        return self.paint(text, "1")

    def dim(self, text: str) -> str:
        return self.paint(text, "2")

    def red(self, text: str) -> str:
        return self.paint(text, "31;1")

    def green(self, text: str) -> str:
        return self.paint(text, "32")

    def yellow(self, text: str) -> str:
        return self.paint(text, "33")

    def kind(self, kind: str) -> str:
        codes = {"model": "35", "tool": "36", "wait": "34", "person": "33;1"}
        return self.paint(f"{kind:<7}", codes.get(kind, "1"))

    def say(self, text: str = "") -> None:
        print(text, flush=True)


terminal = Terminal()
say = terminal.say


@dataclass
class Call:
    """The moment at which the agent makes a call for the nth time."""

    name: str
    nth: int = 1

    def has_come(self, ledger: Sequence[dict[str, Any]], _: Sequence[Step]) -> bool:
        made = {line["activity_id"] for line in ledger if line["name"] == self.name}
        return len(made) >= self.nth


@dataclass
class Wait:
    """The moment at which the agent waits."""

    text: str

    def has_come(self, _: Sequence[dict[str, Any]], history: Sequence[Step]) -> bool:
        return any(step.text == self.text and not step.completed for step in history)


Moment = Call | Wait

PERSON = Wait("waiting for a person")
BANK = Wait("waiting for the bank")


class Session:
    """One run of the agent on the stage."""

    def __init__(self, stage: Stage, workflow_id: str) -> None:
        self.stage = stage
        self.workflow_id = workflow_id
        self.started = time.time()

    async def start(self) -> None:
        self.started = time.time()
        await example.start(self.stage.client, self.workflow_id)

    def ledger(self) -> list[dict[str, Any]]:
        lines = shop.read_ledger(str(self.stage.ledger))
        return [line for line in lines if line["workflow_id"] == self.workflow_id]

    def in_flight(self) -> list[str]:
        """The calls that have begun and have not ended, by a worker that is alive."""
        lines = [line for line in self.ledger() if line["worker_pid"] == self.stage.pid("worker")]
        ended = {
            (line["activity_id"], line["attempt"]) for line in lines if line["what"] == "completed"
        }
        return [
            line["name"]
            for line in lines
            if line["what"] == "started" and (line["activity_id"], line["attempt"]) not in ended
        ]

    async def events(self) -> Sequence[HistoryEvent]:
        handle = self.stage.client.get_workflow_handle(self.workflow_id)
        return (await handle.fetch_history()).events

    async def until(self, moment: Moment) -> Sequence[HistoryEvent]:
        """Waits for the moment and returns the history as it is then."""
        deadline = time.monotonic() + 45
        while True:
            events = await self.events()
            if moment.has_come(self.ledger(), steps(events)):
                return events
            if time.monotonic() > deadline:
                raise StageError(f"{self.workflow_id} does not get to: {moment}")
            await asyncio.sleep(0.02)

    async def decision(self) -> Decision:
        requests = await example.pending(self.stage.client, self.workflow_id)
        return Decision(tool_call_id=requests[0].tool_call_id, approved=True, by="Mira")

    async def decide(self, decision: Decision) -> None:
        await example.decide(self.stage.client, self.workflow_id, decision)

    async def kill(self, *victims: str, when: Moment | None = None) -> None:
        events = await (self.until(when) if when else self.events())
        calls = self.in_flight() if "worker" in self.stage.running else []
        waits = [s.text for s in steps(events) if s.kind == "wait" and not s.completed]
        counted = {call: calls.count(call) for call in calls}
        doing = [f"{n} × {call}" if n > 1 else call for call, n in counted.items()] or waits
        during = " + ".join(doing) or "between steps"
        history = [event.SerializeToString(deterministic=True) for event in events]
        self.stage.kill(list(victims), during, history)
        at = self.stage.kills[-1].at - self.started
        who = f"{' and '.join(victims):<17}"
        say(f"  {at:6.2f} s  {terminal.red('SIGKILL')}  {who}  during: {during}")

    async def finish(self) -> Run:
        handle = self.stage.client.get_workflow_handle_for(RefundSession.run, self.workflow_id)
        result = await asyncio.wait_for(handle.result(), 60)
        return Run(self.workflow_id, result, await self.events(), self.ledger())


async def left_alone(stage: Stage) -> Run:
    session = Session(stage, "ticket-undisturbed")
    await session.start()
    await session.until(PERSON)
    await session.decide(await session.decision())
    return await session.finish()


async def killed(stage: Stage) -> tuple[Session, Run, float]:
    session = Session(stage, "ticket-killed")
    await session.start()

    await session.kill("worker", when=Call("model call 2"))
    await stage.start("worker")

    await session.kill("server", when=Call("list_orders"))
    await stage.start("server")

    await session.kill("worker", when=Call("charge_card"))
    await stage.start("worker")

    await session.until(PERSON)
    decision = await session.decision()
    await session.kill("server", "worker")
    await stage.start("server")
    await session.decide(decision)
    decided_at = time.time()
    say(
        f"  {decided_at - session.started:6.2f} s  {terminal.yellow('decision')}"
        f" {decision.by} approves, while no worker is running"
    )
    await session.kill("server")
    await stage.start("server")
    await stage.start("worker")

    await session.kill("server", "worker", when=BANK)
    await asyncio.sleep(1)
    await stage.start("server")
    await stage.start("worker")

    await session.kill("server", when=Call("model call 9"))
    await stage.start("server")

    await session.kill("server", "worker", when=Call("send_mail", nth=2))
    await stage.start("server")
    await stage.start("worker")
    return session, await session.finish(), decided_at


def print_timeline(session: Session, run: Run, kills: Sequence[Kill]) -> None:
    rows: list[tuple[float, str]] = []
    for step in run.steps:
        rows.append((step.start, step_row(step, session.started)))
    for kill in kills:
        rows.append((kill.at, kill_row(kill, session.started)))
    say(terminal.dim(f"  {'at':>8}  {'':<7} {'step':<52} {'took':>7}  attempts"))
    for _, row in sorted(rows, key=lambda row: row[0]):
        say(row)


def step_row(step: Step, zero: float) -> str:
    took = "" if step.end is None else f"{step.end - step.start:.2f} s"
    attempts = ""
    if step.activity_id is not None:
        attempts = str(step.attempt)
        if step.attempt > 1:
            attempts = terminal.yellow(
                f"{step.attempt} (attempt {step.attempt - 1}: {step.interrupted})"
            )
    text = step.text if len(step.text) <= 52 else step.text[:51] + "…"
    return (
        f"  {step.start - zero:6.2f} s  {terminal.kind(step.kind)} {text:<52} {took:>7}  {attempts}"
    )


def kill_row(kill: Kill, zero: float) -> str:
    back = ", ".join(f"{name} back after {at - kill.at:.1f} s" for name, at in kill.back.items())
    text = f"━━━ SIGKILL {' and '.join(kill.victims)} ━━━"
    return f"  {kill.at - zero:6.2f} s  {terminal.red(text)} {terminal.dim(back)}"


def print_checks(checks: Sequence[Check]) -> None:
    for check in checks:
        mark = terminal.red("✗ NOT TRUE:") if check.problems else terminal.green("✓")
        say(f"  {mark} {check.claim}")
        for problem in check.problems:
            say(f"      {problem}")


async def demo(stage: Stage) -> bool:
    began = time.monotonic()
    say(f"  {terminal.dim('server')}  {stage.server_command}")
    say(f"  {terminal.dim('ledger')}  {stage.ledger}")

    say(terminal.bold("\n1. The agent, left alone"))
    await stage.start("server")
    await stage.start("worker")
    calm = await left_alone(stage)
    took = calm.steps[-1].start - calm.steps[0].start
    say(
        f"  finished in {took:.1f} s: {calm.result.resolution.outcome}, "
        f"refunded {calm.result.resolution.refunded_cents / 100:.2f}, "
        f"charged {calm.result.resolution.charged_cents / 100:.2f}"
    )

    say(terminal.bold("\n2. The same agent, its worker and its server killed"))
    session, run, decided_at = await killed(stage)
    took = run.steps[-1].start - run.steps[0].start
    say(f"  finished in {took:.1f} s")

    say(terminal.bold("\n3. Its timeline, read from the workflow's history"))
    print_timeline(session, run, stage.kills)

    say(terminal.bold("\n4. What survived"))
    checks = verify.check(calm, run, stage.kills, decided_at)
    print_checks(checks)
    good = not any(check.problems for check in checks)
    victims = [name for kill in stage.kills for name in kill.victims]
    cut_short = verify.interrupted(run)
    say(
        f"\n  {len(victims)} kills: {victims.count('server')} × server, "
        f"{victims.count('worker')} × worker. Cut short, and so tried again: "
        f"{', '.join(cut_short) or 'nothing'}."
    )
    verdict = terminal.green("The agent survived.") if good else terminal.red("It did NOT survive.")
    say(f"  {terminal.bold(verdict)} {terminal.dim(f'{time.monotonic() - began:.0f} s in all')}")
    return good


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--dir", type=Path, default=Path("demo-run"), help="emptied, then written to"
    )
    parser.add_argument("--port", type=int, help="the server's port; a free one if not given")
    parser.add_argument(
        "--server",
        default=os.environ.get("STEADFAST_DEMO_SERVER"),
        help="another server's command, to compare with",
    )
    arguments = parser.parse_args()

    shutil.rmtree(arguments.dir, ignore_errors=True)
    arguments.dir.mkdir(parents=True)
    say(terminal.bold("An AI agent that cannot be killed"))
    stage = Stage(arguments.dir.resolve(), arguments.server, arguments.port)
    try:
        good = await asyncio.wait_for(demo(stage), TIME_LIMIT_SECONDS)
        return 0 if good else 1
    except (StageError, RPCError, WorkflowFailureError, TimeoutError) as error:
        say(terminal.red(f"\nThe demo could not go on: {error or 'it took too long'}"))
        for name in ("server", "worker"):
            say(terminal.bold(f"\nthe last lines of {stage.directory / name}.log"))
            say(stage.log_tail(name))
        return 1
    finally:
        stage.close()


if __name__ == "__main__":
    try:
        code = asyncio.run(main())
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    # Not sys.exit: the interpreter's shutdown can meet threads of the SDK that are still at work.
    os._exit(code)
