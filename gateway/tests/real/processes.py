"""Child processes that are always gone afterwards, group and all."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hearth"
REAL = CACHE / "real"


def free_port() -> int:
    """A port nobody listens on now. vLLM cannot be told 0; the race is accepted, and loud."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Group:
    """One command in its own session, so that nothing it starts can outlive it.

    The group matters: an API server that is killed leaves its engine behind, which holds 2 GB and
    ignores SIGTERM.
    """

    def __init__(self, name: str, command: list[str], log: Path, env: dict[str, str] | None = None):
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                # Never our folder: `python -m` would take our modules for its own.
                cwd=log.parent, env=env, start_new_session=True)
        self.pid = self._child.pid

    def alive(self) -> bool:
        return self._child.poll() is None

    def kill(self) -> None:
        """SIGKILL to everything at once: what a node that loses power looks like."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._child.wait()

    def stop(self, patience_s: float = 15) -> None:
        if self.alive():
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(patience_s)
        self.kill()

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def get(url: str, timeout_s: float = 5) -> tuple[int, str]:
    """(status, body) of a GET; status 0 while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError:
        return 0, ""


def wait_until(ready, deadline_s: float, what: str, every_s: float = 0.05):
    """Polls `ready` until it answers something true, and returns that."""
    end = time.monotonic() + deadline_s
    while True:
        value = ready()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {deadline_s:g} s")
        time.sleep(every_s)


def exit_on_sigterm() -> None:
    """Turns SIGTERM into SystemExit, so that every `with` still runs."""
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(143)))
