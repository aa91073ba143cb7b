"""Each scenario leaves the history that it leaves on the Temporal server, event by event."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import scenarios  # noqa: F401  registers them
from harness import SCENARIOS, run_scenario
from normalize import difference

HISTORIES = Path(__file__).parent / "histories"


@pytest.mark.parametrize("name", SCENARIOS)
async def test_history(client, name):
    expected = json.loads((HISTORIES / f"{name}.json").read_text())
    actual = await run_scenario(name, client)
    found = difference(expected, actual)
    if found:
        pytest.fail(f"{name} differs from the recorded history\n{found}", pytrace=False)


def test_every_recording_has_a_scenario():
    assert {path.stem for path in HISTORIES.glob("*.json")} == set(SCENARIOS)
