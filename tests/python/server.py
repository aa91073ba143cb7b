"""Starts and kills the server under test.

`STEADFAST_BIN` names the binary (default: the newest of target/release and target/debug). Anything
that takes the flags of `temporal server start-dev` will do, so the same tests run against the real
Temporal server: `STEADFAST_BIN=$(which temporal) pytest`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from temporalio.client import Client
from temporalio.service import ConnectConfig, ServiceClient

ROOT = Path(__file__).resolve().parents[2]


def binary() -> str:
    named = os.environ.get("STEADFAST_BIN")
    if named:
        return named
    built = [ROOT / "target" / profile / "steadfast" for profile in ("release", "debug")]
    built = [path for path in built if path.exists()]
    if not built:
        raise RuntimeError("no steadfast binary: cargo build -p steadfast-cli, or set STEADFAST_BIN")
    return str(max(built, key=lambda path: path.stat().st_mtime))


def _ports() -> Iterator[int]:
    """Ports below the range of which the kernel takes those of outgoing connections: one of them could get the
    port of a killed server. Each once, so that two servers never have the same, though one is not up."""
    start = random.randrange(7_000)
    yield from (10_000 + (start + n) % 7_000 for n in range(7_000))


_PORTS = _ports()


def free_port() -> int:
    """A port for a server, also if that is killed and started again."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port is left")


class Server:
    """One server process on one SQLite file (none: in memory)."""

    def __init__(self, db: Path | None = None, *, log: Path | None = None, flags: list[str] | None = None):
        self.port = free_port()
        self.http_port = free_port()
        self.db = db
        self.log = log
        self.flags = flags or []
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def start(self) -> None:
        command = [binary(), "server", "start-dev", "--headless", "--port", str(self.port)]
        command += ["--ui-port", str(self.http_port), "--log-level", "warn", *self.flags]
        if self.db is not None:
            command += ["--db-filename", str(self.db)]
        out = open(self.log, "ab") if self.log else subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=out, stderr=out)

    async def ready(self, timeout: float = 30.0) -> None:
        """Waits until the server answers."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                client = await ServiceClient.connect(ConnectConfig(target_host=self.address))
                if await client.check_health():
                    return
            except Exception:
                pass
            if self.process and self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}: {self.tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server does not answer: {self.tail()}")
            await asyncio.sleep(0.05)

    async def client(self, **options) -> Client:
        return await Client.connect(self.address, **options)

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM, and the exit code."""
        if not self.process:
            return 0
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout)
        self.process = None
        return code

    def check_evidence(self, namespace: str = "default") -> None:
        """Replays everything that happened: state, entries and tree must agree."""
        if not self.process or Path(binary()).name != "steadfast":
            return
        address = self.http
        command = [binary(), "evidence", "check", "--address", address, "--namespace", namespace]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"evidence check: {done.stdout}{done.stderr[-2000:]}"

    def tail(self) -> str:
        if self.log and self.log.exists():
            return self.log.read_text(errors="replace")[-2000:]
        return "(no log)"
