#!/usr/bin/env python3
"""Hearth before real vLLM on one GPU or more, beside its peers. README.md says what each experiment asks."""

import argparse
import asyncio
import json
import os
import platform
import shlex
import subprocess
import sys
import traceback
from pathlib import Path

import cost
import fleet
import goodput
import split
import survive
import truth
import warmth
from lab import Lab, OutOfTime

# In this order: the last of each fleet kill its servers.
EXPERIMENTS = {"warmth": warmth.warmth, "truth": truth.truth, "documents": goodput.documents,
               "trace": goodput.trace, "cost": cost.cost, "split": split.split, "split-kill": split.split_kill,
               "survive": survive.survive}


def names(text: str) -> list[str]:
    return text.split(",")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for records, logs and figures")
    parser.add_argument("--hearth", type=Path, required=True)
    parser.add_argument("--loadtest", type=Path, help="for --simulated")
    parser.add_argument("--tokenizer", type=Path, help="folder with tokenizer.json and a chat template")
    parser.add_argument("--envoy", type=Path, help="plain Envoy; without, that arm is left out")
    parser.add_argument("--vllm-router", type=shlex.split, help="a command that starts vllm-router")
    parser.add_argument("--epp", type=Path, help="llm-d's Endpoint Picker, to stand behind --envoy")
    parser.add_argument("--vllm", type=shlex.split, default=fleet.vllm_command(), help="vLLM's command")
    parser.add_argument("--serve-args", type=shlex.split, default=[], help="more arguments for vLLM's serve")
    parser.add_argument("--gpus", type=int, default=1, help="spread each fleet over so many")
    parser.add_argument("--simulated", action="store_true", help="simulated pods, no GPU")
    parser.add_argument("--limit", type=float, default=3600, help="seconds; what would not fit is left out")
    parser.add_argument("--rounds", type=names, default=list(warmth.ROUNDS),
                        help=f"of warmth, NAME,NAME: {', '.join(warmth.ROUNDS)}")
    parser.add_argument("--arms", type=names, default=[],
                        help="of warmth, documents, trace, cost and split, only the proxies so named: NAME,NAME")
    parser.add_argument("--trace", type=Path, default=os.environ.get("TRACE"), metavar="FILE",
                        help="Mooncake's conversation trace, else TRACE; without, that experiment is left out")
    parser.add_argument("--fleets", type=names, default=list(fleet.FLEETS),
                        help=f"what `start` starts, NAME,NAME: {', '.join(fleet.FLEETS)}")
    parser.add_argument("--keep", action="store_true", help="leave the servers running for a later call")
    parser.add_argument("--state", type=Path, help="where running servers are noted; in --out if not given")
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT",
                        help=f"start, stop, {', '.join(EXPERIMENTS)}; all if none is named")
    options = parser.parse_args()
    for name, value in vars(options).items():
        if isinstance(value, Path):
            setattr(options, name, value.absolute())
    options.state = options.state or options.out / "servers.json"
    unknown = set(options.experiments) - {"start", "stop", *EXPERIMENTS}
    if unknown:
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")
    if options.simulated and not options.loadtest:
        parser.error("--simulated needs --loadtest")
    if not options.simulated and not options.tokenizer:
        parser.error("real servers need --tokenizer")
    return options


def versions(options) -> dict[str, str]:
    """What was measured, and on what."""
    asked = {
        "hearth": [str(options.hearth), "--version"],
        "envoy": [str(options.envoy), "--version"],
        "gpu": ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
        # Without importing it, which takes 20 s on a fresh machine.
        "vllm": [sys.executable, "-c", "import importlib.metadata as m; print(m.version('vllm'), m.version('torch'))"],
        "cpu": ["sh", "-c", "grep -m1 'model name' /proc/cpuinfo; nproc"],
    }
    found = {"python": platform.python_version()}
    for name, command in asked.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            found[name] = " ".join((done.stdout or done.stderr).split())[:200]
        except OSError as error:
            found[name] = str(error)
    return found


async def run(lab: Lab, name: str) -> None:
    """An experiment that fails or does not fit does not keep the next one from running."""
    try:
        await EXPERIMENTS[name](lab)
    except OutOfTime as error:
        lab.log(f"{name}: left out, {error}")
    except Exception as error:  # whatever it is, the others' results count
        lab.log(f"{name}: FAILED {type(error).__name__}: {error}")
        traceback.print_exc()


def main() -> None:
    options = parsed()
    lab = Lab(options)
    (options.out / "versions.json").write_text(json.dumps(versions(options), indent=1))
    lab.log("began")
    try:
        for name in options.experiments or EXPERIMENTS:
            if name == "start":  # without servers there is nothing to measure
                lab.fleet.start([one for name in options.fleets for one in fleet.FLEETS[name]])
            elif name == "stop":
                lab.fleet.stop()
            else:
                asyncio.run(run(lab, name))
    finally:
        if not options.keep:
            lab.fleet.stop()
    lab.log("ended")


if __name__ == "__main__":
    main()
