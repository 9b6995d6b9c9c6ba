"""`hearth serve` as its Deployment runs it: its ConfigMap, its ServiceAccount's token, its namespace."""

import json
import os
import re
from pathlib import Path

from cluster import LOGS, Cluster, write_kubeconfig
from hearth import Hearth
from processes import Group, get

NAMESPACE = "llm-d"


class InCluster(Hearth):
    """The difference to a pod of the Deployment: ports of its own, and a kubeconfig for what the
    kubelet would mount."""

    def __init__(self, binary: Path, cluster: Cluster, extra: tuple[str, ...] = ()):
        self.cluster = cluster
        folder = cluster.folder
        self.token_file = folder / "gateway.token"
        self.rotate_token()
        kubeconfig = folder / "gateway.kubeconfig"
        write_kubeconfig(kubeconfig, cluster.url, cluster.ca,
                         {"tokenFile": str(self.token_file)}, NAMESPACE)
        config = folder / "hearth.yaml"
        config.write_text(config_of(cluster))
        command = [str(binary), "serve", "--config", str(config), "--listen", "127.0.0.1:0",
                   "--admin-listen", "127.0.0.1:0", "--kubernetes-kubeconfig", str(kubeconfig),
                   "--drain-linger", "0s", *extra]
        self.group = Group("hearth", command, LOGS / "hearth.log",
                           without_settings() | {"HF_HUB_OFFLINE": "1"})
        self.url = self.admin_url = ""

    def rotate_token(self) -> str:
        """A new token, as the kubelet writes one long before the old one ends."""
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/hearth/token"
        made = self.cluster.request("POST", path, {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 600}})
        fresh = self.token_file.with_suffix(".new")
        fresh.write_text(made["status"]["token"])
        fresh.replace(self.token_file)
        return made["status"]["token"]

    def pool(self) -> dict[str, dict]:
        """The pods that it knows, by name."""
        status, body = get(f"{self.admin_url}/pool", 5)
        if status != 200:
            raise OSError(f"/pool says {status}")
        return {pod["name"]: pod for pod in json.loads(body)["pods"]}

    def routable(self) -> set[str]:
        """Addresses that requests may go to."""
        return {pod["address"] for pod in self.pool().values() if is_routable(pod)}

    def metric(self, name: str) -> float:
        """The sum over a family's series."""
        _, body = get(f"{self.admin_url}/metrics", 5)
        values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", body, re.MULTILINE)
        if not values:
            raise KeyError(name)
        return sum(map(float, values))

    def log(self) -> str:
        return self.group.log.read_text(errors="replace")


def without_settings() -> dict[str, str]:
    """Our environment, without the caller's settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith("HEARTH_")}


def is_routable(pod: dict) -> bool:
    return pod["health"] == "ready"


def config_of(cluster: Cluster) -> str:
    """hearth.yaml as the Deployment in the cluster mounts it."""
    deployments = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/hearth"
    volumes = cluster.request("GET", deployments)["spec"]["template"]["spec"]["volumes"]
    name = next(v["configMap"]["name"] for v in volumes if v["name"] == "config")
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name}"
    return cluster.request("GET", path)["data"]["hearth.yaml"]
