"""What leaves an entry though it changes no run: reads, where the configuration asks for them, and a start
with other settings than the one before.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from server import Server, binary
from temporalio import workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import Client, WorkflowHandle, WorkflowQueryFailedError
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError
from temporalio.worker import Worker
from test_log import Checkpoint, Log, leaf_hash, root

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast has a log", allow_module_level=True)

IDENTITY = "alice@desk"
SECRETS = {
    "input": "4111-1111-1111-1111",
    "memo": "a memo of Carol's",
    "attribute": "carol@customer.example",
    "filter": "nobody@customer.example",
    "argument": "what does Carol owe",
    "answer": "Carol owes 12.50",
}
CUSTOMER = SearchAttributeKey.for_keyword("Customer")


@workflow.defn(sandboxed=False)
class Account:
    def __init__(self) -> None:
        self.closed = False

    @workflow.query
    def balance(self, question: str) -> str:
        if question != SECRETS["argument"]:
            raise ValueError(SECRETS["answer"])
        return SECRETS["answer"]

    @workflow.signal
    def close(self) -> None:
        self.closed = True

    @workflow.run
    async def run(self, card: str) -> None:
        await workflow.wait_condition(lambda: self.closed)


def configure(server: Server, evidence: str = "", more: str = "") -> None:
    """Starts the server from a configuration file."""
    assert server.db is not None and server.log is not None
    config = server.db.parent / "steadfast.toml"
    config.write_text(
        f"""
        grpc = "127.0.0.1:{server.port}"
        http = "127.0.0.1:{server.http_port}"
        [store]
        path = "{server.db}"
        [[namespaces]]
        name = "default"
        [namespaces.search_attributes]
        Customer = "Keyword"
        [[namespaces]]
        name = "books"
        {more}
        [evidence]
        {evidence}
        """
    )
    out = open(server.log, "ab")
    server.process = subprocess.Popen([binary(), "serve", "--config", str(config)], stdout=out, stderr=out)


async def connect(server: Server) -> Client:
    await server.ready()
    return await Client.connect(server.address, identity=IDENTITY)


async def open_account(client: Client) -> WorkflowHandle:
    return await client.start_workflow(
        Account.run,
        SECRETS["input"],
        id="account-1",
        task_queue="accounts",
        memo={"note": SECRETS["memo"]},
        search_attributes=TypedSearchAttributes([SearchAttributePair(CUSTOMER, SECRETS["attribute"])]),
    )


async def entries(server: Server, client: Client) -> list[dict]:
    """All entries up to now, once a checkpoint covers them."""
    mark = f"mark-{time.monotonic_ns()}"
    await client.start_workflow("Nothing", id=mark, task_queue="nobody")
    log = Log(server)
    checkpoint = await log.covers(mark)
    raw = log.entries(checkpoint.size)
    assert root([leaf_hash(entry) for entry in raw]) == checkpoint.root
    for name, secret in SECRETS.items():
        for entry in raw:
            assert secret.encode() not in entry, f"the {name} is in {entry!r}"
    return [json.loads(entry) for entry in raw]


def reads(all_entries: list[dict]) -> list[dict]:
    return [entry for entry in all_entries if entry.get("note", {}).get("what", "").startswith("read/")]


async def what_is_read(server: Server, client: Client) -> list[str]:
    return [entry["note"]["what"] for entry in reads(await entries(server, client))]


async def each_read(server: Server, client: Client, handle: WorkflowHandle, output: Path) -> None:
    """One read of each kind, in this order."""
    await handle.fetch_history()
    done = subprocess.run(
        [binary(), "evidence", "export", "--address", server.http, "-o", str(output), "-w", "account-1"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert await handle.query(Account.balance, SECRETS["argument"]) == SECRETS["answer"]
    with pytest.raises(WorkflowQueryFailedError, match=SECRETS["answer"]):
        await handle.query(Account.balance, "?")
    described = await handle.describe()
    assert await described.memo() == {"note": SECRETS["memo"]}
    found = [run.id async for run in client.list_workflows(f"Customer = '{SECRETS['attribute']}'")]
    assert found == ["account-1"]
    assert [run async for run in client.list_workflows(f"Customer = '{SECRETS['filter']}'")] == []
    assert (await client.count_workflows(f"Customer = '{SECRETS['filter']}'")).count == 0


HISTORY = ["read/history", "read/bundle"]
ALL = [*HISTORY, "read/query", "read/query", "read/describe", "read/list", "read/list", "read/count"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("", []), ('reads = "none"', []), ('reads = "history"', HISTORY), ('reads = "all"', ALL)],
    ids=["default", "none", "history", "all"],
)
async def test_the_reads_that_are_asked_for_leave_entries(
    own_server: Server, tmp_path: Path, setting: str, expected: list[str]
) -> None:
    configure(own_server, setting)
    client = await connect(own_server)
    async with Worker(client, task_queue="accounts", workflows=[Account], identity="worker-7"):
        handle = await open_account(client)
        await each_read(own_server, client, handle, tmp_path / "evidence.zip")
    all_entries = await entries(own_server, client)
    noted = reads(all_entries)
    assert [entry["note"]["what"] for entry in noted] == expected

    about = {"workflow_id": "account-1", "run_id": handle.result_run_id}
    subjects = {
        "read/history": about,
        # All runs of a session.
        "read/bundle": {"workflow_id": "account-1"},
        "read/query": {**about, "detail": "balance"},
        "read/describe": about,
        "read/list": {},
        "read/count": {},
    }
    calls = {
        "read/history": "GetWorkflowExecutionHistory",
        "read/bundle": "ExportEvidence",
        "read/query": "QueryWorkflow",
        "read/describe": "DescribeWorkflowExecution",
        "read/list": "ListWorkflowExecutions",
        "read/count": "CountWorkflowExecutions",
    }
    for entry in noted:
        what = entry["note"].pop("what")
        assert entry["note"] == subjects[what], what
        # Requests that read have no field for an identity: nobody claims one.
        assert entry["cause"] == {"auth": "unauthenticated", "call": calls[what], "principal": ""}
        # It belongs to the chain of the namespace, not to the run that was read.
        assert "run_id" not in entry and "workflow_id" not in entry
    own = [entry["n"] for entry in all_entries if "run_id" not in entry]
    assert own == list(range(1, len(own) + 1))
    starts = [entry for entry in all_entries if entry["cause"]["call"] == "StartWorkflowExecution"]
    assert {entry["cause"]["principal"] for entry in starts} == {IDENTITY}
    own_server.check_evidence()
    assert own_server.stop() == 0


async def test_the_pages_of_one_read_leave_one_entry(own_server: Server) -> None:
    configure(own_server, 'reads = "all"')
    client = await connect(own_server)
    handle = await open_account(client)
    for _ in range(3):
        await handle.signal(Account.close)
    service = client.workflow_service

    async def history_pages(request_type: type, call) -> int:
        pages, token = 0, b""
        while pages == 0 or token:
            request = request_type(
                namespace="default",
                execution=WorkflowExecution(workflow_id="account-1"),
                maximum_page_size=1,
                next_page_token=token,
            )
            answer = await call(request)
            pages, token = pages + 1, answer.next_page_token
        return pages

    pages = await history_pages(GetWorkflowExecutionHistoryRequest, service.get_workflow_execution_history)
    assert pages >= 4
    assert await what_is_read(own_server, client) == ["read/history"]
    reverse = service.get_workflow_execution_history_reverse
    assert await history_pages(GetWorkflowExecutionHistoryReverseRequest, reverse) >= 4
    assert await what_is_read(own_server, client) == ["read/history"] * 2
    # The account, and one mark for each look at the log.
    found = [run.id async for run in client.list_workflows(page_size=1)]
    assert len(found) == 3
    assert await what_is_read(own_server, client) == ["read/history", "read/history", "read/list"]
    # A second read is a second entry.
    await handle.fetch_history()
    assert (await what_is_read(own_server, client)).count("read/history") == 3
    assert own_server.stop() == 0


async def test_the_token_of_another_read_hides_nothing(own_server: Server) -> None:
    """A token of one's own making is tested with the code; this is one that a server gave."""
    configure(own_server, 'reads = "all"')
    client = await connect(own_server)
    for number in range(3):
        await client.start_workflow("Nothing", id=f"run-{number}", task_queue="nobody")
    first = client.list_workflows("WorkflowType = 'Nothing'", page_size=1)
    await first.fetch_next_page()
    assert first.next_page_token
    assert await what_is_read(own_server, client) == ["read/list"]
    other = client.list_workflows("WorkflowId = 'run-0'", page_size=1, next_page_token=first.next_page_token)
    await other.fetch_next_page()
    assert await what_is_read(own_server, client) == ["read/list"] * 2
    assert own_server.stop() == 0


