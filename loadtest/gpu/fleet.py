"""The servers: real vLLM on one GPU, or simulated pods of about its speed at the same ports."""

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from processes import Program, get, kill_group, post, wait_until

HERE = Path(__file__).parent
MODEL = "m"
BLOCK_TOKENS = 16
# First imports of torch and vLLM on a fresh machine: 83 s seen, 55 s with warm files.
START_LIMIT_S = 240

ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache
    "VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo",
    "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1", "VLLM_USE_FLASHINFER_SAMPLER": "0", "TOKENIZERS_PARALLELISM": "false",
    "NO_COLOR": "1", "VLLM_LOGGING_COLOR": "0", "OMP_NUM_THREADS": "2",
    # Without it UCX reads another process's GPU memory through TCP: 0.4 GB/s instead of 30.
    "UCX_CUDA_IPC_ENABLE_GET_ZCOPY": "on", "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
}


@dataclass(frozen=True)
class Shape:
    """One server; the ports beside `port` follow from it."""

    name: str
    port: int
    model: str
    kv_tokens: int
    kv_bytes: int
    # Of the whole GPU: only checked against what is free at the start.
    gpu_share: float
    nixl: bool = False
    # For simulated pods.
    prefill_tokens_per_s: float = 70_000
    decode_ms: float = 3.4

    @property
    def host(self) -> str:
        """Each its own, as pods have: llm-d's picker wants one events' port for all."""
        return f"127.0.1.{self.port % 1000 + 1}"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def events(self) -> dict:
        return {"enable_kv_cache_events": True, "publisher": "zmq", "buffer_steps": 10_000,
                "endpoint": f"tcp://*:{self.port + 1000}",
                "replay_endpoint": f"tcp://*:{self.port + 2000}", "topic": f"kv@{self.address}@{MODEL}"}


# 112 and 128 KiB of KV a token.
QUAD = [Shape(f"s{i}", 28_000 + i, "3b", 65_536, 65_536 * 112 << 10, 0.08) for i in range(4)]
# Twelve documents of 2,048 tokens each.
TRIO = [Shape(f"t{i}", 28_010 + i, "3b", 24_576, 24_576 * 112 << 10, 0.06) for i in range(3)]
PAIR = [Shape(name, 28_100 + i, "8b", 49_152, 49_152 * 128 << 10, 0.16, True, 35_000, 6.0)
        for i, name in enumerate(("p0", "d0"))]
FLEETS = {"quad": QUAD, "trio": TRIO, "pair": PAIR}


