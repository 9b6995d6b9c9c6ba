"""The bars of splitting and surviving, on simulated pods: what Hearth adds to the engines' own times."""

import json
import statistics
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from arms.arm import Arm, Program
from arms.hearth import hearth

MODEL = "tiny"
PROMPT_TOKENS = 512
# Of the load that is compared: closed, so that what is slower answers fewer.
STREAMS, SECONDS = 8, 30


@dataclass
class Fleet:
    """Simulated pods in one process."""

    program: Program
    urls: list[str]

    @property
    def addresses(self) -> list[str]:
        return [url.removeprefix("http://") for url in self.urls]

    def fault(self, pod: int, fault: dict | None) -> None:
        data = json.dumps(fault).encode() if fault else None
        request = urllib.request.Request(
            f"{self.urls[pod]}/sim/fault", data, {"content-type": "application/json"},
            method="POST" if fault else "DELETE")
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except OSError:
            pass  # a pod that is gone does not answer, and is gone

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.program.stop()


def simulate(options, scratch: Path, name: str, count: int, *arguments: str) -> Fleet:
    log = scratch / f"{name}.log"
    program = Program(name, [options.loadtest, "simulate", "--pods", count, "--port", 0,
                             "--model", MODEL, *arguments], log)
    lines = program.wait(
        lambda: (said := log.read_text().split()) and len(said) >= count and said, "listening")
    return Fleet(program, lines[:count])


