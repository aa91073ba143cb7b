#!/usr/bin/env python3
"""Holds the direction of dependencies between the crates, and the purity of the engine, the ledger and the policy.

cli -> server -> runtime -> store, engine, ledger. Nothing points up, and the pure crates have no runtime, no
SQL, no transport.
"""

import json
import os
import subprocess
import sys

ALLOWED = {
    "steadfast-api": set(),
    "steadfast-engine": set(),
    "steadfast-inventory": set(),
    "steadfast-ledger": set(),
    "steadfast-policy": set(),
    "steadfast-prove": {"steadfast-api"},
    "steadfast-store": set(),
    "steadfast-runtime": {"steadfast-engine", "steadfast-inventory", "steadfast-ledger", "steadfast-store"},
    "steadfast-server": {
        "steadfast-api",
        "steadfast-engine",
        "steadfast-inventory",
        "steadfast-ledger",
        "steadfast-policy",
        "steadfast-runtime",
        "steadfast-store",
    },
    "steadfast-cli": {"steadfast-inventory", "steadfast-ledger", "steadfast-policy", "steadfast-prove", "steadfast-server"},
    "steadfast-bench": {"steadfast-api"},
}
PURE = {"steadfast-engine", "steadfast-inventory", "steadfast-ledger", "steadfast-policy"}
IMPURE = {"tokio", "rusqlite", "sqlx", "tokio-postgres", "hyper", "axum", "rand", "uuid", "getrandom"}


def main() -> int:
    cargo = os.environ.get("CARGO", "cargo")
    output = subprocess.run(
        [cargo, "metadata", "--format-version", "1", "--no-deps"], check=True, capture_output=True
    ).stdout
    problems = []
    for package in json.loads(output)["packages"]:
        name = package["name"]
        if name not in ALLOWED:
            problems.append(f"{name} has no row in {__file__}")
            continue
        direct = {d["name"] for d in package["dependencies"] if d["kind"] is None}
        for upward in sorted(d for d in direct if d.startswith("steadfast-") and d not in ALLOWED[name]):
            problems.append(f"{name} must not depend on {upward}")
        if name in PURE:
            problems += [f"{name} is pure, but depends on {d}" for d in sorted(direct & IMPURE)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
