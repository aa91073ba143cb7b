"""The servers that are compared: how each is started, made ready, put under load and ended."""

import contextlib
import dataclasses
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request

from . import install, machine

STOP_TIMEOUT_S = 30
READY_TIMEOUT_S = 90


@dataclasses.dataclass
class Setting:
    """Where servers of one comparison live. A server may use `port` and the nine above it."""

    port: int
    data: object
    floor_threads: int = 2

    def fresh(self, name):
        directory = self.data / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        return directory


class Process:
    """A child that is ended with its descendants, and whose output is kept for when it fails."""

    def __init__(self, command, log):
        self.log = log
        with open(log, "ab") as output:
            self.child = subprocess.Popen([str(word) for word in command], stdout=output, stderr=output)

    def pids(self):
        return machine.processes_of(self.child.pid)

    def check(self):
        if self.child.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.child.args[0]} ended with {self.child.returncode}:\n{tail}")

    def stop(self, kill=False):
        if self.child.poll() is None:
            (self.child.kill if kill else self.child.terminate)()
        try:
            self.child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def loadgen(address, arguments, timeout):
    return _json_of([install.bench("loadgen"), "--address", address, "--json", *arguments], timeout)


class TemporalApi:
    """Any server that speaks the Temporal API and keeps its files in one directory."""

    def __init__(self, key, name, prepare, command):
        self.key, self.name, self.prepare, self._command = key, name, prepare, command

    def command(self, setting, directory):
        return self._command(setting, directory)

    @contextlib.contextmanager
    def running(self, setting):
        directory = setting.fresh(self.key)
        process = Process(self.command(setting, directory), directory / "log")
        try:
            yield lambda *load: self._measure(setting, process, *load)
        finally:
            process.stop()
            shutil.rmtree(directory, ignore_errors=True)

    def _measure(self, setting, process, in_flight, duration, warmup, payload):
        process.check()
        load = _load(in_flight, duration, warmup, payload, process)
        load += ["--activities", "1", "--ready-timeout", READY_TIMEOUT_S]
        try:
            return loadgen(address_of(setting), load, duration + warmup + READY_TIMEOUT_S + 60)
        except Exception:
            process.check()
            raise


class Restate:
    """Restate with a Rust service, each a process; the service's costs are not the server's."""

    key, name = "restate", "Restate, one durable step per call"

    def prepare(self):
        self.server, self.service = install.restate_server(), install.restate_service()

    @contextlib.contextmanager
    def running(self, setting):
        directory = setting.fresh(self.key)
        fabric, ingress, admin, service = (setting.port + offset for offset in range(4))
        config = directory / "restate.toml"
        config.write_text(
            f"""cluster-name = "bench"
node-name = "bench"
listen-mode = "tcp"
bind-ip = "127.0.0.1"
bind-port = {fabric}
disable-telemetry = true
log-filter = "error"
[ingress]
bind-port = {ingress}
[admin]
bind-port = {admin}
"""
        )
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            address = f"127.0.0.1:{service}"
            step = Process([self.service, address], directory / "step.log")
            stack.callback(step.stop)
            command = [self.server, "--no-logo", "--config-file", config, "--base-dir", directory / "data"]
            server = Process(command, directory / "log")
            stack.callback(server.stop)
            _register(f"http://127.0.0.1:{admin}/deployments", {"uri": f"http://{address}"}, server)
            yield lambda *load: self._measure(ingress, server, *load)

    def _measure(self, ingress, server, in_flight, duration, warmup, payload):
        server.check()
        url = f"http://127.0.0.1:{ingress}/Bench/step"
        load = _load(in_flight, duration, warmup, payload, server)
        command = [install.bench("restate-load"), "--url", url, "--json", *load]
        return _json_of(command, duration + warmup + 60)


def address_of(setting):
    return f"http://127.0.0.1:{setting.port}"


def _build_ours():
    install.build(["steadfast-cli"])


def _ours(setting, directory):
    return [
        install.steadfast(), "server", "start-dev", "--headless", "--port", setting.port,
        "--db-filename", directory / "steadfast.db", "--log-level", "warn",
    ]  # fmt: skip


def _without_evidence(setting, directory):
    return [*_ours(setting, directory), "--no-evidence"]


def _with_policies(setting, directory):
    """200 policies, none of which forbids a call of the load."""
    rules = ['permit(principal is Agent, action in Action::"command", resource);']
    for number in range(199):
        rules.append(
            f'forbid(principal, action == Action::"ExecuteTool", resource == Tool::"default/tool-{number}")\n'
            'unless { context.numbers.hasTag("/0/amount") && context.numbers.getTag("/0/amount") <= 1000 };'
        )
    path = directory / "policies.cedar"
    path.write_text("\n".join(rules))
    return [*_ours(setting, directory), "--policy", path]


def _temporal_memory(setting, _directory):
    return [
        install.temporal(), "server", "start-dev", "--headless", "--port", setting.port,
        "--http-port", setting.port + 1, "--metrics-port", setting.port + 2, "--log-level", "error",
    ]  # fmt: skip


def _temporal_file(setting, directory):
    return [
        *_temporal_memory(setting, directory), "--db-filename", directory / "temporal.db",
        "--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=2",
    ]  # fmt: skip


def _floor(setting, directory):
    return [
        install.bench("floor"), "--listen", f"127.0.0.1:{setting.port}", "--db", directory / "floor.db",
        "--threads", setting.floor_threads,
    ]  # fmt: skip


ALL = {
    target.key: target
    for target in (
        TemporalApi("ours", "**Steadfast**, SQLite file", _build_ours, _ours),
        TemporalApi("policies", "Steadfast with 200 policies on tool calls", _build_ours, _with_policies),
        TemporalApi("no-evidence", "Steadfast without its log, to see what that costs", _build_ours, _without_evidence),
        TemporalApi("temporal-file", "Temporal dev server, SQLite file", install.temporal, _temporal_file),
        TemporalApi("temporal-memory", "Temporal dev server, in memory", install.temporal, _temporal_memory),
        Restate(),
        TemporalApi("floor", "floor: the same calls, one append each", lambda: None, _floor),
    )
}


def _load(in_flight, duration, warmup, payload, process):
    pids = [word for pid in process.pids() for word in ("--pid", pid)]
    return ["--in-flight", in_flight, "--duration", duration, "--warmup", warmup, "--payload", payload, *pids]


def _json_of(command, timeout):
    command = [str(word) for word in command]
    done = subprocess.run(command, timeout=timeout, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def _register(url, deployment, server):
    """Tells Restate where its service is; it takes some seconds until it listens."""
    request = urllib.request.Request(
        url, json.dumps(deployment).encode(), {"content-type": "application/json"}, method="POST"
    )
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(request, timeout=10).read()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            server.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"Restate did not accept its service: {error}") from error
            time.sleep(0.2)
