"""An arm: one data plane of one or more processes that are gone afterwards, and what it costs."""

import os
import shlex
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

# A gateway that logs every request writes hundreds of MB a minute; what matters is its beginning.
LOG_BYTES = 1 << 20
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Program:
    """One running process, and those that it starts."""

    def __init__(self, name: str, command: list, log: Path):
        self.name, self.log, self.command = name, log, [str(word) for word in command]
        log.with_suffix(".command").write_text(shlex.join(self.command) + "\n")
        with log.open("wb") as out:
            # A direct child on purpose: Envoy asks the kernel to die with the parent that started
            # it, which is right as long as that parent is us.
            self._child = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out,
                                           stderr=out, env=environment())

    def cpu_s(self) -> float:
        """User plus system time so far, all threads."""
        return sum(_cpu_ticks(pid) for pid in _family(self._child.pid)) * TICK_S

    def rss_kb(self, peak: bool = False) -> int:
        """Resident memory now, or the most since the start."""
        field = "VmHWM:" if peak else "VmRSS:"
        return sum(_status_kb(pid, field) for pid in _family(self._child.pid))

    def wait(self, ready, what: str, deadline_s: float = 30):
        """Polls `ready` until it answers something true, and returns that."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end and self.alive():
            value = ready()
            if value:
                return value
            time.sleep(0.02)
        self.stop()
        tail = self.log.read_text(errors="replace")[-1500:]
        raise RuntimeError(f"{self.name}: not {what}\n{tail}")

    def alive(self) -> bool:
        return self._child.poll() is None

    def stop(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self.log.stat().st_size > LOG_BYTES:
            os.truncate(self.log, LOG_BYTES)


class Arm:
    """Programs, started in this order and ended in the other, behind one address."""

    def __init__(self, name: str, address: str, programs: list[Program], admin: str = ""):
        """`admin`: where its own pages are, its metrics among them."""
        self.name, self.address, self.programs, self.admin = name, address, programs, admin

    def cpu_s(self) -> float:
        return sum(program.cpu_s() for program in self.programs)

    def rss_kb(self, peak: bool = False) -> int:
        return sum(program.rss_kb(peak) for program in self.programs)

    def alive(self) -> bool:
        return all(program.alive() for program in self.programs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in reversed(self.programs):
            program.stop()


def environment() -> dict[str, str]:
    """Ours, without what is meant for this suite or would be a setting of Hearth (HEARTH_BINARY)."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}


def fetch(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.read()
    except OSError:
        return None


def connects(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on now, for programs that cannot be told 0."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _status_kb(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)
