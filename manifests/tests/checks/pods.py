"""What happens to a pod object happens to its traffic within a second, and no client notices."""

import contextlib

from exchange import post
from fleet import LABELS, MODEL, Engine, container
from harness import check, expect, expect_equal
from load import Load
from processes import free_port, wait_until
from world import World, note

WITHIN_S = 1.0


@contextlib.contextmanager
def under_load(world: World):
    """No request fails while the block runs."""
    with Load(world.gateway.url) as load:
        yield load
    expect(load.sent > 0, "no request was sent")
    expect(not load.failures, f"{len(load.failures)} of {load.sent} failed: {load.failures[:3]}")


def quick(took_s: float, what: str) -> None:
    note(f"{what}: {took_s * 1000:.0f} ms")
    expect(took_s <= WITHIN_S, f"{what}: {took_s:.2f} s")


@contextlib.contextmanager
def extra_pod(world: World, name: str):
    """A fourth pod, which is routable already, for a check to play with."""
    with Engine(world.loadtest) as engine:
        world.pods.create(name, engine.host, engine.port)
        try:
            address = f"{engine.host}:{engine.port}"
            quick(world.routable(address, True), f"{name} Ready to routable")
            yield engine, address
        finally:
            world.pods.remove(name)
            world.routable(address, False)


@check("pods/a_pod_that_is_not_ready_gets_nothing_and_comes_back", stage="gateway")
def not_ready(world: World) -> None:
    with under_load(world), extra_pod(world, "flaky") as (engine, address):
        world.pods.set_status("flaky", engine.host, ready=False)
        quick(world.routable(address, False), "not Ready")
        world.pods.set_status("flaky", engine.host, ready=True)
        quick(world.routable(address, True), "Ready again")


@check("pods/a_label_that_changes_takes_the_pod_out_and_in", stage="gateway")
def relabelled(world: World) -> None:
    with under_load(world), extra_pod(world, "relabelled") as (_, address):
        world.pods.set_labels("relabelled", {"llm-d.ai/inferenceServing": "paused"})
        quick(world.routable(address, False), "label off")
        world.pods.set_labels("relabelled", LABELS)
        quick(world.routable(address, True), "label on")
        world.pods.set_labels("relabelled", {"llm-d.ai/role": "prefill"})
        wait_until(lambda: world.gateway.pool()["relabelled"]["role"] == "prefill", WITHIN_S,
                   "the new role")


@check("pods/a_pod_being_deleted_gets_nothing_more_and_finishes_what_it_has", stage="gateway")
def deleted(world: World) -> None:
    with under_load(world), extra_pod(world, "leaving") as (_, address):
        world.pods.terminate("leaving")
        quick(world.routable(address, False), "deletionTimestamp")


@check("pods/a_new_pod_of_the_same_name_is_another_one", stage="gateway")
def replaced(world: World) -> None:
    with under_load(world), extra_pod(world, "stateful-0") as (old, address):
        uid = world.gateway.pool()["stateful-0"]["uid"]
        with Engine(world.loadtest) as fresh:
            world.pods.remove("stateful-0")
            world.pods.create("stateful-0", fresh.host, fresh.port)
            quick(world.routable(f"{fresh.host}:{fresh.port}", True), "the new pod in")
            quick(world.routable(address, False), "the old pod out")
            expect(world.gateway.pool()["stateful-0"]["uid"] != uid, "the uid is the old one")
            # The same address under a new uid, as after a restart on the host's network.
            uid = world.gateway.pool()["stateful-0"]["uid"]
            world.pods.remove("stateful-0")
            world.pods.create("stateful-0", fresh.host, fresh.port)
            quick(world.routable(f"{fresh.host}:{fresh.port}", True), "same address, new uid")
            expect(world.gateway.pool()["stateful-0"]["uid"] != uid, "the uid did not change")
            world.pods.remove("stateful-0")
            world.routable(f"{fresh.host}:{fresh.port}", False)


@check("pods/of_several_containers_and_ports_the_one_called_http_is_meant", stage="gateway")
def several_ports(world: World) -> None:
    with under_load(world), Engine(world.loadtest) as engine:
        world.pods.create("mesh", engine.host, 0, containers=[
            container("proxy", {"metrics": free_port(), "admin": free_port()}),
            container("vllm", {"kv-events": free_port(), "http": engine.port})])
        quick(world.routable(f"{engine.host}:{engine.port}", True), "the port called http")
        world.pods.remove("mesh")
        world.routable(f"{engine.host}:{engine.port}", False)


@check("pods/two_pods_on_the_hosts_network_share_an_address_and_differ_in_port", stage="gateway")
def host_network(world: World) -> None:
    with under_load(world), Engine(world.loadtest) as first, \
            Engine(world.loadtest, host=first.host) as second:
        for name, engine in (("host-0", first), ("host-1", second)):
            world.pods.create(name, engine.host, engine.port)
            quick(world.routable(f"{engine.host}:{engine.port}", True), name)
        world.pods.remove("host-0")
        quick(world.routable(f"{first.host}:{first.port}", False), "one of them out")
        expect(f"{second.host}:{second.port}" in world.gateway.routable(), "the other went too")
        world.pods.remove("host-1")
        world.routable(f"{second.host}:{second.port}", False)


@check("pods/a_pod_that_dies_without_a_word_costs_no_request", stage="gateway")
def killed(world: World) -> None:
    with under_load(world), extra_pod(world, "dying") as (engine, address):
        engine.group.kill()
        took_s = world.routable(address, False)
        note(f"killed to out: {took_s * 1000:.0f} ms")


@check("pods/every_answer_names_a_pod_that_exists", stage="gateway")
def named(world: World) -> None:
    answer = post(world.gateway.url, "/v1/completions", {"model": MODEL, "prompt": "x",
                                                         "max_tokens": 1})
    expect_equal(answer.status, 200, "status")
    expect(answer.headers["x-upstream-host"] in world.gateway.routable(), "x-upstream-host")
