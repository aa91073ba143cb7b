"""A session's history as steps that a person can read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType, TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent


@dataclass
class Step:
    kind: str
    """`session`, `model`, `tool`, `wait`, `person` or `end`."""
    text: str
    start: float
    end: float | None = None
    activity_id: str | None = None
    attempt: int = 1
    completed: bool = False
    interrupted: str | None = None
    """Why the attempt before the last one ended."""


def steps(events: Sequence[HistoryEvent]) -> list[Step]:
    found: list[Step] = []
    by_event: dict[int, Step] = {}
    model_calls = 0
    for event in events:
        at = event.event_time.ToNanoseconds() / 1e9
        match event.event_type:
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                found.append(Step("session", "a ticket arrives", at))
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                scheduled = event.activity_task_scheduled_event_attributes
                step = Step("tool", "", at, activity_id=scheduled.activity_id)
                if scheduled.activity_type.name.endswith("__model_request"):
                    model_calls += 1
                    step.kind, step.text = "model", f"model call {model_calls}"
                else:
                    step.text = _tool_call(decode(scheduled.input.payloads[0]))
                found.append(step)
                by_event[event.event_id] = step
            case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                started = event.activity_task_started_event_attributes
                step = by_event[started.scheduled_event_id]
                step.attempt = started.attempt
                if started.HasField("last_failure"):
                    step.interrupted = _reason(started.last_failure)
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                completed = event.activity_task_completed_event_attributes
                step = by_event[completed.scheduled_event_id]
                step.end, step.completed = at, True
                if step.kind == "model":
                    step.text += ": " + _model_answer(decode(completed.result.payloads[0]))
            case EventType.EVENT_TYPE_TIMER_STARTED:
                summary = event.user_metadata.summary
                text = decode(summary) if summary.data else "waiting"
                step = Step("wait", text, at)
                found.append(step)
                by_event[event.event_id] = step
            case EventType.EVENT_TYPE_TIMER_FIRED:
                step = by_event[event.timer_fired_event_attributes.started_event_id]
                step.end, step.completed = at, True
            case EventType.EVENT_TYPE_TIMER_CANCELED:
                step = by_event[event.timer_canceled_event_attributes.started_event_id]
                step.end, step.completed = at, True
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                signaled = event.workflow_execution_signaled_event_attributes
                found.append(Step("person", _decision(decode(signaled.input.payloads[0])), at))
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
                found.append(Step("end", "the session has its result", at))
    return found


def decode(payload: Payload) -> Any:
    return json.loads(payload.data)


def _tool_call(call: dict[str, Any]) -> str:
    values = [_short(name, value) for name, value in call["tool_args"].items()]
    return f"{call['name']} {', '.join(values)}"


def _short(name: str, value: object) -> str:
    if name.endswith("_cents") and isinstance(value, int):
        return f"{value / 100:.2f}"
    text = str(value)
    return text if len(text) <= 24 else text[:23] + "…"


def _model_answer(response: dict[str, Any]) -> str:
    asked = [part["tool_name"] for part in response["parts"] if part["part_kind"] == "tool-call"]
    if asked == ["final_result"]:
        return "the answer"
    counted = {name: asked.count(name) for name in asked}
    return " + ".join(f"{n} × {name}" if n > 1 else name for name, n in counted.items())


def _decision(decision: dict[str, Any]) -> str:
    return f"{decision['by']} {'approves' if decision['approved'] else 'denies'} the refund"


def _reason(failure: Failure) -> str:
    if not failure.HasField("timeout_failure_info"):
        return failure.message
    kind = TimeoutType.Name(failure.timeout_failure_info.timeout_type)
    return {
        "TIMEOUT_TYPE_HEARTBEAT": "no heartbeat",
        "TIMEOUT_TYPE_START_TO_CLOSE": "timed out",
    }.get(kind, failure.message)
