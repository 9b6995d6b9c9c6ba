#!/usr/bin/env python3
"""manifests/chart, made from what kustomize makes of base/: one source of truth.

usage: chart.py KUBECTL [--check]     --check: fail if what lies there is not what would be made
"""

import subprocess
import sys
from pathlib import Path

import yaml

MANIFESTS = Path(__file__).resolve().parent.parent
CHART = MANIFESTS / "chart"
NOTICE = "# Made by manifests/tests/chart.py from manifests/base. Change that.\n"
VERSION = "0.1.0"

VALUES = """\
# The image that you have built from Containerfile.
image: {image}
# Bounds of the HorizontalPodAutoscaler.
replicas: {{min: {min}, max: {max}}}
resources:
{resources}
service:
  type: LoadBalancer
  port: 80
# hearth.yaml; `hearth config` prints and explains every key.
config: |
{config}
"""

SCHEMA = """\
{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "required": ["image", "replicas", "resources", "service", "config"],
  "properties": {
    "global": {"type": "object"},
    "image": {"type": "string", "minLength": 1},
    "replicas": {
      "type": "object",
      "additionalProperties": false,
      "required": ["min", "max"],
      "properties": {
        "min": {"type": "integer", "minimum": 1},
        "max": {"type": "integer", "minimum": 1}
      }
    },
    "resources": {"type": "object"},
    "service": {
      "type": "object",
      "additionalProperties": false,
      "required": ["type", "port"],
      "properties": {
        "type": {"enum": ["LoadBalancer", "ClusterIP", "NodePort"]},
        "port": {"type": "integer", "minimum": 1, "maximum": 65535}
      }
    },
    "config": {"type": "string", "minLength": 1}
  }
}
"""

NOTES = """\
Hearth looks for pods with the labels of `kubernetes.selector` in namespace {{ .Release.Namespace }}.

  kubectl -n {{ .Release.Namespace }} get service hearth
  curl http://EXTERNAL-IP/v1/models
  kubectl -n {{ .Release.Namespace }} exec deploy/hearth -- /usr/local/bin/hearth doctor --config /etc/hearth/hearth.yaml
"""


def indent(text: str, by: int) -> str:
    return "".join(" " * by + line + "\n" for line in text.rstrip().splitlines()).rstrip("\n")


def made(kubectl: str) -> dict[str, str]:
    """Path in the chart, and what belongs there."""
    built = subprocess.run([kubectl, "kustomize", MANIFESTS / "base"], check=True, text=True,
                           capture_output=True).stdout
    objects = list(yaml.safe_load_all(built))
    files, facts = {}, {}
    for one in objects:
        one["metadata"].pop("namespace", None)
        for subject in one.get("subjects", []):
            subject["namespace"] = "@{{ .Release.Namespace }}@"
        kind = one["kind"]
        if kind == "ConfigMap":
            facts["config"] = one["data"]["hearth.yaml"]
            one["metadata"]["name"] = "hearth"
            one["data"]["hearth.yaml"] = "@CONFIG@"
        elif kind == "Deployment":
            template = one["spec"]["template"]
            container = template["spec"]["containers"][0]
            facts["image"], container["image"] = container["image"], "@{{ .Values.image }}@"
            facts["resources"], container["resources"] = container["resources"], "@RESOURCES@"
            # The name of the ConfigMap stays, so a change of it must show here to roll out.
            template["metadata"]["annotations"]["checksum/config"] = (
                "@{{ .Values.config | sha256sum }}@")
            for volume in template["spec"]["volumes"]:
                if "configMap" in volume:
                    volume["configMap"]["name"] = "hearth"
        elif kind == "HorizontalPodAutoscaler":
            spec = one["spec"]
            facts["min"], facts["max"] = spec["minReplicas"], spec["maxReplicas"]
            spec["minReplicas"] = "@{{ .Values.replicas.min }}@"
            spec["maxReplicas"] = "@{{ .Values.replicas.max }}@"
        elif kind == "Service" and one["metadata"]["name"] == "hearth":
            one["spec"]["type"] = "@{{ .Values.service.type }}@"
            one["spec"]["ports"][0]["port"] = "@{{ .Values.service.port }}@"
        text = yaml.safe_dump(one, sort_keys=False, width=1000)
        text = text.replace("'@{{", "{{").replace("}}@'", "}}")
        text = text.replace("'@CONFIG@'", "|\n{{ .Values.config | indent 4 }}")
        text = text.replace("'@RESOURCES@'", "{{ .Values.resources | toJson }}")
        name = f"{kind.lower()}-{one['metadata']['name']}.yaml"
        files[f"templates/{name}"] = NOTICE + text
    config, resources = indent(facts.pop("config"), 2), indent(
        yaml.safe_dump(facts.pop("resources"), width=1000), 2)
    files["values.yaml"] = NOTICE + VALUES.format(config=config, resources=resources, **facts)
    files["values.schema.json"], files["templates/NOTES.txt"] = SCHEMA, NOTES
    files["Chart.yaml"] = NOTICE + yaml.safe_dump({
        "apiVersion": "v2", "name": "hearth", "type": "application", "version": VERSION,
        "appVersion": VERSION,
        "description": "An OpenAI endpoint in front of vLLM pods that sends each request to the "
                       "warmest"}, sort_keys=False, width=1000)
    return files


def main() -> int:
    files = made(sys.argv[1])
    if "--check" in sys.argv:
        real = {p.relative_to(CHART).as_posix() for p in CHART.rglob("*") if p.is_file()}
        wrong = sorted(real ^ set(files)) + [name for name, text in files.items() if name in real
                                             and (CHART / name).read_text() != text]
        print("\n".join(wrong), end="")
        return 1 if wrong else 0
    for name, text in files.items():
        (CHART / name).parent.mkdir(parents=True, exist_ok=True)
        (CHART / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
