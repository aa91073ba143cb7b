"""Turns a workflow history into plain data that is the same on every run and every server.

Kept: the order and ids of events, references between them, attempts, causes, retry states, the
structure of failures, payloads. Masked: whatever a clock, a random generator or the client's build
decides. Run ids become `run-1`, `run-2`, … in the order in which they appear, so that it still shows
which run is meant.
"""

from __future__ import annotations

import base64
import difflib
import json
import re
from typing import Any

from google.protobuf.json_format import MessageToDict
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

# Decided by a clock, by the client's version, or by how large the encoding happens to be.
DROPPED = {
    "binaryChecksum",
    "historySizeBytes",
    "meteringMetadata",
    "sdkMetadata",
    "stackTrace",
    "workerVersion",
    "deployment",
    "workerDeploymentName",
    "workerDeploymentVersion",
    "deploymentVersion",
    "deploymentTransition",
    "expirationTime",
    "workflowExecutionExpirationTime",
    "prevAutoResetPoints",
    "complete_time",
    "original_schedule_time",
}
# Worth knowing that it is there, but its value differs each time.
MASKED = {"identity", "requestId", "lastHeartbeatTime", "encodedAttributes", "requestIds"}


class Normalizer:
    """Remembers the run ids that it has named, over all histories of one scenario."""

    def __init__(self, unique: str):
        self.unique = unique
        self.runs: dict[str, str] = {}
        self.masked = set(MASKED)

    def mask(self, field: str) -> None:
        """For a field that only this scenario cannot foretell."""
        self.masked.add(field)

    def history(self, events: list[HistoryEvent]) -> list[dict[str, Any]]:
        return [self.event(event) for event in events]

    def event(self, event: HistoryEvent) -> dict[str, Any]:
        kind = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")
        oneof = event.WhichOneof("attributes")
        plain = MessageToDict(getattr(event, oneof)) if oneof else {}
        result: dict[str, Any] = {"id": event.event_id, "type": kind}
        result.update(self.fields(plain))
        if event.links:
            result["links"] = [self.fields(MessageToDict(link)) for link in event.links]
        if event.HasField("user_metadata"):
            result["userMetadata"] = self.value(MessageToDict(event.user_metadata))
        if event.worker_may_ignore:
            result["workerMayIgnore"] = True
        return result

    def fields(self, plain: dict[str, Any]) -> dict[str, Any]:
        result = {}
        for key, value in sorted(plain.items()):
            if key in DROPPED:
                continue
            result[self.text(key)] = "*" if key in self.masked else self.value(value)
        if "serverFailureInfo" in result:
            # The server's own words.
            result["message"] = "*"
        queue = result.get("taskQueue")
        if isinstance(queue, dict) and queue.get("kind") == "TASK_QUEUE_KIND_STICKY":
            queue["name"] = "*"
        return result

    def value(self, value: Any) -> Any:
        if isinstance(value, dict):
            if set(value) <= {"metadata", "data"} and "encoding" in value.get("metadata", {}):
                return self.payload(value)
            return self.fields(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, str):
            return self.text(value)
        return value

    def payload(self, payload: dict[str, Any]) -> Any:
        """A payload as readable JSON; anything but plain JSON says what it is."""
        metadata = {k: base64.b64decode(v).decode() for k, v in payload["metadata"].items()}
        encoding = metadata.pop("encoding")
        data = base64.b64decode(payload.get("data", ""))
        if encoding == "json/plain":
            shown = json.loads(data)
            shown = self.value(shown) if not isinstance(shown, dict) else self.fields(shown)
        else:
            shown = {"encoding": encoding, "data": self.text(data.decode(errors="backslashreplace"))}
        return {"payload": shown, **metadata} if metadata else {"payload": shown}

    def text(self, value: str) -> str:
        value = value.replace(self.unique, "U")
        return UUID.sub(lambda found: self.run(found.group()), value)

    def run(self, run_id: str) -> str:
        return self.runs.setdefault(run_id, f"run-{len(self.runs) + 1}")


def lines(histories: dict[str, list[dict[str, Any]]]) -> list[str]:
    """One line for each field, so that a diff points at the field."""
    result = []
    for label, events in histories.items():
        result.append(f"== {label}")
        for event in events:
            result.append(f"{event['id']} {event['type']}")
            for key in sorted(event.keys() - {"id", "type"}):
                result.append(f"    {key}: {json.dumps(event[key], sort_keys=True, ensure_ascii=False)}")
    return result


def difference(expected: dict[str, Any], actual: dict[str, Any]) -> str:
    """Empty when equal."""
    found = difflib.unified_diff(
        lines(expected), lines(actual), "recorded from Temporal", "this server", lineterm="", n=4
    )
    return "\n".join(found)
