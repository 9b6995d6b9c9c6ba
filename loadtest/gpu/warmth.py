"""Who finds conversations' histories: 32 conversations of five turns, every proxy in turn."""

import asyncio
import time

import proxies
from fleet import QUAD
from lab import Counters, Lab, ms
from load import Load, loading
from workload import Conversation, arrivals, conversations

SESSIONS, TURNS, OWN, SHARED, ANSWER = 32, 5, 6000, 2000, 16
AT_ONCE = 16
THINK_S = 1.0
# New conversations a second, each of five requests.
OPEN_RATE = 2.0
# Kind of loop, seed, tokens of each start that are shared, different shared starts.
ROUNDS = {"own": ("closed", 1, 0, 1), "own-again": ("closed", 2, 0, 1), "shared": ("closed", 3, SHARED, 4),
          "open": ("open", 4, SHARED, 4)}


async def _closed(load: Load, talks: list[Conversation]) -> None:
    """At most so many requests at once, each conversation's turns in order."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def run(talk: Conversation) -> None:
        for turn in range(TURNS):
            async with slots:
                await load.chat(talk.number, turn, talk.next(), ANSWER)

    await asyncio.gather(*(run(talk) for talk in talks))


async def _open(load: Load, talks: list[Conversation], seed: int) -> None:
    """Conversations arrive whatever happens to the others; people think between turns."""

    async def run(talk: Conversation, at: float) -> None:
        await asyncio.sleep(at)
        for turn in range(TURNS):
            await load.chat(talk.number, turn, talk.next(), ANSWER)
            await asyncio.sleep(THINK_S)

    times = arrivals(OPEN_RATE, len(talks), seed)
    await asyncio.gather(*(run(talk, at) for talk, at in zip(talks, times)))


async def _one(lab: Lab, arm: proxies.Arm, kind: str, seed: int, shared: int, groups: int) -> None:
    lab.fleet.reset(QUAD)
    folder = lab.out / f"warmth-{kind}-{seed}-{arm.name}"
    talks = conversations(SESSIONS, seed, OWN - shared, shared=shared, groups=groups)
    with proxies.start(arm, QUAD, folder, lab.options) as proxy:
        counters, cpu_before = Counters(QUAD), proxy.cpu_s()
        async with loading(proxy.url, arm.session) as load:
            began = time.monotonic()
            await (_open(load, talks, seed) if kind == "open" else _closed(load, talks))
            wall_s = time.monotonic() - began
        cpu_s = proxy.cpu_s() - cpu_before
        # Gauges and counters of the engines lag by one step; the events by some milliseconds.
        await asyncio.sleep(0.2)
        counted = counters.since()
        proxy.save(folder)
    lab.keep("warmth", load, arm=arm.name, kind=kind, seed=seed)
    records = load.records
    later = [one.ttft for one in records if one.turn > 0]
    first = [one.ttft for one in records if one.turn == 0]
    tokens = sum(one.output_tokens for one in records)
    lab.figures(
        "warmth", arm=arm.name, kind=kind, seed=seed, shared=shared, requests=len(records),
        failed=sum(not one.ok for one in records), wall_s=round(wall_s, 2),
        per_s=round(len(records) / wall_s, 2), hit_rate=counted.hit_rate, busiest=counted.busiest,
        preemptions=counted.preemptions, per_pod=counted.requests,
        first_p50_ms=ms(first, .5), first_p99_ms=ms(first, .99), later_p50_ms=ms(later, .5),
        later_p90_ms=ms(later, .9), later_p99_ms=ms(later, .99),
        tpot_p50_ms=ms([one.tpot for one in records], .5),
        cpu_us_per_request=round(cpu_s / len(records) * 1e6),
        cpu_us_per_token=round(cpu_s / max(tokens, 1) * 1e6))


async def warmth(lab: Lab) -> None:
    lab.fleet.start(QUAD)
    arms = lab.arms(proxies.ARMS)
    for name in lab.options.rounds:
        kind, seed, shared, groups = ROUNDS[name]
        for arm in arms if seed % 2 else reversed(arms):
            lab.needs(30, f"warmth {name} {arm.name}")
            with lab.surviving(f"warmth {arm.name}"):
                await _one(lab, arm, kind, seed, shared, groups)
    lab.dump("warmth", QUAD)
