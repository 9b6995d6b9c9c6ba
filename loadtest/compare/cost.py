"""What a request costs: CPU, added latency, rate and memory over cheap pods, one arm at a time."""

import json
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path

from arms import pods
from catalogue import Entry, Fleet
from record import Folder, Foreign


@dataclass(frozen=True)
class Cell:
    """One kind of load."""

    name: str
    arguments: tuple[str, ...]
    connections: int


def size(kib: int, connections: int) -> Cell:
    return Cell(f"{kib} KB, c={connections}", ("--body-kib", str(kib)), connections)


CELLS = [
    size(1, 1), size(1, 16), size(32, 1), size(32, 16), size(220, 1), size(220, 16),
    size(220, 150), size(450, 1), size(450, 16),
    Cell("SSE unpaced, c=32", ("--stream",), 32),
    Cell("SSE 2 ms, c=32", ("--stream", "--pace-ms", "2"), 32),
]
QUICK_CELLS = [size(1, 16), size(32, 16)]


def saturate(loadtest: Path, address: str, cell: Cell, seconds: float) -> dict:
    done = subprocess.run(
        [loadtest, "saturate", "--target", address, "--connections", str(cell.connections),
         "--seconds", str(seconds), *cell.arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the load was not run: {(done.stderr or done.stdout).strip()[-300:]}")
    return json.loads(done.stdout)


def sample(options, arm, upstream, cell: Cell) -> dict:
    saturate(options.loadtest, arm.address, cell, options.seconds / 4)

    def ours() -> float:
        clients = resource.getrusage(resource.RUSAGE_CHILDREN)
        return arm.cpu_s() + upstream.cpu_s() + clients.ru_utime + clients.ru_stime

    # Children count once they have ended: the arm's and the pods' own time is read while they run.
    foreign, before = Foreign(ours), arm.cpu_s()
    seen = saturate(options.loadtest, arm.address, cell, options.seconds)
    cpu_s = arm.cpu_s() - before
    answered = max(seen["requests"], 1)
    return {
        "cpu_us": cpu_s / answered * 1e6 if arm.programs else None,
        "rps": seen["requests"] / seen["elapsed_s"],
        "p50_us": seen["p50_us"], "p90_us": seen["p90_us"], "p99_us": seen["p99_us"],
        "max_us": seen["max_us"], "requests": seen["requests"], "errors": seen["errors"],
        "peak_rss_mb": arm.rss_kb(peak=True) / 1024 if arm.programs else None,
        "foreign_cores": foreign.cores(),
    }


def run(options, entries: list[Entry], folder: Folder) -> None:
    scratch = folder.of_arm("cost", "upstream")
    upstream, addresses = pods.cheap(options.loadtest, scratch)
    fleet = Fleet(addresses, "bench", options.tokenizer)
    with upstream:
        for turn in range(options.rounds):
            for entry in entries[turn % len(entries):] + entries[:turn % len(entries)]:
                one_arm(options, entry, fleet, upstream, folder, turn)


def one_arm(options, entry: Entry, fleet: Fleet, upstream, folder: Folder, turn: int) -> None:
    def record(cell: Cell | None, **found) -> None:
        name = cell.name if cell else None
        folder.add({"kind": "cost", "arm": entry.name, "round": turn, "cell": name, **found})

    if entry.needs_events:
        record(None, not_run="cheap pods tell no events and render nothing")
        return
    try:
        with entry.start(fleet, folder.of_arm("cost", entry.name)) as arm:
            for cell in options.cells:
                found = sample(options, arm, upstream, cell)
                record(cell, **found)
                cost = "" if found["cpu_us"] is None else f"{found['cpu_us']:.0f} us CPU, "
                print(f"# {turn} {cell.name} {entry.name}: {cost}{found['rps']:.0f}/s, "
                      f"p50 {found['p50_us']} us, p99 {found['p99_us']} us, "
                      f"{found['errors']} errors, others {found['foreign_cores']:.1f} cores",
                      flush=True)
    except (RuntimeError, OSError) as error:
        record(None, not_run=str(error)[:1500])
        print(f"# {turn} {entry.name}: not run: {error}", flush=True)
