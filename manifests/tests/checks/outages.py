"""Whatever becomes of the API server, traffic flows; when it is back, what was missed is caught up."""

import contextlib
import os
import signal
import time

from checks.pods import under_load
from cluster import ApiError
from exchange import post
from fleet import MODEL, Engine
from gateway import NAMESPACE
from harness import Failed, check, expect, expect_equal
from processes import get, wait_until
from world import World, note

AGE = "hearth_discovery_age_seconds"
FREEZE_S = float(os.environ.get("HEARTH_FREEZE_S", "120"))
ROLE = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles/hearth"


@contextlib.contextmanager
def frozen(group):
    os.kill(group.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(group.pid, signal.SIGCONT)


def caught_up(world: World, deadline_s: float = 30) -> float:
    """Seconds until Hearth knows exactly the pods that a fresh list names."""
    began = time.monotonic()
    try:
        wait_until(lambda: set(world.gateway.pool()) == world.pods.names(), deadline_s,
                   "the same pods as a fresh list")
    except TimeoutError as error:
        known, named = set(world.gateway.pool()), world.pods.names()
        note("\n# ".join(line[:400] for line in world.gateway.log().splitlines()[-20:]))
        raise Failed(f"{error}: missing {named - known}, stale {known - named}; "
                     f"/readyz: {readyz(world)}") from error
    return time.monotonic() - began


@check("outages/a_new_token_is_used_before_the_old_one_ends", stage="gateway", limit_s=150)
def rotation(world: World) -> None:
    """The old token dies with its ServiceAccount; only the new one can list after that."""
    account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    old = world.gateway.token_file.read_text()
    made = world.cluster.request("GET", f"{account}/hearth")
    world.cluster.request("DELETE", f"{account}/hearth")
    world.cluster.request("POST", account, {
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "hearth", "labels": made["metadata"]["labels"]}})
    world.gateway.rotate_token()

    def refused() -> bool:
        try:
            world.cluster.request("GET", world.pods.path, token=old)
        except ApiError as error:
            return error.status == 401
        return False

    wait_until(refused, 30, "the old token is refused")
    with under_load(world), Engine(world.loadtest) as engine:
        # A watch that runs outlives its token; the next one does not.
        world.cluster.server.kill()
        world.cluster.start_server()
        world.pods.create("rotated", engine.host, engine.port)
        # The file is read again once a minute: the kubelet renews it with a fifth of its life left.
        took_s = world.routable(f"{engine.host}:{engine.port}", True, 100)
        note(f"pod seen {took_s:.1f} s after the rotation and a restart of the API server")
        world.pods.remove("rotated")
        world.routable(f"{engine.host}:{engine.port}", False, 30)


@check("outages/a_frozen_api_server_ages_and_stops_nothing", stage="gateway", limit_s=300)
def hangs(world: World) -> None:
    with under_load(world), Engine(world.loadtest) as engine:
        with frozen(world.cluster.server):
            time.sleep(FREEZE_S)
            age_s = world.gateway.metric(AGE)
            expect(age_s > FREEZE_S / 2, f"{AGE} is {age_s:.0f} after {FREEZE_S:.0f} s")
            status, _ = get(f"{world.gateway.admin_url}/readyz")
            expect_equal(status, 200, "/readyz")
        began = time.monotonic()
        world.pods.create("thawed", engine.host, engine.port)
        world.routable(f"{engine.host}:{engine.port}", True, 30)
        note(f"frozen {FREEZE_S:.0f} s, age {age_s:.0f} s; a new pod seen "
             f"{time.monotonic() - began:.1f} s after the thaw")
        world.pods.remove("thawed")
        caught_up(world)
        wait_until(lambda: world.gateway.metric(AGE) < 5, 30, "the age falls")


@check("outages/a_restart_that_forgot_every_revision_is_caught_up_exactly", stage="gateway",
       limit_s=120)
