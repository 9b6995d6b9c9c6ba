"""The programs under the bench: each a process that is gone afterwards."""

import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_KB = os.sysconf("SC_PAGE_SIZE") / 1024
CONFIG = Path(__file__).with_name("envoy.yaml")


class Arm:
    """A running program, its address, and what it has cost."""

    def __init__(self, name: str, command: list[str], log: Path, stdout=None):
        self.name, self.log, self.address = name, log, ""
        with log.open("wb") as out:
            # A direct child on purpose: Envoy asks the kernel to die with the parent that started
            # it, which is right as long as that parent is us.
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout or out, stderr=out)

    def cpu_s(self) -> float:
        """User plus system time so far, all threads."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def rss_kb(self) -> float:
        return int(self._proc("statm").split()[1]) * PAGE_KB

    def _proc(self, file: str) -> str:
        return Path(f"/proc/{self._child.pid}/{file}").read_text()

    def wait(self, ready, what: str, deadline_s: float = 20):
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            if self._child.poll() is not None:
                break
            value = ready()
            if value:
                return value
            time.sleep(0.02)
        raise RuntimeError(f"{self.name}: not {what}\n{self.log.read_text()[-2000:]}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._child.terminate()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def fetch(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.read()
    except OSError:
        return None


def upstream(binary: Path, scratch: Path) -> tuple[Arm, list[str]]:
    """Four cheap pods in one process, and their addresses."""
    arm = Arm("upstream", [str(binary), "upstream", "--pods", "4"], scratch / "upstream.log")
    line = arm.wait(lambda: arm.log.read_text().strip(), "listening")
    return arm, line.split(",")


def envoy(binary: Path, pods: list[str], scratch: Path) -> Arm:
    config, admin = scratch / "envoy.yaml", scratch / "envoy.admin"
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
        for host, port in (pod.split(":") for pod in pods)]
    config.write_text(CONFIG.read_text().replace("lb_endpoints: ENDPOINTS",
                                                 f"lb_endpoints: {json.dumps(endpoints)}"))
    admin.unlink(missing_ok=True)
    arm = Arm("envoy", [str(binary), "-c", str(config), "--admin-address-path", str(admin),
                        "--use-dynamic-base-id", "--log-level", "warn"], scratch / "envoy.log")

    def bound():
        if not admin.exists() or not admin.read_text():
            return None
        page = fetch(f"http://{admin.read_text()}/listeners?format=json")
        statuses = json.loads(page or b"{}").get("listener_statuses") or [{}]
        socket = statuses[0].get("local_address", {}).get("socket_address")
        return socket and f"{socket['address']}:{socket['port_value']}"

    arm.address = arm.wait(bound, "listening")
    return arm


def hearth(binary: Path, pods: list[str], scratch: Path) -> Arm:
    arm = Arm("hearth", [str(binary), "serve", "--listen", "127.0.0.1:0",
                         "--admin-listen", "127.0.0.1:0", "--log-format", "json",
                         "--endpoints", ",".join(f"http://{pod}" for pod in pods)],
              scratch / "hearth.log")

    def bound():
        # Only the first lines: the access log that follows is long.
        with arm.log.open() as log:
            for line in (log.readline() for _ in range(50)):
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                fields = {**record, **(record.get("fields") or {})}
                if "admin_addr" in fields:
                    return fields["addr"], fields["admin_addr"]
        return None

    arm.address, admin = arm.wait(bound, "listening")
    arm.wait(lambda: fetch(f"http://{admin}/readyz") is not None, "ready")
    return arm
