"""A log that was rolled back: whoever kept a checkpoint, or only the log's key, sees it in a bundle."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from server import Server, binary
from test_bundle import export, session, steadfast, trusted_key
from test_log import FILES, copy_store

if Path(binary()).name.startswith("temporal"):
    pytest.skip("only Steadfast has evidence", allow_module_level=True)


def kept_checkpoint(bundle: Path) -> Path:
    """What an auditor keeps of a bundle."""
    path = bundle.with_suffix(".checkpoint")
    with zipfile.ZipFile(bundle) as files:
        path.write_bytes(files.read("checkpoint"))
    return path


def findings(bundle: Path, key: str, *more: str | Path) -> list[str]:
    done = steadfast("verify", bundle, "--key", key, "--json", *more)
    report = json.loads(done.stdout)
    assert done.returncode == int(not report["verified"])
    return [finding["code"] for finding in report["findings"]]


async def started(server: Server) -> None:
    server.start()
    await server.ready()


async def test_a_log_proves_that_it_only_grew(own_server: Server, tmp_path: Path) -> None:
    await started(own_server)
    await session(own_server, "order-1")
    first = kept_checkpoint(export(own_server, tmp_path / "first.zip", "-w", "order-1"))
    key = trusted_key(own_server)
    await session(own_server, "order-2")
    plain = export(own_server, tmp_path / "plain.zip", "-w", "order-2")
    assert findings(plain, key, "--checkpoint", first) == ["consistency-missing"]
    with_proof = export(own_server, tmp_path / "second.zip", "-w", "order-2", "--checkpoint", str(first))
    assert findings(with_proof, key, "--checkpoint", first) == []
    # The other way round it is older than what is known.
    second = kept_checkpoint(with_proof)
    assert findings(tmp_path / "first.zip", key, "--checkpoint", second) == ["log-rolled-back"]
    assert findings(with_proof, key, "--checkpoint", tmp_path / "first.zip") == ["earlier-unknown"]


async def test_a_rollback_of_the_store_and_the_anchor_is_seen_by_who_kept_a_checkpoint(
    own_server: Server, tmp_path: Path
) -> None:
    anchor = tmp_path / "steadfast.db.log-anchor"
    await started(own_server)
    await session(own_server, "order-1")
    export(own_server, tmp_path / "first.zip", "-w", "order-1")
    key = trusted_key(own_server)
    assert own_server.stop() == 0
    copy_store(tmp_path, tmp_path / "backup")
    old_anchor = anchor.read_bytes()
    await started(own_server)
    await session(own_server, "order-2")
    seen = kept_checkpoint(export(own_server, tmp_path / "second.zip", "-w", "order-2"))
    assert own_server.stop() == 0

    # Somebody who wants order 2 to have never been.
    for name in FILES:
        (tmp_path / name).unlink()
    copy_store(tmp_path / "backup", tmp_path)
    anchor.write_bytes(old_anchor)
    await started(own_server)
    shorter = export(own_server, tmp_path / "shorter.zip", "-w", "order-1")
    assert trusted_key(own_server) == key
    assert findings(shorter, key, "--checkpoint", seen) == ["log-rolled-back"]
    refused = steadfast(
        "export", "--address", own_server.http, "-o", tmp_path / "no.zip", "-w", "order-1", "--checkpoint", seen
    )
    assert refused.returncode == 1 and "rolled back" in refused.stderr
    assert not (tmp_path / "no.zip").exists()
    # As long as before, and of another past.
    await session(own_server, "order-3", rounds=4)
    grown = export(own_server, tmp_path / "grown.zip", "-w", "order-3", "--checkpoint", str(seen))
    assert findings(grown, key, "--checkpoint", seen) == ["log-forked"]
    assert findings(grown, key) == [], "nobody else can tell"


async def test_a_rollback_of_the_store_alone_is_seen_by_who_has_the_key(own_server: Server, tmp_path: Path) -> None:
    await started(own_server)
    await session(own_server, "order-1")
    export(own_server, tmp_path / "first.zip", "-w", "order-1")
    key = trusted_key(own_server)
    assert own_server.stop() == 0
    copy_store(tmp_path, tmp_path / "backup")
    await started(own_server)
    await session(own_server, "order-2")
    export(own_server, tmp_path / "second.zip", "-w", "order-2")
    assert own_server.stop() == 0
    copy_store(tmp_path / "backup", tmp_path)
    await started(own_server)
    bundle = export(own_server, tmp_path / "anew.zip", "-w", "order-1")
    assert "log-rolled-back" in findings(bundle, key)
    new_key = trusted_key(own_server)
    assert new_key.startswith(key.split("+")[0] + "~2+")
    assert findings(bundle, new_key) == []


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.write_text("nothing")
    arguments = [binary(), "evidence", "export", "-w", "order-1", "--checkpoint", nothing]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and str(nothing) in done.stderr
