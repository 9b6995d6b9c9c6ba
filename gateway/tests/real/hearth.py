"""`hearth serve` on free ports in front of some pods, as a guard."""

import json
import os
from pathlib import Path

from processes import REAL, Group, get, wait_until


class Hearth:
    def __init__(self, binary: Path, endpoints: list[str], extra: tuple[str, ...] = ()):
        command = [
            str(binary), "serve",
            "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json",
            # None: they are in a file that `extra` names.
            *(("--endpoints", ",".join(endpoints)) if endpoints else ()), *extra,
        ]
        # Settings come from flags alone: a stray HEARTH_* of the caller's would win over nothing here.
        env = {k: v for k, v in os.environ.items() if not k.startswith("HEARTH_")}
        self.group = Group("hearth", command, REAL / "logs" / "hearth.log", env)
        self.url = self.admin_url = ""

    def wait_ready(self) -> None:
        def bound():
            self._expect_alive()
            for line in self.group.log.read_text(errors="replace").splitlines():
                addresses = _addresses(line)
                if addresses:
                    return addresses
            return None

        listen, admin = wait_until(bound, 20, "hearth says its addresses")
        self.url, self.admin_url = f"http://{listen}", f"http://{admin}"

        def ready():
            self._expect_alive()
            return get(f"{self.admin_url}/readyz", 2)[0] == 200

        wait_until(ready, 20, "hearth ready")

    def _expect_alive(self) -> None:
        if not self.group.alive():
            raise RuntimeError(f"hearth ended:\n{self.group.tail()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.group.stop()


def _addresses(line: str) -> tuple[str, str] | None:
    """The two bound addresses, if this is the log line that tells them."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    fields = {**record, **record.get("fields", {})} if isinstance(record, dict) else {}
    if "addr" in fields and "admin_addr" in fields:
        return fields["addr"], fields["admin_addr"]
    return None
