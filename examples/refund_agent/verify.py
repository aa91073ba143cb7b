"""What must hold after the kills, checked in the history and in the ledger."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from session import SessionResult
from shop import SETTLEMENT_SECONDS
from stage import Kill
from timeline import Step, steps

WORKFLOW_TASK_EVENTS = {
    EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
    EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED,
}


@dataclass
class Run:
    """One finished session and everything that is known about it."""

    workflow_id: str
    result: SessionResult
    events: Sequence[HistoryEvent]
    ledger: list[dict[str, Any]]

    @property
    def steps(self) -> list[Step]:
        return steps(self.events)

    @property
    def activities(self) -> list[Step]:
        return [step for step in self.steps if step.activity_id is not None]

    def lines(self, what: str) -> dict[str, list[dict[str, Any]]]:
        by_activity: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in self.ledger:
            if line["what"] == what:
                by_activity[line["activity_id"]].append(line)
        return by_activity

    def effects(self) -> Counter[str]:
        return Counter(
            f"{line['name']} {sorted(line['args'].items())}"
            for line in self.ledger
            if line["what"] == "completed"
        )


@dataclass
class Check:
    claim: str
    problems: list[str]


def check(
    calm: Run, killed: Run, kills: Sequence[Kill], client_saw_decision_at: float
) -> list[Check]:
    return [
        Check("the result is the one of the undisturbed run", _same_result(calm, killed)),
        Check(_effects_claim(killed), _each_effect_once(calm, killed)),
        Check("no step that had completed was started again", _nothing_repeated(killed)),
        Check(_history_claim(kills), _history_kept(killed, kills)),
        Check(
            "the decision, made while no worker lived, outlived the server's next death",
            _decision_kept(killed, client_saw_decision_at),
        ),
        Check(_sleep_claim(killed), _slept_once(killed, kills)),
    ]


def interrupted(run: Run) -> list[str]:
    """The attempts that a kill cut short, and that were therefore made again."""
    completed = run.lines("completed")
    return [
        line["name"]
        for activity_id, lines in run.lines("started").items()
        for line in lines
        if line["attempt"] not in {done["attempt"] for done in completed[activity_id]}
    ]


def _same_result(calm: Run, killed: Run) -> list[str]:
    if calm.result == killed.result:
        return []
    return [f"undisturbed: {calm.result}", f"killed: {killed.result}"]


def _effects_claim(killed: Run) -> str:
    kinds = Counter(step.kind for step in killed.activities)
    return f"{kinds['model']} model calls and {kinds['tool']} tool calls took effect once each"


def _each_effect_once(calm: Run, killed: Run) -> list[str]:
    problems = []
    completed = killed.lines("completed")
    for step in killed.activities:
        lines = completed.pop(step.activity_id or "", [])
        if not step.completed:
            problems.append(f"{step.text} never completed")
        if len(lines) != 1:
            problems.append(f"{step.text} took effect {len(lines)} times")
        elif lines[0]["attempt"] != step.attempt:
            problems.append(
                f"{step.text}: the history names attempt {step.attempt},"
                f" but attempt {lines[0]['attempt']} did it"
            )
    problems += [f"activity {unknown} is not in the history" for unknown in completed]
    for effect, more in (killed.effects() - calm.effects()).items():
        problems.append(f"{more} more than undisturbed: {effect}")
    for effect, fewer in (calm.effects() - killed.effects()).items():
        problems.append(f"{fewer} fewer than undisturbed: {effect}")
    return problems


def _nothing_repeated(killed: Run) -> list[str]:
    started = killed.lines("started")
    return [
        f"{step.text}: attempt {line['attempt']} began after it had completed"
        for step in killed.activities
        for line in started[step.activity_id or ""]
        if step.end is not None and line["at"] > step.end
    ]


def _history_claim(kills: Sequence[Kill]) -> str:
    events = max((len(kill.history) for kill in kills), default=0)
    return (
        f"what the history held before each kill (up to {events} events) is still in it, unchanged"
    )


def _history_kept(killed: Run, kills: Sequence[Kill]) -> list[str]:
    final = [event.SerializeToString(deterministic=True) for event in killed.events]
    problems = []
    for kill in kills:
        kept = list(kill.history)
        # A workflow task that nobody has completed is not a fact yet: it may be shown, and then
        # be replaced by the attempt that follows.
        while kept and HistoryEvent.FromString(kept[-1]).event_type in WORKFLOW_TASK_EVENTS:
            kept.pop()
        if final[: len(kept)] != kept:
            changed = next(
                (
                    n
                    for n, pair in enumerate(zip(final, kept, strict=False), 1)
                    if pair[0] != pair[1]
                ),
                0,
            )
            problems.append(f"killed {kill.during}: event {changed or 'missing'} differs")
    return problems


def _decision_kept(killed: Run, client_saw_it_at: float) -> list[str]:
    decisions = [step for step in killed.steps if step.kind == "person"]
    if len(decisions) != 1:
        return [f"{len(decisions)} decisions are in the history"]
    if decisions[0].start > client_saw_it_at:
        return ["the decision was recorded only after it had been acknowledged"]
    return []


def _sleeps(killed: Run) -> list[Step]:
    return [step for step in killed.steps if step.text == "waiting for the bank"]


def _sleep_claim(killed: Run) -> str:
    sleeps = _sleeps(killed)
    took = f"{sleeps[0].end - sleeps[0].start:.1f} s" if sleeps and sleeps[0].end else "?"
    return f"the sleep of 4 s went on while nothing ran, and took {took}"


def _slept_once(killed: Run, kills: Sequence[Kill]) -> list[str]:
    sleeps = _sleeps(killed)
    if len(sleeps) != 1 or sleeps[0].end is None:
        return [f"{len(sleeps)} sleeps are in the history"]
    due = sleeps[0].start + SETTLEMENT_SECONDS
    ended = sleeps[0].end
    if ended < due:
        return [f"it ended {due - ended:.1f} s early"]
    # A sleep that had been begun again by a restart would end at least this late.
    server_back = max(
        (k.back["server"] for k in kills if k.at < due and "server" in k.back), default=0
    )
    if ended > max(due, server_back) + 1:
        return [f"it ended {ended - due:.1f} s late"]
    return []
