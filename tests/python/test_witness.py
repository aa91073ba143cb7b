"""A witness of another make: what the server sends it, and what becomes of its cosignatures.

Protocol: c2sp.org/tlog-witness and tlog-cosignature.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.server
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from server import Server, binary

NAME = "witness.example/one"


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: list[bytes]) -> bool:
    """RFC 9162, section 2.1.4.2."""
    if old == 0 or old == new:
        return not proof and (old == 0 or old_root == new_root)
    if old & (old - 1) == 0:
        proof = [old_root, *proof]
    first, second = old - 1, new - 1
    while first & 1:
        first, second = first >> 1, second >> 1
    one = two = proof[0]
    for hash_ in proof[1:]:
        if second == 0:
            return False
        if first & 1 or first == second:
            one, two = node(hash_, one), node(hash_, two)
            while first & 1 == 0 and first:
                first, second = first >> 1, second >> 1
        else:
            two = node(two, hash_)
        first, second = first >> 1, second >> 1
    return one == old_root and two == new_root and second == 0


class Witness:
    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        public = b"\4" + self.key.public_key().public_bytes_raw()
        self.key_id = hashlib.sha256(f"{NAME}\n".encode() + public).digest()[:4]
        self.vkey = f"{NAME}+{self.key_id.hex()}+{base64.b64encode(public).decode()}"
        self.seen: dict[str, tuple[int, bytes]] = {}
        self.steps: list[tuple[int, int]] = []
        self.refused: list[str] = []
        self.down = False
        witness = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, answer = witness.add_checkpoint(self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/prefix"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def add_checkpoint(self, path: str, body: str) -> tuple[int, bytes]:
        if self.down:
            return 503, b"down\n"
        assert path == "/prefix/add-checkpoint"
        head, note = body.split("\n\n", 1)
        old_line, *lines = head.split("\n")
        old_size = int(old_line.removeprefix("old "))
        text = note[: note.index("\n\n") + 1]
        origin, size, root = text.strip().split("\n")
        known_size, known_root = self.seen.get(origin, (0, b""))
        if old_size != known_size:
            return 409, f"{known_size}\n".encode()
        new = (int(size), base64.b64decode(root))
        if not consistent(known_size, known_root, *new, [base64.b64decode(line) for line in lines]):
            self.refused.append(body)
            return 422, b"not consistent\n"
        self.seen[origin] = new
        self.steps.append((old_size, new[0]))
        now = int(time.time())
        signature = self.key.sign(f"cosignature/v1\ntime {now}\n{text}".encode())
        line = base64.b64encode(self.key_id + now.to_bytes(8, "big") + signature).decode()
        return 200, f"— {NAME} {line}\n".encode()


@pytest.fixture
def witness() -> Iterator[Witness]:
    witness = Witness()
    yield witness
    witness.http.shutdown()


def serve(server: Server, folder: Path, witness: Witness) -> None:
    """Starts the server from a configuration file, which is where witnesses are named."""
    config = folder / "steadfast.toml"
    config.write_text(
        f"""
        grpc = "127.0.0.1:{server.port}"
        http = "127.0.0.1:{server.http_port}"
        store.path = "{server.db}"
        evidence.origin = "logs.example.com/agents"
        [[evidence.witnesses]]
        url = "{witness.url}"
        key = "{witness.vkey}"
        """
    )
    out = open(server.log, "ab")
    server.process = subprocess.Popen([binary(), "serve", "--config", str(config)], stdout=out, stderr=out)


def get(server: Server, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/{path}", timeout=10) as answer:
        return answer.read().decode()


async def cosigned(server: Server, least: int, timeout: float = 15) -> str:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            note = get(server, "log/default/cosigned")
            if int(note.split("\n")[1]) >= least:
                return note
        except urllib.error.HTTPError as error:
            assert error.code == 404
        await asyncio.sleep(0.1)
    raise AssertionError(f"no cosigned checkpoint of {least} entries: {server.tail()}")


@pytest.mark.timeout(90)
async def test_checkpoints_are_cosigned(own_server: Server, tmp_path: Path, witness: Witness) -> None:
    if Path(binary()).name != "steadfast":
        pytest.skip("only Steadfast has a log")
    serve(own_server, tmp_path, witness)
    await own_server.ready()
    client = await own_server.client()
    for number in range(20):
        await client.start_workflow("Nothing", id=f"first-{number}", task_queue="nobody")
    # One entry for each start, and one for the namespace.
    note = await cosigned(own_server, 21)
    assert note.startswith("logs.example.com/agents/default\n21\n")
    signature = next(line for line in note.split("\n") if line.startswith(f"— {NAME} "))
    blob = base64.b64decode(signature.split(" ")[2])
    assert blob[:4] == witness.key_id
    at = int.from_bytes(blob[4:12], "big")
    text = note[: note.index("\n\n") + 1]
    witness.key.public_key().verify(blob[12:], f"cosignature/v1\ntime {at}\n{text}".encode())

    # A witness that is down holds nobody up, and is asked again.
    witness.down = True
    for number in range(20):
        await client.start_workflow("Nothing", id=f"second-{number}", task_queue="nobody")
    deadline = time.monotonic() + 10
    while not (error := json.loads(get(own_server, "api/v1/status"))["witnesses"][0]["error"]):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert "503" in error
    assert f'steadfast_witness_up{{witness="{NAME}"}} 0' in get(own_server, "metrics")
    shown = subprocess.run(
        [binary(), "status", "--address", own_server.http], capture_output=True, text=True, timeout=30
    )
    assert shown.returncode == 1 and f"witness {NAME}: FAILS: " in shown.stdout
    assert int(get(own_server, "log/default/checkpoint").split("\n")[1]) == 41
    witness.down = False
    await cosigned(own_server, 41)

    # After a crash the server does not know how far the witness is: it asks.
    own_server.kill()
    serve(own_server, tmp_path, witness)
    await own_server.ready()
    client = await own_server.client()
    await client.start_workflow("Nothing", id="third", task_queue="nobody")
    await cosigned(own_server, 42)
    ends = [0, *(new for _, new in witness.steps)]
    assert [old for old, _ in witness.steps] == ends[:-1] and ends[-1] == 42
    assert not witness.refused
    status = json.loads(get(own_server, "api/v1/status"))
    assert status["witnesses"][0]["cosigned"] == {"logs.example.com/agents/default": 42}
    metrics = get(own_server, "metrics").splitlines()
    assert f'steadfast_witness_up{{witness="{NAME}"}} 1' in metrics
    assert 'steadfast_log_cosigned_size{namespace="default"} 42' in metrics
    shown = subprocess.run(
        [binary(), "status", "--address", own_server.http], capture_output=True, text=True, timeout=30
    )
    assert shown.returncode == 0, shown.stderr
    assert "log logs.example.com/agents/default: 42 entries signed, 42 of them cosigned" in shown.stdout
