"""`hearth doctor` under the gateway's own rights: silent on what is well, plain on what is not."""

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path

from fleet import MODEL, Engine
from gateway import without_settings
from harness import check, expect, expect_equal
from world import World


# The engines tell what they hold, which takes the tokens that they make.
TOKENIZER = Path(__file__).parents[3] / "loadtest/assets/tokenizer"
TOKENIZERS = ("--tokenizers", json.dumps({MODEL: str(TOKENIZER)}))


def doctor(world: World, *args: str) -> subprocess.CompletedProcess:
    return subprocess.run([world.hearth, "doctor", *args], text=True, capture_output=True,
                          env=without_settings() | {"HF_HUB_OFFLINE": "1"}, timeout=60)


def in_cluster(world: World) -> tuple[str, ...]:
    folder = world.cluster.folder
    return ("--config", str(folder / "hearth.yaml"),
            "--kubernetes-kubeconfig", str(folder / "gateway.kubeconfig"))


@check("doctor/healthy_pods_have_a_line_each_and_status_0", stage="gateway")
def healthy(world: World) -> None:
    done = doctor(world, *in_cluster(world), *TOKENIZERS)
    lines = done.stdout.splitlines()
    expect_equal((done.returncode, len(lines)), (0, len(world.engines)), done.stdout + done.stderr)
    expect(all(line.startswith("ok ") for line in lines), done.stdout)


@check("doctor/each_sick_pod_is_named_with_its_fault_and_a_fix", stage="gateway")
def sick(world: World) -> None:
    with Engine(world.loadtest, model="another/model") as other:
        dead = Engine(world.loadtest)
        dead.group.kill()
        world.pods.create("other", other.host, other.port)
        world.pods.create("dead", dead.host, dead.port)
        try:
            done = doctor(world, *in_cluster(world), "--json")
        finally:
            world.pods.remove("other")
            world.pods.remove("dead")
        report = json.loads(done.stdout)
        codes = {pod["name"]: [f["code"] for f in pod["findings"]] for pod in report["pods"]}
        expect_equal(done.returncode, 1, "exit code")
        expect_equal((codes["other"], codes["dead"], codes["pod-0"]),
                     (["model"], ["unreachable"], []), "findings")
        fixes = [f["fix"] for pod in report["pods"] for f in pod["findings"]]
        expect(all(fixes), "a finding without a fix")


@check("doctor/a_pair_that_hands_over_is_well_and_a_short_lease_is_found", stage="gateway")
def pair(world: World) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        pods = [stack.enter_context(Engine(world.loadtest, extra=("--connector", "nixl", *lease)))
                for lease in (("--kv-lease-s", "30"), ("--kv-lease-s", "1"), ())]

        def findings(prefill: Engine) -> list[str]:
            file = Path(folder) / "hearth.yaml"
            file.write_text(json.dumps({
                "endpoints": [{"url": prefill.url, "role": "prefill"},
                              {"url": pods[2].url, "role": "decode"}],
                "split": {"lease": "6s"}}))
            report = json.loads(doctor(world, "--config", str(file), "--json").stdout)
            return [f["code"] for pod in report["pods"] for f in pod["findings"]]

        expect_equal(findings(pods[0]), [], "30 s, where 6 s are promised")
        expect_equal(findings(pods[1]), ["lease"], "1 s, where 6 s are promised")
        plain = stack.enter_context(Engine(world.loadtest))
        expect_equal(findings(plain), ["split"], "without a connector")


@check("doctor/pods_can_be_named_by_url", stage="gateway")
def by_url(world: World) -> None:
    done = doctor(world, *TOKENIZERS, world.engines[0].url)
    expect_equal((done.returncode, done.stdout[:3]), (0, "ok "), done.stdout + done.stderr)
    done = doctor(world, world.engines[0].url)
    expect(done.stdout.startswith(f"BAD  fleet: no tokenizer for model {MODEL}"), done.stdout)
    expect_equal(done.returncode, 1, "events that cannot be used are a finding")
