"""A disabled principal leaves a signed certificate: what became of its sessions, and what remains."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import urllib.error
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from server import Server, binary
from temporalio.client import WorkflowExecutionStatus
from test_bundle import trusted_key
from test_log import Log, leaf_hash
from test_principals import Holding, calls, done, worker

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast disables principals", allow_module_level=True)


def entries(server: Server) -> list[bytes]:
    log = Log(server)
    return log.entries(log.checkpoint().size)


def verified(path: Path, key: str, code: int = 0) -> str:
    command = [binary(), "evidence", "verify-certificate", str(path), "--key", key]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def predicate(path: Path) -> dict[str, Any]:
    envelope = json.loads(path.read_bytes())
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["predicateType"] == "https://steadfast.dev/offboarding/v1"
    return statement["predicate"]


async def certificate(server: Server, path: Path, name: str) -> dict[str, Any]:
    await asyncio.to_thread(done_certificate, server, name, path)
    return predicate(path)


def done_certificate(server: Server, name: str, path: Path) -> None:
    command = [binary(), "principals", "certificate", name, "--address", server.http, "-o", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("fate", ["pause", "revoke"])
async def test_what_it_held_and_what_remains(own_server: Server, tmp_path: Path, fate: str) -> None:
    own_server.flags = [*own_server.flags, "--credentials"]
    own_server.start()
    await own_server.ready()
    bot = await own_server.client(identity="bot")
    other = await own_server.client(identity="other")
    async with worker(other):
        mine = await bot.start_workflow(Holding.run, "bot", id="mine", task_queue="q")
        theirs = await other.start_workflow(Holding.run, "other", id="theirs", task_queue="q")
        while len(calls) < 2:
            await asyncio.sleep(0.05)

        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{own_server.http}/api/v1/principals/certificate?name=bot", timeout=10)
        assert refused.value.code == 404
        done(own_server, "disable", "bot", "--sessions", fate, "--reason", "left the company")
        path = tmp_path / "bot.json"
        says = await certificate(own_server, path, "bot")
        key = trusted_key(own_server)
        assert (says["principal"], says["disabledBy"], says["reason"]) == ("bot", "root", "left the company")
        assert (says["asked"], says["sessionCount"]) == (fate, 1)
        [session] = says["sessions"]
        assert session["workflowId"] == "mine" and session["initiator"] == "bot"
        assert session["state"] == {"pause": "paused", "revoke": "terminated"}[fate]
        # The entry that it names is the one in the log.
        entry = entries(own_server)[session["entry"]["index"]]
        assert base64.b64decode(session["entry"]["leaf"]) == leaf_hash(entry)
        assert json.loads(entry)["workflow_id"] == "mine"
        [attempt] = says["attempts"]
        assert (attempt["tool"], attempt["attempt"]) == ("hold", 1)
        [credential] = says["credentials"]
        assert credential["expires"] == says["credentialsUntil"] and credential["tool"] == "hold"
        until = datetime.fromisoformat(says["credentialsUntil"])
        assert until - datetime.fromisoformat(says["disabled"]) < timedelta(minutes=16)
        shown = verified(path, key)
        assert "VERIFIED: signed by" in shown and "caller bot was disabled by root" in shown

        # It is made once, stays after a crash and after enabling, and the log has its hash.
        again = tmp_path / "again.json"
        own_server.kill()
        own_server.start()
        await own_server.ready()
        await certificate(own_server, again, "bot")
        assert again.read_bytes() == path.read_bytes()
        notes = [json.loads(entry).get("note", {}) for entry in entries(own_server)]
        [certified] = [note for note in notes if note.get("what") == "principal/certified"]
        assert certified["detail"].startswith("caller bot: ")
        done(own_server, "enable", "bot")
        await certificate(own_server, again, "bot")
        assert again.read_bytes() == path.read_bytes()

        changed = json.loads(path.read_bytes())
        payload = base64.b64decode(changed["payload"]).replace(b'"sessionCount":1', b'"sessionCount":2')
        changed["payload"] = base64.b64encode(payload).decode()
        again.write_text(json.dumps(changed, separators=(",", ":")) + "\n")
        assert "NOT VERIFIED" in verified(again, key, code=1)
        assert (await theirs.describe()).status == WorkflowExecutionStatus.RUNNING
        if fate == "pause":
            await mine.terminate()
        await theirs.terminate()
    command = [binary(), "principals", "certificate", "nobody", "--address", own_server.http]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert refused.returncode == 1 and "was never disabled" in refused.stderr
