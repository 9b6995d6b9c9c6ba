"""One load through one proxy, before servers whose caches are empty: records, figures, and what it says of itself."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import proxies
from fleet import Shape
from lab import Counters, Lab, ms
from load import Load, loading

# A load: it sends through what it is given, and returns when all is answered.
Play = Callable[[Load], Awaitable[None]]


async def under(lab: Lab, experiment: str, arm: proxies.Arm, shapes: list[Shape], play: Play, run: str = "",
                **labels) -> None:
    """`run` names the folder beside the experiment and the arm; `labels` go to every record and figure."""
    lab.fleet.reset(shapes)
    folder = lab.folder("-".join(filter(None, (experiment, run, arm.name))))
    with proxies.start(arm, shapes, folder, lab.options) as proxy:
        counters, cpu_before = Counters(shapes), proxy.cpu_s()
        async with loading(proxy.url, arm.session) as load:
            began = time.monotonic()
            await play(load)
            wall_s = time.monotonic() - began
        cpu_s = proxy.cpu_s() - cpu_before
        # Gauges and counters of the engines lag by one step; the events by some milliseconds.
        await asyncio.sleep(0.2)
        counted = counters.since()
        proxy.save(folder)
    lab.keep(experiment, load, arm=arm.name, **labels)
    records = load.records
    ttfts = [one.ttft for one in records]
    later = [one.ttft for one in records if one.turn > 0]
    first = [one.ttft for one in records if one.turn == 0]
    good = sum(one.good for one in records)
    tokens = sum(one.output_tokens for one in records)
    lab.figures(
        experiment, arm=arm.name, **labels, requests=len(records),
        failed=sum(not one.ok for one in records), wall_s=round(wall_s, 2),
        per_s=round(len(records) / wall_s, 2), good=good, goodput_per_s=round(good / wall_s, 2),
        hit_rate=counted.hit_rate, busiest=counted.busiest,
        preemptions=counted.preemptions, per_pod=counted.requests,
        ttft_p50_ms=ms(ttfts, .5), ttft_p90_ms=ms(ttfts, .9), ttft_p99_ms=ms(ttfts, .99),
        first_p50_ms=ms(first, .5), first_p99_ms=ms(first, .99), later_p50_ms=ms(later, .5),
        later_p90_ms=ms(later, .9), later_p99_ms=ms(later, .99),
        tpot_p50_ms=ms([one.tpot for one in records], .5), tpot_p90_ms=ms([one.tpot for one in records], .9),
        cpu_us_per_request=round(cpu_s / len(records) * 1e6),
        cpu_us_per_token=round(cpu_s / max(tokens, 1) * 1e6))
