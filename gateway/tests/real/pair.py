#!/usr/bin/env python3
"""Starts two real vLLM servers and serves until Ctrl-C (or SIGTERM).

usage: pair.py [--model tiny|smol] [--ports 8001,8002] [-- EXTRA VLLM ARGUMENTS]
Prints `ready URL URL` when both answer; logs lie under the cache folder's real/logs.
Needs only the standard library; `setup.sh vllm` has to have run.
"""

import argparse
import contextlib
import signal

from processes import exit_on_sigterm
from pods import MODELS, Server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--ports", default="0,0", help="0 picks a free one")
    parser.add_argument("extra", nargs="*", help="arguments for vLLM, after --")
    options = parser.parse_args()
    exit_on_sigterm()
    with contextlib.ExitStack() as stack:
        pods = [stack.enter_context(Server(f"{options.model}-{port or i}", options.model, int(port),
                                           tuple(options.extra)))
                for i, port in enumerate(options.ports.split(","))]
        for pod in pods:
            pod.wait_ready()
        print("ready", *(pod.url for pod in pods), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
