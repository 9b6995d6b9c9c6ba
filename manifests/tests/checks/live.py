"""A real Prometheus over a real gateway for a minute: every panel and every rule has an answer."""

import concurrent.futures
import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

import yaml

from cluster import BIN, LOGS
from exchange import post, send
from fleet import MODEL
from harness import check, expect
from hearth import Hearth
from processes import Group, free_port, get, wait_until
from world import MANIFESTS, World, note

MONITORING = MANIFESTS / "overlays" / "monitoring"
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
LOAD_S = int(os.environ.get("HEARTH_LIVE_S", "60"))
CLIENTS = 6
# Names that older versions of vLLM have, in rules that take either.
OLD = {"vllm:gpu_prefix_cache_hits_total", "vllm:gpu_prefix_cache_queries_total",
       "vllm:time_per_output_token_seconds_bucket"}
FAMILY = re.compile(r"\b(?:hearth|vllm|inference|epp|DCGM)[:_][\w:]+|\bup\b")


@check("live/every_panel_and_rule_has_an_answer", stage="live", limit_s=300)
def answers(world: World) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        pods = [stack.enter_context(pod(world)) for _ in range(4)]
        gateway = stack.enter_context(Hearth(world.hearth, [], ("--config", str(
            settings(Path(folder), pods)))))
        gateway.wait_ready()
        gpu = stack.enter_context(gpu_exporter(pods))
        prometheus = stack.enter_context(Prometheus(Path(folder), gateway.admin_url, pods, gpu))
        load(gateway.url, pods)
        prometheus.settle()
        expect_answers(prometheus)