async def test_an_entry_of_a_read_is_durable_before_the_answer(own_server: Server) -> None:
    configure(own_server, 'reads = "history"')
    client = await connect(own_server)
    handle = await open_account(client)
    for number in range(1, 6):
        history = await handle.fetch_history()
        own_server.kill()
        assert history.events
        configure(own_server, 'reads = "history"')
        client = await connect(own_server)
        handle = client.get_workflow_handle("account-1")
        assert await what_is_read(own_server, client) == ["read/history"] * number
    own_server.check_evidence()


async def test_a_wait_for_a_result_is_one_read(own_server: Server) -> None:
    configure(own_server, 'reads = "history"')
    client = await connect(own_server)
    handle = await open_account(client)
    waiting = asyncio.create_task(handle.result())
    # Nothing was told yet, so nothing was read.
    assert await what_is_read(own_server, client) == []
    await handle.terminate()
    with pytest.raises(Exception, match="failed"):
        await waiting
    assert await what_is_read(own_server, client) == ["read/history"]
    # Refused reads tell nothing and leave nothing.
    with pytest.raises(RPCError):
        await client.get_workflow_handle("nobody's").fetch_history()
    assert await what_is_read(own_server, client) == ["read/history"]
    assert own_server.stop() == 0


async def test_a_read_is_in_the_log_of_its_namespace(own_server: Server) -> None:
    configure(own_server, 'reads = "all"')
    client = await connect(own_server)
    await client.workflow_service.count_workflow_executions(CountWorkflowExecutionsRequest(namespace="books"))
    checkpoint = await Log(own_server, "books").covers("read/count")
    [noted] = reads([json.loads(entry) for entry in Log(own_server, "books").entries(checkpoint.size)])
    assert noted["ns"] == "books"
    assert await what_is_read(own_server, client) == []
    own_server.check_evidence("books")
    assert own_server.stop() == 0


