"""Evidence bundles of a real session: exported, verified without the server, and tampered with."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from server import Server, binary
from temporalio import activity, workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.history.v1 import History
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

SECRET = "4111-1111-1111-1111"


@activity.defn
async def charge(card: str) -> str:
    if activity.info().attempt == 1:
        raise RuntimeError("the terminal is busy")
    return f"charged {card}"


@workflow.defn(sandboxed=False)
class Checkout:
    def __init__(self) -> None:
        self.approved = False

    @workflow.signal
    def approve(self, who: str) -> None:
        self.approved = True

    @workflow.run
    async def run(self, card: str, rounds: int) -> str:
        if workflow.info().continued_run_id is None:
            await workflow.wait_condition(lambda: self.approved)
        result = await workflow.execute_activity(
            charge,
            card,
            start_to_close_timeout=timedelta(seconds=5),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10)),
        )
        if rounds:
            workflow.continue_as_new(args=[card, rounds - 1])
        return result


async def session(server: Server, workflow_id: str, rounds: int = 0) -> Client:
    """Runs a session to its end."""
    client = await Client.connect(server.address, identity="alice@desk")
    async with Worker(client, task_queue="bundle", workflows=[Checkout], activities=[charge], identity="worker-7"):
        handle = await client.start_workflow(
            Checkout.run,
            args=[SECRET, rounds],
            id=workflow_id,
            task_queue="bundle",
            start_signal="approve",
            start_signal_args=["bob"],
        )
        assert await handle.result() == f"charged {SECRET}"
    return client


def steadfast(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary(), "evidence", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def export(server: Server, output: Path, *about: str) -> Path:
    done = steadfast("export", "--address", server.http, "--output", output, *about)
    assert done.returncode == 0, done.stderr
    return output


def trusted_key(server: Server) -> str:
    with urllib.request.urlopen(f"{server.http}/log/default/key", timeout=10) as answer:
        return answer.read().decode().strip()


def verdict(bundle: Path, key: str, code: int) -> dict:
    done = steadfast("verify", bundle, "--key", key, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def manifest(bundle: Path) -> dict:
    with zipfile.ZipFile(bundle) as files:
        return json.loads(files.read("manifest.json"))


def rewritten(bundle: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The same bundle with other files in it."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def without_last_event(content: bytes) -> bytes:
    history = History.FromString(content)
    del history.events[-1]
    return history.SerializeToString()


async def test_a_session_is_exported_and_verified(own_server: Server, tmp_path: Path) -> None:
    own_server.start()
    await own_server.ready()
    await session(own_server, "another")
    await session(own_server, "order-7")
    bundle = export(own_server, tmp_path / "order-7.zip", "--workflow-id", "order-7")
    key = trusted_key(own_server)
    own_server.stop()
    report = verdict(bundle, key, 0)
    assert report["verified"] and report["findings"] == [] and report["unchecked"] == []
    [run] = report["manifest"]["runs"]
    assert (run["workflow_id"], run["claim"], run["closed"]) == ("order-7", "complete", "COMPLETED")
    with zipfile.ZipFile(bundle) as files:
        entries = [json.loads(line)["entry"] for line in files.read("entries.jsonl").splitlines()]
        page = files.read("report.html").decode()
        history = files.read(f"history/{run['run_id']}.binpb")
    assert {entry["workflow_id"] for entry in entries} == {"order-7"}
    # What was tried and failed, though history leaves it out.
    attempts = [attempt for entry in entries for attempt in entry.get("attempts", [])]
    assert {"application/RuntimeError"} == {of["last_failure"] for of in attempts if "last_failure" in of}
    assert SECRET.encode() in history and SECRET not in json.dumps(entries)
    for text in ("alice@desk", "worker-7", "charge", SECRET, "approve"):
        assert text in page, text
    text = steadfast("verify", bundle, "--key", key).stdout
    assert text.startswith("verified: session order-7:"), text


async def test_what_is_changed_is_found_and_named(own_server: Server, tmp_path: Path) -> None:
    own_server.start()
    await own_server.ready()
    await session(own_server, "order-7", rounds=1)
    bundle = export(own_server, tmp_path / "good.zip", "-w", "order-7")
    key = trusted_key(own_server)
    assert verdict(bundle, key, 0)["manifest"]["counts"]["runs"] == 2
    own_server.stop()
    stranger = key.rsplit("+", 1)[0].rsplit("+", 1)[0]

    def lines(content: bytes, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
        return b"".join(change(content.splitlines(keepends=True)))

    def of(file: str, change: Callable[[bytes], bytes | None]) -> Callable[[str, bytes], bytes | None]:
        return lambda name, content: change(content) if name.startswith(file) else content

    history = f"history/{manifest(bundle)['runs'][0]['run_id']}.binpb"
    tampered = {
        "event-altered": of(history, lambda content: content.replace(b"4111", b"4999", 1)),
        "entry-missing": of("entries", lambda content: lines(content, lambda all: all[:2] + all[3:])),
        "order-changed": of("entries", lambda content: lines(content, lambda all: [all[1], all[0], *all[2:]])),
        "history-truncated": of(history, without_last_event),
        "entry-altered": of("entries", lambda content: content.replace(b"alice@desk", b"mallory@hk", 1)),
        "file-missing": lambda name, content: None if name == "checkpoint" else content,
        "checkpoint-forged": of("checkpoint", lambda content: content.replace(b"\n", b"\n1", 1)),
    }
    for code, change in tampered.items():
        report = verdict(rewritten(bundle, tmp_path / "bad.zip", change), key, 1)
        codes = {finding["code"] for finding in report["findings"]}
        assert code in codes, (code, codes)
    # Somebody else's key.
    report = verdict(bundle, a_key_of_nobody(tmp_path), 1)
    assert "unknown-key" in {finding["code"] for finding in report["findings"]}


def a_key_of_nobody(directory: Path) -> str:
    """A verifier key of nobody's log (c2sp.org/signed-note)."""
    name, public = "example.com/log", b"\x01" + Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    key_id = hashlib.sha256(name.encode() + b"\n" + public).hexdigest()[:8]
    path = directory / "key"
    path.write_text(f"{name}+{key_id}+{base64.b64encode(public).decode()}\n")
    return str(path)


