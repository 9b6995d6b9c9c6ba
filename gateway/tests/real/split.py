"""A NIXL pair: one vLLM server prefills, the other decodes, and Hearth is told so."""

import contextlib
import json
import os
import signal
from dataclasses import dataclass

from harness import World
from hearth import Hearth
from pods import LOGS, Server
from processes import free_port

# Short enough to wait for; vLLM's heartbeat is a sixth of it in whole seconds.
LEASE_S = 12


@dataclass
class Splitting(World):
    """`pods` are the prefill server and the decode server."""

    hearth: Hearth | None = None

    def freeze(self) -> None:
        os.killpg(self.hearth.group.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.hearth.group.pid, signal.SIGCONT)

    def lines(self) -> list[dict]:
        """The access log."""
        found = []
        for line in self.hearth.group.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and "response_code" in record:
                    found.append(record)
        return found


def server(name: str, role: str, **more) -> Server:
    transfer = {"kv_connector": "NixlConnector", "kv_role": role, "kv_buffer_device": "cpu",
                "kv_connector_extra_config": {"kv_lease_duration": LEASE_S}} | more
    env = {"UCX_TLS": "tcp,sm,self", "UCX_LOG_LEVEL": "warn",
           "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
           "VLLM_NIXL_SIDE_CHANNEL_PORT": str(free_port())}
    return Server(name, "pd", extra=("--kv-transfer-config", json.dumps(transfer)), more_env=env)


@contextlib.contextmanager
def splitting(stage: str, options):
    with contextlib.ExitStack() as stack:
        # By default vLLM fails a request whose blocks it cannot get; a decode server should not.
        pods = [stack.enter_context(server("pd-prefill", "kv_producer")),
                stack.enter_context(server("pd-decode", "kv_consumer",
                                           kv_load_failure_policy="recompute"))]
        for pod in pods:
            pod.wait_ready()
        settings = LOGS / "hearth-pd.yaml"
        settings.write_text(json.dumps({
            "endpoints": [{"url": pods[0].url, "role": "prefill"},
                          {"url": pods[1].url, "role": "decode"}],
            # A CPU's tokens are slow and its transfers are not: what counts here is that the floor holds.
            "split": {"lease": f"{LEASE_S}s", "prefill_timeout": "300s",
                      "min_uncached_tokens": 256, "stall": 1000},
        }))
        hearth = stack.enter_context(Hearth(options.hearth, [], ("--config", str(settings))))
        hearth.wait_ready()
        yield Splitting(stage, hearth.url, pods, hearth)
