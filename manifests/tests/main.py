#!/usr/bin/env python3
"""Hearth and its manifests with a real API server: `ok NAME` or `not ok NAME why` for each claim.

Runs under the environment that setup.sh makes; `run.sh` does both.
"""

import argparse
import contextlib
import sys
from pathlib import Path

import checks.manifests
import checks.chart
import checks.tekton
import checks.image
import checks.install
import checks.pods
import checks.inference_pool
import checks.monitoring
import checks.doctor
import checks.readme
import checks.outages
import checks.churn
import checks.live  # noqa: F401
from cluster import Cluster
from fleet import Engine, Pods
from gateway import NAMESPACE, InCluster
from harness import CHECKS, run
from processes import exit_on_sigterm
from world import World

STAGES = ("manifests", "install", "readme", "pool", "gateway", "churn", "live")


@contextlib.contextmanager
def world_of(stage: str, options):
    """A cluster of its own for each stage; for `gateway` three pods and Hearth in front of them."""
    with contextlib.ExitStack() as stack:
        if stage == "live":
            yield World(stage, None, None, options.hearth, options.loadtest)
            return
        cluster = stack.enter_context(Cluster())
        cluster.start()
        world = World(stage, cluster, Pods(cluster, NAMESPACE), options.hearth, options.loadtest)
        if stage in ("manifests", "pool"):
            world.apply("crds")
            world.wait_for_pool_api()
        if stage in ("pool", "gateway", "churn"):
            world.apply("base", create_namespace=True)
        if stage == "gateway":
            for n in range(3):
                engine = stack.enter_context(Engine(options.loadtest))
                world.engines.append(engine)
                world.pods.create(f"pod-{n}", engine.host, engine.port)
            world.gateway = stack.enter_context(InCluster(options.hearth, cluster))
            world.gateway.wait_ready()
        yield world


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hearth", type=Path, required=True, help="the binary to start")
    parser.add_argument("--loadtest", type=Path, required=True, help="the binary of the simulator")
    parser.add_argument("words", nargs="*", help="only checks whose names contain one of these")
    options = parser.parse_args()
    exit_on_sigterm()

    chosen = [one for one in CHECKS if not options.words or any(w in one.name for w in options.words)]
    passed = failed = 0
    for stage in STAGES:
        of_stage = [one for one in chosen if one.stage == stage]
        if not of_stage:
            continue
        with world_of(stage, options) as world:
            ok, not_ok = run(of_stage, world)
        passed, failed = passed + ok, failed + not_ok
    print(f"{passed} ok, {failed} not ok")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
