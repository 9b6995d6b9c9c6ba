"""Every arm of the comparison: how it is started, by which flags, and why it is not, if it is not."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from arms import envoy, epp, hearth, peers
from arms.arm import Arm


@dataclass(frozen=True)
class Fleet:
    """The pods behind an arm: where they are, what they serve, and what they tell."""

    addresses: list[str]
    model: str
    tokenizer: Path
    kv_port: int | None = None
    """None: these pods tell nothing of their caches and render nothing."""


@dataclass(frozen=True)
class Entry:
    """One arm."""

    name: str
    flags: str
    """What was set, and whose advice that is."""
    start: Callable[[Fleet, Path], Arm]
    missing: str | None = None
    """Why it cannot run here, whatever the pods."""
    needs_events: bool = False


ROUND_ROBIN = ("envoy", "vllm-router-rr", "smg-rr", "agentgateway", "hearth-rr")
"""Arms without a brain: one of them is enough where only decisions are measured."""


def direct(fleet: Fleet, _scratch: Path) -> Arm:
    return Arm("direct", fleet.addresses[0], [])


def entries(options) -> list[Entry]:
    cache = options.cache

    def needs(path: Path | None, how: str) -> str | None:
        return None if path and path.exists() else how

    router_home, smg_home = cache / "vllm-router-0.1.17", cache / "smg-1.13.0"
    router = [router_home / "bin/python", router_home / "bin/vllm-router"]
    smg = [smg_home / "bin/python", smg_home / "bin/smg"]
    no_envoy = needs(options.envoy, "no envoy binary")
    no_epp = no_envoy or needs(options.epp_bin, "no EPP binary (EPP_BIN)")
    no_agw = needs(options.agw_bin, "no agentgateway binary (AGW_BIN)")
    no_router, no_smg = needs(router_home, "not installed"), needs(smg_home, "not installed")
    pair = (options.envoy, options.epp_bin)

    def told(fleet: Fleet) -> dict:
        return {"MODEL_NAME": fleet.model, "KV_PORT": fleet.kv_port,
                "RENDER_URL": f"http://{fleet.addresses[0]}"}

    def ours(policy: str, tokenized: bool):
        def start(fleet: Fleet, scratch: Path) -> Arm:
            tokenizers = f'{{"{fleet.model}": "{fleet.tokenizer}"}}'
            settings = ("--tokenizers", tokenizers) if tokenized else ()
            return hearth.hearth(options.hearth, fleet.addresses, scratch, policy, settings)
        return start

    def behind(fleet: Fleet, scratch: Path) -> Arm:
        tokenizers = f'{{"{fleet.model}": "{fleet.tokenizer}"}}'
        settings = ("--tokenizers", tokenizers)
        return hearth.behind_envoy((options.envoy, options.hearth), fleet.addresses, scratch,
                                   settings)

    weights = "weights 2/2/3 and FULL_DUPLEX_STREAMED wiring of llm-d-router's documentation"
    router_flags = "--max-payload-size 16777216, else its defaults (vllm-router --help)"
    smg_flags = "its defaults (smg launch --help)"
    rows = [
        ("direct", "the first pod, nothing between", direct, None, False),
        ("envoy", "round robin, no filter; loadtest/arms/envoy.yaml",
         lambda f, s: envoy.plain(options.envoy, f.addresses, s), no_envoy, False),
        ("epp-approximate", weights, lambda f, s: epp.start(pair, f.addresses, s, "approximate"),
         no_epp, False),
        ("epp-precise", f"{weights}; tokens by a pod's /render, KV events dialled",
         lambda f, s: epp.start(pair, f.addresses, s, "precise", told(f)), no_epp, True),
        ("envoy-hearth", "hearth epp with the model's tokenizer, else defaults; the wiring of "
         "epp-* but for response_body_mode NONE", behind, no_envoy, False),
        ("vllm-router-rr", f"--policy round_robin; {router_flags}",
         lambda f, s: peers.vllm_router(router, f.addresses, s, "round_robin"), no_router, False),
        ("vllm-router-cache", f"--policy cache_aware; {router_flags}",
         lambda f, s: peers.vllm_router(router, f.addresses, s, "cache_aware"), no_router, False),
        ("smg-rr", f"--policy round_robin; {smg_flags}",
         lambda f, s: peers.smg(smg, f.addresses, s, "round_robin"), no_smg, False),
        ("smg-cache", f"--policy cache_aware; {smg_flags}",
         lambda f, s: peers.smg(smg, f.addresses, s, "cache_aware"), no_smg, False),
        ("agentgateway", "plain HTTP route, no request log, 20 MiB buffer",
         lambda f, s: peers.agentgateway(options.agw_bin, f.addresses, s), no_agw, False),
        ("hearth", "--routing-policy warm, else defaults: no tokenizer, access log on",
         ours("warm", False), None, False),
        ("hearth-tokenized", "the same with the model's tokenizer: exact where pods tell events",
         ours("warm", True), None, False),
        ("hearth-rr", "--routing-policy round-robin, else defaults",
         ours("round-robin", False), None, False),
    ]
    return [Entry(name, flags, start, missing, events)
            for name, flags, start, missing, events in rows]
