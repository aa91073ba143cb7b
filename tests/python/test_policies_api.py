"""Policies that are put over HTTP: in force without a restart, after one, and by nobody who may not."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority import Secured
from server import Server, binary
from temporalio.client import WorkflowFailureError
from test_gate import secured
from test_policy import POLICIES, agents, run, started, steadfast, why

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast has policies", allow_module_level=True)

PERMIT = '@id("all") permit(principal, action, resource);'
NO_REFUNDS = '@id("no-refunds") forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/refund");'


def call(server: Server, method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict | str, dict]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", **{name.replace("_", "-"): of for name, of in headers.items()}}
    request = urllib.request.Request(server.http + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def files(**texts: str) -> dict:
    return {"files": [{"name": f"{name}.cedar", "text": text} for name, text in texts.items()]}


async def test_policies_are_put_in_place_of_those_that_were_seen(own_server: Server) -> None:
    own_server.start()
    await own_server.ready()
    path = "/api/v1/policies"
    status, now, headers = call(own_server, "GET", path)
    assert (status, now["hash"], now["origin"]) == (200, "none", "none")
    etag = {name.lower(): of for name, of in headers.items()}["etag"]
    assert etag == '"none"'

    # What is wrong is told, and nothing of it is in force.
    status, message, _ = call(own_server, "PUT", path, files(a=PERMIT))
    assert status == 428 and "If-Match" in message
    status, checked, _ = call(own_server, "POST", path + "/check", files(a="permit(principal"))
    assert status == 200 and not checked["valid"] and checked["problems"][0].startswith("a.cedar:1: ")
    for body, code in [
        (files(a="permit(principal"), 422),
        (files(), 422),
        ({"files": [{"name": "../x", "text": PERMIT}]}, 422),
        ({"policies": PERMIT}, 400),
        (files(a="// " + "x" * (1 << 20)), 413),
    ]:
        status, message, _ = call(own_server, "PUT", path, body, if_match=etag)
        assert status == code, message
    assert call(own_server, "GET", path)[1]["hash"] == "none"

    status, checked, _ = call(own_server, "POST", path + "/check", files(a=PERMIT))
    assert status == 200 and checked["valid"] and checked["policies"] == ["all"]
    status, put, _ = call(own_server, "PUT", path, files(a=PERMIT), if_match=etag)
    assert status == 200 and put["hash"] == checked["hash"]
    status, message, _ = call(own_server, "PUT", path, files(b=NO_REFUNDS), if_match=etag)
    assert status == 412 and put["hash"] in message

    async with agents(own_server) as client:
        assert await (await run(client, "refund", {"amount": 1}, "allowed")).result() == "refunded 1"
        both = files(a=PERMIT, b=NO_REFUNDS)
        status, second, _ = call(own_server, "PUT", path, both, if_match=f'"{put["hash"]}"')
        assert status == 200, second
        with pytest.raises(WorkflowFailureError) as failed:
            await (await run(client, "refund", {"amount": 1}, "denied")).result()
        assert why(failed.value) == ("PolicyDenied", "refused by policy no-refunds")

    # In force after kill -9, with who did it.
    own_server.kill()
    own_server.start()
    await own_server.ready()
    status, now, _ = call(own_server, "GET", path)
    assert (now["hash"], now["origin"], now["policies"]) == (second["hash"], "api", ["all", "no-refunds"])
    changes = call(own_server, "GET", path + "/history")[1]["changes"]
    assert [(of["was"], of["hash"], of["call"]) for of in changes] == [
        (put["hash"], second["hash"], "PutPolicies"),
        ("none", put["hash"], "PutPolicies"),
    ]
    digits = base64.b64decode(put["hash"]).hex()
    before = call(own_server, "GET", f"{path}/{digits}")[1]
    assert before["files"] == files(a=PERMIT)["files"]
    assert call(own_server, "GET", f"{path}/{'0' * 64}")[0] == 404
    assert call(own_server, "GET", f"{path}/nothing")[0] == 400

    events = [json.loads(line) for line in urllib.request.urlopen(
        own_server.http + "/api/v1/namespaces/default/evidence/ocsf", timeout=10
    )]
    texts = [json.dumps(event) for event in events]
    changed = [text for text in texts if "policy/changed" in text]
    assert len(changed) == 2 and all("PutPolicies" in text for text in changed)


async def test_the_command_puts_shows_and_lists(own_server: Server, tmp_path: Path) -> None:
    own_server.start()
    await own_server.ready()
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "tools.cedar").write_text(POLICIES)

    def command(*arguments: str, code: int = 0) -> str:
        return steadfast(own_server, "policy", *arguments, code=code)

    put = json.loads(await asyncio.to_thread(command, "put", str(folder), "--json"))
    assert put["policies"] == ["large-refunds", "no-deletions", "tools"]
    late = await asyncio.to_thread(command, "put", str(folder), "--replaces", "none", code=1)
    assert "412" in late and put["hash"] in late
    shown = await asyncio.to_thread(command, "get")
    assert POLICIES.strip() in shown and "api" in shown
    out = tmp_path / "got"
    await asyncio.to_thread(command, "get", "--hash", put["hash"], "--output", str(out))
    assert (out / "tools.cedar").read_text() == POLICIES
    assert put["hash"] in await asyncio.to_thread(command, "history")


async def test_files_win(own_server: Server, tmp_path: Path) -> None:
    policies = await started(own_server, tmp_path)
    status, now, _ = call(own_server, "GET", "/api/v1/policies")
    assert (status, now["origin"], now["path"]) == (200, "files", str(policies))
    status, message, _ = call(
        own_server, "PUT", "/api/v1/policies", files(a=PERMIT), if_match=f'"{now["hash"]}"'
    )
    assert status == 409 and str(policies) in message


@pytest.fixture
def starters(tmp_path, request) -> Iterator[Secured]:
    yield from secured(tmp_path, request, None)


def test_only_who_may_puts_and_nobody_locks_themselves_out(starters: Secured, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    init = subprocess.run([binary(), "policy", "init", str(folder)], capture_output=True, text=True, timeout=30)
    assert init.returncode == 0, init.stderr
    (folder / "tools.cedar").write_text(NO_REFUNDS)
    key = starters.new_key("ann", "--kind", "user", "--group", "auditor")
    done = starters.command("policy", "put", str(folder), key=key)
    assert done.returncode == 1 and "PutPolicies is denied" in done.stderr, done
    assert starters.command("policy", "get", "--json", key=key).returncode == 0

    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "tools.cedar").write_text(NO_REFUNDS)
    done = starters.command("policy", "put", str(alone), key=starters.admin_key)
    assert done.returncode == 1 and "lock_out" in done.stderr, done

    done = starters.command("policy", "put", str(folder), key=starters.admin_key)
    assert done.returncode == 0, done
    listed = starters.command("policy", "history", "--json", key=key)
    changes = json.loads(listed.stdout)
    assert changes[0]["principal"] == "api-key#admin" and changes[0]["authentication"] == "api-key", changes
    done = starters.command("policy", "put", str(alone), "--lock-out", key=starters.admin_key)
    assert done.returncode == 0, done
    done = starters.command("policy", "put", str(folder), key=starters.admin_key)
    assert done.returncode == 1 and "is denied" in done.stderr, done