async def test_security_tools_see_reads_as_reads(own_server: Server) -> None:
    configure(own_server, 'reads = "all"')
    client = await connect(own_server)
    handle = await open_account(client)
    await handle.fetch_history()
    await handle.describe()
    assert await what_is_read(own_server, client) == ["read/history", "read/describe"]
    done = subprocess.run(
        [binary(), "evidence", "ocsf", "--address", own_server.http], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    noted = [of for of in events if of["api"]["operation"].startswith(("Get", "Describe"))]
    # OCSF: 2 is Read; severity 1 is Informational.
    assert [(of["activity_id"], of["severity_id"]) for of in noted] == [(2, 1), (2, 1)]


async def test_a_value_that_is_none_is_refused(own_server: Server) -> None:
    configure(own_server, 'reads = "some"')
    assert own_server.process is not None
    assert own_server.process.wait(30) == 1
    own_server.process = None
    assert "some" in own_server.tail() and "history" in own_server.tail()


async def started_with(server: Server, evidence: str = "", more: str = "") -> dict[str, list[str]]:
    """Starts and stops a server. Gives the changes of settings that the log of each namespace has."""
    configure(server, evidence, more)
    await server.ready()
    changes = {}
    for namespace in ("default", "books"):
        client = await Client.connect(server.address, namespace=namespace)
        mark = f"mark-{time.monotonic_ns()}"
        await client.start_workflow("Nothing", id=mark, task_queue="nobody")
        log = Log(server, namespace)
        checkpoint: Checkpoint = await log.covers(mark)
        all_entries = [json.loads(entry) for entry in log.entries(checkpoint.size)]
        noted = [entry for entry in all_entries if entry.get("note", {}).get("what") == "configuration/started"]
        for entry in noted:
            assert entry["cause"] == {"call": "internal/configuration", "principal": "steadfast"}
        changes[namespace] = [entry["note"]["detail"] for entry in noted]
    server.check_evidence()
    assert server.stop() == 0
    return changes


async def test_changed_settings_are_noted_once(own_server: Server) -> None:
    none: dict[str, list[str]] = {"default": [], "books": []}
    assert await started_with(own_server) == none
    assert await started_with(own_server) == none
    changed = ('reads = "all"', "[limits]\nsignals = 7")
    after = await started_with(own_server, *changed)
    for details in after.values():
        [detail] = details
        digest, *changes = detail.split("; ")
        word, hash_ = digest.split(" ")
        assert word == "settings" and len(base64.b64decode(hash_, validate=True)) == 32
        assert changes == ['evidence.reads: "none" -> "all"', 'limits.signals: "10000" -> "7"']
    assert await started_with(own_server, *changed) == after
    # How much the server says of itself is nothing to who reads the log.
    assert await started_with(own_server, changed[0], f"{changed[1]}\n[log]\nlevel = 'warn'") == after
    back = await started_with(own_server)
    for namespace, details in back.items():
        assert details[0] == after[namespace][0] and len(details) == 2
        assert details[1].split("; ")[1:] == ['evidence.reads: "all" -> "none"', 'limits.signals: "7" -> "10000"']
    # The same settings have the same digest, whatever was in between.
    again = await started_with(own_server, *changed)
    assert again["default"][2] == after["default"][0]


async def test_secrets_of_the_configuration_are_not_in_the_log(own_server: Server) -> None:
    secrets = ("hunter2-of-the-witness", "hunter2-of-the-store")
    assert (await started_with(own_server))["default"] == []
    public = b"\4" + Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    key = witness_key("witness.example/one", public)
    evidence = f'witnesses = [{{ url = "http://user:{secrets[0]}@127.0.0.1:9/prefix", key = "{key}" }}]'
    # A pragma that SQLite does not know does nothing.
    pragmas = f'[store.pragmas]\nkey = "\'{secrets[1]}\'"\nsynchronous = "extra"'
    [detail] = (await started_with(own_server, evidence, pragmas))["default"]
    assert f'evidence.witnesses: "" -> "{key}"' in detail
    assert 'store.synchronous: "full" -> "extra"' in detail
    # A witness is known by its key: where it is asked is not in the log.
    other = evidence.replace(secrets[0], "hunter3-of-the-witness")
    assert (await started_with(own_server, other, pragmas))["default"] == [detail]
    configure(own_server, evidence, pragmas)
    await own_server.ready()
    for namespace in ("default", "books"):
        log = Log(own_server, namespace)
        checkpoint = await log.covers("configuration/started")
        for entry in log.entries(checkpoint.size):
            assert b"hunter" not in entry, entry
    assert own_server.stop() == 0


def witness_key(name: str, public: bytes) -> str:
    key_id = hashlib.sha256(f"{name}\n".encode() + public).digest()[:4].hex()
    return f"{name}+{key_id}+{base64.b64encode(public).decode()}"
