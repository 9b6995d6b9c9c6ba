"""Envoy, plain: the ruler that everything else is measured with."""

import json
from pathlib import Path

from .arm import Arm, Program, connects, fetch

CONFIG = Path(__file__).with_name("envoy.yaml")


def program(binary: Path, config: Path, scratch: Path) -> tuple[Program, str]:
    """Envoy with this configuration, and the address of its first listener."""
    admin = scratch / "envoy.admin"
    admin.unlink(missing_ok=True)
    envoy = Program("envoy", [binary, "-c", config, "--admin-address-path", admin,
                              "--use-dynamic-base-id", "--log-level", "warn"],
                    scratch / "envoy.log")

    def bound():
        if not admin.exists() or not admin.read_text():
            return None
        page = fetch(f"http://{admin.read_text()}/listeners?format=json")
        statuses = json.loads(page or b"{}").get("listener_statuses") or [{}]
        socket = statuses[0].get("local_address", {}).get("socket_address")
        return socket and f"{socket['address']}:{socket['port_value']}"

    address = envoy.wait(bound, "bound")
    # It accepts once its clusters have had their first health check.
    envoy.wait(lambda: connects(address), "listening")
    return envoy, address


def plain(binary: Path, pods: list[str], scratch: Path) -> Arm:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
        for host, port in (pod.split(":") for pod in pods)]
    config = scratch / "envoy.yaml"
    config.write_text(CONFIG.read_text().replace("lb_endpoints: ENDPOINTS",
                                                 f"lb_endpoints: {json.dumps(endpoints)}"))
    envoy, address = program(binary, config, scratch)
    return Arm("envoy", address, [envoy])
