"""Requests that are answered in time, under one open load for every policy: documents, and a recorded trace."""

import asyncio
import functools
import json
import random
from dataclasses import dataclass

import measure
import proxies
from fleet import QUAD, TRIO, Shape
from lab import Lab
from load import Load
from workload import arrivals, conversations, text

DOCUMENTS, DOCUMENT_TOKENS, SESSIONS, TURNS = 30, 2048, 10, 2
QUESTION_TOKENS, ANSWER, THINK_S = 32, 32, 1.0
# New conversations a second: what three servers on one GPU just bear if they find little.
DOCUMENT_RATE = 25.0

# Of Mooncake's hour the third ten minutes, twenty times as fast, its blocks of 512 tokens as 24: lengths
# that the models here take, and about four times as many different tokens as the four caches hold.
CUT_S, FASTER, BLOCK, SCALED_BLOCK = (1200.0, 1800.0), 20.0, 512, 24


async def documents(lab: Lab) -> None:
    """The documents job as arrivals, before three servers whose caches hold twelve documents each."""
    await _each(lab, "documents", TRIO, SESSIONS * DOCUMENTS / DOCUMENT_RATE + 12, _documents)


async def _documents(load: Load) -> None:
    talks = conversations(DOCUMENTS * SESSIONS, 21, 0, QUESTION_TOKENS, DOCUMENT_TOKENS, DOCUMENTS)
    random.Random(21).shuffle(talks)

    async def run(talk, at: float) -> None:
        await asyncio.sleep(at)
        for turn in range(TURNS):
            await load.chat(talk.number, turn, talk.next(), ANSWER)
            await asyncio.sleep(THINK_S)

    times = arrivals(DOCUMENT_RATE, 2 * len(talks) / DOCUMENT_RATE, 21)
    await asyncio.gather(*(run(talk, at) for talk, at in zip(talks, times)))


async def trace(lab: Lab) -> None:
    """A cut of Mooncake's conversation trace: who asked for what when, words made up."""
    if not lab.options.trace:
        lab.log("trace: left out, no --trace")
        return
    asked = cut(lab.options.trace.read_text().splitlines())
    await _each(lab, "trace", QUAD, (CUT_S[1] - CUT_S[0]) / FASTER + 10, functools.partial(_replay, asked))


@dataclass(frozen=True)
class Asked:
    """One request of the trace; `at` in seconds from the load's start."""

    at: float
    session: int
    prompt: str
    answer: int


def cut(lines: list[str]) -> list[Asked]:
    """It names no sessions: who continues another's blocks, beyond the first that all share, is of its session."""
    sessions: dict[int, int] = {}
    asked = []
    for number, line in enumerate(map(json.loads, lines)):
        at, own = line["timestamp"] / 1e3, line["hash_ids"][1:]
        if not CUT_S[0] <= at < CUT_S[1]:
            continue
        known = [sessions[block] for block in own if block in sessions]
        session = known[-1] if known else number
        sessions.update(dict.fromkeys(own, session))
        words = " ".join(map(_block, line["hash_ids"])).split()
        asked.append(Asked((at - CUT_S[0]) / FASTER, session,
                           " ".join(words[:max(1, line["input_length"] * SCALED_BLOCK // BLOCK)]),
                           max(1, line["output_length"] * SCALED_BLOCK // BLOCK)))
    return asked


@functools.cache
def _block(number: int) -> str:
    return text(SCALED_BLOCK, random.Random(f"trace/{number}"))


async def _replay(asked: list[Asked], load: Load) -> None:
    async def one(what: Asked) -> None:
        await asyncio.sleep(what.at)
        await load.chat(what.session, 0, [{"role": "user", "content": what.prompt}], what.answer)

    await asyncio.gather(*map(one, asked))


async def _each(lab: Lab, experiment: str, shapes: list[Shape], seconds: float, play: measure.Play) -> None:
    lab.fleet.start(shapes)
    for arm in lab.arms(proxies.ARMS):
        lab.needs(seconds, f"{experiment} {arm.name}")
        with lab.surviving(f"{experiment} {arm.name}"):
            await measure.under(lab, experiment, arm, shapes, play)
    lab.dump(experiment, shapes)
