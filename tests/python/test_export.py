"""Evidence in the formats of what people already run: OCSF events and OTLP traces of a real session.

OCSF events are validated against the schema that the OCSF project publishes, made a JSON Schema by
`ocsf-json-schema`. OTLP requests go to a collector that the test is itself.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from server import Server, binary
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

SECRET = "4111-1111-1111-1111"

# The version that events name, and the newest one: what is valid stays so.
OCSF_VERSIONS = ("1.1.0", "1.8.0")


@activity.defn
async def charge(card: str, fails: int) -> str:
    if activity.info().attempt <= fails:
        raise ApplicationError(f"no money on {card}", type="Declined")
    return f"charged {card}"


@workflow.defn(sandboxed=False)
class Checkout:
    @workflow.run
    async def run(self, card: str, fails: int, again: int) -> str:
        result = await workflow.execute_activity(
            charge,
            args=[card, fails],
            start_to_close_timeout=timedelta(seconds=5),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_attempts=2),
        )
        if again:
            workflow.continue_as_new(args=[card, fails, again - 1])
        return result


async def connected(server: Server) -> Client:
    server.start()
    await server.ready()
    return await Client.connect(server.address, identity="alice@desk")


async def session(client: Client, workflow_id: str, fails: int = 1, again: int = 0) -> str:
    """Runs a session to its end, and gives the id of its first run."""
    async with Worker(client, task_queue="export", workflows=[Checkout], activities=[charge], identity="worker-7"):
        handle = await client.start_workflow(
            Checkout.run, args=[SECRET, fails, again], id=workflow_id, task_queue="export"
        )
        await handle.result()
    assert handle.first_execution_run_id
    return handle.first_execution_run_id


def arguments(server: Server, *rest: str | Path) -> list[str]:
    command, *flags = map(str, rest)
    return [binary(), "evidence", command, "--address", f"http://127.0.0.1:{server.http_port}", *flags]


async def steadfast(server: Server, *rest: str | Path, code: int = 0, **environment: str) -> tuple[str, str]:
    command = arguments(server, *rest)
    environment = {**os.environ, **environment}
    run = lambda: subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)  # noqa: E731
    done = await asyncio.to_thread(run)
    assert done.returncode == code, f"{command}: {done.returncode}: {done.stdout[-500:]}{done.stderr}"
    assert SECRET not in done.stdout and "no money" not in done.stdout
    return done.stdout, done.stderr


async def signed(server: Server, count: int = 1) -> int:
    """Waits until a checkpoint covers all that has happened. Gives the log's size."""
    url = f"http://127.0.0.1:{server.http_port}/log/default/checkpoint"
    deadline, before = time.monotonic() + 20, -1
    while time.monotonic() < deadline:
        try:
            size = int(urllib.request.urlopen(url, timeout=5).read().split(b"\n")[1])
        except urllib.error.HTTPError:
            size = 0
        if size == before and size >= count:
            return size
        before = size
        # Longer than from an answer to the checkpoint that covers it.
        await asyncio.sleep(1.5)
    raise AssertionError("no checkpoint that stays")


# OCSF


@pytest.fixture(scope="module")
def validators() -> dict[str, Draft202012Validator]:
    def validator(version: str) -> Draft202012Validator:
        schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
        return Draft202012Validator(schema.get_class_schema(class_name="api_activity", profiles=["datetime"]))

    return {version: validator(version) for version in OCSF_VERSIONS}


def events(lines: str) -> list[dict]:
    return [json.loads(line) for line in lines.splitlines()]


async def test_ocsf_events_are_valid_and_say_what_happened(own_server: Server, validators) -> None:
    client = await connected(own_server)
    await session(client, "paying")
    with pytest.raises(WorkflowFailureError):
        await session(client, "declined", fails=2)
    await client.get_workflow_handle("paying").describe()
    size = await signed(own_server)
    out, _ = await steadfast(own_server, "ocsf")
    exported = events(out)
    assert [event["metadata"]["sequence"] for event in exported] == list(range(size))
    for event in exported:
        for version, validator in validators.items():
            errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(event)]
            assert not errors, f"OCSF {version}: {errors}: {event}"
        # The entry itself is in the event, and its hash is the event's id.
        leaf = hashlib.sha256(b"\0" + event["raw_data"].encode()).digest()
        assert event["metadata"]["uid"] == base64.b64encode(leaf).decode()
        entry = json.loads(event["raw_data"])
        assert event["unmapped"]["n"] == entry["n"]
        assert event["api"]["operation"] == entry["cause"]["call"]

    paying = [event for event in exported if event["unmapped"].get("workflow_id") == "paying"]
    assert paying[0]["activity_name"] == "Create"
    assert paying[0]["actor"]["user"]["name"] == "alice@desk"
    [failed] = [event for event in paying if event["status"] == "Failure"]
    assert failed["status_code"] == "application/Declined"
    assert failed["actor"]["user"]["name"] == "worker-7"
    assert {"name": "charge", "namespace": "default", "type": "tool call", "uid": "1"} in failed["resources"]
    assert paying[-1]["status_code"] == "COMPLETED"
    declined = [event for event in exported if event["unmapped"].get("workflow_id") == "declined"]
    assert (declined[-1]["status_code"], declined[-1]["severity"]) == ("FAILED", "Medium")
    assert any(event["actor"]["user"]["type"] == "System" for event in exported)


