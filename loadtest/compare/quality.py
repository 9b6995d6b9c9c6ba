"""What a decision is worth: tokens found cached and how even the load is, by the engines' counters.

Every arm gets pods of its own with empty caches. What is counted is what the engines count, because
not every router says which pod answered.
"""

import json
import subprocess
from dataclasses import dataclass

import figures
from arms import pods
from catalogue import ROUND_ROBIN, Entry, Fleet
from record import Folder

MODEL = "meta-llama/Llama-3.2-3B-Instruct"
PODS = 3
# 12 documents of 2,048 tokens in blocks of 16, and 1 for what is in flight.
BLOCKS = 13 * 2048 // 16


@dataclass(frozen=True)
class Workload:
    """One kind of traffic, as options of `loadtest documents`."""

    name: str
    options: tuple[str, ...]
    goal_hits: str
    goal_imbalance: float


BEST = "the best peer's"
WORKLOADS = [
    Workload("30 documents", ("--documents", "30"), BEST, 1.10),
    Workload("60 documents", ("--documents", "60"), BEST, 1.10),
    Workload("60, zipf 1.1", ("--documents", "60", "--zipf", "1.1"), BEST, 1.15),
    # New questions of 100 tokens behind a shared system prompt of 600, each asked on once: .90 where
    # all go to one pod, of which three pods lose .013 by computing the system prompt twice more.
    Workload("paced", ("--documents", "60", "--sessions", "1", "--document-tokens", "100",
                       "--shared-tokens", "600", "--concurrency", "1"), ".88", 1.10),
]
QUICK_WORKLOADS = [Workload("30 documents", ("--documents", "30", "--sessions", "3"), BEST, 1.10)]


def run(options, entries: list[Entry], folder: Folder) -> None:
    # Arms without a brain choose alike: one stands for all. Directly there is one pod only.
    chosen = [entry for entry in entries
              if entry.name == "envoy" or entry.name not in (*ROUND_ROBIN, "direct")]
    for turn in range(options.quality_rounds):
        for workload in options.workloads:
            for entry in chosen[turn % len(chosen):] + chosen[:turn % len(chosen)]:
                one_arm(options, entry, workload, folder, turn)


def one_arm(options, entry: Entry, workload: Workload, folder: Folder, turn: int) -> None:
    key = {"kind": "quality", "arm": entry.name, "round": turn, "workload": workload.name}
    scratch = folder.of_arm("quality", entry.name)
    try:
        with pods.Simulated(options.loadtest, scratch, PODS, BLOCKS) as fleet:
            known = Fleet(fleet.addresses, MODEL, options.tokenizer, fleet.kv_port)
            with entry.start(known, scratch) as arm:
                found = play(options, arm, fleet, workload, scratch, turn)
    except (RuntimeError, OSError) as error:
        folder.add({**key, "not_run": str(error)[:1500]})
        print(f"# {turn} {workload.name} {entry.name}: not run: {error}", flush=True)
        return
    requests = found.pop("records")
    folder.add({**key, **found})
    with (folder.path / "requests.jsonl").open("a") as out:
        out.writelines(json.dumps({**key, **request}) + "\n" for request in requests)
    print(f"# {turn} {workload.name} {entry.name}: {found['hit_rate']:.3f} "
          f"{found['imbalance']:.2f}, TTFT p50 {found['ttft_p50_ms']:.0f} ms, p99 "
          f"{found['ttft_p99_ms']:.0f} ms, {found['errors']} errors", flush=True)


def play(options, arm, fleet, workload: Workload, scratch, turn: int) -> dict:
    log, before, cpu_before = scratch / "requests.jsonl", fleet.pages(), arm.cpu_s()
    done = subprocess.run(
        [options.loadtest, "documents", "--target", f"{arm.name}=http://{arm.address}",
         "--model-id", MODEL, "--seed", str(turn + 1), "--pods", str(PODS),
         "--records", log, *workload.options], capture_output=True, text=True)
    if not log.exists():
        raise RuntimeError(f"the job was not run: {done.stderr.strip()[-300:]}")
    requests = [json.loads(line) for line in log.read_text().splitlines()]
    ttft = [request["ttft_ms"] for request in requests
            if request["ttft_ms"] is not None and not request["failure"]]
    return {
        **figures.pods(before, fleet.pages()),
        "ttft_p50_ms": figures.percentile(ttft, 0.5) or 0,
        "ttft_p90_ms": figures.percentile(ttft, 0.9) or 0,
        "ttft_p99_ms": figures.percentile(ttft, 0.99) or 0,
        "answered": len(ttft),
        "errors": sum(1 for request in requests if request["failure"]),
        "first_error": next((r["failure"] for r in requests if r["failure"]), None),
        "cpu_s": arm.cpu_s() - cpu_before,
        "records": requests,
    }
