"""Every file is parsed, built and applied; nothing warns, nothing changes twice, nothing stays."""

import json
import subprocess
import tempfile
from pathlib import Path

import yaml

from gateway import NAMESPACE, without_settings
from harness import check, expect, expect_equal
from world import MANIFESTS, OWNER, World

OVERLAYS = sorted(p.parent.relative_to(MANIFESTS).as_posix()
                  for p in MANIFESTS.rglob("kustomization.yaml"))
# What kubectl says when it is newer or older than the server is no warning of the manifests.
IGNORED = ("WARNING: version difference",)


def built(world: World, overlay: str) -> list[dict]:
    text = world.cluster.kubectl("kustomize", str(MANIFESTS / overlay)).stdout
    return [one for one in yaml.safe_load_all(text) if one]


@check("manifests/every_file_is_part_of_a_build", stage="manifests")
def every_file(_: World) -> None:
    named, real = set(), set()
    for overlay in OVERLAYS:
        folder = MANIFESTS / overlay
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
        named.add(folder / "kustomization.yaml")
        entries = kustomization.get("resources", [])
        entries += [p["path"] for p in kustomization.get("patches", []) if "path" in p]
        for generator in kustomization.get("configMapGenerator", []):
            entries += [f.split("=")[-1] for f in generator.get("files", [])]
        named |= {(folder / entry).resolve() for entry in entries}
    for path in MANIFESTS.rglob("*.yaml"):
        if not {"tests", "chart"} & set(path.relative_to(MANIFESTS).parts):
            list(yaml.safe_load_all(path.read_text()))
            real.add(path.resolve())
    lost = sorted(str(p.relative_to(MANIFESTS)) for p in real - named)
    expect(not lost, f"in no kustomization: {lost}")


@check("manifests/every_configuration_would_start", stage="manifests")
def configurations(world: World) -> None:
    for overlay in OVERLAYS:
        for one in built(world, overlay):
            text = (one.get("data") or {}).get("hearth.yaml")
            if one["kind"] != "ConfigMap" or text is None:
                continue
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "hearth.yaml"
                # The certificate is the user's.
                file.write_text(text.replace("/etc/hearth-tls", folder))
                subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days",
                                "1", "-subj", "/CN=hearth", "-keyout", f"{folder}/tls.key", "-out",
                                f"{folder}/tls.crt"], check=True, capture_output=True)
                done = subprocess.run([world.hearth, "check-config", file], text=True,
                                      capture_output=True, env=without_settings())
                expect(done.returncode == 0, f"{overlay}: {done.stderr}")


@check("manifests/each_overlay_applies_again_without_change_and_leaves_nothing", stage="manifests",
       limit_s=240)
def overlays(world: World) -> None:
    for overlay in OVERLAYS:
        if overlay == "crds" or overlay.startswith("overlays/tekton"):
            continue  # applied before all others: see below; without definitions: see tekton.py
        objects = built(world, overlay)
        makes = {o["metadata"]["name"] for o in objects if o["kind"] == "Namespace"}
        for namespace in {o["metadata"].get("namespace") for o in objects} - makes - {None}:
            world.cluster.kubectl("create", "namespace", namespace, check=False)
        applied = world.apply(overlay)
        warnings = [line for line in applied.stderr.splitlines() if not line.startswith(IGNORED)]
        expect(not warnings, f"{overlay} warns: {warnings}")
        before = versions(world, objects)
        expect_equal(len(before), len(objects), f"objects of {overlay}")
        world.apply(overlay)
        after = versions(world, objects)
        expect_equal([name for name in before if after.get(name) != before[name]], [],
                     f"what changes when {overlay} is applied again")
        world.cluster.kubectl("delete", "-k", str(MANIFESTS / overlay), "--wait=false")
        finish_deletion(world, objects)
        left = world.cluster.kubectl("get", kinds(objects), "-A", "-l", OWNER, "-o", "name").stdout
        expect(not left.strip(), f"{overlay} leaves {left.split()}")
        unowned = [f"{o['kind']}/{o['metadata']['name']}" for o in objects
                   if OWNER.split("=")[0] not in o["metadata"].get("labels", {})]
        expect(not unowned, f"{overlay}: without the owner's label: {unowned}")


