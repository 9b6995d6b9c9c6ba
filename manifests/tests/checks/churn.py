"""500 pods, ten of them replaced every second: nothing is missed, nothing is kept, little is spent."""

import contextlib
import os
import time

from fleet import Engine
from gateway import InCluster
from harness import check, expect
from processes import wait_until
from world import World, note

PODS = 500
CHURN_S = int(os.environ.get("HEARTH_CHURN_S", "60"))
PER_S = 10


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def same_pods(world: World) -> bool:
    return set(world.gateway.pool()) == world.pods.names()


def share_of_a_core(pid: int, seconds: float) -> float:
    before = cpu_s(pid)
    time.sleep(seconds)
    return (cpu_s(pid) - before) / seconds


@check("churn/500_pods_come_and_go_none_is_missed_and_little_is_spent", stage="churn", limit_s=420)
def churn(world: World) -> None:
    with contextlib.ExitStack() as stack:
        # All of one process on one loopback address: what is measured is the gateway.
        fleet = stack.enter_context(Fleet(world, PODS))
        world.gateway = stack.enter_context(InCluster(world.hearth, world.cluster))
        pid = world.gateway.group.pid
        world.pods.create("first", *fleet.addresses[0])
        world.gateway.wait_ready()
        base_mb = rss_mb(pid)
        for n in range(1, PODS):
            world.pods.create(f"pod-{n}", *fleet.addresses[n])
        wait_until(lambda: len(world.gateway.routable()) == PODS, 120, "500 pods are routable")
        grown_mb = rss_mb(pid) - base_mb
        time.sleep(10)
        idle = share_of_a_core(pid, 20)
        note(f"500 pods: {grown_mb:.0f} MB over one pod's {base_mb:.0f} MB, idle {idle:.1%} of a core")

        busy = cpu_s(pid)
        began, turn = time.monotonic(), 0
        while time.monotonic() - began < CHURN_S:
            n = 1 + turn % (PODS - 1)
            world.pods.remove(f"pod-{n}" if turn < PODS - 1 else f"pod-{n}-{turn - (PODS - 1)}")
            world.pods.create(f"pod-{n}-{turn}", *fleet.addresses[n])
            turn += 1
            time.sleep(max(0.0, began + turn / PER_S - time.monotonic()))
        busy = (cpu_s(pid) - busy) / (time.monotonic() - began)
        wait_until(lambda: same_pods(world), 10, "the same pods as a fresh list")
        wait_until(lambda: len(world.gateway.routable()) == PODS, 30, "all of them routable")
        after_mb = rss_mb(pid) - base_mb
        note(f"{turn} replaced in {CHURN_S} s: {busy:.1%} of a core, {after_mb:.0f} MB over base after")
        expect(after_mb < grown_mb + 30, f"grew from {grown_mb:.0f} to {after_mb:.0f} MB")
        # Bars are told and not asserted: a busy machine must not fail a change.
        note(bar("pods_500_rss_mb", grown_mb, 60))
        note(bar("pods_500_idle_share_of_a_core", idle, 0.03))


def bar(name: str, measured: float, limit: float) -> str:
    return f"BAR {name} {measured:.3g} <= {limit:g} {'ok' if measured <= limit else 'short'}"


class Fleet:
    """Many simulated pods in one process, on consecutive ports."""

    def __init__(self, world: World, pods: int):
        self.engine = Engine(world.loadtest, pods=pods)
        self.addresses = [(self.engine.host, self.engine.port + n) for n in range(pods)]

    def __enter__(self):
        self.engine.wait_ready()
        return self

    def __exit__(self, *_):
        self.engine.group.kill()