class Fleet:
    """Which of them run. What is left running is found again through `state`."""

    def __init__(self, options, log):
        self.options, self.log = options, log
        self.logs = options.out / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.pids: dict[str, int] = {}
        if options.state.exists():
            self.pids = json.loads(options.state.read_text())

    def start(self, shapes: list[Shape]) -> None:
        """All that do not run, at once; returns when they answer."""
        missing = [one for one in shapes if get(f"{one.url}/health") is None]
        programs = {one.name: self.launch(one) for one in missing}
        for one in missing:
            self.wait_ready(one, programs[one.name])

    def launch(self, shape: Shape) -> Program:
        simulated = self.options.simulated
        command = self._simulated(shape) if simulated else self._vllm(shape)
        env = {} if simulated else self._env(shape)
        # They may outlive this call and the folder it was made in, and vLLM starts processes of its own.
        program = Program(shape.name, command, self.logs / f"{shape.name}.log", env, cwd=self.logs)
        self.pids[shape.name] = program.pid
        self.options.state.write_text(json.dumps(self.pids))
        return program

    def wait_ready(self, shape: Shape, program: Program) -> None:
        def ready():
            if not program.alive():
                raise RuntimeError(f"{shape.name} died:\n{program.tail(40)}")
            return get(f"{shape.url}/health", 2) is not None

        wait_until(ready, START_LIMIT_S, f"{shape.name} ready", 0.3)
        self.log(f"{shape.name} ready")

    def signal(self, shape: Shape, sent: int) -> None:
        """SIGTERM goes to the API server, as the kubelet sends it; others to the whole group."""
        if sent == signal.SIGTERM:
            os.kill(self.pids[shape.name], sent)
        else:
            kill_group(self.pids[shape.name], sent)

    def reset(self, shapes: list[Shape]) -> None:
        """Forgets all cached blocks; unfinished requests would keep theirs."""
        for one in shapes:
            wait_until(lambda: post(f"{one.url}/reset_prefix_cache")[0] == 200, 10, "caches reset")

    def stop(self) -> None:
        for pid in self.pids.values():
            kill_group(pid, signal.SIGTERM)
        for name, pid in self.pids.items():
            try:
                wait_until(lambda: not _running(pid), 12, "end")
            except TimeoutError:
                self.log(f"{name}: killed")
            kill_group(pid)
        self.options.state.unlink(missing_ok=True)

    def _vllm(self, shape: Shape) -> list[str]:
        command = [*self.options.vllm, "serve", str(HERE / "models" / shape.model),
                   "--tokenizer", str(self.options.tokenizer), "--served-model-name", MODEL,
                   "--host", shape.host, "--port", str(shape.port),
                   "--load-format", "dummy", "--dtype", "bfloat16", "--max-model-len", "20480",
                   "--block-size", str(BLOCK_TOKENS), "--enable-prefix-caching",
                   "--max-num-seqs", "32", "--max-num-batched-tokens", "8192",
                   "--gpu-memory-utilization", str(shape.gpu_share),
                   "--kv-cache-memory-bytes", str(shape.kv_bytes * self._roomier(shape)), "--enable-prompt-tokens-details",
                   "--compilation-config", json.dumps({
                       "mode": 0, "cudagraph_mode": "FULL",
                       "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32]}),
                   "--kv-events-config", json.dumps(shape.events()),
                   "--middleware", "announce.Announce", *self.options.serve_args]
        if shape.nixl:
            command += ["--kv-transfer-config", json.dumps({
                "kv_connector": "NixlConnector", "kv_role": "kv_both",
                "kv_load_failure_policy": "recompute"})]
        return command

    def _roomier(self, shape: Shape) -> int:
        """How many times the cache: the pair has the room of as many GPUs as there are."""
        return self.options.gpus if shape.nixl else 1

    def _gpu(self, shape: Shape) -> dict[str, str]:
        """Each fleet in turns over the GPUs. All stay visible: blocks go from one to another."""
        gpus = self.options.gpus
        if gpus == 1:
            return {}
        return {"CUDA_VISIBLE_DEVICES": ",".join(str((shape.port + i) % gpus) for i in range(gpus))}

    def _env(self, shape: Shape) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(HERE.parent / "arms/middleware"), os.environ.get("PYTHONPATH")]))
        return ENVIRONMENT | self._gpu(shape) | {"PYTHONPATH": path, "KV_EVENT_SOURCES": json.dumps({"0": shape.events()}),
                              "VLLM_NIXL_SIDE_CHANNEL_PORT": str(shape.port + 3000)}

    def _simulated(self, shape: Shape) -> list[str]:
        command = [str(self.options.loadtest), "simulate", "--host", shape.host, "--port", str(shape.port),
                   "--model", MODEL, "--enable-scale-out",
                   "--kv-events-port", str(shape.port + 1000),
                   "--kv-events-replay-port", str(shape.port + 2000),
                   "--num-blocks", str(shape.kv_tokens * self._roomier(shape) // BLOCK_TOKENS), "--max-model-len", "20480",
                   "--prefill-tokens-per-s", str(shape.prefill_tokens_per_s),
                   "--decode-ms", str(shape.decode_ms), "--max-num-seqs", "32",
                   "--max-num-batched-tokens", "8192"]
        if self.options.tokenizer:
            command += ["--tokenizer", str(self.options.tokenizer)]
        if shape.nixl:
            command += ["--connector", "nixl", "--side-channel-port", str(shape.port + 3000),
                        "--kv-load-failure-policy", "recompute", "--transfer-tokens-per-s", "200000"]
        return command


def _running(pid: int) -> bool:
    """Zombies have ended; our own children stay so until they are waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def metrics(shape: Shape) -> dict[str, float]:
    """`vllm:NAME` summed over all labels, histograms' buckets left out."""
    sums: dict[str, float] = {}
    for line in (get(f"{shape.url}/metrics", 10) or "").splitlines():
        if line.startswith("vllm:") and "_bucket" not in line:
            key, _, value = line.rpartition(" ")
            name = key.partition("{")[0].removeprefix("vllm:")
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def vllm_command() -> list[str]:
    return [sys.executable, "-m", "vllm.entrypoints.cli.main"]
