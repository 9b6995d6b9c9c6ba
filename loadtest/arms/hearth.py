"""Hearth, with one policy: as the gateway, or choosing pods for an Envoy."""

import json
import re
from pathlib import Path

from . import envoy
from .arm import Arm, Program, fetch

WIRING = Path(__file__).with_name("envoy-extproc.yaml")


def hearth(binary: Path, pods: list[str], scratch: Path, policy: str = "warm",
           settings: tuple[str, ...] = ()) -> Arm:
    """Without `pods`, the settings name them."""
    server, address, admin = program(binary, ("serve", "--listen"), pods, scratch,
                                     ("--routing-policy", policy, *settings))
    return Arm("hearth", address, [server], admin)


def behind_envoy(binaries: tuple[Path, Path], pods: list[str], scratch: Path,
                 settings: tuple[str, ...] = (), modes: dict[str, str] | None = None) -> Arm:
    """`binaries`: Envoy's, Hearth's. `modes`: what of the wiring of Endpoint Pickers is another way."""
    proxy, picker = binaries
    server, address, admin = program(picker, ("epp", "--epp-listen"), pods, scratch, settings)
    wiring = WIRING.read_text().replace("EPP_PORT", address.rpartition(":")[2])
    for key, mode in ({"response_body_mode": "NONE"} if modes is None else modes).items():
        wiring = re.sub(rf"\b{key}: \w+", f"{key}: {mode}", wiring)
    (scratch / "envoy.yaml").write_text(wiring)
    try:
        gateway, address = envoy.program(proxy, scratch / "envoy.yaml", scratch)
    except RuntimeError:
        server.stop()
        raise
    return Arm("envoy-hearth", address, [server, gateway], admin)


def program(binary: Path, door: tuple[str, str], pods: list[str], scratch: Path,
            settings: tuple[str, ...]) -> tuple[Program, str, str]:
    """Hearth by this door (a command and its listener's flag), the listener's address, the admin's."""
    command, listen = door
    named = ("--endpoints", ",".join(f"http://{pod}" for pod in pods)) if pods else ()
    server = Program("hearth", [
        binary, command, listen, "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
        "--log-format", "json", *named, *settings],
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
    return server, address, admin
