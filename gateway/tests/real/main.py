#!/usr/bin/env python3
"""Hearth before real vLLM servers: `ok NAME` or `not ok NAME why` for each claim.

Runs under the environment that setup.sh makes (the clients' one); `run.sh` does both.
"""

import argparse
import contextlib
import shlex
import sys
from pathlib import Path

import checks.bytes
import checks.clients
import checks.warmth
import checks.load_tools
import checks.failures  # noqa: F401  (the last of its stage: it kills a pod)
import checks.tokens
import checks.know  # noqa: F401
import checks.pd  # noqa: F401
import checks.survive  # noqa: F401
import checks.ranks  # noqa: F401
from harness import CHECKS, World, run
from hearth import Hearth
from know.pod import KnownPod
from know.world import Knowing
from processes import exit_on_sigterm
from pods import Running, Server
from ranks import ranked
from split import splitting
from surviving import surviving

STAGES = {
    # Tool calls need a parser named at start. Random weights like to fill JSON with white space.
    "tiny": ("--enable-auto-tool-choice", "--tool-call-parser", "hermes",
             "--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
    "smol": (),
}
# Batches of history that each pod keeps: all, or so few that they are soon gone.
KNOW_STAGES = {"know": (10_000, 24), "know-smol": (10_000,)}


@contextlib.contextmanager
def knowing(stage: str, options):
    with contextlib.ExitStack() as stack:
        pods = [stack.enter_context(KnownPod(f"{stage}-{i}", stage, batches))
                for i, batches in enumerate(KNOW_STAGES[stage], 1)]
        for pod in pods:
            pod.wait_ready()
        world = Knowing(stage, "", pods, binary=options.hearth)
        stack.callback(world.stop_gateway)
        world.start_gateway()
        yield world


@contextlib.contextmanager
def world_of(stage: str, options):
    with contextlib.ExitStack() as stack:
        if options.pods:
            pods = [Running(url) for url in options.pods.split(",")]
        else:
            pods = [stack.enter_context(Server(f"{stage}-{i}", stage, extra=STAGES[stage]))
                    for i in (1, 2)]
            for pod in pods:
                pod.wait_ready()
        gateway = options.gateway
        if not gateway:
            urls, flags = [pod.url for pod in pods], tuple(shlex.split(options.flags))
            hearth = stack.enter_context(Hearth(options.hearth, urls, flags))
            hearth.wait_ready()
            gateway = hearth.url
        yield World(stage, gateway, pods)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hearth", type=Path, help="the binary to start")
    parser.add_argument("--gateway", help="a gateway that runs already, instead")
    parser.add_argument("--flags", default="", help="more flags for `hearth serve`, as one word")
    parser.add_argument("--pods", help="URL,URL of pods that run already: nothing is started or killed")
    parser.add_argument("words", nargs="*", help="only checks whose names contain one of these")
    options = parser.parse_args()
    if not options.hearth and not options.gateway:
        parser.error("either --hearth or --gateway")
    exit_on_sigterm()

    chosen = [one for one in CHECKS if not options.words or any(w in one.name for w in options.words)]
    passed = failed = 0
    for stage in (*STAGES, *KNOW_STAGES, "pd", "survive", "ranks"):
        of_stage = [one for one in chosen if one.stage == stage]
        if not of_stage:
            continue
        own = {"pd": splitting, "survive": surviving, "ranks": ranked} | dict.fromkeys(KNOW_STAGES, knowing)
        if stage in own and (options.pods or options.gateway):
            print(f"# {stage}: skipped, it starts and kills pods and gateways of its own")
            continue
        with own.get(stage, world_of)(stage, options) as world:
            ok, not_ok = run(of_stage, world)
        passed, failed = passed + ok, failed + not_ok
    print(f"{passed} ok, {failed} not ok")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
