"""The folder that one run leaves: raw records, what ran, and where."""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path


class Folder:
    """Records as JSON lines, each arm's own configuration and log, facts.json."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        (path / "records.jsonl").touch()

    def add(self, record: dict) -> None:
        with (self.path / "records.jsonl").open("a") as out:
            out.write(json.dumps(record) + "\n")

    def records(self) -> list[dict]:
        return [json.loads(line) for line in (self.path / "records.jsonl").read_text().splitlines()]

    def of_arm(self, kind: str, name: str) -> Path:
        folder = self.path / "arms" / kind / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def facts(self) -> dict:
        return json.loads((self.path / "facts.json").read_text())

    def write_facts(self, facts: dict) -> None:
        (self.path / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


def machine() -> dict:
    cpu = next((line.partition(":")[2].strip() for line in
                Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
               platform.machine())
    memory = int(Path("/proc/meminfo").read_text().split()[1])
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory / 2**20),
            "kernel": platform.release(), "load_at_start": os.getloadavg()[0]}


def versions(options) -> dict:
    """What each program says of itself."""
    return {
        "hearth": _says([options.hearth, "--version"]),
        "envoy": _says([options.envoy, "--version"]),
        "epp": _built_from(options.epp_bin),
        "agentgateway": _says([options.agw_bin, "--version"]),
        "vllm-router": _package(options.cache, "vllm-router-0.1.17", "vllm_router"),
        "smg": _package(options.cache, "smg-1.13.0", "smg"),
    }


def _says(command: list) -> str | None:
    if not command[0] or not Path(command[0]).exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              timeout=20)
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        # Without the names that they put before it: their own, or their path here.
        return lines[0].split("version:")[-1].split(maxsplit=1)[-1] if lines else "says nothing"
    return "does not say"


def _built_from(binary: Path | None) -> str | None:
    """The picker has no --version; Go writes the commit into what it builds, or at least what it is."""
    if not binary or not binary.exists():
        return None
    if not shutil.which("go"):
        return "not known (no `go` to read it)"
    told = subprocess.run(["go", "version", "-m", binary], capture_output=True, text=True).stdout
    kept = [" ".join(line.split()[1:]) for line in told.splitlines()
            if "vcs.revision=" in line or "vcs.time=" in line or line.startswith("\tmod\t")]
    return ", ".join(kept) or "not known"


def _package(cache: Path, home: str, name: str) -> str | None:
    for folder in cache.glob(f"{home}/lib/python3*/site-packages"):
        for found in metadata.distributions(path=[str(folder)]):
            if found.metadata["Name"].replace("-", "_").lower() == name:
                return found.version
    return None


class Foreign:
    """How many cores others used, beside the programs of this run: what makes a sample doubtful."""

    def __init__(self, ours):
        self._ours, self._began = ours, time.monotonic()
        self._busy, self._own = _busy_s(), ours()

    def cores(self) -> float:
        took = time.monotonic() - self._began
        others = (_busy_s() - self._busy) - (self._ours() - self._own)
        return max(0.0, others / took)


def _busy_s() -> float:
    """CPU seconds of everybody since boot, idle and stolen time left out."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _wait, irq, soft = fields[:7]
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
