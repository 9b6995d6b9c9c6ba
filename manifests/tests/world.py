"""What a check is given: the cluster, its pods, and Hearth where the stage has one."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from cluster import Cluster
from fleet import Engine, Pods
from gateway import NAMESPACE, InCluster
from processes import wait_until

MANIFESTS = Path(__file__).resolve().parent.parent
OWNER = "app.kubernetes.io/part-of=hearth"


@dataclass
class World:
    stage: str
    # None where a stage has no API server.
    cluster: Cluster | None
    pods: Pods | None
    hearth: Path
    loadtest: Path
    gateway: InCluster | None = None
    engines: list[Engine] = field(default_factory=list)

    def apply(self, overlay: str, create_namespace: bool = False):
        """`kubectl apply -k`, server-side and strict."""
        if create_namespace:
            self.cluster.request("POST", "/api/v1/namespaces", {
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        return self.cluster.kubectl("apply", "--server-side", "--validate=strict",
                                    "-k", str(MANIFESTS / overlay))

    def wait_for_pool_api(self) -> None:
        """A definition is served a moment after it was accepted."""
        def served() -> bool:
            done = self.cluster.kubectl("get", "inferencepools.inference.networking.k8s.io", "-A",
                                        check=False)
            return done.returncode == 0

        wait_until(served, 20, "the API of InferencePools is served")

    def routable(self, address: str, wanted: bool, deadline_s: float = 10) -> float:
        """Seconds until Hearth sends requests to this address, or no more."""
        began = time.monotonic()
        wait_until(lambda: (address in self.gateway.routable()) == wanted, deadline_s,
                   f"{address} {'in' if wanted else 'out'}", every_s=0.02)
        return time.monotonic() - began


def note(text: str) -> None:
    """A figure, between the verdicts."""
    print(f"# {text}", flush=True)
