"""Erasing a session: its payloads are nowhere any more, and what happened can still be shown and verified."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.message import Message
from raw import Raw, complete, payload, payloads, refusal, values
from server import Server, binary
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.common import RetryPolicy, SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from test_log import Log, leaf_hash, root

if Path(binary()).name != "steadfast":
    pytest.skip("only Steadfast has evidence", allow_module_level=True)

SECRET = "4111-1111-1111-1111"
CUSTOMER = SearchAttributeKey.for_keyword("Customer")
ENCODING = b"steadfast/erased"

# Large ones are in pages of their own, and leave other traces in a file than small ones.
LARGE = "large" + 2000 * SECRET


def secret(what: str) -> str:
    return f"{what} {SECRET}"


@activity.defn
async def charge(card: str, large: str) -> str:
    activity.heartbeat(secret("heartbeat"), large)
    await asyncio.sleep(0.3)
    if activity.info().attempt == 1:
        raise ApplicationError(secret("declined"), secret("details"), type="Declined")
    return secret("charged")


@workflow.defn(sandboxed=False)
class Checkout:
    def __init__(self) -> None:
        self.approved = False

    @workflow.signal
    def approve(self, who: str, large: str) -> None:
        self.approved = True

    @workflow.update
    async def note(self, text: str) -> str:
        return secret("noted")

    @workflow.query
    def is_approved(self) -> bool:
        return self.approved

    @workflow.run
    async def run(self, card: str, large: str) -> str:
        workflow.upsert_memo({"upserted": secret("upserted")})
        await workflow.wait_condition(lambda: self.approved)
        charging = workflow.execute_activity(
            charge,
            args=[card, large],
            start_to_close_timeout=timedelta(seconds=5),
            heartbeat_timeout=timedelta(seconds=5),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10)),
            summary=secret("summary"),
        )
        local = workflow.execute_local_activity(
            charge_locally, card, start_to_close_timeout=timedelta(seconds=5)
        )
        await asyncio.gather(charging, local)
        try:
            await workflow.execute_activity(
                fail,
                card,
                start_to_close_timeout=timedelta(seconds=5),
                retry_policy=RetryPolicy(maximum_attempts=1),
            )
        except Exception:
            pass
        return secret("result")


@activity.defn
async def charge_locally(card: str) -> str:
    return secret("locally")


@activity.defn
async def fail(card: str) -> None:
    raise ApplicationError(secret("failed"), secret("why"), non_retryable=True)


async def started(server: Server) -> Client:
    server.start()
    await server.ready()
    client = await server.client(identity="alice@desk")
    raw = Raw(client, "setup")
    await raw.call("add_search_attributes", search_attributes={"Customer": "INDEXED_VALUE_TYPE_KEYWORD"})
    return client


async def session(client: Client, workflow_id: str = "order-7") -> str:
    """Runs a session with a secret in everything that can hold one. Returns the run's id."""
    activities = [charge, charge_locally, fail]
    async with Worker(client, task_queue="erase", workflows=[Checkout], activities=activities):
        handle = await client.start_workflow(
            Checkout.run,
            args=[secret("input"), LARGE],
            id=workflow_id,
            task_queue="erase",
            memo={"card": secret("memo"), "large": LARGE},
            search_attributes=TypedSearchAttributes([SearchAttributePair(CUSTOMER, secret("customer"))]),
            static_summary=secret("static"),
        )
        assert await handle.execute_update(Checkout.note, secret("update"), id="note-1") == secret("noted")
        await handle.signal(Checkout.approve, args=[secret("signal"), LARGE])
        assert await handle.result() == secret("result")
        return (await handle.describe()).run_id


