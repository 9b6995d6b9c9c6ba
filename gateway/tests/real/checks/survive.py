"""A stream whose real server is cut, told to end or killed goes on at the other one."""

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from exchange import events, post
from harness import check, expect, expect_equal
from pods import Server
from processes import wait_until
from surviving import Surviving

CHAT = "/v1/chat/completions"
TOKENS = 48
PROMPTS = {
    "story": "Tell me a story about a lighthouse keeper and a storm.",
    "code": "Write a Python function that returns the first n prime numbers, with comments.",
    "emoji": "Answer only with emoji and short words: how was your day? 🌊🔥👩‍👩‍👧‍👦",
}
# Ten a prompt: dense where an answer begins, so that characters of several tokens are met.
CUTS = (2, 3, 4, 5, 7, 10, 14, 19, 27, 40)
STREAMS = 6


def body(prompt: str, **more) -> dict:
    return {"model": "survive", "messages": [{"role": "user", "content": prompt}], "temperature": 0,
            "max_tokens": TOKENS, "ignore_eos": True} | more


@dataclass
class Seen:
    """One stream, as its client saw it."""

    text: str = ""
    roles: int = 0
    finish: list[str] = field(default_factory=list)
    usage: dict | None = None
    ids: set[str] = field(default_factory=set)
    done: int = 0


def streamed(world: Surviving, prompt: str, begun: threading.Semaphore | None = None) -> Seen:
    seen = Seen()
    stream = events(world.gateway, CHAT, body(prompt, stream_options={"include_usage": True}), 120)
    next(stream)
    for data in stream:
        if data == b"[DONE]":
            seen.done += 1
            continue
        record = json.loads(data)
        expect("error" not in record, f"an error event: {record}")
        seen.ids.add(record["id"])
        seen.usage = record.get("usage") or seen.usage
        for choice in record["choices"]:
            seen.roles += "role" in choice["delta"]
            text = choice["delta"].get("content") or ""
            if text and begun and not seen.text:
                begun.release()
            seen.text += text
            seen.finish += [choice["finish_reason"]] if choice["finish_reason"] else []
    return seen


def expect_whole(seen: Seen, prompt_tokens: int, what: str) -> None:
    expect_equal((seen.roles, seen.finish, len(seen.ids), seen.done), (1, ["length"], 1, 1), what)
    usage = seen.usage or {}
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    expect_equal(counts, [prompt_tokens, TOKENS, prompt_tokens + TOKENS], f"{what}: usage")


def truth(world: Surviving, prompt: str) -> dict:
    answer = post(world.pods[0].url, CHAT, body(prompt), timeout_s=120)
    expect_equal(answer.status, 200, "the pod's own answer")
    return answer.json()


@check("survive/thirty-cuts-are-unseen-to-the-byte", stage="survive", limit_s=900)
def cuts(world: Surviving) -> None:
    continued = 'hearth_migrations_total{outcome="continued"'
    before = world.metric(continued)
    for name, prompt in PROMPTS.items():
        wanted = truth(world, prompt)
        for after in CUTS:
            world.shears.open(after)
            seen = streamed(world, prompt)
            what = f"{name} cut after {after} events"
            expect(not world.shears.are_open, f"{what}: it was not cut")
            expect_equal(seen.text, wanted["choices"][0]["message"]["content"], what)
            expect_whole(seen, wanted["usage"]["prompt_tokens"], what)
    # What is cut before its first token begins anew, and that is no migration.
    moved = world.metric(continued) - before
    print(f"# {moved:.0f} of {len(PROMPTS) * len(CUTS)} cuts were in the middle")
    expect(2 * moved >= len(PROMPTS) * len(CUTS), f"only {moved:.0f} were in the middle")


def under_load(world: Surviving, strike) -> Server:
    """Streams on both pods, one of which is struck when all of them have begun: the one returned."""
    begun = threading.Semaphore(0)
    prompts = [f"{number}. {prompt}" for number, prompt in enumerate(PROMPTS.values(), 1)] * 2
    counts = {prompt: truth(world, prompt)["usage"]["prompt_tokens"] for prompt in set(prompts)}
    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(streamed, world, prompt, begun) for prompt in prompts]
        for _ in streams:
            expect(begun.acquire(timeout=60), "a stream did not begin")
        struck = max(world.pods, key=lambda pod: pod.metric("num_requests_running"))
        strike(struck)
        for prompt, stream in zip(prompts, streams, strict=True):
            expect_whole(stream.result(), counts[prompt], prompt)
    return struck


@check("survive/sigterm-mid-stream", stage="survive", limit_s=300)
def told_to_end(world: Surviving) -> None:
    struck = under_load(world, lambda pod: os.kill(pod.group.pid, signal.SIGTERM))
    # Until it has ended it may still answer `/health`.
    wait_until(lambda: not struck.group.alive(), 120, "the server that was told to end has ended")


@check("survive/sigkill-mid-stream", stage="survive", limit_s=600)
def killed(world: Surviving) -> None:
    for number, pod in enumerate(world.pods):
        if not pod.group.alive():
            world.restart(number)
    wait_until(lambda: world.metric('hearth_endpoints{state="ready"') == 2, 60, "both pods ready")
    under_load(world, lambda pod: pod.group.kill())
