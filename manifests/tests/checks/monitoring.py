"""Rules that can fire: each with a case of its own, over metrics that Hearth really has."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from cluster import BIN
from exchange import post
from fleet import MODEL
from harness import check, expect
from processes import get
from world import MANIFESTS, World, note

MONITORING = MANIFESTS / "overlays" / "monitoring"
CASES = MANIFESTS / "tests" / "rules-tests.yaml"
RULES = yaml.safe_load((MONITORING / "rules.yaml").read_text())
ALERTS = {r["alert"] for g in RULES["groups"] for r in g["rules"] if "alert" in r}


def promtool(*args: str, folder: str | Path = MONITORING) -> None:
    done = subprocess.run([BIN / "promtool", *args], cwd=folder, text=True, capture_output=True)
    expect(done.returncode == 0, f"promtool {args[0]} {args[1]}: {done.stdout}{done.stderr}")


@check("monitoring/each_alert_fires_when_it_should_and_is_silent_when_not", stage="manifests")
def rules(_: World) -> None:
    promtool("check", "rules", "rules.yaml")
    promtool("check", "config", "prometheus.yaml")
    with tempfile.TemporaryDirectory() as folder:
        for file in (MONITORING / "rules.yaml", CASES):
            shutil.copy(file, folder)
        promtool("test", "rules", CASES.name, folder=folder)
    cases = [c for t in yaml.safe_load(CASES.read_text())["tests"] for c in t["alert_rule_test"]]
    for alert in sorted(ALERTS):
        fires = {bool(c["exp_alerts"]) for c in cases if c["alertname"] == alert}
        expect(fires == {True, False}, f"{alert} lacks a case that fires, or one that does not")


@check("monitoring/every_alert_has_a_line_in_the_runbook", stage="manifests")
def runbook(_: World) -> None:
    readme = (MANIFESTS / "README.md").read_text()
    missing = [alert for alert in sorted(ALERTS) if f"`{alert}`" not in readme]
    expect(not missing, f"not in manifests/README.md: {missing}")


@check("monitoring/every_metric_of_the_rules_is_one_that_hearth_exports", stage="gateway")
def exported(world: World) -> None:
    for n in range(10):
        post(world.gateway.url, "/v1/chat/completions", {
            "model": MODEL, "stream": True, "max_tokens": 4,
            "messages": [{"role": "user", "content": f"{n} " + "word " * 50}]})
    _, page = get(f"{world.gateway.admin_url}/metrics")
    families = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    # These appear with their first event, or with TLS.
    rare = {"hearth_errors_total", "hearth_retries_total", "hearth_tls_certificate_expiry_seconds",
            "hearth_splits_total", "hearth_queue_refused_total"}
    text = (MONITORING / "rules.yaml").read_text()
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bhearth_\w+", text)}
    note(f"{len(used)} families of {len(families)} are used by rules")
    expect(used <= families | rare, f"unknown: {sorted(used - families - rare)}")
