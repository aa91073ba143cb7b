"""Attestations: `steadfast prove --attest` signs what came out, a server believes it, and policies require it."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from authority import Secured
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from server import binary
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from test_authn import connect

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast attests", allow_module_level=True)

AGENTS = Path(__file__).parents[2] / "examples" / "prove" / "python" / "agents.py"

POLICIES = """
permit(principal, action, resource);
@id("proved-starts")
forbid(principal, action == Action::"StartWorkflowExecution", resource)
  when { context has workflow_type && context.workflow_type == "TellsWho" } unless { context.attested };
@id("proved-payers")
forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/pay") unless { context.attested };
"""

SHORT = {"start_to_close_timeout": timedelta(seconds=20)}


@activity.defn
async def pay(amount: int) -> dict[str, int]:
    return {"paid": amount}


@workflow.defn
class TellsWho:
    @workflow.run
    async def run(self) -> dict[str, int]:
        return await workflow.execute_activity(pay, 10, **SHORT)


@workflow.defn
class NeverProven:
    @workflow.run
    async def run(self) -> dict[str, int]:
        return await workflow.execute_activity(pay, 10, **SHORT)


def steadfast(*arguments: str, code: int = 0) -> str:
    done = subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def secret(key: Path) -> tuple[str, Ed25519PrivateKey]:
    """The id of a key, and the key itself."""
    _, _, name, number, encoded = key.read_text().strip().split("+", 4)
    return f"{name}+{number}", Ed25519PrivateKey.from_private_bytes(base64.b64decode(encoded)[1:])


def to_be_signed(payload: bytes) -> bytes:
    kind = b"application/vnd.in-toto+json"
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def envelope(statement: dict[str, Any], key: Path) -> bytes:
    """As others would write it."""
    name, signer = secret(key)
    payload = json.dumps(statement, separators=(",", ":")).encode()
    signature = signer.sign(to_be_signed(payload))
    written = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"keyid": name, "sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(written, separators=(",", ":")).encode() + b"\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two keys, and an attestation that each signed."""
    folder = tmp_path_factory.mktemp("attested")
    keys: dict[str, Any] = {"folder": folder}
    for name in ("ci", "other"):
        file = folder / f"{name}.key"
        keys[name] = steadfast("prove", "keygen", "--name", f"{name}.example", "--out", str(file)).strip()
        assert file.stat().st_mode & 0o777 == 0o600
    steadfast("prove", "keygen", "--name", "ci.example", "--out", str(folder / "ci.key"), code=1)
    worker = f"exec {sys.executable} {AGENTS}"
    flags = ["--worker", worker, "--workflow", "TellsWho", "--task-queue", "agents", "--same-at", "/paid"]
    keys["flags"], keys["worker"] = flags, worker
    attested = ["--attest", str(folder / "attested.json"), "--key", str(folder / "ci.key")]
    text = steadfast("prove", *flags, "--fault", "no_cache", "--fault", "worker_after", *attested)
    assert "TellsWho is resumable" in text
    return keys


@pytest.fixture
def server(made: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Secured]:
    from conftest import LOGS

    prove = f"[prove]\ntrusted_keys = ['{made['ci']}']\n"
    server = Secured(tmp_path, f"[auth]\napi_keys = true\n{prove}", policies=POLICIES)
    request.config.stash[LOGS].append(server.log)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        request.config.stash[LOGS].remove(server.log)


def test_others_can_read_and_verify_it(made: dict[str, Any], tmp_path: Path) -> None:
    written = json.loads((made["folder"] / "attested.json").read_bytes())
    payload = base64.b64decode(written["payload"])
    [signature] = written["signatures"]
    name, number, encoded = made["ci"].split("+", 2)
    assert signature["keyid"] == f"{name}+{number}"
    key = base64.b64decode(encoded)
    assert key[0] == 1
    _, signer = secret(made["folder"] / "ci.key")
    assert signer.public_key().public_bytes_raw() == key[1:]
    signer.public_key().verify(base64.b64decode(signature["sig"]), to_be_signed(payload))
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://steadfast.dev/prove/v1"
    digest = hashlib.sha256(made["worker"].encode()).hexdigest()
    assert statement["subject"] == [{"name": "worker command", "digest": {"sha256": digest}}]
    predicate = statement["predicate"]
    assert predicate["workflowType"] == "TellsWho" and predicate["verdict"] == "resumable"
    assert predicate["faults"] == ["worker_after", "no_cache"] and predicate["failures"] == []
    # Two workflow tasks and a call: everything counts, also what was not asked for.
    assert (predicate["points"], predicate["tried"], predicate["reached"]) == (18, 4, 4)
    finished = datetime.fromisoformat(predicate["finished"][:19] + "+00:00")
    assert abs(datetime.now(timezone.utc) - finished) < timedelta(minutes=10)

    # A key is needed, and an image has a digest.
    attest = ["--attest", str(tmp_path / "a.json")]
    assert "--key" in steadfast("prove", *made["flags"], *attest, code=2)
    key_file = ["--key", str(made["folder"] / "ci.key")]
    said = steadfast("prove", *made["flags"], *attest, *key_file, "--image", "agents:latest", code=2)
    assert "name@sha256:digest" in said and not (tmp_path / "a.json").exists()


