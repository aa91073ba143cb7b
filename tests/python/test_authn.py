"""Who calls: API keys, tokens and certificates, over TLS, with the SDK and the commands that users have."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from authority import Authority, Issuer, Pair, Secured
from server import binary
from temporalio import activity, workflow
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest, PollActivityTaskQueueRequest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode, TLSConfig
from temporalio.worker import UnsandboxedWorkflowRunner, Worker


@activity.defn
async def double(number: int) -> int:
    return 2 * number


@workflow.defn
class Doubling:
    @workflow.run
    async def run(self, number: int) -> int:
        return await workflow.execute_activity(
            double, number, start_to_close_timeout=timedelta(seconds=20)
        )


def secured(folder: Path, request, auth: str, tls: str = "") -> Iterator[Secured]:
    from conftest import LOGS

    server = Secured(folder, auth, tls)
    request.config.stash[LOGS].append(server.log)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        request.config.stash[LOGS].remove(server.log)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


@pytest.fixture
def keys(tmp_path, request) -> Iterator[Secured]:
    yield from secured(tmp_path, request, "[auth]\napi_keys = true\n")


@pytest.fixture
def tokens(tmp_path, request, issuer) -> Iterator[Secured]:
    auth = f"[[auth.oidc]]\nissuer = '{issuer.url}'\naudiences = ['steadfast']\nrefetch_seconds = 1\n"
    yield from secured(tmp_path, request, "[auth]\napi_keys = true\n" + auth)


@pytest.fixture
def certificates(tmp_path, request) -> Iterator[Secured]:
    auth = "[auth.mtls]\ngroups_from_ou = true\n"
    tls = f"client_ca = '{tmp_path}/authority.pem'\n"
    yield from secured(tmp_path, request, auth, tls)


async def connect(server: Secured, key: str | None = None, pair: Pair | None = None, **options) -> Client:
    tls = TLSConfig(
        server_root_ca_cert=server.ca,
        client_cert=pair.cert.read_bytes() if pair else None,
        client_private_key=pair.key.read_bytes() if pair else None,
    )
    return await Client.connect(server.address, tls=tls, api_key=key, **options)


async def refused(server: Secured, key: str | None = None, pair: Pair | None = None) -> str:
    """What a caller is told who is not let in."""
    with pytest.raises(RuntimeError, match="code: Unauthenticated") as error:
        await connect(server, key, pair)
    message = re.search(r'message: "([^"]*)"', str(error.value))
    assert message, error.value
    return message[1]


async def work(client: Client, workflow_id: str) -> None:
    async with Worker(
        client,
        task_queue="doubling",
        workflows=[Doubling],
        activities=[double],
        workflow_runner=UnsandboxedWorkflowRunner(),
        identity="claimed-worker",
    ):
        result = await client.execute_workflow(Doubling.run, 21, id=workflow_id, task_queue="doubling")
    assert result == 42


async def causes(server: Secured, key: str, calls: set[str]) -> set[tuple[str, str, str]]:
    """The calls in the log with who made them and how that was known, once all of `calls` are there."""
    deadline = time.monotonic() + 20
    while True:
        found = [entry["cause"] for entry in server.entries(key)]
        found = {(of["call"], of["principal"], of.get("auth", "")) for of in found}
        if calls <= {call for call, _, _ in found}:
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


CALLS = {
    "StartWorkflowExecution",
    "RespondWorkflowTaskCompleted",
    "RespondActivityTaskCompleted",
}


async def test_without_a_credential_nothing_is_open_but_health(keys: Secured) -> None:
    assert "an API key" in await refused(keys)
    assert keys.get("/healthz")[0] == 200
    for path in ["/", "/metrics", "/api/v1/status", "/api/v1/keys", "/log/default/checkpoint", "/nothing"]:
        status, body, headers = keys.get(path)
        assert status == 401, path
        assert headers["www-authenticate"] == 'Bearer realm="steadfast"'
        assert keys.get(path, "sfk_0000000000000000_" + "A" * 43)[0] == 401, path
    assert keys.get("/api/v1/status", keys.admin_key)[0] == 200
    assert keys.get("/nothing", keys.admin_key)[0] == 404
    wrong = keys.admin_key[:-1] + ("A" if keys.admin_key[-1] != "A" else "B")
    assert await refused(keys, wrong) == "the API key is not valid"
    assert "does not accept tokens" in await refused(keys, "a.b.c")


async def test_an_api_key_is_who_calls(keys: Secured) -> None:
    key = keys.new_key("workers", "--group", "staging", "--expires", "1h")
    await work(await connect(keys, key), "by-key")
    found = await causes(keys, keys.admin_key, CALLS)
    for call in CALLS:
        assert (call, "api-key#workers", "api-key") in found
    assert not any(method == "unauthenticated" for _, _, method in found)
    client = await connect(keys, key)
    events = [event async for event in client.get_workflow_handle("by-key").fetch_history_events()]
    assert events[0].principal.name == "api-key#workers"
    assert events[0].principal.type == "api-key"
    # What SDKs show of workers stays as it is.
    started = [of.workflow_task_started_event_attributes for of in events]
    assert {of.identity for of in started if of.identity} == {"claimed-worker"}
    made = [entry for entry in keys.entries(keys.admin_key) if "note" in entry]
    made = [(of["note"]["what"], of["note"]["detail"], of["cause"]["principal"]) for of in made]
    created = [of for of in made if of[0] == "keys/created"]
    assert [who for _, _, who in created] == ["steadfast", "api-key#admin"]
    assert '"workers"' in created[1][1] and '["staging"]' in created[1][1]


async def test_a_key_that_is_revoked_is_refused_also_in_the_middle_of_a_poll(keys: Secured) -> None:
    key = keys.new_key("workers")
    client = await connect(keys, key)
    poll = PollActivityTaskQueueRequest(namespace="default", task_queue=TaskQueue(name="empty"))
    polling = asyncio.create_task(client.workflow_service.poll_activity_task_queue(poll, retry=False))
    await asyncio.sleep(0.5)
    assert not polling.done()
    key_id = key.split("_")[1]
    done = keys.command("keys", "revoke", key_id, key=keys.admin_key)
    assert done.returncode == 0 and "REVOKED" in done.stdout, done
    with pytest.raises(RPCError) as error:
        await asyncio.wait_for(polling, 5)
    assert error.value.status == RPCStatusCode.UNAUTHENTICATED
    assert "revoked" in await refused(keys, key)
    assert keys.get("/api/v1/status", key)[0] == 401
    keys.stop()
    keys.start()
    assert "revoked" in await refused(keys, key)
    listed = keys.command("keys", "list", key=keys.admin_key).stdout
    assert f"{key_id} service \"workers\"" in listed and "REVOKED" in listed
    assert key not in listed


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_who_follows_a_log_is_cut_off_with_the_key(keys: Secured, how: str) -> None:
    key = keys.new_key("siem", "--expires", "1d" if how == "revoked" else "5s")
    await keys_in_log(keys)
    command = [binary(), "evidence", "ocsf", "--follow", "--address", f"https://127.0.0.1:{keys.http_port}"]
    command += ["--tls-ca", str(keys.authority.pair.cert)]
    env = {"STEADFAST_API_KEY": key}
    following = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    try:
        assert following.stdout and following.stdout.readline()
        if how == "revoked":
            done = keys.command("keys", "revoke", key.split("_")[1], key=keys.admin_key)
            assert done.returncode == 0, done
        _, errors = await asyncio.to_thread(following.communicate, timeout=15)
        assert following.returncode == 1, errors
    finally:
        following.kill()
        following.wait()


async def test_a_key_can_revoke_itself(keys: Secured) -> None:
    key = keys.new_key("ada", "--group", "admin")
    done = keys.command("keys", "revoke", key.split("_")[1], key=key)
    assert done.returncode == 0 and "REVOKED" in done.stdout, done
    assert keys.get("/api/v1/status", key)[0] == 401


async def keys_in_log(keys: Secured) -> None:
    """Waits until something is signed."""
    await causes(keys, keys.admin_key, {"CreateKey"})


async def test_keys_end_and_are_made_by_administrators(keys: Secured) -> None:
    short = keys.new_key("short", "--expires", "1s", "--kind", "user")
    assert keys.get("/api/v1/status", short)[0] == 200
    await asyncio.sleep(1.2)
    assert "expired" in await refused(keys, short)
    other = keys.new_key("other", "--group", "developers")
    for arguments in (["create", "--name", "mine"], ["revoke", other.split("_")[1]]):
        done = keys.command("keys", *arguments, key=other)
        assert done.returncode == 1 and "403" in done.stderr, done
    done = keys.command("keys", "create", "--name", "", key=keys.admin_key)
    assert done.returncode == 1 and "400" in done.stderr, done
    done = keys.command("keys", "revoke", "0000000000000000", key=keys.admin_key)
    assert done.returncode == 1 and "404" in done.stderr, done


async def test_the_first_key_is_a_file_of_its_own(keys: Secured) -> None:
    path = keys.folder / "steadfast.db.admin-key"
    first = keys.admin_key
    assert path.stat().st_mode & 0o777 == 0o600
    keys.stop()
    path.unlink()
    keys.start()
    assert not path.exists()
    assert keys.get("/api/v1/status", first)[0] == 200
    command = [binary(), "keys", "bootstrap", "--config", str(keys.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    second = keys.admin_key
    assert second not in done.stdout + done.stderr
    assert keys.get("/api/v1/status", second)[0] == 401
    keys.stop()
    keys.start()
    done = keys.command("keys", "revoke", first.split("_")[1], key=second)
    assert done.returncode == 0, done
    assert keys.get("/api/v1/status", first)[0] == 401
    keys.stop()
    path.chmod(0o640)
    with pytest.raises(AssertionError, match="chmod 600"):
        keys.start()
    keys.process = None


async def test_a_token_is_who_calls(tokens: Secured, issuer: Issuer) -> None:
    token = issuer.token("alice", groups=["finance"])
    await work(await connect(tokens, token), "by-token")
    found = await causes(tokens, token, CALLS)
    for call in CALLS:
        assert (call, f"{issuer.url}#alice", "oidc") in found
    # Verified once, not at each call.
    assert issuer.fetches < 5
    done = tokens.command("evidence", "check", key=token)
    assert done.returncode == 0, done.stderr
    bundle = tokens.folder / "bundle.zip"
    done = tokens.command("evidence", "export", "-w", "by-token", "-o", str(bundle), key=token)
    assert done.returncode == 0 and bundle.exists(), done.stderr
    done = tokens.command("evidence", "erase", "-w", "by-token", "--yes", "--identity", "mallory", key=token)
    assert done.returncode == 0, done.stderr
    found = await causes(tokens, token, {"EraseEvidence"})
    assert ("EraseEvidence", f"{issuer.url}#alice", "oidc") in found
    done = tokens.command("status", key=token)
    assert done.returncode == 0, done
    assert tokens.command("status").returncode == 1


async def test_other_tokens_are_refused(tokens: Secured, issuer: Issuer) -> None:
    now = int(time.time())
    table = [
        ({"aud": "another"}, "audience"),
        ({"exp": now - 100}, "expired"),
        ({"nbf": now + 100}, "not valid yet"),
        ({"iss": "https://evil.example"}, "not known here"),
    ]
    for claims, expected in table:
        assert expected in await refused(tokens, issuer.token(**claims))
    header, body, signature = issuer.token().split(".")
    other = issuer.token("mallory").split(".")[1]
    assert "signature" in await refused(tokens, f"{header}.{other}.{signature}")
    assert "JWT" in await refused(tokens, f"eyJhbGciOiJub25lIn0.{body}.")


async def test_an_issuer_changes_its_keys(tokens: Secured, issuer: Issuer) -> None:
    before = issuer.token()
    assert tokens.get("/api/v1/status", before)[0] == 200
    issuer.rotate("second", curve=True)
    await asyncio.sleep(1.1)
    assert tokens.get("/api/v1/status", issuer.token())[0] == 200
    assert tokens.get("/api/v1/status", before)[0] == 401
    fetches = issuer.fetches
    kid, key = next(iter(issuer.keys.items()))
    for invented in range(50):
        issuer.keys = {f"invented-{invented}": key}
        token = issuer.token()
        issuer.keys = {kid: key}
        assert tokens.get("/api/v1/status", token)[0] == 401
    assert issuer.fetches <= fetches + 5


async def test_a_certificate_is_who_calls(certificates: Secured) -> None:
    worker = certificates.authority.issue("worker", uri="spiffe://agents.example/worker")
    person = certificates.authority.issue("person", unit="finance")
    await work(await connect(certificates, pair=worker), "by-certificate")
    client = await connect(certificates, pair=person)
    await client.get_workflow_handle("by-certificate").describe()
    client = await connect(certificates, pair=person)
    await client.start_workflow(Doubling.run, 1, id="by-person", task_queue="nobody")
    events = [event async for event in client.get_workflow_handle("by-person").fetch_history_events()]
    assert (events[0].principal.type, events[0].principal.name) == ("mtls", "x509#person")
    events = [event async for event in client.get_workflow_handle("by-certificate").fetch_history_events()]
    assert {event.principal.name for event in events if event.principal.name} == {
        "spiffe://agents.example/worker"
    }
    assert certificates.get("/api/v1/status", pair=worker)[0] == 200
    assert certificates.get("/api/v1/status")[0] == 401
    assert "client certificate" in await refused(certificates)
    # A credential that is shown has to be valid, whatever the connection is.
    assert certificates.get("/api/v1/status", "nonsense", worker)[0] == 401
    assert "does not accept API keys" in await refused(certificates, "sfk_x_y", worker)


async def test_a_certificate_of_somebody_else_is_refused(certificates: Secured, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    other = Authority(tmp_path / "others").issue("worker", uri="spiffe://agents.example/worker")
    with pytest.raises(OSError):
        certificates.get("/api/v1/status", pair=other)
    with pytest.raises(RuntimeError):
        await connect(certificates, pair=other)


async def test_a_connection_ends_with_its_certificate(certificates: Secured) -> None:
    short = certificates.authority.issue("short", seconds=4)
    client = await connect(certificates, pair=short)
    await client.workflow_service.get_system_info(GetSystemInfoRequest())
    await asyncio.sleep(5)
    with pytest.raises(RPCError) as error:
        await client.workflow_service.get_system_info(GetSystemInfoRequest(), retry=False)
    assert error.value.status == RPCStatusCode.UNAUTHENTICATED
    assert "expired" in error.value.message


async def test_certificates_are_of_one_trust_domain(tmp_path: Path, request) -> None:
    auth = "[auth.mtls]\ntrust_domain = 'agents.example'\n[auth.mtls.groups]\n'spiffe://agents.example/a' = ['x']\n"
    tls = f"client_ca = '{tmp_path}/authority.pem'\nrequire_client_cert = true\n"
    server = Secured(tmp_path, auth, tls)
    own = server.authority.issue("own", uri="spiffe://agents.example/a")
    server.get = lambda path, key=None, pair=own: Secured.get(server, path, key, pair)  # type: ignore
    server.start()
    try:
        assert server.get("/api/v1/status")[0] == 200
        for name, uri in [("other", "spiffe://other.example/a"), ("none", None), ("odd", "spiffe:///a")]:
            pair = server.authority.issue(name, uri=uri)
            assert server.get("/api/v1/status", pair=pair)[0] == 401, name
            await refused(server, pair=pair)
        with pytest.raises(OSError):
            Secured.get(server, "/healthz")
    finally:
        server.stop()


async def test_a_new_certificate_needs_no_restart(keys: Secured) -> None:
    before = keys.pair.cert.read_bytes()
    keys.pair.cert.write_text("nonsense")
    await asyncio.sleep(11)
    # What cannot be read leaves the old one.
    assert keys.get("/healthz")[0] == 200
    new = keys.authority.issue("new")
    os.replace(new.key, keys.pair.key)
    os.replace(new.cert, keys.pair.cert)
    assert keys.pair.cert.read_bytes() != before
    import ssl

    deadline = time.monotonic() + 30
    while True:
        shown = ssl.get_server_certificate(("127.0.0.1", keys.http_port))
        if shown.strip() == keys.pair.cert.read_text().strip():
            break
        assert time.monotonic() < deadline
        await asyncio.sleep(0.5)
    await connect(keys, keys.admin_key)


async def test_no_credential_is_left_anywhere(tokens: Secured, issuer: Issuer) -> None:
    tokens.stop()
    tokens.config.write_text(tokens.config.read_text().replace("'debug'", "'trace'"))
    tokens.start()
    key, token = tokens.new_key("workers"), issuer.token("alice")
    await work(await connect(tokens, key), "secret-1")
    await work(await connect(tokens, token), "secret-2")
    broken = token[:-4] + "AAAA"
    await refused(tokens, broken)
    await refused(tokens, key[:-4] + "AAAA")
    tokens.get("/api/v1/status", token)
    bundle = tokens.folder / "bundle.zip"
    done = tokens.command("evidence", "export", "--from", "0", "-o", str(bundle), key=token)
    assert done.returncode == 0, done.stderr
    unpacked = tokens.folder / "unpacked"
    shutil.unpack_archive(bundle, unpacked)
    admin = tokens.admin_key
    tokens.stop()
    secrets = {
        "key": key.split("_", 2)[2],
        "admin": admin.split("_", 2)[2],
        "token": token.split(".")[2],
        "claims": token.split(".")[1],
    }
    files = [path for path in tokens.folder.rglob("*") if path.is_file()]
    assert len(files) > 10 and any(path.name == "steadfast.db" for path in files)
    for path in files:
        content = path.read_bytes()
        for name, secret in secrets.items():
            is_its_place = name == "admin" and path.name == "steadfast.db.admin-key"
            assert is_its_place == (secret.encode() in content), (path, name)


async def test_the_log_can_be_public(tmp_path: Path, request) -> None:
    for server in secured(tmp_path, request, "[auth]\napi_keys = true\npublic_log = true\n"):
        deadline = time.monotonic() + 10
        while server.get("/log/default/checkpoint")[0] != 200:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert server.get("/log/default/key")[0] == 200
        assert server.get("/api/v1/namespaces/default/evidence/ocsf")[0] == 401
        assert server.get("/log/../api/v1/status")[0] in (401, 404)
        assert server.get("/log/%2e%2e/api/v1/status")[0] in (401, 404)


@pytest.mark.skipif(not shutil.which("temporal"), reason="no temporal command")
async def test_the_temporal_command(keys: Secured) -> None:
    key = keys.new_key("person", "--kind", "user")

    def temporal(*arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}
        command = ["temporal", *arguments, "--address", keys.address, "--disable-config-file"]
        command += ["--tls", "--tls-ca-path", str(keys.authority.pair.cert)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean)

    done = temporal("operator", "namespace", "list", "--api-key", key, "--output", "json")
    assert done.returncode == 0, done.stderr
    names = [of["namespaceInfo"]["name"] for of in json.loads(done.stdout)]
    assert "default" in names
    done = temporal("operator", "namespace", "list")
    assert done.returncode != 0 and "unauthenticated" in done.stderr, done
    start = ["workflow", "start", "--type", "T", "--task-queue", "q", "--workflow-id", "by-command"]
    assert temporal(*start, "--api-key", key).returncode == 0
    found = await causes(keys, key, {"StartWorkflowExecution"})
    assert ("StartWorkflowExecution", "api-key#person", "api-key") in found


def test_a_server_that_others_reach_needs_both(tmp_path: Path) -> None:
    config = tmp_path / "steadfast.toml"
    base = f"grpc = '0.0.0.0:0'\n[store]\npath = '{tmp_path}/steadfast.db'\n"
    for more, expected in [
        ("", "nobody is authenticated"),
        ("[auth]\napi_keys = true\n", "no TLS"),
        ("[tls]\ncert = 'c'\nkey = 'k'\n", "nobody is authenticated"),
    ]:
        config.write_text(base + more)
        command = [binary(), "serve", "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 1 and expected in done.stderr, done