def bench(options, arm: Arm, scratch: Path, *arguments: str) -> dict:
    """One stage of `loadtest bench`; what failed, it counts."""
    report = scratch / "bench.json"
    report.unlink(missing_ok=True)
    subprocess.run([options.loadtest, "bench", "--gateway-url", f"http://{arm.address}",
                    "--model-id", MODEL, "--output", report, *arguments],
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return json.loads(report.read_text())["stages"][0]


def concurrent(options, arm: Arm, scratch: Path, tokens: int, seconds: int = SECONDS) -> dict:
    return bench(options, arm, scratch, "--rate-type", "concurrent", "--rate", str(STREAMS),
                 "--max-seconds", str(seconds), "--prompt-tokens", str(PROMPT_TOKENS),
                 "--output-tokens", str(tokens))


def readiness(options, scratch: Path, bars) -> None:
    """CPU per streamed chunk with migration on, in times of what it is with it off."""
    with simulate(options, scratch, "chunks", 2, "--decode-ms", "1") as fleet:
        cost = {True: [], False: []}
        for turn in range(4):
            for migrates in (True, False) if turn % 2 == 0 else (False, True):
                settings = ("--survive-migrate=" + str(migrates).lower(), "--log-access=false")
                with hearth(options.hearth, fleet.addresses, scratch, settings=settings) as arm:
                    concurrent(options, arm, scratch, 200, 1)
                    before = arm.cpu_s()
                    stage = concurrent(options, arm, scratch, 200, 6)
                    chunks = stage["output_tokens"]
                    cost[migrates].append((arm.cpu_s() - before) / chunks * 1e6)
        print(f"# survive_readiness_cpu: on {cost[True]}, off {cost[False]} us a chunk")
        ratio = statistics.median(cost[True]) / statistics.median(cost[False])
        bars.bar("survive_readiness_cpu_per_chunk", ratio, 1.10)


def bookkeeping(options, scratch: Path, bars) -> None:
    """What a split adds to the time to the first token beyond its two legs."""
    with simulate(options, scratch, "pair", 2, "--connector", "nixl") as fleet:
        config = scratch / "pair.yaml"
        roles = zip(fleet.urls, ("prefill", "decode"), strict=True)
        config.write_text(json.dumps({
            "endpoints": [{"url": url, "role": role} for url, role in roles],
            "split": {"min_uncached_tokens": 64, "stall": 1e6}}))
        settings = ("--config", str(config))
        with hearth(options.hearth, [], scratch, settings=settings) as arm:
            bench(options, arm, scratch, "--rate-type", "synchronous", "--max-seconds", "6",
                  "--prompt-tokens", "1500", "--output-tokens", "4")
            log = arm.programs[0].log
        own = []
        for line in log.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if record.get("prefill_ms") is not None and record.get("transfer_ms") is not None:
                own.append(record["ttft_ms"] - record["prefill_ms"] - record["transfer_ms"])
        if len(own) < 20:
            raise RuntimeError(f"only {len(own)} requests were split")
        print(f"# survive_pd_bookkeeping_ms: {len(own)} split, p99 "
              f"{statistics.quantiles(own, n=100)[98]:.2f} ms")
        bars.bar("survive_pd_bookkeeping_ms", statistics.median(own), 1.0)


def gap(options, scratch: Path, bars) -> None:
    """The longest silence of a stream whose pod is cut, beyond a prefill of what is not cached."""
    tail_ms = 16 / 10_000 * 1e3 + 10  # a block at the simulator's rate, and one decode step
    with simulate(options, scratch, "gap", 2) as fleet, \
            hearth(options.hearth, fleet.addresses, scratch, "round-robin") as arm:
        gaps = []
        for number in range(20):
            # Both pods hold the prompt: the next one computes only what was said since.
            for _ in range(2):
                silences(arm, number, 2)
            for pod in range(2):
                fleet.fault(pod, {"fault": "break", "after_tokens": 20, "how": "cut", "times": 1})
            gaps.append(max(silences(arm, number, 40)))
            for pod in range(2):
                fleet.fault(pod, None)
        gap_ms = statistics.median(gaps)
        print(f"# survive_gap_ms: {[round(one) for one in gaps]}")
        bars.bar("survive_gap_ms", gap_ms - tail_ms, 20.0)


def silences(arm: Arm, number: int, tokens: int) -> list[float]:
    """Milliseconds between the events of one stream, which has to be whole."""
    body = {"model": MODEL, "prompt": f"{number} " + "river bridge " * 300, "stream": True,
            "temperature": 0, "max_tokens": tokens, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://{arm.address}/v1/completions", json.dumps(body).encode(),
        {"content-type": "application/json"})
    came, last = [], b""
    with urllib.request.urlopen(request, timeout=30) as answer:
        for line in answer:
            if line.startswith(b"data: "):
                came.append(time.monotonic())
                last = line
    if last.strip() != b"data: [DONE]":
        raise RuntimeError(f"a stream was not whole: {last}")
    return [(after - before) * 1e3 for before, after in zip(came, came[1:])] or [0.0]


def ejection(options, scratch: Path, bars) -> None:
    """Requests that meet a pod which resets every connection, before it gets no more."""
    with simulate(options, scratch, "sick", 3) as fleet:
        settings = ("--pool-health-ejected-min", "60s", "--pool-health-ejected-max", "60s")
        with hearth(options.hearth, fleet.addresses, scratch, "round-robin", settings) as arm:
            fleet.fault(0, {"fault": "reset", "after_bytes": 0})
            stage = bench(options, arm, scratch, "--rate-type", "synchronous", "--max-requests",
                          "60", "--prompt-tokens", "64", "--output-tokens", "2")
            if stage["errors"]:
                raise RuntimeError(f"clients saw it: {stage['errors']}")
            lines = [json.loads(line) for line in arm.programs[0].log.read_text().splitlines()
                     if '"attempts_failed"' in line]
        met = sum(len(line["attempts_failed"]) for line in lines)
        if not met:
            raise RuntimeError("no request met the sick pod")
        bars.bar("survive_failures_before_ejection", met, 3)


def chaos(options, scratch: Path, bars) -> None:
    """Goodput while one pod of four is always failing, beside that of three sound pods."""
    with simulate(options, scratch, "chaos", 4) as fleet:
        with hearth(options.hearth, fleet.addresses[:3], scratch) as arm:
            sound = concurrent(options, arm, scratch, 32)
        stop = threading.Event()

        def fail() -> None:
            faults = [{"fault": "down", "for_ms": 400}, {"fault": "engine_death", "for_ms": 400},
                      {"fault": "reset", "after_bytes": 900}, {"fault": "pause"},
                      {"fault": "status", "status": 500}]
            turn = 0
            while not stop.is_set():
                fleet.fault(turn % 4, faults[turn % len(faults)])
                # Each pod fails every 12 s: one that fails more often is kept out for longer each time.
                stop.wait(3)
                fleet.fault(turn % 4, None)
                turn += 1

        with hearth(options.hearth, fleet.addresses, scratch) as arm:
            failing = threading.Thread(target=fail)
            failing.start()
            try:
                rough = concurrent(options, arm, scratch, 32)
            finally:
                stop.set()
                failing.join()
    lost = 1 - rough["completed"] / sound["completed"]
    print(f"# survive_chaos: {sound['completed']} sound, {rough['completed']} in chaos, "
          f"errors {rough['errors']}")
    bars.bar("survive_chaos_errors", sum(rough["errors"].values()), 0)
    bars.bar("survive_chaos_goodput_lost", lost, 0.20)


CELLS = {
    "survive_readiness": readiness,
    "survive_pd_bookkeeping": bookkeeping,
    "survive_gap": gap,
    "survive_ejection": ejection,
    "survive_chaos": chaos,
}