def denied(error: WorkflowFailureError) -> str:
    assert isinstance(error.cause, ActivityError) and isinstance(error.cause.cause, ApplicationError)
    assert error.cause.cause.type == "PolicyDenied"
    return error.cause.cause.message


async def start(client: Client, workflow_type: str, workflow_id: str) -> Any:
    return await client.execute_workflow(workflow_type, id=workflow_id, task_queue="agents")


async def test_policies_can_require_it(made: dict[str, Any], server: Secured, tmp_path: Path) -> None:
    key = server.admin_key
    client = await connect(server, key)

    def ours(*arguments: str, code: int = 0) -> str:
        done = server.command(*arguments, key=key)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def newest(verdict: str) -> Path:
        """An attestation of this moment."""
        statement = json.loads(base64.b64decode(json.loads(attested.read_bytes())["payload"]))
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        statement["predicate"] |= {"verdict": verdict, "finished": now}
        file = tmp_path / f"{verdict}.json"
        file.write_bytes(envelope(statement, made["folder"] / "ci.key"))
        return file

    async def is_refused(workflow_id: str) -> None:
        with pytest.raises(RPCError) as error:
            await start(client, "TellsWho", workflow_id)
        assert error.value.status == RPCStatusCode.PERMISSION_DENIED
        assert "forbidden by proved-starts" in error.value.message

    attested = made["folder"] / "attested.json"
    async with Worker(
        client,
        task_queue="agents",
        workflows=[TellsWho, NeverProven],
        activities=[pay],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        await is_refused("before")
        assert "there are none" in ours("attestations", "list")
        # Of somebody who is not trusted, and changed ones.
        statement = json.loads(base64.b64decode(json.loads(attested.read_bytes())["payload"]))
        forged = tmp_path / "forged.json"
        forged.write_bytes(envelope(statement, made["folder"] / "other.key"))
        assert "403" in (said := ours("attestations", "add", str(forged), code=1)) and "not a trusted key" in said
        changed = json.loads(attested.read_bytes())
        statement["predicate"]["workflowType"] = "NeverProven"
        changed["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
        forged.write_bytes(json.dumps(changed, separators=(",", ":")).encode() + b"\n")
        assert "the signature by ci.example" in ours("attestations", "add", str(forged), code=1)
        await is_refused("still before")

        assert "TellsWho: resumable, 4 of 18 tried" in ours("attestations", "add", str(attested))
        assert await start(client, "TellsWho", "proved") == {"paid": 10}
        # The tool is for sessions of types that were proved.
        with pytest.raises(WorkflowFailureError) as error:
            await start(client, "NeverProven", "unproved")
        assert "proved-payers" in denied(error.value)

        listed = json.loads(ours("attestations", "list", "--json"))
        assert [of["counts"] for of in listed] == [True] and listed[0]["addedBy"].startswith("api-key#")
        inventory = json.loads(ours("inventory", "--json"))
        proven = {of["workflowType"]: of["proven"] for of in inventory["types"]}
        assert proven["NeverProven"] is None
        assert proven["TellsWho"] == {"at": listed[0]["finished"], "by": listed[0]["key"]}

        # The newest one counts, also if it says the contrary.
        assert "not resumable" in ours("attestations", "add", str(newest("not_resumable")))
        await is_refused("after")
        ours("attestations", "add", str(newest("resumable")))
        server.stop()
        server.start()
        assert await start(client, "TellsWho", "again") == {"paid": 10}

    # What was decided is decided again as it was.
    ours("attestations", "add", str(newest("not_resumable")))
    for workflow_id in ("proved", "unproved"):
        bundle = tmp_path / f"{workflow_id}.zip"
        ours("evidence", "export", "-w", workflow_id, "-o", str(bundle))
        status, trusted, _ = server.get("/log/default/key", key)
        assert status == 200
        done = subprocess.run(
            [binary(), "evidence", "verify", str(bundle), "--key", trusted.decode().strip(), "--json"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (workflow_id, done.stdout, done.stderr)
    entries = [entry for entry in server.entries(key) if (entry.get("note") or {}).get("what") == "attestations/added"]
    assert len(entries) == 4 and '"TellsWho" is resumable: 4 of 18' in entries[0]["note"]["detail"]
    ours("evidence", "check")
