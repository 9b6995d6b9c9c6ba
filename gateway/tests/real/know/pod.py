"""A vLLM server with few blocks that publishes KV events, each line to it behind a relay."""

import contextlib
import json
from pathlib import Path

from exchange import post, send
from know.relay import Relay
from know.tap import Tap
from pods import MODELS, Server
from processes import free_port

BLOCK_TOKENS = 32
# 8,160 tokens: less than the suite's prompts together, so that blocks are evicted all the time.
BLOCKS = 256
LORA = "lora-a"
MIDDLEWARE = Path(__file__).parents[4] / "loadtest/arms/middleware"


class KnownPod:
    """Behaves as its `Server`; `restart` after a kill gives it a new process at the same places."""

    def __init__(self, name: str, model: str, history_batches: int):
        self.name, self.model, self.history_batches = name, model, history_batches
        self.port, self.publish_port, self.replay_port = free_port(), free_port(), free_port()
        self._stack = contextlib.ExitStack()
        self.events = self._stack.enter_context(Relay(self.publish_port))
        self.replay = self._stack.enter_context(Relay(self.replay_port))
        self.tap = self._stack.enter_context(Tap(self.publish_port))
        self.server = self._start()

    def _start(self) -> Server:
        config = self._events_config(self.publish_port, self.replay_port)
        announced = self._events_config(self.events.port, self.replay.port)
        extra = ("--num-gpu-blocks-override", str(BLOCKS), "--kv-events-config", json.dumps(config),
                 "--middleware", "announce.Announce",
                 "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
        if self.model == "know":
            extra += ("--enable-lora", "--max-loras", "1", "--max-lora-rank", "8",
                      "--lora-modules", f"{LORA}={MODELS['know'].with_name('tiny-lora')}")
        env = {"VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache
               "PYTHONPATH": str(MIDDLEWARE),
               "KV_EVENT_SOURCES": json.dumps({"0": announced})}
        return self._stack.enter_context(Server(self.name, self.model, self.port, extra, env))

    def _events_config(self, publish: int, replay: int) -> dict:
        return {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://*:{publish}",
                "replay_endpoint": f"tcp://*:{replay}", "buffer_steps": self.history_batches,
                "topic": f"kv@{self.name}@{self.model}"}

    def __getattr__(self, name: str):
        return getattr(self.server, name)

    def reset_prefix_cache(self) -> None:
        send(self.url, "POST", "/reset_prefix_cache", b"", {})

    def step(self) -> None:
        """One step of the engine, which fills no block."""
        post(self.url, "/v1/completions", {"model": self.model, "prompt": [1], "max_tokens": 1})

    def restart(self) -> None:
        """A new process; its predecessor must be dead. Returns when it answers."""
        self.server = self._start()
        self.server.wait_ready()

    def cut(self) -> None:
        self.events.cut()
        self.replay.cut()

    def mend(self) -> None:
        self.events.mend()
        self.replay.mend()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()
