"""Pods of the API server whose addresses are simulated vLLM servers on 127.0.0.x."""

import itertools
from pathlib import Path

from cluster import LOGS, ApiError, Cluster
from processes import Group, free_port, get, wait_until

MODEL = "meta-llama/Llama-3.2-3B-Instruct"
LABELS = {"llm-d.ai/inferenceServing": "true", "llm-d.ai/role": "decode"}
_hosts = itertools.count(2)


class Engine:
    """One simulated vLLM server, with its own loopback address."""

    def __init__(self, loadtest: Path, host: str | None = None, port: int = 0, model: str = MODEL,
                 pods: int = 1, extra: tuple[str, ...] = ()):
        self.host = host or f"127.0.0.{next(_hosts)}"
        # Many pods have consecutive ports, below those that the system gives out.
        self.port = port or (free_port() if pods == 1 else 20_000)
        self.group = Group("simulate", [
            str(loadtest), "simulate", "--host", self.host, "--port", str(self.port),
            "--pods", str(pods), "--model", model, "--decode-ms", "2", "--kv-events-port", "0",
            "--kv-events-replay-port", "0", *extra], LOGS / f"simulate-{self.host}-{self.port}.log")

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def wait_ready(self) -> None:
        wait_until(lambda: get(f"{self.url}/health", 1)[0] == 200, 20, f"{self.url} answers")

    def __enter__(self):
        self.wait_ready()
        return self

    def __exit__(self, *_):
        self.group.kill()


class Pods:
    """Pod objects in one namespace. There is no kubelet: we write what it would."""

    def __init__(self, cluster: Cluster, namespace: str):
        self.cluster, self.path = cluster, f"/api/v1/namespaces/{namespace}/pods"

    def create(self, name: str, ip: str, port: int, ready: bool = True,
               labels: dict | None = None, containers: list | None = None) -> None:
        """A pod that runs. `containers`: instead of one with the port named `http`."""
        containers = containers or [container("vllm", {"http": port})]
        self.cluster.request("POST", self.path, {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": LABELS if labels is None else labels},
            "spec": {"containers": containers, "nodeName": "n0"}})
        self.set_status(name, ip, ready)

    def set_status(self, name: str, ip: str, ready: bool) -> None:
        self.cluster.request("PATCH", f"{self.path}/{name}/status", {"status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False",
                            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}},
            kind="application/merge-patch+json")

    def set_labels(self, name: str, labels: dict) -> None:
        self.cluster.request("PATCH", f"{self.path}/{name}", {"metadata": {"labels": labels}},
                             kind="application/merge-patch+json")

    def terminate(self, name: str) -> None:
        """As `kubectl delete` does it: the object stays until its kubelet is done with it."""
        self.cluster.request("DELETE", f"{self.path}/{name}")

    def remove(self, name: str) -> None:
        """Gone at once."""
        try:
            self.cluster.request("DELETE", f"{self.path}/{name}?gracePeriodSeconds=0")
        except ApiError as error:
            if error.status != 404:
                raise

    def remove_all(self) -> None:
        self.cluster.request("DELETE", f"{self.path}?gracePeriodSeconds=0")

    def names(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.cluster.request("GET", self.path)["items"]}


def container(name: str, ports: dict[str, int]) -> dict:
    return {"name": name, "image": "none",
            "ports": [{"name": n, "containerPort": p} for n, p in ports.items()]}