def expect_answers(prometheus: "Prometheus") -> None:
    groups = prometheus.ask("/api/v1/rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    sick = [rule["name"] for rule in rules if rule["health"] != "ok"]
    expect(not sick, f"not evaluated: {sick}")
    queries = [(rule["name"], rule["name"]) for rule in rules if rule["type"] == "recording"]
    queries += [(f"{board.stem}: {title}", expr)
                for board in DASHBOARDS for title, expr in panels(board)]
    known = set(prometheus.ask("/api/v1/label/__name__/values")) | OLD
    used = {name for _, expr in queries for name in FAMILY.findall(expr)}
    used |= {name for rule in rules for name in FAMILY.findall(rule["query"])}
    expect(used <= known, f"metrics that nobody has: {sorted(used - known)}")
    empty = [title for title, expr in queries if not prometheus.query(expr)]
    expect(not empty, f"no answer: {empty}")
    note(f"{len(rules)} rules, {len(queries)} queries of {len(DASHBOARDS)} dashboards")


def panels(board: Path):
    """Title and query of each target, with all that is chosen in a fresh dashboard."""
    for panel in json.loads(board.read_text())["panels"]:
        for target in panel["targets"]:
            expr = target["expr"].replace("$model", ".*").replace("$namespace", ".*")
            yield f"{panel['title']} ({target['legendFormat']})", expr


def pod(world: World) -> Group:
    port = free_port()
    group = Group("simulate", [
        str(world.loadtest), "simulate", "--port", str(port), "--model", MODEL, "--connector",
        "nixl", "--decode-ms", "5"], LOGS / f"simulate-live-{port}.log")
    group.port, group.url = port, f"http://127.0.0.1:{port}"
    wait_until(lambda: get(f"{group.url}/health", 1)[0] == 200, 20, f"{group.url} answers")
    return group


def settings(folder: Path, pods: list) -> Path:
    """One pod prefills, the others decode; what the alerts ask for happens within a minute."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
                    "/CN=hearth", "-keyout", folder / "tls.key", "-out", folder / "tls.crt"],
                   check=True, capture_output=True)
    roles = ["prefill", "decode", "decode", "decode"]
    file = folder / "hearth.yaml"
    file.write_text(yaml.safe_dump({
        "endpoints": [{"url": one.url, "role": role} for one, role in zip(pods, roles, strict=True)],
        "tls": {"listen": "127.0.0.1:0", "cert": str(folder / "tls.crt"),
                "key": str(folder / "tls.key")},
        "metrics": {"epp_names": True},
        "model_names": {"aliases": {"auto": {MODEL: 1}}},
        "split": {"min_uncached_tokens": 64, "stall": 1e9},
        "queue": {"per_pod": 4, "waiting": 4},
    }))
    return file


@contextlib.contextmanager
def gpu_exporter(pods: list):
    """NVIDIA's exporter needs a GPU: the one family of it that a panel asks for."""
    page = "".join(f'DCGM_FI_DEV_GPU_UTIL{{exported_pod="127.0.0.1:{one.port}"}} 50\n' for one in pods)

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/plain")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Prometheus:
    """The overlay's rules over targets that are named here; scraped every second."""

    def __init__(self, folder: Path, gateway: str, pods: list, gpu: str):
        shutil.copy(MONITORING / "rules.yaml", folder)
        jobs = {"hearth": [gateway.removeprefix("http://")],
                "vllm": [one.url.removeprefix("http://") for one in pods], "gpu": [gpu]}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                # As the overlay's Prometheus: what a target says of itself is kept aside.
                {"job_name": job, "honor_labels": job == "gpu",
                 "static_configs": [{"targets": targets, "labels": {"namespace": "llm-d"}}]}
                for job, targets in jobs.items()]}))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.group = Group("prometheus", [
            str(BIN / "prometheus"), f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"],
            LOGS / "prometheus.log")

    def __enter__(self):
        wait_until(lambda: get(f"{self.url}/-/ready", 1)[0] == 200, 20, "Prometheus is ready")
        return self

    def __exit__(self, *_):
        self.group.stop()

    def ask(self, path: str):
        status, body = get(f"{self.url}{path}", 10)
        expect(status == 200, f"{path}: {status} {body[:300]}")
        return json.loads(body)["data"]

    def query(self, expr: str) -> list:
        return self.ask(f"/api/v1/query?{urllib.parse.urlencode({'query': expr})}")["result"]

    def settle(self) -> None:
        """What has happened was scraped, and the rules have seen it."""
        now = time.time()
        wait_until(lambda: all(
            float(self.query(f'min(timestamp({name}))')[0]["value"][1]) > now
            for name in ("up", "hearth:cached_tokens:ratio5m")), 30, "all is scraped")


def load(url: str, pods: list) -> None:
    """Conversations, and everything that goes wrong in an ordinary week."""
    end = time.monotonic() + LOAD_S

    def ask(words: str, model: str = MODEL, stream: bool = True, tokens: int = 8):
        with contextlib.suppress(OSError, TimeoutError):
            post(url, "/v1/chat/completions", {
                "model": model, "stream": stream, "max_tokens": tokens,
                "messages": [{"role": "user", "content": words}]})

    def client(number: int) -> None:
        turn = 0
        while time.monotonic() < end:
            turn += 1
            ask(f"{number} {turn} " + "word " * 300)
            ask(f"{number} again " + "word " * 300, "auto", stream=False)
            if turn % 10 == 0:
                ask("nobody has it", "gpt-9")

    with concurrent.futures.ThreadPoolExecutor(CLIENTS + 60) as pool:
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        # More at once than pods and waiting room take.
        burst = [pool.submit(ask, f"burst {n} " + "word " * 100, tokens=64) for n in range(60)]
        concurrent.futures.wait(burst)
        faults = [(pods[1], {"fault": "break", "after_tokens": 3, "how": "cut", "times": 20}),
                  (pods[2], {"fault": "status", "status": 500, "times": 3}),
                  (pods[0], {"fault": "no_lease"})]
        for sick, fault in faults:
            status = post(sick.url, "/sim/fault", fault).status
            expect(status == 204, f"{fault}: {status}")
        time.sleep(min(5, LOAD_S / 4))
        for sick, _ in faults:
            with contextlib.suppress(OSError):
                send(sick.url, "DELETE", "/sim/fault", None, {}, 5)
        concurrent.futures.wait(clients)
