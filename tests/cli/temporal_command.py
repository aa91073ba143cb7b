"""The `temporal` command as the tests call it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any


class Temporal:
    """The command, with our server's address."""

    def __init__(self, address: str):
        self.address = address
        command = shutil.which("temporal")
        assert command, "the temporal command is not on the PATH"
        self.command = command

    def run(self, *arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        # Nothing that a developer has configured may redirect a test.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}
        command = [self.command, *arguments, "--address", self.address, "--disable-config-file"]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=clean)

    def text(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.text(*arguments, "--output", "json"))

    def refused(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode != 0, done
        return done.stderr
