"""The two load tools people point at an endpoint complete against it."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from harness import World, check, expect
from processes import REAL
from pods import MODELS

SECONDS = 10


def tool(command: list[str], env: dict[str, str], limit_s: int = 300) -> None:
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=limit_s, check=False)
    expect(done.returncode == 0, f"exit {done.returncode}: {(done.stderr or done.stdout)[-500:]}")


def environment(**more: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items()
             if k not in ("PYTHONDONTWRITEBYTECODE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    return clean | more


@check("aiperf/completes", limit_s=180)
def aiperf(world: World) -> None:
    with tempfile.TemporaryDirectory() as out:
        tool([str(REAL / "aiperf/bin/aiperf"), "profile",
              "--model", world.model, "--url", world.gateway, "--endpoint-type", "chat",
              "--streaming", "--tokenizer", str(MODELS[world.model]),
              "--concurrency", "2", "--benchmark-duration", str(SECONDS),
              "--synthetic-input-tokens-mean", "100", "--output-tokens-mean", "16",
              "--extra-inputs", "ignore_eos:true", "--ui", "none", "--output-artifact-dir", out],
             # Offline variables make it refuse even a local tokenizer.
             environment(PATH=f"{REAL / 'aiperf/bin'}:{os.environ['PATH']}"))
        report = json.loads(next(Path(out).rglob("profile_export_aiperf.json")).read_text())
    count = report["request_count"]["avg"]
    expect(count > 0, "no request completed")
    errors = (report.get("error_request_count") or {}).get("avg", 0)
    expect(not errors, f"{errors} requests failed: {report.get('error_summary')}")
    print(f"# aiperf: {count:.0f} requests")


@check("guidellm/completes", limit_s=180)
def guidellm(world: World) -> None:
    with tempfile.TemporaryDirectory() as out:
        path = Path(out, "report.json")
        tool([str(REAL / "guidellm/bin/guidellm"), "run",
              "--backend", f"kind=openai_http,target={world.gateway}",
              "--profile", "kind=concurrent,streams=2",
              "--constraint", f"kind=max_duration,seconds={SECONDS}",
              "--tokenizer", f"kind=hf_auto,model={MODELS[world.model]}",
              "--data", "kind=synthetic_text,prompt_tokens=100,output_tokens=16",
              "--output", f"kind=json,path={path}", "--disable-progress"],
             environment(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1"))
        report = json.loads(path.read_text())
    totals = report["benchmarks"][0]["metrics"]["request_totals"]
    expect(totals["successful"] > 0 and not totals["errored"], f"requests: {totals}")
    print(f"# guidellm: {totals['successful']} requests")
