"""A client that leaves frees the engine; a pod that dies is seen by no client that had no token."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from exchange import content_of, events, post
from harness import Failed, World, check, expect, expect_equal
from processes import wait_until

CHAT = "/v1/chat/completions"
FREED_WITHIN_S = 1.0
CONCURRENT = 20


def running(world: World) -> float:
    return sum(pod.metric("num_requests_running") for pod in world.pods)


def idle(world: World) -> None:
    wait_until(lambda: running(world) == 0, 20, "the engines idle")


def long_chat(world: World, **more) -> dict:
    return {"model": world.model, "messages": [{"role": "user", "content": "Count to a million"}],
            "max_tokens": 3000, "ignore_eos": True, "temperature": 0} | more


def freed(world: World) -> None:
    left = time.monotonic()
    wait_until(lambda: running(world) == 0, 10, "the engine freed", every_s=0.02)
    took_s = time.monotonic() - left
    expect(took_s <= FREED_WITHIN_S, f"freed after {took_s:.2f} s")


@check("hangup/mid-stream-frees-the-engine")
def hangup_streaming(world: World) -> None:
    idle(world)
    stream = events(world.gateway, CHAT, long_chat(world))
    next(stream)
    while not content_of(next(stream)):
        pass
    expect_equal(wait_until(lambda: running(world), 5, "running"), 1.0, "requests running")
    stream.close()
    freed(world)


@check("hangup/non-streaming-frees-the-engine")
def hangup_waiting(world: World) -> None:
    idle(world)
    try:
        with httpx.Client() as client:
            client.post(world.gateway + CHAT, json=long_chat(world), timeout=2)
    except httpx.ReadTimeout:
        freed(world)
        return
    raise Failed("3,000 tokens came within two seconds")


class Outcome:
    """What one client saw."""

    def __init__(self, streamed: bool):
        self.streamed, self.began, self.done, self.error = streamed, False, False, ""

    @property
    def excused(self) -> bool:
        return self.done or (self.streamed and self.began)


def client(world: World, number: int, ready: threading.Barrier) -> Outcome:
    outcome = Outcome(streamed=number % 2 == 0)
    rng = random.Random(time.time_ns() + number)
    text = " ".join(str(rng.randrange(1000)) for _ in range(400))
    body = {"model": world.model, "messages": [{"role": "user", "content": text}],
            # Greedy: sampling from 150,000 words costs a CPU 17 ms per request and step.
            "max_tokens": 60, "ignore_eos": True, "temperature": 0}
    ready.wait()
    try:
        if outcome.streamed:
            stream = events(world.gateway, CHAT, body)
            next(stream)
            for data in stream:
                outcome.began |= bool(content_of(data))
                outcome.done |= data == b"[DONE]"
        else:
            answer = post(world.gateway, CHAT, body)
            if answer.status != 200:
                raise OSError(f"HTTP {answer.status}: {answer.body[:200]!r}")
            outcome.done = answer.json()["usage"]["completion_tokens"] == 60
    except Exception as error:  # whatever a client can see is what we are here to see
        outcome.done, outcome.error = False, f"{type(error).__name__}: {error}"
    return outcome


@check("kill/no-client-without-a-token-sees-it", limit_s=180)
def kill_one_pod(world: World) -> None:
    victim = world.pods[-1]
    expect(hasattr(victim, "group"), "needs pods of its own to kill")
    idle(world)
    ready = threading.Barrier(CONCURRENT + 1)
    with ThreadPoolExecutor(CONCURRENT) as pool:
        clients = [pool.submit(client, world, i, ready) for i in range(CONCURRENT)]
        ready.wait()
        wait_until(lambda: victim.metric("num_requests_running") >= 3, 20, "work on the victim", 0.01)
        victim.group.kill()
        outcomes = [one.result() for one in clients]
    begun = sum(o.began and not o.done for o in outcomes)
    print(f"# {sum(o.done for o in outcomes)} of {CONCURRENT} whole, {begun} streams had begun and ended")
    bad = [o.error or "ended short" for o in outcomes if not o.excused]
    expect(not bad, f"{len(bad)} clients saw the death: {bad[:3]}")


@check("kill/the-rest-is-served")
def served_afterwards(world: World) -> None:
    body = {"model": world.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    statuses = [post(world.gateway, CHAT, body).status for _ in range(20)]
    expect_equal(statuses, [200] * 20, "statuses")
