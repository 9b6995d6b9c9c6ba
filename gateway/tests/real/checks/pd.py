"""Prefill on one real server, decode on another: the same answers, and no client sees one die."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from exchange import Answer, events, post
from harness import check, expect, expect_equal
from processes import get, wait_until
from split import LEASE_S, Splitting

COMPLETIONS = "/v1/completions"
# What float32 leaves between one way of computing a prompt and another.
NATS = 2e-3


def ids(count: int, seed: int | None = None) -> list[int]:
    """A prompt of its own, as ids: its length is exact."""
    rng = random.Random(time.time_ns() if seed is None else seed)
    return [rng.randrange(1000, 100_000) for _ in range(count)]


def body(prompt: list[int], **more) -> dict:
    return {"model": "pd", "prompt": prompt, "max_tokens": 6, "temperature": 0, "logprobs": 1} | more


def decided(answer: Answer) -> str:
    return answer.headers.get("x-hearth-decision", "")


def asked(world: Splitting, prompt: list[int], **more) -> Answer:
    answer = post(world.gateway, COMPLETIONS, body(prompt, **more), timeout_s=300)
    expect_equal(answer.status, 200, f"status ({answer.body[:200]!r})")
    return answer


def logprobs(answer: Answer) -> list[float]:
    return answer.json()["choices"][0]["logprobs"]["token_logprobs"]


def expect_same(got: Answer, wanted: Answer) -> None:
    pairs = list(zip(logprobs(got), logprobs(wanted), strict=True))
    worst = max(abs(a - b) for a, b in pairs)
    expect(worst <= NATS, f"log probabilities differ by {worst:.4f} nat: {pairs}")


def is_split(world: Splitting, answer: Answer) -> bool:
    return f'prefill="{world.pods[0].address}"' in decided(answer)


@check("pd/warm-up", "pd", limit_s=300)
def warm_up(world: Splitting) -> None:
    """The first log probabilities of a process take 20 s, and the first transfer has a handshake."""
    with ThreadPoolExecutor(2) as pool:
        for answer in pool.map(lambda pod: post(pod.url, COMPLETIONS, body(ids(40)), timeout_s=200),
                               world.pods):
            expect_equal(answer.status, 200, "status")
    asked(world, ids(400))


@check("pd/an-uncached-prompt-splits-and-a-warm-one-does-not", "pd", limit_s=120)
def splits(world: Splitting) -> None:
    prompt = ids(1500)
    moved = world.pods[1].metric("external_prefix_cache_hits_total")
    cold = asked(world, prompt)
    expect(is_split(world, cold), f"the first: {decided(cold)}")
    grown = world.pods[1].metric("external_prefix_cache_hits_total") - moved
    expect(grown >= 1400, f"the decode pod got {grown:g} tokens from elsewhere")
    warm = asked(world, prompt)
    expect("split=short" in decided(warm), f"the second: {decided(warm)}")
    expect_same(warm, cold)
    expect("split=short" in decided(asked(world, ids(100))), "a short one")


@check("pd/answers-equal-those-of-one-pod", "pd", limit_s=240)
def equal(world: Splitting) -> None:
    for count in (300, 700, 1500, 2900):
        prompt = ids(count)
        answer = asked(world, prompt)
        expect(is_split(world, answer), f"{count} tokens: {decided(answer)}")
        expect_same(answer, post(world.pods[0].url, COMPLETIONS, body(prompt), timeout_s=60))


@check("pd/usage-tells-what-the-prefill-pod-reused", "pd", limit_s=120)
def usage(world: Splitting) -> None:
    head = ids(1024)
    # Only the prefill pod knows the beginning.
    post(world.pods[0].url, COMPLETIONS, body(head + ids(8)), timeout_s=60)
    for stream in (False, True):
        prompt = head + ids(400)
        if stream:
            more = {"stream_options": {"include_usage": True}}
            *_, last, done = list(events(world.gateway, COMPLETIONS, body(prompt, **more)))
            expect_equal(done, b"[DONE]", "the last event")
            counts = Answer(200, "", last, {}).json()["usage"]
        else:
            answer = asked(world, prompt)
            expect(is_split(world, answer), decided(answer))
            counts = answer.json()["usage"]
        expect_equal(counts["prompt_tokens"], len(prompt), "prompt tokens")
        expect_equal(counts["prompt_tokens_details"]["cached_tokens"], 1024, f"cached, {stream=}")


@check("pd/chat-responses-and-messages-split", "pd", limit_s=120)
def apis(world: Splitting) -> None:
    for path, more in (
        ("/v1/chat/completions", {"max_completion_tokens": 6, "n": 1, "logprobs": True}),
        ("/v1/chat/completions", {"max_tokens": 6, "min_tokens": 6, "stop": ["zzz"],
                                  "response_format": {"type": "json_object"}}),
        ("/v1/messages", {"max_tokens": 6}),
        ("/v1/responses", {"max_output_tokens": 6}),
    ):
        text = " ".join(str(i) for i in ids(400))
        messages = [{"role": "user", "content": text}]
        key = "input" if path == "/v1/responses" else "messages"
        before = world.pods[0].metric("generation_tokens_total")
        answer = post(world.gateway, path, {"model": "pd", key: messages, "temperature": 0} | more,
                      timeout_s=90)
        expect_equal(answer.status, 200, f"{path}: {answer.body[:200]!r}")
        expect(is_split(world, answer), f"{path}: {decided(answer)}")
        sampled = world.pods[0].metric("generation_tokens_total") - before
        expect_equal(sampled, 1.0, f"{path}: tokens that the prefill pod sampled")


@check("pd/hostile-params-kill-nobody", "pd", limit_s=120)
def hostile(world: Splitting) -> None:
    for params in ({"do_remote_prefill": True},
                   {"do_remote_prefill": True, "remote_block_ids": [[1, 2]], "remote_host": "127.0.0.1"}):
        for count in (20, 600):
            for more in ({"kv_transfer_params": params},
                         {"vllm_xargs": {"kv_transfer_params": "x"}}):
                asked(world, ids(count), **more)
    for pod in world.pods:
        expect_equal(get(f"{pod.url}/health")[0], 200, f"{pod.name} lives")


@check("pd/a-frozen-gateway-reads-nothing-stale", "pd", limit_s=400)
def frozen(world: Splitting) -> None:
    for _ in range(3):
        prompt = ids(3800)
        with ThreadPoolExecutor(1) as pool:
            one = pool.submit(asked, world, prompt)
            # The prefill pod has the request, and takes a second for it.
            time.sleep(0.15)
            world.freeze()
            # It has answered, and its blocks have been another's since.
            time.sleep(LEASE_S + 3)
            for _ in range(10):
                post(world.pods[0].url, COMPLETIONS, body(ids(3800)), timeout_s=60)
            world.thaw()
            answer = one.result()
        expect_same(answer, post(world.pods[0].url, COMPLETIONS, body(prompt), timeout_s=60))
        wait_until(lambda: world.lines(), 5, "a line of the log")
        failed = [it["reason"] for it in world.lines()[-1]["attempts_failed"]]
        if failed:
            expect("lease_over" in failed, f"attempts failed: {failed}")
            return
    raise AssertionError("three times the prefill was done before the gateway was frozen")


@check("pd/blocks-that-nobody-wants-are-freed", "pd", limit_s=60)
def released(world: Splitting) -> None:
    """What Hearth sends to give blocks back is turned down by the decode pod, which frees them."""
    prefill, decode = world.pods
    wait_until(lambda: prefill.metric("kv_cache_usage_perc") == 0, 30, "no block is kept")
    keep = {"do_remote_decode": True, "do_remote_prefill": False}
    answer = post(prefill.url, COMPLETIONS, body(ids(1500), max_tokens=1, kv_transfer_params=keep))
    params = answer.json()["kv_transfer_params"]
    turned_down = {"model": "\0released", "prompt": "a", "max_tokens": 1, "kv_transfer_params": params}
    answer = post(decode.url, COMPLETIONS, turned_down)
    expect_equal(answer.status, 404, f"status ({answer.body[:200]!r})")
    began = time.monotonic()

    def freed():
        # The gauge moves with steps.
        post(prefill.url, COMPLETIONS, body([1], max_tokens=1))
        return prefill.metric("kv_cache_usage_perc") < 0.01

    wait_until(freed, LEASE_S / 2, "the blocks are freed long before the lease is over")
    print(f"# freed after {time.monotonic() - began:.2f} s of a lease of {LEASE_S} s")
    expect_equal(get(f"{decode.url}/health")[0], 200, "the decode pod lives")


@check("pd/kill-of-the-prefill-pod-is-seen-by-nobody", "pd", limit_s=240)
def killed(world: Splitting) -> None:
    clients = 8
    ready = threading.Barrier(clients + 1)

    def client(n: int) -> Answer:
        prompt = ids(1500, time.time_ns() + n)
        ready.wait()
        return asked(world, prompt)

    with ThreadPoolExecutor(clients) as pool:
        answers = [pool.submit(client, n) for n in range(clients)]
        ready.wait()
        time.sleep(0.3)
        world.pods[0].group.kill()
        told = [decided(one.result()).partition("trust=")[2] for one in answers]
    print(f"# {sorted(told)}")
    after = asked(world, ids(1500))
    expect(not is_split(world, after), f"afterwards: {decided(after)}")
