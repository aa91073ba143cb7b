"""What Steadfast wants to reach, beside what was measured."""

MANY, ONE = 64, 1


def judged(results):
    """Yields (goal, measured, reached). `results[in_flight][key]` are medians."""
    many, one = results.get(MANY, {}), results.get(ONE, {})
    faster = [("temporal-file", 40), ("temporal-memory", 30), ("restate", 1.5)]
    for key, factor in faster:
        if "ours" in many and key in many:
            ratio = many["ours"]["workflows_per_second"] / many[key]["workflows_per_second"]
            yield f"{MANY} in flight: at least {factor}× {key}", f"{ratio:.1f}×", ratio >= factor
    if "ours" in many and "no-evidence" in many:
        ratio = many["ours"]["workflows_per_second"] / many["no-evidence"]["workflows_per_second"]
        yield f"{MANY} in flight: evidence costs at most 10 % of throughput", f"{1 - ratio:.1%}", ratio >= 0.9
    if "ours" in many and "policies" in many:
        ratio = many["policies"]["workflows_per_second"] / many["ours"]["workflows_per_second"]
        yield f"{MANY} in flight: policies cost at most 10 % of throughput", f"{1 - ratio:.1%}", ratio >= 0.9
    if "ours" in one and "temporal-file" in one:
        ratio = one["temporal-file"]["p50"] / one["ours"]["p50"]
        yield f"{ONE} in flight: p50 at most 1/20 of temporal-file's", f"1/{ratio:.1f}", ratio >= 20
    if "ours" in one and "restate" in one:
        ours, theirs = one["ours"]["p50"], one["restate"]["p50"]
        yield f"{ONE} in flight: p50 below restate's", f"{ours:.2f} ms to {theirs:.2f} ms", ours < theirs
    if "ours" in many and "floor" in many:
        ratio = many["ours"]["server_cpu_ms"] / many["floor"]["server_cpu_ms"]
        yield f"{MANY} in flight: server CPU at most 3× the floor's", f"{ratio:.2f}×", ratio <= 3
