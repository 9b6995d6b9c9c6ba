"""What Hearth says that a pod holds beside what its engine then finds, evictions included."""

import asyncio
import random
from collections import Counter

import proxies
from fleet import QUAD
from lab import Counters, Lab
from load import loading
from workload import Conversation

# 360 k tokens, of which the four caches hold 262 k.
CONVERSATIONS, OWN = 120, 3000
REQUESTS = 400
# One engine step and its batch of events; the gateway applies them in less than a millisecond.
DRAIN_S = 0.03


async def truth(lab: Lab) -> None:
    """One request after the other, each when the events of the one before are heard."""
    lab.fleet.start(QUAD)
    lab.needs(90, "truth")
    lab.fleet.reset(QUAD)
    rng, folder = random.Random(7), lab.folder("truth")
    talks = [Conversation(number, 7, OWN, 100) for number in range(CONVERSATIONS)]
    counters = Counters(QUAD)
    with proxies.start(proxies.WARM, QUAD, folder, lab.options) as proxy:
        async with loading(proxy.url) as load:
            for number in range(REQUESTS):
                # Half of them to what was used of late.
                span = CONVERSATIONS if number % 2 else CONVERSATIONS // 6
                talk = talks[(number // 3 + rng.randrange(span)) % CONVERSATIONS]
                await load.chat(talk.number, len(talk.messages), talk.next(), 4)
                await asyncio.sleep(DRAIN_S)
        await asyncio.sleep(0.2)
        proxy.save(folder)
        table = verdicts(proxy.access())
    lab.keep("truth", load)
    counted = counters.since()
    lab.figures("truth", failed=sum(not one.ok for one in load.records), hit_rate=counted.hit_rate,
                busiest=counted.busiest, **table)
    lab.dump("truth", QUAD)


def verdicts(access: list[dict]) -> dict[str, int]:
    """`TRUST_VERDICT` to how many requests; only those whose pod said what it found."""
    table: Counter = Counter()
    for line in access:
        matched, cached = line["matched_tokens"], line["cached_tokens"]
        if matched is None or cached is None or line["moves"] or line["prefill_host"]:
            continue
        trust = (line["decision"] or "").partition("trust=")[2].partition(";")[0] or "none"
        verdict = "equal" if matched == cached else "over" if matched > cached else "under"
        table[f"{trust}_{verdict}"] += 1
    return dict(table)


def judged(pool: dict) -> dict[str, int]:
    """What Hearth itself counts as told wrongly, and what others took between decision and answer."""
    table: Counter = Counter()
    for pod in pool["pods"]:
        predictions = (pod.get("kv_events") or {}).get("predictions") or {}
        table.update({f"hearth_{name}": predictions.get(name, 0) for name in ("over", "overtaken")})
    return dict(table)