def files_with_secrets(directory: Path) -> dict[str, list[str]]:
    """Files with the secret in them, with what stands before it."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            before = re.findall(rb"([a-z]*)[ ]?" + SECRET.encode(), path.read_bytes())
            if before:
                found[path.name] = sorted({text.decode() for text in before})
    return found


def erase(server: Server, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [binary(), "evidence", "erase", "--address", server.http, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def post(server: Server, namespace: str = "default", **body: str) -> tuple[int, str]:
    url = f"{server.http}/api/v1/namespaces/{namespace}/evidence/erase"
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def messages(message: Message, kind: type[Message]) -> Iterator[Message]:
    """All messages of a kind within a message."""
    if isinstance(message, kind):
        yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            held = [value[key] for key in value] if field.message_type.fields_by_name["value"].message_type else []
        else:
            held = list(value) if field.is_repeated else [value]
        for inner in held:
            yield from messages(inner, kind)


def skeleton(events: list[HistoryEvent]) -> list[tuple[int, str, str]]:
    """What has to be the same before and after."""
    return [(event.event_id, EventType.Name(event.event_type), event.event_time.ToJsonString()) for event in events]


def notes(log: Log, size: int) -> list[dict]:
    entries = [json.loads(entry) for entry in log.entries(size)]
    return [entry for entry in entries if entry.get("note", {}).get("what") == "evidence/erased"]


async def verified(server: Server, what: str) -> int:
    """Checks the log as an outsider does, and the server against itself. Gives the log's size."""
    log = Log(server)
    checkpoint = await log.covers(what)
    hashes = [leaf_hash(entry) for entry in log.entries(checkpoint.size)]
    assert root(hashes) == checkpoint.root
    server.check_evidence()
    return checkpoint.size


