"""A real vLLM server on CPU, as a guard."""

import os
import re

from processes import REAL, Group, free_port, get, wait_until

VENV = REAL / "vllm"
LOGS = REAL / "logs"
TINY, SMOL = REAL / "models" / "tiny-qwen3", REAL / "models" / "smollm2"
MODELS = {"tiny": TINY, "smol": SMOL, "know": TINY, "know-smol": SMOL, "pd": TINY, "survive": SMOL,
          "ranks": TINY}
# Imports of torch and vLLM in series in two processes: 30 s on two idle cores, 130 s seen on busy ones.
START_LIMIT_S = 400

ENVIRONMENT = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # two processes a server instead of three
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "NO_COLOR": "1",
    "VLLM_LOGGING_COLOR": "0",
}


class Running:
    """A server at a URL, whoever started it."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")

    @property
    def address(self) -> str:
        """`ip:port`, as the gateway's x-upstream-host names it."""
        return self.url.removeprefix("http://")

    def metric(self, name: str) -> float:
        """The sum over all labels of `vllm:NAME` on the server's own metrics page."""
        page = get(f"{self.url}/metrics")[1]
        values = re.findall(rf"^vllm:{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", page, re.M)
        return sum(map(float, values))


class Server(Running):
    """`model` is a key of MODELS, and the name it is served under."""

    def __init__(self, name: str, model: str, port: int = 0, extra: tuple[str, ...] = (),
                 more_env: dict[str, str] | None = None):
        self.name, self.model = name, model
        self.port = port or free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")
        command = [
            str(VENV / "bin" / "vllm"), "serve", str(MODELS[model]),
            "--served-model-name", model,
            "--host", "127.0.0.1", "--port", str(self.port),
            # 16 is refused on CPU: attention there works in multiples of 32.
            # Without AVX-512 a CPU computes bfloat16 five times slower (33 s against 6 for 1,400 tokens).
            "--dtype", "float32",
            "--block-size", "32", "--enable-prefix-caching", "--enforce-eager",
            "--max-model-len", "4096", "--max-num-seqs", "64",
            "--num-gpu-blocks-override", "1024",
            "--distributed-executor-backend", "uni",
            "--enable-prompt-tokens-details",
            *extra,
        ]
        env = {k: v for k, v in os.environ.items()
               if k not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME")}
        self.group = Group(f"vllm-{name}", command, LOGS / f"vllm-{name}.log",
                           env | ENVIRONMENT | (more_env or {}))

    def wait_ready(self) -> None:
        def ready():
            if not self.group.alive():
                raise RuntimeError(f"vLLM {self.name} died:\n{self.group.tail()}")
            return get(f"{self.url}/health", 2)[0] == 200

        wait_until(ready, START_LIMIT_S, f"vLLM {self.name} ready", every_s=0.25)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.group.stop()
