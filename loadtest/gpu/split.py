"""Prefill and decode on two servers: Hearth's own decision beside always, never, and no roles."""

import asyncio
import random
import signal

import proxies
from fleet import PAIR
from lab import Counters, Lab, ms
from load import Load, loading
from workload import arrivals, text

ROLES = {"p0": "prefill", "d0": "decode"}
LENGTHS, ANSWER = (1000, 2000, 4000, 8000), 96
# Requests a second for each GPU, and for how long.
RATES, SECONDS = (1.0, 3.0, 5.0), 14.0

OWN = proxies.hearth("own")
ALWAYS = proxies.hearth("always", split={"stall": 1000, "min_uncached_tokens": 64})
# What is learned of transfers says how short a prompt is not worth one; this asks whether it says too much.
SHORTER = proxies.hearth("own-512", split={"min_uncached_tokens": 512})
# Hearth refuses to start with prefill pods and no connector; a prompt this long does not exist.
NEVER = proxies.hearth("never", split={"min_uncached_tokens": 1_000_000})
AGGREGATED = proxies.hearth("aggregated", split={"connector": "off"})


async def _arrive(load: Load, rate: float, seconds: float, seed: int) -> None:
    rng = random.Random(seed)

    async def one(number: int, at: float, prompt: str) -> None:
        await asyncio.sleep(at)
        await load.chat(number, 0, [{"role": "user", "content": prompt}], ANSWER)

    times = arrivals(rate, seconds, seed)
    prompts = [text(rng.choice(LENGTHS), rng) for _ in times]
    await asyncio.gather(*(one(i, at, prompt) for i, (at, prompt) in enumerate(zip(times, prompts))))


def _roles(arm: proxies.Arm) -> dict[str, str]:
    return {} if arm is AGGREGATED else ROLES


async def split(lab: Lab) -> None:
    lab.fleet.start(PAIR)
    for arm in lab.arms((OWN, SHORTER, ALWAYS, NEVER, AGGREGATED)):
        lab.needs(len(RATES) * (SECONDS + 4), f"split {arm.name}")
        lab.fleet.reset(PAIR)
        folder = lab.folder(f"split-{arm.name}")
        with (lab.surviving(f"split {arm.name}"),
              proxies.start(arm, PAIR, folder, lab.options, _roles(arm)) as proxy):
            async with loading(proxy.url) as warm_up:  # NIXL's handshake, and the first rates
                await _arrive(warm_up, 2, 3, 99)
            for rate in RATES:
                await _load(lab, arm, proxy, rate * lab.options.gpus)
            proxy.save(folder)
    lab.dump("split", PAIR)


async def _load(lab: Lab, arm: proxies.Arm, proxy: proxies.Running, rate: float) -> None:
    counters, seen, cpu_before = Counters(PAIR), len(proxy.access()), proxy.cpu_s()
    async with loading(proxy.url) as load:
        await _arrive(load, rate, SECONDS, int(rate))
    await asyncio.sleep(0.2)
    lines = proxy.access()[seen:]
    lab.keep("split", load, arm=arm.name, rate=rate)
    # The rest of a split request's time to its first token is the gateway's own.
    legs = [(line["ttft_ms"] - line["prefill_ms"] - line["transfer_ms"]) / 1e3 for line in lines
            if line["prefill_ms"] is not None and line["transfer_ms"] is not None]
    records = load.records
    lab.figures(
        "split", arm=arm.name, rate=rate, requests=len(records),
        failed=sum(not one.ok for one in records), split=len(legs),
        ttft_p50_ms=ms([one.ttft for one in records], .5), ttft_p90_ms=ms([one.ttft for one in records], .9),
        tpot_p50_ms=ms([one.tpot for one in records], .5), tpot_p90_ms=ms([one.tpot for one in records], .9),
        gap_p90_ms=ms([one.largest_gap for one in records], .9), good=sum(one.good for one in records),
        gateway_p50_ms=ms(legs, .5), gateway_p99_ms=ms(legs, .99),
        cpu_us_per_request=round((proxy.cpu_s() - cpu_before) / max(len(records), 1) * 1e6),
        per_pod=counters.since().requests)


async def split_kill(lab: Lab) -> None:
    """The prefill server dies under load; the decode server recomputes what did not come."""
    lab.fleet.start(PAIR)
    lab.needs(40, "split-kill")
    folder = lab.folder("split-kill")
    with proxies.start(ALWAYS, PAIR, folder, lab.options, ROLES) as proxy:
        async with loading(proxy.url) as load:
            running = asyncio.create_task(_arrive(load, 4, 12, 5))
            await asyncio.sleep(5)
            lab.fleet.signal(PAIR[0], signal.SIGKILL)
            lab.log("split-kill: p0 killed")
            await running
        await asyncio.sleep(0.2)
        proxy.save(folder)
        lines = proxy.access()
    lab.keep("split-kill", load)
    lab.figures("split-kill", requests=len(load.records), failed=sum(not one.ok for one in load.records),
                ttft_max_ms=ms([one.ttft for one in load.records], 1.0),
                split=sum(line["prefill_ms"] is not None for line in lines),
                errors=sorted({one.error for one in load.records if one.error}))
