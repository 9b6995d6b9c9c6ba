"""From nothing to an answer, under the rights that the Role gives and no others."""

import contextlib
import time

from exchange import post
from fleet import MODEL, Engine
from gateway import NAMESPACE, InCluster
from harness import check, expect, expect_equal
from processes import wait_until
from world import World, note

@check("install/apply_to_the_first_200_within_10_s", stage="install", limit_s=90)
def first_answer(world: World) -> None:
    with contextlib.ExitStack() as stack:
        engines = [stack.enter_context(Engine(world.loadtest)) for _ in range(3)]
        began = time.monotonic()
        world.apply(".")
        applied_s = time.monotonic() - began
        for n, engine in enumerate(engines):
            world.pods.create(f"pod-{n}", engine.host, engine.port)
        gateway = stack.enter_context(InCluster(world.hearth, world.cluster))
        gateway.wait_ready()
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello! What is 2+2?"}],
                "max_tokens": 4}
        wait_until(lambda: post(gateway.url, "/v1/chat/completions", body).status == 200, 20, "200")
        took_s = time.monotonic() - began
        note(f"apply to first 200: {took_s:.1f} s, of them kubectl {applied_s:.1f} s")
        expect(took_s <= 10, f"took {took_s:.1f} s")


@check("install/the_service_account_may_do_what_its_role_says_and_nothing_else", stage="install")
def rights(world: World) -> None:
    # What every ServiceAccount may do, bound to a Role or not, is no right of ours.
    own = rights_of(world, "hearth") - rights_of(world, "nobody")
    pools = "inferencepools.inference.networking"
    expect_equal(sorted(own), sorted((what, "[get list watch]") for what in
                                     ("pods", f"{pools}.k8s.io", f"{pools}.x-k8s.io")), "rights")
    who = f"--as=system:serviceaccount:{NAMESPACE}:hearth"
    elsewhere = world.cluster.kubectl("auth", "can-i", "list", "pods", "-n", "default", who,
                                      check=False).stdout.strip()
    expect_equal(elsewhere, "no", "pods of another namespace")


def rights_of(world: World, account: str) -> set[tuple[str, str]]:
    """(resource, verbs) of a ServiceAccount of our namespace."""
    listed = world.cluster.kubectl("auth", "can-i", "--list", "-n", NAMESPACE,
                                   f"--as=system:serviceaccount:{NAMESPACE}:{account}").stdout
    rows = [line.split(None, 1) for line in listed.splitlines()[1:] if line[0] != " "]
    return {(what, rest[rest.rindex("["):].strip()) for what, rest in rows}
