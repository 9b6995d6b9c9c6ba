"""A real etcd and kube-apiserver on loopback, RBAC on, as a guard."""

import json
import os
import secrets
import signal
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from processes import CACHE, Group, free_port, wait_until

BIN = CACHE / "kube" / "bin"
LOGS = CACHE / "kube" / "logs"


class ApiError(Exception):
    """What the API server said instead of doing it."""

    def __init__(self, status: int, text: str):
        super().__init__(f"HTTP {status}: {text[:300]}")
        self.status = status


class Cluster:
    """Ready in four seconds. Its data lies in a folder that goes with it."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="hearth-kube-")
        self.folder = Path(self._folder.name)
        self.port, self._etcd_port, self._peer_port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.token = secrets.token_hex(16)
        self.etcd = self.server = self.controllers = None
        key, public = self.folder / "sa.key", self.folder / "sa.pub"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-out", public], check=True,
                       capture_output=True)
        (self.folder / "tokens.csv").write_text(f'{self.token},admin,1,"system:masters"\n')
        self.ca = self.folder / "certs" / "apiserver.crt"
        self.kubeconfig = self.folder / "admin.kubeconfig"
        self._context = None

    def start(self) -> None:
        client, peer = (f"http://127.0.0.1:{p}" for p in (self._etcd_port, self._peer_port))
        self.etcd = Group("etcd", [
            str(BIN / "etcd"), "--name", "t", "--data-dir", str(self.folder / "etcd"),
            "--unsafe-no-fsync", "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"t={peer}", "--log-level", "warn"], LOGS / "etcd.log")
        self.start_server()
        write_kubeconfig(self.kubeconfig, self.url, self.ca, {"token": self.token}, "default")

    def start_server(self, *extra: str) -> None:
        """The API server alone, on the data that etcd has."""
        folder = self.folder
        self.server = Group("apiserver", [
            str(BIN / "kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}", f"--cert-dir={folder / 'certs'}",
            "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={folder / 'sa.key'}",
            f"--service-account-key-file={folder / 'sa.pub'}",
            "--authorization-mode=RBAC", f"--token-auth-file={folder / 'tokens.csv'}",
            # Nothing here makes the `default` ServiceAccount that this plugin would insist on.
            "--disable-admission-plugins=ServiceAccount",
            # Compacted only when a check says so.
            "--etcd-compaction-interval=0", *extra], LOGS / "apiserver.log")
        wait_until(self._is_ready, 60, "the API server is ready")

    def _is_ready(self) -> bool:
        if not self.server.alive():
            raise RuntimeError(f"the API server ended:\n{self.server.tail()}")
        try:
            return self.ca.exists() and self.request("GET", "/readyz", timeout_s=2) == "ok"
        except (OSError, ApiError):
            return False

    def request(self, method: str, path: str, body=None, kind="application/json",
                token: str | None = None, timeout_s: float = 20):
        """One call of the API: an object, or the text where it is none."""
        if self._context is None:
            self._context = ssl.create_default_context(cafile=str(self.ca))
        request = urllib.request.Request(
            self.url + path, method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {token or self.token}", "content-type": kind})
        try:
            with urllib.request.urlopen(request, timeout=timeout_s, context=self._context) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode(errors="replace")) from None
        return json.loads(text) if text.startswith("{") else text

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True):
        """The finished process; its warnings are on stderr."""
        env = os.environ | {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)}
        done = subprocess.run([str(BIN / "kubectl"), *args], env=env, input=stdin, text=True,
                              capture_output=True, timeout=120)
        if check and done.returncode:
            raise RuntimeError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done

    def compact(self) -> None:
        """Forgets every revision but the present one."""
        revision = json.loads(self._etcd("/v3/kv/range", {"key": "AA=="}))["header"]["revision"]
        self._etcd("/v3/kv/compaction", {"revision": revision, "physical": True})

    def _etcd(self, path: str, body: dict) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self._etcd_port}{path}",
                                         data=json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # SIGKILL: at SIGTERM the API server waits a minute for its watches.
        for group in (self.server, self.etcd):
            if group:
                os.kill(group.pid, signal.SIGCONT) if group.alive() else None
                group.kill()
        self._folder.cleanup()


def write_kubeconfig(path: Path, url: str, ca: Path, user: dict, namespace: str) -> None:
    """JSON is YAML. `user` holds `token` or `tokenFile`."""
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "t",
        "clusters": [{"name": "t", "cluster": {"server": url, "certificate-authority": str(ca)}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "t", "context": {"cluster": "t", "user": "u",
                                               "namespace": namespace}}]}))
    path.chmod(0o600)
