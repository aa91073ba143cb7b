"""`steadfast prove` finds what is wrong with agents, and does not accuse the right one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from server import binary

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast proves", allow_module_level=True)

AGENTS = Path(__file__).parents[2] / "examples" / "prove" / "python" / "agents.py"


def command(tmp_path: Path, workflow: str, *arguments: str, worker: str = "") -> list[str]:
    return [
        *(binary(), "prove", "--worker", worker or f"exec {sys.executable} {AGENTS}", "--workflow", workflow),
        *("--task-queue", "agents", "--json", str(tmp_path / "report.json"), *arguments),
    ]


def prove(tmp_path: Path, workflow: str, *arguments: str, code: int, worker: str = "") -> tuple[str, dict]:
    ended = subprocess.run(
        command(tmp_path, workflow, *arguments, worker=worker),
        capture_output=True,
        text=True,
        timeout=170,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    report = tmp_path / "report.json"
    return ended.stdout + ended.stderr, json.loads(report.read_text()) if report.exists() else {}


def kinds(report: dict, severity: str) -> set[str]:
    findings = [*report["undisturbed"], *(finding for tried in report["tried"] for finding in tried["findings"])]
    return {finding["kind"] for finding in findings if finding["severity"] == severity}


@pytest.mark.timeout(180)
def test_a_right_agent_is_resumable(tmp_path: Path) -> None:
    junit, html = tmp_path / "report.xml", tmp_path / "report.html"
    files = ["--junit", str(junit), "--html", str(html)]
    text, report = prove(tmp_path, "PlainAgent", "--signal", "approve", *files, code=0)
    assert "PlainAgent is resumable" in text and report["verdict"] == "resumable"
    # Every place and every fault.
    assert len(report["tried"]) == report["points"]
    faults = {tried["fault"] for tried in report["tried"]}
    assert faults == {
        *("worker_before", "worker_after", "server_before", "server_after", "answer_lost", "late", "twice"),
        *("restart", "clock_jump", "cancel", "no_cache"),
    }
    assert all(tried["reached"] for tried in report["tried"]), [tried for tried in report["tried"] if not tried["reached"]]
    # What may have been done twice is told, and is no failure.
    assert kinds(report, "note") == {"at_least_once"} and not kinds(report, "failure")
    suite = ElementTree.parse(junit).getroot()
    assert suite.attrib["failures"] == "0" and len(suite) == report["points"]
    assert "<h1>PlainAgent is resumable</h1>" in html.read_text()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        ("AmbientRandomness", {"non_determinism"}),
        ("UnorderedIteration", {"non_determinism"}),
        ("SideEffect", {"different_result"}),
        ("LostApproval", {"failed"}),
        ("ChangedCode", {"non_determinism", "different_calls"}),
        ("UnboundedHistory", {"long_history"}),
        ("SwallowedCancellation", {"cancel_ignored"}),
        ("OneAttempt", {"failed"}),
    ],
)
def test_faults_are_found(tmp_path: Path, workflow: str, expected: set[str]) -> None:
    text, report = prove(tmp_path, workflow, "--max-runs", "24", code=1)
    assert f"{workflow} is NOT resumable" in text
    assert kinds(report, "failure") & expected, text


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("package", "file", "workflow"),
    [
        ("pydantic_ai", "pydantic_ai_agent.py", "PydanticAgent"),
        ("agents", "openai_agent.py", "OpenAIAgent"),
    ],
)
def test_agents_of_frameworks_are_resumable(tmp_path: Path, package: str, file: str, workflow: str) -> None:
    pytest.importorskip(package)
    worker = f"exec {sys.executable} {AGENTS.parent / 'frameworks' / file}"
    text, report = prove(tmp_path, workflow, "--max-runs", "10", worker=worker, code=0)
    assert report["points"] == 66 and len(report["tried"]) == 10
    assert all(tried["reached"] for tried in report["tried"]), text
    assert not kinds(report, "failure")


POLICIES = """
permit (principal, action == Action::"ExecuteTool", resource);
@approval("required") @approvers("finance") @quorum("2")
forbid (principal, action == Action::"ExecuteTool", resource == Tool::"default/refund");
"""


@pytest.mark.timeout(180)
def test_approvals_and_their_votes_survive(tmp_path: Path) -> None:
    (tmp_path / "policies.cedar").write_text(POLICIES)
    flags = ["--policy", str(tmp_path / "policies.cedar"), "--signal", "approve"]
    text, report = prove(tmp_path, "PlainAgent", *flags, "--fault", "restart", "--fault", "cancel", code=0)
    approvals = [tried for tried in report["tried"] if tried["boundary"]["kind"] == "approval"]
    # Before the first vote, and between the two.
    assert {(tried["boundary"]["n"], tried["fault"]) for tried in approvals} == {
        *((1, "restart"), (1, "cancel")),
        *((2, "restart"), (2, "cancel")),
    }, text
    assert all(tried["reached"] for tried in approvals), text
    assert "approval of refund, vote 2" in text


def test_what_may_differ_can_be_said(tmp_path: Path) -> None:
    few = ["--fault", "worker_before"]
    text, report = prove(tmp_path, "TellsWho", *few, code=0)
    assert kinds(report, "note") >= {"different_result"} and "--same-at" in text
    script = "import json, sys; one, other = (json.load(open(name)) for name in sys.argv[1:]); "
    (tmp_path / "same.py").write_text(script + "sys.exit(one['paid'] != other['paid'])")
    by_script = ["--same-if", f"{sys.executable} {tmp_path / 'same.py'}"]
    for flags in (["--same-at", "/paid"], ["--ignore", "/by"], by_script):
        _, report = prove(tmp_path, "TellsWho", *few, *flags, code=0)
        assert "different_result" not in kinds(report, "note") and report["undisturbed"] == []


def test_what_cannot_be_tried_is_said(tmp_path: Path) -> None:
    text, report = prove(tmp_path, "Nothing", worker="echo no such module; exit 3", code=2)
    assert "the worker" in text and "no such module" in text and not report
    missing = str(tmp_path / "missing.json")
    text, _ = prove(tmp_path, "PlainAgent", "--input", missing, code=2)
    assert missing in text
    text, _ = prove(tmp_path, "PlainAgent", "--fault", "rain", code=2)
    assert "--fault rain: it is one of worker_before, " in text


async def test_it_leaves_no_processes(tmp_path: Path) -> None:
    mark = f"steadfast-prove-{tmp_path.name}"
    worker = f"exec {sys.executable} {AGENTS} {mark}"
    proving = subprocess.Popen(command(tmp_path, "PlainAgent", "--signal", "approve", worker=worker))

    def workers() -> list[Path]:
        found: list[Path] = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                arguments = file.read_bytes().split(b"\0")
            except OSError:
                continue
            if mark.encode() in arguments:
                found.append(file)
        return found

    deadline = time.monotonic() + 20
    while not workers():
        assert time.monotonic() < deadline, "no worker"
        await asyncio.sleep(0.05)
    proving.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(proving.wait, 10) == 2
    assert not workers()