def check(server: Server) -> dict:
    command = [binary(), "evidence", "check", "--address", server.http, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


def exported(server: Server, directory: Path) -> dict:
    """What verifying a bundle of the session says."""
    bundle = directory / "bundle.zip"
    command = [binary(), "evidence", "export", "--address", server.http, "-o", str(bundle), "-w", "order-7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    key = Log(server).get("key").decode().strip()
    command = [binary(), "evidence", "verify", str(bundle), "--key", key, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)["manifest"]


async def test_an_erased_session_can_be_explained_and_verified(own_server: Server, tmp_path_factory) -> None:
    directory = own_server.db.parent
    client = await started(own_server)
    run_id = await session(client)
    other = await session(client, "other")
    handle = client.get_workflow_handle("order-7")
    whole = list((await handle.fetch_history()).events)
    assert files_with_secrets(directory), "there is something to find"
    # The other session is erased too: what it has would be found otherwise.
    assert f"run {other}: erased" in erase(own_server, "-w", "other", "--yes").stdout
    done = erase(own_server, "-w", "order-7", "--reason", "GDPR-17", "--identity", "dpo@corp", "--yes")
    assert done.stdout == f"run {run_id}: erased\n"
    assert files_with_secrets(directory) == {}

    events = list((await handle.fetch_history()).events)
    assert skeleton(events) == skeleton(whole)
    assert SECRET not in str(events)
    erased = [of for event in events for of in messages(event, Payload)]
    assert len(erased) == len([of for event in whole for of in messages(event, Payload)]) > 15
    assert {(of.metadata["encoding"], of.data) for of in erased} <= {(ENCODING, b""), (b"binary/null", b"")}
    said = {of.message for event in events for of in messages(event, Failure)}
    assert said == {"erased"}
    names = {event.activity_task_scheduled_event_attributes.activity_type.name for event in events}
    assert names == {"", "charge", "fail"}

    size = await verified(own_server, "GDPR-17")
    [note] = [of for of in notes(Log(own_server), size) if of["note"]["run_id"] == run_id]
    assert note["note"]["workflow_id"] == "order-7" and note["note"]["detail"] == "GDPR-17"
    assert note["cause"] == {"auth": "unauthenticated", "call": "EraseEvidence", "principal": "dpo@corp"}
    kinds = [json.loads(entry).get("note", {}).get("what") for entry in Log(own_server).entries(size)]
    assert kinds[-3:] == [None, "evidence/erased", "evidence/erased"], "an erasure is one entry"
    assert check(own_server)["erased"] == 2
    # Bundles are of the log's last checkpoint, and of what is there.
    manifest = exported(own_server, tmp_path_factory.mktemp("bundle"))
    [run] = manifest["runs"]
    assert (run["erased"], run["claim"], run["events"]) == (True, "complete", len(events))

    # A second time it is done already.
    done = erase(own_server, "-w", "order-7", "-r", run_id, "--yes")
    assert done.stdout == f"run {run_id}: was erased before\n"
    assert own_server.stop() == 0
    assert files_with_secrets(directory) == {}
    own_server.start()
    await own_server.ready()
    await (await own_server.client()).start_workflow("Nothing", id="last", task_queue="nobody")
    size = await verified(own_server, "last")
    assert len(notes(Log(own_server), size)) == 2
    assert files_with_secrets(directory) == {}


async def test_what_an_erased_run_still_answers(own_server: Server) -> None:
    client = await started(own_server)
    run_id = await session(client)
    found = [run.id async for run in client.list_workflows(f"Customer = '{secret('customer')}'")]
    assert found == ["order-7"]
    erase(own_server, "-w", "order-7", "--yes")
    handle = client.get_workflow_handle("order-7")
    description = await handle.describe()
    assert description.run_id == run_id and description.workflow_type == "Checkout"
    assert description.history_length > 10 and description.close_time is not None
    assert await description.memo() == {} and len(description.typed_search_attributes) == 0
    assert SECRET not in str(description.raw_description)
    [listed] = [run async for run in client.list_workflows("WorkflowId = 'order-7'")]
    assert SECRET not in str(listed.raw_info)
    assert [run async for run in client.list_workflows(f"Customer = '{secret('customer')}'")] == []
    assert [run async for run in client.list_workflows("Customer IS NOT NULL")] == []

    raw = Raw(client, "erased")
    execution = {"workflow_id": "order-7", "run_id": run_id}
    reference = {"workflow_execution": execution, "update_id": "note-1"}
    for call in (
        raw.call("query_workflow", execution=execution, query={"query_type": "is_approved"}),
        raw.reset(workflow_execution=execution),
        raw.call("poll_workflow_execution_update", update_ref=reference),
    ):
        refused = await refusal(call)
        assert refused and refused.code == "FAILED_PRECONDITION", refused
        assert f"the payloads of run {run_id} were erased" in refused.message
    last = await raw.call(
        "get_workflow_execution_history", execution=execution, history_event_filter_type=2
    )
    [result] = last.history.events[-1].workflow_execution_completed_event_attributes.result.payloads
    assert result.metadata["encoding"] == ENCODING
    reverse = await raw.call("get_workflow_execution_history_reverse", execution=execution)
    assert SECRET not in str(reverse) and reverse.history.events[-1].event_id == 1
    # Its id can be used again.
    raw.id = "order-7"
    await raw.running()
    own_server.check_evidence()


async def test_what_is_not_erased(own_server: Server) -> None:
    client = await started(own_server)
    raw = Raw(client, "open")
    await raw.running(input=payloads(SECRET))
    code, text = post(own_server, workflowId=raw.id)
    assert code == 409 and f"run {raw.run_id} of workflow" in text and "terminate it" in text, text
    assert "409" in erase(own_server, "-w", raw.id, "--yes", code=1).stderr
    assert post(own_server, workflowId="nobody's")[0] == 404
    assert post(own_server, workflowId=raw.id, runId="00000000-0000-4000-8000-000000000000")[0] == 404
    assert post(own_server, "nowhere", workflowId=raw.id)[0] == 404
    assert post(own_server)[0] == 400
    assert post(own_server, workflowId=raw.id, runId="nonsense")[0] == 400
    assert post(own_server, workflowId=raw.id, reason="r" * 1001)[0] == 400
    assert post(own_server, workflowId=raw.id, unknown="1")[0] == 422
    assert "give --yes" in erase(own_server, "-w", raw.id, code=1).stderr
    assert values((await raw.events())[0].workflow_execution_started_event_attributes.input) == [SECRET]
    result = check(own_server)
    assert (result["differences"], result["erased"]) == ([], 0)


async def test_runs_that_were_reset_are_erased_together(own_server: Server, tmp_path_factory) -> None:
    directory = own_server.db.parent
    client = await started(own_server)
    raw = Raw(client, "reset")
    raw.id = "order-7"
    task = await raw.workflow_task(input=payloads(SECRET), memo={"fields": {"card": payload(SECRET)}})
    await raw.signal(input=payloads(SECRET))
    await raw.answer(task, raw.activity(input=payloads(SECRET)))
    attempt = await raw.poll_activity_task()
    await raw.complete_activity(attempt, SECRET)
    await raw.answer(await raw.poll_workflow_task(), complete(SECRET))
    first = raw.run_id
    second = (await raw.reset()).run_id
    # The base's events are needed for the run that goes on from them, open or closed.
    code, text = post(own_server, workflowId=raw.id, runId=first)
    assert code == 409 and second in text, text
    assert post(own_server, workflowId=raw.id)[0] == 409
    await raw.answer(await raw.poll_workflow_task(), complete(SECRET))
    code, text = post(own_server, workflowId=raw.id, runId=first)
    assert code == 409 and "erase all runs" in text, text
    # Of a run that is deleted, those that were reset from it keep the beginning.
    await raw.call("delete_workflow_execution", workflow_execution={"workflow_id": raw.id, "run_id": first})
    assert files_with_secrets(directory)
    code, text = post(own_server, workflowId=raw.id)
    assert code == 200 and sorted(json.loads(text)["erased"]) == sorted([first, second]), text
    assert files_with_secrets(directory) == {}
    raw.run_id = second
    events = await raw.events()
    assert [event.event_id for event in events] == list(range(1, len(events) + 1))
    [given] = events[0].workflow_execution_started_event_attributes.input.payloads
    assert given.metadata["encoding"] == ENCODING
    await verified(own_server, second)
    runs = exported(own_server, tmp_path_factory.mktemp("bundle"))["runs"]
    assert {run["run_id"]: run.get("erased") for run in runs}[second]
    assert json.loads(post(own_server, workflowId=raw.id)[1])["erased"] == []


@pytest.mark.timeout(120)
async def test_a_kill_leaves_all_or_nothing(own_server: Server) -> None:
    """Whenever the server dies: a run that the log has as erased is erased, to the last byte, at the next start."""
    directory = own_server.db.parent
    client = await started(own_server)
    outcomes = set()
    for number, pause in enumerate((0.0, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, None)):
        workflow_id = f"order-{number}"
        raw = Raw(client, str(number))
        raw.id = workflow_id
        task = await raw.workflow_task(input=payloads(secret("input"), LARGE))
        await raw.answer(task, complete(SECRET))
        erasing = asyncio.create_task(asyncio.to_thread(quietly, own_server, workflow_id))
        if pause is None:
            assert await erasing == 200
        else:
            await asyncio.sleep(pause)
        own_server.kill()
        await erasing
        own_server.start()
        await own_server.ready()
        client = await own_server.client()
        raw.client = client
        marker = f"marker-{number}"
        await client.start_workflow("Nothing", id=marker, task_queue="nobody")
        size = await verified(own_server, marker)
        is_erased = raw.run_id in {of["note"]["run_id"] for of in notes(Log(own_server), size)}
        outcomes.add(is_erased)
        if not is_erased:
            [event, *_] = await raw.events()
            assert values(event.workflow_execution_started_event_attributes.input)[0] == secret("input")
            erase(own_server, "-w", workflow_id, "--yes")
        assert files_with_secrets(directory) == {}, (number, is_erased)
    assert True in outcomes


def quietly(server: Server, workflow_id: str) -> int | None:
    """Erases; the server may die meanwhile."""
    try:
        return post(server, workflowId=workflow_id)[0]
    except OSError:
        return None
    except Exception as error:
        assert "closed" in str(error).lower() or "remote" in str(error).lower(), error
        return None