async def test_a_validator_that_refuses_what_is_wrong(own_server: Server, validators) -> None:
    await connected(own_server)
    await signed(own_server)
    out, _ = await steadfast(own_server, "ocsf")
    event = events(out)[0]
    for wrong in ({"class_uid": 1}, {"time": "now"}, {"new": 1}, {"activity_id": 7}):
        for validator in validators.values():
            assert not validator.is_valid({**event, **wrong}), wrong


async def test_an_ocsf_file_is_continued(own_server: Server, tmp_path: Path) -> None:
    client = await connected(own_server)
    await session(client, "one")
    first = await signed(own_server)
    file = tmp_path / "events.jsonl"
    await steadfast(own_server, "ocsf", "-o", file)
    assert len(events(file.read_text())) == first
    await session(client, "two")
    second = await signed(own_server, first + 1)
    with open(file, "a") as torn:
        torn.write('{"activity_id": 3, "act')
    await steadfast(own_server, "ocsf", "-o", file)
    exported = events(file.read_text())
    assert [event["metadata"]["sequence"] for event in exported] == list(range(second))
    out, _ = await steadfast(own_server, "ocsf", "--from", str(first))
    assert events(out) == exported[first:]
    out, _ = await steadfast(own_server, "ocsf", "--from", str(second))
    assert out == ""
    _, error = await steadfast(own_server, "ocsf", "--from", str(second + 1000), code=1)
    assert f"the log has {second} entries" in error
    _, error = await steadfast(own_server, "ocsf", "--from", "0", "-o", file, code=1)
    assert "leave out --from" in error
    _, error = await steadfast(own_server, "ocsf", "--namespace", "nobody's", code=1)
    assert "there is no namespace" in error


async def test_a_log_is_followed(own_server: Server) -> None:
    client = await connected(own_server)
    await session(client, "one")
    size = await signed(own_server)
    command = arguments(own_server, "ocsf", "--follow")
    follower = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, limit=1 << 20
    )
    try:
        lines = [await asyncio.wait_for(follower.stdout.readline(), 20) for _ in range(size)]
        await session(client, "two")
        while not any(b'"COMPLETED on two' in line or b"on two: the run ended" in line for line in lines):
            lines.append(await asyncio.wait_for(follower.stdout.readline(), 20))
        sequence = [json.loads(line)["metadata"]["sequence"] for line in lines]
        assert sequence == list(range(len(sequence)))
        # The server stops: so does who follows it.
        assert own_server.stop() == 0
        assert await asyncio.wait_for(follower.wait(), 20) == 0, await follower.stderr.read()
    finally:
        if follower.returncode is None:
            follower.kill()
            await follower.wait()


async def test_exports_are_limited_and_readers_that_go_away_make_room(own_server: Server) -> None:
    await connected(own_server)
    size = await signed(own_server)
    url = f"http://127.0.0.1:{own_server.http_port}/api/v1/namespaces/default/evidence/ocsf"

    def follow():
        return urllib.request.urlopen(f"{url}?from={size}&follow=true", timeout=20)

    followers = [await asyncio.to_thread(follow) for _ in range(32)]
    try:
        with pytest.raises(urllib.error.HTTPError) as refused:
            await asyncio.to_thread(follow)
        assert refused.value.code == 503
        # There is nothing new, and the server says that it is there.
        assert await asyncio.to_thread(followers[0].readline) == b"\n"
        followers.pop().close()
        deadline = time.monotonic() + 10
        while True:
            try:
                followers.append(await asyncio.to_thread(follow))
                break
            except urllib.error.HTTPError as error:
                assert error.code == 503 and time.monotonic() < deadline
                await asyncio.sleep(0.1)
    finally:
        for follower in followers:
            follower.close()


# OTLP


