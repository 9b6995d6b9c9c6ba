"""The routers that others publish as packages or binaries, each with its documented flags."""

from pathlib import Path

from .arm import Arm, Program, connects, fetch, free_port


def _urls(pods: list[str]) -> list[str]:
    return [f"http://{pod}" for pod in pods]


def _python(name: str, command: list, address: str, admin: str, scratch: Path) -> Arm:
    router = Program(name, command, scratch / f"{name}.log")
    router.wait(lambda: connects(address), "listening", 60)
    # Both list their workers only when they have met them.
    router.wait(lambda: (fetch(f"http://{address}/health") is not None
                         and fetch(f"http://{address}/v1/models") is not None), "ready", 60)
    return Arm(name, address, [router], admin)


def vllm_router(command: list, pods: list[str], scratch: Path, policy: str) -> Arm:
    port, metrics = free_port(), free_port()
    return _python("vllm-router", [
        *command, "--host", "127.0.0.1", "--port", port,
        "--prometheus-host", "127.0.0.1", "--prometheus-port", metrics, "--policy", policy,
        "--log-level", "warning", "--max-payload-size", 16 << 20, "--worker-urls", *_urls(pods)],
        f"127.0.0.1:{port}", f"127.0.0.1:{metrics}", scratch)


def smg(command: list, pods: list[str], scratch: Path, policy: str) -> Arm:
    port, metrics = free_port(), free_port()
    return _python("smg", [
        *command, "launch", "--host", "127.0.0.1", "--port", port,
        "--prometheus-host", "127.0.0.1", "--prometheus-port", metrics, "--policy", policy,
        "--log-level", "warn", "--worker-urls", *_urls(pods)],
        f"127.0.0.1:{port}", f"127.0.0.1:{metrics}", scratch)


def agentgateway(binary: Path, pods: list[str], scratch: Path) -> Arm:
    """Its plain HTTP route: bytes untouched, no request log."""
    port = free_port()
    backends = "".join(f"      - host: {pod}\n" for pod in pods)
    config = scratch / "agentgateway.yaml"
    config.write_text(f"""config:
  adminAddr: "off"
  logging: {{level: warn, filter: 'false'}}
frontendPolicies:
  http: {{maxBufferSize: {20 << 20}}}
binds:
- port: {port}
  listeners:
  - routes:
    - backends:
{backends}""")
    gateway = Program("agentgateway", [binary, "-f", config], scratch / "agentgateway.log")
    address = f"127.0.0.1:{port}"
    gateway.wait(lambda: connects(address), "listening")
    return Arm("agentgateway", address, [gateway])
