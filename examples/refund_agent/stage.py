"""The server and the worker as child processes that can be killed and started again."""

import asyncio
import contextlib
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

import client as example

HERE = Path(__file__).resolve().parent


class StageError(Exception):
    """The demo itself cannot go on, for example because the server does not start."""


@dataclass
class Kill:
    """One SIGKILL, or two at the same moment."""

    at: float
    victims: list[str]
    during: str
    history: list[bytes]
    """The history's events as the server reported them just before."""
    back: dict[str, float] = field(default_factory=dict)
    """When each victim was up again."""


def _ports() -> Iterator[int]:
    """Not from the range of which the kernel takes ports for outgoing connections, as one of those could get the
    port of a killed server; and each once."""
    start = random.randrange(7_000)
    yield from (10_000 + (start + n) % 7_000 for n in range(7_000))


_PORTS = _ports()


def free_port() -> int:
    for port in _PORTS:
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise StageError("no free port is left")


class Stage:
    def __init__(self, directory: Path, server_command: str | None, port: int | None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.ledger = directory / "effects.jsonl"
        self.kills: list[Kill] = []
        self._server_command = self._command(server_command)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._client: Client | None = None

    def _command(self, server_command: str | None) -> list[str]:
        database = str(self.directory / "demo.db")
        if server_command:
            options = ["--port", str(self.port), "--db-filename", database]
            return [*shlex.split(server_command), *options]
        binary = os.environ.get("STEADFAST_BIN")
        if not binary:
            raise StageError("set STEADFAST_BIN to the steadfast binary, or run ./demo")
        ports = ["--port", str(self.port), "--http-port", str(free_port())]
        return [binary, "dev", *ports, "--db", database]

    @property
    def server_command(self) -> str:
        return shlex.join(self._server_command)

    @property
    def client(self) -> Client:
        if self._client is None:
            raise StageError("the server is not running")
        return self._client

    @property
    def running(self) -> set[str]:
        return set(self._processes)

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    async def start(self, name: str) -> None:
        if name == "server":
            self._spawn(name, self._server_command)
            await self._server_answers()
        else:
            log = self._log(name)
            already_written = log.stat().st_size if log.exists() else 0
            command = [sys.executable, str(HERE / "worker.py"), "--address", self.address]
            self._spawn(name, command)
            await self._worker_is_ready(already_written)
        now = time.time()
        for kill in self.kills:
            if name in kill.victims:
                kill.back.setdefault(name, now)

    def kill(self, victims: list[str], during: str, history: list[bytes]) -> None:
        for name in victims:
            self._require_alive(name)
        at = time.time()
        for name in victims:
            self._processes[name].send_signal(signal.SIGKILL)
        for name in victims:
            status = self._processes.pop(name).wait(timeout=10)
            if status != -signal.SIGKILL:
                raise StageError(f"the {name} ended with {status} instead of by SIGKILL")
        if "server" in victims:
            self._client = None
        self.kills.append(Kill(at=at, victims=victims, during=during, history=history))

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()

    def log_tail(self, name: str, lines: int = 15) -> str:
        try:
            text = self._log(name).read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _spawn(self, name: str, command: list[str]) -> None:
        environment = {**os.environ, "REFUND_AGENT_LEDGER": str(self.ledger)}
        with open(self._log(name), "ab") as log:
            try:
                # A session of its own: Ctrl-C reaches the demo only, which then cleans up.
                self._processes[name] = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise StageError(f"cannot start {command[0]}: {error}") from error

    def _require_alive(self, name: str) -> None:
        status = self._processes[name].poll()
        if status is not None:
            raise StageError(f"the {name} ended by itself with status {status}")

    async def _server_answers(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            self._require_alive("server")
            try:
                client = await example.connect(self.address)
                await client.workflow_service.describe_namespace(
                    DescribeNamespaceRequest(namespace="default")
                )
            except (RPCError, RuntimeError) as error:
                if time.monotonic() > deadline:
                    raise StageError(f"the server does not answer: {error}") from error
                await asyncio.sleep(0.05)
            else:
                self._client = client
                return

    async def _worker_is_ready(self, already_written: int) -> None:
        deadline = time.monotonic() + 60
        while b"worker is ready" not in self._log("worker").read_bytes()[already_written:]:
            self._require_alive("worker")
            if time.monotonic() > deadline:
                raise StageError("the worker does not start")
            await asyncio.sleep(0.02)