def kinds(objects: list[dict]) -> str:
    def name(one: dict) -> str:
        group = one["apiVersion"].rpartition("/")[0]
        return one["kind"].lower() + (f".{group}" if group else "")
    return ",".join(sorted({name(one) for one in objects}))


def versions(world: World, objects: list[dict]) -> dict[str, dict]:
    """Each object as the server has it. Not its resourceVersion: that of a PersistentVolumeClaim
    moves with every apply, though nothing of it changes."""
    listed = world.cluster.kubectl("get", kinds(objects), "-A", "-l", OWNER, "-o", "json",
                                   "--show-managed-fields").stdout
    found = {}
    for one in json.loads(listed)["items"]:
        one["metadata"].pop("resourceVersion")
        found[f"{one['kind']}/{one['metadata']['name']}"] = one
    return found


def finish_deletion(world: World, objects: list[dict]) -> None:
    """What the controllers of namespaces and volumes do, which do not run here."""
    for one in objects:
        name, namespace = one["metadata"]["name"], one["metadata"].get("namespace")
        if one["kind"] == "Namespace":
            path = f"/api/v1/namespaces/{name}"
            going = world.cluster.request("GET", path)
            going["spec"]["finalizers"] = []
            world.cluster.request("PUT", f"{path}/finalize", going)
        elif one["kind"] == "PersistentVolumeClaim":
            path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"
            world.cluster.request("PATCH", path, {"metadata": {"finalizers": None}},
                                  kind="application/merge-patch+json")


@check("manifests/the_network_policy_selects_the_pods_of_its_own_deployments", stage="manifests")
def policies(world: World) -> None:
    for overlay in OVERLAYS:
        objects = built(world, overlay)
        policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
        for one in objects:
            template = one.get("spec", {}).get("template")
            if one["kind"] not in ("Deployment", "Job") or template is None:
                continue
            labels = template["metadata"]["labels"]
            hit = [p for p in policies if p["metadata"].get("namespace") == one["metadata"]
                   .get("namespace") and p["spec"]["podSelector"].get("matchLabels", {}).items()
                   <= labels.items()]
            expect(hit, f"{overlay}: no NetworkPolicy selects {one['metadata']['name']}")


@check("manifests/services_and_budgets_select_pods_that_are_made", stage="manifests")
def selectors(world: World) -> None:
    for overlay in OVERLAYS:
        objects = built(world, overlay)
        made = [o["spec"]["template"] for o in objects if o["kind"] == "Deployment"]
        for one in objects:
            selector = one.get("spec", {}).get("selector")
            if one["kind"] not in ("Service", "PodDisruptionBudget") or not selector:
                continue
            wanted = selector.get("matchLabels", selector)
            pods = [t for t in made if wanted.items() <= t["metadata"]["labels"].items()]
            expect(pods, f"{overlay}: {one['kind']} {one['metadata']['name']} selects nothing")
            names = {p["name"] for t in pods for c in t["spec"]["containers"] for p in c["ports"]}
            for port in one["spec"].get("ports", []):
                target = port.get("targetPort", port["port"])
                expect(isinstance(target, int) or target in names,
                       f"{overlay}: {one['metadata']['name']}: no container port {target}")


@check("manifests/the_endpoint_is_a_load_balancer_on_port_80", stage="manifests")
def load_balancer(world: World) -> None:
    for one in built(world, "."):
        if one["kind"] == "Service" and one["metadata"]["name"] == "hearth":
            expect_equal(one["spec"]["type"], "LoadBalancer", "type")
            expect_equal((one["spec"]["ports"][0]["port"], one["metadata"]["namespace"]),
                         (80, NAMESPACE), "port and namespace")
            return
    expect(False, "no Service `hearth`")
