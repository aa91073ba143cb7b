"""What is measured on, and whether anything else is running there."""

import os
import platform
import time

QUIET_CORES = 0.2


def description():
    model = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    cores = len(os.sched_getaffinity(0))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{model}, {cores} cores, {round(pages / 2**30)} GiB, {platform.system()}"


def busy_cores(seconds=1.0):
    """How many processors others keep busy, while nothing of ours runs."""
    before = _jiffies()
    time.sleep(seconds)
    after = _jiffies()
    return (after - before) / os.sysconf("SC_CLK_TCK") / seconds


def wait_until_quiet(seconds):
    """Waits for others to end, but no longer than this; how many processors they keep busy then."""
    deadline = time.monotonic() + seconds
    while True:
        busy = busy_cores()
        if busy <= QUIET_CORES or time.monotonic() >= deadline:
            return busy


def _jiffies():
    with open("/proc/stat", encoding="utf-8") as lines:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, lines.readline().split()[1:9])
    return user + nice + system + irq + softirq + steal


def processes_of(root):
    """A process and all its descendants."""
    children = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended since it was listed.
        children.setdefault(parent, []).append(int(name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found
