"""What a gateway adds to the first token of a prompt that is cached, request by request beside none."""

import random

import proxies
from fleet import QUAD
from lab import Lab, ms
from load import loading
from workload import text

# Prompt tokens, and how often each proxy is asked.
CELLS = ((1000, 150), (8000, 60))
DIRECT = proxies.Arm("direct", "direct")


async def cost(lab: Lab) -> None:
    """One server, one request at a time, the proxies in turn: what differs is theirs."""
    shape = QUAD[3:]
    lab.fleet.start(shape)
    wanted = [one for one in proxies.ARMS if one.name in ("hearth-warm", "envoy", "vllm-router", "envoy-epp")]
    running = [proxies.start(DIRECT, shape, lab.folder("cost-direct"), lab.options)]
    try:
        for arm in lab.arms(wanted):
            with lab.surviving(f"cost {arm.name}"):
                running.append(proxies.start(arm, shape, lab.folder(f"cost-{arm.name}"), lab.options))
        for tokens, times in CELLS:
            lab.needs(45, f"cost {tokens}")
            await _cell(lab, running, tokens, times)
    finally:
        for proxy in running:
            proxy.__exit__()


async def _cell(lab: Lab, running: list[proxies.Running], tokens: int, times: int) -> None:
    prompt = [{"role": "user", "content": text(tokens, random.Random(tokens))}]
    loads, cpu_s = {}, {}
    for proxy in running:
        async with loading(proxy.url) as load:
            loads[proxy.arm.name] = load
            for _ in range(3):
                await load.chat(0, 0, prompt, 16)
            load.records.clear()
        cpu_s[proxy.arm.name] = proxy.cpu_s()
    clients = [(proxy, loading(proxy.url)) for proxy in running]
    opened = [(proxy, await client.__aenter__()) for proxy, client in clients]
    for turn in range(times):
        for proxy, load in opened if turn % 2 else reversed(opened):
            await load.chat(0, turn, prompt, 16)
    for _, client in clients:
        await client.__aexit__(None, None, None)
    direct = [one.ttft for one in opened[0][1].records]
    for proxy, load in opened:
        ttfts = [one.ttft for one in load.records]
        added = [mine - theirs for mine, theirs in zip(ttfts, direct) if mine and theirs]
        lab.keep("cost", load, arm=proxy.arm.name, tokens=tokens)
        lab.figures("cost", arm=proxy.arm.name, tokens=tokens, requests=len(ttfts),
                    failed=sum(not one.ok for one in load.records),
                    ttft_p50_ms=ms(ttfts, .5), ttft_p99_ms=ms(ttfts, .99),
                    added_p50_ms=ms(added, .5), added_p99_ms=ms(added, .99),
                    cpu_us_per_request=round((proxy.cpu_s() - cpu_s[proxy.arm.name]) / times * 1e6))
