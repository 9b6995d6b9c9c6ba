"""Tekton's objects, by the field names of its v1: its definitions cannot be installed here."""

import re

from harness import check, expect
from world import MANIFESTS, World

from checks.manifests import OVERLAYS, built

API = "tekton.dev/v1"
OVERLAY, RUNS = "overlays/tekton", "overlays/tekton/runs"
# What tekton.dev/v1 knows, as far as a pipeline that tests something needs it.
PARAM = {"name", "value"}
DECLARED = {"name", "type", "description", "default", "enum", "properties"}
STEP = {"name", "image", "command", "args", "env", "envFrom", "workingDir", "script",
        "computeResources", "securityContext", "volumeMounts", "workspaces", "timeout", "onError",
        "imagePullPolicy", "stdoutConfig", "stderrConfig", "results", "when", "ref", "params"}
TASK = {"params", "results", "steps", "workspaces", "volumes", "description", "displayName",
        "stepTemplate", "sidecars"}
PIPELINE_TASK = {"name", "taskRef", "taskSpec", "params", "workspaces", "runAfter", "timeout",
                 "retries", "when", "matrix", "onError", "displayName", "description"}
PIPELINE = {"params", "tasks", "finally", "results", "workspaces", "description", "displayName"}
RUN = {"pipelineRef", "pipelineSpec", "params", "workspaces", "timeouts", "taskRunTemplate",
       "taskRunSpecs", "status"}


def known(where: str, one: dict, names: set[str]) -> None:
    expect(one.keys() <= names, f"{where}: not in v1: {sorted(one.keys() - names)}")


def names(items: list[dict]) -> set[str]:
    return {item["name"] for item in items}


def task(where: str, spec: dict) -> None:
    known(where, spec, TASK)
    for param in spec.get("params", []):
        known(f"{where}, parameter", param, DECLARED)
    for result in spec.get("results", []):
        known(f"{where}, result", result, {"name", "type", "description", "value", "properties"})
    for step in spec["steps"]:
        known(f"{where}, step {step['name']}", step, STEP)
    used = set(re.findall(r"\$\(params\.([\w-]+)\)", str(spec)))
    declared = names(spec.get("params", []))
    expect(used == declared, f"{where}: parameters used {used}, declared {declared}")
    results = set(re.findall(r"\$\(results\.([\w-]+)\.path\)", str(spec)))
    expect(results == names(spec.get("results", [])), f"{where}: results {results}")
    spaces = set(re.findall(r"\$\(workspaces\.([\w-]+)\.path\)", str(spec)))
    expect(spaces == names(spec.get("workspaces", [])), f"{where}: workspaces {spaces}")


def given(where: str, params: list[dict], declared: list[dict]) -> None:
    for param in params:
        known(f"{where}, parameter", param, PARAM)
    needed = names([one for one in declared if "default" not in one])
    expect(needed <= names(params) <= names(declared),
           f"{where}: given {names(params)} of {names(declared)}, needed {needed}")


@check("tekton/every_object_is_what_v1_knows_and_refers_to_what_there_is", stage="manifests")
def objects(world: World) -> None:
    expect({OVERLAY, RUNS} <= set(OVERLAYS), "the overlay is gone")
    made = {(one["kind"], one["metadata"]["name"]): one["spec"]
            for overlay in (OVERLAY, RUNS) for one in built(world, overlay)
            if one["apiVersion"] == API}
    tasks = {name: spec for (kind, name), spec in made.items() if kind == "Task"}
    pipelines = {name: spec for (kind, name), spec in made.items() if kind == "Pipeline"}
    for name, spec in tasks.items():
        task(name, spec)
    for name, spec in pipelines.items():
        known(name, spec, PIPELINE)
        for one in spec["tasks"]:
            where = f"{name}, {one['name']}"
            known(where, one, PIPELINE_TASK)
            its = one.get("taskSpec") or tasks[one["taskRef"]["name"]]
            if "taskSpec" in one:
                task(where, its)
            given(where, one.get("params", []), its.get("params", []))
            expect(names(one.get("workspaces", [])) == names(its.get("workspaces", [])), where)
    for (kind, name), spec in made.items():
        if kind == "PipelineRun":
            known(name, spec, RUN)
            pipeline = pipelines[spec["pipelineRef"]["name"]]
            given(name, spec.get("params", []), pipeline.get("params", []))
            expect(names(spec.get("workspaces", [])) == names(pipeline.get("workspaces", [])), name)


@check("tekton/names_and_parameters_are_the_seeds", stage="manifests")
def seed(world: World) -> None:
    made = {one["metadata"]["name"]: one for overlay in (OVERLAY, RUNS)
            for one in built(world, overlay) if one["apiVersion"] == API}
    wanted = {
        "cache-hit-test": {"namespace", "gateway-url", "host", "warmup-count", "prompt", "requests",
                           "sleep-seconds", "prometheus-url"},
        "cache-pod-restart-pipeline": {"namespace"},
        "guidellm-benchmark": {"target", "model", "processor", "data", "rate-type"},
    }
    wanted["cache-hit-pipeline"] = wanted["cache-hit-test"]
    for name, params in wanted.items():
        expect(names(made[name]["spec"]["params"]) == params, name)
    runs = {"cache-hit-pipelinerun", "cache-ramp-pipelinerun"} | {
        f"cache-hit-multi5-{n}" for n in range(1, 6)}
    expect(runs <= made.keys(), f"missing: {runs - made.keys()}")
    folder = MANIFESTS / OVERLAY
    expect("session-id" in (folder / "cache-hit.yaml").read_text(), "its result")
