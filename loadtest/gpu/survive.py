"""Servers are killed, ended and stopped under load: what did clients see, and how fast is it warm again?"""

import asyncio
import signal
import time

import proxies
from fleet import QUAD
from lab import Lab, ms
from load import Load, Record, loading
from workload import Conversation, conversations

# Some five streams are under way on each server when harm comes. At the end they have some 115,000 tokens:
# two servers hold them, so that what is cold again is what a server's end took.
SESSIONS, OWN, ANSWER, THINK_S = 24, 1500, 256, 0.5
SECONDS = 75.0
KILL_AT, TERM_AT, STOP_AT, STOP_S = 12.0, 26.0, 40.0, 5.0
# Streams that moved, asked again without a cut.
COMPARED = 12


class Talk(Conversation):
    """Keeps what each turn asked, to ask it again."""

    def __init__(self, talk: Conversation):
        self.__dict__.update(talk.__dict__)
        self.asked: list[list[dict]] = []

    def next(self) -> list[dict]:
        self.asked.append(super().next())
        return self.asked[-1]


async def survive(lab: Lab) -> None:
    lab.fleet.start(QUAD)
    lab.needs(SECONDS + 30, "survive")
    lab.fleet.reset(QUAD)
    folder = lab.folder("survive")
    talks = [Talk(talk) for talk in conversations(SESSIONS, 11, OWN)]
    with proxies.start(proxies.WARM, QUAD, folder, lab.options) as proxy:
        async with loading(proxy.url) as load:
            ends = time.monotonic() + SECONDS
            await asyncio.gather(_harm(lab, load), *(_talk(load, talk, ends) for talk in talks))
        await asyncio.sleep(0.2)
        proxy.save(folder)
        lines = {line["request_id"]: line for line in proxy.access()}
    lab.keep("survive", load)
    moved = [one for one in load.records if lines.get(one.request_id, {}).get("moves")]
    bad = [one for one in load.records if not one.ok]
    lab.figures("survive", requests=len(load.records), failed=len(bad), moved=len(moved),
                moved_whole=sum(one.ok and one.output_tokens == ANSWER for one in moved),
                retried=sum(line["attempts"] > 1 for line in lines.values()),
                gap_p99_ms=ms([one.largest_gap for one in load.records], .99),
                gap_max_ms=ms([one.largest_gap for one in load.records], 1.0),
                moved_gap_p50_ms=ms([one.largest_gap for one in moved], .5),
                ttft_p50_ms=ms([one.ttft for one in load.records], .5),
                ttft_max_ms=ms([one.ttft for one in load.records], 1.0),
                errors=sorted({one.error for one in bad})[:5])
    await _compare(lab, moved, talks)
    lab.dump("survive", QUAD)


async def _talk(load: Load, talk: Talk, ends: float) -> None:
    turn = 0
    # They start over three seconds, so that their turns do not come in one step.
    await asyncio.sleep(talk.number * 3 / SESSIONS)
    while time.monotonic() < ends:
        await load.chat(talk.number, turn, talk.next(), ANSWER)
        turn += 1
        await asyncio.sleep(THINK_S)


async def _harm(lab: Lab, load: Load) -> None:
    """Kill, end, stop; what was killed comes back as a new process."""
    async def at(seconds: float) -> None:
        await asyncio.sleep(max(0.0, load.began + seconds - time.monotonic()))

    def say(text: str) -> None:
        lab.figures("survive-events", at=round(time.monotonic() - load.began, 2), event=text)

    await at(KILL_AT)
    lab.fleet.signal(QUAD[0], signal.SIGKILL)
    say("s0 killed")
    program = lab.fleet.launch(QUAD[0])
    back = asyncio.create_task(asyncio.to_thread(lab.fleet.wait_ready, QUAD[0], program))
    back.add_done_callback(lambda _: say("s0 answers again"))
    await at(TERM_AT)
    lab.fleet.signal(QUAD[1], signal.SIGTERM)
    say("s1 gets SIGTERM")
    await at(STOP_AT)
    lab.fleet.signal(QUAD[2], signal.SIGSTOP)
    say("s2 stopped")
    await at(STOP_AT + STOP_S)
    lab.fleet.signal(QUAD[2], signal.SIGCONT)
    say("s2 goes on")
    # A server that does not come back is a line in the summary, not the end of the experiment.
    await asyncio.wait([back], timeout=60)


async def _compare(lab: Lab, moved: list[Record], talks: list[Talk]) -> None:
    """Do moved streams say what an uncut one does? In bfloat16 they need not."""
    equal, shares = 0, []
    chosen = [one for one in moved if one.ok][:COMPARED]
    async with loading(QUAD[3].url) as load:
        for one in chosen:
            again = await load.chat(one.session, one.turn, talks[one.session].asked[one.turn], ANSWER)
            equal += again.text == one.text
            same = next((i for i, (a, b) in enumerate(zip(again.text, one.text)) if a != b),
                        min(len(again.text), len(one.text)))
            shares.append(round(same / max(len(again.text), 1), 3))
    lab.figures("survive-equal", compared=len(chosen), equal=equal, same_share=shares)
