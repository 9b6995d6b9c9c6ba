"""An InferencePool says which pods and ports, under either version of its API."""

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path

from fleet import LABELS, Engine
from gateway import NAMESPACE, InCluster, without_settings
from harness import check, expect, expect_equal
from processes import free_port, wait_until
from world import World, note

V1, OLD = "inference.networking.k8s.io/v1", "inference.networking.x-k8s.io/v1alpha2"


def address(engine: Engine) -> str:
    return f"{engine.host}:{engine.port}"


@check("inference_pool/its_selector_and_ports_are_followed_as_they_change", stage="pool", limit_s=90)
def followed(world: World) -> None:
    pools = f"/apis/{V1}/namespaces/{NAMESPACE}/inferencepools/llm-d"
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(Engine(world.loadtest)) for _ in range(2))
        more = stack.enter_context(Engine(world.loadtest, host=first.host))
        world.apply("overlays/inference-pool")
        world.cluster.request("PATCH", pools, {"spec": {"targetPorts": [{"number": first.port}]}},
                              kind="application/merge-patch+json")
        # What a container calls its ports does not count here.
        world.pods.create("a", first.host, free_port())
        world.pods.create("b", second.host, free_port(), labels={"app": "other"})
        world.gateway = stack.enter_context(InCluster(world.hearth, world.cluster))
        world.gateway.wait_ready()
        expect_equal(world.gateway.routable(), {address(first)}, "pods of the first selector")

        world.cluster.request("PATCH", pools, {"spec": {"targetPorts": [
            {"number": first.port}, {"number": more.port}]}}, kind="application/merge-patch+json")
        note(f"a second port: {world.routable(address(more), True) * 1000:.0f} ms")
        world.cluster.request("PATCH", pools, {"spec": {
            "selector": {"matchLabels": {"app": "other", "llm-d.ai/inferenceServing": None}},
            "targetPorts": [{"number": second.port}]}}, kind="application/merge-patch+json")
        note(f"another selector: {world.routable(address(second), True) * 1000:.0f} ms")
        world.routable(address(first), False)
        world.routable(address(more), False)

        world.cluster.request("DELETE", pools)
        wait_until(lambda: "is gone" in world.gateway.log(), 10, "its end is said")
        expect_equal(world.gateway.routable(), {address(second)}, "the last pods stay")
        world.pods.remove_all()


@check("inference_pool/each_of_two_has_its_pods_and_one_that_both_select_is_one_pod",
       stage="pool", limit_s=60)
def several(world: World) -> None:
    path = f"/apis/{V1}/namespaces/{NAMESPACE}/inferencepools"
    with contextlib.ExitStack() as stack:
        engines = [stack.enter_context(Engine(world.loadtest)) for _ in range(4)]
        of_first, of_both, of_second, later = engines
        ports = sorted({engine.port for engine in engines})
        for name, key in (("first", "tier/one"), ("second", "tier/two")):
            world.cluster.request("POST", path, {
                "apiVersion": V1, "kind": "InferencePool", "metadata": {"name": name},
                "spec": {"selector": {"matchLabels": {key: "yes"}},
                         "targetPorts": [{"number": port} for port in ports],
                         "endpointPickerRef": {"name": "hearth", "port": {"number": 9002}}}})
        one, two = {"tier/one": "yes"}, {"tier/two": "yes"}
        world.pods.create("one", of_first.host, of_first.port, labels=one)
        world.pods.create("both", of_both.host, of_both.port, labels=one | two)
        world.pods.create("two", of_second.host, of_second.port, labels=two)
        world.gateway = stack.enter_context(InCluster(
            world.hearth, world.cluster, ("--kubernetes-inference-pools", "first,second")))
        world.gateway.wait_ready()
        addresses = {address(engine) for engine in engines if engine is not later}
        wait_until(lambda: world.gateway.routable() == addresses, 10, "each pod once")

        # To one pod more, since a list that turns empty is not believed.
        world.pods.create("later", later.host, later.port, labels={"tier/one": "later"})
        world.cluster.request("PATCH", f"{path}/first", {"spec": {"selector": {"matchLabels": {
            "tier/one": "later"}}}}, kind="application/merge-patch+json")
        world.routable(address(later), True)
        world.routable(address(of_first), False)
        expect(address(of_both) in world.gateway.routable(), "the second pool selects it still")
        world.pods.remove_all()


@check("inference_pool/the_older_version_is_read_where_the_newer_is_not", stage="pool", limit_s=60)
def older(world: World) -> None:
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(Engine(world.loadtest))
        world.pods.create("old", engine.host, free_port())
        world.cluster.request("POST", f"/apis/{OLD}/namespaces/{NAMESPACE}/inferencepools", {
            "apiVersion": OLD, "kind": "InferencePool", "metadata": {"name": "llm-d"},
            "spec": {"selector": {"llm-d.ai/inferenceServing": LABELS["llm-d.ai/inferenceServing"]},
                     "targetPortNumber": engine.port, "extensionRef": {"name": "epp"}}})
        world.gateway = stack.enter_context(InCluster(world.hearth, world.cluster))
        world.gateway.wait_ready()
        expect_equal(world.gateway.routable(), {address(engine)}, "pods")
        world.pods.remove_all()


@check("inference_pool/a_pool_and_a_selector_at_once_are_one_error", stage="pool")
def conflict(world: World) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hearth.yaml"
        file.write_text(json.dumps({"kubernetes": {
            "enabled": True, "inference_pools": ["llm-d"], "selector": "app=vllm"}}))
        done = subprocess.run([world.hearth, "check-config", file], text=True, capture_output=True,
                              env=without_settings())
        expect_equal(done.returncode, 2, "exit code")
        expect(done.stderr.count("kubernetes.inference_pools") == 1, done.stderr)
