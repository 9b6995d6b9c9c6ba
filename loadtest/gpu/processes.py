"""Programs that are started here: each in a session of its own, each with a log, each found again."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Program:
    """One command and all that it starts; `pid` leads the group."""

    def __init__(self, name: str, command: list[str], log: Path, env: dict[str, str] | None = None,
                 stdout: Path | None = None, cwd: Path | None = None):
        self.name, self.log = name, log
        with log.open("ab") as errors, (stdout or log).open("ab") as out:
            # A direct child: Envoy asks the kernel to die with the parent that started it.
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
                start_new_session=True, cwd=cwd, env={**os.environ, **(env or {})})
        self.pid = self.child.pid

    def alive(self) -> bool:
        return self.child.poll() is None

    def cpu_s(self) -> float:
        """User plus system time so far of the leader, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, patience_s: float = 8) -> None:
        if self.alive():
            self.child.terminate()
            try:
                self.child.wait(patience_s)
            except subprocess.TimeoutExpired:
                pass
        kill_group(self.pid)
        self.child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def kill_group(pid: int, sent: int = signal.SIGKILL) -> None:
    """An API server that dies alone leaves its engine behind."""
    try:
        os.killpg(pid, sent)
    except ProcessLookupError:
        pass


def get(url: str, timeout_s: float = 5) -> str | None:
    """A page's text; none unless it is here in time with a 2xx."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return answer.read().decode()
    except OSError:
        return None


def post(url: str, body: object | None = None, timeout_s: float = 60) -> tuple[int, str]:
    data = b"" if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def wait_until(ready, deadline_s: float, what: str, every_s: float = 0.1):
    """Polls `ready` until it answers something true, and returns that."""
    end = time.monotonic() + deadline_s
    while True:
        value = ready()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {deadline_s:g} s")
        time.sleep(every_s)
