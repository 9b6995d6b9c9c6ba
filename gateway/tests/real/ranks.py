"""One server with two data-parallel ranks, each of which publishes KV events."""

import contextlib
import json
from dataclasses import dataclass

from harness import World
from hearth import Hearth
from pods import MODELS, Server
from processes import free_port, get, wait_until


@dataclass
class Ranked(World):
    """`pods` is the one server."""

    hearth: Hearth | None = None


@contextlib.contextmanager
def ranked(stage: str, options):
    with contextlib.ExitStack() as stack:
        # Each rank takes the next port.
        publish, replay = free_port(), free_port()
        config = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://*:{publish}",
                  "replay_endpoint": f"tcp://*:{replay}", "topic": f"kv@{stage}@{stage}"}
        extra = ("--data-parallel-size", "2", "--kv-events-config", json.dumps(config))
        pod = stack.enter_context(
            Server(stage, stage, extra=extra, more_env={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}))
        pod.wait_ready()
        flags = ("--tokenizers", json.dumps({stage: str(MODELS[stage])}))
        hearth = stack.enter_context(Hearth(options.hearth, [pod.url], flags))
        hearth.wait_ready()

        def is_exact():
            pods = json.loads(get(f"{hearth.admin_url}/pool")[1])["pods"]
            return [row["kv_events"]["trust"] for row in pods] == ["exact"] * 2

        wait_until(is_exact, 20, "both ranks are heard")
        yield Ranked(stage, hearth.url, [pod], hearth=hearth)
