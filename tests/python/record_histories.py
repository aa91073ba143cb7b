"""Records the histories that the Temporal server writes, for test_histories.py.

    temporal server start-dev --headless --port 7333 --db-filename /tmp/reference.db
    python record_histories.py --address 127.0.0.1:7333 [NAME ...]

Each scenario runs twice; one that differs between its runs is not deterministic and is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
import traceback
from pathlib import Path

import scenarios  # noqa: F401  registers them
from harness import SCENARIOS, run_scenario
from normalize import difference
from temporalio.client import Client

HISTORIES = Path(__file__).parent / "histories"


async def record(client: Client, name: str, runs: int) -> bool:
    started = time.monotonic()
    try:
        first = await run_scenario(name, client)
        again = [await run_scenario(name, client) for _ in range(runs - 1)]
    except Exception:
        traceback.print_exc()
        print(f"{name}: failed", flush=True)
        return False
    for other in again:
        found = difference(first, other)
        if found:
            print(f"{name}: not the same twice\n{found}", flush=True)
            return False
    text = json.dumps(first, indent=1, ensure_ascii=False)
    (HISTORIES / f"{name}.json").write_text(text + "\n")
    print(f"{name}: {time.monotonic() - started:.1f} s", flush=True)
    return True


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="127.0.0.1:7233")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    # Activities that fail on purpose are not news.
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)
    client = await Client.connect(options.address)
    HISTORIES.mkdir(exist_ok=True)
    results = [await record(client, name, options.runs) for name in options.names or SCENARIOS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
