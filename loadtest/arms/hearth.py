"""Hearth, with one policy."""

import json
from pathlib import Path

from .arm import Arm, Program, fetch


def hearth(binary: Path, pods: list[str], scratch: Path, policy: str = "warm",
           settings: tuple[str, ...] = ()) -> Arm:
    """Without `pods`, the settings name them."""
    named = ("--endpoints", ",".join(f"http://{pod}" for pod in pods)) if pods else ()
    server = Program("hearth", [
        binary, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
        "--log-format", "json", "--routing-policy", policy, *named, *settings],
        scratch / "hearth.log")

    def bound():
        # Only the first lines: the access log that follows is long.
        with server.log.open() as log:
            for line in (log.readline() for _ in range(50)):
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                fields = {**record, **(record.get("fields") or {})}
                if "admin_addr" in fields:
                    return fields["addr"], fields["admin_addr"]
        return None

    address, admin = server.wait(bound, "listening")
    server.wait(lambda: fetch(f"http://{admin}/readyz") is not None, "ready")
    return Arm("hearth", address, [server])
