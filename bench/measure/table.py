"""Medians, the Markdown table, and the README that it goes into."""

import statistics

METRICS = ("workflows_per_second", "p50", "p99", "server_cpu_ms")


def metrics_of(report):
    return {
        "workflows_per_second": report["workflows_per_second"],
        "p50": report["latency_ms"]["p50"],
        "p99": report["latency_ms"]["p99"],
        "server_cpu_ms": report["server_cpu_ms"],
    }


def medians(reports):
    rows = [metrics_of(report) for report in reports]
    return {metric: statistics.median(row[metric] for row in rows) for metric in METRICS}


def markdown(in_flight, names, results):
    """`results` has the medians of each server under its key, `names` what each is called."""
    ours = results.get("ours")
    lines = [
        f"| {in_flight} in flight | workflows/s | p50 ms | p99 ms | server CPU ms/workflow | Steadfast's workflows/s |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for key, result in results.items():
        cells = [
            names[key],
            _number(result["workflows_per_second"]),
            _number(result["p50"]),
            _number(result["p99"]),
            _number(result["server_cpu_ms"]),
            _ratio(ours, result),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_between(path, marker, text):
    """Replaces what is between `<!-- MARKER:begin -->` and `<!-- MARKER:end -->`."""
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    content = path.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(begin) > content.index(end):
        raise SystemExit(f"{path} needs one {begin} and after it one {end}")
    before, rest = content.split(begin)
    _old, after = rest.split(end)
    path.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")


def _ratio(ours, result):
    if ours is None:
        return "–"
    if ours is result:
        return "1×"
    return f"{_number(ours['workflows_per_second'] / max(result['workflows_per_second'], 1e-9))}×"


def _number(value):
    """Three figures that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