class Collector(ThreadingHTTPServer):
    """Takes traces, after it has refused some requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.refusals: list[int] = []
        self.answer: dict = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def spans(self) -> list[dict]:
        return [
            span
            for request in self.requests
            for of_resource in request["resourceSpans"]
            for of_scope in of_resource["scopeSpans"]
            for span in of_scope["spans"]
        ]


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        status = self.server.refusals.pop(0) if self.server.refusals else 200
        if status == 200:
            self.server.requests.append(json.loads(body))
            self.server.headers.append(dict(self.headers))
        answer = json.dumps(self.server.answer if status == 200 else {"message": "not now"}).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    yield collector
    collector.shutdown()
    thread.join()
    collector.server_close()


def attributes(span: dict) -> dict[str, str]:
    return {of["key"]: next(iter(of["value"].values())) for of in span["attributes"]}


def roots(spans: list[dict]) -> list[dict]:
    return [span for span in spans if attributes(span).get("gen_ai.operation.name") == "invoke_agent"]


def tool_calls(spans: list[dict]) -> list[dict]:
    return [span for span in spans if attributes(span).get("gen_ai.operation.name") == "execute_tool"]


async def test_a_session_is_a_trace_and_an_attempt_is_a_span(own_server: Server, collector: Collector) -> None:
    client = await connected(own_server)
    paying = await session(client, "paying", again=1)
    with pytest.raises(WorkflowFailureError):
        await session(client, "declined", fails=2)
    _, said = await steadfast(own_server, "otlp", "--endpoint", collector.url)
    spans = collector.spans
    assert f"sent {len(spans)} spans" in said
    assert set(collector.paths) == {"/v1/traces"}
    assert SECRET not in json.dumps(collector.requests) and "no money" not in json.dumps(collector.requests)
    assert len({span["traceId"] for span in spans}) == 2
    assert len({span["spanId"] for span in spans}) == len(spans)

    # One session: two runs, the second linked to the first.
    trace = [span for span in spans if span["traceId"] == paying.replace("-", "")]
    first, second = sorted(roots(trace), key=lambda span: int(span["startTimeUnixNano"]))
    assert "parentSpanId" not in first and "parentSpanId" not in second
    assert second["links"] == [{"traceId": first["traceId"], "spanId": first["spanId"]}]
    assert attributes(first)["gen_ai.agent.name"] == "Checkout"
    assert attributes(first)["gen_ai.conversation.id"] == "paying"
    assert attributes(first)["temporalRunID"] == paying

    # Each run has two attempts at one tool call: one that failed, one that did not.
    assert len(tool_calls(trace)) == 4
    for run in (first, second):
        attempts = [span for span in tool_calls(trace) if span["parentSpanId"] == run["spanId"]]
        attempts.sort(key=lambda span: int(attributes(span)["steadfast.attempt"]))
        assert [attributes(span)["steadfast.attempt"] for span in attempts] == ["1", "2"]
        failed, done = attempts
        assert failed["name"] == "execute_tool charge"
        assert failed["status"] == {"code": 2}
        assert attributes(failed)["error.type"] == "application/Declined"
        assert attributes(failed)["gen_ai.tool.name"] == "charge"
        assert attributes(failed)["gen_ai.tool.call.id"] == attributes(done)["gen_ai.tool.call.id"] == "1"
        assert attributes(failed)["steadfast.worker"] == "worker-7"
        assert "status" not in done and "error.type" not in attributes(done)
        times = [int(span[key]) for span in attempts for key in ("startTimeUnixNano", "endTimeUnixNano")]
        assert times == sorted(times)
        assert int(run["startTimeUnixNano"]) <= times[0] and times[-1] <= int(run["endTimeUnixNano"])

    # The last attempt of a tool call that failed for good, too.
    other = [span for span in spans if span["traceId"] != paying.replace("-", "")]
    assert [attributes(span)["error.type"] for span in tool_calls(other)] == ["application/Declined"] * 2
    assert attributes(roots(other)[0])["error.type"] == "application/Declined"

    # Again, and of one workflow only: the same.
    collector.requests.clear()
    await steadfast(own_server, "otlp", "--endpoint", f"{collector.url}/v1/traces/", "--workflow-id", "paying")
    key = lambda span: span["spanId"]  # noqa: E731
    assert sorted(collector.spans, key=key) == sorted(trace, key=key)


async def test_runs_are_chosen_by_when_they_closed(own_server: Server, collector: Collector) -> None:
    client = await connected(own_server)
    await session(client, "paying")
    to = ("--to", "2020-01-01T00:00:00Z")
    _, said = await steadfast(own_server, "otlp", "--endpoint", collector.url, *to)
    assert "sent 0 spans in 0 requests" in said and not collector.requests
    since = ("--from", "2020-01-01T00:00:00+02:00")
    await steadfast(own_server, "otlp", "--endpoint", collector.url, *since)
    assert len(roots(collector.spans)) == 1
    _, error = await steadfast(own_server, "otlp", "--endpoint", collector.url, "--from", "yesterday", code=1)
    assert "RFC 3339" in error


async def test_a_collector_that_is_busy_is_asked_again(own_server: Server, collector: Collector) -> None:
    client = await connected(own_server)
    await session(client, "paying")
    collector.refusals = [503, 429]
    secret = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20t0ken"}
    await steadfast(own_server, "otlp", "--endpoint", collector.url, **secret)
    assert len(roots(collector.spans)) == 1
    assert collector.headers[0]["authorization"] == "Bearer t0ken"
    # What cannot get better is not tried again, and says nothing of the headers.
    collector.refusals = [401]
    tries = len(collector.paths)
    _, error = await steadfast(own_server, "otlp", "--endpoint", collector.url, code=1, **secret)
    assert "401" in error and "not now" in error and "t0ken" not in error
    assert len(collector.paths) == tries + 1
    # What is busy for good is given up.
    collector.refusals = [429] * 100
    _, error = await steadfast(own_server, "otlp", "--endpoint", collector.url, code=1)
    assert "tried 6 times" in error
    collector.refusals = []
    collector.answer = {"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}}
    _, error = await steadfast(own_server, "otlp", "--endpoint", collector.url, code=1)
    assert "rejected 2" in error
