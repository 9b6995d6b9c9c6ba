#!/usr/bin/env python3
"""Hearth beside plain Envoy over the same cheap upstreams, in the same minutes.

Prints one line a bar, `BAR name measured <= limit ok|short`; lines with # are for people.
CPU is the proxy process's user plus system time per request, from /proc, so that what the client
and the upstreams cost on the same two cores does not count; rates and latencies are indicative.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import survive
from arms import envoy, hearth, pods
from arms.arm import Arm

ROUNDS = 3
HELD = 1000


@dataclass(frozen=True)
class Cell:
    """One kind of load, and the most CPU that Hearth may use for it, in Envoys."""

    name: str
    limit: float
    requests: int
    arguments: tuple[str, ...]
    connections: int = 16


# Requests: two to four seconds of a proxy's time, so that a tick of 10 ms is below one percent.
CELLS = [
    Cell("cpu_1kb_c16", 1.0, 60_000, ("--body-kib", "1")),
    Cell("cpu_1kb_c1", 0.8, 20_000, ("--body-kib", "1"), 1),
    Cell("cpu_32kb_c16", 1.1, 40_000, ("--body-kib", "32")),
    Cell("cpu_220kb_c16", 1.4, 15_000, ("--body-kib", "220")),
    Cell("cpu_450kb_c16", 1.5, 8_000, ("--body-kib", "450")),
    Cell("cpu_sse_unpaced_c32", 1.5, 8_000, ("--stream",), 32),
    Cell("cpu_sse_2ms_c32", 1.15, 640, ("--stream", "--pace-ms", "2"), 32),
]
# name, most KB per connection, how it is held open
MEMORY = [
    ("rss_idle_connection_kb", 60, ()),
    ("rss_open_stream_kb", 200, ("--stream", "--pace-ms", "1000")),
]


class Bars:
    """The lines, and how many bars were missed."""

    def __init__(self):
        self.short = 0

    def bar(self, name: str, measured: float, limit: float) -> None:
        ok = measured <= limit
        self.short += not ok
        print(f"BAR {name} {measured:.2f} <= {limit:.2f} {'ok' if ok else 'short'}", flush=True)


def load(options, arm: Arm, cell: Cell, requests: int) -> tuple[float, dict]:
    """(CPU microseconds of the proxy per request, what the client saw)."""
    before = arm.cpu_s()
    done = subprocess.run(
        [options.loadtest, "saturate", "--target", arm.address,
         "--connections", str(cell.connections), "--requests", str(requests), *cell.arguments],
        stdout=subprocess.PIPE, text=True, check=True)
    seen = json.loads(done.stdout)
    if seen["errors"]:
        raise RuntimeError(f"{arm.name} {cell.name}: {seen['errors']} requests failed")
    return (arm.cpu_s() - before) / seen["requests"] * 1e6, seen


def measure(options, cell: Cell, proxies: list[Arm], bars: Bars) -> None:
    for arm in proxies:
        load(options, arm, cell, max(cell.requests // 10, cell.connections))
    cost = {arm.name: [] for arm in proxies}
    for turn in range(ROUNDS):
        for arm in proxies if turn % 2 == 0 else reversed(proxies):
            cpu_us, seen = load(options, arm, cell, cell.requests)
            cost[arm.name].append(cpu_us)
            print(f"# {cell.name} {arm.name}: {cpu_us:.0f} us CPU, "
                  f"{seen['requests'] / seen['elapsed_s']:.0f} requests/s, "
                  f"p50 {seen['p50_us']} us, p99 {seen['p99_us']} us, "
                  f"{seen['frames'] / seen['requests']:.0f} reads a body", flush=True)
    ratios = [ours / theirs for ours, theirs in zip(cost["hearth"], cost["envoy"], strict=True)]
    bars.bar(cell.name, statistics.median(ratios), cell.limit)


def held(options, arm: Arm, arguments: tuple[str, ...]) -> float:
    """KB of resident memory that each of HELD open connections adds to a warmed-up proxy."""
    load(options, arm, Cell("warm-up", 0, 0, ()), 4000)
    before = arm.rss_kb()
    client = subprocess.Popen(
        [options.loadtest, "saturate", "--target", arm.address, "--hold",
         "--connections", str(HELD), *arguments], stdout=subprocess.PIPE, text=True)
    with client:
        line = client.stdout.readline()
        time.sleep(5)  # connections to pods are kept for 3 s
        added = arm.rss_kb() - before
        client.terminate()
    if line != f"held {HELD}\n":
        raise RuntimeError(f"{arm.name}: the connections were not held")
    return added / HELD


def wanted(name: str, words: list[str]) -> bool:
    return not words or any(word in name for word in words)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--envoy", "--hearth", "--loadtest"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("words", nargs="*", help="only bars whose names contain one of these")
    options = parser.parse_args()
    bars = Bars()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream, addresses = pods.cheap(options.loadtest, scratch)
        stack.enter_context(upstream)

        def proxies(inner: contextlib.ExitStack) -> list[Arm]:
            return [inner.enter_context(envoy.plain(options.envoy, addresses, scratch)),
                    inner.enter_context(hearth.hearth(options.hearth, addresses, scratch))]

        cells = [cell for cell in CELLS if wanted(cell.name, options.words)]
        if cells:
            with contextlib.ExitStack() as inner:
                both = proxies(inner)
                for cell in cells:
                    measure(options, cell, both, bars)
        for name, limit_kb, arguments in MEMORY:
            if not wanted(name, options.words):
                continue
            with contextlib.ExitStack() as inner:
                added = {arm.name: held(options, arm, arguments) for arm in proxies(inner)}
                print(f"# {name}: envoy {added['envoy']:.1f}")
                bars.bar(name, added["hearth"], limit_kb)
        for name, cell in survive.CELLS.items():
            if wanted(name, options.words):
                cell(options, scratch, bars)
    return 1 if bars.short else 0


if __name__ == "__main__":
    sys.exit(main())