async def test_a_principal_and_a_part_of_the_log(own_server: Server, tmp_path: Path) -> None:
    own_server.start()
    await own_server.ready()
    client = await session(own_server, "order-1")
    other = await Client.connect(own_server.address, identity="carol@desk")
    await other.start_workflow(Checkout.run, args=["x", 0], id="order-2", task_queue="nobody")
    bundle = export(own_server, tmp_path / "carol.zip", "--principal", "carol@desk")
    key = trusted_key(own_server)
    report = verdict(bundle, key, 0)
    assert [run["workflow_id"] for run in report["manifest"]["runs"]] == ["order-2"]
    assert report["manifest"]["runs"][0]["claim"] == "as-of"
    history = await client.get_workflow_handle("order-2").fetch_history()
    since = history.events[0].event_time.ToJsonString()
    for bounds in (["--from", since], ["--from", "0", "--to", "3"], ["--to", "2100-01-01T00:00:00Z"]):
        report = verdict(export(own_server, tmp_path / "part.zip", *bounds), key, 0)
        scope = report["manifest"]["scope"]
        assert scope["kind"] == "range" and scope["from"] < scope["to"], scope
        assert report["manifest"]["counts"]["entries"] == scope["to"] - scope["from"]
    own_server.stop()


async def test_runs_of_a_reset_and_open_ones(own_server: Server, tmp_path: Path) -> None:
    own_server.start()
    await own_server.ready()
    client = await session(own_server, "order-3")
    handle = client.get_workflow_handle("order-3")
    first = await handle.describe()
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id="order-3", run_id=first.run_id),
            workflow_task_finish_event_id=5,
            request_id="once",
        )
    )
    bundle = export(own_server, tmp_path / "reset.zip", "--workflow-id", "order-3")
    report = verdict(bundle, trusted_key(own_server), 0)
    runs = report["manifest"]["runs"]
    assert [run["claim"] for run in runs] == ["complete", "as-of"] and all(run["events"] for run in runs)
    own_server.stop()


async def test_what_cannot_be_exported(own_server: Server, tmp_path: Path) -> None:
    own_server.start()
    await own_server.ready()
    await session(own_server, "order-1")
    output = tmp_path / "none.zip"
    done = steadfast("export", "--address", own_server.http, "-o", output, "--workflow-id", "nobody's")
    assert done.returncode == 1 and "the log has no entry of workflow" in done.stderr, done.stderr
    assert list(tmp_path.glob("none.zip*")) == []
    done = steadfast("export", "--address", own_server.http, "-o", output)
    assert done.returncode == 2
    for query, status in [
        ("", 400),
        ("?workflow_id=a&principal=b", 400),
        ("?from=yesterday", 400),
        ("?unknown=1", 400),
        ("?from=1000000", 404),
    ]:
        with pytest.raises(urllib.error.HTTPError) as error:
            url = f"{own_server.http}/api/v1/namespaces/default/evidence/bundle{query}"
            urllib.request.urlopen(url, timeout=10)
        assert error.value.code == status, query
    done = steadfast("verify", output, "--key", "nonsense")
    assert done.returncode == 1 and "no verifier key" in done.stderr
    own_server.stop()
