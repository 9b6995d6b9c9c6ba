"""What stands before the servers: Hearth under several settings, its peers, or nothing."""

import contextlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from fleet import MODEL, Shape
from processes import Program, get, wait_until

sys.path.append(str(Path(__file__).parents[1]))
from arms import envoy, epp, peers  # noqa: E402  (as `make bench` and `make compare` start them)


@dataclass(frozen=True)
class Arm:
    """One proxy under one configuration. `session`: clients send x-session-id."""

    name: str
    kind: str = "hearth"
    settings: tuple[tuple[str, object], ...] = ()
    session: bool = False


def hearth(name: str, session: bool = False, **settings) -> Arm:
    return Arm(name, "hearth", tuple(settings.items()), session)


WARM = hearth("hearth-warm")
ARMS = [
    WARM,
    Arm("envoy", "envoy"),
    hearth("hearth-round-robin", routing={"policy": "round-robin"}),
    hearth("hearth-least-request", routing={"policy": "least-request"}),
    hearth("hearth-session", session=True, routing={"policy": "session"}),
    Arm("vllm-router", "vllm-router"),
    hearth("hearth-warm-untold", kv_events={"mode": "off"}, tokenizers={}),
    Arm("envoy-epp", "envoy-epp"),
    Arm("envoy-epp-precise", "envoy-epp-precise"),
]
# Where llm-d's picker listens for every pod's events.
EPP_KV_PORT = 26_000


class Running:
    """A proxy that listens; its programs are gone afterwards."""

    def __init__(self, arm: Arm, url: str, programs: list, admin: str = "", log: Path | None = None,
                 beside: list | None = None):
        """`beside`: what it needs here and would not elsewhere; its CPU does not count."""
        self.arm, self.url, self.programs, self.admin, self.log = arm, url, programs, admin, log
        self.beside = beside or []

    def cpu_s(self) -> float:
        return sum(program.cpu_s() for program in self.programs)

    def access(self) -> list[dict]:
        """Hearth's access log so far."""
        if not self.log:
            return []
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"start_time"')]

    def save(self, folder: Path) -> None:
        """What a proxy says of itself, and its log."""
        # Some peers' listeners answer every path with their metrics.
        for page in ("metrics", *(("why", "pool", "config") if self.log else ())):
            text = self.admin and get(f"{self.admin}/{page}", 10)
            if text:
                (folder / page).write_text(text)
        if self.log:
            shutil.copy(self.log, folder / "access.jsonl")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in self.programs + self.beside:
            program.__exit__()


def available(arm: Arm, options) -> bool:
    needed = {"hearth": options.hearth, "envoy": options.envoy, "vllm-router": options.vllm_router,
              "envoy-epp": options.envoy and options.epp, "envoy-epp-precise": options.envoy and options.epp,
              "direct": True}
    return bool(needed[arm.kind])


def start(arm: Arm, shapes: list[Shape], folder: Path, options, roles: dict[str, str] | None = None) -> Running:
    """Starts it before `shapes`; `roles` are for Hearth alone."""
    folder.mkdir(parents=True, exist_ok=True)
    if arm.kind == "direct":
        return Running(arm, shapes[0].url, [])
    if arm.kind == "hearth":
        return _hearth(arm, shapes, folder, options, roles or {})
    beside = [_one_kv_port(shapes, folder)] if arm.kind == "envoy-epp-precise" else []
    with _stopped_unless_started(*beside):
        peer = _peer(arm.kind, shapes, folder, options)
    return Running(arm, f"http://{peer.address}", [peer], peer.admin and f"http://{peer.admin}", beside=beside)


def _one_kv_port(shapes: list[Shape], folder: Path) -> Program:
    ways = [way for one in shapes for way in (f"{one.host}:{EPP_KV_PORT}", f"{one.host}:{one.port + 1000}")]
    command = [sys.executable, str(Path(__file__).with_name("forward.py")), *ways]
    return Program("forward", command, folder / "forward.log")


def _peer(kind: str, shapes: list[Shape], folder: Path, options):
    pods = [one.address for one in shapes]
    if kind == "envoy":
        return envoy.plain(options.envoy, pods, folder)
    if kind == "vllm-router":
        return peers.vllm_router(options.vllm_router, pods, folder, "cache_aware")
    pair = (options.envoy, options.epp)
    if kind == "envoy-epp":
        return epp.start(pair, pods, folder, "approximate")
    told = {"MODEL_NAME": MODEL, "KV_PORT": EPP_KV_PORT, "RENDER_URL": shapes[0].url}
    return epp.start(pair, pods, folder, "precise", told)


def _hearth(arm: Arm, shapes: list[Shape], folder: Path, options, roles: dict[str, str]) -> Running:
    endpoints = [{"url": one.url, "role": roles.get(one.name, "both")} for one in shapes]
    tokenizers = {MODEL: str(options.tokenizer)} if options.tokenizer else {}
    settings = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "endpoints": endpoints,
                "tokenizers": tokenizers, "drain": {"linger": "0s"}, **dict(arm.settings)}
    settings["routing"] = {"decisions_kept": 4096} | dict(settings.get("routing", {}))
    file, access = folder / "hearth.yaml", folder / "hearth.access"
    file.write_text(json.dumps(settings, indent=1))
    program = Program(arm.name, [str(options.hearth), "serve", "--config", str(file)],
                      folder / "hearth.log", stdout=access)
    with _stopped_unless_started(program):
        listen, admin = wait_until(lambda: _bound(program), 30, f"{arm.name} listens")
        running = Running(arm, f"http://{listen}", [program], f"http://{admin}", access)
        wait_until(lambda: get(f"{running.admin}/readyz", 2) is not None, 20, f"{arm.name} ready")
        wait_until(lambda: _pods_ready(running.admin, len(shapes)), 20, f"{arm.name} sees every pod")
    return running


@contextlib.contextmanager
def _stopped_unless_started(*programs: Program):
    try:
        yield
    except BaseException:
        for program in programs:
            program.stop()
        raise


def _bound(program: Program) -> tuple[str, str] | None:
    if not program.alive():
        raise RuntimeError(f"{program.name} ended:\n{program.tail()}")
    for line in program.log.read_text(errors="replace").splitlines():
        if '"admin_addr"' in line:
            record = json.loads(line)
            record |= record.get("fields", {})
            return record["addr"], record["admin_addr"]
    return None


def _pods_ready(admin: str, count: int) -> bool:
    page = json.loads(get(f"{admin}/pool") or "{}")
    pods = page.get("pods", [])
    heard = [one for one in pods if (one.get("kv_events") or {}).get("trust") != "uncertain"]
    return len(pods) == count and len(heard) == count
