"""The second identical prompt goes where the first one's blocks are, and it pays."""

import random
import statistics
import time

from exchange import Answer, content_of, events, post
from harness import World, check, expect, expect_equal

PROMPT_TOKENS = 1500
BLOCK_TOKENS = 32
# Six prompts: a gateway that chose blindly would pass this once in 64 times.
PROMPTS = 6
WORDS = ("river stone cloud garden silver window morning paper bridge yellow"
         " winter market forest candle letter harbour simple quiet").split()


def prompt(world: World, seed: int) -> list[dict]:
    """A chat of about PROMPT_TOKENS tokens (at least), that no other seed's shares a block with."""
    rng = random.Random(seed)
    text = " ".join(rng.choice(WORDS) for _ in range(PROMPT_TOKENS))
    return [{"role": "user", "content": f"{seed}: {text}. What is the capital of France?"}]


def asked(world: World, messages: list[dict]) -> tuple[str, float, dict]:
    """(upstream, TTFT in ms to the first content token, usage) of one streamed chat."""
    body = {"model": world.model, "messages": messages, "max_tokens": 4, "temperature": 0,
            "stream_options": {"include_usage": True}}
    began, ttft_ms, last = time.monotonic(), None, b""
    stream = events(world.gateway, "/v1/chat/completions", body)
    answer = next(stream)
    for data in stream:
        if ttft_ms is None and content_of(data):
            ttft_ms = (time.monotonic() - began) * 1000
        if data != b"[DONE]":
            last = data
    expect(ttft_ms is not None, "no content")
    usage = Answer(200, "", last, {}).json()["usage"]
    return answer.getheader("x-upstream-host", ""), ttft_ms, usage


@check("warm/second-prompt-goes-to-the-pod-that-has-it", limit_s=120)
def goes_to_the_warm_pod(world: World) -> None:
    addresses = {pod.address: pod for pod in world.pods}
    run = time.time_ns()
    for i in range(PROMPTS):
        messages = prompt(world, run + i)
        first, _, cold = asked(world, messages)
        expect(first in addresses, f"x-upstream-host {first!r} is none of {sorted(addresses)}")
        hits = addresses[first].metric("prefix_cache_hits_total")
        second, _, warm = asked(world, messages)
        expect_equal(second, first, f"prompt {i}: upstream of the second")
        tokens = warm["prompt_tokens"]
        expect(tokens >= PROMPT_TOKENS, f"only {tokens} prompt tokens")
        # All whole blocks but the one that holds the last token, which is always computed.
        reusable = (tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        cached = warm["prompt_tokens_details"]["cached_tokens"]
        expect_equal(cached, reusable, f"prompt {i}: cached_tokens of {tokens}")
        grown = addresses[first].metric("prefix_cache_hits_total") - hits
        expect_equal(grown, reusable, f"prompt {i}: the pod's own hit counter")
        expect(cold["prompt_tokens_details"]["cached_tokens"] < reusable, "the first was warm already")


@check("warm/decision-says-so")
def decision_says_so(world: World) -> None:
    body = {"model": world.model, "messages": prompt(world, time.time_ns()), "max_tokens": 1}
    for _ in range(2):
        answer = post(world.gateway, "/v1/chat/completions", body)
    decision = answer.headers.get("x-hearth-decision", "")
    expect(decision.startswith("warm;"), f"x-hearth-decision: {decision!r}")
    expect("matched=0" not in decision, f"nothing matched: {decision!r}")


@check("warm/ttft-at-most-a-fifth", stage="smol", limit_s=300)
def ttft_ratio(world: World) -> None:
    run = time.time_ns()
    asked(world, prompt(world, run))  # the engine's first request compiles
    ratios = []
    for i in range(1, 4):
        messages = prompt(world, run + i)
        first, cold_ms, _ = asked(world, messages)
        second, warm_ms, _ = asked(world, messages)
        expect_equal(second, first, "upstream of the second")
        ratios.append(warm_ms / cold_ms)
        print(f"# TTFT of {PROMPT_TOKENS}+ tokens: cold {cold_ms:.0f} ms, warm {warm_ms:.0f} ms")
    expect(statistics.median(ratios) <= 1 / 5, f"warm/cold TTFT {ratios}")
