"""Who finds conversations' histories: 32 conversations of five turns, every proxy in turn."""

import asyncio
import functools

import measure
import proxies
from fleet import QUAD
from lab import Lab
from load import Load
from workload import Conversation, arrivals, conversations

SESSIONS, TURNS, OWN, SHARED, ANSWER = 32, 5, 6000, 2000, 16
AT_ONCE = 16
THINK_S = 1.0
# New conversations a second, each of five requests.
OPEN_RATE = 2.0
# Kind of loop, seed, tokens of each start that are shared, different shared starts.
ROUNDS = {"own": ("closed", 1, 0, 1), "own-again": ("closed", 2, 0, 1), "shared": ("closed", 3, SHARED, 4),
          "open": ("open", 4, SHARED, 4)}


async def _closed(talks: list[Conversation], _seed: int, load: Load) -> None:
    """At most so many requests at once, each conversation's turns in order."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def run(talk: Conversation) -> None:
        for turn in range(TURNS):
            async with slots:
                await load.chat(talk.number, turn, talk.next(), ANSWER)

    await asyncio.gather(*(run(talk) for talk in talks))


async def _open(talks: list[Conversation], seed: int, load: Load) -> None:
    """Conversations arrive whatever happens to the others; people think between turns."""

    async def run(talk: Conversation, at: float) -> None:
        await asyncio.sleep(at)
        for turn in range(TURNS):
            await load.chat(talk.number, turn, talk.next(), ANSWER)
            await asyncio.sleep(THINK_S)

    times = arrivals(OPEN_RATE, len(talks), seed)
    await asyncio.gather(*(run(talk, at) for talk, at in zip(talks, times)))


async def warmth(lab: Lab) -> None:
    lab.fleet.start(QUAD)
    arms = lab.arms(proxies.ARMS)
    for name in lab.options.rounds:
        kind, seed, shared, groups = ROUNDS[name]
        for arm in arms if seed % 2 else reversed(arms):
            lab.needs(25, f"warmth {name} {arm.name}")
            talks = conversations(SESSIONS, seed, OWN - shared, shared=shared, groups=groups)
            play = functools.partial(_open if kind == "open" else _closed, talks, seed)
            with lab.surviving(f"warmth {arm.name}"):
                await measure.under(lab, "warmth", arm, QUAD, play, f"{kind}-{seed}",
                                    kind=kind, seed=seed, shared=shared)
    lab.dump("warmth", QUAD)
