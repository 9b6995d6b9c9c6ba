"""Envoy with the real Endpoint Picker of llm-d behind its ext_proc filter.

The picker discovers pods from a file and needs no cluster. Wiring and weights are those of its own
documentation and chart: FULL_DUPLEX_STREAMED both ways, TLS that is not verified, queue 2, KV use 2,
prefix 3.
"""

import json
from pathlib import Path

from . import envoy
from .arm import Arm, Program, connects, free_port

HERE = Path(__file__).parent


def start(binaries: tuple[Path, Path], pods: list[str], scratch: Path, config: str,
          precise: dict | None = None) -> Arm:
    """`binaries`: Envoy's, the picker's. `precise`: model, render URL and KV port of the pods."""
    proxy, picker = binaries
    endpoints = [{"name": f"pod-{number}", "address": host, "port": port}
                 for number, (host, port) in enumerate(pod.split(":") for pod in pods)]
    # JSON is YAML.
    (scratch / "endpoints.yaml").write_text(json.dumps({"endpoints": endpoints}))
    text = (HERE / f"epp-{config}.yaml").read_text()
    words = {"ENDPOINTS_FILE": str((scratch / "endpoints.yaml").resolve()),
             **(precise or {})}
    for word, value in words.items():
        text = text.replace(word, str(value))
    (scratch / "epp.yaml").write_text(text)
    grpc, health, metrics = free_port(), free_port(), free_port()
    epp = Program("epp", [
        picker, "--pool-name", "bench", "--pool-namespace", "bench", "--config-file",
        scratch / "epp.yaml", "--tracing=false", "--metrics-endpoint-auth=false",
        "--grpc-port", grpc, "--grpc-health-port", health, "--metrics-port", metrics],
        scratch / "epp.log")
    epp.wait(lambda: connects(f"127.0.0.1:{grpc}"), "listening")
    wiring = scratch / "envoy.yaml"
    wiring.write_text((HERE / "envoy-extproc.yaml").read_text().replace("EPP_PORT", str(grpc)))
    try:
        gateway, address = envoy.program(proxy, wiring, scratch)
    except RuntimeError:
        epp.stop()
        raise
    return Arm(f"epp-{config}", address, [epp, gateway])
