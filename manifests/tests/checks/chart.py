"""The chart makes what kustomize makes."""

import json
import subprocess
import sys

import yaml

from checks.manifests import built
from cluster import BIN
from gateway import NAMESPACE
from harness import check, expect, expect_equal
from world import MANIFESTS, World

CHART = str(MANIFESTS / "chart")


def helm(world: World, *args: str, fails: bool = False) -> str:
    done = subprocess.run([BIN / "helm", *args], text=True, capture_output=True, env={
        "KUBECONFIG": str(world.cluster.kubeconfig), "HOME": str(world.cluster.folder)})
    expect((done.returncode != 0) == fails, f"helm {args[0]}: {done.stdout}{done.stderr}")
    return done.stderr if fails else done.stdout


def comparable(objects: list[dict]) -> dict[str, dict]:
    """Without what differs by design: where a change of settings shows."""
    found = {}
    for one in objects:
        text = json.dumps(one)
        if one["kind"] == "ConfigMap":
            text = text.replace(one["metadata"]["name"], "hearth")
        one = json.loads(text)
        one["metadata"].pop("namespace", None)
        template = one.get("spec", {}).get("template")
        if template:
            template["metadata"].get("annotations", {}).pop("checksum/config", None)
            for volume in template["spec"]["volumes"]:
                if "configMap" in volume:
                    volume["configMap"]["name"] = "hearth"
        found[f"{one['kind']}/{one['metadata']['name']}"] = one
    return found


@check("chart/it_is_made_from_base_and_renders_to_the_same", stage="manifests")
def same(world: World) -> None:
    done = subprocess.run([sys.executable, MANIFESTS / "tests" / "chart.py", BIN / "kubectl",
                           "--check"], text=True, capture_output=True)
    expect(done.returncode == 0, f"make it anew: {done.stdout}{done.stderr}")
    helm(world, "lint", "--strict", CHART)
    rendered = helm(world, "template", "hearth", CHART, "-n", NAMESPACE)
    expect_equal(comparable([o for o in yaml.safe_load_all(rendered) if o]),
                 comparable(built(world, "base")), "objects")


@check("chart/it_installs_upgrades_and_leaves_nothing", stage="manifests", limit_s=120)
def lifecycle(world: World) -> None:
    namespace = "chart"
    helm(world, "install", "hearth", CHART, "-n", namespace, "--create-namespace")
    helm(world, "upgrade", "hearth", CHART, "-n", namespace, "--set", "replicas.max=3")
    hpa = world.cluster.request(
        "GET", f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/hearth")
    expect_equal(hpa["spec"]["maxReplicas"], 3, "maxReplicas")
    helm(world, "uninstall", "hearth", "-n", namespace)
    left = world.cluster.kubectl("get", "all,configmaps,networkpolicies,roles,rolebindings,pdb",
                                 "-n", namespace, "-o", "name").stdout.split()
    expect_equal([one for one in left if "kube-root-ca" not in one], [], "what is left")


@check("chart/a_value_that_is_none_is_refused", stage="manifests")
def schema(world: World) -> None:
    said = helm(world, "template", "hearth", CHART, "--set", "replica=3", fails=True)
    expect("replica" in said, said)