def compacted(world: World) -> None:
    with under_load(world), Engine(world.loadtest) as engine, Engine(world.loadtest) as gone:
        world.pods.create("gone", gone.host, gone.port)
        world.routable(f"{gone.host}:{gone.port}", True)
        world.cluster.server.kill()
        # Without its watch cache a server that starts anew knows no revision from before; with
        # everything compacted, a watch that asks for one gets 410 inside a 200.
        world.cluster.start_server()
        world.pods.remove("gone")
        world.pods.create("come", engine.host, engine.port)
        world.cluster.server.kill()
        world.cluster.compact()
        world.cluster.start_server("--watch-cache=false")
        took_s = caught_up(world)
        note(f"caught up {took_s:.1f} s after the second restart")
        world.routable(f"{engine.host}:{engine.port}", True)
        world.pods.remove("come")
        caught_up(world)
    world.cluster.server.kill()
    world.cluster.start_server()
    caught_up(world)


@check("outages/a_frozen_etcd_stops_nothing", stage="gateway", limit_s=150)
def storage_hangs(world: World) -> None:
    with under_load(world):
        with frozen(world.cluster.etcd):
            # Longer than a list may take (504 after 60 s), so that a renewal of the watch meets it.
            time.sleep(min(FREEZE_S, 75))
        took_s = caught_up(world)
        wait_until(lambda: world.gateway.metric(AGE) < 5, 60, "the age falls")
        note(f"caught up {took_s:.1f} s after the thaw")


@check("outages/lost_rights_are_said_and_the_last_pods_stay", stage="gateway", limit_s=200)
def forbidden(world: World) -> None:
    role = world.cluster.request("GET", ROLE)
    with under_load(world):
        world.cluster.request("PATCH", ROLE, {"rules": []}, kind="application/merge-patch+json")
        try:
            # An open watch outlives the rights; the next one is refused.
            wait_until(lambda: "RBAC" in readyz(world), 90, "/readyz says RBAC", every_s=0.5)
            lines = [line for line in world.gateway.log().splitlines() if "RBAC" in line]
            expect(lines, "no line in the log says RBAC")
            expect(any(NAMESPACE in line for line in lines), "it does not name the namespace")
            expect_equal(len(world.gateway.routable()), len(world.engines), "pods that serve")
            first_s = world.gateway.metric(AGE)
            wait_until(lambda: world.gateway.metric(AGE) > first_s + 2, 20, "the age rises")
            note(f"log: {lines[-1][:220]}")
        finally:
            world.cluster.request("PATCH", ROLE, {"rules": role["rules"]},
                                  kind="application/merge-patch+json")
        wait_until(lambda: "RBAC" not in readyz(world), 60, "it is over", every_s=0.2)
        caught_up(world)


def readyz(world: World) -> str:
    return get(f"{world.gateway.admin_url}/readyz")[1]


@check("outages/a_list_that_turns_empty_while_pods_answer_is_not_believed", stage="gateway",
       limit_s=120)
def emptied(world: World) -> None:
    """The selector's label goes from every pod while nobody watches, as a bad rollout does it."""
    names, label = world.pods.names(), "llm-d.ai/inferenceServing"
    with under_load(world):
        # The pods go while no watch is open, and every trace of it too: a watch that is told of
        # deletions believes them.
        world.cluster.server.kill()
        with frozen(world.gateway.group):
            world.cluster.start_server()
            for name in names:
                world.pods.set_labels(name, {label: None})
            world.cluster.server.kill()
            world.cluster.compact()
            world.cluster.start_server("--watch-cache=false")
        wait_until(lambda: "names no pod" in readyz(world), 30, "/readyz says that it kept them")
        expect_equal(set(world.gateway.pool()), names, "pods that are kept")
        expect_equal(post(world.gateway.url, "/v1/completions", {
            "model": MODEL, "prompt": "x", "max_tokens": 1}).status, 200, "a request")
        for name in names:
            world.pods.set_labels(name, {label: "true"})
        wait_until(lambda: "names no pod" not in readyz(world), 30, "it is over")
        caught_up(world)
    world.cluster.server.kill()
    world.cluster.start_server()
